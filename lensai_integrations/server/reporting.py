"""In the background: verdicts and their reports go to MLflow, and a tracking server that is down keeps nobody waiting.

What is not logged yet stands in the store. So nothing piles up in memory while MLflow is down for a day, and what was
judged in the meantime is logged when it is back, also by a server that was started anew.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Final

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.edge.uploads import unpack_sketches
from lensai_integrations.errors import TrackingError
from lensai_integrations.mlflow.monitoring import SensorRuns
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.server import logged, queries
from lensai_integrations.server.lasting import Lasting
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.settling import ReportedHour
from lensai_integrations.server.store import Store, StoreError
from lensai_integrations.server.views import web_address

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

    def judged(self, found: ReportedHour) -> None:
        """An hour was judged, in another thread: keep its report, and wake up."""
        with self._lock:
            self._fresh[found.verdict.sensor, found.verdict.hour] = found
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
            hour = logged.claim(self._store, now, self._settings.report_seconds, after=self._last)
            if hour is None:
                return
            self._last = hour.verdict.sensor
            try:
                self._log(hour)
            except TrackingError:
                logged.put_back(self._store, hour)
                raise
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  an hour that cannot be logged must not hold up all others
                self._metrics.failures.labels("report").inc()
                self._told.warning(
                    "the report of %s, hour %d, is not in MLflow: %s", hour.verdict.sensor, hour.verdict.hour, error
                )
            logged.done(self._store, hour)

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

    def _log(self, hour: logged.Unlogged) -> None:
        verdict = hour.verdict
        report, window = self._report(hour)
        address = self._runs.log(verdict.sensor, verdict, report, self._baseline, window)
        run_id = address.rsplit("/", 1)[-1]
        if queries.run_of(self._store, verdict.sensor) != run_id:
            queries.set_run(self._store, verdict.sensor, run_id, web_address(address))

    def _report(self, hour: logged.Unlogged) -> tuple[DriftReport, Profile]:
        """As it was judged, or judged once more."""
        verdict = hour.verdict
        with self._lock:
            found = self._fresh.pop((verdict.sensor, verdict.hour), None)
        if found is not None and found.verdict.judged == verdict.judged:
            return found.report, found.window
        window = profile_of_files(unpack_sketches(hour.sketches), verdict.sensor, verdict.hour)
        return compare(self._baseline, window, false_alarm_rate=self._settings.false_alarm_rate), window
