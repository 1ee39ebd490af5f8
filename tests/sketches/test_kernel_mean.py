"""The kernel mean against exact MMD, computed from all pairs."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from lensai_integrations.errors import DefinitionError, FormatError, InputError
from lensai_integrations.sketches.kernel_mean import (
    KernelMean,
    are_exponents,
    checked_exponents,
    nearest_exponent,
    random_frequencies,
    waves,
)


def normal(n, dim=4, shift=0.0, seed=0, scale=1.0):
    return (np.random.default_rng(seed).normal(size=(n, dim)) * scale + shift).astype(np.float32)


def seen(rows, **kwargs):
    result = KernelMean(rows.shape[1], **kwargs)
    result.update(rows)
    return result


def kernel(x, y, bandwidths):
    squares = np.sum(x**2, 1)[:, None] + np.sum(y**2, 1)[None, :] - 2 * x @ y.T
    return np.mean([np.exp(-np.maximum(squares, 0) / (2 * s**2)) for s in bandwidths], axis=0)


def exact_squared_mmds(x, y, bandwidths):
    """Biased and unbiased, from all pairs."""
    x, y, n, m = x.astype(np.float64), y.astype(np.float64), len(x), len(y)
    xx, yy, xy = kernel(x, x, bandwidths).sum(), kernel(y, y, bandwidths).sum(), kernel(x, y, bandwidths).mean()
    return xx / n**2 + yy / m**2 - 2 * xy, (xx - n) / (n * (n - 1)) + (yy - m) / (m * (m - 1)) - 2 * xy


# The distance


@pytest.mark.slow
@pytest.mark.parametrize("dim", [2, 16, 128])
@pytest.mark.parametrize("shift", ["none", "one column by 0.5", "all columns by 0.3", "scale 1.3", "two clusters"])
def test_mmd_is_within_its_stated_error_of_exact_mmd(dim, shift):
    x, y = normal(2000, dim, seed=1), normal(2000, dim, seed=2)
    if shift == "one column by 0.5":
        y[:, 0] += 0.5
    elif shift == "all columns by 0.3":
        y += 0.3
    elif shift == "scale 1.3":
        y *= 1.3
    elif shift == "two clusters":
        y[::2, 0] += 1.5
        y[1::2, 0] -= 1.5
    a = seen(x)
    b = seen(y, exponents=a.exponents)
    error = a.squared_mmd_error(b)
    biased, unbiased = exact_squared_mmds(x, y, a.bandwidths)
    assert abs(a.squared_mmd(b, unbiased=False) - biased) < 4 * error
    assert abs(a.squared_mmd(b) - unbiased) < 4 * error
    assert a.mmd(b) == pytest.approx(biased**0.5, rel=0.2)
    assert error < 2 / 256**0.5 * a.mmd(b) ** 2


@pytest.mark.slow
def test_the_stated_error_is_the_spread_over_seeds_of_the_frequencies():
    x, y = normal(500, 8, seed=1), normal(500, 8, 0.3, seed=2)
    pairs = [(seen(x, seed=s, frequencies=64), seen(y, seed=s, frequencies=64)) for s in range(60)]
    estimates = [a.squared_mmd(b, unbiased=False) for a, b in pairs]
    stated = np.mean([a.squared_mmd_error(b) for a, b in pairs])
    exact, _ = exact_squared_mmds(x, y, pairs[0][0].bandwidths)
    assert np.std(estimates) == pytest.approx(stated, rel=0.3)
    assert abs(np.mean(estimates) - exact) < 4 * stated / 60**0.5


def test_unbiased_mmd_is_zero_on_average_for_one_distribution():
    values = [seen(normal(100, seed=2 * s)).squared_mmd(seen(normal(150, seed=2 * s + 1))) for s in range(100)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 10
    assert min(values) < 0 < max(values)
    biased = [seen(normal(100, seed=2 * s)).mmd(seen(normal(150, seed=2 * s + 1))) ** 2 for s in range(100)]
    assert np.mean(biased) > 10 * abs(np.mean(values))


def test_mmd_of_a_profile_with_itself_is_zero_and_it_is_symmetric():
    a, b = seen(normal(200)), seen(normal(300, shift=1, seed=1))
    assert a.mmd(a) == 0
    assert a.mmd(b) == b.mmd(a) > 0.2


def test_mmd_needs_rows_and_two_of_them_without_bias():
    a, empty, one = seen(normal(50)), KernelMean(4), seen(normal(1))
    for other in (empty, seen(np.full((30, 4), np.nan))):
        with pytest.raises(InputError, match="0 valid rows cannot be compared"):
            a.mmd(other)
    assert a.mmd(one) > 0
    with pytest.raises(InputError, match="two valid rows on both sides"):
        a.squared_mmd(one)


@pytest.mark.parametrize("changed", [{"dim": 5}, {"frequencies": 32}, {"seed": 1}])
def test_other_features_are_not_compared_or_merged(changed):
    parameters = {"dim": 4, "frequencies": 64, "seed": 0}
    a, b = KernelMean(**parameters), KernelMean(**parameters | changed)
    for act in (a.mmd, a.merge, a.squared_mmd, a.squared_mmd_error):
        with pytest.raises(DefinitionError, match="kernel means differ"):
            act(b)


# Bandwidths


def test_bandwidths_are_the_median_distance_and_its_neighbours():
    sketch = seen(normal(500, 16))  # distances are about sqrt(2 * 16) = 5.7, nearest power 2**2 or 2**3
    assert sketch.exponents in ((1, 2, 3), (2, 3, 4))
    assert sketch.bandwidths == tuple(2.0**exponent for exponent in sketch.exponents)


@pytest.mark.parametrize("scale", np.geomspace(1, 3, 9))
def test_independent_profiles_of_similar_scale_share_bandwidths(scale):
    a, b = seen(normal(300)), seen(normal(300, seed=1, scale=scale * 1.2))
    shared = set(a.exponents) & set(b.exponents)
    assert len(shared) >= (2 if scale < 1.5 else 1)  # less than 2 and 4 times apart
    assert a.mmd(b) > 0


def test_profiles_of_very_different_scale_are_refused_and_told_what_to_do():
    a, b = seen(normal(300)), seen(normal(300, scale=100.0))
    for act in (a.mmd, a.merge):
        with pytest.raises(DefinitionError, match=re.escape(f"profile the second with exponents={a.exponents}")):
            act(b)
    fixed = seen(normal(300, scale=100.0), exponents=a.exponents)
    assert a.mmd(fixed) > 0.3


def test_constant_rows_get_the_bandwidths_around_one():
    assert seen(np.full((40, 4), 3.0)).exponents == (-1, 0, 1)


def test_the_choice_waits_for_sixteen_rows_and_looks_at_no_more_than_256():
    sketch = KernelMean(4)
    assert sketch.exponents == ()
    rows = normal(15)
    sketch.update(rows)
    assert sketch.exponents == seen(np.concatenate([rows, rows])).exponents  # preliminary
    sketch.update(normal(1, scale=1e6))
    assert len(sketch._pending) == 0
    many = np.concatenate([normal(256), normal(2000, scale=1e4)])
    assert seen(many).exponents == seen(normal(256)).exponents


@pytest.mark.parametrize("rows", [0, 1, 5, 15])
def test_too_few_rows_still_make_a_profile(rows):
    sketch, whole = KernelMean(4), seen(normal(500, seed=5))
    sketch.update(normal(rows))
    on_host = sketch.to_host()
    assert (on_host.n, on_host.invalid) == (rows, 0)
    assert sketch.mean.shape == ((3, 512) if rows else (0, 512))
    if rows:
        assert sketch.mmd(whole) == pytest.approx(whole.mmd(sketch))
        expected = seen(normal(rows), exponents=whole.exponents)
        assert sketch.mmd(whole) == pytest.approx(expected.mmd(whole))
        assert sketch.mmd(sketch) == 0


def test_fixed_exponents_are_kept_whatever_the_rows():
    sketch = seen(normal(100, scale=50.0), exponents=(0, 1))
    assert (sketch.exponents, sketch.mean.shape) == ((0, 1), (2, 512))
    assert KernelMean(4, exponents=(5,)).exponents == (5,)
    assert seen(normal(100), exponents=KernelMean(4).exponents).exponents == seen(normal(100)).exponents


# The mean


def test_the_mean_is_the_mean_of_the_features():
    rows = normal(1200)
    sketch = seen(rows)
    features = sketch.features(rows)
    assert (features.shape, features.dtype) == ((1200, 3, 512), np.float32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=2), 1, atol=1e-4)
    np.testing.assert_allclose(sketch.mean, features.mean(axis=0, dtype=np.float64), atol=1e-6)
    angles = rows.astype(np.float64) @ random_frequencies(4, 256, sketch.seed) / sketch.bandwidths[1]
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).mean(axis=0) / 16
    np.testing.assert_allclose(sketch.mean[1], expected, atol=1e-6)


def test_features_at_given_exponents_and_of_invalid_rows():
    rows = normal(3)
    rows[1, 0] = np.nan
    features = KernelMean(4).features(rows, exponents=(2,))
    assert features.shape == (3, 1, 512)
    assert np.isnan(features[1]).all()
    assert np.isfinite(features[[0, 2]]).all()
    for arguments in ((rows,), (normal(3, 5), (1, 2))):
        with pytest.raises(InputError, match="features need rows"):
            KernelMean(4).features(*arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_rows_that_are_not_finite_are_left_out_and_counted(value):
    rows = normal(100)
    spoiled = np.insert(rows, [0, 7, 50], value, axis=0)
    sketch, clean = seen(spoiled), seen(rows)
    assert (sketch.n, sketch.invalid, sketch.rows_seen) == (100, 3, 103)
    assert sketch.exponents == clean.exponents
    np.testing.assert_allclose(sketch.mean, clean.mean, atol=1e-7)


def test_only_invalid_rows_leave_a_profile_without_a_mean():
    for count in (5, 40):
        sketch = seen(np.full((count, 4), np.nan))
        assert (sketch.n, sketch.invalid) == (0, count)
        assert np.isnan(sketch.mean).all()


@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.sampled_from([np.float32, np.float64, np.float16]))
@settings(max_examples=50, deadline=None)
def test_any_split_into_batches_gives_the_same_mean(sizes, dtype):
    rows, start = normal(sum(sizes)).astype(dtype), 0
    fixed = {"frequencies": 32, "exponents": (0, 1, 2)}
    split = KernelMean(4, **fixed)
    for size in sizes:
        split.update(rows[start : start + size])
        start += size
    whole = seen(rows, **fixed)
    assert (split.n, split.rows_seen) == (len(rows), len(rows))
    np.testing.assert_allclose(split.mean, whole.mean, atol=1e-6)


# Merging


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3))
@settings(max_examples=50, deadline=None)
def test_merging_is_associative_where_bandwidths_are_the_same(sizes):
    ends = np.cumsum([0, *sizes])
    rows = normal(ends[-1])
    make = [lambda i=i: seen(rows[ends[i] : ends[i + 1]], frequencies=32, exponents=(0, 1)) for i in range(3)]
    left, right, first = make[0](), make[1](), make[0]()
    left.merge(make[1]())
    left.merge(make[2]())
    right.merge(make[2]())
    first.merge(right)
    whole = seen(rows, frequencies=32, exponents=(0, 1))
    for merged in (left, first):
        assert (merged.n, merged.rows_seen) == (ends[-1], ends[-1])
        np.testing.assert_allclose(merged.mean, whole.mean, atol=1e-6)


def test_merging_keeps_the_shared_bandwidths():
    a, b = seen(normal(100), exponents=(0, 1, 2)), seen(normal(50, seed=1), exponents=(1, 2, 3))
    before = b.mean.copy()
    a.merge(b)
    assert (a.exponents, a.n, a.mean.shape) == ((1, 2), 150, (2, 512))
    expected = seen(np.concatenate([normal(100), normal(50, seed=1)]), exponents=(1, 2))
    np.testing.assert_allclose(a.mean, expected.mean, atol=1e-7)
    np.testing.assert_array_equal(b.mean, before)
    a.update(normal(10, seed=2))
    assert (a.n, a.exponents) == (160, (1, 2))


@pytest.mark.parametrize(("few", "many"), [(0, 100), (7, 100), (100, 7), (100, 0), (7, 5), (10, 9), (0, 0)])
def test_merging_with_a_profile_that_has_not_chosen_yet(few, many):
    a, b = KernelMean(4), KernelMean(4)
    a.update(normal(few, seed=1))
    b.update(normal(many, seed=2))
    exponents = b.exponents if many > few else a.exponents
    b_before = b.state()
    a.merge(b)
    assert (a.n, a.rows_seen) == (few + many, few + many)
    assert all(np.array_equal(value, b.state()[key]) for key, value in b_before.items())
    if max(few, many) >= 16:
        assert a.exponents == exponents
    if few + many:
        rows = np.concatenate([normal(few, seed=1), normal(many, seed=2)])
        np.testing.assert_allclose(a.mean, seen(rows, exponents=a.exponents).mean, atol=1e-6)


# On an accelerator. Tensors in host memory take the same way when handed to the inner function.


@pytest.mark.parametrize("fixed", [None, (0, 1, 2)])
def test_tensors_and_arrays_give_the_same_mean(fixed):
    tensors, arrays = KernelMean(4, exponents=fixed), KernelMean(4, exponents=fixed)
    for start in range(0, 200, 12):
        rows = normal(200)[start : start + 12]
        rows[3, 1] = np.nan
        arrays.update(rows)
        tensors._update(torch.from_numpy(rows.copy()))
    assert isinstance(tensors._device.totals, torch.Tensor)
    assert tensors._device.totals.dtype == torch.float64
    assert (tensors.n, tensors.invalid) == (200, 0)  # not asked for yet
    on_host = tensors.to_host()
    assert (on_host.n, on_host.invalid, on_host.exponents) == (arrays.n, arrays.invalid, arrays.exponents)
    assert isinstance(on_host._sums, np.ndarray)
    assert on_host.to_host() is on_host
    np.testing.assert_allclose(on_host.mean, arrays.mean, atol=1e-6)
    np.testing.assert_allclose(tensors.mean, arrays.mean, atol=1e-6)
    assert arrays.mmd(tensors) < 1e-5


@given(
    st.lists(st.sampled_from([1, 9, 511, 512, 600, 2100]), min_size=1, max_size=4),
    st.sampled_from([None, (0,), (1, 2), (0, 1, 2)]),
    st.sampled_from([np.nan, np.inf, -np.inf, 3e38]),
)
@settings(max_examples=40, deadline=None)
def test_any_blocks_on_an_accelerator_give_the_mean_of_the_features(sizes, exponents, odd):
    """Written out in float64 by the formula; odd rows, those beyond float32's angles included, are left out."""
    rows = normal(sum(sizes) + 20, seed=len(sizes))
    rows[7] = odd
    sketch = KernelMean(4, frequencies=16, exponents=exponents)
    for part in np.split(rows, np.cumsum(sizes)):
        sketch._update(torch.from_numpy(part))
    host = sketch.to_host()
    assert (host.n, host.invalid) == (len(rows) - 1, 1)
    assert host.exponents == (exponents or host.exponents)
    valid = np.delete(rows, 7, axis=0).astype(np.float64)
    for mean, exponent in zip(host.mean, host.exponents, strict=True):
        angles = valid @ random_frequencies(4, 16, sketch.seed) / 2.0**exponent
        expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1).mean(axis=0) / 4
        np.testing.assert_allclose(mean, expected, atol=1e-12)


@pytest.mark.parametrize("count", [5, 40])
def test_a_profile_read_from_its_state_goes_on_with_tensors(count):
    straight, resumed = KernelMean(4), KernelMean(4)
    straight.update(normal(count))
    resumed.update(normal(count))
    resumed = KernelMean.from_state(resumed.state())
    resumed._update(torch.from_numpy(normal(30, seed=1)))
    straight.update(normal(30, seed=1))
    assert resumed._device is not None
    resumed._update(normal(20, seed=2))  # rows on the host, state elsewhere
    straight.update(normal(20, seed=2))
    np.testing.assert_allclose(resumed.mean, straight.mean, atol=1e-6)
    assert resumed.to_host().n == straight.n == count + 50


def test_mixed_precision_does_not_reach_the_features():
    sketch, plain = KernelMean(4), seen(normal(200))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sketch._update(torch.from_numpy(normal(200)))
    np.testing.assert_allclose(sketch.mean, plain.mean, atol=1e-6)


def test_training_and_inference_mode_may_alternate():
    sketch, rows = KernelMean(4), normal(600)
    for step in range(60):
        with torch.inference_mode(step % 2 == 0):
            sketch._update(torch.from_numpy(rows[10 * step : 10 * step + 10]))
    np.testing.assert_allclose(sketch.mean, seen(rows, exponents=sketch.exponents).mean, atol=1e-6)


# States and arguments


def damaged(**changes):
    return seen(normal(100), frequencies=8).state() | changes


def waiting(**changes):
    return seen(normal(3), frequencies=8).state() | changes


@pytest.mark.parametrize(
    "state",
    [
        {},
        damaged(dim=np.array(0)),
        damaged(dim=np.array(2**40)),
        damaged(dim=np.array(5)),
        damaged(frequencies=np.array(9)),
        damaged(frequencies=np.array(2**40)),
        damaged(seed=np.array(-1)),
        damaged(n=np.array(101)),
        damaged(n=np.array(1)),
        damaged(rows_seen=np.array(5)),
        damaged(exponents=np.array([0, 2, 4])),
        damaged(exponents=np.array([1, 2])),
        damaged(exponents=np.array([2**62, 2**62 + 1, 2**62 + 2])),
        damaged(exponents=np.array([0.0, 1.0, 2.0])),
        damaged(sums=np.full((3, 16), np.nan)),
        damaged(sums=np.full((3, 16), 101.0)),
        damaged(sums=np.zeros((3, 15))),
        damaged(pending=np.zeros((1, 4), np.float32)),
        waiting(pending=np.zeros((16, 4), np.float32)),
        waiting(pending=np.zeros((3, 5), np.float32)),
        waiting(pending=np.zeros((3, 4))),
        waiting(n=np.array(4)),
    ],
)
def test_hostile_states_raise_our_error(state):
    with pytest.raises(FormatError):
        KernelMean.from_state(state)


def test_a_state_that_announces_a_huge_width_takes_no_memory_for_it():
    state = KernelMean(4).state() | {"dim": np.array(2**17), "pending": np.zeros((0, 2**17), np.float32)}
    assert KernelMean.from_state(state).n == 0


def test_a_state_of_few_bytes_cannot_announce_gigabytes_of_frequencies():
    rows = np.zeros((3, 2**20), np.float32)
    state = KernelMean(4).state() | {"dim": np.array(2**20), "pending": rows, "rows_seen": np.array(3)}
    with pytest.raises(FormatError, match="1048576 columns with 256 frequencies"):
        KernelMean.from_state(state)
    with pytest.raises(InputError, match="fewer columns"):
        KernelMean(2**20)


@pytest.mark.parametrize("kwargs", [{"dim": 0}, {"dim": 2.0}, {"frequencies": 1}, {"seed": -1}, {"exponents": (1, 3)}])
def test_parameters_out_of_range_are_refused(kwargs):
    with pytest.raises(InputError, match=next(iter(kwargs))):
        KernelMean(**{"dim": 4} | kwargs)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (2, 4, 1)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(InputError, match=re.escape("rows should be [n, 4]")):
        KernelMean(4).update(np.zeros(shape))


# Random Fourier features against the kernel they approximate.

#: First of the frequencies of dim 2, F 3, and the sum of those of dim 512, F 256: baselines depend on them.
GOLDEN = np.array([-0.5580243468284607, 0.7410773038864136, 3.6892688274383545, 0.6360177993774414], np.float32)
GOLDEN_SUM = 279.6204539333857


def normal_rows(n=200, dim=5, scale=1.0, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, dim)) * scale).astype(np.float32)


def test_frequencies_are_standard_normal_and_uncorrelated():
    frequencies = random_frequencies(64, 512, 3)
    assert (frequencies.shape, frequencies.dtype) == ((64, 512), np.float32)
    assert stats.kstest(frequencies.ravel(), "norm").pvalue > 0.001
    correlation = np.corrcoef(frequencies)[np.triu_indices(64, 1)]
    assert np.abs(correlation).max() < 5 / 512**0.5


def test_frequencies_do_not_change_between_releases():
    np.testing.assert_array_equal(random_frequencies(2, 3, 20071).ravel()[:4], GOLDEN)
    assert random_frequencies(512, 256, 20071).astype(np.float64).sum() == pytest.approx(GOLDEN_SUM, rel=1e-9)


def test_frequencies_depend_on_every_parameter_and_cannot_be_written_to():
    a = random_frequencies(4, 8, 0)
    for other in (random_frequencies(4, 8, 1), random_frequencies(4, 9, 0)[:, :8], random_frequencies(5, 8, 0)[:4]):
        assert not np.array_equal(a, other)
    assert random_frequencies(4, 8, 0) is a
    with pytest.raises(ValueError, match="read-only"):
        a[0, 0] = 0


@pytest.mark.parametrize("top", [-2, 0, 3])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_products_of_waves_approximate_the_gaussian_kernel(top, as_tensor):
    x, frequencies = normal_rows(60, scale=2.0**top), random_frequencies(5, 8192, 1)
    if as_tensor:
        valid, bands = waves(
            torch.from_numpy(x), torch.from_numpy(frequencies.astype(np.float64)), torch.tensor(top), 3
        )
    else:
        valid, bands = waves(x, frequencies, top, 3)
    assert np.asarray(valid).all()
    for exponent, band in zip(range(top - 2, top + 1), bands, strict=True):
        cosines, sines = map(np.asarray, band)
        assert cosines.dtype == (np.float64 if as_tensor else np.float32)
        approximate = (cosines @ cosines.T + sines @ sines.T) / 8192
        exact = np.exp(-cdist(x, x, "sqeuclidean") / (2 * 4.0**exponent))
        np.testing.assert_allclose(approximate, exact, atol=5 / 8192**0.5)
        np.testing.assert_allclose(cosines**2 + sines**2, 1, atol=1e-5)


def test_doubled_angles_equal_computed_ones():
    x, frequencies = normal_rows(100, scale=3.0), random_frequencies(5, 64, 1)
    _, bands = waves(x, frequencies, 1, 3)
    products = x.astype(np.float64) @ frequencies.astype(np.float64)
    for exponent, (cosines, sines) in zip((-1, 0, 1), bands, strict=True):
        np.testing.assert_allclose(cosines, np.cos(products / 2.0**exponent), atol=3e-5)
        np.testing.assert_allclose(sines, np.sin(products / 2.0**exponent), atol=3e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_rows_without_angles_are_marked(value, library):
    x = normal_rows(4)
    x[2, 1:] = value
    valid, [(cosines, _)] = waves(library(x), library(random_frequencies(5, 64, 1).copy()), 0, 1)
    assert valid.tolist() == [True, True, False, True]
    assert np.isfinite(np.asarray(cosines)).all()


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 7.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_the_exponent_is_nearest_to_the_median_distance(scale, offset, library):
    x = normal_rows(101, scale=scale) + np.float32(offset * scale)
    expected = np.round(np.log2(np.median(pdist(x.astype(np.float64)))))
    assert float(nearest_exponent(library(x))) == expected


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_the_exponent_where_there_is_no_median_distance(library):
    cases = {
        "constant rows": np.full((20, 3), 7.3, np.float32),
        "zeros": np.zeros((20, 3), np.float32),
        "one row": normal_rows(1, 3),
        "all invalid": np.full((20, 3), np.nan, np.float32),
        "one valid row": np.concatenate([normal_rows(1, 3), np.full((5, 3), np.inf, np.float32)]),
        "no rows but one": np.zeros((1, 3), np.float32),
    }
    for name, x in cases.items():
        assert float(nearest_exponent(library(x))) == 0, name


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_the_exponent_passes_over_equal_and_invalid_rows(library):
    x = np.zeros((40, 2), np.float32)
    x[30:35] = [[100.0, 0.0]]  # most pairs are at no distance, the rest 100 apart: 2**6.64
    x[35:] = np.nan
    assert float(nearest_exponent(library(x))) == 7


@pytest.mark.parametrize(("value", "expected"), [(1e-30, -40), (1e30, 40), (3.4e38, 40)])
def test_the_exponent_stays_in_range(value, expected):
    assert float(nearest_exponent(np.array([[0.0], [value]], np.float32))) == expected


def test_an_accelerator_is_never_waited_for(accelerator):
    exponent = nearest_exponent(accelerator((20, 5)))
    valid, bands = waves(accelerator((20, 5)), accelerator((5, 7), torch.float64), exponent, 3)
    assert (exponent.shape, valid.shape, len(bands)) == ((), (20,), 3)
    assert all(wave.device.type == "cuda" and wave.shape == (20, 7) for band in bands for wave in band)


@pytest.mark.parametrize("exponents", [(0,), [-3, -2], (39, 40, 41), np.array([1, 2, 3])])
def test_consecutive_whole_numbers_are_exponents(exponents):
    assert are_exponents(exponents)
    assert checked_exponents(exponents) == tuple(exponents)


@pytest.mark.parametrize("exponents", [(), (1, 3), (3, 2, 1), (1, 2, 3, 4), (40, 41, 42), (-42,), (1, 1)])
def test_other_numbers_are_not(exponents):
    assert not are_exponents(exponents)
    with pytest.raises(InputError, match="exponents should be"):
        checked_exponents(exponents)
