"""How people name layers: by the full name, or by the end of one where only one layer has it.

The same network is a part of one module in training and of another in production, so the names that a baseline knows
have other beginnings there: what counts is how much of their ends is the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from lensai_integrations.errors import InputError

#: Behind a layer's name: what goes into it, instead of what comes out.
INPUT = ".input"
_MOST_LISTED = 40


class SeveralAlikeError(InputError):
    """Several layers have names that end alike."""


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


def find_alike(layers: Mapping[str, Any], name: str, separator: str = ".") -> tuple[str, bool, bool]:
    """The full name of the layer that a name of another model means here, by the longest end that both share.

    Args:
        layers: The layers by full name. One layer may have several.
        name: A full name in another model, with `.input` behind it or not.
        separator: Between the parts of a full name.

    Returns:
        The name, whether the layer's input is meant, and whether that is sure: one of the two names is the end of the
        other.

    Raises:
        SeveralAlikeError: If the names of several layers do.
        InputError: If no layer's name ends alike.

    Example:
        >>> find_alike({"backbone": 1, "backbone.fc": 2}, "net.fc.input")
        ('backbone.fc', True, False)
    """
    before = name.endswith(INPUT)
    words = name.removesuffix(INPUT).split(separator)
    shared = {path: _shared(words, path.split(separator)) for path in layers}
    most = max(shared.values(), default=0)
    if not most:
        raise InputError(_unknown(name, list(layers), separator))
    whole = [path for path, n in shared.items() if n == len(path.split(separator)) or n == len(words)]
    likely = [path for path in whole if shared[path] == most] or [path for path, n in shared.items() if n == most]
    if len({id(layers[path]) for path in likely}) > 1:
        raise SeveralAlikeError(f"layer {name!r} of the baseline could be {_listed(likely)} here")
    return likely[0], before, bool(whole) and likely[0] in whole


def _shared(one: list[str], two: list[str]) -> int:
    """How many words two names end alike with."""
    pairs = zip(reversed(one), reversed(two), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))


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
