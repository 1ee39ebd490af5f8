"""The last window as a text file of metrics, for the textfile collector of Prometheus' node exporter.

The collector wants files that end in `.prom`, are replaced in one step, and have no timestamps. The text is that of
`prometheus_client`, which is imported when the first file is written: importing it hangs a callback on the garbage
collector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.events import RUNNING, STATUS, WINDOW, Event
from lensai_integrations.monitoring.judging import LEVELS
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.storage.folders import replace_file

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Sample = tuple[Mapping[str, str], float]

#: Name of each metric, its type, and what it says.
_METRICS: Final = {
    "lensai_monitor_running": ("gauge", "1 while the monitor runs, 0 once it completed or failed."),
    "lensai_monitor_rows_total": ("counter", "Rows measured."),
    "lensai_monitor_windows_total": ("counter", "Windows judged."),
    "lensai_monitor_warnings_total": ("counter", "Windows at the level warning."),
    "lensai_monitor_alarms_total": ("counter", "Windows at the level alarm."),
    "lensai_monitor_late_rows_total": ("counter", "Rows in no window, since theirs had been judged when they came."),
    "lensai_monitor_early_rows_total": ("counter", "Rows whose timestamp was more than a day ahead of the clock."),
    "lensai_monitor_failures_total": ("counter", "What went wrong inside the monitor, by topic."),
    "lensai_drift_level": ("gauge", "Level of the last window: 0 ok, 1 warning, 2 alarm."),
    "lensai_drift_window_rows": ("gauge", "Rows of the last window."),
    "lensai_drift_window_closed_timestamp_seconds": ("gauge", "When the last row of the last window came."),
    "lensai_drift_streams_moved": ("gauge", "Streams that moved in the last window."),
    "lensai_drift_p_value": ("gauge", "p-value of the last window, corrected for all that was tested."),
    "lensai_drift_evidence": ("gauge", "The same as -log10: 2 is one clean window in a hundred."),
    "lensai_drift_group_evidence": ("gauge", "-log10 of the p-value of each group in the last window."),
    "lensai_drift_effect": ("gauge", "Effect of the streams that moved most in the last window, 0 to 1."),
    "lensai_drift_median": ("gauge", "Their medians in the last window."),
    "lensai_drift_median_baseline": ("gauge", "Their medians in the baseline."),
}


class PrometheusSink(Sink):
    """Keeps a file of metrics up to date: rows, windows, level, and the streams that moved most.

    Args:
        path: The file, in the folder of the node exporter's `--collector.textfile.directory`; ends in `.prom`.

    Raises:
        InputError: If it does not.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "drift.prom"
        >>> PrometheusSink(path).tell(Event("1", "status", "Running", "production", 0.0, "", status={"rows": 3}))
        >>> path.read_text().splitlines()[2]
        'lensai_monitor_running{monitor="production"} 1.0'
    """

    types = (WINDOW, STATUS)
    repeatable = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix != ".prom":
            raise InputError(f"path={str(path)!r} should end in .prom: node exporter reads no other files")

    def tell(self, event: Event) -> None:
        """Write the file anew."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = exposition(event.monitor, event.status, event.window)
        replace_file(self.path, text.encode(), sync=False)


def exposition(monitor: str, status: Mapping[str, Any], window: Mapping[str, Any]) -> str:
    """The metrics as text.

    Args:
        monitor: Its name, the label of every sample.
        status: `Status.to_dict()`.
        window: `WindowReport.to_dict()` of the last window; empty before there is one.
    """
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told(monitor, status, window))
    return generate_latest(registry).decode()


class _Told:
    """What `prometheus_client` collects."""

    def __init__(self, monitor: str, status: Mapping[str, Any], window: Mapping[str, Any]) -> None:
        self._monitor, self._status, self._window = monitor, status, window

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for name, samples in _samples(self._status, self._window).items():
            kind, said = _METRICS[name]
            family = kinds[kind](name, said)
            for labels, value in samples:
                family.add_sample(name, {"monitor": self._monitor, **labels}, value)
            yield family


def _samples(status: Mapping[str, Any], window: Mapping[str, Any]) -> dict[str, Iterable[Sample]]:
    none: Mapping[str, str] = {}
    counts = {key: float(status.get(key, 0)) for key in ("rows", "windows", "warnings", "alarms")}
    families: dict[str, Iterable[Sample]] = {
        "lensai_monitor_running": [(none, float(status.get("state", RUNNING) == RUNNING))],
        **{f"lensai_monitor_{key}_total": [(none, value)] for key, value in counts.items()},
        **{f"lensai_monitor_{key}_rows_total": [(none, float(status.get(key, 0)))] for key in ("late", "early")},
        "lensai_monitor_failures_total": [
            ({"topic": topic}, float(count)) for topic, count in status.get("failures", {}).items()
        ],
    }
    if window:
        families |= {
            "lensai_drift_level": [(none, float(LEVELS.index(window["level"])))],
            "lensai_drift_window_rows": [(none, float(window["rows"]))],
            "lensai_drift_window_closed_timestamp_seconds": [(none, float(window["closed"]))],
            "lensai_drift_streams_moved": [(none, float(window["moved"]))],
            "lensai_drift_p_value": _known({(): window.get("p_value")}),
            "lensai_drift_evidence": _known({(): window.get("evidence")}),
            "lensai_drift_group_evidence": _known(
                {(("group", name),): group.get("evidence") for name, group in window.get("groups", {}).items()}
            ),
            **{
                f"lensai_drift_{key}": _known({(("stream", s["stream"]),): s.get(key) for s in window["streams"]})
                for key in ("effect", "median", "median_baseline")
            },
        }
    return {name: samples for name, samples in families.items() if samples}


def _known(values: Mapping[tuple[tuple[str, str], ...], float | None]) -> list[Sample]:
    """Samples by their labels; what is not known, as of an earlier release, has none."""
    return [(dict(labels), float(value)) for labels, value in values.items() if value is not None]
