"""Counts the operations that a torch accelerator is asked for: those that start work there, views not included."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that only look at memory in another way, or ask for some.
FREE = {
    "_unsafe_view", "alias", "as_strided", "detach", "diagonal", "empty", "empty_strided", "expand", "lift_fresh",
    "movedim", "permute", "reshape", "select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze",
    "view",
}  # fmt: skip


class Operations(TorchDispatchMode):
    """Counts while it is entered, tensors made by the test itself included.

    Attributes:
        names: Of the operations, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @property
    def count(self) -> int:
        return len(self.names)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        first = result[0] if isinstance(result, tuple | list) and result else result
        name = func.__name__.split(".")[0]
        if isinstance(first, torch.Tensor) and first.device.type != "cpu" and name not in FREE:
            self.names.append(func.__name__)
        return result
