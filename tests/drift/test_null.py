"""Halves, windows, and the null distribution against a plain loop over the same draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.drift.features import ClassShares, Distributions, Principal
from lensai_integrations.drift.null import Halves, Null, null_of
from lensai_integrations.errors import InputError


@settings(max_examples=40, deadline=None)
@given(st.integers(8, 300), st.integers(1, 6), st.integers(0, 99))
def test_halves_are_disjoint_and_windows_nested(rows, draws, seed):
    halves = Halves.draw(rows, (5, 10, 50, 200), draws, seed)
    assert halves.order.shape == (draws, rows)
    assert (np.sort(halves.order, axis=1) == np.arange(rows)).all()
    assert rows * 0.35 <= halves.half <= rows / 2 + 1
    weights = halves.weights(slice(None))
    assert weights.shape == (draws, 1 + len(halves.sizes), rows)
    assert (weights.sum(axis=2) == [halves.half, *np.diff([0, *halves.sizes])]).all()
    assert (weights.sum(axis=1) <= 1).all()  # no row twice: windows share none with what they are held against
    windows = np.cumsum(weights[:, 1:], axis=1)
    assert (windows.sum(axis=2) == halves.sizes).all()


def test_weights_of_some_draws_are_those_of_all():
    halves = Halves.draw(50, (5, 20), draws=7, seed=1)
    np.testing.assert_array_equal(halves.weights(slice(2, 5)), halves.weights(slice(None))[2:5])


def test_each_row_is_equally_likely():
    halves = Halves.draw(20, (5,), draws=4000, seed=0)
    half, window = halves.weights(slice(None)).mean(axis=0)
    np.testing.assert_allclose(half, halves.half / 20, atol=0.05)  # 6 standard errors
    np.testing.assert_allclose(window, 5 / 20, atol=0.045)


def test_the_order_of_sizes_does_not_matter():
    np.testing.assert_array_equal(Halves.draw(50, (20, 5), 3, 0).order, Halves.draw(50, (5, 20, 5), 3, 0).order)
    assert Halves.draw(50, (20, 5, 900), 3, 0).sizes == (5, 20)


def test_too_few_rows_say_how_many_are_needed():
    with pytest.raises(InputError, match="7 rows are too few to calibrate: 8"):
        Halves.draw(7, (5,), 3, 0)


def blocks(rng, kind):
    if kind == "classes":
        rows = rng.integers(0, 3, (40, 1)).astype(np.float32)
        return rows, ClassShares.of(rows)
    rows = rng.normal(size=(40, 70)).astype(np.float32)
    return (rows, Distributions.of(rows)) if kind == "streams" else (rows[:, :3], Principal.of(rows[:, :3]))


@pytest.mark.parametrize("kind", ["streams", "classes", "rows"])
@pytest.mark.parametrize("draws", [3, 130])
def test_the_null_is_that_of_a_plain_loop(rng, kind, draws):
    rows, block = blocks(rng, kind)
    halves = Halves.draw(40, (5, 15), draws, seed=3)
    told = []
    null = null_of(block, rows, halves, told.append)
    assert sum(told) == block.streams
    for place, size in enumerate(halves.sizes):
        found = []
        for order in halves.order:
            against, window = rows[order[: halves.half]], rows[order[halves.half : halves.half + size]]
            scale = np.float32((halves.half * size / (halves.half + size)) ** 0.5)
            found.append(block.compare(block.mean(against), block.mean(window), scale))
        values = np.array(found)
        centre, spread = values.mean(axis=0), np.maximum(values.std(axis=0), block.least_spread)
        np.testing.assert_allclose(null.centre[place], centre, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(null.spread[place], spread, rtol=1e-3, atol=1e-4)
        largest = ((values - centre) / spread).max(axis=2).T
        np.testing.assert_allclose(null.largest[place], largest, rtol=1e-2, atol=0.01)


def test_p_values_of_draws_are_about_uniform(rng):
    rows = rng.normal(size=(400, 5)).astype(np.float32)
    null = null_of(Distributions.of(rows), rows, Halves.draw(400, (20,), 400, 0))
    p = np.exp(null.log_p(null.largest[0], 0))
    for level in (0.05, 0.2, 0.5, 0.8):
        np.testing.assert_allclose((p < level).mean(axis=1), level, atol=0.08)


def test_standardised_values():
    null = Null(np.array([[[1.0, 2]]]), np.array([[[2.0, 4]]]), np.zeros((1, 1, 3)))
    assert null.standard(np.array([[3.0, 2]]), 0).tolist() == [[1, 0]]
