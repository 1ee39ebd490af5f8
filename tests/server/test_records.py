"""How sensors stand: the newest verdict, silence by their own habits, clocks that are wrong.

Times in words, for any number a device may send.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensors import NOW, THIS_HOUR, make_sensor

from lensai_integrations.server.records import DAY, HOUR, Evidence, ago, duration, look_first, standing, usual_gap, utc


@pytest.mark.parametrize(
    ("kinds", "verdict", "age"),
    [("gd", "drift", 0), ("dg", "good", 0), ("dw", "drift", 1), ("df", "failed", 0), ("ww", "waiting", None)],
)
def test_the_newest_hour_with_a_verdict_counts(kinds, verdict, age):
    found = standing(make_sensor(kinds=kinds), NOW)
    assert found.verdict == verdict
    assert (found.hour and (THIS_HOUR - found.hour.hour) // HOUR) == age


def test_reported_ones_come_first_then_those_in_trouble_then_the_others_by_evidence():
    reported, weak, none = Evidence(12.0, reported=True), Evidence(-0.5), None
    keys = [
        look_first(Evidence(99.0, reported=True), trouble=False),
        look_first(reported, trouble=True),
        look_first(Evidence(9.0), trouble=True),
        look_first(weak, trouble=True),
        look_first(none, trouble=True),
        look_first(Evidence(9.0), trouble=False),
        look_first(weak, trouble=False),
        look_first(none, trouble=False),
    ]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("kinds", "hours_ago", "silence"),
    [
        ("gggg", 2, ""),
        ("gggg", 4, "nothing came for 4 h; it used to send every 1 h"),
        ("g....g....g", 14, ""),
        ("g....g....g", 16, "nothing came for 16 h; it used to send every 5 h"),
        ("g", 25, "nothing came for 1 day; it used to send every 20 min"),
    ],
)
def test_silence_is_measured_by_the_sensors_habit(kinds, hours_ago, silence):
    end = THIS_HOUR - hours_ago * HOUR
    assert standing(make_sensor(kinds=kinds, end=end), NOW).silence == silence


def test_a_sensor_that_sent_once_is_silent_after_a_day():
    once = {"uploads": 1, "first": THIS_HOUR, "last": THIS_HOUR, "received": NOW - 23 * HOUR}
    assert standing(make_sensor(kinds="g", **once), NOW).silence == ""
    silent = make_sensor(kinds="g", **{**once, "received": NOW - 25 * HOUR})
    assert standing(silent, NOW).silence == "nothing came for 1 day"


def test_an_outage_does_not_change_the_habit():
    assert usual_gap(make_sensor(kinds="ggggg" + "." * 100 + "ggg")) == HOUR


def test_images_of_a_day_and_uploads_of_today():
    found = standing(make_sensor(kinds="d" * 30 + "g" * 10), NOW)
    assert found.images == 100 * 24
    assert found.drifted == 14
    assert found.uploads_today == 2 * 23  # the hours from 00:00 to 22:00


def test_a_clock_that_is_wrong_is_told():
    assert standing(make_sensor(last=int(NOW) + 7 * HOUR, received=NOW), NOW).doubts == ("its clock is ahead by 7 h",)
    late = standing(make_sensor(last=int(NOW) - 3 * DAY, received=NOW, problems=("noise.bin is empty",)), NOW)
    assert late.doubts == ("its newest upload is 3 days older than its arrival", "noise.bin is empty")


def test_a_clock_here_that_was_ahead_hides_no_silence():
    """What came then seems to have come in the future: nothing would be silent before that."""
    ahead = {"received": NOW + 91 * DAY}
    fine = standing(make_sensor(kinds="gggg", last=int(NOW) - 60, **ahead), NOW)
    assert (fine.silence, fine.doubts) == (
        "",
        ("when its newest upload came, the clock here was ahead by 91 days or more",),
    )
    silent = standing(make_sensor(kinds="gggg", last=int(NOW) - 5 * HOUR, **ahead), NOW)
    assert silent.silence == "nothing came for 5 h; it used to send every 1 h"


def test_a_sensor_of_which_no_hour_is_kept():
    found = standing(make_sensor(hours=()), NOW)
    assert (found.verdict, found.hour, found.images) == ("waiting", None, 0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(59, "less than a minute"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (86399, "23 h"), (86400, "1 day")],
)
def test_a_duration_is_in_its_largest_whole_unit(seconds, text):
    assert duration(seconds) == text


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 2e9))
def test_any_number_has_words(moment, now):
    assert isinstance(utc(moment), str)
    assert ago(moment if moment == moment and abs(moment) < 1e15 else 0, now)
