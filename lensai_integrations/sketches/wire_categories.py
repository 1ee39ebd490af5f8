"""Apache DataSketches' bytes of frequent strings and of a distinct count (HLL), checked before DataSketches reads them.

DataSketches' C++ copies as many items as a header announces into as much memory as another field says: bytes that
somebody else made end the process that reads them. So nothing is handed to it here that it would not have written
itself: every field, every count and every size is held against the others first. What passes, DataSketches reads,
merges, estimates from and writes again.

Only what a `Categories` writes is taken: the compact form, 2**12 registers, HLL_8. Layouts, little-endian:

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

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import FormatError
from lensai_integrations.sketches.state import require

#: 2**12 registers: the distinct count's standard error is 1.6%.
LG_REGISTERS: Final = 12

_LG_SMALLEST_MAP = 3
_FREQUENT = struct.Struct("<BBBBBBHIIQQ")
_FREQUENT_EMPTY = struct.Struct("<BBBBBBH")
_DISTINCT = struct.Struct("<BBBBBBBB")
_REGISTERS = struct.Struct("<dddII")
_EMPTY, _COMPACT, _OUT_OF_ORDER = 4, 8, 16
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
    require(counted + offset <= total and (offset > 0 or counted == total), "frequent items of another total weight")
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
    require(flags == _COMPACT | (0 if n else _EMPTY), f"a distinct count of {n} rows with flags {flags:#04x}")
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
    require((low, high) == sums, f"sums of registers {low}, {high}, which are {sums}")
    require(zeros == of_each[0] and exceptions == 0, f"{zeros} registers of 0 and {exceptions} exceptions")
    filled = (1 << LG_REGISTERS) - zeros
    require(0 < filled <= n, f"{filled} registers of {n} rows")
    none = blob[_DISTINCT.size : _DISTINCT.size + 8] == bytes(8)  # then it is not read, and follows from the registers
    right = none if out_of_order else filled <= estimate < np.inf
    require(right, f"an estimate of {estimate} from {filled} registers")
