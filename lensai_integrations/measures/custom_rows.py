"""From a batch of images to the numbers of custom measures. What one of them does wrong costs the others nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from array_api_compat import is_jax_array, is_torch_array

from lensai_integrations.arrays.namespaces import (
    Array,
    Compiled,
    dtype_name,
    is_immutable,
    local,
    namespace,
    send,
    shape_of,
    to_host,
)
from lensai_integrations.arrays.tensorflow import is_tensorflow_array
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import by_shape, in_order
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.measures.pixels import as_float32, planes
from lensai_integrations.measures.torch_images import as_images, as_tensor
from lensai_integrations.problems import pass_on

#: Pixels that a function is handed at once: as float32 RGB 96 MB.
MOST_PIXELS: Final = 1 << 23
#: Numbers of one image that a measure may give.
MOST_COLUMNS: Final = 4096


class CustomMeasurer:
    """Measures batches by functions of the user's own.

    Args:
        reader: How images are read, with nothing left to be decided.
        measures: What is measured.

    Attributes:
        errors: By name, what a measure did wrong last.

    Example:
        >>> from lensai_integrations import measure
        >>> @measure("lightest")
        ... def lightest(images):
        ...     return images.max((1, 2, 3))
        >>> measurer = CustomMeasurer(ImageInputs(layout="NHW", scale=1), (lightest,))
        >>> measurer(np.full((2, 8, 8), 7, np.uint8))
        {'lightest': array([[7.],
               [7.]], dtype=float32)}
    """

    def __init__(self, reader: ImageInputs, measures: Sequence[CustomMeasure]) -> None:
        self._reader, self._measures = reader, tuple(measures)
        self._compiled = Compiled(self._measured)
        self.errors: dict[str, Exception] = {}

    def __call__(self, batch: Any) -> dict[str, Array]:
        """Float32 rows `[n, k]` by name, of the measures that worked, on the device of the images."""
        parts = [(places, self._compiled(array)) for places, array in by_shape(self._reader.find(batch))]
        names = [name for name in parts[0][1] if all(name in rows for _, rows in parts)]
        return {name: in_order([(places, rows[name]) for places, rows in parts]) for name in names}

    def _measured(self, array: Array) -> dict[str, Array]:
        return self.of(self._reader.read(array), array)

    def of(self, images: Images, array: Array) -> dict[str, Array]:
        """The same of images that have been read already, from this array."""
        parts: dict[str, list[Array]] = {each.name: [] for each in self._measures}
        failed: set[str] = set()
        for pixels in _pieces(images):
            values, valid = _values(pixels, images)
            for each in self._measures:
                if each.name in failed:
                    continue
                given = _handed(values, array, copied=len(self._measures) > 1)
                try:
                    parts[each.name].append(_rows(each, given, valid))
                except Exception as error:  # noqa: BLE001  whatever the user's function may raise
                    pass_on(error)
                    failed.add(each.name)
                    self.errors[each.name] = _explained(error, given)
        return {name: _together(rows) for name, rows in parts.items() if name not in failed and rows}


@lru_cache(maxsize=16)
def custom_measurer(reader: ImageInputs, measures: tuple[CustomMeasure, ...]) -> CustomMeasurer:
    """The measurer of these measures, made once in a process, so that JAX and TensorFlow trace them once.

    Example:
        >>> custom_measurer(ImageInputs(layout="NHW", scale=1), ())(np.zeros((2, 8, 8), np.uint8))
        {}
    """
    return CustomMeasurer(reader, measures)


def _pieces(images: Images) -> Iterator[Array]:
    """The pixels, a part of the batch at a time where the batch is large; all at once in a function that is traced."""
    if images.n < 0 or is_immutable(images.pixels):
        yield images.pixels
        return
    step = max(1, MOST_PIXELS // (images.height * images.width))
    for start in range(0, images.n, step):
        yield images.pixels[start : start + step]


def _values(pixels: Array, images: Images) -> tuple[Array, Array | None]:
    """Float32 `[n, H, W, C]` on the 0-255 scale, and which images are valid, if not all."""
    with np.errstate(over="ignore", invalid="ignore"):
        read = planes(pixels, images.gain, images.offset, whole=images.whole)
    return read.xp.permute_dims(as_float32(read.values, read.xp), (0, 2, 3, 1)), read.valid


def _handed(values: Array, batch: Array, *, copied: bool) -> Array:
    """The values in the batch's own library; with other measures beside, a copy, for a function may work in place."""
    if is_immutable(values):
        return values
    if isinstance(values, np.ndarray):
        values = values.copy() if copied else values
        if is_jax_array(batch):
            return sys.modules["jax"].numpy.asarray(values)
        return as_images(sys.modules["torch"].from_numpy(values)) if is_torch_array(batch) else values
    return as_images(values.clone() if copied else values)


def _rows(measure: CustomMeasure, images: Array, valid: Array | None) -> Array:
    """What a measure gives for images, as float32 `[n, k]`; NaN for images that are not valid.

    Raises:
        InputError: If it gives something else.
    """
    with np.errstate(all="ignore"):
        given = local(as_tensor(measure.function(images)))
        xp, shape, n = namespace(given), shape_of(given), shape_of(images)[0]
        if (
            len(shape) not in (1, 2)
            or shape[0] not in (n, -1)
            or (len(shape) == 2 and not 1 <= shape[1] <= MOST_COLUMNS)
        ):
            raise InputError(
                f"it returned shape {shape} for images of shape {shape_of(images)}: return a number per image, [n], or"
                " [n, k], e.g. a mean over the axes (1, 2, 3)"
            )
        if not xp.isdtype(given.dtype, ("bool", "integral", "real floating")):
            raise InputError(f"it returned {dtype_name(given)}: return real numbers")
        rows = xp.reshape(xp.astype(given, xp.float32), (-1, shape[1] if len(shape) == 2 else 1))
    if valid is None:
        return rows
    rows, valid = _beside(rows, valid)
    return namespace(rows).where(valid[:, None], rows, math.nan)


def _beside(rows: Array, valid: Array) -> tuple[Array, Array]:
    """Both on the device of the images, wherever the function has put its answer."""
    if isinstance(valid, np.ndarray):
        return to_host(rows), valid
    return (send(rows, valid) if isinstance(rows, np.ndarray) else rows), valid


def _together(rows: list[Array]) -> Array:
    return rows[0] if len(rows) == 1 else namespace(rows[0]).concat(rows)


def _explained(error: Exception, images: Array) -> Exception:
    if isinstance(error, AttributeError) and is_tensorflow_array(images):
        return InputError(
            f"{error}: images on an accelerator are TensorFlow tensors, so write tf.reduce_mean(tf.cast(images >= 245,"
            " tf.float32), (1, 2, 3)) instead of methods"
        )
    return error
