"""Files that are appended to, and files that are locked: what a crash of the process or of the machine leaves usable.

Every step goes through `os`, so that a test can stop the process at each of them.
"""

from __future__ import annotations

import os
from pathlib import Path

from lensai_integrations.storage import write_all

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two monitors from one folder there
    fcntl = None  # type: ignore[assignment]


def append_line(path: Path, line: bytes) -> None:
    """Append a line, which has its newline, and wait until the disk has it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        write_all(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def lock(path: Path) -> int:
    """Hold a file for this process until it is closed or the process ends, however it ends.

    Returns:
        The open file; `os.close` lets go of it.

    Raises:
        BlockingIOError: If somebody else holds it.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file
