"""Histograms and percentiles against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from datasketches import kll_floats_sketch
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations import calculate_percentiles, get_histogram_sketch
from lensai_integrations.errors import InputError


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.integers(0, 20), st.integers(0, 20))
def test_percentiles_are_those_of_the_values(values: list[int], low: int, high: int) -> None:
    found = calculate_percentiles(values, [1 / len(values)] * len(values), low / 20, high / 20)
    assert found == tuple(np.quantile(values, [low / 20, high / 20], method="inverted_cdf"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], [1.0]), "same length"),
        (([], []), "same length"),
        (([1, 2], [0.5, 0.4]), "add up to 1"),
        (([1, 2], [1.5, -0.5]), "at least 0"),
        (([1, 2], [0.5, 0.5], -0.1), "lower_percentile=-0.1"),
        (([1, 2], [0.5, 0.5], 0.1, 99), "upper_percentile=99"),
    ],
)
def test_bad_histograms_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calculate_percentiles(*arguments)


def test_a_histogram_holds_everything() -> None:
    values = np.random.default_rng(0).normal(size=150).astype(np.float32)  # fewer than are thinned: exact
    sketch = kll_floats_sketch()
    sketch.update(values)
    ends, shares = get_histogram_sketch(sketch, num_splits=7)
    assert (ends[0], ends[-1]) == (values.min(), values.max())
    np.testing.assert_allclose(np.cumsum(shares), [(values <= end).mean() for end in ends])
    assert len(get_histogram_sketch(sketch)[0]) == 31


def test_histograms_of_one_value_and_of_none() -> None:
    sketch = kll_floats_sketch()
    assert get_histogram_sketch(sketch) == (None, None)
    sketch.update(3.0)
    ends, shares = get_histogram_sketch(sketch, 2)
    assert (set(ends), sum(shares)) == ({3.0}, 1.0)
    with pytest.raises(InputError, match="num_splits=0"):
        get_histogram_sketch(sketch, 0)
