"""The baseline that is logged is that of the epoch whose weights are kept."""

from __future__ import annotations

import keras
import pytest

from lensai_integrations import Baseline
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.weights import BestEpoch, SeenPass


class Score(keras.callbacks.Callback):
    """Puts a score of its own among the logs, one for each epoch."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.scores[epoch]


def stopping(**arguments):
    return keras.callbacks.EarlyStopping("score", mode="max", patience=9, restore_best_weights=True, **arguments)


def saving(path, **arguments):
    return keras.callbacks.ModelCheckpoint(path, "score", mode="max", save_best_only=True, **arguments)


def streams(profile):
    """What is known of all streams, exact with so few rows."""
    return [repr(summary) for summary in profile.summaries()]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)], ids=["last", "between", "first"])
@pytest.mark.parametrize("keeper", ["stopping", "saving"])
def test_the_best_epochs_baseline_is_logged_whatever_the_order(model, fit, tmp_path, keeper, order):
    alone = BaselineCallback(["embedding"], training="all", directory=tmp_path / "alone")
    expected = model()
    fit(expected, alone)
    callback = BaselineCallback(["embedding"], training="all")
    keeps = stopping() if keeper == "stopping" else saving(str(tmp_path / "best.keras"))
    three = [Score(1, 3, 2, 2), keeps, callback]
    trains = model()
    fit(trains, *(three[place] for place in order), epochs=4)
    baseline = Baseline.load(callback.directory_)

    assert baseline.info["epoch"] == 1
    assert baseline.training.info["epoch"] == 1
    assert baseline.info["checkpoint"] == (None if keeper == "stopping" else "best.keras")
    assert streams(callback.baseline_.reference) == streams(alone.baseline_.reference)
    assert streams(callback.baseline_.training) == streams(alone.baseline_.training)
    best = trains if keeper == "stopping" else keras.saving.load_model(tmp_path / "best.keras")
    for kept, value in zip(best.get_weights(), expected.get_weights(), strict=True):
        assert (kept == value).all()


def test_what_early_stopping_restores_comes_before_what_a_checkpoint_keeps(model, fit, tmp_path):
    callback = BaselineCallback()
    other = keras.callbacks.ModelCheckpoint(tmp_path / "a.keras", "score", mode="min", save_best_only=True)
    fit(model(), Score(2, 3, 1), other, stopping(), callback, epochs=3)

    assert (callback.baseline_.info["epoch"], callback.baseline_.info["checkpoint"]) == (1, None)


def test_callbacks_that_keep_no_best_weights_leave_the_last_epoch(model, fit, tmp_path):
    callback = BaselineCallback()
    every = keras.callbacks.ModelCheckpoint(tmp_path / "a.keras", "score", mode="max")
    stops = keras.callbacks.EarlyStopping("score", mode="max", patience=1)
    history = fit(model(), callback, Score(3, 1, 2), stops, every, epochs=3)

    assert len(history["loss"]) == 2  # stopped
    assert callback.baseline_.info["epoch"] == 1
    assert callback.baseline_.info["checkpoint"] is None


def test_of_an_interrupted_fit_the_best_epoch_is_logged(model, fit, tmp_path):
    class Breaks(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if len(self.model.history.epoch) == 2 and batch == 1:
                raise RuntimeError("power cut")

    with BaselineCallback() as callback, pytest.raises(RuntimeError, match="power cut"):
        fit(model(), callback, Score(3, 1, 2), saving(tmp_path / "best.keras"), Breaks(), epochs=3)

    assert (callback.baseline_.info["epoch"], callback.baseline_.training.n) == (0, 40)


def test_a_second_fit_begins_anew(model, fit):
    callback, stops, trains = BaselineCallback(), stopping(), model()
    fit(trains, Score(3, 1), stops, callback)
    assert callback.baseline_.info["epoch"] == 0
    fit(trains, Score(1, 2), stops, callback)
    assert callback.baseline_.info["epoch"] == 1


def test_a_checkpoint_that_was_never_written_in_this_fit_is_not_of_its_best_epoch(model, fit, tmp_path):
    callback = BaselineCallback()
    fit(model(), Score(1, 2), saving(tmp_path / "best.keras", initial_value_threshold=5), callback)

    assert (callback.baseline_.info["epoch"], callback.baseline_.info["checkpoint"]) == (1, None)


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_only_a_change_is_a_new_best(value):
    keeper = keras.callbacks.EarlyStopping("score", mode="max", restore_best_weights=True)
    best = BestEpoch([keras.callbacks.History(), keeper])
    best.begin()
    seen = SeenPass({}, "validation")
    asked = [best.look(seen)]
    keeper.best = keras.ops.convert_to_numpy(value)
    asked += [best.look(seen), best.look(seen)]
    keeper.best_epoch = 3

    assert [*asked, best.look(seen), best.look(seen)] == [False, True, False, True, False]
    assert not BestEpoch().look(seen)
