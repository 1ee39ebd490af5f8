"""The files of a LensAI folder or upload, as bytes in memory: bounded, and nothing in them believed.

An upload comes from a device or from a stranger. It is read as a stream and never extracted, so a member's name can
reach no file; links and devices are passed over; sizes are bounded after decompression, so a small archive cannot
become a large one. A folder's links are not followed either.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.storage.folders import open_regular

#: Largest sketch file that is read; with k=200 they have 3 KB, with the largest k there is less than 1 MB.
MAX_SKETCH_BYTES: Final = 2 * 2**20
#: Largest archive after decompression, saved images included; and all sketch files of a folder together.
MAX_ARCHIVE_BYTES: Final = 512 * 2**20
MAX_SKETCHES_BYTES: Final = 128 * 2**20
#: Most files and folders that are looked at.
MAX_MEMBERS: Final = 100_000
#: Longest extended header of an archive's member, in bytes.
_MOST_HEADER: Final = 1024
#: Members that say something of the next one, its name among them.
_EXTENDED: Final = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
#: Bytes of zeros at the end of an archive, two blocks.
_END: Final = 1024
#: Where a header has the size of its file.
_SIZE_AT: Final = 124
#: So often an archive is asked for more at its end.
_MOST_ENDS: Final = 100
#: Most gzip streams of one archive (devices write one), and how many bytes of them are unpacked at a time.
_MOST_STREAMS: Final = 16
_PACKED: Final = 1 << 16
#: As many files that were passed over are named.
_MOST_NAMED = 100


@dataclass(frozen=True)
class ArchiveLimits:
    """How much is read of one folder or archive.

    Attributes:
        archive_bytes: Of an archive after decompression, whatever is in it.
        sketches_bytes: All sketch files together.
        members: Files and folders that are looked at.

    Example:
        >>> ArchiveLimits(members=2000).members
        2000
    """

    archive_bytes: int = field(default_factory=lambda: MAX_ARCHIVE_BYTES)
    sketches_bytes: int = field(default_factory=lambda: MAX_SKETCHES_BYTES)
    members: int = field(default_factory=lambda: MAX_MEMBERS)


@dataclass
class ArchiveContents:
    """What is in a folder or archive.

    Attributes:
        sketches: Bytes by path, in the order of the paths.
        problems: What a reader should know: files that are empty, damaged, unsafe or of another kind than they say.
        ignored: Files that are no sketches, e.g. `.DS_Store`, at most 100 by name.
        limits: How much is read.
    """

    sketches: dict[PurePosixPath, bytes] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    _members: int = 0
    _bytes: int = 0

    def count(self) -> None:
        """One more file or folder.

        Raises:
            FormatError: If there are too many.
        """
        self._members += 1
        if self._members > self.limits.members:
            raise FormatError(f"more than {self.limits.members} files: this is no LensAI folder or upload")

    def ignore(self, path: PurePosixPath, why: str) -> None:
        """A file that is no sketch."""
        if len(self.ignored) < _MOST_NAMED:
            self.ignored.append(f"{path}: {why}"[:300])

    def problem(self, path: PurePosixPath, why: str) -> None:
        """A file that should have been a sketch."""
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(f"{path} was not read: {why}"[:500])

    def wants(self, path: PurePosixPath, size: int) -> bool:
        """Whether a regular file is to be read; says why where it is not."""
        if path.name.startswith("."):
            self.ignore(path, "a hidden file of an operating system or of an unfinished write")
        elif path.suffix != ".bin":
            self.ignore(path, "not a .bin file")
        elif path.is_absolute() or ".." in path.parts:
            self.problem(path, "its path leads out of the folder")
        elif path in self.sketches:
            self.problem(path, "a file of this name came before")
        elif size <= 0:
            self.problem(path, "empty; was the device's disk full?")
        elif size > MAX_SKETCH_BYTES:
            self.problem(path, f"{size} bytes, more than the {MAX_SKETCH_BYTES} that are read")
        else:
            return True
        return False

    def add(self, path: PurePosixPath, content: bytes) -> None:
        """A sketch's bytes.

        Raises:
            FormatError: If all of them together are too many.
        """
        self._bytes += len(content)
        if self._bytes > self.limits.sketches_bytes:
            raise FormatError(f"its .bin files have more than the {self.limits.sketches_bytes} bytes that are read")
        self.sketches[path] = content


def find(source: Path | bytes, limits: ArchiveLimits | None = None) -> ArchiveContents:
    """The sketch files of a folder, or of a tar archive, plain or gzipped.

    Args:
        source: Folder or archive; or an archive's bytes.
        limits: How much is read; by default enough for folders of many devices.

    Raises:
        InputError: If there is neither.
        FormatError: If it is no archive, is cut short, or is too large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, ".DS_Store").write_bytes(b"x")
        ...     len(find(Path(folder)).ignored)
        1
    """
    contents = ArchiveContents(limits=limits or ArchiveLimits())
    if isinstance(source, bytes):
        _untar(io.BytesIO(source), "the upload", contents)
    elif source.is_dir():
        _walk(source, contents)
    elif source.is_file():
        with source.open("rb") as file:
            _untar(file, str(source), contents)
    else:
        raise InputError(f"dir_or_tar={str(source)!r} does not exist: pass a LensAI folder, or an upload's .tar.gz")
    contents.sketches = dict(sorted(contents.sketches.items()))
    return contents


def _walk(root: Path, contents: ArchiveContents) -> None:
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in [*folders, *sorted(files)]:
            contents.count()
            file_path = Path(folder, name)
            path = PurePosixPath(file_path.relative_to(root).as_posix())
            about = file_path.lstat()
            if stat.S_ISDIR(about.st_mode):
                continue
            if not stat.S_ISREG(about.st_mode):
                contents.problem(path, "a link or device, which is not followed")
            elif contents.wants(path, about.st_size):
                _add_file(file_path, path, contents)


def _add_file(file_path: Path, path: PurePosixPath, contents: ArchiveContents) -> None:
    try:
        with open_regular(file_path) as file:
            contents.add(path, file.read(MAX_SKETCH_BYTES))
    except OSError as error:
        contents.problem(path, error.strerror or str(error))


def _untar(file: IO[bytes], name: str, contents: ArchiveContents) -> None:
    try:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Bounded(_Unzipped(file) if zipped else file, contents.limits.archive_bytes)
        endless = zipped
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=0, tarinfo=_Member) as members:
            for member in members:
                _take(members, member, contents)
                endless = endless and isinstance(member, _Member) and member.of_libtar
        while stream.read(1 << 20):  # to the end, where gzip has its checksum
            pass
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # made-up headers make `tarfile` raise IndexError, RecursionError and more
        problem = (
            f"{name} is not a readable tar archive: {error}; if it was cut short on its way, send or copy it again"
        )
        raise FormatError(problem) from error
    _check_end(name, stream.size - members.offset, stream.zeros, endless)


def _check_end(name: str, rest: int, zeros: int, endless: bool) -> None:
    """Hold what comes after the last member against what ends an archive: two blocks of zeros, or more.

    `tarfile` takes whatever is no header for the end, so an archive that was cut between two members would be read
    without those that are missing. LensAI's C++ profiler writes no end (it uses libtar and does not ask for one); its
    archives are gzipped, and there gzip's checksum says that they are whole.

    Raises:
        FormatError: If it is something else.
    """
    if rest > zeros and rest >= tarfile.BLOCKSIZE:
        raise FormatError(f"{name} is damaged: what comes after its last file is no file; send or copy it again")
    if rest < _END and not (endless and rest == 0):
        raise FormatError(
            f"{name} is cut short: the {_END} bytes of zeros that end a tar archive are missing; send or copy it again"
        )


class _Member(tarfile.TarInfo):
    """A member whose extended header or long name, if it has one, is as short as that of a name and a time.

    `of_libtar` says that its header is one of libtar, which alone fills numbers up with spaces.
    """

    of_libtar = False

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        member.of_libtar = buf[_SIZE_AT : _SIZE_AT + 1] == b" "
        return member

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        if self.type in _EXTENDED and not 0 <= self.size <= _MOST_HEADER:  # they are searched in quadratic time
            raise FormatError(f"a member has an extended header of {self.size} bytes; {_MOST_HEADER} are read")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


def _take(members: tarfile.TarFile, member: tarfile.TarInfo, contents: ArchiveContents) -> None:
    contents.count()
    path = PurePosixPath(member.name.lstrip("/"))  # as tar reads it: LensAI's C++ profiler writes /imgstats/noise.bin
    if member.isdir():
        return
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        contents.problem(path, "a link, device or other special member")
    elif contents.wants(path, member.size):
        content = members.extractfile(member)  # a file object on the stream: nothing is written anywhere
        assert content is not None
        contents.add(path, content.read())


class _Unzipped:
    """What gzip streams hold, one after the other, each held against its own checksum and length by zlib.

    `gzip` reads heads in Python, a byte at a time, and they may be as long, or as many, as the file: for minutes it
    would keep the thread that answers others from running.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._packed, self._begun = file, b"", 0
        self._stream: Any = None

    def read(self, size: int) -> bytes:
        """Up to so many bytes, one at least; none at the end.

        Raises:
            EOFError: If a stream has no end.
            FormatError: If there are many streams.
            zlib.error: If one is damaged.
        """
        content = b""
        while not content and (self._stream is not None or self._begins()):
            content = self._stream.decompress(self._packed, size)
            self._packed = self._stream.unconsumed_tail
            if self._stream.eof:
                self._packed, self._stream = self._stream.unused_data, None
            elif not (content or self._packed):
                self._packed = self._file.read(_PACKED)
                if not self._packed:
                    raise EOFError("it ends before its gzip stream does")
        return content

    def _begins(self) -> bool:
        """Whether another stream begins; zeros may stand between them."""
        self._packed = self._packed.lstrip(b"\0")
        while not self._packed:
            read = self._file.read(_PACKED)
            if not read:
                return False
            self._packed = read.lstrip(b"\0")
        self._begun += 1
        if self._begun > _MOST_STREAMS:
            raise FormatError(f"the archive has more than the {_MOST_STREAMS} gzip streams that are read")
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        return True


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after so many bytes, and if it is read on and on beyond its end.

    `tarfile` passes over a member in as many steps as its size takes, whether there is anything or not. `size` is how
    much was read, `zeros` how many zeros are at its end.
    """

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._left, self._most, self._ends = stream, most, most, 0
        self.size = self.zeros = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise FormatError(f"the archive unpacks to more than the {self._most} bytes that are read")
        self.size += len(content)
        zeros = len(content) - len(content.rstrip(b"\0"))
        self.zeros = self.zeros + zeros if zeros == len(content) else zeros
        self._ends += not content
        if self._ends > _MOST_ENDS:
            raise FormatError("the archive is cut short: a member says to be longer than what there is")
        return content


def sensor_and_time(path: PurePosixPath, base: tuple[str, ...]) -> tuple[str, int]:
    """Whose sketch a file is, and of when, as the folders around it say: `<sensor>/<timestamp>/imgstats/noise.bin`.

    Args:
        path: Of the file.
        base: Names of the folders around all files.

    Returns:
        The sensor, and the unix time in seconds, 0 where no folder says one.

    Example:
        >>> sensor_and_time(PurePosixPath("1719393854/imgstats/noise.bin"), ("data", "sensor1"))
        ('sensor1', 1719393854)
        >>> sensor_and_time(PurePosixPath("imgstats/noise.bin"), ("reference",))
        ('reference', 0)
    """
    around = [*base, *path.parts[:-2]]
    if around and around[-1].isascii() and around[-1].isdecimal() and 9 <= len(around[-1]) <= 13:
        return (around[-2] if len(around) > 1 else ""), int(around[-1])
    return (around[-1] if around else ""), 0
