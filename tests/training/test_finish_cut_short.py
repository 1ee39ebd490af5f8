"""The end of a fit that is cut short, at any of its steps: what is on disk is whole, and the log says what is left."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from fits import baseline_of, options_of

from lensai_integrations import Baseline
from lensai_integrations.cli import cli
from lensai_integrations.problems import Problems
from lensai_integrations.storage.folders import read_folder
from lensai_integrations.training import finish
from lensai_integrations.training.tracking import TrackedRun


class TimeUpError(Exception):
    """What a user's signal handler raises."""


@pytest.fixture(params=["ctrl-c", "a user's signal"])
def cut_short(request):
    """Sends a signal to this process, and what its handler raises."""
    if request.param == "ctrl-c":
        handler, number, kind = signal.default_int_handler, signal.SIGINT, KeyboardInterrupt
    else:
        number, kind = signal.SIGTERM, TimeUpError

        def handler(number, frame):
            raise TimeUpError("the job's time is over")

    before = signal.signal(number, handler)

    def interrupt(*_, **__):
        signal.raise_signal(number)

    yield interrupt, kind
    signal.signal(number, before)


@pytest.fixture
def deliver(tmp_path):
    """Deliver a baseline; `deliver.saved` are the folders that were told."""

    def run(baseline, runs=(), **options):
        settings = options_of(**{"clean_windows": 100, **options})
        told = {"say": lambda line: None, "saved": run.saved.append}
        return finish.deliver(baseline, settings, Problems(), root=tmp_path, runs=runs, **told)

    run.saved = []
    return run


def calibration_of(folder):
    return Baseline.load(folder).calibration


def commands(caplog):
    """The commands that the log says finish the job, without `lensai`."""
    (said,) = [record.getMessage() for record in caplog.records if "finish with: " in record.getMessage()]
    found = re.split(r" and then: ", said.split("finish with: ")[1])
    return [shlex.split(each)[1:] for each in found]


def test_what_is_cut_short_in_the_calibration_is_saved_and_the_advice_finishes_it(
    deliver, cut_short, tmp_path, monkeypatch, caplog
):
    interrupt, kind = cut_short
    whole = deliver(baseline_of(), directory=tmp_path / "whole")
    monkeypatch.setattr("lensai_integrations.drift.learning.calibrated", interrupt)
    with pytest.raises(kind):
        deliver(baseline_of())
    folder = tmp_path / "lensai_baseline"
    assert deliver.saved[-1] == folder
    assert calibration_of(folder) is None
    assert (folder / "report.html").exists()
    assert f"{kind.__name__}: the baseline is saved without calibration in {folder}" in caplog.text

    monkeypatch.undo()
    (command,) = commands(caplog)
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert set(calibration_of(folder)) == set(calibration_of(whole))
    for name, array in calibration_of(whole).items():
        np.testing.assert_array_equal(calibration_of(folder)[name], array)
    assert Baseline.load(folder).info == Baseline.load(whole).info


def test_with_runs_the_advice_also_logs_it(deliver, cut_short, monkeypatch, caplog):
    interrupt, kind = cut_short
    with monkeypatch.context() as patched:
        patched.setattr("lensai_integrations.drift.learning.calibrated", interrupt)
        with pytest.raises(kind):
            deliver(baseline_of(), [TrackedRun("0a", "http://one"), TrackedRun("0b", "two.db")], artifact_path="mine")
    pushed = []
    monkeypatch.setattr("lensai_integrations.mlflow.push", lambda *given, **named: pushed.append((*given, named)))
    for command in commands(caplog):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
    for (folder, named), run, uri in zip(pushed, ("0a", "0b"), ("http://one", "two.db"), strict=True):
        assert calibration_of(folder) is not None
        assert (named["run_id"], named["tracking_uri"], named["artifact_path"]) == (run, uri, "mine")


@pytest.mark.parametrize("step", ["first save", "second save", "upload"])
def test_every_other_step_leaves_what_was_there_before(deliver, cut_short, tmp_path, monkeypatch, caplog, step):
    interrupt, kind = cut_short
    folder = tmp_path / "own"
    deliver(baseline_of(150), directory=folder)  # of an earlier fit
    write, writes = finish.write_files, []

    def interrupted(*arguments):
        writes.append(arguments)
        if len(writes) == {"first save": 1, "second save": 2}.get(step):
            interrupt()
        write(*arguments)

    monkeypatch.setattr(finish, "write_files", interrupted)
    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", interrupt)
    with pytest.raises(kind):
        deliver(baseline_of(), [TrackedRun("0a", "http://127.0.0.1:1")], directory=folder)
    left = Baseline.load(folder)
    expected = {"first save": (150, True, 0), "second save": (120, False, 2), "upload": (120, True, 1)}
    assert (left.n, left.calibration is not None) == expected[step][:2]
    told = commands(caplog) if step != "first save" else []
    assert [each[0] for each in told] == ["calibrate", "push"][2 - expected[step][2] :]


def test_a_second_save_that_fails_leaves_the_first_and_the_upload_has_all(deliver, tmp_path, monkeypatch):
    uploaded, write, writes = [], finish.write_files, []

    def full(*arguments):
        writes.append(arguments)
        if len(writes) == 2:
            raise OSError(28, "No space left on device")
        write(*arguments)

    monkeypatch.setattr(finish, "write_files", full)
    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", lambda files, *_, **__: uploaded.append(files))
    given = baseline_of()
    folder = deliver(given, [TrackedRun("0a", "u")])
    assert calibration_of(folder) is None
    assert given.calibration is not None
    finish.write_files = write
    write(tmp_path / "uploaded", uploaded[0])
    assert set(calibration_of(tmp_path / "uploaded")) == set(given.calibration)


def test_what_is_uploaded_is_what_was_made_whoever_has_the_folder_by_then(deliver, tmp_path, monkeypatch):
    """Two trainings that were given one folder."""
    uploaded = {}

    def upload(files, saved, run_id, **_):
        baseline_of(200).save(saved)  # of the other one
        uploaded[run_id] = files

    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", upload)
    folder = deliver(baseline_of(101), [TrackedRun("0a", "u"), TrackedRun("0b", "u")], directory=tmp_path / "shared")
    assert Baseline.load(folder).n == 200
    for run, files in uploaded.items():
        finish.write_files(tmp_path / run, files)
        assert Baseline.load(tmp_path / run).n == 101


DELIVERS = Path(__file__).with_name("deliver_script.py")


@contextmanager
def script(*arguments):
    """A program that runs, and is killed if it does not end."""
    path = os.pathsep.join([str(DELIVERS.parents[1]), str(DELIVERS.parents[2])])
    program = subprocess.Popen(
        [sys.executable, str(DELIVERS), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    guard = threading.Timer(120, program.kill)
    guard.start()
    with program:
        yield program
    guard.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_ended_in_the_calibration_leaves_a_whole_baseline(tmp_path, number):
    with script("calibrates", tmp_path) as program:
        assert program.stdout.readline() == "calibrating\n"
        program.send_signal(number)
    assert program.returncode == -number
    left = Baseline.load(tmp_path / "lensai_baseline")
    assert (left.n, left.calibration) == (120, None)
    assert [path.name for path in tmp_path.iterdir()] == ["lensai_baseline"]


@pytest.mark.slow
def test_programs_that_save_to_one_folder_leave_the_baseline_of_one_and_log_their_own(tmp_path):
    with script("shares", tmp_path, 120) as one, script("shares", tmp_path, 130) as other:
        pass
    assert (one.returncode, other.returncode) == (0, 0)
    manifest, _ = read_folder(tmp_path / "shared")
    left = Baseline.load(tmp_path / "shared")
    assert left.n in (120, 130)
    assert left.calibration is not None
    kept = {path.name for path in (tmp_path / "shared").iterdir() if not path.name.startswith(".")}
    assert kept == {*manifest["files"], "manifest.json"}
    for n in (120, 130):
        uploads = sorted((tmp_path / f"uploads-{n}").iterdir())
        assert [Baseline.load(each).n for each in uploads] == [n] * 10


@pytest.mark.slow
def test_programs_that_ask_for_no_folder_have_their_own(tmp_path):
    with script("beside", tmp_path, 120) as one, script("beside", tmp_path, 130) as other:
        assert {program.stdout.readline() for program in (one, other)} == {"ready\n"}
        for program in (one, other):
            program.stdin.write("go\n")
            program.stdin.close()
    assert (one.returncode, other.returncode) == (0, 0)
    folders = sorted(tmp_path.glob("lensai_baseline*"))
    assert [Baseline.load(each).n for each in folders].count(120) == 10
    assert [Baseline.load(each).n for each in folders].count(130) == 10
