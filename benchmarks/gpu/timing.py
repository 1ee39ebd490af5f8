"""How long something takes: on the device, on the host, and on the host while the device is busy.

A wait for the device that hides in a call shows in no mode of CUDA's if it is a copy from pageable memory. It shows in
the time of the host behind work that is queued: `host_behind_work`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import torch

from benchmarks.gpu.running import Run

Work = Callable[[], Any]
#: Milliseconds for which the device is kept busy; a call that waits for it takes about as long.
BUSY: Final = 150.0
_CYCLES_A_MS: Final = 1.7e6


def device_ms(run: Run, work: Work, repeats: int = 20) -> float:
    """Median milliseconds of a call as it comes, host and device together: by CUDA's events, on a CPU by the clock."""
    for _ in range(3):
        work()
    run.wait()
    if not run.on_gpu:
        return statistics.median(_host(work) for _ in range(repeats))
    events = [_events() for _ in range(repeats)]
    for before, after in events:
        before.record()
        work()
        after.record()
    run.wait()
    return statistics.median(before.elapsed_time(after) for before, after in events)


def queued_ms(run: Run, work: Work, repeats: int = 10) -> float:
    """Median milliseconds of the device alone: all launches are queued behind a kernel that sleeps.

    CUDA queues about 1,024 launches; of a call with more, the last are not behind it.
    """
    if not run.on_gpu:
        return device_ms(run, work, repeats)
    work()
    run.wait()
    took = []
    for _ in range(repeats):
        before, after = _events()
        _keep_busy(60.0)
        before.record()
        work()
        after.record()
        run.wait()
        took.append(before.elapsed_time(after))
    return statistics.median(took)


def host_ms(run: Run, work: Work, repeats: int = 10) -> float:
    """Least milliseconds of the host to issue a call to a device that does nothing else."""
    took = []
    for _ in range(repeats):
        run.wait()
        took.append(_host(work))
    run.wait()
    return min(took)


def host_behind_work(run: Run, work: Work, repeats: int = 6, busy: float = BUSY) -> dict[str, float]:
    """Milliseconds of the host (median and most) to issue a call to a device that is busy for `busy` ms."""
    took = []
    for _ in range(repeats):
        run.wait()
        if run.on_gpu:
            _keep_busy(busy)
        took.append(_host(work))
    run.wait()
    return {"median": statistics.median(took), "most": max(took)}


def interleaved(
    run: Run, steps_of: Mapping[str, Callable[[], Any]], blocks: int, steps: int, skip: int = 2
) -> dict[str, dict[str, Any]]:
    """Milliseconds a step of each variant, in blocks that alternate at random; ratios to the first variant.

    Each block begins with some steps that are not counted and ends when the device has done everything. The interval
    is of 2,000 draws of the rounds with replacement.
    """
    rng = np.random.default_rng(0)
    took: dict[str, list[float]] = {name: [] for name in steps_of}
    for step in steps_of.values():
        for _ in range(skip + 3):
            step()
    for _ in range(blocks):
        for name in rng.permutation(list(steps_of)):
            for _ in range(skip):
                steps_of[name]()
            run.wait()
            began = time.perf_counter()
            for _ in range(steps):
                steps_of[name]()
            run.wait()
            took[name].append(1e3 * (time.perf_counter() - began) / steps)
    first = np.array(next(iter(took.values())))
    drawn = rng.integers(0, blocks, (2000, blocks))
    found = {}
    for name, times in took.items():
        ratios = np.median(np.array(times)[drawn], axis=1) / np.median(first[drawn], axis=1)
        found[name] = {
            "ms": float(np.median(times)),
            "ratio": float(np.median(times) / np.median(first)),
            "95%": [round(float(end), 4) for end in np.quantile(ratios, [0.025, 0.975])],
        }
    return found


def _host(work: Work) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def _keep_busy(milliseconds: float) -> None:
    torch.cuda._sleep(int(milliseconds * _CYCLES_A_MS))


def _events() -> tuple[torch.cuda.Event, torch.cuda.Event]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
