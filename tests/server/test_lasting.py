"""What lasts is logged once a minute."""

from __future__ import annotations

import logging

import pytest

from lensai_integrations.server.lasting import Lasting


@pytest.fixture
def log():
    return logging.getLogger("lasting.test")


def test_a_condition_that_lasts_is_one_line_a_minute_with_a_count(log, caplog):
    now = [0.0]
    told = Lasting(log, clock=lambda: now[0])
    for second in range(150):  # twice a second
        now[0] = second / 2
        told.warning("answered 503: %s", f"locked {second}")
    assert [record.getMessage() for record in caplog.records] == [
        "answered 503: locked 0",
        "answered 503: locked 120 (119 more since it was last logged)",
    ]


def test_other_things_are_logged_beside_it(log, caplog):
    told = Lasting(log, clock=lambda: 0.0)
    for message in ("one: %s", "two: %s", "one: %s"):
        told.warning(message, 1)
    assert [record.getMessage() for record in caplog.records] == ["one: 1", "two: 1"]
    assert {record.filename for record in caplog.records} == {"test_lasting.py"}


def test_loggers_of_others_are_held_to_it(log, caplog):
    now = [0.0]
    told = Lasting(clock=lambda: now[0])
    log.addFilter(told)
    try:
        for second in (0.0, 1.0, 2.0, 60.0):
            now[0] = second
            log.error("Invalid HTTP request received from %s", second)
    finally:
        log.removeFilter(told)
    assert [record.getMessage() for record in caplog.records] == [
        "Invalid HTTP request received from 0.0",
        "Invalid HTTP request received from 60.0 (2 more since it was last logged)",
    ]


def test_what_differs_below_the_first_line_is_one_kind(log, caplog):
    """As asyncio's: there are as many as there are tasks, and none of them is to be kept for ever."""
    told = Lasting(clock=lambda: 0.0)
    log.addFilter(told)
    try:
        for n in range(5):
            log.error(f"Task exception was never retrieved\nfuture: <Task name='Task-{n}'>")
    finally:
        log.removeFilter(told)
    assert (len(caplog.records), len(told._said)) == (1, 1)
