"""Real MLflow runs on a real server: the active one, and those that autologging makes."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras
import pytest
from tracking import FILES, MlflowClient, Server, mlflow, quiet

from lensai_integrations.keras import BaselineCallback
from lensai_integrations.mlflow import load_baseline

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow.keras
    import mlflow.tensorflow

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A server that the tests of this file share."""
    server = Server(tmp_path_factory.mktemp("mlflow")).start()
    yield server.uri
    server.kill()


@pytest.fixture(autouse=True)
def experiment(monkeypatch, tmp_path, uri):
    """An experiment of the test's own."""
    quiet(monkeypatch)
    monkeypatch.setattr("mlflow.tracking.fluent._active_experiment_id", None)  # put back when the test is over
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    mlflow.set_tracking_uri(uri)
    yield mlflow.set_experiment(tmp_path.name).experiment_id
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def runs(uri, experiment):
    """Ids of the runs, the first one first."""
    return [run.info.run_id for run in MlflowClient(uri).search_runs([experiment], order_by=["start_time ASC"])]


def artifacts(uri, run_id, path="lensai"):
    return sorted(entry.path.rsplit("/", 1)[-1] for entry in MlflowClient(uri).list_artifacts(run_id, path))


def test_the_active_run_holds_the_baseline(model, fit, uri, experiment, said):
    callback = BaselineCallback(["embedding"])
    with mlflow.start_run() as run:
        fit(model(), callback)
        assert mlflow.active_run().info.run_id == run.info.run_id
    run_id = run.info.run_id

    assert runs(uri, experiment) == [run_id]
    assert artifacts(uri, run_id) == FILES
    assert MlflowClient(uri).get_run(run_id).data.tags["lensai.baseline"] == "lensai"
    loaded = load_baseline(f"runs:/{run_id}", tracking_uri=uri)
    assert (loaded.n, loaded.training.n, loaded.info) == (24, 40, callback.baseline_.info)
    assert f"logged to MLflow run {run_id}" in said.messages[-1]


def test_without_a_run_there_is_the_folder_only(model, fit, uri, experiment, said):
    callback = BaselineCallback()
    fit(model(), callback)

    assert runs(uri, experiment) == []
    assert sorted(path.name for path in callback.directory_.iterdir()) == FILES
    assert "MLflow" not in said.messages[-1]


def test_an_interrupted_fit_is_logged_to_its_run(model, fit, uri, experiment):
    class Breaks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"), mlflow.start_run() as run, BaselineCallback() as callback:
        fit(model(), callback, Breaks())

    assert artifacts(uri, run.info.run_id) == FILES
    assert MlflowClient(uri).get_run(run.info.run_id).info.status == "FAILED"


def test_an_evaluation_makes_its_baseline_in_the_run_of_the_fit(model, fit, images, uri, experiment):
    callback, trains = BaselineCallback(reference="test"), model()
    with mlflow.start_run() as run:
        fit(trains, callback, epochs=1)
    trains.evaluate(*images(20, 3), callbacks=[callback], verbose=0)

    assert runs(uri, experiment) == [run.info.run_id]
    assert load_baseline(f"runs:/{run.info.run_id}", tracking_uri=uri).n == 20


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("flavor", ["keras", "tensorflow"])
def test_under_autologging_every_fits_run_holds_its_baseline(model, fit, uri, experiment, flavor):
    if flavor == "tensorflow":
        pytest.importorskip("tensorboard", reason="MLflow's callback for TensorFlow writes with it")
    autolog = getattr(mlflow, flavor).autolog
    callback, trains = BaselineCallback(["embedding"]), model()
    autolog(log_models=False, log_datasets=False)
    try:
        fit(trains, callback, epochs=1)
        assert mlflow.active_run() is None
        fit(trains, callback, epochs=1)
        assert mlflow.active_run() is None
        with mlflow.start_run() as own:
            fit(trains, callback, epochs=1)
            assert mlflow.active_run().info.run_id == own.info.run_id
    finally:
        autolog(disable=True)
    made = runs(uri, experiment)

    assert len(set(made)) == 3
    assert own.info.run_id in made
    for run_id in made:
        assert artifacts(uri, run_id) == FILES
        run = MlflowClient(uri).get_run(run_id)
        assert run.info.status == "FINISHED"
        assert "loss" in run.data.metrics  # it is the run that autologging logs to
        assert load_baseline(f"runs:/{run_id}", tracking_uri=uri).n == 24


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_model_that_autologging_logs_has_nothing_of_ours(model, fit, uri, experiment):
    mlflow.keras.autolog(log_models=True, log_datasets=False)
    try:
        fit(model(), BaselineCallback(), epochs=1)
    finally:
        mlflow.keras.autolog(disable=True)
    (run_id,) = runs(uri, experiment)

    assert artifacts(uri, run_id) == FILES
    (logged,) = MlflowClient(uri).get_run(run_id).outputs.model_outputs
    folder = mlflow.artifacts.download_artifacts(f"models:/{logged.model_id}")
    (file,) = Path(folder).glob("**/*.keras")
    assert b"lensai" not in file.read_bytes()
    assert keras.saving.load_model(file).count_params() == model().count_params()
