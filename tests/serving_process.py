"""`lensai serve` as a process of its own, as people start it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

_START = (sys.executable, "-c", "from lensai_integrations.cli import main; main()", "serve", "--no-reports")
#: The same with as many files as systemd gives by default.
_FEW_FILES = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)); "


@dataclass
class Serving:
    """A server that runs: its port, its process, and the file it logs to."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def get(self, path: str = "/healthz", **options: object) -> httpx.Response:
        with httpx.Client(base_url=self.url, verify=False, timeout=5, trust_env=False) as client:
            return client.get(path, **options)  # type: ignore[arg-type]

    def stop(self) -> int:
        """Its exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(30)

    def wait(self, until, seconds: float = 20.0) -> None:
        """Until something is so."""
        end = time.monotonic() + seconds
        while not until():
            if self.process.poll() is not None or time.monotonic() > end:
                pytest.fail(self.log.read_text())
            time.sleep(0.02)

    def answers(self) -> bool:
        try:
            return self.get().status_code == 200
        except httpx.TransportError:
            return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def serving(folder: Path, baseline: Path, *options: str, few_files: bool = False) -> Iterator[Serving]:
    """A server with its store and its log in a folder."""
    port, log = free_port(), folder / "serve.log"
    start = [*_START[:2], _FEW_FILES * few_files + _START[2], *_START[3:]]
    command = [*start, "--baseline", str(baseline), "--store", str(folder / "store"), "--port", str(port), *options]
    with log.open("wb") as told, subprocess.Popen(command, stderr=told) as process:
        server = Serving(port, process, log, "https" if "--tls-cert" in options else "http")
        try:
            server.wait(server.answers)
            yield server
        finally:
            process.kill()
