"""A monitor beside the passes of a callback: told every batch, its windows judged at the end, its verdicts said."""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lensai_integrations.errors import LensAIError
from lensai_integrations.monitoring.events import WindowReport, notice_text
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.problems import Problems, log, pass_on
from lensai_integrations.profiles.names import is_labels
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.batch_reading import Reader
from lensai_integrations.profiling.labels import Place
from lensai_integrations.training.drift_options import DriftOptions
from lensai_integrations.training.fit import Fit
from lensai_integrations.training.layers import check_weights, weights_known
from lensai_integrations.training.tracking import TrackedRun
from lensai_integrations.training.weights import WEIGHTS, Weights

#: Windows that are kept; a pass over millions of rows has thousands.
MOST_REPORTS: Final = 1000


class Passes:
    """The monitor of a callback. As a recording's measurer, it takes the place of a profiler.

    A copy starts fresh, and to another process only the windows go along: a monitor has threads, files and a lock.

    Args:
        options: What was asked for.

    Attributes:
        options: The same.
        monitor: The monitor; None before the first pass, unless one was given.
        reports: The windows of the last pass, oldest first; those that are ok without their profile.
    """

    def __init__(self, options: DriftOptions) -> None:
        self.options = options
        self.monitor = options.monitor
        self.reports: deque[WindowReport] = deque(maxlen=MOST_REPORTS)
        self._made_for: Any = None
        self._levels: Counter[str] = Counter()
        self._rows = 0

    def begin(self, problems: Problems, *, runs: Sequence[TrackedRun] = (), rank: int = 0, world_size: int = 1) -> None:
        """A pass begins. The monitor goes on, unless it is to be logged elsewhere than before.

        Args:
            problems: Where it is reported if the state cannot be used.
            runs: MLflow runs that take the windows.
            rank: Which of several processes this is.
            world_size: Of how many.
        """
        made_for = (tuple(runs), rank, world_size)
        if self.options.monitor is None and (self.monitor is None or made_for != self._made_for):
            if self.monitor is not None:
                self.monitor.close()
            self.monitor = self._made(problems, *made_for)
            self._made_for = made_for
        self.reports.clear()
        self._levels.clear()
        self._rows = self._monitor.status.rows

    def __reduce__(self) -> Any:
        return _arrived, (self.options, list(self.reports))

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return Passes(copy.deepcopy(self.options, memo))

    @property
    def _monitor(self) -> DriftMonitor:
        assert self.monitor is not None
        return self.monitor

    def _made(self, problems: Problems, runs: Sequence[TrackedRun], rank: int, world_size: int) -> DriftMonitor:
        options, sinks = self.options, []
        if options.log_to_mlflow:
            for run in runs:
                with problems.caught(f"MLflow run {run.run_id}"):
                    sinks.append(_mlflow_sink(run))
        name = options.name if world_size == 1 else f"{options.name}-rank{rank}"
        state = options.state
        if state is not None and world_size > 1:
            state = Path(state) / f"rank{rank}"
        if state is not None:
            try:
                return options.new_monitor(sinks, state=state, name=name)
            except (LensAIError, OSError) as error:
                pass_on(error)
                problems.note("state", f"nothing is kept on disk: {error}")
        return options.new_monitor(sinks, name=name)

    def check_weights(self, framework: str, here: Callable[[], Weights | None]) -> None:
        """Say once if the model has other weights than the baseline was made with.

        Args:
            framework: `"keras"` or `"torch"`.
            here: Gives the model's.
        """
        with self._monitor.caught(WEIGHTS):
            if made_with := weights_known(self._monitor.baseline, framework):
                check_weights(made_with, here())

    def reset(self) -> None:
        """Nothing: windows go across the loaders of a pass."""

    def describe(self, group: str, **info: Any) -> None:
        """Nothing: everything is described as in the baseline."""

    def update(self, **batch: Any) -> None:
        """Take in a batch; say which windows are not ok."""
        self._take(self._monitor.update(**batch))

    def profile(self) -> Profile:
        """An empty one: rows are in the windows."""
        return Profile(info={"source": self._monitor.name})

    def end(self, source: str, say: Callable[[str], None]) -> None:
        """A pass ends: judge the rows that are left, and say what there was.

        Args:
            source: Of what.
            say: Tells the user.
        """
        if self.options.flush:
            self._take(self._monitor.flush())
        self._close(None)
        say(self._summary(source))

    def fail(self, error: BaseException | None) -> None:
        """A pass was cut short.

        Args:
            error: Why, if that is known.
        """
        self._close(error or RuntimeError("the pass was cut short"))

    def _close(self, error: BaseException | None) -> None:
        """A monitor that was given is its owner's to close."""
        if self.options.monitor is None:
            self._take(self._monitor.close(error))

    def _take(self, reports: Sequence[WindowReport]) -> None:
        for report in reports:
            self._levels[report.level] += 1
            self.reports.append(report if report.drift else replace(report, profile=Profile()))
            if report.drift:
                log.warning("%s", notice_text(self._monitor.name, report.level, report.to_dict(), "ok"))

    def _summary(self, source: str) -> str:
        status, windows = self._monitor.status, self._levels.total()
        levels = ", ".join(f"{self._levels[level]} {level}" for level in ("ok", "warning", "alarm"))
        text = f"{self._monitor.name}: {status.rows - self._rows} rows of {source} in {windows} windows: {levels}."
        wrong = [f"{topic} ({count} times: {status.causes[topic]})" for topic, count in status.failures.items()]
        return f"{text} Went wrong inside: {'; '.join(wrong)}." if wrong else text


def _arrived(options: DriftOptions, reports: Sequence[WindowReport]) -> Passes:
    passes = Passes(options)
    passes.reports.extend(reports)
    return passes


def _mlflow_sink(run: TrackedRun) -> Any:
    from lensai_integrations.mlflow import MLflowSink

    return MLflowSink(run.run_id, tracking_uri=run.tracking_uri)


class Monitored:
    """What makes an adapter's `Fit` hand its batches to a monitor instead of to profilers; comes before it in bases.

    Attributes:
        passes: The monitor.
        say: Tells the user.
    """

    passes: Passes
    say: Callable[[str], None]

    @property
    def known_labels(self) -> Sequence[Place]:
        """Where the labels of the baseline were."""
        groups = self.passes.options.reference.groups
        told = [group.info.get("read_from") for name, group in groups.items() if is_labels(name)]
        return [tuple(place) if isinstance(place, list) else place for place in told if place is not None]

    def _prepared(self: Any, source: str, loader: Any) -> tuple[Reader, Passes]:
        return self._reader_of(source, loader), self.passes

    def complete(self: Any, source: str, *, whole: bool = True, error: BaseException | None = None, **_: Any) -> None:
        """End a pass.

        Args:
            source: Whose pass.
            whole: False if it was cut short.
            error: By what.
        """
        fit: Fit[Any] = self
        recording = fit.recordings.pop(source, None)
        if recording is None:
            return
        with fit.problems.caught(f"the end of {source}"):
            if recording.started:
                recording.finish()
        with fit.problems.caught(f"the end of {source}"):
            self.passes.end(source, self.say) if whole else self.passes.fail(error)
