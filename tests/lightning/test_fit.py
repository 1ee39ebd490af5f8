"""What one fit keeps, and one more validation pass at its end: `reference="final"`."""

from __future__ import annotations

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from weighed import VAL, Averages, averaging, callback

from lensai_integrations import Profiler
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.lightning.fit import LightningFit

pytestmark = [
    pytest.mark.filterwarnings(r"ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


def test_stop_forgets_recordings_and_keeps_profiles():
    profiler = Profiler(source="validation")
    profiler.update(labels=np.arange(4))
    state = LightningFit(BaselineCallback()._options, 0, 1)
    state.record("validation", everything=True)
    state.profiles = {"validation": profiler.profile()}
    state.stop()

    assert state.recordings == {}
    assert state.profiles["validation"].n == 4


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

    class Counts(lit):
        """Keeps a record of its validations."""

        def __init__(self):
            super().__init__()
            self.register_buffer("validations", torch.zeros(()))

        def on_validation_epoch_end(self):
            self.validations += 1

    def fit(*own):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        model, records = Counts(), Records()
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


def test_advice_for_the_weights_that_fit_leaves_works(fitted, loaders):
    done = fitted(max_steps=8, max_epochs=-1)
    assert done.verdict() == "none"
    assert 'pass reference="final"' in done.said

    assert fitted(own=callback(reference="final"), max_steps=8, max_epochs=-1).verdict() == "left"


def test_fast_dev_run_makes_the_final_pass_too(fitted):
    own = callback(reference="final")
    done = fitted(own=own, fast_dev_run=2)

    assert done.info["weights_of"] == "the weights that fit leaves, at step 2 (epoch 0)"
    assert done.of_left
    assert own.directory_ is None


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
