"""The main path: one callback in `fit`, and a baseline comes out; and a dry run: all is seen, nothing is changed."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from checks.adapter import CallbackAdapter

from lensai_integrations import Baseline, measure
from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback, DriftCallback
from lensai_integrations.keras.functions import GuardedFunction
from lensai_integrations.training.drift import DriftOptions
from lensai_integrations.training.options import Options


def test_fit_leaves_a_baseline_of_the_validation_pass(model, images, counts, tmp_path):
    callback = BaselineCallback(layers=["embedding"])
    model().fit(*images(70), validation_data=images(50, 1), batch_size=16, epochs=2, callbacks=[callback], verbose=0)
    baseline = callback.baseline_

    everything = ("inputs", "outputs", "embeddings/embedding", "labels")
    assert counts(baseline.reference) == dict.fromkeys(everything, 50)
    assert counts(baseline.training) == {"inputs": 70, "labels": 70}
    assert baseline.reference.source == "validation"
    assert baseline.info["epoch"] == 1
    assert baseline.warnings == []
    assert callback.directory_ == tmp_path / "lensai_baseline"
    assert Baseline.load(callback.directory_).n == 50


class TestKeras(CallbackAdapter):
    declared = ((BaselineCallback, Options, {"since", "dataloader_idx"}), (DriftCallback, DriftOptions, set()))

    @pytest.fixture(params=[False, True], ids=["as it is", "compiled by XLA"])
    def asked(self, request):
        if request.param and keras.backend.backend() == "torch":
            pytest.skip("torch cannot compile a Keras fit, with or without a callback")
        return {"layers": ["conv", "embedding"], "training": "all"}, {"optimizer": "adam", "jit_compile": request.param}

    @pytest.fixture
    def make(self):
        return lambda **arguments: BaselineCallback(**{"layers": ["embedding"], "clean_windows": 0, **arguments})

    @pytest.fixture
    def train(self, model, images, variables):
        def run(beside, **compiled):
            trains = model(**compiled or {"run_eagerly": True})
            callbacks = [] if beside is None else [beside]
            given = {"validation_data": images(50, 1), "batch_size": 16, "epochs": 2, "verbose": 0}
            history = trains.fit(*images(70), callbacks=callbacks, **given).history
            exchanged = [trains.train_function, trains.test_function]
            left = [function for function in exchanged if isinstance(function, GuardedFunction)]
            left += [layer for layer in trains.layers if "call" in layer.__dict__]
            return [*variables(trains), *map(np.asarray, history.values())], left

        return run


def test_the_model_has_its_own_functions_back(model, images):
    trains = model()
    before = {}

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            before["train"] = self._model.train_function

    trains.fit(*images(20), callbacks=[Watch(), BaselineCallback()], verbose=0)

    assert trains.train_function is before["train"]
    assert not {"train_step", "test_step", "call", "_make_function"} & trains.__dict__.keys()
    assert not any("call" in layer.__dict__ for layer in trains.layers)


@measure("keras_glare", unit="%")
def glare(images):
    return (images >= 128).mean((1, 2, 3)) * 100


def groups(check):
    return [row.group for row in check.rows]


def test_a_model_and_a_batch(model, images, variables):
    trains = model()
    before, attributes = variables(trains), set(trains.__dict__)
    check = BaselineCallback(layers=["embedding"], measures=[glare]).check(trains, images(12))
    assert groups(check) == ["inputs", "embeddings/embedding", "outputs", "labels", "inputs/keras_glare"]
    assert {row.rows for row in check.rows} == {12}
    assert check.ok, check.warnings
    for value, expected in zip(variables(trains), before, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert set(trains.__dict__) == attributes
    assert not any("call" in layer.__dict__ for layer in trains.layers)


def test_that_averages_are_left_and_others_validated_is_said_before(model, images):
    trains = model(optimizer=keras.optimizers.SGD(use_ema=True))
    (said,) = BaselineCallback(["embedding"]).check(trains, images(12)).warnings

    assert "(use_ema=True): fit leaves the averages" in said
    assert 'pass reference="final"' in said
    assert BaselineCallback(["embedding"], reference="final").check(trains, images(12)).ok


def test_a_model_that_changes_itself_in_inference_is_put_back(images, variables):
    class Restless(keras.layers.Layer):
        def build(self, _):
            self.calls = self.add_weight(shape=(1,), trainable=False, initializer="zeros")
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, x):
            self.calls.assign(self.calls + 1)
            return x + keras.random.uniform((1,), seed=self.seeds)

    layers = [keras.Input((16, 16, 3)), Restless(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    restless = keras.Sequential(layers)
    before = [np.array(keras.ops.convert_to_numpy(each)) for each in restless.variables]
    assert groups(BaselineCallback().check(restless, images(12)))[-1] == "labels"
    for variable, value in zip(restless.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)


def test_without_a_model_and_with_what_gives_batches(images):
    batches = iter([images(12), images(4)])
    assert [row.rows for row in BaselineCallback().check(batches).rows] == [12, 12]
    assert groups(BaselineCallback().check(images(12)[0])) == ["inputs"]
    with pytest.raises(InputError, match="without a batch"):
        BaselineCallback().check(3)
    with pytest.raises(InputError, match="takes a model and a batch"):
        BaselineCallback().check()


def test_what_is_wrong_is_said(model, images):
    pictures, _ = images(12)
    check = BaselineCallback(layers=["embeding"]).check(model(), (pictures * 4 - 2, np.zeros(12, int)))
    assert groups(check) == ["outputs", "labels", "inputs"]
    for message in (
        "no layer 'embeding'; nearest: embedding",
        "inputs cannot be profiled: scale=",
        "all 12 labels are",
    ):
        assert any(message in warning for warning in check.warnings), check.warnings


def test_a_model_without_weights_is_not_built_by_it(images):
    unbuilt = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    check = BaselineCallback().check(unbuilt, images(12))
    assert not unbuilt.built
    assert groups(check) == ["inputs", "labels"]
    assert "no weights yet" in check.warnings[0]


def test_custom_measures_in_a_fit(model, fit):
    callback = BaselineCallback(measures=[glare])
    fit(model(), callback, epochs=1)
    for profile, n in ((callback.baseline_.reference, 24), (callback.baseline_.training, 40)):
        assert profile.groups["inputs"].apart["keras_glare"].n == n
        assert profile.warnings == []


def test_measures_go_through_a_configuration_by_their_ids():
    config = json.loads(json.dumps(BaselineCallback(measures=[glare]).get_config()))
    assert config["measures"] == ["custom/keras_glare@1"]
    assert BaselineCallback.from_config(config)._options.measures == [glare]
    with pytest.raises(InputError, match="which this process has not declared: import"):
        BaselineCallback.from_config({"measures": ["custom/never@1"]})
