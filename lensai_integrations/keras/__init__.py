"""Keras: one callback, and the baseline is a by-product of `model.fit`; another holds production against it.

Importing this package imports neither Keras nor a backend: which backend it is, the user's own import decides.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensai_integrations.keras.callback import BaselineCallback
    from lensai_integrations.keras.data import profile_dataset
    from lensai_integrations.keras.drift import DriftCallback

_HOME = {"BaselineCallback": "callback", "DriftCallback": "drift", "profile_dataset": "data"}

__all__ = ["BaselineCallback", "DriftCallback", "profile_dataset"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
