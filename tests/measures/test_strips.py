"""One image of bytes, strip by strip: the same numbers as all images get, for every shape; exact where it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.measures import images as strips
from lensai_integrations.measures.images import CONVENTIONS, measure_images, measure_images_and_counts
from lensai_integrations.measures.inputs import ImageInputs, Images


def rows_of(pixels: np.ndarray, convention: str = "lensai") -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names and measures of one image by the fast path, and its counts."""
    images = Images(pixels, (1.0,) * pixels.shape[1], (0.0,) * pixels.shape[1], "")
    names, rows, counts = measure_images_and_counts(images, convention)
    return names, np.asarray(rows), np.asarray(counts)


def general(pixels: np.ndarray, convention: str = "lensai") -> np.ndarray:
    images = Images(pixels, (1.0,) * pixels.shape[1], (0.0,) * pixels.shape[1], "")
    return np.asarray(measure_images(images, convention)[1])


def picture(shape: tuple[int, int], kind: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    height, width = shape
    if kind == "noise":
        return rng.integers(0, 256, (1, 3, height, width), dtype=np.uint8)
    if kind == "nearly constant":
        return (rng.integers(0, 254, (1, 3, 1, 1)) + rng.integers(0, 2, (1, 3, height, width))).astype(np.uint8)
    if kind == "grey":
        return np.repeat(rng.integers(0, 256, (1, 1, height, width), dtype=np.uint8), 3, axis=1)
    if kind == "black and white":
        return np.repeat(rng.integers(0, 2, (1, 3, height, width), dtype=np.uint8) * 255, 1, axis=1)
    ramp = np.linspace(0, 200, width)[None, :] + np.linspace(0, 50, height)[:, None]
    return (
        (ramp * rng.uniform(0.2, 1, (1, 3, 1, 1)) + rng.normal(0, 1.5, (1, 3, height, width)))
        .clip(0, 255)
        .astype(np.uint8)
    )


KINDS = ["noise", "nearly constant", "grey", "black and white", "ramp"]


@given(
    st.tuples(st.integers(1, 23), st.integers(1, 23)),
    st.sampled_from(KINDS),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 7, 40, 10**6]),
)
@settings(max_examples=150, deadline=None)
def test_every_measure_of_any_shape_and_any_strips_is_what_all_images_get(
    shape: tuple[int, int], kind: str, seed: int, strip: int
) -> None:
    pixels = picture(shape, kind, seed)
    before = strips._STRIP
    strips._STRIP = strip
    try:
        names, rows, counts = rows_of(pixels)
    finally:
        strips._STRIP = before
    np.testing.assert_allclose(rows, general(pixels), rtol=2e-5, atol=1e-3, err_msg=str(names))
    assert counts.tolist() == [np.bincount(channel.ravel(), minlength=256).tolist() for channel in pixels[0]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(224, 224), (301, 517), (1, 70001), (70001, 1), (2, 40000)])
def test_large_images_and_odd_ones(kind: str, shape: tuple[int, int]) -> None:
    pixels = picture(shape, kind, 0)
    names, rows, _ = rows_of(pixels)
    np.testing.assert_allclose(rows, general(pixels), rtol=2e-5, atol=1e-3, err_msg=str(names))


@given(st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_held_against_float64(shape: tuple[int, int], kind: str, seed: int) -> None:
    pixels = picture(shape, kind, seed)
    names, rows, _ = rows_of(pixels)
    found = dict(zip(names, rows[0].tolist(), strict=True))
    red, green, blue = exact = pixels[0].astype(np.float64)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    padded = np.pad(luma, [(1, 1) if size > 1 else (0, 0) for size in luma.shape], mode="reflect")
    padded = np.pad(padded, [(0, 0) if size > 1 else (1, 1) for size in luma.shape], mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * luma
    expected = {"brightness": luma.mean(), "contrast": luma.std(), "sharpness": around.std()}
    expected |= {f"std/{i}": exact[i].std() for i in range(3)} | {f"mean/{i}": exact[i].mean() for i in range(3)}
    opponents = red - green, (red + green) / 2 - blue
    spread, distance = (np.hypot(*(function(each) for each in opponents)) for function in (np.std, np.mean))
    expected["colourfulness"] = spread + 0.3 * distance
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=2e-4), name


def test_a_constant_image_has_no_spread_at_all() -> None:
    for colour in ([0, 0, 0], [255, 255, 255], [1, 2, 3], [254, 0, 77]):
        pixels = np.broadcast_to(np.array(colour, np.uint8)[None, :, None, None], (1, 3, 301, 299))
        names, rows, _ = rows_of(np.ascontiguousarray(pixels))
        found = dict(zip(names, rows[0].tolist(), strict=True))
        assert [found[name] for name in ("contrast", "sharpness", "noise_sigma", "std/0", "entropy")] == [0] * 5
        assert found["mean/2"] == colour[2]


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_only_one_rgb_image_of_bytes_takes_this_path(
    convention: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    found = strips.totals
    monkeypatch.setattr("lensai_integrations.measures.images.totals", lambda *a: seen.append(a) or found(*a))
    shapes = {"NHWC": (9, 8, 3), "NCHW": (3, 9, 8), "NHW": (9, 8)}
    rng = np.random.default_rng(0)
    for n, scale in ((1, 1.0), (2, 1.0), (1, 0.5)):
        pixels = rng.integers(0, 256, (n, *shapes[layout]), dtype=np.uint8)
        images = ImageInputs(layout=layout, scale=scale).read(pixels)
        expected = measure_images(images, convention)[1]
        np.testing.assert_allclose(measure_images_and_counts(images, convention)[1], expected, rtol=2e-5, atol=1e-3)
        assert len(seen) == (n == 1 and scale == 1.0 and layout != "NHW" and convention == "lensai")
        seen.clear()


def test_an_image_is_only_read() -> None:
    pixels = picture((30, 20), "noise", 0)
    kept = pixels.copy()
    pixels.flags.writeable = False
    rows_of(pixels)
    assert np.array_equal(pixels, kept)
