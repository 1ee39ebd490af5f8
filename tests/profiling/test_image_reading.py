"""Whatever is delivered is measured as RGB on the 0-255 scale: held against Pillow's own conversions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lensai_integrations.errors import InputError
from lensai_integrations.measures.images import measure_images
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiling.image_reading import read


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 24)[None, :, None] * np.array([1.0, 0.7, 0.4])
    return Image.fromarray((ramp + rng.uniform(0, 9, (16, 24, 3))).clip(0, 255).astype(np.uint8))


def measures(delivered):
    names, rows = measure_images(delivered.images)
    return dict(zip(names, np.asarray(rows)[0].tolist(), strict=True))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_is_measured_as_pillow_converts_it(photo, mode):
    image = photo.convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        image = Image.frombytes("LAB", photo.size, photo.tobytes())
    delivered = read(image)
    expected = image.convert("L").convert("RGB") if mode in ("L", "1", "LA") else image.convert("RGB")

    assert delivered.mode == mode
    assert delivered.images.channels == 3
    assert measures(delivered) == pytest.approx(measures(read(expected)))


def test_sixteen_bits_are_scaled(photo):
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    expected = measures(read(photo.convert("L")))
    for image in (Image.fromarray(grey), Image.fromarray(grey.astype(np.int32)), grey):
        assert measures(read(image)) == pytest.approx(expected, abs=1e-3)


def test_a_file_in_32_bits_that_holds_bytes_is_bytes(photo):
    grey = photo.convert("L")
    assert measures(read(grey.convert("I"))) == pytest.approx(measures(read(grey)))


def test_floats_of_a_picture_in_0_to_1_are_scaled(photo):
    grey = np.asarray(photo.convert("L"))
    assert measures(read(Image.fromarray((grey / 255).astype(np.float32)))) == pytest.approx(
        measures(read(grey)), abs=1e-2
    )


def test_arrays_and_tensors_are_read_where_their_libraries_have_the_channels(photo):
    torch = pytest.importorskip("torch")
    array = np.asarray(photo)
    expected = measures(read(photo))
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    alpha = np.concatenate([array, array[..., :1]], axis=-1)
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:, None, None], torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    normalised = (tensor / 255 - mean) / std
    how = ImageInputs(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))

    for image in (array, array[None], tensor, tensor[None], alpha, tensor / 255, array / 255):
        assert measures(read(image)) == pytest.approx(expected, abs=2e-2)
    assert measures(read(normalised, how)) == pytest.approx(expected, abs=2e-2)


@pytest.mark.parametrize(
    ("channels", "mode", "remark"),
    [(1, "L", ""), (2, "L?", "'LA') if it is alpha"), (3, "RGB", ""), (4, "RGB?", "'RGBA') if it is alpha")],
)
def test_tensors_of_one_to_four_channels(channels, mode, remark):
    torch = pytest.importorskip("torch")
    tensor = torch.full((channels, 9, 8), 7, dtype=torch.uint8)
    delivered = read(tensor)
    assert (delivered.mode, delivered.images.channels, delivered.images.height) == (mode, 3, 9)
    assert remark in delivered.remark
    if channels in (2, 4):
        tensor[-1] = 255
        opaque = read(tensor)
        assert (opaque.mode, opaque.remark) == (mode[:-1] + "A", "")
        assert measures(opaque) == measures(delivered)
        settled = read(tensor * 0, ImageInputs(channels=mode))
        assert (settled.mode, settled.remark) == (mode, "")


def test_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="not str: put ProfileImages where the images are"):
        read("picture.jpg")
    with pytest.raises(InputError, match="mean= and std="):
        read(np.array([[[-2.0, 0.0, 3.0]]]))
