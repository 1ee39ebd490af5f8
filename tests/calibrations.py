"""Calibrated baselines and windows of generated rows, for tests that need some."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.drift.learning import calibrate

CLASSES, WIDTH = 4, 12
_MIX = np.random.default_rng(7).normal(size=(WIDTH, WIDTH))


def batch(rng: np.random.Generator, n: int, *, change: str = "", share: float = 1.0) -> dict[str, Any]:
    """Logits, correlated columns of an embedding, and labels that belong to them; or one thing changed in a share."""
    labels = rng.integers(0, CLASSES - (change == "classes"), n)
    layer = rng.normal(size=(n, WIDTH)) @ _MIX
    if change == "correlation":  # every column as before, none belongs with another
        layer = np.stack([rng.permutation(column) for column in layer.T], axis=1)
    moved = rng.random(n) < share
    if change == "stream":
        layer[moved, 5] += 2 * np.linalg.norm(_MIX[:, 5])
    logits = rng.normal(size=(n, CLASSES)) + (0.5 if change == "unsure" else 2.5) * np.eye(CLASSES)[labels]
    if change == "nan":
        layer[moved] = np.nan
    logits[moved & (change == "no answer")] = np.nan
    return {
        "outputs": logits.astype(np.float32),
        "embeddings": {"pool": layer.astype(np.float32)},
        "labels": labels,
    }


def window(rng: np.random.Generator, n: int, like: Baseline | Profile | None = None, **settings: Any) -> Profile:
    """A profile of n rows."""
    options = {name: settings.pop(name) for name in ("rows", "source") if name in settings}
    profiler = Profiler(like=like, seed=int(rng.integers(2**31)), **options)
    made = batch(rng, n, **settings)
    if like is not None:
        del made["labels"]
    profiler.update(**made)
    return profiler.profile()


def calibrated_baseline(seed: int, n: int = 600, *, draws: int = 200, **settings: Any) -> Baseline:
    """A baseline of n rows."""
    return calibrate(window(np.random.default_rng(seed), n, source="validation", **settings), draws=draws)
