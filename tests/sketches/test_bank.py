"""KLLBank as its users meet it: rows in, quantiles out, merges, and what it refuses."""

from __future__ import annotations

from typing import Any

import datasketches as ds
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.bank import (
    BLOCK,
    DEPTH,
    HIGHEST_ENTRY,
    LEAST,
    KLLBank,
    Levels,
    PendingRows,
    checked_rows,
    offsets,
    stream_keys,
    thin,
)
from lensai_integrations.sketches.weighted import total_weight

RANKS = np.arange(1, 100) / 100


def normal(n: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def bank_of(rows: np.ndarray, k: int = 200, seed: int = 0) -> KLLBank:
    bank = KLLBank(rows.shape[1], k, seed)
    bank.update(rows)
    return bank


def largest_error(bank: KLLBank, rows: np.ndarray) -> np.ndarray:
    """Largest distance, per stream and over 99 ranks, of a rank from the true ranks of the quantile given for it."""
    estimates, errors = bank.quantiles(RANKS), []
    for column, values in zip(rows.T, estimates, strict=True):
        ordered = np.sort(column)
        low = np.searchsorted(ordered, values, side="left") / len(rows)
        high = np.searchsorted(ordered, values, side="right") / len(rows)
        errors.append(np.maximum(0, np.maximum(low - RANKS, RANKS - high)).max())
    return np.array(errors)


def assert_sound(bank: KLLBank, rows: np.ndarray) -> None:
    """All that holds exactly, whatever happened to the bank, and the error bound."""
    assert bank.n == len(rows)
    np.testing.assert_array_equal(bank.min, rows.min(axis=0))
    np.testing.assert_array_equal(bank.max, rows.max(axis=0))
    values, weights = bank.sorted_view()
    assert (weights.sum(axis=1) == len(rows)).all()
    assert (values[:, 1:] >= values[:, :-1]).all()
    assert largest_error(bank, rows).max() <= bank.rank_error


def assert_equal(a: KLLBank, b: KLLBank) -> None:
    assert a.state().keys() == b.state().keys()
    for name, array in a.state().items():
        np.testing.assert_array_equal(array, b.state()[name], err_msg=name)


@pytest.mark.parametrize("n", [1, 2, 17, 511, 512])
def test_few_rows_are_kept_exactly(n: int) -> None:
    rows = normal(n)
    bank = bank_of(rows)
    np.testing.assert_array_equal(bank.sorted_view()[0], np.sort(rows.T, axis=1))
    ranks = np.arange(9) / 8
    np.testing.assert_array_equal(bank.quantiles(ranks), np.quantile(rows, ranks, axis=0, method="inverted_cdf").T)


@pytest.mark.parametrize("n", [513, 1000, 1024, 1025, 4000, 20_000, 150_000])
def test_many_rows_are_within_the_error(n: int) -> None:
    rows = normal(n, dim=20)
    assert_sound(bank_of(rows), rows)


SHAPES = {
    "sorted": lambda rows: np.sort(rows, axis=0),
    "descending": lambda rows: -np.sort(rows, axis=0),
    "constant": lambda rows: np.full_like(rows, 3),
    "tied": np.round,
    "two values": lambda rows: (rows > 1).astype(np.float32),
    "lognormal": lambda rows: np.exp(3 * rows),
    "zigzag": lambda rows: np.where(np.arange(len(rows))[:, None] % 2, 1, -1) * np.sort(np.abs(rows), axis=0),
    "huge": lambda rows: np.sign(rows) * np.float32(3e38),
    "denormal": lambda rows: rows * np.float32(1e-41),
}


@pytest.mark.parametrize("name", SHAPES)
def test_streams_of_every_shape(name: str) -> None:
    rows = SHAPES[name](normal(6000, dim=5)).astype(np.float32)
    assert_sound(bank_of(rows), rows)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_split_into_updates_and_merges(data: st.DataObject) -> None:
    """A stream cut anywhere, pieces updated into banks in turn or merged as banks of their own, in any order."""
    n = data.draw(st.integers(1, 4000))
    rows = normal(n, dim=4, seed=data.draw(st.integers(0, 99)))
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    pieces = np.split(rows, cuts)
    bank = KLLBank(4, seed=1)
    for number, piece in enumerate(pieces):
        match data.draw(st.sampled_from(["update", "merge", "into", "compact", "bytes", "state"])):
            case "update":
                bank.update(piece)
            case "merge":
                bank.merge(bank_of(piece, seed=number + 2))
            case "into":
                other = bank_of(piece, seed=number + 2)
                other.merge(bank)
                bank = other
            case "compact":
                bank.merge(bank_of(piece).compact())
            case "bytes":
                bank.merge(KLLBank.from_bytes(bank_of(piece).to_bytes()))
            case "state":
                bank.merge(KLLBank.from_state(bank_of(piece).state()))
    assert bank.rows_seen == n
    assert_sound(bank, rows)


def test_merging_with_nothing_and_with_itself() -> None:
    rows = normal(3000)
    bank = bank_of(rows)
    bank.merge(KLLBank(3))
    assert_sound(bank, rows)
    bank.merge(bank)
    assert_sound(bank, np.concatenate([rows, rows]))
    empty = KLLBank(3)
    empty.merge(bank_of(rows))
    assert_sound(empty, rows)


def test_merging_many_windows_keeps_the_error_of_one_bank() -> None:
    rows = normal(64_000, dim=10)
    merged = KLLBank(10, seed=1)
    for window in np.split(rows, 80):
        merged.merge(bank_of(window, seed=int(window[0, 0] * 1e6) & 0xFFFF))
    assert_sound(merged, rows)
    assert largest_error(merged, rows).mean() < 0.005


@pytest.mark.parametrize(("dim", "k"), [(2, 200), (3, 100)])
def test_merging_other_banks_is_refused(dim: int, k: int) -> None:
    with pytest.raises(InputError, match=f"same dim and k can be merged, got dim=3, k=200 and dim={dim}, k={k}"):
        KLLBank(3).merge(KLLBank(dim, k))


def test_empty_bank_answers_nan() -> None:
    bank = KLLBank(2)
    bank.update(np.empty((0, 2)))
    assert (bank.n, bank.invalid, bank.rows_seen) == (0, 0, 0)
    for answer in (bank.min, bank.max, bank.quantiles([0, 0.5, 1]), bank.cdf([0.0])):
        assert len(answer) == 2
        assert np.isnan(answer).all()
    assert [part.shape for part in bank.sorted_view()] == [(2, 0), (2, 0)]


def test_ends_are_exact_and_ranks_of_0_and_1_give_them() -> None:
    rows = normal(9000)
    bank = bank_of(rows)
    np.testing.assert_array_equal(bank.quantiles([0.0, 1.0]), np.stack([rows.min(axis=0), rows.max(axis=0)], axis=1))


def test_cdf_is_inclusive_and_takes_points_per_stream() -> None:
    rows = np.array([[1, 10], [2, 20], [2, 30], [4, 40]])
    bank = bank_of(rows)
    np.testing.assert_array_equal(bank.cdf([2, 30]), [[0.75, 1], [0, 0.75]])
    np.testing.assert_array_equal(bank.cdf([[0, 2], [10, np.nan]]), [[0, 0.75], [0.25, np.nan]])
    assert bank.cdf([2]).dtype == np.float64
    assert bank.quantiles([0.5]).dtype == bank.min.dtype == np.float32


def test_cdf_and_quantiles_belong_together() -> None:
    bank = bank_of(normal(30_000))
    quantiles = bank.quantiles(RANKS)
    heaviest = bank.sorted_view()[1].max() / bank.n
    assert (bank.cdf(quantiles) >= RANKS - 1e-12).all()
    assert (bank.cdf(quantiles) < RANKS + heaviest).all()


@pytest.mark.parametrize("k", [8, 50, 200, 1000, 65535])
def test_rank_error_is_that_of_datasketches(k: int) -> None:
    assert KLLBank(1, k).rank_error == pytest.approx(ds.kll_floats_sketch.get_normalized_rank_error(k, False))


@pytest.mark.parametrize("k", [8, 100, 400, 3000])
def test_every_k(k: int) -> None:
    rows = normal(20_000, dim=8)
    bank = bank_of(rows, k)
    assert bank.k == k
    assert_sound(bank, rows)
    assert largest_error(bank, rows).max() < 2.5 / max(512, 2.5 * k)


def test_error_is_half_of_that_of_datasketches() -> None:
    rows = normal(50_000, dim=40)
    theirs = ds.vector_of_kll_floats_sketches(200, 40)
    theirs.update(rows)
    reference = KLLBank.from_bytes(theirs.serialize())
    assert largest_error(bank_of(rows), rows).mean() < 0.6 * largest_error(reference, rows).mean()


def test_seed_decides() -> None:
    rows = normal(3000, dim=8)
    assert_equal(bank_of(rows, seed=7), bank_of(rows, seed=7))
    assert (bank_of(rows, seed=7).sorted_view()[0] != bank_of(rows, seed=8).sorted_view()[0]).any()
    drawn = [KLLBank(8), KLLBank(8)]
    assert drawn[0].state()["seed"] != drawn[1].state()["seed"]


def test_random_numbers_of_others_are_not_touched() -> None:
    legacy, tensor = np.random.get_state()[1].copy(), torch.random.get_rng_state().clone()  # noqa: NPY002
    bank = bank_of(normal(4000))
    bank.merge(bank_of(normal(4000)))
    bank.to_bytes()
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), tensor)


def test_asking_changes_nothing() -> None:
    rows = normal(5000)
    asked, silent = KLLBank(3, seed=0), KLLBank(3, seed=0)
    for piece in np.split(rows, 50):
        asked.update(piece)
        silent.update(piece)
        asked.quantiles([0.5])
        asked.cdf([0.0])
        asked.to_bytes()
        asked.state()
        assert asked.n == asked.rows_seen
    assert_equal(asked, silent)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"])
def test_dtypes(dtype: str) -> None:
    rows = (normal(700) * 5).astype(dtype)
    assert_equal(bank_of(rows), bank_of(rows.astype(np.float32)))


@pytest.mark.parametrize(
    "view",
    [lambda r: r[::2], lambda r: r[::-1], np.asfortranarray, lambda r: r[:, ::-1], lambda r: r[:, 1:3]],
)
def test_layouts(view: Any) -> None:
    rows = normal(3000, dim=4)
    assert_equal(bank_of(view(rows)), bank_of(np.ascontiguousarray(view(rows))))


def test_lists_are_rows_too() -> None:
    bank = KLLBank(2)
    bank.update([[1, 2], [3, 4]])
    assert bank.max.tolist() == [3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32])
def test_torch_tensors_in_host_memory_equal_numpy(dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(normal(2000) * 5).to(dtype)
    bank = KLLBank(3, seed=0)
    bank.update(tensor)
    assert_equal(bank, bank_of(tensor.float().numpy()))


def test_torch_tensors_that_need_gradients_or_are_not_contiguous() -> None:
    tensor = torch.from_numpy(normal(2000).T.copy()).requires_grad_().T
    bank = KLLBank(3, seed=0)
    bank.update(tensor)
    assert_equal(bank, bank_of(normal(2000)))


@pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((4, 2)), np.zeros((1, 2, 3)), np.float32(1)])
def test_rows_of_another_shape_are_refused_and_not_counted(rows: Any) -> None:
    bank = KLLBank(3)
    with pytest.raises(InputError, match=r"rows must be \[n, 3\] for a bank of 3 streams"):
        bank.update(rows)
    assert bank.rows_seen == 0


@pytest.mark.parametrize("rows", [[["a", "b", "c"]], [[None, 1, 2]], np.zeros((2, 3), complex), "text"])
def test_rows_that_are_no_numbers_are_refused(rows: Any) -> None:
    with pytest.raises(InputError):
        KLLBank(3).update(rows)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"dim": 0}, "dim must be a whole number from 1 to 1048576, got 0"),
        ({"dim": 2.5}, "dim must be a whole number"),
        ({"dim": True}, "dim must be a whole number"),
        ({"dim": 2, "k": 7}, "k must be a whole number from 8 to 65535, got 7"),
        ({"dim": 2, "k": 65536}, "k must be"),
        ({"dim": 2, "seed": -1}, "seed must be"),
        ({"dim": 2, "seed": "0"}, "seed must be a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        KLLBank(**arguments)


INVALID = [np.nan, np.inf, -np.inf, 1e39, -1e300]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3, 0.99])
def test_invalid_rows_are_left_out_and_counted_exactly(share: float) -> None:
    rng = np.random.default_rng(0)
    rows = normal(5000, dim=6).astype(np.float64)
    bad = rng.random(5000) < share
    rows[bad, rng.integers(0, 6, bad.sum())] = rng.choice(INVALID, bad.sum())
    bank = KLLBank(6, seed=0)
    for piece in np.split(rows, 100):
        bank.update(piece)
    assert (bank.invalid, bank.rows_seen) == (bad.sum(), 5000)
    assert_sound(bank, rows[~bad].astype(np.float32))


def test_invalid_rows_are_known_at_once() -> None:
    bank = KLLBank(2)
    bank.update(np.array([[1, 2], [np.nan, 3]]))
    assert (bank.n, bank.invalid, bank.max.tolist()) == (1, 1, [1, 2])
    bank.update(np.array([[np.inf, 2]]))
    assert (bank.n, bank.invalid) == (1, 2)


def test_nothing_but_invalid_rows() -> None:
    bank = bank_of(np.full((3000, 2), np.nan))
    assert (bank.n, bank.invalid) == (0, 3000)
    assert np.isnan(bank.quantiles([0.5])).all()
    assert bank.to_bytes() == KLLBank(2).to_bytes()


def test_merging_adds_invalid_rows() -> None:
    rows = normal(2000)
    rows[::10] = np.nan
    bank, other = bank_of(rows), bank_of(rows[:999])
    bank.merge(other)
    assert (bank.n, bank.invalid, bank.rows_seen) == (1800 + 899, 200 + 100, 2999)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k", np.array(5)),
        ("k", np.array(200.0)),
        ("k", np.array([200])),
        ("min_k", np.array(201)),
        ("min_k", np.array(0)),
        ("invalid", np.array(-1)),
        ("low", np.zeros(0, np.float32)),
        ("low", np.zeros(2, np.float32)),
        ("low", np.full(3, np.nan, np.float32)),
        ("low", np.full(3, 1, np.float32)),
        ("high", np.full(3, -1, np.float32)),
        ("high", np.zeros(4, np.float32)),
        ("high", None),
        ("pending", np.zeros((513, 3), np.float32)),
        ("pending", np.zeros((5, 2), np.float32)),
        ("pending", np.full((5, 3), np.inf, np.float32)),
        ("pending", np.zeros((5, 3))),
        ("items", np.zeros((3, 255), np.float32)),
        ("sizes", np.array([0, -256])),
    ],
)
def test_damaged_state_is_refused(name: str, value: Any) -> None:
    with pytest.raises(FormatError):
        KLLBank.from_state(bank_of(normal(600)).state() | {name: value})


# Compaction keeps what a plain sort would give; its choices are unbiased, paired, and the same on every device.


def offset_table(stride: int, counts: range, dim: int = 4000, seed: int = 1, level: int = 3) -> np.ndarray:
    keys = stream_keys(seed, dim)
    return np.stack([offsets(keys, level, count, stride) for count in counts])


@pytest.mark.parametrize("stride", [2, 4, 32])
def test_offsets_are_uniform(stride: int) -> None:
    table = offset_table(stride, range(0, 20, 2))
    assert table.min() >= 0
    assert table.max() < stride
    assert stats.chisquare(np.bincount(table.ravel(), minlength=stride)).pvalue > 1e-4


def test_offsets_of_a_pair_mirror_each_other() -> None:
    table = offset_table(8, range(10))
    np.testing.assert_array_equal(table[0::2] + table[1::2], 7)


def test_offsets_are_independent_across_pairs_streams_levels_and_seeds() -> None:
    bits = offset_table(2, range(0, 40, 2))
    others = [
        bits[1:],  # the next pair
        np.roll(bits, 1, axis=1),  # the next stream
        offset_table(2, range(0, 40, 2), level=4),
        offset_table(2, range(0, 40, 2), seed=2),
    ]
    for other in others:
        agree = int((bits[: len(other)] == other).sum())
        assert stats.binomtest(agree, other.size, 0.5).pvalue > 1e-4


def test_offsets_are_the_same_in_torch() -> None:
    keys = stream_keys(seed=5, dim=100)
    for level, count, stride in [(0, 0, 32), (1, 7, 2), (40, 123, 2)]:
        expected = offsets(keys, level, count, stride)
        np.testing.assert_array_equal(offsets(torch.from_numpy(keys), level, count, stride).numpy(), expected)


def test_mirrored_strides_may_differ() -> None:
    """The stride of rows entering grows with n, maybe within a pair: the offsets still move in opposite directions."""
    keys = stream_keys(0, 5000)
    first, second = offsets(keys, 0, 4, 2), offsets(keys, 0, 5, 4)
    assert np.corrcoef(first, second)[0, 1] < -0.3


def thinned_by_hand(items: np.ndarray, stride: int, offset: np.ndarray) -> np.ndarray:
    return np.stack([sorted(row)[start::stride] for row, start in zip(items.tolist(), offset, strict=True)])


@settings(max_examples=50, deadline=None)
@given(
    dim=st.integers(1, 40),
    blocks=st.integers(1, 30),
    stride=st.sampled_from([1, 2, 8]),
    seed=st.integers(0, 1000),
    library=st.sampled_from(["numpy", "torch"]),
)
def test_thin_keeps_every_stride_th_sorted_item(dim: int, blocks: int, stride: int, seed: int, library: str) -> None:
    rng = np.random.default_rng(seed)
    items = rng.integers(-50, 50, (dim, blocks * stride)).astype(np.float32)
    offset = rng.integers(0, stride, dim)
    before, out = items.copy(), np.empty((dim, blocks), np.float32)
    convert = torch.from_numpy if library == "torch" else np.asarray
    low, high = thin(convert(items), stride, convert(offset), convert(out))
    np.testing.assert_array_equal(out, thinned_by_hand(items, stride, offset))
    np.testing.assert_array_equal(low, items.min(axis=1))
    np.testing.assert_array_equal(high, items.max(axis=1))
    np.testing.assert_array_equal(items, before)


def test_thin_reads_columns_of_rows_across_blocks() -> None:
    """More streams than one block has, as a transposed view, into part of a larger array."""
    width = 512
    dim = 2 * (BLOCK // width) + 3
    rows = np.random.default_rng(0).standard_normal((width, dim + 16), np.float32)[:, :dim]
    level = np.zeros((dim, 300), np.float32)
    offset = np.arange(dim) % 4
    thin(rows.T, 4, offset, level[:, 100:228])
    np.testing.assert_array_equal(level[:, 100:228], thinned_by_hand(rows.T, 4, offset))
    assert not level[:, :100].any()
    assert not level[:, 228:].any()


def test_thin_of_one_very_wide_stream() -> None:
    items = np.random.default_rng(0).permutation(np.arange(4 * BLOCK, dtype=np.float32))[None]
    out = np.empty((1, 2 * BLOCK), np.float32)
    thin(items, 2, np.array([1]), out)
    np.testing.assert_array_equal(out[0], np.arange(1, 4 * BLOCK, 2))


def test_thin_passes_over_nan_in_the_ends() -> None:
    items = torch.tensor([[3.0, torch.nan, 1.0, 2.0], [-1.0, torch.nan, -3.0, -2.0]])
    out = torch.empty((2, 2))
    low, high = thin(items, 2, torch.tensor([0, 1]), out, torch.tensor([3]))
    assert (low.tolist(), high.tolist()) == ([1.0, -3.0], [3.0, -1.0])
    np.testing.assert_array_equal(out.numpy(), [[1.0, 3.0], [-2.0, np.nan]])
    low, high = thin(torch.full((2, 4), torch.nan), 2, torch.tensor([0, 1]), out, torch.tensor([0]))
    assert torch.isnan(torch.stack([low, high])).all()


def rank_errors(ranks: np.ndarray, stride: int, offset: int) -> np.ndarray:
    """Estimated minus true rank after thinning 0..63, for a value with so many items at or below it."""
    kept = np.arange(offset, 64, stride)
    return np.array([stride * int((kept < rank).sum()) - rank for rank in ranks])


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_every_rank_is_estimated_without_bias(stride: int) -> None:
    ranks = np.arange(65)
    errors = np.stack([rank_errors(ranks, stride, offset) for offset in range(stride)])
    np.testing.assert_array_equal(errors.mean(axis=0), 0)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_mirrored_pair_is_never_worse_than_independent_offsets(stride: int) -> None:
    """For every pair of ranks that a value may have in two compactions: the errors do not add up, and mostly cancel."""
    ranks = np.arange(stride)
    errors = np.stack([rank_errors(ranks, stride, offset) for offset in range(stride)])
    covariance = errors.T @ errors[::-1] / stride
    assert covariance.max() <= 0
    alone = (errors**2).mean(axis=0)
    pair = alone[:, None] + alone[None, :] + 2 * covariance
    assert pair.mean() == pytest.approx((alone[:, None] + alone[None, :]).mean() / 2)


# Levels keep the total weight through every step, stay few, and are read back exactly or refused.

LIKE = np.empty(0, np.float32)


def columns(dim: int, seed: int = 0, width: int = LEAST) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((dim, width)).astype(np.float32)


def filled(blocks: int, dim: int = 2, seed: int = 0) -> Levels:
    levels = Levels(dim, 200, seed)
    for block in range(blocks):
        levels.enter(columns(dim, block))
    return levels


def add(levels: Levels, level: int, width: int) -> None:
    levels.room(level, width, LIKE)[...] = columns(levels.dim, level, width)


@pytest.mark.parametrize(
    ("k", "capacity"), [(8, 512), (200, 512), (204, 512), (205, 1024), (400, 1024), (65535, 1 << 18)]
)
def test_capacity_is_at_least_two_and_a_half_k(k: int, capacity: int) -> None:
    assert Levels(1, k, 0).capacity == capacity >= min(2.5 * k, capacity)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 9, 40, 300])
def test_entering_keeps_the_weight_and_fills_no_level_over(blocks: int) -> None:
    sizes, items = filled(blocks).laid_out()
    assert total_weight(sizes) == blocks * LEAST
    assert items.shape == (2, sum(sizes))
    assert max(sizes) <= LEAST


def test_levels_stay_few_and_free_what_they_do_not_use() -> None:
    levels = Levels(1, 200, 0)
    for block in range(2000):
        levels.enter(columns(1, block))
        top = max(levels.sizes)
        entry = min(max(1, top - DEPTH + 1), HIGHEST_ENTRY)
        assert len(levels.items) <= top - entry + 3  # those above the entry, and one not emptied before the next block
    assert top == 10  # a million rows in items of 2**10 at most


def test_everything_kept_was_given() -> None:
    levels = Levels(2, 200, 0)
    blocks = [columns(2, seed) for seed in range(30)]
    for block in blocks:
        levels.enter(block)
    given_values = np.concatenate(blocks, axis=1)
    items = levels.laid_out()[1]
    for stream in range(2):
        assert np.isin(items[stream], given_values[stream]).all()
        assert len(np.unique(items[stream])) == items.shape[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 700)), min_size=1, max_size=25))
def test_any_widths_at_any_levels_keep_the_weight(steps: list[tuple[int, int]]) -> None:
    levels = Levels(1, 200, 0)
    expected = 0
    for level, width in steps:
        add(levels, level, width)
        expected += width << level
        assert total_weight(levels.laid_out()[0]) == expected
    levels.enter(columns(1))
    sizes, items = levels.laid_out()
    assert total_weight(sizes) == expected + LEAST
    assert not np.isnan(items).any()


def test_the_odd_item_stays_behind() -> None:
    levels = Levels(1, 200, 0)
    add(levels, 1, 511)
    given_values = levels.items[1][0, :511].copy()
    add(levels, 1, 100)
    assert levels.sizes == {1: 101, 2: 255}
    stayed, pushed = levels.items[1][0, 0], levels.items[2][0, :255]
    assert stayed == given_values[0]
    others = np.sort(given_values[1:])
    assert pushed.tolist() in (others[0::2].tolist(), others[1::2].tolist())


def test_low_levels_are_emptied_and_freed() -> None:
    levels = filled(60)
    add(levels, 1, 101)
    levels.enter(columns(2))
    assert levels.sizes[1] == 1
    assert levels.items[1].shape == (2, 1)
    add(levels, 1, 7)
    assert levels.sizes[1] == 8


def test_withdrawing_takes_back_exactly_what_entered() -> None:
    levels = Levels(2, 200, 0)
    levels.enter(columns(2))
    levels.withdraw()
    assert levels.laid_out()[0] == []
    levels = filled(7)
    before, items = levels.laid_out()
    levels.enter(columns(2, 99))
    levels.withdraw()
    after = levels.laid_out()
    assert total_weight(after[0]) == total_weight(before)
    assert np.isin(after[1], items).all()


def test_streams_of_a_bank_are_independent_of_each_other() -> None:
    """A stream gets the same items whichever others are beside it: its offsets depend on its place alone."""
    wide, narrow = Levels(5, 200, 3), Levels(2, 200, 3)
    for block in range(20):
        rows = columns(5, block)
        wide.enter(rows)
        narrow.enter(rows[:2])
    np.testing.assert_array_equal(wide.laid_out()[1][:2], narrow.laid_out()[1])


def test_torch_makes_the_same_choices() -> None:
    host, tensors = Levels(3, 200, 5), Levels(3, 200, 5)
    tensors.send(torch.empty(0))
    for block in range(50):
        host.enter(columns(3, block))
        tensors.enter(torch.from_numpy(columns(3, block)))
    assert isinstance(tensors.items[max(tensors.sizes)], torch.Tensor)
    copied = tensors.on_host()
    assert copied.laid_out()[0] == host.laid_out()[0]
    np.testing.assert_array_equal(copied.laid_out()[1], host.laid_out()[1])


def test_copies_share_nothing() -> None:
    levels = filled(3)
    sizes, items = levels.laid_out()
    for copied in (levels.on_host(), levels.relaid(sizes, items)):
        for block in range(10):
            copied.enter(columns(2, block))
    assert levels.laid_out()[0] == sizes
    np.testing.assert_array_equal(levels.laid_out()[1], items)
    assert levels.compactions == filled(3).compactions


def test_state_goes_on_exactly() -> None:
    levels = filled(33, seed=8)
    restored = Levels.from_state(levels.state(), 2, 200)
    for block in range(40, 60):
        levels.enter(columns(2, block))
        restored.enter(columns(2, block))
    assert restored.laid_out()[0] == levels.laid_out()[0]
    np.testing.assert_array_equal(restored.laid_out()[1], levels.laid_out()[1])


def test_state_of_nothing() -> None:
    assert Levels.from_state(Levels(2, 200, 0).state(), 2, 200).laid_out()[0] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sizes", np.array([0, -1, 2])),
        ("sizes", np.array([1.0])),
        ("sizes", np.array([[1]])),
        ("sizes", np.array([2**62, 1])),
        ("sizes", np.array([0, 0])),
        ("sizes", np.zeros(62, np.int64)),
        ("compactions", np.array([-1])),
        ("compactions", np.zeros(100, np.int64)),
        ("seed", np.array(-1)),
        ("seed", np.array(0.5)),
        ("items", np.zeros((2, 3), np.float32)),
        ("items", np.zeros((3, 256), np.float32)),
        ("items", np.full((2, 256), np.nan, np.float32)),
        ("items", np.zeros((2, 256))),
        ("items", None),
        ("seed", "seed"),
    ],
)
def test_a_damaged_state_of_levels_is_refused(name: str, value: Any) -> None:
    state = filled(1).state()
    assert Levels.from_state(state, 2, 200).sizes == {1: 256}
    with pytest.raises(FormatError):
        Levels.from_state(state | {name: value}, 2, 200)


# Pending rows: copied as float32 whatever they were, and invalid ones found exactly.

PLACES = 512


def pending_of(rows: np.ndarray, library: str) -> PendingRows:
    convert = torch.from_numpy if library == "torch" else np.asarray
    pending = PendingRows(PLACES, rows.shape[1], convert(rows))
    pending.take(convert(rows))
    return pending


def spoilt(rows: int) -> np.ndarray:
    """Rows of which the 2nd, 5th and last are invalid."""
    values = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    values[1, 0], values[4, 2], values[-1, 1] = np.nan, np.inf, -np.inf
    return values


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_takes_as_many_as_there_are_places_for(library: str) -> None:
    rows = np.arange(2000, dtype=np.float32).reshape(1000, 2)
    pending = pending_of(rows[:100], library)
    more = rows[100:] if library == "numpy" else torch.from_numpy(rows[100:])
    assert pending.take(more) == PLACES - 100
    assert pending.take(more) == 0
    np.testing.assert_array_equal(np.asarray(pending.used), rows[:PLACES])


def test_rows_are_copied() -> None:
    rows = np.ones((4, 3), np.float32)
    pending = pending_of(rows, "numpy")
    rows[...] = 2
    assert (pending.used == 1).all()


def test_host_drops_invalid_rows_and_keeps_the_order() -> None:
    rows = spoilt(20)
    pending = pending_of(rows, "numpy")
    pending.drop_invalid()
    np.testing.assert_array_equal(pending.used, np.delete(rows, [1, 4, 19], axis=0))
    assert pending.invalid == 3
    pending.drop_invalid()
    assert (pending.invalid, pending.filled) == (3, 17)


def test_device_overwrites_invalid_rows_and_counts_them_there() -> None:
    rows = spoilt(PLACES)
    pending = pending_of(rows, "torch")
    pending.mask_invalid()
    assert isinstance(pending.invalid, torch.Tensor)
    assert int(pending.invalid) == 3
    valid = np.isfinite(rows).all(axis=1)
    assert pending.rows[~torch.from_numpy(valid)].isnan().all()
    np.testing.assert_array_equal(pending.rows[torch.from_numpy(valid)].numpy(), rows[valid])


def test_moves_with_all_it_knows() -> None:
    pending = pending_of(spoilt(20), "numpy")
    pending.drop_invalid()
    there = pending.moved(torch.empty(0))
    assert not there.on_host
    back = there.moved(np.empty(0))
    assert back.on_host
    assert (back.filled, back.invalid) == (17, 3)
    np.testing.assert_array_equal(back.used, pending.used)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "int16", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_numpy_dtypes_become_float32(dtype: str) -> None:
    rows = np.array([[0, 1], [1, 1]], dtype)
    checked = checked_rows(rows, 2)
    assert checked.dtype == np.float32
    np.testing.assert_array_equal(checked, rows)


def test_float64_beyond_float32_becomes_infinite_without_a_warning() -> None:
    assert checked_rows(np.array([[1e300, -1e300]]), 2).tolist() == [[np.inf, -np.inf]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_torch_dtypes_are_copied_to_float32(dtype: torch.dtype) -> None:
    rows = torch.tensor([[0, 1], [1, 1]]).to(dtype)
    pending = PendingRows(PLACES, 2, rows)
    pending.take(checked_rows(rows, 2))
    assert pending.used.dtype == torch.float32
    assert pending.used.tolist() == [[0, 1], [1, 1]]


@pytest.mark.parametrize("rows", [np.zeros((3, 2), complex), torch.zeros((3, 2), dtype=torch.complex64)])
def test_complex_rows_are_refused(rows: object) -> None:
    with pytest.raises(InputError, match="rows must be real numbers, got dtype"):
        checked_rows(rows, 2)


@pytest.mark.parametrize("shape", [(), (2,), (3,), (4, 3), (0, 3), (1, 2, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"rows must be \[n, 2\] for a bank of 2 streams, got shape"):
        checked_rows(np.zeros(shape), 2)


def test_a_single_row_is_told_how_to_be_passed() -> None:
    with pytest.raises(InputError, match=r"pass rows\[None, :\] for a single row of 2"):
        checked_rows(np.zeros(2), 2)
