"""A device's noise of +inf, an image of one colour, in sketches: `NO_NOISE` stands for it here."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from lensai_integrations.measures.edge import NO_NOISE
from lensai_integrations.sketches import wire


def without_infinity(content: bytes) -> bytes:
    """The bytes of a device's sketch of noise, with `NO_NOISE` where it has +inf; ranks stay what they were.

    Raises:
        FormatError: If the bytes are damaged.

    Example:
        >>> without_infinity(bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 80 7f"))[-4:].hex(" ")  # 200 as float32
        '00 00 48 43'
    """
    sketch = wire.read(content)
    if sketch.n == 0 or not math.isinf(sketch.maximum):
        return content
    items = np.where(np.isposinf(sketch.items), np.float32(NO_NOISE), sketch.items)
    low = NO_NOISE if sketch.minimum == math.inf else sketch.minimum
    sketch = replace(sketch, items=items, minimum=low, maximum=NO_NOISE)
    ends = (np.array([low], np.float32), np.array([NO_NOISE], np.float32))
    return wire.write(sketch.k, sketch.sizes, items[None], *ends, sketch.min_k)[0]
