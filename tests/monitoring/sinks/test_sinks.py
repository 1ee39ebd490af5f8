"""Every sink of the package does what a monitor relies on, and the suite that says so sees what does not."""

from __future__ import annotations

import json
import time
from itertools import count

import pytest
from checks.sink import check_sink

from lensai_integrations.monitoring.sinks import FunctionSink, JSONLinesSink, PrometheusSink, Sink


@pytest.fixture
def paths(tmp_path):
    """A new path each time."""
    return (tmp_path / f"{number}.prom" for number in count())


def test_a_function():
    check_sink(lambda: FunctionSink(lambda event: None, types=("window", "notice", "status")))


def test_a_file_of_json_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    check_sink(lambda: JSONLinesSink(path))
    assert {json.loads(line)["type"] for line in path.read_text().splitlines()} == {"window", "notice", "status"}


def test_a_file_for_prometheus(paths):
    check_sink(lambda: PrometheusSink(next(paths)))


def test_what_is_delivered_is_counted():
    got = []
    with pytest.raises(AssertionError, match="deliver every event once, in order"):
        check_sink(lambda: FunctionSink(lambda event: None), delivered=lambda: got)
    made = []

    def make():
        made.append([])
        return FunctionSink(lambda event, own=made[-1]: own.append(event.id))

    check_sink(make, delivered=lambda: made[1])  # the second is the one that is told one by one


class Slow(Sink):
    types = ("notice",)

    def tell(self, event):
        time.sleep(0.6)


class Loud(Sink):
    types = ("notice",)

    def open(self, baseline, monitor, complain):
        complain("nobody is there")

    def tell(self, event):
        pass


class Misnamed(Sink):
    types = ("windows",)

    def tell(self, event):
        pass


class Mute(Misnamed):
    types = ()


@pytest.mark.parametrize(
    ("sink", "message"),
    [
        (Slow, "kept a request waiting"),
        (Loud, "complained: .'nobody is there'"),
        (Misnamed, "should be some of"),
        (Mute, "names no event"),
        (print, "should derive from Sink"),
    ],
)
def test_the_suite_sees_what_is_wrong(sink, message):
    with pytest.raises(AssertionError, match=message):
        check_sink(sink if isinstance(sink, type) else lambda: sink)


def test_the_suite_sees_what_fails_in_a_monitor():
    class Breaking(Sink):
        types = ("window",)

        def tell(self, event):
            if event.monitor != "checked":
                raise OSError("disk full")

    with pytest.raises(AssertionError, match=r"failed: .*disk full"):
        check_sink(Breaking)
