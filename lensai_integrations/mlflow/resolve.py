"""What a source such as `models:/digits@champion` stands for: the places where its baseline may be, best first.

A registered version's baseline is looked for beside the model itself, then in the run that made it. MLflow resolves
such names too, but through its global tracking URI, so an explicit one would be ignored for logged models.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.address import DEFAULT_PATH, PATH_PATTERN

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Entity = TypeVar("Entity")

#: The forms of a source, as they are shown in messages.
FORMS = "a folder, runs:/<run_id>, models:/<name>/<version>, models:/<name>@<alias> or models:/m-<id>"


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
    found = _match(source)
    assert found is not None, "callers ask is_tracked first"
    look_up, parts = found
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
    found = _existing(
        f"version {version} of model {name!r}",
        lambda: client.get_model_version(name, version),
        lambda: _what_exists(client, name),
    )
    if model_id := _logged_model_of(found):
        yield from _of_logged_model(client, model_id, path)
    elif found.run_id:
        yield from _of_run(client, found.run_id, path)
    else:
        raise InputError(f"version {version} of model {name!r} belongs to no logged model and no run: pass a folder")


def _of_alias(client: MlflowClient, name: str, alias: str, path: str) -> Iterator[ArtifactFolder]:
    found = _existing(
        f"alias {alias!r} of model {name!r}",
        lambda: client.get_model_version_by_alias(name, alias),
        lambda: _what_exists(client, name),
    )
    yield from _of_version(client, name, str(found.version), path)


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
        if found := pattern.fullmatch(source):
            return look_up, found.groups()
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
