"""Distances of rows as vectors, against scipy, torchmetrics, scikit-learn and sums written out."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist, cosine, jensenshannon, pdist
from scipy.stats import kstest, wasserstein_distance

from lensai_integrations.drift import vector_distances as v
from lensai_integrations.errors import InputError, MissingDependencyError
from lensai_integrations.sketches.moments import Moments


@pytest.fixture
def sides(rng):
    """Correlated rows, and others that are shifted a little."""
    mixing = rng.normal(size=(6, 6))
    return rng.normal(size=(80, 6)) @ mixing, rng.normal(0.4, 1, size=(50, 6)) @ mixing


def gaussian(x, y, bandwidth):
    return np.exp(-cdist(x, y, "sqeuclidean") / (2 * bandwidth**2))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("chunk", [1, 700, 1 << 22])
def test_mmd_is_the_sum_over_pairs(sides, unbiased, chunk, monkeypatch):
    monkeypatch.setattr(v, "_CHUNK", chunk)
    x, y = sides
    xx, yy, xy = gaussian(x, x, 2.5), gaussian(y, y, 2.5), gaussian(x, y, 2.5)
    without = (xx.sum() - 80) / (80 * 79) + (yy.sum() - 50) / (50 * 49)
    within = without if unbiased else xx.mean() + yy.mean()
    assert v.mmd(x, y, 2.5, unbiased=unbiased) == pytest.approx(within - 2 * xy.mean(), abs=1e-12)


def test_the_bandwidth_is_the_median_distance(sides):
    x, y = sides
    assert v.mmd(x, y) == v.mmd(x, y, float(np.median(pdist(np.concatenate(sides)))))


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_mmd_is_right_far_from_zero(sides, offset):
    x, y = (np.round(rows, 3) for rows in sides)
    assert v.mmd(x + offset, y + offset, 2.0) == pytest.approx(v.mmd(x, y, 2.0), abs=1e-8)


def test_mmd_of_rows_with_themselves_and_of_rows_that_are_all_alike(sides):
    assert v.mmd(sides[0], sides[0], unbiased=False) == pytest.approx(0, abs=1e-12)
    same = np.ones((5, 3))
    assert v.mmd(same, same) == v.mmd(same, same, unbiased=False) == 0
    mostly = np.concatenate([np.zeros((20, 3)), np.ones((2, 3))])
    assert v.mmd(mostly[:11], mostly[11:]) > 0


def test_mmd_takes_less_than_the_whole_matrix(rng):
    """Of 20,000 rows that would be 3.2 GB; here a tenth of them, and a chunk of 32 kB."""
    tracemalloc = pytest.importorskip("tracemalloc")
    rows = rng.normal(size=(2000, 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(v, "_CHUNK", 1 << 12)
        tracemalloc.start()
        v.mmd(rows[:1000], rows[1000:], 1.0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


def test_the_permutation_tests_statistic_is_the_unbiased_mmd(sides):
    found = v.mmd_test(*sides, permutations=10)
    assert found.mmd == pytest.approx(v.mmd(*sides), abs=1e-12)
    assert found.bandwidth == pytest.approx(float(np.median(pdist(np.concatenate(sides)))))
    assert v.mmd_test(*sides, bandwidth=0.7, permutations=10).mmd == pytest.approx(v.mmd(*sides, 0.7), abs=1e-12)


def test_shuffles_are_those_of_the_rows(sides, rng):
    rows = np.concatenate(sides)
    kernel = gaussian(rows, rows, 2.0) - np.eye(len(rows))
    orders = np.array([rng.permutation(len(rows)) for _ in range(5)])
    expected = [v.mmd(rows[order[:80]], rows[order[80:]], 2.0) for order in orders]
    np.testing.assert_allclose(v._shuffled(kernel, 80, orders), expected, atol=1e-12)


def test_permutation_p_values_are_uniform_when_nothing_moved(rng):
    p = [v.mmd_test(*rng.normal(size=(2, 20, 3)), permutations=99, seed=i).p_value for i in range(200)]
    assert kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) <= 0.05) <= 0.12


def test_a_permutation_test_repeats_and_finds_a_shift(sides):
    assert v.mmd_test(*sides, permutations=199, seed=3) == v.mmd_test(*sides, permutations=199, seed=3)
    far = v.mmd_test(sides[0], sides[1] + 3, permutations=199)
    assert (far.p_value, far.permutations) == (1 / 200, 199)
    assert v.mmd_test(np.ones((4, 2)), np.ones((3, 2)), permutations=50).p_value == 1.0


def test_a_matrix_that_is_too_large_is_refused(monkeypatch, sides):
    monkeypatch.setattr(v, "_LARGEST_MATRIX", 129)
    with pytest.raises(InputError, match="80 and 50 rows"):
        v.mmd_test(*sides)


def test_frechet_is_torchmetrics_fid(sides):
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")
    moments = [(rows.mean(axis=0), np.cov(rows.T)) for rows in sides]
    expected = fid._compute_fid(*(torch.from_numpy(each) for side in moments for each in side))
    assert v.frechet_distance(*sides) == pytest.approx(float(expected), rel=1e-9)
    assert v.frechet_distance(*moments) == pytest.approx(float(expected), rel=1e-9)
    assert v.frechet_distance(sides[0], moments[1]) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_is_that_of_scipys_root(sides):
    (a, one), (b, two) = ((rows.mean(axis=0), np.cov(rows.T)) for rows in sides)
    expected = np.sum((a - b) ** 2) + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert v.frechet_distance(*sides) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_fewer_rows_than_columns(rng):
    few, other = rng.normal(size=(10, 40)), rng.normal(size=(15, 40))
    assert v.frechet_distance(few, few) == pytest.approx(0, abs=1e-6)
    assert v.frechet_distance(few, few + 2) == pytest.approx(160, rel=1e-6)
    assert v.frechet_distance(few, other) == pytest.approx(v.frechet_distance(other, few), rel=1e-6)
    assert v.frechet_distance(few[:, :1], other[:, :1]) >= 0


def test_frechet_of_a_profiles_moments(sides):
    kept = []
    for rows in sides:
        moments = Moments(6)
        moments.update(rows)
        kept.append((moments.mean, moments.covariance))
    found = v.frechet_distance(*kept)
    assert found == pytest.approx(v.frechet_distance(*sides), rel=0.05)


def test_k_means_bins_are_the_baselines(rng):
    """Blobs that no start of k-means misses: the shares are those of the blobs."""
    centres = 100 * np.eye(5)
    baseline = np.repeat(centres, 20, axis=0) + rng.normal(size=(100, 5))
    counts = np.array([10, 0, 5, 25, 60])
    window = np.repeat(centres, counts, axis=0) + rng.normal(size=(100, 5))
    expected = jensenshannon(np.full(5, 0.2), counts / 100, base=2)
    assert v.k_means_distance(baseline, window) == pytest.approx(expected, rel=1e-9)
    assert v.k_means_distance(baseline, window, seed=1) == pytest.approx(expected, rel=1e-9)
    assert v.k_means_distance(baseline, window, n_clusters=1) == 0


def test_k_means_of_rows_that_are_all_alike():
    assert v.k_means_distance(np.ones((10, 3)), np.ones((4, 3))) == 0


def test_centroids(sides):
    a, b = (rows.mean(axis=0) for rows in sides)
    assert v.centroid_distance(*sides) == pytest.approx(np.sqrt(((a - b) ** 2).sum()), rel=1e-12)
    assert v.centroid_distance(*sides, metric="cosine") == pytest.approx(cosine(a, b), rel=1e-9)


def test_sliced_wasserstein_is_the_mean_of_scipys(sides):
    x, y = sides
    axes = v.random_directions(6, 130, seed=4)
    expected = np.mean([wasserstein_distance(x @ axis, y @ axis) for axis in axes])
    assert v.sliced_wasserstein(x, y, directions=130, seed=4) == pytest.approx(expected, rel=1e-12)


def test_a_classifiers_auc_is_scikit_learns(sides):
    linear = pytest.importorskip("sklearn.linear_model")
    selection, pre = pytest.importorskip("sklearn.model_selection"), pytest.importorskip("sklearn.preprocessing")
    metrics = pytest.importorskip("sklearn.metrics")
    rows, side = np.concatenate(sides), np.repeat([0, 1], [80, 50])
    found = []
    for fit, held in selection.StratifiedKFold(4, shuffle=True, random_state=2).split(rows, side):
        scale = pre.StandardScaler().fit(rows[fit])
        model = linear.LogisticRegression(max_iter=1000).fit(scale.transform(rows[fit]), side[fit])
        found.append(metrics.roc_auc_score(side[held], model.decision_function(scale.transform(rows[held]))))
    assert v.classifier_auc(*sides, folds=4, seed=2) == pytest.approx(np.mean(found), rel=1e-9)


def test_a_classifier_sees_a_shift_and_nothing_in_nothing(rng):
    pytest.importorskip("sklearn")
    rows = rng.normal(size=(600, 5))
    assert abs(v.classifier_auc(rows[:300], rows[300:]) - 0.5) < 0.1
    assert v.classifier_auc(rows[:300], rows[300:] + 2) > 0.99


def test_without_scikit_learn_the_error_names_the_extra(sides, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependencyError, match=r"lensai-integrations\[classifier\]"):
        v.classifier_auc(*sides)


EVERY = {
    "mmd": v.mmd,
    "mmd_test": v.mmd_test,
    "frechet": v.frechet_distance,
    "k_means": v.k_means_distance,
    "centroid": v.centroid_distance,
    "sliced": v.sliced_wasserstein,
    "auc": v.classifier_auc,
}


@pytest.mark.parametrize("name", EVERY)
def test_bad_rows_are_refused_by_name(name, sides):
    x, y = sides
    holed = y.copy()
    holed[3, 2] = np.nan
    bad = (holed, "NaN"), (y[:, 0], r"\(50,\)"), (y[:, :4], "6 columns and window 4|columns"), (y[:0], r"\(0, 6\)")
    for rows, message in (*bad, (np.array([["a"]]), "window should be an array of numbers")):
        with pytest.raises(InputError, match=message):
            EVERY[name](x, rows)
    with pytest.raises(InputError, match="baseline"):
        EVERY[name](holed, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, y: v.mmd(x, y, bandwidth=0), "bandwidth=0"),
        (lambda x, y: v.mmd(x, y, bandwidth=float("nan")), "bandwidth=nan"),
        (lambda x, y: v.mmd(x, y[:1]), "at least 2"),
        (lambda x, y: v.mmd_test(x, y, permutations=0), "permutations=0"),
        (lambda x, y: v.k_means_distance(x, y, n_clusters=81), "n_clusters=81"),
        (lambda x, y: v.k_means_distance(x, y, n_clusters=0), "n_clusters=0"),
        (lambda x, y: v.centroid_distance(x, y, metric="l1"), "metric='l1'"),
        (lambda x, y: v.centroid_distance(np.zeros((2, 6)), y, metric="cosine"), "no direction"),
        (lambda x, y: v.sliced_wasserstein(x, y, directions=0), "directions=0"),
        (lambda x, y: v.classifier_auc(x, y, folds=1), "folds=1"),
        (lambda x, y: v.classifier_auc(x, y[:4]), "at least 5"),
        (lambda x, y: v.frechet_distance((np.zeros(3), np.eye(4)), y), "mean"),
        (lambda x, y: v.frechet_distance((np.zeros(3), np.eye(3)), y), "3 columns and window 6"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message, sides):
    with pytest.raises(InputError, match=message):
        call(*sides)


def test_float32_rows_are_computed_in_float64(sides):
    x, y = (rows.astype(np.float32) for rows in sides)
    for name in ("mmd", "frechet", "centroid", "sliced"):
        assert EVERY[name](x, y) == EVERY[name](x.astype(float), y.astype(float)), name


@pytest.mark.parametrize("scale", [1e-320, 1e-170, 1e60])
def test_rows_of_any_unit_have_distances(scale):
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 40, 3)) * scale
    for distance in (v.frechet_distance, v.k_means_distance, v.centroid_distance, v.sliced_wasserstein, v.mmd):
        assert 0 <= distance(one, two) < np.inf


@pytest.mark.parametrize("scale", [1e75, 1e160, 1e308])
def test_rows_whose_squares_cannot_be_added_up_are_refused(scale):
    """SciPy's k-means ends the process on them."""
    rows = np.ones((40, 3)) * scale
    for distance in (
        v.frechet_distance,
        v.k_means_distance,
        v.centroid_distance,
        v.sliced_wasserstein,
        v.mmd,
        v.mmd_test,
    ):
        with pytest.raises(InputError, match=r"window has numbers as large as 1e\+\d+, .*: divide both sides"):
            distance(rows / scale, rows)
    with pytest.raises(InputError, match="baseline has numbers"):
        v.frechet_distance((rows[0], np.eye(3)), (rows[0], np.eye(3)))
