"""An accelerator for machines that have none, which objects to being waited for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from lensai_integrations.arrays import namespaces

#: Operations that have no deterministic form on CUDA, or that read a result back to size their output.
UNFIT = {"histc", "bincount", "kthvalue", "put", "put_", "masked_select", "nonzero", "_unique2", "unique_consecutive"}

#: Operations that look, in torch's deterministic form of them, whether the places they are given are inside.
WRITES_BY_INDEX = {"scatter", "scatter_", "index_put", "index_put_", "index_copy", "index_copy_"}

SEND = namespaces.send


class NeverWaits(TorchDispatchMode):
    """Raises where a real accelerator would be waited for, or refuse `torch.use_deterministic_algorithms(True)`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func.__name__.split(".")[0], kwargs or {}
        assert name not in UNFIT, f"{name} waits for the accelerator or is not deterministic there"
        assert name != "_local_scalar_dense", "a value was read from the accelerator"
        assert name != "cumsum" or not args[0].is_floating_point(), "cumsum of floats is not deterministic on CUDA"
        if torch.are_deterministic_algorithms_enabled():
            assert name not in WRITES_BY_INDEX, f"{name} reads its places back under deterministic algorithms"
        if name in ("index", "index_put", "index_put_"):
            assert all(i is None or i.dtype != torch.bool for i in args[1]), f"{name} with a mask waits"
        result = func(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            self._check_copy(args[1] if name == "copy_" else args[0], result, kwargs, args[2:])
        return result

    @staticmethod
    def _check_copy(source, result, kwargs, rest):
        if source.device == result.device:
            return
        assert result.device.type == "cuda", "values were copied from the accelerator"
        assert kwargs.get("non_blocking") or True in rest, "a blocking copy to the accelerator waits for it"
        # A copy from memory that is not page-locked waits whatever it says; `send` alone has some that is.
        assert _is_within(SEND), "what is sent to the accelerator goes through `send`"


def _is_within(function: Callable[..., object]) -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


@contextmanager
def an_accelerator() -> Iterator[Callable[..., torch.Tensor]]:
    """Makes tensors of a given shape and dtype on a CUDA device that does not exist: shapes and devices, no values."""
    with FakeTensorMode(), NeverWaits():
        yield lambda shape, dtype=torch.float32: torch.zeros(shape, dtype=dtype, device="cuda")
