"""Data baselines as a by-product of training.

Public names are loaded when first used, so that `import lensai_integrations` costs milliseconds and imports no
framework: a training script pays only for what it touches.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensai_integrations.datasets import profile_dataset
    from lensai_integrations.drift.calibrate import calibrate
    from lensai_integrations.drift.compare import DriftReport, compare
    from lensai_integrations.drift.monitor import DriftMonitor
    from lensai_integrations.errors import LensAIError
    from lensai_integrations.lensai.metrics import Metrics
    from lensai_integrations.lensai.percentiles import calculate_percentiles, get_histogram_sketch
    from lensai_integrations.lensai.sketches import Sketches
    from lensai_integrations.measures.custom import measure
    from lensai_integrations.measures.inputs import ImageInputs
    from lensai_integrations.profile import Baseline, Profile
    from lensai_integrations.profiler import Profiler

__version__ = "0.1.0"

_HOME = {
    "Baseline": "profile",
    "DriftMonitor": "drift.monitor",
    "DriftReport": "drift.compare",
    "ImageInputs": "measures.inputs",
    "LensAIError": "errors",
    "Metrics": "lensai.metrics",
    "Profile": "profile",
    "Profiler": "profiler",
    "Sketches": "lensai.sketches",
    "calculate_percentiles": "lensai.percentiles",
    "calibrate": "drift.calibrate",
    "compare": "drift.compare",
    "get_histogram_sketch": "lensai.percentiles",
    "measure": "measures.custom",
    "profile_dataset": "datasets",
}

__all__ = [
    "Baseline",
    "DriftMonitor",
    "DriftReport",
    "ImageInputs",
    "LensAIError",
    "Metrics",
    "Profile",
    "Profiler",
    "Sketches",
    "calculate_percentiles",
    "calibrate",
    "compare",
    "get_histogram_sketch",
    "measure",
    "profile_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
