"""The callback's arguments: checked where they are given, and JSON there and back."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from lensai_integrations import ImageInputs
from lensai_integrations.errors import InputError
from lensai_integrations.keras import BaselineCallback

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
