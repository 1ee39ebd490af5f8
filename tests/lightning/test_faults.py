"""Whatever fails in the monitoring, training goes on to its end and what is missing is said."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from lensai_integrations import Baseline, Profiler
from lensai_integrations.lightning import BaselineCallback, callback, finish, fit
from lensai_integrations.profiling import recorders
from lensai_integrations.torch import recording, taps
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.training import fit as shared_fit


@pytest.fixture
def survives(trainer, lit, loaders, caplog):
    """Train with a callback, check that it was trained as without one, and return the callback."""

    def run(monitor=None, model=None, **options):
        torch.manual_seed(1)
        model = model or lit()
        torch.manual_seed(2)
        monitor = monitor or BaselineCallback(layers=["avgpool"])
        running = trainer(monitor, max_epochs=2, **options)
        running.fit(model, loaders(24, shuffle=True), loaders(16))
        torch.manual_seed(1)
        plain = lit()
        torch.manual_seed(2)
        trainer(max_epochs=2, **options).fit(plain, loaders(24, shuffle=True), loaders(16))
        weights = zip(model.state_dict().values(), plain.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in weights)
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
        return monitor

    return run


def fails(*_, **__):
    raise RuntimeError("injected")


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    ("group", "missing"),
    [
        ("Inputs", {"inputs"}),
        ("Outputs", {"outputs"}),
        ("Embedding", {"embeddings/avgpool"}),
        ("Labels", {"labels"}),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_measure_that_raises_costs_its_own_group_only(survives, monkeypatch, caplog, group, missing, late):
    kind = getattr(recorders, group)
    measure, calls = kind.measure, []

    def sometimes(self, batch):
        calls.append(1)
        if late and len(calls) == 1:
            return measure(self, batch)
        raise RuntimeError("injected")

    monkeypatch.setattr(kind, "measure", sometimes)
    baseline = survives().baseline_
    rest = {"inputs", "outputs", "embeddings/avgpool", "labels"} - missing

    assert {baseline.reference.groups[name].n for name in rest} == {16}
    assert not missing & baseline.reference.groups.keys()
    assert any("injected" in warning and next(iter(missing)) in warning for warning in baseline.warnings)
    logged = [m for m in warnings_of(caplog) if "injected" in m and not m.startswith("about")]
    assert len(logged) <= 2  # once for each source


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (LoaderPass, "start"),
        (LoaderPass, "open"),
        (LoaderPass, "close"),
        (LoaderPass, "finish"),
        (fit, "gathered"),
        (shared_fit, "image_inputs"),
        (recording, "padding_of"),
        (callback, "one_loader"),
    ],
)
def test_a_failing_part_is_no_end(survives, monkeypatch, caplog, target, name):
    monkeypatch.setattr(target, name, fails)
    monitor = survives()

    assert monitor.baseline_ is None or monitor.baseline_.n == 0
    assert any("injected" in message for message in warnings_of(caplog))
    assert len(warnings_of(caplog)) < 10


def test_layers_that_cannot_be_hooked_cost_only_the_layers(survives, monkeypatch):
    monkeypatch.setattr(callback, "attach", fails)
    baseline = survives().baseline_

    assert set(baseline.reference.groups) == {"inputs", "labels"}
    assert "injected" in baseline.warnings[0]


def test_a_failing_look_at_the_validation_data_is_no_end(survives, monkeypatch, caplog):
    monkeypatch.setattr(callback, "has_validation", fails)

    assert survives().baseline_ is not None
    assert any("injected" in message for message in warnings_of(caplog))


def test_a_failing_hook_costs_its_layer_only(survives, monkeypatch):
    monkeypatch.setattr(taps, "reduce_embedding", fails)
    reference = survives().baseline_.reference

    assert set(reference.groups) == {"inputs", "outputs", "labels"}
    assert any("'model.avgpool' answered nothing" in warning for warning in reference.warnings)


def test_a_users_reduction_that_raises_costs_its_layer_only(survives):
    def mine(_):
        raise ValueError("my mistake")

    baseline = survives(BaselineCallback(layers=["avgpool", "hidden"], reduce={"avgpool": mine})).baseline_

    assert "embeddings/hidden" in baseline.reference.groups
    assert "embeddings/avgpool" not in baseline.reference.groups
    assert any("my mistake" in warning for warning in baseline.warnings)


def test_a_single_bad_batch_is_left_out(survives, monkeypatch):
    update, calls = Profiler.update, []

    def sometimes(self, **batch):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("injected")
        update(self, **batch)

    monkeypatch.setattr(Profiler, "update", sometimes)
    baseline = survives().baseline_

    assert (baseline.n, baseline.training.n) == (16, 24)  # the last epoch was whole


def test_pictures_that_cannot_be_read_cost_only_the_inputs(trainer, lit, loaders, images, caplog):
    data = [(picture * 7 - 3, label) for picture, label in images(16)]
    monitor = BaselineCallback()
    trainer(monitor).fit(lit(), loaders(data), loaders(data))
    baseline = monitor.baseline_

    assert set(baseline.reference.groups) == {"outputs", "embeddings/model.fc.input", "labels"}
    assert set(baseline.training.groups) == {"labels"}
    assert any("scale='auto' expects float pixels inside [0, 1]" in warning for warning in baseline.warnings)
    assert len([m for m in warnings_of(caplog) if m.startswith("inputs of validation")]) == 1


def test_pictures_with_values_that_are_not_finite_are_counted(trainer, lit, loaders, images):
    data = [(picture.clone(), label) for picture, label in images(16)]
    data[3][0][0, 0, 0] = float("nan")
    monitor = BaselineCallback(layers=None, outputs=None)
    trainer(monitor, num_sanity_val_steps=0).fit(lit(), loaders(16), loaders(data))
    inputs = monitor.baseline_.reference.groups["inputs"]

    assert (inputs.n, inputs.invalid) == (15, 1)
    assert any("1 of 16 rows of inputs" in warning for warning in monitor.baseline_.warnings)


def test_outputs_that_are_no_classification_cost_only_the_outputs(trainer, lit, loaders):
    monitor = BaselineCallback(layers=["avgpool"], outputs="conv")
    trainer(monitor).fit(lit(), loaders(16), loaders(16))

    assert set(monitor.baseline_.reference.groups) == {"inputs", "embeddings/avgpool", "labels"}
    assert any("outputs" in warning for warning in monitor.baseline_.warnings)


def test_a_target_that_is_not_there_is_said(trainer, lit, loaders):
    monitor = BaselineCallback(target=5)
    trainer(monitor).fit(lit(), loaders(16), loaders(16))

    assert "labels" not in monitor.baseline_.reference.groups
    assert any("target=5 is not in the batch" in warning for warning in monitor.baseline_.warnings)


def test_layers_that_answer_other_numbers_of_rows_are_not_joint(trainer, lit, net, loaders):
    class Doubled(net):
        def forward(self, images):
            return super().forward(images.repeat_interleave(2, 0))[::2]

    monitor = BaselineCallback(layers=["avgpool"], outputs=None)
    trainer(monitor).fit(lit(Doubled()), loaders(16), loaders(16))
    reference = monitor.baseline_.reference

    assert reference.groups["embeddings/avgpool"].n == 32
    assert reference.groups["inputs"].n == 16
    assert any("different numbers of rows" in warning for warning in reference.warnings)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_disk_that_cannot_be_written_leaves_the_baseline_in_memory(survives, monkeypatch, said, error):
    def write(*_, **__):
        raise error

    monkeypatch.setattr("lensai_integrations.training.finish.write_files", write)
    monitor = survives()

    assert monitor.baseline_.n == 16
    assert monitor.directory_ is None
    assert any(str(error.strerror) in message for message in warnings_of(said))
    assert "Baseline of 16 validation rows: kept in memory only." in said.messages


def test_a_folder_that_is_a_file_is_no_end(survives, tmp_path):
    (tmp_path / "taken").write_text("x")
    monitor = survives(BaselineCallback(directory=tmp_path / "taken"))

    assert monitor.directory_ is None
    assert (tmp_path / "taken").read_text() == "x"


def test_a_report_that_fails_costs_only_the_report(survives, monkeypatch):
    monkeypatch.setattr("lensai_integrations.report.baseline_html", fails)
    monitor = survives()

    assert Baseline.load(monitor.directory_).n == 16
    assert not (monitor.directory_ / "report.html").exists()


def test_a_checkpoint_is_saved_without_a_state_that_cannot_be_made(trainer, lit, loaders, monkeypatch, tmp_path):
    monkeypatch.setattr("lensai_integrations.training.fit.to_bytes", fails)
    monitor = BaselineCallback()
    running = trainer(monitor)
    running.fit(lit(), loaders(16), loaders(16))
    running.save_checkpoint(tmp_path / "a.ckpt")

    assert monitor.baseline_.n == 16
    assert monitor.state_key not in torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]


def test_the_end_that_fails_is_no_end(survives, monkeypatch, caplog):
    monkeypatch.setattr(finish, "conclude", fails)

    assert survives().baseline_ is None
    assert any(message.startswith("ending the fit: ") for message in warnings_of(caplog))


def test_what_is_missing_is_in_the_manifest_and_in_the_log_at_the_end(survives, monkeypatch, caplog):
    monkeypatch.setattr(recorders.Labels, "measure", fails)
    monitor = survives()
    stored = Baseline.load(monitor.directory_)

    assert stored.warnings == monitor.baseline_.warnings
    assert any("labels" in warning and "injected" in warning for warning in stored.warnings)
    assert warnings_of(caplog)[-1].startswith("about the baseline: ")


def test_wrong_arguments_are_not_swallowed_by_the_guard():
    with pytest.raises(ValueError, match="k=3"):
        BaselineCallback(k=3)
    assert np.isfinite(BaselineCallback()._options.upload_deadline)
