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
#: Under what a profile's info has the digest of the weights it was made with, and a baseline's info says in words whose
#: they are.
WEIGHTS: Final = "weights"
WEIGHTS_OF: Final = "weights_of"
#: Whose weights: those that a fit leaves, those of no one, those of a model that nobody says more of.
LEFT_BY_FIT: Final = "the weights that fit leaves, {at}"
NOBODYS: Final = "neither the weights that fit leaves nor a checkpoint's: it was made {at}"
CHANGING: Final = "no one's: the reference is of training data, seen while the weights changed, {at}"
#: What is to be said where the reference is of other weights than those that are kept, and what settles it.
ASK_FINAL: Final = (
    'pass reference="final" for one more validation pass at the end of fit, with the weights that it leaves'
)
NO_PASS: Final = f"there was no validation pass before fit ended: {ASK_FINAL}"
OLDER: Final = (
    "the reference is not of the weights that fit leaves: its last validation pass was {at}, and the weights are those"
    " {left}; clean production data may look drifted against it"
)
NOT_LEFT: Final = OLDER + ". To settle it, " + ASK_FINAL
NOT_THE_CHECKPOINTS: Final = (
    "{checkpoint} has other weights than the reference: those {held}, and the reference was made {at}; the baseline of"
    " that checkpoint is made by {how}"
)


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


def moment(step: int | None, epoch: int | None = None) -> str:
    """When weights were what they were, in words.

    Example:
        >>> moment(20, 1), moment(28), moment(None)
        ('at step 20 (epoch 1)', 'at step 28', 'at a step that is not known')
    """
    if step is None:
        return "at a step that is not known" if epoch is None else f"at the end of epoch {epoch}"
    return f"at step {step}" if epoch is None else f"at step {step} (epoch {epoch})"
