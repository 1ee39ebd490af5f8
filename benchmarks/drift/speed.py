"""How long one comparison takes, beside Frouros's permutation test; part of `detection.py`.

A window of 1,000 rows x 512 dimensions against a baseline of 2,000, on all statistics, after loading; one thread.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.drift.peer_answers import PACKAGES, asked
from benchmarks.drift.windows import CLEAN, Windows
from benchmarks.peers import python_of
from lensai_integrations import Baseline, Profile, Profiler, calibrate, compare
from lensai_integrations.drift.vector_distances import mmd_test

TARGET: Final = 0.050  # seconds
ROWS, DIM = 1000, 512


def correlated(n: int, dim: int, seed: int) -> np.ndarray:
    """Rows as a layer's, positive and of few directions: `[n, dim]`."""
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(99)
    rows = rng.normal(size=(n, 32)) @ mixing.normal(size=(32, dim)) / 6 + 0.5 * rng.normal(size=(n, dim))
    return np.maximum(rows, 0).astype(np.float32)


def ours(turns: int) -> dict[str, float]:
    """Median, least and largest seconds of a comparison with a calibrated baseline; the median of processor time."""
    baseline = calibrate(_profile(correlated(2 * ROWS, DIM, 1)), draws=200)
    windows = [_profile(correlated(ROWS, DIM, 2 + turn), baseline) for turn in range(turns + 1)]
    compare(baseline, windows[0])  # what is loaded on first use is no part of it
    times = []
    for window in windows[1:]:
        began, spent = time.perf_counter(), time.process_time()
        compare(baseline, window)
        times.append((time.perf_counter() - began, time.process_time() - spent))
    wall, busy = zip(*times, strict=True)
    found = {"median": float(np.median(wall)), "least": min(wall), "most": max(wall), "turns": turns}
    return found | {"processor": float(np.median(busy))}


def _profile(rows: np.ndarray, like: Baseline | None = None) -> Profile:
    profiler = Profiler(like=like)
    profiler.update(embeddings={"layer": rows})
    return profiler.profile()


def permutation_test(permutations: int = 100) -> float:
    """Seconds of this package's own MMD by permutation on the rows that Frouros gets."""
    began = time.perf_counter()
    mmd_test(correlated(ROWS, DIM, 1), correlated(ROWS, DIM, 2), permutations=permutations)
    return time.perf_counter() - began


def frouros(environments: Path) -> dict[str, Any]:
    """Seconds of Frouros's MMD at 1,000 x 1,000 rows with 100 permutations, one process."""
    table = np.concatenate([correlated(ROWS, DIM, 1), correlated(ROWS, DIM, 2)])
    zero = np.zeros(1, np.int64)
    window = Windows(ROWS, np.array([CLEAN]), zero, zero, np.arange(ROWS, 2 * ROWS)[None])
    python = python_of("frouros", PACKAGES["frouros"], environments)
    answer = asked("speed", table, np.arange(ROWS)[None], window, python)
    return {"seconds": answer["scores"][0]["seconds"], "version": answer["version"]}
