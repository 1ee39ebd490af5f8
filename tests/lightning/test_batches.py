"""Batches of many shapes through a fit: what is read of each pass, and what is said of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torch.utils.data import default_collate as together

from lensai_integrations import DriftMonitor, ImageInputs
from lensai_integrations.lightning import BaselineCallback, DriftCallback

CLASSES = 4
EMPTY = "{} of {} batches of {} held no images (None), and nothing of them is in the profile"


class Shaped(Dataset):
    """Pictures and labels in the shape that a function gives them."""

    def __init__(self, data, shape):
        self.data, self.shape = data, shape

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.shape(index, *self.data[index])


@pytest.fixture
def fitted(trainer, lit, images):
    """`fitted(shape, pick, ...)`: the callback after a fit on such batches; `pick` finds images and labels in them."""

    def make(shape=None, pick=lambda b: b, training=None, validation=None, collate=None, **options):
        class Picks(lit):
            def loss(self, batch):
                picked = pick(batch)
                return None if picked is None else nn.functional.cross_entropy(self(picked[0]), picked[1])

            def validation_step(self, batch, batch_idx, dataloader_idx=0):
                self.loss(batch)

        def made(n, seed):
            return DataLoader(Shaped(images(n, seed), shape), batch_size=8, collate_fn=collate)

        callback = BaselineCallback(**{"layers": None, "clean_windows": 0, **options})
        torch.manual_seed(0)
        model = Picks()
        trainer(callback).fit(
            model, made(32, 0) if training is None else training, made(16, 1) if validation is None else validation
        )
        callback.model = model
        return callback

    return make


def counted(profile):
    return dict(profile.groups["labels"].categories[""].top(99))


def expected(data):
    values, numbers = np.unique([int(label) for _, label in data], return_counts=True)
    return {str(value): int(n) for value, n in zip(values, numbers, strict=True)}


def test_an_index_between_image_and_label_is_no_label(fitted, images):
    callback = fitted(lambda i, x, y: (x, 1000 + 7 * i, y), lambda b: (b[0], b[2]))

    for source, data in (("validation", images(16, 1)), ("training", images(32, 0))):
        profile = callback.baseline_.sources()[source]
        assert counted(profile) == expected(data)
        assert profile.groups["labels"].info["read_from"] == 2
    assert callback.baseline_.warnings == []


def test_what_the_loss_is_given_are_the_labels_from_the_first_batch_on(fitted, images):
    callback = fitted(lambda i, x, y: (x, (y + 1) % CLASSES, y), lambda b: (b[0], b[2]))

    for source, data in (("validation", images(16, 1)), ("training", images(32, 0))):
        assert counted(callback.baseline_.sources()[source]) == expected(data)
    assert callback.baseline_.warnings == []


def test_two_labels_without_a_sign_are_said_once_and_target_settles_it(fitted, images, said):
    shape, pick = lambda i, x, y: (x, y, (y + 1) % CLASSES), lambda b: (b[0], torch.zeros(len(b[0]), dtype=torch.long))
    callback = fitted(shape, pick)
    (warning,) = [each for each in callback.baseline_.warnings if each.startswith("labels")]
    assert warning.startswith("labels: several parts of the batch may be the labels, 1 (int64 [8]) and 2 (int64 [8])")
    assert "labels" not in callback.baseline_.reference.groups
    assert sum(record.getMessage().startswith("labels: several") for record in said.records) == 1

    callback = fitted(shape, pick, target=1)
    assert not any(warning.startswith("labels") for warning in callback.baseline_.warnings)
    assert counted(callback.baseline_.reference) == expected(images(16, 1))


def test_named_labels_of_several_kinds_are_groups(fitted):
    def shape(i, x, y):
        return x, {"species": y, "quality": y % 2}

    callback = fitted(shape, lambda b: (b[0], b[1]["species"] + 0), target={"training": 1, "validation": 1})
    groups = callback.baseline_.reference.groups
    assert groups["labels/species"].n == groups["labels/quality"].n == 16
    assert groups["labels/quality"].info["read_from"] == (1, "quality")


def test_a_dict_of_batches_in_training_and_plain_ones_in_validation(fitted, images, loaders):
    data, more = images(32, 0), images(32, 5)
    combined = CombinedLoader(
        {"l": loaders(data), "u": DataLoader(Shaped(more, lambda i, x, y: x), batch_size=8)}, "max_size"
    )
    plain = loaders(images(16, 1))
    pick = lambda b: b["l"] if isinstance(b, dict) else b  # noqa: E731
    callback = fitted(None, pick, combined, plain, inputs={"training": ImageInputs(key="l")})

    baseline = callback.baseline_
    assert counted(baseline.training) == expected(data)
    assert counted(baseline.reference) == expected(images(16, 1))
    assert {g: group.n for g, group in baseline.training.groups.items()} == {"inputs": 32, "labels": 32}
    assert baseline.warnings == []

    callback = fitted(None, pick, combined, plain)
    assert counted(callback.baseline_.training) == expected(data)  # what of the two the model is fed
    assert callback.baseline_.warnings == []
    callback = fitted(None, pick, combined, plain, inputs={"training": ImageInputs(key=("l", 0))})
    assert counted(callback.baseline_.training) == expected(data)
    assert callback.baseline_.warnings == []

    callback = fitted(None, pick, combined, plain, inputs=ImageInputs(key="l"))
    assert callback.baseline_.reference.groups["inputs"].n == 16
    (warning,) = callback.baseline_.warnings
    assert "key='l' is not in the batches of validation, which are a list of 0 (float32" in warning
    assert "inputs={'training': ImageInputs(...), 'validation': ImageInputs(...)}" in warning


@pytest.mark.filterwarnings("ignore:train_dataloader yielded None")
def test_parts_that_are_used_up_and_batches_of_nothing_are_counted(fitted, images, loaders):
    unequal = CombinedLoader({"a": loaders(images(16, 1)), "b": loaders(images(40, 2))}, "max_size")
    pick = lambda b: b["a"] if isinstance(b, dict) else b  # noqa: E731
    callback = fitted(
        None, pick, loaders(images(16, 0)), unequal, layers=["fc.input"], inputs={"validation": ImageInputs(key="a")}
    )
    reference = callback.baseline_.reference
    assert {name: group.n for name, group in reference.groups.items()} == {
        "inputs": 16, "outputs": 16, "embeddings/fc.input": 16, "labels": 16,
    }  # fmt: skip
    assert reference.warnings == [EMPTY.format(3, 5, "validation")]

    def some(samples):
        return None if samples[0][2] % 16 == 0 else together([sample[:2] for sample in samples])

    callback = fitted(lambda i, x, y: (x, y, i), lambda b: b, collate=some)
    assert callback.baseline_.training.groups["inputs"].n == 16
    assert callback.baseline_.reference.warnings == [EMPTY.format(1, 2, "validation")]


@pytest.mark.parametrize("hot", [lambda y: nn.functional.one_hot(y, CLASSES).float(), lambda y: y.float()[None]])
def test_rows_and_numbers_are_taken(fitted, hot):
    callback = fitted(lambda i, x, y: (x, hot(y)), lambda b: (b[0], b[1].argmax(1)))

    assert callback.baseline_.reference.groups["labels"].n == 16


def test_two_scales_are_said(fitted, images, loaders):
    bytes_like = DataLoader(Shaped(images(16, 1), lambda i, x, y: (x * 255, y)), batch_size=8)
    callback = fitted(None, lambda b: b, loaders(images(16, 0)), bytes_like)
    (warning,) = callback.baseline_.warnings
    assert warning.startswith(
        "how images are read: those of training are read as NCHW float32 x 255, those of validation as"
        " NCHW float32 in 0-255, so the model sees other values"
    )
    meant = {"training": ImageInputs(scale=255), "validation": ImageInputs(scale=1)}
    assert fitted(None, lambda b: b, loaders(images(16, 0)), bytes_like, inputs=meant).baseline_.warnings == []
    assert fitted(None, lambda b: b, loaders(images(16, 0)), loaders(images(16, 1))).baseline_.warnings == []


def test_check_compares_the_loaders_of_a_data_module(images, loaders):
    class Module:
        scale = 255

        def prepare_data(self):
            pass

        def setup(self, stage):
            pass

        def train_dataloader(self):
            return loaders(images(16, 0))

        def val_dataloader(self):
            return DataLoader(Shaped(images(16, 1), lambda i, x, y: (x * self.scale, y)), batch_size=8)

    check = BaselineCallback(layers=None).check(None, Module())
    assert any(
        "those of training are read as NCHW float32 x 255, those of validation" in each for each in check.warnings
    )
    Module.scale = 1
    assert not any("are read as" in each for each in BaselineCallback(layers=None).check(None, Module()).warnings)


def test_production_is_read_where_the_baseline_was(trainer, fitted, images):
    shape, pick = lambda i, x, y: (x, (y + 1) % CLASSES, y), lambda b: (b[0], b[2])
    made = fitted(shape, pick, target=2)
    seen = []
    drift = DriftCallback(made.baseline_, window=8)
    monitor_update = DriftMonitor.update

    def update(monitor, **batch):
        seen.append(batch["labels"])
        return monitor_update(monitor, **batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DriftMonitor, "update", update)
        trainer(drift).test(made.model, DataLoader(Shaped(images(16, 1), shape), batch_size=8), verbose=False)
    assert torch.equal(torch.cat(seen), images(16, 1).tensors[1])


class Folder(Dataset):
    """Like torchvision's data sets."""

    target_transform = None

    def __init__(self, data, classes):
        self.data, self.classes = data, classes

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return self.data[index]


NAMES = ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda data: Folder(data, NAMES), NAMES),
        (lambda data: Subset(Subset(Folder(data, NAMES), range(16)), range(16)), NAMES),
        (lambda data: ConcatDataset([Folder(data, NAMES)]), NAMES),
        (lambda data: ConcatDataset([Folder(data, NAMES), Folder(data, NAMES[::-1])]), None),
        (lambda data: ConcatDataset([Folder(data, NAMES), data]), None),
        (lambda data: Folder(data, NAMES[:3]), None),
        (lambda data: Folder(data, [*NAMES, "elk"]), [*NAMES, "elk"]),
    ],
)
def test_what_a_data_set_calls_its_classes_is_kept(fitted, images, loaders, wrap, names):
    callback = fitted(None, lambda b: b, loaders(images(16, 0)), loaders(wrap(images(16, 1))))
    groups = callback.baseline_.reference.groups

    assert groups["labels"].info.get("class_names") == names
    if names in (NAMES, None):
        assert groups["outputs"].info.get("class_names") == names
    assert callback.baseline_.warnings == []


def test_an_image_folder_names_its_classes(tmp_path, fitted, images, loaders):
    from PIL import Image
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import ToTensor

    for i, name in enumerate(NAMES * 2):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 9 * i, np.uint8)).save(tmp_path / name / f"{i}.png")
    folder = DataLoader(ImageFolder(tmp_path, ToTensor()), batch_size=8)
    callback = fitted(None, lambda b: b, loaders(images(16, 0)), folder)

    assert callback.baseline_.reference.groups["labels"].info["class_names"] == NAMES
    assert callback.baseline_.reference.groups["outputs"].info["class_names"] == NAMES


@pytest.mark.parametrize("shape", [lambda i, x, y: (x, 1000 + 7 * i, y), lambda i, x, y: (x, y, y.float())])
def test_training_is_bit_for_bit_the_same(fitted, trainer, lit, images, shape):
    pick = lambda b: (b[0], b[2].long())  # noqa: E731
    model = fitted(shape, pick).model

    class Picks(lit):
        def loss(self, batch):
            return nn.functional.cross_entropy(self(pick(batch)[0]), pick(batch)[1])

    torch.manual_seed(0)
    plain = Picks()
    trainer().fit(
        plain,
        DataLoader(Shaped(images(32, 0), shape), batch_size=8),
        DataLoader(Shaped(images(16, 1), shape), batch_size=8),
    )
    for name, value in plain.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
