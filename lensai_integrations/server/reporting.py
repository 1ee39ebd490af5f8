"""In the background: verdicts and their reports go to MLflow, and a tracking server that is down keeps nobody waiting.

What is not logged yet stands in the store. So nothing piles up in memory while MLflow is down for a day, and what was
judged in the meantime is logged when it is back, also by a server that was started anew.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass
from typing import Final

from sqlalchemy import update

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.edge.uploads import unpack_sketches
from lensai_integrations.errors import TrackingError
from lensai_integrations.mlflow.monitoring import SensorRuns
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.server import queries
from lensai_integrations.server.hours import lease
from lensai_integrations.server.lasting import Lasting
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.pages import web_address
from lensai_integrations.server.records import HourDrift
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import ReportedHour
from lensai_integrations.server.store import HOURS, Store, StoreError, of_hour

_LOG = logging.getLogger(__name__)
#: Seconds between looks where nothing woke the worker.
LOOK: Final = 5.0
_LEAST_BACK_OFF, _MOST_BACK_OFF = 1.0, 60.0
#: Reports that are kept in memory until they are logged; others are made again.
_KEPT: Final = 64


class Reporter:
    """The worker.

    Args:
        store: Where verdicts are.
        baseline: What hours are held against.
        settings: How often.
        metrics: Counts failures.
        runs: Where to.
    """

    def __init__(
        self, store: Store, baseline: Baseline, settings: Settings, metrics: ServerMetrics, runs: SensorRuns
    ) -> None:
        self._store, self._baseline, self._settings = store, baseline, settings
        self._metrics, self._runs = metrics, runs
        self._fresh: dict[tuple[str, int], ReportedHour] = {}
        self._lock, self._wake, self._stop = threading.Lock(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="lensai-reporter", daemon=True)
        #: Whose hour was logged last: sensors take turns.
        self._last, self._told = "", Lasting(_LOG)
        #: Why nothing is logged at present; empty if there is no reason.
        self.problem = ""

    def judged(self, reported: ReportedHour) -> None:
        """An hour was judged, in another thread: keep its report, and wake up."""
        with self._lock:
            self._fresh[reported.verdict.sensor, reported.verdict.hour] = reported
            while len(self._fresh) > _KEPT:
                del self._fresh[next(iter(self._fresh))]
        self._wake.set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Finish the hour at hand, mark the runs as finished, and end; the rest is logged after the next start."""
        self._stop.set()
        self._wake.set()
        if not self._thread.is_alive():
            return
        self._thread.join(seconds)
        if not self.problem and not self._thread.is_alive():
            with contextlib.suppress(TrackingError):
                self._runs.close()

    def work(self, now: float) -> None:
        """Log all that waits.

        Args:
            now: Unix time in seconds, by the store's clock.

        Raises:
            StoreError: If the store cannot be used.
            TrackingError: If MLflow cannot be written to; the hour at hand is tried again.
        """
        while not self._stop.is_set():
            hour = claim(self._store, now, self._settings.report_seconds, after=self._last)
            if hour is None:
                return
            self._last = hour.verdict.sensor
            try:
                self._log(hour)
            except TrackingError:
                put_back(self._store, hour)
                raise
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  an hour that cannot be logged must not hold up all others
                self._metrics.failures.labels("report").inc()
                self._told.warning(
                    "the report of %s, hour %d, is not in MLflow: %s", hour.verdict.sensor, hour.verdict.hour, error
                )
            done(self._store, hour)

    def _run(self) -> None:
        pause = 0.0
        while not self._stop.is_set():
            self._wake.wait(LOOK)
            self._wake.clear()
            self._stop.wait(pause)
            try:
                self.work(self._store.now())
                pause, self.problem = 0.0, ""
            except Exception as error:  # noqa: BLE001  the worker must outlive whatever happens
                pause = min(max(_LEAST_BACK_OFF, 2 * pause), _MOST_BACK_OFF)
                self._metrics.failures.labels("store" if isinstance(error, StoreError) else "report").inc()
                self.problem = f"reports are not logged to MLflow at present: {error}"
                _LOG.warning("%s; tried again in %.0f s", self.problem, pause)

    def _log(self, hour: Unlogged) -> None:
        verdict = hour.verdict
        report, window = self._report(hour)
        address = self._runs.log(verdict.sensor, verdict, report, self._baseline, window)
        run_id = address.rsplit("/", 1)[-1]
        if queries.run_of(self._store, verdict.sensor) != run_id:
            queries.set_run(self._store, verdict.sensor, run_id, web_address(address))

    def _report(self, hour: Unlogged) -> tuple[DriftReport, Profile]:
        """As it was judged, or judged once more."""
        verdict = hour.verdict
        with self._lock:
            fresh = self._fresh.pop((verdict.sensor, verdict.hour), None)
        if fresh is not None and fresh.verdict.judged == verdict.judged:
            return fresh.report, fresh.window
        window = profile_of_files(unpack_sketches(hour.sketches), verdict.sensor, verdict.hour)
        return compare(self._baseline, window, false_alarm_rate=self._settings.false_alarm_rate), window


@dataclass(frozen=True)
class Unlogged:
    """An hour whose newest verdict is not in MLflow yet.

    Attributes:
        verdict: The verdict.
        version: Of the sketches that it is of.
        sketches: Packed; of this version or a newer one.
        before: When it was logged last, unix time in seconds by the store's clock; 0 if it never was.
    """

    verdict: HourDrift
    version: int
    sketches: bytes
    before: float


def claim(store: Store, now: float, interval: float, after: str = "") -> Unlogged | None:
    """An hour for this server to log; None if there is none.

    Args:
        store: Where from.
        now: Unix time in seconds, by the store's clock.
        interval: Seconds after which the same hour is logged again, if it has been judged anew.
        after: The sensor that had its turn before: the next by name has the next one.

    Raises:
        StoreError: If the store cannot be used.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> claim(store, now=1719392400.0, interval=600.0) is None
        True
        >>> store.close()
    """
    judged = (HOURS.c.logged_version < HOURS.c.judged_version) & HOURS.c.drift.is_not(None)
    wanted = (*queries.VERDICT, HOURS.c.judged_version, HOURS.c.sketches)
    leased = lease(store, judged, HOURS.c.logged, wanted, now=now, interval=interval, after=after)
    if leased is None:
        return None
    row, before = leased
    return Unlogged(queries.verdict_of_row(row), row.judged_version, bytes(row.sketches), before)


def done(store: Store, hour: Unlogged) -> None:
    """Remember that an hour is logged, or cannot be.

    Raises:
        StoreError: If the store cannot be used.
    """
    with store.writing() as db:
        mine = of_hour(hour.verdict.sensor, hour.verdict.hour)
        db.execute(update(HOURS).where(mine).values(logged_version=hour.version))


def put_back(store: Store, hour: Unlogged) -> None:
    """Let an hour be tried again at once.

    Raises:
        StoreError: If the store cannot be used.
    """
    with store.writing() as db:
        db.execute(update(HOURS).where(of_hour(hour.verdict.sensor, hour.verdict.hour)).values(logged=hour.before))
