"""The end of a Lightning fit or pass: which baseline it is, and which runs take it. Of whose weights: `whose.py`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.lightning.tracking import runs_of_loggers
from lensai_integrations.lightning.whose import Belonging
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.training.finish import deliver, say_there_is_none
from lensai_integrations.training.options import Options
from lensai_integrations.training.tracking import TrackedRun
from lensai_integrations.training.weights import WEIGHTS_OF


def conclude(
    fit: LightningFit,
    options: Options,
    trainer: Any,
    belonging: Belonging,
    active: TrackedRun | None,
    made: Callable[[Baseline | None, Path | None], None] = lambda baseline, folder: None,
) -> tuple[Baseline | None, Path | None]:
    """Make the baseline, save it, log it, and say where it is and what it lacks.

    Args:
        fit: What was profiled.
        options: What was asked for.
        trainer: The trainer.
        belonging: Whose weights it is of.
        active: The MLflow run that was active when the fit began.
        made: Told what is returned as soon as it is there, for what comes then may be cut short.

    Returns:
        The baseline and the folder it is in; None for what there is not.
    """
    baseline = baseline_of(fit, trainer, belonging)
    if belonging.note:
        say(belonging.note)
    if baseline is None:
        say_there_is_none(fit.reference, fit.problems)
        return None, None
    made(baseline, None)
    if trainer.fast_dev_run:
        say("Baseline: fast_dev_run, so it is neither saved nor logged; it is in `callback.baseline_`.")
        return baseline, None
    runs = runs_of_loggers(trainer) or ([active] if active is not None else [])
    folder = deliver(
        baseline,
        options,
        fit.problems,
        root=_local(trainer.default_root_dir),
        runs=runs,
        say=say,
        saved=lambda folder: made(baseline, folder),
    )
    return baseline, folder


def _local(root: str) -> str:
    """A trainer's folder; the working directory where that is a bucket or another address."""
    path = root.removeprefix("file://")
    return "." if "://" in path else path


def say(message: str) -> None:
    """Log where Lightning logs, on the first rank: there people look."""
    from lightning_utilities.core.rank_zero import rank_zero_info

    rank_zero_info(message)


def baseline_of(fit: LightningFit, trainer: Any, belonging: Belonging) -> Baseline | None:
    """The baseline that the profiles of these weights make; None if there is none."""
    baseline = fit.baseline(belonging.profiles)
    if baseline is not None:
        baseline.info |= {
            "source": baseline.reference.source,
            "epoch": baseline.reference.info.get("epoch"),
            "step": baseline.reference.info.get("step"),
            "checkpoint": belonging.checkpoint,
            WEIGHTS_OF: belonging.whose,
            "model": type(trainer.lightning_module).__name__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_by": {"torch": str(torch.__version__), _lightning(trainer): _version(trainer)},
            "warnings": list(fit.problems.messages),
        }
    return baseline


def _lightning(trainer: Any) -> str:
    return "lightning" if type(trainer).__module__.startswith("lightning.") else "pytorch-lightning"


def _version(trainer: Any) -> str:
    return version(_lightning(trainer))
