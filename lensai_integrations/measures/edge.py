"""What LensAI's C++ profiler on devices computes, so that a training baseline can be held against a device's files.

It is reproduced as it is: devices see bytes in blue, green, red order and weigh them as if red came first, so blue gets
red's weight. Gray is OpenCV's 8-bit one, in its 15-bit fixed-point arithmetic, which float32 holds exactly (in steps
of 2^-15 the largest sum is 255 * 32768 + 16384 < 2^24), in whatever order it is added up. Floats are rounded to bytes
first, since a device never sees anything else.

One value is stored differently. A device's noise of a constant image is +inf, and a row with a value that is not finite
would be left out with everything else it holds. `NO_NOISE`, 200 dB, stands for it. No image of bytes below 10^15 pixels
reaches that otherwise, so ranks and quantiles, and what is computed from them, are those of the device once its +inf is
read as `NO_NOISE`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from lensai_integrations.arrays.namespaces import Array
from lensai_integrations.measures.definitions import Definition
from lensai_integrations.measures.pixels import (
    BT601,
    Planes,
    as_float32,
    centre,
    clip,
    combined,
    differences,
    extremes,
    laplacian_variance,
    mean_over_pixels,
    mean_square,
    weighted,
)
from lensai_integrations.sketches import wire

#: What stands for a device's noise of +inf, in dB.
NO_NOISE: Final = 200.0

#: Weights of red, green and blue in OpenCV's gray, in steps of 2^-15: 0.299, 0.587 and 0.114.
FIXED_POINT: Final = (9798, 19235, 3735)

_OPENCV = (FIXED_POINT[0] / 2**15, FIXED_POINT[1] / 2**15, FIXED_POINT[2] / 2**15)
_SOURCE = "LensAI C++ profiler"
_GRAY = "8-bit gray (9798 R + 19235 G + 3735 B + 16384) >> 15 (OpenCV BGR2GRAY)"


@dataclass(frozen=True)
class EdgeSums:
    """What a device knows of n images once their pixels have been added up, float32.

    Attributes:
        mean: Mean of each channel, red first, `[n, C]`.
        gray_mean: Mean of 8-bit gray, `[n]`.
        gray_variance: Population variance of gray, `[n]`.
        gray_low: Smallest gray, `[n]`.
        gray_high: Largest gray, `[n]`.
        laplacian_variance: Population variance of gray's 4-neighbour Laplacian, border reflect-101, `[n]`.
    """

    mean: Array
    gray_mean: Array
    gray_variance: Array
    gray_low: Array
    gray_high: Array
    laplacian_variance: Array


def over_pixels(planes: Planes) -> EdgeSums:
    """Add up the pixels of a few images, as a device would see them."""
    xp = planes.xp
    values = as_float32(planes.values, xp)
    if planes.valid is not None:
        values = xp.floor(values + 0.5)
    gray = opencv_gray(values, xp)
    low, high = extremes(gray, xp)
    mean, centred = centre(gray, low, high, xp)
    return EdgeSums(
        mean=mean_over_pixels(values, xp),
        gray_mean=mean,
        gray_variance=mean_square(centred, xp),
        gray_low=low,
        gray_high=high,
        laplacian_variance=laplacian_variance(*differences(gray, xp), xp),
    )


def opencv_gray(values: Array, xp: Any) -> Array:
    """OpenCV's 8-bit gray of RGB `[n, 3, H, W]`, whole numbers 0-255 in float32: `[n, H, W]`; grey is as it is."""
    if values.shape[1] == 1:
        return values[:, 0]
    # Whole numbers below 2^24 in steps of 2^-15: exact in whatever order they are added.
    return xp.floor(combined(values, (_OPENCV,), xp)[0] + 0.5)


def brightness(sums: EdgeSums, xp: Any) -> Array:
    """Mean of the channels with red's and blue's weights swapped, `[n]`; of grey images the mean."""
    return weighted(sums.mean, (BT601[2], BT601[1], BT601[0]))


def sharpness(sums: EdgeSums, xp: Any) -> Array:
    """Population standard deviation of gray's Laplacian, `[n]`."""
    return xp.sqrt(sums.laplacian_variance)


def noise(sums: EdgeSums, xp: Any) -> Array:
    """`20 log10(mean / std + 1e-7)` of gray in dB, `[n]`; `NO_NOISE` where std is 0."""
    std = xp.sqrt(sums.gray_variance)
    ratio = sums.gray_mean / clip(std, 1e-12, 255.0)
    return xp.where(std > 0, 20.0 * xp.log10(ratio + 1e-7), NO_NOISE)


def contrast(sums: EdgeSums, xp: Any) -> Array:
    """`(max - min) / max` of gray, `[n]`; 0 for a black image."""
    return (sums.gray_high - sums.gray_low) / clip(sums.gray_high, 1.0, 255.0)


def channel_mean(sums: EdgeSums, xp: Any) -> Array:
    """Mean of each channel, blue first, `[n, C]`."""
    return xp.flip(sums.mean, axis=1)


TABLE: Final = (
    (
        brightness, "brightness", "0-255", (0.0, 255.0), "How light the image is, red's and blue's weights swapped.",
        "0.299 mean(B) + 0.587 mean(G) + 0.114 mean(R) of the bytes; grey: mean", _SOURCE,
    ),
    (
        sharpness, "sharpness", "0-255", (0.0, 1020.0), "How strong edges and detail are; low when blurred.",
        f"population standard deviation of the Laplacian [0 1 0; 1 -4 1; 0 1 0], border reflect-101, of {_GRAY}",
        _SOURCE,
    ),
    (
        noise, "noise", "dB", (-140.0, NO_NOISE), "Mean light against its spread; low for noisy images.",
        f"20 log10(mean / std + 1e-7), population std, of {_GRAY}; {NO_NOISE:g}, for a device's +inf, where std = 0",
        _SOURCE,
    ),
    (
        contrast, "contrast", "1", (0.0, 1.0), "How far the darkest and the lightest pixel are apart.",
        f"(max - min) / max of {_GRAY}; 0 for a black image", _SOURCE,
    ),
    (
        channel_mean, "mean", "0-255", (0.0, 255.0), "Mean of a channel: 0 blue, 1 green, 2 red.", "mean of the bytes",
        _SOURCE, "channel",
    ),
)  # fmt: skip
PIXEL: Final = Definition(
    "lensai-edge/pixel@1", "pixel", "0-255", "Every pixel of a channel: 0 blue, 1 green, 2 red.", "the byte", _SOURCE,
    (0.0, 255.0),
)  # fmt: skip


def without_infinity(content: bytes) -> bytes:
    """The bytes of a device's sketch of noise, with `NO_NOISE` where it has +inf; ranks stay what they were.

    Raises:
        FormatError: If the bytes are damaged.

    Example:
        >>> without_infinity(bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 80 7f"))[-4:].hex(" ")  # 200 as float32
        '00 00 48 43'
    """
    sketch = wire.read(content)
    if sketch.n == 0 or not math.isinf(sketch.maximum):
        return content
    items = np.where(np.isposinf(sketch.items), np.float32(NO_NOISE), sketch.items)
    low = NO_NOISE if sketch.minimum == math.inf else sketch.minimum
    sketch = replace(sketch, items=items, minimum=low, maximum=NO_NOISE)
    ends = (np.array([low], np.float32), np.array([NO_NOISE], np.float32))
    return wire.write(sketch.k, sketch.sizes, items[None], *ends, sketch.min_k)[0]
