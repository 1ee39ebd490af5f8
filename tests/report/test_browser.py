"""Pages in a real browser, inside a sandboxed frame as MLflow's: quiet, narrow enough, readable, and safe."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import CONTRAST, FAINT_TEXT, Complaints, browser_page, find_browser, listen

from lensai_integrations import Baseline, compare
from lensai_integrations.report import baseline_html, drift_html

pytestmark = pytest.mark.slow


@contextmanager
def framed(
    browser: Any, page_html: str, *, width: int = 650, scheme: str = "light"
) -> Iterator[tuple[Any, Complaints]]:
    """The frame that shows the page, `width` px wide, all that can be unfolded unfolded."""
    with browser_page(width=width + 50, scheme=scheme, browser=browser) as page:
        complaints = listen(page)
        source = html.escape(page_html, quote=True)
        page.set_content(
            f'<iframe sandbox="allow-scripts" srcdoc="{source}" style="width:650px;height:800px;border:0"></iframe>'
        )
        frame = page.frames[1]
        frame.wait_for_selector("footer")
        frame.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        yield frame, complaints


def until(frame: Any, condition: str) -> None:
    """Wait for a condition. Playwright's own way evaluates a string in the page, which the page's policy forbids."""
    for _ in range(200):
        if frame.evaluate(condition):
            return
        frame.page.wait_for_timeout(25)
    pytest.fail(f"not so after 5 s: {condition}")


@pytest.fixture(scope="module")
def pages(photos: Baseline, hostile: Baseline) -> dict[str, str]:
    drifted, attack = compare(photos, photos.training), compare(hostile, hostile.reference)
    return {
        "baseline": baseline_html(photos),
        "drift": drift_html(drifted, photos, photos.training),
        "hostile": baseline_html(hostile),
        "hostile drift": drift_html(attack, hostile, hostile.reference),
    }


def test_without_a_browser_tests_are_skipped_or_fail_as_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LENSAI_REQUIRE_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser on PATH"):
        find_browser()
    monkeypatch.setenv("LENSAI_REQUIRE_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="LENSAI_REQUIRE_BROWSER=1"):
        find_browser()


@pytest.mark.parametrize("name", ["baseline", "drift", "hostile", "hostile drift"])
@pytest.mark.parametrize("spacing", ["0", "2px"], ids=["as it is", "in a wide font"])
def test_quiet_and_no_wider_than_its_frame(browser: Any, pages: dict[str, str], name: str, spacing: str) -> None:
    page = pages[name].replace("</style>", f"* {{ letter-spacing: {spacing} !important; }}</style>", 1)
    with framed(browser, page) as (frame, complaints):
        for width in (650, 360, 1400):
            frame.page.locator("iframe").evaluate("(frame, width) => { frame.style.width = `${width}px`; }", width)
            until(frame, f"innerWidth === {width}")
            assert frame.evaluate("document.documentElement.scrollWidth") == width
        assert complaints.console == []
        assert complaints.exceptions == []
        assert [url for url in complaints.requests if not url.startswith("about:")] == []


@pytest.mark.parametrize("name", ["baseline", "drift"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(browser: Any, pages: dict[str, str], name: str, scheme: str) -> None:
    with framed(browser, pages[name], scheme=scheme) as (frame, _):
        assert frame.evaluate(FAINT_TEXT, CONTRAST) == []
        background = frame.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_contrast_check_finds_faint_text(browser: Any, pages: dict[str, str]) -> None:
    with framed(browser, pages["baseline"]) as (frame, _):
        frame.evaluate("document.querySelector('h1').style.color = '#ccc'")
        assert len(frame.evaluate(FAINT_TEXT, CONTRAST)) == 1


def test_no_name_runs_as_code(browser: Any, pages: dict[str, str]) -> None:
    for name in ("hostile", "hostile drift"):
        with framed(browser, pages[name]) as (frame, _):
            assert frame.evaluate("window.hacked") is None
            assert frame.locator("img").count() == 0
            assert "<script>window.hacked=1</script>" in frame.locator("body").inner_text()


def test_the_policy_stops_what_would_slip_through(browser: Any, pages: dict[str, str]) -> None:
    slipped = "<script>window.hacked=1</script><b onclick='window.hacked=2'>click</b></footer>"
    with framed(browser, pages["baseline"].replace("</footer>", slipped)) as (frame, complaints):
        frame.locator("b").click()
        assert frame.evaluate("window.hacked") is None
        assert any("Content Security Policy" in message for message in complaints.console)


def test_buttons_lead_to_their_sections(browser: Any, pages: dict[str, str]) -> None:
    with framed(browser, pages["baseline"]) as (frame, _):
        buttons = frame.locator("nav button")
        assert buttons.all_inner_texts() == ["Inputs", "Outputs", "Embeddings", "How to use it"]
        buttons.nth(2).click()
        until(frame, "Math.abs(document.querySelector('#section-3').getBoundingClientRect().top) < 5")
        assert frame.locator("#section-3 h2").inner_text() == "Embeddings"


def test_every_chart_is_seen(browser: Any, pages: dict[str, str]) -> None:
    with framed(browser, pages["baseline"]) as (frame, _):
        sizes = frame.evaluate("[...document.querySelectorAll('main svg')].map((s) => [s.clientWidth, s.clientHeight])")
        assert len(sizes) > 30
        assert all(width >= 20 and height >= 10 for width, height in sizes)
