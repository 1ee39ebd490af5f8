"""A monitor over passes: what it keeps, says, and logs where."""

from __future__ import annotations

import logging

import pytest
from monitors import by_mean, numbers, small_baseline

from lensai_integrations import DriftMonitor
from lensai_integrations.problems import Problems
from lensai_integrations.training import drift as training_drift
from lensai_integrations.training.drift import DriftOptions, Passes

BASELINE = small_baseline()


@pytest.fixture
def passes(monkeypatch):
    """`passes(**arguments)`: windows of 10 rows, judged by their mean."""
    by_mean(monkeypatch)

    def make(**arguments):
        return Passes(DriftOptions(**{"baseline": BASELINE, "window": 10} | arguments))

    return make


def test_a_pass_is_summed_up(passes, caplog):
    found, said = passes(), []
    found.begin(Problems())
    found.update(outputs=numbers(10))
    found.update(outputs=numbers(15, shift=5))
    found.end("test", said.append)
    assert said == ["production: 25 rows of test in 3 windows: 1 ok, 0 warning, 2 alarm."]
    assert [report.profile.n for report in found.reports] == [0, 10, 5]  # of those that are ok the profile goes
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 2
    found.begin(Problems())
    found.end("test", said.append)
    assert said[1] == "production: 0 rows of test in 0 windows: 0 ok, 0 warning, 0 alarm."
    assert list(found.reports) == []


def test_only_the_last_windows_are_kept(passes, monkeypatch):
    monkeypatch.setattr(training_drift, "MOST_REPORTS", 3)
    found = passes(window=1)
    found.begin(Problems())
    found.update(outputs=numbers(5))
    assert [report.number for report in found.reports] == [3, 4, 5]


def test_what_went_wrong_inside_is_said(passes, caplog):
    found, said = passes(), []
    found.begin(Problems())
    found.update(outputs="not a number")
    found.end("test", said.append)
    assert "Went wrong inside: outputs (1 times: " in said[0]


def test_rows_that_fill_no_window_may_wait(passes):
    found = passes(flush=False)
    for _ in range(2):
        found.begin(Problems())
        found.update(outputs=numbers(7))
        found.end("test", lambda _: None)
    assert [report.rows for report in found.reports] == [10]


def test_a_pass_that_failed(passes):
    found = passes()
    found.begin(Problems())
    found.fail(ValueError("injected"))
    assert (found.monitor.status.state, found.monitor.status.cause) == ("Failed", "ValueError: injected")
    found.begin(Problems())
    found.fail(None)
    assert found.monitor.status.cause == "RuntimeError: the pass was cut short"


def test_each_rank_has_a_name_and_a_folder(passes, tmp_path):
    found = passes(state=tmp_path)
    found.begin(Problems(), rank=1, world_size=2)
    found.update(outputs=numbers(3))
    found.end("test", lambda _: None)
    assert found.monitor.name == "production-rank1"
    assert (tmp_path / "rank1" / "head.json").exists()


def test_a_given_monitor_stays_open(passes):
    monitor = DriftMonitor(BASELINE, window=10)
    found = passes(monitor=monitor, baseline=None)
    found.begin(Problems())
    found.update(outputs=numbers(3))
    found.end("test", lambda _: None)
    assert monitor.status.state == "Running"
    assert found.options.reading().outputs == "auto"
    assert found.options.reading().inputs is None  # the baseline has none
