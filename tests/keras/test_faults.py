"""Whatever fails in the monitoring, training goes on to its end as without it, and what is missing is said once."""

from __future__ import annotations

import numpy as np
import pytest
from tracking import free_port, mlflow

from lensai_integrations import Baseline
from lensai_integrations.keras import BaselineCallback, callback, functions, taps
from lensai_integrations.keras import fit as keras_fit
from lensai_integrations.keras import taps as attach
from lensai_integrations.keras.batches import KerasBatches
from lensai_integrations.keras.fit import Backup, KerasFit
from lensai_integrations.keras.weights import BestEpoch, ModelWeights
from lensai_integrations.profiling import recorders

EVERYTHING = {"inputs", "outputs", "embeddings/embedding", "labels"}
#: What a plain fit makes of the variables, without a graph and with one. All are of the same model on the same data.
PLAIN = {}


def fails(*_, **__):
    raise RuntimeError("injected")


@pytest.fixture
def survives(model, fit, variables):
    """`survives(callback)`: train with it, check that it was trained as without it, and return the callback.

    What is done in a step is traced if there is a `graph`; what fails around steps fails without one alike, and sooner.
    """

    def run(monitor=None, *, graph=False):
        if graph not in PLAIN:
            plain = model(run_eagerly=not graph)
            PLAIN[graph] = fit(plain), variables(plain)
        history, values = PLAIN[graph]
        monitor = monitor or BaselineCallback(layers=["embedding"])
        trains = model(run_eagerly=not graph)
        assert fit(trains, monitor) == history
        for expected, value in zip(values, variables(trains), strict=True):
            np.testing.assert_array_equal(value, expected)
        assert not isinstance(trains.train_function, functions.GuardedFunction)
        assert not isinstance(trains.test_function, functions.GuardedFunction)
        assert not any("call" in layer.__dict__ for layer in trains.layers)
        return monitor

    return run


@pytest.mark.parametrize(
    ("owner", "name", "times"),
    [
        (KerasFit, "_seen", 2),  # of training and of validation
        (KerasFit, "start", 2),
        (KerasFit, "end", 4),  # four hooks end a pass
        (KerasFit, "listen", 2),
        (KerasFit, "record", 1),
        (KerasBatches, "take", 2),
        (functions, "why_not", 2),
        (callback, "look_around", 1),
    ],
)
def test_a_failing_part_is_no_end(survives, monkeypatch, warned, owner, name, times):
    monkeypatch.setattr(owner, name, fails)
    monitor = survives()

    assert monitor.baseline_ is None or "injected" in " ".join(monitor.baseline_.warnings)
    said_so = [message for message in warned("injected") if "there is no baseline" not in message]
    assert 1 <= len(said_so) <= times


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (keras_fit, "attach"),
        (callback, "KerasFit"),
        (attach, "find_layer"),
    ],
)
def test_a_start_that_fails_leaves_the_fit_alone(survives, monkeypatch, warned, owner, name):
    monkeypatch.setattr(owner, name, fails)
    monitor = survives()

    assert monitor.baseline_ is None
    assert warned() == ["starting, so nothing is profiled: RuntimeError('injected')"]
    monitor.detach()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (callback, "active_run"),
        (Backup, "load"),
        (Backup, "save"),
        (BestEpoch, "look"),
        (BestEpoch, "begin"),
        (BestEpoch, "stop"),
        (ModelWeights, "of"),
    ],
)
def test_a_failing_part_beside_the_profile_costs_no_rows(survives, monkeypatch, warned, counts, owner, name):
    monkeypatch.setattr(owner, name, fails)
    monitor = survives()

    assert len(warned("injected")) <= 3
    assert warned("injected")
    if owner is not ModelWeights or monitor.baseline_ is not None:
        assert counts(monitor.baseline_.reference) == dict.fromkeys(EVERYTHING, 24)
        assert counts(monitor.baseline_.training) == {"inputs": 40, "labels": 40}


def test_a_function_that_cannot_be_built_is_left_as_it_is(survives, monkeypatch, warned):
    monkeypatch.setattr(functions.steps(), "build", fails)
    monitor = survives(graph=True)

    assert monitor.baseline_ is None
    assert [m for m in warned("injected") if m.startswith("train steps: ")] == ["train steps: RuntimeError('injected')"]
    assert warned()[-1].startswith("there is no baseline: no whole ")


@pytest.mark.parametrize("name", ["reduced", "first_tensor", "detached"])
def test_a_layer_that_cannot_be_caught_costs_the_layer_only(survives, monkeypatch, name):
    monkeypatch.setattr(taps, name, fails)
    reference = survives(graph=True).baseline_.reference

    whole = {"outputs"} if name == "first_tensor" else set()  # of the model's answer it is known where its tensors are
    assert set(reference.groups) == {"inputs", "labels"} | whole
    assert any("'embedding' answered nothing" in warning for warning in reference.warnings)


@pytest.mark.backend("tensorflow", "jax")
def test_a_step_that_cannot_be_traced_is_keras_own(survives, monkeypatch, warned):
    monkeypatch.setattr(taps.Taps, "listening", fails)
    monitor = survives(graph=True)

    assert monitor.baseline_ is None
    unprofiled = "steps: they run without being profiled: RuntimeError('injected')"
    assert warned()[:2] == [f"train {unprofiled}", f"test {unprofiled}"]
    survives(monitor, graph=True)  # what is missing is said of every fit
    assert warned().count(f"train {unprofiled}") == 2
    monkeypatch.undo()
    assert survives(monitor, graph=True).baseline_.n == 24


@pytest.mark.parametrize("name", ["pick", "take"])
def test_batches_that_cannot_be_read_cost_what_is_in_them(survives, monkeypatch, name):
    monkeypatch.setattr(KerasBatches, name, fails)
    monitor = survives(graph=True)
    if name == "pick":
        assert set(monitor.baseline_.reference.groups) == EVERYTHING - {"inputs", "labels"}


@pytest.mark.parametrize(
    ("group", "missing"),
    [("Inputs", "inputs"), ("Outputs", "outputs"), ("Embedding", "embeddings/embedding"), ("Labels", "labels")],
)
def test_a_measure_that_raises_costs_its_own_group_only(survives, monkeypatch, warned, group, missing):
    monkeypatch.setattr(getattr(recorders, group), "measure", fails)
    baseline = survives().baseline_

    assert {baseline.reference.groups[name].n for name in EVERYTHING - {missing}} == {24}
    assert missing not in baseline.reference.groups
    assert any("injected" in warning and missing in warning for warning in baseline.warnings)
    assert len(warned(missing)) <= 2  # once for each source


def test_a_users_reduction_that_raises_costs_its_layer_only(survives):
    def mine(_):
        raise ValueError("my mistake")

    baseline = survives(BaselineCallback(["embedding", "pool"], reduce={"pool": mine}), graph=True).baseline_

    assert baseline.reference.groups["embeddings/embedding"].n == 24
    assert "embeddings/pool" not in baseline.reference.groups
    assert any("my mistake" in warning for warning in baseline.warnings)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_disk_that_cannot_be_written_leaves_the_baseline_in_memory(survives, monkeypatch, said, warned, error):
    def write(*_, **__):
        raise error

    monkeypatch.setattr("lensai_integrations.training.finish.write_files", write)
    monitor = survives()

    assert (monitor.baseline_.n, monitor.directory_) == (24, None)
    assert len(warned(error.strerror)) == 1
    assert "Baseline of 24 validation rows: kept in memory only." in said.messages


def test_an_end_that_fails_is_no_end(survives, monkeypatch, warned):
    monkeypatch.setattr(callback, "deliver", fails)
    monitor = survives()

    assert (monitor.baseline_.n, monitor.directory_) == (24, None)
    assert warned() == ["ending the fit: RuntimeError('injected')"]


def test_a_report_that_fails_costs_only_the_report(survives, monkeypatch):
    monkeypatch.setattr("lensai_integrations.report.baseline_html", fails)
    monitor = survives()

    assert Baseline.load(monitor.directory_).n == 24
    assert not (monitor.directory_ / "report.html").exists()


def test_a_server_that_is_down_costs_the_upload_only(survives, monkeypatch, warned, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(callback, "active_run", lambda: callback.TrackedRun("0" * 32, address))
    monitor = survives(BaselineCallback(["embedding"], upload_deadline=3.0))

    assert Baseline.load(monitor.directory_).n == 24
    (warning,) = warned("was not uploaded")
    assert f"lensai push {monitor.directory_} --run" in warning
    assert mlflow.active_run() is None


def test_pictures_with_values_that_are_not_finite_are_counted(model, fit, images):
    pictures, labels = images(24, 1)
    pictures[3, 0, 0, 0] = np.nan
    pictures[20, 5, 5] = np.inf
    monitor = BaselineCallback(layers=None, outputs=None)
    fit(model(), monitor, validation_data=(pictures, labels), epochs=1)
    groups = monitor.baseline_.reference.groups

    assert (groups["inputs"].n, groups["inputs"].invalid) == (22, 2)
    assert (groups["labels"].n, groups["labels"].invalid) == (24, 0)
    assert any("2 of 24 rows of inputs" in warning for warning in monitor.baseline_.warnings)


def test_pictures_that_cannot_be_read_cost_only_the_inputs(model, fit, images, warned):
    def data(*arguments):
        pictures, labels = images(*arguments)
        return pictures * 7 - 3, labels

    monitor = BaselineCallback(["embedding"])
    fit(model(), monitor, data=data(40), validation_data=data(24, 1), epochs=1)

    assert set(monitor.baseline_.reference.groups) == EVERYTHING - {"inputs"}
    assert set(monitor.baseline_.training.groups) == {"labels"}
    assert len(warned("inputs of validation: ")) == 1
    assert "scale='auto' expects float pixels" in warned("inputs of validation: ")[0]


def test_a_target_that_is_not_there_is_said(survives, warned):
    baseline = survives(BaselineCallback(target="class")).baseline_

    assert "labels" not in baseline.reference.groups
    assert len(warned("target='class' is not in y")) == 1
