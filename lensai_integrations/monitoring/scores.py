"""How usual a single image is: a conformal p-value against the rows that the baseline keeps.

Conformal anomaly detection (Laxhammar and Falkman: Conformal prediction for distribution-independent anomaly detection
in streaming vehicle data, StreamKDD 2010; Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005,
section 2.2) with the distance to the k-th nearest neighbour as nonconformity (Ramaswamy, Rastogi, Shim: Efficient
algorithms for mining outliers from large data sets, SIGMOD 2000; for embeddings Sun, Ming, Zhu, Li: Out-of-distribution
detection with deep nearest neighbors, ICML 2022). For a new row z and the r kept rows x_1..x_r:

    d_g(y)  = distance of y, in group g, to its k-th nearest other row among x_1..x_r and z
    a(y)    = max over groups g of (d_g(y) - m_g) / s_g
    p(z)    = (1 + #{i: a(x_i) >= a(z)}) / (r + 1)

Columns are divided by their standard deviation over the kept rows; m_g is the median of d_g over the kept rows without
z, s_g its 95th percentile less the median, so that groups of 20 and of 2048 columns have a like say. All rows, z among
them, have the same part in a(.), but for these scales, so for a z like the kept rows P(p(z) <= u) <= u for every u, and
p is uniform on 1/(r+1), ..., 1 up to ties. A row with a value that is not finite has a = infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.drift.calibration import is_top_class
from lensai_integrations.drift.rounding import Rounding
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.batches import Batch, Measuring
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import is_labels
from lensai_integrations.sketches.rows import RowSample, priorities

Rows = Mapping[str, NDArray[Any]]

#: Neighbours; few, so that a small cluster of unusual rows in the baseline does not make others usual.
NEIGHBOURS: Final = 5
#: Numbers in one block of distances: 32 MB of float64.
_BLOCK: Final = 1 << 22
#: A column that never varied but for rounding counts deviations in so many tolerances (`drift/rounding.py`): in float32
#: they are a thousandth of its value. One that is 0 counts them as if it were this.
_STILL: Final = 16
_NONE: Final = 1e-3


class Scorer:
    """Scores batches against a baseline.

    Args:
        measuring: How the baseline's rows were measured.

    Raises:
        InputError: If it keeps too few rows.
    """

    def __init__(self, measuring: Measuring) -> None:
        self._measuring = measuring
        reference = measuring.reference
        kept = {} if reference.rows is None else reference.rows.data
        self._kept = {name: rows for name, rows in kept.items() if not _is_category(name)}
        if min((len(rows) for rows in self._kept.values()), default=0) <= NEIGHBOURS:
            raise InputError(
                f"score needs a baseline that keeps more than {NEIGHBOURS} rows: make it with a Profiler with rows=2000"
            )
        self._conformal: dict[tuple[tuple[str, Rounding], ...], Conformal] = {}

    def p_values(self, batch: Batch) -> NDArray[np.float64]:
        """float64 `[n]` in (0, 1].

        Raises:
            InputError: If the baseline keeps no rows of anything in the batch.
        """
        if not batch.n:
            return np.zeros(0)
        rows, groups = measured_rows(self._measuring, batch)
        shared = tuple(name for name in self._kept if name in rows)
        if not shared:
            raise InputError(
                f"nothing to score: the baseline keeps rows of {sorted(self._kept)}, given: {sorted(rows)}"
            )
        theirs = self._measuring.reference.groups
        roundings = {name: Rounding.of(groups.get(name), theirs.get(name)) for name in shared}
        key = tuple(roundings.items())
        if key not in self._conformal:
            self._conformal[key] = Conformal({name: self._kept[name] for name in shared}, roundings=roundings)
        return self._conformal[key].p_values(rows)


def _is_category(name: str) -> bool:
    """Classes are numbers without distances."""
    return is_labels(name) or is_top_class(name)


def measured_rows(measuring: Measuring, batch: Batch) -> tuple[dict[str, NDArray[np.float32]], Mapping[str, Group]]:
    """The rows of a batch as a row sample has them, by name float32 `[n, D]` in the batch's order, and their groups."""
    profiler = measuring.profiler(rows=batch.n)
    profiler.update(inputs=batch.inputs, outputs=batch.outputs, embeddings=batch.embeddings)
    profile = profiler.profile()
    assert profile.rows is not None
    return in_order(profile.rows), profile.groups


def in_order(sample: RowSample) -> dict[str, NDArray[np.float32]]:
    """The rows of a sample that has kept all of them, in the order in which they came.

    Example:
        >>> sample = RowSample(size=4, seed=1)
        >>> sample.update({"a": np.arange(4.0)})
        >>> in_order(sample)["a"].ravel().tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    ranks = np.argsort(np.argsort(priorities(sample.seed, 0, sample.n)))
    return {name: rows[ranks] for name, rows in sample.data.items()}


class Conformal:
    """Conformal p-values against fixed rows, by the formula above.

    Args:
        kept: By group `[r, D]`, aligned, r more than `neighbours`.
        neighbours: k.
        roundings: By group how precise its values are; those not named are in float32.

    Example:
        >>> kept = {"a": np.arange(20.0)[:, None]}
        >>> Conformal(kept, neighbours=1).p_values({"a": np.array([[9.4], [40.0]])}).round(3).tolist()
        [1.0, 0.048]
    """

    def __init__(
        self, kept: Rows, neighbours: int = NEIGHBOURS, roundings: Mapping[str, Rounding] | None = None
    ) -> None:
        named = roundings or {}
        self._groups = {
            name: _Group(np.asarray(rows, np.float64), neighbours, named.get(name, Rounding.of()))
            for name, rows in kept.items()
        }
        self._r = len(next(iter(kept.values())))

    def p_values(self, rows: Rows) -> NDArray[np.float64]:
        """Of every row of a batch, float64 `[n]`.

        Args:
            rows: By group `[n, D]`; groups that the kept rows lack are passed over.
        """
        n = len(next(iter(rows.values())))
        step = max(1, _BLOCK // self._r)
        parts = [self._block({name: rows[name][at : at + step] for name in self._groups}) for at in range(0, n, step)]
        return np.concatenate(parts)

    def _block(self, rows: Rows) -> NDArray[np.float64]:
        of_kept = np.full((self._r, len(next(iter(rows.values())))), -np.inf)
        of_new = np.full(of_kept.shape[1], -np.inf)
        for name, group in self._groups.items():
            kept, new = group.nonconformity(np.asarray(rows[name], np.float64))
            np.maximum(of_kept, kept, out=of_kept)
            np.maximum(of_new, new, out=of_new)
        at_least: NDArray[np.int64] = np.sum(of_kept >= of_new, axis=0)
        return (at_least + 1.0) / (self._r + 1)


class _Group:
    """The kept rows of one group, standardised, and the distances of each to its nearest others."""

    def __init__(self, rows: NDArray[np.float64], neighbours: int, rounding: Rounding) -> None:
        self._finite = _finite(rows)
        sound = rows[self._finite]
        self._k = neighbours
        self._empty = len(sound) <= neighbours
        if self._empty:  # a group that was hardly ever measured says nothing
            return
        self._mean = sound.mean(axis=0)
        spread = sound.std(axis=0)
        tolerance = rounding.of_values(self._mean, _NONE)
        self._scale = np.where(spread > tolerance, spread, _STILL * tolerance)
        self._rows = (sound - self._mean) / self._scale
        self._nearest = self._own_nearest()
        distances = self._nearest[:, -1]
        self._median = float(np.median(distances))
        spread_of_own = float(np.quantile(distances, 0.95)) - self._median
        self._unit = spread_of_own if spread_of_own > 0 else max(self._median, 1.0)

    def _own_nearest(self) -> NDArray[np.float64]:
        """Distances of the kept rows to their k-1-th and k-th nearest others, `[r, 2]`; the 0-th is at 0."""
        result = np.zeros((len(self._rows), 2))
        step = max(1, _BLOCK // len(self._rows))
        for start in range(0, len(self._rows), step):
            block = distances(self._rows[start : start + step], self._rows)
            block[np.arange(len(block)), np.arange(start, start + len(block))] = np.inf
            places = sorted({max(self._k - 2, 0), self._k - 1})
            nearest = np.partition(block, places, axis=1)
            result[start : start + step, 1] = nearest[:, self._k - 1]
            if self._k > 1:
                result[start : start + step, 0] = nearest[:, self._k - 2]
        return result

    def nonconformity(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the kept rows beside each new one, `[r, n]`, and of the new ones, `[n]`."""
        finite = _finite(rows)
        of_kept = np.full((len(self._finite), len(rows)), np.inf)
        of_new = np.where(finite, -np.inf, np.inf)
        if self._empty:
            of_kept[:] = -np.inf
            return of_kept, of_new
        apart = distances((np.where(finite[:, None], rows, 0.0) - self._mean) / self._scale, self._rows).T
        apart[:, ~finite] = np.inf  # nobody's neighbour
        kept = np.maximum(self._nearest[:, :1], np.minimum(self._nearest[:, 1:], apart))
        of_kept[self._finite] = (kept - self._median) / self._unit
        new = np.partition(apart, self._k - 1, axis=0)[self._k - 1]
        return of_kept, np.where(finite, (new - self._median) / self._unit, np.inf)


def _finite(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(rows).all(axis=1), np.bool_)


def distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances `[n, m]` of the rows of `[n, D]` and `[m, D]`.

    Example:
        >>> distances(np.zeros((1, 2)), np.array([[3.0, 4.0]])).tolist()
        [[5.0]]
    """
    squares: NDArray[np.float64] = np.sum(a * a, axis=1)[:, None] + np.sum(b * b, axis=1) - 2 * (a @ b.T)
    return np.sqrt(np.maximum(squares, 0.0, out=squares), out=squares)
