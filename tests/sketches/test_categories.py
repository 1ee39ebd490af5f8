"""Categories against collections.Counter, and their bytes against DataSketches."""

from __future__ import annotations

from collections import Counter

import datasketches
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import maker

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches import categories as module
from lensai_integrations.sketches.categories import Categories, tabulate


def seen(values, **kwargs):
    result = Categories(**kwargs)
    result.update(values)
    return result


def as_counter(sketch):
    return Counter(dict(sketch.top(10**6)))


def zipf(n, seed=0):
    return np.random.default_rng(seed).zipf(1.3, n) % 100_000


@given(st.lists(st.lists(st.integers(-5, 40), max_size=30), max_size=5))
@settings(max_examples=50, deadline=None)
def test_few_categories_are_counted_exactly_however_they_are_split(batches):
    merged, streamed = Categories(), Categories()
    for batch in batches:
        streamed.update(batch)
        merged.merge(seen(batch))
    expected = Counter(str(value) for batch in batches for value in batch)
    for sketch in (merged, streamed):
        assert as_counter(sketch) == expected
        assert sketch.n == expected.total()
        assert sketch.distinct == len(expected)
        assert sketch.error == 0


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array([3, 1, 3], np.uint8), ["3", "1"]),
        (np.array([2**63], np.uint64), [str(2**63)]),
        ([-1, -1, 4], ["-1", "4"]),
        (np.array([True, False, True]), ["1", "0"]),
        (["cat", "dog", "cat"], ["cat", "dog"]),
        (("ünï", "", "日本"), ["", "ünï", "日本"]),
        (np.array(["b", "a", "b"], object), ["b", "a"]),
        (np.array(["b", "a", "b"], np.dtypes.StringDType()), ["b", "a"]),
        (pd.Series(["b", "a", "b"]), ["b", "a"]),
        (pd.Series([2, 1, 2]), ["2", "1"]),
        (torch.tensor([2, 1, 2]), ["2", "1"]),
        (torch.tensor([True, False, True]), ["1", "0"]),
        ((name for name in "bab"), ["b", "a"]),
        ([], []),
        (np.zeros(0), []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_numbers_booleans_and_strings_from_wherever_they_come(values, names):
    sketch = seen(values)
    assert [name for name, _ in sketch.top(10)] == names
    assert sketch.n == sum(count for _, count in sketch.top(10))


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0],
        np.eye(3),
        np.eye(3, dtype=int),
        np.array(3),
        [None],
        ["a", None],
        np.array(["2020-01-01"], "datetime64[D]"),
        torch.tensor([0.5]),
        ["\ud800"],
    ],
    ids=str,
)
def test_what_is_no_category_is_refused_and_nothing_is_counted(values):
    sketch = Categories()
    with pytest.raises(InputError, match="categor"):
        sketch.update(values)
    assert (sketch.n, sketch.top(3)) == (0, [])


@pytest.mark.parametrize("library", ["numpy", "torch", "jax", "tensorflow"])
def test_several_at_once_count_as_often_as_they_are_on(library):
    on = np.array([[True, False, True], [False, False, True]])
    sketch = Categories()
    for _ in range(3):
        sketch.update(maker(library)(on))
        sketch.update(["2"])
    assert (sketch.n, sketch.top(9)) == (12, [("2", 9), ("0", 3)])
    sketch.update(on)
    with pytest.raises(InputError, match="2 at once here, and 3 before"):
        sketch.update(on[:, :2])


def test_top_is_in_order_of_frequency_then_name():
    sketch = seen(["b", "a", "c", "c", "d", "d", "d"])
    assert sketch.top(3) == [("d", 3), ("c", 2), ("a", 1)]
    assert sketch.top(0) == []
    with pytest.raises(InputError, match="m is how many"):
        sketch.top(-1)


def test_more_categories_than_fit_are_within_the_stated_error():
    values = zipf(100_000)
    sketch = seen(values, max_map_size=256)
    exact = Counter(map(str, values.tolist()))
    assert 0 < sketch.error < len(values) / 100
    estimates = dict(sketch.top(10**6))
    assert all(abs(estimates[name] - exact[name]) <= sketch.error for name in estimates)
    assert {name for name, count in exact.items() if count > sketch.error} <= set(estimates)
    assert sketch.distinct == pytest.approx(len(exact), rel=0.05)


def test_merging_many_categories_keeps_the_stated_error_and_the_other():
    parts = [zipf(30_000, seed) for seed in range(3)]
    sketches = [seen(part, max_map_size=256) for part in parts]
    before = sketches[1].top(20), sketches[1].distinct, sketches[1].n
    merged = sketches[0]
    for sketch in sketches[1:]:
        merged.merge(sketch)
    exact = Counter(map(str, np.concatenate(parts).tolist()))
    assert (sketches[1].top(20), sketches[1].distinct, sketches[1].n) == before
    assert merged.n == 90_000
    assert all(abs(count - exact[name]) <= merged.error for name, count in merged.top(100))
    assert merged.distinct == pytest.approx(len(exact), rel=0.05)


def test_sketches_of_different_sizes_do_not_merge():
    with pytest.raises(InputError, match="4096 and 256"):
        Categories().merge(Categories(256))


@pytest.mark.parametrize("size", [7, 100, 4, 2**27, 8.0, "8"])
def test_the_map_is_a_power_of_two(size):
    with pytest.raises(InputError, match="power of two"):
        Categories(size)


# What waits on an accelerator. Tensors in host memory take the same way when handed to the inner function.


def put_off(batches, **kwargs):
    sketch = Categories(**kwargs)
    for batch in batches:
        sketch._put_off(torch.as_tensor(batch))
    return sketch


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_class_numbers_that_wait_are_counted_at_the_end(dtype):
    batches = [torch.tensor([1, 0, 1], dtype=dtype), torch.tensor([0, 0, 0, 1], dtype=dtype)]
    sketch = put_off(batches)
    assert sketch.n == 7
    batches[0].zero_()  # the caller's tensor is the caller's
    assert sketch.to_host().top(2) == [("0", 4), ("1", 3)]
    assert (sketch.n, sketch.error, sketch.distinct) == (7, 0, 2)


def test_mixing_host_and_waiting_batches_counts_both():
    sketch = put_off([[1, 2]])
    sketch.update(["1", "x"])
    other = put_off([[2, 2]])
    sketch.merge(other)
    assert as_counter(sketch) == {"2": 3, "1": 2, "x": 1}
    assert as_counter(other) == {"2": 2}


def test_a_long_wait_is_reduced_to_a_table_without_loss(monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 100)
    monkeypatch.setattr(module, "_TABLE", 50)
    values = np.random.default_rng(0).integers(-20, 20, (40, 30))
    sketch = put_off(values)
    assert sketch._pending_rows < 200
    assert as_counter(sketch) == Counter(map(str, values.ravel().tolist()))
    assert sketch.error == 0


def test_what_does_not_fit_into_the_table_is_in_the_error(monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 100)
    monkeypatch.setattr(module, "_TABLE", 10)
    values = np.random.default_rng(0).geometric(0.2, (40, 30))
    sketch = put_off(values)
    exact = Counter(map(str, values.ravel().tolist()))
    assert 0 < sketch.error < 600
    assert sketch.n == 1200
    assert all(abs(count - exact[name]) <= sketch.error for name, count in sketch.top(100))
    again = Categories.from_state(sketch.state())
    assert again.error == sketch.error


@given(st.lists(st.tuples(st.integers(-4, 9), st.integers(0, 5)), min_size=1, max_size=40), st.integers(1, 15))
@settings(max_examples=50, deadline=None)
def test_tabulate_sums_weights_of_the_smallest_values(pairs, size):
    values, weights = torch.tensor(pairs).T
    expected: Counter = Counter()
    for value, weight in pairs:
        expected[value] += weight
    kept = sorted(expected)[:size]
    kinds, sums = tabulate(values, weights, size)
    assert kinds.shape == sums.shape == (size,)
    assert sums.sum() == sum(expected[value] for value in kept)
    assert list(zip(kinds.tolist(), sums.tolist(), strict=True))[: len(kept)] == [(v, expected[v]) for v in kept]
    assert not sums[len(kept) :].any()


@pytest.mark.parametrize("waiting", [100, 10**6])
@pytest.mark.parametrize("place", ["host", "accelerator"])
def test_rows_that_are_none_are_left_out_wherever_they_lie(place, waiting, monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", waiting)
    monkeypatch.setattr(module, "_TABLE", 60)
    rng = np.random.default_rng(0)
    values, valid = rng.integers(-2, 20, (40, 30)), rng.random((40, 30)) < 0.7
    sketch = Categories()
    for batch, counts in zip(values, valid, strict=True):
        if place == "host":
            sketch.update((batch, counts))
        else:
            sketch._put_off(torch.from_numpy(batch), torch.from_numpy(counts))
    assert sketch.rows_seen == (1200 if place == "accelerator" else valid.sum())
    expected = Counter(map(str, values[valid].tolist()))
    assert (sketch.n, sketch.rows_seen, sketch.error) == (valid.sum(), valid.sum(), 0)
    assert as_counter(sketch) == expected
    sketch.update(np.array([3]))
    assert (sketch.n, sketch.state()["n"]) == (valid.sum() + 1,) * 2


def test_rows_that_are_none_are_no_part_of_the_error_of_a_full_table(monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 100)
    monkeypatch.setattr(module, "_TABLE", 10)
    rng = np.random.default_rng(0)
    values, valid = rng.geometric(0.2, (40, 30)), rng.random((40, 30)) < 0.5
    sketch = Categories()
    for batch, counts in zip(values, valid, strict=True):
        sketch._put_off(torch.from_numpy(batch), torch.from_numpy(counts))
    exact = Counter(map(str, values[valid].tolist()))
    assert sketch.n == valid.sum()
    assert 0 < sketch.error < 300
    assert all(abs(count - exact[name]) <= sketch.error for name, count in sketch.top(100))


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_which_rows_count_may_be_said_of_several_at_once_and_has_their_length(library):
    make, sketch = maker(library), Categories()
    sketch.update((make(np.array([[True, False], [True, True]])), make(np.array([True, False]))))
    assert (sketch.n, sketch.top(3)) == (1, [("0", 1)])
    for valid in (np.array([True]), np.array([1, 0]), np.ones((2, 1), bool)):
        with pytest.raises(InputError, match=r"which of .* categories count is said by bool"):
            sketch.update((make(np.array([1, 2])), make(valid)))
    sketch.update(("1", "0"))
    assert sketch.n == 3


def test_training_and_inference_mode_may_alternate():
    sketch = Categories()
    for step in range(60):
        with torch.inference_mode(step % 2 == 0):
            sketch._put_off(torch.tensor([step % 7, step % 5]))
    assert as_counter(sketch).total() == 120


def test_waiting_on_an_accelerator_never_waits_for_it(accelerator, monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 100)
    monkeypatch.setattr(module, "_TABLE", 50)
    sketch = Categories()
    for _ in range(20):
        sketch.update(accelerator((30,), torch.int32))
    assert sketch.n == 600
    assert all(values.device.type == "cuda" for values, _ in sketch._pending)
    for _ in range(20):
        sketch.update((accelerator((30,), torch.int32), accelerator((30,), torch.bool)))
    assert sketch.rows_seen == 1200
    several = Categories()
    for _ in range(3):
        several.update(accelerator((30, 5), torch.bool))
        several.update((accelerator((30, 5), torch.bool), accelerator((30,), torch.bool)))
    with pytest.raises(InputError, match="on an accelerator are whole numbers"):
        sketch.update(accelerator((30,)))
    with pytest.raises(InputError, match="on an accelerator are whole numbers"):
        sketch.update(accelerator((30, 1), torch.int64))


# States


@pytest.mark.parametrize("values", [[], [3], list(range(100)), zipf(60_000)], ids=len)
def test_state_round_trip(values):
    sketch = seen(np.asarray(values, int), max_map_size=512)
    state = sketch.state()
    again = Categories.from_state(state)
    assert (again.n, again.max_map_size, again.error, again.distinct) == (
        len(values),
        512,
        sketch.error,
        sketch.distinct,
    )
    assert again.top(1000) == sketch.top(1000)
    again.update(["new"])
    assert again.n == sketch.n + 1
    assert all(np.array_equal(array, sketch.state()[key]) for key, array in state.items())


def test_datasketches_reads_and_merges_the_bytes():
    state = seen([1, 1, 2]).state()
    frequent = datasketches.frequent_strings_sketch.deserialize(state["frequent"].tobytes())
    assert frequent.get_estimate("1") == 2
    distinct = datasketches.hll_sketch.deserialize(state["distinct"].tobytes())
    assert distinct.get_estimate() == pytest.approx(2)
    union = datasketches.hll_union(12)
    union.update(distinct)
    assert union.get_estimate() == pytest.approx(2)


def other_bytes(**changes):
    return seen([1, 2, 2], max_map_size=64).state() | changes


def as_array(blob):
    return np.frombuffer(blob, np.uint8)


@pytest.mark.parametrize(
    "state",
    [
        {},
        other_bytes(max_map_size=np.array(63)),
        other_bytes(max_map_size=np.array(128)),
        other_bytes(max_map_size=np.array(2**30)),
        other_bytes(n=np.array(2)),
        other_bytes(n=np.array(-1)),
        other_bytes(n=np.array(0)),
        other_bytes(frequent=np.zeros(0, np.uint8)),
        other_bytes(frequent=np.zeros(100, np.uint8)),
        other_bytes(frequent=np.append(other_bytes()["frequent"], np.uint8(0))),
        other_bytes(distinct=np.zeros(8, np.uint8)),
        other_bytes(distinct=as_array(datasketches.hll_sketch(8, datasketches.tgt_hll_type.HLL_8).serialize_compact())),
        other_bytes(
            distinct=as_array(datasketches.hll_sketch(12, datasketches.tgt_hll_type.HLL_4).serialize_compact())
        ),
        other_bytes(
            distinct=as_array(datasketches.hll_sketch(12, datasketches.tgt_hll_type.HLL_8).serialize_compact())
        ),
        other_bytes(distinct=seen(range(9999)).state()["distinct"]),
        other_bytes(frequent=seen(range(50), max_map_size=64).state()["frequent"]),
    ],
)
def test_hostile_states_raise_our_error(state):
    with pytest.raises(FormatError):
        Categories.from_state(state)


@given(
    st.sampled_from(["frequent", "distinct"]),
    st.sampled_from([0, 1, 5, 40, 3000]),
    st.lists(st.tuples(st.integers(0, 63), st.integers(0, 255)), max_size=3),
    st.integers(0, 200),
)
@settings(max_examples=200, deadline=None)
def test_damaged_bytes_raise_our_error_or_give_a_sketch_that_answers(which, kinds, changes, cut):
    state = seen(np.arange(kinds), max_map_size=1024).state()
    blob = state[which].copy()
    for place, value in changes:
        blob[place % blob.size] = value
    state[which] = blob[: blob.size - cut] if cut > 100 else blob
    try:
        sketch = Categories.from_state(state)
    except FormatError:
        return
    sketch.update(["more"])
    sketch.merge(sketch)
    assert sketch.distinct >= 0
    assert sketch.error >= 0
    assert len(sketch.top(3)) <= 3
