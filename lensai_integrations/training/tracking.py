"""The MLflow run that is active around a fit.

MLflow is never imported here: a run can only exist where it is loaded already.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
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


def name_of_run(runs: Sequence[TrackedRun]) -> str:
    """What the run is called that a fit belongs to: MLflow's id, else that of the run of Weights & Biases in this
    process, else nothing.

    Example:
        >>> name_of_run([TrackedRun("0123abcd", "sqlite:///mlflow.db")])
        '0123abcd'
    """
    if runs:
        return runs[0].run_id
    run = getattr(sys.modules.get("wandb"), "run", None)
    return str(getattr(run, "id", None) or "")
