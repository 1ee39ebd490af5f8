"""How long one comparison takes, beside Frouros's permutation test; part of `drift.py`.

A window of 1,000 rows x 512 dimensions against a baseline of 2,000, on all statistics, after loading; one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from drift_ours import profile_of
from drift_peers import asked, python_of
from drift_windows import CLEAN, Windows

from lensai_integrations import compare
from lensai_integrations.profile import Profile

TARGET: Final = 0.050  # seconds
ROWS, DIM = 1000, 512
GROUP: Final = "embeddings/layer"


def correlated(n: int, dim: int, seed: int) -> np.ndarray:
    """Rows as a layer's, positive and of few directions: `[n, dim]`."""
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(99)
    rows = rng.normal(size=(n, 32)) @ mixing.normal(size=(32, dim)) / 6 + 0.5 * rng.normal(size=(n, dim))
    return np.maximum(rows, 0).astype(np.float32)


def by_compare(baseline: Profile, window: Profile) -> object:
    """What is timed of this package."""
    return compare(baseline, window, false_alarm_rate=0.01)


def ours(turns: int, judged: Callable[[Profile, Profile], object] = by_compare) -> dict[str, float]:
    """Median, least and largest seconds of a comparison."""
    baseline = profile_of({GROUP: correlated(2 * ROWS, DIM, 1)})
    windows = [profile_of({GROUP: correlated(ROWS, DIM, 2 + i)}, baseline, keep=2000, seed=i) for i in range(turns + 1)]
    judged(baseline, windows[0])  # what is loaded on first use is no part of it
    times = []
    for window in windows[1:]:
        began = time.perf_counter()
        judged(baseline, window)
        times.append(time.perf_counter() - began)
    return {"median": float(np.median(times)), "least": min(times), "most": max(times), "turns": turns}


def frouros(environments: Path) -> dict[str, Any]:
    """Seconds of Frouros's MMD at 1,000 x 1,000 rows with 100 permutations, one process."""
    table = np.concatenate([correlated(ROWS, DIM, 1), correlated(ROWS, DIM, 2)])
    zero = np.zeros(1, np.int64)
    window = Windows(ROWS, np.array([CLEAN]), zero, zero, np.arange(ROWS, 2 * ROWS)[None])
    answer = asked("speed", table, np.arange(ROWS)[None], window, python_of("frouros", environments))
    return {"seconds": answer["scores"][0]["seconds"], "version": answer["version"]}
