"""The calls of LensAI's README with this package and with lensai-profiler 1.2.2, on the same images in the same run.

    python -m benchmarks.lensai.calls [--data DIR] [--quick] [--json FILE]

Both run the README's loop (`turns.py`), with torch and with TensorFlow, on batches of 32 float images of
160 x 160 x 3: patches of scikit-learn's two photos, or the images of a folder, resized. lensai-profiler needs older
packages than this project, so it gets environments of its own (`.benchmark-envs/`, made when missing), and every side
a process. The sides take turns, each process on one core and then as it comes; the ratio is the median of the turns'
ratios, with the least and the largest beside it. On one core a turn's time is the processor's.

lensai-profiler as it is gives its pixel sketches one row of pixels of each image, B x C values; "all pixels" gives it
B x H x W x C through its own `update_sketches`. Ours always counts all. Exit status 1 if ours is below 100 times that.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import results
from benchmarks.lensai.turns import BATCH
from benchmarks.peers import ONE_THREAD, asking, python_of

TARGET: Final = 100
SIZE: Final = 160
PEER: Final = ("lensai-profiler==1.2.2", "datasketches==5.2.0", "pillow==12.0.0")
#: By framework: the peer's environment and its packages.
FRAMEWORKS: Final = {
    "pt": ("lensai_torch", (*PEER, "torch==2.13.0")),
    "tf": ("lensai_tf", (*PEER, "tensorflow-cpu==2.15.1")),
}
QUIET: Final = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
SLOWEST: Final = ("lensai_profiler", "pixels")
#: What is timed: the package, the way, how many batches a turn has, and what the table calls it.
WAYS: Final = {
    ("lensai_profiler", "readme"): (8, "lensai-profiler, its README"),
    SLOWEST: (1, "lensai-profiler, all pixels"),
    ("lensai_integrations", "readme"): (16, "ours, the same lines"),
    ("lensai_integrations", "profiler"): (16, 'ours, `Profiler(convention="lensai-edge")`'),
    ("lensai_integrations", "bytes"): (16, "ours, `Profiler` on bytes"),
}

#: Images a second of every turn, by package and way.
Rates = dict[tuple[str, str], list[float]]
#: Wall and processor seconds of a number of batches of a way.
Timed = Callable[[str, int], tuple[float, float]]


class Setting(NamedTuple):
    """One table: a framework, and whether everything is kept to one core."""

    framework: str
    one: bool

    def __str__(self) -> str:
        return f"{'torch' if self.framework == 'pt' else 'TensorFlow'}, {'one core' if self.one else 'as it comes'}"


def photos(n: int) -> NDArray[np.uint8]:
    """Patches of scikit-learn's two photographs, `[n, 160, 160, 3]`."""
    from sklearn.datasets import load_sample_images

    both, rng = load_sample_images().images, np.random.default_rng(0)
    corners = [(rng.integers(0, 427 - SIZE), rng.integers(0, 640 - SIZE)) for _ in range(n)]
    return np.stack([both[i % 2][top : top + SIZE, left : left + SIZE] for i, (top, left) in enumerate(corners)])


def files(folder: Path, n: int) -> NDArray[np.uint8]:
    """Images of an `ImageFolder`, evenly spread over it, resized to `[n, 160, 160, 3]`."""
    from PIL import Image

    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise SystemExit(f"--data={folder} has no .jpg or .png")
    chosen = [paths[i * len(paths) // n] for i in range(n)]
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))) for path in chosen])


def process_of(package: str, setting: Setting, images: Path, stack: ExitStack) -> Timed:
    """A process of its own in which a package's ways can be timed."""
    environment = QUIET | (ONE_THREAD if setting.one else {})
    python = Path(sys.executable)
    if package == "lensai_profiler":
        python, environment = python_of(*FRAMEWORKS[setting.framework]), environment | {"PYTHONPATH": ""}
    script = Path(__file__).with_name("turns.py")
    command = [python, script, package, setting.framework, images, *(["one"] if setting.one else [])]
    ask = stack.enter_context(asking(command, environment))

    def timed(way: str, batches: int) -> tuple[float, float]:
        wall, processor = ask(f"{way} {batches}").split()
        return float(wall), float(processor)

    return timed


def rates_of(setting: Setting, processes: Mapping[str, Timed], turns: int, *, quick: bool) -> Rates:
    """Images a second of every way; the ways alternate. The first turn of each warms it up and is not counted."""
    rates: Rates = {key: [] for key in WAYS if key[0] in processes}
    for turn in range(turns + 1):
        print(f"\r{setting}: turn {turn} of {turns} ", end="", file=sys.stderr, flush=True)
        for (package, way), found in rates.items():
            batches = 1 if quick else WAYS[package, way][0]
            seconds = processes[package](way, batches)[int(setting.one)]
            found.extend([batches * BATCH / seconds] if turn else [])
    print(file=sys.stderr)
    return rates


def spread(values: Any) -> str:
    """Median, least and largest."""
    middle, least, most = np.median(values), np.min(values), np.max(values)
    text = [f"{value:.1f}" if value < 20 else f"{value:,.0f}" for value in (middle, least, most)]
    return f"{text[0]} ({text[1]} to {text[2]})"


def ratios(rates: Rates) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Of each way to the peer that sketches all pixels, turn by turn."""
    return {key: np.divide(each, rates[SLOWEST]) for key, each in rates.items()} if SLOWEST in rates else {}


def table(setting: Setting, rates: Rates) -> str:
    """The Markdown table of one setting."""
    found = ratios(rates)
    lines = [f"| {setting} | images a second | times all pixels |", "|---|---|---|"]
    for key, each in rates.items():
        lines.append(f"| {WAYS[key][1]} | {spread(each)} | {spread(found[key]) if key in found else ''} |")
    return "\n".join(lines)


def measured(images: NDArray[np.uint8], setting: Setting, turns: int, *, peer: bool, quick: bool) -> Rates:
    """The rates of one setting."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "images.npy"
        np.save(path, images)
        packages = ["lensai_integrations", *(["lensai_profiler"] if peer else [])]
        processes = {package: process_of(package, setting, path, stack) for package in packages}
        return rates_of(setting, processes, turns, quick=quick)


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an ImageFolder; by default patches of two photos")
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS), help="of pt,tf")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--no-peer", action="store_true", help="without lensai-profiler: does it run")
    parser.add_argument("--quick", action="store_true", help="one batch a turn")
    results.add_argument(parser)
    options = parser.parse_args(arguments)
    n = BATCH if options.quick else 4 * BATCH
    images = photos(n) if options.data is None else files(options.data, n)
    result, reached = {}, True
    for setting in (Setting(name, one) for name in options.frameworks.split(",") for one in (True, False)):
        rates = measured(images, setting, options.turns, peer=not options.no_peer, quick=options.quick)
        print(f"\n{table(setting, rates)}", flush=True)
        result[str(setting)] = {" ".join(key): each for key, each in rates.items()}
        if not options.no_peer:
            times = float(np.median(ratios(rates)["lensai_integrations", "readme"]))
            reached = reached and times >= TARGET
            word = "met" if times >= TARGET else "MISSED"
            print(f"\nthe same lines, all pixels: {times:.0f} times as fast; {TARGET} times: {word}", flush=True)
    print(
        f"\n{n} images, {options.turns} turns; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    results.write(options.json, "lensai/calls", result)
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
