"""Profiles of data sets and loaders: what the label of a sample or batch is, and what is said where that is open."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lensai_integrations import ImageInputs, profile_dataset
from lensai_integrations.errors import InputError

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
LABELS = (np.arange(20) % 3).tolist()
EXPECTED = {"0": 7, "1": 7, "2": 6}


def counted(profile):
    return dict(profile.groups["labels"].categories[""].top(99)) if "labels" in profile.groups else None


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (lambda i: (PICTURES[i], LABELS[i]), EXPECTED),
        (lambda i: (PICTURES[i], 1000 + 7 * i, LABELS[i]), EXPECTED),
        (lambda i: (PICTURES[i], f"/data/{i}.jpg", LABELS[i]), EXPECTED),
        (lambda i: (PICTURES[i], np.int64(LABELS[i]), None), EXPECTED),
        (lambda i: {"image": PICTURES[i], "label": LABELS[i], "age": i % 2}, EXPECTED),
        (lambda i: {"image": PICTURES[i], "species": LABELS[i]}, EXPECTED),
        (lambda i: (PICTURES[i], LABELS[i], i % 2), None),
        (lambda i: (PICTURES[i], i % 2, LABELS[i]), None),
    ],
)
def test_the_label_of_a_sample(sample, expected):
    profile = profile_dataset([sample(i) for i in range(20)])

    assert profile.groups["raw"].n == 20
    assert counted(profile) == expected
    said = [warning for warning in profile.warnings if warning.startswith("labels")]
    assert len(said) == (expected is None)
    if said:
        assert "pass target=1 or target=2" in said[0]
        assert counted(profile_dataset([sample(i) for i in range(20)], target=1)) is not None


def test_what_is_open_in_batches_is_in_the_profile():
    batches = [(PICTURES[i : i + 10], LABELS[i : i + 10], [i % 2 for i in range(10)]) for i in (0, 10)]
    profile = profile_dataset(iter(batches))
    assert counted(profile) is None
    assert profile.warnings[0].startswith("labels: several parts")
    assert counted(profile_dataset(iter(batches), target=1)) == EXPECTED


def test_key_is_where_the_images_of_batches_are():
    batches = [{"left": PICTURES, "right": PICTURES[::-1], "label": LABELS}]
    profile = profile_dataset(iter(batches), inputs=ImageInputs(key="right"))
    assert profile.groups["inputs"].n == 20
    assert counted(profile) == EXPECTED


@pytest.mark.parametrize(
    ("sample", "key"),
    [
        (lambda one, other: (one, other, 1), 1),
        (lambda one, other: ((one, other), 1), (0, 1)),
        (lambda one, other: {"image": one, "label": 1, "other": other}, "other"),
    ],
)
@pytest.mark.parametrize("of", [np.asarray, Image.fromarray])
def test_samples_with_several_images_say_which_is_read(sample, key, of):
    """And what they say is followed as it stands."""
    dark, bright = PICTURES // 16, 255 - PICTURES // 16
    data = [sample(of(one), of(other)) for one, other in zip(dark, bright, strict=True)]
    profile = profile_dataset(data)
    assert profile.groups["raw"].sketches["pixels"].counts[:, 16:].sum() == 0
    if not isinstance(key, str):  # under a usual name it is the one that is meant
        (said,) = profile.warnings
        assert f"other images beside the one that is read, at {key!r}: settle it with inputs=ImageInputs(key=" in said
    other = profile_dataset(data, inputs=ImageInputs(key=key))
    assert other.groups["raw"].sketches["pixels"].counts[:, :240].sum() == 0
    assert (other.groups["raw"].n, other.warnings, counted(other)) == (20, [], {"1": 20})
    with pytest.raises(InputError, match="key='nowhere' was not found"):
        profile_dataset(data, inputs=ImageInputs(key="nowhere"))


def test_a_mask_is_no_other_image():
    data = [(image, image[..., :1] > 9, image[..., 0], 1) for image in PICTURES]
    assert profile_dataset(data).warnings == []
