"""Profiles as bytes and uploads of devices: small ones to begin with, and ways to spoil what is in them.

An archive is taken apart, one member or header is changed, and it is put together again with the checksums it needs, so
that what reads its contents is reached, not only what unpacks it.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import warnings
import zipfile
from functools import cache
from random import Random
from typing import Any

import numpy as np
import sketch_bytes

from lensai_integrations import Baseline, Profiler
from lensai_integrations.profiles.profile import to_bytes

_VALUES = [None, True, -1, 0, 1, 2**31, 2**63, 2**64, 1.5, "", "x", "\ud800", "inputs", [], {}, [[]], {"": 0}]
_BLOCK = 512


@cache
def profiles() -> list[bytes]:
    """A profile and a baseline with every kind of sketch, as small as they get."""
    rng = np.random.default_rng(0)
    profiler = Profiler(source="validation", seed=0)
    profiler.update(
        inputs=rng.integers(0, 255, (12, 8, 8, 3)).astype(np.uint8),
        outputs=rng.normal(size=(12, 3)).astype(np.float32),
        embeddings={"pool": rng.normal(size=(12, 2)).astype(np.float32)},
        labels=np.arange(12) % 10,
    )
    profile = profiler.profile()
    profile.info["created"] = "2026-01-01T00:00:00+00:00"  # the same bytes every time
    return [to_bytes(profile), to_bytes(Baseline(profile, None, {"epoch": 1}))]


def mutated_profile(data: bytes, rng: Random) -> bytes:
    """The archive with one member changed, away, twice or under another name; or with a byte changed."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(each.filename, archive.read(each)) for each in archive.infolist()]
    except Exception:
        return rng.choice(profiles())
    if not members or rng.random() < 0.05:
        return sketch_bytes.spoiled(data, [(0, "<I")], 0, 1, rng)
    place = rng.randrange(len(members))
    name, content = members[place]
    way = rng.randrange(10)
    if way == 0:
        members.pop(place)
    elif way == 1:
        members.append(rng.choice([(name, content), (f"x/{name}", content), ("../../x.npy", content), ("x", b"")]))
    elif way == 2:
        members[place] = (rng.choice([member[0] for member in members]), content)
    else:
        members[place] = name, _mutated_member(name, content, rng)
    return _zipped(members, rng)


def _zipped(members: list[tuple[str, bytes]], rng: Random) -> bytes:
    buffer = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(buffer, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive,
    ):
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def _mutated_member(name: str, content: bytes, rng: Random) -> bytes:
    """An npy file with its header or its data changed; data by what it is."""
    if content[:6] != b"\x93NUMPY" or len(content) < 10:
        return content
    end = 10 + int.from_bytes(content[8:10], "little")
    head, data = content[:end], content[end:]
    if rng.random() < 0.15:
        return sketch_bytes.spoiled(head, [(6, "<B"), (7, "<B"), (8, "<H")], 10, 1, rng) + data
    if rng.random() < 0.15:
        text = rng.choice(
            ["'<f8'", "'|O'", "'<U9'", "'|V3'", "'<i8'", "(2**99,)", "(1 << 62, 2)", "(-1,)", "((", "'" * 9]
        )
        return _npy(content[:8], b"{'descr': '|u1', 'fortran_order': False, 'shape': " + text.encode() + b", }", data)
    last = name.removesuffix(".npy").rpartition("/")[2]
    if last in ("frequent", "distinct"):
        return _sized(head, _mutated_sketch(last, data, rng))
    if last == "manifest":
        return _sized(head, _mutated_json(data, rng))
    return head + sketch_bytes.spoiled(data, [(0, "<d"), (0, "<Q"), (8, "<d"), (0, "<f")], 0, 8, rng)


def _mutated_sketch(kind: str, data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.3:
        return (sketch_bytes.frequent if kind == "frequent" else sketch_bytes.distinct)(rng)[sketch_bytes.ROWS :]
    mutated = sketch_bytes.mutated_frequent if kind == "frequent" else sketch_bytes.mutated_distinct
    return mutated(struct.pack("<Q", 12) + data, rng)[sketch_bytes.ROWS :]


def _sized(head: bytes, data: bytes) -> bytes:
    """An npy file of bytes, with the shape they have."""
    return _npy(head[:8], f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(data)},), }}".encode(), data)


def _npy(magic: bytes, told: bytes, data: bytes) -> bytes:
    told += b" " * (-(len(magic) + 3 + len(told)) % 64) + b"\n"
    return magic + struct.pack("<H", len(told)) + told + data


def _mutated_json(data: bytes, rng: Random) -> bytes:
    """A value somewhere in it replaced or away."""
    try:
        whole = json.loads(data)
    except ValueError:
        return data
    places: list[tuple[Any, Any]] = []
    _walk(whole, places)
    if not places or rng.random() < 0.05:
        return rng.choice([b"[" * 100_000, b"null", b"\xff", json.dumps(rng.choice(_VALUES)).encode()])
    holder, key = rng.choice(places)
    if rng.random() < 0.2:
        del holder[key]
    else:
        holder[key] = rng.choice(
            [*_VALUES, holder[rng.choice(list(holder))] if isinstance(holder, dict) else holder[0]]
        )
    return json.dumps(whole).encode()


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        places.append((value, key))
        _walk(value[key], places)


@cache
def uploads() -> list[bytes]:
    """A device's folder, plain and zipped."""
    rng = Random(0)
    paths = ("imgstats/noise.bin", "imgstats/brightness.bin", "imgstats/pixel_0.bin", "modelstats/m_confidence.bin")
    plain = _tarred([(path, sketch_bytes.quantiles(rng)) for path in paths])
    return [plain, gzip.compress(plain, 1, mtime=0)]


def _tarred(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def mutated_upload(data: bytes, rng: Random) -> bytes:
    """The archive with one sketch or one header changed, or cut; zipped or not."""
    try:
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
            files = [(each, archive.extractfile(each)) for each in archive if each.isfile()]
            members = [(each.name, file.read()) for each, file in files if file is not None]
    except Exception:
        return rng.choice(uploads())
    if not members:
        return rng.choice(uploads())
    way = rng.randrange(10)
    if way < 6:
        place = rng.randrange(len(members))
        name, content = members[place]
        new = sketch_bytes.quantiles(rng) if way < 2 else sketch_bytes.mutated_quantiles(content, rng)
        members[place] = name, new
        plain = _tarred(members)
    elif way < 8:
        plain = _mutated_header(plain, rng)
    else:
        plain = sketch_bytes.spoiled(plain, [(124, "<Q")], 0, _BLOCK, rng)
    return gzip.compress(plain, 1, mtime=0) if rng.random() < 0.3 else plain


def _mutated_header(plain: bytes, rng: Random) -> bytes:
    """One header's name, size or kind replaced, and its checksum made right."""
    starts = [at for at in range(0, len(plain) - _BLOCK, _BLOCK) if plain[at + 257 : at + 262] == b"ustar"]
    if not starts:
        return plain
    at = rng.choice(starts)
    head = bytearray(plain[at : at + _BLOCK])
    place, new = rng.choice(
        [
            (0, rng.choice([b"../x.bin\0", b"/etc/x.bin\0", b"imgstats/\xff.bin\0", b"imgstats/snr.bin\0", b"\0"])),
            (124, rng.choice([b"00000000000\0", b"77777777777\0", b"\x80" + b"\xff" * 11, b"-0000000001\0", b"zzz"])),
            (156, rng.choice([b"1", b"2", b"5", b"x", b"g", b"L", b"K", b"S", b"\0", b"\xff"])),
            (345, b"imgstats\0"),
        ]
    )
    head[place : place + len(new)] = new
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return plain[:at] + bytes(head) + plain[at + _BLOCK :]
