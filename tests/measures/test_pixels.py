from __future__ import annotations

import array_api_compat.numpy as numpy_namespace
import array_api_compat.torch as torch_namespace
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from lensai_integrations.measures import pixels
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.measures.pixels import (
    BT601,
    are_bytes,
    blocks,
    centre,
    clip,
    combined,
    count_256,
    differences,
    extremes,
    is_uint8,
    laplacian_variance,
    mean_over_pixels,
    mean_square,
    planes,
    ridge,
    weighted,
)

ONE, ZERO = (1.0,) * 3, (0.0,) * 3
TABLE = (BT601, (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))
SHAPES = arrays.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=12)
FLOATS = arrays.arrays(np.float32, SHAPES, elements=st.floats(0, 255, width=32))

LIBRARIES = pytest.mark.parametrize(
    ("make", "xp"), [(np.asarray, numpy_namespace), (torch.from_numpy, torch_namespace)], ids=["numpy", "torch"]
)


def random_bytes(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@LIBRARIES
@given(values=FLOATS)
@settings(max_examples=30, deadline=None)
def test_sums_over_pixels_are_those_of_float64(make, xp, values):
    exact = values.astype(np.float64)
    np.testing.assert_allclose(mean_over_pixels(make(values), xp), exact.mean((2, 3)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(mean_square(make(values), xp), (exact**2).mean((2, 3)), rtol=1e-6, atol=1e-6)


@LIBRARIES
@pytest.mark.parametrize("shape", [(1, 1, 2000, 1500), (1, 1, 1, 100_003), (1, 1, 65_537, 1), (1, 1, 257, 263)])
def test_large_and_awkward_images_stay_accurate(make, xp, shape):
    values = random_bytes(*shape).astype(np.float32)
    values += 0.25
    exact = values.astype(np.float64)
    np.testing.assert_allclose(mean_over_pixels(make(values), xp), exact.mean((2, 3)), rtol=3e-7)
    np.testing.assert_allclose(mean_square(make(values), xp), (exact**2).mean((2, 3)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 224, 224), (1, 1, 4001, 1000), (1, 1, 7, 65_536)])
def test_means_of_bytes_are_exact(shape):
    values = random_bytes(*shape)
    expected = values.mean((2, 3), dtype=np.float64).astype(np.float32)
    assert np.array_equal(mean_over_pixels(values.astype(np.float32), numpy_namespace), expected)


@LIBRARIES
@given(value=st.floats(0, 255, width=32), height=st.integers(1, 300), width=st.integers(1, 300))
@settings(max_examples=30, deadline=None)
def test_nothing_remains_of_a_constant_plane(make, xp, value, height, width):
    values = make(np.full((1, 1, height, width), value, np.float32))
    mean, remains = centre(values, *extremes(values, xp), xp)
    assert float(mean[0, 0]) == value
    assert not np.asarray(remains).any()


@LIBRARIES
@given(values=FLOATS)
@settings(max_examples=30, deadline=None)
def test_centring_leaves_its_argument_alone_and_bytes_may_be_centred(make, xp, values):
    for each in (values, values.astype(np.uint8)):
        given = make(each.copy())
        mean, remains = centre(given, *extremes(given, xp), xp)
        assert np.array_equal(given, each)
        exact = each.astype(np.float64)
        np.testing.assert_allclose(mean, exact.mean((2, 3)), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(remains, exact - exact.mean((2, 3), keepdims=True), atol=1e-4)


@LIBRARIES
@given(values=FLOATS)
@settings(max_examples=30, deadline=None)
def test_combinations_are_weighted_sums(make, xp, values):
    values = np.repeat(values[:, :1], 3, axis=1) * np.float32([[[[1.0]], [[0.5]], [[0.25]]]])
    made = combined(make(values), TABLE, xp)
    for plane, weights in zip(made, TABLE, strict=True):
        expected = np.einsum("nchw,c->nhw", values.astype(np.float64), weights)
        np.testing.assert_allclose(plane, expected, atol=1e-4)
        np.testing.assert_allclose(weighted(make(values), weights), expected, atol=1e-4)


@LIBRARIES
def test_grey_images_have_one_combination_themselves(make, xp):
    values = random_bytes(2, 1, 5, 4).astype(np.float32)
    (plane,) = combined(make(values), TABLE, xp)
    assert np.array_equal(plane, values[:, 0])
    assert np.array_equal(weighted(make(values), BT601), values[:, 0])


@LIBRARIES
@given(values=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=3, max_dims=3, max_side=20)))
@settings(max_examples=30, deadline=None)
def test_counts_are_bincounts(make, xp, values):
    expected = [np.bincount(image.ravel(), minlength=256) for image in values]
    assert np.array_equal(count_256(make(values)), expected)


@LIBRARIES
def test_clip_keeps_nan(make, xp):
    values = make(np.array([-1.0, 0.5, np.nan, np.inf], np.float32))
    np.testing.assert_array_equal(clip(values, 0.0, 1.0), np.float32([0, 0.5, np.nan, 1]))


@LIBRARIES
def test_bytes_stay_bytes_and_can_never_be_invalid(make, xp):
    values = random_bytes(2, 3, 6, 5)
    found = planes(make(values), ONE, ZERO)
    assert is_uint8(found.values)
    assert found.valid is None
    assert np.array_equal(found.values, values)
    assert found.bounds is None
    for bound, expected in zip(extremes(found.values, found.xp), (values.min((2, 3)), values.max((2, 3))), strict=True):
        assert np.array_equal(bound, expected)
        assert "float32" in str(bound.dtype)


@LIBRARIES
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.float16, np.float32, np.float64])
def test_every_dtype_comes_to_the_same_scale(make, xp, dtype):
    values = random_bytes(2, 3, 6, 5) // 2
    gain, offset = (2.0, 1.5, 1.0), (0.0, 10.0, -3.0)
    expected = values * np.reshape(gain, (3, 1, 1)) + np.reshape(offset, (3, 1, 1))
    found = planes(make(values.astype(dtype)), gain, offset)
    assert "float32" in str(found.values.dtype)
    assert np.asarray(found.valid).all()
    np.testing.assert_allclose(found.values, expected.clip(0, 255), atol=1e-4)
    np.testing.assert_allclose(found.bounds[0], expected.clip(0, 255).min((2, 3)), atol=1e-4)
    np.testing.assert_allclose(found.bounds[1], expected.clip(0, 255).max((2, 3)), atol=1e-4)


@LIBRARIES
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -26.0, 281.0, 1e38])
def test_an_image_out_of_range_is_invalid_and_its_neighbours_are_not(make, xp, bad):
    values = np.full((3, 3, 4, 4), 100.0, np.float32)
    values[1, 2, 3, 3] = bad
    values[2, 0, 0, :2] = [-25.0, 280.0]
    found = planes(make(values), ONE, ZERO)
    assert np.asarray(found.valid).tolist() == [True, False, True]
    assert np.asarray(found.values)[[0, 2]].min() == 0
    assert np.asarray(found.values)[[0, 2]].max() == 255


@LIBRARIES
def test_planes_of_any_strides_are_contiguous(make, xp):
    values = random_bytes(2, 6, 5, 3)
    pixels = make(values).transpose(1, 3) if xp is torch_namespace else values.transpose(0, 3, 2, 1)
    found = planes(pixels, ONE, ZERO).values
    assert np.asarray(found).flags.c_contiguous
    assert np.array_equal(found, values.transpose(0, 3, 2, 1))


@LIBRARIES
@pytest.mark.parametrize("budget", [1, 60, 90, 10**6])
def test_blocks_hold_all_images_once_and_in_order(make, xp, budget, monkeypatch):
    monkeypatch.setattr(pixels, "_HOST_PIXELS", budget)
    monkeypatch.setattr(pixels, "_DEVICE_PIXELS", budget)
    values = random_bytes(7, 3, 6, 5)
    found = list(blocks(Images(make(values), ONE, ZERO, "")))
    assert np.array_equal(np.concatenate([np.asarray(block.values) for block in found]), values)
    assert max(len(block.values) for block in found) == max(1, min(7, budget // 30))


def test_no_images_are_no_blocks():
    assert list(blocks(ImageInputs().read(np.zeros((0, 8, 8, 3), np.uint8)))) == []


def test_only_uint8_at_scale_one_are_bytes():
    values = random_bytes(1, 3, 2, 2)
    assert are_bytes(values, ONE, ZERO)
    assert are_bytes(torch.from_numpy(values), ONE, ZERO)
    assert not are_bytes(values, (255.0,) * 3, ZERO)
    assert not are_bytes(values, ONE, (0.0, 0.0, 1.0))
    assert not are_bytes(values.astype(np.uint16), ONE, ZERO)


MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
PLANES = st.builds(
    lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32),
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    st.integers(0, 2**32 - 1),
)


def mirrored(plane, axis):
    """Second differences by scipy, whose `mirror` is OpenCV's reflect-101 but for an axis of one pixel."""
    if plane.shape[axis] == 1:
        return np.zeros_like(plane, np.float64)
    return ndimage.correlate1d(plane.astype(np.float64), [1, -2, 1], axis=axis, mode="mirror")


@LIBRARIES
@given(planes=PLANES)
@settings(max_examples=50, deadline=None)
def test_differences_are_those_of_scipy(make, xp, planes):
    across, down = differences(make(planes), xp)
    for found, axis in ((across, 1), (down, 0)):
        expected = [mirrored(plane, axis) for plane in planes]
        np.testing.assert_allclose(np.asarray(found)[:, :, 1:-1], expected, atol=1e-3)


@LIBRARIES
@given(planes=PLANES)
@settings(max_examples=50, deadline=None)
def test_the_laplacian_is_opencvs(make, xp, planes):
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], np.float64)
    found = laplacian_variance(*differences(make(planes), xp), xp)
    for plane, variance in zip(planes, found, strict=True):
        exact = cv2.filter2D(plane.astype(np.float64), cv2.CV_64F, kernel, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(variance, exact.var(), rtol=1e-5, atol=1e-3)
        opencv = cv2.Laplacian(plane.astype(np.float64), cv2.CV_64F, ksize=1, borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(variance, opencv.var(), rtol=1e-5, atol=1e-3)


@LIBRARIES
@given(planes=PLANES)
@settings(max_examples=50, deadline=None)
def test_the_ridge_is_immerkaers_mask(make, xp, planes):
    found = ridge(differences(make(planes), xp)[0], xp)
    if min(planes.shape[1:]) < 3:
        assert not np.asarray(found).any()
        return
    for plane, value in zip(planes, found, strict=True):
        expected = np.abs(ndimage.convolve(plane.astype(np.float64), MASK))[1:-1, 1:-1].mean()
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-3)


@LIBRARIES
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (224, 224), (5, 4000)])
def test_constant_planes_have_none(make, xp, size):
    across, down = differences(make(np.full((2, *size), 0.1, np.float32)), xp)
    assert not np.asarray(laplacian_variance(across, down, xp)).any()
    assert not np.asarray(ridge(differences(make(np.full((2, *size), 0.1, np.float32)), xp)[0], xp)).any()


@LIBRARIES
def test_a_ramp_that_jumps_from_row_to_row_leaves_nothing_behind(make, xp):
    ramp = np.tile(np.arange(256, dtype=np.float32), (1, 256, 1))
    across, down = differences(make(ramp), xp)
    variance = laplacian_variance(across, down, xp)
    np.testing.assert_allclose(variance, 2 * 2**2 / 256, rtol=1e-6)  # 2 at the left border, -2 at the right one
    assert not np.asarray(ridge(differences(make(ramp), xp)[0], xp)).any()


@LIBRARIES
def test_images_of_a_batch_do_not_see_each_other(make, xp):
    batch = np.random.default_rng(0).normal(100, 30, (5, 9, 7)).astype(np.float32)
    together = [laplacian_variance(*differences(make(batch), xp), xp), ridge(differences(make(batch), xp)[0], xp)]
    for i, plane in enumerate(batch):
        across, down = differences(make(plane[None].copy()), xp)
        alone = laplacian_variance(across, down, xp), ridge(across, xp)
        np.testing.assert_allclose([each[i] for each in together], [each[0] for each in alone], rtol=1e-6)


def test_noise_of_a_known_size_is_found():
    noise = np.random.default_rng(0).normal(0, 7.0, (1, 300, 300)).astype(np.float32)
    found = ridge(differences(noise, numpy_namespace)[0], numpy_namespace)
    assert found[0] * np.sqrt(np.pi / 2) / 6 == pytest.approx(7.0, rel=0.02)
