from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from lensai_integrations import ImageInputs
from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems
from lensai_integrations.profiling.batch_reading import BatchReader, image_inputs
from lensai_integrations.profiling.labels import part_at

IMAGES = torch.rand(4, 3, 8, 8)
CLASSES = torch.tensor([3, 1, 2, 0])


def take(batch, inputs=None, target="auto", problems=None):
    return BatchReader(inputs or ImageInputs(), target, problems or Problems()).take(batch).settled()


@pytest.mark.parametrize(
    ("batch", "place"),
    [
        ((IMAGES, CLASSES), 1),
        ([IMAGES, CLASSES, torch.zeros(4, 8, 8)], 1),
        ({"image": IMAGES, "label": CLASSES}, "label"),
        ({"pixel_values": IMAGES, "labels": CLASSES}, "labels"),
        ({"target": CLASSES, "x": IMAGES}, "target"),
    ],
)
def test_finds_images_and_labels(batch, place):
    taken = take(batch)

    assert torch.equal(taken.images, IMAGES)
    assert torch.equal(taken.labels, CLASSES)
    assert taken.place == place


def test_takes_copies():
    images, labels = IMAGES.clone(), CLASSES.clone()
    taken = take((images, labels))
    images.zero_()
    labels.zero_()

    assert torch.equal(taken.images, IMAGES)
    assert torch.equal(taken.labels, CLASSES)


def test_takes_copies_of_numpy_arrays_too():
    images = IMAGES.numpy().copy()
    taken = take((images, CLASSES.numpy()))
    images[:] = 0

    np.testing.assert_array_equal(taken.images, IMAGES)


def test_copies_keep_the_memory_format():
    taken = take((IMAGES.to(memory_format=torch.channels_last), CLASSES))

    assert taken.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        (IMAGES,),
        (IMAGES, None),
        (IMAGES, torch.tensor(0.5)),
    ],
)
def test_what_is_not_one_label_per_image_is_no_label(batch):
    problems = Problems(quiet=True)
    taken = take(batch, problems=problems)

    assert taken.labels is None
    assert taken.place is None
    assert not problems.messages


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog"] * 2,
        ("cat", "dog") * 2,
        CLASSES[:, None],
        torch.rand(4),
        torch.rand(4, 20),
        torch.eye(4),
        [3, 1, 3, 1],
    ],
)
def test_words_columns_and_numbers_are_labels(labels):
    assert take((IMAGES, labels)).labels is not None


@pytest.mark.parametrize(("target", "expected"), [(2, 7), ("kind", 8), (-1, 7)])
def test_a_given_target_is_taken_whatever_it_is(target, expected):
    batch = {"kind": 8} if isinstance(target, str) else (IMAGES, CLASSES, 7)

    assert part_at(batch, target) == expected


@pytest.mark.parametrize(
    ("batch", "target", "message"),
    [
        ({"image": IMAGES}, "label", r"target='label' is not in the batch, which is a dict of \['image'\]"),
        ((IMAGES,), 1, "target=1 is not in the batch, which is a tuple"),
        ((IMAGES, CLASSES), "label", "which is a tuple"),
    ],
)
def test_a_given_target_that_is_not_there_is_an_error(batch, target, message):
    with pytest.raises(InputError, match=message):
        part_at(batch, target)


def test_what_cannot_be_found_is_a_problem_and_the_rest_is_taken():
    problems = Problems(quiet=True)
    taken = take({"photo": IMAGES, "other": IMAGES, "label": CLASSES}, problems=problems)

    assert taken.images is None
    assert torch.equal(taken.labels, CLASSES)
    assert problems.messages[0].startswith("inputs: ")
    assert "ImageInputs(key='photo')" in problems.messages[0]


def test_key_finds_the_images_and_is_done_with_then():
    reader = BatchReader(ImageInputs(key="photo", mean=(0.5,), std=(0.5,)), None, Problems())

    assert torch.equal(reader.take({"photo": IMAGES}).images, IMAGES)
    assert reader.inputs == ImageInputs(mean=(0.5,), std=(0.5,))


def test_without_inputs_no_images_are_taken():
    reader = BatchReader(None, "auto", Problems())
    taken = reader.take((IMAGES, CLASSES)).settled()

    assert taken.images is None
    assert reader.inputs is None
    assert taken.labels is not None


class Pictures(torch.utils.data.Dataset):
    """A data set with transforms."""

    def __init__(self, *transforms):
        self.transform = v2.Compose(transforms)

    def __len__(self):
        return 2


def test_auto_undoes_the_normalisation_of_this_loader():
    data = Pictures(v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5, 0.4, 0.3], [0.2, 0.2, 0.1]))

    assert image_inputs("auto", DataLoader(data), Problems()) == ImageInputs(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    assert image_inputs("auto", DataLoader(Pictures(v2.ToImage())), Problems()) == ImageInputs()


def test_given_inputs_are_taken_as_they_are():
    data = Pictures(v2.Normalize([0.5], [0.2]))

    assert image_inputs(ImageInputs(scale=1.0), DataLoader(data), Problems()) == ImageInputs(scale=1.0)
    assert image_inputs(None, DataLoader(data), Problems()) is None


def test_normalisations_that_differ_are_a_problem():
    problems = Problems(quiet=True)
    data = Pictures(v2.Normalize([0.5], [0.2]), v2.Normalize([0.1], [0.2]))

    assert image_inputs("auto", DataLoader(data), problems) == ImageInputs()
    assert "several normalisations" in problems.messages[0]


def test_what_the_first_batch_left_open_stays_open():
    problems = Problems(quiet=True)
    reader = BatchReader(ImageInputs(), None, problems)
    assert reader.take({"a": IMAGES, "b": IMAGES}).images is None
    assert reader.take({"a": None, "b": IMAGES}).images is None
    assert "pass one of these places, e.g. ImageInputs(key='a')" in problems.messages[0]
    assert len(problems.messages) == 1


def test_a_key_of_the_training_batches_may_be_missing_in_validation_batches_without_names():
    problems = Problems(quiet=True)
    for _ in range(2):
        reader = BatchReader(ImageInputs(key=("labelled", 0)), None, problems)
        assert torch.equal(reader.take({"labelled": [IMAGES, CLASSES], "unlabelled": IMAGES}).images, IMAGES)
    assert problems.messages == []
    reader = BatchReader(ImageInputs(key="labelled"), None, problems)
    assert torch.equal(reader.take([IMAGES, CLASSES]).images, IMAGES)
    (said,) = problems.messages
    assert said.startswith("inputs: key='labelled' is not in the batches of this pass, which are a list of 0 (float32")
    assert "the images at 0 are read; pass inputs={'training': ImageInputs(...)" in said


LEFT, RIGHT = torch.rand(4, 3, 8, 8), torch.rand(4, 1, 6, 6)


def decided(batch, fed, **options):
    """What a reader takes of a batch of which the model was seen to be fed these places."""
    problems = Problems(quiet=True)
    reader = BatchReader(ImageInputs(), "auto", problems, several=True, **options)
    taken = reader.take(batch)
    if fed is not None:
        reader.hint_images(fed)
    return taken.settled(), problems.messages, reader


def test_all_that_a_model_is_fed_is_read_and_its_labels_are_beside_it():
    taken, messages, reader = decided((LEFT, RIGHT, CLASSES), [(0,), (1,), (2,)])
    assert {name: images.tolist() for name, images in taken.images.items()} == {"0": LEFT.tolist(), "1": RIGHT.tolist()}
    assert torch.equal(taken.labels, CLASSES)
    assert messages == []
    later = reader.take((RIGHT, LEFT, CLASSES))  # decided once
    assert later.images["0"] is not RIGHT
    assert torch.equal(later.images["0"], RIGHT)
    assert reader.inputs == {"0": ImageInputs(), "1": ImageInputs()}


def test_the_copies_are_those_of_before_the_step():
    left, right = LEFT.clone(), RIGHT.clone()
    problems = Problems(quiet=True)
    reader = BatchReader(ImageInputs(), None, problems, several=True)
    taken = reader.take((left, right))
    left.zero_()
    right.zero_()
    reader.hint_images([(0,), (1,)])
    images = taken.settled().images
    assert torch.equal(images["0"], LEFT)
    assert torch.equal(images["1"], RIGHT)


@pytest.mark.parametrize("place", [0, 1])
def test_the_only_one_that_is_fed_is_read_alone(place):
    taken, messages, reader = decided((LEFT, LEFT + 1, CLASSES), [(place,)])
    assert torch.equal(taken.images, LEFT + place)
    assert torch.equal(taken.labels, CLASSES)
    assert messages == []
    assert torch.equal(reader.take((LEFT, LEFT + 1, CLASSES)).images, LEFT + place)


@pytest.mark.parametrize("fed", [None, [], [(2,)]])
def test_without_a_sign_it_is_the_first_and_that_is_said(fed):
    taken, messages, _ = decided((LEFT, LEFT + 1, CLASSES), fed)
    assert torch.equal(taken.images, LEFT)
    assert ["only the first is read" in message for message in messages] == [True]
    named, messages, _ = decided({"a": LEFT, "b": RIGHT, "label": CLASSES}, fed)
    assert named.images is None
    assert "several arrays in the batch may be the images, at 'a' [4, 3, 8, 8] and 'b' [4, 1, 6, 6]" in messages[0]
    assert torch.equal(named.labels, CLASSES)


def test_one_input_that_a_later_batch_lacks_is_named_once():
    _, messages, reader = decided({"a": LEFT, "b": RIGHT}, [("a",), ("b",)])
    assert messages == []
    for _ in range(2):
        assert list(reader.take({"a": LEFT}).images) == ["a"]
    assert [message[:49] for message in messages] == ["inputs/b: the image input 'b' is not in the batch"]


@pytest.mark.parametrize(
    ("fed", "names"),
    [
        ([(name, i) for name in ("a", "b") for i in range(4)], ["a", "b"]),
        ([("a",), ("b",)], ["a", "b"]),  # the batch was a list of samples
        ([("b", i) for i in range(4)], None),
        ([("b",)], None),
    ],
)
def test_lists_of_images_are_fed_if_each_is(fed, names):
    taken, messages, _ = decided({"a": list(LEFT), "b": list(RIGHT), "label": CLASSES}, fed)
    assert messages == []
    if names is None:
        assert torch.equal(torch.stack(taken.images), RIGHT)
    else:
        assert [torch.stack(images).shape for images in taken.images.values()] == [LEFT.shape, RIGHT.shape]
