"""The layers of a Keras model by name, and which of them make a tensor.

A layer inside a nested model or layer is `outer/inner`; the end of a name is enough where only one layer has it.

From a head of the answer the way leads back to the layer with weights whose input is the embedding. In functional and
sequential models it is in the graph of symbolic tensors; elsewhere in the calls of a step, where what one layer answers
is the very object that the next one is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import keras

from lensai_integrations.errors import InputError
from lensai_integrations.keras.private import functional_of, given_to, history_of, layers_in, outputs_of, remat_scope_of
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
    return [child for child in layers_in(parent, recursive=False) if not isinstance(child, keras.layers.InputLayer)]


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


def layer_again(model: Any, name: str, position: Sequence[int] | None) -> tuple[Layer, str]:
    """The layer that a name of another model means here, where the model may have been built anew or be a part of it.

    Keras numbers the names that nobody gave by what else was built before, so such a name says less than its place.

    Args:
        model: The model.
        name: The full name in the other, with `.input` behind it or not.
        position: The layer's place there, as a baseline notes it, if that is known.

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
    again = next((layer for layer in alike if position is not None and layer.place == tuple(position)), None)
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
    match = replace(layers[path], before=before)
    return match, "" if sure else f"{match.name!r} is taken for {name!r} of the baseline, as only its name ends alike"


def _unnumbered(path: str) -> str:
    return SEPARATOR.join(re.sub(r"_\d+$", "", name) for name in path.split(SEPARATOR))


def is_numbered(layer: Layer) -> bool:
    """Whether Keras gave the layer its name: that of its class, and a number.

    Example:
        >>> is_numbered(Layer("fc", keras.layers.Dense(2, name="fc"))), is_numbered(Layer("", keras.layers.Dense(2)))
        (False, True)
    """
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer.layer).__name__)
    class_name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return _unnumbered(layer.layer.name) == class_name


def is_linear(layer: Layer) -> bool:
    """Whether the layer's answers are a linear map of its input: a `Dense` without an activation.

    Example:
        >>> is_linear(Layer("fc", keras.layers.Dense(2, activation="softmax")))
        False
    """
    dense = isinstance(layer.layer, keras.layers.Dense) and not layer.before
    return dense and layer.layer.activation in (None, keras.activations.linear)


@dataclass(frozen=True)
class Call:
    """A layer, or an operation between layers, and what it did once.

    Attributes:
        layer: The layer.
        given: The tensors that went in.
        answered: The tensors that came out.
        frames: Whether it is one of several such calls, by `TimeDistributed`.
    """

    layer: Any
    given: list[Any]
    answered: list[Any] = field(default_factory=list)
    frames: bool = False


#: From a tensor to the call that made it; None where that is not known.
Producer = Callable[[Any], Call | None]

#: Layers and operations that put numbers in another place or average them, and no more.
_PLAIN: Final = ("Flatten", "Reshape", "Permute", "Identity", "Dropout", "Rescaling", "Squeeze", "Transpose", "Mean")
_POOLS: Final = ("AveragePooling1D", "AveragePooling2D", "AveragePooling3D")
_LINEAR: Final = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D")
#: What joins the answers of several members to one: an ensemble, a wide and a deep part.
_JOINS: Final = ("Average", "Add", "Concatenate", "Stack")
#: Those behind which probabilities are still some.
_MEANS: Final = ("Average", "Stack")
_MOST_STEPS: Final = 1000


@dataclass(frozen=True)
class Made:
    """How a head of the answer is made.

    Attributes:
        maker: The layer whose answer the head is; None if operations between layers made it.
        source: The layer with weights that it comes from; None if it comes from several, or that is not known.
        fed: What goes into the source: heads that are fed by the same tensor have the same embedding.
        activation: `"linear"` if there is none, `"softmax"`, `"sigmoid"` and so on; None if that is not known.
        linear: Whether the head is a linear map of what goes into the source.
        frames: Whether the second axis are calls of the same layer (`TimeDistributed`).
        members: How each of several vectors is made that are joined to this one.
    """

    maker: Any = None
    source: Any = None
    fed: Any = None
    activation: str | None = None
    linear: bool = False
    frames: bool = False
    members: tuple[Made, ...] = ()

    @property
    def origins(self) -> list[Made]:
        """What it comes from: itself, or its members, each with a source."""
        return [origin for member in self.members for origin in member.origins] if self.members else [self]


def made(tensor: Any, producer: Producer) -> Made:
    """Walk back from a tensor through whatever has one input and no weights of its own, and into each member of a mean.

    Example:
        >>> inputs = keras.Input((4,))
        >>> answer = keras.layers.Softmax()(keras.layers.Dense(3, name="fc")(inputs))
        >>> head = made(answer, symbolic())
        >>> head.source.name, head.activation, head.fed is inputs
        ('fc', 'softmax', True)
    """
    so_far, linear = Made(), True
    for _ in range(_MOST_STEPS):
        call = producer(tensor)
        if call is None:
            break
        operation, inputs = call.layer, list({id(argument): argument for argument in call.given}.values())
        so_far = replace(so_far, frames=so_far.frames or call.frames)
        if so_far.maker is None and isinstance(operation, keras.layers.Layer):
            so_far = replace(so_far, maker=operation)
        activation = activation_of(operation)
        if so_far.activation is None and activation is not None:
            so_far = replace(so_far, activation=activation)
        linear = linear and activation in (None, "linear")
        if _has_weights(operation):
            fed = inputs[0] if len(inputs) == 1 else None
            return replace(so_far, source=operation, fed=fed, linear=linear and type(operation).__name__ in _LINEAR)
        if len(inputs) != 1:
            return _joined(replace(so_far, linear=linear), operation, inputs, producer)
        (tensor,) = inputs
    return so_far


def _joined(so_far: Made, operation: Any, inputs: Sequence[Any], producer: Producer) -> Made:
    """With the members that are joined, if all are known; maps and tokens that are joined are of a residual block."""
    unknown = replace(so_far, linear=False)
    if type(operation).__name__ not in _JOINS or any(len(tensor.shape) != 2 for tensor in inputs):
        return unknown
    members = tuple(made(tensor, producer) for tensor in inputs)
    origins = [origin for member in members for origin in member.origins]
    if any(origin.source is None for origin in origins):
        return unknown
    ends = {member.activation for member in members}
    keeps = so_far.activation is None and len(ends) == 1 and type(operation).__name__ in _MEANS
    linear = so_far.linear and all(member.linear for member in members)
    return replace(so_far, members=members, linear=linear, activation=ends.pop() if keeps else so_far.activation)


def activation_of(operation: Any) -> str | None:
    """The activation that an operation ends with: `"linear"` if none; None if it passes its input's on; `"other"`.

    Example:
        >>> activation_of(keras.layers.Dense(2)), activation_of(keras.layers.Flatten())
        ('linear', None)
    """
    name = type(operation).__name__
    if hasattr(operation, "activation") and callable(operation.activation):
        activation = str(getattr(operation.activation, "__name__", "other"))
        return None if activation == "linear" and isinstance(operation, keras.layers.Activation) else activation
    if name in (*_PLAIN, *_POOLS, *_JOINS) or name.startswith(("GlobalAverage", "SpatialDropout")):
        return None
    if name in _LINEAR:
        return "linear"
    return name.lower() if name in ("Softmax", "Sigmoid") else "other"


def is_whole(layer: Any) -> bool:
    """Whether a layer of somebody's own has layers with weights in it, and is no single step.

    Example:
        >>> is_whole(keras.layers.Dense(2))
        False
    """
    is_custom = not type(layer).__module__.startswith("keras.") or isinstance(layer, keras.Model)
    return is_custom and any(map(_has_weights, layers_in(layer, recursive=True)))


def _has_weights(operation: Any) -> bool:
    """Whether it has weights to answer with; a normalisation's only scale what passes."""
    if not isinstance(operation, keras.layers.Layer) or type(operation).__name__.endswith("Normalization"):
        return False
    return bool(operation.weights)


def graph_of(model: Any) -> Any:
    """The graph of symbolic tensors that calling a model goes through; None if its `call` is its own or unbuilt.

    Example:
        >>> graph_of(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])).outputs[0].shape
        (None, 2)
    """
    if isinstance(model, keras.Sequential):
        model = functional_of(model)
    own_call = not getattr(getattr(type(model), "call", None), "__module__", "").startswith("keras.")
    return None if own_call or outputs_of(model) is None else model


def symbolic() -> Producer:
    """What makes symbolic tensors, also inside of nested models.

    Example:
        >>> producer = symbolic()
        >>> producer(keras.Input((4,))) is None
        True
    """
    outside: dict[int, Any] = {}

    def brought(tensor: Any) -> Any:
        while id(tensor) in outside:
            tensor = outside[id(tensor)]
        return tensor

    def producer(tensor: Any) -> Call | None:
        history = history_of(brought(tensor))
        if history is None or isinstance(history.operation, keras.layers.InputLayer):
            return None
        operation, frames = history.operation, isinstance(history.operation, keras.layers.TimeDistributed)
        inputs = [brought(argument) for argument in given_to(history)]
        operation = operation.layer if frames else operation
        inner = graph_of(operation)
        if inner is None:
            return Call(operation, inputs, frames=frames)
        outside.update(
            {id(inside): outer for inside, outer in zip(inner.inputs, inputs, strict=False) if inside is not outer}
        )
        call = producer(inner.outputs[history.tensor_index])
        return call if call is None or not frames else replace(call, frames=True)

    return producer


def called(calls: Iterable[Call]) -> Producer:
    """What makes the tensors of a step, as its calls tell.

    Example:
        >>> import numpy as np
        >>> inputs, answer = np.zeros(2), np.ones(2)
        >>> called([Call("fc", [inputs], [answer])])(answer).layer
        'fc'
    """
    calls = list(calls)
    makers: dict[int, Call] = {}
    for call in calls:
        for tensor in call.answered:
            if all(tensor is not argument for argument in call.given):
                makers.setdefault(id(tensor), call)

    def producer(tensor: Any) -> Call | None:
        call = makers.get(id(tensor))
        if call is None or not isinstance(call.layer, keras.layers.TimeDistributed):
            return call
        frame = next((inner for inner in calls if inner.layer is call.layer.layer and inner.answered), call)
        return replace(producer(frame.answered[0]) or frame, frames=True)

    return producer


def alone_of_its_shape(answer: Any, calls: Sequence[Call]) -> Made:
    """The only layer with weights whose answers have the shape of the model's; nothing if there is none or several.

    Example:
        >>> alone_of_its_shape(keras.Input((3,)), []).source is None
        True
    """
    shape = tuple(answer.shape[1:])
    fits = {
        id(call.layer): call
        for call in calls
        if _has_weights(call.layer)
        and any(tuple(tensor.shape[1:]) == shape and len(tensor.shape) == len(answer.shape) for tensor in call.answered)
    }
    innermost = [call for call in fits.values() if not _holds_another(call.layer, fits)]
    if len(innermost) != 1:
        return Made()
    (call,) = innermost
    return Made(source=call.layer, fed=call.given[0] if len(call.given) == 1 else None)


def _holds_another(layer: Any, fits: dict[int, Call]) -> bool:
    inner = layers_in(layer, recursive=True)
    return any(id(inside) in fits for inside in inner)
