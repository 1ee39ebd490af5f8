"""The row sample: uniform, whole rows, the same however the rows were cut into batches or merged."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.rows import RowSample, mixed, priorities, unmixed


def numbered(start, stop):
    """Rows that say which they are, in two arrays."""
    number = np.arange(start, stop, dtype=np.float32)
    return {"embeddings/avgpool": np.stack([number, -number, number % 7], axis=1), "labels": number}


def sampled(start, stop, size=20, seed=0):
    sample = RowSample(size, seed)
    sample.update(numbered(start, stop))
    return sample


def kept(sample):
    return sample.data["labels"][:, 0].astype(int).tolist()


def assert_same(a, b):
    assert (a.n, a.size, a.widths) == (b.n, b.size, b.widths)
    for name in a.widths:
        np.testing.assert_array_equal(a.data[name], b.data[name])


# Which rows


def test_all_rows_are_kept_while_there_is_room():
    sample = sampled(0, 20)
    assert sorted(kept(sample)) == list(range(20))
    assert {name: rows.shape for name, rows in sample.data.items()} == {
        "embeddings/avgpool": (20, 3),
        "labels": (20, 1),
    }
    assert all(rows.dtype == np.float32 for rows in sample.data.values())


def test_rows_stay_whole_across_names():
    sample = RowSample(50, seed=1)
    for start in range(0, 1000, 37):
        sample.update(numbered(start, start + 37))
    number, rows = sample.data["labels"][:, 0], sample.data["embeddings/avgpool"]
    assert len(set(number.tolist())) == 50
    np.testing.assert_array_equal(rows, np.stack([number, -number, number % 7], axis=1))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8), st.integers(1, 60), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_the_same_rows_however_they_are_cut_into_batches(sizes, size, seed):
    total, start, cut = sum(sizes), 0, RowSample(size, seed)
    for count in sizes:
        cut.update(numbered(start, start + count))
        start += count
    assert len(cut.data.get("labels", [])) == min(total, size)
    if total:
        assert_same(cut, sampled(0, total, size, seed))


@pytest.mark.parametrize("batch", [7, 100])
def test_every_row_is_as_likely_as_any_other(batch):
    rows, size, repeats, times = 100, 15, 400, np.zeros(100)
    for seed in range(repeats):
        sample = RowSample(size, seed)
        for start in range(0, rows, batch):
            sample.update({"labels": np.arange(start, min(start + batch, rows))})
        times[kept(sample)] += 1
    # Without replacement the counts vary less than a multinomial's, by the factor (rows - size) / (rows - 1).
    statistic = np.sum((times - repeats * size / rows) ** 2) / (repeats * size / rows) * (rows - 1) / (rows - size)
    assert 0.001 < stats.chi2.sf(statistic, rows - 1) < 0.999


def test_every_row_is_as_likely_after_merging_parts_of_different_lengths():
    times, repeats, size = np.zeros(100), 400, 15
    for seed in range(repeats):
        merged = sampled(0, 5, size, 3 * seed)
        merged.merge(sampled(5, 60, size, 3 * seed + 1))
        merged.merge(sampled(60, 100, size, 3 * seed + 2))
        times[kept(merged)] += 1
    statistic = np.sum((times - repeats * size / 100) ** 2) / (repeats * size / 100) * 99 / (100 - size)
    assert 0.001 < stats.chi2.sf(statistic, 99) < 0.999


def test_pairs_of_rows_are_kept_together_no_more_than_by_chance():
    together = sum({3, 4} <= set(kept(sampled(0, 40, 20, seed))) for seed in range(1000))
    assert stats.binomtest(together, 1000, 20 * 19 / (40 * 39)).pvalue > 0.001


def test_the_first_of_the_kept_rows_are_a_uniform_sample_too():
    firsts = np.bincount([kept(sampled(0, 10, 5, seed))[0] for seed in range(1000)], minlength=10)
    assert stats.chisquare(firsts).pvalue > 0.001


def test_priorities_are_uniform_different_and_unrelated_between_seeds():
    values = priorities(5, 0, 20_000)
    assert len(set(values.tolist())) == 20_000
    uniform = [priorities(seed, 0, 20_000) / 2**64 for seed in (5, 6, 2**64 - 1)]
    for sample in uniform:
        assert stats.kstest(sample, "uniform").pvalue > 0.001
    assert np.abs(np.corrcoef(uniform)[np.triu_indices(3, 1)]).max() < 0.03


def test_priorities_do_not_change_between_releases():
    assert priorities(0, 0, 2).tolist() == [16294208416658607535, 7960286522194355700]


# Merging


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.integers(1, 30), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_merging_is_associative_and_commutative(sizes, size, seed):
    ends = np.cumsum([0, *sizes])
    make = [lambda i=i: sampled(ends[i], ends[i + 1], size, seed + i) for i in range(3)]
    left, right, turned = make[0](), make[1](), make[2]()
    left.merge(make[1]())
    left.merge(make[2]())
    right.merge(make[2]())
    first = make[0]()
    first.merge(right)
    turned.merge(make[1]())
    turned.merge(make[0]())
    assert_same(left, first)
    assert_same(left, turned)
    assert len(kept(left)) == min(sum(sizes), size) if sum(sizes) else not left.data


def test_merging_leaves_the_other_as_it_is_and_shares_nothing_with_it():
    a, b = RowSample(20, 1), sampled(0, 15)
    before = b.data["labels"].copy()
    a.merge(b)
    a.update(numbered(15, 100))
    np.testing.assert_array_equal(b.data["labels"], before)
    b.update(numbered(100, 200))
    assert max(kept(a)) < 100


def test_a_merged_sample_goes_on_drawing_new_priorities():
    merged = sampled(0, 30, seed=0)
    merged.merge(sampled(30, 60, seed=1))
    merged.update(numbered(60, 4000))
    assert (merged.n, len(set(kept(merged)))) == (4000, 20)


def test_samples_that_do_not_fit_are_not_merged():
    sample = sampled(0, 30)
    with pytest.raises(InputError, match="size 20 and of size 21"):
        sample.merge(sampled(0, 5, size=21))
    other = RowSample(20)
    other.update({"labels": np.zeros((3, 2))})
    with pytest.raises(InputError, match="cannot merge row samples of"):
        sample.merge(other)
    assert sample.n == 30


# What is kept of a row


def test_values_are_kept_as_they_come():
    sample = RowSample(5)
    sample.update({"a": np.array([[np.nan, np.inf], [1e300, -0.0]]), "b": torch.tensor([7, 2**24])})
    rows = sample.data["a"][np.argsort(sample.data["b"][:, 0])]
    np.testing.assert_array_equal(rows, np.array([[np.nan, np.inf], [np.inf, -0.0]], np.float32))
    assert sorted(sample.data["b"][:, 0]) == [7, 2**24]


def test_a_batch_may_be_overwritten_after_the_update():
    batch = {"a": np.ones((4, 2), np.float32)}
    sample = RowSample(10)
    sample.update(batch)
    batch["a"][:] = 5
    assert sample.data["a"].max() == 1


@pytest.mark.parametrize(
    ("rows", "n", "message"),
    [
        ({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, None, "same number of rows"),
        ({"a": np.zeros((3, 2))}, 4, "same number of rows"),
        ({}, None, "same number of rows"),
        ({"a": np.zeros((3, 2, 2))}, None, "'a' should be"),
        ({"a": np.float64(3)}, None, "'a' should be"),
    ],
)
def test_wrong_batches_are_refused(rows, n, message):
    with pytest.raises(InputError, match=message):
        RowSample().update(rows, n)


def test_names_and_widths_are_fixed_by_the_first_batch():
    sample = RowSample(10)
    sample.update({"a": np.zeros((0, 9))})  # a batch of nothing fixes nothing
    sample.update({"a": np.zeros((3, 2))}, n=3)
    for rows in ({"a": np.zeros((3, 3))}, {"b": np.zeros((3, 2))}, {"a": np.zeros((3, 2)), "b": np.zeros(3)}):
        with pytest.raises(InputError, match="names and widths of the first batch"):
            sample.update(rows)
    assert sample.n == 3


@pytest.mark.parametrize("kwargs", [{"size": 0}, {"size": 2.0}, {"size": 2**25}, {"seed": -1}, {"seed": 2**64}])
def test_parameters_out_of_range_are_refused(kwargs):
    with pytest.raises(InputError, match=next(iter(kwargs))):
        RowSample(**kwargs)


def test_no_global_random_numbers_are_used_and_unseeded_samples_differ():
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002 - it must stay untouched
    samples = [sampled(0, 500, seed=None) for _ in range(2)]
    assert kept(samples[0]) != kept(samples[1])
    assert np.array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())


# On an accelerator. Tensors in host memory take the same way when handed to the inner function.


def as_tensors(rows):
    return {name: torch.from_numpy(array.reshape(len(array), -1).copy()) for name, array in rows.items()}


def test_tensors_and_arrays_keep_the_same_rows():
    tensors, arrays = RowSample(20, 3), RowSample(20, 3)
    for start in range(0, 300, 30):
        rows = numbered(start, start + 30)
        arrays.update(rows)
        tensors._update(as_tensors(rows))
    assert all(isinstance(buffer, torch.Tensor) for buffer in tensors._buffers.values())
    on_host = tensors.to_host()
    assert all(isinstance(buffer, np.ndarray) for buffer in on_host._buffers.values())
    assert_same(on_host, arrays)
    assert_same(tensors, arrays)
    assert on_host.to_host() is on_host


def test_a_sample_read_from_its_state_goes_on_with_tensors_and_mixed_devices():
    straight, resumed = sampled(0, 100, seed=4), RowSample.from_state(sampled(0, 50, seed=4).state())
    later = {name: array.reshape(50, -1) for name, array in numbered(50, 100).items()}
    resumed._update(as_tensors(later) | {"labels": later["labels"]})
    assert isinstance(resumed._buffers["embeddings/avgpool"], torch.Tensor)
    assert isinstance(resumed._buffers["labels"], np.ndarray)
    assert_same(resumed, straight)
    more = {name: array.reshape(50, -1) for name, array in numbered(100, 150).items()}
    resumed._update(more)  # rows on the host, buffer elsewhere
    straight.update(more)
    assert_same(resumed, straight)


def test_training_and_inference_mode_may_alternate():
    sample = RowSample(20, 3)
    for step in range(60):
        with torch.inference_mode(step % 2 == 0):
            sample._update(as_tensors(numbered(5 * step, 5 * step + 5)))
    assert_same(sample, sampled(0, 300, seed=3))


def test_an_accelerator_is_never_waited_for(accelerator):
    sample = RowSample(size=50, seed=0)
    for _ in range(10):
        sample.update(
            {"inputs": accelerator((16, 5)), "half": accelerator((16, 2), torch.float16), "labels": np.zeros(16)}
        )
    assert sample.n == 160
    assert sample._buffers["inputs"].device.type == "cuda"
    assert sample._buffers["half"].dtype == torch.float32
    assert isinstance(sample._buffers["labels"], np.ndarray)


# States


@pytest.mark.parametrize("rows", [0, 7, 20, 300])
def test_state_round_trip_goes_on_as_the_original(rows):
    sample = sampled(0, rows, seed=9)
    state = sample.state()
    again = RowSample.from_state(state)
    assert again.seed == sample.seed
    assert_same(again, sample)
    for each in (again, sample):
        each.update(numbered(rows, rows + 100))
    assert_same(again, sample)
    assert all(array.dtype.kind in "uif" for array in state.values())


def damaged(**changes):
    return sampled(0, 30).state() | changes


def names(value):
    return np.frombuffer(value if isinstance(value, bytes) else json.dumps(value).encode(), np.uint8)


@pytest.mark.parametrize(
    "state",
    [
        {},
        damaged(size=np.array(0)),
        damaged(size=np.array(2**40)),
        damaged(size=np.array(19)),
        damaged(n=np.array(19)),
        damaged(n=np.array(0)),
        damaged(seed=np.array(3)),
        damaged(priorities=np.arange(20)[::-1].astype(np.uint64)),
        damaged(priorities=np.arange(19, dtype=np.uint64)),
        damaged(rows=np.zeros((20, 3), np.float32)),
        damaged(rows=np.zeros((20, 4))),
        damaged(widths=np.array([5, -1])),
        damaged(widths=np.array([4])),
        damaged(widths=np.array([2**62, 2**62])),
        damaged(names=names(["a"])),
        damaged(names=names(["a", "a"])),
        damaged(names=names(["a", 1])),
        damaged(names=names({"a": 1, "b": 2})),
        damaged(names=names(b"\xff\xfe")),
        damaged(names=names(b"[" * 100_000)),
        damaged(names=names(b"")),
    ],
)
def test_hostile_states_raise_our_error(state):
    with pytest.raises(FormatError):
        RowSample.from_state(state)


def test_a_state_that_announces_a_huge_sample_takes_no_memory_for_it():
    state = sampled(0, 5).state() | {"size": np.array(2**24)}
    assert RowSample.from_state(state)._buffers["labels"].nbytes == 5 * 4


# Which rows came one after another


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_unmixed_inverts_mixed(numbers):
    bits = np.array(numbers, np.uint64)
    np.testing.assert_array_equal(unmixed(mixed(bits)), bits)
    np.testing.assert_array_equal(mixed(unmixed(bits)), bits)


def pairs_of(sample):
    """What `numbers` says of which rows are successive, as numbers of rows by their source."""
    numbers = sample.numbers
    assert numbers.dtype == np.uint64
    assert numbers.shape == (min(sample.n, sample.size),)
    if not sample.n:
        return []
    order = np.argsort(numbers)
    after = np.flatnonzero(np.diff(numbers[order]) == 1) + 1
    earlier, later = order[after - 1], order[after]
    source, number = (sample.data[name][:, 0].astype(int) for name in ("source", "labels"))
    return sorted(zip(source[earlier], number[earlier], source[later], number[later], strict=True))


def really_successive(sample):
    """The same of rows that say from which source they are, and which number they have there."""
    if not sample.n:
        return []
    source, number = (sample.data[name][:, 0].astype(int) for name in ("source", "labels"))
    here = set(zip(source, number, strict=True))
    return sorted((s, n, s, n + 1) for s, n in here if (s, n + 1) in here)


def of_source(source, count, size, seed, batch=7, before=0):
    sample = RowSample(size, seed)
    for start in range(0, count, batch):
        number = np.arange(start, min(start + batch, count), dtype=np.float32) + before
        sample.update({"source": np.full(len(number), source), "labels": number})
    return sample


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=4),
    st.sampled_from([1, 2, 10, 40, 500]),
    st.integers(0, 2**64 - 10),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_numbers_are_successive_of_exactly_the_rows_that_came_one_after_another(counts, size, seed, stored, renamed):
    merged = RowSample(size, seed)
    for source, count in enumerate(counts):
        sample = of_source(source, count, size, seed + source)
        merged.merge(RowSample.from_state(sample.state()) if stored else sample)
    if renamed and merged.n:
        merged = merged.renamed({"labels": "number", "source": "from"}).renamed({"number": "labels", "from": "source"})
    if stored:
        merged = RowSample.from_state(merged.state())
    assert pairs_of(merged) == really_successive(merged)
    if sum(counts) <= size:
        assert len(pairs_of(merged)) == sum(max(count - 1, 0) for count in counts)


@given(st.lists(st.integers(0, 30), min_size=2, max_size=5), st.sampled_from([5, 40, 500]), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_samples_that_follow_one_another_are_as_one(counts, size, seed):
    """Also the same rows are kept: their priorities are those of one sample that has seen all."""
    samples, before = [], 0
    for count in counts:
        sample = RowSample(size, seed)
        if samples:
            sample.follow(samples[-1])
        for start in range(before, before + count, 7):
            number = np.arange(start, min(start + 7, before + count), dtype=np.float32)
            sample.update({"source": np.zeros(len(number)), "labels": number})
        samples.append(RowSample.from_state(sample.state()))
        before += count
    merged = samples[0]
    for sample in samples[1:]:
        merged.merge(sample)
    whole = of_source(0, before, size, seed)
    assert pairs_of(merged) == pairs_of(whole) == really_successive(merged)
    if before:
        assert_same(merged, whole)


def test_what_follows_a_merged_sample_is_no_successor_of_either():
    first, second = of_source(0, 20, 100, 1), of_source(1, 30, 100, 2)
    first.merge(second)
    third = RowSample(100, 3)
    third.follow(first)
    third.update({"source": np.full(5, 2), "labels": np.arange(5)})
    first.merge(third)
    assert len(pairs_of(first)) == 19 + 29 + 4
    assert pairs_of(first) == really_successive(first)


def test_rows_of_one_sample_are_numbered_as_they_came():
    """Also where most are not kept: a number is as far from another as their rows were."""
    sample = sampled(0, 300, 20, seed=2**64 - 1)
    order = np.argsort(sample.numbers - sample.numbers.min())
    assert np.diff(sample.numbers[order]).tolist() == np.diff(np.array(kept(sample))[order]).tolist()


def test_numbers_of_tensors_and_of_none():
    assert RowSample(5, 0).numbers.tolist() == []
    on_host, as_tensor = RowSample(30, 4), RowSample(30, 4)
    for start in range(0, 40, 8):
        number = np.arange(start, start + 8, dtype=np.float32)
        on_host.update({"source": number * 0, "labels": number})
        as_tensor.update({"source": torch.from_numpy(number * 0), "labels": torch.from_numpy(number)})
    assert pairs_of(as_tensor) == pairs_of(on_host) == really_successive(on_host)
