"""What is measured of images: a row of numbers per image, on the 0-255 scale whatever the batch's dtype and layout.

A convention is a table: each line says what a measure means beside the one formula that computes it, so that what a
profile states and what was computed stay the same. `lensai` is this package's own; `lensai-edge` is what LensAI's
devices compute (`edge.py`), for baselines that are held against a device's files.

On CUDA kernels compute the same (`kernels.py`); everywhere else the formulas do, and they say what is right.

The formulas come in two steps. `over_pixels` reduces the planes of a few images to a handful of numbers per image: that
is where the time goes. The formulas then run over those numbers, for the whole batch at once. Both use only functions
that numpy, torch and `keras.ops` have under the same names. All spreads are those of planes from which the channels'
means have been subtracted, so that no digits are lost, and a constant image has spreads of exactly 0.

They are the definition. Images in host memory are added up by a compiled loop instead, where numba is installed
(`one_pass.py`): the same sums, three to four times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from array_api_compat import device, is_numpy_array

from lensai_integrations.arrays.namespaces import Array, is_immutable, namespace, shape_of
from lensai_integrations.errors import InputError
from lensai_integrations.measures import edge, kernels
from lensai_integrations.measures.definitions import Definition, register
from lensai_integrations.measures.inputs import Images
from lensai_integrations.measures.one_pass import Added, add_up
from lensai_integrations.measures.pixels import (
    BT601,
    GREYEST,
    HALF_UP,
    NEAR_BLACK,
    NEAR_WHITE,
    SNR_FLOOR,
    Planes,
    are_bytes,
    as_float32,
    blocks,
    centre,
    clip,
    combined,
    count_256,
    differences,
    extremes,
    is_uint8,
    laplacian_variance,
    mean_over_pixels,
    mean_square,
    ridge,
    weighted,
)
from lensai_integrations.problems import pass_on
from lensai_integrations.sketches.counts import count_images

#: Luma, red against green, and yellow against blue.
COMBINATIONS: Final = (BT601, (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))


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


def _shares(luma: Array, mean: Array, xp: Any) -> Array:
    counts = count_256(xp.astype(luma + (mean + HALF_UP)[:, None, None], xp.uint8))
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


@dataclass(frozen=True)
class ImageMeasure:
    """One measure of a convention.

    Attributes:
        definition: What it means; `definition.name` is the stream's name.
        formula: From the convention's sums and the namespace to float32 `[n]`, or `[n, C]` for a stream per channel.
        of: What one stream is of: an `"image"`, a `"channel"`, or the `"colours"` of an image, which grey ones lack.
    """

    definition: Definition
    formula: Callable[[Any, Any], Array]
    of: Literal["image", "channel", "colours"] = "image"

    def streams(self, channels: int) -> tuple[str, ...]:
        """Its streams for images of this many channels: one, one per channel, or none (colour of grey images)."""
        name = self.definition.name
        if self.of == "channel":
            return tuple(f"{name}/{channel}" for channel in range(channels))
        return () if channels == 1 and self.of == "colours" else (name,)


@dataclass(frozen=True)
class Convention:
    """A set of measures that belong together.

    Attributes:
        measures: In the order of the columns.
        pixel: What the pixel distribution of a channel means.
        over_pixels: From planes to the sums the formulas take.
        blue_first: Whether channel 0 is blue.
    """

    measures: tuple[ImageMeasure, ...]
    pixel: Definition
    over_pixels: Callable[[Planes], Any]
    blue_first: bool


def measures_of(prefix: str, table: Iterable[tuple[Any, ...]]) -> tuple[ImageMeasure, ...]:
    """The measures of a table, each a row: its formula, its name, unit, range, what it says of an image, the formula in
    words, where that comes from, and what a stream is `of` if not of an image.

    Args:
        prefix: Of the definitions' ids, the name of the convention.
        table: The rows.
    """
    return tuple(
        ImageMeasure(Definition(f"{prefix}/{name}@1", name, unit, description, text, source, span), formula, *of)
        for formula, name, unit, span, description, text, source, *of in table
    )


CONVENTIONS: Final = {
    "lensai": Convention(measures_of("lensai", TABLE), PIXEL, over_pixels, blue_first=False),
    "lensai-edge": Convention(measures_of("lensai-edge", edge.TABLE), edge.PIXEL, edge.over_pixels, blue_first=True),
}
for _convention in CONVENTIONS.values():
    register(*(measure.definition for measure in _convention.measures), _convention.pixel)


def image_measures(channels: int, convention: str = "lensai") -> dict[str, str]:
    """Stream names of the measures, in the order of `measure_images`' columns, with their definition ids.

    Args:
        channels: 3 for colour images, 1 for grey ones, which have no colour measures.
        convention: `"lensai"` or `"lensai-edge"`.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> list(image_measures(1, "lensai-edge"))
        ['brightness', 'sharpness', 'noise', 'contrast', 'mean/0']
        >>> image_measures(3)["mean/2"]
        'lensai/mean@1'
    """
    return dict(_definition_ids(channels, convention))


@lru_cache(maxsize=16)
def _definition_ids(channels: int, convention: str) -> dict[str, str]:
    measures = _convention_named(convention).measures
    return {stream: measure.definition.id for measure in measures for stream in measure.streams(channels)}


@lru_cache(maxsize=16)
def _used(channels: int, convention: str) -> tuple[ImageMeasure, ...]:
    return tuple(measure for measure in _convention_named(convention).measures if measure.streams(channels))


def measure_images(images: Images, convention: str = "lensai") -> tuple[tuple[str, ...], Array]:
    """Measure a batch of images: stream names, and float32 rows `[n, D]` on the device the images are on.

    Nothing is waited for. The row of an image with a pixel that is not finite, or is further outside 0-255 than cubic
    resizing overshoots (`OVERSHOOT`), is all NaN.

    Args:
        images: What `ImageInputs.read` returned.
        convention: `"lensai"` or `"lensai-edge"`.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> names, rows = measure_images(ImageInputs().read(np.full((1, 8, 8, 3), 200, np.uint8)))
        >>> dict(zip(names[:3], rows[0, :3].tolist()))
        {'brightness': 200.0, 'contrast': 0.0, 'sharpness': 0.0}
    """
    passed = _in_one_pass(images, (convention,))
    rows, failed = passed[:2] if passed else _measured(images, (convention,), lambda planes: None)
    return _one(images, convention, rows, failed)


def measure_images_and_bytes(images: Images, convention: str = "lensai") -> tuple[tuple[str, ...], Array, Array]:
    """What `measure_images` and `pixel_bytes` return, converting float images once instead of twice.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> names, rows, pixels = measure_images_and_bytes(ImageInputs().read(np.full((1, 8, 8), 0.5)))
        >>> names[0], rows[0, 0].item(), pixels[0, 0, 0, 0].item()
        ('brightness', 127.5, 128)
    """
    if added := _added_up(images, (convention,), rounded=not _as_they_lie(images)):
        rows, failed = _rows_of(images, (convention,), added)
        pixels = images.pixels if _as_they_lie(images) else added.rounded
        return *_one(images, convention, rows, failed), in_order_of(convention, pixels, axis=1)
    rounded: list[Array] = []
    rows, failed = _measured(images, (convention,), lambda planes: rounded.append(_rounded(planes)))
    return *_one(images, convention, rows, failed), in_order_of(convention, _as_one(images, rounded), axis=1)


def measure_images_and_counts(images: Images, convention: str = "lensai") -> tuple[tuple[str, ...], Array, Array]:
    """What `measure_images` returns, and how often each of the 256 values occurs in each channel, `[C, 256]`.

    What `PixelCounts` counts of `pixel_bytes`, counted where the images are, for those whose bytes are to stay there.
    The counts are whole numbers; of JAX and TensorFlow int32, which holds those of 2^31 pixels. Images that are not
    valid are left out, without waiting for anything; `measure_by_conventions` says how many are not.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> names, rows, counts = measure_images_and_counts(ImageInputs().read(np.full((2, 8, 8), 0.5)))
        >>> names[0], rows[0, 0].item(), counts[0, 128].item()
        ('brightness', 127.5, 128)
    """
    rows, failed, counts, _ = _counted(images, (convention,))
    return *_one(images, convention, rows, failed), in_order_of(convention, counts, axis=0)


def measure_by_conventions(
    images: Images, conventions: Sequence[str]
) -> tuple[dict[str, Array], dict[str, Exception], Array, Array | int | None]:
    """The rows of `measure_images` by convention, those that failed with their errors, and the pixel counts of all.

    The images are read, converted and counted once, whatever the number of conventions. One that fails leaves the
    others as they are.

    Returns:
        Rows by convention; errors by convention; whole numbers `[C, 256]`, red first (see `in_order_of`); and the
        images that these are of: None for all, on an accelerator whole `[]`.

    Raises:
        InputError: If a convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> images = ImageInputs().read(np.full((2, 8, 8, 3), 200, np.uint8))
        >>> rows, failed, counts, n = measure_by_conventions(images, ("lensai", "lensai-edge"))
        >>> {name: each.shape for name, each in rows.items()}, failed, counts[0, 200].item(), n
        ({'lensai': (2, 20), 'lensai-edge': (2, 7)}, {}, 128, 2)
    """
    return _counted(images, conventions)


def in_order_of(convention: str, pixels: Array, axis: int) -> Array:
    """What there is of each channel, red first, in the order that the convention has them.

    Example:
        >>> in_order_of("lensai-edge", np.array([3, 2, 1]), axis=0).tolist()
        [1, 2, 3]
    """
    if not _convention_named(convention).blue_first or pixels.shape[axis] == 1:
        return pixels
    return namespace(pixels).flip(pixels, axis=axis)


def pixel_bytes(images: Images, convention: str = "lensai") -> Array:
    """The pixels on the 0-255 scale, rounded: uint8 `[n, C, H, W]` on the same device, for `PixelCounts`.

    Bytes are returned as they lie, without a copy. Channel 0 is red, or blue for `"lensai-edge"`. In host memory images
    that `measure_images` finds invalid are left out; on an accelerator that would have to wait, so they stay, and a
    pixel that is NaN becomes 0. `measure_images_and_counts` leaves them out there too.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> pixel_bytes(ImageInputs().read(np.full((1, 2, 2), 0.5)))[0, 0].tolist()
        [[128, 128], [128, 128]]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = [] if _as_they_lie(images) else [_rounded(planes) for planes in blocks(images)]
    return in_order_of(convention, _as_one(images, rounded), axis=1)


def _one(
    images: Images, convention: str, rows: dict[str, Array], failed: dict[str, Exception]
) -> tuple[tuple[str, ...], Array]:
    """Names and rows of the only convention."""
    if convention in failed:
        raise failed[convention]
    return tuple(image_measures(images.channels, convention)), rows[convention]


def _counted(
    images: Images, conventions: Sequence[str]
) -> tuple[dict[str, Array], dict[str, Exception], Array, Array | int | None]:
    """Rows, errors, the counts of the pixels of valid images, red first, counted as the images are gone through, and of
    how many images they are."""
    if passed := _in_one_pass(images, conventions, counts=True):
        return passed
    parts: list[Array] = []
    valid: list[Array | int | None] = []
    if not images.n:
        parts.append(_no_counts(images))

    def see(planes: Planes) -> None:
        parts.append(planes.counts)
        valid.append(None if planes.valid is None else _number_of(planes.valid, planes.xp))

    rows, failed = _measured(images, conventions, see, counted=True)
    numbers = [n for n in valid if n is not None]
    everything = images.n if images.n >= 0 else None
    n = sum(numbers[1:], start=numbers[0]) if numbers else everything
    return rows, failed, sum(parts[1:], start=parts[0]), n


def _no_counts(images: Images) -> Array:
    xp, shape = namespace(images.pixels), (images.channels, 256)
    if is_immutable(images.pixels):
        return xp.zeros(shape, dtype=xp.int32)
    return xp.zeros(shape, dtype=xp.int64, device=device(images.pixels))


def _number_of(valid: Array, xp: Any) -> Array | int:
    """How many images are valid, without waiting."""
    return int(valid.sum()) if is_numpy_array(valid) else xp.sum(xp.astype(valid, xp.int32))


#: From what one pass has added up to a convention's sums, by what does so of planes.
_IN_ONE_PASS: Final[dict[Callable[[Planes], Any], Callable[[Added], Any]]] = {
    over_pixels: lambda added: Sums(**added.of_luma()),
    edge.over_pixels: lambda added: edge.EdgeSums(**added.of_gray()),
}


def _in_one_pass(
    images: Images, conventions: Sequence[str], *, counts: bool = False
) -> tuple[dict[str, Array], dict[str, Exception], Array, Array | int] | None:
    """What `_counted` returns, by kernels on CUDA and by a compiled loop in host memory; None where there is neither
    for all of it."""
    if added := _added_up(images, conventions, counts=counts):
        return *_rows_of(images, conventions, added), added.counts, int(np.count_nonzero(added.valid))
    streams = {name: tuple(image_measures(images.channels, name)) for name in conventions}
    if not images.n or not kernels.runs_on(images.pixels):
        return None
    if any(kernels.columns(name, images.channels) != columns for name, columns in streams.items()):
        return None
    passed = kernels.measured(images, conventions)
    return None if passed is None else (passed[0], {}, passed[1], passed[2])


def _added_up(
    images: Images, conventions: Sequence[str], *, counts: bool = False, rounded: bool = False
) -> Added | None:
    """What one pass over images in host memory comes to; None where there is no compiled loop for all of it."""
    over = [_convention_named(name).over_pixels for name in conventions]
    if any(function not in _IN_ONE_PASS for function in over):
        return None
    luma, gray = over_pixels in over, edge.over_pixels in over
    return add_up(images, luma=luma, gray=gray, counts=counts, rounded=rounded)


def _rows_of(images: Images, conventions: Sequence[str], added: Added) -> tuple[dict[str, Array], dict[str, Exception]]:
    """Rows by convention, and the errors of those that failed."""
    valid = None if added.valid.all() else added.valid
    rows: dict[str, Array] = {}
    failed: dict[str, Exception] = {}
    for name in conventions:
        try:
            sums = _IN_ONE_PASS[_convention_named(name).over_pixels](added)
            rows[name] = _rows(images, name, sums, [valid])
        except Exception as error:  # noqa: BLE001  what one convention does wrong is no other's
            pass_on(error)
            failed[name] = error
    return rows, failed


def _measured(
    images: Images, conventions: Sequence[str], see: Callable[[Planes], None], *, counted: bool = False
) -> tuple[dict[str, Array], dict[str, Exception]]:
    """Rows by convention, and the errors of those that failed; every block of images is made once for all of them."""
    chosen = {name: _convention_named(name) for name in conventions}
    xp = namespace(images.pixels)
    if not images.n:
        where = {} if is_immutable(images.pixels) else {"device": device(images.pixels)}
        widths = {name: len(image_measures(images.channels, name)) for name in chosen}
        return {name: xp.zeros((0, width), dtype=xp.float32, **where) for name, width in widths.items()}, {}
    sums: dict[str, list[Any]] = {name: [] for name in chosen}
    rows: dict[str, Array] = {}
    failed: dict[str, Exception] = {}
    valid = []
    with np.errstate(over="ignore", invalid="ignore"):
        for planes in blocks(images):
            if counted:
                planes = replace(planes, counts=_counts(planes))  # noqa: PLW2901
            for name in (name for name in chosen if name not in failed):
                try:
                    sums[name].append(chosen[name].over_pixels(planes))
                except Exception as error:  # noqa: BLE001  what one convention does wrong is no other's
                    pass_on(error)
                    failed[name] = error
            valid.append(planes.valid)
            see(planes)
        for name in (name for name in chosen if name not in failed):
            try:
                rows[name] = _rows(images, name, _joined(sums[name], xp), valid)
            except Exception as error:  # noqa: BLE001
                pass_on(error)
                failed[name] = error
    return rows, failed


def _rows(images: Images, convention: str, sums: Any, valid: list[Array | None]) -> Array:
    xp = namespace(images.pixels)
    used = _used(images.channels, convention)
    plain = np if is_numpy_array(images.pixels) else xp  # saves a wrapper's time, which counts for one image
    rows = xp.concatenate([_columns(measure.formula(sums, plain)) for measure in used], axis=1)
    return rows if valid[0] is None else xp.where(xp.concatenate(valid)[:, None], rows, math.nan)


def _columns(values: Array) -> Array:
    return values if len(values.shape) == 2 else values[:, None]


def _joined(parts: list[Any], xp: Any) -> Any:
    """The sums of all blocks of a batch as one: what is an array per image is put together, the rest is the same."""
    if len(parts) == 1:
        return parts[0]
    columns = {field.name: [getattr(block, field.name) for block in parts] for field in fields(parts[0])}
    shared = {name: column for name, column in columns.items() if column[0] is None or isinstance(column[0], tuple)}
    together = {name: xp.concatenate(column, axis=0) for name, column in columns.items() if name not in shared}
    return type(parts[0])(**together, **{name: column[0] for name, column in shared.items()})


def _rounded(planes: Planes) -> Array:
    values, xp = planes.values, planes.xp
    if planes.valid is None:
        return values
    if is_numpy_array(values):
        rounded = xp.astype(values + 0.5, xp.uint8)
        return rounded if planes.valid.all() else rounded[planes.valid]
    return xp.astype(xp.where(xp.isnan(values), 0.0, values) + 0.5, xp.uint8)


def _counts(planes: Planes) -> Array:
    """How often each value occurs in each channel of the images that are valid, `[C, 256]`."""
    values, valid, xp = planes.values, planes.valid, planes.xp
    if valid is None or is_numpy_array(values):
        return count_images(_rounded(planes))
    # Those that are not count as black at first, which is taken off again.
    counts = count_images(xp.astype(xp.where(valid[:, None, None, None], values, 0.0) + 0.5, xp.uint8))
    _, _, height, width = shape_of(values)
    invalid = xp.astype(xp.sum(xp.astype(~valid, xp.int32)), counts.dtype) * (height * width)
    return xp.concatenate([counts[:, :1] - invalid, counts[:, 1:]], axis=1)


def _as_they_lie(images: Images) -> bool:
    return not images.n or are_bytes(images.pixels, images.gain, images.offset)


def _as_one(images: Images, rounded: list[Array]) -> Array:
    """The bytes of all images, red first."""
    xp = namespace(images.pixels)
    return xp.astype(images.pixels, xp.uint8, copy=False) if _as_they_lie(images) else xp.concatenate(rounded, axis=0)


def _convention_named(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise InputError(f"convention={name!r} is unknown; pass one of {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name]
