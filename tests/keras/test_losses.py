"""What the compiled loss says of each head."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lensai_integrations import Profiler
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.answer import held_against_nothing, losses_of

losses = keras.losses


class Weighted(losses.BinaryCrossentropy):
    """A loss of somebody's own that is one of Keras's."""


class Own(losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean(y_true - y_pred)


def said(loss, heads=(("", 3),)):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="fc")])
    model.compile(loss=loss)
    return losses_of(model, dict(heads))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("mse", ("squared", None)),
        ("mae", ("squared", None)),
        (losses.Huber(), ("squared", None)),
        (losses.mean_squared_error, ("squared", None)),
        ("binary_crossentropy", ("binary_cross_entropy", False)),
        (losses.BinaryCrossentropy(from_logits=True), ("binary_cross_entropy_with_logits", True)),
        (losses.BinaryFocalCrossentropy(), ("binary_cross_entropy", False)),
        (Weighted(from_logits=True), ("binary_cross_entropy_with_logits", True)),
        ("sparse_categorical_crossentropy", ("cross_entropy", False)),
        (losses.CategoricalCrossentropy(from_logits=True), ("cross_entropy", True)),
        ("categorical_focal_crossentropy", ("cross_entropy", False)),
        ("crossentropy", ("cross_entropy", False)),
        (losses.Dice(), ("other", None)),
        ({"fc": "mse"}, ("squared", None)),
        (["mse", "mae"], ("squared", None)),
    ],
)
def test_losses_in_all_their_forms(loss, expected):
    told = said(loss)[""]
    assert (told["loss"], told.get("from_logits")) == expected


@pytest.mark.parametrize("loss", [None, Own(), lambda y, p: keras.ops.mean(y - p), ["mse", "bce"]])
def test_what_is_not_known_is_not_said(loss):
    assert said(loss) == {}


def test_every_head_has_its_own_by_name_or_in_order():
    heads = {"box": 4, "kind": 3}
    expected = {"box": {"loss": "squared"}, "kind": {"loss": "cross_entropy", "from_logits": False}}

    assert said({"kind": "categorical_crossentropy", "box": "mse"}, heads) == expected
    assert said(["mse", "categorical_crossentropy"], heads) == expected
    assert said({"kind": "categorical_crossentropy"}, heads) == {"kind": expected["kind"]}
    assert said("mse", heads) == {head: {"loss": "squared"} for head in heads}
    assert said({"q": {"box": "mse"}, "kind": None}, {"q.box": 4, "kind": 3}) == {"q.box": {"loss": "squared"}}


class OwnStep(keras.Sequential):
    def train_step(self, *arguments):
        return super().train_step(*arguments)


@pytest.mark.parametrize(
    ("arguments", "idle"),
    [
        ({"loss": {"a": "mse", "b": "mse"}}, []),
        ({"loss": {"a": "mse"}}, ["b"]),
        ({"loss": ["mse", None]}, ["b"]),
        ({"loss": "mse"}, []),
        ({"loss": {"a": "mse"}, "metrics": {"b": ["mae"]}}, []),
        ({"loss": {"a": "mse"}, "weighted_metrics": {"b": "mae"}}, []),
        ({}, ["a", "b"]),
        (None, []),
    ],
)
def test_what_is_held_against_nothing_that_was_compiled(arguments, idle):
    for kind in (keras.Sequential, OwnStep):
        model = kind([keras.Input((4,)), keras.layers.Dense(3, name="fc")])
        if arguments is not None:
            model.compile(**arguments)
        assert held_against_nothing(model, ["a", "b"]) == ([] if kind is OwnStep else idle)


def dense(units, activation):
    layers = [keras.Input((16, 16, 3)), keras.layers.GlobalAveragePooling2D(name="pool")]
    return keras.Sequential([*layers, keras.layers.Dense(units, activation=activation, name="fc")])


RNG = np.random.default_rng(0)
TAGS = np.eye(5, dtype=np.float32)[RNG.integers(0, 5, 16)]  # one tag in every row of the first batch
TAGS[8:] = RNG.random((8, 5)) < 0.5
TWO = RNG.integers(0, 2, (16, 1)).astype(np.float32)
ALIKE = np.eye(5, dtype=np.float32)[:1].repeat(16, 0)


@pytest.mark.parametrize(
    ("units", "activation", "loss", "y", "kind", "read_as"),
    [
        (4, None, "mse", RNG.random((16, 4), np.float32), "values", "values"),
        (5, None, losses.BinaryCrossentropy(from_logits=True), TAGS, "multilabel_logits", "multi_hot"),
        (5, "sigmoid", "binary_crossentropy", TAGS, "multilabel_probabilities", "multi_hot"),
        (1, "sigmoid", "binary_crossentropy", TWO, "probabilities", "classes"),
        (5, "softmax", "categorical_crossentropy", ALIKE, "probabilities", "classes"),
    ],
)  # fmt: skip
def test_the_loss_decides_what_answers_and_labels_are(units, activation, loss, y, kind, read_as, images):
    model, (x, _) = dense(units, activation), images(16)
    model.compile("sgd", loss)
    callback = BaselineCallback(clean_windows=0)
    model.fit(x, y, validation_data=(x, y), batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    baseline = callback.baseline_

    assert baseline.warnings == []
    assert baseline.reference.groups["outputs"].info["kind"] == kind
    for profile in (baseline.reference, baseline.training):
        assert profile.groups["labels"].info["read_as"] == read_as
        assert profile.groups["labels"].n == 16


def test_an_embedding_of_length_one_is_not_silently_logits_and_what_is_said_of_it_works(images):
    def pulled(y, z):
        return keras.ops.mean(keras.ops.square(z - keras.ops.roll(z, 1, axis=0)))

    x, labels = images(16)
    layers = [keras.Input((16, 16, 3)), keras.layers.Flatten(), keras.layers.Dense(8)]
    model = keras.Sequential([*layers, keras.layers.UnitNormalization(name="unit")])
    model.compile("sgd", pulled)

    (said,) = BaselineCallback().check(model, (x, labels)).warnings
    assert "every row has length 1" in said
    followed = BaselineCallback(["unit"], outputs=None).check(model, (x, labels))
    assert followed.ok, followed.warnings
    assert [row.group for row in followed.rows] == ["inputs", "embeddings/unit", "labels"]
    assert BaselineCallback(task="classification").check(model, (x, labels)).ok


@pytest.mark.parametrize("activation", ["sigmoid", None])
@pytest.mark.parametrize("hard", [0, 8])
def test_numbers_between_0_and_1_beside_one_unit_are_shares_of_the_second_class(activation, hard, images):
    """As label smoothing and MixUp make them, from the first batch on or later."""
    model, (x, labels) = dense(1, activation), images(16)
    model.compile("sgd", losses.BinaryCrossentropy(from_logits=activation is None))
    second = labels % 2 == 1
    y = np.where(second, 0.9, 0.1).astype(np.float32)
    y[:hard] = second[:hard]
    callback = BaselineCallback(clean_windows=0)
    assert callback.check(model, (x, y)).ok
    model.fit(x, y, validation_data=(x, y), batch_size=8, shuffle=False, verbose=0, callbacks=[callback])
    baseline, counted = callback.baseline_, {"0": int((~second).sum()), "1": int(second.sum())}

    assert baseline.warnings == []
    for profile in (baseline.reference, baseline.training):
        assert dict(profile.groups["labels"].categories[""].top(9)) == counted
    production = Profiler(like=baseline)
    production.update(labels=y)
    assert dict(production.profile().groups["labels"].categories[""].top(9)) == counted


def test_one_sigmoid_unit_is_two_classes_and_there_is_a_profile_of_each(images):
    model, (x, labels) = dense(1, "sigmoid"), images(24)
    model.compile("sgd", "binary_crossentropy")
    callback = BaselineCallback(clean_windows=0, segment_by="label")
    y = (labels % 2)[:, None].astype(np.float32)
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[callback])

    assert callback.baseline_.warnings == []
    for profile in (callback.baseline_.reference, callback.baseline_.training):
        assert {name: segment.n for name, segment in profile.segments.items()} == {
            "0": int((labels % 2 == 0).sum()),
            "1": int((labels % 2 == 1).sum()),
        }
