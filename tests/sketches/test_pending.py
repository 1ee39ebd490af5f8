"""Pending rows: copied as float32 whatever they were, and invalid ones found exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensai_integrations.errors import InputError
from lensai_integrations.sketches.bank import PendingRows, checked_rows

PLACES = 512


def pending_of(rows: np.ndarray, library: str) -> PendingRows:
    convert = torch.from_numpy if library == "torch" else np.asarray
    pending = PendingRows(PLACES, rows.shape[1], convert(rows))
    pending.take(convert(rows))
    return pending


def spoilt(rows: int) -> np.ndarray:
    """Rows of which the 2nd, 5th and last are invalid."""
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    values[1, 0], values[4, 2], values[-1, 1] = np.nan, np.inf, -np.inf
    return values


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_takes_as_many_as_there_are_places_for(library: str) -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    pending = pending_of(rows[:100], library)
    more = rows[100:] if library == "numpy" else torch.from_numpy(rows[100:])
    assert pending.take(more) == PLACES - 100
    assert pending.take(more) == 0
    np.testing.assert_array_equal(np.asarray(pending.used), rows[:PLACES])


def test_rows_are_copied() -> None:
    rows = np.ones((4, 3), np.float32)
    pending = pending_of(rows, "numpy")
    rows[...] = 2
    assert (pending.used == 1).all()


def test_host_drops_invalid_rows_and_keeps_the_order() -> None:
    rows = spoilt(20)
    pending = pending_of(rows, "numpy")
    pending.drop_invalid()
    np.testing.assert_array_equal(pending.used, np.delete(rows, [1, 4, 19], axis=0))
    assert pending.invalid == 3
    pending.drop_invalid()
    assert (pending.invalid, pending.filled) == (3, 17)


def test_device_overwrites_invalid_rows_and_counts_them_there() -> None:
    rows = spoilt(PLACES)
    pending = pending_of(rows, "torch")
    pending.mask_invalid()
    assert isinstance(pending.invalid, torch.Tensor)
    assert int(pending.invalid) == 3
    valid = np.isfinite(rows).all(axis=1)
    assert pending.rows[~torch.from_numpy(valid)].isnan().all()
    np.testing.assert_array_equal(pending.rows[torch.from_numpy(valid)].numpy(), rows[valid])


def test_moves_with_all_it_knows() -> None:
    pending = pending_of(spoilt(20), "numpy")
    pending.drop_invalid()
    there = pending.moved(torch.empty(0))
    assert not there.on_host
    back = there.moved(np.empty(0))
    assert back.on_host
    assert (back.filled, back.invalid) == (17, 3)
    np.testing.assert_array_equal(back.used, pending.used)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_numpy_dtypes_become_float32(dtype: str) -> None:
    rows = np.array([[0, 1], [1, 1]], dtype)
    checked = checked_rows(rows, 2)
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, rows)


def test_float64_beyond_float32_becomes_infinite_without_a_warning() -> None:
    assert checked_rows(np.array([[1e300, -1e300]]), 2).tolist() == [[np.inf, -np.inf]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_torch_dtypes_are_copied_to_float32(dtype: torch.dtype) -> None:
    rows = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    pending = PendingRows(PLACES, 2, rows)
    pending.take(checked_rows(rows, 2))
    assert pending.used.dtype == torch.float32
    assert pending.used.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("rows", [np.zeros((3, 2), complex), torch.zeros((3, 2), dtype=torch.complex64)])
def test_complex_rows_are_refused(rows: object) -> None:
    with pytest.raises(InputError, match="rows must be real numbers, got dtype"):
        checked_rows(rows, 2)


@pytest.mark.parametrize("shape", [(), (2,), (3,), (4, 3), (0, 3), (1, 2, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"rows must be \[n, 2\] for a bank of 2 streams, got shape"):
        checked_rows(np.zeros(shape), 2)


def test_a_single_row_is_told_how_to_be_passed() -> None:
    with pytest.raises(InputError, match=r"pass rows\[None, :\] for a single row of 2"):
        checked_rows(np.zeros(2), 2)
