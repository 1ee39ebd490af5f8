"""Patches of two photographs, for tests that want real images."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=4)
def patches(n: int, side: int = 32, seed: int = 0) -> NDArray[np.uint8]:
    """Patches of scikit-learn's photographs, uint8 `[n, side, side, 3]`."""
    from sklearn.datasets import load_sample_images

    photos, rng = load_sample_images().images, np.random.default_rng(seed)
    corners = [(rng.integers(0, 427 - side), rng.integers(0, 640 - side)) for _ in range(n)]
    found = np.stack([photos[i % 2][top : top + side, left : left + side] for i, (top, left) in enumerate(corners)])
    found.flags.writeable = False
    return found
