"""Which axis of an array of images is which, and lists of images of any sizes.

What a shape settles is taken; where it leaves two readings, an error asks. Images of several sizes are measured one
size at a time, and their rows put back in the order they came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias

from lensai_integrations.arrays.namespaces import Array, dtype_name, local, namespace, shape_of
from lensai_integrations.errors import InputError

LAYOUTS: Final = ("auto", "NCHW", "NHWC", "NHW")
#: Numbers of channels that are taken for channels unless others were named.
CHANNELS: Final = (1, 3, 4)
#: Images with rows `[n, ...]`, or a list of arrays of one image each.
Found: TypeAlias = Any


def layout_of(images: Found, counts: Sequence[int] = CHANNELS) -> str:
    """`"NCHW"`, `"NHWC"` or `"NHW"`, whichever is the only one that a batch of images can have.

    Args:
        images: An array of images or a list of arrays of one image each; or the shape of an array.
        counts: How many channels there may be.

    Raises:
        InputError: If none fits, or several do.

    Example:
        >>> import numpy as np
        >>> layout_of((8, 224, 224, 3)), layout_of((8, 1, 28, 28)), layout_of((8, 28, 28))
        ('NHWC', 'NCHW', 'NHW')
        >>> layout_of([np.zeros((3, 20, 3)), np.zeros((3, 20, 30))])
        'NCHW'
    """
    if isinstance(images, list):
        shapes = [(1, *shape) for shape in shapes_of(images)]
    else:
        shapes = [images if isinstance(images, tuple) else shape_of(images)]
    shape = shapes[0]
    if len(shape) not in (3, 4):
        raise InputError(
            f"a batch of images is [n, C, H, W], [n, H, W, C] or [n, H, W], but this is {list(shape)}"
            + (": of videos, pass the frames, e.g. batch.flatten(0, 1)" if len(shape) == 5 else "")
        )
    if len(shape) == 3 and not isinstance(images, list) and (shape[0] in (3, 4) or shape[2] in (3, 4)):
        raise InputError(
            f"layout='auto' cannot tell whether {list(shape)} is one colour image or a batch of grey ones:"
            " pass layout='NHW' for grey ones, or add the batch axis to the one image"
        )
    layouts = [name for name in fits(shape, counts) if all(name in fits(image_shape, counts) for image_shape in shapes)]
    if len(layouts) == 1:
        return layouts[0]
    shown = list(shape[1:] if isinstance(images, list) else shape)
    if layouts:
        raise InputError(f"layout='auto' cannot read {shown}, which fits both NCHW and NHWC: pass layout=")
    raise InputError(_unlike(shapes, counts) if list(fits(shape, counts)) else _no_channels(shown, counts))


def fits(shape: tuple[int, ...], counts: Sequence[int] = CHANNELS) -> Iterator[str]:
    """The layouts that a batch of images of this shape can have, if it has so many channels.

    Example:
        >>> list(fits((8, 3, 32, 3))), list(fits((8, 28, 28)))
        (['NCHW', 'NHWC'], ['NHW'])
    """
    if len(shape) == 3:
        yield "NHW"
    elif len(shape) == 4:
        yield from (name for name, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] in counts)


def _unlike(shapes: Sequence[tuple[int, ...]], counts: Sequence[int]) -> str:
    first = shapes[0]
    second = next(shape for shape in shapes if not set(fits(shape, counts)) & set(fits(first, counts)))
    return (
        f"the images of a list have other numbers of channels, e.g. {list(first[1:])} and {list(second[1:])}: make them"
        " alike, all grey or all in colour"
    )


def _no_channels(shape: list[int], counts: Sequence[int]) -> str:
    *most, last = map(str, counts)
    which = f"{', '.join(most)} or {last}" if most else last
    return (
        f"layout='auto' cannot read {shape}, which has no {which} channels in second or last place: pass layout='NCHW'"
        " or 'NHWC' and channels=, a letter for each channel: 'RGB???' reads the first three of six as colours and"
        " leaves the others, 'L?' the first of two as grey"
    )


def channels_first(array: Array, layout: str) -> Array:
    """The images as `[n, C, H, W]`, without a copy.

    Raises:
        InputError: If the array has other axes than the layout, or no pixels.

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
    if not (channels and height and width):
        raise InputError(
            f"read as layout={layout!r}, images have {channels} channels and {height} x {width} pixels, but they should"
            " not be empty: pass layout= or key="
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


def shapes_of(images: Found) -> list[tuple[int, ...]]:
    """The shape of each array: one, or that of every image of a list.

    Example:
        >>> import numpy as np
        >>> shapes_of(np.zeros((2, 8, 8))), shapes_of([np.zeros((8, 8))])
        ([(2, 8, 8)], [(8, 8)])
    """
    return [shape_of(image) for image in images] if isinstance(images, list) else [shape_of(images)]


def by_shape(images: Found) -> list[tuple[list[int], Array]]:
    """Arrays `[n, ...]` of images of one shape each, with the places of their images in the list.

    Example:
        >>> import numpy as np
        >>> [(places, each.shape) for places, each in by_shape([np.zeros((4, 6)), np.zeros((5, 6)), np.ones((4, 6))])]
        [([0, 2], (2, 4, 6)), ([1], (1, 5, 6))]
    """
    if not isinstance(images, list):
        return [(list(range(max(shape_of(images)[0], 0))), images)]
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(shape_of(image), []).append(index)
    return [(places, namespace(images[0]).stack([images[index] for index in places])) for places in groups.values()]


def in_order(parts: Sequence[tuple[list[int], Array]]) -> Array:
    """Rows of `by_shape`'s groups, put back in the order of the list, without waiting for an accelerator.

    Example:
        >>> import numpy as np
        >>> in_order([([0, 2], np.array([[0], [2]])), ([1], np.array([[1]]))]).tolist()
        [[0], [1], [2]]
    """
    if len(parts) == 1:
        return parts[0][1]
    rows = {index: group[i : i + 1] for places, group in parts for i, index in enumerate(places)}
    return namespace(parts[0][1]).concat([rows[index] for index in sorted(rows)], axis=0)
