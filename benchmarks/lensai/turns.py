"""Turns over images with the calls of LensAI's README; runs in a process of its own, started by `calls.py`.

    python turns.py lensai_profiler|lensai_integrations tf|pt IMAGES.npy [one]

Each line read is a way (`readme`, `pixels`, `profiler`, `bytes`) and a number of batches; it is answered with the
seconds they took, on the wall and of the processor. `one` keeps the process on one core. Needs numpy, Pillow,
the framework and the package named, nothing else.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from itertools import cycle, islice
from typing import Any

import numpy as np

BATCH = 32
CHANNELS = 3

#: Takes in that many batches.
Turn = Callable[[int], None]


def keep_to_one_core() -> None:
    """One core for all threads of this process, before a framework counts them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def torch_batches(images: np.ndarray) -> list[Any]:
    """As `DataLoader` with `ToTensor` gives them: float32 `[32, C, H, W]` in [0, 1]."""
    import torch

    return list(torch.from_numpy(images).permute(0, 3, 1, 2).to(torch.float32).div(255).contiguous().split(BATCH))


def tensorflow_batches(images: np.ndarray) -> Any:
    """As `image_dataset_from_directory` gives them: a dataset of float32 `[32, H, W, C]` in [0, 255], for ever."""
    import tensorflow as tf

    floats = images.astype(np.float32).reshape(-1, BATCH, *images.shape[1:])
    return tf.data.Dataset.from_tensor_slices(floats).repeat()


def measured(framework: str, images: np.ndarray, process_batch: Callable[[Any], Any]) -> Callable[[int], Iterable[Any]]:
    """What `process_batch` answers of a number of batches, called as the README has it for the framework."""
    if framework == "pt":
        batches = cycle(torch_batches(images))
        return lambda n: (process_batch(batch) for batch in islice(batches, n))
    import tensorflow as tf

    dataset = tensorflow_batches(images).map(process_batch, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.take


def readme(package: Any, framework: str, images: np.ndarray, *, all_pixels: bool) -> Turn:
    """The README's loop. `all_pixels` gives the pixel sketches `[n * H * W, C]`, whose second axis are channels."""
    answers = measured(framework, images, package.Metrics(framework=framework).process_batch)
    sketches = package.Sketches()
    for name in ("brightness", "sharpness", "noise"):
        sketches.register_metric(name)
    sketches.register_metric("mean", num_channels=CHANNELS)
    sketches.register_metric("pixel", num_channels=CHANNELS)

    def turn(n: int) -> None:
        for brightness, sharpness, mean, noise, pixel in answers(n):
            every = import_module("tensorflow").reshape if framework == "tf" else import_module("torch").reshape
            pixels = every(pixel, (-1, CHANNELS)) if all_pixels else pixel
            sketches.update_sketches(brightness=brightness, sharpness=sharpness, mean=mean, noise=noise, pixel=pixels)

    return turn


def profiler(batches: Callable[[int], Iterable[Any]]) -> Turn:
    """Our `Profiler`, which keeps what `compare` needs as well."""
    from lensai_integrations import Profiler

    made = Profiler(convention="lensai-edge")

    def turn(n: int) -> None:
        for batch in batches(n):
            made.update(inputs=batch)

    return turn


def turns(name: str, framework: str, images: np.ndarray) -> dict[str, Turn]:
    """The ways of a package, by name."""
    package = import_module(name)
    if name == "lensai_profiler":
        return {
            "readme": readme(package, framework, images, all_pixels=False),
            "pixels": readme(package, framework, images, all_pixels=True),
        }
    byte_batches = cycle(list(images.reshape(-1, BATCH, *images.shape[1:])))
    floats = measured(framework, images, lambda batch: batch)
    return {
        "readme": readme(package, framework, images, all_pixels=False),
        "profiler": profiler(floats),
        "bytes": profiler(lambda n: islice(byte_batches, n)),
    }


def main() -> None:
    """Answer what is asked, until there is nothing more."""
    if len(sys.argv) < 4:
        print(__doc__)
        return
    if "one" in sys.argv[4:]:
        keep_to_one_core()
    import_module("PIL.Image")  # the README's loaders have loaded it
    ways = turns(*sys.argv[1:3], np.load(sys.argv[3]))
    print("ready", flush=True)
    for line in sys.stdin:
        way, batches = line.split()
        began, spent = time.perf_counter(), time.process_time()
        ways[way](int(batches))
        print(time.perf_counter() - began, time.process_time() - spent, flush=True)


if __name__ == "__main__":
    main()
