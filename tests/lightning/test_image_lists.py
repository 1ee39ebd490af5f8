"""Loaders that hand out lists of images of any sizes: every image is a row, in fit, in predict, in a check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lensai_integrations import ImageInputs
from lensai_integrations.lightning import BaselineCallback, DriftCallback

SIZES = [(16, 16), (20, 24), (18, 30)]


def samples(n, channels=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        image = torch.randint(0, 256, (channels, *SIZES[i % 3]), generator=rng, dtype=torch.uint8)
        found.append((image / 255, {"boxes": torch.zeros(1, 4), "labels": torch.tensor([i % 4])}))
    return found


def loader(n, channels=3, seed=0):
    return DataLoader(
        samples(n, channels, seed), batch_size=7, collate_fn=lambda batch: tuple(zip(*batch, strict=True))
    )


class Pooled(nn.Module):
    """Takes lists of images, as detectors do."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, images):
        return self.fc(torch.stack([image.mean((1, 2)).expand(3) for image in images]))


def made(lit):
    class Detector(lit):
        def loss(self, batch):
            images, targets = batch
            return nn.functional.cross_entropy(self(images), torch.cat([each["labels"] for each in targets]))

        def predict_step(self, batch, batch_idx):
            return self(batch[0])

    return Detector(Pooled())


@pytest.mark.filterwarnings("ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_of_a_list_is_a_row_of_the_baseline(lit, trainer, channels):
    callback = BaselineCallback(layers=None, clean_windows=0)
    trainer(callback, max_epochs=2).fit(made(lit), loader(30, channels), loader(20, channels, seed=1))
    reference = callback.baseline_.reference
    assert {name: (group.n, group.invalid) for name, group in reference.groups.items()}["inputs"] == (20, 0)
    images = [(image * 255).round().to(torch.uint8) for image, _ in samples(20, channels, seed=1)]
    counts = [torch.cat([image[c].flatten() for image in images]).bincount(minlength=256) for c in range(channels)]
    np.testing.assert_array_equal(reference.groups["inputs"].pixels.counts, torch.stack(counts))
    assert reference.groups["inputs"].info["size"] == "16x16 to 20x30"
    assert callback.baseline_.training.groups["inputs"].n == 30


def test_a_check_shows_the_list(lit):
    check = BaselineCallback(layers=None, outputs=None, target=None).check(made(lit), loader(21))
    (row,) = check.rows
    assert (row.group, row.shape, row.rows, row.read) == (
        "inputs",
        (7, 3, -1, -1),
        7,
        "a list of NCHW float32 x 255, 16x16 to 20x30",
    )
    assert "7x3x?x?" in str(check)
    assert [warning for warning in check.warnings if "labels" not in warning] == []


def test_black_images_in_a_list_are_an_alarm(lit, trainer):
    callback = BaselineCallback(layers=None, outputs=None, clean_windows=200)
    trainer(callback).fit(made(lit), loader(30), loader(120, seed=1))
    drift = DriftCallback(callback.baseline_, window=40)
    black = [(image if i == 0 else image * 0, target) for i, (image, target) in enumerate(samples(40, seed=2))]
    lists = DataLoader(black, batch_size=40, collate_fn=lambda batch: tuple(zip(*batch, strict=True)))
    trainer(drift).predict(made(lit), lists)
    assert [(report.rows, report.level) for report in drift.reports_] == [(40, "alarm")]


def test_views_and_other_choices_are_said_by_the_check(lit):
    views = DataLoader([([image[:, :16, :16]] * 2, target["labels"][0]) for image, target in samples(12)], batch_size=4)
    check = BaselineCallback(layers=None, outputs=None).check(None, views)
    assert any("at (0, 0), (0, 1): only the first is read" in warning for warning in check.warnings)
    settled = BaselineCallback(layers=None, outputs=None, inputs=ImageInputs(key=(0, 1))).check(None, views)
    assert not any("only the first is read" in warning for warning in settled.warnings)
