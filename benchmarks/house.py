"""How the package is laid out, and through how much of it a batch, a comparison, a window and an upload run.

    python benchmarks/house.py [--json] [--only files|runs]

The files are counted by reading them, the runs by tracing: every function of the package that is called once a first
batch, comparison, window or upload has loaded and decided what is loaded and decided once. Only public names are used,
so that two layouts can be held side by side; `PYTHONPATH=OTHER python benchmarks/house.py` counts another working tree.
"""

from __future__ import annotations

import argparse
import ast
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

import numpy as np

PACKAGE: Final = "lensai_integrations"
ROOT: Final = Path(str(getattr(find_spec(PACKAGE), "origin", None) or f"{PACKAGE} is not installed")).parent


# -- what the files are


def layout() -> dict[str, Any]:
    """Counts of files, lines, names and importers, and the lists behind them."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(ROOT.rglob("*.py"))}
    lines = {path: len(path.read_text().splitlines()) for path in trees}
    importers = _importers(trees)
    once = sorted(name for name, by in importers.items() if len(by) == 1)
    basenames = Counter(path.name for path in trees if path.name != "__init__.py")
    shared = sorted(_name(path) for path in trees if basenames[path.name] > 1)
    classes = Counter(node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    functions = [
        node.end_lineno - node.lineno + 1  # type: ignore[operator]
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {
        "files": len(trees),
        "lines": sum(lines.values()),
        "file lines, median": median(lines.values()),
        "file lines, ninth decile": quantiles(lines.values(), n=10)[-1],
        "functions": len(functions),
        "function lines, median": median(functions),
        "function lines, most": max(functions),
        "modules at the top level": sum(path.parent == ROOT and path.name != "__init__.py" for path in trees),
        "modules with one importer": once,
        "modules that share a basename": shared,
        "classes": sum(classes.values()),
        "class names that exist twice": sorted(name for name, count in classes.items() if count > 1),
    }


def _name(path: Path) -> str:
    """What a file is imported as, within the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _importers(trees: dict[Path, ast.Module]) -> dict[str, set[str]]:
    """By module that is no `__init__`, which others of the package import it: anywhere in them, or for types only."""
    modules = {_name(path): path for path in trees}
    importers: dict[str, set[str]] = {name: set() for name, path in modules.items() if path.name != "__init__.py"}
    for importer, path in modules.items():
        for node in ast.walk(trees[path]):
            for name in _imported(node):
                if name in importers and name != importer:
                    importers[name].add(importer)
    return importers


def _imported(node: ast.AST) -> Iterator[str]:
    """Names within the package that a statement imports: of modules, and of what is in them."""
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    yield from (name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}."))


# -- what a run goes through


class Trace:
    """The functions of the package that are called while it is on, in all threads that were started under it."""

    def __init__(self) -> None:
        self.called: set[tuple[str, str, int]] = set()
        self.on = False

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        """For `sys.setprofile`. Comprehensions are no functions: in some versions of Python they have no frame."""
        code = frame.f_code
        if self.on and event == "call" and code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<"):
            self.called.add((code.co_filename, code.co_qualname, code.co_firstlineno))

    def counts(self) -> dict[str, int]:
        """How many files and functions it was."""
        return {"files": len({file for file, _, _ in self.called}), "functions": len(self.called)}


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Tracing of this thread, and of those that begin meanwhile."""
    threading.setprofile(trace)
    sys.setprofile(trace)
    trace.on = True
    try:
        yield
    finally:
        trace.on = False
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def images(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Noise: `[n, 16, 16, 3]` uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


def batch(n: int, seed: int = 0) -> dict[str, Any]:
    """Images, the answers of a classifier, a layer's and labels."""
    rng = np.random.default_rng(seed)
    answers = {"outputs": rng.normal(size=(n, 4)), "embeddings": {"pool": rng.normal(size=(n, 8))}}
    return {"inputs": images(n, seed), **answers, "labels": rng.integers(0, 4, n)}


def profiled(n: int, seed: int = 0, source: str = "validation", **settings: Any) -> Any:
    """A profile of such a batch."""
    from lensai_integrations import Profiler

    profiler = Profiler(source=source, seed=seed, **settings)
    profiler.update(**batch(n, seed))
    return profiler.profile()


def comparison(*, calibrated: bool) -> dict[str, int]:
    """One `compare`."""
    from lensai_integrations import Baseline, calibrate, compare

    reference = profiled(200)
    baseline = calibrate(reference, draws=100) if calibrated else Baseline(reference)
    window, trace = profiled(100, 1, "production"), Trace()
    compare(baseline, window)
    with traced(trace):
        compare(baseline, window)
    return trace.counts()


def window() -> dict[str, int]:
    """The batches of one window of a monitor that keeps its state on disk, and its verdict."""
    from lensai_integrations import DriftMonitor

    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        monitor = DriftMonitor(profiled(200), window=60, sinks=[_ignore], state=folder)
        with monitor:
            monitor.update(**batch(60, 1))
            with traced(trace):
                reports = [report for seed in (2, 3) for report in monitor.update(**batch(30, seed))]
    assert len(reports) == 1, reports
    return trace.counts()


def _ignore(_: Any) -> None:
    """A sink."""


def lightning_batch() -> dict[str, int]:
    """The second validation batch of a fit with a `BaselineCallback`, from its start to its end."""
    import pytorch_lightning as pl
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from lensai_integrations.lightning import BaselineCallback

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.log("loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trace = Trace()

    class Begin(pl.Callback):
        def on_validation_batch_start(
            self, trainer: Any, module: Any, batch: Any, number: int, loader: int = 0
        ) -> None:
            if number == 1:
                trace.on = True
                sys.setprofile(trace)

    class End(pl.Callback):
        def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
            sys.setprofile(None)
            trace.on = False

    pixels = torch.from_numpy(images(96)).permute(0, 3, 1, 2).float() / 255
    data = DataLoader(TensorDataset(pixels, torch.arange(96) % 4), batch_size=32)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the fit's own settings
        callbacks = [Begin(), BaselineCallback(directory=folder, clean_windows=0), End()]
        trainer = pl.Trainer(
            max_epochs=1, callbacks=callbacks, accelerator="cpu", num_sanity_val_steps=0, enable_model_summary=False,
            **quiet,
        )  # fmt: skip
        trainer.fit(Classifier(), data, data)
    return trace.counts()


def upload() -> dict[str, int]:
    """The second upload of a sensor to `lensai serve`, until it is merged; the server is a process of its own."""
    from lensai_integrations import Baseline, edge

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Baseline(profiled(200, convention="lensai-edge")).save(folder / "baseline")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        told = folder / "counts.json"
        options = ["serve", "--baseline", f"{folder}/baseline", "--store", f"{folder}/store", "--port", str(port)]
        command = [sys.executable, __file__, "--as-server", str(told), *options, "--no-tokens", "--no-reports"]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
            try:
                _wait(lambda: _asked(port, "healthz"), server)
                began = int(time.time()) - 7000
                for number in range(2):
                    if number:
                        os.kill(server.pid, signal.SIGUSR1)
                    images_of_a_device = profiled(100, number, convention="lensai-edge")
                    edge.publish(
                        images_of_a_device,
                        f"http://127.0.0.1:{port}/upload/",
                        "door",
                        timestamp=began + number,
                        spool=None,
                    )
                    _wait(lambda: "\nlensai_uploads_pending 0" in _asked(port, "metrics"), server)
            finally:
                server.terminate()
        return dict(json.loads(told.read_text()))


def _asked(port: int, page: str) -> str:
    """What the server answers; empty if it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _wait(until: Any, server: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    """Until something is so."""
    end = time.monotonic() + seconds
    while not until():
        if server.poll() is not None or time.monotonic() > end:
            raise SystemExit("lensai serve did not start, or did not settle")
        time.sleep(0.05)


def serve(told: str, arguments: list[str]) -> None:
    """`lensai ...` under a trace that begins at SIGUSR1; what it has counted is in a file at the end."""
    from lensai_integrations.cli import cli

    trace = Trace()
    signal.signal(signal.SIGUSR1, lambda *_: setattr(trace, "on", True))
    threading.setprofile(trace)
    sys.setprofile(trace)
    try:
        cli(arguments, standalone_mode=False)
    finally:
        sys.setprofile(None)
        Path(told).write_text(json.dumps(trace.counts()))


RUNS: Final = {
    "a validation batch of Lightning": lightning_batch,
    "a compare by formulas": lambda: comparison(calibrated=False),
    "a compare by calibration": lambda: comparison(calibrated=True),
    "a window of a monitor": window,
    "an upload to the receiver": upload,
}


def main() -> None:
    """Count and print."""
    if "--as-server" in sys.argv:
        serve(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="all of it as JSON, with the lists")
    parser.add_argument("--only", choices=["files", "runs"], help="one half of it")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {} if options.only == "runs" else {"layout": layout()}
    if options.only != "files":
        found["runs"] = {name: run() for name, run in RUNS.items()}
    print(json.dumps({"package": str(ROOT), **found}, indent=1) if options.json else _table(found))


def _table(found: dict[str, Any]) -> str:
    lines = [
        f"{name:34} {len(value) if isinstance(value, list) else value:8,.0f}"
        for name, value in found.get("layout", {}).items()
    ]
    runs = found.get("runs", {})
    lines += [f"\n{'run through':34} {'files':>8} {'functions':>10}"] if runs else []
    lines += [f"{name:34} {run['files']:8} {run['functions']:10}" for name, run in runs.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
