"""In the background: uploads are merged into their hours, hours held against the baseline, and old ones forgotten.

Merging and judging take turns, and so do sensors in both: however much one of them sends, the verdicts of the others
come. What goes wrong with one hour stays with that hour; the worker goes on. A store that cannot be used is tried
again, at growing intervals.

What is forgotten is so by what the newest data say of the time, and only so much at once, for no clock is believed on
its own. A server whose clock is three months ahead has data of today all the same, so nothing in its store is three
months older than them; a device whose clock is ahead is taken to be of now.
"""

from __future__ import annotations

import logging
import math
import random
import string
import threading
import time
from bisect import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import ColumnElement, delete, exists, func, select

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.edge.reading import profile_of_files
from lensai_integrations.edge.uploads import pack_sketches, rows_of, unpack_sketches
from lensai_integrations.errors import LensAIError
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.server import hours, queries
from lensai_integrations.server.hours import fitting, folded
from lensai_integrations.server.lasting import Lasting
from lensai_integrations.server.metrics import ServerMetrics
from lensai_integrations.server.records import HourDrift, duration, utc
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import EVIDENCE, HOURS, SENSORS, UPLOADS, Store, StoreError, of_hour
from lensai_integrations.server.weighing import weigh

_LOG = logging.getLogger(__name__)
#: Seconds for which uploads are let come together, and between looks where nothing woke the worker.
GATHER: Final = 1.0
LOOK: Final = 2.0
#: Seconds between clean-ups, of which the first comes as long after the start; and by how many the clock may have been
#: set meanwhile.
CLEAN: Final = 3600.0
_SET: Final = 60.0
#: Seconds of merging, then of judging, after which it is the other's turn: thousands of hours may wait for either.
MERGING: Final = 1.0
JUDGING: Final = 1.0
_MOST_BACK_OFF: Final = 30.0
#: Seconds for which an hour that could not be merged is left alone; where the store refused it, only as long as above.
_LEAVE: Final = 300.0
#: Streams that are named of those that moved.
_MOST_MOVED: Final = 20


@dataclass(frozen=True)
class ReportedHour:
    """An hour with its report, for whoever wants to be told.

    Attributes:
        verdict: What was found.
        report: The whole report.
        window: The profile of the hour.
        baseline: What it was held against.
    """

    verdict: HourDrift
    report: DriftReport
    window: Profile
    baseline: Baseline


#: Told of every hour that was judged. May raise: that is logged and counted.
Listener = Callable[[ReportedHour], None]


class Settler:
    """The worker.

    Args:
        store: Where uploads are.
        baseline: What hours are held against.
        settings: How often, and how many at once.
        metrics: Counts what is done and what failed.
        on_judged: Told of every hour that was judged.
        steady: Seconds, of a clock that is never set.
    """

    def __init__(
        self,
        store: Store,
        baseline: Baseline,
        settings: Settings,
        metrics: ServerMetrics,
        on_judged: Listener | None = None,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._baseline, self._settings, self._metrics = store, baseline, settings, metrics
        self._on_judged, self._steady = on_judged, steady
        self._left_alone: dict[tuple[str, int], float] = {}
        self._told = Lasting(_LOG)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="lensai-settler", daemon=True)
        #: Whose uploads were merged, and whose hour was judged, last; of several servers, each begins elsewhere.
        self._merged_last = self._judged_last = random.choice(string.ascii_lowercase)
        #: When it was cleaned up, by the steady clock, and by how much the store's was ahead of that one.
        self._cleaned, self._offset = steady(), math.nan

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    def stop(self, seconds: float = 20.0) -> None:
        """Finish the hour at hand, and end."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause, more = 0.0, False
        while not self._stop.is_set():
            if not (pause or more):
                self._wake.wait(LOOK)
            self._wake.clear()
            self._stop.wait(pause or (0.0 if more else GATHER))
            try:
                more = self.work(self._store.now())
                pause = 0.0
            except Exception as error:  # noqa: BLE001  the worker must outlive whatever happens
                pause = min(max(1.0, 2 * pause), _MOST_BACK_OFF)
                self._metrics.failures.labels("store" if isinstance(error, StoreError) else "settle").inc()
                _LOG.warning("merging and judging is tried again in %.0f s: %s", pause, error)

    def work(self, now: float) -> bool:
        """Merge what is pending, judge what is due, each for about a second, and forget what is old.

        Args:
            now: Unix time in seconds, by the store's clock.

        Returns:
            Whether more may be pending, or due.

        Raises:
            StoreError: If the store cannot be used.
        """
        steady = self._steady()
        self._left_alone = {key: until for key, until in self._left_alone.items() if until > steady}
        more = self._merge_some(now)
        more = self._judge_some(now) or more
        offset = now - steady
        if math.isnan(self._offset):
            self._offset = offset
        if steady - self._cleaned > CLEAN:
            ahead, self._cleaned, self._offset = offset - self._offset, steady, offset
            self._clean(now, ahead)
        return more

    def _merge_some(self, now: float) -> bool:
        """Whether more may be pending."""
        until, waiting = self._steady() + MERGING, hours.pending(self._store)
        turns = deque(waiting)
        turns.rotate(-bisect(waiting, self._merged_last, key=lambda turn: turn[0]))
        while turns and not self._stop.is_set():
            sensor, hour = turns.popleft()
            self._merged_last = sensor
            if self._settle(sensor, hour, now):
                turns.append((sensor, hour))
            elif (older := hours.pending_before(self._store, sensor, hour)) is not None:
                turns.append((sensor, older))
            if self._steady() > until:
                break
        return bool(turns)

    def _judge_some(self, now: float) -> bool:
        """Whether more may be due."""
        until, interval = self._steady() + JUDGING, self._settings.judge_seconds
        while not self._stop.is_set() and (due := hours.claim(self._store, now, interval, self._judged_last)):
            self._judged_last = due.sensor
            self._judge(due, now)
            if self._steady() > until:
                return True
        return False

    def _clean(self, now: float, ahead: float) -> None:
        """Forget what is old, unless the clock was set since this was done last: then it may be set again."""
        if abs(ahead) > _SET:
            way = "forward" if ahead > 0 else "back"
            _LOG.warning("the clock was set %s by %s: nothing is forgotten for an hour", way, duration(abs(ahead)))
            return
        keep_days = self._settings.keep_days
        gone = forget(self._store, now, 86_400 * keep_days)
        self._metrics.forgotten.inc(gone.hours)
        if gone.hours:
            _LOG.info(
                "%d hours of %d sensors, of %s to %s, were forgotten: they are older than keep_days=%g before the"
                " newest data", gone.hours, gone.sensors, utc(gone.first), utc(gone.last), keep_days,
            )  # fmt: skip
        if gone.left:
            _LOG.warning(
                "%d more hours are as old; so many at once are due where keep_days was made less, or where the clock"
                " here is ahead: is it %s now? They are forgotten in the next hours, some each time",
                gone.left, utc(now),
            )  # fmt: skip

    def _settle(self, sensor: str, hour: int, now: float) -> bool:
        """Whether there is more to merge into this hour."""
        if (sensor, hour) in self._left_alone:
            return False
        try:
            return self._merge(hours.take(self._store, sensor, hour, self._settings.settle_uploads), now)
        except StoreError as error:  # of this hour only, e.g. too large for a row, or of everything
            queries.ping(self._store)
            self._leave_alone(sensor, hour, _MOST_BACK_OFF, error)
        except Exception as error:  # noqa: BLE001  one sensor's trouble is not another's
            self._leave_alone(sensor, hour, _LEAVE, error)
        return False

    def _leave_alone(self, sensor: str, hour: int, seconds: float, error: Exception) -> None:
        hours.put_problem(self._store, sensor, hour, f"uploads could not be merged: {error}"[:1000])
        self._left_alone[sensor, hour] = self._steady() + seconds
        self._metrics.failures.labels("settle").inc()
        self._told.warning("uploads of %s, hour %d, were not merged: %s", sensor, hour, error)

    def _merge(self, batch: hours.UnmergedHour, now: float) -> bool:
        """Whether there is more."""
        if not batch.payloads:
            return False
        batch, fewer = fitting(batch)
        whole, damaged = folded(batch)
        for timestamp in damaged:
            self._metrics.failures.labels("settle").inc()
            self._told.warning("what was stored of upload %s %d is damaged", batch.sensor, timestamp)
        if fewer:
            self._metrics.failures.labels("settle").inc(len(fewer))
            self._told.warning(
                "hour %d of %s has no room for more streams: some were left out", batch.hour, batch.sensor
            )
        if hours.put(self._store, batch, pack_sketches(whole), rows_of(whole), now, damaged, fewer):
            self._metrics.merged.inc(len(batch.payloads) - len(damaged))
            return batch.more
        return True  # another server was faster with some of it

    def _judge(self, due: hours.Due, now: float) -> None:
        verdict, report, window = judge_hour(self._baseline, due, now, self._settings.false_alarm_rate)
        self._metrics.judged.labels("failed" if report is None else "drift" if report.drift else "no drift").inc()
        if report is None:
            self._metrics.failures.labels("judge").inc()
        self._weigh(verdict, report, now)
        hours.put_verdict(self._store, verdict, due.version, None if report is None else report.to_json(indent=None))
        if report is None or window is None or self._on_judged is None:
            return
        try:
            self._on_judged(ReportedHour(verdict, report, window, self._baseline))
        except Exception as error:  # noqa: BLE001  what is told elsewhere must not stop the worker
            self._metrics.failures.labels("report").inc()
            self._told.warning("the report of %s, hour %d, was not logged: %s", due.sensor, due.hour, error)

    def _weigh(self, verdict: HourDrift, report: DriftReport | None, now: float) -> None:
        """Before the verdict is written: what the store refuses is done again with it."""
        try:
            weigh(self._store, self._baseline, verdict, report, now)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  without evidence there is still a verdict
            self._metrics.failures.labels("judge").inc()
            self._told.warning("%s was not weighed: %s", verdict.sensor, error)


def judge_hour(
    baseline: Baseline, due: hours.Due, now: float, false_alarm_rate: float
) -> tuple[HourDrift, DriftReport | None, Profile | None]:
    """Hold an hour against the baseline.

    Args:
        baseline: To hold it against.
        due: The hour.
        now: Unix time in seconds.
        false_alarm_rate: Chance of a false alarm of the comparison.

    Returns:
        The verdict, the report and the hour's profile; only the verdict, with its problem, where that fails.
    """
    about = HourDrift(due.sensor, due.hour, due.uploads, due.rows, judged=now)
    try:
        window = profile_of_files(unpack_sketches(due.sketches), due.sensor, due.hour)
        report = compare(baseline, window, false_alarm_rate=false_alarm_rate)
    except Exception as error:  # noqa: BLE001  an hour that cannot be judged says why, and the next one is judged
        if not isinstance(error, LensAIError):
            _LOG.exception("hour %d of %s could not be judged", due.hour, due.sensor)
        problem = str(error) if isinstance(error, LensAIError) else f"{type(error).__name__}: {error}"
        return replace(about, problem=problem[:1000], judged=None), None, None
    streams = [stream for group in report.groups for stream in group.streams if stream.kind != "pixels"]
    effect = max((stream.effect for stream in report.moved or streams), default=None)
    moved = tuple(stream.stream for stream in report.moved[:_MOST_MOVED])
    return replace(about, drift=report.drift, effect=effect, moved=moved), report, window


#: The largest part of all hours that is forgotten at once, and how many hours may be however few there are.
SHARE: Final = 0.05
LEAST: Final = 500
#: Most hours that are forgotten in one transaction.
FORGOTTEN: Final = 50
#: Seconds between such transactions, in which uploads have their turn: a lock is not given to who waited longest.
_BETWEEN: Final = 0.01


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten.

    Attributes:
        hours: How many hours of sensors.
        sensors: How many sensors they are of.
        first: The earliest of them, unix time in seconds; 0 without.
        last: The latest.
        left: How many are as old, and are left for the next time.
    """

    hours: int = 0
    sensors: int = 0
    first: int = 0
    last: int = 0
    left: int = 0


def forget(store: Store, now: float, keep: float) -> Forgotten:
    """Delete hours that are old, with the uploads in them, and sensors without any.

    An hour is old if it began so long before the newest data, and was last written so long before anything was.

    Args:
        store: Where from.
        now: Unix time in seconds, which nothing in the store is newer than.
        keep: Seconds.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> forget(store, now=1719392400.0, keep=86_400.0)
        Forgotten(hours=0, sensors=0, first=0, last=0, left=0)
        >>> store.close()
    """
    with store.reading() as db:
        data, written = db.scalar(select(func.max(SENSORS.c.last))), db.scalar(select(func.max(HOURS.c.updated)))
        most = max(LEAST, int(SHARE * (db.scalar(select(func.count()).select_from(HOURS)) or 0)))
    if data is None or written is None:
        return Forgotten()
    before = min(written, now) - keep
    old = (HOURS.c.hour < min(data, now) - keep) & (HOURS.c.updated < before)
    gone: list[tuple[str, int]] = []
    while len(gone) < most and (some := _forget_some(store, old, min(FORGOTTEN, most - len(gone)))):
        gone += some
        time.sleep(_BETWEEN)
    left = exists().where(UPLOADS.c.sensor == SENSORS.c.name)
    with store.writing() as db:
        db.execute(delete(SENSORS).where(SENSORS.c.received < before, ~left))
        db.execute(delete(EVIDENCE).where(EVIDENCE.c.sensor.not_in(select(SENSORS.c.name))))
        waiting = db.scalar(select(func.count()).select_from(HOURS).where(old)) or 0 if len(gone) == most else 0
    hours = [hour for _, hour in gone]
    return Forgotten(
        len(gone), len({sensor for sensor, _ in gone}), min(hours, default=0), max(hours, default=0), waiting
    )


def _forget_some(store: Store, old: ColumnElement[bool], most: int) -> list[tuple[str, int]]:
    """Some hours in a transaction of their own, for uploads wait meanwhile where there is one writer at a time."""
    some = select(HOURS.c.sensor, HOURS.c.hour).where(old).order_by(HOURS.c.updated).limit(most)
    gone = []
    with store.writing() as db:
        for sensor, hour in db.execute(some).all():
            if db.execute(delete(HOURS).where(of_hour(sensor, hour), old)).rowcount:
                mine = (UPLOADS.c.sensor == sensor) & (UPLOADS.c.hour == hour) & UPLOADS.c.payload.is_(None)
                db.execute(delete(UPLOADS).where(mine))
                gone.append((sensor, hour))
    return gone
