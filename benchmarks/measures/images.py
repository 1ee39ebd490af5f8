"""All image measures with exact pixel counts and their bank, beside whylogs' `log_image`, in the same run.

    python -m benchmarks.measures.images [--quick] [--device cuda] [--json FILE]

224 x 224 RGB patches of two photographs. whylogs 1.6.4 needs older packages than this project, so it gets an
environment of its own (`.benchmark-envs/whylogs`, made when missing) and a process of its own, one image per call, as
`log_image` takes them. The two take turns; the ratio is the median of the turns' ratios, with the least and the largest
beside it. Time on a CPU is each process's own, of one thread. Images in host memory are measured by the loop that numba
compiles; two lines say what it takes without numba. Exit status 1 if uint8 NCHW is below 40 times whylogs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from benchmarks.peers import ONE_THREAD, asking, python_of

os.environ.update(ONE_THREAD)

import numpy as np

from benchmarks import results
from lensai_integrations.measures import one_pass
from lensai_integrations.measures.images import image_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiling.measuring import image_measurer
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.counts import PixelCounts

TARGET = 40
SIZE, BATCH = 224, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PACKAGES = ("whylogs==1.6.4", "numpy==1.26.4", "scipy==1.14.1", "pandas==2.3.3", "Pillow==10.4.0")
PEER = """
import logging, sys, time
logging.disable(logging.CRITICAL)
import numpy
from PIL import Image
from whylogs.extras.image_metric import log_image
images = [Image.fromarray(pixels) for pixels in numpy.load(sys.argv[1])]
log_image(images[0])
print("ready", flush=True)
for line in sys.stdin:
    start = time.process_time()
    for i in range(int(line)):
        log_image(images[i % len(images)])
    print(time.process_time() - start, flush=True)
"""


def patches(n: int) -> np.ndarray:
    """Patches of scikit-learn's two photographs, uint8 `[n, 224, 224, 3]`."""
    from sklearn.datasets import load_sample_images

    photos, rng = load_sample_images().images, np.random.default_rng(0)
    corners = [(rng.integers(0, 427 - SIZE), rng.integers(0, 640 - SIZE)) for _ in range(n)]
    return np.stack([photos[i % 2][top : top + SIZE, left : left + SIZE] for i, (top, left) in enumerate(corners)])


WITHOUT = ", without numba"


def variants(images: np.ndarray, device: str) -> dict[str, tuple[np.ndarray, ImageInputs, tuple[str, ...], int]]:
    """What is timed: the pixels, how they are read, the conventions, and the images of a batch, by name."""
    first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    floats = first.astype(np.float32) / 255
    normalized = (floats - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    undo = ImageInputs(mean=MEAN, std=STD)
    timed: dict[str, tuple[np.ndarray, ImageInputs, tuple[str, ...], int]] = {
        "uint8 NCHW": (first, ImageInputs(), ("lensai",), BATCH),
        "uint8 NHWC": (images, ImageInputs(), ("lensai",), BATCH),
        "float32 NCHW in [0, 1]": (floats, ImageInputs(), ("lensai",), BATCH),
        "float32 NCHW normalised": (normalized.astype(np.float32), undo, ("lensai",), BATCH),
        "uint8 NCHW, lensai-edge": (first, ImageInputs(), ("lensai-edge",), BATCH),
        "uint8 NCHW, both": (first, ImageInputs(), ("lensai", "lensai-edge"), BATCH),
        "normalised, both": (normalized.astype(np.float32), undo, ("lensai", "lensai-edge"), BATCH),
    }
    if device == "cpu":
        timed |= {
            "uint8 NHWC, one by one": (images, ImageInputs(), ("lensai",), 1),
            "uint8 NCHW" + WITHOUT: timed["uint8 NCHW"],
            "normalised" + WITHOUT: timed["float32 NCHW normalised"],
        }
    return timed


def profile(batches: list[Any], inputs: ImageInputs, conventions: tuple[str, ...]) -> Callable[[], None]:
    """One turn over the batches: measures into banks, pixels into counts."""
    measure, counts = image_measurer(replace(inputs, key=None), *conventions), PixelCounts(3)
    banks = {name: KLLBank(len(image_measures(3, name)), seed=0) for name in conventions}

    def turn() -> None:
        for batch in batches:
            for name, measured in measure(batch).items():
                banks[name].update(measured["rows"])
                counts.add(measured["counts"], measured.get("counted", len(batch)))

    return turn


def without_numba(turn: Callable[[], None]) -> Callable[[], None]:
    """The same, by the formulas that measure images where numba is not installed."""

    def without() -> None:
        with mock.patch.object(one_pass, "_adder", return_value=None):
            turn()

    return without


def seconds(turn: Callable[[], None], wait: Callable[[], Any] | None) -> float:
    """Time of one turn; the accelerator's own work is waited for, if there is one."""
    clock = time.perf_counter if wait else time.process_time
    start = clock()
    turn()
    if wait:
        wait()
    return clock() - start


@contextmanager
def whylogs(images: np.ndarray) -> Iterator[Callable[[int], float]]:
    """A process that logs images with whylogs when asked to and answers with the time it took."""
    python = python_of("whylogs", PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/images.npy", images)
        command = [python, "-c", PEER, f"{folder}/images.npy"]
        with asking(command, {**ONE_THREAD, "WHYLOGS_NO_ANALYTICS": "1"}) as ask:
            yield lambda n: float(ask(str(n)))


def on_cuda(batches: list[np.ndarray]) -> list[Any]:
    """The batches on the GPU."""
    import torch

    return [torch.from_numpy(batch).cuda() for batch in batches]


def compare(device: str, n: int, turns: int) -> tuple[bool, dict[str, Any]]:
    """One line per variant; whether the first reaches the target, and images a second and ratios of every turn."""
    images, wait = patches(n), None
    timed = {}
    for name, (pixels, inputs, conventions, together) in variants(images, device).items():
        batches = np.split(pixels, n // together)
        batches = on_cuda(batches) if device == "cuda" else batches
        turn = profile(batches, inputs.resolve(batches[0]), conventions)
        timed[name] = without_numba(turn) if name.endswith(WITHOUT) else turn
    if device == "cuda":
        import torch

        wait = torch.cuda.synchronize
        torch.cuda.set_sync_debug_mode("error")  # from here on, a turn that would wait for the GPU raises
    for turn in timed.values():
        turn()
    theirs: list[float] = []
    ours: dict[str, list[float]] = {name: [] for name in timed}
    few = max(8, n // 8)
    with whylogs(images) as log:
        for i in range(turns):
            print(f"\rturn {i + 1} of {turns} ", end="", file=sys.stderr, flush=True)
            theirs.append(few / log(few))
            for name, turn in timed.items():
                ours[name].append(n / seconds(turn, wait))
    print(f"\n\n{SIZE} x {SIZE} RGB in batches of {BATCH} on {device}, {turns} turns of {n} ({few} for whylogs)\n")
    print(f"{'':<26} {'images/s':>9} {'ms/image':>9} {'ns/pixel':>9} {'times whylogs':>14} {'least':>7} {'most':>7}")
    line("whylogs 1.6.4 log_image", theirs, theirs)
    for name, rates in ours.items():
        line(name, rates, theirs)
    reached = float(np.median(np.divide(ours["uint8 NCHW"], theirs))) >= TARGET
    print(f"\ntarget, {TARGET} times whylogs: {'met' if reached else 'MISSED'}")
    figures = {name: {"images/s": rates, "times whylogs": np.divide(rates, theirs)} for name, rates in ours.items()}
    return reached, {"whylogs": {"images/s": theirs}, **figures}


def line(name: str, rates: list[float], theirs: list[float]) -> None:
    """Median rate, and the ratio's median, least and largest."""
    rate, ratios = float(np.median(rates)), np.divide(rates, theirs)
    middle, least, most = np.median(ratios), ratios.min(), ratios.max()
    cost = f"{1000 / rate:9.2f} {1e9 / rate / SIZE**2:9.1f}"
    print(f"{name:<26} {rate:9.0f} {cost} {middle:13.1f}x {least:6.1f}x {most:6.1f}x")


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the images lie")
    parser.add_argument("--quick", action="store_true", help="fewer images and turns")
    results.add_argument(parser)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not results.has_cuda():
        print("skipped: torch finds no CUDA device here")
        return 0
    reached, figures = compare(arguments.device, *((64, 3) if arguments.quick else (256, 9)))
    results.write(arguments.json, "measures/images", figures)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
