"""Several processes that save to one folder and read it: what is there is one save, whole."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from save_script import save

from lensai_integrations.errors import FormatError, InUseError
from lensai_integrations.storage import folders
from lensai_integrations.storage.folders import ARRAYS, MANIFEST, read_folder, write_folder

fcntl = pytest.importorskip("fcntl")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
ROUNDS = 40


def who(folder: Path) -> str:
    """Who saved last, after everything in the folder was seen to be theirs."""
    manifest, arrays = read_folder(folder)
    assert arrays["x"].tobytes().decode() == manifest["saved"]
    return str(manifest["saved"])


@pytest.fixture
def writers(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, str(Path(__file__).parents[1] / "save_script.py"), str(tmp_path / "saved")]
    started = [subprocess.Popen([*command, name], env=ENVIRONMENT) for name in "ab"]
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_two_programs_that_save_to_one_folder_never_mix(tmp_path: Path, writers: list[subprocess.Popen[bytes]]) -> None:
    folder = tmp_path / "saved"
    while not (folder / MANIFEST).exists():
        assert all(process.poll() is None for process in writers)
    seen = []
    while len({*seen}) < ROUNDS or {name[0] for name in seen} != {"a", "b"}:
        seen.append(who(folder))  # no read fails, however it falls between two saves
    for process in writers:  # wherever they are
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert who(folder)[0] in "ab"
    save(folder, "c")
    assert who(folder) == "c"
    assert {path.name for path in folder.iterdir()} == {MANIFEST, ARRAYS, "streams.csv", "report.html"}


@pytest.mark.slow
def test_a_program_that_is_killed_while_it_saves_keeps_nobody_waiting(
    tmp_path: Path, writers: list[subprocess.Popen[bytes]]
) -> None:
    folder = tmp_path / "saved"
    for process in writers:
        while process.poll() is None and not list(folder.glob(".*.partial")):
            pass  # it has begun
        process.send_signal(signal.SIGKILL)
        process.wait()
    save(folder, "c")
    assert who(folder) == "c"


def kept(folder: Path) -> Any:
    """The lock that somebody holds who is saving."""
    opened = os.open(folder, os.O_RDONLY)
    fcntl.flock(opened, fcntl.LOCK_EX)
    return opened


class Clock:
    """Time that passes while somebody sleeps, and what happens then."""

    def __init__(self, *events: Any) -> None:
        self.now, self.events = 0.0, list(events)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds if self.events else 10.0
        if self.events:
            self.events.pop(0)()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tmp_path / "saved", "a-0")
    return tmp_path / "saved"


def test_a_save_waits_for_its_turn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = kept(folder)
    monkeypatch.setattr(folders, "time", Clock(lambda: None, lambda: os.close(lock)))
    save(folder, "b-0")
    assert who(folder) == "b-0"


def test_a_save_says_who_keeps_it_waiting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = kept(folder)
    monkeypatch.setattr(folders, "time", Clock())
    with pytest.raises(InUseError, match=r"saved' is being saved to by another process, since 60 s: end that process"):
        save(folder, "b-0")
    os.close(lock)
    assert who(folder) == "a-0"


def test_a_reader_waits_for_a_folder_that_is_being_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, manifest = kept(folder), (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).unlink()

    def finish() -> None:
        (folder / MANIFEST).write_bytes(manifest)
        os.close(lock)

    monkeypatch.setattr(folders, "time", Clock(lambda: None, finish))
    assert who(folder) == "a-0"


def test_a_reader_says_what_it_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = kept(folder)
    (folder / MANIFEST).unlink()
    monkeypatch.setattr(folders, "time", Clock())
    with pytest.raises(FormatError, match=r"being written by other processes, since 60 s, and not whole: .* cut short"):
        read_folder(folder)
    os.close(lock)
    with pytest.raises(FormatError, match="cut short"):  # at once: nobody is writing
        read_folder(folder)


@pytest.mark.parametrize("at", range(4))
def test_a_reader_that_a_save_overtakes_reads_again(folder: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole save falls between two files that a reader reads."""
    real, reads = folders._content, iter(range(100))

    def content(path: Path, most: int) -> bytes | None:
        if next(reads) == at:
            with monkeypatch.context() as patch:
                patch.setattr(folders, "_content", real)
                save(folder, "b-0")
        return real(path, most)

    monkeypatch.setattr(folders, "_content", content)
    assert who(folder) in ("a-0", "b-0")
    assert who(folder) == ("b-0" if next(reads) > at else "a-0")


def test_threads_take_turns_too(tmp_path: Path) -> None:
    names = [f"{name}-{number}" for name in "ab" for number in range(8)]
    threads = [threading.Thread(target=save, args=(tmp_path / "saved", name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = who(tmp_path / "saved")
    assert last in names
    assert (tmp_path / "saved" / "streams.csv").read_text() == last


def test_a_folder_that_was_removed_while_a_save_waited_is_not_written_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = kept(folder)

    def replace() -> None:
        folder.rename(folder.with_name("old"))
        folder.mkdir()
        os.close(lock)

    monkeypatch.setattr(folders, "time", Clock(replace))
    save(folder, "b-0")
    assert (who(folder), who(folder.with_name("old"))) == ("b-0", "a-0")


@pytest.mark.parametrize("error", [errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_that_locks_no_folders_has_a_file_for_it(
    folder: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock

    def flock(file: int, how: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(error, os.strerror(error))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    save(folder, "b-0")
    assert who(folder) == "b-0"
    held = os.open(folder / ".lock", os.O_RDWR)
    real(held, fcntl.LOCK_EX)
    monkeypatch.setattr(folders, "time", Clock())
    with pytest.raises(InUseError):
        save(folder, "c-0")
    os.close(held)


def test_a_disk_that_locks_nothing_is_written_to_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    save(folder, "b-0")
    assert who(folder) == "b-0"


def test_what_a_killed_save_has_left_is_removed_by_the_next(folder: Path) -> None:
    (folder / ".profile.npz.12.0af.partial").write_bytes(b"x")
    (folder / ".mine.partial").write_bytes(b"x")
    write_folder(folder, {"saved": "x"}, {"x": np.frombuffer(b"x", np.uint8)}, {})
    assert {path.name for path in folder.glob(".*")} == {".mine.partial"}


class TimeUpError(TimeoutError):
    """What a user's time limit raises: an `OSError`."""


def up(number: int, frame: object) -> None:
    raise TimeUpError


def test_a_time_limit_that_fires_at_any_call_of_a_save_passes_and_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within each call of `os` and `fcntl` in turn."""
    calls: list[str] = []
    at: list[int] = []

    def patched(function: Any) -> Any:
        def run(*arguments: Any, **keywords: Any) -> Any:
            result = function(*arguments, **keywords)
            calls.append(function.__name__)
            if len(calls) in at:
                signal.raise_signal(signal.SIGTERM)
            return result

        return run

    for name in ("open", "close", "write", "fsync", "replace", "fstat"):
        monkeypatch.setattr(os, name, patched(getattr(os, name)))
    monkeypatch.setattr(fcntl, "flock", patched(fcntl.flock))
    monkeypatch.setattr(folders, "MOST_WAITING", 0.0)
    save(tmp_path / "first", "a")
    total, before = len(calls), signal.signal(signal.SIGTERM, up)
    try:
        for number in range(1, total + 1):
            calls.clear()
            at[:] = [number]
            with pytest.raises(TimeUpError):
                save(tmp_path / "saved", "b")
            at.clear()
            save(tmp_path / "saved", "c")
            assert who(tmp_path / "saved") == "c"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert total > 20
