"""The pages as text: what they say, what they link to, and that nothing a device sends is more than text.

The charts: every hour at its place, drift in colour and form, gaps where nothing came.
"""

from __future__ import annotations

import math
import re
import time
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensors import HOSTILE, NOW, THIS_HOUR, about, evidence, make_hours, make_sensor

from lensai_integrations.server.pages import (
    HourSpan,
    days,
    effect_svg,
    in_words,
    index_page,
    last_week,
    sensor_page,
    span_of,
    web_address,
)
from lensai_integrations.server.records import DAY, HOUR, Fleet, HourDrift


class Reader(HTMLParser):
    """Links, rows by name, and the text of a page without scripts, styles and titles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.rows: list[str] = []
        self.tags: list[str] = []
        self._hidden, self._texts = "", list[str]()
        self.feed(page)
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in ("bdi", "span", "wbr"):
            self._texts.append(" ")
        if tag == "a":
            self.links.append(found["href"])
        if "data-name" in found:
            self.rows.append(found["data-name"])
        if tag in ("script", "style", "title"):
            self._hidden = tag

    def handle_endtag(self, tag):
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data):
        if not self._hidden:
            self._texts.append(data)


def index(*sensors, fleet=None, **settings):
    return Reader(index_page(sensors, about(**settings), fleet))


def one(sensor, hours=None, **settings):
    return Reader(sensor_page(sensor, sensor.hours if hours is None else hours, about(**settings)))


def test_the_most_evidence_comes_first_in_each_part_then_names():
    silent = make_sensor("a-silent", "gg", end=THIS_HOUR - 9 * HOUR)
    kinds = {"cam 10": "gg", "cam 2": "gg", "Cam 3": "gg", "waits": "ww", "fails": "gf", "an hour drifts": "gd"}
    shown = [silent, *(make_sensor(name, each) for name, each in kinds.items())]
    shown += [make_sensor("z more", evidence=evidence(50.0, reported=True))]
    shown += [make_sensor("b less", "gf", evidence=evidence(9.0, reported=True))]
    shown += [make_sensor("too little", "gg", evidence=evidence(3.0))]
    page = index(*shown)
    reported, trouble = ["z more", "b less"], ["a-silent", "fails"]
    assert page.rows == [*reported, *trouble, "too little", "an hour drifts", "cam 2", "Cam 3", "cam 10", "waits"]
    assert "2 of 10 sensors drift, 2 could not be judged, 1 not judged yet Held" in page.text
    titles = ("Reported, the most", "Could not be judged, or silent a-s", "Not reported, the most", "Not weighed yet w")
    places = [page.text.index(title) for title in titles]
    assert places == sorted(places)


def test_evidence_is_told_with_where_it_is_from_and_how_much_it_takes():
    sensors = [make_sensor(f"cam {number}") for number in range(998)]
    shown = [make_sensor("a", evidence=evidence(30.0, reported=True)), make_sensor("b", evidence=evidence(6.0))]
    text = index(*shown, *sensors).text
    assert "a ▲ reported 1e13 most in the 24 h until 23:00: inputs/noise ✓ no drift" in text
    assert "b 403 most in the 24 h until 23:00 ✓ no drift" in text
    assert "cam 0 below 1 ✓ no drift" in text
    assert "of those reported at most 5% are false on average." in text
    assert "The more sensors there are, the more a single one needs. Among 1,000 sensors one more needs 10,000." in text
    assert "waits none yet … not judged yet" in index(make_sensor("waits", "w")).text


def test_an_hour_below_the_rate_is_no_report():
    sensor = make_sensor("door", "gd")
    text = index(sensor).text
    assert "No drift reported at 1 sensor" in text
    assert "Reported 0 Newest hour drifts 1" in text
    assert "below 1 ▲ drift 22:00" in text
    about_it = Reader(sensor_page(sensor, sensor.hours, about(), 500)).text
    assert "Not reported Evidence that it drifts: below 1, too little to be reported among 500 sensors" in about_it
    told = make_sensor(evidence=evidence(math.log(5239), reported=True, hours=1))
    text = one(told).text
    assert "Reported Evidence that it drifts: 5,239, reported of the only sensor; most in one hour until" in text
    assert "Not weighed against other sensors" in one(make_sensor(kinds="w")).text


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ("gd", "▲ drift 22:00 effect 0.50: inputs/brightness, inputs/noise and 1 more"),
        ("gg", "✓ no drift 22:00 effect 0.05"),
        ("gdg", "✓ no drift 22:00 effect 0.05; 1 hour of the last day drifted"),
        ("gf", "! could not be judged 22:00 too few images"),
        ("ww", "… not judged yet"),
    ],
)
def test_a_verdict_is_told_with_its_hour(kinds, text):
    assert text in index(make_sensor(kinds=kinds)).text


@pytest.mark.parametrize(
    ("kinds", "listed", "told"),
    [
        ("dg", "! could not be judged 22:00 it is damaged; effect 0.05; 1 hour of the last day drifted", "! Could not"),
        ("gd", "▲ drift 22:00 it is damaged; effect 0.50: inputs/brightness, inputs/noise and 1 more", "▲ Drift"),
    ],
)
def test_an_hour_into_which_something_was_not_merged_says_so(kinds, listed, told):
    """Its verdict is that of what was merged before."""
    *before, newest = make_hours("door", kinds)
    sensor = make_sensor(hours=(*before, replace(newest, problem="it is damaged")))
    assert listed in index(sensor).text
    page = one(sensor).text
    assert told in page
    assert page.count("it is damaged") == 2  # below the verdict, and in the hour's row


def test_key_figures():
    sensors = [make_sensor("a", "g" * 24), make_sensor("b", "d"), make_sensor("c", "gg", end=THIS_HOUR - 9 * HOUR)]
    text = index(*sensors).text
    assert "Sensors 3 Reported 0 Newest hour drifts 1 Silent 1 Images, last 24 h 2,700 Uploads today, UTC 52" in text
    assert (
        "Held against models:/digits@champion, 2,000 images; of those reported at most 5% are false on average." in text
    )


@pytest.mark.parametrize(
    ("sensors", "headline"),
    [
        ([], "No sensor has sent anything yet"),
        ([make_sensor(kinds="d", evidence=evidence(9.0, reported=True))], "1 of 1 sensor drifts"),
        ([make_sensor(kinds="d")], "No drift reported at 1 sensor"),
        ([make_sensor(kinds="g", evidence=None)], "1 sensor, not weighed yet"),
        ("ww", "2 sensors, not judged yet"),
        ("fff", "3 sensors could not be judged"),
        ("f", "1 sensor could not be judged"),
        ("fg", "No drift reported at 1 of 2 sensors, 1 could not be judged"),
        ("ggwwf", "No drift reported at 2 of 5 sensors, 1 could not be judged, 2 not judged yet"),
        ("gw", "No drift reported at 1 of 2 sensors, 1 not judged yet"),
        ("fww", "3 sensors, not weighed yet, 1 could not be judged, 2 not judged yet"),
        ("gdf", "No drift reported at 2 of 3 sensors, 1 could not be judged"),
    ],
)
def test_the_headline_is_the_answer(sensors, headline):
    shown = [make_sensor(f"cam {place}", each) if isinstance(each, str) else each for place, each in enumerate(sensors)]
    assert re.search("<h1>(.*?)</h1>", index_page(shown, about()))[1] == headline


def test_sensors_that_are_not_shown_are_counted():
    fleet = Fleet({"drift": 14, "failed": 2, "good": 1189}, weighed=1200, reported=3)
    text = index(make_sensor("a", "d"), make_sensor("b", "d"), fleet=fleet, cut=True).text
    assert "3 of 1,205 sensors drift, 2 could not be judged Held" in text
    assert "Sensors 1,205 Reported 3 Newest hour drifts 14 about 12 by chance Could not be judged 2 Silent 0" in text
    assert "Silent 0 of the 2 shown Images, last 24 h 200 of the 2 shown" in text
    assert "Among 1,200 sensors one more needs 6,000." in text
    assert "The 2 of 1,205 sensors to look at first are shown" in text
    assert "No sensor that is shown has such a name." in text


def test_without_sensors_the_page_says_how_to_send_the_first_upload():
    text = index(address="https://lensai.example:8000/").text
    assert "-F file_type=stats -F file=@stats.tar.gz https://lensai.example:8000/upload/" in text
    assert "http_endpoint = https://lensai.example:8000/upload/" in text


def test_problems_of_the_server_of_uploads_and_lists_that_are_cut_are_told():
    sensor = make_sensor(problems=("noise.bin is empty", "b", "c"))
    text = index(sensor, problems=("MLflow does not answer",), cut=True).text
    assert "1 problem MLflow does not answer" in text
    assert "noise.bin is empty b and 1 more" in text
    assert "All sensors as JSON, page by page." in text


def test_links():
    door = make_sensor("door", "gd", run_url="https://mlflow.example/#/experiments/1/runs/2")
    expected = [f"sensors/door/hours/{THIS_HOUR}/report", "https://mlflow.example/#/experiments/1/runs/2"]
    assert index(door).links == ["sensors/door", *expected]
    assert index(make_sensor("door", "ww")).links == ["sensors/door"]
    reports = [f"door/hours/{hour}/report" for hour in (THIS_HOUR, THIS_HOUR - HOUR)]
    assert one(door).links == ["../", expected[1], *reports]


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "data:text/html,x", "//evil.example", "file:///etc", "http:", "http://[", ""],
)
def test_only_web_addresses_are_linked(url):
    assert web_address(url) == ""
    assert not [link for link in index(make_sensor(run_url=url)).links if "evil" in link or ":" in link]


def test_names_are_text_and_links_stay_below_the_server():
    page = index(make_sensor(HOSTILE, problems=(HOSTILE,)), make_sensor("javascript:x"), problems=(HOSTILE,))
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert HOSTILE in page.rows
    assert all(link.startswith("sensors/") and ":" not in link for link in page.links)
    sensor = make_sensor(HOSTILE, "gdf", problems=(HOSTILE,))
    assert one(sensor).tags.count("script") == 1


def test_a_policy_lets_only_our_script_run():
    page = index_page([], about())
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")


def test_a_sensors_hours_stand_newest_first():
    door = make_sensor("door", "gdf")
    text = one(door, make_hours("door", "gdf")[::-1]).text
    order = [text.index(part) for part in ("22:00 ! could not", "21:00 ▲ drift 0.50", "20:00 ✓ no drift 0.05")]
    assert order == sorted(order)
    assert "1 of 2 judged hours drifted; fewer than 0.1 would be false alarms without any drift." in text


def test_a_sensor_without_hours_has_a_page():
    page = one(make_sensor(hours=()))
    assert "No hour of this sensor is kept." in page.text
    assert "Not judged yet" in page.text


def test_five_hundred_sensors_take_seconds_and_less_than_two_megabytes():
    sensors = [make_sensor(f"camera-{number}", "gggdgfggw.gg" * 14, problems=("a",)) for number in range(500)]
    index_page(sensors[:2], about())
    before = time.process_time()
    page = index_page(sensors, about())
    assert time.process_time() - before < 3  # 0.4 s on an idle machine
    assert len(page) < 2_000_000
    assert 'id="filter"' in page
    assert 'id="filter"' not in index_page(sensors[:3], about())


def test_times_are_read_by_people_and_machines():
    page = index_page([make_sensor(received=NOW - 200)], about())
    assert '<time datetime="2026-11-21T22:23:20Z" title="received 2026-11-21 22:23:20 UTC">3 min ago</time>' in page


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
