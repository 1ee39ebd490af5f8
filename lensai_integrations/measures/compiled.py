"""The image measures' sums in one pass over the pixels of images in host memory, compiled by numba.

The formulas over planes in `images.py` and `edge.py` are the definition; this is the same, some rows at a time, so that
all of them stay in the processor's innermost cache: 5 to 8 nanoseconds a pixel instead of 15 to 25. It is what
`one_pass.py` calls, and imported there when the first image comes.

Some rows are read into a plane per channel (`_read`), undone (`_undo`: gain, offset, rounding, clipping), added up
(`_add_colours`, `_add_gray`), and counted (`_count`); two rows of luma before them are kept for what neighbours tell
(`_add_neighbours`). Luma is held in thousandths, 299 R + 587 G + 114 B: of bytes whole numbers, as are their products
and differences, which float32 and the sums in float64 hold exactly. Pixels and luma are taken relative to the image's
first pixel, so that a constant image has spreads of exactly 0 and no digits are lost in others.

Numbers that float32 is not exact for may be added in another order on another processor (`reassoc`), which moves the
last digits of a float64; what is read and undone is computed in the order that numpy has, so that the bytes are the
same. Four counters of each value take turns: one alone would wait for itself in a run of equal pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

from lensai_integrations.problems import pass_on

P = ParamSpec("P")
R = TypeVar("R")

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bytes = NDArray[np.uint8]

#: What is wanted of a pass: sums of luma and colours, those of OpenCV's gray, counts of all pixels, the bytes.
LUMA, GRAY, COUNTS, ROUNDED = 1, 2, 4, 8
#: Where in a row of `sums` what begins. Channels less the first pixel: R G B; their squares, RR GG BB; RG RB GB.
CHANNELS, SQUARES, PRODUCTS = 0, 3, 6
#: (Max - min) / max. Of 1000 luma the Laplacian, its square, and the magnitude of Immerkaer's mask.
SATURATION, LAPLACIAN = 9, 10
#: Of 8-bit gray the same three; itself and its square; its smallest and its largest.
GRAY_LAPLACIAN, GRAYS, GRAY_ENDS = 13, 16, 18
#: Channels rounded to bytes, and the first pixel.
BYTES, FIRST = 20, 23
WIDTH: Final = 26

_ANY_ORDER: Final = {"reassoc", "contract", "nnan", "nsz"}
_RED, _GREEN, _BLUE = np.float32(299), np.float32(587), np.float32(114)
_THOUSAND, _THOUSANDTH = np.float32(1000), np.float32(0.001)
#: Half a thousandth more than a half rounds half up and keeps the boundary away from all lumas of bytes.
_HALF_LUMA: Final = np.float32(500.5)
_HALF, _ONE, _TWO, _ZERO, _MOST = np.float32(0.5), np.float32(1), np.float32(2), np.float32(0), np.float32(255)
_1, _2, _3, _4 = np.uintp(1), np.uintp(2), np.uintp(3), np.uintp(4)
_COUNT: Final = np.uint32(1)
#: Pixels that are gone through together, in whole rows, two at least: with all that is made of them 25 kB.
_TOGETHER: Final = 768
#: OpenCV's weights in steps of 2^-15.
_GRAY_RED, _GRAY_GREEN, _GRAY_BLUE, _UP = np.float32(9798), np.float32(19235), np.float32(3735), np.float32(1 << 14)
_STEP: Final = np.float32(2.0**-15)


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    return cast("Callable[P, R]", numba.njit(nogil=True)(function))


def _compiled_in_any_order(function: Callable[P, R]) -> Callable[P, R]:
    return cast("Callable[P, R]", numba.njit(nogil=True, fastmath=_ANY_ORDER)(function))


@_compiled
def _read(memory: Any, start: int, step: int, planes: Floats, channel: int, size: int) -> None:
    """Some pixels of one channel, as floats: every `step`-th number from `start` on."""
    numbers, out = memory[start : start + (size - 1) * step + 1], planes[channel]
    if step == 1:
        for x in range(size):
            out[x] = numbers[x]
    else:
        for x in range(size):
            out[x] = numbers[x * step]


@_compiled
def _read_interleaved(memory: Any, start: int, planes: Floats, size: int) -> None:
    """Some pixels of three channels that take turns."""
    numbers, reds, greens, blues = memory[start : start + 3 * size], planes[0], planes[1], planes[2]
    for x in range(np.uintp(size)):
        reds[x] = numbers[_3 * x]
        greens[x] = numbers[_3 * x + _1]
        blues[x] = numbers[_3 * x + _2]


@_compiled
def _undo(values: Floats, gain: np.float32, offset: np.float32, whole: bool, low: np.float32, high: np.float32) -> bool:
    """Take a row to the 0-255 scale and hold it inside; whether a value is not finite, or not within low and high."""
    outside = 0
    for x in range(values.size):
        value = values[x] * gain + offset
        if whole:
            value = np.floor(value + _HALF)
        outside += not (low <= value <= high)
        value = value if value > _ZERO else _ZERO  # NaN as well
        values[x] = value if value < _MOST else _MOST
    return outside > 0


@_compiled_in_any_order
def _add_colours(planes: Floats, first: Floats, luma: Floats, levels: Bytes, sums: Doubles) -> None:
    """Add as many pixels `[C, ...]` as luma holds; that, less the first pixel's, and as 8 bits is filled in."""
    red = green = blue = red_red = green_green = blue_blue = red_green = red_blue = green_blue = share = 0.0
    if len(planes) == 1:
        greys, grey_0 = planes[0], first[0]
        shift = _THOUSAND * grey_0 + _HALF_LUMA
        for x in range(luma.size):
            grey = greys[x] - grey_0
            y = _THOUSAND * grey
            luma[x] = y
            levels[x] = np.uint8(np.int32((y + shift) * _THOUSANDTH))
            wide = np.float64(grey)
            red += wide
            red_red += wide * wide
    else:
        reds, greens, blues = planes[0], planes[1], planes[2]
        red_0, green_0, blue_0 = first[0], first[1], first[2]
        shift = _RED * red_0 + _GREEN * green_0 + _BLUE * blue_0 + _HALF_LUMA
        for x in range(luma.size):
            r, g, b = reds[x] - red_0, greens[x] - green_0, blues[x] - blue_0
            y = _RED * r + _GREEN * g + _BLUE * b
            luma[x] = y
            levels[x] = np.uint8(np.int32((y + shift) * _THOUSANDTH))
            high = max(reds[x], greens[x], blues[x])
            low = min(reds[x], greens[x], blues[x])
            share += np.float64((high - low) / max(high, _ONE))
            wide_r, wide_g, wide_b = np.float64(r), np.float64(g), np.float64(b)
            red += wide_r
            green += wide_g
            blue += wide_b
            red_red += wide_r * wide_r
            green_green += wide_g * wide_g
            blue_blue += wide_b * wide_b
            red_green += wide_r * wide_g
            red_blue += wide_r * wide_b
            green_blue += wide_g * wide_b
    row = (red, green, blue, red_red, green_green, blue_blue, red_green, red_blue, green_blue, share)
    for column in range(10):
        sums[CHANNELS + column] += row[column]


@_compiled_in_any_order
def _add_neighbours(
    lumas: Floats,
    begin: int,
    rows: int,
    width: int,
    outer: tuple[bool, bool],
    space: Floats,
    sums: Doubles,
    column: int,
) -> None:
    """Add the Laplacian of some rows, and its square, to two columns from `column` on; of luma also Immerkaer's mask.

    The rows are one long row, `lumas` from `begin` on, with another above and below. What comes out at the ends of
    rows, where the next one begins, means nothing there and is replaced: the border is mirrored without repeating it,
    reflect-101. `outer`: whether the first of the rows is the image's first, and whether the last is its last.
    """
    size = rows * width
    left, middle, right = lumas[begin - 1 : begin + size - 1], lumas[begin : begin + size], lumas[begin + 1 :]
    up, down = lumas[begin - width :], lumas[begin + width :]
    for x in range(size):
        space[x] = (left[x] - _TWO * middle[x] + right[x]) + (up[x] - _TWO * middle[x] + down[x])
    beside = min(1, width - 1)
    for first in range(0, size, width):
        last = first + width - 1
        space[first] = _TWO * (middle[first + beside] - middle[first]) + (
            up[first] - _TWO * middle[first] + down[first]
        )
        space[last] = _TWO * (middle[last - beside] - middle[last]) + (up[last] - _TWO * middle[last] + down[last])
    total = square = 0.0
    for x in range(size):
        wide = np.float64(space[x])
        total += wide
        square += wide * wide
    sums[column] += total
    sums[column + 1] += square
    if column != LAPLACIAN or width < 3:
        return
    up_left, up_right, down_left, down_right = (
        lumas[begin - width - 1 :], lumas[begin - width + 1 :], lumas[begin + width - 1 :], lumas[begin + width + 1 :],
    )  # fmt: skip
    start, stop = (width if outer[0] else 0), (size - width if outer[1] else size)
    for x in range(start, stop):
        over, under = up_left[x] - _TWO * up[x] + up_right[x], down_left[x] - _TWO * down[x] + down_right[x]
        space[x] = abs(over - _TWO * (left[x] - _TWO * middle[x] + right[x]) + under)
    ridge = 0.0
    for first in range(start, stop, width):
        space[first] = space[first + width - 1] = _ZERO
    for x in range(start, stop):
        ridge += np.float64(space[x])
    sums[column + 2] += ridge


@_compiled_in_any_order
def _add_gray(planes: Floats, gray: Floats, sums: Doubles) -> None:
    """Add as many pixels as gray holds, rounded to bytes, as a device sees them; OpenCV's 8-bit gray is filled in."""
    low, high = sums[GRAY_ENDS], sums[GRAY_ENDS + 1]
    total = square = red = green = blue = 0.0
    if len(planes) == 1:
        greys = planes[0]
        for x in range(gray.size):
            level = np.floor(greys[x] + _HALF)
            red += np.float64(level)
            gray[x] = level
    else:
        reds, greens, blues = planes[0], planes[1], planes[2]
        for x in range(gray.size):
            r, g, b = np.floor(reds[x] + _HALF), np.floor(greens[x] + _HALF), np.floor(blues[x] + _HALF)
            red += np.float64(r)
            green += np.float64(g)
            blue += np.float64(b)
            gray[x] = np.floor((_GRAY_RED * r + _GRAY_GREEN * g + _GRAY_BLUE * b + _UP) * _STEP)
    for x in range(gray.size):
        wide = np.float64(gray[x])
        low = min(low, wide)
        high = max(high, wide)
        total += wide
        square += wide * wide
    sums[GRAYS] += total
    sums[GRAYS + 1] += square
    sums[GRAY_ENDS] = low
    sums[GRAY_ENDS + 1] = high
    sums[BYTES] += red
    sums[BYTES + 1] += green
    sums[BYTES + 2] += blue


@_compiled
def _round(values: Floats, out: Bytes) -> None:
    for x in range(out.size):
        out[x] = np.uint8(np.int32(values[x] + _HALF))


@_compiled
def _count(values: Bytes, counters: NDArray[np.uint32]) -> None:
    """Count a row with four counters `[4, 256]` in turn."""
    whole = values.size // 4
    for x in range(np.uintp(whole)):
        start = _4 * x
        counters[0, values[start]] += _COUNT
        counters[1, values[start + _1]] += _COUNT
        counters[2, values[start + _2]] += _COUNT
        counters[3, values[start + _3]] += _COUNT
    for x in range(4 * whole, values.size):
        counters[0, values[x]] += _COUNT


@_compiled
def _take(counters: NDArray[np.uint32], out: NDArray[np.int64]) -> None:
    """Add the four counters to `[256]` and set them to 0."""
    for value in range(256):
        out[value] += np.int64(counters[0, value]) + counters[1, value] + counters[2, value] + counters[3, value]
    counters.fill(0)


@_compiled
def _add_between(
    lumas: Floats, start: int, stop: int, size: tuple[int, int], space: Floats, sums: Doubles, column: int
) -> None:
    """Add what neighbours tell once rows `start` to `stop` of luma are there, and keep the last two for the next ones.

    Before them lie two others: `lumas` begins, after one number, with row `start - 2`. There is room for one after.
    """
    height, width = size
    rows = stop - start
    if start == 0:
        _copy(lumas, 1 + (2 + min(1, height - 1)) * width, 1 + width, width)
    if stop == height:
        _copy(lumas, 1 + (rows + 2 - min(2, height)) * width, 1 + (rows + 2) * width, width)
    first, last = max(start - 1, 0), (stop if stop == height else stop - 1)
    begin = 1 + (first - start + 2) * width
    _add_neighbours(lumas, begin, last - first, width, (start == 0, stop == height), space, sums, column)
    _copy(lumas, 1 + rows * width, 1, 2 * width)


@_compiled
def _copy(numbers: Floats, start: int, to: int, size: int) -> None:
    for x in range(size):
        numbers[to + x] = numbers[start + x]


def _add_up(  # noqa: PLR0912  one loop, whose parts are compiled together
    pixels: Any,
    starts: NDArray[np.int64],
    step: int,
    size: tuple[int, int],
    undo: Floats,
    inside: tuple[np.float32, np.float32],
    kind: tuple[bool, bool],
    wanted: int,
    sums: Doubles,
    shares: NDArray[np.int64],
    counts: NDArray[np.int64],
    valid: NDArray[np.bool_],
    rounded: Bytes,
) -> None:
    """Add up images `[n, numbers of an image]`, contiguous.

    Args:
        pixels: uint8 or float32.
        starts: Where the channels of an image begin, `[C]`.
        step: From pixel to pixel, and so from the last of a row to the first of the next.
        size: Height and width.
        undo: Gain and offset of each channel, `[2, C]`.
        inside: Lowest and highest value of a valid image, on the 0-255 scale.
        kind: Whether pixels are bytes 0-255 as they lie, and whether they are rounded to whole numbers when undone.
        wanted: `LUMA`, `GRAY`, `COUNTS`, `ROUNDED`.
        sums: Filled in, `[n, WIDTH]`, zeros.
        shares: How often each 8-bit luma occurs is filled in, `[n, 256]`, zeros.
        counts: The pixels of valid images are added, `[C, 256]`.
        valid: Filled in, `[n]`.
        rounded: Filled in, if wanted, the bytes of valid images one after the other, `[n, C * H * W]`.
    """
    channels, (height, width), (as_they_lie, whole) = starts.size, size, kind
    rows = min(max(_TOGETHER // width, 2), height)
    planes, levels = np.empty((channels, rows * width), np.float32), np.empty(rows * width, np.uint8)
    lumas, grays = np.empty((rows + 3) * width + 2, np.float32), np.empty((rows + 3) * width + 2, np.float32)
    space = np.empty((rows + 1) * width, np.float32)
    counters, counters_of_luma = np.zeros((channels, 4, 256), np.uint32), np.zeros((4, 256), np.uint32)
    first = np.zeros(channels, np.float32)
    interleaved = channels == 3 and step == 3 and starts[0] == 0 and starts[1] == 1 and starts[2] == 2
    taken = 0
    for i in range(len(pixels)):
        memory, of_image = pixels[i], sums[i]
        of_image[GRAY_ENDS] = 255
        outside = False
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            begin, here = start * width, (stop - start) * width
            if interleaved:
                _read_interleaved(memory, begin * step, planes, here)
            else:
                for c in range(channels):
                    _read(memory, starts[c] + begin * step, step, planes, c, here)
            if not as_they_lie:
                for c in range(channels):
                    outside |= _undo(planes[c, :here], undo[0, c], undo[1, c], whole, inside[0], inside[1])
                if outside:
                    break
            if start == 0:
                for c in range(channels):
                    first[c] = of_image[FIRST + c] = planes[c, 0]
            for c in range(channels):
                if wanted & COUNTS:
                    _round(planes[c], levels[:here])
                    _count(levels[:here], counters[c])
                if wanted & ROUNDED:
                    place = c * height * width + begin
                    _round(planes[c], rounded[taken, place : place + here])
            behind = 1 + 2 * width
            if wanted & LUMA:
                _add_colours(planes, first, lumas[behind : behind + here], levels, of_image)
                _count(levels[:here], counters_of_luma)
                _add_between(lumas, start, stop, size, space, of_image, LAPLACIAN)
            if wanted & GRAY:
                _add_gray(planes, grays[behind : behind + here], of_image)
                _add_between(grays, start, stop, size, space, of_image, GRAY_LAPLACIAN)
        valid[i] = not outside
        if outside:
            counters.fill(0)
            counters_of_luma.fill(0)
            continue
        taken += 1
        if wanted & LUMA:
            _take(counters_of_luma, shares[i])
        if wanted & COUNTS:
            for c in range(channels):
                _take(counters[c], counts[c])


@lru_cache(maxsize=2)
def adder(dtype: str) -> Callable[..., None]:
    """`_add_up` for pixels of a dtype, compiled or, where a process on this machine has done so before, read from disk.

    Args:
        dtype: `"uint8"` or `"float32"`.

    Example:
        >>> adder("uint8") is adder("uint8")
        True
    """
    kinds: Any = numba  # whose types do not say how they are called
    ints, floats, bits, pair = kinds.int64, kinds.float32, kinds.boolean, kinds.types.UniTuple

    def read(numbers: Any, axes: int) -> Any:  # compiled for read-only ones, which all others may stand for
        return kinds.types.Array(numbers, axes, "C", readonly=True, aligned=False)

    signature = kinds.void(
        read(getattr(kinds, dtype), 2), read(ints, 1), ints, pair(ints, 2), read(floats, 2), pair(floats, 2),
        pair(bits, 2), ints, kinds.float64[:, ::1], ints[:, ::1], ints[:, ::1], bits[::1], kinds.uint8[:, ::1],
    )  # fmt: skip
    try:
        return cast("Callable[..., None]", numba.njit([signature], nogil=True, cache=True)(_add_up))
    except Exception as error:  # noqa: BLE001  no folder to keep it in, or that is full, or what it holds is damaged
        pass_on(error)
        return cast("Callable[..., None]", numba.njit([signature], nogil=True)(_add_up))
