"""A folder of images as one profile: in parallel, going on where it was left, past whatever cannot be read.

Files are measured in chunks by worker processes, which send back rows, not images; the rows are sketched here in the
order of the files, so the profile is the same with any number of workers. Now and then the state is saved: how many
files are done, and the sketches. A run over the same files with the same settings goes on from there.

Within a chunk small images of one size are measured together, which takes a tenth of the time that it takes one by one.
Large ones are measured as they are read, so that no more than one of them lies in memory.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError, MissingDependencyError
from lensai_integrations.measures.arguments import COMMON, documented
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.inputs import Images
from lensai_integrations.measures.outputs import LABEL
from lensai_integrations.measures.pixels import are_bytes
from lensai_integrations.problems import log, pass_on
from lensai_integrations.profiles.conventions import single_convention
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, segment_name
from lensai_integrations.profiles.names import LABEL as SEGMENT_BY_LABEL
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.image_reading import (
    FILE,
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
    NO_SEGMENT,
    RAW,
    Columns,
    RawSketches,
    SegmentNames,
    checked_stream,
    stay_on_one_core,
    with_segments,
)
from lensai_integrations.profiling.sampling import (
    SAMPLED,
    WHOLE,
    about,
    checked_budget,
    in_words,
    level_of_files,
    levels_of_files,
)
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.state import State
from lensai_integrations.storage.folders import replace_file
from lensai_integrations.storage.npz import pack, unpack

#: Pixels up to which an image waits for others of its size.
_SMALL: Final = 1 << 14
#: What an image's file is called, of those too that Pillow needs a plugin for: they count as files that cannot be read.
SUFFIXES: Final = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2",
    ".jfif", ".avif", ".heic", ".heif",
)  # fmt: skip
#: Files that one process measures before it reports; seconds between two saved states; unreadable files that are named.
CHUNK, SAVE_EVERY, MOST_NAMED = 32, 10.0, 1000
#: Chunks that are tried out for how long measuring takes; in the first libraries load.
_TRIED: Final = 3
_STATE: Final = "resume.npz"
_INFO: Final[dict[str, Any]] = {"note": "files, RGB"}


@documented(COMMON, only=("measures", "convention", "k", "rows", "max_segments"))
def profile_files(
    source: str | Path,
    *,
    jobs: int | None = None,
    metadata: Mapping[str, Metadata] | None = None,
    exif: Sequence[str] = (),
    measures: Sequence[CustomMeasure] = (),
    convention: str | Sequence[str] | None = None,
    k: int = 200,
    rows: int = 2000,
    seed: int = 0,
    segment_by: str | None = None,
    max_segments: int = DEFAULT_SEGMENTS,
    labels: bool = True,
    budget: float | None = None,
    limit: int | None = None,
    source_name: str = "files",
    name: str = RAW,
    resume: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Profile:
    """Profile the images of a folder as they are in their files: groups `raw`, `metadata/...`, and labels.

    Files that cannot be read are left out, counted in the profile's warnings and listed in its info as `unreadable`. If
    every image lies in a folder of the folder, the folders are the labels, as in torchvision's `ImageFolder`.

    Args:
        source: A folder, an image, or a pattern.
        jobs: Worker processes; by default as many as there are cores. 0: none.
        metadata: Functions by name, each given Pillow's image, whose `filename` is its path: a number, a category or
            None. With worker processes, functions of a module that these can import.
        exif: What of the files' EXIF data is kept; see `ProfileImages`.
        measures: Each of one number an image; likewise.
        convention: One of them; None is `"lensai"`.
        seed: Of what is random in them.
        segment_by: `"format"`, `"mode"`, a name in `metadata` or `exif`, or `"label"`: also keeps a profile for each
            value.
        labels: Whether the names of folders are labels.
        budget: Share of the time that measuring may take, the rest being reading; by default all files are measured.
            All are read, so those that cannot be are counted; of more than 2,000 a share is measured, 2,000 or more,
            drawn by their place in the order.
        limit: Only so many files, the first in their order.
        source_name: What the profile says it is of.
        name: Of the images' group.
        resume: A folder to save the state to, and to go on from if there is one; removed at the end.
        progress: Called with the number of files done and of all.

    Raises:
        InputError: If there are no images, none can be read, or not all have a label that they are to be told apart by.
        MissingDependencyError: If Pillow is not installed.

    Example:
        >>> from lensai_integrations.profiling.image_files import profile_files
        >>> profile_files("photos", jobs=2).groups["raw"].n  # doctest: +SKIP
        1000
    """
    _check_pillow()
    measured_by = single_convention(convention)
    functions, measures, budget = checked_metadata(metadata), checked_measures(measures), checked_budget(budget)
    root, paths = images_in(source)
    paths = paths[:limit]
    kept = (*FILE, *checked_exif(exif), *functions)
    labelled = labels and _have_labels(root, paths)
    by = checked_stream(segment_by, max_segments, kept, labels=labelled)
    columns = Columns(measured_by, kept, measures, by, functions)
    settings = [
        measured_by,
        kept,
        [measure.definition for measure in measures],
        [*map(_source, functions.values())],
        by,
        budget,
    ]
    digest = _digest(root, paths, (*settings, k, rows, seed, max_segments))
    work = _Work(RawSketches(columns, k, [seed], rows), digest, max_segments, name)
    store = Path(resume) / _STATE if resume is not None else None
    if store is not None:
        work.load(store)
    started = saved = time.monotonic()
    progress(work.done, len(paths))
    items: Sequence[Path | OnlyRead] = paths
    if budget is not None and len(paths) > WHOLE:
        levels = levels_of_files(len(paths), seed)
        if work.level is None:
            work.level = level_of_files(levels, budget, *_times(paths, columns, jobs))
        pairs = zip(paths, levels >= work.level, strict=True)
        items = [path if measured else OnlyRead(str(path)) for path, measured in pairs]
    for size, chunk in _chunks(items[work.done :], columns, jobs):
        work.add(root, items[work.done : work.done + size], chunk)
        progress(work.done, len(paths))
        if store is not None and time.monotonic() - saved > SAVE_EVERY:
            work.save(store)
            saved = time.monotonic()
    if store is not None:
        store.unlink(missing_ok=True)
    return work.profile(root, paths, time.monotonic() - started, source_name, labelled=labelled, budget=budget)


def images_in(source: str | Path) -> tuple[Path, list[Path]]:
    """The images of a folder and its folders, or those that a pattern such as `photos/**/*.jpg` finds; sorted.

    In a folder links are followed, and what is hidden (`.ipynb_checkpoints`, `._0001.jpg`) is left out.

    Returns:
        The folder that they are named from, and their paths.

    Raises:
        InputError: If there are none.
    """
    source = Path(source)
    files: Iterable[Path]
    if source.is_dir():
        root, files = source, (path for path in _below(source) if path.suffix.lower() in SUFFIXES)
    elif source.is_file():
        root, files = source.parent, [source]
    else:
        fixed = source.parts
        magic = next((i for i, name_part in enumerate(fixed) if set(name_part) & set("*?[")), len(fixed))
        root = Path(*fixed[:magic]) if magic else Path()
        files = root.glob(str(Path(*fixed[magic:]))) if magic < len(fixed) else ()
    paths = sorted(path for path in files if path.is_file())
    if not paths:
        raise InputError(
            f"no images in {str(source)!r}: pass a folder of {', '.join(SUFFIXES)}, or a pattern in quotes"
        )
    return root, paths


def _below(folder: Path, around: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All that is in a folder and its folders, links followed and hidden names left out."""
    here = folder.resolve()
    if here in around:  # a link that leads back
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _below(path, (*around, here))
        else:
            yield path


class _Work:
    """How far it is, and what came of it."""

    def __init__(self, sketches: RawSketches, digest: str, most: int, name: str = RAW) -> None:
        self._sketches, self._digest, self._most, self._name = sketches, digest, most, name
        self._names = SegmentNames(most)
        self._pixels = np.zeros((3, 256), np.int64)
        self._unreadable: list[tuple[str, str]] = []
        self._causes: dict[str, str] = {}
        self.done = self.resumed = 0
        self.level: int | None = None  # of the share that is measured, once it is decided

    def add(self, root: Path, items: Sequence[Path | OnlyRead], chunk: Chunk) -> None:
        """Take in what came of these files."""
        by = self._sketches.columns.segment_by
        if by is not None:
            paths = [path for path in items if isinstance(path, Path)]
            labels = _folders(root, paths, dict(chunk.unreadable)) if by == SEGMENT_BY_LABEL else chunk.segments
            chunk.rows[:, -1] = [self._names.code(name) for name in labels]
        self._sketches.update(chunk.rows, chunk.words)
        self._pixels += chunk.pixels
        self._unreadable += chunk.unreadable
        self._causes = chunk.causes | self._causes
        self.done += len(items)

    def save(self, path: Path) -> None:
        """Write the state; a run that is cut short while it writes leaves the one before."""
        path.parent.mkdir(parents=True, exist_ok=True)
        about: dict[str, Any] = {
            "digest": self._digest,
            "done": self.done,
            "unreadable": self._unreadable,
            "causes": self._causes,
        }
        about |= {"segments": self._names.names, "level": self.level}
        notes = np.frombuffer(json.dumps(about).encode(), np.uint8)
        state: State = {"__notes__": notes, "__pixels__": self._pixels, **self._sketches.state()}
        replace_file(path, pack(state), sync=False)

    def load(self, path: Path) -> None:
        """Go on from a saved state, if it is of the same files and settings."""
        try:
            state = unpack(path.read_bytes(), str(path))
            notes = json.loads(state.pop("__notes__").tobytes())
            pixels = state.pop("__pixels__")
            if notes["digest"] != self._digest or pixels.shape != (3, 256):
                return
            self._sketches.restore(state)
        except (OSError, KeyError, TypeError, ValueError) as error:
            pass_on(error)
            return
        self._pixels = pixels.astype(np.int64)
        self._unreadable = [(str(path), str(why)) for path, why in notes["unreadable"]]
        self._names = SegmentNames(self._most, list(map(str, notes["segments"])))
        self._causes = {str(what): str(why) for what, why in notes["causes"].items()}
        self.done = self.resumed = int(notes["done"])
        self.level = notes.get("level")

    def profile(
        self,
        root: Path,
        paths: Sequence[Path],
        seconds: float,
        source: str,
        *,
        labelled: bool,
        budget: float | None = None,
    ) -> Profile:
        """What it amounts to.

        Raises:
            InputError: If no file could be read.
        """
        if len(self._unreadable) == len(paths):
            first, why = self._unreadable[0]
            raise InputError(f"none of {len(paths):,} files could be read, the first, {first}: {why}")
        group_info = dict(_INFO)
        if self.level and budget is not None:
            seen = len(paths) - len(self._unreadable)
            group_info[SAMPLED] = about(seen, self._sketches.n, self.level, budget)
            log.warning("%s: %s", self._name, in_words(group_info[SAMPLED]))
        groups, rows = self._sketches.groups(self._pixels, group_info, self._name), self._sketches.rows(self._name)
        labels = _labels(root, paths, {path for path, _ in self._unreadable}) if labelled else None
        if labels is not None:
            groups["labels"] = labels
        info: dict[str, Any] = {"source": source, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        info["warnings"] = []
        if self._unreadable:
            info["warnings"].append(f"{len(self._unreadable):,} of {len(paths):,} files could not be read")
            named = self._unreadable[:MOST_NAMED]
            info["unreadable"] = [[os.path.relpath(path, root), why] for path, why in named]
        failures = self._sketches.warnings(self._name, self._causes)
        for warning in failures:
            log.warning("%s", warning)
        info["warnings"] += failures
        info["images_per_second"] = round((self.done - self.resumed) / max(seconds, 1e-9), 1)
        whole = Profile(groups, rows, info)
        return with_segments(whole, self._sketches, self._names.names, self._name, self._most)


def _have_labels(root: Path, paths: Sequence[Path]) -> bool:
    return all(len(path.relative_to(root).parts) > 1 for path in paths)


def _folders(root: Path, paths: Sequence[Path], without: Container[str] = ()) -> list[str]:
    return [path.relative_to(root).parts[0] for path in paths if str(path) not in without]


def _labels(root: Path, paths: Sequence[Path], without: set[str]) -> Group | None:
    """The folders that the images lie in, if all lie in one."""
    read = [path for path in paths if str(path) not in without]
    if not read or not _have_labels(root, read):
        return None
    labels = Categories()
    labels.update(_folders(root, read))
    return Group("labels", (), {"*": LABEL}, {"categories/": labels}, {"read_from": "the name of the folder"})


def _times(paths: Sequence[Path], columns: Columns, jobs: int | None) -> tuple[float, float]:
    """How long measuring takes and how long reading does, of the first files, in one process."""
    chunks = [chunk for _, chunk in _chunks(paths[: _TRIED * CHUNK], columns, 0 if jobs == 0 else 1)]
    return sum(chunk.measuring for chunk in chunks[1:]), sum(chunk.reading for chunk in chunks[1:])


def _chunks(items: Sequence[Path | OnlyRead], columns: Columns, jobs: int | None) -> Iterator[tuple[int, Chunk]]:
    """What came of the files, in their order, with the number of files."""
    texts = [item if isinstance(item, OnlyRead) else str(item) for item in items]
    parts = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
    jobs = min(len(parts), os.cpu_count() or 1 if jobs is None else jobs)
    measure = partial(measure_chunk, columns)
    if jobs <= 0:
        yield from ((len(chunk_paths), measure(chunk_paths)) for chunk_paths in parts)
        return
    _check_travels(columns)
    done = 0
    while done < len(parts):
        try:
            with _pool(jobs) as pool:
                for chunk in pool.map(measure, parts[done:]):
                    yield len(parts[done]), chunk
                    done += 1
        except BrokenProcessPool:  # a file has killed the process that read it: find out which
            for path in parts[done]:
                yield 1, _alone(columns, path)
            done += 1


def _check_travels(columns: Columns) -> None:
    """Refuse functions that other processes cannot import."""
    try:
        pickle.loads(pickle.dumps(columns))  # noqa: S301  what this process has just made
    except Exception as error:
        pass_on(error)
        raise InputError(
            f"measures= or metadata= has a function that worker processes cannot import ({error}): define it at the top"
            " of a module, or use none: num_workers=0"
        ) from error


def _alone(columns: Columns, item: str | OnlyRead) -> Chunk:
    """What came of a file in a process of its own."""
    try:
        with _pool(1) as pool:
            return pool.submit(measure_chunk, columns, [item]).result()
    except BrokenProcessPool:
        path = item.path if isinstance(item, OnlyRead) else item
        return Chunk(np.zeros((0, columns.width), np.float32), unreadable=[(path, "the process that read it died")])


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _check_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "reading image files needs Pillow: pip install 'lensai-integrations[files]'"
        ) from error


def _source(function: Metadata) -> str:
    """What tells a function from another, as far as that can be told."""
    code = getattr(function, "__code__", None)
    return f"{getattr(function, '__qualname__', type(function).__qualname__)} {code.co_code.hex() if code else ''}"


def _digest(root: Path, paths: Sequence[Path], settings: Any) -> str:
    digest = hashlib.sha256(repr(settings).encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@dataclass
class Chunk:
    """What came of some files: rows `[n, width]`, their categories' names, pixel counts, the names of the segments that
    metadata puts the rows in, what could not be read, what else went wrong first, as `RawSketches.warnings` takes it,
    and how many seconds measuring and all else took."""

    rows: NDArray[np.float32]
    words: list[str] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    segments: list[str | None] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)
    measuring: float = 0.0
    reading: float = 0.0


@dataclass(frozen=True)
class OnlyRead:
    """A file that is read, to see whether it can be, and not measured."""

    path: str


@dataclass
class _ImageFile:
    """What is known of a file, and either its pixels or what was measured of them."""

    known: dict[str, Any]
    delivered: Delivered | None
    measures: NDArray[np.float32] | None = None


def measure_chunk(columns: Columns, items: Sequence[str | OnlyRead]) -> Chunk:
    """Read and measure some files.

    Args:
        columns: Of the rows.
        items: The paths of the files.
    """
    stay_on_one_core()
    began = time.perf_counter()
    chunk = Chunk(np.zeros((0, columns.width), np.float32))
    files: list[_ImageFile] = []
    for item in items:
        path = item.path if isinstance(item, OnlyRead) else item
        try:
            if isinstance(item, OnlyRead):
                _opened(path).close()
                continue
            file, pixels = _read(path, columns, chunk)
        except Exception as error:  # noqa: BLE001  a decoder may raise anything
            pass_on(error)
            chunk.unreadable.append((path, f"{type(error).__name__}: {error}"[:300]))
            continue
        files.append(file)
        chunk.pixels += pixels
    for together in _of_one_size(files):
        chunk.pixels += _measure(together, columns, chunk)
    codes: dict[str, int] = {}
    rows = [_row(file, columns, codes, chunk) for file in files]
    chunk.rows = np.stack(rows) if rows else chunk.rows
    chunk.words = list(codes)
    chunk.segments = [_segment(file.known.get(columns.segment_by or ""), columns, chunk) for file in files]
    chunk.reading = time.perf_counter() - began - chunk.measuring
    return chunk


def _opened(path: str) -> Any:
    """An image with its pixels, Pillow's, to be closed."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        image = Image.open(path)
        try:
            image.load()
        except BaseException:
            image.close()
            raise
    return image


def _measured(delivered: Delivered, columns: Columns, chunk: Chunk) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows and pixel counts."""
    began = time.perf_counter()
    rows, pixels, errors = columns.measured(delivered)
    chunk.measuring += time.perf_counter() - began
    _note(chunk, "custom", errors)
    return rows, pixels


def _read(path: str, columns: Columns, chunk: Chunk) -> tuple[_ImageFile, Any]:
    """A file, measured unless it is small, and its pixel counts, 0 if it is not measured yet."""
    with warnings.catch_warnings(), _opened(path) as image:
        warnings.simplefilter("ignore", UserWarning)
        delivered = read(image)
        exif = [name for name in columns.metadata[len(FILE) :] if name not in columns.functions]
        metadata = {**file_of(delivered), **exif_of(delivered, exif)}
        metadata |= {name: answered(function, image) for name, function in columns.functions.items()}
    images = delivered.images
    if images.height * images.width <= _SMALL and are_bytes(images.pixels, images.gain, images.offset):
        return _ImageFile(metadata, delivered), 0
    measures, pixels = _measured(delivered, columns, chunk)
    return _ImageFile(metadata, None, measures[0]), pixels


def _of_one_size(files: Sequence[_ImageFile]) -> Iterator[list[_ImageFile]]:
    """The files that are not measured yet, by size."""
    sizes: dict[tuple[int, int], list[_ImageFile]] = {}
    for file in files:
        if file.delivered is not None:
            sizes.setdefault((file.delivered.images.height, file.delivered.images.width), []).append(file)
    yield from sizes.values()


def _measure(files: Sequence[_ImageFile], columns: Columns, chunk: Chunk) -> NDArray[np.int64]:
    """Measure small images of one size; their pixel counts."""
    pixels = np.concatenate([file.delivered.images.pixels for file in files if file.delivered is not None])
    images = Images(pixels, (1.0,) * 3, (0.0,) * 3, "NCHW uint8")
    rows, counts = _measured(Delivered(images, "RGB"), columns, chunk)
    for file, row in zip(files, rows, strict=True):
        file.measures = row
    return counts


def _row(file: _ImageFile, columns: Columns, codes: dict[str, int], chunk: Chunk) -> NDArray[np.float32]:
    assert file.measures is not None
    values = [file.known.get(name) for name in columns.metadata]
    row, problems = columns.row(file.measures, values, lambda word: codes.setdefault(word, len(codes)))
    failed = {name: repr(value) for name, value in file.known.items() if isinstance(value, Exception)}
    _note(chunk, "metadata", failed | problems)
    return row


def _segment(value: Any, columns: Columns, chunk: Chunk) -> str | None:
    try:
        return None if isinstance(value, Exception) else segment_name(value)
    except InputError as error:
        _note(chunk, "segments", {"": NO_SEGMENT.format(columns.segment_by, error)})
        return None


def _note(chunk: Chunk, kind: str, causes: Mapping[str, str]) -> None:
    for name, cause in causes.items():
        chunk.causes.setdefault(f"{kind}/{name}" if name else kind, cause)
