"""How much goes through the parts of profiling alone: values through a bank, images through the measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.gpu.data import BYTES, NORMALISED, normalised, photos
from benchmarks.gpu.running import Run
from benchmarks.gpu.timing import device_ms, host_ms, queued_ms
from lensai_integrations import ImageInputs
from lensai_integrations.measures.images import measure_by_conventions
from lensai_integrations.sketches.bank import KLLBank

KERNELS: Final = "lensai_integrations.measures.kernels"


def bank(run: Run) -> dict[str, Any]:
    """G values a second that a bank of KLL sketches takes in, host and device together."""
    found = {}
    for width in (64,) if run.quick else (128, 512, 2048):
        for batch in (64, 256, 512):
            rows = [torch.randn(batch, width, device=run.device) for _ in range(8)]
            sketches, times = KLLBank(width, seed=0), (1024 if run.quick else 4096) // batch

            def some(sketches: KLLBank = sketches, rows: list[Tensor] = rows, times: int = times) -> None:
                for number in range(times):
                    sketches.update(rows[number % len(rows)])

            found[f"{width} streams, batches of {batch}"] = times * batch * width / device_ms(run, some, 5) / 1e6
    return found


def measures(run: Run) -> dict[str, Any]:
    """Images a second of all measures and exact counts, by Triton's kernels and by the formulas."""
    found: dict[str, Any] = {}
    ways: dict[str, Callable[[], Any]] = {"formulas": _without_kernels}
    if run.on_gpu and find_spec(KERNELS) is not None:
        ways = {"kernels": nullcontext, **ways}
    batch = run.batches[0]
    for name, (images, reader) in _kinds(photos(batch, run.side)).items():
        read = reader.resolve(images).read(images.to(run.device))
        for convention in ("lensai", "lensai-edge"):
            for way, context in ways.items():

                def measure(read: Any = read, convention: str = convention) -> None:
                    measure_by_conventions(read, (convention,))

                with context(), torch.no_grad():
                    queued = queued_ms(run, measure, 6)
                    found[f"{name}, {convention}, {way}"] = {
                        "k images a second": batch / queued,
                        "of the device, ms": queued,
                        "of the host, ms": host_ms(run, measure, 4),
                    }
    return found


def kernels_and_formulas(run: Run) -> dict[str, Any]:
    """Whether the kernels on this device count what the formulas count there, and how far their measures are apart."""
    found: dict[str, Any] = {}
    for name, (images, reader) in _kinds(photos(32, 65)).items():
        read = reader.resolve(images).read(images.to(run.device))
        with torch.no_grad():
            rows, _, counts, _ = measure_by_conventions(read, ("lensai", "lensai-edge"))
            with _without_kernels():
                true_rows, _, true_counts, _ = measure_by_conventions(read, ("lensai", "lensai-edge"))
        apart = {}
        for convention, measured in rows.items():
            one, two = (torch.as_tensor(each).double().cpu() for each in (measured, true_rows[convention]))
            apart[convention] = float(((one - two).abs() / (two.abs() + 1e-2)).max())
        same = bool((torch.as_tensor(counts).cpu() == torch.as_tensor(true_counts).cpu()).all())
        found[name] = {"same counts": same, "largest relative difference": apart}
    return found


def _kinds(pixels: Tensor) -> dict[str, tuple[Tensor, ImageInputs]]:
    last = torch.channels_last
    return {
        "uint8, NCHW": (pixels, BYTES),
        "uint8, NHWC": (pixels.permute(0, 2, 3, 1).contiguous(), ImageInputs(layout="NHWC", scale=1.0)),
        "float32": (normalised(pixels), NORMALISED),
        "float32, channels last": (normalised(pixels).contiguous(memory_format=last), NORMALISED),
        "bfloat16": (normalised(pixels, torch.bfloat16), NORMALISED),
    }


@contextmanager
def _without_kernels() -> Iterator[None]:
    """The array formulas, as where Triton is not there."""
    if find_spec(KERNELS) is None:
        yield
        return
    kernels = import_module(KERNELS)
    true = kernels.runs_on
    kernels.runs_on = lambda pixels: False
    try:
        yield
    finally:
        kernels.runs_on = true
