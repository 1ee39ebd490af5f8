"""How often clean windows are called drift, baseline by baseline: a user has one baseline, and not a mean over many.

    python -m benchmarks.drift.alarms [--data DIR] [--cache DIR] [--rows 500,1000,2000] [--baselines 100]
        [--windows 200] [--only NAME] [--json FILE]

Baselines are drawn from each population (`populations.py`), and clean windows from its other rows. Every statistic is a
function of the mean features of a window, so all windows of one size are one matrix product here, as they are when a
baseline is calibrated; p-values come from the same null distributions, weights and widening that `compare` uses.

Exit status 1 if a mean is above the rate asked for, or if more than 5 in 100 baselines are above twice that.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import results
from benchmarks.drift.features import add_arguments
from benchmarks.drift.ours import log_p_values, profile_of
from benchmarks.drift.populations import Table, populations
from lensai_integrations.drift.calibration import Calibration, calibrated

SIZES = (10, 25, 50, 100, 200, 500, 1000)
RATES = (0.01, 0.05)
#: Of baselines, how many may be above twice the rate.
_MOST_ABOVE = 0.05


def p_values(calibration: Calibration, rows: Mapping[str, NDArray[Any]], windows: NDArray[np.int64]) -> NDArray[Any]:
    """The p-value of the report of each window `[W]`; windows `[W, m]` of row numbers."""
    count, m = windows.shape
    mean = np.zeros((count, len(next(iter(rows.values())))), np.float32)
    np.put_along_axis(mean, windows, np.float32(1 / m), axis=1)
    means = [
        [mean @ block.features(rows[part.rows][:, columns]) for block, columns in part.block.parts()]
        for part in calibration.parts
    ]
    return np.exp(log_p_values(calibration, means, m))


def alarms(table: Table, rows: int, baselines: int, count: int) -> NDArray[np.float64]:
    """Share of clean windows called drift, `[baselines, sizes, rates]`."""
    result = np.zeros((baselines, len(SIZES), len(RATES)))
    measured = {name: each for name, each in table.items() if not name.endswith("top_class")}
    for number in tqdm(range(baselines), f"{rows} rows", unit="baseline", leave=False):
        rng = np.random.default_rng([7, number])
        order = rng.permutation(len(next(iter(table.values()))))
        classes = {name: each[order[:rows]] for name, each in table.items() if name not in measured}
        profile = profile_of({name: each[order[:rows]] for name, each in measured.items()}, classes=classes)
        calibration = calibrated(profile, seed=number)
        rest = {name: each[order[rows:]] for name, each in table.items()}
        left = len(order) - rows
        for place, m in enumerate(SIZES):
            windows = np.stack([rng.choice(left, m, replace=False, shuffle=False) for _ in range(count)])
            found = p_values(calibration, rest, windows)
            result[number, place] = [np.mean(found < rate) for rate in RATES]
    return result


def line(name: str, rows: int, shares: NDArray[np.float64]) -> str:
    """A row of the table: by rate the largest mean of a size, and the most baselines above twice the rate at a size."""
    means, above = shares.mean(axis=0).max(axis=0), exceeding(shares).max(axis=0)
    cells = [f"{100 * mean:.2g}% | {100 * share:.2g}%" for mean, share in zip(means, above, strict=True)]
    return f"| {name} | {rows:,} | {' | '.join(cells)} |"


def exceeding(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many of the baselines are above twice the rate, `[sizes, rates]`."""
    above: NDArray[np.float64] = np.mean(shares > 2 * np.array(RATES), axis=0)
    return above


def main() -> int:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rows", default="500,1000,2000", help="of the baselines")
    for name, default in (("baselines", 100), ("windows", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="populations whose name has this in it")
    results.add_argument(parser)
    options = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    held = True
    heads = " | ".join(f"mean at {rate:.0%} | baselines above {2 * rate:.0%}" for rate in RATES)
    print(f"| population | rows of the baseline | {heads} |\n|---|---|---|---|---|---|", flush=True)
    for name, table in populations(options.data, options.cache):
        for rows in map(int, options.rows.split(",")) if options.only in name else ():
            shares = alarms(table, rows, options.baselines, options.windows)
            print(line(name, rows, shares), flush=True)
            held &= bool((shares.mean(axis=0) <= RATES).all() and (exceeding(shares) <= _MOST_ABOVE).all())
            figures[f"{name}, {rows} rows"] = {
                f"{rate:g}, windows of {m}": shares[:, at, which]
                for at, m in enumerate(SIZES)
                for which, rate in enumerate(RATES)
            }
    results.write(options.json, "drift/alarms", figures)
    return not held


if __name__ == "__main__":
    sys.exit(main())
