"""Whole fits: what is in the baseline, and that it is counted exactly."""

from __future__ import annotations

import copy
import logging
import pickle

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lensai_integrations import Baseline, ImageInputs
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback


def hooked(model):
    return [name for name, m in model.named_modules() if m._forward_hooks or m._forward_pre_hooks]


@pytest.fixture
def fit(trainer, lit, loaders):
    """`fit(callback, ...)`: a fit on 40 training and 20 validation pictures; returns the callback."""

    def run(callback=None, model=None, train=40, val=20, **options):
        callback = callback or BaselineCallback()
        loaded = None if val is None else loaders(val) if not isinstance(val, list) else [loaders(v) for v in val]
        trainer(callback, **options).fit(model or lit(), loaders(train, shuffle=True), loaded)
        return callback

    return run


def test_a_baseline_holds_validation_and_training(fit):
    baseline = fit().baseline_

    assert list(baseline.sources()) == ["validation", "training"]
    assert list(baseline.reference.groups) == ["inputs", "outputs", "embeddings/model.fc.input", "labels"]
    assert list(baseline.training.groups) == ["inputs", "labels"]
    assert {group.n for group in baseline.reference.groups.values()} == {20}
    assert {group.n for group in baseline.training.groups.values()} == {40}
    assert baseline.reference.rows.n == 20
    assert baseline.training.rows.n == 40
    assert baseline.warnings == []
    assert baseline.info["epoch"] == 0
    assert baseline.info["step"] == 5
    assert baseline.info["model"] == "Lit"


def test_the_streams_are_those_of_the_pictures(fit, images, brightness):
    data = images(20, seed=3)
    bank = fit(val=data).baseline_.reference.groups["inputs"].bank
    expected = np.sort(brightness(data))

    measured = bank.quantiles(np.linspace(0.025, 0.975, 20))[0]
    np.testing.assert_allclose(measured, expected, rtol=1e-4)


def test_rows_are_joint_and_of_the_model_in_evaluation_mode(fit, images, lit):
    data, model = images(20, seed=3), lit()
    callback = fit(BaselineCallback(layers=["avgpool"]), model=model, val=data)
    rows = callback.baseline_.reference.rows.data
    model.eval()
    with torch.no_grad():
        pictures, labels = (torch.stack(part) for part in zip(*data, strict=True))
        logits = model(pictures)
        pooled = model.model.avgpool(torch.relu(model.model.norm(model.model.conv(pictures)))).flatten(1)
    order = [int(np.argmin(np.abs(pooled.numpy() - row).sum(axis=1))) for row in rows["embeddings/avgpool"]]

    assert sorted(order) == list(range(20))
    np.testing.assert_allclose(rows["embeddings/avgpool"], pooled[order], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(rows["labels"][:, 0], labels[order])
    np.testing.assert_array_equal(rows["outputs/top_class"][:, 0], logits.argmax(dim=1)[order])
    np.testing.assert_allclose(rows["outputs"][:, :4], logits.softmax(dim=1)[order], rtol=1e-4, atol=1e-6)


def test_labels_are_counted(fit, images):
    data = images(30, seed=1)
    labels = fit(val=data).baseline_.reference.groups["labels"].categories[""]
    expected = {str(label): count for label, count in enumerate(np.bincount([int(label) for _, label in data]))}

    assert dict(labels.top(10)) == expected


def test_what_was_read_stands_in_the_groups(fit):
    groups = fit().baseline_.reference.groups

    assert groups["outputs"].info["layer"] == "model.fc"
    assert groups["outputs"].info["kind"] == "logits"
    assert groups["embeddings/model.fc.input"].info["layer"] == "model.fc.input"
    assert groups["labels"].info["read_from"] == 1
    assert groups["inputs"].info["note"] == "NCHW float32 x 255"


def test_the_sanity_check_is_no_part_of_it(fit):
    assert fit(num_sanity_val_steps=2, max_epochs=0).baseline_ is None
    assert fit(num_sanity_val_steps=2, max_epochs=1).baseline_.n == 20


def test_each_epoch_begins_anew(fit):
    baseline = fit(max_epochs=3).baseline_

    assert (baseline.n, baseline.training.n) == (20, 40)
    assert (baseline.info["epoch"], baseline.training.info["epoch"]) == (2, 2)


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"accumulate_grad_batches": 3}, (20, 40)),
        ({"precision": "bf16-mixed"}, (20, 40)),
        ({"precision": "64-true"}, (20, 40)),
        ({"limit_train_batches": 2, "limit_val_batches": 1}, (8, 16)),
        ({"limit_train_batches": 0.5}, (20, 16)),
        ({"inference_mode": False}, (20, 40)),
        ({"gradient_clip_val": 0.5}, (20, 40)),
        ({"overfit_batches": 2}, (16, 16)),
        ({"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2}, (20, 40)),
        ({"max_epochs": 2, "check_val_every_n_epoch": 2}, (20, 40)),
        ({"num_sanity_val_steps": 0}, (20, 40)),
        ({"num_sanity_val_steps": -1}, (20, 40)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_rows_are_counted_exactly_under_every_option(fit, options, rows):
    baseline = fit(**options).baseline_

    assert (baseline.n, baseline.training.n) == rows
    assert {group.n for group in baseline.reference.groups.values()} == {rows[0]}
    assert baseline.warnings == []


def test_everything_of_training_batches_if_asked(fit):
    training = fit(BaselineCallback(training="all")).baseline_.training

    assert list(training.groups) == ["inputs", "outputs", "embeddings/model.fc.input", "labels"]
    assert {group.n for group in training.groups.values()} == {40}


def test_no_training_profile_if_not_wanted(fit):
    baseline = fit(BaselineCallback(training=None)).baseline_

    assert baseline.training is None
    assert baseline.n == 20


def test_training_as_the_reference(fit):
    callback = fit(BaselineCallback(reference="training", training=None))

    assert list(callback.baseline_.sources()) == ["training"]
    assert callback.baseline_.n == 40
    assert "embeddings/model.fc.input" in callback.baseline_.reference.groups
    assert callback.baseline_.warnings == []


@pytest.mark.parametrize("how", [{"val": None}, {"limit_val_batches": 0}])
def test_without_validation_data_training_has_to_do_and_it_is_said(fit, how, caplog):
    callback = fit(max_epochs=2, **how)
    baseline = callback.baseline_

    assert list(baseline.sources()) == ["training"]
    assert baseline.n == 40
    assert {group.n for group in baseline.reference.groups.values()} == {40}
    assert "outputs" in baseline.reference.groups
    assert "there was no validation pass, so the reference is the training data" in baseline.warnings[0]
    assert any("the reference is the training data" in record.getMessage() for record in caplog.records)
    assert Baseline.load(callback.directory_).warnings == baseline.warnings


def test_validation_that_never_came_is_seen_at_the_end(fit):
    baseline = fit(max_epochs=1, check_val_every_n_epoch=5).baseline_

    assert list(baseline.sources()) == ["training"]
    assert "there was no validation pass" in baseline.warnings[0]


def test_validation_within_an_epoch_the_latest_whole_one_counts(fit):
    baseline = fit(val_check_interval=2, max_epochs=1).baseline_  # after batches 2 and 4 of 5

    assert baseline.n == 20
    assert baseline.info["step"] == 4
    assert baseline.training.n == 40


def test_one_of_several_validation_loaders(fit, trainer, lit, loaders):
    first = fit(val=[8, 20]).baseline_
    second = fit(BaselineCallback(dataloader_idx=1), val=[8, 20]).baseline_
    callback = BaselineCallback(dataloader_idx=1)
    trainer(callback).fit(lit(), loaders(40), {"a": loaders(8), "b": loaders(24)})

    assert (first.n, second.n, callback.baseline_.n) == (8, 20, 24)


def test_a_validation_loader_that_is_not_there_is_refused(fit):
    with pytest.raises(InputError, match="dataloader_idx=2, but there are 2 validation loaders, counted from 0"):
        fit(BaselineCallback(dataloader_idx=2), val=[8, 20])


def test_an_unknown_layer_is_refused_at_the_start_of_fit(fit, lit):
    model = lit()
    callback = BaselineCallback(layers=["avgpol"])

    with pytest.raises(InputError, match=r"no layer 'avgpol'; nearest: model\.avgpool"):
        fit(callback, model=model)
    assert callback.baseline_ is None
    assert hooked(model) == []


def test_the_folder_is_in_the_root_directory_and_the_log_says_so(fit, tmp_path, said):
    callback = fit()

    assert callback.directory_ == tmp_path / "lensai_baseline"
    assert sorted(path.name for path in callback.directory_.iterdir()) == [
        "manifest.json", "profile.npz", "report.html", "streams.csv",
    ]  # fmt: skip
    assert f"Baseline of 20 validation rows: saved to {tmp_path / 'lensai_baseline'}." in said.messages
    assert Baseline.load(callback.directory_).n == 20


def test_a_folder_may_be_named(fit, tmp_path):
    callback = fit(BaselineCallback(directory=tmp_path / "elsewhere" / "b"))

    assert callback.directory_ == tmp_path / "elsewhere" / "b"
    assert Baseline.load(callback.directory_).info == callback.baseline_.info
    assert not (tmp_path / "lensai_baseline").exists()


def test_two_callbacks_have_two_folders_and_two_states(trainer, lit, loaders, tmp_path):
    first, second = BaselineCallback(layers=["conv"]), BaselineCallback(layers=["avgpool"], artifact_path="lensai/pool")
    running = trainer(first, second)
    running.fit(lit(), loaders(24), loaders(16))
    running.save_checkpoint(tmp_path / "a.ckpt")

    assert first.directory_ == tmp_path / "lensai_baseline"
    assert second.directory_ == tmp_path / "lensai_baseline-lensai-pool"
    assert "embeddings/avgpool" in Baseline.load(second.directory_).reference.groups
    assert len(torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]) == 2


def test_each_fold_has_its_baseline_with_copies_of_a_used_callback(trainer, lit, loaders):
    callback, folders = BaselineCallback(layers=["avgpool"], clean_windows=0), []
    for n in (16, 20, 24):
        trainer(callback).fit(lit(), loaders(24), loaders(n))
        assert (callback.baseline_.n, callback.baseline_.training.n) == (n, 24)
        folders.append(callback.directory_)
        callback = copy.deepcopy(callback)
        assert callback.baseline_ is None
    assert [Baseline.load(folder).n for folder in folders] == [16, 20, 24]


def test_a_callback_is_pickled_in_mid_fit_without_the_fit(trainer, lit, loaders):
    callback, copies = BaselineCallback(layers=["avgpool"], clean_windows=0), []

    class Pickles(pl.Callback):
        def on_validation_batch_end(self, *_):
            copies.append(pickle.loads(pickle.dumps(callback)))

    trainer(callback, Pickles()).fit(lit(), loaders(24), loaders(16))
    assert callback.baseline_.n == 16
    assert all(each._fit is None and each._options == callback._options for each in copies)
    trainer(copies[0]).fit(lit(), loaders(24), loaders(20))
    assert copies[0].baseline_.n == 20


def test_the_report_has_both_profiles(fit):
    html = (fit().directory_ / "report.html").read_text()

    assert "validation" in html
    assert "training" in html
    assert "model.fc.input" in html


def test_fast_dev_run_does_everything_and_writes_nothing(fit, tmp_path, said):
    callback = fit(fast_dev_run=2)

    assert callback.baseline_.n == 16
    assert callback.directory_ is None
    assert list(tmp_path.iterdir()) == []
    assert any("fast_dev_run, so it is neither saved nor logged" in message for message in said.messages)


def test_the_models_hooks_are_gone_when_training_ends_and_it_pickles(trainer, lit, loaders):
    seen = {}

    class Pickles(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            seen["during"] = hooked(pl_module)

        def on_train_end(self, trainer, pl_module):
            seen["after"] = hooked(pl_module)
            seen["bytes"] = pickle.dumps(pl_module.model)

    model = lit()
    trainer(BaselineCallback(), Pickles()).fit(model, loaders(16), loaders(16))

    assert seen["during"] == ["", "model.fc"]  # the model, whose calls are told apart, and the layer
    assert seen["after"] == []
    assert b"lensai" not in seen["bytes"]


def test_a_second_fit_is_a_new_baseline(trainer, lit, loaders):
    callback, model = BaselineCallback(), lit()
    trainer(callback).fit(model, loaders(40), loaders(20))
    first = callback.baseline_
    trainer(callback).fit(model, loaders(32), loaders(16))

    assert (first.n, callback.baseline_.n) == (20, 16)
    assert callback.baseline_.training.n == 32


def test_validate_and_test_leave_the_baseline_alone(trainer, lit, loaders):
    callback, model = BaselineCallback(), lit()
    running = trainer(callback)
    running.fit(model, loaders(40), loaders(20))
    baseline, files = callback.baseline_, [path.stat().st_mtime_ns for path in callback.directory_.iterdir()]
    running.validate(model, loaders(8), verbose=False)
    running.test(model, loaders(8), verbose=False)

    assert callback.baseline_ is baseline
    assert [path.stat().st_mtime_ns for path in callback.directory_.iterdir()] == files
    assert hooked(model) == []


def test_the_test_set_as_the_reference(trainer, lit, loaders, said):
    callback, model = BaselineCallback(reference="test"), lit()
    running = trainer(callback)
    running.fit(model, loaders(40), loaders(20))
    assert callback.baseline_ is None
    assert "Baseline: reference='test', so it is made by `trainer.test`." in said.messages
    running.test(model, loaders(24), verbose=False)

    assert list(callback.baseline_.sources()) == ["test", "training"]
    assert {group.n for group in callback.baseline_.reference.groups.values()} == {24}
    assert callback.baseline_.training.n == 40
    assert Baseline.load(callback.directory_).n == 24
    assert hooked(model) == []


def test_a_test_without_a_fit_is_a_reference_too(trainer, lit, loaders):
    callback = BaselineCallback(reference="test")
    trainer(callback).test(lit(), loaders(24), verbose=False)

    assert list(callback.baseline_.sources()) == ["test"]
    assert callback.baseline_.n == 24


def test_reading_and_sketching_follow_the_options(fit):
    callback = BaselineCallback(
        layers=["conv"],
        inputs=ImageInputs(scale=200.0),
        reduce={"conv": "max"},
        convention="lensai-edge",
        k=64,
        rows=7,
        max_dim=5,
    )
    reference = fit(callback).baseline_.reference

    assert reference.groups["inputs/lensai-edge"].info["convention"] == "lensai-edge"
    assert reference.groups["inputs/lensai-edge"].info["reader"]["scale"] == 200.0
    assert reference.groups["inputs/lensai-edge"].bank.k == 64
    assert reference.groups["embeddings/conv"].info["reduce"] == "max"
    assert reference.groups["embeddings/conv"].info["projected_from"] == 8
    assert reference.groups["embeddings/conv"].bank.dim == 5
    assert len(reference.rows.data["inputs/lensai-edge"]) == 7


def test_the_seed_decides_which_rows_are_kept(fit):
    def rows(seed):
        torch.manual_seed(0)
        return fit(BaselineCallback(rows=5, seed=seed)).baseline_.reference.rows.data["inputs"]

    np.testing.assert_array_equal(rows(1), rows(1))
    assert not np.array_equal(rows(1), rows(2))


def test_nothing_is_logged_above_info_when_all_is_well(fit, caplog):
    caplog.set_level(logging.WARNING, "lensai_integrations")
    fit()

    assert [record for record in caplog.records if record.name.startswith("lensai")] == []


@pytest.mark.parametrize("hook", ["on_fit_start", "on_validation_batch_start"])
def test_a_subclass_that_does_not_hand_a_hook_on_is_told_so(trainer, lit, loaders, hook):
    class Mine(BaselineCallback):
        pass

    setattr(Mine, hook, lambda self, *_: None)
    callback = Mine(clean_windows=0)
    trainer(callback).fit(lit(), loaders(16), loaders(16))
    assert any("super()" in warning for warning in callback.baseline_.warnings)
