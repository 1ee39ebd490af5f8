"""JSON that is written so that it can be read again, and read so that it can be written again.

What Python's parser takes and its writer or a later user refuses is refused where it is read, with the name of what it
was read from: keys that are there twice, numbers that are not finite, texts that are no Unicode (halves of surrogate
pairs, which no file and no terminal takes), values so deep in one another that a recursion over them fails, so many
of them that a small file takes gigabytes.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable
from typing import Any, Final

from lensai_integrations.errors import FormatError, InputError

#: How deep values may lie in one another; segments of a manifest lie seven deep.
MAX_DEPTH: Final = 64
#: Most commas and opening brackets, and so values: one may take three bytes here and 70 in memory.
MAX_VALUES: Final = 2**22


def to_json(value: Any, name: str, indent: int | None = None) -> bytes:
    """A value as JSON that `from_json` takes, in ASCII.

    Args:
        value: Texts, finite numbers, booleans, None, and lists and dicts of them.
        name: What messages call it.
        indent: As in `json.dumps`.

    Raises:
        InputError: If it holds anything else, a text that is no Unicode, too many values, or too deep in one another.

    Example:
        >>> to_json({"site": "north"}, "info")
        b'{"site": "north"}'
    """
    try:
        _check(value)
        content = json.dumps(value, indent=indent, allow_nan=False).encode()
        _check_size(content)
        return content
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{name} is {_shown(value)}, which no file can hold: put texts, finite numbers, lists and dicts of"
            f" them there ({error})"
        ) from error


def _shown(value: Any) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # of a number with too many digits
        return f"a {type(value).__name__}"


def from_json(content: bytes, name: str) -> Any:
    """The value that some JSON is of, if `to_json` could have written it.

    Args:
        content: UTF-8, of a size that may be read.
        name: What messages call it.

    Raises:
        FormatError: If it is no JSON, or none of such values.

    Example:
        >>> from_json(b'{"a": 1, "a": 2}', "head.json")
        Traceback (most recent call last):
        ...
        lensai_integrations.errors.FormatError: head.json is not JSON that can be read: the key 'a' is there twice
    """
    try:
        _check_size(content)
        value = json.loads(content.decode(), object_pairs_hook=_unique)
        _check(value)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not JSON that can be read: {error}") from error
    return value


def _check_size(content: bytes) -> None:
    values = sum(map(content.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise ValueError(f"it has {values} commas and brackets, more than the {MAX_VALUES} that are read")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name!r} is there twice")
        result[name] = value
    return result


def _check(value: Any) -> None:
    """Refuse what cannot be written as UTF-8, at any depth of the caller's own stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
            return
    raise ValueError(f"values lie more than {MAX_DEPTH} deep in one another")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


def whole_number(value: Any) -> int:
    """A count that was read.

    Raises:
        FormatError: If it is none.

    Example:
        >>> whole_number(3)
        3
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise FormatError(f"{value!r} is no count")
    return value
