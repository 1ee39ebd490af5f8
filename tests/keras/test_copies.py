"""A callback that is copied, pickled, or fitted with one model after the other: nothing takes another's place.

The callback's arguments: checked where they are given, and JSON there and back.
"""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np
import pytest

from lensai_integrations import Baseline, ImageInputs
from lensai_integrations.errors import InputError
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


FULL = {
    "layers": ("conv", "embedding"),
    "inputs": ImageInputs(layout="NHWC", scale=255.0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), key="image"),
    "outputs": "fc",
    "task": "logits",
    "target": "class",
    "reference": "training",
    "training": "all",
    "reduce": {"conv": "max"},
    "convention": "lensai-edge",
    "k": 128,
    "rows": 50,
    "max_dim": 64,
    "seed": 7,
    "artifact_path": "lensai/fold-1",
    "upload_deadline": 5.0,
}


@pytest.mark.parametrize("arguments", [{}, FULL, {"layers": None, "inputs": None, "outputs": None, "training": None}])
def test_the_arguments_go_through_json(arguments, tmp_path):
    callback = BaselineCallback(**arguments, directory=tmp_path / "baseline")
    config = callback.get_config()
    again = BaselineCallback.from_config(json.loads(json.dumps(config)))

    assert again.get_config() == config
    assert again._options.inputs == callback._options.inputs
    assert again._options.reduce == callback._options.reduce
    assert config["directory"] == str(tmp_path / "baseline")
    assert {name: config[name] for name in arguments if name not in ("layers", "inputs")} == {
        name: value for name, value in arguments.items() if name not in ("layers", "inputs")
    }


def test_keras_serializes_it():
    written = json.dumps(keras.saving.serialize_keras_object(BaselineCallback(**FULL)))
    again = keras.saving.deserialize_keras_object(json.loads(written))

    assert type(again) is BaselineCallback
    assert again.get_config() == BaselineCallback(**FULL).get_config()
    assert again._options.inputs == FULL["inputs"]


def test_a_described_callback_works(model, fit, counts):
    callback = BaselineCallback.from_config(json.loads('{"layers": ["embedding"], "reduce": {"embedding": "mean"}}'))
    fit(model(), callback, epochs=1)

    assert counts(callback.baseline_.reference)["embeddings/embedding"] == 24


@pytest.mark.parametrize("reduce", [lambda answer: answer[:, 0], {"conv": keras.ops.max}])
def test_a_function_cannot_be_described(reduce):
    callback = BaselineCallback(reduce=reduce)

    with pytest.raises(InputError, match="is a function, which no configuration can hold: pass 'mean'"):
        callback.get_config()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"layer": ["conv"]}, r"the configuration has \['layer'\], which BaselineCallback does not take"),
        ({"dataloader_idx": 0}, r"\['dataloader_idx'\]"),
        ({"inputs": {"colour": "RGB"}}, "does not describe ImageInputs"),
        ({"inputs": {"scale": -1}}, "scale=-1"),
        ({"k": 3}, "k=3 should be a whole number"),
    ],
)
def test_a_wrong_description_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        BaselineCallback.from_config(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": "conv"}, "layers='conv' should be 'auto', a list of layer names"),
        ({"layers": ["conv", "conv"]}, "names a layer twice"),
        ({"inputs": "image"}, r"inputs='image' should be 'auto', ImageInputs\(...\) or None"),
        ({"outputs": 1}, "outputs=1"),
        ({"task": "segmentation"}, "task='segmentation' is unknown; pass 'auto'"),
        ({"target": 1.5}, "target=1.5"),
        (
            {"reference": "val"},
            "reference='val' is unknown; pass 'validation', 'training', 'test', 'prediction' or 'final'",
        ),
        ({"training": "some"}, "training='some'"),
        ({"reduce": "median"}, "median"),
        ({"reduce": {"conv": "median"}}, "median"),
        ({"convention": "other"}, "other"),
        ({"k": 1.0}, "k=1.0"),
        ({"rows": -1}, "rows=-1"),
        ({"max_dim": 0}, "max_dim=0"),
        ({"seed": True}, "seed=True"),
        ({"artifact_path": "../up"}, "up"),
        ({"upload_deadline": 0}, "upload_deadline=0"),
    ],
)
def test_wrong_arguments_raise_where_they_are_given(arguments, message):
    with pytest.raises(InputError, match=message):
        BaselineCallback(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": ["embeding"]}, "the model has no layer 'embeding'; nearest: embedding; it has conv, norm, relu"),
        ({"outputs": "dense"}, "the model has no layer 'dense'; .*it has conv, norm"),
        ({"layers": ["conv"], "reduce": {"norm": "max"}}, r"reduce has \['norm'\], but .* read are \['conv'\]"),
    ],
)
def test_names_the_model_does_not_have_raise_when_fit_starts(model, fit, arguments, message):
    trains = model()
    before = dict(trains.__dict__)
    with pytest.raises(InputError, match=message):
        fit(trains, BaselineCallback(**arguments))

    assert trains.optimizer.iterations == 0
    assert before.keys() <= trains.__dict__.keys()
    assert type(trains.train_function).__module__.partition(".")[0] != "lensai_integrations"
    for steps in (trains.evaluate, trains.predict):
        with pytest.raises(InputError, match=message):
            steps(np.zeros((4, 16, 16, 3)), callbacks=[BaselineCallback(**arguments)], verbose=0)
