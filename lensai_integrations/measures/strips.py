"""One image of bytes in host memory, strip by strip: what `formulas.over_pixels` adds up, faster than a batch of one.

Images that are profiled where they are delivered come one at a time, and what measuring them costs is a worker's time.
So here every plane is a strip that stays in the processor's cache, and as few as possible are made. All is whole
numbers, but for saturation: pixels, their products, luma in thousandths as 299 R + 587 G + 114 B (and a half), and its
differences. Float32 holds those exactly, and sums of few enough of them, so that variances are exact.
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
_STRIP: Final = 1 << 16
#: Products of so many pairs of bytes add up to less than 2^24.
_EXACT: Final = 256
#: Thousandths of luma, of R, G, B and 1. Half a one more than 500 rounds half up once it is cut to 8 bits and keeps the
#: boundary away from all lumas, as in `formulas`.
_LUMA: Final = np.array([299.0, 587.0, 114.0, 500.5], np.float32)


@dataclass
class Totals:
    """Sums over the pixels of one image, float64.

    Attributes:
        products: Sums of R G, R B and G B, `[3]`.
        laplacian: Sums of 1000 luma's Laplacian and of its square, `[2]`.
        ridge: Sum of `|1000 luma * [1 -2 1; -2 4 -2; 1 -2 1]|` off the border.
        saturation: Sum of (max - min) / max of R, G, B.
        counts: How often each 8-bit luma occurs, `[256]`.
    """

    products: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    laplacian: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    ridge: float = 0.0
    saturation: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))


def is_one_image_of_bytes(values: Any) -> bool:
    """Whether `[n, C, H, W]` is one RGB image of bytes in host memory."""
    return is_numpy_array(values) and values.dtype == np.uint8 and values.shape[:2] == (1, 3)


def totals(image: Bytes) -> Totals:
    """Add up the pixels of uint8 `[3, H, W]`, contiguous.

    Example:
        >>> found = totals(np.full((3, 8, 8), 100, np.uint8))
        >>> found.products.tolist(), found.laplacian.tolist(), int(found.counts[100])
        ([640000.0, 640000.0, 640000.0], [0.0, 0.0], 64)
    """
    _, height, width = image.shape
    rows = -(-height // min(height, -(-height * width // _STRIP)))
    found = Totals()
    bytes_of_luma = np.empty(height * width, np.uint8)
    pixels, luma = np.empty((4, (rows + 2) * width), np.float32), np.empty((rows + 2) * width, np.float32)
    pixels[3] = 1
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        _convert(image, start, stop, pixels, luma)
        own = slice(width, (stop - start + 1) * width)  # a row above and one below belong to other strips
        found.products += _products(pixels[:3, own])
        scaled = np.multiply(luma[own], 1e-3, out=pixels[0, own])
        np.copyto(bytes_of_luma[start * width : stop * width], scaled, casting="unsafe")
        _add_neighbours(found, luma[: own.stop + width], width, (start == 0, stop == height), pixels)
        found.saturation += _saturation(image[:, start:stop], width, pixels)
    found.counts = count_bytes(bytes_of_luma[None, None])[0]
    return found


def _convert(image: Bytes, start: int, stop: int, pixels: Floats, luma: Floats) -> None:
    """Fill the planes with some rows, the one above and the one below; at the border mirrored (reflect-101)."""
    _, height, width = image.shape
    first, last = max(start - 1, 0), min(stop + 1, height)
    there = slice((first - start + 1) * width, (last - start + 1) * width)
    np.copyto(pixels[:3, there].reshape(3, -1, width), image[:, first:last])
    np.matmul(_LUMA, pixels[:, there], out=luma[there])
    rows = luma[: (stop - start + 2) * width].reshape(-1, width)
    if first == start:
        rows[0] = rows[min(2, height)]
    if last == stop:
        rows[-1] = rows[max(-3, -1 - height)]


def _products(pixels: Floats) -> NDArray[np.float64]:
    whole = pixels.shape[1] // _EXACT * _EXACT
    rest = pixels[:, whole:]
    planes = pixels[:, :whole].reshape(3, -1, _EXACT)
    red_green, green_blue = np.vecdot(planes[:2], planes[1:]).sum(axis=1, dtype=np.float64)
    sums = red_green, np.vecdot(planes[0], planes[2]).sum(dtype=np.float64), green_blue
    found: NDArray[np.float64] = np.array(sums) + (rest @ rest.T)[(0, 0, 1), (1, 2, 2)]
    return found


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
    found.laplacian += _sum(across, width), np.vecdot(across, across)
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
    return _sum(np.abs(mask, out=mask), width)


def _saturation(image: Bytes, width: int, space: Floats) -> float:
    red, green, blue = image.reshape(3, -1)
    high, low = np.maximum(red, green), np.minimum(red, green)
    np.maximum(high, blue, out=high)
    np.minimum(low, blue, out=low)
    chroma = np.subtract(high, low, out=low)
    np.maximum(high, 1, out=high)
    share = np.divide(chroma, high, out=space[0, : high.size], dtype=np.float32)
    return _sum(share, width)


def _sum(values: Floats, width: int) -> float:
    """The sum of rows of this width, of which each is a dot product, the fastest of numpy's sums."""
    return float(np.vecdot(values.reshape(-1, width), _ones(width)).sum(dtype=np.float64))


@lru_cache(maxsize=64)
def _ones(size: int) -> Floats:
    return np.ones(size, np.float32)
