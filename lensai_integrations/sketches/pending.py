"""The rows of a bank that wait to be sorted, and the decision which of them count.

An update is usually one copy of its rows to the end of the pending ones, whatever their dtype and layout; everything
that costs more is done for 512 rows or more at once. That includes the search for rows with a value that is not finite.
On a host they are left out, so that what goes on to the levels is valid. On an accelerator the host does not know how
many there are and must not wait to find out: they are overwritten by NaN and counted there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from lensai_integrations.arrays.namespaces import Array, namespace, send, to_host, unfilled
from lensai_integrations.errors import InputError
from lensai_integrations.sketches.state import State, field, number, require


class PendingRows:
    """Rows of `dim` values, up to a fixed number of them.

    Args:
        places: how many rows go on to the levels together.
        dim: width of a row.
        like: an array that lies where the rows will.

    Attributes:
        rows: float32 `[places, dim]`, `[0, dim]` before the first row.
        filled: how many of them are in use.
        invalid: rows found invalid so far, these and earlier ones: an int on a host, a scalar on an accelerator.

    Example:
        >>> pending = PendingRows(places=512, dim=3, like=np.empty(0))
        >>> pending.take(np.ones((600, 3))), pending.full
        (512, True)
    """

    def __init__(self, places: int, dim: int, like: Array) -> None:
        self.places = places
        self.rows = _rows(0, dim, like)
        self.filled = 0
        self.invalid: Array = 0

    @property
    def on_host(self) -> bool:
        """Whether the rows lie in host memory as numpy."""
        return isinstance(self.rows, np.ndarray)

    @property
    def used(self) -> Array:
        """The rows in use, `[filled, dim]`, not a copy."""
        return self.rows[: self.filled]

    @property
    def full(self) -> bool:
        """Whether every place is in use."""
        return self.filled == self.places

    def take(self, rows: Array) -> int:
        """Copy as many of the rows `[n, dim]` as there are places for, and return how many that were."""
        if not len(self.rows):
            self.rows = _rows(self.places, rows.shape[1], self.rows)
        count = min(self.places - self.filled, len(rows))
        self.rows[self.filled : self.filled + count] = rows[:count]
        self.filled += count
        return count

    def drop_invalid(self) -> None:
        """On a host: leave out the rows in use with a value that is not finite, and count them."""
        valid = np.isfinite(self.used).all(axis=1)
        kept = int(np.count_nonzero(valid))
        if kept == self.filled:
            return
        self.invalid += self.filled - kept
        self.rows[:kept] = self.used[valid]
        self.filled = kept

    def mask_invalid(self) -> None:
        """On an accelerator, with all places in use: overwrite such rows with NaN, and count them there."""
        xp = namespace(self.rows)
        valid = xp.all(xp.isfinite(self.rows), axis=1)
        self.invalid = self.invalid + xp.sum(~valid)
        self.rows[...] = xp.where(valid[:, None], self.rows, xp.nan)

    def moved(self, like: Array) -> PendingRows:
        """A copy where `like` lies; towards a host it waits for the accelerator."""
        result = PendingRows(self.places, self.rows.shape[1], like)
        result.take(to_host(self.used) if result.on_host else send(self.used, like))
        result.invalid = int(self.invalid) if result.on_host else self.invalid
        return result

    def state(self) -> State:
        """Plain arrays for `from_state`; only for rows on the host, after `drop_invalid`."""
        return {"pending": np.array(self.used), "invalid": np.array(self.invalid, np.int64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], places: int, dim: int) -> Self:
        """The rows `state` describes.

        Raises:
            FormatError: it is not a state of pending rows of that width, or is damaged.
        """
        rows = field(state, "pending", np.float32, (None, dim))
        require(len(rows) <= places, f"{len(rows)} pending rows for {places} places")
        require(bool(np.isfinite(rows).all()), "pending rows with values that are not finite")
        result = cls(places, dim, rows)
        result.take(rows)
        result.invalid = number(state, "invalid")
        return result


def _rows(places: int, dim: int, like: Array) -> Array:
    # A cache line more than needed on a host, or the values of a column would share few cache sets.
    pad = 16 if isinstance(like, np.ndarray) else 0
    return unfilled((places, dim + pad), "float32", like)[:, :dim]


def checked_rows(rows: Array, dim: int) -> Array:
    """Rows as they can be copied to float32: real numbers of shape `[n, dim]`; on a host already float32.

    Raises:
        InputError: they are something else.

    Example:
        >>> checked_rows(np.array([[1, 2]]), dim=2).dtype
        dtype('float32')
    """
    if rows.ndim != 2 or rows.shape[1] != dim:
        one = f"; pass rows[None, :] for a single row of {dim}" if tuple(rows.shape) == (dim,) else ""
        raise InputError(f"rows must be [n, {dim}] for a bank of {dim} streams, got shape {tuple(rows.shape)}{one}")
    if isinstance(rows, np.ndarray) and rows.dtype == np.float32:
        return rows
    if not namespace(rows).isdtype(rows.dtype, ("bool", "integral", "real floating")):
        raise InputError(f"rows must be real numbers, got dtype {rows.dtype}")
    if not isinstance(rows, np.ndarray):
        return rows
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity, and its row invalid
        return rows.astype(np.float32)
