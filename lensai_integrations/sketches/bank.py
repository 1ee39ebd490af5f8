"""KLLBank: the quantile sketches of many streams that are always updated together.

Streams that always receive the same number of values have KLL level structures of the same shape. So one array per
level holds them all, and every step is one array operation instead of one per stream and value. What goes where is
decided from counts the host knows, so no update waits for an accelerator.

The way of a row: it waits among the pending rows (`PendingRows`), is thinned into the levels together with others
(`Levels`, `thin`), and answers questions as part of the items sorted by value (`weighted.py`), from which DataSketches'
smaller sketches are made, too; their bytes are written and read by `wire.py`.

**Pending rows.** An update is usually one copy of its rows to the end of the pending ones, whatever their dtype and
layout; everything that costs more is done for 512 rows or more at once. That includes the search for rows with a value
that is not finite. On a host they are left out, so that what goes on to the levels is valid. On an accelerator the host
does not know how many there are and must not wait to find out: they are overwritten by NaN and counted there, carried
along, and taken out by `to_host`. As many rows as there are places are overwritten while they are copied.

**Levels** are runs of items, an item of level l standing for 2**l rows. A level has at least 2.5 k places and keeps
them all, where DataSketches' levels shrink geometrically downwards: memory that is there anyway buys half the error. A
full level is compacted as a whole, at the moment its places are needed, since the error of a compaction does not depend
on how many items take part. Items of a level are in no order: compaction sorts them, and in numpy it is cheaper to sort
once than to merge. As levels pile up the lowest are emptied upwards, and rows enter, thinned at once, at the lowest
that is left. So the work per row falls with n, and memory stays at three levels, plus one per doubling of n beyond 2**8
times the capacity (131,072 rows for k=200).

**Compaction** is the one lossy step: sort, keep one item in so many, let it stand for the others. Where the first kept
item lies is random, one offset per stream, so that no rank is systematically over- or under-estimated. Offsets come in
pairs: a compaction's and, at the same level, the next one's, mirrored. Each is uniform by itself, so the estimate stays
unbiased; and since the error of a rank can only fall when the offset grows, the two errors are never positively
correlated, whatever the data. On data without structure the pair has half the variance of two independent ones. Offsets
are a hash of (seed, stream, level, number of the compaction) rather than the next draw of a generator: there is no
generator state to keep, an accelerator and a host choose alike, and nobody's random numbers are used up.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lensai_integrations.arrays.namespaces import (
    Array,
    are_finite,
    full_beside,
    local,
    namespace,
    send,
    to_host,
    unfilled,
    zeros_beside,
)
from lensai_integrations.errors import InputError
from lensai_integrations.sketches import weighted, wire
from lensai_integrations.sketches.state import LARGEST_COUNT, RANKS, Sketch, State, field, number, require
from lensai_integrations.sketches.weighted import MAX_LEVELS, Floats, Integers, fit, sorted_items, spread, total_weight

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
            present = self._pending.mask_invalid()
            low, high = self._levels.enter(self._pending.rows.T, present)
            xp = namespace(low)  # NaN where all rows are invalid: then the other is the answer
            self._low, self._high = xp.fmin(self._low, low), xp.fmax(self._high, high)
            self._pending.clear()
            return
        if self._pending.invalid:  # a stream that had some will have more
            self._pending.drop_invalid()
        if not self._pending.full:
            return
        low, high = self._levels.enter(self._pending.rows.T)
        if np.isfinite([low, high]).all():  # sorting has shown it, at no cost
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
            self._pending.clear()
        else:
            self._levels.withdraw()
            self._pending.drop_invalid()

    def _beside(self, array: Array) -> Array:
        """The array where the bank is; but a bank on the host follows an array that is on an accelerator."""
        on_host = isinstance(array, np.ndarray)
        if self._pending.on_host and not on_host:
            self._pending = self._pending.moved(array)
            self._low, self._high = (
                send(end, array) if self._levels.sizes else full_beside((self._dim,), float(end[0]), "float32", array)
                for end in (self._low, self._high)
            )
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
        other = deepcopy(other) if other is self else other
        self._append(other._pending.used)
        for level, size in sorted(other._levels.sizes.items()):
            if size:
                items = self._beside(other._levels.items[level][:, :size])
                self._levels.room(level, size, items)[...] = items
        xp, low, high = namespace(self._low), self._beside(other._low), self._beside(other._high)
        self._low, self._high = xp.minimum(self._low, low), xp.maximum(self._high, high)
        self._pending.count_invalid(other._pending)
        self._rows_seen += other._rows_seen
        self._min_k = min(self._min_k, other._min_k)

    def to_host(self) -> Self:
        """This bank in host memory: itself if it is there, else a copy, for which the accelerator is waited for.

        The copy has no NaN. Where there were invalid rows, its levels are fitted anew to exactly the valid ones
        (`Levels.without_nan`), which adds at most 1/512 to the error of a rank. That error is a fraction of all rows
        seen there: with half of them invalid, it is twice as large a fraction of n.
        """
        return self if self._pending.on_host else self._on_host()

    def copied(self) -> Self:
        """A copy on the host, its pending rows all valid, which goes on exactly as this bank would."""
        return self._settled()._on_host()

    def _on_host(self) -> Self:
        """A copy in host memory."""
        result = copy(self)
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

    def sorted_view(self, columns: Sequence[int] | None = None) -> tuple[Floats, Integers]:
        """Everything the sketches hold. Waits for an accelerator, as all that follows does.

        Args:
            columns: Of these streams only, in this order; None for all.

        Returns:
            Values float32 `[dim, m]`, ascending, and how many rows each stands for, int64 `[dim, m]`, together n.
        """
        sizes, items = self._settled()._laid_out()
        return weighted.sorted_items(items if columns is None else items[list(columns)], sizes)

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
            stream: {**rows, "min": float(a), "max": float(b), "quantiles": dict(zip(RANKS, values, strict=True))}
            for stream, a, b, values in zip(streams, low, high, quantiles.tolist(), strict=True)
        }

    def compact(self) -> Self:
        """A copy on the host of DataSketches' size, about 3 k items per stream: what `to_bytes` writes.

        Holding less than this bank adds at most 0.61 / k to the error of a rank. Nothing about it is random.
        """
        bank = self._settled()
        sizes, items = wire.fitted(self._k, *bank._laid_out())
        result = copy(bank)
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
        result._min_k, result._rows_seen = min(sketch.min_k for sketch in sketches), first.n
        if first.n:
            result._levels = result._levels.relaid(first.sizes, np.stack([sketch.items for sketch in sketches]))
            result._low, result._high = np.array(
                [(sketch.minimum, sketch.maximum) for sketch in sketches], np.float32
            ).T
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


class PendingRows:
    """Rows of `dim` values, up to a fixed number of them.

    Args:
        places: how many rows go on to the levels together.
        dim: width of a row.
        like: an array that lies where the rows will.

    Attributes:
        rows: float32 `[places, dim]`, `[0, dim]` before the first row.
        filled: how many of them are in use.

    Example:
        >>> pending = PendingRows(places=512, dim=3, like=np.empty(0))
        >>> pending.take(np.ones((600, 3))), pending.full
        (512, True)
    """

    def __init__(self, places: int, dim: int, like: Array) -> None:
        self.places = places
        self.rows = _rows(0, dim, like)
        self.filled = 0
        self._sound = 0  # so many of the first are known to be valid, on a host
        self._invalid = 0  # as far as the host knows
        self._valid: Array | None = None  # on an accelerator, which of its rows are valid, once these are all in use
        self._looked_at = 0  # rows that the accelerator has looked at,
        self._present: Array | None = None  # and how many of them are valid, `[1]`

    @property
    def invalid(self) -> Array:
        """Rows found invalid so far, these and earlier ones: an int on a host, a scalar on an accelerator."""
        if self._present is None:
            return self._invalid
        return self._invalid + self._looked_at - self._present[0]

    @invalid.setter
    def invalid(self, rows: int) -> None:
        self._invalid = rows

    def count_invalid(self, other: PendingRows) -> None:
        """Count those of another bank as well, which lies where this one does or on the host."""
        self._invalid += other._invalid
        if other._present is not None:
            self._present = other._present if self._present is None else self._present + other._present
            self._looked_at += other._looked_at

    @property
    def on_host(self) -> bool:
        """Whether the rows lie in host memory as numpy."""
        return isinstance(self.rows, np.ndarray)

    @property
    def used(self) -> Array:
        """The rows in use, `[filled, dim]`, not a copy."""
        return self.rows[: self.filled]

    @property
    def full(self) -> bool:
        """Whether every place is in use."""
        return self.filled == self.places

    def take(self, rows: Array) -> int:
        """Copy as many of the rows `[n, dim]` as there are places for, and return how many that were."""
        count = min(self.places - self.filled, len(rows))
        if count == self.places and not self.on_host:
            self._mask(rows[:count])
        elif count:
            if len(self.rows) < self.places or self._valid is not None:
                self.rows, self._valid = _rows(self.places, rows.shape[1], self.rows), None
            self.rows[self.filled : self.filled + count] = rows[:count]
        self.filled += count
        return count

    def _mask(self, rows: Array) -> None:
        xp = namespace(rows)
        rows = xp.astype(rows, xp.float32, copy=False)
        self._valid = are_finite(rows)
        self.rows = xp.where(self._valid[:, None], rows, math.nan)

    def drop_invalid(self) -> None:
        """On a host: leave out the rows in use with a value that is not finite, and count them."""
        if self._sound == self.filled:
            return
        new = self.used[self._sound :]
        valid = np.isfinite(new).all(axis=1)
        kept = self._sound + int(np.count_nonzero(valid))
        if kept < self.filled:
            self.invalid += self.filled - kept
            self.rows[self._sound : kept] = new[valid]
        self.filled = self._sound = kept

    def clear(self) -> None:
        """All rows in use have gone on to the levels."""
        self.filled = self._sound = 0

    def mask_invalid(self) -> Array:
        """On an accelerator, with all places in use: overwrite such rows with NaN, and count them there.

        Returns:
            How many of the rows are valid, int64 `[1]`.
        """
        xp = namespace(self.rows)
        if self._valid is None:
            self._mask(self.rows)
        assert self._valid is not None
        present = xp.sum(self._valid, axis=0, keepdims=True)
        if self._present is None:
            self._present = zeros_beside((1,), "int64", self.rows)
        self._present = self._present + present
        self._looked_at += self.places
        return present

    def moved(self, like: Array) -> PendingRows:
        """A copy where `like` lies; towards a host it waits for the accelerator."""
        result = PendingRows(self.places, self.rows.shape[1], like)
        if self.filled:
            result.take(to_host(self.used) if result.on_host else send(self.used, like))
        result.invalid, result._sound = int(self.invalid), self._sound
        return result

    def state(self) -> State:
        """Plain arrays for `from_state`; only for rows on the host, after `drop_invalid`."""
        return {"pending": np.array(self.used), "invalid": np.array(self.invalid, np.int64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], places: int, dim: int) -> Self:
        """The rows `state` describes.

        Raises:
            FormatError: it is not a state of pending rows of that width, or is damaged.
        """
        rows = field(state, "pending", np.float32, (None, dim))
        require(len(rows) <= places, f"{len(rows)} pending rows for {places} places")
        require(bool(np.isfinite(rows).all()), "pending rows with values that are not finite")
        result = cls(places, dim, rows)
        result._sound = result.take(rows)
        result.invalid = number(state, "invalid")
        return result


def _rows(places: int, dim: int, like: Array) -> Array:
    # A cache line more than needed on a host, or the values of a column would share few cache sets.
    pad = 16 if isinstance(like, np.ndarray) else 0
    return unfilled((places, dim + pad), "float32", like)[:, :dim]


def checked_rows(rows: Array, dim: int) -> Array:
    """Rows as they can be copied to float32: real numbers of shape `[n, dim]`; on a host already float32.

    Raises:
        InputError: they are something else.

    Example:
        >>> checked_rows(np.array([[1, 2]]), dim=2).dtype
        dtype('float32')
    """
    if rows.ndim != 2 or rows.shape[1] != dim:
        advice = f"; pass rows[None, :] for a single row of {dim}" if tuple(rows.shape) == (dim,) else ""
        raise InputError(f"rows must be [n, {dim}] for a bank of {dim} streams, got shape {tuple(rows.shape)}{advice}")
    if isinstance(rows, np.ndarray) and rows.dtype == np.float32:
        return rows
    if not namespace(rows).isdtype(rows.dtype, ("bool", "integral", "real floating")):
        raise InputError(f"rows must be real numbers, got dtype {rows.dtype}")
    if not isinstance(rows, np.ndarray):
        return rows
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes an infinity, and its row invalid
        return rows.astype(np.float32)


#: The least capacity of a level: up to here numpy's sort is fastest per value.
LEAST = 512
#: Levels, from the one that rows enter, before that one is raised.
DEPTH = 3
#: Rows enter level 5 at most, one item for 32 of them, so that their share of the error stays small for any n.
HIGHEST_ENTRY = 5


class Levels:
    """The items of all streams of a bank, level by level, with level sizes the host knows.

    Args:
        dim: number of streams.
        k: accuracy parameter.
        seed: decides which items compactions keep.

    Attributes:
        capacity: items per stream a level has places for, and rows that enter together.
        items: float32 `[dim, places]` of each level, places >= its size.
        sizes: items per stream of each level.
        compactions: how many each level has had.

    Example:
        >>> levels = Levels(dim=1, k=200, seed=0)
        >>> low, high = levels.enter(np.arange(512, dtype=np.float32)[None])
        >>> levels.sizes, low.tolist(), high.tolist()
        ({1: 256}, [0.0], [511.0])
    """

    def __init__(self, dim: int, k: int, seed: int) -> None:
        self.dim = dim
        self.capacity = max(LEAST, 1 << ((5 * k + 1) // 2 - 1).bit_length())
        self.seed = seed
        self._keys: Array = stream_keys(seed, dim)
        self.items: dict[int, Array] = {}
        self.sizes: dict[int, int] = {}
        self.compactions: dict[int, int] = {}
        self._entered = 0, 0

    def enter(self, columns: Array, present: Array | None = None) -> tuple[Array, Array]:
        """Thin rows to the lowest level in use; what lies below it is moved up.

        Args:
            columns: float32 `[dim, capacity]`, rows seen as columns. NaN for rows left out.
            present: on an accelerator, how many are not left out, int64 `[1]`.

        Returns:
            The smallest and the largest value of each stream, `[dim]`, as `thin` does.
        """
        entry = min(max(1, max(self.sizes, default=0) - DEPTH + 1), HIGHEST_ENTRY)
        for level in range(entry):
            if level in self.sizes and self.items[level].shape[1] > 1:
                self._compact(level)
                self._shed(level)
        self._entered = entry, columns.shape[1] >> entry
        room = self.room(*self._entered, columns)
        return thin(columns, 1 << entry, self._offsets(0, 1 << entry), room, present)

    def withdraw(self) -> None:
        """Take back what entered last."""
        level, width = self._entered
        self.sizes[level] -= width
        if not self.sizes[level]:
            self._shed(level)

    def room(self, level: int, width: int, like: Array) -> Array:
        """Where to write `width` more items per stream of a level, which is compacted first if it is too full for them.

        Args:
            level: which one.
            width: how many.
            like: an array that lies where the items do.
        """
        if self.sizes.get(level, 0) + width > self.capacity:
            self._compact(level)
        size = self.sizes.get(level, 0)
        items = self.items.get(level)
        if items is None or items.shape[1] < size + width:
            places = max(self.capacity, size + width)
            self.items[level] = unfilled((self.dim, places), "float32", like)
            if items is not None:
                self.items[level][:, :size] = items[:, :size]
        self.sizes[level] = size + width
        return self.items[level][:, size : size + width]

    def _compact(self, level: int) -> None:
        """Push every second item of a level up; one of an odd number stays behind."""
        size = self.sizes.get(level, 0)
        rest = size % 2
        if size > 1:
            items = self.items[level][:, rest:size]
            room = self.room(level + 1, size // 2, items)
            thin(items, 2, self._offsets(level, 2), room)
            self.sizes[level] = rest

    def _shed(self, level: int) -> None:
        """Give back the memory of a level's free places."""
        size = self.sizes[level]
        if size:
            self.items[level] = namespace(self.items[level]).asarray(self.items[level][:, :size], copy=True)
        else:
            del self.items[level], self.sizes[level]

    def _offsets(self, level: int, stride: int) -> Array:
        count = self.compactions.get(level, 0)
        self.compactions[level] = count + 1
        return offsets(self._keys, level, count, stride)

    @property
    def weight(self) -> int:
        """The number of rows all items together stand for."""
        return sum(size << level for level, size in self.sizes.items())

    def send(self, like: Array) -> None:
        """Move the items to where `like` lies, from the host."""
        self.items = {level: send(items, like) for level, items in self.items.items()}
        self._keys = send(self._keys, like)

    def on_host(self) -> Levels:
        """A copy in arrays of its own, on the host; it waits for an accelerator."""
        result = copy(self)
        result.items = {level: np.array(to_host(items[:, : self.sizes[level]])) for level, items in self.items.items()}
        result.sizes, result.compactions = dict(self.sizes), dict(self.compactions)
        result._keys = to_host(self._keys)
        return result

    def laid_out(self) -> tuple[list[int], Floats]:
        """The sizes of all levels from 0 to the highest, and the items, level after level, float32 `[dim, sum(sizes)]`.

        Only for levels on the host.

        Example:
            >>> levels = Levels(dim=1, k=200, seed=0)
            >>> levels.room(2, width=3, like=np.empty(0, np.float32))[...] = [4, 6, 5]
            >>> levels.laid_out()
            ([0, 0, 3], array([[4., 6., 5.]], dtype=float32))
        """
        parts = [self.items[level][:, : self.sizes[level]] for level in sorted(self.sizes)]
        items: Floats = np.concatenate([np.empty((self.dim, 0), np.float32), *parts], axis=1)
        return _listed(self.sizes), items

    def relaid(self, sizes: Sequence[int], items: Floats) -> Self:
        """The same levels with the items of another such layout."""
        ends = np.cumsum(sizes)
        result = copy(self)
        result.compactions = dict(self.compactions)
        result.sizes = {level: int(size) for level, size in enumerate(sizes) if size}
        result.items = {level: np.array(items[:, ends[level] - n : ends[level]]) for level, n in result.sizes.items()}
        return result

    def without_nan(self, n: int, high: Floats) -> Self:
        """The levels of the n valid rows among those that these levels, on the host, stand for.

        The others are in them as NaN, of which compactions kept more in one stream than in the next. NaN sort last, so
        ranks counted from below are right as they are. At the top, what a stream has too much is cut off, and what it
        lacks is made up by its largest item, or by its largest value `high` if no item is left. The fit adds at most
        half the weight of its heaviest item, n / 512, to the error of a rank.
        """
        sizes, items = self.laid_out()
        values, weights = sorted_items(items, sizes)
        values[:, 0] = np.where(np.isnan(values[:, 0]), high, values[:, 0])
        values = np.fmax.accumulate(values, axis=1)
        valid = spread(n, lambda _: self.capacity)
        return self.relaid(valid, fit(values, weights, valid))

    def state(self) -> State:
        """Plain arrays for `from_state`: the layout, how many compactions each level has had, and the seed."""
        sizes, items = self.laid_out()
        numbers = {"seed": self.seed, "sizes": sizes, "compactions": _listed(self.compactions)}
        return {name: np.array(value, np.int64) for name, value in numbers.items()} | {"items": items}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], dim: int, k: int) -> Self:
        """The levels `state` describes.

        Raises:
            FormatError: it is not a state of levels of so many streams, or is damaged.
        """
        sizes = field(state, "sizes", np.int64, (None,)).tolist()
        counts = field(state, "compactions", np.int64, (None,)).tolist()
        require(max(len(sizes), len(counts)) <= MAX_LEVELS, f"more than {MAX_LEVELS} levels")
        require(min(sizes + counts, default=0) >= 0, "a negative level size or count")
        require(not sizes or sizes[-1] > 0, "an empty highest level")
        require(total_weight(sizes) <= LARGEST_COUNT, "more rows than can be counted")
        items = field(state, "items", np.float32, (dim, sum(sizes)))
        require(not np.isnan(items).any(), "NaN among the items")
        result = cls(dim, k, number(state, "seed", 0, 2**63 - 1))
        result.compactions = {level: count for level, count in enumerate(counts) if count}
        return result.relaid(sizes, items)


def _listed(numbers: dict[int, int]) -> list[int]:
    return [numbers.get(level, 0) for level in range(max(numbers, default=-1) + 1)]


#: Values of a block: 256 KiB of float32, well inside a level-2 cache.
BLOCK = 1 << 16
#: The multiplier of multiplicative hashing: 2**64 divided by the golden ratio, as a signed integer.
GOLDEN = -0x61C8864680B583EB


def stream_keys(seed: int, dim: int) -> NDArray[np.int64]:
    """A random number per stream, int64 `[dim]`, which the seed determines.

    Example:
        >>> stream_keys(seed=0, dim=2).dtype
        dtype('int64')
    """
    return np.random.PCG64(seed).random_raw(dim).view(np.int64)


def offsets(keys: Array, level: int, count: int, stride: int) -> Array:
    """Which of every `stride` sorted items a compaction keeps.

    Args:
        keys: int64 `[dim]`, the streams' random numbers.
        level: the level that is compacted.
        count: how many compactions of that level came before; the offsets of an odd one mirror its predecessor's.
        stride: a power of two, at most 2**16.

    Returns:
        int64 `[dim]` in 0..stride-1, where the keys lie.

    Example:
        >>> keys = stream_keys(seed=0, dim=4)
        >>> (offsets(keys, level=1, count=6, stride=8) + offsets(keys, level=1, count=7, stride=8)).tolist()
        [7, 7, 7, 7]
    """
    pair = hashlib.blake2b(f"{level}/{count // 2}".encode(), digest_size=8).digest()
    mixed = ((keys ^ int.from_bytes(pair, "little", signed=True)) * GOLDEN) >> 48
    return (~mixed if count % 2 else mixed) & (stride - 1)


def thin(items: Array, stride: int, offset: Array, out: Array, present: Array | None = None) -> tuple[Array, Array]:
    """Sort each stream's items and write every `stride`-th, beginning with its offset, to `out`.

    Args:
        items: float32 `[dim, m]`, m a multiple of stride; any memory layout; left as it is.
        stride: how many items each kept one stands for.
        offset: int64 `[dim]`.
        out: float32 `[dim, m // stride]`, written to.
        present: on an accelerator, how many items of each stream are not NaN, int64 `[1]`; None for all.

    Returns:
        The smallest and the largest item of each stream, `[dim]` each. On an accelerator NaN marks the items of rows
        left out: they are thinned as the largest of all, and passed over here (NaN where all are NaN).

    Example:
        >>> kept = np.empty((1, 2), np.float32)
        >>> low, high = thin(np.array([[7, 1, 5, 3]], np.float32), 2, np.array([1]), kept)
        >>> kept.tolist(), low.tolist(), high.tolist()
        ([[3.0, 7.0]], [1.0], [7.0])
    """
    if isinstance(items, np.ndarray):
        return _thin_host(items, stride, offset, out)
    return _thin_device(items, stride, offset, out, present)


def _thin_host(items: Array, stride: int, offset: Array, out: Array) -> tuple[Array, Array]:
    """Block by block, in a buffer that stays in the processor's cache: transposed, sorted and thinned there.

    numpy's sort works on contiguous rows a few hundred values long, at 1-2 ns a value.
    """
    dim, width = items.shape
    block = min(dim, max(1, BLOCK // width))
    buffer = np.empty((block, width), np.float32)
    streams = np.arange(block)
    low, high = np.empty((2, dim), np.float32)
    for start in range(0, dim, block):
        rows = slice(start, min(start + block, dim))
        ordered = buffer[: rows.stop - start]
        ordered[...] = items[rows]
        ordered.sort(axis=1)
        low[rows], high[rows] = ordered[:, 0], ordered[:, -1]
        out[rows] = _every(ordered, stride, offset[rows], streams[: rows.stop - start])
    return low, high


def _thin_device(items: Array, stride: int, offset: Array, out: Array, present: Array | None) -> tuple[Array, Array]:
    xp, dim = namespace(items), items.shape[0]
    ordered = xp.sort(items, axis=1)
    chosen = offset[:, None, None].expand(dim, out.shape[1], 1)
    xp.gather(ordered.reshape(dim, -1, stride), 2, chosen, out=out[:, :, None])
    return ordered[:, 0], ordered[:, -1] if present is None else ordered[:, present - 1][:, 0]


def _every(ordered: Array, stride: int, offset: Array, streams: Array) -> Any:
    return ordered.reshape(ordered.shape[0], -1, stride)[streams, :, offset]
