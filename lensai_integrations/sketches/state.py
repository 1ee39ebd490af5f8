"""What a sketch declares, and how its state is read back, believing nothing.

All that profiles do with a sketch follows from its declaration and its place in the table `kinds.py`: which rows it is
fed, how it merges, travels in files, is summarised and compared. So a new one is a file of its own and a line there.

A state is a dict of plain host arrays. It may come from a file somebody else wrote, so every array is checked for its
kind, its shape and its values before a sketch is made of it, and what does not fit raises `FormatError`, never
anything else. One place for these checks keeps each sketch's `from_state` a list of what it expects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lensai_integrations.errors import FormatError

#: What `state()` of any sketch returns.
State = dict[str, NDArray[Any]]

#: Larger counts than this are refused: sums of two of them still fit an int64.
LARGEST_COUNT = 2**61
#: The ranks every summary shows.
RANKS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Sketch(ABC):
    """A fixed-size summary of rows, which merges and becomes plain arrays and back.

    Attributes:
        takes: What it is updated with: `"rows"`, numbers `[n, D]` of streams; `"vectors"`, the same of groups whose
            rows are looked at as vectors (outputs, embeddings); `"pixels"`, uint8 `[n, C, H, W]` or their counts;
            `"categories"`, `[n]`, or which of several are on, bool `[n, k]`.
        in_segments: Whether the segments of a profile keep it as well, which have to stay small.
        dropped: What is said where two cannot be merged with a `DefinitionError` and are left out; empty if that is an
            error of the whole merge.
    """

    takes: ClassVar[Literal["rows", "vectors", "pixels", "categories"]]
    in_segments: ClassVar[bool] = False
    dropped: ClassVar[str] = ""

    if TYPE_CHECKING:  # an attribute in some, a property in others

        @property
        def n(self) -> int:
            """Rows it has seen, less those left out."""

    @classmethod
    def new(cls, width: int, *, k: int = 200, seed: int | None = None, like: Sketch | None = None) -> Self:
        """One for rows of this width.

        Args:
            width: D, or the channels of pixels.
            k: Size of KLL sketches, for those that are made of some.
            seed: Of random decisions; None draws one.
            like: The baseline's sketch of the same stream, with which it will be compared.
        """
        return cls(width)  # type: ignore[call-arg]

    @abstractmethod
    def empty(self) -> Self:
        """Another one that has seen nothing, and merges with this one."""

    @abstractmethod
    def update(self, values: Any) -> None:
        """Take a batch of what it `takes`; an accelerator is never waited for."""

    @abstractmethod
    def merge(self, other: Any, /) -> None:
        """Add what another has seen; that one stays as it is."""

    @abstractmethod
    def to_host(self) -> Self:
        """The same in host memory, for which an accelerator is waited for; itself if it is there."""

    def copied(self) -> Self:
        """A copy in host memory, which goes on exactly as this one would. Waits for an accelerator.

        Those that are copied for every image do so without the checks that a state from elsewhere needs.
        """
        return type(self).from_state(self.to_host().state())

    @abstractmethod
    def state(self) -> State:
        """Plain host arrays, named alike in all sketches of a kind."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any], /) -> Self:
        """The sketch whose state this is, which shares no memory with it.

        Raises:
            FormatError: If it is none.
        """

    def summary(self, streams: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """What a table says of it: by the name of a stream within its group, attributes of a `StreamSummary`.

        Args:
            streams: The names of its columns.
        """
        return {}

    def compared(self, other: Self, streams: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """How far another is from this one: by the name of a stream within its group, attributes of a `StreamDrift`.

        At the least `kind`, `effect` from 0 to 1 and `raw_p_value`. What banks, pixels, categories and kernel means
        are compared by needs tests and tables of its own, which are `drift.evidence`'s; they say nothing here.

        Args:
            other: A window's, where this one is the baseline's. Either may be empty.
            streams: The names of the columns, which are the same in both.
        """
        return {}


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
        actual = getattr(array, "dtype", type(array).__name__)
        raise FormatError(f"array {name!r} of a sketch's state should be {expected}, not {actual}")
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
