"""The image formulas of `convention="lensai"`, each written once.

They come in two steps. `over_pixels` reduces the planes of a few images to a handful of numbers per image: that is
where the time goes. The formulas then run over those numbers, for the whole batch at once. Both use only functions that
numpy, torch and `keras.ops` have under the same names.

All spreads are those of planes from which the channels' means have been subtracted, so that no digits are lost, and a
constant image has spreads of exactly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array
from lensai_integrations.measures.definitions import Definition
from lensai_integrations.measures.differences import differences, laplacian_variance, ridge
from lensai_integrations.measures.pixels import (
    BT601,
    Planes,
    as_float32,
    centre,
    clip,
    combined,
    count_256,
    extremes,
    is_uint8,
    mean_over_pixels,
    mean_square,
    weighted,
)
from lensai_integrations.measures.strips import is_one_image_of_bytes, totals

#: Luma, red against green, and yellow against blue.
COMBINATIONS: Final = (BT601, (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))
#: 8-bit luma up to and including which a pixel is near black, and from which on it is near white.
NEAR_BLACK: Final = 5
NEAR_WHITE: Final = 250
#: A mean or standard deviation below this counts as this in the signal-to-noise ratio.
SNR_FLOOR: Final = 1e-3
#: A mean colour as near to grey as this, on the 0-255 scale, has no hue.
GREYEST: Final = 1e-3
#: The 256 values and their squares, `[256, 2]`.
_POWERS: Final = np.arange(256.0)[:, None] ** (1, 2)
_MIXED: Final = np.array(COMBINATIONS)


@dataclass(frozen=True)
class Sums:
    """What is known of n images once their pixels have been added up, float32.

    Attributes:
        mean: Mean of each channel, `[n, C]`.
        variance: Population variance of each channel, `[n, C]`.
        luma_variance: Population variance of luma, `[n]`.
        laplacian_variance: Population variance of luma's 4-neighbour Laplacian, border reflect-101, `[n]`.
        ridge: Mean of `|luma * [1 -2 1; -2 4 -2; 1 -2 1]|` off the border, `[n]`; 0 for images smaller than 3 x 3.
        shares: Share of pixels with each 8-bit luma, `[n, 256]`.
        opponents_variance: Sum of the population variances of R - G and (R + G) / 2 - B, `[n]`; None for grey images.
        saturation: Mean of (max - min) / max of R, G, B, `[n]`; None for grey images.
        size: `(H, W)`.
    """

    mean: Array
    variance: Array
    luma_variance: Array
    laplacian_variance: Array
    ridge: Array
    shares: Array
    opponents_variance: Array
    saturation: Array
    size: tuple[int, int]


def over_pixels(planes: Planes) -> Sums:
    """Add up the pixels of a few images."""
    xp = planes.xp
    if planes.counts is not None and is_one_image_of_bytes(planes.values):
        return _over_strips(planes.values[0], planes.counts)
    low, high = planes.bounds or extremes(planes.values, xp)
    mean, centred = centre(planes.values, low, high, xp)
    luma, *opponents = combined(centred, COMBINATIONS, xp)
    across, down = differences(luma, xp)
    return Sums(
        mean=mean,
        variance=mean_square(centred, xp),
        luma_variance=mean_square(luma, xp),
        laplacian_variance=laplacian_variance(across, down, xp),
        ridge=ridge(across, xp),
        shares=_shares(luma, weighted(mean, BT601), xp),
        opponents_variance=sum(mean_square(plane, xp) for plane in opponents) if opponents else None,
        saturation=_saturation(planes.values, xp) if opponents else None,
        size=(int(luma.shape[1]), int(luma.shape[2])),
    )


def _over_strips(image: NDArray[np.uint8], counts: NDArray[np.int64]) -> Sums:
    """The same of one image of bytes `[3, H, W]` in host memory, given its counts `[3, 256]`."""
    _, height, width = image.shape
    n, found = height * width, totals(image)
    mean, squares = (counts @ _POWERS / n).T
    red_green, red_blue, green_blue = found.products / n
    products = (
        [squares[0], red_green, red_blue],
        [red_green, squares[1], green_blue],
        [red_blue, green_blue, squares[2]],
    )
    covariance = products - mean * mean[:, None]  # of whole numbers in float64: no digits are lost
    luma, *opponents = np.maximum(np.vecdot(_MIXED @ covariance, _MIXED), 0.0)
    slope, square = found.laplacian / n
    numbers = {
        "mean": mean,
        "variance": np.maximum(np.diagonal(covariance), 0.0),
        "luma_variance": luma,
        "laplacian_variance": max(square - slope * slope, 0.0) * 1e-6,
        "ridge": found.ridge / max((height - 2) * (width - 2), 1) * 1e-3,
        "shares": found.counts / n,
        "opponents_variance": sum(opponents),
        "saturation": found.saturation / n,
    }
    return Sums(**{key: np.asarray([each], np.float32) for key, each in numbers.items()}, size=(height, width))


def _shares(luma: Array, mean: Array, xp: Any) -> Array:
    # Lumas of 8-bit colours are multiples of 0.001. Half such a step more than 0.5 rounds them half up and keeps the
    # boundary away from all of them, so that a float's last digit decides nothing.
    counts = count_256(xp.astype(luma + (mean + 0.5005)[:, None, None], xp.uint8))
    return as_float32(counts, xp) / float(luma.shape[1] * luma.shape[2])


def _saturation(values: Array, xp: Any) -> Array:
    red, green, blue = values[:, 0], values[:, 1], values[:, 2]
    high = xp.maximum(xp.maximum(red, green), blue)
    chroma = as_float32(high - xp.minimum(xp.minimum(red, green), blue), xp)
    # At least 1: what rounding leaves of a black pixel when its normalisation is undone has no colour.
    chroma /= clip(high, 1, 255) if is_uint8(high) else clip(high, 1.0, 255.0)
    return mean_over_pixels(chroma, xp)


def brightness(sums: Sums, xp: Any) -> Array:
    """Mean of luma, `[n]`."""
    return weighted(sums.mean, BT601)


def contrast(sums: Sums, xp: Any) -> Array:
    """Population standard deviation of luma, `[n]`."""
    return xp.sqrt(sums.luma_variance)


def sharpness(sums: Sums, xp: Any) -> Array:
    """Population standard deviation of luma's Laplacian, `[n]`."""
    return xp.sqrt(sums.laplacian_variance)


def snr(sums: Sums, xp: Any) -> Array:
    """Mean over standard deviation of luma in dB, `[n]`; both at least `SNR_FLOOR`, so it is always finite."""
    mean, std = clip(brightness(sums, xp), SNR_FLOOR, 255.0), clip(contrast(sums, xp), SNR_FLOOR, 255.0)
    return 20.0 * xp.log10(mean / std)


def noise_sigma(sums: Sums, xp: Any) -> Array:
    """Immerkaer's estimate of the noise's standard deviation, from luma, `[n]`."""
    return math.sqrt(math.pi / 2) / 6 * sums.ridge


def saturation(sums: Sums, xp: Any) -> Array:
    """Mean HSV saturation in percent, `[n]`."""
    return 100.0 * sums.saturation


def hue(sums: Sums, xp: Any) -> Array:
    """Mean hue in degrees, weighted by chroma, `[n]`: red 0, green 120, blue 240; 0 if the mean colour is grey.

    Grey up to `GREYEST`: what rounding leaves of a grey image's colour has no hue.

    A stream is a line, a hue is on a circle. It is cut at magenta, -60 or 300, where the fewest photographs have their
    mean, and not at red, where most have it.
    """
    red, green, blue = sums.mean[:, 0], sums.mean[:, 1], sums.mean[:, 2]
    across, along = math.sqrt(0.75) * (green - blue), red - 0.5 * (green + blue)
    angle = xp.arctan2(across, along) * (180.0 / math.pi)
    angle = xp.where(across * across + along * along < GREYEST * GREYEST, 0.0, angle)
    return xp.where(angle < -60.0, angle + 360.0, angle)


def colourfulness(sums: Sums, xp: Any) -> Array:
    """Hasler and Suesstrunk's colourfulness, `[n]`."""
    red_green, yellow_blue = (weighted(sums.mean, weights) for weights in COMBINATIONS[1:])
    return xp.sqrt(sums.opponents_variance) + 0.3 * xp.sqrt(red_green * red_green + yellow_blue * yellow_blue)


def entropy(sums: Sums, xp: Any) -> Array:
    """Shannon entropy of 8-bit luma in bits, `[n]`."""
    return xp.abs(xp.sum(sums.shares * xp.log2(clip(sums.shares, 1e-12, 1.0)), axis=-1))


def near_black(sums: Sums, xp: Any) -> Array:
    """Percentage of pixels whose 8-bit luma is at most `NEAR_BLACK`, `[n]`."""
    return 100.0 * xp.sum(sums.shares[:, : NEAR_BLACK + 1], axis=-1)


def near_white(sums: Sums, xp: Any) -> Array:
    """Percentage of pixels whose 8-bit luma is at least `NEAR_WHITE`, `[n]`."""
    return 100.0 * xp.sum(sums.shares[:, NEAR_WHITE:], axis=-1)


def channel_mean(sums: Sums, xp: Any) -> Array:
    """Mean of each channel, `[n, C]`."""
    return sums.mean


def channel_std(sums: Sums, xp: Any) -> Array:
    """Population standard deviation of each channel, `[n, C]`."""
    return xp.sqrt(sums.variance)


def height(sums: Sums, xp: Any) -> Array:
    """Rows of pixels, `[n]`."""
    return xp.zeros_like(sums.ridge) + sums.size[0]


def width(sums: Sums, xp: Any) -> Array:
    """Columns of pixels, `[n]`."""
    return xp.zeros_like(sums.ridge) + sums.size[1]


def aspect_ratio(sums: Sums, xp: Any) -> Array:
    """Width over height, `[n]`."""
    return xp.zeros_like(sums.ridge) + sums.size[1] / sums.size[0]


_SCALE = (0.0, 255.0)
_PERCENT = (0.0, 100.0)
_Y = "luma Y = 0.299 R + 0.587 G + 0.114 B, not rounded; grey images: Y is the pixel"
_Y8 = "8-bit luma floor(Y + 0.5005), which rounds half up, Y = 0.299 R + 0.587 G + 0.114 B; grey images: Y is the pixel"
_BT601 = "ITU-R BT.601-7, 2.5.1"

TABLE: Final = (
    (brightness, "brightness", "0-255", _SCALE, "How light the image is.", f"mean of {_Y}", _BT601),
    (
        contrast, "contrast", "0-255", (0.0, 127.5), "How far light and dark are apart.",
        f"population standard deviation of {_Y}", "E. Peli, Contrast in complex images, J. Opt. Soc. Am. A 7(10), 1990",
    ),
    (
        sharpness, "sharpness", "0-255", (0.0, 1020.0), "How strong edges and detail are; low when blurred.",
        "population standard deviation of Y(i-1,j) + Y(i+1,j) + Y(i,j-1) + Y(i,j+1) - 4 Y(i,j) over all pixels, border"
        f" mirrored without repeating it (reflect-101), {_Y}",
        "J. L. Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy, ICPR 2000 (there the variance)",
    ),
    (
        snr, "snr", "dB", (20 * math.log10(SNR_FLOOR / 127.5), 20 * math.log10(255 / SNR_FLOOR)),
        "Mean light against its spread; low for noisy and for high-contrast images.",
        f"20 log10(max(mean, {SNR_FLOOR:g}) / max(std, {SNR_FLOOR:g})), population std, of {_Y}; a constant image of"
        " Y = 128 has 102 dB, a black one 0 dB",
        "signal-to-noise ratio as mean over standard deviation",
    ),
    (
        noise_sigma, "noise_sigma", "0-255", (0.0, None), "Spread of the noise, edges mostly left out.",
        "sqrt(pi/2) / 6 times the mean of |Y * [1 -2 1; -2 4 -2; 1 -2 1]| over the pixels off the border; 0 below 3 x 3"
        f" pixels; {_Y}",
        "J. Immerkaer, Fast noise variance estimation, Comput. Vis. Image Underst. 64(2), 1996",
    ),
    (
        saturation, "saturation", "%", _PERCENT, "How far colours are from grey.",
        "mean over pixels of 100 (max - min) / max of R, G, B, a max below 1 counting as 1",
        "A. R. Smith, Color gamut transform pairs, SIGGRAPH 1978 (HSV)", "colours",
    ),
    (
        hue, "hue", "degrees", (-60.0, 300.0), "The mean colour: red 0, green 120, blue 240; cut at magenta, 300.",
        "circular mean of pixel hues weighted by chroma: the angle of (R - (G + B) / 2, sqrt(3) / 2 (G - B)) of the"
        f" channel means; 0 if that is shorter than {GREYEST:g}",
        "A. Hanbury, Circular statistics applied to colour images, CVWW 2003", "colours",
    ),
    (
        colourfulness, "colourfulness", "0-255", (0.0, None), "How colourful people find the image.",
        "sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2), rg = R - G, yb = (R + G) / 2 - B",
        "D. Hasler, S. Suesstrunk, Measuring colourfulness in natural images, Proc. SPIE 5007, 2003", "colours",
    ),
    (
        entropy, "entropy", "bits", (0.0, 8.0), "How evenly the grey levels are used.",
        f"-sum p log2 p over the 256 values of {_Y8}", "C. E. Shannon, A mathematical theory of communication, 1948",
    ),
    (
        near_black, "near_black", "%", _PERCENT, "Share of pixels that are black or nearly.",
        f"100 times the share of pixels at most {NEAR_BLACK}, of {_Y8}", "lensai_integrations",
    ),
    (
        near_white, "near_white", "%", _PERCENT, "Share of pixels that are white or nearly.",
        f"100 times the share of pixels at least {NEAR_WHITE}, of {_Y8}", "lensai_integrations",
    ),
    (
        channel_mean, "mean", "0-255", _SCALE, "Mean of a channel: 0 red, 1 green, 2 blue.", "mean", "statistics",
        "channel",
    ),
    (
        channel_std, "std", "0-255", (0.0, 127.5), "Spread of a channel: 0 red, 1 green, 2 blue.",
        "population standard deviation", "statistics", "channel",
    ),
    (height, "height", "pixels", (1.0, None), "Height of the image as the model gets it.", "rows", "the image"),
    (width, "width", "pixels", (1.0, None), "Width of the image as the model gets it.", "columns", "the image"),
    (aspect_ratio, "aspect_ratio", "1", (0.0, None), "Shape of the image.", "width / height", "the image"),
)  # fmt: skip
PIXEL: Final = Definition(
    "lensai/pixel@1", "pixel", "0-255", "Every pixel of a channel: 0 red, 1 green, 2 blue.",
    "the pixel on the 0-255 scale, rounded half up", "the image", _SCALE,
)  # fmt: skip
