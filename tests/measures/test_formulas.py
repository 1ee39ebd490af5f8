"""The measures of `convention="lensai"` against scikit-image, OpenCV, SciPy, PIL and numpy in float64."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats
from skimage.color import rgb2hsv
from skimage.measure import shannon_entropy
from sklearn.datasets import load_sample_images

from lensai_integrations.measures.definitions import definition
from lensai_integrations.measures.images import NEAR_BLACK, NEAR_WHITE, image_measures, measure_images
from lensai_integrations.measures.inputs import ImageInputs, Images

IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
ONE, ZERO = (1.0,) * 3, (0.0,) * 3


def photographs():
    for photo in load_sample_images().images:
        for corner in ((0, 0), (100, 200), (203, 416)):
            yield photo[corner[0] : corner[0] + 224, corner[1] : corner[1] + 224]


def pictures():
    """Named RGB images that between them reach every branch and end of a formula."""
    rng = np.random.default_rng(0)
    yield from ((f"photo {i}", photo) for i, photo in enumerate(photographs()))
    yield "noise", rng.integers(0, 256, (61, 47, 3))
    yield "dark", rng.integers(0, 12, (31, 37, 3))
    yield "light", rng.integers(240, 256, (31, 37, 3))
    yield "grey", np.repeat(rng.integers(0, 256, (20, 30, 1)), 3, axis=2)
    yield "one channel", rng.integers(0, 256, (16, 16, 3)) * [0, 0, 1]
    yield "black and white", np.repeat(rng.integers(0, 2, (24, 24, 1)) * 255, 3, axis=2)
    yield "row", rng.integers(0, 256, (1, 50, 3))
    yield "column", rng.integers(0, 256, (50, 1, 3))
    yield "two by two", rng.integers(0, 256, (2, 2, 3))
    yield "pixel", np.array([[[10, 200, 30]]])
    yield "large", rng.integers(0, 256, (300, 500, 3))


PICTURES = {name: np.ascontiguousarray(picture, np.uint8) for name, picture in pictures()}


def luma(picture):
    return picture.astype(np.float64) @ [0.299, 0.587, 0.114]


def reference(picture):
    """Every measure of an RGB image in float64, by other libraries where they have it."""
    y, (height, width) = luma(picture), picture.shape[:2]
    rounded = np.floor(np.round(y, 3) + 0.5)
    laplacian = cv2.Laplacian(y, cv2.CV_64F, ksize=1, borderType=cv2.BORDER_REFLECT_101)
    mask = np.abs(ndimage.convolve(y, IMMERKAER))[1:-1, 1:-1]
    red, green, blue = np.moveaxis(picture.astype(np.float64), 2, 0)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    found = {
        "brightness": y.mean(),
        "contrast": y.std(),
        "sharpness": laplacian.std(),
        "snr": 20 * np.log10(max(y.mean(), 1e-3) / max(y.std(), 1e-3)),
        "noise_sigma": mask.sum() * np.sqrt(np.pi / 2) / (6 * (width - 2) * (height - 2)) if mask.size else 0,
        "saturation": 100 * rgb2hsv(picture)[..., 1].mean(),
        "colourfulness": np.hypot(red_green.std(), yellow_blue.std())
        + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()),
        "entropy": shannon_entropy(rounded),
        "near_black": 100 * (rounded <= 5).mean(),
        "near_white": 100 * (rounded >= 250).mean(),
        "height": height,
        "width": width,
        "aspect_ratio": width / height,
    }
    for channel in range(3):
        found[f"mean/{channel}"] = picture[..., channel].mean()
        found[f"std/{channel}"] = picture[..., channel].std()
    return found


def circular_hue(picture):
    """Chroma-weighted circular mean of the pixels' hues, in degrees from -60 to 300."""
    alpha = picture[..., 0] - 0.5 * (picture[..., 1] + 0.0 + picture[..., 2])
    beta = np.sqrt(3) / 2 * (picture[..., 1] - 0.0 - picture[..., 2])
    hue, chroma = np.arctan2(beta, alpha), np.hypot(alpha, beta)
    mean = np.degrees(np.angle((chroma * np.exp(1j * hue)).sum()))
    return (mean + 60) % 360 - 60


def measured(picture, make=np.asarray):
    """The measures by name; with `make=torch.from_numpy` by the generic path that accelerators take."""
    pixels = make(np.ascontiguousarray(picture.transpose(2, 0, 1)[None]))
    names, rows = measure_images(Images(pixels, ONE[: picture.shape[2]], ZERO[: picture.shape[2]], ""))
    return dict(zip(names, np.asarray(rows)[0].astype(np.float64), strict=True))


LIBRARIES = pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


@LIBRARIES
@pytest.mark.parametrize("name", PICTURES)
def test_every_measure_agrees_with_an_independent_library(name, make):
    expected, found = reference(PICTURES[name]), measured(PICTURES[name], make)
    assert found.keys() - expected.keys() == {"hue"}
    for measure, value in expected.items():
        assert found[measure] == pytest.approx(value, rel=2e-5, abs=2e-3), measure


@LIBRARIES
@pytest.mark.parametrize("name", [name for name in PICTURES if name not in ("grey", "black and white")])
def test_hue_is_the_chroma_weighted_circular_mean_of_the_pixels(name, make):
    difference = measured(PICTURES[name], make)["hue"] - circular_hue(PICTURES[name])
    assert abs((difference + 180) % 360 - 180) < 0.05


@LIBRARIES
@pytest.mark.parametrize("colour", [(255, 0, 0), (200, 180, 20), (10, 90, 60), (0, 30, 250), (90, 20, 130)])
def test_hue_and_saturation_of_one_colour_are_those_of_hsv(colour, make):
    hue, saturation, _ = colorsys.rgb_to_hsv(*(value / 255 for value in colour))
    found = measured(np.full((4, 4, 3), colour, np.uint8), make)
    # The angle in the plane of alpha and beta is HSV's hue to within 1.2 degrees, and exact at multiples of 60.
    assert found["hue"] == pytest.approx(hue * 360, abs=1.2)
    assert found["saturation"] == pytest.approx(saturation * 100, rel=1e-5)


@LIBRARIES
@pytest.mark.parametrize(
    ("colour", "degrees"),
    [((255, 0, 254), -59.8), ((254, 0, 255), 299.8), ((255, 0, 9), -1.8), ((255, 9, 0), 1.8), ((0, 254, 255), 180.2)],
)
def test_hue_is_cut_at_magenta_and_nowhere_else(colour, degrees, make):
    assert measured(np.full((4, 4, 3), colour, np.uint8), make)["hue"] == pytest.approx(degrees, abs=0.1)


@LIBRARIES
@pytest.mark.parametrize("value", [0, 1, 77, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 7), (33, 65), (300, 301)])
def test_a_constant_image_has_spreads_of_exactly_zero(value, size, make):
    found = measured(np.full((*size, 3), value, np.uint8), make)
    zero = ("contrast", "sharpness", "noise_sigma", "saturation", "hue", "colourfulness", "entropy")
    assert all(found[name] == 0 for name in (*zero, "std/0", "std/1", "std/2")), found
    assert [found[f"mean/{channel}"] for channel in range(3)] == [value] * 3
    assert found["near_black"] == (100 if value <= NEAR_BLACK else 0)
    assert found["near_white"] == (100 if value >= NEAR_WHITE else 0)
    assert found["snr"] == pytest.approx(20 * np.log10(max(value, 1e-3) / 1e-3), abs=1e-3)


@LIBRARIES
@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
def test_that_holds_for_floats_too(value, make):
    pixels = make(np.full((1, 3, 123, 77), value, np.float32))
    names, rows = measure_images(Images(pixels, (255.0,) * 3, ZERO, ""))
    found = dict(zip(names, np.asarray(rows)[0], strict=True))
    for name in ("contrast", "sharpness", "noise_sigma", "colourfulness", "entropy", "std/0", "std/1", "std/2"):
        assert found[name] == 0, name


@LIBRARIES
def test_grey_in_three_channels_is_measured_as_in_one(make):
    grey = PICTURES["grey"]
    colour, single = measured(grey, make), measured(grey[..., :1], make)
    assert colour["saturation"] == colour["hue"] == colour["colourfulness"] == 0
    assert set(image_measures(1)) == set(single)
    assert not {"saturation", "hue", "colourfulness", "mean/1", "std/1"} & set(single)
    for name in single:
        assert single[name] == pytest.approx(colour[name], rel=1e-5, abs=1e-4), name


@LIBRARIES
def test_eight_bit_luma_is_close_to_pils(make):
    """PIL's L is rounded in its own fixed-point arithmetic: at most a few colours differ, by one."""
    picture = PICTURES["noise"]
    pil = np.asarray(Image.fromarray(picture).convert("L"))
    found = measured(picture, make)
    assert found["entropy"] == pytest.approx(shannon_entropy(pil), abs=0.01)
    assert found["brightness"] == pytest.approx(pil.mean(), abs=0.1)


@LIBRARIES
def test_luma_at_a_half_is_rounded_up_whatever_the_arithmetic(make):
    """0.299 * 250 + 0.587 * 250 + 0.114 * 0 = 221.5: half up gives 222, and no float digit may decide otherwise."""
    values = np.arange(256)
    red, green, blue = np.meshgrid(values[::5], values[::5], values[::5], indexing="ij")
    colours = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    halves = colours[(colours @ [299, 587, 114]) % 1000 == 500]
    assert len(halves) > 50
    picture = np.zeros((1, len(halves), 3), np.uint8)
    picture[0] = halves
    exact = (halves @ [299, 587, 114] + 500) // 1000
    expected = stats.entropy(np.bincount(exact), base=2)
    for repeat in range(1, 4):
        assert measured(np.tile(picture, (repeat, 1, 1)), make)["entropy"] == pytest.approx(expected, abs=1e-5)


@LIBRARIES
def test_thresholds_of_near_black_and_near_white_are_included(make):
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    found = measured(ramp, make)
    assert found["near_black"] == pytest.approx(100 * (NEAR_BLACK + 1) / 256)
    assert found["near_white"] == pytest.approx(100 * (256 - NEAR_WHITE) / 256)
    assert found["entropy"] == pytest.approx(8)


@pytest.mark.parametrize(
    ("change", "name", "sign"),
    [
        (lambda photo: ndimage.gaussian_filter(photo, (1, 1, 0)), "sharpness", -1),
        (lambda photo: (photo * 0.5).astype(np.uint8), "brightness", -1),
        (lambda photo: (photo * 0.5 + 60).astype(np.uint8), "contrast", -1),
        (lambda photo: np.repeat(photo.mean(2, keepdims=True), 3, 2).astype(np.uint8), "colourfulness", -1),
        (lambda photo: np.repeat(photo.mean(2, keepdims=True), 3, 2).astype(np.uint8), "saturation", -1),
        (
            lambda photo: (photo + np.random.default_rng(0).normal(0, 20, photo.shape)).clip(0, 255).astype(np.uint8),
            "noise_sigma",
            1,
        ),
        (lambda photo: (photo // 64 * 64).astype(np.uint8), "entropy", -1),
    ],
)
def test_a_measure_moves_the_way_its_name_says(change, name, sign):
    for photo in photographs():
        assert sign * (measured(change(photo))[name] - measured(photo)[name]) > 0


@given(
    st.builds(
        lambda size, low, span, seed: np.random.default_rng(seed).integers(low, low + span + 1, (*size, 3)),
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
    )
)
@settings(max_examples=50, deadline=None)
def test_all_measures_are_finite_and_inside_their_stated_range(values):
    picture = values.clip(0, 255).astype(np.uint8)
    for make in (np.asarray, torch.from_numpy):
        found = measured(picture, make)
        for name, id in image_measures(3).items():
            low, high = definition(id).range
            assert np.isfinite(found[name])
            assert low is None or found[name] >= low - 1e-4, (name, found[name])
            assert high is None or found[name] <= high + 1e-3, (name, found[name])


def test_the_same_rows_come_from_both_libraries():
    batch = np.stack([photo.transpose(2, 0, 1) for photo in photographs()])
    names, rows = measure_images(ImageInputs().read(batch))
    _, generic = measure_images(Images(torch.from_numpy(batch), ONE, ZERO, ""))
    assert generic.dtype == torch.float32
    for name, ours, theirs in zip(names, rows.T, generic.numpy().T, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-4, err_msg=name)
