"""Small host arrays on their way to the accelerator, without waiting for it.

A sketch decides on the host which row goes where, and the device only has to be told: a few hundred indices a batch.
A plain copy would stop the host until everything queued before it is done; a non-blocking one is queued like any
other work. torch is reached through the tensor the caller already holds, never imported.

Lightning validates in torch's inference mode, and a tensor made there may not be written to outside. So what a sketch
keeps is made outside of it, whatever mode the caller is in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from lensai_integrations.arrays import Array, namespace


def send(array: NDArray[Any], like: Array) -> Array:
    """`array` where `like` lies: itself if that is numpy, else a tensor on the same device, copied without waiting.

    float64 becomes float32 on Apple's GPUs, which have none.

    Example:
        >>> send(np.arange(2), like=np.zeros(3)).tolist()
        [0, 1]
    """
    if is_numpy_array(like):
        return array
    xp, dtype = namespace(like), array.dtype
    if dtype == np.float64 and like.device.type == "mps":
        dtype = np.dtype(np.float32)
    with xp.inference_mode(False):
        return xp.from_numpy(np.array(array, dtype)).to(like.device, non_blocking=True)


def unfilled(shape: tuple[int, ...], dtype: str, like: Array) -> Array:
    """An array to be written to, beside `like`. In host memory it takes none before it is written.

    Example:
        >>> unfilled((2, 3), "float32", like=np.zeros(1)).shape
        (2, 3)
    """
    xp = namespace(like)
    if is_numpy_array(like):
        return xp.empty(shape, dtype=getattr(xp, dtype))
    with xp.inference_mode(False):
        return xp.empty(shape, dtype=getattr(xp, dtype), device=like.device)


def together(held: Array, rows: Array) -> tuple[Array, Array]:
    """Two arrays on one device: what lies on the host is sent to where the other is. Nothing is ever waited for.

    Example:
        >>> [a.tolist() for a in together(np.zeros(1), np.ones(1))]
        [[0.0], [1.0]]
    """
    if is_numpy_array(held) and not is_numpy_array(rows):
        return send(held, rows), rows
    return held, send(rows, held) if is_numpy_array(rows) else rows


def joined(parts: list[Array]) -> Array:
    """Rows of several arrays in one; on the accelerator if some are on one.

    Example:
        >>> joined([np.zeros((1, 2)), np.ones((2, 2))]).shape
        (3, 2)
    """
    like = next((part for part in parts if not is_numpy_array(part)), parts[0])
    return namespace(like).concat([send(part, like) if is_numpy_array(part) else part for part in parts])
