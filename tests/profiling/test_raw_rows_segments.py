"""Segments of delivered images: every row in one, the same ones in every process, bounded in number."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lensai_integrations import Profile, compare, profile_dataset
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.names import OTHER_SEGMENT
from lensai_integrations.profiles.profile import to_bytes
from lensai_integrations.profiling import image_files
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.profiling.image_files import profile_files
from lensai_integrations.profiling.ledger import SharedNames
from lensai_integrations.profiling.raw_rows import SegmentNames
from lensai_integrations.report import baseline_html, drift_html

RANKS = [0.0, 0.05, 0.5, 0.95, 1.0]


def picture(i: int) -> np.ndarray:
    """An image all of i."""
    return np.full((4, 4, 3), i % 256, np.uint8)


def counts(profile: Profile) -> dict[str, int]:
    return {name: segment.n for name, segment in profile.segments.items()}


def assert_adds_up(profile: Profile) -> None:
    """Group by group, the rows of the segments are those of the whole."""
    for name, group in profile.groups.items():
        if name == "labels":
            continue
        parts = [segment.groups[name] for segment in profile.segments.values() if name in segment.groups]
        if group.bank is not None:
            banks = [part.bank for part in parts if part.bank is not None]
            assert sum(bank.n for bank in banks) == group.bank.n, name
            assert sum(bank.invalid for bank in banks) == group.bank.invalid, name
        for stream, found in group.categories.items():
            assert sum(part.categories[stream].n for part in parts if stream in part.categories) == found.n


def collected(sites: list[Any], **arguments: Any) -> Profile:
    collector = Collector(metadata={"site": lambda i: sites[i]}, segment_by="site", **arguments)
    for i in range(len(sites)):
        collector.add(picture(i), i)
    return collector.profile()


@pytest.mark.parametrize("capacity", [4, 4096])
def test_every_image_is_in_one_segment_and_a_segment_holds_what_its_images_alone_would(capacity: int) -> None:
    sites = ["north", 7, None, "north", True, "x" * 201, "", np.int64(7), "south", "late", "north", OTHER_SEGMENT] * 3
    profile = collected(sites, max_segments=4, capacity=capacity)
    assert counts(profile) == {"north": 9, "7": 6, "1": 3, "south": 3, OTHER_SEGMENT: 15}
    assert (profile.info["segment_by"], profile.info["max_segments"]) == ("site", 4)
    assert_adds_up(profile)
    alone = Collector(metadata={"site": lambda _: "north"})
    for i, site in enumerate(sites):
        if site == "north":
            alone.add(picture(i))
    expected, found = alone.profile(), profile.segments["north"]
    assert found.groups.keys() == expected.groups.keys()
    for name, group in expected.groups.items():
        assert found.groups[name].definitions == group.definitions
        if group.bank is not None:
            np.testing.assert_array_equal(found.groups[name].bank.quantiles(RANKS), group.bank.quantiles(RANKS))
        for stream, categories in group.categories.items():
            assert found.groups[name].categories[stream].top(9) == categories.top(9)
    assert "pixels" not in found.groups["raw"].sketches


def test_values_that_are_no_segments_and_images_that_are_none_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    profile = collected([0.5, "north", 1.0, object()])
    assert counts(profile) == {"north": 1, OTHER_SEGMENT: 3}
    assert caplog.text.count("rows are in the segment 'other', for by 'site' they have no segment") == 2
    collector = Collector(metadata={"site": lambda _: "north"}, segment_by="site")
    collector.add(np.full((4, 4), np.nan))
    collector.add(picture(1))
    group = collector.profile().segments["north"].groups["raw"]
    assert (group.n, group.invalid) == (1, 1)


def test_several_images_of_one_call_have_a_value_each_or_share_one() -> None:
    collector = Collector(metadata={"site": lambda sample: sample}, segment_by="site")
    collector.add(np.zeros((3, 8, 8, 3), np.uint8), ["a", "b", "a"])
    collector.add(np.zeros((2, 8, 8, 3), np.uint8), "b")
    assert counts(collector.profile()) == {"a": 2, "b": 3}
    labelled = Collector(segment_by="label")
    labelled.add(np.zeros((3, 8, 8, 3), np.uint8), label=[0, 1, 1])
    assert counts(labelled.profile()) == {"0": 1, "1": 2}


def write(collector: Collector, sites: list[str], barrier: Any) -> None:
    barrier.wait()
    for i, site in enumerate(sites):
        collector.add(picture(i), site)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_processes_that_meet_new_values_at_the_same_time_agree_on_their_segments(start: str) -> None:
    collector = Collector(metadata={"site": same}, segment_by="site", max_segments=5, capacity=8)
    sites = [[f"s{(7 * i + w) % 12}" for i in range(36)] for w in range(4)]
    context = multiprocessing.get_context(start)
    barrier = context.Barrier(4)
    processes = [context.Process(target=write, args=(collector, each, barrier)) for each in sites]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    profile = collector.profile()
    assert_adds_up(profile)
    assert len(profile.segments) == 6
    assert counts(profile) == {name: 12 for name in profile.segments if name != OTHER_SEGMENT} | {OTHER_SEGMENT: 7 * 12}
    collector.reset()
    collector.add(picture(1), "new")
    assert counts(collector.profile()) == {"new": 1}
    assert not list(collector._ledger.folder.glob("0-*"))


def same(sample: Any) -> Any:
    return sample


def test_names_are_claimed_once_whoever_is_first(tmp_path: Any) -> None:
    one, two = SharedNames(tmp_path / "0", 3), SharedNames(tmp_path / "0", 3)
    assert [one.code("a"), two.code("b"), one.code("c"), two.code("a"), two.code("d"), one.code("b")] == [
        1, 2, 3, 1, 0, 2,
    ]  # fmt: skip
    assert SharedNames(tmp_path / "0", 3).read() == one.read() == two.read() == ["a", "b", "c"]
    odd = SharedNames(tmp_path / "1", 3)
    assert [odd.code(name) for name in ("a/b\n", "\r\n", "日本")] == [1, 2, 3]
    assert SharedNames(tmp_path / "1", 3).read() == ["a/b\n", "\r\n", "日本"]
    assert not [path for path in tmp_path.iterdir() if len(path.stem) > 8]
    assert SegmentNames(2, ["x"]).code("x") == 1


def test_a_pickle_goes_on_with_the_segments_of_its_folder() -> None:
    collector = Collector(metadata={"site": same}, segment_by="site", max_segments=2)
    for i, site in enumerate("ab"):
        collector.add(picture(i), site)
    copied = pickle.loads(pickle.dumps(collector))
    for i, site in enumerate("bca"):
        copied.add(picture(i), site)
    assert counts(collector.profile()) == counts(copied.profile()) == {"a": 2, "b": 2, OTHER_SEGMENT: 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"segment_by": "site"}, "is none of what is known of these images: pass one of 'label', 'mode', 'format', or"),
        ({"segment_by": "make"}, "segment_by='make' is none of"),
        ({"segment_by": "file_size"}, "is a number of many values"),
        ({"segment_by": "exposure", "exif": ["exposure"]}, "is a number of many values"),
        ({"segment_by": "label", "labels": False}, "segment_by='label' is none"),
        ({"segment_by": 3}, "segment_by=3 is unknown"),
        ({"segment_by": "mode", "max_segments": 0}, "max_segments=0"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Collector(**arguments)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """120 images in two folders and two formats, those of the second folder darker; one is damaged."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(120):
        folder = root / ("cat" if i % 3 else "dog")
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256 if i % 3 else 100, (8, 12, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 1
        exif.get_ifd(0x8769)[0x8827] = 100 * (i % 2 + 1)
        Image.fromarray(pixels).save(folder / f"{i:03}.{'jpg' if i % 4 else 'png'}", exif=exif)
    (root / "cat" / "x_empty.png").write_bytes(b"")
    return root


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("label", {"cat": 80, "dog": 40}),
        ("format", {"JPEG": 90, "PNG": 30}),
        ("mode", {"RGB": 120}),
        ("iso", {"200": 60, "100": 60}),
    ],
)
def test_files_by_folder_format_mode_and_exif(photos: Any, by: str, expected: dict[str, int]) -> None:
    profile = profile_files(photos, jobs=0, segment_by=by, exif=["iso"])
    assert counts(profile) == expected
    assert_adds_up(profile)
    assert profile.groups["labels"].n == 120


def test_files_that_are_resumed_or_measured_elsewhere_have_the_same_segments(
    photos: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = profile_files(photos, jobs=0, segment_by="format", max_segments=1)
    assert counts(expected) == {"JPEG": 90, OTHER_SEGMENT: 30}
    monkeypatch.setattr(image_files, "SAVE_EVERY", 0.0)

    def interrupts(done: int, total: int) -> None:
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile_files(photos, jobs=0, segment_by="format", max_segments=1, resume=tmp_path, progress=interrupts)
    assert (tmp_path / "resume.npz").exists()
    again = profile_files(photos, jobs=0, segment_by="format", max_segments=1, resume=tmp_path)
    for profile in (expected, again):
        profile.info |= {"created": "", "images_per_second": 0}
    assert to_bytes(again) == to_bytes(expected)


def test_images_without_a_folder_have_no_label(photos: Any) -> None:
    with pytest.raises(InputError, match=r"segment_by='label' is none .* pass one of 'mode', 'format'"):
        profile_files(photos / "cat", jobs=0, segment_by="label")


class Samples:
    """Dicts with a label, a site and an image; every third of the south and darker."""

    def __init__(self, n: int, gain: float = 1.0) -> None:
        self.n, self.gain = n, gain

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        rng = np.random.default_rng(i)
        south = i % 3 == 0
        pixels = rng.integers(0, 200, (8, 8, 3)) * (self.gain if south else 1.0)
        return {"image": pixels.astype(np.uint8), "label": i % 4, "site": "south" if south else "north"}


SITE = {"site": lambda sample: sample["site"]}


@pytest.mark.slow
def test_data_sets_by_label_and_by_metadata_in_any_number_of_processes() -> None:
    pytest.importorskip("torch")
    for workers in (0, 2):
        labels = profile_dataset(Samples(40), segment_by="label", num_workers=workers, max_segments=3)
        assert sum(n == 10 for n in counts(labels).values()) == 4
        assert len(labels.segments) == 4
        assert_adds_up(labels)
        sites = profile_dataset(Samples(40), segment_by="site", metadata=SITE, num_workers=workers)
        assert counts(sites) == {"south": 14, "north": 26}
    with pytest.raises(InputError, match="needs labels"):
        profile_dataset(Samples(4), segment_by="label", target=None)


def test_loaders_by_label_and_by_a_key_of_their_batches() -> None:
    images, hours = np.zeros((4, 8, 8, 3), np.uint8), np.array([1, 2, 2, 2])
    batches = [{"image": images, "label": np.arange(4) % 2, "hour": hours}] * 2
    assert counts(profile_dataset(iter(batches), segment_by="hour")) == {"1": 2, "2": 6}
    assert counts(profile_dataset(iter(batches), segment_by="label")) == {"0": 4, "1": 4}
    with pytest.raises(InputError, match=r"no segments that can be read: .*segment_by='site' is not in the batch"):
        profile_dataset(iter(batches), segment_by="site")


def test_a_report_shows_them_a_folder_keeps_them_and_compare_says_which_moved(tmp_path: Any) -> None:
    before, after = (profile_dataset(Samples(300, gain), segment_by="site", metadata=SITE) for gain in (1.0, 0.6))
    before.save(tmp_path / "before", report_html=baseline_html(before))
    loaded = Profile.load(tmp_path / "before")
    assert counts(loaded) == {"south": 100, "north": 200}
    assert "south" in (tmp_path / "before" / "segments.csv").read_text()
    page = (tmp_path / "before" / "report.html").read_text()
    assert "Segments" in page
    assert "by site" in page
    assert "brightness of south, median and middle 90%" in page
    report = compare(loaded, after)
    moved = {segment.name: segment.drift for segment in report.segments}
    assert moved == {"south": True, "north": False}
    found = {group.name for segment in report.segments for group in segment.groups}
    assert "raw" in found
    assert "metadata/site" not in found
    assert "segments by site: 1 of 2 segments moved" in report.to_text()
    assert "1 of 2 segments moved." in drift_html(report, loaded, after)


def test_profiles_of_several_processes_or_days_merge_segment_by_segment() -> None:
    one, two = collected(["a"] * 5 + ["b"], max_segments=2), collected(["b"] * 3 + ["c"] * 2 + ["d"], max_segments=2)
    merged = one.merge(two)
    assert counts(merged) == {"a": 5, "b": 4, OTHER_SEGMENT: 3}
    assert_adds_up(merged)
