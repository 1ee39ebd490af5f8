"""Images that are measured before they are counted, and rows that wait to be sketched: the profile is the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from libraries import LIBRARIES, as_if_elsewhere, maker

from lensai_integrations import ImageInputs, Profiler, measure
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import SeveralImages
from lensai_integrations.profiles.profile import Profile, to_bytes

LIBRARY = pytest.mark.parametrize("library", LIBRARIES)
PLACES = pytest.mark.parametrize("elsewhere", [False, True], ids=["host", "elsewhere"])


def assert_same_bytes(profile: Profile, expected: Profile) -> None:
    for other in (profile, expected):
        other.info.pop("created", None)
    assert to_bytes(profile) == to_bytes(expected)


def images_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


@measure("lightest")
def lightest(images):
    return (images >= 200).mean((1, 2, 3))


KINDS = {
    "bytes": {},
    "floats": {"inputs": ImageInputs(layout="NHWC", scale=255)},
    "two conventions": {"convention": ("lensai", "lensai-edge")},
    "custom": {"measures": [lightest]},
}


@PLACES
@LIBRARY
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_looked_at_is_what_update_would_have_measured(library, elsewhere, kind, monkeypatch):
    make = maker(library)
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    looked, plain = Profiler(seed=0, **KINDS[kind]), Profiler(seed=0, **KINDS[kind])
    for seed, n in enumerate((20, 7, 30)):
        images = images_of(n, seed) if kind != "floats" else images_of(n, seed).astype(np.float32) / 255
        if kind == "floats":
            images[n // 2, 3] = np.nan
        one = make(images)
        plain.update(inputs=one, labels=np.arange(n) % 3)
        looked.update(inputs=looked.look(one), labels=np.arange(n) % 3)
    assert_same_bytes(looked.profile(), plain.profile())


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_may_be_changed_once_they_were_looked_at(library, kind):
    changed, kept = Profiler(seed=0, **KINDS[kind]), Profiler(seed=0, **KINDS[kind])
    for seed in range(3):
        images = images_of(20, seed) if kind != "floats" else images_of(20, seed).astype(np.float32) / 255
        kept.update(inputs=maker(library)(images))
        one = maker(library)(images)
        looked = changed.look(one)
        one[:] = 0
        changed.update(inputs=looked)
    assert_same_bytes(changed.profile(), kept.profile())


def test_nothing_of_the_pixels_is_kept():
    """Nor is anything that was measured a view of them: it would keep all of them alive."""
    images = torch.from_numpy(images_of(20))
    profiler = Profiler(measures=[lightest])
    profiler.update(inputs=profiler.look(images))
    looked = profiler.look(images)
    pixels = images.numpy()
    for group in looked.groups.values():
        for value in (*group.measured.rows.values(), *group.measured.rest.values()):
            assert isinstance(value, int) or not np.shares_memory(pixels, value)
            assert np.size(value) <= 20 * 256
    assert len(looked) == 20


def test_what_is_looked_at_and_never_handed_over_counts_nowhere():
    skipping, plain = Profiler(seed=0), Profiler(seed=0)
    skipping.look(images_of(9, 5))  # the first of all
    for seed in range(4):
        skipping.look(images_of(9, 50 + seed))
        skipping.update(inputs=skipping.look(images_of(9, seed)))
        plain.update(inputs=images_of(9, seed))
    assert (skipping.n, plain.n) == (36, 36)
    assert_same_bytes(skipping.profile(), plain.profile())


def test_batches_may_be_handed_over_in_another_order():
    profiler = Profiler(seed=0)
    one, other = profiler.look(images_of(9, 1)), profiler.look(images_of(9, 2))
    profiler.update(inputs=other)
    profiler.update(inputs=one)
    plain = Profiler(seed=0)
    for seed in (2, 1):
        plain.update(inputs=images_of(9, seed))
    assert_same_bytes(profiler.profile(), plain.profile())


def test_lists_and_several_inputs_are_looked_at():
    sizes = [np.full((3 + i, 9, 3), 20 * i, np.uint8) for i in range(5)]
    for inputs, groups in (
        (sizes, ["inputs"]),
        (SeveralImages(a=images_of(5), b=images_of(5, 1)), ["inputs/a", "inputs/b"]),
    ):
        looked, plain = Profiler(seed=0), Profiler(seed=0)
        looked.update(inputs=looked.look(inputs))
        plain.update(inputs=inputs)
        assert list(looked.profile().groups) == groups
        assert_same_bytes(looked.profile(), plain.profile())


def test_labels_are_checked_against_the_images_that_were_looked_at():
    profiler = Profiler()
    with pytest.raises(InputError, match="labels are of 4 images, but the batch has 5"):
        profiler.update(inputs=profiler.look(images_of(5)), labels=np.arange(4))


def test_what_another_profiler_has_looked_at_is_refused_and_so_is_what_was_before_a_reset():
    profiler = Profiler()
    looked = profiler.look(images_of(5))
    with pytest.raises(InputError, match="another profiler"):
        Profiler().update(inputs=looked)
    profiler.reset()
    with pytest.raises(InputError, match="before its reset"):
        profiler.update(inputs=looked)
    assert profiler.n == 0


def test_a_group_that_cannot_be_looked_at_costs_the_others_nothing():
    wrong = np.zeros((5, 3), np.float32)
    with pytest.raises(InputError):
        Profiler().look(wrong)
    told = []
    profiler = Profiler(on_error=lambda name, error: told.append((name, str(error))))
    for images in (wrong, images_of(5)):
        profiler.update(inputs=profiler.look(images), labels=np.arange(5))
    profile = profiler.profile()
    assert [name for name, _ in told] == ["inputs"]
    assert {name: group.n for name, group in profile.groups.items()} == {"labels": 10, "inputs": 5}
    assert any("inputs: batches were left out from row 0 on" in warning for warning in profile.warnings)


def test_the_warning_says_how_far_pixels_reached_that_were_looked_at():
    profiler = Profiler(inputs=ImageInputs(layout="NHWC", scale=255))
    images = np.full((4, 8, 8, 3), 200.0, np.float32)
    looked = profiler.look(images)
    images[:] = 0
    profiler.update(inputs=looked)
    assert any("pixels reach from 200 to 200" in warning for warning in profiler.profile().warnings)
