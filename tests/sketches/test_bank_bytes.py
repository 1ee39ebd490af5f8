"""KLLBank and datasketches: each reads, queries, merges and goes on with what the other wrote, at no worse an error."""

from __future__ import annotations

from pathlib import Path

import datasketches as ds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches import wire
from lensai_integrations.sketches.bank import KLLBank

#: datasketches draws its own random numbers and cannot be seeded, so comparisons with its errors leave room for chance.
RANKS = np.arange(1, 100) / 100


def normal(n: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def bank_of(rows: np.ndarray, k: int = 200, seed: int = 0) -> KLLBank:
    bank = KLLBank(rows.shape[1], k, seed)
    bank.update(rows)
    return bank


def opened(bank: KLLBank) -> list[ds.kll_floats_sketch]:
    return [ds.kll_floats_sketch.deserialize(blob) for blob in bank.to_bytes()]


def theirs(rows: np.ndarray, k: int = 200) -> list[ds.kll_floats_sketch]:
    sketches = [ds.kll_floats_sketch(k) for _ in range(rows.shape[1])]
    for sketch, column in zip(sketches, rows.T, strict=True):
        sketch.update(np.ascontiguousarray(column))
    return sketches


def largest_errors(sketches: list[ds.kll_floats_sketch], rows: np.ndarray) -> np.ndarray:
    """Per stream, over 99 ranks: how far the rank asked for is from the true ranks of the quantile answered."""
    errors = []
    for sketch, column in zip(sketches, rows.T, strict=True):
        values, ordered = np.array(sketch.get_quantiles(RANKS, True)), np.sort(column)
        low = np.searchsorted(ordered, values, side="left") / len(rows)
        high = np.searchsorted(ordered, values, side="right") / len(rows)
        errors.append(np.maximum(0, np.maximum(low - RANKS, RANKS - high)).max())
    return np.array(errors)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 5000), st.sampled_from([8, 20, 200, 4096]))
def test_datasketches_answers_as_the_compact_bank(n: int, k: int) -> None:
    bank = bank_of(normal(n), k)
    compact = bank.compact()
    assert (compact.n, compact.k) == (n, k)
    for stream, sketch in enumerate(opened(bank)):
        assert (sketch.n, sketch.k) == (n, k)
        if n:
            assert (sketch.get_min_value(), sketch.get_max_value()) == (bank.min[stream], bank.max[stream])
            expected = np.array(sketch.get_quantiles(RANKS, True), np.float32)
            np.testing.assert_array_equal(compact.quantiles(RANKS)[stream], expected)
            points = np.linspace(-3, 3, 13).astype(np.float32)
            np.testing.assert_allclose(compact.cdf(points)[stream], sketch.get_cdf(points, True)[:-1])


@pytest.mark.parametrize("k", [8, 200, 1000])
def test_compacting_moves_no_rank_by_more_than_it_says(k: int) -> None:
    for n in (100, 300, 1000, 3333, 40_000):
        bank = bank_of(normal(n), k)
        points = bank.quantiles(RANKS)
        assert np.abs(bank.compact().cdf(points) - bank.cdf(points)).max() <= 0.61 / k + 1e-12


def test_compact_is_small_and_changes_nothing() -> None:
    bank = bank_of(normal(30_000))
    before = bank.state()
    compact = bank.compact()
    assert compact.sorted_view()[0].shape[1] <= wire.total_capacity(200, 16)
    assert bank.to_bytes() == bank.to_bytes()
    for name, array in bank.state().items():
        np.testing.assert_array_equal(array, before[name])
    assert compact.to_bytes() == compact.compact().to_bytes() == bank.to_bytes()


def test_compact_bank_goes_on() -> None:
    rows = normal(40_000, dim=20)
    bank = bank_of(rows[:10_000]).compact()
    bank.update(rows[10_000:])
    assert bank.n == 40_000
    np.testing.assert_array_equal(bank.min, rows.min(axis=0))
    assert (bank.sorted_view()[1].sum(axis=1) == 40_000).all()
    points = np.quantile(rows, RANKS, axis=0, method="inverted_cdf").T
    assert np.abs(bank.cdf(points) - RANKS).max() < bank.rank_error


def test_compact_keeps_invalid_rows_counted() -> None:
    rows = normal(3000)
    rows[::7] = np.nan
    compact = bank_of(rows).compact()
    assert (compact.n, compact.invalid, compact.rows_seen) == (2571, 429, 3000)


@pytest.mark.parametrize("n", [0, 1, 2, 200, 201, 5000])
def test_reading_back_gives_the_compact_bank(n: int) -> None:
    bank = bank_of(normal(n))
    back = KLLBank.from_bytes(bank.to_bytes(), seed=0)
    assert (back.dim, back.k, back.n, back.invalid, back.rows_seen) == (3, 200, n, 0, n)
    assert back.to_bytes() == bank.to_bytes()
    np.testing.assert_array_equal(back.quantiles(RANKS), bank.compact().quantiles(RANKS))
    np.testing.assert_array_equal(back.min, bank.min)


def test_what_datasketches_wrote_is_written_back_as_it_is() -> None:
    for n in (2, 100, 2500, 77_777):
        for sketch in theirs(normal(n)):
            sketch.get_quantile(0.5)  # sorts its level zero, as ours is
            blob = sketch.serialize()
            assert KLLBank.from_bytes([blob]).to_bytes() == [blob]


def test_a_vector_of_sketches_becomes_a_bank_and_back() -> None:
    rows = normal(7000, dim=6)
    vector = ds.vector_of_kll_floats_sketches(200, 6)
    vector.update(rows)
    bank = KLLBank.from_bytes(vector.serialize())
    assert (bank.dim, bank.n) == (6, 7000)
    np.testing.assert_allclose(bank.quantiles(RANKS), vector.get_quantiles(RANKS), atol=0.02)


def test_merging_what_datasketches_wrote() -> None:
    rows = normal(30_000, dim=20)
    bank = bank_of(rows[:20_000])
    bank.merge(KLLBank.from_bytes([sketch.serialize() for sketch in theirs(rows[20_000:])]))
    assert bank.n == 30_000
    assert largest_errors(opened(bank), rows).max() < bank.rank_error


def test_a_smaller_k_merged_before_counts_for_the_error() -> None:
    sketch = theirs(normal(5000, dim=1), 200)[0]
    sketch.merge(theirs(normal(5000, dim=1), 50)[0])
    bank = KLLBank.from_bytes([sketch.serialize()])
    assert bank.rank_error == pytest.approx(sketch.normalized_rank_error(False))
    fresh = bank_of(normal(100, dim=1))
    fresh.merge(bank)
    for same in (fresh, KLLBank.from_state(bank.state()), KLLBank.from_bytes(bank.to_bytes()), bank.compact()):
        assert same.rank_error == bank.rank_error


@pytest.mark.parametrize("n", [50, 1000, 6000])
def test_datasketches_merges_ours_at_no_larger_error(n: int) -> None:
    rows = normal(12 * n, dim=60)
    merged, reference = theirs(np.empty((0, 60))), theirs(np.empty((0, 60)))
    for part in np.split(rows, 12):
        for into, each in ((merged, opened(bank_of(part, seed=n))), (reference, theirs(part))):
            for sketch, other in zip(into, each, strict=True):
                sketch.merge(other)
    assert {sketch.n for sketch in merged} == {12 * n}
    assert largest_errors(merged, rows).mean() <= largest_errors(reference, rows).mean() * 1.3


@pytest.mark.parametrize("n", [150, 700, 20_000])
def test_datasketches_goes_on_with_ours_at_no_larger_error(n: int) -> None:
    rows = normal(3 * n, dim=60)
    sketches, reference = opened(bank_of(rows[:n])), theirs(rows)
    for sketch, column in zip(sketches, rows[n:].T, strict=True):
        sketch.update(np.ascontiguousarray(column))
    assert {sketch.n for sketch in sketches} == {3 * n}
    assert largest_errors(sketches, rows).mean() <= largest_errors(reference, rows).mean() * 1.3


SHAPES = {
    "normal": lambda rows: rows,
    "lognormal": np.exp,
    "sorted": lambda rows: np.sort(rows, axis=0),
    "tied": np.round,
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("n", [1000, 20_000])
def test_written_sketches_err_less_than_those_of_datasketches(name: str, n: int) -> None:
    rows = SHAPES[name](normal(n, dim=60))
    ours, reference = largest_errors(opened(bank_of(rows)), rows), largest_errors(theirs(rows), rows)
    assert ours.mean() <= 0.75 * reference.mean()
    assert np.quantile(ours, 0.99) <= np.quantile(reference, 0.99)


def test_constant_streams_are_exact() -> None:
    rows = np.full((5000, 3), 7, np.float32)
    assert largest_errors(opened(bank_of(rows)), rows).max() == 0


def test_real_device_files_of_one_kind_merge(data_dir: Path) -> None:
    files = sorted((data_dir / "lensai_edge").rglob("*.bin"))
    by_length: dict[int, list[bytes]] = {}
    for file in files:
        bank = KLLBank.from_bytes([file.read_bytes()])
        reference = ds.kll_floats_sketch.deserialize(file.read_bytes())
        expected = np.array(reference.get_quantiles(RANKS, True), np.float32)
        np.testing.assert_array_equal(bank.quantiles(RANKS)[0], expected)
        assert ds.kll_floats_sketch.deserialize(bank.to_bytes()[0]).n == reference.n
        by_length.setdefault(reference.n, []).append(file.read_bytes())
    for n, blobs in by_length.items():
        bank = KLLBank.from_bytes(blobs)
        bank.merge(KLLBank.from_bytes(blobs))
        assert (bank.dim, bank.n) == (len(blobs), 2 * n)
        assert (bank.sorted_view()[1].sum(axis=1) == 2 * n).all()
        assert all(sketch.n == 2 * n for sketch in opened(bank))


def test_sketches_that_no_bank_can_hold_together_are_refused() -> None:
    blobs = [sketch.serialize() for rows in (normal(1000, 1), normal(1001, 1)) for sketch in theirs(rows)]
    with pytest.raises(FormatError, match=r"differ in k, n or level sizes.*read them one by one"):
        KLLBank.from_bytes(blobs)
    with pytest.raises(FormatError, match="differ in k"):
        KLLBank.from_bytes([KLLBank(1).to_bytes()[0], KLLBank(1, k=100).to_bytes()[0]])


def test_damaged_bytes_and_none_are_refused() -> None:
    with pytest.raises(FormatError):
        KLLBank.from_bytes([bank_of(normal(100)).to_bytes()[0][:-1]])
    with pytest.raises(InputError, match="blobs is empty"):
        KLLBank.from_bytes([])


def test_infinities_others_sketched_are_kept() -> None:
    """A device's SNR of a flat image is +inf; its sketch holds it, and so does a bank made of it."""
    sketch = theirs(np.array([[1.0], [np.inf], [2.0]]))[0]
    bank = KLLBank.from_bytes([sketch.serialize()])
    assert (bank.n, bank.max.tolist(), bank.quantiles([0.5]).tolist()) == (3, [np.inf], [[2.0]])
    bank.update(np.ones((600, 1)))
    assert bank.n == 603
    assert KLLBank.from_state(bank.state()).max.tolist() == [np.inf]
