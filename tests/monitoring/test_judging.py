"""Levels and notices: told once when it gets worse, once when it is over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations.errors import InputError
from lensai_integrations.monitoring import judging
from lensai_integrations.monitoring.judging import ALARM, LEVELS, OK, WARNING, Alert, Rates, level_of, step


def told(found, **settings):
    alert, kinds = Alert(), []
    for level in found:
        alert, kind = step(alert, {"o": OK, "w": WARNING, "a": ALARM}[level], **settings)
        kinds.append(kind)
    return kinds


@pytest.mark.parametrize(
    ("found", "settings", "expected"),
    [
        ("oooo", {}, [None] * 4),
        ("owwaaaw", {}, [None, "warning", None, "alarm", None, None, None]),
        ("aooo", {}, ["alarm", None, None, "recovery"]),
        ("aooaooo", {}, ["alarm", None, None, None, None, None, "recovery"]),
        ("aoao", {"recover": 1}, ["alarm", "recovery", "alarm", "recovery"]),
        ("aaaaaa", {"remind": 2}, ["alarm", None, "reminder", None, "reminder", None]),
        ("aowww", {"remind": 2}, ["alarm", None, "reminder", None, "reminder"]),
        ("ooo", {"remind": 1}, [None] * 3),
        ("awooo", {"recover": 2}, ["alarm", None, None, "recovery", None]),
    ],
)
def test_notices(found, settings, expected):
    assert told(found, **settings) == expected


@given(st.lists(st.sampled_from("owa"), max_size=60), st.integers(1, 5))
def test_rises_and_recoveries_alternate(found, recover):
    kinds = [kind for kind in told(found, recover=recover) if kind]
    worst = 0
    for kind in kinds:
        if kind == "recovery":
            assert worst > 0
            worst = 0
        else:
            assert LEVELS.index(kind) > worst  # never the same twice, never a milder one
            worst = LEVELS.index(kind)


class Said:
    def __init__(self, drift):
        self.drift = drift


@pytest.mark.parametrize(
    ("p", "rates", "level", "rate", "calls"),
    [
        (0.5, (0.05, 0.01), OK, 0.05, 1),
        (0.03, (0.05, 0.01), WARNING, 0.05, 2),
        (0.001, (0.05, 0.01), ALARM, 0.01, 2),
        (0.03, (None, 0.01), OK, 0.01, 1),
        (0.001, (None, 0.01), ALARM, 0.01, 1),
        (0.03, (0.05, 0.05), ALARM, 0.05, 1),
    ],
)
def test_the_level_is_that_of_the_smallest_rate_at_which_it_drifts(monkeypatch, p, rates, level, rate, calls):
    asked = []

    def compare(baseline, window, *, false_alarm_rate, **options):
        assert options == {"min_effect": 0.2}
        asked.append(false_alarm_rate)
        said = Said(p < false_alarm_rate)
        said.rate = false_alarm_rate
        return said

    monkeypatch.setattr(judging, "compare", compare)
    found, report = level_of(None, None, Rates(*rates, (("min_effect", 0.2),)))
    assert (found, report.rate, len(asked)) == (level, rate, calls)


@pytest.mark.parametrize("rates", [(0.01, 0.05), (0.0, 0.01), (0.05, 1.0), (True, 0.01), ("5%", 0.01), (0.05, None)])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(InputError, match="false-alarm rate"):
        Rates(*rates)
