"""Models, batches and transforms of many kinds, each through a whole fit."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lensai_integrations.lightning import BaselineCallback


def test_batches_may_be_dicts(trainer, lit, dicts, images, loaders):
    data = dicts(*(torch.stack(part) for part in zip(*images(20), strict=True)))
    callback = BaselineCallback()
    trainer(callback).fit(lit(), loaders(data), loaders(data))

    assert {group.n for group in callback.baseline_.reference.groups.values()} == {20}
    assert callback.baseline_.reference.groups["labels"].info["read_from"] == "label"


def test_a_normalisation_in_the_transforms_is_undone_per_loader(trainer, lit, images, loaders, brightness):
    class Normalize:
        def __init__(self, mean, std):
            self.mean, self.std = mean, std

    class Normalized(torch.utils.data.Dataset):
        def __init__(self, data, mean, std):
            self.data, self.transform = data, Normalize(mean, std)

        def __len__(self):
            return len(self.data)

        def __getitem__(self, index):
            picture, label = self.data[index]
            shape = (-1, 1, 1)
            mean, std = torch.tensor(self.transform.mean).view(shape), torch.tensor(self.transform.std).view(shape)
            return (picture - mean) / std, label

    train, val = images(24, seed=1), images(16, seed=2)
    callback = BaselineCallback()
    trainer(callback).fit(
        lit(),
        loaders(Normalized(train, [0.5, 0.4, 0.3], [0.2, 0.2, 0.1])),
        loaders(Normalized(val, [0.1, 0.2, 0.3], [0.5, 0.5, 0.5])),
    )

    for profile, data in ((callback.baseline_.training, train), (callback.baseline_.reference, val)):
        bank = profile.groups["inputs"].bank
        np.testing.assert_allclose(bank.min[0], brightness(data).min(), rtol=1e-4)
        np.testing.assert_allclose(bank.max[0], brightness(data).max(), rtol=1e-4)


def test_device_side_augmentation_is_seen_and_steps_that_work_in_place_are_not(trainer, lit, loaders):
    class Changing(lit):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return torch.full_like(batch[0], 0.5), batch[1]

        def training_step(self, batch, batch_idx):
            batch[0].sub_(0.5)
            return super().training_step(batch, batch_idx)

    callback = BaselineCallback()
    trainer(callback).fit(Changing(), loaders(16), loaders(16))
    bank = callback.baseline_.training.groups["inputs"].bank

    assert bank.min[0] == bank.max[0] == pytest.approx(127.5)


def test_outputs_of_regression(trainer, net, steps, images, loaders):
    class Regression(steps, pl.LightningModule):
        def loss(self, batch):
            return nn.functional.mse_loss(self(batch[0])[:, 0], batch[1].float())

    callback = BaselineCallback(task="regression", target=None)
    trainer(callback).fit(Regression(net()), loaders(16), loaders(16))
    reference = callback.baseline_.reference

    assert reference.groups["outputs"].streams == tuple(f"value/{i}" for i in range(4))
    assert "labels" not in reference.groups


def test_gradient_checkpointing_counts_once(trainer, net, lit, loaders):
    class Checkpointed(net):
        def forward(self, images):
            return checkpoint(super().forward, images, use_reentrant=False)

    callback = BaselineCallback(layers=["conv", "avgpool"], training="all")
    trainer(callback).fit(lit(Checkpointed()), loaders(24), loaders(16))

    assert {group.n for group in callback.baseline_.training.groups.values()} == {24}


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_torch_compile(trainer, lit, loaders, whole):
    torch._dynamo.reset()
    model = lit()
    if whole:
        model = torch.compile(model, backend="eager")
    else:
        model.model = torch.compile(model.model, backend="eager", fullgraph=True)
    callback = BaselineCallback(layers=["avgpool"], training="all")
    trainer(callback).fit(model, loaders(24), loaders(16))
    torch._dynamo.reset()

    assert {group.n for group in callback.baseline_.reference.groups.values()} == {16}
    assert {group.n for group in callback.baseline_.training.groups.values()} == {24}
    assert callback.baseline_.warnings == []


def test_a_model_without_a_linear_layer_has_its_answer_profiled(trainer, lit, loaders):
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    callback = BaselineCallback()
    trainer(callback).fit(lit(convolutional), loaders(16), loaders(16))

    assert {name: group.n for name, group in callback.baseline_.reference.groups.items()} == dict.fromkeys(
        ["inputs", "outputs", "embeddings/model.0.input", "labels"], 16
    )
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("package", [pl, pytorch_lightning], ids=lambda module: module.__name__)
def test_both_lightning_packages(trainer, steps, loaders, package):
    model = type("Model", (steps, package.LightningModule), {})()
    callback = BaselineCallback()
    trainer(callback, package=package).fit(model, loaders(16), loaders(16))

    assert callback.baseline_.n == 16
    assert set(callback.baseline_.info["made_by"]) == {"torch", "lightning" if package is pl else "pytorch-lightning"}
