"""Lightning: one callback, and the baseline is a by-product of `Trainer.fit`; another holds production against it.

Importing this package imports neither Lightning nor torch; a callback's name does, when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensai_integrations.lightning.callback import BaselineCallback
    from lensai_integrations.lightning.drift import DriftCallback

_HOME = {"BaselineCallback": "callback", "DriftCallback": "drift"}

__all__ = ["BaselineCallback", "DriftCallback"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
