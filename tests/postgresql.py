"""A PostgreSQL server of the tests' own: on a socket in a folder of its own, gone when they end."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


def _binaries() -> Path | None:
    """The folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    places = [path.parent for path in reversed(found)]
    if on_path := shutil.which("initdb"):
        places.append(Path(on_path).resolve().parent)
    return next((place for place in places if (place / "postgres").exists()), None)


def _someone_else() -> dict[str, object]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL cannot run as root, and there is no other user")


class Server:
    """The server: its URL, and the process, which tests may stop and start."""

    def __init__(self, binaries: Path, folder: Path, fsync: str = "off") -> None:
        self.binaries, self.folder, self.fsync, self.user = binaries, folder, fsync, _someone_else()
        self.url = f"postgresql://lensai@/postgres?host={folder}"
        if self.user:
            os.chown(folder, self.user["user"], self.user["group"])  # type: ignore[arg-type]
        options = ["--auth=trust", "--username=lensai", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", "-D", str(folder / "data"), *options)
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), *arguments]
        done = subprocess.run(command, check=False, cwd=self.folder, capture_output=True, text=True, **self.user)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        command = [str(self.binaries / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder)]
        quiet = [
            "-c",
            "listen_addresses=",
            "-c",
            f"fsync={self.fsync}",
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_connections=60",
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*command, *quiet], cwd=self.folder, stdout=log, stderr=log, **self.user)
        deadline = time.monotonic() + 30
        ready = [str(self.binaries / "pg_isready"), "-q", "-h", str(self.folder)]
        while subprocess.run(ready, check=False).returncode != 0:
            running = time.monotonic() < deadline and self.process.poll() is None
            assert running, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, as if it had crashed."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)


@contextlib.contextmanager
def running(fsync: str = "off") -> Iterator[Server]:
    """A server that runs as long as it is needed; the test is skipped where there is none."""
    binaries = _binaries()
    if binaries is None:
        if os.environ.get("LENSAI_REQUIRE_POSTGRESQL"):
            pytest.fail("PostgreSQL's server is not installed")
        pytest.skip("PostgreSQL's server is not installed: no initdb")
    folder = Path(tempfile.mkdtemp(prefix="lensai_pg_", dir="/tmp"))
    try:
        server = Server(binaries, folder, fsync)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
