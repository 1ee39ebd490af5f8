"""Overlapping `with monitor:` bodies: each has a status of its own, in threads, tasks and within one another."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress

import numpy as np
import pytest

from lensai_integrations import Baseline, DriftMonitor, Profiler
from lensai_integrations.monitoring.bodies import _BODIES
from lensai_integrations.monitoring.sinks import Sink

RNG = np.random.default_rng(0)
RUNNING, COMPLETED, FAILED = ("Running", ""), ("Completed", ""), ("Failed", "ValueError: broken image")


class Statuses(Sink):
    types = ("status",)

    def __init__(self):
        self.told, self.open_, self.rows = [], 0, []

    def open(self, *_):
        self.open_ += 1

    def tell(self, event):
        self.told.append((event.kind, event.status["cause"]))

    def close(self):
        self.open_ -= 1


@pytest.fixture
def sink():
    return Statuses()


@pytest.fixture
def monitor(sink):
    profiler = Profiler()
    profiler.update(outputs=RNG.normal(size=(200, 3)))
    return DriftMonitor(Baseline(profiler.profile()), window=50, sinks=[sink])


def status(monitor):
    return monitor.status.state, monitor.status.cause


@pytest.mark.parametrize("first", ["fails", "works"])
def test_threads(monitor, sink, first):
    turn, seen = threading.Barrier(2, timeout=30), {}

    def works():
        with monitor:
            turn.wait()
            turn.wait()
            if first == "fails":
                turn.wait()
            seen["inside"] = status(monitor)
            monitor.update(outputs=RNG.normal(size=(5, 3)))
        seen["works"] = status(monitor)
        if first == "works":
            turn.wait()

    def fails():
        with suppress(ValueError), monitor:
            turn.wait()
            turn.wait()
            if first == "works":
                turn.wait()
            raise ValueError("broken image")
        seen["fails"] = status(monitor)
        if first == "fails":
            turn.wait()

    threads = [threading.Thread(target=each) for each in (works, fails)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"inside": RUNNING, "works": COMPLETED, "fails": FAILED}
    assert sink.told == [RUNNING, RUNNING, *([FAILED, COMPLETED] if first == "fails" else [COMPLETED, FAILED])]
    assert status(monitor) == (COMPLETED if first == "fails" else FAILED)  # of nobody's own: the last
    assert (monitor.status.rows, sink.open_) == (5, 0)


def test_tasks(monitor, sink):
    async def works(failed, ready):
        with monitor:
            ready.set()
            await failed.wait()
            inside = status(monitor)
            assert (await asyncio.create_task(child())) == RUNNING  # what a body starts is in it
        return inside, status(monitor)

    async def child():
        return status(monitor)

    async def fails(failed, ready):
        await ready.wait()
        with suppress(ValueError), monitor:
            raise ValueError("broken image")
        failed.set()
        return status(monitor)

    async def both():
        failed, ready = asyncio.Event(), asyncio.Event()
        return await asyncio.gather(works(failed, ready), fails(failed, ready))

    assert asyncio.run(both()) == [(RUNNING, COMPLETED), FAILED]
    assert sink.told == [RUNNING, RUNNING, FAILED, COMPLETED]


def test_one_within_another(monitor, sink):
    with monitor:
        with suppress(ValueError), monitor:
            raise ValueError("broken image")
        assert status(monitor) == RUNNING
        monitor.update(outputs=RNG.normal(size=(5, 3)))
        assert sink.open_ == 1
    assert status(monitor) == COMPLETED
    assert sink.told == [RUNNING, RUNNING, FAILED, COMPLETED]
    assert sink.open_ == 0


def test_one_after_another_and_updates_outside(monitor, sink):
    with suppress(ValueError), monitor:
        raise ValueError("broken image")
    assert status(monitor) == FAILED
    monitor.update(outputs=RNG.normal(size=(5, 3)))
    assert status(monitor) == RUNNING
    monitor.close()
    assert status(monitor) == COMPLETED
    with monitor:
        assert status(monitor) == RUNNING
    assert sink.told == [RUNNING, FAILED, RUNNING, COMPLETED, RUNNING, COMPLETED]


def test_a_monitor_closed_by_hand_is_closed_for_all(monitor, sink):
    with monitor:
        monitor.close()
        assert status(monitor) == COMPLETED
    assert sink.told == [RUNNING, COMPLETED]
    with suppress(ValueError), monitor:
        monitor.close()
        raise ValueError("broken image")
    assert status(monitor) == FAILED


def test_a_body_that_is_left_in_another_thread_is_the_one_that_ends(monitor, sink):
    monitor.__enter__()
    thread = threading.Thread(target=monitor.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert sink.told == [RUNNING, COMPLETED]
    assert status(monitor) == COMPLETED


def test_other_monitors_and_those_that_are_gone(monitor):
    with DriftMonitor(monitor.baseline) as other:
        with monitor:
            assert (status(monitor), status(other)) == (RUNNING, RUNNING)
        assert (status(monitor), status(other)) == (COMPLETED, RUNNING)
    for _ in range(20):
        with DriftMonitor(monitor.baseline):
            pass
    gc.collect()
    with monitor:
        pass
    assert len([body for body in _BODIES.get() if body.owner() is not None]) <= 3
    assert len(_BODIES.get()) <= 3
