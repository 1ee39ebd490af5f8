"""A folder of images as a profile: the same with any number of workers, resumed or not, past what cannot be read."""

from __future__ import annotations

import os
import shutil
import signal
import zipfile

import numpy as np
import pytest
from PIL import Image

from lensai_integrations import Profile, profile_dataset
from lensai_integrations.errors import InputError
from lensai_integrations.profiling import image_files
from lensai_integrations.profiling.image_files import images_in, profile_files


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """70 readable images in two folders, of several modes and sizes, and three that are damaged."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(70):
        folder = root / ("cat" if i % 3 else "dog")
        folder.mkdir(exist_ok=True)
        image = Image.fromarray(rng.integers(0, 256, (8 + i % 5, 12, 3), dtype=np.uint8))
        mode, suffix = [("RGB", "jpg"), ("L", "png"), ("P", "gif"), ("RGBA", "webp"), ("CMYK", "tif")][i % 5]
        image.convert(mode).save(folder / f"{i:03}.{suffix}")
    whole = (root / "cat" / "010.jpg").read_bytes()
    (root / "cat" / "x_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "x_empty.png").write_bytes(b"")
    (root / "cat" / "x_text.jpg").write_text("no picture")
    (root / "cat" / "notes.txt").write_text("not looked at")
    return root


def numbers(profile):
    table = profile.to_pandas()
    return table.drop(columns=[name for name in ("source",) if name in table]).to_csv()


@pytest.fixture(scope="module")
def expected(photos):
    return profile_files(photos, jobs=0)


def test_every_readable_file_counts_once_and_the_others_are_listed(photos, expected):
    groups = expected.groups
    assert (expected.n, groups["raw"].n, groups["raw"].invalid) == (70, 70, 0)
    assert dict(groups["labels"].categories[""].top(3)) == {"cat": 46, "dog": 24}
    assert dict(groups["metadata/format"].categories[""].top(9)) == dict.fromkeys(
        ("JPEG", "PNG", "GIF", "WEBP", "TIFF"), 14
    )
    assert groups["metadata/mode"].categories[""].n == 70
    assert groups["metadata/file_size"].n == 70
    assert expected.warnings == ["3 of 73 files could not be read"]
    assert [os.path.basename(path) for path, _ in expected.info["unreadable"]] == [  # noqa: PTH119
        "x_empty.png",
        "x_text.jpg",
        "x_truncated.jpg",
    ]


@pytest.mark.slow
def test_workers_change_nothing(photos, expected):
    assert numbers(profile_files(photos, jobs=2)) == numbers(expected)


def test_small_images_that_are_measured_together_are_as_those_that_are_not(photos, expected, monkeypatch):
    monkeypatch.setattr(image_files, "_SMALL", 0)
    alone = profile_files(photos, jobs=0)
    for name, group in expected.groups.items():
        if group.bank is not None:
            ranks = np.linspace(0, 1, 71)
            np.testing.assert_allclose(
                group.bank.quantiles(ranks), alone.groups[name].bank.quantiles(ranks), rtol=2e-5, atol=1e-3
            )
    assert np.array_equal(alone.groups["raw"].pixels.counts, expected.groups["raw"].pixels.counts)


def test_a_run_that_is_interrupted_goes_on_where_it_was(photos, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "SAVE_EVERY", 0.0)

    def interrupts(done, total):
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile_files(photos, jobs=0, resume=tmp_path, progress=interrupts)
    assert (tmp_path / "resume.npz").exists()
    seen = []
    again = profile_files(photos, jobs=0, resume=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (32, 73)
    assert numbers(again) == numbers(expected)
    assert again.info["unreadable"] == expected.info["unreadable"]
    assert not (tmp_path / "resume.npz").exists()


@pytest.mark.parametrize("damage", ["truncated", "no header", "other files", "other settings"])
def test_a_state_that_does_not_fit_is_begun_anew(photos, expected, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(image_files, "SAVE_EVERY", 0.0)

    def interrupts(done, total):
        if done > 32:
            raise KeyboardInterrupt

    other = {"k": 100} if damage == "other settings" else {}
    source = photos / "cat" if damage == "other files" else photos
    with pytest.raises(KeyboardInterrupt):
        profile_files(source, jobs=0, resume=tmp_path, progress=interrupts, **other)
    state = tmp_path / "resume.npz"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:500])
    if damage == "no header":  # numpy raises a TokenError
        with zipfile.ZipFile(state, "w") as made:
            made.writestr("__notes__.npy", b"\x93NUMPY\x01\x00\x20\x00{'descr': '<f4', 'shape': (1L,    \n")
    assert numbers(profile_files(photos, jobs=0, resume=tmp_path)) == numbers(expected)


def kills(columns, paths):
    """Stands for a decoder that crashes."""
    if any(path.endswith("030.jpg") for path in paths):
        os.kill(os.getpid(), signal.SIGKILL)
    return image_files.measure_chunk(columns, paths)


@pytest.mark.slow
def test_a_file_that_kills_its_reader_is_listed_and_the_rest_is_read(photos, monkeypatch):
    monkeypatch.setattr(image_files, "_pool", Forked)
    profile = profile_files(photos, jobs=1)
    assert profile.n == 69
    assert "the process that read it died" in dict(profile.info["unreadable"]).values()


class Forked(image_files.ProcessPoolExecutor):
    """A pool whose processes are forked, and whose work is `kills`."""

    def __init__(self, jobs):
        super().__init__(jobs, mp_context=image_files.multiprocessing.get_context("fork"))

    def map(self, function, parts):
        return super().map(image_files.partial(kills, *function.args), parts)

    def submit(self, function, *arguments, **keywords):
        return super().submit(kills if function is image_files.measure_chunk else function, *arguments, **keywords)


def test_patterns_single_files_and_nothing(photos):
    assert len(images_in(photos / "**" / "*.jpg")[1]) == 16
    assert images_in(photos / "cat" / "010.jpg")[1] == [photos / "cat" / "010.jpg"]
    for nothing in (photos / "*.xyz", photos / "missing", photos / "cat" / "nothing.jpg"):
        with pytest.raises(InputError, match="no images in"):
            images_in(nothing)


def test_links_are_followed_and_hidden_files_left_out(photos, tmp_path):
    folder = tmp_path / "linked"
    shutil.copytree(photos / "dog", folder / "dog")
    (folder / "cat").symlink_to(photos / "cat")
    (folder / "dog" / "back").symlink_to(folder)  # round and round
    (folder / ".ipynb_checkpoints").mkdir()
    shutil.copy(photos / "cat" / "010.jpg", folder / ".ipynb_checkpoints")
    (folder / "dog" / "._010.jpg").write_bytes(b"of macOS")
    profile = profile_dataset(folder)
    assert dict(profile.groups["labels"].categories[""].top(3)) == {"cat": 46, "dog": 24}
    assert profile.warnings == ["3 of 73 files could not be read"]


def test_images_that_pillow_cannot_open_are_counted(photos, tmp_path):
    shutil.copy(photos / "cat" / "010.jpg", tmp_path)
    (tmp_path / "phone.HEIC").write_bytes(b"....ftypheic")
    profile = profile_dataset(tmp_path)
    assert (profile.n, profile.warnings) == (1, ["1 of 2 files could not be read"])
    assert profile.info["unreadable"][0][0] == "phone.HEIC"


def test_a_picture_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    Image.new("RGB", (9, 9)).save(tmp_path / "large.png")
    Image.new("RGB", (7, 7)).save(tmp_path / "small.png")
    profile = profile_files(tmp_path, jobs=0)
    assert profile.n == 1
    assert "DecompressionBombWarning" in profile.info["unreadable"][0][1]


def test_what_is_saved_is_read_again(expected, tmp_path):
    expected.save(tmp_path / "profile")
    assert numbers(Profile.load(tmp_path / "profile")) == numbers(expected)


@pytest.mark.slow
def test_data_sets_are_profiled_as_they_are_in_any_number_of_processes(photos):
    torch = pytest.importorskip("torch")

    class Folder(torch.utils.data.Dataset):
        def __init__(self):
            self.paths = sorted(photos.glob("dog/*"))

        def __len__(self):
            return len(self.paths)

        def __getitem__(self, i):
            with Image.open(self.paths[i]) as image:
                return {"image": image.copy(), "label": torch.tensor(i % 2)}

    profiles = [
        profile_dataset(Folder(), num_workers=workers, metadata={"label": lambda s: float(s["label"])})
        for workers in (0, 2)
    ]
    for profile in profiles:
        assert profile.groups["raw"].n == profile.n == 24
        assert dict(profile.groups["labels"].categories[""].top(2)) == {"0": 12, "1": 12}
        assert profile.groups["metadata/label"].n == 24
    assert profile_dataset(Folder(), limit=5).n == 5
    assert profile_dataset(photos / "dog", source="day").source == "day"


def test_loaders_are_profiled_as_a_model_would_be_fed(photos):
    batches = [(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4)), (np.zeros((3, 8, 8, 3), np.uint8), np.arange(3))]
    profile = profile_dataset(iter(batches))
    assert {name: group.n for name, group in profile.groups.items()} == {"inputs": 7, "labels": 7}
    with pytest.raises(InputError, match="nothing in it"):
        profile_dataset([])
    with pytest.raises(InputError, match="no images that can be read"):
        profile_dataset(iter([{"text": 1}]))
