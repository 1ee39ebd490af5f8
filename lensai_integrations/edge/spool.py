"""A folder of uploads that could not be delivered, each in one file that is there whole or not at all.

A file is a line of JSON (where the upload goes, of which sensor, of when) and the archive, and is named by its
timestamp and the sha256 of all of that. So the same upload is kept once, a damaged file is recognised, and sorting the
names gives the oldest first. The token is in no file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from lensai_integrations.edge.sending import Upload, now_for
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.storage.folders import MANIFEST, lock, open_regular, replace_file

#: Says to people what the folder is, and to `lensai push` that it is one, when it is empty too.
MARK: Final = "lensai-spool.txt"
#: Where uploads go that a server will never take.
REFUSED: Final = "refused"
#: Largest upload that is kept or read, in bytes.
MAX_UPLOAD_BYTES: Final = 2**28
#: Seconds after which an unfinished file is of a process that was killed.
ABANDONED: Final = 3600.0

_FORMAT, _VERSION = "lensai-upload", 1
#: Windows lets nobody read what is locked, nor remove what is open.
_READABLE_WHILE_LOCKED: Final = os.name != "nt"
_MAX_HEAD_BYTES = 2**14
#: Bytes of a reason that are read.
_MOST_REASON = 1000
_NAME = re.compile(r"([0-9]{10,13})-([0-9a-f]{32})\.upload")
_TEXT = """Uploads to a LensAI server that could not be delivered. Deliver them with

    lensai push FOLDER

with the token in LENSAI_TOKEN or --token-file. Delete a .upload file to give it up. What the server has refused is in
refused/, each with the reason in a .txt beside it; FOLDER/refused is pushed in the same way when the cause is gone.
"""


def is_spool(folder: Path) -> bool:
    """Whether a folder is one of undelivered uploads.

    Example:
        >>> is_spool(Path("/nonexistent"))
        False
    """
    if folder.name == REFUSED and (folder.parent / MARK).is_file():
        return folder.is_dir()
    return folder.is_dir() and (
        (folder / MARK).is_file() or any(_NAME.fullmatch(path.name) for path in waiting(folder))
    )


def checked_spool(spool: str | Path) -> Path:
    """A folder that is or may become a spool.

    Raises:
        InputError: If it is a file, or holds a saved profile: `lensai push` could not tell what to do with both.

    Example:
        >>> checked_spool("lensai_spool").name
        'lensai_spool'
    """
    folder = Path(spool)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"spool={str(folder)!r} is a file: pass a folder, or None to keep nothing")
    if (folder / MANIFEST).exists():
        raise InputError(f"spool={str(folder)!r} holds a saved profile: pass a folder of its own")
    return folder


def keep(folder: Path, upload: Upload, max_bytes: int) -> Path:
    """Keep an upload. Of a crash at any point it is there whole, or not at all.

    Args:
        folder: The spool; made if absent.
        upload: What could not be delivered.
        max_bytes: Most bytes that all files of the spool may have together, what was refused included.

    Returns:
        The file.

    Raises:
        OSError: If the spool or the disk is full, or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> upload = Upload("https://lensai.example/upload/", "door-3", 1719393854, b"...")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_upload(keep(Path(folder), upload, 2**20)) == upload
        True
    """
    content = _content(upload)
    path = folder / _name(upload, content)
    folder.mkdir(parents=True, exist_ok=True)
    used = _size(folder, but=path.name)
    if used + len(content) > max_bytes or len(content) > MAX_UPLOAD_BYTES:
        raise OSError(f"it has {used} of at most {max_bytes} bytes, and the upload {len(content)}")
    if not (folder / MARK).exists():
        replace_file(folder / MARK, _TEXT.encode())
    replace_file(path, content)
    return path


def _content(upload: Upload) -> bytes:
    head = {
        "format": _FORMAT, "version": _VERSION,
        "endpoint": upload.endpoint, "sensor_id": upload.sensor_id, "timestamp": upload.timestamp,
    }  # fmt: skip
    head |= {"fresh": True} if upload.fresh else {}
    return json.dumps(head).encode() + b"\n" + upload.archive


def _name(upload: Upload, content: bytes) -> str:
    return f"{upload.timestamp:010d}-{_digest(content)}.upload"


def waiting(folder: Path) -> list[Path]:
    """The files of uploads, oldest first, and last those whose names are not as they should be.

    Raises:
        OSError: If the folder cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     waiting(Path(folder))
        []
    """
    files = [path for path in folder.iterdir() if path.suffix == ".upload" and not path.name.startswith(".")]
    times = {path: time_of(path.name) for path in files}
    return sorted(files, key=lambda path: (math.inf if times[path] is None else times[path], path.name))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a file, so that no other push sends it; a process that ends lets go of it, however it ends.

    Raises:
        BlockingIOError: If another push has it.
        FileNotFoundError: If another push has delivered it.
        OSError: If it is a link, or cannot be opened.
    """
    with contextlib.ExitStack() as until_sent:
        if _READABLE_WHILE_LOCKED:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
            until_sent.callback(os.close, file)
            _held(lambda: lock(file))
            delivered = os.fstat(file).st_nlink == 0
        else:
            beside = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, thread_local=False)
            _held(lambda: until_sent.enter_context(beside))
            delivered = not path.exists()
        if delivered:
            raise FileNotFoundError(f"{path} has been delivered")
        yield


def _held(take: Callable[[], object]) -> None:
    """Take a lock, as far as the disk has locks: without, two pushes may send one upload twice, which servers take."""
    try:
        take()
    except Timeout as error:
        raise BlockingIOError(errno.EWOULDBLOCK, "another push has it") from error
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise


def read_endpoint(path: Path) -> str:
    """Where an upload goes, without reading all of it.

    Raises:
        FormatError: If it is no file of an upload.
        OSError: If it cannot be read.
    """
    with open_regular(_regular(path)) as file:
        return str(_head(file.readline(_MAX_HEAD_BYTES))["endpoint"])


def read_upload(path: Path) -> Upload:
    """An upload, after every check.

    Raises:
        FormatError: If it is no file of an upload, was changed or cut short, or is too large.
        OSError: If it cannot be read.
    """
    with open_regular(_regular(path)) as file:
        content = file.read(MAX_UPLOAD_BYTES + 1)  # one more makes another digest
    line, _, archive = content.partition(b"\n")
    head = _head(line)
    if path.name != f"{head['timestamp']:010d}-{_digest(content)}.upload":
        raise FormatError("it is not what was written: truncated or changed")
    try:
        return Upload(head["endpoint"], head["sensor_id"], head["timestamp"], archive, head.get("fresh", False))
    except InputError as error:
        raise FormatError(f"it is no upload: {error}") from error


def set_aside(path: Path, why: str) -> Path:
    """Move an upload to those that were refused, where the reason is beside it; one that is there already stays.

    Returns:
        Their folder.
    """
    folder = path.parent if path.parent.name == REFUSED else path.parent / REFUSED
    folder.mkdir(exist_ok=True)
    replace_file(_reason(folder / path.name), f"{why}\n".encode(errors="replace"))
    os.replace(path, folder / path.name)  # noqa: PTH105 - like `remove`
    return folder


def refused(folder: Path) -> dict[str, str]:
    """Why the uploads of a spool were refused that were, by file name, oldest first.

    Example:
        >>> refused(Path("/nonexistent"))
        {}
    """
    aside = folder / REFUSED
    if not aside.is_dir():
        return {}
    return {path.name: _read_reason(path) for path in waiting(aside)}


def _reason(path: Path) -> Path:
    return path.with_suffix(".txt")


def _read_reason(path: Path) -> str:
    """The reason beside an upload that was refused; releases before this one left none."""
    try:
        with open_regular(_regular(_reason(path))) as file:
            text = file.read(_MOST_REASON).decode(errors="replace")
    except (OSError, FormatError):
        return "no reason is kept"
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def time_of(name: str) -> int | None:
    """The unix time in seconds that is in the name of an upload's file.

    Example:
        >>> time_of("1719393854-00112233445566778899aabbccddeeff.upload")
        1719393854
    """
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def stamp(path: Path, upload: Upload) -> tuple[Path, Upload]:
    """Give an upload of now that was kept while no clock was set the time of now. It stays that, whenever it is sent.

    A process that is killed between the two steps leaves both.

    Raises:
        UndeliveredError: If none is set now, either.
        OSError: If it cannot be written.
    """
    upload = replace(upload, timestamp=now_for(upload))
    content = _content(upload)
    stamped = path.with_name(_name(upload, content))
    replace_file(stamped, content)
    remove(path)
    return stamped, upload


def remove(path: Path) -> None:
    """Remove an upload that was delivered; through `os`, so that a test can stop the process here."""
    os.unlink(path)  # noqa: PTH108
    _reason(path).unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left."""
    for path in folder.glob(".*.partial"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > ABANDONED:
                path.unlink()


def _size(folder: Path, but: str) -> int:
    """Bytes of all uploads, those that were refused and those that are not whole included, one name left out."""
    total = 0
    for path in [*folder.glob("*.upload"), *folder.glob(".*.partial"), *folder.glob(f"{REFUSED}/*.upload")]:
        with contextlib.suppress(FileNotFoundError):  # another process has just delivered it
            total += path.lstat().st_size if path.name != but else 0
    return total


def _regular(path: Path) -> Path:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise FormatError("it is no regular file")
    return path


def _head(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError("it does not begin with a line of JSON") from error
    if not isinstance(head, dict) or head.get("format") != _FORMAT or head.get("version") != _VERSION:
        raise FormatError(f"it is no upload of this release (format {_FORMAT!r}, version {_VERSION})")
    kinds = {"endpoint": str, "sensor_id": str, "timestamp": int, "fresh": bool}
    if wrong := [name for name, kind in kinds.items() if type({"fresh": False, **head}.get(name)) is not kind]:
        raise FormatError(f"its {wrong[0]} is missing or of the wrong kind")
    return head


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
