"""No profiled step waits for the accelerator.

Where there is a GPU, CUDA itself tells. Everywhere else the `meta` device stands in for one: its tensors have shapes
and no values, so whatever would have to read a value raises; and copies that would block are caught where torch
dispatches them.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.problems import Problems
from lensai_integrations.profiling.batch_reading import BatchReader
from lensai_integrations.torch import profiled
from lensai_integrations.torch.finding import attach
from lensai_integrations.torch.recording import LoaderPass

RESOLVED = ImageInputs(layout="NCHW", scale=255.0, kind="float")
STEPS = 24  # enough for every sketch to compact


class BlockingCopies(TorchDispatchMode):
    """Raises where values go between devices and the host would wait."""

    def __torch_dispatch__(self, function, _, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default:
            _refuse(args[0].device, kwargs.get("device"), kwargs.get("non_blocking", False))
        if function is torch.ops.aten.copy_.default:
            _refuse(args[1].device, args[0].device, args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        return function(*args, **kwargs)


class BlockingConstants(TorchFunctionMode):
    """Raises where a host value is made into a tensor on the device, which copies and waits."""

    def __torch_function__(self, function, _, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            source = getattr(args[0], "device", torch.device("cpu"))
            _refuse(torch.device(str(source)), kwargs["device"], non_blocking=False)
        return function(*args, **kwargs)


def _refuse(source, target, non_blocking):
    if target is not None and torch.device(target).type != source.type and not non_blocking:
        raise AssertionError(f"a copy from {source} to {target} waits")


def record(model, device, arguments, strict, steps=2):
    """Profile batches as the callback does, the first of them as it is and the others under `strict`."""
    problems = Problems(quiet=True)
    taps = attach(model, BaselineCallback(**arguments)._options, problems)
    profiler = Profiler(inputs=RESOLVED, task="logits", max_dim=5)
    recording = LoaderPass("training", lambda _: (BatchReader(RESOLVED, 1, problems), profiler), taps, problems)
    recording.start(None)
    for step in range(steps):
        batch = torch.rand(64, 3, 16, 16, device=device), torch.zeros(64, dtype=torch.int64, device=device)
        with contextlib.ExitStack() as modes:
            for mode in strict if step else ():
                modes.enter_context(mode())
            recording.open(batch)
            model(batch[0])
            recording.close()
    taps.remove()
    return profiler, problems


@pytest.mark.slow
def test_no_value_of_the_device_is_read(net):
    arguments = {"layers": ["conv", "avgpool", "fc.input"], "reduce": {"conv": "max", "avgpool": "flatten"}}
    profiler, problems = record(net().to("meta"), "meta", arguments, [BlockingCopies, BlockingConstants], STEPS)

    assert problems.messages == []
    assert profiler.n == STEPS * 64
    assert set(profiler._recorders) == {
        "inputs", "outputs", "embeddings/conv", "embeddings/avgpool", "embeddings/fc.input", "labels",
    }  # fmt: skip


def test_nor_does_a_plain_loop(net):
    model = net().to("meta").eval()
    arguments = {"inputs": RESOLVED, "task": "logits", "layers": ["conv", "fc.input"], "max_dim": 5}
    with profiled(model, **arguments) as profiler:
        for step in range(4):
            images, labels = torch.rand(64, 3, 16, 16, device="meta"), torch.zeros(64, dtype=torch.int64, device="meta")
            with contextlib.ExitStack() as modes:
                for mode in (BlockingCopies, BlockingConstants) if step else ():
                    modes.enter_context(mode())
                with profiler.batch(labels=labels):
                    model(images)
        assert profiler._problems.messages == []
        assert profiler._recording._prepared[1].n == 4 * 64


@pytest.mark.parametrize(
    "wait",
    [lambda x: x.sum().item(), lambda x: x[x > 0], lambda x: x.cpu(), lambda x: bool(x.any()), lambda x: x.nonzero()],
    ids=["item", "mask", "cpu", "bool", "nonzero"],
)
def test_the_stand_in_would_notice(net, wait):
    def waits(maps):
        wait(maps)
        return maps.mean(dim=(2, 3))

    _, problems = record(net().to("meta"), "meta", {"layers": ["conv"], "reduce": waits}, [])

    assert len(problems.messages) == 1


@pytest.mark.parametrize(
    "copies",
    [lambda x: x + torch.ones(1).to(x.device), lambda x: x + torch.tensor(1.0, device=x.device)],
    ids=["copy", "constant"],
)
def test_blocking_copies_would_be_noticed(net, copies):
    modes = [BlockingCopies, BlockingConstants]
    _, problems = record(
        net().to("meta"), "meta", {"layers": ["conv"], "reduce": lambda x: copies(x).mean((2, 3))}, modes
    )

    assert "waits" in problems.messages[0]


class Strict(BaselineCallback):
    """Lets CUDA raise where a hook of this callback would wait, from the second batch on."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with watched(pl_module.device, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with watched(pl_module.device, batch_idx):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


@contextlib.contextmanager
def watched(device, batch_idx):
    on = device.type == "cuda" and batch_idx > 0
    if on:
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if on:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_a_fit_waits_only_at_the_first_batch_and_at_the_end(trainer, lit, loaders, device, deterministic):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")

    class Watched(lit):
        def training_step(self, batch, batch_idx):
            with watched(self.device, batch_idx):
                scores = self(batch[0])
            return nn.functional.cross_entropy(scores, batch[1])

    callback = Strict(layers=["conv", "fc.input"], training="all", max_dim=5)
    running = trainer(
        callback,
        accelerator="gpu" if device == "cuda" else "cpu",
        precision="bf16-mixed",
        deterministic="warn" if deterministic and device == "cuda" else None,
    )
    running.fit(Watched(), loaders(STEPS * 8), loaders(16))

    assert callback.baseline_.warnings == []
    assert {group.n for group in callback.baseline_.training.groups.values()} == {STEPS * 8}
    assert {group.n for group in callback.baseline_.reference.groups.values()} == {16}
