"""A run on a GPU: its device, its size, its clock, and parts that are left out as the time given runs out."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from benchmarks.gpu.pretending import as_an_accelerator

LEFT_OUT: Final = "left out"
#: Figures under this name are kept and not printed.
DETAIL: Final = "in detail"


@dataclass(frozen=True)
class Run:
    """What every part is given.

    Attributes:
        device: Where everything happens.
        quick: Small sizes: does it run.
        budget: Seconds that there are.
        begun: When it began, by `time.monotonic`.
    """

    device: torch.device
    quick: bool = False
    budget: float = 480.0
    begun: float = field(default_factory=time.monotonic)

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU, and no stand-in."""
        return self.device.type == "cuda"

    @property
    def side(self) -> int:
        """Height and width of images."""
        return 32 if self.quick else 224

    @property
    def batches(self) -> tuple[int, ...]:
        """Images in a batch."""
        return (4,) if self.quick else (128, 256)

    def left(self) -> float:
        """Seconds."""
        return self.budget - (time.monotonic() - self.begun)

    def wait(self) -> None:
        """Until the device has done all it was asked for."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Part:
    """Something to find out.

    Attributes:
        name: For people and for `--only`.
        seconds: That it takes at most on a GPU; with fewer left it does not begin.
        measure: From a run to figures.
        gpu: Whether it can be done on a GPU alone.
        pretends: Whether a CPU's tensors are to be treated as a GPU's in all of it, where there is none.
    """

    name: str
    seconds: float
    measure: Callable[[Run], Mapping[str, Any]]
    gpu: bool = False
    pretends: bool = True


def run_parts(
    run: Run,
    parts: Sequence[Part],
    keep: Callable[[Mapping[str, Any]], None],
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The figures of each part by its name. An error of one is kept as its figures, and the others go on.

    Args:
        run: What they are given.
        parts: In the order of their importance.
        keep: Given all figures after every part, so that what is cut short leaves what there was.
        say: Told how it goes.
    """
    figures: dict[str, Any] = {}
    for part in parts:
        if part.gpu and not run.on_gpu:
            figures[part.name] = "needs a GPU"
        elif run.left() < (0 if run.quick else part.seconds):
            figures[part.name] = LEFT_OUT
        else:
            figures[part.name] = _measured(run, part, say)
        if isinstance(figures[part.name], str):
            say(f"-- {part.name}: {figures[part.name]}")
        keep(figures)
    return figures


def _measured(run: Run, part: Part, say: Callable[[str], None]) -> Mapping[str, Any]:
    began = time.monotonic()
    say(f"== {part.name} ({run.left():.0f} s left)")
    try:
        with as_an_accelerator() if part.pretends and not run.on_gpu else nullcontext():
            figures: Mapping[str, Any] = part.measure(run)
    except Exception as error:  # noqa: BLE001  the others go on
        figures = {"error": repr(error), "trace": traceback.format_exc()[-2500:]}
    finally:
        torch.use_deterministic_algorithms(False)
        if run.on_gpu:
            torch.cuda.set_sync_debug_mode("default")
            gc.collect()
            torch.cuda.empty_cache()
    for line in lines_of(figures):
        say(f"   {line}")
    say(f"   {time.monotonic() - began:.1f} s")
    return figures


def lines_of(figures: Any, name: str = "") -> list[str]:
    """Figures as lines of `name: value`, those of inner names indented.

    Example:
        >>> lines_of({"a": 1.23456, "b": {"c": [1, 2]}})
        ['a: 1.235', 'b', '   c: [1, 2]']
    """
    if isinstance(figures, Mapping):
        shown = ((key, value) for key, value in figures.items() if key != DETAIL)
        inner = [line for key, value in shown for line in lines_of(value, str(key))]
        return inner if not name else [name, *(f"   {line}" for line in inner)]
    if isinstance(figures, float):
        figures = float(f"{figures:.4g}")
    if isinstance(figures, str) and "\n" in figures:
        return [f"{name}:", *(f"   {line}" for line in figures.strip().splitlines()[-12:])]
    return [f"{name}: {figures}"]
