"""The main path: one callback in `fit`, and a baseline comes out."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lensai_integrations import Baseline
from lensai_integrations.keras import BaselineCallback


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


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_is_the_same_bit_for_bit(model, images, variables, jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("torch cannot compile a Keras fit, with or without a callback")

    def trained(*callbacks):
        trains = model(optimizer="adam", jit_compile=jit_compile)
        history = trains.fit(
            *images(70), validation_data=images(50, 1), batch_size=16, epochs=2, callbacks=list(callbacks), verbose=0
        )
        return variables(trains), history.history

    plain, history = trained()
    profiled, history_too = trained(BaselineCallback(layers=["conv", "embedding"], training="all"))

    for expected, value in zip(plain, profiled, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert history_too == history


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
