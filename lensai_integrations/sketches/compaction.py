"""Compaction, the one lossy step of a KLL sketch: sort, keep one item in so many, let it stand for the others.

Where the first kept item lies is random, one offset per stream, so that no rank is systematically over- or
under-estimated. Offsets come in pairs: a compaction's and, at the same level, the next one's, mirrored. Each is
uniform by itself, so the estimate stays unbiased; and since the error of a rank can only fall when the offset
grows, the two errors are never positively correlated, whatever the data. On data without structure the
pair has half the variance of two independent ones.

Offsets are a hash of (seed, stream, level, number of the compaction) rather than the next draw of a generator. So
there is no generator state to keep, an accelerator and a host choose alike, and nobody's random numbers are used up.

numpy's sort works on contiguous rows a few hundred values long, at 1-2 ns a value. So host items are copied, block
by block, into a buffer that stays in the processor's cache: transposed, sorted and thinned there.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, namespace

#: Values of a block: 256 KiB of float32, well inside a level-2 cache.
BLOCK = 1 << 16
#: The multiplier of multiplicative hashing: 2**64 divided by the golden ratio, as a signed integer.
GOLDEN = -0x61C8864680B583EB


def stream_keys(seed: int, dim: int) -> NDArray[np.int64]:
    """A random number per stream, int64 `[dim]`, which the seed determines.

    Example:
        >>> stream_keys(seed=0, dim=2).dtype
        dtype('int64')
    """
    return np.random.PCG64(seed).random_raw(dim).view(np.int64)


def offsets(keys: Array, level: int, count: int, stride: int) -> Array:
    """Which of every `stride` sorted items a compaction keeps.

    Args:
        keys: int64 `[dim]`, the streams' random numbers.
        level: the level that is compacted.
        count: how many compactions of that level came before; the offsets of an odd one mirror its predecessor's.
        stride: a power of two, at most 2**16.

    Returns:
        int64 `[dim]` in 0..stride-1, where the keys lie.

    Example:
        >>> keys = stream_keys(seed=0, dim=4)
        >>> (offsets(keys, level=1, count=6, stride=8) + offsets(keys, level=1, count=7, stride=8)).tolist()
        [7, 7, 7, 7]
    """
    pair = hashlib.blake2b(f"{level}/{count // 2}".encode(), digest_size=8).digest()
    mixed = (keys ^ int.from_bytes(pair, "little", signed=True)) * GOLDEN
    mirror = -(count % 2)  # all bits set turn an offset into stride - 1 - offset
    return ((mixed >> 48) ^ mirror) & (stride - 1)


def thin(items: Array, stride: int, offset: Array, out: Array) -> tuple[Array, Array]:
    """Sort each stream's items and write every `stride`-th, beginning with its offset, to `out`.

    Args:
        items: float32 `[dim, m]`, m a multiple of stride; any memory layout; left as it is.
        stride: how many items each kept one stands for.
        offset: int64 `[dim]`.
        out: float32 `[dim, m // stride]`, written to.

    Returns:
        The smallest and the largest item of each stream, `[dim]` each. On an accelerator NaN marks the items of rows
        left out: they are thinned as the largest of all, and passed over here (+inf and -inf where all are NaN).

    Example:
        >>> kept = np.empty((1, 2), np.float32)
        >>> low, high = thin(np.array([[7, 1, 5, 3]], np.float32), 2, np.array([1]), kept)
        >>> kept.tolist(), low.tolist(), high.tolist()
        ([[3.0, 7.0]], [1.0], [7.0])
    """
    return (_thin_host if isinstance(items, np.ndarray) else _thin_device)(items, stride, offset, out)


def _thin_host(items: Array, stride: int, offset: Array, out: Array) -> tuple[Array, Array]:
    dim, width = items.shape
    block = min(dim, max(1, BLOCK // width))
    buffer = np.empty((block, width), np.float32)
    streams = np.arange(block)
    low, high = np.empty((2, dim), np.float32)
    for start in range(0, dim, block):
        part = slice(start, min(start + block, dim))
        ordered = buffer[: part.stop - start]
        ordered[...] = items[part]
        ordered.sort(axis=1)
        low[part], high[part] = ordered[:, 0], ordered[:, -1]
        out[part] = _every(ordered, stride, offset[part], streams[: part.stop - start])
    return low, high


def _thin_device(items: Array, stride: int, offset: Array, out: Array) -> tuple[Array, Array]:
    xp = namespace(items)
    ordered = xp.sort(items, axis=1)
    out[...] = _every(ordered, stride, offset, xp.arange(items.shape[0], device=device(items)))
    absent = xp.isnan(ordered)
    low = xp.min(xp.where(absent, xp.inf, ordered), axis=1)
    high = xp.max(xp.where(absent, -xp.inf, ordered), axis=1)
    return low, high


def _every(ordered: Array, stride: int, offset: Array, streams: Array) -> Any:
    return ordered.reshape(ordered.shape[0], -1, stride)[streams, :, offset]
