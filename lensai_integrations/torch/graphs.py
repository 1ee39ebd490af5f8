"""CUDA graphs: what their memory and their replays mean for who reads a model along.

A graph is captured once and replayed without calling any Python: no module is called, so no hook is. And what it
answers lies where the next replay writes.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

#: Why nothing is seen of a layer.
CAPTURED: Final = (
    "it was called while a CUDA graph was captured, and whoever replays the graph does not call it, so what it answers"
    " then cannot be seen: name a layer outside of the graph, or pass None to leave it out"
)
GRAPHED: Final = (
    "{0!r} around it is replayed as a CUDA graph (torch.cuda.make_graphed_callables), which calls none of its layers,"
    " so what they answer cannot be seen: name {0!r} itself or a layer outside of it, or pass None to leave it out"
)
#: In the qualified name of what takes the place of a graphed module's `forward`.
_MAKER: Final = "make_graphed_callables"


def is_captured() -> bool:
    """Whether what is computed now is not computed but captured, for a CUDA graph.

    Example:
        >>> is_captured()
        False
    """
    started: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return started and torch.cuda.is_current_stream_capturing()


def may_be_overwritten(values: Tensor) -> bool:
    """Whether the memory of what compiled code returned may be that of a CUDA graph.

    Example:
        >>> may_be_overwritten(torch.zeros(2))
        False
    """
    return values.device.type != "cpu"


def graphed_around(model: nn.Module, layer: nn.Module) -> str | None:
    """The path of the module that `torch.cuda.make_graphed_callables` has made a CUDA graph of and that a layer is in.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> graphed_around(model, model[0]) is None
        True
    """
    for path, module in model.named_modules():
        forward = module.__dict__.get("forward")
        is_graphed = _MAKER in str(getattr(forward, "__qualname__", ""))
        if is_graphed and module is not layer and any(inner is layer for inner in module.modules()):
            return str(path)
    return None
