"""All tests of this folder again, on each other backend that is installed, in a session of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import keras
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OTHERS = [name for name in ("tensorflow", "jax", "torch") if name != keras.backend.backend()]


#: JAX compiles for most of its session's time: of programs as they are run for users only where bits are compared.
FAST: Final = "--xla_backend_optimization_level=0"
SESSIONS: Final = [
    ("jax", FAST, "not identical"),
    ("jax", "", "identical"),
    ("tensorflow", "", ""),
    ("torch", "", ""),
]


@pytest.mark.slow
@pytest.mark.skipif("LENSAI_KERAS_SESSION" in os.environ, reason="is what started this session")
@pytest.mark.parametrize(("backend", "flags", "chosen"), [session for session in SESSIONS if session[0] in OTHERS])
def test_all_passes_on_the_other_backends_too(backend, flags, chosen, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend, "LENSAI_KERAS_SESSION": "1"}
    environment |= {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()} if flags else {}
    environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_")}
    arguments = ["-q", "-p", "no:cacheprovider", "-k", chosen, "--basetemp", str(tmp_path / "pytest"), str(HERE)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
