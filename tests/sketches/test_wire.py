"""The wire format, held against datasketches in both directions, and the reader against damage of every kind."""

from __future__ import annotations

import os
import struct
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import datasketches as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.edge.uploads import merged
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.state import LARGEST_COUNT, State
from lensai_integrations.sketches.weighted import sorted_items, total_weight
from lensai_integrations.sketches.wire import (
    MAX_K,
    MIN_K,
    KLLSketch,
    check_distinct,
    check_frequent,
    fitted,
    level_sizes,
    levels_needed,
    read,
    total_capacity,
    write,
)

RANKS = np.arange(1, 100) / 100


def theirs(values: np.ndarray, k: int = 200) -> ds.kll_floats_sketch:
    sketch = ds.kll_floats_sketch(k)
    sketch.update(np.asarray(values, np.float32))
    return sketch


def normal(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32)


def header(**changes: int) -> bytes:
    """A sketch of the items 1 and 2, with fields replaced."""
    fields = {"preamble": 5, "version": 1, "family": 15, "flags": 0, "k": 200, "m": 8, "unused": 0}
    fields |= {"n": 2, "min_k": 200, "levels": 1, "unused_too": 0, "start": 198} | changes
    return struct.pack("<BBBBHBBQHBBI", *fields.values()) + struct.pack("<4f", 1, 2, 1, 2)


def assert_same(ours: KLLSketch, sketch: ds.kll_floats_sketch) -> None:
    """Ours answers as datasketches does."""
    assert ours.n == sketch.n
    assert ours.k == sketch.k
    assert len(ours.items) == sketch.num_retained
    assert (ours.minimum, ours.maximum) == (sketch.get_min_value(), sketch.get_max_value())
    values, weights = sorted_items(ours.items[None], ours.sizes)
    estimated = np.cumsum(weights[0])[np.searchsorted(values[0], values[0], side="right") - 1] / ours.n
    np.testing.assert_allclose(estimated, [sketch.get_rank(float(v), True) for v in values[0]])


@pytest.mark.parametrize("k", [8, 9, 10, 50, 200, 201, 4096, 65535])
def test_capacity_is_that_of_datasketches(k: int) -> None:
    """datasketches derives the number of items from its capacity, and refuses bytes of another length."""
    for levels in range(1, 62):
        starts, n = [total_capacity(k, levels) - 1] * levels, 1 << (levels - 1)
        head = struct.pack("<BBBBHBBQHBB", 5, 1, 15, 0, k, 8, 0, n, k, levels, 0)
        blob = head + struct.pack(f"<{levels}I", *starts) + struct.pack("<3f", 7, 7, 7)
        assert ds.kll_floats_sketch.deserialize(blob).num_retained == 1
        assert read(blob).n == n


@pytest.mark.parametrize("k", [8, 200, 4096])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 199, 200, 201, 1000, 30_000])
def test_reads_datasketches(k: int, n: int) -> None:
    sketch = theirs(normal(n), k)
    ours = read(sketch.serialize())
    if n:
        assert_same(ours, sketch)
    else:
        assert (ours.n, ours.k, ours.sizes, len(ours.items)) == (0, k, (0,), 0)
        assert np.isnan([ours.minimum, ours.maximum]).all()


def test_reads_level_zero_sorted_or_not() -> None:
    sketch = theirs(normal(1000))
    plain = read(sketch.serialize())
    sketch.get_quantile(0.5)  # sorts level zero as a side effect
    blob = sketch.serialize()
    assert blob[3] & 2
    assert sorted(read(blob).items) == sorted(plain.items)


def test_reads_infinities() -> None:
    ours = read(theirs([np.inf, 1, -np.inf]).serialize())
    assert (ours.minimum, ours.maximum) == (-np.inf, np.inf)


def test_reads_a_merge_of_different_k() -> None:
    sketch = theirs(normal(5000), 200)
    sketch.merge(theirs(normal(5000, 1), 100))
    ours = read(sketch.serialize())
    assert (ours.k, ours.min_k, ours.n) == (200, 100, 10_000)


def test_reads_one_item_in_the_long_form() -> None:
    blob = header(n=1, start=199)[:-4]
    assert ds.kll_floats_sketch.deserialize(blob).n == 1
    assert read(blob).items.tolist() == [1.0]


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_reads_what_holds_bytes(wrap: type) -> None:
    blob = theirs(normal(300)).serialize()
    assert read(wrap(blob)).n == 300


@pytest.mark.parametrize("blob", [None, "text", 5, [1, 2]])
def test_refuses_what_holds_none(blob: object) -> None:
    with pytest.raises(InputError, match="a sketch is read from bytes, got"):
        read(blob)


def test_reads_every_file_of_real_devices(data_dir: Path) -> None:
    files = sorted((data_dir / "lensai_edge").rglob("*.bin"))
    assert len(files) == 78
    for file in files:
        blob = file.read_bytes()
        assert_same(read(blob), ds.kll_floats_sketch.deserialize(blob))


def by_hand(n: int, k: int, dim: int = 3) -> tuple[list[bytes], tuple[int, ...], np.ndarray]:
    sizes = level_sizes(n, k)
    items = np.random.default_rng(n).standard_normal((dim, sum(sizes))).astype(np.float32)
    ends = (items.min(axis=1), items.max(axis=1)) if n else (items, items)
    return write(k, sizes, items, *ends), sizes, items


@settings(max_examples=50, deadline=None)
@given(st.one_of(st.integers(0, 5000), st.integers(0, 10**15)), st.one_of(st.integers(8, 300), st.just(4096)))
def test_datasketches_reads_what_is_written(n: int, k: int) -> None:
    blobs, sizes, items = by_hand(n, k)
    for blob, stream in zip(blobs, items, strict=True):
        ours, sketch = read(blob), ds.kll_floats_sketch.deserialize(blob)
        assert sketch.n == ours.n == n
        assert sketch.serialize() == blob
        if n:
            assert_same(ours, sketch)
            assert sorted(ours.items.tolist()) == sorted(stream.tolist())
            assert [size for size in ours.sizes if size] == [size for size in sizes if size]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20_000), st.integers(0, 20_000), st.sampled_from([8, 50, 200, 1000]))
def test_datasketches_merges_and_goes_on_with_what_is_written(n: int, other: int, k: int) -> None:
    ours = ds.kll_floats_sketch.deserialize(by_hand(n, k)[0][0])
    ours.merge(ds.kll_floats_sketch.deserialize(by_hand(other, k)[0][0]))
    ours.update(normal(777))
    ours.merge(theirs(normal(3000), k))
    back = read(ours.serialize())
    assert back.n == n + other + 3777


def test_all_of_a_bank_differ_only_in_their_numbers() -> None:
    blobs, sizes, _ = by_hand(12_345, 200, dim=5)
    assert len({len(blob) for blob in blobs}) == 1
    assert len({blob[: -4 * (sum(sizes) + 2)] for blob in blobs}) == 1
    assert len(set(blobs)) == 5


def test_one_item_takes_twelve_bytes_and_none_eight() -> None:
    assert [len(blob) for blob in by_hand(1, 200)[0]] == [12] * 3
    assert [len(blob) for blob in by_hand(0, 200)[0]] == [8] * 3
    assert by_hand(0, 200)[0][0] == theirs([]).serialize()


def test_more_items_than_fit_are_refused() -> None:
    items = np.zeros((1, 5000), np.float32)
    with pytest.raises(InputError, match=r"5000 items are more than a sketch with k=200 holds; pass what fitted\(\)"):
        write(200, [5000], items, items[:, 0], items[:, 0])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**12), st.integers(MIN_K, MAX_K))
def test_level_sizes_are_what_datasketches_holds(n: int, k: int) -> None:
    sizes = level_sizes(n, k)
    assert total_weight(sizes) == n
    levels = levels_needed(sizes, k)
    assert levels is not None
    assert levels <= max(1, n.bit_length())
    assert sum(sizes) <= total_capacity(k, levels)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12), st.sampled_from([8, 100, 200, 1000]))
def test_anything_can_be_fitted(sizes: list[int], k: int) -> None:
    items = normal(sum(sizes))[None]
    new_sizes, new_items = fitted(k, sizes, items)
    assert total_weight(new_sizes) == total_weight(sizes)
    assert new_items.shape == (1, sum(new_sizes))
    ends = (items.min(axis=1), items.max(axis=1)) if sum(sizes) else (items, items)
    sketch = ds.kll_floats_sketch.deserialize(write(k, new_sizes, new_items, *ends)[0])
    assert sketch.n == total_weight(sizes)


def test_what_fits_is_left_as_it_is() -> None:
    items = normal(300)[None]
    sizes, same = fitted(200, [100, 0, 200], items)
    assert sizes == [100, 0, 200]
    assert same is items


def test_fitted_takes_no_more_levels_than_it_needs() -> None:
    """540 values would fit as they are if six levels were announced, five of them empty; two levels are natural."""
    assert levels_needed([540], 200) == 6
    assert fitted(200, [540], normal(540)[None])[0] == level_sizes(540, 200) == (126, 207)


def test_no_more_levels_than_n_has_digits() -> None:
    assert levels_needed([48], 8) == 6
    assert levels_needed([60], 8) is None


@pytest.mark.parametrize("n", [0, 1, 7, 200, 333])
def test_few_values_are_all_kept(n: int) -> None:
    assert level_sizes(n, 200)[0] == n


FULL = theirs(normal(2500)).serialize()
SINGLE, EMPTY = theirs([2.5]).serialize(), theirs([]).serialize()


@pytest.mark.parametrize("blob", [FULL, SINGLE, EMPTY, theirs([1, 2]).serialize()])
def test_truncated_at_every_byte(blob: bytes) -> None:
    for end in range(len(blob)):
        with pytest.raises(FormatError):
            read(blob[:end])


@pytest.mark.parametrize("blob", [FULL, SINGLE, EMPTY])
def test_something_after_the_end(blob: bytes) -> None:
    for more in (b"\0", b"\0" * 4, blob):
        with pytest.raises(FormatError, match="while its header announces"):
            read(blob + more)


@pytest.mark.parametrize(
    ("blob", "problem"),
    [
        (b"", "0 bytes, fewer than any sketch has"),
        (header(family=7), "family 7, while KLL is 15"),
        (header(version=3), "Java's updatable form"),
        (header(version=9), "serial version 9"),
        (header(m=4), "m=4"),
        (header(k=7), "k=7"),
        (header(flags=8), "flags 0x08; is this a sketch of doubles"),
        (header(preamble=2), "2 preamble ints"),
        (header(flags=1), "5 preamble ints"),
        (header(min_k=201), r"min_k=201 outside 8..200"),
        (header(min_k=7), r"min_k=7 outside 8..200"),
        (header(levels=0), r"0 levels outside 1..61"),
        (header(levels=62), r"62 levels outside 1..61"),
        (header(start=201), "which do not ascend to the capacity"),
        (header(start=2**32 - 1), "which do not ascend to the capacity"),
        (header(start=0, n=200), "while its header announces"),
        (header(n=3), "n=3, while its items stand for 2"),
        (header(n=2**64 - 1), "while its items stand for 2"),
        (header(n=0, start=200), "n=0, while its items stand for 0"),
        (header(levels=3, start=420)[:24] + struct.pack("<2I4f", 422, 422, 1, 2, 1, 2), "3 levels for 2 values"),
        (header()[:30], "while its header announces"),
        (header()[:22], "end within the list of 1 levels"),
        (header()[:-4] + struct.pack("<f", np.nan), "NaN among its items"),
        (header()[:-4] + struct.pack("<f", 5), r"items outside its own range 1.0..2.0"),
        (header(flags=2)[:-8] + struct.pack("<2f", 2, 1), "items of a level that do not ascend"),
        (b"\x02\x02\x0f\x05\xc8\x00\x08\x00" + b"\0" * 4, "both no item and one item"),
        (ds.kll_doubles_sketch(200).serialize()[:4], "4 bytes, fewer than any sketch has"),
        (ds.quantiles_floats_sketch(128).serialize(), "another sketch or another file"),
    ],
)
def test_damage_is_named(blob: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        read(blob)


@pytest.mark.parametrize("levels", [2, 3, 12, 61])
def test_more_levels_than_n_has_digits_are_refused_where_sketches_are_merged(levels: int) -> None:
    """DataSketches reads them, and writes beyond its memory, or gives up, when it merges or writes them."""
    capacity = total_capacity(8, levels)
    starts = [capacity - 1, *[capacity] * (levels - 1)]
    head = struct.pack("<BBBBHBBQHBB", 5, 1, 15, 0, 8, 8, 0, 1, 8, levels, 0)
    blob = head + struct.pack(f"<{levels}I", *starts) + struct.pack("<3f", 7, 7, 7)
    with pytest.raises(FormatError, match=f"{levels} levels for 1 values"):
        read(blob)
    with pytest.raises(FormatError, match=f"is not a readable sketch: .*{levels} levels"):
        merged([{"imgstats/noise.bin": blob}])


def test_unsorted_upper_level_is_refused() -> None:
    blob = bytearray(FULL)
    blob[-8:] = blob[-4:] + blob[-8:-4]
    with pytest.raises(FormatError, match="items of a level that do not ascend"):
        read(blob)


def test_the_longest_announcement_allocates_nothing() -> None:
    blob = struct.pack("<BBBBHBBQHBB", 5, 1, 15, 0, MAX_K, 8, 0, 2**63, MAX_K, 61, 0) + bytes(4 * 61 + 8)
    tracemalloc.start()
    with pytest.raises(FormatError):
        read(blob)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def check_invariants(ours: KLLSketch) -> None:
    assert total_weight(ours.sizes) == ours.n < 2**61
    assert len(ours.items) == sum(ours.sizes)
    assert MIN_K <= ours.min_k <= ours.k <= MAX_K
    if ours.n:
        assert ours.minimum <= ours.items.min()
        assert ours.items.max() <= ours.maximum
    bounds = np.cumsum([0, *ours.sizes])
    for start, end in list(pairwise(bounds))[1:]:
        assert np.all(np.diff(ours.items[start:end]) >= 0)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([FULL, SINGLE, EMPTY, theirs([1, 2]).serialize()]), st.data())
def test_flipped_bits_are_refused_or_still_a_sketch(blob: bytes, data: st.DataObject) -> None:
    damaged = bytearray(blob)
    for bit in data.draw(st.lists(st.integers(0, 8 * min(len(blob), 200) - 1), min_size=1, max_size=4)):
        damaged[bit // 8] ^= 1 << bit % 8
    try:
        ours = read(damaged)
    except FormatError:
        return
    check_invariants(ours)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", EMPTY[:7], FULL[:8], FULL[:20], FULL[:24]]))
def test_arbitrary_bytes_are_refused_or_a_sketch(blob: bytes, start: bytes) -> None:
    try:
        ours = read(start + blob)
    except FormatError:
        return
    check_invariants(ours)


def test_a_sketch_with_one_level_more_is_left_as_it_is():
    """As merges on a device make them: 671 items on 20 levels, while 665 on 19 would do."""
    sizes = (4, 6, 12, 0, 20, 6, 7, 6, 1, 18, 7, 7, 6, 1, 56, 22, 0, 311, 0, 181)
    items = np.arange(sum(sizes), dtype=np.float32)[None]
    kept, same = fitted(200, sizes, items)
    assert kept == sizes
    assert same is items


# Bytes of categories before DataSketches sees them: what it writes is taken, and nothing that it would not write.

#: Names of which a distinct count is empty, a list, a set of each size, or registers.
KINDS = (0, 1, 7, 8, 24, 25, 48, 49, 96, 97, 192, 193, 384, 385, 5000)


def seen(kinds: int, **settings: int) -> Categories:
    result = Categories(**settings)
    result.update(np.arange(kinds))
    return result


def distinct(kinds: int) -> bytes:
    return bytes(seen(kinds).state()["distinct"])


def united() -> bytes:
    """Registers of a union, whose estimate follows from them alone."""
    whole = seen(5000)
    whole.merge(seen(6000))
    return bytes(whole.state()["distinct"])


def changed(blob: bytes, at: int, new: bytes) -> bytes:
    return blob[:at] + new + blob[at + len(new) :]


def state_of(state: State) -> State:
    return Categories.from_state(state).state()


def same(one: State, two: State) -> bool:
    return all(np.array_equal(one[key], two[key]) for key in one)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.booleans()), max_size=5),
    st.sampled_from([8, 64, 4096]),
)
def test_whatever_was_counted_and_merged_is_read_to_the_byte(parts, size):
    whole = Categories(size)
    for kinds, start, merge in parts:
        part = Categories(size) if merge else whole
        part.update(np.arange(kinds) + 300 * start)
        whole = Categories.from_state(whole.state())
        if merge:
            whole.merge(part)
    assert same(whole.state(), state_of(whole.state()))


LIST, SET, HLL = distinct(7), distinct(100), distinct(5000)


@pytest.mark.parametrize(
    ("blob", "n", "problem"),
    [
        (LIST[:6] + b"\xff" + LIST[7:] + bytes(range(1, 255)) * 5, 9999, "a list of 255 coupons"),
        (LIST[:6] + b"\x09" + LIST[7:] + b"\1\2\3\4\5\6\7\x08", 9999, "a list of 9 coupons"),
        (LIST[:6] + b"\x08" + LIST[7:] + b"\1\2\3\4", 9999, "a list of 8 coupons"),
        (changed(LIST, 5, b"\0"), 9999, "flags 0x00"),
        (changed(LIST, 5, b"\x0c"), 9999, "flags 0x0c"),
        (changed(LIST, 7, b"\0"), 9999, "mode 0x00"),
        (changed(LIST, 7, b"\x04"), 9999, "mode 0x04"),
        (changed(LIST, 7, b"\x0b"), 9999, "mode 0x0b"),
        (changed(LIST, 7, b"\x09"), 9999, "mode 0x09 with 2 preamble ints"),
        (changed(LIST, 3, b"\x15"), 9999, r"2\*\*21 registers"),
        (changed(LIST, 12, LIST[8:12]), 9999, "a coupon is there twice"),
        (changed(LIST, 12, bytes(4)), 9999, "a coupon without a value"),
        (changed(LIST, 15, b"\3"), 9999, "a coupon without a value"),
        (LIST, 6, "7 coupons of 6 rows"),
        (LIST, 0, "0 rows with flags"),
        (changed(SET, 8, struct.pack("<I", 385)) + bytes(4 * 285), 9999, "a set of 385 coupons"),
        (changed(SET, 8, struct.pack("<I", 2**32 - 1)), 9999, "a set of 4294967295 coupons"),
        (changed(SET, 4, b"\x1f"), 9999, r"in 2\*\*31 places"),
        (changed(SET, 4, b"\x0a"), 9999, r"in 2\*\*10 places"),
        (changed(SET, 4, b"\x04"), 9999, r"in 2\*\*4 places"),
        (changed(SET, 5, b"\0"), 9999, "flags 0x00"),
        (SET[:10], 9999, "ends within its header"),
        (changed(HLL, 36, struct.pack("<I", 13)) + bytes(64), 9999, "registers of 4200 bytes"),
        (changed(HLL, 36, struct.pack("<I", 13)), 9999, "13 exceptions"),
        (changed(HLL, 40, b"\x40"), 9999, "a register of 64"),
        (changed(HLL, 40, b"\xff"), 9999, "a register of 255"),
        (changed(HLL, 40, b"\x3f"), 9999, "sums of registers"),
        (changed(HLL, 32, bytes(4)), 9999, "0 registers of 0"),
        (changed(HLL, 6, b"\1"), 9999, "1 as their minimum"),
        (changed(HLL, 4, b"\4"), 9999, "4 as the size of exceptions"),
        (changed(HLL, 5, b"\x28"), 9999, "flags 0x28"),
        (changed(HLL, 8, struct.pack("<d", np.nan)), 9999, "an estimate of nan"),
        (changed(HLL, 8, struct.pack("<d", np.inf)), 9999, "an estimate of inf"),
        (changed(HLL, 8, struct.pack("<d", 1.0)), 9999, "an estimate of 1.0"),
        (changed(united(), 8, struct.pack("<d", 5000.0)), 99_999, "an estimate of 5000.0"),
        (HLL, 9, "registers of 9 rows"),
        (HLL[:2000], 9999, "registers of 2000 bytes"),
        (HLL[:20], 9999, "registers of 20 bytes"),
    ],
)
def test_what_would_damage_memory_or_mean_nothing_is_refused(blob, n, problem):
    with pytest.raises(FormatError, match=problem):
        check_distinct(blob, n)
    with pytest.raises(FormatError):
        Categories.from_state({**seen(1).state(), "distinct": np.frombuffer(blob, np.uint8), "n": np.array(n)})


def survives(read: Callable[[], object]) -> bool:
    """Whether a child that does this ends as it should."""
    pid = os.fork()
    if pid == 0:
        try:
            read()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def merged_and_back(states: list[State]) -> None:
    for state in states:
        assert same(state, state_of(state))
        for kinds in (0, 5, 100, 500):
            whole = Categories.from_state(state)
            whole.merge(seen(kinds))
            assert same(whole.state(), state_of(whole.state()))


@pytest.mark.parametrize("blob", [distinct(0), LIST, SET, HLL, united()], ids=["empty", "list", "set", "hll", "union"])
def test_every_other_value_of_every_byte_of_a_header(blob):
    """Another estimate or another coupon may be as good; whatever is taken DataSketches can go on with."""
    n = 0 if blob == distinct(0) else 99_999
    taken = []
    for at in range(min(len(blob), 40)):
        for value in set(range(256)) - {blob[at]}:
            mutant = changed(blob, at, bytes([value]))
            try:
                check_distinct(mutant, n)
            except FormatError:
                continue
            assert 8 <= at < 16 or blob in (LIST, SET), f"byte {at} may be {value}"
            taken.append(mutant)
    plain = Categories().state()
    arrays = [np.frombuffer(sorted_coupons(mutant), np.uint8) for mutant in taken[:: max(1, len(taken) // 60)]]
    assert survives(lambda: merged_and_back([{**plain, "distinct": each, "n": np.array(n)} for each in arrays]))


def sorted_coupons(blob: bytes) -> bytes:
    """A set as it is saved."""
    return blob[:12] + np.sort(np.frombuffer(blob[12:], "<u4")).tobytes() if blob[0] == 3 else blob


def items(names: list[bytes], weights: list[int] | None = None, **changes: int) -> bytes:
    """Frequent strings with fields replaced."""
    weights = [1] * len(names) if weights is None else weights
    fields = {"longs": 4, "version": 1, "family": 10, "most": 12, "lg": 3, "flags": 0, "unused": 0}
    fields |= {"items": len(names), "unused_too": 0, "total": sum(weights), "offset": 0} | changes
    texts = b"".join(struct.pack("<I", len(name)) + name for name in names)
    return struct.pack("<6BHIIQQ", *fields.values()) + struct.pack(f"<{len(weights)}Q", *weights) + texts


@pytest.mark.parametrize(
    ("blob", "problem"),
    [
        (b"", "0 bytes"),
        (items([b"a"])[:20], "end within the header"),
        (items([b"a"], version=2), "version 2"),
        (items([b"a"], family=15), "family 15"),
        (items([b"a"], most=13), r"a map of 2\*\*13, not 2\*\*12"),
        (items([b"a"], lg=2), r"in a map of 2\*\*2"),
        (items([b"a"], lg=13), r"in a map of 2\*\*13"),
        (items([b"a"], lg=12), r"of 50 rows in a map of 2\*\*12"),
        (items([b"a"], flags=1), "flags 0x01"),
        (items([b"a"], flags=5, longs=1), "bytes left over"),
        (items([b"a"], longs=1), "1 preamble longs"),
        (items([b"a"], unused=1), "no frequent items"),
        (items([b"a"], unused_too=1), "1 frequent items in a map"),
        (items([], longs=4), "0 frequent items in a map"),
        (items([b"%d" % i for i in range(7)]), r"7 frequent items in a map of 2\*\*3"),
        (items([b"a"], items=2**32 - 1), "4294967295 frequent items"),
        (items([b"a"], items=6), "6 announced"),
        (items([b"a", b"b"], [1, 0]), "count is 0"),
        (items([b"a"], [51]), "more than n"),
        (items([b"a", b"b"], [2**63, 2**63 + 1], total=1), "more than n"),
        (items([b"a"], total=51), "weigh 51, more than n = 50"),
        (items([b"a"], total=0), "weigh 0, less than"),
        (items([b"a"], total=3, offset=3), "weigh 3, less than"),
        (items([b"a"], offset=2**64 - 1), "weigh 1, less than"),
        (items([b"a", b"a"]), "there twice"),
        (items([b"\xff"]), "codec can't decode"),
        (items([b"\xed\xa0\x80"]), "codec can't decode"),
        (items([b"a"]) + b"x", "left over"),
        (items([b"abc", b"d"])[:-1], "cut short"),
        (items([b"abc"]).replace(b"\3\0\0\0abc", b"\xff\xff\xff\xffabc"), "cut short"),
    ],
)
def test_damage_of_frequent_items_is_named(blob, problem):
    with pytest.raises(FormatError, match=problem):
        check_frequent(blob, 12, 50)


def test_the_smallest_map_that_can_be_is_read_of_few_rows():
    """Its size says that more names were seen than there were rows: it would take memory for nothing."""
    check_frequent(items([b"a"], lg=4), 12, 7)
    with pytest.raises(FormatError, match="of 6 rows in a map"):
        check_frequent(items([b"a"], lg=4), 12, 6)
    with pytest.raises(FormatError, match="max_map_size"):
        Categories.from_state({**seen(1).state(), "max_map_size": np.array(2**17)})


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([1, 7, 50, 300]), st.data())
def test_damaged_frequent_items_are_refused_or_go_on(kinds, data):
    state = seen(kinds, max_map_size=64).state()
    blob = bytearray(state["frequent"].tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        check_frequent(bytes(blob), 6, int(state["n"]))
    except FormatError:
        return
    sketch = Categories.from_state({**state, "frequent": np.frombuffer(blob, np.uint8)})
    sketch.merge(seen(200, max_map_size=64))
    assert same(sketch.state(), state_of(sketch.state()))


def falling_together(count: int) -> list[str]:
    """Names that the map of DataSketches' Linux wheels puts in one place: their standard library's hash is known."""
    names = np.char.zfill(np.arange(4500 * count).astype("S8"), 8)
    with np.errstate(over="ignore"):
        multiplier, fold = np.uint64(0xC6A4A7935BD1E995), lambda value: value ^ (value >> np.uint64(47))
        mixed = fold(np.frombuffer(names.tobytes(), "<u8") * multiplier) * multiplier
        mixed = fold(((np.uint64(0xC70F6907) ^ (np.uint64(8) * multiplier)) ^ mixed) * multiplier) * multiplier
        mixed = fold(mixed)
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(factor)
        places = (mixed ^ (mixed >> np.uint64(33))) & np.uint64(4095)
    return [name.decode() for name in names[places == 7]]


@pytest.mark.slow
def test_names_chosen_to_collide_raise_our_error_and_leave_a_sketch_that_can_be_saved():
    names = falling_together(1200)
    half = len(names) // 2
    one, two = Categories(), Categories()
    one.update(names[:half])
    two.update(names[half:])
    raises = (
        pytest.raises(InputError, match="chosen to fall on one place") if sys.platform == "linux" else nullcontext()
    )
    for whole, more in ((one, lambda: one.merge(two)), (two, lambda: two.update(names[:half]))):
        with raises:
            more()
        assert whole.n == len(names)
        assert same(whole.state(), state_of(whole.state()))


def test_counts_that_are_none():
    sketch = Categories()
    with pytest.raises(InputError, match="negative: -1"):
        sketch.add({"a": 1, "b": -1})
    sketch.add({"a": 0})
    assert (sketch.n, sketch.top(2), sketch.distinct) == (0, [], 0)
    assert same(sketch.state(), state_of(sketch.state()))


def test_more_rows_than_can_be_counted_are_refused():
    full = Categories.from_state({**seen(5000).state(), "n": np.array(LARGEST_COUNT)})
    assert full.distinct <= full.n
    for more in (lambda: full.merge(seen(1)), lambda: full.update(["a"])):
        with pytest.raises(InputError, match="too many to be counted"):
            more()
    assert full.n == LARGEST_COUNT


def test_an_estimate_is_never_of_more_than_the_rows():
    """A register of 63 is as good as any, and stands for 2**63 names."""
    blob = bytearray(united())
    registers = np.frombuffer(blob, np.uint8, offset=40).copy()
    registers[:] = 31
    head = struct.pack("<dddII", 0, 4096 * 2.0**-31, 0, 0, 0)
    hostile = np.frombuffer(bytes(blob[:8]) + head + registers.tobytes(), np.uint8)
    sketch = Categories.from_state({**Categories().state(), "distinct": hostile, "n": np.array(9000)})
    assert sketch.distinct == 9000
