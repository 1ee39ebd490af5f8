"""Whose weights a baseline is of, after a fit."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from weighed import VAL, Averages, averaging, callback, is_of, monitored, weights_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


@pytest.mark.parametrize(
    ("saving", "options", "verdict", "step"),
    [
        ({}, {"max_epochs": 2}, "checkpoint", 10),
        ({"every_n_train_steps": 7}, {"max_epochs": 2}, "left", 10),
        ({"every_n_train_steps": 7}, {"max_steps": 9, "max_epochs": -1}, "none", 5),
        ({"every_n_train_steps": 5}, {"max_epochs": 2}, "checkpoint", 10),
        ({"every_n_train_steps": 7, "save_last": True}, {"max_epochs": 2}, "left", 10),
        ({"every_n_train_steps": 3, "save_top_k": -1}, {"max_epochs": 2}, "left", 10),
        ({"train_time_interval": timedelta(0)}, {"max_epochs": 2}, "checkpoint", 10),
        ({"save_weights_only": True}, {"max_epochs": 2}, "checkpoint", 10),
        ({"save_on_train_epoch_end": True}, {"max_epochs": 2}, "checkpoint", 10),
        ({}, {"max_steps": 8, "max_epochs": -1}, "none", 5),
        ({}, {"check_val_every_n_epoch": 2, "max_epochs": 3}, "checkpoint", 10),
        ({"save_on_train_epoch_end": True}, {"check_val_every_n_epoch": 2, "max_epochs": 3}, "none", 10),
        ({"every_n_train_steps": 2}, {"val_check_interval": 2, "max_epochs": 1}, "checkpoint", 4),
        ({}, {"val_check_interval": 3, "max_epochs": 1}, "checkpoint", 3),
        ({}, {"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 2}, "checkpoint", 9),
        ({"every_n_train_steps": 1}, {"max_epochs": 2, "accumulate_grad_batches": 3}, "checkpoint", 4),
        ({}, {"overfit_batches": 2, "max_epochs": 2}, "checkpoint", 4),
        (None, {"max_epochs": 2}, "left", 10),
        (None, {"max_steps": 8, "max_epochs": -1}, "none", 5),
        (None, {"check_val_every_n_epoch": 3, "max_epochs": 5}, "none", 15),
        (None, {"val_check_interval": 3, "max_epochs": 1}, "none", 3),
    ],
    ids=str,
)  # fmt: skip
def test_the_weights_are_those_that_it_says(fitted, tmp_path, saving, options, verdict, step):
    checkpoint = None if saving is None else ModelCheckpoint(tmp_path / "saved", **saving)
    done = fitted(*([] if checkpoint is None else [checkpoint]), **options)

    assert (done.verdict(checkpoint), done.info["step"]) == (verdict, step)


@pytest.mark.parametrize(
    ("average", "saving", "verdict"),
    [
        (averaging("StochasticWeightAveraging", swa_lrs=0.05, swa_epoch_start=1), None, "left"),
        (averaging("StochasticWeightAveraging", swa_lrs=0.05, swa_epoch_start=1), {}, "checkpoint"),
        (averaging("EMAWeightAveraging", decay=0.8), None, "left"),
        (averaging("EMAWeightAveraging", decay=0.8), {}, "checkpoint"),
        (averaging("EMAWeightAveraging", decay=0.8), {"save_weights_only": True}, "left"),
        (averaging("EMAWeightAveraging", decay=0.8), {"every_n_train_steps": 7}, "left"),
        (averaging("EMAWeightAveraging", decay=0.8, use_buffers=False), {}, "checkpoint"),
        (averaging("EMAWeightAveraging", decay=0.8, update_every_n_steps=4), {}, "checkpoint"),
        (averaging("EMAWeightAveraging", update_every_n_steps=0, update_starting_at_epoch=0), None, "none"),
        (averaging("WeightAveraging"), {}, "checkpoint"),
        (Averages, None, "left"),
        (Averages, {}, "left"),
        (lambda: Averages(leave=False), None, "none"),
        (lambda: Averages(leave=False), {}, "none"),
    ],
)
@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_averaged_weights_are_told_from_the_others(fitted, tmp_path, average, saving, verdict):
    checkpoint = None if saving is None else ModelCheckpoint(tmp_path / "saved", **saving)
    done = fitted(average(), *([] if checkpoint is None else [checkpoint]), max_epochs=3)

    assert done.verdict(checkpoint) == verdict


@pytest.mark.parametrize("options", [{}, {"save_weights_only": True}])
def test_the_best_checkpoint_has_its_own_though_others_came_after(fitted, lit, tmp_path, said, options):
    model, checkpoint = monitored(tmp_path, [3, 1, 2, 4], lit, **options)
    done = fitted(checkpoint, model=model, max_epochs=4)

    assert (done.verdict(checkpoint), done.info["step"]) == ("checkpoint", 10)
    assert done.baseline.warnings == []
    assert done.info["weights_of"] == "checkpoint epoch=1-step=10.ckpt, at step 10 (epoch 1)"
    assert (
        "Baseline: it is of checkpoint epoch=1-step=10.ckpt, at step 10 (epoch 1); fit leaves other weights, those at"
        ' step 20 (epoch 3), and reference="final" makes that of these.'
    ) in said.messages
    assert done.info["weights_of"] in (done.callback.directory_ / "report.html").read_text()


@pytest.mark.parametrize("options", [{}, {"save_weights_only": True}])
def test_a_checkpoint_saved_just_before_a_pass_has_that_pass_though_others_came_after(fitted, lit, tmp_path, options):
    class Logs(lit):
        def training_step(self, batch, batch_idx):
            self.log("least_at_10", float(abs(self.global_step - 9)))
            return super().training_step(batch, batch_idx)

    checkpoint = ModelCheckpoint(tmp_path / "saved", monitor="least_at_10", every_n_train_steps=5, **options)
    done = fitted(checkpoint, model=Logs(), max_epochs=4)

    assert (done.verdict(checkpoint), done.info["step"]) == ("checkpoint", 10)


def test_early_stopping_leaves_the_last_and_a_checkpoint_keeps_the_best(fitted, lit, tmp_path):
    model, checkpoint = monitored(tmp_path, [3, 1, 2, 4, 5], lit)
    kept = fitted(checkpoint, EarlyStopping("scripted", patience=2), model=model, max_epochs=9)
    assert (kept.verdict(checkpoint), kept.info["step"]) == ("checkpoint", 10)
    model, _ = monitored(tmp_path, [3, 1, 2, 4, 5], lit)
    left = fitted(EarlyStopping("scripted", patience=2), model=model, max_epochs=9)

    assert (left.verdict(), left.info["step"]) == ("left", 20)


class Restores(pl.Callback):
    """Leaves the best weights, as Keras's early stopping does."""

    def on_train_end(self, trainer, pl_module):
        pl_module.load_state_dict(weights_in(trainer.checkpoint_callback.best_model_path))


def test_restored_best_weights_are_the_checkpoints(fitted, lit, tmp_path):
    model, checkpoint = monitored(tmp_path, [3, 1, 2], lit)
    done = fitted(Restores(), checkpoint, model=model, max_epochs=3)

    assert (done.verdict(checkpoint), done.of_left) == ("checkpoint", True)


def test_of_several_checkpoint_callbacks_the_monitored_one_is_named(fitted, lit, tmp_path):
    model, best = monitored(tmp_path, [3, 1, 2], lit)
    steps = ModelCheckpoint(tmp_path / "steps", every_n_train_steps=7)
    last = ModelCheckpoint(tmp_path / "last", filename="last")
    done = fitted(steps, best, last, model=model, max_epochs=3)

    assert done.verdict(best) == "checkpoint"


class Dies(pl.Callback):
    """In the second epoch's validation."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("the disk went away")


@pytest.mark.parametrize(
    ("every", "dies", "epochs", "verdict"),
    [
        (5, False, 2, "none"),  # the second epoch's last step: its validation is skipped
        (5, False, 3, "checkpoint"),
        (7, False, 2, "checkpoint"),
        (7, False, 3, "checkpoint"),
        (5, True, 2, "none"),
        (5, True, 3, "checkpoint"),
    ],
)
def test_resumed_fits_tell_their_weights_too(fitted, trainer, lit, loaders, tmp_path, every, dies, epochs, verdict):
    steps = ModelCheckpoint(tmp_path / "all", "{step}", every_n_train_steps=every, save_top_k=-1)
    first = trainer(callback(), steps, *([Dies()] if dies else []), enable_checkpointing=True, max_epochs=2)
    with pytest.raises(RuntimeError, match="the disk went away") if dies else nullcontext():
        first.fit(lit(), loaders(40, shuffle=True), loaders(VAL))
    newest = max((tmp_path / "all").iterdir(), key=lambda path: int(path.stem.split("=")[1]))
    saving = ModelCheckpoint(tmp_path / "saved")
    resume = {"ckpt_path": newest, "weights_only": True}
    done = fitted(saving, max_epochs=epochs, fit=resume)

    assert (done.verdict(saving), done.baseline.n) == (verdict, VAL)
    final = fitted(own=callback(reference="final"), max_epochs=epochs, fit=resume)
    assert (final.verdict(), final.baseline.n) == ("left", VAL)


def test_a_second_fit_on_one_trainer_is_not_of_the_first_ones_checkpoint(fitted, lit, loaders, tmp_path):
    model, checkpoint = monitored(tmp_path, [1, 2, 3, 4], lit)
    done = fitted(checkpoint, model=model, max_epochs=2)
    done.trainer.fit_loop.max_epochs = 4
    done.trainer.fit(model, loaders(40), loaders(done.val))
    baseline = done.callback.baseline_

    assert (baseline.info["checkpoint"], baseline.info["step"]) == (None, 20)
    assert is_of(baseline, model, done.val)
    assert "ModelCheckpoint still names epoch=0-step=5.ckpt, of an earlier fit of this trainer" in baseline.warnings[0]
    assert "ckpt_path=" in baseline.warnings[0]


def test_a_trainer_that_fits_another_model_next_has_the_baseline_of_that_one(fitted, lit, loaders, tmp_path, net):
    model, checkpoint = monitored(tmp_path, [1, 2, 3, 4], lit)
    done = fitted(checkpoint, model=model, max_epochs=2)
    other = type(model)(net(width=5))
    done.trainer.fit_loop.max_epochs = 4
    done.trainer.fit(other, loaders(40), loaders(done.val))

    assert is_of(done.callback.baseline_, other, done.val)
    assert done.callback.baseline_.info["weights_of"] == "the weights that fit leaves, at step 20 (epoch 3)"


def test_finding_a_learning_rate_before_changes_nothing(trainer, lit, loaders, images):
    class Rated(lit):
        lr = 0.1

    data = images(VAL, 5)
    own = callback()
    running = trainer(own, max_epochs=2)
    tuner = pl.tuner.Tuner(running)
    model = Rated()
    tuner.lr_find(model, loaders(40), loaders(data), num_training=3, update_attr=False)
    running.fit(model, loaders(40), loaders(data))

    assert own.baseline_.info["weights_of"] == "the weights that fit leaves, at step 10 (epoch 1)"
    assert is_of(own.baseline_, model, data)
    assert own.baseline_.warnings == []


@pytest.mark.parametrize("whose", ["module", "callback"])
def test_weights_that_change_when_all_is_over_are_seen(fitted, lit, whose):
    class Doubles:
        def on_fit_end(self, *_):
            with torch.no_grad():
                model.model.conv.weight.mul_(2)

    class Callback(Doubles, pl.Callback):
        pass

    model = type("Doubling", (Doubles, lit), {})() if whose == "module" else lit()
    done = fitted(*([Callback()] if whose == "callback" else []), model=model, max_epochs=1)

    assert done.verdict() == "none"


def test_pruned_weights_cannot_be_compared_and_that_is_said(fitted):
    def prune():
        return pl.callbacks.ModelPruning("l1_unstructured", amount=0.5)

    done = fitted(prune(), max_epochs=2)

    assert done.info["weights_of"] == "not known: it was made at step 10 (epoch 1)"
    assert "cannot be compared with those of the reference, made at step 10 (epoch 1)" in done.said
    assert 'pass reference="final"' in done.said
    assert fitted(prune(), own=callback(reference="final"), max_epochs=2).verdict() == "left"


def test_scaling_the_batch_size_before_changes_nothing(trainer, lit, images):
    class Sized(lit):
        batch_size = 4

        def train_dataloader(self):
            return torch.utils.data.DataLoader(images(40), batch_size=self.batch_size)

        def val_dataloader(self):
            return torch.utils.data.DataLoader(images(VAL, 5), batch_size=8)

    own, model = callback(), Sized()
    running = trainer(own, pl.callbacks.BatchSizeFinder(max_trials=2, steps_per_trial=1), max_epochs=1)
    running.fit(model)

    assert own.baseline_.info["weights_of"].startswith("the weights that fit leaves, at step")
    assert is_of(own.baseline_, model, images(VAL, 5))
    assert own.baseline_.n == VAL
    assert own.baseline_.warnings == []


class Reduces:
    """A module whose checkpoints hold a part of it, under other names."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["state_dict"] = {f"net.{n}": v for n, v in checkpoint["state_dict"].items() if "conv" in n}


def test_weights_that_cannot_be_compared_are_told_by_steps_and_that_is_said(fitted, lit, tmp_path):
    for every, name in ((5, "epoch=1-step=10.ckpt"), (7, None)):
        checkpoint = ModelCheckpoint(tmp_path / f"saved{every}", every_n_train_steps=every)
        done = fitted(checkpoint, model=type("Reduced", (Reduces, lit), {})(), max_epochs=2)
        assert done.info["checkpoint"] == name
        assert ("cannot be compared with those of the reference" in done.said) == (name is not None)
        assert ("has other weights than the reference: those at step 7" in done.said) == (name is None)


def test_a_best_checkpoint_that_was_deleted_is_said(fitted, tmp_path):
    class Deletes(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            Path(trainer.checkpoint_callback.best_model_path).unlink()

    done = fitted(Deletes(), ModelCheckpoint(tmp_path / "saved"), max_epochs=1)

    assert done.info["weights_of"] == "the weights that fit leaves, at step 5 (epoch 0)"
    assert "cannot be read from here" in done.said


def test_a_model_that_is_compiled_as_a_whole_has_the_names_of_its_checkpoint(fitted, lit, tmp_path):
    checkpoint = ModelCheckpoint(tmp_path / "saved")
    done = fitted(checkpoint, model=torch.compile(lit(), backend="eager"), max_epochs=1)

    assert done.info["checkpoint"] == "epoch=0-step=5.ckpt"
    assert done.of(checkpoint.best_model_path)


def test_a_rate_found_within_fit_changes_nothing(trainer, lit, loaders, images):
    class Rated(lit):
        lr = 0.1

    own, model, data = callback(), Rated(), images(VAL, 5)
    finder = pl.callbacks.LearningRateFinder(num_training_steps=3, update_attr=False)
    trainer(own, finder, max_epochs=1).fit(model, loaders(40), loaders(data))

    assert own.baseline_.info["weights_of"] == "the weights that fit leaves, at step 5 (epoch 0)"
    assert is_of(own.baseline_, model, data)


def test_one_checkpoint_callback_in_two_trainers_names_only_what_is_of_the_fit(fitted, lit, tmp_path):
    model, checkpoint = monitored(tmp_path, [1, 2], lit)
    fitted(checkpoint, model=model, max_epochs=2)
    model, _ = monitored(tmp_path, [3, 4], lit)
    fold = fitted(checkpoint, model=model, max_epochs=2)

    assert fold.info["checkpoint"] is None
    assert fold.of_left
    assert "of an earlier fit" in fold.said


def test_a_checkpoint_that_is_elsewhere_is_said_to_be_unreadable(fitted, lit, tmp_path):
    class Elsewhere(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            trainer.checkpoint_callback.best_model_path = "s3://bucket/a.ckpt"

    done = fitted(Elsewhere(), ModelCheckpoint(tmp_path / "saved"), max_epochs=2)

    assert done.info["checkpoint"] is None
    assert done.info["weights_of"] == "the weights that fit leaves, at step 10 (epoch 1)"
    assert "s3://bucket/a.ckpt cannot be read from here" in done.said
    assert "ckpt_path='s3://bucket/a.ckpt'" in done.said


def test_records_of_a_validation_pass_are_no_weights(fitted, lit, tmp_path):
    class Keeps(lit):
        def __init__(self):
            super().__init__()
            self.register_buffer("best", torch.zeros(()))

        def on_validation_epoch_end(self):
            self.best += 1

    checkpoint = ModelCheckpoint(tmp_path / "saved")
    done = fitted(checkpoint, model=Keeps(), max_epochs=2)

    assert done.info["checkpoint"] == "epoch=1-step=10.ckpt"


def test_a_custom_state_dict_of_the_same_names_is_compared(fitted, lit, tmp_path):
    class More(lit):
        def state_dict(self, *arguments, **options):
            return {**super().state_dict(*arguments, **options), "more": torch.ones(2)}

        def load_state_dict(self, state, *arguments, **options):
            return super().load_state_dict({name: value for name, value in state.items() if name != "more"})

    checkpoint = ModelCheckpoint(tmp_path / "saved")
    done = fitted(checkpoint, model=More(), max_epochs=2)

    assert done.info["checkpoint"] == "epoch=1-step=10.ckpt"
    assert done.baseline.warnings == []
