"""A folder that several processes write rows to and one reads: nothing is lost when a writer dies, waits or goes on.

The folder holds a file for every process that has written: data-loader workers, however they were started, and the main
process itself. The file is mapped into memory, so what a killed process wrote is there still. Only its own process
writes to it, so nothing is locked. One number, the count of rows, is stored last and makes a row count; the pixel
counts, which belong to the same row, lie in two copies of which that number says which one holds.

When the file's buffer is full, the writer sketches its rows, saves the sketches beside the file, and begins again at
its top. So a process keeps a few megabytes, however long it runs and whether or not anybody reads.

Where only a share of what is delivered is measured (`sampling.py`), a file also says how many there were. Whether the
first rows will belong to the profile is not known before all are there: so they are never sketched by the writer but
saved as they are, and pixels are counted by class.

Segments have the same numbers in every process: their names are files of the folder, one for each number, and whoever
links a file there first has named that number, for all. A process that is killed leaves no name half written. The share
is decided the same way, once for a folder.

`reset` begins a new generation: a number in a file that writers look at before every row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.profiling.raw_rows import MOST_CATEGORIES, OTHER_CATEGORY, RawSketches, SegmentNames
from lensai_integrations.profiling.sampling import (
    LEFT_OUT,
    LEVELS,
    SHARE,
    Pace,
    Sampling,
    Turn,
    about,
    chosen,
    first_of,
    key_of,
    level_of,
    slab_of,
    worker,
)

#: Rows in the buffer of a process.
CAPACITY: Final = 4096
_PIXELS: Final = 3 * 256
#: What the head of a file says, in this order, before the two copies of the pixel counts of each class: rows written,
#: rows that are no longer in the buffer, images seen, and the worker's number and 1.
_WRITTEN, _FOLDED, _SEEN, _WORKER, _HEAD = 0, 1, 2, 3, 8
_GENERATION: Final = "generation"
_TRIES: Final = 1000
#: Held while an object finds itself in a new process.
_BECOMING = threading.Lock()
#: Makes empty sketches, given numbers that make their random decisions differ.
Empty = Callable[[int], RawSketches]
#: Makes a row `[width]` and its pixel counts `[3, 256]`, None for none, given the coding of categories.
Make = Callable[[Callable[[str], int]], tuple[NDArray[np.float32], NDArray[np.int64] | None]]


class Collected(NamedTuple):
    """What all processes have written.

    Attributes:
        sketches: Of the rows.
        pixels: Counts of their pixels, `[3, 256]`.
        seen: Images that were delivered.
        sampled: What there is to say if not all are in it, see `sampling.about`; else None.
    """

    sketches: RawSketches
    pixels: NDArray[np.int64]
    seen: int
    sampled: dict[str, Any] | None = None


class Ledger:
    """A folder that processes write rows to, and what they amount to. Only a path goes through pickle.

    Args:
        folder: It is made if it is missing.
        width: Of a row.
        empty: Makes empty sketches.
        capacity: Rows that a process keeps before it sketches them.
        most: Named segments, at the most, if the last column of a row is its segment; 0 if it is not.
        sampling: How much of what is delivered may be measured; None for all.
    """

    def __init__(
        self,
        folder: Path,
        width: int,
        empty: Empty,
        capacity: int = CAPACITY,
        most: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        self.folder, self._width, self._empty, self._capacity, self._most = folder, width, empty, capacity, most
        self._sampling = sampling
        self._forget()

    def _forget(self) -> None:
        self._writer: Writer | None = None
        self._pid = self._generation = -1
        self._number: Any = None
        self._lock = threading.Lock()
        self._pace = Pace()
        self._level: int | None = None  # of the share, once it is decided

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("folder", "_width", "_empty", "_capacity", "_most", "_sampling")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def begin(self, n: int = 1) -> Turn:
        """Count what is delivered, and say whether it is to be measured; then `end` has to follow.

        Args:
            n: Images that are delivered at once, which are measured or left out together.

        Raises:
            OSError: If the folder cannot be written.
        """
        self._be_this_process()
        began = self._pace.now() if self._sampling is not None and self._level is None else None
        with self._lock:
            return self._counted(self._current(), n, began)

    def end(self, turn: Turn) -> None:
        """What was begun is done."""
        if turn.began is not None:
            self._pace.end(turn.began)

    def append(self, make: Make, segment: str | int | None = None, turn: Turn | None = None) -> None:
        """Add one row; `make` is given the coding of categories and makes the row `[width]` and its pixel counts.

        Args:
            make: Called once, with nobody else in it.
            segment: The value of the row's segment.
            turn: What `begin` has said; without, an image is counted with the row.

        Raises:
            OSError: If the folder cannot be written.
        """
        self._be_this_process()
        with self._lock:
            writer = self._current()
            if turn is None or turn.generation != self._generation:  # a reset came between
                turn = self._counted(writer, 1, None)
            if not turn.measured:
                return
            row, pixels = make(writer.code)
            if self._most:
                row[-1] = writer.segments.code(segment)
            writer.append(row, pixels, turn.slab, self._sketched_from())

    def _be_this_process(self) -> None:
        if self._pid == os.getpid():
            return
        with _BECOMING:  # a process of its own, forked or not, has a file of its own, whatever threads it has
            if self._pid != os.getpid():
                self._forget()
                self._pid = os.getpid()

    def _current(self) -> Writer:
        """What this process writes to in this generation."""
        generation = self.generation()
        if self._writer is None or generation != self._generation:
            self._writer = Writer(
                self.folder, generation, self._width, self._empty, self._capacity, self._most, self._sampling
            )
            self._generation = generation
        return self._writer

    def _counted(self, writer: Writer, n: int, began: float | None) -> Turn:
        """Give images a number, and with it their class."""
        number = writer.count(n)
        if self._sampling is None:
            return Turn(True, 0, self._generation, began)
        level, is_first = level_of(writer.key, number), number < writer.first
        if not is_first:
            writer.past = writer.past or self.seen() > self._sampling.whole
            if self._level is None and writer.past:
                self._level = self._decided(self._sampling)
            if self._level is not None and level < self._level and writer.past:
                return LEFT_OUT
        return Turn(True, slab_of(level, is_first=is_first), self._generation, began)

    def _decided(self, sampling: Sampling) -> int | None:
        """The level of the share, which the first process decides that has measured enough."""
        level = self._level_there()
        if level is None and (ours := self._pace.level(sampling.budget)) is not None:
            return int(written_once(self.folder / SHARE, str(ours)))
        return level

    def _level_there(self) -> int | None:
        """The level of the share, if some process has decided."""
        path = self.folder / SHARE
        return int(_text(path)) if path.exists() else None

    def _sketched_from(self) -> int | None:
        """From which level on rows belong to the profile for sure; None if no row does."""
        return 0 if self._sampling is None else self._level

    def segments(self) -> list[str]:
        """The names of the segments of this generation, whose numbers begin at 1."""
        return SharedNames(self.folder / str(self.generation()), self._most).read()

    def note(self, topic: str, problem: str) -> None:
        """Keep what went wrong, for whichever process asks: of all processes the first of a topic in this generation.

        Raises:
            OSError: If the folder cannot be written.
        """
        name = f"{self.generation()}-{hashlib.sha256(topic.encode()).hexdigest()[:16]}.note"
        written_once(self.folder / name, json.dumps([topic, problem]))

    def notes(self) -> dict[str, str]:
        """What went wrong in this generation, in any process, by topic."""
        paths = sorted(self.folder.glob(f"{self.generation()}-*.note"))
        return dict(json.loads(path.read_text(encoding="utf-8")) for path in paths)

    def seen(self) -> int:
        """How many images were delivered to all processes in this generation; their rows are not read."""
        return sum(int(head[_SEEN]) for head in _heads(self.folder, self.generation()))

    def generation(self) -> int:
        """The number that rows written now belong to."""
        if self._number is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / _GENERATION
            with contextlib.suppress(FileExistsError), path.open("xb") as file:
                file.write(bytes(8))
            self._number = np.asarray(np.memmap(path, np.int64, "r+", shape=(1,)))
        return int(self._number[0])

    def reset(self) -> None:
        """Begin a new generation, and remove what is of older ones."""
        generation = self.generation() + 1
        self._number[0] = generation
        for path in self.folder.glob("*-*"):
            if path.name.split("-")[0].isdigit() and int(path.name.split("-")[0]) < generation:
                path.unlink(missing_ok=True)

    def read(self) -> Collected:
        """What all processes have written in this generation.

        Raises:
            OSError: If the folder cannot be read.
        """
        paths = sorted(self.folder.glob(f"{self.generation()}-*.rows"))
        shares = [self._read_one(path, number) for number, path in enumerate(paths)]
        seen, level = sum(share.seen for share in shares), self._level_there()
        if self._sampling is None or not level or seen <= self._sampling.whole:
            return Collected(*self._together(shares, 0, with_first=False), seen)
        selected = sum(share.sketches.n + int(chosen(share.slabs, level, with_first=False).sum()) for share in shares)
        with_first = selected < self._sampling.fewest
        sketches, pixels = self._together(shares, level, with_first=with_first)
        sampled = about(seen, sketches.n, level, self._sampling.budget, self._sampling.whole if with_first else 0)
        return Collected(sketches, pixels, seen, sampled)

    def _together(self, shares: list[_Share], level: int, *, with_first: bool) -> tuple[RawSketches, NDArray[np.int64]]:
        """The sketches and pixel counts of what belongs to the profile."""
        total, pixels = self._empty(0), np.zeros((3, 256), np.int64)
        for share in shares:
            share.sketches.update(share.rows[chosen(share.slabs, level, with_first=with_first)], share.words)
            total.merge(share.sketches)
            slabs = np.arange(len(share.pixels))
            pixels += share.pixels[chosen(slabs, level, with_first=with_first)].sum(axis=0).reshape(3, 256)
        return total, pixels

    def _read_one(self, path: Path, number: int) -> _Share:
        file = _File(path, self._width, self._capacity, _slabs(self._sampling), create=False)
        for _ in range(_TRIES):
            before = file.head.copy()
            written, folded = int(before[_WRITTEN]), int(before[_FOLDED])
            sketches = self._empty(number)  # each process has random decisions of its own
            saved, state = path.with_suffix(".npz"), {}
            if saved.exists():
                with np.load(saved, allow_pickle=False) as arrays:
                    state = dict(arrays)
            sketched = int(state.pop("folded", 0))
            aside = [state.pop(name, nothing) for name, nothing in zip(_ASIDE, _nothing(self._width), strict=True)]
            if state:
                sketches.restore(state)
            there = slice(sketched - folded, written - folded)
            rows, slabs = np.array(file.rows[there]), np.array(file.slabs[there])
            pixels = file.pixels(written).copy()
            if sketched < folded or int(file.head[_FOLDED]) != folded or int(file.head[_WRITTEN]) != written:
                continue  # it was written to meanwhile
            words = path.with_suffix(".words").read_text(encoding="utf-8").splitlines()
            return _Share(
                sketches,
                np.concatenate([aside[0], rows]),
                np.concatenate([aside[1], slabs]),
                [json.loads(word) for word in words],
                pixels,
                int(before[_SEEN]),
            )
        raise OSError(f"{path} is written to faster than it can be read")


class _Share(NamedTuple):
    """What one process has written: sketches of those rows that belong to the profile, the rows that may, their
    classes, the names of categories, pixel counts by class `[classes, 768]`, and images seen."""

    sketches: RawSketches
    rows: NDArray[np.float32]
    slabs: NDArray[np.uint8]
    words: list[str]
    pixels: NDArray[np.int64]
    seen: int


#: What is saved beside sketches of rows that may or may not belong to the profile: the rows and their classes.
_ASIDE: Final = ("aside:rows", "aside:slabs")


def _nothing(width: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    return np.zeros((0, width), np.float32), np.zeros(0, np.uint8)


def _slabs(sampling: Sampling | None) -> int:
    """Classes that pixels are counted by."""
    return 1 if sampling is None else 2 * LEVELS


def _heads(folder: Path, generation: int) -> list[NDArray[np.int64]]:
    """The heads of the files of a generation."""
    heads = []
    for path in folder.glob(f"{generation}-*.rows"):
        with contextlib.suppress(FileNotFoundError):  # a reset came between
            heads.append(np.fromfile(path, np.int64, _HEAD))
    return [head for head in heads if len(head) == _HEAD]  # a file that is being made is empty


class Writer:
    """What one process writes in one generation.

    Args:
        folder: The ledger's.
        generation: The number it belongs to.
        width: Of a row.
        empty: Makes the sketches that full buffers go to.
        capacity: Rows in the buffer.
        most: Named segments, at the most.
        sampling: How much of what is delivered may be measured; None for all.

    Attributes:
        segments: Their numbers.
        key: What images' numbers are hashed with.
        first: How many images of this worker are among the first.
        past: Whether more images were delivered to all processes than stay whole, as far as is known.
    """

    def __init__(
        self,
        folder: Path,
        generation: int,
        width: int,
        empty: Empty,
        capacity: int = CAPACITY,
        most: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        self._stem = folder / f"{generation}-{os.getpid()}-{secrets.token_hex(4)}"
        self.segments = SharedNames(folder / str(generation), most)
        self._width, self._empty, self._capacity = width, empty, capacity
        number, workers = worker()
        # a worker that was started anew goes on where the one before it ended
        self._before = sum(int(head[_SEEN]) for head in _heads(folder, generation) if head[_WORKER] == number + 1)
        self._file = _File(self._stem.with_suffix(".rows"), width, capacity, _slabs(sampling), create=True)
        self._head = self._file.head
        self._head[_WORKER] = number + 1
        self.key = 0 if sampling is None else key_of(sampling.seed, generation, number)
        self.first, self.past = (0 if sampling is None else first_of(workers, sampling.whole)), False
        self._codes: dict[str, int] = {}
        self._words = self._stem.with_suffix(".words")
        self._words.touch()
        self._sketches: RawSketches | None = None
        self._aside = _nothing(width)
        self._last: int | None = None  # the class whose pixel counts the two copies do not have alike

    def count(self, n: int) -> int:
        """Count images that are delivered at once; the number of the first of them."""
        seen = int(self._head[_SEEN])
        self._head[_SEEN] = seen + n
        return self._before + seen

    def code(self, category: str) -> int:
        """The number that stands for a category in this process's rows."""
        code = self._codes.get(category)
        if code is None:
            if len(self._codes) >= MOST_CATEGORIES:
                category = OTHER_CATEGORY
                if category in self._codes:
                    return self._codes[category]
            code = self._codes[category] = len(self._codes)
            with self._words.open("a", encoding="utf-8") as file:
                file.write(json.dumps(category) + "\n")
        return code

    def append(
        self, row: NDArray[np.float32], pixels: NDArray[np.int64] | None, slab: int = 0, level: int | None = 0
    ) -> None:
        """Add a row `[width]` and its pixel counts `[3, 256]`.

        Args:
            row: The row.
            pixels: None for none.
            slab: Its class.
            level: From which level on rows belong to the profile for sure; None if no row does.
        """
        written, folded = int(self._head[_WRITTEN]), int(self._head[_FOLDED])
        if written - folded == self._capacity:
            self._fold(written, level)
            folded = written
        self._file.rows[written - folded] = row
        self._file.slabs[written - folded] = slab
        now, then = self._file.pixels(written), self._file.pixels(written + 1)
        if self._last is not None:
            then[self._last] = now[self._last]
        if pixels is not None:
            np.add(now[slab], pixels.reshape(-1), out=then[slab])
        self._last = None if pixels is None else slab
        self._head[_WRITTEN] = written + 1

    def _fold(self, written: int, level: int | None) -> None:
        """Sketch the full buffer, save the sketches, begin at the top. A reader sees the one or the other."""
        if self._sketches is None:
            self._sketches = self._empty(secrets.randbits(31))
        rows, slabs = np.array(self._file.rows), np.array(self._file.slabs)
        for_sure = chosen(slabs, LEVELS if level is None else level, with_first=False)
        self._sketches.update(rows[for_sure], list(self._codes))
        self._aside = (
            np.concatenate([self._aside[0], rows[~for_sure]]), np.concatenate([self._aside[1], slabs[~for_sure]])
        )  # fmt: skip
        aside = dict(zip(_ASIDE, self._aside, strict=True)) if len(self._aside[0]) else {}
        state = {**self._sketches.state(), **aside, "folded": np.array(written, np.int64)}
        made = self._stem.with_suffix(".tmp")
        with made.open("wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]
        made.replace(self._stem.with_suffix(".npz"))
        self._head[_FOLDED] = written


class SharedNames(SegmentNames):
    """The same in all processes that write to a folder.

    Args:
        stem: What the files are called, before their number.
        most: Named segments, at the most.
    """

    def __init__(self, stem: Path, most: int) -> None:
        super().__init__(most)
        self._stem = stem

    def _path(self, number: int | str) -> Path:
        return self._stem.with_name(f"{self._stem.name}-{number}.segment")

    def _named(self, number: int, name: str) -> str:
        return written_once(self._path(number), name)

    def read(self) -> list[str]:
        """The names that all processes have given so far."""
        for number in range(len(self._codes), self._most + 1):
            if not self._path(number).exists():
                break
            self._codes[_text(self._path(number))] = number
        return self.names


def written_once(path: Path, text: str) -> str:
    """What is in a file: this text, unless another process was first."""
    draft = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    if not path.exists():
        draft.write_text(text, encoding="utf-8", newline="")
        try:
            os.link(draft, path)  # unlike opening and writing, this is there whole or not at all
        except FileExistsError:
            pass
        finally:
            draft.unlink(missing_ok=True)
    return _text(path)


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


class _File:
    """The file of a process, mapped into memory. It has its full size from the start.

    Attributes:
        head: What there is, see `_HEAD`.
        rows: The buffer, `[capacity, width]`.
        slabs: The class of each row in it.
    """

    def __init__(self, path: Path, width: int, capacity: int, slabs: int, *, create: bool) -> None:
        pixels = 8 * 2 * slabs * _PIXELS
        ends = np.cumsum([8 * _HEAD, pixels, 4 * width * capacity, capacity])
        if create:
            with path.open("xb") as file:
                _allocate(file, int(ends[-1]))
        memory = np.asarray(np.memmap(path, np.uint8, "r+" if create else "r"))  # a memmap's views take their time
        head, copies, rows, self.slabs = np.split(memory, ends[:-1])[:4]
        self.head = head.view(np.int64)
        self._copies = copies.view(np.int64).reshape(2, slabs, _PIXELS)
        self.rows = rows.view(np.float32).reshape(capacity, width)

    def pixels(self, written: int) -> NDArray[np.int64]:
        """The pixel counts by class, `[classes, 768]`, that hold after this many rows."""
        copy: NDArray[np.int64] = self._copies[written % 2]
        return copy


def _become_anew() -> None:
    global _BECOMING  # noqa: PLW0603  a thread that is not in the new process may have held the old one
    _BECOMING = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_become_anew)


def _allocate(file: Any, size: int) -> None:
    """Make a file this large for good: a disk that is full must raise here, not kill a process that writes later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.write(bytes(size))
