"""Small baselines and batches for tests of monitors: three numbers per row, answered in milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.monitoring import judging

COLUMNS = 3


def numbers(n: int, *, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """Rows of independent normal numbers, the first of them shifted."""
    rows = np.random.default_rng(seed).normal(size=(n, COLUMNS))
    rows[:, 0] += shift
    return rows


def small_baseline(n: int = 400, *, seed: int = 1000, rows: int = 2000) -> Baseline:
    """A baseline of outputs alone."""
    profiler = Profiler(source="validation", task="regression", seed=seed, rows=rows)
    profiler.update(outputs=numbers(n, seed=seed))
    return Baseline(profiler.profile())


def mean_of(profile: Profile) -> float:
    """The mean of the first number."""
    moments = profile.groups["outputs"].moments
    assert moments is not None
    return float(moments.mean[0])


def judge_by_mean(_: Any, window: Profile, rates: Any) -> tuple[str, DriftReport]:
    """Instead of statistics: ok below 1, warning below 3, else alarm."""
    level = ("ok", "warning", "alarm")[int(np.searchsorted([1.0, 3.0], mean_of(window)))]
    return level, DriftReport(rates.alarm, 0.1, 0, "validation", "production", 400, window.n)


def by_mean(monkeypatch: Any) -> None:
    """Judge all windows by their mean."""
    monkeypatch.setattr(judging, "level_of", judge_by_mean)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
