"""The benchmarks of training steps run to their end: they reach into what waits to be measured."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "arguments"),
    [("keras_step", ["--keras-backend", "tensorflow"]), ("lightning_step", [])],
)
def test_it_runs(benchmark, arguments, tmp_path):
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", f"benchmarks.training.{benchmark}", "--quick", "--json", str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode in (0, 1), done.stderr[-5_000:]  # 1 where an aim is missed, by so few steps
    assert json.loads(file.read_text())["figures"], done.stdout
