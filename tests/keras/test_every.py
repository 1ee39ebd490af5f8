"""One training batch in so many, on every backend: which, how many, and that nothing is traced again in between."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.keras import fit as keras_fit
from lensai_integrations.training.chosen import is_chosen
from lensai_integrations.training.recording import Recording

BATCHES, SIZE, DARKEST = 20, 8, 10
SEVERAL_STEPS = pytest.mark.backend("tensorflow", "jax")


def indices(every, epoch=0, batches=BATCHES, seed=0):
    return [index for index in range(batches) if is_chosen(index, every, seed=seed, epoch=epoch)]


def marked(batches=BATCHES):
    """Images all of whose pixels tell the number of their batch, and labels."""
    images = np.zeros((batches * SIZE, 16, 16, 3), np.float32)
    images += (DARKEST + np.arange(len(images)) // SIZE).reshape(-1, 1, 1, 1) / np.float32(255)
    return images, np.arange(len(images)) % 4


def numbers(profile):
    """The batches that a profile is of."""
    pixels = profile.groups["inputs"].pixels.counts[0]
    assert set(pixels[pixels > 0]) == {SIZE * 256}
    return [int(value) - DARKEST for value in np.flatnonzero(pixels)]


@pytest.fixture
def run(fit, model):
    """`run(callback, ...)`: a fit of batches that can be told apart."""

    def run(callback, *others, trains=None, compile_arguments=None, **arguments):
        trains = trains or model(**(compile_arguments or {}))
        given = {"validation_data": marked(2), "batch_size": SIZE, "shuffle": False, **arguments}
        fit(trains, callback, *others, data=marked(), **given)
        return callback.baseline_

    return run


def test_the_batches_are_those_of_the_last_epoch_and_the_reference_is_whole(run):
    every = 3
    baseline = run(BaselineCallback(every=every, clean_windows=0), epochs=2)
    expected = indices(every, epoch=1)

    assert numbers(baseline.training) == expected
    assert {group.n for group in baseline.training.groups.values()} == {SIZE * len(expected)}
    assert baseline.training.info["batches"] == {"profiled": len(expected), "of": BATCHES, "every": every}
    assert numbers(baseline.reference) == [0, 1]
    assert "batches" not in baseline.reference.info
    assert baseline.warnings == []


def test_without_it_nothing_is_said(run):
    baseline = run(BaselineCallback(clean_windows=0), epochs=1)

    assert numbers(baseline.training) == [*range(BATCHES)]
    assert "batches" not in baseline.training.info


@SEVERAL_STEPS
def test_what_one_call_executes_is_profiled_or_not_as_one(run):
    baseline = run(BaselineCallback(every=2, clean_windows=0), compile_arguments={"steps_per_execution": 3}, epochs=1)
    calls = indices(2, batches=7)

    assert numbers(baseline.training) == [batch for batch in range(BATCHES) if batch // 3 in calls]
    assert baseline.training.info["batches"] == {"profiled": len(calls), "of": 7, "every": 2, "together": 3}
    assert baseline.warnings == []


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_data_set_without_a_length_is_counted_to_its_end(run, fit, model):
    def batches():
        images, labels = marked(11)
        for start in range(0, len(images), SIZE):
            yield images[start : start + SIZE], labels[start : start + SIZE]

    callback = BaselineCallback(every=3, clean_windows=0)
    trains = model()
    trains.fit(batches(), validation_data=marked(2), epochs=1, verbose=0, shuffle=False, callbacks=[callback])

    assert numbers(callback.baseline_.training) == indices(3, batches=11)
    assert callback.baseline_.training.info["batches"] == {
        "profiled": len(indices(3, batches=11)),
        "of": 11,
        "every": 3,
    }


@pytest.mark.parametrize(
    "arguments",
    [{"every": 2}, {"every": 3, "training": "all", "layers": ["embedding"]}, {"cost": 0.02, "training": "all"}],
    ids=str,
)
def test_training_is_bit_identical(alike, model, arguments):
    alike(model, BaselineCallback(clean_windows=0, **arguments), epochs=2)


@SEVERAL_STEPS
def test_training_is_bit_identical_with_several_steps_in_a_call(alike, model):
    callback = BaselineCallback(clean_windows=0, every=2, training="all")
    alike(model, callback, compile_arguments={"steps_per_execution": 2}, epochs=2)


@SEVERAL_STEPS
def test_both_functions_are_traced_once(run, model):
    """The model's own and ours, however often they take turns: Python code of a model runs where it is traced."""
    traced = []

    class Counting(keras.layers.Layer):
        def call(self, images, training=False):
            traced.append(training)
            return images

    def counted():
        trains = model()
        layers = [*trains.layers[:-1], Counting(), trains.layers[-1]]
        return keras.Sequential([keras.Input((16, 16, 3)), *layers])

    def compiled():
        trains = counted()
        trains.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        trains.evaluate(*marked(2), batch_size=SIZE, verbose=0)
        traced.clear()
        return trains

    given = {"validation_data": None, "epochs": 3}
    compiled_once = compiled()
    compiled_once.fit(*marked(), batch_size=SIZE, epochs=1, verbose=0)
    once = traced.count(True)
    assert once >= 1
    run(BaselineCallback(every=4, training="inputs", clean_windows=0, reference="test"), trains=compiled(), **given)
    assert traced.count(True) == 2 * once


def test_a_resumed_fit_profiles_what_it_would_have(run, model, tmp_path):
    class Stops(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if self.params["epochs"] == 3 and self.epoch == 2 and batch == 5:
                raise RuntimeError("stopped")

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    with pytest.raises(RuntimeError, match="stopped"):
        run(BaselineCallback(every=4, clean_windows=0), backup(), Stops(), epochs=3)
    baseline = run(BaselineCallback(every=4, clean_windows=0), backup(), epochs=3)

    assert numbers(baseline.training) == indices(4, epoch=2)
    assert baseline.training.info["batches"]["of"] == BATCHES


def test_of_the_others_nothing_is_read(run, monkeypatch):
    read, take = [], Recording.take

    def taking(recording, batch):
        read.append(recording.source)
        return take(recording, batch)

    monkeypatch.setattr(Recording, "take", taking)
    run(BaselineCallback(every=5, clean_windows=0), epochs=1)

    assert read.count("training") == len(indices(5)) == 4
    assert read.count("validation") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 8, "reference": "training"}, "every=8 is of a training profile beside the reference"),
        ({"cost": 0.02, "training": None}, "cost=0.02 is of training batches, of which training=None profiles none"),
        ({"every": 0}, "every=0 should be a whole number from 1"),
        ({"cost": 1}, "cost=1 should be a share of training time between 0 and 1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        BaselineCallback(**arguments)


@SEVERAL_STEPS
def test_processes_that_train_together_take_no_time_of_their_own(run, monkeypatch):
    monkeypatch.setattr(keras_fit.steps(), "processes", lambda model: 2)
    with pytest.raises(InputError, match=r"cost=0\.02 is measured by every process by itself, and 2 train this model"):
        run(BaselineCallback(cost=0.02, clean_windows=0), epochs=1)
    assert numbers(run(BaselineCallback(every=4, clean_windows=0), epochs=1).training) == indices(4)


@pytest.mark.backend("tensorflow")
@pytest.mark.parametrize(("cluster", "processes"), [({"worker": ["a:1", "b:1"]}, 2), ({"chief": ["a:1"]}, 1)])
def test_workers_are_counted(monkeypatch, cluster, processes):
    import tensorflow as tf

    class Strategy:
        cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({**cluster, "evaluator": ["c:1"]})
        )

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Strategy)
    steps = keras_fit.steps()
    assert steps.processes(type("Model", (), {"distribute_strategy": Strategy()})()) == processes
    assert steps.processes(keras.Sequential()) == 1


def test_where_nothing_is_held_out_the_training_data_is_whole(run):
    baseline = run(BaselineCallback(every=4, clean_windows=0), validation_data=None, epochs=1)

    assert numbers(baseline.reference) == [*range(BATCHES)]
    assert any("every=4 is not followed" in warning for warning in baseline.warnings)


def test_a_callback_is_made_again_from_its_configuration():
    config = BaselineCallback(every=4, cost=0.02).get_config()

    assert (config["every"], config["cost"]) == (4, 0.02)
    assert BaselineCallback.from_config(config).get_config() == config


class Clock:
    """A clock that steps and what profiles wind."""

    def __init__(self, *, runs_ahead):
        self.now, self.runs_ahead = 0.0, runs_ahead

    def mark(self):
        return self.now

    def between(self, first, second):
        return second - first


@pytest.mark.parametrize(("cost", "every"), [(0.1, 1), (0.7, 4)])
def test_a_cost_chooses_how_many(run, monkeypatch, cost, every):
    backend = keras_fit.steps()
    clock = Clock(runs_ahead=backend.clock(keras.Sequential()).runs_ahead)
    record, ended = Recording.record, keras_fit.KerasFit._ended

    def recording(self, *arguments):
        clock.now += cost * (self.source == "training")
        return record(self, *arguments)

    def ending(self, kind, *, profiled):
        clock.now += 10
        ended(self, kind, profiled=profiled)

    monkeypatch.setattr(Recording, "record", recording)
    monkeypatch.setattr(keras_fit.KerasFit, "_ended", ending)
    monkeypatch.setattr(backend, "clock", lambda model: clock)
    baseline = run(BaselineCallback(cost=0.02, rows=0, clean_windows=0), epochs=14)
    batches = baseline.training.info["batches"]

    assert batches["every"] == every
    assert batches["of"] == BATCHES
    assert batches["cost"] == 0.02
    assert batches["share"] == pytest.approx(cost / (every * 10 + cost), rel=0.1)
