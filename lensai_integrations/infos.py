"""What is said of profiles and groups, where it comes out of a file: what programs compute with is of its kind.

Anybody may add to an info, so what is not named here is carried as it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any, Final

from lensai_integrations.errors import FormatError, LensAIError
from lensai_integrations.measures.inputs import ImageInputs

#: Whole numbers that may be None, at least 0.
_GROUP_NUMBERS: Final = ("axes", "classes", "columns", "projected_from", "seed", "width")
_GROUP_TEXTS: Final = ("convention", "kind", "layer", "model", "note", "precision", "reduce")
_PROFILE_NUMBERS: Final = ("max_segments", "padding_left_out")
_PROFILE_TEXTS: Final = ("segment_by",)
_LARGEST: Final = 2**64


def checked_profile_info(info: Any) -> dict[str, Any]:
    """What is said of a profile or a baseline.

    Raises:
        FormatError: If it is no dict, or something that programs use is not what they take it for.

    Example:
        >>> checked_profile_info({"source": "validation", "warnings": []})
        {'source': 'validation', 'warnings': []}
    """
    checked = _checked(info, "a profile", _PROFILE_NUMBERS, _PROFILE_TEXTS)
    warnings = checked.get("warnings", [])
    if not isinstance(warnings, list) or not all(isinstance(warning, str) for warning in warnings):
        raise FormatError(f"the warnings of a profile should be a list of texts, not {reprlib.repr(warnings)}")
    if not isinstance(checked.get("made_by", {}), dict):
        raise FormatError(f"made_by of a profile should be a dict, not {reprlib.repr(checked['made_by'])}")
    return checked


def checked_group_info(info: Any, group: str) -> dict[str, Any]:
    """What is said of a group.

    Raises:
        FormatError: If it is no dict, or something that programs use is not what they take it for.

    Example:
        >>> checked_group_info({"columns": "many"}, "outputs")
        Traceback (most recent call last):
        ...
        lensai_integrations.errors.FormatError: columns of group 'outputs' should be a whole number, not 'many'
    """
    checked = _checked(info, f"group {group!r}", _GROUP_NUMBERS, _GROUP_TEXTS)
    if reader := checked.get("reader"):
        try:
            ImageInputs(**reader)
        except (LensAIError, TypeError, ValueError) as error:
            raise FormatError(f"how the images of group {group!r} were read cannot be: {error}") from error
    return checked


def _checked(info: Any, of: str, numbers: tuple[str, ...], texts: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(info, Mapping):
        raise FormatError(f"what is said of {of} should be a dict, not {reprlib.repr(info)}")
    for name in numbers:
        value = info.get(name)
        if value is not None and (type(value) is not int or not 0 <= value < _LARGEST):
            raise FormatError(f"{name} of {of} should be a whole number, not {reprlib.repr(value)}")
    for name in texts:
        if not isinstance(info.get(name), str | None):
            raise FormatError(f"{name} of {of} should be a text, not {reprlib.repr(info[name])}")
    return dict(info)
