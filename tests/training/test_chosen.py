"""Which batches are profiled: one of each block, by seed and epoch, whatever the number; nested, without a period."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from lensai_integrations.training.chosen import ChosenBatches, is_chosen

KS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 32, 60, 64, 96, 1024)


def chosen(every, blocks, **how):
    return [index for index in range(every * blocks) if is_chosen(index, every, **how)]


@pytest.mark.parametrize("every", KS)
def test_one_of_each_block(every):
    assert [index // every for index in chosen(every, 40, seed=3, epoch=2)] == list(range(40))


@pytest.mark.parametrize("every", KS)
def test_what_is_profiled_with_twice_the_number_is_profiled_with_the_number(every):
    assert set(chosen(2 * every, 20, seed=5)) < set(chosen(every, 40, seed=5))


def test_powers_of_two_are_nested():
    sets = [set(chosen(2**level, 2 ** (9 - level))) for level in range(10)]

    assert all(rarer < more for more, rarer in pairwise(sets))
    assert [len(one) for one in sets] == [2 ** (9 - level) for level in range(10)]


@pytest.mark.parametrize("every", [4, 6, 9])
def test_there_is_no_period(every):
    """Every place in a block comes up about equally often, and a block does not tell the next."""
    places = [index % every for index in chosen(every, 3000, seed=1)]
    pairs = Counter(pairwise(places))

    for counts, cells in ((Counter(places), every), (pairs, every**2)):
        expected = counts.total() / cells
        surprise = sum((counts[cell] - expected) ** 2 / expected for cell in counts)
        assert len(counts) == cells
        assert surprise < 2 * cells  # a chi-squared number with as many degrees of freedom, at 1 in 1,000 or rarer


def test_seed_and_epoch_choose_others():
    drawn = {(seed, epoch): tuple(chosen(8, 50, seed=seed, epoch=epoch)) for seed in (0, 1, 2**62) for epoch in (0, 1)}

    assert len(set(drawn.values())) == 6


def test_another_process_chooses_the_same():
    code = "from lensai_integrations.training.chosen import is_chosen as c\nprint(*(i for i in range(240) if c(i, 24)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert [*map(int, out.split())] == chosen(24, 10)


def test_a_pass_is_counted():
    batches = ChosenBatches(5, seed=2)
    for epoch in range(2):
        batches.begin(epoch, together=3)
        for index in range(23):
            batches.ended(profiled=batches.takes(index))

        assert batches.counts() == {
            "profiled": sum(is_chosen(index, 5, seed=2, epoch=epoch) for index in range(23)),
            "of": 23,
            "every": 5,
            "together": 3,
        }
        assert batches.complaint() == ""
