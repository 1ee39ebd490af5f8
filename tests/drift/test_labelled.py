"""What labels say: held against scipy and counting by hand; classes that fell are told, and none by chance."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact, hypergeom

from lensai_integrations import Profile, Profiler, compare
from lensai_integrations.drift.labelled import (
    CHANCE,
    MOST_CONFUSIONS,
    MOST_IN_MATRIX,
    MOST_RECALLS,
    fisher_p_values,
    labelled,
    wilson,
)
from lensai_integrations.drift.significance import holm

NAMES = ["cat", "dog", "ant"]


def profile_of(labels, answers, *, classes=3, names=None, rows=2000, seed=1):
    """A profile of a model that is sure of these answers."""
    profiler = Profiler(seed=seed, rows=rows)
    if names:
        profiler.describe("outputs", class_names=names)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(answers), classes)) + 9 * np.eye(classes)[answers]
    profiler.update(outputs=logits.astype(np.float32), **({} if labels is None else {"labels": np.asarray(labels)}))
    return profiler.profile()


def drawn(rng, n, right, classes=3):
    """Labels, and answers that are right in these shares of each class, else the next class."""
    labels = rng.integers(0, classes, n)
    hit = rng.random(n) < np.broadcast_to(right, classes)[labels]
    return labels, np.where(hit, labels, (labels + 1) % classes)


def test_by_hand():
    before = profile_of([0, 0, 0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1, 2, 2], names=NAMES)
    after = profile_of([0, 0, 1, 1, 1, 1, -1], [1, 1, 1, 1, 0, 2, 2])
    found = labelled(before, after, "outputs")
    assert (found.rows, found.of) == (6, 7)
    assert found.change == pytest.approx(2 / 6 - 7 / 8)
    assert found.change_low < found.change < found.change_high
    recalls = {r.name: (r.baseline, r.window, r.n_baseline, r.n_window) for r in found.recalls}
    assert recalls == {"cat": (0.75, 0, 4, 2), "dog": (1, 0.5, 2, 4)}  # no ant in the window
    assert (found.classes, found.matrix) == (("cat", "dog", "ant"), ((0, 2, 0), (1, 2, 1), (0, 0, 0)))
    first = found.confusions[0]
    assert (first.truth, first.answer, first.rows, first.share, first.baseline) == ("cat", "dog", 2, 1.0, 0.25)
    assert found.moved == 0


def test_newcombes_interval():
    """His example (method 10): 56 of 70 against 48 of 80."""
    found = labelled(profile_of([0] * 70, [0] * 56 + [1] * 14), profile_of([0] * 80, [0] * 48 + [1] * 32), "outputs")
    assert (-found.change_high, -found.change_low) == pytest.approx((0.0524, 0.3339), abs=2e-4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 40)] * 2, *[st.floats(0, 1)] * 2), min_size=1, max_size=8))
def test_fishers_test(classes):
    n, m = (np.array([entry[side] for entry in classes]) for side in (0, 1))
    right, right2 = (np.array([int(e[side] * e[side - 2]) for e in classes]) for side in (2, 3))
    p = fisher_p_values(right, n, right2, m)
    for at in range(len(classes)):
        chance = hypergeom(int(n[at] + m[at]), int(right[at] + right2[at]), int(m[at]))
        tails = chance.cdf(right2[at]), chance.sf(right2[at] - 1)
        assert p[at] == pytest.approx(min(2 * min(tails), 1), rel=1e-9, abs=1e-12)


def test_fishers_test_at_its_best_known():
    assert fisher_p_values(*np.array([[1], [10], [11], [14]]))[0] / 2 == pytest.approx(
        fisher_exact([[1, 9], [11, 3]], "less").pvalue
    )


def test_wilson_at_the_ends():
    assert wilson(0.0, 86)[0] == 0
    assert wilson(1.0, 86)[1] == 1
    assert wilson(1.0, 1)[0] > 0.2


def test_a_class_that_fell_is_told_by_name(rng):
    before = profile_of(*drawn(rng, 1500, 0.9), names=NAMES)
    report = compare(before, profile_of(*drawn(rng, 300, [0.9, 0.3, 0.9]), seed=2))
    found = report.accuracy.labelled
    assert [recall.name for recall in found.fell] == ["dog"]
    assert found.fell[0].low < 0.3 + 0.1 < found.fell[0].high + 0.2
    assert found.confusions[0].truth, found.confusions[0].answer == ("dog", "ant")
    text = " ".join(report.to_text(100).split())
    assert "Found less often, beyond chance: dog 9" in text
    assert "Confused most: dog taken for ant in" in text
    assert "lower (" in text
    told = json.loads(report.to_json())["accuracy"]
    assert told["labelled"]["recalls"][0]["name"] == "dog"
    assert told["labelled"]["recalls"][0]["moved"] is True
    assert told["labelled"]["matrix"] == [list(row) for row in found.matrix]


def test_by_chance_no_class_moves(rng):
    """At 5% for all classes together; Fisher's test is on the safe side."""
    n, m = np.full(10, 40), np.full(10, 20)
    moved = [
        holm(fisher_p_values(rng.binomial(40, 0.8, 10), n, rng.binomial(20, 0.8, 10), m)).min() < CHANCE
        for _ in range(1000)
    ]
    assert np.mean(moved) <= 0.06


def test_many_classes_are_bounded(rng):
    labels, answers = drawn(rng, 3000, 0.5, 100)
    profile = profile_of(labels, answers, classes=100)
    found = labelled(profile, profile, "outputs")
    assert (len(found.recalls), len(found.confusions)) == (MOST_RECALLS, MOST_CONFUSIONS)
    assert (found.classes, found.matrix) == ((), ())
    assert MOST_IN_MATRIX < 100
    assert (found.rows, found.of) == (2000, 3000)
    report = compare(profile, profile)
    assert "by the labels of 2,000 of 3,000 rows" in " ".join(report.to_text(200).split())
    assert "no change beyond chance" in report.to_text(400)


def test_a_baseline_without_labels_hides_no_truth(rng):
    labels, answers = drawn(rng, 200, 0.6)
    report = compare(profile_of(None, answers), profile_of(labels, answers, seed=2))
    found = report.accuracy
    assert found.by_labels
    assert math.isnan(found.baseline)
    assert found.window == pytest.approx(np.mean(labels == answers))
    assert math.isnan(found.labelled.change)
    assert "the baseline has no labels; on the window" in report.to_text(200)
    assert json.loads(report.to_json())["accuracy"]["baseline"] is None


def test_each_head_by_its_own_labels(rng):
    def two(right, seed):
        profiler = Profiler(seed=seed)
        given = {name: drawn(rng, 300, share) for name, share in zip(("age", "sex"), right, strict=True)}
        profiler.update(
            outputs={name: 9 * np.eye(3, dtype=np.float32)[answers] for name, (_, answers) in given.items()},
            labels={name: labels for name, (labels, _) in given.items()},
        )
        return profiler.profile()

    found = dict(compare(two((0.9, 0.9), 1), two((0.9, 0.4), 2)).accuracies)
    assert set(found) == {"outputs/age", "outputs/sex"}
    assert not found["outputs/age"].labelled.fell
    assert len(found["outputs/sex"].labelled.fell) == 3


def test_without_labels_there_is_nothing():
    assert labelled(Profile(), Profile(), "outputs") is None
    assert labelled(profile_of([0], [0]), profile_of(None, [0]), "outputs") is None
    assert labelled(profile_of([0], [0]), profile_of([-1], [0]), "outputs") is None
