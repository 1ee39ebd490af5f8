"""One delivered image, whatever it is, as pixels that the measures take; and what came with it.

A stream of delivered images mixes sizes, colour modes and depths, and has to have the same measures throughout. So all
become RGB: grey images three equal channels, palettes and CMYK what Pillow makes of them, alpha is dropped, and 16 bits
are scaled to 0-255. What an image was before is kept as its `mode`.

With it come its file's format and size, what functions of the user's say of it, and of its EXIF data what was asked
for: that can identify a camera and so a person, so nothing of it is read unless it is named.

Pillow and torch are used where they are loaded already: an image of theirs cannot come from anywhere else.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from array_api_compat import is_numpy_array

from lensai_integrations.arrays.namespaces import Array, dtype_name, is_array, namespace, shape_of
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import Located, is_picture, locate
from lensai_integrations.measures.inputs import HALVES, ImageInputs, Images, is_opaque
from lensai_integrations.measures.layouts import Found, channels_first
from lensai_integrations.measures.pixels import are_bytes
from lensai_integrations.problems import pass_on

#: 16 bits to 0-255.
_DEEP: Final = 255 / 65535
_OTHER_BAND: Final = (
    "an array has a channel more than {0}, which is not opaque alpha and is not read: pass"
    " inputs=ImageInputs(channels='{0}A') if it is alpha, or '{0}?' if another band is meant to be left out"
)
#: A function of the user's: from what was delivered to a number, a category or None.
Metadata = Callable[[Any], Any]
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: What is known of any image: its colour mode; of a file also its format and size in bytes.
FILE: Final = ("mode", "format", "file_size")
#: EXIF tags by the names they are asked for (Exif 2.32, CIPA DC-008), and the directory that they are in.
_TAGS: Final = {
    "make": (0x010F, None),
    "model": (0x0110, None),
    "orientation": (0x0112, None),
    "software": (0x0131, None),
    "exposure": (0x829A, 0x8769),
    "iso": (0x8827, 0x8769),
}
#: What of EXIF can be asked for.
EXIF: Final = tuple(_TAGS)
_CATEGORIES: Final = ("make", "model", "orientation", "software")
#: What is a number of so many values that it tells no images apart.
NUMBERS: Final = ("file_size", "exposure")


@dataclass(frozen=True)
class Delivered:
    """One or several images as they were delivered.

    Attributes:
        images: Their pixels, RGB.
        mode: Pillow's name of their colour mode: `"RGB"`, `"L"`, `"CMYK"`, `"I;16"`...; `"float"` is added for floats.
        format: The file's format where the image still knows it, e.g. `"JPEG"`; else empty.
        extra: Pillow's image, for what else is in its file; else None.
        remark: What a person should know of how it was read; empty if nothing.

    Example:
        >>> delivered = read(np.zeros((4, 6), np.uint8))
        >>> delivered.mode, delivered.images.channels, delivered.images.width
        ('L', 3, 6)
    """

    images: Images
    mode: str
    format: str = ""
    extra: Any = field(default=None, repr=False)
    remark: str = ""


def read(image: Any, inputs: ImageInputs | None = None) -> Delivered:
    """Read one image, or several of one size.

    Args:
        image: Pillow's; a torch tensor `[C, H, W]` or `[n, C, H, W]`; an array of another library `[H, W]`,
            `[H, W, C]` or `[n, H, W, C]`. C is 1, 2 (grey and alpha), 3 (RGB) or 4 (and alpha), where alpha is opaque;
            else the last channel is another band. uint8, uint16, or floats inside [0, 1].
        inputs: How to read arrays that are none of these; all but `key` and `kind` counts.

    Raises:
        InputError: If it is no image, or its values cannot be told.

    Example:
        >>> read(np.full((4, 6, 3), 65535, np.uint16)).images.gain
        (0.00389..., 0.00389..., 0.00389...)
    """
    if is_picture(image):
        return Delivered(_as_rgb(_picture(image)), image.mode, getattr(image, "format", None) or "", image)
    if not is_array(image):
        raise InputError(
            f"an image is one of Pillow's, a tensor or an array, not {type(image).__name__}: put ProfileImages where"
            " the images are, or pass them alone"
        )
    return _array(image, inputs or ImageInputs())


def _picture(image: Any) -> Images:
    if image.mode.startswith("I;16") or (image.mode == "I" and (image.getextrema() or (0, 0))[1] > 255):
        return ImageInputs(layout="NHW", scale=_DEEP).read(np.asarray(image)[None])
    if image.mode == "F":
        return ImageInputs(layout="NHW").read(np.asarray(image)[None])
    if image.mode not in ("RGB", "L"):
        image = image.convert("L" if image.mode in ("1", "LA", "I") else "RGB")
    if image.mode == "L":
        return ImageInputs(layout="NHW", scale=1.0).read(np.asarray(image)[None])
    channels = b"".join(image.tobytes("raw", channel) for channel in "RGB")  # Pillow takes them apart faster than numpy
    pixels = np.frombuffer(channels, np.uint8).reshape(1, 3, image.height, image.width)
    return Images(pixels, (1.0,) * 3, (0.0,) * 3, "NCHW uint8")


def _array(image: Array, inputs: ImageInputs) -> Delivered:
    shape, name = shape_of(image), dtype_name(image)
    layout = inputs.layout if inputs.layout != "auto" else _layout(image, shape)
    if len(shape) == len(layout) - 1:
        image, shape = image[None, ...], (1, *shape)
    if len(shape) != len(layout):
        raise InputError(
            f"layout={layout!r} does not fit an image of shape {list(shape)}: pass ImageInputs(layout=...)"
        )
    scale: float | str = _DEEP if inputs.scale == "auto" and name == "uint16" else inputs.scale
    whole = inputs.whole if name in HALVES else False  # of no account, and looking for it takes time
    reader = replace(inputs, layout=layout, scale=scale, key=None, kind="any", whole=whole)
    if inputs.channels == "auto" and layout != "NHW" and shape[layout.index("C")] == 2:
        reader = replace(reader, channels="LA" if is_opaque(channels_first(image, layout)) else "L?")
    reader = reader.resolve(image)
    letters = reader.channels
    remark = "" if "?" not in letters or "?" in inputs.channels else _OTHER_BAND.format(letters[:-1])
    suffix = "" if name == "uint8" else ";16" if name == "uint16" else " float"
    return Delivered(_as_rgb(reader.read(image)), letters + suffix, remark=remark)


def images_at_once(image: Any, inputs: ImageInputs | None = None) -> int:
    """How many images are delivered together: 1, or as many as an array of several has.

    Example:
        >>> images_at_once(np.zeros((4, 6, 3), np.uint8)), images_at_once(np.zeros((5, 4, 6, 3), np.uint8))
        (1, 5)
    """
    axes = 4 if inputs is None or inputs.layout == "auto" else len(inputs.layout)
    return int(image.shape[0]) if getattr(image, "ndim", 0) == axes else 1


def _layout(image: Array, shape: tuple[int, ...]) -> str:
    """Where the channels are: torch puts them first, everybody else last."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(image, torch.Tensor):
        return "NHW" if len(shape) == 2 else "NCHW"
    return "NHW" if len(shape) == 2 else "NHWC"


def _as_rgb(images: Images) -> Images:
    """Three equal channels of a grey image: a view."""
    if images.channels == 3:
        return images
    xp = namespace(images.pixels)
    n, _, height, width = shape_of(images.pixels)
    broadcast = np.broadcast_to if is_numpy_array(images.pixels) else xp.broadcast_to
    return Images(
        broadcast(images.pixels, (n, 3, height, width)), images.gain * 3, images.offset * 3, f"{images.note}, grey"
    )


def pixels_of(batch: Any, inputs: ImageInputs | None = None) -> Found:
    """The pixels of delivered images as they are measured: RGB, on the 0-255 scale, channels first.

    Args:
        batch: Images that `read` takes, an array of several of one size or a list of any, or a structure with such.
        inputs: As there; its `key` is where they are.

    Returns:
        An array `[n, 3, H, W]`, or a list of `[3, H, W]`; bytes where these are exact, else float32.

    Raises:
        InputError: If there are none, or they cannot be read.

    Example:
        >>> [each.shape for each in pixels_of([np.zeros((4, 6), np.uint8), np.zeros((5, 6, 3), np.uint8)])]
        [(3, 4, 6), (3, 5, 6)]
    """
    how = inputs or ImageInputs()
    images = delivered_images(batch, how).images
    if not isinstance(images, list):
        return _pixels(read(images, how).images)
    return [pixels for image in images for pixels in _pixels(read(image, how).images)]


def delivered_images(batch: Any, inputs: ImageInputs) -> Located:
    """Where delivered images are in a batch, Pillow's as they are; a list of images may be of any sizes and colours.

    Raises:
        InputError: If there are none, several that may be the images, or some in a list with what is none.

    Example:
        >>> len(delivered_images([np.zeros((4, 6), np.uint8), np.zeros((5, 6, 3), np.uint8)], ImageInputs()).images)
        2
    """
    if inputs.key is None and isinstance(batch, list) and batch:
        axes = [3 if is_picture(x) else len(shape_of(x)) if is_array(x) else 0 for x in batch]
        if all(n in (2, 3) for n in axes):
            return Located(batch)
        images = [n == 3 for n in axes]
        if sum(images) > 1 or (any(images) and any(x is None for x in batch)):
            others = sorted({type(x).__name__ for x, image in zip(batch, images, strict=True) if not image})
            raise InputError(
                f"of a list of {len(batch)}, {sum(images)} are images, the others {', '.join(others)}: leave them out"
            )
    return locate(batch, inputs.key, inputs.layout, pictures=True)


def _pixels(images: Images) -> Array:
    """Bytes, or float32, `[n, 3, H, W]`."""
    pixels = images.pixels
    if are_bytes(pixels, images.gain, images.offset):
        return pixels
    xp = namespace(pixels)
    scaled = [xp.astype(pixels[:, i], xp.float32) * images.gain[i] + images.offset[i] for i in range(3)]
    return xp.stack(scaled, axis=1)


def checked_exif(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if they are some of `EXIF`.

    Raises:
        InputError: If they are not.

    Example:
        >>> checked_exif(["iso"])
        ('iso',)
    """
    if isinstance(names, str) or not set(names) <= set(EXIF):
        raise InputError(f"exif={names!r} should be a list of some of {', '.join(EXIF)}")
    return tuple(names)


def checked_metadata(metadata: Mapping[str, Metadata] | None) -> dict[str, Metadata]:
    """Functions by the name of what they give, if they are some.

    Raises:
        InputError: If they are not.

    Example:
        >>> list(checked_metadata({"hour": len})), checked_metadata(None)
        (['hour'], {})
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InputError(f"metadata={metadata!r} should be a dict of functions by name: {{'site': function}}")
    for key, function in (metadata or {}).items():
        if not isinstance(key, str) or not NAME.fullmatch(key) or key in (*FILE, *EXIF):
            raise InputError(f"metadata names should be short words other than {(*FILE, *EXIF)}, not {key!r}")
        if not callable(function):
            raise InputError(f"metadata[{key!r}]={function!r} should be a function of a sample")
    return dict(metadata or {})


def answered(function: Metadata, sample: Any) -> Any:
    """What a function of the user's gives of a sample; the exception where it fails.

    Example:
        >>> answered(len, "four"), answered(len, 4)
        (4, TypeError("object of type 'int' has no len()"))
    """
    try:
        return function(sample)
    except Exception as error:  # noqa: BLE001  whatever it raises
        pass_on(error)
        return error


def file_of(delivered: Delivered) -> dict[str, Any]:
    """Mode, format and size of an image's file, as far as they are known.

    Example:
        >>> file_of(read(np.zeros((4, 4), np.uint8)))
        {'mode': 'L'}
    """
    facts: dict[str, Any] = {"mode": delivered.mode}
    if delivered.format:
        facts["format"] = delivered.format
    path = getattr(delivered.extra, "filename", None)
    if isinstance(path, str | os.PathLike) and os.path.isfile(path):  # noqa: PTH113
        facts["file_size"] = os.path.getsize(path)  # noqa: PTH202
    return facts


def exif_of(delivered: Delivered, names: Sequence[str]) -> dict[str, Any]:
    """What an image's EXIF data says of these; exposure in seconds. Numbers as numbers, the rest as categories.

    Example:
        >>> exif_of(read(np.zeros((4, 4), np.uint8)), ["make"])
        {}
    """
    if not names or delivered.extra is None:
        return {}
    exif = delivered.extra.getexif()
    values = {}
    for name in names:
        tag, directory = _TAGS[name]
        value = exif.get(tag) if directory is None else exif.get_ifd(directory).get(tag, exif.get(tag))
        value = value[0] if isinstance(value, tuple) and value else value
        if value is not None:
            values[name] = str(value).strip("\0 ") if name in _CATEGORIES else _number(float(value))
    return values


def _number(value: float) -> float | int:
    """A whole number as one, so that it can be a segment's."""
    return int(value) if value.is_integer() else value
