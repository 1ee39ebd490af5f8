"""How people name layers: by the full name, or by the end of one where only one layer has it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from lensai_integrations.errors import InputError

#: Behind a layer's name: what goes into it, instead of what comes out.
INPUT = ".input"
_MOST_LISTED = 40


def find_named(layers: Mapping[str, Any], name: str, separator: str = ".") -> tuple[str, bool]:
    """The full name that is meant, and whether the layer's input is: `.input` may stand behind either form.

    Args:
        layers: The layers by full name. One layer may have several.
        name: A full name, or the end of one if only one layer has it.
        separator: Between the parts of a full name.

    Raises:
        InputError: If there is no such layer, or several; the message has the nearest names and those that exist.

    Example:
        >>> find_named({"body": 1, "body.conv": 2}, "conv.input")
        ('body.conv', True)
    """
    path = _find(layers, name, separator)
    if path is not None:
        return path, False
    stem = _find(layers, name.removesuffix(INPUT), separator) if name.endswith(INPUT) else None
    if stem is None:
        raise InputError(_unknown(name, list(layers), separator))
    return stem, True


def _find(layers: Mapping[str, Any], name: str, separator: str) -> str | None:
    if name in layers:
        return name
    ends = [path for path in layers if path.endswith(f"{separator}{name}")]
    if len({id(layers[path]) for path in ends}) > 1:
        raise InputError(f"layer {name!r} could be {_listed(ends)}: pass the full name")
    return ends[0] if ends else None


def _unknown(name: str, paths: list[str], separator: str) -> str:
    by_end = {path.rsplit(separator, maxsplit=1)[-1]: path for path in reversed(paths)}
    close = difflib.get_close_matches(name, paths, n=3, cutoff=0.5)
    close += [by_end[end] for end in difflib.get_close_matches(name, by_end, n=3, cutoff=0.5)]
    nearest = f"nearest: {_listed(list(dict.fromkeys(close))[:3])}; " if close else ""
    return f"the model has no layer {name!r}; {nearest}it has {_listed(paths)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
