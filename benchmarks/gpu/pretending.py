"""Tensors in host memory that are treated as an accelerator's: to try a script, or a test, where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lensai_integrations.arrays import namespaces


def _local(array: Any) -> Any:
    return array.detach() if isinstance(array, torch.Tensor) else _TRUE["local"](array)


def _is_host(array: Any) -> bool:
    return not isinstance(array, torch.Tensor) and bool(_TRUE["is_host"](array))


_TRUE = {"local": namespaces.local, "is_host": namespaces.is_host}
_FALSE = {"local": _local, "is_host": _is_host}


@contextmanager
def as_an_accelerator() -> Iterator[None]:
    """Within this no torch tensor is viewed as numpy, in any module of the package that asks where an array lies."""
    modules = [
        (module, name)
        for path, module in list(sys.modules.items())
        if path.startswith("lensai_integrations.") and module is not namespaces
        for name, true in _TRUE.items()
        if getattr(module, name, None) is true
    ]
    for module, name in modules:
        setattr(module, name, _FALSE[name])
    try:
        yield
    finally:
        for module, name in modules:
            setattr(module, name, _TRUE[name])
