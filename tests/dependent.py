"""Rows that depend on each other, and profiles of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import lfilter

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.profiles.profile import IN_TIME, ORDER


def autoregressive(rng: np.random.Generator, n: int, columns: int, r: float) -> np.ndarray:
    """Rows of variance 1, each r times the one before and something new."""
    new = rng.normal(size=(n, columns))
    new[1:] *= (1 - r**2) ** 0.5
    return np.asarray(lfilter([1], [1, -r], new, axis=0))


def layer_of(layer: np.ndarray, seed: int, *, like: Baseline | Profile | None = None, **settings: Any) -> Profile:
    """A profile of an embedding."""
    profiler = Profiler(seed=seed, like=like, **settings)
    profiler.update(embeddings={"pool": layer.astype(np.float32)})
    return profiler.profile()


def scene(rng: np.random.Generator, n: int, columns: int, spread: float, shift: float = 0.0) -> np.ndarray:
    """Independent rows of variance 1 around a mean of their own, whose standard deviation is `spread`."""
    return rng.normal(size=(n, columns)) + spread * rng.normal(size=columns) + shift


def in_time(profile: Profile) -> Profile:
    """The same of rows that came as time went by, as a monitor's do."""
    return Profile(profile.groups, profile.rows, {**profile.info, ORDER: IN_TIME}, profile.segments)
