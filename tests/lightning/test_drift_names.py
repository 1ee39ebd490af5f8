"""`DriftCallback` on a model that calls its layers otherwise, or that has other weights than the baseline's."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lensai_integrations import Baseline
from lensai_integrations.lightning import DriftCallback
from lensai_integrations.torch import profiled


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(torch.relu(self.conv(images)).mean((2, 3)))


class Inside(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net(images)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def images(n=100, seed=0):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def baseline_of(model, **arguments):
    with torch.no_grad(), profiled(model, task="classification", **arguments) as profiler:
        model(images())
    assert profiler.profile().warnings == []
    return Baseline(profiler.profile())


class Twins(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.left, self.right = net, Net()

    def forward(self, images):
        return self.left(images)


class Lit(pl.LightningModule):
    def __init__(self, module):
        super().__init__()
        self.model = module

    def predict_step(self, batch, _):
        return self.model(batch["img"] if isinstance(batch, dict) else batch[0])


def predict(callback, module, data=None):
    data = TensorDataset(images(50, seed=1)) if data is None else data
    trainer = pl.Trainer(
        callbacks=[callback], logger=False, enable_progress_bar=False, enable_checkpointing=False, accelerator="cpu"
    )
    trainer.predict(module, DataLoader(data, 25))
    (report,) = callback.reports_
    return {name: group.n for name, group in report.profile.groups.items()} if report.profile.groups else {}, report


@pytest.mark.parametrize("layers", ["auto", ["fc.input"], ["net.conv"]])
def test_lightnings_callback_finds_layers_of_another_prefix(net, layers, caplog):
    baseline = baseline_of(Inside(net).eval(), layers=layers)
    callback = DriftCallback(baseline, window=50, alarm=0.5, warn=None)
    predict(callback, Lit(net))
    rows = callback.monitor_.status
    assert (rows.rows, rows.failures) == (50, {})
    assert rows.causes == {}


def test_lightnings_callback_says_what_could_be_meant_and_the_advice_works(net, caplog):
    baseline = baseline_of(Inside(net).eval(), layers=["conv"])
    callback = DriftCallback(baseline, window=50)
    predict(callback, Lit(Twins(net)))
    told = "layer 'net.conv' of the baseline could be model.left.conv, model.right.conv here"
    assert f"embeddings/conv: {told}" in caplog.text
    assert "embeddings/conv" in callback.monitor_.status.causes
    caplog.clear()
    callback = DriftCallback(baseline, window=50, layers={"conv": "model.left.conv"}, outputs="model.left.fc")
    predict(callback, Lit(Twins(net)))
    assert "embeddings/conv" not in caplog.text
    assert (callback.monitor_.status.rows, callback.monitor_.status.causes) == (50, {})


def test_lightnings_callback_tells_other_weights(net, caplog):
    baseline = baseline_of(net)
    callback = DriftCallback(baseline, window=50)
    predict(callback, Lit(net))
    assert callback.monitor_.status.failures == {}
    torch.manual_seed(5)
    callback = DriftCallback(baseline, window=50)
    predict(callback, Lit(Net()))
    assert callback.monitor_.status.failures == {"weights": 1}
    assert caplog.text.count("the model's weights are not those that the baseline was made with") >= 1
