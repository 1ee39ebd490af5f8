"""Images as they are delivered: any process measures them, and the process that asks gets one profile of all.

A `Collector` turns an image into a row and appends it to its `Ledger`, a folder that several processes write to and one
reads: nothing is lost when a writer dies, waits or goes its own way.

The folder holds a file for every process that has written: data-loader workers, however they were started, and the main
process itself. The file is mapped into memory, so what a killed process wrote is there still. Only its own process
writes to it, so nothing is locked. One number, the count of rows, is stored last and makes a row count; the pixel
counts, which belong to the same row, lie in two copies of which that number says which one holds.

When the file's buffer is full, the writer sketches its rows, saves the sketches beside the file, and begins again at
its top. So a process keeps a few megabytes, however long it runs and whether or not anybody reads.

Segments have the same numbers in every process: their names are files of the folder, one for each number, and whoever
links a file there first has named that number, for all. A process that is killed leaves no name half written.

`reset` begins a new generation: a number in a file that writers look at before every row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import secrets
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError, told
from lensai_integrations.measures.arguments import COMMON, documented
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems, pass_on, suppressed
from lensai_integrations.profiles.conventions import single_convention
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, segment_name
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.image_reading import (
    FILE,
    NAME,
    Delivered,
    Metadata,
    answered,
    checked_exif,
    checked_metadata,
    exif_of,
    file_of,
    read,
)
from lensai_integrations.profiling.raw_rows import (
    IMAGES,
    METADATA,
    MOST_CATEGORIES,
    NO_SEGMENT,
    OTHER_CATEGORY,
    RAW,
    Columns,
    RawSketches,
    SegmentNames,
    checked_stream,
    stay_on_one_core,
    with_segments,
)

#: Rows in the buffer of a process.
CAPACITY: Final = 4096
_PIXELS: Final = 3 * 256
#: What the head of a file says, in this order, before the two copies of the pixel counts.
_WRITTEN, _FOLDED, _HEAD = 0, 1, 8
_GENERATION: Final = "generation"
_TRIES: Final = 1000
#: Makes empty sketches, given numbers that make their random decisions differ.
Empty = Callable[[int], RawSketches]
#: All collectors of this process that are still in use.
_ALIVE: weakref.WeakSet[Collector] = weakref.WeakSet()
#: Different problems that a process tells of: each may name another value.
_MOST_NOTES: Final = 100
_TAKEN = ("inputs", "outputs", "labels", "embeddings", "metadata")


@documented(COMMON, only=("measures", "convention", "k", "rows", "max_segments"))
class Collector:
    """Measures delivered images, in whatever process, and gives their profile.

    It goes through pickle as a path and its settings; what was collected stays in the folder, which is removed with the
    object that made it. A deep copy collects for itself.

    Args:
        name: Of the group.
        metadata: Functions by the name of what they give.
        exif: What of a file's EXIF data is kept; nothing by default, since it may identify people.
        inputs: How arrays are read that are no bytes and not inside [0, 1].
        measures: Each of one number an image.
        convention: One of them; None is `"lensai"`.
        seed: Of what is random in them.
        segment_by: A name of metadata or of EXIF data, `"mode"`, `"format"`, or `"label"`: a profile for each value.
        labels: Whether labels are given with the images.
        capacity: Rows that a process keeps before it sketches them.

    Raises:
        InputError: If an argument is not one of these.

    Example:
        >>> collector = Collector()
        >>> collector.add(np.zeros((8, 6, 3), np.uint8))
        >>> collector.profile().groups["raw"].n
        1
    """

    def __init__(
        self,
        *,
        name: str = RAW,
        metadata: Mapping[str, Metadata] | None = None,
        exif: Sequence[str] = (),
        inputs: ImageInputs | None = None,
        measures: Sequence[CustomMeasure] = (),
        convention: str | Sequence[str] | None = None,
        k: int = 200,
        rows: int = 2000,
        seed: int = 0,
        segment_by: str | None = None,
        max_segments: int = DEFAULT_SEGMENTS,
        labels: bool = True,
        capacity: int = CAPACITY,
    ) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in _TAKEN:
            raise InputError(f"name={name!r} should be up to 64 letters, digits, '.', '_' and '-', and not {_TAKEN}")
        self.metadata = checked_metadata(metadata)
        if inputs is not None and not isinstance(inputs, ImageInputs):
            raise InputError(f"inputs={inputs!r} should be ImageInputs(...): of several images a sample, one by key=")
        self.name, self.inputs, self._exif = name, inputs, checked_exif(exif)
        self._k, self._rows, self._seed = k, rows, seed
        kept = (*FILE, *self._exif, *self.metadata)
        by = checked_stream(segment_by, max_segments, kept, labels=labels)
        self.columns = Columns(single_convention(convention), kept, checked_measures(measures), by)
        self._capacity, self._most = capacity, max_segments
        self._noted, self._problems = Problems(most=_MOST_NOTES), Problems(most=_MOST_NOTES)
        self._begin()

    def _begin(self) -> None:
        """Collect in a new folder, which is this object's own."""
        folder = Path(tempfile.mkdtemp(prefix="lensai-raw-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        empty = partial(_empty, self.columns, self._k, self._rows, self._seed)
        most = 0 if self.columns.segment_by is None else self._most
        self._ledger = Ledger(folder, self.columns.width, empty, self._capacity, most)
        _ALIVE.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _ALIVE.add(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Collector:
        result = object.__new__(type(self))
        memo[id(self)] = result
        result.__dict__.update(self.__dict__)
        result._noted, result._problems = Problems(most=_MOST_NOTES), Problems(most=_MOST_NOTES)
        result._begin()
        return result

    def add(self, image: Any, sample: Any = None, label: Any = None) -> None:
        """Take in one image, or several of one size. Whatever goes wrong is logged once and counts as an invalid row.

        Args:
            image: What `image_reading.read` reads.
            sample: What the functions of the metadata are given; the image itself by default.
            label: For `segment_by="label"`.
        """
        try:
            measures, pixels, delivered = self._measured(image)
            values = self._values(delivered, image if sample is None else sample)
            for i, measure in enumerate(measures):
                row_values = [_of_row(value, i, len(measures)) for value in values]
                segment = self._segment(row_values, _of_row(label, i, len(measures)))
                self._ledger.append(partial(self._row, measure, row_values, pixels if i == 0 else 0 * pixels), segment)
        except Exception as error:  # noqa: BLE001  whatever a user's image or disk does, the pipeline goes on
            pass_on(error)
            self._note("not profiled", f"{self.name}: an image was not profiled: {told(error)}")

    def _measured(self, image: Any) -> tuple[Any, Any, Delivered | None]:
        try:
            stay_on_one_core()
            delivered = read(image, self.inputs)
            if delivered.remark:
                self._note(f"{self.name}: {delivered.remark}")
            rows, pixels, errors = self.columns.measured(delivered)
            for name, error in errors.items():
                self._note(f"custom/{name}", error, f"the custom measure {name!r} failed: {error}")
            return rows, pixels, delivered
        except Exception as error:  # noqa: BLE001
            pass_on(error)
            why = told(error)
            self._note(IMAGES, why, f"{self.name}: an image could not be measured and counts as invalid: {why}")
            width = len(self.columns.streams) + len(self.columns.custom)
            return np.full((1, width), np.nan, np.float32), np.zeros((3, 256), np.int64), None

    def _values(self, delivered: Delivered | None, sample: Any) -> list[Any]:
        facts = {} if delivered is None else {**file_of(delivered), **exif_of(delivered, self._exif)}
        values = [facts.get(name) for name in (*FILE, *self._exif)]
        for name, function in self.metadata.items():
            value = answered(function, sample)
            if isinstance(value, Exception):
                why = repr(value)
                self._note(METADATA + name, why, f"metadata {name!r} is missing where its function raises: {why}")
            values.append(value)
        return values

    def _segment(self, values: Sequence[Any], label: Any) -> str | None:
        """The name of a row's segment; None for the one of all others."""
        by = self.columns.segment_by
        value = values[self.columns.metadata.index(by)] if by in self.columns.metadata else label
        try:
            return None if isinstance(value, Exception) else segment_name(value)
        except InputError as error:
            self._note(f"{self.name}: {NO_SEGMENT.format(by, error)}")
            return None

    def _row(self, measures: Any, values: Sequence[Any], pixels: Any, code: Callable[[str], int]) -> tuple[Any, Any]:
        row, problems = self.columns.row(measures, values, code)
        for name, why in problems.items():
            self._note(METADATA + name, why, f"metadata {name!r} {why}")
        return row, pixels

    def _note(self, topic: str, problem: str = "", sentence: str = "") -> None:
        """Keep what went wrong for the profile, whichever process makes it, and log it: once, in the main process.

        Args:
            topic: What it is about, see `RawSketches.warnings`; without a problem this is the sentence.
            problem: The first cause.
            sentence: What is logged of it, if the problem alone does not say enough.
        """
        key = topic if problem else re.sub(r"\d+", "0", topic)
        with suppressed(OSError):
            if self._noted.first((self._ledger.generation(), key)):
                self._ledger.note(key, problem or topic)
        if multiprocessing.parent_process() is None:
            self._problems.remark(sentence or problem or topic, key)

    def reset(self) -> None:
        """Forget what was collected. Rows that are on their way in other processes count from here on."""
        self._ledger.reset()

    def profile(self, source: str = "production") -> Profile:
        """What all processes have collected since the last `reset`.

        Args:
            source: What the profile is of.
        """
        sketches, pixels = self._ledger.read()
        groups, rows = sketches.groups(pixels, {"note": "as delivered, RGB"}, name=self.name), sketches.rows(self.name)
        causes = self._ledger.notes()
        warnings = sketches.warnings(self.name, causes)
        for topic, cause in causes.items():  # of processes that leave it to this one
            self._problems.remark(next((warning for warning in warnings if cause in warning), cause), topic)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        info: dict[str, Any] = {"source": source, "created": created, "warnings": warnings}
        return with_segments(Profile(groups, rows, info), sketches, self._ledger.segments(), self.name, self._most)

    @property
    def folder(self) -> str:
        """Where its rows lie: the same for its copies in other processes, and for no other collector."""
        return str(self._ledger.folder)

    @property
    def count(self) -> int:
        """Images that all processes have collected since the last `reset`."""
        return self._ledger.count()


def alive() -> list[Collector]:
    """The collectors of this process that are still in use.

    Example:
        >>> collector = Collector()
        >>> collector in alive()
        True
    """
    return list(_ALIVE)


def _empty(columns: Columns, k: int, rows: int, seed: int, number: int) -> RawSketches:
    return RawSketches(columns, k, [seed, number], rows)


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _of_row(value: Any, i: int, n: int) -> Any:
    """A batch's metadata may be one for each row."""
    return value[i] if isinstance(value, list | tuple | np.ndarray) and len(value) == n else value


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
