"""How bad a window is, and whether anybody has to be told; counts and levels outlive a restart.

`warn` and `alarm` are false-alarm rates of a window: it is an alarm if it drifts at the rate `alarm`, and a warning if
only at the larger rate `warn`. With an allowance of false alarms per time in their place there are no warnings, and
windows are judged together with those before them (`alarms.py`).

What is told is less than what is found: one notice when the level rises above what was told last, one when it is
another drift than people were told of (`news.py`), else silence, or reminders if asked for, and one notice when so many
windows in a row were clean again.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.monitoring.alarms import MONTH, Outcome, Span, Spans
from lensai_integrations.monitoring.events import (
    NOTICE,
    STATUS,
    WINDOW,
    Chance,
    Event,
    Since,
    Status,
    WindowReport,
    notice_text,
)
from lensai_integrations.monitoring.news import KNOWN, MAYBE, Mover, movers, news, with_told
from lensai_integrations.monitoring.normal import Normal
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.storage.checked_json import whole_number

OK, WARNING, ALARM = "ok", "warning", "alarm"
#: In place of ok, of a monitor that cannot tell: no window has this level.
UNKNOWN = "unknown"
#: From harmless to bad.
LEVELS: Final = (OK, WARNING, ALARM)
#: Kinds of notices beside the levels.
RECOVERY, REMINDER, CHANGE = "recovery", "reminder", "change"


@dataclass(frozen=True)
class Rates:
    """The false-alarm rates of the levels, and how windows are compared.

    Attributes:
        warn: Of a warning, or None for no warnings.
        alarm: Of an alarm.
        options: Further arguments of `compare`: `min_effect`, `against`.

    Example:
        >>> Rates(0.05, 0.1)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: alarm=0.1 is the false-alarm rate of an alarm: ...
    """

    warn: float | None
    alarm: float
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not _is_rate(self.alarm) or (self.warn is not None and not _is_rate(self.warn)):
            raise InputError(
                f"warn={self.warn!r} and alarm={self.alarm!r} are false-alarm rates per window: pass numbers between "
                "0 and 1, e.g. warn=0.05, alarm=0.01"
            )
        if self.warn is not None and self.alarm > self.warn:
            raise InputError(
                f"alarm={self.alarm!r} is the false-alarm rate of an alarm: it has to be at most warn={self.warn!r}"
            )


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def level_of(baseline: Baseline | Profile, window: Profile, rates: Rates) -> tuple[str, DriftReport]:
    """The level of a window, and the report at the rate that decided: `alarm` for an alarm, else `warn`.

    What does not drift at the larger rate does not at the smaller, so a clean window is compared once.
    """
    options = dict(rates.options)
    wide = rates.alarm if rates.warn is None else rates.warn
    report = compare(baseline, window, false_alarm_rate=wide, **options)
    if not report.drift:
        return OK, report
    if wide == rates.alarm:
        return ALARM, report
    strict = compare(baseline, window, false_alarm_rate=rates.alarm, **options)
    return (ALARM, strict) if strict.drift else (WARNING, report)


@dataclass(frozen=True)
class Alert:
    """What was found last and what was told last.

    Attributes:
        level: Of the last window.
        told: The level that the last notice left people with.
        clean: Windows in a row that were ok.
        since: Windows since the last notice.
        known: What people were told of, to which side it had gone and how far (`news.Mover`), at most `news.KNOWN`;
            None if that is not known, in a state of an earlier release.
        maybe: Names that are news if the next window has them again.
        began: Number of the first window that was not ok, of those that people were told of; 0 for none.
        began_at: When it opened, seconds since 1970.

    Example:
        >>> alert, kind = step(Alert(), ALARM)
        >>> kind, step(alert, ALARM)[1], step(alert, ALARM, found=[Mover("inputs")])[1]
        ('alarm', None, 'change')
    """

    level: str = OK
    told: str = OK
    clean: int = 0
    since: int = 0
    known: tuple[tuple[str, str, float], ...] | None = None
    maybe: tuple[str, ...] = ()
    began: int = 0
    began_at: float = 0.0


def step(
    alert: Alert,
    level: str,
    *,
    recover: int = 3,
    remind: int | None = None,
    found: Sequence[Mover] = (),
    at: tuple[int, float] = (0, 0.0),
) -> tuple[Alert, str | None]:
    """Take in the level of the next window: the new state, and the kind of notice to send, or None.

    Args:
        alert: The state so far.
        level: Of the window.
        recover: Windows in a row that have to be ok for a recovery.
        remind: After how many windows without a notice people are reminded; None for never.
        found: What moved in it.
        at: Its number, and when it opened.

    Returns:
        The state, and `"warning"`, `"alarm"`, `"change"`, `"reminder"`, `"recovery"` or None.
    """
    clean = alert.clean + 1 if level == OK else 0
    after = replace(alert, level=level, clean=clean, since=alert.since + 1)
    if LEVELS.index(level) > LEVELS.index(alert.told):
        began, began_at = at if alert.told == OK else (alert.began, alert.began_at)
        return replace(_told(after, found), told=level, began=began, began_at=began_at), level
    if alert.told == OK:
        return after, None
    if clean >= recover:
        return Alert(level, clean=clean), RECOVERY
    if level != OK:
        if alert.known is None:  # of a state that does not say what people know: they are taken to know this
            after = replace(_told(after, found), since=after.since)
        new, maybe = news(found, _known(after), alert.maybe)
        if new:
            return _told(after, found), CHANGE
        after = replace(after, maybe=maybe)
        if remind is not None and after.since >= remind:
            return _told(after, found), REMINDER
    return after, None


def _told(alert: Alert, found: Sequence[Mover]) -> Alert:
    """The state once people were told of what moved in the last window."""
    known = with_told(_known(alert), found)
    return replace(alert, since=0, maybe=(), known=tuple((name, *what) for name, what in known.items()))


def _known(alert: Alert) -> dict[str, tuple[str, float]]:
    return {name: (side, effect) for name, side, effect in alert.known or ()}


_COUNTED = {"warning": "warnings", "alarm": "alarms"}


@dataclass(frozen=True)
class Whole:
    """A window before it is judged: its profile, rows, how many are the baseline's, and its time."""

    profile: Profile
    rows: int
    warm_rows: int
    opened: float
    closed: float


class Judging:
    """Judges windows one after the other.

    Args:
        normal: What they are held against.
        name: Of the monitor.
        rates: False-alarm rates of the levels.
        recover: Windows in a row that have to be ok for a recovery.
        remind: Windows after which people are told again, or None.
        spans: Judges windows together, in place of the rates of single ones; None for these.

    Attributes:
        normal: As given, or what was learned since.
        alert: What was found and told last.
        spans: As given.
        counts: Of `windows`, `warnings` and `alarms`.
        unfed: Whether the last update had nothing that the baseline has.
        unjudged: Whether the last window could not be compared.
        last: The last window as JSON values.

    Raises:
        InputError: If `recover` or `remind` is not positive.
    """

    def __init__(
        self,
        normal: Normal,
        name: str,
        rates: Rates,
        recover: int = 3,
        remind: int | None = None,
        spans: Spans | None = None,
    ) -> None:
        for key, value in (("recover", recover), ("remind", 1 if remind is None else remind)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{key}={value!r} should be a number of windows, 1 or more")
        self.normal, self._name, self._rates = normal, name, rates
        self._recover, self._remind, self.spans = recover, remind, spans
        self.start_over()

    def start_over(self) -> None:
        """Forget all windows."""
        self.alert = Alert()
        self._told_before = OK
        self.counts = {"windows": 0, "warnings": 0, "alarms": 0}
        self._first: tuple[int, float] | None = None  # number of a window, and when it opened
        self.unfed = self.unjudged = False
        self.last: dict[str, Any] = {}
        if self.spans is not None:
            self.spans.start_over()

    @property
    def level(self) -> str:
        """Of the last window, or that it cannot be told."""
        return UNKNOWN if self.alert.level == OK and (self.unfed or self.unjudged) else self.alert.level

    def judge(self, whole: Whole) -> WindowReport:
        """The report of the next window.

        Raises:
            LensAIError: If it cannot be compared; nothing else has changed then.
        """
        self.unjudged = True
        level, outcome = self._found(whole)
        self.unjudged = False
        before = self.alert
        self._told_before = before.told
        self.counts["windows"] += 1
        at = (self.counts["windows"], whole.opened)
        self._first = self._first or at
        rate = self._rates.alarm if self.spans is None else outcome.report.false_alarm_rate
        found = movers(outcome.report, rate)
        if outcome.began is not None:
            at = (outcome.began.window, outcome.began.time)
        self.alert, kind = step(before, level, recover=self._recover, remind=self._remind, found=found, at=at)
        if level in _COUNTED:
            self.counts[_COUNTED[level]] += 1
        judged = WindowReport(
            self.counts["windows"], level, outcome.report, whole.profile, whole.rows, whole.opened, whole.closed,
            whole.warm_rows, kind, self._since(before if kind == RECOVERY else self.alert),
            self._chance(level, whole.closed), *self._change(kind, found, before), outcome.windows,
        )  # fmt: skip
        self.last = judged.to_dict()
        return judged

    def _since(self, alert: Alert) -> Since | None:
        """When what lasts began: with the first window that was not ok, or as the spans have it."""
        return Since(alert.began_at, alert.began, self.spans is not None) if alert.told != OK and alert.began else None

    @property
    def since(self) -> Since | None:
        """When the drift that people were told of began."""
        return self._since(self.alert)

    def _chance(self, level: str, now: float) -> Chance:
        """How many windows at this level, of an ok one at that of an alarm, clean data would have had."""
        if self.spans is not None:
            return Chance(None, self.counts["windows"], self.spans.allowed.a_month)
        rate = self._rates.warn if level == WARNING and self._rates.warn is not None else self._rates.alarm
        return Chance(rate, self.counts["windows"], self._by_pace(rate, now))

    def _by_pace(self, rate: float, now: float) -> float | None:
        """How many windows a month are at a level by chance, at the pace of those so far."""
        if self._first is None:
            return None
        number, opened = self._first
        return _per_month(rate * (self.counts["windows"] - number + 1), now - opened)

    @property
    def false_alarms_a_month(self) -> float | None:
        """How many are expected: at most, where that was stated; None while it is not known."""
        if self.spans is not None:
            return self.spans.allowed.a_month
        return self._by_pace(self._rates.alarm, self.last.get("closed", 0.0))

    def _change(self, kind: str | None, found: Sequence[Mover], before: Alert) -> tuple[tuple[str, ...], bool]:
        """Of a change the names that are news, and whether nothing of what was told before is left."""
        if kind != CHANGE:
            return (), False
        known = _known(before)
        new, _ = news(found, known, before.maybe)
        return tuple(mover.name for mover in new), not any(mover.name in known for mover in found if not mover.group)

    def _found(self, whole: Whole) -> tuple[str, Outcome]:
        """The level of the next window, and what it rests on."""
        held_against = self.normal.at(whole.opened, whole.closed)
        if self.spans is None:
            level, report = level_of(held_against, whole.profile, self._rates)
            return level, Outcome(level == ALARM, report)
        number = self.counts["windows"] + 1
        window = Span(number, number, whole.rows, whole.opened, whole.closed, whole.profile)

        def ask(profile: Profile, rate: float) -> DriftReport:  # windows put together are of no single context
            baseline = held_against if profile is whole.profile else self.normal.baseline
            return compare(baseline, profile, false_alarm_rate=rate, **dict(self._rates.options))

        found = self.spans.judge(window, ask, keep=not whole.warm_rows)
        return ALARM if found.alarm else OK, found

    def events(self, judged: WindowReport, status: Status) -> Iterator[Event]:
        """What has to be said about the window that was judged last: itself, and a notice if it caused one."""
        window, about = self.last, status.to_dict()
        causes = "".join(f": {cause}" for cause in judged.report.causes[:1])
        text = f"{self._name}: window {judged.number} ({judged.rows} rows) is {judged.level}{causes}"
        yield self._event(WINDOW, judged.level, judged.closed, text, about, judged)
        if judged.notice is not None:
            text = notice_text(self._name, judged.notice, window, self._told_before)
            yield self._event(NOTICE, judged.notice, judged.closed, text, about, judged)

    def status_event(self, status: Status, now: float) -> Event:
        """What has to be said when the monitor starts or ends."""
        cause = f": {status.cause}" if status.cause else ""
        if status.level == UNKNOWN:
            cause += "".join(f"; {topic}: {why}" for topic, why in status.causes.items()) or "; nothing was given"
        text = f"{self._name}: {status.state} after {status.rows} rows and {status.windows} windows{cause}"
        return self._event(STATUS, status.state, now, text, status.to_dict())

    def _event(
        self, type: str, kind: str, when: float, text: str, status: dict[str, Any], live: WindowReport | None = None
    ) -> Event:
        id = f"{time.time_ns():x}-{secrets.token_hex(6)}"
        return Event(id, type, kind, self._name, when, text, self.last, status, live)

    def state(self) -> dict[str, Any]:
        """Levels and counts as JSON values."""
        unknown = {"unfed": self.unfed, "unjudged": self.unjudged}
        return {"alert": asdict(self.alert), "counts": self.counts, "last": self.last, "first": self._first, **unknown}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what `state` returned.

        Raises:
            FormatError: If it is something else; nothing has changed then.
        """
        try:
            alert = _read_alert(state["alert"])
            first = None if state.get("first") is None else (whole_number(state["first"][0]), float(state["first"][1]))
            counts = {key: whole_number(state["counts"][key]) for key in self.counts}
            last = dict(state["last"])
            if not math.isfinite(float(last.get("closed", 0.0))):
                raise ValueError("the end of the last window is no number")
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise FormatError(f"the levels cannot be read: {error!r}") from error
        numbers = (alert.clean, alert.since, alert.began)
        if alert.level not in LEVELS or alert.told not in LEVELS or any(whole_number(n) != n for n in numbers):
            raise FormatError(f"the levels cannot be read: {alert!r}")
        self.alert, self.counts, self.last, self._first = alert, counts, last, first
        self.unfed, self.unjudged = state.get("unfed") is True, state.get("unjudged") is True


#: Seconds of a month, and how many have to have passed before a rate a month is spoken of.
_DAY = 86_400.0


def _per_month(count: float, seconds: float) -> float | None:
    """What came to so many in so many seconds comes to in a month; None if that was less than a day."""
    return count / seconds * MONTH if seconds >= _DAY else None


def _read_alert(values: Mapping[str, Any]) -> Alert:
    """What `asdict` made an alert into, with lists as JSON has them; raises as `Judging.restore` catches it."""
    alert = Alert(**values)
    known = (
        None
        if alert.known is None
        else tuple((str(name), str(side), float(effect)) for name, side, effect in alert.known[: 2 * KNOWN])
    )
    began_at = float(alert.began_at)
    if not math.isfinite(sum((effect for _, _, effect in known or ()), began_at)):
        raise ValueError("a number is none")
    return replace(alert, known=known, maybe=tuple(map(str, alert.maybe[:MAYBE])), began_at=began_at)
