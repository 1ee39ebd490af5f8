"""The charts: every hour at its place, drift in colour and form, gaps where nothing came."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensors import HOSTILE, NOW, THIS_HOUR, make_hours

from lensai_integrations.server.pages import HourSpan, days, effect_svg, in_words, last_week, span_of
from lensai_integrations.server.records import DAY, HOUR, HourDrift

DAYLONG = HourSpan(THIS_HOUR - 23 * HOUR, THIS_HOUR + HOUR)


def drawn(svg: str) -> dict[str, list[tuple[int, int, float]]]:
    """First unit, last unit and top, from 0 to 1, of every step below the flags; flags under `flags`."""
    found: dict[str, list[tuple[int, int, float]]] = {}
    root = ET.fromstring(svg)
    tall = int(root.attrib["viewBox"].split()[3])
    for path in root.iter("path"):
        for part in path.attrib["d"].split("M")[1:]:
            x = int(part.split()[0])
            if part.endswith("z"):
                found.setdefault("flags", []).append((x, x + int(re.search(r"h(\d+)", part)[1]), 0))
                continue
            for level, wide in re.findall(r"V(\d+)h(\d+)", part):
                found.setdefault(path.attrib["class"], []).append((x, x + int(wide), (tall - int(level)) / tall))
                x += int(wide)
    return found


def test_an_hour_is_a_unit_and_a_gap_is_empty():
    found = drawn(effect_svg(make_hours("door", "gg..dd.fw"), DAYLONG, "door"))
    assert [entry[:2] for entry in found["s0"]] == [(15, 17)]
    assert [entry[:2] for entry in found["moved"]] == [(19, 21)]
    assert [entry[:2] for entry in found["flags"]] == [(19, 21)]
    assert [entry[:2] for entry in found["failed"]] == [(22, 23)]
    assert [entry[:2] for entry in found["waiting"]] == [(23, 24)]


@pytest.mark.parametrize(("effect", "share"), [(0.0, 8 / 152), (0.5, 60 / 152), (1.0, 120 / 152), (7.0, 120 / 152)])
def test_heights_are_effects_below_the_flags(effect, share):
    hour = HourDrift("door", THIS_HOUR, 1, 10, drift=False, effect=effect)
    assert drawn(effect_svg([hour], DAYLONG, "door", 38))["s0"][0][2] == pytest.approx(share)


def test_a_drift_without_an_effect_still_has_a_flag():
    hour = HourDrift("door", THIS_HOUR, 1, 10, drift=True)
    assert "flags" in drawn(effect_svg([hour], DAYLONG, "door"))


def test_hours_outside_are_left_out():
    outside = [HourDrift("door", at, 1, 10, drift=True, effect=1.0) for at in (0, THIS_HOUR + HOUR, 2**40 * HOUR)]
    assert drawn(effect_svg(outside, DAYLONG, "door")) == {}


@given(st.text(alphabet="gdfw.", min_size=1, max_size=168))
def test_every_hour_is_drawn_once(kinds):
    hours = make_hours("door", kinds)
    found = drawn(effect_svg(hours, last_week(NOW), "door"))
    places = [place for key, runs in found.items() if key != "flags" for a, b, _ in runs for place in range(a, b)]
    assert sorted(places) == [(hour.hour - last_week(NOW).start) // HOUR for hour in hours]


def test_a_week_is_small_and_says_what_is_seen():
    hours = make_hours("door", "gd" * 84)
    svg = effect_svg(hours, last_week(NOW), in_words("door", hours, last_week(NOW)))
    assert len(svg) < 6000
    assert "door: 84 of 168 judged hours drifted; the largest effect is 0.50" in svg


def test_titles_are_escaped():
    hours = make_hours("door", "g")
    svg = effect_svg(hours, DAYLONG, HOSTILE, captions=[HOSTILE])
    assert "<script" not in svg
    assert [title.text for title in ET.fromstring(svg).iter("title")] == [HOSTILE] * 2


def test_the_axis_spans_a_week_at_least_and_a_month_at_most():
    assert span_of([], NOW) == last_week(NOW)
    assert span_of(make_hours("door", "g"), NOW) == last_week(NOW)
    ten_days = span_of(make_hours("door", "g" * 240), NOW)
    assert (ten_days.hours, ten_days.end) == (240, last_week(NOW).end)
    assert span_of([*make_hours("door", "g", end=0), *make_hours("door", "g")], NOW).hours == 31 * 24


def test_a_sensor_that_stopped_long_ago_is_shown_as_it_was():
    old = THIS_HOUR - 100 * DAY
    assert span_of(make_hours("door", "gg", end=old), NOW) == HourSpan(old + HOUR - 7 * DAY, old + HOUR)


def test_a_clock_far_ahead_does_not_stretch_the_axis():
    hours = [*make_hours("door", "gg"), HourDrift("door", THIS_HOUR + 400 * DAY, 1, 10)]
    assert span_of(hours, NOW) == last_week(NOW)


def test_dates_stand_at_midnights():
    labels = days(last_week(NOW))
    assert [label.text for label in labels] == [f"{day} Nov" for day in range(15, 22)]
    assert all(0 <= label.left < 100 for label in labels)
    assert len(days(HourSpan(THIS_HOUR - 31 * DAY, THIS_HOUR))) <= 8


def test_no_date_stands_over_the_edge():
    midnight = THIS_HOUR - THIS_HOUR % DAY
    assert [label.text for label in days(HourSpan(midnight - DAY, midnight + HOUR))] == ["20 Nov", ""]
