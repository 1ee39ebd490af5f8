"""Apache DataSketches' bytes: KLL sketches of floats, written and read here; categories', checked before it reads them.

A bank of 2,048 streams is one array; handing it to DataSketches item by item would take longer than filling it did. All
sketches of a bank have the same header and level sizes, so they are written as one array of bytes, a row per sketch.
The reader takes what the C++ and Python library writes, and the compact form of the Java one.

What `Categories` holds DataSketches itself reads, merges, estimates from and writes. But its C++ copies as many items
as a header announces into as much memory as another field says: bytes that somebody else made end the process that
reads them. So nothing is handed to it here that it would not have written itself.

Nothing is believed: every field is checked before it is used, every count and every size is held against the others and
against the bytes there are before anything is made of them, and whatever is wrong raises `FormatError`.

Layouts, little-endian. A KLL sketch:

    u8 preamble ints (5; 2 for empty or one item)   u8 serial version (1; 2 for one item)   u8 family 15
    u8 flags (1 empty, 2 level zero sorted, 4 one item)   u16 k   u8 m = 8   u8 unused
    u64 n   u16 min k   u8 levels   u8 unused   u32 starts[levels]   f32 min   f32 max   f32 items[]

Empty sketches end after u8 unused, sketches of one item have that item there. starts[l] is where level l begins in an
array of the total capacity, filled from the back; k and the number of levels determine that capacity.

Frequent strings and a distinct count (HLL), of which only what a `Categories` writes is taken, the compact form, 2**12
registers, HLL_8:

    frequent strings
    u8 preamble longs (4; 1 for empty)   u8 serial version 1   u8 family 10   u8 lg of the largest map
    u8 lg of the map now   u8 flags (5 empty, 0)   u16 unused
    u32 items   u32 unused   u64 total weight   u64 offset   u64 weights[items]   { u32 length   UTF-8 } names[items]

    distinct count
    u8 preamble ints (2 list, 3 set, 10 registers)   u8 serial version 1   u8 family 7   u8 lg of registers
    u8 lg of coupons (0 for registers)   u8 flags (4 empty, 8 compact, 16 out of order)
    u8 coupons of a list, else 0   u8 mode (0 list, 1 set, 2 registers; plus 8 for HLL_8)
    list: u32 coupons[]                     set: u32 number of coupons   u32 coupons[]
    registers: f64 estimate   f64 sum of 2**-register below 32   f64 from 32   u32 registers of 0   u32 exceptions (0)
               u8 registers[4096]

A coupon has 26 bits of a category's hash, and above them a register's value, 1 to 63. A map is full at three quarters,
a list at 8 coupons; the set that follows it grows from 2**5 to 2**9 places, then it becomes registers.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.state import require
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
    ascending = [np.sort(level, axis=1) for level in np.split(items, np.cumsum(sizes)[:-1], axis=1)]
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
    if len({(sketch.k, sketch.sizes) for sketch in sketches}) > 1:
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


#: 2**12 registers: the distinct count's standard error is 1.6%.
LG_REGISTERS: Final = 12

_LG_SMALLEST_MAP = 3
_FREQUENT = struct.Struct("<BBBBBBHIIQQ")
_FREQUENT_EMPTY = struct.Struct("<BBBBBBH")
_DISTINCT = struct.Struct("<BBBBBBBB")
_REGISTERS = struct.Struct("<dddII")
_EMPTY_MAP, _COMPACT, _OUT_OF_ORDER = 4, 8, 16
_LIST, _SET, _HLL = 0, 1, 2
_HLL_8 = 2 << 2
_PREAMBLES = {_LIST: 2, _SET: 3, _HLL: 10}
_LARGEST_REGISTER = 63
_VALUES = 2.0 ** -np.arange(_LARGEST_REGISTER + 1)
_LOW = np.arange(_LARGEST_REGISTER + 1) < 32


def check_frequent(blob: bytes, lg_map: int, n: int) -> None:
    """Refuse bytes that DataSketches would not have written of frequent strings.

    Args:
        blob: The bytes.
        lg_map: Binary logarithm of the largest map.
        n: Rows counted, of which some may be in no sketch.

    Raises:
        FormatError: Saying what does not hold.

    Example:
        >>> check_frequent(bytes.fromhex("01 01 0a 0c 03 05 00 00"), lg_map=12, n=0)
    """
    require(len(blob) >= _FREQUENT_EMPTY.size, f"frequent items of {len(blob)} bytes, fewer than any have")
    longs, version, family, lg_most, lg, flags, unused = _FREQUENT_EMPTY.unpack_from(blob)
    require((version, family, unused) == (1, 10, 0), f"no frequent items: version {version}, family {family}")
    require(lg_most == lg_map, f"frequent items of a map of 2**{lg_most}, not 2**{lg_map}")
    require(_LG_SMALLEST_MAP <= lg <= lg_most, f"frequent items in a map of 2**{lg}")
    require(lg == _LG_SMALLEST_MAP or n > _full(lg - 1), f"frequent items of {n} rows in a map of 2**{lg}")
    if (longs, flags) == (1, 5):
        require(len(blob) == _FREQUENT_EMPTY.size, "frequent items with bytes left over")
        return
    require((longs, flags) == (4, 0), f"frequent items with {longs} preamble longs and flags {flags:#04x}")
    require(len(blob) >= _FREQUENT.size, f"frequent items of {len(blob)} bytes end within the header")
    items, unused, total, offset = _FREQUENT.unpack_from(blob)[7:]
    require(0 < items <= _full(lg) and not unused, f"{items} frequent items in a map of 2**{lg}")
    require(len(blob) >= _FREQUENT.size + 12 * items, f"frequent items of {len(blob)} bytes, {items} announced")
    weights = np.frombuffer(blob, "<u8", items, _FREQUENT.size)
    require(bool(weights.all()) and int(weights.max()) <= n, "a frequent item's count is 0 or more than n")
    counted = sum(weights.tolist())
    require(total <= n, f"frequent items weigh {total}, more than n = {n}")
    require(counted + offset <= total, f"frequent items weigh {total}, less than all of them together")
    _check_names(blob, _FREQUENT.size + 8 * items, items)


def _full(lg: int) -> int:
    """Most items in a map of 2**lg places."""
    return 3 << (lg - 2)


def _check_names(blob: bytes, at: int, items: int) -> None:
    """Refuse names that are cut short, repeated or no UTF-8."""
    names = set()
    try:
        for _ in range(items):
            start = at + 4
            at = start + int.from_bytes(blob[at:start], "little")
            names.add(blob[start:at].decode())
    except UnicodeDecodeError as error:
        raise FormatError(f"damaged or foreign state of a sketch: a frequent item's name is {error}") from error
    require(at == len(blob), "frequent items with bytes left over, or a name that is cut short")
    require(len(names) == items, "a frequent item is there twice")


def check_distinct(blob: bytes, n: int) -> None:
    """Refuse bytes that DataSketches would not have written of a distinct count.

    Args:
        blob: The bytes.
        n: Rows counted.

    Raises:
        FormatError: Saying what does not hold.

    Example:
        >>> check_distinct(bytes.fromhex("02 01 07 0c 03 0c 00 08"), n=0)
    """
    require(len(blob) >= _DISTINCT.size, f"a distinct count of {len(blob)} bytes, fewer than any has")
    ints, version, family, lg_registers, lg, flags, count, mode = _DISTINCT.unpack_from(blob)
    require((version, family) == (1, 7), f"no distinct count: version {version}, family {family}")
    require(lg_registers == LG_REGISTERS, f"a distinct count of 2**{lg_registers} registers, not 2**{LG_REGISTERS}")
    kind = mode - _HLL_8
    require(kind in _PREAMBLES, f"a distinct count of mode {mode:#04x}, not a list, set or registers of HLL_8")
    require(ints == _PREAMBLES[kind], f"a distinct count of mode {mode:#04x} with {ints} preamble ints")
    if kind == _HLL:
        require((lg, count) == (0, 0), f"registers with {count} as their minimum and {lg} as the size of exceptions")
        require(flags & ~_OUT_OF_ORDER == _COMPACT, f"registers with flags {flags:#04x}")
        _check_registers(blob, bool(flags & _OUT_OF_ORDER), n)
        return
    require(flags == _COMPACT | (0 if n else _EMPTY_MAP), f"a distinct count of {n} rows with flags {flags:#04x}")
    if kind == _LIST:
        require(lg == 3 and count < 8, f"a list of {count} coupons in 2**{lg} places")
        require((count > 0) == (n > 0), f"a distinct count of {n} rows with {count} coupons")
        _check_coupons(blob, _DISTINCT.size, count, n)
        return
    require(count == 0 and len(blob) >= _DISTINCT.size + 4, "a set of coupons that ends within its header")
    coupons = int.from_bytes(blob[_DISTINCT.size : _DISTINCT.size + 4], "little")
    least = 8 if lg == 5 else _full(lg - 1) + 1 if 5 < lg <= LG_REGISTERS - 3 else 1 << 32
    require(least <= coupons <= _full(lg), f"a set of {coupons} coupons in 2**{lg} places")
    _check_coupons(blob, _DISTINCT.size + 4, coupons, n)


def _check_coupons(blob: bytes, start: int, count: int, n: int) -> None:
    require(len(blob) == start + 4 * count, f"a distinct count of {len(blob)} bytes with {count} coupons")
    require(count <= n, f"{count} coupons of {n} rows")
    coupons = np.frombuffer(blob, "<u4", count, start)
    require(bool((coupons >> 26).all()), "a coupon without a value")
    require(len(set(coupons.tolist())) == count, "a coupon is there twice")


def _check_registers(blob: bytes, out_of_order: bool, n: int) -> None:
    start = _DISTINCT.size + _REGISTERS.size
    require(len(blob) == start + (1 << LG_REGISTERS), f"registers of {len(blob)} bytes")
    estimate, low, high, zeros, exceptions = _REGISTERS.unpack_from(blob, _DISTINCT.size)
    registers: NDArray[Any] = np.frombuffer(blob, np.uint8, offset=start)
    require(int(registers.max()) <= _LARGEST_REGISTER, f"a register of {registers.max()}")
    of_each = np.bincount(registers, minlength=_LARGEST_REGISTER + 1)
    # Sums of so few powers of two are exact, in whichever order they were added.
    sums = float(_VALUES[_LOW] @ of_each[_LOW]), float(_VALUES[~_LOW] @ of_each[~_LOW])
    packed = struct.pack("<dd", low, high)
    require(packed == struct.pack("<dd", *sums), f"sums of registers {low}, {high}, which are {sums}")
    require(zeros == of_each[0] and exceptions == 0, f"{zeros} registers of 0 and {exceptions} exceptions")
    filled = (1 << LG_REGISTERS) - zeros
    require(0 < filled <= n, f"{filled} registers of {n} rows")
    none = blob[_DISTINCT.size : _DISTINCT.size + 8] == bytes(8)  # then it is not read, and follows from the registers
    right = none if out_of_order else filled <= estimate < np.inf
    require(right, f"an estimate of {estimate} from {filled} registers")
