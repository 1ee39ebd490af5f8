"""Several images in a batch: those that the model is fed are groups, each its own; the others are not inputs."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profiler, calibrate
from lensai_integrations.lightning import BaselineCallback, DriftCallback

CLASSES = 3


def pictures(n, seed):
    return torch.randint(0, 256, (n, 3, 12, 12), generator=torch.Generator().manual_seed(seed)) / 255


def batches(shape, n=32, seed=0, dark=1.0):
    """A loader of `shape(left, right, label)`."""
    left, right = pictures(n, seed), pictures(n, seed + 100) * dark
    labels = torch.arange(n) % CLASSES
    return DataLoader([shape(*each) for each in zip(left, right, labels, strict=True)], batch_size=8)


class Siamese(nn.Module):
    """One encoder for both, and a head for what they have in common."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(8, CLASSES)

    def encode(self, images):
        return torch.relu(self.conv(images)).mean((2, 3))

    def forward(self, left, right):
        return self.fc(torch.cat([self.encode(left), self.encode(right)], dim=1))


def pair(lit, pick, net=Siamese):
    class Pair(lit):
        def forward(self, *images):
            return self.model(*images)

        def loss(self, batch):
            *images, labels = pick(batch)
            return nn.functional.cross_entropy(self(*images), labels)

        def predict_step(self, batch, batch_idx):
            return self(*pick(batch)[:-1])

    return Pair(net())


def expected(names, seed, n=32, **settings):
    """Pixel counts of each image, by group."""
    arrays = {"left": pictures(n, seed), "right": pictures(n, seed + 100)}
    found = {}
    for group, which in names.items():
        bytes_ = (arrays[which] * 255).round().to(torch.uint8)
        found[group] = torch.stack([bytes_[:, c].flatten().bincount(minlength=256) for c in range(3)]).tolist()
    return found


def counted(profile):
    return {name: group.pixels.counts.tolist() for name, group in profile.groups.items() if name.startswith("inputs")}


NAMES = {"inputs/left": "left", "inputs/right": "right"}
PLACES = {"inputs/0": "left", "inputs/1": "right"}
Named = namedtuple("Named", ["left", "right", "label"])

SHAPES = {
    "tuple": (lambda l, r, y: (l, r, y), lambda b: b, PLACES),  # noqa: E741
    "label first": (lambda l, r, y: (y, l, r), lambda b: (b[1], b[2], b[0]), {"inputs/1": "left", "inputs/2": "right"}),  # noqa: E741
    "pair": (lambda l, r, y: ((l, r), y), lambda b: (*b[0], b[1]), PLACES),  # noqa: E741
    "dict": (
        lambda l, r, y: {"left": l, "right": r, "label": y},  # noqa: E741
        lambda b: (b["left"], b["right"], b["label"]),
        NAMES,
    ),
    "usual name": (
        lambda l, r, y: {"image": l, "depth": r, "label": y},  # noqa: E741
        lambda b: (b["image"], b["depth"], b["label"]),
        {"inputs/image": "left", "inputs/depth": "right"},
    ),
    "nested": (
        lambda l, r, y: ({"left": {"image": l}, "right": {"image": r}}, y),  # noqa: E741
        lambda b: (b[0]["left"]["image"], b[0]["right"]["image"], b[1]),
        NAMES,
    ),
    "named": (Named, lambda b: b, NAMES),
}


@pytest.mark.parametrize(("kind", "sanity"), [*((kind, 0) for kind in SHAPES), ("nested", 1)])
def test_what_the_model_is_fed_are_groups(lit, trainer, kind, sanity):
    shape, pick, names = SHAPES[kind]
    callback = BaselineCallback(clean_windows=0)
    fit = trainer(callback, num_sanity_val_steps=sanity)
    fit.fit(pair(lit, pick), batches(shape), batches(shape, 24, seed=7))
    baseline = callback.baseline_
    assert counted(baseline.reference) == expected(names, 7, 24)
    assert counted(baseline.training) == expected(names, 0)
    assert baseline.reference.groups["labels"].n == 24
    assert baseline.warnings == []
    assert list(baseline.reference.rows.widths)[:2] == list(names)


def test_each_is_measured_by_every_convention(lit, trainer):
    shape, pick, _ = SHAPES["dict"]
    callback = BaselineCallback(outputs=None, layers=None, clean_windows=0, convention=("lensai", "lensai-edge"))
    trainer(callback).fit(pair(lit, pick), batches(shape), batches(shape, 24, seed=7))
    groups = callback.baseline_.reference.groups
    names = [each for name in NAMES for each in (name, f"{name}/lensai-edge")]
    assert [name for name in groups if name.startswith("inputs")] == names
    edge = {
        name: groups[f"{name}/lensai-edge"].pixels.counts[::-1].tolist() for name in NAMES
    }  # blue comes first there
    assert edge == expected(NAMES, 7, 24)


def test_training_is_the_same_to_the_bit(lit, trainer):
    shape, pick, _ = SHAPES["dict"]
    weights = []
    for callbacks in ([], [BaselineCallback(clean_windows=0)]):
        torch.manual_seed(3)
        model = pair(lit, pick)
        trainer(*callbacks).fit(model, batches(shape), batches(shape, 24, seed=7))
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


class Reconstruction(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images):
        return self.conv(images)


class Perceptual(nn.Module):
    """A loss with parameters of its own, of what was made and of what was wanted."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3)

    def forward(self, made, wanted):
        return nn.functional.mse_loss(self.features(made), self.features(wanted))


@pytest.mark.parametrize("loss", [nn.functional.mse_loss, nn.L1Loss(), Perceptual()])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_only_wanted_is_no_input(lit, trainer, loss, order):
    class Restoring(lit):
        def __init__(self, model):
            super().__init__(model)
            self.criterion = loss

        def loss(self, batch):
            return self.criterion(self(batch[order[0]]), batch[order[1]])

    callback = BaselineCallback(outputs=None, layers=None, clean_windows=0)
    shape = lambda l, r, y: (l, r) if order == (0, 1) else (r, l)  # noqa: E731, E741
    trainer(callback).fit(Restoring(Reconstruction()), batches(shape), batches(shape, 24, seed=7))
    baseline = callback.baseline_
    assert counted(baseline.reference) == expected({"inputs": "left"}, 7, 24)
    assert counted(baseline.training) == expected({"inputs": "left"}, 0)
    assert not any("arrays of images" in warning for warning in baseline.warnings)


def test_two_views_in_training_and_one_in_validation_are_said(lit, trainer):
    class Contrastive(lit):
        def training_step(self, batch, batch_idx):
            one, two = (self(view) for view in batch[0])
            return nn.functional.cross_entropy(one @ two.T, torch.arange(len(one)))

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    class Encoder(Siamese):
        def forward(self, images):
            return self.encode(images)

    callback = BaselineCallback(outputs=None, layers=None, clean_windows=0)
    one = lambda l, r, y: (l, y)  # noqa: E731, E741
    trainer(callback).fit(Contrastive(Encoder()), batches(SHAPES["pair"][0]), batches(one, 24, seed=7))
    baseline = callback.baseline_
    assert counted(baseline.training) == expected(PLACES, 0)
    assert counted(baseline.reference) == expected({"inputs": "left"}, 7, 24)
    (told,) = [warning for warning in baseline.warnings if warning.startswith("how images are read")]
    assert "training feeds the model the image inputs '0' and '1', validation one image input" in told
    advice = {"training": ImageInputs(key=(0, 0)), "validation": ImageInputs(key=0)}
    settled = BaselineCallback(outputs=None, layers=None, clean_windows=0, inputs=advice)
    trainer(settled).fit(Contrastive(Encoder()), batches(SHAPES["pair"][0]), batches(one, 24, seed=7))
    assert counted(settled.baseline_.training) == expected({"inputs": "left"}, 0)
    assert not any(warning.startswith("how images") for warning in settled.baseline_.warnings)


def test_many_crops_are_the_first_and_that_is_said(lit, trainer):
    class Crops(lit):
        def loss(self, batch):
            return nn.functional.cross_entropy(sum(self(crop) for crop in batch[0]), batch[1])

    class Encoder(Siamese):
        def forward(self, images):
            return self.fc(torch.cat([self.encode(images)] * 2, dim=1))

    shape = lambda l, r, y: ([l, r, l, r, l, r], y)  # noqa: E731, E741
    callback = BaselineCallback(outputs=None, layers=None, clean_windows=0)
    trainer(callback).fit(Crops(Encoder()), batches(shape), batches(shape, 24, seed=7))
    assert counted(callback.baseline_.reference) == expected({"inputs": "left"}, 7, 24)
    assert any("6 arrays of images are in the batch" in warning for warning in callback.baseline_.warnings)


@pytest.mark.parametrize("kind", ["tuple", "dict"])
def test_where_nothing_shows_it_the_advice_does(lit, trainer, kind, monkeypatch):
    """A compiled model cannot be followed."""
    shape, pick, names = SHAPES[kind]
    monkeypatch.setattr("lensai_integrations.torch.finding.is_compiled", lambda model: True)
    callback = BaselineCallback(outputs=None, layers=None, clean_windows=0)
    trainer(callback).fit(pair(lit, pick), batches(shape), batches(shape, 24, seed=7))
    reference = callback.baseline_.reference
    assert counted(reference) == ({} if kind == "dict" else expected({"inputs": "left"}, 7, 24))
    told = next(warning for warning in callback.baseline_.warnings if "fed all of them inputs=" in warning)
    advice = eval(told.rpartition("inputs=")[2])
    settled = BaselineCallback(outputs=None, layers=None, clean_windows=0, inputs=advice)
    trainer(settled).fit(pair(lit, pick), batches(shape), batches(shape, 24, seed=7))
    assert counted(settled.baseline_.reference) == expected(names, 7, 24)
    assert settled.baseline_.warnings == []


class Normalize:
    """Of the left images only."""

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_a_normalisation_of_one_input_is_not_undone_in_the_other(lit, trainer):
    shape, pick, _ = SHAPES["dict"]
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (Normalize.mean, Normalize.std))

    def loader(n, seed):
        samples = [{**each, "left": (each["left"] - mean) / std} for each in batches(shape, n, seed).dataset]
        data = Subset(samples, range(n))
        data.transform = Normalize()
        return DataLoader(data, batch_size=8)

    def fitted(**settings):
        callback = BaselineCallback(outputs=None, layers=None, clean_windows=0, **settings)
        trainer(callback).fit(pair(lit, pick), loader(32, 0), loader(24, 7))
        return callback.baseline_

    baseline = fitted()
    assert counted(baseline.reference) == expected({"inputs/left": "left"}, 7, 24)
    assert all(each.startswith("inputs/right: ") and "was not applied to these images" in each
               for each in baseline.warnings)  # fmt: skip
    assert baseline.warnings
    left = ImageInputs(key="left", mean=Normalize.mean, std=Normalize.std)
    settled = fitted(inputs={"left": left, "right": ImageInputs(key="right")})
    assert counted(settled.reference) == expected(NAMES, 7, 24)
    assert settled.warnings == []


def test_a_check_has_a_row_for_each(lit):
    shape, pick, _ = SHAPES["dict"]
    for module in (pair(lit, pick), Siamese()):
        check = BaselineCallback().check(module, batches(shape))
        rows = {row.group: (row.shape, row.rows, row.read) for row in check.rows if row.group.startswith("inputs")}
        assert rows == dict.fromkeys(NAMES, ((8, 3, 12, 12), 8, "NCHW float32 x 255, 12x12"))
        assert check.ok, check.warnings
    dark = BaselineCallback().check(pair(lit, pick), batches(shape, dark=0.0))
    assert any(each.startswith("inputs/right: the mean brightness is 0 of 255") for each in dark.warnings)
    assert not any(each.startswith("inputs/left") for each in dark.warnings)


@pytest.fixture(scope="module")
def baseline():
    """As the callback makes it of these."""
    profiler = Profiler(inputs={"left": ImageInputs(), "right": ImageInputs()}, seed=1, source="validation")
    profiler.update(inputs={"left": pictures(200, 7), "right": pictures(200, 107)}, labels=torch.arange(200) % CLASSES)
    return calibrate(Baseline(profiler.profile()), draws=200)


@pytest.mark.parametrize("kind", ["dict", "tuple", "nested", "named"])
def test_in_production_only_the_camera_that_went_dark_drifts(baseline, lit, trainer, said, kind):
    shape, pick, _ = SHAPES[kind]
    callback = DriftCallback(baseline, window=64)
    trainer(callback).predict(pair(lit, pick), batches(shape, 64, seed=20))
    assert [report.level for report in callback.reports_] == ["ok"]
    trainer(callback).predict(pair(lit, pick), batches(shape, 64, seed=30, dark=0.5))
    (report,) = callback.reports_
    assert report.level == "alarm"
    groups = report.to_dict()["groups"]
    assert {name: group["drift"] for name, group in groups.items() if name in NAMES} == {
        "inputs/left": False,
        "inputs/right": True,
    }
    in_order = [message for message in said.messages if "are read as 'left' and 'right', in this order" in message]
    assert bool(in_order) == (kind == "tuple")


class Watched(Siamese):
    def forward(self, left, right):
        return super().forward(left, right)


@pytest.mark.parametrize(
    "call", [lambda m, a, b: m(a, b), lambda m, a, b: m(right=b, left=a), lambda m, a, b: m(a, right=b)]
)
def test_a_module_is_watched_at_all_its_images(baseline, call, caplog):
    model = Watched().eval()
    with DriftMonitor(baseline, window=64) as monitor, monitor.watch(model, outputs=False):
        call(model, pictures(64, 20), pictures(64, 120))
        assert monitor.level == "ok"
        call(model, pictures(64, 30), pictures(64, 130) * 0.5)
        assert monitor.level == "alarm"
        assert not monitor.status.failures
    assert not any("in this order" in message for message in caplog.messages)


def test_a_window_is_made_by_hand_of_the_callbacks_baseline(lit, trainer):
    shape, pick, _ = SHAPES["nested"]
    callback = BaselineCallback(outputs=None, layers=None, clean_windows=0)
    trainer(callback).fit(pair(lit, pick), batches(shape), batches(shape, 24, seed=7))
    window = Profiler(like=callback.baseline_)
    window.update(inputs={"left": pictures(8, 1), "right": pictures(8, 2).numpy()})
    assert {name: group.n for name, group in window.profile().groups.items()} == {"inputs/left": 8, "inputs/right": 8}
