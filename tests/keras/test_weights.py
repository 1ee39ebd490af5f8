"""Whose weights a baseline is of: it says so, and it is true."""

from __future__ import annotations

import copy
import random

import keras
import numpy as np
import pytest

from lensai_integrations import Baseline
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras.weights import ModelWeights, Saved, Saves

#: What a backend has no part in.
ONCE = pytest.mark.backend("torch")
LEFT = "the weights that fit leaves, "
FINAL = 'reference="final"'


class Score(keras.callbacks.Callback):
    """Puts a score of its own among the logs, one for each epoch."""

    def __init__(self, *scores):
        super().__init__()
        self.scores = scores

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.scores[epoch]


class Sets(keras.callbacks.Callback):
    """Sets other weights in a hook."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self._set)

    def _set(self, *_, **__):
        layer = self.model.get_layer("fc")
        layer.set_weights([np.flip(value) * 2 for value in layer.get_weights()])


def quick(**arguments):
    return BaselineCallback(["embedding"], clean_windows=0, **arguments)


def averaging(**arguments):
    return keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, ema_momentum=0.5, **arguments)


def stopping(**arguments):
    given = {"patience": 9, "restore_best_weights": True, **arguments}
    return keras.callbacks.EarlyStopping("score", mode="max", **given)


def saving(path, **arguments):
    return keras.callbacks.ModelCheckpoint(
        path, **{"monitor": "score", "mode": "max", "save_best_only": True} | arguments
    )


@pytest.fixture
def extremes(images):
    """`extremes(...)`: of a baseline's reference or a model, the least and the largest probability of each class."""

    def of(which):
        if isinstance(which, Baseline):
            streams = {each.stream: each for each in which.reference.summaries()}
            found = [streams[f"outputs/softmax/{place}"] for place in range(4)]
            return np.array([[each.min for each in found], [each.max for each in found]])
        logits = which.predict(images(24, 1)[0], verbose=0)
        values = np.exp(logits - logits.max(-1, keepdims=True))
        answers = values / values.sum(-1, keepdims=True)
        return np.array([answers.min(0), answers.max(0)])

    return of


@pytest.fixture
def same(extremes):
    """`same(baseline, model)`: whether the reference has what the model answers now."""
    return lambda baseline, model: np.allclose(extremes(baseline), extremes(model), rtol=0, atol=1e-6)


@pytest.fixture
def left(model, fit, same):
    """`left(*callbacks, reference=, ...)`: a baseline; it is of the weights that the fit leaves iff nothing is said."""

    def run(*callbacks, reference="validation", optimizer=None, first=True, **arguments):
        trains = model(**({} if optimizer is None else {"optimizer": optimizer}))
        ours = quick(reference=reference)
        fit(trains, *([ours, *callbacks] if first else [*callbacks, ours]), **{"epochs": 3, **arguments})
        baseline = Baseline.load(ours.directory_)
        assert baseline.info == ours.baseline_.info
        assert same(baseline, trains) == (baseline.warnings == []) == baseline.info["weights_of"].startswith(LEFT)
        return baseline

    return run


CASES = {
    "plain": (lambda: [], {}, 2),
    "one epoch in two": (lambda: [], {"validation_freq": 2}, None),
    "the third epoch": (lambda: [], {"validation_freq": [3]}, 2),
    "steps": (lambda: [], {"steps_per_epoch": 1, "validation_steps": 2, "validation_batch_size": 12}, 2),
    "from an epoch on": (lambda: [], {"initial_epoch": 1}, 2),
    "early stopping": (lambda: [Score(1, 3, 2), stopping()], {}, 1),
    "early stopping that stops": (lambda: [Score(3, 2, 1), stopping(patience=1)], {}, 0),
    "early stopping, one epoch in two": (lambda: [Score(3, 1, 2), stopping()], {"validation_freq": 2}, None),
    "average": (lambda: [], {"optimizer": averaging}, None),
    "average put in place": (lambda: [], {"optimizer": lambda: averaging(ema_overwrite_frequency=3)}, 2),
    "average swapped": (lambda: [keras.callbacks.SwapEMAWeights()], {"optimizer": averaging}, 2),
    "average swapped for epochs": (
        lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
        {"optimizer": averaging},
        2,
    ),
    "average and early stopping": (lambda: [Score(1, 3, 2), stopping()], {"optimizer": averaging}, 1),
    "set at the end": (lambda: [Sets("on_train_end")], {}, None),
    "set after an epoch": (lambda: [Sets("on_epoch_end")], {}, None),
    "set before validation": (lambda: [Sets("on_test_begin")], {}, 2),
    "learning rate": (lambda: [keras.callbacks.LearningRateScheduler(lambda _: 0.01)], {}, 2),
}


UNSAID = ["plain", *(case for case, (_, _, epoch) in CASES.items() if epoch is None and case != "average")]
#: Where a backend has a part in it; the others are about callbacks alone.
EVERYWHERE = ("one epoch in two", "average", "average swapped", "average and early stopping")
EACH = [
    pytest.param(case, first, marks=[] if first and case in EVERYWHERE else ONCE)
    for case in CASES
    for first in (True, False)
]


@pytest.mark.parametrize(("case", "first"), EACH)
def test_a_reference_is_of_the_weights_that_fit_leaves_or_says_that_it_is_not(left, case, first):
    callbacks, arguments, epoch = CASES[case]
    given = {name: value() if name == "optimizer" else value for name, value in arguments.items()}
    baseline = left(*callbacks(), first=first, **given)

    if epoch is not None:
        assert (baseline.info["epoch"], baseline.warnings) == (epoch, [])
        return
    (said,) = baseline.warnings
    assert FINAL in said
    assert "at the end of epoch" in said
    assert baseline.info["weights_of"].startswith("neither")


@pytest.mark.parametrize("case", ["average", *(pytest.param(case, marks=ONCE) for case in UNSAID)])
def test_one_more_pass_settles_it(left, case):
    callbacks, arguments, _ = CASES[case]
    given = {name: value() if name == "optimizer" else value for name, value in arguments.items()}
    baseline = left(*callbacks(), reference="final", **given)

    assert (baseline.warnings, baseline.n, baseline.reference.source) == ([], 24, "validation")
    assert baseline.info["epoch"] == (2 if case == "plain" else None)
    assert baseline.info["weights_of"] == LEFT + ("at the end of epoch 2" if case == "plain" else "after epoch 2")


@ONCE
def test_a_fit_that_ends_before_its_first_validation(model, fit, same, tmp_path):
    keeps = saving(tmp_path / "best.keras", monitor="loss", mode="min")
    callback, trains = quick(), model()
    fit(trains, callback, keeps, validation_freq=5)
    baseline = callback.baseline_

    assert baseline.info["weights_of"].startswith("no one's")
    assert baseline.info["checkpoint"] is None  # it was saved in the middle of no pass
    (said,) = [each for each in baseline.warnings if FINAL in each]
    assert "there was no validation pass before fit ended" in said
    callback, trains = quick(reference="final"), model()  # what it says
    fit(trains, callback, validation_freq=5)
    assert (callback.baseline_.warnings, same(callback.baseline_, trains)) == ([], True)
    callback = quick()
    fit(trains, callback, validation_data=None)
    assert not any(FINAL in each for each in callback.baseline_.warnings)


@ONCE
@pytest.mark.parametrize("case", ["average", "one epoch in two", "early stopping, one epoch in two"])
def test_what_is_said_names_whose_weights_are_there(left, case):
    callbacks, arguments, _ = CASES[case]
    given = {name: value() if name == "optimizer" else value for name, value in arguments.items()}
    (said,) = left(*callbacks(), **given).warnings
    seen, there = {
        "average": (2, "that the optimizer averaged (use_ema=True)"),
        "one epoch in two": (1, "at the end of epoch 2"),
        "early stopping, one epoch in two": (1, "that EarlyStopping gave back, at the end of epoch 0"),
    }[case]

    assert f"its last validation pass was at the end of epoch {seen}, and the weights are those {there};" in said


@ONCE
def test_a_fit_that_trains_on_replaces_what_was_before(model, fit, same):
    trains, callback = model(), quick()
    fit(trains, callback)
    fit(trains, callback, Sets("on_epoch_begin"), epochs=1)

    assert callback.baseline_.warnings == []
    assert same(Baseline.load(callback.directory_), trains)


@ONCE
def test_part_of_the_training_data_is_held_out(model, fit, images):
    trains, callback = model(optimizer=averaging()), quick(reference="final")
    fit(trains, callback, validation_data=None, validation_split=0.4)
    answers = trains.predict(images(40)[0][24:], verbose=0)
    baseline = callback.baseline_

    assert (baseline.n, baseline.warnings) == (16, [])
    streams = {each.stream: each for each in baseline.reference.summaries()}
    expected = (np.exp(answers) / np.exp(answers).sum(-1, keepdims=True)).max(0)
    found = [streams[f"outputs/softmax/{place}"].max for place in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


class MonteCarlo(keras.layers.Layer):
    """Draws in evaluation too, from its own seeds."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, images):
        return images + keras.random.normal(keras.ops.shape(images), seed=self.seeds)


class Draws(keras.utils.PyDataset):
    """Draws from everybody's generators for every batch."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def __len__(self):
        return 2

    def __getitem__(self, place):
        random.random()
        np.random.rand()  # noqa: NPY002
        keras.random.normal((1,))
        return tuple(part[place * 12 : place * 12 + 12] for part in self.data)


def state_of(model):
    """All that a pass may change: variables, metrics, functions, and random numbers drawn next."""
    drawn = [random.random(), np.random.rand(), keras.ops.convert_to_numpy(keras.random.normal((2,))).tolist()]  # noqa: NPY002
    values = [keras.ops.convert_to_numpy(each).tolist() for each in [*model.variables, *model.metrics_variables]]
    return values, drawn, model.history.history, model.test_function is None, getattr(model, "stop_evaluating", None)


def test_one_more_pass_leaves_everything_else_as_it_was(images, compile_model, fit):
    def trained(reference, **arguments):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((16, 16, 3)), MonteCarlo(), keras.layers.Flatten(), keras.layers.Dense(4, name="fc")]
        trains = compile_model(keras.Sequential(layers))
        callback = BaselineCallback(["fc.input"], clean_windows=0, reference=reference)
        fit(trains, callback, validation_data=Draws(images(24, 1)), **arguments)
        return callback.baseline_, state_of(trains)

    for arguments in ({}, {"validation_freq": 5}):  # in the second, the model has no function for it before
        (_, expected), (baseline, found) = trained("validation", **arguments), trained("final", **arguments)
        assert found == expected
        assert (baseline.n, baseline.warnings) == (24, [])


@ONCE
@pytest.mark.parametrize("first", [True, False])
def test_one_more_pass_runs_without_the_other_callbacks(model, fit, first):
    class Counts(keras.callbacks.Callback):
        passes, at_the_end = 0, False

        def on_test_begin(self, logs=None):
            self.passes += 1

        def on_train_end(self, logs=None):
            self.at_the_end = True

    trains, counts, callback = model(), Counts(), quick(reference="final")
    steps = []
    evaluate = trains.evaluate
    trains.evaluate = lambda *args, **given: (steps.append(counts.at_the_end), evaluate(*args, **given))[1]
    fit(trains, *([callback, counts] if first else [counts, callback]))

    assert counts.passes == 2
    assert steps == [False, False, True]
    assert callback.baseline_.n == 24


@pytest.mark.parametrize("broken", [*(pytest.param(each, marks=ONCE) for each in ("no data", "used up")), "raises"])
def test_where_one_more_pass_cannot_be_made_the_last_one_is_taken_and_that_is_said(model, fit, images, broken, same):
    trains, callback = model(), quick(reference="final")
    arguments = {}
    if broken == "no data":
        arguments = {"validation_data": None}
    elif broken == "used up":
        held_out = images(24, 1)
        batches = (tuple(part[start : start + 12] for part in held_out) for start in (0, 12))
        arguments = {"validation_data": batches, "validation_steps": 2, "epochs": 1}
    else:

        def evaluate(*args, _given=trains.evaluate, **arguments):
            if not arguments.get("callbacks"):
                raise RuntimeError("not again")
            return _given(*args, **arguments)

        trains.evaluate = evaluate
    history = fit(trains, callback, **arguments)
    said = [each for each in callback.baseline_.warnings if "'final'" in each]

    epochs = 1 if broken == "used up" else 2
    assert len(history["loss"]) == epochs
    assert len(said) == 1
    if broken != "no data":
        assert (callback.baseline_.n, callback.baseline_.info["epoch"]) == (24, epochs - 1)
        assert same(callback.baseline_, trains)


def test_an_interrupted_fit_says_that_its_weights_are_others(model, fit):
    class Stops(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if len(self.model.history.epoch) == 2 and batch == 1:
                raise KeyboardInterrupt

    for reference in ("validation", "final"):
        with quick(reference=reference) as callback, pytest.raises(KeyboardInterrupt):
            fit(model(), callback, Stops(), epochs=3)
        (said,) = callback.baseline_.warnings
        assert (
            "its last validation pass was at the end of epoch 1, and the weights are those at the interruption" in said
        )
        assert 'callbacks=[BaselineCallback(reference="test")])' in said
        assert FINAL not in said


@pytest.mark.parametrize("weights_only", [pytest.param(False, marks=ONCE), True])
def test_a_file_is_named_if_it_has_the_weights_of_the_reference(model, fit, same, tmp_path, weights_only):
    name = "best-{epoch:02d}.weights.h5" if weights_only else "best-{epoch:02d}.keras"
    callback, trains = quick(), model()
    keeps = saving(tmp_path / name, save_weights_only=weights_only)
    fit(trains, callback, Score(1, 3, 2), keeps, epochs=3)
    info = callback.baseline_.info

    assert (info["epoch"], info["checkpoint"]) == (1, name.format(epoch=2))
    assert info["weights_of"] == f"checkpoint {name.format(epoch=2)}, at the end of epoch 1"
    assert callback.baseline_.warnings == []
    trains.load_weights(tmp_path / name.format(epoch=2))
    assert same(callback.baseline_, trains)
    assert "save" not in trains.__dict__
    assert "save_weights" not in trains.__dict__


@pytest.mark.parametrize(
    ("swapped_before", "first"),
    [
        (True, True),
        *(pytest.param(*each, marks=ONCE) for each in [(False, True), (True, False), (False, False)]),
    ],
)
def test_a_file_with_averaged_weights(model, fit, same, tmp_path, swapped_before, first):
    swaps, keeps = (
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        saving(tmp_path / "best.weights.h5", save_weights_only=True),
    )
    trains, callback = model(optimizer=averaging()), quick()
    others = [Score(1, 3, 2), *([swaps, keeps] if swapped_before else [keeps, swaps])]
    fit(trains, *([callback, *others] if first else [*others, callback]), epochs=3)
    info = callback.baseline_.info

    if swapped_before:
        assert (info["epoch"], info["checkpoint"], callback.baseline_.warnings) == (1, "best.weights.h5", [])
    else:
        (said,) = callback.baseline_.warnings
        assert "best.weights.h5 has other weights than the reference: those at the end of epoch 1" in said
        assert (info["epoch"], info["checkpoint"]) == (2, None)
        assert same(callback.baseline_, trains)
    trains.load_weights(tmp_path / "best.weights.h5")
    assert same(callback.baseline_, trains) == swapped_before


@pytest.mark.parametrize(
    ("every", "best"),
    [
        (2, True),
        *(pytest.param(*each, marks=ONCE) for each in [(2, False), (3, True), (3, False)]),
    ],
)
def test_a_file_that_is_saved_every_so_many_steps(model, fit, same, tmp_path, every, best, images):
    trains, callback = model(), quick()
    keeps = saving(
        tmp_path / "steps.weights.h5",
        save_weights_only=True,
        save_freq=every,
        monitor="loss",
        mode="min",
        save_best_only=best,
    )
    fit(trains, callback, keeps, epochs=3)  # three steps each
    baseline, of_the_last = callback.baseline_, same(callback.baseline_, trains)
    trains.load_weights(tmp_path / "steps.weights.h5")

    if baseline.info["checkpoint"] is None:
        assert (of_the_last, baseline.info["epoch"]) == (True, 2)
        assert (baseline.warnings == []) == same(baseline, trains)
        for said in baseline.warnings:
            assert "steps.weights.h5 has other weights than the reference: those after batch" in said
            other = BaselineCallback(["embedding"], reference="test", clean_windows=0, directory="other")
            trains.evaluate(*images(24, 1), callbacks=[other], verbose=0)  # what it says
            assert (other.baseline_.warnings, same(other.baseline_, trains)) == ([], True)
            assert other.baseline_.info["weights_of"] == "the model as it was given for test"
    else:
        assert same(baseline, trains)


def test_evaluate_after_fit_says_whose_weights_it_has(model, fit, images, same, tmp_path):
    trains, callback = model(), quick(reference="test")
    keeps = saving(tmp_path / "best.weights.h5", save_weights_only=True)
    fit(trains, callback, Score(1, 3, 2), keeps, epochs=3)
    assert callback.baseline_ is None

    found = []
    for path in (None, tmp_path / "best.weights.h5"):
        if path is not None:
            trains.load_weights(path)
        trains.evaluate(*images(24, 1), callbacks=[callback], verbose=0)
        found.append((callback.baseline_.info["weights_of"], callback.baseline_.info["checkpoint"]))
        assert (callback.baseline_.warnings, same(callback.baseline_, trains)) == ([], True)
    assert found == [
        (LEFT + "at the end of epoch 2", None),
        ("checkpoint best.weights.h5, at the end of epoch 1", "best.weights.h5"),
    ]


@pytest.mark.parametrize(
    ("reference", "used", "evaluates", "predicts"),
    [
        ("validation", False, True, True),
        pytest.param("validation", True, False, False, marks=ONCE),
        pytest.param("training", False, False, False, marks=ONCE),
        pytest.param("final", False, False, False, marks=ONCE),
        pytest.param("test", False, True, False, marks=ONCE),
        ("prediction", True, False, True),
    ],
)
def test_a_pass_on_its_own_makes_a_baseline_or_says_what_would(
    model, fit, images, said, reference, used, evaluates, predicts
):
    trains, callback = model(), quick(reference=reference)
    if used:
        fit(trains, callback, epochs=1)
    for method, source, makes in (("evaluate", "test", evaluates), ("predict", "prediction", predicts)):
        before = callback.baseline_
        said.clear()
        for _ in range(2):
            getattr(trains, method)(
                images(20, 1)[0], *([images(20, 1)[1]] if method == "evaluate" else []), callbacks=[callback], verbose=0
            )
        told = [each for each in said.messages if f"`model.{method}" in each and "Baseline: " in each]
        assert (callback.baseline_ is not before) == makes
        assert len(told) == (0 if makes else 1)
        assert makes or f"BaselineCallback(reference={source!r})" in told[0]
        if makes:
            assert (callback.baseline_.n, callback.baseline_.reference.source) == (20, source)
        else:
            other = quick(reference=source, directory="other")  # what it says
            getattr(trains, method)(
                images(20, 1)[0], *([images(20, 1)[1]] if method == "evaluate" else []), callbacks=[other], verbose=0
            )
            assert other.baseline_.reference.source == source


@ONCE
def test_a_file_that_was_written_over_since_is_not_named(model, fit, tmp_path):
    class Overwrites(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            self.model.save_weights(tmp_path / "best.weights.h5")

    callback = quick()
    keeps = saving(tmp_path / "best.weights.h5", save_weights_only=True)
    fit(model(), callback, Score(1, 3, 2), keeps, Overwrites(), epochs=3)

    assert (callback.baseline_.info["checkpoint"], callback.baseline_.info["epoch"]) == (None, 2)


@ONCE
def test_a_save_by_others_is_none_of_the_keepers(model, fit, tmp_path):
    class Also(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.save_weights(tmp_path / "also.weights.h5")

    callback = quick()
    fit(model(), callback, Score(1, 3, 2), saving(tmp_path / "best.keras"), Also(), epochs=3)

    assert (callback.baseline_.info["checkpoint"], callback.baseline_.info["epoch"]) == ("best.keras", 1)


def test_several_watch_one_model(model, tmp_path):
    trains, keepers = model(), [Keeper(), Keeper()]
    saves = [Saves(trains, keeper, Nothing) for keeper in keepers]
    for each in saves:
        each.start()
    keepers[1].save(trains, tmp_path / "a.keras")
    saves[0].stop()
    keepers[1].save(trains, tmp_path / "b.weights.h5")
    saves[1].stop()

    assert [each.last and each.last.name for each in saves] == [None, "b.weights.h5"]
    assert saves[1].last.holds(ModelWeights.of(trains))
    assert not {"save", "save_weights"} & trains.__dict__.keys()


class Nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


class Keeper:
    def save(self, model, path):
        model.save(path) if path.suffix == ".keras" else model.save_weights(path)


def test_weights_are_told_apart_but_for_rounding(model):
    trains = model()
    before = ModelWeights.of(trains)
    kernel = trains.get_layer("fc").kernel
    value = keras.ops.convert_to_numpy(kernel)

    kernel.assign(value + 1e-8)
    assert before.same_as(ModelWeights.of(trains))
    kernel.assign(value + 1e-4)
    assert before.same_as(ModelWeights.of(trains)) is False
    assert before.same_as(None) is None
    assert ModelWeights(before.weights).same_as(copy.deepcopy(before))
    assert not Saved("no such file", before, (1, 1)).holds(before)


def test_large_weights_are_sampled_on_the_device(monkeypatch):
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(400, name="wide")])
    kernel = keras.ops.convert_to_numpy(model.layers[0].kernel)
    weights = ModelWeights.of(model)

    assert [len(each) for each in weights.samples] == [256, 256]
    np.testing.assert_array_equal(weights.samples[0][:64], kernel.ravel()[:64])
    np.testing.assert_array_equal(weights.samples[0][-64:], kernel.ravel()[-64:])
