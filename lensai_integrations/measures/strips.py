"""One image of bytes in host memory, strip by strip: what `formulas.over_pixels` adds up, in a third of the time.

Images that are profiled where they are delivered come one at a time, and what measuring them costs is a worker's time.
So here every plane is a strip that stays in the processor's cache. And nearly all is whole numbers: pixels, luma in
thousandths as 299 R + 587 G + 114 B, and their differences, which float32 holds exactly. Only sums of squares are
rounded, and from those nothing is subtracted but the square of a mean that is nearly 0, so no digits are lost and the
spread of a constant image is exactly 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.sketches.counts import count_bytes

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

#: Pixels of a strip.
_STRIP: Final = 1 << 15
#: Luma in thousandths, R - G and R + G - 2 B.
MIXED: Final = np.array([(299, 587, 114), (1, -1, 0), (1, 1, -2)], np.float32)


@dataclass
class Totals:
    """Sums over the pixels of one image, float64.

    Attributes:
        near: Whole numbers near the means of 1000 luma, R - G and R + G - 2 B, `[3]`.
        squares: Sums of the squares of these three, less `near`, `[3]`.
        laplacian: Sums of 1000 luma's Laplacian and of its square, `[2]`.
        ridge: Sum of `|1000 luma * [1 -2 1; -2 4 -2; 1 -2 1]|` off the border.
        saturation: Sum of (max - min) / max of R, G, B.
        counts: How often each 8-bit luma occurs, `[256]`.
    """

    near: NDArray[np.float64]
    squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    laplacian: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    ridge: float = 0.0
    saturation: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))


def is_one_image_of_bytes(values: Any) -> bool:
    """Whether `[n, C, H, W]` is one RGB image of bytes in host memory."""
    return is_numpy_array(values) and values.dtype == np.uint8 and values.shape[:2] == (1, 3)


def totals(image: Bytes, mean: NDArray[np.float64]) -> Totals:
    """Add up the pixels of uint8 `[3, H, W]`, contiguous.

    Args:
        image: The pixels.
        mean: Mean of each channel, `[3]`.

    Example:
        >>> found = totals(np.full((3, 8, 8), 100, np.uint8), np.full(3, 100.0))
        >>> found.near.tolist(), found.squares.tolist(), int(found.counts[100])
        ([100000.0, 0.0, 0.0], [0.0, 0.0, 0.0], 64)
    """
    _, height, width = image.shape
    strips = min(height, -(-height * width // _STRIP))
    rows = -(-height // strips)
    found = Totals(np.rint(MIXED @ mean))
    luma = np.empty((height, width), np.uint8)
    pixels, mixed = np.empty((2, 3, (rows + 2) * width), np.float32)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        _mix(image, start, stop, pixels, mixed)
        own = mixed[:, width : (stop - start + 1) * width]  # a row above and one below belong to other strips
        _add_neighbours(found, mixed[0, : own.shape[1] + 2 * width], width, (start == 0, stop == height), pixels)
        own -= found.near.astype(np.float32)[:, None]
        found.squares += np.vecdot(own, own)
        _round_luma(own[0], found.near[0], pixels[0], luma[start:stop].reshape(-1))
        found.saturation += _saturation(image[:, start:stop], pixels[0])
    found.counts = count_bytes(luma[None, None])[0]
    return found


def _mix(image: Bytes, start: int, stop: int, pixels: Floats, mixed: Floats) -> None:
    """Fill the planes with some rows, the one above and the one below; at the border mirrored (reflect-101)."""
    _, height, width = image.shape
    first, last = max(start - 1, 0), min(stop + 1, height)
    there = slice((first - start + 1) * width, (last - start + 1) * width)
    np.copyto(pixels[:, there].reshape(3, -1, width), image[:, first:last])
    np.matmul(MIXED, pixels[:, there], out=mixed[:, there])
    luma = mixed[0, : (stop - start + 2) * width].reshape(-1, width)
    if first == start:
        luma[0] = luma[min(2, height)]
    if last == stop:
        luma[-1] = luma[max(-3, -1 - height)]


def _add_neighbours(found: Totals, rows: Floats, width: int, border: tuple[bool, bool], space: Floats) -> None:
    """Add what the differences between neighbours tell: see `differences.py`."""
    own = rows[width:-width]
    across, down = space[1, : own.size], space[2, : own.size]
    _second(rows, width, space[0], down)
    _second(own, 1, space[0], across[1:-1])
    plane, ends = own.reshape(-1, width), across.reshape(-1, width)
    beside = min(1, width - 1)
    ends[:, 0] = 2 * (plane[:, beside] - plane[:, 0])
    ends[:, -1] = 2 * (plane[:, -1 - beside] - plane[:, -1])
    across += down
    found.laplacian += np.vecdot(across, _ones(across.size)), np.vecdot(across, across)
    inner = down[width if border[0] else 0 : down.size - (width if border[1] else 0)]
    if width > 2 and inner.size:
        found.ridge += _ridge(inner, width, space)


def _second(values: Floats, step: int, space: Floats, out: Floats) -> None:
    """Second differences of a long row of numbers, as if the next row followed the last column."""
    first = np.subtract(values[step:], values[:-step], out=space[: values.size - step])
    np.subtract(first[step:], first[:-step], out=out)


def _ridge(down: Floats, width: int, space: Floats) -> float:
    """Sum of `|second differences across|` of those down, without the first and the last column."""
    mask = space[1, : down.size]
    _second(down, 1, space[0], mask[1:-1])
    mask[::width] = mask[width - 1 :: width] = 0
    return float(np.vecdot(np.abs(mask, out=mask), _ones(mask.size)))


def _round_luma(luma: Floats, near: float, space: Floats, out: Bytes) -> None:
    """8-bit luma of that in thousandths less `near`; half a thousandth more than 0.5 is added, as in `formulas`."""
    rounded = np.multiply(luma, 1e-3, out=space[: luma.size])
    rounded += float(near) * 1e-3 + 0.5005  # not a numpy float64, which would widen all
    np.copyto(out, rounded, casting="unsafe")


def _saturation(image: Bytes, space: Floats) -> float:
    red, green, blue = image.reshape(3, -1)
    high, low = np.maximum(red, green), np.minimum(red, green)
    np.maximum(high, blue, out=high)
    np.minimum(low, blue, out=low)
    chroma = np.subtract(high, low, out=low)
    np.maximum(high, 1, out=high)
    share = np.divide(chroma, high, out=space[: high.size], dtype=np.float32)
    return float(np.vecdot(share, _ones(share.size)))


@lru_cache(maxsize=64)
def _ones(size: int) -> Floats:
    return np.ones(size, np.float32)
