"""All that is to be known of the package on a GPU, in one command and less than eight minutes.

    python -m benchmarks.gpu [--budget 480] [--only PART ...] [--json FILE]
    python -m benchmarks.gpu --device cpu --quick

Beyond torch, torchvision, numpy and scipy it needs array-api-compat, datasketches and lazy-loader; triton for the
kernels, jax, and keras with optree and namex for the parts of these names. What is not there is said and left out. The
parts are in the order of their importance; one that might not end within the budget does not begin. With `--json` the
figures so far are written after every part. With `--device cpu` the same code runs on tensors of the host that are
treated as a GPU's: what it says of time is worth nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts, for deterministic algorithms

import torch

from benchmarks import results
from benchmarks.gpu import (
    ceilings,
    equality,
    frameworks,
    graphs,
    overhead,
    throughput,
    waits,
)
from benchmarks.gpu.running import Part, Run, run_parts

BENCHMARK = "gpu"


def parts_of(run: Run) -> list[Part]:
    """In the order of their importance."""
    return [
        Part("ceilings", 10, ceilings.ceilings),
        Part("equal numbers", 40, equality.same_as_the_host, pretends=False),
        Part("equal bytes", 15, equality.same_bytes, pretends=False),
        Part("kernels and formulas", 20, throughput.kernels_and_formulas),
        *(Part(f"a step, batch {batch}", 60, partial(overhead.of_steps, batch=batch)) for batch in run.batches),
        Part("what a batch adds", 40, overhead.of_one_batch),
        Part("waits", 30, waits.waits),
        Part("kernels by time", 30, overhead.kernels_by_time),
        Part("copies from the host", 15, ceilings.copies),
        Part("measures", 40, throughput.measures),
        Part("bank", 20, throughput.bank),
        Part("graphs", 90, graphs.graphs),
        Part("a compiled step", 120, partial(overhead.of_steps, batch=run.batches[0], compiled=True)),
        Part("JAX", 60, frameworks.jax, pretends=False),
        Part("Keras on torch", 60, frameworks.keras_on_torch, pretends=False),
        Part("Keras on JAX", 60, frameworks.keras_on_jax, pretends=False),
        Part("the package's own tests", 60, frameworks.own_tests, gpu=True),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 1 if one failed or numbers are not equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds")
    parser.add_argument("--only", nargs="+", metavar="PART", help="names of parts")
    results.add_argument(parser)
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: no CUDA device")
        return 0
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    run = Run(device, options.quick or options.device == "cpu", options.budget)
    parts = [part for part in parts_of(run) if options.only is None or part.name in options.only]
    if options.only is not None and len(parts) < len(set(options.only)):
        parser.error(f"the parts are {', '.join(part.name for part in parts_of(run))}")
    logging.getLogger("lensai_integrations").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figures = run_parts(run, parts, lambda found: results.write(options.json, BENCHMARK, found), _say)
    failed = [name for name, found in figures.items() if isinstance(found, dict) and "error" in found]
    unequal = [
        name
        for name, found in figures.get("equal numbers", {}).items()
        if isinstance(found, dict) and found["differs in"] != "nothing"
    ]
    print(f"\nfailed: {', '.join(failed) or 'nothing'}; numbers that differ: {', '.join(unequal) or 'none'}")
    return 1 if failed or unequal else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
