"""Layers' answers where they are hard to catch: nested, shared, recomputed, in loops; and how they are reduced."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback

layers = keras.layers
CLASSES, SIDE = 4, 16


def head(inner, *between):
    """A classifier around layers."""
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), inner, *between, layers.Dense(CLASSES, name="fc")])


def reference_of(baseline, name):
    """The extremes of an embedding's streams."""
    bank = baseline.reference.groups[f"embeddings/{name}"].bank
    return np.array([bank.min, bank.max])


def extremes(rows):
    rows = np.asarray(rows, np.float32)
    return np.array([rows.min(axis=0), rows.max(axis=0)])


def test_layers_inside_models_and_what_goes_into_one_are_read(images, compile_model, counts):
    backbone = keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D(name="pool")], name="body"
    )
    model, (pictures, labels) = head(backbone, layers.Dropout(0.5)), images(36)
    callback = BaselineCallback(["body/pool", "pool", "conv", "conv.input", "fc.input"])
    compile_model(model).fit(
        pictures, labels, validation_data=(pictures, labels), batch_size=16, callbacks=[callback], verbose=0
    )
    baseline = callback.baseline_
    conv = ops.convert_to_numpy(backbone.get_layer("conv")(pictures))

    names = ("body/pool", "pool", "conv", "conv.input", "fc.input")
    assert counts(baseline.reference) == dict.fromkeys(
        ("inputs", "outputs", "labels", *(f"embeddings/{name}" for name in names)), 36
    )
    assert baseline.warnings == []
    for name in ("body/pool", "pool", "conv", "fc.input"):  # a conv map is averaged over its pixels
        np.testing.assert_allclose(reference_of(baseline, name), extremes(conv.mean(axis=(1, 2))), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        reference_of(baseline, "conv.input"), extremes(pictures.mean(axis=(1, 2))), rtol=1e-4, atol=1e-6
    )


class Twice(keras.Model):
    """Embeds the images and then their negatives with one layer."""

    def __init__(self):
        super().__init__()
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.fc = layers.Dense(CLASSES, name="fc")

    def call(self, x):
        return self.fc(self.pool(x) + self.pool(-x))


def test_of_a_layer_that_is_called_twice_the_first_answer_counts(images, counts, alike):
    callback, (pictures, labels) = BaselineCallback(["pool"], training="all"), images(36)
    alike(Twice, callback, pictures, labels, validation_data=(pictures, labels))
    baseline = callback.baseline_

    assert {*counts(baseline.reference).values(), *counts(baseline.training).values()} == {36}
    np.testing.assert_allclose(
        reference_of(baseline, "pool"), extremes(pictures.mean(axis=(1, 2))), rtol=1e-4, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore:The RematScope at call time:UserWarning")
def test_a_layer_that_is_recomputed_is_read_once(counts, alike):
    def make():
        with keras.RematScope(mode="full"):
            pool = layers.GlobalAveragePooling2D(name="pool")
        return head(layers.Conv2D(4, 3), pool)

    callback = BaselineCallback(["pool"], training="all")
    alike(make, callback)

    assert set(counts(callback.baseline_.reference).values()) == {50}
    assert counts(callback.baseline_.training)["embeddings/pool"] == 70
    assert callback.baseline_.warnings == []


@pytest.mark.backend("jax", "torch")  # on TensorFlow, Keras itself cannot call a model in this scope
@pytest.mark.filterwarnings("ignore:The RematScope at call time:UserWarning")
def test_what_is_inside_of_a_model_that_is_recomputed_is_a_problem(images, counts, compile_model):
    with keras.RematScope(mode="full"):
        inner = keras.Sequential([layers.Conv2D(4, 3, name="conv"), layers.ReLU(name="relu")], name="inner")
    model = head(inner, layers.GlobalAveragePooling2D(name="pool"))
    callback = BaselineCallback(["inner", "relu"])
    compile_model(model).fit(*images(40), validation_split=0.5, batch_size=16, callbacks=[callback], verbose=0)
    baseline = callback.baseline_

    groups = ("inputs", "outputs", "labels", "embeddings/inner")
    assert counts(baseline.reference) == dict.fromkeys(groups, 20)
    assert [warning for warning in baseline.warnings if "RematScope" in warning] == baseline.warnings != []


class Looping(layers.Layer):
    """Runs a layer in a loop or a branch of the graph."""

    def __init__(self, how, **arguments):
        super().__init__(**arguments)
        self.how, self.inner = how, layers.Dense(3, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        if self.how == "branch":
            return ops.cond(ops.max(x) > -1, lambda: self.inner(x), lambda: x)
        return ops.fori_loop(0, 2, lambda _, state: self.inner(state), x)


@pytest.mark.parametrize("how", ["loop", "branch"])
def test_a_layer_in_a_loop_or_a_branch_of_the_graph_is_a_clear_problem_and_training_goes_on(how, images, counts, alike):
    def make():
        return head(layers.GlobalAveragePooling2D(name="pool"), Looping(how, name="looping"))

    callback = BaselineCallback(["pool", "looping", "looping/inner"])
    alike(make, callback)
    found = counts(callback.baseline_.reference)

    expected = dict.fromkeys(("inputs", "outputs", "labels", "embeddings/pool", "embeddings/looping"), 50)
    if keras.backend.backend() == "torch":  # has no graph, so the first round is read
        assert found == {**expected, "embeddings/looping/inner": 50}
    else:
        assert found == expected
        problem = "layer 'looping/inner' runs inside a loop or a branch of the graph, whose values cannot be read"
        assert any(problem in warning for warning in callback.baseline_.warnings)


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # of that layer's weights
def test_a_layer_that_is_not_called_is_a_problem(images, counts, compile_model):
    class Unused(Twice):
        def __init__(self):
            super().__init__()
            self.unused = layers.Dense(2, name="unused")

        def build(self, shape):
            self.pool.build(shape)
            self.fc.build((None, 3))
            self.unused.build((None, 3))

    callback = BaselineCallback(["pool", "unused"], outputs="fc")
    compile_model(Unused()).fit(*images(20), validation_split=0.2, callbacks=[callback], verbose=0)

    assert counts(callback.baseline_.reference)["embeddings/pool"] == 4
    assert any("layer 'unused' answered nothing" in warning for warning in callback.baseline_.warnings)


def test_reductions_are_what_they_say(images, compile_model):
    conv = layers.Conv2D(3, 5, strides=5, name="conv")  # 3 x 3 pixels
    model, (pictures, labels) = (
        head(conv, layers.Reshape((9, 3), name="tokens"), layers.Flatten(name="flat")),
        images(20),
    )
    reduce = {"conv": "flatten", "tokens": "cls", "flat": lambda rows: ops.max(rows, axis=1, keepdims=True)}
    callback = BaselineCallback(["conv", "tokens", "flat", "flat.input"], reduce={**reduce, "flat.input": "max"})
    compile_model(model).fit(pictures, labels, validation_data=(pictures, labels), callbacks=[callback], verbose=0)
    baseline, answers = callback.baseline_, ops.convert_to_numpy(conv(pictures)).reshape(20, 9, 3)

    assert baseline.warnings == []
    for name, rows in {
        "conv": answers.reshape(20, 27),
        "tokens": answers[:, 0],
        "flat": answers.reshape(20, 27).max(axis=1, keepdims=True),
        "flat.input": answers.max(axis=1),
    }.items():
        np.testing.assert_allclose(reference_of(baseline, name), extremes(rows), rtol=1e-4, atol=1e-6)


def test_reductions_of_layers_that_are_not_read_are_refused(images, compile_model):
    model = head(layers.GlobalAveragePooling2D(name="pool"))
    with pytest.raises(InputError, match=r"reduce has \['pol'\]"):
        compile_model(model).fit(*images(4), callbacks=[BaselineCallback(["pool"], reduce={"pol": "max"})], verbose=0)
