"""The end of a fit: which baseline it is, and where it goes.

First to disk, then to MLflow, so that a server that is down costs nothing but the upload.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lensai_integrations.lightning.checkpoints import profiles_of, stored_state
from lensai_integrations.lightning.fit import Fit
from lensai_integrations.lightning.options import Options
from lensai_integrations.lightning.problems import Problems, log
from lensai_integrations.lightning.tracking import TrackedRun, runs_of_loggers
from lensai_integrations.mlflow.address import DEFAULT_PATH
from lensai_integrations.profile import Baseline, Profile

FOLDER = "lensai_baseline"


def conclude(
    fit: Fit, options: Options, trainer: Any, state_key: str, active: TrackedRun | None
) -> tuple[Baseline | None, Path | None]:
    """Make the baseline, save it, log it, and say where it is and what it lacks.

    Returns:
        The baseline and the folder it is in; None for what there is not.
    """
    baseline = baseline_of(fit, trainer, state_key)
    if baseline is None:
        log.warning(
            "there is no baseline: no whole %s pass was profiled%s", fit.reference, _because(fit.problems.messages)
        )
        return None, None
    if trainer.fast_dev_run:
        say("Baseline: fast_dev_run, so it is neither saved nor logged; it is in `callback.baseline_`.")
        return baseline, None
    folder = save(baseline, options, trainer.default_root_dir, fit.problems)
    runs = runs_of_loggers(trainer) or ([active] if active is not None else [])
    logged = upload(folder, runs, options, fit.problems) if folder is not None else []
    places = [f"saved to {folder}"] if folder is not None else []
    places += [f"logged to MLflow run {run.run_id}" for run in logged]
    say(f"Baseline of {baseline.n} {baseline.reference.source} rows: {', '.join(places) or 'kept in memory only'}.")
    if baseline.warnings:
        log.warning("about the baseline: %s", "; ".join(baseline.warnings))
    return baseline, folder


def _because(messages: list[str]) -> str:
    return f" ({'; '.join(messages)})" if messages else ""


def say(message: str) -> None:
    """Log where Lightning logs, on the first rank: there people look."""
    from lightning_utilities.core.rank_zero import rank_zero_info

    rank_zero_info(message)


def baseline_of(fit: Fit, trainer: Any, state_key: str) -> Baseline | None:
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


def _with_stored(fit: Fit, stored: dict[str, Profile]) -> dict[str, Profile]:
    """The checkpoint's profiles; what it lacks, because it was saved before the first whole pass, is the latest."""
    missing = fit.profiles.keys() - stored.keys()
    if missing:
        fit.problems.note(
            "best checkpoint",
            f"it was saved before a first whole {' and '.join(sorted(missing))} pass, so that is a later one",
        )
    return {**fit.profiles, **stored}


def save(baseline: Baseline, options: Options, root: str, problems: Problems) -> Path | None:
    """Write the baseline with its report to its folder; None if that failed."""
    folder = Path(options.directory) if options.directory is not None else Path(root) / _folder_name(options)
    report = _report(baseline, problems)
    with problems.caught(f"saving to {folder}"):
        return baseline.save(folder.absolute(), report_html=report)
    return None


def _folder_name(options: Options) -> str:
    """Two callbacks have two artifact paths, and so two folders."""
    own = options.artifact_path.replace("/", "-")
    return FOLDER if own == DEFAULT_PATH else f"{FOLDER}-{own}"


def _report(baseline: Baseline, problems: Problems) -> str | None:
    from lensai_integrations.report import baseline_html

    with problems.caught("report.html"):
        return baseline_html(baseline)
    return None


def upload(folder: Path, runs: Sequence[TrackedRun], options: Options, problems: Problems) -> list[TrackedRun]:
    """Log the folder to the runs. What fails is one problem, with the command that finishes it.

    Returns:
        The runs that have the baseline.
    """
    done = []
    for run in runs:
        with problems.caught(f"MLflow run {run.run_id}"):
            _push(folder, run, options)
            done.append(run)
    return done


def _push(folder: Path, run: TrackedRun, options: Options) -> None:
    from lensai_integrations.mlflow import push

    push(
        folder,
        run_id=run.run_id,
        tracking_uri=run.tracking_uri,
        artifact_path=options.artifact_path,
        deadline=options.upload_deadline,
    )


def _lightning(trainer: Any) -> str:
    return "lightning" if type(trainer).__module__.startswith("lightning.") else "pytorch-lightning"


def _version(trainer: Any) -> str:
    return version(_lightning(trainer))
