"""Whose weights a baseline is of: held against what these weights answer, told by nobody but torch."""

from __future__ import annotations

import random
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from snippets import run_section

from lensai_integrations import Baseline
from lensai_integrations.errors import InputError
from lensai_integrations.lightning import BaselineCallback

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]

VAL = 16


class Averages(pl.Callback):
    """A user's own moving average: validated and left, and never heard of by checkpoints."""

    def __init__(self, *, leave=True):
        self.leave = leave

    def on_fit_start(self, trainer, pl_module):
        self.mean = {name: value.clone() for name, value in pl_module.state_dict().items()}

    def on_train_batch_end(self, trainer, pl_module, *_):
        for name, value in pl_module.state_dict().items():
            if value.is_floating_point():
                self.mean[name].lerp_(value, 0.2)

    def swap(self, trainer, pl_module):
        now = {name: value.clone() for name, value in pl_module.state_dict().items()}
        pl_module.load_state_dict(self.mean)
        self.mean = now

    def on_validation_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.swap(trainer, pl_module)

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.swap(trainer, pl_module)

    def on_train_end(self, trainer, pl_module):
        if self.leave:
            self.swap(trainer, pl_module)


def answers(model, data):
    """The least and the largest answer of each channel of the pooling layer."""
    kept = []
    handle = model.model.avgpool.register_forward_hook(lambda _, __, answer: kept.append(answer.flatten(1)))
    mode = model.training
    with torch.no_grad():
        model.eval()(torch.stack([picture for picture, _ in data]))
    model.train(mode)
    handle.remove()
    return np.stack([kept[0].amin(0).numpy(), kept[0].amax(0).numpy()])


def is_of(baseline, model, data):
    bank = baseline.reference.groups["embeddings/avgpool"].bank
    return bool(np.allclose(np.stack([bank.min, bank.max]), answers(model, data), rtol=1e-4, atol=1e-6))


def weights_in(path):
    return torch.load(path, weights_only=True)["state_dict"]


def loaded(lit, path):
    model = lit()
    model.load_state_dict(weights_in(path))
    return model


def callback(**options):
    return BaselineCallback(**{"layers": ["avgpool"], "outputs": None, "clean_windows": 0, "rows": 0, **options})


class Fitted:
    """What came of a fit of 5 steps an epoch, and what is so."""

    def __init__(self, make, lit, loaders, images, callbacks=(), *, own=None, fit=None, model=None, **options):
        self.callback = own or callback()
        self.val, self.lit = images(VAL, 5), lit
        torch.manual_seed(1)
        self.model = lit() if model is None else model
        self.trainer = make(
            self.callback,
            *callbacks,
            enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
            **options,
        )
        torch.manual_seed(2)
        self.trainer.fit(self.model, loaders(40, shuffle=True), loaders(self.val), **(fit or {}))
        self.baseline = self.callback.baseline_
        self.info = self.baseline.info

    @property
    def of_left(self):
        return is_of(self.baseline, self.model, self.val)

    def of(self, path):
        return is_of(self.baseline, loaded(self.lit, path), self.val)

    @property
    def said(self):
        return "; ".join(self.baseline.warnings)

    def verdict(self, checkpoint=None):
        """What the baseline says: "checkpoint", "left" or "none"; checked against what is so."""
        says = (
            "checkpoint"
            if self.info["checkpoint"]
            else "left"
            if "that fit leaves, " in self.info["weights_of"]
            else "none"
        )
        best = checkpoint.best_model_path if checkpoint is not None else ""
        if says == "checkpoint":
            assert best.endswith(self.info["checkpoint"])
            assert self.of(best)
        if says == "left":
            assert self.of_left
            assert not (best and self.of(best))
        if says == "none":
            assert not self.of_left
            assert not (best and self.of(best))
            assert "the reference is not of the weights that fit leaves" in self.said
        left = bool(best) and all(map(torch.equal, self.model.state_dict().values(), weights_in(best).values()))
        assert ("as in the best checkpoint" in self.said) == (left and says == "none")
        assert ("has other weights than the reference" in self.said) == (
            bool(best) and not left and says != "checkpoint"
        )
        assert Baseline.load(self.callback.directory_).info == self.info
        return says


@pytest.fixture
def fitted(trainer, lit, loaders, images):
    def fit(*callbacks, **options):
        return Fitted(trainer, lit, loaders, images, callbacks, **options)

    return fit


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


def averaging(name, **options):
    return lambda: getattr(pl.callbacks, name)(**options)


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


def monitored(tmp_path, losses, lit, **options):
    """A model whose validation loss is what the script says, pass by pass, and a checkpoint of the least."""

    class Scripted(lit):
        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                self.log("scripted", float(losses.pop(0)))

    return Scripted(), ModelCheckpoint(tmp_path / "saved", monitor="scripted", **options)


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


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 8, "max_epochs": -1},
        {"check_val_every_n_epoch": 3, "max_epochs": 4},
        {"check_val_every_n_epoch": 9, "max_epochs": 2},
        {"val_check_interval": 3, "max_epochs": 1},
        {"max_epochs": 2},
        {"max_epochs": 2, "num_sanity_val_steps": 2},
        {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 1},
        {"max_epochs": 2, "inference_mode": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("average", [None, Averages, lambda: Averages(leave=False)])
def test_a_final_pass_is_of_the_weights_that_fit_leaves(fitted, options, average):
    done = fitted(*([average()] if average else []), own=callback(reference="final"), **options)

    assert done.verdict() == "left"
    assert (done.baseline.n, done.info["step"]) == (VAL, done.trainer.global_step)
    assert done.info["epoch"] == done.baseline.training.info["epoch"] or "max_steps" in options
    assert done.baseline.warnings == []
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in done.model.modules())


@pytest.mark.parametrize("options", [{"check_val_every_n_epoch": 9}, {"max_steps": 3}])
def test_where_no_validation_came_the_final_pass_is_advised_and_helps(fitted, options):
    done = fitted(**options)
    assert done.baseline.reference.source == "training"
    assert 'there was no validation pass before fit ended: pass reference="final"' in done.said
    assert done.info["weights_of"].startswith("no one's")

    assert fitted(own=callback(reference="final"), **options).verdict() == "left"


def test_the_other_lightning_has_a_final_pass_too(trainer, steps, loaders, tmp_path):
    import pytorch_lightning
    from pytorch_lightning.loggers import CSVLogger

    model = type("Other", (steps, pytorch_lightning.LightningModule), {})()
    own = callback(reference="final")
    running = trainer(own, package=pytorch_lightning, logger=CSVLogger(tmp_path / "logs"), max_steps=8, max_epochs=-1)
    running.fit(model, loaders(40), loaders(VAL))

    assert own.baseline_.info["weights_of"] == "the weights that fit leaves, at step 8 (epoch 1)"
    assert own.baseline_.warnings == []
    assert isinstance(running.logger, CSVLogger)


def test_a_compiled_model_has_a_final_pass_too(fitted, lit, net):
    done = fitted(own=callback(reference="final"), model=lit(torch.compile(net(), backend="eager")), max_epochs=1)

    assert done.baseline.reference.groups["embeddings/avgpool"].n == VAL
    assert done.info["weights_of"] == "the weights that fit leaves, at step 5 (epoch 0)"
    assert done.baseline.warnings == []


def test_a_data_modules_hooks_are_called_in_a_final_pass(trainer, lit, loaders, images, brightness):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return loaders(40)

        def val_dataloader(self):
            return loaders(images(VAL, 5))

        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch[0] / 2, batch[1]

    own = callback(reference="final")
    trainer(own, check_val_every_n_epoch=9).fit(lit(), datamodule=Data())
    bank = own.baseline_.reference.groups["inputs"].bank

    assert own.baseline_.n == VAL
    np.testing.assert_allclose(bank.max[0], brightness(images(VAL, 5)).max() / 2, rtol=1e-4)


def test_a_final_pass_after_every_kind_of_averaging(fitted, tmp_path):
    for average in (averaging("EMAWeightAveraging", decay=0.8), averaging("WeightAveraging")):
        checkpoint = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=7)
        done = fitted(average(), checkpoint, own=callback(reference="final"), max_epochs=2)
        assert (done.of_left, done.of(checkpoint.best_model_path)) == (True, False)
        assert done.info["checkpoint"] is None
        assert done.baseline.warnings == []


class Records(pl.Callback):
    """What another callback hears, and what a logger is told."""

    def __init__(self):
        self.heard = []

    def __getattribute__(self, name):
        if name.startswith("on_") and name not in ("on_save_checkpoint", "on_load_checkpoint"):
            self.heard.append(name)
        return super().__getattribute__(name)


@pytest.mark.filterwarnings("ignore:Found 1 module")
@pytest.mark.filterwarnings("ignore:Your `val_dataloader`'s sampler has shuffling enabled")
def test_nobody_else_hears_of_a_final_pass(trainer, lit, loaders, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    def fit(*own):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        model, records = lit(), Records()
        generator = torch.Generator().manual_seed(4)
        logger = CSVLogger(tmp_path / f"logs{len(own)}")
        checkpoint = ModelCheckpoint(tmp_path / f"saved{len(own)}", monitor="val_loss")
        running = trainer(records, checkpoint, *own, logger=logger, enable_checkpointing=True, max_epochs=2)
        model.train()
        model.model.norm.eval()
        running.fit(model, loaders(40, shuffle=True), loaders(VAL, shuffle=True, generator=generator))
        metrics = {name: float(value) for name, value in running.callback_metrics.items()}
        logged = {name: float(value) for name, value in running.logged_metrics.items()}
        return [
            records.heard, metrics, logged, running.global_step, running.current_epoch, torch.rand(3).tolist(),
            random.getstate(), list(np.random.get_state()[1]),  # noqa: NPY002  what transforms draw from
            generator.get_state().tolist(), [module.training for module in model.modules()],
            [value.tolist() for value in model.state_dict().values()], sorted(checkpoint.best_k_models.values()),
            len(logger.experiment.metrics), running.callbacks[0] is records, running.state.stage,
            running.fit_loop.epoch_loop.val_loop.batch_progress.state_dict(), len(running.loggers),
        ]  # fmt: skip

    own = callback(reference="final")
    for with_it, without in zip(fit(own), fit(), strict=True):
        assert with_it == without
    assert own.baseline_.n == VAL


def test_a_final_pass_over_one_of_several_loaders_and_so_many_batches(trainer, lit, loaders):
    own = callback(reference="final", dataloader_idx=1)
    trainer(own, limit_val_batches=2).fit(lit(), loaders(40), [loaders(8), loaders(32)])
    assert own.baseline_.n == 16

    own = callback(reference="final")
    trainer(own).fit(lit(), loaders(40))
    assert own.baseline_.reference.source == "training"
    assert "there was no validation pass" in own.baseline_.warnings[0]
    assert own.baseline_.info["weights_of"].startswith("no one's: the reference is of training data")


def test_a_failing_final_pass_costs_nothing_and_is_said(fitted, lit):
    class Fails(lit):
        def on_validation_start(self):
            if self.trainer.global_step == 8:
                raise RuntimeError("no more")

    done = fitted(own=callback(reference="final"), model=Fails(), max_steps=8, max_epochs=-1)

    assert done.verdict() == "none"
    assert "the validation pass at the end: RuntimeError('no more')" in done.baseline.warnings
    assert ".validate(model, loader) makes that of the weights as they are" in done.said
    assert len(done.trainer.callbacks) == 1


def test_an_interrupted_fit_with_a_final_pass_says_whose_it_is(trainer, lit, loaders):
    class Stops(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 8:
                raise RuntimeError("power cut")

    for reference in ("final", "validation"):
        own = callback(reference=reference)
        with pytest.raises(RuntimeError, match="power cut"):
            trainer(own, Stops(), max_epochs=3).fit(lit(), loaders(40), loaders(VAL))
        (said,) = own.baseline_.warnings
        assert "was at step 5 (epoch 0), and the weights are those at step 8 (epoch 1)" in said
        assert ".validate(model, loader) makes that" in said


def test_a_fit_that_trains_nothing_says_how_to_get_a_baseline(trainer, lit, loaders, said):
    own = callback()
    running = trainer(own, max_epochs=0)
    model = lit()
    running.fit(model, loaders(40), loaders(VAL))
    assert own.baseline_ is None
    assert any("there is none, as fit had nothing to train" in message for message in said.messages)
    trainer(own).validate(model, loaders(VAL), verbose=False)
    assert own.baseline_.n == VAL


class Predicts:
    """A model that predicts, too, and tests on several loaders."""

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return self(batch[0])


PASSES = {"validation": "validate", "test": "test", "prediction": "predict"}


def run(running, source, model, loader, **options):
    quiet = {} if source == "prediction" else {"verbose": False}
    return getattr(running, PASSES[source])(model, loader, **quiet, **options)


@pytest.fixture
def model(lit):
    return type("Predicting", (Predicts, lit), {})()


@pytest.mark.parametrize("source", PASSES)
def test_a_pass_alone_makes_the_baseline_that_was_asked_for(trainer, model, loaders, images, source):
    data = images(VAL, 5)
    own = callback(reference=source, clean_windows=100, rows=100)
    run(trainer(own), source, model, loaders(data))

    assert list(own.baseline_.sources()) == [source]
    assert {group.n for group in own.baseline_.reference.groups.values()} == {VAL}
    assert is_of(own.baseline_, model, data)
    assert own.baseline_.info["weights_of"] == f"the model as it was given for {source}"
    assert [own.baseline_.info[key] for key in ("checkpoint", "step", "epoch")] == [None, None, None]
    assert own.baseline_.warnings == []
    assert Baseline.load(own.directory_).info == own.baseline_.info
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    first = own.baseline_
    run(trainer(own), source, model, loaders(data))  # and again
    assert own.baseline_ is not first
    assert own.baseline_.n == VAL


@pytest.mark.parametrize("source", PASSES)
@pytest.mark.parametrize("reference", [*PASSES, "training", "final"])
def test_a_pass_that_was_not_asked_for_says_how_to_ask_once(trainer, model, loaders, said, source, reference):
    if source == {"final": "validation"}.get(reference, reference):
        return
    own = callback(reference=reference)
    for _ in range(2):
        run(trainer(own), source, model, loaders(VAL))

    told = [message for message in said.messages if message.startswith("Baseline: ")]
    assert own.baseline_ is None
    assert len(told) == 1
    assert f"`trainer.{PASSES[source]}` makes none with reference={reference!r}" in told[0]
    assert f"pass BaselineCallback(reference={source!r})" in told[0]


def test_validating_after_a_fit_leaves_its_baseline_and_says_what_to_do(trainer, model, loaders, said):
    own = callback()
    running = trainer(own)
    running.fit(model, loaders(40), loaders(VAL))
    baseline = own.baseline_
    for _ in range(2):
        running.validate(model, loaders(8), verbose=False)

    assert own.baseline_ is baseline
    assert [message for message in said.messages if "use a new callback" in message] == [
        "Baseline: that of fit stays; for one of this pass, with the weights of now, use a new callback:"
        " Trainer(callbacks=[BaselineCallback(...)]).validate(model, ...)."
    ]


@pytest.mark.parametrize("source", PASSES)
def test_a_pass_with_a_checkpoint_names_it(fitted, trainer, model, loaders, images, tmp_path, source):
    """What the messages advise for a checkpoint of other weights."""
    checkpoint = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=7)
    done = fitted(checkpoint, model=model, max_epochs=2)
    assert "those at step 7 (epoch 1)" in done.said
    assert f"validate(model, loader, ckpt_path={checkpoint.best_model_path!r})" in done.said
    own = callback(reference=source)
    fresh = type(model)()
    run(trainer(own), source, fresh, loaders(done.val), ckpt_path=checkpoint.best_model_path, weights_only=True)

    assert own.baseline_.reference.source == source
    assert is_of(own.baseline_, fresh, done.val)
    assert done.of(checkpoint.best_model_path) is False
    info = own.baseline_.info
    assert [info[key] for key in ("checkpoint", "step", "epoch")] == ["epoch=1-step=7.ckpt", 7, 1]
    assert info["weights_of"] == "checkpoint epoch=1-step=7.ckpt, at step 7 (epoch 1)"
    assert own.baseline_.warnings == []
    assert own.baseline_.training.n == 40  # the checkpoint carries it


def test_advice_for_the_weights_that_fit_leaves_works(fitted, loaders):
    done = fitted(max_steps=8, max_epochs=-1)
    assert done.verdict() == "none"
    assert 'pass reference="final"' in done.said

    assert fitted(own=callback(reference="final"), max_steps=8, max_epochs=-1).verdict() == "left"


@pytest.mark.parametrize("source", ["test", "prediction"])
def test_a_pass_after_a_fit_tells_the_weights_that_it_ran_with(trainer, model, loaders, tmp_path, source):
    checkpoint = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=7)
    own = callback(reference=source)
    running = trainer(own, checkpoint, enable_checkpointing=True, max_epochs=2)
    running.fit(model, loaders(40), loaders(VAL))
    assert own.baseline_ is None
    run(running, source, model, loaders(24))
    assert own.baseline_.n == 24
    assert own.baseline_.training.n == 40
    assert own.baseline_.info["weights_of"] == "the weights that fit leaves, at step 10 (epoch 1)"
    assert own.baseline_.info["checkpoint"] is None
    run(running, source, model, loaders(24), ckpt_path="best", weights_only=True)
    assert own.baseline_.info["weights_of"] == "checkpoint step=7.ckpt, at step 7 (epoch 1)"
    assert own.baseline_.info["step"] == 7
    with torch.no_grad():
        model.model.conv.weight.mul_(2)
    run(running, source, model, loaders(24))
    assert own.baseline_.info["weights_of"] == f"the model as it was given for {source}"


def test_a_loaded_checkpoint_whose_weights_are_changed_is_not_named(trainer, lit, loaders, tmp_path):
    class Doubles(lit):
        def on_validation_start(self):
            with torch.no_grad():
                self.model.conv.weight.mul_(2)

    running = trainer(max_epochs=1)
    running.fit(lit(), loaders(40), loaders(VAL))
    running.save_checkpoint(tmp_path / "a.ckpt")
    own = callback()
    trainer(own).validate(Doubles(), loaders(VAL), ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)

    assert own.baseline_.info["checkpoint"] is None
    assert "the weights at the first batch were others" in own.baseline_.warnings[0]


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


def test_fast_dev_run_makes_the_final_pass_too(fitted):
    own = callback(reference="final")
    done = fitted(own=own, fast_dev_run=2)

    assert done.info["weights_of"] == "the weights that fit leaves, at step 2 (epoch 0)"
    assert done.of_left
    assert own.directory_ is None


def test_the_docs_way_to_a_checkpoints_baseline(trainer, model, loaders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    running = trainer(max_epochs=1)
    running.fit(model, loaders(40), loaders(VAL))
    running.save_checkpoint("epoch=2-step=28.ckpt")
    given = {"BaselineCallback": callback, "Trainer": lambda callbacks: trainer(*callbacks)}
    given |= {"model": model, "loader": loaders(VAL)}
    run_section("baseline.md", "Whose weights it is of", given)

    assert given["at_the_end_of_fit"]._options.reference == "final"
    assert given["callback"].baseline_.info["checkpoint"] == "epoch=2-step=28.ckpt"


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


@pytest.mark.parametrize("source", PASSES)
@pytest.mark.parametrize("several", [False, True])
def test_a_loader_of_a_pass_that_is_not_there_is_refused(trainer, model, loaders, source, several):
    own = callback(reference=source, dataloader_idx=2)
    with pytest.raises(InputError, match="dataloader_idx=2, but the loaders of this pass are"):
        run(trainer(own), source, model, [loaders(8), loaders(8)] if several else loaders(8))


@pytest.mark.parametrize("source", PASSES)
def test_one_of_several_loaders_of_a_pass(trainer, model, loaders, source):
    own = callback(reference=source, dataloader_idx=1)
    run(trainer(own), source, model, [loaders(8), loaders(24)])

    assert own.baseline_.n == 24


@pytest.mark.parametrize(("reference", "side"), [("validation", 8), ("final", 8), ("test", 12), ("prediction", 20)])
def test_check_looks_at_the_data_of_the_reference(lit, loaders, images, reference, side):
    class Data(pl.LightningDataModule):
        def setup(self, stage):
            self.stage = stage

        def train_dataloader(self):
            return loaders(images(8, side=8))

        def val_dataloader(self):
            return loaders(images(8, side=8))

        def test_dataloader(self):
            assert self.stage == "test"
            return loaders(images(8, side=12))

        def predict_dataloader(self):
            assert self.stage == "predict"
            return loaders(images(8, side=20))

    checked = callback(reference=reference).check(lit(), Data())

    assert checked.ok
    assert next(row for row in checked.rows if row.group == "inputs").shape == (8, 3, side, side)


def test_a_final_pass_runs_on_the_accelerator(trainer, lit, loaders):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    devices = []

    class Looks(lit):
        def validation_step(self, batch, batch_idx):
            devices.append((batch[0].device.type, self.device.type))
            super().validation_step(batch, batch_idx)

    own, model = callback(reference="final"), Looks()
    trainer(own, accelerator="gpu", max_steps=3).fit(model, loaders(40), loaders(VAL))

    assert devices == [("cuda", "cuda")] * 2
    assert model.device.type == "cpu"
    assert own.baseline_.info["weights_of"] == "the weights that fit leaves, at step 3 (epoch 0)"


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


def test_a_loaded_checkpoint_that_cannot_be_compared_is_named_by_the_trainers_word(trainer, lit, loaders, tmp_path):
    class Renames(lit):
        def on_load_checkpoint(self, checkpoint):
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name.replace("net.", ""): value for name, value in state.items()}

        def on_save_checkpoint(self, checkpoint):
            checkpoint["state_dict"] = {f"net.{name}": value for name, value in checkpoint["state_dict"].items()}

    running = trainer()
    running.fit(Renames(), loaders(40), loaders(VAL))
    running.save_checkpoint(tmp_path / "a.ckpt")
    own = callback()
    trainer(own).validate(Renames(), loaders(VAL), ckpt_path=tmp_path / "a.ckpt", weights_only=True, verbose=False)

    assert own.baseline_.info["checkpoint"] == "a.ckpt"
    assert own.baseline_.info["step"] == 5
    assert own.baseline_.info["weights_of"].endswith("which the trainer loaded; its file cannot be compared")


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
