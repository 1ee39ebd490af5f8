"""Nothing is lost: buffers that are full, writers that die, forks, threads, disks that are full, readers in between."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import signal
import threading
from functools import partial

import numpy as np
import pytest

from lensai_integrations.profiling import delivered_images as ledgers
from lensai_integrations.profiling.delivered_images import Ledger
from lensai_integrations.profiling.raw_rows import Columns, RawSketches

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
    sketches, pixels = ledger.read()
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
