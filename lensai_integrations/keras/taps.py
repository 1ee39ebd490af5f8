"""What layers answer in the forward pass that runs anyway, caught while a step runs or is traced.

Keras shows a callback no layer's output. So the `call` of each wanted layer is replaced on the instance, and only while
a step of ours runs: in graph modes that is while it is traced, so that outside of steps the model is untouched.
What is caught are the backend's own tensors: symbolic in a graph, and handed out of it by the step (`steps_*.py`; what
steps have in common on all backends is at the end of this file).

A layer's first answer in a step counts, as with torch (`torch/taps.py`), but for those of `TimeDistributed`, which are
rows each. In the first step of a model whose `call` is its own, every layer is listened to until it has answered, to
see which of them make the answer (`answer.py`).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import keras
from keras import ops

from lensai_integrations.arrays.namespaces import half_precision
from lensai_integrations.errors import InputError
from lensai_integrations.keras.answer import Answer, arrays_in
from lensai_integrations.keras.layers import (
    SEPARATOR,
    Call,
    Layer,
    Made,
    activation_of,
    find_layer,
    graph_of,
    is_linear,
    is_numbered,
    made,
    named_layers,
    symbolic,
)
from lensai_integrations.keras.private import remat_scope_of
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import OUTPUTS, head_of
from lensai_integrations.training.options import Reading, unread_reductions
from lensai_integrations.training.recording import LAYER, Listened, reduce_name

#: Kinds of steps by the names that Keras gives them.
TRAIN, TEST, PREDICT = "train", "test", "predict"
#: Caught values of one step, by key.
Caught = dict[str, Any]
#: Picks what is wanted of a batch, which may be symbolic.
Pick = Callable[[Any], dict[str, Any]]
#: Takes what was picked and caught in a step.
Sink = Callable[[dict[str, Any]], None]
#: A context for what is done to profile a step, so that what it costs is known.
Spending = Callable[[], AbstractContextManager[Any]]
#: Called in the place of a layer's call, with that and its arguments.
Around = Callable[[Callable[..., Any], Any, Any], Any]
#: Calls whose tensors are held until a step's model has answered, where that takes memory.
_MOST_CALLS: Final = 64


@dataclass(frozen=True)
class Tap:
    """What is caught where.

    Attributes:
        key: Under which the answer is kept: `"outputs"` or `"embeddings/<layer>"`.
        layer: Where.
        reduce: From the answer to `[n, D]`; None keeps it as it is.
    """

    key: str
    layer: Layer
    reduce: Reduce | None = None


@dataclass(frozen=True)
class Feeding:
    """How what feeds a model's answer is kept as embeddings.

    Attributes:
        reduce_of: The reduction for a name.
        named: The names in a baseline, in its order; None to name an embedding after its layer.
        heads: The names of the heads' groups in a baseline, in its order; None for their own.
    """

    reduce_of: Callable[[str], Reduce]
    named: Sequence[str] | None = None
    heads: Sequence[str] | None = None


def _names_in(answer: Answer, groups_there: Sequence[str] | None) -> dict[str, str]:
    """By the group that a head is here, the group that it is in a baseline: that of its name, or of its layer's name.

    Else heads are those of the baseline in order, if there are as many.
    """
    groups_here = [answer.group_of(name) for name in answer.heads]
    if groups_there is None or set(groups_there) == set(groups_here):
        return dict(zip(groups_here, groups_here, strict=True))
    layers = [answer.info_of(name)["layer"].rpartition(SEPARATOR)[2] for name in answer.heads]
    for names in (list(answer.heads), layers):
        groups = [f"{OUTPUTS}/{name}" for name in names]
        if groups_here and len({*groups}) == len(groups_here) and {*groups} <= {*groups_there}:
            return dict(zip(groups_here, groups, strict=True))
    return dict(zip(groups_here, groups_there if len(groups_there) == len(groups_here) else groups_here, strict=True))


class Taps:
    """The layers of a model that are read, and the buffer of the step that runs.

    Args:
        taps: What to catch.
        problems: Where it is reported what cannot be caught.
        where: Tells where in which graph the caller is; what is caught elsewhere (inside a loop or a branch of the
            graph) cannot leave it.
        answer: What is known of the model's answer, if that or what feeds it is wanted; completed in the first step.
        feeding: How that is kept.

    Attributes:
        layers: What a recording has to know of them.
        heard: How many steps were listened to.
    """

    def __init__(
        self,
        taps: Sequence[Tap],
        problems: Problems,
        where: Callable[[], Any] = lambda: None,
        answer: Answer | None = None,
        feeding: Feeding | None = None,
    ) -> None:
        self._asked, self._taps, self._problems, self._place = list(taps), list(taps), problems, where
        self.answer, self._feeding = answer, feeding
        self._step = threading.local()  # replicas are traced in threads of their own
        self._lock = threading.RLock()
        self._running = 0
        self._undo: list[Callable[[], None]] = []
        self.layers = [Listened(tap.key, tap.layer.path, _info(tap) | self._told(tap)) for tap in taps]
        self.heard = 0
        if answer is not None and answer.settled:
            self._add_answer()

    def renamed(self) -> dict[str, str]:
        """By the name of a head's group in training the one that it has, see `Answer.renamed`."""
        return {} if self.answer is None else self.answer.renamed()

    def _told(self, tap: Tap) -> dict[str, Any]:
        """What the loss says of the layer that the user calls the outputs."""
        named = tap.key == OUTPUTS and self.answer is not None and not tap.layer.before
        return self.answer.told_of(tap.layer.layer) if named and self.answer is not None else {}

    def same_as(self, other: Taps) -> bool:
        """Whether the other reads the same of the same layers."""
        return bool(self._asks() == other._asks())

    def _asks(self) -> Any:
        answer = self.answer and (self.answer.outputs, self.answer.layers, self.answer.is_withdrawn)
        return answer, [(tap.key, id(tap.layer.layer), tap.layer.before, tap.reduce) for tap in self._asked]

    def begin_again(self) -> None:
        """Another fit of the same model begins: what was said and what the loss tells is said anew."""
        if self.answer is not None and self.answer.settled:
            self.answer.say_again()
            self._describe_heads()

    @contextmanager
    def listening(self, *, training: bool = False, labelled: bool | None = None) -> Iterator[Caught]:
        """While a step runs: a dict that fills with what the layers answer in this thread.

        Args:
            training: Whether the step trains. A model may answer otherwise then, with auxiliary heads for example.
            labelled: Whether the step is given labels; None if steps of its kind never are.
        """
        caught: Caught = {}
        step = self._step
        self.heard += 1
        step.caught, step.missed, step.place, step.training = caught, {}, self._place(), training
        step.labelled = labelled
        step.calls, step.frames, step.passes, step.first_pass = _calls(step.place), {}, 0, {}
        self._withdraw()
        self._patch(+1)
        try:
            yield caught
            for key, frames in step.frames.items():
                with self._problems.caught(key):
                    caught[key] = in_order(frames)
            self._report(tap for key, tap in step.missed.items() if key not in caught)
            if self.answer is not None and not step.passes:
                self.answer.never_called(list(step.calls))
        finally:
            self._patch(-1)
            step.caught = None
            step.calls.clear()

    def _withdraw(self) -> None:
        """Call nothing the answer any more if a step without labels shows that nothing tells."""
        with self._lock:
            wanted = self.answer is not None and self._step.labelled is False and not self._is_in_production()
            if wanted and self.answer is not None and self.answer.withdrawn():
                self._forget_answer()

    def _is_in_production(self) -> bool:
        """Whether a baseline tells what is an answer."""
        return self._feeding is not None and self._feeding.heads is not None

    def _patch(self, change: int) -> None:
        with self._lock:
            before, self._running = self._running, self._running + change
            if before == 0:
                self._undo = [_wrap(layer, around) for layer, around in self._wanted()]
            elif self._running == 0:
                for undo in reversed(self._undo):
                    undo()

    def _wanted(self) -> Iterator[tuple[Any, Around]]:
        """The layers that are listened to, and how."""
        if self.answer is not None:
            if not self.answer.settled or (self.answer.provisional and not self._step.training):
                for layer in named_layers(self.answer.model).values():
                    if not layer.recomputed:
                        yield layer.layer, partial(self._noted, layer.layer)
            yield self.answer.model, self._answered
        for tap in self._taps:
            yield tap.layer.layer, partial(self._tapped, tap)

    def _report(self, missed: Iterable[Tap]) -> None:
        for tap in missed:
            self._problems.note(
                tap.key,
                f"layer {tap.layer.path!r} runs inside a loop or a branch of the graph, whose values cannot be read:"
                " name a layer around it",
            )

    def _here(self) -> bool:
        """Whether the caller is in the step, and not in a loop of it, nor where Keras only finds out shapes."""
        return getattr(self._step, "caught", None) is not None and bool(self._place() == self._step.place)

    def _tapped(self, tap: Tap, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if tap.layer.before:
            self._catch(tap, (args, kwargs))
            return call(*args, **kwargs)
        answer = call(*args, **kwargs)
        self._catch(tap, answer)
        return answer

    def _noted(self, layer: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        answer = call(*args, **kwargs)
        if self._here():
            with self._problems.caught("the model's answer"):
                self._step.calls.append(Call(layer, arrays_in((args, kwargs)), arrays_in(answer)))
        return answer

    def _answered(self, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        answer = call(*args, **kwargs)
        if self._here():
            self._step.passes += 1
            if self._step.passes == 1:
                with self._problems.caught(OUTPUTS):
                    self._take(answer, (args, kwargs))
        return answer

    def _take(self, answer: Any, arguments: Any) -> None:
        """Keep the heads of the model's answer; the first time, find out what they are."""
        assert self.answer is not None
        step = self._step
        with self._lock:
            if self.answer.provisional and not step.training:
                self._confirm(answer)
            if not self.answer.settled:
                unlabelled = step.labelled is False and not self._is_in_production()
                training = step.training
                self.answer.found_in(answer, arguments, list(step.calls), training=training, unlabelled=unlabelled)
                for tap, fed in self._add_answer():
                    with self._problems.caught(tap.key):
                        self._keep(tap, _all_fed(fed, tap, list(step.calls)))
                self.answer.forget()
        if self.answer.outputs:
            for name, head in self.answer.read(answer, training=step.training).items():
                whole = Tap(self._names[name], Layer(self.answer.model.name, self.answer.model))
                step.caught[whole.key] = detached(reduced(head, whole))
                for layer in self.layers:
                    layer.info |= half_precision(head) if layer.key == whole.key else {}

    def _confirm(self, answer: Any) -> None:
        """The first answer that is not for training counts: if it has other heads, what was found before is dropped."""
        assert self.answer is not None
        if not self.answer.confirmed_by(answer):
            for tap in self._taps[len(self._asked) :]:
                for kept in (self._step.caught, self._step.frames, self._step.first_pass):
                    kept.pop(tap.key, None)
            self._forget_answer()

    def _forget_answer(self) -> None:
        self._taps = list(self._asked)
        del self.layers[len(self._asked) :]  # in place: recordings hold this list

    def _add_answer(self) -> list[tuple[Tap, Any]]:
        """Listen to what the answer was found to be from now on."""
        assert self.answer is not None
        assert self._feeding is not None
        answer, feeding, added = self.answer, self._feeding, []
        self._names = _names_in(answer, feeding.heads)
        renamed = {head: self._names[answer.group_of(head)] for head in answer.heads}
        answer.known_as = {head: head_of(name) for head, name in renamed.items() if name != answer.group_of(head)}
        self._describe_heads()
        for index, fed in enumerate(answer.embeddings if answer.layers else []):
            if feeding.named is not None and index >= len(feeding.named):
                break
            name = fed.layer.name if feeding.named is None else feeding.named[index]
            tap = Tap(LAYER + name, fed.layer, feeding.reduce_of(name))
            if can_be_read(tap, self._problems) and all(existing.key != tap.key for existing in self._taps):
                self._taps.append(tap)
                of = f" {', '.join(map(repr, fed.heads))}" if fed.heads != [""] else ""
                info = {"auto": True, "found": f"what goes into {fed.layer.path!r}, which the answer{of} comes from"}
                self.layers.append(Listened(tap.key, fed.layer.path, _info(tap) | info))
                added.append((tap, fed.tensor))
        return added

    def _describe_heads(self) -> None:
        assert self.answer is not None
        if not self.answer.outputs:
            return
        layers = {layer.key: layer for layer in self.layers}
        for name in self.answer.heads:
            key, info = self._names[self.answer.group_of(name)], self.answer.info_of(name)
            if key in layers:
                layers[key].info = info
            else:
                self.layers.append(Listened(key, info["layer"], info))

    def _catch(self, tap: Tap, answer: Any) -> None:
        if getattr(self._step, "caught", None) is None:
            return
        with self._problems.caught(tap.key):
            if self._place() != self._step.place:
                self._step.missed[tap.key] = tap  # a loop, or only Keras that builds the model and finds out shapes
                return
            if tap.key in self._step.caught and not tap.layer.frames:
                self._again(tap)
                return
            tensor = first_tensor(answer)
            if tensor is None:
                raise InputError(f"layer {tap.layer.path!r} has no tensor in what it answers")
            self._keep(tap, [tensor])

    def _keep(self, tap: Tap, tensors: Sequence[Any]) -> None:
        """Keep a layer's answer, or each of those that it gives by `TimeDistributed`."""
        rows = [detached(reduced(tensor, tap)) for tensor in tensors]
        if tap.layer.frames:
            self._step.frames.setdefault(tap.key, []).extend(rows)
        else:
            self._step.caught[tap.key] = rows[0]
            self._step.first_pass[tap.key] = self._step.passes
        for layer in self.layers:
            if layer.key == tap.key and tap.reduce is not None:
                layer.info |= {"axes": len(tensors[0].shape), **half_precision(tensors[0])}

    def _again(self, tap: Tap) -> None:
        """A layer answers once more: in the same pass of the model, it should be known which answer is read."""
        if self._step.first_pass.get(tap.key) == self._step.passes and self.answer is not None:
            self._problems.note(
                f"{tap.key}, several calls",
                f"layer {tap.layer.path!r} is called several times for a batch; its first answer is read, the others"
                " are not: name the layer that joins them to read all",
            )


def _calls(graph: Any) -> deque[Call]:
    """Room for the calls of a step: all in a graph, where tensors are symbols; else the last, as they take memory."""
    return deque(maxlen=None if graph is not None else _MOST_CALLS)


def _all_fed(fed: Any, tap: Tap, calls: Sequence[Call]) -> list[Any]:
    """What went into a layer in a step that has run: once, or by `TimeDistributed` several times."""
    if not tap.layer.frames:
        return [fed]
    return [call.given[0] for call in calls if call.layer is tap.layer.layer]


def in_order(frames: Sequence[Any]) -> Any:
    """The rows `[n, D]` of every frame as rows `[n * T, D]`: all of the first image first."""
    return ops.reshape(ops.stack(list(frames), axis=1), (-1, frames[0].shape[-1]))


def can_be_read(tap: Tap, problems: Problems) -> bool:
    """Whether a layer's values can be read at all; if not, that is a problem."""
    if tap.layer.recomputed:
        problems.note(
            tap.key,
            f"layer {tap.layer.path!r} is inside a keras.RematScope, where values are recomputed and cannot be read:"
            " name a layer around it",
        )
    return not tap.layer.recomputed


def _info(tap: Tap) -> dict[str, Any]:
    placed = tap.layer.place[1] and is_numbered(tap.layer)  # whose name says little in a model that is built anew
    return _form(tap) | ({"place": list(tap.layer.place)} if placed else {})


def _form(tap: Tap) -> dict[str, Any]:
    if tap.reduce is None:
        activation = None if tap.layer.before else activation_of(tap.layer.layer)
        ending = {"activation": activation} if activation in ("softmax", "sigmoid") else {}
        return {"layer": tap.layer.name, "linear": is_linear(tap.layer)} | ending
    return {"layer": tap.layer.name, "reduce": reduce_name(tap.reduce)}


def _wrap(layer: Any, around: Around) -> Callable[[], None]:
    """Put something around the call of a layer; what is returned undoes it."""
    method = _method(layer)
    original, beneath = getattr(layer, method), layer.__dict__.get(method)

    def call(*args: Any, **kwargs: Any) -> Any:
        return around(original, args, kwargs)

    def rematerialized_call(*outer_args: Any, **also: Any) -> Any:
        recomputing = original(*outer_args, **also)
        return lambda *args, **kwargs: around(recomputing, args, kwargs)

    def undo() -> None:
        layer.__dict__.pop(method, None)
        if beneath is not None:
            layer.__dict__[method] = beneath

    layer.__dict__[method] = rematerialized_call if method == "rematerialized_call" else call
    return undo


def _method(layer: Any) -> str:
    """What Keras calls of a layer: quantized ones have a call of their own, and under `keras.RematScope` values inside
    are recomputed, so there the call around it is watched."""
    if remat_scope_of(layer) is not None:
        return "rematerialized_call"
    return "call" if getattr(layer, "quantization_mode", None) is None else "quantized_call"


def reduced(tensor: Any, tap: Tap) -> Any:
    """A layer's answer as float32 `[n, D]` in the backend's library, in a graph or not; outputs keep their shape.

    Raises:
        InputError: If the reduction does not fit.
    """
    if callable(tap.reduce):
        return ops.cast(tap.reduce(tensor), "float32")
    tensor = ops.cast(tensor, "float32")
    axes = len(tensor.shape)
    if tap.reduce is None:
        return tensor
    if axes <= 2 or tap.reduce == "flatten":
        return ops.reshape(tensor, (-1, _product(tensor.shape[1:])))
    if tap.reduce == "cls":
        if axes != 3:
            raise InputError(f"reduce='cls' takes the first of tokens [n, T, D]; {tap.layer.path!r} has {axes} axes")
        return tensor[:, 0]
    within = tuple(range(1, axes - 1)) if axes == 3 or _channels_last(tap.layer.layer) else tuple(range(2, axes))
    return ops.max(tensor, axis=within) if tap.reduce == "max" else ops.mean(tensor, axis=within)


def _product(sizes: Sequence[int | None]) -> int:
    product = 1
    for size in sizes:
        product = -1 if size is None or product == -1 else product * size
    if product == -1:
        raise InputError(f"a layer's answer of unknown size {tuple(sizes)} cannot be flattened: pass reduce='mean'")
    return product


def _channels_last(layer: Any) -> bool:
    return str(getattr(layer, "data_format", None) or keras.config.image_data_format()) == "channels_last"


def detached(tensor: Any) -> Any:
    """The tensor apart from the gradients, and with torch a copy, since what comes next may work in place."""
    tensor = ops.stop_gradient(tensor)
    return tensor.clone() if keras.backend.backend() == "torch" else tensor


def first_tensor(answer: Any) -> Any:
    """The first tensor with rows in what a layer answers: itself, or in tuples, lists and mappings, depth first.

    Example:
        >>> import numpy as np
        >>> first_tensor(((), {"hidden": np.zeros((2, 3))})).shape
        (2, 3)
    """
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, list | tuple):
        return next((tensor for value in answer if (tensor := first_tensor(value)) is not None), None)
    shape = getattr(answer, "shape", None)
    return answer if shape is not None and len(shape) > 0 else None


def attach(model: Any, options: Reading, problems: Problems, where: Callable[[], Any] = lambda: None) -> Taps:
    """Taps on the layers that the options name, and on what the model answers if that is to be found.

    Raises:
        InputError: If the model has no layer of a given name, or `reduce` is given for a layer that is not read.
    """
    auto = options.layers == "auto"
    names = [] if auto or options.layers is None else list(options.layers)
    taps = [Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)) for name in names]
    if options.outputs not in (None, "auto"):
        named = find_layer(model, str(options.outputs))
        taps += [Tap(OUTPUTS, named), *(_before(model, named, options, problems) if auto else [])]
        auto = False
    answer = Answer(model, problems, outputs=options.outputs == "auto", layers=auto)
    readable = [tap for tap in taps if can_be_read(tap, problems)]
    attached = Taps(readable, problems, where, answer, Feeding(options.reduce_of))
    if answer.settled:
        read = {layer.key.removeprefix(LAYER) for layer in attached.layers if layer.key.startswith(LAYER)}
        read |= {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
        if problem := unread_reductions(options.reduce, read):
            raise InputError(problem)
    return attached


def _before(model: Any, outputs: Layer, options: Reading, problems: Problems) -> list[Tap]:
    """What feeds the layer that the user calls the outputs."""
    graph, how = graph_of(outputs.layer), Made()
    with suppress(AttributeError, ValueError):  # not built, or called several times
        how = made(outputs.layer.output if graph is None else graph.outputs[0], symbolic())
    sources = {id(origin.source) for origin in how.origins if origin.source is not None}
    feeding = list(
        {id(layer.layer): layer for layer in named_layers(model).values() if id(layer.layer) in sources}.values()
    )
    if not feeding and not outputs.before and outputs.layer.weights:
        feeding = [outputs]
    if not feeding:
        problems.note("layers", f"layers='auto' cannot tell what feeds {outputs.name!r}: pass layers=[...] or None")
        return []
    places = [Layer(layer.path, layer.layer, True, layer.recomputed, layer.frames) for layer in feeding]
    return [Tap(LAYER + tapped.name, tapped, options.reduce_of(tapped.name)) for tapped in places]


def tapped(step: Callable[..., Any], taps: Taps, kind: str) -> Callable[..., tuple[Any, Caught]]:
    """The step, which also returns what its layers answered."""

    def run(*arguments: Any) -> tuple[Any, Caught]:
        with taps.listening(training=kind == TRAIN, labelled=labelled(kind, arguments[-1])) as caught:
            result = step(*arguments)
        return result, caught

    return run


def labelled(kind: str, data: Any) -> bool | None:
    """Whether a step of this kind is given what may be labels, and no second view of the images; None if never.

    Example:
        >>> import numpy as np
        >>> views = np.zeros((2, 2, 8, 8, 3))
        >>> labelled(TRAIN, (views[0], [0, 1])), labelled(TEST, tuple(views)), labelled(PREDICT, (views[0],))
        (True, False, None)
    """
    if kind == PREDICT:
        return None
    _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return any(labels is not None and _axes(labels) < 3 for labels in keras.tree.flatten(y))


def _axes(values: Any) -> int:
    """How many axes a part of a batch has, symbolic ones too; 0 if that is not known."""
    shape = getattr(values, "shape", ())
    return int(shape.rank or 0) if hasattr(shape, "rank") else len(shape)  # TensorFlow's has no length if it is unknown


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A context in which an instance has another attribute, past Keras's own bookkeeping of attributes."""
    missing = object()
    before = owner.__dict__.get(name, missing)
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if before is missing:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = before


class NotProfiledError(Exception):
    """Our function failed before it has changed anything; its arguments are those to call the model's own with."""
