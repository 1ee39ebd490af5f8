"""What the `DriftCallback`s of all frameworks share: their arguments, and a monitor beside the passes.

The arguments are documented and checked here, with their defaults. In a pass the monitor stands where a baseline's
profiler would: it is told every batch, its windows are judged at the end, and its verdicts are said.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from lensai_integrations.errors import InputError, LensAIError
from lensai_integrations.measures.arguments import documented, plain
from lensai_integrations.measures.embeddings import Reduce, check_reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.monitoring.events import WindowReport, notice_text
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.problems import Problems, log, pass_on
from lensai_integrations.profiles.conventions import chosen_readers, is_images, readers_by_name
from lensai_integrations.profiles.names import LABEL, OUTPUTS, is_labels
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.batch_reading import Reader
from lensai_integrations.profiling.labels import Place
from lensai_integrations.training.fit import TEST, Fit
from lensai_integrations.training.layers import KnownLayer, check_weights, known_layers, known_output, weights_known
from lensai_integrations.training.options import Reading, as_place
from lensai_integrations.training.tracking import TrackedRun
from lensai_integrations.training.weights import WEIGHTS, Weights

#: Arguments of the monitor that are no arguments of the callback by name.
_SETTINGS: Final = (
    "alarms",
    "every",
    "warm_start",
    "recover",
    "remind",
    "min_effect",
    "against",
    "measures",
    "rows",
    "clock",
)
#: Windows that are kept; a pass over millions of rows has thousands.
MOST_REPORTS: Final = 1000


@documented(DriftMonitor, only=("window", "stride", "warn", "alarm", "sinks", "state", "name", "inputs"))
@dataclass(frozen=True, kw_only=True)
class DriftOptions:
    """What a `DriftCallback` is asked for.

    Args:
        baseline: A `Baseline`, its folder, or `runs:/<run_id>`, `models:/<name>/<version>` and the like. None with
            `monitor`.
        layers: Whose answers are embeddings, by their names in the baseline; None for all that it has. Where they are
            called otherwise in this model, a dict from these names to those here: `{"net.pool": "backbone.pool"}`.
        outputs: True for what the baseline's outputs are of: the layer of its name, if the model has it, else what the
            model answers; the name of a layer; or False.
        reduce: From a layer's answer to `[n, D]`, for all layers or by name; None for as in the baseline.
        target: Key or place of the labels; `"auto"`: the usual ones. None: no labels.
        flush: Whether rows that do not fill a window are judged at the end of a pass, or wait for the next.
        log_to_mlflow: Whether windows go to MLflow.
        monitor: A monitor to use instead of making one; it is not closed here, and all above about monitors is its own.
        settings: Other arguments of `DriftMonitor`: `every`, `recover`, `remind`, `min_effect`, `against`, `measures`,
            `rows`, `warm_start`, `clock`.

    Raises:
        InputError: If an argument is not one of those accepted.
        LensAIError: If the baseline cannot be loaded.
    """

    baseline: Any = None
    window: Any = 200
    stride: int | None = None
    warn: float | None = 0.05
    alarm: float = 0.01
    sinks: Sequence[Sink | Callable[..., Any]] = ()
    state: str | Path | None = None
    name: str = "production"
    layers: Sequence[str] | Mapping[str, str] | None = None
    outputs: str | bool = True
    reduce: Reduce | Mapping[str, Reduce] | None = None
    inputs: ImageInputs | Mapping[str, ImageInputs] | None = None
    target: Place | None = "auto"
    flush: bool = True
    log_to_mlflow: bool = True
    monitor: DriftMonitor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    reference: Profile = field(init=False)
    known: list[KnownLayer] = field(init=False)

    def __post_init__(self) -> None:
        for name in ("layers", "reduce", "inputs", "target", "sinks", "settings"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        object.__setattr__(self, "target", as_place(self.target))
        unknown = sorted(self.settings.keys() - set(_SETTINGS))
        if unknown:
            raise InputError(f"DriftCallback takes no {', '.join(unknown)}; of DriftMonitor's it takes {_SETTINGS}")
        if not isinstance(self.outputs, str | bool):
            raise InputError(f"outputs={self.outputs!r} should be True, False, or the name of a layer")
        readers_by_name(self.inputs)
        for reduce in self.reduce.values() if isinstance(self.reduce, Mapping) else [self.reduce]:
            if reduce is not None:
                check_reduce(reduce)
        if self.monitor is not None and not isinstance(self.monitor, DriftMonitor):
            raise InputError(f"monitor is a {type(self.monitor).__name__}: pass a DriftMonitor, or None")
        if self.monitor is None:
            object.__setattr__(self, "baseline", _loaded(self.baseline))
        reference = (self.monitor or self.new_monitor()).reference
        object.__setattr__(self, "reference", reference)
        object.__setattr__(self, "known", known_layers(reference, self.layers, self.reduce))

    def __reduce__(self) -> Any:
        if self.monitor is not None:
            raise InputError(
                "a callback with monitor=... cannot be copied or sent to another process, since a monitor has"
                " threads, files and a lock: give it the baseline and the monitor's arguments instead, and each process"
                " makes one"
            )
        arguments = {argument.name: getattr(self, argument.name) for argument in fields(self) if argument.init}
        return _again, (arguments,)

    def new_monitor(
        self, sinks: Sequence[Sink] = (), *, state: str | Path | None = None, name: str | None = None
    ) -> DriftMonitor:
        """A monitor as asked for.

        Args:
            sinks: More of them.
            state: Its folder.
            name: Its name.

        Raises:
            InputError: If an argument is wrong, or the state is in use.
        """
        monitor = DriftMonitor(
            self.baseline,
            self.window,
            stride=self.stride,
            warn=self.warn,
            alarm=self.alarm,
            sinks=[*self.sinks, *sinks] if isinstance(self.sinks, list | tuple) else self.sinks,
            state=state,
            name=name or self.name,
            inputs=self.inputs,
            **self.settings,
        )
        monitor.in_time = False  # batches of a data set, which may be sorted
        return monitor

    def reading(self) -> Reading:
        """How batches and layers are read, in the words of a baseline's options."""
        groups = self.reference.groups
        readers = chosen_readers(self.inputs, self.reference)
        segment_by = self.reference.info.get("segment_by")
        return Reading(
            layers=[layer.name for layer in self.known],
            inputs=readers.get("", readers) if any(map(is_images, groups)) else None,
            outputs=(known_output(self.reference) or "auto") if OUTPUTS in groups and self.outputs else None,
            target=self.target if any(name.split("/")[0] == "labels" for name in groups) else None,
            reference=TEST,
            reduce={layer.name: layer.reduce for layer in self.known},
            segment_by=None if segment_by == LABEL else segment_by,
        )


def _again(arguments: dict[str, Any]) -> DriftOptions:
    return DriftOptions(**arguments)


def _loaded(baseline: Any) -> Baseline | Profile:
    if isinstance(baseline, Baseline | Profile):
        return baseline
    if not isinstance(baseline, str | Path):
        raise InputError(
            f"baseline is a {type(baseline).__name__}: pass a Baseline, a folder, 'runs:/<run_id>' or"
            " 'models:/<name>/<version>'"
        )
    from lensai_integrations.mlflow import load_baseline

    return load_baseline(baseline)


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
        places = [group.info.get("read_from") for name, group in groups.items() if is_labels(name)]
        return [tuple(path) if isinstance(path, list) else path for path in places if path is not None]

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
