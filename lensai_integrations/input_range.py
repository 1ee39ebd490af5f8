"""How far the pixels of a batch reach that could not be read, held against how far they should.

Looked at without waiting: in host memory only where a row has come out as not valid, on an accelerator once, of the
first batch, and brought to the host when the profile is made.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lensai_integrations.arrays.namespaces import Array, dtype_name, local, namespace, shape_of, to_host
from lensai_integrations.measures.batches import Found
from lensai_integrations.measures.inputs import Images
from lensai_integrations.profiles.profile import Profile

_TOLERANCE = 0.01
#: Beyond this no pixel of a picture lies, in standard deviations.
_STANDARDISED = 16


class Range:
    """The range of what was wrong in a group of images.

    Args:
        images: The first of them, as they are read.
        like: The profile they are held against, if any.
        name: Of the group.

    Example:
        >>> from lensai_integrations import ImageInputs
        >>> batch = np.full((2, 8, 8), 200.0)
        >>> found = Range(ImageInputs("NHW", 255.0).read(batch), None, "inputs")
        >>> found.look(batch, np.full((2, 13), np.nan, np.float32))
        >>> found.why()
        'float64 pixels reach from 200 to 200, but are read as 0 to 1 (NHW float64 x 255)'
    """

    def __init__(self, images: Images, like: Profile | None, name: str) -> None:
        known = like.groups.get(name) if like is not None else None
        self._note = images.note if known is None else str(known.info.get("note") or images.note)
        self._whose = "are read as" if known is None else "those of the baseline were read as"
        self._expected = images.expected
        self._to_255 = known is not None and images.expected == (0.0, 255.0)
        self._dtype = ""
        self._ends: list[tuple[Array, Array]] = []

    def look(self, found: Found, rows: Array) -> None:
        """Look at the first batch that needs it.

        Args:
            found: The images, an array or a list.
            rows: What was measured of them.
        """
        if self._ends:
            return
        arrays = found if isinstance(found, list) else [found]
        if isinstance(rows, np.ndarray):
            wrong = np.isnan(rows[:, 0])
            if wrong.any():
                arrays = [each for each, bad in zip(arrays, wrong, strict=True) if bad] if len(arrays) > 1 else arrays
                arrays = arrays if isinstance(found, list) else [local(found)[wrong]]
            elif not (self._to_255 and dtype_name(arrays[0]) != "uint8"):
                return
        self._dtype = dtype_name(found[0] if isinstance(found, list) else found)
        self._ends = [_ends(each) for each in arrays if 0 not in shape_of(each)]

    def why(self) -> str:
        """Why rows were left out."""
        low, high = self._host()
        expected = " to ".join(f"{each:.4g}" for each in self._expected)
        if not (math.isfinite(low) and math.isfinite(high)):
            return "a value was not finite"
        span = self._expected[1] - self._expected[0]
        if low >= self._expected[0] - span / 10 and high <= self._expected[1] + span / 10:
            return "a value was not finite, or out of range"
        return f"{self._dtype} pixels reach from {low:.4g} to {high:.4g}, but {self._whose} {expected} ({self._note})"

    def warnings(self) -> list[str]:
        """That floats up to 1 are held against numbers up to 255, if so."""
        low, high = self._host() if self._to_255 else (math.nan, math.nan)
        standardised = low < -_TOLERANCE and high <= _STANDARDISED
        if not (low < high and (standardised or (low >= -_TOLERANCE and high <= 1 + _TOLERANCE))):
            return []
        how = "divided by 255" if low >= -_TOLERANCE else "made by x / 127.5 - 1"
        if low < -1 - _TOLERANCE or high > 1 + _TOLERANCE:
            how = "standardised"
        return [
            f"{self._dtype} pixels reach from {low:.4g} to {high:.4g}, but {self._whose} 0 to 255 ({self._note}): were"
            f" they {how}? Hand them over as the baseline's were, or pass inputs=ImageInputs(...) that reads them"
        ]

    def _host(self) -> tuple[float, float]:
        ends: Any = [[float(to_host(end)) for end in each] for each in self._ends]
        self._ends = [(np.float64(low), np.float64(high)) for low, high in ends]
        if not ends:
            return math.nan, math.nan
        low, high = np.array(ends).T
        return float(low.min()), float(high.max())


def _ends(array: Array) -> tuple[Array, Array]:
    array = local(array)
    return namespace(array).min(array), namespace(array).max(array)
