"""A monitor beside any PyTorch module: what goes into its forward passes, what comes out, what its layers answer.

Hooks copy and read, and return nothing, so the module answers bit for bit as without them. Only passes in eval mode
count: with dropout and batch statistics a model answers otherwise than the baseline's did.
Needs torch and not Lightning.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from lensai_integrations.drift.monitor import DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.lightning.layers import Layer, find_layer
from lensai_integrations.lightning.taps import first_tensor
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.embeddings import Reduce, reduce_embedding
from lensai_integrations.profile import Profile
from lensai_integrations.training.known_layers import known_layers, known_output

#: Given the positional and the keyword arguments of a forward pass, the images among them, or None.
Inputs = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


def watch(
    monitor: DriftMonitor,
    module: nn.Module,
    layers: Sequence[str] | None = None,
    *,
    inputs: Inputs | bool = True,
    outputs: str | bool = True,
    reduce: Reduce | Mapping[str, Reduce] | None = None,
) -> Watch:
    """Hand every forward pass of a module in eval mode to a monitor's `update`, as long as the context is open.

    Args:
        monitor: What to hand them to. It is not closed at the end.
        module: Its forward passes count; those of its parts alone do not. Compile it after entering, if at all.
        layers: Whose answers are embeddings; None for those of the baseline.
        inputs: True for the images among the arguments, one tensor or a list of images (see `find_images`); a function
            that picks them; or False.
        outputs: True for the layer that the baseline's outputs are of, if the module has it, else for what the module
            returns; the name of a layer; or False.
        reduce: From a layer's answer to `[n, D]`, for all layers or by name; None for as in the baseline.

    Raises:
        InputError: If an argument is of another kind, or there is no such layer.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.random.default_rng(0).normal(size=(100, 3)))
        >>> monitor = DriftMonitor(profiler.profile(), window=50)
        >>> with monitor, monitor.watch(model, inputs=False):
        ...     answer = model(torch.zeros(10, 4))
        >>> monitor.status.rows
        10
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"module is a {type(module).__name__}: pass a torch.nn.Module")
    if not (isinstance(inputs, bool) or callable(inputs)):
        raise InputError(f"inputs={inputs!r} should be True, False, or a function that picks the images")
    reference = monitor.reference
    known = known_layers(reference, layers, reduce)
    found = {layer.name: find_layer(module, layer.path) for layer in known}
    ways = {layer.name: layer.reduce for layer in known}
    return Watch(monitor, module, found, ways, inputs, _output_layer(reference, module, outputs))


def _output_layer(reference: Profile, module: nn.Module, outputs: str | bool) -> Layer | bool:
    """The layer to read outputs from; True for what the module returns, False for none."""
    if isinstance(outputs, str):
        return find_layer(module, outputs)
    if not isinstance(outputs, bool):
        raise InputError(f"outputs={outputs!r} should be True, False, or the name of a layer")
    known = known_output(reference)
    if not outputs or not known:
        return outputs
    try:
        return find_layer(module, known)
    except InputError:
        return True


class _Pass(threading.local):
    """One forward pass of one thread."""

    images: Any = None
    answers: dict[str, Any] | None = None


class Watch:
    """See `watch`."""

    def __init__(
        self,
        monitor: DriftMonitor,
        module: nn.Module,
        layers: Mapping[str, Layer],
        ways: Mapping[str, Reduce],
        inputs: Inputs | bool,
        outputs: Layer | bool,
    ) -> None:
        self._monitor, self._module, self._layers, self._ways = monitor, module, layers, ways
        self._inputs, self._outputs = inputs, outputs
        self._pass = _Pass()
        self._handles: list[Any] = []

    def __enter__(self) -> DriftMonitor:
        if self._handles:
            raise InputError("this watch is open already: call monitor.watch(...) for another")
        self._handles = [
            self._module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True),
            *(self._tap(layer, f"embeddings/{name}", self._ways[name]) for name, layer in self._layers.items()),
            *([self._tap(self._outputs, "outputs", None)] if isinstance(self._outputs, Layer) else []),
            self._module.register_forward_hook(self._end),
        ]
        return self._monitor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._pass.answers = None
        if module.training:
            return
        self._pass.answers, self._pass.images = {}, None
        with self._monitor.caught("watch inputs"):
            if self._inputs is not False:
                # A copy, because the module may work in place.
                self._pass.images = _copies(self._picked(args, kwargs))

    def _picked(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The images that the module is given, as they are."""
        if callable(self._inputs):
            return self._inputs(args, kwargs)
        reader = self._monitor.reader
        if isinstance(reader.key, str) and reader.key in kwargs:
            return kwargs[reader.key]
        given = (*args, *kwargs.values()) if args else kwargs
        return find_images(args[0] if len(given) == 1 and args else given, layout=reader.layout)

    def _tap(self, layer: Layer, key: str, reduce: Reduce | None) -> Any:
        def keep(answer: Any) -> None:
            kept = self._pass.answers
            if kept is None or key in kept:  # of a layer that is used several times, the first answer
                return
            with self._monitor.caught(f"watch {key}"):
                tensor = first_tensor(answer)
                if tensor is None:
                    raise InputError(f"layer {layer.path!r} has no tensor in what it answers")
                with torch.inference_mode(False), torch.no_grad():
                    kept[key] = _copy(tensor) if reduce is None else reduce_embedding(tensor.detach(), reduce)

        if layer.before:
            return layer.module.register_forward_pre_hook(lambda _, a, k: keep((a, k)), with_kwargs=True)
        return layer.module.register_forward_hook(lambda _, a, answer: keep(answer))

    def _end(self, module: nn.Module, args: tuple[Any, ...], answer: Any) -> None:
        kept, images = self._pass.answers, self._pass.images
        self._pass.answers = self._pass.images = None
        if kept is None:
            return
        with self._monitor.caught("watch"), torch.inference_mode(False), torch.no_grad():
            if self._outputs is True:
                kept["outputs"] = answer
            outputs = kept.pop("outputs", None)
            layers = {key.removeprefix("embeddings/"): rows for key, rows in kept.items()}
            self._monitor.update(inputs=images, outputs=outputs, embeddings=layers or None)


def _copies(picked: Any) -> Any:
    if isinstance(picked, list | tuple):
        return [_copies(each) for each in picked]
    return _copy(picked) if isinstance(picked, Tensor) else picked


def _copy(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return tensor.detach().clone()
