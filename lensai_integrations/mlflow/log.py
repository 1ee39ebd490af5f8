"""A baseline into MLflow: to disk first, then to the server, the manifest last.

Training is over when this runs, and nothing may be lost to a server that is down. So the folder on disk is complete
before the server is spoken to, it is kept when the upload fails, and the error names the one command that finishes the
job. On the server, readers refuse a baseline without its manifest, and the manifest is the last file to arrive.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.mlflow.address import (
    DEFAULT_PATH,
    Checkpoint,
    bounded,
    checked_path,
    resolve_tracking_uri,
    without_credentials,
)
from lensai_integrations.mlflow.load import LIMITS
from lensai_integrations.problems import pass_on
from lensai_integrations.profiles.profile import files_of
from lensai_integrations.storage.folders import MANIFEST, read_files, write_files

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    from lensai_integrations.profiles.profile import Baseline

#: Tag of runs and logged models that hold a whole baseline; its value is the artifact path.
TAG = "lensai.baseline"

#: What a stale file says where it cannot be deleted.
_GONE = "This file was of an earlier baseline. The one that is here now has none.\n"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where a baseline goes: a run, a logged model, or both."""

    run_id: str | None
    model_id: str | None
    tracking_uri: str
    artifact_path: str

    def __str__(self) -> str:
        run = f"run {self.run_id}" if self.run_id else ""
        model = f"logged model {self.model_id}" if self.model_id else ""
        return f"{' and '.join(filter(None, (run, model)))} at {without_credentials(self.tracking_uri)}"

    @property
    def source(self) -> str:
        """What `load_baseline` takes to read it back."""
        home = f"models:/{self.model_id}" if self.model_id else f"runs:/{self.run_id}"
        return home if self.artifact_path == DEFAULT_PATH else f"{home}/{self.artifact_path}"


def log_baseline(
    baseline: Baseline,
    *,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    model_id: str | None = None,
    artifact_path: str = DEFAULT_PATH,
    deadline: float = 60.0,
    directory: str | Path | None = None,
) -> str:
    """Log a baseline with its report to an MLflow run, to a logged model, or to both. Never makes a run.

    The artifacts are `report.html`, `streams.csv`, `profile.npz` and `manifest.json`; the run or logged model gets the
    tag `lensai.baseline` with the artifact path as its value.

    Args:
        baseline: What to log.
        run_id: An existing run; by default, if no `model_id` is given, the active run of the calling thread.
        tracking_uri: MLflow's own setting by default.
        model_id: A logged model (`"m-..."`), pending or ready. The best home for the baseline of a deployment.
        artifact_path: Directory below the run or logged model.
        deadline: Seconds that the server gets for everything.
        directory: Folder to save to, and to keep. By default a temporary one that is kept only if the upload fails.

    Returns:
        What `load_baseline` takes to read it back, such as `"runs:/<run_id>"`.

    Raises:
        InputError: If there is neither a run nor a logged model to log to, or an argument is malformed.
        MissingDependencyError: If MLflow is not installed.
        TrackingError: If the baseline could not be saved or uploaded. The message has the cause, the folder where the
            baseline is saved, and the `lensai push` command that finishes the upload.

    Example:
        >>> from lensai_integrations import Baseline, Profile
        >>> log_baseline(Baseline(Profile()), run_id="0123abcd", artifact_path="../elsewhere")
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: artifact_path='../elsewhere' cannot be used; ...
    """
    target = _target(run_id, model_id, tracking_uri, artifact_path)
    files = files_of(baseline, report_html=_report(baseline, target.run_id))
    folder = _save(files, directory)
    _upload(files, folder, target, deadline)
    if directory is None:
        shutil.rmtree(folder, ignore_errors=True)
    return target.source


def push(
    directory: str | Path,
    *,
    run_id: str | None = None,
    tracking_uri: str | None = None,
    model_id: str | None = None,
    artifact_path: str = DEFAULT_PATH,
    deadline: float = 60.0,
) -> str:
    """Upload a saved baseline or profile to an MLflow run, a logged model, or both.

    It finishes what `log_baseline` could not. The folder is read once and verified, and the files that its manifest
    lists are uploaded as they were read, whoever saves to it meanwhile. The other arguments and the result are those of
    `log_baseline`.

    Raises:
        FormatError: If the folder is not a saved baseline or profile, or was changed since.
        InputError: If there is neither a run nor a logged model to upload to, or an argument is malformed.
        MissingDependencyError: If MLflow is not installed.
        TrackingError: If the upload failed. The message has the cause and the command that finishes it.
    """
    target = _target(run_id, model_id, tracking_uri, artifact_path)
    saved = Path(directory).absolute()
    _upload(read_files(saved), saved, target, deadline)
    return target.source


def upload_files(
    files: Mapping[str, bytes],
    saved: Path | None,
    *,
    run_id: str | None,
    tracking_uri: str | None = None,
    model_id: str | None = None,
    artifact_path: str = DEFAULT_PATH,
    deadline: float = 60.0,
) -> str:
    """Upload the files of a baseline as they are in memory, whatever has become of the folder they were saved in.

    Args:
        files: Contents by name, as `files_of` and `read_files` give them.
        saved: Where they were saved: what the command names that finishes an upload that failed. None if nowhere.
        run_id: As in `log_baseline`, like the rest and the result.
        tracking_uri: MLflow's own setting by default.
        model_id: A logged model.
        artifact_path: Directory below the run or logged model.
        deadline: Seconds that the server gets for everything.

    Raises:
        InputError: If there is neither a run nor a logged model to upload to, or an argument is malformed.
        MissingDependencyError: If MLflow is not installed.
        TrackingError: If the upload failed. The message has the cause and the command that finishes it.
    """
    target = _target(run_id, model_id, tracking_uri, artifact_path)
    _upload(files, saved, target, deadline)
    return target.source


def _target(run_id: str | None, model_id: str | None, tracking_uri: str | None, artifact_path: str) -> Target:
    checked_path(artifact_path)
    uri = resolve_tracking_uri(tracking_uri)
    if not run_id and not model_id:
        run_id = active_run_id()
    return Target(run_id, model_id, uri, artifact_path)


def active_run_id() -> str:
    """The run that is active in the calling thread.

    Raises:
        InputError: If there is none.
    """
    import mlflow

    run = mlflow.active_run()
    if run is None:
        raise InputError(
            "run_id=None, and no MLflow run is active in this thread (each thread has its own): pass run_id= of an "
            "existing run or model_id= of a logged model, or call inside 'with mlflow.start_run():'"
        )
    return str(run.info.run_id)


def _save(files: Mapping[str, bytes], directory: str | Path | None) -> Path:
    """The files in a folder on disk; what was half written to a temporary one is removed."""
    folder = Path(tempfile.mkdtemp(prefix="lensai_baseline_") if directory is None else directory).absolute()
    try:
        write_files(folder, files)
        return folder
    except OSError as error:
        pass_on(error)
        if directory is None:
            shutil.rmtree(folder, ignore_errors=True)
        problem = error.strerror or str(error)
    raise TrackingError(
        f"the baseline could not be saved to {folder} and was not uploaded: {problem}; "
        "free some space there, or pass directory= on another disk"
    )


def _report(baseline: Baseline, run_id: str | None) -> str | None:
    """The report, whose commands name the run; the baseline itself does not depend on where it is logged."""
    from lensai_integrations.report import baseline_html

    try:
        return baseline_html(replace(baseline, info=baseline.info | {"run_id": run_id}))
    except Exception as error:  # noqa: BLE001 - a report that cannot be drawn must not cost the baseline
        pass_on(error)
        _log.warning("the baseline is logged without report.html, which could not be made: %r", error)
        return None


def _upload(files: Mapping[str, bytes], saved: Path | None, target: Target, deadline: float) -> None:
    """Upload from a folder that no other process writes to: MLflow takes files only, and `saved` may be another's."""
    names = [*sorted(files.keys() - {MANIFEST}), MANIFEST]
    try:
        with tempfile.TemporaryDirectory(prefix="lensai_upload_", ignore_cleanup_errors=True) as folder:
            for name in names:
                (Path(folder) / name).write_bytes(files[name])
            bounded(lambda checkpoint: _send(Path(folder), names, target, checkpoint), deadline, target.tracking_uri)
            return
    except TrackingError as error:
        problem = str(error)
    except OSError as error:
        pass_on(error)
        reason = error.strerror or str(error)
        problem = f"no temporary folder could hold a copy ({reason}); set TMPDIR to a folder on another disk"
    whereabouts = "It is saved nowhere" if saved is None else f"It is saved in {saved}"
    rest = "" if saved is None else f"; finish with{_finishing_command(saved, target)}"
    raise TrackingError(f"the baseline was not uploaded to {target}: {problem}. {whereabouts}{rest}")


def _send(folder: Path, names: list[str], target: Target, checkpoint: Checkpoint) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=target.tracking_uri)
    if target.run_id:
        checkpoint()
        _send_to(client.get_run(target.run_id).info.artifact_uri, folder, names, target, checkpoint)
        client.set_tag(target.run_id, TAG, target.artifact_path)
    if target.model_id:
        checkpoint()
        _send_to(client.get_logged_model(target.model_id).artifact_location, folder, names, target, checkpoint)
        client.set_logged_model_tags(target.model_id, {TAG: target.artifact_path})


def _send_to(location: str, folder: Path, names: list[str], target: Target, checkpoint: Checkpoint) -> None:
    """Send the files to one place, the manifest last, and see that they are there.

    Through the repository itself: the client's own functions know a run's repository by the run's id alone, at
    whatever address it was at first.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    path = target.artifact_path
    repository = get_artifact_repository(location, tracking_uri=target.tracking_uri)
    if location.startswith("mlflow-artifacts:"):  # a short question shows sooner than an upload what the server lacks
        checkpoint()
        repository.list_artifacts(path)
    for name in names:
        checkpoint()
        if name == MANIFEST:
            _remove_stale(repository, path, names, checkpoint)
        repository.log_artifact(str(folder / name), path)  # type: ignore[no-untyped-call]
    checkpoint()
    _check_listed(repository, path, {name: (folder / name).stat().st_size for name in names})


def _check_listed(repository: ArtifactRepository, path: str, sent: Mapping[str, int]) -> None:
    """Hold what the server lists against what was sent; not every store says sizes.

    Raises:
        TrackingError: If something is missing or of another size.
    """
    listed = {Path(entry.path).name: entry.file_size for entry in repository.list_artifacts(path)}
    wrong = [f"{name} is missing" for name in sent if name not in listed]
    wrong += [
        f"{name} has {listed[name]} bytes instead of {size}"
        for name, size in sent.items()
        if name in listed and listed[name] not in (None, size)
    ]
    if wrong:
        raise TrackingError(
            f"it said that it took the files and does not have them as they were sent: {', '.join(wrong)}"
        )


def _remove_stale(repository: ArtifactRepository, path: str, names: list[str], checkpoint: Checkpoint) -> None:
    """Remove what an earlier baseline has left there and this one does not have; where a store deletes nothing, the
    file says so instead."""
    for name in _stale(repository, path, names):
        checkpoint()
        with suppress(Exception):  # some stores cannot, some do not allow it
            repository.delete_artifacts(f"{path}/{name}")  # type: ignore[no-untyped-call]
    for name in _stale(repository, path, names):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_text(_GONE)
            checkpoint()
            repository.log_artifact(str(Path(folder) / name), path)  # type: ignore[no-untyped-call]


def _stale(repository: ArtifactRepository, path: str, names: list[str]) -> list[str]:
    listed = {Path(entry.path).name for entry in repository.list_artifacts(path)}
    return sorted((listed & LIMITS.keys()) - set(names))


def finishing_command(saved: Path, *, run_id: str, tracking_uri: str, artifact_path: str) -> str:
    """The command that uploads a baseline which was saved and not logged, as the end of a sentence.

    Example:
        >>> finishing_command(Path("out"), run_id="0a", tracking_uri="http://m", artifact_path="lensai")
        ': lensai push out --run 0a --tracking-uri http://m'
    """
    return _finishing_command(saved, Target(run_id, None, tracking_uri, artifact_path))


def _finishing_command(folder: Path, target: Target) -> str:
    """The command, without the URI's credentials: where it had some, they come from the environment."""
    uri = without_credentials(target.tracking_uri)
    words = ["lensai", "push", str(folder)]
    words += ["--run", target.run_id] if target.run_id else []
    words += ["--model", target.model_id] if target.model_id else []
    words += ["--artifact-path", target.artifact_path] if target.artifact_path != DEFAULT_PATH else []
    whole = shlex.join([*words, "--tracking-uri", uri])
    if uri == target.tracking_uri:
        return f": {whole}"
    if uri.startswith("http"):
        return f" (set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD first): {whole}"
    return f" (set MLFLOW_TRACKING_URI to the URI with its credentials first): {shlex.join(words)}"
