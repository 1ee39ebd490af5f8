"""DataSketches' bytes: well-formed ones made up from their layouts, and ways to spoil them that know these layouts.

The layouts stand in `lensai_integrations/sketches/wire.py`. Frequent strings and distinct counts are preceded by the
number of rows that they are said to be of, a u64.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

import numpy as np

from lensai_integrations.sketches.wire import total_capacity

#: Where a header's fields are and what they are, `struct`'s way.
Field = tuple[int, str]

ROWS = 8
DISTINCT: list[Field] = [(0, "<Q"), *((ROWS + at, "<B") for at in range(8)), (ROWS + 8, "<I")]
DISTINCT += [(ROWS + 8, "<d"), (ROWS + 16, "<d"), (ROWS + 24, "<d"), (ROWS + 32, "<I"), (ROWS + 36, "<I")]
FREQUENT: list[Field] = [(0, "<Q"), *((ROWS + at, "<B") for at in range(8)), (ROWS + 8, "<I"), (ROWS + 12, "<I")]
FREQUENT += [(ROWS + 16, "<Q"), (ROWS + 24, "<Q"), (ROWS + 32, "<Q"), (ROWS + 40, "<Q")]
QUANTILES: list[Field] = [(0, "<B"), (1, "<B"), (2, "<B"), (3, "<B"), (4, "<H"), (6, "<B"), (7, "<B"), (8, "<Q")]
QUANTILES += [(16, "<H"), (18, "<B"), (19, "<B"), *((20 + 4 * at, "<I") for at in range(16)), (24, "<f"), (28, "<f")]

_NUMBERS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 12, 13, 16, 24, 25, 31, 32, 63, 64, 127, 128, 200, 254, 255, 256, 384, 385]
_NUMBERS += [3072, 3073, 4096, 65535, 2**26, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**61, 2**61 + 1, 2**63, 2**64 - 1]
_FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), 1e300, float("nan")]


def spoiled(data: bytes, fields: Sequence[Field], start: int, width: int, rng: Random) -> bytes:
    """The bytes with one thing wrong: a field of the header, an item, or the length."""
    ways: list[Callable[[], bytes]] = [
        lambda: _field(data, *rng.choice(fields), rng),
        lambda: _field(data, *rng.choice(fields), rng),
        lambda: _items(data, start, width, rng),
        lambda: _length(data, width, rng),
        lambda: _flipped(data, rng),
    ]
    return rng.choice(ways)()


def _field(data: bytes, at: int, kind: str, rng: Random) -> bytes:
    size = struct.calcsize(kind)
    if len(data) < at + size:
        return data
    (old,) = struct.unpack_from(kind, data, at)
    if kind in ("<d", "<f"):
        new = rng.choice([*_FLOATS, old * 2, old / 2])
        new = new if kind == "<d" or abs(new) < 3e38 else float("inf")
    else:
        new = rng.choice([*_NUMBERS, old + 1, old - 1, old * 2, old ^ 1 << rng.randrange(8 * size)]) % (1 << 8 * size)
    return data[:at] + struct.pack(kind, new) + data[at + size :]


def _items(data: bytes, start: int, width: int, rng: Random) -> bytes:
    """An item twice, away, another, or two of them in each other's place."""
    count = (len(data) - start) // width
    if count <= 0:
        return data
    one, two = (start + width * rng.randrange(count) for _ in range(2))
    item, other = data[one : one + width], data[two : two + width]
    new = rng.choice([b"\0" * width, b"\xff" * width, rng.randbytes(width), other, item + other, b""])
    return data[:one] + new + data[one + width :]


def _length(data: bytes, width: int, rng: Random) -> bytes:
    cut = rng.choice([1, 4, width, len(data) // 2, rng.randrange(len(data) + 1)])
    more = rng.randbytes(rng.choice([1, 4, width, 64, 1100]))  # as many coupons as one byte can announce
    return rng.choice([data[:-cut] if cut else data, data + more, data + data[-cut:]])


def _flipped(data: bytes, rng: Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    changed[rng.randrange(min(len(data), rng.choice([16, 64, 1 << 20])))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def distinct(rng: Random) -> bytes:
    """A distinct count as DataSketches might write one, with values that no category has by chance."""
    size = rng.choice([0, 1, 7, 8, 24, 25, 100, 384, 385, 1000])
    coupons = sorted({rng.randrange(1, rng.choice([3, 64])) << 26 | rng.randrange(1 << 26) for _ in range(size)})
    rows = struct.pack("<Q", len(coupons) + rng.choice([0, 0, 5, 2**40]) * bool(size))
    if len(coupons) < 8:
        return rows + bytes([2, 1, 7, 12, 3, 8 if coupons else 12, len(coupons), 8]) + _packed(coupons)
    lg = next((lg for lg in range(5, 10) if 4 * len(coupons) <= 3 << lg), None)
    if lg is not None:
        return rows + struct.pack("<8BI", 3, 1, 7, 12, lg, 8, 0, 9, len(coupons)) + _packed(coupons)
    registers = np.zeros(4096, np.uint8)
    np.maximum.at(registers, np.array(coupons) & 4095, np.array(coupons) >> 26)
    flags = rng.choice([8, 24])
    blob = bytes([10, 1, 7, 12, 0, flags, 0, 10]) + bytes(32) + registers.tobytes()
    return summed(rows + blob)


def _packed(coupons: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(coupons)}I", *coupons)


def summed(data: bytes) -> bytes:
    """A distinct count whose counts and sums are those of its coupons or registers."""
    head, body = bytearray(data[:ROWS] + data[ROWS : ROWS + 40]), data[ROWS + 40 :]
    if len(head) < ROWS + 8:
        return data
    coupons = data[ROWS + 8 :], data[ROWS + 12 :]
    if head[ROWS + 7] & 3 == 0:
        count = min(len(coupons[0]) // 4, 255)
        head[ROWS + 6] = count
        return bytes(head[: ROWS + 8]) + coupons[0][: 4 * count]
    if head[ROWS + 7] & 3 == 1:
        count = len(coupons[1]) // 4
        return bytes(head[: ROWS + 8]) + struct.pack("<I", count) + coupons[1][: 4 * count]
    registers = np.frombuffer(body, np.uint8)[:4096]
    powers = 2.0 ** -registers.astype(float)
    zeros = int((registers == 0).sum())
    hip = 0.0 if head[ROWS + 5] & 16 else 4200.0
    low, high = powers[registers < 32].sum(), powers[registers >= 32].sum()
    return bytes(head[: ROWS + 8]) + struct.pack("<dddII", hip, low, high, zeros, 0) + registers.tobytes()


def frequent(rng: Random) -> bytes:
    """Frequent strings as DataSketches might write them."""
    lg_most = rng.choice([3, 4, 6, 12, 12, 16])
    lg = rng.randint(3, lg_most)
    count = rng.choice([0, 1, 2, 3 << lg - 2, (3 << lg - 2) - 1, rng.randrange(3 << lg - 2)]) % 4000
    shapes = ["%d", "é%d", "", "\0%d", "%d" * 9]
    names = sorted({rng.choice(shapes).replace("%d", str(rng.randrange(9999))) for _ in range(count)})
    weights = [rng.choice([1, 1, 2, rng.randrange(1, 1000), 2**40]) for _ in names]
    offset = rng.choice([0, 0, 1, 100])
    total = sum(weights) + rng.choice([offset, 2 * offset])
    rows = struct.pack("<Q", max(total, 1 + (3 << lg - 3) if lg > 3 else 0))
    if not names:
        return rows + bytes([1, 1, 10, lg_most, lg, 5, 0, 0])
    head = struct.pack("<6BHIIQQ", 4, 1, 10, lg_most, lg, 0, 0, len(names), 0, total, offset)
    texts = b"".join(struct.pack("<I", len(text)) + text for text in (name.encode() for name in names))
    return rows + head + struct.pack(f"<{len(weights)}Q", *weights) + texts


def weighed(data: bytes) -> bytes:
    """Frequent strings whose total is the sum of their weights."""
    if len(data) < ROWS + 32:
        return data
    items, _, _, offset = struct.unpack_from("<IIQQ", data, ROWS + 8)
    if len(data) < ROWS + 32 + 8 * items:
        return data
    total = (sum(struct.unpack_from(f"<{items}Q", data, ROWS + 32)) + offset) % 2**64
    return struct.pack("<Q", total) + data[ROWS : ROWS + 16] + struct.pack("<Q", total) + data[ROWS + 24 :]


def quantiles(rng: Random) -> bytes:
    """A KLL sketch whose levels, sizes and numbers are made up, and go together."""
    k = rng.choice([8, 9, 10, 12, 50, 200, 201, 1000, 65535])
    levels = rng.choice([1, 1, 2, 3, 4, 5, 8, 12, 20, 30, 31, 32, 33, 40, 60, 61])
    room = total_capacity(k, levels)
    count = min(rng.choice([1, 2, 3, 8, 20, room // 2, room - 1, room]), 2000)
    sizes = [0] * levels
    for _ in range(rng.choice([1, 3, 30])):
        sizes[rng.choice([0, levels - 1, rng.randrange(levels)])] += count // 30
    sizes[rng.choice([0, levels - 1, rng.randrange(levels)])] += count - min(count, sum(sizes))
    numbers = np.random.default_rng(rng.randrange(2**32)).standard_normal(sum(sizes)).astype("<f4")
    if rng.random() < 0.3:
        numbers = np.array(_FLOATS[:-2], "<f4")[np.arange(sum(sizes)) % 8]
    head = struct.pack("<BBBBHBBQHBB", 5, 1, 15, rng.choice([0, 2]), k, 8, 0, 0, rng.choice([k, k, 8]), levels, 0)
    return ordered(head, sizes, numbers)


def ordered(head: bytes, sizes: Sequence[int], numbers: np.ndarray) -> bytes:
    """A KLL sketch with ascending levels, and starts, n and range that follow."""
    if not len(numbers):
        return head[:20]
    k, levels = struct.unpack_from("<H", head, 4)[0], len(sizes)
    n = sum(size << level for level, size in enumerate(sizes)) % 2**64
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    starts = (total_capacity(k, levels) - sum(sizes) + np.cumsum([0, *sizes[:-1]])) % 2**32
    body = np.concatenate([[numbers.min(), numbers.max()], *map(np.sort, parts)]).astype("<f4")
    start = head[:8] + struct.pack("<Q", n) + head[16:18] + bytes([levels]) + head[19:20]
    return start + starts.astype("<u4").tobytes() + body.tobytes()


def mutated_distinct(data: bytes, rng: Random) -> bytes:
    """One thing wrong, and perhaps all counts made to go with it."""
    start = ROWS + (40 if data[ROWS : ROWS + 1] == b"\x0a" else 12 if data[ROWS : ROWS + 1] == b"\x03" else 8)
    data = spoiled(data, DISTINCT, start, 1 if start > ROWS + 12 else 4, rng)
    return summed(data) if rng.random() < 0.4 else data


def mutated_frequent(data: bytes, rng: Random) -> bytes:
    """One thing wrong, and perhaps the total made to go with it."""
    data = spoiled(data, FREQUENT, ROWS + 32, rng.choice([1, 8]), rng)
    return weighed(data) if rng.random() < 0.4 else data


def mutated_quantiles(data: bytes, rng: Random) -> bytes:
    """One thing wrong; whole sketches that are none are what `quantiles` makes."""
    levels = data[18] if len(data) > 18 else 0
    return spoiled(data, QUANTILES, 28 + 4 * levels, 4, rng)
