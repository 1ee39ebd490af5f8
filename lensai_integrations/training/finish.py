"""The end of a fit: its baseline is saved, calibrated, saved again and logged.

First to disk, then to MLflow, so that a server that is down costs nothing but the upload; and before the calibration,
which takes long enough for Ctrl-C or a scheduler to cut it short. What is uploaded is what was made, in memory: the
folder may be another fit's by then.

Folds and trials are fits of one program, often in one working directory, in whatever threads and processes: each has a
folder of its own. It is named after the run that tracks the fit, if one does. Where several fits have one name by that,
the first has it and the others have numbers. What an earlier program left is replaced.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Final

from lensai_integrations.mlflow.address import DEFAULT_PATH
from lensai_integrations.problems import Problems, log, suppressed
from lensai_integrations.profiles.coverage import coverage_text
from lensai_integrations.profiles.profile import Baseline, files_of
from lensai_integrations.storage.folders import MANIFEST, turn, write_files
from lensai_integrations.training.options import Options
from lensai_integrations.training.tracking import TrackedRun, name_of_run

#: What the folder of a baseline is called.
FOLDER: Final = "lensai_baseline"
_BESIDE: Final = " (beside that of an earlier fit, in {}; pass directory= for a folder that the latest fit replaces)"
_INSTEAD: Final = " (in place of that of an earlier fit; pass another directory= for each to keep both)"
_INSTEAD_OF_OLD: Final = " (in place of an earlier program's)"
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
    target = BaselineFolder(root, options, name_of_run(runs))
    with _how_to_finish(target, baseline, options, runs):
        files = _saved(baseline, target, problems)
        if target.folder is not None:
            saved(target.folder)
        calibrated = _calibrated(baseline, options, problems)
        if calibrated is not None:
            files = _saved(calibrated, target, problems) or files
            baseline.calibration = calibrated.calibration
        logged = upload(files, target.folder, runs, options, problems) if files else []
    _say_where(baseline, target, options, logged, say)
    return target.folder


def say_there_is_none(reference: str, problems: Problems) -> None:
    """Tell the user that a fit ended without a baseline, and why."""
    because = f" ({'; '.join(problems.messages)})" if problems.messages else ""
    log.warning("there is no baseline: no whole %s pass was profiled%s", reference, because)


def _saved(baseline: Baseline, target: BaselineFolder, problems: Problems) -> Mapping[str, bytes]:
    """Write the baseline with its report to its folder.

    Returns:
        The files as they are there; none if they could not be made. If they could not be written, that is a problem.
    """
    files: Mapping[str, bytes] = {}
    with problems.caught(f"saving to {target.first}"):
        files = files_of(baseline, report_html=_report(baseline, problems))
        target.write(files)
    return files


def _report(baseline: Baseline, problems: Problems) -> str | None:
    from lensai_integrations.report import baseline_html

    with problems.caught("report.html"):
        return baseline_html(baseline)
    return None


def _lacks_calibration(baseline: Baseline, options: Options) -> bool:
    """Whether a baseline is to be calibrated and keeps rows enough. With fewer, formulas are to be trusted more, and
    the report says that it is judged by them."""
    from lensai_integrations.drift.calibration import FEWEST_ROWS

    rows = baseline.reference.rows
    wanted = bool(options.clean_windows) and baseline.calibration is None
    return wanted and rows is not None and rows.n >= FEWEST_ROWS


def _calibrated(baseline: Baseline, options: Options, problems: Problems) -> Baseline | None:
    """The baseline with its calibration; None if there is none to be made, or it failed, which is a problem."""
    from lensai_integrations.drift.learning import calibrate

    if _lacks_calibration(baseline, options):
        with problems.caught("calibration"), progress_bar("calibrating the baseline") as tick:
            return calibrate(baseline, draws=options.clean_windows, seed=options.seed, progress=tick)
    return None


@contextmanager
def _how_to_finish(
    target: BaselineFolder, baseline: Baseline, options: Options, runs: Sequence[TrackedRun]
) -> Iterator[None]:
    """Where the block is cut short, by Ctrl-C or a user's signal handler: say what is on disk and how to do the rest.

    There is no upload then: whoever stops a program does not wait for a server.
    """
    try:
        yield
    except BaseException as error:
        if target.folder is not None:
            log.warning("%s", _told(target.folder, baseline, options, runs, type(error).__name__))
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
    target: BaselineFolder,
    options: Options,
    logged: Sequence[TrackedRun],
    say: Callable[[str], None],
) -> None:
    places = [f"saved to {target.folder}{target.note}"] if target.folder is not None else []
    for run in logged:
        again = (run, options.artifact_path) in _LOGGED
        places.append(f"logged to MLflow run {run.run_id}{_AGAIN if again else ''}")
        _LOGGED.add((run, options.artifact_path))
    say(f"Baseline of {_rows_of(baseline)}: {', '.join(places) or 'kept in memory only'}.")
    if baseline.warnings:
        log.warning("about the baseline: %s", "; ".join(baseline.warnings))


def _rows_of(baseline: Baseline) -> str:
    """How many rows the reference is of, and the training profile where that is not of all batches."""
    rows = f"{baseline.n} {baseline.reference.source} rows"
    training = baseline.training
    of = "" if training is None else coverage_text(training.info)
    return rows if training is None or not of else f"{rows}, and of {training.n} {training.source} rows ({of})"


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr that is gone when done; nothing where that is no terminal.

    Args:
        label: What is being done.

    Returns:
        A context of a function to be told how much is done, and of how much.

    Example:
        >>> with progress_bar("profiling") as tick:
        ...     tick(1, 2)
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# -- folders


class BaselineFolder:
    """The folder of a fit's baseline. It is taken when it is first written to, and stays the same.

    Args:
        root: The folder that it goes into, unless the options name one.
        options: What the user asked for.
        run: What the run is called that tracks the fit; nothing if none does.

    Attributes:
        first: Where it is to be, if no other fit of the program is there.
        folder: Where it is; None before there is a baseline in it.
        note: What is to be said of other baselines there or beside it.
    """

    def __init__(self, root: str | Path, options: Options, run: str = "") -> None:
        directory = options.directory
        first = Path(directory) if directory is not None else Path(root) / folder_name(options, run)
        self.first = first
        with suppressed(OSError):  # the working directory may be gone; saving says so
            self.first = first.absolute()
        self.folder: Path | None = None
        self.note = ""
        self._is_given, self._since = directory is not None, options.since
        self._taken: Path | None = None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write a baseline's files there.

        Raises:
            InputError: If there is a file in its place.
            OSError: If it cannot be written.
        """
        if self._taken is None:
            self._taken = self._given() if self._is_given else self._free()
        write_files(self._taken, files)
        self.folder = self._taken

    def _given(self) -> Path:
        manifest = self.first / MANIFEST
        if manifest.exists():
            self.note = _INSTEAD if _is_recent(manifest, self._since) else _INSTEAD_OF_OLD
        return self.first

    def _free(self) -> Path:
        """A folder that no other fit of this program takes from here on."""
        self.first.parent.mkdir(parents=True, exist_ok=True)
        with turn(self.first.parent):
            names = chain([self.first.name], (f"{self.first.name}-{number}" for number in count(2)))
            folder = next(candidate for candidate in map(self.first.with_name, names) if self._take(candidate))
        if folder != self.first:
            self.note = _BESIDE.format(self.first)
        elif (folder / MANIFEST).exists():
            self.note = _INSTEAD_OF_OLD
        return folder

    def _take(self, folder: Path) -> bool:
        """Take a folder, unless another fit of this program has, in whatever process: it has changed it since."""
        with suppress(FileExistsError):
            folder.mkdir()
            return True
        if not folder.is_dir():
            return True  # saving says what is wrong with it
        if _is_recent(folder, self._since):
            return False
        os.utime(folder)
        return True


def _is_recent(path: Path, since: float) -> bool:
    """Whether it was changed since then. Disks may round times down to seconds, and so do we."""
    return path.stat().st_mtime >= int(since)


def folder_name(options: Options, run: str) -> str:
    """The name of a fit's folder: two callbacks have two artifact paths, two runs their names, and so two folders."""
    path = "" if options.artifact_path == DEFAULT_PATH else options.artifact_path
    return "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", word) for word in (FOLDER, path, run) if word)
