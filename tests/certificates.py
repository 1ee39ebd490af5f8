"""Certificates of one's own, as `openssl req -x509` makes them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make(cert: Path, key: Path, password: str = "") -> None:
    """A certificate of `localhost` and 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on PATH")
    locked = ["-passout", f"pass:{password}"] if password else ["-nodes"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *locked,
         "-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
