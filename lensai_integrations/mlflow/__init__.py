"""Baselines in MLflow: to log one to a run or a logged model, to load one, and to monitor a served model with one.

MLflow takes seconds to import and reads the environment when it does, so neither this package nor its functions'
modules import it before a function is called; loading from a folder works without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensai_integrations.mlflow.load import load_baseline
    from lensai_integrations.mlflow.log import finishing_command as finishing_command
    from lensai_integrations.mlflow.log import log_baseline, push
    from lensai_integrations.mlflow.log import upload_files as upload_files
    from lensai_integrations.mlflow.monitoring import MLflowSink
    from lensai_integrations.mlflow.sensors import SensorRuns
    from lensai_integrations.mlflow.wrapping import monitored

_HOME = {
    "MLflowSink": "monitoring",
    "SensorRuns": "sensors",
    "finishing_command": "log",
    "load_baseline": "load",
    "log_baseline": "log",
    "monitored": "wrapping",
    "push": "log",
    "upload_files": "log",
}

__all__ = ["MLflowSink", "SensorRuns", "load_baseline", "log_baseline", "monitored", "push"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
