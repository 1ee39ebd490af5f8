"""Which segments moved: the same rows looked at value by value, by classes or by sites.

A class that only one camera sees can change completely and hardly move the whole. So every value with enough rows on
both sides is compared for itself. That is many more tests, and they must not drown those of the whole: when there are
any, half of alpha is the whole's, the other half is shared equally by the families of the segments, a family being the
streams of one group in one segment. So the chance of a false alarm is still alpha for everything together
(Bonferroni's inequality, weighted).

What is in `OTHER_SEGMENT` is a remainder, not a population, and is not compared. Segments without rows on one side are
listed and decide nothing: a small window lacks rare classes by chance, and whether classes became more or less frequent
is tested in the stream of labels itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from lensai_integrations.drift.evidence import Side, compare_group
from lensai_integrations.drift.result import FEW, GONE, NEW, REMAINDER, GroupDrift, SegmentDrift
from lensai_integrations.profiles.names import LABEL, OTHER_SEGMENT, is_labels, label_names, shown
from lensai_integrations.profiles.profile import Profile

#: A segment with fewer rows on either side is not compared.
ENOUGH_ROWS: Final = 20


@dataclass(frozen=True)
class SegmentsEvidence:
    """The evidence of all segments, nothing decided yet.

    Attributes:
        by: What they are by; empty if they could not be compared.
        segments: All, in the baseline's order, the new ones last.
        families: How many families of tests there are.
        note: Why nothing could be compared; empty if it could.
    """

    by: str = ""
    segments: tuple[SegmentDrift, ...] = ()
    families: int = 0
    note: str = ""

    def judged(self, judge: Callable[[GroupDrift], GroupDrift]) -> tuple[SegmentDrift, ...]:
        """The segments with decisions, those that moved first, the larger effect first.

        Args:
            judge: Corrects and decides a group.
        """
        decided = (replace(each, groups=tuple(map(judge, each.groups))) for each in self.segments)
        return tuple(sorted(decided, key=_badness))


def compare_segments(baseline: Profile, window: Profile) -> SegmentsEvidence:
    """What is found in the segments of two profiles.

    Raises:
        DefinitionError: If a stream was measured differently on the two sides.

    Example:
        >>> compare_segments(Profile(), Profile()).by
        ''
    """
    if not (baseline.segments or window.segments):
        return SegmentsEvidence()
    by, theirs = (profile.info.get("segment_by") for profile in (baseline, window))
    if by != theirs or not isinstance(by, str):
        mine = f"by {by!r} in the baseline" if by else "not in the baseline"
        return SegmentsEvidence(
            note=f"segments were not compared: {mine}, {f'by {theirs!r}' if theirs else 'not'} in the window"
        )
    names = list(dict.fromkeys([*baseline.segments, *window.segments]))
    called = label_names(baseline.groups, window.groups) if by == LABEL else ()
    found = (_segment(name, baseline.segments.get(name), window.segments.get(name), by) for name in names)
    segments = tuple(replace(each, title=shown(each.name, called)) for each in found)
    families = sum(bool(group.tested) for segment in segments for group in segment.groups)
    return SegmentsEvidence(by, segments, families, _doubt(baseline, window, segments))


def _segment(name: str, before: Profile | None, after: Profile | None, by: str) -> SegmentDrift:
    n, m = (0 if profile is None else profile.n for profile in (before, after))
    reason = (
        REMAINDER
        if name == OTHER_SEGMENT
        else NEW
        if not n
        else GONE
        if not m
        else FEW
        if min(n, m) < ENOUGH_ROWS
        else ""
    )
    if reason or before is None or after is None:
        return SegmentDrift(name, n, m, (), reason)
    return SegmentDrift(name, n, m, tuple(_groups(before, after, by)))


def _groups(before: Profile, after: Profile, by: str) -> Iterator[GroupDrift]:
    for name in before.groups:
        if name in after.groups and not (
            is_labels(name) if by == LABEL else name == f"metadata/{by}"
        ):  # one value in a segment
            group = compare_group(Side.of(before.groups[name]), Side.of(after.groups[name]))
            if group.tested:
                yield group


def _badness(segment: SegmentDrift) -> tuple[bool, bool, float, int, int, str]:
    """Sort key: what moved, the larger effect first; then what was not compared by its rows, `OTHER_SEGMENT` last."""
    remainder = segment.reason == REMAINDER
    return not segment.drift, remainder, -segment.effect, -segment.n_window, -segment.n_baseline, segment.name


def _doubt(baseline: Profile, window: Profile, segments: tuple[SegmentDrift, ...]) -> str:
    """What may look new or gone because the other side has no segment for it."""
    sides = ((NEW, baseline, "baseline"), (GONE, window, "window"))
    unsure = [
        f"{reason} may be among the rows of {OTHER_SEGMENT!r} in the {side}"
        for reason, profile, side in sides
        if OTHER_SEGMENT in profile.segments and any(segment.reason == reason for segment in segments)
    ]
    return f"segments that are {' and those that are '.join(unsure)}; profile with like=baseline" if unsure else ""
