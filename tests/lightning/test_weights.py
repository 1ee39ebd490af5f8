"""Whose weights a baseline is of: held against what these weights answer, told by nobody but torch."""

from __future__ import annotations

from datetime import timedelta

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from torch import nn

from lensai_integrations import Baseline
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
        self.model = model or lit()
        self.trainer = make(self.callback, *callbacks, enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks), **options)
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
        says = "checkpoint" if self.info["checkpoint"] else "left" if "that fit leaves, " in self.info["weights_of"] else "none"
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
        (averaging("StochasticWeightAveraging", swa_lrs=0.05, swa_epoch_start=1), None, "none"),
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
