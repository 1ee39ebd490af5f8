"""Rows that several processes write and one reads: nothing is lost when a writer dies, waits or goes its own way.

A folder holds a file for every process that has written: data-loader workers, however they were started, and the main
process itself. The file is mapped into memory, so what a killed process wrote is there still. Only its own process
writes to it, so nothing is locked. One number, the count of rows, is stored last and makes a row count; the pixel
counts, which belong to the same row, lie in two copies of which that number says which one holds.

When the file's buffer is full, the writer sketches its rows, saves the sketches beside the file, and begins again at
its top. So a process keeps a few megabytes, however long it runs and whether or not anybody reads.

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
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.raw.columns import MOST_CATEGORIES, OTHER_CATEGORY
from lensai_integrations.raw.segments import SharedNames, written_once
from lensai_integrations.raw.sketches import RawSketches

#: Rows in the buffer of a process.
CAPACITY: Final = 4096
_PIXELS: Final = 3 * 256
#: What the head of a file says, in this order, before the two copies of the pixel counts.
_WRITTEN, _FOLDED, _HEAD = 0, 1, 8
_GENERATION: Final = "generation"
_TRIES: Final = 1000

#: Makes empty sketches, given numbers that make their random decisions differ.
Empty = Callable[[int], RawSketches]


class Writer:
    """What one process writes in one generation.

    Args:
        folder: The ledger's.
        generation: The number it belongs to.
        width: Of a row.
        empty: Makes the sketches that full buffers go to.
        capacity: Rows in the buffer.
        most: Named segments, at the most.
    """

    def __init__(
        self, folder: Path, generation: int, width: int, empty: Empty, capacity: int = CAPACITY, most: int = 0
    ) -> None:
        self._stem = folder / f"{generation}-{os.getpid()}-{secrets.token_hex(4)}"
        self.segments = SharedNames(folder / str(generation), most)
        self._width, self._empty, self._capacity = width, empty, capacity
        self._head, self._buffer = _mapped(self._stem.with_suffix(".rows"), width, capacity, create=True)
        self._codes: dict[str, int] = {}
        self._words = self._stem.with_suffix(".words")
        self._words.touch()
        self._sketches: RawSketches | None = None

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

    def append(self, row: NDArray[np.float32], pixels: NDArray[np.int64]) -> None:
        """Add a row `[width]` and its pixel counts `[3, 256]`."""
        written = int(self._head[_WRITTEN])
        if written - int(self._head[_FOLDED]) == self._capacity:
            self._fold(written)
        self._buffer[written - int(self._head[_FOLDED])] = row
        now, then = _copy_of(self._head, written), _copy_of(self._head, written + 1)
        np.add(now, pixels.reshape(-1), out=then)
        self._head[_WRITTEN] = written + 1

    def _fold(self, written: int) -> None:
        """Sketch the full buffer, save the sketches, begin at the top. A reader sees the one or the other."""
        if self._sketches is None:
            self._sketches = self._empty(secrets.randbits(31))
        self._sketches.update(np.array(self._buffer), list(self._codes))
        state = {**self._sketches.state(), "folded": np.array(written, np.int64)}
        made = self._stem.with_suffix(".tmp")
        with made.open("wb") as file:
            np.savez(file, **state)  # type: ignore[arg-type]
        made.replace(self._stem.with_suffix(".npz"))
        self._head[_FOLDED] = written


class Ledger:
    """A folder that processes write rows to, and what they amount to. Only a path goes through pickle.

    Args:
        folder: It is made if it is missing.
        width: Of a row.
        empty: Makes empty sketches.
        capacity: Rows that a process keeps before it sketches them.
        most: Named segments, at the most, if the last column of a row is its segment; 0 if it is not.
    """

    def __init__(self, folder: Path, width: int, empty: Empty, capacity: int = CAPACITY, most: int = 0) -> None:
        self.folder, self._width, self._empty, self._capacity, self._most = folder, width, empty, capacity, most
        self._forget()

    def _forget(self) -> None:
        self._writer: Writer | None = None
        self._pid = self._generation = -1
        self._number: Any = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {key: self.__dict__[key] for key in ("folder", "_width", "_empty", "_capacity", "_most")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def append(
        self,
        make: Callable[[Callable[[str], int]], tuple[NDArray[np.float32], NDArray[np.int64]]],
        segment: str | int | None = None,
    ) -> None:
        """Add one row; `make` is given the coding of categories and makes the row `[width]` and its pixel counts.

        Args:
            make: Called once, with nobody else in it.
            segment: The value of the row's segment.

        Raises:
            OSError: If the folder cannot be written.
        """
        if self._pid != os.getpid():  # a process of its own, forked or not, has a file of its own
            self._forget()
            self._pid = os.getpid()
        with self._lock:
            generation = self.generation()
            if self._writer is None or generation != self._generation:
                self._writer = Writer(self.folder, generation, self._width, self._empty, self._capacity, self._most)
                self._generation = generation
            row, pixels = make(self._writer.code)
            if self._most:
                row[-1] = self._writer.segments.code(segment)
            self._writer.append(row, pixels)

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

    def count(self) -> int:
        """How many rows all processes have written in this generation; they are not read."""
        paths = list(self.folder.glob(f"{self.generation()}-*.rows"))
        return sum(int(np.fromfile(path, np.int64, 1)[0]) for path in paths)

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

    def read(self) -> tuple[RawSketches, NDArray[np.int64]]:
        """What all processes have written in this generation: sketches, and pixel counts `[3, 256]`.

        Raises:
            OSError: If the folder cannot be read.
        """
        total, pixels = self._empty(0), np.zeros((3, 256), np.int64)
        for number, path in enumerate(sorted(self.folder.glob(f"{self.generation()}-*.rows"))):
            sketches, counts = self._read_one(path, number)
            total.merge(sketches)
            pixels += counts
        return total, pixels

    def _read_one(self, path: Path, number: int) -> tuple[RawSketches, NDArray[np.int64]]:
        head, buffer = _mapped(path, self._width, self._capacity, create=False)
        for _ in range(_TRIES):
            before = head[:_HEAD].copy()
            written, folded = int(before[_WRITTEN]), int(before[_FOLDED])
            sketches = self._empty(number)  # each process has random decisions of its own
            saved, sketched = path.with_suffix(".npz"), 0
            if saved.exists():
                with np.load(saved, allow_pickle=False) as arrays:
                    state = dict(arrays)
                sketched = int(state.pop("folded"))
                sketches.restore(state)
            rows, pixels = np.array(buffer[sketched - folded : written - folded]), _copy_of(head, written).copy()
            if sketched < folded or int(head[_FOLDED]) != folded or int(head[_WRITTEN]) != written:
                continue  # it was written to meanwhile
            words = path.with_suffix(".words").read_text(encoding="utf-8").splitlines()
            sketches.update(rows, [json.loads(word) for word in words])
            return sketches, pixels.reshape(3, 256)
        raise OSError(f"{path} is written to faster than it can be read")


def _mapped(path: Path, width: int, capacity: int, *, create: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The head of a process's file and its buffer `[capacity, width]`. The file has its full size from the start."""
    head = 8 * (_HEAD + 2 * _PIXELS)
    if create:
        with path.open("xb") as file:
            _allocate(file, head + 4 * width * capacity)
    memory = np.asarray(np.memmap(path, np.uint8, "r+" if create else "r"))  # a memmap's views take their time
    return memory[:head].view(np.int64), memory[head:].view(np.float32).reshape(capacity, width)


def _allocate(file: Any, size: int) -> None:
    """Make a file this large for good: a disk that is full must raise here, not kill a process that writes later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.write(bytes(size))


def _copy_of(head: NDArray[np.int64], written: int) -> NDArray[np.int64]:
    """The pixel counts that hold after this many rows."""
    start = _HEAD + written % 2 * _PIXELS
    return head[start : start + _PIXELS]
