"""The report as a person opens it: in MLflow's artifact browser, in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import browser_page, find_browser, listen
from tracking import Store

from lensai_integrations import Baseline
from lensai_integrations.mlflow import log_baseline

pytestmark = pytest.mark.slow

FRAME = "iframe.mlflow-html-iframe"


@pytest.fixture
def report_url(server_store: Store, baseline: Baseline) -> str:
    """The address of a logged report in MLflow's pages."""
    find_browser()
    run_id = server_store.new_run()
    log_baseline(baseline, run_id=run_id, tracking_uri=server_store.uri)
    return f"{server_store.uri}/#/experiments/{server_store.experiment_id}/runs/{run_id}/artifacts/lensai/report.html"


def test_the_report_opens_in_the_artifact_browser(report_url: str, baseline: Baseline, tmp_path: Path) -> None:
    with browser_page(width=1500, height=1000) as page:
        complaints = listen(page)
        page.goto(report_url)
        frame = page.frame_locator(FRAME)
        frame.locator("h1").first.wait_for(timeout=60_000)
        text = frame.locator("body").inner_text()
        assert f"{baseline.n} validation images" in text
        streams = [*baseline.reference.groups["inputs"].streams, *baseline.reference.groups["outputs"].streams]
        assert [stream for stream in streams if stream not in text] == []
        assert frame.locator("svg").count() >= len(streams)
        width = page.locator(FRAME).bounding_box()["width"]
        overflow = frame.locator("html").evaluate("e => e.scrollWidth - e.clientWidth")
        assert overflow <= 0, f"the page is {overflow} px wider than its frame of {width} px"
        page.screenshot(path=tmp_path / "page.png")
        assert complaints.exceptions == []
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_every_artifact_is_listed_beside_the_report(report_url: str) -> None:
    with browser_page(width=1500, height=1000) as page:
        page.goto(report_url)
        for name in ("report.html", "streams.csv", "profile.npz", "manifest.json"):
            page.get_by_text(name, exact=True).first.wait_for(timeout=60_000)
