"""`model.fit` of Keras with the callback and without it: where images are measured, and what a step takes.

    KERAS_BACKEND=torch python -m benchmarks.gpu.keras_fit [--quick]

The last line is JSON. Run by `benchmarks.gpu` in processes of its own, one for each backend.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from lensai_integrations import Profiler
from lensai_integrations.keras import BaselineCallback

BATCH = 64


def main() -> None:
    """Fit in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small images: does it run")
    options = parser.parse_args()
    logging.getLogger("lensai_integrations").setLevel(logging.ERROR)
    side, n = (32, 128) if options.quick else (224, 1024)
    rng = np.random.default_rng(0)
    images, labels = rng.random((n, side, side, 3), np.float32), rng.integers(0, 10, n)
    found: dict[str, Any] = {"keras": keras.__version__, "backend": keras.backend.backend()}
    for name, data in sources(images, labels).items():
        places = Places()
        model, took, callback = network(side), {}, None
        for kind in ("to warm up", "without", "with", "without again", "with again"):
            with tempfile.TemporaryDirectory() as folder:
                callbacks = []
                if kind.startswith(("to warm up", "with")) and "without" not in kind:
                    callback = BaselineCallback(layers=["pool"], training="all", directory=folder, clean_windows=0)
                    callbacks = [callback]
                began = time.perf_counter()
                with places:
                    model.fit(**data(), epochs=2, verbose=0, callbacks=callbacks)
                took[kind] = 1e3 * (time.perf_counter() - began) / (2 * n / BATCH)
        baseline = None if callback is None else callback.baseline_
        found[name] = {
            "ms a step": took,
            "images are measured as": sorted(places.seen),
            "rows": None if baseline is None else baseline.n,
            "warnings": None if baseline is None else baseline.warnings,
        }
    print(json.dumps(found))


def network(side: int) -> Any:
    """A small convnet, compiled."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((side, side, 3))])
    for width in (32, 64):
        model.add(layers.Conv2D(width, 3, strides=2, activation="relu"))
    model.add(layers.GlobalAveragePooling2D(name="pool"))
    model.add(layers.Dense(10, name="out"))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def sources(images: np.ndarray, labels: np.ndarray) -> dict[str, Callable[[], dict[str, Any]]]:
    """The same data as arguments of `fit`: arrays, and on torch a `DataLoader`, whose batches lie on the host."""
    ways: dict[str, Callable[[], dict[str, Any]]] = {"arrays": lambda: {"x": images, "y": labels, "batch_size": BATCH}}
    if keras.backend.backend() == "torch":
        import torch

        data = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
        ways["DataLoader"] = lambda: {"x": torch.utils.data.DataLoader(data, BATCH)}
    return ways


class Places:
    """While it is open, notes where the images lie that profilers are given."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._true = Profiler.update

    def __enter__(self) -> None:
        true, seen = self._true, self.seen

        def update(profiler: Profiler, *, inputs: Any = None, **others: Any) -> Any:
            seen.add(f"{type(inputs).__name__} on {getattr(inputs, 'device', 'the host')}")
            return true(profiler, inputs=inputs, **others)

        Profiler.update = update  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        Profiler.update = self._true  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
