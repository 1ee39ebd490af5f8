"""Tiny models, generated images, and trainers without anything that writes or prints."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent
CLASSES = 4

#: Lightning's own use of what torch has deprecated since, and its advice on tiny runs.
LIGHTNINGS_OWN = (
    r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"ignore:The '\w+' does not have many workers",
    r"ignore:The number of training batches",
    r"ignore:You defined a `validation_step` but have no `val_dataloader`",
    r"ignore:Checkpoint directory .* exists and is not empty",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            for pattern in LIGHTNINGS_OWN:
                item.add_marker(pytest.mark.filterwarnings(pattern))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this tiny are slower on several threads, a hundred times so where others use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Net(nn.Module):
    """Convolution, batch norm, dropout, two linear layers: 3 x 16 x 16 in, 4 classes out."""

    def __init__(self, width=8):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(width, 6)
        self.dropout = nn.Dropout(0.3)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, images):
        maps = self.avgpool(self.relu(self.norm(self.conv(images)))).flatten(1)
        return self.fc(self.dropout(torch.relu_(self.hidden(maps))))


class Steps:
    """What a classifier's LightningModule does, for either Lightning package."""

    def __init__(self, model=None):
        super().__init__()
        self.model = Net() if model is None else model

    def forward(self, images):
        return self.model(images)

    def loss(self, batch):
        images, labels = (batch["image"], batch["label"]) if isinstance(batch, dict) else batch
        return nn.functional.cross_entropy(self(images), labels)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Lit(Steps, pl.LightningModule):
    """A classifier."""


class Dicts(torch.utils.data.Dataset):
    """Images and labels under their names."""

    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}


def dataset(n, seed=0, side=16):
    rng = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(n, 3, side, side, generator=rng), torch.randint(CLASSES, (n,), generator=rng))


def loader(data, batch_size=8, **kwargs):
    return DataLoader(dataset(data) if isinstance(data, int) else data, batch_size=batch_size, **kwargs)


@pytest.fixture
def lit():
    """The LightningModule class; `lit(model)` wraps a network."""
    torch.manual_seed(0)
    return Lit


@pytest.fixture
def net():
    return Net


@pytest.fixture
def steps():
    return Steps


@pytest.fixture
def images():
    """`images(n, seed)`: a data set of n pictures and labels."""
    return dataset


@pytest.fixture
def loaders():
    """`loaders(data_or_n, batch_size)`: a loader."""
    return loader


@pytest.fixture
def dicts():
    """A data set class whose items are dicts."""
    return Dicts


@pytest.fixture
def trainer(tmp_path):
    """`trainer(callback, ...)`: a quiet CPU trainer in a folder of its own."""

    def make(*callbacks, package=pl, **options):
        settings = {
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
        }
        return package.Trainer(callbacks=list(callbacks), **{**settings, **options})

    return make


@pytest.fixture
def said(caplog):
    """The messages this package logs, and those it gives to Lightning's logger."""
    from lightning_utilities.core import rank_zero

    caplog.set_level(logging.INFO)
    logger = rank_zero.log
    before = logger.propagate
    logger.addHandler(caplog.handler)
    logger.propagate = False
    yield caplog
    logger.removeHandler(caplog.handler)
    logger.propagate = before


@pytest.fixture
def brightness():
    """`brightness(dataset)`: mean luma of each picture on the 0-255 scale, straight from the formula."""
    return lambda data: np.stack([_luma(picture) for picture, _ in data])


def _luma(picture):
    red, green, blue = (picture * 255).to(torch.float64).mean(dim=(1, 2))
    return float(0.299 * red + 0.587 * green + 0.114 * blue)


@pytest.fixture
def fitted(trainer, lit, loaders, images):
    """`fitted(*callbacks, **options)`: a fit of 5 steps an epoch, and what is so of its weights."""
    from weighed import Fitted

    def fit(*callbacks, **options):
        return Fitted(trainer, lit, loaders, images, callbacks, **options)

    return fit
