"""Profiles: what was seen of some images, as named sketches; and baselines: what a model is held against.

A profile is a handful of groups. The streams of a group are measured together, row for row, and share one bank. All
else here is bookkeeping around one rule: a sketch knows how to merge and how to become plain arrays, and a profile
only keeps the names. So merging is written once, for any sketch; saving and loading are in `archive.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from numpy.typing import NDArray

from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments
from lensai_integrations.sketches.rows import RowSample

if TYPE_CHECKING:
    import pandas as pd

    from lensai_integrations.summary import StreamSummary

Arrays = dict[str, NDArray[Any]]


class Sketch(Protocol):
    """What a profile needs of a sketch: to merge, to come to the host, and to become plain arrays and back."""

    @property
    def n(self) -> int: ...  # noqa: D102
    def merge(self, other: Any, /) -> None: ...  # noqa: D102
    def to_host(self) -> Self: ...  # noqa: D102
    def state(self) -> Arrays: ...  # noqa: D102
    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]], /) -> Self: ...  # noqa: D102


#: The sketches a group may hold, by the first part of their key; `categories/top_class` is one of several.
KINDS: dict[str, type[Sketch]] = {
    "bank": KLLBank,
    "pixels": PixelCounts,
    "categories": Categories,
    "kernel_mean": KernelMean,
    "moments": Moments,
}


@dataclass
class Group:
    """Streams that are measured together, row for row.

    Attributes:
        name: `"inputs"`, `"outputs"`, `"labels"` or `"embeddings/<layer>"`.
        streams: Names of the bank's columns within the group; empty if it has no bank.
        definitions: Measure name to definition id; the key `"*"` stands for all streams.
        sketches: By key: `"bank"`, `"pixels"`, `"kernel_mean"`, `"moments"`, `"categories/<stream>"`.
        info: What was read and from where, as JSON values (layer, layout, how outputs were read).
    """

    name: str
    streams: tuple[str, ...] = ()
    definitions: dict[str, str] = field(default_factory=dict)
    sketches: dict[str, Sketch] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def bank(self) -> KLLBank | None:
        """The KLL sketches of `streams`, or None."""
        return self.sketches.get("bank")  # type: ignore[return-value]

    @property
    def pixels(self) -> PixelCounts | None:
        """The exact pixel counts, or None."""
        return self.sketches.get("pixels")  # type: ignore[return-value]

    @property
    def kernel_mean(self) -> KernelMean | None:
        """The kernel mean of the group's rows, or None."""
        return self.sketches.get("kernel_mean")  # type: ignore[return-value]

    @property
    def moments(self) -> Moments | None:
        """Mean and covariance of the group's rows, or None."""
        return self.sketches.get("moments")  # type: ignore[return-value]

    @property
    def categories(self) -> dict[str, Categories]:
        """The category sketches by stream name within the group; `""` is the stream named as the group."""
        prefix = "categories/"
        return {k[len(prefix) :]: s for k, s in self.sketches.items() if k.startswith(prefix)}  # type: ignore[misc]

    @property
    def n(self) -> int:
        """Rows in the group's sketches."""
        return self.bank.n if self.bank is not None else max((s.n for s in self.sketches.values()), default=0)

    @property
    def invalid(self) -> int:
        """Rows left out because a value was not finite."""
        return self.bank.invalid if self.bank is not None else 0

    def definition_of(self, stream: str) -> str:
        """The definition id of a stream of this group.

        Example:
            >>> Group("inputs", ("mean/0",), {"mean": "lensai/mean@1"}).definition_of("mean/0")
            'lensai/mean@1'
        """
        for key in (stream, stream.split("/", maxsplit=1)[0], "*"):
            if key in self.definitions:
                return self.definitions[key]
        return ""

    def merge(self, other: Group) -> Group:
        """A new group that has seen the rows of both; neither is changed.

        Raises:
            DefinitionError: If a measure was computed by different definitions.
            InputError: If the streams are not the same.
        """
        check_comparable(self, other)
        if self.streams != other.streams:
            raise InputError(f"group {self.name!r} has other streams in the two profiles: {_differing(self, other)}")
        merged = {k: _merged(s, other.sketches[k]) for k, s in self.sketches.items() if k in other.sketches}
        return Group(self.name, self.streams, dict(self.definitions), merged, _shared(self.info, other.info))


@dataclass
class Profile:
    """Named sketches of some consecutive rows, plus what they are of. Merges, saves and loads.

    Attributes:
        groups: By name, in the order they are read.
        rows: A uniform sample of the rows, all groups' columns aligned, or None.
        info: JSON values: `source` ("validation", "training", "production"...), `created`, `warnings`, ...

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(source="production")
        >>> profiler.update(inputs=np.zeros((4, 8, 8, 3), np.uint8))
        >>> profiler.profile().n
        4
    """

    groups: dict[str, Group] = field(default_factory=dict)
    rows: RowSample | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Rows seen, those left out included."""
        return max((group.n + group.invalid for group in self.groups.values()), default=0)

    @property
    def source(self) -> str:
        """What was profiled, e.g. `"validation"`."""
        return str(self.info.get("source", "unknown"))

    @property
    def warnings(self) -> list[str]:
        """What a reader of this profile should know: missing groups, left-out rows, fall-backs."""
        return list(self.info.get("warnings", []))

    def merge(self, other: Profile) -> Profile:
        """A new profile that has seen the rows of both; neither is changed. Associative in all counts and extremes.

        A group that only one side has is kept as it is. Row samples with other columns cannot be joined: the result
        then has none, and says so in its warnings.

        Raises:
            DefinitionError: If a stream was computed by different definitions.
            InputError: If a group has other streams on the two sides.
        """
        names = [*self.groups, *(name for name in other.groups if name not in self.groups)]
        groups = {name: _merged_group(self.groups.get(name), other.groups.get(name)) for name in names}
        info = _shared(self.info, other.info)
        info["warnings"] = list(dict.fromkeys([*self.warnings, *other.warnings]))
        rows, problem = _merged_rows(self.rows, other.rows)
        info["warnings"] += [problem] if problem else []
        return Profile(groups, rows, info)

    def sources(self) -> dict[str, Profile]:
        """The profiles inside by the name of their source; a profile holds one, itself."""
        return {self.source: self}

    def summaries(self) -> list[StreamSummary]:
        """One row per stream: counts, quantiles, extremes, heavy hitters. See `lensai_integrations.summary`."""
        from lensai_integrations.summary import summarize

        return summarize(self)

    def to_pandas(self) -> pd.DataFrame:
        """The summaries as a table, a row per stream, the columns of `streams.csv`.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        from lensai_integrations.summary import to_pandas

        return to_pandas(self.sources())

    def save(self, folder: str | Path, *, report_html: str | None = None) -> Path:
        """Write `profile.npz`, `streams.csv`, the report if given, and last `manifest.json`.

        Raises:
            InputError: If `folder` is a file.
            OSError: If it cannot be written.
        """
        from lensai_integrations.archive import save

        return save(self, folder, report_html=report_html)

    @classmethod
    def load(cls, folder: str | Path) -> Profile:
        """Read a profile that `save` wrote; of a baseline's folder, its reference profile.

        Raises:
            FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
            DefinitionError: If a definition id means something else here than where it was written.
        """
        from lensai_integrations.archive import load

        loaded = load(folder)
        return loaded.reference if isinstance(loaded, Baseline) else loaded


@dataclass
class Baseline:
    """What a model is held against: the reference profile, and the training profile beside it.

    Attributes:
        reference: Profile of held-out images in evaluation mode; its rows are joint over all groups.
        training: Profile of what training was fed, or None.
        info: JSON values: `epoch`, `created`, `warnings`, the versions it was made by.
    """

    reference: Profile
    training: Profile | None = None
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Rows of the reference profile."""
        return self.reference.n

    @property
    def warnings(self) -> list[str]:
        """What a reader of this baseline should know, of all its profiles."""
        own = list(self.info.get("warnings", []))
        return list(dict.fromkeys(own + [w for profile in self.sources().values() for w in profile.warnings]))

    def sources(self) -> dict[str, Profile]:
        """The profiles inside by the name of their source, the reference first."""
        profiles = [self.reference, *([self.training] if self.training is not None else [])]
        return {profile.source: profile for profile in profiles}

    def to_pandas(self) -> pd.DataFrame:
        """The summaries of all sources as a table, a row per source and stream.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        from lensai_integrations.summary import to_pandas

        return to_pandas(self.sources())

    def save(self, folder: str | Path, *, report_html: str | None = None) -> Path:
        """Write `profile.npz`, `streams.csv`, the report if given, and last `manifest.json`.

        Raises:
            InputError: If `folder` is a file.
            OSError: If it cannot be written.
        """
        from lensai_integrations.archive import save

        return save(self, folder, report_html=report_html)

    @classmethod
    def load(cls, folder: str | Path) -> Baseline:
        """Read a baseline that `save` wrote; a lone profile becomes the reference of a baseline.

        Raises:
            FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
            DefinitionError: If a definition id means something else here than where it was written.
        """
        from lensai_integrations.archive import load

        loaded = load(folder)
        return loaded if isinstance(loaded, Baseline) else Baseline(loaded)


def check_comparable(a: Group, b: Group) -> None:
    """Refuse two groups of one name whose streams were computed by different definitions.

    Raises:
        DefinitionError: Naming the stream and both definitions.

    Example:
        >>> old = Group("inputs", definitions={"noise": "lensai/noise@1"})
        >>> check_comparable(old, Group("inputs", definitions={"noise": "lensai/noise@1"}))
    """
    for measure, one in a.definitions.items():
        two = b.definitions.get(measure, one)
        if one != two:
            raise DefinitionError(
                f"stream {a.name}/{measure} was computed as {one!r} in one profile and as {two!r} in the other: "
                "profile both with the same convention and release"
            )
    for detail in ("reduce", "projected_from", "seed"):
        if a.info.get(detail) != b.info.get(detail):
            raise DefinitionError(
                f"group {a.name} has {detail}={a.info.get(detail)!r} in one profile and {b.info.get(detail)!r} in the "
                "other: profile both alike, e.g. with Profiler(like=baseline)"
            )


def _differing(a: Group, b: Group) -> str:
    only_a, only_b = sorted(set(a.streams) - set(b.streams)), sorted(set(b.streams) - set(a.streams))
    return f"only in the first: {only_a[:5]}, only in the second: {only_b[:5]} ({len(a.streams)} and {len(b.streams)})"


def _merged(a: Sketch, b: Sketch) -> Sketch:
    """A new sketch that has seen what both saw."""
    result = type(a).from_state(a.state())
    result.merge(b.to_host())
    return result


def _merged_group(a: Group | None, b: Group | None) -> Group:
    if a is not None and b is not None:
        return a.merge(b)
    only = a if a is not None else b
    assert only is not None
    return only


def _merged_rows(a: RowSample | None, b: RowSample | None) -> tuple[RowSample | None, str]:
    if a is None or b is None:
        return a if a is not None else b, ""
    try:
        result = RowSample.from_state(a.state())
        result.merge(b)
    except InputError as error:
        return None, f"the row sample was dropped in merging: {error}"
    return result, ""


def _shared(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """What both say alike. Two different answers are no answer."""
    return {key: value for key, value in a.items() if key in b and b[key] == value}
