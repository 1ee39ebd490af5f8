"""A batch of production: everything that belongs to the same images, cut where a window ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from lensai_integrations.arrays import is_array, local, shape_of, strings
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import heads_of

#: A context in which what fails for one group is noted and does not reach the others.
Caught = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Batch:
    """Arrays of the same rows, or None where nothing was given.

    Attributes:
        inputs: Images.
        outputs: What the model answered: an array, or by head.
        embeddings: By layer.
        labels: Classes or numbers, or these by head.
        segments: Each row's value of what the profile is split by.
    """

    inputs: Any = None
    outputs: Any = None
    embeddings: Mapping[str, Any] | None = None
    labels: Any = None
    segments: Any = None

    @property
    def n(self) -> int:
        """Rows, of the longest part.

        Example:
            >>> import numpy as np
            >>> Batch(outputs=np.zeros((5, 2))).n
            5
        """
        own = [self.inputs, self.outputs, self.labels, self.segments, *(self.embeddings or {}).values()]
        parts = [part for each in own for part in (each.values() if isinstance(each, Mapping) else [each])]
        return max((_length(part) for part in parts if part is not None), default=0)

    def part(self, start: int, stop: int) -> Batch:
        """Some consecutive rows; the batch itself if that is all of them."""
        if start <= 0 and stop >= self.n:
            return self
        cut = slice(start, stop)
        whole = {key: getattr(self, key) for key in ("inputs", "outputs", "labels", "segments")}
        parts = {key: _cut(value, cut) for key, value in whole.items()}
        layers = None if self.embeddings is None else {name: rows[cut] for name, rows in self.embeddings.items()}
        return Batch(embeddings=layers, **parts)


def read_batch(given: Batch, reader: ImageInputs, caught: Caught) -> Batch:
    """The arrays of a batch as a model server has it: dicts, tuples, or one image without a batch axis.

    Args:
        given: What `update` was given.
        reader: How the images of the baseline were read: where in a batch they are, which axes they have.
        caught: Notes what cannot be read; the other parts go on.
    """
    parts: dict[str, Any] = {"segments": given.segments}
    single = False
    with caught("inputs"):
        if given.inputs is not None:
            images = _images(given.inputs, reader.key)
            single = len(shape_of(images)) == len(reader.layout) - 1 and reader.layout in ("NCHW", "NHWC", "NHW")
            parts["inputs"] = images[None] if single else images
    with caught("outputs"):
        if given.outputs is not None:
            heads = {head: _row(rows, single) for head, rows in heads_of(given.outputs).items()}
            parts["outputs"] = heads.get("", heads)
    with caught("labels"):
        if given.labels is not None:
            parts["labels"] = _labels(given.labels, single)
    layers: dict[str, Any] = {}
    for layer, rows in (given.embeddings or {}).items():
        with caught(f"embeddings/{layer}"):
            layers[layer] = _row(rows if is_array(rows) else local(rows), single)
    if single and parts["segments"] is not None:
        parts["segments"] = _listed(parts["segments"])
    return replace(Batch(**parts), embeddings=layers or None)


def _images(batch: Any, key: str | int | None) -> Any:
    """The images of a batch; those that were taken out of it already are found as well."""
    return find_images(batch, None if is_array(batch) else key)


def _labels(given: Any, single: bool) -> Any:
    """Labels as arrays or lists of strings."""
    if isinstance(given, Mapping):
        return {head: _labels(labels, single) for head, labels in given.items()}
    labels = _listed(given) if single else given
    texts = strings(labels)
    return texts if texts is not None else labels if is_array(labels) else local(labels)


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


def _length(part: Any) -> int:
    return int(shape_of(part)[0]) if is_array(part) else len(part)
