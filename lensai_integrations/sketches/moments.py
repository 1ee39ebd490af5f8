"""Count, mean, variance and covariance of rows, in one pass and without cancellation.

Rows wait in a small block. A full block is centred on its own mean, its sums of products are taken, and these are
added by the formula of Chan, Golub and LeVeque (Updating formulae and a pairwise algorithm for computing sample
variances, 1979). So no large squares are ever subtracted from each other, however far the mean is from zero
and however it wanders; and the cost of adding up a D x D matrix is paid once a block, not once a batch.

Which rows are complete is decided where they lie: a row with a non-finite value gets weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, local, namespace, send, to_host, unfilled
from lensai_integrations.errors import InputError
from lensai_integrations.sketches.state import Sketch, State, field, number, require

#: Wider rows get variances only: a covariance of 1,024 columns takes 8 MiB.
COVARIANCE_UP_TO = 1024
#: Values of a block, as far as it has 32 to 256 rows: what is made of it in float64 stays in the processor's cache.
_BLOCK_VALUES = 1 << 17
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
        self._n: Array = np.zeros(())
        self._mean: Array = np.zeros(self.dim)
        self._products: Array = np.zeros((self.dim, self.dim) if self.keeps_covariance else self.dim)
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
        for start in range(0, int(rows.shape[0]), self._block_rows):
            block = rows[start : start + self._block_rows]
            fits = min(self._block_rows - self._filled, int(block.shape[0]))
            self._append(block[:fits])
            self._append(block[fits:])
        self.rows_seen += int(rows.shape[0])

    def _beside(self, rows: Array) -> Array:
        """The rows where the state is; or the state is sent, once, to the accelerator the rows are on."""
        if is_numpy_array(self._n) and not is_numpy_array(rows):
            self._flush()
            self._n, self._mean, self._products = (send(x, rows) for x in (self._n, self._mean, self._products))
            self._block = None
        if self._block is None:
            self._block = unfilled((self._block_rows, self.dim), "float32", self._mean)
        return send(rows, self._mean) if is_numpy_array(rows) else rows

    def _append(self, rows: Array) -> None:
        """Rows that fit into the block; a full block is added to the state."""
        assert self._block is not None
        end = self._filled + int(rows.shape[0])
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, as on an accelerator
            self._block[self._filled : end] = rows
        self._filled = end
        if end == self._block_rows:
            self._flush()

    def _flush(self) -> None:
        if self._block is not None and self._filled:
            self._add(*_summed(self._block[: self._filled], self.keeps_covariance))
            self._filled = 0

    def _add(self, n: Array, mean: Array, products: Array) -> None:
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
        self._n, self._mean, self._products = self._host_arrays()
        self._block = None
        self._add(*theirs)
        self.rows_seen += other.rows_seen

    def _host_arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        self._flush()
        n, mean, products = (to_host(array).astype(np.float64) for array in (self._n, self._mean, self._products))
        return n, mean, products

    @property
    def n(self) -> int:
        """Rows without a non-finite value. On an accelerator, where they are not yet told apart: `rows_seen`."""
        if not is_numpy_array(self._n):
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
        if is_numpy_array(self._n):
            return self
        result = type(self)(self.dim, self.keeps_covariance)
        result.rows_seen = self.rows_seen
        result._n, result._mean, result._products = self._host_arrays()
        return result

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


def _summed(rows: Array, covariance: bool) -> tuple[Array, Array, Array]:
    """Number of complete rows, their mean, and their centred sums of products, all where `rows` are."""
    xp = namespace(rows)
    rows = xp.astype(rows, xp.float32 if getattr(rows.device, "type", "") == "mps" else xp.float64)
    with np.errstate(invalid="ignore"):
        valid = xp.isfinite(xp.sum(rows, axis=1))  # sums of float32 values do not overflow in float64
    if is_numpy_array(rows):
        rows = rows if valid.all() else rows[valid]
        n = np.float64(len(rows))
    else:  # how many are valid is not known here: they stay, with weight 0
        rows, n = xp.where(valid[:, None], rows, xp.zeros_like(rows)), xp.sum(xp.astype(valid, rows.dtype))
    mean = xp.sum(rows, axis=0) / (n + (n == 0))
    rows -= mean
    if not is_numpy_array(rows):
        rows = xp.where(valid[:, None], rows, xp.zeros_like(rows))
    return n, mean, rows.T @ rows if covariance else xp.sum(rows * rows, axis=0)


def _mirrored(triangle: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """The symmetric matrix with this upper triangle, given row by row."""
    matrix = np.zeros((dim, dim))
    matrix[np.triu_indices(dim)] = triangle
    return _symmetric(matrix)


def _symmetric(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The upper triangle twice. A matrix product need not round both triangles alike: that depends on the library."""
    return np.triu(matrix) + np.triu(matrix, 1).T
