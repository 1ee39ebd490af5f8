"""Files that survive a crash of the process or of the machine: whole or not there, and not forgotten by the disk.

Every step goes through `os`, so that a test can stop the process at each of them.
"""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two monitors from one folder there
    fcntl = None  # type: ignore[assignment]


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it. A crash may leave a part of it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _write_all(file, content)
        os.fsync(file)
    finally:
        os.close(file)


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part of it.

    Args:
        path: The file.
        content: Its new content.
        sync: Wait until the disk has it, so that the new content outlives a loss of power too.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replace_file(Path(folder) / "a", b"new")
        ...     (Path(folder) / "a").read_bytes()
        b'new'
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        if sync:
            write_synced(partial, content)
        else:
            partial.write_bytes(content)
        os.replace(partial, path)  # noqa: PTH105 - see the module
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names of a folder's files."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def append_line(path: Path, line: bytes) -> None:
    """Append a line, which has its newline, and wait until the disk has it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _write_all(file, line)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


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
