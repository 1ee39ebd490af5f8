"""Levels keep the total weight through every step, stay few, and are read back exactly or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import FormatError
from lensai_integrations.sketches.bank import DEPTH, HIGHEST_ENTRY, LEAST, Levels
from lensai_integrations.sketches.weighted import total_weight

LIKE = np.empty(0, np.float32)


def columns(dim: int, seed: int = 0, width: int = LEAST) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((dim, width)).astype(np.float32)


def filled(blocks: int, dim: int = 2, seed: int = 0) -> Levels:
    levels = Levels(dim, 200, seed)
    for block in range(blocks):
        levels.enter(columns(dim, block))
    return levels


def add(levels: Levels, level: int, width: int) -> None:
    levels.room(level, width, LIKE)[...] = columns(levels.dim, level, width)


@pytest.mark.parametrize(
    ("k", "capacity"), [(8, 512), (200, 512), (204, 512), (205, 1024), (400, 1024), (65535, 1 << 18)]
)
def test_capacity_is_at_least_two_and_a_half_k(k: int, capacity: int) -> None:
    assert Levels(1, k, 0).capacity == capacity >= min(2.5 * k, capacity)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 9, 40, 300])
def test_entering_keeps_the_weight_and_fills_no_level_over(blocks: int) -> None:
    sizes, items = filled(blocks).laid_out()
    assert total_weight(sizes) == blocks * LEAST
    assert items.shape == (2, sum(sizes))
    assert max(sizes) <= LEAST


def test_levels_stay_few_and_free_what_they_do_not_use() -> None:
    levels = Levels(1, 200, 0)
    for block in range(2000):
        levels.enter(columns(1, block))
        top = max(levels.sizes)
        entry = min(max(1, top - DEPTH + 1), HIGHEST_ENTRY)
        assert len(levels.items) <= top - entry + 3  # those above the entry, and one not emptied before the next block
    assert top == 10  # a million rows in items of 2**10 at most


def test_everything_kept_was_given() -> None:
    levels = Levels(2, 200, 0)
    blocks = [columns(2, seed) for seed in range(30)]
    for block in blocks:
        levels.enter(block)
    given_values = np.concatenate(blocks, axis=1)
    items = levels.laid_out()[1]
    for stream in range(2):
        assert np.isin(items[stream], given_values[stream]).all()
        assert len(np.unique(items[stream])) == items.shape[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 700)), min_size=1, max_size=25))
def test_any_widths_at_any_levels_keep_the_weight(steps: list[tuple[int, int]]) -> None:
    levels = Levels(1, 200, 0)
    expected = 0
    for level, width in steps:
        add(levels, level, width)
        expected += width << level
        assert total_weight(levels.laid_out()[0]) == expected
    levels.enter(columns(1))
    sizes, items = levels.laid_out()
    assert total_weight(sizes) == expected + LEAST
    assert not np.isnan(items).any()


def test_the_odd_item_stays_behind() -> None:
    levels = Levels(1, 200, 0)
    add(levels, 1, 511)
    given_values = levels.items[1][0, :511].copy()
    add(levels, 1, 100)
    assert levels.sizes == {1: 101, 2: 255}
    stayed, pushed = levels.items[1][0, 0], levels.items[2][0, :255]
    assert stayed == given_values[0]
    others = np.sort(given_values[1:])
    assert pushed.tolist() in (others[0::2].tolist(), others[1::2].tolist())


def test_low_levels_are_emptied_and_freed() -> None:
    levels = filled(60)
    add(levels, 1, 101)
    levels.enter(columns(2))
    assert levels.sizes[1] == 1
    assert levels.items[1].shape == (2, 1)
    add(levels, 1, 7)
    assert levels.sizes[1] == 8


def test_withdrawing_takes_back_exactly_what_entered() -> None:
    levels = Levels(2, 200, 0)
    levels.enter(columns(2))
    levels.withdraw()
    assert levels.laid_out()[0] == []
    levels = filled(7)
    before, items = levels.laid_out()
    levels.enter(columns(2, 99))
    levels.withdraw()
    after = levels.laid_out()
    assert total_weight(after[0]) == total_weight(before)
    assert np.isin(after[1], items).all()


def test_streams_of_a_bank_are_independent_of_each_other() -> None:
    """A stream gets the same items whichever others are beside it: its offsets depend on its place alone."""
    wide, narrow = Levels(5, 200, 3), Levels(2, 200, 3)
    for block in range(20):
        rows = columns(5, block)
        wide.enter(rows)
        narrow.enter(rows[:2])
    np.testing.assert_array_equal(wide.laid_out()[1][:2], narrow.laid_out()[1])


def test_torch_makes_the_same_choices() -> None:
    host, tensors = Levels(3, 200, 5), Levels(3, 200, 5)
    tensors.send(torch.empty(0))
    for block in range(50):
        host.enter(columns(3, block))
        tensors.enter(torch.from_numpy(columns(3, block)))
    assert isinstance(tensors.items[max(tensors.sizes)], torch.Tensor)
    copied = tensors.on_host()
    assert copied.laid_out()[0] == host.laid_out()[0]
    np.testing.assert_array_equal(copied.laid_out()[1], host.laid_out()[1])


def test_copies_share_nothing() -> None:
    levels = filled(3)
    sizes, items = levels.laid_out()
    for copied in (levels.on_host(), levels.relaid(sizes, items)):
        for block in range(10):
            copied.enter(columns(2, block))
    assert levels.laid_out()[0] == sizes
    np.testing.assert_array_equal(levels.laid_out()[1], items)
    assert levels.compactions == filled(3).compactions


def test_state_goes_on_exactly() -> None:
    levels = filled(33, seed=8)
    restored = Levels.from_state(levels.state(), 2, 200)
    for block in range(40, 60):
        levels.enter(columns(2, block))
        restored.enter(columns(2, block))
    assert restored.laid_out()[0] == levels.laid_out()[0]
    np.testing.assert_array_equal(restored.laid_out()[1], levels.laid_out()[1])


def test_state_of_nothing() -> None:
    assert Levels.from_state(Levels(2, 200, 0).state(), 2, 200).laid_out()[0] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sizes", np.array([0, -1, 2])),
        ("sizes", np.array([1.0])),
        ("sizes", np.array([[1]])),
        ("sizes", np.array([2**62, 1])),
        ("sizes", np.array([0, 0])),
        ("sizes", np.zeros(62, np.int64)),
        ("compactions", np.array([-1])),
        ("compactions", np.zeros(100, np.int64)),
        ("seed", np.array(-1)),
        ("seed", np.array(0.5)),
        ("items", np.zeros((2, 3), np.float32)),
        ("items", np.zeros((3, 256), np.float32)),
        ("items", np.full((2, 256), np.nan, np.float32)),
        ("items", np.zeros((2, 256))),
        ("items", None),
        ("seed", "seed"),
    ],
)
def test_damaged_state_is_refused(name: str, value: Any) -> None:
    state = filled(1).state()
    assert Levels.from_state(state, 2, 200).sizes == {1: 256}
    with pytest.raises(FormatError):
        Levels.from_state(state | {name: value}, 2, 200)
