"""A monitor that is killed at every file operation of a run, and restarted; prints what became of each run as JSON.

Every run is a process of its own, forked from this one, so that numpy is imported once. It counts what the monitor asks
of the operating system, and kills itself with SIGKILL before the n-th request; a write is cut in half first.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from monitors import judge_by_mean, numbers, small_baseline

from lensai_integrations import DriftMonitor
from lensai_integrations.monitoring import judging, state
from lensai_integrations.monitoring.sinks import JSONLinesSink, PrometheusSink, json_lines
from lensai_integrations.monitoring.sinks.json_lines import read_events
from lensai_integrations.storage import folders

#: Rows and shift of each batch; windows are of four rows.
BATCHES = ((2, 9), (2, 9), (4, 0))
COUNTED = ("open", "write", "fsync", "close", "replace", "unlink")


class Killing:
    """`os`, whose n-th counted call kills the process."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def __getattr__(self, name):
        return self._counted(name) if name in COUNTED else getattr(os, name)

    def _counted(self, name):
        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == self.at:
                if name == "write":
                    os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return getattr(os, name)(*args, **kwargs)

        return call


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def run(folder: Path, stride: int | None, at: int) -> int:
    """Go on with the batches that the state does not have; how many operations it took."""
    killing = Killing(at)
    folders.os = json_lines.os = state.os = killing
    sinks = [
        lambda event: append(folder / "told", event.kind),
        JSONLinesSink(folder / "events.jsonl"),
        PrometheusSink(folder / "drift.prom"),
    ]
    monitor = DriftMonitor(BASELINE, 4, stride=stride, state=folder / "state", sinks=sinks, recover=1)
    kept = {sum(n for n, _ in BATCHES[:end]): end for end in range(len(BATCHES) + 1)}[monitor.status.rows]
    append(folder / "starts", f"{kept} {len(lines(folder / 'returned'))}")
    with monitor:
        for number in range(kept, len(BATCHES)):
            n, shift = BATCHES[number]
            monitor.update(outputs=numbers(n, shift=shift, seed=number))
            append(folder / "returned", str(number))
    append(folder / "failures", json.dumps(monitor.status.failures))
    return killing.calls


def forked(folder: Path, stride: int | None, at: int) -> int:
    """Run in a process of its own: how many operations it took, 0 if it was killed."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(theirs, str(run(folder, stride, at)).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    answer = os.read(ours, 100)
    os.close(ours)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or answer, "the monitor raised"
    return int(answer or 0)


def outcome(folder: Path, kills: int) -> dict:
    events = list(read_events(folder / "events.jsonl"))
    return {
        "kills": kills,
        "starts": [tuple(map(int, line.split())) for line in lines(folder / "starts")],
        "windows": [(e["window"]["number"], e["kind"], e["window"]["rows"]) for e in events if e["type"] == "window"],
        "notices": [e["kind"] for e in events if e["type"] == "notice"],
        "told": lines(folder / "told"),
        "failures": lines(folder / "failures"),
        "files": sorted(path.suffix for path in (folder / "state").iterdir()),
        "running": "lensai_monitor_running" in (folder / "drift.prom").read_text(),
    }


def main(folder: Path, stride: int | None, step: int) -> None:
    """Kill once at every `step`-th operation, and then every 60 operations over and over again."""
    (folder / "whole").mkdir()
    total = forked(folder / "whole", stride, -1)
    results = [outcome(folder / "whole", 0)]
    for at in range(1, total + 1, step):
        own = folder / "once"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir()
        kills = int(not forked(own, stride, at))
        forked(own, stride, -1)
        results.append(outcome(own, kills))
    own, kills = folder / "again", 0
    own.mkdir()
    while not forked(own, stride, 60) and kills < 50:
        kills += 1
    results.append(outcome(own, kills))
    print(json.dumps({"operations": total, "results": results}))  # noqa: T201


if __name__ == "__main__":
    BASELINE = small_baseline()
    judging.level_of = judge_by_mean
    main(Path(sys.argv[1]), int(sys.argv[2]) or None, int(sys.argv[3]))
