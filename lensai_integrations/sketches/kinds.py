"""The sketches there are. A new one is a file of its own, which declares what a `Sketch` declares, and a line here."""

from __future__ import annotations

from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments
from lensai_integrations.sketches.state import Sketch

#: By the first part of a sketch's key in a group, `bank` or `categories/top_class`; in the order of a group's sketches.
KINDS: dict[str, type[Sketch]] = {
    "bank": KLLBank,
    "pixels": PixelCounts,
    "kernel_mean": KernelMean,
    "moments": Moments,
    "categories": Categories,
}
