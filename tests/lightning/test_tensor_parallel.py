"""A model that two processes hold together: they are fed the same batches, which count once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_rows_count_once_and_columns_are_refused_by_name(tmp_path):
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(here.parents[1])}
    done = subprocess.run(
        [*command, str(here / "tensor_parallel_script.py"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads((tmp_path / "told.json").read_text())

    assert told["groups"] == {"inputs": 20, "outputs": 20, "embeddings/net.3": 20, "labels": 20}
    assert (told["rows"], told["training"]) == (20, 20)
    [refused] = [warning for warning in told["warnings"] if "net.1" in warning]
    assert "layer 'net.1' is not read: of what it answers, its axis 1 is split over 2 processes" in refused
