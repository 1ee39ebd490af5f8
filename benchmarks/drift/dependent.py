"""Windows whose rows depend on each other: how often clean ones alarm, and how many shifted ones are found.

    python -m benchmarks.drift.dependent [--data DIR] [--cache DIR] [--baselines 4] [--windows 40] [--json FILE]

The network and its features are those of `detection.py`. For each baseline of 2,000 rows of the 5,000 test images,
production comes from the other 3,000, in consecutive windows of 200 rows: independent rows; bursts, every image ten
times; scenes, 60 rows that are nearest to one of them by their embeddings; and windows with shares of classes of their
own, drawn of Dirichlet's distribution. Each window is held against the baseline as if its rows were independent (as
`compare` does with those of a data set), as a monitor does, and by a baseline that has learned from so many clean
windows before. Shifted ones are the same with every row darkened or blurred.

Then hours of which each has a brightness of its own, the same every day: they are learned from two weeks with and
without the hour as context, and looked at in the next; a shifted hour is one that looks as one twelve hours later.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks import results
from benchmarks.drift.features import add_arguments, features, missing_data
from benchmarks.drift.tables import markdown
from benchmarks.drift.windows import Numbers, Rows, table_of
from lensai_integrations import Baseline, Profile, calibrate, compare
from lensai_integrations.drift.calibration import TOP_CLASS_SUFFIX
from lensai_integrations.drift.learning import with_clean_windows
from lensai_integrations.monitoring.events import WindowReport
from lensai_integrations.monitoring.normal import Normal
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import IN_TIME, ORDER
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.rows import RowSample

ROWS: Final = 2000
M: Final = 200
RATE: Final = 0.01
#: Exit status 1 if more clean windows drift than this after learning: 40 windows cannot tell what one in 100 does.
MOST: Final = 0.05
SHIFTED: Final = ("brightness easy", "blur easy", "noise 6")
GROUPS: Final = ("inputs", "embeddings", "outputs")
WAYS: Final = ("all rows count", "as a monitor sees it", "learned")
#: From rows, labels and the numbers that may be drawn to the numbers of one window after the other.
Draw = Callable[[np.random.Generator, Rows, NDArray[Any], Numbers], Iterator[Numbers]]


def independent(rng: np.random.Generator, rows: Rows, labels: NDArray[Any], pool: Numbers) -> Iterator[Numbers]:
    """Rows of independent images."""
    while True:
        yield rng.choice(pool, M)


def bursts(rng: np.random.Generator, rows: Rows, labels: NDArray[Any], pool: Numbers) -> Iterator[Numbers]:
    """Every image ten times."""
    while True:
        yield np.repeat(rng.choice(pool, M // 10), 10)


def scenes(rng: np.random.Generator, rows: Rows, labels: NDArray[Any], pool: Numbers) -> Iterator[Numbers]:
    """Sixty images that resemble one, after sixty that resemble another."""
    embeddings, waiting = rows["embeddings"][pool], np.zeros(0, np.int64)
    while True:
        while len(waiting) < M:
            apart = np.square(embeddings - embeddings[rng.integers(len(pool))]).sum(axis=1)
            waiting = np.concatenate([waiting, pool[rng.permutation(np.argsort(apart)[:60])]])
        yield waiting[:M]
        waiting = waiting[M:]


def own_classes(rng: np.random.Generator, rows: Rows, labels: NDArray[Any], pool: Numbers) -> Iterator[Numbers]:
    """Shares of classes of its own for every window."""
    while True:
        weights = rng.dirichlet(np.ones(10))[labels[pool]]
        yield rng.choice(pool, M, p=weights / weights.sum())


KINDS: Final[dict[str, Draw]] = {
    "independent rows": independent,
    "bursts of 10": bursts,
    "scenes of 60": scenes,
    "own shares of classes": own_classes,
}


class Data:
    """The features of every shift, and the labels.

    Attributes:
        names: Of the shifts, `"clean"` first.
        tables: By group the rows of all shifts one below the other.
        labels: Classes `[n]`.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.names = list(found)
        self.tables = {key: table_of(found, key) for key in GROUPS}
        self.labels: NDArray[Any] = found["clean"]["labels"]
        self._seeds = count()

    def profile(self, numbers: Numbers, shift: str = "clean", like: Profile | None = None) -> Profile:
        """Of rows, all of them shifted."""
        at, seed = numbers + self.names.index(shift) * len(self.labels), next(self._seeds)
        rows = {key: table[at] for key, table in self.tables.items()}
        groups = {}
        for key, each in rows.items():
            groups[key] = Group(key, tuple(map(str, range(each.shape[1]))), {"*": "benchmark/number@1"})
            groups[key].sketches["bank"] = bank = KLLBank(each.shape[1], seed=seed)
            bank.update(each)
            if key != "inputs":
                known = None if like is None else like.groups[key].kernel_mean
                mean = KernelMean(each.shape[1], exponents=None if known is None else known.exponents)
                mean.update(each)
                groups[key].sketches["kernel_mean"] = mean
        rows[f"outputs{TOP_CLASS_SUFFIX}"] = classes = rows["outputs"][:, :10].argmax(1)[:, None]
        groups["outputs"].sketches["categories/top_class"] = counts = Categories()
        counts.update(classes[:, 0])
        sample = RowSample(2000, seed=seed)
        sample.update(rows)
        return Profile(groups, sample, {"source": "production"})


def verdicts(independently: Baseline, taught: Baseline, window: Profile) -> list[bool]:
    """Whether a window is said to drift at a rate of 1%, by each of the ways."""
    came = Profile(window.groups, window.rows, {**window.info, ORDER: IN_TIME})
    return [
        compare(*pair, false_alarm_rate=RATE).drift
        for pair in ((independently, window), (independently, came), (taught, came))
    ]


def of_kind(data: Data, draw: Draw, baselines: int, windows_each: int) -> dict[str, list[float]]:
    """Shares of windows that drift, by clean and shift, and by way."""
    found: dict[str, list[list[bool]]] = {name: [] for name in ("clean", *SHIFTED)}
    clean = {key: table[: len(data.labels)] for key, table in data.tables.items()}
    for number in tqdm(range(baselines), draw.__name__, unit="baseline", leave=False):
        rng = np.random.default_rng([17, number])
        order = rng.permutation(len(data.labels))
        baseline = calibrate(data.profile(order[:ROWS]))
        windows = draw(rng, clean, data.labels, order[ROWS:])
        like = baseline.reference
        taught = with_clean_windows(baseline, [data.profile(next(windows), like=like) for _ in range(windows_each)])
        for _ in range(windows_each):
            numbers = next(windows)
            for shift, each in found.items():
                each.append(verdicts(baseline, taught, data.profile(numbers, shift, like)))
    return {shift: np.mean(each, axis=0).tolist() for shift, each in found.items()}


def of_hours(data: Data, baselines: int, days: int) -> dict[str, list[float]]:
    """Shares of hours of a week that drift: as they come, by what was learned, and by what was learned of that hour."""
    found: dict[str, list[list[bool]]] = {"clean": [], "twelve hours late": []}
    for number in tqdm(range(baselines), "hours", unit="baseline", leave=False):
        rng = np.random.default_rng([19, number])
        order = rng.permutation(len(data.labels))
        baseline = calibrate(data.profile(order[:ROWS]))
        hours = Hours(data, order[ROWS:], baseline.reference, rng)
        before = [hours.report(at) for at in range(24 * days)]
        learned = [Normal(baseline, context).taught(before) for context in (None, "hour")]
        for at in range(0, 7 * 24, 3):
            for name, late in (("clean", 0), ("twelve hours late", 12)):
                window, opened = hours.profile(at + late), 3600.0 * at
                held_against = [baseline, *(each.at(opened, opened + 3599) for each in learned)]
                found[name].append([compare(each, window, false_alarm_rate=RATE).drift for each in held_against])
    return {name: np.mean(each, axis=0).tolist() for name, each in found.items()}


@dataclass(frozen=True)
class Hours:
    """Production with a brightness of its own in every hour: at noon as in the baseline, at midnight all dark."""

    data: Data
    pool: Numbers
    like: Profile
    rng: np.random.Generator

    def profile(self, at: int) -> Profile:
        """Of an hour, by its number."""
        light = (1 - np.cos(2 * np.pi * at / 24)) / 2
        dark = self.data.names.index("brightness easy") * len(self.data.labels)
        numbers = self.rng.choice(self.pool, M) + dark * (self.rng.random(M) >= light)
        return self.data.profile(numbers, like=self.like)

    def report(self, at: int) -> WindowReport:
        """What a monitor gives of an hour, as far as it is learned from."""
        report: Any = None
        return WindowReport(at + 1, "ok", report, self.profile(at), M, 3600.0 * at, 3600.0 * at + 3599)


def line(name: str, found: dict[str, list[float]]) -> list[list[str]]:
    """Rows of a table: windows that drift, by way."""
    return [[name, shift, *(f"{100 * share:.1f}%" for share in shares)] for shift, shares in found.items()]


def main() -> int:
    """Draw, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    for name, default in (("baselines", 4), ("windows", 40), ("days", 14)):
        parser.add_argument(f"--{name}", type=int, default=default)
    results.add_argument(parser)
    options = parser.parse_args()
    if missing_data(options.data, options.cache):
        return 0
    data = Data(features(options.data, options.cache))
    kinds = {name: of_kind(data, draw, options.baselines, options.windows) for name, draw in KINDS.items()}
    print(markdown(["windows", "shift", *WAYS], [row for name, found in kinds.items() for row in line(name, found)]))
    hours = of_hours(data, max(options.baselines // 2, 1), options.days)
    heads = ["windows", "shift", "as they come", "learned", "learned by the hour"]
    print(markdown(heads, line("hours of a day", hours)))
    results.write(options.json, "drift/dependent", {"kinds": kinds, "hours": hours})
    quiet = [found["clean"][-1] for found in (*kinds.values(), hours)]
    return int(max(quiet) > MOST)


if __name__ == "__main__":
    sys.exit(main())
