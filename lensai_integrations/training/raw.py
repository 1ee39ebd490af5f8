"""Delivered images: what each `ProfileImages` in the data has collected joins the profile of its pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lensai_integrations.problems import Problems
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile, bounded
from lensai_integrations.profiling.delivered_images import Collector, alive
from lensai_integrations.training.collectors import collectors_in

_SHARED = (
    "one ProfileImages serves the data of both {} and {}, so its images cannot be told apart and are in neither"
    " profile: give each its own"
)
_STRAY = (
    "ProfileImages({0!r}) has seen {1:,} images of this fit and was found in none of its data sets, so they are in no"
    " profile: let the data set or its loader hold it, as an attribute, in a Compose or in the collate_fn, or take them"
    " yourself with its profile()"
)
_TWO_WAYS = (
    "the segments of {} were left out: they are by {!r} and the others by {!r}, and a profile has segments by one thing"
    " only; pass the same segment_by to the callback and to ProfileImages, or to one of them alone"
)


class RawImages:
    """The collectors in the data of each kind of pass.

    Workers transform ahead of the training, and start before any callback is asked. So nothing is reset when a pass
    begins; when it ends, all of its images have been delivered, and what was collected is taken out.

    Args:
        problems: Where it is reported what could not be joined.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._found: dict[str, dict[Collector, int]] = {}
        self._before = {collector.folder: collector.count for collector in alive()}

    def find(self, source: str, loader: Any) -> None:
        """Remember the collectors in what batches come from.

        Args:
            source: Of which pass, be it profiled or not: what serves two is in neither profile.
            loader: A loader or data set; None if it is not known.
        """
        if source not in self._found and loader is not None:
            with self._problems.caught("delivered images"):
                self._found[source] = collectors_in(loader)

    def begin(self, source: str, loader: Any) -> None:
        """The same, leaving out what was collected so far: for a sanity check, or to build a model."""
        self.find(source, loader)
        for collector in self._found.get(source, {}):
            collector.reset()

    def join(self, source: str, profile: Profile) -> None:
        """Add what was collected in a pass to the pass's profile, and begin anew."""
        rows = max((group.n + group.invalid for group in profile.groups.values()), default=0)
        warnings = []
        for collector in self._found.get(source, {}):
            if self._is_others(collector, source) or self._is_shared(collector, source):
                continue
            delivered = collector.profile(source)
            collector.reset()
            name = _free(collector.name, profile.groups)
            _add(delivered.groups, profile.groups, collector.name, name)
            warnings += [*delivered.warnings, *_difference(name, delivered.n, rows, source)]
            warnings += _join_segments(delivered, profile, collector.name, name)
        if warnings:
            profile.info["warnings"] = [*profile.warnings, *warnings]

    def say_strays(self) -> None:
        """Report collectors that images came to during the fit, and that belong to no data that was found."""
        found = {each.folder for collectors in self._found.values() for each in collectors}
        strays: dict[str, int] = {}
        for collector in alive():
            seen = collector.count - self._before.get(collector.folder, 0)
            if seen > 0 and collector.folder not in found:
                strays[collector.name] = strays.get(collector.name, 0) + seen
        for name, seen in sorted(strays.items()):
            self._problems.note(f"delivered images of {name}", _STRAY.format(name, seen))

    def _is_shared(self, collector: Collector, source: str) -> bool:
        for other, collectors in self._found.items():
            if other != source and collector in collectors and not self._is_others(collector, other):
                self._problems.note(collector.name, _SHARED.format(*sorted((source, other))))
                return True
        return False

    def _is_others(self, collector: Collector, source: str) -> bool:
        """Whether it was only reached through what knows the data of all passes, such as a configuration: it is nearer
        to another pass, and this one has one of the same name nearer."""
        steps = self._found[source][collector]
        nearer = any(each.name == collector.name and own < steps for each, own in self._found[source].items())
        return nearer and any(found.get(collector, steps) < steps for found in self._found.values())


def _free(name: str, taken: Any) -> str:
    """The name, or the same with a number where another group has it."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _add(groups: Mapping[str, Group], to: dict[str, Group], name: str, called: str) -> None:
    """Add groups to those of a profile, the one of this name as it is to be called there."""
    for key, group in groups.items():
        group.name = called if key == name else key
        to.setdefault(group.name, group)


def _join_segments(delivered: Profile, profile: Profile, name: str, called: str) -> list[str]:
    """Add the segments of delivered images to those of the pass, where these are by the same or there are none.

    Returns:
        Why they were left out, if they were.
    """
    by = delivered.info.get("segment_by")
    others = profile.info.get("segment_by")
    if by is None:
        return []
    if others not in (None, by):
        return [_TWO_WAYS.format(called, by, others)]
    most = max(int(each.info.get("max_segments") or 1) for each in (delivered, profile))
    for key, segment in delivered.segments.items():
        own = profile.segments.setdefault(key, Profile(info=dict(segment.info)))
        _add(segment.groups, own.groups, name, called)
    profile.segments = bounded(profile.segments, most)
    profile.info |= {"segment_by": by, "max_segments": most}
    return []


def _difference(name: str, delivered: int, rows: int, source: str) -> list[str]:
    if delivered > rows:
        return [
            f"{name} has {delivered - rows:,} images more than the {rows:,} of {source}: loader workers had prefetched"
            " them, and they were never used"
        ]
    if delivered < rows:
        return [f"{name} has {delivered:,} images of the {rows:,} of {source}: the others did not pass through it"]
    return []
