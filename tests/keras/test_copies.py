"""A callback that is copied, pickled, or fitted with one model after the other: nothing takes another's place."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest

from lensai_integrations import Baseline
from lensai_integrations.keras import BaselineCallback, DriftCallback
from lensai_integrations.keras.copies import by_epoch

#: What a backend has no part in.
ONCE = pytest.mark.backend("torch")


def quick(**arguments):
    return BaselineCallback(["embedding"], **{"clean_windows": 0, "k": 100, **arguments})


def wide(width):
    """A classifier with so many units before the last layer."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    stack = [keras.Input((16, 16, 3)), layers.GlobalAveragePooling2D(), layers.Dense(width, name="embedding")]
    model = keras.Sequential([*stack, layers.Dense(4, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def width_of(where):
    """How many columns the embeddings of a baseline have."""
    baseline = where if isinstance(where, Baseline) else Baseline.load(where)
    return len(baseline.reference.groups["embeddings/embedding"].streams)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
@pytest.mark.parametrize("used", [pytest.param(False, marks=ONCE), True])
def test_a_copy_starts_afresh(fit, copied, used):
    callback = quick()
    if used:
        fit(wide(8), callback)
    one = copied(callback)

    assert one.get_config() == callback.get_config()
    assert (one.directory_, one.baseline_ is None) == (callback.directory_, not used)
    assert one._model is None
    if used:
        assert one.baseline_.info == callback.baseline_.info
    fit(wide(4), one)
    assert (width_of(one.baseline_), width_of(one.directory_), one.baseline_.warnings) == (4, 4, [])
    fit(wide(8), callback)
    assert width_of(callback.baseline_) == 8


def test_a_copy_in_the_middle_of_a_fit(fit):
    class Copies(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            self.made = copy.deepcopy(callback), pickle.dumps(callback)

    callback, copies = quick(), Copies()
    fit(wide(4), callback, copies)
    for one in (copies.made[0], pickle.loads(copies.made[1])):
        fit(wide(6), one)
        assert width_of(one.baseline_) == 6


@ONCE
def test_a_callback_and_its_copies_for_a_model_after_the_other(fit):
    callback, kept = quick(), []
    for width in (2, 3, 4):
        one = copy.deepcopy(callback) if width == 3 else callback
        fit(wide(width), one)
        kept.append((one.directory_.name, width_of(one.directory_), width_of(one.baseline_)))
        assert (callback.directory_, width_of(callback.baseline_)) == (one.directory_, width)

    assert kept == [("lensai_baseline", 2, 2), ("lensai_baseline-2", 3, 3), ("lensai_baseline-3", 4, 4)]


@ONCE
def test_a_scikit_learn_wrapper(images):
    pytest.importorskip("sklearn")
    callback = quick()
    x, y = images(40)
    model = keras.wrappers.SKLearnClassifier(
        lambda X, y: compiled_for_columns(), fit_kwargs={"callbacks": [callback], "epochs": 1, "verbose": 0}
    )
    folders = []
    for rows in (slice(0, 20), slice(20, 40)):
        model.fit(x[rows].reshape(20, -1), y[rows], validation_split=0.5)
        assert callback.baseline_.n == 10
        folders.append(callback.directory_.name)

    assert folders == ["lensai_baseline", "lensai_baseline-2"]


def compiled_for_columns():
    layers = keras.layers
    stack = [keras.Input((768,)), layers.Reshape((16, 16, 3)), layers.GlobalAveragePooling2D(name="pool")]
    model = keras.Sequential([*stack, layers.Dense(3, name="embedding"), layers.Dense(4, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    return model


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
@pytest.mark.parametrize("used", [pytest.param(False, marks=ONCE), True])
def test_a_copy_of_a_monitor_starts_afresh(fit, images, copied, used):
    making, trains = quick(), wide(4)
    fit(trains, making)
    callback = DriftCallback(making.baseline_, window=10)
    if used:
        trains.predict(images(24, 1)[0], callbacks=[callback], verbose=0)
        assert len(callback.reports_) == 3
    one = copied(callback)

    assert one.reports_ == []
    trains.predict(images(20, 1)[0], callbacks=[one], verbose=0)
    assert len(one.reports_) == 2
    assert len(callback.reports_) == (3 if used else 0)


@pytest.fixture
def search(images, tmp_path):
    """`search(callback, executions=, scores=, ...)`: a tuner that has tried three widths; `scores` by width."""
    tuners = pytest.importorskip("keras_tuner")

    def run(callback, direction="max", executions=1, epochs=2, folder="search", **arguments):
        def build(settings):
            return wide(settings.Choice("width", [4, 8, 16]))

        tuner = tuners.GridSearch(
            build,
            objective=tuners.Objective("score", direction),
            max_trials=3,
            executions_per_trial=executions,
            directory=tmp_path,
            project_name=folder,
            overwrite=True,
        )
        callbacks = [Scores(scores[executions]), *([] if callback is None else [callback])]
        given = {"validation_data": images(24, 1), "epochs": epochs, "batch_size": 16, "verbose": 0, **arguments}
        tuner.search(*images(40), callbacks=callbacks, **given)
        return tuner

    scores = {
        1: {4: [[1, 3]], 8: [[7, 5]], 16: [[2, 4]]},
        2: {4: [[9, 1], [0, 1]], 8: [[6, 6], [2, 7]], 16: [[3, 2], [4, 2]]},
    }
    return run


class Scores(keras.callbacks.Callback):
    """Scores of each fit of a model by its width, for each epoch."""

    fits: ClassVar[dict[int, int]] = {}

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def __deepcopy__(self, memo):
        return type(self)(self.scores)

    def on_train_begin(self, logs=None):
        self.width = self.model.get_layer("embedding").units
        self.fit = self.fits[self.width] = self.fits.get(self.width, -1) + 1

    def on_epoch_end(self, epoch, logs=None):
        scores = self.scores[self.width]
        logs["score"] = scores[self.fit % len(scores)][epoch]


TUNERS_OWN = pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning", "ignore:getName:DeprecationWarning")


@TUNERS_OWN
@pytest.mark.parametrize(("direction", "best", "epoch"), [("max", 8, 0), pytest.param("min", 4, 0, marks=ONCE)])
def test_a_tuners_best_trial_and_epoch_are_the_ones_kept(search, images, direction, best, epoch):
    Scores.fits.clear()
    callback = quick(directory="kept")
    tuner = search(callback, direction)
    baseline = Baseline.load("kept")
    (model,) = tuner.get_best_models()

    assert width_of(baseline) == model.get_layer("embedding").units == best
    assert (baseline.info["epoch"], baseline.info["checkpoint"], baseline.warnings) == (
        epoch,
        "checkpoint.weights.h5",
        [],
    )
    found = {each.stream: each.max for each in baseline.reference.summaries()}
    answers = model.predict(images(24, 1)[0], verbose=0).max(0)
    np.testing.assert_allclose([found[f"outputs/softmax/{place}"] for place in range(4)], answers, atol=1e-6)
    assert callback.directory_ == Path("kept").absolute()
    assert width_of(callback.baseline_) == best
    for name, each in tuner.oracle.trials.items():
        assert width_of(Path(tuner.get_trial_dir(name)) / "lensai_baseline") == each.hyperparameters["width"]


@TUNERS_OWN
@ONCE
def test_of_several_fits_of_a_trial_the_best_one_counts_and_their_mean_decides(search):
    Scores.fits.clear()
    callback = quick(directory="kept")
    tuner = search(callback, executions=2)
    best = tuner.oracle.get_best_trials()[0]
    (model,) = tuner.get_best_models()

    assert best.score == 6.5  # of 8, and 5 of 4, whose best is 9
    assert width_of("kept") == width_of(callback.baseline_) == model.get_layer("embedding").units == 8
    assert Baseline.load("kept").info["epoch"] == 1  # of the second
    (four,) = [each for each in tuner.oracle.trials.values() if each.hyperparameters["width"] == 4]
    assert Baseline.load(Path(tuner.get_trial_dir(four.trial_id)) / "lensai_baseline").info["epoch"] == 0


@TUNERS_OWN
@ONCE
@pytest.mark.parametrize("directory", [None, "kept"])
def test_a_search_after_another_and_after_a_fit(search, fit, directory):
    Scores.fits.clear()
    callback = quick(directory=directory)
    fit(wide(5), callback)
    search(callback, epochs=1)
    search(callback, "min", epochs=1, folder="again")
    of_each = [width_of(each) for each in sorted(Path().glob("lensai_baseline*"))]

    assert of_each == ([5, 8, 4] if directory is None else [])
    assert width_of(callback.directory_) == width_of(callback.baseline_) == 4


@TUNERS_OWN
@ONCE
def test_an_objective_that_is_computed_after_fit_is_said_not_to_be_known(images, tmp_path):
    tuners = pytest.importorskip("keras_tuner")

    class Widths(tuners.HyperModel):
        def build(self, settings):
            return wide(settings.Choice("width", [4, 8]))

        def fit(self, settings, model, *data, **arguments):
            model.fit(*data, **arguments)
            return float(settings["width"])  # the least is the best

    callback = quick(directory="kept")
    tuner = tuners.GridSearch(Widths(), max_trials=2, directory=tmp_path, project_name="search")
    tuner.search(*images(40), validation_data=images(24, 1), epochs=1, verbose=0, callbacks=[callback])
    (said,) = callback.baseline_.warnings

    assert width_of("kept") == width_of(callback.baseline_) == 8
    assert "which trial is the best is not known here, and the baseline is that of the last, trial_" in said
    (four,) = [each for each in tuner.oracle.trials.values() if each.hyperparameters["width"] == 4]
    assert width_of(Path(tuner.get_trial_dir(four.trial_id)) / "lensai_baseline") == 4


def test_logs_by_epoch():
    assert by_epoch({}) == []
