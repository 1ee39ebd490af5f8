"""JAX and Keras on the GPU, each in a process of its own: what is not installed is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu.running import Run
from benchmarks.results import ROOT

#: Both take hold of most of the GPU's memory if they are let.
_MODEST = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def jax(run: Run) -> dict[str, Any]:
    """`jax_profile.py`."""
    return _run(run, "jax", "benchmarks.gpu.jax_profile", {} if run.on_gpu else {"JAX_PLATFORMS": "cpu"})


def keras_on_torch(run: Run) -> dict[str, Any]:
    """`keras_fit.py`."""
    return _run(run, "keras", "benchmarks.gpu.keras_fit", {"KERAS_BACKEND": "torch"})


def keras_on_jax(run: Run) -> dict[str, Any]:
    """`keras_fit.py`."""
    return _run(run, "keras", "benchmarks.gpu.keras_fit", {"KERAS_BACKEND": "jax"})


def own_tests(run: Run) -> dict[str, Any]:
    """The package's tests that need a GPU."""
    if find_spec("pytest") is None:
        return {"not installed": "pytest"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "-k", "cuda", "-rs"]
    ran = _process(run, [*command, "tests/sketches", "tests/measures", "tests/lightning", "tests/profiling"], {})
    return {"exit status": ran.returncode, "output": ran.stdout[-2500:]}


def _run(run: Run, package: str, module: str, variables: dict[str, str]) -> dict[str, Any]:
    if find_spec(package) is None:
        return {"not installed": package}
    ran = _process(run, [sys.executable, "-m", module, *(["--quick"] if run.quick else [])], variables)
    if ran.returncode:
        return {"exit status": ran.returncode, "error": ran.stderr[-1500:]}
    found: dict[str, Any] = json.loads(ran.stdout.strip().splitlines()[-1])
    return found


def _process(run: Run, command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **_MODEST, **variables}
    seconds = max(30.0, min(150.0, run.left() - 10))
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
