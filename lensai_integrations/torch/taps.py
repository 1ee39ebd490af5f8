"""What layers answer in the forward pass that runs anyway, caught by hooks.

A hook does as little as it can: while the buffer is open, it keeps a reduced copy of the layer's first answer in each
call of the model. First, because gradient checkpointing runs a layer a second time; a copy, because the next operation
may work in place. Inside a compiled model the hook is compiled as well, so there it keeps a plain copy, and the
reduction comes when the call is over. That copy is the compiled code's: where it runs as a CUDA graph
(`mode="reduce-overhead"`), it lies in memory that the next call overwrites, so what outlives the call is copied again.

A CUDA graph that somebody else has captured calls no layer when it is replayed, so no hook: it is said which layers are
not seen because of that. While one is captured nothing is read, or it would become a part of the graph.

A model may return several heads, each with a row per image. A batch that goes through it in several calls is put
together in the end, in the way that the first batch has shown (`finding.py`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn

from lensai_integrations.arrays.namespaces import Array, half_precision
from lensai_integrations.arrays.sharded import own_rows
from lensai_integrations.errors import InputError
from lensai_integrations.measures.embeddings import Reduce, reduce_embedding
from lensai_integrations.measures.outputs import heads_of
from lensai_integrations.problems import Problems
from lensai_integrations.torch.graphs import CAPTURED, GRAPHED, graphed_around, is_captured, may_be_overwritten
from lensai_integrations.torch.layers import Layer
from lensai_integrations.training.recording import Listened, reduce_name

#: What calls are of each other: the batch whole, in parts, whole again and again, or what is not known.
WHOLE, PARTS, VIEWS, UNKNOWN = "whole", "parts", "views", "unknown"
#: What is made of the answers of several views.
MEAN, MEAN_OF_SOFTMAX = "mean", "mean of softmax"


@dataclass(frozen=True)
class Calls:
    """How the calls of a layer in a batch make up its rows.

    Attributes:
        way: `WHOLE`, `PARTS`, `VIEWS` or `UNKNOWN`.
        picked: Which of the calls count.
        total: Of how many.
        merged: What is made of them; "" if of several views one is read.
        crops: How many views of each image one call has.
        stacked: Whether they come one after the other, each of all images, and not image by image.
    """

    way: str = WHOLE
    picked: tuple[int, ...] = (0,)
    total: int = 1
    merged: str = ""
    crops: int = 1
    stacked: bool = False

    def rows(self, answers: Sequence[Any]) -> Tensor | None:
        """The rows of a batch, of what a layer answered in its calls; None if they are not known.

        Example:
            >>> Calls(PARTS, (0, 1), 2).rows([torch.zeros(2, 3), torch.ones(1, 3)]).shape
            torch.Size([3, 3])
        """
        if self.way == UNKNOWN:
            return None
        if self.way == PARTS:
            skipped = self.total - len(self.picked)  # calls with other things, before the batch
            return torch.cat(list(map(as_tensor, answers[skipped:]))) if len(answers) > skipped else None
        if len(answers) != self.total:
            return None
        picked = [answers[i] for i in self.picked]
        if self.crops > 1:
            picked = self.views_in(picked[0])
        return merged_rows(self.merged, picked) if self.merged else picked[0]

    def views_in(self, rows: Any) -> list[Tensor]:
        """Of the rows of one call, those of the first view of each image, of the second, and so on.

        Example:
            >>> [view.tolist() for view in Calls(crops=2).views_in([1, 2, 3, 4])]
            [[1, 3], [2, 4]]
        """
        rows = as_tensor(rows)
        shape = (self.crops, -1) if self.stacked else (-1, self.crops)
        if len(rows) % self.crops:
            return []
        return list(rows.reshape(*shape, *rows.shape[1:]).unbind(0 if self.stacked else 1))


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is, wherever it lies, which torch would move to its default device; of others one is made.

    Example:
        >>> as_tensor([1, 2]).tolist()
        [1, 2]
    """
    return values if isinstance(values, Tensor) else torch.as_tensor(values)


def merged_rows(way: str, answers: Sequence[Any]) -> Tensor:
    """The mean of the answers for several views of the same images, or of their softmax."""
    answers = [as_tensor(answer) for answer in answers]
    same = [answer.softmax(1) if way == MEAN_OF_SOFTMAX else answer for answer in answers]
    return torch.stack(same).mean(0)


class MemorySpan(NamedTuple):
    """Where in memory what a call was given lies: of which block, from which byte to which, and where that ends."""

    block: int
    start: int
    stop: int
    end: int


def span_of(tensor: Tensor | None) -> MemorySpan | None:
    """Where a tensor lies; None if its numbers are not one after the other.

    Example:
        >>> halves = [span_of(half) for half in torch.zeros(4, 3).chunk(2)]
        >>> are_consecutive(halves), are_consecutive(halves[:1]), are_consecutive(halves[::-1])
        (True, False, False)
    """
    block = None if tensor is None or not tensor.is_contiguous() else block_of(tensor)
    if tensor is None or block is None:
        return None
    size = tensor.element_size()
    start = int(tensor.storage_offset()) * size
    return MemorySpan(block, start, start + int(tensor.numel()) * size, tensor.untyped_storage().nbytes())


def block_of(tensor: Tensor) -> int | None:
    """The block of memory that a tensor lies in; None of one that only stands for others, as a `DTensor`.

    Example:
        >>> block_of(torch.zeros(2)) is None, block_of(torch.zeros(2, device="meta"))
        (False, 0)
    """
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return None


def are_consecutive(spans: Sequence[MemorySpan | None]) -> bool:
    """Whether they are the parts of one block of memory, in order and without a gap."""
    kept = [span for span in spans if span is not None]
    if not kept or len(kept) < len(spans) or len({span.block for span in kept}) > 1:
        return False
    edges = [0, *(span.stop for span in kept)]
    return edges[:-1] == [span.start for span in kept] and edges[-1] == kept[0].end


@dataclass
class Heads:
    """The heads of an answer.

    Attributes:
        tensors: By name; of one answer alone the name is "". Copies of vectors, if copies were asked for.
        problem: Why there are none, e.g. that detections are not read.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    problem: str = ""


def heads_in(answer: Any, *, copies: bool = False) -> Heads:
    """The heads of what a module returned.

    Args:
        answer: What it returned.
        copies: Keep copies of those with one vector per row, and nothing of the others.

    Example:
        >>> list(heads_in({"species": torch.zeros(2, 3), "age": torch.zeros(2)}).tensors)
        ['species', 'age']
    """
    try:
        tensors = {name: array for name, array in heads_of(answer).items() if isinstance(array, Tensor)}
    except InputError as error:
        return Heads(problem=str(error))
    if copies:
        with torch.no_grad():
            tensors = {name: array.detach().clone() for name, array in tensors.items() if is_vector(tuple(array.shape))}
    return Heads(tensors)


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether a shape is one vector, or one number, per row.

    Example:
        >>> is_vector((8, 10)), is_vector((8, 10, 1, 1)), is_vector((8, 21, 32, 32))
        (True, True, False)
    """
    return bool(shape) and math.prod(shape[1:]) == max(shape[1:], default=1)


@dataclass(frozen=True)
class Tap:
    """What is caught where.

    Attributes:
        key: Under which the answer is kept: `"outputs"`, `"outputs/<head>"` or `"embeddings/<layer>"`.
        layer: Where.
        reduce: From the answer to `[n, D]`; None keeps it as it is.
        head: Which head of the answer; None for its first tensor.
        info: What the profile notes of it besides.
    """

    key: str
    layer: Layer
    reduce: Reduce | None = None
    head: str | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def reads(self, other: Tap) -> bool:
        """Whether another tap catches the same."""
        same = self.layer.module is other.layer.module and self.layer.before == other.layer.before
        return same and (self.key, self.reduce, self.head) == (other.key, other.reduce, other.head)


class _Catching(threading.local):
    """Open while a hook computes, which is no part of the forward pass: traces of it do not note what happens then."""

    def __init__(self) -> None:
        self.depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


CATCHING: Final = _Catching()

#: The key of what the model itself answered, where that is only looked at, and of that there is more in it than that.
_NAME_IT: Final = "Name a module that is called once in outputs= or layers=, or pass None to leave it out"
ANSWER: Final = "answer"
MORE: Final = "more of the answer"


class _KeptRows(NamedTuple):
    axes: int
    values: Any
    reduced: bool
    compiled: bool = False  # it lies in memory of compiled code


class Taps:
    """The hooks on a model and the buffer they write to.

    Args:
        taps: What to catch.
        problems: Where a failing hook is reported.
        model: The model that the layers are of.

    Attributes:
        layers: What a recording has to know of them.
        model: The model that the layers are of.
        finder: Who has put them there, if they outlive the pass that it was made for.
        verify: Looks at the rows of each batch and says which of them count; None for all.
        around: A context for what is computed of a layer's answer in the forward pass.
        training: Whether what is caught now is of training.
    """

    def __init__(self, taps: Sequence[Tap], problems: Problems, model: nn.Module | None = None) -> None:
        self._taps: dict[str, Tap] = {}
        self._problems, self.model = problems, model
        self._captured: set[str] = set()
        self._open = False
        self._kept: dict[str, _KeptRows] = {}
        self._calls: list[dict[str, _KeptRows]] = []
        self._late: dict[str, list[_KeptRows]] = {}
        self._spans: list[MemorySpan | None] = []
        self._again: dict[str, bool] = {}
        self._how: dict[tuple[bool, str], Calls] = {}
        self.training = False
        self.finder: Any = None
        self.layers: list[Listened] = []
        self._hooks, self._ends = Hooks(), Hooks()
        self.verify: Callable[[dict[str, Array]], dict[str, Array]] | None = None
        self.around: Callable[[], AbstractContextManager[Any]] = nullcontext
        for tap in taps:
            self._add(tap)

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._taps.values())

    def are_in_place(self) -> bool:
        """Whether all that is listened to is still a part of the model: a layer may have been exchanged for another."""
        parts = {} if self.model is None else set(map(id, self.model.modules()))
        return all(id(tap.layer.module) in parts for tap in self)

    def open(self) -> None:
        """Begin a batch: from now on the first answer of each layer in each call of the model is kept."""
        self._forget()
        self._open = True

    def collect(self, *_: object) -> None:
        """A call of the model is over: another begins with its own first answers."""
        if self._open and self._kept:
            self._calls.append({key: self._outside(key, kept) for key, kept in self._kept.items()})
            self._kept = {}

    def _outside(self, key: str, kept: _KeptRows) -> _KeptRows:
        """What was kept of a call, in memory that the next one does not overwrite."""
        if not kept.compiled:
            return kept
        with self._problems.caught(key), torch.no_grad(), CATCHING:
            return _KeptRows(kept.axes, self._reduced(key, kept), True)
        return kept

    def delimit(self, modules: Iterable[nn.Module]) -> None:
        """From now on every call of one of these modules is a call of the model."""

        def ended(*_: Any) -> None:
            if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() == -1:
                self.collect()

        self._ends.clear()
        for module in modules:
            self._ends.put(module, ended)

    def follow(self, key: str, calls: Calls, *, training: bool) -> None:
        """Tell how the calls of a layer make up the rows of a batch."""
        self._how[training, key] = calls
        for layer in self.layers:
            if layer.key == key:
                layer.left_out = layer.left_out or calls.way == UNKNOWN

    def close(self) -> dict[str, Array]:
        """End the batch: what was kept, by the taps' keys."""
        calls, late, spans = [*self._calls, self._kept], self._late, self._spans
        for key in self._again:
            text = "was called several times in a batch, in compiled code: its first call is read"
            self._say(key, f"{text}. {_NAME_IT}")
        self._open = False
        self._forget()
        all_kept = {key: [call[key] for call in calls if key in call] for call in calls for key in call} | late
        rows: dict[str, Array] = {}
        for key, kept in all_kept.items():
            with self._problems.caught(key):
                joined = self._joined(key, [self._reduced(key, answer) for answer in kept], spans)
                if joined is not None or key == MORE:
                    rows[key] = joined
        for layer in self.layers:
            if layer.key in rows and self._taps[layer.key].reduce is not None:
                layer.info["axes"] = all_kept[layer.key][0].axes
        return rows if self.verify is None else self.verify(rows)

    def _reduced(self, key: str, kept: _KeptRows) -> Any:
        tap = self._taps.get(key)
        if tap is None or kept.reduced or not isinstance(kept.values, Tensor):
            return kept.values
        values = self._own(tap, kept.values)
        self.describe(key, **half_precision(values))
        if tap.reduce is None:
            return values.clone() if kept.compiled and may_be_overwritten(values) else values
        return reduce_embedding(values, tap.reduce)

    def why_silent(self, key: str) -> str:
        """Why nothing was seen of a layer that is called, if that is known; else nothing."""
        tap = self._taps.get(key)
        if tap is None or self.model is None:
            return ""
        if key in self._captured:
            return CAPTURED
        around = graphed_around(self.model, tap.layer.module)
        return "" if around is None else GRAPHED.format(around or type(self.model).__name__)

    def _joined(self, key: str, answers: list[Any], spans: list[MemorySpan | None]) -> Any:
        """The rows of a batch, of what a layer answered in the calls of the model; None if they are not known."""
        calls = self._how.get((self.training, key))
        if calls is not None:
            rows = calls.rows(answers)
            if rows is None and calls.way != UNKNOWN and len(answers) != calls.total:
                self._say(key, f"was called {len(answers)} times in a batch, and {calls.total} times in the first one:"
                               " which rows are whose is not known, and such batches are left out")  # fmt: skip
            return rows
        if len(answers) > 1 and are_consecutive(spans) and len(spans) == len(answers):
            return torch.cat([as_tensor(answer) for answer in answers])
        if len(answers) > 1 and key != MORE:
            self._say(key, f"was called {len(answers)} times in a batch: its first call is read. {_NAME_IT}")
        return answers[0]

    def _say(self, key: str, text: str) -> None:
        tap = self._taps.get(key)
        if tap is not None and key != ANSWER:
            self._problems.note(f"calls of {key}", f"{tap.layer.path or type(tap.layer.module).__name__!r} {text}")

    def _forget(self) -> None:
        self._kept, self._calls, self._late, self._spans, self._again = {}, [], {}, [], {}

    def replace(
        self, before: Iterable[str], taps: Sequence[Tap], caught: Mapping[str, list[tuple[int, Tensor]]]
    ) -> None:
        """Put other taps in the place of some; those that catch the same go on, with what is noted of them now.

        Args:
            before: Keys of the taps that there were.
            taps: Those that there are to be.
            caught: Of the batch that is open, number of axes and rows of each call by key, for taps that come too
                late for it.
        """
        wanted = {tap.key: tap for tap in taps}
        for key in list(before):
            if key in self._taps and not (key in wanted and wanted[key].reads(self._taps[key])):
                self._drop(key)
        for tap in taps:
            if tap.key in self._taps:
                self._note(tap)
                continue
            self._add(tap)
            if self._open and tap.key in caught:
                self._late[tap.key] = [_KeptRows(axes, rows, tap.reduce is not None) for axes, rows in caught[tap.key]]

    def take_place_of(self, before: Iterable[str], key: str, info: Mapping[str, Any]) -> None:
        """In the place of some taps, note a layer whose rows `verify` gives."""
        self.replace(before, [], {})
        self.layers.append(Listened(key, "the model", dict(info)))

    def kept(self, key: str) -> Any:
        """What was kept of the batch that is open, or None."""
        return next((call[key].values for call in [*self._calls, self._kept] if key in call), None)

    def describe(self, key: str, **info: Any) -> None:
        """Note more of what a tap catches."""
        for layer in self.layers:
            if layer.key == key:
                layer.info |= info

    def _add(self, tap: Tap) -> None:
        self._taps[tap.key] = tap
        if tap.key != ANSWER:
            self.layers.append(listened(tap))
        key, before = tap.key, tap.layer.before

        def catch(_: nn.Module, args: Any, kwargs: Any, answer: Any = None) -> None:
            self._catch(key, (args, kwargs) if before else answer, (args, kwargs))

        self._hooks.put(tap.layer.module, catch, before=before, name=key)

    def _note(self, tap: Tap) -> None:
        self._taps[tap.key] = tap
        self.describe(tap.key, **_info(tap))

    def _drop(self, key: str) -> None:
        del self._taps[key]
        for call in (*self._calls, self._kept):
            call.pop(key, None)
        self._late.pop(key, None)
        self._hooks.remove(key)
        self.layers[:] = [layer for layer in self.layers if layer.key != key]

    def begin_again(self, problems: Problems) -> None:
        """Go on with the same hooks in another pass, which reports its problems elsewhere."""
        self._problems, self._captured, self._open = problems, set(), False
        self._forget()

    def rest(self) -> None:
        """Do nothing any more until the next `open`, with all hooks where they are."""
        self._open = False
        self._forget()

    def remove(self) -> None:
        """Take all hooks off the model, so that it can be pickled."""
        self._hooks.clear()
        self._ends.clear()
        self.close()

    def _catch(self, key: str, answer: Any, arguments: Any = ()) -> None:
        if not self._open or key in self._kept:
            if self._open and torch.compiler.is_compiling():
                self._again[key] = True
            return
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            return  # computed again, for gradients
        if key == ANSWER and len(tensors_of(answer)) > 1:
            self._kept[MORE] = _KeptRows(0, None, True)
        if torch.compiler.is_compiling():
            tensor = first_tensor(answer)
            if tensor is not None:
                self._kept[key] = _KeptRows(tensor.ndim, tensor.detach().clone(), False, True)
            return
        if is_captured():
            self._captured.add(key)
            return
        if key != ANSWER or first_tensor(answer) is not None:
            with self._problems.caught(key), torch.no_grad(), CATCHING, self.around():
                self._kept[key] = self._copied(self._taps[key], answer)
        if key == ANSWER:
            self._spans.append(span_of(first_tensor(arguments)))
            self.collect()

    def _copied(self, tap: Tap, answer: Any) -> _KeptRows:
        tensor = first_tensor(answer) if tap.head is None else heads_in(answer).tensors.get(tap.head)
        if tensor is None:
            if tap.head is not None:
                of, head = tap.layer.path or type(tap.layer.module).__name__, f" {tap.head!r}" if tap.head else ""
                raise InputError(f"what {of!r} returned in this pass is not the answer{head} that it was found to have")
            raise InputError(f"layer {tap.layer.path!r} has no tensor in what it answers, a {type(answer).__name__}")
        tensor = self._own(tap, tensor)
        self.describe(tap.key, **half_precision(tensor))
        if tap.reduce is None:
            return _KeptRows(tensor.ndim, tensor.detach().clone(), False)
        return _KeptRows(tensor.ndim, reduce_embedding(tensor, tap.reduce), True)

    def _own(self, tap: Tap, answer: Tensor) -> Tensor:
        """The rows of an answer that this process has; a layer that has no whole ones is left out."""
        try:
            return own_answer(tap, answer)
        except InputError:
            for layer in self.layers:
                layer.left_out = layer.left_out or layer.key == tap.key
            raise


def listened(tap: Tap) -> Listened:
    """What a recording has to know of a tap."""
    return Listened(tap.key, tap.layer.path or type(tap.layer.module).__name__, _info(tap))


def _info(tap: Tap) -> dict[str, Any]:
    info: dict[str, Any] = {"layer": tap.layer.path + (".input" if tap.layer.before else "")}
    if tap.reduce is None:
        linear = tap.layer.module if isinstance(tap.layer.module, torch.nn.Linear) and not tap.layer.before else None
        info["linear"] = linear is not None
        if linear is not None:
            info["columns"] = linear.out_features
    else:
        info["reduce"] = reduce_name(tap.reduce)
    return info | dict(tap.info)


class Hook:
    """A hook that does nothing in a module that is copied or pickled with it.

    Args:
        call: Given the module, its positional and its named arguments, and of a hook after the pass what it answered.
    """

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> None:
        """Hand on what torch gives a hook; nothing is returned, so nothing changes."""
        self._call(*arguments)

    def __reduce__(self) -> Any:
        return _inert, ()


def _inert() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*_: Any) -> None:
    return None


_inert_hook = _inert  # what models that an earlier state saved while hooked name


class Hooks:
    """Hooks on the forward passes of modules: put there one by one, and taken away together or by name.

    Args:
        kind: Makes a hook of what is called.

    Example:
        >>> hooks, seen = Hooks(), []
        >>> layer = nn.Linear(2, 3)
        >>> hooks.put(layer, lambda module, args, kwargs, answer: seen.append(answer.shape))
        >>> answer = layer(torch.zeros(1, 2))
        >>> hooks.clear()
        >>> answer = layer(torch.zeros(1, 2))
        >>> seen, bool(hooks)
        ([torch.Size([1, 3])], False)
    """

    def __init__(self, kind: Callable[[Callable[..., None]], Hook] = Hook) -> None:
        self._kind = kind
        self._handles: dict[object, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._handles)

    def put(
        self,
        module: nn.Module,
        call: Callable[..., None],
        *,
        before: bool = False,
        name: str | None = None,
        **how: bool,
    ) -> None:
        """Have something called in every forward pass of a module.

        Args:
            module: The module.
            call: Given what `Hook` says.
            before: Whether it is called before the pass.
            name: By which it can be taken away alone.
            how: `prepend` and `always_call`, as torch has them.

        Raises:
            RuntimeError: If the module takes no hooks, as a script.
        """
        register: Any = module.register_forward_pre_hook if before else module.register_forward_hook
        self._handles[object() if name is None else name] = register(self._kind(call), with_kwargs=True, **how)

    def remove(self, name: str) -> None:
        """Take one away."""
        self._handles.pop(name).remove()

    def clear(self) -> None:
        """Take all away."""
        for handle in self._handles.values():
            handle.remove()
        self._handles = {}


def own_answer(tap: Tap, answer: Tensor) -> Tensor:
    """The rows of an answer that this process has.

    Raises:
        InputError: If it has no whole ones, with the layer's name.
    """
    try:
        return cast(Tensor, own_rows(answer))
    except InputError as error:
        name = tap.layer.path or type(tap.layer.module).__name__
        raise InputError(f"layer {name!r} is not read: of what it answers, {error}") from None


def first_tensor(answer: Any) -> Tensor | None:
    """The first tensor with rows in what a layer answers; see `tensors_of`.

    Example:
        >>> first_tensor(((), {"hidden": torch.zeros(2, 3)})).shape
        torch.Size([2, 3])
    """
    tensors = tensors_of(answer)
    return tensors[0] if tensors else None


def tensors_of(answer: Any) -> list[Tensor]:
    """The tensors with rows in what a layer answers: itself, or in tuples, lists and mappings, depth first.

    Example:
        >>> [tuple(each.shape) for each in tensors_of({"logits": torch.zeros(2, 3), "loss": torch.tensor(0.5)})]
        [(2, 3)]
    """
    if isinstance(answer, Tensor):
        return [answer] if answer.ndim > 0 else []
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    return [tensor for item in answer for tensor in tensors_of(item)] if isinstance(answer, list | tuple) else []
