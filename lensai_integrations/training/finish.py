"""The end of a fit: where its baseline goes.

First to disk, then to MLflow, so that a server that is down costs nothing but the upload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from lensai_integrations.mlflow.address import DEFAULT_PATH
from lensai_integrations.profile import Baseline
from lensai_integrations.progress import progress_bar
from lensai_integrations.storage import ARRAYS, MANIFEST
from lensai_integrations.training.options import Options
from lensai_integrations.training.problems import Problems, log
from lensai_integrations.training.tracking import TrackedRun

FOLDER = "lensai_baseline"
#: The folders that fits of this process have written to, and what they were asked for when these were not named.
_WRITTEN: Final[dict[Path, Options]] = {}
#: The MLflow runs that fits of this process have logged to, with the artifact path.
_LOGGED: Final[set[tuple[TrackedRun, str]]] = set()
_BESIDE: Final = " (beside that of an earlier fit, in {}; pass directory= for a folder that the latest fit replaces)"
_INSTEAD: Final = " (in place of that of an earlier fit; pass another {}= for each to keep both)"


def deliver(
    baseline: Baseline,
    options: Options,
    problems: Problems,
    *,
    root: str | Path,
    runs: Sequence[TrackedRun],
    say: Callable[[str], None],
) -> Path | None:
    """Save a baseline, log it, and say where it is and what it lacks.

    Args:
        baseline: What fit has made.
        options: Where the user wants it.
        problems: Where it is reported what failed.
        root: The folder that the baseline's folder goes into, unless the options name one.
        runs: The MLflow runs that take it.
        say: Tells the user.

    Returns:
        The folder it is in; None if it could not be saved.
    """
    calibrated(baseline, options, problems)
    folder, note = save(baseline, options, root, problems)
    logged = upload(folder, runs, options, problems) if folder is not None else []
    places = [f"saved to {folder}{note}"] if folder is not None else []
    for run in logged:
        earlier = (run, options.artifact_path) in _LOGGED
        places.append(f"logged to MLflow run {run.run_id}{_INSTEAD.format('artifact_path') if earlier else ''}")
        _LOGGED.add((run, options.artifact_path))
    say(f"Baseline of {baseline.n} {baseline.reference.source} rows: {', '.join(places) or 'kept in memory only'}.")
    if baseline.warnings:
        log.warning("about the baseline: %s", "; ".join(baseline.warnings))
    return folder


def say_there_is_none(reference: str, problems: Problems) -> None:
    """Tell the user that a fit ended without a baseline, and why."""
    because = f" ({'; '.join(problems.messages)})" if problems.messages else ""
    log.warning("there is no baseline: no whole %s pass was profiled%s", reference, because)


def calibrated(baseline: Baseline, options: Options, problems: Problems) -> None:
    """Give a baseline its calibration, if it keeps rows enough; what else prevents it is a problem."""
    if not options.clean_windows or baseline.calibration is not None:
        return
    from lensai_integrations.drift.calibrate import FEWEST_ROWS, calibrate

    rows = baseline.reference.rows
    if rows is None or rows.n < FEWEST_ROWS:
        return  # formulas are to be trusted more then, and the report says that it is judged by them
    with problems.caught("calibration"), progress_bar("calibrating the baseline") as tick:
        done = calibrate(baseline, draws=options.clean_windows, seed=options.seed, progress=tick)
        baseline.calibration = done.calibration


def save(baseline: Baseline, options: Options, root: str | Path, problems: Problems) -> tuple[Path | None, str]:
    """Write the baseline with its report to its folder; None if that failed. And what is to be said of an earlier one.

    Folds and trials are fits of one program with the same arguments: each has a folder of its own, `lensai_baseline`,
    `lensai_baseline-2` and so on, whatever process it runs in. What an earlier program left is replaced, and so is what
    this process made when it was asked for something else. A folder that was asked for is taken as it is.
    """
    report = _report(baseline, problems)
    first = Path(options.directory) if options.directory is not None else Path(root) / _folder_name(options)
    with problems.caught(f"saving to {first}"):
        folder, note = _taken(first.absolute(), options)
        baseline.save(folder, report_html=report)
        _WRITTEN[folder] = options if options.directory is None else _WRITTEN.get(folder, options)
        return folder, note
    return None, ""


def _taken(first: Path, options: Options) -> tuple[Path, str]:
    """The folder of a fit, which no other fit takes from here on."""
    if options.directory is not None:
        return first, _INSTEAD.format("directory") if _is_recent(first / MANIFEST, options.since) else ""
    for number in count(1):
        folder = first.with_name(f"{first.name}-{number}") if number > 1 else first
        if _WRITTEN.get(folder, options) != options and folder.exists():
            return folder, _INSTEAD.format("directory")
        if _take(folder, options.since):
            break
    return folder, _BESIDE.format(first) if folder != first else ""


def _take(folder: Path, since: float) -> bool:
    """Take a folder, unless another fit of this program has, in whatever process; of two at once only one gets it."""
    with suppress(FileExistsError):
        folder.mkdir(parents=True)
        return True
    if not folder.is_dir():
        return True  # saving says what is wrong with it
    whole = (folder / MANIFEST).exists()
    mark = folder / (MANIFEST if whole else ARRAYS)
    if _is_recent(mark if whole else folder, since):
        return False
    try:  # what an earlier program has left; only one process can remove it
        if mark.exists() or whole:
            mark.unlink()
        elif not any(folder.iterdir()):
            folder.rmdir()
            folder.mkdir()
    except (FileNotFoundError, FileExistsError):
        return False
    return True


def _is_recent(path: Path, since: float) -> bool:
    """Whether a file was written since then. Disks may round times down to seconds, and so do we."""
    return path.exists() and path.stat().st_mtime >= int(since)


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
