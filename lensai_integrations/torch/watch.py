"""A monitor beside any PyTorch module: what goes into its forward passes, what comes out, what its layers answer.

Hooks copy and read, and return nothing, so the module answers bit for bit as without them. Only passes in eval mode
count: with dropout and batch statistics a model answers otherwise than the baseline's did.
Needs torch and not Lightning.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import TracebackType
from typing import Any, Final

import torch
from torch import Tensor, nn

from lensai_integrations.drift.monitor import DriftMonitor
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.embeddings import Reduce, reduce_embedding
from lensai_integrations.profile import Profile
from lensai_integrations.torch.answer import decide
from lensai_integrations.torch.compiling import forget_compiled, is_compiled
from lensai_integrations.torch.heads import heads_in
from lensai_integrations.torch.layers import Layer, find_layer
from lensai_integrations.torch.matching import match, matched
from lensai_integrations.torch.taps import first_tensor
from lensai_integrations.torch.trace import Trace
from lensai_integrations.training.known_layers import known_layers, known_output
from lensai_integrations.training.recording import LAYER

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
        module: Its forward passes count; those of its parts alone do not. To compile it, call `torch.compile`
            before entering, and the compiled one only then.
        layers: Whose answers are embeddings; None for those of the baseline.
        inputs: True for the images among the arguments, one tensor or a list of images (see `find_images`), or of a
            baseline with several image inputs what has their names, else in order; a function that picks them; or
            False.
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
    same = match(module, reference, known)
    found = {layer.name: find_layer(module, layer.path) for layer in known if not layer.auto}
    found |= {group.removeprefix(LAYER): layer for group, layer in same.layers.items() if group.startswith(LAYER)}
    ways = {layer.name: layer.reduce for layer in known}
    missing = [group for group in same.missing if group.startswith(LAYER)]
    return Watch(monitor, module, found, ways, inputs, _output_layer(reference, module, outputs), missing)


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
    trace: Trace | None = None


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
        missing: Sequence[str] = (),
    ) -> None:
        self._monitor, self._module, self._layers, self._ways = monitor, module, layers, ways
        self._inputs, self._outputs, self._missing = inputs, outputs, list(missing)
        self._pass, self._finding = _Pass(), threading.Lock()
        self._handles: list[Any] = []
        self._recorded = self._silent = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Watch:
        """Copies of the module have its hooks, and there is no copy of what watches it; see `_begin`."""
        return self

    def __enter__(self) -> DriftMonitor:
        if self._handles:
            raise InputError("this watch is open already: call monitor.watch(...) for another")
        self._recorded = self._silent = 0
        forget_compiled(self._module)
        self._handles = [
            self._module.register_forward_pre_hook(_untraced(self._begin), with_kwargs=True, prepend=True),
            *(self._tap(layer, f"embeddings/{name}", self._ways[name]) for name, layer in self._layers.items()),
            *([self._tap(self._outputs, "outputs", None)] if isinstance(self._outputs, Layer) else []),
            self._module.register_forward_hook(_untraced(self._end), with_kwargs=True),
            self._module.register_forward_hook(_untraced(self._stop_tracing), always_call=True),
        ]
        return self._monitor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if error is None and not (self._recorded or self._silent):
            self._say("the module was not called, so nothing was recorded", _CALL_IT)

    def _say(self, what: str, advice: str, topic: str = "watch") -> None:
        """Log why nothing is recorded, once, and count it in the monitor's status."""
        with self._monitor.caught(topic):
            raise InputError(f"{what}: {advice}")

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._pass.answers = None
        if not self._handles or (module is not self._module and not getattr(module, "_is_replica", False)):
            if self._handles:
                self._silent += 1
                self._say("a copy of the module was called, of which nothing is recorded", "watch the copy")
            return
        if module.training:
            self._silent += 1
            if not self._recorded:
                self._say("the module is in training mode, in which nothing is recorded", "call module.eval() first")
            return
        self._recorded += 1
        self._pass.answers, self._pass.images = {}, None
        with self._monitor.caught("watch inputs"):
            if self._inputs is not False:
                # A copy, because the module may work in place.
                self._pass.images = _copies(self._picked(args, kwargs))
        if self._missing and self._finding.acquire(blocking=False):
            with self._monitor.caught("watch layers"):
                self._trace(args, kwargs)

    def _picked(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The images that the module is given, as they are."""
        if callable(self._inputs):
            return self._inputs(args, kwargs)
        readers = self._monitor.readers
        if "" not in readers:
            return self._separated(args, kwargs)
        reader = readers[""]
        if isinstance(reader.key, str) and reader.key in kwargs:
            return kwargs[reader.key]
        given = (*args, *kwargs.values()) if args else kwargs
        return find_images(args[0] if len(given) == 1 and args else given, layout=reader.layout)

    def _separated(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the images of several inputs are among: by the names that `forward` gives them, else in order."""
        try:
            given = {**signature(self._module.forward).bind(*args, **kwargs).arguments, **kwargs}
        except (TypeError, ValueError):
            given = dict(kwargs)
        names = {reader.key or name for name, reader in self._monitor.readers.items()}
        if names & set(given):
            return {name: value for name, value in given.items() if name in names}
        return args[0] if len(args) == 1 and not kwargs else (*args, *kwargs.values())

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Follow this pass, to find the layers that have other names than in the baseline."""
        missing, self._missing = self._missing, []  # one try
        self._wanted = missing
        if is_compiled(self._module):
            raise InputError(f"the module is compiled, and has no layers of the names that {missing} have")
        reduce = self._ways[missing[0].removeprefix(LAYER)]
        self._pass.trace = Trace(self._module, (args, kwargs), keep=reduce, beside_attention=True)
        self._pass.trace.start(called=True)
        self._pass.trace.begin_call(args, kwargs)

    def _find(self, trace: Trace, kept: dict[str, Any]) -> None:
        """Put taps on what was found, and take what it was in this pass."""
        if not trace.is_sound():
            raise InputError(f"the pass could not be followed through the module: {trace.error!r}")
        answer = decide(self._module, [trace], "Hand it to `DriftMonitor.update` yourself{}")
        readings, problems = matched(answer, self._monitor.reference, self._wanted)
        for group, reading in readings.items():
            self._layers = {**self._layers, group.removeprefix(LAYER): reading.layer}
            reduce = self._ways[group.removeprefix(LAYER)]
            self._handles.append(self._tap(reading.layer, group, reduce, reading.head))
            if reading.rows is not None:
                kept[group] = reading.rows
        if len(readings) < len(self._wanted):
            raise InputError("; ".join(problems))

    def _stop_tracing(self, *_: Any) -> None:
        """Also where the module raises."""
        trace, self._pass.trace = self._pass.trace, None
        if trace is not None:
            trace.stop()

    def _tap(self, layer: Layer, key: str, reduce: Reduce | None, head: str | None = None) -> Any:
        def keep(answer: Any) -> None:
            kept = self._pass.answers
            if kept is None or key in kept:  # of a layer that is used several times, the first answer
                return
            with self._monitor.caught(f"watch {key}"):
                tensor = first_tensor(answer) if head is None else heads_in(answer).tensors.get(head)
                if tensor is None:
                    raise InputError(f"layer {layer.path!r} has no tensor in what it answers")
                with torch.inference_mode(False), torch.no_grad():
                    kept[key] = _copy(tensor) if reduce is None else reduce_embedding(tensor.detach(), reduce)

        if layer.before:
            return layer.module.register_forward_pre_hook(_untraced(lambda _, a, k: keep((a, k))), with_kwargs=True)
        return layer.module.register_forward_hook(_untraced(lambda _, a, answer: keep(answer)))

    def _end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        kept, images, trace = self._pass.answers, self._pass.images, self._pass.trace
        self._pass.answers = self._pass.images = None
        if kept is None:
            return
        if trace is not None:
            trace.end_call(args, kwargs, answer)
            self._stop_tracing()
            with self._monitor.caught("watch layers"):
                self._find(trace, kept)
        with self._monitor.caught("watch"), torch.inference_mode(False), torch.no_grad():
            if self._outputs is True:
                kept["outputs"] = answer
            self._miss(kept)
            outputs = kept.pop("outputs", None)
            layers = {key.removeprefix("embeddings/"): rows for key, rows in kept.items()}
            self._monitor.update(inputs=images, outputs=outputs, embeddings=layers or None)

    def _miss(self, kept: Mapping[str, Any]) -> None:
        """Say which layers were not called in a pass."""
        for name, layer in self._layers.items():
            if f"embeddings/{name}" not in kept:
                advice = "name one that is called in layers=, or leave it out there"
                self._say(f"layer {layer.path!r} was not called in the pass", advice, f"watch embeddings/{name}")
        if isinstance(self._outputs, Layer) and "outputs" not in kept:
            advice = "pass outputs='...', the name of one that is called, or outputs=False"
            self._say(f"layer {self._outputs.path!r} was not called in the pass", advice, "watch outputs")


#: What is to be done where no pass of the module was seen.
_CALL_IT: Final = (
    "call the module itself, as in module(images), and not module.forward(...), one of its parts, a copy or what it was"
    " compiled to before; or watch the one that is called"
)


def _untraced(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that `torch.compile` leaves out of what it compiles; to load that takes seconds, so only if it is."""
    return torch.compiler.disable(hook) if "torch._dynamo" in sys.modules else hook  # type: ignore[no-untyped-call]


def _copies(picked: Any) -> Any:
    if isinstance(picked, Mapping):
        return {name: _copies(each) for name, each in picked.items()}
    if isinstance(picked, list | tuple):
        return [_copies(each) for each in picked]
    return _copy(picked) if isinstance(picked, Tensor) else picked


def _copy(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return tensor.detach().clone()
