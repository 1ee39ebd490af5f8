"""Folders of fits: named after what tracks them, and no two fits of a program in one, whatever they run in."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from fits import baseline_of, options_of

from lensai_integrations import Baseline
from lensai_integrations.profiles.profile import files_of
from lensai_integrations.training import finish
from lensai_integrations.training.finish import BaselineFolder, folder_name

EARLIER = (1, 1)  # seconds after 1970: of an earlier program


@pytest.fixture
def files():
    return files_of(baseline_of(101))


def left_by_an_earlier_program(folder, n=200):
    baseline_of(n).save(folder)
    for path in (*folder.iterdir(), folder):
        os.utime(path, EARLIER)


@pytest.mark.parametrize(
    ("options", "run", "name"),
    [
        ({}, "", "lensai_baseline"),
        ({}, "0123abcd", "lensai_baseline-0123abcd"),
        ({"artifact_path": "a/b"}, "", "lensai_baseline-a-b"),
        ({"artifact_path": "a/b"}, "my run: ../../etc", "lensai_baseline-a-b-my-run-..-..-etc"),
    ],
)
def test_names(options, run, name):
    assert folder_name(options_of(**options), run) == name


def test_what_is_written_again_goes_to_the_same_folder(tmp_path, files):
    one, other = BaselineFolder(tmp_path, options_of()), BaselineFolder(tmp_path, options_of())
    for _ in range(2):
        one.write(files)
        other.write(files)
    assert [each.folder.name for each in (one, other)] == ["lensai_baseline", "lensai_baseline-2"]
    assert len(list(tmp_path.iterdir())) == 2
    assert (one.note, "beside that of an earlier fit" in other.note) == ("", True)


@pytest.mark.parametrize("given", [True, False])
def test_a_write_that_fails_leaves_what_an_earlier_program_left(tmp_path, files, monkeypatch, given):
    left_by_an_earlier_program(tmp_path / "lensai_baseline")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lensai_integrations.storage.folders.write_file", full)
    taken = BaselineFolder(tmp_path, options_of(directory=tmp_path / "lensai_baseline" if given else None))
    with pytest.raises(OSError, match="No space"):
        taken.write(files)
    assert taken.folder is None
    assert Baseline.load(tmp_path / "lensai_baseline").n == 200
    monkeypatch.undo()
    taken.write(files)
    assert Baseline.load(tmp_path / "lensai_baseline").n == 101
    assert "in place of an earlier program's" in taken.note


def test_a_folder_of_the_users_is_taken_once_and_what_is_in_it_stays(tmp_path, files):
    (tmp_path / "lensai_baseline").mkdir()
    (tmp_path / "lensai_baseline" / "notes.txt").write_text("mine")
    os.utime(tmp_path / "lensai_baseline", EARLIER)
    for name in ("lensai_baseline", "lensai_baseline-2"):
        taken = BaselineFolder(tmp_path, options_of())
        taken.write(files)
        assert taken.folder.name == name
    assert (tmp_path / "lensai_baseline" / "notes.txt").read_text() == "mine"


def _write(arguments):
    root, options, n = arguments
    taken = BaselineFolder(root, options)
    taken.write(files_of(baseline_of(n)))
    return taken.folder


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "a baseline"])
@pytest.mark.parametrize(
    "pool",
    [
        ThreadPoolExecutor,
        pytest.param(lambda jobs: _processes(jobs, "fork"), id="fork"),
        pytest.param(lambda jobs: _processes(jobs, "spawn"), id="spawn", marks=pytest.mark.slow),
    ],
)
def test_fits_at_once_have_a_folder_each(tmp_path, left, pool):
    first = tmp_path / "lensai_baseline"
    if left == "a baseline":
        left_by_an_earlier_program(first)
    elif left == "an empty folder":
        first.mkdir()
        os.utime(first, EARLIER)
    counts = range(101, 113)
    with pool(4) as workers:
        folders = list(workers.map(_write, [(tmp_path, options_of(), n) for n in counts]))
    assert sorted(folders) == sorted(tmp_path.glob("lensai_baseline*"))
    assert [Baseline.load(folder).n for folder in folders] == list(counts)
    assert first in folders


def _processes(jobs, how):
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context(how))


def test_a_given_folder_says_whose_baseline_it_replaces(tmp_path, files):
    notes = []
    left_by_an_earlier_program(tmp_path / "own")
    for _ in range(2):
        taken = BaselineFolder(tmp_path, options_of(directory=tmp_path / "own"))
        taken.write(files)
        notes.append(taken.note)
    assert notes == [finish._INSTEAD_OF_OLD, finish._INSTEAD]
