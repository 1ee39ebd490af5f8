"""The end of a fit: its baseline is saved, calibrated, saved again and logged.

First to disk, then to MLflow, so that a server that is down costs nothing but the upload; and before the calibration,
which takes long enough for Ctrl-C or a scheduler to cut it short. What is uploaded is what was made, in memory: the
folder may be another fit's by then.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lensai_integrations.problems import Problems, log
from lensai_integrations.profiles.profile import Baseline, files_of
from lensai_integrations.progress import progress_bar
from lensai_integrations.training.options import Options
from lensai_integrations.training.place import BaselineFolder
from lensai_integrations.training.tracking import TrackedRun, name_of_run

#: The MLflow runs that fits of this process have logged to, with the artifact path.
_LOGGED: Final[set[tuple[TrackedRun, str]]] = set()
_AGAIN: Final = " (in place of that of an earlier fit; pass another artifact_path= for each to keep both)"


def deliver(
    baseline: Baseline,
    options: Options,
    problems: Problems,
    *,
    root: str | Path,
    runs: Sequence[TrackedRun],
    say: Callable[[str], None],
    saved: Callable[[Path], None] = lambda folder: None,
) -> Path | None:
    """Save a baseline, calibrate it, log it, and say where it is and what it lacks.

    Args:
        baseline: What fit has made; it is given its calibration.
        options: Where the user wants it.
        problems: Where it is reported what failed.
        root: The folder that the baseline's folder goes into, unless the options name one.
        runs: The MLflow runs that take it.
        say: Tells the user.
        saved: Told the folder as soon as the baseline is in it.

    Returns:
        The folder it is in; None if it could not be saved.
    """
    place = BaselineFolder(root, options, name_of_run(runs))
    with _how_to_finish(place, baseline, options, runs):
        files = _saved(baseline, place, problems)
        if place.folder is not None:
            saved(place.folder)
        calibrated = _calibrated(baseline, options, problems)
        if calibrated is not None:
            files = _saved(calibrated, place, problems) or files
            baseline.calibration = calibrated.calibration
        logged = upload(files, place.folder, runs, options, problems) if files else []
    _say_where(baseline, place, options, logged, say)
    return place.folder


def say_there_is_none(reference: str, problems: Problems) -> None:
    """Tell the user that a fit ended without a baseline, and why."""
    because = f" ({'; '.join(problems.messages)})" if problems.messages else ""
    log.warning("there is no baseline: no whole %s pass was profiled%s", reference, because)


def _saved(baseline: Baseline, place: BaselineFolder, problems: Problems) -> Mapping[str, bytes]:
    """Write the baseline with its report to its folder.

    Returns:
        The files as they are there; none if they could not be made. If they could not be written, that is a problem.
    """
    files: Mapping[str, bytes] = {}
    with problems.caught(f"saving to {place.first}"):
        files = files_of(baseline, report_html=_report(baseline, problems))
        place.write(files)
    return files


def _report(baseline: Baseline, problems: Problems) -> str | None:
    from lensai_integrations.report import baseline_html

    with problems.caught("report.html"):
        return baseline_html(baseline)
    return None


def _lacks_calibration(baseline: Baseline, options: Options) -> bool:
    """Whether a baseline is to be calibrated and keeps rows enough. With fewer, formulas are to be trusted more, and
    the report says that it is judged by them."""
    from lensai_integrations.drift.calibrate import FEWEST_ROWS

    rows = baseline.reference.rows
    wanted = bool(options.clean_windows) and baseline.calibration is None
    return wanted and rows is not None and rows.n >= FEWEST_ROWS


def _calibrated(baseline: Baseline, options: Options, problems: Problems) -> Baseline | None:
    """The baseline with its calibration; None if there is none to be made, or it failed, which is a problem."""
    from lensai_integrations.drift.calibrate import calibrate

    if _lacks_calibration(baseline, options):
        with problems.caught("calibration"), progress_bar("calibrating the baseline") as tick:
            return calibrate(baseline, draws=options.clean_windows, seed=options.seed, progress=tick)
    return None


@contextmanager
def _how_to_finish(
    place: BaselineFolder, baseline: Baseline, options: Options, runs: Sequence[TrackedRun]
) -> Iterator[None]:
    """Where the block is cut short, by Ctrl-C or a user's signal handler: say what is on disk and how to do the rest.

    There is no upload then: whoever stops a program does not wait for a server.
    """
    try:
        yield
    except BaseException as error:
        if place.folder is not None:
            log.warning("%s", _told(place.folder, baseline, options, runs, type(error).__name__))
        raise


def _told(folder: Path, baseline: Baseline, options: Options, runs: Sequence[TrackedRun], why: str) -> str:
    from lensai_integrations.mlflow.log import finishing_command

    lacks, commands = _lacks_calibration(baseline, options), []
    if lacks:
        words = ["lensai", "calibrate", str(folder), "--output", str(folder)]
        words += ["--windows", str(options.clean_windows), "--seed", str(options.seed)]
        commands.append(f": {shlex.join(words)}")
    for run in runs:
        uri, path = run.tracking_uri, options.artifact_path
        commands.append(finishing_command(folder, run_id=run.run_id, tracking_uri=uri, artifact_path=path))
    rest = f"; finish with{' and then'.join(commands)}" if commands else ""
    return f"{why}: the baseline is saved{' without calibration' if lacks else ''} in {folder}{rest}"


def upload(
    files: Mapping[str, bytes], saved: Path | None, runs: Sequence[TrackedRun], options: Options, problems: Problems
) -> list[TrackedRun]:
    """Log files to the runs. What fails is one problem, with the command that finishes it.

    Args:
        files: Contents by name.
        saved: Where they are, too; None if no disk has taken them.
        runs: The runs.
        options: Under which path, and how long.
        problems: Where it is reported what failed.

    Returns:
        The runs that have the baseline.
    """
    done = []
    for run in runs:
        with problems.caught(f"MLflow run {run.run_id}"):
            _push(files, saved, run, options)
            done.append(run)
    return done


def _push(files: Mapping[str, bytes], saved: Path | None, run: TrackedRun, options: Options) -> None:
    from lensai_integrations.mlflow.log import upload_files

    upload_files(
        files,
        saved,
        run_id=run.run_id,
        tracking_uri=run.tracking_uri,
        artifact_path=options.artifact_path,
        deadline=options.upload_deadline,
    )


def _say_where(
    baseline: Baseline,
    place: BaselineFolder,
    options: Options,
    logged: Sequence[TrackedRun],
    say: Callable[[str], None],
) -> None:
    places = [f"saved to {place.folder}{place.note}"] if place.folder is not None else []
    for run in logged:
        again = (run, options.artifact_path) in _LOGGED
        places.append(f"logged to MLflow run {run.run_id}{_AGAIN if again else ''}")
        _LOGGED.add((run, options.artifact_path))
    say(f"Baseline of {baseline.n} {baseline.reference.source} rows: {', '.join(places) or 'kept in memory only'}.")
    if baseline.warnings:
        log.warning("about the baseline: %s", "; ".join(baseline.warnings))
