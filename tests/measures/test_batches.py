from __future__ import annotations

import re
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import USUAL_KEYS, find_images, locate

IMAGES = np.zeros((2, 3, 8, 6), np.float32)
GREY = np.zeros((32, 28, 28), np.float32)
MASKS = np.zeros((2, 8, 6), np.int64)
ONE = np.zeros((3, 20, 30), np.uint8)
Pair = namedtuple("Pair", ["picture", "label"])


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        (IMAGES, [1, 2]),
        [IMAGES, None],
        Pair(IMAGES, 3),
        {"image": IMAGES, "label": 1},
        OrderedDict(pixel_values=IMAGES, labels=[0]),
        UserDict(inputs=IMAGES),
        ({"x": IMAGES}, "label"),
        {"images": (IMAGES, IMAGES + 1)},
        [[(IMAGES,)]],
    ],
)
def test_images_are_found(batch):
    assert find_images(batch) is IMAGES


@dataclass
class Batch:
    labels: object
    photos: object


@pytest.mark.parametrize(
    "batch",
    [
        {"img": IMAGES, "label": np.arange(2)},
        {"pixels": IMAGES, "mask": MASKS, "boxes": np.zeros((2, 7, 4))[0]},
        {"x": np.zeros((2, 5), np.float32), "img": IMAGES},
        {"image": IMAGES, "mask": IMAGES[:, :1]},
        (np.arange(2), IMAGES, np.arange(2)),
        ("photos/1.jpg", IMAGES, 3),
        (np.zeros((2, 5), np.float32), {"img": IMAGES}),
        Batch(np.arange(2), IMAGES),
        SimpleNamespace(labels=[0, 1], tensors=IMAGES, mask=MASKS),
        (SimpleNamespace(tensors=IMAGES, mask=MASKS), [{"boxes": np.zeros((3, 4))}] * 2),
        Pair(picture=np.arange(2), label=IMAGES),
    ],
)
def test_the_only_array_that_looks_like_images_is_found_under_any_name(batch):
    assert find_images(batch) is IMAGES


def test_what_is_not_a_batch_is_not_looked_into():
    owner = SimpleNamespace(loader=SimpleNamespace(dataset=IMAGES), images=IMAGES + 1)
    assert find_images(owner) is owner.images


@pytest.mark.parametrize(
    ("batch", "place"),
    [
        ((GREY, GREY), (0,)),
        ((GREY, MASKS), (0,)),
        ([GREY], (0,)),
        ((ONE, ONE[:1]), (0,)),
        ((np.zeros((32, 64)), np.zeros((32, 10))), (0,)),
        ([ONE], ()),
        ([ONE, ONE], ()),
        ((ONE, ONE[:, :9]), ()),
        (([ONE, ONE[:, :9]], [0, 1]), (0,)),
        ({"data": {"img": [ONE, ONE]}, "y": np.zeros((2, 9))}, ("data", "img")),
        ([GREY[:, :9], GREY, GREY], ()),
        ([ONE[0], ONE[0, :9]], ()),
        (([ONE], [ONE]), (0,)),
    ],
)
def test_lists_of_images_and_tuples_of_batches_are_told_apart(batch, place):
    found = locate(batch)
    assert found.place == place
    there = batch
    for step in place:
        there = there[step]
    assert isinstance(found.images, list) == isinstance(there, list | tuple)
    if isinstance(found.images, list):
        assert [id(each) for each in found.images] == [id(each) for each in there]


def test_a_known_layout_tells_what_one_array_is():
    three = np.zeros((3, 28, 28), np.float32)
    assert isinstance(find_images([three, three]), list)
    assert find_images([three, three], layout="NHW") is three
    assert isinstance(find_images([np.zeros((5, 9, 9))], layout="NCHW"), list)
    assert isinstance(find_images([np.zeros((5, 9))], layout="NHW"), list)


def test_a_list_of_one_array_that_could_be_grey_ones_is_said():
    assert "read as one image in colour" in locate([ONE]).note
    assert locate([ONE], layout="NCHW").note == locate(([ONE], [{}])).note == ""


@pytest.mark.parametrize(
    ("batch", "places"),
    [
        ([IMAGES, IMAGES], "0, 1"),
        (([IMAGES, IMAGES[..., :4]], 3), r"\(0, 0\), \(0, 1\)"),
        ({"image": (IMAGES, IMAGES, IMAGES)}, r"\('image', 0\), \('image', 1\), \('image', 2\)"),
    ],
)
def test_views_are_said_and_a_key_settles_it(batch, places):
    found = locate(batch)
    assert re.search(f"arrays of images are in the batch, at {places}: only the first", found.note)
    assert locate(batch, found.place) == replace(found, note="")


@pytest.mark.parametrize("batch", [(IMAGES, IMAGES[:, :1]), (IMAGES, MASKS), (IMAGES, IMAGES.astype(np.uint8))])
def test_images_with_masks_are_no_views(batch):
    assert locate(batch).note == ""


@pytest.mark.parametrize("name", USUAL_KEYS)
def test_every_usual_name_is_found(name):
    assert find_images({name: IMAGES, "other": 0}) is IMAGES


@pytest.mark.parametrize(
    ("batch", "key"),
    [
        ({"photo": IMAGES, "image": 0}, "photo"),
        (({"photo": IMAGES}, 1), "photo"),
        ({"photo": {"image": IMAGES}}, "photo"),
        ((0, IMAGES), 1),
        ((0, 1, IMAGES), -1),
        ((0, {"image": IMAGES}), 1),
        (([0, {"photo": IMAGES}],), (0, 1, "photo")),
        ({"a": IMAGES + 1, "b": {"image": IMAGES}}, ("b",)),
        (Pair(0, IMAGES), "label"),
        ((0, {"photo": IMAGES}), "photo"),
        ({"photo": (IMAGES, 0)}, "photo"),
    ],
)
def test_a_key_says_where_they_are(batch, key):
    assert find_images(batch, key) is IMAGES


@pytest.mark.parametrize(
    ("batch", "key", "message"),
    [
        ({"photo": "1.jpg"}, None, r"one of image, images.*\['photo'\].*pass key="),
        ({"image": IMAGES, "x": IMAGES}, None, r"'image' \[2, 3, 8, 6\] and 'x' \[2, 3, 8, 6\]: pass .*key='image'"),
        ({"a": [IMAGES, 1], "b": IMAGES}, None, r"\('a', 0\) \[2, 3, 8, 6\] and 'b'.*: pass .*key=\('a', 0\)"),
        ({"image": IMAGES}, "photo", r"key='photo'.*\['image'\]"),
        ((IMAGES,), 1, "key=1 points past the end of a tuple of 1"),
        ([], None, "list of 0"),
        (IMAGES, "photo", "key='photo' was not found.*ndarray"),
        ((IMAGES, 0), "photo", "key='photo' was not found.*ndarray"),
        ([[[[[[[[[IMAGES]]]]]]]]], None, "nested more than 8 deep"),
        ("images/1.jpg", None, "array of numbers"),
        (None, None, "array of numbers"),
    ],
)
def test_what_is_not_there_is_said(batch, key, message):
    with pytest.raises(InputError, match=message):
        find_images(batch, key)
