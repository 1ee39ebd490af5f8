"""Many windows held against one baseline: which of them drift, so that few of those that are reported are false.

Of a thousand cameras ten have a window below 1% by chance every hour, and who is told of ten false ones looks at none.
So what is held here is not the chance of a false alarm of each window but the share of false ones among those that are
reported (e-BH). That asks for more evidence of a window, the more windows there are and the fewer of them drift, and
it holds although all of them share one baseline: a baseline that is off is off for all of them at once, which rules
for independent p-values do not know.

The segments of one report are not judged so: the rate of a report is the chance of any false alarm in it, and of its
few segments one that moved should be seen at as little evidence as that rate allows.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lensai_integrations.drift.compare import compare
from lensai_integrations.drift.null import SMALLEST
from lensai_integrations.drift.result import DriftReport, p_value_of_report
from lensai_integrations.drift.significance import e_bh, log_e_value
from lensai_integrations.drift.text import percent
from lensai_integrations.errors import InputError, LensAIError
from lensai_integrations.profiles.profile import Baseline, Profile

#: The share of false ones among those reported, where nothing else is asked for.
FALSE_SHARE: Final = 0.05
#: Windows listed in text that are not reported.
_LISTED: Final = 10
#: Characters of a window's name in text.
_NAME: Final = 32


@dataclass(frozen=True)
class FleetWindow:
    """One window of many.

    Attributes:
        name: What it was called.
        drift: Whether it is reported as drifting; `report.drift` is the verdict on it alone.
        log_e: Natural logarithm of its e-value, the evidence that it drifts: at most 1 on average where nothing moved.
        report: What `compare` says of it.
    """

    name: str
    drift: bool
    log_e: float
    report: DriftReport


@dataclass(frozen=True)
class FleetReport:
    """What `compare_many` returns.

    Attributes:
        false_share: Of the windows that are reported at most this share is false on average.
        windows: All, the one with the most evidence first.

    Example:
        >>> FleetReport(0.05).drift
        False
    """

    false_share: float
    windows: tuple[FleetWindow, ...] = ()

    @property
    def drift(self) -> bool:
        """Whether a window is reported."""
        return bool(self.drifting)

    @property
    def drifting(self) -> tuple[str, ...]:
        """Names of the windows that are reported, the one with the most evidence first."""
        return tuple(window.name for window in self.windows if window.drift)

    def to_text(self, width: int = 100) -> str:
        """The report as plain text, no line wider than `width` characters (60 at the least)."""
        return "\n".join(line.rstrip() for line in _lines(self, max(width, 60))) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values; each window's own report as `DriftReport.to_dict` gives it."""
        windows = [
            {"name": window.name, "drift": window.drift, "log_e": window.log_e, "report": window.report.to_dict()}
            for window in self.windows
        ]
        return {
            "drift": self.drift,
            "false_share": self.false_share,
            "drifting": list(self.drifting),
            "windows": windows,
        }

    def to_json(self, indent: int | None = 2) -> str:
        """`to_dict` as JSON text; the same profiles always give the same text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False, ensure_ascii=False)


def compare_many(
    baseline: Baseline | Profile,
    windows: Mapping[str, Profile],
    *,
    false_share: float = FALSE_SHARE,
    false_alarm_rate: float = 0.01,
    min_effect: float = 0.05,
    against: str = "reference",
) -> FleetReport:
    """Say which of many windows drift: of cameras, of sites, of days.

    Each window is compared as `compare` does it. Its p-value becomes an e-value, and reported are those that the e-BH
    procedure rejects (R. Wang and A. Ramdas, False discovery rate control with e-values, 2022): of them at most
    `false_share` are false on average, however the windows depend on each other.

    Args:
        baseline: What to hold the windows against.
        windows: Profiles by name, one of each camera or site; one at least.
        false_share: Share of false ones among those reported, on average; more than 0, less than 1.
        false_alarm_rate: Of each window's own report, as for `compare`; it does not change which are reported.
        min_effect: Smaller effects are no drift and no evidence, as for `compare`.
        against: As for `compare`.

    Raises:
        InputError: If an argument is out of range or there is no window, or a window cannot be compared.
        DefinitionError: If a stream was measured differently on the two sides.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> def profile(values):
        ...     profiler = Profiler()
        ...     profiler.update(outputs=values)
        ...     return profiler.profile()
        >>> rng = np.random.default_rng(0)
        >>> windows = {f"camera {i}": profile(rng.normal(size=(200, 3)) * (1 + (i == 1))) for i in range(4)}
        >>> fleet = compare_many(profile(rng.normal(size=(500, 3))), windows)
        >>> fleet.drifting, fleet.windows[0].name
        (('camera 1',), 'camera 1')
    """
    if not 0 < false_share < 1:
        raise InputError(
            f"false_share={false_share!r} is the share of false ones among those reported: "
            "pass a number between 0 and 1, e.g. 0.05"
        )
    if not isinstance(windows, Mapping) or not windows:
        raise InputError(f"windows={type(windows).__name__} holds no window: pass profiles by name, one at least")
    how: dict[str, Any] = {"false_alarm_rate": false_alarm_rate, "min_effect": min_effect, "against": against}
    reports = {name: _compared(baseline, name, window, how) for name, window in windows.items()}
    p_values = [max(p_value_of_report(report), SMALLEST) for report in reports.values()]
    log_e = log_e_value([math.log(p) for p in p_values])
    reported = e_bh(log_e, false_share)
    found = [
        FleetWindow(name, bool(drift), float(e), report)
        for (name, report), e, drift in zip(reports.items(), log_e, reported, strict=True)
    ]
    return FleetReport(false_share, tuple(sorted(found, key=lambda window: (-window.log_e, window.name))))


def _compared(baseline: Baseline | Profile, name: str, window: Profile, how: Mapping[str, Any]) -> DriftReport:
    try:
        return compare(baseline, window, **how)
    except LensAIError as error:
        raise type(error)(f"window {name!r}: {error}") from error


def share_words(false_share: float) -> str:
    """What is promised of those reported, in words.

    Example:
        >>> share_words(0.05)
        'of those reported at most 5% are false on average'
    """
    return f"of those reported at most {percent(false_share)} are false on average"


def e_text(log_e: float) -> str:
    """An e-value as people write it.

    Example:
        >>> e_text(math.log(0.5)), e_text(math.log(4.43)), e_text(math.log(5239)), e_text(600.0)
        ('below 1', '4.4', '5,239', '1e260')
    """
    if log_e < 0:
        return "below 1"
    if log_e < math.log(1e5):
        e = math.exp(log_e)
        return f"{e:.1f}" if e < 9.95 else f"{e:,.0f}"
    return f"1e{int(log_e / math.log(10))}"


def _lines(fleet: FleetReport, width: int) -> Iterator[str]:
    """The verdict, then a line or two per window: all that are reported, and those that come next."""
    total, drifting = len(fleet.windows), len(fleet.drifting)
    verdict = f"{drifting:,} of {total:,} windows drift" if drifting else f"None of {total:,} windows drifts"
    yield from textwrap.wrap(
        f"{'DRIFT' if drifting else 'NO DRIFT'}: {verdict}; {share_words(fleet.false_share)}.", width
    )
    alone = sum(window.report.drift and not window.drift for window in fleet.windows)
    if alone:
        rate = fleet.windows[0].report.false_alarm_rate
        yield from textwrap.wrap(
            f"{alone:,} more would be called drift alone, at {percent(rate)} each: among {total:,} windows that is "
            "too little evidence.", width,
        )  # fmt: skip
    listed = fleet.windows[: drifting + _LISTED]
    names = [_short(window.name) for window in listed]
    wide = max(map(len, names), default=0)
    for start, end, title in ((0, drifting, "Reported"), (drifting, len(listed), "Not reported")):
        if start < end:
            yield from ("", f"{title}, the most evidence first:")
            yield from _listing(listed[start:end], names[start:end], wide, width)
    if total > len(listed):
        yield f"    ... and {total - len(listed):,} more with less evidence"


def _listing(windows: Sequence[FleetWindow], names: Sequence[str], wide: int, width: int) -> Iterator[str]:
    for window, name in zip(windows, names, strict=True):
        first = f"  {'*' if window.drift else ' '} {name.ljust(wide)}  "
        text = f"evidence {e_text(window.log_e)}, {window.report.n_window:,} rows: {_worst(window)}"
        yield from textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * min(len(first), 8))


def _worst(window: FleetWindow) -> str:
    """What moved most, or as a whole."""
    moved, report = window.report.moved, window.report
    if moved:
        more = f", and {len(moved) - 1} more" if len(moved) > 1 else ""
        return f"{moved[0].title} {moved[0].words}{more}"
    whole = [group.name for group in report.groups if group.vectors is not None and group.vectors.drift]
    segments = [segment.title or segment.name for segment in report.segments if segment.drift]
    named = [f"{', '.join(whole)} as a whole"] * bool(whole) + [f"segment {', '.join(segments)}"] * bool(segments)
    return "; ".join(named) or "no stream moved"


def _short(name: str) -> str:
    text = " ".join(name.split())
    return text if len(text) <= _NAME else ".." + text[2 - _NAME :]
