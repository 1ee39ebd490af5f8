"""`lensai serve` as a process of its own for `load.py`: started, watched, killed; and what is in its store."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import select

from benchmarks.receiver.devices import Hours, values_of
from lensai_integrations.server import queries
from lensai_integrations.server.store import HOURS, UPLOADS, Store

_MAIN = "from lensai_integrations.cli import main; main()"


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Server:
    """The receiver on loopback; may be killed and started again on the same store.

    Args:
        baseline: What `--baseline` is given.
        store: What `--store` is given.
        options: Further options of `lensai serve`.
    """

    def __init__(self, baseline: str, store: str, *options: str) -> None:
        self.store, self.port = store, free_port()
        arguments = ["serve", "--baseline", baseline, "--store", store, "--port", str(self.port), *options]
        self._command = [sys.executable, "-c", _MAIN, *arguments]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60.0) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(self._command)
        deadline = time.monotonic() + seconds
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("lensai serve did not start; its own message is above")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return self.get("/healthz")[0] == 200
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of what it answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def gauge(self, name: str) -> float:
        """A number of `/metrics`."""
        lines = self.get("/metrics")[1].decode().splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(name + " ")))

    def settled(self, seconds: float = 120.0, *, judged: bool = True) -> float:
        """Wait until every upload is merged, and every hour judged; seconds that took."""
        began = time.monotonic()
        gauges = ["lensai_uploads_pending", *(["lensai_hours_due"] if judged else [])]
        while any(self.gauge(gauge) for gauge in gauges):
            if time.monotonic() - began > seconds:
                raise SystemExit(f"after {seconds:.0f} s not everything is merged and judged")
            time.sleep(0.2)
        return time.monotonic() - began

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> None:
        """Ask it to end, as an operator would."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def resident(self) -> int:
        """Bytes of memory it holds."""
        return int(psutil.Process(self._pid).memory_info().rss)

    def processor(self) -> float:
        """Processor seconds it has used."""
        times = psutil.Process(self._pid).cpu_times()
        return float(times.user + times.system)

    @property
    def _pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@contextmanager
def running(baseline: str, store: str, *options: str) -> Iterator[Server]:
    """A server that runs as long as it is needed."""
    server = Server(baseline, store, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def kept(place: str) -> tuple[list[tuple[str, int]], Hours, int]:
    """What is in a store: sensor and timestamp of every upload, what is merged of every hour, and images in all.

    Values are counted in the merged sketches themselves.
    """
    store = Store(place)
    try:
        with store.reading() as db:
            keys = [(row.sensor, row.timestamp) for row in db.execute(select(UPLOADS.c.sensor, UPLOADS.c.timestamp))]
            rows = list(db.execute(select(HOURS.c.sensor, HOURS.c.hour, HOURS.c.uploads, HOURS.c.rows)))
        hours: Hours = {}
        for row in rows:
            sketches = queries.hour_sketches(store, row.sensor, row.hour) or {}
            hours[row.sensor, row.hour] = (row.uploads, values_of(sketches))
        return keys, hours, sum(row.rows for row in rows)
    finally:
        store.close()


def size_of(place: str) -> int | None:
    """Bytes of a store in a folder; None of one in a database."""
    return None if "://" in place else sum(path.stat().st_size for path in Path(place).iterdir())


def trend(samples: list[tuple[int, int]]) -> dict[str, Any]:
    """How memory `(uploads, bytes)` grows: MiB at the first and the last sample, and KiB for 1,000 uploads."""
    uploads, sizes = np.array(samples, float).T
    slope = float(np.polyfit(uploads, sizes, 1)[0]) if len(samples) > 1 else 0.0
    return {
        "early": samples[0][1] / 2**20,
        "last": samples[-1][1] / 2**20,
        "most": max(size for _, size in samples) / 2**20,
        "kib_per_1000": slope * 1000 / 2**10,
    }
