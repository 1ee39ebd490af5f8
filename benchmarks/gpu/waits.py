"""Where the host would wait for the device: by CUDA's own word, and by the host's time behind work that is queued."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu.data import NORMALISED
from benchmarks.gpu.overhead import CLASSES, OnlyRecorded
from benchmarks.gpu.running import Run
from benchmarks.gpu.timing import BUSY, host_behind_work
from lensai_integrations import Profiler
from lensai_integrations.monitoring.batches import Measuring

#: Small, so that what several steps issue fits into CUDA's queue.
BATCH = 16


def waits(run: Run) -> dict[str, Any]:
    """Host milliseconds behind 150 ms of work: of steps, of the first batch of an epoch, of segments, of windows."""
    batch = 4 if run.quick else BATCH
    alone = OnlyRecorded(run, batch)
    alone.step()
    found: dict[str, Any] = {}
    if run.on_gpu:
        torch.cuda.set_sync_debug_mode("error")
    for _ in range(4 if run.quick else 40):
        alone.step()
    if run.on_gpu:
        torch.cuda.set_sync_debug_mode("default")
    found["problems where waiting is an error"] = list(alone.recorded.problems.messages)
    found["steps"] = host_behind_work(run, alone.step, 2 if run.quick else 40, busy=50.0)

    def first_batch() -> None:
        alone.recorded.begin()
        alone.step()

    found["first batch of an epoch"] = host_behind_work(run, first_batch, 3)
    found["segments by label"] = _segments(run, alone)
    found["a window of a monitor"] = _windows(run, alone)
    found["one that does wait"] = host_behind_work(run, lambda: alone.images.sum().item(), 2)
    found["work, ms"] = BUSY
    return found


def _segments(run: Run, alone: OnlyRecorded) -> dict[str, float]:
    profiler = Profiler(inputs=NORMALISED, seed=[1], segment_by="label", task="logits")
    outputs, layer, labels = _answers(run, alone)

    def update() -> None:
        profiler.update(inputs=alone.images, outputs=outputs, embeddings={"avgpool": layer}, labels=labels % 20)

    update()
    return host_behind_work(run, update, 3 if run.quick else 40, busy=50.0)


def _windows(run: Run, alone: OnlyRecorded) -> dict[str, float]:
    outputs, layer, labels = _answers(run, alone)
    reference = Profiler(inputs=NORMALISED, seed=[1], task="logits")

    def update(profiler: Profiler) -> None:
        profiler.update(inputs=alone.images, outputs=outputs, embeddings={"avgpool": layer}, labels=labels)

    update(reference)
    measuring = Measuring(reference.profile())
    update(measuring.profiler())
    return host_behind_work(run, lambda: update(measuring.profiler()), 3)


def _answers(run: Run, alone: OnlyRecorded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    n = len(alone.images)
    outputs, layer = torch.randn(n, CLASSES, device=run.device), torch.randn(n, alone.model.width, device=run.device)
    return outputs, layer, alone.labels
