"""Which axis is which: what a shape settles is taken, and what it leaves open is asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensai_integrations.arrays.namespaces import dtype_name
from lensai_integrations.errors import InputError
from lensai_integrations.measures.layouts import channels_first, kind_of, layout_of


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((8, 3, 32, 32), "NCHW"),
        ((8, 1, 32, 32), "NCHW"),
        ((8, 4, 32, 32), "NCHW"),
        ((8, 32, 32, 3), "NHWC"),
        ((8, 32, 32, 1), "NHWC"),
        ((8, 32, 32, 4), "NHWC"),
        ((1, 3, 1, 2), "NCHW"),
        ((8, 28, 28), "NHW"),
        ((1, 28, 28), "NHW"),
        ((8, 28, 1), "NHW"),
    ],
)
def test_a_shape_that_settles_the_layout(shape, layout):
    assert layout_of(shape) == layout


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 3, 32, 3), "fits both NCHW and NHWC: pass layout="),
        ((8, 1, 1, 1), "fits both"),
        ((8, 32, 32, 5), "has no 1, 3 or 4 channels.*pass layout="),
        ((3, 28, 28), r"\[3, 28, 28\] is one colour image or a batch of grey ones: pass layout='NHW'"),
        ((28, 28, 4), "one colour image"),
        ((28, 28), r"\[n, C, H, W\].*\[28, 28\]"),
        ((2, 3, 4, 32, 32), r"\[2, 3, 4, 32, 32\]"),
        ((), r"\[\]"),
    ],
)
def test_a_shape_that_leaves_two_readings_or_none_is_refused(shape, message):
    with pytest.raises(InputError, match=message):
        layout_of(shape)


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
def test_channels_first_is_a_view(make):
    pixels = np.arange(2 * 5 * 7 * 3, dtype=np.uint8).reshape(2, 5, 7, 3)
    given = make(pixels)
    found = channels_first(given, "NHWC")
    assert np.array_equal(found, pixels.transpose(0, 3, 1, 2))
    assert np.shares_memory(np.asarray(found), np.asarray(given))
    assert np.array_equal(channels_first(make(pixels[..., 0]), "NHW"), pixels[:, None, :, :, 0])
    assert np.array_equal(channels_first(make(pixels.transpose(0, 3, 1, 2)), "NCHW"), pixels.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [
        ((2, 3, 8), "NCHW", "layout='NCHW' does not fit"),
        ((2, 3, 8, 8), "NHW", "layout='NHW' does not fit"),
        ((2, 3, 0, 8), "NCHW", "0 x 8 pixels"),
        ((2, 8, 0, 3), "NHWC", "8 x 0 pixels"),
    ],
)
def test_images_that_are_not_as_the_layout_says_are_refused(shape, layout, message):
    with pytest.raises(InputError, match=message):
        channels_first(np.zeros(shape), layout)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        ("uint8", "uint8"),
        ("int8", "integer"),
        ("uint16", "integer"),
        ("int64", "integer"),
        ("bool", "integer"),
        ("float16", "float"),
        ("float32", "float"),
        ("float64", "float"),
    ],
)
def test_dtypes_have_the_same_names_and_kinds_in_both_libraries(dtype, kind):
    for array in (np.zeros(1, dtype), torch.zeros(1, dtype=getattr(torch, dtype))):
        assert dtype_name(array) == dtype
        assert kind_of(array) == kind


def test_half_floats_of_torch_are_floats_and_complex_numbers_are_refused():
    assert kind_of(torch.zeros(1, dtype=torch.bfloat16)) == "float"
    with pytest.raises(InputError, match="complex64"):
        kind_of(torch.zeros(1, dtype=torch.complex64))
