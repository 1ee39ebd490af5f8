"""Run by test_ddp.py on two gloo processes: fits in several situations; what came of them is JSON, a file a rank."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from conftest import Lit, dataset, loader
from lensai_integrations import Baseline, Profiler
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.training.recording import Recording

TRAIN, VAL = 101, 51  # both odd: a sampler for two ranks repeats one sample of each


class Stops(pl.Callback):
    """Raises on all ranks in the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 1:
            raise RuntimeError("stopped")


class Numbers(pl.Callback):
    """Notes the epoch and number of each batch, by what is in it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        numbers = trainer.__dict__.setdefault("numbers", {})
        numbers[hashlib.sha256(batch[0].numpy().tobytes()).hexdigest()] = [trainer.current_epoch, batch_idx]


def trainer(folder, *callbacks, **options):
    return pl.Trainer(
        strategy="ddp",
        accelerator="cpu",
        devices=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **{"max_epochs": 2, "enable_checkpointing": False, **options},
    )


def fit(running, **options):
    torch.manual_seed(0)
    model = Lit()
    torch.manual_seed(1)
    running.fit(model, loader(dataset(TRAIN, 1), 8, shuffle=True), loader(dataset(VAL, 2), 8), **options)
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return hashlib.sha256(weights).hexdigest()


def found(callback):
    baseline = callback.baseline_
    if baseline is None:
        return None
    return {
        "warnings": baseline.warnings,
        "weights_of": baseline.info["weights_of"],
        "folder": str(callback.directory_),
        **{name: [profile.n, profile.info] for name, profile in baseline.sources().items()},
        "groups": {name: group.n for name, group in baseline.reference.groups.items()},
        "rows": baseline.reference.rows.n,
    }


def stopped(running, **options):
    try:
        fit(running, **options)
    except RuntimeError as error:
        return str(error)
    return "not stopped"


def main(folder):
    rank = None
    results = {}
    callback = BaselineCallback(layers=["avgpool"])
    saving = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1, monitor="epoch", mode="max")
    running = trainer(folder / "fit", callback, saving, enable_checkpointing=True)
    results["weights"] = fit(running)
    rank = running.global_rank
    results["fit"] = found(callback)
    results["state"] = sorted(callback.state_dict())
    results["plain_weights"] = fit(trainer(folder / "plain"))

    callback = BaselineCallback(layers=["avgpool"])
    fit(trainer(folder / "resumed", callback), ckpt_path=folder / "checkpoints" / "epoch=0.ckpt", weights_only=True)
    results["resumed"] = found(callback)

    callback = BaselineCallback(layers=["avgpool"])
    checkpoint = folder / "checkpoints" / "epoch=0.ckpt"
    results["error"] = stopped(trainer(folder / "stopped", callback, Stops()), ckpt_path=checkpoint, weights_only=True)
    results["stopped"] = found(callback)

    callback = BaselineCallback(layers=["avgpool"], every=3, training="all")
    noted, take = [], Recording.take

    def noting(recording, batch):
        if recording.source == "training":
            noted.append(hashlib.sha256(batch[0].numpy().tobytes()).hexdigest())
        return take(recording, batch)

    Recording.take = noting
    running = trainer(folder / "every", Numbers(), callback)
    results["every_weights"] = fit(running)
    results["every"], results["every_taken"] = found(callback), [running.numbers[image] for image in noted]
    Recording.take = take

    profile = Profiler.profile
    if rank == 1:
        Profiler.profile = lambda _: 1 / 0
    callback = BaselineCallback(layers=["avgpool"])
    results["faulty_weights"] = fit(trainer(folder / "faulty", callback))
    results["faulty"] = found(callback)
    Profiler.profile = profile

    callback = BaselineCallback(reference="test", layers=None)
    running = trainer(folder / "test", callback, max_epochs=1)
    fit(running)
    running.test(running.lightning_module, loader(dataset(VAL, 2), 8), verbose=False)
    results["test"] = found(callback)

    callback = BaselineCallback(layers=["avgpool"], reference="final")
    running = trainer(folder / "final", callback, max_epochs=-1, max_steps=10)
    results["final_weights"] = fit(running)
    results["final"] = found(callback)
    torch.save(running.lightning_module.state_dict(), folder / f"final{rank}.pt")
    results["final_plain"] = fit(trainer(folder / "final_plain", max_epochs=-1, max_steps=10))

    callback = BaselineCallback(layers=["avgpool"], reference="final")
    validation_step = Lit.validation_step
    if rank == 1:
        Lit.validation_step = lambda *_: 1 / 0
    fit(trainer(folder / "final_faulty", callback, max_epochs=1, check_val_every_n_epoch=2, num_sanity_val_steps=0))
    results["final_faulty"] = found(callback)
    Lit.validation_step = validation_step

    callback = BaselineCallback(layers=["avgpool"])
    trainer(folder / "alone", callback).validate(Lit(), loader(dataset(VAL, 2), 8), ckpt_path=checkpoint,
                                                 weights_only=True, verbose=False)  # fmt: skip
    results["alone"] = found(callback)

    profiler = Profiler(source="validation", seed=1)
    profiler.update(inputs=dataset(200, 3).tensors[0])
    callback = DriftCallback(Baseline(profiler.profile()), window=20, state=folder / "state", log_to_mlflow=False)
    trainer(folder / "drift", callback).test(running.lightning_module, loader(dataset(VAL, 2), 8), verbose=False)
    results["drift"] = [callback.monitor_.name, callback.monitor_.status.rows, [r.rows for r in callback.reports_]]
    (folder / f"rank{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
