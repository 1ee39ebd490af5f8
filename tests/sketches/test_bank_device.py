"""KLLBank on an accelerator: the same sketches as on the host, invalid rows exact, and nothing is ever waited for.

The accelerator's path runs here on torch tensors in host memory, handed to `_update` behind the door that turns them
into numpy; on torch's "meta" device, whose tensors have no values that anything could wait for; and on CUDA where
there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lensai_integrations.sketches.bank import KLLBank

RANKS = np.arange(1, 100) / 100
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def normal(n: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def spoilt(rows: np.ndarray, share: float, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which about `share` have one value that is not finite, and which these are."""
    rng = np.random.default_rng(seed)
    bad = rng.random(len(rows)) < share
    rows = rows.copy()
    rows[bad, rng.integers(0, rows.shape[1], bad.sum())] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    return rows, bad


def on_device(rows: np.ndarray, batch: int = 100, k: int = 200, dtype: torch.dtype = torch.float32) -> KLLBank:
    bank = KLLBank(rows.shape[1], k, seed=0)
    for start in range(0, len(rows), batch):
        bank._update(torch.from_numpy(rows[start : start + batch]).to(dtype))
    return bank


def on_host(rows: np.ndarray, k: int = 200) -> KLLBank:
    bank = KLLBank(rows.shape[1], k, seed=0)
    bank.update(rows)
    return bank


def assert_equal(a: KLLBank, b: KLLBank) -> None:
    for name, array in a.state().items():
        np.testing.assert_array_equal(array, b.state()[name], err_msg=name)


def rank_errors(bank: KLLBank, rows: np.ndarray) -> np.ndarray:
    """Largest error per stream of the estimated rank of every hundredth of the rows."""
    points = np.quantile(rows, RANKS, axis=0, method="inverted_cdf").T
    true = np.stack([np.searchsorted(np.sort(c), p, side="right") for c, p in zip(rows.T, points, strict=True)])
    return np.abs(bank.cdf(points) - true / len(rows)).max(axis=1)


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("n", [0, 1, 512, 513, 3000, 50_000])
def test_same_items_as_on_the_host(n: int) -> None:
    rows = normal(n)
    bank = on_device(rows)
    assert_equal(bank.to_host(), on_host(rows))
    assert (bank.n, bank.invalid, bank.rows_seen) == (n, 0, n)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("batch", [512, 600, 1024, 3000])
@pytest.mark.parametrize("n", [512, 1024, 5120, 6000])
def test_whole_blocks_are_the_same_items_as_well(n: int, batch: int) -> None:
    """As many rows as there are places are overwritten while they are copied, not afterwards."""
    rows, bad = spoilt(normal(n), 0.01)
    assert_equal(on_device(normal(n), batch=batch).to_host(), on_host(normal(n)))
    bank = on_device(rows, batch=batch)
    assert (bank.n, bank.invalid) == (n - bad.sum(), bad.sum())
    assert_equal(bank.to_host(), on_device(rows).to_host())


def test_a_block_belongs_to_the_caller() -> None:
    rows = normal(1024)
    block, bank = torch.from_numpy(rows[:512].copy()), KLLBank(5, seed=0)
    bank._update(block)
    block.zero_()
    bank._update(torch.from_numpy(rows[512:]))
    assert_equal(bank, on_host(rows))


def test_larger_k() -> None:
    assert_equal(on_device(normal(9000), k=500), on_host(normal(9000), k=500))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8])
def test_dtypes(dtype: torch.dtype) -> None:
    rows = np.abs(normal(2000)) * 20
    assert_equal(on_device(rows, dtype=dtype), on_host(torch.from_numpy(rows).to(dtype).float().numpy()))


def test_answers_wait_but_change_nothing() -> None:
    rows = spoilt(normal(3000), 0.05)[0]
    asked, silent = KLLBank(5, seed=0), KLLBank(5, seed=0)
    for piece in np.split(rows, 30):
        asked._update(torch.from_numpy(piece))
        silent._update(torch.from_numpy(piece))
        asked.quantiles([0.5])
        asked.to_bytes()
        asked.state()
        assert asked.n + asked.invalid == asked.rows_seen
    assert_equal(asked, silent)


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("n", [400, 700, 6000, 40_000])
def test_invalid_rows_come_out_exactly(n: int, share: float) -> None:
    rows, bad = spoilt(normal(n), share)
    bank = on_device(rows)
    valid = rows[~bad]
    assert (bank.n, bank.invalid, bank.rows_seen) == (len(valid), bad.sum(), n)
    host = bank.to_host()
    values, weights = host.sorted_view()
    assert all(np.isin(kept, given).all() for kept, given in zip(values, valid.T, strict=True))
    assert (weights.sum(axis=1) == len(valid)).all()
    np.testing.assert_array_equal(bank.min, valid.min(axis=0))
    np.testing.assert_array_equal(bank.max, valid.max(axis=0))


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2])
def test_invalid_rows_leave_the_error_within_the_bound(share: float) -> None:
    rows, bad = spoilt(normal(30_000, dim=40), share)
    bank = on_device(rows)
    errors = rank_errors(bank, rows[~bad])
    # NaN stand for all rows seen, so what is left has an error in the valid rows that is larger by their share.
    assert errors.max() <= bank.rank_error / (1 - share)
    assert errors.mean() < 0.006


def test_a_host_bank_from_it_goes_on() -> None:
    rows, bad = spoilt(normal(9000), 0.02)
    host = on_device(rows).to_host()
    host.update(normal(5000, seed=3))
    assert host.n == 9000 - bad.sum() + 5000
    assert (host.sorted_view()[1].sum(axis=1) == host.n).all()


def test_nothing_but_invalid_rows() -> None:
    bank = on_device(np.full((2000, 3), np.nan, np.float32))
    assert (bank.n, bank.invalid) == (0, 2000)
    assert np.isnan(bank.quantiles([0.5])).all()
    assert np.isnan(bank.min).all()


def test_a_single_valid_row_among_many() -> None:
    """Whether compactions keep any of its values is chance; the bank knows its range and answers from that."""
    rows = np.full((4096, 50), np.nan, np.float32)
    rows[77] = np.arange(50)
    bank = on_device(rows)
    assert (bank.n, bank.invalid) == (1, 4095)
    np.testing.assert_array_equal(bank.quantiles([0.5])[:, 0], np.arange(50))


def test_state_and_bytes_are_those_of_the_host_bank() -> None:
    rows = normal(3000)
    bank = on_device(rows)
    assert bank.to_bytes() == on_host(rows).to_bytes()
    assert_equal(KLLBank.from_state(bank.state()), on_host(rows))


def test_host_rows_after_device_rows_are_sent_there() -> None:
    rows = normal(4000)
    bank = on_device(rows[:1300])
    bank.update(rows[1300:].astype(np.float64))
    assert not bank._pending.on_host
    assert_equal(bank, on_host(rows))


def test_device_rows_after_host_rows_take_the_bank_along() -> None:
    rows, bad = spoilt(normal(4000), 0.01)
    bank = on_host(rows[:1300])
    bank._update(torch.from_numpy(rows[1300:]))
    assert not bank._pending.on_host
    assert (bank.n, bank.invalid) == (4000 - bad.sum(), bad.sum())
    assert (bank.sorted_view()[1].sum(axis=1) == bank.n).all()
    assert rank_errors(bank, rows[~bad]).max() <= bank.rank_error


def test_resumed_from_state_it_goes_on_there() -> None:
    rows = normal(4000)
    bank = KLLBank.from_state(on_device(rows[:1300]).state())
    bank._update(torch.from_numpy(rows[1300:]))
    assert_equal(bank, on_host(rows))


@pytest.mark.parametrize("ours", ["host", "device"])
@pytest.mark.parametrize("theirs", ["host", "device"])
@pytest.mark.parametrize("n", [0, 300, 5000])
def test_merging_across_places(ours: str, theirs: str, n: int) -> None:
    make = {"host": on_host, "device": on_device}
    rows, bad = spoilt(normal(3000 + n), 0.01)
    bank, other = make[ours](rows[:3000]), make[theirs](rows[3000:])
    before = other.state()
    bank.merge(other)
    assert (bank.n, bank.invalid, bank.rows_seen) == (len(rows) - bad.sum(), bad.sum(), len(rows))
    assert (bank.sorted_view()[1].sum(axis=1) == bank.n).all()
    assert rank_errors(bank, rows[~bad]).max() <= bank.rank_error
    np.testing.assert_array_equal(bank.max, rows[~bad].max(axis=0))
    for name, array in other.state().items():
        np.testing.assert_array_equal(array, before[name])


def test_merging_without_invalid_rows_is_the_same_everywhere() -> None:
    rows = normal(9000)
    host, device = on_host(rows[:4000]), on_device(rows[:4000])
    host.merge(on_host(rows[4000:]))
    device.merge(on_device(rows[4000:]))
    assert_equal(device, host)


def test_merging_with_itself() -> None:
    bank = on_device(normal(3000))
    bank.merge(bank)
    assert bank.n == 6000


def test_updates_read_no_value() -> None:
    """On the meta device there is none to read: whatever would wait for an accelerator raises here."""
    bank, other = KLLBank(16, seed=0), KLLBank(16, seed=1)
    for batch in (1, 256, 700, 5000, 20_000):
        bank.update(torch.empty((batch, 16), device="meta"))
        other.update(torch.empty((batch, 16), device="meta", dtype=torch.bfloat16))
    bank.merge(other)
    assert bank.rows_seen == 2 * 25_957
    followed = on_host(normal(3000, dim=16))
    followed.update(torch.empty((5000, 16), device="meta"))
    followed.merge(bank)
    followed.update(normal(3000, dim=16))
    assert followed.rows_seen == 11_000 + bank.rows_seen
    with pytest.raises((NotImplementedError, RuntimeError)):
        _ = bank.n


def test_global_generators_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    on_device(normal(3000))
    assert torch.equal(torch.random.get_rng_state(), before)


@on_cuda
def test_cuda_equals_the_host_and_never_waits() -> None:
    rows = normal(20_000)
    batches = [torch.from_numpy(part).cuda() for part in np.split(rows, 80)]
    bank = KLLBank(5, seed=0)
    bank.update(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            bank.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_equal(bank, on_host(rows))


def test_updates_may_begin_in_inference_mode_and_go_on_outside() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 700, 3)).astype(np.float32))
    mixed, plain = KLLBank(3, seed=0), KLLBank(3, seed=0)
    for number, batch in enumerate(rows):
        with torch.inference_mode(number % 2 == 0):
            mixed._update(batch.clone())
        plain._update(batch.clone())
    assert mixed.to_host().to_bytes() == plain.to_host().to_bytes()
