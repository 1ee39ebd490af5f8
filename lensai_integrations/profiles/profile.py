"""Profiles: what was seen of some images, as named sketches; and baselines: what a model is held against.

A profile is a handful of groups (`groups.py`) and a sample of their rows; it merges group by group. What folders and
bytes hold of it is in `archive.py`, how groups become a table in `summary.py`. Copied or pickled, profiles go through
these bytes: what arrives in another process or release is what a file would have, and is checked as a file is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.profiles import archive
from lensai_integrations.profiles.conventions import conventions_of, is_images
from lensai_integrations.profiles.coverage import BATCHES, merged_coverage, merging_problems
from lensai_integrations.profiles.groups import Group, check_comparable, shared_info
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, OTHER_SEGMENT, is_labels
from lensai_integrations.profiles.summary import StreamSummary, segments_csv, summarize, to_csv, to_pandas
from lensai_integrations.sketches.rows import RowSample
from lensai_integrations.storage import folders

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "IN_TIME",
    "ORDER",
    "Baseline",
    "Group",
    "Profile",
    "bounded",
    "check_comparable",
    "files_of",
    "from_bytes",
    "load",
    "to_bytes",
]


#: What a profile's `info` says of rows that came as time went by. Those of a data set may be sorted.
ORDER: Final = "order"
IN_TIME: Final = "in time"


@dataclass
class Profile:
    """Named sketches of some consecutive rows, plus what they are of. Merges, saves and loads.

    Attributes:
        groups: By name, in the order they are read.
        rows: A uniform sample of the rows, all groups' columns aligned, or None.
        info: JSON values: `source` ("validation", "training", "production"...), `created`, `warnings`, ...
        segments: A profile for each value of `info["segment_by"]`, with fewer sketches; see `names.py`.

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
    segments: dict[str, Profile] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Rows seen, those left out included. Delivered images count where no more than labels is beside them.

        Streams of devices have no common rows: there it is how many images were measured, whatever else was counted.
        """
        for images in self.groups.values():
            if is_images(images.name) and images.bank is None and images.n:
                return images.n + images.invalid
        used = [group for group in self.groups.values() if not group.delivered]
        if all(is_labels(group.name) for group in used):
            used = list(self.groups.values())
        return max((group.n + group.invalid for group in used), default=0)

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
        then has none, and says so in its warnings. Segments merge one by one, and beyond `max_segments` into "other".

        Raises:
            DefinitionError: If a stream was computed by different definitions, or images by no convention in common.
            InputError: If a group has other streams on the two sides.
        """
        _check_conventions(self, other)
        names = [*self.groups, *(name for name in other.groups if name not in self.groups)]
        groups = {name: _merged_group(self.groups.get(name), other.groups.get(name)) for name in names}
        info = shared_info(self.info, other.info)
        info = {key: value for key, value in info.items() if key != BATCHES} | merged_coverage(self.info, other.info)
        apart = merging_problems(self.info, other.info)
        info["warnings"] = list(dict.fromkeys([*self.warnings, *other.warnings, *apart]))
        rows, problem = _merged_rows(self.rows, other.rows)
        info["warnings"] += [problem] if problem else []
        segments, about, lost = _merged_segments(self, other)
        info = {key: value for key, value in info.items() if key not in ("segment_by", "max_segments")} | about
        info["warnings"] += lost
        info["warnings"] += [
            f"{name}: {sketch.dropped}"
            for name in self.groups.keys() & other.groups.keys()
            for key, sketch in self.groups[name].sketches.items()
            if sketch.dropped and key not in groups[name].sketches
        ]
        info["warnings"] += [
            f"{name}/{measure}: the custom measure was dropped in merging, it has other widths"
            for name in self.groups.keys() & other.groups.keys()
            for measure in self.groups[name].apart.keys() - groups[name].apart.keys()
        ]
        return Profile(groups, rows, info, segments)

    def __reduce__(self) -> Any:
        return from_bytes, (to_bytes(self),)

    def sources(self) -> dict[str, Profile]:
        """The profiles inside by the name of their source; a profile holds one, itself."""
        return {self.source: self}

    def summaries(self) -> list[StreamSummary]:
        """One row per stream: counts, quantiles, extremes, heavy hitters; see `StreamSummary`."""
        return summarize(self.groups)

    def to_pandas(self) -> pd.DataFrame:
        """The summaries as a table, a row per stream, the columns of `streams.csv`.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        return to_pandas(_groups_by_source(self))

    def save(self, folder: str | Path, *, report_html: str | None = None) -> Path:
        """Write `profile.npz`, `streams.csv`, the report if given, and last `manifest.json`.

        Raises:
            InputError: If `folder` is a file.
            OSError: If it cannot be written.
        """
        return _save(self, folder, report_html)

    @classmethod
    def load(cls, folder: str | Path) -> Profile:
        """Read a profile that `save` wrote; of a baseline's folder, its reference profile.

        Raises:
            FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
            DefinitionError: If a definition id means something else here than where it was written.
        """
        loaded = load(folder)
        return loaded.reference if isinstance(loaded, Baseline) else loaded


@dataclass
class Baseline:
    """What a model is held against: the reference profile, and the training profile beside it.

    Attributes:
        reference: Profile of held-out images in evaluation mode; its rows are joint over all groups.
        training: Profile of what training was fed, or None.
        info: JSON values: `epoch`, `created`, `warnings`, the versions it was made by.
        calibration: What clean windows look like, as plain arrays that `lensai_integrations.calibrate` has made and
            `compare` reads; None where that was not done.
    """

    reference: Profile
    training: Profile | None = None
    info: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, NDArray[Any]] | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> Any:
        return from_bytes, (to_bytes(self),)

    @property
    def n(self) -> int:
        """Rows of the reference profile."""
        return self.reference.n

    @property
    def warnings(self) -> list[str]:
        """What a reader of this baseline should know, of all its profiles."""
        warnings = list(self.info.get("warnings", []))
        return list(dict.fromkeys(warnings + [w for profile in self.sources().values() for w in profile.warnings]))

    def sources(self) -> dict[str, Profile]:
        """The profiles inside by the name of their source, the reference first."""
        profiles = [self.reference, *([self.training] if self.training is not None else [])]
        return {profile.source: profile for profile in profiles}

    def to_pandas(self) -> pd.DataFrame:
        """The summaries of all sources as a table, a row per source and stream.

        Raises:
            MissingDependencyError: If pandas is not installed.
        """
        return to_pandas(_groups_by_source(self))

    def save(self, folder: str | Path, *, report_html: str | None = None) -> Path:
        """Write `profile.npz`, `streams.csv`, the report if given, and last `manifest.json`.

        Raises:
            InputError: If `folder` is a file.
            OSError: If it cannot be written.
        """
        return _save(self, folder, report_html)

    @classmethod
    def load(cls, folder: str | Path) -> Baseline:
        """Read a baseline that `save` wrote; a lone profile becomes the reference of a baseline.

        Raises:
            FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
            DefinitionError: If a definition id means something else here than where it was written.
        """
        loaded = load(folder)
        return loaded if isinstance(loaded, Baseline) else Baseline(loaded)


def files_of(what: Profile | Baseline, *, report_html: str | None = None) -> dict[str, bytes]:
    """What `save` writes, in memory: the name of each file and what is in it, the manifest last.

    Whoever sends a baseline elsewhere sends these, and not what a folder holds by then.

    Example:
        >>> list(files_of(Profile()))
        ['profile.npz', 'streams.csv', 'manifest.json']
    """
    manifest, arrays = _encoded(what)
    texts = {"streams.csv": to_csv(_groups_by_source(what))}
    segments = {source: profile.segments for source, profile in what.sources().items()}
    if any(segments.values()):
        texts["segments.csv"] = segments_csv(
            {source: {name: segment.groups for name, segment in of.items()} for source, of in segments.items()}
        )
    if report_html is not None:
        texts["report.html"] = report_html
    return folders.files_of(manifest, arrays, texts)


def _save(what: Profile | Baseline, folder: str | Path, report_html: str | None) -> Path:
    folders.write_files(Path(folder), files_of(what, report_html=report_html))
    return Path(folder)


def load(folder: str | Path) -> Profile | Baseline:
    """Read what `save` wrote, whichever it was.

    Raises:
        FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
        DefinitionError: If a definition id means something else here than where it was written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load(Profile(info={"source": "production"}).save(folder)).source
        'production'
    """
    return _decoded(*folders.read_folder(Path(folder)))


def to_bytes(what: Profile | Baseline, *, compressed: bool = True) -> bytes:
    """The whole profile or baseline as one byte string, for checkpoints and other processes. No pickle inside.

    Args:
        what: The profile or baseline.
        compressed: Whether to spend most of the time on making it smaller, by a third of a small one.

    Example:
        >>> from_bytes(to_bytes(Profile(info={"source": "test"}))).source
        'test'
    """
    return archive.to_bytes(*_encoded(what), compressed=compressed)


def from_bytes(blob: bytes) -> Profile | Baseline:
    """Read what `to_bytes` wrote.

    Raises:
        FormatError: If the bytes are truncated or of another format.
        DefinitionError: If a definition id means something else here than where it was written.
    """
    return _decoded(*archive.from_bytes(blob))


_arrived = from_bytes  # what pickles of earlier states name


def _encoded(what: Profile | Baseline) -> tuple[dict[str, Any], archive.Arrays]:
    if isinstance(what, Profile):
        return archive.encode("profile", what.info, {"profile": what})
    parts = {"reference": what.reference} | ({"training": what.training} if what.training is not None else {})
    return archive.encode("baseline", what.info, parts, what.calibration)


def _decoded(manifest: Mapping[str, Any], arrays: archive.Arrays) -> Profile | Baseline:
    decoded = archive.decode(manifest, arrays, Profile)
    if decoded.kind == "profile":
        return decoded.profiles["profile"]
    return Baseline(
        decoded.profiles["reference"], decoded.profiles.get("training"), decoded.info, decoded.calibration or None
    )


def _groups_by_source(what: Profile | Baseline) -> dict[str, Mapping[str, Group]]:
    return {source: profile.groups for source, profile in what.sources().items()}


def _check_conventions(a: Profile, b: Profile) -> None:
    """Refuse to join images that nothing was measured of in the same way: their groups would stand side by side."""
    conventions = [conventions_of(profile) for profile in (a, b)]
    if all(conventions) and not set(conventions[0]) & set(conventions[1]):
        ways = [" and ".join(map(repr, names)) for names in conventions]
        raise DefinitionError(
            f"the images were measured by {ways[0]} in one profile and by {ways[1]} in the other: profile both by one"
            " convention"
        )


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
        result = a.copied()
        result.merge(b)
    except InputError as error:
        return None, f"the row sample was dropped in merging: {error}"
    return result, ""


def _merged_segments(a: Profile, b: Profile) -> tuple[dict[str, Profile], dict[str, Any], list[str]]:
    """The segments of two profiles together, what `info` says of them, and what to warn of.

    They can only be had if all rows are segmented by the same: otherwise there are none, with a warning. A profile
    without rows does not matter.
    """
    if not any(profile.segments or profile.info.get("segment_by") for profile in (a, b)):
        return {}, {}, []
    sides = [profile for profile in (a, b) if profile.n] or [a, b]
    ways = {profile.info.get("segment_by") for profile in sides}
    by = ways.pop() if len(ways) == 1 else None
    if by is None:
        lost = any(profile.segments for profile in sides)
        said = " and ".join(f"by {profile.info.get('segment_by') or 'nothing'}" for profile in sides)
        return {}, {}, [f"the segments were dropped in merging: they are {said}"] if lost else []
    most = max(int(profile.info.get("max_segments") or DEFAULT_SEGMENTS) for profile in sides)
    segments: dict[str, Profile] = {}
    for profile in sides:
        for name, segment in profile.segments.items():
            segments[name] = segments[name].merge(segment) if name in segments else segment
    return bounded(segments, most), {"segment_by": by, "max_segments": most}, []


def bounded(segments: Mapping[str, Profile], most: int) -> dict[str, Profile]:
    """The `most` largest segments, ties by name, in their order; the others are merged into `OTHER_SEGMENT`, the last.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(segment_by="label")
        >>> profiler.update(labels=["cat", "dog", "cat"])
        >>> {name: segment.n for name, segment in bounded(profiler.profile().segments, 1).items()}
        {'cat': 2, 'other': 1}
    """
    named = sorted((name for name in segments if name != OTHER_SEGMENT), key=lambda name: (-segments[name].n, name))
    kept = set(named[:most])
    rest = [segment for name, segment in segments.items() if name not in kept]
    result = {name: segment for name, segment in segments.items() if name in kept}
    return result | {OTHER_SEGMENT: reduce(lambda a, b: a.merge(b), rest)} if rest else result
