"""Where the labels are in a batch.

A batch is an image and a label, or has an index, a path or weights between them, names its parts or nests them. Which
part the labels are is decided once, by evidence in the first batch, in this order: the place that the user gave; what
the loss was given as its target; the usual name; the only part with one entry per image that is no index and no path.
Where several remain nothing is taken, and it is said what to pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise, zip_longest
from typing import Any, Final, TypeAlias

import numpy as np

from lensai_integrations.arrays.namespaces import dtype_name, is_array, namespace, shape_of, strings, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import are_samples, are_views, fields_of

#: From the whole batch to one of its parts.
Path: TypeAlias = tuple[int | str, ...]
#: The same as people write it: a key or a position alone, where it is no more than that.
Place: TypeAlias = int | str | Path

#: Usual names of labels.
LABEL_KEYS: Final = ("label", "labels", "target", "targets", "y", "class")
#: What a sample has of each of its objects; then its labels are theirs as well.
_OBJECT_KEYS: Final = frozenset(("boxes", "bboxes", "bbox", "masks", "keypoints", "annotations", "objects"))
_ID_KEYS: Final = ("id", "ids", "idx", "index", "indices", "image_id", "path", "paths", "file", "file_name", "filename")
#: Rows from which on their values tell an index, and the value from which on one that never comes twice is no class.
_SEVERAL, _LARGE = 8, 1000
_MAX_DEPTH: Final = 8
#: Parts of a batch that a message names.
_MOST_NAMED: Final = 6
_FILE: Final = re.compile(r".*([/\\].*|\.\w{2,5})")


def path_of(place: Place) -> Path:
    """The path of a place.

    Example:
        >>> path_of("label"), path_of((1, "label"))
        (('label',), (1, 'label'))
    """
    return place if isinstance(place, tuple) else (place,)


def place_of(path: Path) -> Place:
    """How a path is written.

    Example:
        >>> place_of((1,)), place_of((1, "label"))
        (1, (1, 'label'))
    """
    return path[0] if len(path) == 1 else path


def inside(part: Any) -> dict[int | str, Any] | None:
    """What a part is made of, by key, field or position; None for an array, a text, a number; for lists of them, too.

    Example:
        >>> inside({"image": 1}), inside((2, [3])), inside(["cat", "dog"]), inside(0)
        ({'image': 1}, {0: 2, 1: [3]}, None, None)
    """
    if isinstance(part, Mapping):
        return dict(part)
    if isinstance(part, list | tuple):
        if part and all(isinstance(value, str | int | float) for value in part):
            return None
        return dict(zip(getattr(part, "_fields", range(len(part))), part, strict=True))
    if part is None or is_array(part) or isinstance(part, type | str | bytes | int | float):
        return None
    if is_dataclass(part):
        return {member.name: getattr(part, member.name) for member in fields(part)}
    public = {key: value for key, value in getattr(part, "__dict__", {}).items() if not key.startswith("_")}
    return public if any(map(is_array, public.values())) else None


def part_at(batch: Any, place: Place) -> Any:
    """The part of a batch at a place.

    Raises:
        InputError: If the batch has no such place.

    Example:
        >>> part_at(({"photo": 0}, {"label": [1, 2]}), (1, "label"))
        [1, 2]
    """
    part = batch
    for step in path_of(place):
        try:
            part = _step(part, step)
        except (KeyError, IndexError) as error:
            raise InputError(
                f"target={place!r} is not in the batch, which is {held(batch)}: pass a key or a place"
            ) from error
    return part


def _step(part: Any, step: int | str) -> Any:
    if type(part) is dict or (isinstance(step, int) and type(part) in (list, tuple)):  # what most batches are
        return part[step]
    parts = inside(part) or {}
    if isinstance(step, int) and not isinstance(part, Mapping):  # of named fields, too, and from the end
        return list(parts.values())[step]
    return parts[step]


def held(batch: Any) -> str:
    """What a batch is, in words for messages.

    Example:
        >>> import numpy as np
        >>> held({"image": 0, "label": 1}), held((np.zeros((2, 3)), None))
        ("a dict of ['image', 'label']", 'a tuple of 0 (float64 [2, 3]) and 1 (NoneType)')
    """
    if isinstance(batch, Mapping):
        return f"a dict of {list(batch)}"
    parts = inside(batch)
    what = f"a {type(batch).__name__}"
    return what if parts is None else f"{what} of {listed({(step,): part for step, part in parts.items()})}"


def listed(parts: Mapping[Path, Any]) -> str:
    """Parts of a batch with their dtypes and shapes, in words for messages.

    Example:
        >>> listed({(0,): None, (1, "ids"): ["a", "b"]})
        "0 (NoneType) and (1, 'ids') (list of 2 str)"
    """
    texts = [f"{place_of(path)!r} ({_looks(part)})" for path, part in parts.items()]
    if len(texts) > _MOST_NAMED:
        texts[_MOST_NAMED - 1 :] = [f"{len(texts) - _MOST_NAMED + 1} more"]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def _looks(values: Any) -> str:
    if is_array(values):
        return f"{dtype_name(values)} {list(shape_of(values))}"
    kinds = sorted({type(value).__name__ for value in values}) if isinstance(values, list | tuple) else []
    return f"{type(values).__name__} of {len(values)} {' and '.join(kinds)}" if kinds else type(values).__name__


def by_part(batch: Any) -> Any:
    """A list of samples as the dict or tuple of lists that it would be if it were collated; any other batch as it is.

    One number, or one row of numbers, of each sample is an array or list with an entry per image. What samples lack is
    None. Boxes and masks stay what belongs to one image each, and so does all that stands beside them.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((8, 8, 3))
        >>> batch = by_part([{"image": image, "label": 3, "name": "a"}, {"image": image, "label": 1, "name": "b"}])
        >>> batch["label"], batch["name"], len(batch["image"])
        ([3, 1], ['a', 'b'], 2)
        >>> by_part([(image, np.array(3)), (image, np.array(1))])[1]
        array([3, 1])
    """
    return _columns(batch) if are_samples(batch) else batch


def _columns(samples: Sequence[Any]) -> Any:
    """Samples of one kind, turned about; samples of several kinds as they are."""
    first = samples[0]
    if isinstance(first, list | tuple) and all(type(sample) is type(first) for sample in samples):
        columns = [_column(values) for values in zip_longest(*samples)]
        return first._make(columns) if hasattr(first, "_make") else tuple(columns)
    named = [fields_of(sample) for sample in samples]
    keys = dict.fromkeys(key for sample_fields in named for key in sample_fields or ())
    of_objects = any(str(key).lower() in _OBJECT_KEYS for key in keys)
    return {key: _column([(sample_fields or {}).get(key) for sample_fields in named], of_objects) for key in keys}


def _column(values: Sequence[Any], of_objects: bool = False) -> Any:
    """One part of all samples."""
    kinds = {type(value) for value in values}
    if len(kinds) > 1:
        return list(values)
    if are_views(values):
        return _columns([tuple(value) for value in values])
    nested = [value if isinstance(value, tuple) else fields_of(value) for value in values]
    if all(sample is not None for sample in nested):
        keys = {
            str(key).lower() for sample_fields in nested if isinstance(sample_fields, Mapping) for key in sample_fields
        }
        return list(values) if keys & _OBJECT_KEYS else _columns(values)
    axes = 0 if of_objects else 1
    if all(is_array(value) and len(value.shape) <= axes for value in values) and len(set(map(shape_of, values))) == 1:
        return namespace(values[0]).stack(list(values))
    rows = axes and all(isinstance(value, list) and _is_row(value) for value in values)
    return np.asarray(values) if rows and len(set(map(len, values))) == 1 else list(values)


def _is_row(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(number, int | float) for number in value)


@dataclass
class Parts:
    """The parts of a batch beside its images, by path.

    Attributes:
        images: Where the images are; empty if that is not known, or they are the batch.
        candidates: Parts with one entry, or one row of numbers, per image.
        views: Further arrays like that of the images.
        unread: What else has a row or an entry per image: masks, boxes.
        positions: Paths of named fields by their positions, another way to say them.
    """

    images: Path = ()
    candidates: dict[Path, Any] = field(default_factory=dict)
    views: dict[Path, Any] = field(default_factory=dict)
    unread: dict[Path, Any] = field(default_factory=dict)
    positions: dict[Path, Path] = field(default_factory=dict)

    @property
    def layout(self) -> frozenset[Path]:
        """The paths of all parts with a row per image."""
        return frozenset((self.images, *self.candidates, *self.views, *self.unread))

    def unit(self, path: Path) -> Path:
        """The part beside the images that a path is in: a label, or the several labels of a dict."""
        return path[: _shared(path, self.images) + 1]


def parts_beside(batch: Any, images: Any, images_at: Path = ()) -> Parts:
    """The parts of a batch that have a row or an entry per image.

    Args:
        batch: Any batch.
        images: The part of it with the images; None if that is not known: then the first that looks like some tells how
            many images there are.
        images_at: Where the images are.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((2, 8, 8, 3)), np.arange(2)
        >>> parts = parts_beside((images, {"label": labels, "box": np.zeros((2, 4, 4))}), images, (0,))
        >>> list(parts.candidates), list(parts.unread)
        ([(1, 'label')], [(1, 'box')])
    """
    parts = Parts(images_at if images is not None else ())
    like = images
    if images is None:
        every = dict(_leaves(batch, -1, {})).values()
        like = next((leaf for leaf in every if _axes(leaf) > 2), next(iter(every), None))
    n = _rows(like)
    leaves = dict(_leaves(batch, n, parts.positions))
    of_images = {id(images), *(map(id, images) if isinstance(images, list | tuple) else ())}
    for path, leaf in leaves.items():
        if id(leaf) in of_images or leaf is like or (images is not None and path == images_at) or _rows(leaf) != n:
            continue
        if _axes(leaf) in (1, 2):
            parts.candidates[path] = leaf
        elif is_array(leaf) and _axes(leaf) == _axes(like) and dtype_name(leaf) == dtype_name(like):
            parts.views[path] = leaf
        else:
            parts.unread[path] = leaf
    return parts


def _leaves(
    part: Any, n: int, positions: dict[Path, Path], path: Path = (), places: Path = ()
) -> Iterator[tuple[Path, Any]]:
    """All arrays, lists of plain values, and lists with a dict or an array of its own for each of n images."""
    parts = None if len(path) == _MAX_DEPTH else inside(part)
    if parts is None or (path and len(parts) == n and _is_per_image(part, n)):
        positions[places] = path
        yield path, part
        return
    for position, (step, inner) in enumerate(parts.items()):
        position_or_key = step if isinstance(part, Mapping) else position
        yield from _leaves(inner, n, positions, (*path, step), (*places, position_or_key))


def _is_per_image(values: Any, n: int) -> bool:
    """Whether it is a list of what belongs to one image each: dicts of boxes, arrays or lists of other lengths than a
    column has, or something that some images lack."""
    if not isinstance(values, list | tuple) or hasattr(values, "_fields"):
        return False
    if any(value is None for value in values):
        return len(values) > 1 and any(
            not is_array(value) or len(value.shape) == 0 for value in values if value is not None
        )
    return all(isinstance(value, Mapping) for value in values) or (
        all(is_array(value) or isinstance(value, list) for value in values)
        and {_rows(value) for value in values} != {n}
    )


def _rows(values: Any) -> int:
    if is_array(values):
        return shape_of(values)[0] if len(values.shape) else -1
    return len(values) if isinstance(values, list | tuple) else -1


def _axes(values: Any) -> int:
    """Number of axes; of a list of plain values 1, of anything else none."""
    if is_array(values):
        return len(values.shape)
    return int(isinstance(values, list | tuple) and bool(values) and inside(values) is None)


def _shared(path: Path, images: Path) -> int:
    """How many steps two paths have in common."""
    return next((i for i, (a, b) in enumerate(zip(path, images, strict=False)) if a != b), min(len(path), len(images)))


def by_evidence(parts: Parts) -> tuple[tuple[Path, ...], str]:
    """Where the labels of a batch are, as its names, dtypes and values show, and what is to be said of it, if anything.

    Looks at values, and so waits for an accelerator.

    Returns:
        The path of the labels; several for the several labels of a dict; none if they cannot be told.

    Example:
        >>> import numpy as np
        >>> ids, classes = np.arange(1000, 1056, 7), np.arange(8) % 3
        >>> by_evidence(Parts((0,), {(1,): ids, (2,): classes}))
        (((2,),), '')
        >>> by_evidence(Parts((0,), {(1,): classes, (2,): classes}))[1][:72]
        'several parts of the batch may be the labels, 1 (int64 [8]) and 2 (int64'
    """
    named = [path for path in _nearest((*parts.candidates, *parts.unread), parts.images) if _usual(path)]
    if named:
        likely = {path: parts.candidates[path] for path in named if path in parts.candidates}
        units = {_usual(path) for path in likely}
    else:
        near = {path: parts.candidates[path] for path in _nearest(parts.candidates, parts.images)}
        likely = {path: leaf for path, leaf in near.items() if not _is_index(path, leaf)}
        if near and not likely:
            return (), _LIKE_AN_INDEX.format(listed(near), _advice(near))
        # What a dict beside a label holds is said of the image; without one, its labels are in there.
        likely = {path: leaf for path, leaf in likely.items() if path == parts.unit(path)} or likely
        units = {parts.unit(path) for path in likely}
    several_of_one = len(units) == 1 and all(isinstance(path[-1], str) for path in likely)
    if len(likely) == 1 or (several_of_one and len(likely) > 1):
        return tuple(likely), ""
    if likely:
        return (), _SEVERAL_ARE_LEFT.format(listed(likely), _advice(likely))
    return (), _NOT_READ.format(listed(parts.unread)) if parts.unread else ""


_LIKE_AN_INDEX: Final = "{} may be an index or the paths of the images rather than labels, so nothing is taken: pass {}"
_SEVERAL_ARE_LEFT: Final = (
    "several parts of the batch may be the labels, {}, and no loss was seen that shows which, so nothing is taken:"
    " pass {}"
)
_NOT_READ: Final = (
    "the batch has no labels of a kind that is read, which is one entry or one row of numbers per image, but {}; masks,"
    " boxes and the like are not read: target=None says that there is nothing to read"
)


def _advice(parts: Iterable[Path]) -> str:
    places = [f"target={place_of(path)!r}" for path in parts][:_MOST_NAMED]
    return f"{' or '.join(places)}, or target=None to leave labels out"


def _usual(path: Path) -> Path:
    """The path up to a usual name of labels; empty if there is none."""
    places = [index for index, step in enumerate(path) if isinstance(step, str) and step.lower() in LABEL_KEYS]
    return path[: places[0] + 1] if places else ()


def _nearest(paths: Iterable[Path], images: Path) -> list[Path]:
    """Of a dict of batches, the paths in the one with the images; else all."""
    paths = list(paths)
    for depth, step in enumerate(images[:-1]):
        inner = [path for path in paths if path[: depth + 1] == images[: depth + 1]]
        if isinstance(step, str) and inner:
            paths = inner
    return paths


def _is_index(path: Path, leaf: Any) -> bool:
    """Whether it tells the images apart: by its name, as file names, or as numbers that rise or are large."""
    if isinstance(path[-1], str) and path[-1].lower() in _ID_KEYS:
        return True
    texts = strings(leaf)
    if texts is not None:
        return all(map(_FILE.fullmatch, texts)) or len(set(texts)) == len(texts) >= _SEVERAL
    values = _whole_numbers(leaf)
    if len(values) < _SEVERAL or len(set(values)) < len(values):
        return False
    return max(values) >= _LARGE or all(a < b for a, b in pairwise(values))


def _whole_numbers(leaf: Any) -> list[int]:
    """The values of one whole number per image; none if it holds others."""
    if is_array(leaf):
        flat = len(leaf.shape) == 1 or shape_of(leaf)[1] == 1
        whole = flat and namespace(leaf).isdtype(leaf.dtype, "integral")
        return to_host(leaf).reshape(-1).tolist() if whole else []
    return list(leaf) if all(isinstance(value, int) and not isinstance(value, bool) for value in leaf) else []


@dataclass
class Chosen:
    """Where the labels were by what a loss was given; shared by the kinds of passes of a fit.

    Attributes:
        paths: Where.
        layout: The parts of the batches there: where others have the same, the labels are in the same place.
        heads: Which of several outputs each is the target of.
    """

    paths: tuple[Path, ...] = ()
    layout: frozenset[Path] = frozenset()
    heads: dict[Path, str] = field(default_factory=dict)


class LabelFinder:
    """Finds the labels in batches; where they are is decided once.

    Args:
        target: Place of the labels, `"auto"` to look for them, or None to leave them.
        say: Told what could not be decided, and what to pass.
        chosen: What the loss settled in other passes, and where it is noted if it settles it here.
        known: Where the labels of a baseline were: that counts where the batch alone leaves it open.

    Attributes:
        paths: Where the labels are; several for the several labels of a dict; None if it is not decided yet.

    Example:
        >>> import numpy as np
        >>> finder = LabelFinder("auto", print)
        >>> images, index, labels = np.zeros((8, 4, 4, 3)), np.arange(1000, 1056, 7), np.arange(8) % 3
        >>> finder.decide(parts_beside((images, index, labels), images, (0,)))
        >>> finder.paths
        ((2,),)
    """

    def __init__(
        self,
        target: Place | None,
        say: Callable[[str], None],
        chosen: Chosen | None = None,
        known: Iterable[Place] = (),
    ) -> None:
        self._looks = target == "auto"
        self.paths: tuple[Path, ...] | None = None if self._looks else () if target is None else (path_of(target),)
        self._say, self._chosen = say, chosen or Chosen()
        self._hints: dict[Path, str] = {}
        self._known = tuple(map(path_of, known))

    @property
    def heads(self) -> Mapping[Path, str]:
        """Of labels that losses showed, which of several outputs each belongs to."""
        return self._chosen.heads

    def hint(self, place: Place, head: str = "") -> None:
        """Tell what the loss of an output was given as its target. It counts if it is not decided otherwise yet."""
        if self._looks and not self.paths and path_of(place) not in self._hints:
            self._hints[path_of(place)] = head
            self.paths = None

    def decide(self, parts: Parts) -> None:
        """Decide it by a batch, if that shows anything; if not, the next one is asked. Waits for an accelerator."""
        if not parts.candidates and not parts.unread:
            return
        self.paths, problem = self._by_loss(parts), ""
        if not self.paths:
            self.paths, problem = by_evidence(parts)
        if not self.paths and self._known and parts.candidates.keys() >= set(self._known):
            self.paths, problem = self._known, ""
        if problem:
            self._say(problem)

    def _by_loss(self, parts: Parts) -> tuple[Path, ...]:
        hints = {parts.positions.get(path, path): head for path, head in self._hints.items()}
        paths = tuple(path for path in hints if path in parts.candidates)
        if paths:
            self._chosen.paths, self._chosen.layout = paths, parts.layout
            self._chosen.heads = {path: hints[path] for path in paths if hints[path]}
        return self._chosen.paths if self._chosen.layout == parts.layout else ()
