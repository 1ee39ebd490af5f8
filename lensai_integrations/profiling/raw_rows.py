"""Delivered images as rows of numbers, and the sketches of such rows.

Images are measured wherever they are delivered, in any number of processes, so what is kept of one is a row that can
lie in memory which processes share. First come the image measures, then a column for each custom measure, then two
columns for each piece of metadata: its number, and the code of its category. A function of the user's may answer
either, now this, now that; the one that it did not answer is NaN. Where images are told apart, the last column is the
number of the row's segment; the first values to come get one.

What failed is marked in the row, so that it can be counted exactly whichever process it failed in: infinity where a
custom measure failed, a code below 0 where a function of the metadata did.

Rows become one group of image measures and pixels, and one for each piece of metadata.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import zlib
from collections.abc import Callable, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import FormatError, InputError, told
from lensai_integrations.measures.custom import CustomMeasure, custom_measurer
from lensai_integrations.measures.definitions import Definition, register
from lensai_integrations.measures.images import CONVENTIONS, image_measures, measure_images_and_counts
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABEL, OTHER_CODE, OTHER_SEGMENT, checked_segment_by, segment_name
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.builder import feed, make, rows_seen
from lensai_integrations.profiling.image_reading import NUMBERS, Delivered, Metadata
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.sketches.state import Sketch, State

#: Longest category that is kept whole, in characters.
MOST_CHARACTERS: Final = 200
#: Different categories of one process; further ones are all counted as `OTHER_CATEGORY`.
MOST_CATEGORIES: Final = 100_000
OTHER_CATEGORY: Final = "(other)"
#: Stand in a custom measure's column where it failed, and for the category of metadata where its function did.
FAILED, FAILED_CODE = math.inf, -1.0
#: Largest number that a column holds.
_LARGEST: Final = float(np.finfo(np.float32).max)
#: Images are handed to custom measures as they were read, so how does not matter.
_READER: Final = ImageInputs(layout="NCHW", scale=1.0)
_WIDE: Final = "it returned {} numbers for each image: of images as they are delivered it has to return one"
#: Gives the code of a category.
Code = Callable[[str], int]
#: The group of delivered images; what the names of the metadata's groups begin with.
RAW, METADATA = "raw", "metadata/"
NUMBER: Final = "lensai/metadata_number@1"
_SEGMENT: Final = "segment:"
CATEGORY: Final = "lensai/metadata_category@1"
#: What went wrong with an image as a whole.
IMAGES: Final = "images"
_LACKS: Final = {
    "custom": "{} could not be measured in {:,} of {:,} rows",
    "odd": "{} was left out in {:,} of {:,} rows: it is not a finite number there",
    "metadata": "{} is missing in {:,} of {:,} rows, where its function failed",
}
register(
    Definition(NUMBER, "metadata number", "", "A number that came with an image.", "as given", "the image's source"),
    Definition(CATEGORY, "metadata category", "", "A category that came with an image.", "as given", "its source"),
)
NO_SEGMENT = f"rows are in the segment {OTHER_SEGMENT!r}, for by {{!r}} they have no segment: {{}}"
_NO_VALUE = "segment_by={!r}: no image has a value of it, so all are in the segment {!r}"
_alone: list[int] = []


@dataclass(frozen=True)
class Columns:
    """The columns of a row.

    Args:
        convention: Of the image measures.
        metadata: Names of the metadata.
        custom: Custom measures, of one number each.
        segment_by: What tells the rows apart; None if nothing.
        functions: Of those pieces of metadata that the user's functions give of a file.

    Example:
        >>> columns = Columns("lensai", ("mode",))
        >>> columns.width - len(columns.streams)
        2
    """

    convention: str
    metadata: tuple[str, ...]
    custom: tuple[CustomMeasure, ...] = ()
    segment_by: str | None = None
    functions: Mapping[str, Metadata] = field(default_factory=dict, compare=False)

    @cached_property
    def definitions(self) -> dict[str, str]:
        """Definition ids of the image measures, by stream."""
        return image_measures(3, self.convention)

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """The image measures."""
        return tuple(self.definitions)

    @cached_property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.streams) + len(self.custom) + 2 * len(self.metadata) + (self.segment_by is not None)

    def numbers(self, name: str) -> int:
        """The column of a metadata's numbers; the one behind it has the codes of its categories."""
        return self._numbers[name]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        first = len(self.streams) + len(self.custom)
        return {name: first + 2 * i for i, name in enumerate(self.metadata)}

    def measured(self, delivered: Delivered) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, str]]:
        """Image measures and custom ones `[n, D]`, pixel counts `[3, 256]`, in host memory. Waits for an accelerator.

        Where a custom measure fails, or gives more than one number for an image, there is `FAILED`; why, by its name,
        is returned as well.
        """
        images = delivered.images
        _, rows, counts = measure_images_and_counts(images, self.convention)
        custom, errors = self._custom(images)
        columns = to_host(rows) if not self.custom else np.concatenate([to_host(rows), custom], axis=1)
        return columns, to_host(counts).astype(np.int64, copy=False), errors

    def _custom(self, images: Images) -> tuple[NDArray[np.float32], dict[str, str]]:
        """The custom measures `[n, D]`, and why some failed. What fails for several images is tried one by one."""
        if not self.custom:
            return np.zeros((images.n, 0), np.float32), {}
        measurer, columns, errors = custom_measurer(_READER, self.custom), [], {}
        rows_by_name = measurer.of(images, images.pixels)
        for measure in self.custom:
            rows = rows_by_name.get(measure.name)
            if rows is not None and tuple(rows.shape) == (images.n, 1):
                rows = to_host(rows)
                columns.append(np.where(np.isinf(rows), np.float32(math.nan), rows))
                continue
            columns.append(np.full((images.n, 1), FAILED, np.float32))
            errors[measure.name] = told(measurer.errors[measure.name]) if rows is None else _WIDE.format(rows.shape[1])
        if not errors or images.n == 1:
            return np.concatenate(columns, axis=1), errors
        parts = [self._custom(replace(images, pixels=images.pixels[i : i + 1])) for i in range(images.n)]
        first = {name: why for _, failed in reversed(parts) for name, why in failed.items()}
        return np.concatenate([rows for rows, _ in parts]), first

    def row(
        self, measures: NDArray[np.float32], metadata: Sequence[Any], code: Code
    ) -> tuple[NDArray[np.float32], dict[str, str]]:
        """One row `[width]` from an image's measures and its metadata; and by name, what of it was unusable.

        A piece of metadata is None where there is none, and an exception where its function failed.

        Example:
            >>> columns = Columns("lensai", ("hour", "site"))
            >>> row, problems = columns.row(np.zeros(len(columns.streams), np.float32), [7, "north"], len)
            >>> row[-4:].tolist(), problems
            ([7.0, nan, nan, 5.0], {})
        """
        row = np.full(self.width, math.nan, np.float32)
        row[: len(measures)] = measures
        problems: dict[str, str] = {}
        for name, value in zip(self.metadata, metadata, strict=True):
            column = self.numbers(name)
            if value is None:
                continue
            if isinstance(value, Exception):
                row[column + 1] = FAILED_CODE
                continue
            if isinstance(value, str):
                row[column + 1] = code(value[:MOST_CHARACTERS])
                continue
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                row[column + 1] = FAILED_CODE
                problems[name] = f"gave a {type(value).__name__}: it should give a number, a string or None"
                continue
            if abs(number) > _LARGEST:
                row[column + 1] = FAILED_CODE
                problems[name] = f"gave {number:g}: it should give a number below {_LARGEST:.1e}, a string or None"
                continue
            row[column] = number
        return row, problems


@dataclass
class RawSketches:
    """Sketches of rows that `Columns` made.

    Args:
        columns: Of the rows.
        k: Size of the KLL sketches.
        seed: Of what is random in them: whole numbers.
        kept: Rows that the joint sample keeps; 0 for none.

    Attributes:
        sketches: By group and key, as in a profile.
        segments: Those of each segment, by its number.
        failed: Rows by what they lack: `"custom/<measure>"` and `"metadata/<name>"` where a function failed, and
            `"odd/<measure>"` where it gave no finite number.

    Example:
        >>> columns = Columns("lensai", ("site",))
        >>> sketches = RawSketches(columns, 200, [0])
        >>> rows = np.zeros((2, columns.width), np.float32)
        >>> rows[:, -2], rows[:, -1] = np.nan, 0
        >>> sketches.update(rows, ["north"])
        >>> sketches.n, sketches.sketches["metadata/site"]["categories/"].top(1)
        (2, [('north', 2)])
    """

    columns: Columns
    k: int
    seed: Sequence[int]
    kept: int = 2000
    sketches: dict[str, dict[str, Sketch]] = field(init=False)
    segments: dict[int, RawSketches] = field(default_factory=dict, init=False)
    failed: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.sketches = {RAW: self._made(RAW, {"rows": len(self.columns.streams)})}
        for measure in self.columns.custom:
            self.sketches[RAW] |= self._made(f"custom/{measure.name}", {f"rows/{measure.name}": 1})
        for name in self.columns.metadata:
            self.sketches[METADATA + name] = self._made(name, {"rows": 1, "categories/": 1})
        self.failed = {f"{kind}/{measure.name}": 0 for measure in self.columns.custom for kind in ("custom", "odd")}
        self.failed |= {METADATA + name: 0 for name in self.columns.metadata}
        self.sample = RowSample(self.kept, seed=self._seed("rows")) if self.kept else None

    def _made(self, seeded_by: str, widths: Mapping[str, int]) -> dict[str, Sketch]:
        return make(widths, k=self.k, seed=self._seed(seeded_by))

    def _seed(self, name: str) -> int:
        return int(np.random.SeedSequence([*self.seed, zlib.crc32(name.encode())]).generate_state(1)[0])

    @property
    def n(self) -> int:
        """Rows taken in, those included whose image could not be measured."""
        return rows_seen(self.sketches[RAW]["bank"])

    def update(self, rows: NDArray[np.float32], vocabulary: Sequence[str]) -> None:
        """Take in rows `[n, width]`, whose codes are places in `vocabulary`; and each again for its segment."""
        if not len(rows):
            return
        self._take(rows, vocabulary)
        if self.columns.segment_by is not None:
            numbers = np.nan_to_num(rows[:, -1], nan=OTHER_CODE).astype(np.int64)
            for number in np.unique(numbers).tolist():
                self._segment(number)._take(rows[numbers == number], vocabulary)

    def _segment(self, number: int) -> RawSketches:
        if number not in self.segments:
            self.segments[number] = RawSketches(
                replace(self.columns, segment_by=None, functions={}), self.k, [*self.seed, number], kept=0
            )
        return self.segments[number]

    def _take(self, rows: NDArray[np.float32], vocabulary: Sequence[str]) -> None:
        images = self._images(rows)
        feed(self.sketches[RAW], images)
        if self.sample is not None:
            self.sample.update({RAW + source.removeprefix("rows"): values for source, values in images.items()})
        for name in self.columns.metadata:
            feed(self.sketches[METADATA + name], self._metadata(name, rows, vocabulary))

    def _images(self, rows: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """What was measured of images, by source; where a custom measure failed or gave no finite number, NaN."""
        parts = {"rows": np.ascontiguousarray(rows[:, : len(self.columns.streams)])}
        measured = np.isfinite(parts["rows"]).all(axis=1)
        for column, custom in enumerate(self.columns.custom, start=len(self.columns.streams)):
            values = np.array(rows[:, column : column + 1])
            self.failed[f"custom/{custom.name}"] += int(np.isinf(values).sum())
            self.failed[f"odd/{custom.name}"] += int((np.isnan(values[:, 0]) & measured).sum())
            values[np.isinf(values)] = np.nan
            parts[f"rows/{custom.name}"] = values
        return parts

    def _metadata(self, name: str, rows: NDArray[np.float32], vocabulary: Sequence[str]) -> dict[str, Any]:
        """The numbers and the categories among the values of some metadata, by source."""
        column = self.columns.numbers(name)
        numbers, codes = rows[:, column], rows[:, column + 1]
        numbers = numbers[~np.isnan(numbers)]
        self.failed[METADATA + name] += int((codes == FAILED_CODE).sum())
        codes = codes[codes >= 0].astype(np.int64)
        texts = [vocabulary[c] if c < len(vocabulary) else OTHER_CATEGORY for c in codes]
        parts: dict[str, Sized] = {"rows": numbers[:, None], "categories/": texts}
        return {source: values for source, values in parts.items() if len(values)}

    def merge(self, other: RawSketches) -> None:
        """Add what another has seen."""
        for sketch, its in zip(self._by_name().values(), other._by_name().values(), strict=True):
            sketch.merge(its)
        self.failed = {what: count + other.failed[what] for what, count in self.failed.items()}
        for number, segment in other.segments.items():
            self._segment(number).merge(segment)

    def groups(self, pixels: NDArray[np.int64] | None, info: Mapping[str, Any], name: str = RAW) -> dict[str, Group]:
        """The groups by name: the images', and of the metadata those that anything was known of.

        Args:
            pixels: Counts of all rows' pixels, `[3, 256]`; None for a segment, which keeps none.
            info: JSON values for the images' group.
            name: Of that group.
        """
        convention = self.columns.convention
        definitions = {**self.columns.definitions, "pixel": CONVENTIONS[convention].pixel.id}
        definitions |= {measure.name: measure.definition.id for measure in self.columns.custom}
        sketches = dict(self.sketches[RAW])
        if pixels is not None:
            counts = make({"pixels": len(pixels)})
            feed(counts, {"pixels": (pixels, sketches["bank"].n)})
            sketches = dict(sorted((sketches | counts).items(), key=lambda item: "/" in item[0]))
        info = {"convention": convention, "delivered": True, **info}
        if self.columns.custom:
            info["measures"] = {measure.name: asdict(measure.definition) for measure in self.columns.custom}
        groups = {name: Group(name, self.columns.streams, definitions, sketches, info)}
        for piece in self.columns.metadata:
            full = METADATA + piece
            kept = {key: sketch for key, sketch in self.sketches[full].items() if rows_seen(sketch)}
            if kept:
                streams = ("value",) if "bank" in kept else ()
                definitions = {"value": NUMBER} if "bank" in kept else {}
                definitions |= {"*": CATEGORY} if "categories/" in kept else {}
                groups[full] = Group(full, streams, definitions, kept, {"delivered": True})
        return groups

    def rows(self, name: str = RAW) -> RowSample | None:
        """The joint sample, its columns called as those of the images' group; None if nothing is kept.

        Args:
            name: Of that group.
        """
        if self.sample is None or not self.sample.n:
            return None
        return self.sample.renamed({column: name + column.removeprefix(RAW) for column in self.sample.widths})

    def warnings(self, name: str, causes: Mapping[str, str]) -> list[str]:
        """What a reader of the profile should know: how many rows lack what, and why the first of them does.

        Args:
            name: Of the images' group.
            causes: What went wrong first, by `IMAGES`, the keys of `failed`, or whatever else it is about.
        """
        sentences: dict[str, str] = {}
        if missing := self.n - self.sketches[RAW]["bank"].n:
            sentences[IMAGES] = f"{missing:,} of {self.n:,} images of {name} could not be measured"
        for what, count in self.failed.items():
            kind, _, subject = what.partition("/")
            if count:
                stream = what if kind == "metadata" else f"{name}/{subject}"
                sentences[what] = _LACKS[kind].format(stream, count, self.n)
        for what, sentence in sentences.items():
            sentences[what] = f"{sentence}: {causes[what]}" if what in causes else sentence
        others = [
            cause for what, cause in causes.items() if what not in sentences and what not in (IMAGES, *self.failed)
        ]
        return [*sentences.values(), *others]

    def state(self) -> State:
        """Plain host arrays from which `restore` makes the same again."""
        states = {name: sketch.state() for name, sketch in self._by_name().items()}
        arrays = {f"{name}:{key}": array for name, state in states.items() for key, array in state.items()}
        arrays["failed:counts"] = np.array(list(self.failed.values()), np.int64)
        parts = {number: segment.state() for number, segment in self.segments.items()}
        return arrays | {
            f"{_SEGMENT}{n}:{key}": array for n, arrays_of in parts.items() for key, array in arrays_of.items()
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Become what `state` is the state of.

        Raises:
            FormatError: If it is of other columns, or damaged.
        """
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        segments: dict[int, dict[str, NDArray[Any]]] = {}
        for key, array in state.items():
            if key.startswith(_SEGMENT):
                number, _, rest = key.removeprefix(_SEGMENT).partition(":")
                segments.setdefault(int(number), {})[rest] = array
                continue
            name, _, rest = key.rpartition(":")
            parts.setdefault(name, {})[rest] = array
        sketches = {}
        for name, sketch in self._by_name().items():
            if name not in parts:
                raise FormatError(f"the state of {name!r} is missing: it is of another profile")
            sketches[name] = read = type(sketch).from_state(parts[name])
            if (dim := getattr(read, "dim", None)) != (needed := getattr(sketch, "dim", None)):
                raise FormatError(f"the state of {name!r} has {dim} streams instead of {needed}")
        counts = parts.get("failed", {}).get("counts")
        if counts is None or counts.shape != (len(self.failed),):
            raise FormatError("the counts of what failed are missing: it is the state of another release")
        self.failed = dict(zip(self.failed, map(int, counts), strict=True))
        self.sample = sketches.pop("rows", None)
        for group, made in self.sketches.items():
            self.sketches[group] = {key: sketches[f"{group}/{key}"] for key in made}
        for code, state_of in segments.items():
            self._segment(code).restore(state_of)

    def _by_name(self) -> dict[str, Any]:
        """All of them, the joint sample included, as they are called in a state."""
        sketches: dict[str, Any] = {"rows": self.sample} if self.sample is not None else {}
        return sketches | {
            f"{group}/{key}": sketch for group, made in self.sketches.items() for key, sketch in made.items()
        }


class SegmentNames:
    """The numbers of segments by their names, `OTHER_SEGMENT` being 0.

    Args:
        most: Named segments, at the most.
        names: Those that there are, from number 1 on.

    Example:
        >>> names = SegmentNames(2)
        >>> [names.code(value) for value in ("north", 7, "north", "late", None)], names.names
        ([1, 2, 1, 0, 0], ['north', '7'])
    """

    def __init__(self, most: int, names: Sequence[str] = ()) -> None:
        self._most = most
        self._codes = {OTHER_SEGMENT: OTHER_CODE} | {name: code for code, name in enumerate(names, start=1)}

    @property
    def names(self) -> list[str]:
        """The names of the numbers from 1 on."""
        return list(self._codes)[1:]

    def code(self, value: Any) -> int:
        """The number of a value's segment; that of `OTHER_SEGMENT` for none, or when all numbers are taken.

        Raises:
            InputError: If it is no string, whole number or None.
        """
        name = segment_name(value)
        while name is not None and name not in self._codes and len(self._codes) <= self._most:
            number = len(self._codes)
            self._codes[self._named(number, name)] = number
        return self._codes.get(name or OTHER_SEGMENT, OTHER_CODE)

    def _named(self, number: int, name: str) -> str:
        """The name that the next number has: this one, unless another process was first."""
        return name


def checked_stream(by: Any, most: Any, metadata: Sequence[str], *, labels: bool) -> str | None:
    """`segment_by` if it names what delivered images can be told apart by.

    Args:
        by: `segment_by`.
        most: `max_segments`.
        metadata: Names of the metadata that are kept.
        labels: Whether there are labels.

    Raises:
        InputError: If it does not, or one of the two cannot be used.

    Example:
        >>> checked_stream("mode", 20, ("mode", "site"), labels=False)
        'mode'
    """
    usable = (*([LABEL] if labels else []), *(name for name in metadata if name not in NUMBERS))
    name = checked_segment_by(by, most)
    if name is None or name in usable:
        return name
    why = "is a number of many values" if name in NUMBERS else "is none of what is known of these images"
    raise InputError(f"segment_by={name!r} {why}: pass one of {', '.join(map(repr, usable))}, or add it to metadata=")


def with_segments(whole: Profile, sketches: RawSketches, names: Sequence[str], name: str, most: int) -> Profile:
    """A profile beside those of its segments that have rows, in the order of their numbers, `OTHER_SEGMENT` last.

    Args:
        whole: The profile.
        sketches: What it was made of.
        names: Of the segments' numbers from 1 on.
        name: Of the images' group.
        most: How many values get a segment.
    """
    by = sketches.columns.segment_by
    if by is None:
        return whole
    codes = [*range(1, len(names) + 1), OTHER_CODE]
    named = dict(zip(codes, [*names, OTHER_SEGMENT], strict=True))
    segments_by_name = {named[code]: sketches.segments[code] for code in codes if code in sketches.segments}
    warnings = [_NO_VALUE.format(by, OTHER_SEGMENT)] if list(segments_by_name) == [OTHER_SEGMENT] else []
    info = whole.info | {"segment_by": by, "max_segments": most, "warnings": [*whole.warnings, *warnings]}
    about = {"source": whole.source}
    segments = {
        key: Profile(segment.groups(None, {}, name=name), None, dict(about))
        for key, segment in segments_by_name.items()
    }
    return Profile(whole.groups, whole.rows, info, segments)


def stay_on_one_core() -> None:
    """In a worker process, keep numpy's BLAS from starting threads; once in a process, and in no other.

    Workers are as many as the cores they are meant to fill. Without `threadpoolctl` nothing is changed.

    Example:
        >>> stay_on_one_core()
    """
    if os.getpid() in _alone or multiprocessing.parent_process() is None:
        return
    _alone[:] = [os.getpid()]
    with suppress(ImportError):
        import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
