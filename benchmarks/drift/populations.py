"""Rows that baselines are drawn from, to see whether each of them keeps the rate of false alarms.

What real nets answer where it is there (`calibration/logits.npy`; CIFAR-10 by `features.py`), and made ones of the
kinds that are hard to calibrate: nets of 40 to 90% accuracy and 2, 10 and 100 classes, the rarest a hundred times rarer
than the most frequent, embeddings with heavy tails, with ties, and with zeros as ReLU leaves them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.features import file_of
from lensai_integrations.profiling.measuring import output_measurer

#: Rows of a group by its name, `[n, D]` float32, and the classes answered under `outputs/top_class`.
Table = dict[str, NDArray[np.float32]]

#: Rows of a made population.
ROWS: Final = 12_000
#: Nets: classes, accuracy, and how many times the most frequent class is as frequent as the rarest.
_NETS: Final = {
    "2 classes, 90% right": (2, 0.9, 1),
    "2 classes 100:1, 80% right": (2, 0.8, 100),
    "10 classes, 40% right": (10, 0.4, 1),
    "10 classes, 70% right": (10, 0.7, 1),
    "10 classes 100:1, 90% right": (10, 0.9, 100),
    "100 classes, 60% right": (100, 0.6, 1),
    "100 classes 100:1, 60% right": (100, 0.6, 100),
}


def populations(data: Path, cache: Path) -> Iterator[tuple[str, Table]]:
    """All populations by name, those of real nets first where they are there."""
    logits = data / "calibration" / "logits.npy"
    if logits.exists():
        yield "a real net, 43% right", answers(np.load(logits, allow_pickle=False))
    if file_of(cache, "clean").exists():
        with np.load(file_of(cache, "clean"), allow_pickle=False) as clean:
            outputs = answers(clean["logits"])
            yield (
                "CIFAR-10: images, answers, layer of 128",
                {"inputs": clean["inputs"], **outputs, "embeddings/features": clean["embeddings"]},
            )
    for name, (classes, accuracy, imbalance) in _NETS.items():
        yield name, answers(net(np.random.default_rng(len(name)), classes, accuracy, imbalance))
    yield from embeddings(np.random.default_rng(1))


def answers(logits: NDArray[np.float32]) -> Table:
    """What is measured of a model's answers, and the classes."""
    rows = output_measurer("logits")(logits)["rows"].astype(np.float32)
    return {"outputs": rows, "outputs/top_class": logits.argmax(1)[:, None].astype(np.float32)}


def net(rng: np.random.Generator, classes: int, accuracy: float, imbalance: float) -> NDArray[np.float32]:
    """Logits `[ROWS, classes]` of a net that is right about so many; rows are of different difficulty."""
    shares = imbalance ** -np.linspace(0, 1, classes)
    labels = rng.choice(classes, ROWS, p=shares / shares.sum())
    noise, ease = rng.normal(size=(ROWS, classes)), rng.gamma(2.0, 0.5, ROWS)
    true = np.eye(classes)[labels] * ease[:, None]
    low, high = 0.0, 50.0
    for _ in range(30):  # the margin at which it is
        middle = (low + high) / 2
        right = np.mean((noise + middle * true).argmax(1) == labels)
        low, high = (middle, high) if right < accuracy else (low, middle)
    return (2 * (noise + high * true)).astype(np.float32)


def embeddings(rng: np.random.Generator) -> Iterator[tuple[str, Table]]:
    """Layers that are hard to calibrate."""
    heavy = rng.standard_t(2.5, size=(ROWS, 16)) @ rng.normal(size=(16, 32))
    mixed = rng.normal(size=(ROWS, 16)) @ rng.normal(size=(16, 64)) / 4
    zeros = np.maximum(mixed - 0.8 + 0.3 * rng.standard_t(3, size=(ROWS, 64)), 0)
    tied = np.round(np.exp(1.2 * rng.normal(size=(ROWS, 12))))
    for name, rows in (("heavy tails (t of 2.5)", heavy), ("ReLU, heavy tails", zeros), ("tied counts", tied)):
        yield name, {"embeddings/layer": rows.astype(np.float32)}
