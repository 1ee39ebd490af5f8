"""Reading a sketch's state back, believing nothing.

A state is a dict of plain host arrays. It may come from a file somebody else wrote, so every array is checked for its
kind, its shape and its values before a sketch is made of it, and what does not fit raises `FormatError`, never
anything else. One place for these checks keeps each sketch's `from_state` a list of what it expects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lensai_integrations.errors import FormatError

#: What `state()` of any sketch returns.
State = dict[str, NDArray[Any]]

#: Larger counts than this are refused: sums of two of them still fit an int64.
LARGEST_COUNT = 2**61


def field(state: Mapping[str, Any], name: str, dtype: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """A copy of one array of a state, after checking its dtype and shape.

    Args:
        state: What `from_state` was given.
        name: Key of the array.
        dtype: The dtype it must have, exactly.
        shape: Extent of each axis; None where any will do. `()` for a scalar.

    Raises:
        FormatError: If the array is missing or differs.

    Example:
        >>> field({"counts": np.zeros((3, 256), np.int64)}, "counts", np.int64, (None, 256)).shape
        (3, 256)
    """
    if not isinstance(state, Mapping) or name not in state:
        raise FormatError(f"a sketch's state lacks the array {name!r}: it is not a state of this kind, or is damaged")
    array = state[name]
    expected = np.dtype(dtype)
    if not isinstance(array, np.ndarray) or array.dtype != expected:
        found = getattr(array, "dtype", type(array).__name__)
        raise FormatError(f"array {name!r} of a sketch's state should be {expected}, not {found}")
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        raise FormatError(f"array {name!r} of a sketch's state should have the shape {shape}, not {array.shape}")
    return np.array(array, order="C")


def number(state: Mapping[str, Any], name: str, low: int = 0, high: int = LARGEST_COUNT) -> int:
    """One whole number of a state, an int64 scalar within `low..high`.

    Raises:
        FormatError: If it is missing, of another kind or out of range.

    Example:
        >>> number({"n": np.int64(3)[...]}, "n")
        3
    """
    value = int(field(state, name, np.int64, ()))
    require(low <= value <= high, f"{name} is {value}, outside {low}..{high}")
    return value


def require(holds: bool, problem: str) -> None:
    """Refuse a state of which something does not hold.

    Raises:
        FormatError: With `problem` in its message.

    Example:
        >>> require(1 + 1 == 2, "arithmetic is broken")
    """
    if not holds:
        raise FormatError(f"damaged or foreign state of a sketch: {problem}")
