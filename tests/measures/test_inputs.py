from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.errors import InputError
from lensai_integrations.measures.images import measure_images
from lensai_integrations.measures.inputs import MODES, ImageInputs, preprocessing_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 6), dtype=np.uint8)
PIXELS[0, :, 0, :2] = [[0, 255]] * 3


def scaled(images):
    """The images on the 0-255 scale, as the measures take them."""
    gain, offset = (np.reshape(each, (1, -1, 1, 1)) for each in (images.gain, images.offset))
    return np.asarray(images.pixels, np.float64) * gain + offset


def normalized(dtype=np.float64):
    column = (1, 3, 1, 1)
    return ((PIXELS / 255 - np.reshape(MEAN, column)) / np.reshape(STD, column)).astype(dtype)


@pytest.mark.parametrize(
    ("batch", "inputs", "note"),
    [
        (PIXELS, ImageInputs(), "NCHW uint8"),
        (PIXELS.transpose(0, 2, 3, 1), ImageInputs(), "NHWC uint8"),
        (PIXELS / 255, ImageInputs(), "NCHW float64 x 255"),
        ((PIXELS / 255).astype(np.float32), ImageInputs(), "NCHW float32 x 255"),
        (PIXELS.astype(np.float32), ImageInputs(scale=1), "NCHW float32 in 0-255"),
        (PIXELS.astype(np.float32), ImageInputs(), "NCHW float32 in 0-255"),
        (
            torch.from_numpy(PIXELS).permute(0, 2, 3, 1).half(),
            ImageInputs(),
            "NHWC float16 in 0-255, rounded to whole levels (float16 is up to 0.062 levels off)",
        ),
        (PIXELS.astype(np.uint16) * 257, ImageInputs(scale=255 / 65535), "NCHW uint16 x 0.00389105"),
        (normalized(), ImageInputs(mean=MEAN, std=STD), "NCHW float64 (x std + mean) x 255"),
        (PIXELS / 127.5 - 1, ImageInputs(mean=(0.5,), std=(0.5,)), "NCHW float64 (x std + mean) x 255"),
        (
            PIXELS - np.reshape([124.0, 117.0, 104.0], (1, 3, 1, 1)),
            ImageInputs(mean=(124, 117, 104), std=(1, 1, 1), scale=1),
            "NCHW float64 (x std + mean)",
        ),
        (np.concatenate([PIXELS, PIXELS[:, :1]], axis=1), ImageInputs(), "NCHW uint8, 1 other band not read"),
        (np.concatenate([PIXELS, 0 * PIXELS[:, :1] + 255], axis=1), ImageInputs(), "NCHW uint8, alpha dropped"),
        (np.concatenate([PIXELS, PIXELS[:, :1]], axis=1), ImageInputs(channels="RGBA"), "NCHW uint8, alpha dropped"),
        (PIXELS[:, ::-1], ImageInputs(channels="BGR"), "NCHW uint8, BGR"),
        (torch.from_numpy(PIXELS).flip(1), ImageInputs(channels="BGR"), "NCHW uint8, BGR"),
        (
            np.concatenate([PIXELS[:, :1], PIXELS[:, ::-1], PIXELS[:, :1]], axis=1).transpose(0, 2, 3, 1),
            ImageInputs(channels="?BGR?"),
            "NHWC uint8, ?BGR?, 2 other bands not read",
        ),
        ({"image": (torch.from_numpy(PIXELS), 0)}, ImageInputs(), "NCHW uint8"),
        (torch.from_numpy(PIXELS / 255).requires_grad_(), ImageInputs(), "NCHW float64 x 255"),
        ([0, PIXELS], ImageInputs(key=1), "NCHW uint8"),
    ],
)
def test_one_picture_however_it_arrives(batch, inputs, note):
    images = inputs.read(batch)
    assert images.note == note
    assert (images.n, images.channels, images.height, images.width) == (2, 3, 8, 6)
    np.testing.assert_allclose(scaled(images), PIXELS, atol=1e-4)
    resolved = inputs.resolve(batch)
    assert resolved.resolve(batch) == resolved
    assert resolved.read(batch).note == note


def test_half_precision_keeps_its_name_and_its_numbers():
    images = ImageInputs().read(torch.from_numpy(PIXELS / 255).bfloat16())
    assert images.note == "NCHW bfloat16 x 255, rounded to whole levels (bfloat16 is up to 0.5 levels off)"
    np.testing.assert_allclose(scaled(images), PIXELS, atol=0.51)
    images = ImageInputs(mean=MEAN, std=STD).read(torch.from_numpy(normalized()).bfloat16())
    np.testing.assert_allclose(scaled(images), PIXELS, atol=0.5)


def test_grey_images_need_no_channel_axis():
    images = ImageInputs().read(PIXELS[:, 0])
    assert (images.channels, images.note) == (1, "NHW uint8")
    assert np.array_equal(images.pixels, PIXELS[:, :1])


def test_nothing_is_copied():
    assert np.shares_memory(ImageInputs().read({"x": PIXELS}).pixels, PIXELS)
    tensor = torch.from_numpy(PIXELS / 255).requires_grad_()
    assert np.shares_memory(ImageInputs().read(tensor).pixels, tensor.detach().numpy())


def test_alpha_may_have_a_mean_or_none():
    pixels = np.concatenate([PIXELS, PIXELS[:, :1]], axis=1) / 255
    for mean in (MEAN, (*MEAN, 0.5)):
        images = ImageInputs(mean=mean, std=(1.0,) * len(mean), scale=255).read(pixels)
        assert images.channels == 3
        assert images.offset == tuple(255 * value for value in MEAN)


def test_alpha_does_not_decide_the_scale():
    pixels = np.concatenate([PIXELS / 255, np.full((2, 1, 8, 6), 255.0)], axis=1)
    assert ImageInputs().resolve(pixels).scale == 255


@pytest.mark.parametrize(
    ("batch", "inputs", "message"),
    [
        (PIXELS.astype(np.float32) / 8, ImageInputs(), r"beyond 32, but .* from 0 to 31.88: pass scale=1 if.*mean="),
        (PIXELS.astype(np.float32) + 1, ImageInputs(), r"from 1 to 256: pass scale=1 if.*mean="),
        (PIXELS.astype(np.float32) - 1, ImageInputs(), r"from -1 to 254: pass the mean="),
        (normalized(), ImageInputs(), r"\[0, 1\] or .*, but these reach from -2.*: pass the mean="),
        (PIXELS.astype(np.float32), ImageInputs(mean=MEAN, std=STD), "once mean and std are undone"),
        (PIXELS / 200, ImageInputs(), "reach from 0 to 1.275"),
        (PIXELS.astype(np.int64), ImageInputs(), "what int64 pixels mean.*pass scale="),
        (PIXELS.astype(np.uint16), ImageInputs(), "what uint16 pixels mean.*255 / 65535"),
        (PIXELS > 9, ImageInputs(), "what bool pixels mean"),
        (PIXELS, ImageInputs(mean=MEAN, std=STD), "what uint8 pixels mean with mean="),
        (np.full((2, 3, 8, 6), np.nan), ImageInputs(), "finite pixels.*288 of 288"),
        (np.zeros((0, 3, 8, 6)), ImageInputs(), "finite pixels"),
        (PIXELS[:, :1] / 255, ImageInputs(mean=MEAN, std=STD), "1 number for grey images"),
        (PIXELS / 255, ImageInputs(mean=(0, 0), std=(1, 1)), "1 or 3 numbers"),
        (PIXELS[:, :, :, :3], ImageInputs(), "fits both NCHW and NHWC"),
        (PIXELS, ImageInputs(layout="NHWC"), "6 channels"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.complex64), ImageInputs(), "complex64"),
    ],
)
def test_what_cannot_be_told_is_asked_for(batch, inputs, message):
    with pytest.raises(InputError, match=message):
        inputs.read(batch)


def test_images_that_are_not_finite_do_not_decide_the_scale():
    pixels = PIXELS / 255
    for bad in (np.nan, np.inf, -np.inf):
        pixels[0, 1, 2, 3] = bad
        assert ImageInputs().resolve(pixels).scale == 255


def test_rounding_at_the_ends_of_the_range_is_not_another_scale():
    assert ImageInputs().resolve(PIXELS / 255 * 1.004 - 0.002).scale == 255


def test_floats_that_lie_inside_0_to_255_and_reach_beyond_32_are_on_that_scale():
    for low, high in ((0, 32.1), (-0.009, 255.009), (200, 200)):
        batch = np.linspace(low, high, 2 * 8 * 6, dtype=np.float32).reshape(2, 8, 6)
        assert ImageInputs().resolve(batch).scale == 1
    for low, high in ((0, 32), (-0.02, 255), (0, 255.02)):
        with pytest.raises(InputError, match=r"or inside \[0, 255\] and reaching beyond 32"):
            ImageInputs().resolve(np.linspace(low, high, 2 * 8 * 6, dtype=np.float32).reshape(2, 8, 6))


def test_resolved_inputs_take_any_values_but_no_other_dtype_or_shape():
    inputs = ImageInputs().resolve(PIXELS / 255)
    assert inputs == ImageInputs(layout="NCHW", scale=255.0, kind="float", channels="RGB", whole=True)
    assert inputs.read(PIXELS * 1000.0).gain == (255.0,) * 3
    assert inputs.read((PIXELS / 255).astype(np.float16)).note.startswith("NCHW float16 x 255, rounded to whole")
    with pytest.raises(InputError, match="first batch was float, this one is uint8"):
        inputs.read(PIXELS)
    with pytest.raises(InputError, match="channels"):
        inputs.read(PIXELS.transpose(0, 2, 3, 1) / 255)
    with pytest.raises(InputError, match="first batch was uint8"):
        ImageInputs().resolve(PIXELS).read(PIXELS / 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "CHW"}, r"layout='CHW'.*'NCHW'"),
        ({"kind": "int"}, "kind='int'"),
        ({"scale": "unit"}, "scale='unit'"),
        ({"scale": 0}, "scale=0"),
        ({"scale": -1.0}, "scale=-1.0"),
        ({"scale": float("nan")}, "scale=nan"),
        ({"scale": True}, "scale=True"),
        ({"mean": MEAN}, "go together"),
        ({"std": STD}, "go together"),
        ({"mean": 0.5, "std": 0.5}, "mean=0.5 should be a finite number per channel"),
        ({"mean": (), "std": ()}, r"mean=\(\)"),
        ({"mean": ("a",), "std": (1,)}, "mean="),
        ({"mean": (0.5,), "std": (float("inf"),)}, r"std=\(inf,\)"),
        ({"mean": MEAN, "std": (0.2,)}, "as many numbers"),
        ({"mean": (0.5,), "std": (0.0,)}, "each std above 0"),
    ],
)
def test_wrong_arguments_raise_at_construction(arguments, message):
    with pytest.raises(InputError, match=message):
        ImageInputs(**arguments)


@given(
    st.builds(
        ImageInputs,
        layout=st.sampled_from(["auto", "NCHW", "NHWC", "NHW"]),
        scale=st.one_of(st.just("auto"), st.floats(1e-6, 1e6)),
        mean=st.just(MEAN),
        std=st.just(STD),
        key=st.one_of(st.none(), st.text(), st.integers()),
        kind=st.sampled_from(["any", "uint8", "integer", "float"]),
    )
)
@settings(max_examples=30, deadline=None)
def test_inputs_go_through_json_and_pickle(inputs):
    assert ImageInputs(**json.loads(json.dumps(dataclasses.asdict(inputs)))) == inputs
    assert pickle.loads(pickle.dumps(inputs)) == inputs
    assert hash(inputs) == hash(dataclasses.replace(inputs))


def test_numbers_of_any_kind_become_plain_ones():
    inputs = ImageInputs(mean=torch.tensor([0.5, 0.25]), std=np.array([1, 2]), scale=255)
    assert inputs == ImageInputs(mean=(0.5, 0.25), std=(1.0, 2.0), scale=255)
    assert json.dumps(dataclasses.asdict(inputs))


@pytest.mark.slow
def test_reading_images_imports_no_framework():
    code = (
        "import sys, lensai_integrations.measures.images; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'torchvision', 'keras', 'cv2', 'PIL', 'skimage')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


NEAR_INFRARED = PIXELS[:, :1]


@pytest.mark.parametrize(
    ("batch", "letters"),
    [
        (PIXELS, "RGB"),
        (NEAR_INFRARED, "L"),
        (np.concatenate([PIXELS, NEAR_INFRARED], axis=1), "RGB?"),
        (np.concatenate([PIXELS, 0 * NEAR_INFRARED], axis=1), "RGB?"),
        (np.concatenate([PIXELS, 0 * NEAR_INFRARED + 255], axis=1), "RGBA"),
        (np.concatenate([PIXELS / 255, 0 * NEAR_INFRARED + 1.0], axis=1), "RGBA"),
        (np.concatenate([PIXELS / 255, NEAR_INFRARED / 255], axis=1), "RGB?"),
    ],
)
def test_a_fourth_channel_is_alpha_only_if_it_is_opaque(batch, letters):
    inputs = ImageInputs().resolve(batch)
    assert inputs.channels == letters
    np.testing.assert_allclose(scaled(inputs.read(batch)), PIXELS[:, : 1 if letters == "L" else 3], atol=1e-4)


def test_what_was_resolved_fits_itself_to_images_with_and_without_alpha_but_not_within_one_pass():
    rgb = ImageInputs().resolve(PIXELS)
    with_alpha = np.concatenate([PIXELS, 0 * NEAR_INFRARED + 255], axis=1)
    assert rgb.resolve(with_alpha).channels == "RGBA"
    assert rgb.resolve(with_alpha).resolve(PIXELS).channels == "RGB"
    assert ImageInputs(channels="BGR").resolve(with_alpha).channels == "BGRA"
    with pytest.raises(InputError, match="images have 4 channels, but channels='RGB' names 3"):
        rgb.read(with_alpha)


@pytest.mark.parametrize(
    ("shape", "letters"), [((2, 6, 8, 9), "RGB???"), ((2, 8, 9, 2), "L?"), ((2, 8, 9, 5), "??RGB")]
)
def test_images_of_other_bands_are_read_once_their_channels_are_named(shape, letters):
    batch = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    with pytest.raises(InputError, match=r"no 1, 3 or 4 channels.*channels=, a letter for each channel"):
        ImageInputs().resolve(batch)
    with pytest.raises(InputError, match=r"\d channels, but grey has 1.*channels=, a letter for each channel"):
        ImageInputs(layout="NCHW" if letters == "RGB???" else "NHWC").resolve(batch)
    images = ImageInputs(channels=letters).read(batch)
    first = batch if letters == "RGB???" else batch.transpose(0, 3, 1, 2)
    places = [letters.index(letter) for letter in ("L" if "L" in letters else "RGB")]
    assert np.array_equal(images.pixels, first[:, places])
    assert f"{letters.count('?')} other band" in images.note


@pytest.mark.parametrize("letters", ["", "RG", "RGBR", "RGBL", "rgb", "RGBAA", "LL", "A", 3, None])
def test_channels_are_letters(letters):
    with pytest.raises(InputError, match=r"channels=.*a letter for each channel"):
        ImageInputs(channels=letters)


def test_numbers_per_channel_are_in_the_order_of_the_batch():
    mean, std = (10.0, 20.0, 30.0), (1.0, 2.0, 4.0)
    levels = PIXELS.astype(np.float64)
    made = (levels[:, ::-1] - np.reshape(mean, (1, 3, 1, 1))) / np.reshape(std, (1, 3, 1, 1))
    bands = np.concatenate([made[:, :1] * 0, made, made[:, :1] * 0], axis=1)
    for batch, letters, more in ((made, "BGR", ()), (bands, "?BGR?", ()), (bands, "?BGR?", (0.5,))):
        own = tuple((*more, *each, *more) for each in (mean, std))
        images = ImageInputs(channels=letters, mean=own[0], std=own[1], scale=1).read(batch)
        np.testing.assert_allclose(scaled(images), PIXELS, atol=1e-9)


def test_pixels_that_are_no_whole_numbers_are_not_rounded():
    """Resized as floats, say: rounding would be a change of its own."""
    between = PIXELS / 255 * 0.93 + 0.013
    assert ImageInputs().resolve(PIXELS / 255).whole is True
    assert ImageInputs().resolve(between).whole is False
    for dtype in (torch.bfloat16, torch.float16):
        images = ImageInputs().resolve(torch.from_numpy(between).to(dtype)).read(torch.from_numpy(between).to(dtype))
        assert not images.whole
        assert "levels off" in images.note
        assert "rounded" not in images.note


def test_a_normalisation_that_was_not_applied_is_asked_about():
    """A data set may have one for its other images; undone, what never had it would look like a picture too."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8)) / np.float32(255)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    normalised = ((pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))).astype(np.float32)
    reader = ImageInputs(mean=mean, std=std)
    assert reader.resolve(normalised).scale == 255
    for resized in (pixels, pixels * np.float32(0.97)):
        with pytest.raises(
            InputError, match=r"inside \[0, 1\] as they are, .* pass ImageInputs without it .*scale=255"
        ):
            reader.resolve(resized)
        assert ImageInputs().resolve(resized).mean is None
        assert ImageInputs(mean=mean, std=std, scale=255).resolve(resized).mean == mean
    bright = np.clip(pixels, 0.8, None) * 255 // 1 / 255  # whole numbers once undone: then it was applied
    white = ((bright - np.reshape(mean, (3, 1, 1))) / (3 * np.reshape(std, (3, 1, 1)))).astype(np.float32)
    assert 0 < white.min() < white.max() < 1
    assert ImageInputs(mean=mean, std=tuple(3 * each for each in std)).resolve(white).scale == 255
    with pytest.raises(InputError, match=r"1 number for grey images\. If this normalisation was not applied"):
        reader.resolve(pixels[:, :1])


# What a preprocessing does is undone: Keras's own modes, its modules and functions, and any function of one pixel.

BYTES = np.random.default_rng(0).integers(0, 256, (3, 9, 12, 3), dtype=np.uint8)
TRUE = measure_images(ImageInputs().read(BYTES))[1]


def levels(images):
    """The images on the 0-255 scale, red first."""
    gain, offset = (np.reshape(each, (1, -1, 1, 1)) for each in (images.gain, images.offset))
    return np.asarray(images.pixels, np.float64) * gain + offset


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_mode_of_keras_is_undone(mode, data_format, dtype):
    utils = pytest.importorskip("keras.applications.imagenet_utils")
    given = BYTES if data_format == "channels_last" else BYTES.transpose(0, 3, 1, 2)
    fed = utils.preprocess_input(given.astype(dtype), data_format=data_format, mode=mode)
    inputs = ImageInputs(preprocess=mode)
    images = inputs.read(fed)
    np.testing.assert_allclose(levels(images), BYTES.transpose(0, 3, 1, 2), atol=1e-4)
    np.testing.assert_allclose(measure_images(images)[1], TRUE, rtol=2e-3, atol=2e-3)
    assert images.note.startswith("NHWC" if data_format == "channels_last" else "NCHW")
    assert inputs.resolve(fed).read(fed).note == images.note


@pytest.mark.parametrize(
    ("name", "mode"),
    [("resnet", "caffe"), ("vgg16", "caffe"), ("mobilenet_v2", "tf"), ("xception", "tf"), ("densenet", "torch")],
)
def test_modules_and_functions_of_keras_applications_are_their_modes(name, mode):
    applications = pytest.importorskip("keras.applications")
    module = getattr(applications, name)
    assert ImageInputs(preprocess=module) == ImageInputs(preprocess=mode)
    assert ImageInputs(preprocess=module.preprocess_input) == ImageInputs(preprocess=mode)


@pytest.mark.parametrize("name", ["efficientnet", "convnext", "mobilenet_v3"])
def test_modules_that_leave_pixels_as_they_are(name):
    applications = pytest.importorskip("keras.applications")
    assert ImageInputs(preprocess=getattr(applications, name)) == ImageInputs(scale=1.0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x / 255, ImageInputs(scale=255.0)),
        (lambda x: x, ImageInputs(scale=1.0)),
        (lambda x: x[..., ::-1], ImageInputs(scale=1.0, channels="BGR")),
        (lambda x: x / 127.5 - 1, ImageInputs(preprocess="tf")),
        (lambda x: (x / 255 - 0.5) / 0.25, ImageInputs(mean=(127.5,), std=(63.75,), scale=1.0)),
        (
            lambda x: (x - np.array([120.0, 110, 100])) / np.array([60.0, 50, 40]),
            ImageInputs(mean=(120, 110, 100), std=(60, 50, 40), scale=1.0),
        ),
    ],
)
def test_functions_of_ones_own_are_tried_out(function, expected):
    assert ImageInputs(preprocess=function) == expected
    made = np.asarray(function(BYTES.astype(np.float64)))
    np.testing.assert_allclose(
        levels(ImageInputs(preprocess=function).read(made)), BYTES.transpose(0, 3, 1, 2), atol=1e-3
    )


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ("resnet", "preprocess='resnet' is unknown; pass one of 'tf', 'caffe', 'torch', a module"),
        (3, "preprocess=3 should be one of 'tf'"),
        (lambda x: (x / 255) ** 2, "does something else"),
        (lambda x: x - x.mean(), "does something else"),
        (lambda x: 255 - x, "does something else"),
        (lambda x: x * [[0.3], [0.6], [0.1]], "ValueError"),
        (lambda x: x.sum(), "cannot reshape"),
        (lambda x: x / 0, "does something else"),
    ],
)
def test_what_cannot_be_undone_is_refused(preprocess, message):
    with np.errstate(all="ignore"), pytest.raises(InputError, match=message):
        ImageInputs(preprocess=preprocess)


def test_a_preprocessing_stands_in_place_of_numbers():
    with pytest.raises(InputError, match=r"in place of mean=, std= and scale="):
        ImageInputs(preprocess="tf", mean=(0.5,), std=(0.5,))
    with pytest.raises(InputError, match="channels='RGB' contradicts preprocess="):
        ImageInputs(preprocess="caffe", channels="RGB")
    with pytest.raises(InputError, match="uint8, bytes as they were read"):
        ImageInputs(preprocess="tf").read(BYTES)


def test_it_is_plain_numbers_afterwards():
    inputs = ImageInputs(preprocess="caffe", key=("a", 1)).resolve({"a": [0, BYTES - np.float32(100)]})
    assert ImageInputs(**json.loads(json.dumps(asdict(inputs)))) == inputs
    assert pickle.loads(pickle.dumps(inputs)) == inputs
    assert hash(inputs) == hash(pickle.loads(pickle.dumps(inputs)))


@pytest.mark.slow
def test_nothing_is_imported_for_a_mode():
    code = (
        "import sys; from lensai_integrations import ImageInputs; ImageInputs(preprocess='tf');"
        " assert not {'keras', 'torch', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_preprocessing_of_gives_the_numbers():
    assert preprocessing_of("caffe") == ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), 1.0, "BGR")


@pytest.mark.parametrize(
    ("batch", "advice"),
    [
        (
            BYTES / 127.5 - 1,
            r"x / 127.5 - 1, pass preprocess='tf', or what is the same, mean=\(0.5,\) and std=\(0.5,\)",
        ),
        (BYTES[..., ::-1] - np.array(MODES["caffe"][0]), "pass preprocess='caffe'"),
        ((BYTES / 255 - 0.45) / 0.22, "pass the mean= and std="),
        (BYTES * 257.0, r"255 / 65535 for full 16 bit"),
        (
            (BYTES - BYTES.mean((1, 2, 3), keepdims=True)) / BYTES.std((1, 2, 3), keepdims=True),
            "a mean of 0 and a standard deviation of 1 of its own, which cannot be undone",
        ),
        (
            (BYTES - BYTES.mean((1, 2), keepdims=True)) / BYTES.std((1, 2), keepdims=True),
            "a mean of 0 and a standard deviation of 1 of its own, which cannot be undone",
        ),
    ],
)
def test_the_error_for_normalised_floats_names_what_settles_it(batch, advice):
    with pytest.raises(InputError, match=advice):
        ImageInputs().resolve(batch)


def test_following_the_advice_works():
    for batch, inputs in (
        (BYTES / 127.5 - 1, ImageInputs(preprocess="tf")),
        (BYTES / 127.5 - 1, ImageInputs(mean=(0.5,), std=(0.5,))),
        (BYTES[..., ::-1] - np.array(MODES["caffe"][0]), ImageInputs(preprocess="caffe")),
        (BYTES * 257.0, ImageInputs(scale=255 / 65535)),
    ):
        np.testing.assert_allclose(levels(inputs.read(batch)), BYTES.transpose(0, 3, 1, 2), atol=1e-6)
