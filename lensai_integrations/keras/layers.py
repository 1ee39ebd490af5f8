"""Which layers of a Keras model are listened to, by name.

A layer inside a nested model or layer is `outer/inner`; the end of a name is enough where only one layer has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras

from lensai_integrations.training.naming import INPUT, find_named

SEPARATOR = "/"


@dataclass(frozen=True)
class Layer:
    """One place in a model whose values are read.

    Attributes:
        path: The layer's full name.
        layer: The Keras layer.
        before: Whether what goes into the layer is read, instead of what comes out.
        recomputed: Whether it runs inside something that is recomputed for the gradients (`keras.RematScope`), where
            values cannot be read.
        frames: Whether it runs inside `TimeDistributed`, once for every step of time: all of these are rows.
    """

    path: str
    layer: Any
    before: bool = False
    recomputed: bool = False
    frames: bool = False

    @property
    def name(self) -> str:
        """The full name, with `.input` behind if that is what is read."""
        return self.path + (INPUT if self.before else "")


def named_layers(model: Any) -> dict[str, Layer]:
    """All layers below the model, by full name.

    Example:
        >>> inner = keras.Sequential([keras.layers.Dense(2, name="fc")], name="inner")
        >>> list(named_layers(keras.Sequential([inner])))
        ['inner', 'inner/fc']
    """
    return {layer.path: layer for layer in _walk(model, "", recomputed=_recomputes(model))}


def _walk(parent: Any, path: str, *, recomputed: bool, frames: bool = False) -> Iterator[Layer]:
    frames = frames or isinstance(parent, keras.layers.TimeDistributed)
    for child in _children(parent):
        inner = f"{path}{SEPARATOR}{child.name}" if path else child.name
        yield Layer(inner, child, recomputed=recomputed, frames=frames)
        yield from _walk(child, inner, recomputed=recomputed or _recomputes(child), frames=frames)


def _recomputes(layer: Any) -> bool:
    """Whether what is inside the layer runs again for the gradients."""
    scope = getattr(layer, "_remat_mode", None)
    if scope is None or scope.mode == "activations":
        return False
    return scope.mode != "list_of_layers" or layer.name in scope.layer_names


def _children(parent: Any) -> list[Any]:
    if isinstance(parent, keras.Sequential):
        return list(parent.layers)
    return [child for child in parent._flatten_layers(include_self=False, recursive=False) if _is_layer(child)]


def _is_layer(child: Any) -> bool:
    return not isinstance(child, keras.layers.InputLayer)


def find_layer(model: Any, name: str) -> Layer:
    """The layer of a name: a full name, the end of one if only one layer has it, or either with `.input` behind.

    Raises:
        InputError: If there is no such layer, or several; the message has the nearest names and those that exist.

    Example:
        >>> find_layer(keras.Sequential([keras.layers.Dense(2, name="fc")]), "fc.input").before
        True
    """
    layers = named_layers(model)
    path, before = find_named({path: layer.layer for path, layer in layers.items()}, name, SEPARATOR)
    found = layers[path]
    return Layer(found.path, found.layer, before, found.recomputed, found.frames)


def is_linear(layer: Layer) -> bool:
    """Whether the layer's answers are a linear map of its input: a `Dense` without an activation.

    Example:
        >>> is_linear(Layer("fc", keras.layers.Dense(2, activation="softmax")))
        False
    """
    dense = isinstance(layer.layer, keras.layers.Dense) and not layer.before
    return dense and layer.layer.activation in (None, keras.activations.linear)
