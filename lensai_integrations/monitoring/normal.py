"""What is normal for a monitor: its baseline, what that learned from clean windows, and what an hour or a day has.

With a context, windows are held against clean ones of the same hour of the day, or the same day of the week, once there
were enough of them: these are a baseline of their own, calibrated and taught like any other. All other windows are held
against the monitor's baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any, Final

from lensai_integrations.drift.calibration import calibration_of, to_state
from lensai_integrations.drift.learning import FEWEST_WINDOWS, with_clean_windows
from lensai_integrations.errors import InputError, LensAIError
from lensai_integrations.monitoring.events import WindowReport
from lensai_integrations.problems import log
from lensai_integrations.profiles.profile import Baseline, Profile

#: A context of its own has at least so many rows in its clean windows.
_ENOUGH_ROWS: Final = 500
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CONTEXTS: Final[Mapping[str, Callable[[datetime], str]]] = {
    "hour": lambda time: f"{time.hour:02}:00",
    "weekday": lambda time: _DAYS[time.weekday()],
}


def checked_context(context: Any, against: str = "reference") -> str | None:
    """The context, if there is one.

    Raises:
        InputError: If it is none that is known, or windows are held against a training profile.

    Example:
        >>> checked_context("minute")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: context='minute' is unknown: pass 'hour', 'weekday' or None
    """
    if context is not None and context not in tuple(CONTEXTS):
        raise InputError(f"context={context!r} is unknown: pass {', '.join(map(repr, CONTEXTS))} or None")
    if context is not None and against != "reference":
        raise InputError(f"context={context!r} is of baselines against='reference': leave against={against!r} away")
    return context  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Normal:
    """What windows are held against.

    Attributes:
        baseline: The monitor's.
        context: `"hour"`, `"weekday"` or None.
        of_context: Baselines by their context, of those that enough is known of.

    Example:
        >>> Normal(Baseline(Profile()), "hour").key(7200.0, 9000.0)
        '02:00'
    """

    baseline: Baseline | Profile
    context: str | None = None
    of_context: Mapping[str, Baseline] = field(default_factory=dict)

    def key(self, opened: float, closed: float) -> str:
        """The context of a window, by the middle of it in UTC; empty without one."""
        if self.context is None:
            return ""
        return CONTEXTS[self.context](datetime.fromtimestamp((opened + closed) / 2, UTC))

    def at(self, opened: float, closed: float) -> Baseline | Profile:
        """What a window of that time is held against."""
        return self.of_context.get(self.key(opened, closed), self.baseline)

    def taught(self, windows: Iterable[WindowReport | Profile], apart: int = 1) -> Normal:
        """The same, having learned from clean windows, the oldest first; what was learned before is forgotten.

        Args:
            windows: Those that hold rows of the baseline are left out, and of those that overlap all but the first.
            apart: Of reports, by how many windows the next one that shares no row is later.

        Raises:
            InputError: If they are too few, or of something else.
        """
        given = list(windows)
        for number, window in enumerate(given):
            if not isinstance(window, WindowReport | Profile):
                raise InputError(
                    f"windows[{number}] is a {type(window).__name__}: pass the reports that `update` returned, or"
                    " Profiles"
                )
            if self.context is not None and isinstance(window, Profile):
                raise InputError(
                    f"windows[{number}] is a Profile, which has no time, and context={self.context!r} goes by time:"
                    " pass the reports that `update` or `replay` returned"
                )
        clean = _apart(given, apart)
        profiles = [window.profile if isinstance(window, WindowReport) else window for window in clean]
        baseline = with_clean_windows(self.baseline, profiles)
        by_context: dict[str, list[Profile]] = {}
        for window in clean if self.context is not None else ():
            assert isinstance(window, WindowReport)
            by_context.setdefault(self.key(window.opened, window.closed), []).append(window.profile)
        found = {
            key: made for key, each in by_context.items() if (made := _of_context(key, each, baseline)) is not None
        }
        return Normal(baseline, self.context, found)

    @property
    def has_learned(self) -> bool:
        """Whether the baseline was taught by clean windows."""
        known = calibration_of(self.baseline)
        return known is not None and known.learned is not None


def _apart(windows: Sequence[WindowReport | Profile], apart: int) -> list[WindowReport | Profile]:
    """Windows of production's rows alone, that share none."""
    kept: list[WindowReport | Profile] = []
    last: int | None = None
    for window in windows:
        if isinstance(window, WindowReport):
            if window.warm_rows or (last is not None and abs(window.number - last) < apart):
                continue
            last = window.number
        kept.append(window)
    return kept


def _of_context(key: str, windows: list[Profile], baseline: Baseline) -> Baseline | None:
    """The baseline of a context, if enough is known of it; how sure a model has to be is known of the whole one."""
    if len(windows) < FEWEST_WINDOWS or sum(window.n for window in windows) < _ENOUGH_ROWS:
        return None
    try:
        merged = reduce(Profile.merge, windows)
        source = f"{len(windows)} clean windows of {key} UTC" if ":" in key else f"{len(windows)} clean {key}s (UTC)"
        reference = Profile(merged.groups, merged.rows, {**merged.info, "source": source}, merged.segments)
        made = with_clean_windows(reference, windows, inside=True)
    except LensAIError as error:
        log.warning("%s has no baseline of its own, its windows are held against the monitor's: %s", key, error)
        return None
    own, whole = calibration_of(made), calibration_of(baseline)
    if own is None or whole is None:
        return made
    return replace(made, calibration=to_state(replace(own, confidences=whole.confidences)))
