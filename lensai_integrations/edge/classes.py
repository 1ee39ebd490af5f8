"""Where a model's id ends and a class begins in files called `<model><class>.bin`, with nothing between the two.

`resnet500.bin` may be class 0 of `resnet50` and class 500 of `resnet`; beside `resnet501.bin` and nothing else it is
the former, because a model's classes are counted from 0. So all such names of a folder are looked at together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Final

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
    found: dict[tuple[PurePosixPath, str], dict[str, PurePosixPath]] = {}
    for path in paths:
        if path.parent.name == "modelstats" and (name := _UNMARKED.fullmatch(path.stem)):
            found.setdefault((path.parent, name[1]), {})[name[2]] = path
    return found


def _ids(names: Iterable[str]) -> dict[str, str] | None:
    """The digits that belong to the model's id by all digits, of as few models as possible; None if no ids fit."""
    left, ids = set(names), dict[str, str]()
    for _ in range(_MOST_IDS):
        readings = _readings(left)
        fitting = [id for id, each in readings.items() if len(each) > 1 and each.keys() == {*range(len(each))}]
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
