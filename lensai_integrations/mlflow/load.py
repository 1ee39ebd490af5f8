"""A baseline out of MLflow, or out of a folder: nothing is believed before it is checked.

Only the files that make a baseline are fetched, by name and after their sizes are known, into a folder that is removed
again; then the same checks apply as to any folder (`storage.py`). MLflow's download functions would fetch whatever
lies there, and on a thread pool that the interpreter waits for at exit even when the server hangs; so files are fetched
one by one through the artifact repository, on the bounded thread.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lensai_integrations.errors import FormatError, InputError, LensAIError, TrackingError
from lensai_integrations.mlflow.address import without_credentials
from lensai_integrations.mlflow.resolve import FORMS, ArtifactFolder, is_tracked, places
from lensai_integrations.mlflow.server import Checkpoint, bounded, resolve_tracking_uri
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.storage.folders import ARRAYS, MANIFEST, MAX_MANIFEST_BYTES
from lensai_integrations.storage.npz import MAX_FILE_BYTES

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

#: The files of a baseline and the largest sizes in bytes that are fetched.
LIMITS = {
    MANIFEST: MAX_MANIFEST_BYTES,
    ARRAYS: MAX_FILE_BYTES,
    "streams.csv": MAX_FILE_BYTES,
    "segments.csv": MAX_FILE_BYTES,
    "report.html": MAX_FILE_BYTES,
}


def load_baseline(source: str | Path, *, tracking_uri: str | None = None, deadline: float = 60.0) -> Baseline:
    """Load a baseline from a folder or from MLflow, after every check.

    Args:
        source: A folder, `runs:/<run_id>`, `models:/<name>/<version>`, `models:/<name>@<alias>` or `models:/m-<id>`.
            All but the folder may end in `/<artifact path>` where that is not `lensai`. What is logged beside a model
            wins over what is logged to the run that made it.
        tracking_uri: MLflow's own setting by default.
        deadline: Seconds that the server gets for everything.

    Raises:
        InputError: If the source has no such form, or names nothing that exists, or nothing that holds a baseline.
        FormatError: If a check fails: manifest, sha256, sizes, versions, contents.
        MissingDependencyError: If the source is not a folder and MLflow is not installed.
        TrackingError: If the server cannot be reached, refuses, or does not answer in time.

    Example:
        >>> import tempfile
        >>> from lensai_integrations import Baseline, Profile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_baseline(Baseline(Profile(info={"source": "validation"})).save(folder)).reference.source
        'validation'
    """
    text = str(source)
    if isinstance(source, Path) or not is_tracked(text):
        return _load_folder(Path(source))
    uri = resolve_tracking_uri(tracking_uri)
    with tempfile.TemporaryDirectory(prefix="lensai_load_", ignore_cleanup_errors=True) as folder:
        try:
            bounded(lambda checkpoint: _fetch(text, uri, Path(folder), checkpoint), deadline, uri)
            return Baseline.load(folder)
        except TrackingError as error:
            problem: LensAIError = TrackingError(f"{text} could not be loaded from {without_credentials(uri)}: {error}")
        except FormatError as error:
            problem = FormatError(str(error).replace(folder, text))
    raise problem


def _load_folder(folder: Path) -> Baseline:
    if folder.is_dir():
        return Baseline.load(folder)
    name = str(folder)
    prefix = next((p for p, form in _BARE_IDS.items() if re.fullmatch(form, name)), "")
    guess = f" (did you mean {prefix}{name}?)" if prefix else ""
    raise InputError(f"source={name!r} is not a folder{guess}: pass {FORMS}")


_BARE_IDS = {"runs:/": r"[0-9a-f]{32}", "models:/": r"m-[0-9a-f]{32}"}


def _fetch(source: str, uri: str, folder: Path, checkpoint: Checkpoint) -> None:
    """Download the files of the first place that holds a whole baseline."""
    from mlflow import MlflowClient

    problems = []
    for place in places(source, MlflowClient(tracking_uri=uri)):
        checkpoint()
        problem = _fetch_from(place, uri, folder, checkpoint)
        if problem is None:
            return
        problems.append(problem)
    raise InputError(f"source={source!r} holds no baseline at {without_credentials(uri)}: {'; '.join(problems)}")


def _fetch_from(place: ArtifactFolder, uri: str, folder: Path, checkpoint: Checkpoint) -> str | None:
    """Download from one place, or say why there is no baseline in it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(place.root, tracking_uri=uri)
    sizes = {
        Path(entry.path).name: entry.file_size for entry in repository.list_artifacts(place.path) if not entry.is_dir
    }
    if MANIFEST not in sizes:
        return _why_not(place, repository, bool(sizes.keys() & LIMITS.keys()))
    wanted = [name for name in LIMITS if name in sizes]
    for name in wanted:
        size = sizes[name] or 0
        if size > LIMITS[name]:
            raise FormatError(f"{place.path}/{name} of {place.name} has {size} bytes, more than {LIMITS[name]} is read")
    for name in wanted:
        checkpoint()
        repository._download_file(f"{place.path}/{name}", str(folder / name))  # type: ignore[no-untyped-call]
        got = (folder / name).stat().st_size
        if sizes[name] not in (None, got):
            raise TrackingError(f"of {place.path}/{name} came {got} bytes, and the server lists {sizes[name]}")
    return None


def _why_not(place: ArtifactFolder, repository: ArtifactRepository, begun: bool) -> str:
    if begun:
        return (
            f"the upload to {place.path!r} of {place.name} was cut short, its manifest is missing: "
            "finish it with 'lensai push' from the folder where the baseline was saved"
        )
    names = sorted(Path(entry.path).name for entry in repository.list_artifacts(None))
    listing = f"it holds {', '.join(names[:10])}" if names else "it holds no artifacts"
    return (
        f"{place.name} has no {place.path!r} ({listing}); pass {place.source}/<path> if it was logged elsewhere, "
        "or log one with log_baseline"
    )
