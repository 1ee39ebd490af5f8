"""Two processes that hold one model together: fed the same, their rows count once. Run by `torch.distributed.run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader, TensorDataset

from lensai_integrations.lightning import BaselineCallback


class Split(LightningModule):
    """Its second layer answers columns, the fourth rows."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 4))

    def configure_model(self):
        plan = {
            "1": ColwiseParallel(use_local_output=False),
            "3": RowwiseParallel(),
            "4": ColwiseParallel(output_layouts=Replicate()),
        }
        parallelize_module(self.net, self.device_mesh["tensor_parallel"], plan)

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.net(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    images = TensorDataset(torch.rand(20, 3, 8, 8), torch.randint(4, (20,)))
    callback = BaselineCallback(layers=["net.1", "net.3"], directory=folder / "baseline")
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", devices=2, strategy=ModelParallelStrategy(1, 2), callbacks=[callback],
        default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(Split(), DataLoader(images, 8), DataLoader(images, 8))
    if trainer.global_rank == 0:
        reference = callback.baseline_.reference
        told = {
            "groups": {name: group.n for name, group in reference.groups.items()},
            "rows": reference.rows.n,
            "training": callback.baseline_.training.n,
            "warnings": callback.baseline_.warnings,
        }
        (folder / "told.json").write_text(json.dumps(told))
