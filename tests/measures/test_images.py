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

from lensai_integrations.errors import InputError
from lensai_integrations.measures import pixels
from lensai_integrations.measures.definitions import definition
from lensai_integrations.measures.images import (
    CONVENTIONS,
    NEAR_BLACK,
    NEAR_WHITE,
    image_measures,
    measure_by_conventions,
    measure_images,
    measure_images_and_bytes,
    measure_images_and_counts,
    pixel_bytes,
)
from lensai_integrations.measures.inputs import ImageInputs, Images
from lensai_integrations.sketches.counts import PixelCounts

LENSAI = [
    "brightness",
    "contrast",
    "sharpness",
    "snr",
    "noise_sigma",
    "saturation",
    "hue",
    "colourfulness",
    "entropy",
    "near_black",
    "near_white",
    "mean/0",
    "mean/1",
    "mean/2",
    "std/0",
    "std/1",
    "std/2",
    "height",
    "width",
    "aspect_ratio",
]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COLUMN = (1, 3, 1, 1)
BATCH = np.random.default_rng(0).integers(0, 256, (5, 3, 23, 17), dtype=np.uint8)
BATCH[1:3] //= 3
CONVENTION = pytest.mark.parametrize("convention", CONVENTIONS)

LIBRARIES = pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])


def rows_of(batch, convention="lensai", **arguments):
    names, rows = measure_images(ImageInputs(**arguments).read(batch), convention)
    assert rows.dtype == np.float32
    assert rows.shape == (len(batch), len(names))
    return rows


def generic(pixels, gain=255.0):
    """Images as an accelerator's would be: a tensor that no one has turned into numpy."""
    channels = pixels.shape[1]
    return Images(pixels, (gain,) * channels, (0.0,) * channels, "")


def assert_same_measures(found, expected, *, digits=2e-5):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=digits, atol=1e-3)


def test_streams_of_both_conventions():
    assert list(image_measures(3)) == LENSAI
    grey = [name for name in LENSAI if name not in ("saturation", "hue", "colourfulness") and name[-1] not in "12"]
    assert list(image_measures(1)) == grey
    assert list(image_measures(3, "lensai-edge"))[-3:] == ["mean/0", "mean/1", "mean/2"]
    assert image_measures(3)["std/1"] == "lensai/std@1"
    assert image_measures(3, "lensai-edge")["brightness"] == "lensai-edge/brightness@1"


@CONVENTION
@pytest.mark.parametrize("channels", [1, 3])
@LIBRARIES
def test_columns_are_named_as_stated_beforehand(convention, channels, make):
    names, rows = measure_images(generic(make(BATCH[:, :channels].copy()), 1.0), convention)
    assert names == tuple(image_measures(channels, convention))
    assert tuple(rows.shape) == (5, len(names))
    assert "float32" in str(rows.dtype)
    assert np.isfinite(np.asarray(rows)).all()


@CONVENTION
@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        (BATCH.transpose(0, 2, 3, 1), {}),
        (np.ascontiguousarray(BATCH.transpose(0, 2, 3, 1)), {}),
        (np.asfortranarray(BATCH), {}),
        (np.concatenate([BATCH, BATCH[:, :1]], axis=1), {}),
        (np.repeat(BATCH, 2, axis=3)[..., ::2], {}),
        (torch.from_numpy(BATCH).to(memory_format=torch.channels_last), {}),
        (torch.from_numpy(BATCH).permute(0, 2, 3, 1), {}),
        (np.flip(np.flip(BATCH, 2).copy(), 2), {}),
    ],
)
def test_layouts_and_strides_change_nothing(batch, arguments, convention):
    assert np.array_equal(rows_of(batch, convention, **arguments), rows_of(BATCH, convention))


@CONVENTION
@pytest.mark.parametrize(
    ("batch", "arguments"),
    [
        (BATCH / 255, {}),
        ((BATCH / 255).astype(np.float32), {}),
        (torch.from_numpy((BATCH / 255).astype(np.float32)).requires_grad_(), {}),
        (BATCH.astype(np.float32), {"scale": 1}),
        (BATCH.astype(np.int64), {"scale": 1}),
        (BATCH.astype(np.uint16) * 257, {"scale": 255 / 65535}),
        ((BATCH / 255 - np.reshape(MEAN, COLUMN)) / np.reshape(STD, COLUMN), {"mean": MEAN, "std": STD}),
        (
            ((BATCH / 255 - np.reshape(MEAN, COLUMN)) / np.reshape(STD, COLUMN))
            .astype(np.float32)
            .transpose(0, 2, 3, 1),
            {"mean": MEAN, "std": STD},
        ),
        (BATCH / 127.5 - 1, {"mean": (0.5,), "std": (0.5,)}),
    ],
)
def test_dtype_scale_and_normalisation_change_nothing(batch, arguments, convention):
    assert_same_measures(rows_of(batch, convention, **arguments), rows_of(BATCH, convention))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 0.07), (torch.bfloat16, 0.51)])
def test_half_precision_costs_no_more_than_its_digits(dtype, error):
    tensor = torch.from_numpy(BATCH / 255).to(dtype)
    names, rows = measure_images(ImageInputs(whole=False).read(tensor))
    exact = rows_of(BATCH)
    for name in ("brightness", "contrast", "mean/0", "mean/1", "mean/2", "std/0", "std/1", "std/2"):
        column = names.index(name)
        assert np.abs(rows[:, column] - exact[:, column]).max() < error, name
    _, by_torch = measure_images(generic(tensor))
    assert_same_measures(by_torch, rows, digits=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("mean", "std"), [(None, None), ((0.5,), (0.5,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
)
def test_half_precision_of_images_of_bytes_costs_nothing(dtype, mean, std):
    """Every byte and channel comes back: half a step of bfloat16 is less than half a level."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    shift, factor = (np.reshape(each or one, (1, -1, 1, 1)) for each, one in ((mean, 0.0), (std, 1.0)))
    tensor = torch.from_numpy((levels / 255 - shift) / factor).to(dtype)
    images = ImageInputs(mean=mean, std=std).read(tensor)
    assert images.whole
    assert "rounded to whole levels" in images.note
    assert np.array_equal(pixel_bytes(images), levels)
    assert np.array_equal(measure_images(images)[1], measure_images(ImageInputs(scale=1).read(levels * 1.0))[1])


@given(
    st.builds(
        lambda shape, seed: np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8),
        st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 16), st.integers(1, 16)),
        st.integers(0, 2**32 - 1),
    ),
    st.sampled_from(list(CONVENTIONS)),
)
@settings(max_examples=50, deadline=None)
def test_any_shape_in_both_libraries_bytes_or_floats(batch, convention):
    exact = rows_of(batch, convention, layout="NCHW")
    assert np.isfinite(exact).all()
    assert_same_measures(rows_of((batch / 255).astype(np.float32), convention, layout="NCHW"), exact)
    assert_same_measures(measure_images(generic(torch.from_numpy(batch), 1.0), convention)[1], exact)
    assert_same_measures(measure_images(generic(torch.from_numpy(batch / 255)), convention)[1], exact)


@CONVENTION
@LIBRARIES
@pytest.mark.parametrize("budget", [1, 23 * 17 * 2, 10**9])
def test_how_many_images_are_measured_together_changes_nothing(convention, make, budget, monkeypatch):
    expected = np.concatenate([rows_of(BATCH[i : i + 1], convention) for i in range(5)])
    monkeypatch.setattr(pixels, "_HOST_PIXELS", budget)
    monkeypatch.setattr(pixels, "_DEVICE_PIXELS", budget)
    for batch, gain in ((BATCH, 1.0), ((BATCH / 255).astype(np.float32), 255.0)):
        assert_same_measures(measure_images(generic(make(batch), gain), convention)[1], expected)


@CONVENTION
@LIBRARIES
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1.2, -0.2, 1e30])
def test_only_the_image_with_a_bad_pixel_becomes_nan(convention, make, bad):
    batch = (BATCH / 255).astype(np.float32)
    batch[3, 1, 22, 16] = bad
    rows = np.asarray(measure_images(generic(make(batch)), convention)[1])
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, False, True, False]
    assert_same_measures(np.delete(rows, 3, 0), np.delete(rows_of(BATCH, convention), 3, 0))


def test_a_float64_that_float32_cannot_hold_is_a_bad_pixel_too():
    batch = BATCH / 255
    batch[0, 0, 0, 0] = 1e300
    rows = rows_of(batch, scale=255, layout="NCHW")
    assert np.isnan(rows).all(axis=1).tolist() == [True, False, False, False, False]


def test_what_cubic_resizing_overshoots_is_clipped():
    batch = np.full((1, 3, 8, 8), 1.0)
    batch[0, :, 0, 0] = 1.09
    batch[0, :, 0, 1] = 0.5
    clipped = rows_of(batch.clip(0, 1))
    assert np.array_equal(rows_of(batch, scale=255, layout="NCHW"), clipped)


@CONVENTION
@LIBRARIES
def test_no_images_are_no_rows(convention, make):
    for batch in (BATCH[:0], np.zeros((0, 1, 4, 4), np.float32)):
        names, rows = measure_images(generic(make(batch)), convention)
        assert tuple(rows.shape) == (0, len(names))
        assert "float32" in str(rows.dtype)
        assert tuple(pixel_bytes(generic(make(batch)), convention).shape) == batch.shape


@CONVENTION
@LIBRARIES
def test_images_are_only_read(convention, make):
    for batch in (BATCH.copy(), (BATCH / 255).astype(np.float32), BATCH.astype(np.float32)):
        before = batch.copy()
        given = make(batch)
        if isinstance(batch, np.ndarray) and make is np.asarray:
            given.flags.writeable = False
        for gain in (1.0, 255.0):
            measure_images(generic(given, gain), convention)
            pixel_bytes(generic(given, gain), convention)
        assert np.array_equal(batch, before)


def test_rows_own_their_memory_and_do_not_change_with_the_next_batch():
    _, first = measure_images(ImageInputs().read(BATCH))
    kept = first.copy()
    measure_images(ImageInputs().read(BATCH[::-1] // 2))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("call", [measure_images, pixel_bytes])
def test_an_unknown_convention_is_refused(call):
    with pytest.raises(InputError, match=r"convention='edge'.*'lensai', 'lensai-edge'"):
        call(ImageInputs().read(BATCH), "edge")
    with pytest.raises(InputError, match="convention='edge'"):
        image_measures(3, "edge")


def test_bytes_are_handed_on_as_they_lie():
    assert pixel_bytes(ImageInputs().read(BATCH)) is not None
    assert np.shares_memory(pixel_bytes(ImageInputs().read(BATCH)), BATCH)
    assert np.array_equal(pixel_bytes(ImageInputs().read(BATCH.transpose(0, 2, 3, 1))), BATCH)


@LIBRARIES
def test_floats_become_the_bytes_they_came_from(make):
    for batch in ((BATCH / 255).astype(np.float32), (BATCH / 255).astype(np.float16)):
        found = pixel_bytes(generic(make(batch)))
        assert "uint8" in str(found.dtype)
        assert np.array_equal(found, BATCH)
    normalized = (BATCH / 255 - np.reshape(MEAN, COLUMN)) / np.reshape(STD, COLUMN)
    assert np.array_equal(pixel_bytes(ImageInputs(mean=MEAN, std=STD).read(make(normalized))), BATCH)


@LIBRARIES
def test_bytes_are_rounded_half_up_and_clipped(make):
    values = np.array([-20.0, -0.4, 0.49, 0.5, 1.5, 254.49, 254.5, 255.4, 270.0], np.float32).reshape(1, 1, 3, 3)
    found = pixel_bytes(generic(make(values), 1.0))
    assert np.asarray(found).ravel().tolist() == [0, 0, 0, 1, 2, 254, 255, 255, 255]


def test_in_host_memory_the_pixels_of_invalid_images_are_left_out():
    batch = (BATCH / 255).astype(np.float32)
    batch[1, 0, 0, 0], batch[4, 2, 3, 4] = np.nan, 7.0
    assert np.array_equal(pixel_bytes(generic(batch)), BATCH[[0, 2, 3]])


def test_on_an_accelerator_they_stay_and_nan_is_zero():
    batch = (BATCH / 255).astype(np.float32)
    batch[1, 0, 0, 0] = np.nan
    expected = BATCH.copy()
    expected[1, 0, 0, 0] = 0
    assert np.array_equal(pixel_bytes(generic(torch.from_numpy(batch))), expected)


@CONVENTION
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 7.0])
def test_counted_there_they_are_left_out_without_waiting(convention, bad):
    """Torch's tensors take an accelerator's way here, where bytes of the images that are not valid would stay."""
    batch = (BATCH / 255).astype(np.float32)
    batch[1, 2, 0, 0] = bad
    rows, failed, counts, n = measure_by_conventions(generic(torch.from_numpy(batch)), (convention,))
    expected, _, expected_counts, expected_n = measure_by_conventions(generic(batch), (convention,))
    assert (failed, int(n), expected_n) == ({}, len(BATCH) - 1, len(BATCH) - 1)
    assert np.array_equal(counts, expected_counts)
    assert np.array_equal(rows[convention].isnan(), np.isnan(expected[convention]))
    _, _, in_order = measure_images_and_counts(generic(torch.from_numpy(batch)), convention)
    assert np.array_equal(in_order, expected_counts[::-1] if convention == "lensai-edge" else expected_counts)


@LIBRARIES
def test_measures_and_exact_counts_tell_the_same_means(make):
    images = generic(make(BATCH), 1.0)
    counts = PixelCounts(3)
    counts.update(pixel_bytes(images))
    names, rows = measure_images(images)
    means = np.asarray(rows)[:, [names.index(f"mean/{channel}") for channel in range(3)]].mean(axis=0)
    assert (counts.counts @ np.arange(256)) / counts.counts.sum(axis=1) == pytest.approx(means, rel=1e-6)


@CONVENTION
@LIBRARIES
def test_measures_and_bytes_come_together_as_they_come_alone(convention, make):
    floats = (BATCH / 255).astype(np.float32)
    floats[2, 0, 0, 0] = np.nan
    for images in (generic(make(BATCH), 1.0), generic(make(floats)), generic(make(BATCH[:0]))):
        names, rows, found = measure_images_and_bytes(images, convention)
        assert (names, rows.shape) == (measure_images(images, convention)[0], (images.n, len(names)))
        assert np.array_equal(rows, measure_images(images, convention)[1], equal_nan=True)
        assert np.array_equal(found, pixel_bytes(images, convention))


@CONVENTION
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("layout", "shape"), [("NCHW", (70, 3, 224, 224)), ("NHWC", (4, 32, 40, 3)), ("NHW", (4, 28, 28))]
)
def test_no_decision_needs_a_value(convention, dtype, layout, shape):
    """Tensors of torch's meta device have none: whatever would wait for a value raises, with no accelerator at hand."""
    batch = torch.empty(shape, dtype=dtype, device="meta")
    images = ImageInputs(layout=layout, scale=1.0 if dtype == torch.uint8 else 255.0).read({"image": batch})
    names, rows, found = measure_images_and_bytes(images, convention)
    _, _, counts, n = measure_by_conventions(images, (convention,))
    assert (counts.device.type, tuple(counts.shape)) == ("meta", (images.channels, 256))
    assert n == images.n if dtype == torch.uint8 else (n.device.type, tuple(n.shape)) == ("meta", ())
    assert (rows.device.type, tuple(rows.shape), rows.dtype) == ("meta", (shape[0], len(names)), torch.float32)
    assert (tuple(found.shape), found.dtype) == ((shape[0], images.channels, images.height, images.width), torch.uint8)


@CONVENTION
def test_the_users_precision_settings_change_nothing(convention):
    images = generic(torch.from_numpy((BATCH / 255).astype(np.float32)))
    _, expected = measure_images(images, convention)
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
            _, rows = measure_images(images, convention)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(rows, expected)


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_gpu
@CONVENTION
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_on_cuda_the_rows_are_the_same_and_nothing_waits(convention, dtype):
    exact = torch.from_numpy(BATCH if dtype == torch.uint8 else BATCH / 255).to(dtype)
    inputs = ImageInputs().resolve(exact)
    batch = exact.cuda()
    measure_images(inputs.read(batch), convention)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cuda"):
            _, rows, counted = measure_images_and_bytes(inputs.read(batch), convention)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.cuda.set_sync_debug_mode("default")
    _, expected = measure_images(generic(exact, inputs.scale), convention)
    assert rows.is_cuda
    assert rows.dtype == torch.float32
    assert_same_measures(rows.cpu(), expected, digits=1e-4)
    assert np.array_equal(counted.cpu(), pixel_bytes(generic(exact, inputs.scale), convention))


@needs_gpu
def test_on_cuda_inputs_are_resolved_with_one_wait():
    batch = torch.from_numpy(BATCH / 255).float().cuda()
    assert ImageInputs().resolve({"image": batch}) == ImageInputs().resolve(BATCH / 255)


# The measures of `convention="lensai"` against scikit-image, OpenCV, SciPy, PIL and numpy in float64.

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
