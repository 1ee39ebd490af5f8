"""What sketches ask of a torch accelerator for a block of 512 rows: numbers that are not to rise, and no copy to it."""

from __future__ import annotations

import pytest
import torch
from checks.operations import Operations

from lensai_integrations.measures.embeddings import reduce_embedding
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments

BLOCKS = 64


def steady(update, rows, before: int = 64) -> float:
    """Operations for a block, on average over blocks behind the first ones."""
    for _ in range(before):
        update(rows)
    with Operations() as operations:
        for _ in range(BLOCKS):
            update(rows)
    return operations.count / BLOCKS


@pytest.mark.parametrize("dim", [20, 1004])
def test_moments_with_covariances(accelerator, dim):
    assert steady(Moments(dim).update, accelerator((512, dim))) <= 7  # 6, and a new centre now and then


def test_moments_of_wide_rows(accelerator):
    assert steady(Moments(2048).update, accelerator((512, 2048))) <= 10


@pytest.mark.parametrize("dim", [20, 2048])
def test_kernel_means(accelerator, dim):
    assert steady(KernelMean(dim).update, accelerator((512, dim))) <= 14
    assert steady(KernelMean(dim, exponents=(1,)).update, accelerator((512, dim))) <= 10


@pytest.mark.parametrize("dim", [13, 2048])
def test_banks(accelerator, dim):
    assert steady(KLLBank(dim, seed=0).update, accelerator((512, dim))) <= 18


def test_categories(accelerator):
    assert steady(Categories().update, accelerator((512,), torch.int64)) <= 2
    pair = accelerator((512,), torch.int32), accelerator((512,), torch.bool)
    assert steady(Categories().update, pair) <= 2


@pytest.mark.parametrize(("make", "most"), [(Moments, 6), (KernelMean, 14), (lambda dim: KLLBank(dim, seed=0), 6)])
def test_small_batches_are_copied_and_wait(accelerator, make, most):
    """A batch of 64 costs one copy, and its part of what a block costs; a kernel mean takes each batch for itself."""
    assert steady(make(64).update, accelerator((64, 64))) <= most


def test_larger_blocks_cost_no_more(accelerator):
    for make, most in ((Moments, 7), (KernelMean, 14)):
        assert steady(make(64).update, accelerator((2048, 64)), before=16) <= most


def test_means_of_maps_are_one_operation(accelerator):
    for shape in ((128, 64, 7, 7), (128, 50, 64)):
        maps = accelerator(shape, torch.bfloat16)
        with Operations() as operations:
            reduce_embedding(maps)
        assert operations.count == 1


def sent(sketches, rows) -> list[int]:
    """Bytes of each copy to the accelerator that the first rows cause."""

    class Copies(Operations):
        def __init__(self) -> None:
            super().__init__()
            self.bytes: list[int] = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = super().__torch_dispatch__(func, types, args, kwargs)
            if func.__name__.startswith("_to_copy") and args[0].device != result.device:
                self.bytes.append(args[0].nbytes)
            return result

    with Copies() as copies:
        for sketch in sketches:
            sketch.update(rows)
    return copies.bytes


def test_new_sketches_send_next_to_nothing(accelerator):
    """A bank the random numbers of its streams; kernel means their frequencies, once for all of a width."""
    rows = accelerator((512, 1004))
    assert sent([Moments(1004)], rows) == []
    assert sent([KLLBank(1004)], rows) == [8 * 1004]
    assert sent([KernelMean(1004), KernelMean(1004, exponents=(0, 1))], rows) == [8 * 1004 * 256]
