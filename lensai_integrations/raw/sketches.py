"""The sketches of delivered images: one group of image measures and pixels, and one for each piece of metadata."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.builder import feed, make, rows_seen
from lensai_integrations.errors import FormatError
from lensai_integrations.measures.definitions import Definition, register
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import OTHER_CODE
from lensai_integrations.raw.columns import FAILED_CODE, OTHER_CATEGORY, Columns
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.sketches.state import Sketch, State

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
        for each in self.columns.custom:
            self.sketches[RAW] |= self._made(f"custom/{each.name}", {f"rows/{each.name}": 1})
        for name in self.columns.metadata:
            self.sketches[METADATA + name] = self._made(name, {"rows": 1, "categories/": 1})
        self.failed = {f"{kind}/{each.name}": 0 for each in self.columns.custom for kind in ("custom", "odd")}
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
        for place, custom in enumerate(self.columns.custom, start=len(self.columns.streams)):
            values = np.array(rows[:, place : place + 1])
            self.failed[f"custom/{custom.name}"] += int(np.isinf(values).sum())
            self.failed[f"odd/{custom.name}"] += int((np.isnan(values[:, 0]) & measured).sum())
            values[np.isinf(values)] = np.nan
            parts[f"rows/{custom.name}"] = values
        return parts

    def _metadata(self, name: str, rows: NDArray[np.float32], vocabulary: Sequence[str]) -> dict[str, Any]:
        """The numbers and the categories among the values of some metadata, by source."""
        place = self.columns.numbers(name)
        numbers, codes = rows[:, place], rows[:, place + 1]
        numbers = numbers[~np.isnan(numbers)]
        self.failed[METADATA + name] += int((codes == FAILED_CODE).sum())
        codes = codes[codes >= 0].astype(np.int64)
        texts = [vocabulary[c] if c < len(vocabulary) else OTHER_CATEGORY for c in codes]
        parts: dict[str, Sized] = {"rows": numbers[:, None], "categories/": texts}
        return {source: values for source, values in parts.items() if len(values)}

    def merge(self, other: RawSketches) -> None:
        """Add what another has seen."""
        for own, its in zip(self._by_name().values(), other._by_name().values(), strict=True):
            own.merge(its)
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
        definitions |= {each.name: each.definition.id for each in self.columns.custom}
        sketches = dict(self.sketches[RAW])
        if pixels is not None:
            counts = make({"pixels": len(pixels)})
            feed(counts, {"pixels": (pixels, sketches["bank"].n)})
            sketches = dict(sorted((sketches | counts).items(), key=lambda each: "/" in each[0]))
        info = {"convention": convention, "delivered": True, **info}
        if self.columns.custom:
            info["measures"] = {each.name: asdict(each.definition) for each in self.columns.custom}
        groups = {name: Group(name, self.columns.streams, definitions, sketches, info)}
        for each in self.columns.metadata:
            full = METADATA + each
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
        return self.sample.renamed({each: name + each.removeprefix(RAW) for each in self.sample.widths})

    def warnings(self, name: str, causes: Mapping[str, str]) -> list[str]:
        """What a reader of the profile should know: how many rows lack what, and why the first of them does.

        Args:
            name: Of the images' group.
            causes: What went wrong first, by `IMAGES`, the keys of `failed`, or whatever else it is about.
        """
        found: dict[str, str] = {}
        if missing := self.n - self.sketches[RAW]["bank"].n:
            found[IMAGES] = f"{missing:,} of {self.n:,} images of {name} could not be measured"
        for what, count in self.failed.items():
            kind, _, each = what.partition("/")
            if count:
                stream = what if kind == "metadata" else f"{name}/{each}"
                found[what] = _LACKS[kind].format(stream, count, self.n)
        for what, sentence in found.items():
            found[what] = f"{sentence}: {causes[what]}" if what in causes else sentence
        others = [cause for what, cause in causes.items() if what not in found and what not in (IMAGES, *self.failed)]
        return [*found.values(), *others]

    def state(self) -> State:
        """Plain host arrays from which `restore` makes the same again."""
        states = {name: sketch.state() for name, sketch in self._by_name().items()}
        own = {f"{name}:{key}": array for name, state in states.items() for key, array in state.items()}
        own["failed:counts"] = np.array(list(self.failed.values()), np.int64)
        parts = {number: segment.state() for number, segment in self.segments.items()}
        return own | {f"{_SEGMENT}{n}:{key}": array for n, part in parts.items() for key, array in part.items()}

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
        for code, part in segments.items():
            self._segment(code).restore(part)

    def _by_name(self) -> dict[str, Any]:
        """All of them, the joint sample included, as they are called in a state."""
        sketches: dict[str, Any] = {"rows": self.sample} if self.sample is not None else {}
        return sketches | {
            f"{group}/{key}": each for group, made in self.sketches.items() for key, each in made.items()
        }
