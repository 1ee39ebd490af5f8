"""The levels of a bank: runs of items, an item of level l standing for 2**l rows.

A level has at least 2.5 k places and keeps them all, where DataSketches' levels shrink geometrically downwards: memory
that is there anyway buys half the error. A full level is compacted as a whole, at the moment its places are needed,
since the error of a compaction does not depend on how many items take part. Items of a level are in no order:
compaction sorts them, and in numpy it is cheaper to sort once than to merge.

As levels pile up the lowest are emptied upwards, and rows enter, thinned at once, at the lowest that is left. So the
work per row falls with n, and memory stays at three levels, plus one per doubling of n beyond 2**8 times the capacity
(131,072 rows for k=200).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, Self

import numpy as np

from lensai_integrations.arrays.namespaces import Array, namespace, send, to_host, unfilled
from lensai_integrations.sketches import compaction
from lensai_integrations.sketches.state import LARGEST_COUNT, State, field, number, require
from lensai_integrations.sketches.weighted import MAX_LEVELS, Floats, fit, sorted_items, spread, total_weight

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
        self._keys: Array = compaction.stream_keys(seed, dim)
        self.items: dict[int, Array] = {}
        self.sizes: dict[int, int] = {}
        self.compactions: dict[int, int] = {}
        self._entered = 0, 0

    def enter(self, columns: Array) -> tuple[Array, Array]:
        """Thin rows to the lowest level in use; what lies below it is moved up.

        Args:
            columns: float32 `[dim, capacity]`, rows seen as columns. NaN for rows left out.

        Returns:
            The smallest and the largest value of each stream, `[dim]`, as `compaction.thin` does.
        """
        entry = min(max(1, max(self.sizes, default=0) - DEPTH + 1), HIGHEST_ENTRY)
        for level in range(entry):
            if level in self.sizes and self.items[level].shape[1] > 1:
                self._compact(level)
                self._shed(level)
        self._entered = entry, columns.shape[1] >> entry
        room = self.room(*self._entered, columns)
        return compaction.thin(columns, 1 << entry, self._offsets(0, 1 << entry), room)

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
            compaction.thin(items, 2, self._offsets(level, 2), room)
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
        return compaction.offsets(self._keys, level, count, stride)

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
        result.items = {level: np.array(to_host(items)) for level, items in self.items.items()}
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
