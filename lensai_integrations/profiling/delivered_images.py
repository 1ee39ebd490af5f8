"""Images as they are delivered: any process measures them, and the process that asks gets one profile of all.

A `Collector` turns an image into a row and appends it to its `Ledger` (`ledger.py`), a folder that several processes
write to and one reads. Of many images it measures as many as its budget allows; which ones says `sampling.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from lensai_integrations.errors import InputError, told
from lensai_integrations.measures.arguments import COMMON, documented
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.one_pass import warm
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
    images_at_once,
    read,
)
from lensai_integrations.profiling.ledger import CAPACITY, Ledger
from lensai_integrations.profiling.raw_rows import (
    IMAGES,
    METADATA,
    NO_SEGMENT,
    RAW,
    Columns,
    RawSketches,
    checked_stream,
    stay_on_one_core,
    with_segments,
)
from lensai_integrations.profiling.sampling import BUDGET, SAMPLED, Sampling, Turn, checked_budget, in_words, too_few

#: All collectors of this process that are still in use.
_ALIVE: weakref.WeakSet[Collector] = weakref.WeakSet()
#: Different problems that a process tells of: each may name another value.
_MOST_NOTES: Final = 100
_TAKEN = ("inputs", "outputs", "labels", "embeddings", "metadata")


@documented(COMMON, only=("measures", "convention", "k", "rows", "max_segments", "budget"))
class Collector:
    """Measures delivered images, in whatever process, and gives their profile.

    It goes through pickle as a path and its settings; what was collected stays in the folder, which is removed with the
    object that made it. A deep copy collects for itself. Making one loads the compiled loop over pixels, which worker
    processes that are forked later share.

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
        budget: See `sampling.py`.
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
        budget: float | None = BUDGET,
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
        self._capacity, self._most, self._budget = capacity, max_segments, checked_budget(budget)
        self._problems = Problems(most=_MOST_NOTES)
        warm()
        self._begin()

    def _begin(self) -> None:
        """Collect in a new folder, which is this object's own."""
        folder = Path(tempfile.mkdtemp(prefix="lensai-raw-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        empty = partial(_empty, self.columns, self._k, self._rows, self._seed)
        most = 0 if self.columns.segment_by is None else self._most
        sampling = None if self._budget is None else Sampling(self._budget, self._seed)
        self._ledger = Ledger(folder, self.columns.width, empty, self._capacity, most, sampling)
        self._noted, self._noted_in = Problems(most=_MOST_NOTES), -1
        _ALIVE.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        _ALIVE.add(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Collector:
        result = object.__new__(type(self))
        memo[id(self)] = result
        result.__dict__.update(self.__dict__)
        result._problems = Problems(most=_MOST_NOTES)
        result._begin()
        return result

    def add(self, image: Any, sample: Any = None, label: Any = None) -> None:
        """Take in one image, or several of one size. Whatever goes wrong is logged once and counts as an invalid row.

        Where the budget leaves it out, it is counted, and nothing is asked of it. Several are measured or left out
        together.

        Args:
            image: What `image_reading.read` reads.
            sample: What the functions of the metadata are given; the image itself by default.
            label: For `segment_by="label"`.
        """
        try:
            turn = self._ledger.begin(images_at_once(image, self.inputs))
            if turn.measured:
                self._take(image, image if sample is None else sample, label, turn)
                self._ledger.end(turn)
        except Exception as error:  # noqa: BLE001  whatever a user's image or disk does, the pipeline goes on
            pass_on(error)
            self._note("not profiled", f"{self.name}: an image was not profiled: {told(error)}")

    def _take(self, image: Any, sample: Any, label: Any, turn: Turn) -> None:
        measures, pixels, delivered = self._measured(image)
        values, n = self._values(delivered, sample), len(measures)
        for i, measure in enumerate(measures):
            row_values = [_of_row(value, i, n) for value in values]
            segment = None if self.columns.segment_by is None else self._segment(row_values, _of_row(label, i, n))
            make = partial(self._row, measure, row_values, None if i else pixels)
            self._ledger.append(make, segment, turn)

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
            return np.full((1, width), np.nan, np.float32), None, None

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
            generation = self._ledger.generation()
            if generation != self._noted_in:
                self._noted, self._noted_in = Problems(most=_MOST_NOTES), generation
            if self._noted.first(key):
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
        sketches, pixels, _, sampled = self._ledger.read()
        about = {"note": "as delivered, RGB", **({SAMPLED: sampled} if sampled else {})}
        groups, rows = sketches.groups(pixels, about, name=self.name), sketches.rows(self.name)
        causes = self._ledger.notes()
        warnings = sketches.warnings(self.name, causes)
        for topic, cause in causes.items():  # of processes that leave it to this one
            self._problems.remark(next((warning for warning in warnings if cause in warning), cause), topic)
        if sampled:
            self._problems.remark(f"{self.name}: {in_words(sampled)}", SAMPLED)
            warnings += too_few(self.name, sampled)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        info: dict[str, Any] = {"source": source, "created": created, "warnings": warnings}
        return with_segments(Profile(groups, rows, info), sketches, self._ledger.segments(), self.name, self._most)

    @property
    def folder(self) -> str:
        """Where its rows lie: the same for its copies in other processes, and for no other collector."""
        return str(self._ledger.folder)

    @property
    def count(self) -> int:
        """Images that were delivered to all processes since the last `reset`, measured or not."""
        return self._ledger.seen()


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
