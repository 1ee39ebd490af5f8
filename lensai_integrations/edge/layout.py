"""What the files of a LensAI device are called, and which stream of a profile each is.

Every name a LensAI release has used is read; the newest is written. Where a folder has both an old and a new name for
one measure, they are of two releases with two formulas, so the old one goes to a group of its own, `"older"`.

In files called `<model><class>.bin` nothing says where the model's id ends and the class begins: `resnet500.bin` may be
class 0 of `resnet50` and class 500 of `resnet`; beside `resnet501.bin` and nothing else it is the former, because a
model's classes are counted from 0. So all such names of a folder are looked at together (`class_names`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from lensai_integrations.measures.definitions import Definition, register
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.measures.outputs import SCORES

CONVENTION: Final = "lensai-edge"
INPUTS, OUTPUTS, MODEL, TRACKING, CUSTOM, OLDER = (
    "inputs/lensai-edge", "outputs", "modelstats", "tracking", "custom", "older",
)  # fmt: skip

#: The measures of images by name, and what a pixel is.
IMAGE_IDS: Final = {m.definition.name: m.definition.id for m in CONVENTIONS[CONVENTION].measures} | {
    "pixel": CONVENTIONS[CONVENTION].pixel.id
}
#: Files in `samples/` by stream.
SAMPLES: Final = {score: score.replace("_", "") for score in SCORES}
#: Files in `trackingstats/`.
TRACKED: Final = (
    "track_confidence", "track_length", "track_iou", "position_error", "orientation_error",
    "angular_velocity_latency", "covariance_spread", "angular_divergence", "anomalous_rotation", "quaternion_drift",
)  # fmt: skip
#: What a name in a file's or folder's name may consist of.
NAME: Final = re.compile(r"[\w+-][\w.+ -]{0,126}")

_DEVICE = "LensAI C++ profiler"
COMPONENT, TRACK, OWN = "lensai-edge/component@1", "lensai-edge/tracking@1", "lensai-edge/custom@1"
register(
    Definition(COMPONENT, "component", "1", "Every component of every embedding.", "as the model gave it", _DEVICE),
    Definition(TRACK, "tracking", "the device's own", "One number of a tracker.", "as the device computes it", _DEVICE),
    Definition(OWN, "custom", "the device's own", "A number a device's user chose.", "as the device has it", _DEVICE),
)

_IMAGE = re.compile(r"(noise|brightness|sharpness|contrast)|(mean|pixel)_(\d{1,3})")
_OLD_IMAGE = re.compile(r"kll_(?:(brightness|sharpness|snr|noise)|channel_(mean|pixel)s?_(\d{1,3}))(?:-\d+)?")
_CLASS = re.compile(r"(.*?)_?(\d{1,6})")


@dataclass(frozen=True)
class StreamPlace:
    """Where a file belongs in a profile.

    Attributes:
        group: Name of the group.
        stream: Name of the stream within it.
        measure: Key of its definition within the group.
        definition: Its definition's id.
        model: The model's id, for the scores of a class.
        old: Whether an older release has given it its name.
    """

    group: str
    stream: str
    measure: str
    definition: str
    model: str = ""
    old: bool = False


def place_of(folder: str, stem: str) -> StreamPlace | None:
    """What a device's file is, None where that is not known.

    Args:
        folder: Name of the folder it is in, e.g. `"imgstats"`.
        stem: Its name without `.bin`.

    Example:
        >>> place_of("imgstats", "mean_2").stream, place_of("imagestats", "kll_snr-2").stream
        ('mean/2', 'noise')
        >>> place_of("modelstats", "Mobilenet_Binary_0").model
        'Mobilenet_Binary'
    """
    read = FOLDERS.get(folder)
    return read(stem) if read is not None and NAME.fullmatch(stem) else None


def _image(stem: str) -> StreamPlace | None:
    if match := _IMAGE.fullmatch(stem):
        return _image_place(*match.groups())
    if match := _OLD_IMAGE.fullmatch(stem):
        whole, channel, number = match.groups()
        return _image_place("noise" if whole == "snr" else whole, channel, number, old=True)
    return None


def _image_place(whole: str | None, channel: str | None, number: str | None, *, old: bool = False) -> StreamPlace:
    measure = whole or channel or ""
    stream = measure if whole else f"{measure}/{int(number or 0)}"
    return StreamPlace(INPUTS, stream, measure, IMAGE_IDS[measure], old=old)


def _model(stem: str) -> StreamPlace | None:
    if stem == "embeddings":
        return StreamPlace(MODEL, "component/all", "component", COMPONENT)
    if stem.endswith("_embedding"):
        return StreamPlace(MODEL, f"component/{stem.removesuffix('_embedding')}", "component", COMPONENT)
    match = _CLASS.fullmatch(stem)
    model, name = match.groups() if match else stem.rpartition("_")[::2]
    stream = f"softmax/{int(name) if match else name}"
    return StreamPlace(OUTPUTS, stream, "softmax", "lensai/softmax@1", model) if name else None


def _sample(stem: str) -> StreamPlace | None:
    score = next((score for score, name in SAMPLES.items() if name == stem), None)
    return StreamPlace(OUTPUTS, score, score, f"lensai/{score}@1") if score else None


def _custom(stem: str) -> StreamPlace:
    return StreamPlace(CUSTOM, stem, "*", OWN)


def _python_custom(stem: str) -> StreamPlace:
    """The Python profiler's folder, in which its means and pixels of channels land, too."""
    match = _IMAGE.fullmatch(stem)
    return _image_place(*match.groups(), old=True) if match and match[2] else _custom(stem)


#: How the names in a folder are read.
FOLDERS: Final[dict[str, Callable[[str], StreamPlace | None]]] = {
    "imgstats": _image,
    "imagestats": _image,
    "modelstats": _model,
    "samples": _sample,
    "trackingstats": lambda stem: StreamPlace(TRACKING, stem, "*", TRACK),
    "custom": _custom,
    "customstats": _python_custom,
}


def file_of(group: str, stream: str, model: str) -> str | None:
    """The file a device has for a stream, relative to its folder; None where it has none.

    Args:
        group: Name of the group.
        stream: Name of the stream within it.
        model: The model's id, for the scores of a class.

    Example:
        >>> file_of(INPUTS, "pixel/0", ""), file_of("outputs", "softmax/1", "net"), file_of(INPUTS, "hue", "")
        ('imgstats/pixel_0.bin', 'modelstats/net_1.bin', None)
    """
    stem, _, suffix = stream.partition("/")
    if group in (INPUTS, OLDER):
        return _image_file(stem, suffix, old=group == OLDER)
    if group == OUTPUTS or group.startswith(f"{OUTPUTS}/"):
        if stream in SAMPLES:
            return f"samples/{SAMPLES[stream]}.bin"
        return f"modelstats/{model}_{suffix}.bin" if stem == "softmax" and suffix else None
    if group == MODEL and stem == "component":
        return "modelstats/embeddings.bin" if suffix == "all" else f"modelstats/{suffix}_embedding.bin"
    folder = {TRACKING: "trackingstats", CUSTOM: "custom"}.get(group)
    return f"{folder}/{stream}.bin" if folder else None


def canonical(place: StreamPlace) -> str:
    """The name that the file of a stream has, whichever release has written it.

    Example:
        >>> [canonical(place) for place in (place_of("imagestats", "mean_2"), place_of("samples", "ratioconfidence"))
        ...  if place]
        ['imgstats/mean_2.bin', 'samples/ratioconfidence.bin']
    """
    group = OLDER if place.old else place.group
    return file_of(group, place.stream, place.model) or f"imgstats/{place.stream}.bin"


def _image_file(measure: str, channel: str, *, old: bool) -> str | None:
    if measure not in IMAGE_IDS or measure == "contrast":  # devices compute it and never save it
        return None
    if not old:
        return f"imgstats/{measure}{'_' if channel else ''}{channel}.bin"
    name = {"noise": "snr", "mean": "channel_mean_", "pixel": "channel_pixels_"}.get(measure, measure)
    return f"imgstats/kll_{name}{channel}-2.bin"


#: A name without an underscore before its number: what comes before all its digits, and the digits.
_UNMARKED: Final = re.compile(r"((?:.*[^_0-9])?)([0-9]+)", re.DOTALL)
#: Digits that the number of a class may have.
MOST_DIGITS: Final = 6
#: Ids that share what comes before their last digits; so many names of a stranger's upload take no time.
_MOST_IDS: Final = 16
_MOST_NAMED: Final = 3
_DOUBT: Final = (
    "the model's id may end in a digit, so it is not certain which class it is of: call such files <model>_<class>.bin"
)


def class_names(paths: Iterable[PurePosixPath]) -> tuple[dict[PurePosixPath, str], list[str]]:
    """The names, with an underscore before the class, of those files whose own name alone would be misread.

    Args:
        paths: Of all files; those of one `modelstats/` folder are looked at together.

    Returns:
        New names without `.bin` by path, and what a reader should know: files that may be of another class.

    Example:
        >>> two = [PurePosixPath(f"modelstats/resnet50{number}.bin") for number in (0, 1)]
        >>> list(class_names(two)[0].values()), class_names(two)[1]
        (['resnet50_0', 'resnet50_1'], [])
        >>> class_names(two[:1])[1][0][:63]
        "modelstats/resnet500.bin: the model's id may end in a digit, so"
    """
    names: dict[PurePosixPath, str] = {}
    doubtful: list[PurePosixPath] = []
    for start, files in _alike(paths).items():
        ids = _ids(files)
        if ids is None or _one_within_another({*ids.values()}):
            doubtful += [path for digits, path in files.items() if len(digits) > 1]
        for digits, path in files.items():
            if ids and (id := ids[digits]):  # else the name alone says so
                names[path] = f"{start[1]}{id}_{digits.removeprefix(id)}"
    return names, [_told(doubtful)] if doubtful else []


def _alike(paths: Iterable[PurePosixPath]) -> dict[tuple[PurePosixPath, str], dict[str, PurePosixPath]]:
    """Files by digits at the end of their names, by folder and what comes before the digits."""
    alike: dict[tuple[PurePosixPath, str], dict[str, PurePosixPath]] = {}
    for path in paths:
        if path.parent.name == "modelstats" and (name := _UNMARKED.fullmatch(path.stem)):
            alike.setdefault((path.parent, name[1]), {})[name[2]] = path
    return alike


def _ids(names: Iterable[str]) -> dict[str, str] | None:
    """The digits that belong to the model's id by all digits, of as few models as possible; None if no ids fit."""
    left, ids = set(names), dict[str, str]()
    for _ in range(_MOST_IDS):
        readings = _readings(left)
        fitting = [
            id for id, classes in readings.items() if len(classes) > 1 and classes.keys() == {*range(len(classes))}
        ]
        if not fitting:
            break
        id = max(fitting, key=lambda id: (len(readings[id]), id))
        ids |= dict.fromkeys(readings[id].values(), id)
        left -= {*readings[id].values()}
    return None if left else ids


def _one_within_another(ids: set[str]) -> bool:
    """Whether it may be one model after all, of which some classes have no file."""
    return any(one != two and two.startswith(one) for one in ids for two in ids)


def _readings(names: Iterable[str]) -> Mapping[str, dict[int, str]]:
    """Names by class, by what may be the end of an id; a class has no zeros in front."""
    readings: dict[str, dict[int, str]] = {}
    for digits in names:
        for end in range(max(len(digits) - MOST_DIGITS, 0), len(digits)):
            if digits[end] != "0" or end == len(digits) - 1:
                readings.setdefault(digits[:end], {})[int(digits[end:])] = digits
    return readings


def _told(paths: list[PurePosixPath]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return f"{', '.join(str(path)[:200] for path in sorted(paths)[:_MOST_NAMED])}{more}: {_DOUBT}"
