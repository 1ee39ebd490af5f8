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
