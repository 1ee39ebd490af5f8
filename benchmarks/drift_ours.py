"""The one place where `drift.py` meets this package's decision.

A judge is made once for a reference and then asked about windows. It answers with p-values by method; `"combined"` is
the verdict's own: a report with `false_alarm_rate=a` says drift exactly where that is below a.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from drift_windows import Rows
from numpy.typing import NDArray

from lensai_integrations import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.group import Group
from lensai_integrations.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments
from lensai_integrations.sketches.rows import RowSample

#: From the rows of a window to p-values by method.
Judge = Callable[[Rows], dict[str, float]]
COMBINED = "combined"
#: Groups whose rows are also compared as vectors, as in a profiler.
_VECTORS = ("outputs", "embeddings")


def profile_of(rows: Rows, like: Profile | None = None, keep: int = 2000, seed: int = 0) -> Profile:
    """The profile a profiler makes of these measured rows, but for pixel counts, which are not tested.

    Args:
        rows: By group `[n, D]`; a group `"outputs"` has its ten class probabilities first.
        like: A window's reference.
        keep: Rows that are kept.
        seed: Of what is random.
    """
    groups = {name: _group(name, given, like, seed + i) for i, (name, given) in enumerate(rows.items())}
    sample = RowSample(keep, seed=seed) if keep else None
    if sample is not None:
        sample.update(rows)
    return Profile(groups, sample, {"source": "production"})


def _group(name: str, rows: NDArray[np.float32], like: Profile | None, seed: int) -> Group:
    known = like.groups[name].kernel_mean if like is not None else None
    bank = KLLBank(rows.shape[1], seed=seed)
    bank.update(rows)
    group = Group(name, tuple(map(str, range(rows.shape[1]))), {"*": "benchmark/number@1"}, {"bank": bank})
    if name.startswith(_VECTORS):
        mean = KernelMean(rows.shape[1], exponents=None if known is None else known.exponents)
        moments = Moments(rows.shape[1])
        group.sketches |= {"kernel_mean": mean, "moments": moments}
        mean.update(rows)
        moments.update(rows)
    if name == "outputs":
        group.sketches["categories/top_class"] = classes = Categories()
        classes.update(rows[:, :10].argmax(1))
    return group


def by_compare(reference: Rows) -> Judge:
    """A judge that profiles the reference once, each window, and compares the two."""
    baseline = profile_of(reference)
    return lambda window: p_values(compare(baseline, profile_of(window, baseline, keep=0), false_alarm_rate=0.01))


def p_values(report: DriftReport) -> dict[str, float]:
    """p-values of a report: combined, and of each family of tests as if it were the only one."""
    found = {COMBINED: 1.0}
    for group in report.groups:
        parts = {"streams": [(each.p_value, each.effect) for each in group.streams if each.p_value >= 0]}
        if group.vectors is not None:
            parts["MMD"] = [(group.vectors.p_value, group.vectors.test.effect)]
        for part, tests in parts.items():
            p = min((p for p, effect in tests if effect >= report.min_effect), default=1.0)
            found[COMBINED] = min(found[COMBINED], p)
            found[f"{group.name} {part}"] = p / report.families if p < 1 else 1.0
    return found


#: Judges by name, for `--ours`.
JUDGES: dict[str, Callable[[Rows], Judge]] = {"compare": by_compare}
