"""Which weights a profile was made with: told apart by a digest of a sample of every tensor, not by a step's number.

A step's number tells nothing where weights are averaged, swapped, restored or loaded. What changes in training changes
nearly every element of a tensor, so a few runs of elements of each are enough, and cost nothing beside a pass.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

#: Runs of elements that are looked at of a tensor, evenly spread over it, and how long each is.
RUNS: Final = 4
RUN: Final = 64
#: Under what a profile's info says which weights it was made with.
WEIGHTS: Final = "weights"


@dataclass(frozen=True)
class Weights:
    """A digest of a model's weights.

    Attributes:
        tensors: How many there are.
        kinds: Their dtypes, sorted.
        digest: In hexadecimal, of dtype, shape and sample of each, in order. Names do not count: wrappers change them.

    Example:
        >>> import numpy as np
        >>> one = Weights.of([("float32", (3,), np.arange(3, dtype="f4"))])
        >>> two = Weights.of([("float32", (3,), np.ones(3, dtype="f4"))])
        >>> one.same_as(one), one.same_as(two), one.same_as(Weights.of([]))
        (True, False, None)
    """

    tensors: int
    kinds: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, tensors: Iterable[tuple[str, tuple[int, ...], NDArray[Any]]]) -> Self:
        """The digest of tensors.

        Args:
            tensors: Of each its dtype's name, its shape, and the elements at `sampled(number of elements)` of it, laid
                out flat row by row, in any dtype whose bytes are the tensor's own.
        """
        digest, kinds = hashlib.sha256(), []
        for dtype, shape, sample in tensors:
            kinds.append(dtype)
            digest.update(f"{dtype}{tuple(map(int, shape))}".encode())
            digest.update(np.ascontiguousarray(sample).tobytes())
        return cls(len(kinds), tuple(sorted(set(kinds))), digest.hexdigest()[:32])

    def same_as(self, other: Self) -> bool | None:
        """Whether two digests are of the same weights; None if they are not of the same tensors, so that it cannot be
        told."""
        if (self.tensors, self.kinds) != (other.tensors, other.kinds):
            return None
        return self.digest == other.digest

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for a profile's info."""
        return {"tensors": self.tensors, "kinds": list(self.kinds), "digest": self.digest}

    @classmethod
    def from_json(cls, value: Any) -> Self | None:
        """What `to_json` gave; None of anything else.

        Example:
            >>> Weights.from_json(None) is None
            True
        """
        if not isinstance(value, Mapping):
            return None
        tensors, kinds, digest = (value.get(key) for key in ("tensors", "kinds", "digest"))
        if not (isinstance(tensors, int) and isinstance(kinds, list) and isinstance(digest, str)):
            return None
        return cls(tensors, tuple(map(str, kinds)), digest)


def sampled(size: int) -> NDArray[np.int64]:
    """Which elements of a tensor are looked at, by their place in it laid out flat.

    Args:
        size: How many it has.

    Example:
        >>> sampled(3), sampled(100_000)[[0, 63, 64, -1]]
        (array([0, 1, 2]), array([    0,    63, 33312, 99999]))
    """
    if size <= RUNS * RUN:
        return np.arange(size)
    starts = np.linspace(0, size - RUN, RUNS).astype(np.int64)
    return (starts[:, None] + np.arange(RUN)).ravel()
