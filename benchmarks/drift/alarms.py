"""How often a clean window is called drift, measured on many more windows than `detection.py` compares.

    python -m benchmarks.drift.alarms [--data DIR] [--cache DIR] [--rows 2000] [--references 20] [--windows 400]
        [--json FILE]

The images, the network and the way the baseline is drawn are those of `detection.py`. Every statistic is a function of
the mean features of a window, so all windows of one size are one matrix product here, as they are when a baseline is
calibrated; p-values come from the same null distributions, weights and widening that `compare` uses.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student
from tqdm import tqdm

from benchmarks import results
from benchmarks.drift.features import add_arguments, features, missing_data
from benchmarks.drift.ours import Rows, profile_of
from lensai_integrations.drift.calibration import TOP_CLASS_SUFFIX, Calibration, calibrated
from lensai_integrations.drift.compare import widened
from lensai_integrations.drift.null import log_p

SIZES = (10, 25, 50, 100, 200, 1000)
RATES = (0.01, 0.05)
#: Windows are drawn from the images that no reference of this many rows holds.
_LARGEST_REFERENCE = 2000


def p_values(calibration: Calibration, rows: Rows, windows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The p-value of the report of each window; windows `[W, m]` of row numbers, m a size that was calibrated."""
    count, m = windows.shape
    size = calibration.sizes.index(min(calibration.sizes, key=lambda each: abs(np.log(each / m))))
    mean = np.zeros((count, len(next(iter(rows.values())))), np.float32)
    np.put_along_axis(mean, windows, np.float32(1 / m), axis=1)
    found, drawn = [], []
    for part in calibration.parts:
        scale, start, largest = np.full(count, (1 / m + 1 / part.n) ** -0.5, np.float32), 0, []
        for block, columns in part.block.parts():
            reference = part.mean[start : start + block.width]
            values = block.compare(reference, mean @ block.features(rows[part.rows][:, columns]), scale)
            place = slice(start * part.block.streams // part.block.width, None)
            null = part.null.centre[size][:, place], part.null.spread[size][:, place]
            width = values.shape[-1]
            largest.append(((values - null[0][:, None, :width]) / null[1][:, None, :width]).max(axis=-1))
            start += block.width
        weights = np.log(part.block.weights)[:, None]
        found.append((part.null.log_p(np.max(largest, axis=0), size) - weights).min(axis=0))
        drawn.append((part.null.log_p(part.null.largest[size], size) - weights).min(axis=0))
    logs = log_p(np.sort(-np.min(drawn, axis=0)), -np.min(found, axis=0))
    return np.exp(widened(logs, calibration.rows))


def alarms(clean: dict[str, NDArray[Any]], references: int, count: int, rows: int) -> NDArray[np.float64]:
    """Share of clean windows called drift, `[references, sizes, rates]`."""
    table: Rows = {name: clean[name] for name in ("inputs", "outputs")} | {"embeddings/features": clean["embeddings"]}
    result = np.zeros((references, len(SIZES), len(RATES)))
    for number in tqdm(range(references), "clean windows", unit="reference"):
        rng = np.random.default_rng([7, number])
        order = rng.permutation(len(clean["inputs"]))
        calibration = calibrated(profile_of({k: v[order[:rows]] for k, v in table.items()}), seed=number)
        rest = {name: each[order[_LARGEST_REFERENCE:]] for name, each in table.items()}
        rest[f"outputs{TOP_CLASS_SUFFIX}"] = rest["outputs"][:, :10].argmax(1)[:, None].astype(np.float32)
        for place, m in enumerate(SIZES):
            left = np.arange(len(rest["inputs"]))
            windows = np.stack([rng.choice(left, m, replace=False) for _ in range(count)])
            found = p_values(calibration, rest, windows)
            result[number, place] = [np.mean(found < rate) for rate in RATES]
    return result


def line(name: str, shares: NDArray[np.float64]) -> str:
    """A row of the table: means over the references, and the upper ends of their 99% intervals."""
    half = student.ppf(0.995, len(shares) - 1) * shares.std(axis=0, ddof=1) / len(shares) ** 0.5
    cells = [f"{100 * m:.2g}% ({100 * (m + h):.2g}%)" for m, h in zip(shares.mean(axis=0), half, strict=True)]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> int:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    for name, default in (("rows", 2000), ("references", 20), ("windows", 400)):
        parser.add_argument(f"--{name}", type=int, default=default)
    results.add_argument(parser)
    options = parser.parse_args()
    if missing_data(options.data, options.cache):
        return 0
    clean = features(options.data, options.cache)["clean"]
    found = alarms(clean, options.references, options.windows, options.rows)
    print(f"\n| rows | {' | '.join(f'{rate:.0%} asked for' for rate in RATES)} |\n|---|---|---|")
    for place, m in enumerate(SIZES):
        print(line(f"{m:,}", found[:, place]))
    print(line("all", found.mean(axis=1)))
    figures = {f"{m} rows": dict(zip(map(str, RATES), found[:, i].T, strict=True)) for i, m in enumerate(SIZES)}
    results.write(options.json, "drift/alarms", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
