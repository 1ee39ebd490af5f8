"""How much of a pass a profile is of: over merges, bytes and in words."""

from __future__ import annotations

from functools import reduce

import pytest

from lensai_integrations import Profile
from lensai_integrations.profiles.coverage import coverage_text, is_whole, merged_coverage
from lensai_integrations.profiles.profile import from_bytes, to_bytes


def profile(**batches):
    return Profile(info={"source": "training", "batches": batches} if batches else {"source": "training"})


def test_ranks_add_up_and_say_what_they_agree_on():
    ranks = [profile(profiled=p, of=96, every=8, cost=0.02, share=s) for p, s in ((12, 0.01), (11, 0.03), (12, 0.02))]
    merged = reduce(Profile.merge, ranks)

    assert merged.info["batches"] == {"profiled": 35, "of": 288, "every": 8, "cost": 0.02, "share": 0.03}
    assert from_bytes(to_bytes(merged)).info == merged.info


def test_ranks_that_a_cost_drove_apart_name_no_number():
    merged = profile(profiled=12, of=96, every=8, cost=0.02).merge(profile(profiled=6, of=96, every=16, cost=0.02))

    assert merged.info["batches"] == {"profiled": 18, "of": 192, "cost": 0.02}
    assert coverage_text(merged.info) == "18 of 192 batches (cost=0.02)"


@pytest.mark.parametrize(
    "other", [{}, {"batches": None}, {"batches": {"every": 3}}, {"batches": {"profiled": "x", "of": 2}}]
)
def test_beside_one_that_counts_none_there_is_no_count(batches):
    one, other = {"batches": {"profiled": 12, "of": 96}}, {"batches": batches}

    assert merged_coverage(one, other) == merged_coverage(other, one) == {}
    assert "batches" not in Profile(info=one).merge(Profile(info=other)).info


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        ({"profiled": 1200, "of": 96000, "every": 80}, "1,200 of 96,000 batches, one in 80"),
        ({"profiled": 3, "of": 12, "every": 4, "together": 8}, "3 of 12 calls of 8 steps, one in 4"),
        ({"profiled": 3, "of": 12, "every": 4, "cost": 0.02}, "3 of 12 batches, at the end one in 4 (cost=0.02)"),
        ({"profiled": 3, "of": 12}, "3 of 12 batches"),
        ({"every": 4}, ""),
        ("12 of 96", ""),
    ],
)
def test_in_words(batches, text):
    assert coverage_text({"batches": batches}) == text


def test_whole_is_what_has_no_other_batches():
    assert is_whole({"batches": {"profiled": 96, "of": 96, "every": 1, "cost": 0.5}})
    assert not is_whole({"batches": {"profiled": 95, "of": 96}})
