"""What a preprocessing does is undone: Keras's own modes, its modules and functions, and any function of one pixel."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from lensai_integrations.errors import InputError
from lensai_integrations.measures.images import measure_images
from lensai_integrations.measures.inputs import MODES, ImageInputs, preprocessing_of

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 9, 12, 3), dtype=np.uint8)
TRUE = measure_images(ImageInputs().read(PIXELS))[1]


def levels(images):
    """The images on the 0-255 scale, red first."""
    gain, offset = (np.reshape(each, (1, -1, 1, 1)) for each in (images.gain, images.offset))
    return np.asarray(images.pixels, np.float64) * gain + offset


@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_mode_of_keras_is_undone(mode, data_format, dtype):
    utils = pytest.importorskip("keras.applications.imagenet_utils")
    given = PIXELS if data_format == "channels_last" else PIXELS.transpose(0, 3, 1, 2)
    fed = utils.preprocess_input(given.astype(dtype), data_format=data_format, mode=mode)
    inputs = ImageInputs(preprocess=mode)
    images = inputs.read(fed)
    np.testing.assert_allclose(levels(images), PIXELS.transpose(0, 3, 1, 2), atol=1e-4)
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
    made = np.asarray(function(PIXELS.astype(np.float64)))
    np.testing.assert_allclose(
        levels(ImageInputs(preprocess=function).read(made)), PIXELS.transpose(0, 3, 1, 2), atol=1e-3
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
        ImageInputs(preprocess="tf").read(PIXELS)


def test_it_is_plain_numbers_afterwards():
    inputs = ImageInputs(preprocess="caffe", key=("a", 1)).resolve({"a": [0, PIXELS - np.float32(100)]})
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
            PIXELS / 127.5 - 1,
            r"x / 127.5 - 1, pass preprocess='tf', or what is the same, mean=\(0.5,\) and std=\(0.5,\)",
        ),
        (PIXELS[..., ::-1] - np.array(MODES["caffe"][0]), "pass preprocess='caffe'"),
        ((PIXELS / 255 - 0.45) / 0.22, "pass the mean= and std="),
        (PIXELS * 257.0, r"255 / 65535 for full 16 bit"),
        (
            (PIXELS - PIXELS.mean((1, 2, 3), keepdims=True)) / PIXELS.std((1, 2, 3), keepdims=True),
            "a mean of 0 and a standard deviation of 1 of its own, which cannot be undone",
        ),
        (
            (PIXELS - PIXELS.mean((1, 2), keepdims=True)) / PIXELS.std((1, 2), keepdims=True),
            "a mean of 0 and a standard deviation of 1 of its own, which cannot be undone",
        ),
    ],
)
def test_the_error_for_normalised_floats_names_what_settles_it(batch, advice):
    with pytest.raises(InputError, match=advice):
        ImageInputs().resolve(batch)


def test_following_the_advice_works():
    for batch, inputs in (
        (PIXELS / 127.5 - 1, ImageInputs(preprocess="tf")),
        (PIXELS / 127.5 - 1, ImageInputs(mean=(0.5,), std=(0.5,))),
        (PIXELS[..., ::-1] - np.array(MODES["caffe"][0]), ImageInputs(preprocess="caffe")),
        (PIXELS * 257.0, ImageInputs(scale=255 / 65535)),
    ):
        np.testing.assert_allclose(levels(inputs.read(batch)), PIXELS.transpose(0, 3, 1, 2), atol=1e-6)
