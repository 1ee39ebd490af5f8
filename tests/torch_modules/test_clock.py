"""The clock of a device's queue, with events of a device that the test moves on."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from lensai_integrations.torch.clock import DeviceClock, clock_of
from lensai_integrations.training.cost import HostClock


class Event:
    """As CUDA's: it has a time once the device has reached it, and none before."""

    queue: ClassVar[list[Event]] = []
    done = 0

    def __init__(self, enable_timing=False):
        assert enable_timing
        self.place = None

    def record(self, stream):
        assert stream == "the current stream of cuda:1"
        self.place = len(self.queue)
        self.queue.append(self)

    def query(self):
        return self.place < type(self).done

    def synchronize(self):
        raise AssertionError("the device was waited for")

    def elapsed_time(self, other):
        assert self.query(), "of an event that was not reached: CUDA raises"
        assert other.query(), "of an event that was not reached: CUDA raises"
        return 250.0 * (other.place - self.place)


@pytest.fixture
def clock(monkeypatch):
    class Module:
        @staticmethod
        def current_stream(device):
            return f"the current stream of {device}"

        def __getattr__(self, name):
            raise AssertionError(f"torch.cuda.{name} was asked for")

    Module.Event = Event
    monkeypatch.setattr(Event, "queue", [])
    monkeypatch.setattr(Event, "done", 0)
    monkeypatch.setattr(torch, "get_device_module", lambda device: Module())
    return DeviceClock(torch.device("cuda", 1))


def test_times_are_known_when_the_device_is_there_and_not_before(clock):
    first, second, third = clock.mark(), clock.mark(), clock.mark()

    assert clock.between(first, third) is None
    Event.done = 1
    assert clock.between(first, second) is None
    Event.done = 2
    assert clock.between(first, second) == 0.25
    assert clock.between(first, third) is None
    Event.done = 3
    assert clock.between(first, third) == 0.5
    assert not clock.runs_ahead


def test_devices_without_times_have_the_hosts_clock():
    for device in ("cpu", "meta", "mps"):
        assert isinstance(clock_of(torch.device(device)), HostClock)
    if torch.cuda.is_available():
        assert isinstance(clock_of(torch.device("cuda")), DeviceClock)
