"""Segments while batches come in: the rows that were measured are split by value, and nothing is measured again.

Rows wait until there are some hundred of them and are split together: one update per segment and not one per segment
and batch. What lies on an accelerator stays there until then, rows and the values that they are split by, and comes to
the host at once: that is when segments wait for a device, once in 512 rows. Their sketches live in host memory.

To stay small a segment keeps KLL banks and categories (`Sketch.in_segments`), of all groups: no row sample, no kernel
mean and no covariance of rows as vectors, and no pixel counts, which `compare` does not test, which cost more than all
other measures of an image together, and which JAX and TensorFlow count for a whole batch. Groups of many streams
keep a quarter of k.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import (
    Array,
    is_array,
    is_immutable,
    joined,
    local,
    namespace,
    shape_of,
    strings,
    to_host,
)
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.conventions import plain_name
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABEL, MOST_SEGMENTS, OTHER_CODE, OTHER_SEGMENT, is_labels, segment_name
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.builder import BySource, feed, make, rows_seen, source_of
from lensai_integrations.profiling.measuring import Measured, owned
from lensai_integrations.profiling.settings import ProfilerSettings
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.state import Sketch

#: A value per row.
Values: TypeAlias = Any

#: What to do where labels make no segments.
_INSTEAD: Final = "hand over one class per image, or make the profile with segment_by=None or the name of metadata"
#: Rows that wait to be split.
_WAITING: Final = 512
#: Groups of more streams than this are kept with a quarter of k: 1.2 MB for a segment of 2048 streams at k=200.
NARROW: Final = 64


class Segmenter:
    """Keeps a few sketches for each value that rows come with.

    The first values to come get a segment; when there are as many as allowed, the rows of later ones go to
    `OTHER_SEGMENT`, and so do rows without a value. The values of `settings.like`, if it is segmented by the same, have
    theirs beforehand, so that a window has the segments of its baseline.

    Args:
        by: What the values are: `"label"`, or the name of some metadata.
        most: Named segments, at the most; more if `settings.like` has more.
        settings: Of the profiler.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(segment_by="site")
        >>> profiler.update(labels=[0, 0, 1], segments=["north", "south", "north"])
        >>> {name: segment.n for name, segment in profiler.profile().segments.items()}
        {'north': 2, 'south': 1}
    """

    def __init__(self, by: str, most: int, settings: ProfilerSettings) -> None:
        like = settings.like
        names = list(like.segments) if like is not None and like.info.get("segment_by") == by else []
        names = [name for name in names if name != OTHER_SEGMENT][:MOST_SEGMENTS]
        self._by, self._settings = by, settings
        self._most = max(most, len(names))
        self._codes = {OTHER_SEGMENT: OTHER_CODE} | {name: code for code, name in enumerate(names, start=1)}
        self._sketches: dict[tuple[int, str, str], dict[str, Sketch]] = {}  # by segment, group and source
        self._waiting: list[tuple[Values, dict[str, BySource]]] = []
        self._rows = 0

    def values(self, segments: Any) -> Values:
        """The values of a batch: a list, an array, or None if it has none.

        Args:
            segments: As for `Profiler.update`.

        Raises:
            InputError: If they are no classes, or given although it is by label.
        """
        if self._by == LABEL and segments is not None:
            raise InputError("segments= is for segments by metadata: with segment_by='label' the labels count")
        if segments is None or not is_array(segments):
            return None if segments is None else _texts(segments)
        texts = strings(segments)
        return texts if texts is not None else _classes(local(segments), "segments")

    def take(self, measured: Mapping[str, Measured], groups: Mapping[str, Group], values: Values) -> None:
        """Take what was measured of a batch. Nothing is waited for until some hundred rows have come together.

        Args:
            measured: By group. What is in flight may still be.
            groups: The profiler's, by name.
            values: Of the same rows.

        Raises:
            InputError: If there is another number of values than of rows.
        """
        parts = {name: _kept(groups[name], batch) for name, batch in measured.items() if name in groups}
        sizes = [len(rows) for group in parts.values() for rows in group.values()]
        if not sizes:
            return
        n = max(sizes)
        fits = values is None or len(values) == n
        self._waiting.append((_copied(values) if fits else None, parts))
        self._rows += n
        if self._rows >= _WAITING:
            self.split()
        if not fits:
            raise InputError(f"there are {len(values)} values of {self._by!r} for {n} rows: pass one per row")

    def split(self) -> None:
        """Hand the rows that wait to the sketches of their segments. Waits for an accelerator that they are on."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        codes = [self._coded(values) for values in _landed([values for values, _ in waiting])]
        batches_of: dict[tuple[str, str], list[int]] = {}
        for number, (_, parts) in enumerate(waiting):
            for name, group in parts.items():
                for source in group:
                    batches_of.setdefault((name, source), []).append(number)
        for (name, source), numbers in batches_of.items():
            chunks = [
                _counting(codes[number], rows)
                for number, rows in zip(numbers, _landed([waiting[n][1][name][source] for n in numbers]), strict=True)
            ]
            rows = _together([rows_of_batch for _, rows_of_batch in chunks])
            self._hand_over(name, source, np.concatenate([codes_of_batch for codes_of_batch, _ in chunks]), rows)

    def _hand_over(self, name: str, source: str, codes: NDArray[np.intp], rows: NDArray[Any]) -> None:
        if not len(codes):
            return
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        for code, places in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            key = (code, name, source)
            if key not in self._sketches:
                self._sketches[key] = self._made(code, name, source, 1 if rows.ndim == 1 else rows.shape[1])
            feed(self._sketches[key], {source: rows[places]})

    def _made(self, code: int, name: str, source: str, width: int) -> dict[str, Sketch]:
        segment = next(value for value, number in self._codes.items() if number == code)
        seed = self._settings.seed_of(f"{plain_name(name)} of segment {segment}")
        return make({source: width}, k=segment_k(self._settings.k, width), seed=seed, segment=True)

    def _coded(self, values: Values) -> NDArray[np.intp] | None:
        """The number of the segment of each row; None where there is no value."""
        if values is None:
            return None
        plain = values if isinstance(values, list) else values.tolist()
        if isinstance(values, Marked):
            plain = [None if odd else value for value, odd in zip(plain, values.odd.tolist(), strict=True)]
        return np.array([self._code(value) for value in plain], np.intp)

    def _code(self, value: Any) -> int:
        name = segment_name(value)
        if name is not None and name not in self._codes and len(self._codes) <= self._most:
            self._codes[name] = len(self._codes)
        return self._codes.get(name or OTHER_SEGMENT, OTHER_CODE)

    def info(self) -> dict[str, Any]:
        """What a profile says of its segments."""
        return {"segment_by": self._by, "max_segments": self._most}

    def profiles(self, groups: Mapping[str, Group], info: Mapping[str, Any]) -> dict[str, Profile]:
        """The segments so far, those with rows, in the order in which they came; `OTHER_SEGMENT` last. Copies.

        Args:
            groups: The profiler's, by name.
            info: For each of them.
        """
        names = sorted(self._codes, key=lambda name: self._codes[name] or MOST_SEGMENTS + 1)
        segments = {name: Profile(dict(self._groups(self._codes[name], groups)), None, dict(info)) for name in names}
        return {name: segment for name, segment in segments.items() if segment.n}

    def _groups(self, code: int, groups: Mapping[str, Group]) -> Iterator[tuple[str, Group]]:
        for name, group in groups.items():
            made = [self._sketches.get((code, name, source), {}) for source in _sources(group)]
            kept = {key: sketch for sketches_of in made for key, sketch in sketches_of.items()}
            sketches = {key: _copy(kept[key]) for key in group.sketches if key in kept and rows_seen(kept[key])}
            if sketches:
                yield name, Group(name, group.streams, dict(group.definitions), sketches, dict(group.info))


def segment_k(k: int, dim: int) -> int:
    """Size of the KLL sketches of a segment.

    Example:
        >>> segment_k(200, 20), segment_k(200, 2048)
        (200, 50)
    """
    return k if dim <= NARROW else max(8, k // 4)


def _copy(sketch: Sketch) -> Sketch:
    """A copy; of a wide bank one of DataSketches' size, without which a quarter of k would save nothing."""
    if isinstance(sketch, KLLBank) and sketch.dim > NARROW:
        return sketch.compact()
    return sketch.copied()


def _sources(group: Group) -> set[str]:
    """What the segments' sketches of a group take."""
    return {source_of(key, sketch) for key, sketch in group.sketches.items() if sketch.in_segments}


def _kept(group: Group, measured: Measured) -> BySource:
    """What a segment keeps of what was measured, by source; what lies in memory that is used again, copied."""
    if not measured.rows and "steps" in group.info:  # several rows of an image
        return {}
    sources, parts = _sources(group), measured.parts(group.name)
    views = {"rows" if name == group.name else name for name in measured.views}
    kept = {source: owned(parts[source]) if source in views else parts[source] for source in parts if source in sources}
    if "odd" in measured.rest and "categories/" in kept:
        kept["categories/"] = Marked(kept["categories/"], measured.rest["odd"])
    return kept


@dataclass(frozen=True)
class Marked:
    """Classes of rows, some of which are none.

    Attributes:
        classes: Of each row, `[n]`; or which of several are on, `[n, k]`.
        odd: Which rows have none, bool `[n]`.
    """

    classes: Array
    odd: Array

    def __len__(self) -> int:
        return len(self.classes)

    def tolist(self) -> list[Any]:
        """The classes."""
        classes: list[Any] = self.classes.tolist()
        return classes


def _copied(values: Values) -> Values:
    """Values that lie in no memory that the caller uses again."""
    if isinstance(values, Marked) or values is None:  # what is marked was made here
        return values
    return owned(values if isinstance(values, list) else local(values))


def _landed(values: Sequence[Any]) -> list[Any]:
    """Arrays of several batches in host memory; what a device has of one form is brought over at once."""
    flat = [
        part for value in values for part in ((value.classes, value.odd) if isinstance(value, Marked) else (value,))
    ]
    places_of: dict[Hashable, list[int]] = {}
    for place, part in enumerate(flat):
        if is_immutable(part):
            flat[place] = to_host(part)
        elif part is not None and not isinstance(part, list | np.ndarray):
            places_of.setdefault((part.dtype, part.device, tuple(part.shape[1:])), []).append(place)
    for places in places_of.values():
        ends = np.cumsum([len(flat[place]) for place in places])
        for place, part in zip(places, np.split(to_host(joined([flat[p] for p in places])), ends[:-1]), strict=True):
            flat[place] = part
    parts = iter(flat)
    return [Marked(next(parts), next(parts)) if isinstance(value, Marked) else next(parts) for value in values]


def _counting(codes: NDArray[np.intp] | None, rows: Any) -> tuple[NDArray[np.intp], Any]:
    """The numbers of the segments of a batch's rows, and the rows; of categories those that are some."""
    if codes is None or len(codes) != len(rows):
        codes = np.full(len(rows), OTHER_CODE, np.intp)
    return (codes[~rows.odd], rows.classes[~rows.odd]) if isinstance(rows, Marked) else (codes, rows)


def _together(parts: list[Any]) -> NDArray[Any]:
    """The rows of several batches as one array of numbers, or of strings if a batch has some."""
    if not any(isinstance(rows, list) for rows in parts):
        return np.concatenate(parts)
    texts = [str(value) for rows in parts for value in (rows if isinstance(rows, list) else rows.tolist())]
    together = np.empty(len(texts), object)
    together[:] = texts
    return together


def label_values(measured: Mapping[str, Measured]) -> Values:
    """The classes that the rows of a batch are labelled with; None if it has no labels.

    Raises:
        InputError: If labels are no classes, or those of several heads.

    Example:
        >>> label_values({"labels": Measured({}, {"categories/": ["cat", "dog"]})})
        ['cat', 'dog']
    """
    of_labels = [name for name in measured if is_labels(name)]
    if not of_labels:
        return None
    if len(of_labels) > 1:
        raise InputError(f"segment_by='label' needs one label per image, there are {', '.join(of_labels)}: {_INSTEAD}")
    labels = measured[of_labels[0]].rest.get("categories/")
    if labels is None or len(shape_of(labels) if is_array(labels) else "1") != 1:
        what = "numbers" if labels is None else "several at once"
        raise InputError(f"segment_by='label' needs one class per image, but labels are {what}: {_INSTEAD}")
    odd = measured[of_labels[0]].rest.get("odd")
    return labels if odd is None else Marked(labels, odd)


def _classes(values: Array | list[str], name: str) -> Array | list[str]:
    if isinstance(values, list):
        return values
    values = local(values)
    if len(values.shape) != 1 or not namespace(values).isdtype(values.dtype, ("integral", "bool")):
        raise InputError(
            f"{name} of dtype {values.dtype} and shape {tuple(values.shape)} make no segments: pass one class per row, "
            "integers or strings"
        )
    return values


def _texts(values: Any) -> list[Any]:
    texts: list[Any] = list(values)
    odd = next((v for v in texts if not isinstance(v, str | int | np.integer | None)), None)
    if odd is not None:
        raise InputError(f"segments should be strings, whole numbers or None, one per row, not {odd!r}")
    return texts
