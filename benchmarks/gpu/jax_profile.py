"""A JAX array's profile on the default device beside the one of the same numbers on the host.

    python -m benchmarks.gpu.jax_profile [--quick]

The last line is JSON: where the arrays lay, how far quantiles are apart of their spread, pixels in another bin, and
milliseconds an update. Run by `benchmarks.gpu` in a process of its own, as JAX takes hold of the GPU's memory.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.profiles.profile import Profile

RANKS = np.linspace(0, 1, 21)


def main() -> None:
    """Profile both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and small batches: does it run")
    options = parser.parse_args()
    logging.getLogger("lensai_integrations").setLevel(logging.ERROR)
    rng, n, side = np.random.default_rng(0), 8 if options.quick else 64, 16 if options.quick else 64
    batch = {
        "inputs": rng.random((n, side, side, 3), np.float32),
        "outputs": rng.normal(size=(n, 10)).astype(np.float32),
        "layer": rng.normal(size=(n, 32)).astype(np.float32),
        "labels": rng.integers(0, 10, n),
    }
    steps = 3 if options.quick else 20
    host, _ = profiled(batch, lambda values: values, steps)
    device, took = profiled(batch, jnp.asarray, steps)
    found: dict[str, Any] = {"jax": jax.__version__, "devices": [str(each) for each in jax.devices()]}
    for name, one in host.groups.items():
        two = device.groups[name]
        found[name] = {"rows": [one.n, two.n]}
        if one.bank is not None and two.bank is not None:
            quantiles = one.bank.quantiles(RANKS)
            spread = np.maximum(np.ptp(quantiles, axis=1), 1e-6)[:, None]
            found[name]["quantiles"] = float(np.max(np.abs(quantiles - two.bank.quantiles(RANKS)) / spread))
        if one.pixels is not None and two.pixels is not None:
            found[name]["pixels in another bin"] = int(np.abs(one.pixels.counts - two.pixels.counts).sum() // 2)
    found["ms an update"] = took
    print(json.dumps(found))


def profiled(batch: dict[str, Any], put: Callable[[Any], Any], steps: int) -> tuple[Profile, float]:
    """The profile of a batch again and again, and the median milliseconds of an update."""
    profiler = Profiler(inputs=ImageInputs(layout="NHWC", scale=255.0), seed=[1], task="logits")
    arrays = {name: put(values) for name, values in batch.items()}
    took = []
    for _ in range(steps):
        began = time.perf_counter()
        profiler.update(
            inputs=arrays["inputs"],
            outputs=arrays["outputs"],
            embeddings={"layer": arrays["layer"]},
            labels=arrays["labels"],
        )
        took.append(1e3 * (time.perf_counter() - began))
    return profiler.profile(), float(np.median(took))


if __name__ == "__main__":
    main()
