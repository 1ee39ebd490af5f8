"""Random Fourier features of Gaussian kernels, at bandwidths that are powers of two.

For a frequency w drawn from a standard normal distribution, cos(w(x - y)/s) is on average the Gaussian kernel of
bandwidth s, exp(-|x - y|^2 / (2 s^2)); and it is the product of (cos, sin)(wx/s) and (cos, sin)(wy/s). So F
frequencies turn a row into 2 F numbers whose products approximate the kernel (Rahimi and Recht, Random features for
large-scale kernel machines, 2007).

Profiles are made independently of each other and compared years later. So the frequencies follow from their seed by
arithmetic that does not change with releases of numpy, and bandwidths lie on a fixed grid. An angle at half the
bandwidth is twice the angle, so one more bandwidth costs no further cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, namespace
from lensai_integrations.errors import InputError

#: Exponents outside this range say that something else is wrong with the rows.
LARGEST_EXPONENT = 40


def waves(rows: Array, frequencies: Array, top: Array | int, bands: int) -> tuple[Array, list[tuple[Array, Array]]]:
    """Cosines and sines of every row's angles, bandwidth by bandwidth, where the rows are.

    Args:
        rows: `[n, D]`.
        frequencies: `[D, F]`, beside the rows; its dtype is the one computed in.
        top: Exponent of the widest bandwidth, 2**top; a scalar beside the rows will do.
        bands: Number of bandwidths, each half of the next.

    Returns:
        Which rows are valid, bool `[n]`: those whose angles are finite; and cosines and sines, `[n, F]` each, for each
        bandwidth, the narrowest first. Those of an invalid row say nothing.

    Example:
        >>> valid, [(cosines, sines)] = waves(np.array([[0.5]]), np.array([[np.pi]]), top=0, bands=1)
        >>> valid.tolist(), sines.tolist()
        ([True], [[1.0]])
    """
    xp = namespace(rows)
    with np.errstate(over="ignore", invalid="ignore"):
        products = xp.astype(rows, frequencies.dtype) @ frequencies
    valid = xp.all(xp.isfinite(products), axis=1)
    angles = xp.where(valid[:, None], products, xp.zeros_like(products)) * 2.0**-top
    cosines, sines = xp.cos(angles), xp.sin(angles)
    result = [(cosines, sines)]
    for _ in range(bands - 1):
        cosines, sines = (cosines - sines) * (cosines + sines), 2.0 * sines * cosines
        result.insert(0, (cosines, sines))
    return valid, result


def nearest_exponent(rows: Array) -> Array:
    """The whole number nearest to log2 of the median distance of two rows, as a scalar where the rows are.

    Pairs at no distance and rows that are not finite are passed over; 0 if nothing is left.

    Args:
        rows: `[n, D]`, n up to a few hundred: all pairs are looked at.

    Example:
        >>> float(nearest_exponent(np.array([[0.0], [0.0], [7.0]])))
        3.0
    """
    xp = namespace(rows)
    rows = xp.astype(rows, xp.float32 if getattr(rows.device, "type", "") == "mps" else xp.float64)
    valid = xp.all(xp.abs(rows) <= float(np.finfo(np.float32).max), axis=1)
    rows = xp.where(valid[:, None], rows, xp.zeros_like(rows))
    squares = xp.sum(rows * rows, axis=1)
    both = squares[:, None] + squares[None, :]
    distances = both - 2.0 * (rows @ rows.T)
    apart = valid[:, None] & valid[None, :] & (distances > 4096 * xp.finfo(rows.dtype).eps * both)
    ordered = xp.sort(xp.reshape(xp.where(apart, distances, xp.full_like(distances, xp.inf)), (-1,)))
    pairs = xp.sum(xp.astype(apart, xp.int64))
    middle = xp.clip(pairs - 1, 0, None) // 2
    exponent = xp.round(0.5 * xp.log2(xp.take(ordered, xp.reshape(middle, (1,)))[0]))
    return xp.clip(xp.where(pairs > 0, exponent, xp.zeros_like(exponent)), -LARGEST_EXPONENT, LARGEST_EXPONENT)


@lru_cache(maxsize=8)
def random_frequencies(dim: int, count: int, seed: int) -> NDArray[np.float32]:
    """Standard normal frequencies, float32 `[dim, count]`, the same on every machine and for every release of numpy.

    numpy promises this for the raw bits of its generators, not for its normal distribution; so these are made of raw
    bits by Box and Muller's formula (A note on the generation of random normal deviates, 1958).

    Example:
        >>> random_frequencies(2, 2, 0).shape
        (2, 2)
    """
    half = (dim * count + 1) // 2
    uniform = (np.random.PCG64([seed, dim, count]).random_raw(2 * half) >> np.uint64(11)) * 2.0**-53
    radius, turn = np.sqrt(-2.0 * np.log1p(-uniform[:half])), 2.0 * np.pi * uniform[half:]
    normal = np.concatenate([radius * np.cos(turn), radius * np.sin(turn)])[: dim * count].astype(np.float32)
    result = normal.reshape(dim, count)
    result.setflags(write=False)
    return result


def checked_exponents(exponents: Sequence[int]) -> tuple[int, ...]:
    """Exponents of bandwidths as a tuple, refused unless they are one to three consecutive whole numbers.

    Raises:
        InputError: Saying what was given.

    Example:
        >>> checked_exponents([2, 3, 4])
        (2, 3, 4)
    """
    result = tuple(int(exponent) for exponent in exponents)
    if not are_exponents(result):
        raise InputError(f"exponents should be one to three consecutive whole numbers within ±41, not {exponents!r}")
    return result


def are_exponents(exponents: Sequence[int]) -> bool:
    """Whether these are one to three consecutive whole numbers in range.

    Example:
        >>> are_exponents([1, 3])
        False
    """
    return 1 <= len(exponents) <= 3 and all(
        exponent == exponents[0] + place and abs(exponent) <= LARGEST_EXPONENT + 1
        for place, exponent in enumerate(exponents)
    )
