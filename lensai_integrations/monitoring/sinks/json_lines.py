"""Events as lines of JSON in a file that is only ever appended to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.events import Event
from lensai_integrations.monitoring.sinks.base import Complain, Sink
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.storage.folders import write_all

#: How much of the end of a file is read to find what is in it already.
_TAIL_BYTES = 2**22
#: What every line begins with.
_START = b'{"id": '


class JSONLinesSink(Sink):
    """Appends every event as one line of JSON, on disk before `update` returns.

    A crash in the middle of a line is mended when the file is opened again, and no event is in it twice.

    Args:
        path: The file; its folder is made if absent.

    Raises:
        InputError: If it is a folder.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "drift.jsonl"
        >>> JSONLinesSink(path).tell(Event("1", "notice", "alarm", "production", 0.0, "It drifts."))
        >>> [event["text"] for event in read_events(path)]
        ['It drifts.']
    """

    repeatable = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"path={str(path)!r} is a folder: pass a file, e.g. 'drift.jsonl'")
        self._known: set[str] | None = None

    def open(self, baseline: Baseline | Profile, monitor: str, complain: Complain) -> None:
        """Mend the last line, and see which events are there already."""
        self._known = self._opened()

    def tell(self, event: Event) -> None:
        """Append the event, unless it is there."""
        if self._known is None:
            self._known = self._opened()
        if event.id in self._known:
            return
        line = json.dumps(event.to_dict(), allow_nan=False, ensure_ascii=False).encode("utf-8", "backslashreplace")
        try:
            append_line(self.path, line + b"\n")
        except OSError:
            self._known = None  # a part of the line may be there
            raise
        self._known.add(event.id)

    def _opened(self) -> set[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _mend(self.path)
        return {str(event.get("id")) for event in read_events(self.path, last_bytes=_TAIL_BYTES)}


def append_line(path: Path, line: bytes) -> None:
    """Append a line, which has its newline, and wait until the disk has it.

    Every step goes through `os`, so that a test can stop the process at each of them.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        write_all(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def read_events(path: str | Path, *, last_bytes: int | None = None) -> Iterator[dict[str, Any]]:
    """The events of a file, oldest first; lines that are no event are passed over.

    Args:
        path: The file; without it there are no events.
        last_bytes: Read no more than so much of its end.
    """
    path = Path(path)
    if not path.exists():
        return
    with path.open("rb") as file:
        if last_bytes is not None and (size := os.fstat(file.fileno()).st_size) > last_bytes:
            file.seek(size - last_bytes)
        for line in file:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event


def _mend(path: Path) -> None:
    """End the last line, or take it away if it is a part of one of ours."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        last = file.read().rsplit(b"\n", 1)[-1]
        if not last:
            return
        if _is_torn(last):
            file.truncate(size - len(last))
        else:
            file.write(b"\n")
        file.flush()
        os.fsync(file.fileno())


def _is_torn(line: bytes) -> bool:
    if line[: len(_START)] != _START[: len(line)]:
        return False  # somebody else's
    try:
        json.loads(line)
    except ValueError:
        return True
    return False
