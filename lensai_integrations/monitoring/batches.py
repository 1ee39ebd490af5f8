"""A batch of production: everything that belongs to the same images, and the pane that it is measured into.

A batch is read as a model server has it, cut where a window ends, and measured exactly as the baseline was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import is_array, joined, local, shape_of, strings
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import Located, is_picture, locate, separated
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.meaning import check_rows, label_array, labels_given
from lensai_integrations.measures.outputs import heads_of
from lensai_integrations.profiles.alike import check_alike
from lensai_integrations.profiles.conventions import (
    INPUTS,
    chosen_conventions,
    chosen_readers,
    is_images,
    only_delivered,
    with_conventions,
)
from lensai_integrations.profiles.names import OUTPUTS, group_of, head_of, is_labels, is_outputs, labels_by_head
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.image_reading import delivered_images
from lensai_integrations.profiling.measuring import from_list, with_rows
from lensai_integrations.profiling.profiler import Profiler
from lensai_integrations.profiling.settings import chosen_measures

#: A context in which what fails for one group is noted and does not reach the others.
Caught = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Batch:
    """Arrays of the same rows, or None where nothing was given.

    Attributes:
        inputs: Images; of several image inputs, by name.
        outputs: What the model answered: an array, or by head.
        embeddings: By layer.
        labels: Classes or numbers, or these by head.
        segments: Each row's value of what the profile is split by.
        note: What a person should know of how the images were found; empty if nothing.
    """

    inputs: Any = None
    outputs: Any = None
    embeddings: Mapping[str, Any] | None = None
    labels: Any = None
    segments: Any = None
    note: str = ""

    @property
    def names(self) -> list[str]:
        """What is in it, as groups are called.

        Example:
            >>> Batch(labels=[0], embeddings={"pool": [[1.0]]}).names
            ['embeddings/pool', 'labels']
        """
        plain = [name for name in ("inputs", "outputs", "labels") if getattr(self, name) is not None]
        layers = self.embeddings if isinstance(self.embeddings, Mapping) else {} if self.embeddings is None else {"": 0}
        return sorted([*plain, *(f"embeddings/{name}" for name in layers)])

    @property
    def n(self) -> int:
        """Rows, of the longest part.

        Example:
            >>> import numpy as np
            >>> Batch(outputs=np.zeros((5, 2))).n
            5
        """
        arguments = [self.inputs, self.outputs, self.labels, self.segments, *(self.embeddings or {}).values()]
        parts = [
            array
            for argument in arguments
            for array in (argument.values() if isinstance(argument, Mapping) else [argument])
        ]
        return max((_length(array) for array in parts if array is not None), default=0)

    def part(self, start: int, stop: int) -> Batch:
        """Some consecutive rows; the batch itself if that is all of them."""
        if start <= 0 and stop >= self.n:
            return self
        cut = slice(start, stop)
        whole = {key: getattr(self, key) for key in ("inputs", "outputs", "labels", "segments")}
        parts = {key: _cut(value, cut) for key, value in whole.items()}
        layers = None if self.embeddings is None else {name: rows[cut] for name, rows in self.embeddings.items()}
        return Batch(embeddings=layers, **parts, note=self.note)

    def at(self, index: NDArray[np.intp]) -> Batch:
        """The rows with these indices, which ascend.

        Example:
            >>> Batch(labels=["a", "b", "c"]).at(np.array([0, 2])).labels
            ['a', 'c']
        """
        if not len(index):
            return self.part(0, 0)
        ends = np.flatnonzero(np.diff(index) != 1) + 1
        runs = [self.part(int(run[0]), int(run[-1]) + 1) for run in np.split(index, ends)]
        return runs[0] if len(runs) == 1 else _together(runs)


def _together(batches: Sequence[Batch]) -> Batch:
    """Batches with the same parts, one after the other."""
    first = batches[0]
    whole = {
        key: _joined([getattr(batch, key) for batch in batches]) for key in ("inputs", "outputs", "labels", "segments")
    }
    layers = None if first.embeddings is None else _joined([batch.embeddings for batch in batches])
    return Batch(embeddings=layers, **whole, note=first.note)


def _joined(parts: Sequence[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}
    if first is None or is_array(first):
        return None if first is None else joined(list(parts))
    return [row for part in parts for row in part]


def read_batch(batch: Batch, readers: Mapping[str, ImageInputs], reference: Profile, caught: Caught) -> Batch:
    """The arrays of a batch as a model server has it: dicts, tuples, lists of images, or one image or row alone.

    Args:
        batch: What `update` was given.
        readers: How the images of the baseline were read: where in a batch they are, which axes they have; by the name
            of the image input, which of the only one is empty.
        reference: What the baseline knows: how wide a row is.
        caught: Notes what cannot be read; the other parts go on.
    """
    parts: dict[str, Any] = {"segments": batch.segments}
    single = _is_one(batch.labels)
    with caught("inputs"):
        if batch.inputs is not None:
            read_images = _delivered if only_delivered(reference) is not None else partial(_images, caught=caught)
            parts["inputs"], parts["note"], alone = read_images(batch.inputs, readers)
            single = single or alone
    with caught("outputs"):
        if batch.outputs is not None:
            answer = from_list(batch.outputs, OUTPUTS, reference)
            if isinstance(answer, Mapping):  # a number without an axis is a loss, unless the baseline has such a head
                baseline_heads = [head for head in answer if group_of(OUTPUTS, str(head)) in reference.groups]
                answer = {**answer, **{head: _listed(answer[head]) for head in baseline_heads if _is_one(answer[head])}}
            elif _is_one(answer):
                answer, single = _listed(answer), True
            row = with_rows(answer, OUTPUTS, reference)
            heads = _by_name(row, reference)
            read = {head: with_rows(rows, group_of(OUTPUTS, head), reference) for head, rows in heads.items()}
            single = single or row is not answer or any(read[head] is not heads[head] for head in heads)
            read = {head: _row(rows, single) for head, rows in read.items()}
            parts["outputs"] = read.get("", read)
    layers: dict[str, Any] = {}
    with caught("embeddings"):
        if batch.embeddings is not None and not isinstance(batch.embeddings, Mapping):
            raise InputError(
                f"embeddings= is a {type(batch.embeddings).__name__}: pass a dict from the names of layers to their"
                " arrays, such as embeddings={'avgpool': array}"
            )
    arrays = batch.embeddings if isinstance(batch.embeddings, Mapping) else {}
    for layer, rows in arrays.items():
        if rows is None:
            continue
        with caught(f"embeddings/{layer}"):
            rows = rows if is_array(rows) else local(rows)  # noqa: PLW2901
            layers[layer] = _row(with_rows(rows, f"embeddings/{layer}", reference), single)
            single = single or layers[layer] is not rows
    with caught("labels"):
        if batch.labels is not None:
            several = [head for head in _heads_of(parts.get("outputs"), reference) if not single]
            heads = labels_by_head(batch.labels, several)
            heads = {head: labels for head, labels in heads.items() if labels is not None}
            read_labels = _labels(heads.get("", heads), single)
            for labels in read_labels.values() if isinstance(read_labels, Mapping) else [read_labels]:
                check_rows(labels, Batch(parts.get("inputs"), parts.get("outputs"), layers).n)
            parts["labels"] = read_labels or None if isinstance(read_labels, Mapping) else read_labels
    if single and parts["segments"] is not None:
        parts["segments"] = _listed(parts["segments"])
    return replace(Batch(**parts), embeddings=layers or None)


def feeds(reference: Profile) -> dict[str, str]:
    """What an `update` may be given that the baseline has: the argument, by group."""
    arguments: dict[str, str] = {}
    delivered = only_delivered(reference)
    for name in reference.groups:
        kind, _, rest = name.partition("/")
        if is_images(name) or (delivered is not None and name == delivered.name):
            arguments[name] = "inputs=images"
        elif kind == "embeddings":
            arguments[name] = f"embeddings={{{rest!r}: rows}}"
        elif is_outputs(name) or is_labels(name):
            arguments[name] = f"{kind}=..."
    return arguments


def not_held(batch: Batch, reference: Profile) -> str:
    """What is to be said of an update without anything that could be held against the baseline."""
    what = ", ".join(batch.names) or "nothing"
    wanted = " or ".join(dict.fromkeys(feeds(reference).values()))
    return (
        f"an update with {what} had no row that can be held against the baseline, which has"
        f" {', '.join(reference.groups)}: pass update({wanted}), measured as there"
    )


def _images(inputs: Any, readers: Mapping[str, ImageInputs], caught: Caught) -> tuple[Any, str, bool]:
    """Images, or these by the name of their input; what to say of how they were found; whether it is one alone."""
    if "" in readers:
        reader = readers[""]
        return _with_axis(locate(inputs, None if is_array(inputs) else reader.key, reader.layout), reader)
    layouts = {reader.layout for reader in readers.values()}
    layout = layouts.pop() if len(layouts) == 1 else "auto"
    by_input = separated(inputs, {name: reader.key for name, reader in readers.items()}, layout)
    images, notes, alone = {}, [by_input.note], False
    for name, reader in readers.items():
        with caught(group_of(INPUTS, name)):
            if name in by_input.missing:
                raise by_input.missing[name]
            images[name], note, is_alone = _with_axis(locate(by_input.parts[name], None, reader.layout), reader)
            notes.append(note and f"{group_of(INPUTS, name)}: {note}")
            alone = alone or is_alone
    return images or None, "; ".join(filter(None, notes)), alone


def _delivered(inputs: Any, readers: Mapping[str, ImageInputs]) -> tuple[Any, str, bool]:
    """The same of images as they were delivered, of any size and colour mode: one alone as a list of one."""
    (reader,) = readers.values()
    located = delivered_images(inputs, reader)
    images, axes = located.images, 4 if reader.layout == "auto" else len(reader.layout)
    alone = is_picture(images) or (is_array(images) and len(shape_of(images)) < axes)
    return [images] if alone else images, located.note, alone


def _with_axis(located: Located, reader: ImageInputs) -> tuple[Any, str, bool]:
    """Images with an axis for rows, the note, and whether it was one without."""
    images = located.images
    alone = is_array(images) and reader.layout != "auto" and len(shape_of(images)) < len(reader.layout)
    return images[None] if alone else images, located.note, alone


def _by_name(answer: Any, reference: Profile) -> dict[str, Any]:
    """The heads of an answer; one of several that the baseline has keeps its name."""
    heads = heads_of(answer)
    if list(heads) != [""] or not isinstance(answer, Mapping):
        return heads
    names = (str(head) for head, rows in answer.items() if rows is heads[""])
    return {next((name for name in names if group_of(OUTPUTS, name) in reference.groups), ""): heads[""]}


def _heads_of(outputs: Any, reference: Profile) -> list[str]:
    """The heads that labels without names may be of: of the answer, else of the baseline's labels."""
    if isinstance(outputs, Mapping) and len(outputs) > 1:
        return list(outputs)
    return [head_of(group) for group in reference.groups if is_labels(group)]


def _is_one(value: Any) -> bool:
    """Whether it is what belongs to one image, without an axis for rows: a number, a text, or these by head."""
    if isinstance(value, Mapping):
        return bool(value) and all(map(_is_one, value.values()))
    return isinstance(value, str | int | float) or (is_array(value) and not shape_of(value))


def _labels(passed: Any, single: bool) -> Any:
    """Labels as arrays or lists of strings."""
    if isinstance(passed, Mapping):
        return {head: _labels(labels, single) for head, labels in passed.items()}
    labels = _listed(passed) if single else passed
    texts = strings(labels) if all(label is not None for label in labels_given(labels)) else None
    return texts if texts is not None else labels if is_array(labels) else label_array(labels)


def _cut(value: Any, cut: slice) -> Any:
    if isinstance(value, Mapping):
        return {head: rows[cut] for head, rows in value.items()}
    return None if value is None else value[cut]


def _row(rows: Any, single: bool) -> Any:
    """An array of one row, where a single image's has no axis for rows."""
    return rows[None] if single and len(shape_of(rows)) == 1 else rows


def _listed(value: Any) -> Any:
    """One value per row, of one row."""
    if is_array(value):
        return value if len(shape_of(value)) else value[None]
    return list(value) if isinstance(value, list | tuple) else [value]


def _length(rows: Any) -> int:
    return int(shape_of(rows)[0]) if is_array(rows) else len(rows)


class Measuring:
    """Makes profilers that measure as a baseline was measured.

    Args:
        baseline: A baseline, or a profile.
        against: `"reference"`, or `"training"` for the training profile of a baseline.
        inputs: How to read images, of several image inputs by name, see `conventions.chosen_readers`; None for how the
            baseline's were read.
        measures: Custom measures; None for the baseline's, as far as this process has declared them.
        rows: Rows that the sample of a window keeps.
        source: What the profiles say they are of.
        on_error: Told a group and an error when a group cannot take a batch.
        on_note: Told what a reader should know of how batches are read; of every window anew.

    Attributes:
        reference: The profile that windows are held against: of images measured by several conventions, the first.
        readers: Where images are in a batch, and how they are read, by the name of the image input; of the only one it
            is empty.
        source: What the profiles say they are of.
        in_time: Whether rows come as time goes by.

    Raises:
        InputError: If the baseline is none, or has no rows.
    """

    def __init__(
        self,
        baseline: Baseline | Profile,
        *,
        against: str = "reference",
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        measures: Sequence[CustomMeasure] | None = None,
        rows: int = 2000,
        source: str = "production",
        on_error: Callable[[str, Exception], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        whole = _reference(baseline, against)
        self.in_time = True
        self.reference = with_conventions(whole, chosen_conventions(None, whole))
        self.readers = chosen_readers(inputs, whole)
        Profiler(like=self.reference, measures=measures, rows=rows)  # says once what of the baseline is not declared
        declared, _ = chosen_measures(measures, self.reference)
        info = self.reference.info
        segments = {key: info[key] for key in ("segment_by", "max_segments") if info.get(key) is not None}
        self._settings: dict[str, Any] = {"like": self.reference, "measures": declared, "source": source, **segments}
        self._settings["on_note"] = on_note
        self._rows, self._on_error, self.source = rows, on_error, source
        self._last: Profiler | None = None  # what its first images decided holds for the windows that follow

    def check(self, profile: Profile) -> None:
        """Refuse a profile of groups that were measured otherwise than the reference's, or have other streams.

        Raises:
            LensAIError: Naming the group.
        """
        for group in profile.groups.values():
            check_alike(group, self.reference)

    @contextmanager
    def keeping_in_time(self) -> Iterator[None]:
        """A context after which `in_time` is as it was before."""
        before = self.in_time
        try:
            yield
        finally:
            self.in_time = before

    def profiler(self, rows: int | None = None) -> Profiler:
        """A profiler of images that were taken out of their batch.

        Args:
            rows: Rows that its sample keeps, if not as many as a window's.
        """
        decided = self._last.readers if self._last is not None else self.readers
        readers = {name: replace(reader, key=None) for name, reader in decided.items()}
        inputs = readers.get("", readers)
        if rows is None:
            self._last = Profiler(inputs=inputs, rows=self._rows, on_error=self._on_error, **self._settings)
            return self._last
        settings = {key: value for key, value in self._settings.items() if key not in ("segment_by", "max_segments")}
        return Profiler(inputs=inputs, rows=rows, **settings)


def _reference(baseline: Baseline | Profile, against: str) -> Profile:
    if not isinstance(baseline, Baseline | Profile):
        raise InputError(f"baseline is a {type(baseline).__name__}: pass a Baseline, e.g. Baseline.load(folder)")
    if against not in ("reference", "training"):
        raise InputError(f"against={against!r} is unknown: pass 'reference' or 'training'")
    profile = baseline if isinstance(baseline, Profile) else getattr(baseline, against)
    if profile is None or (isinstance(baseline, Profile) and against == "training"):
        raise InputError("against='training', but the baseline holds no training profile: leave `against` away")
    if not profile.n:
        raise InputError("the baseline has seen no rows: profile at least one batch before monitoring against it")
    if not feeds(profile):
        raise InputError(
            f"the baseline has {', '.join(profile.groups)}, and `update` can be given nothing of these: hold profiles"
            " against it with compare(baseline, window), or make one of images, outputs, layers or labels"
        )
    return profile


@dataclass
class OpenPane:
    """Rows on their way to a full pane.

    Attributes:
        number: Of the pane it will be.
        profiler: Measures them.
        earlier: The rows of before a restart.
        rows: How many so far.
        opened: The earliest time of one, seconds since 1970.
        closed: The latest.
        file: Where all of them are on disk; empty if that is not so.
    """

    number: int
    profiler: Profiler
    earlier: Profile | None = None
    rows: int = 0
    opened: float = 0.0
    closed: float = 0.0
    file: str = field(default="", compare=False)

    def take(self, batch: Batch, times: NDArray[np.float64]) -> int:
        """Measure a batch. Groups that cannot be measured as the baseline's are left out.

        Args:
            batch: The rows.
            times: When they came, `[n]` seconds since 1970.

        Returns:
            Rows that were measured: all, or none if no group of the baseline could take them.
        """
        taken = self._measure(batch)
        if taken:
            first, last = float(times.min()), float(times.max())
            self.opened, self.closed = (min(self.opened, first), max(self.closed, last)) if self.rows else (first, last)
            self.rows, self.file = self.rows + taken, ""
        return taken

    def _measure(self, batch: Batch) -> int:
        self.profiler.update(
            inputs=batch.inputs,
            outputs=batch.outputs,
            embeddings=batch.embeddings,
            labels=batch.labels,
            segments=batch.segments,
        )
        return batch.n if self.profiler.held else 0

    def profile(self) -> Profile:
        """All its rows."""
        profile = self.profiler.profile()
        return profile if self.earlier is None else self.earlier.merge(profile) if profile.groups else self.earlier
