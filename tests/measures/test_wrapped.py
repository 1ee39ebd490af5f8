"""What a loader, a data set or a transform says of its normalisation is found; what differs is not chosen from."""

from __future__ import annotations

from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision import transforms as v1
from torchvision.datasets import FakeData
from torchvision.transforms import v2

from lensai_integrations.errors import InputError
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.wrapped import normalization_of

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 6), dtype=np.uint8)
PIXELS[0, :, 0, :2] = [[0, 255]] * 3

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def scaled(images):
    """The images on the 0-255 scale, as the measures take them."""
    gain, offset = (np.reshape(each, (1, -1, 1, 1)) for each in (images.gain, images.offset))
    return np.asarray(images.pixels, np.float64) * gain + offset


class Pictures(Dataset):
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise AssertionError("the data are not to be read")


NORMALIZE = v1.Normalize(MEAN, STD)
CHAIN = v1.Compose([v1.Resize(8), v1.ToTensor(), NORMALIZE])


@pytest.mark.parametrize(
    "transform",
    [
        NORMALIZE,
        v2.Normalize(MEAN, STD),
        v1.Normalize(torch.tensor(MEAN, dtype=torch.float64), torch.tensor(STD, dtype=torch.float64)),
        CHAIN,
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(MEAN), list(STD))]),
        v1.Compose([v2.RandomHorizontalFlip(), v1.Compose([v1.ToTensor(), NORMALIZE]), v1.RandomErasing()]),
        torch.nn.Sequential(v1.Resize(8), v1.Normalize(MEAN, STD)),
        [v1.ToTensor(), NORMALIZE],
        Pictures(transform=CHAIN),
        Pictures(transforms=CHAIN),
        FakeData(2, (3, 8, 8), transform=CHAIN, target_transform=v1.Normalize((0.1,), (0.1,))),
        Subset(FakeData(2, (3, 8, 8), transform=CHAIN), [0]),
        Subset(Subset(Pictures(transform=CHAIN), [0]), [0]),
        ConcatDataset([Pictures(transform=CHAIN), Subset(Pictures(transform=NORMALIZE), [0])]),
    ],
)
def test_a_normalisation_is_found(transform):
    assert normalization_of(transform) == (MEAN, STD)


@pytest.mark.parametrize(
    "transform",
    [
        None,
        v1.ToTensor(),
        v1.Compose([v1.Resize(8), v1.ToTensor()]),
        v1.RandomApply([NORMALIZE], p=0.5),
        v1.Compose([v1.ToTensor(), v1.RandomChoice([NORMALIZE, v1.RandomErasing()])]),
        Pictures(transform=None),
        Pictures(transform=lambda image: image),
        TensorDataset(torch.zeros(2, 3)),
        ConcatDataset([Pictures(), Pictures(transform=v1.ToTensor())]),
        object(),
        MagicMock(),
    ],
)
def test_without_a_sure_normalisation_there_is_none(transform):
    assert normalization_of(transform) is None


def test_a_data_set_that_holds_itself_is_walked_once():
    circle = Pictures()
    circle.dataset, circle.transform = circle, CHAIN
    assert normalization_of(circle) == (MEAN, STD)


@pytest.mark.parametrize(
    "transform",
    [
        v1.Compose([NORMALIZE, v1.Normalize((0.5,), (0.5,))]),
        ConcatDataset([Pictures(transform=CHAIN), Pictures(transform=v1.Normalize((0.5,), (0.5,)))]),
        ConcatDataset([Pictures(transform=CHAIN), Pictures()]),
        Subset(ConcatDataset([Pictures(), Pictures(transform=CHAIN)]), [0]),
    ],
)
def test_normalisations_that_differ_are_not_chosen_from(transform):
    with pytest.raises(InputError, match=r"several normalisations.*pass mean= and std="):
        normalization_of(transform)


def test_what_is_found_undoes_the_transform():
    pixels = torch.from_numpy(PIXELS)
    mean, std = normalization_of(CHAIN)
    images = ImageInputs(mean=mean, std=std).read(NORMALIZE(pixels / 255))
    np.testing.assert_allclose(scaled(images), PIXELS, atol=1e-4)


class Normalize:
    """Stands in for Albumentations', which is not always there."""

    def __init__(self, mean=MEAN, std=STD, max_pixel_value=255.0, normalization="standard", p=1.0):
        self.mean, self.std, self.max_pixel_value = mean, std, max_pixel_value
        self.normalization, self.p = normalization, p


def albumentations_normalize():
    return pytest.importorskip("albumentations").Normalize


@pytest.mark.parametrize("find", [lambda: Normalize, albumentations_normalize])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, (MEAN, STD)),
        ({"mean": (0.0,) * 3, "std": (1.0,) * 3}, ((0.0,) * 3, (1.0,) * 3)),
        ({"max_pixel_value": 65535.0}, (MEAN, STD)),  # parts of white, whatever white is
        ({"mean": (127.5,) * 3, "std": (51.0,) * 3, "max_pixel_value": 1.0}, ((0.5,) * 3, (0.2,) * 3)),
        ({"max_pixel_value": 1.0}, (MEAN, STD)),
        ({"p": 0.5}, None),
    ],
)
def test_normalisations_of_albumentations_that_are_mean_and_std(find, arguments, expected):
    class Compose:
        transforms = (find()(**arguments),)

    found = normalization_of(Compose())
    assert found == expected or np.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("find", [lambda: Normalize, albumentations_normalize])
@pytest.mark.parametrize("how", ["image", "image_per_channel", "min_max", "min_max_per_channel"])
def test_normalisations_by_what_is_in_an_image_are_not_undone(find, how):
    with pytest.raises(InputError, match=f"'{how}'.*cannot be undone.*ProfileImages"):
        normalization_of([find()(normalization=how)])


@pytest.mark.parametrize("max_pixel_value", [255.0, 1.0])
def test_what_albumentations_normalised_comes_back(max_pixel_value):
    transform = albumentations_normalize()(
        *((MEAN, STD) if max_pixel_value == 255 else ((120.0, 118.0, 110.0), (60.0, 50.0, 40.0))), max_pixel_value
    )
    made = np.stack([transform(image=image)["image"] for image in PIXELS.transpose(0, 2, 3, 1)])
    mean, std = normalization_of(transform)
    images = ImageInputs(mean=mean, std=std).read(made)
    np.testing.assert_allclose(scaled(images), PIXELS, atol=1e-3)


def test_a_pipeline_that_is_applied_sometimes_does_not_count():
    class Sometimes:
        transforms, p = (v2.Normalize(MEAN, STD),), 0.5

    assert normalization_of(Sometimes()) is None
    assert normalization_of([Sometimes(), Normalize()]) == (MEAN, STD)
