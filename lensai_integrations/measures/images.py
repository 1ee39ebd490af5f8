"""What is measured of images: a row of numbers per image, on the 0-255 scale whatever the batch's dtype and layout.

A convention is a table: each line says what a measure means beside the one formula that computes it, so that what a
profile states and what was computed stay the same. `lensai` is this package's own (`formulas.py`); `lensai-edge` is
what LensAI's devices compute (`edge.py`), for baselines that are held against a device's files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from array_api_compat import device, is_numpy_array

from lensai_integrations.arrays.namespaces import Array, is_immutable, namespace
from lensai_integrations.errors import InputError
from lensai_integrations.measures import edge, formulas
from lensai_integrations.measures.definitions import Definition, register
from lensai_integrations.measures.inputs import Images
from lensai_integrations.measures.pixels import Planes, are_bytes, blocks
from lensai_integrations.problems import pass_on
from lensai_integrations.sketches.counts import count_images


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
    "lensai": Convention(measures_of("lensai", formulas.TABLE), formulas.PIXEL, formulas.over_pixels, blue_first=False),
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
    rows, failed = _measured(images, (convention,), lambda planes: None)
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
    rounded: list[Array] = []
    rows, failed = _measured(images, (convention,), lambda planes: rounded.append(_rounded(planes)))
    return *_one(images, convention, rows, failed), _bytes(images, convention, rounded)


def measure_images_and_counts(images: Images, convention: str = "lensai") -> tuple[tuple[str, ...], Array, Array]:
    """What `measure_images` returns, and how often each of the 256 values occurs in each channel, `[C, 256]`.

    What `PixelCounts` counts of `pixel_bytes`, counted where the images are, for those whose bytes are to stay there.
    The counts are whole numbers; of JAX and TensorFlow int32, which holds those of 2^31 pixels.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> names, rows, counts = measure_images_and_counts(ImageInputs().read(np.full((2, 8, 8), 0.5)))
        >>> names[0], rows[0, 0].item(), counts[0, 128].item()
        ('brightness', 127.5, 128)
    """
    rows, failed, counts = _counted(images, (convention,))
    return *_one(images, convention, rows, failed), in_order_of(convention, counts, axis=0)


def measure_by_conventions(
    images: Images, conventions: Sequence[str]
) -> tuple[dict[str, Array], dict[str, Exception], Array, int | None]:
    """The rows of `measure_images` by convention, those that failed with their errors, and the pixel counts of all.

    The images are read, converted and counted once, whatever the number of conventions. One that fails leaves the
    others as they are.

    Returns:
        Rows by convention; errors by convention; whole numbers `[C, 256]`, red first (see `in_order_of`); and the
        images that these are of, None for all.

    Raises:
        InputError: If a convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> images = ImageInputs().read(np.full((2, 8, 8, 3), 200, np.uint8))
        >>> rows, failed, counts, n = measure_by_conventions(images, ("lensai", "lensai-edge"))
        >>> {name: each.shape for name, each in rows.items()}, failed, counts[0, 200].item(), n
        ({'lensai': (2, 20), 'lensai-edge': (2, 7)}, {}, 128, 2)
    """
    if is_immutable(images.pixels):
        return *_counted(images, conventions), None
    rounded: list[Array] = []
    rows, failed = _measured(images, conventions, lambda planes: rounded.append(_rounded(planes)))
    pixels = _as_one(images, rounded)
    empty = np.zeros((images.channels, 256), np.int64)
    return rows, failed, count_images(pixels) if pixels.shape[0] else empty, int(pixels.shape[0])


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
    that `measure_images` finds invalid are left out; on an accelerator, where that would have to wait, they stay, and
    a pixel that is NaN becomes 0.

    Raises:
        InputError: If the convention is unknown.

    Example:
        >>> from lensai_integrations.measures.inputs import ImageInputs
        >>> pixel_bytes(ImageInputs().read(np.full((1, 2, 2), 0.5)))[0, 0].tolist()
        [[128, 128], [128, 128]]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = [] if _as_they_lie(images) else [_rounded(planes) for planes in blocks(images)]
    return _bytes(images, convention, rounded)


def _one(
    images: Images, convention: str, rows: dict[str, Array], failed: dict[str, Exception]
) -> tuple[tuple[str, ...], Array]:
    """Names and rows of the only convention."""
    if convention in failed:
        raise failed[convention]
    return tuple(image_measures(images.channels, convention)), rows[convention]


def _counted(images: Images, conventions: Sequence[str]) -> tuple[dict[str, Array], dict[str, Exception], Array]:
    """Rows, errors, and the counts of all pixels, red first, counted as the images are gone through."""
    xp = namespace(images.pixels)
    counts = [xp.zeros((images.channels, 256), dtype=xp.int32)] if not images.n else []
    rows, failed = _measured(images, conventions, lambda planes: counts.append(planes.counts), counted=True)
    return rows, failed, sum(counts[1:], start=counts[0])


def _measured(
    images: Images, conventions: Sequence[str], each: Callable[[Planes], None], *, counted: bool = False
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
                planes = replace(planes, counts=count_images(_rounded(planes)))  # noqa: PLW2901
            for name in (name for name in chosen if name not in failed):
                try:
                    sums[name].append(chosen[name].over_pixels(planes))
                except Exception as error:  # noqa: BLE001  what one convention does wrong is no other's
                    pass_on(error)
                    failed[name] = error
            valid.append(planes.valid)
            each(planes)
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
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(parts[0])}
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


def _as_they_lie(images: Images) -> bool:
    return not images.n or are_bytes(images.pixels, images.gain, images.offset)


def _bytes(images: Images, convention: str, rounded: list[Array]) -> Array:
    return in_order_of(convention, _as_one(images, rounded), axis=1)


def _as_one(images: Images, rounded: list[Array]) -> Array:
    """The bytes of all images, red first."""
    xp = namespace(images.pixels)
    return xp.astype(images.pixels, xp.uint8, copy=False) if _as_they_lie(images) else xp.concatenate(rounded, axis=0)


def _convention_named(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise InputError(f"convention={name!r} is unknown; pass one of {', '.join(map(repr, CONVENTIONS))}")
    return CONVENTIONS[name]
