"""numpy's matrix products kept out of the way of the training's threads.

After a product on several threads, OpenBLAS's workers wait for the next one by spinning, for tens of milliseconds, on
the very cores on which torch computes the next training step. A batch's products are small enough for one thread, which
leaves no worker behind.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from typing import Any


def one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which numpy's linear algebra uses the calling thread alone. It costs some microseconds.

    Example:
        >>> import numpy as np
        >>> with one_blas_thread():
        ...     float(np.ones(3) @ np.ones(3))
        3.0
    """
    pools = _blas_pools()
    return nullcontext() if pools is None else pools.limit(limits=1)


@cache
def _blas_pools() -> Any:
    """Handles of the BLAS libraries that are loaded, or None without threadpoolctl."""
    try:
        return import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    except ImportError:
        return None
