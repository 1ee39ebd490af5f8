"""A monitor that is killed loses at most the batch it was given, and repeats no alarm: real processes, real SIGKILL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SCRIPT = Path(__file__).with_name("monitor_kill_script.py")
TUMBLING = [[1, "alarm", 4], [2, "ok", 4]]
SLIDING = [[1, "alarm", 4], [2, "alarm", 4], [3, "ok", 4]]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")


@pytest.mark.slow
@pytest.mark.parametrize(("stride", "windows", "step"), [(0, TUMBLING, 1), (2, SLIDING, 16)])
def test_killed_at_every_file_operation(tmp_path, stride, windows, step):
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", ""), *sys.path[:1]])
    command = [sys.executable, "-W", "ignore", str(SCRIPT), str(tmp_path), str(stride), str(step)]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    operations, results = told["operations"], told["results"]
    assert operations > 50
    assert [result["kills"] for result in results[1:-1]] == [1] * len(range(0, operations, step))
    assert 1 < results[-1]["kills"] < 50  # killed over and over again, it still gets to the end
    for result in results:
        # At most the unfinished batch is lost, and nothing counts twice: every window is judged once, of four rows.
        assert all(returned <= kept <= returned + 1 for kept, returned in result["starts"][:2]), result
        assert result["windows"] == windows, result
        assert result["notices"] == ["alarm", "recovery"], result
        # A function is told at most once, and was only not told if it was killed between the note and the call.
        assert result["told"] in (["alarm", "recovery"], ["alarm"], ["recovery"]), result
        assert result["failures"] == ["{}"], result
        assert result["running"]
        assert result["files"].count(".partial") == 0  # what a crash left is removed
        assert result["files"].count(".npz") <= 2
    # Between note and call are the last operations of the commit: open, sync and close the folder, remove a file.
    assert sum(len(result["told"]) < 2 for result in results[1:-1]) <= 2 * 4
