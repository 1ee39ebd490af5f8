"""Steps that call their model in parts, several times, or for some of the images."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import torch._dynamo
from torch import nn
from torch.utils.checkpoint import checkpoint

from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.sketches.rows import priorities

N = 20  # batches of 8, 8 and 4
cross_entropy = nn.functional.cross_entropy
nll = nn.functional.nll_loss


@pytest.fixture
def stepped(lit):
    """`stepped(step)`: a LightningModule whose validation step is that function of itself, images and labels."""

    def make(step, *, training=None):
        class Model(lit):
            def validation_step(self, batch, batch_idx):
                return step(self, *batch)

            def training_step(self, batch, batch_idx):
                return (training or (lambda model, x, y: cross_entropy(model(x), y)))(self, *batch)

            def predict_step(self, batch, batch_idx):
                return step(self, *batch)

        return Model()

    return make


@pytest.fixture
def fitted(trainer, images, loaders):
    """`fitted(model, callback)`: the callback after one epoch, and the images and labels it was validated with."""

    def make(model, callback=None, *, sanity=2, **options):
        callback = callback or BaselineCallback(clean_windows=0)
        data = images(N, seed=1)
        trainer(callback, num_sanity_val_steps=sanity).fit(model, loaders(16), loaders(data))
        return callback, *data.tensors

    return make


def in_order(profile, key):
    """Kept rows of a group in the order in which they came."""
    kept = profile.rows
    assert kept.n <= kept.size
    return np.asarray(kept.data[key])[np.argsort(np.argsort(priorities(kept.seed, 0, kept.n)))]


def answers(model, images):
    """Answers of the network, and what goes into its last layer."""
    caught = []
    handle = model.model.fc.register_forward_pre_hook(lambda _, given: caught.append(given[0].clone()))
    with torch.no_grad():
        found = model.eval().model(images)
    handle.remove()
    return found, caught[0]


def check_pairs(callback, model, images, labels, probabilities, embedding):
    """Rows of outputs, embeddings and labels are those of the same images, in the order of the loader."""
    reference = callback.baseline_.reference
    assert {name: group.n for name, group in reference.groups.items()} == dict.fromkeys(
        ["inputs", "outputs", "embeddings/model.fc.input", "labels"], N
    )
    np.testing.assert_allclose(in_order(reference, "outputs")[:, :4], probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(in_order(reference, "embeddings/model.fc.input"), embedding, rtol=1e-4, atol=1e-6)
    tops = probabilities.argmax(1)
    for name, segment in reference.segments.items():
        own = labels == int(name)
        assert segment.groups["outputs"].n == int(own.sum())
        counts = {str(key): count for key, count in segment.groups["outputs"].categories["top_class"].top(9)}
        assert counts == {str(key): int((tops[own] == key).sum()) for key in set(tops[own].tolist())}


def loop(model, images):
    return [model(image[None]) for image in images]


PARTS = {
    "chunks": lambda model, x, y: cross_entropy(torch.cat([model(part) for part in x.chunk(2)]), y),
    "parts of the network": lambda model, x, y: cross_entropy(torch.cat([model.model(p) for p in x.split(3)]), y),
    "slices": lambda model, x, y: cross_entropy(torch.cat([model(x[i : i + 3]) for i in range(0, len(x), 3)]), y),
    "one by one": lambda model, x, y: cross_entropy(torch.cat(loop(model, x)), y),
    "one by one, made": lambda model, x, y: cross_entropy(torch.cat([model((each * 1)[None]) for each in x]), y),
    "stacked again": lambda model, x, y: cross_entropy(model(torch.stack([each * 1 for each in x])), y),
    "losses of parts": lambda model, x, y: sum(
        cross_entropy(model(part), labels) for part, labels in zip(x.chunk(2), y.chunk(2), strict=True)
    ),
    "something else before": lambda model, x, y: (model(torch.zeros(1, 3, 16, 16)), cross_entropy(model(x), y))[1],
}  # fmt: skip


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("name", PARTS)
def test_parts_are_put_together_in_their_order(stepped, fitted, name, sanity):
    model = stepped(PARTS[name])
    callback, images, labels = fitted(model, BaselineCallback(clean_windows=0, segment_by="label"), sanity=sanity)
    found, embedding = answers(model, images)

    check_pairs(callback, model, images, labels, found.softmax(1).numpy(), embedding.numpy())
    assert callback.baseline_.warnings == []


def mean_of(*views):
    return sum(views) / len(views)


VIEWS = {
    "mean": (lambda model, x, y: cross_entropy(mean_of(model(x), model(x.flip(-1))), y), "logits"),
    "mean of a stack": (
        lambda model, x, y: cross_entropy(torch.stack([model(x), model(x.flip(-1))]).mean(0), y), "logits"
    ),
    "only returned": (lambda model, x, y: {"scores": mean_of(model(x), model(x.flip(-1)))}, "logits"),
    "only counted": (
        lambda model, x, y: (mean_of(model(x), model(x.flip(-1))).argmax(1) == y).float().mean(), "logits"
    ),
    "mean of probabilities": (
        lambda model, x, y: nll(mean_of(model(x).softmax(1), model(x.flip(-1)).softmax(1)).log(), y), "probabilities"
    ),
    "views in one batch": (
        lambda model, x, y: cross_entropy(
            model(torch.stack([x, x.flip(-1)], 1).flatten(0, 1)).view(len(x), 2, -1).mean(1), y
        ),
        "logits",
    ),
    "all images, then all of them again": (
        lambda model, x, y: cross_entropy(model(torch.cat([x, x.flip(-1)])).view(2, len(x), -1).mean(0), y), "logits"
    ),
    "probabilities of both halves of a batch": (
        lambda model, x, y: nll(mean_of(*model(torch.cat([x, x.flip(-1)])).softmax(1).chunk(2)).log(), y),
        "probabilities",
    ),
    "probabilities of views in one batch": (
        lambda model, x, y: nll(
            model(torch.stack([x, x.flip(-1)], 1).flatten(0, 1)).softmax(1).view(len(x), 2, -1).mean(1).log(), y
        ),
        "probabilities",
    ),
}  # fmt: skip


@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("name", VIEWS)
def test_views_are_averaged_as_the_step_does_it(stepped, fitted, name, sanity):
    step, kind = VIEWS[name]
    model = stepped(step)
    callback, images, labels = fitted(model, BaselineCallback(clean_windows=0, segment_by="label"), sanity=sanity)
    (first, embedding), (second, _) = answers(model, images), answers(model, images.flip(-1))
    expected = ((first + second) / 2).softmax(1)
    if kind == "probabilities":
        expected = (first.softmax(1) + second.softmax(1)) / 2

    check_pairs(callback, model, images, labels, expected.numpy(), embedding.numpy())
    info = callback.baseline_.reference.groups["outputs"].info
    assert info["kind"] == kind
    assert "of its 2 answers for each image, as the step makes it" in info["found"]
    (warning,) = callback.baseline_.warnings  # an embedding is of one view
    assert "'model.fc' is called" in warning
    assert "first" in warning


def test_the_view_that_is_judged_is_the_answer(stepped, fitted):
    def step(model, x, y):
        darker = model(x * 0.5)
        return cross_entropy(model(x), y), darker.mean()

    model = stepped(lambda model, x, y: step(model, x, y)[0])
    callback, images, labels = fitted(model)
    found, embedding = answers(model, images)

    check_pairs(callback, model, images, labels, found.softmax(1).numpy(), embedding.numpy())


class Largest(nn.Module):
    """What a step that nobody follows may be made of instead."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return torch.maximum(self.network(images), self.network(images.flip(-1)))


def test_what_is_made_of_views_in_another_way_is_said_and_the_advice_works(stepped, fitted, images):
    model = stepped(lambda model, x, y: cross_entropy(torch.maximum(model(x), model(x.flip(-1))), y))
    callback, *_ = fitted(model)
    assert "outputs" not in callback.baseline_.reference.groups
    assert len([text for text in callback.baseline_.warnings if "Let a module return it" in text]) == 1
    checked = callback.check(model, images(8)[:8])
    assert len([text for text in checked.warnings if "Let a module return it" in text]) == 1

    def step(self, x, y):
        return cross_entropy(self.largest(x), y)

    model = stepped(step)
    model.largest = Largest(model.model)
    callback, pictures, _ = fitted(model, BaselineCallback(outputs="largest", layers=None, clean_windows=0))
    first, second = answers(model, pictures)[0], answers(model, pictures.flip(-1))[0]
    expected = torch.maximum(first, second).softmax(1).numpy()
    np.testing.assert_allclose(in_order(callback.baseline_.reference, "outputs")[:, :4], expected, rtol=1e-4, atol=1e-6)
    assert callback.baseline_.warnings == []


UNKNOWN = {
    "in another order": lambda model, x, y: (lambda i: cross_entropy(model(x[i]), y[i]))(torch.arange(len(x)).flip(0)),
    "last part first": lambda model, x, y: cross_entropy(torch.cat([model(p) for p in x.chunk(2)[::-1]][::-1]), y),
    "by a mask": lambda model, x, y: sum(cross_entropy(model(x[m]), y[m], reduction="sum") for m in (y > 1, y < 2)),
    "even and odd": lambda model, x, y: cross_entropy(
        torch.cat([model(x[::2]), model(x[1::2])]), torch.cat([y[::2], y[1::2]])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNKNOWN)
def test_rows_in_an_unknown_order_are_not_paired_with_images(stepped, fitted, name):
    model = stepped(UNKNOWN[name])
    callback, *_ = fitted(model, BaselineCallback(clean_windows=0, segment_by="label"))

    assert list(callback.baseline_.reference.groups) == ["inputs", "labels"]
    (warning,) = callback.baseline_.warnings
    assert "'model.fc' is called with images of the batch in an order that may be another in every batch" in warning
    assert "pass outputs=None or layers=None" in warning
    callback, *_ = fitted(model, BaselineCallback(outputs=None, layers=None, clean_windows=0))
    assert callback.baseline_.warnings == []


def test_rows_of_some_images_are_read_apart(stepped, fitted):
    model = stepped(lambda model, x, y: cross_entropy(model(x[:3]), y[:3]))
    callback, *_ = fitted(model, BaselineCallback(layers=["hidden"], clean_windows=0, segment_by="label"))
    reference = callback.baseline_.reference

    assert {name: group.n for name, group in reference.groups.items()} == {
        "inputs": N, "outputs": 9, "embeddings/hidden": 9, "labels": N
    }  # fmt: skip
    assert not np.isfinite(reference.rows.data["outputs"]).any() if "outputs" in reference.rows.data else True
    assert any("'model.fc' answers 3 rows for 8 images, which are read apart" in w for w in callback.baseline_.warnings)


def test_images_that_go_through_again_leave_the_first_call(stepped, fitted):
    def step(model, x, y):
        scores = model(x)
        sure = scores.softmax(1).amax(1).argsort()[:3]
        return cross_entropy(scores, y) + 0 * model(x[sure]).sum()

    model = stepped(step)
    callback, images, labels = fitted(model)
    found, embedding = answers(model, images)

    check_pairs(callback, model, images, labels, found.softmax(1).numpy(), embedding.numpy())
    assert "'model.fc' is called 2 times in a batch: its first call is read" in callback.baseline_.warnings[0]


@pytest.mark.parametrize("layers", ["auto", ["conv"]])
def test_a_call_that_raised_is_none(stepped, fitted, layers):
    def step(model, x, y):
        if len(x) == 8:
            with pytest.raises(RuntimeError):
                model(x[:, :2])
        return cross_entropy(model(x), y)

    model = stepped(step)
    callback, images, _ = fitted(model, BaselineCallback(layers=layers, clean_windows=0))
    reference = callback.baseline_.reference
    assert {group.n for group in reference.groups.values()} == {N}
    assert len(reference.groups) == 4
    expected = answers(model, images)[0].softmax(1).numpy()
    np.testing.assert_allclose(in_order(reference, "outputs")[:, :4], expected, rtol=1e-4, atol=1e-6)
    assert callback.baseline_.warnings == []


def test_training_batches_too(stepped, fitted):
    step = PARTS["chunks"]
    model = stepped(step, training=step)
    callback, *_ = fitted(model, BaselineCallback(training="all", clean_windows=0))

    assert {group.n for group in callback.baseline_.training.groups.values()} == {16}
    assert {group.n for group in callback.baseline_.reference.groups.values()} == {N}
    assert callback.baseline_.warnings == []


def test_two_views_in_training_are_one_in_validation(stepped, fitted):
    def training(model, x, y):
        return cross_entropy(model(x), y) + cross_entropy(model(x * 0.9), y)

    callback, *_ = fitted(
        stepped(PARTS["chunks"], training=training), BaselineCallback(training="all", clean_windows=0)
    )

    assert {group.n for group in callback.baseline_.training.groups.values()} == {16}
    assert {group.n for group in callback.baseline_.reference.groups.values()} == {N}
    (warning,) = callback.baseline_.warnings
    assert "'model.fc' is called 2 times in a batch: its first call is read" in warning


def test_what_images_are_mixed_with_does_not_move_them(stepped, fitted):
    def training(model, x, y):
        other = torch.randperm(len(x))
        scores = model(0.7 * x + 0.3 * x[other])
        return 0.7 * cross_entropy(scores, y) + 0.3 * cross_entropy(scores, y[other])

    callback, *_ = fitted(
        stepped(PARTS["chunks"], training=training), BaselineCallback(training="all", clean_windows=0)
    )

    assert {group.n for group in callback.baseline_.training.groups.values()} == {16}
    assert callback.baseline_.warnings == []


def test_what_is_computed_again_for_gradients_is_no_call(stepped, fitted):
    def training(model, x, y):
        parts = [checkpoint(model.model, part, use_reentrant=False) for part in x.chunk(2)]
        return cross_entropy(torch.cat(parts), y)

    callback, *_ = fitted(
        stepped(PARTS["chunks"], training=training), BaselineCallback(training="all", clean_windows=0)
    )

    assert {group.n for group in callback.baseline_.training.groups.values()} == {16}
    assert callback.baseline_.warnings == []


def test_a_model_that_another_thread_calls(stepped, fitted):
    def step(model, x, y):
        found = []
        thread = threading.Thread(target=lambda: found.append(model(x).detach()))
        thread.start()
        thread.join()
        return cross_entropy(found[0], y)

    model = stepped(step)
    callback, images, labels = fitted(model)
    found, embedding = answers(model, images)

    check_pairs(callback, model, images, labels, found.softmax(1).numpy(), embedding.numpy())


def test_predictions_in_parts_are_monitored(stepped, fitted, trainer, loaders, images):
    trained = stepped(PARTS["chunks"])
    callback, *_ = fitted(trained, BaselineCallback(layers=["model.hidden"], clean_windows=0))
    model = stepped(lambda model, x, y: torch.cat([model(part) for part in x.chunk(2)]))
    model.load_state_dict(trained.state_dict())
    drift = DriftCallback(callback.baseline_, window=N)
    given = trainer(drift).predict(model, loaders(images(N, seed=1)))

    (report,) = drift.reports_
    assert {name: group.n for name, group in drift.monitor_.reference.groups.items()} == dict.fromkeys(
        ["inputs", "outputs", "embeddings/model.hidden", "labels"], N
    )
    assert (report.rows, drift.monitor_.status.failures, len(torch.cat(given))) == (N, {}, N)


def test_a_check_puts_parts_together(stepped, images):
    callback = BaselineCallback()
    checked = callback.check(stepped(PARTS["chunks"]), images(8)[:8])

    assert {row.rows for row in checked.rows} == {8}
    assert checked.ok


@pytest.mark.parametrize("name", ["chunks", "one by one"])
def test_training_is_the_same_to_the_bit(stepped, trainer, images, loaders, name):
    kept = []
    for callbacks in ([], [BaselineCallback(training="all", clean_windows=0)]):
        torch.manual_seed(0)
        model = stepped(PARTS[name], training=PARTS[name])
        trainer(*callbacks).fit(model, loaders(16), loaders(images(N, seed=1)))
        kept.append([*model.state_dict().values(), torch.get_rng_state()])

    assert all(map(torch.equal, *kept))


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"layers": ["model.hidden"], "outputs": None}])
def test_parts_of_a_compiled_model(stepped, fitted, fresh, options):
    model = stepped(PARTS["chunks"])
    model.model = torch.compile(model.model, backend="eager")
    callback, *_ = fitted(model, BaselineCallback(clean_windows=0, **options))

    assert {group.n for group in callback.baseline_.reference.groups.values()} == {N}
    assert callback.baseline_.warnings == []


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_views_of_a_compiled_model_are_said(stepped, fitted, fresh, whole):
    model = stepped(VIEWS["mean"][0])
    if whole:
        model = torch.compile(model, backend="eager")
    else:
        model.model = torch.compile(model.model, backend="eager")
    callback, *_ = fitted(model, BaselineCallback(layers=None, clean_windows=0))

    (warning,) = callback.baseline_.warnings
    assert "'model.fc' was called" in warning
    assert "its first call is read. Name a module that is called once" in warning
