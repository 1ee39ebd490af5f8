"""Layers are found by the names a Keras user knows."""

from __future__ import annotations

import keras
import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.keras.layers import find_layer, is_linear, named_layers

layers = keras.layers


def backbone():
    return keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D(name="pool")], name="backbone"
    )


def nested():
    return keras.Sequential([keras.Input((16, 16, 3)), backbone(), layers.Dense(4, name="fc")], name="whole")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body = backbone()
        self.heads = [layers.Dense(3, name="left"), layers.Dense(4, name="right")]

    def call(self, x):
        return [head(self.body(x)) for head in self.heads]


def test_layers_inside_models_have_the_models_name_in_front():
    expected = ["backbone", "backbone/conv", "backbone/pool", "fc"]

    assert list(named_layers(nested())) == expected
    given = keras.Input((16, 16, 3))
    functional = keras.Model(given, layers.Dense(4, name="fc")(backbone()(given)))
    assert list(named_layers(functional)) == expected


def test_layers_of_unbuilt_and_of_subclassed_models_are_found():
    unbuilt = keras.Sequential([backbone(), layers.Dense(4, name="fc")])

    assert list(named_layers(unbuilt)) == ["backbone", "backbone/conv", "backbone/pool", "fc"]
    assert set(named_layers(Subclassed())) == {"backbone", "backbone/conv", "backbone/pool", "left", "right"}


@pytest.mark.parametrize("name", ["backbone/pool", "pool"])
def test_a_full_name_or_the_end_of_one_finds_a_layer(name):
    model = nested()
    found = find_layer(model, name)

    assert found.layer is model.get_layer("backbone").get_layer("pool")
    assert (found.path, found.name, found.before) == ("backbone/pool", "backbone/pool", False)


def test_what_goes_into_a_layer_is_asked_for_with_input_behind_its_name():
    found = find_layer(nested(), "conv.input")

    assert (found.path, found.name, found.before) == ("backbone/conv", "backbone/conv.input", True)


def test_a_name_that_is_not_there_is_refused_with_the_nearest_ones():
    with pytest.raises(InputError, match=r"no layer 'pol'; nearest: .*backbone/pool.*; it has backbone, .*fc"):
        find_layer(nested(), "pol")


def test_the_end_of_two_names_is_refused_with_both():
    inner = [keras.Sequential([layers.Flatten(name="pool")], name=name) for name in ("one", "two")]

    with pytest.raises(InputError, match=r"'pool' could be one/pool, two/pool: pass the full name"):
        find_layer(keras.Sequential(inner), "pool")


def test_only_a_dense_layer_without_an_activation_is_linear():
    assert is_linear(find_layer(nested(), "fc"))
    assert not is_linear(find_layer(nested(), "fc.input"))
    assert not is_linear(find_layer(nested(), "conv"))
    assert not is_linear(find_layer(keras.Sequential([layers.Dense(2, "relu", name="fc")]), "fc"))


@pytest.mark.parametrize(
    ("mode", "recomputed"),
    [({"mode": "full"}, True), ({"mode": "activations"}, False), (None, False)]
    + [({"mode": "list_of_layers", "layer_names": [name]}, name == "backbone") for name in ("backbone", "conv")],
)
def test_what_is_inside_a_recomputed_model_is_told_from_what_is_around_it(mode, recomputed):
    if mode is None:
        inner = backbone()
    else:
        with keras.RematScope(**mode):
            inner = backbone()
    found = named_layers(keras.Sequential([inner, layers.Dense(2, name="fc")]))

    assert not found["backbone"].recomputed
    assert found["backbone/pool"].recomputed == recomputed
    assert not found["fc"].recomputed


def test_in_a_model_that_is_recomputed_as_a_whole_every_layer_is():
    with keras.RematScope():
        model = nested()

    assert all(layer.recomputed for layer in named_layers(model).values())
