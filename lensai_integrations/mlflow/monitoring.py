"""What a monitor finds, in an MLflow run: metrics of every window, and the report where people are told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lensai_integrations.measures.inputs import check_seconds
from lensai_integrations.mlflow.address import checked_path
from lensai_integrations.mlflow.log import active_run_id
from lensai_integrations.mlflow.server import Checkpoint, bounded, resolve_tracking_uri
from lensai_integrations.monitoring.events import NOTICE, STATUS, WINDOW, Event
from lensai_integrations.monitoring.judging import ALARM, LEVELS, REMINDER, WARNING
from lensai_integrations.monitoring.sinks.base import Complain, QueuedSink
from lensai_integrations.profiles.profile import Baseline, Profile

#: Notices with a report.
_REPORTED: Final = (WARNING, ALARM, REMINDER)
#: What MLflow does not take in the name of a metric.
_UNKNOWN = re.compile(r"[^\w\-. /:]", re.ASCII)


class MLflowSink(QueuedSink):
    """Logs every window to an MLflow run, on a thread of its own; a server that is down keeps nobody waiting.

    Metrics `drift/level` (0 ok, 1 warning, 2 alarm), `drift/rows`, `drift/streams_moved`, `drift/effect` (the largest)
    and `drift/effects/<group>`, each with the time of the window's last row, and the window's number as step. With a
    warning, an alarm and a reminder comes the artifact `lensai/drift/window-000007.html`, or, if it is told again after
    a crash, `.json`. The tag `lensai.monitor.<name>` is the status. Logging a window twice changes nothing.

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
            client.log_batch(self._run_id, [Metric(key, value, when, number) for key, value in metrics(event.window)])
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


def metrics(window: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and values of a window's metrics.

    Args:
        window: `WindowReport.to_dict()`.

    Example:
        >>> window = {"level": "alarm", "rows": 200, "moved": 1, "groups": {"inputs": {"drift": True, "effect": 0.5}}}
        >>> dict(metrics(window))["drift/effects/inputs"]
        0.5
    """
    yield "drift/level", float(LEVELS.index(window["level"]))
    yield from measured(window["rows"], window["moved"], {n: group["effect"] for n, group in window["groups"].items()})


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
        yield f"drift/effects/{_UNKNOWN.sub('_', name)}", float(effect)
