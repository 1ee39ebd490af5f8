"""Baselines to draw: of real photos, of hostile names, and a browser to look at them with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from browser import launched
from sklearn.datasets import load_sample_images

from lensai_integrations import Baseline, Profile, Profiler

PATCH = 32
#: A name as an attacker would choose it.
HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=2>{{7*7}}<!--"


def photo_patches() -> np.ndarray[Any, Any]:
    """scikit-learn's two photos as uint8 patches `[520, 32, 32, 3]`, shuffled."""
    patches = [
        image[top : top + PATCH, left : left + PATCH]
        for image in load_sample_images().images
        for top in range(0, image.shape[0] - PATCH + 1, PATCH)
        for left in range(0, image.shape[1] - PATCH + 1, PATCH)
    ]
    return np.random.default_rng(0).permutation(np.stack(patches))


def photo_profile(images: np.ndarray[Any, Any], source: str, **settings: Any) -> Profile:
    """A profile of images with what a fixed random two-layer network answers to them; 3 of its 40 units are dead."""
    rng = np.random.default_rng(5)
    first, second = rng.normal(0, 1, (48, 40)), rng.normal(0, 1, (40, 5))
    blocks = images.reshape(len(images), 4, 8, 4, 8, 3).mean((2, 4)).reshape(len(images), 48) / 255
    hidden = np.maximum((blocks - 0.5) @ first, 0).astype(np.float32)
    hidden[:, [3, 17, 30]] = 0
    profiler = Profiler(source=source, seed=len(images), **settings)
    profiler.describe("outputs", layer="fc")
    logits = (hidden @ second).astype(np.float32)
    profiler.update(inputs=images, outputs=logits, embeddings={"avgpool": hidden}, labels=logits.argmax(1) // 2)
    return profiler.profile()


@pytest.fixture(scope="session")
def photos() -> Baseline:
    """A baseline of real pixels, whose training patches are brighter and harder."""
    patches = photo_patches()
    training = np.clip(patches[220:] * 1.3 - 10, 0, 255).astype(np.uint8)
    reference = photo_profile(patches[:220], "validation")
    return Baseline(
        reference, photo_profile(training, "training"), {"epoch": 4, "created": "2026-03-01T09:05:59+00:00"}
    )


@pytest.fixture(scope="session")
def hostile() -> Baseline:
    """A baseline in which every text that a model, a data set or a manifest may choose is an attack."""
    rng = np.random.default_rng(0)
    profiler = Profiler(source=HOSTILE)
    profiler.describe("outputs", layer=HOSTILE, kind=HOSTILE)
    profiler.describe("labels", read_from=HOSTILE)
    profiler.describe(f"embeddings/{HOSTILE}", layer=HOSTILE, reduce=HOSTILE, axes=2)
    profiler.update(
        inputs=rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
        outputs=rng.normal(0, 1, (40, 3)).astype(np.float32),
        embeddings={HOSTILE: rng.normal(0, 1, (40, 6)).astype(np.float32)},
        labels=[HOSTILE, "cat"] * 20,
    )
    profile = profiler.profile()
    group = profile.groups["inputs"]
    group.streams = (HOSTILE, *group.streams[1:])
    group.definitions[HOSTILE] = HOSTILE
    group.info |= {"note": HOSTILE, "convention": HOSTILE}
    profile.groups[HOSTILE] = group
    profile.info |= {"created": HOSTILE, "warnings": [HOSTILE], "epoch": HOSTILE}
    return Baseline(profile, None, {"run_id": HOSTILE, "warnings": [f"{HOSTILE} again"]})


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One running browser for the tests of a file; while it runs, no other can be launched in this process."""
    with launched() as running:
        yield running
