"""One profile per value of a label or of metadata: how many there may be, what they are called, how they merge.

A profile with segments says in its `info` what they are by, `segment_by`, and how many there may be, `max_segments`.
The rows of all further values, and of none, are in the segment `OTHER`. So group by group, the rows of the segments add
up to those of the whole, invalid ones included.

Merging goes value by value; where there are more than `max_segments` after it, the largest stay and the others
merge into `OTHER`. The sums are therefore associative always, and each segment's counts as long as nothing had to go
into `OTHER`: what is in there is not taken apart again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Any, Final

from lensai_integrations.errors import FormatError, InputError

if TYPE_CHECKING:
    from lensai_integrations.profile import Profile

#: The rows of values without a segment of their own, and of no value. A value of this name shares it.
OTHER: Final = "other"
#: Its number where segments are numbers.
OTHER_CODE: Final = 0
#: `segment_by` for the labels of the batches.
LABEL: Final = "label"
#: Named segments of a profile, if nobody says otherwise, and at the most.
DEFAULT_SEGMENTS: Final = 20
MOST_SEGMENTS: Final = 1000
#: Characters of a segment's name.
LONGEST_NAME: Final = 200


def checked_segment_by(by: Any, most: Any) -> str | None:
    """`segment_by` if it and `max_segments` can be used.

    Raises:
        InputError: If one cannot.

    Example:
        >>> checked_segment_by("label", 20)
        'label'
    """
    if by is not None and not (isinstance(by, str) and is_name(by)):
        raise InputError(f"segment_by={by!r} is unknown: pass 'label', the name of some metadata, or None")
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_SEGMENTS:
        raise InputError(f"max_segments={most!r} should be a whole number from 1 to {MOST_SEGMENTS}")
    return by


def is_name(name: str) -> bool:
    """Whether a segment can be called so: not empty, not too long, and text that can be written as UTF-8.

    Example:
        >>> is_name("überbelichtet"), is_name(""), is_name("x" * 201)
        (True, False, False)
    """
    return 0 < len(name) <= LONGEST_NAME and not any("\ud800" <= character <= "\udfff" for character in name)


def segment_name(value: Any) -> str | None:
    """What the segment of a value is called; None where it has none, as without a value or by no possible name.

    Raises:
        InputError: If it is no string, whole number or None.

    Example:
        >>> segment_name("north"), segment_name(7), segment_name(True), segment_name(None)
        ('north', '7', '1', None)
    """
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, str | int | None):
        raise InputError(f"segments should be strings, whole numbers or None, one per row, not {value!r}")
    name = "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)
    return name if is_name(name) else None


def merged_segments(a: Profile, b: Profile) -> tuple[dict[str, Profile], dict[str, Any], list[str]]:
    """The segments of two profiles together, what `info` says of them, and what to warn of.

    They can only be had if all rows are segmented by the same: otherwise there are none, with a warning. A profile
    without rows does not matter.
    """
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
    """The `most` largest segments, ties by name, in their order; the others are merged into `OTHER`, which comes last.

    Example:
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler(segment_by="label")
        >>> profiler.update(labels=["cat", "dog", "cat"])
        >>> {name: segment.n for name, segment in bounded(profiler.profile().segments, 1).items()}
        {'cat': 2, 'other': 1}
    """
    named = sorted((name for name in segments if name != OTHER), key=lambda name: (-segments[name].n, name))
    kept = set(named[:most])
    rest = [segment for name, segment in segments.items() if name not in kept]
    result = {name: segment for name, segment in segments.items() if name in kept}
    return result | {OTHER: reduce(lambda a, b: a.merge(b), rest)} if rest else result


def check_read(info: Mapping[str, Any], names: list[Any], nested: bool) -> None:
    """Refuse segments that a file should not have.

    Args:
        info: What the profile says of its segments.
        names: Their names.
        nested: Whether a segment has segments itself.

    Raises:
        FormatError: If there are too many, a name is none or there twice, or nothing says what they are by.

    Example:
        >>> check_read({"segment_by": "label", "max_segments": 2}, ["cat", "dog", "other"], nested=False)
    """
    most = info.get("max_segments")
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_SEGMENTS:
        raise FormatError(f"max_segments is {most!r} for {len(names)} segments: 1 to {MOST_SEGMENTS} are read")
    if not isinstance(info.get("segment_by"), str) or nested:
        raise FormatError("a profile has segments, and nothing says what they are by, or they have segments themselves")
    if not all(isinstance(name, str) and is_name(name) for name in names) or len(set(names)) < len(names):
        raise FormatError(f"segments need different names of 1 to {LONGEST_NAME} characters")
    if len(names) > most + (OTHER in names):
        raise FormatError(f"{len(names)} segments are more than max_segments={most} and {OTHER!r}")
