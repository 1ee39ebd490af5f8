"""Exact counts of 8-bit pixels.

A batch holds millions of pixels, but only 256 different ones: counting beats sketching in speed and has no error. The
counts become KLL sketches once, at the end, for readers that know nothing else.

In host memory two neighbouring bytes are read as one 16-bit number and counted in 65,536 bins, whose two marginals
are then added: half as many steps as counting bytes, and a run of equal pixels does not wait on one counter as often.
On an accelerator that has no kernels of its own for images (`measures.kernels`) the bytes are sorted and the 256
boundaries looked up. Unlike `bincount` that never waits for
the device, and unlike atomic additions it is the same operation whether or not deterministic algorithms are asked for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from array_api_compat import is_jax_array, is_numpy_array, is_torch_array
from numpy.typing import ArrayLike, NDArray

from lensai_integrations.arrays.namespaces import (
    Array,
    dtype_name,
    is_host,
    is_immutable,
    local,
    namespace,
    shape_of,
    to_host,
    together,
)
from lensai_integrations.errors import InputError
from lensai_integrations.sketches import wire
from lensai_integrations.sketches.state import LARGEST_COUNT, RANKS, Sketch, State, field, number, require
from lensai_integrations.sketches.weighted import cdf, checked_points, checked_ranks, fit, quantiles

#: Bytes counted at a time in host memory: their 16-bit pairs, widened by numpy to 8 bytes each, stay in the cache.
_HOST_CHUNK = 1 << 19
#: Below this many bytes, adding up 65,536 bins costs more than it saves.
_PAIRS_FROM = 1 << 17
#: From this many bytes on Pillow counts faster than numpy, three times as fast in the end.
_PILLOW_FROM = 1 << 14
#: Pixels sorted at a time on an accelerator: a sort keeps about 20 bytes for each.
_DEVICE_CHUNK = 1 << 22


class PixelCounts(Sketch):
    """How often each of the 256 values occurs in each channel, exactly.

    Args:
        channels: Number of channels C.

    Attributes:
        channels: Number of channels.
        n: Images counted. Waits for the accelerator if that is known there only, of images that were counted there.

    Raises:
        InputError: If `channels` is not a positive whole number.

    Example:
        >>> counts = PixelCounts(1)
        >>> counts.update(np.array([[[[0, 7], [7, 255]]]], np.uint8))
        >>> counts.counts[0, [0, 7, 255]].tolist()
        [1, 2, 1]
        >>> counts.quantiles([0.5]).tolist()
        [[7.0]]
    """

    takes = "pixels"

    def __init__(self, channels: int) -> None:
        if not isinstance(channels, int | np.integer) or channels < 1:
            raise InputError(f"channels is the number of colour channels, a positive whole number, not {channels!r}")
        self.channels = int(channels)
        self._n: Array | int = 0
        self._counts: Array = np.zeros((self.channels, 256), np.int64)

    def empty(self) -> Self:
        """Another for as many channels."""
        return type(self)(self.channels)

    @property
    def n(self) -> int:
        """Images counted."""
        if not isinstance(self._n, int):
            self._n = int(to_host(self._n))
        return self._n

    def update(self, values: Array | tuple[Array, Array | int]) -> None:
        """Count a batch of images.

        Args:
            values: uint8 `[n, C, H, W]` (any shape after C), of any library, contiguous or not: an NHWC batch viewed as
                NCHW is read where it is. Or what `add` takes, if they were counted already.

        Raises:
            InputError: If the dtype is not uint8 or the second axis is not C long.
        """
        if isinstance(values, tuple):
            self.add(*values)
        else:
            self._update(local(values))

    def _update(self, values: Array) -> None:
        if dtype_name(values) != "uint8":
            raise InputError(f"pixel counts are of 8-bit pixels, uint8, not {values.dtype}: pass pixel_bytes(images)")
        if values.ndim < 2 or values.shape[1] != self.channels:
            raise InputError(f"values should be [n, {self.channels}, ...], channels second, not {tuple(values.shape)}")
        if 0 not in values.shape:
            more = count_images(values)
            so_far, more = together(self._counts, to_host(more) if is_immutable(more) else more)
            self._counts = so_far + more
        self._n = self._n + int(values.shape[0])  # a copy may have the same scalar on an accelerator

    def add(self, counts: Array, n: Array | int) -> None:
        """Take in pixels that were counted elsewhere. Nothing is waited for.

        Args:
            counts: Whole numbers `[C, 256]` of numpy or torch, as `count_images` makes them.
            n: Images they are of: a number, or whole `[]` of numpy or torch, on an accelerator maybe.

        Raises:
            InputError: If the shape is another.

        Example:
            >>> counts = PixelCounts(1)
            >>> counts.add(count_images(np.full((2, 1, 4, 4), 9, np.uint8)), n=2)
            >>> counts.n, counts.counts[0, 9].item()
            (2, 32)
        """
        if tuple(counts.shape) != (self.channels, 256):
            raise InputError(f"counts should be [{self.channels}, 256], not {list(counts.shape)}")
        xp = namespace(counts)
        so_far, more = together(self._counts, xp.astype(counts, xp.int64))
        self._counts = so_far + more
        self._n = self._n + (n if is_torch_array(n) and not is_host(n) else int(n))

    def merge(self, other: PixelCounts) -> None:
        """Add what another has counted; it stays as it is. Exact, associative and commutative.

        Raises:
            InputError: If it has another number of channels.
        """
        if other.channels != self.channels:
            raise InputError(f"cannot merge pixel counts of {self.channels} and of {other.channels} channels")
        self._counts = self.counts + other.counts
        self._n = self.n + other.n

    @property
    def counts(self) -> NDArray[np.int64]:
        """int64 `[C, 256]` on the host. Waits for the accelerator if the counts are there."""
        return to_host(self._counts)

    @property
    def min(self) -> NDArray[np.float32]:
        """Smallest value of each channel, float32 `[C]`; NaN when nothing was counted."""
        return self.quantiles([0.0])[:, 0]

    @property
    def max(self) -> NDArray[np.float32]:
        """Largest value of each channel, float32 `[C]`; NaN when nothing was counted."""
        return self.quantiles([1.0])[:, 0]

    def quantiles(self, ranks: ArrayLike) -> NDArray[np.float32]:
        """Exact quantiles: the smallest value whose share of pixels at or below it reaches the rank.

        Args:
            ranks: `[r]`, each within 0 and 1.

        Returns:
            float32 `[C, r]`; NaN when nothing was counted.

        Raises:
            InputError: If a rank is outside 0 and 1.
        """
        counts = self.counts
        if not counts.any():
            return np.full((self.channels, checked_ranks(ranks).size), np.nan, np.float32)
        return quantiles(self._values(), counts, ranks)

    def cdf(self, points: ArrayLike) -> NDArray[np.float64]:
        """Share of pixels at or below each point, exactly.

        Args:
            points: `[p]`, shared by all channels, or `[C, p]`.

        Returns:
            float64 `[C, p]`; NaN when nothing was counted, and at a point that is NaN.

        Raises:
            InputError: If `points` has another shape.
        """
        counts = self.counts
        if not counts.any():
            return np.full_like(checked_points(points, self.channels), np.nan)
        return cdf(self._values(), counts, points)

    def summary(self, streams: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """Images, extremes and quantiles of each channel."""
        ends = zip(self.min.tolist(), self.max.tolist(), self.quantiles(RANKS).tolist(), strict=True)
        return {
            f"pixel/{channel}": {
                "kind": "pixels",
                "n": self.n,
                "min": low,
                "max": high,
                "quantiles": dict(zip(RANKS, values, strict=True)),
            }
            for channel, (low, high, values) in enumerate(ends)
        }

    def _values(self) -> NDArray[np.float32]:
        """The 256 values, of which `counts` are the weights."""
        return np.broadcast_to(np.arange(256, dtype=np.float32), (self.channels, 256))

    def to_bytes(self, k: int = 200) -> list[bytes]:
        """A KLL sketch of each channel's pixels in DataSketches' format, for any of its readers.

        The sketches use all the room k gives; their items err by half of one item's weight, far less than sketching
        the pixels would.

        Args:
            k: 8 to 65535.

        Raises:
            InputError: If `k` is out of range.
        """
        if not wire.MIN_K <= k <= wire.MAX_K:
            raise InputError(f"k should be {wire.MIN_K} to {wire.MAX_K}, not {k}")
        counts = self.counts
        sizes = wire.level_sizes(int(counts[0].sum()), k)
        return wire.write(k, sizes, fit(self._values(), counts, sizes), self.min, self.max)

    def to_host(self) -> Self:
        """The same counts with numpy state; itself if it has that already. Waits for the accelerator."""
        if is_numpy_array(self._counts):
            return self
        result = type(self)(self.channels)
        result._counts, result._n = self.counts, self.n
        return result

    def state(self) -> State:
        """Plain host arrays `counts` int64 `[C, 256]` and `n` int64, from which `from_state` makes the same again."""
        return {"counts": self.counts.copy(), "n": np.array(self.n, np.int64)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """The counts of which `state` is the state.

        Raises:
            FormatError: If it is not a state of pixel counts.
        """
        counts = field(state, "counts", np.int64, (None, 256))
        require(len(counts) >= 1, "no channels")
        require(bool(np.all((counts >= 0) & (counts <= LARGEST_COUNT // 256))), "a count is out of range")
        require(len(set(counts.sum(axis=1).tolist())) == 1, "channels of different numbers of pixels")
        result = cls(len(counts))
        result._counts, result._n = counts, number(state, "n")
        require(result.n > 0 or not counts.any(), "pixels without images")
        return result


def count_bytes(values: NDArray[np.uint8]) -> NDArray[np.int64]:
    """`numpy.bincount` of each channel of uint8 `[n, C, ...]` in host memory: int64 `[C, 256]`.

    Example:
        >>> count_bytes(np.full((2, 3, 4, 4), 9, np.uint8))[:, 9].tolist()
        [32, 32, 32]
    """
    counts = np.zeros((values.shape[1], 256), np.int64)
    step = max(1, _HOST_CHUNK // math.prod(values.shape[2:]))
    for start in range(0, values.shape[0], step):
        for channel in range(values.shape[1]):
            flat = np.ascontiguousarray(values[start : start + step, channel]).reshape(-1)
            for begin in range(0, flat.size, _HOST_CHUNK):
                counts[channel] += _count_flat(flat[begin : begin + _HOST_CHUNK])
    return counts


def _count_flat(flat: NDArray[np.uint8]) -> NDArray[np.int64]:
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and flat.size >= _PILLOW_FROM:  # bincount makes int64 of bytes first
        line = pillow.frombuffer("L", (flat.size, 1), flat, "raw", "L", 0, 1)
        return np.array(line.histogram(), np.int64)
    paired = flat.size & ~1 if flat.size >= _PAIRS_FROM else 0
    counts: NDArray[np.int64] = np.bincount(flat[paired:], minlength=256)
    if paired:
        pairs = np.bincount(flat[:paired].view(np.uint16), minlength=65536).reshape(256, 256)
        counts += pairs.sum(axis=0) + pairs.sum(axis=1)
    return counts


def count_images(values: Array) -> Array:
    """How often each of the 256 values occurs in each channel of uint8 `[n, C, ...]`: whole numbers `[C, 256]`.

    Where the values are, without waiting. JAX and TensorFlow count in int32, and may be given floats that are whole.

    Example:
        >>> count_images(np.full((2, 3, 4, 4), 9, np.uint8))[:, 9].tolist()
        [32, 32, 32]
    """
    if is_numpy_array(values):
        return count_bytes(values)
    if not is_immutable(values):
        return count_by_sorting(values)
    xp, (_, channels, *rest) = namespace(values), shape_of(values)
    return xp.sum(xp.reshape(count_rows(xp.reshape(values, (-1, math.prod(rest)))), (-1, channels, 256)), axis=0)


def count_rows(values: Array) -> Array:
    """Counts of the 256 values in each row of an array of JAX or TensorFlow `[r, m]`, m > 0: int32 `[r, 256]`."""
    xp = namespace(values)
    if is_jax_array(values):
        ordered, bins = xp.sort(xp.astype(values, xp.uint8), axis=1), xp.arange(256, dtype=xp.uint8)
        upto = sys.modules["jax"].vmap(lambda row: xp.searchsorted(row, bins, side="right"))(ordered)
    else:  # as floats, since not all of the kernels involved exist for bytes on GPUs
        ordered, bins = xp.sort(xp.astype(values, xp.float32), axis=1), np.arange(256, dtype=np.float32)
        upto = xp.searchsorted(ordered, xp.zeros_like(ordered[:, :1]) + bins, side="right")
    return xp.concat([upto[:, :1], upto[:, 1:] - upto[:, :-1]], axis=1)


def count_by_sorting(values: Array) -> Array:
    """The same as `count_bytes` for a torch tensor, on its device and without waiting for it: int64 `[C, 256]`."""
    xp = namespace(values)
    n, channels = values.shape[:2]
    bins = xp.arange(256, dtype=xp.uint8, device=values.device).expand(channels, 256).contiguous()
    counts = xp.zeros((channels, 256), dtype=xp.int64, device=values.device)
    step = max(1, _DEVICE_CHUNK // max(1, math.prod(values.shape[1:])))
    for start in range(0, n, step):
        block = xp.moveaxis(values[start : start + step], 1, 0).reshape(channels, -1)
        upto = xp.searchsorted(xp.sort(block.contiguous(), axis=1), bins, side="right")
        counts[:, :1] += upto[:, :1]
        counts[:, 1:] += upto[:, 1:] - upto[:, :-1]
    return counts
