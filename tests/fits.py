"""What the end of a fit is given, without a framework that takes seconds to import."""

from __future__ import annotations

import numpy as np

from lensai_integrations import Baseline, Profiler
from lensai_integrations.training.options import Options


def options_of(**told):
    """What a callback is asked for by default, but for these arguments; nothing is calibrated."""
    return Options(**{"layers": None, "clean_windows": 0, **told})


def baseline_of(n=120):
    """A baseline of n rows of three outputs; with 100 or more it can be calibrated."""
    profiler = Profiler(source="validation", seed=1)
    profiler.update(outputs=np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32))
    return Baseline(profiler.profile())
