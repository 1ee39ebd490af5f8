"""Stores to log to and load from, and servers that fail in every way."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
from profiles import make_baseline
from tracking import MlflowClient, Server, Store, free_port, quiet

from lensai_integrations import Baseline


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No tracking URI from outside, none left behind, and nothing written into the repository by default stores."""
    quiet(monkeypatch)
    monkeypatch.chdir(tmp_path)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go, so that a test sees which are left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def baseline() -> Baseline:
    """A whole baseline; tests do not change it."""
    return make_baseline()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server that all tests share; those that kill one start their own."""
    running = Server(tmp_path_factory.mktemp("mlflow_server")).start()
    yield running
    running.kill()


@pytest.fixture(scope="session")
def server_store(server: Server) -> Store:
    experiment = MlflowClient(tracking_uri=server.uri).create_experiment("baselines")
    return Store(server.uri, server.artifacts, experiment)


@pytest.fixture(scope="session")
def embedded_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """MLflow without a server: a database file, and artifacts in a folder beside it."""
    folder = tmp_path_factory.mktemp("mlflow_embedded")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    experiment = MlflowClient(tracking_uri=uri).create_experiment("baselines", str(folder / "artifacts"))
    return Store(uri, folder / "artifacts", experiment)


@pytest.fixture(params=["embedded", pytest.param("server", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest) -> Store:
    """The test runs against both."""
    found: Store = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def unreachable() -> str:
    """The address of a server that is down."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0), backlog=16)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class _Denying(BaseHTTPRequestHandler):
    """Healthy, denies the rest, and keeps the `Authorization` headers it was sent."""

    def do_GET(self) -> None:
        self.server.sent.extend(self.headers.get_all("Authorization", []))  # type: ignore[attr-defined]
        self.send_response(200 if self.path == "/health" else 403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Hanging(_Denying):
    """Healthy, and never answers anything else."""

    def do_GET(self) -> None:
        if self.path != "/health":
            self.server.closing.wait()  # type: ignore[attr-defined]
        super().do_GET()


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[tuple[str, list[str]]]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    running.sent, running.closing = [], threading.Event()  # type: ignore[attr-defined]
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_port}", running.sent  # type: ignore[attr-defined]
    finally:
        running.closing.set()  # type: ignore[attr-defined]
        running.shutdown()
        running.server_close()


@pytest.fixture
def denying() -> Iterator[tuple[str, list[str]]]:
    """The address of a server that denies everything, and the `Authorization` headers it was sent."""
    with _serving(_Denying) as served:
        yield served


@pytest.fixture
def healthy_but_hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that says it is healthy and answers nothing else.

    What still waits for it at the end is waited for: MLflow opens no other store of the process meanwhile.
    """
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with _serving(_Hanging) as (address, _):
        yield address
    for thread in threading.enumerate():
        if thread.name == "lensai-mlflow":
            thread.join(60)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Callable[[], Server]]:
    """Starts a server that the test may kill and start again."""
    started: list[Server] = []

    def start() -> Server:
        folder = tmp_path / f"server_{len(started)}"
        folder.mkdir()
        started.append(Server(folder))
        return started[-1].start()

    yield start
    for running in started:
        running.kill()
