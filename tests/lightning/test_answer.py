"""What a model answers, of models of many kinds: the right thing is read, or nothing, and it is said."""

from __future__ import annotations

import copy
import pickle

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import _get_current_function_mode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from lensai_integrations import DriftMonitor
from lensai_integrations.lightning import BaselineCallback, DriftCallback

N, BATCH = 24, 8


class Body(nn.Module):
    """3 x 16 x 16 in, 6 features out."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.fc = nn.Linear(8, 6)

    def forward(self, images):
        return torch.relu(self.fc(torch.relu(self.conv(images)).mean((2, 3))))


class Base(pl.LightningModule):
    """A classifier whose parts cases replace."""

    def __init__(self):
        super().__init__()
        self.body, self.head = Body(), nn.Linear(6, 4)

    def forward(self, images):
        return self.head(self.body(images))

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("loss", self.loss(batch), batch_size=BATCH)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.fixture
def fitted(trainer, images):
    """`fitted(model, ...)`: the callback after a fit; 24 pictures for training, 24 for validation."""

    def run(model, callback=None, collate=None, **options):
        callback = callback or BaselineCallback(clean_windows=0)
        loaders = [DataLoader(images(N, seed), BATCH, collate_fn=collate) for seed in (1, 2)]
        trainer(callback, **options).fit(model, *loaders)
        return callback

    return run


def read(callback):
    """What the baseline has of outputs and embeddings: rows by group."""
    groups = callback.baseline_.reference.groups
    return {name: group.n for name, group in groups.items() if name.split("/")[0] in ("outputs", "embeddings")}


def info(callback, group="outputs"):
    return callback.baseline_.reference.groups[group].info


def sorted_rows(callback, group):
    return np.sort(callback.baseline_.reference.rows.data[group], axis=0)


def answers(model, images):
    model.eval()
    with torch.no_grad():
        return model(torch.stack([picture for picture, _ in images(N, 2)]))


def said(callback):
    (warning,) = [each for each in callback.baseline_.warnings if each.startswith("the model's answer: ")]
    return warning


@pytest.mark.parametrize("options", [{}, {"num_sanity_val_steps": 0}], ids=str)
def test_what_forward_returns_and_what_feeds_it(fitted, images, options):
    model = Base()
    callback = fitted(model, **options)

    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    assert {key: info(callback)[key] for key in ("layer", "linear", "loss", "auto", "kind")} == {
        "layer": "head", "linear": True, "loss": "cross_entropy", "auto": True, "kind": "logits",
    }  # fmt: skip
    assert "what Base.forward returned, made by 'head'" in info(callback)["found"]
    assert "batch[1]" in info(callback)["found"]
    assert callback.baseline_.warnings == []
    expected = np.sort(answers(model, images).softmax(1).numpy(), axis=0)
    np.testing.assert_allclose(sorted_rows(callback, "outputs")[:, :4], expected, rtol=1e-4)
    with torch.no_grad():
        features = model.body(torch.stack([picture for picture, _ in images(N, 2)])).numpy()
    np.testing.assert_allclose(sorted_rows(callback, "embeddings/head.input"), np.sort(features, axis=0), rtol=1e-4)


class Lora(nn.Module):
    """As of peft: a layer, and beside it a narrow one that is trained."""

    def __init__(self):
        super().__init__()
        self.base_layer = nn.Linear(6, 4)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})

    def forward(self, features):
        return self.base_layer(features) + self.lora_B["default"](self.lora_A["default"](features)) * 0.5


class WithLora(Base):
    def __init__(self):
        super().__init__()
        self.head = Lora()


class Distilled(Base):
    """As timm's deit: two heads, trained on their own, averaged in evaluation."""

    def __init__(self):
        super().__init__()
        self.head_dist = nn.Linear(6, 4)

    def forward(self, images):
        features = self.body(images)
        both = self.head(features), self.head_dist(features * 2)
        return both if self.training else (both[0] + both[1]) / 2

    def loss(self, batch):
        answer = self(batch[0])
        return sum(F.cross_entropy(each, batch[1]) for each in (answer if self.training else [answer]))


class Student(Base):
    """A student and the teacher that it learns from, which is defined last."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Sequential(Body(), nn.Linear(6, 4)).requires_grad_(False)

    def loss(self, batch):
        answer, wanted = self(batch[0]), self.teacher(batch[0])
        distance = F.kl_div(answer.log_softmax(1), wanted.softmax(1), reduction="batchmean")
        return distance + F.cross_entropy(answer, batch[1])


class Auxiliary(Base):
    """A layer that only the loss uses, defined last."""

    def __init__(self):
        super().__init__()
        self.projector = nn.Linear(4, 3)

    def loss(self, batch):
        answer = self(batch[0])
        return F.cross_entropy(answer, batch[1]) + self.projector(answer).square().mean()


class Convolutional(Base):
    """As squeezenet: the classifier is a convolution, averaged."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

    def forward(self, images):
        return F.adaptive_avg_pool2d(torch.relu(self.head(self.body(images))), 1).flatten(1)


class Functional(Base):
    """No forward: the steps call the parts."""

    forward = pl.LightningModule.forward

    def loss(self, batch):
        return F.cross_entropy(self.head(self.body(batch[0])), batch[1])


class Trained(Functional):
    """No forward, the loss is a module, and there is a frozen teacher."""

    def __init__(self):
        super().__init__()
        self.teacher = nn.Sequential(Body(), nn.Linear(6, 4)).requires_grad_(False)
        self.criterion = nn.CrossEntropyLoss()

    def loss(self, batch):
        self.teacher(batch[0])
        return self.criterion(self.head(self.body(batch[0])), batch[1])


class Probabilities(Base):
    def __init__(self):
        super().__init__()
        self.softmax = nn.Softmax(1)

    def forward(self, images):
        return self.softmax(super().forward(images))

    def loss(self, batch):
        return F.nll_loss(self(batch[0]).log(), batch[1])


class Accuracy(Base):
    """The loss is written out, and validation has none."""

    def loss(self, batch):
        answer = self(batch[0])
        if not self.training:
            return (answer.argmax(1) == batch[1]).float().mean()
        return -answer.log_softmax(1)[torch.arange(len(answer)), batch[1]].mean()


class Hidden(torch.autograd.Function):
    """A loss with a gradient of its own, which torch tells nothing of."""

    @staticmethod
    def forward(ctx, scores, labels):
        ctx.save_for_backward(scores.softmax(1) - F.one_hot(labels, 4))
        return F.cross_entropy(scores, labels)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


class OwnGradient(Base):
    def loss(self, batch):
        return Hidden.apply(self(batch[0]), batch[1])


class Numpy(Base):
    """Labels go through numpy."""

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), torch.from_numpy(batch[1].cpu().numpy()))


class Mixed(Base):
    """Labels that are mixed on their way to the loss."""

    def loss(self, batch):
        wanted = F.one_hot(batch[1], 4).float()
        return F.cross_entropy(self(batch[0]), 0.7 * wanted + 0.3 * wanted.roll(1, 0))


@pytest.mark.parametrize(
    ("kind", "layer", "embeddings", "form"),
    [
        (WithLora, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
        (Distilled, "", ["head.input", "head_dist.input"], {"linear": True, "loss": "cross_entropy"}),
        (Student, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
        (Auxiliary, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
        (Convolutional, "", ["head.input"], {"linear": False, "loss": "cross_entropy"}),
        (Functional, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
        (Trained, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
        (Probabilities, "softmax", ["head.input"], {"linear": False, "activation": "softmax"}),
        (Accuracy, "head", ["head.input"], {"linear": True}),
        (OwnGradient, "head", ["head.input"], {"linear": True}),
        (Numpy, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
        (Mixed, "head", ["head.input"], {"linear": True, "loss": "cross_entropy"}),
    ],
)
@pytest.mark.parametrize("sanity", [0, 2])
def test_the_answer_and_not_the_linear_that_is_defined_last(fitted, kind, layer, embeddings, form, sanity):
    callback = fitted(kind(), num_sanity_val_steps=sanity)

    assert read(callback) == {"outputs": N} | {f"embeddings/{name}": N for name in embeddings}
    told = info(callback)
    assert {key: told[key] for key in form} == form
    assert (told["layer"], told["columns"]) == (layer, 4)
    assert callback.baseline_.warnings == []


def test_the_mean_of_two_heads_is_what_is_recorded(fitted, images):
    model = Distilled()
    callback = fitted(model)

    expected = np.sort(answers(model, images).softmax(1).numpy(), axis=0)
    np.testing.assert_allclose(sorted_rows(callback, "outputs")[:, :4], expected, rtol=1e-4)


class TwoHeads(Base):
    def __init__(self):
        super().__init__()
        self.depth = nn.Linear(6, 1)

    def forward(self, images):
        features = self.body(images)
        return {"species": self.head(features), "depth": self.depth(features)}

    def loss(self, batch):
        answer = self(batch[0])
        distance = F.mse_loss(answer["depth"][:, 0], batch[1].float())
        return F.cross_entropy(answer["species"], batch[1]) + distance


class TwoHeadsWithoutForward(TwoHeads):
    forward = pl.LightningModule.forward

    def loss(self, batch):
        features = self.body(batch[0])
        distance = F.mse_loss(self.depth(features)[:, 0], batch[1].float())
        return F.cross_entropy(self.head(features), batch[1]) + distance


@pytest.mark.parametrize(("kind", "first"), [(TwoHeads, "species"), (TwoHeadsWithoutForward, "head")])
@pytest.mark.parametrize("sanity", [0, 2])
def test_several_heads_are_several_outputs(fitted, kind, first, sanity):
    callback = fitted(kind(), num_sanity_val_steps=sanity)

    embedding = "head.input" if kind is TwoHeads else "depth.input"  # one for both, of the head that is called first
    assert read(callback) == {f"outputs/{first}": N, "outputs/depth": N, f"embeddings/{embedding}": N}
    assert (info(callback, f"outputs/{first}")["kind"], info(callback, "outputs/depth")["kind"]) == ("logits", "values")
    assert info(callback, "outputs/depth")["loss"] == "squared"


class Logits(Base):
    """Returns its features beside the logits."""

    def forward(self, images):
        features = self.body(images)
        return self.head(features), features

    def loss(self, batch):
        return F.cross_entropy(self(batch[0])[0], batch[1])


def test_features_beside_the_answer_are_no_output(fitted):
    assert read(fitted(Logits())) == {"outputs": N, "embeddings/head.input": N}


class ArcFace(Base):
    """The answer is an embedding; classes exist only in the loss."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(4, 4))

    def loss(self, batch):
        scores = F.linear(F.normalize(self(batch[0])), F.normalize(self.centres))
        return F.cross_entropy(scores * 8, batch[1])


class Probe(Base):
    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(4, 4)

    def loss(self, batch):
        return F.cross_entropy(self.classifier(self(batch[0])), batch[1])


class Triplets(Base):
    def loss(self, batch):
        answer = self(batch[0])
        order = batch[1].argsort()
        return F.triplet_margin_loss(answer, answer[order], answer[order.flip(0)])


class Contrastive(Base):
    def loss(self, batch):
        answer = F.normalize(self(batch[0]))
        same = (batch[1][:, None] == batch[1][None]).float()
        return F.binary_cross_entropy_with_logits(answer @ answer.T, same)


@pytest.mark.parametrize("kind", [ArcFace, Probe, Triplets, Contrastive])
def test_an_answer_that_only_the_loss_makes_something_of_is_an_embedding(fitted, images, kind):
    model = kind()
    callback = fitted(model)

    assert read(callback) == {"embeddings/head": N}
    np.testing.assert_allclose(
        sorted_rows(callback, "embeddings/head"), np.sort(answers(model, images).numpy(), axis=0), rtol=1e-4, atol=1e-6
    )


# Losses written by hand.


class ByHand(Base):
    """A loss that no function of torch computes; validation has none."""

    def __init__(self, compare=None, label=lambda label: label):
        super().__init__()
        self.compare, self.label = compare, label

    def loss(self, batch):
        return self.compare(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self(batch[0])


def labelled(label):
    """A collation that makes other labels of the classes."""
    return lambda batch: (torch.stack([x for x, _ in batch]), torch.stack([label(y) for _, y in batch]))


def one_hot(label):
    return F.one_hot(label, 4).float()


def at(scores, labels):
    return scores[torch.arange(len(scores)), labels.long()]


SCORED = {
    "log_softmax": (lambda z, y: -at(z.log_softmax(1), y).mean(), torch.clone, "logits"),
    "gather": (lambda z, y: (z.logsumexp(1) - z.gather(1, y[:, None])[:, 0]).mean(), torch.clone, "logits"),
    "margin": (lambda z, y: (z - at(z, y)[:, None] + 1).relu().mean(), torch.clone, "logits"),
    "floats": (lambda z, y: -at(z.log_softmax(1), y).mean(), torch.Tensor.float, "logits"),
    "one-hot": (lambda z, y: -(y * z.log_softmax(1)).sum(1).mean(), one_hot, "logits"),
    "softplus": (lambda z, y: (F.softplus(z) - y * z).mean(), one_hot, "multilabel_logits"),
    "logsigmoid": (
        lambda z, y: -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z)).mean(),
        one_hot,
        "multilabel_logits",
    ),
    "sigmoid": (lambda z, y: -(y * (z.sigmoid() + 0.1).log()).mean(), one_hot, "multilabel_logits"),
    "keypoints": (
        lambda z, y: (z.sigmoid() - y).square().mean(),
        lambda y: torch.stack([y / 8, y / 4, y / 9, y / 3]),
        "values",
    ),
}


@pytest.mark.parametrize("name", SCORED)
def test_a_loss_written_by_hand_shows_what_the_columns_are(fitted, name):
    compare, label, kind = SCORED[name]
    callback = fitted(ByHand(compare), collate=labelled(label), num_sanity_val_steps=0)

    assert info(callback)["kind"] == kind
    meaning = {"logits": "classes", "multilabel_logits": "multi_hot", "values": "values"}[kind]
    for profile in (callback.baseline_.reference, callback.baseline_.training):
        assert profile.groups["labels"].info["read_as"] == meaning
    assert callback.baseline_.warnings == []


def pairs(labels):
    return (labels[:, None] == labels[None]).float()


COMPARED = {
    "differences": lambda z, y: ((z[:, None] - z[None]).square().sum(-1) * pairs(y)).mean(),
    "products": lambda z, y: ((z @ z.T) * pairs(y)).mean(),
    "einsum": lambda z, y: (torch.einsum("id,jd->ij", z, z) * pairs(y)).mean(),
    "contrast": lambda z, y: -((z @ z.mT).log_softmax(1) * pairs(y)).mean(),
    "distances": lambda z, y: (torch.cdist(z, z) * pairs(y)).mean(),
    "triplets": lambda z, y: (
        ((z - z[y.argsort()]).square() - (z - z[y.argsort().flip(0)]).square()).sum(1).relu().mean()
    ),
    "neighbours": lambda z, y: ((z - z.roll(1, 0)).square().sum(1) * (y == y.roll(1, 0))).mean(),
    "prototypes": lambda z, y: (
        -at((-torch.cdist(z, torch.stack([z[y == c].sum(0) for c in range(4)]))).log_softmax(1), y).mean()
    ),
}


class OtherNetwork(ByHand):
    def __init__(self):
        super().__init__()
        self.momentum = nn.Sequential(Body(), nn.Linear(6, 4)).requires_grad_(False)

    def loss(self, batch):
        return (self(batch[0]) @ self.momentum(batch[0]).T * pairs(batch[1])).mean()


class Centres(ByHand):
    """Classes exist only in the loss, which is written by hand."""

    def __init__(self):
        super().__init__()
        self.centres = nn.Parameter(torch.randn(4, 4))

    def loss(self, batch):
        return -at((F.normalize(self(batch[0])) @ self.centres.T).log_softmax(1), batch[1]).mean()


@pytest.mark.parametrize("make", [*(lambda c=c: ByHand(c) for c in COMPARED.values()), OtherNetwork, Centres])
def test_rows_that_a_loss_written_by_hand_compares_are_an_embedding(fitted, images, make):
    callback = fitted(make(), num_sanity_val_steps=0)
    assert read(callback) == {"embeddings/head": N}
    assert callback.baseline_.warnings == []

    torch.manual_seed(0)  # weights of which none is dead
    check = BaselineCallback().check(make(), DataLoader(images(N, 1), BATCH))
    assert check.ok, check.warnings
    assert [row.group for row in check.rows] == ["inputs", "embeddings/head", "labels"]


@pytest.mark.parametrize("taken", [lambda scores: scores[:, :2], lambda scores: scores.reshape(-1, 2, 2)])
def test_several_answers_in_one_are_said(fitted, images, taken):
    def loss(scores, labels):
        scores = taken(scores)
        return F.cross_entropy(scores, labels.reshape(-1, *[1] * (scores.ndim - 2)).expand(-1, *scores.shape[2:]) % 2)

    (warning,) = fitted(ByHand(loss), num_sanity_val_steps=0).baseline_.warnings
    assert "for a choice among 2 classes, and it is read as one among all its 4 columns" in warning
    assert warning in BaselineCallback().check(ByHand(loss), DataLoader(images(N, 1), BATCH)).warnings
    assert (
        fitted(ByHand(loss), BaselineCallback(outputs=None, layers=["head"], clean_windows=0)).baseline_.warnings == []
    )


def test_what_a_loss_written_by_hand_does_not_show_is_a_doubt(fitted, images):
    def brier(scores, labels):
        return (scores - one_hot(labels)).square().mean()

    told = "but no loss was seen to hold the answer against them: read as logits"
    callback = fitted(ByHand(brier))
    (warning,) = callback.baseline_.warnings
    assert told in warning
    assert any(told in each for each in BaselineCallback().check(ByHand(brier), DataLoader(images(N, 1), 8)).warnings)

    for settled, groups in (
        ({"task": "classification"}, {"outputs": N, "embeddings/head.input": N}),
        ({"outputs": None, "layers": ["head"]}, {"embeddings/head": N}),
    ):
        callback = fitted(ByHand(brier), BaselineCallback(clean_windows=0, **settled))
        assert (read(callback), callback.baseline_.warnings) == (groups, [])


class Unattached(ByHand):
    def training_step(self, batch, _):
        assert self.trainer.world_size
        return F.cross_entropy(self(batch[0]), batch[1])


def test_a_check_says_that_a_training_step_needs_its_trainer(images):
    loader = DataLoader(images(N, 1), BATCH)
    found = BaselineCallback().check(Unattached(), loader)
    assert any("the training step could not be run here (RuntimeError" in warning for warning in found.warnings)
    assert BaselineCallback(task="classification").check(Unattached(), loader).ok


class Autoencoder(Base):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3 * 16 * 16)

    def loss(self, batch):
        return F.mse_loss(self(batch[0]), batch[0].flatten(1))


class Variational(Autoencoder):
    def forward(self, images):
        features = self.body(images)
        return self.head(features), features, features.exp()

    def loss(self, batch):
        made, mean, variance = self(batch[0])
        return (made - batch[0].flatten(1)).square().sum() + (mean.square() + variance).mean()


class Pictures(Autoencoder):
    """Returns an image and two vectors; the loss holds only the image against the images."""

    def forward(self, images):
        features = self.body(images)
        return self.head(features).view_as(images), features, features.exp()

    def loss(self, batch):
        made, mean, variance = self(batch[0])
        return F.mse_loss(made, batch[0]) + (mean.square() + variance).mean() + 0 * batch[1].sum()


class Byol(Base):
    def __init__(self):
        super().__init__()
        self.target = nn.Sequential(Body(), nn.Linear(6, 4)).requires_grad_(False)

    def loss(self, batch):
        with torch.no_grad():
            wanted = self.target(batch[0].flip(-1))
        return F.mse_loss(F.normalize(self(batch[0])), F.normalize(wanted))


class Distils(Byol):
    """Another network's answer is the target, in a loss written by hand."""

    def loss(self, batch):
        return (self(batch[0]) - self.target(batch[0])).square().mean()


class Gan(Base):
    """Forward is the generator's, as in Lightning's own example."""

    automatic_optimization = False

    def __init__(self):
        super().__init__()
        self.generator = nn.Linear(5, 3 * 16 * 16)
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 1))

    def forward(self, noise):
        return self.generator(noise)

    def training_step(self, batch, _):
        noise = torch.randn(len(batch[0]), 5).type_as(batch[0])
        scores = self.discriminator(batch[0])
        self.manual_backward(F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores)))
        made = self.discriminator(self(noise))
        self.manual_backward(F.binary_cross_entropy_with_logits(made, torch.zeros_like(made)))

    def validation_step(self, batch, _):
        self.log("score", self.discriminator(batch[0]).mean(), batch_size=BATCH)


class Discriminates(Gan):
    """The same without loss functions."""

    def training_step(self, batch, _):
        self.manual_backward(F.softplus(-self.discriminator(batch[0])).mean())


class Alternates(Gan):
    """With two optimisers that it steps itself."""

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.generator, self.discriminator)], []

    def training_step(self, batch, _):
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            super().training_step(batch, _)
            optimizer.step()
            self.untoggle_optimizer(optimizer)


class Generates(Gan):
    def validation_step(self, batch, _):
        self(torch.randn(len(batch[0]), 5))


class Ensemble(Base):
    """Two networks, and nothing tells which of them answers."""

    forward = pl.LightningModule.forward

    def __init__(self):
        super().__init__()
        self.one, self.two = (nn.Sequential(Body(), nn.Linear(6, 4)) for _ in range(2))

    def loss(self, batch):
        both = self.one(batch[0]).log_softmax(1), self.two(batch[0]).log_softmax(1)
        return -sum(each[torch.arange(len(each)), batch[1]].mean() for each in both)


class Segmentation(Base):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def loss(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1][:, None, None].expand(-1, 16, 16))


class Detection(Base):
    def forward(self, images):
        features = self.body(images)
        boxes = self.head(features.repeat(5, 1))
        return [{"boxes": boxes[place::5]} for place in range(5)]

    def loss(self, batch):
        return self(batch[0])[0]["boxes"].sum()


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Autoencoder, "against the images themselves"),
        (Variational, "uses nothing of the batch but the images"),
        (Pictures, "against the images themselves"),
        (Byol, "uses nothing of the batch but the images"),
        (Distils, "uses nothing of the batch but the images"),
        (Gan, "against nothing of the batch, as a discriminator"),
        (Discriminates, "uses nothing of the batch but the images"),
        (Generates, "not made of the batch, as a generator"),
        (Ensemble, "the batch goes through 'one', 'two', and nothing shows which of them answers"),
        (Segmentation, "Segmentation.forward returned 8x4x16x16, and maps"),
        (Detection, "detections are not read yet"),
    ],
)
@pytest.mark.parametrize("sanity", [0, 2])
def test_what_is_not_clear_is_called_nothing_and_said_with_layers_to_choose_from(fitted, kind, why, sanity):
    callback = fitted(kind(), num_sanity_val_steps=sanity)

    assert read(callback) == {}
    assert why in said(callback)
    advice = f"Pass outputs={'None' * (kind is Segmentation)} and layers=[...], layers of the model by name, such as "
    assert advice in said(callback)
    assert {"inputs", "labels"} <= callback.baseline_.reference.groups.keys()


def test_the_advice_works(fitted):
    callback = BaselineCallback(outputs=None, layers=["body"], clean_windows=0)
    fitted(Byol(), callback)

    assert "body 8x6" in said(fitted(Byol()))
    assert read(callback) == {"embeddings/body": N}
    assert callback.baseline_.warnings == []


def test_training_batches_are_read_like_evaluation(fitted):
    for sanity in (0, 2):
        callback = BaselineCallback(training="all", clean_windows=0)
        fitted(WithLora(), callback, num_sanity_val_steps=sanity)
        groups = callback.baseline_.training.groups

        assert {name: group.n for name, group in groups.items()} == dict.fromkeys(
            ["inputs", "outputs", "embeddings/head.input", "labels"], N
        )


def test_without_validation_the_training_batch_decides(fitted, images):
    callback = BaselineCallback(reference="training", training=None, clean_windows=0)
    fitted(WithLora(), callback, limit_val_batches=0)

    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    callback = BaselineCallback(reference="training", training=None, clean_windows=0)
    fitted(Byol(), callback, limit_val_batches=0)
    assert read(callback) == {}
    assert "uses nothing of the batch but the images" in said(callback)


def test_a_test_pass_decides_by_itself_and_with_the_fit_before_it(trainer, images):
    data = DataLoader(images(N, 2), BATCH)

    class Tested(WithLora):
        def test_step(self, batch, batch_idx):
            self(batch[0])

    callback, model = BaselineCallback(reference="test", clean_windows=0), Tested()
    running = trainer(callback)
    running.test(model, data, verbose=False)
    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    assert "loss" not in info(callback)
    running.fit(model, data, data)
    running.test(model, data, verbose=False)
    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    assert info(callback)["loss"] == "cross_entropy"


def test_the_loss_shows_where_the_labels_are(fitted):
    """Batches of image, index and label: in second place is not what the loss is given."""

    class Indexed(Base):
        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[2])

    def collate(samples):
        pictures, labels = zip(*samples, strict=True)
        return torch.stack(pictures), torch.arange(len(pictures)) + 100, torch.stack(labels)

    callback = fitted(Indexed(), collate=collate)
    assert info(callback, "labels")["read_from"] == 2
    assert max(int(label) for label, _ in callback.baseline_.reference.groups["labels"].categories[""].top(9)) < 4
    assert callback.baseline_.training.groups["labels"].info["read_from"] == 2


def test_two_views_are_images_and_no_labels(fitted):
    class Views(Byol):
        def loss(self, batch):
            with torch.no_grad():
                wanted = self.target(batch[0][1])
            return F.mse_loss(F.normalize(self(batch[0][0])), F.normalize(wanted))

    def collate(samples):
        pictures = torch.stack([picture for picture, _ in samples])
        return [pictures, pictures.flip(-1)], torch.stack([label for _, label in samples])

    callback = fitted(Views(), collate=collate)
    assert read(callback) == {}
    assert "uses nothing of the batch but the images" in said(callback)


@pytest.mark.parametrize("sanity", [0, 2])
def test_each_of_several_outputs_has_the_labels_that_its_loss_is_given(fitted, images, sanity):
    class Both(Base):
        def __init__(self):
            super().__init__()
            self.other = nn.Linear(6, 2)

        def forward(self, pictures):
            features = self.body(pictures)
            return self.head(features), self.other(features)

        def loss(self, batch):
            one, two = self(batch[0])
            return F.cross_entropy(one, batch[2]) + F.mse_loss(two, batch[1])

    def collate(samples):
        pictures, labels = map(torch.stack, zip(*samples, strict=True))
        return pictures, torch.stack([labels / 2, labels / 3], dim=1), labels

    callback = fitted(Both(), collate=collate, num_sanity_val_steps=sanity)
    labels = torch.stack([label for _, label in images(N, 2)])
    for profile in (callback.baseline_.reference, callback.baseline_.training):
        assert {name for name in profile.groups if name.startswith("labels")} == {"labels/0", "labels/1"}
    groups = callback.baseline_.reference.groups
    assert [groups[f"labels/{head}"].info["read_from"] for head in (0, 1)] == [2, 1]
    counted = {int(label): n for label, n in groups["labels/0"].categories[""].top(9)}
    assert counted == {label: int((labels == label).sum()) for label in labels.unique().tolist()}
    assert groups["labels/1"].bank.max.tolist() == pytest.approx([int(labels.max()) / 2, int(labels.max()) / 3])


def test_labels_of_the_training_profile_mean_what_those_of_the_reference_do(fitted):
    """Floats of 0 and 1 are classes beside a binary cross-entropy, also where the outputs are not profiled."""

    class Binary(Base):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 1)

        def loss(self, batch):
            return F.binary_cross_entropy_with_logits(self(batch[0])[:, 0], batch[1])

    def collate(samples):
        pictures, labels = map(torch.stack, zip(*samples, strict=True))
        return pictures, (labels % 2).float()

    baseline = fitted(Binary(), collate=collate).baseline_
    for profile in (baseline.reference, baseline.training):
        assert profile.groups["labels"].categories[""].n == N


def test_classes_that_are_floats_are_classes_in_training_too(fitted):
    """Training batches have no answer beside the labels: how many classes there are is known from validation."""

    class Floats(Base):
        def loss(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1].long())

    def collate(samples):
        pictures, labels = zip(*samples, strict=True)
        return torch.stack(pictures), torch.stack(labels).float()

    baseline = fitted(Floats(), collate=collate).baseline_
    assert [each.groups["labels"].info["read_as"] for each in baseline.sources().values()] == ["classes"] * 2


@pytest.mark.parametrize("task", ["auto", "regression"])
def test_whole_numbers_beside_one_value_are_numbers(fitted, task):
    """Ages and counts, in both profiles."""

    class Ages(Base):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 1)

        def loss(self, batch):
            error = self(batch[0])[:, 0] - batch[1]
            return F.mse_loss(error, 0 * batch[1].float()) if task == "auto" else error.square().mean()

    def collate(samples):
        pictures, labels = map(torch.stack, zip(*samples, strict=True))
        return pictures, 30 + labels

    callback = BaselineCallback(task=task, clean_windows=0)
    for profile in fitted(Ages(), callback, collate=collate).baseline_.sources().values():
        assert (profile.groups["labels"].bank.n, profile.groups["labels"].bank.min.tolist()) == (N, [30.0])


@pytest.mark.parametrize("loss", [F.binary_cross_entropy_with_logits, F.multilabel_soft_margin_loss])
def test_an_output_that_was_named_is_told_its_loss(fitted, loss):
    class Several(Base):
        def loss(self, batch):
            return loss(self(batch[0]), F.one_hot(batch[1], 4).float())

    callback = BaselineCallback(outputs="head", layers=None, clean_windows=0)
    assert info(fitted(Several(), callback))["loss"] == "binary_cross_entropy_with_logits"


def test_a_layer_that_is_called_twice_is_stated(fitted):
    class Twice(Base):
        def forward(self, images):
            return self.head(self.body(images)) + self.head(self.body(images.flip(-1)))

    callback = fitted(Twice())
    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    assert info(callback)["layer"] == ""
    assert "'head' is called 2 times in a batch: its first call is read" in said(callback)


def test_a_model_that_is_given_the_labels_too_and_computes_its_loss_itself(fitted):
    class Whole(nn.Module):
        """As of Hugging Face."""

        def __init__(self):
            super().__init__()
            self.body, self.classifier = Body(), nn.Linear(6, 4)

        def forward(self, pixels, labels=None):
            logits = self.classifier(self.body(pixels))
            return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}

    class Steps(Functional):
        def __init__(self):
            super().__init__()
            self.model = Whole()

        def loss(self, batch):
            return self.model(pixels=batch[0], labels=batch[1])["loss"]

    callback = fitted(Steps())
    assert read(callback) == {"outputs": N, "embeddings/model.classifier.input": N}
    assert (info(callback)["layer"], info(callback)["loss"]) == ("model.classifier", "cross_entropy")
    assert callback.baseline_.warnings == []


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_scripted_network_has_an_answer_and_no_layers(fitted):
    class Scripted(Base):
        def __init__(self):
            super().__init__()
            self.net = torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(768, 4)))

        def forward(self, images):
            return self.net(images)

    callback = fitted(Scripted())
    assert read(callback) == {"outputs": N}
    assert "there are no embeddings" in said(callback)


class Attention(Base):
    """Torch computes its attention otherwise in evaluation, unless somebody watches."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.body, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

    def forward(self, images):
        return self.head(self.body(self.patches(images).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("kind", [Attention, Distilled, Functional])
def test_metrics_of_the_batch_that_is_traced_are_the_same_to_the_bit(trainer, images, kind):
    results = []
    for callbacks in ([], [BaselineCallback(clean_windows=0)]):
        torch.manual_seed(3)
        model = kind()
        running = trainer(*callbacks, num_sanity_val_steps=0)
        running.fit(model, DataLoader(images(N, 1), BATCH), DataLoader(images(BATCH, 2), BATCH))
        results.append([running.callback_metrics["loss"], torch.get_rng_state(), *model.state_dict().values()])

    assert {group.n for group in callbacks[0].baseline_.reference.groups.values()} == {BATCH}
    assert {"outputs", "embeddings/head.input"} <= callbacks[0].baseline_.reference.groups.keys()
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_reduction_by_the_name_that_is_found(fitted):
    callback = fitted(Convolutional(), BaselineCallback(reduce={"head.input": "max"}, clean_windows=0))
    assert info(callback, "embeddings/head.input")["reduce"] == "max"
    assert callback.baseline_.warnings == []
    callback = fitted(Convolutional(), BaselineCallback(reduce={"fc.input": "max"}, clean_windows=0))
    assert "reduce has ['fc.input'], but the layers that are read are ['head.input']" in said(callback)


def test_a_layer_that_was_named_and_is_called_twice_is_stated(fitted):
    class Twice(Base):
        def forward(self, images):
            return self.head(self.body(images) + self.body(images.flip(-1)))

    callback = fitted(Twice(), BaselineCallback(layers=["body"], clean_windows=0))
    assert "'body' is called 2 times in a batch: its first call is read" in said(callback)


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_a_compiled_model_whose_answer_is_not_its_last_linear_is_read_by_what_it_returns(fresh, fitted, images, whole):
    model = Probabilities()
    compiled = model
    if whole:
        compiled = torch.compile(model, backend="eager")
    else:
        model.body = torch.compile(model.body, backend="eager")
    callback = fitted(compiled)

    assert read(callback) == {"outputs": N}
    assert info(callback)["kind"] == "probabilities"
    expected = np.sort(answers(model, images).numpy(), axis=0)
    np.testing.assert_allclose(sorted_rows(callback, "outputs")[:, :4], expected, rtol=1e-4)
    assert "that is read, and what goes into its last layer is not known. Pass layers=[...]" in said(callback)
    model.train()
    torch._dynamo.reset()
    callback = fitted(compiled, BaselineCallback(layers=["head"], clean_windows=0))
    assert read(callback) == {"outputs": N, "embeddings/head": N}
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("compiled", [True, False])
def test_what_a_compiled_model_returned_is_found_again(fresh, fitted, trainer, images, compiled):
    class Predicts(Probabilities):
        def predict_step(self, batch, _):
            return self(batch[0])

    model = Predicts()
    body = model.body
    model.body = torch.compile(body, backend="eager")
    callback = fitted(model)
    model.body = model.body if compiled else body
    monitor, found = watched(callback.baseline_)
    trainer(DriftCallback(monitor=monitor)).predict(model, DataLoader(images(N, 2), BATCH))

    ours, theirs = found[0].profile.rows.data["outputs"], callback.baseline_.reference.rows.data["outputs"]
    np.testing.assert_allclose(np.sort(ours, 0), np.sort(theirs, 0), rtol=1e-4, atol=1e-6)
    assert monitor.status.failures == {}


@pytest.mark.slow
def test_a_compiled_model_that_returns_several_things_says_that_none_is_read(fresh, fitted):
    callback = fitted(torch.compile(TwoHeads(), backend="eager"))
    assert read(callback) == {}
    assert "its last Linear was not seen to answer what it returns, so neither is read" in said(callback)


def test_a_compiled_function_within_the_forward_pass_stays_whole(fitted):
    torch._dynamo.reset()
    twice = torch.compile(lambda images: torch.relu(images) * 2, backend="eager", fullgraph=True)

    class Preprocessed(Base):
        def forward(self, images):
            return super().forward(twice(images))

    callback = fitted(Preprocessed())
    torch._dynamo.reset()
    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("where", ["training_step", "validation_step"])
def test_a_step_that_raises_leaves_no_trace(fitted, where):
    class Raises(Base):
        def raises(self, *_):
            self(_[0][0])
            raise RuntimeError("out of memory")

    model = Raises()
    setattr(model, where, model.raises)
    with pytest.raises(RuntimeError, match="out of memory"):
        fitted(model)
    assert _get_current_function_mode() is None
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_training_batch_that_is_skipped_leaves_no_trace(fitted):
    class Skips(Base):
        def on_train_batch_start(self, batch, batch_idx):
            return -1

    fitted(Skips())
    assert _get_current_function_mode() is None


def test_two_callbacks_trace_the_same_batches_and_leave_nothing(trainer, images):
    callbacks = [BaselineCallback(clean_windows=0, artifact_path=path) for path in ("lensai", "again")]
    loaders = [DataLoader(images(N, seed), BATCH) for seed in (1, 2)]
    trainer(callbacks[0], callbacks[1]).fit(Base(), *loaders)

    assert _get_current_function_mode() is None
    for callback in callbacks:
        assert read(callback) == {"outputs": N, "embeddings/head.input": N}
        assert info(callback)["loss"] == "cross_entropy"


def test_gradients_computed_again_are_no_second_call(fitted):
    class Checkpointed(Base):
        def forward(self, images):
            return self.head(checkpoint(self.body, images, use_reentrant=False))

    callback = fitted(Checkpointed(), BaselineCallback(training="all", clean_windows=0))
    assert read(callback) == {"outputs": N, "embeddings/head.input": N}
    assert callback.baseline_.warnings == []


def test_a_model_that_is_copied_while_it_is_traced(fitted):
    """Averaged weights: the copy is called without a hook that tells of it."""

    class Averages(Base):
        def training_step(self, batch, batch_idx):
            copy.deepcopy(self.body)(batch[0])
            pickle.loads(pickle.dumps(self.body))(batch[0])
            return super().training_step(batch, batch_idx)

    assert fitted(Averages()).baseline_.warnings == []


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Autoencoder, "against the images themselves"),
        (Segmentation, "maps"),
        (Gan, "against nothing of the batch, as a discriminator"),
        (Discriminates, "uses nothing of the batch but the images"),
        (Alternates, "against nothing of the batch, as a discriminator"),
    ],
)
def test_check_is_not_ok_where_something_was_not_decided(images, kind, why):
    found = BaselineCallback().check(kind(), DataLoader(images(N, 1), BATCH))
    assert not found.ok
    assert any(why in warning and "and layers=[...]" in warning for warning in found.warnings)
    assert [row.group for row in found.rows] == ["inputs", "labels"]


def test_check_says_how_it_was_decided(images):
    found = BaselineCallback().check(WithLora(), DataLoader(images(N, 1), BATCH))
    rows = {row.group: row for row in found.rows}
    assert found.ok, found.warnings
    told = "what WithLora.forward returned, made by 'head.base_layer' and 'head.lora_B.default'"
    assert rows["outputs"].read == "logits of head"
    assert rows["outputs"].found.startswith(told)
    assert rows["embeddings/head.input"].found == "what goes into 'head', the last layer before the answer"


# Production: other names.


class Deployed(pl.LightningModule):
    """The same network under other names, called by predict_step alone."""

    def __init__(self, model):
        super().__init__()
        self.network = nn.ModuleDict({"stem": model.body, "top": model.head})

    def predict_step(self, batch, batch_idx):
        return self.network["top"](self.network["stem"](batch[0]))


class Passed(Base):
    """Its answer is made of two heads, so no layer gives it."""

    def __init__(self):
        super().__init__()
        self.head_dist = nn.Linear(6, 4)

    def forward(self, images):
        features = self.body(images)
        return (self.head(features) + self.head_dist(features)) / 2


class PassedOn(pl.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.inner = model

    def predict_step(self, batch, batch_idx):
        return self.inner(batch[0])


def watched(baseline):
    """A monitor, and the windows that it will have judged, with their profiles."""
    monitor, found = DriftMonitor(baseline, N), []
    update = monitor.update

    def kept(**batch):
        reports = update(**batch)
        found.extend(reports)
        return reports

    monitor.update = kept
    return monitor, found


class Crossed(Base):
    """Two last layers, of which the one that is called first stands second in the sum."""

    def __init__(self):
        super().__init__()
        self.head_dist = nn.Linear(6, 4)

    def forward(self, images):
        features = self.body(images)
        second = self.head_dist(features * 3 - 1)
        return self.head(features) + second


@pytest.mark.parametrize(
    ("kind", "deploy"),
    [(Crossed, PassedOn), (Base, Deployed), (WithLora, Deployed), (Passed, PassedOn), (ArcFace, Deployed)],
)
def test_what_auto_found_is_found_again_in_a_model_with_other_names(fitted, trainer, images, kind, deploy):
    model = kind()
    callback = fitted(model)
    monitor, found = watched(callback.baseline_)
    trainer(DriftCallback(monitor=monitor)).predict(deploy(model), DataLoader(images(N, 2), BATCH))
    ours, theirs = found[0].profile.rows.data, callback.baseline_.reference.rows.data

    assert monitor.status.failures == {}
    assert ours.keys() == theirs.keys()
    for group in read(callback):
        np.testing.assert_allclose(np.sort(ours[group], 0), np.sort(theirs[group], 0), rtol=1e-4, atol=1e-6)


def test_what_is_not_found_again_is_said(fitted, trainer, images, caplog):
    class Other(pl.LightningModule):
        def predict_step(self, batch, batch_idx):
            return F.adaptive_avg_pool2d(batch[0], 2)

    drift = DriftCallback(fitted(Base()).baseline_, window=N)
    trainer(drift).predict(Other(), DataLoader(images(N, 2), BATCH))

    assert "the model's answer: no module with parameters takes the images of the batch" in caplog.text
    assert "Pass outputs=" not in caplog.text  # which a DriftCallback does not take
    assert drift.monitor_.status.rows == N


def test_a_watched_module_with_other_names(fitted, images):
    model = Base()
    callback = fitted(model)
    renamed = nn.Sequential(model.body, model.head).eval()
    monitor, found = watched(callback.baseline_)
    pictures = torch.stack([picture for picture, _ in images(N, 2)])
    with torch.no_grad():
        expected = renamed(pictures)
        with monitor.watch(renamed):
            answers = [renamed(part) for part in pictures.split(BATCH)]
    theirs = callback.baseline_.reference.rows.data

    assert torch.equal(torch.cat(answers), expected) or torch.allclose(torch.cat(answers), expected)
    assert monitor.status.failures == {}
    for group in ("outputs", "embeddings/head.input"):
        ours = found[0].profile.rows.data[group]
        np.testing.assert_allclose(np.sort(ours, 0), np.sort(theirs[group], 0), rtol=1e-4, atol=1e-6)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in renamed.modules())


def test_a_watched_module_that_raises_while_it_is_followed(fitted, images):
    class Raises(nn.Sequential):
        fails = True

        def forward(self, pictures):
            answer = super().forward(pictures)
            if self.fails:
                raise RuntimeError("out of memory")
            return answer

    model = Base()
    monitor = DriftMonitor(fitted(model).baseline_, N)
    renamed = Raises(model.body, model.head).eval()
    with monitor.watch(renamed), torch.no_grad():
        with pytest.raises(RuntimeError, match="out of memory"):
            renamed(images(N, 2).tensors[0])
        assert _get_current_function_mode() is None
        renamed.fails = False
        renamed(images(N, 2).tensors[0])
    assert monitor.status.rows == N
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in renamed.modules())


# Networks of libraries.


class Whole(Base):
    """A network of a library is all of it."""

    def __init__(self, net):
        super().__init__()
        self.body = self.head = None
        self.net = net

    def forward(self, images):
        return self.net(images)


def checked(net, images, side):
    data = [(F.interpolate(picture[None], side)[0], label) for picture, label in images(2, 3)]
    found = BaselineCallback().check(Whole(net), DataLoader(data, 2))
    return {row.group: row.shape for row in found.rows}, found


@pytest.mark.parametrize(
    ("name", "embedding", "width"),
    [
        ("resnet18", "net.fc.input", 512),
        ("squeezenet1_1", "net.classifier.1.input", 512),
        ("mobilenet_v3_small", "net.classifier.3.input", 1024),
        ("shufflenet_v2_x0_5", "net.fc.input", 1024),
        ("swin_t", "net.head.input", 768),
    ],
)
def test_classifiers_of_torchvision(images, name, embedding, width):
    torchvision = pytest.importorskip("torchvision")
    shapes, found = checked(getattr(torchvision.models, name)(weights=None, num_classes=4), images, 64)
    assert shapes["outputs"] == (2, 4)
    assert shapes[f"embeddings/{embedding}"] == (2, width)
    assert not [warning for warning in found.warnings if "answer" in warning]


@pytest.mark.slow
def test_segmentation_and_detection_of_torchvision(images):
    models = pytest.importorskip("torchvision").models
    nothing = {"weights": None, "weights_backbone": None, "num_classes": 3}
    net = models.segmentation.lraspp_mobilenet_v3_large(**nothing)
    shapes, found = checked(net, images, 64)
    assert shapes.keys() == {"inputs", "labels"}
    assert any("2x3x64x64, and maps and sequences are not read" in warning for warning in found.warnings)

    net = models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(**nothing, min_size=64, max_size=96)
    shapes, found = checked(net, images, 64)
    assert shapes.keys() == {"inputs", "labels"}
    assert any("detections are not read yet" in warning for warning in found.warnings)
    assert any("outputs=None and layers=[...]" in w and "net.backbone 2x256x" in w for w in found.warnings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "embeddings"),
    [
        ("deit_tiny_distilled_patch16_224", ["net.head.input", "net.head_dist.input"]),
        ("levit_128s", ["net.head.linear.input", "net.head_dist.linear.input"]),
        ("efficientformer_l1", ["net.head.input"]),
        ("resnetv2_50x1_bit", ["net.head.fc.input"]),
    ],
)
def test_classifiers_of_timm(images, name, embeddings):
    net = pytest.importorskip("timm").create_model(name, num_classes=4)
    shapes, _ = checked(net, images, 224)
    assert shapes["outputs"] == (2, 4)
    assert {group for group in shapes if group.startswith("embeddings/")} == {f"embeddings/{e}" for e in embeddings}


def test_lora_of_peft(images):
    peft = pytest.importorskip("peft")
    net = peft.get_peft_model(nn.Sequential(Body(), nn.Linear(6, 4)), peft.LoraConfig(target_modules=["1"], r=2))
    shapes, _ = checked(net, images, 16)
    assert shapes["outputs"] == (2, 4)
    assert shapes["embeddings/net.base_model.model.1.input"] == (2, 6)
