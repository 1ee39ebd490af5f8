"""A month of a thousand sensors: how many are reported falsely, how soon one that drifts is, and what it costs.

    python -m benchmarks.drift.fleet [--data DIR] [--cache DIR] [--sensors 1000] [--days 30] [--baselines 2] [--runs 3]
        [--drifting 100] [--index 10000] [--nets NAME] [--quick] [--json FILE]

Which sensors are reported is decided by the receiver's own functions (`server/weighing.py`): when a span is weighed
again, what the evidence of a sensor is, and who is reported among all. Sensors are hours of 60 rows drawn from a
population, as a baseline of 2,000 rows is. An hour is judged when a quarter, half, three quarters and all of its rows
are there, so that there is as much chance to be wrong as where verdicts follow uploads.

A month of a thousand sensors has 3.7 million windows, so here their p-values come from their mean features (`ours.py`)
by the null distributions that `compare` uses, without the effect that it asks for beside: what is reported here is at
least what the receiver reports. How soon a drift is reported is measured through the receiver itself, from the sketches
that devices send to the verdicts in its store.

Exit status 1 if more than one of the clean sensors was reported in a month.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np
from datasketches import kll_floats_sketch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sqlalchemy import insert, select
from tqdm import tqdm

from benchmarks import results
from benchmarks.drift.features import SHIFTS, add_arguments, images_of
from benchmarks.drift.ours import log_p_values, profile_of
from benchmarks.drift.populations import Table, populations
from lensai_integrations import Baseline, Profiler, calibrate
from lensai_integrations.drift.calibration import Calibration, calibrated, calibration_of
from lensai_integrations.drift.null import SMALLEST
from lensai_integrations.drift.significance import log_e_value
from lensai_integrations.edge.uploads import pack_sketches
from lensai_integrations.measures.images import image_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiling.measuring import image_measurer
from lensai_integrations.server import hours as stored_hours
from lensai_integrations.server import queries, settling
from lensai_integrations.server.pages import About, index_page
from lensai_integrations.server.records import HOUR
from lensai_integrations.server.store import EVIDENCE, HOURS, SENSORS, Store
from lensai_integrations.server.weighing import SPANS, HourRows, WeighedSpan, due_spans, evidence_of, fleet_of, weigh

#: Rows of an hour and of a baseline.
ROWS: Final = 60
BASELINE: Final = 2000
#: Verdicts of an hour while its rows come.
LOOKS: Final = 4
#: When the first hour begins, unix time in seconds.
START: Final = 1_800_000_000
GROUP: Final = "inputs/lensai-edge"
DEVICES: Final = "what devices measure of CIFAR-10"
#: Hours before a shift, of which the last day is judged, and at most after it.
BEFORE: Final = 168
LONGEST: Final = 14 * 24
#: Shifts, and the share of rows that are changed.
SHIFTED: Final = {
    "brightness x0.4 to 0.6": ("brightness easy", 1.0),
    "brightness x0.9": ("brightness weak", 1.0),
    "25% of rows darker, x0.4 to 0.6": ("brightness easy", 0.25),
    "10% of rows darker, x0.4 to 0.6": ("brightness easy", 0.1),
    "noise, 12 grey levels": ("noise 12", 1.0),
    "noise, 6 grey levels": ("noise 6", 1.0),
    "noise, 2 grey levels": ("noise 2", 1.0),
    "blur": ("blur easy", 1.0),
    "weak blur": ("blur weak", 1.0),
    "25% of rows blurred": ("blur easy", 0.25),
    "10% of rows blurred": ("blur easy", 0.1),
    "pixelate": ("pixelate", 1.0),
}
_QUICK: Final = ("brightness x0.4 to 0.6", "weak blur")
#: Of the drifting sensors in a month, in turn.
_WEAK: Final = ("brightness weak", "blur weak", "noise 2")

Floats = NDArray[np.float32]


# -- a month of many sensors


@dataclass
class Month:
    """What happened to many sensors, of which the first few drift.

    Attributes:
        drifting: How many drift.
        below: Which had an hour below 1%, `[S]`.
        reported: Which were reported at any time, `[S]`.
        largest: The most evidence of each at any time, natural logarithm `[S]`.
        true: Drifting sensors that are reported, hour by hour.
        false: Clean ones.
    """

    drifting: int
    below: NDArray[np.bool_]
    reported: NDArray[np.bool_]
    largest: NDArray[np.float64]
    true: list[int] = field(default_factory=list)
    false: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, sensors: int, drifting: int) -> Month:
        """Before anything has happened."""
        no = np.zeros(sensors, bool)
        return cls(drifting, no, no.copy(), np.full(sensors, -np.inf))

    @property
    def false_share(self) -> float:
        """The share of false ones among those reported, on average over all hours; 0 where none is."""
        return float(np.mean([no / max(yes + no, 1) for yes, no in zip(self.true, self.false, strict=True)]))

    @property
    def ever_false(self) -> int:
        """How many clean sensors were reported at any time."""
        return int(self.reported[self.drifting :].sum())

    def look(self, hours: NDArray[np.float64], spans: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Who is reported by the e-values of hours `[K, S]` and spans `[L, S]`, and remember it."""
        log_e = [evidence_of(*each) for each in zip(hours.T.tolist(), spans.T.tolist(), strict=True)]
        reported = np.array(fleet_of(log_e))
        self.reported |= reported
        self.largest = np.maximum(self.largest, log_e)
        return reported


class Windows:
    """Mean features of windows of many sensors, and their p-values.

    Args:
        calibration: Of the baseline.
        rows: By name in a row sample, `[N, D]`.
    """

    def __init__(self, calibration: Calibration, rows: Mapping[str, Floats]) -> None:
        self._calibration = calibration
        self._features = [
            [block.features(rows[part.rows][:, columns]) for block, columns in part.block.parts()]
            for part in calibration.parts
        ]

    def sums(self, numbers: NDArray[np.int64]) -> list[list[NDArray[Any]]]:
        """Sums of features of the rows of these numbers, `[S, m]`, by part and piece `[S, F]`."""
        sensors, m = numbers.shape
        ones, ends = np.ones(sensors * m, np.float32), np.arange(0, sensors * m + 1, m)
        counts = csr_matrix((ones, numbers.ravel(), ends), (sensors, len(self._features[0][0])))
        return [[(counts @ features).astype(np.float64) for features in part] for part in self._features]

    def log_p(self, sums: list[list[NDArray[Any]]], m: int) -> NDArray[np.float64]:
        """Logarithms of the p-values of windows of m rows, `[S]`."""
        means = [[(each / m).astype(np.float32) for each in part] for part in sums]
        return np.maximum(log_p_values(self._calibration, means, m), math.log(SMALLEST))


def month_of(windows: Windows, numbers: Callable[[int], NDArray[np.int64]], hours: int, drifting: int = 0) -> Month:
    """Hours of sensors one after the other, weighed as the receiver does it.

    Args:
        windows: Of the baseline.
        numbers: From an hour to the row numbers of all sensors `[S, ROWS]`; the same every time it is asked.
        hours: How many.
        drifting: The first so many sensors drift, the others are clean.
    """
    sensors = len(numbers(0))
    month, singles, spans = Month.of(sensors, drifting), np.zeros((0, sensors)), np.zeros((0, sensors))
    sums: dict[int, Any] = {}
    known: dict[int, WeighedSpan] = {}
    for hour in tqdm(range(hours), "a month", unit="hour", leave=False):
        rows = numbers(hour)
        for look in range(1, LOOKS):
            log_p = windows.log_p(windows.sums(rows[:, : ROWS * look // LOOKS]), ROWS * look // LOOKS)
            month.below |= log_p < math.log(0.01)
            month.look(np.vstack([singles[-23:], log_e_value(log_p)]), spans)
        whole, now = windows.sums(rows), START + HOUR * (hour + 1) + 60.0
        log_p = windows.log_p(whole, ROWS)
        month.below |= log_p < math.log(0.01)
        singles = np.vstack([singles[-23:], log_e_value(log_p)])
        for length in SPANS:
            gone = windows.sums(numbers(hour - length)) if hour >= length else None
            sums[length] = slid(sums.get(length), whole, gone)
        places = range(max(hour + 1 - SPANS[-1], 0), hour + 1)
        kept = [HourRows(START + HOUR * at, ROWS, START + HOUR * (at + 1.0)) for at in places]
        due = due_spans(kept, known, now)
        found = {length: log_e_value(windows.log_p(sums[length], ROWS * min(hour + 1, length))) for length in due}
        spans = np.stack([found[length] if length in found else spans[at] for at, length in enumerate(SPANS)])
        known |= dict.fromkeys(due, WeighedSpan(START + HOUR * (hour + 1), now, 0.0))
        reported = month.look(singles, spans)
        month.true.append(int(reported[:drifting].sum()))
        month.false.append(int(reported[drifting:].sum()))
    return month


def slid(sums: Any, come: Any, gone: Any) -> Any:
    """Sums over a span that is an hour later."""
    if sums is None:
        return come
    gone = gone or [[0.0 for _ in part] for part in come]
    parts = zip(sums, come, gone, strict=True)
    return [[old + new - left for old, new, left in zip(*part, strict=True)] for part in parts]


def drawn(pool: NDArray[np.int64], sensors: int, seed: list[int]) -> Callable[[int], NDArray[np.int64]]:
    """Row numbers of every hour, drawn from a pool; those of an hour are always the same."""

    def numbers(hour: int) -> NDArray[np.int64]:
        return np.random.default_rng([*seed, hour]).choice(pool, (sensors, ROWS))

    return numbers


def drifting_rows(
    clean: Callable[[int], NDArray[np.int64]], n: int, shifts: int, drifting: int
) -> Callable[[int], NDArray[np.int64]]:
    """The same, where the first sensors' rows are of one of the shifts each, which lie below the clean rows."""

    def numbers(hour: int) -> NDArray[np.int64]:
        rows = clean(hour)
        rows[:drifting] += n * (1 + np.arange(drifting)[:, None] % shifts)
        return rows

    return numbers


# -- what sensors are drawn from


@dataclass(frozen=True)
class Population:
    """Rows, and how a baseline is made of some of them.

    Attributes:
        rows: By name in a row sample `[n, D]`; of devices with those of all shifts below.
        n: Clean ones.
        baseline: From row numbers to a calibrated baseline's calibration.
    """

    rows: Table
    n: int
    calibration: Callable[[NDArray[np.int64], int], Calibration]


@dataclass(frozen=True)
class Devices:
    """Images as devices measure them, and baselines of images.

    Attributes:
        images: Clean ones, uint8 `[n, H, W, 3]`.
        rows: Of each shift `[n, D]`.
    """

    images: NDArray[np.uint8]
    rows: Mapping[str, Floats]

    @classmethod
    def of(cls, images: NDArray[np.uint8], shifts: Mapping[str, Any]) -> Devices:
        """Measure them."""
        return cls(images, {name: edge_rows(shift(images)) for name, shift in shifts.items()})

    def baseline(self, numbers: NDArray[np.int64], seed: int) -> Baseline:
        """A calibrated baseline, as a callback leaves it."""
        profiler = Profiler(convention="lensai-edge", source="validation", seed=seed)
        profiler.update(inputs=self.images[numbers])
        return calibrate(profiler.profile(), seed=seed)

    @property
    def population(self) -> Population:
        """For many sensors."""
        table = {GROUP: np.concatenate([self.rows[name] for name in ("clean", *_WEAK)])}

        def calibration(numbers: NDArray[np.int64], seed: int) -> Calibration:
            found = calibration_of(self.baseline(numbers, seed))
            assert found is not None
            return found

        return Population(table, len(self.images), calibration)


def edge_rows(images: NDArray[np.uint8]) -> Floats:
    """What devices measure of images, `[n, D]` float32."""
    measure = image_measurer(ImageInputs(layout="NHWC", scale=1), "lensai-edge")
    parts = [measure(images[at : at + 500])["lensai-edge"]["rows"] for at in range(0, len(images), 500)]
    return np.concatenate(parts).astype(np.float32)


def of_table(table: Table) -> Population:
    """A population of `populations.py`, whose baselines are profiles of its rows."""

    def calibration(numbers: NDArray[np.int64], seed: int) -> Calibration:
        measured = {name: rows[numbers] for name, rows in table.items() if not name.endswith("top_class")}
        classes = {name: rows[numbers] for name, rows in table.items() if name.endswith("top_class")}
        return calibrated(profile_of(measured, classes=classes), seed=seed)

    return Population(table, len(next(iter(table.values()))), calibration)


# -- through the receiver itself


class Sensors:
    """A receiver's store, in which hours of sensors are put as if they had been uploaded and merged.

    Args:
        store: Empty.
        baseline: What hours are held against.
    """

    def __init__(self, store: Store, baseline: Baseline) -> None:
        self._store, self._baseline = store, baseline
        #: Processor seconds of verdicts and of weighings.
        self.judging, self.weighing = list[float](), list[float]()

    def put(self, sensor: str, place: int, rows: Floats) -> None:
        """The rows of an hour."""
        hour = START + HOUR * place
        names = (f"imgstats/{name.replace('/', '_')}.bin" for name in STREAMS)
        files = {name: sketch(each) for name, each in zip(names, rows.T, strict=True)}
        about = {"version": 1, "uploads": 1, "rows": len(rows), "updated": hour + HOUR + 1.0}
        with self._store.writing() as db:
            db.execute(insert(HOURS).values(sensor=sensor, hour=hour, sketches=pack_sketches(files), **about))

    def judge(self, sensor: str, place: int) -> float:
        """Judge an hour as the worker does: the evidence of the sensor, natural logarithm."""
        hour, now = START + HOUR * place, START + HOUR * (place + 1) + 60.0
        with self._store.reading() as db:
            row = db.execute(select(HOURS).where(HOURS.c.sensor == sensor, HOURS.c.hour == hour)).one()
        due = stored_hours.Due(sensor, hour, row.version, row.uploads, row.rows, bytes(row.sketches))
        before = time.process_time()
        verdict, report, _ = settling.judge_hour(self._baseline, due, now, 0.01)
        between = time.process_time()
        weigh(self._store, self._baseline, verdict, report, now)
        self.judging.append(between - before)
        self.weighing.append(time.process_time() - between)
        stored_hours.put_verdict(self._store, verdict, row.version, None)
        with self._store.reading() as db:
            return float(db.scalar(select(EVIDENCE.c.log_e).where(EVIDENCE.c.sensor == sensor)))


#: Streams of a device's images, in the order of their rows.
STREAMS: Final = tuple(image_measures(3, "lensai-edge"))


def sketch(values: Floats) -> bytes:
    """As a device writes it."""
    found = kll_floats_sketch(200)
    found.update(np.ascontiguousarray(values, np.float32))
    return bytes(found.serialize())


def delay_of(
    devices: Devices, baseline: Baseline, shift: tuple[str, float], others: int, seed: list[int]
) -> int | None:
    """Hours from a shift to the report of the sensor among others that are clean; None if it was not reported."""
    rng, (name, share) = np.random.default_rng(seed), shift
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        try:
            sensors = Sensors(store, baseline)
            for place in range(BEFORE + LONGEST):
                chosen = rng.choice(len(devices.images), ROWS)
                moved = (rng.random(ROWS) < share) & (place >= BEFORE)
                clean, shifted = (devices.rows[each][chosen] for each in ("clean", name))
                sensors.put("door", place, np.where(moved[:, None], shifted, clean))
                if place < BEFORE - 24:
                    continue
                log_e = sensors.judge("door", place)
                if place >= BEFORE and fleet_of([log_e, *[math.log(0.5)] * others])[0]:
                    return place - BEFORE + 1
            return None
        finally:
            store.close()


def cost_of(devices: Devices, baseline: Baseline) -> dict[str, float]:
    """Processor seconds of hours in the second week of a clean sensor, and the most evidence of that week."""
    rng = np.random.default_rng(53)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        try:
            sensors, most = Sensors(store, baseline), -math.inf
            for place in range(2 * BEFORE):
                sensors.put("door", place, devices.rows["clean"][rng.choice(len(devices.images), ROWS)])
                if place >= BEFORE:
                    most = max(most, sensors.judge("door", place))
            weighing = sensors.weighing
            return {
                "judging": float(np.mean(sensors.judging)),
                "weighing": float(np.mean(weighing)),
                "weighing, most": max(weighing),
                "most log e": most,
            }
        finally:
            store.close()


def effect_of(clean: Floats, moved: Floats, share: float) -> float:
    """The largest Kolmogorov-Smirnov distance of a stream where a share of the rows is moved."""
    largest = 0.0
    for before, after in zip(clean.T, moved.T, strict=True):
        edges = np.sort(np.concatenate([before, after]))
        both = [np.searchsorted(np.sort(side), edges, side="right") / len(side) for side in (before, after)]
        largest = max(largest, share * float(np.abs(both[0] - both[1]).max()))
    return largest


# -- the page of many sensors


def index_of(count: int) -> dict[str, float]:
    """Processor seconds and bytes of the page of many sensors, each with a week of hours; one in 500 is reported."""
    with tempfile.TemporaryDirectory() as folder:
        store, now = Store(folder), START + HOUR * 168
        try:
            _fill(store, count, now)
            before = time.process_time()
            sensors, fleet = queries.sensors_to_look_at(store, now=float(now), most=500)
            asked = time.process_time()
            page = index_page(sensors, About("models:/digits/1", BASELINE, 0.01, float(now), cut=True), fleet)
            made = time.process_time()
            assert fleet.reported == -(-count // 500)
            return {"asking": asked - before, "making": made - asked, "bytes": len(page.encode()), "rows": len(sensors)}
        finally:
            store.close()


def _fill(store: Store, count: int, now: int) -> None:
    rng = np.random.default_rng(0)
    for start in tqdm(range(0, count, 500), "filling", leave=False):
        names = [f"camera-{number}" for number in range(start, min(start + 500, count))]
        about = {"first": START, "last": now - 60, "received": now - 60.0, "uploads": 168, "problems": "[]"}
        merged = {"version": 1, "judged_version": 1, "judged": 1.0, "updated": 0.0, "uploads": 1, "rows": ROWS}
        hours = [
            {**merged, "sensor": name, "hour": START + HOUR * at, "drift": False, "effect": 0.05, "sketches": b""}
            for name in names
            for at in range(168)
        ]
        log_e = rng.normal(-0.5, 0.5, len(names))
        log_e[0] = 40.0
        evidence = [
            {"sensor": name, "log_e": each, "hours": 24, "until": now, "weighed": 1.0, "moved": '["inputs/noise"]'}
            for name, each in zip(names, log_e.tolist(), strict=True)
        ]
        with store.writing() as db:
            db.execute(insert(SENSORS), [{**about, "name": name} for name in names])
            db.execute(insert(HOURS), hours)
            db.execute(insert(EVIDENCE), evidence)


# -- what is printed


def sources(options: argparse.Namespace, devices: Devices | None) -> Iterator[tuple[str, Population]]:
    """Populations by name: what devices measure, and what nets answer."""
    if devices is not None:
        yield DEVICES, devices.population
    for name, table in populations(options.data, options.cache):
        if options.nets in name and "CIFAR" not in name:
            yield name, of_table(table)


def clean_line(name: str, number: int, month: Month) -> str:
    """A row of the table of clean months."""
    sensors = len(month.below)
    most = math.exp(min(month.largest.max(), 700))
    return f"| {name} | {number} | {month.below.mean():.1%} | {month.ever_false} of {sensors:,} | {most:,.0f} |"


def months(options: argparse.Namespace, devices: Devices | None, figures: dict[str, Any]) -> bool:
    """Clean months, and with devices one in which some sensors drift; whether the promise held."""
    held, hours, words = True, options.days * 24, ""
    heads = "| population | baseline | sensors with an hour below 1% | reported at any time | most evidence |"
    print(f"{heads}\n|---|---|---|---|---|")
    for name, population in sources(options, devices):
        for number in range(options.baselines):
            reference = np.random.default_rng([41, number]).choice(population.n, BASELINE)
            windows = Windows(population.calibration(reference, number), population.rows)
            clean = drawn(np.arange(population.n), options.sensors, [43, number])
            month = month_of(windows, clean, hours)
            print(clean_line(name, number + 1, month), flush=True)
            figures[f"clean, {name}, {number}"] = {
                "below": month.below.mean(), "reported": month.ever_false, "most log e": month.largest.max(),
            }  # fmt: skip
            held &= month.ever_false <= 1
            if name == DEVICES and options.drifting and not number:
                rows = drifting_rows(clean, population.n, len(_WEAK), options.drifting)
                drift = month_of(windows, rows, hours, options.drifting)
                words = f"\n{drift_words(options, drift)}"
                figures["with drift"] = {
                    "true": drift.true,
                    "false": drift.false,
                    "false share": drift.false_share,
                    "ever": drift.ever_false,
                }
    print(words, flush=True)
    return held


def drift_words(options: argparse.Namespace, month: Month) -> str:
    """What was reported of a month in which some sensors drift."""
    hour, day, end = (month.true[min(at, len(month.true)) - 1] for at in (1, 24, len(month.true)))
    return (
        f"{month.drifting} of {options.sensors:,} sensors drift weakly all the time: {hour} of them are reported after"
        f" an hour, {day} after a day, {end} after {options.days} days. On average {month.false_share:.2%} of those"
        f" reported were false; {month.ever_false} clean sensors were at any time"
    )


def delays(options: argparse.Namespace, devices: Devices, figures: dict[str, Any]) -> None:
    """How soon a sensor that drifts is reported, and what an hour costs."""
    references = [
        np.random.default_rng([41, each]).choice(len(devices.images), BASELINE) for each in range(options.runs)
    ]
    baselines = [devices.baseline(reference, number) for number, reference in enumerate(references)]
    print(f"\n| shift | effect | hours until it is reported among {options.sensors:,} |\n|---|---|---|")
    for place, (title, shift) in enumerate(SHIFTED.items()):
        if options.quick and title not in _QUICK:
            continue
        found = [
            delay_of(devices, baseline, shift, options.sensors - 1, [47, number, place])
            for number, baseline in enumerate(baselines)
        ]
        effect = effect_of(devices.rows["clean"], devices.rows[shift[0]], shift[1])
        words = ", ".join(str(each or f"not in {LONGEST}") for each in found)
        print(f"| {title} | {effect:.2f} | {words} |", flush=True)
        figures[f"delay, {title}"] = {"effect": effect, "hours": [each or math.inf for each in found]}
    figures["cost"] = cost = cost_of(devices, baselines[0])
    print(
        f"\nProcessor time of an hour: verdict {1000 * cost['judging']:.0f} ms, weighing"
        f" {1000 * cost['weighing']:.0f} ms, {1000 * cost['weighing, most']:.0f} ms where a week is merged. The most"
        f" evidence of that clean week was {math.exp(cost['most log e']):.1f}"
    )


def main() -> int:
    """Draw, weigh, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    for name, default in (
        ("sensors", 1000), ("days", 30), ("baselines", 2), ("runs", 3), ("drifting", 100), ("index", 10_000),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--nets", default="a real net", help="populations whose name has this in it; empty for all")
    parser.add_argument("--quick", action="store_true", help="two shifts only: does it run")
    results.add_argument(parser)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    there = (options.data / "cifar10" / "test").is_dir()
    shifts = {name: SHIFTS[name] for name in {"clean", *_WEAK, *(of for of, _ in SHIFTED.values())}}
    devices = Devices.of(images_of(options.data / "cifar10" / "test")[0], shifts) if there else None
    if devices is None:
        print(f"{options.data} has no cifar10/test: what devices measure is left out")
    held = months(options, devices, figures)
    if devices is not None:
        delays(options, devices, figures)
    if options.index:
        figures["index"] = told = index_of(options.index)
        print(
            f"\nThe page of {options.index:,} sensors: {told['rows']} rows, {told['bytes'] / 1e6:.2f} MB; processor"
            f" time {told['asking']:.2f} s to ask the store, {told['making']:.2f} s to make it"
        )
    results.write(options.json, "drift/fleet", figures)
    print(f"\nheld: {held}", flush=True)
    return not held


if __name__ == "__main__":
    sys.exit(main())
