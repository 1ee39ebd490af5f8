"""What layers answer in the forward pass that runs anyway, caught by hooks.

A hook does as little as it can: while the buffer is open, it keeps a reduced copy of the layer's first answer in this
batch. First, because gradient checkpointing runs a layer a second time; a copy, because the next operation may work in
place and because CUDA graphs reuse their memory. Inside a compiled model the hook is compiled as well, so there it
keeps a plain copy, and the reduction comes after the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lensai_integrations.arrays import Array
from lensai_integrations.errors import InputError
from lensai_integrations.lightning.layers import Layer
from lensai_integrations.measures.embeddings import Reduce, reduce_embedding
from lensai_integrations.training.problems import Problems
from lensai_integrations.training.recording import OUTPUTS, Listened, reduce_name


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


class _Kept(NamedTuple):
    axes: int
    values: Any
    reduced: bool


class Taps:
    """The hooks on a model and the buffer they write to.

    Args:
        taps: What to catch.
        problems: Where a failing hook is reported.

    Attributes:
        layers: What a recording has to know of them.
    """

    def __init__(self, taps: Sequence[Tap], problems: Problems) -> None:
        self._taps = {tap.key: tap for tap in taps}
        self._problems = problems
        self._open = False
        self._kept: dict[str, _Kept] = {}
        self.layers = [Listened(tap.key, tap.layer.path, _info(tap)) for tap in taps]
        self._handles = [_registered(tap, self._catch) for tap in taps]

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._taps.values())

    def open(self) -> None:
        """Begin a batch: from now on the first answer of each layer is kept."""
        self._kept = {}
        self._open = True

    def close(self) -> dict[str, Array]:
        """End the batch: what was kept, by the taps' keys."""
        self._open = False
        all_kept, self._kept = self._kept, {}
        rows = {}
        for key, kept in all_kept.items():
            reduce = self._taps[key].reduce
            with self._problems.caught(key):
                rows[key] = kept.values if kept.reduced or reduce is None else reduce_embedding(kept.values, reduce)
        for layer in self.layers:
            if layer.key in rows and layer.key != OUTPUTS:
                layer.info["axes"] = all_kept[layer.key].axes
        return rows

    def remove(self) -> None:
        """Take all hooks off the model, so that it can be pickled."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.close()

    def _catch(self, key: str, answer: Any) -> None:
        if not self._open or key in self._kept:
            return
        if torch.compiler.is_compiling():
            tensor = first_tensor(answer)
            if tensor is not None:
                self._kept[key] = _Kept(tensor.ndim, tensor.detach().clone(), False)
            return
        with self._problems.caught(key), torch.no_grad():
            self._kept[key] = _copied(self._taps[key], answer)


def _info(tap: Tap) -> dict[str, Any]:
    info: dict[str, Any] = {"layer": tap.layer.path + (".input" if tap.layer.before else "")}
    if tap.reduce is None:
        return info | {"linear": isinstance(tap.layer.module, torch.nn.Linear) and not tap.layer.before}
    return info | {"reduce": reduce_name(tap.reduce)}


class _Hook:
    """A forward hook, or with `before` a forward pre-hook. Pickled or copied with a model it turns inert."""

    def __init__(self, key: str, before: bool, catch: Callable[[str, Any], None]) -> None:
        self._key, self._before, self._catch = key, before, catch

    def __call__(self, _: Any, args: Any, kwargs: Any, answer: Any = None) -> None:
        self._catch(self._key, (args, kwargs) if self._before else answer)

    def __reduce__(self) -> Any:
        return _inert_hook, ()


def _inert_hook() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*_: Any) -> None:
    return None


def _registered(tap: Tap, catch: Callable[[str, Any], None]) -> Any:
    hook = _Hook(tap.key, tap.layer.before, catch)
    if tap.layer.before:
        return tap.layer.module.register_forward_pre_hook(hook, with_kwargs=True)
    return tap.layer.module.register_forward_hook(hook, with_kwargs=True)


def _copied(tap: Tap, answer: Any) -> _Kept:
    tensor = first_tensor(answer)
    if tensor is None:
        raise InputError(f"layer {tap.layer.path!r} has no tensor in what it answers, a {type(answer).__name__}")
    if tap.reduce is None:
        return _Kept(tensor.ndim, tensor.detach().clone(), False)
    return _Kept(tensor.ndim, reduce_embedding(tensor, tap.reduce), True)


def first_tensor(answer: Any) -> Tensor | None:
    """The first tensor with rows in what a layer answers: itself, or in tuples, lists and mappings, depth first.

    Example:
        >>> first_tensor(((), {"hidden": torch.zeros(2, 3)})).shape
        torch.Size([2, 3])
    """
    if isinstance(answer, Tensor):
        return answer if answer.ndim > 0 else None
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, list | tuple):
        for part in answer:
            found = first_tensor(part)
            if found is not None:
                return found
    return None
