"""Run by test_spawned.py: fits and validates in spawned or forked processes; what the caller has is JSON."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import mlflow
import torch

from conftest import Lit, dataset, loader
from lensai_integrations import Baseline
from lensai_integrations.lightning import BaselineCallback, DriftCallback
from lensai_integrations.profiles.profile import to_bytes


def trainer(strategy, folder, *callbacks):
    return pl.Trainer(
        strategy=strategy,
        accelerator="cpu",
        devices=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )


def fit(strategy, folder, callback):
    torch.manual_seed(0)
    model = Lit()
    trainer(strategy, folder, callback).fit(model, loader(dataset(40, 1), 8), loader(dataset(25, 2), 8))
    return model


def main(strategy, folder):
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("spawned", artifact_location=(folder / "artifacts").as_uri())
    first = BaselineCallback(layers=["avgpool"], clean_windows=0)
    with mlflow.start_run(experiment_id=mlflow.get_experiment_by_name("spawned").experiment_id) as run:
        model = fit(strategy, folder, first)
    fold = copy.deepcopy(first)
    fresh = fold.baseline_ is None
    fit(strategy, folder, fold)
    monitoring = DriftCallback(first.directory_, window=10)
    trainer(strategy, folder, monitoring).validate(model, loader(dataset(25, 2), 8), verbose=False)
    return {
        "rows": [first.baseline_.reference.n, first.baseline_.training.n],
        "folders": [first.directory_.name, fold.directory_.name],
        "as saved": to_bytes(Baseline.load(first.directory_)) == to_bytes(first.baseline_),
        "fresh": fresh,
        "warnings": first.baseline_.warnings,
        "logged": [each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id, "lensai")],
        "windows": [report.rows for report in monitoring.reports_],
    }


if __name__ == "__main__":
    place = Path(sys.argv[2])
    (place / "found.json").write_text(json.dumps(main(sys.argv[1], place)))
