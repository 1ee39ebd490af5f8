"""Profiles and baselines of generated images, for tests that need a whole one."""

from __future__ import annotations

from typing import Any

import numpy as np

from lensai_integrations import Baseline, Profile, Profiler

CLASSES, WIDTH = 4, 24


def batch(rng: np.random.Generator, n: int, *, brightness: float = 1.0) -> dict[str, Any]:
    """Images of smooth blobs and noise, with logits, an embedding and labels that belong to them."""
    labels = rng.integers(0, CLASSES, n)
    base = rng.uniform(60, 200, (n, 1, 1, 3)) + rng.normal(0, 25, (n, 16, 16, 3))
    images = np.clip(base * brightness, 0, 255).astype(np.uint8)
    embedding = rng.normal(0, 1, (n, WIDTH)).astype(np.float32) + labels[:, None] * 0.3
    logits = rng.normal(0, 1, (n, CLASSES)).astype(np.float32) + 2 * np.eye(CLASSES, dtype=np.float32)[labels]
    return {"inputs": images, "outputs": logits, "embeddings": {"avgpool": embedding}, "labels": labels}


def make_profile(n: int = 300, *, seed: int = 0, source: str = "production", **settings: Any) -> Profile:
    """A profile of `n` generated rows, in batches of 64 and a partial last one."""
    brightness = settings.pop("brightness", 1.0)
    rng = np.random.default_rng(seed)
    profiler = Profiler(source=source, seed=seed, **settings)
    for start in range(0, n, 64):
        profiler.update(**batch(rng, min(64, n - start), brightness=brightness))
    return profiler.profile()


def make_baseline(n: int = 600, *, seed: int = 1) -> Baseline:
    """A baseline whose reference has `n` rows and whose training profile twice as many."""
    reference = make_profile(n, seed=seed, source="validation")
    return Baseline(reference, make_profile(2 * n, seed=seed + 100, source="training"), {"epoch": 3})
