"""Two devices on the CPU, each in a process of its own: every row is counted once, training is as without us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

EVERYTHING = ("inputs", "outputs", "embeddings/pool", "labels")
HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.backend("tensorflow", "jax")
def test_two_devices_make_one_exact_baseline_and_train_the_same(tmp_path):
    """`tf.distribute.MirroredStrategy`, and `keras.distribution.DataParallel` on JAX."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": keras.backend.backend(),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    done = subprocess.run(
        [sys.executable, str(HERE / "distributed_script.py"), str(tmp_path / "found.json")],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-8000:]

    for found in json.loads((tmp_path / "found.json").read_text()):
        assert found["warnings"] == []
        assert found["reference"] == dict.fromkeys(EVERYTHING, 50)
        assert found["training"] == dict.fromkeys(EVERYTHING, 70)
        assert found["rows"] == 50
        assert found["pixels"]
        assert found["same"]
