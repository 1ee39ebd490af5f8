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
        """Of a module that has moved; asked for what is found nowhere else."""
        return ModuleSpec(name, self) if name.removeprefix(f"{__name__}.") in _MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of today in its place."""
        now = f"{__name__}.{_MOVED[module.__name__.removeprefix(f'{__name__}.')]}"
        warnings.warn(f"{module.__name__} is {now} now: import that", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = import_module(now)


sys.meta_path.append(_Moved())

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
