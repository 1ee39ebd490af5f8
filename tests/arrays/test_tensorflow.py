"""Every function of the array API that the measures use does what numpy's of the same name does."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from libraries import maker

from lensai_integrations.arrays import tensorflow as xp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 3, 2)).astype(np.float32)
POSITIVE = np.abs(X) + 0.1
BYTES = RNG.integers(0, 256, (4, 6), dtype=np.uint8)

CASES = [
    ("astype", (BYTES, "float32"), {}),
    ("astype", (POSITIVE, "uint8"), {"copy": False}),
    ("zeros_like", (X,), {}),
    ("reshape", (X, (-1, 6)), {}),
    ("permute_dims", (X, (2, 0, 1)), {}),
    ("flip", (X,), {"axis": 1}),
    ("take", (X, np.array([2, 0, 2])), {"axis": 1}),
    ("where", (X > 0, X, np.nan), {}),
    ("where", (X > 0, 0.0, X), {}),
    ("where", (X > 0, X, -X), {}),
    ("sum", (X,), {"axis": (-2, -1)}),
    ("sum", (BYTES,), {"axis": 0, "dtype": "float32"}),
    ("sum", (X,), {"axis": 1, "keepdims": True}),
    ("mean", (X,), {"axis": (1, 2)}),
    ("min", (X,), {"axis": 0}),
    ("max", (X,), {"axis": 1, "keepdims": True}),
    ("max", (X,), {}),
    ("all", (X > -1,), {"axis": 1, "keepdims": True}),
    ("argmax", (X,), {"axis": 1}),
    ("sort", (X,), {"axis": 1}),
    ("sort", (BYTES,), {}),
    ("clip", (X, -0.5, 0.5), {}),
    ("maximum", (X, -X), {}),
    ("minimum", (X, -X), {}),
    ("abs", (X,), {}),
    ("floor", (X,), {}),
    ("sqrt", (POSITIVE,), {}),
    ("exp", (X,), {}),
    ("log", (POSITIVE,), {}),
    ("log2", (POSITIVE,), {}),
    ("log10", (POSITIVE,), {}),
    ("arctan2", (X, -X[::-1]), {}),
    ("isnan", (np.float32([1, np.nan, np.inf]),), {}),
    ("isfinite", (np.float32([1, np.nan, np.inf]),), {}),
]


def tensors(arguments):
    make = maker("tensorflow")
    return [make(value) if isinstance(value, np.ndarray) else value for value in arguments]


@pytest.mark.parametrize(("name", "arguments", "options"), CASES)
def test_a_function_is_that_of_numpy(name, arguments, options):
    options = {key: np.dtype(value) if key == "dtype" else value for key, value in options.items()}
    expected = getattr(np, name)(*arguments, **options)
    options = {key: value.name if key == "dtype" else value for key, value in options.items()}
    found = getattr(xp, name)(*tensors(arguments), **options)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-6)
    assert found.dtype.name == expected.dtype.name


@pytest.mark.parametrize("axis", [0, 1])
def test_arrays_are_put_together(axis):
    parts = tensors([X, X + 1])
    np.testing.assert_array_equal(xp.concat(parts, axis=axis), np.concat([X, X + 1], axis=axis))
    np.testing.assert_array_equal(xp.stack(parts, axis=axis), np.stack([X, X + 1], axis=axis))
    assert xp.concatenate is xp.concat


def test_arrays_are_made():
    maker("tensorflow")
    assert xp.zeros((2, 3), dtype=xp.int32).dtype.name == "int32"
    assert xp.asarray([1, 2], dtype=xp.int64).numpy().tolist() == [1, 2]


def test_places_are_found_row_by_row():
    rows, values = np.sort(X[:, :, 0], axis=1), X[:, :2, 1]
    for side in ("left", "right"):
        found = xp.searchsorted(*tensors([rows, values]), side=side)
        expected = [np.searchsorted(row, value, side=side) for row, value in zip(rows, values, strict=True)]
        np.testing.assert_array_equal(found, expected)


def test_dtypes_have_kinds():
    tf_bytes, tf_floats, tf_bools = (each.dtype for each in tensors([BYTES, X, X > 0]))
    assert xp.isdtype(tf_bytes, "integral")
    assert xp.isdtype(tf_bools, ("integral", "bool"))
    assert xp.isdtype(tf_floats, "real floating")
    assert not xp.isdtype(tf_floats, ("integral", "bool"))


def test_every_function_is_held_against_numpy():
    public = {name for name, value in vars(xp).items() if inspect.isfunction(value) and not name.startswith("_")}
    elsewhere = {"concat", "concatenate", "stack", "zeros", "asarray", "searchsorted", "isdtype", "is_tensorflow_array"}
    assert public - elsewhere == {name for name, *_ in CASES}
