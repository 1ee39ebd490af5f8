"""From a Lightning fit to a baseline in MLflow and a first verdict.

Trains a small CNN, logs the baseline of what it was fed to MLflow, profiles three production sets (clean, blurred,
darkened) and says which of them have drifted. Without arguments the images are patches of scikit-learn's two bundled
photos and the task is to tell the photos apart; with `--data DIR` any ImageFolder (`DIR/<class>/*`, or `DIR/train` and
`DIR/test`).

    python examples/lightning_images.py [--data DIR] [--epochs N] [--out DIR] [--tracking-uri URI]
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.loggers import MLFlowLogger
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, random_split
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lensai_integrations import Baseline, DriftReport, Profile, Profiler, compare
from lensai_integrations.lightning import BaselineCallback
from lensai_integrations.mlflow import load_baseline

SIZE, STRIDE = 32, 12
NORMALIZE = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)]
PRODUCTION: dict[str, list[Callable[..., Any]]] = {
    "clean": [],
    "blurred": [v2.GaussianBlur(3, sigma=(0.1, 2.0))],
    "darkened": [v2.ColorJitter(brightness=(0.4, 0.6))],
}
console = Console(width=110)


class Photos(Dataset[tuple[Any, int]]):
    """Square patches of scikit-learn's two photos; the class is the photo."""

    classes = ("china", "flower")

    def __init__(self) -> None:
        self.patches, self.targets = [], []
        for target, photo in enumerate(load_sample_images().images):
            windows = np.lib.stride_tricks.sliding_window_view(photo, (SIZE, SIZE), axis=(0, 1))[::STRIDE, ::STRIDE]
            patches = windows.reshape(-1, 3, SIZE, SIZE)
            self.patches.append(patches)
            self.targets += [target] * len(patches)
        self.images = torch.from_numpy(np.concatenate(self.patches))

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], self.targets[index]


class Transformed(Dataset[tuple[Tensor, int]]):
    """A dataset behind a transform, so that every split can have its own."""

    def __init__(self, dataset: Dataset[Any], transform: Callable[[Any], Tensor]) -> None:
        self.dataset, self.transform = dataset, transform

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, target = self.dataset[index]
        return self.transform(image), target


class SmallCNN(LightningModule):
    """Three convolutions, an average pool, a linear layer: nothing in it knows of baselines."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for i, o in ((3, 32), (32, 64), (64, 128)):
            blocks += [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.features(images)).flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        accuracy = (self(batch[0]).argmax(1) == batch[1]).float().mean()
        self.log("val_accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def splits(data: Path | None) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any], int]:
    """Training, validation and production images, and the number of classes."""
    generator = torch.Generator().manual_seed(0)
    if data is None:
        photos = Photos()
        train, validation, production = random_split(photos, [0.5, 0.25, 0.25], generator)
        return train, validation, production, len(photos.classes)
    if (data / "train").is_dir() and (data / "test").is_dir():
        folder, production = ImageFolder(data / "train"), ImageFolder(data / "test")
        train, validation = random_split(folder, [0.8, 0.2], generator)
        return train, validation, production, len(folder.classes)
    folder = ImageFolder(data)
    train, validation, rest = random_split(folder, [0.6, 0.2, 0.2], generator)
    return train, validation, rest, len(folder.classes)


def loader(dataset: Dataset[Any], before: list[Callable[..., Any]], *, shuffle: bool = False) -> DataLoader[Any]:
    """Batches of a dataset behind `before` and normalisation."""
    transformed = Transformed(dataset, v2.Compose([*before, *NORMALIZE]))
    return DataLoader(transformed, batch_size=64, shuffle=shuffle, num_workers=2, persistent_workers=True)


def profile_production(model: SmallCNN, batches: DataLoader[Any], baseline: Baseline, name: str) -> Profile:
    """What a deployed model would do beside predicting: hand each batch, embedding and output to a profiler."""
    profiler = Profiler(like=baseline, source=name)
    model.eval()
    with torch.inference_mode():
        for images, _ in track(batches, f"profiling {name}", console=console):
            embedding = model.avgpool(model.features(images))
            logits = model.fc(embedding.flatten(1))
            profiler.update(inputs=images, outputs=logits, embeddings={"avgpool": embedding})
    return profiler.profile()


def accuracy_of(report: DriftReport) -> str:
    """The accuracy that the confidences speak for, with its 95% interval."""
    found = report.accuracy
    return f"{found.window:.0%} ({found.low:.0%} to {found.high:.0%})" if found is not None else "not known"


def verdicts(reports: dict[str, DriftReport]) -> Table:
    """One row per production set."""
    table = Table(title="Held against the baseline", title_justify="left")
    for heading in (
        "production set",
        "rows",
        "verdict",
        "streams moved",
        "accuracy, estimated",
        "image measure that moved most",
    ):
        table.add_column(
            heading, justify="right" if heading in ("rows", "streams moved", "accuracy, estimated") else "left"
        )
    for name, report in reports.items():
        verdict = f"[bold red]drift, {report.harm or 'harm unknown'}[/]" if report.drift else "[green]no drift[/]"
        worst = next((f"{m.stream} {m.words}" for m in report.moved if m.stream.startswith("inputs/")), "")
        moved = f"{len(report.moved)} of {report.tested}"
        table.add_row(name, f"{report.n_window:,}", verdict, moved, accuracy_of(report), worst)
    return table


def command(name: str) -> str:
    """How to call a command of this environment from here."""
    return name if shutil.which(name) else os.path.relpath(Path(sys.executable).with_name(name))


def show(line: str) -> None:
    """Print a command as one line, so that it can be copied."""
    console.print(f"  {line}", soft_wrap=True, highlight=False, style="bold")


def main() -> None:
    """Train, log, profile, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an ImageFolder; default: two bundled photos")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where production profiles go")
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db")
    options = parser.parse_args()

    seed_everything(0, verbose=False)
    train, validation, production, classes = splits(options.data)
    model = SmallCNN(classes)
    logger = MLFlowLogger("lensai-demo", tracking_uri=options.tracking_uri)
    trainer = Trainer(
        max_epochs=options.epochs,
        logger=logger,
        callbacks=[BaselineCallback(layers=["avgpool"])],
        default_root_dir=options.out,
        log_every_n_steps=10,
        enable_model_summary=False,
    )
    flip = [v2.RandomHorizontalFlip()]
    trainer.fit(model, loader(train, flip, shuffle=True), loader(validation, []))

    source = f"runs:/{logger.run_id}"
    baseline = load_baseline(source, tracking_uri=options.tracking_uri)
    reports = {}
    for name, corruption in PRODUCTION.items():
        window = profile_production(model, loader(production, corruption), baseline, name)
        window.save(options.out / name)
        reports[name] = compare(baseline, window)

    console.print(verdicts(reports))
    console.print("\nThe same verdict for a pipeline (exit code 0, 1 or 2):")
    show(f"{command('lensai')} compare {source} {options.out / 'blurred'} --tracking-uri {options.tracking_uri}")
    console.print("\nOpen the baseline in MLflow (the run's Artifacts tab, lensai/report.html):")
    show(f"{command('mlflow')} ui --backend-store-uri {options.tracking_uri}")


if __name__ == "__main__":
    main()
