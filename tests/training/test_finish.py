from __future__ import annotations

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
