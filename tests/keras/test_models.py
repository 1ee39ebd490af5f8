"""Models and training settings of many kinds: exact rows, and training as it is without the callback."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lensai_integrations.keras import BaselineCallback

layers = keras.layers
CLASSES, SIDE = 4, 16
EVERYTHING = ("inputs", "outputs", "embeddings/pool", "labels")


def profiled(**arguments):
    return BaselineCallback(**{"layers": ["pool"], "training": "all", **arguments})


def unbuilt():
    body = [layers.GlobalAveragePooling2D(name="pool"), layers.Dropout(0.3), layers.Dense(CLASSES, name="fc")]
    return keras.Sequential(body)


def functional():
    given = keras.Input((SIDE, SIDE, 3))
    hidden = layers.BatchNormalization()(layers.Conv2D(6, 3, strides=2)(given))
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.Dropout(0.3)(hidden))
    return keras.Model(given, layers.Dense(CLASSES, name="fc")(pooled))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.drop = layers.Dropout(0.3)
        self.fc = layers.Dense(CLASSES, name="fc")

    def call(self, x, training=False):
        return self.fc(self.drop(self.pool(x), training=training))


@pytest.mark.parametrize("make", [unbuilt, functional, Subclassed])
def test_every_kind_of_model_trains_the_same_and_every_row_is_counted(make, alike, counts):
    callback = profiled()
    alike(make, callback)

    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING, 50)
    assert counts(callback.baseline_.training) == dict.fromkeys(EVERYTHING, 70)
    assert callback.baseline_.warnings == []


@pytest.mark.backend("tensorflow", "jax")
@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_steps_per_execution_are_counted_one_by_one(jit_compile, alike, counts):
    callback = profiled()
    settings = {"steps_per_execution": 8, "jit_compile": jit_compile}
    alike(unbuilt, callback, compile_arguments=settings, batch_size=4)  # 18 steps, the last of two rows

    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING, 50)
    assert counts(callback.baseline_.training) == dict.fromkeys(EVERYTHING, 70)
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_the_same(policy, alike, counts):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        callback = profiled()
        alike(unbuilt, callback)
    finally:
        keras.config.set_dtype_policy(before)

    layers_read = {name: group for name, group in callback.baseline_.reference.groups.items() if "embeddings/" in name}
    assert {group.info.get("precision") for group in layers_read.values()} == {policy.removeprefix("mixed_")}
    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING, 50)
    assert counts(callback.baseline_.training) == dict.fromkeys(EVERYTHING, 70)
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("run_eagerly", [False, True])
def test_accumulated_gradients_train_the_same_in_a_graph_and_without_one(run_eagerly, alike, counts):
    sgd = {"module": "keras.optimizers", "class_name": "SGD", "config": {"gradient_accumulation_steps": 3}}
    callback = profiled()
    alike(unbuilt, callback, compile_arguments={"optimizer": sgd, "run_eagerly": run_eagerly})

    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING, 50)
    assert counts(callback.baseline_.training) == dict.fromkeys(EVERYTHING, 70)


@keras.saving.register_keras_serializable(package="lensai_tests")
class Counting(layers.Layer):
    """Counts how often Python runs it: once a trace where there is a graph."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.calls = []

    def call(self, x):
        self.calls.append(1)
        return x


def test_a_second_and_third_fit_begin_anew_and_trace_nothing_again(images, counts, compile_model):
    counting = Counting(name="counting")
    model = compile_model(keras.Sequential([counting, *unbuilt().layers]))
    callback, found = profiled(), []
    for seed, (train, val) in enumerate([(70, 50), (38, 18), (22, 34)]):  # last batches of 6 and 2
        data = images(train, seed), images(val, seed)
        model.fit(*data[0], validation_data=data[1], batch_size=16, callbacks=[callback], verbose=0)
        baseline = callback.baseline_
        found.append((baseline.training.n, baseline.reference.n, baseline.warnings, len(counting.calls)))

    assert [each[:3] for each in found] == [(70, 50, []), (38, 18, []), (22, 34, [])]
    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING, 34)
    if keras.backend.backend() == "torch":
        assert [each[3] for each in found] == [found[0][3], found[0][3] + 5, found[0][3] + 10]  # its batches
    else:
        assert found[2][3] == found[1][3] == found[0][3]


def test_another_callback_profiles_the_next_fit(images, counts, compile_model):
    model = compile_model(unbuilt())
    first, second = profiled(), profiled(layers=["fc.input"])
    fit = {"validation_data": images(20, 1), "batch_size": 16, "verbose": 0}
    model.fit(*images(33), callbacks=[first], **fit)
    before = first.baseline_
    model.fit(*images(40), callbacks=[second], **fit)

    assert first.baseline_ is before
    assert first.baseline_.training.n == 33
    assert counts(second.baseline_.training)["embeddings/fc.input"] == 40
    assert second.baseline_.warnings == []


def test_a_callback_goes_on_to_another_model(images, compile_model):
    callback = profiled()
    for make, n in ((unbuilt, 20), (Subclassed, 33)):
        compile_model(make()).fit(*images(n), validation_split=0.25, batch_size=8, callbacks=[callback], verbose=0)
        assert callback.baseline_.training.n + callback.baseline_.reference.n == n
    assert callback.baseline_.info["model"] == "Subclassed"


def test_evaluate_and_predict_alone_make_baselines(images, counts, compile_model):
    model, (pictures, labels) = compile_model(unbuilt()), images(50)
    model.evaluate(pictures, labels, batch_size=16, verbose=0)
    answers = model.predict(pictures, batch_size=16, verbose=0)
    tested, predicted = BaselineCallback(["pool"], reference="test"), BaselineCallback(["pool"])
    scores = model.evaluate(pictures, labels, batch_size=16, callbacks=[tested], verbose=0)
    again = model.predict(pictures, batch_size=16, callbacks=[predicted], verbose=0)

    np.testing.assert_array_equal(again, answers)
    assert scores == model.evaluate(pictures, labels, batch_size=16, verbose=0)
    assert (tested.baseline_.reference.source, predicted.baseline_.reference.source) == ("test", "prediction")
    assert counts(tested.baseline_.reference) == dict.fromkeys(EVERYTHING, 50)
    assert counts(predicted.baseline_.reference) == dict.fromkeys(EVERYTHING[:3], 50)
    assert tested.baseline_.warnings == predicted.baseline_.warnings == []


@pytest.mark.backend("tensorflow", "jax")
def test_several_steps_of_predict_are_counted_one_by_one(images, counts, compile_model):
    model = compile_model(unbuilt(), steps_per_execution=8, jit_compile=True)
    callback = BaselineCallback(["pool"])
    plain = model.predict(images(50)[0], batch_size=4, verbose=0)
    answers = model.predict(images(50)[0], batch_size=4, callbacks=[callback], verbose=0)

    np.testing.assert_array_equal(answers, plain)
    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING[:3], 50)


def test_the_test_set_after_a_fit_is_the_reference_if_asked_for(images, counts, compile_model):
    model, callback = compile_model(unbuilt()), profiled(reference="test", training="inputs")
    model.fit(*images(33), batch_size=16, callbacks=[callback], verbose=0)
    assert callback.baseline_ is None

    model.evaluate(*images(20), batch_size=16, callbacks=[callback], verbose=0)

    assert counts(callback.baseline_.reference) == dict.fromkeys(EVERYTHING, 20)
    assert counts(callback.baseline_.training) == {"inputs": 33, "labels": 33}
