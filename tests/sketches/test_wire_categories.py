"""Bytes of categories before DataSketches sees them: what it writes is taken, and nothing that it would not write."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.state import LARGEST_COUNT, State
from lensai_integrations.sketches.wire import check_distinct, check_frequent

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
