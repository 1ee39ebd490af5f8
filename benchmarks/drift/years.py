"""False alarms a year, and how long it takes to find eight shifts at three strengths: a monitor beside its peers.

    python -m benchmarks.drift.years [--data DIR] [--cache DIR] [--baselines 6] [--runs 3] [--months 3] [--quick]
        [--peers adwin,page-hinkley,kswin,mmd] [--json FILE]

The network and its features are those of `detection.py`. Baselines of 2,000 rows and production are drawn from the
5,000 test images alike, with replacement: production of the other 3,000 images would differ from the baseline for good,
by the error of these 3,000, which months of it show. Of production there are 50 rows an hour, in windows of 10.
`DriftMonitor(alarms="1 per month")` is held against single windows at 1% and at the rate that is one a month of them,
against river's ADWIN, Page-Hinkley and KSWIN on four numbers per row (confidence, brightness, the first two principal
components of the embedding; an alarm of one is an alarm), and against Frouros's MMDStreaming of the first 16
components. ADWIN and KSWIN are asked for one false alarm a month as well (delta and alpha of a row: 1 / 36,000 / 4).
Page-Hinkley has no rate, so its threshold is the smallest at which it alarms at most once a month on rows drawn from
the baseline, and so is that of MMDStreaming; those with defaults stand at them, too. KSWIN and MMDStreaming take a
millisecond a row or a good part of it, and are asked about fewer rows.

Ours are the decisions of the monitor's own `Spans`, with p-values of the same null distributions as `compare`; windows
are means of features here, so that years are a matrix product. `min_effect` is 0: with a larger one there are fewer
false alarms, and what moves less is not found, so the largest Kolmogorov-Smirnov distance of a stream is beside each
shift.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import results
from benchmarks.drift.features import (
    Features,
    add_arguments,
    brightness,
    features,
    file_of,
    images_of,
    kept,
    measured,
    missing_data,
    trained,
)
from benchmarks.drift.ours import Means, Rows, log_p_values, profile_of
from benchmarks.drift.peer_answers import PACKAGES
from benchmarks.drift.peer_streams import answers_of
from benchmarks.peers import ENVIRONMENTS
from lensai_integrations.drift.calibration import TOP_CLASS_SUFFIX, Calibration, calibrated
from lensai_integrations.monitoring.alarms import Span, Spans, allowance, lengths_of
from lensai_integrations.monitoring.windows import Plan

Numbers = NDArray[np.int64]
#: Rows of a window, and its seconds.
WINDOW: Final = 10
SECONDS: Final = 720
#: Windows of an hour and of a month.
HOUR: Final = 5
MONTH: Final = 30 * 24 * HOUR
ROWS: Final = 2000
ASKED: Final = "1 per month"
#: Windows of clean rows before a shift, and of the shift at first and at most.
BEFORE: Final = 480
SOON: Final = 640
LONGEST: Final = 5120
#: Shifts measured beside those of `features.py`.
MORE: Final = {f"brightness {factor}": brightness(factor, factor) for factor in (0.98, 0.95)}
Shift = tuple[str, float, int]
#: By shift three strengths: the features, the share of rows that are changed, and windows until it is at its full.
SHIFTS: Final[dict[str, dict[str, Shift]]] = {
    "darker": {f"x{factor}": (f"brightness {of}", 1, 0) for factor, of in ((0.98, 0.98), (0.95, 0.95), (0.9, "weak"))},
    "noise": {f"{level} grey levels": (f"noise {level}", 1, 0) for level in (2, 6, 12)},
    "blur": {f"{share:.0%} of rows": ("blur easy", share, 0) for share in (0.05, 0.25, 1)},
    "dark": {f"{share:.0%} of rows": ("brightness easy", share, 0) for share in (0.05, 0.25, 1)},
    "pixelate": {f"{share:.0%} of rows": ("pixelate", share, 0) for share in (0.05, 0.25, 1)},
    "motion blur": {f"{share:.0%} of rows": ("motion blur", share, 0) for share in (0.05, 0.25, 1)},
    "a class rarer": {f"x{share:g}": ("class", share, 0) for share in (0.75, 0.5, 0)},
    "fading to x0.9": {f"in {days} days": ("brightness weak", 1, 24 * HOUR * days) for days in (28, 7, 1)},
}
OURS, WINDOWS, RARE = "alarms='1 per month'", "windows at 1%", "windows at 1 a month"


@dataclass(frozen=True)
class Data:
    """All rows that are drawn.

    Attributes:
        names: Of the shifts, in the order in which the tables have them.
        tables: Of each group the rows of all shifts, one below the other, `[S n, D]`.
        labels: Classes of the images, `[n]`.
    """

    names: tuple[str, ...]
    tables: Rows
    labels: NDArray[Any]

    @classmethod
    def of(cls, found: Mapping[str, Features]) -> Data:
        """Of the features of all shifts, the clean ones first."""
        keys = {"inputs": "inputs", "outputs": "outputs", "embeddings/features": "embeddings"}
        tables = {group: np.concatenate([each[key] for each in found.values()]) for group, key in keys.items()}
        return cls(tuple(found), tables, found["clean"]["labels"])

    @property
    def n(self) -> int:
        """Images."""
        return len(self.labels)

    def rows(self, numbers: Numbers) -> Rows:
        """Rows of these numbers, with their classes."""
        rows = {name: table[numbers] for name, table in self.tables.items()}
        classes = rows["outputs"][:, :10].argmax(1)[:, None].astype(np.float32)
        return rows | {f"outputs{TOP_CLASS_SUFFIX}": classes}

    @cached_property
    def scalars(self) -> NDArray[np.float64]:
        """Four numbers per row for the peers, and sixteen components, float64 `[S n, 18]`, each of variance 1."""
        embeddings = self.tables["embeddings/features"].astype(float)
        clean = embeddings[: self.n]
        axes = np.linalg.svd(clean - clean.mean(0), full_matrices=False)[2][:16]
        confidence, light = self.tables["outputs"][:, :10].max(1), self.tables["inputs"][:, 0]
        values = np.column_stack([confidence, light, (embeddings - clean.mean(0)) @ axes.T])
        return (values - values[: self.n].mean(0)) / values[: self.n].std(0)


def stream(data: Data, pool: Numbers, shift: Shift, windows: int, rng: np.random.Generator) -> Numbers:
    """Row numbers of so many windows of a shift, `[windows * 10]`."""
    of, share, rise = shift
    count = windows * WINDOW
    if of == "class":
        weight = np.where(data.labels[pool] == rng.integers(10), share, 1.0)
        return rng.choice(pool, count, p=weight / weight.sum())
    chosen = rng.choice(pool, count)
    full = np.minimum((np.arange(count) + 1) / (rise * WINDOW), 1.0) if rise else 1.0
    return np.where(rng.random(count) < share * full, data.names.index(of) * data.n + chosen, chosen)


# -- our p-values


@dataclass(frozen=True)
class Stretch:
    """Windows from one to another: what a profile is to a monitor."""

    first: int
    last: int

    def merge(self, later: Stretch) -> Stretch:
        """Both."""
        return Stretch(self.first, later.last)


@dataclass(frozen=True)
class Verdict:
    """What the monitor reads of a report."""

    p_value: float
    false_alarm_rate: float

    @property
    def drift(self) -> bool:
        """Whether it is."""
        return self.p_value < self.false_alarm_rate


class Stream:
    """The mean features of the windows of a stream, and the p-values of all stretches that a monitor asks for."""

    def __init__(self, calibration: Calibration, data: Data, numbers: Numbers) -> None:
        self.calibration = calibration
        used, places = np.unique(numbers, return_inverse=True)
        count = len(numbers) // WINDOW
        rows, parts = data.rows(used), calibration.parts
        self.means: Means = [
            [np.empty((count, block.width), np.float32) for block, _ in part.block.parts()] for part in parts
        ]
        made = [[block.features(rows[p.rows][:, columns]) for block, columns in p.block.parts()] for p in parts]
        for start in range(0, count, 500):
            some = places[start * WINDOW : (start + 500) * WINDOW].reshape(-1, WINDOW)
            weights = np.zeros((len(some), len(used)), np.float32)
            np.add.at(weights, (np.arange(len(some))[:, None], some), np.float32(1 / WINDOW))
            for means, of_part in zip(self.means, made, strict=True):
                for mean, each in zip(means, of_part, strict=True):
                    mean[start : start + 500] = weights @ each
        self.known: dict[tuple[int, int], float] = {}
        self._know(count)

    def _know(self, count: int) -> None:
        """The p-values of all stretches that are asked for unless a drift is over in between."""
        means, length = self.means, 1
        while count >= length:
            self._add(means, np.arange(len(means[0][0])) * max(length // 2, 1), length)
            halves = means if length == 1 else [[m[::2] for m in some] for some in means]
            means = [[(m[:-1] + m[1:]) / 2 for m in some] for some in halves]
            length *= 2
            if not len(means[0][0]):
                break

    def _add(self, means: Means, firsts: Numbers, length: int) -> None:
        logs = log_p_values(self.calibration, means, length * WINDOW)
        self.known |= {(int(f), int(f) + length - 1): float(np.exp(p)) for f, p in zip(firsts, logs, strict=True)}

    def ask(self, stretch: Any, rate: float) -> Any:
        """What a monitor asks of `compare`."""
        key = (stretch.first, stretch.last)
        if key not in self.known:
            part = slice(stretch.first, stretch.last + 1)
            means = [[mean[part].mean(axis=0)[None] for mean in some] for some in self.means]
            self._add(means, np.array(key[:1]), part.stop - part.start)
        return Verdict(self.known[key], rate)


# -- what is counted


def monitored(windows: Stream, count: int) -> Iterator[tuple[int, int, int | None]]:
    """Window by window whether the monitor alarms, of how many windows its report is, and when it says it began."""
    rows = windows.calibration.rows
    spans = Spans(allowance(ASKED), lengths_of(Plan(SECONDS * 10**6, 1, 1, by_time=True), rows), rows)
    for number in range(count):
        profile: Any = Stretch(number, number)
        window = Span(number + 1, number + 1, WINDOW, number * SECONDS, (number + 1) * SECONDS, profile)
        outcome = spans.judge(window, windows.ask)
        yield int(outcome.alarm), outcome.windows, outcome.began.window - 1 if outcome.began else None


def rises(alarms: NDArray[Any]) -> Numbers:
    """Where alarms begin."""
    return np.flatnonzero(np.diff(np.concatenate([[0], alarms.astype(int)])) > 0)


def clean_of(
    data: Data, calibration: Calibration, pool: Numbers, months: int, rng: np.random.Generator
) -> dict[str, float]:
    """False alarms a year of ours and of single windows, and the share of windows at alarm."""
    count = months * MONTH
    windows = Stream(calibration, data, rng.choice(pool, count * WINDOW))
    alarms = np.array([alarm for alarm, _, _ in monitored(windows, count)])
    single = np.array([windows.known[number, number] for number in range(count)])
    told = {OURS: alarms, WINDOWS: single < 0.01, RARE: single < 1 / MONTH}
    return {name: 12 / months * len(rises(found)) for name, found in told.items()} | {
        "share of windows at alarm": float(alarms.mean())
    }


def found_of(data: Data, calibration: Calibration, pool: Numbers, shift: Shift, seed: Any) -> dict[str, Any]:
    """Rows from the shift to the alarm, None if there was none, and how many windows the start told is off."""
    result: dict[str, Any] = {}
    for longest in (SOON, LONGEST):
        rng = np.random.default_rng(seed)
        before = rng.choice(pool, BEFORE * WINDOW)
        numbers = np.concatenate([before, stream(data, pool, shift, longest, rng)])
        windows = Stream(calibration, data, numbers)
        said = list(monitored(windows, BEFORE + longest))
        alarms = np.array([alarm for alarm, _, _ in said])
        single = np.array([windows.known[number, number] for number in range(BEFORE + longest)])
        for name, each in {OURS: alarms, WINDOWS: single < 0.01, RARE: single < 1 / MONTH}.items():
            after = rises(each)[rises(each) >= BEFORE]
            result[name] = int(after[0] - BEFORE + 1) * WINDOW if len(after) else None
        after = rises(alarms)[rises(alarms) >= BEFORE]
        result["start off by windows"] = said[after[0]][2] - BEFORE if len(after) else None  # type: ignore[operator]
        if len(after):
            break
    return result


def effect_of(data: Data, shift: Shift) -> float:
    """The largest Kolmogorov-Smirnov distance of a stream, all images of it against the clean ones."""
    rng = np.random.default_rng(0)
    numbers = stream(data, np.arange(data.n), (shift[0], shift[1], 0), 2000, rng)
    largest = 0.0
    for table in data.tables.values():
        for clean, moved in zip(table[: data.n].T, table[numbers].T, strict=True):
            edges = np.sort(clean)
            shares = [np.searchsorted(np.sort(side), edges, side="right") / len(side) for side in (clean, moved)]
            largest = max(largest, float(np.abs(shares[0] - shares[1]).max()))
    return largest


def result_of(data: Data, options: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    clean: dict[str, list[float]] = {}
    delays: dict[str, dict[str, list[Any]]] = {}
    pool, rows = np.arange(data.n), min(ROWS, data.n * 2 // 5)
    references = [np.random.default_rng([17, number]).choice(pool, rows) for number in range(options.baselines)]
    for number, reference in enumerate(tqdm(references, "ours", unit="baseline")):
        rng = np.random.default_rng([19, number])
        calibration = calibrated(profile_of({k: v[reference] for k, v in data.tables.items()}), seed=number)
        for name, value in clean_of(data, calibration, pool, options.months, rng).items():
            clean.setdefault(name, []).append(value)
        for place, (kind, shift) in enumerate(shifts_of(options.quick)) if number < options.runs else ():
            found = found_of(data, calibration, pool, shift, [23, number, place])
            for name, value in found.items():
                delays.setdefault(kind, {}).setdefault(name, []).append(value)
    for peer in options.peers.split(",") if options.peers else ():
        told = _peer(data, peer, references, options)
        clean |= told["clean"]
        for kind, by_method in told["delays"].items():
            delays[kind] |= by_method
    effects = {kind: effect_of(data, shift) for kind, shift in shifts_of(options.quick)}
    return {"asked": ASKED, "rows_a_window": WINDOW, "false_alarms_a_year": clean, "delays": delays, "effects": effects}


def shifts_of(quick: bool) -> list[tuple[str, Shift]]:
    """Name and shift; of each kind one strength if it is a quick run."""
    return [
        (f"{kind}, {strength}", shift)
        for kind, strengths in SHIFTS.items()
        for strength, shift in list(strengths.items())[2 if quick else 0 :]
    ]


def _peer(data: Data, peer: str, references: list[Numbers], options: argparse.Namespace) -> dict[str, Any]:
    """What a peer says of streams like ours, drawn alike."""
    months, runs, before, longest = {
        "adwin": (options.months, options.runs, BEFORE, LONGEST),
        "page-hinkley": (options.months, options.runs, BEFORE, LONGEST),
        "kswin": (min(options.months, 0.25), min(options.runs, 2), 10, 30),  # it knows the last 100 rows
        "mmd": (min(options.months, 0.5), min(options.runs, 2), 10, 320),
    }[peer]
    jobs: dict[str, Any] = {"values": data.scalars, "months": months}
    pool = np.arange(data.n)
    for number, reference in enumerate(references[:runs] if months < 1 else references):
        rng = np.random.default_rng([29, number])
        jobs[f"reference/{number}"] = reference
        jobs[f"clean/{number}"] = rng.choice(pool, int(months * MONTH) * WINDOW)
        for place, (kind, shift) in enumerate(shifts_of(options.quick)) if number < runs else ():
            rng = np.random.default_rng([31, number, place])
            clean = rng.choice(pool, before * WINDOW)
            jobs[f"{kind}/{number}"] = np.concatenate([clean, stream(data, pool, shift, longest, rng)])
    package = ("river==0.26.1",) if peer != "mmd" else PACKAGES["frouros"]
    return answers_of(peer, jobs, before * WINDOW, package, options.environments)


# -- what is printed


def table_of_alarms(clean: Mapping[str, list[float]]) -> str:
    """False alarms a year: mean, the worst baseline, and of how many."""
    lines = ["| method | false alarms a year, mean | worst baseline | baselines |", "|---|---|---|---|"]
    for name, found in clean.items():
        if name != "share of windows at alarm":
            lines.append(f"| {name} | {np.mean(found):.1f} | {np.max(found):.0f} | {len(found)} |")
    share = np.array(clean["share of windows at alarm"])
    return "\n".join(
        [*lines, f"\nOurs was at alarm in {share.mean():.1%} of clean windows, {share.max():.1%} at worst."]
    )


def words_of(delays: list[Any]) -> str:
    """The median delay in rows, and how many were found if not all; a dash if fewer than half were."""
    found = sum(each is not None for each in delays)
    middle = np.median([np.inf if each is None else each for each in delays])
    text = "-" if not np.isfinite(middle) else f"{middle:,.0f}"
    return text if found == len(delays) else f"{text} ({found} of {len(delays)})"


def table_of_delays(result: Mapping[str, Any]) -> str:
    """Median rows from a shift to the alarm."""
    names = [name for name in result["false_alarms_a_year"] if name != "share of windows at alarm"]
    lines = [f"| shift | effect | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for kind, found in result["delays"].items():
        cells = [words_of(found[name]) if name in found else "" for name in names]
        lines.append(f"| {kind} | {result['effects'][kind]:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def data_of(folder: Path, cache: Path) -> Data:
    """All features; those that `features.py` has not are made here."""
    found = features(folder, cache)
    missing = [shift for shift in MORE if not file_of(cache, shift).exists()]
    if missing:
        network, (images, labels) = trained(folder, cache, 14), images_of(folder / "cifar10" / "test")
        for shift in missing:
            kept(measured(network, MORE[shift](images), labels), file_of(cache, shift))
    for shift in MORE:
        with np.load(file_of(cache, shift), allow_pickle=False) as arrays:
            found[shift] = dict(arrays)
    return Data.of(found)


def main() -> int:
    """Draw, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    for name, default in (("baselines", 6), ("runs", 3), ("months", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--peers", default="adwin,page-hinkley,kswin,mmd", help="empty for none")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where peers are installed")
    parser.add_argument("--quick", action="store_true", help="the strongest shifts only: does it run")
    results.add_argument(parser)
    options = parser.parse_args()
    if missing_data(options.data, options.cache):
        return 0
    result = result_of(data_of(options.data, options.cache), options)
    print(f"\n## False alarms a year on clean rows\n\n{table_of_alarms(result['false_alarms_a_year'])}")
    print(f"\n## Median rows from a shift to the alarm\n\n{table_of_delays(result)}")
    off = [each for found in result["delays"].values() for each in found["start off by windows"] if each is not None]
    middle, most = (np.quantile(np.abs(off), share) * WINDOW for share in (0.5, 0.9))
    print(f"\nThe start that is told is off by {middle:.0f} rows in the median, {most:.0f} in one of ten cases or more")
    results.write(options.json, "drift/years", result)
    held = np.mean(result["false_alarms_a_year"][OURS]) <= 12.2
    print(f"\nheld on average: {held}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
