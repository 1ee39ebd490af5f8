# Triton reads these functions and compiles them: they are written for it, and their arguments have no types of Python.
# ruff: noqa: ANN001, ANN201, ANN202, PLR0912, PLR0915, PLR0124, SIM108
"""The measures of `images.py` and `edge.py` as three Triton kernels; see `kernels.py`, which launches them.

What is computed is defined there, in words and in the formulas over arrays. Here is how: images are cut into blocks of
`BLOCK` pixels, in whatever order they lie. `point` reads a block's pixels once, counts them, adds them up and leaves
luma; `stencil` adds up what neighbouring lumas tell; `finish` makes of an image's blocks its row, and adds its counts
to those of the batch if it is valid.

Sums come out the same every time: a block's are float32, added in a fixed order, and blocks are added up in float64;
counts are whole numbers, which atomic additions cannot get wrong. Digits are not lost: everything is measured from the
image's first pixel, and squares from their block's mean. So a constant image has spreads of exactly 0.

Numbers that are no `tl.constexpr` do not make another kernel, but for what Triton makes of all of them: those that are
1 or divisible by 16, such as an image's size, read faster.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from lensai_integrations.measures import edge
from lensai_integrations.measures.pixels import (
    BT601,
    GREYEST,
    HALF_UP,
    NEAR_BLACK,
    NEAR_WHITE,
    OVERSHOOT,
    SNR_FLOOR,
)

_LOWEST, _HIGHEST = tl.constexpr(-OVERSHOOT), tl.constexpr(255.0 + OVERSHOOT)
_RED, _GREEN, _BLUE = (tl.constexpr(weight) for weight in BT601)
_HALF_UP = tl.constexpr(HALF_UP)
_RED_15, _GREEN_15, _BLUE_15 = (tl.constexpr(weight) for weight in edge.FIXED_POINT)
_BLACK, _WHITE = tl.constexpr(NEAR_BLACK), tl.constexpr(NEAR_WHITE)
_FLOOR, _GREY = tl.constexpr(SNR_FLOOR), tl.constexpr(GREYEST * GREYEST)
_NO_NOISE = tl.constexpr(edge.NO_NOISE)
_DECIBELS = tl.constexpr(20.0 / math.log2(10.0))  # of a logarithm to base 2
_IMMERKAER = tl.constexpr(math.sqrt(math.pi / 2) / 6)
_ROOT = tl.constexpr(math.sqrt(0.75))
_DEGREES = tl.constexpr(180.0 / math.pi)

# What a block leaves: whole numbers, and floats after three of each channel (see `_leave`) and its first pixel.
_INVALID, _GRAY, _GRAY_SQUARES, _GRAY_LOW, _GRAY_HIGH = (tl.constexpr(place) for place in range(5))
_LUMA, _RED_GREEN, _YELLOW_BLUE, _SATURATION = (tl.constexpr(place) for place in range(4))
_SLOPE, _SLOPES, _RIDGE, _EDGE_SLOPE, _EDGE_SLOPES = (tl.constexpr(place) for place in range(4, 9))


@triton.jit
def _pixels(address, inside, gain, offset, WHOLE: tl.constexpr):
    """On the 0-255 scale, float32."""
    values = tl.load(address, inside, other=0).to(tl.float32) * gain + offset
    if WHOLE:
        values = tl.floor(values + 0.5)
    return values


@triton.jit
def _held(values):
    """Inside 0-255; NaN is 0."""
    return tl.minimum(tl.maximum(tl.where(values == values, values, 0.0), 0.0), 255.0)


@triton.jit
def _in_range(values):
    return (values >= _LOWEST) & (values <= _HIGHEST)  # NaN is not


@triton.jit
def _count(counts, values, inside, BLOCK: tl.constexpr):
    """Add how often each of 256 values occurs; what is outside counts as 0 at first, and is taken off that."""
    outside = BLOCK - tl.sum(inside.to(tl.int32), 0)
    bins = tl.arange(0, 256)
    more = tl.histogram(tl.where(inside, values, 0), 256) - tl.where(bins == 0, outside, 0)
    tl.atomic_add(counts + bins, more, mask=more > 0, sem="relaxed")


@triton.jit
def _leave(part, blocks, values, first, inside, n, CHANNEL: tl.constexpr, C: tl.constexpr):
    """Leave a channel's first pixel, the mean from there, and the sums of what remains without it, and of its squares.

    Returns what the pixels are from the first one, and what remains without the mean.
    """
    above = tl.where(inside, values - first, 0.0)
    mean = tl.sum(above, 0) / n
    rest = tl.where(inside, above - mean, 0.0)
    tl.store(part + CHANNEL * blocks, first)
    tl.store(part + (C + CHANNEL) * blocks, mean)
    tl.store(part + (2 * C + CHANNEL) * blocks, tl.sum(rest, 0))
    tl.store(part + (3 * C + CHANNEL) * blocks, tl.sum(rest * rest, 0))
    return above, rest


@triton.jit(do_not_specialize=["width", "blocks"])
def point(
    pixels,
    luma,
    gray,
    parts,
    wholes,
    luma_counts,
    counts,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    width,
    size,
    blocks,
    gain_0,
    gain_1,
    gain_2,
    offset_0,
    offset_1,
    offset_2,
    C: tl.constexpr,
    LENSAI: tl.constexpr,
    EDGE: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What every pixel tells by itself, of one block of one image.

    Args:
        pixels: Where the images begin, `[n, C, H, W]` of these strides, of any dtype.
        luma: float32 `[n, H W]` to be filled with luma from the image's first pixel's.
        gray: uint8 `[n, H W]` to be filled with OpenCV's gray.
        parts: float32 `[n, 4 C + 9, blocks]` to be filled.
        wholes: int32 `[n, 5, blocks]` to be filled.
        luma_counts: int32 `[n, 256]` to be added to.
        counts: int32 `[n, C, 256]` to be added to.
        image_stride: Elements from one image to the next, and so on.
        channel_stride: The same of channels.
        row_stride: Of rows, if ROWS.
        column_stride: Of pixels.
        width: W.
        size: H W.
        blocks: Blocks of an image.
        gain_0: Of each channel; see `Images`.
        gain_1: The same.
        gain_2: The same.
        offset_0: The same.
        offset_1: The same.
        offset_2: The same.
        C: 3 or 1.
        LENSAI: Whether `lensai` is measured.
        EDGE: Whether `lensai-edge` is.
        WHOLE: Whether values are rounded.
        ROWS: Whether rows do not follow one another as pixels do.
        WIDE: Whether an image reaches over more than 2^31 elements.
        BLOCK: Pixels of a block.
    """
    program = tl.program_id(0)
    image, block = (program // blocks).to(tl.int64), program % blocks
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    n = tl.minimum(size - block * BLOCK, BLOCK).to(tl.float32)
    start = pixels + image * image_stride
    position = at.to(tl.int64) if WIDE else at
    if ROWS:
        address = start + (position // width * row_stride + position % width * column_stride)
    else:
        address = start + position * column_stride
    part = parts + image * (4 * C + 9) * blocks + block
    rest_of_part = part + 4 * C * blocks
    whole = wholes + image * 5 * blocks + block
    red = _pixels(address, inside, gain_0, offset_0, WHOLE)
    red_first = _held(_pixels(start, True, gain_0, offset_0, WHOLE))
    valid = _in_range(red)
    red = _held(red)
    red_byte = (red + 0.5).to(tl.int32)
    _count(counts + image * C * 256, red_byte, inside, BLOCK)
    if C == 3:
        address, start = address + channel_stride, start + channel_stride  # twice the stride may be beyond 2^31
        green = _pixels(address, inside, gain_1, offset_1, WHOLE)
        green_first = _held(_pixels(start, True, gain_1, offset_1, WHOLE))
        address, start = address + channel_stride, start + channel_stride
        blue = _pixels(address, inside, gain_2, offset_2, WHOLE)
        blue_first = _held(_pixels(start, True, gain_2, offset_2, WHOLE))
        valid = valid & _in_range(green) & _in_range(blue)
        green, blue = _held(green), _held(blue)
        green_byte, blue_byte = (green + 0.5).to(tl.int32), (blue + 0.5).to(tl.int32)
        _count(counts + image * C * 256 + 256, green_byte, inside, BLOCK)
        _count(counts + image * C * 256 + 512, blue_byte, inside, BLOCK)
    tl.store(whole + blocks * _INVALID, tl.sum((inside & (valid == 0)).to(tl.int32), 0))
    if EDGE:
        if C == 3:
            level = (red_byte * _RED_15 + green_byte * _GREEN_15 + blue_byte * _BLUE_15 + 16384) >> 15
        else:
            level = red_byte
        tl.store(gray + image * size + at, level.to(tl.uint8), inside)
        kept = tl.where(inside, level, 0)
        tl.store(whole + blocks * _GRAY, tl.sum(kept, 0))
        tl.store(whole + blocks * _GRAY_SQUARES, tl.sum(kept * kept, 0))  # below 2^31 up to 2^15 pixels
        tl.store(whole + blocks * _GRAY_LOW, tl.min(tl.where(inside, level, 255), 0))
        tl.store(whole + blocks * _GRAY_HIGH, tl.max(kept, 0))
    if LENSAI:
        if C == 3:
            light = red * _RED + green * _GREEN + blue * _BLUE
            high = tl.maximum(tl.maximum(red, green), blue)
            chroma = high - tl.minimum(tl.minimum(red, green), blue)
            share = tl.where(inside, tl.div_rn(chroma, tl.maximum(high, 1.0)), 0.0)  # x / x is 1
            tl.store(rest_of_part + blocks * _SATURATION, tl.sum(share, 0))
            red, red_rest = _leave(part, blocks, red, red_first, inside, n, 0, C)
            green, green_rest = _leave(part, blocks, green, green_first, inside, n, 1, C)
            blue, blue_rest = _leave(part, blocks, blue, blue_first, inside, n, 2, C)
            above = red * _RED + green * _GREEN + blue * _BLUE
            rest = red_rest * _RED + green_rest * _GREEN + blue_rest * _BLUE
            opponent = red_rest - green_rest
            tl.store(rest_of_part + blocks * _RED_GREEN, tl.sum(opponent * opponent, 0))
            opponent = 0.5 * red_rest + 0.5 * green_rest - blue_rest
            tl.store(rest_of_part + blocks * _YELLOW_BLUE, tl.sum(opponent * opponent, 0))
        else:
            light = red
            above, rest = _leave(part, blocks, red, red_first, inside, n, 0, C)
        _count(luma_counts + image * 256, (light + _HALF_UP).to(tl.int32), inside, BLOCK)
        tl.store(luma + image * size + at, above, inside)
        tl.store(rest_of_part + blocks * _LUMA, tl.sum(rest * rest, 0))


@triton.jit
def _second(row, at, left, right, inside):
    """The pixels of a row, and their second differences across; of whole numbers they are whole."""
    middle = tl.load(row + at, inside, other=0).to(tl.float32)
    before = tl.load(row + left, inside, other=0).to(tl.float32)
    after = tl.load(row + right, inside, other=0).to(tl.float32)
    return middle, (before - middle) + (after - middle)


@triton.jit(do_not_specialize=["height", "width", "blocks"])
def stencil(
    luma,
    gray,
    parts,
    height,
    width,
    size,
    blocks,
    C: tl.constexpr,
    LENSAI: tl.constexpr,
    EDGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """What neighbouring pixels tell, of one block of one image; see `point` for the arguments."""
    program = tl.program_id(0)
    image, block = (program // blocks).to(tl.int64), program % blocks
    at = block * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    y, x = at // width, at % width
    # Mirrored at the border without repeating it, reflect-101; along an axis of one pixel there is only that one.
    above = tl.where(y == 0, tl.minimum(1, height - 1), y - 1) * width
    below = tl.where(y == height - 1, tl.maximum(height - 2, 0), y + 1) * width
    left = tl.where(x == 0, tl.minimum(1, width - 1), x - 1)
    right = tl.where(x == width - 1, tl.maximum(width - 2, 0), x + 1)
    part = parts + (image * (4 * C + 9) + 4 * C) * blocks + block
    if LENSAI:
        plane = luma + image * size
        middle, across = _second(plane + y * width, x, left, right, inside)
        upper, across_above = _second(plane + above, x, left, right, inside)
        lower, across_below = _second(plane + below, x, left, right, inside)
        slope = across + ((upper - middle) + (lower - middle))
        ridge = tl.abs((across_above - across) + (across_below - across))
        inner = inside & (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
        tl.store(part + blocks * _SLOPE, tl.sum(slope, 0))
        tl.store(part + blocks * _SLOPES, tl.sum(slope * slope, 0))
        tl.store(part + blocks * _RIDGE, tl.sum(tl.where(inner, ridge, 0.0), 0))
    if EDGE:
        plane = gray + image * size
        middle, across = _second(plane + y * width, x, left, right, inside)
        upper = tl.load(plane + above + x, inside, other=0).to(tl.float32)
        lower = tl.load(plane + below + x, inside, other=0).to(tl.float32)
        slope = across + ((upper - middle) + (lower - middle))
        tl.store(part + blocks * _EDGE_SLOPE, tl.sum(slope, 0))
        tl.store(part + blocks * _EDGE_SLOPES, tl.sum(slope * slope, 0))


@triton.jit
def _floats(part, at, blocks, some):
    """What blocks have left of one number, float64."""
    return tl.load(part + at, some, other=0.0).to(tl.float64)


@triton.jit
def _wholes(whole, at, some):
    return tl.load(whole + at, some, other=0).to(tl.int64)


@triton.jit
def _squares(squares, mean, rest, n):
    """Sums of squares, of what remains without a mean, as they are with it."""
    return squares + mean * (2.0 * rest + n * mean)


@triton.jit
def _variance(squares, total, n):
    mean = tl.sum(total, 0) / n
    return tl.maximum(tl.sum(squares, 0) / n - mean * mean, 0.0)


@triton.jit
def _decibels(ratio):
    return tl.log2(ratio.to(tl.float32)) * _DECIBELS


@triton.jit
def _degrees(across, along):
    """The angle of a vector that is not 0: of the arc tangent's series below a sixteenth of a turn's half."""
    width, height = tl.abs(along), tl.abs(across)
    slope = tl.minimum(width, height) / tl.maximum(tl.maximum(width, height), 1e-30)
    slope = slope / (1.0 + tl.sqrt(1.0 + slope * slope))  # of half the angle
    slope = slope / (1.0 + tl.sqrt(1.0 + slope * slope))  # of a quarter, at most 0.199
    square = slope * slope
    series = 1.0 / 9.0 - square * (1.0 / 11.0 - square / 13.0)
    series = 1.0 - square * (1.0 / 3.0 - square * (1.0 / 5.0 - square * (1.0 / 7.0 - square * series)))
    angle = 4.0 * slope * series * _DEGREES
    angle = tl.where(height > width, 90.0 - angle, angle)
    angle = tl.where(along < 0, 180.0 - angle, angle)
    return tl.where(across < 0, -angle, angle)


@triton.jit
def _put(row, value, valid):
    tl.store(row, tl.where(valid, value.to(tl.float32), float("nan")))


@triton.jit(do_not_specialize=["height", "width", "blocks"])
def finish(
    parts,
    wholes,
    luma_counts,
    counts,
    rows,
    edge_rows,
    totals,
    height,
    width,
    blocks,
    C: tl.constexpr,
    LENSAI: tl.constexpr,
    EDGE: tl.constexpr,
    BLOCK: tl.constexpr,
    TOGETHER: tl.constexpr,
):
    """From what the blocks of one image have left to its rows; if it is valid, its counts are added to the batch's.

    Args:
        parts: See `point`.
        wholes: The same.
        luma_counts: The same.
        counts: The same.
        rows: float32 `[n, 20]`, of grey images `[n, 13]`, to be filled: `lensai`.
        edge_rows: float32 `[n, 7]`, of grey images `[n, 5]`, to be filled: `lensai-edge`.
        totals: int64 `[C 256 + 1]` to be added to: the counts, red first, and how many images they are of.
        height: H.
        width: W.
        blocks: Blocks of an image.
        C: 3 or 1.
        LENSAI: Whether `lensai` is measured.
        EDGE: Whether `lensai-edge` is.
        BLOCK: Pixels of a block.
        TOGETHER: Blocks that are read at once.
    """
    image = tl.program_id(0).to(tl.int64)
    size = height.to(tl.int64) * width
    pixels = size.to(tl.float64)
    part = parts + image * (4 * C + 9) * blocks
    last = part + 4 * C * blocks
    whole = wholes + image * 5 * blocks
    zeros = tl.zeros([TOGETHER], tl.float64)
    none = tl.zeros([TOGETHER], tl.int64)
    invalid, gray, gray_squares, gray_low, gray_high = none, none, none, none + 255, none
    red, green, blue, red_squares, green_squares, blue_squares = zeros, zeros, zeros, zeros, zeros, zeros
    luma_squares, red_green, yellow_blue, saturation, slope, slopes, ridge = (
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
        zeros,
    )
    edge_slope, edge_slopes = zeros, zeros
    for start in range(0, blocks, TOGETHER):
        at = start + tl.arange(0, TOGETHER)
        some = at < blocks
        n = tl.where(some, tl.minimum(size - at.to(tl.int64) * BLOCK, BLOCK), 0).to(tl.float64)
        invalid += _wholes(whole + blocks * _INVALID, at, some)
        if EDGE:
            gray += _wholes(whole + blocks * _GRAY, at, some)
            gray_squares += _wholes(whole + blocks * _GRAY_SQUARES, at, some)
            low = tl.load(whole + blocks * _GRAY_LOW + at, some, other=255).to(tl.int64)
            gray_low = tl.minimum(gray_low, low)
            gray_high = tl.maximum(gray_high, _wholes(whole + blocks * _GRAY_HIGH, at, some))
            edge_slope += _floats(last + blocks * _EDGE_SLOPE, at, blocks, some)
            edge_slopes += _floats(last + blocks * _EDGE_SLOPES, at, blocks, some)
        if LENSAI:
            slope += _floats(last + blocks * _SLOPE, at, blocks, some)
            slopes += _floats(last + blocks * _SLOPES, at, blocks, some)
            ridge += _floats(last + blocks * _RIDGE, at, blocks, some)
            mean = _floats(part + C * blocks, at, blocks, some)
            rest = _floats(part + 2 * C * blocks, at, blocks, some)
            squares = _floats(part + 3 * C * blocks, at, blocks, some)
            red += rest + n * mean
            red_squares += _squares(squares, mean, rest, n)
            if C == 3:
                mean_1 = _floats(part + (C + 1) * blocks, at, blocks, some)
                rest_1 = _floats(part + (2 * C + 1) * blocks, at, blocks, some)
                squares = _floats(part + (3 * C + 1) * blocks, at, blocks, some)
                green += rest_1 + n * mean_1
                green_squares += _squares(squares, mean_1, rest_1, n)
                mean_2 = _floats(part + (C + 2) * blocks, at, blocks, some)
                rest_2 = _floats(part + (2 * C + 2) * blocks, at, blocks, some)
                squares = _floats(part + (3 * C + 2) * blocks, at, blocks, some)
                blue += rest_2 + n * mean_2
                blue_squares += _squares(squares, mean_2, rest_2, n)
                saturation += _floats(last + blocks * _SATURATION, at, blocks, some)
                squares = _floats(last + blocks * _RED_GREEN, at, blocks, some)
                red_green += _squares(squares, mean - mean_1, rest - rest_1, n)
                squares = _floats(last + blocks * _YELLOW_BLUE, at, blocks, some)
                yellow = 0.5 * (mean + mean_1) - mean_2
                yellow_blue += _squares(squares, yellow, 0.5 * (rest + rest_1) - rest_2, n)
                mean = mean * _RED + mean_1 * _GREEN + mean_2 * _BLUE
                rest = rest * _RED + rest_1 * _GREEN + rest_2 * _BLUE
            squares = _floats(last + blocks * _LUMA, at, blocks, some)
            luma_squares += _squares(squares, mean, rest, n)
    valid = tl.sum(invalid, 0) == 0
    bins = tl.arange(0, 256)
    tl.atomic_add(totals + C * 256, valid.to(tl.int64), sem="relaxed")
    for channel in tl.static_range(C):
        of_channel = tl.load(counts + (image * C + channel) * 256 + bins).to(tl.int64)
        tl.atomic_add(totals + channel * 256 + bins, of_channel, mask=(of_channel > 0) & valid, sem="relaxed")
    if LENSAI:
        row = rows + image * (20 if C == 3 else 13)
        of_luma = tl.load(luma_counts + image * 256 + bins)
        red_mean = tl.load(part).to(tl.float64) + tl.sum(red, 0) / pixels
        if C == 3:
            green_mean = tl.load(part + blocks).to(tl.float64) + tl.sum(green, 0) / pixels
            blue_mean = tl.load(part + 2 * blocks).to(tl.float64) + tl.sum(blue, 0) / pixels
            brightness = red_mean * _RED + green_mean * _GREEN + blue_mean * _BLUE
            luma = red * _RED + green * _GREEN + blue * _BLUE
        else:
            brightness = red_mean
            luma = red
        contrast = tl.sqrt(_variance(luma_squares, luma, pixels))
        shares = tl.div_rn(of_luma.to(tl.float32), pixels.to(tl.float32))
        entropy = tl.abs(tl.sum(shares * tl.log2(tl.maximum(shares, 1e-12)), 0))
        black = 100.0 * tl.sum(tl.where(bins <= _BLACK, of_luma, 0), 0).to(tl.float64) / pixels
        white = 100.0 * tl.sum(tl.where(bins >= _WHITE, of_luma, 0), 0).to(tl.float64) / pixels
        inner = (tl.maximum(height - 2, 1).to(tl.int64) * tl.maximum(width - 2, 1)).to(tl.float64)
        _put(row, brightness, valid)
        _put(row + 1, contrast, valid)
        _put(row + 2, tl.sqrt(_variance(slopes, slope, pixels)), valid)
        _put(row + 3, _decibels(tl.maximum(brightness, _FLOOR) / tl.maximum(contrast, _FLOOR)), valid)
        _put(row + 4, tl.sum(ridge, 0) / inner * _IMMERKAER, valid)
        if C == 3:
            across, along = (green_mean - blue_mean) * _ROOT, red_mean - 0.5 * (green_mean + blue_mean)
            hue = tl.where(across * across + along * along < _GREY, 0.0, _degrees(across, along))
            yellow_mean = 0.5 * (red_mean + green_mean) - blue_mean
            far = (red_mean - green_mean) * (red_mean - green_mean) + yellow_mean * yellow_mean
            spread = _variance(red_green, red - green, pixels)
            spread += _variance(yellow_blue, 0.5 * (red + green) - blue, pixels)
            _put(row + 5, 100.0 * tl.sum(saturation, 0) / pixels, valid)
            _put(row + 6, tl.where(hue < -60.0, hue + 360.0, hue), valid)
            _put(row + 7, tl.sqrt(spread) + 0.3 * tl.sqrt(far), valid)
            row += 3
        _put(row + 5, entropy, valid)
        _put(row + 6, black, valid)
        _put(row + 7, white, valid)
        _put(row + 8, red_mean, valid)
        if C == 3:
            _put(row + 9, green_mean, valid)
            _put(row + 10, blue_mean, valid)
            row += 2
        _put(row + 9, tl.sqrt(_variance(red_squares, red, pixels)), valid)
        if C == 3:
            _put(row + 10, tl.sqrt(_variance(green_squares, green, pixels)), valid)
            _put(row + 11, tl.sqrt(_variance(blue_squares, blue, pixels)), valid)
            row += 2
        _put(row + 10, height, valid)
        _put(row + 11, width, valid)
        _put(row + 12, width.to(tl.float64) / height.to(tl.float64), valid)
    if EDGE:
        row = edge_rows + image * (C + 4)
        for channel in tl.static_range(C):
            of_channel = tl.load(counts + (image * C + channel) * 256 + bins).to(tl.float64)
            _put(row + 3 + C - channel, tl.sum(of_channel * bins, 0) / pixels, valid)
        brightness = tl.sum(tl.load(counts + image * C * 256 + bins).to(tl.float64) * bins, 0) / pixels
        if C == 3:
            green_counts = tl.load(counts + (image * C + 1) * 256 + bins).to(tl.float64)
            blue_counts = tl.load(counts + (image * C + 2) * 256 + bins).to(tl.float64)
            brightness = brightness * _BLUE + tl.sum(green_counts * bins, 0) / pixels * _GREEN
            brightness += tl.sum(blue_counts * bins, 0) / pixels * _RED
        mean = tl.sum(gray, 0).to(tl.float64) / pixels
        std = tl.sqrt(tl.maximum(tl.sum(gray_squares, 0).to(tl.float64) / pixels - mean * mean, 0.0))
        noise = _decibels(mean / tl.maximum(std, 1e-12) + 1e-7)
        low, high = tl.min(gray_low, 0).to(tl.float64), tl.max(gray_high, 0).to(tl.float64)
        _put(row, brightness, valid)
        _put(row + 1, tl.sqrt(_variance(edge_slopes, edge_slope, pixels)), valid)
        _put(row + 2, tl.where(std > 0.0, noise, _NO_NOISE), valid)
        _put(row + 3, (high - low) / tl.maximum(high, 1.0), valid)
