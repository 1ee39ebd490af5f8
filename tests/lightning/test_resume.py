"""The baseline in checkpoints: saved, resumed, the best one chosen, and what is there after an interruption."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from lensai_integrations import Baseline
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.training import fit
from lensai_integrations.training.fit import profiles_of

pytestmark = pytest.mark.filterwarnings(r"ignore:Be aware that when using `ckpt_path`")

KEY = "lensai_integrations.BaselineCallback[lensai]"


class Stops(pl.Callback):
    """Raises at a point of the training."""

    def __init__(self, error, *, epoch, batch, hook="on_train_batch_start"):
        self.error, self.epoch, self.batch = error, epoch, batch
        setattr(self, hook, self._stop)

    def _stop(self, trainer, pl_module, *arguments):
        index = arguments[-1] if arguments and isinstance(arguments[-1], int) else self.batch
        if trainer.current_epoch == self.epoch and index == self.batch and not trainer.sanity_checking:
            raise self.error


def scripted(lit, losses):
    """A model whose validation loss is what the script says, epoch by epoch."""

    class Scripted(lit):
        def validation_step(self, batch, batch_idx):
            self(batch[0])
            self.log("val_loss", torch.tensor(losses[min(self.current_epoch, len(losses) - 1)]))

    return Scripted()


def stored(path):
    return profiles_of(torch.load(path, weights_only=True)["callbacks"][KEY])


@pytest.fixture
def saving(tmp_path):
    """A checkpoint callback that keeps every epoch."""
    return ModelCheckpoint(tmp_path / "all", filename="{epoch}", save_top_k=-1, monitor="epoch", mode="max")


def test_each_checkpoint_carries_the_baseline_of_its_epoch(trainer, lit, loaders, tmp_path, saving):
    trainer(BaselineCallback(), saving, max_epochs=3, enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))

    for epoch in range(3):
        profiles = stored(tmp_path / "all" / f"epoch={epoch}.ckpt")
        assert {name: profile.info["epoch"] for name, profile in profiles.items()} == {
            "validation": epoch,
            "training": epoch,
        }
        assert {name: profile.n for name, profile in profiles.items()} == {"validation": 16, "training": 24}


def test_the_order_of_callbacks_does_not_matter(trainer, lit, loaders, tmp_path, saving):
    trainer(saving, BaselineCallback(), enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))

    assert stored(tmp_path / "all" / "epoch=0.ckpt")["training"].info["epoch"] == 0


@pytest.mark.parametrize(("losses", "best"), [([3.0, 1.0, 2.0], 1), ([1.0, 2.0, 3.0], 0), ([3.0, 2.0, 1.0], 2)])
def test_the_logged_baseline_is_that_of_the_best_checkpoint(trainer, lit, loaders, tmp_path, losses, best):
    callback = BaselineCallback()
    best_one = ModelCheckpoint(tmp_path / "best", filename="{epoch}", monitor="val_loss")
    running = trainer(callback, best_one, max_epochs=3, enable_checkpointing=True)
    running.fit(scripted(lit, losses), loaders(24), loaders(16))

    assert callback.baseline_.info["epoch"] == best
    assert callback.baseline_.info["checkpoint"] == f"epoch={best}.ckpt"
    assert callback.baseline_.training.info["epoch"] == best
    assert callback.baseline_.warnings == []
    assert Baseline.load(callback.directory_).info["epoch"] == best


def test_the_checkpoint_that_monitors_something_is_preferred(trainer, lit, loaders, tmp_path):
    callback = BaselineCallback()
    last = ModelCheckpoint(tmp_path / "last", filename="last-{epoch}")
    best = ModelCheckpoint(tmp_path / "best", filename="{epoch}", monitor="val_loss")
    running = trainer(callback, last, best, max_epochs=2, enable_checkpointing=True)
    running.fit(scripted(lit, [1.0, 2.0]), loaders(24), loaders(16))

    assert callback.baseline_.info["checkpoint"] == "epoch=0.ckpt"


def test_a_best_checkpoint_within_the_first_epoch_takes_the_later_training_profile(trainer, lit, loaders, tmp_path):
    callback = BaselineCallback()
    best = ModelCheckpoint(tmp_path / "best", filename="{step}", monitor="val_loss")
    running = trainer(callback, best, max_epochs=1, val_check_interval=2, enable_checkpointing=True)
    running.fit(lit(), loaders(24), loaders(16))

    assert callback.baseline_.info["step"] == 2
    assert callback.baseline_.training.n == 24
    assert "saved before a first whole training pass" in callback.baseline_.warnings[0]


def test_a_checkpoint_of_weights_only_has_its_baseline_too(trainer, lit, loaders, tmp_path):
    callback = BaselineCallback()
    best = ModelCheckpoint(tmp_path / "best", filename="{epoch}", monitor="val_loss", save_weights_only=True)
    running = trainer(callback, best, max_epochs=2, enable_checkpointing=True)
    running.fit(scripted(lit, [1.0, 2.0]), loaders(24), loaders(16))

    assert callback.baseline_.info["epoch"] == 0
    assert callback.baseline_.info["checkpoint"] == "epoch=0.ckpt"
    assert callback.baseline_.warnings == []


def test_a_damaged_best_checkpoint_is_no_help_and_the_latest_is_logged(trainer, lit, loaders, tmp_path):
    class Damages(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            for path in (tmp_path / "best").iterdir():
                path.write_bytes(path.read_bytes()[:1000])

    callback = BaselineCallback()
    best = ModelCheckpoint(tmp_path / "best", monitor="val_loss")
    trainer(callback, Damages(), best, enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))

    assert callback.baseline_.n == 16
    assert "best checkpoint: " in callback.baseline_.warnings[0]


def test_parameters_of_any_class_do_not_hide_the_baseline(trainer, lit, loaders, tmp_path):
    class Parametrised(lit):
        def __init__(self, layer):
            super().__init__()
            self.save_hyperparameters()

    callback = BaselineCallback()
    best = ModelCheckpoint(tmp_path / "best", monitor="val_loss")
    running = trainer(callback, best, enable_checkpointing=True)
    with pytest.warns(UserWarning, match="is an instance of `nn.Module`"):
        model = Parametrised(torch.nn.Linear(1, 1))
    running.fit(model, loaders(24), loaders(16))

    assert callback.baseline_.info["checkpoint"] is not None
    assert callback.baseline_.warnings == []


def test_resuming_goes_on_from_the_baseline_in_the_checkpoint(trainer, lit, loaders, tmp_path, saving):
    trainer(BaselineCallback(), saving, enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))
    callback = BaselineCallback()
    stop = Stops(RuntimeError("power cut"), epoch=1, batch=1)
    running = trainer(callback, stop, max_epochs=3)
    with pytest.raises(RuntimeError, match="power cut"):
        running.fit(lit(), loaders(24), loaders(16), ckpt_path=tmp_path / "all" / "epoch=0.ckpt", weights_only=True)

    assert callback.baseline_.info["epoch"] == 0
    assert callback.baseline_.training.info["epoch"] == 0


def test_resuming_replaces_it_by_what_comes_after(trainer, lit, loaders, tmp_path, saving):
    trainer(BaselineCallback(), saving, enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))
    callback = BaselineCallback()
    running = trainer(callback, max_epochs=2)
    running.fit(lit(), loaders(32), loaders(20), ckpt_path=tmp_path / "all" / "epoch=0.ckpt", weights_only=True)

    assert (callback.baseline_.n, callback.baseline_.training.n) == (20, 32)
    assert callback.baseline_.info["epoch"] == 1


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_resuming_within_an_epoch_keeps_the_last_whole_one(trainer, lit, loaders, tmp_path):
    steps = ModelCheckpoint(tmp_path / "steps", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer(BaselineCallback(), steps, max_epochs=2, enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))
    callback = BaselineCallback()
    running = trainer(callback, max_epochs=2)
    running.fit(lit(), loaders(24), loaders(16), ckpt_path=tmp_path / "steps" / "step=4.ckpt", weights_only=True)

    assert callback.baseline_.training.n == 24
    assert callback.baseline_.training.info["epoch"] == 0
    assert callback.baseline_.info["epoch"] == 1


def test_a_damaged_state_does_not_stop_a_resume(trainer, lit, loaders, tmp_path, saving):
    trainer(BaselineCallback(), saving, enable_checkpointing=True).fit(lit(), loaders(24), loaders(16))
    path = tmp_path / "all" / "epoch=0.ckpt"
    content = torch.load(path, weights_only=True)
    content["callbacks"][KEY] = {"validation": b"junk"}
    torch.save(content, path)
    callback = BaselineCallback()
    trainer(callback, max_epochs=2).fit(lit(), loaders(24), loaders(16), ckpt_path=path, weights_only=True)

    assert callback.baseline_.n == 16
    assert callback.baseline_.warnings[0].startswith("checkpoint: ")


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_fit_logs_the_last_whole_epoch(trainer, lit, loaders, error):
    callback = BaselineCallback()
    running = trainer(callback, Stops(error, epoch=1, batch=2), max_epochs=5)
    with pytest.raises((RuntimeError, SystemExit)):
        running.fit(lit(), loaders(40), loaders(16))

    assert Baseline.load(callback.directory_).info["epoch"] == 0
    assert (callback.baseline_.n, callback.baseline_.training.n) == (16, 40)


def test_an_interruption_within_validation_leaves_the_reference_before(trainer, lit, loaders):
    callback = BaselineCallback()
    stop = Stops(RuntimeError("gone"), epoch=1, batch=1, hook="on_validation_batch_start")
    with pytest.raises(RuntimeError, match="gone"):
        trainer(callback, stop, max_epochs=3).fit(lit(), loaders(40), loaders(16))

    assert callback.baseline_.reference.info["epoch"] == 0
    assert callback.baseline_.n == 16


def test_an_interruption_before_anything_is_complete_is_said(trainer, lit, loaders, caplog):
    callback = BaselineCallback()
    model = lit()
    with pytest.raises(RuntimeError, match="gone"):
        trainer(callback, Stops(RuntimeError("gone"), epoch=0, batch=2)).fit(model, loaders(40), loaders(16))

    assert callback.baseline_ is None
    assert any("there is no baseline: no whole validation pass" in record.getMessage() for record in caplog.records)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_failure_after_training_has_ended_costs_nothing(trainer, lit, loaders):
    class Fails(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            raise RuntimeError("the model could not be logged")

    callback = BaselineCallback()
    with pytest.raises(RuntimeError, match="could not be logged"):
        trainer(callback, Fails()).fit(lit(), loaders(24), loaders(16))

    assert Baseline.load(callback.directory_).n == 16


def test_an_error_elsewhere_is_no_end_of_a_fit(trainer, lit, loaders):
    callback, model = BaselineCallback(), lit()
    running = trainer(callback)
    running.fit(model, loaders(24), loaders(16))
    baseline = callback.baseline_
    model.validation_step = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        running.validate(model, loaders(16))

    assert callback.baseline_ is baseline


def test_an_epoch_cut_short_counts_only_if_there_is_no_other(trainer, lit, loaders):
    first, second = BaselineCallback(), BaselineCallback()
    trainer(first, max_steps=2, max_epochs=-1, val_check_interval=1).fit(lit(), loaders(40), loaders(16))
    trainer(second, max_steps=7, max_epochs=-1).fit(lit(), loaders(40), loaders(16))

    assert first.baseline_.training.n == 16
    assert "the profile is of a part of a training epoch" in first.baseline_.training.warnings
    assert second.baseline_.training.n == 40
    assert second.baseline_.training.info["epoch"] == 0


def test_early_stopping_is_a_regular_end(trainer, lit, loaders):
    callback = BaselineCallback()
    stop = EarlyStopping("val_loss", patience=1)
    trainer(callback, stop, max_epochs=9).fit(scripted(lit, [1.0, 2.0, 3.0]), loaders(24), loaders(16))

    assert callback.baseline_.info["epoch"] == 1
    assert callback.baseline_.warnings == []


def test_a_tested_checkpoint_brings_its_training_profile(trainer, lit, loaders, tmp_path, saving):
    callback = BaselineCallback(reference="test")
    running = trainer(callback, saving, max_epochs=2, enable_checkpointing=True)
    model = lit()
    running.fit(model, loaders(24), loaders(16))
    running.test(model, loaders(12), ckpt_path=tmp_path / "all" / "epoch=0.ckpt", verbose=False, weights_only=True)

    assert callback.baseline_.n == 12
    assert callback.baseline_.training.info["epoch"] == 0


def test_bytes_are_made_where_a_checkpoint_is_written_and_nowhere_else(
    trainer, lit, loaders, tmp_path, saving, monkeypatch
):
    encoded = []
    to_bytes = fit.to_bytes
    monkeypatch.setattr(fit, "to_bytes", lambda profile: encoded.append(profile.source) or to_bytes(profile))
    trainer(BaselineCallback(clean_windows=0), max_epochs=3).fit(lit(), loaders(24), loaders(16))
    assert encoded == []

    saving._every_n_epochs = 2
    made = trainer(BaselineCallback(clean_windows=0), saving, max_epochs=4, enable_checkpointing=True)
    made.fit(lit(), loaders(24), loaders(16))
    assert len(list((tmp_path / "all").iterdir())) == 2
    assert sorted(encoded) == ["training", "training", "validation", "validation"]
    for name in ("again", "and again"):
        made.save_checkpoint(tmp_path / name)
    assert len(encoded) == 4
