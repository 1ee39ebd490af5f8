"""Profiles made by hand: what is in them is exactly what a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.rows import RowSample


def make_profile(
    numbers: Mapping[str, Any] | None = None,
    *,
    categories: Mapping[str, Any] | None = None,
    pixels: Any = None,
    vectors: tuple[str, ...] = (),
    like: Profile | None = None,
    keep: int = 2000,
    seed: int = 0,
    streams: Mapping[str, tuple[str, ...]] | None = None,
    definitions: Mapping[str, dict[str, str]] | None = None,
    info: Mapping[str, dict[str, Any]] | None = None,
    source: str = "production",
    warnings: tuple[str, ...] = (),
) -> Profile:
    """A profile of groups of numbers `[n, D]`, of categories `"group/stream"` and of pixels; `vectors` names the groups
    that also keep a kernel mean, at the bandwidths of `like`."""
    groups: dict[str, Group] = {}
    for number, (name, given) in enumerate((numbers or {}).items()):
        rows = np.asarray(given, np.float32)
        bank = KLLBank(rows.shape[1], seed=1000 * seed + number)
        bank.update(rows)
        names = (streams or {}).get(name) or tuple(map(str, range(rows.shape[1])))
        groups[name] = Group(name, names, (definitions or {}).get(name, {"*": "test/number@1"}), {"bank": bank})
        if name in vectors:
            known = like.groups[name].kernel_mean if like is not None else None
            kernel_mean = KernelMean(rows.shape[1], exponents=known.exponents if known is not None else None)
            kernel_mean.update(rows)
            groups[name].sketches["kernel_mean"] = kernel_mean
    for full, values in (categories or {}).items():
        name, _, stream = full.partition("/")
        group = groups.setdefault(name, Group(name, definitions={"*": "test/category@1"}))
        group.sketches[f"categories/{stream}"] = sketch = Categories()
        sketch.update(values)
    if pixels is not None:
        group = groups.setdefault("inputs", Group("inputs", definitions={"pixel": "test/pixel@1"}))
        group.sketches["pixels"] = counts = PixelCounts(pixels.shape[1])
        counts.update(pixels)
    for name, entries in (info or {}).items():
        groups[name].info |= entries
    sample = RowSample(keep, seed=seed) if keep and numbers else None
    if sample is not None:
        sample.update({name: np.asarray(rows, np.float32) for name, rows in (numbers or {}).items()})
    return Profile(groups, sample, {"source": source, "warnings": list(warnings)})


@pytest.fixture
def build() -> Callable[..., Profile]:
    """`make_profile`."""
    return make_profile


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator of fixed seed, fresh for each test."""
    return np.random.default_rng(20240607)
