"""KLLBank as its users meet it: rows in, quantiles out, merges, and what it refuses."""

from __future__ import annotations

from typing import Any

import datasketches as ds
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.bank import KLLBank

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
