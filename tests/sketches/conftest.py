"""An accelerator for machines that have none."""

from __future__ import annotations

import pytest
from checks.accelerator import an_accelerator


@pytest.fixture
def accelerator():
    """Makes tensors on a CUDA device that does not exist, and objects to being waited for."""
    with an_accelerator() as make:
        yield make
