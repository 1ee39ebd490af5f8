"""Some image files, measured by one process: what a pool's worker does.

Small images of one size are measured together, which takes a tenth of the time that it takes one by one. Large ones are
measured as they are read, so that no more than one of them lies in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.errors import InputError
from lensai_integrations.measures.inputs import Images
from lensai_integrations.measures.pixels import are_bytes
from lensai_integrations.problems import pass_on
from lensai_integrations.profiles.names import segment_name
from lensai_integrations.raw.columns import Columns
from lensai_integrations.raw.metadata import FILE, answered, exif_of, file_of
from lensai_integrations.raw.reading import Delivered, read
from lensai_integrations.raw.segments import NO_SEGMENT
from lensai_integrations.raw.workers import stay_on_one_core

#: Pixels up to which an image waits for others of its size.
_SMALL: Final = 1 << 14


@dataclass
class Chunk:
    """What came of some files: rows `[n, width]`, their categories' names, pixel counts, the names of the segments that
    metadata puts the rows in, what could not be read, and what else went wrong first, as `RawSketches.warnings` takes
    it."""

    rows: NDArray[np.float32]
    words: list[str] = field(default_factory=list)
    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    segments: list[str | None] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)


@dataclass
class _ImageFile:
    """What is known of a file, and either its pixels or what was measured of them."""

    known: dict[str, Any]
    delivered: Delivered | None
    measures: NDArray[np.float32] | None = None


def measure_chunk(columns: Columns, paths: Sequence[str]) -> Chunk:
    """Read and measure some files.

    Args:
        columns: Of the rows.
        paths: Of the files.
    """
    stay_on_one_core()
    chunk = Chunk(np.zeros((0, columns.width), np.float32))
    files: list[_ImageFile] = []
    for path in paths:
        try:
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
    return chunk


def _read(path: str, columns: Columns, chunk: Chunk) -> tuple[_ImageFile, Any]:
    """A file, measured unless it is small, and its pixel counts, 0 if it is not measured yet."""
    from PIL import Image

    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        image.load()
        delivered = read(image)
        exif = [name for name in columns.metadata[len(FILE) :] if name not in columns.functions]
        known = {**file_of(delivered), **exif_of(delivered, exif)}
        known |= {name: answered(function, image) for name, function in columns.functions.items()}
    images = delivered.images
    if images.height * images.width <= _SMALL and are_bytes(images.pixels, images.gain, images.offset):
        return _ImageFile(known, delivered), 0
    measures, pixels, errors = columns.measured(delivered)
    _note(chunk, "custom", errors)
    return _ImageFile(known, None, measures[0]), pixels


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
    rows, counts, errors = columns.measured(Delivered(images, "RGB"))
    _note(chunk, "custom", errors)
    for file, row in zip(files, rows, strict=True):
        file.measures = row
    return counts


def _row(file: _ImageFile, columns: Columns, codes: dict[str, int], chunk: Chunk) -> NDArray[np.float32]:
    assert file.measures is not None
    values = [file.known.get(name) for name in columns.metadata]
    row, problems = columns.row(file.measures, values, lambda word: codes.setdefault(word, len(codes)))
    failed = {name: repr(each) for name, each in file.known.items() if isinstance(each, Exception)}
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
