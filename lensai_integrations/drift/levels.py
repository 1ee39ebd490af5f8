"""How bad a window is, and whether anybody has to be told again.

`warn` and `alarm` are false-alarm rates of a window: it is an alarm if it drifts at the rate `alarm`, and a warning if
only at the larger rate `warn`. What is told is less than what is found: one notice when the level rises above what was
told last, then silence, or reminders if asked for, and one notice when so many windows in a row were clean again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.profile import Baseline, Profile

OK, WARNING, ALARM = "ok", "warning", "alarm"
#: In place of ok, of a monitor that cannot tell: no window has this level.
UNKNOWN = "unknown"
#: From harmless to bad.
LEVELS: Final = (OK, WARNING, ALARM)
#: Kinds of notices beside the levels.
RECOVERY, REMINDER = "recovery", "reminder"


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

    Example:
        >>> alert, kind = step(Alert(), ALARM)
        >>> kind, step(alert, ALARM)[1]
        ('alarm', None)
    """

    level: str = OK
    told: str = OK
    clean: int = 0
    since: int = 0


def step(alert: Alert, level: str, *, recover: int = 3, remind: int | None = None) -> tuple[Alert, str | None]:
    """Take in the level of the next window: the new state, and the kind of notice to send, or None.

    Args:
        alert: The state so far.
        level: Of the window.
        recover: Windows in a row that have to be ok for a recovery.
        remind: After how many windows without a notice people are reminded; None for never.

    Returns:
        The state, and `"warning"`, `"alarm"`, `"reminder"`, `"recovery"` or None.
    """
    clean = alert.clean + 1 if level == OK else 0
    after = replace(alert, level=level, clean=clean, since=alert.since + 1)
    if LEVELS.index(level) > LEVELS.index(alert.told):
        return replace(after, told=level, since=0), level
    if alert.told == OK:
        return after, None
    if clean >= recover:
        return replace(after, told=OK, since=0), RECOVERY
    if level != OK and remind is not None and after.since >= remind:
        return replace(after, since=0), REMINDER
    return after, None
