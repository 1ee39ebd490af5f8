"""The sketches of delivered images: one group of image measures and pixels, and one for each piece of metadata."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError
from lensai_integrations.group import Group, Sketch
from lensai_integrations.measures.definitions import Definition, register
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.raw.columns import FAILED_CODE, OTHER, Columns
from lensai_integrations.segments import OTHER_CODE
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.sketches.state import State

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
        failed: Rows by what they lack: `"custom/<measure>"` and `"metadata/<name>"` where a function failed, and
            `"odd/<measure>"` where it gave no finite number.

    Example:
        >>> columns = Columns("lensai", ("site",))
        >>> sketches = RawSketches(columns, 200, [0])
        >>> rows = np.zeros((2, columns.width), np.float32)
        >>> rows[:, -2], rows[:, -1] = np.nan, 0
        >>> sketches.update(rows, ["north"])
        >>> sketches.n, sketches.categories["site"].top(1)
        (2, [('north', 2)])
    """

    columns: Columns
    k: int
    seed: Sequence[int]
    kept: int = 2000
    measures: KLLBank = field(init=False)
    custom: dict[str, KLLBank] = field(init=False)
    numbers: dict[str, KLLBank] = field(init=False)
    segments: dict[int, RawSketches] = field(default_factory=dict, init=False)
    categories: dict[str, Categories] = field(init=False)
    failed: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self.measures = self._bank(RAW, len(self.columns.streams))
        self.custom = {each.name: self._bank(f"custom/{each.name}", 1) for each in self.columns.custom}
        self.numbers = {name: self._bank(name, 1) for name in self.columns.metadata}
        self.categories = {name: Categories() for name in self.columns.metadata}
        self.failed = {f"{kind}/{each.name}": 0 for each in self.columns.custom for kind in ("custom", "odd")}
        self.failed |= {METADATA + name: 0 for name in self.columns.metadata}
        self.sample = RowSample(self.kept, seed=self._seed("rows")) if self.kept else None

    def _bank(self, name: str, dim: int) -> KLLBank:
        return KLLBank(dim, self.k, seed=self._seed(name))

    def _seed(self, name: str) -> int:
        return int(np.random.SeedSequence([*self.seed, zlib.crc32(name.encode())]).generate_state(1)[0])

    @property
    def n(self) -> int:
        """Rows taken in, those included whose image could not be measured."""
        return self.measures.n + self.measures.invalid

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
        joint = {RAW: np.ascontiguousarray(rows[:, : len(self.columns.streams)])}
        self.measures.update(joint[RAW])
        measured = np.isfinite(joint[RAW]).all(axis=1)
        for place, (name, bank) in enumerate(self.custom.items(), start=len(self.columns.streams)):
            values = np.array(rows[:, place : place + 1])
            self.failed[f"custom/{name}"] += int(np.isinf(values).sum())
            self.failed[f"odd/{name}"] += int((np.isnan(values[:, 0]) & measured).sum())
            values[np.isinf(values)] = np.nan
            joint[f"{RAW}/{name}"] = values
            bank.update(values)
        if self.sample is not None:
            self.sample.update(joint)
        for name in self.columns.metadata:
            place = self.columns.numbers(name)
            numbers = rows[:, place]
            numbers = numbers[~np.isnan(numbers)]
            if len(numbers):
                self.numbers[name].update(numbers[:, None])
            codes = rows[:, place + 1]
            self.failed[METADATA + name] += int((codes == FAILED_CODE).sum())
            codes = codes[codes >= 0].astype(np.int64)
            if len(codes):
                self.categories[name].update([vocabulary[c] if c < len(vocabulary) else OTHER for c in codes])

    def merge(self, other: RawSketches) -> None:
        """Add what another has seen."""
        for own, its in zip(self._sketches().values(), other._sketches().values(), strict=True):
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
        sketches: dict[str, Sketch] = {"bank": self.measures}
        if pixels is not None:
            sketches["pixels"] = counts = PixelCounts(3)
            counts.add(pixels, self.measures.n)
        sketches |= {f"bank/{each}": bank for each, bank in self.custom.items()}
        definitions |= {each.name: each.definition.id for each in self.columns.custom}
        info = {"convention": convention, "delivered": True, **info}
        if self.columns.custom:
            info["measures"] = {each.name: asdict(each.definition) for each in self.columns.custom}
        groups = {name: Group(name, self.columns.streams, definitions, sketches, info)}
        for each in self.columns.metadata:
            bank, categories, full = self.numbers[each], self.categories[each], METADATA + each
            if bank.n + bank.invalid:
                groups[full] = Group(full, ("value",), {"value": NUMBER}, {"bank": bank}, {"delivered": True})
            if categories.n:
                group = groups.setdefault(full, Group(full, info={"delivered": True}))
                group.sketches["categories/"] = categories
                group.definitions["*"] = CATEGORY
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
        if self.measures.invalid:
            found[IMAGES] = f"{self.measures.invalid:,} of {self.n:,} images of {name} could not be measured"
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
        states = {name: sketch.state() for name, sketch in self._sketches().items()}
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
        for name, sketch in self._sketches().items():
            if name not in parts:
                raise FormatError(f"the state of {name!r} is missing: it is of another profile")
            sketches[name] = type(sketch).from_state(parts[name])
        counts = parts.get("failed", {}).get("counts")
        if counts is None or counts.shape != (len(self.failed),):
            raise FormatError("the counts of what failed are missing: it is the state of another release")
        self.failed = dict(zip(self.failed, map(int, counts), strict=True))
        self.sample = sketches.pop("rows", None)  # type: ignore[assignment]
        measures: Any = sketches.pop(RAW)
        if measures.dim != self.measures.dim:
            raise FormatError(f"the state has {measures.dim} streams instead of {self.measures.dim}")
        self.measures = measures
        for name in self.custom:
            self.custom[name] = sketches[f"custom/{name}"]  # type: ignore[assignment]
        for name in self.columns.metadata:
            self.numbers[name] = sketches[f"number/{name}"]  # type: ignore[assignment]
            self.categories[name] = sketches[f"category/{name}"]  # type: ignore[assignment]
        for code, part in segments.items():
            self._segment(code).restore(part)

    def _sketches(self) -> dict[str, Sketch]:
        sketches: dict[str, Sketch] = {RAW: self.measures}
        sketches |= {"rows": self.sample} if self.sample is not None else {}
        sketches |= {f"custom/{name}": bank for name, bank in self.custom.items()}
        sketches |= {f"number/{name}": bank for name, bank in self.numbers.items()}
        return sketches | {f"category/{name}": found for name, found in self.categories.items()}
