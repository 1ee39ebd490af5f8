"""The clock of an accelerator's queue: marks are events in it, which are read once they were reached, and never waited
for."""

from __future__ import annotations

from typing import Any, Final

import torch

from lensai_integrations.training.cost import Clock, HostClock

#: Devices whose events have times: CUDA's (and ROCm's, which torch calls so) and Intel's.
_WITH_TIMES: Final = ("cuda", "xpu")


class DeviceClock:
    """Takes times in the current stream of a device.

    Args:
        device: The device.
    """

    runs_ahead = False  # its marks are made when the device is there

    def __init__(self, device: torch.device) -> None:
        self._device, self._module = device, torch.get_device_module(device)

    def mark(self) -> Any:
        """An event in the stream."""
        event = self._module.Event(enable_timing=True)
        event.record(self._module.current_stream(self._device))
        return event

    def between(self, first: Any, second: Any) -> float | None:
        """Seconds from one event to another; None until the device has reached both."""
        if not (second.query() and first.query()):
            return None
        return float(first.elapsed_time(second)) / 1000  # of events that are done: nothing is waited for


def clock_of(device: torch.device) -> Clock:
    """The clock of the device that trains; that of the host where a device's events have no times.

    Example:
        >>> type(clock_of(torch.device("cpu"))).__name__
        'HostClock'
    """
    return DeviceClock(device) if device.type in _WITH_TIMES else HostClock()
