"""Images as planes of numbers, and the few operations over pixels that the image measures are made of.

Some of these know which library they run on: in numpy, sums over an image are dot products and linear combinations of
channels matrix products, because BLAS takes a quarter of the time that numpy's own loops take; elsewhere they are plain
sums, since a matrix product on an accelerator would follow the caller's autocast and TF32 settings and lose digits.
Histograms are those of `sketches.counts`. All that depends on sizes is decided on the host; nothing waits.

Planes are made for a few images at a time. Those of one 224 x 224 image (200 kB each) stay in the processor's cache,
and those of a batch do not crowd an accelerator's memory.

What neighbouring pixels say, the Laplacian for sharpness and Immerkaer's mask for noise, is made of second differences
across and down. Those are taken along the image as one long row, where each is two subtractions of contiguous arrays,
twice as fast as row by row. What comes out at the ends of rows, where the next one begins, means nothing and is left
out of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, dtype_name, is_immutable, namespace, shape_of
from lensai_integrations.measures.inputs import Images
from lensai_integrations.sketches.counts import count_by_sorting, count_bytes, count_rows

#: Weights of red, green and blue.
Weights: TypeAlias = tuple[float, float, float]

#: BT.601 luma.
BT601: Final = (0.299, 0.587, 0.114)
#: How far outside 0-255 a pixel may lie before its image is invalid: cubic resizing overshoots by less than a tenth.
OVERSHOOT: Final = 25.5
#: What is added to luma before it is cut to 8 bits. Lumas of 8-bit colours are multiples of 0.001: half such a step
#: more than 0.5 rounds half up and keeps the boundary away from all of them, so that a last digit decides nothing.
HALF_UP: Final = 0.5005
#: 8-bit luma up to and including which a pixel is near black, and from which on it is near white.
NEAR_BLACK: Final = 5
NEAR_WHITE: Final = 250
#: A mean or standard deviation below this counts as this in the signal-to-noise ratio.
SNR_FLOOR: Final = 1e-3
#: A mean colour as near to grey as this, on the 0-255 scale, has no hue.
GREYEST: Final = 1e-3

_ROUNDING = 1e-3  # what undoing a normalisation in float32 may leave outside 0-255
_HOST_PIXELS = 1 << 16
_DEVICE_PIXELS = 1 << 21
_MOST_BLOCKS = 4  # of a function that JAX or TensorFlow traces: each is traced and compiled anew
_LONGEST_DOT = 1 << 16  # so many bytes add up to less than 2^24, which float32 holds exactly


@dataclass(frozen=True)
class Planes:
    """A few images on the 0-255 scale, one plane per channel.

    Attributes:
        values: `[n, C, H, W]` contiguous, RGB or grey: uint8 of images of bytes in numpy and torch, otherwise float32.
        bounds: Smallest and largest value of each plane, float32 `[n, C]`, where they had to be found; see `extremes`.
        valid: bool `[n]`, false for an image with a value that is not finite or far outside 0-255; None for bytes.
        xp: The namespace of the arrays.
        counts: How often each value occurs in each channel of the valid ones, `[C, 256]`, if that is wanted too.
    """

    values: Array
    bounds: tuple[Array, Array] | None
    valid: Array | None
    xp: Any
    counts: Array | None = None


def blocks(images: Images) -> Iterator[Planes]:
    """The images as planes, a few at a time, on the device they are on and without waiting for it."""
    on_host = is_numpy_array(images.pixels)
    if on_host:
        _keep_freed_memory()
    step = max(1, (_HOST_PIXELS if on_host else _DEVICE_PIXELS) // (images.height * images.width))
    if is_immutable(images.pixels):
        step = max(step, -(-images.n // _MOST_BLOCKS))
    if images.n < 0:  # traced by TensorFlow, which does not know how many there will be
        yield planes(images.pixels, images.gain, images.offset, whole=images.whole)
    for start in range(0, images.n, step):
        yield planes(images.pixels[start : start + step], images.gain, images.offset, whole=images.whole)


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Free one large array, once. Until a process has, glibc gives freed planes back to the system, which then has to
    hand out and clear the same pages again for every image: half the time. No memory is touched."""
    np.empty(1 << 24, np.uint8)


def planes(pixels: Array, gain: tuple[float, ...], offset: tuple[float, ...], *, whole: bool = False) -> Planes:
    """`pixels * gain + offset` as `Planes`, held inside 0-255 (to 0.001, where the host can see that it is so already).

    Args:
        pixels: `[n, C, H, W]` of any real dtype and any strides.
        gain: C factors to the 0-255 scale.
        offset: C numbers added after that.
        whole: Whether what comes out is rounded to whole numbers.
    """
    xp = namespace(pixels)
    values = _contiguous(pixels, xp)
    if are_bytes(pixels, gain, offset):
        return Planes(values, None, None, xp)
    values = _affine(as_float32(values, xp), gain, offset, xp)
    values = xp.floor(values + 0.5) if whole else values
    low, high = extremes(values, xp)
    valid = xp.all((low >= -OVERSHOOT) & (high <= 255 + OVERSHOOT), axis=-1)
    if is_numpy_array(values) and low.min() >= -_ROUNDING and high.max() <= 255 + _ROUNDING:
        return Planes(values, (low, high), valid, xp)
    values, low, high = (clip(bound, 0.0, 255.0) for bound in (values, low, high))
    return Planes(values, (low, high), valid, xp)


def _contiguous(pixels: Array, xp: Any) -> Array:
    """In C order; of JAX and TensorFlow as floats: few of TensorFlow's GPU kernels know bytes, XLA does not mind."""
    if is_immutable(pixels):
        return as_float32(pixels, xp)
    return xp.reshape(xp.reshape(pixels, (-1,)), pixels.shape)


def as_float32(values: Array, xp: Any) -> Array:
    """The values as float32; the array itself if it is that already."""
    return xp.astype(values, xp.float32, copy=False)


def is_uint8(values: Array) -> bool:
    """Whether the dtype is uint8, of any library."""
    return bool(values.dtype == np.uint8) if is_numpy_array(values) else dtype_name(values) == "uint8"


def are_bytes(pixels: Array, gain: tuple[float, ...], offset: tuple[float, ...]) -> bool:
    """Whether the pixels are bytes 0-255 as they lie."""
    return is_uint8(pixels) and set(gain) == {1.0} and set(offset) == {0.0}


def _affine(values: Array, gain: tuple[float, ...], offset: tuple[float, ...], xp: Any) -> Array:
    if len(set(gain)) == 1 and set(offset) == {0.0}:
        return values * gain[0]
    if is_numpy_array(values):
        scaled = values * np.asarray(gain, np.float32)[:, None, None]
        scaled += np.asarray(offset, np.float32)[:, None, None]
        return scaled
    return xp.stack([values[:, i] * gain[i] + offset[i] for i in range(len(gain))], axis=1)


def extremes(values: Array, xp: Any) -> tuple[Array, Array]:
    """Smallest and largest value over the last two axes, float32."""
    low, high = xp.min(values, axis=(-2, -1)), xp.max(values, axis=(-2, -1))
    return as_float32(low, xp), as_float32(high, xp)


def clip(values: Array, low: float, high: float) -> Array:
    """Values held inside [low, high]; NaN stays. (`array_api_compat.clip` would wait for an accelerator.)"""
    return values.clip(low, high) if hasattr(values, "clip") else namespace(values).clip(values, low, high)


def weighted(values: Array, weights: Weights) -> Array:
    """Weighted sum of red, green and blue, `[n, 3, ...]` to `[n, ...]`; grey `[n, 1, ...]` as it is."""
    if values.shape[1] == 1:
        return values[:, 0]
    if is_numpy_array(values) and values.ndim == 2:  # of means: fewer calls, which count for one image
        return values @ _row_of(weights)
    return values[:, 0] * weights[0] + values[:, 1] * weights[1] + values[:, 2] * weights[2]


@lru_cache(maxsize=16)
def _row_of(weights: Weights) -> NDArray[np.float32]:
    return np.array(weights, np.float32)


def combined(values: Array, table: tuple[Weights, ...], xp: Any) -> list[Array]:
    """Several weighted sums of float32 `[n, 3, H, W]`, each `[n, H, W]`; of grey `[n, 1, H, W]` itself, once."""
    if is_numpy_array(values) and values.shape[1] == 3:
        n, _, height, width = values.shape
        sums = np.asarray(table, np.float32) @ values.reshape(n, 3, height * width)
        return [sums[:, i].reshape(n, height, width) for i in range(len(table))]
    return [weighted(values, weights) for weights in (table if values.shape[1] == 3 else table[:1])]


def mean_over_pixels(values: Array, xp: Any) -> Array:
    """Mean over the last two axes of float32 `[..., H, W]`."""
    if is_numpy_array(values):
        rows = _rows(values)
        return _mean_of_sums(np.vecdot(rows, _ones(rows.shape[-1])), rows.shape[-1])
    return xp.mean(values, axis=(-2, -1))


def mean_square(values: Array, xp: Any) -> Array:
    """Mean of the squares over the last two axes of float32 `[..., H, W]`."""
    if is_numpy_array(values):
        rows = _rows(values)
        return _mean_of_sums(np.vecdot(rows, rows), rows.shape[-1])
    return xp.mean(values * values, axis=(-2, -1))


def centre(values: Array, low: Array, high: Array, xp: Any) -> tuple[Array, Array]:
    """Means and what remains without them: `[..., H, W]` of any dtype to float32 `[...]` and `[..., H, W]`.

    A mean is held inside [low, high], so that where all values are the same, exactly 0 remains.
    """
    floats = as_float32(values, xp)
    mean = xp.maximum(xp.minimum(mean_over_pixels(floats, xp), high), low)
    if floats is values:
        return mean, floats - mean[..., None, None]
    floats -= mean[..., None, None]
    return mean, floats


def _rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    *front, height, width = values.shape
    together = _rows_together(height, width)
    return values.reshape(*front, height // together, together * width)


@lru_cache(maxsize=256)
def _rows_together(height: int, width: int) -> int:
    """How many rows one dot product takes: a divisor of the height, the largest whose sum stays exact for bytes."""
    return next(k for k in range(height, 0, -1) if height % k == 0 and (k * width <= _LONGEST_DOT or k == 1))


@lru_cache(maxsize=16)
def _ones(size: int) -> NDArray[np.float32]:
    return np.ones(size, np.float32)


def _mean_of_sums(sums: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    means: NDArray[np.float64] = np.add.reduce(sums, axis=-1, dtype=np.float64) / (sums.shape[-1] * size)
    return means.astype(np.float32)


def count_256(values: Array) -> Array:
    """Counts of each image's 256 values, uint8 `[n, H, W]` to whole numbers `[n, 256]`."""
    if is_immutable(values):
        height, width = shape_of(values)[1:]
        return count_rows(namespace(values).reshape(values, (-1, height * width)))
    return (count_bytes if is_numpy_array(values) else count_by_sorting)(values[None])


def differences(plane: Array, xp: Any) -> tuple[Array, Array]:
    """Second differences `x[i-1] - 2 x[i] + x[i+1]` across and down of `[n, H, W]`, both `[n, H, W + 2]`.

    The first and the last column mean nothing. The border is mirrored without repeating it, OpenCV's reflect-101; along
    an axis of one pixel the differences are 0.
    """
    n, height, width = shape_of(plane)
    (top, bottom), (left, right) = _mirrored(height), _mirrored(width)
    wide = xp.concatenate([plane[:, :, left], plane, plane[:, :, right]], axis=2)
    step = width + 2
    long = xp.reshape(xp.concatenate([wide[:, top], wide, wide[:, bottom]], axis=1), (n, (height + 2) * step))
    across = _second(long[:, step - 1 : (height + 1) * step + 1], 1)
    return xp.reshape(across, (n, height, step)), xp.reshape(_second(long, step), (n, height, step))


def laplacian_variance(across: Array, down: Array, xp: Any) -> Array:
    """Population variance of the 4-neighbour Laplacian from `differences`, `[n]`.

    The mirrored border keeps the mean small against the spread, so subtracting its square last costs no digits.
    """
    laplacian = across + down
    mean, square = _inside(laplacian, 1, xp)
    return clip(square - mean * mean, 0.0, math.inf)


def ridge(across: Array, xp: Any) -> Array:
    """Mean of `|x * [1 -2 1; -2 4 -2; 1 -2 1]|` off the border from `differences`, `[n]`; 0 below 3 x 3 pixels."""
    n, height, step = shape_of(across)
    if height < 3 or step < 5:
        return xp.zeros_like(across[:, 0, 0])
    mask = _second(xp.reshape(across, (n, height * step)), step)
    return _inside(xp.reshape(xp.abs(mask), (n, height - 2, step)), 2, xp)[0]


def _second(values: Array, step: int) -> Array:
    first = values[:, step:] - values[:, :-step]
    return first[:, step:] - first[:, :-step]


def _mirrored(size: int) -> tuple[slice, slice]:
    """Where the lines mirrored at the two ends of an axis of this size come from."""
    first, last = (1, size - 2) if size > 1 else (0, 0)
    return slice(first, first + 1), slice(last, last + 1)


def _inside(values: Array, columns: int, xp: Any) -> tuple[Array, Array]:
    """Mean and mean square of `[n, H, W]` without the outer columns, which numpy overwrites: one long sum is faster."""
    if not is_numpy_array(values):
        kept = values[:, :, columns:-columns]
        return mean_over_pixels(kept, xp), mean_square(kept, xp)
    values[:, :, :columns] = 0
    values[:, :, -columns:] = 0
    share = values.shape[2] / (values.shape[2] - 2 * columns)
    return mean_over_pixels(values, xp) * share, mean_square(values, xp) * share
