"""What no documentation of Keras promises: one test for each name that is read all the same.

Run with another release of Keras:

    uv pip install --no-deps --target keras-3.13 keras==3.13.2
    PYTHONPATH=keras-3.13 KERAS_BACKEND=jax python -m pytest tests/keras/test_private.py
"""

from __future__ import annotations

import random
import re
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

from lensai_integrations.keras import private

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def small():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="a"), keras.layers.Dropout(0.5)])


def test_the_lower_bound_is_among_the_releases_that_were_tried():
    (bound,) = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]["keras"][:1]
    lowest = re.fullmatch(r"keras>=([0-9.]+),<4", bound)
    assert lowest, bound
    assert private.TRIED[0].startswith(lowest[1])
    assert keras.__version__.startswith("3.")


def test_loss_given():
    model = small()
    assert private.loss_given(model) is None
    model.compile("sgd")
    assert private.loss_given(model) is None
    for loss in ("mse", ["mse"], keras.losses.Huber()):
        model.compile("sgd", loss=loss)
        assert private.loss_given(model) is loss or private.loss_given(model) == loss


def test_metrics_given():
    model = small()
    assert private.metrics_given(model) == [None, None]
    model.compile("sgd", loss="mse", metrics=["mae"])
    assert private.metrics_given(model) == [["mae"], None]
    model.compile("sgd", loss="mse", metrics=["mae"], weighted_metrics=["mse"])
    assert private.metrics_given(model) == [["mae"], ["mse"]]


@pytest.mark.parametrize("loss", ["BinaryFocalCrossentropy", "SparseCategoricalCrossentropy", "BinaryCrossentropy"])
def test_arguments_of(loss):
    for from_logits in (True, False):
        made = getattr(keras.losses, loss)(from_logits=from_logits)
        told = getattr(made, "from_logits", None), private.arguments_of(made).get("from_logits")
        assert from_logits in told
    assert private.arguments_of(abs) == {}


def test_functional_of():
    assert private.functional_of(keras.Sequential([keras.layers.Dense(2)])) is None
    functional = private.functional_of(small())
    assert functional.inputs[0].shape == (None, 4)
    assert functional.outputs[0].shape == (None, 2)


def test_outputs_of():
    given = keras.Input((4,))
    dense = keras.layers.Dense(2)(given)
    model = keras.Model(given, {"one": dense, "two": [given]})
    outputs = private.outputs_of(model)
    assert outputs["one"] is dense
    assert list(outputs) == ["one", "two"]
    assert private.outputs_of(keras.layers.Dense(2)) is None


def test_history_of():
    layer = keras.layers.Dense(2)
    one, two = layer(keras.Input((4,))), layer(keras.Input((4,)))
    assert [private.history_of(each).operation for each in (one, two)] == [layer, layer]
    assert [private.history_of(each).node_index for each in (one, two)] == [0, 1]
    assert private.history_of(one).tensor_index == 0
    assert private.history_of(np.zeros(2)) is None


def test_given_to():
    layer, inputs = keras.layers.Add(), [keras.Input((4,)) for _ in range(4)]
    for start in (0, 2):
        pair = inputs[start : start + 2]
        given = private.given_to(private.history_of(layer(pair)))
        assert [id(each) for each in given] == [id(each) for each in pair]


def test_layers_in():
    model = keras.Sequential([keras.Input((4,)), small(), keras.layers.Dense(1, name="b")])
    own, all_of_them = (private.layers_in(model, recursive=deep) for deep in (False, True))
    assert {"b"} <= {each.name for each in own}
    assert "a" not in {each.name for each in own}
    assert {"a", "b"} <= {each.name for each in all_of_them}
    assert model not in own + all_of_them


def test_remat_scope_of():
    with keras.RematScope(mode="list_of_layers", layer_names=["inner"]):
        inside = keras.layers.Dense(2, name="inner")
    scope = private.remat_scope_of(inside)
    assert scope.mode == "list_of_layers"
    assert scope.layer_names == ["inner"]
    assert private.remat_scope_of(keras.layers.Dense(2)) is None


def test_global_seeds():
    keras.utils.clear_session(free_memory=False)
    assert private.global_seeds() is None
    keras.random.normal((2,))
    before = private.global_seeds()
    state = np.array(keras.ops.convert_to_numpy(before.state.value))
    expected = keras.ops.convert_to_numpy(keras.random.normal((2,)))
    before.state.assign(state)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(keras.random.normal((2,))), expected)
    private.set_global_seeds(None)
    assert private.global_seeds() is None
    private.set_global_seeds(before)
    assert private.global_seeds() is before


@pytest.mark.backend("jax")
def test_make_function_of():
    model = small()
    model.compile("sgd", loss="mse")
    calls, make = [], private.make_function_of(model)

    def make_ours(step, *arguments, **keywords):
        calls.append(step)
        return make(step, *arguments, **keywords)

    setattr(model, private.MAKE_FUNCTION, make_ours)
    for kind in ("train", "test", "predict"):
        getattr(model, f"make_{kind}_function")(force=True)
        assert callable(getattr(model, f"{kind}_function"))
    assert len(calls) == 3


@pytest.mark.backend("tensorflow")
def test_step_on_optionals():
    import tensorflow as tf

    model = small()
    step = private.step_on_optionals(model, lambda data: data + 1)
    assert step(tf.constant(1)) == 2
    step = private.step_on_optionals(model, lambda data: [each is None for each in data])
    assert step([tf.experimental.Optional.from_value(1), tf.constant(1)]) == [True, False]


@pytest.mark.backend("tensorflow")
def test_over_replicas():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    values = strategy.run(lambda: {"loss": tf.constant([1.0, 3.0])})
    for reduction in ("auto", "concat"):
        reduced = private.over_replicas(values, strategy, reduction)
        assert np.array(reduced["loss"]).tolist() == [1.0, 3.0]


@pytest.mark.backend("tensorflow")
def test_tensorflow_generators():
    import tensorflow as tf

    tf.random.set_seed(3)
    tf.random.uniform([2])
    tf.random.get_global_generator()
    generators = [*private.tensorflow_generators()]
    before = [get() for get, _ in generators]
    assert isinstance(generators[0][0].__self__, random.Random)

    def is_as_before():
        (seeds, variable), (get_seeds, get_variable) = before, (get for get, _ in generators)
        return [seeds == get_seeds(), np.array_equal(variable, get_variable())]

    tf.random.uniform([2])
    tf.random.get_global_generator().uniform([2])
    assert is_as_before() == [False, False]
    for state, (_, put) in zip(before, generators, strict=True):
        put(state)
    assert is_as_before() == [True, True]


@pytest.mark.backend("tensorflow")
def test_made_of():
    import tensorflow as tf

    first = tf.data.Dataset.range(3)
    assert private.made_of(first.map(abs)) is first
    assert private.made_of(private.made_of(first.batch(2).prefetch(1))) is first
    assert private.made_of(first) is None


@pytest.mark.backend("torch")
def test_torch_device():
    from keras.src.backend.torch.core import device_scope

    moved = keras.ops.convert_to_tensor([1.0]).device
    assert private.torch_device().type == moved.type
    with device_scope("meta"):
        assert private.torch_device().type == keras.ops.convert_to_tensor([1.0]).device.type == "meta"
