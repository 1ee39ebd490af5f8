"""A baseline is the same wherever it is loaded from, and nothing that is not one gets through.

Sources are told apart by their form, and what does not exist is answered with the nearest that does.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from tracking import Store, contents

import lensai_integrations.mlflow.load as load_module
from lensai_integrations import Baseline, Profiler
from lensai_integrations.errors import FormatError, InputError, MissingDependencyError, TrackingError
from lensai_integrations.mlflow import load_baseline, log_baseline
from lensai_integrations.mlflow.load import ArtifactFolder, is_tracked, places
from lensai_integrations.profiles.profile import to_bytes

pytestmark = pytest.mark.usefixtures("temporary")


@pytest.fixture
def run_id(store: Store, baseline: Baseline) -> str:
    """A run that holds the baseline."""
    run_id = store.new_run()
    log_baseline(baseline, run_id=run_id, tracking_uri=store.uri)
    return run_id


def stored(store: Store, id: str) -> Path:
    """Where the store keeps the baseline of a run or logged model."""
    (found,) = store.artifacts.rglob(f"{id}/artifacts/lensai")
    return found


def same(a: Baseline, b: Baseline) -> bool:
    return to_bytes(a) == to_bytes(b)


def test_from_a_folder(baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    folder = baseline.save(tmp_path / "saved")
    assert same(load_baseline(folder), baseline)
    assert same(load_baseline(str(folder)), baseline)


def test_a_lone_profile_becomes_a_reference(baseline: Baseline, tmp_path: Path) -> None:
    loaded = load_baseline(baseline.reference.save(tmp_path / "saved"))
    assert loaded.n == baseline.n
    assert loaded.training is None


def test_from_a_run(store: Store, baseline: Baseline, run_id: str) -> None:
    assert same(load_baseline(f"runs:/{run_id}", tracking_uri=store.uri), baseline)
    assert same(load_baseline(f"runs:/{run_id}/lensai/", tracking_uri=store.uri), baseline)


def test_with_segments(store: Store) -> None:
    profiler = Profiler(source="validation", segment_by="label", seed=0)
    profiler.update(inputs=np.zeros((6, 8, 8, 3), np.uint8), labels=np.arange(6) % 2)
    made = Baseline(profiler.profile())
    run_id = store.new_run()
    log_baseline(made, run_id=run_id, tracking_uri=store.uri)
    assert same(load_baseline(f"runs:/{run_id}", tracking_uri=store.uri), made)


def test_from_the_tracking_uri_that_mlflow_is_set_to(
    store: Store, baseline: Baseline, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    assert same(load_baseline(f"runs:/{run_id}"), baseline)


def test_from_a_logged_model_a_version_and_an_alias(store: Store, baseline: Baseline) -> None:
    model_id, name = store.new_model(), f"digits-{uuid4().hex[:8]}"
    version = store.new_version(name, model_id, alias="champion")
    assert log_baseline(baseline, model_id=model_id, tracking_uri=store.uri) == f"models:/{model_id}"
    for source in (f"models:/{model_id}", f"models:/{name}/{version}", f"models:/{name}@champion"):
        assert same(load_baseline(source, tracking_uri=store.uri), baseline)


def test_a_model_without_a_baseline_has_that_of_its_run(store: Store, baseline: Baseline, run_id: str) -> None:
    model_id, name = store.new_model(run_id), f"digits-{uuid4().hex[:8]}"
    store.new_version(name, model_id, run_id)
    assert same(load_baseline(f"models:/{name}/1", tracking_uri=store.uri), baseline)


def test_the_baseline_of_a_model_wins_over_that_of_its_run(store: Store, baseline: Baseline, run_id: str) -> None:
    model_id = store.new_model(run_id)
    own = Baseline(baseline.reference, None, {"epoch": 7})
    log_baseline(own, model_id=model_id, tracking_uri=store.uri)
    assert load_baseline(f"models:/{model_id}", tracking_uri=store.uri).info["epoch"] == 7
    assert load_baseline(f"runs:/{run_id}", tracking_uri=store.uri).info["epoch"] == baseline.info["epoch"]


def test_what_log_baseline_returns_is_a_source(store: Store, baseline: Baseline) -> None:
    run_id = store.new_run()
    source = log_baseline(baseline, run_id=run_id, tracking_uri=store.uri, artifact_path="a/b-c")
    assert same(load_baseline(source, tracking_uri=store.uri), baseline)


def test_downloads_are_byte_for_byte_and_cleaned_up(
    store: Store, run_id: str, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, bytes] = {}
    original = Baseline.load
    monkeypatch.setattr(Baseline, "load", lambda folder: seen.update(contents(Path(folder))) or original(folder))
    load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)
    assert seen == contents(stored(store, run_id))
    assert list(temporary.iterdir()) == []


def test_only_the_files_of_a_baseline_are_fetched(
    store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x" * 100)
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "profile.npz").write_bytes(b"x")
    for extra in (tmp_path / "weights.bin", tmp_path / "deeper"):
        store.client.log_artifact(run_id, str(extra), "lensai")
    fetched: list[str] = []
    original = Baseline.load
    monkeypatch.setattr(Baseline, "load", lambda folder: fetched.extend(contents(Path(folder))) or original(folder))
    load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)
    assert set(fetched) == set(load_module.LIMITS) - {"segments.csv"}  # it has no segments


def test_a_run_without_a_baseline_is_answered_with_what_it_holds(store: Store, tmp_path: Path) -> None:
    run_id = store.new_run()
    with pytest.raises(InputError, match=rf"run {run_id} has no 'lensai' \(it holds no artifacts\).*log_baseline"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)
    (tmp_path / "weights.bin").write_bytes(b"x")
    store.client.log_artifact(run_id, str(tmp_path / "weights.bin"), "checkpoints")
    with pytest.raises(InputError, match=rf"it holds checkpoints\); pass runs:/{run_id}/<path>"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)


def test_a_model_and_a_run_without_a_baseline_are_both_named(store: Store) -> None:
    run_id = store.new_run()
    model_id = store.new_model(run_id)
    with pytest.raises(InputError, match=f"logged model {model_id} has no 'best'.*; run {run_id} has no 'best'"):
        load_baseline(f"models:/{model_id}/best", tracking_uri=store.uri)


def test_an_upload_without_its_manifest_was_cut_short(store: Store, run_id: str) -> None:
    (stored(store, run_id) / "manifest.json").unlink()
    with pytest.raises(InputError, match=rf"'lensai' of run {run_id} was cut short.*lensai push"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)


@pytest.mark.parametrize("name", ["profile.npz", "streams.csv", "report.html"])
def test_a_changed_file_is_refused_by_source_and_name(store: Store, run_id: str, name: str) -> None:
    path = stored(store, run_id) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"^runs:/{run_id}/{name} has another sha256"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)


def test_a_missing_file_is_refused(store: Store, run_id: str) -> None:
    (stored(store, run_id) / "profile.npz").unlink()
    with pytest.raises(FormatError, match=r"profile\.npz is listed in the manifest and missing"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)


def test_a_manifest_that_lists_files_outside_is_refused(store: Store, run_id: str) -> None:
    path = stored(store, run_id) / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"]["../../secrets"] = {"sha256": "0", "bytes": 1}
    del manifest["sha256"]
    manifest["format_version"] = 1  # which has no digest of the manifest
    path.write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="unsafe name"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)


def test_what_is_too_large_is_refused_before_it_is_fetched(
    store: Store, run_id: str, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setitem(load_module.LIMITS, "streams.csv", 10)
    monkeypatch.setattr(Baseline, "load", lambda folder: pytest.fail("was fetched"))
    with pytest.raises(FormatError, match=rf"lensai/streams\.csv of run {run_id} has \d+ bytes, more than 10"):
        load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)
    assert list(temporary.iterdir()) == []


def test_a_server_that_is_down(unreachable: str) -> None:
    with pytest.raises(TrackingError, match=f"^runs:/0123 could not be loaded from {unreachable}: .*refused$"):
        load_baseline("runs:/0123", tracking_uri=unreachable)


def test_a_server_that_never_answers(hanging: str) -> None:
    with pytest.raises(TrackingError, match=r"timed? ?out|no answer within"):
        load_baseline("runs:/0123", tracking_uri=hanging, deadline=0.5)


@pytest.mark.slow
def test_credentials_are_not_in_messages(server_store: Store) -> None:
    uri = server_store.uri.replace("://", "://ada:hushhush@")
    with pytest.raises(InputError, match="holds no baseline at http://127") as caught:
        load_baseline(f"runs:/{server_store.new_run()}", tracking_uri=uri)
    assert "hushhush" not in str(caught.value)


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"lensai-integrations\[mlflow\]"):
        load_baseline("runs:/0123")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a folder: pass a folder, runs:/<run_id>"):
        load_baseline(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("bare", "meant"), [("a" * 32, "runs:/" + "a" * 32), ("m-" + "1" * 32, "models:/m-" + "1" * 32)]
)
def test_a_bare_id_is_answered_with_the_source_it_may_mean(bare: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"did you mean {meant}\?"):
        load_baseline(bare)


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no manifest\.json"):
        load_baseline(tmp_path)


def test_a_loaded_baseline_answers_like_the_one_that_was_logged(store: Store, baseline: Baseline, run_id: str) -> None:
    loaded = load_baseline(f"runs:/{run_id}", tracking_uri=store.uri)
    for name, group in baseline.reference.groups.items():
        if group.bank is not None:
            ranks = np.linspace(0, 1, 11)
            np.testing.assert_array_equal(
                loaded.reference.groups[name].bank.quantiles(ranks), group.bank.quantiles(ranks)
            )


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
