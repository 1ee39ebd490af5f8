"""Every corruption does what its name says, more of it at each severity, and hands back what it was given."""

from __future__ import annotations

import copy
import io
import pickle
import random
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from lensai_integrations import Profiler, compare
from lensai_integrations.errors import InputError
from lensai_integrations.measures.images import measure_images
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.transforms.corruptions import (
    CORRUPTIONS,
    JPEG,
    SEVERITIES,
    Blur,
    Brightness,
    ColourCast,
    Contrast,
    Corruption,
    Noise,
    Occlusion,
    Pixelate,
    RandomCorruption,
    Zoom,
    corrupt,
)

#: The measure that each severity moves further than the one before, and where to.
MOVES = {
    "blur": ("sharpness", "down"),
    "brightness": ("brightness", "up"),
    "noise": ("noise_sigma", "up"),
    "contrast": ("contrast", "down"),
    "jpeg": ("noise_sigma", "down"),
    "pixelate": ("sharpness", "down"),
    "occlusion": ("near_black", "up"),
    "colour_cast": ("saturation", "up"),
    "zoom": ("sharpness", "down"),
}
PAGE = (Path(__file__).parents[2] / "docs" / "corruptions.md").read_text(encoding="utf-8")
RANDOM = [name for name, kind in CORRUPTIONS.items() if issubclass(kind, RandomCorruption)]
NAMES = pytest.mark.parametrize("name", CORRUPTIONS)
SEVERITY = pytest.mark.parametrize("severity", range(1, 6))


@cache
def photos():
    """scikit-learn's two photos, 320 x 213, 8-bit RGB."""
    return [PIL.Image.fromarray(photo).reduce(2) for photo in load_sample_images().images]


def noise_of(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def as_array(image):
    return np.asarray(image) if isinstance(image, PIL.Image.Image) else image.numpy()


# What each does, against a computation of its own


@SEVERITY
def test_blur_is_scipys_gaussian(severity):
    pixels = torch.from_numpy(np.random.default_rng(0).random((3, 40, 57)))
    spread = SEVERITIES["blur"][severity - 1]
    expected = ndimage.gaussian_filter(pixels.numpy(), (0, spread, spread), mode="mirror", truncate=4)
    np.testing.assert_allclose(Blur(severity)(pixels).numpy(), expected, atol=1e-12)


@SEVERITY
def test_brightness_is_a_factor(severity):
    image = noise_of(3, 30, 20)
    expected = np.minimum(image.numpy() * SEVERITIES["brightness"][severity - 1], 255)
    assert np.abs(Brightness(severity)(image).numpy() - expected).max() <= 0.501


@SEVERITY
def test_contrast_moves_towards_the_mean_luma(severity):
    image = np.random.default_rng(0).random((2, 3, 30, 20))
    mean = np.tensordot(image, [0.299, 0.587, 0.114], (1, 0)).mean((1, 2)).reshape(2, 1, 1, 1)
    expected = mean + SEVERITIES["contrast"][severity - 1] * (image - mean)
    np.testing.assert_allclose(Contrast(severity)(torch.from_numpy(image)).numpy(), expected, atol=2e-4)


@SEVERITY
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_is_pillows(severity, mode):
    photo = photos()[0].convert(mode)
    photo.save(file := io.BytesIO(), "JPEG", quality=SEVERITIES["jpeg"][severity - 1])
    np.testing.assert_array_equal(np.asarray(JPEG(severity)(photo)), np.asarray(PIL.Image.open(file)))


@SEVERITY
def test_pixelate_is_block_means(severity):
    image = noise_of(3, 29, 22)
    side, expected = SEVERITIES["pixelate"][severity - 1], np.empty((3, 29, 22))
    for top in range(0, 29, side):
        for left in range(0, 22, side):
            block = np.s_[:, top : top + side, left : left + side]
            expected[block] = image.numpy()[block].mean((1, 2), keepdims=True)
    assert np.abs(Pixelate(severity)(image).numpy() - expected).max() <= 0.501


@SEVERITY
def test_colour_cast_is_von_kries_gains(severity):
    image, strength = noise_of(3, 9, 9), SEVERITIES["colour_cast"][severity - 1]
    gains = np.array([1 + strength, 1, 1 - strength]).reshape(3, 1, 1)
    assert np.abs(ColourCast(severity)(image).numpy() - np.minimum(image.numpy() * gains, 255)).max() <= 0.501


def test_colour_cast_leaves_grey_alone():
    image = noise_of(1, 9, 9)
    changed = ColourCast(5)(image)
    assert torch.equal(changed, image)
    assert changed.data_ptr() != image.data_ptr()


@SEVERITY
def test_noise_is_normal_independent_and_of_its_severity(severity):
    noise = Noise(severity, seed=0)(torch.full((2, 3, 100, 100), 0.5, dtype=torch.float64)) - 0.5
    sigma = SEVERITIES["noise"][severity - 1]
    inside = noise[noise.abs() < 0.5]  # what clipping has left as it was
    assert inside.mean().abs() < 4 * sigma / np.sqrt(inside.numel())
    assert ((noise.abs() < sigma).double().mean() - 0.6827).abs() < 0.01
    channels = torch.corrcoef(noise.flatten(2).flatten(0, 1)) - torch.eye(6)
    assert channels.abs().max() < 0.04


@SEVERITY
def test_occlusion_darkens_the_stated_share_and_brightens_nothing(severity):
    image = torch.full((2, 3, 90, 120), 0.8)
    dirty = Occlusion(severity, seed=1)(image)
    share = (dirty < 0.8 * (1 - 0.85 / 2)).float().mean((1, 2, 3))
    np.testing.assert_allclose(share, SEVERITIES["occlusion"][severity - 1], atol=1e-3)
    assert dirty.max() <= 0.8
    assert dirty.min() < 0.2
    assert torch.equal(dirty[:, 0], dirty[:, 2])  # it is grey
    assert not torch.equal(dirty[0], dirty[1])  # each picture of a batch has its own


def test_dirt_grows_with_severity_where_it_was():
    light = [Occlusion(severity, seed=4)(torch.ones(1, 60, 60)) for severity in range(1, 6)]
    assert all((less >= more).all() for less, more in pairwise(light))


@SEVERITY
def test_zoom_is_linear_interpolation_of_the_middle(severity):
    image = np.random.default_rng(0).random((3, 40, 61))
    level = SEVERITIES["zoom"][severity - 1]
    height, width = round(40 / level), round(61 / level)
    crop = image[:, (40 - height) // 2 :, (61 - width) // 2 :][:, :height, :width]
    at = np.meshgrid((np.arange(40) + 0.5) * height / 40 - 0.5, (np.arange(61) + 0.5) * width / 61 - 0.5, indexing="ij")
    expected = [ndimage.map_coordinates(channel, at, order=1, mode="nearest") for channel in crop]
    np.testing.assert_allclose(Zoom(severity)(torch.from_numpy(image)).numpy(), expected, atol=1e-6)


# Severities on photos


@NAMES
@pytest.mark.parametrize("photo", [0, 1], ids=["china", "flower"])
def test_each_severity_changes_more_and_moves_its_measure_further(name, photo):
    clean = np.asarray(photos()[photo])
    changed = [np.asarray(corrupt(photos()[photo], name, severity, seed=0)) for severity in range(1, 6)]
    change = [np.abs(each.astype(float) - clean).mean() for each in changed]
    assert change[0] > 1
    assert all(np.diff(change) > 0)

    names, rows = measure_images(ImageInputs().read(np.stack([clean, *changed])))
    stream, direction = MOVES[name]
    steps = np.diff(rows[:, names.index(stream)])
    assert all(steps > 0) if direction == "up" else all(steps < 0)


def test_colour_cast_turns_the_hue_to_orange():
    names, rows = measure_images(
        ImageInputs().read(np.stack([np.asarray(photos()[1]), np.asarray(ColourCast(5)(photos()[1]))]))
    )
    clean, cast = rows[:, names.index("hue")]
    assert clean > 100
    assert 20 < cast < 80


@NAMES
def test_compare_sees_each_and_not_the_clean_images(name):
    crop = v2.RandomCrop(32)
    torch.manual_seed(0)
    photo = [tv_tensors.Image(photo) for photo in photos()]
    tiles = torch.stack([crop(photo[row % 2]) for row in range(900)])
    baseline, clean, drifted = (Profiler(seed=0) for _ in range(3))
    baseline.update(inputs=tiles[:600])
    clean.update(inputs=tiles[600:])
    drifted.update(inputs=corrupt(tiles[600:], name, 5, seed=0))
    assert not compare(baseline.profile(), clean.profile()).drift
    report = compare(baseline.profile(), drifted.profile())
    assert MOVES[name][0] in " ".join(stream.stream for stream in report.moved)


# What comes out is what went in


@NAMES
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pil_images_keep_mode_size_alpha_and_metadata(name, mode):
    photo = photos()[1].resize((37, 23)).convert(mode)
    if mode in ("LA", "RGBA"):
        photo.putalpha(PIL.Image.fromarray(noise_of(23, 37).numpy()))
    photo.info["dpi"] = (72, 72)
    before = photo.tobytes()
    changed = corrupt(photo, name, 4, seed=0)
    assert type(changed) is PIL.Image.Image
    assert (changed.mode, changed.size, changed.info["dpi"]) == (mode, (37, 23), (72, 72))
    assert photo.tobytes() == before
    assert (changed.tobytes() == before) == (name == "colour_cast" and mode in ("L", "LA"))
    if mode in ("LA", "RGBA") and name != "zoom":
        assert changed.getchannel("A").tobytes() == photo.getchannel("A").tobytes()


@NAMES
@pytest.mark.parametrize("kind", [tv_tensors.Image, tv_tensors.Video, torch.Tensor])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_type_dtype_shape_and_range(name, kind, dtype):
    image = v2.functional.to_dtype(noise_of(2, 4, 3, 20, 24), dtype, scale=True).as_subclass(kind)
    before = image.clone()
    changed = corrupt(image, name, 4, seed=0)
    assert (type(changed), changed.dtype, changed.shape) == (kind, dtype, image.shape)
    assert torch.equal(image, before)
    assert not torch.equal(changed, image)
    assert changed.min() >= 0
    assert changed.max() <= (255 if dtype == torch.uint8 else 1)


@NAMES
def test_the_same_picture_in_every_type(name):
    photo = photos()[0]
    expected = torch.from_numpy(np.asarray(corrupt(photo, name, 3, seed=0)).copy()).permute(2, 0, 1)
    as_bytes = v2.functional.pil_to_tensor(photo)
    assert torch.equal(corrupt(as_bytes, name, 3, seed=0), expected)
    assert torch.equal(corrupt(tv_tensors.Image(photo), name, 3, seed=0), expected)
    as_floats = corrupt(as_bytes / 255, name, 3, seed=0)
    assert (as_floats * 255 - expected).abs().max() <= 0.502
    strided = as_bytes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(corrupt(strided, name, 3, seed=0), expected)


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in RANDOM])
def test_a_batch_is_its_images(name):
    batch = torch.stack([noise_of(3, 20, 24, seed=seed) for seed in range(4)])
    single = torch.stack([corrupt(image, name, 4) for image in batch])
    assert (corrupt(batch.reshape(2, 2, 3, 20, 24), name, 4).reshape(batch.shape).int() - single.int()).abs().max() <= 1


@NAMES
@settings(max_examples=12, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(1, 33), st.integers(1, 33)),
    severity=st.integers(1, 5),
    floats=st.booleans(),
)
def test_any_size(name, shape, severity, floats):
    image = noise_of(*shape) / 255 if floats else noise_of(*shape)
    changed = corrupt(image, name, severity, seed=0)
    assert (changed.shape, changed.dtype) == (image.shape, image.dtype)
    if image.numel():
        assert changed.min() >= 0
        assert changed.max() <= (1 if floats else 255)


@NAMES
def test_a_sample_keeps_its_labels_boxes_and_masks(name):
    boxes = tv_tensors.BoundingBoxes([[8, 6, 20, 18], [0, 0, 3, 3]], format="XYXY", canvas_size=(24, 32))
    mask = tv_tensors.Mask(torch.zeros(24, 32, dtype=torch.uint8))
    mask[6:18, 8:20] = 1
    sample = {"image": tv_tensors.Image(noise_of(3, 24, 32)), "boxes": boxes, "mask": mask, "label": torch.tensor(3)}
    result = CORRUPTIONS[name](5)(sample)
    assert not torch.equal(result["image"], sample["image"])
    assert result["label"] is sample["label"]
    if name != "zoom":
        assert result["boxes"] is boxes
        assert result["mask"] is mask
        return
    # Twice as large around the middle (16, 12); a box that left the picture is empty.
    assert result["boxes"].tolist() == [[0, 0, 24, 24], [0, 0, 0, 0]]
    assert result["boxes"].canvas_size == (24, 32)
    rows, columns = torch.nonzero(result["mask"], as_tuple=True)
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [0, 0, 24, 24]


def test_zoom_magnifies_alpha_too():
    image = noise_of(1, 20, 20).repeat(4, 1, 1)
    changed = Zoom(5)(image)
    assert torch.equal(changed[3], changed[0])
    assert not torch.equal(changed[3], image[3])


def test_it_is_a_transform_among_others():
    pipeline = v2.Compose(
        [v2.Resize((32, 48)), Blur(2), Noise(1, seed=0), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    )
    image, label = pipeline(photos()[0], 7)
    assert (image.shape, image.dtype, label) == ((3, 32, 48), torch.float32, 7)
    assert repr(Noise(1, seed=5)) == "Noise(severity=1, level=0.08, seed=5)"


# Random numbers


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_fixes_the_sequence_and_no_other_generator_moves(name):
    image = torch.full((3, 16, 16), 0.5)
    before = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
    first, again, other = (CORRUPTIONS[name](3, seed) for seed in (1, 1, 2))
    sequence = [first(image) for _ in range(3)]
    assert all(torch.equal(image_, again(image)) for image_ in sequence)
    assert not torch.equal(sequence[0], sequence[1])
    assert not torch.equal(sequence[0], other(image))
    assert not torch.equal(CORRUPTIONS[name](3)(image), CORRUPTIONS[name](3)(image))
    after = torch.get_rng_state(), np.random.get_state()[1].tobytes(), random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


@NAMES
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))], ids=["copy", "pickle"]
)
def test_a_copy_starts_its_sequence_anew(name, copied):
    image = noise_of(3, 16, 16)
    made = CORRUPTIONS[name](3, seed=1) if name in RANDOM else CORRUPTIONS[name](3)
    first = made(image)
    again = copied(made)
    assert again.severity == 3
    assert torch.equal(again(image), first)


def loaded(transform, context, workers=2):
    """What workers make of eight equal pictures, in turns: of two, worker 0, 1, 0, 1, ..."""
    images = [torch.full((1, 8, 8), 0.5)] * 8
    how = {"num_workers": workers, "multiprocessing_context": context, "timeout": 120}
    return list(DataLoader(images, batch_size=None, collate_fn=transform, **how))


def all_differ(images):
    return len({image.numpy().tobytes() for image in images}) == len(images)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [None, 7])
def test_forked_workers_draw_each_their_own(seed):
    transform = Noise(3, seed)
    here = transform(torch.full((1, 8, 8), 0.5))  # the generator that the workers inherit
    first, again = loaded(transform, "fork"), loaded(transform, "fork")
    assert all_differ([here, *first])
    equal = [torch.equal(one, other) for one, other in zip(first, again, strict=True)]
    assert equal == [seed is not None] * 8


@pytest.mark.slow
def test_a_spawned_worker_draws_what_a_forked_one_draws():
    spawned, forked = loaded(Noise(3, seed=7), "spawn", workers=1), loaded(Noise(3, seed=7), "fork")
    assert all(torch.equal(one, other) for one, other in zip(spawned[:4], forked[::2], strict=True))


# What is refused


@pytest.mark.parametrize("severity", [0, 6, -1, 2.0, "3", None, True])
def test_a_severity_is_a_whole_number_from_1_to_5(severity):
    with pytest.raises(InputError, match=re.escape(f"severity={severity!r} should be a whole number from 1 to 5")):
        Blur(severity)


def test_numpys_numbers_are_numbers():
    assert Noise(np.int64(2), np.uint8(3)).extra_repr() == "severity=2, level=0.12, seed=3"


@pytest.mark.parametrize("seed", [-1, 0.5, "a", True])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(InputError, match=re.escape(f"seed={seed!r} should be a whole number of at least 0")):
        Occlusion(3, seed)


def test_names_are_known():
    with pytest.raises(InputError, match=r"name='fog' is no corruption; pass one of 'blur', .*'zoom'"):
        corrupt(photos()[0], "fog")


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "I;16", "F", "HSV"])
def test_other_pil_modes_are_refused(mode):
    with pytest.raises(InputError, match=f"got '{mode}'; pass image.convert"):
        Blur()(PIL.Image.new(mode, (4, 4)))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 4), r"should be \[..., C, H, W\] with C of 1 to 4, got \(4, 4\)"),
        (torch.zeros(8, 8, 3), r"got \(8, 8, 3\); move the channels first"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "should be uint8 or float, got torch.int64"),
        (torch.full((3, 4, 4), 255.0), r"should be in \[0, 1\], got 255 to 255; corrupt them before v2.Normalize"),
        (torch.full((3, 4, 4), -2.1), r"should be in \[0, 1\], got -2.1 to -2.1"),
        (torch.tensor([[[0.5, float("nan")]]]), r"should be in \[0, 1\], got nan"),
        (np.zeros((4, 4, 3), np.uint8), "Blur was given no picture but ndarray; pass a PIL image or a tensor"),
        ({}, "Blur was given no picture but nothing"),
        (tv_tensors.Mask(torch.zeros(4, 4)), "Blur was given no picture but Mask"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(InputError, match=message):
        Blur()(image)


def test_what_cubic_resizing_overshoots_is_cut_off():
    image = torch.tensor([[[-0.05, 0.5, 1.05]]])
    assert ColourCast()(image).tolist() == [[[0.0, 0.5, 1.0]]]


# The tables and the page


def test_the_tables_belong_together():
    assert list(CORRUPTIONS) == list(SEVERITIES) == list(MOVES)
    assert all(issubclass(kind, Corruption) and kind.levels == SEVERITIES[name] for name, kind in CORRUPTIONS.items())
    assert all(len(set(levels)) == 5 for levels in SEVERITIES.values())


@NAMES
def test_the_page_says_what_is_so(name):
    (row,) = re.findall(rf"^\| `{name}` \| `(\w+)` \| .* \| ([\d., ]+) \| .* \| (\w+) (\w+) \|$", PAGE, re.MULTILINE)
    kind, levels, *moves = row
    assert kind == CORRUPTIONS[name].__name__
    assert tuple(float(level) for level in levels.split(", ")) == SEVERITIES[name]
    assert tuple(moves) == MOVES[name]


def test_the_pages_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for index, photo in enumerate(photos()):
        (tmp_path / "photos" / str(index)).mkdir(parents=True)
        for left in range(0, 160, 32):
            photo.crop((left, 0, left + 160, 213)).save(tmp_path / "photos" / str(index) / f"{left}.png")
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/corruptions.md", "exec"), {})
    printed = capsys.readouterr().out.split()
    assert printed == ["blur", "1", "True", "blur", "5", "True"]
