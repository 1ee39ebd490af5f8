"""Alarms per time: what is allowed is never exceeded, what is weak and lasts is found, and it is said when it began."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monitors import Clock, mean_of, numbers, small_baseline
from scipy.special import ndtr, ndtri

from lensai_integrations import DriftMonitor
from lensai_integrations.drift.result import DriftReport, GroupDrift, StreamDrift
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.monitoring import judging
from lensai_integrations.monitoring.alarms import (
    MONTH,
    MOST,
    Seen,
    Span,
    Spans,
    allowance,
    lengths_of,
    level_of_time,
    probable_start,
)
from lensai_integrations.monitoring.state import HEAD
from lensai_integrations.monitoring.windows import plan_windows
from lensai_integrations.profiles.profile import Profile

HOUR, ROWS, N = 3600.0, 50, 20_000
MONTHLY = allowance("1 per month")


@pytest.mark.parametrize(
    ("text", "number", "seconds"),
    [
        ("1 per month", 1, MONTH),
        ("2 per week", 2, 7 * 86_400),
        ("1 per 30 days", 1, MONTH),
        ("0.5 per day", 0.5, 86_400),
        ("3 per 2.5 hours", 3, 9000),
        ("1 per 2 years", 1, 2 * 365 * 86_400),
    ],
)
def test_an_allowance_is_a_number_and_a_time(text, number, seconds):
    found = allowance(text)
    assert (found.number, found.seconds) == (number, pytest.approx(seconds))


@pytest.mark.parametrize(
    "wrong",
    ["", "often", "1", "1 per", "one per month", "0 per month", "1 per 0 days", "-1 per day", "1e9 per day", "1/month",
     "1 per month ", " 1 per month", "1 per fortnight", "1 per  day", "nan per day", 1, 0.01, True, ("1 per month",)],
)  # fmt: skip
def test_anything_else_is_refused_in_one_way(wrong):
    with pytest.raises(InputError, match=re.escape(f"alarms={wrong!r} should say how many false alarms")):
        allowance(wrong)


def _quantile(p):
    return float(ndtri(p))


# -- spans of made-up windows: a profile is the sum of standard normal numbers, a report their p-value


@dataclass(frozen=True)
class Sum:
    total: float
    count: int = 1

    def merge(self, later):
        return Sum(self.total + later.total, self.count + later.count)


@dataclass
class Asked:
    """Answers as `compare`, and keeps all levels."""

    rates: list = field(default_factory=list)

    def __call__(self, profile, rate):
        p = 2 * ndtr(-abs(profile.total) / profile.count**0.5)
        self.rates.append(rate)
        return SimpleNamespace(p_value=float(p), drift=p < rate, false_alarm_rate=rate)


def window(number, total=0.0, *, hours=None, rows=ROWS):
    at = HOUR * (number if hours is None else hours)
    return Span(number, number, rows, at - HOUR, at, Sum(total))


def judged(spans, totals, first=1):
    ask = Asked()
    return [spans.judge(window(first + i, total), ask) for i, total in enumerate(totals)], ask


def noise(count, seed=0):
    return np.random.default_rng(seed).normal(size=count)


@given(st.lists(st.floats(0, 500), min_size=1, max_size=200), st.integers(1, 12), st.sampled_from("hdw"))
def test_all_levels_together_are_at_most_what_is_allowed(gaps, lengths, unit):
    allowed, ask = allowance({"h": "1 per hour", "d": "3 per day", "w": "2 per week"}[unit]), Asked()
    spans, now = Spans(allowed, lengths, N), 0.0
    for number, gap in enumerate(gaps, start=1):
        now += gap
        spans.judge(window(number, hours=now), ask)
    passed = HOUR * (now - gaps[0] + 1)  # since the first window opened
    assert sum(ask.rates) <= allowed.rate * passed * (1 + 1e-9) + 1e-14 * len(ask.rates)
    assert max(ask.rates) <= MOST


def test_a_clock_that_goes_back_allows_nothing():
    ask, spans = Asked(), Spans(MONTHLY, 3, N)
    spans.judge(window(1, hours=100), ask)
    for number in range(2, 50):
        assert not spans.judge(window(number, total=9.0, hours=50), ask).alarm
    assert level_of_time(MONTHLY, -1.0, 3) == 0


def test_a_silence_of_years_earns_no_larger_levels():
    ask, spans = Asked(), Spans(MONTHLY, 3, N)
    for number in range(1, 5):  # a first window of 1970, as of a device without a clock, and then today's
        spans.judge(window(number, hours=1 if number == 1 else 500_000 + number), ask)
    assert max(ask.rates) <= level_of_time(MONTHLY, 4 * HOUR, 3)


def test_false_alarms_of_clean_years_are_those_allowed():
    alarms = hours = 0
    for seed in range(4):
        outcomes, _ = judged(Spans(allowance("1 per week"), 8, 10**7), noise(2000, seed))
        found = [outcome.alarm for outcome in outcomes]
        alarms += sum(after and not before for before, after in zip([False, *found], found, strict=False))
        hours += len(found)
    assert 0 < alarms <= 1.3 * hours / (7 * 24)


def test_a_weak_drift_that_lasts_is_found_where_no_window_shows_it():
    totals = noise(600, seed=1) + np.where(np.arange(600) >= 300, 0.8, 0.0)
    levels = np.array([level_of_time(MONTHLY, HOUR, 10)] * 600)
    assert not np.any(2 * ndtr(-np.abs(totals)) < levels)  # as single windows
    outcomes, _ = judged(Spans(MONTHLY, 10, N), totals)
    first = next(i for i, outcome in enumerate(outcomes) if outcome.alarm)
    assert 300 < first < 420
    assert outcomes[first].windows >= 8
    assert all(outcome.alarm for outcome in outcomes[first:])  # it does not recover while it lasts
    assert abs(outcomes[first].began.window - 301) <= 8
    assert outcomes[first].began.time == pytest.approx(HOUR * (outcomes[first].began.window - 1))


def test_the_start_is_found_within_a_few_windows():
    off = []
    for seed in range(30):
        totals = noise(400, seed) + np.where(np.arange(400) >= 200, 2.5, 0.0)
        outcomes, _ = judged(Spans(MONTHLY, 10, N), totals)
        first = next(o for o in outcomes[200:] if o.alarm)
        off.append(first.began.window - 201)
    assert abs(np.median(off)) <= 1
    assert np.quantile(np.abs(off), 0.9) <= 4


def test_it_is_over_when_a_span_of_its_length_is_clean():
    strong = [*noise(50), *(noise(100) + 12), *noise(50)]
    alarms = [outcome.alarm for outcome in judged(Spans(MONTHLY, 10, N), strong)[0]]
    assert alarms == [False] * 50 + [True] * 100 + [False] * 50  # at once, though longer spans still hold it
    weak = [*noise(100, 3), *(noise(200, 4) + 1.0), *noise(200, 5)]
    found = [outcome.alarm for outcome in judged(Spans(MONTHLY, 10, N), weak)[0]]
    assert all(found[200:300])
    assert not any(found[400:])


def test_it_is_over_also_where_longer_spans_are_not_made():
    """Of windows with so many rows that a few of them are all that the baseline can be held against."""
    totals = [*noise(100, 3), *(noise(100, 4) + 2.0), *noise(200, 5)]
    found = [outcome.alarm for outcome in judged(Spans(MONTHLY, 10, ROWS // 10), totals)[0]]
    assert any(found[100:200])
    assert not any(found[300:])


@pytest.mark.parametrize("key", ["tested", "seen"])
def test_numbers_that_are_too_large_are_refused(key):
    spans = Spans(MONTHLY, 2, N)
    wrong = {"tested": [10**400, 0.0], "seen": [[[-(10**10), 1, 0.0, 0.0]], []]}[key]
    with pytest.raises(FormatError):
        spans.restore({**spans.state(), key: wrong}, lambda file: Profile())


def test_windows_that_overlap_or_are_the_baselines_are_in_no_span():
    ask = Asked()
    spans = Spans(MONTHLY, 6, N, apart=4)
    for number in range(1, 41):
        spans.judge(window(number), ask, keep=number > 8)
    first_of = {span["first"] for span in spans.state()["newest"] if span}
    assert all((first - 9) % 4 == 0 and first > 8 for first in first_of)


def test_longer_spans_are_not_kept_than_the_baseline_can_judge():
    ask, spans = Asked(), Spans(MONTHLY, 10, 20)  # 20 rows against windows of 50
    for number in range(1, 200):
        spans.judge(window(number), ask)
    assert max(span["rows"] for span in spans.state()["newest"] if span) <= 2 * 16 * 20


def test_spans_that_do_not_merge_cost_no_window(caplog):
    class Unlike(Sum):
        def merge(self, later):
            raise InputError("other widths")

    spans, ask = Spans(MONTHLY, 5, N), Asked()
    for number in range(1, 5):
        made = Span(number, number, ROWS, HOUR * number, HOUR * (number + 1), Unlike(0.0))
        assert not spans.judge(made, ask).alarm
    assert "other widths" in caplog.text


@pytest.mark.parametrize("length", [1, 4, 16])
def test_the_probable_start_of_what_is_known_exactly(length):
    step = max(length // 2, 1)
    firsts = range(1, 10 * length, step)
    seen = [Seen(f, f + length - 1, HOUR * f, 3 * min(max((f + length - 40) / length, 0), 1)) for f in firsts]
    seen = (
        [s for s in seen if s.last <= 60]
        if length > 1
        else [Seen(f, f, HOUR * f, 3.0 * (f >= 40)) for f in range(1, 60)]
    )
    last = window(seen[-1].last)
    found = probable_start(seen, Span(last.first, last.last, 50, HOUR * last.first, HOUR * last.first, Profile()))
    assert abs(found.window - 40) <= 1
    assert found.time == pytest.approx(HOUR * found.window)


# -- in a monitor


def by_sums(monkeypatch):
    """Reports by the mean of the first number, as a z-test."""

    def compared(_, profile, *, false_alarm_rate, **options):
        n = profile.groups["outputs"].n
        p = float(2 * ndtr(-abs(mean_of(profile)) * n**0.5))
        moved = p < false_alarm_rate
        stream = StreamDrift("outputs/0", "numbers", "x@1", moved, 0.5, p, p)
        groups = (GroupDrift("outputs", 400, n, 0, 0, (stream,)),)
        return DriftReport(false_alarm_rate, 0.1, 1, "validation", "production", 400, n, groups)

    monkeypatch.setattr(judging, "compare", compared)


BASELINE = small_baseline()


def monitored(clock, shifts, folder=None, heard=None, restart=(), **settings):
    notices = [] if heard is None else heard
    settings = {"clock": clock, "state": folder, "sinks": [notices.append], **settings}

    def made():
        return DriftMonitor(BASELINE, timedelta(hours=1), alarms="1 per month", **settings)

    monitor, found = made(), []
    for number, shift in enumerate(shifts):
        if number in restart:
            monitor.close()
            monitor = made()
        clock.now += 3600
        found += monitor.update(outputs=numbers(4, shift=shift, seed=number))
    return monitor, found


def test_status_report_and_notice_say_when_it_began_and_what_to_expect(monkeypatch):
    by_sums(monkeypatch)
    heard = []
    monitor, found = monitored(Clock(), [0] * 40 + [1.0] * 40 + [0] * 40, heard=heard)
    levels = [report.level for report in found]
    first = levels.index("alarm")
    report = found[first]
    assert 40 <= first < 60
    assert report.windows > 1
    assert report.since.probable
    assert abs(report.since.window - 41) <= 3
    assert report.report.n_window == 4 * report.windows
    assert report.to_dict()["since"] == asdict(report.since)
    assert monitor.status.false_alarms_a_month == pytest.approx(1)
    assert monitor.status.since is None  # it is over
    alarm, recovery = (event.text for event in heard)
    assert f"with the {report.windows - 1} before it" in alarm
    assert f"It probably began with window {report.since.window} (20" in alarm
    assert alarm.endswith("By chance alone there is at most 1 alarm a month.")
    assert "recovered from alarm" in recovery
    assert heard[0].status["since"] == asdict(report.since)
    json.dumps(monitor.status.to_dict())


def test_rates_per_window_say_what_to_expect_as_windows_came(monkeypatch):
    clock, heard = Clock(), []
    monkeypatch.setattr(judging, "level_of", lambda *_: ("alarm", DriftReport(0.01, 0.1, 0, "a", "b", 400, 4)))
    monitor = DriftMonitor(BASELINE, 4, clock=clock, sinks=[lambda event: heard.append(event.text)])
    monitor.update(outputs=numbers(4))
    assert monitor.status.false_alarms_a_month is None
    for _ in range(24 * 10):
        clock.now += 3600
        monitor.update(outputs=numbers(4))
    assert monitor.status.false_alarms_a_month == pytest.approx(0.01 * 720, rel=0.01)
    assert monitor.status.since.window == 1
    assert not monitor.status.since.probable


@pytest.mark.parametrize("cut", [9, 22])
def test_a_restart_changes_nothing(monkeypatch, tmp_path, cut):
    by_sums(monkeypatch)
    shifts = [0] * 12 + [1.3] * 14 + [0] * 12
    whole, windows = monitored(Clock(), shifts)
    again, cut_windows = monitored(Clock(), shifts, folder=tmp_path, restart=[cut])
    said = [[(w.number, w.level, w.windows, w.since) for w in found] for found in (windows, cut_windows)]
    assert said[0] == said[1]
    assert again.status.alarms == whole.status.alarms > 0
    assert len(list(tmp_path.glob("*.npz"))) <= 2 + 10  # no file is left behind


def test_an_old_state_and_one_that_is_damaged_are_gone_on_with(monkeypatch, tmp_path, caplog):
    by_sums(monkeypatch)
    clock = Clock()
    monitored(clock, [0] * 9, folder=tmp_path)[0].close()
    kept = json.loads((tmp_path / HEAD).read_text())
    assert sum(span is not None for span in kept["spans"]["newest"]) == 4
    for spans in (None, kept["spans"] | {"tested": [1.0]}, kept["spans"] | {"newest": [{"file": "../x"}]}, {}):
        head = {**kept, "spans": spans}
        if spans is None:
            del head["spans"]
        (tmp_path / HEAD).write_text(json.dumps(head))
        caplog.clear()
        monitor, found = monitored(clock, [0] * 2, folder=tmp_path)
        monitor.close()
        assert monitor.status.restarts == 1
        assert [report.level for report in found] == ["ok"] * len(found)
        assert ("cannot be read" in caplog.text) == (spans is not None)


def test_a_state_that_is_not_a_monitors_is_refused_whole():
    spans = Spans(MONTHLY, 4, N)
    before = spans.state()
    for wrong in ({}, {**before, "tested": [float("nan")] * 4}, {**before, "length": 9}, {**before, "began": [1]}):
        with pytest.raises(FormatError):
            spans.restore(wrong, lambda file: Profile())
        assert spans.state() == before


@pytest.mark.parametrize("given_too", [{"alarm": 0.001}, {"warn": 0.1}])
def test_rates_per_window_and_per_time_are_not_both_given(given_too):
    with pytest.raises(InputError, match="pass one or the other"):
        DriftMonitor(BASELINE, alarms="1 per month", **given_too)


def test_lengths_end_at_six_weeks_and_where_the_baseline_is_all_that_is_seen():
    assert lengths_of(plan_windows(timedelta(weeks=8)), 2000) == 1
    assert lengths_of(plan_windows(timedelta(days=1)), 2000) == 6
    assert lengths_of(plan_windows(1000), 2000) == 7
    assert lengths_of(plan_windows(10**6), 2000) == 1
    assert lengths_of(plan_windows(timedelta(seconds=1)), 2000) == 16
