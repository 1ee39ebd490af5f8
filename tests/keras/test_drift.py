"""A monitor beside predict and evaluate: it sees every row once, and changes and stops nothing. On every backend."""

from __future__ import annotations

import gc
import json

import keras
import numpy as np
import pytest
from snippets import run_section

from lensai_integrations import Baseline, DriftMonitor, Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback, DriftCallback, drift
from lensai_integrations.monitoring.sinks import FunctionSink
from lensai_integrations.training import drift as training_drift
from lensai_integrations.training.tracking import TrackedRun

GROUPS = ["inputs", "labels", "outputs", "embeddings/relu", "embeddings/embedding"]


@pytest.fixture
def trained(model, images):
    """A model, always with the same weights, and its baseline of 300 rows, measured by numpy: nothing is compiled."""
    trains, (pictures, labels) = model(), images(300, 1)
    layers = [trains.get_layer(name).output for name in ("relu", "embedding", "fc")]
    relu, embedding, logits = keras.Model(trains.inputs, layers).predict(pictures, batch_size=300, verbose=0)
    profiler = Profiler(source="validation", seed=1)
    profiler.describe("embeddings/relu", layer="relu", reduce="max", axes=4)
    profiler.describe("embeddings/embedding", layer="embedding", reduce="mean", axes=2)
    profiler.describe("outputs", layer="fc", linear=True)
    rows = {"relu": relu.max(axis=(1, 2)), "embedding": embedding}
    profiler.update(inputs=pictures, outputs=logits, embeddings=rows, labels=labels)
    return trains, Baseline(profiler.profile())


def levels(callback):
    return [(report.rows, report.level) for report in callback.reports_]


def functions(model):
    return model.predict_function, model.test_function


def test_predict_is_the_same_and_every_row_is_seen_once(trained, images, said, counts):
    model, baseline = trained
    pictures, _ = images(130, 5)
    expected = model.predict(pictures, batch_size=16, verbose=0)
    before = functions(model)
    callback = DriftCallback(baseline, window=50)
    found = model.predict(pictures, batch_size=16, verbose=0, callbacks=[callback])
    np.testing.assert_array_equal(found, expected)  # bit for bit
    assert functions(model) == before
    assert levels(callback) == [(50, "ok"), (50, "ok"), (30, "ok")]
    status = callback.monitor_.status
    assert (status.rows, status.failures, status.state) == (130, {}, "Completed")
    assert "production: 130 rows of prediction in 3 windows: 3 ok, 0 warning, 0 alarm." in said.messages

    model.predict(pictures * 0.3, batch_size=16, verbose=0, callbacks=[callback])
    assert [level for _, level in levels(callback)] == ["alarm"] * 3
    assert counts(callback.reports_[0].profile) == {name: 50 for name in GROUPS if name != "labels"}
    assert len([m for m in said.messages if m.startswith("production: alarm, window")]) == 3
    rows = callback.reports_[0].profile.rows.data["outputs"]
    logits = model.predict(pictures[:50] * 0.3, verbose=0)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.sort(rows, axis=0)[:, 0], np.sort(softmax[:, 0]), rtol=1e-4)


def test_evaluate_is_the_same_and_labels_count_too(trained, images, counts):
    model, baseline = trained
    pictures, labels = images(60, 5)
    expected = model.evaluate(pictures, labels, batch_size=16, verbose=0)
    callback = DriftCallback(baseline, window=60, warn=0.999, alarm=0.5)  # so that it keeps the profile
    assert model.evaluate(pictures * 1, labels, batch_size=16, verbose=0, callbacks=[callback]) == expected
    model.evaluate(pictures * 0.3, labels, batch_size=16, verbose=0, callbacks=[callback])
    (report,) = callback.reports_
    assert counts(report.profile) == dict.fromkeys(GROUPS, 60)
    assert callback.monitor_.status.failures == {}


def test_a_fit_is_not_monitored_and_a_later_pass_is(trained, images):
    model, baseline = trained
    callback = DriftCallback(baseline, window=50, flush=False)

    def fit(validation_data, epochs=1):
        """What stands in the frame of Keras's own, around a validation pass."""
        model.evaluate(*validation_data, verbose=0, callbacks=[callback])

    fit(images(30))
    assert (callback.reports_, callback.monitor_) == ([], None)
    for _ in range(2):
        model.predict(images(30)[0], verbose=0, callbacks=[callback])
    assert [rows for rows, _ in levels(callback)] == [50]


@pytest.mark.parametrize("first", [True, False])
def test_a_baseline_of_the_same_pass_stays_and_that_both_cannot_be_is_said(trained, images, first, warned):
    model, baseline = trained
    monitors, makes = DriftCallback(baseline, window=30), BaselineCallback(reference="prediction", clean_windows=0)
    model.predict(images(30)[0], verbose=0, callbacks=[makes, monitors] if first else [monitors, makes])

    assert (makes.baseline_ is not None, len(monitors.reports_)) == (first, 0 if first else 1)
    assert warned("predict steps: another callback of lensai_integrations reads these steps already")


@pytest.mark.backend("torch")
def test_layers_of_a_quantized_model_are_read(trained, images, warned):
    model, baseline = trained
    quantized = keras.models.clone_model(model)
    quantized.set_weights(model.get_weights())
    for layer in quantized.layers[-2:]:
        layer.quantize("int8")
    callback = DriftCallback(baseline, window=30, warn=0.999, alarm=0.5)
    quantized.predict(images(30)[0] * 0.3, verbose=0, callbacks=[callback])

    assert warned("answered nothing") == []
    assert "embeddings/embedding" in callback.reports_[0].profile.groups


def test_a_failing_monitor_is_not_noticed(trained, images, monkeypatch, warned):
    model, baseline = trained
    pictures, _ = images(30)
    expected = model.predict(pictures, verbose=0)
    callback = DriftCallback(baseline)
    for name in ("update", "flush"):
        monkeypatch.setattr(DriftMonitor, name, lambda *_, **__: 1 / 0)
    np.testing.assert_array_equal(model.predict(pictures, verbose=0, callbacks=[callback]), expected)
    assert len(warned("ZeroDivisionError")) == 2  # once for each


class Breaks(keras.callbacks.Callback):
    """Raises in the second batch."""

    def on_predict_batch_end(self, batch, logs=None):
        if batch == 1:
            raise RuntimeError("injected")


def test_a_failing_pass_is_a_failed_monitor(trained, model, images):
    another = model()  # where a callback of predict raises, Keras leaves a model on JAX without weights
    model, baseline = trained
    before = functions(model)
    callback = DriftCallback(baseline, window=50)
    with pytest.raises(RuntimeError, match="injected"):
        model.predict(images(64)[0], batch_size=16, verbose=0, callbacks=[callback, Breaks()])
    gc.collect()
    assert functions(model)[1] == before[1]
    assert type(model.predict_function).__name__ != "Guarded"
    status = callback.monitor_.status
    assert (status.state, status.rows) == ("Failed", 32)
    another.predict(images(64)[0], verbose=0, callbacks=[callback])
    assert (callback.monitor_.status.state, callback.monitor_.status.rows) == ("Completed", 96)


def test_a_model_without_the_layers_is_monitored_without_them(trained, images, warned, counts):
    _, baseline = trained
    layers = keras.layers
    other = keras.Sequential([keras.Input((16, 16, 3)), layers.GlobalMaxPooling2D(), layers.Rescaling(4.0)])
    callback = DriftCallback(baseline, window=50)
    other.predict(images(50)[0], verbose=0, callbacks=[callback])
    assert len(warned("the model has no layer")) == 2
    (report,) = callback.reports_
    assert report.report.tested > 0
    assert "outputs" not in report.profile.groups  # 3 outputs where the baseline has 4
    assert "outputs" in callback.monitor_.status.failures


def test_the_state_and_the_active_run(trained, images, tmp_path, monkeypatch):
    model, baseline = trained
    run, told = TrackedRun("0123", "http://nowhere"), []
    monkeypatch.setattr(drift, "active_run", lambda: run)
    sink = FunctionSink(told.append, types=["window"])
    monkeypatch.setattr(training_drift, "_mlflow_sink", lambda found: sink if found is run else None)
    callback = DriftCallback(baseline, window=20, state=tmp_path / "state")
    model.predict(images(50)[0], verbose=0, callbacks=[callback])
    assert [event.window["number"] for event in told] == [1, 2, 3]
    assert json.loads((tmp_path / "state" / "head.json").read_text())["rows"] == 50


@pytest.mark.backend("tensorflow")
def test_the_snippet_of_the_documentation(trained, images, capsys):
    model, baseline = trained
    baseline.save("lensai_baseline")
    run_section("monitoring.md", "Keras", {"model": model, "photos": images(130, 5)[0]})
    assert capsys.readouterr().out.splitlines()[-1] == "[(100, 'ok'), (30, 'ok')] Completed"


@pytest.mark.backend("tensorflow")
def test_the_baseline_of_an_evaluation_fits_the_next(model, images):
    trains, data = model(), images(200, 1)
    making = BaselineCallback(["relu", "embedding.input"], reduce={"relu": "max"}, reference="test", clean_windows=0)
    trains.evaluate(*data, batch_size=50, verbose=0, callbacks=[making])
    callback = DriftCallback(making.baseline_, window=100, alarm=0.5, warn=0.999)
    trains.evaluate(*images(100, 2), batch_size=50, verbose=0, callbacks=[callback])
    status = callback.monitor_.status
    assert (status.rows, status.windows, status.failures) == (100, 1, {})


class OfSpecies(keras.Model):
    """Its loss takes one of several parts of `y`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        y = y["species"] if isinstance(y, dict) else y
        return keras.losses.sparse_categorical_crossentropy(y, y_pred, from_logits=True)


def test_labels_are_where_those_of_the_baseline_were(images):
    """Of several, the usual name would be another one; a place in another framework's batches is none in `y`."""
    layers = keras.layers
    given = keras.Input((16, 16, 3))
    model = OfSpecies(given, layers.Dense(4, name="fc")(layers.GlobalMaxPooling2D()(given)))
    model.compile(run_eagerly=True)
    x, species = images(64)
    y = {"label": np.full(64, 3), "species": species}
    making = BaselineCallback(target="species", reference="test", clean_windows=0)
    model.evaluate(x, y, batch_size=64, verbose=0, callbacks=[making])
    expected = dict(making.baseline_.reference.groups["labels"].categories[""].top(9))
    assert len(expected) == 4

    def counted(baseline, y, **options):
        callback = DriftCallback(baseline, window=64, alarm=0.5, warn=0.999, **options)
        model.evaluate(x * 0.3, y, batch_size=64, verbose=0, callbacks=[callback])
        assert callback.monitor_.status.failures == {}
        (report,) = callback.reports_
        return dict(report.profile.groups["labels"].categories[""].top(9))

    assert counted(making.baseline_, y) == expected
    assert counted(making.baseline_, species) == expected
    assert counted(making.baseline_, y, target="label") == {"3": 64}
    elsewhere = Baseline(making.baseline_.reference, info={"made_by": {"lightning": "2"}})
    assert counted(elsewhere, y) == {"3": 64}


def test_wrong_arguments_raise(trained):
    with pytest.raises(InputError, match="window"):
        DriftCallback(trained[1], window=0)
    with pytest.raises(InputError, match="takes no windows"):
        DriftCallback(trained[1], windows=3)


@pytest.mark.parametrize("end", ["softmax", "sigmoid"])
def test_what_was_put_behind_the_model_of_the_baseline_is_said(end, images, model, warned):
    def level(predicts, baseline):
        callback = DriftCallback(baseline, window=64)
        predicts.predict(x, verbose=0, callbacks=[callback])
        return callback.reports_[0].level

    def made(predicts, **arguments):
        making = BaselineCallback(clean_windows=0, **arguments)
        predicts.predict(x, verbose=0, callbacks=[making])
        return making.baseline_

    trained, (x, _) = model(), images(64)
    given = keras.Input(x.shape[1:])
    deployed = keras.Model(given, keras.layers.Activation(end)(trained(given)))
    assert level(trained, made(trained)) == "ok"
    assert not warned("ends in a")

    assert level(deployed, made(trained)) == "alarm"
    assert len(warned(f"of the baseline are logits, but this model ends in a {end}")) == 1

    assert level(deployed, made(deployed)) == "ok"
    assert level(deployed, made(deployed, task="logits")) == "ok"
    assert level(deployed, made(deployed, outputs=trained.layers[-1].name)) == "ok"
    assert len(warned("ends in a")) == 1


def test_heads_are_told_apart_by_the_layers_that_make_them(said):
    """Of as many columns each: neither their width nor their order tells which is which."""
    given = keras.Input((4, 4, 3))
    features = keras.layers.Flatten()(given)
    kind, colour = (keras.layers.Dense(3, name=name)(features) for name in ("kind", "colour"))
    whole = keras.Model(given, {"kind": kind, "colour": colour})

    class Deployed(keras.Model):
        def __init__(self, heads):
            super().__init__()
            self.whole, self.heads = whole, heads

        def call(self, images):
            answer = self.whole(images)
            return tuple(answer[head] for head in self.heads) if len(self.heads) > 1 else answer[self.heads[0]]

    x = np.random.default_rng(0).random((32, 4, 4, 3), dtype=np.float32)
    labels = {"kind": np.zeros(32, int), "colour": np.arange(32) % 2 + 1}
    making = BaselineCallback(clean_windows=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    whole.compile("sgd", dict.fromkeys(labels, loss))
    whole.evaluate(x, labels, verbose=0, callbacks=[making])
    for deployed, heads in (
        (keras.Model(given, kind), ["kind"]),
        (keras.Model(given, {"colour": colour}), ["colour"]),
        (Deployed(["kind"]), ["kind"]),
        (Deployed(["kind", "colour"]), ["kind", "colour"]),
    ):
        alone = len(heads) == 1
        deployed.compile("sgd", loss if alone else [loss, loss])
        callback = DriftCallback(making.baseline_, window=32)
        y = labels[heads[0]] if alone else [labels[head] for head in heads]
        deployed.evaluate(x, y, verbose=0, callbacks=[callback])
        groups = callback.reports_[0].to_dict()["groups"]
        expected = [f"{group}/{head}" for group in ("labels", "outputs") for head in sorted(heads)]
        assert sorted(name for name in groups if name.startswith(("outputs", "labels"))) == expected
        assert not [name for name in groups if groups[name]["drift"]]
    assert not [message for message in said.messages if "not compared" in message]
