"""Whether a profile made on the device is the one made on the host: counts and classes exactly, the rest closely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.data import BYTES, NORMALISED, normalised, photos
from benchmarks.gpu.pretending import as_an_accelerator
from benchmarks.gpu.running import DETAIL, Run
from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.bank import KLLBank

RANKS: Final = np.linspace(0, 1, 101)
#: How far quantiles may be apart, of the spread of their stream, and the others relative to their largest number.
CLOSE: Final = {"quantiles": 1e-3, "moments": 1e-4, "kernel mean": 1e-3}

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def batches_of(number: int, dtype: torch.dtype, *, n: int = 64, classes: int = 10, odd: bool = False) -> list[Batch]:
    """Images, outputs, a layer and labels, on the host; with `odd` some rows and an image are not finite."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for batch in range(number):
        pixels = photos(n, 32, batch)
        images = pixels if dtype == torch.uint8 else normalised(pixels, dtype)
        outputs = torch.randn(n, classes, generator=generator).to(torch.bfloat16).float()
        layer = torch.randn(n, 64, generator=generator).to(torch.bfloat16).float() * (1 + torch.arange(64) / 10)
        if odd and batch == 1:
            outputs[3, 2], layer[5, 1], images[7, 0, 3, 3] = float("nan"), float("inf"), float("nan")
        made.append((images, outputs, layer, torch.randint(0, classes, (n,), generator=generator)))
    return made


def profiled(
    run: Run, batches: Sequence[Batch], reader: ImageInputs, where: Any, *contexts: Callable[[], Any]
) -> Profile:
    """The profile of batches that were moved somewhere; all but the first are taken in within the contexts."""
    profiler = Profiler(inputs=reader, seed=[7], task="logits", rows=300)
    for number, batch in enumerate(batches):
        images, outputs, layer, labels = (part.to(where) for part in batch)
        with torch.no_grad(), ExitStack() as stack:
            for context in contexts if number else ():
                stack.enter_context(context())
            profiler.update(inputs=images, outputs=outputs, embeddings={"layer": layer}, labels=labels)
    run.wait()
    return profiler.profile()


def differences(host: Profile, device: Profile) -> dict[str, dict[str, Any]]:
    """How far two profiles are apart, by group."""
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set(host.groups) | set(device.groups)):
        if name not in host.groups or name not in device.groups:
            found[name] = {"missing": True}
            continue
        one, two = host.groups[name], device.groups[name]
        apart: dict[str, Any] = {"rows": [one.n, two.n], "left out": [one.invalid, two.invalid]}
        if one.bank is not None and two.bank is not None:
            quantiles = one.bank.quantiles(RANKS)
            spread = np.maximum(np.ptp(quantiles, axis=1), 1e-6)[:, None]
            apart["quantiles"] = float(np.max(np.abs(quantiles - two.bank.quantiles(RANKS)) / spread))
            apart["same bytes of the bank"] = one.bank.to_bytes() == two.bank.to_bytes()
        if one.pixels is not None and two.pixels is not None:
            apart["pixels counted"] = [int(one.pixels.counts.sum()), int(two.pixels.counts.sum())]
            apart["pixels in another bin"] = int(np.abs(one.pixels.counts - two.pixels.counts).sum() // 2)
        for head, classes in one.categories.items():
            apart[f"same classes {head}".strip()] = classes.top(50) == two.categories[head].top(50)
        if one.kernel_mean is not None and two.kernel_mean is not None:
            apart["kernel mean"] = float(np.abs(one.kernel_mean.mean - two.kernel_mean.mean).max())
        if one.moments is not None and two.moments is not None:
            covariance = one.moments.covariance
            apart["moments"] = float(np.abs(covariance - two.moments.covariance).max() / np.abs(covariance).max())
        found[name] = apart
    return found


def unequal(apart: dict[str, dict[str, Any]]) -> list[str]:
    """What of two profiles differs more than it may, in words."""
    found = []
    for group, figures in apart.items():
        for name, value in figures.items():
            pair = isinstance(value, list) and value[0] != value[1]
            far = name in CLOSE and value > CLOSE[name]
            differs = name == "missing" or (name.startswith("same classes") and not value)
            if pair or far or differs:
                found.append(f"{group}, {name}: {value}")
    return found


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def same_as_the_host(run: Run) -> dict[str, Any]:
    """Profiles of both: of several dtypes, and under autocast, inference mode and deterministic algorithms."""
    kinds = {
        "float32": (torch.float32, NORMALISED),
        "uint8": (torch.uint8, BYTES),
        "bfloat16": (torch.bfloat16, NORMALISED),
        "float16": (torch.float16, NORMALISED),
        "float32 with rows that are not finite": (torch.float32, NORMALISED),
    }
    strict: list[Callable[[], Any]] = [_refusing_to_wait] if run.on_gpu else []
    ways: dict[str, list[Callable[[], Any]]] = {
        "": strict,
        ", autocast": [*strict, lambda: torch.autocast(run.device.type, torch.bfloat16)],
        ", inference mode": [*strict, torch.inference_mode],
        ", deterministic": [*strict, _deterministic],
    }
    found: dict[str, Any] = {}
    for name, (dtype, reader) in kinds.items():
        batches = batches_of(4 if run.quick else 12, dtype, n=32 if run.quick else 64, odd="not finite" in name)
        host = profiled(run, batches, reader, "cpu")
        for way, contexts in ways.items() if name == "float32" else [("", strict)]:
            try:
                with nullcontext() if run.on_gpu else as_an_accelerator():
                    device = profiled(run, batches, reader, run.device, *contexts)
            except Exception as error:  # noqa: BLE001  such as a wait that is refused; the others go on
                found[name + way] = {"differs in": [f"raised {error!r}"[:300]]}
                continue
            apart = differences(host, device)
            found[name + way] = {"differs in": unequal(apart) or "nothing", DETAIL: apart}
    return found


def same_bytes(run: Run) -> dict[str, Any]:
    """Given the same float32 rows, banks on host and device keep the same items: their bytes are equal."""
    found = {}
    for width, batch in ((16, 100), (64 if run.quick else 2048, 128)):
        rows = torch.randn(1000 if run.quick else 6000, width, generator=torch.Generator().manual_seed(1))
        host, device = KLLBank(width, seed=3), KLLBank(width, seed=3)
        with nullcontext() if run.on_gpu else as_an_accelerator():
            for some in rows.split(batch):
                host.update(some.numpy())
                device.update(some.to(run.device))
        found[f"{width} streams"] = host.to_bytes() == device.to_host().to_bytes()
    return found
