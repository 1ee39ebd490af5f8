"""What profiling images adds to a loader's workers, within the default budget and without one; and whylogs.

A torch loader with two workers reads JPEGs, without `ProfileImages`, with it (`budget=0.05`), and with
`ProfileImages(budget=None)`, epochs in turns:

* `training`: photos of 463 x 384 on average are decoded, cropped (`RandomResizedCrop(224)`), flipped and normalised;
* `224 x 224`, `1024 x 768`, `CIFAR-10` (32 x 32, if they are there): JPEGs are decoded and no more.

Photos are cut from scikit-learn's two. The workers live on from epoch to epoch, and what is counted begins after the
first epoch, and where there is a budget after its first 2,000 images. Times are of the clock for an epoch, and of the
processor for the workers, in which neither waiting nor the main process is. Where an interpreter that has whylogs is
named, it logs the same files.

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
from lensai_integrations.profiling.sampling import WHOLE
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


#: What a photo goes through on its way into a training, and into nothing.
_TRAINING = (
    v2.PILToTensor(),
    v2.RandomResizedCrop(224, antialias=True),
    v2.RandomHorizontalFlip(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
_DECODING = (v2.PILToTensor(),)
#: What is sent to the main process is no part of this.
_SHRUNK = v2.CenterCrop(32)


class Files(Dataset[Any]):
    """JPEGs, decoded as RGB, and how much of the processor which worker has used so far."""

    def __init__(self, paths: Sequence[Path], transform: Any) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        with Image.open(self.paths[index]) as image:
            pixels = self.transform(image.convert("RGB"))
        worker = torch.utils.data.get_worker_info()
        return pixels, worker.id if worker else 0, time.process_time()


def generated(folder: Path, size: tuple[int, int], n: int, *, spread: float = 0.0) -> list[Path]:
    """Crops of two photos as JPEGs of quality 90.

    Args:
        folder: Where they are written.
        size: Width and height.
        n: How many.
        spread: By how much of it both are larger or smaller at random.
    """
    rng = np.random.default_rng(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    paths = []
    for i in range(n):
        width, height = (int(side * rng.uniform(0.5, 1)) for side in photos[i % 2].size)
        left, top = (
            int(rng.integers(0, whole - part + 1)) for whole, part in zip(photos[0].size, (width, height), strict=True)
        )
        paths.append(folder / f"{size[0]}-{i}.jpg")
        scaled = [round(side * rng.uniform(1 - spread, 1 + spread)) for side in size]
        photos[i % 2].crop((left, top, left + width, top + height)).resize(scaled).save(paths[-1], quality=90)
    return paths


def epoch_times(
    paths: Sequence[Path], epochs: int, pipeline: Sequence[Any], *, quick: bool = False
) -> tuple[np.ndarray, list[float]]:
    """Seconds of epochs without profiling, with a budget and with all images measured.

    Returns:
        `[epochs, 3, 2]`, by the clock and by the processor; and the share of images that is measured with a budget, and
        without.
    """
    profiled = [ProfileImages(), ProfileImages(budget=None)]
    how: dict[str, Any] = {"batch_size": 32, "num_workers": 2, "persistent_workers": True}
    how["multiprocessing_context"] = "fork"
    kinds = [[], [profiled[0]], [profiled[1]]]
    loaders = [DataLoader(Files(paths, v2.Compose([*first, *pipeline, _SHRUNK])), **how) for first in kinds]
    used: list[dict[int, float]] = [{}, {}, {}]
    for kind, loader in enumerate(loaders):  # a second epoch follows more quickly than a first
        for _ in range(1 if quick or kind != 1 else 1 + WHOLE // len(paths)):
            _epoch(loader, used[kind])
    times = np.zeros((epochs, 3, 2))
    before = [transform.profile().groups["raw"] for transform in profiled]
    for epoch in range(epochs):
        for kind in np.roll([0, 1, 2], epoch).tolist():
            times[epoch, kind] = _epoch(loaders[kind], used[kind])
    after = [transform.profile().groups["raw"] for transform in profiled]
    assert [b.seen - a.seen for a, b in zip(before, after, strict=True)] == [epochs * len(paths)] * 2
    return times, [group.info.get("sampled", {}).get("share", 1.0) for group in after]


def _epoch(loader: DataLoader[Any], used: dict[int, float]) -> tuple[float, float]:
    """Seconds of an epoch by the clock, and of the processor that its workers have used since the last one."""
    began, before = time.perf_counter(), dict(used)
    for _, workers, seconds in loader:
        for worker, second in zip(workers.tolist(), seconds.tolist(), strict=True):
            used[worker] = max(used.get(worker, 0.0), second)
    return time.perf_counter() - began, sum(used[worker] - before.get(worker, 0.0) for worker in used)


def report(
    name: str, paths: Sequence[Path], epochs: int, pipeline: Sequence[Any], whylogs: str | None, *, quick: bool = False
) -> dict[str, Any]:
    """Measure and print a few lines; the ratios and the milliseconds an image of every epoch."""
    times, shares = epoch_times(paths, epochs, pipeline, quick=quick)
    each = times / len(paths) * 1e3
    print(
        f"{name}: {epochs} epochs of {len(paths)} files, 2 workers; without profiling"
        f" {np.median(each[:, 0, 0]):.2f} ms an image by the clock, {np.median(each[:, 0, 1]):.2f} ms of a worker's"
        " processor"
    )
    figures: dict[str, Any] = {}
    for kind, (label, share) in enumerate(zip(("budget 0.05", "budget None"), shares, strict=True), start=1):
        ratios = each[:, kind] / each[:, 0]
        said = [f"{np.median(r):.3f} ({r.min():.3f} to {r.max():.3f})" for r in ratios.T]
        print(f"  {label}, 1/{round(1 / share)} measured: {said[0]} times by the clock, {said[1]} by the processor")
        figures |= {f"{label}, ratio by the clock": ratios[:, 0], f"{label}, ratio by the processor": ratios[:, 1]}
        figures[f"{label}, share"] = share
    figures |= {"without, ms by the clock": each[:, 0, 0], "without, ms of a processor": each[:, 0, 1]}
    if whylogs:
        environment = {**os.environ, "WHYLOGS_NO_ANALYTICS": "1"}
        command = [whylogs, "-c", _WHYLOGS, *map(str, paths[:20])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        theirs, both = float(done.stdout.split()[-1]) * 1e3, np.median(each[:, 2, 0])
        print(f"  whylogs {theirs:.1f} ms in one process, of which two would take half: {theirs / 2 / both:.1f} times")
    return figures


def main() -> None:
    """Measure all pipelines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of images, e.g. CIFAR-10 as JPEGs")
    parser.add_argument("--whylogs", help="a Python that has whylogs")
    parser.add_argument("--quick", action="store_true", help="few files: does it run")
    results.add_argument(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quick = options.quick
    epochs, few = (1, 20) if quick else (7, 1)
    with tempfile.TemporaryDirectory() as folder:
        photos = generated(Path(folder), (463, 384), 400 // few, spread=0.3)
        runs: dict[str, tuple[list[Path], Sequence[Any]]] = {"training": (photos, _TRAINING)}
        for size, n in (((224, 224), 400), ((1024, 768), 60)):
            runs[f"{size[0]} x {size[1]}"] = (generated(Path(folder), size, n // few), _DECODING)
        if options.data is not None:
            paths = sorted(options.data.rglob("*.jpg"))[:: 1 if not quick else 100][:2000]
            runs["CIFAR-10"] = (paths, _DECODING)
        figures = {
            name: report(name, paths, epochs, pipeline, options.whylogs, quick=quick)
            for name, (paths, pipeline) in runs.items()
        }
    results.write(options.json, "raw/delivered", figures)


if __name__ == "__main__":
    main()
