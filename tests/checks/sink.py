"""What every sink of a monitor has to do, as one suite: `check_sink(make)` in a test of your own sink.

from checks.sink import check_sink

def test_it_is_a_sink(tmp_path):
    check_sink(lambda: JSONLinesSink(tmp_path / "events.jsonl"))
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lensai_integrations import Baseline, DriftMonitor, Profiler
from lensai_integrations.monitoring.events import NOTICE, STATUS, WINDOW, Event
from lensai_integrations.monitoring.sinks import Sink

KINDS = (WINDOW, NOTICE, STATUS)
#: Seconds that `tell` may take, since a request waits for it, and that `close` may, since a program's end does.
TELL, CLOSE = 0.5, 15.0
#: Texts as they come: from file names, layers' names and messages of errors.
TEXTS = ("It drifts.", 'line\nbreak, "quotes", \\', "größer ≥ 😀", "\x1b[31m\x00", "")


def check_sink(make: Callable[[], Sink], *, delivered: Callable[[], Sequence[str]] | None = None) -> None:
    """Hold a sink against what a monitor relies on.

    Args:
        make: A new sink, as a user makes it. It should lead somewhere that works.
        delivered: The ids of the events that have arrived so far, in their order, where a test can know them.

    Raises:
        AssertionError: With what is not so, in words.
    """
    _declares_what_it_takes(make())
    _takes_every_event_and_can_be_opened_again(make(), delivered)
    _is_in_nobodys_way(make)


def events(sink: Sink, baseline: Baseline, name: str = "checked") -> Iterator[Event]:
    """Events of every kind that a sink asks for, made by a monitor; their texts are any."""
    heard: list[Event] = []

    class Hear(Sink):
        types = KINDS

        def tell(self, event: Event) -> None:
            heard.append(event)

    with DriftMonitor(baseline, window=20, sinks=[Hear()], name=name, warn=None) as monitor:
        for shift in (0, 40, 40):
            monitor.update(outputs=_rows(20, shift))
    assert {event.type for event in heard} == set(KINDS), "the suite itself lacks a kind of event"
    for number, event in enumerate(event for event in heard if event.type in sink.types):
        yield dataclasses.replace(event, text=TEXTS[number % len(TEXTS)] or event.text)


def baseline() -> Baseline:
    """Two hundred rows of three outputs."""
    profiler = Profiler(source="validation", task="regression", seed=0)
    profiler.update(outputs=_rows(200, 0))
    return Baseline(profiler.profile())


def _rows(n: int, shift: float) -> np.ndarray:
    return np.random.default_rng(int(shift)).normal(size=(n, 3)) + shift


def _declares_what_it_takes(sink: Sink) -> None:
    name = type(sink).__name__
    assert isinstance(sink, Sink), f"{name} should derive from Sink, so that a monitor takes it for one"
    assert sink.types, f"{name}.types names no event: it would never be told anything"
    assert set(sink.types) <= set(KINDS), f"{name}.types={sink.types!r} should be some of {KINDS}"
    assert isinstance(sink.repeatable, bool), (
        f"{name}.repeatable says whether an event may be told twice: True or False"
    )


def _takes_every_event_and_can_be_opened_again(sink: Sink, delivered: Callable[[], Sequence[str]] | None) -> None:
    name, reference, complaints = type(sink).__name__, baseline(), []
    told: list[str] = []
    for _ in range(2):
        sink.open(reference, "checked", complaints.append)
        for event in events(sink, reference):
            began = time.perf_counter()
            sink.tell(event)
            assert time.perf_counter() - began < TELL, f"{name}.tell kept a request waiting: use a thread of its own"
            told.append(event.id)
        began = time.perf_counter()
        sink.close()
        assert time.perf_counter() - began < CLOSE, f"{name}.close should end in bounded time"
    assert not complaints, f"{name} complained: {complaints}"
    if delivered is not None:
        assert list(delivered()) == told, f"{name} should deliver every event once, in order, by the end of close"


def _is_in_nobodys_way(make: Callable[[], Sink]) -> None:
    reference, reports = baseline(), []
    for sinks in ([], [make()], [make(), make()]):
        with DriftMonitor(reference, window=20, sinks=sinks, warn=None) as monitor:
            found = [report for shift in (0, 40) for report in monitor.update(outputs=_rows(20, shift))]
        assert not monitor.status.failures, f"a monitor with {sinks} failed: {dict(monitor.status.causes)}"
        reports.append([(report.number, report.level, report.report.to_dict()) for report in found])
    assert reports[0] == reports[1] == reports[2], "a sink changed what the monitor found"
