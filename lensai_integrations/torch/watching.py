"""A receiver beside any PyTorch module: what goes into its forward passes, what comes out, what its layers answer.

Hooks copy and read, and return nothing, so the module answers bit for bit as without them. Who is told is a monitor
(`watch`), or a profiler (`profiled` in `loops.py`). Of a model that is to be held against others, only passes in eval
mode count: with dropout and batch statistics it answers otherwise.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import Parameter, signature
from types import TracebackType
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from lensai_integrations.arrays.namespaces import half_precision, is_array, shape_of
from lensai_integrations.arrays.sharded import own_rows
from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.embeddings import Reduce, reduce_embedding
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.problems import log
from lensai_integrations.profiles.names import OUTPUTS, is_labels
from lensai_integrations.profiling.labels import LABEL_KEYS
from lensai_integrations.profiling.waiting import Looked
from lensai_integrations.torch.answer import Answer, Readout, decide
from lensai_integrations.torch.finding import forget_compiled, is_compiled
from lensai_integrations.torch.graphs import is_captured
from lensai_integrations.torch.layers import find_layer, in_training, unwrapped
from lensai_integrations.torch.matching import match, matched, output_layer, weights_here
from lensai_integrations.torch.taps import (
    CATCHING,
    Hook,
    Hooks,
    Tap,
    first_tensor,
    heads_in,
    listened,
    own_answer,
)
from lensai_integrations.torch.trace import Trace
from lensai_integrations.training.drift import DriftOptions
from lensai_integrations.training.layers import check_weights, known_layers, weights_known
from lensai_integrations.training.recording import LAYER, Listened
from lensai_integrations.training.weights import WEIGHTS

#: Given the positional and the keyword arguments of a forward pass, the images among them, or None.
Inputs = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]


@documented(DriftOptions, only=("layers", "outputs", "reduce"))
def watch(
    monitor: DriftMonitor,
    module: nn.Module,
    layers: Sequence[str] | Mapping[str, str] | None = None,
    *,
    inputs: Inputs | bool = True,
    outputs: str | bool = True,
    reduce: Reduce | Mapping[str, Reduce] | None = None,
) -> MonitorWatch:
    """Hand every forward pass of a module in eval mode to a monitor's `update`, as long as the context is open.

    Args:
        monitor: What to hand them to. It is not closed at the end.
        module: Its forward passes count; those of its parts alone do not. To compile it, call `torch.compile`
            before entering, and the compiled one only then.
        inputs: True for the images among the arguments, one tensor or a list of images (see `find_images`), or of a
            baseline with several image inputs what has their names, else in order; a function that picks them; or
            False.

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
    return MonitorWatch(monitor, module, layers, inputs, outputs, reduce)


@dataclass
class Passed:
    """What one forward pass was seen to be.

    Attributes:
        given: What was taken of what went in.
        answers: What was kept of what came out of layers and of the module, by key.
        rows: How many images it had; 0 if nothing tells.
    """

    given: Any
    answers: dict[str, Any]
    rows: int


@dataclass
class Told:
    """What is known beside the passes of one batch; see `Watch.batch`."""

    labels: Any
    segments: Any
    passes: list[Passed] = field(default_factory=list)
    silent: int = 0


class _Pass(threading.local):
    """One forward pass of one thread, and the batch that it belongs to."""

    given: Any = None
    answers: dict[str, Any] | None = None
    trace: Trace | None = None
    told: Told | None = None


class Watch:
    """Hooks on a module that tell of its forward passes as long as the context is open; to whom, subclasses say.

    Args:
        module: Whose passes.
        taps: The layers that are read along.
        whole: Whether what the module returns is kept, too.
        search: How a layer's answer is reduced while the first pass is followed to find further layers; None if there
            is nothing to find.
        training: Whether passes in training mode count, and not those in eval mode.
    """

    def __init__(
        self, module: nn.Module, taps: Iterable[Tap], *, whole: bool, search: Reduce | None, training: bool = False
    ) -> None:
        check_module(module)
        self._module, self._core = module, unwrapped(module)
        self._taps = {tap.key: tap for tap in taps}
        self._whole, self._search, self._training = whole, search, training
        self._sought: Reduce | None = None
        self.layers: list[Listened] = [listened(tap) for tap in self._taps.values()]
        self._pass, self._finding = _Pass(), threading.Lock()
        self._hooks = Hooks(_WatchHook)
        self._recorded = self._silent = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of the module have its hooks, and there is no copy of what watches it; see `_begin`."""
        return self

    # To whom it is told.

    def _caught(self, topic: str) -> AbstractContextManager[Any]:
        """A context in which what fails is said once and not raised."""
        raise NotImplementedError

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Copies of what is wanted of what goes in."""
        raise NotImplementedError

    def _hand(self, passed: Passed, labels: Any, segments: Any) -> None:
        """Tell of a pass."""
        raise NotImplementedError

    def _found(self, answer: Answer) -> tuple[dict[str, Readout], list[str]]:
        """What is to be read of a model's answer, by key, and what is to be said."""
        raise NotImplementedError

    def _reduce_of(self, name: str) -> Reduce:
        """How what was found is reduced."""
        raise NotImplementedError

    # While it is open.

    def _open(self) -> None:
        if self._hooks:
            raise InputError("this watch is open already: make another for another block")
        self._recorded = self._silent = 0
        module, hooks = self._module, Hooks(_WatchHook)
        if self._taps or self._search is not None or getattr(module, "_compiled_call_impl", None) is not None:
            forget_compiled(module)  # else all hooks are around what is compiled, and not in it
        try:
            hooks.put(module, self._begin, before=True, prepend=True)
            for tap in self._taps.values():
                self._listen(tap, hooks)
            hooks.put(module, self._end)
            hooks.put(module, self._leave, always_call=True)
        except RuntimeError as error:
            hooks.clear()
            raise InputError(
                f"module is a {type(module).__name__} that takes no hooks ({error}): wrap it, as in"
                " torch.nn.Sequential(module).eval(), and call that"
            ) from None
        self._hooks = hooks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.clear()
        if error is None and not (self._recorded or self._silent):
            self._say("the module was not called, so nothing was recorded", _CALL_IT)

    def _say(self, what: str, advice: str, topic: str = "watch") -> None:
        """Say why nothing is recorded, once."""
        with self._caught(topic):
            raise InputError(f"{what}: {advice}")

    @contextmanager
    def batch(self, *, labels: Any = None, segments: Any = None) -> Iterator[None]:
        """A block whose forward passes are of one batch, with what is known of its images that the module is not given.

        The passes in the block have as many images together as there are labels, in the same order: mostly it is one
        pass, of all images. Where that is not so, it is said and the passes are recorded without labels.

        Args:
            labels: One for every image, or these by head; as for `Profiler.update`.
            segments: Each image's value of what `segment_by=` names, unless that is `"label"`.
        """
        outer, self._pass.told = self._pass.told, Told(labels, segments)
        facts = self._pass.told
        try:
            if outer is not None:
                self._say("batch(...) was called inside of another", "leave the outer one first", "batch")
            yield
            failed = False
        except BaseException:
            failed = True
            raise
        finally:
            self._pass.told = outer
            with self._caught("batch"):
                self._settle(facts, failed=failed)

    def _settle(self, facts: Told, *, failed: bool) -> None:
        """Tell of the passes of a batch, each with its labels."""
        rows = [passed.rows for passed in facts.passes]
        problem = "" if failed else _mismatch(facts, rows, hooked=bool(self._hooks))
        fitting, start = all(rows) and not problem, 0
        for passed in facts.passes:
            stop = start + passed.rows
            parts = [_part(values, start, stop) if fitting else None for values in (facts.labels, facts.segments)]
            whole = len(facts.passes) == 1 and not problem and not failed  # as it was given
            self._tell(passed, *((facts.labels, facts.segments) if whole else parts))
            start = stop
        if problem:
            raise InputError(problem)

    def _tell(self, passed: Passed, labels: Any = None, segments: Any = None) -> None:
        with self._caught("watch"), _apart():
            self._hand(passed, labels, segments)

    # The hooks.

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._pass.answers = None
        if not self._hooks or (module is not self._module and not getattr(module, "_is_replica", False)):
            if self._hooks:
                self._pass_over()
                self._say("a copy of the module was called, of which nothing is recorded", "watch the copy")
            return
        if in_training(module if getattr(module, "_is_replica", False) else self._core) is not self._training:
            self._pass_over()
            self._in_other_mode(*_OTHER_MODE[self._training])
            return
        if is_captured():
            self._pass_over()
            self._say(
                "the module was called while a CUDA graph was captured, and a replay of it does not call the module",
                "hand what the replay was given and what it answered to `update`",
            )
            return
        self._recorded += 1
        self._pass.answers, self._pass.given = {}, None
        with self._caught("watch inputs"):
            self._pass.given = self._take(args, kwargs)
        if self._search is not None and self._finding.acquire(blocking=False):
            with self._caught("watch layers"):
                self._trace(args, kwargs)

    def _pass_over(self) -> None:
        """Count a pass that is not recorded."""
        self._silent += 1
        if self._pass.told is not None:
            self._pass.told.silent += 1

    def _in_other_mode(self, what: str, advice: str) -> None:
        """The module was called in the mode that does not count."""
        if not self._recorded:
            self._say(what, advice)

    def _trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Follow this pass, to find layers by what they do."""
        reduce, self._search = self._search, None  # one pass that comes to its end
        self._sought = reduce
        scripted = any(isinstance(submodule, torch.jit.ScriptModule) for submodule in self._module.modules())
        if is_compiled(self._module) or scripted:
            self._cannot_find(f"the module {'has a script in it' if scripted else 'is compiled'}")
            return
        self._pass.trace = Trace(self._module, (args, kwargs), keep=reduce, beside_attention=True)
        self._pass.trace.start(called=True)
        self._pass.trace.begin_call(args, kwargs)

    def _cannot_find(self, why: str) -> None:
        """Do without what was to be found, and raise what is to be said."""
        raise NotImplementedError

    def _find(self, trace: Trace, kept: dict[str, Any]) -> None:
        """Put taps on what was found, and take what it was in this pass."""
        if not trace.is_sound():
            self._cannot_find(f"the pass could not be followed through the module, {trace.error!r}")
            return
        readings, problems = self._found(decide(self._module, [trace], self._advice()))
        for key, reading in readings.items():
            reduce = self._reduce_of(key.removeprefix(LAYER)) if key.startswith(LAYER) else None
            tap = Tap(key, reading.layer, reduce, reading.head, reading.info)
            self._taps = {**self._taps, key: tap}
            self.layers.append(listened(tap))
            self._listen(tap, self._hooks)
            if reading.rows is not None:
                self.layers[-1].info |= {} if reading.axes is None else {"axes": reading.axes}
                kept[key] = reading.rows
        if problems:
            raise InputError("; ".join(problems))

    def _advice(self) -> str:
        """What a message tells to do where the answer is not clear, with {} for layers."""
        raise NotImplementedError

    def _stop_tracing(self) -> bool:
        trace, self._pass.trace = self._pass.trace, None
        if trace is not None:
            trace.stop()
        return trace is not None

    def _leave(self, *_: Any) -> None:
        """A pass is over. Where the module raised, the next one is followed instead."""
        if self._stop_tracing():
            self._search = self._sought
            self._finding.release()

    def _listen(self, tap: Tap, hooks: Hooks) -> None:
        """Keep what a layer answers, or is given, in every pass."""
        before = tap.layer.before

        def keep(_: nn.Module, args: Any, kwargs: Any, answer: Any = None) -> None:
            self._keep(tap, (args, kwargs) if before else answer)

        hooks.put(tap.layer.module, keep, before=before)

    def _keep(self, tap: Tap, answer: Any) -> None:
        """Keep what a layer answers; of one that is used several times, its first answer."""
        kept = self._pass.answers
        if kept is None or tap.key in kept:
            return
        with self._caught(f"watch {tap.key}"):
            tensor = first_tensor(answer) if tap.head is None else heads_in(answer).tensors.get(tap.head)
            if tensor is None:
                raise InputError(f"layer {tap.layer.path!r} has no tensor in what it answers")
            with torch.inference_mode(False), torch.no_grad(), CATCHING:
                tensor = own_answer(tap, tensor)
                kept[tap.key] = _copy(tensor) if tap.reduce is None else reduce_embedding(tensor.detach(), tap.reduce)
            for layer in self.layers:
                if layer.key == tap.key and tap.reduce is not None:
                    layer.info |= {"axes": tensor.ndim, **half_precision(tensor)}

    def _end(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], answer: Any) -> None:
        kept, inputs, trace = self._pass.answers, self._pass.given, self._pass.trace
        if kept is None:
            return
        for tap in self._taps.values():
            if tap.layer.module is self._module and not tap.layer.before:  # its own hook may come after this one
                self._keep(tap, answer)
        self._pass.answers = self._pass.given = None
        if trace is not None:
            trace.end_call(args, kwargs, answer)
            self._stop_tracing()
            with self._caught("watch layers"):
                self._find(trace, kept)
        facts = self._pass.told
        if self._whole:
            with self._caught("watch outputs"), _apart():
                kept |= self._answered(answer, copied=facts is not None)
        passed = Passed(inputs, kept, self._rows(inputs, kept))
        if facts is None:
            self._tell(passed)
        else:
            facts.passes.append(passed)

    def _answered(self, answer: Any, *, copied: bool) -> dict[str, Any]:
        """What the module answered, by key; copied, if its caller may change it before it is told of."""
        raise NotImplementedError

    def _rows(self, images: Any, kept: Mapping[str, Any]) -> int:
        """How many images a pass has."""
        raise NotImplementedError

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """What the module is given, by the names that its `forward` has for it; what comes by name, if it has none."""
        try:
            bound = signature(self._core.forward).bind(*args, **kwargs)
        except (TypeError, ValueError):
            return dict(kwargs)
        loose = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        names = {name for name, parameter in bound.signature.parameters.items() if parameter.kind not in loose}
        return {**{name: value for name, value in bound.arguments.items() if name in names}, **kwargs}


class MonitorWatch(Watch):
    """A monitor beside a module; see `watch`."""

    def __init__(
        self,
        monitor: DriftMonitor,
        module: nn.Module,
        layers: Sequence[str] | Mapping[str, str] | None,
        inputs: Inputs | bool,
        outputs: str | bool,
        reduce: Reduce | Mapping[str, Reduce] | None,
    ) -> None:
        check_module(module)
        if not (isinstance(inputs, bool) or callable(inputs)):
            raise InputError(f"inputs={inputs!r} should be True, False, or a function that picks the images")
        if not isinstance(outputs, str | bool):
            raise InputError(f"outputs={outputs!r} should be True, False, or the name of a layer")
        self._monitor, self._inputs, self._reference = monitor, inputs, monitor.reference
        known_here = known_layers(self._reference, layers, reduce)
        self._ways = {layer.name: layer.reduce for layer in known_here}
        same = match(module, self._reference, known_here, compiled=is_compiled(module))
        for error in same.errors.values():
            raise error
        self._unsaid = same.notes
        taps = [
            Tap(group, layer, self._ways[group.removeprefix(LAYER)])
            for group, layer in same.layers.items()
            if group.startswith(LAYER)
        ]
        layer = find_layer(module, outputs) if isinstance(outputs, str) else None
        if outputs is True:
            layer = output_layer(module, self._reference)
        output = [] if layer is None else [Tap(OUTPUTS, layer)]
        self._missing = [group for group in same.missing if group.startswith(LAYER)]
        search = self._ways[self._missing[0].removeprefix(LAYER)] if self._missing else None
        self._compare_weights = True
        super().__init__(module, [*taps, *output], whole=outputs is not False and not output, search=search)

    def __enter__(self) -> DriftMonitor:
        self._open()
        for group, text in self._unsaid.items():
            if group in self._reference.groups:
                log.warning("monitor %r, %s: %s", self._monitor.name, group, text)
                continue
            with self._caught(group):
                raise InputError(text)
        self._unsaid = {}
        return self._monitor

    def _caught(self, topic: str) -> AbstractContextManager[Any]:
        return self._monitor.caught(topic)

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if self._compare_weights:
            self._compare_weights = False
            with self._caught(WEIGHTS):
                if made_with := weights_known(self._monitor.baseline, "torch"):
                    check_weights(made_with, weights_here(self._module))
        labels = None
        if any(map(is_labels, self._reference.groups)):
            labels = labels_in(kwargs or (args[0] if len(args) == 1 else None))[1]
        # A copy, because the module may work in place.
        images = _copies(self._picked(args, kwargs)) if self._inputs is not False else None
        return images, _copies(labels)

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
        arguments = (*args, *kwargs.values()) if args else kwargs
        return find_images(args[0] if len(arguments) == 1 and args else arguments, layout=reader.layout)

    def _separated(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the images of several inputs are among: by the names that `forward` gives them, else in order."""
        arguments = self._named(args, kwargs)
        names = {reader.key or name for name, reader in self._monitor.readers.items()}
        if names & set(arguments):
            return {name: value for name, value in arguments.items() if name in names}
        return args[0] if len(args) == 1 and not kwargs else (*args, *kwargs.values())

    def _hand(self, passed: Passed, labels: Any, segments: Any) -> None:
        images, own_labels = passed.given if passed.given is not None else (None, None)
        self._miss(passed.answers)
        layers = {key.removeprefix(LAYER): rows for key, rows in passed.answers.items() if key.startswith(LAYER)}
        self._monitor.update(
            inputs=images,
            outputs=passed.answers.get(OUTPUTS),
            embeddings=layers or None,
            labels=own_labels if labels is None else labels,
            segments=segments,
        )

    def _found(self, answer: Answer) -> tuple[dict[str, Readout], list[str]]:
        readings, problems = matched(answer, self._reference, self._missing)
        return readings, problems if len(readings) < len(self._missing) else []

    def _reduce_of(self, name: str) -> Reduce:
        return self._ways[name]

    def _advice(self) -> str:
        return "Hand it to `DriftMonitor.update` yourself{}"

    def _cannot_find(self, why: str) -> None:
        names = [name.removeprefix(LAYER) for name in self._missing]
        raise InputError(
            f"{why}, and it has no layers of the names {', '.join(map(repr, names))}, which the baseline has embeddings"
            f" of: pass layers={{{names[0]!r}: '...'}}, from each of these to the layer here"
        )

    def _answered(self, answer: Any, *, copied: bool) -> dict[str, Any]:
        return {OUTPUTS: _copies(answer) if copied else answer}

    def _rows(self, images: Any, kept: Mapping[str, Any]) -> int:
        return rows_of(images[0] if images is not None else None, kept)

    def _miss(self, kept: Mapping[str, Any]) -> None:
        """Say which layers were not called in a pass."""
        for key, tap in self._taps.items():
            if key not in kept:
                advice = "name one that is called in layers=, or leave it out there"
                if key == OUTPUTS:
                    advice = "pass outputs='...', the name of one that is called, or outputs=False"
                self._say(f"layer {tap.layer.path!r} was not called in the pass", advice, f"watch {key}")


#: What is to be done where no pass of the module was seen.
_CALL_IT: Final = (
    "call the module itself, as in module(images), and not module.forward(...), one of its parts, a copy or what it was"
    " compiled to before; or watch the one that is called"
)
#: Of the mode that does not count: what was seen, and what to do.
_OTHER_MODE: Final = {
    False: ("the module is in training mode, in which nothing is recorded", "call module.eval() first"),
    True: (
        "the module is in eval mode, and only passes in training mode count here",
        "call module.train() first",
    ),
}


def check_module(module: Any) -> None:
    """Refuse what has no forward passes."""
    if not isinstance(module, nn.Module):
        raise InputError(f"module is a {type(module).__name__}: pass a torch.nn.Module")


def labels_in(inputs: Any) -> tuple[str, Any]:
    """The labels among what a module is given by name, and under which; nothing if there are none.

    Masks and the like are none.

    Example:
        >>> labels_in({"pixel_values": torch.zeros(2, 3, 8, 8), "labels": torch.tensor([0, 1])})
        ('labels', tensor([0, 1]))
    """
    names = inputs if isinstance(inputs, Mapping) else {}
    for key, value in names.items():
        if isinstance(key, str) and key.lower() in LABEL_KEYS and isinstance(value, Tensor) and 1 <= value.ndim <= 2:
            return key, value
    return "", None


def rows_of(images: Any, kept: Mapping[str, Any]) -> int:
    """How many images a pass had: as many as were read, else as answers have rows; 0 if neither tells."""
    if isinstance(images, Looked):
        return len(images)
    if isinstance(images, Mapping):
        images = next(iter(images.values()), None)
    if images is not None and (is_array(images) or isinstance(images, list)):
        return _length(images)
    tensor = first_tensor(dict(kept))
    return 0 if tensor is None else len(tensor)


def _length(values: Any) -> int:
    """How many images labels or the like are of; those by head, of each."""
    if isinstance(values, Mapping):
        return max(map(_length, values.values()), default=0)
    if is_array(values):
        return int(shape_of(values)[0]) if shape_of(values) else 1
    return len(values) if isinstance(values, list | tuple) else 1


def _part(values: Any, start: int, stop: int) -> Any:
    if isinstance(values, Mapping):
        return {head: _part(rows, start, stop) for head, rows in values.items()}
    return None if values is None else values[start:stop]


def _mismatch(facts: Told, rows: Sequence[int], *, hooked: bool) -> str:
    """Why labels cannot be paired with the passes of their batch; nothing if they can."""
    by_name = {"labels": facts.labels, "segments": facts.segments}
    sizes = {name: _length(values) for name, values in by_name.items() if values is not None}
    if not rows:
        if facts.silent:
            return ""  # that is said already
        where = "in its block" if hooked else "in its block, and the model is not watched here"
        return f"batch(...) saw no forward pass {where}: call the model inside of `with ....batch(...):`"
    wrong = {name: n for name, n in sizes.items() if n != sum(rows) and 0 not in rows}
    if not wrong:
        return ""
    (name, n), times = next(iter(wrong.items())), len(rows)
    of = f"{rows[0]} images" if times == 1 else f"{' + '.join(map(str, rows))} images in {times} forward passes"
    advice = "pass one for every image"
    if times > 1 and n in rows:
        advice = "put the block around the one pass that they belong to"
    return (
        f"batch({name}=...) was given {n} for {of}, so which belong together is not known and none are taken: {advice}"
    )


@contextmanager
def _apart() -> Iterator[None]:
    """Outside of the forward pass's modes: no gradients, no inference tensors, no autocast."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


#: Devices on which torch may calculate in a smaller dtype of its own accord.
_AUTOCAST: Final = ("cpu", "cuda", "mps", "xpu")


class _WatchHook(Hook):
    """A hook that tells in a copy of the module that it is one.

    `torch.compile` leaves it out of what it compiles; to load that takes seconds, so only if it is loaded.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__(torch.compiler.disable(call) if "torch._dynamo" in sys.modules else call)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def _copies(picked: Any) -> Any:
    if isinstance(picked, Mapping):
        return {name: _copies(tensors) for name, tensors in picked.items()}
    if isinstance(picked, list | tuple):
        return [_copies(tensors) for tensors in picked]
    return _copy(picked) if isinstance(picked, Tensor) else picked


def _copy(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        return own_rows(tensor).detach().clone()  # type: ignore[no-any-return]
