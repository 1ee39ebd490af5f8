from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lensai_integrations import Baseline, Profiler, compare
from lensai_integrations.errors import TrackingError
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.training import finish
from lensai_integrations.training.problems import Problems
from lensai_integrations.training.tracking import TrackedRun


def test_one_run_that_fails_does_not_keep_the_others_from_it(tmp_path, monkeypatch):
    def push(folder, run_id, **_):
        if run_id == "down":
            raise TrackingError("the server does not answer")

    monkeypatch.setattr("lensai_integrations.mlflow.push", push)
    problems = Problems(quiet=True)
    runs = [TrackedRun("down", "u"), TrackedRun("up", "u")]

    assert finish.upload(tmp_path, runs, BaselineCallback()._options, problems) == [TrackedRun("up", "u")]
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

    monkeypatch.setattr("lensai_integrations.drift.calibrate.calibrated", fail)
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
