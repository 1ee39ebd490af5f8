"""A real browser for tests of pages: found on PATH, opened without its background services.

Plain functions, so that every test file can wrap them in its own fixture:

    @pytest.fixture
    def page():
        with browser_page(width=650) as page:
            yield page
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

#: WCAG 2.2, success criterion 1.4.3: contrast of text.
CONTRAST = 4.5
#: Every piece of text with too little contrast to what is behind it.
FAINT_TEXT = """(least) => {
  const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = channels(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].filter((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own.length || element.closest("svg, script, style")) continue;
    const pair = [channels(getComputedStyle(element).color), behind(element)].map(luminance);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < least) faint.push([element.textContent.slice(0, 40), ratio]);
  }
  return faint;
}"""


def find_browser() -> str:
    """Path of a browser. Without one the test is skipped, or fails where LENSAI_REQUIRE_BROWSER=1 demands one."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        reason = f"no browser on PATH ({', '.join(NAMES)})"
        if os.environ.get("LENSAI_REQUIRE_BROWSER") == "1":
            pytest.fail(f"LENSAI_REQUIRE_BROWSER=1, but there is {reason}")
        pytest.skip(f"{reason}: install Chromium to test pages in a real browser")
    return found


@contextmanager
def launched() -> Iterator[Any]:
    """A running browser, to open several pages in: `browser_page(browser=...)`. One at a time per process."""
    path = find_browser()
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright drives the browser: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def browser_page(*, width: int = 1500, height: int = 900, scheme: str = "light", browser: Any = None) -> Iterator[Any]:
    """A page of a fresh browser, or of one that runs already.

    Args:
        width: Of the window, in CSS pixels.
        height: Likewise.
        scheme: What `prefers-color-scheme` says: "light" or "dark".
        browser: A browser of `launched()`.
    """
    if browser is None:
        with launched() as fresh, browser_page(width=width, height=height, scheme=scheme, browser=fresh) as page:
            yield page
        return
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    try:
        yield context.new_page()
    finally:
        context.close()


@dataclass
class Complaints:
    """What a page complained about: errors on the console, uncaught exceptions, and every request it made."""

    console: list[str] = field(default_factory=list)
    exceptions: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def listen(page: Any) -> Complaints:
    """Collect a page's complaints from now on. Those of its frames count too."""
    found = Complaints()
    page.on("console", lambda message: found.console.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.exceptions.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    return found
