"""One batch seen from inside: which modules were called, which tensor was made of which, and whose rows are whose.

Hooks on all modules give the calls, a `TorchFunctionMode` gives the operations on tensors in and between them, losses
among them. A tensor is known by a weak reference and becomes a number as soon as it is seen, so nothing is kept alive:
only numbers, shapes, and the copies that are asked for. An operation in place makes a new number of the same tensor.

A traced batch computes what it computes otherwise. But torch's attention takes another path, with other rounding, where
a mode is active or its modules have hooks; so where results matter to the bit it is passed over (`beside_attention`).

A step may call its model with the batch in parts, with some of its images, or with all of them in another order; whose
answer is whose is then not a matter of counting, and rows are followed from operation to operation. Views are followed
exactly; what picks rows by values is, too, but those are others in the next batch, which is noted. Where the rows come
to lie along another axis, as in attention, they are lost; every other operation is taken to work on each row for
itself.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode
from torch.utils.weak import WeakIdKeyDictionary

from lensai_integrations.arrays.namespaces import half_precision
from lensai_integrations.measures.batches import are_samples
from lensai_integrations.measures.embeddings import Reduce, reduce_embedding
from lensai_integrations.problems import pass_on
from lensai_integrations.torch.graphs import is_captured
from lensai_integrations.torch.layers import is_metric, paths_of
from lensai_integrations.torch.taps import CATCHING, Heads, Hooks, block_of, heads_in, is_vector


class Rows(NamedTuple):
    """Of which images the rows of a tensor are.

    Attributes:
        places: The place of an image in the batch for each row; none: of nothing in the batch; None: lost.
        picked: Whether values have picked them, so that they are others in another batch.
    """

    places: tuple[int, ...] | None = ()
    picked: bool = False


OTHER_ROWS: Final = Rows()

_VIEWS: Final = {
    "chunk", "split", "tensor_split", "split_with_sizes", "unbind", "narrow", "select", "permute", "transpose",
    "movedim", "swapaxes", "unsqueeze", "squeeze", "t",
}  # fmt: skip
_JOINS: Final = {"cat", "concat", "concatenate", "stack"}
_GROUPS: Final = {"reshape", "view", "flatten", "unflatten"}
#: What moves rows, by where its dims are among the arguments.
_MOVES: Final = {"flip": 1, "roll": 2, "index_select": 1, "sort": 1}
_SCATTERS: Final = {"repeat", "tile", "repeat_interleave", "masked_select", "take"}


def rows_made(
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    made: Sequence[Tensor],
    sources: Sequence[tuple[Tensor, Rows]],
) -> list[Rows]:
    """The rows of what an operation has made.

    Args:
        func: The operation.
        name: Its name.
        args: What it was given.
        kwargs: By name.
        made: The tensors it made.
        sources: The tensors among its arguments, with their rows.

    Example:
        >>> images = torch.zeros(4, 3, 8, 8)
        >>> made = rows_made(torch.chunk, "chunk", (images, 2), {}, images.chunk(2), [(images, Rows((0, 1, 2, 3)))])
        >>> [each.places for each in made]
        [(0, 1), (2, 3)]
    """
    sources = [(tensor, rows) for tensor, rows in sources if rows != OTHER_ROWS]
    if not sources:
        return [OTHER_ROWS] * len(made)
    tensor, rows = sources[0]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    moved: list[Rows] | None = None
    if args and tensor is args[0]:
        moved = _of_one(func, name, args, kwargs, made, rows)
    elif name in _JOINS and dim == 0:
        moved = [_joined([_one(rows) if name == "stack" else rows for _, rows in sources])]
    return [_together(tensor, sources) for tensor in made] if moved is None else moved


def _of_one(
    func: Callable[..., Any],
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    made: Sequence[Tensor],
    rows: Rows,
) -> list[Rows] | None:
    """The rows of what an operation that moves those of one tensor has made; None if it does not move them."""
    if name in _VIEWS or (name == "__getitem__" and _is_view(args[1])):
        return _followed(func, args, kwargs, rows, len(made))
    if name == "__getitem__":
        return [_indexed(rows, args[1])] * len(made)
    if name in _MOVES or name in _SCATTERS:
        return [_moved(name, args, kwargs, rows)] * len(made)
    return [_grouped(rows, tensor) for tensor in made] if name in _GROUPS else None


def _is_view(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(step is None or step is Ellipsis or type(step) in (int, slice) for step in parts)


def _followed(
    func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], rows: Rows, count: int
) -> list[Rows]:
    """What an operation that gives views makes of the numbers of the rows."""
    tensor, lost = args[0], [Rows(None, rows.picked)] * count
    if rows.places is None or len(rows.places) != tensor.shape[0]:
        return lost
    with torch._C.DisableTorchFunction(), torch.no_grad():
        numbers = torch.tensor(rows.places, device="cpu").reshape(-1, *[1] * (tensor.ndim - 1)).expand(tensor.shape)
        result = func(numbers, *args[1:], **kwargs)
        views = [result] if isinstance(result, Tensor) else list(result)
        followed = [Rows(_along_first(view), rows.picked) for view in views]
    return followed if len(followed) == count else lost


def _along_first(numbers: Tensor) -> tuple[int, ...] | None:
    """The numbers along the first axis; None if they differ along another."""
    if numbers.ndim == 0 or not numbers.numel():
        return None
    beside = zip(numbers.stride()[1:], numbers.shape[1:], strict=True)
    if any(step != 0 and size > 1 for step, size in beside) and numbers.min() != numbers.max():
        return None
    while numbers.ndim > 1:
        numbers = numbers[:, 0]
    return tuple(numbers.tolist())


def _indexed(rows: Rows, index: Any) -> Rows:
    """Rows that values, or a list, have picked."""
    first = index[0] if isinstance(index, tuple) and index else index
    if first is Ellipsis or (type(first) is slice and first == slice(None)):
        return rows
    return _picked(rows, lambda numbers: numbers[first.cpu() if isinstance(first, Tensor) else first])


def _moved(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], rows: Rows) -> Rows:
    """Rows that were moved, if it was not what is in each."""
    if name in _SCATTERS:
        return Rows(None, True)
    position = _MOVES[name]
    dims = kwargs.get("dims", kwargs.get("dim", args[position:] if name == "flip" else args[position : position + 1]))
    flat = list(_numbers_in(dims))
    if flat and all(dim % args[0].ndim != 0 for dim in flat):
        return rows
    if name == "index_select":
        index = kwargs.get("index", args[2] if len(args) > 2 else None)
        return _picked(rows, lambda numbers: numbers[index.cpu()])
    return _picked(rows, lambda numbers: numbers.flip(0)) if name == "flip" else Rows(None, True)


def _numbers_in(dims: Any) -> Iterator[int]:
    if isinstance(dims, int):
        yield dims
    for dim in dims if isinstance(dims, list | tuple) else ():
        yield from _numbers_in(dim)


def _picked(rows: Rows, pick: Callable[[Tensor], Tensor]) -> Rows:
    if rows.places is not None:
        try:
            with torch._C.DisableTorchFunction(), torch.no_grad():
                numbers = pick(torch.tensor(rows.places, device="cpu"))
            return Rows(tuple(numbers.tolist()) if numbers.ndim == 1 else None, True)
        except Exception as error:  # noqa: BLE001  the rows are lost, and no more
            pass_on(error)
    return Rows(None, True)


def _grouped(rows: Rows, made: Tensor) -> Rows:
    """Rows that were taken apart, into as many for each image, or put together again."""
    if rows.places is None or made.ndim == 0 or not made.shape[0]:
        return Rows(None, rows.picked)
    places, n, m = rows.places, len(rows.places), made.shape[0]
    if m % n == 0:
        return Rows(tuple(image for image in places for _ in range(m // n)), rows.picked)
    if n % m == 0 and all(len(set(places[i : i + n // m])) == 1 for i in range(0, n, n // m)):
        return Rows(places[:: n // m], rows.picked)
    return Rows(None, rows.picked)


def _one(rows: Rows) -> Rows:
    """Of one image alone, whose rows are its own: as a row of several images."""
    places = rows.places
    return Rows(places[:1] if places and len(set(places)) == 1 else None, rows.picked)


def _joined(parts: Sequence[Rows]) -> Rows:
    picked = any(rows.picked for rows in parts)
    together: list[int] = []
    for rows in parts:
        if rows.places is None:
            return Rows(None, picked)
        together += rows.places
    return Rows(tuple(together), picked)


def _together(made: Tensor, sources: Sequence[tuple[Tensor, Rows]]) -> Rows:
    """Of an operation on each row for itself; what others were mixed into is still of its own images."""
    fitting = {rows for tensor, rows in sources if tensor.ndim and made.ndim and tensor.shape[0] == made.shape[0]}
    candidates = {rows for rows in fitting if not rows.picked} or fitting
    return candidates.pop() if len(candidates) == 1 else Rows(None, any(rows.picked for _, rows in sources))


#: Losses by the function that computes them, in the words of `describe(loss=...)`.
LOSSES: Final = {
    **dict.fromkeys(("cross_entropy", "nll_loss"), "cross_entropy"),
    **dict.fromkeys(("binary_cross_entropy_with_logits", "binary_cross_entropy"), ""),
    "multilabel_soft_margin_loss": "binary_cross_entropy_with_logits",  # the same, by another name
    **dict.fromkeys(("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss"), "squared"),
    **dict.fromkeys(("kl_div", "poisson_nll_loss", "multi_margin_loss", "ctc_loss"), "other"),
    "soft_margin_loss": "hinge",  # of labels -1 and 1 as that is, only smoother
    "multilabel_margin_loss": "other",
}
#: What compares rows with one another, as only embeddings are.
COMPARISONS: Final = {
    "triplet_margin_loss", "triplet_margin_with_distance_loss", "cosine_embedding_loss", "margin_ranking_loss",
    "hinge_embedding_loss", "cdist", "pdist", "pairwise_distance", "cosine_similarity",
}  # fmt: skip
PRODUCTS: Final = {"matmul", "mm", "__matmul__", "__rmatmul__", "bmm", "einsum", "inner", "tensordot"}
DIFFERENCES: Final = {"sub", "__sub__", "__rsub__", "rsub", "dist"}
#: What takes rows out of a tensor, or moves them.
ROWS_MOVED: Final = {"__getitem__", "index_select", "roll", "flip", "chunk", "split", "unbind"}
#: What a loss written by hand does with scores: of labels that are independent, of classes that exclude each other.
SIGMOIDS: Final = {"sigmoid", "sigmoid_", "log_sigmoid", "logsigmoid", "softplus", "special_expit"}
SOFTMAXES: Final = {"softmax", "log_softmax", "logsumexp", "special_softmax", "special_log_softmax", "gumbel_softmax"}
#: What picks columns of scores by labels, and what picks the largest.
GATHERS: Final = {"gather", "__getitem__", "take_along_dim"}
LARGEST: Final = {"argmax", "topk"}
#: What takes the shape of a tensor and none of its values, and what takes all but the first only for their shape.
_SHAPE_ONLY: Final = {
    "zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "new_zeros",
    "new_ones", "new_full", "new_empty", "new_empty_strided",
}  # fmt: skip
_FIRST_ONLY: Final = {"type_as", "to", "view_as", "expand_as", "reshape_as"}
#: How values leave tensors, and how they come back.
_LEAVING: Final = {"tolist", "numpy", "item", "__int__", "__array__", "__index__"}
_COMING: Final = {"tensor", "as_tensor", "from_numpy", "asarray", "new_tensor"}
_BATCH, _PARAMETER, _UNKNOWN = "batch", "parameter", "unknown"
#: Attention that torch computes otherwise where it is watched.
_FUSED: Final = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
#: Bytes of copies that are kept of one batch; the oldest go first.
MOST_KEPT: Final = 256 << 20
#: How many values of a step are kept.
_MOST_VALUES: Final = 256
#: How deep tensors are looked for in what is passed along.
_DEPTH: Final = 5


@dataclasses.dataclass
class Node:
    """A tensor as it was at one time.

    Attributes:
        name: The operation it came from, or `"batch"`, `"parameter"`, `"unknown"`.
        shape: Its shape.
        parents: The nodes it was made of.
        call: The innermost call it was made in; -1 outside of all.
        data: Whether something else than parameters and buffers went into it.
        weight: Whether parameters went into it, and nothing of the batch.
        layer: Whether data and parameters meet in this operation.
        place: Where it was in the batch.
        rows: Of which images of the batch its rows are.
    """

    name: str
    shape: tuple[int, ...]
    parents: tuple[int, ...] = ()
    call: int = -1
    data: bool = True
    weight: bool = False
    layer: bool = False
    place: tuple[int | str, ...] | None = None
    rows: Rows = OTHER_ROWS


@dataclasses.dataclass
class Call:
    """A module's forward pass.

    Attributes:
        index: Its place in `Trace.calls`, in the order in which they began.
        path: The module's name, without wrappers' words; of the traced model itself, "".
        module: The module.
        parent: The call it was made in; -1 if in none.
        inputs: Nodes of the tensors it was given.
        outputs: Nodes of the tensors it gave.
        shape: Of the first of these.
        heads: What it returned as heads, of outermost calls.
    """

    index: int
    path: str
    module: nn.Module
    parent: int
    inputs: list[int]
    outputs: list[int] = dataclasses.field(default_factory=list)
    shape: tuple[int, ...] = ()
    heads: Heads = dataclasses.field(default_factory=Heads)
    head_nodes: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def forward(self) -> str:
        """What was called, in words."""
        return f"{type(self.module).__name__}.forward"


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss, by its name in `describe`, and the nodes of what it compares."""

    name: str
    answer: int
    target: int | None


class Trace(TorchFunctionMode):
    """Traces one batch between `start` and `stop`.

    Args:
        model: The module whose parts' calls are wanted.
        batch: Of which the tensors are known by their place.
        keep: How a layer's values are reduced that are kept along; None to keep nothing.
        beside_attention: Pass over torch's attention, so that all results are the same to the bit.

    Attributes:
        calls: In the order in which they began.
        nodes: All tensors.
        losses: All losses.
        ends: The tensors that gradients were computed of.
        error: What failed in here, if anything did.
        values: Copies of what was made outside of all calls, in evaluation, with one vector per row, by its node.
        returned: What the step returned.
        on_outermost: Told of each module after a call in none.
        samples: How many samples the batch is a list of, whose tensors are known by their place in a sample; else 0.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Any,
        *,
        keep: Reduce | None = None,
        beside_attention: bool = False,
    ) -> None:
        super().__init__()
        self.model, self._keep = model, keep
        self.training = model.training
        self.calls: list[Call] = []
        self.nodes: list[Node] = []
        self.losses: list[Loss] = []
        self.ends: list[int] = []
        self.error: Exception | None = None
        self.values: dict[int, Tensor] = {}
        self._leaves: dict[int, Tensor] = {}
        self.returned: list[int] = []
        self.on_outermost: Callable[[nn.Module], None] = _ignored
        self.texts_in_batch = _has_values_beside_tensors(batch)
        self.samples = len(batch) if are_samples(batch) else 0
        self._ids: Any = WeakIdKeyDictionary()
        self._stack: list[int] = []
        self._left: set[int] = set()
        self._kept: dict[tuple[int, bool], tuple[int, Tensor, dict[str, str]]] = {}
        self._order: deque[tuple[tuple[int, bool], int]] = deque()
        self._bytes = 0
        self._on, self._thread, self._hooks = False, threading.get_ident(), Hooks()
        self._skipped = _inside_fused(model) if beside_attention else set()
        self._with_mode = not self._skipped
        self._begin(batch)

    def _begin(self, batch: Any) -> None:
        for parameter in self.model.parameters():
            self._new(parameter, Node(_PARAMETER, tuple(parameter.shape), data=False, weight=True))
        for buffer in self.model.buffers():
            self._new(buffer, Node("buffer", tuple(buffer.shape), data=False))
        parts = list(batch) if self.samples else [batch]
        placed = [
            (number, path, tensor) for number, sample in enumerate(parts) for path, tensor in placed_tensors(sample)
        ]
        images = [tensor for _, _, tensor in placed if tensor.ndim > 2]
        is_list = len(images) > 1 and all(image.ndim == 3 for image in images)
        for number, path, tensor in placed:
            rows = Rows(tuple(range(tensor.shape[0]))) if tensor.ndim else OTHER_ROWS
            if self.samples or is_list:  # one image each, whose rows are its own
                which = number if self.samples else next((i for i, image in enumerate(images) if image is tensor), 0)
                rows = Rows((which,) * tensor.shape[0]) if tensor.ndim > 2 else OTHER_ROWS
            self._new(tensor, Node(_BATCH, tuple(tensor.shape), place=path, rows=rows))
            is_block = tensor.ndim > 2 and tensor.is_contiguous() and not (self.samples or is_list)
            if is_block and (block := block_of(tensor)) is not None:
                self._leaves[block] = tensor

    def start(self, *, called: bool = False) -> None:
        """Put hooks on all modules and watch operations.

        Args:
            called: The model is being called already: its own call is told by `begin_call` and `end_call`.
        """
        paths = paths_of(self.model)
        for module in self.model.modules():
            if called and module is self.model:
                continue
            if id(module) not in self._skipped and not is_metric(module) and hasattr(module, "register_forward_hook"):
                self._hook(module, paths.get(id(module), ""))
        if self._with_mode:
            self.__enter__()  # type: ignore[no-untyped-call]
        self._on = True

    def stop(self) -> None:
        """Take the hooks off again. May be called twice."""
        if self._on and self._with_mode:
            _leave(self)
        self._on = False
        self._hooks.clear()

    def _hook(self, module: nn.Module, path: str) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            return  # takes no hooks; what is returned by the module around it is known

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            if not torch.compiler.is_compiling():
                self._noted(self._enter_call, path, module, args, kwargs)

        def leave(module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
            if not torch.compiler.is_compiling():
                self._noted(self._leave_call, path, module, args, kwargs, answer)

        self._hooks.put(module, enter, before=True)
        self._hooks.put(module, leave, always_call=True)

    def _noted(self, note: Callable[..., None], *arguments: Any) -> None:
        """Note a call, unless nothing is watched at present or something failed."""
        if not self._watching():
            return
        try:
            note(*arguments)
        except Exception as error:  # noqa: BLE001  a trace is given up, never the computation
            pass_on(error)
            self.error = self.error or error

    def begin_call(self, args: Any, kwargs: Any) -> None:
        """The model is called already, and hooks on itself would come too late."""
        self._noted(self._enter_call, "", self.model, args, kwargs)

    def end_at(self, loss: Any) -> None:
        """Tell what gradients would be computed of, where none are."""
        self.ends += [self._id(tensor) for tensor in tensors_in(loss)]

    def returns(self, answer: Any) -> None:
        """Tell what the step has returned."""
        self.returned = [self._ids[tensor] for tensor in tensors_in(answer) if tensor in self._ids]

    def end_call(self, args: Any, kwargs: Any, answer: Any) -> None:
        """What `begin_call` has begun is over."""
        self._noted(self._leave_call, "", self.model, args, kwargs, answer)

    # What happened.

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute, and note what was made of what; of a function that is compiled here, what it was given and gave."""
        if torch.compiler.is_compiling():
            return func(*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        if self._watching():
            try:
                self._note(func, args, kwargs or {}, result)
            except Exception as error:  # noqa: BLE001  a trace is given up, never the computation
                pass_on(error)
                self.error = self.error or error
        return result

    def _watching(self) -> bool:
        if not self._on or self.error is not None or CATCHING.depth or threading.get_ident() != self._thread:
            return False
        return not is_captured()

    def _note(self, func: Any, args: Any, kwargs: Mapping[str, Any], result: Any) -> None:
        name = getattr(func, "__name__", "")
        made = list(tensors_in(result))
        changed = _changed_in_place(name, args, kwargs)
        if not made and changed is None and name != "backward" and name not in _LEAVING:
            return
        parents = tuple(dict.fromkeys(self._id(tensor) for tensor in tensors_in((args, kwargs))))
        if name == "backward":
            self.ends += parents[:1]
        elif name in _LEAVING:
            self._left.update(parents)
        if name in _COMING and not parents:
            parents = tuple(self._left)
        if name in _SHAPE_ONLY:
            parents = ()
        elif name in _FIRST_ONLY:
            parents = parents[:1]
        if name in LOSSES:
            self._note_loss(name, args, kwargs)
        sources = [(tensor, self.nodes[self._id(tensor)].rows) for tensor in tensors_in((args, kwargs))]
        packed = any(isinstance(tensor, torch.ScriptObject) for tensor in args)
        if changed is not None:
            made = [changed]
        origins = [Rows(None, True)] * len(made)
        try:
            origins = rows_made(func, name, args, kwargs, made, sources)
        except Exception as error:  # noqa: BLE001  an operation that is called otherwise: no more than the rows is lost
            pass_on(error)
        for tensor, rows in zip(made, origins, strict=True):
            if tensor is changed or tensor not in self._ids:
                number = self._new(tensor, self._made(name, tensor, parents, rows, packed))
                if not self._stack and not self.training and is_vector(tuple(tensor.shape)):
                    self._keep_value(number, tensor)

    def _note_loss(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> None:
        answer = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if isinstance(answer, Tensor):
            held_against = self._id(target) if isinstance(target, Tensor) else None
            self.losses.append(Loss(LOSSES[name] or name, self._id(answer), held_against))

    def _keep_value(self, number: int, tensor: Tensor) -> None:
        """What a step makes of answers, of which the average of several may be one."""
        if len(self.values) < _MOST_VALUES and tensor.is_floating_point():
            with torch.no_grad():
                self.values[number] = tensor.detach().clone()

    def _made(self, name: str, tensor: Tensor, parents: tuple[int, ...], rows: Rows, packed: bool) -> Node:
        of = [self.nodes[parent] for parent in parents]
        data = any(node.data for node in of)
        weights = packed or any(node.weight and _size(node.shape) > 1 for node in of)  # quantised ones are packed
        if not of:
            data = tensor.numel() > 1  # noise, or a number that is calculated with
        here = self._stack[-1] if self._stack else -1
        return Node(name, tuple(tensor.shape), parents, here, data, not data and weights, data and weights, rows=rows)

    def _id(self, tensor: Tensor) -> int:
        """The number of a tensor. One that comes out of the blue is made of what its module was given, or between
        modules of the values that have left torch."""
        number = self._ids.get(tensor)
        if number is None:
            here = self._stack[-1] if self._stack else -1
            if isinstance(tensor, nn.Parameter):
                return self._new(tensor, Node(_PARAMETER, tuple(tensor.shape), data=False, weight=True))
            parents = tuple(self.calls[here].inputs if here >= 0 else self._left)
            data = tensor.numel() > 1 or bool(parents)
            rows = self._rows_as(tensor, parents)
            number = self._new(tensor, Node(_UNKNOWN, tuple(tensor.shape), parents, here, data=data, rows=rows))
        return int(number)

    def _rows_as(self, tensor: Tensor, parents: Sequence[int]) -> Rows:
        """Of what was made out of sight: the rows of what it was made of, if there are as many."""
        if (rows := self._rows_in_batch(tensor)) != OTHER_ROWS:
            return rows
        sources = {self.nodes[parent].rows for parent in parents} - {OTHER_ROWS}
        rows = sources.pop() if len(sources) == 1 else OTHER_ROWS
        return rows if tensor.ndim and len(rows.places or ()) == tensor.shape[0] else OTHER_ROWS

    def _rows_in_batch(self, tensor: Tensor) -> Rows:
        """Of one image of the batch, as a loop over it gives it: where it lies in it, once for each of its rows."""
        block = block_of(tensor) if self._leaves and tensor.ndim else None
        leaf = None if block is None else self._leaves.get(block)
        if leaf is None or not tensor.is_contiguous() or tensor.numel() != leaf.stride(0):
            return OTHER_ROWS
        image, inside = divmod(int(tensor.storage_offset()) - int(leaf.storage_offset()), int(leaf.stride(0)))
        return Rows((image,) * tensor.shape[0]) if not inside else OTHER_ROWS

    def _new(self, tensor: Tensor, node: Node) -> int:
        self.nodes.append(node)
        self._ids[tensor] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def _enter_call(self, path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_apart(module):
            return
        call = Call(len(self.calls), path, module, self._stack[-1] if self._stack else -1, [])
        tensors = list(tensors_in((args, kwargs)))
        call.inputs = [self._id(tensor) for tensor in tensors]
        self._keep_rows((call.index, True), tensors)
        self.calls.append(call)
        self._stack.append(call.index)

    def _leave_call(self, path: str, module: nn.Module, args: Any, kwargs: Any, answer: Any) -> None:
        if not self._stack or self.calls[self._stack[-1]].module is not module or self._is_apart(module, leaving=True):
            return
        call = self.calls[self._stack.pop()]
        heads = heads_in(answer).tensors if call.parent == -1 else {}
        made = list({id(tensor): tensor for tensor in (*tensors_in(answer), *heads.values())}.values())
        for tensor in made:
            if tensor not in self._ids:  # torch does not tell of it: a script, a function with its own gradient
                layer = any(True for _ in module.parameters())
                rows = self._rows_as(tensor, call.inputs)
                node = Node(_UNKNOWN, tuple(tensor.shape), tuple(call.inputs), call.index, layer=layer, rows=rows)
                self._new(tensor, node)
        call.outputs = [self._id(tensor) for tensor in made]
        call.shape = self.nodes[call.outputs[0]].shape if call.outputs else ()
        self._keep_rows((call.index, False), made)
        if call.parent == -1:
            call.heads = heads_in(answer, copies=True)
            self.on_outermost(module)
            call.head_nodes = {name: self._id(tensor) for name, tensor in heads.items()}

    def _is_apart(self, module: nn.Module, *, leaving: bool = False) -> bool:
        """Whether a call is no part of the forward pass: a step that a strategy sends through `forward`, a layer that
        is computed again for its gradient."""
        if not leaving and "_ForwardRedirection" in getattr(module.forward, "__qualname__", ""):
            return True
        return torch._C._current_graph_task_id() != -1

    def _keep_rows(self, key: tuple[int, bool], tensors: list[Tensor]) -> None:
        first = next((tensor for tensor in tensors if tensor.ndim > 0), None)
        if self._keep is None or first is None:
            return
        self._on, on = False, self._on
        try:
            with torch.no_grad():
                rows = reduce_embedding(first, self._keep)
        except Exception as error:  # noqa: BLE001  it does not fit this layer; where it is wanted, the taps say so
            pass_on(error)
            return
        finally:
            self._on = on
        self._kept[key] = first.ndim, rows, half_precision(first)
        self._order.append((key, _size(tuple(rows.shape)) * 4))
        self._bytes += _size(tuple(rows.shape)) * 4
        while self._bytes > MOST_KEPT and len(self._order) > 1:
            oldest, size = self._order.popleft()
            del self._kept[oldest]
            self._bytes -= size

    def forget_values(self) -> None:
        """Let go of all copies; what was made of what stays known."""
        self._kept, self._order, self._ids = {}, deque(), WeakIdKeyDictionary()
        self.values, self._leaves = {}, {}
        for call in self.calls:
            call.heads.tensors.clear()

    # What it means.

    def kept(self, call: Call, *, before: bool) -> tuple[int, Tensor] | None:
        """Number of axes and reduced copy of what went into a call, or came out."""
        kept = self._kept.get((call.index, before))
        return None if kept is None else kept[:2]

    def precision(self, call: Call, *, before: bool) -> dict[str, str]:
        """What is to be noted of the precision of that, see `half_precision`."""
        kept = self._kept.get((call.index, before))
        return {} if kept is None else kept[2]

    def is_sound(self) -> bool:
        """Whether it went through."""
        return self.error is None

    def layers_behind(self, *nodes: int) -> list[int]:
        """The nearest operations with parameters that nodes were made by, themselves among them."""
        return [node for node in self._back(nodes, lambda node: node.layer) if self.nodes[node].layer]

    def steps_behind(self, *nodes: int) -> list[int]:
        """All nodes between these and the nearest operations with parameters, both included."""
        return list(self._back(nodes, lambda node: node.layer))

    def ancestors(self, *nodes: int) -> list[int]:
        """All nodes that these were made of, themselves included."""
        return list(self._back(nodes, lambda node: False))

    def leaves(self, *nodes: int, near: bool = False) -> set[int]:
        """The batch's tensors that nodes were made of; with `near` without an operation with parameters between."""
        behind = self.steps_behind(*nodes) if near else self.ancestors(*nodes)
        return {node for node in behind if self.nodes[node].place is not None}

    def all_leaves(self) -> set[int]:
        """The batch's tensors."""
        return {number for number, node in enumerate(self.nodes) if node.place is not None}

    def calls_giving(self, node: int) -> list[Call]:
        """The calls that returned a tensor as it is, the innermost last."""
        giving = [call for call in self.calls if node in call.outputs]
        return sorted(giving, key=lambda call: (self.depth(call), call.index))

    def depth(self, call: Call) -> int:
        """How many calls it was made in."""
        depth = 0
        while call.parent >= 0:
            call, depth = self.calls[call.parent], depth + 1
        return depth

    def times(self, module: nn.Module) -> int:
        """How often a module was called within one call of the model, at most."""
        within: dict[int, int] = {}
        for call in self.calls:
            if call.module is module:
                outermost = self.outermost(call).index
                within[outermost] = within.get(outermost, 0) + 1
        return max(within.values(), default=0)

    def outermost(self, call: Call) -> Call:
        """The call in none that a call was made in."""
        while call.parent >= 0:
            call = self.calls[call.parent]
        return call

    def _back(self, nodes: Iterable[int], ends: Callable[[Node], bool]) -> Iterator[int]:
        waiting, reached = deque(nodes), set(nodes)
        while waiting:
            number = waiting.popleft()
            yield number
            node = self.nodes[number]
            if ends(node):
                continue
            for parent in node.parents:
                if parent not in reached and self.nodes[parent].data:
                    reached.add(parent)
                    waiting.append(parent)


def _ignored(_: nn.Module) -> None:
    return None


def _leave(mode: TorchFunctionMode) -> None:
    """Leave a mode, also from below others, which stay: another callback's trace may have begun later."""
    stack = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    if not any(active is mode for active in stack):
        return
    above = []
    while (last := _pop_mode()) is not mode:  # type: ignore[no-untyped-call]
        above.append(last)
    for active in reversed(above):
        _push_mode(active)  # type: ignore[no-untyped-call]


def tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    """All tensors in what is passed along: itself, or in tuples, lists, mappings and dataclasses.

    Example:
        >>> len(list(tensors_in((torch.zeros(1), {"a": [torch.zeros(2)], "b": 3}))))
        2
    """
    if isinstance(value, Tensor):
        yield value
    elif depth < _DEPTH:
        for item in _parts(value).values():
            yield from tensors_in(item, depth + 1)


def placed_tensors(batch: Any, path: tuple[int | str, ...] = ()) -> Iterator[tuple[tuple[int | str, ...], Tensor]]:
    """The tensors of a batch with their place: keys and indices from the outside in.

    Example:
        >>> [path for path, _ in placed_tensors((torch.zeros(2), {"label": torch.ones(2)}))]
        [(0,), (1, 'label')]
    """
    if isinstance(batch, Tensor):
        yield path, batch
    elif len(path) < _DEPTH:
        for key, item in _parts(batch).items():
            yield from placed_tensors(item, (*path, key))


def _parts(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return {}


def _has_values_beside_tensors(batch: Any, depth: int = 0) -> bool:
    """Whether there is something in a batch whose way cannot be followed."""
    if isinstance(batch, Tensor) or batch is None or depth >= _DEPTH:
        return False
    parts = _parts(batch)
    if not parts and not isinstance(batch, list | tuple | Mapping):
        return True
    return any(_has_values_beside_tensors(item, depth + 1) for item in parts.values())


def _changed_in_place(name: str, args: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """The tensor that an operation changes, if it works in place."""
    out = kwargs.get("out")
    if isinstance(out, Tensor):
        return out
    if not args or not isinstance(args[0], Tensor):
        return None
    in_place = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
    flagged = kwargs.get("inplace") is True or (name in _MAY_BE_IN_PLACE and any(value is True for value in args[1:]))
    return args[0] if in_place or flagged else None


_MAY_BE_IN_PLACE: Final = {
    "relu", "relu6", "elu", "selu", "celu", "leaky_relu", "hardtanh", "silu", "mish", "hardswish", "hardsigmoid",
    "threshold",
}  # fmt: skip


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _inside_fused(model: nn.Module) -> set[int]:
    return {id(submodule) for module in model.modules() if isinstance(module, _FUSED) for submodule in module.modules()}
