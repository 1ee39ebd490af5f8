"""Random Fourier features against the kernel they approximate."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import cdist, pdist

from lensai_integrations.errors import InputError
from lensai_integrations.sketches.kernel_mean import (
    are_exponents,
    checked_exponents,
    nearest_exponent,
    random_frequencies,
    waves,
)

#: First of the frequencies of dim 2, F 3, and the sum of those of dim 512, F 256: baselines depend on them.
GOLDEN = np.array([-0.5580243468284607, 0.7410773038864136, 3.6892688274383545, 0.6360177993774414], np.float32)
GOLDEN_SUM = 279.6204539333857


def rows(n=200, dim=5, scale=1.0, seed=0):
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
    x, frequencies = rows(60, scale=2.0**top), random_frequencies(5, 8192, 1)
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
    x, frequencies = rows(100, scale=3.0), random_frequencies(5, 64, 1)
    _, bands = waves(x, frequencies, 1, 3)
    products = x.astype(np.float64) @ frequencies.astype(np.float64)
    for exponent, (cosines, sines) in zip((-1, 0, 1), bands, strict=True):
        np.testing.assert_allclose(cosines, np.cos(products / 2.0**exponent), atol=3e-5)
        np.testing.assert_allclose(sines, np.sin(products / 2.0**exponent), atol=3e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_rows_without_angles_are_marked(value, library):
    x = rows(4)
    x[2, 1:] = value
    valid, [(cosines, _)] = waves(library(x), library(random_frequencies(5, 64, 1).copy()), 0, 1)
    assert valid.tolist() == [True, True, False, True]
    assert np.isfinite(np.asarray(cosines)).all()


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 7.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 10.0])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_the_exponent_is_nearest_to_the_median_distance(scale, offset, library):
    x = rows(101, scale=scale) + np.float32(offset * scale)
    expected = np.round(np.log2(np.median(pdist(x.astype(np.float64)))))
    assert float(nearest_exponent(library(x))) == expected


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_the_exponent_where_there_is_no_median_distance(library):
    cases = {
        "constant rows": np.full((20, 3), 7.3, np.float32),
        "zeros": np.zeros((20, 3), np.float32),
        "one row": rows(1, 3),
        "all invalid": np.full((20, 3), np.nan, np.float32),
        "one valid row": np.concatenate([rows(1, 3), np.full((5, 3), np.inf, np.float32)]),
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
