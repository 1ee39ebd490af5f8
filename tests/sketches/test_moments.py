"""Moments against numpy, on data made to be difficult."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.sketches.moments import COVARIANCE_UP_TO, Moments


def correlated(n, dim=5, mean=0.0, seed=0):
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(dim, dim))
    return (rng.normal(size=(n, dim)) @ mixing + mean).astype(np.float32)


def seen(rows, **kwargs):
    result = Moments(rows.shape[1], **kwargs)
    result.update(rows)
    return result


def assert_equals_numpy(moments, rows, rtol=1e-10):
    wide = rows.astype(np.float64)
    scale = np.sqrt(np.outer(wide.var(axis=0), wide.var(axis=0)))
    assert (moments.n, moments.rows_seen) == (len(rows), len(rows) + moments.invalid)
    np.testing.assert_allclose(moments.mean, wide.mean(axis=0), rtol=rtol, atol=rtol * np.sqrt(scale.max()))
    np.testing.assert_allclose(moments.variance, wide.var(axis=0, ddof=1), rtol=rtol)
    if moments.keeps_covariance:
        assert np.abs(moments.covariance - np.cov(wide.T)).max() <= rtol * scale.max()
        np.testing.assert_array_equal(moments.covariance, moments.covariance.T)


def wandering(n):
    """Sorted rows, so that the first tell nothing about the later ones."""
    return np.sort(correlated(n, mean=np.linspace(0, 1e4, n)[:, None]), axis=0)


DIFFICULT = {
    "plain": correlated(3000),
    "mean 1e6, standard deviation about 1": correlated(3000, mean=1e6),
    "sorted from 0 to 1e4": wandering(3000),
    "first row far away": np.concatenate([np.full((1, 5), 1e5, np.float32), correlated(3000)]),
    "columns from 1e-12 to 1e12": correlated(3000) * np.float32(10) ** np.array([-12, -6, 0, 6, 12], np.float32),
    "two rows": correlated(2),
}


@pytest.mark.parametrize("covariance", [True, False])
@pytest.mark.parametrize("batch", [1, 64, 10_000])
@pytest.mark.parametrize("name", DIFFICULT)
def test_equal_to_numpy_in_two_passes(name, batch, covariance):
    rows = DIFFICULT[name]
    moments = Moments(5, covariance)
    for start in range(0, len(rows), batch):
        moments.update(rows[start : start + batch])
    assert_equals_numpy(moments, rows)


def test_summing_squares_would_have_failed_on_this_data():
    rows = DIFFICULT["mean 1e6, standard deviation about 1"]
    naive = (np.sum(rows**2, axis=0) - len(rows) * rows.mean(axis=0) ** 2) / (len(rows) - 1)
    assert np.abs(naive / rows.astype(np.float64).var(axis=0) - 1).max() > 0.1


@given(st.lists(st.integers(0, 400), min_size=1, max_size=5), st.booleans(), st.sampled_from([0.0, 1e5]))
@settings(max_examples=50, deadline=None)
def test_any_split_into_updates_and_merges_equals_numpy(sizes, covariance, mean):
    rows, start = correlated(sum(sizes) + 2, mean=mean), 0
    merged, streamed = Moments(5, covariance), Moments(5, covariance)
    for size in [*sizes[:-1], sizes[-1] + 2]:
        part = rows[start : start + size]
        merged.merge(seen(part, covariance=covariance))
        streamed.update(part)
        start += size
    for moments in (merged, streamed):
        assert_equals_numpy(moments, rows, rtol=1e-9)


@pytest.mark.parametrize("dim", [3, COVARIANCE_UP_TO + 1])
def test_the_matrix_is_kept_up_to_1024_columns_unless_asked_otherwise(dim):
    rows = correlated(40, dim) if dim < 10 else np.random.default_rng(0).normal(size=(40, dim)).astype(np.float32)
    assert seen(rows).keeps_covariance == (dim == 3)
    assert (seen(rows, covariance=False).covariance, Moments(dim, True).keeps_covariance) == (None, True)
    np.testing.assert_allclose(seen(rows).variance, rows.astype(np.float64).var(axis=0, ddof=1), rtol=1e-10)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_left_out_and_counted(value):
    rows = correlated(700)
    spoiled = np.insert(rows, [0, 255, 256, 600], rows[:1], axis=0)
    spoiled[[0, 256, 258, 603], [0, 4, 2, 1]] = value
    moments = seen(spoiled)
    assert (moments.invalid, moments.rows_seen) == (4, 704)
    assert_equals_numpy(moments, rows)


def test_infinities_of_both_signs_in_one_row_do_not_cancel():
    assert seen(np.array([[np.inf, -np.inf], [1.0, 2.0]])).n == 1


def test_the_largest_float32_values_do_not_overflow_and_larger_ones_are_invalid():
    largest = np.finfo(np.float32).max
    moments = seen(np.array([[largest, 1.0], [-largest, 2.0], [1e300, 3.0]]))
    assert (moments.n, moments.invalid) == (2, 1)
    assert moments.variance[0] == pytest.approx(2 * float(largest) ** 2)


def test_no_rows_and_one_row():
    for rows in (np.zeros((0, 3)), np.full((2, 3), np.nan)):
        empty = seen(rows)
        assert empty.n == 0
        assert np.isnan([*empty.mean, *empty.variance, *empty.covariance.ravel()]).all()
    one = seen(np.array([[1.0, 2.0, 3.0]]))
    assert (one.n, one.mean.tolist()) == (1, [1.0, 2.0, 3.0])
    assert np.isnan([*one.variance, *one.covariance.ravel()]).all()


def test_what_is_returned_is_not_the_state():
    moments = seen(correlated(20))
    before = moments.covariance.copy(), moments.mean.copy(), moments.variance.copy()
    for array in (moments.covariance, moments.mean, moments.variance, *moments.state().values()):
        array[...] = 0
    after = moments.covariance, moments.mean, moments.variance
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(("a", "b"), [((3, True), (4, True)), ((3, True), (3, False))])
def test_moments_of_different_columns_are_not_merged(a, b):
    with pytest.raises(InputError, match="cannot merge moments of 3 columns"):
        Moments(*a).merge(Moments(*b))


@pytest.mark.parametrize("dim", [0, -1, 2.0, 2**21, None])
def test_dim_is_a_positive_whole_number(dim):
    with pytest.raises(InputError, match="dim is the number of columns"):
        Moments(dim)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 4, 1)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=re.escape("rows should be [n, 4]")):
        Moments(4).update(np.zeros(shape))


# On an accelerator. Tensors in host memory take the same way when handed to the inner function.


@pytest.mark.parametrize("covariance", [True, False])
def test_tensors_and_arrays_give_the_same_moments(covariance):
    rows = correlated(1000, mean=1e4)
    rows[[3, 400]] = np.nan
    tensors, arrays = Moments(5, covariance), Moments(5, covariance)
    for start in range(0, 1000, 70):
        arrays.update(rows[start : start + 70])
        tensors._update(torch.from_numpy(rows[start : start + 70].copy()))
    assert isinstance(tensors._device.centre, torch.Tensor)
    assert (tensors.n, tensors.invalid) == (1000, 0)  # not asked for yet
    on_host = tensors.to_host()
    assert on_host.invalid == arrays.invalid == 2
    assert isinstance(on_host._products, np.ndarray)
    assert on_host.to_host() is on_host
    for moments in (on_host, arrays):
        assert_equals_numpy(moments, np.delete(rows, [3, 400], axis=0))
    np.testing.assert_allclose(tensors.variance, arrays.variance, rtol=1e-10)


def on_device(parts, dim=5, covariance=True):
    moments = Moments(dim, covariance)
    for part in parts:
        moments._update(torch.from_numpy(np.ascontiguousarray(part)))
    return moments


@pytest.mark.parametrize("covariance", [True, False])
@pytest.mark.parametrize("batch", [1, 64, 512, 700, 10_000])
@pytest.mark.parametrize("name", DIFFICULT)
def test_an_accelerator_is_as_exact_on_difficult_data(name, batch, covariance):
    rows = DIFFICULT[name]
    moments = on_device((rows[at : at + batch] for at in range(0, len(rows), batch)), covariance=covariance)
    assert_equals_numpy(moments.to_host(), rows)


@given(
    st.lists(st.sampled_from([1, 3, 500, 512, 513, 600, 1024, 2500]), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from([0.0, 1e5]),
    st.sampled_from([0.0, 0.01, 0.9]),
)
@settings(max_examples=50, deadline=None)
def test_any_blocks_on_an_accelerator_equal_numpy_without_the_invalid_rows(sizes, covariance, mean, share):
    rng = np.random.default_rng(len(sizes))
    rows = correlated(sum(sizes) + 2, mean=mean)
    bad = rng.random(len(rows)) < share
    bad[-2:] = False
    rows[bad, rng.integers(0, 5, bad.sum())] = rng.choice([np.nan, np.inf, -np.inf], bad.sum())
    moments = on_device(np.split(rows, np.cumsum(sizes)), covariance=covariance).to_host()
    assert moments.invalid == bad.sum()
    assert_equals_numpy(moments, rows[~bad], rtol=1e-9)


@pytest.mark.parametrize("covariance", [True, False])
def test_blocks_without_a_valid_row_say_nothing_of_the_centre(covariance):
    """The first blocks have none: about 0, a million standard deviations from this data, digits are lost."""
    nothing, rows = np.full((512, 5), np.nan, np.float32), DIFFICULT["mean 1e6, standard deviation about 1"]
    moments = on_device([nothing, nothing, nothing, *np.split(rows, [600, 1300])], covariance=covariance).to_host()
    assert moments.invalid == 3 * 512
    assert_equals_numpy(moments, rows, rtol=1e-9)


def test_a_host_that_goes_on_from_an_accelerator_goes_on_exactly():
    rows = correlated(4000, mean=1e4)
    moments = on_device([rows[:1000], rows[1000:1700]]).to_host()
    moments.update(rows[1700:2000])
    moments._update(torch.from_numpy(rows[2000:]))
    assert_equals_numpy(moments.to_host(), rows, rtol=1e-9)


def test_moments_read_from_their_state_go_on_with_tensors():
    rows = correlated(500)
    moments = Moments.from_state(seen(rows[:100]).state())
    moments.update(rows[100:150])  # waits in a block on the host when the tensors come
    moments._update(torch.from_numpy(rows[150:480]))
    moments._update(rows[480:])  # rows on the host, state elsewhere
    assert moments._device is not None
    assert_equals_numpy(moments.to_host(), rows)
    other = seen(correlated(20, seed=2))
    other.merge(moments)
    assert_equals_numpy(other, np.concatenate([correlated(20, seed=2), rows]))


def test_mixed_precision_does_not_reach_the_products():
    rows, moments = correlated(600), Moments(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moments._update(torch.from_numpy(rows))
    assert_equals_numpy(moments.to_host(), rows)


def test_the_matrix_is_symmetric_and_survives_its_state_however_products_were_rounded():
    moments = seen(correlated(300))
    moments._products[1, 0] += 1e-9  # as a library does that computes each triangle by itself
    np.testing.assert_array_equal(moments.covariance, moments.covariance.T)
    np.testing.assert_array_equal(Moments.from_state(moments.state()).covariance, moments.covariance)


def test_training_and_inference_mode_may_alternate():
    moments, rows = Moments(5), correlated(600)
    for step in range(60):
        with torch.inference_mode(step % 2 == 0):
            moments._update(torch.from_numpy(rows[10 * step : 10 * step + 10]))
    assert_equals_numpy(moments.to_host(), rows)


# States


def damaged(**changes):
    return seen(correlated(30, 3)).state() | changes


@pytest.mark.parametrize(
    "state",
    [
        {},
        damaged(mean=np.zeros(4)),
        damaged(mean=np.zeros(0)),
        damaged(mean=np.full(3, np.nan)),
        damaged(mean=np.zeros(3, np.float32)),
        damaged(products=np.zeros(3)),
        damaged(products=np.zeros((3, 3))),
        damaged(products=np.full(6, np.inf)),
        damaged(products=np.full(6, -1.0)),
        damaged(covariance=np.array(0)),
        damaged(covariance=np.array(2)),
        damaged(n=np.array(31)),
        damaged(n=np.array(-1)),
        damaged(n=np.array(30.0)),
        damaged(rows_seen=np.array(29)),
    ],
)
def test_hostile_states_raise_our_error(state):
    with pytest.raises(FormatError):
        Moments.from_state(state)
