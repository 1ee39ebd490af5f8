"""Sensors' runs in real stores: one for each, found again, metrics by the hour, and servers that fail in every way."""

from __future__ import annotations

import threading
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from profiles import make_baseline, make_profile
from tracking import MlflowClient, Store

from lensai_integrations import Baseline, Profile, compare
from lensai_integrations.drift.result import DriftReport
from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.mlflow import SensorRuns
from lensai_integrations.mlflow.monitoring import TAG
from lensai_integrations.server.records import HourDrift

HOUR = 1_795_298_400  # 2026-11-21 22:00 UTC
_numbers = count()


@pytest.fixture(scope="module")
def compared() -> tuple[DriftReport, Baseline, Profile]:
    """A report of darker images, with its two sides."""
    baseline, window = make_baseline(200), make_profile(100, seed=7, brightness=0.5)
    return compare(baseline, window), baseline, window


@pytest.fixture
def experiment() -> str:
    """A name that no other test uses."""
    return f"devices {next(_numbers)}"


def hour(sensor: str = "door", *, later: int = 0, after: float = 60.5) -> HourDrift:
    """An hour that was judged so many seconds after it began."""
    begins = HOUR + 3600 * later
    return HourDrift(sensor, begins, 2, 100, drift=True, effect=0.5, judged=begins + after)


def runs_of(store: Store, experiment: str) -> list[Any]:
    found = store.client.get_experiment_by_name(experiment)
    assert found is not None
    return list(store.client.search_runs([found.experiment_id], max_results=1000))


def text_of(store: Store, run_id: str, path: str) -> str:
    return Path(store.client.download_artifacts(run_id, path)).read_text()


def test_hours_are_metrics_and_reports_of_a_run_per_sensor(store, experiment, compared):
    runs = SensorRuns(experiment, store.uri)
    addresses = [runs.log("door", hour(), *compared), runs.log("door", hour(later=1), *compared)]
    other = runs.log("gate 3's", hour("gate 3's"), *compared)
    assert addresses[0] == addresses[1] != other
    found = {run.data.tags[TAG]: run for run in runs_of(store, experiment)}
    assert sorted(found) == ["door", "gate 3's"]
    door = found["door"]
    assert (door.info.run_name, door.info.status) == ("door", "RUNNING")
    assert addresses[0].endswith(door.info.run_id)
    history = store.client.get_metric_history(door.info.run_id, "drift/verdict")
    assert [(m.value, m.step, m.timestamp // 1000) for m in history] == [
        (1.0, HOUR // 3600, HOUR),
        (1.0, HOUR // 3600 + 1, HOUR + 3600),
    ]
    report = compared[0]
    assert door.data.metrics["drift/rows"] == 100
    assert door.data.metrics["drift/streams_moved"] == len(report.moved)
    assert door.data.metrics["drift/effect"] == max(s.effect for g in report.groups for s in g.streams)
    assert {key for key in door.data.metrics if key.startswith("drift/effects/")} == {
        f"drift/effects/{group.name}" for group in report.groups
    }
    files = [file.path for file in store.client.list_artifacts(door.info.run_id, "lensai/drift")]
    assert files == ["lensai/drift/2026-11-21T22Z.html", "lensai/drift/2026-11-21T23Z.html"]
    assert "DRIFT" in text_of(store, door.info.run_id, files[0])


@pytest.mark.slow
def test_the_address_is_a_page_where_there_is_a_server(server_store, embedded_store, experiment, compared):
    address = SensorRuns(experiment, server_store.uri).log("door", hour(), *compared)
    (run,) = runs_of(server_store, experiment)
    assert address == f"{server_store.uri}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    address = SensorRuns(experiment, embedded_store.uri).log("door", hour(), *compared)
    assert address == runs_of(embedded_store, experiment)[0].info.run_id


def test_an_hour_logged_twice_changes_nothing(embedded_store, experiment, compared):
    runs = SensorRuns(experiment, embedded_store.uri)
    for _ in range(2):
        runs.log("door", hour(), *compared)
    (run,) = runs_of(embedded_store, experiment)
    assert len(embedded_store.client.get_metric_history(run.info.run_id, "drift/effect")) == 1
    assert len(embedded_store.client.list_artifacts(run.info.run_id, "lensai/drift")) == 1


def test_an_hour_judged_again_is_the_newest_although_its_effect_fell(embedded_store, experiment, compared):
    _, baseline, _ = compared
    clean = make_profile(300, seed=8)
    runs = SensorRuns(experiment, embedded_store.uri)
    runs.log("door", hour(after=60.5), *compared)
    runs.log("door", hour(after=660.5), compare(baseline, clean), baseline, clean)
    (run,) = runs_of(embedded_store, experiment)
    assert run.data.metrics["drift/verdict"] == 0
    (file,) = embedded_store.client.list_artifacts(run.info.run_id, "lensai/drift")
    assert "NO DRIFT" in text_of(embedded_store, run.info.run_id, file.path)


def test_a_server_that_starts_anew_goes_on_with_the_run_and_closing_finishes_it(embedded_store, experiment, compared):
    for later in range(2):
        runs = SensorRuns(experiment, embedded_store.uri)
        runs.log("door", hour(later=later), *compared)
        assert [run.info.status for run in runs_of(embedded_store, experiment)] == ["RUNNING"]
        runs.close()
        assert [run.info.status for run in runs_of(embedded_store, experiment)] == ["FINISHED"]
        runs.close()
    (run,) = runs_of(embedded_store, experiment)
    assert len(embedded_store.client.get_metric_history(run.info.run_id, "drift/effect")) == 2


def test_a_deleted_run_is_made_anew(embedded_store, experiment, compared):
    runs = SensorRuns(experiment, embedded_store.uri)
    first = runs.log("door", hour(), *compared)
    embedded_store.client.delete_run(first)
    second = runs.log("door", hour(), *compared)
    assert second != first
    assert [run.info.run_id for run in runs_of(embedded_store, experiment)] == [second]
    embedded_store.client.delete_run(second)
    embedded_store.client.restore_run(first)
    assert runs.log("door", hour(), *compared) == first


def test_of_two_runs_made_at_once_the_older_stays(embedded_store, experiment, compared, monkeypatch):
    """Another server makes its run between this one's search and its own run."""
    theirs: list[str] = []
    create = MlflowClient.create_run

    def overtaken(client: MlflowClient, experiment_id: str, *args: Any, **settings: Any) -> Any:
        if not theirs:
            theirs.append(create(client, experiment_id, 1, tags={TAG: "door"}).info.run_id)
        return create(client, experiment_id, *args, **settings)

    monkeypatch.setattr(MlflowClient, "create_run", overtaken)
    runs = SensorRuns(experiment, embedded_store.uri)
    assert [runs.log("door", hour(later=k), *compared) for k in range(2)] == theirs * 2
    assert [run.info.run_id for run in runs_of(embedded_store, experiment)] == theirs


@pytest.mark.slow
def test_servers_that_race_end_up_with_one_run(server_store, experiment, compared):
    barrier, failures = threading.Barrier(4), []

    def serve(number: int) -> None:
        runs = SensorRuns(experiment, server_store.uri)
        barrier.wait()
        try:
            for later in range(2):
                runs.log("door", hour(later=number + later), *compared)
        except TrackingError as error:  # what the caller would try again
            failures.append(error)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    SensorRuns(experiment, server_store.uri).log("door", hour(later=9), *compared)
    runs = runs_of(server_store, experiment)
    assert failures == []
    assert len(runs) == 1
    assert len(server_store.client.get_metric_history(runs[0].info.run_id, "drift/effect")) == 6


def test_names_that_look_alike_are_told_apart(embedded_store, experiment, compared):
    names = ["door", "Door", "d_o%", "door'; DROP TABLE runs", 'a "door" ٣']
    runs = SensorRuns(experiment, embedded_store.uri)
    addresses = {runs.log(name, hour(name), *compared) for name in names}
    assert len(addresses) == len(names)
    assert {runs.log(name, hour(name), *compared) for name in names} == addresses


@pytest.mark.parametrize("name", ["", "two\nlines", "'\"", "a\0b"])
def test_names_that_cannot_be_looked_up_raise(embedded_store, experiment, compared, name):
    with pytest.raises(InputError, match="cannot be looked up in MLflow"):
        SensorRuns(experiment, embedded_store.uri).log(name, hour(), *compared)


def test_a_deleted_experiment_is_named(embedded_store, experiment, compared):
    embedded_store.client.delete_experiment(embedded_store.client.create_experiment(experiment))
    with pytest.raises(TrackingError, match=f"experiment '{experiment}' was deleted: restore it"):
        SensorRuns(experiment, embedded_store.uri).log("door", hour(), *compared)


def test_a_server_that_is_down_or_hangs_raises_in_time(unreachable, healthy_but_hanging, compared):
    with pytest.raises(TrackingError, match="does not answer"):
        SensorRuns(tracking_uri=unreachable, deadline=5).log("door", hour(), *compared)
    with pytest.raises(TrackingError, match="no answer within 1 s"):
        SensorRuns(tracking_uri=healthy_but_hanging, deadline=1).log("door", hour(), *compared)


def test_a_file_store_takes_all_metrics(tmp_path, monkeypatch, compared):
    """A file store keeps `a/b` as a file in a folder `a`: no metric may be the folder of another."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = (tmp_path / "runs").as_uri()
    run_id = SensorRuns("devices", uri).log("door", hour(), *compared)
    run = MlflowClient(tracking_uri=uri).get_run(run_id)
    assert run.data.metrics["drift/verdict"] == 1
    assert "drift/effect" in run.data.metrics


@pytest.mark.parametrize(("after", "milliseconds"), [(-7200.0, 0), (0.5, 0), (61.9, 61), (1e9, 3_599_999)])
def test_an_hours_metrics_stay_within_it(embedded_store, experiment, compared, after, milliseconds):
    SensorRuns(experiment, embedded_store.uri).log("door", hour(after=after), *compared)
    (run,) = runs_of(embedded_store, experiment)
    (found,) = embedded_store.client.get_metric_history(run.info.run_id, "drift/verdict")
    assert found.timestamp == 1000 * HOUR + milliseconds


@pytest.mark.parametrize(("settings", "named"), [({"deadline": 0}, "deadline=0"), ({"experiment": " "}, "experiment=")])
def test_wrong_arguments_raise(settings, named):
    with pytest.raises(InputError, match=named):
        SensorRuns(**settings)
