"""The end of a Lightning fit: which baseline it is, of which weights, and which runs take it."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lensai_integrations.lightning.checkpoints import stored_state
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.lightning.tracking import runs_of_loggers
from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.training.checkpoints import profiles_of
from lensai_integrations.training.finish import deliver, say_there_is_none
from lensai_integrations.training.options import Options
from lensai_integrations.training.tracking import TrackedRun


def conclude(
    fit: LightningFit, options: Options, trainer: Any, state_key: str, active: TrackedRun | None
) -> tuple[Baseline | None, Path | None]:
    """Make the baseline, save it, log it, and say where it is and what it lacks.

    Returns:
        The baseline and the folder it is in; None for what there is not.
    """
    baseline = baseline_of(fit, trainer, state_key)
    if baseline is None:
        say_there_is_none(fit.reference, fit.problems)
        return None, None
    if trainer.fast_dev_run:
        say("Baseline: fast_dev_run, so it is neither saved nor logged; it is in `callback.baseline_`.")
        return baseline, None
    runs = runs_of_loggers(trainer) or ([active] if active is not None else [])
    return baseline, deliver(baseline, options, fit.problems, root=trainer.default_root_dir, runs=runs, say=say)


def say(message: str) -> None:
    """Log where Lightning logs, on the first rank: there people look."""
    from lightning_utilities.core.rank_zero import rank_zero_info

    rank_zero_info(message)


def baseline_of(fit: LightningFit, trainer: Any, state_key: str) -> Baseline | None:
    """The baseline that belongs to the best checkpoint if there is one, else the latest; None if there is none."""
    path = best_checkpoint(trainer)
    profiles, used = fit.profiles, ""
    if path:
        with fit.problems.caught("best checkpoint"):
            stored = profiles_of(stored_state(path, state_key))
            profiles, used = _with_stored(fit, stored), path
    baseline = fit.baseline(profiles)
    if baseline is not None:
        baseline.info |= {
            "source": baseline.reference.source,
            "epoch": baseline.reference.info.get("epoch"),
            "step": baseline.reference.info.get("step"),
            "checkpoint": Path(used).name if used else None,
            "model": type(trainer.lightning_module).__name__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_by": {"torch": str(torch.__version__), _lightning(trainer): _version(trainer)},
            "warnings": list(fit.problems.messages),
        }
    return baseline


def best_checkpoint(trainer: Any) -> str:
    """Path of the best checkpoint: of the first callback that monitors something, else of the first; or empty."""
    found = [c for c in trainer.checkpoint_callbacks if getattr(c, "best_model_path", "")]
    found.sort(key=lambda callback: getattr(callback, "monitor", None) is None)
    return str(found[0].best_model_path) if found else ""


def _with_stored(fit: LightningFit, stored: dict[str, Profile]) -> dict[str, Profile]:
    """The checkpoint's profiles; what it lacks, because it was saved before the first whole pass, is the latest."""
    missing = fit.profiles.keys() - stored.keys()
    if missing:
        fit.problems.note(
            "best checkpoint",
            f"it was saved before a first whole {' and '.join(sorted(missing))} pass, so that is a later one",
        )
    return {**fit.profiles, **stored}


def _lightning(trainer: Any) -> str:
    return "lightning" if type(trainer).__module__.startswith("lightning.") else "pytorch-lightning"


def _version(trainer: Any) -> str:
    return version(_lightning(trainer))
