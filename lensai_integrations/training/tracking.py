"""The MLflow run that is active around a fit.

MLflow is never imported here: a run can only exist where it is loaded already.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class TrackedRun:
    """An MLflow run that takes the baseline."""

    run_id: str
    tracking_uri: str


def active_run() -> TrackedRun | None:
    """The MLflow run that is active in this thread, if MLflow is loaded and one is.

    Example:
        >>> import lensai_integrations.training.tracking as tracking
        >>> tracking.sys.modules.get("mlflow") is None or active_run() is None
        True
    """
    mlflow = sys.modules.get("mlflow")
    run = mlflow.active_run() if mlflow is not None else None
    return TrackedRun(str(run.info.run_id), str(mlflow.get_tracking_uri())) if mlflow is not None and run else None
