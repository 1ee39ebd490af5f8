from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import InputError
from lensai_integrations.measures import pixels
from lensai_integrations.measures.images import (
    CONVENTIONS,
    image_measures,
    measure_images,
    measure_images_and_bytes,
    pixel_bytes,
)
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.sketches.counts import PixelCounts

LENSAI = [
    "brightness",
    "contrast",
    "sharpness",
    "snr",
    "noise_sigma",
    "saturation",
    "hue",
    "colourfulness",
    "entropy",
    "near_black",
    "near_white",
    "mean/0",
    "mean/1",
    "mean/2",
    "std/0",
    "std/1",
    "std/2",
    "height",
    "width",
    "aspect_ratio",
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLUMN = (1, 3, 1, 1)
BATCH = np.random.default_rng(0).integers(0, 256, (5, 3, 23, 17), dtype=np.uint8)
BATCH[1:3] //= 3
CONVENTION = pytest.mark.parametrize("convention", CONVENTIONS)
LIBRARIES = pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def rows_of(batch, convention="lensai", **arguments):
    names, rows = measure_images(ImageInputs(**arguments).read(batch), convention)
    assert rows.dtype == np.float32
    assert rows.shape == (len(batch), len(names))
    return rows


def generic(pixels, gain=255.0):
    """Images as an accelerator's would be: a tensor that no one has turned into numpy."""
    channels = pixels.shape[1]
    return Images(pixels, (gain,) * channels, (0.0,) * channels, "")


def assert_same_measures(found, expected, *, digits=2e-5):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=digits, atol=1e-3)


def test_streams_of_both_conventions():
    assert list(image_measures(3)) == LENSAI
    grey = [name for name in LENSAI if name not in ("saturation", "hue", "colourfulness") and name[-1] not in "12"]
    assert list(image_measures(1)) == grey
    assert list(image_measures(3, "lensai-edge"))[-3:] == ["mean/0", "mean/1", "mean/2"]
    assert image_measures(3)["std/1"] == "lensai/std@1"
    assert image_measures(3, "lensai-edge")["brightness"] == "lensai-edge/brightness@1"


@CONVENTION
@pytest.mark.parametrize("channels", [1, 3])
@LIBRARIES
def test_columns_are_named_as_stated_beforehand(convention, channels, make):
    names, rows = measure_images(generic(make(BATCH[:, :channels].copy()), 1.0), convention)
    assert names == tuple(image_measures(channels, convention))
    assert tuple(rows.shape) == (5, len(names))
    assert "float32" in str(rows.dtype)
    assert np.isfinite(np.asarray(rows)).all()


@CONVENTION
@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        (BATCH.transpose(0, 2, 3, 1), {}),
        (np.ascontiguousarray(BATCH.transpose(0, 2, 3, 1)), {}),
        (np.asfortranarray(BATCH), {}),
        (np.concatenate([BATCH, BATCH[:, :1]], axis=1), {}),
        (np.repeat(BATCH, 2, axis=3)[..., ::2], {}),
        (torch.from_numpy(BATCH).to(memory_format=torch.channels_last), {}),
        (torch.from_numpy(BATCH).permute(0, 2, 3, 1), {}),
        (np.flip(np.flip(BATCH, 2).copy(), 2), {}),
    ],
)
def test_layouts_and_strides_change_nothing(batch, arguments, convention):
    assert np.array_equal(rows_of(batch, convention, **arguments), rows_of(BATCH, convention))


@CONVENTION
@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        (BATCH / 255, {}),
        ((BATCH / 255).astype(np.float32), {}),
        (torch.from_numpy((BATCH / 255).astype(np.float32)).requires_grad_(), {}),
        (BATCH.astype(np.float32), {"scale": 1}),
        (BATCH.astype(np.int64), {"scale": 1}),
        (BATCH.astype(np.uint16) * 257, {"scale": 255 / 65535}),
        ((BATCH / 255 - np.reshape(MEAN, COLUMN)) / np.reshape(STD, COLUMN), {"mean": MEAN, "std": STD}),
        (
            ((BATCH / 255 - np.reshape(MEAN, COLUMN)) / np.reshape(STD, COLUMN))
            .astype(np.float32)
            .transpose(0, 2, 3, 1),
            {"mean": MEAN, "std": STD},
        ),
        (BATCH / 127.5 - 1, {"mean": (0.5,), "std": (0.5,)}),
    ],
)
def test_dtype_scale_and_normalisation_change_nothing(batch, arguments, convention):
    assert_same_measures(rows_of(batch, convention, **arguments), rows_of(BATCH, convention))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 0.07), (torch.bfloat16, 0.51)])
def test_half_precision_costs_no_more_than_its_digits(dtype, error):
    tensor = torch.from_numpy(BATCH / 255).to(dtype)
    names, rows = measure_images(ImageInputs(whole=False).read(tensor))
    exact = rows_of(BATCH)
    for name in ("brightness", "contrast", "mean/0", "mean/1", "mean/2", "std/0", "std/1", "std/2"):
        column = names.index(name)
        assert np.abs(rows[:, column] - exact[:, column]).max() < error, name
    _, by_torch = measure_images(generic(tensor))
    assert_same_measures(by_torch, rows, digits=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("mean", "std"), [(None, None), ((0.5,), (0.5,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
)
def test_half_precision_of_images_of_bytes_costs_nothing(dtype, mean, std):
    """Every byte and channel comes back: half a step of bfloat16 is less than half a level."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    shift, factor = (np.reshape(each or one, (1, -1, 1, 1)) for each, one in ((mean, 0.0), (std, 1.0)))
    tensor = torch.from_numpy((levels / 255 - shift) / factor).to(dtype)
    images = ImageInputs(mean=mean, std=std).read(tensor)
    assert images.whole
    assert "rounded to whole levels" in images.note
    assert np.array_equal(pixel_bytes(images), levels)
    assert np.array_equal(measure_images(images)[1], measure_images(ImageInputs(scale=1).read(levels * 1.0))[1])


@given(
    st.builds(
        lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8),
        st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 16), st.integers(1, 16)),
        st.integers(0, 2**32 - 1),
    ),
    st.sampled_from(list(CONVENTIONS)),
)
@settings(max_examples=50, deadline=None)
def test_any_shape_in_both_libraries_bytes_or_floats(batch, convention):
    exact = rows_of(batch, convention, layout="NCHW")
    assert np.isfinite(exact).all()
    assert_same_measures(rows_of((batch / 255).astype(np.float32), convention, layout="NCHW"), exact)
    assert_same_measures(measure_images(generic(torch.from_numpy(batch), 1.0), convention)[1], exact)
    assert_same_measures(measure_images(generic(torch.from_numpy(batch / 255)), convention)[1], exact)


@CONVENTION
@LIBRARIES
@pytest.mark.parametrize("budget", [1, 23 * 17 * 2, 10**9])
def test_how_many_images_are_measured_together_changes_nothing(convention, make, budget, monkeypatch):
    expected = np.concatenate([rows_of(BATCH[i : i + 1], convention) for i in range(5)])
    monkeypatch.setattr(pixels, "_HOST_PIXELS", budget)
    monkeypatch.setattr(pixels, "_DEVICE_PIXELS", budget)
    for batch, gain in ((BATCH, 1.0), ((BATCH / 255).astype(np.float32), 255.0)):
        assert_same_measures(measure_images(generic(make(batch), gain), convention)[1], expected)


@CONVENTION
@LIBRARIES
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.2, -0.2, 1e30])
def test_only_the_image_with_a_bad_pixel_becomes_nan(convention, make, bad):
    batch = (BATCH / 255).astype(np.float32)
    batch[3, 1, 22, 16] = bad
    rows = np.asarray(measure_images(generic(make(batch)), convention)[1])
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, False, True, False]
    assert_same_measures(np.delete(rows, 3, 0), np.delete(rows_of(BATCH, convention), 3, 0))


def test_a_float64_that_float32_cannot_hold_is_a_bad_pixel_too():
    batch = BATCH / 255
    batch[0, 0, 0, 0] = 1e300
    rows = rows_of(batch, scale=255, layout="NCHW")
    assert np.isnan(rows).all(axis=1).tolist() == [True, False, False, False, False]


def test_what_cubic_resizing_overshoots_is_clipped():
    batch = np.full((1, 3, 8, 8), 1.0)
    batch[0, :, 0, 0] = 1.09
    batch[0, :, 0, 1] = 0.5
    clipped = rows_of(batch.clip(0, 1))
    assert np.array_equal(rows_of(batch, scale=255, layout="NCHW"), clipped)


@CONVENTION
@LIBRARIES
def test_no_images_are_no_rows(convention, make):
    for batch in (BATCH[:0], np.zeros((0, 1, 4, 4), np.float32)):
        names, rows = measure_images(generic(make(batch)), convention)
        assert tuple(rows.shape) == (0, len(names))
        assert "float32" in str(rows.dtype)
        assert tuple(pixel_bytes(generic(make(batch)), convention).shape) == batch.shape


@CONVENTION
@LIBRARIES
def test_images_are_only_read(convention, make):
    for batch in (BATCH.copy(), (BATCH / 255).astype(np.float32), BATCH.astype(np.float32)):
        before = batch.copy()
        given = make(batch)
        if isinstance(batch, np.ndarray) and make is np.asarray:
            given.flags.writeable = False
        for gain in (1.0, 255.0):
            measure_images(generic(given, gain), convention)
            pixel_bytes(generic(given, gain), convention)
        assert np.array_equal(batch, before)


def test_rows_own_their_memory_and_do_not_change_with_the_next_batch():
    _, first = measure_images(ImageInputs().read(BATCH))
    kept = first.copy()
    measure_images(ImageInputs().read(BATCH[::-1] // 2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("call", [measure_images, pixel_bytes])
def test_an_unknown_convention_is_refused(call):
    with pytest.raises(InputError, match=r"convention='edge'.*'lensai', 'lensai-edge'"):
        call(ImageInputs().read(BATCH), "edge")
    with pytest.raises(InputError, match="convention='edge'"):
        image_measures(3, "edge")


def test_bytes_are_handed_on_as_they_lie():
    assert pixel_bytes(ImageInputs().read(BATCH)) is not None
    assert np.shares_memory(pixel_bytes(ImageInputs().read(BATCH)), BATCH)
    assert np.array_equal(pixel_bytes(ImageInputs().read(BATCH.transpose(0, 2, 3, 1))), BATCH)


@LIBRARIES
def test_floats_become_the_bytes_they_came_from(make):
    for batch in ((BATCH / 255).astype(np.float32), (BATCH / 255).astype(np.float16)):
        found = pixel_bytes(generic(make(batch)))
        assert "uint8" in str(found.dtype)
        assert np.array_equal(found, BATCH)
    normalized = (BATCH / 255 - np.reshape(MEAN, COLUMN)) / np.reshape(STD, COLUMN)
    assert np.array_equal(pixel_bytes(ImageInputs(mean=MEAN, std=STD).read(make(normalized))), BATCH)


@LIBRARIES
def test_bytes_are_rounded_half_up_and_clipped(make):
    values = np.array([-20.0, -0.4, 0.49, 0.5, 1.5, 254.49, 254.5, 255.4, 270.0], np.float32).reshape(1, 1, 3, 3)
    found = pixel_bytes(generic(make(values), 1.0))
    assert np.asarray(found).ravel().tolist() == [0, 0, 0, 1, 2, 254, 255, 255, 255]


def test_in_host_memory_the_pixels_of_invalid_images_are_left_out():
    batch = (BATCH / 255).astype(np.float32)
    batch[1, 0, 0, 0], batch[4, 2, 3, 4] = np.nan, 7.0
    assert np.array_equal(pixel_bytes(generic(batch)), BATCH[[0, 2, 3]])


def test_on_an_accelerator_they_stay_and_nan_is_zero():
    batch = (BATCH / 255).astype(np.float32)
    batch[1, 0, 0, 0] = np.nan
    expected = BATCH.copy()
    expected[1, 0, 0, 0] = 0
    assert np.array_equal(pixel_bytes(generic(torch.from_numpy(batch))), expected)


@LIBRARIES
def test_measures_and_exact_counts_tell_the_same_means(make):
    images = generic(make(BATCH), 1.0)
    counts = PixelCounts(3)
    counts.update(pixel_bytes(images))
    names, rows = measure_images(images)
    means = np.asarray(rows)[:, [names.index(f"mean/{channel}") for channel in range(3)]].mean(axis=0)
    assert (counts.counts @ np.arange(256)) / counts.counts.sum(axis=1) == pytest.approx(means, rel=1e-6)


@CONVENTION
@LIBRARIES
def test_measures_and_bytes_come_together_as_they_come_alone(convention, make):
    floats = (BATCH / 255).astype(np.float32)
    floats[2, 0, 0, 0] = np.nan
    for images in (generic(make(BATCH), 1.0), generic(make(floats)), generic(make(BATCH[:0]))):
        names, rows, found = measure_images_and_bytes(images, convention)
        assert (names, rows.shape) == (measure_images(images, convention)[0], (images.n, len(names)))
        assert np.array_equal(rows, measure_images(images, convention)[1], equal_nan=True)
        assert np.array_equal(found, pixel_bytes(images, convention))


@CONVENTION
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layout", "shape"), [("NCHW", (70, 3, 224, 224)), ("NHWC", (4, 32, 40, 3)), ("NHW", (4, 28, 28))]
)
def test_no_decision_needs_a_value(convention, dtype, layout, shape):
    """Tensors of torch's meta device have none: whatever would wait for a value raises, with no accelerator at hand."""
    batch = torch.empty(shape, dtype=dtype, device="meta")
    images = ImageInputs(layout=layout, scale=1.0 if dtype == torch.uint8 else 255.0).read({"image": batch})
    names, rows, found = measure_images_and_bytes(images, convention)
    assert (rows.device.type, tuple(rows.shape), rows.dtype) == ("meta", (shape[0], len(names)), torch.float32)
    assert (tuple(found.shape), found.dtype) == ((shape[0], images.channels, images.height, images.width), torch.uint8)


@CONVENTION
def test_the_users_precision_settings_change_nothing(convention):
    images = generic(torch.from_numpy((BATCH / 255).astype(np.float32)))
    _, expected = measure_images(images, convention)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            _, rows = measure_images(images, convention)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(rows, expected)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_gpu
@CONVENTION
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_on_cuda_the_rows_are_the_same_and_nothing_waits(convention, dtype):
    exact = torch.from_numpy(BATCH if dtype == torch.uint8 else BATCH / 255).to(dtype)
    inputs = ImageInputs().resolve(exact)
    batch = exact.cuda()
    measure_images(inputs.read(batch), convention)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cuda"):
            _, rows, counted = measure_images_and_bytes(inputs.read(batch), convention)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.cuda.set_sync_debug_mode("default")
    _, expected = measure_images(generic(exact, inputs.scale), convention)
    assert rows.is_cuda
    assert rows.dtype == torch.float32
    assert_same_measures(rows.cpu(), expected, digits=1e-4)
    assert np.array_equal(counted.cpu(), pixel_bytes(generic(exact, inputs.scale), convention))


@needs_gpu
def test_on_cuda_inputs_are_resolved_with_one_wait():
    batch = torch.from_numpy(BATCH / 255).float().cuda()
    assert ImageInputs().resolve({"image": batch}) == ImageInputs().resolve(BATCH / 255)
