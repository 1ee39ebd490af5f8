"""A monitor beside a deployed model: batches in, windows judged, people told; never in the way of the model.

One batch goes this way: `batches.py` finds its arrays and measures them into the open pane, `windows.py` says when
panes make a window, `judging.py` judges it and says whether to tell, `state.py` writes everything down, and only then
`telling.py` tells the sinks. Nothing that fails on this way reaches the caller of `update`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.monitoring.alarms import WEAK, Spans, allowance, lengths_of
from lensai_integrations.monitoring.batches import Batch, Measuring, feeds, not_held, read_batch
from lensai_integrations.monitoring.bodies import Bodies, outcome
from lensai_integrations.monitoring.events import RUNNING, Event, Status, WindowReport, utc
from lensai_integrations.monitoring.judging import Judging, Rates
from lensai_integrations.monitoring.normal import Normal, checked_context
from lensai_integrations.monitoring.replay import Columns, PastBatch, PastColumns, past_batches
from lensai_integrations.monitoring.scores import Scorer
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.monitoring.state import Memory
from lensai_integrations.monitoring.telling import Teller
from lensai_integrations.monitoring.times import AHEAD, seconds_of
from lensai_integrations.monitoring.windows import boundaries, plan_windows, seconds_late
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Baseline, Profile

#: Rates per window that are taken unless others are given.
_WARN: Final = 0.05
_ALARM: Final = 0.01


class DriftMonitor:
    """Holds production against a baseline, window after window.

    Wrong arguments raise when it is made. Later nothing does, except in `score`: what fails inside is logged once,
    counted, and stated in `status`. `update` may be called from several threads. It cannot be copied or pickled; what
    it gives (`WindowReport`, `Event`, `status`) can.

    Several `with monitor:` bodies may be open at once, in threads, asyncio tasks or one in another: sinks are told of
    each how it ended, `status` is that of the caller's own, and the monitor ends with the last.

    Args:
        baseline: What to hold windows against.
        window: Rows of a window, or a `timedelta`.
        stride: Rows from one window to the next, for windows that overlap; by default they do not.
        every: The same for windows by time, a `timedelta`.
        warn: False-alarm rate per window of a warning; None for no warnings.
        alarm: False-alarm rate per window of an alarm, at most `warn`.
        alarms: In place of `warn` and `alarm`, how many false alarms are expected at most, and in what time: `"1 per
            month"`, `"2 per 30 days"`. Windows are judged together with those before them then, so that a weak drift
            that lasts is found, and it is said when it probably began (`alarms.py`).
        sinks: Whom to tell: those of `lensai_integrations.monitoring.sinks`, `lensai_integrations.mlflow.MLflowSink`,
            functions of an `Event`.
        state: Folder for the state: with one, a monitor that was killed goes on where it was. One for each process.
        name: Of the monitor, in everything it says.
        warm_start: Fill the first sliding window with rows of the baseline, so that a verdict exists from the first
            rows on (`windows.py`). `stride` is 1 then, unless given.
        recover: Windows in a row that have to be ok before people are told that it is over.
        remind: Tell again after so many windows, as long as it is not over; None for never.
        min_effect: Smallest effect that counts as drift, see `compare`; None for its default, and for 0.02 with
            `alarms`.
        against: `"reference"`, or `"training"` for the training profile of a baseline.
        inputs: How to read images, if not as the baseline's were; with `ImageInputs()` the first images decide.
            `ImageInputs(key=...)` says only where they are, and leaves the rest to the baseline. Of several
            image inputs, by name.
        measures: Custom measures; None for the baseline's.
        rows: Rows that the sample of a window keeps.
        late: How long windows by time wait for rows that come late, by what `timestamp` says; by default not at all.
        context: `"hour"` of the day or `"weekday"`, in UTC: windows are held against clean ones of the same, once
            enough of these were learned (`learn`).
        clock: The time in seconds since 1970.

    Raises:
        InputError: If an argument is wrong, or the state is in use by another monitor.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> rng = np.random.default_rng(0)
        >>> profiler = Profiler(source="validation")
        >>> profiler.update(outputs=rng.normal(size=(500, 4)))
        >>> with DriftMonitor(Baseline(profiler.profile()), window=100) as monitor:
        ...     for shift in (0, 3):
        ...         for report in monitor.update(outputs=rng.normal(size=(100, 4)) + [shift, 0, 0, 0]):
        ...             print(report.number, report.level)
        1 ok
        2 alarm
        >>> monitor.status.state, monitor.status.rows
        ('Completed', 200)
    """

    def __init__(
        self,
        baseline: Baseline | Profile,
        window: int | timedelta = 200,
        *,
        stride: int | None = None,
        every: timedelta | None = None,
        warn: float | None = _WARN,
        alarm: float = _ALARM,
        alarms: str | None = None,
        sinks: Sequence[Sink | Callable[[Event], Any]] = (),
        state: str | Path | None = None,
        name: str = "production",
        warm_start: bool = False,
        recover: int = 3,
        remind: int | None = None,
        min_effect: float | None = None,
        against: str = "reference",
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        measures: Sequence[CustomMeasure] | None = None,
        rows: int = 2000,
        late: timedelta | None = None,
        context: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name, self._clock, self._against = _name(name), clock, against
        self._failures = Problems(name)
        self._measuring = Measuring(
            baseline, against=against, inputs=inputs, measures=measures, rows=rows, source=name,
            on_error=self._failures.note, on_note=self._failures.remark,
        )  # fmt: skip
        if warm_start and stride is None and not isinstance(window, timedelta):
            stride = 1
        self.plan = plan_windows(window, stride, every)
        self._grace = seconds_late(late, self.plan)
        min_effect = WEAK if min_effect is None and alarms is not None else min_effect
        options = {"against": against} | ({} if min_effect is None else {"min_effect": min_effect})
        rates, spans = Rates(warn, alarm, tuple(options.items())), self._spans(alarms, warn, alarm)
        normal = Normal(baseline, checked_context(context, against))
        self._judging = Judging(normal, name, rates, recover, remind, spans)
        self._teller = Teller(sinks, self._failures)
        self._memory = Memory(self.plan, self._measuring, self._judging, self._teller, self._failures, warm_start)
        self._lock = threading.RLock()
        self._state, self._cause = RUNNING, ""
        self._running = False
        self._bodies = Bodies()
        self._scorer: Scorer | None = None
        if state is not None:
            self._memory.restore(state)

    def _spans(self, alarms: str | None, warn: float | None, alarm: float) -> Spans | None:
        """What judges windows together, if a number of false alarms is stated."""
        if alarms is None:
            return None
        allowed = allowance(alarms)
        if alarm != _ALARM or warn not in (None, _WARN):
            raise InputError(
                f"alarms={alarms!r} is in place of rates per window, but warn={warn!r}, alarm={alarm!r} were given too:"
                " pass one or the other"
            )
        rows = max(self.reference.n, 1)
        apart = -(-self.plan.window // self.plan.stride)
        return Spans(allowed, lengths_of(self.plan, rows), rows, apart)

    def __reduce__(self) -> Any:
        raise InputError(
            f"the monitor {self.name!r} cannot be copied or sent to another process, since it has threads, files and a"
            " lock: send the baseline, and make a monitor in each process, with a name and a folder state= of its own;"
            " with that folder a new one goes on where this one has stopped"
        )

    @property
    def baseline(self) -> Baseline | Profile:
        """What windows are held against: as it was given, or with what was learned since."""
        return self._judging.normal.baseline

    @property
    def in_time(self) -> bool:
        """Whether rows come as time goes by, so that successive ones may be of one scene.

        True unless set to False, as where batches of a data set are handed in, which may be sorted.
        """
        return self._measuring.in_time

    @in_time.setter
    def in_time(self, value: bool) -> None:
        self._measuring.in_time = bool(value)

    @property
    def reference(self) -> Profile:
        """The profile that windows are held against."""
        return self._measuring.reference

    @property
    def readers(self) -> dict[str, ImageInputs]:
        """How images are read, by the name of the image input; of the only one it is empty."""
        return self._measuring.readers

    @property
    def level(self) -> str:
        """The level of the last window: `"ok"`, `"warning"` or `"alarm"`.

        `"unknown"` instead of `"ok"` if the last `update` had nothing that the baseline has, or the last window could
        not be compared; `status` says why.
        """
        return self._judging.level

    @property
    def status(self) -> Status:
        """How it fares: state, counts, and what went wrong inside.

        The state is that of the `with monitor:` body that the caller is in, or was in last; else the monitor's.
        """
        body = self._bodies.innermost
        return self._status(self._state, self._cause) if body is None else self._status(body.state, body.cause)

    def _status(self, state: str, cause: str) -> Status:
        memory, counts = self._memory, self._judging.counts
        return Status(
            state,
            cause,
            self.level,
            memory.rows,
            counts["windows"],
            counts["warnings"],
            counts["alarms"],
            dict(self._failures.counts),
            dict(self._failures.causes),
            memory.restarts,
            memory.restored_from,
            self._judging.false_alarms_a_month,
            self._judging.since,
            late=memory.late,
            early=memory.early,
        )

    def update(
        self,
        *,
        inputs: Any = None,
        outputs: Any = None,
        embeddings: Mapping[str, Any] | None = None,
        labels: Any = None,
        segments: Any = None,
        timestamp: Any = None,
    ) -> list[WindowReport]:
        """Take in a batch, or one image. Everything given belongs to the same images, row for row.

        A batch is cut where a window ends, so that windows hold exactly as many rows as asked for.

        With `timestamp` windows by time go by when rows came, not by when they are given: each row goes to its own
        window, also of a batch across several. A window ends when a row comes that is later than its end by `late`, but
        not before it is over by the clock. Rows of a window that has been judged are in none, and counted in
        `status.late`. So are in `status.early` those more than a day ahead of the clock: one of both is wrong. Windows
        by rows take all rows as they come; times say when they opened and closed.

        Args:
            inputs: A batch that the baseline's `ImageInputs` can read, a list of images of any sizes, or one image
                without a batch axis.
            outputs: What the model answered: `[n, C]`, one row `[C]`, or a structure with such a tensor in it.
            embeddings: Layer name to `[n, D]`, one row `[D]`, or the layer's output, which is reduced as in the
                baseline.
            labels: `[n]` classes or numbers, if they are known.
            segments: `[n]` values of what the baseline is split by.
            timestamp: When the rows came: seconds since 1970, a `datetime` with a time zone, a `numpy.datetime64` in
                UTC, or `[n]` of these; None for now.

        Returns:
            The windows that became full, oldest first; mostly none.
        """
        reports: list[WindowReport] = []
        unread = Batch(inputs, outputs, embeddings, labels, segments)
        with self._lock:
            self._begin()
            with self._failures.caught("update"):
                now = self._clock()
                if timestamp is None:
                    self._advance(now, reports)
                times = self._take_in(unread, timestamp, now, reports)
                if timestamp is not None and len(times):
                    self._advance(min(float(times.max()), now), reports)
            self._settle(reports)
        return reports

    def _take_in(self, unread: Batch, timestamp: Any, now: float, reports: list[WindowReport]) -> NDArray[np.float64]:
        """Read a batch and measure it; the times of its rows that are not refused."""
        memory, failures = self._memory, self._failures.total
        rows, late = memory.rows, memory.late
        batch = read_batch(unread, self._measuring.readers, self.reference, self._failures.caught)
        if batch.note:
            self._failures.remark(batch.note)
        times = np.full(batch.n, now)
        if timestamp is not None:
            batch, times = self._with_times(batch, timestamp, now)
        if self.plan.by_time:
            self._take_by_time(batch, times, exact=timestamp is not None)
        else:
            self._take(batch, times, reports)
        failed = self._failures.total > failures
        if memory.late == late and (batch.n or failed or not unread.names):  # else it was a batch of no rows
            self._look_fed(unread, memory.rows > rows, failed)
        return times

    def _with_times(self, batch: Batch, timestamp: Any, now: float) -> tuple[Batch, NDArray[np.float64]]:
        """The rows that may have come at their times, and these; by rows all of them, those that cannot as of now."""
        with self._failures.caught("timestamp"):
            times = seconds_of(timestamp, batch.n)
            ahead = times > now + AHEAD
            if not ahead.any():
                return batch, times
            self._memory.early += int(ahead.sum())
            self._failures.note("timestamp", _say_early(times[ahead], now, self.plan.by_time))
            if self.plan.by_time:
                return batch.at(np.flatnonzero(~ahead)), times[~ahead]
            return batch, np.where(ahead, now, times)
        return Batch(), np.zeros(0)

    def _look_fed(self, batch: Batch, fed: bool, failed: bool) -> None:
        """Say it if an update had nothing that the baseline has: windows would never fill, and nothing would alarm."""
        if not fed and not batch.names:
            self._failures.remark(not_held(batch, self.reference))
        elif not fed and not failed:
            self._failures.note("rows", not_held(batch, self.reference))
        first, self._judging.unfed = not fed and not self._judging.unfed, not fed
        if first:
            self._say(RUNNING)

    def flush(self) -> list[WindowReport]:
        """Judge now the rows that no window has judged yet, together with the rest of theirs; then begin a new one.

        At the end of a pass over data, whose last rows do not fill a window. Without such rows nothing happens.
        """
        reports: list[WindowReport] = []
        with self._lock:
            self._begin()
            with self._failures.caught("flush"):
                self._advance(self._clock(), reports)
                self._flush(reports)
            self._settle(reports)
        return reports

    def _flush(self, reports: list[WindowReport]) -> None:
        """Judge all rows that there are, window after window; the last as it is."""
        if self.plan.by_time and self._memory.opened:
            self._close_before(max(self._memory.opened), reports)
        if last := self._memory.cut_short():
            self._judge(last.number, reports, partial=True)
            self._memory.start_over()
            if self.plan.by_time:  # a row that was ahead of its time is no reason to call those of now late
                self._memory.first = min(self._memory.first, self.plan.pane_at(self._clock()))

    def replay(
        self,
        past: Any,
        *,
        timestamp: str | None = None,
        inputs: Columns = None,
        outputs: Columns = None,
        embeddings: Mapping[str, Columns] | None = None,
        labels: Columns = None,
        segments: str | None = None,
    ) -> list[WindowReport]:
        """Judge past data, in whatever order it comes, as if it had come in its own.

        Windows by time: each row goes to its window by its timestamp, and all are judged at the end, the oldest first,
        the last as well, though it may not be full. Until then each takes the memory of a profile; of a table, which is
        sorted by time, only one does. Windows by rows: a table is sorted by time if it has times; batches are taken as
        they come. Rows of windows that this monitor has judged before are too late, and counted in `status.late`: to
        judge them anew, replay all of them in a new monitor.

        Sinks are told as of any window, at the times of the rows. Other threads' `update` waits until it is over. With
        `state` nothing is on disk before all of it is, so a replay that was killed is begun anew.

        Args:
            past: A pandas or polars `DataFrame` or a pyarrow `Table`, a row for each image; or an iterable of dicts of
                what `update` takes, a batch each, with their `timestamp`.
            timestamp: Name of a table's column; by default `"timestamp"`. Windows by rows need none.
            inputs: Column of arrays `[H, W, C]`; by default `"inputs"`, if there is one.
            outputs: Column of vectors, or columns of numbers `[C]`; of several heads a dict of these. By default
                `"outputs"`, or all that begin with `"outputs/"` as they follow each other.
            embeddings: The same for each layer; by default of all columns that begin with `"embeddings/"`.
            labels: Column of classes, numbers or texts, of several heads a dict; by default `"labels"`.
            segments: Column of what the baseline is split by; by default `"segments"`.

        Returns:
            All windows, the oldest first.

        Raises:
            InputError: If `past` is of another kind, a column is missing, or times are; nothing is judged then, except
                of windows by rows those that were full. A batch that cannot be read is counted, as by `update`.

        Example:
            >>> import numpy as np
            >>> from lensai_integrations import Profiler
            >>> rng, profiler = np.random.default_rng(0), Profiler(source="validation")
            >>> profiler.update(outputs=rng.normal(size=(500, 4)))
            >>> days = [{"timestamp": 86_400.0 * day, "outputs": rng.normal(size=(100, 4))} for day in (7, 5, 6)]
            >>> monitor = DriftMonitor(profiler.profile(), window=timedelta(days=1))
            >>> [(report.opened // 86_400, report.rows) for report in monitor.replay(days)]
            [(5.0, 100), (6.0, 100), (7.0, 100)]
        """
        columns = PastColumns(timestamp, inputs, outputs, embeddings, labels, segments)
        batches, in_order = past_batches(past, columns, need_times=self.plan.by_time)
        reports: list[WindowReport] = []
        with self._lock, self._measuring.keeping_in_time():
            self._begin()
            with self._memory.all_or_nothing():
                latest = 0.0
                for batch in batches:
                    times = self._replay(batch, reports, in_order)
                    if len(times) and times.min() < latest:
                        self.in_time = False  # until the end of this replay
                    if not self.plan.by_time and len(times) and times.min() < latest:
                        self._failures.remark("batches to replay come in another order than their times", "order")
                    latest = max([latest, *times[-1:].tolist()])
            with self._failures.caught("replay"):
                self._flush(reports)
            self._settle(reports)
        return reports

    def _replay(self, given: PastBatch, reports: list[WindowReport], in_order: bool) -> NDArray[np.float64]:
        times = np.zeros(0)
        with self._failures.caught("replay"):
            now = self._clock()
            times = self._take_in(Batch(**given.arrays), given.timestamp, now, reports)
            if in_order and len(times):
                self._advance(min(float(times.max()), now), reports)
        return times

    def learn(self, windows: Iterable[WindowReport | Profile]) -> Baseline:
        """Learn from clean windows how much production varies where nothing is wrong.

        Rows that depend on each other, such as frames of a scene or hours with a mix of classes of their own, make
        windows vary more than those of independent rows. What clean windows vary more is no drift from now on, and
        stays learned in the state on disk; what was learned before is forgotten. With a `context`, windows of an hour
        or a day of which at least 8 windows and 500 rows are here are held against these.

        Args:
            windows: At least 8 consecutive windows that are known to be clean, the oldest first; better 30 or more: the
                reports that `update`, `flush` or `replay` returned, or profiles. Of reports of overlapping windows
                those count that share no row, and without any of the baseline's.

        Returns:
            The baseline with what was learned, to be saved or given to other monitors.

        Raises:
            InputError: If the windows are too few or of something else, or the baseline keeps too few rows; nothing has
                changed then.

        Example:
            >>> import numpy as np
            >>> from lensai_integrations import Profiler
            >>> rng, profiler = np.random.default_rng(0), Profiler(source="validation", seed=0)
            >>> profiler.update(embeddings={"pool": rng.normal(size=(1000, 3))})
            >>> monitor = DriftMonitor(profiler.profile(), window=100)
            >>> def hour(shift=0.0):
            ...     rows = rng.normal(size=(100, 3)) + rng.normal(size=3) / 2 + shift
            ...     return monitor.update(embeddings={"pool": rows})[0]
            >>> baseline = monitor.learn([hour() for _ in range(40)])
            >>> hour().level, hour(shift=3).level
            ('ok', 'alarm')
        """
        if self._against != "reference":
            raise InputError("learn() is of baselines against='reference': make the monitor without against='training'")
        taught = self._judging.normal.taught(windows, -(-self.plan.window // self.plan.stride))  # others may update
        with self._lock:
            self._judging.normal = taught
            self._settle([])
            if not self._running:
                self._memory.release()
        assert isinstance(taught.baseline, Baseline)
        return taught.baseline

    def score(
        self, *, inputs: Any = None, outputs: Any = None, embeddings: Mapping[str, Any] | None = None
    ) -> NDArray[Any]:
        """How usual each row is among the baseline's: a conformal p-value (`scores.py`). Windows are not touched.

        Args:
            inputs: As for `update`.
            outputs: As for `update`.
            embeddings: As for `update`.

        Returns:
            float64 `[n]` in (0, 1]; of rows like the baseline's, a share p has at most p.

        Raises:
            InputError: If a batch cannot be read, or the baseline keeps no rows of what is given.
        """
        unread = Batch(inputs, outputs, embeddings)
        batch = read_batch(unread, self._measuring.readers, self.reference, lambda _: nullcontext())
        with self._lock:
            if self._scorer is None:
                self._scorer = Scorer(self._measuring)
            return self._scorer.p_values(batch)

    def watch(
        self, module: Any, layers: Sequence[str] | Mapping[str, str] | None = None, **options: Any
    ) -> AbstractContextManager[DriftMonitor]:
        """A context in which every forward pass of a PyTorch module in eval mode is handed to `update`.

        Args:
            module: A `torch.nn.Module`; needs torch and not Lightning.
            layers: Names of layers whose answers are embeddings, as the baseline has them, or a dict from these to the
                names here; None for those of the baseline.
            options: `inputs`, `outputs` and `reduce`, see `lensai_integrations.torch.watch`.

        Raises:
            InputError: If an argument is of another kind, or there is no such layer.
        """
        # By name, because the core imports no framework, not even in a function.
        watch = import_module("lensai_integrations.torch").watch
        context: AbstractContextManager[DriftMonitor] = watch(self, module, layers, **options)
        return context

    def caught(self, topic: str) -> AbstractContextManager[None]:
        """A context in which what fails is logged once, counted in `status`, and not raised; for what feeds a monitor.

        Args:
            topic: What is done in the block.
        """
        return self._failures.caught(topic)

    def __enter__(self) -> DriftMonitor:
        with self._lock:
            self._begin(by_body=True)
            self._settle([])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            was_open, last = self._bodies.any_open, self._bodies.leave(error)
            if last or not was_open:  # else the monitor goes on in other bodies
                self.close(error)
                return
            self._say(*outcome(error))
            self._settle([])

    def close(self, error: BaseException | None = None) -> list[WindowReport]:
        """End: sinks deliver what they have, the state is written, and its folder is free for another monitor.

        Rows that do not fill a window stay in the state. An `update` after this begins again.

        Args:
            error: Why the monitored work failed; None if it is complete.

        Returns:
            Windows by time that have ended since the last `update`.
        """
        reports: list[WindowReport] = []
        with self._lock:
            if not self._running and error is None:
                return reports
            with self._failures.caught("close"):
                self._advance(self._clock(), reports)
            self._state, self._cause = outcome(error)
            self._running = False
            self._bodies.close(error)
            self._say(self._state, self._cause)
            self._settle(reports)
            self._teller.close()
            self._memory.release()
        return reports

    def _begin(self, *, by_body: bool = False) -> None:
        """Become Running, unless it is; with a `with monitor:` body, that body does in any case."""
        began = not self._running
        if began:
            self._running, self._state, self._cause = True, RUNNING, ""
            self._bodies.begin()
            self._teller.open(self.baseline, self.name)
        if began or (by_body and self._bodies.any_open):
            self._say(RUNNING)
        if by_body:
            self._bodies.enter()
        else:
            self._bodies.forget_ended()

    def _say(self, state: str, cause: str = "") -> None:
        """Tell the sinks the status, with this state."""
        with self._failures.caught("status"):
            self._teller.add(self._judging.status_event(self._status(state, cause), self._clock()))

    def _advance(self, now: float, reports: list[WindowReport]) -> None:
        """By time: judge the windows that ended before a time, less what is waited for late rows."""
        if self.plan.by_time:
            self._close_before(self.plan.pane_at(max(now - self._grace, 0.0)), reports)

    def _close_before(self, number: int, reports: list[WindowReport]) -> None:
        """Close all panes before one, and judge the windows that end with them or after them."""
        memory = self._memory
        for stop in [*sorted(each for each in memory.opened if each < number), number]:
            if memory.newest_closed is not None:
                for end in boundaries(self.plan, memory.newest_closed, stop):
                    if end >= memory.first:
                        self._judge(end, reports)
            memory.first = max(memory.first, stop)
            if stop < number:
                memory.close_pane(stop)

    def _take_by_time(self, batch: Batch, times: NDArray[np.float64], *, exact: bool) -> None:
        """Each row into the pane of its time; of a clock that was set back, into the first that is not closed."""
        late = self._memory.late
        if not exact:
            number = self.plan.pane_at(float(times[0])) if batch.n else 0
            self._memory.take(batch, times, max(number, self._memory.first))
            return
        panes = (times * 1e6).astype(np.int64) // self.plan.pane
        for number in np.unique(panes).tolist():
            index = np.flatnonzero(panes == number)
            self._memory.take(batch.at(index), times[index], number)
        if self._memory.late > late:
            self._failures.remark(_say_late(times, self._memory.late - late), "late")

    def _take(self, batch: Batch, times: NDArray[np.float64], reports: list[WindowReport]) -> None:
        start, n = 0, batch.n
        while start < n:
            stop = min(n, start + self._memory.room)
            self._memory.take(batch.part(start, stop), times[start:stop])
            start = stop
            if not self._memory.room:
                number = self._memory.close_pane().number
                if self.plan.ends(number):
                    self._judge(number, reports)

    def _judge(self, number: int, reports: list[WindowReport], *, partial: bool = False) -> None:
        """Judge the window that ends with a pane, if it is whole."""
        with self._failures.caught("compare"):
            whole = self._memory.window(number, partial=partial)
            if whole is None:
                return
            report = self._judging.judge(whole)
            reports.append(report)
            _say_lacking(self._failures, report.report.missing, feeds(self.reference))
            for event in self._judging.events(report, self.status):
                self._teller.add(event)

    def _settle(self, reports: list[WindowReport]) -> None:
        """Write everything down, and only then tell; what was told is written down as well."""
        self._memory.save(self._state)
        with self._failures.caught("sinks"):
            self._teller.tell(lambda: self._memory.save(self._state))


def _say_early(times: NDArray[np.float64], now: float, by_time: bool) -> str:
    """What is to be said of rows that are far ahead of the clock."""
    what = "are in no window" if by_time else "are taken as of now"
    return (
        f"{len(times)} rows have a timestamp of up to {utc(float(times.max()))}, more than a day ahead of the clock"
        f" here, which is at {utc(now)}: they {what}, and status.early counts them. Set the clock that is wrong; times"
        " are in seconds since 1970, not in milliseconds"
    )


def _say_late(times: NDArray[np.float64], count: int) -> str:
    """What is to be said of rows whose window was judged, among those of these times."""
    return (
        f"{count} rows came when their window had been judged, the oldest of {utc(float(times.min()))}: they are in"
        " none, and status.late counts them. Pass DriftMonitor(late=timedelta(...)) to wait for such rows; past data as"
        " a whole is judged by `replay` of a new monitor"
    )


def _say_lacking(problems: Problems, groups: Iterable[str], feeds: Mapping[str, str]) -> None:
    """State and log, once, which groups of the baseline get no rows. It is no failure: it may be meant so.

    Args:
        problems: Of the monitor.
        groups: Their names.
        feeds: The argument of `update` by the name of the group, of those that have one.
    """
    new = [group for group in groups if group not in problems.causes]
    for possible in (True, False):
        if some := [group for group in new if (group in feeds) is possible]:
            wanted = ", ".join(dict.fromkeys(feeds[group] for group in some if possible))
            gives = f"update({wanted}) gives them" if possible else "no update gives them"
            why = f"a window has no rows of what the baseline has here, so nothing is held against it; {gives}"
            problems.causes |= dict.fromkeys(some, why)
            problems.remark(f"{', '.join(some)}: {why}")


def _name(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InputError(f"name={name!r} should be a text, e.g. 'production'")
    return name
