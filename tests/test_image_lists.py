"""A list of images is that many images, of whatever sizes, wherever batches are taken in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lensai_integrations import DriftMonitor, ImageInputs, Profiler, measure, profile_dataset
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import find_images
from lensai_integrations.problems import Problems
from lensai_integrations.profiling.batch_reading import BatchReader
from lensai_integrations.profiling.measuring import ImageBatch, image_measurer

SIZES = [(24, 32), (40, 20), (24, 32), (16, 16), (40, 20)]
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (3, *size), dtype=np.uint8) for size in SIZES]
LABELS = np.arange(5)


def numpy_of(images):
    return images


def torch_of(images):
    return [torch.from_numpy(image) for image in images]


def tensorflow_of(images):
    tf = pytest.importorskip("tensorflow")
    return [tf.constant(image) for image in images]


def jax_of(images):
    jax = pytest.importorskip("jax")
    return [jax.numpy.asarray(image) for image in images]


def profiled(batch, **arguments):
    profiler = Profiler(seed=0, **arguments)
    profiler.update(inputs=batch, labels=LABELS[: len(batch)])
    return profiler.profile()


def rows_of(profile):
    """Brightness of each image, in the order of the labels."""
    rows = profile.rows.to_host().data
    order = np.argsort(rows["labels"][:, 0])
    return rows["inputs"][order, 0]


def counts_of(images):
    return np.stack(
        [np.bincount(np.concatenate([image[c].ravel() for image in images]), minlength=256) for c in range(3)]
    )


def luma(images):
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    return np.array([(image.astype(np.float64) * weights).sum(0).mean() for image in images])


@pytest.mark.parametrize("make", [numpy_of, torch_of, tensorflow_of, jax_of])
@pytest.mark.parametrize("convention", ["lensai", ("lensai", "lensai-edge")])
def test_images_of_several_sizes_stay_in_order_with_their_labels(make, convention):
    profile = profiled(make(PICTURES), convention=convention)
    group = profile.groups["inputs"]
    assert (group.n, group.invalid, group.info["note"]) == (5, 0, "a list of NCHW uint8")
    assert group.info["size"] == "16x16 to 40x32"
    np.testing.assert_allclose(rows_of(profile), luma(PICTURES), atol=1e-3)
    np.testing.assert_array_equal(group.pixels.counts, counts_of(PICTURES))
    heights = group.bank.sorted_view()[0][group.streams.index("height")]
    assert sorted(heights) == sorted(height for height, _ in SIZES)


def test_images_of_one_size_are_what_they_are_stacked():
    alike = [image[:, :16, :16] for image in PICTURES]
    listed, stacked = profiled(alike), profiled(np.stack(alike))
    np.testing.assert_array_equal(rows_of(listed), rows_of(stacked))
    np.testing.assert_array_equal(listed.groups["inputs"].pixels.counts, stacked.groups["inputs"].pixels.counts)


def test_one_image_in_a_list_is_one_row_and_grey_ones_need_no_axis():
    assert profiled(PICTURES[:1]).groups["inputs"].n == 1
    grey = [image[0] for image in PICTURES]
    profile = profiled(grey)
    assert (profile.groups["inputs"].n, profile.groups["inputs"].info["note"]) == (5, "a list of NHW uint8")
    np.testing.assert_allclose(rows_of(profile), [image.mean() for image in grey], atol=1e-3)


def test_floats_of_several_sizes_share_one_scale_and_one_bad_image_is_one_bad_row():
    floats = [(image / 255).astype(np.float32) for image in PICTURES]
    floats[1][0, 0, 0] = np.nan
    group = profiled(floats).groups["inputs"]
    assert (group.n, group.invalid, group.info["reader"]["scale"]) == (4, 1, 255.0)
    np.testing.assert_array_equal(group.pixels.counts, counts_of([p for i, p in enumerate(PICTURES) if i != 1]))


def test_custom_measures_see_every_image_of_a_list():
    @measure("lightest_of_list")
    def lightest(images):
        return images.max((1, 2, 3))

    dark = [image // (i + 1) for i, image in enumerate(PICTURES)]
    profiler = Profiler(measures=[lightest], seed=0)
    profiler.update(inputs=dark, labels=LABELS)
    rows = profiler.profile().rows.data
    found = rows["inputs/lightest_of_list"][np.argsort(rows["labels"][:, 0]), 0]
    assert found.tolist() == [image.max() for image in dark]


@dataclass
class Sample:
    picture: np.ndarray
    label: int


@pytest.mark.parametrize(
    "batch",
    [
        (tuple(PICTURES), tuple({"boxes": np.zeros((1, 4))} for _ in PICTURES)),
        {"img": PICTURES, "targets": [{"boxes": np.zeros((2, 4))}] * 5},
        [{"image": image, "id": i} for i, image in enumerate(PICTURES)],
        [(image, i) for i, image in enumerate(PICTURES)],
        [Sample(image, i) for i, image in enumerate(PICTURES)],
    ],
)
def test_a_list_is_found_wherever_it_is(batch):
    profile = profiled(batch) if isinstance(batch, list) else None
    profiler = Profiler(seed=0)
    profiler.update(inputs=batch)
    assert profiler.profile().groups["inputs"].n == 5
    assert profile is None or profile.groups["inputs"].n == 5


def test_pillow_images_are_read_in_their_own_colours():
    image = pytest.importorskip("PIL.Image")
    pictures = [image.fromarray(each.transpose(1, 2, 0)) for each in PICTURES]
    pictures[0].putalpha(3)
    pictures[1] = pictures[1].convert("P", palette=image.Palette.ADAPTIVE, colors=256)
    profile = profiled(pictures)
    assert profile.groups["inputs"].n == 5
    expected = luma([np.asarray(each.convert("RGB")).transpose(2, 0, 1) for each in pictures])
    np.testing.assert_allclose(rows_of(profile), expected, atol=1e-3)


def test_a_mixture_of_grey_and_colour_is_refused_and_a_layout_for_grey_ones_is_no_way_out():
    with pytest.raises(InputError, match="have 1 and 3 channels: make them alike"):
        profiled([*PICTURES, PICTURES[0][:1], PICTURES[1][:1]])
    with pytest.raises(InputError, match=r"'NHW' is of grey images.*list of 5"):
        Profiler(inputs=ImageInputs(layout="NHW")).update(inputs=PICTURES)


def test_two_views_are_batches_of_which_the_first_is_read_and_that_is_said(caplog):
    views = [np.stack(PICTURES[:1] * 4), np.stack(PICTURES[:1] * 4)]
    profiler = Profiler()
    for _ in range(2):
        profiler.update(inputs=views)
        profiler.update(inputs=views)
        profile = profiler.profile()
        assert (profile.groups["inputs"].n, len(profile.warnings)) == (8, 1)
        assert "2 arrays of images are in the batch, at 0, 1: only the first is read" in profile.warnings[0]
        assert "ImageInputs(key=0)" in profile.warnings[0]
        profiler.reset()
    assert len(caplog.records) == 1
    settled = Profiler(inputs=ImageInputs(key=0))
    settled.update(inputs=views)
    assert settled.profile().warnings == []


def test_readers_of_loaders_copy_lists_and_say_what_they_chose():
    problems = Problems(quiet=True)
    reader = BatchReader(ImageInputs(), "auto", problems)
    given = torch_of(PICTURES)
    taken = reader.take((given, [{}] * 5))
    assert [image.shape for image in taken.images] == [image.shape for image in given]
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in zip(taken.images, given, strict=True))
    reader.take([torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)])
    assert problems.messages == []  # the first batch had settled it
    views = BatchReader(ImageInputs(), "auto", problems)
    for _ in range(2):
        views.take(([torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8)], torch.zeros(4)))
    assert len(problems.messages) == 1
    assert "at (0, 0), (0, 1): only the first is read" in problems.messages[0]


def test_what_the_first_batch_settled_holds_for_a_last_one_that_looks_otherwise():
    """Three grey images and their masks look like two images in colour."""
    reader = BatchReader(ImageInputs(), None, Problems())
    first, last = (np.zeros((n, 28, 28), np.float32) for n in (32, 3))
    assert reader.take((first, first)).images.shape == (32, 28, 28)
    assert reader.take((last, last)).images.shape == (3, 28, 28)
    profiler = Profiler()
    profiler.update(inputs=(first, first))
    profiler.update(inputs=(last, last))
    assert profiler.profile().groups["inputs"].n == 35


def baseline_of(n=300):
    images = RNG.integers(60, 200, (n, 3, 8, 8), dtype=np.uint8)
    profiler = Profiler(source="validation", seed=0)
    profiler.update(inputs=images)
    return profiler.profile()


@pytest.mark.parametrize("make", [numpy_of, torch_of])
def test_a_monitor_sees_all_images_of_a_list(make):
    baseline = baseline_of()
    black = [RNG.integers(60, 200, (3, 8, 8), dtype=np.uint8), *[np.zeros((3, 8, 8), np.uint8)] * 99]
    monitor = DriftMonitor(baseline, window=50)
    reports = monitor.update(inputs=make(black))
    assert [(report.level, report.profile.groups["inputs"].n) for report in reports] == [("alarm", 50), ("alarm", 50)]
    assert monitor.update(inputs=make(black[:1])) == []
    assert monitor.status.rows == 101
    assert monitor.status.failures == {}


def test_watch_hands_over_lists_of_images():
    class Detector(torch.nn.Module):
        def forward(self, images, targets=None):
            for image in images:
                image.zero_()
            return torch.zeros(len(images), 2)

    images = torch_of([image[:, :8, :8] for image in PICTURES])
    expected, module, seen = luma([image.numpy() for image in images]), Detector().eval(), []
    monitor = DriftMonitor(baseline_of(), window=50)
    monitor.update = lambda **given: seen.append(given["inputs"])
    with monitor.watch(module, outputs=False):
        module(images, targets=[{"boxes": torch.zeros(1, 4)}] * 5)
        module(images=images)
    np.testing.assert_array_equal(luma([image.numpy() for image in seen[0]]), expected)
    assert [len(each) for each in seen] == [5, 5]


def test_batches_of_lists_are_profiled_as_data():
    batches = [(torch_of(PICTURES), torch.arange(5)), (torch_of(PICTURES[:2]), torch.arange(2))]
    profile = profile_dataset(iter(batches))
    assert (profile.groups["inputs"].n, profile.groups["labels"].n) == (7, 7)


@pytest.mark.parametrize(
    ("array", "rows"), [(np.ones(16), 1), (np.ones(16).tolist(), 1), (np.ones((1, 16)), 1), (np.ones((4, 16)), 4)]
)
def test_one_vector_is_one_row_where_the_baseline_knows_its_width(array, rows):
    profiler = Profiler(seed=0)
    profiler.update(embeddings={"encoder": RNG.normal(size=(60, 16))}, outputs=RNG.normal(size=(60, 16)))
    baseline = profiler.profile()
    like = Profiler(like=baseline)
    like.update(embeddings={"encoder": np.asarray(array)}, outputs=np.asarray(array))
    assert {name: group.n for name, group in like.profile().groups.items()} == {
        "outputs": rows,
        "embeddings/encoder": rows,
    }
    monitor = DriftMonitor(baseline, window=10)
    monitor.update(embeddings={"encoder": array}, outputs=array, labels=1 if np.ndim(array) == 1 else [1] * rows)
    assert (monitor.status.rows, dict(monitor.status.failures)) == (rows, {})


def test_a_vector_of_another_width_is_refused_and_single_values_stay_rows():
    profiler = Profiler(seed=0)
    profiler.update(embeddings={"encoder": RNG.normal(size=(60, 16))}, outputs=RNG.normal(size=(60, 1)))
    baseline = profiler.profile()
    like = Profiler(like=baseline)
    with pytest.raises(InputError, match=r"vector of 7 numbers, but a row of the baseline has 16: pass one row \[16\]"):
        like.update(embeddings={"encoder": np.zeros(7)})
    like.update(outputs=np.zeros((7, 1)))
    assert like.profile().groups["outputs"].n == 7


@pytest.mark.parametrize("convention", ["lensai", ("lensai", "lensai-edge")])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_lists_on_a_device_are_never_waited_for(convention, dtype):
    """Tensors of torch's meta device have no values: whatever would wait for one raises."""
    images = [torch.empty(3, *size, dtype=dtype, device="meta") for size in SIZES]
    scale = 1.0 if dtype == torch.uint8 else 255.0
    kind = "uint8" if dtype == torch.uint8 else "float"
    reader = ImageInputs(layout="NCHW", scale=scale, kind=kind, channels="BGR", whole=True)
    conventions = (convention,) if isinstance(convention, str) else convention
    found = ImageBatch(images).measured(image_measurer(reader, *conventions), conventions[-1])
    assert (found["rows"].device.type, found["rows"].shape[0]) == ("meta", 5)
    counted = found["counted"]  # of floats the device alone knows how many are valid
    assert counted == 5 if dtype == torch.uint8 else (counted.device.type, tuple(counted.shape)) == ("meta", ())
    assert found["counts"].device.type == "meta"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("wrap", [lambda images: images, lambda images: (images, [0, 1])])
def test_a_grey_and_a_colour_image_are_named_as_such(first, wrap):
    pair = [np.zeros((1, 16, 16)), np.zeros((3, 16, 16))]
    with pytest.raises(InputError, match="the images of a list have 1 and 3 channels: make them alike"):
        find_images(wrap([pair[first], pair[1 - first]]))


@pytest.mark.parametrize("wrap", [lambda image: image, list])
def test_a_first_batch_without_a_finite_image_says_how_much_is_not_finite(wrap):
    images = np.random.default_rng(0).random((4, 3, 16, 16), np.float32)
    images[:, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="4 of 3,072 values are not finite"):
        Profiler().update(inputs=wrap(images))
    profiler = Profiler(inputs=ImageInputs(scale=255.0))
    profiler.update(inputs=wrap(images))
    assert "4 of 4 rows of inputs were left out" in profiler.profile().warnings[0]


def _pictures(seed):
    return list(np.random.default_rng(seed).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8))


def _counts(images):
    return [np.bincount(np.stack(images)[:, channel].ravel(), minlength=256).tolist() for channel in range(3)]


LEFT, RIGHT = _pictures(0), _pictures(1)
PAIRS = list(zip(LEFT, RIGHT, strict=True))
SEVERAL = {
    "samples": [(one, two, 1) for one, two in PAIRS],
    "samples with pairs": [((one, two), 1) for one, two in PAIRS],
    "samples with lists": [{"views": [one, two], "label": 1} for one, two in PAIRS],
    "pairs": PAIRS,
    "two lists": (LEFT, RIGHT),
    "dicts": [{"left": one, "right": two} for one, two in PAIRS],
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_images_in_a_list_are_said_and_the_advice_reads_them(kind):
    def profile(**settings):
        profiler = Profiler(**settings)
        profiler.update(inputs=SEVERAL[kind])
        return profiler.profile()

    if kind == "dicts":
        with pytest.raises(InputError) as error:
            profile()
        told = str(error.value)
    else:
        first = profile()
        assert first.groups["inputs"].pixels.counts.tolist() == _counts(LEFT)
        (told,) = first.warnings
    found = profile(inputs=eval(told.rpartition("inputs=")[2]))
    assert [group.pixels.counts.tolist() for group in found.groups.values()] == [_counts(LEFT), _counts(RIGHT)]
    assert found.warnings == []
