"""A monitor beside predict, test and validate: it sees every row once, and changes and stops nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from snippets import run_section
from torch.utils.data import TensorDataset

from lensai_integrations import DriftMonitor, Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.lightning import drift as drift_module
from lensai_integrations.monitoring.sinks import FunctionSink
from lensai_integrations.training import drift as training_drift
from lensai_integrations.training.tracking import TrackedRun


@pytest.fixture
def module(lit):
    class Own(lit):
        fails_at = None

        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            if batch_idx == self.fails_at:
                raise RuntimeError("out of memory")
            return self(batch[0])

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return super().test_step(batch, batch_idx)

    torch.manual_seed(0)
    return Own()


@pytest.fixture(scope="module")
def fitted():
    """The weights and the baseline of the first fit, which is that of all tests; they do not change them."""
    return {}


@pytest.fixture
def baseline(module, fitted, trainer, loaders):
    if not fitted:
        callback = BaselineCallback(layers=["avgpool", "fc.input"], reduce={"avgpool": "max"})
        trainer(callback).fit(module, loaders(8), loaders(300, 50))
        fitted["weights"] = {name: value.clone() for name, value in module.state_dict().items()}
        fitted["baseline"] = callback.baseline_
    module.load_state_dict(fitted["weights"])
    return fitted["baseline"]


@pytest.fixture
def drift(baseline):
    """`drift(**arguments)`: a callback whose windows have 50 rows."""
    return lambda **arguments: DriftCallback(baseline, **{"window": 50, **arguments})


def dark(data):
    return TensorDataset(data.tensors[0] * 0.3, data.tensors[1])


def predictions(trainer, module, *loaders):
    torch.manual_seed(1)
    found = trainer.predict(module, list(loaders))
    return torch.cat([each for part in found for each in (part if isinstance(part, list) else [part])])


def levels(callback):
    return [(report.rows, report.level) for report in callback.reports_]


def counts(report):
    return {name: group.n for name, group in report.profile.groups.items()}


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_predict_is_the_same_and_every_row_is_seen_once(module, drift, trainer, loaders, images, said):
    data = images(130, 5)
    expected = predictions(trainer(), module, loaders(data, 16))
    callback = drift()
    before = torch.random.get_rng_state()
    running = trainer(callback)
    assert torch.equal(predictions(running, module, loaders(data, 16)), expected)  # bit for bit
    torch.random.set_rng_state(before)
    assert levels(callback) == [(50, "ok"), (50, "ok"), (30, "ok")]
    assert (callback.monitor_.status.rows, callback.monitor_.status.failures) == (130, {})
    assert callback.monitor_.status.state == "Completed"
    assert hooks(module) == 0
    assert "production: 130 rows of prediction in 3 windows: 3 ok, 0 warning, 0 alarm." in said.messages

    predictions(running, module, loaders(dark(data), 16))
    assert [level for _, level in levels(callback)] == ["alarm"] * 3
    assert counts(callback.reports_[0]) == dict.fromkeys(
        ["inputs", "labels", "outputs", "embeddings/avgpool", "embeddings/fc.input"], 50
    )
    alarms = [m for m in said.messages if "alarm, window" in m]
    assert len(alarms) == 3
    assert "production: alarm, window 4 (50 rows until " in alarms[0]
    assert " drifted: inputs/" in alarms[0]


def test_what_is_measured_is_what_the_layers_answer(module, drift, trainer, loaders, images):
    data = dark(images(50, 6))
    callback = drift(window=50)
    trainer(callback).test(module, loaders(data, 20), verbose=False)
    (report,) = callback.reports_
    module.eval()
    with torch.no_grad():
        maps = module.model.relu(module.model.norm(module.model.conv(data.tensors[0])))
        pooled = module.model.avgpool(maps).amax((2, 3)).numpy()
    np.testing.assert_allclose(
        np.sort(report.profile.rows.data["embeddings/avgpool"], axis=0), np.sort(pooled, axis=0), rtol=1e-5, atol=1e-6
    )


def test_test_and_validate_of_several_loaders(module, drift, trainer, loaders):
    plain = trainer()
    expected = plain.test(module, [loaders(30, 8), loaders(40, 8)], verbose=False)
    callback = drift(flush=False)
    running = trainer(callback)
    assert running.test(module, [loaders(30, 8), loaders(40, 8)], verbose=False) == expected
    assert levels(callback) == [(50, "ok")]
    running.validate(module, loaders(30, 8), verbose=False)
    assert levels(callback) == [(50, "ok")]  # the 20 rows that waited, and 30 more
    assert callback.monitor_.status.rows == 100


def test_a_fit_is_not_monitored(module, drift, trainer, loaders):
    callback = drift()
    trainer(callback).fit(module, loaders(16), loaders(16))
    assert (callback.reports_, callback.monitor_) == ([], None)


def test_a_failing_monitor_is_not_noticed(module, drift, trainer, loaders, images, monkeypatch, caplog):
    data = images(20)
    expected = predictions(trainer(), module, loaders(data, 8))
    callback = drift()
    for name in ("update", "flush"):
        monkeypatch.setattr(DriftMonitor, name, lambda *_, **__: 1 / 0)
    assert torch.equal(predictions(trainer(callback), module, loaders(data, 8)), expected)
    assert sum("ZeroDivisionError" in message for message in caplog.messages) == 2  # once for each
    assert hooks(module) == 0


def test_a_failing_pass_is_a_failed_monitor(module, drift, trainer, loaders):
    callback = drift()
    module.fails_at = 3
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(callback).predict(module, loaders(50, 8))
    status = callback.monitor_.status
    assert (status.state, status.cause, status.rows) == ("Failed", "RuntimeError: out of memory", 24)
    assert hooks(module) == 0


def test_a_model_without_the_layers_is_monitored_without_them(drift, trainer, loaders, caplog):
    import lightning.pytorch as pl

    class Other(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.avgpool = torch.nn.AdaptiveAvgPool2d(1)

        def forward(self, batch):
            return self.avgpool(batch[0])[:, [0, 1, 2, 0], 0, 0]

    callback = drift()
    trainer(callback).predict(Other(), loaders(50, 10))
    assert "embeddings/fc.input: the model has no layer 'fc.input'" in caplog.text
    (report,) = callback.reports_
    assert counts(report)["outputs"] == 50  # what the model itself answers
    assert "embeddings/fc.input" not in counts(report)


def test_state_survives_and_a_state_in_use_does_not_stop(module, drift, trainer, loaders, tmp_path, caplog):
    first = drift(state=tmp_path / "state", flush=False)
    trainer(first).predict(module, loaders(30, 10))
    second = drift(state=tmp_path / "state", flush=False)
    trainer(second).predict(module, loaders(30, 10))
    assert levels(second) == [(50, "ok")]
    assert json.loads((tmp_path / "state" / "head.json").read_text())["rows"] == 60
    with DriftMonitor(first._passes.options.baseline, state=tmp_path / "state"):
        third = drift(state=tmp_path / "state")
        trainer(third).predict(module, loaders(10, 10))
    assert "in use by another monitor" in caplog.text
    assert third.monitor_.status.rows == 10


def test_a_given_monitor_is_used_and_not_closed(module, baseline, trainer, loaders):
    monitor = DriftMonitor(baseline, window=20)
    callback = DriftCallback(monitor=monitor)
    trainer(callback).predict(module, loaders(50, 10))
    assert [rows for rows, _ in levels(callback)] == [20, 20, 10]
    assert callback.monitor_ is monitor
    assert monitor.status.state == "Running"


def test_windows_go_to_the_runs_of_the_loggers(module, drift, trainer, loaders, monkeypatch):
    runs, told = [TrackedRun("0123", "http://nowhere"), TrackedRun("4567", "http://nowhere")], []
    monkeypatch.setattr(drift_module, "runs_of_loggers", lambda _: runs[:1])
    monkeypatch.setattr(
        training_drift,
        "_mlflow_sink",
        lambda run: FunctionSink(lambda event: told.append((run.run_id, event.window["number"])), types=["window"]),
    )
    callback = drift(window=20)
    trainer(callback).predict(module, loaders(40, 20))
    del runs[0]
    trainer(callback).predict(module, loaders(40, 20))  # another run: another monitor
    assert told == [("0123", 1), ("0123", 2), ("4567", 1), ("4567", 2)]


def test_a_run_that_cannot_be_logged_to_does_not_stop(module, drift, trainer, loaders, monkeypatch, caplog):
    monkeypatch.setattr(drift_module, "runs_of_loggers", lambda _: [TrackedRun("0123", "http://nowhere")])
    monkeypatch.setattr(training_drift, "_mlflow_sink", lambda run: 1 / 0)
    callback = drift(window=20)
    trainer(callback).predict(module, loaders(40, 20))
    assert "MLflow run 0123: ZeroDivisionError" in caplog.text
    assert callback.monitor_.status.rows == 40


@pytest.mark.filterwarnings("ignore:The '\\w+' does not have many workers")
def test_the_snippet_of_the_documentation(module, baseline, loaders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    baseline.save("lensai_baseline")
    run_section("monitoring.md", "Lightning", {"model": module, "loader": loaders(130, 16)})
    assert capsys.readouterr().out.splitlines()[-1] == "[(100, 'ok'), (30, 'ok')] Completed"


def test_a_baseline_from_a_folder(baseline, tmp_path):
    baseline.save(tmp_path / "saved")
    assert DriftCallback(str(tmp_path / "saved"))._passes.options.reference.n == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": 3}, "baseline is a int"),
        ({"baseline": "nowhere"}, "not a folder"),
        ({"window": 0}, "window"),
        ({"alarm": 2.0}, "alarm"),
        ({"layers": "avgpool"}, "layers='avgpool'"),
        ({"inputs": "auto"}, "inputs='auto'"),
        ({"reduce": "median"}, "median"),
        ({"monitor": "yes"}, "monitor is a str"),
        ({"windows": 3}, "takes no windows"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    profiler = Profiler()
    profiler.update(outputs=np.random.default_rng(0).normal(size=(60, 3)))
    with pytest.raises(InputError, match=message):
        DriftCallback(**{"baseline": profiler.profile(), **arguments})


def test_a_layer_reduced_by_a_function_is_asked_for():
    profiler = Profiler()
    profiler.describe("embeddings/pool", layer="pool", reduce="own")
    profiler.update(embeddings={"pool": np.random.default_rng(0).normal(size=(60, 3))})
    with pytest.raises(InputError, match="reduced by a function, 'own'"):
        DriftCallback(profiler.profile())
    DriftCallback(profiler.profile(), reduce={"pool": "mean"})
