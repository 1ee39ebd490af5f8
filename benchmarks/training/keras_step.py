"""What `BaselineCallback` adds to a training step of `model.fit`, and what the usual way adds.

One fit of a small network: Conv 32, 64, 128 (3 x 3, same padding, ReLU, each followed by a 2 x 2 max pooling), global
average pooling, Dense 64 (`embedding`), Dense 10; Adam; float32 images 64 x 64 x 3, batches of 64. While it runs, the
step function that Keras calls is exchanged between Keras's own and the callback's, blocks of consecutive steps of each
in random order, so that both meet the same model, the same data and the same state of the machine. A profiled step
takes in images, outputs, labels and the embedding. The first step of a block is not counted; at the end of a block
everything is waited for, the measuring included. The figure is the ratio of the median times of blocks, with a 95%
bootstrap interval.

The usual way is a `model.predict` over the training data: a second forward pass, to which the measuring would come. Its
price is (fit + predict) / fit over as many batches.

    python -m benchmarks.training.keras_step [--keras-backend NAME] [--steps 200] [--quick] [--json FILE]

Without a name: tensorflow, tensorflow-xla, jax and torch, each in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import results

BENCHMARK = "training/keras_step"
TARGETS = dict.fromkeys(("tensorflow", "tensorflow-xla", "jax", "torch"), 1.05)
BLOCK = 10  # steps that are counted, after one that is not
BATCH, SIDE, CLASSES = 64, 64, 10


def ratio_of_medians(times: np.ndarray) -> tuple[float, float, float]:
    """Median of the profiled over that of the plain, and its 95% interval, pairs drawn again.

    Args:
        times: `[pairs, 2, n]`: plain, profiled.
    """
    rng = np.random.default_rng(0)
    drawn = times[rng.integers(0, len(times), (2000, len(times)))]
    medians = np.median(drawn, axis=(1, 3))
    low, high = np.quantile(medians[:, 1] / medians[:, 0], [0.025, 0.975])
    plain, profiled = np.median(times, axis=(0, 2))
    return float(profiled / plain), float(low), float(high)


def network(keras: Any, *, jit: bool) -> Any:
    """The model, compiled."""
    layers = keras.layers
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3))])
    for width in (32, 64, 128):
        model.add(layers.Conv2D(width, 3, padding="same", activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(64, activation="relu", name="embedding"))
    model.add(layers.Dense(CLASSES))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, jit_compile=jit)
    return model


def batches(keras: Any, steps: int, *, labels: bool = True) -> Any:
    """So many batches, of eight different ones: a `tf.data.Dataset` on TensorFlow, a `PyDataset` elsewhere."""
    rng = np.random.default_rng(0)
    x = rng.random((8 * BATCH, SIDE, SIDE, 3), dtype=np.float32)
    y = rng.integers(0, CLASSES, 8 * BATCH)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((x, y) if labels else x).batch(BATCH).cache().repeat().take(steps)
        return data.prefetch(2)

    class Again(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return steps

        def __getitem__(self, index: int) -> Any:
            part = slice(index % 8 * BATCH, (index % 8 + 1) * BATCH)
            return (x[part], y[part]) if labels else (x[part],)

    return Again()


def wait(keras: Any, result: Any) -> None:
    """Until the device has what a step returned."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.block_until_ready(result)
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
    else:
        keras.tree.map_structure(np.asarray, result)


def step_times(keras: Any, model: Any, pairs: int) -> np.ndarray:
    """Seconds a step in `pairs` of a plain and a profiled block, float64 `[pairs, 2, 1]`."""
    from lensai_integrations.keras import BaselineCallback

    second = np.random.default_rng(0).integers(0, 2, pairs)  # which of the two blocks is profiled
    is_profiled = [kind == which for which in second for kind in (0, 1)]
    spans: list[float] = []

    class Now(BaselineCallback):
        """Profiles some steps of an epoch, and takes that for all."""

        def set_params(self, params: Any) -> None:
            super().set_params({**params, "steps": None})

        def settle(self) -> None:
            """Measure what waits to be measured, and wait for that."""
            self._fit._settle(0)
            for recording in self._fit.recordings.values():
                if recording.started and recording._prepared is not None:
                    profiler = recording._prepared[1]
                    profiler._take_waiting(len(profiler._waiting))

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        """Puts a function in the model that calls the one or the other."""

        def on_train_begin(self, logs: Any = None) -> None:
            ours = self._model.train_function
            if not hasattr(ours, "original"):
                sys.exit("the callback has not exchanged the train function: there is nothing to measure")
            step, began = 0, 0.0

            def train_function(*arguments: Any) -> Any:
                nonlocal step, began
                block, place = divmod(step, BLOCK + 1)
                step += 1
                result = (ours if is_profiled[block] else ours.original)(*arguments)
                if place in (0, BLOCK):
                    wait(keras, result)
                    callback.settle()
                    now = time.perf_counter()
                    if place == BLOCK:
                        spans.append((now - began) / BLOCK)
                    began = now
                return result

            self._model.train_function = train_function

    with tempfile.TemporaryDirectory() as root:
        callback = Now(layers=["embedding"], reference="training", training="all", directory=f"{root}/baseline")
        data = batches(keras, 2 * pairs * (BLOCK + 1))
        model.fit(data, callbacks=[callback, Turns()], verbose=0)
        if callback.baseline_ is None or callback.baseline_.n != pairs * (BLOCK + 1) * BATCH:
            sys.exit("the profiled steps are not in the baseline: the figures would be of nothing")
        groups = set(callback.baseline_.reference.groups)
        if groups != {"inputs", "outputs", "embeddings/embedding", "labels"}:
            sys.exit(f"only {sorted(groups)} were profiled: the figures would be of less than they claim")
    model.train_function = None
    times = np.array(spans).reshape(pairs, 2, 1)
    return np.take_along_axis(times, np.stack([1 - second, second], axis=1)[:, :, None], axis=1)


def second_pass_times(keras: Any, model: Any, pairs: int, steps: int) -> np.ndarray:
    """Seconds of a plain fit, and of that with a `predict` over as many batches behind it, float64 `[pairs, 2, 1]`."""
    times = []
    with_labels, without = batches(keras, steps), batches(keras, steps, labels=False)
    for _ in range(pairs + 1):
        start = time.perf_counter()
        model.fit(with_labels, verbose=0)
        between = time.perf_counter()
        model.predict(without, verbose=0)
        times.append([between - start, time.perf_counter() - start])
    return np.array(times)[1:, :, None]


def measure(name: str, steps: int, *, quick: bool) -> dict[str, float]:
    """Measure in this process, whose backend it is already, and print two lines; their figures."""
    import keras

    logging.getLogger("lensai_integrations").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    keras.utils.set_random_seed(0)
    model = network(keras, jit=name in ("tensorflow-xla", "jax"))
    pairs = 3 if quick else -(-steps // BLOCK)
    times = step_times(keras, model, pairs + 1)[1:]
    ratio, low, high = ratio_of_medians(times)
    plain, profiled = np.median(times, axis=(0, 2)) * 1e3
    verdict = "within" if ratio <= TARGETS[name] else "ABOVE"
    print(
        f"{name}: plain {plain:.1f} ms, profiled {profiled:.1f} ms, ratio {ratio:.3f} (95% {low:.3f} to {high:.3f}, "
        f"{pairs * BLOCK} steps each), {verdict} {TARGETS[name]}"
    )
    figures = {"ratio": ratio, "low": low, "high": high, "plain, ms": plain, "profiled, ms": profiled}
    seconds = second_pass_times(keras, model, 2 if quick else 10, 3 if quick else 30)
    ratio, low, high = ratio_of_medians(seconds)
    print(
        f"{name}: a second pass with model.predict instead: ratio {ratio:.3f} (95% {low:.3f} to {high:.3f})", flush=True
    )
    return figures | {"second pass, ratio": ratio}


def measure_all(which: str, steps: int, path: Path | None, *, quick: bool) -> None:
    """Measure one or all, each in a process of its own, and write the figures of all."""
    figures = {}
    for name in TARGETS if which == "all" else [which]:
        backend = name.removesuffix("-xla")
        if importlib.util.find_spec(backend) is None:
            print(f"{name}: skipped, it is not installed")
            continue
        environment = {**os.environ, "KERAS_BACKEND": backend, "LENSAI_MEASURES": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with tempfile.TemporaryDirectory() as folder:
            answer = Path(folder) / "figures.json"
            command = [sys.executable, "-m", "benchmarks.training.keras_step", "--keras-backend", name]
            command += ["--steps", str(steps), "--json", str(answer), *(["--quick"] if quick else [])]
            if subprocess.run(command, env=environment, check=False).returncode:
                sys.exit(f"{name} failed")
            figures[name] = json.loads(answer.read_text(encoding="utf-8"))["figures"]
    results.write(path, BENCHMARK, figures)


def main() -> None:
    """Measure one backend, or start a process for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-backend", choices=[*TARGETS, "all"], default="all")
    parser.add_argument("--steps", type=int, default=200, help="steps of each kind")
    parser.add_argument("--quick", action="store_true", help="few steps: does it run")
    results.add_argument(parser)
    options = parser.parse_args()
    if options.keras_backend != "all" and "LENSAI_MEASURES" in os.environ:
        results.write(options.json, BENCHMARK, measure(options.keras_backend, options.steps, quick=options.quick))
        return
    measure_all(options.keras_backend, options.steps, options.json, quick=options.quick)


if __name__ == "__main__":
    main()
