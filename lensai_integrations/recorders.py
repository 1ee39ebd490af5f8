"""How each kind of group takes in a batch: the measures it computes and the sketches it keeps.

A recorder is made from the first batch of its group, which shows the widths and settles how the batch is to be read.
That first look may wait for an accelerator; `update` never does.

A batch is taken in in two steps. `measure` computes where the batch lies; `take` hands what came out to the sketches.
Sketches are numpy's or torch's, so what was measured by JAX or TensorFlow on an accelerator has to come to the host in
between: `update` leaves `take` to the caller then, who does it when that no longer waits (see `Profiler`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from lensai_integrations.arrays import Array, namespace
from lensai_integrations.conventions import INPUTS, plain_name
from lensai_integrations.custom_recorder import CustomStreams
from lensai_integrations.group import Group, Sketch
from lensai_integrations.input_range import Range
from lensai_integrations.measures.batches import Found, by_shape, locate, shapes_of
from lensai_integrations.measures.embeddings import REDUCTIONS, embedding_definition
from lensai_integrations.measures.images import CONVENTIONS, image_measures
from lensai_integrations.measures.inputs import HALVES, Images
from lensai_integrations.measures.outputs import (
    LABEL,
    LABEL_VALUE,
    NO_CLASS,
    TOP_CLASS,
    measure_outputs,
    output_measures,
    pick_output,
    resolve,
)
from lensai_integrations.measuring import (
    ImageBatch,
    Measured,
    column,
    embedding_measurer,
    image_measurer,
    label_array,
    output_measurer,
    projection,
    reduced,
)
from lensai_integrations.settings import Settings
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts


class Recorder(ABC):
    """Measures the batches of one group and keeps its sketches.

    Attributes:
        group: The group with its sketches, as far as batches were taken.

    Example:
        >>> recorder = Labels("labels", np.arange(4), Settings(seed=[1]))
        >>> recorder.take(recorder.measure(np.arange(4)))
        >>> recorder.group.categories[""].n
        4
    """

    group: Group

    @abstractmethod
    def measure(self, batch: Any) -> Measured:
        """Measure one batch where it lies. Nothing is waited for, and nothing kept."""

    @abstractmethod
    def take(self, measured: Measured) -> None:
        """Hand what was measured of a batch to the sketches."""

    def update(self, batch: Any) -> Measured:
        """Measure one batch and take it; but what is `in_flight` is left to the caller to take."""
        measured = self.measure(batch)
        if measured.in_flight:
            return measured.sent()
        self.take(measured)
        return measured

    def warnings(self) -> list[str]:
        """What a reader of the profile should know of this group."""
        return []

    def why_left_out(self) -> str:
        """Why rows were not valid, if some were."""
        return "a value was not finite"


class Inputs(Recorder):
    """Image measures and exact pixel counts."""

    def __init__(self, name: str, batch: Any, settings: Settings) -> None:
        shared = ImageBatch.of(batch)
        if settings.resolved_inputs is None:
            settings.resolved_inputs = settings.inputs.resolve(shared.batch)
            _note_choices(shared.batch, settings)
        reader, convention = settings.resolved_inputs, settings.image_groups[name]
        self._reader, self._convention = reader, convention
        alone = replace(reader, key=None)
        self._measure = image_measurer(alone, *settings.image_groups.values())
        found = shared.images(reader.key, reader.layout)
        images = alone.read(by_shape(found)[0][1])
        _note_precision(images, reader.whole, settings)
        definitions = image_measures(images.channels, convention)
        streams = tuple(definitions)
        info = {"note": _note_of(images, found), "convention": convention, "reader": asdict(reader)}
        info["size"] = _size(found, reader.layout)
        if half := next((half for half in HALVES if half in images.note and not images.whole), None):
            info["precision"] = half
        self._range = Range(images, settings.like, name)
        seed = settings.seed_of(plain_name(name))  # the same sketches whether or not there are other conventions
        sketches: dict[str, Sketch] = {"bank": KLLBank(len(streams), settings.k, seed=seed)}
        sketches["pixels"] = PixelCounts(images.channels)
        self.group = Group(name, streams, {**definitions, "pixel": CONVENTIONS[convention].pixel.id}, sketches, info)
        measures = settings.measures if name == INPUTS else ()  # once, with the first convention
        self._custom = CustomStreams(self.group, alone, settings, measures)
        self._notes = settings.notes.get(INPUTS, []) if name == INPUTS else []

    def measure(self, batch: Any) -> Measured:
        """Measure one batch of images, and round or count their pixels."""
        shared, reader = ImageBatch.of(batch), self._reader
        found = shared.measured(self._measure, self._convention, reader.key, reader.layout)
        images, rows = shared.images(reader.key, reader.layout), found.pop("rows")
        self._range.look(images, rows)
        return Measured({self.group.name: rows, **self._custom.measure(images)}, found)

    def take(self, measured: Measured) -> None:
        """Sketch the measures and count the pixels."""
        rows, pixels = measured.rows[self.group.name], self.group.sketches["pixels"]
        self.group.sketches["bank"].update(rows)  # type: ignore[attr-defined]
        if "counts" in measured.rest:
            pixels.add(measured.rest["counts"], measured.rest.get("counted", len(rows)))  # type: ignore[attr-defined]
        else:
            pixels.update(measured.rest["pixels"])  # type: ignore[attr-defined]
        self._custom.take(measured.rows, len(rows))

    def warnings(self) -> list[str]:
        """What was chosen among several readings, what looks like another scale, and which custom measures failed."""
        scale = [] if self.group.invalid else self._range.warnings()
        return [*self._notes, *scale, *self._custom.warnings()]

    def why_left_out(self) -> str:
        """How far pixels reach, and how far they should."""
        return self._range.why()


class Outputs(Recorder):
    """Probabilities and confidences of a classifier, or values."""

    def __init__(self, name: str, batch: Any, settings: Settings) -> None:
        outputs = pick_output(batch)
        if settings.resolved_kind is None:
            settings.resolved_kind = resolve(outputs, settings.output_task(name, math.prod(outputs.shape[1:])))
        kind = settings.resolved_kind
        self._measure = output_measurer(kind)
        measured = measure_outputs(outputs, kind=kind)
        columns = math.prod(outputs.shape[1:])
        definitions = output_measures(columns, kind)
        sketches = settings.vectors(name, len(measured.names))
        if measured.top_class is not None:
            sketches["categories/top_class"] = Categories()
            definitions["top_class"] = TOP_CLASS
        info = {"kind": kind, "columns": columns, **settings.described(name)}
        self.group = Group(name, measured.names, definitions, sketches, info)

    def measure(self, batch: Any) -> Measured:
        """Measure one batch of outputs."""
        found = self._measure(pick_output(batch))
        rows = {self.group.name: found["rows"]}
        if "top_class" not in found:
            return Measured(rows)
        rows[f"{self.group.name}/top_class"] = found["column"]
        return Measured(rows, {"top_class": found["top_class"]})

    def take(self, measured: Measured) -> None:
        """Sketch probabilities, confidences and top classes, or values."""
        _update_vectors(self.group, measured.rows[self.group.name])
        if "top_class" in measured.rest:
            self.group.sketches["categories/top_class"].update(_classes(measured.rest["top_class"]))  # type: ignore[attr-defined]


class Embedding(Recorder):
    """A layer's answers, reduced to `[n, D]` if they are not yet, and projected where they are too wide."""

    def __init__(self, name: str, batch: Array, settings: Settings) -> None:
        described: dict[str, Any] = {"axes": len(batch.shape), "reduce": "mean"} | settings.described(name)
        how, channels_last = described["reduce"], bool(described.get("channels_last", False))
        max_dim = settings.max_dim_of(name)
        self._measure = embedding_measurer(how, channels_last, max_dim)
        width = int(reduced(batch, how, channels_last).shape[1])
        dim = min(width, max_dim)
        info = {**described, "width": dim, "projected_from": width if width > dim else None}
        if width > dim:
            info["seed"] = projection(width, dim).seed
        reduce = how if how in REDUCTIONS else str  # any function is a custom one
        definition = embedding_definition(described["axes"], reduce, projected=width > dim)
        streams = tuple(map(str, range(dim)))
        self.group = Group(name, streams, {"*": definition}, settings.vectors(name, dim), info)

    def measure(self, batch: Array) -> Measured:
        """Reduce and project one batch of embeddings."""
        return Measured({self.group.name: self._measure(batch)})

    def take(self, measured: Measured) -> None:
        """Sketch the components."""
        _update_vectors(self.group, measured.rows[self.group.name])


class Labels(Recorder):
    """Classes as categories, numbers as a stream."""

    def __init__(self, name: str, batch: Any, settings: Settings) -> None:
        labels = label_array(batch)
        if _is_number(labels):
            sketches: dict[str, Sketch] = {"bank": KLLBank(1, settings.k, seed=settings.seed_of(name))}
            self.group = Group(name, ("value/0",), {"value": LABEL_VALUE}, sketches)
        else:
            self.group = Group(name, (), {"*": LABEL}, {"categories/": Categories()})
        self.group.info |= settings.described(name)

    def measure(self, batch: Any) -> Measured:
        """Classes, numbers or strings, one for each row."""
        labels = label_array(batch)
        if self.group.bank is not None:
            return Measured({self.group.name: labels[:, None]})
        return Measured({} if isinstance(labels, list) else {self.group.name: column(labels)}, {"labels": labels})

    def take(self, measured: Measured) -> None:
        """Count the classes, or sketch the numbers."""
        if self.group.bank is not None:
            self.group.bank.update(measured.rows[self.group.name])
        else:
            self.group.categories[""].update(measured.rest["labels"])


def _note_choices(batch: Any, settings: Settings) -> None:
    """Say what the first batch of images did not settle beyond doubt."""
    reader = settings.resolved_inputs
    assert reader is not None
    if note := locate(batch, reader.key, reader.layout).note:
        settings.note(INPUTS, note)
    if "?" in reader.channels and "?" not in settings.inputs.channels:
        known = reader.channels[:3]
        settings.note(
            INPUTS,
            f"images have 4 channels: three are read as {known}, and the fourth, which is not opaque alpha in the first"
            " batch, is not read: nothing that happens in it is seen. Pass"
            f" ImageInputs(channels='{known}A') if it is alpha, or '{known}?' if another band is meant to be left out",
        )


def _note_precision(images: Images, whole: bool | None, settings: Settings) -> None:
    """Say if pixels and the baseline's are not of one precision, and no rounding to whole levels makes them alike."""
    known = settings.like.groups.get(INPUTS) if settings.like is not None else None
    if known is None or whole is not False:
        return
    notes = (images.note, str(known.info.get("note", "")))
    here, there = (next((half for half in HALVES if half in note), "full precision") for note in notes)
    if here != there:
        settings.note(
            INPUTS,
            f"pixels are of {here} here and of {there} in the baseline, and do not lie at whole levels, to which they"
            " could be rounded: noise, sharpness and entropy are not compared. Profile both alike for these",
        )


def _note_of(images: Images, found: Found) -> str:
    return f"a list of {images.note}" if isinstance(found, list) else images.note


def _size(found: Found, layout: str) -> str:
    """Height x width; of images of several sizes, from the smallest to the largest."""
    offset = int(not isinstance(found, list))
    rows = layout.index("H") - 1 + offset
    sizes = [shape[rows : rows + 2] for shape in shapes_of(found)]
    low, high = (tuple(map(end, zip(*sizes, strict=True))) for end in (min, max))
    return f"{low[0]}x{low[1]}" + (f" to {high[0]}x{high[1]}" if low != high else "")


#: The recorder of a group, by the first part of the group's name.
RECORDERS: dict[str, Callable[[str, Any, Settings], Recorder]] = {
    "inputs": Inputs,
    "outputs": Outputs,
    "embeddings": Embedding,
    "labels": Labels,
}


def _update_vectors(group: Group, rows: Array) -> None:
    for key in ("bank", "kernel_mean", "moments"):
        group.sketches[key].update(rows)  # type: ignore[attr-defined]


def _is_number(labels: Array) -> bool:
    return not isinstance(labels, list) and bool(namespace(labels).isdtype(labels.dtype, "real floating"))


def _classes(top_class: Array) -> Array:
    """Without the rows that are not valid; on an accelerator, where leaving out would wait, they stay as class -1."""
    return top_class[top_class != NO_CLASS] if isinstance(top_class, np.ndarray) else top_class
