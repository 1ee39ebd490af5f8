"""What layers answer in the forward pass that runs anyway, caught while a step runs or is traced.

Keras shows a callback no layer's output. So the `call` of each wanted layer is replaced on the instance, and only while
a step of ours runs: in graph modes that is while it is traced, so that outside of steps the model is untouched.
What is caught are the backend's own tensors: symbolic in a graph, and handed out of it by the step (`steps_*.py`).

A layer's first answer in a step counts, as in the Lightning adapter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from lensai_integrations.errors import InputError
from lensai_integrations.keras.layers import Layer, is_linear
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.training.problems import Problems
from lensai_integrations.training.recording import Listened, reduce_name

#: Caught values of one step, by key.
Caught = dict[str, Any]


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


class Taps:
    """The layers of a model that are read, and the buffer of the step that runs.

    Args:
        taps: What to catch.
        problems: Where it is reported what cannot be caught.
        place: Tells where in which graph the caller is; what is caught elsewhere (inside a loop or a branch of the
            graph) cannot leave it.

    Attributes:
        layers: What a recording has to know of them.
    """

    def __init__(self, taps: Sequence[Tap], problems: Problems, place: Callable[[], Any] = lambda: None) -> None:
        self._taps, self._problems, self._place = list(taps), problems, place
        self._step = threading.local()  # replicas are traced in threads of their own
        self._lock = threading.Lock()
        self._running = 0
        self.layers = [Listened(tap.key, tap.layer.path, _info(tap)) for tap in taps]

    def same_as(self, other: Taps) -> bool:
        """Whether the other reads the same of the same layers."""
        return [(tap.key, id(tap.layer.layer), tap.layer.before, tap.reduce) for tap in self._taps] == [
            (tap.key, id(tap.layer.layer), tap.layer.before, tap.reduce) for tap in other._taps
        ]

    @contextmanager
    def listening(self) -> Iterator[Caught]:
        """While a step runs: a dict that fills with what the layers answer in this thread."""
        caught: Caught = {}
        missed: dict[str, Tap] = {}
        self._step.caught, self._step.missed, self._step.place = caught, missed, self._place()
        self._patch(+1)
        try:
            yield caught
            self._report(tap for key, tap in missed.items() if key not in caught)
        finally:
            self._patch(-1)
            self._step.caught = None

    def _patch(self, change: int) -> None:
        with self._lock:
            before, self._running = self._running, self._running + change
            if before == 0:
                for tap in self._taps:
                    _wrap(tap, self._catch)
            elif self._running == 0:
                for tap in self._taps:
                    _unwrap(tap)

    def _report(self, missed: Iterable[Tap]) -> None:
        for tap in missed:
            self._problems.note(
                tap.key,
                f"layer {tap.layer.path!r} runs inside a loop or a branch of the graph, whose values cannot be read:"
                " name a layer around it",
            )

    def _catch(self, tap: Tap, answer: Any) -> None:
        caught = getattr(self._step, "caught", None)
        if caught is None or tap.key in caught:
            return
        with self._problems.caught(tap.key):
            if self._place() != self._step.place:
                self._step.missed[tap.key] = tap  # a loop, or only Keras that builds the model and finds out shapes
                return
            tensor = first_tensor(answer)
            if tensor is None:
                raise InputError(f"layer {tap.layer.path!r} has no tensor in what it answers")
            caught[tap.key] = held(reduced(tensor, tap))
            for layer in self.layers:
                if layer.key == tap.key and tap.reduce is not None:
                    layer.info["axes"] = len(tensor.shape)


def _info(tap: Tap) -> dict[str, Any]:
    if tap.reduce is None:
        return {"layer": tap.layer.name, "linear": is_linear(tap.layer)}
    return {"layer": tap.layer.name, "reduce": reduce_name(tap.reduce)}


def _wrap(tap: Tap, catch: Callable[[Tap, Any], None]) -> None:
    layer = tap.layer.layer
    method = _method(layer)
    original = getattr(layer, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        return _seen(tap, original, catch, args, kwargs)

    def rematerialized_call(*given: Any, **also: Any) -> Any:
        recomputing = original(*given, **also)
        return lambda *args, **kwargs: _seen(tap, recomputing, catch, args, kwargs)

    wrapped: Any = call if method == "call" else rematerialized_call
    wrapped.__dict__["_beneath"] = layer.__dict__.get(method)
    layer.__dict__[method] = wrapped


def _unwrap(tap: Tap) -> None:
    layer = tap.layer.layer
    wrapped = layer.__dict__.pop(_method(layer), None)
    beneath = getattr(wrapped, "_beneath", None)
    if beneath is not None:
        layer.__dict__[_method(layer)] = beneath


def _method(layer: Any) -> str:
    """Under `keras.RematScope` values inside `call` are recomputed, so there the call around it is watched."""
    return "call" if getattr(layer, "_remat_mode", None) is None else "rematerialized_call"


def _seen(tap: Tap, call: Callable[..., Any], catch: Callable[[Tap, Any], None], args: Any, kwargs: Any) -> Any:
    if tap.layer.before:
        catch(tap, (args, kwargs))
        return call(*args, **kwargs)
    answer = call(*args, **kwargs)
    catch(tap, answer)
    return answer


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


def held(tensor: Any) -> Any:
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
        return next((found for part in answer if (found := first_tensor(part)) is not None), None)
    shape = getattr(answer, "shape", None)
    return answer if shape is not None and len(shape) > 0 else None
