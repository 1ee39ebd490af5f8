"""What tests of plain torch modules share."""

from __future__ import annotations

import warnings

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this tiny are slower on several threads, a hundred times so where others use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def quantised():
    """`quantised(model)`: with the weights of its linear layers packed in whole numbers."""

    def make(model):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, that this way to quantise ends
            return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    return make
