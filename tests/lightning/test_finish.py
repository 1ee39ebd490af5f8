from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lensai_integrations import Baseline, Profiler
from lensai_integrations.errors import TrackingError
from lensai_integrations.lightning import BaselineCallback, finish
from lensai_integrations.lightning.finish import Belonging
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.training.tracking import TrackedRun


def options(**arguments):
    return BaselineCallback(**arguments)._options


def belonging(fit):
    return Belonging(fit.profiles, "the weights that fit leaves")


def checkpoint(path, monitor=None):
    return SimpleNamespace(best_model_path=path, monitor=monitor)


@pytest.fixture
def fit():
    profiler = Profiler(source="validation")
    profiler.update(inputs=np.zeros((6, 8, 8, 3), np.uint8), labels=np.arange(6))
    state = LightningFit(options(), 0, 1)
    state.profiles["validation"] = profiler.profile()
    return state


@pytest.fixture
def trainer(tmp_path, lit):
    return SimpleNamespace(
        checkpoint_callbacks=[], loggers=[], fast_dev_run=False, default_root_dir=str(tmp_path), lightning_module=lit()
    )


@pytest.fixture
def pushed(monkeypatch):
    """What is uploaded, which fails for runs called "down"."""
    calls = []

    def upload(files, folder, **arguments):
        assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
        calls.append((folder, arguments))
        if arguments["run_id"] == "down":
            raise TrackingError(f"the server does not answer; finish with: lensai push {folder} --run down")

    monkeypatch.setattr("lensai_integrations.mlflow.log.upload_files", upload)
    return calls


def test_the_best_checkpoint_is_that_of_a_monitored_one():
    def best(*callbacks):
        return finish.best_checkpoint(SimpleNamespace(checkpoint_callbacks=list(callbacks)))

    assert best() == ""
    assert best(checkpoint("")) == ""
    assert best(SimpleNamespace()) == ""
    assert best(checkpoint("a"), checkpoint("b")) == "a"
    assert best(checkpoint("a"), checkpoint("", "loss"), checkpoint("c", "loss")) == "c"


def test_saved_and_logged_to_the_loggers_runs(fit, trainer, pushed, said, tmp_path):
    logger = type("MLFlowLogger", (), {"run_id": "r1", "experiment": SimpleNamespace(tracking_uri="u")})()
    trainer.loggers = [logger]
    baseline, folder = finish.conclude(
        fit, options(artifact_path="a/b", upload_deadline=3), trainer, belonging(fit), TrackedRun("active", "u")
    )

    assert folder == tmp_path / "lensai_baseline-a-b-r1"
    assert Baseline.load(folder).n == baseline.n == 6
    assert pushed == [(folder, {"run_id": "r1", "tracking_uri": "u", "artifact_path": "a/b", "deadline": 3})]
    assert said.messages == [f"Baseline of 6 validation rows: saved to {folder}, logged to MLflow run r1."]


def test_without_a_logger_the_active_run_has_it(fit, trainer, pushed):
    finish.conclude(fit, options(), trainer, belonging(fit), TrackedRun("active", "u"))

    assert [arguments["run_id"] for _, arguments in pushed] == ["active"]


def test_without_any_run_nothing_is_uploaded(fit, trainer, pushed):
    finish.conclude(fit, options(), trainer, belonging(fit), None)

    assert pushed == []


def test_a_server_that_is_down_costs_the_upload_and_its_command_is_said(fit, trainer, pushed, said):
    _, folder = finish.conclude(fit, options(), trainer, belonging(fit), TrackedRun("down", "u"))

    assert Baseline.load(folder).n == 6
    (warning,) = [record for record in said.records if record.levelname == "WARNING"]
    assert f"lensai push {folder} --run down" in warning.getMessage()
    assert said.messages[-1] == f"Baseline of 6 validation rows: saved to {folder}."


def test_nothing_profiled_is_said_with_its_cause(trainer, said):
    state = LightningFit(options(), 0, 1)
    state.problems.note("starting validation", "no such thing")

    assert finish.conclude(state, options(), trainer, belonging(state), None) == (None, None)
    assert "no whole validation pass was profiled (starting validation: no such thing)" in said.messages[-1]


def test_relative_folders_are_made_absolute(fit, trainer, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, folder = finish.conclude(fit, options(directory="here"), trainer, belonging(fit), None)

    assert folder == Path(tmp_path / "here")
    assert folder.is_absolute()


@pytest.mark.parametrize(
    ("root", "local"), [("s3://bucket/runs", "."), ("memory://x", "."), ("file:///disk/x", "/disk/x"), ("/a/b", "/a/b")]
)
def test_the_baseline_of_a_trainer_whose_root_is_a_bucket_is_in_the_working_directory(root, local):
    assert finish._local(root) == local
