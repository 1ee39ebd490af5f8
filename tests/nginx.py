"""A real nginx as a proxy, with a certificate of its own, started for a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import make
from serving_process import free_port

_CONFIGURATION = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl; server_name lensai.example.org;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    {location}
  }}
}}
"""


def find_nginx() -> str:
    """Path of nginx. Without one the test is skipped, or fails where LENSAI_REQUIRE_NGINX=1 demands one."""
    found = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin")))
    if found is None:
        if os.environ.get("LENSAI_REQUIRE_NGINX") == "1":
            pytest.fail("LENSAI_REQUIRE_NGINX=1, but there is no nginx")
        pytest.skip("no nginx on PATH: install it to test the receiver behind a proxy")
    return found


@contextlib.contextmanager
def proxying(folder: Path, location: str) -> Iterator[int]:
    """The port of an nginx whose server has this `location`."""
    nginx, port = find_nginx(), free_port()
    make(folder / "cert.pem", folder / "key.pem")
    configuration = folder / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(folder=folder, port=port, location=location))
    command = [nginx, "-c", str(configuration), "-e", str(folder / "error.log"), "-p", str(folder)]
    with subprocess.Popen(command) as process:
        try:
            end = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail((folder / "error.log").read_text())
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()
