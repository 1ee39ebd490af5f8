"""How far apart two values may be that are one up to rounding, and distributions that are compared with that in mind.

The same model gives a constant channel, a ReLU's zero or a saturated probability one unit in the last place off, where
another library, memory layout or batch size adds up in another order. As a number that is nothing; as a distribution it
is everything: all rows of the baseline lie below all rows of the window. So values of the window count as those of the
baseline that they are within a tolerance of, which follows from the precision that either side's values came in. A sum
in float32 is off by a few units in the last place where it is made pairwise, and by some 400 where the 56 x 56 places
of a map are added one by one, as numpy does with channels last; its terms are hardly larger than the stream's own
typical values. Half precision rounds once, at the end.

Only where many rows share a value does it matter, or where a stream varies by little more than rounding does. Elsewhere
a distribution that is moved by a thousandth of its width is the same to any test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.profiles.groups import Group

#: Of values in float32, and in float64, which are kept as float32: 512 units in the last place, and the smallest normal
#: number, below which many devices know none but 0.
_FULL: Final = (512 * float(np.finfo(np.float32).eps), float(np.finfo(np.float32).tiny))
#: Other streams than a layer's columns are no sums that long.
_PLAIN: Final = (4 * float(np.finfo(np.float32).eps), _FULL[1])
#: Of half precision two units, and two of the smallest steps.
_HALF: Final = {"float16": (2 * 2.0**-10, 2 * 2.0**-24), "bfloat16": (2 * 2.0**-7, float(np.finfo(np.float32).tiny))}
#: A column of a layer whose values are typically smaller than this part of those of the other columns is rounded as
#: one of this size: what was added up to it may cancel, as where a normalisation's mean is taken off.
_CANCELLED: Final = 1 / 16
#: A column of a layer that varies by no more than so many tolerances, from its 2.5% to its 97.5% quantile, is coarse:
#: sums in another order move it by a tenth of a standard deviation or more. Half precision rounds each value by itself,
#: which moves no mean unless a column has hardly more than a few steps. Other streams are no sums that long.
_COARSE: Final = 40.0
_COARSE_HALF: Final = 8.0


@dataclass(frozen=True)
class Rounding:
    """The tolerance of a stream: `relative` times the larger of a value and of what is typical, at least `absolute`.

    Attributes:
        relative: Of values and typical ones.
        absolute: The smallest.
        coarse: Streams that vary by no more than so many tolerances are moved as wholes; 0 if none is.

    Example:
        >>> rounding = Rounding.of(Group("embeddings/pool", info={"precision": "float16"}))
        >>> rounding.of_values(np.array([0.0, 512.0]), typical=1.0).round(4).tolist()
        [0.002, 1.0]
    """

    relative: float
    absolute: float
    coarse: float = _COARSE

    @classmethod
    def of(cls, *groups: Group | None) -> Self:
        """Of values of several sides: of the coarsest precision."""
        sides = [group for group in groups if group is not None]
        of_layer = any(map(is_of_layer, sides))
        full = _FULL if of_layer else _PLAIN
        most = max((_HALF.get(str(group.info.get("precision", "")), full) for group in sides), default=full)
        coarse = _COARSE if most == full else _COARSE_HALF
        return cls(*most, coarse if of_layer else 0.0)

    def of_values(self, values: Any, typical: Any) -> NDArray[Any]:
        """The tolerance of each value, in any shape that broadcasts, of the values' dtype.

        Args:
            values: The values.
            typical: How large values of their stream typically are.
        """
        values = np.asarray(values)
        sizes = np.maximum(np.abs(values), np.asarray(typical, values.dtype))
        tolerance: NDArray[Any] = np.maximum(self.relative * sizes, self.absolute)
        return tolerance

    def of_coarse(self, low: Any, high: Any, typical: Any) -> NDArray[np.float64]:
        """How far rounding moves whole streams, float64 `[D]`: the tolerance of those that hardly vary by more, else 0.

        Args:
            low: Their 2.5% quantiles `[D]`.
            high: Their 97.5% quantiles `[D]`.
            typical: How large their values typically are `[D]`.

        Example:
            >>> Rounding(0.01, 0.0).of_coarse([1.0, 1.0], [1.1, 9.0], typical=[2.0, 8.0]).tolist()
            [0.02, 0.0]
        """
        tolerance = self.of_values(np.asarray(low, np.float64), typical)
        varies = np.subtract(high, low, dtype=np.float64) > self.coarse * tolerance
        return np.where(varies | (self.coarse == 0), 0.0, tolerance)


#: Values closer than by twice this tolerance are one value that several rows share, whatever the precision; of a layer.
SHARED: Final = Rounding(*_FULL)
_SHARED_PLAIN: Final = Rounding(*_PLAIN)


def shared_of(of_layer: bool) -> Rounding:
    """Of a layer's columns or of other streams.

    Example:
        >>> shared_of(True) == SHARED, shared_of(False).relative < SHARED.relative
        (True, True)
    """
    return SHARED if of_layer else _SHARED_PLAIN


def typical_sizes(low: Any, high: Any, of_layer: bool) -> NDArray[np.float64]:
    """How large the values of streams typically are, float64 `[D]`.

    Args:
        low: Their 2.5% quantiles `[D]`.
        high: Their 97.5% quantiles `[D]`.
        of_layer: Whether they are the columns of one layer, in the same units.

    Example:
        >>> typical_sizes([-2.0, 0.0], [1.0, 0.0], of_layer=False).tolist()
        [2.0, 0.0]
        >>> typical_sizes([-2.0, 0.0], [1.0, 0.0], of_layer=True).tolist()
        [2.0, 0.0625]
    """
    sizes = np.maximum(np.abs(np.asarray(low, np.float64)), np.abs(np.asarray(high, np.float64)))
    return np.maximum(sizes, _CANCELLED * np.median(sizes)) if of_layer and sizes.size else sizes


def is_of_layer(group: Group) -> bool:
    """Whether a group's streams are the columns of one layer.

    Example:
        >>> is_of_layer(Group("embeddings/pool", definitions={"*": "lensai/embedding@1"}))
        True
    """
    return "*" in group.definitions


def are_shared(ordered: NDArray[Any], typical: NDArray[Any], of_layer: bool) -> NDArray[np.bool_]:
    """Which values are one with the next, bool `[D, E - 1]`, of ascending ones `[D, E]`.

    Example:
        >>> are_shared(np.array([[0.0, 1.0, np.nextafter(1.0, 2.0)]]), np.ones(1), of_layer=False).tolist()
        [[False, True]]
    """
    ordered = np.asarray(ordered, np.float64)
    tolerance = shared_of(of_layer).of_values(ordered[:, 1:], typical[:, None])
    close: NDArray[np.bool_] = np.diff(ordered, axis=1) <= 2 * tolerance
    return close


def near(values: NDArray[Any], target: NDArray[Any], tolerance: NDArray[Any]) -> NDArray[Any]:
    """Values, or what they should be where they are that up to rounding.

    Args:
        values: Any shape.
        target: Likewise.
        tolerance: Likewise.

    Example:
        >>> near(np.array([1.0, 2.0]), np.array([1.001, 1.5]), np.full(2, 0.01)).tolist()
        [1.001, 2.0]
    """
    with np.errstate(over="ignore"):
        close = np.abs(target - values) <= tolerance
    nearer: NDArray[Any] = np.where(close, target, values)
    return nearer


def rounded_mmd(length: float, bandwidths: Sequence[float]) -> float:
    """The MMD that rounding makes which moves all rows by a length in the same direction, at the most.

    Example:
        >>> rounded_mmd(0.01, [1.0])
        0.01
    """
    return length * float(np.sqrt(np.mean(np.square(1 / np.array(bandwidths)))))
