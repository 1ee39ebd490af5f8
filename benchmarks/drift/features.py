"""What `detection.py` compares: a small ResNet's answers to CIFAR-10's test images, clean and under every shift.

The network is trained on the 10,000 training images; then each of the 5,000 test images is measured, row for row as a
profiler measures it: image measures, softmax and confidences, the 128 numbers before the classifier. One file per
shift; what is there already is not made again. With one thread the same weights come out every time.

    python -m benchmarks.drift.features [--data DIR] [--cache DIR] [--epochs 14] [--threads 1]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional
from tqdm.auto import tqdm

from lensai_integrations.measures.images import image_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import output_measures
from lensai_integrations.profiling.measuring import embedding_measurer, image_measurer, output_measurer

Bytes = NDArray[np.uint8]
#: Arrays of one shift by name: inputs, outputs, embeddings, logits `[n, D]` float32, labels `[n]`.
Features = dict[str, NDArray[Any]]

SIDE: Final = 32
CLASSES: Final = 10
WIDTHS: Final = (32, 64, 96, 128)
BATCH: Final = 128
_TRAINED = "network.npz"


class Block(nn.Module):
    """Two convolutions beside a shorter way round."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.way = nn.Sequential(
            nn.Conv2d(taken, given, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(given),
            nn.ReLU(),
            nn.Conv2d(given, given, 3, padding=1, bias=False),
            nn.BatchNorm2d(given),
        )
        self.round = nn.Conv2d(taken, given, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both ways."""
        return torch.relu(self.way(x) + self.round(x))


class Network(nn.Module):
    """ResNet-8: a convolution, three blocks, and the mean over space as the embedding `[n, 128]`."""

    def __init__(self) -> None:
        super().__init__()
        first, *widths = WIDTHS
        self.features = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            *(Block(taken, given, 1 + (i > 0)) for i, (taken, given) in enumerate(zip(WIDTHS, widths, strict=False))),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings and logits of normalised images `[n, 3, 32, 32]`."""
        features = self.features(x)
        return features, self.classifier(features)


def images_of(folder: Path) -> tuple[Bytes, NDArray[np.int64]]:
    """Images `[n, 32, 32, 3]` and classes `[n]` of a folder with a folder per class."""
    paths = sorted(folder.glob("*/*.jpg"))
    if not paths:
        raise SystemExit(f"no images in {folder}: name the folder that holds cifar10 with --data or LENSAI_TEST_DATA")
    classes = sorted({path.parent.name for path in paths})
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return images, np.array([classes.index(path.parent.name) for path in paths])


def tensor_of(images: Bytes) -> Tensor:
    """Images as the network takes them: `[n, 3, 32, 32]` around 0."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return ((pixels.float() - 122) / 64).contiguous(memory_format=torch.channels_last)


def augmented(x: Tensor, random: torch.Generator) -> Tensor:
    """Each image mirrored or not, and moved by up to 4 pixels."""
    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1, generator=random) < 0.5, x.flip(3), x)
    padded = nn.functional.pad(x, (4, 4, 4, 4), mode="reflect")
    top, left = torch.randint(0, 9, (2, n, 1), generator=random)
    rows, columns = top + torch.arange(SIDE), left + torch.arange(SIDE)
    taken = padded.permute(0, 2, 3, 1)[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return taken.permute(0, 3, 1, 2)


def train(
    images: Bytes, labels: NDArray[np.int64], epochs: int, *, smoothing: float = 0.05, augment: bool = True
) -> Network:
    """The network, trained by SGD with one cycle of the learning rate."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    network: Network = Network().to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps, pct_start=0.25)
    x, y = tensor_of(images), torch.from_numpy(labels)
    for _ in tqdm(range(epochs), "training", unit="epoch"):
        for rows in torch.randperm(len(x), generator=random)[: len(x) // BATCH * BATCH].split(BATCH):
            _, logits = network(augmented(x[rows], random) if augment else x[rows])
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, y[rows], label_smoothing=smoothing).backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def trained(data: Path, cache: Path, epochs: int) -> Network:
    """The network from the cache, or trained now and kept there."""
    path = cache / _TRAINED
    if path.exists():
        network = Network().to(memory_format=torch.channels_last)
        with np.load(path) as weights:
            network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
        return network.eval()
    network = train(*images_of(data / "cifar10" / "train"), epochs)
    kept({name: value.numpy() for name, value in network.state_dict().items()}, path)
    return network


def kept(arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """Write arrays so that a file that is there is a whole one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    Path(file.name).replace(path)


def _each(images: Bytes, change: Callable[[Tensor, np.random.Generator], Tensor]) -> Bytes:
    """Every image changed for itself, by a generator of its own number."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    changed = [change(image, np.random.default_rng([7, i])) for i, image in enumerate(x)]
    return torch.stack(changed).permute(0, 2, 3, 1).contiguous().numpy()


def each_by(change: Callable[[Tensor], Tensor]) -> Callable[[Bytes], Bytes]:
    """Every image by a transform, as `[3, 32, 32]`."""
    return lambda images: _each(images, lambda image, _: change(image))


def blur(low: float, high: float) -> Callable[[Bytes], Bytes]:
    """A Gaussian over 3 x 3 pixels, its standard deviation drawn from an interval."""
    return lambda images: _each(
        images, lambda image, rng: functional.gaussian_blur(image, [3, 3], [float(rng.uniform(low, high))])
    )


def brightness(low: float, high: float) -> Callable[[Bytes], Bytes]:
    """Every value times a factor drawn from an interval."""
    return lambda images: _each(
        images, lambda image, rng: functional.adjust_brightness(image, float(rng.uniform(low, high)))
    )


def noise(level: float) -> Callable[[Bytes], Bytes]:
    """Normal noise of this many grey levels."""

    def change(images: Bytes) -> Bytes:
        noisy = images + level * np.random.default_rng(7).standard_normal(images.shape, np.float32)
        return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)

    return change


def pixelate(images: Bytes) -> Bytes:
    """To 24 x 24 pixels and back, as CIFAR-10-C does: 0.75 times the size."""

    def change(image: Bytes) -> Bytes:
        small = Image.fromarray(image).resize((24, 24), Image.Resampling.BOX)
        return np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BOX))

    return np.stack([change(image) for image in images])


def motion_blur(images: Bytes) -> Bytes:
    """The mean along a line of five pixels, in a direction drawn for each image."""
    n, angle = len(images), torch.from_numpy(np.random.default_rng(7).uniform(0, np.pi, len(images)))
    way = torch.linspace(-2, 2, 17, dtype=torch.float64)
    grid = torch.arange(-2, 3)

    def near(place: Tensor) -> Tensor:  # [n, points, 5]: how much of a point lies on each pixel
        return (1 - (place[:, :, None] - grid).abs()).clamp(min=0)

    across, down = near(way * angle.cos()[:, None]), near(way * angle.sin()[:, None])
    kernels = torch.einsum("npy,npx->nyx", down, across).float()
    kernels = (kernels / kernels.sum((1, 2), keepdim=True)).repeat_interleave(3, 0)[:, None]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().reshape(1, 3 * n, SIDE, SIDE)
    blurred = nn.functional.conv2d(nn.functional.pad(x, (2, 2, 2, 2), mode="reflect"), kernels, groups=3 * n)
    return blurred.reshape(n, 3, SIDE, SIDE).permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).numpy()


#: What is done to the images, by the name of the shift.
SHIFTS: Final[dict[str, Callable[[Bytes], Bytes]]] = {
    "clean": lambda images: images,
    "blur easy": blur(0.1, 2.0),
    "blur weak": blur(0.1, 0.6),
    "brightness easy": brightness(0.4, 0.6),
    "brightness weak": brightness(0.9, 0.9),
    "noise 2": noise(2),
    "noise 6": noise(6),
    "noise 12": noise(12),
    "pixelate": pixelate,
    "motion blur": motion_blur,
}


@torch.no_grad()
def logits_of(network: Network, images: Bytes) -> NDArray[np.float32]:
    """What the network answers, `[n, 10]`."""
    answered: NDArray[np.float32] = np.concatenate(
        [network(tensor_of(images[i : i + 500]))[1].numpy() for i in range(0, len(images), 500)]
    )
    return answered


@torch.no_grad()
def measured(network: Network, images: Bytes, labels: NDArray[np.int64]) -> Features:
    """All that is measured of these images, a row each."""
    inputs = image_measurer(ImageInputs(layout="NHWC", scale=1), "lensai")
    outputs, reduce = output_measurer("logits"), embedding_measurer("mean", False, 2048)
    parts = []
    for i in range(0, len(images), 500):
        features, logits = (each.numpy() for each in network(tensor_of(images[i : i + 500])))
        rows = inputs(images[i : i + 500])["lensai"]["rows"], outputs(logits)["rows"], reduce(features), logits
        parts.append(rows)
    names = ("inputs", "outputs", "embeddings", "logits")
    found: Features = {
        name: np.concatenate(rows).astype(np.float32)
        for name, rows in zip(names, zip(*parts, strict=True), strict=True)
    }
    streams = {"inputs": tuple(image_measures(3)), "outputs": tuple(output_measures(CLASSES, "logits"))}
    return {**found, "labels": labels} | {f"{name}_streams": np.array(each) for name, each in streams.items()}


def file_of(cache: Path, shift: str) -> Path:
    """Where the features of a shift lie."""
    return cache / f"{shift.replace(' ', '_')}.npz"


def features(data: Path, cache: Path, epochs: int = 14, every: int = 1) -> dict[str, Features]:
    """The features of every shift, of all test images or every so many; made where they are missing."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [shift for shift in SHIFTS if not file_of(cache, shift).exists()]
    if missing:
        network = trained(data, cache, epochs)
        images, labels = images_of(data / "cifar10" / "test")
        for shift in tqdm(missing, "measuring", unit="shift"):
            found = measured(network, SHIFTS[shift](images[::every]), labels[::every])
            kept(found, file_of(cache, shift))
    return {shift: _loaded(file_of(cache, shift)) for shift in SHIFTS}


def _loaded(path: Path) -> Features:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def missing_data(data: Path, cache: Path) -> bool:
    """Whether there is neither the data nor what was made of it; said, if so."""
    made = all(file_of(cache, shift).exists() for shift in SHIFTS)
    missing = not made and not all((data / "cifar10" / part).is_dir() for part in ("train", "test"))
    if missing:
        print(f"skipped: {data} has no cifar10/train/<class>/*.jpg and cifar10/test; name its folder with --data")
    return missing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the data is, and where what is made of it is kept."""
    data = os.environ.get("LENSAI_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
    cache = Path(tempfile.gettempdir()) / "lensai_drift_features"
    parser.add_argument("--data", type=Path, default=Path(data), help="the folder that holds cifar10/train and /test")
    parser.add_argument("--cache", type=Path, default=cache, help="what takes minutes to make is kept here")


def main() -> None:
    """Make what is missing, and say how good the network is under each shift."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--threads", type=int, default=1, help="with more the weights differ in their last digits")
    options = parser.parse_args()
    if missing_data(options.data, options.cache):
        return
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    for shift, found in features(options.data, options.cache, options.epochs).items():
        accuracy = np.mean(found["logits"].argmax(1) == found["labels"])
        shapes = ", ".join(f"{name} {list(rows.shape)}" for name, rows in found.items())
        print(f"{shift:16} accuracy {accuracy:.3f}  {shapes}")
    print(f"{time.perf_counter() - began:.0f} s, in {options.cache}")


if __name__ == "__main__":
    main()
