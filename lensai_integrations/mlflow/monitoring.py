"""What was found in production, in MLflow: of a monitor's windows in one run, of devices' hours in a run per sensor.

Both log the same metrics and the report where people are told. A sensor's run is found by its tag every time it is
written to, so nothing has to be remembered: a server that starts anew goes on with the same runs, a run that someone
deleted is made anew, and of two that two servers made at the same moment both go on with the older. MLflow keeps every
value of a metric and shows the largest of one step and time as the newest; so an hour is written a millisecond later
for every second that passed between its beginning and the verdict: judged again, since more came or with another
baseline, it takes the place of what was found before.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from lensai_integrations.drift.result import DriftReport, p_value_of, p_value_of_report
from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.measures.arguments import check_seconds
from lensai_integrations.mlflow.address import (
    Checkpoint,
    bounded,
    checked_path,
    resolve_tracking_uri,
    without_credentials,
)
from lensai_integrations.mlflow.log import active_run_id
from lensai_integrations.monitoring.events import (
    NOTICE,
    STATUS,
    WINDOW,
    Event,
    evidence,
    stream_dict,
    worst_effect,
)
from lensai_integrations.monitoring.judging import ALARM, CHANGE, LEVELS, REMINDER, WARNING
from lensai_integrations.monitoring.sinks.base import Complain, QueuedSink
from lensai_integrations.profiles.profile import Baseline, Profile

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run


#: Notices with a report.
_REPORTED: Final = (WARNING, ALARM, CHANGE, REMINDER)
#: What MLflow does not take in the name of a metric.
_UNKNOWN = re.compile(r"[^\w\-. /:]", re.ASCII)
_LONGEST: Final = 250


class MLflowSink(QueuedSink):
    """Logs every window to an MLflow run, on a thread of its own; a server that is down keeps nobody waiting.

    Metrics `drift/level` (0 ok, 1 warning, 2 alarm), `drift/rows`, `drift/streams_moved`, `drift/p_value` (of what
    moved far enough to count), `drift/evidence` (its `-log10`: 2 is one clean window in a hundred),
    `drift/evidences/<group>`, `drift/effect` (the largest) and `drift/effects/<group>`, each with the time of the
    window's last row, and the window's number as step. Of the first 20 streams that moved, from then on,
    `drift/medians/<stream>` and `drift/medians_baseline/<stream>`. With a warning, an alarm, a change and a reminder
    comes the artifact `lensai/drift/window-000007.html`, or, if it is told again after a crash, `.json`. The tag
    `lensai.monitor.<name>` is the status. Logging a window twice changes nothing.

    Args:
        run_id: An existing run; by default the active run of the calling thread.
        tracking_uri: MLflow's own setting by default.
        artifact_path: Directory of the reports below the run.
        deadline: Seconds that the server gets for one event.
        settings: `retries`, `backoff`, `queue_size` and `flush_seconds`, see `QueuedSink`.

    Raises:
        InputError: If there is no run to log to, or an argument is malformed.
        MissingDependencyError: If MLflow is not installed.

    Example:
        >>> MLflowSink("0123abcd", artifact_path="../elsewhere")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: artifact_path='../elsewhere' cannot be used; ...
    """

    repeatable = True

    def __init__(
        self,
        run_id: str | None = None,
        *,
        tracking_uri: str | None = None,
        artifact_path: str = "lensai/drift",
        deadline: float = 30.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        checked_path(artifact_path)
        check_seconds("deadline", deadline)
        self._uri = resolve_tracking_uri(tracking_uri)
        self._run_id = run_id or active_run_id()
        self._path, self._deadline = artifact_path, deadline
        self._baseline: Baseline | Profile | None = None
        self._charted: set[str] | None = None

    def open(self, baseline: Baseline | Profile, monitor: str, complain: Complain) -> None:
        """Start the thread."""
        self._baseline = baseline
        super().open(baseline, monitor, complain)

    def deliver(self, event: Event) -> None:
        """Log one event.

        Raises:
            TrackingError: If the server is down, refuses, or does not answer in time.
        """
        bounded(lambda checkpoint: self._log(event, checkpoint), self._deadline, self._uri)

    def _log(self, event: Event, checkpoint: Checkpoint) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        client = MlflowClient(tracking_uri=self._uri)
        if event.type == WINDOW:
            when, number = int(1000 * event.time), event.window["number"]
            if self._charted is None:  # what a process before this one has charted goes on
                self._charted = charted(client.get_run(self._run_id).data.metrics)
                checkpoint()
            values = [*metrics(event.window), *medians(_streams(event), self._charted)]
            client.log_batch(self._run_id, [Metric(key, value, when, number) for key, value in values])
        elif event.type == NOTICE and event.kind in _REPORTED:
            name, text = self._report(event)
            checkpoint()
            client.log_text(self._run_id, text, f"{self._path}/{name}")
        elif event.type == STATUS:
            client.set_tag(self._run_id, f"lensai.monitor.{_UNKNOWN.sub('_', event.monitor)}", event.kind)

    def _report(self, event: Event) -> tuple[str, str]:
        """Name and text of the artifact."""
        stem = f"window-{event.window['number']:06d}"
        if event.live is None or self._baseline is None:
            return f"{stem}.json", json.dumps(event.to_dict(), indent=2, allow_nan=False)
        from lensai_integrations.report import drift_html

        return f"{stem}.html", drift_html(event.live.report, self._baseline, event.live.profile)


def _streams(event: Event) -> list[Mapping[str, Any]]:
    """All streams of a window; of one that is told again after a crash, those that its event has."""
    if event.live is None:
        return list(event.window.get("streams", []))
    return [stream_dict(stream) for group in event.live.report.groups for stream in group.streams]


def metrics(window: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of a window's metrics.

    Args:
        window: `WindowReport.to_dict()`; of an earlier release it has no p-values.

    Example:
        >>> window = {"level": "alarm", "rows": 200, "moved": 1, "groups": {"inputs": {"drift": True, "effect": 0.5}}}
        >>> dict(metrics(window))["drift/effects/inputs"]
        0.5
    """
    groups = window["groups"]
    yield "drift/level", float(LEVELS.index(window["level"]))
    yield from measured(window["rows"], window["moved"], {name: group["effect"] for name, group in groups.items()})
    if window.get("p_value") is not None:
        evidences = {name: group["evidence"] for name, group in groups.items()}
        yield from certain(window["p_value"], evidences)


def measured(rows: int, moved: int, effects: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Names and values of the metrics that any comparison has; none is the folder of another, for stores of files.

    Args:
        rows: Of the window.
        moved: How many streams moved.
        effects: The largest effect of each group.

    Example:
        >>> list(measured(200, 1, {"inputs": 0.5}))[-1]
        ('drift/effects/inputs', 0.5)
    """
    yield "drift/rows", float(rows)
    yield "drift/streams_moved", float(moved)
    yield "drift/effect", max(map(float, effects.values()), default=0.0)
    for name, effect in effects.items():
        yield _key("drift/effects", name), float(effect)


def certain(p_value: float, evidences: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """Names and values of how certain it is that something moved, which small windows show better than effects.

    Args:
        p_value: Of the report.
        evidences: `events.evidence` of each group.

    Example:
        >>> dict(certain(0.01, {"inputs": 2.0}))
        {'drift/p_value': 0.01, 'drift/evidence': 2.0, 'drift/evidences/inputs': 2.0}
    """
    yield "drift/p_value", float(p_value)
    yield "drift/evidence", evidence(p_value)
    for name, value in evidences.items():
        yield _key("drift/evidences", name), float(value)


#: Streams whose medians a run has, and what the names of these metrics begin with.
MOST_CHARTED: Final = 20
_MEDIANS, _MEDIANS_BASELINE = "drift/medians", "drift/medians_baseline"


def charted(logged: Collection[str]) -> set[str]:
    """The metrics of medians among those that a run has.

    Example:
        >>> charted(["drift/medians/inputs/hue", "drift/medians_baseline/inputs/hue", "loss"])
        {'drift/medians/inputs/hue'}
    """
    return {name for name in logged if name.startswith(f"{_MEDIANS}/")}


def medians(streams: Iterable[Mapping[str, Any]], charted: set[str]) -> Iterator[tuple[str, float]]:
    """Names and values of medians: of streams that have moved once, so that a chart has no gaps.

    Args:
        streams: As `WindowReport.to_dict` has them.
        charted: Names of those that the run has already; the farthest moved are added, up to `MOST_CHARTED`.

    Example:
        >>> hue = {"stream": "inputs/hue", "effect": 0.5, "drift": True, "median_baseline": 20.0, "median": 31.0}
        >>> dict(medians([hue], set()))
        {'drift/medians/inputs/hue': 31.0, 'drift/medians_baseline/inputs/hue': 20.0}
    """
    for stream in sorted(streams, key=lambda stream: -stream["effect"]):
        if stream.get("median") is None or stream.get("median_baseline") is None:
            continue
        key = _key(_MEDIANS, stream["stream"])
        if stream["drift"] and len(charted) < MOST_CHARTED:
            charted.add(key)
        if key in charted:
            yield key, stream["median"]
            yield _key(_MEDIANS_BASELINE, stream["stream"]), stream["median_baseline"]


def _key(folder: str, name: str) -> str:
    """A name that MLflow takes: of known characters, no longer than 250, and a path that is written in one way."""
    return posixpath.normpath(f"{folder}/{_UNKNOWN.sub('_', name)}"[:_LONGEST])


#: Tag of a sensor's run; its value is the sensor's name.
TAG: Final = "lensai.sensor"
#: Directory of the reports below a run.
PATH: Final = "lensai/drift"
#: What a run's page says of it.
_NOTE: Final = (
    "What a LensAI device sent, hour by hour, held against a baseline: `drift/verdict` is 1 where an hour drifted, and "
    f"`{PATH}` has a report of every hour, in UTC."
)
#: So MLflow's pages open with metrics, not with traces.
_KIND: Final = {"mlflow.experimentKind": "custom_model_development"}
_HOUR: Final = 3600
#: Runs of one sensor that are looked at; more than one is rare.
_MOST: Final = 20


class JudgedHour(Protocol):
    """What is asked of an hour: when it begins in unix time, its rows, and the unix time of the verdict, in seconds."""

    @property
    def hour(self) -> int: ...  # noqa: D102  as the class says
    @property
    def rows(self) -> int: ...  # noqa: D102
    @property
    def judged(self) -> float | None: ...  # noqa: D102


class SensorRuns:
    """Logs the hours of sensors to their runs, each call bounded by a deadline.

    Metrics `drift/verdict` (0 or 1), and all but the level that `MLflowSink` logs, with the hour as time and hours
    since 1970 as step; the artifact
    `lensai/drift/2026-11-21T14Z.html` is the report. Logging an hour again replaces its report. A run is `RUNNING`
    until `close`.

    Args:
        experiment: Name of the experiment, made if absent.
        tracking_uri: MLflow's own setting by default.
        deadline: Seconds that the server gets for one hour.

    Raises:
        InputError: If an argument is malformed.
        MissingDependencyError: If MLflow is not installed.

    Example:
        >>> SensorRuns(deadline=0)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: deadline=0 must be a positive number of seconds
    """

    def __init__(
        self, experiment: str = "lensai-devices", tracking_uri: str | None = None, deadline: float = 30.0
    ) -> None:
        check_seconds("deadline", deadline)
        if not isinstance(experiment, str) or not experiment.strip():
            raise InputError(f"experiment={experiment!r} must be the name of an experiment, such as 'lensai-devices'")
        self._experiment, self._deadline = experiment, deadline
        self._uri = resolve_tracking_uri(tracking_uri)
        self._written: set[str] = set()

    def log(
        self, sensor: str, hour_drift: JudgedHour, report: DriftReport, baseline: Baseline | Profile, profile: Profile
    ) -> str:
        """Log an hour.

        Args:
            sensor: Its name.
            hour_drift: The hour: when it was, how much came, and the verdict.
            report: What `compare(baseline, profile)` said.
            baseline: What the hour was held against.
            profile: Of the hour.

        Returns:
            The address of the run's page, or its id where MLflow has no server.

        Raises:
            InputError: If the name cannot be looked up in MLflow.
            TrackingError: If the server is down, refuses, or does not answer in time.
        """
        from lensai_integrations.report import drift_html

        _checked(sensor)
        page = drift_html(report, baseline, profile)
        values = dict(measured(hour_drift.rows, len(report.moved), {g.name: worst_effect(g) for g in report.groups}))
        values |= certain(
            p_value_of_report(report), {g.name: evidence(p_value_of([g], report.min_effect)) for g in report.groups}
        )
        values["drift/verdict"] = float(report.drift)
        streams = [stream_dict(stream) for group in report.groups for stream in group.streams]

        def work(checkpoint: Checkpoint) -> Run:
            client = self._client()
            run = self._run(client, sensor, checkpoint)
            checkpoint()
            shown = values | dict(medians(streams, charted(run.data.metrics)))
            client.log_batch(run.info.run_id, _metrics(hour_drift, shown))
            checkpoint()
            client.log_text(run.info.run_id, page, f"{PATH}/{report_name(hour_drift.hour)}")
            return run

        run = bounded(work, self._deadline, self._uri)
        self._written.add(run.info.run_id)
        return self._address(run)

    def close(self) -> None:
        """Mark the runs written to as finished; they go on when they are written to again.

        Raises:
            TrackingError: If the server is down, or does not answer in time.
        """

        def work(checkpoint: Checkpoint) -> None:
            client = self._client()
            for run_id in sorted(self._written):
                checkpoint()
                client.update_run(run_id, status="FINISHED")  # set_terminated would print two lines for each
                self._written.discard(run_id)

        if self._written:
            bounded(work, self._deadline, self._uri)

    def _client(self) -> MlflowClient:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self._uri)

    def _run(self, client: MlflowClient, sensor: str, checkpoint: Checkpoint) -> Run:
        """The sensor's run, made if there is none."""
        experiment = _experiment_id(client, self._experiment)
        checkpoint()
        run = _oldest(client, experiment, sensor)
        if run is None:
            checkpoint()
            tags = {TAG: sensor, "mlflow.source.name": "lensai serve", "mlflow.note.content": _NOTE}
            made = client.create_run(experiment, tags=tags, run_name=sensor)
            run = _oldest(client, experiment, sensor) or made
            if run.info.run_id != made.info.run_id:
                client.delete_run(made.info.run_id)
        if run.info.status != "RUNNING":
            client.update_run(run.info.run_id, status="RUNNING")
        return run

    def _address(self, run: Run) -> str:
        if not self._uri.startswith(("http://", "https://")):
            return str(run.info.run_id)
        base = without_credentials(self._uri).rstrip("/")
        return f"{base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def report_name(hour: int) -> str:
    """File name of the report of an hour that begins at this unix time.

    Example:
        >>> report_name(1719392400)
        '2024-06-26T09Z.html'
    """
    return f"{datetime.fromtimestamp(hour, UTC):%Y-%m-%dT%HZ}.html"


def _checked(sensor: str) -> None:
    """MLflow's filters know no escapes."""
    if not sensor or not sensor.isprintable() or ("'" in sensor and '"' in sensor):
        raise InputError(
            f"sensor={sensor!r} cannot be looked up in MLflow; pass a name of printable characters without both "
            "kinds of quotes"
        )


def _metrics(hour: JudgedHour, values: dict[str, float]) -> list[Metric]:
    from mlflow.entities import Metric

    passed = max(int((hour.judged or hour.hour) - hour.hour), 0)  # a device's clock may be ahead
    when = 1000 * hour.hour + min(passed, 1000 * _HOUR - 1)
    return [Metric(key, value, when, hour.hour // _HOUR) for key, value in values.items()]


def _experiment_id(client: MlflowClient, name: str) -> str:
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, tags=_KIND))
        except MlflowException:  # another server made it in the meantime, or this one refuses
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise TrackingError(f"experiment {name!r} was deleted: restore it, or log to one of another name")
    return str(experiment.experiment_id)


def _oldest(client: MlflowClient, experiment: str, sensor: str) -> Run | None:
    """The oldest run of the sensor. Databases may compare names without regard to case; we do not."""
    quote = '"' if "'" in sensor else "'"
    wanted = f"tags.`{TAG}` = {quote}{sensor}{quote}"
    runs = client.search_runs([experiment], wanted, max_results=_MOST, order_by=["attributes.start_time ASC"])
    same = [run for run in runs if run.data.tags.get(TAG) == sensor]
    return min(same, key=lambda run: (run.info.start_time, run.info.run_id), default=None)
