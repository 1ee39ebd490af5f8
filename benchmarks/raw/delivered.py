"""What profiling images adds to decoding them, in loader workers, and how it compares with whylogs.

JPEGs are decoded by a torch loader with two workers, with `ProfileImages` first in the pipeline and without it, in
turns: CIFAR-10 files if they are there, and generated files of 224 x 224 and 1024 x 768 from scikit-learn's photos.
The figure is the time of an epoch with it over that without; the workers live on from epoch to epoch, and the first
epoch is not counted. Where an interpreter that has whylogs is named, it logs the same files.

    python -m benchmarks.raw.delivered [--data DIR] [--whylogs PYTHON] [--quick] [--json FILE]

For whylogs 1.6.4: `uv venv w && uv pip install --python w/bin/python "whylogs[image]==1.6.4" numpy==1.26.4
pandas==2.3.3 pillow==10.4.0 scipy==1.14.1`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import results
from lensai_integrations.transforms import ProfileImages

_WHYLOGS = """
import sys, time
from PIL import Image
from whylogs.extras.image_metric import log_image
paths = sys.argv[1:]
log_image(Image.open(paths[0]))
began = time.perf_counter()
for path in paths:
    log_image(Image.open(path).convert("RGB"))
print((time.perf_counter() - began) / len(paths))
"""


class Files(Dataset[Any]):
    """JPEGs, decoded as RGB."""

    def __init__(self, paths: Sequence[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


def generated(folder: Path, size: tuple[int, int], n: int) -> list[Path]:
    """Crops of two photos as JPEGs of quality 90."""
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    paths = []
    for i in range(n):
        width, height = (int(side * rng.uniform(0.5, 1)) for side in photos[i % 2].size)
        left, top = (
            int(rng.integers(0, whole - part + 1)) for whole, part in zip(photos[0].size, (width, height), strict=True)
        )
        paths.append(folder / f"{size[0]}-{i}.jpg")
        photos[i % 2].crop((left, top, left + width, top + height)).resize(size).save(paths[-1], quality=90)
    return paths


def epoch_times(paths: Sequence[Path], epochs: int) -> tuple[np.ndarray, ProfileImages]:
    """Seconds of epochs without and with profiling, `[epochs, 2]`."""
    profiled = ProfileImages()
    shrink = [v2.PILToTensor(), v2.CenterCrop(32)]  # what is sent to the main process is no part of this
    how: dict[str, Any] = {"batch_size": 32, "num_workers": 2, "persistent_workers": True}
    how["multiprocessing_context"] = "forkserver"
    loaders = [DataLoader(Files(paths, v2.Compose([*first, *shrink])), **how) for first in ([], [profiled])]
    times = np.zeros((epochs + 1, 2))
    for epoch in range(epochs + 1):
        for kind in (0, 1) if epoch % 2 else (1, 0):
            began = time.perf_counter()
            for _ in loaders[kind]:
                pass
            times[epoch, kind] = time.perf_counter() - began
    assert profiled.profile().groups["raw"].n == (epochs + 1) * len(paths)
    return times[1:], profiled


def report(name: str, paths: Sequence[Path], epochs: int, whylogs: str | None) -> dict[str, Any]:
    """Measure and print one line; the ratios and the milliseconds an image of every epoch."""
    times, _ = epoch_times(paths, epochs)
    ratios = times[:, 1] / times[:, 0]
    decoding, both = np.median(times, axis=0) / len(paths) * 1e3
    line = (
        f"{name}: decoding {decoding:.2f} ms an image, with profiling {both:.2f} ms, ratio {np.median(ratios):.2f}"
        f" ({ratios.min():.2f} to {ratios.max():.2f}, {epochs} epochs of {len(paths)} files, 2 workers)"
    )
    if whylogs:
        environment = {**os.environ, "WHYLOGS_NO_ANALYTICS": "1"}
        command = [whylogs, "-c", _WHYLOGS, *map(str, paths[:20])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        line += f"; whylogs {float(done.stdout.split()[-1]) * 1e3:.1f} ms in one process, of which two would take half"
        line += f": {float(done.stdout.split()[-1]) * 1e3 / 2 / both:.1f} times ours"
    print(line, flush=True)
    each = times / len(paths) * 1e3
    return {"ratio": ratios, "decoding, ms": each[:, 0], "with profiling, ms": each[:, 1]}


def main() -> None:
    """Measure all sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of images, e.g. CIFAR-10 as JPEGs")
    parser.add_argument("--whylogs", help="a Python that has whylogs")
    parser.add_argument("--quick", action="store_true", help="few files: does it run")
    results.add_argument(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    epochs, figures = 1 if options.quick else 7, {}
    with tempfile.TemporaryDirectory() as folder:
        if options.data is not None:
            paths = sorted(options.data.rglob("*.jpg"))[:: 1 if not options.quick else 100][:2000]
            figures["CIFAR-10"] = report("CIFAR-10", paths, epochs, options.whylogs)
        for size, n in (((224, 224), 400), ((1024, 768), 60)):
            paths = generated(Path(folder), size, n // 20 if options.quick else n)
            name = f"{size[0]} x {size[1]}"
            figures[name] = report(name, paths, epochs, options.whylogs)
    results.write(options.json, "raw/delivered", figures)


if __name__ == "__main__":
    main()
