"""What `BaselineCallback` adds to a training step.

One Lightning fit; the callback profiles blocks of consecutive steps and leaves out others, in random order, so that
both kinds of step meet the same state of the machine. The first step of a block is not counted: it bears the
after-effects of the block before. A profiled step takes in images, outputs, labels and one layer. The figure is the
ratio of the median step times, with a 95% bootstrap interval.

    python -m benchmarks.training.lightning_step [--quick] [--stem cifar] [--device cuda] [--clock thread] [--json FILE]
    python -m benchmarks.training.lightning_step --keras-backend all [--steps 200] [--quick]

On a CPU: ResNet-18 on 3 x 32 x 32 images, batches of 64. With `--device cuda`: ResNet-50 on 3 x 224 x 224, batches of
256, bfloat16. `--keras-backend` measures `model.fit` instead: `keras_step.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import results
from benchmarks.training import keras_step
from benchmarks.training.keras_step import ratio_of_medians
from lensai_integrations.lightning import BaselineCallback

TARGET = 1.05
BLOCK = 6  # steps
CLASSES = 10
CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}


class Classifier(pl.LightningModule):
    """A torchvision ResNet, as in its own training reference: cross entropy, SGD with momentum."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Cross entropy of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Now(BaselineCallback):
    """Profiles the steps that `chosen` says, by their number."""

    chosen: frozenset[int] = frozenset()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Open the batch of a chosen step."""
        if batch_idx in self.chosen:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the batch of a chosen step."""
        if batch_idx in self.chosen:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class Clock(pl.Callback):
    """Calls `tick` at the start or at the end of every step, as first or last of the callbacks."""

    def __init__(self, tick: Callable[[], None], *, at_start: bool) -> None:
        self.tick, self.at_start = tick, at_start

    @property
    def state_key(self) -> str:
        """Two clocks in one trainer."""
        return f"Clock{self.at_start}"

    def on_train_batch_start(self, *_: Any) -> None:
        """First."""
        if self.at_start:
            self.tick()

    def on_train_batch_end(self, *_: Any) -> None:
        """Last."""
        if not self.at_start:
            self.tick()


def network(device: str, stem: str) -> nn.Module:
    """ResNet-18 or, on a GPU, ResNet-50; `stem="cifar"` keeps the resolution of small images."""
    build = torchvision.models.resnet50 if device == "cuda" else torchvision.models.resnet18
    net: nn.Module = build(num_classes=CLASSES)
    if stem == "cifar":
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
    return net


def step_times(device: str, stem: str, pairs: int, batch: int, side: int, clock: Callable[[], float]) -> np.ndarray:
    """Seconds of the steps in `pairs` of a plain and a profiled block, float64 `[pairs, 2, BLOCK - 1]`."""
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(batch * 8, 3, side, side), torch.randint(CLASSES, (batch * 8,)))
    order = torch.arange(2 * pairs * BLOCK * batch) % len(data)
    loader = DataLoader(data, batch_size=batch, sampler=order.tolist(), pin_memory=device == "cuda")
    second = np.random.default_rng(0).integers(0, 2, pairs)
    blocks = 2 * np.arange(pairs) + second
    stamps: list[float] = []

    def tick() -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        stamps.append(clock())

    with tempfile.TemporaryDirectory() as root:
        callback = Now(layers=["avgpool"], reference="training", directory=f"{root}/baseline")
        callback.chosen = frozenset((blocks[:, None] * BLOCK + np.arange(BLOCK)).ravel().tolist())
        trainer = pl.Trainer(
            accelerator="gpu" if device == "cuda" else "cpu",
            devices=1,
            precision="bf16-mixed" if device == "cuda" else "32-true",
            max_epochs=1,
            callbacks=[Clock(tick, at_start=True), callback, Clock(tick, at_start=False)],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=root,
        )
        trainer.fit(Classifier(network(device, stem)), loader)
        if callback.baseline_ is None or callback.baseline_.n != pairs * BLOCK * batch:
            sys.exit("the profiled steps are not in the baseline: the figures would be of nothing")
    times = np.diff(np.array(stamps).reshape(-1, 2), axis=1).reshape(pairs, 2, BLOCK)[:, :, 1:]
    return np.take_along_axis(times, np.stack([1 - second, second], axis=1)[:, :, None], axis=1)


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--stem", choices=("plain", "cifar"), default="plain", help="first layers of the ResNet")
    parser.add_argument("--pairs", type=int, default=40, help=f"pairs of blocks of {BLOCK} steps")
    parser.add_argument("--batch", type=int, help="images in a batch")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="thread: CPU time of the training thread",
    )
    parser.add_argument("--quick", action="store_true", help="few steps: does it run")
    parser.add_argument("--keras-backend", choices=[*keras_step.TARGETS, "all"], help="of model.fit instead")
    parser.add_argument("--steps", type=int, default=200, help="with --keras-backend: steps of each kind")
    results.add_argument(parser)
    options = parser.parse_args()
    if options.keras_backend:
        keras_step.measure_all(options.keras_backend, options.steps, options.json, quick=options.quick)
        return
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("skipped: no CUDA device")
        return
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lensai_integrations").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    batch, side = options.batch or (256 if on_gpu else 64), 224 if on_gpu else 32
    pairs = 3 if options.quick else options.pairs
    times = step_times(options.device, options.stem, pairs + 1, batch, side, CLOCKS[options.clock])[1:]
    ratio, low, high = ratio_of_medians(times)
    plain, profiled = np.median(times, axis=(0, 2)) * 1e3
    name = f"ResNet-{50 if on_gpu else 18} ({options.stem} stem), {batch} x 3 x {side} x {side}, {options.device}"
    verdict = "within" if ratio <= TARGET else "ABOVE"
    print(
        f"{name}: plain {plain:.1f} ms, profiled {profiled:.1f} ms, ratio {ratio:.3f} "
        f"(95% {low:.3f} to {high:.3f}, {times[:, 0].size} steps each, {options.clock} clock), {verdict} {TARGET}; "
        f"ratio of means {times[:, 1].mean() / times[:, 0].mean():.3f}"
    )
    figures = {"ratio": ratio, "low": low, "high": high, "plain, ms": plain, "profiled, ms": profiled}
    results.write(options.json, "training/lightning_step", {name: figures})


if __name__ == "__main__":
    main()
