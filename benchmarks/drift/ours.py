"""The one place where `detection.py` meets this package's decision.

A judge is made once for a reference and then asked about windows. It answers with p-values by method; `"combined"` is
the verdict's own: with `min_effect=0`, a report with `false_alarm_rate=a` says drift exactly where that is below a.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.windows import Rows
from lensai_integrations.drift.calibration import TOP_CLASS_SUFFIX, Calibration, calibrated
from lensai_integrations.drift.max_t import corrected_statistics, shrinkage, widened
from lensai_integrations.drift.null import log_p
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.rows import RowSample

#: From the rows of a window to p-values by method.
Judge = Callable[[Rows], dict[str, float]]
#: Mean features of windows, by part of a calibration and piece of its block, `[W, F]`.
Means = list[list[NDArray[np.float32]]]
COMBINED = "combined"
#: Groups whose rows are also compared as vectors, as in a profiler.
_VECTORS = ("outputs", "embeddings")


def profile_of(rows: Rows, like: Profile | None = None, classes: Rows | None = None) -> Profile:
    """The profile a profiler makes of these measured rows, as far as it is judged by them while all are kept.

    Args:
        rows: By group `[n, D]`; without `classes` a group `"outputs"` has its ten class probabilities first.
        like: A window's reference.
        classes: The classes answered, `[n, 1]`, by the name that a row sample has them under.
    """
    groups = {name: _group(name, given, like) for name, given in rows.items()}
    if classes is None:
        found = {f"outputs{TOP_CLASS_SUFFIX}": rows["outputs"][:, :10].argmax(1)[:, None]}
        classes = found if "outputs" in rows else {}
    sample = RowSample(2000, seed=0)
    sample.update({**rows, **classes})
    return Profile(groups, sample, {"source": "production"})


def _group(name: str, rows: NDArray[np.float32], like: Profile | None) -> Group:
    known = like.groups[name].kernel_mean if like is not None else None
    group = Group(name, tuple(map(str, range(rows.shape[1]))), {"*": "benchmark/number@1"})
    if name.startswith(_VECTORS):
        mean = KernelMean(rows.shape[1], exponents=None if known is None else known.exponents)
        mean.update(rows)
        group.sketches["kernel_mean"] = mean
    return group


def judge_of(reference: Rows) -> Judge:
    """A judge that calibrates a baseline once and then asks about each window what `compare` would ask."""
    baseline = profile_of(reference)
    calibration = calibrated(baseline, seed=1)

    def answer(window: Rows) -> dict[str, float]:
        found = corrected_statistics(calibration, profile_of(window, baseline))
        told = {COMBINED: min(float(np.exp(each.log_p.min())) for each in found)}
        for each in found:
            group = each.part.group.split("/")[0]
            for statistic, alone in zip(each.part.block.statistics, each.alone, strict=True):
                told[f"{group} {statistic}"] = float(np.exp(alone))
        return told

    return answer


def log_p_values(calibration: Calibration, means: Means, m: int) -> NDArray[np.float64]:
    """Logarithms of the p-values of the reports of W windows of m rows `[W]`, by their mean features: one product of
    matrices for many windows, as when a baseline is calibrated, and the same null distributions and widening as in
    `compare`.

    Args:
        calibration: Of the baseline.
        means: By part and piece of its block, `[W, F]`.
        m: Rows of a window.
    """
    size = float(np.interp(np.log(m), np.log(calibration.sizes), np.arange(len(calibration.sizes))))
    low, share = int(size), size - int(size)
    logs = (1 - share) * _at_size(calibration, means, m, low)
    return widened(logs + (share * _at_size(calibration, means, m, low + 1) if share else 0.0), calibration.rows)


def _at_size(calibration: Calibration, means: Means, m: int, size: int) -> NDArray[np.float64]:
    """The same by the null distribution of one size, as it comes."""
    found, drawn = [], []
    for part, some in zip(calibration.parts, means, strict=True):
        scale, start, largest = np.full(len(some[0]), (1 / m + 1 / part.n) ** -0.5, np.float32), 0, []
        for (block, _), mean in zip(part.block.parts(), some, strict=True):
            values = block.compare(part.mean[start : start + block.width], mean, scale)
            first = start * part.block.streams // part.block.width
            place = slice(first, first + values.shape[-1])
            centre, spread = (null[size][:, None, place] for null in (part.null.centre, part.null.spread))
            largest.append(((values - centre) / spread).max(axis=-1))
            start += block.width
        weights = np.log(part.block.weights)[:, None]
        standard = np.max(largest, axis=0) * shrinkage(m, part.n)
        found.append((part.null.log_p(standard, size) - weights).min(axis=0))
        drawn.append((part.null.drawn(size) - weights).min(axis=0))
    return log_p(np.sort(-np.min(drawn, axis=0)), -np.min(found, axis=0))
