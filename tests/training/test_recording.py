from __future__ import annotations

import sys

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from lensai_integrations.training import recording
from lensai_integrations.training.recording import one_blas_thread


def blas_threads():
    return {pool["num_threads"] for pool in ThreadpoolController().select(user_api="blas").info()}


@pytest.fixture
def several():
    """numpy with two threads, whatever the machine has, and whatever libraries other tests have loaded."""
    recording._blas_pools.cache_clear()
    with ThreadpoolController().select(user_api="blas").limit(limits=2):
        yield


@pytest.mark.usefixtures("several")
def test_one_thread_inside_and_as_before_outside():
    assert blas_threads() == {2}
    with one_blas_thread():
        assert blas_threads() == {1}
    assert blas_threads() == {2}


@pytest.mark.usefixtures("several")
def test_as_before_after_an_error():
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        _ = 1 / 0
    assert blas_threads() == {2}


def test_without_threadpoolctl_it_does_nothing(monkeypatch):
    recording._blas_pools.cache_clear()
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with one_blas_thread():
        assert np.ones(3) @ np.ones(3) == 3
    recording._blas_pools.cache_clear()
