"""Every sketch of the table, held against what profiles rely on."""

from __future__ import annotations

import pytest
from checks.sketch import CHECKS, WIDTH

from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.kinds import KINDS
from lensai_integrations.sketches.moments import Moments

MAKERS = {name: lambda kind=kind: kind.new(WIDTH, seed=7) for name, kind in KINDS.items()}
MAKERS |= {
    "moments without covariances": lambda: Moments(WIDTH, covariance=False),
    "kernel mean at given bandwidths": lambda: KernelMean(WIDTH, 32, exponents=(1, 2, 3)),
    "few categories": lambda: Categories(64),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_it_does_what_every_sketch_has_to(make, check):
    check(make)
