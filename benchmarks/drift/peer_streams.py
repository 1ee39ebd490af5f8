"""What detectors of other packages say of streams: when they first alarm after a shift, and how often on clean rows.

    python peer_streams.py adwin|page-hinkley|kswin|mmd JOBS.npz ANSWERS.json BEFORE

The script runs within a peer's own environment, started by `years.py`; it needs numpy and the peer, nothing of this
package.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Rows of a month, and streams that share the rate.
MONTH, STREAMS = 36_000, 4
#: Rows that MMDStreaming looks at, components it is given, and rows of the reference.
LOOKS, COMPONENTS, REFERENCE = 50, 16, 500

#: From values `[n, 18]` to the row numbers of alarms.
Detect = Callable[[Any], Iterator[int]]


def answers_of(peer: str, jobs: dict[str, Any], before: int, package: Any, environments: Path) -> dict[str, Any]:
    """False alarms a year by method, and delays by shift and method, as a peer's own process finds them."""
    from benchmarks.peers import ONE_THREAD, python_of

    python = python_of("frouros" if peer == "mmd" else "river", package, environments)
    with tempfile.TemporaryDirectory() as folder:
        path, answers = Path(folder) / "jobs.npz", Path(folder) / "answers.json"
        np.savez(path, **jobs)
        environment = {**os.environ, **ONE_THREAD}
        environment.pop("PYTHONPATH", None)
        subprocess.run([python, Path(__file__), peer, path, answers, str(before)], env=environment, check=True)
        result: dict[str, Any] = json.loads(answers.read_text())
        return result


def any_of(make: Callable[[int], Any]) -> Detect:
    """An alarm of one of the streams is one."""

    def detect(values: Any) -> Iterator[int]:
        detectors = [make(stream) for stream in range(STREAMS)]
        for row, line in enumerate(values[:, :STREAMS].tolist()):
            alarmed = False
            for detector, value in zip(detectors, line, strict=True):
                detector.update(value)
                alarmed |= detector.drift_detected
            if alarmed:
                yield row

    return detect


def adwin(reference: Any) -> dict[str, Detect]:
    """At the rate asked for, and as it comes."""
    from river.drift import ADWIN

    asked = 1 / MONTH / STREAMS
    return {"ADWIN": any_of(lambda _: ADWIN(delta=asked)), "ADWIN, default": any_of(lambda _: ADWIN())}


def kswin(reference: Any) -> dict[str, Detect]:
    """At the rate asked for."""
    from river.drift import KSWIN

    return {"KSWIN": any_of(lambda stream: KSWIN(alpha=1 / MONTH / STREAMS, seed=stream))}


def page_hinkley(reference: Any) -> dict[str, Detect]:
    """With the smallest threshold that holds the rate on rows drawn from the reference, and as it comes."""
    from river.drift import PageHinkley

    drawn = reference[np.random.default_rng(0).integers(len(reference), size=3 * MONTH)]
    for threshold in (50, 100, 150, 200, 300, 400, 600, 800, 1200):
        detect = any_of(lambda _, threshold=threshold: PageHinkley(threshold=threshold))
        if sum(1 for _ in detect(drawn)) <= 3:
            break
    return {"Page-Hinkley, threshold fitted": detect, "Page-Hinkley, default": any_of(lambda _: PageHinkley())}


def mmd(reference: Any) -> dict[str, Detect]:
    """With the threshold that one window a month is above, by an exponential tail of those of the reference."""
    from functools import partial

    from frouros.detectors.data_drift import MMDStreaming
    from frouros.utils.kernels import rbf_kernel
    from scipy.spatial.distance import pdist

    columns = slice(2, 2 + COMPONENTS)
    known, rest = reference[:REFERENCE, columns], reference[REFERENCE:]
    kernel = partial(rbf_kernel, sigma=float(np.median(pdist(known))))

    def distances(values: Any) -> Iterator[float]:
        detector = MMDStreaming(window_size=LOOKS, kernel=kernel)
        detector.fit(X=known)
        for value in values[:, columns]:
            found, _ = detector.update(value=value)
            yield -np.inf if found is None else float(found.distance)

    drawn = rest[np.random.default_rng(0).integers(len(rest), size=15_000)]
    largest = np.sort(np.array(list(distances(drawn)))[LOOKS:].reshape(-1, LOOKS).max(axis=1))
    tail = largest[-len(largest) // 10 :]
    threshold = tail[0] + (tail - tail[0]).mean() * np.log(MONTH / LOOKS / 10)

    def detect(values: Any) -> Iterator[int]:
        yield from (row for row, distance in enumerate(distances(values)) if distance > threshold)

    return {"MMDStreaming, threshold fitted": detect}


PEERS = {"adwin": adwin, "page-hinkley": page_hinkley, "kswin": kswin, "mmd": mmd}


def alarms_of(rows: Iterator[int]) -> int:
    """How many: those within an hour of the last are one."""
    count, last = 0, -MONTH
    for row in rows:
        count += row - last > LOOKS
        last = row
    return count


def main() -> None:
    """Run all streams of the file, each after the rows of its reference."""
    if len(sys.argv) != 5:
        print(__doc__)
        return
    peer, path, answers, before = sys.argv[1:]
    with np.load(path) as jobs:
        values, months = jobs["values"], float(jobs["months"])
        keys = [key.rpartition("/") for key in jobs.files if "/" in key]
        clean: dict[str, list[float]] = {}
        delays: dict[str, dict[str, list[Any]]] = {}
        sides = {number: values[jobs[f"reference/{number}"]] for kind, _, number in keys if kind == "reference"}
        methods = {number: PEERS[peer](known) for number, known in sides.items()}
        for kind, _, number in keys:
            known, rows = sides[number], values[jobs[f"{kind}/{number}"]]
            print(f"{peer}: {kind} {number}", file=sys.stderr, flush=True)
            for name, detect in methods[number].items() if kind != "reference" else ():
                skipped = {"kswin": 200, "mmd": 0}.get(peer, len(known))
                alarms = (row - skipped for row in detect(np.concatenate([known[len(known) - skipped :], rows])))
                if kind == "clean":
                    clean.setdefault(name, []).append(alarms_of(row for row in alarms if row >= 0) * 12 / months)
                    continue
                first = next((row for row in alarms if row >= int(before)), None)
                delay = None if first is None else first - int(before) + 1
                delays.setdefault(kind, {}).setdefault(name, []).append(delay)
    Path(answers).write_text(json.dumps({"clean": clean, "delays": delays}))


if __name__ == "__main__":
    main()
