"""A LensAI device's files as profiles."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, overload

from lensai_integrations.edge.layout import CONVENTION, INPUTS, OLDER, OUTPUTS, StreamPlace, class_names, place_of
from lensai_integrations.edge.members import ArchiveContents, find, sensor_and_time
from lensai_integrations.errors import FormatError
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.measures.edge import without_infinity
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches import wire
from lensai_integrations.sketches.bank import KLLBank

#: Whose sketches they are, and of when: a sensor's name and unix time in seconds.
Key = tuple[str, int]

_ARCHIVES: Final = (".tar.gz", ".tgz", ".tar", ".gz")


@dataclass(frozen=True)
class _DeviceFile:
    path: PurePosixPath
    name: str
    place: StreamPlace
    bank: KLLBank
    digest: bytes


@overload
def read_stats(dir_or_tar: str | Path, *, merge: Literal[True] = True) -> Profile: ...
@overload
def read_stats(dir_or_tar: str | Path, *, merge: Literal[False]) -> dict[Key, Profile]: ...


def read_stats(dir_or_tar: str | Path, *, merge: bool = True) -> Profile | dict[Key, Profile]:
    """Read what LensAI's C++ or Python profiler has written, with the `lensai-edge` definitions.

    Every file is a sketch of its own, `"bank/<stream>"`: files of one folder need not have seen equally many values.
    A device's noise of +inf (a constant image) becomes `measures.edge.NO_NOISE`, 200 dB, in the sketch's items and its
    maximum, as it is in baselines with `convention="lensai-edge"`; ranks stay what they were. Files that cannot be
    read are named in the profile's warnings, files that are no sketches in `info["ignored"]`.

    Args:
        dir_or_tar: Folder of a device (`imgstats/...`), of a timestamp, a sensor, or of many sensors; or an upload, a
            tar archive that may be gzipped. It is read as it is; nothing is extracted.
        merge: True merges all sensors and timestamps into one profile; False keeps them apart.

    Returns:
        A profile, or profiles by sensor and unix time in order; 0 is the time where no folder names one.

    Raises:
        InputError: If there is no such folder or file.
        FormatError: If it is no archive, is too large, or holds not one readable sketch.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lensai_integrations import Profiler, edge
        >>> profiler = Profiler(convention="lensai-edge")
        >>> profiler.update(inputs=np.full((4, 8, 8, 3), 200, np.uint8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = edge.write_stats(profiler.profile(), folder)
        ...     device = read_stats(folder)
        >>> device.n, device.groups["inputs/lensai-edge"].apart["noise"].bank.max.tolist()
        (4, [200.0])
    """
    source = Path(dir_or_tar)
    archive = find(source)
    files, doubts = _by_key(archive, _base(source))
    if not files:
        why = "; ".join(archive.problems[:3]) or "no .bin file in a folder such as imgstats/ or modelstats/"
        raise FormatError(f"dir_or_tar={str(source)!r} holds no readable LensAI sketch: {why}")
    models = sorted({file.place.model for device_files in files.values() for file in device_files} - {""})
    profiles = {key: _profile(key, device_files, models) for key, device_files in files.items()}
    about = {"ignored": archive.ignored, "files": sum(map(len, files.values()))}
    general = [*archive.problems, *doubts, *_repeats(files)]
    if merge:
        return _all_of(profiles, general, about)
    for profile in profiles.values():
        profile.info |= about | {"warnings": [*general, *profile.warnings]}
    return profiles


def recognised(source: Path) -> tuple[dict[Key, dict[str, bytes]], list[str]]:
    """The sketches that `read_stats` reads, as the bytes they are.

    Args:
        source: Folder or upload.

    Returns:
        By sensor and unix time, content by path within their folder, e.g. `imgstats/noise.bin`, with an underscore
        before a class where only all the files together say where it begins; and what should have been a sketch and is
        none.

    Raises:
        InputError: If there is no such folder or file.
        FormatError: If it is no archive or is too large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recognised(Path(folder))
        ({}, [])
    """
    archive = find(source)
    files, _ = _by_key(archive, _base(source))
    contents: dict[Key, dict[str, bytes]] = {key: {} for key in files}
    for key, device_files in files.items():
        for file in device_files:
            if contents[key].setdefault(file.name, archive.sketches[file.path]) is not archive.sketches[file.path]:
                archive.problem(file.path, "another file of the same sensor, time and name came before")
    return contents, archive.problems


def _base(source: Path) -> tuple[str, ...]:
    """What the names around the files say of the sensor."""
    if source.is_dir():
        return source.resolve().parts[-2:]
    ending = next((suffix for suffix in _ARCHIVES if source.name.endswith(suffix)), "")
    return (source.name.removesuffix(ending),)


def _by_key(archive: ArchiveContents, base: tuple[str, ...]) -> tuple[dict[Key, list[_DeviceFile]], list[str]]:
    """The files whose sketches can be read, and which of them may be of another class."""
    files: dict[Key, list[_DeviceFile]] = {}
    names, doubts = class_names(archive.sketches)
    for path, content in archive.sketches.items():
        stem = names.get(path, path.stem)
        place = place_of(path.parent.name, stem)
        if place is None:
            archive.ignore(path, "no name that LensAI gives")
            continue
        try:
            bank = bank_of(content, str(path), noise=place.measure == "noise")
        except FormatError as error:
            archive.problem(path, str(error))
            continue
        file = _DeviceFile(path, f"{path.parent.name}/{stem}.bin", place, bank, hashlib.sha256(content).digest())
        files.setdefault(sensor_and_time(path, base), []).append(file)
    return dict(sorted(files.items())), doubts


def bank_of(content: bytes, name: str, *, noise: bool = False) -> KLLBank:
    """The bank of one file's sketch.

    Args:
        content: The file's bytes.
        name: Its path, of which the seed is made: banks that are merged have different ones.
        noise: Whether +inf stands for an image without noise.

    Raises:
        FormatError: If it is damaged, has no values, or has infinite ones that mean nothing.

    Example:
        >>> bank_of(bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 80 7f"), "noise.bin", noise=True).max.tolist()
        [200.0]
    """
    content = checked(content, noise=noise)
    return KLLBank.from_bytes([content], seed=zlib.crc32(content, zlib.crc32(name.encode(errors="replace"))))


def checked(content: bytes, *, noise: bool = False) -> bytes:
    """One file's sketch as profiles have it: with values, all of them finite.

    Args:
        content: The file's bytes.
        noise: Whether +inf stands for an image without noise; it becomes `NO_NOISE`.

    Raises:
        FormatError: If it is damaged, has no values, or has infinite ones that mean nothing.

    Example:
        >>> checked(bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 80 7f"), noise=True)[-4:].hex(" ")  # 200 as float32
        '00 00 48 43'
    """
    sketch = wire.read(content)
    if sketch.n == 0:
        raise FormatError("its sketch has seen no values")
    if noise and math.isinf(sketch.maximum):
        content = without_infinity(content)
        sketch = wire.read(content)
    if not (math.isfinite(sketch.minimum) and math.isfinite(sketch.maximum)):
        raise FormatError(f"it has infinite values: its range is {sketch.minimum} to {sketch.maximum}")
    return content


def _profile(key: Key, files: Sequence[_DeviceFile], models: Sequence[str]) -> Profile:
    """The profile of one device's folder."""
    groups: dict[str, Group] = {}
    warnings: list[str] = []
    current = {file.place.stream for file in files if not file.place.old}
    for file in sorted(files, key=lambda file: file.place.old):
        group = groups.setdefault(name := _group_name(file.place, current, len(models) > 1), Group(name))
        sketch = f"bank/{file.place.stream}"
        if sketch in group.sketches:
            warnings.append(f"{file.path} was not read: another file of the folder is {name}/{file.place.stream}, too")
            continue
        group.sketches[sketch] = file.bank
        group.definitions[file.place.measure] = file.place.definition
        group.info |= _about(file.place, models)
        warnings += _out_of_range(file)
    if OLDER in groups:
        old = [str(file.path.name) for file in files if file.place.old]
        warnings.append(f"group {OLDER!r} holds files by older names beside newer ones: {', '.join(old[:20])}")
    info = {"source": key[0] or "device", "sensor": key[0], "timestamp": key[1], "warnings": warnings}
    return Profile(dict(sorted(groups.items())), info=info)


def _group_name(place: StreamPlace, current: Iterable[str], several_models: bool) -> str:
    if place.old and place.stream in current:
        return OLDER
    return f"{OUTPUTS}/{place.model}" if place.model and several_models else place.group


def _about(place: StreamPlace, models: Sequence[str]) -> dict[str, Any]:
    if place.group == INPUTS:
        return {"convention": CONVENTION, "note": "measured on a device"}
    model = place.model or (models[0] if len(models) == 1 else "")
    return {"kind": "probabilities", "model": model} if place.group == OUTPUTS and model else {}


def _out_of_range(file: _DeviceFile) -> list[str]:
    """What the file has seen that its definition does not allow: then another release computed something else."""
    low, high = DEFINITIONS[file.place.definition].range
    least, most = float(file.bank.min[0]), float(file.bank.max[0])
    rounding = 1e-4
    if (low is None or least >= low - rounding) and (high is None or most <= high + rounding):
        return []
    return [
        f"{file.path} has values from {least:g} to {most:g}, while {file.place.definition} is within {low:g} to"
        f" {high:g}: the device computes something else, so its distances say little"
    ]


def _repeats(files: dict[Key, list[_DeviceFile]]) -> list[str]:
    """The timestamps of a sensor at which it sent what it had sent before."""
    before: dict[tuple[str, str, bytes], int] = {}
    repeated: dict[tuple[str, int, int], int] = {}
    for (sensor, when), device_files in files.items():
        for file in device_files:
            earlier = before.setdefault((sensor, str(file.path.name), file.digest), when)
            if earlier != when:
                repeated[sensor, when, earlier] = repeated.get((sensor, when, earlier), 0) + 1
    return [
        f"sensor {sensor!r}: {count} files of {when} are those of {earlier}, byte for byte; merged, they count twice"
        for (sensor, when, earlier), count in repeated.items()
    ]


def _all_of(profiles: dict[Key, Profile], warnings: list[str], about: dict[str, Any]) -> Profile:
    whole = reduce(Profile.merge, profiles.values())
    sensors = sorted({sensor for sensor, _ in profiles})
    source = (sensors[0] or "device") if len(sensors) == 1 else "devices"
    times = sorted({when for _, when in profiles})
    origin = {"source": source, "sensors": sensors, "timestamps": times, **about}
    kept = {key: value for key, value in whole.info.items() if key not in ("sensor", "timestamp")}
    return replace(whole, info=kept | origin | {"warnings": list(dict.fromkeys([*warnings, *whole.warnings]))})


def profile_of_files(contents: Mapping[str, bytes], sensor: str, timestamp: int) -> Profile:
    """The profile of one device's files that are in memory.

    Args:
        contents: Bytes by path, e.g. `"imgstats/noise.bin"`.
        sensor: Whose they are.
        timestamp: Of when, unix time in seconds.

    Raises:
        FormatError: If not one of them is a readable sketch.

    Example:
        >>> noise = bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 80 7f")
        >>> profile_of_files({"imgstats/noise.bin": noise}, "door-3", 1719393854).source
        'door-3'
    """
    archive = ArchiveContents({PurePosixPath(path): content for path, content in contents.items()})
    by_key, doubts = _by_key(archive, (sensor,))
    files = [file for device_files in by_key.values() for file in device_files]
    if not files:
        raise FormatError(f"sensor {sensor!r} has no readable sketch: {'; '.join(archive.problems[:3])}")
    profile = _profile((sensor, timestamp), files, sorted({file.place.model for file in files} - {""}))
    profile.info["warnings"] = [*archive.problems, *doubts, *profile.warnings]
    return profile
