"""What the device can do at best, and whether copies from the host wait."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.gpu.running import Run
from benchmarks.gpu.timing import host_behind_work, host_ms, queued_ms
from lensai_integrations.arrays.namespaces import send

#: Shapes of bytes that counting by sorting has, and one of floats that a bank has.
SORTED = ((1, 1 << 22), (3, 1 << 20), (41, 50176), (128, 50176))


def ceilings(run: Run) -> dict[str, Any]:
    """Copying, launching and sorting."""
    found: dict[str, Any] = {}
    if run.on_gpu:
        properties = torch.cuda.get_device_properties(run.device)
        found |= {"device": properties.name, "multiprocessors": properties.multi_processor_count}
        found |= {"CUDA": torch.version.cuda, "memory, GiB": properties.total_memory / 2**30}
    found["copied, TB/s"] = _copying(run)
    small = torch.zeros(128, device=run.device)

    def a_hundred() -> None:
        for _ in range(100):
            small.add_(1)

    found["a launch on the device, us"] = 10 * queued_ms(run, a_hundred, 5)
    found["a launch on the host, us"] = 10 * host_ms(run, a_hundred, 5)
    found["sorts, G keys/s"] = {}
    for rows, length in SORTED[2:3] if run.quick else SORTED:
        values = torch.randint(0, 256, (rows, length // (100 if run.quick else 1)), device=run.device).to(torch.uint8)
        took = queued_ms(run, lambda values=values: torch.sort(values, dim=1, stable=True), 5)
        found["sorts, G keys/s"][f"{rows} x {length} bytes"] = values.numel() / took / 1e6
    rows = torch.randn(512, 2048 if not run.quick else 64, device=run.device)
    took = queued_ms(run, lambda: torch.sort(rows.T, dim=1, stable=True), 5)
    found["sorts, G keys/s"]["2048 x 512 floats"] = rows.numel() / took / 1e6
    return found


def _copying(run: Run) -> float:
    large = torch.empty(1 << (20 if run.quick else 30), device=run.device)
    other = torch.empty_like(large)
    return 2 * large.nbytes / queued_ms(run, lambda: other.copy_(large), 5) / 1e9


def copies(run: Run) -> dict[str, Any]:
    """Host milliseconds to send arrays to a device that is busy: as the package does, and as torch does.

    A copy from pageable memory that is larger than CUDA's staging buffer waits for everything queued before it.
    """
    like = torch.zeros(1, device=run.device)
    found: dict[str, Any] = {"by the package": {}, "pageable": {}}
    for kib in (2, 64) if run.quick else (2, 16, 60, 128, 1024, 8192):
        array = np.zeros(kib * 128)
        found["by the package"][f"{kib} KiB"] = host_behind_work(run, lambda array=array: send(array, like), 3)
        tensor = torch.from_numpy(array)
        sent = host_behind_work(run, lambda tensor=tensor: tensor.to(run.device, non_blocking=True), 3)
        found["pageable"][f"{kib} KiB"] = sent
    return found
