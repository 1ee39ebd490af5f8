"""Real MLflow runs: the logger's, the active one, and what autologging makes of a monitored model."""

from __future__ import annotations

import warnings

import pytest
from tracking import FILES, MlflowClient, free_port, mlflow, quiet

from lensai_integrations import Baseline
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.mlflow import load_baseline

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lightning.pytorch.loggers import MLFlowLogger

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """An embedded store that the tests of this file share."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def _settings(monkeypatch, tmp_path, uri):
    quiet(monkeypatch)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(uri)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def artifacts(uri, run_id, path="lensai"):
    return sorted(entry.path.rsplit("/", 1)[-1] for entry in MlflowClient(uri).list_artifacts(run_id, path))


def test_the_loggers_run_holds_the_baseline(trainer, lit, loaders, uri, said):
    logger = MLFlowLogger("fits", tracking_uri=uri)
    callback = BaselineCallback()
    trainer(callback, logger=logger).fit(lit(), loaders(24), loaders(16))
    run = MlflowClient(uri).get_run(logger.run_id)

    assert artifacts(uri, logger.run_id) == FILES
    assert run.info.status == "FINISHED"
    assert run.data.tags["lensai.baseline"] == "lensai"
    loaded = load_baseline(f"runs:/{logger.run_id}", tracking_uri=uri)
    assert (loaded.n, loaded.training.n) == (16, 24)
    assert loaded.info == callback.baseline_.info
    assert f"logged to MLflow run {logger.run_id}" in said.messages[-1]


def test_two_loggers_and_an_artifact_path(trainer, lit, loaders, uri):
    loggers = [MLFlowLogger(name, tracking_uri=uri) for name in ("first", "second")]
    trainer(BaselineCallback(artifact_path="lensai/fold-1"), logger=loggers).fit(lit(), loaders(24), loaders(16))

    assert [artifacts(uri, logger.run_id, "lensai/fold-1") for logger in loggers] == [FILES] * 2


def test_an_interrupted_fit_is_logged_to_its_run(trainer, lit, loaders, uri):
    class Breaks(lit):
        def training_step(self, batch, batch_idx):
            if self.current_epoch == 1:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    logger = MLFlowLogger("interrupted", tracking_uri=uri)
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(BaselineCallback(), logger=logger, max_epochs=3).fit(Breaks(), loaders(24), loaders(16))

    assert artifacts(uri, logger.run_id) == FILES
    assert MlflowClient(uri).get_run(logger.run_id).info.status == "FAILED"


def test_the_active_run_holds_it_where_there_is_no_logger(trainer, lit, loaders, uri):
    with mlflow.start_run() as run:
        trainer(BaselineCallback()).fit(lit(), loaders(24), loaders(16))

    assert artifacts(uri, run.info.run_id) == FILES


def test_a_logger_comes_before_the_active_run(trainer, lit, loaders, uri):
    logger = MLFlowLogger("both", tracking_uri=uri)
    with mlflow.start_run() as run:
        trainer(BaselineCallback(), logger=logger).fit(lit(), loaders(24), loaders(16))

    assert artifacts(uri, logger.run_id) == FILES
    assert artifacts(uri, run.info.run_id) == []


def test_fast_dev_run_logs_nothing(trainer, lit, loaders, uri):
    with mlflow.start_run() as run:
        trainer(BaselineCallback(), fast_dev_run=True).fit(lit(), loaders(24), loaders(16))

    assert artifacts(uri, run.info.run_id, None) == []


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_autologging_finds_a_model_it_can_pickle(trainer, lit, loaders, uri):
    callback = BaselineCallback()
    mlflow.pytorch.autolog(log_models=True, checkpoint=False, silent=False)
    try:
        trainer(callback).fit(lit(), loaders(24), loaders(16))
        run_id = mlflow.last_active_run().info.run_id
    finally:
        mlflow.pytorch.autolog(disable=True)

    assert MlflowClient(uri).get_run(run_id).info.status == "FINISHED"
    assert MlflowClient(uri).get_run(run_id).outputs.model_outputs
    assert artifacts(uri, run_id) == FILES
    assert callback.baseline_.n == 16


def test_a_server_that_is_down_costs_the_upload_only(trainer, lit, loaders, uri, said, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with mlflow.start_run():
        callback = BaselineCallback(upload_deadline=5.0)
        monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: f"http://127.0.0.1:{free_port()}")
        trainer(callback).fit(lit(), loaders(24), loaders(16))
        monkeypatch.undo()

    assert Baseline.load(callback.directory_).n == 16
    (warning,) = [r.getMessage() for r in said.records if r.name.startswith("lensai") and r.levelname == "WARNING"]
    assert "was not uploaded" in warning
    assert f"lensai push {callback.directory_} --run" in warning
