"""Verdicts on their way to MLflow: none lost, none in the way of others, whatever MLflow does meanwhile."""

from __future__ import annotations

import io
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tracking import QUIET, MlflowClient, free_port

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.edge import write_stats
from lensai_integrations.errors import InputError, TrackingError
from lensai_integrations.mlflow import SensorRuns
from lensai_integrations.server import queries, reporting
from lensai_integrations.server.app import create_app
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.store import Store

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # this client is about to move to another package
    from starlette.testclient import TestClient

WHEN = 1_795_298_500
HOUR = 1_795_298_400


def profile(seed: int, scale: float = 1.0) -> Profile:
    images = np.random.default_rng(seed).uniform(0, 255 * scale, (100, 8, 8, 3)).astype(np.uint8)
    profiler = Profiler(convention="lensai-edge")
    profiler.update(inputs=images)
    return profiler.profile()


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Uploads of devices that see what the baseline saw, and half of its light."""
    found = {}
    for name, scale in (("clean", 1.0), ("dark", 0.5)):
        folder, packed = tmp_path_factory.mktemp(name), io.BytesIO()
        write_stats(profile(1, scale), folder)
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(folder, ".")
        found[name] = packed.getvalue()
    return found


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An MLflow without a server, set up before deadlines count; a test each of its own sensors."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in QUIET.items():
            patch.setenv(key, value)
        patch.chdir(folder)  # where artifacts go by default
        found = f"sqlite:///{folder / 'mlflow.db'}"
        MlflowClient(tracking_uri=found).search_experiments()
        yield found


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    return Baseline(profile(0))


@pytest.fixture
def serve(baseline: Baseline, store: Store) -> Callable[..., Server]:
    """Starts servers of one store."""
    return lambda runs, **settings: Server(baseline, store, runs, **settings)


class Server:
    """A server whose workers work when they are told to."""

    def __init__(self, baseline: Baseline, store: Store, runs: Any, on_judged: Any = None, **settings: float) -> None:
        known = {"judge_seconds": 0, "report_seconds": 0, **settings}
        self.app = create_app(baseline, store, Settings(**known), on_judged=on_judged, runs=runs)  # type: ignore[arg-type]
        self.client, self.store = TestClient(self.app, base_url="http://localhost"), store
        self.reporter, self.settler = self.app.state.service.reporter, self.app.state.service.settler

    def upload(self, archive: bytes, sensor: str = "door", timestamp: int = WHEN) -> None:
        data = {"sensor_id": sensor, "timestamp": str(timestamp), "file_type": "stats"}
        answer = self.client.post("/upload/", data=data, files={"file": ("s.tar.gz", archive, "application/gzip")})
        assert answer.status_code == 201

    def judge(self, now: float = WHEN + 60.0) -> None:
        self.settler.work(now)

    def waiting(self) -> bool:
        found = reporting.claim(self.store, 4e9, 0)
        if found is not None:
            reporting.put_back(self.store, found)
        return found is not None


class Refusing:
    """Logs nothing of one sensor."""

    def __init__(self, error: Exception) -> None:
        self.error, self.logged, self.closed = error, list[str](), False

    def log(self, sensor: str, *_: Any) -> str:
        if sensor == "refused":
            raise self.error
        self.logged.append(sensor)
        return "0123"

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's clock, to which the timestamps of uploads are held."""
    monkeypatch.setattr(time, "time", lambda: WHEN + 30.0)


def metric(uri: str, store: Store, sensor: str, name: str) -> float:
    return MlflowClient(tracking_uri=uri).get_run(queries.run_of(store, sensor)).data.metrics[name]


@pytest.mark.slow
def test_verdicts_and_reports_are_logged_and_the_run_is_remembered(serve, store, uri, archives):
    server = serve(SensorRuns(tracking_uri=uri))
    server.upload(archives["dark"], "dark")
    server.upload(archives["clean"], "clean")
    server.judge()
    server.reporter.work(WHEN + 61.0)
    assert not server.waiting()
    assert metric(uri, store, "dark", "drift/verdict") == 1
    assert metric(uri, store, "clean", "drift/verdict") == 0
    run_id = queries.run_of(store, "dark")
    (file,) = MlflowClient(tracking_uri=uri).list_artifacts(run_id, "lensai/drift")
    assert file.path == "lensai/drift/2026-11-21T22Z.html"
    assert queries.find_sensor(store, "dark").run_url == ""  # MLflow has no server, so no page


def test_what_was_judged_while_mlflow_was_down_is_logged_by_the_next_server(serve, store, uri, archives):
    down = serve(SensorRuns(tracking_uri=f"http://127.0.0.1:{free_port()}", deadline=5))
    for later in range(2):
        down.upload(archives["dark"], timestamp=WHEN - 3600 * later)
        down.judge()
        with pytest.raises(TrackingError, match="does not answer"):
            down.reporter.work(WHEN + 61.0)
        assert down.waiting()
    serve(SensorRuns(tracking_uri=uri)).reporter.work(WHEN + 62.0)
    assert not down.waiting()
    history = MlflowClient(tracking_uri=uri).get_metric_history(queries.run_of(store, "door"), "drift/verdict")
    assert sorted(3600 * m.step for m in history) == [HOUR - 3600, HOUR]


def test_an_hour_that_cannot_be_logged_does_not_hold_up_the_others(serve, archives):
    server = serve(runs := Refusing(InputError("no such name")))
    for sensor in ("refused", "a", "b"):
        server.upload(archives["clean"], sensor)
    server.judge()
    server.reporter.work(WHEN + 61.0)
    assert sorted(runs.logged) == ["a", "b"]
    assert not server.waiting()
    assert b'lensai_failures_total{topic="report"} 1.0' in server.app.state.service.metrics.exposition()


def test_whoever_else_wants_to_be_told_is_told(serve, archives):
    told: list[str] = []
    server = serve(runs := Refusing(InputError("")), on_judged=lambda judged: told.append(judged.verdict.sensor))
    server.upload(archives["clean"])
    server.judge()
    server.reporter.work(WHEN + 61.0)
    assert told == runs.logged == ["door"]


def test_an_hour_is_logged_again_when_it_was_judged_anew_but_not_at_once(serve, archives):
    server = serve(runs := Refusing(InputError("")), report_seconds=600)
    for number, now in enumerate((61.0, 62.0, 700.0)):
        server.upload(archives["clean"], timestamp=WHEN + number)
        server.judge(WHEN + now)
        server.reporter.work(WHEN + now)
        assert len(runs.logged) == (1, 1, 2)[number]


def test_of_two_servers_one_logs(serve, store, archives):
    server = serve(Refusing(InputError("")), report_seconds=600)
    server.upload(archives["clean"])
    server.judge()
    first, second = (reporting.claim(store, WHEN + 61.0, 600) for _ in range(2))
    assert first is not None
    assert second is None
    reporting.put_back(store, first)
    assert reporting.claim(store, WHEN + 61.0, 600) is not None


def test_another_baseline_logs_every_hour_anew(serve, store, archives):
    server = serve(runs := Refusing(InputError("")))
    server.upload(archives["clean"])
    server.judge()
    server.reporter.work(WHEN + 61.0)
    assert store.judged_against("another baseline")
    server.judge(WHEN + 120.0)
    server.reporter.work(WHEN + 121.0)
    assert len(runs.logged) == 2


def test_mlflow_shows_what_another_baseline_says(serve, store, uri, archives):
    server, sensor = serve(SensorRuns(tracking_uri=uri)), f"anew-{store.kind}"
    server.upload(archives["dark"], sensor)
    server.judge()
    server.reporter.work(WHEN + 61.0)
    assert metric(uri, store, sensor, "drift/verdict") == 1
    server = Server(Baseline(profile(2, 0.5)), store, SensorRuns(tracking_uri=uri))
    server.judge(WHEN + 120.0)
    server.reporter.work(WHEN + 121.0)
    assert metric(uri, store, sensor, "drift/verdict") == 0


def test_a_server_that_ends_closes_the_runs(serve, archives):
    server = serve(runs := Refusing(InputError("")))
    server.upload(archives["clean"])
    server.judge()
    with server.client:
        end = time.monotonic() + 20
        while server.waiting() and time.monotonic() < end:
            server.reporter._wake.set()
            time.sleep(0.05)
        assert not runs.closed
    assert (runs.logged, runs.closed) == (["door"], True)


def test_pages_say_that_mlflow_is_down_and_uploads_go_on(serve, archives):
    runs = SensorRuns(tracking_uri=f"http://127.0.0.1:{free_port()}", deadline=5)
    server = serve(runs)
    with server.client as client:
        server.upload(archives["dark"])
        end = time.monotonic() + 20
        while "not logged to MLflow" not in (page := client.get("/").text) and time.monotonic() < end:
            time.sleep(0.1)
        assert "reports are not logged to MLflow at present: the server does not answer" in page
        server.upload(archives["dark"], timestamp=WHEN + 1)


def test_the_pages_are_served(serve, archives):
    server = serve(Refusing(InputError("")))
    assert "-F file=@stats.tar.gz http://localhost/upload/" in server.client.get("/").text
    server.upload(archives["dark"])
    server.judge()
    index = server.client.get("/")
    assert 'href="sensors/door"' in index.text
    assert "script-src 'sha256-" in index.headers["content-security-policy"]
    assert f'href="door/hours/{HOUR}/report"' in server.client.get("/sensors/door").text
    assert "Drift report" in server.client.get(f"/sensors/door/hours/{HOUR}/report").text
    assert server.client.get("/sensors/nobody").status_code == 404
