"""After a fit, however it ended, the model is as it was, and what was seen is there."""

from __future__ import annotations

import gc
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.functions import GuardedFunction

GENERATOR = "ignore:`shuffle=True` was passed"


class Breaks(keras.callbacks.Callback):
    """Raises in a hook of the second epoch."""

    def __init__(self, hook, kind=RuntimeError):
        super().__init__()
        setattr(self, hook, self._raise)
        self.kind, self.epoch = kind, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _raise(self, *_, **__):
        if self.epoch == 1:
            raise self.kind("injected")


def attributes(model):
    """The names of all attributes of a model and its layers."""
    return {each.name: set(each.__dict__) for each in [model, *model.layers]}


def is_ours(value):
    return type(value).__module__.startswith("lensai") or getattr(value, "__module__", "").startswith("lensai")


def has_nothing_of_ours(model):
    return not any(is_ours(value) for each in [model, *model.layers] for value in vars(each).values())


def plain_values(config):
    """A configuration without the numbers that tell objects apart in a process."""
    if isinstance(config, dict):
        return {key: plain_values(value) for key, value in config.items() if key != "shared_object_id"}
    return [plain_values(each) for each in config] if isinstance(config, list) else config


def contents(path):
    """The members of a `.keras` file, its configuration, and the names of its weights."""
    with zipfile.ZipFile(path) as archive:
        config = plain_values(json.loads(archive.read("config.json")))
        archive.extract("model.weights.h5", path.parent / f"{path.stem}_weights")
        names = sorted(archive.namelist())
    return names, config, weights(path.parent / f"{path.stem}_weights" / "model.weights.h5")


def weights(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, each: found.update({name: each[()].tolist()}) if isinstance(each, h5py.Dataset) else None
        )
    return found


def test_what_is_saved_during_and_after_fit_is_what_a_plain_fit_saves(model, fit, tmp_path):
    def saved(folder, *callbacks):
        keras.utils.clear_session()  # names begin anew
        folder.mkdir()
        trains = model()
        during = [
            keras.callbacks.ModelCheckpoint(folder / "during.keras"),
            keras.callbacks.ModelCheckpoint(folder / "during.weights.h5", save_weights_only=True),
        ]
        fit(trains, *callbacks, *during, epochs=1)
        trains.save(folder / "after.keras")
        trains.save_weights(folder / "after.weights.h5")
        return trains, [contents(folder / f"{when}.keras") for when in ("during", "after")]

    plain, expected = saved(tmp_path / "plain")
    trains, found = saved(tmp_path / "profiled", BaselineCallback(["conv"], training="all"))

    assert found == expected
    assert plain_values(trains.get_config()) == plain_values(plain.get_config())
    assert attributes(trains) == attributes(plain)
    assert has_nothing_of_ours(trains)
    for when in ("during", "after"):
        name = f"{when}.weights.h5"
        assert weights(tmp_path / "profiled" / name) == weights(tmp_path / "plain" / name)
        assert b"lensai" not in (tmp_path / "profiled" / f"{when}.keras").read_bytes()
    loaded = keras.saving.load_model(tmp_path / "profiled" / "during.keras")
    for one, other in zip(loaded.get_weights(), trains.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_functions_come_back_to_what_they_were(model, fit, images):
    trains = model()
    fit(trains, epochs=1)
    before = trains.train_function, trains.test_function
    callback = BaselineCallback()
    fit(trains, callback, epochs=1)
    assert (trains.train_function, trains.test_function) == before
    fit(trains, callback, epochs=1)
    assert (trains.train_function, trains.test_function) == before
    assert callback.baseline_.n == 24
    trains.evaluate(*images(20), verbose=0)
    trains.train_on_batch(*images(8))
    assert (trains.train_function, trains.test_function) == before


def interrupted(model, fit, callback, *callbacks, error=RuntimeError, **arguments):
    """Train until it breaks in the second epoch; the trace back is gone then, as it is after an `except`."""
    with pytest.raises(error):
        fit(model, callback, *callbacks, epochs=3, **arguments)
    gc.collect()


def check_all_goes_on(trains, fit, callback, counts):
    """The last complete epoch is there, the model is as it was, and further fits work."""
    callback.detach()
    assert has_nothing_of_ours(trains)
    baseline = callback.baseline_
    assert (baseline.info["epoch"], baseline.n, counts(baseline.training)) == (0, 24, {"inputs": 40, "labels": 40})
    fit(trains, epochs=1)
    assert has_nothing_of_ours(trains)
    assert callback.baseline_ is baseline
    fit(trains, callback, epochs=1)
    assert (callback.baseline_.n, callback.baseline_.training.n) == (24, 40)
    assert callback.baseline_ is not baseline
    assert callback.baseline_.warnings == []
    assert has_nothing_of_ours(trains)


@pytest.mark.parametrize("hook", ["on_train_batch_begin", "on_test_begin", "on_test_batch_end"])
def test_another_callback_that_raises_leaves_the_model_as_it_was(model, fit, counts, hook):
    trains, callback = model(), BaselineCallback()
    interrupted(trains, fit, callback, Breaks(hook))

    assert has_nothing_of_ours(trains)  # by itself, when what fit had is gone
    check_all_goes_on(trains, fit, callback, counts)


def test_ctrl_c_in_a_callback(model, fit, counts):
    trains, callback = model(), BaselineCallback()
    with callback:
        interrupted(trains, fit, callback, Breaks("on_train_batch_end", KeyboardInterrupt), error=KeyboardInterrupt)
    assert callback.baseline_ is not None
    check_all_goes_on(trains, fit, callback, counts)


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_in_a_step_leaves_the_model_as_it_was_at_once(model, fit, counts, kind):
    trains, callback = model(), BaselineCallback()
    step = {}

    class Inject(keras.callbacks.Callback):
        """Breaks the function within which steps run, in the second step of the second epoch.

        When the first step after a validation raises on JAX, Keras leaves its variables without values.
        """

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_begin(self, batch, logs=None):
            ours = self._model.train_function
            if self.epoch == 1 and batch > 0 and isinstance(ours, GuardedFunction):
                step["ours"] = ours._ours

                def fails(*_):
                    raise kind("injected")

                ours._ours = fails

        def restore(self):
            callback._fit._exchanges["train"]._ours._ours = step["ours"]

    inject = Inject()
    with pytest.raises(kind, match="injected"):
        fit(trains, callback, inject, epochs=3)
    assert has_nothing_of_ours(trains)
    assert callback.baseline_.info["epoch"] == 0  # it was logged at once
    inject.restore()
    check_all_goes_on(trains, fit, callback, counts)


@pytest.mark.filterwarnings(GENERATOR)
@pytest.mark.backend("jax", "torch")  # TensorFlow reads a generator in threads of its own, and reports another error
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_in_the_data_leaves_the_model_as_it_was_at_once(model, images, kind, fit, counts):
    def batches():
        pictures, labels = images(40)
        for epoch in range(3):
            for start in range(0, 40, 16):
                if epoch == 1 and start == 16:
                    raise kind("injected")
                yield pictures[start : start + 16], labels[start : start + 16]

    trains, callback = model(), BaselineCallback()
    with pytest.raises(kind, match="injected"):
        trains.fit(
            batches(), steps_per_epoch=3, validation_data=images(24, 1), epochs=3, callbacks=[callback], verbose=0
        )
    callback.detach()
    assert has_nothing_of_ours(trains)
    check_all_goes_on(trains, fit, callback, counts)


@pytest.mark.filterwarnings(GENERATOR)
def test_an_error_in_the_data_leaves_the_model_as_it_was(model, images, fit, counts):
    def batches():
        pictures, labels = images(40)
        for epoch in range(3):
            for start in range(0, 40, 16):
                if epoch == 1 and start == 16:
                    raise ValueError("injected")
                yield pictures[start : start + 16], labels[start : start + 16]

    trains, callback = model(), BaselineCallback()
    with pytest.raises(Exception, match="injected"):
        trains.fit(
            batches(), steps_per_epoch=3, validation_data=images(24, 1), epochs=3, callbacks=[callback], verbose=0
        )
    check_all_goes_on(trains, fit, callback, counts)


def test_a_fit_after_one_whose_error_is_still_held(model, fit, warned):
    trains, first, second = model(), BaselineCallback(directory="first"), BaselineCallback(directory="second")
    with pytest.raises(RuntimeError) as held:
        fit(trains, first, Breaks("on_epoch_end"), epochs=3)
    fit(trains, second, epochs=1)

    assert held.value.args == ("injected",)
    assert (second.baseline_.n, second.baseline_.training.n) == (24, 40)
    assert (first.baseline_.info["epoch"], first.baseline_.n) == (1, 24)
    assert has_nothing_of_ours(trains)
    assert warned("another callback") == []


def test_an_interruption_in_the_first_epoch_leaves_what_training_saw_till_then(model, fit, warned):
    class Early(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    trains = model()
    with BaselineCallback() as callback, pytest.raises(KeyboardInterrupt):
        fit(trains, callback, Early())

    assert (callback.baseline_.reference.source, callback.baseline_.n) == ("training", 32)
    assert any("a part of a training epoch" in warning for warning in callback.baseline_.warnings)
    assert any("there was no validation pass" in warning for warning in callback.baseline_.warnings)
    assert has_nothing_of_ours(trains)


def test_detaching_what_never_ran_or_has_ended_does_nothing(model, fit):
    callback = BaselineCallback()
    callback.detach()
    with callback:
        fit(model(), callback, epochs=1)
        ended = callback.baseline_
    callback.detach()

    assert callback.baseline_ is ended
