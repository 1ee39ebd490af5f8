"""Alarms per time: a drift that is weak and lasts is found, at a number of false alarms a month that a person chose.

A window alone shows what is large. What is small and lasts shows in many windows together, and since profiles merge,
these are judged as one: beside every window the last 2, 4, 8, ... windows are a span, up to six weeks of them; a span
of 2^k windows ends every 2^(k-1) windows. Only the newest profile of each length is kept, so memory grows with the
logarithm of the time and a window costs two merges and two comparisons more in the mean.

**What is promised**: so many false alarms per time are expected at most, looked at after every window. Each length of
span has an equal share of the allowance, and a comparison may use what its length was given since the comparison
before: `rate * time / lengths` (`level_of_time`). The expected number of false alarms is the sum of these levels,
however the comparisons depend on each other, since expectations add up. That is no martingale over single rows: a
martingale against a baseline of n rows gains on the baseline's own error for ever, so it has to be slowed by a bound
of that error at each row (Shaer, Bar, Prinster, Romano, Testing for distribution shifts with conditional conformal
test martingales, arXiv 2602.13848). Here the error is allowed for once, in the comparison of the whole span.

**Given the baseline**: its error is always the same, and where a span has as many rows as the baseline, half of the
difference is this error. `compare` allows for that (`drift.max_t.shrinkage`): its p-values are to hold for nearly
every baseline, and the more rows a window has the more careful they are. No level is above `MOST`, so that the alarms
of a baseline that is worse than that do not go on for ever either.

**When it is over**: a weak drift that 16 windows together showed is not over since three windows look clean. An alarm
lasts until a span of four times the length that found it is clean, which is more than not rejected (`CLEAN`); what a
single window showed, until a window is. Then all spans begin anew, for the longer ones still hold rows of the drift.

**When it began**: spans of a quarter of the length that found it say how much of the drift each of them has; the start
is taken with which the shares of their windows that lie behind it fit this best (`probable_start`).

Enters: profiles of windows. Leaves: levels, reports, and when it began. Nothing is read or written here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import numpy as np
from scipy.special import ndtri

from lensai_integrations.drift.null import SMALLEST
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import FormatError, InputError, LensAIError
from lensai_integrations.monitoring.events import Since
from lensai_integrations.monitoring.windows import Plan
from lensai_integrations.problems import log
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.storage.checked_json import whole_number

#: Seconds of the times that an allowance can be for; a month has 30 days here.
TIMES: Final = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400, "year": 365 * 86_400}
MONTH: Final = TIMES["month"]
#: No comparison has a larger level.
MOST: Final = 0.01
#: A comparison of several windows waits until its level is at least this.
LEAST: Final = 1e-6
#: The smallest effect that counts as drift unless another is given: 5 rows in 100 that changed are found by a smaller
#: one than the default for single windows.
WEAK: Final = 0.02
#: A drift is over when a span is none at this level: that is a single window, if one found it, and else one of so many
#: lengths more than what found it, since by chance it looks larger then than it is.
CLEAN: Final = 0.2
_LONGER: Final = 2
#: The longest spans: so long, so many windows, and so many times the rows of the baseline, whose own error is then
#: nearly all that is seen.
LONGEST: Final = 42 * 86_400
MOST_LENGTHS: Final = 16
_ENOUGH_ROWS: Final = 16
#: Comparisons of each length that are remembered, to say when it began: those of twice the length four times as long.
_REMEMBERED: Final = 16
#: `compare` takes no rate of 0.
_TINY: Final = 1e-15

_ALLOWANCE = re.compile(r"(\d+(?:\.\d+)?) per (?:(\d+(?:\.\d+)?) )?(hour|day|week|month|year)s?")

#: Holds a profile against the baseline at a false-alarm rate.
Ask = Callable[[Profile, float], DriftReport]


@dataclass(frozen=True)
class Allowance:
    """How many false alarms are expected at most.

    Attributes:
        number: So many,
        seconds: in so long.

    Example:
        >>> allowance("2 per week").a_month
        8.571428571428571
        >>> allowance("once in a while")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: alarms='once in a while' should say how many false alarms ...
    """

    number: float
    seconds: float

    @property
    def rate(self) -> float:
        """Per second."""
        return self.number / self.seconds

    @property
    def a_month(self) -> float:
        """In 30 days."""
        return self.rate * MONTH


def allowance(alarms: Any) -> Allowance:
    """The allowance that a text states, such as `"1 per month"` or `"2 per 30 days"`.

    Raises:
        InputError: If it is no such text, or one of the numbers is 0.
    """
    parts = _ALLOWANCE.fullmatch(alarms) if isinstance(alarms, str) else None
    number, times = (float(parts[1]), float(parts[2] or 1)) if parts else (0.0, 0.0)
    if not parts or not (0 < number < math.inf and 0 < times < math.inf):
        raise InputError(
            f"alarms={alarms!r} should say how many false alarms are expected at most, and in what time: a number and"
            f" a time of {', '.join(TIMES)}, e.g. '1 per month' or '2 per 30 days'"
        )
    return Allowance(number, times * TIMES[parts[3]])


def level_of_time(allowed: Allowance, seconds: float, lengths: int) -> float:
    """The level of a comparison, so long after the last one of its length.

    Example:
        >>> round(level_of_time(allowance("1 per month"), 3 * 86_400, 20), 6)
        0.005
    """
    return min(max(seconds, 0.0) * allowed.rate / lengths, MOST)


def lengths_of(plan: Plan, baseline: int) -> int:
    """How many lengths of spans there are, the single window among them.

    Args:
        plan: Of the windows.
        baseline: Its rows.

    Example:
        >>> from datetime import timedelta
        >>> from lensai_integrations.monitoring.windows import plan_windows
        >>> lengths_of(plan_windows(timedelta(hours=1)), 2000), lengths_of(plan_windows(200), 2000)
        (10, 9)
    """
    size = plan.window * plan.pane
    most = LONGEST * 1e6 / size if plan.by_time else 2 * _ENOUGH_ROWS * baseline / size
    return min(1 + int(math.log2(max(most, 1))), MOST_LENGTHS)


@dataclass(frozen=True)
class Span:
    """Consecutive windows, merged.

    Attributes:
        first: Number of the first window.
        last: Number of the last.
        rows: Of all.
        opened: When the first row came, seconds since 1970.
        closed: When the last did.
        profile: Of all rows.
        file: Where it is kept on disk; empty if it is not.
    """

    first: int
    last: int
    rows: int
    opened: float
    closed: float
    profile: Profile = field(repr=False)
    file: str = ""

    def joined(self, later: Span) -> Span:
        """With the span behind it."""
        rows, profile = self.rows + later.rows, self.profile.merge(later.profile)
        return Span(self.first, later.last, rows, self.opened, later.closed, profile)


@dataclass(frozen=True)
class Seen:
    """A comparison that is remembered: of which windows, when they opened, and how far out it was.

    Attributes:
        first: Number of the first window.
        last: Number of the last.
        opened: Seconds since 1970.
        distance: The p-value as a standard normal number, positive for small ones.
    """

    first: int
    last: int
    opened: float
    distance: float


@dataclass(frozen=True)
class Outcome:
    """What is said of a window.

    Attributes:
        alarm: Whether drift goes on.
        report: Of the span that says most, where one that ends here was rejected; else of the window.
        windows: How many the report is of.
        began: When the drift probably began; None without an alarm.
    """

    alarm: bool
    report: DriftReport
    windows: int = 1
    began: Since | None = None


@dataclass(frozen=True)
class _Compared:
    length: int
    span: Span
    report: DriftReport
    level: float

    @property
    def rejected(self) -> bool:
        return self.level > 0 and self.report.drift

    @property
    def evidence(self) -> float:
        return math.log(max(self.level, _TINY)) - math.log(max(self.report.p_value, SMALLEST))


class Spans:
    """Judges windows one after the other, each together with those before it.

    Args:
        allowed: False alarms.
        lengths: How many lengths of spans there are, see `lengths_of`.
        baseline: Rows of the baseline.
        apart: Windows from one to the next that it shares no rows with; 1 unless they overlap. A span is of those.

    Attributes:
        began: When the drift that goes on probably began; None without one.

    Example:
        >>> Spans(allowance("1 per month"), 8, 2000).began is None
        True
    """

    def __init__(self, allowed: Allowance, lengths: int, baseline: int, apart: int = 1) -> None:
        self.allowed, self._lengths, self._baseline, self._apart = allowed, lengths, baseline, apart
        self.start_over()

    def start_over(self) -> None:
        """Forget everything."""
        self._tested: list[float] = []  # when a span of each length was compared last; empty before the first window
        self._last = 0  # the window that was kept last
        self._length: int | None = None  # of the spans that found the drift that goes on
        self.began: Since | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin all spans anew."""
        self._kept = 0
        self._newest: list[Span | None] = [None] * max(self._lengths - 1, 1)
        self._longest = self._lengths - 1  # of the spans that are made
        self._seen: list[list[Seen]] = [[] for _ in range(self._lengths)]

    def judge(self, window: Span, ask: Ask, *, keep: bool = True) -> Outcome:
        """Judge the spans that end with a window.

        Args:
            window: The next.
            ask: Holds a profile against the baseline.
            keep: Whether later spans may have it; not if some of its rows are no production's.

        Raises:
            LensAIError: If the window cannot be compared; nothing else has changed then.
        """
        tested = self._tested
        if not tested or window.opened - max(tested) > LONGEST:  # a silence, or a clock that was wrong, earns nothing
            tested = [window.opened] * self._lengths
        compared = [self._compared(0, window, tested, ask)]
        self._tested = tested
        kept = keep and window.last - self._last >= self._apart
        spans = self._keep(window) if kept else []
        over = self._over(compared, ask)
        for length, span in spans:
            if over:
                break
            if level_of_time(self.allowed, span.closed - tested[length], self._lengths) >= LEAST:
                try:
                    compared.append(self._compared(length, span, tested, ask))
                    over = self._over(compared, ask)
                except LensAIError as error:  # the window itself is judged
                    log.warning("windows %d to %d cannot be compared as one: %s", span.first, span.last, error)
                    break
        for each in compared if kept else ():
            self._remember(each)
        if over:
            self._end(window, kept)
        return self._outcome(compared, window)

    def _compared(self, length: int, span: Span, tested: list[float], ask: Ask) -> _Compared:
        """Compare a span at the level of the time since the last one of its length."""
        level = level_of_time(self.allowed, span.closed - tested[length], self._lengths)
        compared = _Compared(length, span, ask(span.profile, max(level, _TINY)), level)
        tested[length] = max(tested[length], span.closed)
        return compared

    def _keep(self, window: Span) -> list[tuple[int, Span]]:
        """Keep a window, and make the longer spans that end with it; the shortest first."""
        self._kept, self._last = self._kept + 1, window.last
        newest, spans = window, []
        for length in range(1, self._lengths):
            before, self._newest[length - 1] = self._newest[length - 1], newest
            if before is None:
                break
            if before.rows > _ENOUGH_ROWS * self._baseline:
                self._longest = length - 1
                break
            try:
                joined = before.joined(newest)
            except LensAIError as error:  # a new window is not lost for one before it that does not fit
                log.warning("windows %d to %d begin no longer span: %s", before.first, newest.last, error)
                self._newest[length:] = [None] * len(self._newest[length:])
                break
            spans.append((length, joined))
            if self._kept % 2**length:
                break
            newest = joined
        return spans

    def _over(self, compared: Sequence[_Compared], ask: Ask) -> bool:
        """Whether the drift is over by the span compared last, the shorter ones of the same window considered."""
        newest = compared[-1]
        if self._length is None or any(each.rejected for each in compared):
            return False
        if newest.length != min(self._length + _LONGER if self._length else 0, self._longest):
            return False
        # of a span with more rows than the baseline it is mostly the baseline's own error that is seen
        return not ask(newest.span.profile, CLEAN if newest.span.rows <= self._baseline else MOST).drift

    def _end(self, window: Span, kept: bool) -> None:
        self._length, self.began = None, None
        self._forget()
        if kept and self._lengths > 1:
            self._kept, self._newest[0] = 1, window

    def _remember(self, compared: _Compared) -> None:
        seen = [*self._seen[compared.length], self._as_seen(compared)]
        self._seen[compared.length] = seen[-_REMEMBERED:]

    @staticmethod
    def _as_seen(compared: _Compared) -> Seen:
        span = compared.span
        distance = -float(ndtri(min(max(compared.report.p_value, SMALLEST), 1 - LEAST)))
        return Seen(span.first, span.last, span.opened, distance)

    def _outcome(self, compared: Sequence[_Compared], window: Span) -> Outcome:
        rejected = [each for each in compared if each.rejected]
        if rejected and self._length is None:
            length = rejected[0].length
            seen = self._seen[max(length - 2, 0)]
            if not length and (not seen or seen[-1].last < window.last):  # of windows that overlap not each is kept
                seen = [*seen, self._as_seen(rejected[0])]
            found = seen or [Seen(window.first, window.last, window.opened, 1.0)]
            self.began, self._length = probable_start(found, window), length
        most = max(rejected, key=lambda each: each.evidence, default=compared[0])
        windows = most.span.last - most.span.first + 1
        return Outcome(self._length is not None, most.report, windows, self.began)

    # -- on disk

    def unsaved(self) -> list[Span]:
        """The kept ones that are in no file."""
        return [span for span in self._newest if span is not None and not span.file]

    def settle(self, span: Span, file: str) -> None:
        """Note in which file one is."""
        self._newest = [replace(each, file=file) if each is span else each for each in self._newest]

    @property
    def files(self) -> set[str]:
        """Those that hold kept spans."""
        return {span.file for span in self._newest if span is not None and span.file}

    def state(self) -> dict[str, Any]:
        """Everything but the profiles, as JSON values."""
        newest = [None if s is None else {n: getattr(s, n) for n in (*_COUNTS, *_HOURS, "file")} for s in self._newest]
        began = None if self.began is None else [self.began.window, self.began.time]
        seen = [[[s.first, s.last, s.opened, round(s.distance, 3)] for s in some] for some in self._seen]
        place = {"tested": self._tested, "last": self._last, "kept": self._kept, "length": self._length}
        return {**place, "began": began, "newest": newest, "seen": seen}

    def restore(self, state: Mapping[str, Any], load: Callable[[Any], Profile]) -> None:
        """Go on with what `state` returned.

        Args:
            state: As read from JSON.
            load: The profile of a file.

        Raises:
            FormatError: If it is something else; nothing has changed then.
            OSError: If a file cannot be read.
        """
        try:
            tested, length, began = list(map(_number, state["tested"])), state["length"], state["began"]
            last, kept = whole_number(state["last"]), whole_number(state["kept"])
            length = None if length is None else whole_number(length)
            start = None if began is None else Since(_number(began[1]), whole_number(began[0]), probable=True)
            newest = [None if each is None else _span(each, load) for each in state["newest"]]
            seen = [
                [Seen(whole_number(f), whole_number(t), _number(o), _number(d)) for f, t, o, d in some]
                for some in state["seen"]
            ]
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(f"the spans of windows cannot be read: {error!r}") from error
        fits = len(newest) == len(self._newest) and len(seen) == self._lengths and (length or 0) < self._lengths
        if not fits or len(tested) not in (0, self._lengths) or (length is None) != (start is None):
            raise FormatError("the spans of windows are not those of this monitor")
        self._tested, self._last, self._kept, self._length, self.began = tested, last, kept, length, start
        self._newest, self._seen = newest, [some[-_REMEMBERED:] for some in seen]


_COUNTS: Final = ("first", "last", "rows")
_HOURS: Final = ("opened", "closed")


def _span(entry: Mapping[str, Any], load: Callable[[Any], Profile]) -> Span:
    first, last, rows = (whole_number(entry[name]) for name in _COUNTS)
    opened, closed = (_number(entry[name]) for name in _HOURS)
    return Span(first, last, rows, opened, closed, load(entry["file"]), str(entry["file"]))


def _seen(first: Any, last: Any, opened: Any, distance: Any) -> Seen:
    return Seen(whole_number(first), whole_number(last), _number(opened), _number(distance))


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise FormatError(f"{value!r} is no number")
    return float(value)


def probable_start(seen: Sequence[Seen], window: Span) -> Since:
    """The window with which a drift that still goes on probably began.

    A span that a drift has in a share o of its windows lies about o times as far out as one that it has in all. So the
    start is where the distances and these shares agree most: the largest sum of d o / sqrt(sum of o^2).

    Args:
        seen: Spans of one length, oldest first.
        window: The last window.

    Example:
        >>> hours = [Seen(n, n, 3600.0 * n, d) for n, d in enumerate([0.3, -0.5, 0.1, 2.0, 2.6, 1.7])]
        >>> probable_start(hours, Span(5, 5, 50, 18000.0, 21600.0, Profile()))
        Since(time=10800.0, window=3, probable=True)
    """
    first, last, opened, distance = (np.array([getattr(s, n) for s in seen]) for n in asdict(seen[0]))
    starts = np.arange(first.min(), window.last + 1)
    shares = np.clip((last - starts[:, None] + 1) / (last - first + 1), 0, 1)
    fit = shares @ distance / np.sqrt(np.maximum((shares**2).sum(axis=1), LEAST))
    best = int(starts[np.argmax(fit)])
    return Since(float(np.interp(best, [*first, window.last], [*opened, window.opened])), best, probable=True)
