"""Where the images are in a batch, and which of its axes is which.

Data loaders hand out arrays, tuples of images and labels, and dicts, one inside the other. What shapes and names settle
is taken; where they leave two readings, an error asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lensai_integrations.arrays import Array, dtype_name, is_array, local, namespace, shape_of
from lensai_integrations.errors import InputError

#: Where a dict's images are looked for.
USUAL_KEYS: Final = ("image", "images", "x", "input", "inputs", "pixel_values")
LAYOUTS: Final = ("auto", "NCHW", "NHWC", "NHW")

_CHANNELS = (1, 3, 4)
_MAX_DEPTH = 8


def find_images(batch: Any, key: str | int | None = None) -> Array:
    """The array of images in a batch: the batch itself, or what is inside tuples, lists and dicts, nested or not.

    Raises:
        InputError: If `key` is not there, or no key is given and a dict has none or several of `USUAL_KEYS`.

    Example:
        >>> import numpy as np
        >>> find_images(({"image": np.zeros((2, 8, 8)), "mask": 1}, [0, 1])).shape
        (2, 8, 8)
    """
    for _ in range(_MAX_DEPTH):
        if isinstance(batch, Mapping):
            batch, key = batch[_name(batch, key)], None
        elif isinstance(batch, list | tuple):
            place = key if isinstance(key, int) else 0
            if not -len(batch) <= place < len(batch):
                raise InputError(f"key={key!r} points past the end of a {type(batch).__name__} of {len(batch)}")
            batch, key = batch[place], None if isinstance(key, int) else key
        elif key is not None:
            raise InputError(f"key={key!r} was not found: the batch is a {type(batch).__name__}, no dict or tuple")
        else:
            return batch if is_array(batch) else local(batch)
    raise InputError(f"batch is nested more than {_MAX_DEPTH} deep: pass the images themselves")


def _name(batch: Mapping[Any, Any], key: str | int | None) -> Any:
    candidates: tuple[str | int, ...] = USUAL_KEYS if key is None else (key,)
    found = [name for name in candidates if name in batch]
    if len(found) == 1:
        return found[0]
    wanted = f"key={key!r}" if key is not None else f"one of {', '.join(USUAL_KEYS)}"
    which = f"{' and '.join(map(repr, found))} are" if found else "it is not"
    raise InputError(f"expected {wanted} in a dict batch, but {which} in {list(batch)}: pass key=")


def layout_of(shape: tuple[int, ...]) -> str:
    """`"NCHW"`, `"NHWC"` or `"NHW"`, whichever is the only one that a batch of images of this shape can have.

    Raises:
        InputError: If none fits, or several do.

    Example:
        >>> layout_of((8, 224, 224, 3)), layout_of((8, 1, 28, 28)), layout_of((8, 28, 28))
        ('NHWC', 'NCHW', 'NHW')
    """
    if len(shape) not in (3, 4):
        raise InputError(f"a batch of images is [n, C, H, W], [n, H, W, C] or [n, H, W], but this is {list(shape)}")
    if len(shape) == 3:
        if shape[0] in (3, 4) or shape[2] in (3, 4):
            raise InputError(
                f"layout='auto' cannot tell whether {list(shape)} is one colour image or a batch of grey ones:"
                " pass layout='NHW' for grey ones, or add the batch axis to the one image"
            )
        return "NHW"
    fits = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] in _CHANNELS]
    if len(fits) == 1:
        return fits[0]
    why = "fits both NCHW and NHWC" if fits else "has no 1, 3 or 4 channels in second or last place"
    raise InputError(f"layout='auto' cannot read {list(shape)}, which {why}: pass layout='NCHW' or layout='NHWC'")


def channels_first(array: Array, layout: str) -> Array:
    """The images as `[n, C, H, W]`, without a copy.

    Raises:
        InputError: If the array has other axes than the layout, other channels than 1, 3 or 4, or no pixels.

    Example:
        >>> import numpy as np
        >>> channels_first(np.zeros((8, 28, 20)), "NHW").shape
        (8, 1, 28, 20)
    """
    array = local(array)
    if len(array.shape) != len(layout):
        raise InputError(
            f"layout={layout!r} does not fit a batch of shape {list(shape_of(array))}: pass layout= or key="
        )
    if layout == "NHW":
        array = array[:, None]
    elif layout == "NHWC":
        array = namespace(array).permute_dims(array, (0, 3, 1, 2))
    channels, height, width = shape_of(array)[1:]
    if channels not in _CHANNELS or not (height and width):
        raise InputError(
            f"read as layout={layout!r}, images have {channels} channels and {height} x {width} pixels, but they should"
            " be grey (1), RGB (3) or RGBA (4) and not empty: pass layout= or key="
        )
    return array


def kind_of(array: Array) -> str:
    """`"uint8"`, `"integer"` (other integers and bools) or `"float"`.

    Raises:
        InputError: If the dtype is none of these.

    Example:
        >>> import numpy as np
        >>> kind_of(np.zeros(1, np.uint16)), kind_of(np.zeros(1, np.float16))
        ('integer', 'float')
    """
    name = dtype_name(array)
    if name == "uint8":
        return "uint8"
    if name.startswith(("int", "uint", "bool")):
        return "integer"
    if name.startswith(("float", "bfloat")):
        return "float"
    raise InputError(f"images should be of a dtype of real numbers, not {name}")
