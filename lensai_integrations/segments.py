"""One profile per value of a label or of metadata: how many there may be, and what they are called.

A profile with segments says in its `info` what they are by, `segment_by`, and how many there may be, `max_segments`.
The rows of all further values, and of none, are in the segment `OTHER_SEGMENT`. So group by group, the rows of the
segments add up to those of the whole, invalid ones included.

Merging goes value by value; where there are more than `max_segments` after it, the largest stay and the others
merge into `OTHER_SEGMENT`. The sums are therefore associative always, and each segment's counts as long as nothing had
to go into `OTHER_SEGMENT`: what is in there is not taken apart again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lensai_integrations.errors import FormatError, InputError

#: The rows of values without a segment of their own, and of no value. A value of this name shares it.
OTHER_SEGMENT: Final = "other"
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
    if len(names) > most + (OTHER_SEGMENT in names):
        raise FormatError(f"{len(names)} segments are more than max_segments={most} and {OTHER_SEGMENT!r}")
