"""A baseline out of MLflow, or out of a folder: nothing is believed before it is checked.

A source such as `models:/digits@champion` stands for places where its baseline may be, best first: beside a registered
version's model, then in the run that made it. MLflow resolves such names too, but through its global tracking URI, so
an explicit one would be ignored for logged models.

Only the files that make a baseline are fetched, by name and after their sizes are known, into a folder that is removed
again; then the same checks apply as to any folder. MLflow's download functions would fetch whatever lies there, and on
a thread pool that the interpreter waits for at exit even when the server hangs; so files are fetched one by one through
the artifact repository, on the bounded thread.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lensai_integrations.errors import FormatError, InputError, LensAIError, TrackingError
from lensai_integrations.mlflow.address import (
    DEFAULT_PATH,
    PATH_PATTERN,
    Checkpoint,
    bounded,
    resolve_tracking_uri,
    without_credentials,
)
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.storage.folders import ARRAYS, MANIFEST, MAX_MANIFEST_BYTES
from lensai_integrations.storage.npz import MAX_FILE_BYTES

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

#: The forms of a source, as they are shown in messages.
FORMS = "a folder, runs:/<run_id>, models:/<name>/<version>, models:/<name>@<alias> or models:/m-<id>"


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
    for location in places(source, MlflowClient(tracking_uri=uri)):
        checkpoint()
        problem = _fetch_from(location, uri, folder, checkpoint)
        if problem is None:
            return
        problems.append(problem)
    raise InputError(f"source={source!r} holds no baseline at {without_credentials(uri)}: {'; '.join(problems)}")


def _fetch_from(location: ArtifactFolder, uri: str, folder: Path, checkpoint: Checkpoint) -> str | None:
    """Download from one place, or say why there is no baseline in it."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(location.root, tracking_uri=uri)
    sizes = {
        Path(entry.path).name: entry.file_size for entry in repository.list_artifacts(location.path) if not entry.is_dir
    }
    if MANIFEST not in sizes:
        return _why_not(location, repository, bool(sizes.keys() & LIMITS.keys()))
    wanted = [name for name in LIMITS if name in sizes]
    for name in wanted:
        size = sizes[name] or 0
        if size > LIMITS[name]:
            raise FormatError(
                f"{location.path}/{name} of {location.name} has {size} bytes, more than {LIMITS[name]} is read"
            )
    for name in wanted:
        checkpoint()
        repository._download_file(f"{location.path}/{name}", str(folder / name))  # type: ignore[no-untyped-call]
        got = (folder / name).stat().st_size
        if sizes[name] not in (None, got):
            raise TrackingError(f"of {location.path}/{name} came {got} bytes, and the server lists {sizes[name]}")
    return None


def _why_not(location: ArtifactFolder, repository: ArtifactRepository, begun: bool) -> str:
    if begun:
        return (
            f"the upload to {location.path!r} of {location.name} was cut short, its manifest is missing: "
            "finish it with 'lensai push' from the folder where the baseline was saved"
        )
    names = sorted(Path(entry.path).name for entry in repository.list_artifacts(None))
    listing = f"it holds {', '.join(names[:10])}" if names else "it holds no artifacts"
    return (
        f"{location.name} has no {location.path!r} ({listing}); pass {location.source}/<path> if it was logged"
        " elsewhere, or log one with log_baseline"
    )


Entity = TypeVar("Entity")


@dataclass(frozen=True)
class ArtifactFolder:
    """A directory of artifacts.

    Attributes:
        name: What holds it, for messages: `"run 3f2a..."`.
        root: Artifact URI of the run or logged model.
        path: Directory below it.
        source: The same place as a source that `load_baseline` takes, without the path.
    """

    name: str
    root: str
    path: str
    source: str


def is_tracked(source: str) -> bool:
    """Whether the source is looked up on a tracking server; a folder is not.

    Raises:
        InputError: If it is an address of another kind, or names a run or model in no form that is known.

    Example:
        >>> is_tracked("runs:/0123abcd"), is_tracked("baselines/digits")
        (True, False)
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", source):
        return False
    if _match(source) is None:
        raise InputError(f"source={source!r} is none of the forms that are read: pass {FORMS}")
    return True


def places(source: str, client: MlflowClient) -> Iterator[ArtifactFolder]:
    """The places where the baseline of a source may be, best first, looked up one by one as they are asked for.

    Raises:
        InputError: If the run, the model, the version or the alias does not exist; with the nearest that does.
        mlflow.exceptions.MlflowException: If the server refuses for another reason.
    """
    matched = _match(source)
    assert matched is not None, "callers ask is_tracked first"
    look_up, parts = matched
    *key, path = parts
    yield from look_up(client, *key, path or DEFAULT_PATH)


def _of_run(client: MlflowClient, run_id: str, path: str) -> Iterator[ArtifactFolder]:
    run = _existing(f"run {run_id}", lambda: client.get_run(run_id), lambda: "run ids are on each run's page")
    yield ArtifactFolder(f"run {run_id}", str(run.info.artifact_uri), path, f"runs:/{run_id}")


def _of_logged_model(client: MlflowClient, model_id: str, path: str) -> Iterator[ArtifactFolder]:
    name = f"logged model {model_id}"
    model = _existing(name, lambda: client.get_logged_model(model_id), lambda: "model ids are on each model's page")
    yield ArtifactFolder(name, str(model.artifact_location), path, f"models:/{model_id}")
    if model.source_run_id:
        yield from _of_run(client, model.source_run_id, path)


def _of_version(client: MlflowClient, name: str, version: str, path: str) -> Iterator[ArtifactFolder]:
    registered = _existing(
        f"version {version} of model {name!r}",
        lambda: client.get_model_version(name, version),
        lambda: _what_exists(client, name),
    )
    if model_id := _logged_model_of(registered):
        yield from _of_logged_model(client, model_id, path)
    elif registered.run_id:
        yield from _of_run(client, registered.run_id, path)
    else:
        raise InputError(f"version {version} of model {name!r} belongs to no logged model and no run: pass a folder")


def _of_alias(client: MlflowClient, name: str, alias: str, path: str) -> Iterator[ArtifactFolder]:
    registered = _existing(
        f"alias {alias!r} of model {name!r}",
        lambda: client.get_model_version_by_alias(name, alias),
        lambda: _what_exists(client, name),
    )
    yield from _of_version(client, name, str(registered.version), path)


def _logged_model_of(version: ModelVersion) -> str | None:
    """The logged model that was registered; most stores name it only in the version's source."""
    named = re.fullmatch(r"models:/(m-[0-9a-f]{32})", version.source or "")
    return version.model_id or (named.group(1) if named else None)


LookUp = Callable[..., Iterator[ArtifactFolder]]

_PATH = rf"(?:/({PATH_PATTERN}))?/?"
_SOURCES: tuple[tuple[re.Pattern[str], LookUp], ...] = (
    (re.compile(rf"runs:/([A-Za-z0-9_-]+){_PATH}"), _of_run),
    (re.compile(rf"models:/(m-[0-9a-f]{{32}}){_PATH}"), _of_logged_model),
    (re.compile(rf"models:/([^/@]+)@([^/@]+){_PATH}"), _of_alias),
    (re.compile(rf"models:/([^/@]+)/([0-9]+){_PATH}"), _of_version),
)


def _match(source: str) -> tuple[LookUp, tuple[str | None, ...]] | None:
    for pattern, look_up in _SOURCES:
        if match := pattern.fullmatch(source):
            return look_up, match.groups()
    return None


def _existing(what: str, look_up: Callable[[], Entity], hint: Callable[[], str]) -> Entity:
    from mlflow.exceptions import MlflowException

    try:
        return look_up()
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    raise InputError(f"{what} does not exist on this tracking server: {hint()}")


def _what_exists(client: MlflowClient, name: str) -> str:
    """What there is of a registered model, or which models have a name like it."""
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3) or sorted(names)[:10]
        return f"registered models are {', '.join(near)}" if near else "no model is registered there"
    model = client.get_registered_model(name)
    newest = max((int(version.version) for version in model.latest_versions), default=0)
    aliases = ", ".join(sorted(model.aliases)) or "none"
    return f"its newest version is {newest}, its aliases are: {aliases}"
