"""`profiled` in the loops of Accelerate, Fabric, Ignite and timm: the same baseline as of the plain model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lensai_integrations import Baseline, DriftMonitor
from lensai_integrations.torch import profiled

N = 50


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(torch.relu(self.norm(self.conv(images))).mean((2, 3)))


def net():
    torch.manual_seed(0)
    return Net().eval()


def loader():
    images = torch.rand(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(images, torch.arange(N) % 3), 16)


@pytest.fixture(scope="module")
def expected():
    """What a plain loop over the plain model gives."""
    model = net()
    with torch.no_grad(), profiled(model) as profiler:
        for images, labels in loader():
            with profiler.batch(labels=labels):
                model(images)
    return profiler.profile()


def is_like(profile, expected, *, rtol=1e-5, layer="fc.input"):
    names = {f"embeddings/{layer}": "embeddings/fc.input"}
    assert {names.get(name, name): group.n for name, group in profile.groups.items()} == dict.fromkeys(
        ["inputs", "outputs", "embeddings/fc.input", "labels"], N
    )
    assert profile.warnings == []
    for name, rows in profile.rows.data.items():
        theirs = expected.rows.data[names.get(name, name)]
        np.testing.assert_allclose(np.sort(rows, axis=0), np.sort(theirs, axis=0), rtol=rtol, atol=rtol)


@pytest.fixture(params=["no", "bf16"])
def accelerator(request):
    accelerate = pytest.importorskip("accelerate")
    from accelerate.state import AcceleratorState, GradientState, PartialState

    yield accelerate.Accelerator(cpu=True, mixed_precision=request.param)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def test_accelerate(accelerator, expected):
    model, data = accelerator.prepare(net(), loader())
    model.eval()
    with torch.inference_mode(), profiled(model, loader=data) as profiler:
        for images, labels in data:
            with profiler.batch(labels=labels):
                logits = model(images)
    assert logits.dtype == torch.float32
    is_like(profiler.profile(), expected, rtol=1e-5 if accelerator.mixed_precision == "no" else 0.05)
    monitor = DriftMonitor(Baseline(profiler.profile()), window=N)
    with torch.inference_mode(), monitor, monitor.watch(accelerator.unwrap_model(model)):
        for images, _ in loader():
            model(images)
    assert (monitor.status.rows, monitor.status.failures, monitor.level) == (N, {}, "ok")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_fabric(precision, expected):
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1, precision=precision)
    fabric.launch()
    model, data = fabric.setup(net()), fabric.setup_dataloaders(loader())
    model.eval()
    with torch.no_grad(), profiled(model, loader=data) as profiler:
        for images, labels in data:
            with profiler.batch(labels=labels):
                model(images)
    is_like(profiler.profile(), expected, rtol=1e-5 if precision == "32-true" else 0.05)
    assert profiler.profile().groups["embeddings/fc.input"].info["layer"] == "fc.input"  # without Fabric's words


def test_fabric_trains_bit_for_bit_the_same():
    fabric_of = pytest.importorskip("lightning.fabric").Fabric

    def trained(*, beside):
        fabric = fabric_of(accelerator="cpu", devices=1)
        torch.manual_seed(0)
        module = Net()
        model, optimizer = fabric.setup(module, torch.optim.SGD(module.parameters(), 0.1))
        data = fabric.setup_dataloaders(loader())
        profilers = [profiled(model), profiled(model, source="training")] if beside else []
        for _ in range(2):
            for training in (True, False):
                model.train(training)
                for images, labels in data:
                    if training:
                        optimizer.zero_grad()
                    if profilers:
                        with profilers[training]:
                            answer = model(images)
                    else:
                        answer = model(images)
                    if training:
                        fabric.backward(nn.functional.cross_entropy(answer, labels))
                        optimizer.step()
        return [*module.state_dict().values(), torch.get_rng_state()]

    assert all(torch.equal(*pair) for pair in zip(trained(beside=False), trained(beside=True), strict=True))


def test_ignite(expected):
    engine = pytest.importorskip("ignite.engine")
    model = net()

    def step(_, batch):
        images, labels = batch
        with torch.no_grad(), profiler.batch(labels=labels):
            return model(images), labels

    with profiled(model) as profiler:
        engine.Engine(step).run(loader())
    is_like(profiler.profile(), expected)
    with profiled(model) as profiler:  # an evaluator that is made for people
        engine.create_supervised_evaluator(model).run(loader())
    assert {name: group.n for name, group in profiler.profile().groups.items()} == dict.fromkeys(
        ["inputs", "outputs", "embeddings/fc.input"], N
    )


def test_timms_way_to_validate():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4).eval()
    model, top1 = model.to(memory_format=torch.channels_last), timm.utils.AverageMeter()
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)
    with torch.inference_mode(), profiled(model) as profiler:
        for input, target in DataLoader(TensorDataset(images, torch.arange(20) % 4), 8):
            with autocast, profiler.batch(labels=target):
                output = model(input.contiguous(memory_format=torch.channels_last))
            top1.update(timm.utils.accuracy(output, target)[0].item(), len(input))
    profile = profiler.profile()
    assert {name: (group.n, len(group.streams)) for name, group in profile.groups.items() if name != "inputs"} == {
        "outputs": (20, 8), "embeddings/fc.input": (20, 512), "labels": (20, 0),
    }  # fmt: skip
    assert (profile.groups["inputs"].n, profile.warnings, top1.count) == (20, [], 20)


def test_gradient_checkpointing_and_frozen_parts_change_nothing(expected):
    class Checkpointed(Net):
        def forward(self, images):
            maps = torch.utils.checkpoint.checkpoint(self.conv, images, use_reentrant=False)
            return self.fc(torch.relu(self.norm(maps)).mean((2, 3)))

    torch.manual_seed(0)
    model = Checkpointed().eval().requires_grad_(False)
    with profiled(model) as profiler:
        for images, labels in loader():
            with profiler.batch(labels=labels):
                model(images)
    is_like(profiler.profile(), expected)
