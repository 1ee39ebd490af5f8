"""Which segment a delivered image is in: the first values to come get one, the same in every process.

A value is a number in the rows, as its place in a table of names. Processes share the table as files of their ledger's
folder, one for each number: whoever links a file there first has named that number, for all. So nothing is locked, a
process that is killed leaves no name half written, and what is in `OTHER_SEGMENT` is there in every process.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.profiles.names import LABEL, OTHER_CODE, OTHER_SEGMENT, checked_segment_by, segment_name
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.raw.metadata import NUMBERS
from lensai_integrations.raw.sketches import RawSketches

NO_SEGMENT = f"rows are in the segment {OTHER_SEGMENT!r}, for by {{!r}} they have no segment: {{}}"
_NO_VALUE = "segment_by={!r}: no image has a value of it, so all are in the segment {!r}"


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


class SharedNames(SegmentNames):
    """The same in all processes that write to a folder.

    Args:
        stem: What the files are called, before their number.
        most: Named segments, at the most.
    """

    def __init__(self, stem: Path, most: int) -> None:
        super().__init__(most)
        self._stem = stem

    def _path(self, number: int | str) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{number}.segment")

    def _named(self, number: int, name: str) -> str:
        return written_once(self._path(number), name)

    def read(self) -> list[str]:
        """The names that all processes have given so far."""
        for number in range(len(self._codes), self._most + 1):
            if not self._path(number).exists():
                break
            self._codes[_text(self._path(number))] = number
        return self.names


def written_once(path: Path, text: str) -> str:
    """What is in a file: this text, unless another process was first."""
    own = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    if not path.exists():
        own.write_text(text, encoding="utf-8", newline="")
        try:
            os.link(own, path)  # unlike opening and writing, this is there whole or not at all
        except FileExistsError:
            pass
        finally:
            own.unlink(missing_ok=True)
    return _text(path)


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


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
    found = {named[code]: sketches.segments[code] for code in codes if code in sketches.segments}
    warnings = [_NO_VALUE.format(by, OTHER_SEGMENT)] if list(found) == [OTHER_SEGMENT] else []
    info = whole.info | {"segment_by": by, "max_segments": most, "warnings": [*whole.warnings, *warnings]}
    about = {"source": whole.source}
    segments = {key: Profile(each.groups(None, {}, name=name), None, dict(about)) for key, each in found.items()}
    return Profile(whole.groups, whole.rows, info, segments)
