"""Sources are told apart by their form, and what does not exist is answered with the nearest that does."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest
from tracking import Store

from lensai_integrations.errors import InputError
from lensai_integrations.mlflow.load import ArtifactFolder, is_tracked, places

MODEL = "m-" + "0" * 32


def found(store: Store, source: str) -> list[ArtifactFolder]:
    return list(places(source, store.client))


@pytest.fixture
def name() -> str:
    """A model name that no other test uses."""
    return f"digits {uuid4().hex[:8]}"


@pytest.mark.parametrize(
    "source",
    [
        "runs:/0123abcd",
        "runs:/0123abcd/",
        "runs:/0123abcd/lensai/best",
        "models:/digits/12",
        "models:/digits/12/lensai",
        "models:/catalog.schema.digits@champion",
        "models:/two words@champion/lensai",
        f"models:/{MODEL}",
        f"models:/{MODEL}/lensai",
    ],
)
def test_runs_and_models_are_tracked(source: str) -> None:
    assert is_tracked(source)


@pytest.mark.parametrize("source", ["lensai", "./a/b", "/abs/olute", "C:/data/lensai", "C:\\data", "m-1", "runs", ""])
def test_everything_without_a_scheme_is_a_folder(source: str) -> None:
    assert not is_tracked(source)


@pytest.mark.parametrize(
    "source",
    [
        "runs:/",
        "runs:/0123abcd/../other",
        "runs:/0123abcd/a b",
        "runs://profile@databricks/0123abcd",
        "models:/digits",
        "models:/digits/Production",
        "models:/digits/latest",
        "models:/digits@",
        "models:/@champion",
        "s3://bucket/lensai",
        "file:///tmp/lensai",
        "http://host/lensai",
        "mlflow-artifacts:/1/2",
    ],
)
def test_other_addresses_are_refused_with_the_forms_that_are_read(source: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"source={source!r}") + ".*runs:/<run_id>.*models:/m-<id>"):
        is_tracked(source)


def test_a_run_is_its_artifacts(store: Store) -> None:
    run_id = store.new_run()
    root = store.client.get_run(run_id).info.artifact_uri
    assert found(store, f"runs:/{run_id}") == [ArtifactFolder(f"run {run_id}", root, "lensai", f"runs:/{run_id}")]
    assert found(store, f"runs:/{run_id}/a/b")[0].path == "a/b"


def test_a_logged_model_comes_before_the_run_that_made_it(store: Store) -> None:
    run_id = store.new_run()
    model_id = store.new_model(run_id)
    model, run = found(store, f"models:/{model_id}/best")
    assert model.root == store.client.get_logged_model(model_id).artifact_location
    assert model.source == f"models:/{model_id}"
    assert (model.path, run.path) == ("best", "best")
    assert run == found(store, f"runs:/{run_id}/best")[0]


def test_a_version_and_an_alias_are_the_logged_model_behind_them(store: Store, name: str) -> None:
    model_id = store.new_model(store.new_run())
    version = store.new_version(name, model_id, alias="champion")
    expected = found(store, f"models:/{model_id}")
    assert found(store, f"models:/{name}/{version}") == expected
    assert found(store, f"models:/{name}@champion") == expected


def test_an_alias_follows_when_it_moves(store: Store, name: str) -> None:
    store.new_version(name, store.new_model(), alias="champion")
    newer = store.new_model()
    store.new_version(name, newer, alias="champion")
    assert found(store, f"models:/{name}@champion")[0].source == f"models:/{newer}"


def test_a_version_without_a_logged_model_is_its_run(store: Store, name: str) -> None:
    run_id, client = store.new_run(), store.client
    client.create_registered_model(name)
    client.create_model_version(name, f"{client.get_run(run_id).info.artifact_uri}/model", run_id)
    assert [place.name for place in found(store, f"models:/{name}/1")] == [f"run {run_id}"]


def test_places_are_looked_up_one_by_one(embedded_store: Store) -> None:
    client = embedded_store.client
    run_id = embedded_store.new_run()
    model_id = embedded_store.new_model(run_id)

    def fail(_: str) -> None:
        raise AssertionError("the run was asked for although the model was enough")

    client.get_run = fail
    assert next(places(f"models:/{model_id}", client)).name == f"logged model {model_id}"


@pytest.mark.parametrize("source", ["runs:/0123abcd", f"models:/{MODEL}"])
def test_what_does_not_exist_is_named(store: Store, source: str) -> None:
    with pytest.raises(InputError, match=f"{source.split('/')[1]} does not exist"):
        found(store, source)


def test_an_unknown_model_is_answered_with_names_like_it(store: Store, name: str) -> None:
    store.new_version(name, store.new_model())
    misspelt = name.replace("digits", "digitz")
    with pytest.raises(InputError, match=f"{misspelt}.* does not exist.*registered models are {name}"):
        found(store, f"models:/{misspelt}/1")


def test_an_unknown_version_is_answered_with_the_newest(store: Store, name: str) -> None:
    for _ in range(2):
        store.new_version(name, store.new_model())
    with pytest.raises(
        InputError, match=r"version 9 of model .* does not exist.*newest version is 2, its aliases are: none"
    ):
        found(store, f"models:/{name}/9")


def test_an_unknown_alias_is_answered_with_those_there_are(store: Store, name: str) -> None:
    store.new_version(name, store.new_model(), alias="champion")
    with pytest.raises(InputError, match=r"alias 'champoin' of model .* does not exist.*aliases are: champion"):
        found(store, f"models:/{name}@champoin")


def test_no_model_at_all_is_said(embedded_store: Store) -> None:
    client = embedded_store.client
    client.search_registered_models = lambda **_: []
    with pytest.raises(InputError, match="no model is registered there"):
        list(places("models:/digits/1", client))
