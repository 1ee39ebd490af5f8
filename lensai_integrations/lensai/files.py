"""The folders and files of LensAI's sketches: which metric is where, and under which name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Final

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.measures.edge import without_infinity
from lensai_integrations.sketches import wire
from lensai_integrations.storage.folders import replace_file

#: Folders that hold sketches. Some devices write `imagestats`, and C++ writes `custom` for `customstats`. Of files of
#: one name the first folder's is read: the old profiler left means and pixels in `customstats`.
FOLDERS: Final = ("imgstats", "imagestats", "modelstats", "customstats", "custom", "samples", "trackingstats")
#: A sketch with the largest k has less than 1 MB.
MAX_BYTES: Final = 1 << 24

_IMAGE: Final = ("brightness", "sharpness", "noise", "mean", "pixel")
_NUMBERED: Final = ("mean", "pixel")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
_NUMBER: Final = re.compile(r"(.+)_(0|[1-9][0-9]{0,6})")


def folder_of(metric: str) -> str:
    """The folder a metric's sketches are written to.

    Example:
        >>> folder_of("pixel"), folder_of("embeddings"), folder_of("blur")
        ('imgstats', 'modelstats', 'customstats')
    """
    return "imgstats" if metric in _IMAGE else "modelstats" if metric == "embeddings" else "customstats"


def names(metric: str, channels: int) -> list[str]:
    """The names of a metric's files, one per channel; those of means and pixels have a number even for grey images.

    Raises:
        InputError: If the metric's name cannot be part of a file name.

    Example:
        >>> names("noise", 1), names("mean", 2)
        (['noise.bin'], ['mean_0.bin', 'mean_1.bin'])
    """
    if not isinstance(metric, str) or not _NAME.fullmatch(metric):
        raise InputError(f"metric_name={metric!r} should be letters, digits, '_', '-', '.' and spaces: it names a file")
    if channels == 1 and metric not in _NUMBERED:
        return [f"{metric}.bin"]
    return [f"{metric}_{channel}.bin" for channel in range(channels)]


def write(base: Path, metric: str, blobs: Mapping[str, bytes]) -> None:
    """Write a metric's files, each replaced in one step."""
    folder = base / folder_of(metric)
    folder.mkdir(parents=True, exist_ok=True)
    for name, blob in blobs.items():
        replace_file(folder / name, blob)


def paths(base: Path) -> Iterator[Path]:
    """The files of sketches below a folder, sorted within each folder; no links, and none that begin with a dot."""
    for folder in FOLDERS:
        for path in sorted((base / folder).glob("*.bin")):
            if not path.name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


def read(base: Path, registered: Set[str]) -> dict[str, list[bytes]]:
    """The sketches below a folder, as bytes that were checked, by metric and channel.

    Args:
        base: The folder that holds `imgstats` and so on.
        registered: Names that are metrics even where they look like a channel of one, such as `layer_1`.

    Raises:
        InputError: If there is none.
        FormatError: If a file is damaged or too large.
    """
    single: dict[str, bytes] = {}
    for path in paths(base):
        if path.stem not in single:
            single[path.stem] = _checked(path)
    if not single:
        raise InputError(f"base_path={str(base)!r} has no sketches: pass the folder that holds imgstats")
    channels: dict[str, dict[int, str]] = {}
    for name in single:
        numbered = _NUMBER.fullmatch(name) if name not in registered else None
        if numbered:
            channels.setdefault(numbered[1], {})[int(numbered[2])] = name
    result: dict[str, list[bytes]] = {}
    for metric, found in channels.items():
        consecutive = sorted(found) == list(range(len(found)))
        if consecutive and (len(found) > 1 or metric in _NUMBERED):
            result[metric] = [single.pop(found[channel]) for channel in range(len(found))]
    return {**{name: [blob] for name, blob in single.items()}, **result}


def _checked(path: Path) -> bytes:
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(f"{path} has {path.stat().st_size} bytes, more than the {MAX_BYTES} a sketch may have")
    blob = path.read_bytes()
    try:
        wire.read(blob)
        return without_infinity(blob) if path.stem == "noise" else blob
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
