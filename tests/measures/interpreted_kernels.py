"""The kernels against the formulas, on CPU tensors: run by `test_kernels.py` in a process where Triton interprets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.measures import kernels
from lensai_integrations.measures.images import image_measures, measure_by_conventions
from lensai_integrations.measures.inputs import Images

BOTH = ("lensai", "lensai-edge")
GAIN, OFFSET = (58.395, 57.12, 57.375), (123.675, 116.28, 103.53)
#: dtype, the numbers of 0 and 255 in it, and what takes it back.
READINGS = {
    "bytes": (torch.uint8, (1.0,) * 3, (0.0,) * 3, False),
    "half bytes": (torch.uint8, (0.5,) * 3, (3.0,) * 3, False),
    "whole": (torch.int32, (1.0,) * 3, (0.0,) * 3, False),
    "float32": (torch.float32, (255.0,) * 3, (0.0,) * 3, False),
    "float64": (torch.float64, (255.0,) * 3, (0.0,) * 3, False),
    "normalised": (torch.float32, GAIN, OFFSET, False),
    "float16": (torch.float16, GAIN, OFFSET, True),
    "bfloat16": (torch.bfloat16, (255.0,) * 3, (0.0,) * 3, True),
}


def contents(kind, shape, random):
    """Pixels on the 0-255 scale, `[n, C, H, W]`."""
    n, channels, height, width = shape
    if kind == "noise":
        return random.integers(0, 256, shape).astype(np.float64)
    if kind == "constant":
        return np.broadcast_to(random.uniform(0, 255, (n, channels, 1, 1)), shape).copy()
    if kind == "grey":
        return np.broadcast_to(random.integers(0, 256, (n, 1, height, width)), shape).astype(np.float64)
    if kind == "dim":
        return 100 + random.normal(0, 0.3, shape)
    ramp = np.linspace(0, 255, width) * 0.7 + np.linspace(0, 70, height)[:, None]
    return ramp + random.uniform(0, 5, (n, channels, 1, 1))


def as_batch(values, reading, layout):
    """The pixels as a batch has them: a tensor `[n, C, H, W]` of that dtype and those strides."""
    dtype, gain, offset, _ = READINGS[reading]
    channels = values.shape[1]
    columns = np.reshape(gain[:channels], (-1, 1, 1)), np.reshape(offset[:channels], (-1, 1, 1))
    raw = (values - columns[1]) / columns[0]
    if not dtype.is_floating_point:
        raw = np.clip(np.rint(raw), 0, 255)
    batch = torch.from_numpy(np.ascontiguousarray(raw)).to(dtype)
    if layout == "NHWC":
        return batch.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    if layout == "cropped":
        room = torch.zeros((batch.shape[0], channels + 1, batch.shape[2] + 3, 2 * batch.shape[3] + 1), dtype=dtype)
        room[:, 1:, 2:-1, 1::2] = batch
        return room[:, 1:, 2:-1, 1::2]
    return batch


def by_numpy(batch, reading, conventions):
    _, gain, offset, whole = READINGS[reading]
    channels = batch.shape[1]
    pixels = batch.float().numpy() if batch.dtype == torch.bfloat16 else batch.numpy()
    return measure_by_conventions(Images(pixels, gain[:channels], offset[:channels], "", whole), conventions)


def by_kernels(batch, reading, conventions):
    _, gain, offset, whole = READINGS[reading]
    channels = batch.shape[1]
    images = Images(batch, gain[:channels], offset[:channels], "", whole)
    answer = kernels.measured(images, conventions)
    assert answer is not None, kernels._failed
    return answer


def allowed(names, row, pixels, of_bytes):
    """How far each measure may be from the formula's: a ten-thousandth, and what float32 has lost before it."""
    numbers = dict(zip(names, row.tolist(), strict=True))
    room = {name: 1e-4 * abs(number) + 3e-4 for name, number in numbers.items()}
    if "snr" in numbers:
        room["snr"] += 10 * 3e-5 / max(numbers["contrast"], 1e-3)
    if "hue" in numbers:
        room["saturation"] += 3e-3  # on the host, black may be what rounding leaves of it
        red, green, blue = (numbers[f"mean/{channel}"] for channel in range(3))
        chroma = math.hypot(red - 0.5 * (green + blue), math.sqrt(0.75) * (green - blue))
        room["hue"] += 360 if chroma < 0.01 else 60 * 1e-4 / chroma
    if "entropy" in numbers and not of_bytes:  # a luma that is at a boundary may be on either side of it
        room["entropy"] += 4 * math.log2(pixels + 1) / pixels
        room["near_black"] += 200 / pixels
        room["near_white"] += 200 / pixels
    return np.array([room[name] for name in names])


def check(batch, reading, conventions, of_bytes):
    expected, _, counts, n = by_numpy(batch, reading, conventions)
    rows, found, counted = by_kernels(batch, reading, conventions)
    assert np.array_equal(found.numpy(), counts)
    assert int(counted) == (batch.shape[0] if n is None else n)
    channels, height, width = batch.shape[1:]
    for name in conventions:
        streams = list(image_measures(channels, name))
        assert rows[name].dtype == torch.float32
        for ours, theirs in zip(rows[name].numpy(), np.asarray(expected[name]), strict=True):
            assert np.isnan(ours).all() == np.isnan(ours).any() == np.isnan(theirs).any()
            if np.isnan(theirs).any():
                continue
            apart = np.abs(ours.astype(np.float64) - theirs)
            if "hue" in streams:
                hue = streams.index("hue")
                apart[hue] = min(apart[hue], 360 - apart[hue])
            wrong = apart > allowed(streams, theirs, height * width, of_bytes)
            assert not wrong.any(), [(streams[i], ours[i], theirs[i]) for i in np.flatnonzero(wrong)]
    return rows


@st.composite
def cases(draw):
    reading = draw(st.sampled_from(sorted(READINGS)))
    kind = draw(st.sampled_from(["noise", "constant", "grey", "dim", "ramp"]))
    sizes = st.one_of(st.integers(1, 4), st.integers(1, 17))
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from([1, 3])), draw(sizes), draw(sizes))
    layout = draw(st.sampled_from(["NCHW", "NHWC", "cropped"]))
    conventions = draw(st.sampled_from([BOTH, BOTH[:1], BOTH[1:], BOTH[::-1]]))
    spoiled = draw(st.sampled_from([None, None, math.nan, math.inf, -math.inf, 281.0, -26.0, 270.0, -20.0]))
    return reading, kind, shape, layout, conventions, spoiled, draw(st.integers(0, 1000))


@given(case=cases())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_every_measure_and_count_is_the_formulas(case):
    reading, kind, shape, layout, conventions, spoiled, seed = case
    random = np.random.default_rng(seed)
    values = contents(kind, shape, random)
    batch = as_batch(values, reading, layout)
    if spoiled is not None and batch.is_floating_point():
        _, gain, offset, _ = READINGS[reading]
        batch[0, -1, shape[2] - 1, shape[3] // 2] = (spoiled - offset[shape[1] - 1]) / gain[shape[1] - 1]
    of_bytes = reading in ("bytes", "whole") or (kind in ("noise", "grey") and spoiled is None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "BLOCK", 32)  # several blocks of small images, and several of them at once
        patch.setattr(kernels, "TOGETHER", 4)
        check(batch, reading, conventions, of_bytes)


@pytest.mark.parametrize(("reading", "layout", "shape"), [
    ("bytes", "NHWC", (1, 3, 500, 375)), ("float32", "NCHW", (2, 3, 64, 96)), ("bfloat16", "cropped", (1, 1, 45, 46)),
])  # fmt: skip
def test_images_of_many_blocks(reading, layout, shape, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 1 << 14 if shape[2] == 500 else kernels.BLOCK)
    check(as_batch(contents("noise", shape, np.random.default_rng(1)), reading, layout), reading, BOTH, True)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (1, 40), (40, 1)])
def test_the_smallest_images(size):
    check(as_batch(contents("noise", (2, 3, *size), np.random.default_rng(2)), "bytes", "NCHW"), "bytes", BOTH, True)


@pytest.mark.parametrize("reading", ["bytes", "float32", "normalised"])
@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_remains_of_constant_images(reading, channels, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 64)
    values = np.array([0.0, 0.3, 99.7, 255.0]).reshape(-1, 1, 1, 1) * np.ones((1, channels, 9, 23))
    rows = check(as_batch(values, reading, "NCHW"), reading, BOTH, reading == "bytes")
    names = list(image_measures(channels))
    spreads = ["contrast", "sharpness", "noise_sigma", "entropy", *(f"std/{i}" for i in range(channels))]
    assert not rows["lensai"][:, [names.index(name) for name in spreads]].any()
    assert not rows["lensai-edge"][:, 1].any()
    assert (rows["lensai-edge"][:, 2] == 200.0).all()


def test_batches_of_many_pixels_are_taken_in_parts(monkeypatch):
    monkeypatch.setattr(kernels, "MOST_PIXELS", 2 * kernels.BLOCK)
    values = contents("noise", (5, 3, 6, 7), np.random.default_rng(3))
    batch = as_batch(values, "float32", "NCHW")
    batch[3, 0, 0, 0] = math.nan
    check(batch, "float32", BOTH, True)


def test_far_apart_pixels_are_reached():
    """As if an image reached over more than 2^31 elements, which it would have to for 64 bits to be needed."""
    numbers = {}

    def launch(kernel, programs, tensors, others, original=kernels.launch):
        others = {**others, "WIDE": True} if kernel == "point" else others
        numbers[kernel] = others
        original(kernel, programs, tensors, others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "launch", launch)
        batch = as_batch(contents("noise", (2, 3, 5, 9), np.random.default_rng(4)), "bytes", "cropped")
        check(batch, "bytes", BOTH, True)
    assert numbers["point"]["WIDE"]
    assert numbers["point"]["ROWS"]


def test_the_same_comes_out_again_bit_by_bit():
    batch = as_batch(contents("dim", (2, 3, 40, 70), np.random.default_rng(5)), "float32", "NCHW")
    first, again = (by_kernels(batch, "float32", BOTH) for _ in range(2))
    assert all(torch.equal(first[0][name], again[0][name]) for name in BOTH)
    assert torch.equal(first[1], again[1])


def test_channels_farther_apart_than_half_of_what_32_bits_reach():
    """Only the pages that are read or written are there."""
    shape, apart = (1, 3, 4, 5), 1_100_000_000
    batch = torch.empty(2 * apart + 20, dtype=torch.uint8).as_strided(shape, (0, apart, 5, 1))
    batch[...] = as_batch(contents("noise", shape, np.random.default_rng(6)), "bytes", "NCHW")
    check(batch, "bytes", BOTH, True)
