"""What a monitor says: the report of each window, notices to people, and its own status. Plain frozen data.

Everything but the profile of a window is JSON values, so that what could not be told before a crash is told after it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from lensai_integrations.drift.accuracy import AccuracyEstimate
from lensai_integrations.drift.result import DriftReport, GroupDrift, StreamDrift, p_value_of, p_value_of_report
from lensai_integrations.drift.text import certainty
from lensai_integrations.monitoring.news import finite
from lensai_integrations.profiles.profile import Profile

RUNNING, COMPLETED, FAILED = "Running", "Completed", "Failed"
#: What happened: a window was judged, people should be told, the monitor started or stopped.
WINDOW, NOTICE, STATUS = "window", "notice", "status"
#: The years 1 to 9999, which dates are for, in seconds since 1970.
_FIRST, _LAST = -62_135_596_800, 253_402_300_800
#: Streams that an event has, and that a notice names.
WORST, NAMED = 10, 3
#: Evidence is not charted beyond this: reports say "<1e-16" there, and a threshold of 2 is to be seen beside it.
MOST_EVIDENCE: Final = 16.0


@dataclass(frozen=True)
class Since:
    """When a drift that lasts began.

    Attributes:
        time: When that window opened, seconds since 1970.
        window: Number of the first window that was not ok; of one that is estimated, with which it probably began.
        probable: Whether it is estimated.

    Example:
        >>> Since(1.7e9, 5).words(7), Since(1.7e9, 7).words(7)
        ('It has lasted since window 5 (2023-11-14 22:13 UTC)', 'It is the first window that is not ok')
        >>> Since(1.7e9, 5, probable=True).words(7)
        'It probably began with window 5 (2023-11-14 22:13 UTC)'
    """

    time: float
    window: int
    probable: bool = False

    def words(self, now: int, *, over: bool = False) -> str:
        """What people are told with window number `now`."""
        if self.probable:
            began = "had probably begun" if over else "probably began"
            return f"It {began} with window {self.window} ({utc(self.time)})"
        if self.window == now:
            return "It is the first window that is not ok"
        return f"It {'had' if over else 'has'} lasted since window {self.window} ({utc(self.time)})"


@dataclass(frozen=True)
class Chance:
    """How many windows of clean data would have been at a level.

    Attributes:
        rate: Its false-alarm rate per window; None where a number per time was stated.
        windows: Judged so far.
        per_month: How many of that level a month has by chance: as stated, at most; else at the pace of the windows so
            far, None if they are of less than a day.

    Example:
        >>> Chance(0.01, 40, 7.3).words("alarm")
        'By chance alone 1 clean window in 100 is an alarm: 0.4 of the 40 so far, 7.3 a month at this pace'
        >>> Chance(None, 40, 1.0).words("alarm")
        'By chance alone there is at most 1 alarm a month'
    """

    rate: float | None
    windows: int
    per_month: float | None = None

    def words(self, level: str) -> str:
        """What people are told."""
        if self.rate is None:
            return f"By chance alone there is at most {self.per_month:.2g} {level} a month"
        one = f"1 clean window in {1 / self.rate:.3g} is {'an' if level == 'alarm' else 'a'} {level}"
        some = f"{self.rate * self.windows:.2g} of the {self.windows} so far"
        so_far = some if self.windows > 1 else "this is the first"
        pace = "" if self.per_month is None else f", {self.per_month:.2g} a month at this pace"
        return f"By chance alone {one}: {so_far}{pace}"


@dataclass(frozen=True)
class WindowReport:
    """What was found of one window.

    Attributes:
        number: Of the window, from 1; it goes on after a restart.
        level: `"ok"`, `"warning"` or `"alarm"`.
        report: What `compare` said, at the false-alarm rate that decided the level; with an allowance of false alarms
            per time, of the span of windows that says most, where one that ends here does.
        profile: Of the window.
        rows: In the window, those of the baseline included.
        warm_rows: How many of them are the baseline's own, from a warm start.
        opened: When its first row came, or the earliest that a `timestamp` says, seconds since 1970.
        closed: When its last row did, seconds since 1970.
        notice: Kind of the notice that it caused, or None.
        since: When the drift that people were told of began; None where they were told of none.
        chance: How many windows of its level clean data would have had so far.
        new: Of a change, the groups and streams that people had not been told of.
        instead: Of a change, whether nothing is left of what they had been told of.
        windows: How many windows `report` is of, this one the last of them.
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
    since: Since | None = None
    chance: Chance | None = None
    new: tuple[str, ...] = ()
    instead: bool = False
    windows: int = 1

    @property
    def drift(self) -> bool:
        """Whether the window is a warning or an alarm."""
        return self.level != "ok"

    def to_dict(self) -> dict[str, Any]:
        """The window as JSON values: its place and level, the report's verdict, its causes and the worst streams."""
        report, p_value = self.report, p_value_of_report(self.report)
        streams = sorted(
            (s for group in report.groups for s in group.streams),
            key=lambda s: (not s.drift, s.stream not in self.new, -s.effect),
        )
        values = {key: getattr(self, key) for key in ("number", "level", "rows", "warm_rows", "opened", "closed")}
        return values | {
            "false_alarm_rate": report.false_alarm_rate,
            "p_value": p_value,
            "evidence": evidence(p_value),
            "drift": self.drift,
            "harm": report.harm,
            "windows": self.windows,
            "moved": len(report.moved),
            "tested": report.tested,
            "causes": list(report.causes),
            "missing": list(report.missing),
            "accuracy": {name: accuracy_values(estimate) for name, estimate in report.accuracies},
            "since": self.since and asdict(self.since),
            "chance": self.chance and asdict(self.chance),
            "new": list(self.new[:WORST]),
            "instead": self.instead,
            "groups": {group.name: _group_dict(group, report.min_effect) for group in report.groups},
            "segments": [segment.title or segment.name for segment in report.segments if segment.drift][:WORST],
            "streams": [stream_dict(stream) for stream in streams[:WORST]],
        }


def _group_dict(group: GroupDrift, min_effect: float) -> dict[str, Any]:
    values: dict[str, Any] = {"drift": bool(group.drift), "effect": worst_effect(group)}
    values |= {"moved": len(group.moved), "tested": group.tested}
    p_value = p_value_of([group], min_effect)
    values |= {"p_value": p_value, "evidence": evidence(p_value)}
    if group.vectors is not None and group.vectors.drift:
        values["as_a_whole"] = certainty(group.vectors.p_value, group.vectors.windows)
    return values


def stream_dict(stream: StreamDrift) -> dict[str, Any]:
    """A stream as JSON values: a p-value and medians that are not known are None.

    Example:
        >>> stream_dict(StreamDrift("labels", "categories", "", False, 0.2, 0.3, 0.3))["median"] is None
        True
    """
    values: dict[str, Any] = {"stream": stream.stream, "effect": _number(stream.effect), "drift": bool(stream.drift)}
    values |= {"words": stream.words, "p_value": finite(stream.p_value), "windows": stream.windows}
    values |= {"median_baseline": finite(stream.baseline[1]), "median": finite(stream.window[1])}
    return values | ({"title": stream.title} if stream.label else {})


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


def evidence(p_value: float) -> float:
    """`-log10` of a p-value, which charts better: 2 is one clean window in a hundred, 3 one in a thousand.

    Example:
        >>> evidence(0.01), evidence(0.0), evidence(1.0)
        (2.0, 16.0, 0.0)
    """
    return MOST_EVIDENCE if p_value <= 10**-MOST_EVIDENCE else -math.log10(p_value) if p_value < 1 else 0.0


def utc(seconds: float) -> str:
    """A time for people.

    Example:
        >>> utc(1.7e9), utc(1e18)
        ('2023-11-14 22:13 UTC', '1e+18 s after 1970')
    """
    if not _FIRST <= seconds < _LAST:  # of a clock that is none
        return f"{seconds:g} s after 1970"
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _number(effect: float) -> float:
    """An effect as JSON knows it; one that could not be computed is none."""
    return float(effect) if math.isfinite(effect) else 0.0


@dataclass(frozen=True)
class Event:
    """What sinks are told.

    Attributes:
        id: Unique to this event and the same when it has to be told again after a crash.
        type: `"window"`, `"notice"` or `"status"`.
        kind: Of a window its level; of a notice `"warning"`, `"alarm"`, `"change"`, `"reminder"` or `"recovery"`; of a
            status `"Running"`, `"Completed"` or `"Failed"`.
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
        false_alarms_a_month: How many are expected in 30 days: at most, if it was stated (`alarms=`); else the rate of
            an alarm times the windows of 30 days as they came so far, None before there are two.
        since: When the drift that people were told of began; None where there is none.
        late: Rows that are in no window, since theirs had been judged.
        early: Rows whose timestamp was more than a day ahead of the clock.

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
    false_alarms_a_month: float | None = None
    since: Since | None = None
    late: int = 0
    early: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The status as JSON values."""
        return asdict(replace(self, failures=dict(self.failures), causes=dict(self.causes)))


def notice_text(monitor: str, kind: str, window: Mapping[str, Any], before: str) -> str:
    """What people are told: how bad it is and what moved, since when, and how much of that would be chance.

    Args:
        monitor: Its name.
        kind: Of the notice.
        window: `WindowReport.to_dict()`.
        before: The level people were told before, which a reminder and a change repeat.

    Example:
        >>> window = {"number": 7, "rows": 200, "streams": [], "false_alarm_rate": 0.01}
        >>> notice_text("production", "recovery", window, "alarm")
        'production: recovered from alarm, window 7 (200 rows) is clean.'
    """
    where = f"window {window['number']} ({window['rows']} rows{_until(window)})"
    if window.get("windows", 1) > 1:
        where = f"{where} with the {window['windows'] - 1} before it"
    since = Since(**window["since"]) if window.get("since") else None
    if kind == "recovery":
        sentences = [f"{monitor}: recovered from {before}, {where} is clean"]
        sentences += [] if since is None else [since.words(window["number"], over=True)]
        return " ".join(f"{sentence}." for sentence in sentences)
    another = "now drifted in another way instead" if window.get("instead") else "also drifted in another way"
    opening = {
        "change": f"still at {before}, but changed: {where} {another}",
        "reminder": f"still at {before}, {where} drifted",
    }.get(kind, f"{kind}, {where} drifted")
    if window.get("groups") and not (any(g["drift"] for g in window["groups"].values()) or window.get("segments")):
        opening, why = f"still at {before}, {where}", "nothing shows in it alone, but the drift is not over yet"
    else:
        why = "; ".join(_why(kind, window)) or "the rows moved as vectors, or a segment did"
    sentences = [f"{monitor}: {opening}: {why}", _places(window)]
    sentences += [f"No rows of {', '.join(window['missing'])} to compare"] if window.get("missing") else []
    sentences += ["What the model answers moved too"] if window.get("harm") == "harmful" else []
    sentences += [] if since is None else [since.words(window["number"])]
    sentences += [Chance(**window["chance"]).words(window["level"])] if window.get("chance") else []
    return " ".join(f"{sentence}." for sentence in sentences if sentence)


def _until(window: Mapping[str, Any]) -> str:
    return f" until {utc(window['closed'])}" if "closed" in window else ""


def _why(kind: str, window: Mapping[str, Any]) -> list[str]:
    """What to look at first, and what moved, of a change what is new; how sure once where it is the same of all."""
    new, groups = window.get("new", []), window.get("groups", {})
    moved = [stream for stream in window["streams"] if stream["drift"]]
    whole = {name: group["as_a_whole"] for name, group in groups.items() if "as_a_whole" in group}
    if kind == "change":
        whole = {name: sure for name, sure in whole.items() if name in new}
        moved = [stream for stream in moved if stream["stream"] in new] or ([] if whole else moved)
    elif moved:
        whole = {}
    named = [(f"{stream.get('title', stream['stream'])} {stream['words']}", *_how_sure(stream)) for stream in moved]
    named += [(f"{name} moved as a whole", "", sure) for name, sure in whole.items()]
    named += [(f"segment {name}", "", "") for name in ([] if named else window.get("segments", []))]
    alike = len({sure for _, _, sure in named[:NAMED]}) == 1
    parts = [
        what + (f" ({', '.join(filter(None, about))})" if any(about) else "")
        for what, effect, sure in named[:NAMED]
        for about in [(effect, "" if alike and len(named) > 1 else sure)]
    ]
    if alike and len(named) > 1 and named[0][2]:
        parts[-1] += f", {'both' if len(parts) == 2 else 'all'} {named[0][2]}"
    return [*window.get("causes", []), *parts]


def _how_sure(stream: Mapping[str, Any]) -> tuple[str, str]:
    """The effect and how sure that is; nothing of what an earlier release found."""
    if "windows" not in stream:
        return "", ""
    p = stream["p_value"]
    return f"effect {stream['effect']:.2f}", "" if p is None else certainty(p, stream["windows"])


def _places(window: Mapping[str, Any]) -> str:
    """In which groups how much moved: `"Moved: 3 of 24 streams of inputs; not outputs"`."""
    groups = {name: group for name, group in window.get("groups", {}).items() if "moved" in group}
    parts = [
        f"{group['moved']} of {group['tested']} streams of {name}" if group["moved"] else f"{name} as a whole"
        for name, group in groups.items()
        if group["drift"]
    ]
    still = [name for name, group in groups.items() if not group["drift"]]
    if not parts:
        return ""
    return f"Moved: {', '.join(parts)}" + (f"; not {', '.join(still)}" if still else "")
