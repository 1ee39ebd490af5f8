"""Fits whose baselines are held against what the weights answer, told by nobody but torch."""

from __future__ import annotations

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lensai_integrations import Baseline
from lensai_integrations.lightning import BaselineCallback

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


def averaging(name, **options):
    return lambda: getattr(pl.callbacks, name)(**options)


def monitored(tmp_path, losses, lit, **options):
    """A model whose validation loss is what the script says, pass by pass, and a checkpoint of the least."""

    class Scripted(lit):
        def on_validation_epoch_end(self):
            if not self.trainer.sanity_checking:
                self.log("scripted", float(losses.pop(0)))

    return Scripted(), ModelCheckpoint(tmp_path / "saved", monitor="scripted", **options)
