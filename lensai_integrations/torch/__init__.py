"""PyTorch modules from inside: plain loops, a monitor beside a module, hooks on layers, what a model's answer is.

A module and batches come in, rows for a profiler or a monitor go out. Needs torch, which importing this package does
not load, and knows of no Lightning.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lensai_integrations.errors import MissingDependencyError

if TYPE_CHECKING:
    from lensai_integrations.torch.loops import profiled
    from lensai_integrations.torch.watching import watch

_HOME = {"profiled": "loops", "watch": "watching"}

__all__ = ["profiled", "watch"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingDependencyError("torch is not installed: pip install torch") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
