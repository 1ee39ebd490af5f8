"""The pages in a real browser: marks are seen, names are text, nothing is complained about, a phone is wide enough."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import CONTRAST, FAINT_TEXT, browser_page, launched, listen
from sensors import HOSTILE, about, evidence, make_sensor

from lensai_integrations.server.pages import index_page, problem_page, sensor_page

pytestmark = pytest.mark.slow

LONG = "a-very_long.name" * 8


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with launched() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of the pages."""
    folder = tmp_path_factory.mktemp("pages")
    kinds = {"door": "ggdd", "yard": "gfgg", LONG: "gg.g", HOSTILE: "gw"}
    sensors = [make_sensor(name, each * 12, problems=(HOSTILE,), run_url="https://m/") for name, each in kinds.items()]
    sensors[0] = replace(sensors[0], evidence=evidence(20.0, reported=True))
    sensors += [make_sensor(f"cam {number}") for number in range(8)]
    texts = {
        "index": index_page(sensors, about(problems=(HOSTILE, LONG))),
        "empty": index_page([], about()),
        "sensor": sensor_page(sensors[0], sensors[0].hours, about()),
        "hostile": sensor_page(sensors[3], sensors[3].hours, about()),
        "problem": problem_page(404, HOSTILE + LONG, "../"),
        "long": sensor_page(sensors[2], sensors[2].hours, about()),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: Path(folder / f"{name}.html").as_uri() for name in texts}


def test_quiet_safe_and_no_wider_than_a_phone(browser: Any, pages: dict[str, str]) -> None:
    with browser_page(width=360, browser=browser) as page:
        complaints = listen(page)
        for address in pages.values():
            page.goto(address)
            for width in (360, 800, 1280):
                page.set_viewport_size({"width": width, "height": 900})
                assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate("window.hacked") is None
            assert page.evaluate("document.images.length") == 0
        assert (complaints.console, complaints.exceptions) == ([], [])
        assert complaints.requests == list(pages.values())


def test_sensors_are_seen_with_marks_where_they_drifted(browser: Any, pages: dict[str, str]) -> None:
    with browser_page(width=1280, browser=browser) as page:
        page.goto(pages["index"])
        names = page.locator("tr[data-name] .name a").all_inner_texts()
        assert len(names) == 12
        assert names[0] == "door"
        assert HOSTILE in names
        assert page.locator(".pill.bad").all_inner_texts() == ["▲ reported", "▲ drift"]  # red is what is reported
        door = page.locator("tr[data-name=door]")
        drift, good = (door.locator(f"svg .{kind}").bounding_box() for kind in ("moved", "s0"))
        assert drift["height"] > 30  # from the foot of the bars to the flags
        assert 2 <= good["height"] < 10
        whole = door.locator("svg").bounding_box()
        assert drift["x"] > whole["x"] + 0.7 * whole["width"]  # two days of seven
        assert "door: 24 of 48 judged hours drifted" in door.locator("svg title").text_content()


def test_the_filter_leaves_what_was_asked_for(browser: Any, pages: dict[str, str]) -> None:
    with browser_page(width=1280, browser=browser) as page:
        page.goto(pages["index"])
        page.get_by_label("Filter").fill("CAM")
        assert page.locator("tr[data-name]:visible").count() == 8
        assert page.locator("output").inner_text() == "8 of 12"
        titles = page.locator("tr.part:visible").all_inner_texts()
        assert [title.strip() for title in titles] == ["Not reported, the most evidence first"]
        page.get_by_label("Filter").fill("nothing like it")
        assert page.get_by_text("No sensor has such a name.").is_visible()


def test_every_minute_the_page_is_fresh_and_nothing_else_changes(browser: Any) -> None:
    reported = [make_sensor(f"cam {n}", "gd", evidence=evidence(9.0, reported=True)) for n in range(10)]
    answers = [[make_sensor(f"cam {n}") for n in range(9)], reported]
    with browser_page(width=1280, height=400, browser=browser) as page:
        complaints = listen(page)
        page.clock.install()
        page.route(
            "**/*", lambda route: route.fulfill(body=index_page(answers.pop(0), about()), content_type="text/html")
        )
        page.goto("http://sensors.test/")
        page.get_by_label("Filter").fill("CAM")
        page.get_by_text("How to read it").click()
        page.get_by_label("Filter").focus()
        page.evaluate("scrollTo(0, 300)")
        page.clock.run_for(61_000)
        page.get_by_text("10 of 10 sensors drift").wait_for()
        assert page.locator("output").inner_text() == "10 of 10"
        assert page.evaluate("[scrollY, document.activeElement.value, document.querySelector('details').open]") == [
            300,
            "CAM",
            True,
        ]
        page.get_by_label("Filter").fill("cam 9")
        assert page.locator("tr[data-name]:visible").count() == 1
        assert "10 of 10" in page.title()
        assert (complaints.console, complaints.exceptions, answers) == ([], [], [])


def test_a_server_that_is_gone_is_told_and_the_page_stays(browser: Any, pages: dict[str, str]) -> None:
    with browser_page(width=1280, browser=browser) as page:
        page.clock.install()
        page.goto(pages["index"])  # a file answers no request, as a server that is gone does not
        assert not page.get_by_text("The server does not answer").is_visible()
        page.clock.run_for(61_000)
        page.get_by_text("The server does not answer. This page is of 2026-11-21 22:26:40 UTC.").wait_for()
        assert page.locator("tr[data-name]").count() == 12


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Any, pages: dict[str, str], scheme: str) -> None:
    with browser_page(width=1280, scheme=scheme, browser=browser) as page:
        for name in ("index", "sensor", "empty"):
            page.goto(pages[name])
            assert page.evaluate(FAINT_TEXT, CONTRAST) == []
