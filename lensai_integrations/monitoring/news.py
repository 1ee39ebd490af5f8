"""What moved in a window that people have not been told of: a second drift while the first lasts.

A drift that lasts is not found alike in every window: of its streams now these are certain, now those. So not all that
was not named before is news. It is if it is certain at the rate of an alarm, moved at least half as far as what moved
farthest, and is beyond doubt, or was there in the window before as well. New is what was not told: a group, a stream,
one that went to the other side, or much farther than told. What was told is known until a recovery, so the same is not
told twice, and there is an end to what can be news. In a group of many streams (columns of a layer) chance brings up
other ones in every window: there each has to be in two windows in a row, with half of what moved as far in its group,
and once many of them have moved, all are known.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lensai_integrations.drift.result import LISTED, DriftReport, GroupDrift, SegmentDrift, StreamDrift

#: Names that are remembered as told, and that may be news in the next window.
KNOWN, MAYBE = 200, 50
#: To which side something went: where the median did; neither; this way once, that way another time; all of a group.
UP, DOWN, NEITHER, BOTH, ALL = "up", "down", "", "both", "all"
#: A median has moved if by more than this share of the middle 90%, as the words for it have it.
_MOVED: Final = 0.1
#: By how much an effect has to have grown since it was told, at least, and in errors of a share of the window's rows.
_GROWN, _ERRORS = 0.3, 3.0
#: Beyond doubt is what has a p-value of at most this share of the rate of an alarm.
_DOUBT: Final = 1e-3

Known = Mapping[str, tuple[str, float]]


@dataclass(frozen=True)
class Mover:
    """Something that moved in a window.

    Attributes:
        name: Of a stream, a group, or `"segment cats"`.
        effect: How far, as a share of the rows.
        side: `UP` or `DOWN`, where the median went; of categories the one that rose most; else `NEITHER`.
        certain: Whether at the rate of an alarm.
        sure: Whether beyond doubt.
        group: Whether it is a whole group, and with side `ALL` so many of its streams that they are not told apart.
        within: The group of many streams that it is one of; empty if there are few.
        fell: Of categories, those whose share fell.
        error: What its effect may differ by from one window to the next.
    """

    name: str
    effect: float = 1.0
    side: str = NEITHER
    certain: bool = True
    sure: bool = True
    group: bool = False
    within: str = ""
    fell: tuple[str, ...] = ()
    error: float = 0.0


def movers(report: DriftReport, rate: float) -> tuple[Mover, ...]:
    """What moved: groups, then streams and segments, the largest effect first.

    Args:
        report: Of the window.
        rate: False-alarm rate of an alarm.

    Example:
        >>> hue = StreamDrift("inputs/hue", "numbers", "", True, 0.5, 1e-4, 1e-4, baseline=(0, 1, 2), window=(2, 3, 4))
        >>> report = DriftReport(0.01, 0.1, 1, "", "", 100, 50, (GroupDrift("inputs", 100, 50, 0, 0, (hue,)),))
        >>> [(mover.name, mover.side) for mover in movers(report, 0.01)]
        [('inputs', ''), ('inputs/hue', 'up')]
    """
    found = [*_of_groups(report.groups, rate), *_of_segments(report.segments, rate)]
    return tuple(sorted(found, key=lambda mover: (not mover.group, -mover.effect)))


def _of_groups(groups: Sequence[GroupDrift], rate: float) -> Iterator[Mover]:
    for group in groups:
        if not group.drift:
            continue
        p, effect = _p_value([group]), max((stream.effect for stream in group.moved), default=1.0)
        many = group.summed_up and len(group.moved) > LISTED
        error = 1 / math.sqrt(max(group.n_window, 1))
        yield Mover(
            group.name, effect, ALL if many else NEITHER, p <= rate, p <= _DOUBT * rate, group=True, error=error
        )
        for stream in () if many else group.moved:
            side, fell = _side(stream)
            certain, sure = stream.p_value <= rate, stream.p_value <= _DOUBT * rate
            within = group.name if group.summed_up else ""
            yield Mover(stream.stream, stream.effect, side, certain, sure, False, within, fell, error)


def _of_segments(segments: Sequence[SegmentDrift], rate: float) -> Iterator[Mover]:
    for segment in segments:
        if segment.drift:
            p, error = _p_value(segment.groups), 1 / math.sqrt(max(segment.n_window, 1))
            name = f"segment {segment.name}"
            yield Mover(name, segment.effect, NEITHER, p <= rate, p <= _DOUBT * rate, within="segments", error=error)


def _p_value(groups: Sequence[GroupDrift]) -> float:
    p_values = [stream.p_value for group in groups for stream in group.moved]
    p_values += [group.vectors.p_value for group in groups if group.vectors is not None and group.vectors.drift]
    return min(p_values, default=1.0)


def _side(stream: StreamDrift) -> tuple[str, tuple[str, ...]]:
    """To which side a stream went, and of categories those that fell."""
    if stream.shares:
        name, before, after = max(stream.shares, key=lambda share: share[2] - share[1])
        fell = tuple(name for name, before, after in stream.shares if after < before)
        return name if after > before else NEITHER, fell
    (low, middle, high), (_, after, _) = stream.baseline, stream.window
    moved = after - middle
    if not abs(moved) > _MOVED * (high - low):  # nor if one of them is not known
        return NEITHER, ()
    return UP if moved > 0 else DOWN, ()


def is_new(mover: Mover, known: Known) -> bool:
    """Whether people were not told of it: not at all, not to this side, or not nearly so far.

    Args:
        mover: What moved.
        known: To which side and how far, by name, what was told had moved.

    Example:
        >>> known = {"hue": (DOWN, 0.4), "top": ("dog", 0.4)}
        >>> is_new(Mover("hue", 0.5, UP), known), is_new(Mover("top", 0.5, "cat", fell=("dog",)), known)
        (True, True)
        >>> is_new(Mover("hue", 0.5, DOWN), known), is_new(Mover("hue", 0.9, DOWN), known)
        (False, True)
    """
    if known.get(mover.within, (NEITHER, 0.0))[0] == ALL:
        return False
    if mover.name not in known:
        return len(known) < KNOWN or mover.group
    side, effect = known[mover.name]
    if mover.group:
        return mover.side != side and mover.side == ALL
    if mover.effect >= max(2 * effect, effect + max(_GROWN, _ERRORS * mover.error)):
        return True
    return side in mover.fell or {side, mover.side} == {UP, DOWN}


def news(
    found: Sequence[Mover], known: Known, maybe: Collection[str] = ()
) -> tuple[tuple[Mover, ...], tuple[str, ...]]:
    """What of a window people should be told though they know of a drift.

    Args:
        found: What moved, see `movers`.
        known: What was told, see `is_new`.
        maybe: What might have been news in the window before.

    Returns:
        What is news, the farthest first; and the names that are if the next window has them again.

    Example:
        >>> blur, dark, known = Mover("sharpness", 0.8), Mover("brightness", 0.3), {"sharpness": (DOWN, 0.8)}
        >>> [mover.name for mover in news([blur, dark], known)[0]]  # not half as far
        []
        >>> [mover.name for mover in news([dark], known)[0]]
        ['brightness']
    """
    farthest = max((mover.effect for mover in found if mover.certain), default=0.0)
    far = [mover for mover in found if mover.certain and 2 * mover.effect >= farthest]
    new = [mover for mover in far if is_new(mover, known)]
    told = [mover for mover in new if mover.name in maybe or (mover.sure and not mover.within)]
    beside, among = (Counter(mover.within for mover in movers) for movers in (far, told))
    told = [mover for mover in told if not mover.within or 2 * among[mover.within] >= beside[mover.within]]
    return tuple(told), tuple(mover.name for mover in new[:MAYBE])


def with_told(known: Known, found: Sequence[Mover]) -> dict[str, tuple[str, float]]:
    """What people know once they were told of a window: by name the side and the largest effect.

    Groups are always added, others up to `KNOWN`.

    Example:
        >>> with_told({"a": (UP, 0.3), "b": (UP, 0.5)}, [Mover("a", 0.1, DOWN), Mover("c", 0.2)])
        {'a': ('both', 0.3), 'b': ('up', 0.5), 'c': ('', 0.2)}
    """
    told = dict(known)
    for mover in found:
        if mover.name in told or len(told) < KNOWN or mover.group:
            side, effect = told.get(mover.name, (mover.side, 0.0))
            other = side and mover.side and side not in (mover.side, ALL)
            told[mover.name] = (BOTH if other else side or mover.side, round(max(effect, mover.effect), 4))
    return told


def finite(value: float) -> float | None:
    """A number as JSON knows it; None if it is not one.

    Example:
        >>> finite(0.5), finite(math.nan)
        (0.5, None)
    """
    return float(value) if math.isfinite(value) else None
