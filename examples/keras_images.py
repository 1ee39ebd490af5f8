"""From `model.fit` to a baseline in MLflow and a first verdict, on TensorFlow, JAX or torch.

Trains a small CNN, logs the baseline of what it was fed to MLflow, profiles three production sets (clean, blurred,
darkened) and says which of them have drifted. Without arguments the images are patches of scikit-learn's two bundled
photos and the task is to tell the photos apart; with `--data DIR` any folder of images of one size (`DIR/<class>/*`, or
`DIR/train` and `DIR/test`).

    KERAS_BACKEND=jax python examples/keras_images.py [--data DIR] [--epochs N] [--out DIR] [--tracking-uri URI]
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import mlflow
import numpy as np
from keras import layers
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images

from lensai_integrations import Baseline, DriftReport, Profile, Profiler, compare
from lensai_integrations.keras import BaselineCallback
from lensai_integrations.mlflow import load_baseline

SIZE, STRIDE, BATCH = 32, 12, 64
console = Console(width=110)


def flipped(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every other image, mirrored."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, more or less."""
    sigma = rng.uniform(0.1, 2.0)
    return gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), radius=(1, 1, 0)).round().astype(np.uint8)


def darkened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About half the light."""
    return (image * rng.uniform(0.4, 0.6)).round().astype(np.uint8)


Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
PRODUCTION: dict[str, Change | None] = {"clean": None, "blurred": blurred, "darkened": darkened}


class Images(keras.utils.PyDataset):
    """Batches of uint8 images and their classes, read when they are wanted. Any other data that `fit` takes does too.

    Args:
        images: Arrays `[H, W, 3]` or paths of files.
        targets: Their classes.
        change: What is done to an image on its way.
        shuffle: In another order in every epoch.
    """

    def __init__(
        self, images: Sequence[Any], targets: np.ndarray, change: Change | None = None, *, shuffle: bool = False
    ) -> None:
        super().__init__()
        self.images, self.targets, self.change, self.shuffle = images, targets, change, shuffle
        self.rng = np.random.default_rng(0)
        self.order = np.arange(len(targets))
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self.order) / BATCH)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        return np.stack([self.image(i) for i in chosen]), self.targets[chosen]

    def image(self, i: int) -> np.ndarray:
        """One image."""
        image = self.images[i]
        image = np.asarray(keras.utils.load_img(image)) if isinstance(image, Path) else image
        return image if self.change is None else self.change(image, self.rng)

    def on_epoch_end(self) -> None:
        if self.shuffle:
            self.rng.shuffle(self.order)


def photos() -> tuple[np.ndarray, np.ndarray]:
    """Square patches of scikit-learn's two photos; the class is the photo."""
    patches, targets = [], []
    for target, photo in enumerate(load_sample_images().images):
        windows = np.lib.stride_tricks.sliding_window_view(photo, (SIZE, SIZE), axis=(0, 1))[::STRIDE, ::STRIDE]
        patches.append(windows.reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1))
        targets += [target] * len(patches[-1])
    return np.concatenate(patches), np.array(targets)


def files(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Paths of the images in a folder with a folder for each class, and their classes."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir())
    found = [(path, target) for target, each in enumerate(classes) for path in sorted(each.iterdir())]
    return np.array([path for path, _ in found], dtype=object), np.array([target for _, target in found])


def splits(data: Path | None) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training, validation and production images, each with their classes."""
    if data is not None and (data / "train").is_dir() and (data / "test").is_dir():
        images, targets = files(data / "train")
        shares, rest = [0.8], [files(data / "test")]
    else:
        images, targets = photos() if data is None else files(data)
        shares, rest = ([0.5, 0.75] if data is None else [0.6, 0.8]), []
    order = np.random.default_rng(0).permutation(len(targets))
    parts = np.split(order, [int(share * len(order)) for share in shares])
    return [(images[part], targets[part]) for part in parts] + rest


def small_cnn(classes: int) -> keras.Model:
    """Three convolutions, an average pool, two dense layers: nothing in it knows of baselines."""
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Rescaling(1 / 127.5, offset=-1)])
    for width in (32, 64, 128):
        model.add(layers.Conv2D(width, 3, padding="same"))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(64, activation="relu", name="embedding"))
    model.add(layers.Dense(classes, name="logits"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(2e-3), loss, metrics=["accuracy"])
    return model


def profile_production(model: keras.Model, batches: Images, baseline: Baseline, name: str) -> Profile:
    """What a deployed model would do beside predicting: hand each batch, embedding and output to a profiler."""
    profiler = Profiler(like=baseline, source=name)
    deployed = keras.Model(model.inputs[0], [model.get_layer("embedding").output, model.outputs[0]])
    for i in track(range(len(batches)), f"profiling {name}", console=console):
        images, _ = batches[i]
        embedding, logits = deployed.predict_on_batch(images)
        profiler.update(inputs=images, outputs=logits, embeddings={"embedding": embedding})
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
    parser.add_argument("--data", type=Path, help="a folder of images; default: two bundled photos")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where production profiles go")
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db")
    options = parser.parse_args()

    keras.utils.set_random_seed(0)
    train, validation, production = splits(options.data)
    model = small_cnn(classes=int(train[1].max()) + 1)
    mlflow.set_tracking_uri(options.tracking_uri)
    mlflow.set_experiment("lensai-demo")
    with mlflow.start_run() as run:
        model.fit(
            Images(*train, flipped, shuffle=True),
            validation_data=Images(*validation),
            epochs=options.epochs,
            callbacks=[BaselineCallback(layers=["embedding"], directory=options.out / "lensai_baseline")],
        )

    source = f"runs:/{run.info.run_id}"
    baseline = load_baseline(source, tracking_uri=options.tracking_uri)
    reports = {}
    for name, change in PRODUCTION.items():
        window = profile_production(model, Images(*production, change), baseline, name)
        window.save(options.out / name)
        reports[name] = compare(baseline, window)

    console.print(verdicts(reports))
    console.print("\nThe same verdict for a pipeline (exit code 0, 1 or 2):")
    show(f"{command('lensai')} compare {source} {options.out / 'blurred'} --tracking-uri {options.tracking_uri}")
    console.print("\nOpen the baseline in MLflow (the run's Artifacts tab, lensai/report.html):")
    show(f"{command('mlflow')} ui --backend-store-uri {options.tracking_uri}")


if __name__ == "__main__":
    main()
