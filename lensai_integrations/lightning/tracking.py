"""Which MLflow runs belong to a trainer: those of its loggers, or else the one that is active around the fit.

MLflow is never imported here: a run can only exist where it is loaded already.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrackedRun:
    """An MLflow run that takes the baseline."""

    run_id: str
    tracking_uri: str


def runs_of_loggers(trainer: Any) -> list[TrackedRun]:
    """The runs of the trainer's MLflow loggers, each once. On all ranks but the first they have none."""
    runs = []
    for logger in trainer.loggers:
        if any(c.__name__ == "MLFlowLogger" for c in type(logger).__mro__) and logger.run_id:
            runs.append(TrackedRun(str(logger.run_id), str(logger.experiment.tracking_uri)))
    return list(dict.fromkeys(runs))


def active_run() -> TrackedRun | None:
    """The MLflow run that is active in this thread, if MLflow is loaded and one is.

    Example:
        >>> import lensai_integrations.lightning.tracking as tracking
        >>> tracking.sys.modules.get("mlflow") is None or active_run() is None
        True
    """
    mlflow = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow is not None else None
    return TrackedRun(str(run.info.run_id), str(mlflow.get_tracking_uri())) if mlflow is not None and run else None
