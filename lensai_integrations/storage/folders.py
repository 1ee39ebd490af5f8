"""Folders on disk that hold arrays and a manifest, written so that a reader can trust or refuse them.

A folder may come from a tracking server, a device or a stranger, so nothing in it is believed before it is checked: no
pickle, sizes bounded before anything is allocated, names without separators, a sha256 for every file, that of the
manifest at its own end.

Several processes may save to one folder and read it, and each may be killed at any point. Writers take turns. Each puts
its files beside those that are there, under names like `.profile.npz.next`, and last the manifest: with that the save
is made. Then the files get their names, again the manifest last. A reader who finds files that are not what the
manifest says looks whether they are those of a made save; the next writer gives these their names. So a folder holds
the older save until it holds the newer one. Readers take no turns and keep nobody waiting: where nothing is whole and
somebody is writing, they read again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final

from filelock import lock_descriptor, unlock_descriptor
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError, InputError, InUseError
from lensai_integrations.problems import pass_on, suppressed
from lensai_integrations.storage.checked_json import from_json, to_json
from lensai_integrations.storage.npz import MAX_FILE_BYTES, pack, unpack

MANIFEST: Final = "manifest.json"
ARRAYS: Final = "profile.npz"
#: What may be beside them.
TEXTS: Final = ("streams.csv", "segments.csv", "report.html")
FORMAT: Final = "lensai"
#: Since 2 the manifest ends in its own sha256; since 3 names of groups follow from what they hold.
FORMAT_VERSION: Final = 3
#: What a manifest says of its own folder.
_OWN_KEYS: Final = ("format", "format_version", "files", "sha256")
#: Largest size in bytes that is read.
MAX_MANIFEST_BYTES: Final = 64 * 2**20
#: Largest size in bytes of all files of a folder together.
MAX_FOLDER_BYTES: Final = MAX_FILE_BYTES + 2**28
#: Seconds that a save waits for others to the same folder, and a reader for a folder that is being written.
MOST_WAITING: Final = 60.0

_BETWEEN_LOOKS: Final = 0.01
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SEAL: Final = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n\}')
_SEAL_BYTES: Final = 81
_LOCK: Final = ".lock"
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0)
#: What a save may leave that is killed, one of an earlier release too.
_LEFT: Final = re.compile(
    rf"\.\.?({'|'.join(map(re.escape, (MANIFEST, ARRAYS, *TEXTS)))})(\.next|(\.next)?\.\d+\.[0-9a-f]+\.partial)"
)


def files_of(
    manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of a folder, whole and in memory: `profile.npz`, the texts, and last `manifest.json`, which lists them.

    Args:
        manifest: JSON values; the keys `format`, `format_version`, `files` and `sha256` are replaced, or added.
        arrays: Numeric arrays by name (`group/part/name`).
        texts: Some of `TEXTS` with what is in them.

    Raises:
        InputError: If the manifest is none that JSON can hold, or something is larger than what is read again.

    Example:
        >>> list(files_of({"kind": "profile"}, {}, {"streams.csv": "stream"}))
        ['profile.npz', 'streams.csv', 'manifest.json']
    """
    contents = {ARRAYS: pack(arrays), **{name: _encoded(name, text) for name, text in texts.items()}}
    files = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in contents.items()}
    content = {key: value for key, value in manifest.items() if key not in _OWN_KEYS}
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **content, "files": files}
    text = to_json(whole, "the manifest", indent=1)
    if len(text) + _SEAL_BYTES > MAX_MANIFEST_BYTES:
        raise InputError(
            f"the manifest has {len(text)} bytes, and {MAX_MANIFEST_BYTES} are read: profile fewer streams"
        )
    return {**contents, MANIFEST: _sealed(text)}


def _encoded(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} has something in it that cannot be written as UTF-8: {error}") from error


def _sealed(manifest: bytes) -> bytes:
    """A manifest with the sha256 of all that comes before it as its last value."""
    start = manifest.removesuffix(b"\n}")
    return start + b',\n "sha256": "%s"\n}' % hashlib.sha256(start).hexdigest().encode()


def write_folder(
    folder: Path, manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]
) -> None:
    """Write a folder that `read_folder` reads; what is given and raised is that of `files_of` and `write_files`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_folder(Path(folder), {"kind": "profile"}, {}, {})
        ...     read_folder(Path(folder))[0]["kind"]
        'profile'
    """
    write_files(folder, files_of(manifest, arrays, texts))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what `files_of` made.

    Then the folder holds this save; or that of another process which saved there after it; never files of both, and at
    no time neither. Files that an older save has written and this one does not are removed; whatever else is there
    stays.

    Args:
        folder: Made if absent; files of the same names are replaced.
        files: What is in each file, the manifest last.

    Raises:
        InputError: If `folder` is a file.
        InUseError: If another process is saving there and does not come to an end.
        OSError: If the disk is full or the folder cannot be written; what was there before is there still.
    """
    if folder.is_file():
        raise InputError(f"folder={str(folder)!r} is a file; pass a folder to save to")
    folder.mkdir(parents=True, exist_ok=True)
    with turn(folder) as alone:
        if alone:
            _finish_older(folder)
        try:
            for name, content in files.items():
                put = replace_file if name == MANIFEST else _put
                put(_next(folder / name), content)
        except BaseException:
            if not _next(folder / MANIFEST).exists():
                _remove_next(folder)
            raise
        _finish(folder, files)


def _next(path: Path) -> Path:
    """Where a file of a save is until the save is made."""
    return path.with_name(f".{path.name}.next")


def _remove_next(folder: Path) -> None:
    """Remove what a save has left that was not made."""
    with suppressed(OSError):
        _remove([path for path in folder.iterdir() if _LEFT.fullmatch(path.name)])


def _finish_older(folder: Path) -> None:
    """Finish a save that was made, and whose process was killed then; remove what is left of one that was not."""
    if _next(folder / MANIFEST).exists():
        with contextlib.suppress(FormatError):
            _finish(folder, [*_checked_contents(folder, made=True)])
    _remove_next(folder)


def _finish(folder: Path, names: Iterable[str]) -> None:
    """Give the files of a made save their names, the manifest last."""
    for name in _of_older_saves(folder) & set(TEXTS) - {*names}:
        (folder / name).unlink(missing_ok=True)
    for name in names:
        if name == MANIFEST:
            sync_folder(folder)  # after a loss of power, too, the others are there if this one is
        with contextlib.suppress(FileNotFoundError):  # it has its name already
            os.replace(_next(folder / name), folder / name)  # noqa: PTH105 - see replace_file
    sync_folder(folder)


def _of_older_saves(folder: Path) -> set[str]:
    """The files that an older save has left: those of its manifest, and all that are there if it was cut short."""
    try:
        return set(_parsed(_manifest_content(folder / MANIFEST), folder / MANIFEST)["files"])
    except FormatError:
        return {path.name for path in folder.iterdir()} if (folder / ARRAYS).exists() else set()


@contextlib.contextmanager
def turn(folder: Path) -> Iterator[bool]:
    """Keep other processes, and other threads of this one, from saving to a folder meanwhile; whether that works."""
    deadline, folder_lock = time.monotonic() + MOST_WAITING, _FolderLock()
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                is_locked = folder_lock.take(folder)
                break
            if time.monotonic() > deadline:
                raise InUseError(
                    f"folder={str(folder)!r} is being saved to by another process, since {MOST_WAITING:.0f} s: end that"
                    " process, or pass a folder of its own to each"
                )
            time.sleep(_BETWEEN_LOOKS)
        yield is_locked
    finally:
        try:
            folder_lock.release()
        finally:
            folder_lock.release()  # where a signal's handler has cut that short


class _FolderLock:
    """A lock on a folder, that is not kept when a signal's handler raises something meanwhile."""

    def __init__(self) -> None:
        self._opened: int | None = None

    def take(self, folder: Path, *, create: bool = True) -> bool:
        """Lock a folder, without leaving anything in it where that is possible.

        Network disks lock only what can be written to, and Windows only files: there it is a hidden file, which stays.
        Some disks lock nothing: what two saves mix there is refused when it is read.

        Returns:
            Whether it is locked.

        Raises:
            BlockingIOError: While somebody else has it.
        """
        places = ((folder, os.O_RDONLY), (folder / _LOCK, os.O_RDWR | _NO_LINK | (os.O_CREAT if create else 0)))
        for path, flags in places:
            try:
                self._opened = os.open(path, flags, 0o666)
                lock(self._opened)
                if not os.path.samestat(os.fstat(self._opened), path.stat()):
                    raise BlockingIOError(f"{folder} is another folder by now")
                return True
            except BlockingIOError:
                self.release()
                raise
            except OSError as error:
                pass_on(error)
                self.release()
        return False

    def release(self) -> None:
        """Unlock it, if it is locked."""
        if self._opened is None:
            return
        with suppressed(OSError):
            unlock_descriptor(self._opened)  # a process that was forked meanwhile has the file open, too
        opened, self._opened = self._opened, None
        os.close(opened)


def lock(file: int) -> None:
    """Lock an open file for whoever has opened it, until it is closed or the process ends, however it ends.

    Of two that open it in one process only one has it. On Windows nobody else can read what is locked.

    Raises:
        BlockingIOError: If somebody else has it.
        OSError: If its disk locks nothing.
    """
    if not lock_descriptor(file, blocking=False):
        raise BlockingIOError(errno.EWOULDBLOCK, "somebody else has locked it")


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The manifest and the arrays of a folder that `write_folder` wrote, after every check.

    Raises:
        FormatError: As from `read_files`; or if the arrays are not plain numbers within the size limits.
    """
    files = read_files(folder)
    return _parsed(files[MANIFEST], folder / MANIFEST), unpack(files[ARRAYS], str(folder / ARRAYS))


def read_files(folder: Path) -> dict[str, bytes]:
    """What is in the files of a folder that `write_files` wrote: those of one save, as `files_of` gives them.

    While somebody saves to it, it waits for what was there before or what comes.

    Raises:
        FormatError: If the manifest is missing, damaged, of another format or version, or names a file that is missing,
            of another size or another sha256.
    """
    deadline = time.monotonic() + MOST_WAITING
    while True:
        before = _stamp(folder)
        try:
            return _read(folder)
        except FormatError as error:
            if not _is_changing(folder, before):
                raise
            if time.monotonic() > deadline:
                since = f"is being written by other processes, since {MOST_WAITING:.0f} s"
                raise FormatError(f"{folder} {since}, and not whole: {error}") from error
        time.sleep(_BETWEEN_LOOKS)


def _stamp(folder: Path) -> tuple[int, ...] | None:
    """Tells one manifest from the next; None where there is none."""
    try:
        manifest = (folder / MANIFEST).stat()
    except OSError as error:
        pass_on(error)
        return None
    return manifest.st_ino, manifest.st_mtime_ns, manifest.st_size


def _is_changing(folder: Path, before: tuple[int, ...] | None) -> bool:
    """Whether somebody is saving to a folder, or has since its manifest was another."""
    folder_lock = _FolderLock()
    try:
        folder_lock.take(folder, create=False)
    except BlockingIOError:
        return True
    finally:
        folder_lock.release()
    return _stamp(folder) != before


def _read(folder: Path) -> dict[str, bytes]:
    """What is in the files of the save that a folder holds."""
    try:
        return _checked_contents(folder)
    except FormatError:
        if _next(folder / MANIFEST).exists():
            with contextlib.suppress(FormatError):
                return _checked_contents(folder, made=True)
        raise


def _checked_contents(folder: Path, *, made: bool = False) -> dict[str, bytes]:
    """What is in the files of a manifest, and in itself, if all are as it says.

    Args:
        folder: Where they are.
        made: Of a save that was made; its files may have their names already or not.
    """
    path = _next(folder / MANIFEST) if made else folder / MANIFEST
    content = _manifest_content(path)
    files, left = {}, MAX_FOLDER_BYTES
    for name, entry in _parsed(content, path)["files"].items():
        files[name] = _checked_content(folder, name, entry, left, made=made)
        left -= len(files[name])
    return {**files, MANIFEST: content}


def _manifest_content(path: Path) -> bytes:
    content = _content(path, MAX_MANIFEST_BYTES)
    if content is None:
        raise FormatError(f"{path.parent} has no {MANIFEST}: it is not a saved profile, or its writing was cut short")
    return content


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    """A manifest, if it is as it was written."""
    seal = _SEAL.fullmatch(content[-_SEAL_BYTES:])
    if seal is not None and hashlib.sha256(content[:-_SEAL_BYTES]).hexdigest().encode() != seal[1]:
        raise FormatError(f"{path} has another sha256 than it says at its end: changed after it was written")
    manifest = from_json(content, str(path))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FormatError(f"{path} is not a manifest of this format (no 'format': {FORMAT!r})")
    _check_version(path, manifest, sealed=seal is not None)
    files = manifest.get("files")
    if not isinstance(files, dict) or ARRAYS not in files:
        raise FormatError(f"{path} lists no {ARRAYS} under 'files'")
    return manifest


def _check_version(path: Path, manifest: Mapping[str, Any], *, sealed: bool) -> None:
    """Refuse what a later release wrote, and a manifest that has lost its sha256."""
    version = manifest.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise FormatError(
            f"{path} has format_version {version!r}; this release reads 1 to {FORMAT_VERSION}: "
            "upgrade lensai-integrations, or profile again"
        )
    if sealed != (version > 1) or sealed != ("sha256" in manifest):
        raise FormatError(
            f"{path} has format_version {version} and {'a' if sealed else 'no'} sha256 of itself at its end:"
            " changed after it was written"
        )


def _checked_content(folder: Path, name: str, entry: Any, left: int, *, made: bool) -> bytes:
    """What is in a file of the manifest, if it is what the manifest says and no more than is left to read."""
    if not _FILE_NAME.fullmatch(name) or not isinstance(entry, dict):
        raise FormatError(f"{folder / MANIFEST} lists a file by the unsafe name {name!r}")
    path, most = folder / name, min(MAX_FILE_BYTES, left)
    content = _content(_next(path), most) if made else None
    if content is None:
        content = _content(path, most)
    if content is None:
        raise FormatError(f"{path} is listed in the manifest and missing")
    if len(content) != entry.get("bytes"):
        raise FormatError(
            f"{path} has {len(content)} bytes, the manifest says {entry.get('bytes')}: truncated or replaced"
        )
    if hashlib.sha256(content).hexdigest() != entry.get("sha256"):
        raise FormatError(f"{path} has another sha256 than the manifest says: changed after it was written")
    return content


def _content(path: Path, most: int) -> bytes | None:
    """What is in a file of at most so many bytes; None if there is none."""
    try:
        if not path.is_file():
            return None
        with open_regular(path, links=True) as file:
            content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except FileNotFoundError:  # since it was looked for
        return None
    if len(content) > most:
        raise FormatError(f"{path} has {path.stat().st_size} bytes, more than the {most} that are read")
    return content


def open_regular(path: Path, *, links: bool = False) -> IO[bytes]:
    """Open a file to read, if it is one. A pipe that has taken its place since it was looked at keeps nobody waiting.

    Args:
        path: The file.
        links: Whether a link is followed.

    Raises:
        OSError: If it cannot be opened, or is something else.

    Example:
        >>> open_regular(Path("/"))
        Traceback (most recent call last):
        ...
        OSError: [Errno 22] no regular file: '/'
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | (0 if links else _NO_LINK)
    opened = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return os.fdopen(opened, "rb")


def replace_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file in one step: readers see the old content or the new, never a part of it.

    Every step goes through `os`, so that a test can stop the process at each of them.

    Args:
        path: The file. Until it is whole, its content is in a hidden file beside it, which ends in `.partial`.
        content: Its new content.
        sync: Wait until the disk has it, so that the new content outlives a loss of power too.

    Raises:
        OSError: If the disk is full or the folder cannot be written; nothing has changed then.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     replace_file(Path(folder) / "a", b"new")
        ...     (Path(folder) / "a").read_bytes()
        b'new'
    """
    _put(path, content, sync=sync)
    if sync:
        sync_folder(path.parent)


def _put(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file. After a loss of power the folder may not know it yet."""
    partial = _partial(path)
    try:
        write_file(partial, content, sync=sync)
        os.replace(partial, path)  # noqa: PTH105 - see above
    except BaseException:
        _remove([partial])
        raise


def _partial(path: Path) -> Path:
    """Where a file is until it is whole: a name that nobody can have made a link of."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(6)}.partial")


def _remove(paths: Iterable[Path]) -> None:
    """Remove what is still there, as far as that is possible."""
    for path in paths:
        with suppressed(OSError):
            path.unlink(missing_ok=True)


def write_file(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a file, by default until the disk has it. A crash may leave a part of it."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        write_all(file, content)
        if sync:
            os.fsync(file)
    finally:
        os.close(file)


def write_all(file: int, content: bytes) -> None:
    """Write to an open file; the operating system may take it in several pieces."""
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]


def sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names of a folder's files."""
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
