"""Data baselines as a by-product of training.

Public names are loaded when first used, so that `import lensai_integrations` costs milliseconds and imports no
framework: a training script pays only for what it touches.
"""

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Final

import lazy_loader

__version__ = "0.1.0"

#: Modules that scripts import and that have another name now, by the name they had.
_MOVED: Final = {
    "datasets": "profiling.datasets",
    "drift.events": "monitoring.events",
    "drift.monitor": "monitoring.monitor",
    "drift.sinks": "monitoring.sinks",
    "profile": "profiles.profile",
    "profiler": "profiling.profiler",
    "training.problems": "problems",
    "uploads": "edge.sending",
}


class _Moved(MetaPathFinder, Loader):
    """Finds a module by the name it had: the same module, and a `DeprecationWarning` that says where it is."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Of a module that has moved, or of one in a package that has."""
        return ModuleSpec(name, self) if _now(name) else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of today in its place."""
        warnings.warn(
            f"{module.__name__} is {_now(module.__name__)} now: import that", DeprecationWarning, stacklevel=2
        )
        sys.modules[module.__name__] = import_module(_now(module.__name__))


def _now(name: str) -> str:
    """Where a module is that has moved; nothing of all others, among them those of other packages."""
    package, _, before = name.partition(".")
    moved = next((old for old in _MOVED if f"{before}.".startswith(f"{old}.")), "") if package == __name__ else ""
    return f"{__name__}.{_MOVED[moved]}{before.removeprefix(moved)}" if moved else ""


sys.meta_path.insert(0, _Moved())  # before Python looks for a moved package's modules and loads them a second time

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
