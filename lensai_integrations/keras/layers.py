"""Which layers of a Keras model are listened to, by name.

A layer inside a nested model or layer is `outer/inner`; the end of a name is enough where only one layer has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import keras

from lensai_integrations.errors import InputError
from lensai_integrations.keras.private import layers_in, remat_scope_of
from lensai_integrations.training.layers import INPUT, SeveralAlikeError, find_alike, find_named

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
        place: Its number among all layers of the model, and how many these are; (-1, 0) where that is not known.
    """

    path: str
    layer: Any
    before: bool = False
    recomputed: bool = False
    frames: bool = False
    place: tuple[int, int] = (-1, 0)

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
    layers = {layer.path: layer for layer in _walk(model, "", recomputed=_recomputes(model))}
    return {path: replace(layer, place=(n, len(layers))) for n, (path, layer) in enumerate(layers.items())}


def _walk(parent: Any, path: str, *, recomputed: bool, frames: bool = False) -> Iterator[Layer]:
    frames = frames or isinstance(parent, keras.layers.TimeDistributed)
    for child in _children(parent):
        inner = f"{path}{SEPARATOR}{child.name}" if path else child.name
        yield Layer(inner, child, recomputed=recomputed, frames=frames)
        yield from _walk(child, inner, recomputed=recomputed or _recomputes(child), frames=frames)


def _recomputes(layer: Any) -> bool:
    """Whether what is inside the layer runs again for the gradients."""
    scope = remat_scope_of(layer)
    if scope is None or scope.mode == "activations":
        return False
    return scope.mode != "list_of_layers" or layer.name in scope.layer_names


def _children(parent: Any) -> list[Any]:
    if isinstance(parent, keras.Sequential):
        return list(parent.layers)
    return [child for child in layers_in(parent, recursive=False) if _is_layer(child)]


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
    return replace(layers[path], before=before)


def layer_again(model: Any, name: str, place: Sequence[int] | None) -> tuple[Layer, str]:
    """The layer that a name of another model means here, where the model may have been built anew or be a part of it.

    Keras numbers the names that nobody gave by what else was built before, so such a name says less than its place.

    Args:
        model: The model.
        name: The full name in the other, with `.input` behind it or not.
        place: The layer's place there, as a baseline notes it, if that is known.

    Returns:
        The layer, and what is to be said of it, if anything.

    Raises:
        SeveralAlikeError: If several layers may be meant.
        InputError: If none may.

    Example:
        >>> model = keras.Sequential([keras.layers.Dense(2, name="dense_7"), keras.layers.Dense(2, name="dense_8")])
        >>> layer_again(model, "dense_2.input", (1, 2))[0].name
        'dense_8.input'
    """
    layers = named_layers(model)
    before, stem = name.endswith(INPUT), name.removesuffix(INPUT)
    alike = [layer for path, layer in layers.items() if _unnumbered(path) == _unnumbered(stem) and is_numbered(layer)]
    again = next((layer for layer in alike if place is not None and layer.place == tuple(place)), None)
    if again is not None:
        return replace(again, before=before), ""
    with suppress(InputError):
        return find_layer(model, name), ""
    if len(alike) > 1:
        raise SeveralAlikeError(
            f"layer {name!r} of the baseline could be {', '.join(layer.path for layer in alike)} here"
        )
    if alike:
        return replace(alike[0], before=before), ""
    path, before, sure = find_alike({path: layer.layer for path, layer in layers.items()}, name, SEPARATOR)
    found = replace(layers[path], before=before)
    return found, "" if sure else f"{found.name!r} is taken for {name!r} of the baseline, as only its name ends alike"


def _unnumbered(path: str) -> str:
    return SEPARATOR.join(re.sub(r"_\d+$", "", part) for part in path.split(SEPARATOR))


def is_numbered(layer: Layer) -> bool:
    """Whether Keras gave the layer its name: that of its class, and a number.

    Example:
        >>> is_numbered(Layer("fc", keras.layers.Dense(2, name="fc"))), is_numbered(Layer("", keras.layers.Dense(2)))
        (False, True)
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer.layer).__name__)
    own = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return _unnumbered(layer.layer.name) == own


def is_linear(layer: Layer) -> bool:
    """Whether the layer's answers are a linear map of its input: a `Dense` without an activation.

    Example:
        >>> is_linear(Layer("fc", keras.layers.Dense(2, activation="softmax")))
        False
    """
    dense = isinstance(layer.layer, keras.layers.Dense) and not layer.before
    return dense and layer.layer.activation in (None, keras.activations.linear)
