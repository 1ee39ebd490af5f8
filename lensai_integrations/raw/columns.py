"""What is kept of one delivered image: a row of numbers, so that it can lie in memory that processes share.

First the image measures, then a column for each custom measure, then two columns for each piece of metadata: its
number, and the code of its category. A function of the user's may answer either, now this, now that; the one that it
did not answer is NaN. Where images are told apart, the last column is the number of the row's segment.

What failed is marked in the row, so that it can be counted exactly whichever process it failed in: infinity where a
custom measure failed, a code below 0 where a function of the metadata did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import told
from lensai_integrations.measures.custom import CustomMeasure, custom_measurer
from lensai_integrations.measures.images import image_measures, measure_images_and_counts
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.raw.metadata import Metadata
from lensai_integrations.raw.reading import Delivered

#: Longest category that is kept whole, in characters.
MOST_CHARACTERS: Final = 200
#: Different categories of one process; further ones are all counted as `OTHER_CATEGORY`.
MOST_CATEGORIES: Final = 100_000
OTHER_CATEGORY: Final = "(other)"
#: Stand in a custom measure's column where it failed, and for the category of metadata where its function did.
FAILED, FAILED_CODE = math.inf, -1.0
#: Largest number that a column holds.
_LARGEST: Final = float(np.finfo(np.float32).max)

#: Images are handed to custom measures as they were read, so how does not matter.
_READER: Final = ImageInputs(layout="NCHW", scale=1.0)

_WIDE: Final = "it returned {} numbers for each image: of images as they are delivered it has to return one"

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
        functions: Of those pieces of metadata that the user's functions give of a file.

    Example:
        >>> columns = Columns("lensai", ("mode",))
        >>> columns.width - len(columns.streams)
        2
    """

    convention: str
    metadata: tuple[str, ...]
    custom: tuple[CustomMeasure, ...] = ()
    segment_by: str | None = None
    functions: Mapping[str, Metadata] = field(default_factory=dict, compare=False)

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

    def measured(self, delivered: Delivered) -> tuple[NDArray[np.float32], NDArray[np.int64], dict[str, str]]:
        """Image measures and custom ones `[n, D]`, pixel counts `[3, 256]`, in host memory. Waits for an accelerator.

        Where a custom measure fails, or gives more than one number for an image, there is `FAILED`; why, by its name,
        is returned as well.
        """
        images = delivered.images
        _, rows, counts = measure_images_and_counts(images, self.convention)
        custom, errors = self._custom(images)
        columns = np.concatenate([to_host(rows), custom], axis=1)
        return columns, to_host(counts).astype(np.int64, copy=False), errors

    def _custom(self, images: Images) -> tuple[NDArray[np.float32], dict[str, str]]:
        """The custom measures `[n, D]`, and why some failed. What fails for several images is tried one by one."""
        if not self.custom:
            return np.zeros((images.n, 0), np.float32), {}
        measurer, columns, errors = custom_measurer(_READER, self.custom), [], {}
        found = measurer.of(images, images.pixels)
        for each in self.custom:
            rows = found.get(each.name)
            if rows is not None and tuple(rows.shape) == (images.n, 1):
                rows = to_host(rows)
                columns.append(np.where(np.isinf(rows), np.float32(math.nan), rows))
                continue
            columns.append(np.full((images.n, 1), FAILED, np.float32))
            errors[each.name] = told(measurer.errors[each.name]) if rows is None else _WIDE.format(rows.shape[1])
        if not errors or images.n == 1:
            return np.concatenate(columns, axis=1), errors
        parts = [self._custom(replace(images, pixels=images.pixels[i : i + 1])) for i in range(images.n)]
        first = {name: why for _, failed in reversed(parts) for name, why in failed.items()}
        return np.concatenate([rows for rows, _ in parts]), first

    def row(
        self, measures: NDArray[np.float32], metadata: Sequence[Any], code: Code
    ) -> tuple[NDArray[np.float32], dict[str, str]]:
        """One row `[width]` from an image's measures and its metadata; and by name, what of it was unusable.

        A piece of metadata is None where there is none, and an exception where its function failed.

        Example:
            >>> columns = Columns("lensai", ("hour", "site"))
            >>> row, problems = columns.row(np.zeros(len(columns.streams), np.float32), [7, "north"], len)
            >>> row[-4:].tolist(), problems
            ([7.0, nan, nan, 5.0], {})
        """
        row = np.full(self.width, math.nan, np.float32)
        row[: len(measures)] = measures
        problems: dict[str, str] = {}
        for name, value in zip(self.metadata, metadata, strict=True):
            place = self.numbers(name)
            if value is None:
                continue
            if isinstance(value, Exception):
                row[place + 1] = FAILED_CODE
                continue
            if isinstance(value, str):
                row[place + 1] = code(value[:MOST_CHARACTERS])
                continue
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                row[place + 1] = FAILED_CODE
                problems[name] = f"gave a {type(value).__name__}: it should give a number, a string or None"
                continue
            if abs(number) > _LARGEST:
                row[place + 1] = FAILED_CODE
                problems[name] = f"gave {number:g}: it should give a number below {_LARGEST:.1e}, a string or None"
                continue
            row[place] = number
        return row, problems
