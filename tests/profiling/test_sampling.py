"""A budget: which images are measured has nothing to do with time, is the same again, and small sets stay whole."""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import signal
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from lensai_integrations import Profile, profile_dataset
from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiling import delivered_images, image_files, ledger, sampling
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.profiling.image_files import profile_files
from lensai_integrations.profiling.raw_rows import Columns
from lensai_integrations.profiling.sampling import SHARE, Pace, level_of, level_within
from lensai_integrations.report import baseline_html
from lensai_integrations.transforms import ProfileImages

pytestmark = pytest.mark.filterwarnings(
    "ignore:This DataLoader will create:UserWarning", "ignore:.*fork.*:DeprecationWarning"
)


def reference_levels(n, worker=0, seed=0, generation=0):
    """Levels by arrays of numpy: SplitMix64, and the zeros before the first one."""
    key = np.random.SeedSequence([seed, generation, worker]).generate_state(1, np.uint64)
    with np.errstate(over="ignore"):
        z = key + np.uint64(0x9E3779B97F4A7C15) * np.arange(1, n + 1, dtype=np.uint64)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    zeros = 63 - np.floor(np.log2((z >> np.uint64(11)).astype(np.float64) + 0.5)) - 11
    return np.minimum(zeros, 6).astype(int)


def picture(i):
    """Its number can be told from its pixels."""
    image = torch.zeros((3, 2, 2), dtype=torch.uint8)
    image[0], image[1] = i % 256, i // 256
    return image


def counts_of(indices):
    indices = np.asarray(indices, int)
    zeros = np.zeros(len(indices), int)
    return 4 * np.stack([np.bincount(x, minlength=256) for x in (indices % 256, indices // 256, zeros)])


def small(**arguments):
    """A collector whose first 200 images are whole."""
    collector = Collector(**arguments)
    collector._ledger._sampling = few(collector._ledger._sampling)
    return collector


def decided(collector, level):
    """The share of a collector is this one, as if a process had measured how long things take; 200 images are whole."""
    collector._ledger._sampling = few(collector._ledger._sampling)
    (collector._ledger.folder / SHARE).write_text(str(level))
    return collector


def few(how):
    """The same with smaller numbers."""
    return how and replace(how, whole=200, fewest=30)


def fed(n, level, start=0, **arguments):
    collector = decided(Collector(**arguments), level)
    for i in range(start, start + n):
        collector.add(picture(i))
    return collector


def check(profile, indices, seen=None):
    """Exactly these images are in a profile, of so many."""
    group = profile.groups["raw"]
    assert (group.n, group.invalid) == (len(indices), 0)
    np.testing.assert_array_equal(group.pixels.counts, counts_of(indices))
    assert group.seen == (seen or len(indices))
    assert ("sampled" in group.info) == (seen is not None)
    if seen is not None:
        assert (group.info["sampled"]["seen"], group.info["sampled"]["measured"]) == (seen, len(indices))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_the_level_is_that_of_the_hash(key, number):
    z = np.array([key], np.uint64) + np.array([0x9E3779B97F4A7C15 * (number + 1) % 2**64], np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = f"{int((z ^ (z >> np.uint64(31)))[0]):064b}"
    assert level_of(key, number) == min(6, len(bits) - len(bits.lstrip("0")))


def test_shares_are_what_they_say_and_lie_inside_one_another():
    levels = reference_levels(100_000)
    key = sampling.key_of(0, 0, 0)
    np.testing.assert_array_equal(levels, [level_of(key, i) for i in range(100_000)])
    shares = [set(np.flatnonzero(levels >= level)) for level in range(7)]
    for level, (larger, smaller) in enumerate(pairwise(shares)):
        assert smaller < larger
        expected = 100_000 / 2 ** (level + 1)
        assert abs(len(smaller) - expected) < 4 * math.sqrt(expected)
    assert set(np.flatnonzero(reference_levels(1000) == 0)) != set(np.flatnonzero(reference_levels(1000, 1) == 0))


@pytest.mark.parametrize("budget", [0, 1, 1.5, -0.1, True, "half", math.nan])
def test_a_budget_is_a_share(budget, tmp_path):
    said = rf"budget={budget!r} should be a number between 0 and 1.*None to measure every image"
    with pytest.raises(InputError, match=said):
        Collector(budget=budget)
    with pytest.raises(InputError, match=said):
        ProfileImages(budget=budget)
    with pytest.raises(InputError, match=said):
        profile_dataset([np.zeros((4, 4), np.uint8)], budget=budget)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=said):
        profile_files(tmp_path, budget=budget)


@pytest.mark.parametrize(
    ("budget", "measuring", "between", "level"),
    [
        (0.05, 1.0, 19.0, 0),
        (0.05, 1.001, 19.0, 1),
        (0.05, 4.5, 6.8, 4),
        (0.05, 2.0, 6.8, 3),
        (0.05, 0.7, 0.2, 6),
        (0.5, 1.0, 1.0, 0),
        (0.05, 0.0, 1.0, 0),
        (0.05, 1.0, 0.0, 6),
    ],
)
def test_the_share_that_stays_within_a_budget(budget, measuring, between, level):
    assert level_within(budget, measuring, between) == level
    if 0 < level < 6:
        for share, within in ((0.5**level, True), (0.5 ** (level - 1), False)):
            assert (share * measuring <= budget * (share * measuring + between)) == within


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def test_times_of_the_first_images_decide_without_the_longest_and_those_of_the_start():
    clock = Clock()
    pace = Pace(clock)

    def measure(measuring, between):
        clock.time += between
        began = pace.now()
        clock.time += measuring
        pace.end(began)

    for _ in range(8):  # libraries load
        measure(100.0, 0.001)
    assert pace.level(0.05) is None
    for i in range(100):
        measure(90.0 if i == 50 else 4.5, 500.0 if i % 32 == 0 else 6.8)
        assert (pace.level(0.05) is None) == (i < 15)
    assert pace.level(0.05) == 4
    assert pace.level(0.5) == 0


def test_threads_that_come_and_go_say_nothing_of_the_time_between_two_images():
    clocks = threading.local()

    def clock():  # of each thread, from 0 on
        clocks.time = getattr(clocks, "time", 0.0) + 1.0
        return clocks.time

    def measure(times):
        for _ in range(times):
            pace.end(pace.now())

    pace = Pace(clock)
    for times in [1] * 30 + [30]:
        thread = threading.Thread(target=measure, args=(times,))
        thread.start()
        thread.join()
    assert pace.level(0.6) == 0  # as long between two as for one


def test_what_is_loaded_and_compiled_at_first_does_not_decide(monkeypatch):
    clock, measured = Clock(), Columns.measured
    slow = {0: 9.0, 3: 0.5, 230: 2.0}  # numba compiles, reads from disk, compiles for another dtype
    times = iter(slow.get(i, 4.5e-3) for i in range(1000))

    def takes_time(columns, delivered):
        clock.time += next(times)
        return measured(columns, delivered)

    monkeypatch.setattr(Columns, "measured", takes_time)
    monkeypatch.setattr(ledger, "Pace", lambda: Pace(clock))
    collector = small(budget=0.05)
    for i in range(300):
        clock.time += 6.8e-3
        collector.add(picture(i))
    assert (collector._ledger.folder / SHARE).read_text() == "4"


def test_the_loop_is_loaded_where_a_collector_is_made_and_not_where_it_arrives(monkeypatch):
    loaded = []
    monkeypatch.setattr(delivered_images, "warm", lambda: loaded.append(1))
    collector = Collector()
    assert loaded == [1]
    pickle.loads(pickle.dumps(collector)).add(picture(0))
    assert (loaded, collector.count) == ([1], 1)


def test_up_to_200_images_stay_whole_and_of_more_the_share_is_exact(caplog):
    collector = fed(200, 2)
    check(collector.profile(), range(200))
    assert not caplog.records
    for i in range(200, 240):
        collector.add(picture(i))
    levels = reference_levels(240)
    check(collector.profile(), np.flatnonzero(levels >= 2), 240)
    profile = collector.profile()
    assert profile.groups["raw"].info["sampled"]["share"] == 0.25
    assert profile.warnings == []
    (record,) = caplog.records
    assert record.getMessage().endswith("of 240 images were measured (a share of 1/4, budget 0.05)")
    assert (profile.n, collector.count, profile.rows.n) == (int((levels >= 2).sum()), 240, profile.n)


def test_where_a_share_would_be_few_the_first_are_kept_and_that_is_said():
    levels = reference_levels(300)
    profile = fed(300, 4).profile()
    check(profile, [i for i in range(300) if i < 200 or levels[i] >= 4], 300)
    (warning,) = profile.warnings
    assert warning.startswith("raw: of 300 images the first 200 were measured and 1/16 of the others")
    assert "budget=None" in warning
    assert profile.groups["raw"].info["sampled"]["first"] == 200


@pytest.mark.parametrize("n", [230, 260])
def test_buffers_that_fill_make_no_difference(n):
    levels = reference_levels(n)
    expected = np.flatnonzero(levels >= 2)
    for capacity in (7, 100, 4096):
        check(fed(n, 2, capacity=capacity).profile(), expected, n)
        check(fed(n, 5, capacity=capacity).profile(), [i for i in range(n) if i < 200 or levels[i] >= 5], n)


def test_without_a_budget_all_are_measured():
    check(fed(230, 4, budget=None).profile(), range(230))
    check(fed(230, 0).profile(), range(230))


def test_what_is_not_measured_costs_nothing():
    calls = []
    collector = fed(200, 2, metadata={"site": lambda image: calls.append(1) or "north"})
    for i in range(200, 260):
        collector.add(picture(i))
    levels = reference_levels(260)
    assert len(calls) == 200 + (levels[200:] >= 2).sum()
    assert collector.profile().groups["metadata/site"].n == (levels >= 2).sum()


def test_segments_are_of_the_images_that_are_measured():
    collector = decided(Collector(metadata={"odd": lambda i: i % 2}, segment_by="odd", capacity=90), 1)
    for i in range(250):
        collector.add(picture(i), i)
    chosen = np.flatnonzero(reference_levels(250) >= 1)
    rows = {name: segment.groups["raw"].n for name, segment in collector.profile().segments.items()}
    assert rows == {"0": (chosen % 2 == 0).sum(), "1": (chosen % 2 == 1).sum()}


def test_what_comes_as_one_batch_is_measured_or_left_out_together():
    collector = decided(Collector(), 2)
    for i in range(30):
        collector.add(torch.stack([picture(10 * i + j) for j in range(10)]))
    levels = reference_levels(300)[::10]  # by the number of the first
    expected = [10 * i + j for i in np.flatnonzero(levels >= 2) for j in range(10)]
    check(collector.profile(), expected, 300)


def test_after_a_reset_another_draw_and_the_share_stays():
    collector = fed(250, 1)
    first = collector.profile().groups["raw"].pixels.counts
    collector.reset()
    for i in range(250):
        collector.add(picture(i))
    check(collector.profile(), np.flatnonzero(reference_levels(250, generation=1) >= 1), 250)
    assert not np.array_equal(first, collector.profile().groups["raw"].pixels.counts)
    check(fed(250, 1, seed=5).profile(), np.flatnonzero(reference_levels(250, seed=5) >= 1), 250)


class Steady:
    """The pace of a process that measures as long as it does anything else."""

    def __init__(self):
        self.measured = 0

    def now(self):
        return 0.0

    def end(self, began):
        self.measured += 1

    def level(self, budget):
        return None if self.measured < 205 else level_within(budget, 1.0, 1.0)


def test_the_share_is_decided_once_when_there_are_times_and_holds_for_all(monkeypatch):
    monkeypatch.setattr(ledger, "Pace", Steady)
    collector = small(budget=0.2)
    for i in range(206):
        collector.add(picture(i))
        assert (collector._ledger.folder / SHARE).exists() == (i >= 205)
    assert (collector._ledger.folder / SHARE).read_text() == "2"
    levels = reference_levels(206)
    check(collector.profile(), np.flatnonzero(levels >= 2), 206)
    monkeypatch.setattr(Steady, "level", lambda *_: pytest.fail("it was decided"))
    collector.reset()
    for i in range(206):
        collector.add(picture(i))
    check(collector.profile(), np.flatnonzero(reference_levels(206, generation=1) >= 2), 206)


class Pictures(Dataset):
    def __init__(self, profiled, n):
        self.profiled, self.n = profiled, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.profiled(picture(i))
        return i


class Uneven(IterableDataset):
    """All images come from the first worker."""

    def __init__(self, profiled, n):
        self.profiled, self.n = profiled, n

    def __iter__(self):
        worker = get_worker_info()
        for i in range(self.n if worker is None or worker.id == 0 else 0):
            self.profiled(picture(i))
            yield i


class Dies(Pictures):
    def __getitem__(self, i):
        if i == 250:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


def delivered_by(n, workers, batch, epochs=1):
    """The images of each worker in their order, by which a loader hands out its batches."""
    parts = [
        [i for i in range(n) if i // batch % max(workers, 1) == worker] * epochs for worker in range(max(workers, 1))
    ]
    return [(worker + (workers > 0), np.array(part)) for worker, part in enumerate(parts)]


def expected_of(n, workers, level, batch=8, epochs=1):
    """The images that a share has."""
    return np.concatenate(
        [part[reference_levels(len(part), worker) >= level] for worker, part in delivered_by(n, workers, batch, epochs)]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "how"),
    [
        (0, {}),
        (2, {"multiprocessing_context": "fork"}),
        (3, {"multiprocessing_context": "fork", "persistent_workers": True}),
        (2, {"multiprocessing_context": "spawn", "persistent_workers": True}),
    ],
)
def test_workers_measure_the_same_share_again(workers, how):
    for _ in range(1 if how.get("multiprocessing_context") == "spawn" else 2):  # spawning takes its time
        profiled = ProfileImages()
        decided(profiled.collector, 1)
        loader = DataLoader(Pictures(profiled, 130), batch_size=8, num_workers=workers, **how)
        for epoch in (1, 2):
            for _ in loader:
                pass
            n = 130 * epoch
            indices = range(130) if epoch == 1 else expected_of(130, workers, 1, epochs=2)
            check(profiled.profile(), indices, None if epoch == 1 else n)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_are_as_many_of_each_worker(workers):
    profiled = ProfileImages()
    decided(profiled.collector, 5)
    for _ in DataLoader(
        Pictures(profiled, 260), batch_size=8, num_workers=workers, multiprocessing_context="fork" if workers else None
    ):
        pass
    first = 200 // max(workers, 1)
    parts = [
        part[(np.arange(len(part)) < first) | (reference_levels(len(part), worker) >= 5)]
        for worker, part in delivered_by(260, workers, 8)
    ]
    check(profiled.profile(), np.concatenate(parts), 260)


@pytest.mark.slow
@pytest.mark.parametrize("n", [190, 260])
def test_small_sets_stay_whole_though_one_worker_has_all_of_it(n):
    profiled = ProfileImages()
    decided(profiled.collector, 5)
    for _ in DataLoader(Uneven(profiled, n), batch_size=8, num_workers=4, multiprocessing_context="fork"):
        pass
    levels = reference_levels(n, 1)
    indices = [i for i in range(n) if n <= 200 or i < 50 or levels[i] >= 5]
    check(profiled.profile(), indices, n if n > 200 else None)


@pytest.mark.slow
def test_a_worker_that_is_killed_leaves_what_it_has_seen_and_measured():
    profiled = ProfileImages()
    decided(profiled.collector, 1)
    loader = DataLoader(Dies(profiled, 260), batch_size=10, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(RuntimeError, match=r"exited unexpectedly|killed"):
        list(loader)
    check(profiled.profile(), np.flatnonzero(reference_levels(250, 1) >= 1), 250)


@pytest.mark.slow
def test_processes_decide_on_one_share():
    collector = small(budget=0.01)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=run, args=(collector,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    profile = collector.profile()
    assert profile.groups["raw"].seen == 660
    level = int((collector._ledger.folder / SHARE).read_text())
    assert profile.groups["raw"].info["sampled"]["share"] == 0.5**level


def run(collector):
    for i in range(220):
        collector.add(picture(i))


def test_profiles_merge_and_what_they_have_seen_adds_up(tmp_path):
    thinned, whole = fed(260, 2).profile(), fed(10, 2).profile()
    for a, b in ((thinned, whole), (whole, thinned)):
        merged = a.merge(b).groups["raw"]
        assert (merged.n, merged.seen) == (thinned.n + 10, 270)
        assert merged.info["sampled"] == {"seen": 270, "measured": thinned.n + 10}
    twice = thinned.merge(thinned)
    assert twice.groups["raw"].info["sampled"] == {
        "seen": 520,
        "measured": 2 * thinned.n,
        "share": 0.25,
        "budget": 0.05,
    }
    loaded = Profile.load(twice.save(tmp_path / "twice"))
    assert loaded.groups["raw"].info == twice.groups["raw"].info
    assert "sampled" not in whole.merge(whole).groups["raw"].info


def test_the_report_says_how_many_of_how_many():
    profile = fed(260, 2).profile()
    page = baseline_html(profile)
    assert f"raw: {profile.n:,} of 260 images were measured (a share of 1/4, budget 0.05)" in page
    assert f"{profile.n:,} of 260 images" in page
    assert "were measured" not in baseline_html(fed(10, 2).profile())


@pytest.mark.parametrize(
    "sampled",
    [
        "all",
        {"seen": 3},
        {"seen": 3, "measured": 4},
        {"seen": 3, "measured": True},
        {"seen": 3, "measured": 1, "share": 2},
    ],
)
def test_files_that_say_something_else_are_refused(sampled, tmp_path):
    profile = Profile({"raw": Group("raw", info={"sampled": sampled})})
    with pytest.raises((InputError, FormatError), match="group 'raw'"):
        profile.save(tmp_path)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """40 files, one of which cannot be read, where more than 20 are many."""
    monkeypatch.setattr(sampling, "WHOLE", 12)
    monkeypatch.setattr(image_files, "WHOLE", 20)
    monkeypatch.setattr(image_files, "CHUNK", 4)
    monkeypatch.setattr(image_files, "_times", lambda *_: (1.0, 1.0))
    for i in range(40):
        place = tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((2, 2, 3), i, np.uint8)).save(place)
    (tmp_path / "photos" / "cat" / "01.png").write_bytes(b"no image")
    return tmp_path / "photos"


def numbers_in(profile):
    return np.flatnonzero(profile.groups["raw"].pixels.counts[0]).tolist()


def test_files_within_a_budget(photos, caplog):
    order = [*range(1, 40, 2), *range(0, 40, 2)]  # cats first
    levels = reference_levels(40)
    level = max(level for level in range(5) if (levels >= level).sum() >= 12)
    expected = sorted(order[i] for i in np.flatnonzero(levels >= level) if order[i] != 1)
    assert 0 < level < 4
    assert len(expected) < 39
    profile = profile_files(photos, jobs=0, budget=0.05)
    assert numbers_in(profile) == expected
    group = profile.groups["raw"]
    assert group.info["sampled"] == {"seen": 39, "measured": len(expected), "share": 0.5**level, "budget": 0.05}
    assert (profile.groups["labels"].n, len(profile.info["unreadable"])) == (39, 1)
    assert f"raw: {len(expected)} of 39 images were measured" in caplog.text
    assert numbers_in(profile_files(photos, jobs=0)) == sorted(set(range(40)) - {1})
    assert numbers_in(profile_files(photos, jobs=0, budget=0.6)) == sorted(set(range(40)) - {1})
    segments = profile_files(photos, jobs=0, budget=0.05, segment_by="label").segments
    assert segments["cat"].groups["raw"].n == sum(i % 2 for i in expected)


def test_an_interrupted_run_keeps_its_share(photos, monkeypatch, tmp_path):
    whole = profile_files(photos, jobs=0, budget=0.05)
    monkeypatch.setattr(image_files, "SAVE_EVERY", -1)

    def interrupts(done, total):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        profile_files(photos, jobs=0, budget=0.05, resume=tmp_path / "state", progress=interrupts)
    monkeypatch.setattr(image_files, "_times", lambda *_: pytest.fail("it was decided"))
    again = profile_files(photos, jobs=0, budget=0.05, resume=tmp_path / "state")
    assert numbers_in(again) == numbers_in(whole)
    assert again.groups["raw"].info == whole.groups["raw"].info


@pytest.mark.slow
def test_worker_processes_make_the_same_of_files(photos):
    assert numbers_in(profile_files(photos, jobs=2, budget=0.05)) == numbers_in(
        profile_files(photos, jobs=0, budget=0.05)
    )


def test_times_are_told_apart(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((200, 200, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    columns = image_files.Columns("lensai", image_files.FILE)
    chunk = image_files.measure_chunk(columns, paths)
    assert chunk.measuring > 0
    assert chunk.reading > 0
    only = image_files.measure_chunk(columns, [image_files.OnlyRead(path) for path in paths])
    assert (only.measuring, len(only.rows), only.unreadable) == (0.0, 0, [])


def test_samples_of_a_data_set_within_a_budget(monkeypatch):
    class Quick(Steady):
        def level(self, budget):
            return 2

    monkeypatch.setattr(ledger, "Pace", Quick)
    data = [picture(i).permute(1, 2, 0).numpy() for i in range(2600)]
    check(profile_dataset(data, budget=0.05), np.flatnonzero(reference_levels(2600) >= 2), 2600)
    check(profile_dataset(data), range(2600))
    with pytest.raises(InputError, match=r"budget=0.05 is not for batches: .*limit="):
        profile_dataset([torch.zeros(4, 3, 8, 8)], budget=0.05)
