"""KLLBank: the quantile sketches of many streams that are always updated together.

Streams that always receive the same number of values have KLL level structures of the same shape. So one array per
level holds them all, and every step is one array operation instead of one per stream and value.

The way of a row, file by file: it waits among the pending rows (`pending.py`), is thinned into the levels together with
others (`levels.py`, `compaction.py`), and answers questions as part of the items sorted by value (`weighted.py`), from
which DataSketches' smaller sketches are made, too; their bytes are written and read by `wire.py`.

What goes where is decided from counts the host knows, so no update waits for an accelerator. Whether a row there has a
value that is not finite the host does not know: such a row is carried along as NaN, and `to_host` takes it out. On a
host it is left out before it is sorted.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensai_integrations.arrays.namespaces import Array, local, namespace, send, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.sketches import weighted, wire
from lensai_integrations.sketches.levels import Levels
from lensai_integrations.sketches.pending import PendingRows, checked_rows
from lensai_integrations.sketches.state import RANKS, Sketch, State, field, number, require
from lensai_integrations.sketches.weighted import Floats, Integers

#: More streams than this are refused: their pending rows alone would take 2 GiB.
MAX_DIM = 1 << 20

_HOST = np.empty(0)


class KLLBank(Sketch):
    """One KLL sketch per column of the rows it is given.

    Args:
        dim: number of streams, the width of every row.
        k: accuracy, 8 to 65535, as DataSketches defines it: 200 keeps the rank error below 1.33% at 99% confidence.
        seed: decides which items compactions keep; None draws one. Give banks that will be merged different ones.

    Raises:
        InputError: an argument is out of range.

    Example:
        >>> bank = KLLBank(dim=2, seed=0)
        >>> bank.update(np.array([[1, 10], [2, 20], [np.nan, 30], [3, 40]]))
        >>> bank.n, bank.invalid, bank.quantiles([0.5]).tolist(), bank.max.tolist()
        (3, 1, [[2.0], [20.0]], [3.0, 40.0])
    """

    takes = "rows"
    in_segments = True

    def __init__(self, dim: int, k: int = 200, seed: int | None = None) -> None:
        self._dim = _whole("dim", dim, 1, MAX_DIM)
        self._k = self._min_k = _whole("k", k, wire.MIN_K, wire.MAX_K)
        seed = secrets.randbits(63) if seed is None else _whole("seed", seed, 0, 2**63 - 1)
        self._levels = Levels(self._dim, self._k, seed)
        self._pending = PendingRows(self._levels.capacity, self._dim, _HOST)
        self._low: Array = np.full(self._dim, np.inf, np.float32)  # of what is in the levels
        self._high: Array = -self._low
        self._rows_seen = 0

    @classmethod
    def new(cls, width: int, *, k: int = 200, seed: int | None = None, like: Sketch | None = None) -> Self:
        """One for rows of this width; whatever the baseline's is like, they can be compared."""
        return cls(width, k, seed)

    def empty(self) -> Self:
        """Another of the same dim and k, with a seed of its own."""
        return type(self)(self._dim, self._k)

    @property
    def dim(self) -> int:
        """Number of streams."""
        return self._dim

    @property
    def k(self) -> int:
        """The accuracy parameter."""
        return self._k

    @property
    def rows_seen(self) -> int:
        """Rows given so far, valid or not. The host knows it without waiting."""
        return self._rows_seen

    @property
    def n(self) -> int:
        """Rows in the sketches: those seen less the invalid ones. Waits for an accelerator."""
        return self._rows_seen - self.invalid

    @property
    def invalid(self) -> int:
        """Rows left out because a value was not finite in float32. Waits for an accelerator."""
        return int(self._settled()._pending.invalid)

    @property
    def rank_error(self) -> float:
        """How far off a rank may be, as a fraction of n, at 99% confidence: 2.296 / k**0.9723, as in DataSketches."""
        return float(2.296 / self._min_k**0.9723)

    @property
    def min(self) -> Floats:
        """The smallest value of each stream, exactly: float32 `[dim]`; NaN when empty. Waits for an accelerator."""
        return self._settled()._ends()[0]

    @property
    def max(self) -> Floats:
        """The largest value of each stream, exactly: float32 `[dim]`; NaN when empty. Waits for an accelerator."""
        return self._settled()._ends()[1]

    def update(self, rows: Array) -> None:
        """Add rows. A row with a value that is not finite, or beyond float32, is left out and counted as invalid.

        Args:
            rows: `[n, dim]`, numpy or torch, of any float or integer dtype, anywhere. The first rows on an
                accelerator take the bank there; host rows given to it later are sent after it.

        Raises:
            InputError: rows are not numbers or have another shape.
        """
        self._update(local(rows))

    def _update(self, rows: Array) -> None:
        rows = checked_rows(rows, self._dim)
        self._append(rows)
        self._rows_seen += len(rows)

    def _append(self, rows: Array) -> None:
        rows = self._beside(rows)
        start = 0
        while start < len(rows):
            if self._pending.full:
                self._flush()
            start += self._pending.take(rows[start:])

    def _flush(self) -> None:
        """Hand the pending rows on to the levels; on a host only if none of them is invalid, else leave these out."""
        if not self._pending.on_host:
            self._pending.mask_invalid()
        elif self._pending.invalid:  # a stream that had some will have more
            self._pending.drop_invalid()
        if not self._pending.full:
            return
        low, high = self._levels.enter(self._pending.rows.T)
        if self._pending.on_host and not np.isfinite([low, high]).all():  # sorting has shown it, at no cost
            self._levels.withdraw()
            self._pending.drop_invalid()
        else:
            xp = namespace(low)
            self._low, self._high = xp.minimum(self._low, low), xp.maximum(self._high, high)
            self._pending.filled = 0

    def _beside(self, array: Array) -> Array:
        """The array where the bank is; but a bank on the host follows an array that is on an accelerator."""
        on_host = isinstance(array, np.ndarray)
        if self._pending.on_host and not on_host:
            self._pending = self._pending.moved(array)
            self._low, self._high = send(self._low, array), send(self._high, array)
            self._levels.send(array)
        return array if on_host == self._pending.on_host else send(array, self._low)

    def merge(self, other: KLLBank) -> None:
        """Add what another bank has seen; it stays as it is.

        Count, minimum, maximum and invalid rows are exact, and the rank error is that of one bank over all rows,
        however the levels of the two are filled. If either is on an accelerator, so is the result.

        Raises:
            InputError: the banks differ in dim or k.

        Example:
            >>> bank = KLLBank(dim=1)
            >>> bank.update([[1], [2]])
            >>> bank.merge(bank)
            >>> bank.n, bank.cdf([1]).tolist()
            (4, [[0.5]])
        """
        if (other.dim, other.k) != (self._dim, self._k):
            both = f"dim={self._dim}, k={self._k} and dim={other.dim}, k={other.k}"
            raise InputError(f"only banks of the same dim and k can be merged, got {both}")
        other = copy.deepcopy(other) if other is self else other
        self._append(other._pending.used)
        for level, size in sorted(other._levels.sizes.items()):
            if size:
                items = self._beside(other._levels.items[level][:, :size])
                self._levels.room(level, size, items)[...] = items
        xp, low, high = namespace(self._low), self._beside(other._low), self._beside(other._high)
        self._low, self._high = xp.minimum(self._low, low), xp.maximum(self._high, high)
        self._pending.invalid = self._pending.invalid + other._pending.invalid
        self._rows_seen += other._rows_seen
        self._min_k = min(self._min_k, other._min_k)

    def to_host(self) -> Self:
        """This bank in host memory: itself if it is there, else a copy, for which the accelerator is waited for.

        The copy has no NaN. Where there were invalid rows, its levels are fitted anew to exactly the valid ones
        (`Levels.without_nan`), which adds at most 1/512 to the error of a rank. That error is a fraction of all rows
        seen there: with half of them invalid, it is twice as large a fraction of n.
        """
        if self._pending.on_host:
            return self
        result = copy.copy(self)
        result._pending, result._levels = self._pending.moved(_HOST), self._levels.on_host()
        result._low, result._high = np.array(to_host(self._low)), np.array(to_host(self._high))
        valid = self._rows_seen - result._pending.invalid - result._pending.filled
        if valid < result._levels.weight:
            result._levels = result._levels.without_nan(valid, result._high)
        return result

    def _settled(self) -> Self:
        """This bank on the host, its pending rows all valid."""
        bank = self.to_host()
        bank._pending.drop_invalid()
        return bank

    def _ends(self) -> tuple[Floats, Floats]:
        rows = self._pending.used
        if not self.n:
            return (np.full(self._dim, np.nan, np.float32),) * 2
        return np.minimum.reduce([self._low, *rows]), np.maximum.reduce([self._high, *rows])

    def _laid_out(self) -> tuple[list[int], Floats]:
        """All items, level after level, with the pending rows at level 0."""
        sizes, items = self._levels.laid_out()
        sizes = sizes or [0]
        return [self._pending.filled + sizes[0], *sizes[1:]], np.concatenate([self._pending.used.T, items], axis=1)

    def sorted_view(self) -> tuple[Floats, Integers]:
        """Everything the sketches hold. Waits for an accelerator, as all that follows does.

        Returns:
            Values float32 `[dim, m]`, ascending, and how many rows each stands for, int64 `[dim, m]`, together n.
        """
        sizes, items = self._settled()._laid_out()
        return weighted.sorted_items(items, sizes)

    def quantiles(self, ranks: ArrayLike) -> Floats:
        """The smallest retained value with at least a fraction `rank` of the rows at or below it.

        Args:
            ranks: `[r]`, each within 0 and 1; 0 gives the exact minimum and 1 the exact maximum.

        Returns:
            float32 `[dim, r]`; NaN when empty.

        Raises:
            InputError: a rank is not within 0 and 1.
        """
        bank, ranks = self._settled(), weighted.checked_ranks(ranks)
        if not bank.n:
            return np.full((self._dim, len(ranks)), np.nan, np.float32)
        low, high = (ends[:, None] for ends in bank._ends())
        return np.where(ranks == 0, low, np.where(ranks == 1, high, weighted.quantiles(*bank.sorted_view(), ranks)))

    def cdf(self, points: ArrayLike) -> NDArray[np.float64]:
        """The fraction of rows at or below each point.

        Args:
            points: `[p]` for all streams, or `[dim, p]`.

        Returns:
            float64 `[dim, p]`; NaN when empty, and at points that are NaN.

        Raises:
            InputError: points have another shape.
        """
        bank, points = self._settled(), weighted.checked_points(points, self._dim)
        return weighted.cdf(*bank.sorted_view(), points) if bank.n else np.full(points.shape, np.nan)

    def summary(self, streams: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rows, extremes and quantiles of each stream."""
        bank = self._settled()
        (low, high), quantiles = bank._ends(), bank.quantiles(RANKS)
        rows = {"kind": "numbers", "n": bank.n, "invalid": bank.invalid}
        return {
            stream: {**rows, "min": float(a), "max": float(b), "quantiles": dict(zip(RANKS, each, strict=True))}
            for stream, a, b, each in zip(streams, low, high, quantiles.tolist(), strict=True)
        }

    def compact(self) -> Self:
        """A copy on the host of DataSketches' size, about 3 k items per stream: what `to_bytes` writes.

        Holding less than this bank adds at most 0.61 / k to the error of a rank. Nothing about it is random.
        """
        bank = self._settled()
        sizes, items = wire.fitted(self._k, *bank._laid_out())
        result = copy.copy(bank)
        result._low, result._high = bank._ends() if bank.n else (bank._low, bank._high)
        result._levels = bank._levels.relaid(sizes, items)
        result._pending = PendingRows(result._levels.capacity, self._dim, _HOST)
        result._pending.invalid = bank._pending.invalid
        return result

    def to_bytes(self) -> list[bytes]:
        """Each stream's sketch in Apache DataSketches' format, for its Python, C++ and Java libraries.

        Example:
            >>> from datasketches import kll_floats_sketch
            >>> bank = KLLBank(dim=1)
            >>> bank.update([[1], [2], [3]])
            >>> kll_floats_sketch.deserialize(bank.to_bytes()[0]).get_quantile(0.5)
            2.0
        """
        bank = self.compact()
        return wire.write(self._k, *bank._laid_out(), bank._low, bank._high, self._min_k)

    @classmethod
    def from_bytes(cls, blobs: Iterable[bytes], seed: int | None = None) -> Self:
        """A bank of sketches in DataSketches' format that have seen the same number of values.

        Args:
            blobs: one sketch per stream.
            seed: as for a new bank.

        Raises:
            FormatError: one is damaged, or they differ in k, n or level sizes, so that no bank can hold them together.
            InputError: there is none.
        """
        first, *_ = sketches = wire.read_alike(blobs)
        result = cls(len(sketches), first.k, seed)
        result._min_k, result._rows_seen = min(each.min_k for each in sketches), first.n
        if first.n:
            result._levels = result._levels.relaid(first.sizes, np.stack([each.items for each in sketches]))
            result._low, result._high = np.array([(each.minimum, each.maximum) for each in sketches], np.float32).T
        return result

    def state(self) -> State:
        """Plain host arrays, from which `from_state` makes a bank that goes on exactly as this one would.

        Which items later compactions keep follows from the seed and the number of compactions, and both are in it.
        """
        bank = self._settled()
        numbers = {"k": np.array(self._k, np.int64), "min_k": np.array(self._min_k, np.int64)}
        ends = {"low": np.array(bank._low), "high": np.array(bank._high)}
        return numbers | ends | bank._levels.state() | bank._pending.state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The bank `state` describes, on the host.

        Raises:
            FormatError: it is not the state of a bank, or is damaged.
        """
        low = field(state, "low", np.float32, (None,))
        high = field(state, "high", np.float32, low.shape)
        require(0 < len(low) <= MAX_DIM, f"{len(low)} streams")
        require(not np.isnan([low, high]).any(), "a stream's range is NaN")
        result = cls(len(low), number(state, "k", wire.MIN_K, wire.MAX_K), seed=0)
        result._min_k = number(state, "min_k", wire.MIN_K, result._k)
        result._low, result._high = low, high
        result._levels = levels = Levels.from_state(state, result._dim, result._k)
        result._pending = pending = PendingRows.from_state(state, levels.capacity, result._dim)
        items = levels.laid_out()[1]
        require(bool(((low[:, None] <= items) & (items <= high[:, None])).all()), "items outside their stream's range")
        result._rows_seen = levels.weight + pending.filled + pending.invalid
        return result


def _whole(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise InputError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return int(value)
