"""A model that is monitored where MLflow serves it: the same predictions, every row counted, and never in the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from snippets import run_section
from tracking import QUIET, free_port

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profiler, __version__
from lensai_integrations.errors import InputError
from lensai_integrations.mlflow import load_baseline, log_baseline, monitored
from lensai_integrations.mlflow.served import MonitoredModel, _close
from lensai_integrations.mlflow.wrapping import _checked
from lensai_integrations.monitoring.sinks.json_lines import read_events

SIDE = 8


def photos(n, seed=0, brightness=1.0):
    rng = np.random.default_rng(seed)
    base = rng.uniform(60, 200, (n, 1, 1, 3)) + rng.normal(0, 25, (n, SIDE, SIDE, 3))
    return np.clip(base * brightness, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def classifier():
    """Takes images, answers probabilities of 3 classes."""
    flat = FunctionTransformer(np.reshape, kw_args={"shape": (-1, SIDE * SIDE * 3)})
    images = photos(300)
    return make_pipeline(flat, GaussianNB(var_smoothing=1.0)).fit(images, np.arange(300) % 3)


@pytest.fixture(scope="module")
def baseline(classifier):
    profiler = Profiler(source="validation", seed=1)
    profiler.update(inputs=photos(400, 1), outputs=classifier.predict_proba(photos(400, 1)))
    return Baseline(profiler.profile())


@pytest.fixture(scope="module")
def here(embedded_store):
    """A context in which MLflow logs to the embedded store, and says and warns nothing."""

    @contextmanager
    def inside():
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            for key, value in QUIET.items():
                patch.setenv(key, value)
            warnings.simplefilter("ignore")  # MLflow's own, on pickle and on requirements
            mlflow.set_tracking_uri(embedded_store.uri)
            patch.setattr("mlflow.tracking.fluent._active_experiment_id", None)
            patch.setenv("MLFLOW_EXPERIMENT_ID", embedded_store.experiment_id)  # set_experiment would stay behind
            yield
            mlflow.set_tracking_uri(None)

    return inside


@pytest.fixture(scope="module")
def logged(here, classifier, baseline):
    """A logged model with its baseline beside it."""
    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, SIDE, SIDE, 3))]))
    with here():
        info = mlflow.sklearn.log_model(
            classifier,
            name="cats",
            signature=signature,
            serialization_format="cloudpickle",
            pyfunc_predict_fn="predict_proba",
            pip_requirements=["scikit-learn", "cloudpickle"],
        )
        log_baseline(baseline, model_id=info.model_id)
    return info


@pytest.fixture(scope="module")
def wrapped(here, logged):
    with here():
        return monitored(logged.model_uri, window=50, name="watched")


@pytest.fixture
def loaded(here, logged, wrapped, tmp_path, monkeypatch):
    """The plain model, the monitored one, and the folder that it writes to."""
    monkeypatch.setenv("LENSAI_MONITOR_DIR", str(tmp_path / "monitor"))
    with here():
        watched = mlflow.pyfunc.load_model(wrapped.model_uri)
        yield mlflow.pyfunc.load_model(logged.model_uri), watched, tmp_path / "monitor"
    if watched._model_impl.monitor is not None:
        watched._model_impl.monitor.close()


def rows_of(folder):
    return sum(json.loads(head.read_text())["rows"] for head in folder.glob("worker-*/head.json"))


@pytest.mark.slow
def test_it_predicts_as_the_wrapped_model_and_counts_every_row(loaded, caplog):
    plain, watched, folder = loaded
    for n, brightness in [(30, 1.0), (1, 1.0), (19, 1.0), (60, 0.3)]:
        given = photos(n, n, brightness)
        np.testing.assert_array_equal(watched.predict(given), plain.predict(given))  # bit for bit
    events = list(read_events(folder / "worker-0.jsonl"))
    assert [(e["window"]["rows"], e["kind"]) for e in events if e["type"] == "window"] == [(50, "ok"), (50, "alarm")]
    assert rows_of(folder) == 110
    assert watched._model_impl.monitor.status.failures == {}
    assert "production: alarm, window 2" in caplog.text


def test_what_is_logged(logged, wrapped, baseline, here):
    assert wrapped.signature == logged.signature
    with here():
        assert load_baseline(wrapped.model_uri).n == baseline.n
        folder = Path(mlflow.artifacts.download_artifacts(wrapped.model_uri))
    assert f"lensai-integrations[mlflow]=={__version__}" in (folder / "requirements.txt").read_text()
    assert "scikit-learn" in (folder / "requirements.txt").read_text()
    assert json.loads((folder / "data" / "monitored" / "monitor.json").read_text())["monitor"]["window"] == 50
    assert not (folder / "data" / "monitored" / "model" / "lensai").exists()


def test_the_snippet_of_the_documentation(here, logged, capsys):
    with here():
        mlflow.register_model(logged.model_uri, "cats")
        run_section("monitoring.md", "MLflow", {})
    assert capsys.readouterr().out.splitlines()[-1] == "True"


class Echo:
    """A wrapped model that answers what it was told to."""

    def __init__(self, answer):
        self.answer = answer

    def predict(self, model_input, params=None):
        if isinstance(model_input, np.ndarray):
            model_input[:] = 0  # works in place on what it was given
        return self.answer


@pytest.fixture
def folder(tmp_path, baseline, monkeypatch):
    """The folder of a monitored model, without the wrapped one."""
    monkeypatch.setenv("LENSAI_MONITOR_DIR", str(tmp_path / "monitor"))
    baseline.save(tmp_path / "baseline")
    configuration = {"monitor": {"window": 20}, "inputs": None, "directory": "unused"}
    (tmp_path / "monitor.json").write_text(json.dumps(configuration))
    return tmp_path


@pytest.mark.parametrize("table", [pd.DataFrame({"text": ["a", "b"]}), ["a", "b"], {"text": np.array(["a", "b"])}])
def test_what_is_no_image_passes_and_is_noted_once(folder, baseline, table, caplog):
    answer = pd.DataFrame(np.full((2, 3), 1 / 3))
    model = MonitoredModel(Echo(answer), folder)
    for _ in range(3):
        assert model.predict(table) is answer
    assert sum("inputs" in message for message in caplog.messages) == 1
    status = model.monitor.status
    assert (status.rows, status.failures) == (6, {})  # outputs are monitored all the same
    model.monitor.close()


def test_images_are_measured_as_they_came(folder, classifier):
    given = photos(20, 3)
    model = MonitoredModel(Echo(classifier.predict_proba(given)), folder)
    model.predict({"image": given.copy()})
    model.predict(given.copy())
    events = list(read_events(folder / "monitor" / "worker-0.jsonl"))
    assert [e["kind"] for e in events if e["type"] == "window"] == ["ok", "ok"]
    model.monitor.close()


@pytest.mark.parametrize("asked", [None, {"left": ImageInputs(scale=1), "right": ImageInputs(key="r")}])
def test_several_image_inputs_are_told_apart(folder, asked):
    profiler = Profiler(inputs={"left": ImageInputs(), "right": ImageInputs()}, source="validation", seed=1)
    profiler.update(inputs={"left": photos(400, 1), "right": photos(400, 2)})
    shutil.rmtree(folder / "baseline")
    Baseline(profiler.profile()).save(folder / "baseline")
    told = json.loads(json.dumps(_checked({"window": 50}, asked, folder / "monitor")))
    (folder / "monitor.json").write_text(json.dumps(told))
    model = MonitoredModel(Echo(np.zeros((50, 3))), folder)
    right = "right" if asked is None else "r"
    for dark in (1.0, 0.4):
        model.predict({"left": photos(50, 3), right: photos(50, 4, dark), "time": np.zeros((50, 2))})
    windows = [e for e in read_events(folder / "monitor" / "worker-0.jsonl") if e["type"] == "window"]
    assert [each["kind"] for each in windows] == ["ok", "alarm"]
    groups = windows[1]["window"]["groups"]
    assert {name: group["drift"] for name, group in groups.items()} == {"inputs/left": False, "inputs/right": True}
    assert model.monitor.status.failures == {}
    model.monitor.close()


def test_outputs_can_be_left_out(folder):
    configuration = json.loads((folder / "monitor.json").read_text()) | {"outputs": False}
    (folder / "monitor.json").write_text(json.dumps(configuration))
    model = MonitoredModel(Echo(np.zeros((20, 7))), folder)
    model.predict(photos(20))
    assert (model.monitor.status.windows, model.monitor.status.failures) == (1, {})
    model.monitor.close()


def test_at_exit_a_process_closes_only_its_own(folder, monkeypatch):
    model = MonitoredModel(Echo(np.full((4, 3), 1 / 3)), folder)
    model.predict(photos(4))
    _close(lambda: model.monitor, os.getpid() + 1)
    assert model.monitor.status.state == "Running"
    _close(lambda: model.monitor, os.getpid())
    assert model.monitor.status.state == "Completed"


def test_the_models_own_errors_pass_and_count_no_rows(folder):
    class Fails:
        def predict(self, model_input, params=None):
            raise RuntimeError("out of memory")

    model = MonitoredModel(Fails(), folder)
    with pytest.raises(RuntimeError, match="out of memory"):
        model.predict(photos(4))
    assert model.monitor.status.rows == 0
    model.monitor.close()


@pytest.mark.parametrize("fault", ["baseline", "configuration", "directory", "update"])
def test_a_failing_monitor_is_not_noticed(folder, fault, monkeypatch, caplog):
    if fault == "baseline":
        (folder / "baseline" / "profile.npz").write_bytes(b"damaged")
    elif fault == "configuration":
        (folder / "monitor.json").unlink()
    elif fault == "directory":
        (folder / "monitor").write_text("a file")
    else:
        monkeypatch.setattr(DriftMonitor, "update", lambda *_, **__: 1 / 0)
    model = MonitoredModel(Echo(answer := np.full((4, 3), 1 / 3)), folder)
    for _ in range(3):
        assert model.predict(photos(4)) is answer
    assert 1 <= len([r for r in caplog.records if r.name.startswith("lensai")]) <= 3


def test_each_process_has_a_folder_and_one_that_is_gone_is_gone_on_with(folder):
    answer = np.full((4, 3), 1 / 3)
    first, second = (MonitoredModel(Echo(answer), folder) for _ in range(2))
    for model in (first, second, second):
        model.predict(photos(4))
    assert sorted(path.name for path in (folder / "monitor").glob("worker-?")) == ["worker-0", "worker-1"]
    first.monitor.close()
    third = MonitoredModel(Echo(answer), folder)
    third.predict(photos(4))
    assert (third.monitor.status.rows, third.monitor.status.restarts) == (8, 1)
    assert rows_of(folder / "monitor") == 16
    for model in (second, third):
        model.monitor.close()


def test_a_process_that_was_forked_makes_its_own(folder, monkeypatch):
    model = MonitoredModel(Echo(np.full((4, 3), 1 / 3)), folder)
    model.predict(photos(4))
    before = model.monitor
    monkeypatch.setattr(os, "getpid", lambda: -1)
    model.predict(photos(4))
    assert model.monitor is not before
    assert rows_of(folder / "monitor") == 8
    for each in (before, model.monitor):
        each.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window"),
        ({"inputs": "auto"}, "inputs='auto'"),
        ({"directory": 3}, "directory=3"),
        ({"remind": object()}, "cannot be kept in a configuration"),
        ({"baseline": "nowhere"}, "not a folder"),
    ],
)
def test_wrong_arguments_raise(here, logged, arguments, message):
    with here(), pytest.raises(InputError, match=message):
        monitored(logged.model_uri, **arguments)


class Serving:
    """`mlflow models serve` with two workers, in a process group of its own."""

    def __init__(self, uri, store, folder):
        self.address, self.log = f"http://127.0.0.1:{(port := free_port())}", folder / "serve.log"
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "2"]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        own = {"PATH": path, "MLFLOW_TRACKING_URI": store.uri, "LENSAI_MONITOR_DIR": str(folder / "monitor")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=folder, env=clean | QUIET | own, start_new_session=True
            )

    def wait(self):
        end = time.monotonic() + 120
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urlopen(f"{self.address}/ping", timeout=2):
                    return
            except (URLError, OSError):
                time.sleep(0.2)
        pytest.fail(self.log.read_text()[-4000:])

    def ask(self, images):
        body = json.dumps({"inputs": images.tolist()}).encode()
        request = Request(f"{self.address}/invocations", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return np.array(json.load(answer)["predictions"])

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.slow
def test_served_for_real_it_answers_the_same_and_no_row_is_lost(embedded_store, wrapped, classifier, tmp_path):
    server = Serving(wrapped.model_uri, embedded_store, tmp_path)
    try:
        server.wait()
        for n in (1, 40, 7, 60, 12):
            given = photos(n, n)
            np.testing.assert_array_equal(server.ask(given), classifier.predict_proba(given))  # bit for bit
    finally:
        server.kill()  # at once: everything is on disk when a request is answered
    folder = tmp_path / "monitor"
    assert rows_of(folder) == 120
    workers = len(list(folder.glob("worker-?")))
    windows = [
        e["window"]["rows"] for path in folder.glob("*.jsonl") for e in read_events(path) if e["type"] == "window"
    ]
    assert windows in ([50], [50, 50])
    assert 1 <= workers <= 2
