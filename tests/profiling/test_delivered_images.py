"""Delivered images: nothing is lost, whoever dies, waits or reads; what fails is counted, logged once, warned of."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import pickle
import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lensai_integrations import Profile, measure, profile_dataset
from lensai_integrations.errors import InputError
from lensai_integrations.profiling import ledger as ledgers
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.profiling.image_files import profile_files
from lensai_integrations.profiling.ledger import Ledger
from lensai_integrations.profiling.raw_rows import Columns, RawSketches
from lensai_integrations.transforms import ProfileImages

COLUMNS = Columns("lensai", ("site",))
D = len(COLUMNS.streams)


def empty(number):
    return RawSketches(COLUMNS, 200, [number])


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "ledger", COLUMNS.width, empty, capacity=8)


def written(value, site="north"):
    pixels = np.zeros((3, 256), np.int64)
    pixels[:, value % 256] = 2

    def make(code):
        row, _ = COLUMNS.row(np.full(D, value, np.float32), [site], code)
        return row, pixels

    return make


def write(ledger, values, site="north"):
    for value in values:
        ledger.append(written(value, site))


def sites(ledger):
    return ledger.read()[0].sketches["metadata/site"]["categories/"]


def check(ledger, values):
    sketches, pixels, seen, _ = ledger.read()
    assert seen == len(values)
    assert sketches.n == len(values)
    assert sites(ledger).n == len(values)
    np.testing.assert_array_equal(pixels[0], 2 * np.bincount(np.array(values, int) % 256, minlength=256))
    if len(values):
        bank = sketches.sketches["raw"]["bank"]
        assert (bank.min[0], bank.max[0]) == (min(values), max(values))


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 16, 17, 100])
def test_buffers_that_fill_lose_nothing(ledger, n):
    write(ledger, range(n))
    check(ledger, list(range(n)))
    check(ledger, list(range(n)))  # reading takes nothing away


def test_a_reader_in_between_and_a_new_generation(ledger):
    write(ledger, range(11))
    check(ledger, list(range(11)))
    write(ledger, range(11, 20))
    check(ledger, list(range(20)))
    ledger.reset()
    check(ledger, [])
    write(ledger, [5])
    check(ledger, [5])
    assert len(list(ledger.folder.glob("*.rows"))) == 1


def test_a_reader_at_every_moment_of_a_folding_sees_every_row_once(ledger, monkeypatch):
    write(ledger, range(8))
    seen = []
    save = np.savez

    def between(*arguments, **arrays):
        seen.append(ledger.read()[0].n)
        save(*arguments, **arrays)
        seen.append(ledger.read()[0].n)

    real = ledgers.Path.replace

    def replaced(self, target):
        real(self, target)
        seen.append(ledger.read()[0].n)  # saved already, and still in the buffer

    monkeypatch.setattr(np, "savez", between)
    monkeypatch.setattr(ledgers.Path, "replace", replaced)
    write(ledger, [8])
    assert seen == [8, 8, 8]
    check(ledger, list(range(9)))


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_it_wrote(ledger):
    def run():
        write(ledger, range(13))
        os.kill(os.getpid(), signal.SIGKILL)

    ledger.generation()
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    check(ledger, list(range(13)))


@pytest.mark.slow
def test_forked_processes_write_beside_each_other_and_their_parent(ledger):
    write(ledger, range(3), "main")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write, args=(ledger, range(10 * i, 10 * i + 10), f"w{i}")) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    check(ledger, [*range(3), *range(40)])
    assert dict(sites(ledger).top(9)) == {"main": 3, "w0": 10, "w1": 10, "w2": 10, "w3": 10}


def test_threads_of_one_process(ledger):
    threads = [threading.Thread(target=write, args=(ledger, range(50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check(ledger, [*range(50)] * 4)


def test_a_reset_while_files_are_counted_costs_no_image(ledger, monkeypatch):
    write(ledger, range(2))
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [*glob(path, pattern), path / "0-1-gone.rows"])

    assert ledger.seen() == 2


def test_it_goes_through_pickle_as_a_path(ledger):
    write(ledger, range(3))
    blob = pickle.dumps(ledger)
    assert len(blob) < 1000
    write(pickle.loads(blob), range(2))
    check(ledger, [0, 1, 2, 0, 1])


def test_a_disk_that_is_full_raises_instead_of_killing_the_process(ledger, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        write(ledger, [1])


def test_more_categories_than_are_kept_are_counted_together(tmp_path, monkeypatch):
    monkeypatch.setattr(ledgers, "MOST_CATEGORIES", 3)
    ledger = Ledger(tmp_path, COLUMNS.width, partial(empty), capacity=4)
    for i in range(9):
        write(ledger, [i], f"site {i}")
    assert dict(sites(ledger).top(9)) == {"(other)": 6, "site 0": 1, "site 1": 1, "site 2": 1}


N = 12


@measure("of_the_dark")
def of_the_dark(images):
    if images.max() > 99:
        raise ValueError("too light")
    return images.mean((1, 2, 3))


@measure("whole_batch")
def whole_batch(images):
    return float(images.mean())


@measure("two_numbers")
def two_numbers(images):
    return np.zeros((len(images), 2), np.float32)


@measure("often_nan")
def often_nan(images):
    return np.where(images.max((1, 2, 3)) > 99, np.nan, 1.0)


def site(sample):
    image = sample[0] if isinstance(sample, tuple) else sample
    if np.asarray(image).max() > 99:
        raise KeyError("site")
    return "north"


def odd(sample):
    return [1, 2]


MEASURES = [of_the_dark, whole_batch, two_numbers, often_nan]
METADATA = {"site": site, "odd": odd}
#: What is said of N images, of which every third is light.
SAID = [
    "raw/of_the_dark could not be measured in 4 of 12 rows: ValueError: too light",
    "raw/whole_batch could not be measured in 12 of 12 rows: it returned shape ()",
    "raw/two_numbers could not be measured in 12 of 12 rows: it returned 2 numbers for each image",
    "raw/often_nan was left out in 4 of 12 rows: it is not a finite number there",
    "metadata/site is missing in 4 of 12 rows, where its function failed: KeyError('site')",
    "metadata/odd is missing in 12 of 12 rows, where its function failed: gave a list",
]


def pixels(i):
    return np.full((6, 7, 3), 200 if i % 3 == 0 else 50 + i, np.uint8)


class Pictures(Dataset):
    def __init__(self, profiled=None):
        self.profiled = profiled

    def __len__(self):
        return N

    def __getitem__(self, index):
        image = Image.fromarray(pixels(index))
        if self.profiled is not None:
            self.profiled(image)
            return 0
        return image, index % 2


def check_failures(profile, caplog, said=SAID):
    assert len(profile.warnings) == len(said), profile.warnings
    for warning, expected in zip(sorted(profile.warnings), sorted(said), strict=True):
        assert warning.startswith(expected)
    group = profile.groups["raw"]
    assert (group.n, group.invalid) == (N, 0)
    assert {name: (each.n, each.invalid) for name, each in group.apart.items()} == {
        "of_the_dark": (8, 4),
        "whole_batch": (0, 12),
        "two_numbers": (0, 12),
        "often_nan": (8, 4),
    }
    assert profile.groups["metadata/site"].categories[""].n == 8
    logged = [record.getMessage() for record in caplog.records if "too light" in record.getMessage()]
    assert len(logged) == 1
    assert len([record for record in caplog.records if "site" in record.getMessage()]) == 1


@pytest.fixture
def folder(tmp_path):
    for i in range(N):
        Image.fromarray(pixels(i)).save(tmp_path / f"{i:02}.png")
    return tmp_path


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["here", "fork", "spawn"])
def test_profile_images_in_workers(start, caplog):
    profiled = ProfileImages(measures=MEASURES, metadata=METADATA)
    workers = {"num_workers": 2, "multiprocessing_context": start} if start != "here" else {}
    for _ in DataLoader(Pictures(profiled), batch_size=4, **workers):
        pass
    profile = profiled.profile()
    check_failures(profile, caplog)
    again = profiled.profile()
    assert again.warnings == profile.warnings
    profiled.reset()
    assert profiled.profile().warnings == []
    profiled(Image.fromarray(pixels(0)))
    assert "raw/of_the_dark could not be measured in 1 of 1 rows: ValueError: too light" in profiled.profile().warnings


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_profile_dataset_of_samples(workers, caplog):
    check_failures(profile_dataset(Pictures(), measures=MEASURES, metadata=METADATA, num_workers=workers), caplog)


@pytest.mark.parametrize("workers", [0, 1])
def test_profile_dataset_of_files(workers, caplog, folder):
    profile = profile_dataset(folder, measures=MEASURES, metadata=METADATA, num_workers=workers)
    check_failures(profile, caplog)
    assert Profile.load(profile.save(folder / "made")).warnings == profile.warnings


def test_what_was_counted_before_an_interruption_counts(folder, monkeypatch):
    monkeypatch.setattr("lensai_integrations.profiling.image_files.CHUNK", 4)
    monkeypatch.setattr("lensai_integrations.profiling.image_files.SAVE_EVERY", -1)

    def interrupts(done, total):
        if done == 8:
            raise KeyboardInterrupt

    given = {"jobs": 0, "measures": MEASURES, "metadata": METADATA, "resume": folder / "state"}
    with pytest.raises(KeyboardInterrupt):
        profile_files(folder, progress=interrupts, **given)
    resumed, whole = profile_files(folder, **given), profile_files(folder, **given)
    assert resumed.warnings == whole.warnings
    assert resumed.rows.n == whole.rows.n == N
    np.testing.assert_array_equal(resumed.rows.data["raw"], whole.rows.data["raw"])


@pytest.mark.parametrize("budget", [None, 0.05])
def test_buffers_that_were_sketched_keep_their_counts(budget):
    collector = Collector(measures=MEASURES, metadata=METADATA, capacity=5, budget=budget)
    for i in range(N):
        collector.add(pixels(i))
    warnings = collector.profile().warnings
    assert [warning[: len(said)] for warning, said in zip(sorted(warnings), sorted(SAID), strict=True)] == sorted(SAID)
    assert collector.count == N


def test_unreadable_images_are_counted_with_the_first_reason(caplog):
    profiled = ProfileImages(metadata={"site": site})
    for image in (torch.full((3, 6, 6), -3.0), torch.full((3, 6, 6), -5.0), torch.zeros(3, 6, 6)):
        profiled(image)
    (warning,) = profiled.profile().warnings
    assert warning.startswith("2 of 3 images of raw could not be measured: scale='auto' expects float pixels")
    assert "-3" in warning
    assert sum("counts as invalid" in record.getMessage() for record in caplog.records) == 1


def test_a_measure_that_worked_elsewhere_is_not_blamed():
    for image, said in ((pixels(0), 1), (pixels(1), 0)):
        assert len(profile_dataset([image] * 2, measures=[of_the_dark]).warnings) == said


@pytest.mark.parametrize("value", [math.inf, -1e39])
def test_numbers_that_no_column_holds_are_failures(value, folder):
    said = f"metadata/far is missing in 12 of 12 rows, where its function failed: gave {value:g}: it should give"
    for data in (folder, [pixels(i) for i in range(N)]):
        profile = profile_dataset(data, metadata={"far": lambda _: value})
        assert len(profile.warnings) == 1
        assert profile.warnings[0].startswith(said)
    assert not profile_dataset(folder, metadata={"none": lambda _: math.nan}).warnings


def test_segments_by_what_no_image_has_are_said(folder):
    said = "segment_by={!r}: no image has a value of it, so all are in the segment 'other'"
    for data, by in ((folder, "iso"), ([Image.fromarray(pixels(i)) for i in range(N)], "label")):
        profile = profile_dataset(data, exif=["iso"], segment_by=by)
        assert profile.warnings == [said.format(by)]
        assert {name: each.n for name, each in profile.segments.items()} == {"other": N}
    assert not profile_dataset(folder, segment_by="mode").warnings


def test_files_of_which_none_can_be_read_are_no_profile(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"none of 2 files could be read, the first, .*a\.png: UnidentifiedImageError"):
        profile_files(tmp_path, jobs=0)


def test_images_without_labels_count_beside_those_with(folder, tmp_path):
    (tmp_path / "labelled" / "cat").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(pixels(i)).save(tmp_path / "labelled" / "cat" / f"{i}.png")
    labelled = profile_dataset(tmp_path / "labelled")
    assert list(labelled.groups)[-1] == "labels"
    assert labelled.merge(profile_dataset(str(folder / "*.png"))).n == 3 + N


def test_the_cause_of_a_fault_is_known_in_every_generation():
    collector = Collector()
    for _ in range(120):
        collector.add(torch.full((3, 6, 6), -3.0))
        (warning,) = collector.profile().warnings
        assert "could not be measured: scale='auto' expects float pixels" in warning
        collector.reset()


def test_different_problems_are_bounded(tmp_path):
    collector = Collector(segment_by="mode2", metadata={"mode2": lambda image: object()})
    for _ in range(150):
        collector.add(pixels(0))
    assert len(list(os.scandir(collector.folder))) < 150
