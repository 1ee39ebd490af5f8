"""Segments: every row is in one, measured once; bounded in number, before merging and after."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import LIBRARIES, as_if_elsewhere, maker
from profiles import batch

from lensai_integrations import ImageInputs, Profile, Profiler
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.names import OTHER_SEGMENT
from lensai_integrations.profiles.profile import bounded, to_bytes
from lensai_integrations.profiling.measuring import Measured
from lensai_integrations.profiling.recorders import Inputs
from lensai_integrations.profiling.segmenting import segment_k
from lensai_integrations.sketches.bank import KLLBank

RANKS = [0.0, 0.05, 0.5, 0.95, 1.0]


def segmented(names: list[Any], most: int = 3, split: int = 7, seed: int = 0, **more: Any) -> Profile:
    """A profile of random rows of three columns, some not finite, with these values."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(names), 3)).astype(np.float32)
    rows[rng.random(len(names)) < 0.2, 1] = np.nan
    profiler = Profiler(segment_by="site", max_segments=most, seed=seed, task="values", **more)
    for start in range(0, len(names), split):
        part = slice(start, start + split)
        profiler.update(outputs=rows[part], embeddings={"e": np.nan_to_num(rows[part])}, segments=names[part])
    return profiler.profile()


def counts(profile: Profile) -> dict[str, int]:
    return {name: segment.n for name, segment in profile.segments.items()}


def assert_adds_up(profile: Profile) -> None:
    """Group by group, the valid rows of the segments are those of the whole, and so are the invalid ones."""
    for name, group in profile.groups.items():
        parts = [segment.groups[name] for segment in profile.segments.values() if name in segment.groups]
        assert (sum(part.n for part in parts), sum(part.invalid for part in parts)) == (group.n, group.invalid), name
    assert sum(counts(profile).values()) == profile.n
    assert sum(name != OTHER_SEGMENT for name in profile.segments) <= profile.info["max_segments"]


VALUES = st.lists(st.sampled_from([None, "a", "b", "c", "d", "", 1, "1", OTHER_SEGMENT]), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None)
@given(VALUES, st.integers(1, 4), st.integers(1, 20))
def test_every_row_is_in_one_segment(names: list[Any], most: int, split: int) -> None:
    profile = segmented(names, most, split)
    assert_adds_up(profile)
    texts = ["" if name is None else str(name) for name in names]
    own = list(dict.fromkeys(name for name in texts if name not in ("", OTHER_SEGMENT)))[:most]
    expected = {name: texts.count(name) for name in own}
    rest = len(names) - sum(expected.values())
    assert counts(profile) == expected | ({OTHER_SEGMENT: rest} if rest else {})


@settings(max_examples=15, deadline=None)
@given(st.lists(VALUES, min_size=2, max_size=4), st.integers(1, 4))
def test_merging_adds_up_and_stays_bounded(parts: list[list[Any]], most: int) -> None:
    profiles = [segmented(names, most, seed=seed) for seed, names in enumerate(parts)]
    left = reduce(Profile.merge, profiles)
    right = reduce(lambda after, before: before.merge(after), reversed(profiles))
    for merged in (left, right):
        assert_adds_up(merged)
        assert merged.n == sum(map(len, parts))
        assert merged.info["segment_by"] == "site"
        assert merged.warnings == list(dict.fromkeys(w for profile in profiles for w in profile.warnings))
    if len({str(name) for names in parts for name in names}) <= most:
        assert counts(left) == counts(right)


def test_the_largest_stay_when_merged() -> None:
    merged = segmented(["a"] * 5 + ["b"], 2, seed=1).merge(segmented(["c"] * 4 + ["d"] * 2 + ["b"], 2, seed=2))
    assert counts(merged) == {"a": 5, "c": 4, OTHER_SEGMENT: 4}
    assert counts(bounded_again(merged)) == {"a": 5, OTHER_SEGMENT: 8}
    labels = merged.segments[OTHER_SEGMENT].groups["outputs"].bank
    assert labels is not None
    assert labels.rows_seen == 4


def bounded_again(profile: Profile) -> Profile:
    return Profile(profile.groups, None, profile.info, bounded(profile.segments, 1))


def test_an_empty_side_does_not_matter_and_another_way_of_segmenting_does() -> None:
    profile, empty = segmented(["a", "b"]), Profiler().profile()
    for merged in (profile.merge(empty), empty.merge(profile)):
        assert counts(merged) == {"a": 1, "b": 1}
    plain = Profiler(task="values")
    plain.update(outputs=np.zeros((4, 3), np.float32))
    for merged in (profile.merge(plain.profile()), plain.profile().merge(profile)):
        assert merged.segments == {}
        assert "segment_by" not in merged.info
        assert "segments were dropped in merging" in merged.warnings[-1]


def test_a_segment_holds_what_its_rows_alone_would() -> None:
    whole = batch(np.random.default_rng(0), 300)
    whole["inputs"] = whole["inputs"].astype(np.float32) / 255
    whole["inputs"][::7, 0, 0, 0] = np.nan
    images = ImageInputs(layout="NHWC", scale=255)
    profiler = Profiler(segment_by="label", seed=1, inputs=images)
    profiler.update(**whole)
    profile = profiler.profile()
    assert_adds_up(profile)
    assert set(profile.segments) == {"0", "1", "2", "3"}
    for name, segment in profile.segments.items():
        mine = whole["labels"] == int(name)
        alone = Profiler(seed=2, inputs=images)
        alone.update(
            inputs=whole["inputs"][mine],
            outputs=whole["outputs"][mine],
            embeddings={"avgpool": whole["embeddings"]["avgpool"][mine]},
            labels=whole["labels"][mine],
        )
        for key, group in alone.profile().groups.items():
            found = segment.groups[key]
            assert (found.n, found.invalid, found.streams) == (group.n, group.invalid, group.streams)
            assert found.definitions == group.definitions
            if group.bank is not None:
                np.testing.assert_array_equal(found.bank.quantiles(RANKS), group.bank.quantiles(RANKS))  # type: ignore[union-attr]
            for stream, categories in group.categories.items():
                assert found.categories[stream].top(9) == categories.top(9)
        assert segment.rows is None
        assert {kind for group in segment.groups.values() for kind in group.sketches} == {
            "bank",
            "categories/",
            "categories/top_class",
        }


def test_images_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    measure = Inputs.measure

    def counting(self: Inputs, images: Any) -> Measured:
        seen.append(len(images.batch))
        return measure(self, images)

    monkeypatch.setattr(Inputs, "measure", counting)
    profiler = Profiler(segment_by="label")
    for _ in range(3):
        profiler.update(**batch(np.random.default_rng(0), 20))
    assert sum(segment.n for segment in profiler.profile().segments.values()) == sum(seen) == 60


def test_the_whole_is_the_same_with_segments_and_without() -> None:
    plain, split = Profiler(seed=4), Profiler(seed=4, segment_by="label")
    for seed in range(12):
        for profiler in (plain, split):
            profiler.update(**batch(np.random.default_rng(seed), 64))
    whole = split.profile()
    info = {"created": ""}
    bare = Profile(whole.groups, whole.rows, plain.profile().info | info)
    assert to_bytes(bare) == to_bytes(Profile(plain.profile().groups, plain.profile().rows, bare.info))


@pytest.mark.parametrize("split", [30, 700])
def test_how_rows_are_split_into_batches_does_not_matter(split: int) -> None:
    names = [f"{value:.0f}" for value in np.random.default_rng(1).exponential(3, 1400)]
    profile, once = segmented(names, 4, split), segmented(names, 4, 1400)
    assert counts(profile) == counts(once)
    for name, segment in once.segments.items():
        for key, group in segment.groups.items():
            other = profile.segments[name].groups[key]
            np.testing.assert_allclose(other.bank.quantiles(RANKS), group.bank.quantiles(RANKS), atol=0.25)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["cat", "dog", "cat"], {"cat": 2, "dog": 1}),
        (np.array(["zoë", "zoë", "日本"]), {"zoë": 2, "日本": 1}),
        (np.eye(4)[[3, 0, 3]], {"3": 2, "0": 1}),
        ([7, -1, 7], {"7": 2, "-1": 1}),
        (np.array([[2], [2], [9]], np.int16), {"2": 2, "9": 1}),
        (np.array([True, False, True]), {"1": 2, "0": 1}),
        (None, {OTHER_SEGMENT: 3}),
    ],
)
def test_labels_of_all_kinds(labels: Any, expected: dict[str, int]) -> None:
    profiler = Profiler(segment_by="label", task="values")
    profiler.update(outputs=np.zeros((3, 2)), labels=labels)
    assert counts(profiler.profile()) == expected


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_gives_the_same_segments(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_elsewhere(monkeypatch)
    make, found = maker(library), []
    for library_of in (make, np.asarray):
        profiler, rng = Profiler(segment_by="label", seed=1), np.random.default_rng(0)
        for _ in range(24):  # more rows than wait to be split
            one = batch(rng, 24)
            profiler.update(
                outputs=library_of(one["outputs"]),
                labels=library_of(one["labels"].astype(np.int32)),
            )
        found.append(profiler.profile())
        assert_adds_up(found[-1])
    assert counts(found[0]) == counts(found[1])
    for name, segment in found[1].segments.items():
        for key, group in segment.groups.items():
            other = found[0].segments[name].groups[key]
            if group.bank is not None:
                assert other.bank is not None
                mine, theirs = other.bank.quantiles(RANKS), group.bank.quantiles(RANKS)
                np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-3)
            for stream, categories in group.categories.items():
                assert other.categories[stream].top(9) == categories.top(9)


def test_the_callers_memory_may_be_used_again() -> None:
    profiler = Profiler(segment_by="label", task="values")
    rows, labels = np.ones((4, 2), np.float32), np.array([0, 0, 1, 1])
    profiler.update(outputs=rows, labels=labels)
    rows[:], labels[:] = 9, 5
    profile = profiler.profile()
    assert counts(profile) == {"0": 2, "1": 2}
    assert profile.segments["0"].groups["outputs"].bank.max.tolist() == [1, 1]  # type: ignore[union-attr]


def test_a_window_has_the_segments_of_its_baseline() -> None:
    like = segmented(["x", "y", "z"], 3)
    window = segmented(["new", "z", "newer", "z"], 2, like=like)
    assert counts(window) == {"z": 2, OTHER_SEGMENT: 2}
    assert counts(segmented(["new", "z"], 5, like=like)) == {"z": 1, "new": 1}


def test_segments_go_with_reset_and_a_profile_is_a_copy() -> None:
    profiler = Profiler(segment_by="label", task="values")
    profiler.update(outputs=np.zeros((2, 2)), labels=["a", "b"])
    first = profiler.profile()
    profiler.update(outputs=np.zeros((2, 2)), labels=["a", "a"])
    assert counts(first) == {"a": 1, "b": 1}
    assert counts(profiler.profile()) == {"a": 3, "b": 1}
    profiler.reset()
    assert counts(profiler.profile()) == {}


def test_wide_groups_are_kept_small() -> None:
    rows = np.random.default_rng(0).normal(size=(3000, 300)).astype(np.float32)
    profiler = Profiler(segment_by="site", seed=0)
    profiler.update(embeddings={"e": rows}, segments=["a"] * 3000)
    bank = profiler.profile().segments["a"].groups["embeddings/e"].bank
    assert isinstance(bank, KLLBank)
    assert (bank.n, bank.k, segment_k(200, 300)) == (3000, 50, 50)
    assert bank.sorted_view()[0].shape[1] < 250
    ranks = np.array([0.1, 0.5, 0.9])
    reached = (rows.T[:, None, :] <= bank.quantiles(ranks)[..., None]).mean(2)
    assert np.abs(reached - ranks).max() < 2 * bank.rank_error


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        ({"segment_by": ""}, {}, "segment_by='' is unknown"),
        ({"segment_by": 3}, {}, "segment_by=3 is unknown"),
        ({"segment_by": "label", "max_segments": 0}, {}, "max_segments=0 should be a whole number from 1"),
        ({"segment_by": "label", "max_segments": True}, {}, "max_segments=True"),
        ({}, {"segments": ["a", "b"]}, "without segment_by"),
        ({"segment_by": "label"}, {"segments": ["a", "b"]}, "the labels count"),
        (
            {"segment_by": "label"},
            {"labels": np.zeros(2, np.float32)},
            "one class per image, but labels are numbers: hand over one class per image",
        ),
        ({"segment_by": "site"}, {"segments": ["a"]}, "1 values of 'site' for 2 rows"),
        ({"segment_by": "site"}, {"segments": ["a", 0.5]}, "not 0.5"),
        ({"segment_by": "site"}, {"segments": np.zeros((2, 2))}, "one class per row"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Profiler(**arguments).update(embeddings={"e": np.zeros((2, 2))}, **given)


def test_a_training_goes_on_without_values_that_cannot_be_used() -> None:
    errors: list[str] = []
    profiler = Profiler(segment_by="label", task="values", on_error=lambda topic, error: errors.append(topic))
    profiler.update(outputs=np.zeros((2, 1)), labels=["a", "b"])
    profiler.update(outputs=np.zeros((2, 1)), labels=np.array([0.5, 1.5]))
    profiler.update(outputs=np.zeros((2, 1)), labels=["a"])
    profile = profiler.profile()
    assert errors == ["labels"]
    assert any("labels: 2 rows were left out; they are no single class" in warning for warning in profile.warnings)
    assert counts(profile) == {"a": 1, "b": 1, OTHER_SEGMENT: 4}
    assert profile.n == 6
    told = (
        "labels: batches were left out from row 4 on: labels are of 1 images, but the batch has 2: pass one label per"
    )
    assert any(told in warning for warning in profile.warnings)


def test_long_names_and_broken_text_go_to_other() -> None:
    assert counts(segmented(["x" * 200, "x" * 201, "\ud800", "ok"], 9)) == {"x" * 200: 1, "ok": 1, OTHER_SEGMENT: 2}
