"""The benchmark of estimates of accuracy, on made-up answers: what it draws, counts and fits, and that it runs."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

benchmark = pytest.importorskip("benchmarks.drift.accuracy")


def answers(rng, n, easy, labels):
    return (rng.normal(size=(n, 10)) + easy * np.eye(10)[labels]).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def cache(tmp_path, rng):
    """Answers of three networks, as if they had been made."""
    labels = {name: np.arange(2400) % 10 for name in ("labels", "labels of windows")}
    found = dict(labels)
    for network in ("14 epochs", "3 epochs", "by heart"):
        for shift, easy in (("baseline", 3.0), ("clean", 3.0), ("blur 1", 2.0), ("noise 1", 1.0)):
            found[f"{network}/{shift}"] = answers(rng, 2400, easy, labels["labels"])
    np.savez(tmp_path / "accuracy.npz", **found)
    return tmp_path


def window(truth, estimate, ends, *, moved=0.0, shift="blur 1"):
    return benchmark.Window("net", shift, 500, 200, 0.8, truth, estimate, 0.05, 0.05, moved, (0.4, 0.6), ends, {})


def test_intervals_are_counted_and_their_widths():
    made = [window(0.5, 0.5, (0.3, 0.7)), window(0.8, 0.5, (0.3, 0.7))]
    assert benchmark.holds(made, "ends") == 0.5
    assert benchmark.width(made, "ends") == pytest.approx(0.4)
    assert benchmark.width(made, "earlier") == pytest.approx(0.2)


def test_the_least_constants_that_hold():
    made = [window(0.7 - 0.2, 0.7, (0, 1), moved=0.2), window(0.5 + 0.06, 0.5, (0, 1), moved=0.1)]
    too_low, too_high = benchmark.fitted(made)
    assert too_low == pytest.approx(0.15)  # 0.06 above an estimate that is 0.3 below, beside 0.05 for the rows
    assert too_high == pytest.approx(1.0)  # 0.2 below, where 0.2 of the answers moved
    for each in made:
        low, high = benchmark.ends_by(each, too_low, too_high)
        assert low <= each.truth <= high


def test_a_family_is_held_against_constants_of_the_others():
    others = [window(0.5, 0.5, (0, 1), shift="noise 1")] * 3
    found = benchmark.left_out([*others, window(0.5, 0.7, (0, 1), moved=0.2)])
    assert found["blur"] == {"too_low": 0.0, "too_high": 0.0, "holds": 0.0}
    assert found["noise"] == {"too_low": 0.0, "too_high": 1.0, "holds": 1.0}
    assert benchmark.fitted([window(0.5, 0.7, (0, 1))]) == (0, np.inf)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_other_shares_of_classes(turn, rng):
    truths = np.arange(1000) % 10
    weights = benchmark.class_weights(truths, turn, rng)
    assert weights.sum() == pytest.approx(1)
    shares = np.bincount(truths, weights)
    assert shares.max() > 1.05 * shares.mean()
    assert (turn == 0) == (shares.min() == 0)


def test_it_runs_and_says_what_holds(cache, tmp_path, monkeypatch, capsys):
    for name, value in (("BASELINES", (500,)), ("SIZES", (200,)), ("DRAWS", 1), ("CLASS_SHIFTS", 3)):
        monkeypatch.setattr(benchmark, name, value)
    told = tmp_path / "result.json"
    monkeypatch.setattr(sys, "argv", ["accuracy", "--cache", str(cache), "--json", str(told)])
    assert benchmark.main() == 0
    figures = json.loads(told.read_text())["figures"]
    assert figures["intervals"]["all"]["windows"] == 5 * (3 + 3)
    assert figures["intervals"]["all"]["holds"] >= figures["intervals"]["all"]["earlier"]
    assert set(figures["methods"]) == {"thresholded confidence", *benchmark.Others(*_some()).__call__(_some()[0], 0.0)}
    text = capsys.readouterr().out
    assert "| 14 epochs, 2 classes | 6 |" in text
    assert "| noise 1 |" in text


def _some():
    labels = np.arange(100) % 10
    return answers(np.random.default_rng(0), 100, 2.0, labels), labels
