"""What devices compute, against OpenCV in BGR order and uint8, step by step as the C++ profiler does it."""

from __future__ import annotations

import array_api_compat.numpy as numpy_namespace
import array_api_compat.torch as torch_namespace
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.measures.definitions import definition
from lensai_integrations.measures.edge import NO_NOISE, opencv_gray
from lensai_integrations.measures.images import image_measures, measure_images, pixel_bytes
from lensai_integrations.measures.inputs import ImageInputs, Images

LIBRARIES = pytest.mark.parametrize(
    ("make", "xp"), [(np.asarray, numpy_namespace), (torch.from_numpy, torch_namespace)], ids=["numpy", "torch"]
)
PICTURES = st.builds(
    lambda size, low, span, seed: (
        np.random.default_rng(seed).integers(low, low + span + 1, (*size, 3)).clip(0, 255).astype(np.uint8)
    ),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
)


def on_a_device(bgr):
    """reference/lensai.md's table, on a BGR or grey uint8 image as OpenCV holds it."""
    means = cv2.mean(bgr)
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY) if bgr.ndim == 3 else bgr
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float64)
    laplacian = cv2.filter2D(gray, cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101)
    (_, laplacian_std), (mean, std) = cv2.meanStdDev(laplacian), cv2.meanStdDev(gray)
    constant = gray.min() == gray.max()  # of some sizes, 7 x 7 for one, rounding leaves OpenCV a std of 1e-8
    found = {
        "brightness": 0.299 * means[0] + 0.587 * means[1] + 0.114 * means[2] if bgr.ndim == 3 else means[0],
        "sharpness": laplacian_std.item(),
        "noise": 20 * np.log10(mean.item() / std.item() + 1e-7) if not constant else np.inf,
        "contrast": (int(gray.max()) - int(gray.min())) / gray.max() if gray.max() else 0.0,
    }
    return found | {f"mean/{i}": means[i] for i in range(3 if bgr.ndim == 3 else 1)}


def measured(rgb, make=np.asarray):
    pixels = rgb[None, None] if rgb.ndim == 2 else rgb.transpose(2, 0, 1)[None]
    channels = pixels.shape[1]
    images = Images(make(np.ascontiguousarray(pixels)), (1.0,) * channels, (0.0,) * channels, "")
    names, rows = measure_images(images, "lensai-edge")
    return dict(zip(names, np.asarray(rows)[0].astype(np.float64), strict=True))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if np.isinf(value):
            assert found[name] == NO_NOISE
        else:
            assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-4), name


@LIBRARIES
def test_gray_is_opencvs_bit_for_bit(make, xp):
    rng = np.random.default_rng(0)
    everything = rng.integers(0, 256, (700, 700, 3), dtype=np.uint8)
    corners = np.stack(np.meshgrid(*[[0, 1, 127, 128, 254, 255]] * 3), axis=-1).reshape(1, -1, 3).astype(np.uint8)
    for rgb in (everything, corners):
        values = make(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None].astype(np.float32)))
        assert np.array_equal(opencv_gray(values, xp)[0], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


@LIBRARIES
@given(rgb=PICTURES)
@settings(max_examples=50, deadline=None)
def test_every_measure_is_that_of_the_device(make, xp, rgb):
    assert_same(measured(rgb, make), on_a_device(np.ascontiguousarray(rgb[..., ::-1])))


@LIBRARIES
@given(rgb=PICTURES)
@settings(max_examples=20, deadline=None)
def test_grey_images_too(make, xp, rgb):
    assert_same(measured(rgb[..., 0], make), on_a_device(np.ascontiguousarray(rgb[..., 0])))


@LIBRARIES
def test_a_large_image(make, xp):
    rgb = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8), (5, 5), 2)
    assert_same(measured(rgb, make), on_a_device(np.ascontiguousarray(rgb[..., ::-1])))


@LIBRARIES
def test_the_worked_example(make, xp):
    """reference/lensai.md: channel means 41.7, 85.9, 130.3 (BGR), brightness 77.75 where BT.601 gives 94.13.

    Only the means of that image are known, and they settle both numbers (as far as their one decimal goes). So does any
    image that has them: here 160 x 160 pixels of which the right share is one level higher.
    """
    means = {"red": 130.3, "green": 85.9, "blue": 41.7}
    rgb = np.empty((160, 160, 3), np.uint8)
    for channel, mean in enumerate(means.values()):
        plane = np.full(160 * 160, int(mean))
        plane[: round(160 * 160 * (mean - int(mean)))] += 1
        rgb[..., channel] = plane.reshape(160, 160)
    found = measured(rgb, make)
    assert [found[f"mean/{i}"] for i in range(3)] == pytest.approx([41.7, 85.9, 130.3], abs=1e-3)
    assert found["brightness"] == pytest.approx(77.75, abs=0.05)
    names, rows = measure_images(Images(make(rgb.transpose(2, 0, 1)[None].copy()), (1.0,) * 3, (0.0,) * 3, ""))
    assert float(rows[0, names.index("brightness")]) == pytest.approx(94.13, abs=0.05)


@LIBRARIES
@pytest.mark.parametrize("value", [0, 1, 200, 255])
def test_noise_of_a_constant_image_stands_above_all_other_noise_and_keeps_the_row(make, xp, value):
    found = measured(np.full((9, 9, 3), value, np.uint8), make)
    assert found["noise"] == NO_NOISE
    assert found["sharpness"] == found["contrast"] == 0
    assert all(np.isfinite(list(found.values())))
    nearly = np.full((2000, 2000), 255, np.uint8)
    nearly[1000, 1000] = 254
    assert 100 < measured(nearly, make)["noise"] < NO_NOISE


@LIBRARIES
def test_float_images_are_rounded_to_bytes_first(make, xp):
    rgb = np.random.default_rng(1).integers(0, 256, (2, 3, 12, 10), dtype=np.uint8)
    jitter = np.random.default_rng(2).uniform(-0.49, 0.49, rgb.shape).astype(np.float32)
    exact = Images(make(rgb), (1.0,) * 3, (0.0,) * 3, "")
    jittered = Images(make(rgb + jitter), (1.0,) * 3, (0.0,) * 3, "")
    rows, near = (np.asarray(measure_images(each, "lensai-edge")[1]) for each in (exact, jittered))
    np.testing.assert_allclose(near, rows, rtol=1e-6)


@LIBRARIES
def test_an_invalid_image_has_a_row_of_nan(make, xp):
    pixels = np.full((3, 3, 6, 6), 90.0, np.float32)
    pixels[1, 0, 0, 0] = np.nan
    _, rows = measure_images(Images(make(pixels), (1.0,) * 3, (0.0,) * 3, ""), "lensai-edge")
    assert np.isnan(np.asarray(rows)).all(axis=1).tolist() == [False, True, False]
    assert np.isfinite(np.asarray(rows)[[0, 2]]).all()


@given(rgb=PICTURES)
@settings(max_examples=30, deadline=None)
def test_measures_stay_inside_their_stated_range(rgb):
    found = measured(rgb)
    for name, id in image_measures(3, "lensai-edge").items():
        low, high = definition(id).range
        assert low - 1e-4 <= found[name] <= high + 1e-3, name


def test_streams_are_those_of_a_device_and_pixels_are_blue_first():
    rgb = np.random.default_rng(3).integers(0, 256, (2, 7, 5, 3), dtype=np.uint8)
    images = ImageInputs().read(rgb)
    names, _ = measure_images(images, "lensai-edge")
    assert names == ("brightness", "sharpness", "noise", "contrast", "mean/0", "mean/1", "mean/2")
    assert np.array_equal(pixel_bytes(images, "lensai-edge"), rgb.transpose(0, 3, 1, 2)[:, ::-1])
