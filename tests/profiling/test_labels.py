"""Where the labels of a batch are: names, values, what the loss was given; what is said where that is not enough."""

from __future__ import annotations

import re
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lensai_integrations import ImageInputs
from lensai_integrations.arrays.namespaces import is_array
from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems
from lensai_integrations.profiling.batch_reading import BatchReader
from lensai_integrations.profiling.labels import Chosen, by_part, part_at, parts_beside

N = 16
IMAGES = torch.rand(N, 3, 8, 8)
CLASSES = torch.arange(N) % 3
OTHERS = torch.arange(N) % 5
RISING = torch.arange(1000, 1000 + 7 * N, 7)
SHUFFLED = RISING[torch.randperm(N, generator=torch.Generator().manual_seed(0))]
HOT = torch.eye(3)[CLASSES]
PATHS = [f"/data/{i}.jpg" for i in range(N)]
WORDS = ["cat", "dog"] * (N // 2)

Named = namedtuple("Named", "image label weight")


@dataclass
class Sample:
    index: torch.Tensor
    picture: torch.Tensor
    species: torch.Tensor


def take(batch, target="auto", problems=None, hints=(), **options):
    reader = BatchReader(ImageInputs(**options), target, problems or Problems(quiet=True))
    taken = reader.take(batch)
    for place in hints:
        reader.hint_labels(place)
    return taken.settled()


@pytest.mark.parametrize(
    ("batch", "place", "labels"),
    [
        ((IMAGES, RISING, CLASSES), 2, CLASSES),
        ((IMAGES, SHUFFLED, CLASSES), 2, CLASSES),
        ((IMAGES, torch.arange(N), CLASSES), 2, CLASSES),
        ((IMAGES, CLASSES, RISING), 1, CLASSES),
        ((IMAGES, CLASSES, PATHS), 1, CLASSES),
        ((IMAGES, PATHS, WORDS), 2, WORDS),
        ((IMAGES, CLASSES, {"path": PATHS, "age": OTHERS}), 1, CLASSES),
        ((IMAGES, {"species": CLASSES, "id": RISING}), (1, "species"), CLASSES),
        ((IMAGES, {"Label": CLASSES, "age": OTHERS}), (1, "Label"), CLASSES),
        ((IMAGES, HOT), 1, HOT),
        ((IMAGES, torch.rand(N, 4)), 1, None),
        ((IMAGES, CLASSES[:, None]), 1, CLASSES[:, None]),
        ([IMAGES, CLASSES.tolist()], 1, CLASSES.tolist()),
        ((IMAGES, CLASSES, torch.zeros(N, 8, 8)), 1, CLASSES),
        ((IMAGES, CLASSES, torch.tensor(0.1), None, "train"), 1, CLASSES),
        ((([IMAGES, IMAGES.flip(-1)]), CLASSES), 1, CLASSES),
        (((IMAGES, {"path": PATHS}), CLASSES), 1, CLASSES),
        ({"image": IMAGES, "labels": CLASSES, "id": OTHERS, "age": OTHERS}, "labels", CLASSES),
        ({"image": IMAGES, "species": CLASSES}, "species", CLASSES),
        ({"image": IMAGES, "species": CLASSES, "id": OTHERS}, "species", CLASSES),
        (Named(IMAGES, CLASSES, torch.rand(N)), "label", CLASSES),
    ],
)
def test_names_and_values_tell_the_labels(batch, place, labels):
    problems = Problems(quiet=True)
    taken = take(batch, problems=problems)

    assert taken.place == place
    assert [message for message in problems.messages if not message.startswith("images: 2 arrays of images")] == []
    if labels is not None:
        np.testing.assert_array_equal(taken.labels, labels)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((IMAGES, CLASSES, OTHERS), r"1 \(int64 \[16\]\) and 2 \(int64 \[16\]\).*: pass target=1 or target=2, or"),
        ((IMAGES, CLASSES, torch.rand(N, 4)), r"2 \(float32 \[16, 4\]\)"),
        ((IMAGES, (CLASSES, OTHERS)), r"target=\(1, 0\) or target=\(1, 1\)"),
        ({"image": IMAGES, "species": CLASSES, "age": OTHERS}, "target='species' or target='age'"),
        ({"image": IMAGES, "label": CLASSES, "target": OTHERS}, "target='label' or target='target'"),
        (
            (IMAGES, RISING),
            r"1 \(int64 \[16\]\) may be an index or the paths of the images.*: pass target=1, or target",
        ),
        ((IMAGES, PATHS), r"1 \(list of 16 str\) may be an index"),
        ((IMAGES, [f"row {i}" for i in range(N)]), "may be an index"),
        ((IMAGES, torch.zeros(N, 8, 8)), r"no labels of a kind that is read.*1 \(float32 \[16, 8, 8\]\); masks, boxes"),
        ((IMAGES, [{"boxes": torch.zeros(2, 4), "labels": torch.zeros(2)}] * N), r"1 \(list of 16 dict\)"),
        ((IMAGES, [torch.zeros(i % 3 + 1) for i in range(N)]), r"1 \(list of 16 Tensor\)"),
        ({"image": IMAGES, "label": torch.zeros(N, 8, 8), "age": OTHERS}, r"'label' \(float32 \[16, 8, 8\]\)"),
    ],
)
def test_what_is_not_settled_is_said_and_not_taken(batch, said):
    problems = Problems(quiet=True)
    taken = take(batch, problems=problems)

    assert taken.labels is None
    assert taken.place is None
    assert len(problems.messages) == 1
    assert re.search(said, problems.messages[0]), problems.messages[0]


@pytest.mark.parametrize("batch", [IMAGES, (IMAGES,), (IMAGES, None), (IMAGES, torch.tensor(0.5)), {"image": IMAGES}])
def test_a_batch_of_images_alone_is_nothing_to_talk_about(batch):
    problems = Problems(quiet=True)

    assert take(batch, problems=problems).labels is None
    assert problems.messages == []


def test_the_advice_works():
    batch = (IMAGES, (CLASSES, OTHERS))

    assert take(batch, target=(1, 0)).labels.tolist() == CLASSES.tolist()
    assert take(batch, target=(1, 1)).labels.tolist() == OTHERS.tolist()
    problems = Problems(quiet=True)
    assert take(batch, target=None, problems=problems).labels is None
    assert problems.messages == []


def test_labels_of_several_kinds_are_handed_on_by_name():
    taken = take((IMAGES, {"species": CLASSES, "quality": OTHERS, "path": PATHS}))

    assert list(taken.labels) == ["species", "quality"]
    assert taken.place == {"species": (1, "species"), "quality": (1, "quality")}
    assert torch.equal(taken.labels["quality"], OTHERS)
    assert list(take({"image": IMAGES, "target": {"a": CLASSES, "b": OTHERS}}).labels) == ["a", "b"]
    assert list(take((IMAGES, {"a": CLASSES, "b": PATHS}), target=1).labels) == ["a", "b"]


def test_a_given_target_that_is_a_dict_per_image_is_said():
    problems = Problems(quiet=True)

    assert take((IMAGES, [{"boxes": torch.zeros(2, 4)}] * N), target=1, problems=problems).labels is None
    assert "what is at target=1 has a dict, or several parts, per image" in problems.messages[0]


@pytest.mark.parametrize(
    ("batch", "hints", "place"),
    [
        ((IMAGES, CLASSES, OTHERS), [2], 2),
        ((IMAGES, RISING), [1], 1),
        ((IMAGES, CLASSES, OTHERS), [0, 2], 2),
        ((IMAGES, (CLASSES, OTHERS)), [(1, 0)], (1, 0)),
        (Named(IMAGES, CLASSES, OTHERS), [2], "weight"),
        ((IMAGES, CLASSES), [0], 1),
        ((IMAGES, CLASSES, OTHERS), [1, 2], {"1": 1, "2": 2}),
        ((IMAGES, {"a": CLASSES, "b": OTHERS}), [(1, "b")], (1, "b")),
    ],
)
def test_what_the_loss_was_given_settles_it(batch, hints, place):
    problems = Problems(quiet=True)

    assert take(batch, hints=hints, problems=problems).place == place
    assert problems.messages == []


def test_a_later_batch_is_read_as_the_first():
    reader = BatchReader(ImageInputs(), "auto", Problems(quiet=True))
    first = reader.take((IMAGES, RISING, CLASSES))
    assert first.settle is not None
    first.settled()
    later = reader.take((IMAGES, OTHERS, RISING))

    assert later.settle is None
    assert torch.equal(later.labels, RISING)


def test_a_loss_that_is_seen_late_opens_what_remained_open():
    reader = BatchReader(ImageInputs(), "auto", Problems(quiet=True))
    assert reader.take((IMAGES, CLASSES, OTHERS)).settled().labels is None
    assert reader.take((IMAGES, CLASSES, OTHERS)).settle is None
    reader.hint_labels(2)

    assert torch.equal(reader.take((IMAGES, CLASSES, OTHERS)).settled().labels, OTHERS)


def test_another_pass_of_the_same_batches_takes_over_what_the_loss_showed():
    chosen, problems = Chosen(), Problems(quiet=True)
    training = BatchReader(ImageInputs(), "auto", problems, source="training", chosen=chosen)
    taken = training.take((IMAGES, CLASSES, OTHERS))
    training.hint_labels(2)
    assert taken.settled().place == 2
    alike = BatchReader(ImageInputs(), "auto", problems, source="validation", chosen=chosen)
    assert alike.take((IMAGES, CLASSES, OTHERS)).settled().place == 2
    assert problems.messages == []
    other = BatchReader(ImageInputs(), "auto", problems, source="test", chosen=chosen)
    assert other.take((IMAGES, CLASSES)).settled().place == 1


def test_objects_and_dataclasses_have_places_by_name():
    batch = Sample(RISING, IMAGES, CLASSES)
    assert list(parts_beside(batch, IMAGES).candidates) == [("index",), ("species",)]
    assert part_at(batch, "species") is CLASSES
    assert part_at(SimpleNamespace(x=IMAGES, y=CLASSES), "y") is CLASSES
    assert part_at(Named(IMAGES, CLASSES, OTHERS), -1) is OTHERS


def test_of_a_dict_of_batches_the_one_with_the_images_counts():
    labelled, unlabelled = (IMAGES, CLASSES), (IMAGES.clone(), OTHERS)
    parts = parts_beside({"l": labelled, "u": unlabelled}, IMAGES)
    assert list(parts.candidates) == [("l", 1), ("u", 1)]
    taken = take({"l": labelled, "u": unlabelled}, key="l")
    assert taken.place == ("l", 1)


def test_errors_say_what_there_is():
    with pytest.raises(
        InputError, match=r"target=\(1, 'age'\) is not in the batch, which is a tuple of 0 \(float32 \["
    ):
        part_at((IMAGES, {"label": CLASSES}), (1, "age"))


def test_where_it_is_not_known_which_images_are_meant_the_labels_are_not_either():
    problems = Problems(quiet=True)
    taken = take({"l": (IMAGES, CLASSES), "u": (IMAGES.clone(), OTHERS)}, problems=problems)
    assert taken.images is None
    assert taken.labels is None
    assert [message.split(":")[0] for message in problems.messages] == ["inputs", "labels"]
    assert "target=('l', 1) or target=('u', 1)" in problems.messages[1]


def test_a_message_names_a_few_parts():
    problems = Problems(quiet=True)
    take((IMAGES, *(CLASSES + i for i in range(9))), problems=problems)
    assert (
        "5 (int64 [16]) and 4 more, and no loss was seen that shows which, so nothing is taken: pass target=1 or"
        in problems.messages[0]
    )


def test_a_batch_without_the_other_images_does_not_settle_which_are_meant():
    reader = BatchReader(ImageInputs(), "auto", Problems(quiet=True))
    both = {"a": (IMAGES, CLASSES), "b": (IMAGES.clone(), OTHERS)}
    assert reader.take(both).settled().images is None
    assert reader.take({**both, "a": None}).settled().images is None


def test_images_in_a_list_are_no_labels():
    problems = Problems(quiet=True)
    boxes = tuple({"boxes": torch.zeros(1, 4), "labels": torch.zeros(1)} for _ in range(N))
    take((tuple(torch.rand(1, 8 + i, 8) for i in range(N)), boxes), problems=problems)
    assert "but 1 (tuple of 16 dict);" in problems.messages[0]


def test_two_passes_with_batches_of_other_sizes_say_the_same_once():
    problems = Problems(quiet=True)
    for source, n in (("training", N), ("validation", N // 2)):
        reader = BatchReader(ImageInputs(), "auto", problems, source=source)
        reader.take((IMAGES[:n], CLASSES[:n], OTHERS[:n])).settled()
    assert len(problems.messages) == 1
    BatchReader(ImageInputs(), "auto", problems, source="test").take((IMAGES, HOT, CLASSES)).settled()
    assert problems.messages[1].startswith("labels of test: several parts")


PICTURE = np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("labels", "column"),
    [
        ([3, 1], [3, 1]),
        (["a", "b"], ["a", "b"]),
        ([np.int64(3), np.int64(1)], np.array([3, 1])),
        ([torch.tensor(3), torch.tensor(1)], torch.tensor([3, 1])),
        ([torch.tensor([0.0, 1]), torch.tensor([1.0, 0])], torch.tensor([[0.0, 1], [1, 0]])),
        ([[0, 1, 1], [1, 0, 0]], np.array([[0, 1, 1], [1, 0, 0]])),
        ([(3, 7), (1, 8)], ([3, 1], [7, 8])),
        ([{"class": 3}, {"class": 1, "age": 2}], {"class": [3, 1], "age": [None, 2]}),
        (
            [{"boxes": 0, "labels": 3}, {"boxes": 0, "labels": 1}],
            [{"boxes": 0, "labels": 3}, {"boxes": 0, "labels": 1}],
        ),
        ([[0, 1], [1]], [[0, 1], [1]]),
        ([3, None], [3, None]),
        ([[{"bbox": 0}], [{"bbox": 1}]], [[{"bbox": 0}], [{"bbox": 1}]]),
    ],
    ids=str,
)
def test_samples_become_columns(labels, column):
    taken = by_part([(PICTURE, label) for label in labels])
    named = by_part([{"image": PICTURE, "label": label} for label in labels])

    for found in (taken[1], named["label"]):
        assert type(found) is type(column)
        assert found.tolist() == column.tolist() if is_array(column) else found == column
    assert len(taken[0]) == len(named["image"]) == 2


@pytest.mark.parametrize(
    "batch",
    [
        (np.zeros((2, 16, 16, 3)), np.arange(2)),
        ([PICTURE, PICTURE], [0, 1]),
        ([PICTURE, PICTURE], [{"masks": np.zeros((3, 16, 16), np.uint8)}] * 2),
        [PICTURE, PICTURE],
        [{"image": np.zeros((4, 3, 16, 16))}, {"image": np.zeros((4, 3, 16, 16))}],
        {"image": [PICTURE, PICTURE], "label": [0, 1]},
        [],
        None,
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_what_is_no_list_of_samples_stays_as_it_is(batch):
    assert by_part(batch) is batch
