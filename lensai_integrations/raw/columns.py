"""What is kept of one delivered image: a row of numbers, so that it can lie in memory that processes share.

First the image measures, then a column for each custom measure, then two columns for each piece of metadata: its
number, and the code of its category. A function of the user's may answer either, now this, now that; the one that it
did not answer is NaN. Where images are told apart, the last column is the number of the row's segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays import Array, to_host
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.custom_rows import custom_measurer
from lensai_integrations.measures.images import image_measures, measure_images_and_counts
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.raw.reading import Delivered

#: Longest category that is kept whole, in characters.
MOST_CHARACTERS: Final = 200
#: Different categories of one process; further ones are all counted as `OTHER`.
MOST_CATEGORIES: Final = 100_000
OTHER: Final = "(other)"

#: Images are handed to custom measures as they were read, so how does not matter.
_READER: Final = ImageInputs(layout="NCHW", scale=1.0)

#: Gives the code of a category.
Code = Callable[[str], int]


@dataclass(frozen=True)
class Columns:
    """The columns of a row.

    Args:
        convention: Of the image measures.
        metadata: Names of the metadata.
        custom: Custom measures, of one number each.
        segment_by: What tells the rows apart; None if nothing.

    Example:
        >>> columns = Columns("lensai", ("mode",))
        >>> columns.width - len(columns.streams)
        2
    """

    convention: str
    metadata: tuple[str, ...]
    custom: tuple[CustomMeasure, ...] = ()
    segment_by: str | None = None

    @cached_property
    def definitions(self) -> dict[str, str]:
        """Definition ids of the image measures, by stream."""
        return image_measures(3, self.convention)

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """The image measures."""
        return tuple(self.definitions)

    @cached_property
    def width(self) -> int:
        """Numbers in a row."""
        return len(self.streams) + len(self.custom) + 2 * len(self.metadata) + (self.segment_by is not None)

    def numbers(self, name: str) -> int:
        """The column of a metadata's numbers; the one behind it has the codes of its categories."""
        return len(self.streams) + len(self.custom) + 2 * self.metadata.index(name)

    def measured(self, delivered: Delivered) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Image measures and custom ones `[n, D]`, pixel counts `[3, 256]`, in host memory. Waits for an accelerator.

        A custom measure that fails, or gives more than one number for an image, is NaN; `problems` says why.
        """
        images = delivered.images
        _, rows, counts = measure_images_and_counts(images, self.convention)
        columns = [to_host(rows)]
        if self.custom:
            found = custom_measurer(_READER, self.custom).of(images, images.pixels)
            columns += [_one_column(found.get(each.name), len(columns[0])) for each in self.custom]
        return np.concatenate(columns, axis=1), to_host(counts).astype(np.int64, copy=False)

    def problems(self) -> list[str]:
        """What custom measures did wrong in this process."""
        errors = custom_measurer(_READER, self.custom).errors if self.custom else {}
        return [f"the custom measure {name!r} failed: {error}" for name, error in errors.items()]

    def row(
        self, measures: NDArray[np.float32], metadata: Sequence[Any], code: Code
    ) -> tuple[NDArray[np.float32], str | None]:
        """One row `[width]` from an image's measures and its metadata, which may be None; and what was unusable.

        Example:
            >>> columns = Columns("lensai", ("hour", "site"))
            >>> row, problem = columns.row(np.zeros(len(columns.streams), np.float32), [7, "north"], len)
            >>> row[-4:].tolist(), problem
            ([7.0, nan, nan, 5.0], None)
        """
        row = np.full(self.width, math.nan, np.float32)
        row[: len(measures)] = measures
        problem = None
        for name, value in zip(self.metadata, metadata, strict=True):
            place = self.numbers(name)
            if value is None:
                continue
            if isinstance(value, str):
                row[place + 1] = code(value[:MOST_CHARACTERS])
                continue
            try:
                row[place] = float(value)
            except (TypeError, ValueError, OverflowError):
                problem = f"metadata {name!r} gave a {type(value).__name__}: it should give a number, a string or None"
        return row, problem


def _one_column(rows: Array | None, n: int) -> NDArray[np.float32]:
    """`[n, 1]`; NaN where there is not one number for each image."""
    if rows is None or tuple(rows.shape) != (n, 1):
        return np.full((n, 1), math.nan, np.float32)
    return to_host(rows)
