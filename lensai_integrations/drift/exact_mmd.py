"""The maximum mean discrepancy of two sets of rows, exactly: where both sides still have all of their rows.

What two profiles can be held against each other by is an estimate of it from their kernel means (`kernel.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from lensai_integrations.errors import InputError

Floats: TypeAlias = NDArray[np.float64]

#: Kernel values computed at a time: 32 MB.
_CHUNK = 1 << 22
#: Larger numbers have covariances whose products are no float64; and SciPy's clusters of them end the process.
_LARGEST = 1e70
#: Rows the median distance is found from.
_MEDIAN_ROWS = 1000
#: Most rows of both sides that `mmd_test` makes a kernel matrix of: 3.2 GB.
_LARGEST_MATRIX = 20_000
#: Permutations taken at a time.
_BLOCK = 64


@dataclass(frozen=True)
class PermutationTest:
    """What `mmd_test` found.

    Attributes:
        mmd: Squared MMD, unbiased.
        p_value: Share of the permutations, the actual order among them, that have at least that.
        bandwidth: Of the kernel, in the units of the rows.
        permutations: How many were drawn.
    """

    mmd: float
    p_value: float
    bandwidth: float
    permutations: int


def mmd(baseline: ArrayLike, window: ArrayLike, bandwidth: float | None = None, unbiased: bool = True) -> float:
    """Squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / (2 bandwidth^2)), exactly.

    Source: Gretton et al., A kernel two-sample test, 2012, equations 3 and 5. The kernel's values are summed as they
    are computed, so memory grows with the rows and not with their square; time does.

    Args:
        baseline: Rows `[n, D]`, two or more.
        window: Rows `[m, D]`, two or more.
        bandwidth: None for the median distance of the rows of both sides (of 1,000 of them if there are more).
        unbiased: Leave out the pairs of a row with itself. Without drift the value is 0 on average then, and often
            below it; with them it is never below 0, and the larger the fewer rows there are.

    Raises:
        InputError: If rows are no finite matrices of the same width, or the bandwidth is not above 0.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(200, 8))
        >>> abs(mmd(rows[:100], rows[100:])) < 0.01, round(mmd(rows[:100], rows[100:] + 1), 2)
        (True, 0.25)
    """
    one, two = checked_pair(baseline, window, least=2)
    scale = _bandwidth(one, two, bandwidth)
    n, m = len(one), len(two)
    within = [_kernel_sum(rows, rows, scale) - len(rows) * unbiased for rows in (one, two)]
    across = _kernel_sum(one, two, scale) / (n * m)
    return within[0] / (n * (n - unbiased)) + within[1] / (m * (m - unbiased)) - 2 * across


def mmd_test(
    baseline: ArrayLike, window: ArrayLike, bandwidth: float | None = None, permutations: int = 500, seed: int = 0
) -> PermutationTest:
    """Whether two sets of rows are of one distribution, by shuffling which row is of which side.

    The kernel matrix is computed once. With a 1 where a shuffled row is of the baseline, the sums over the pairs of
    every shuffle are quadratic forms, and all of them one product of matrices.

    Args:
        baseline: Rows `[n, D]`, two or more.
        window: Rows `[m, D]`, two or more; both sides together at most 20,000.
        bandwidth: As for `mmd`. The median over both sides does not depend on which row is of which side.
        permutations: How many shuffles; the smallest possible p-value is 1 / (permutations + 1).
        seed: Of the shuffles.

    Raises:
        InputError: As for `mmd`, if there are too many rows, or permutations is below 1.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(60, 4))
        >>> found = mmd_test(rows[:30], rows[30:] + 1, permutations=99)
        >>> found.p_value, found.permutations
        (0.01, 99)
    """
    one, two = checked_pair(baseline, window, least=2)
    n, m = len(one), len(two)
    if n + m > _LARGEST_MATRIX:
        raise InputError(f"{n} and {m} rows need too large a kernel matrix: pass at most {_LARGEST_MATRIX:,} together")
    if permutations < 1:
        raise InputError(f"permutations={permutations!r} is how many shuffles are drawn: pass 1 or more, e.g. 500")
    scale = _bandwidth(one, two, bandwidth)
    rows = np.concatenate([one, two])
    kernel = np.empty((n + m, n + m))
    for start, block in _kernel_blocks(rows, rows, scale):
        kernel[start : start + len(block)] = block
    np.fill_diagonal(kernel, 0.0)
    rng = np.random.default_rng(seed)
    found = _shuffled(kernel, n, np.arange(n + m)[None])[0]
    drawn = np.concatenate(
        [
            _shuffled(
                kernel, n, rng.permuted(np.tile(np.arange(n + m), (min(_BLOCK, permutations - start), 1)), axis=1)
            )
            for start in range(0, permutations, _BLOCK)
        ]
    )
    reached = int(np.count_nonzero(drawn >= found - 1e-12))  # shuffles that change nothing differ by rounding
    return PermutationTest(float(found), (1 + reached) / (1 + permutations), scale, permutations)


def checked_pair(baseline: ArrayLike, window: ArrayLike, least: int = 1) -> tuple[Floats, Floats]:
    """Both sides as float64 matrices of one width.

    Args:
        baseline: Rows `[n, D]`.
        window: Rows `[m, D]`.
        least: How many rows each needs.

    Raises:
        InputError: If they are not, have too few rows, or a value is not finite.

    Example:
        >>> [rows.shape for rows in checked_pair([[1, 2]], [[3, 4], [5, 6]])]
        [(1, 2), (2, 2)]
    """
    one, two = checked_rows("baseline", baseline, least), checked_rows("window", window, least)
    if one.shape[1] != two.shape[1]:
        raise InputError(f"baseline has {one.shape[1]} columns and window {two.shape[1]}: pass the same layer's rows")
    return one, two


def checked_rows(name: str, rows: ArrayLike, least: int) -> Floats:
    """Rows as a finite float64 matrix.

    Args:
        name: What to call them in an error.
        rows: `[n, D]`.
        least: How many are needed.

    Raises:
        InputError: If they are not, there are fewer, or a value is not finite.

    Example:
        >>> checked_rows("window", [[1, 2]], least=1).dtype
        dtype('float64')
    """
    matrix = checked_numbers(name, rows)
    if matrix.ndim != 2 or len(matrix) < least or not matrix.shape[1]:
        raise InputError(f"{name} should be rows [n, D], n at least {least}, not an array of shape {matrix.shape}")
    return matrix


def checked_numbers(name: str, numbers: Any) -> Floats:
    """Numbers as a float64 array, all finite and none so large that squares and their products are not.

    Args:
        name: What to call them in an error.
        numbers: Anything numpy makes an array of.

    Raises:
        InputError: If they are no numbers, or one is not finite or beyond 1e70.

    Example:
        >>> checked_numbers("mean", [1, 2])
        array([1., 2.])
    """
    try:
        array = np.asarray(numbers, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} should be an array of numbers in host memory: {error}") from error
    if not np.isfinite(array).all():
        raise InputError(f"{name} has values that are NaN or infinite: leave out their rows, and count them")
    if array.size and (largest := float(np.abs(array).max())) > _LARGEST:
        raise InputError(
            f"{name} has numbers as large as {largest:.0e}, whose squares are too large to compute with: divide both"
            " sides by the same number"
        )
    return array


def _bandwidth(one: Floats, two: Floats, given: float | None) -> float:
    """The one given, or the median distance; for rows that are mostly alike their mean distance, or 1."""
    if given is not None:
        if not 0 < given < np.inf:
            raise InputError(f"bandwidth={given!r} should be a distance of rows: pass a number above 0, or None")
        return float(given)
    rows = np.concatenate([one, two])
    lengths = pdist(rows[np.linspace(0, len(rows) - 1, min(len(rows), _MEDIAN_ROWS)).astype(np.intp)])
    return float(np.median(lengths) or np.mean(lengths) or 1.0)


def _kernel_blocks(one: Floats, two: Floats, bandwidth: float) -> Iterator[tuple[int, Floats]]:
    """The kernel's values, some rows `[c, m]` at a time, and which row is their first."""
    middle = two.mean(axis=0)  # near the rows, for their squared lengths to be no larger than need be
    one, two = (one - middle) / bandwidth, (two - middle) / bandwidth
    lengths, step = np.einsum("nd,nd->n", two, two) / 2, max(_CHUNK // len(two), 1)
    for start in range(0, len(one), step):
        rows = one[start : start + step]
        block = rows @ two.T
        block -= np.einsum("nd,nd->n", rows, rows)[:, None] / 2 + lengths
        yield start, np.exp(np.minimum(block, 0.0, out=block), out=block)


def _kernel_sum(one: Floats, two: Floats, bandwidth: float) -> float:
    """Sum of the kernel over all pairs; of a side with itself, each row with itself counts exactly 1."""
    total = 0.0
    for start, block in _kernel_blocks(one, two, bandwidth):
        total += float(block.sum())
        if one is two:
            total += len(block) - float(np.trace(block, offset=start))
    return total


def _shuffled(kernel: Floats, n: int, orders: NDArray[np.intp]) -> Floats:
    """Unbiased squared MMD of the first n rows of each order against the others, `[orders]`."""
    m = len(kernel) - n
    chosen = np.zeros((len(kernel), len(orders)))
    np.put_along_axis(chosen, orders[:, :n].T, 1.0, axis=0)
    degrees = kernel.sum(axis=1)
    own, touched = np.einsum("np,np->p", chosen, kernel @ chosen), degrees @ chosen
    rest: Floats = degrees.sum() - 2 * touched + own
    result: Floats = own / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * (touched - own) / (n * m)
    return result
