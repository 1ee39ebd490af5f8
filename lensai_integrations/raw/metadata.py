"""What came with an image: of its file, and of its EXIF data what was asked for.

EXIF data can identify a camera and so a person: nothing of it is read unless it is named.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.problems import pass_on
from lensai_integrations.raw.reading import Delivered

#: A function of the user's: from what was delivered to a number, a category or None.
Metadata = Callable[[Any], Any]
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: What is known of any image: its colour mode; of a file also its format and size in bytes.
FILE: Final = ("mode", "format", "file_size")
#: EXIF tags by the names they are asked for (Exif 2.32, CIPA DC-008), and the directory that they are in.
_TAGS: Final = {
    "make": (0x010F, None),
    "model": (0x0110, None),
    "orientation": (0x0112, None),
    "software": (0x0131, None),
    "exposure": (0x829A, 0x8769),
    "iso": (0x8827, 0x8769),
}
#: What of EXIF can be asked for.
EXIF: Final = tuple(_TAGS)
_CATEGORIES: Final = ("make", "model", "orientation", "software")
#: What is a number of so many values that it tells no images apart.
NUMBERS: Final = ("file_size", "exposure")


def checked_exif(names: Sequence[str]) -> tuple[str, ...]:
    """The names, if they are some of `EXIF`.

    Raises:
        InputError: If they are not.

    Example:
        >>> checked_exif(["iso"])
        ('iso',)
    """
    if isinstance(names, str) or not set(names) <= set(EXIF):
        raise InputError(f"exif={names!r} should be a list of some of {', '.join(EXIF)}")
    return tuple(names)


def checked_metadata(metadata: Mapping[str, Metadata] | None) -> dict[str, Metadata]:
    """Functions by the name of what they give, if they are some.

    Raises:
        InputError: If they are not.

    Example:
        >>> list(checked_metadata({"hour": len})), checked_metadata(None)
        (['hour'], {})
    """
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InputError(f"metadata={metadata!r} should be a dict of functions by name: {{'site': function}}")
    for key, function in (metadata or {}).items():
        if not isinstance(key, str) or not NAME.fullmatch(key) or key in (*FILE, *EXIF):
            raise InputError(f"metadata names should be short words other than {(*FILE, *EXIF)}, not {key!r}")
        if not callable(function):
            raise InputError(f"metadata[{key!r}]={function!r} should be a function of a sample")
    return dict(metadata or {})


def answered(function: Metadata, sample: Any) -> Any:
    """What a function of the user's gives of a sample; the exception where it fails.

    Example:
        >>> answered(len, "four"), answered(len, 4)
        (4, TypeError("object of type 'int' has no len()"))
    """
    try:
        return function(sample)
    except Exception as error:  # noqa: BLE001  whatever it raises
        pass_on(error)
        return error


def file_of(delivered: Delivered) -> dict[str, Any]:
    """Mode, format and size of an image's file, as far as they are known.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations.raw.reading import read
        >>> file_of(read(np.zeros((4, 4), np.uint8)))
        {'mode': 'L'}
    """
    found: dict[str, Any] = {"mode": delivered.mode}
    if delivered.format:
        found["format"] = delivered.format
    path = getattr(delivered.extra, "filename", None)
    if isinstance(path, str | os.PathLike) and os.path.isfile(path):  # noqa: PTH113
        found["file_size"] = os.path.getsize(path)  # noqa: PTH202
    return found


def exif_of(delivered: Delivered, names: Sequence[str]) -> dict[str, Any]:
    """What an image's EXIF data says of these; exposure in seconds. Numbers as numbers, the rest as categories.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations.raw.reading import read
        >>> exif_of(read(np.zeros((4, 4), np.uint8)), ["make"])
        {}
    """
    if not names or delivered.extra is None:
        return {}
    exif = delivered.extra.getexif()
    found = {}
    for name in names:
        tag, directory = _TAGS[name]
        value = exif.get(tag) if directory is None else exif.get_ifd(directory).get(tag, exif.get(tag))
        value = value[0] if isinstance(value, tuple) and value else value
        if value is not None:
            found[name] = str(value).strip("\0 ") if name in _CATEGORIES else _number(float(value))
    return found


def _number(value: float) -> float | int:
    """A whole number as one, so that it can be a segment's."""
    return int(value) if value.is_integer() else value
