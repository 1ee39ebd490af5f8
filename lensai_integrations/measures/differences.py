"""What neighbouring pixels say: the Laplacian for sharpness, Immerkaer's mask for noise.

Both are made of second differences across and down. Those are taken along the image as one long row, where each is two
subtractions of contiguous arrays, twice as fast as row by row. What comes out at the ends of rows, where the next
one begins, means nothing and is left out of the sums.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import is_numpy_array

from lensai_integrations.arrays.namespaces import Array, shape_of
from lensai_integrations.measures.pixels import clip, mean_over_pixels, mean_square


def differences(plane: Array, xp: Any) -> tuple[Array, Array]:
    """Second differences `x[i-1] - 2 x[i] + x[i+1]` across and down of `[n, H, W]`, both `[n, H, W + 2]`.

    The first and the last column mean nothing. The border is mirrored without repeating it, OpenCV's reflect-101; along
    an axis of one pixel the differences are 0.
    """
    n, height, width = shape_of(plane)
    (top, bottom), (left, right) = _mirrored(height), _mirrored(width)
    wide = xp.concatenate([plane[:, :, left], plane, plane[:, :, right]], axis=2)
    step = width + 2
    long = xp.reshape(xp.concatenate([wide[:, top], wide, wide[:, bottom]], axis=1), (n, (height + 2) * step))
    across = _second(long[:, step - 1 : (height + 1) * step + 1], 1)
    return xp.reshape(across, (n, height, step)), xp.reshape(_second(long, step), (n, height, step))


def laplacian_variance(across: Array, down: Array, xp: Any) -> Array:
    """Population variance of the 4-neighbour Laplacian from `differences`, `[n]`.

    The mirrored border keeps the mean small against the spread, so subtracting its square last costs no digits.
    """
    laplacian = across + down
    mean, square = _inside(laplacian, 1, xp)
    return clip(square - mean * mean, 0.0, math.inf)


def ridge(across: Array, xp: Any) -> Array:
    """Mean of `|x * [1 -2 1; -2 4 -2; 1 -2 1]|` off the border from `differences`, `[n]`; 0 below 3 x 3 pixels."""
    n, height, step = shape_of(across)
    if height < 3 or step < 5:
        return xp.zeros_like(across[:, 0, 0])
    mask = _second(xp.reshape(across, (n, height * step)), step)
    return _inside(xp.reshape(xp.abs(mask), (n, height - 2, step)), 2, xp)[0]


def _second(values: Array, step: int) -> Array:
    first = values[:, step:] - values[:, :-step]
    return first[:, step:] - first[:, :-step]


def _mirrored(size: int) -> tuple[slice, slice]:
    """Where the lines mirrored at the two ends of an axis of this size come from."""
    first, last = (1, size - 2) if size > 1 else (0, 0)
    return slice(first, first + 1), slice(last, last + 1)


def _inside(values: Array, columns: int, xp: Any) -> tuple[Array, Array]:
    """Mean and mean square of `[n, H, W]` without the outer columns, which numpy overwrites: one long sum is faster."""
    if not is_numpy_array(values):
        kept = values[:, :, columns:-columns]
        return mean_over_pixels(kept, xp), mean_square(kept, xp)
    values[:, :, :columns] = 0
    values[:, :, -columns:] = 0
    share = values.shape[2] / (values.shape[2] - 2 * columns)
    return mean_over_pixels(values, xp) * share, mean_square(values, xp) * share
