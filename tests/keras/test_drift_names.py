"""`DriftCallback` on a model that was built anew, or has its layers elsewhere: Keras's numbers in names mean little."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from lensai_integrations import Baseline, DriftMonitor, Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback, DriftCallback
from lensai_integrations.keras.layers import layer_again, named_layers
from lensai_integrations.keras.weights import ModelWeights


def built(more=0):
    """Always the same weights; Keras counts the names of its layers on."""
    keras.utils.set_random_seed(1)
    for _ in range(more):
        layers.Dense(1)
    parts = [
        layers.Rescaling(1.0),
        layers.GlobalAveragePooling2D(),
        layers.Dense(6, activation="relu"),
        layers.Dense(4),
    ]
    return keras.Sequential([keras.Input((8, 8, 3)), *parts])


def photos(n=60, seed=0):
    return np.random.default_rng(seed).random((n, 8, 8, 3), dtype=np.float32)


def fitted(model, **arguments):
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = BaselineCallback(clean_windows=0, directory="baseline", training=None, **arguments)
    data = photos(), np.arange(60) % 4
    model.fit(*data, validation_data=data, batch_size=60, verbose=0, callbacks=[callback])
    return Baseline.load("baseline")


def predicted(baseline, model, **arguments):
    """How many rows each group had, and the callback."""
    rows, monitor = [], DriftMonitor(baseline, window=60)
    callback = DriftCallback(monitor=monitor, log_to_mlflow=False, **arguments)
    update = monitor.update

    def told(**batch):
        rows.append({name: np.shape(each) for name, each in (batch.get("embeddings") or {}).items()})
        rows[-1] |= {"outputs": np.asarray(keras.ops.convert_to_numpy(batch["outputs"]))} if "outputs" in batch else {}
        return update(**batch)

    monitor.update = told
    model.predict(photos(), batch_size=60, verbose=0, callbacks=[callback])
    (seen,) = rows
    return seen, callback.monitor_


def test_a_model_built_again_is_read_where_it_was_whatever_its_layers_are_called(caplog):
    model = built()
    hidden, head = (model.layers[place].name for place in (2, 3))
    baseline = fitted(model, layers=[hidden, f"{head}.input", model.layers[1].name], outputs=head)
    again = built()
    again.set_weights(model.get_weights())
    assert again.layers[2].name not in (hidden, head)
    seen, monitor = predicted(baseline, again)
    pool = model.layers[1].name
    assert {name: seen[name] for name in (hidden, f"{head}.input", pool)} == {
        hidden: (60, 6), f"{head}.input": (60, 6), pool: (60, 3),
    }  # fmt: skip
    np.testing.assert_allclose(seen["outputs"], model.predict(photos(), verbose=0), rtol=1e-4, atol=1e-5)
    assert (monitor.status.failures, monitor.level) == ({}, "ok")
    assert caplog.text == ""


def test_the_place_counts_and_not_a_number_that_another_layer_has_now():
    """The hidden layer is called as the head was in training."""
    model = built()
    head = model.layers[3].name
    baseline = fitted(model, layers=[head])
    number = head.rpartition("_")[2]
    keras.utils.clear_session(free_memory=False)
    again = built(int(number))
    assert again.layers[2].name == head
    seen, _ = predicted(baseline, again)
    assert seen[head] == (60, 4)


def test_what_auto_found_is_found_again():
    model = built()
    baseline = fitted(model)
    again = built()
    again.set_weights(model.get_weights())
    seen, monitor = predicted(baseline, again)
    assert seen[f"{model.layers[3].name}.input"] == (60, 6)
    assert (monitor.status.failures, monitor.status.causes) == ({}, {})


def test_other_weights_than_the_baselines_are_said_once(caplog):
    model = built()
    made = fitted(model)
    weights = ModelWeights.of(model).weights
    made.reference.info["weights"] = weights.to_json()  # as a fit notes it
    assert predicted(made, model)[1].status.failures == {}
    other = built()
    _, monitor = predicted(made, other)
    assert monitor.status.failures == {"weights": 1}
    assert caplog.text.count("the model's weights are not those that the baseline was made with") == 1
    other.set_weights(model.get_weights())  # the advice
    assert predicted(made, other)[1].status.failures == {}
    made.info["made_by"] = {"pytorch_lightning": "2"}  # whose tensors have other shapes
    assert predicted(made, built())[1].status.failures == {}


def known(**layers_of):
    """A baseline of old, which notes no places."""
    profiler = Profiler(seed=0)
    rng = np.random.default_rng(0)
    for name, layer in layers_of.items():
        profiler.describe(f"embeddings/{name}", layer=layer, reduce="mean", axes=2)
    rows = {name: rng.normal(size=(60, 6)) for name in layers_of}
    profiler.update(outputs=rng.normal(size=(60, 4)), embeddings=rows)
    return Baseline(profiler.profile())


def test_without_a_place_several_are_named_and_the_advice_works(caplog):
    model, baseline = built(), known(hidden="dense_700")
    hidden, head = (model.layers[place].name for place in (2, 3))
    seen, monitor = predicted(baseline, model)
    assert "hidden" not in seen
    assert f"embeddings/hidden: layer 'dense_700' of the baseline could be {hidden}, {head} here: pass" in caplog.text
    assert "layers={'hidden': '...'} with the name of the layer here that is meant" in caplog.text
    assert "embeddings/hidden" in monitor.status.causes
    caplog.clear()
    seen, monitor = predicted(baseline, model, layers={"hidden": hidden}, outputs=head)
    assert (seen["hidden"], seen["outputs"].shape, monitor.status.causes) == ((60, 6), (60, 4), {})
    assert "of the baseline could be" not in caplog.text
    assert "outputs" not in predicted(baseline, model, outputs=False)[0]


@pytest.mark.parametrize(
    ("name", "place", "found"),
    [
        ("net/hidden", None, "app/net/hidden"),
        ("hidden.input", None, "app/net/hidden.input"),
        ("other/net/hidden", None, "app/net/hidden"),
        ("app/net/hidden", (0, 3), "app/net/hidden"),  # a name that somebody gave is what counts
    ],
)
def test_a_nested_model_is_matched_by_the_end_of_names(name, place, found):
    net = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="hidden")], name="net")
    app = keras.Sequential([keras.Input((3,)), keras.Sequential([net], name="app")])
    assert layer_again(app, name, place)[0].name == found
    assert list(named_layers(app)) == ["app", "app/net", "app/net/hidden"]


def test_names_that_cannot_be_meant_raise_or_are_said(caplog):
    baseline, model = known(hidden="hidden"), built()
    with pytest.raises(InputError, match="has 'pool', but the baseline has embeddings of 'hidden'"):
        DriftCallback(baseline, layers={"pool": "dense"})
    with pytest.raises(InputError, match="outputs=3 should be True, False, or the name of a layer"):
        DriftCallback(baseline, outputs=3)
    predicted(baseline, model)
    assert "embeddings/hidden: the model has no layer 'hidden'" in caplog.text
    predicted(baseline, model, layers=[model.layers[2].name])
    assert f"the baseline has no embeddings '{model.layers[2].name}', so these are held against nothing" in caplog.text
