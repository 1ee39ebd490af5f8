"""Arrays of plain numbers as the bytes of an npz file, and back without believing them.

The file may come from a stranger, so it costs its reader no more than it cost its writer: what it unpacks to is bounded
by its own size, and bounded before the first byte is unpacked. Each array is unpacked into its own memory, once. Its
header is read here, and not by numpy, which evaluates it as Python: what numpy writes for plain numbers is one line of
one form, and anything else is refused.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.problems import pass_on

#: Largest numbers that are read; a baseline of a 2048-wide layer is about 60 MB in 500 arrays.
MAX_FILE_BYTES: Final = 2**30
MAX_ARRAYS_BYTES: Final = 2 * 2**30
MAX_ARRAYS: Final = 2**18
#: What any file may unpack to, and how many times its own size beyond that. Profiles unpack to 1.2 to 10 times theirs,
#: those of nothing but zeros to a thousand times: `pack` leaves large ones of these as they are.
FREE_BYTES: Final = 64 * 2**20
MAX_RATIO: Final = 16

_MAGIC: Final = b"\x93NUMPY\x01\x00"
_HEADER: Final = re.compile(
    rb"\{'descr': '([<|][biuf][1248])', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,10}(?:,|(?:, \d{1,10})+))?)\), \} *\n"
)
_LONGEST_HEADER: Final = 1024
_DIRECTORY_ENTRY: Final = b"PK\x01\x02"
_ENDING: Final = b"PK\x05\x06"
_LOCAL_HEADER_BYTES: Final = 30
_ENDING_BYTES: Final = 22
_PIECE: Final = 2**18
#: Of an array of more bytes, so many stretches of so many bytes are compressed to see what that saves. Where the whole
#: would shrink to more than this share of itself, it is written as it is: random fractions give up a tenth for a
#: second per 40 MB.
_TRIED_BYTES: Final = 2**16
_TRIED_STRETCHES: Final = 8
_WORTH_SHRINKING_TO: Final = 0.75


def pack(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = True) -> bytes:
    """The arrays as the bytes of an npz file; the same arrays always give the same bytes.

    Args:
        arrays: Plain numbers by name.
        compressed: False to leave all as they are, which takes a third of the time.

    Returns:
        What `unpack` takes: each array compressed, if that saves a quarter of it; none, if they are so empty that it
        would take them for a bomb.

    Raises:
        InputError: If they are more than `unpack` takes.

    Example:
        >>> unpack(pack({"a": np.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    total = sum(np.asanyarray(array).nbytes + _LONGEST_HEADER for array in arrays.values())
    if total > MAX_ARRAYS_BYTES or len(arrays) > MAX_ARRAYS:
        raise InputError(
            f"{len(arrays)} arrays of {total} bytes are more than the {MAX_ARRAYS} of {MAX_ARRAYS_BYTES} bytes that are"
            " read again: profile fewer or narrower layers, or keep fewer rows"
        )
    blob = _zipped(arrays, compressed=compressed)
    blob = blob if total <= _most_unpacked(blob) else _zipped(arrays, compressed=False)
    if len(blob) > MAX_FILE_BYTES:
        raise InputError(f"the arrays take {len(blob)} bytes, more than the {MAX_FILE_BYTES} that are read again")
    return blob


def _zipped(arrays: Mapping[str, NDArray[Any]], *, compressed: bool) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            array = np.asanyarray(arrays[name])
            info = zipfile.ZipInfo(f"{name}.npy")  # its date is fixed: the bytes depend on the arrays only
            info.compress_type = zipfile.ZIP_DEFLATED if compressed and _shrinks(array) else zipfile.ZIP_STORED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    return buffer.getvalue()


def _shrinks(array: NDArray[Any]) -> bool:
    """Whether an array is worth compressing: one that is small, or whose stretches are."""
    if array.nbytes <= _TRIED_BYTES:
        return True
    flat = array.reshape(-1, order="A")
    length = _TRIED_BYTES // _TRIED_STRETCHES // flat.itemsize
    starts = np.linspace(0, flat.size - length, _TRIED_STRETCHES).astype(np.int64)
    tried = b"".join(flat[start : start + length].tobytes() for start in starts.tolist())
    return len(zlib.compress(tried)) <= _WORTH_SHRINKING_TO * len(tried)


def _most_unpacked(blob: bytes) -> int:
    """How many bytes an npz file may unpack to."""
    return min(MAX_ARRAYS_BYTES, FREE_BYTES + MAX_RATIO * len(blob))


def unpack(blob: bytes, name: str = "profile.npz") -> dict[str, NDArray[Any]]:
    """The arrays of an npz file's bytes, after every check. Beside them, about a megabyte is held.

    Args:
        blob: The bytes.
        name: What messages call them.

    Raises:
        FormatError: If the bytes are no npz file, unpack to too much, or hold anything but plain numbers.
    """
    try:
        if len(blob) > MAX_FILE_BYTES or blob.count(_DIRECTORY_ENTRY) > MAX_ARRAYS:
            raise FormatError(f"more than {MAX_FILE_BYTES} bytes or {MAX_ARRAYS} arrays, which are not read")
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            _check_directory(members, blob)
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from error
    except Exception as error:  # whatever else zipfile meets in damaged bytes; it promises no list
        pass_on(error)
        raise FormatError(f"{name} is not a readable npz file: {type(error).__name__}: {error}") from error


def _check_directory(members: list[zipfile.ZipInfo], blob: bytes) -> None:
    """Hold what the file says of its members against its own size and against what `pack` writes."""
    ending, count = blob[-_ENDING_BYTES:], min(len(members), 0xFFFF).to_bytes(2, "little")
    if not ending.startswith(_ENDING) or ending[8:12] != 2 * count or ending[-2:] != b"\0\0":
        raise FormatError(f"it lists {len(members)} arrays, or has something after them, and says something else")
    total = sum(member.file_size for member in members)
    if total > _most_unpacked(blob):
        raise FormatError(f"{len(blob)} bytes unpack to {total}, more than the {_most_unpacked(blob)} that are read")
    end = 0
    for member in sorted(members, key=lambda entry: entry.header_offset):
        if member.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED) or member.flag_bits & ~0x800:
            raise FormatError(f"{member.filename!r} is encrypted or compressed by another method than deflate")
        if member.header_offset < end:
            raise FormatError(f"{member.filename!r} lies within another member")
        end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
    if len({member.filename for member in members}) < len(members):
        raise FormatError("two arrays have the same name")
    if not all(member.filename.endswith(".npy") for member in members):
        raise FormatError("it has something in it that is no array")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array. Its header is held against the member's size before anything is allocated."""
    with archive.open(member) as file:
        header, dtype, shape, fortran_order = _read_header(file, member.filename)
        if math.prod(max(1, extent) for extent in shape) * dtype.itemsize > MAX_ARRAYS_BYTES:
            raise FormatError(f"{member.filename!r} says shape {shape} of {dtype}, which is more than is read")
        size = math.prod(shape) * dtype.itemsize
        if header + size != member.file_size:
            available = member.file_size - header
            raise FormatError(f"{member.filename!r} says shape {shape} of {dtype} but has {available} bytes")
        flat = np.empty(math.prod(shape), dtype)
        _fill(flat.view(np.uint8), file, member.filename)
    if dtype == np.bool_ and size and flat.view(np.uint8).max() > 1:
        raise FormatError(f"{member.filename!r} holds truth values other than 0 and 1")
    return flat.reshape(shape, order="F" if fortran_order else "C")


def _read_header(file: IO[bytes], name: str) -> tuple[int, np.dtype[Any], tuple[int, ...], bool]:
    """How long the header is, and the dtype, shape and order it tells."""
    start = file.read(len(_MAGIC) + 2)
    length = int.from_bytes(start[len(_MAGIC) :], "little")
    if not start.startswith(_MAGIC) or length > _LONGEST_HEADER:
        raise FormatError(f"{name!r} is not an array of npy version 1.0")
    fields = _HEADER.fullmatch(file.read(length))
    if fields is None:
        raise FormatError(f"{name!r} does not begin as an array: only plain numbers are read")
    shape = tuple(int(extent) for extent in fields[3].decode().split(",") if extent)
    if len(shape) > 32:
        raise FormatError(f"{name!r} says it has {len(shape)} dimensions")
    try:
        return len(start) + length, np.dtype(fields[1].decode()), shape, fields[2] == b"True"
    except TypeError as error:  # as of an integer of one and a half bytes
        raise FormatError(f"{name!r} holds {fields[1].decode()}, only plain numbers are read") from error


def _fill(content: NDArray[np.uint8], file: IO[bytes], name: str) -> None:
    """Unpack what is left of a member, which has to be as much as that; its checksum is compared at its end."""
    done = 0
    while piece := file.read(min(_PIECE, len(content) - done) or 1):
        if done + len(piece) > len(content):
            raise FormatError(f"{name!r} is longer than it says")
        content[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    if done < len(content):
        raise FormatError(f"{name!r} is cut short")
