"""Measuring in worker processes: each on one core, as torch's own loader workers are."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from importlib import import_module

_alone: list[int] = []


def stay_on_one_core() -> None:
    """In a worker process, keep numpy's BLAS from starting threads; once in a process, and in no other.

    Workers are as many as the cores they are meant to fill. Without `threadpoolctl` nothing is changed.

    Example:
        >>> stay_on_one_core()
    """
    if os.getpid() in _alone or multiprocessing.parent_process() is None:
        return
    _alone[:] = [os.getpid()]
    with suppress(ImportError):
        import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
