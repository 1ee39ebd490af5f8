"""Other callbacks in the same fit, and which passes fit has for us."""

from __future__ import annotations

import importlib.util
from functools import partial

import keras
import numpy as np
import pytest

from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.guard import look_around


@pytest.fixture
def model(model):
    """Without a graph: which passes there are, and who else listens, is not in it."""
    return partial(model, run_eagerly=True)


def test_two_in_one_fit_are_one_and_a_message(model, fit, warned, tmp_path):
    first, second = BaselineCallback(["conv"]), BaselineCallback(["embedding"], artifact_path="lensai/second")
    trains = model()
    fit(trains, first, second, epochs=1)

    assert (first.baseline_.n, first.baseline_.training.n) == (24, 40)
    assert second.baseline_ is None
    assert not (tmp_path / "lensai_baseline-lensai-second").exists()
    assert {message.partition(": ")[2] for message in warned("another callback")} >= {
        "another callback of lensai_integrations reads these steps already: use one, with all layers"
    }
    assert len(warned()) == 3  # train steps, test steps, no baseline
    assert type(trains.train_function).__name__ != "Guarded"
    assert type(trains.test_function).__name__ != "Guarded"


def test_callbacks_that_use_the_model_in_between_change_no_counts(model, fit, images, counts, variables):
    other = images(30, 5)

    class Uses(keras.callbacks.Callback):
        seen = 0

        def on_train_batch_end(self, batch, logs=None):
            self.seen += 1

        def on_test_batch_end(self, batch, logs=None):
            self.seen += 1

        def on_epoch_end(self, epoch, logs=None):
            self.model.evaluate(*other, verbose=0)
            self.model.predict(other[0], verbose=0)
            logs["seen"] = self.seen

    def trained(*callbacks):
        trains = model()
        keras.utils.set_random_seed(5)
        return fit(trains, *callbacks), variables(trains)

    history, plain = trained(Uses())
    for place in range(2):
        callback, others = BaselineCallback(["embedding"]), [Uses(), keras.callbacks.TerminateOnNaN()]
        others.insert(place * 2, callback)
        again, values = trained(*others)
        assert again == history
        for expected, value in zip(plain, values, strict=True):
            np.testing.assert_array_equal(value, expected)
        assert counts(callback.baseline_.reference) == dict.fromkeys(
            ("inputs", "outputs", "embeddings/embedding", "labels"), 24
        )
        assert counts(callback.baseline_.training) == {"inputs": 40, "labels": 40}


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_logs_next_to_it(model, fit, tmp_path):
    callback = BaselineCallback()
    board = keras.callbacks.TensorBoard(tmp_path / "board", update_freq=1, write_graph=False)
    fit(model(), board, callback, epochs=2)

    assert list((tmp_path / "board").glob("**/events*"))
    assert (callback.baseline_.n, callback.baseline_.training.n) == (24, 40)


def test_training_that_another_callback_stops_in_an_epoch_keeps_the_whole_one(model, fit):
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(self.model.history.epoch) == 1 and batch == 0:
                self.model.stop_training = True

    callback = BaselineCallback()
    trains = model()
    fit(trains, Stops(), callback, epochs=3)

    assert trains.history.epoch == [0, 1]
    assert (callback.baseline_.training.info["epoch"], callback.baseline_.training.n) == (0, 40)
    assert (callback.baseline_.info["epoch"], callback.baseline_.n) == (1, 24)


@pytest.mark.backend("tensorflow", "jax")
def test_an_epoch_cut_short_is_known_with_several_steps_per_execution(model, fit):
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(self.model.history.epoch) == 1:
                self.model.stop_training = True

    callback = BaselineCallback()
    fit(
        model(steps_per_execution=4, run_eagerly=False), Stops(), callback, epochs=3, batch_size=5
    )  # 8 steps in two calls

    assert (callback.baseline_.training.info["epoch"], callback.baseline_.training.n) == (0, 40)


def test_the_training_data_as_reference(model, fit, counts, warned):
    callback = BaselineCallback(["embedding"], reference="training")
    fit(model(), callback)
    baseline = callback.baseline_

    assert counts(baseline.reference) == dict.fromkeys(("inputs", "outputs", "embeddings/embedding", "labels"), 40)
    assert (baseline.reference.source, baseline.info["source"], baseline.training) == ("training", "training", None)
    assert warned() == []  # it was asked for


def test_no_training_profile(model, fit, said):
    callback = BaselineCallback(training=None)
    trains, functions = model(), []

    class Watch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            functions.append(type(self._model.train_function).__name__)

    fit(trains, callback, Watch())

    assert callback.baseline_.training is None
    assert callback.baseline_.n == 24
    assert "Guarded" not in functions  # the training is Keras's own


def test_layers_of_training_too(model, fit, counts):
    callback = BaselineCallback(["embedding"], training="all")
    fit(model(), callback)

    everything = ("inputs", "outputs", "embeddings/embedding", "labels")
    assert counts(callback.baseline_.training) == dict.fromkeys(everything, 40)


@pytest.mark.parametrize("training", [None, "inputs"])
def test_without_validation_data_training_is_the_reference_and_it_is_said(model, fit, counts, warned, training):
    callback = BaselineCallback(["embedding"], training=training)
    fit(model(), callback, validation_data=None)
    baseline = callback.baseline_

    assert counts(baseline.reference) == dict.fromkeys(("inputs", "outputs", "embeddings/embedding", "labels"), 40)
    assert (baseline.reference.source, baseline.training) == ("training", None)
    assert len(warned("there was no validation pass, so the reference is the training data")) == 1
    assert any("there was no validation pass" in warning for warning in baseline.warnings)


def test_validation_split(model, fit):
    callback = BaselineCallback()
    fit(model(), callback, validation_data=None, validation_split=0.25)

    assert (callback.baseline_.reference.source, callback.baseline_.n) == ("validation", 10)
    assert callback.baseline_.training.n == 30
    assert callback.baseline_.warnings == []


def test_validation_every_other_epoch(model, fit):
    callback = BaselineCallback()
    fit(model(), callback, epochs=3, validation_freq=2)

    assert (callback.baseline_.info["epoch"], callback.baseline_.n) == (1, 24)
    assert (callback.baseline_.training.info["epoch"], callback.baseline_.training.n) == (2, 40)


def test_the_test_data_as_reference(model, fit, images, said, counts):
    callback = BaselineCallback(["embedding"], reference="test")
    trains = model()
    fit(trains, callback)
    assert callback.baseline_ is None
    assert "reference='test', so it is made by `model.evaluate" in said.messages[-1]
    trains.evaluate(*images(20, 3), batch_size=16, callbacks=[callback], verbose=0)
    baseline = callback.baseline_

    assert counts(baseline.reference) == dict.fromkeys(("inputs", "outputs", "embeddings/embedding", "labels"), 20)
    assert (baseline.info["source"], baseline.training.n) == ("test", 40)
    trains.evaluate(*images(10, 3), batch_size=16, callbacks=[callback], verbose=0)
    assert callback.baseline_.n == 10
    assert type(trains.test_function).__name__ != "Guarded"


def test_an_evaluation_after_a_fit_leaves_its_baseline(model, fit, images):
    callback, trains = BaselineCallback(), model()
    fit(trains, callback)
    made = callback.baseline_
    trains.evaluate(*images(20, 3), callbacks=[callback], verbose=0)
    trains.predict(images(20, 3)[0], callbacks=[callback], verbose=0)

    assert callback.baseline_ is made


def test_evaluate_and_predict_alone_make_baselines_of_what_they_are_given(model, images, counts):
    callback, trains = BaselineCallback(["embedding"]), model()
    trains.evaluate(*images(20, 3), batch_size=16, callbacks=[callback], verbose=0)
    assert counts(callback.baseline_.reference) == dict.fromkeys(
        ("inputs", "outputs", "embeddings/embedding", "labels"), 20
    )
    trains.predict(images(18, 3)[0], batch_size=16, callbacks=[callback], verbose=0)
    assert counts(callback.baseline_.reference) == dict.fromkeys(("inputs", "outputs", "embeddings/embedding"), 18)
    assert callback.baseline_.info["source"] == "prediction"
    assert callback.baseline_.training is None


@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_one_line_is_printed_where_keras_prints(model, fit, capsys, tmp_path, verbose):
    fit(model(), BaselineCallback(), epochs=1, verbose=verbose)
    lines = [line for line in capsys.readouterr().out.splitlines() if "aseline" in line]

    assert lines == [f"Baseline of 24 validation rows: saved to {tmp_path / 'lensai_baseline'}."]


def test_nothing_is_printed_where_keras_is_silent(model, fit, capsys, said, tmp_path):
    fit(model(), BaselineCallback(), epochs=1, verbose=0)
    printed = capsys.readouterr()

    assert (printed.out, printed.err) == ("", "")
    assert said.messages[-1] == f"Baseline of 24 validation rows: saved to {tmp_path / 'lensai_baseline'}."


def test_the_nearest_fit_is_the_one_that_counts():
    class Holder:
        def __init__(self, *callbacks):
            self.callbacks = list(callbacks)

        def on_train_begin(self):
            return look_around(self.callbacks[0])

    def fit(holder, validation_data, epochs):
        return holder.on_train_begin()

    inner = fit

    def outer():
        def fit(holder, validation_data=None, epochs=3):
            return inner(holder, "held out", epochs)

        return fit(holder)

    ours = object()
    holder = Holder(ours, 1)
    found = outer()

    assert (found.validates, found.holder, found.siblings) == (True, holder, [ours, 1])
