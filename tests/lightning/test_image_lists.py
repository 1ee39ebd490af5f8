"""Loaders that hand out lists of images of any sizes: every image is a row, in fit, in predict, in a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

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


# Lists of samples.


class Named(NamedTuple):
    photo: Any
    species: Any


@dataclass
class Sample:
    image: Any
    label: Any


def of_samples(lit, pick):
    """A classifier of lists of samples; `pick` gives image and class of one."""

    class Samples(lit):
        def loss(self, batch):
            images, labels = zip(*map(pick, batch), strict=True)
            return nn.functional.cross_entropy(self(images), torch.as_tensor(labels))

        def predict_step(self, batch, batch_idx):
            return self([pick(sample)[0] for sample in batch])

    return Samples(Pooled())


def in_samples(shape, n=16, size=8):
    made = [shape(image, i % 4) for i, (image, _) in enumerate(samples(n))]
    return DataLoader(made, batch_size=size, collate_fn=list)


LISTS = {
    "tuples": (lambda x, y: (x, y), lambda s: s, 1),
    "tensors": (lambda x, y: (x, torch.tensor(y)), lambda s: s, 1),
    "one column": (lambda x, y: (x, torch.tensor([y])), lambda s: (s[0], int(s[1])), 1),
    "with an index": (lambda x, y: (x, torch.tensor(y + 2000), torch.tensor(y)), lambda s: (s[0], s[2]), 2),
    "dicts": (lambda x, y: {"label": y, "image": x}, lambda s: (s["image"], s["label"]), "label"),
    "nested": (
        lambda x, y: {"image": x, "y": {"species": y}},
        lambda s: (s["image"], s["y"]["species"]),
        ("y", "species"),
    ),
    "named tuples": (Named, lambda s: s, "species"),
    "dataclasses": (Sample, lambda s: (s.image, s.label), "label"),
    "one-hot": (lambda x, y: (x, torch.eye(4)[y]), lambda s: (s[0], int(s[1].argmax())), 1),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_of_samples_is_read_like_a_collated_batch(lit, trainer, name):
    shape, pick, place = LISTS[name]
    model, callback = of_samples(lit, pick), BaselineCallback(clean_windows=0)
    trainer(callback).fit(model, in_samples(shape), in_samples(shape))

    for profile in (callback.baseline_.reference, callback.baseline_.training):
        assert (profile.groups["inputs"].n, profile.groups["labels"].info["read_from"]) == (16, place)
        assert sorted(profile.groups["labels"].categories[""].top(5)) == [(str(y), 4) for y in range(4)]
    assert callback.baseline_.reference.groups["outputs"].info["loss"] == "cross_entropy"
    assert callback.baseline_.warnings == []

    drift = DriftCallback(callback.baseline_, window=16)
    trainer(drift).predict(model, in_samples(shape))
    assert (drift.monitor_.status.rows, drift.monitor_.status.failures) == (16, {})

    check = callback.check(model, in_samples(shape))
    assert check.ok, check.warnings
    assert {row.group: row.shape[0] for row in check.rows}["labels"] == 8


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (lambda x, y: {"left": x, "right": x.flip(-1), "label": y}, ["inputs/left", "inputs/right"]),
        (lambda x, y: (x, x.flip(-1), y), ["inputs/0", "inputs/1"]),
        (lambda x, y: {"views": (x, x.flip(-1)), "label": y}, ["inputs/0", "inputs/1"]),
    ],
)
def test_several_images_in_samples_are_each_fed(lit, trainer, shape, names):
    def pick(sample):
        if isinstance(sample, tuple):
            return sample
        return *(sample["views"] if "views" in sample else (sample["left"], sample["right"])), sample["label"]

    class Pairs(lit):
        def loss(self, batch):
            left, right, labels = zip(*map(pick, batch), strict=True)
            return nn.functional.cross_entropy(self([*left, *right])[: len(left)], torch.as_tensor(labels))

    callback = BaselineCallback(clean_windows=0, outputs=None, layers=None)
    trainer(callback).fit(Pairs(Pooled()), in_samples(shape), in_samples(shape))
    reference = callback.baseline_.reference
    assert {name: group.n for name, group in reference.groups.items()} == dict.fromkeys([*names, "labels"], 16)
    assert callback.baseline_.warnings == []
    check = callback.check(Pairs(Pooled()), in_samples(shape))
    assert ([row.group for row in check.rows], check.ok) == ([*names, "labels"], True)


def test_one_sample_alone_is_a_batch_of_one(lit, trainer):
    callback = BaselineCallback(clean_windows=0)
    loader = in_samples(lambda x, y: (x, y), 4, 1)
    trainer(callback).fit(of_samples(lit, lambda s: s), loader, loader)
    assert {name: group.n for name, group in callback.baseline_.reference.groups.items()} == dict.fromkeys(
        ("inputs", "outputs", "embeddings/model.fc.input", "labels"), 4
    )
    assert callback.baseline_.warnings == []


def test_samples_are_told_apart_by_what_they_hold(lit, trainer):
    shape = LISTS["dicts"][0]
    for key in ("label", "site"):
        callback = BaselineCallback(clean_windows=0, segment_by=key, target="label")
        loader = in_samples(lambda x, y: {**shape(x, y), "site": "north" if y else "south"})
        trainer(callback).fit(of_samples(lit, LISTS["dicts"][1]), loader, loader)
        segments = {name: each.n for name, each in callback.baseline_.reference.segments.items()}
        assert segments == ({str(y): 4 for y in range(4)} if key == "label" else {"north": 12, "south": 4})


@pytest.mark.parametrize(
    ("shape", "label", "named"),
    [
        (
            lambda x, y: (x, {"boxes": torch.zeros(1, 4), "labels": torch.tensor([y])}),
            lambda s: s[1]["labels"],
            "1 (list of 8 dict)",
        ),
        (
            lambda x, y: {"image": x, "boxes": torch.zeros(1, 4), "labels": torch.tensor([y])},
            lambda s: s["labels"],
            "'labels' (list of 8 Tensor)",
        ),
        (
            lambda x, y: {"image": x, "label": y} if y else {"image": x},
            lambda s: s.get("label", 0),
            "'label' (list of 8 NoneType and int)",
        ),
    ],
)
@pytest.mark.parametrize("target", ["auto", "given"])
def test_labels_of_objects_and_labels_that_are_missing_are_said_not_to_be_read(
    lit, trainer, shape, label, named, target
):
    place = 1 if "dict" in named else named.split("'")[1]
    callback = BaselineCallback(clean_windows=0, layers=None, target="auto" if target == "auto" else place)
    pick = lambda s: (s[0] if isinstance(s, tuple) else s["image"], int(label(s)))  # noqa: E731
    trainer(callback).fit(of_samples(lit, pick), in_samples(shape), in_samples(shape))

    assert callback.baseline_.reference.groups.keys() == {"inputs", "outputs"}
    (told,) = callback.baseline_.warnings
    assert (named if target == "auto" else f"target={place!r} has ") in told
    assert "target=None" in told
    assert not callback.check(of_samples(lit, pick), in_samples(shape)).ok
