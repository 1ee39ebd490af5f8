"""Per-row scores: the formula against a plain computation, uniform on clean rows, small on shifted ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitors import numbers, small_baseline
from profiles import batch, make_baseline
from scipy.stats import kstest
from sklearn.neighbors import NearestNeighbors

from lensai_integrations import DriftMonitor
from lensai_integrations.drift.rounding import Rounding
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.scores import Conformal
from lensai_integrations.profiles.groups import Group


def plain(kept, new, k):
    """The formula of the module, row by row, with scikit-learn's neighbours."""
    r = len(next(iter(kept.values())))
    result = []
    for j in range(len(next(iter(new.values())))):
        a = np.full(r + 1, -np.inf)
        for name, rows in kept.items():
            mean, scale = rows.mean(axis=0), rows.std(axis=0)
            alone = (rows - mean) / scale
            both = np.vstack([alone, (new[name][j] - mean) / scale])
            # A row is its own first neighbour.
            own = NearestNeighbors(n_neighbors=k + 1).fit(alone).kneighbors(alone)[0][:, k]
            unit = np.quantile(own, 0.95) - np.median(own)
            found = NearestNeighbors(n_neighbors=k + 1).fit(both).kneighbors(both)[0][:, k]
            a = np.maximum(a, (found - np.median(own)) / unit)
        result.append((1 + np.sum(a[:r] >= a[r])) / (r + 1))
    return np.array(result)


@settings(max_examples=15, deadline=None)
@given(r=st.integers(8, 40), widths=st.lists(st.integers(1, 6), min_size=1, max_size=3), k=st.integers(1, 5),
       seed=st.integers(0, 2**16))  # fmt: skip
def test_the_formula(r, widths, k, seed):
    rng = np.random.default_rng(seed)
    kept = {str(i): rng.normal(size=(r, d)) * rng.uniform(0.1, 9) + 5 for i, d in enumerate(widths)}
    new = {name: rows[:4] * 1.01 + rng.normal(size=(4, rows.shape[1])) for name, rows in kept.items()}
    # Ties of exactly equal distances may fall either way in the last bit.
    np.testing.assert_allclose(Conformal(kept, k).p_values(new), plain(kept, new, k), atol=1.01 / (r + 1))


def test_clean_rows_are_uniform():
    """Twenty references of 200 rows, 100 clean rows each: the p-values of each row alone, over the references."""
    rng = np.random.default_rng(0)
    p = np.concatenate([
        Conformal({"a": rng.normal(size=(200, 4)), "b": rng.standard_t(3, size=(200, 10))}).p_values(
            {"a": rng.normal(size=(25, 4)), "b": rng.standard_t(3, size=(25, 10))}
        )
        for _ in range(80)
    ])  # fmt: skip
    assert p.min() >= 1 / 201
    assert p.max() <= 1
    assert kstest(p, "uniform").pvalue > 0.01
    for level in (0.05, 0.1, 0.5):  # within five standard errors
        assert abs(np.mean(p <= level) - level) < 5 * np.sqrt(level * (1 - level) / p.size) + 1 / 201


def test_shifted_rows_are_small_and_a_narrow_group_does_not_hide_a_wide_one():
    rng = np.random.default_rng(1)
    kept = {"narrow": rng.normal(size=(300, 2)), "wide": rng.normal(size=(300, 256))}
    new = {"narrow": rng.normal(size=(50, 2)), "wide": rng.normal(size=(50, 256)) * 1.3}
    assert np.median(Conformal(kept).p_values(new)) <= 0.02


def test_rows_that_are_not_finite_are_the_least_usual_of_all():
    kept = {"a": numbers(100)}
    new = {"a": np.array([[np.nan, 0, 0], [0, np.inf, 0], [0.0, 0, 0]])}
    p = Conformal(kept).p_values(new)
    assert p[:2].tolist() == [1 / 101] * 2
    assert p[2] > 0.5
    with_gaps = {"a": np.vstack([kept["a"], np.full((9, 3), np.nan)])}
    assert Conformal(with_gaps).p_values(new)[0] == 10 / 110


def test_a_column_that_never_varied():
    kept = {"a": np.column_stack([numbers(100), np.full(100, 7.0)])}
    new = np.column_stack([numbers(20, seed=5), np.full(20, 7.0)])
    assert np.median(Conformal(kept).p_values({"a": new})) > 0.2
    new[:, 3] = 8
    assert Conformal(kept).p_values({"a": new}).max() == 1 / 101


def test_blocks_change_nothing(monkeypatch):
    kept, new = {"a": numbers(50)}, {"a": numbers(30, seed=1)}
    whole = Conformal(kept).p_values(new)
    monkeypatch.setattr("lensai_integrations.monitoring.scores._BLOCK", 100)
    assert Conformal(kept).p_values(new).tolist() == whole.tolist()


def test_a_monitor_scores_images_in_their_order():
    monitor = DriftMonitor(make_baseline(500))
    rng = np.random.default_rng(2)
    dark, clean = batch(rng, 40, brightness=0.4), batch(rng, 200)
    mixed = np.concatenate([clean["inputs"][:20], dark["inputs"], clean["inputs"][20:]])
    p = monitor.score(inputs=mixed)
    assert p.shape == (240,)
    assert np.median(p[20:60]) < 0.02
    assert 0.3 < np.median(np.delete(p, slice(20, 60))) < 0.7
    np.testing.assert_allclose(monitor.score(inputs=mixed[21]), p[21:22], atol=0.01)  # one image without a batch axis
    outputs = {"outputs": clean["outputs"], "embeddings": clean["embeddings"]}
    assert 0.3 < np.median(monitor.score(**outputs)) < 0.7
    assert monitor.status.rows == 0
    assert monitor.score(outputs=clean["outputs"][:0]).shape == (0,)


def test_what_cannot_be_scored_raises():
    monitor = DriftMonitor(small_baseline())
    with pytest.raises(InputError, match="nothing to score"):
        monitor.score(embeddings={"x": np.zeros((2, 3))})
    with pytest.raises(InputError, match="keeps more than 5 rows"):
        DriftMonitor(small_baseline(rows=3)).score(outputs=numbers(2))


@pytest.mark.parametrize(("precision", "noise"), [("", 6e-7), ("float16", 1e-3), ("bfloat16", 4e-3)])
def test_constants_that_are_rounded_otherwise_make_no_row_unusual(precision, noise):
    """Most of the columns are constant, and come out of another library a little off, all one way."""
    rng, still = np.random.default_rng(0), np.full((400, 40), 3.0)
    kept = {"a": np.concatenate([rng.normal(size=(400, 4)), still], axis=1)}
    new = np.concatenate([rng.normal(size=(400, 4)), still * (1 + noise)], axis=1)
    roundings = {"a": Rounding.of(Group("a", info={"precision": precision}))}
    p = Conformal(kept, roundings=roundings).p_values({"a": new})
    assert np.mean(p < 0.05) < 0.1
    assert Conformal(kept, roundings=roundings).p_values({"a": new + 3.0}).max() == pytest.approx(1 / 401)
