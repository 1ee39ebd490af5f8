"""`DriftCallback` on a model that calls its layers otherwise, or that has other weights than the baseline's."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from small_nets import Inside, Net, Twins, baseline_of, images, net_of
from torch.utils.data import DataLoader, TensorDataset

from lensai_integrations.lightning import DriftCallback


@pytest.fixture
def net():
    return net_of()


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
    baseline = baseline_of(Inside("net", net=net).eval(), layers=layers)
    callback = DriftCallback(baseline, window=50, alarm=0.5, warn=None)
    predict(callback, Lit(net))
    rows = callback.monitor_.status
    assert (rows.rows, rows.failures) == (50, {})
    assert rows.causes == {}


def test_lightnings_callback_says_what_could_be_meant_and_the_advice_works(net, caplog):
    baseline = baseline_of(Inside("net", net=net).eval(), layers=["conv"])
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
