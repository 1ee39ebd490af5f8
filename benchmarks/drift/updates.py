"""What one `DriftMonitor.update` of a single image takes of the processor: plain, with a state on disk, warm started.

    python -m benchmarks.drift.updates [--turns N] [--json FILE]

Images of 32 x 32 with 20 image measures, 4 classes and a layer of 24 against a calibrated baseline of 2,000 rows;
windows of 100 rows, warm started of 50, where every image ends a window.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results
from lensai_integrations import Baseline, DriftMonitor, Profiler, calibrate

#: Updates before those that are measured: what is loaded and decided once is no part of them.
BEFORE = 5


def batch(n: int, seed: int) -> dict[str, Any]:
    """Images, answers and a layer of n rows."""
    rng, mixing = np.random.default_rng(seed), np.random.default_rng(99)
    images = rng.integers(0, 256, (n, 1, 1, 3)) * 0.5 + rng.normal(0, 30, (n, 32, 32, 3)) + 60
    return {
        "inputs": np.clip(images, 0, 255).astype(np.uint8),
        "outputs": rng.normal(size=(n, 4)).astype(np.float32) * 2,
        "pool": np.maximum(rng.normal(size=(n, 24)) @ mixing.normal(size=(24, 24)), 0).astype(np.float32),
    }


def of_batch(rows: dict[str, Any], index: Any) -> dict[str, Any]:
    """Arguments of `update` of some of its rows."""
    taken = {name: array[index] for name, array in rows.items()}
    return {"inputs": taken["inputs"], "outputs": taken["outputs"], "embeddings": {"pool": taken["pool"]}}


def calibrated() -> Baseline:
    """A calibrated baseline of 2,000 rows."""
    profiler, rows = Profiler(source="validation", seed=0), batch(2000, 1)
    for start in range(0, 2000, 100):
        profiler.update(**of_batch(rows, slice(start, start + 100)))
    return calibrate(profiler.profile(), draws=200)


def seconds(baseline: Baseline, turns: int, **settings: Any) -> list[float]:
    """Processor seconds of each of so many updates of one image."""
    rows, times = batch(BEFORE + turns, 2), []
    with DriftMonitor(baseline, **settings) as monitor:
        for turn in range(BEFORE + turns):
            one = of_batch(rows, turn)
            began = time.process_time()
            monitor.update(**one)
            times.append(time.process_time() - began)
    return times[BEFORE:]


def main() -> None:
    """Measure, print a table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200, help="updates of each kind")
    results.add_argument(parser)
    arguments = parser.parse_args()
    baseline, figures = calibrated(), {}
    print("| one image | median | 10% to 90% |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, dict[str, Any]] = {
            "plain": {"window": 100},
            "state": {"window": 100, "state": Path(folder) / "a"},
            "warm start": {"window": 50, "warm_start": True},
            "warm start, state": {"window": 50, "warm_start": True, "state": Path(folder) / "b"},
        }
        for kind, settings in kinds.items():
            low, median, high = np.quantile(seconds(baseline, arguments.turns, **settings), [0.1, 0.5, 0.9]) * 1e3
            figures[kind] = {"median_ms": median, "low_ms": low, "high_ms": high}
            print(f"| {kind} | {median:.1f} ms | {low:.1f} to {high:.1f} |", flush=True)
    results.write(arguments.json, "drift/updates", figures)


if __name__ == "__main__":
    main()
