"""What a model answers, in heads, and what feeds them: decided from its graph, or from the first step that runs.

The answer is what the model's `call` returns in the step that runs anyway. Where it is no answer of a classifier or a
regression (a picture like the one that went in, a map), or the step calls parts of the model and never the model
itself, nothing is called its outputs, and what there is to choose from is said. What the numbers of a head mean is
asked of the compiled loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import keras

from lensai_integrations.keras.layers import (
    Call,
    Layer,
    Made,
    alone_of_its_shape,
    called,
    graph_of,
    is_whole,
    made,
    named_layers,
    symbolic,
)
from lensai_integrations.keras.private import arguments_of, loss_given, metrics_given, outputs_of
from lensai_integrations.measures.outputs import heads_of
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import OUTPUTS

_MOST_LISTED: Final = 8
#: Keys that are the whole answer wherever they are, as `heads_of` has it.
_ALONE: Final = ("logits", "out")
#: Fewer numbers of a row than this are no picture, even if as many come out as went in.
_A_PICTURE: Final = 64


@dataclass(frozen=True)
class Fed:
    """What is the same for the embeddings of a model: what goes into a layer that heads come from.

    Attributes:
        layer: That layer, read before it.
        heads: The heads that come from it.
        tensor: What went into it in the step in which it was found; None if it was found in the graph.
    """

    layer: Layer
    heads: list[str]
    tensor: Any = None


@dataclass
class Answer:
    """What is known of what a model answers.

    Args:
        model: The model.
        problems: Where it is said what is not read.
        outputs: Whether the answer is wanted as outputs.
        layers: Whether what feeds it is wanted as embeddings.

    Attributes:
        settled: Whether it is known by now.
        provisional: Whether it is known from a step that trains only, where a model may have other heads.
        heads: The heads by name, in Keras's order, and how each is made; those that are read.
        embeddings: What feeds them.
        key: The key that the answer has, if it is one of a dict and the whole answer by its name.
        known_as: By head, the head that it is in a baseline, where that has another name or several.
        is_withdrawn: Whether steps showed that nothing tells what the heads are: another fit may have a loss.
    """

    model: Any
    problems: Problems
    outputs: bool = True
    layers: bool = True
    settled: bool = field(default=False, init=False)
    provisional: bool = field(default=False, init=False)
    heads: dict[str, Made] = field(default_factory=dict, init=False)
    embeddings: list[Fed] = field(default_factory=list, init=False)
    key: str = field(default="", init=False)
    known_as: dict[str, str] = field(default_factory=dict, init=False)
    is_withdrawn: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._notes: dict[str, str] = {}
        self._in_training: dict[str, tuple[str, Any]] = {}
        self._paths = {id(layer.layer): layer for layer in reversed(named_layers(self.model).values())}
        self._columns: dict[str, int | None] = {}
        graph = graph_of(self.model)
        if graph is not None:
            with self.problems.caught(OUTPUTS):
                self._settle_by(graph)
        self.settled = self.settled or not (self.outputs or self.layers)

    def _settle_by(self, graph: Any) -> None:
        """Settle it by the graph, unless a layer with layers of its own in it makes a head: a step shows these."""
        heads, producer = heads_in(outputs_of(graph), self.names), symbolic()
        self._say_aside(outputs_of(graph))
        origins = [origin for tensor in heads.values() for origin in made(tensor, producer).origins]
        if not any(origin.source is not None and is_whole(origin.source) for origin in origins):
            self.settle(heads, producer, graph.inputs, self._shapes())

    @property
    def names(self) -> Sequence[str]:
        """What Keras calls the outputs of a model that is a graph."""
        graph = graph_of(self.model)
        return list(getattr(graph, "output_names", ())) if graph is not None else ()

    @property
    def names_of_all(self) -> list[str]:
        """The heads, those too that are not read, in Keras's order."""
        return list(self._columns)

    @property
    def columns(self) -> list[int | None]:
        """How many numbers each head has that is read."""
        return [self._columns[name] for name in self.heads]

    def _shapes(self) -> dict[str, Any]:
        shapes = {}
        for path, layer in named_layers(self.model).items():
            graph = graph_of(layer.layer)
            with suppress(AttributeError, ValueError):  # of several calls, or of none
                shapes[path] = (layer.layer.output if graph is None else graph.outputs[0]).shape
        return shapes

    def _shapes_in(self, calls: Sequence[Call]) -> dict[str, Any]:
        shapes: dict[str, Any] = {}
        for call in calls:
            if call.answered and id(call.layer) in self._paths:
                shapes.setdefault(self._paths[id(call.layer)].path, call.answered[0].shape)
        return shapes

    def found_in(
        self, answer: Any, inputs: Any, calls: Sequence[Call], *, training: bool = False, unlabelled: bool = False
    ) -> None:
        """Settle it by a step: what the model answered and was given, and the calls of its layers.

        Args:
            answer: What the model answered.
            inputs: What it was given.
            calls: Of its layers.
            training: Whether the step trains.
            unlabelled: Whether the step could have been given labels, and was not.
        """
        self.provisional = training
        heads, producer = heads_in(answer, self.names), called(calls)
        self._say_aside(answer)
        shapes = self._shapes_in(calls)
        self.settle(heads, producer, arrays_in(inputs), shapes, calls, unlabelled=unlabelled)

    def confirmed_by(self, answer: Any) -> bool:
        """Whether an answer has the heads that were found; if not, it is open again what they are."""
        heads = {name: _columns(tensor) for name, tensor in heads_in(answer, self.names).items()}
        self.provisional = False
        if heads != self._columns:
            self._in_training = {name: (self.group_of(name), how.maker) for name, how in self.heads.items()}
            self.settled, self.heads, self.embeddings = False, {}, []
        return self.settled

    def renamed(self) -> dict[str, str]:
        """By the group that a head had in training, where a model has more of them, the one that it has: none is `""`.

        A head is the same if the same layer makes it.
        """
        makers = {id(how.maker): self.group_of(name) for name, how in self.heads.items() if how.maker is not None}
        return {group: makers.get(id(maker), "") for group, maker in self._in_training.values()}

    def withdrawn(self, calls: Sequence[Call] = ()) -> bool:
        """Of steps without labels: nothing is called outputs if no loss was compiled either and no activation tells."""
        ends = {how.activation for how in self.heads.values()}
        tells = not self.model.compiled or loss_given(self.model) is not None or ends & {"softmax", "sigmoid"}
        if tells or not (self.outputs and self.settled and self.heads):
            return False
        columns = " and ".join(str(self._columns[name]) for name in self.heads)
        self.heads, self.embeddings, self.is_withdrawn = {}, [], True
        choice = _choice(self._shapes_in(calls) or self._shapes())
        self._say(OUTPUTS, _NOTHING_TELLS.format(self.model.name, columns, choice))
        return True

    def settle(
        self,
        heads: Mapping[str, Any],
        producer: Callable[[Any], Call | None],
        inputs: Iterable[Any],
        shapes: Mapping[str, Any],
        calls: Sequence[Call] = (),
        *,
        unlabelled: bool = False,
    ) -> None:
        """Decide which heads are read, and what feeds them.

        Args:
            heads: The heads, as tensors with values or without.
            producer: What makes tensors.
            inputs: What the model is given.
            shapes: Of what layers answer, to choose from.
            calls: Of the layers in this step, if it is one.
            unlabelled: Whether that could have been given labels, and was not.
        """
        self.settled = True
        self._columns = {name: _columns(tensor) for name, tensor in heads.items()}
        losses = self._losses()
        inputs = list(inputs)
        sizes = {_size(model_input.shape) for model_input in inputs}
        for name, tensor in heads.items():
            how = made(tensor, producer)
            if not how.members and (how.source is None or is_whole(how.source)):
                inner = alone_of_its_shape(tensor, calls)
                how = how if inner.source is None else replace(how, source=inner.source, fed=inner.fed, linear=False)
            origins = [origin for origin in how.origins if all(origin.fed is not model_input for model_input in inputs)]
            how_read = "" if self._is_reconstruction(tensor, sizes, losses.get(name, {})) else _rows_of(tensor, how)
            if how_read == "":
                self._say(OUTPUTS, _RECONSTRUCTION.format(self.model.name, _shape(tensor.shape), _choice(shapes)))
                continue
            if how_read == "map":
                topic = f"{OUTPUTS}/{name}" if name else OUTPUTS
                self._say(topic, _MAP.format(_shape(tensor.shape), _choice(shapes)), outputs_only=True)
            else:
                self.heads[name] = how
            for origin in origins:
                self._feed(name, origin)
        if unlabelled and self.withdrawn(calls):
            return
        fed = {name for embedding in self.embeddings for name in embedding.heads}
        if any(name not in fed for name in self.heads):
            self._say("layers", _UNFED.format(_choice(shapes)), layers_only=True)

    def _say_aside(self, answer: Any) -> None:
        self.key = whole_by_name(answer)
        if aside := left_aside(answer):
            self._say(f"{OUTPUTS} aside", _ASIDE.format(" and ".join(map(repr, aside))), outputs_only=True)

    def _feed(self, name: str, how: Made) -> None:
        at = self._paths.get(id(how.source))
        if at is None or how.fed is None:
            return
        for embedding in self.embeddings:
            if embedding.layer.layer is at.layer or embedding.tensor is how.fed:
                embedding.heads.append(name)
                return
        self.embeddings.append(Fed(Layer(at.path, at.layer, True, at.recomputed, at.frames), [name], how.fed))

    def _is_reconstruction(self, tensor: Any, inputs: set[int | None], loss: Mapping[str, Any]) -> bool:
        size = _size(tensor.shape)
        return size is not None and size >= _A_PICTURE and size in inputs and loss.get("loss") != "cross_entropy"

    def never_called(self, calls: Sequence[Call]) -> None:
        """A step never called the model itself: whatever it called, say that."""
        if self.settled:
            return
        shapes = self._shapes_in(calls)
        shapes = shapes or self._shapes()
        self._say(OUTPUTS, _PARTS.format(type(self.model).__name__, _choice(shapes)))

    def _say(self, topic: str, text: str, *, outputs_only: bool = False, layers_only: bool = False) -> None:
        unwanted = not (self.outputs or self.layers)
        if unwanted or (outputs_only and not self.outputs) or (layers_only and not self.layers):
            return
        self._notes[topic] = text
        self.problems.note(topic, text)

    def forget(self) -> None:
        """Let go of the tensors of the step that settled it."""
        self.heads = {name: replace(how, fed=None, members=()) for name, how in self.heads.items()}
        self.embeddings = [replace(embedding, tensor=None) for embedding in self.embeddings]

    def say_again(self) -> None:
        """What was said of the model holds for another fit, too."""
        for topic, text in self._notes.items():
            self.problems.note(topic, text)

    def _losses(self) -> dict[str, dict[str, Any]]:
        """What the compiled loss says, by head."""
        losses = losses_of(self.model, {self._compiled_name(name): size for name, size in self._columns.items()})
        return {
            name: losses[compiled_name]
            for name in self._columns
            if (compiled_name := self._compiled_name(name)) in losses
        }

    def _compiled_name(self, name: str) -> str:
        """What losses and metrics call a head."""
        return self.key if self.key and list(self._columns) == [""] else name

    def held_against_nothing(self) -> list[str]:
        """The heads that nothing compares with labels, so far as that is known; of an answer not seen yet, `""`."""
        names = {self._compiled_name(name): name for name in self._columns} or {"": ""}
        return [names[name] for name in held_against_nothing(self.model, list(names))]

    @property
    def has_groups(self) -> bool:
        """Whether several heads are read, each as a group of its own that labels go with."""
        return self.outputs and len(self.heads) > 1

    def told_of(self, layer: Any) -> dict[str, Any]:
        """What the loss says of a layer's answers, if they are a head."""
        name = next((name for name, how in self.heads.items() if how.maker is layer), None)
        if name is None:
            return {}
        how, loss = self.heads[name], self._losses().get(name, {})
        return as_told(loss, {"linear": how.linear} | ({"activation": how.activation} if how.activation else {}))

    def info_of(self, name: str) -> dict[str, Any]:
        """What a profile notes of a head."""
        how, at = self.heads[name], self._paths.get(id(self.heads[name].maker))
        loss = self._losses().get(name, {})
        by = f", made by {at.path!r}" if at else ""
        info: dict[str, Any] = {
            "layer": at.path if at else self.model.name,
            "linear": how.linear,
            "auto": True,
            "columns": self._columns[name],
            "found": f"what the model returns{f' as {name!r}' if name else ''}{by}",
        }
        if how.activation in ("softmax", "sigmoid"):
            info["activation"] = how.activation
        return info | as_told(loss, info)

    def group_of(self, name: str) -> str:
        """The group of a head: one alone is the outputs, whatever else the model returns that is not read."""
        return f"{OUTPUTS}/{name}" if len(self.heads) > 1 else OUTPUTS

    def read(self, answer: Any, *, training: bool = False) -> dict[str, Any]:
        """The heads of an answer that are read, `[n, C]`, by their groups."""
        heads = heads_in(answer, self.names)
        for former, (_, maker) in self._in_training.items() if training else ():
            heads |= {name: heads[former] for name, how in self.heads.items() if how.maker is maker and former in heads}
        return {
            self.group_of(name): keras.ops.reshape(heads[name], (-1, heads[name].shape[-1]))
            if how.frames
            else heads[name]
            for name, how in self.heads.items()
            if name in heads
        }


_RECONSTRUCTION: Final = (
    "{} answers as many numbers as it is given, {}, as an autoencoder does: that is no answer to profile, so nothing is"
    " taken as its outputs or embedding. Pass layers=[the layer with the code], and outputs= a layer or None; {}"
)
_ASIDE: Final = (
    "the model returns {} beside what its name says is the answer, and only that is read: pass outputs= the name of"
    " another layer to read that instead"
)
_MAP: Final = (
    "the model answers {} for each image, a map or a sequence, which is not read yet: pass outputs= a layer that"
    " answers one vector per image, or outputs=None; {}"
)
_PARTS: Final = (
    "a step of {} calls layers and never the model itself, so which of their answers is the model's is not known, and"
    " nothing is taken as outputs or embedding. Pass outputs=None and layers=[layers whose answers are features], or"
    " outputs= the layer that answers; {}"
)
_NOTHING_TELLS: Final = (
    "{} answers {} numbers for each image, which no compiled loss and no y tell to be more than features: nothing is"
    " taken as outputs or embedding. Pass outputs=None and layers=[layers whose answers are features], or outputs= the"
    " layer that answers; {}"
)
_UNFED: Final = (
    "layers='auto' cannot tell what feeds the model's answer, which is made of several tensors or outside of layers:"
    " pass layers=[...] or None; {}"
)


def heads_in(answer: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """The tensors with rows in a structure, by key or place, or by Keras's names if there are as many; one alone is "".

    Example:
        >>> import numpy as np
        >>> list(heads_in({"b": np.zeros((2, 3)), "a": np.zeros((2, 1))})), list(heads_in([np.zeros((2, 3))]))
        (['a', 'b'], [''])
    """
    heads = heads_of(answer)
    if len(heads) == 1:  # a graph's list of one comes out of its call without the list
        return heads
    order = [".".join(map(str, path)) for path, _ in keras.tree.flatten_with_path(answer)]
    heads = {name: heads[name] for name in sorted(heads, key=lambda name: order.index(name) if name in order else 0)}
    if not isinstance(answer, list | tuple) or len(names) != len(heads) or len({*names} - {*_ALONE}) != len(names):
        return heads
    return dict(zip(names, heads.values(), strict=True))


def left_aside(answer: Any) -> list[str]:
    """What a dict has beside the one key that is the whole answer by its name.

    Example:
        >>> import numpy as np
        >>> left_aside({"logits": np.zeros((2, 3)), "box": np.zeros((2, 4)), "loss": np.float32(1)})
        ['box']
    """
    alone = whole_by_name(answer)
    return [str(key) for key, leaf in answer.items() if key != alone and arrays_in(leaf)] if alone else []


def whole_by_name(answer: Any) -> str:
    """The key of a dict that is the whole answer by its name; empty if there is none.

    Example:
        >>> whole_by_name({"out": 1, "aux": 2}), whole_by_name({"kind": 1})
        ('out', '')
    """
    return next((name for name in _ALONE if isinstance(answer, Mapping) and name in answer), "")


def arrays_in(structure: Any) -> list[Any]:
    """The tensors with rows in a structure.

    Example:
        >>> arrays_in((1, None))
        []
    """
    return [leaf for leaf in keras.tree.flatten(structure) if _has_rows(leaf)]


def _has_rows(leaf: Any) -> bool:
    shape = getattr(leaf, "shape", None)
    return shape is not None and len(shape) > 0


def _columns(tensor: Any) -> int | None:
    return int(tensor.shape[-1]) if len(tensor.shape) > 1 and tensor.shape[-1] is not None else 1


def _size(shape: Sequence[int | None]) -> int | None:
    """How many numbers a row has, if that is known."""
    size = 1
    for axis in shape[1:]:
        if axis is None:
            return None
        size *= int(axis)
    return size


def _rows_of(tensor: Any, how: Made) -> str:
    """`"rows"` if it is one vector for every image or frame, else `"map"`."""
    sizes = [size for size in tensor.shape[2 if how.frames else 1 :] if size != 1]
    return "rows" if len(sizes) <= 1 else "map"


def _shape(shape: Sequence[int | None]) -> str:
    return " x ".join("?" if size is None else str(size) for size in shape[1:]) or "1"


def _choice(shapes: Mapping[str, Any]) -> str:
    """The layers to choose from: those that answer a vector, and those that stand at the top."""
    vectors = {path: shape for path, shape in shapes.items() if len(shape) == 2}
    chosen = {path: shape for path, shape in shapes.items() if "/" not in path and path not in vectors} | vectors
    if len(chosen) > _MOST_LISTED:
        chosen = vectors or chosen
    listed = [f"{path!r} ({_shape(shape)})" for path, shape in list(chosen.items())[-_MOST_LISTED:]]
    return f"it has {', '.join(listed)}" if listed else "it has no layers that were seen"


_BINARY: Final = "binary_cross_entropy"
#: From a loss's class or function to what it says of the answer.
_MEANINGS: Final = {
    "SparseCategoricalCrossentropy": "cross_entropy",
    "CategoricalCrossentropy": "cross_entropy",
    "CategoricalFocalCrossentropy": "cross_entropy",
    "BinaryCrossentropy": _BINARY,
    "BinaryFocalCrossentropy": _BINARY,
    "MeanSquaredError": "squared",
    "MeanAbsoluteError": "squared",
    "MeanAbsolutePercentageError": "squared",
    "MeanSquaredLogarithmicError": "squared",
    "Huber": "squared",
    "LogCosh": "squared",
    "Hinge": "hinge",
    "SquaredHinge": "hinge",
}
_ONE_COLUMN: Final = "Crossentropy"


def losses_of(model: Any, heads: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """By head, the `loss` in the words of `Profiler.describe`, and whether it takes logits; without what is unknown.

    Args:
        model: The model, compiled or not.
        heads: The heads of the answer in Keras's order, and how many columns they have.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
        >>> losses_of(model, {"": 2})
        {'': {'loss': 'binary_cross_entropy_with_logits', 'from_logits': True}}
    """
    compiled = loss_given(model)
    described: dict[str, dict[str, Any]] = {}
    for position, (head, columns) in enumerate(heads.items() if compiled is not None else ()):
        meanings = [_meaning(loss, columns) for loss in _for_head(compiled, head, position, len(heads))]
        meanings = [meaning for meaning in meanings if meaning]
        if meanings and all(meaning == meanings[0] for meaning in meanings):
            described[head] = meanings[0]
    return described


def held_against_nothing(model: Any, heads: Sequence[str]) -> list[str]:
    """The heads that nothing which was compiled compares with labels: what `y` has for them need not be labels.

    None of them if the model is not compiled, or has a step or a loss of its own, which may compare anything.

    Args:
        model: The model.
        heads: The heads of the answer in Keras's order.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", loss={"kind": "mse", "features": None})
        >>> held_against_nothing(model, ["features", "kind"])
        ['features']
    """
    if not getattr(model, "compiled", False) or has_a_loss_of_its_own(model):
        return []
    return [
        head
        for position, head in enumerate(heads)
        if not any(
            _for_head(compiled, head, position, len(heads)) for compiled in (loss_given(model), *metrics_given(model))
        )
    ]


def has_a_loss_of_its_own(model: Any) -> bool:
    """Whether the model's class says itself what a step does or what its loss is.

    Example:
        >>> has_a_loss_of_its_own(keras.Sequential())
        False
    """
    methods = (getattr(type(model), name, None) for name in ("train_step", "test_step", "compute_loss"))
    return any(not str(getattr(method, "__module__", "keras.")).startswith("keras.") for method in methods)


def as_told(loss: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """What a loss adds to what is known of the layer: the loss, and where the layer says nothing, what it takes.

    Args:
        loss: As `losses_of` has it.
        layer: `linear` and `activation` of the layer, as far as they are known.

    Example:
        >>> as_told({"loss": "cross_entropy", "from_logits": True}, {"linear": False})
        {'loss': 'cross_entropy', 'linear': True}
        >>> as_told({"loss": "squared"}, {"linear": False})
        {'loss': 'squared'}
    """
    description = {"loss": loss["loss"]} if loss else {}
    if (
        description.get("loss") != "cross_entropy"
        or layer.get("linear")
        or layer.get("activation") in ("softmax", "sigmoid")
    ):
        return description
    return description | ({"linear": True} if loss["from_logits"] else {"activation": "softmax"})


def _for_head(compiled: Any, head: str, position: int, count: int) -> Sequence[Any]:
    """The losses of a head: there may be several."""
    if isinstance(compiled, Mapping):
        compiled = _of_path(compiled, head) if head else list(keras.tree.flatten(dict(compiled)))
    elif isinstance(compiled, list | tuple) and count > 1:
        compiled = compiled[position] if position < len(compiled) else None
    losses = compiled if isinstance(compiled, list | tuple) else [compiled]
    return [loss for loss in losses if loss is not None]


def _of_path(compiled: Mapping[str, Any], head: str) -> Any:
    """What a dict has for a head; of heads in dicts in dicts, as `"outer.inner"`."""
    if head in compiled or "." not in head:
        return compiled.get(head)
    outer, _, inner = head.partition(".")
    branch = compiled.get(outer)
    return _of_path(branch, inner) if isinstance(branch, Mapping) else branch


def _meaning(loss: Any, columns: int | None) -> dict[str, Any]:
    """What one loss says; empty for a function that is not Keras's."""
    name, from_logits = _name(loss)
    if name == _ONE_COLUMN:
        name = "BinaryCrossentropy" if columns == 1 else "CategoricalCrossentropy"
    meaning = _MEANINGS.get(name)
    if meaning is None:
        return {"loss": "other"} if hasattr(keras.losses, name) else {}
    if meaning in ("squared", "hinge"):
        return {"loss": meaning}
    suffix = "_with_logits" if from_logits and meaning == _BINARY else ""
    return {"loss": meaning + suffix, "from_logits": from_logits}


def _name(loss: Any) -> tuple[str, bool]:
    """The name of the class in `keras.losses` that a loss is one of, and whether it takes logits."""
    if isinstance(loss, str):
        if loss.lower() == _ONE_COLUMN.lower():
            return _ONE_COLUMN, False
        loss = keras.losses.get(loss)
    from_logits = bool(getattr(loss, "from_logits", False) or arguments_of(loss).get("from_logits", False))
    classes = type(loss).__mro__ if isinstance(loss, keras.losses.Loss) else ()
    for ancestor in classes:
        if ancestor.__name__ in _MEANINGS or (
            hasattr(keras.losses, ancestor.__name__) and ancestor is not keras.losses.Loss
        ):
            return ancestor.__name__, from_logits
    function = getattr(loss, "fn", loss)
    if str(getattr(function, "__module__", "")).startswith("keras."):
        return _class_of(str(getattr(function, "__name__", ""))), from_logits
    return "", from_logits


def _class_of(function: str) -> str:
    """`"mean_squared_error"` is what `MeanSquaredError` computes."""
    return "".join(word.capitalize() for word in function.split("_")) if "_" in function else function.capitalize()
