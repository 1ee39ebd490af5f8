"""`ProfileImages` changes nothing, and counts every image once, whatever process it passed through."""

from __future__ import annotations

import copy
import errno
import gc
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from lensai_integrations import measure
from lensai_integrations.errors import InputError
from lensai_integrations.transforms import ProfileImages

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on few cores


class Pictures(Dataset):
    """Images of four sizes, the i-th full of i."""

    def __init__(self, transform, n=50):
        self.transform, self.n = transform, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.transform(picture(i))


class Stream(IterableDataset):
    def __init__(self, transform, n=50):
        self.transform, self.n = transform, n

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        for i in range(first, self.n, step):
            yield self.transform(picture(i))


class Dies(Pictures):
    def __getitem__(self, i):
        if i == 30 and torch.utils.data.get_worker_info():
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


def picture(i):
    return torch.full((3, 8 + i % 4, 12), i, dtype=torch.uint8)


def pixels_of(indices):
    counts = np.zeros(256, np.int64)
    for i in indices:
        counts[i] += (8 + i % 4) * 12
    return counts


def check(profile, n=50, epochs=1):
    group = profile.groups["raw"]
    assert (group.n, group.invalid) == (n * epochs, 0)
    np.testing.assert_array_equal(group.pixels.counts, [epochs * pixels_of(range(n))] * 3)
    assert profile.groups["metadata/mode"].categories[""].top(3) == [("RGB", n * epochs)]


def pipeline(**arguments):
    profiled = ProfileImages(**arguments)
    return profiled, v2.Compose([profiled, v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Pictures, Stream])
@pytest.mark.parametrize(
    ("workers", "how"),
    [
        (0, {}),
        (1, {"multiprocessing_context": "fork"}),
        (4, {"multiprocessing_context": "fork", "persistent_workers": True}),
        (2, {"multiprocessing_context": "fork"}),
    ],
)
def test_every_image_counts_once_in_every_epoch(kind, workers, how):
    profiled, transform = pipeline()
    loader = DataLoader(kind(transform), batch_size=8, num_workers=workers, **how)
    for epoch in range(2):
        for _ in loader:
            pass
        check(profiled.profile(), epochs=epoch + 1)
    profiled.reset()
    for _ in loader:
        pass
    check(profiled.profile())


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_every_image_counts_once_in_processes_that_are_not_forked(start):
    profiled, transform = pipeline()
    loader = DataLoader(
        Pictures(transform), batch_size=8, num_workers=2, multiprocessing_context=start, persistent_workers=True
    )
    for _ in range(2):
        for _ in loader:
            pass
    check(profiled.profile(), epochs=2)


@pytest.mark.parametrize("budget", [None, 0.05])
def test_more_images_than_a_buffer_holds(budget):
    profiled = ProfileImages(budget=budget)
    profiled.collector._ledger._capacity = 8
    loader = DataLoader(Pictures(profiled), batch_size=1, num_workers=2, multiprocessing_context="fork")
    for _ in loader:
        pass
    check(profiled.profile())


def test_a_worker_that_is_killed_leaves_what_it_has_seen():
    profiled, transform = pipeline()
    loader = DataLoader(Dies(transform), batch_size=5, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed"):
        list(loader)
    assert profiled.profile().groups["raw"].n == 30


def test_a_loader_that_is_left_halfway_counts_what_was_delivered():
    profiled = ProfileImages()
    loader = DataLoader(Pictures(profiled), batch_size=1, num_workers=2, multiprocessing_context="fork")
    batches = iter(loader)
    for _ in range(6):
        next(batches)
    del batches
    gc.collect()
    assert 6 <= profiled.profile().groups["raw"].n <= 6 + 2 * 2  # two workers prefetch two batches each


def test_what_passes_is_the_same_object():
    profiled = ProfileImages()
    image = tv_tensors.Image(torch.zeros(3, 8, 6, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes([[0, 0, 2, 2]], format="XYXY", canvas_size=(8, 6))
    mask = tv_tensors.Mask(torch.zeros(8, 6))
    sample = {"image": image, "boxes": boxes, "mask": mask, "label": 3}
    assert profiled(sample) is sample
    assert profiled(image, boxes) == (image, boxes)
    pillow = Image.new("RGB", (6, 8))
    assert profiled(pillow) is pillow
    batch = torch.zeros(5, 3, 8, 6)
    assert profiled(batch) is batch
    profile = profiled.profile()
    assert profile.groups["raw"].n == 8


def test_the_generators_of_others_are_left_alone():
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    profiled = ProfileImages()
    profiled(picture(1))
    profiled.profile()
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_several_at_different_places():
    first, last = ProfileImages(), ProfileImages("resized")
    transform = v2.Compose([first, v2.Resize((4, 4)), last])
    for i in range(6):
        transform(picture(i))
    table = last.profile().to_pandas().set_index("stream")
    assert table.loc["resized/height", "max"] == 4
    assert first.profile().to_pandas().set_index("stream").loc["raw/height", "max"] == 11


def test_modes_formats_sizes_and_exif(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Maker", "Model 1", 6
    exif.get_ifd(0x8769)[0x829A], exif.get_ifd(0x8769)[0x8827] = 0.004, 400
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("L", (10, 20)).save(tmp_path / "b.png")
    names = ("make", "model", "software", "orientation", "exposure", "iso")
    silent, asked = ProfileImages(), ProfileImages(exif=names)
    for path in ("a.jpg", "b.png"):
        with Image.open(tmp_path / path) as image:
            asked(silent(image))

    groups = silent.profile().groups
    assert set(groups) == {"raw", "metadata/mode", "metadata/format", "metadata/file_size"}
    groups = asked.profile().groups
    found = {name.removeprefix("metadata/"): group for name, group in groups.items()}
    assert dict(found["mode"].categories[""].top(2)) == {"RGB": 1, "L": 1}
    assert dict(found["format"].categories[""].top(2)) == {"JPEG": 1, "PNG": 1}
    sizes = sorted((tmp_path / path).stat().st_size for path in ("a.jpg", "b.png"))
    assert [found["file_size"].bank.min[0], found["file_size"].bank.max[0]] == sizes
    assert found["make"].categories[""].top(1) == [("Maker", 1)]
    assert found["model"].categories[""].top(1) == [("Model 1", 1)]
    assert found["orientation"].categories[""].top(1) == [("6", 1)]
    assert found["exposure"].bank.max[0] == pytest.approx(0.004)
    assert found["iso"].bank.max[0] == 400
    assert "software" not in found


def test_metadata_of_samples_and_of_batches(caplog):
    profiled = ProfileImages(
        metadata={
            "hour": lambda sample: sample["hour"],
            "site": lambda sample: "north" if sample["hour"] < 3 else "south",
            "broken": lambda sample: sample["missing"],
            "odd": lambda sample: object(),
        }
    )
    for hour in range(5):
        profiled({"image": picture(hour), "hour": hour})
    profiled({"image": torch.zeros(2, 3, 8, 8), "hour": 9})
    groups = profiled.profile().groups
    assert groups["raw"].n == 7
    assert (groups["metadata/hour"].n, groups["metadata/hour"].bank.max[0]) == (7, 9)
    assert dict(groups["metadata/site"].categories[""].top(2)) == {"south": 4, "north": 3}
    assert not {"metadata/broken", "metadata/odd"} & set(groups)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert "KeyError('missing')" in messages[0]
    assert "metadata 'odd' gave a object" in messages[1]


@measure("glare", unit="%")
def glare(images):
    return (images >= 2).mean((1, 2, 3)) * 100


@measure("raises")
def raises(images):
    raise ZeroDivisionError


def test_custom_measures_are_streams_of_the_group_and_cost_nothing_else(caplog):
    profiled = ProfileImages(measures=[glare, raises])
    for i in range(4):
        profiled(picture(i))
    group = profiled.profile().groups["raw"]
    assert (group.n, group.invalid) == (4, 0)
    table = profiled.profile().to_pandas().set_index("stream")
    assert table.loc["raw/glare", ["n", "min", "p50", "max"]].tolist() == [4, 0, 0, 100]
    assert table.loc["raw/raises", ["n", "invalid"]].tolist() == [0, 4]
    assert "the custom measure 'raises' failed" in caplog.text


def test_images_that_cannot_be_measured_count_as_invalid_and_the_pipeline_goes_on(caplog):
    profiled = ProfileImages()
    profiled(torch.full((3, 8, 8), -3.0))
    profiled(torch.full((3, 8, 8), float("nan")))
    profiled(torch.full((5, 8, 8), 1.0))
    profiled(picture(3))
    profile = profiled.profile()
    assert (profile.groups["raw"].n, profile.groups["raw"].invalid) == (1, 3)
    assert profile.n == 4
    (warning,) = profile.warnings
    assert warning.startswith("3 of 4 images of raw could not be measured: scale='auto' expects float pixels")
    assert "counts as invalid" in caplog.text


def test_a_full_disk_costs_the_profile_only(monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    profiled = ProfileImages()
    image = picture(1)
    for _ in range(3):
        assert profiled(image) is image
    assert caplog.text.count("No space left") == 1


def test_pickles_hold_a_path_and_no_handle_and_collect_in_the_same_place():
    profiled = ProfileImages()
    profiled(picture(1))
    copied = pickle.loads(pickle.dumps(profiled))
    copied(picture(2))
    assert profiled.profile().groups["raw"].n == copied.profile().groups["raw"].n == 2


def test_a_deep_copy_collects_for_itself():
    profiled = ProfileImages()
    profiled(picture(1))
    other = copy.deepcopy(profiled)
    other(picture(2))
    assert (profiled.profile().n, other.profile().n) == (1, 1)


def test_the_folder_goes_with_the_object():
    profiled = ProfileImages()
    profiled(picture(1))
    folder = profiled.collector._ledger.folder
    assert folder.is_dir()
    del profiled
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "inputs"}, "name='inputs' should be"),
        ({"name": "a/b"}, "name='a/b' should be"),
        ({"metadata": {"mode": len}}, "metadata names"),
        ({"metadata": {"hour": 3}}, "should be a function"),
        ({"exif": ["gps"]}, "some of make, model"),
        ({"exif": "make"}, "should be a list"),
        ({"convention": "other"}, "convention='other' is unknown"),
    ],
)
def test_wrong_arguments_raise_at_once(arguments, message):
    with pytest.raises(InputError, match=message):
        ProfileImages(**arguments)
