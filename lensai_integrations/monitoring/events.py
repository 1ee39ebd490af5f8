"""What a monitor says: the report of each window, notices to people, and its own status. Plain frozen data.

Everything but the profile of a window is JSON values, so that what could not be told before a crash is told after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lensai_integrations.drift.accuracy import AccuracyEstimate
from lensai_integrations.drift.result import DriftReport, GroupDrift
from lensai_integrations.profiles.profile import Profile

RUNNING, COMPLETED, FAILED = "Running", "Completed", "Failed"
#: What happened: a window was judged, people should be told, the monitor started or stopped.
WINDOW, NOTICE, STATUS = "window", "notice", "status"
#: Streams that an event names.
WORST = 10


@dataclass(frozen=True)
class WindowReport:
    """What was found of one window.

    Attributes:
        number: Of the window, from 1; it goes on after a restart.
        level: `"ok"`, `"warning"` or `"alarm"`.
        report: What `compare` said, at the false-alarm rate that decided the level.
        profile: Of the window.
        rows: In the window, those of the baseline included.
        warm_rows: How many of them are the baseline's own, from a warm start.
        opened: When its first row came, seconds since 1970.
        closed: When its last row did, seconds since 1970.
        notice: Kind of the notice that it caused, or None.
    """

    number: int
    level: str
    report: DriftReport
    profile: Profile
    rows: int
    opened: float
    closed: float
    warm_rows: int = 0
    notice: str | None = None

    @property
    def drift(self) -> bool:
        """Whether the window is a warning or an alarm."""
        return self.level != "ok"

    def to_dict(self) -> dict[str, Any]:
        """The window as JSON values: its place and level, the report's verdict, its causes and the worst streams."""
        report = self.report
        streams = sorted((s for group in report.groups for s in group.streams), key=lambda s: (not s.drift, -s.effect))
        values = {key: getattr(self, key) for key in ("number", "level", "rows", "warm_rows", "opened", "closed")}
        effects = [(group, worst_effect(group)) for group in report.groups]
        return values | {
            "false_alarm_rate": report.false_alarm_rate,
            "drift": self.drift,
            "moved": len(report.moved),
            "tested": report.tested,
            "causes": list(report.causes),
            "missing": list(report.missing),
            "accuracy": {name: accuracy_values(estimate) for name, estimate in report.accuracies},
            "groups": {group.name: {"drift": bool(group.drift), "effect": worst} for group, worst in effects},
            "streams": [
                {"stream": s.stream, "effect": _number(s.effect), "drift": bool(s.drift), "words": s.words}
                | ({"title": s.title} if s.label else {})
                for s in streams[:WORST]
            ],
        }


def accuracy_values(estimate: AccuracyEstimate) -> dict[str, Any]:
    """An accuracy as JSON values: the window's with its interval, whether by labels, and what it was on the baseline.

    Example:
        >>> from lensai_integrations.drift.accuracy import AccuracyEstimate
        >>> accuracy_values(AccuracyEstimate(0.9, 0.4, 0.2, 0.6))["window"]
        0.4
    """
    names = ("baseline", "window", "low", "high", "by_labels", "mistaken")
    values = {name: getattr(estimate, name) for name in names}
    return values | {"baseline": None if math.isnan(estimate.baseline) else estimate.baseline}


def worst_effect(group: GroupDrift) -> float:
    """The largest effect of a group's streams; 0 if none could be computed.

    Example:
        >>> from lensai_integrations.drift.result import GroupDrift
        >>> worst_effect(GroupDrift("inputs", 100, 50, 0, 0))
        0.0
    """
    return max((_number(stream.effect) for stream in group.streams), default=0.0)


def _number(effect: float) -> float:
    """An effect as JSON knows it; one that could not be computed is none."""
    return float(effect) if math.isfinite(effect) else 0.0


@dataclass(frozen=True)
class Event:
    """What sinks are told.

    Attributes:
        id: Unique to this event and the same when it has to be told again after a crash.
        type: `"window"`, `"notice"` or `"status"`.
        kind: Of a window its level; of a notice `"warning"`, `"alarm"`, `"reminder"` or `"recovery"`; of a status
            `"Running"`, `"Completed"` or `"Failed"`.
        monitor: Its name.
        time: Seconds since 1970.
        text: One sentence or two for people.
        window: `WindowReport.to_dict()`; of a status that of the last window, empty before there is one.
        status: `Status.to_dict()` at that moment.
        live: The window itself, for sinks that draw it; None if it is told again after a restart.

    Example:
        >>> Event("a-1", NOTICE, "alarm", "production", 0.0, "It drifts.").to_dict()["kind"]
        'alarm'
    """

    id: str
    type: str
    kind: str
    monitor: str
    time: float
    text: str
    window: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    live: WindowReport | None = field(default=None, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the live window, as JSON values."""
        return {key: value for key, value in vars(self).items() if key != "live"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Event:
        """What `to_dict` made an event into; raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        id, type, kind, monitor, text = (str(values[key]) for key in ("id", "type", "kind", "monitor", "text"))
        window, status = dict(values["window"]), dict(values["status"])
        return cls(id, type, kind, monitor, float(values["time"]), text, window, status)


@dataclass(frozen=True)
class Status:
    """How a monitor fares.

    Attributes:
        state: `"Running"`, `"Completed"` or `"Failed"`.
        cause: Why it failed; else empty.
        level: Of the last window; `"unknown"` in place of ok where nothing can be told, see `DriftMonitor.level`.
        rows: Measured so far, restarts included.
        windows: Judged so far.
        warnings: Windows at the level warning.
        alarms: Windows at the level alarm.
        failures: How often something went wrong inside, by topic: rows that could not be measured, a sink that was
            down, a full disk.
        causes: The last cause, by topic.
        restarts: How often a monitor went on from the state on disk.
        restored_from: What that state said its monitor was: `"Running"` if it was killed; empty without one.

    Example:
        >>> Status().to_dict()["state"]
        'Running'
    """

    state: str = RUNNING
    cause: str = ""
    level: str = "ok"
    rows: int = 0
    windows: int = 0
    warnings: int = 0
    alarms: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    causes: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    restored_from: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON values."""
        return asdict(replace(self, failures=dict(self.failures), causes=dict(self.causes)))


def notice_text(monitor: str, kind: str, window: Mapping[str, Any], before: str) -> str:
    """What people are told.

    Args:
        monitor: Its name.
        kind: Of the notice.
        window: `WindowReport.to_dict()`.
        before: The level people were told before, which a reminder repeats.

    Example:
        >>> window = {"number": 7, "rows": 200, "streams": [], "false_alarm_rate": 0.01}
        >>> notice_text("production", "recovery", window, "alarm")
        'production: recovered from alarm, window 7 (200 rows) is clean'
    """
    where = f"window {window['number']} ({window['rows']} rows)"
    if kind == "recovery":
        return f"{monitor}: recovered from {before}, {where} is clean"
    drifted = [stream for stream in window["streams"] if stream["drift"]][:3]
    moved = [f"{stream.get('title', stream['stream'])} {stream['words']}" for stream in drifted]
    why = "; ".join([*window.get("causes", []), *moved]) or "the rows moved as vectors, or a segment did"
    if window.get("missing"):
        why = f"{why}; no rows of {', '.join(window['missing'])} to compare"
    level = f"still at {before}" if kind == "reminder" else kind
    return f"{monitor}: {level}, {where} drifted at a false-alarm rate of {window['false_alarm_rate']:g}: {why}"
