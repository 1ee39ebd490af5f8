"""Baselines reach runs and logged models byte for byte; what goes wrong leaves them on disk with the way to go on."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.http_artifact_repo import HttpArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from tracking import Server, Store, contents

import lensai_integrations.report
from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.errors import FormatError, InputError, MissingDependencyError, TrackingError
from lensai_integrations.mlflow import load_baseline, log_baseline, push
from lensai_integrations.mlflow.log import upload_files

FILES = {"report.html", "streams.csv", "profile.npz", "manifest.json"}


pytestmark = pytest.mark.usefixtures("temporary")


def logged(store: Store, run_id: str, path: str = "lensai") -> dict[str, bytes]:
    """The files below an artifact path, read where the store keeps them."""
    found = next(iter(store.artifacts.rglob(f"{run_id}/artifacts/{path}")), None)
    return {} if found is None else contents(found)


def command_of(error: pytest.ExceptionInfo[TrackingError]) -> dict[str, str]:
    """The command at the end of a message: its folder and its options."""
    found = re.search(r": (lensai push .*)$", str(error.value))
    assert found is not None, error.value
    words = shlex.split(found.group(1))
    assert words[:2] == ["lensai", "push"]
    return {"folder": words[2], **dict(zip(words[3::2], words[4::2], strict=True))}


def test_a_run_holds_the_saved_files_byte_for_byte(store: Store, baseline: Baseline, tmp_path: Path) -> None:
    run_id, folder = store.new_run(), tmp_path / "kept"
    source = log_baseline(baseline, run_id=run_id, tracking_uri=store.uri, directory=folder)
    assert source == f"runs:/{run_id}"
    assert logged(store, run_id) == contents(folder)
    assert contents(folder).keys() == FILES
    assert store.client.get_run(run_id).data.tags["lensai.baseline"] == "lensai"


def test_a_logged_model_holds_the_saved_files_byte_for_byte(store: Store, baseline: Baseline, tmp_path: Path) -> None:
    model_id, folder = store.new_model(), tmp_path / "kept"
    source = log_baseline(baseline, model_id=model_id, tracking_uri=store.uri, directory=folder)
    assert source == f"models:/{model_id}"
    assert logged(store, model_id) == contents(folder)
    assert store.client.get_logged_model(model_id).tags["lensai.baseline"] == "lensai"


def test_a_logged_model_that_is_ready_takes_one_too(store: Store, baseline: Baseline) -> None:
    model_id = store.new_model()
    store.client.finalize_logged_model(model_id, "READY")
    log_baseline(baseline, model_id=model_id, tracking_uri=store.uri)
    assert logged(store, model_id).keys() == FILES


def test_both_at_once_under_another_path(store: Store, baseline: Baseline) -> None:
    run_id = store.new_run()
    model_id = store.new_model(run_id)
    source = log_baseline(
        baseline, run_id=run_id, model_id=model_id, tracking_uri=store.uri, artifact_path="baselines/epoch_3"
    )
    assert source == f"models:/{model_id}/baselines/epoch_3"
    assert logged(store, run_id, "baselines/epoch_3") == logged(store, model_id, "baselines/epoch_3")
    assert logged(store, run_id, "baselines/epoch_3").keys() == FILES
    assert store.client.get_run(run_id).data.tags["lensai.baseline"] == "baselines/epoch_3"


def test_logging_again_replaces(store: Store, baseline: Baseline) -> None:
    run_id = store.new_run()
    log_baseline(Baseline(Profile(info={"source": "test"})), run_id=run_id, tracking_uri=store.uri)
    log_baseline(baseline, run_id=run_id, tracking_uri=store.uri)
    assert load_baseline(f"runs:/{run_id}", tracking_uri=store.uri).n == baseline.n


@pytest.fixture(scope="module")
def segmented() -> Baseline:
    """One with `segments.csv`."""
    profiler = Profiler(source="validation", segment_by="label", seed=0)
    profiler.update(outputs=np.random.default_rng(0).normal(size=(40, 3)), labels=np.arange(40) % 2)
    return Baseline(profiler.profile())


def test_what_an_earlier_baseline_left_is_removed(store: Store, baseline: Baseline, segmented: Baseline) -> None:
    run_id = store.new_run()
    model_id = store.new_model(run_id)
    both = {"run_id": run_id, "model_id": model_id, "tracking_uri": store.uri}
    log_baseline(segmented, **both)
    store.client.log_text(run_id, "mine", "lensai/notes.txt")
    assert logged(store, run_id).keys() == {*FILES, "segments.csv", "notes.txt"}
    log_baseline(baseline, **both)
    assert logged(store, run_id).keys() == {*FILES, "notes.txt"}
    assert logged(store, model_id).keys() == FILES


@pytest.mark.parametrize("error", [None, NotImplementedError(), MlflowException("forbidden")])
def test_where_nothing_can_be_deleted_the_file_says_so(
    embedded_store: Store,
    baseline: Baseline,
    segmented: Baseline,
    error: Exception | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    run_id = embedded_store.new_run()
    for each in (segmented, baseline):
        log_baseline(each, run_id=run_id, tracking_uri=embedded_store.uri)
    found = logged(embedded_store, run_id)
    assert found["segments.csv"] == b"This file was of an earlier baseline. The one that is here now has none.\n"
    assert b"segments.csv" not in found["manifest.json"]
    assert load_baseline(f"runs:/{run_id}", tracking_uri=embedded_store.uri).n == baseline.n


def test_an_upload_that_is_cut_short_leaves_nothing_that_is_read(
    embedded_store: Store, baseline: Baseline, segmented: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = embedded_store.new_run()
    log_baseline(segmented, run_id=run_id, tracking_uri=embedded_store.uri)
    real = LocalArtifactRepository.log_artifact

    def cut(self: LocalArtifactRepository, path: str, to: str) -> None:
        if path.endswith("manifest.json"):
            raise OSError("the line is cut")
        real(self, path, to)

    with monkeypatch.context() as patch:
        patch.setattr(LocalArtifactRepository, "log_artifact", cut)
        with pytest.raises(TrackingError, match="the line is cut"):
            log_baseline(baseline, run_id=run_id, tracking_uri=embedded_store.uri)
    with pytest.raises(FormatError):
        load_baseline(f"runs:/{run_id}", tracking_uri=embedded_store.uri)
    log_baseline(baseline, run_id=run_id, tracking_uri=embedded_store.uri)
    assert load_baseline(f"runs:/{run_id}", tracking_uri=embedded_store.uri).n == baseline.n


def test_nothing_is_left_in_temporary_folders(store: Store, baseline: Baseline, temporary: Path) -> None:
    log_baseline(baseline, run_id=store.new_run(), tracking_uri=store.uri)
    assert list(temporary.iterdir()) == []


def test_the_manifest_arrives_last(embedded_store: Store, baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    real, sent = LocalArtifactRepository.log_artifact, []

    def log_artifact(self: LocalArtifactRepository, path: str, to: str) -> None:
        sent.append(Path(path).name)
        real(self, path, to)

    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", log_artifact)
    log_baseline(baseline, run_id=embedded_store.new_run(), tracking_uri=embedded_store.uri)
    assert set(sent) == FILES
    assert sent[-1] == "manifest.json"


def test_the_active_run_is_the_default(embedded_store: Store, baseline: Baseline) -> None:
    mlflow.set_tracking_uri(embedded_store.uri)
    with mlflow.start_run(experiment_id=embedded_store.experiment_id) as run:
        assert log_baseline(baseline) == f"runs:/{run.info.run_id}"
    assert logged(embedded_store, run.info.run_id).keys() == FILES


def test_a_named_run_or_model_wins_over_the_active_run(embedded_store: Store, baseline: Baseline) -> None:
    mlflow.set_tracking_uri(embedded_store.uri)
    named, model_id = embedded_store.new_run(), embedded_store.new_model()
    with mlflow.start_run(experiment_id=embedded_store.experiment_id) as active:
        log_baseline(baseline, run_id=named)
        log_baseline(baseline, model_id=model_id)
    assert logged(embedded_store, active.info.run_id) == {}
    assert logged(embedded_store, named).keys() == logged(embedded_store, model_id).keys() == FILES


def test_without_a_run_none_is_made(embedded_store: Store, baseline: Baseline) -> None:
    mlflow.set_tracking_uri(embedded_store.uri)
    before = embedded_store.runs()
    for call in (lambda: log_baseline(baseline), lambda: push("folder")):
        with pytest.raises(InputError, match=r"run_id=None.*pass run_id=.*model_id=.*start_run"):
            call()
    assert embedded_store.runs() == before
    assert mlflow.active_run() is None


def test_the_active_run_of_another_thread_is_not_taken(embedded_store: Store, baseline: Baseline) -> None:
    mlflow.set_tracking_uri(embedded_store.uri)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            log_baseline(baseline)
        except InputError as error:
            raised.append(error)

    with mlflow.start_run(experiment_id=embedded_store.experiment_id):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    assert "each thread has its own" in str(raised[0])


def test_arguments_are_checked_before_anything_is_written(baseline: Baseline, temporary: Path) -> None:
    with pytest.raises(InputError, match=r"artifact_path='\.\./x'"):
        log_baseline(baseline, run_id="0", artifact_path="../x", tracking_uri="sqlite:///mlflow.db")
    assert list(temporary.iterdir()) == []


def test_without_mlflow_the_extra_is_named(baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lensai-integrations\[mlflow\]'"):
        log_baseline(baseline, run_id="0")


def test_a_report_that_cannot_be_drawn_does_not_cost_the_baseline(
    embedded_store: Store, baseline: Baseline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Baseline) -> str:
        raise ZeroDivisionError("no bars")

    monkeypatch.setattr(lensai_integrations.report, "baseline_html", broken)
    run_id = embedded_store.new_run()
    with caplog.at_level(logging.WARNING, "lensai_integrations"):
        log_baseline(baseline, run_id=run_id, tracking_uri=embedded_store.uri)
    assert logged(embedded_store, run_id).keys() == FILES - {"report.html"}
    assert "without report.html" in caplog.text
    assert "no bars" in caplog.text


def test_a_run_that_does_not_exist_is_named(store: Store, baseline: Baseline, temporary: Path) -> None:
    with pytest.raises(TrackingError, match=r"not uploaded to run nonsense at .*: .*nonsense.*not found") as caught:
        log_baseline(baseline, run_id="nonsense", tracking_uri=store.uri)
    folder = command_of(caught)["folder"]
    assert Path(folder).parent == temporary
    run_id = store.new_run()
    push(folder, run_id=run_id, tracking_uri=store.uri)
    assert logged(store, run_id) == contents(Path(folder))


def test_a_server_that_is_down_leaves_the_folder_and_the_command(
    embedded_store: Store, baseline: Baseline, unreachable: str, temporary: Path
) -> None:
    run_id = embedded_store.new_run()
    with pytest.raises(TrackingError, match="Connection refused") as caught:
        log_baseline(baseline, run_id=run_id, tracking_uri=unreachable)
    (folder,) = temporary.iterdir()
    assert command_of(caught) == {"folder": str(folder), "--run": run_id, "--tracking-uri": unreachable}
    assert contents(folder).keys() == FILES
    assert push(folder, run_id=run_id, tracking_uri=embedded_store.uri) == f"runs:/{run_id}"
    assert logged(embedded_store, run_id) == contents(folder)


def test_a_server_that_never_answers_costs_no_more_than_the_deadline(
    baseline: Baseline, hanging: str, tmp_path: Path
) -> None:
    folder = tmp_path / "with space"
    with pytest.raises(TrackingError) as caught:
        log_baseline(baseline, run_id="0123", tracking_uri=hanging, deadline=0.5, directory=folder)
    assert command_of(caught) == {"folder": str(folder), "--run": "0123", "--tracking-uri": hanging}
    assert Baseline.load(folder).n == baseline.n


PUSH = """
import sys
from lensai_integrations.errors import TrackingError
from lensai_integrations.mlflow import push
try:
    push(sys.argv[1], run_id="0123", tracking_uri=sys.argv[2], deadline=1)
except TrackingError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_script_ends_although_a_request_still_hangs(
    baseline: Baseline, healthy_but_hanging: str, tmp_path: Path
) -> None:
    folder = baseline.save(tmp_path / "saved")
    command = [sys.executable, "-c", PUSH, str(folder), healthy_but_hanging]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert "no answer within 1 s" in done.stdout


def test_the_command_names_the_model_and_the_path_too(baseline: Baseline, unreachable: str) -> None:
    with pytest.raises(TrackingError, match="run 0123 and logged model m-1 at") as caught:
        log_baseline(baseline, run_id="0123", model_id="m-1", tracking_uri=unreachable, artifact_path="a/b")
    command = command_of(caught)
    assert (command["--run"], command["--model"], command["--artifact-path"]) == ("0123", "m-1", "a/b")


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle(
    own_server: Callable[[], Server], baseline: Baseline, monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    server = own_server()
    client = MlflowClient(tracking_uri=server.uri)
    run_id = client.create_run("0").info.run_id
    log_artifact = HttpArtifactRepository.log_artifact

    def log_and_kill(self: HttpArtifactRepository, *arguments: Any) -> None:
        log_artifact(self, *arguments)
        server.kill()

    monkeypatch.setattr(HttpArtifactRepository, "log_artifact", log_and_kill)
    with pytest.raises(TrackingError, match=r"no answer to PUT .*: .*Connection refused") as caught:
        log_baseline(baseline, run_id=run_id, tracking_uri=server.uri)
    monkeypatch.undo()
    (arrived,) = server.artifacts.rglob("lensai")
    assert len(contents(arrived)) == 1
    server.start()
    with pytest.raises(InputError, match=f"'lensai' of run {run_id} was cut short.*lensai push"):
        load_baseline(f"runs:/{run_id}", tracking_uri=server.uri)
    folder = Path(command_of(caught)["folder"])
    push(folder, run_id=run_id, tracking_uri=server.uri)
    assert contents(arrived) == contents(folder)
    assert load_baseline(f"runs:/{run_id}", tracking_uri=server.uri).n == baseline.n


@pytest.mark.parametrize("chosen", [True, False])
def test_a_full_disk_is_said_before_the_server_is_spoken_to(
    baseline: Baseline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path, hanging: str, chosen: bool
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    folder = tmp_path / "kept" if chosen else None
    with pytest.raises(TrackingError, match=r"could not be saved to .*No space left on device.*directory=") as caught:
        log_baseline(baseline, run_id="0123", tracking_uri=hanging, directory=folder)
    assert str(folder or temporary) in str(caught.value)
    assert list(temporary.iterdir()) == []


def test_a_full_disk_on_the_side_of_the_artifacts(
    embedded_store: Store, baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", full)
    with pytest.raises(TrackingError, match=r"not uploaded.*No space left on device") as caught:
        log_baseline(baseline, run_id=embedded_store.new_run(), tracking_uri=embedded_store.uri)
    assert Baseline.load(command_of(caught)["folder"]).n == baseline.n


def test_directory_is_a_file(baseline: Baseline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        log_baseline(baseline, run_id="0", tracking_uri="sqlite:///mlflow.db", directory=tmp_path / "file")


def test_credentials_reach_the_server_and_nothing_else(
    denying: tuple[str, list[str]],
    baseline: Baseline,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    address, seen = denying
    uri = address.replace("://", "://ada:hush%21hush@")
    folder = tmp_path / "kept"
    with caplog.at_level(logging.DEBUG), pytest.raises(TrackingError) as caught:
        log_baseline(baseline, run_id="0123", tracking_uri=uri, directory=folder)
    assert seen
    texts = ["".join(traceback.format_exception(caught.value)), *(record.getMessage() for record in caplog.records)]
    texts += [content.decode("latin-1") for content in contents(folder).values()]
    assert not [text for text in texts if "hush" in text]
    assert command_of(caught)["--tracking-uri"] == address
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)


def test_a_database_with_credentials_is_not_named_on_the_command_line(
    baseline: Baseline, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow tries for 100 s, and opens no other store of the process meanwhile: this is 6 s.
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 6)
    uri = "postgresql://ada:hushhush@127.0.0.1:1/mlflow"
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI") as caught:
        log_baseline(baseline, run_id="0123", tracking_uri=uri, deadline=2)
    for thread in threading.enumerate():
        if thread.name == "lensai-mlflow":
            thread.join(60)
    assert "hushhush" not in "".join(traceback.format_exception(caught.value))
    assert command_of(caught).keys() == {"folder", "--run"}


@pytest.mark.slow
def test_nothing_on_the_server_holds_the_credentials_it_was_reached_by(
    server: Server, server_store: Store, baseline: Baseline
) -> None:
    run_id = server_store.new_run()
    uri = server.uri.replace("://", "://ada:hushhush@")
    log_baseline(baseline, run_id=run_id, tracking_uri=uri)
    assert load_baseline(f"runs:/{run_id}", tracking_uri=uri).n == baseline.n
    files = [path for path in server.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= FILES
    assert not [path for path in files if b"hushhush" in path.read_bytes()]


def test_push_refuses_a_folder_that_was_changed(embedded_store: Store, baseline: Baseline, tmp_path: Path) -> None:
    baseline.save(tmp_path / "saved")
    (tmp_path / "saved" / "streams.csv").write_text("changed")
    run_id = embedded_store.new_run()
    with pytest.raises(FormatError, match=r"streams\.csv"):
        push(tmp_path / "saved", run_id=run_id, tracking_uri=embedded_store.uri)
    with pytest.raises(FormatError, match=r"no manifest\.json"):
        push(tmp_path, run_id=run_id, tracking_uri=embedded_store.uri)
    assert logged(embedded_store, run_id) == {}


def test_push_uploads_only_what_the_manifest_lists(embedded_store: Store, baseline: Baseline, tmp_path: Path) -> None:
    folder = baseline.save(tmp_path / "saved")
    (folder / "notes.txt").write_text("private")
    run_id = embedded_store.new_run()
    push(folder, run_id=run_id, tracking_uri=embedded_store.uri)
    assert logged(embedded_store, run_id).keys() == FILES - {"report.html"}


def test_push_finds_a_relative_folder_and_a_lone_profile(
    embedded_store: Store, baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    baseline.reference.save(tmp_path / "window")
    monkeypatch.chdir(tmp_path)
    model_id = embedded_store.new_model()
    assert push("window", model_id=model_id, tracking_uri=embedded_store.uri) == f"models:/{model_id}"
    assert logged(embedded_store, model_id) == contents(tmp_path / "window")


@pytest.fixture
def replacing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has another process save its baseline to a folder whenever a file of it is sent."""

    def replace(folder: Path) -> None:
        real = LocalArtifactRepository.log_artifact

        def log_artifact(self: LocalArtifactRepository, *arguments: Any) -> None:
            Baseline(Profile(info={"source": "another"})).save(folder, report_html="another")
            real(self, *arguments)

        monkeypatch.setattr(LocalArtifactRepository, "log_artifact", log_artifact)

    return replace


@pytest.mark.parametrize("call", ["push", "log_baseline", "upload_files"])
def test_what_was_verified_is_sent_whoever_replaces_the_folder_meanwhile(
    embedded_store: Store, baseline: Baseline, replacing: Callable[[Path], None], tmp_path: Path, call: str
) -> None:
    folder, run_id = tmp_path / "shared", embedded_store.new_run()
    expected = contents(baseline.save(folder))
    replacing(folder)
    if call == "push":
        push(folder, run_id=run_id, tracking_uri=embedded_store.uri)
    elif call == "log_baseline":
        log_baseline(baseline, run_id=run_id, tracking_uri=embedded_store.uri, directory=folder)
        for name in ("report.html", "manifest.json"):  # the report names the run
            expected[name] = logged(embedded_store, run_id)[name]
    else:
        upload_files(expected, folder, run_id=run_id, tracking_uri=embedded_store.uri)
    assert logged(embedded_store, run_id) == expected
    loaded = load_baseline(f"runs:/{run_id}", tracking_uri=embedded_store.uri)
    assert (loaded.n, Baseline.load(folder).n) == (baseline.n, 0)


def test_a_temporary_folder_without_room_is_named_as_such(
    embedded_store: Store, baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder, run_id = baseline.save(tmp_path / "saved"), embedded_store.new_run()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(TrackingError, match=r"hold a copy \(No space left on .*\); set TMPDIR") as caught:
            push(folder, run_id=run_id, tracking_uri=embedded_store.uri)
    assert command_of(caught)["folder"] == str(folder)
    push(folder, run_id=run_id, tracking_uri=embedded_store.uri)
