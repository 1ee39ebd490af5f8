"""What profiling adds to a training step of a ResNet: steps with it and without it in turns.

The model is torchvision's ResNet-50 in bfloat16 autocast, channels last, SGD with momentum (a small one if it is only
tried out). The recording is the callback's own; a trainer's loop, which has costs of its own, is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.data import NORMALISED, normalised, photos
from benchmarks.gpu.graphs import SmallNet
from benchmarks.gpu.recorded import Answers, Recorded
from benchmarks.gpu.running import DETAIL, Run
from benchmarks.gpu.timing import device_ms, host_behind_work, host_ms, interleaved, queued_ms

CLASSES = 1000
#: Of the last layer of a ResNet-50.
WIDTH = 2048


class Training:
    """Steps of a ResNet.

    Attributes:
        network: Which.
        model: The same, compiled if that was asked for.
        batches: Two, on the device.
    """

    def __init__(self, run: Run, batch: int) -> None:
        torch.manual_seed(0)
        network = SmallNet() if run.quick else import_module("torchvision").models.resnet50(num_classes=CLASSES)
        self.network: nn.Module = network.to(run.device, memory_format=torch.channels_last)
        self.model: Callable[[Tensor], Tensor] = self.network
        self._optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, foreach=True)
        self._device, self._step = run.device, 0
        self.batches = [
            (
                normalised(photos(batch, run.side, seed)).to(run.device, memory_format=torch.channels_last),
                torch.randint(0, 10 if run.quick else CLASSES, (batch,), device=run.device),
            )
            for seed in range(2)
        ]

    def step(self, recorded: Recorded | None = None, every: int = 1) -> None:
        """One step, recorded if its number is a multiple of `every`."""
        images, labels = self.batches[self._step % 2]
        recorded = recorded if self._step % every == 0 else None
        self._step += 1
        if recorded is not None:
            recorded.open(images, labels)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self._optimizer.step()
        if recorded is not None:
            recorded.close()

    def second_pass(self) -> None:
        """What is usually done instead: another forward pass, to which measuring would come."""
        self.network.eval()
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16):
            self.model(self.batches[0][0])
        self.network.train()


def of_steps(run: Run, batch: int, *, compiled: bool = False) -> dict[str, Any]:
    """Plain steps, plain steps again (what the ratio is worth), and profiled ones in turns."""
    training = Training(run, batch)
    everything = Recorded(training.network, NORMALISED)
    images_alone = Recorded(training.network, NORMALISED, None)
    if compiled:
        training.model = torch.compile(training.network, **({"backend": "eager"} if run.quick else {}))
    steps_of = {
        "plain": training.step,
        "plain again": training.step,
        "images and labels": partial(training.step, images_alone),
        "all": partial(training.step, everything),
        "all, every 4th": partial(training.step, everything, 4),
    }
    blocks, steps = (2, 2) if run.quick else (8 if compiled else 14, 8)
    found: dict[str, Any] = dict(interleaved(run, steps_of, blocks, steps))
    found["images a second, plain"] = 1e3 * batch / found["plain"]["ms"]
    found["a second forward pass, ms"] = device_ms(run, training.second_pass, 2 if run.quick else 5)
    found["a second forward pass, ratio"] = 1 + found["a second forward pass, ms"] / found["plain"]["ms"]
    found["problems"] = everything.problems.messages + images_alone.problems.messages
    return found


class OnlyRecorded:
    """What a profiled step adds, without the step: of a model with the same layer and outputs that takes no time."""

    def __init__(self, run: Run, batch: int, *, layers: bool = True) -> None:
        self.images = normalised(photos(batch, run.side)).to(run.device, memory_format=torch.channels_last)
        self.labels = torch.randint(0, CLASSES, (batch,), device=run.device)
        self.model = Answers(64 if run.quick else WIDTH, CLASSES, run.device)
        self.recorded = Recorded(self.model, NORMALISED, ["avgpool"] if layers else None)

    def step(self) -> None:
        """One."""
        self.recorded.open(self.images, self.labels)
        self.forward()
        self.recorded.close()

    def forward(self) -> None:
        """What of it is no part of profiling."""
        with torch.no_grad():
            self.model(self.images)


def of_one_batch(run: Run) -> dict[str, Any]:
    """Time of the device, time of the host, and memory that one profiled batch adds.

    Of the steady state: rows are taken together every few batches, so it is the mean of a round of 16.
    """
    found: dict[str, Any] = {}
    for layers in (True, False):
        for batch in run.batches:
            alone = OnlyRecorded(run, batch, layers=layers)
            rounds = 2 if run.quick else 16
            _times(rounds, alone.step)
            base = _memory(run)
            _times(rounds, alone.step)
            peak = _peak(run) - base
            figures: dict[str, Any] = {"at its peak, MiB": peak, "kept, MiB": base}
            for name, timed in {"with the host, ms": device_ms, "of the host, ms": host_ms}.items():
                took = [timed(run, partial(_times, rounds, work), 5) for work in (alone.step, alone.forward)]
                figures[name] = (took[0] - took[1]) / rounds
            some = {"steps": partial(_times, 4, alone.step), "forward": partial(_times, 4, alone.forward)}
            queued = {name: queued_ms(run, work, 12) for name, work in some.items()}
            figures["of the device, ms"] = (queued["steps"] - queued["forward"]) / 4
            figures["of the host behind 150 ms of work, ms"] = host_behind_work(run, alone.step, 8)
            figures["problems"] = alone.recorded.problems.messages
            found[f"{'all' if layers else 'images and labels'}, batch {batch}"] = figures
    return found


def _times(number: int, work: Callable[[], None]) -> None:
    for _ in range(number):
        work()


def _memory(run: Run) -> float:
    """MiB of the device that are in use; from here on the peak counts."""
    if not run.on_gpu:
        return 0.0
    run.wait()
    torch.cuda.reset_peak_memory_stats(run.device)
    return torch.cuda.memory_allocated(run.device) / 2**20


def _peak(run: Run) -> float:
    return torch.cuda.max_memory_allocated(run.device) / 2**20 if run.on_gpu else 0.0


def kernels_by_time(run: Run) -> dict[str, Any]:
    """Kernels of a profiled batch by the device's time, and calls of CUDA's runtime: those that wait, too."""
    from torch.profiler import ProfilerActivity, profile

    alone, rounds = OnlyRecorded(run, run.batches[0]), 2 if run.quick else 16
    for _ in range(rounds):
        alone.step()
    run.wait()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if run.on_gpu else [])
    with profile(activities=activities) as profiled:
        for _ in range(rounds):
            alone.step()
        run.wait()
    events = profiled.key_averages()
    kind, time_of = ("CUDA", "self_device_time_total") if run.on_gpu else ("CPU", "self_cpu_time_total")
    rows = [(getattr(event, time_of), event.count, event.key) for event in events if event.device_type.name == kind]
    rows.sort(reverse=True)
    return {
        "of the device, ms a batch": sum(row[0] for row in rows) / rounds / 1e3,
        "kernels and copies a batch": sum(row[1] for row in rows) / rounds,
        "aten operations a batch": sum(event.count for event in events if event.key.startswith("aten::")) / rounds,
        "calls of the runtime a batch": {
            event.key: event.count / rounds for event in events if event.key.startswith("cuda")
        },
        "longest, us a batch": {key[:90]: round(took / rounds, 1) for took, _, key in rows[:15]},
        DETAIL: [[took / rounds, count / rounds, key] for took, count, key in rows[:80]],
    }
