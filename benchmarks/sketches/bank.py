"""KLLBank beside `datasketches.vector_of_kll_floats_sketches`: time per value and rank error, in the same run.

    python -m benchmarks.sketches.bank [--quick] [--device cuda] [--only speed|error] [--json FILE]

Time is the process's own, of one thread; the two take turns, and the ratio is the median of the turns' ratios with the
least and the largest beside it. The rank error of a stream is the largest over 99 ranks: how far the rank asked for is
from the true ranks of the quantile answered. Exit status 1 if a target is missed: 5 times as fast on every line, and
no larger an error (mean and 99th percentile of 200 streams) of the bank and of its bytes as datasketches reads them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import datasketches  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import results  # noqa: E402
from lensai_integrations.sketches.bank import KLLBank  # noqa: E402

RANKS = np.arange(1, 100) / 100
DIMS, BATCHES = (128, 512, 2048), (64, 256)
STREAMS, GROUP = 200, 25
SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "normal": lambda rows: rows,
    "lognormal": np.exp,
    "sorted": lambda rows: np.sort(rows, axis=0),
    "constant": np.ones_like,
    "heavily tied": np.round,
}


def seconds(update: Callable[[Any], Any], batches: list[Any], rows: int, wait: Callable[[], Any] | None) -> float:
    """Time to take in so many rows; the accelerator's own work is waited for, if there is one."""
    clock = time.perf_counter if wait else time.process_time
    start, done = clock(), 0
    while done < rows:
        for batch in batches:
            update(batch)
            done += len(batch)
    if wait:
        wait()
    return clock() - start


def speed(device: str, rows: int, turns: int) -> tuple[bool, dict[str, Any]]:
    """One line per dim and batch size; whether each is at least 5 times as fast as datasketches, and the figures."""
    put, wait = on_cuda() if device == "cuda" else (lambda batch: batch, None)
    print(f"\nSpeed on {device}, {rows} rows, {turns} turns\n")
    print(
        f"{'dim':>5} {'batch':>6} {'datasketches':>14} {'KLLBank':>12} {'times as fast':>15} {'least':>7} {'most':>7}"
    )
    good, figures = True, {}
    for dim, size in [(dim, size) for dim in DIMS for size in BATCHES]:
        pool = np.random.default_rng(0).standard_normal((8192 // size, size, dim)).astype(np.float32)
        host, batches = list(pool), [put(batch) for batch in pool]
        took = []
        for _ in range(turns):
            theirs = seconds(datasketches.vector_of_kll_floats_sketches(200, dim).update, host, rows, None)
            ours = seconds(KLLBank(dim, seed=0).update, batches, rows, wait)
            took.append((theirs, ours))
        theirs_ns, ours_ns = np.median(took, axis=0) * 1e9 / (rows * dim)
        ratios = [theirs / ours for theirs, ours in took]
        good &= float(np.median(ratios)) >= 5
        figures[f"{dim} streams, batches of {size}"] = {"ns a value": ours_ns, "times as fast": ratios}
        print(
            f"{dim:5} {size:6} {theirs_ns:11.1f} ns {ours_ns:9.2f} ns {np.median(ratios):14.1f}x"
            f" {min(ratios):6.1f}x {max(ratios):6.1f}x",
            flush=True,
        )
    return good, figures


def on_cuda() -> tuple[Callable[[np.ndarray], Any], Callable[[], Any]]:
    """How to put a batch on the GPU and how to wait for it. Updates that would wait themselves raise."""
    import torch

    torch.cuda.set_sync_debug_mode("error")

    def put(batch: np.ndarray) -> Any:
        return torch.from_numpy(batch).pin_memory().to("cuda", non_blocking=True)

    return put, torch.cuda.synchronize


def largest_errors(quantiles: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """Per stream, of quantiles `[dim, 99]` and sorted rows `[n, dim]`."""
    errors = []
    for values, column in zip(quantiles, ordered.T, strict=True):
        low = np.searchsorted(column, values, side="left") / len(column)
        high = np.searchsorted(column, values, side="right") / len(column)
        errors.append(np.maximum(0, np.maximum(low - RANKS, RANKS - high)).max())
    return np.array(errors)


def group_errors(shape: str, n: int) -> Iterator[np.ndarray]:
    """Largest errors `[3, GROUP]` of datasketches, of the bank, and of its bytes, group by group of streams."""
    for group in range(STREAMS // GROUP):
        rows = SHAPES[shape](np.random.default_rng(group).standard_normal((n, GROUP), np.float32))
        theirs, ours = datasketches.vector_of_kll_floats_sketches(200, GROUP), KLLBank(GROUP, seed=group)
        for start in range(0, n, 1000):
            theirs.update(rows[start : start + 1000])
            ours.update(rows[start : start + 1000])
        read = [datasketches.kll_floats_sketch.deserialize(blob) for blob in ours.to_bytes()]
        reference = [datasketches.kll_floats_sketch.deserialize(blob) for blob in theirs.serialize()]
        columns = np.ascontiguousarray(rows.T)
        columns.sort(axis=1)
        yield np.stack(
            [
                largest_errors(np.array([each.get_quantiles(RANKS, True) for each in reference]), columns.T),
                largest_errors(ours.quantiles(RANKS), columns.T),
                largest_errors(np.array([each.get_quantiles(RANKS, True) for each in read]), columns.T),
            ]
        )


def error(sizes: tuple[int, ...]) -> tuple[bool, dict[str, Any]]:
    """One line per n and shape; whether no mean or 99th percentile is above that of datasketches, and the figures."""
    print(f"\nLargest rank error over 99 ranks, in %, mean / 99th percentile of {STREAMS} streams\n")
    print(f"{'n':>8}  {'rows':<13} {'datasketches':>15} {'KLLBank':>15} {'its bytes, read':>16}  no larger")
    good, figures = True, {}
    for n, shape in [(n, shape) for n in sizes for shape in SHAPES]:
        errors = np.concatenate(list(group_errors(shape, n)), axis=1)
        summary = np.stack([errors.mean(axis=1), np.quantile(errors, 0.99, axis=1)], axis=1)
        holds = bool((summary[1:] <= summary[0]).all())
        good &= holds
        names = ("datasketches", "KLLBank", "its bytes")
        rows = {name: {"mean": mean, "99%": tail} for name, (mean, tail) in zip(names, summary, strict=True)}
        figures[f"{shape}, {n} rows"] = rows
        cells = [f"{mean:.3f} / {tail:.3f}" for mean, tail in summary * 100]
        print(
            f"{n:8}  {shape:<13} {cells[0]:>15} {cells[1]:>15} {cells[2]:>16}  {'yes' if holds else 'NO'}", flush=True
        )
    return good, figures


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where KLLBank's rows lie")
    parser.add_argument("--only", choices=["speed", "error"], help="one of the two parts")
    parser.add_argument("--quick", action="store_true", help="fewer rows and turns, n up to 50,000")
    results.add_argument(parser)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not results.has_cuda():
        print("skipped: torch finds no CUDA device here")
        return 0
    good, figures = [], {}
    if arguments.only != "error":
        met, figures["speed"] = speed(arguments.device, *((24_576, 3) if arguments.quick else (49_152, 7)))
        good.append(met)
    if arguments.only != "speed" and arguments.device == "cpu":
        met, figures["error"] = error((1000, 50_000) if arguments.quick else (1000, 50_000, 1_000_000))
        good.append(met)
    results.write(arguments.json, "sketches/bank", figures)
    print("\nall targets met" if all(good) else "\na target was missed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
