"""How a batch of images is read: where the images are in it, which axis is colour, and what the numbers mean.

The same picture may arrive as bytes, as floats in [0, 1] or normalised, channels first or last, alone, in a list, in a
tuple or in a dict; the measures are to come out the same. What can be told from the batch is told; what cannot is asked
for by an error, because a wrong guess would make a baseline that looks right. The decision is made once, by `resolve`,
since on an accelerator it has to wait for the values. What is read afterwards is held against it without waiting:
shapes and dtypes by an error, values by `measure_images`, which makes the row of an image that is out of range NaN.

What a model's preprocessing does to pixels, Keras's own or any function of one pixel, comes to numbers that undo it
(`preprocessing_of`).
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, dtype_name, is_symbolic, namespace, shape_of, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import numbers_per_channel, plain
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.layouts import CHANNELS, LAYOUTS, Found, by_shape, channels_first, kind_of, layout_of
from lensai_integrations.problems import pass_on

if TYPE_CHECKING:
    from lensai_integrations.measures.batches import Key
else:
    Key = Any  # Hydra's configurations look at a dataclass's annotations, and know no unions with tuples

KINDS: Final = ("any", "uint8", "integer", "float")

_NOT_APPLIED: Final = (
    "If this normalisation was not applied to these images, pass ImageInputs without it (of several image inputs each"
    " its own: inputs={'left': ImageInputs(key='left', mean=..., std=...), 'right': ImageInputs(key='right')})"
)

#: How many bits of a number of half precision count.
HALVES: Final = {"bfloat16": 8, "float16": 11}

_ROUNDING = 0.01  # bfloat16 moves a normalised value by up to 0.008 standard deviations, 0.002 of the range
_FULL_SCALE_FROM = 32.0  # farther than anything normalised, and few batches on the 0-255 scale do not reach it
_OUTSIDE = 25.5  # farther outside 0-255 than any resizing overshoots
_BY_NUMBER: Final = {1: "L", 2: "L?", 3: "RGB", 4: "RGB?"}
_LOOKED_AT = 4  # images of the first batch that are looked at closely

#: A pixel tells whether it is a whole number if its dtype is this exact there, and is one if it is so close, in levels.
_CLEAR, _CLOSE = 0.125, 0.02
#: So many of so many pixels at least are.
_NEARLY_ALL, _ENOUGH = 0.99, 64


@dataclass(frozen=True)
class Images:
    """A batch that has been read, on the device it was on: a view, nothing is converted yet.

    Attributes:
        pixels: `[n, C, H, W]` of the batch's own dtype and strides, C = 3 (RGB) or 1 (grey).
        gain: Factor of each channel, C numbers.
        offset: Added to each channel, C numbers: `pixels * gain + offset` is on the 0-255 scale.
        note: How the batch was read, e.g. `"NCHW float32 x 255"`.
        whole: Whether that is to be rounded to whole numbers, which half precision has moved away from them.

    Example:
        >>> images = ImageInputs().read(np.zeros((2, 8, 6, 3), np.uint8))
        >>> images.n, images.channels, images.height, images.width, images.note
        (2, 3, 8, 6, 'NHWC uint8')
    """

    pixels: Array
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    note: str
    whole: bool = False

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

    @property
    def expected(self) -> tuple[float, float]:
        """The numbers that 0 and 255 are in the batch: of the channel where they are farthest apart.

        Example:
            >>> ImageInputs(mean=(0.5,), std=(0.5,), scale=255).read(np.zeros((2, 8, 6))).expected
            (-1.0, 1.0)
        """
        ends = [
            (level - offset) / gain for gain, offset in zip(self.gain, self.offset, strict=True) for level in (0, 255)
        ]
        return min(ends), max(ends)


@dataclass(frozen=True)
class ImageInputs:
    """How to read a batch of images; plain numbers and strings, so that it goes through pickle and JSON.

    A pixel on the 0-255 scale is `(x * std + mean) * scale`.

    Args:
        layout: `"NCHW"`, `"NHWC"`, `"NHW"` (grey, no channel axis) or `"auto"`: the axis of 1, 3 or 4 is the channels.
        scale: Factor to 0-255, or `"auto"`, decided by the first batch: 1 for uint8; 255 for floats inside [0, 1] once
            `mean` and `std` are undone; 1 for floats inside [0, 255] of which one is above 32, without `mean` and `std`
            (Keras's loaders give these). Ends are taken with a tolerance of 0.01. Everything else is an error.
        mean: What a `Normalize` subtracted, a number per channel, in the order that the batch has them.
        std: What it divided by.
        key: Where the images are in a batch: a key of a dict, a place in a tuple, or a tuple of them from the outside
            in. None: what looks like images, of a tuple the first, of a dict the usual name.
        kind: `"uint8"`, `"integer"` or `"float"` if batches of another dtype are to be refused; set by `resolve`.
        channels: A letter for each channel: R, G and B, or L for grey; A for alpha and ? for another band, which are
            not read. `"BGR"`, `"RGBA"`, `"?BGR?"`. `"auto"`: grey or RGB; a fourth is alpha if it is opaque
            everywhere in the first batch, else another band, and that is said.
        whole: Whether pixels are whole numbers on the 0-255 scale, to which those of half precision are then rounded;
            None: the first batch decides. Set by `resolve`.
        preprocess: In place of `mean`, `std` and `scale`: what Keras's applications do, `"tf"` (x / 127.5 - 1),
            `"caffe"` (BGR, mean subtracted) or `"torch"`; a module of `keras.applications` or a function from RGB
            images 0-255 `[n, H, W, 3]` to what the model is fed, which is tried out on a few pixels.

    Raises:
        InputError: If an argument is not one of these.

    Example:
        >>> ImageInputs(mean=(0.5,), std=(0.5,)).read({"image": np.full((2, 5, 5), -1.0)}).note
        'NHW float64 (x std + mean) x 255'
        >>> ImageInputs().read(np.full((2, 5, 5), 200.0)).note
        'NHW float64 in 0-255'
        >>> ImageInputs(preprocess="caffe").read(np.zeros((2, 5, 5, 3))).note
        'NHWC float64 (x std + mean), BGR'
    """

    layout: str = "auto"
    scale: float | int | str = "auto"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    key: Key = None
    kind: str = "any"
    channels: str = "auto"
    whole: bool | None = None
    preprocess: InitVar[Any] = None

    def __post_init__(self, preprocess: Any) -> None:
        if preprocess is not None:
            self._take(preprocess)
        key: Any = plain(self.key)
        object.__setattr__(self, "key", tuple(key) if isinstance(key, list) else key)  # lists of JSON and YAML
        for name, value, choices in (("layout", self.layout, LAYOUTS), ("kind", self.kind, KINDS)):
            if value not in choices:
                raise InputError(f"{name}={value!r} is unknown; pass one of {', '.join(map(repr, choices))}")
        is_number = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if self.scale != "auto" and not (is_number and 0 < float(self.scale) < math.inf):
            raise InputError(f"scale={self.scale!r} should be 'auto' or the positive factor that takes pixels to 0-255")
        if (self.mean is None) != (self.std is None):
            raise InputError(f"mean={self.mean!r} and std={self.std!r} go together: pass both or neither")
        if self.mean is not None and self.std is not None:
            object.__setattr__(self, "mean", numbers_per_channel("mean", self.mean))
            object.__setattr__(self, "std", numbers_per_channel("std", self.std))
            if len(self.mean) != len(self.std) or min(self.std) <= 0:
                raise InputError(f"mean={self.mean} and std={self.std} should be as many numbers, each std above 0")
        _check_letters(self.channels)

    def _take(self, preprocess: Any) -> None:
        """Fill in what a preprocessing comes to."""
        if (self.scale, self.mean, self.std) != ("auto", None, None):
            raise InputError("preprocess= stands in place of mean=, std= and scale=: pass it, or these")
        mean, std, scale, channels = preprocessing_of(preprocess)
        if channels != "auto" and self.channels not in ("auto", channels):
            raise InputError(f"channels={self.channels!r} contradicts preprocess=, which makes {channels!r} of RGB")
        values = {"mean": mean, "std": std, "scale": scale}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if channels != "auto":
            object.__setattr__(self, "channels", channels)

    def find(self, batch: Any) -> Found:
        """The images in a batch, an array or a list of arrays of one image each; see `batches.find_images`.

        Example:
            >>> ImageInputs(key="photo").find({"photo": np.zeros((2, 8, 8)), "label": [0, 1]}).shape
            (2, 8, 8)
        """
        return find_images(batch, self.key, self.layout)

    def resolve(self, batch: Any) -> ImageInputs:
        """The same with everything that is still open decided from this batch, so that `read` never waits.

        Floats and fourth channels on an accelerator are waited for, here and only here. They have to have values: not
        inside a function that is being traced.

        Raises:
            InputError: If the batch does not settle it; the message says what to pass.

        Example:
            >>> inputs = ImageInputs().resolve((np.ones((2, 3, 8, 6), np.float32), np.zeros(2)))
            >>> inputs.layout, inputs.scale, inputs.kind, inputs.channels
            ('NCHW', 255.0, 'float', 'RGB')
        """
        images = self.find(batch)
        counts = CHANNELS if self.channels == "auto" else (len(self.channels), *_other_counts(self.channels))
        layout = layout_of(images, counts) if self.layout == "auto" else self.layout
        groups = [(array, channels_first(array, layout)) for _, array in by_shape(images)]
        kind, arrays = kind_of(groups[0][0]), [pixels for _, pixels in groups]
        resolved = replace(self, layout=layout, kind=kind, channels=self._letters(arrays))
        dtype = dtype_name(groups[0][0])
        scale = resolved._scale(arrays, dtype) if isinstance(self.scale, str) else float(self.scale)
        resolved = replace(resolved, scale=scale)
        if self.kind == "any" and kind == "uint8":
            resolved._check_bytes(len(resolved.channels))
        if self.mean is not None and isinstance(self.scale, str) and kind == "float":
            resolved._check_floats(arrays, dtype)
        if self.whole is None and (dtype in HALVES or isinstance(self.scale, str)):
            resolved = replace(resolved, whole=resolved._is_whole(arrays[0], dtype))
        return resolved

    def read(self, batch: Any) -> Images:
        """The images of a batch. Nothing is copied, and nothing waited for if these inputs come from `resolve`.

        Args:
            batch: An array of any library, `[n, C, H, W]`, `[n, H, W, C]` or `[n, H, W]`, a list of arrays of one image
                each, all of one size, or a tuple, list, dict or object with one of these in it.

        Raises:
            InputError: If there are no images in it, or they are not as these inputs say.
        """
        if self.layout == "auto" or isinstance(self.scale, str):
            return self.resolve(batch).read(batch)
        groups = by_shape(self.find(batch))
        if len(groups) > 1:
            raise InputError(f"images of {len(groups)} sizes are read one size at a time: see layouts.by_shape")
        array = groups[0][1]
        if self.kind not in ("any", kind_of(array)):
            raise InputError(
                f"the first batch was {self.kind}, this one is {dtype_name(array)} and may be on another scale:"
                " make the batches alike, or pass ImageInputs(scale=..., kind='any')"
            )
        pixels = channels_first(array, self.layout)
        letters = self._letters([pixels]) if self.channels == "auto" else self.channels
        if len(letters) != int(pixels.shape[1]):
            raise InputError(_other_channels(int(pixels.shape[1]), letters, self.layout))
        mean, std = self._per_channel(letters)
        gain, offset = (
            tuple(deviation * float(self.scale) for deviation in std),
            tuple(deviation * float(self.scale) for deviation in mean),
        )
        note, whole = self._note(array, letters), dtype_name(array) in HALVES and self.whole is True
        images = Images(_colours(pixels, letters), gain, offset, note, whole)
        return replace(images, note=note + _rounding(images, dtype_name(array)))

    def _note(self, array: Array, letters: str) -> str:
        note = f"{self.layout} {dtype_name(array)}"
        note += " (x std + mean)" if self.mean else ""
        note += f" x {self.scale:g}" if self.scale != 1 else ""
        note += " in 0-255" if self.scale == 1 and not self.mean and kind_of(array) == "float" else ""
        note += f", {letters}" if "".join(letter for letter in letters if letter in "RGB") not in ("RGB", "") else ""
        note += ", alpha dropped" if "A" in letters else ""
        others = letters.count("?")
        return note + (f", {others} other band{'s' if others > 1 else ''} not read" if others else "")

    def _letters(self, arrays: Sequence[Array]) -> str:
        """A letter for each channel. Waits for a fourth channel whose meaning is open."""
        counts = {int(array.shape[1]) for array in arrays}
        if len(counts) > 1:
            raise InputError(f"the images of a list have {' and '.join(map(str, sorted(counts)))} channels: make them"
                             " alike, all grey or all in colour")  # fmt: skip
        (count,) = counts
        if self.channels != "auto" and (len(self.channels) == count or count not in _other_counts(self.channels)):
            if len(self.channels) != count:
                raise InputError(_other_channels(count, self.channels, self.layout))
            return self.channels
        colours = "".join(letter for letter in self.channels if letter in "RGB") if self.channels != "auto" else ""
        letters = colours + "?" * (count - 3) if colours else _BY_NUMBER.get(count, "")
        if letters.endswith("?") and self.mean is None and all(map(is_opaque, arrays)):
            return letters[:-1] + "A"
        if letters == "L?" or not letters:  # two bands, of radar maybe, are no image in grey unless one is alpha
            raise InputError(_other_channels(count, "", self.layout))
        return letters

    def _per_channel(self, letters: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std of the channels that are read, red first."""
        places = _places(letters)
        if self.mean is None or self.std is None:
            return (0.0,) * len(places), (1.0,) * len(places)
        if len(self.mean) == 1:
            return self.mean * len(places), self.std * len(places)
        if len(self.mean) == len(places):
            order = [sorted(places).index(index) for index in places]
        elif len(self.mean) == len(letters) or (len(self.mean) == 4 and len(places) == 3):
            order = places
        else:
            colours = len(places)
            expected = "1 number for grey images" if colours == 1 else f"1 or {colours} numbers, one per channel"
            raise InputError(f"mean={self.mean} and std={self.std} should be {expected}. {_NOT_APPLIED}")
        return tuple(self.mean[index] for index in order), tuple(self.std[index] for index in order)

    def _check_bytes(self, count: int) -> None:
        """Refuse a normalisation of bytes, which are not normalised."""
        if self.mean is not None and self.std is not None:
            ends = [(level * std + mean) * float(self.scale) for mean, std in zip(self.mean, self.std, strict=True)
                    for level in (0, 255)]  # fmt: skip
            if min(ends) < -_OUTSIDE or max(ends) > 255 + _OUTSIDE:
                raise InputError(
                    "the batch is uint8, bytes as they were read, and mean= and std= or preprocess= are of floats:"
                    " pass batches as the model is fed them, or leave these away"
                )

    def _check_floats(self, arrays: Sequence[Array], dtype: str) -> None:
        """Refuse a normalisation that floats look as good without: it may be one of other images."""
        low, high = replace(self, mean=None, std=None)._range(arrays)
        if low >= 0 and high <= 1 and self._is_whole(arrays[0], dtype) is False:
            raise InputError(
                f"float pixels are inside [0, 1] as they are, from {low:.4g} to {high:.4g}, and no whole numbers once"
                f" mean={self.mean} and std={self.std} are undone. {_NOT_APPLIED}; if it was, pass"
                f" mean=, std= and scale={self.scale:g}"
            )

    def _scale(self, arrays: Sequence[Array], dtype: str) -> float:
        kind = "float" if dtype.startswith(("float", "bfloat")) else dtype
        if kind == "uint8" and self.mean is None:
            return 1.0
        if kind != "float":
            raise InputError(
                f"scale='auto' cannot tell what {dtype} pixels mean with mean={self.mean}: pass scale=, the factor that"
                " takes them to 0-255 (255 / 65535 for full 16 bit), and no mean and std for bytes as they were read"
            )
        low, high = self._range(arrays)
        if self.mean is not None and max(self.mean) > 1 and low >= -_ROUNDING and high <= 255 + _ROUNDING:
            return 1.0  # they are in grey levels
        if low >= -_ROUNDING and high <= 1 + _ROUNDING:
            return 255.0
        if self.mean is None and low >= -_ROUNDING and _FULL_SCALE_FROM < high <= 255 + _ROUNDING:
            return 1.0
        expected = "once mean and std are undone" if self.mean else "or inside [0, 255] and reaching beyond 32"
        raise InputError(
            f"scale='auto' expects float pixels inside [0, 1] {expected}, but these reach from {low:.4g} to {high:.4g}:"
            f" {self._advice(arrays, low, high)}"
        )

    def _advice(self, arrays: Sequence[Array], low: float, high: float) -> str:
        """What to pass for floats that reach from low to high."""
        if self.mean is None and _are_standardized(arrays):
            return (
                "every image has a mean of 0 and a standard deviation of 1 of its own, which cannot be undone: profile"
                " the images before that, e.g. with transforms.ProfileImages, and pass inputs=None"
            )
        raw = "scale=1 if they are 0-255 already, or " if low >= 0 else ""
        rest = f"pass {raw}the mean= and std= they were normalised with, or scale=, the factor that takes them to 0-255"
        if self.mean is not None:
            return rest
        if -1 - _ROUNDING <= low < 0 and high <= 1 + _ROUNDING:
            return (
                "if they were made by x / 127.5 - 1, pass preprocess='tf', or what is the same, mean=(0.5,) and"
                f" std=(0.5,); else {rest}"
            )
        if -124.5 < low < -4 and 32 < high < 152:
            return f"if Keras's preprocess_input made them (BGR, mean subtracted), pass preprocess='caffe'; else {rest}"
        deep = " (255 / 65535 for full 16 bit, 255 / 4095 for 12 bit)" if 256 < high <= 65535 and low >= 0 else ""
        return rest + deep

    def _range(self, arrays: Sequence[Array]) -> tuple[float, float]:
        mean, std = self._per_channel(self.channels)
        ranges: list[NDArray[np.float64]] = []
        for array in arrays:
            pixels = _colours(array, self.channels)
            xp = namespace(pixels)
            ends = [to_host(end(pixels, axis=(2, 3))).astype(np.float64) * std + mean for end in (xp.min, xp.max)]
            ranges.append(np.stack(ends)[:, np.isfinite(ends).all(axis=(0, 2))])
        low, high = np.concatenate(ranges, axis=1)
        if not low.size:
            pixels = [to_host(_colours(array, self.channels)) for array in arrays]
            bad, values = sum((~np.isfinite(array)).sum() for array in pixels), sum(array.size for array in pixels)
            raise InputError(
                "scale='auto' needs a first batch with an image of finite pixels, but there is none:"
                f" {bad:,} of {values:,} values are not finite. Pass scale= if such images are meant to be left out"
            )
        return float(low.min()), float(high.max())

    def _is_whole(self, array: Array, dtype: str) -> bool | None:
        """Whether pixels lie at whole numbers on the 0-255 scale. Where their dtype cannot tell, as of few pixels or
        bright ones of bfloat16, they are taken to: most images come from files of bytes."""
        if not dtype.startswith(("float", "bfloat")):
            return True
        if is_symbolic(array):
            return None
        mean, std = self._per_channel(self.channels)
        values = to_host(_colours(array[:_LOOKED_AT], self.channels)).astype(np.float64)
        gain, offset = (np.reshape(numbers, (-1, 1, 1)) * float(self.scale) for numbers in (std, mean))
        with np.errstate(divide="ignore", invalid="ignore"):
            levels = values * gain + offset
            bits = HALVES.get(dtype, 24)
            coarse = gain * np.exp2(np.floor(np.log2(np.abs(values))) - bits)
            clear = (coarse < _CLEAR) & (levels > 0.5) & (levels < 254.5)
            off = np.abs(levels - np.rint(levels))[clear] - coarse[clear]
        return bool((off < _CLOSE).mean() >= _NEARLY_ALL) if off.size >= _ENOUGH else True


def is_opaque(pixels: Array) -> bool:
    """Whether the last channel of `[n, C, H, W]` is as high as can be in every pixel: 255, or of floats 1. Waits.

    Example:
        >>> is_opaque(np.full((2, 4, 8, 8), 255, np.uint8)), is_opaque(np.zeros((2, 4, 8, 8)))
        (True, False)
    """
    if 0 in shape_of(pixels):
        return False
    xp, top = namespace(pixels), (255.0,) if kind_of(pixels) == "uint8" else (1.0, 255.0)
    ends = {float(to_host(end(pixels[:, -1:]))) for end in (xp.min, xp.max)}
    return len(ends) == 1 and ends <= set(top)


def _colours(pixels: Array, letters: str) -> Array:
    """Red, green and blue, or grey, of `[n, C, H, W]`: a view, unless the order is another one."""
    places = _places(letters)
    if places == list(range(places[0], places[0] + len(places))):
        return pixels if len(places) == len(letters) else pixels[:, places[0] : places[-1] + 1]
    if isinstance(pixels, np.ndarray) and places == list(range(places[0], places[0] - len(places), -1)):
        return pixels[:, places[-1] : places[0] + 1][:, ::-1]
    return namespace(pixels).concat([pixels[:, channel : channel + 1] for channel in places], axis=1)


def _places(letters: str) -> list[int]:
    return [letters.index(letter) for letter in ("L" if "L" in letters else "RGB")]


def _other_counts(letters: str) -> tuple[int, ...]:
    """How many channels there may be besides: alpha comes and goes."""
    colours = letters.rstrip("A?")
    return (3, 4) if len(letters) in (3, 4) and sorted(colours) == sorted("RGB") else ()


def _check_letters(letters: Any) -> None:
    is_text = isinstance(letters, str)
    counts = Counter(letters) if is_text else Counter()
    colours = {letter: counts[letter] for letter in "RGBL" if counts[letter]}
    whole = colours in ({"R": 1, "G": 1, "B": 1}, {"L": 1})
    if letters != "auto" and not (is_text and whole and not set(letters) - set("RGBLA?") and counts["A"] <= 1):
        raise InputError(
            f"channels={letters!r} should be 'auto' or a letter for each channel: R, G and B once each, or L for grey;"
            " A for alpha and ? for others, which are not read; e.g. 'BGR', 'RGBA', 'RGB?'"
        )


def _other_channels(count: int, letters: str, layout: str) -> str:
    if (count, len(letters)) in ((1, 3), (3, 1)):
        return (
            f"images are {'grey' if count == 1 else 'in colour'} ({count} channel{'s' * (count > 1)}), but"
            f" channels={letters!r}, as of the first batch or the baseline: make all alike, or pass"
            f" channels={'L' if count == 1 else 'RGB'!r}"
        )
    asked = f"channels={letters!r} names {len(letters)}" if letters else "grey has 1, RGB 3 and RGBA 4"
    return (
        f"read as layout={layout!r}, images have {count} channels, but {asked}: pass layout=, or channels=, a letter"
        " for each channel: 'RGB???' reads the first three of six as colours, 'L?' the first of two as grey, and leaves"
        " the others"
    )


def _rounding(images: Images, dtype: str) -> str:
    """How far half precision moves pixels, in words; empty for others."""
    if dtype not in HALVES:
        return ""
    largest = max(map(abs, images.expected)) or 1.0
    coarse = max(images.gain) * 2.0 ** (math.floor(math.log2(largest * (1 - 1e-9))) - HALVES[dtype])
    off = f"{dtype} is up to {coarse:.2g} levels off"
    return f", rounded to whole levels ({off})" if images.whole else f", {off}"


def _are_standardized(arrays: Sequence[Array]) -> bool:
    """Whether each of several images has mean 0 and standard deviation 1 of its own."""
    images = [to_host(image).astype(np.float64) for array in arrays for image in array[:_LOOKED_AT]]
    means = [np.abs([image.mean(), image.std() - 1]).max() for image in images]
    apart = [np.abs([image.mean(axis=(1, 2)), image.std(axis=(1, 2)) - 1]).max() for image in images]
    return len(images) > 1 and (max(means) < 0.02 or max(apart) < 0.02)


#: `mean`, `std`, `scale` and `channels` of `ImageInputs`.
Undone: TypeAlias = tuple[tuple[float, ...] | None, tuple[float, ...] | None, float, str]

#: The modes of `keras.applications.imagenet_utils.preprocess_input`.
MODES: Final[dict[str, Undone]] = {
    "tf": ((127.5,), (127.5,), 1.0, "auto"),
    "caffe": ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), 1.0, "BGR"),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 255.0, "auto"),
}

#: Black, red, green, blue, white, and one to see whether what lies between is on a line.
_PROBE: Final = np.array(
    [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [50, 150, 200]], np.float64
)
_AMONG_OTHERS: Final = np.concatenate([_PROBE, np.full((3, 3), 200.0)])  # which a function of one pixel does not see
_EXACT = 1e-5  # of the range: what float32 leaves


def preprocessing_of(preprocess: Any) -> Undone:
    """What takes the pixels back to 0-255: `(x * std + mean) * scale`, and the order of the channels.

    Args:
        preprocess: The name of one of `MODES`; a module with a function `preprocess_input`, as those of
            `keras.applications`; or a function from RGB images 0-255 `[n, H, W, 3]`.

    Raises:
        InputError: If it is none of these, or the function does more than scale and shift each channel.

    Example:
        >>> preprocessing_of("tf")
        ((127.5,), (127.5,), 1.0, 'auto')
        >>> preprocessing_of(lambda images: images / 255)
        (None, None, 255.0, 'auto')
    """
    if isinstance(preprocess, str):
        if preprocess not in MODES:
            raise InputError(
                f"preprocess={preprocess!r} is unknown; pass one of {', '.join(map(repr, MODES))}, a module of"
                " keras.applications, or the function that is applied"
            )
        return MODES[preprocess]
    function = getattr(preprocess, "preprocess_input", preprocess)
    if not callable(function):
        raise InputError(
            f"preprocess={preprocess!r} should be one of {', '.join(map(repr, MODES))}, a module of keras.applications,"
            " or a function"
        )
    made, beside_others = (_tried(function, probe)[: len(_PROBE)] for probe in (_PROBE, _AMONG_OTHERS))
    return _undone(made if np.array_equal(made, beside_others) else made * math.nan)


def _tried(function: Callable[..., Any], probe: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a function makes of a few pixels."""
    try:
        named = "data_format" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        named = False
    try:
        answer = function(probe.reshape(1, 1, -1, 3).copy(), **({"data_format": "channels_last"} if named else {}))
        return to_host(answer).astype(np.float64).reshape(probe.shape)
    except Exception as error:
        pass_on(error)
        raise InputError(
            f"preprocess={function!r} should make an image [n, H, W, 3] of one, but of a few pixels it made: {error!r}."
            " Pass mean=, std= and scale= instead"
        ) from error


def _undone(made: NDArray[np.float64]) -> Undone:
    black, white = made[0], made[4]
    sources = np.abs(made[1:4] - black)
    order = sources.argmax(axis=0)  # which of red, green and blue each channel is made of
    gain = (white - black) / 255
    between = _PROBE[5][order] * gain + black
    near = _EXACT * np.abs(white - black).max()
    clean = np.sort(sources, axis=0)[:2].max() <= near and np.abs(between - made[5]).max() <= near
    if not (np.isfinite(made).all() and clean and sorted(order) == [0, 1, 2] and gain.min() > 0):
        raise InputError(
            "preprocess= should scale and shift each channel by itself, but this function does something else: profile"
            " the images before it, or pass mean=, std= and scale= if that comes close"
        )
    channels = "".join("RGB"[source] for source in order)
    for mode in MODES.values():
        if _is(mode, gain, black, channels):
            return mode
    std, mean = (_plain(values) for values in (1 / gain, -black / gain))
    channels = "auto" if channels == "RGB" else channels
    if not np.any(black) and len(std) == 1:
        return None, None, std[0], channels
    n = max(len(mean), len(std))
    mean, std = (values * (n // len(values)) for values in (mean, std))
    return mean, std, 1.0, channels


def _is(mode: Undone, gain: NDArray[np.float64], black: NDArray[np.float64], channels: str) -> bool:
    mean, std, scale, order = mode
    assert mean is not None
    assert std is not None
    same = np.allclose(1 / gain, np.array(std) * scale, rtol=_EXACT)
    return bool(same and np.allclose(-black / gain, np.array(mean) * scale, rtol=_EXACT)) and order in (
        "auto",
        channels,
    )


def _plain(values: NDArray[np.float64]) -> tuple[float, ...]:
    """As few numbers, of as few digits, as they are."""
    numbers = tuple(float(f"{value:.7g}") for value in values)
    return numbers[:1] if len(set(numbers)) == 1 else numbers
