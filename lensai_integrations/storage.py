"""Folders on disk that hold arrays and a manifest, written so that a reader can trust or refuse them.

A folder may come from a tracking server, a device or a stranger, so nothing in it is believed before it is checked: no
pickle, sizes bounded before anything is allocated, names without separators, a sha256 for every file. The manifest is
written last: a folder whose writing was cut short has none and is refused, never half read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import re
import secrets
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError, InputError

MANIFEST = "manifest.json"
ARRAYS = "profile.npz"
#: What may be beside the arrays.
TEXTS = ("streams.csv", "segments.csv", "report.html")
FORMAT = "lensai"
FORMAT_VERSION = 1

#: Largest sizes in bytes that are read; a baseline of a 2048-wide layer is about 60 MB.
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_FILE_BYTES = 2**30
MAX_ARRAYS_BYTES = 2 * 2**30

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def files_of(
    manifest: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str]
) -> dict[str, bytes]:
    """The files of a folder, whole and in memory: `profile.npz`, the texts, and last `manifest.json`, which lists them.

    Args:
        manifest: JSON values; keys `format`, `format_version` and `files` are added.
        arrays: Numeric arrays by name (`group/part/name`).
        texts: Some of `TEXTS` with what is in them.

    Example:
        >>> list(files_of({}, {"x": np.zeros(1)}, {"streams.csv": "stream"}))
        ['profile.npz', 'streams.csv', 'manifest.json']
    """
    contents = {ARRAYS: pack(arrays), **{name: text.encode() for name, text in texts.items()}}
    files = {name: {"sha256": hashlib.sha256(c).hexdigest(), "bytes": len(c)} for name, c in contents.items()}
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **manifest, "files": files}
    return {**contents, MANIFEST: json.dumps(whole, indent=1, allow_nan=False).encode()}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write what `files_of` made, in its order: the manifest last.

    An older manifest in the folder is removed first, so that a crash in between leaves a folder that is refused. Before
    that, files are removed that an older save has written and this one does not; whatever else is there stays.

    Args:
        folder: Made if absent; files of the same names are replaced.
        files: What is in each file.

    Raises:
        InputError: If `folder` is a file.
        OSError: If the disk is full or the folder cannot be written.
    """
    if folder.is_file():
        raise InputError(f"folder={str(folder)!r} is a file; pass a folder to save to")
    folder.mkdir(parents=True, exist_ok=True)
    for name in _of_older_saves(folder) & set(TEXTS) - files.keys():
        (folder / name).unlink(missing_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, content in files.items():
        replace_file(folder / name, content)


def _of_older_saves(folder: Path) -> set[str]:
    """The files that an older save has left: those of its manifest, and all that are there if it was cut short."""
    try:
        return set(_read_manifest(folder)["files"])
    except FormatError:
        return {path.name for path in folder.iterdir()} if (folder / ARRAYS).exists() else set()


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The manifest and the arrays of a folder that `write_folder` wrote, after every check.

    Raises:
        FormatError: If the manifest is missing, of another format or version, or names a file that is missing, of
            another size or another sha256; or if the arrays are not plain numbers within the size limits.
    """
    manifest = _read_manifest(folder)
    for name, entry in manifest["files"].items():
        _check_file(folder, name, entry)
    return manifest, unpack((folder / ARRAYS).read_bytes())


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(6)}.partial")
    try:
        write_file(partial, content, sync=sync)
        os.replace(partial, path)  # noqa: PTH105 - see above
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)


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


def pack(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The arrays as the bytes of a compressed npz; the same arrays always give the same bytes.

    Example:
        >>> unpack(pack({"a": np.arange(3)}))["a"].tolist()
        [0, 1, 2]
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy")  # its date is fixed: the bytes depend on the arrays only
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(arrays[name]), allow_pickle=False)
    return buffer.getvalue()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FormatError(f"{folder} has no {MANIFEST}: it is not a saved profile, or its writing was cut short")
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size} bytes, more than the {MAX_MANIFEST_BYTES} that are read")
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise FormatError(f"{path} is not a manifest of this format (no 'format': {FORMAT!r})")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format_version {manifest.get('format_version')!r}; this release reads {FORMAT_VERSION}: "
            "upgrade lensai-integrations, or profile again"
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or ARRAYS not in files:
        raise FormatError(f"{path} lists no {ARRAYS} under 'files'")
    return manifest


def _check_file(folder: Path, name: str, entry: Any) -> None:
    if not _FILE_NAME.fullmatch(name) or not isinstance(entry, dict):
        raise FormatError(f"{folder / MANIFEST} lists a file by the unsafe name {name!r}")
    path = folder / name
    if not path.is_file():
        raise FormatError(f"{path} is listed in the manifest and missing")
    size = path.stat().st_size
    if size != entry.get("bytes") or size > MAX_FILE_BYTES:
        raise FormatError(f"{path} has {size} bytes, the manifest says {entry.get('bytes')}: truncated or replaced")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != entry.get("sha256"):
        raise FormatError(f"{path} has another sha256 than the manifest says: changed after it was written")


def unpack(blob: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file's bytes, after every check.

    Raises:
        FormatError: If the bytes are no npz file, unpack to too much, or hold anything but plain numbers.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            members = archive.infolist()
            total = sum(member.file_size for member in members)
            if total > MAX_ARRAYS_BYTES:
                raise FormatError(f"{ARRAYS} unpacks to {total} bytes, more than the {MAX_ARRAYS_BYTES} that are read")
            return {member.filename.removesuffix(".npy"): _read_member(archive, member) for member in members}
    except FormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError, OSError) as error:
        raise FormatError(f"{ARRAYS} is not a readable npz file: {error}") from error


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """One array. Its header is held against the member's real size before anything is allocated."""
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"npy version {version}")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        raise FormatError(f"{ARRAYS}: {member.filename} is not an array: {error}") from error
    data = content[stream.tell() :]
    if dtype.hasobject or dtype.kind not in "biuf":
        raise FormatError(f"{ARRAYS}: {member.filename} holds {dtype}, only plain numbers are read")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise FormatError(f"{ARRAYS}: {member.filename} says shape {shape} of {dtype} but has {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C").copy(order="K")
