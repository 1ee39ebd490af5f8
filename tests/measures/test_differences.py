from __future__ import annotations

import array_api_compat.numpy as numpy_namespace
import array_api_compat.torch as torch_namespace
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lensai_integrations.measures.pixels import differences, laplacian_variance, ridge

MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
PLANES = st.builds(
    lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape).astype(np.float32),
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    st.integers(0, 2**32 - 1),
)
LIBRARIES = pytest.mark.parametrize(
    ("make", "xp"), [(np.asarray, numpy_namespace), (torch.from_numpy, torch_namespace)], ids=["numpy", "torch"]
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
