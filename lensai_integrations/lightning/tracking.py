"""Which MLflow runs belong to a trainer."""

from __future__ import annotations

from typing import Any

from lensai_integrations.training.tracking import TrackedRun


def runs_of_loggers(trainer: Any) -> list[TrackedRun]:
    """The runs of the trainer's MLflow loggers, each once. On all ranks but the first they have none."""
    runs = []
    for logger in trainer.loggers:
        if any(c.__name__ == "MLFlowLogger" for c in type(logger).__mro__) and logger.run_id:
            runs.append(TrackedRun(str(logger.run_id), str(logger.experiment.tracking_uri)))
    return list(dict.fromkeys(runs))
