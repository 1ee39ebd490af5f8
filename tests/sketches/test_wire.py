"""The wire format, held against datasketches in both directions, and the reader against damage of every kind."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import pairwise
from pathlib import Path

import datasketches as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.edge.uploads import merged
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.weighted import sorted_items, total_weight
from lensai_integrations.sketches.wire import (
    MAX_K,
    MIN_K,
    KLLSketch,
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
