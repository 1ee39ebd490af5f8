"""How a batch of images is read: where the images are in it, which axis is colour, and what the numbers mean.

The same picture may arrive as bytes, as floats in [0, 1] or normalised, channels first or last, alone, in a tuple or in
a dict; the measures are to come out the same. What can be told from the batch is told; what cannot is asked for by an
error, because a wrong guess would make a baseline that looks right. The decision is made once, by `resolve`, since on
an accelerator it has to wait for the values. What is read afterwards is held against it without waiting: shapes and
dtypes by an error, values by `measure_images`, which makes the row of an image that is out of range NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np

from lensai_integrations.arrays import Array, dtype_name, namespace, shape_of, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import LAYOUTS, channels_first, find_images, kind_of, layout_of
from lensai_integrations.measures.wrapped import datasets_of, parts_inside

KINDS: Final = ("any", "uint8", "integer", "float")

#: `(mean, std)` of a normalisation, a number per channel.
Normalization: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]

_ROUNDING = 0.01  # bfloat16 moves a normalised value by up to 0.008 standard deviations, 0.002 of the range
_FULL_SCALE_FROM = 32.0  # farther than anything normalised, and few batches on the 0-255 scale do not reach it
_SOMETIMES = ("RandomApply", "RandomChoice")


@dataclass(frozen=True)
class Images:
    """A batch that has been read, on the device it was on: a view, nothing is converted yet.

    Attributes:
        pixels: `[n, C, H, W]` of the batch's own dtype and strides, C = 3 (RGB) or 1 (grey).
        gain: Factor of each channel, C numbers.
        offset: Added to each channel, C numbers: `pixels * gain + offset` is on the 0-255 scale.
        note: How the batch was read, e.g. `"NCHW float32 x 255"`.

    Example:
        >>> images = ImageInputs().read(np.zeros((2, 8, 6, 3), np.uint8))
        >>> images.n, images.channels, images.height, images.width, images.note
        (2, 3, 8, 6, 'NHWC uint8')
    """

    pixels: Array
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    note: str

    @property
    def n(self) -> int:
        """Number of images; -1 inside a function that TensorFlow traces for any number of them."""
        return shape_of(self.pixels)[0]

    @property
    def channels(self) -> int:
        """3 or 1."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[2])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[3])


@dataclass(frozen=True)
class ImageInputs:
    """How to read a batch of images; plain numbers and strings, so that it goes through pickle and JSON.

    A pixel on the 0-255 scale is `(x * std + mean) * scale`.

    Args:
        layout: `"NCHW"`, `"NHWC"`, `"NHW"` (grey, no channel axis) or `"auto"`: the axis of 1, 3 or 4 is the channels.
        scale: Factor to 0-255, or `"auto"`, decided by the first batch: 1 for uint8; 255 for floats inside [0, 1] once
            `mean` and `std` are undone; 1 for floats inside [0, 255] of which one is above 32, without `mean` and `std`
            (Keras's loaders give these). Ends are taken with a tolerance of 0.01. Everything else is an error.
        mean: What a `Normalize` subtracted, a number per channel.
        std: What it divided by.
        key: The images' key in a dict, or their place in a tuple. None: the first of a tuple, the usual name in a dict.
        kind: `"uint8"`, `"integer"` or `"float"` if batches of another dtype are to be refused; set by `resolve`.

    Raises:
        InputError: If an argument is not one of these.

    Example:
        >>> ImageInputs(mean=(0.5,), std=(0.5,)).read({"image": np.full((2, 5, 5), -1.0)}).note
        'NHW float64 (x std + mean) x 255'
        >>> ImageInputs().read(np.full((2, 5, 5), 200.0)).note
        'NHW float64 in 0-255'
    """

    layout: str = "auto"
    scale: float | str = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    key: str | int | None = None
    kind: str = "any"

    def __post_init__(self) -> None:
        for name, value, known in (("layout", self.layout, LAYOUTS), ("kind", self.kind, KINDS)):
            if value not in known:
                raise InputError(f"{name}={value!r} is unknown; pass one of {', '.join(map(repr, known))}")
        if self.scale != "auto" and not (_is_number(self.scale) and float(self.scale) > 0):
            raise InputError(f"scale={self.scale!r} should be 'auto' or the positive factor that takes pixels to 0-255")
        if (self.mean is None) != (self.std is None):
            raise InputError(f"mean={self.mean!r} and std={self.std!r} go together: pass both or neither")
        if self.mean is not None and self.std is not None:
            object.__setattr__(self, "mean", _numbers("mean", self.mean))
            object.__setattr__(self, "std", _numbers("std", self.std))
            if len(self.mean) != len(self.std) or min(self.std) <= 0:
                raise InputError(f"mean={self.mean} and std={self.std} should be as many numbers, each std above 0")

    def resolve(self, batch: Any) -> ImageInputs:
        """The same with `layout`, `scale` and `kind` decided from this batch, so that `read` never waits.

        With `scale="auto"`, floats on an accelerator are waited for, here and only here. They have to have values: not
        inside a function that is being traced.

        Raises:
            InputError: If the batch does not settle it; the message says what to pass.

        Example:
            >>> inputs = ImageInputs().resolve((np.ones((2, 3, 8, 6), np.float32), np.zeros(2)))
            >>> inputs.layout, inputs.scale, inputs.kind
            ('NCHW', 255.0, 'float')
        """
        array = find_images(batch, self.key)
        layout = layout_of(tuple(array.shape)) if self.layout == "auto" else self.layout
        scale = self._scale(array, layout) if isinstance(self.scale, str) else float(self.scale)
        return replace(self, layout=layout, scale=scale, kind=kind_of(array))

    def read(self, batch: Any) -> Images:
        """The images of a batch. Nothing is copied, and nothing waited for if these inputs come from `resolve`.

        Args:
            batch: An array of any library, `[n, C, H, W]`, `[n, H, W, C]` or `[n, H, W]`, or a tuple, list or dict with
                one in it. RGB; alpha is dropped.

        Raises:
            InputError: If there are no images in it, or they are not as these inputs say.
        """
        if self.layout == "auto" or isinstance(self.scale, str):
            return self.resolve(batch).read(batch)
        array = find_images(batch, self.key)
        if self.kind not in ("any", kind_of(array)):
            raise InputError(
                f"the first batch was {self.kind}, this one is {dtype_name(array)} and may be on another scale:"
                " make the batches alike, or pass ImageInputs(scale=..., kind='any')"
            )
        pixels = channels_first(array, self.layout)
        channels = int(pixels.shape[1])
        colours = min(channels, 3)
        mean, std = self._per_channel(colours)
        note = f"{self.layout} {dtype_name(array)}"
        note += " (x std + mean)" if self.mean else ""
        note += f" x {self.scale:g}" if self.scale != 1 else ""
        note += " in 0-255" if self.scale == 1 and not self.mean and kind_of(array) == "float" else ""
        note += ", alpha dropped" if channels > colours else ""
        return Images(
            pixels[:, :colours], tuple(s * self.scale for s in std), tuple(m * self.scale for m in mean), note
        )

    def _per_channel(self, colours: int) -> Normalization:
        if self.mean is None or self.std is None:
            return (0.0,) * colours, (1.0,) * colours
        if len(self.mean) == 1:
            return self.mean * colours, self.std * colours
        if len(self.mean) not in (colours, 4) or colours == 1:
            expected = "1 number for grey images" if colours == 1 else f"1 or {colours} numbers, one per channel"
            raise InputError(f"mean={self.mean} and std={self.std} should be {expected}")
        return self.mean[:colours], self.std[:colours]

    def _scale(self, array: Array, layout: str) -> float:
        kind, dtype = kind_of(array), dtype_name(array)
        if kind == "uint8" and self.mean is None:
            return 1.0
        if kind != "float":
            raise InputError(
                f"scale='auto' cannot tell what {dtype} pixels mean with mean={self.mean}: pass scale=, the factor that"
                " takes them to 0-255 (255 / 65535 for full 16 bit), and no mean and std for bytes as they were read"
            )
        low, high = self._range(channels_first(array, layout))
        if low >= -_ROUNDING and high <= 1 + _ROUNDING:
            return 255.0
        if self.mean is None and low >= -_ROUNDING and _FULL_SCALE_FROM < high <= 255 + _ROUNDING:
            return 1.0
        expected = "once mean and std are undone" if self.mean else "or inside [0, 255] and reaching beyond 32"
        known = "scale=1 if they are 0-255 already, or " if low >= 0 else ""
        raise InputError(
            f"scale='auto' expects float pixels inside [0, 1] {expected}, but these reach from {low:.4g} to {high:.4g}:"
            f" pass {known}the mean= and std= they were normalised with, or scale=, the factor that takes them to 0-255"
        )

    def _range(self, pixels: Array) -> tuple[float, float]:
        pixels = pixels[:, :3]
        mean, std = self._per_channel(int(pixels.shape[1]))
        xp = namespace(pixels)
        ends = [to_host(end(pixels, axis=(2, 3))).astype(np.float64) * std + mean for end in (xp.min, xp.max)]
        finite = np.isfinite(ends).all(axis=(0, 2))
        low, high = (end[finite] for end in ends)
        if not low.size:
            raise InputError("scale='auto' needs a first batch with finite pixels; this one has none: pass scale=")
        return float(low.min()), float(high.max())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"{name}={values!r} should be a finite number per channel, e.g. {name}=(0.5, 0.5, 0.5)")
    return numbers


def normalization_of(transform: Any) -> Normalization | None:
    """Mean and std of the `Normalize` in a transform, a data set or what wraps them; None if there is none.

    Looks where `wrapped.parts_inside` does. A `Normalize` that is applied only sometimes (`RandomApply`,
    `RandomChoice`) does not count.

    Raises:
        InputError: If there are several that differ, or only some parts of a `ConcatDataset` have one.

    Example:
        >>> class Normalize:
        ...     mean, std = [0.5], [0.25]
        >>> class Compose:
        ...     transforms = [str, Normalize()]
        >>> normalization_of(Compose())
        ((0.5,), (0.25,))
    """
    found = _normalizations(transform)
    if len(found) > 1:
        names = " and ".join(sorted(map(repr, found)))
        raise InputError(f"several normalisations are in use, {names}: pass mean= and std= in ImageInputs")
    return next(iter(found), None)


def _normalizations(owner: Any) -> set[Normalization | None]:
    """All that are found; None stands for a part of a `ConcatDataset` that has none."""
    found: set[Normalization | None] = set()
    for each in parts_inside(owner, without=_SOMETIMES):
        if type(each).__name__ == "Normalize":
            found.add((_numbers("mean", each.mean), _numbers("std", each.std)))
        for part in datasets_of(each) or ():
            found |= _normalizations(part) or {None}
    return found
