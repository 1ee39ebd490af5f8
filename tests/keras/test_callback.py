"""The main path: one callback in `fit`, and a baseline comes out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from checks.adapter import CallbackAdapter

from lensai_integrations import Baseline
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
