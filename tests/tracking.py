"""Real MLflow stores for tests: a server in a process of its own, and an embedded database.

MLflow's own imports warn about the releases of the libraries they find. They are done here once with warnings off, so
that every warning in a test is the test's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mlflow = pytest.importorskip("mlflow", exc_type=ImportError)
    from mlflow import MlflowClient
    from mlflow.store.model_registry import sqlalchemy_store as _registry  # noqa: F401
    from mlflow.store.tracking import sqlalchemy_store as _tracking  # noqa: F401

READY_SECONDS = 120
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
#: What a baseline's folder holds in a run.
FILES = ["manifest.json", "profile.npz", "report.html", "streams.csv"]


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the user's MLflow, and none of its own news."""
    for key in [key for key in os.environ if key.startswith("MLFLOW_")]:
        monkeypatch.delenv(key)
    for key, value in QUIET.items():
        monkeypatch.setenv(key, value)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """An `mlflow server` on the loopback interface, its database and artifacts in `folder`."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    def start(self) -> Server:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.artifacts)]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=clean | QUIET, start_new_session=True
            )
        self._wait_until_ready()
        return self

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end and self.process is not None and self.process.poll() is None:
            try:
                with urlopen(f"{self.uri}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (URLError, OSError):
                time.sleep(0.1)
        self.kill()
        pytest.fail(f"mlflow server did not become ready:\n{(self.folder / 'server.log').read_text()[-4000:]}")

    def kill(self) -> None:
        """End the server and its workers at once, as a crash of the machine would."""
        if self.process is not None:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@dataclass(frozen=True)
class Store:
    """A place to log to, whichever way it is reached."""

    uri: str
    artifacts: Path
    experiment_id: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def new_run(self) -> str:
        return str(self.client.create_run(self.experiment_id).info.run_id)

    def new_model(self, run_id: str | None = None) -> str:
        return str(self.client.create_logged_model(self.experiment_id, source_run_id=run_id).model_id)

    def new_version(self, name: str, model_id: str, run_id: str | None = None, alias: str | None = None) -> str:
        client = self.client
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        mlflow.set_tracking_uri(self.uri)  # an embedded registry looks the logged model up there, whatever the client's
        version = str(client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id).version)
        mlflow.set_tracking_uri(None)
        if alias is not None:
            client.set_registered_model_alias(name, alias, version)
        return version

    def runs(self) -> int:
        return len(self.client.search_runs([self.experiment_id], max_results=1000))


def contents(folder: Path) -> dict[str, bytes]:
    """File names and bytes of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
