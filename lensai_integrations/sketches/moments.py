"""Count, mean, variance and covariance of rows, in one pass and without cancellation.

Rows wait in a small block. A full block is centred on its own mean, its sums of products are taken, and these are
added by the formula of Chan, Golub and LeVeque (Updating formulae and a pairwise algorithm for computing sample
variances, 1979). So no large squares are ever subtracted from each other, however far the mean is from zero
and however it wanders; and the cost of adding up a D x D matrix is paid once a block, not once a batch.

Which rows are complete is decided where they lie: a row with a non-finite value gets weight 0.

An accelerator pays for launches, not for values: there 512 rows or more are taken in one go, by six to nine launches
(`_Device`). Rows are centred on a vector that stays, and a column of their weights, 1 or 0, is set beside them: then
one matrix product, added to what there is as it is made, holds the products, the sums and the number of rows. That the
centre is not the mean of these rows costs digits by the square of how many standard deviations it is off, so it is
chosen anew, as the mean of all rows up to then, with the 1st, 2nd, 4th, 8th block, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import (
    Array,
    are_finite,
    dtype_name,
    local,
    namespace,
    send,
    to_host,
    unfilled,
    zeros_beside,
)
from lensai_integrations.errors import InputError
from lensai_integrations.sketches.state import Sketch, State, field, number, require

#: Wider rows get variances only: a covariance of 1,024 columns takes 8 MiB.
COVARIANCE_UP_TO = 1024
#: Values of a block, as far as it has 32 to 256 rows: what is made of it in float64 stays in the processor's cache.
_BLOCK_VALUES = 1 << 17
#: Rows of a block on an accelerator; more that come together are taken together, up to the second number.
_DEVICE_ROWS, _MOST_DEVICE_ROWS = 512, 2048
#: Wider rows than this are refused.
_LARGEST_DIM = 2**20


class Moments(Sketch):
    """Mean and covariance of rows, in float64.

    Args:
        dim: Columns D.
        covariance: True for the covariance matrix, False for variances only, None for the matrix up to 1,024 columns.

    Attributes:
        dim: Columns.
        keeps_covariance: Whether the matrix is kept.
        rows_seen: Rows given to `update`, those left out included; known without asking an accelerator.

    Raises:
        InputError: If `dim` is not a positive whole number.

    Example:
        >>> moments = Moments(2)
        >>> moments.update(np.array([[1.0, 0.0], [3.0, 4.0], [np.nan, 1.0]]))
        >>> moments.n, moments.invalid, moments.mean.tolist(), moments.covariance.tolist()
        (2, 1, [2.0, 2.0], [[2.0, 4.0], [4.0, 8.0]])
    """

    takes = "vectors"

    def __init__(self, dim: int, covariance: bool | None = None) -> None:
        if not isinstance(dim, int | np.integer) or not 1 <= dim <= _LARGEST_DIM:
            raise InputError(f"dim is the number of columns, a whole number from 1 to 2**20, not {dim!r}")
        self.dim = int(dim)
        self.keeps_covariance = dim <= COVARIANCE_UP_TO if covariance is None else bool(covariance)
        self.rows_seen = 0
        self._n: Any = np.zeros(())
        self._mean: Any = np.zeros(self.dim)
        self._products: Any = np.zeros((self.dim, self.dim) if self.keeps_covariance else self.dim)
        self._device: _Device | None = None  # has what the three have on a host, once rows came from an accelerator
        self._block: Array | None = None  # made beside the first rows
        self._block_rows = min(max(_BLOCK_VALUES // self.dim, 32), 256)
        self._filled = 0

    def empty(self) -> Self:
        """Another of as many columns, which keeps covariances if this one does."""
        return type(self)(self.dim, self.keeps_covariance)

    def update(self, rows: Array) -> None:
        """Take a batch of rows.

        Args:
            rows: `[n, D]`, numpy or torch; taken as float32. Rows with a non-finite value are left out and counted as
                invalid.

        Raises:
            InputError: If the shape is another.
        """
        self._update(local(rows))

    def _update(self, rows: Array) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise InputError(f"rows should be [n, {self.dim}], not {tuple(rows.shape)}")
        rows = self._beside(rows)
        n, start = int(rows.shape[0]), 0
        while start < n:
            if self._device is not None and not self._filled and n - start >= _DEVICE_ROWS:
                piece = rows[start : start + _MOST_DEVICE_ROWS]
                self._device.add(piece)
            else:
                piece = rows[start : start + self._block_rows - self._filled]
                self._append(piece)
            start += int(piece.shape[0])
        self.rows_seen += n

    def _beside(self, rows: Array) -> Array:
        """The rows where the state is; or the state is sent, once, to the accelerator the rows are on."""
        if self._device is None and not is_numpy_array(rows):
            self._flush()
            self._device = _Device(self._n, self._mean, self._products, rows)
            self._block, self._block_rows = None, _DEVICE_ROWS
        return send(rows, self._device.centre) if self._device is not None and is_numpy_array(rows) else rows

    def _append(self, rows: Array) -> None:
        """Rows that fit into the block; a full block is added to the state."""
        if self._block is None:
            self._block = unfilled((self._block_rows, self.dim), "float32", rows)
        end = self._filled + int(rows.shape[0])
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, as on an accelerator
            self._block[self._filled : end] = rows
        self._filled = end
        if end == self._block_rows:
            self._flush()

    def _flush(self) -> None:
        if self._block is not None and self._filled:
            rows = self._block[: self._filled]
            if self._device is not None:
                self._device.add(rows)
            else:
                self._add(*_summed(rows, self.keeps_covariance))
            self._filled = 0

    def _add(self, n: Any, mean: Any, products: Any) -> None:
        """Add the moments of other rows (Chan, Golub and LeVeque 1979, equations 2.1)."""
        total = self._n + n
        weight = n / (total + (total == 0))
        shift = mean - self._mean
        self._mean = self._mean + shift * weight
        scaled = shift * (self._n * weight) ** 0.5
        self._products += products
        self._products += scaled[:, None] * scaled[None, :] if self.keeps_covariance else scaled * scaled
        self._n = total

    def merge(self, other: Moments) -> None:
        """Add the rows another has seen; it stays as it is. Associative up to rounding.

        Raises:
            InputError: If it has another number of columns, or only one of the two keeps covariances.
        """
        if (self.dim, self.keeps_covariance) != (other.dim, other.keeps_covariance):
            raise InputError(
                f"cannot merge moments of {self.dim} columns (covariance: {self.keeps_covariance}) and of "
                f"{other.dim} (covariance: {other.keeps_covariance})"
            )
        theirs = other._host_arrays()
        self.__dict__.update(self._on_host().__dict__)
        self._add(*theirs)
        self.rows_seen += other.rows_seen

    def _host_arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        self._flush()
        if self._device is not None:
            return self._device.moments()
        return self._n.copy(), self._mean.copy(), self._products.copy()

    def _on_host(self) -> Self:
        result = type(self)(self.dim, self.keeps_covariance)
        result.rows_seen = self.rows_seen
        result._n, result._mean, result._products = self._host_arrays()
        return result

    @property
    def n(self) -> int:
        """Rows without a non-finite value. On an accelerator, where they are not yet told apart: `rows_seen`."""
        if self._device is not None:
            return self.rows_seen
        self._flush()
        return int(self._n)

    @property
    def invalid(self) -> int:
        """Rows left out; 0 on an accelerator, where they are counted but not asked for."""
        return self.rows_seen - self.n

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean of each column, float64 `[D]`; NaN without rows. Waits for the accelerator, as do the next two."""
        n, mean, _ = self._host_arrays()
        return mean if n else np.full(self.dim, np.nan)

    @property
    def covariance(self) -> NDArray[np.float64] | None:
        """Covariance matrix (divided by n - 1), float64 `[D, D]`; NaN below two rows; None where it is not kept."""
        n, _, products = self._host_arrays()
        if not self.keeps_covariance:
            return None
        return _symmetric(products) / (n - 1) if n > 1 else np.full_like(products, np.nan)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Variance of each column (divided by n - 1), float64 `[D]`; NaN below two rows."""
        n, _, products = self._host_arrays()
        diagonal = np.diagonal(products).copy() if self.keeps_covariance else products
        return diagonal / (n - 1) if n > 1 else np.full(self.dim, np.nan)

    def to_host(self) -> Self:
        """The same moments with numpy state; itself if it has that already. Waits for the accelerator."""
        return self if self._device is None else self._on_host()

    def copied(self) -> Self:
        """A copy with numpy state."""
        return self._on_host()

    def state(self) -> State:
        """Plain host arrays: `n`, `rows_seen` and `covariance` int64, `mean` float64 `[D]` and `products` float64.

        `products` are the centred sums of products: the upper triangle row by row, or the diagonal `[D]`.
        """
        n, mean, products = self._host_arrays()
        return {
            "n": np.array(int(n), np.int64),
            "rows_seen": np.array(self.rows_seen, np.int64),
            "covariance": np.array(self.keeps_covariance, np.int64),
            "mean": mean,
            "products": products[np.triu_indices(self.dim)] if self.keeps_covariance else products,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The moments of which `state` is the state.

        Raises:
            FormatError: If it is not a state of moments.
        """
        mean = field(state, "mean", np.float64, (None,))
        require(1 <= mean.size <= _LARGEST_DIM and bool(np.isfinite(mean).all()), "the mean is not finite")
        full = bool(number(state, "covariance", 0, 1))
        products = field(state, "products", np.float64, (mean.size * (mean.size + 1) // 2 if full else mean.size,))
        require(bool(np.isfinite(products).all()), "products are not finite")
        result = cls(mean.size, full)
        result.rows_seen = number(state, "rows_seen")
        result._n, result._mean = np.array(number(state, "n", 0, result.rows_seen), np.float64), mean
        result._products = _mirrored(products, mean.size) if full else products
        require(bool(np.all(result.variance >= 0)) or result.n < 2, "a negative variance")
        return result


class _Device:
    """The sums of rows on an accelerator of torch; it goes on from these moments, which are on the host.

    Attributes:
        centre: float32 `[D]`, what is subtracted of every row. Of rows with a value that is not finite it takes the
            place, so that nothing of them is left.
    """

    def __init__(self, n: Any, mean: Any, products: Any, like: Array) -> None:
        dim = len(mean)
        self._dim, self._width = dim, dim + 2 - dim % 2  # an even number: a row starts where the processor loads well
        self._full = products.ndim == 2
        self._blocks = 0
        shape = (self._width, self._width) if self._full else (2, self._width)
        self._sums = zeros_beside(shape, "float64", like)  # of products; or of values and of squares
        self._wide_centre = zeros_beside((dim,), "float64", like)
        self.centre = zeros_beside((dim,), "float32", like)
        if n:
            self._resume(float(n), mean, products, like)

    def _resume(self, n: float, mean: NDArray[np.float64], products: NDArray[np.float64], like: Array) -> None:
        centre = mean.astype(np.float32)
        off, sums, dim = mean - centre, np.zeros(tuple(self._sums.shape)), self._dim
        if self._full:
            sums[:dim, :dim] = products + n * np.outer(off, off)
            sums[dim:, :dim] = sums[:dim, dim:].T[...] = n * off
            sums[dim:, dim:] = n
        else:
            sums[:, :dim], sums[:, dim:] = (n * off, products + n * off * off), n
        self._sums, self._wide_centre, self.centre = (send(x, like) for x in (sums, centre.astype(np.float64), centre))

    def add(self, rows: Array) -> None:
        """Add rows `[n, D]` that lie here, of any floating dtype; nothing is waited for."""
        xp = namespace(rows)
        rows = xp.astype(rows, xp.float32, copy=False)
        valid = are_finite(rows)[:, None]
        self._blocks += 1
        if self._blocks.bit_count() == 1:
            self._recentre(self._centred(rows, valid))
        centred = self._centred(rows, valid)
        if self._full:
            self._sums.addmm_(centred.T, centred)
        else:
            lengths = xp.linalg.vector_norm(centred, ord=2, axis=0)
            self._sums[0].add_(centred.sum(0))
            self._sums[1].addcmul_(lengths, lengths)

    def _centred(self, rows: Array, valid: Array) -> Array:
        """Rows less the centre, float64 `[n, D]`, 0 where they are not valid; and behind them their weights."""
        xp = namespace(rows)
        result = unfilled((int(rows.shape[0]), self._width), dtype_name(self._sums), self._sums)
        xp.sub(xp.where(valid, rows, self.centre), self._wide_centre, out=result[:, : self._dim])
        result[:, self._dim :] = valid
        return result

    def _recentre(self, centred: Array) -> None:
        """Make the mean of all rows, these included, the centre."""
        xp, dim, last = namespace(centred), self._dim, slice(self._width - 1, None)
        so_far = self._sums[-1] if self._full else self._sums[0]
        sums, n = so_far[:dim], so_far[last]
        with_these = so_far + centred.sum(0)
        centre = self._wide_centre + with_these[:dim] / with_these[last].clip(1.0)
        self.centre = xp.astype(centre, xp.float32)
        centre = xp.astype(self.centre, centre.dtype)
        off, self._wide_centre = self._wide_centre - centre, centre
        if self._full:
            half = sums + 0.5 * n * off
            self._sums[:dim, :dim].addr_(half, off).addr_(off, half)
            self._sums[dim:, :dim].add_(n * off)
            self._sums[:dim, dim:].add_((n * off)[:, None])
        else:
            self._sums[1, :dim].addcmul_(2.0 * sums + n * off, off)
            self._sums[0, :dim].add_(n * off)

    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Number of complete rows, their mean, and their centred sums of products. Waits for the accelerator."""
        sums, centre, dim = to_host(self._sums).astype(np.float64), to_host(self.centre).astype(np.float64), self._dim
        of_values = sums[-1 if self._full else 0]
        n = of_values[-1]
        off = of_values[:dim] / (n or 1.0)
        if not self._full:
            return n, centre + off, np.maximum(sums[1, :dim] - n * off * off, 0.0)
        products = sums[:dim, :dim] - n * np.outer(off, off)
        np.fill_diagonal(products, np.maximum(np.diagonal(products), 0.0))  # rounding alone goes below
        return n, centre + off, products


def _summed(rows: NDArray[np.float32], covariance: bool) -> tuple[Any, NDArray[np.float64], NDArray[np.float64]]:
    """Number of complete rows in host memory, their mean, and their centred sums of products."""
    wide = rows.astype(np.float64)
    with np.errstate(invalid="ignore"):
        valid = np.isfinite(wide.sum(axis=1))  # sums of float32 values do not overflow in float64
    wide = wide if valid.all() else wide[valid]
    n = np.float64(len(wide))
    mean = wide.sum(axis=0) / (n + (n == 0))
    wide -= mean
    return n, mean, wide.T @ wide if covariance else np.sum(wide * wide, axis=0)


def _mirrored(triangle: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """The symmetric matrix with this upper triangle, given row by row."""
    matrix = np.zeros((dim, dim))
    matrix[np.triu_indices(dim)] = triangle
    return _symmetric(matrix)


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle twice. A matrix product need not round both triangles alike: that depends on the library."""
    return np.triu(matrix) + np.triu(matrix, 1).T
