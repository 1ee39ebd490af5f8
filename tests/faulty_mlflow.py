"""A tracking server in this process, as far as baselines and reports need one, with faults where artifacts are kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
EXPERIMENT = {
    "experiment_id": "1",
    "name": "e",
    "artifact_location": "mlflow-artifacts:/1",
    "lifecycle_stage": "active",
}


class Faulty(ThreadingHTTPServer):
    """Keeps the artifacts of one run, but where `fault` has its way with a request.

    Attributes:
        run_id: Of the run; another for each server, since MLflow remembers runs by their ids alone.
        files: What was put, by path below the artifacts.
        asked: Method and path of every request.
        fault: Answers a request and returns True, or returns False and leaves it to the server.
        closing: Set at the end; what hangs waits for it.
    """

    daemon_threads = True

    def __init__(self, fault: Callable[[Handler], bool]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.run_id = uuid4().hex
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.fault = fault
        self.closing = threading.Event()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def info(self) -> dict[str, Any]:
        named = {"run_id": self.run_id, "run_uuid": self.run_id, "experiment_id": "1", "start_time": 1}
        home = f"mlflow-artifacts:/1/{self.run_id}/artifacts"
        return {**named, "status": "RUNNING", "lifecycle_stage": "active", "artifact_uri": home}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Faulty
    protocol_version = "HTTP/1.1"
    body = b""

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {urlsplit(self.path).path}")
        if self.path == "/health" or not self.server.fault(self):
            self._answer()

    do_PUT = do_POST = do_DELETE = do_PATCH = do_GET

    def read(self, count: int | None = None) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0) if count is None else count)

    def drop(self) -> bool:
        self.close_connection = True
        self.connection.close()
        return True

    def reply(self, status: int, content: Any, kind: str = "application/json", **headers: str) -> bool:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers |= {"Content_Type": kind, "Content_Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        return True

    @property
    def is_of_artifacts(self) -> bool:
        return self.path.startswith(ARTIFACTS)

    def _answer(self) -> None:
        body, place = self.read(), urlsplit(self.path)
        name = place.path.removeprefix(ARTIFACTS).lstrip("/")
        if not self.is_of_artifacts:
            self.reply(200, {"run": {"info": self.server.info, "data": {}}, "experiment": EXPERIMENT})
        elif self.command == "PUT":
            self.server.files[name] = body
            self.reply(200, {})
        elif name and name not in self.server.files:
            self.reply(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such file"})
        elif name:
            self.reply(200, self.server.files[name], "text/html" if name.endswith(".html") else "text/plain")
        else:
            within = parse_qs(place.query)["path"][0] + "/"
            files = {path.removeprefix(within): content for path, content in self.server.files.items()}
            listed = [{"path": path, "is_dir": False, "file_size": len(content)} for path, content in files.items()]
            self.reply(200, {"files": listed})

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(fault: Callable[[Handler], bool]) -> Iterator[Faulty]:
    running = Faulty(fault)
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield running
    finally:
        running.closing.set()
        running.shutdown()
        running.server_close()
