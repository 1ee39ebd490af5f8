"""The pages as text: what they say, what they link to, and that nothing a device sends is more than text."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from sensors import HOSTILE, NOW, THIS_HOUR, about, make_hours, make_sensor

from lensai_integrations.server.pages import index_page, sensor_page, web_address
from lensai_integrations.server.records import HOUR


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


def index(*sensors, verdicts=None, **settings):
    return Reader(index_page(sensors, about(**settings), verdicts))


def one(sensor, hours=None, **settings):
    return Reader(sensor_page(sensor, sensor.hours if hours is None else hours, about(**settings)))


def test_sensors_are_listed_worst_first_then_by_name():
    silent = make_sensor("a-silent", "gg", end=THIS_HOUR - 9 * HOUR)
    kinds = {"cam 10": "gg", "cam 2": "gg", "Cam 3": "gg", "waits": "ww", "fails": "gf", "z drifts": "gd"}
    page = index(silent, *(make_sensor(name, each) for name, each in kinds.items()))
    assert page.rows == ["z drifts", "fails", "a-silent", "waits", "cam 2", "Cam 3", "cam 10"]
    assert "1 of 7 sensors drift" in page.text


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
    assert "Sensors 3 Drifting 1 Silent 1 Images, last 24 h 2,700 Uploads today, UTC 52" in text
    assert "Held against models:/digits@champion, 2,000 images; false alarms: 1% of the hours." in text


@pytest.mark.parametrize(
    ("sensors", "headline"),
    [
        ([], "No sensor has sent anything yet"),
        ([make_sensor(kinds="d")], "1 of 1 sensor drifts"),
        ([make_sensor(kinds="g")], "No drift at 1 sensor"),
        ("ww", "2 sensors, not judged yet"),
        ("fff", "3 sensors could not be judged"),
        ("f", "1 sensor could not be judged"),
        ("fg", "No drift at 1 of 2 sensors, 1 could not be judged"),
        ("ggwwf", "No drift at 2 of 5 sensors, 1 could not be judged, 2 not judged yet"),
        ("gw", "No drift at 1 of 2 sensors, 1 not judged yet"),
        ("fww", "3 sensors, 1 could not be judged, 2 not judged yet"),
        ("gdf", "1 of 3 sensors drift, 1 could not be judged"),
    ],
)
def test_the_headline_is_the_answer(sensors, headline):
    shown = [make_sensor(f"cam {place}", each) if isinstance(each, str) else each for place, each in enumerate(sensors)]
    assert re.search("<h1>(.*?)</h1>", index_page(shown, about()))[1] == headline


def test_sensors_that_are_not_shown_are_counted():
    verdicts = {"drift": 3, "failed": 2, "good": 1200}
    text = index(make_sensor("a", "d"), make_sensor("b", "d"), verdicts=verdicts, cut=True).text
    assert "3 of 1,205 sensors drift, 2 could not be judged Held" in text
    assert "Sensors 1,205 Drifting 3 Could not be judged 2 Silent 0 of the 2 shown Images, last 24 h 200 of" in text
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
