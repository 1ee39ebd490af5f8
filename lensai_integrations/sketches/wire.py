"""Apache DataSketches' bytes of a KLL sketch of floats, written and read here without DataSketches.

A bank of 2,048 streams is one array; handing it to DataSketches item by item would take longer than filling it did. All
sketches of a bank have the same header and level sizes, so they are written as one array of bytes, a row per sketch.

The reader takes what the C++ and Python library writes, and the compact form of the Java one. It believes nothing:
every field is checked before it is used, sizes are compared with the bytes there are before anything is made of them,
and whatever is wrong raises `FormatError`. DataSketches itself checks less and would answer from damaged bytes.

Layout, little-endian:

    u8 preamble ints (5; 2 for empty or one item)   u8 serial version (1; 2 for one item)   u8 family 15
    u8 flags (1 empty, 2 level zero sorted, 4 one item)   u16 k   u8 m = 8   u8 unused
    u64 n   u16 min k   u8 levels   u8 unused   u32 starts[levels]   f32 min   f32 max   f32 items[]

Empty sketches end after u8 unused, sketches of one item have that item there. starts[l] is where level l begins in an
array of the total capacity, filled from the back; k and the number of levels determine that capacity.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.weighted import MAX_LEVELS, Floats, fit, sorted_items, spread, total_weight

MIN_K, MAX_K = 8, 65535

_FAMILY, _WIDTH = 15, 8
_EMPTY, _SORTED, _SINGLE = 1, 2, 4
_SHORT = struct.Struct("<BBBBHBB")
_FULL = struct.Struct("<BBBBHBBQHBB")


@dataclass(frozen=True)
class KLLSketch:
    """One sketch as it was read.

    Attributes:
        k: the parameter its size and error follow from.
        min_k: the smallest k of all sketches merged into it; the error follows from this one.
        sizes: number of items of each level; an item of level l stands for 2**l values.
        items: float32 `[sum(sizes)]`, level after level.
        minimum: the smallest value seen; NaN if there was none.
        maximum: the largest value seen; NaN if there was none.
    """

    k: int
    min_k: int
    sizes: tuple[int, ...]
    items: Floats
    minimum: float
    maximum: float

    @property
    def n(self) -> int:
        """The number of values seen."""
        return total_weight(self.sizes)


@lru_cache(maxsize=1024)
def total_capacity(k: int, levels: int) -> int:
    """How many items a DataSketches sketch of so many levels has room for.

    A level at depth d below the top has room for max(8, k * (2/3)**d), rounded half up, in whole numbers throughout.

    Example:
        >>> total_capacity(200, levels=3)  # 200 + 133 + 89
        422
    """
    twice = (((2 * k) << depth) // 3**depth for depth in range(levels))
    return sum(max(_WIDTH, (capacity + 1) >> 1) for capacity in twice)


def level_sizes(n: int, k: int) -> tuple[int, ...]:
    """The level sizes of a sketch of n values that uses all the room DataSketches gives to k.

    Example:
        >>> level_sizes(1000, k=200)  # 422 items for 1,000 values
        (0, 344, 78)
    """
    return spread(n, lambda levels: total_capacity(k, levels))


def levels_needed(sizes: Sequence[int], k: int) -> int | None:
    """The least number of levels whose capacity takes these items, or None where DataSketches could not hold them.

    It allows a sketch of n values no more levels than n has binary digits.

    Example:
        >>> levels_needed([250], k=200), levels_needed([10_000], k=200)
        (2, None)
    """
    used = max((level + 1 for level, size in enumerate(sizes) if size), default=1)
    most = min(max(1, total_weight(sizes).bit_length()), MAX_LEVELS)
    enough = (m for m in range(used, most + 1) if total_capacity(k, m) >= sum(sizes))
    return next(enough, None)


def fitted(k: int, sizes: Sequence[int], items: Floats) -> tuple[Sequence[int], Floats]:
    """Level sizes and items that DataSketches can hold: those given if it can, else as many quantiles of them.

    Args:
        k: 8 to 65535.
        sizes: number of items of each level.
        items: float32 `[dim, sum(sizes)]`, level after level.

    Returns:
        The same, with at most `sum(level_sizes(n, k))` items, or the few more that a sketch of DataSketches has whose
        merges have given it one level more; such a one is left as it is.

    Example:
        >>> fitted(200, [1000], np.arange(1000, dtype=np.float32)[None])[0]
        (0, 344, 78)
    """
    most, levels = level_sizes(total_weight(sizes), k), levels_needed(sizes, k)
    if levels is not None and levels <= len(most) + 1:
        return sizes, items
    return most, fit(*sorted_items(items, sizes), most)


def write(
    k: int, sizes: Sequence[int], items: Floats, minimum: Floats, maximum: Floats, min_k: int | None = None
) -> list[bytes]:
    """A bank's sketches as DataSketches' bytes, one per stream.

    Args:
        k: 8 to 65535.
        sizes: number of items of each level, the same for all streams.
        items: float32 `[dim, sum(sizes)]`, level after level, in any order within each.
        minimum: float32 `[dim]`; not looked at for an empty bank.
        maximum: float32 `[dim]`; not looked at for an empty bank.
        min_k: the smallest k of all sketches merged into this one; k if not given.

    Raises:
        InputError: the items are more than a sketch with this k may hold; pass what `fitted` makes of them.

    Example:
        >>> one = np.array([[1.5]], np.float32)
        >>> write(200, [1], one, one[:, 0], one[:, 0])[0].hex(" ")
        '02 02 0f 04 c8 00 08 00 00 00 c0 3f'
    """
    n, dim = total_weight(sizes), len(items)
    levels = levels_needed(sizes, k)
    if levels is None:
        raise InputError(
            f"{sum(sizes)} items are more than a sketch with k={k} holds; pass what fitted() makes of them"
        )
    if n == 0:
        return [_SHORT.pack(2, 1, _FAMILY, _EMPTY, k, _WIDTH, 0)] * dim
    if n == 1:
        return _rows(_SHORT.pack(2, 2, _FAMILY, _SINGLE, k, _WIDTH, 0), items)
    padded = [*sizes, *[0] * levels][:levels]
    starts = total_capacity(k, levels) - sum(padded) + np.cumsum([0, *padded[:-1]])
    head = _FULL.pack(5, 1, _FAMILY, _SORTED, k, _WIDTH, 0, n, k if min_k is None else min_k, levels, 0)
    ascending = [np.sort(part, axis=1) for part in np.split(items, np.cumsum(sizes)[:-1], axis=1)]
    body = np.concatenate([minimum[:, None], maximum[:, None], *ascending], axis=1)
    body += np.float32(0)  # -0.0 becomes 0.0: they are equal, so sorting puts them anyhow
    return _rows(head + starts.astype("<u4").tobytes(), body)


def _rows(head: bytes, numbers: Floats) -> list[bytes]:
    body = np.ascontiguousarray(numbers, dtype="<f4").view(np.uint8)
    start = np.broadcast_to(np.frombuffer(head, np.uint8), (len(body), len(head)))
    return [row.tobytes() for row in np.concatenate([start, body], axis=1)]


def read(blob: Any) -> KLLSketch:
    """Read one sketch from DataSketches' bytes.

    Args:
        blob: bytes, bytearray, memoryview or a uint8 array.

    Returns:
        The sketch; its items are a copy. They may hold infinities, as a sketch's may, but no NaN.

    Raises:
        FormatError: the bytes are cut short, have something after the end, are damaged, or are another kind of sketch.

    Example:
        >>> read(bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")).items.tolist()
        [1.5]
    """
    data = _as_bytes(blob)
    _require(len(data) >= _SHORT.size, f"{len(data)} bytes, fewer than any sketch has; was it cut short?")
    preamble, version, family, flags, k, width, _ = _SHORT.unpack_from(data)
    _require(family == _FAMILY, f"family {family}, while KLL is {_FAMILY}; is this another sketch or another file?")
    _require(version != 3, "Java's updatable form; write it with toByteArray() of a compact sketch")
    _require(version in (1, 2), f"serial version {version}, while 1 and 2 are known")
    _require(width == _WIDTH, f"m={width}, while DataSketches writes {_WIDTH}")
    _require(k >= MIN_K, f"k={k}, while the least is {MIN_K}")
    _require(not flags & ~(_EMPTY | _SORTED | _SINGLE), f"flags {flags:#04x}; is this a sketch of doubles?")
    short = bool(flags & (_EMPTY | _SINGLE))
    _require(preamble == (2 if short else 5), f"{preamble} preamble ints, which flags {flags:#04x} do not go with")
    if not short:
        return _read_full(data, k, bool(flags & _SORTED))
    _require(flags & (_EMPTY | _SINGLE) != _EMPTY | _SINGLE, "flags for both no item and one item")
    items = _numbers(data, _SHORT.size, 0 if flags & _EMPTY else 1)
    value = float(items[0]) if len(items) else float("nan")
    return KLLSketch(k, k, (len(items),), items, value, value)


def read_alike(blobs: Iterable[Any]) -> list[KLLSketch]:
    """Read sketches that have the same k, n and level sizes, as those of one bank do.

    Raises:
        FormatError: one cannot be read, or they differ.
        InputError: there is none.

    Example:
        >>> len(read_alike([bytes.fromhex("02 01 0f 01 c8 00 08 00")] * 3))
        3
    """
    sketches = [read(blob) for blob in blobs]
    if not sketches:
        raise InputError("blobs is empty; pass the bytes of one sketch per stream")
    if len({(each.k, each.sizes) for each in sketches}) > 1:
        problem = "the sketches differ in k, n or level sizes, so one bank cannot hold them"
        raise FormatError(f"{problem}; read them one by one, KLLBank.from_bytes([blob])")
    return sketches


def _read_full(data: bytes, k: int, zero_sorted: bool) -> KLLSketch:
    _require(len(data) >= _FULL.size, f"{len(data)} bytes end within the header")
    n, min_k, levels = _FULL.unpack_from(data)[7:10]
    _require(MIN_K <= min_k <= k, f"min_k={min_k} outside {MIN_K}..{k}")
    _require(1 <= levels <= MAX_LEVELS, f"{levels} levels outside 1..{MAX_LEVELS}")
    start = _FULL.size + 4 * levels
    _require(len(data) >= start, f"{len(data)} bytes end within the list of {levels} levels")
    starts = struct.unpack_from(f"<{levels}I", data, _FULL.size)
    sizes = tuple(map(operator.sub, (*starts[1:], total_capacity(k, levels)), starts))
    _require(min(sizes) >= 0, f"levels that begin at {list(starts)}, which do not ascend to the capacity")
    weight = total_weight(sizes)
    _require(0 < weight == n < 1 << MAX_LEVELS, f"n={n}, while its items stand for {weight}")
    # DataSketches, which never writes more, would write beyond its memory when it merges them.
    _require(levels <= n.bit_length(), f"{levels} levels for {n} values, which have {n.bit_length()} binary digits")
    numbers = _numbers(data, start, 2 + sum(sizes))
    low, high, items = float(numbers[0]), float(numbers[1]), numbers[2:]
    _require(bool(low <= items.min() and items.max() <= high), f"items outside its own range {low}..{high}")
    first_sorted = 0 if zero_sorted else sizes[0]
    falls = np.flatnonzero(items[first_sorted + 1 :] < items[first_sorted:-1]) + (first_sorted + 1)
    _require({*falls.tolist()} <= {*accumulate(sizes)}, "items of a level that do not ascend")
    return KLLSketch(k, min_k, sizes, items, low, high)


def _numbers(data: bytes, start: int, count: int) -> Floats:
    wanted = start + 4 * count
    _require(len(data) == wanted, f"{len(data)} bytes, while its header announces {wanted}")
    result = np.frombuffer(data, "<f4", count, start).astype(np.float32)
    _require(not (count and np.isnan(result.max())), "NaN among its items")  # which a maximum passes on
    return result


def _as_bytes(blob: Any) -> bytes:
    try:
        return bytes(memoryview(blob).cast("B"))
    except TypeError as error:
        raise InputError(f"a sketch is read from bytes, got {type(blob).__name__}") from error


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise FormatError(f"not a readable KLL sketch of floats: {problem}")
