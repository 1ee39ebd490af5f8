from __future__ import annotations

import copy
import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from lensai_integrations import Baseline, ImageInputs, Profiler, compare, measure
from lensai_integrations.errors import TrackingError
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.problems import Problems
from lensai_integrations.training import finish
from lensai_integrations.training.tracking import TrackedRun


def test_one_run_that_fails_does_not_keep_the_others_from_it(tmp_path, monkeypatch):
    def upload(files, saved, run_id, **_):
        if run_id == "down":
            raise TrackingError("the server does not answer")

    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", upload)
    problems = Problems(quiet=True)
    runs = [TrackedRun("down", "u"), TrackedRun("up", "u")]

    assert finish.upload({}, tmp_path, runs, BaselineCallback()._options, problems) == [TrackedRun("up", "u")]
    assert len(problems.messages) == 1


def baseline_of(n, **settings):
    rng = np.random.default_rng(0)
    profiler = Profiler(source="validation", seed=1, **settings)
    profiler.update(outputs=rng.normal(size=(n, 3)).astype(np.float32))
    return Baseline(profiler.profile())


def delivered(tmp_path, baseline, **options):
    """The folder, the problems and what the user was told."""
    problems, told = Problems(quiet=True), []
    settings = BaselineCallback(**options)._options
    folder = finish.deliver(baseline, settings, problems, root=tmp_path, runs=[], say=told.append)
    return folder, problems.messages, told


def test_a_baseline_is_calibrated_before_it_is_saved(tmp_path):
    given = baseline_of(120)
    folder, problems, _ = delivered(tmp_path, given, clean_windows=100)
    assert problems == []
    loaded = Baseline.load(folder)
    assert set(loaded.calibration) == set(given.calibration)
    report = compare(loaded, loaded.reference)
    assert (report.correction, report.clean_windows) == ("max-t", 100)


def test_nothing_is_calibrated_where_that_is_not_wanted_or_was_done(tmp_path):
    given = baseline_of(120)
    _, problems, told = delivered(tmp_path, given, clean_windows=0)
    assert (problems, len(told)) == ([], 1)
    assert given.calibration is None
    given.calibration = own = {"about": np.zeros(1, np.uint8)}
    delivered(tmp_path, given, clean_windows=100)
    assert given.calibration is own


def test_fits_with_the_same_arguments_are_folds_and_each_has_a_folder(tmp_path):
    callback = BaselineCallback(clean_windows=0)
    said, folders = [], []
    for n, each in ((101, callback), (102, callback), (103, BaselineCallback(clean_windows=0))):
        folder = finish.deliver(baseline_of(n), each._options, Problems(), root=tmp_path, runs=[], say=said.append)
        folders.append(folder)
    assert [folder.name for folder in folders] == ["lensai_baseline", "lensai_baseline-2", "lensai_baseline-3"]
    assert [Baseline.load(folder).n for folder in folders] == [101, 102, 103]
    assert said[0] == f"Baseline of 101 validation rows: saved to {folders[0]}."
    assert said[1] == (
        f"Baseline of 102 validation rows: saved to {folders[1]} (beside that of an earlier fit, in {folders[0]}; pass"
        " directory= for a folder that the latest fit replaces)."
    )


def _delivered_by_a_worker(arguments):
    place, n, options = arguments
    said = []
    return finish.deliver(baseline_of(n), options, Problems(), root=place, runs=[], say=said.append)


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, "nothing", "a part", "all"])
def test_folds_of_several_processes_at_once_have_folders_of_their_own(tmp_path, left):
    first = tmp_path / "lensai_baseline"  # of an earlier program, or not there
    if left is not None:
        first.mkdir()
    if left in ("a part", "all"):
        baseline_of(100).save(first)
    if left == "a part":
        (first / "manifest.json").unlink()
    for path in (first, *first.glob("*")) if left else ():
        os.utime(path, (1, 1))
    options = BaselineCallback(clean_windows=0)._options
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        folders = list(pool.map(_delivered_by_a_worker, [(tmp_path, n, options) for n in range(101, 109)]))
    assert len(set(folders)) == 8
    assert first in folders
    assert [Baseline.load(folder).n for folder in folders] == list(range(101, 109))


def test_a_folder_that_was_asked_for_has_the_latest_baseline_and_the_log_says_so(tmp_path):
    said = []
    for n in (101, 102):
        folder, _, told = delivered(tmp_path, baseline_of(n), directory=tmp_path / "own", clean_windows=0)
        said += told
    assert (folder, Baseline.load(folder).n) == (tmp_path / "own", 102)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]
    assert said[0].endswith("own.")
    assert said[1].endswith("own (in place of that of an earlier fit; pass another directory= for each to keep both).")


def test_a_further_fit_that_is_asked_for_something_else_has_a_folder_of_its_own_too(tmp_path):
    delivered(tmp_path, baseline_of(101), clean_windows=0, segment_by="label")
    folder, _, told = delivered(tmp_path, baseline_of(102), clean_windows=0)
    assert (folder, Baseline.load(folder).n) == (tmp_path / "lensai_baseline-2", 102)
    assert "beside that of an earlier fit" in told[0]


def test_of_two_folds_in_one_run_the_log_says_that_the_latest_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", lambda *_, **__: None)
    said, runs = [], [TrackedRun("of-two-folds", "u")]
    for n, path in ((101, "lensai"), (102, "lensai"), (103, "fold-3")):
        options = BaselineCallback(clean_windows=0, artifact_path=path)._options
        finish.deliver(baseline_of(n), options, Problems(), root=tmp_path, runs=runs, say=said.append)
    assert said[0].endswith("logged to MLflow run of-two-folds.")
    assert said[1].endswith(
        "logged to MLflow run of-two-folds (in place of that of an earlier fit; pass another artifact_path= for each to"
        " keep both)."
    )
    assert said[2].endswith("logged to MLflow run of-two-folds.")


def test_what_an_earlier_program_left_is_replaced(tmp_path, monkeypatch):
    first, _, _ = delivered(tmp_path, baseline_of(101), clean_windows=0)
    monkeypatch.setattr("lensai_integrations.training.options._BEGINNING", time.time() + 10)  # of a later program
    again, _, told = delivered(tmp_path, baseline_of(102), clean_windows=0)
    assert (again, Baseline.load(again).n) == (first, 102)
    assert told == [f"Baseline of 102 validation rows: saved to {first} (in place of an earlier program's)."]
    assert not list(first.glob(".*before"))


def test_a_folder_that_a_fit_in_another_process_is_writing_is_left_alone(tmp_path):
    (tmp_path / "lensai_baseline").mkdir()
    folder, problems, _ = delivered(tmp_path, baseline_of(101), clean_windows=0)
    assert (folder, problems) == (tmp_path / "lensai_baseline-2", [])


def test_a_file_where_the_folder_should_be_is_one_problem(tmp_path):
    (tmp_path / "lensai_baseline").write_text("a note")
    folder, problems, _ = delivered(tmp_path, baseline_of(101), clean_windows=0)
    assert (folder, len(problems)) == (None, 1)
    assert (tmp_path / "lensai_baseline").read_text() == "a note"


def test_where_nothing_can_be_saved_the_baseline_is_logged_all_the_same(tmp_path, monkeypatch):
    """A container whose disk is read-only; here a file is in the way, since some users may write anywhere."""
    (tmp_path / "lensai_baseline-f00d").write_text("")
    uploaded, problems, told = [], Problems(quiet=True), []
    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", lambda *given, **_: uploaded.append(given))
    options = BaselineCallback(clean_windows=100)._options
    runs = [TrackedRun("f00d", "u")]
    assert finish.deliver(baseline_of(120), options, problems, root=tmp_path, runs=runs, say=told.append) is None
    ((files, saved),) = uploaded
    assert (set(files) > {"manifest.json", "profile.npz"}, saved) == (True, None)
    assert told == ["Baseline of 120 validation rows: logged to MLflow run f00d."]


def test_a_working_directory_that_is_gone_is_a_problem_of_saving(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    folder, problems, told = delivered(tmp_path, baseline_of(20), directory="relative")
    monkeypatch.chdir(tmp_path)
    assert folder is None
    assert len(problems) == 1
    assert problems[0].startswith("saving to relative: FileNotFoundError")
    assert told == ["Baseline of 20 validation rows: kept in memory only."]


def test_copies_of_options_ask_for_the_same():
    @measure("glare-of-a-fold", range=(0, 1))
    def glare(images):
        return images.mean(axis=(1, 2, 3))

    told = {"measures": [glare], "inputs": ImageInputs(mean=[0.5] * 3, std=[0.2] * 3)}
    options = BaselineCallback(**told)._options
    assert copy.deepcopy(options) == options


@pytest.mark.parametrize(("n", "settings"), [(99, {}), (200, {"rows": 0})])
def test_too_few_rows_to_calibrate_are_no_problem(tmp_path, n, settings):
    given = baseline_of(n, **settings)
    folder, problems, told = delivered(tmp_path, given, clean_windows=100)
    assert (problems, given.calibration, len(told)) == ([], None, 1)
    assert Baseline.load(folder).n == n


@pytest.mark.parametrize("error", [RuntimeError("no luck"), MemoryError(), np.linalg.LinAlgError("no convergence")])
def test_a_calibration_that_fails_is_one_problem_and_the_baseline_is_saved(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("lensai_integrations.drift.learning.calibrated", fail)
    folder, problems, _ = delivered(tmp_path, baseline_of(120), clean_windows=100)
    assert len(problems) == 1
    assert problems[0].startswith("calibration: ")
    loaded = Baseline.load(folder)
    assert (loaded.n, loaded.calibration) == (120, None)


def test_rows_that_are_mostly_not_finite_are_a_problem_and_no_crash(tmp_path):
    profiler = Profiler(source="validation", seed=1)
    rows = np.full((150, 3), np.nan, np.float32)
    rows[:60] = 5
    profiler.update(outputs=rows)
    folder, problems, _ = delivered(tmp_path, Baseline(profiler.profile()), clean_windows=100)
    assert "complete rows are too few" in problems[0]
    assert Baseline.load(folder).calibration is None


def test_nobodys_random_numbers_are_used(tmp_path):
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    given = baseline_of(120)
    delivered(tmp_path, given, clean_windows=100)
    assert given.calibration is not None
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_equal(np.random.get_state(), states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
