"""What callbacks make in processes that a trainer spawns or forks is in the caller's hands afterwards."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lensai_integrations.lightning import BaselineCallback, base


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_baselines_and_windows_come_back_to_the_caller(strategy, tmp_path):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, str(here / "spawn_script.py"), strategy, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TMPDIR": str(temporary)},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert re.fullmatch("lensai_baseline-[0-9a-f]{32}", found["folders"][0])  # of a run, and of a fit without one
    assert found == {
        "rows": [25, 40],
        "folders": [found["folders"][0], "lensai_baseline"],
        "as saved": True,
        "fresh": True,
        "warnings": [],
        "logged": [f"lensai/{name}" for name in ("manifest.json", "profile.npz", "report.html", "streams.csv")],
        "windows": [10, 3],  # of the first rank: 13 of 25 rows
    }
    assert list(temporary.glob("lensai_*")) == []


class _MultiProcessingLauncher:
    pass


@pytest.fixture
def trainer():
    return SimpleNamespace(strategy=SimpleNamespace(launcher=_MultiProcessingLauncher()), state=SimpleNamespace())


def test_what_is_sent_finds_the_callback_and_leaves_no_file(trainer):
    callback = BaselineCallback()
    base.bring_back(trainer, callback._name, directory_=Path("there"), baseline_=None)
    assert callback.directory_ is None
    (parcel,) = vars(trainer.state).values()
    path = Path(parcel._path)
    assert path.exists()
    pickle.loads(pickle.dumps(trainer.state))
    assert callback.directory_ == Path("there")
    assert not path.parent.exists()


def test_what_is_of_a_callback_that_is_gone_is_dropped(trainer):
    base.bring_back(trainer, "gone", directory_=Path("there"))
    path = Path(trainer.state._lensai_gone._path)
    pickle.loads(pickle.dumps(trainer.state))
    assert not path.exists()


def test_a_file_that_is_gone_is_said_and_harms_nothing(trainer, caplog):
    callback = BaselineCallback()
    base.bring_back(trainer, callback._name, directory_=Path("there"))
    (parcel,) = vars(trainer.state).values()
    Path(parcel._path).unlink()
    pickle.loads(pickle.dumps(trainer.state))
    assert callback.directory_ is None
    assert "what BaselineCallback made in another process could not be brought back" in caplog.text


def test_in_the_users_own_process_nothing_is_sent(trainer):
    trainer.strategy.launcher = None
    base.bring_back(trainer, "name", directory_=None)
    assert vars(trainer.state) == {}
