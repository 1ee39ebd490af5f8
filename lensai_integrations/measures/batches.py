"""Where the images are in a batch.

Data loaders hand out arrays, lists of images of any sizes, tuples of images and labels, dicts and objects with fields,
one inside the other. What shapes, dtypes and names settle is taken; where they leave two readings, an error asks. Which
axis of what was found is which, `layouts` says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np

from lensai_integrations.arrays.namespaces import Array, dtype_name, is_array, local, shape_of
from lensai_integrations.errors import InputError
from lensai_integrations.measures.layouts import CHANNELS, Found, kind_of

#: Names of images in a dict, which are believed before others.
USUAL_KEYS: Final = ("image", "images", "x", "input", "inputs", "pixel_values")

#: Where something is in a batch: a key, a place, or several of them, from the outside in.
Key: TypeAlias = int | str | tuple[int | str, ...] | None

#: More arrays of images than these are not taken for inputs of a model: multi-crop, frames.
MOST_INPUTS: Final = 4

_MAX_DEPTH = 8
_LEAST_SIDE = 8  # of a grey image in a list: what is smaller may be any two numbers per row
_IMAGES, PLAUSIBLE, _ODD, _OTHER, _NONE = range(5)  # how much an array looks like images
_LIBRARIES: Final = ("torch", "tensorflow", "jax", "numpy", "keras", "pandas")  # their objects are no batches
_PICTURES: Final = ("L", "RGB", "F", "I;16", "I;16L", "I;16B")


class SeveralError(InputError):
    """Several arrays of a batch may be the images."""


class NoNamesError(InputError):
    """A key names images in a dict, but the batch has no names at all: it is of another make than others."""


@dataclass(frozen=True)
class Located:
    """Images, and where they were found.

    Attributes:
        images: An array of all of them, or a list of arrays of one image each, of any sizes.
        place: Keys and places that lead to them, from the outside in; empty if they are the batch itself.
        note: What a person should know of the choice, and how to settle it; empty if nothing.
        likeness: How much they look like images; the smaller, the more.
    """

    images: Found
    place: tuple[int | str, ...] = ()
    note: str = ""
    likeness: int = _NONE


class SeveralImages(dict[str, Any]):
    """Images of several inputs of a model by their names, seen to be such; rows belong together."""


@dataclass(frozen=True)
class Separated:
    """A batch taken apart into the image inputs of a model.

    Attributes:
        parts: What each is read from, by its name.
        missing: Why some are not there, by name.
        note: What a person should know of how they were told apart; empty if nothing.
    """

    parts: dict[str, Any]
    missing: dict[str, InputError]
    note: str = ""


def find_images(batch: Any, key: Key = None, layout: str = "auto") -> Found:
    """The images in a batch: an array of all of them, or a list of arrays of one image each.

    Looks into tuples, lists, dicts, and objects with fields. A list of arrays of one image each is that many images,
    and so is a list of samples that have one each. Of a tuple the first that looks like images is taken; of a dict the
    one under a usual name, or the only one.

    Args:
        batch: What a loader hands out.
        key: Where the images are: a key or place, or a tuple of them from the outside in. What is found there is
            looked into.
        layout: `"NCHW"`, `"NHWC"` or `"NHW"` if it is known: tells an array of one image from one of several.

    Raises:
        InputError: If `key` is not there, or several arrays may be the images; the message names them.

    Example:
        >>> find_images(({"image": np.zeros((2, 8, 8)), "mask": 1}, [0, 1])).shape
        (2, 8, 8)
        >>> [image.shape for image in find_images(([np.zeros((3, 20, 30)), np.zeros((3, 40, 30))], [{}, {}]))]
        [(3, 20, 30), (3, 40, 30)]
    """
    return locate(batch, key, layout).images


def locate(batch: Any, key: Key = None, layout: str = "auto", *, pictures: bool = False) -> Located:
    """What `find_images` finds, and where.

    Args:
        batch: As there.
        key: As there.
        layout: As there.
        pictures: Leave Pillow's images as they are, instead of making arrays of them.

    Raises:
        InputError: As there.

    Example:
        >>> locate((7, {"img": np.zeros((2, 3, 8, 8), np.float32)})).place
        (1, 'img')
    """
    if is_array(batch) and key is None:
        return Located(batch)
    value, path = _under(batch, key)
    candidates = _search(value, path, layout, 0)
    if len(candidates) > 1:
        names = " and ".join(f"{_named(candidate.place)} {_shapes(candidate.images)}" for candidate in candidates)
        raise SeveralError(
            f"several arrays in the batch may be the images, at {names}: pass one of these places, e.g."
            f" ImageInputs(key={_named(candidates[0].place)}), or if the model is fed all of them"
            f" {_mapping([candidate.place for candidate in candidates])}"
        )
    if not candidates:
        return Located(_first(value, key), path)
    (located,) = candidates
    if pictures:
        return located
    images = located.images
    return replace(
        located, images=[_as_array(image) for image in images] if isinstance(images, list) else _as_array(images)
    )


def images_in(batch: Any, layout: str = "auto") -> list[Located]:
    """All parts of a batch that look most like images, in order: of a tuple not only the first, of a dict every name.

    Example:
        >>> left, right = np.zeros((2, 8, 8, 3)), np.zeros((2, 9, 9, 3))
        >>> [each.place for each in images_in(({"left": left, "right": right, "age": np.zeros(2)}, np.zeros((2, 5))))]
        [(0, 'left'), (0, 'right')]
    """
    return _likeliest([_all_in(batch, (), layout, 0)])


def input_name(name: Any) -> str:
    """A key or place of a batch as the name of an image input, which is part of the name of a group.

    Example:
        >>> input_name("camera/left"), input_name(1)
        ('camera.left', '1')
    """
    return str(name).replace("/", ".")


def names_of(places: Sequence[tuple[int | str, ...]]) -> list[str]:
    """Names of several image inputs: the steps that tell their places apart.

    Example:
        >>> names_of([(0, "left"), (0, "right")]), names_of([("a", "image"), ("b", "image")]), names_of([(0,), (2,)])
        (['left', 'right'], ['a', 'b'], ['0', '2'])
    """
    steps = [list(path) for path in places]
    for end in (0, -1):
        while min(map(len, steps)) > 1 and len({path[end] for path in steps}) == 1:
            for path in steps:
                path.pop(end)
    return [input_name(".".join(map(str, path))) for path in steps]


def separated(batch: Any, keys: Mapping[str, Key], layout: str = "auto") -> Separated:
    """What each of several image inputs is read from.

    Each is what its key leads to, else what is called as it is. Where a batch has no names, or the inputs are only
    called by their places, as many arrays of images as inputs are these in order, and that is said.

    Args:
        batch: As `find_images` takes it.
        keys: Where each is, by its name; None for what is called so.
        layout: Of the images, if it is known.

    Example:
        >>> left, right = np.zeros((2, 8, 8, 3)), np.ones((2, 8, 8, 3))
        >>> found = separated({"right": right, "left": left}, {"left": None, "right": None})
        >>> found.parts["left"] is left, found.missing
        (True, {})
        >>> separated((left, right), {"left": None, "right": None}).note[:52]
        "the images at 0 and 1 are read as 'left' and 'right'"
    """
    parts = {name: value for name, key in keys.items() if (value := _at(batch, key)) is not None}
    open_ = [name for name in keys if name not in parts]
    called = {input_name(key): key for key in _keys_of(batch)}
    by_name = {name: value for name in open_ if (value := _at(batch, called.get(name))) is not None}
    note = ""
    if open_ and not by_name:
        by_name, note = _by_place(batch, open_, layout)
    parts |= by_name
    missing = {name: _lacks(batch, name, list(keys), called) for name in open_ if name not in by_name}
    return Separated({name: parts[name] for name in keys if name in parts}, missing, note)


def is_picture(value: Any) -> bool:
    """Whether this is an image of Pillow's.

    Example:
        >>> is_picture(np.zeros((4, 4)))
        False
    """
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(value, pillow.Image)


def fields_of(value: Any) -> Mapping[Any, Any] | None:
    """What has names in a dict, a named tuple, a dataclass or another object; None if it is none of these.

    Example:
        >>> fields_of({"image": 1}), fields_of(Located(2))["images"], fields_of([1])
        ({'image': 1}, 2, None)
    """
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if is_array(value) or is_picture(value) or isinstance(value, type) or callable(value):
        return None
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    attributes = getattr(value, "__dict__", None)
    if not attributes or type(value).__module__.split(".")[0] in _LIBRARIES:
        return None
    return {name: attribute for name, attribute in attributes.items() if not name.startswith("_")}


def _under(batch: Any, key: Key) -> tuple[Any, tuple[int | str, ...]]:
    """What is at the key, and its place."""
    path: tuple[int | str, ...] = ()
    parts = key if isinstance(key, tuple) else () if key is None else (key,)
    if any(isinstance(step, int) for step in parts) and are_samples(batch):  # places are those within a sample
        return [_under(sample, parts)[0] for sample in batch], parts
    for step in parts:
        batch, steps = _step(batch, step, key)
        path += steps
    return batch, path


def _step(batch: Any, step: int | str, key: Key) -> tuple[Any, tuple[int | str, ...]]:
    named = fields_of(batch)
    if named is not None and step in named:
        return named[step], (step,)
    if isinstance(batch, list | tuple):
        if isinstance(step, int):
            if not -len(batch) <= step < len(batch):
                raise InputError(f"key={key!r} points past the end of a {type(batch).__name__} of {len(batch)}")
            return batch[step], (step,)
        inside = [
            (i, sample) for i, value in enumerate(batch) if (sample := fields_of(value)) is not None and step in sample
        ]
        if len(inside) == len(batch) and len(batch) > 1:
            return [sample[step] for _, sample in inside], (step,)
        if inside:
            return inside[0][1][step], (inside[0][0], step)
        batch = batch[0] if batch else batch
        named = fields_of(batch)
    if named is not None:
        raise InputError(f"key={key!r} was not found: there is only {list(named)}")
    problem = f"key={key!r} was not found: the batch is a {type(batch).__name__}, no dict or tuple"
    raise NoNamesError(problem) if isinstance(step, str) else InputError(problem)


def _at(batch: Any, key: Key) -> Any:
    """What is at a key; None if nothing is."""
    try:
        return None if key is None else _under(batch, key)[0]
    except InputError:
        return None


def _keys_of(batch: Any) -> list[Any]:
    """The names that a batch has, or that dicts in a tuple have."""
    named = fields_of(batch)
    if named is not None:
        return list(named)
    parts = batch if isinstance(batch, list | tuple) else ()
    return [key for value in parts for key in fields_of(value) or ()]


def _by_place(batch: Any, names: Sequence[str], layout: str) -> tuple[dict[str, Any], str]:
    """Parts of a batch without these names: by their places, else in order, which is to be said."""
    if isinstance(batch, list | tuple) and len(batch) == len(names) > 1 and are_images(batch, layout):
        candidates = [Located(image, (index,)) for index, image in enumerate(batch)]  # one image alone of each input
    else:
        candidates = images_in(batch, layout)
    path_names = names_of([candidate.place for candidate in candidates]) if candidates else []
    parts = dict(zip(path_names, (candidate.images for candidate in candidates), strict=True))
    if set(names) <= parts.keys():
        return {name: parts[name] for name in names}, ""
    if len(candidates) == len(names) > 1 and any(all(map(str.isdecimal, group)) for group in (path_names, names)):
        places = " and ".join(_named(candidate.place) for candidate in candidates)
        called = " and ".join(map(repr, names))
        note = (
            f"the images at {places} are read as {called}, in this order: pass a dict with these names to settle it, or"
            f" {_mapping([candidate.place for candidate in candidates], names)}"
        )
        return dict(zip(names, parts.values(), strict=True)), note
    if not candidates and isinstance(batch, list | tuple):  # nothing that looks like images: where they are said to be
        return {name: batch[int(name)] for name in names if name.isdecimal() and int(name) < len(batch)}, ""
    return {name: parts[name] for name in names if name in parts}, ""


def _lacks(batch: Any, name: str, names: Sequence[str], called: Mapping[str, Any]) -> InputError:
    """Why an image input is not there."""
    if name in called:
        return InputError(f"the image input {name!r} of this batch is None")
    contents = f"has {list(called.values())}" if called else f"is a {type(batch).__name__} without names"
    wanted, places = (
        ", ".join(f"{wanted_name!r}: {what}" for wanted_name in names) for what in ("images", "ImageInputs(key=...)")
    )
    return InputError(
        f"the image input {name!r} is not in the batch, which {contents}: pass a dict {{{wanted}}}, or where they are,"
        f" inputs={{{places}}}"
    )


def _all_in(value: Any, path: tuple[int | str, ...], layout: str, depth: int, inside: bool = False) -> list[Located]:
    """Everything that may be images, at any depth."""
    named = fields_of(value)
    if named is not None:
        plain = not isinstance(value, Mapping | tuple) and not is_dataclass(value)
        parts, inside = ({} if inside and plain else named), plain
    elif not isinstance(value, list | tuple) or are_images(value, layout) or _of_samples(value, layout, depth):
        return _search(value, path, layout, depth)
    else:
        parts = dict(enumerate(value))
    if depth > _MAX_DEPTH:
        raise InputError(f"batch is nested more than {_MAX_DEPTH} deep: pass the images themselves")
    return [
        candidate
        for step, inner in parts.items()
        for candidate in _all_in(inner, (*path, step), layout, depth + 1, inside)
    ]


def _search(value: Any, path: tuple[int | str, ...], layout: str, depth: int, inside: bool = False) -> list[Located]:
    """What may be the images: nothing, one thing, or several that are equally likely."""
    if depth > _MAX_DEPTH:
        raise InputError(f"batch is nested more than {_MAX_DEPTH} deep: pass the images themselves")
    if is_array(value) or is_picture(value):
        likeness = _likeness(value)
        return [Located(value, path, likeness=likeness)] if likeness < _NONE else []
    named = fields_of(value)
    if named is not None:
        plain = not isinstance(value, Mapping | tuple) and not is_dataclass(value)
        return [] if inside and plain else _in_dict(named, path, layout, depth, plain)
    return _in_list(value, path, layout, depth) if isinstance(value, list | tuple) else []


def _in_dict(
    named: Mapping[Any, Any], path: tuple[int | str, ...], layout: str, depth: int, inside: bool
) -> list[Located]:
    """The images under a usual name; else what looks most like images."""
    by_name = {name: _search(value, (*path, name), layout, depth + 1, inside) for name, value in named.items()}
    by_name = {name: candidates for name, candidates in by_name.items() if candidates}
    best = min((candidates[0].likeness for candidates in by_name.values()), default=_NONE)
    usual = {
        name: candidates
        for name, candidates in by_name.items()
        if name in USUAL_KEYS and candidates[0].likeness <= max(best, _ODD)
    }
    return _likeliest((usual or by_name).values())


def _in_list(values: Sequence[Any], path: tuple[int | str, ...], layout: str, depth: int) -> list[Located]:
    """A list of images or of samples; else the first that looks like images."""
    if are_images(values, layout):
        return [Located(list(values), path, _of_one(values, path, layout), _IMAGES)]
    if (depth == 0 or path) and isinstance(values, list) and len(values) == 2:  # of a sample they may be a mask
        _refuse_unlike(values)
    if images := _of_samples(values, layout, depth):
        return [replace(candidate, place=(*path, *candidate.place)) for candidate in images]
    groups = []
    for i, value in enumerate(values):
        groups.append(_search(value, (*path, i), layout, depth + 1))
        if i == 0 and groups[0] and groups[0][0].likeness == _IMAGES:
            return _with_views(groups[0], values)
    groups = [group for group in groups if group]
    first = next((group for group in groups if group[0].likeness <= PLAUSIBLE), None)
    best = _likeliest(groups)
    if first is None or first[0].likeness == best[0].likeness:
        return first or [candidate for candidate in best if candidate.place == best[0].place]
    return first + best


def _likeliest(groups: Iterable[list[Located]]) -> list[Located]:
    candidates = [candidate for group in groups for candidate in group]
    best = min((candidate.likeness for candidate in candidates), default=_NONE)
    return [candidate for candidate in candidates if candidate.likeness == best]


def _of_samples(values: Sequence[Any], layout: str, depth: int) -> list[Located]:
    """Of a list of samples their images: the first of a tuple, all of a dict by their places in it; else nothing."""
    columns = [
        Located([image.images for image in column], column[0].place, likeness=_IMAGES)
        for column in _columns(values, layout, depth + 1)
    ]
    if len(columns) != 1:
        return columns if all(are_images(column.images, layout) for column in columns) else []
    images, path = columns[0].images, columns[0].place
    if (path or len(values) > MOST_INPUTS) and are_views(images):
        first, views = (*path, 0), [(*path, i) for i in range(len(images[0]))]
        images = [sample_views[0] for sample_views in images]
    elif not any(isinstance(image, list) for image in images) and are_images(images, layout):
        first, views = path, _places_alike(values[0], path, layout)
    else:
        return []
    return [Located(images, (), only_first(views, first) if len(views) > 1 else "", _IMAGES)]


def _columns(values: Sequence[Any], layout: str, depth: int) -> list[tuple[Located, ...]]:
    """What may be images in a list of samples, by its place in a sample; nothing if that is not the same in all."""
    if not values or not all(isinstance(sample, list | tuple) or fields_of(sample) is not None for sample in values):
        return []
    per_sample = [_search(sample, (), layout, depth) for sample in values]
    if len({tuple(image.place for image in images) for images in per_sample}) > 1:
        return []
    return list(zip(*per_sample, strict=True))


def _places_alike(sample: Any, image_path: tuple[int | str, ...], layout: str) -> list[tuple[int | str, ...]]:
    """Where in the tuple that an image of a sample is in there are images like it, itself among them."""
    beside, image = (_under(sample, path)[0] for path in (image_path[:-1], image_path))
    if not isinstance(beside, list | tuple) or fields_of(beside) is not None:
        return []
    alike = [i for i, neighbour in enumerate(beside) if is_array(neighbour) and are_images([image, neighbour], layout)]
    return [(*image_path[:-1], i) for i in alike]


def are_samples(values: Any) -> bool:
    """Whether a batch is a list of samples: tuples, dicts or objects with an image each, at the same places.

    Example:
        >>> image = np.zeros((3, 20, 30))
        >>> are_samples([(image, 1), (image, 0)]), are_samples(([image, image], [1, 0]))
        (True, False)
    """
    if not isinstance(values, list | tuple) or fields_of(values) is not None:
        return False
    if len(values) > 1 and all(isinstance(sample, tuple) and len(sample) == 1 for sample in values):
        return are_images([sample[0] for sample in values])
    columns = _columns(values, "auto", 1)
    nested = len(values) > MOST_INPUTS or all(column[0].place for column in columns)  # else lists of images
    lists = [[image.images for image in column] for column in columns]
    return bool(lists) and all(are_images(images) or (nested and are_views(images)) for images in lists)


def are_views(values: Sequence[Any]) -> bool:
    """Whether each of several is a list or tuple of images, as many in each and few enough to be inputs of a model.

    Example:
        >>> image = np.zeros((3, 20, 30))
        >>> are_views([(image, image), (image, image)]), are_views([(image, image), (image,)]), are_views([image])
        (True, False, False)
    """
    if not all(isinstance(views, list | tuple) and are_images(views) for views in values):
        return False
    counts = {len(views) for views in values}
    return len(counts) == 1 and 1 < counts.pop() <= MOST_INPUTS


def _with_views(candidates: list[Located], values: Sequence[Any]) -> list[Located]:
    """The first of several, with a note if others are as likely: views, or images that go in and come out."""
    first = candidates[0]
    listed = isinstance(first.images, list) and isinstance(values[0], list | tuple) and are_images(values[0])
    if len(candidates) > 1 or first.note or not (listed or first.images is values[0]):
        return candidates
    views = [i for i, value in enumerate(values) if (_is_list_like if listed else _is_view)(value, first.images)]
    if len(views) < 2:
        return candidates
    note = only_first([(*first.place[:-1], i) for i in views], first.place)
    return [replace(first, note=note)]


def only_first(places: Sequence[tuple[int | str, ...]], first: tuple[int | str, ...]) -> str:
    """That one of several arrays of images is read, and how to settle it.

    Example:
        >>> only_first([(0,), (1,)], (0,))[:77]
        '2 arrays of images are in the batch, at 0, 1: only the first is read; settle '
    """
    return (
        f"{len(places)} arrays of images are in the batch, at {', '.join(map(_named, places))}: only the first is read;"
        f" settle it with ImageInputs(key={_named(first)}), or another of these, or if the model is fed all of them"
        f" {_mapping(places)}"
    )


def _mapping(places: Sequence[tuple[int | str, ...]], names: Sequence[str] = ()) -> str:
    """The argument that reads each as a group of its own."""
    pairs = zip(names or names_of(places), places, strict=True)
    return f"inputs={{{', '.join(f'{name!r}: ImageInputs(key={_named(path)})' for name, path in pairs)}}}"


def _is_view(array: Any, first: Array) -> bool:
    """Whether both are images of as many channels, of one library and kind."""
    if not is_array(array) or type(array) is not type(first) or _likeness(array) != _IMAGES:
        return False
    shapes = shape_of(array), shape_of(first)
    same = any(shapes[0][axis] == shapes[1][axis] and shapes[0][axis] in CHANNELS for axis in (1, 3))
    return same and kind_of(array) == kind_of(first)


def _is_list_like(values: Any, first: Sequence[Any]) -> bool:
    """Whether both are lists of as many images, of as many channels."""
    alike = isinstance(values, list | tuple) and len(values) == len(first) and are_images(values)
    return alike and are_images([first[0], values[0]])


def _likeness(array: Any) -> int:
    """How much an array looks like images, by its axes and dtype."""
    if is_picture(array):
        return PLAUSIBLE
    shape, name = shape_of(array), dtype_name(array)
    if len(shape) < 2:
        return _NONE
    if not (name.startswith(("float", "bfloat")) or name in ("uint8", "uint16")) or len(shape) == 2:
        return _OTHER
    if len(shape) == 4 and (shape[1] in CHANNELS or shape[3] in CHANNELS):
        return _IMAGES
    return PLAUSIBLE if len(shape) == 3 else _ODD


def are_images(values: Sequence[Any], layout: str = "auto") -> bool:
    """Whether each is an array of one image: of three axes, one of them channels, or of two.

    A pair of arrays that may be images and masks, or grey images and what belongs to them, is none.

    Example:
        >>> colour, grey = np.zeros((3, 20, 30)), np.zeros((16, 20, 30))
        >>> are_images([colour, colour]), are_images((grey, grey)), are_images([grey, np.zeros(16)])
        (True, False, False)
    """
    if not values or not all(is_array(value) or is_picture(value) for value in values):
        return False
    if any(map(is_picture, values)):
        return all(map(is_picture, values))
    shapes = [shape_of(value) for value in values]
    axes = {len(shape) for shape in shapes}
    if len(axes) > 1 or len({(type(value).__module__.split(".")[0], _kind(value)) for value in values}) > 1:
        return False
    if axes == {3}:
        return _are_colour(shapes, layout)
    return axes == {2} and layout in ("auto", "NHW") and (layout == "NHW" or _are_grey(values, shapes))


def _are_colour(shapes: list[tuple[int, ...]], layout: str) -> bool:
    counts = {axis: {shape[axis] for shape in shapes} for axis in (0, 2)}
    alike = {axis: len(count) == 1 and count <= set(CHANNELS) for axis, count in counts.items()}
    if layout == "NHW":
        if len(shapes) > 2 and any(alike[axis] and counts[axis] != {1} for axis in (0, 2)):
            raise InputError(
                f"layout='NHW' is of grey images, but the batch is a list of {len(shapes)} arrays like"
                f" {list(shapes[0])}, one image each: pass layout='NCHW' or 'NHWC', or leave it away"
            )
        return False
    if layout != "auto" or any(alike.values()) or len(shapes) > 2:
        return True
    fit = [any(shape[axis] in CHANNELS for axis in (0, 2)) for shape in shapes]
    return all(fit) and len({(shape[1:], shape[:2]) for shape in shapes}) > 1 and shapes[0][1:] != shapes[-1][1:]


def _refuse_unlike(values: Sequence[Any]) -> None:
    """Raise if two arrays are a grey image and one in colour: of images and what belongs to them, there are as many."""
    if not all(is_array(value) and len(value.shape) == 3 for value in values):
        return
    first, second = map(shape_of, values)
    for axis in (0, 2):
        counts = {first[axis], second[axis]}
        if len(counts) == 2 and counts <= set(CHANNELS) and first[1 - axis // 2 :][:2] == second[1 - axis // 2 :][:2]:
            raise InputError(
                f"the images of a list have {min(counts)} and {max(counts)} channels: make them alike, all grey or all"
                " in colour"
            )


def _are_grey(values: Sequence[Any], shapes: list[tuple[int, ...]]) -> bool:
    if min(map(min, shapes)) < _LEAST_SIDE:
        return False
    if all(dtype_name(image) == "uint8" for image in values):
        return True
    rows, columns = ({shape[axis] for shape in shapes} for axis in (0, 1))
    square = len(shapes) > 1 and all(height == width for height, width in shapes)
    return square or (len(shapes) > 2 and not (len(rows) == 1 and len(columns) > 1))


def _of_one(values: Sequence[Any], path: tuple[int | str, ...], layout: str) -> str:
    """A note on a list of one array that could be a batch of grey images as well, if nothing else tells."""
    if len(values) > 1 or layout != "auto" or path or is_picture(values[0]):
        return ""
    shape = shape_of(values[0])
    if len(shape) != 3 or not {shape[0], shape[2]} & {3, 4}:
        return ""
    return (
        f"a list of one array {list(shape)} is read as one image in colour: if it is a batch of grey ones, pass"
        " ImageInputs(layout='NHW')"
    )


def _kind(array: Any) -> str:
    try:
        return kind_of(array)
    except InputError:
        return dtype_name(array)


def _first(value: Any, key: Key) -> Any:
    """Where nothing looks like images: what is first, for the error of whoever reads it."""
    for _ in range(_MAX_DEPTH + 1):
        named = fields_of(value)
        if named is not None:
            usual = [name for name in USUAL_KEYS if name in named]
            if not usual:
                wanted = f"one of {', '.join(USUAL_KEYS)}" if key is None else "images"
                raise InputError(f"expected {wanted}, but no array of images is in {list(named)}: pass key=")
            value = named[usual[0]]
        elif isinstance(value, list | tuple):
            if not value:
                raise InputError(f"there are no images in a {type(value).__name__} of 0")
            value = value[0]
        else:
            return value if is_array(value) else local(value)
    raise InputError(f"batch is nested more than {_MAX_DEPTH} deep: pass the images themselves")


def _as_array(image: Any) -> Array:
    """An array as it is; an image of Pillow's as grey or colour, without alpha."""
    if not is_picture(image):
        return image
    if image.mode not in _PICTURES:
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    return np.asarray(image)


def _named(path: tuple[int | str, ...]) -> str:
    return repr(path[0]) if len(path) == 1 else repr(path)


def _shapes(images: Found) -> str:
    listed = images if isinstance(images, list) else [images]
    shapes = [getattr(image, "size", ()) if is_picture(image) else shape_of(image) for image in listed]
    return f"a list of {len(shapes)} images" if isinstance(images, list) else f"{list(shapes[0])}"
