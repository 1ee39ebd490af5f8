"""How each kind of group takes in a batch: the measures it computes and the sketches it keeps.

A recorder is made from the first batch of its group, which shows the widths and settles how the batch is to be read.
That first look may wait for an accelerator; `update` never does.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from lensai_integrations.arrays import Array, local, namespace
from lensai_integrations.errors import InputError
from lensai_integrations.group import Group, Sketch
from lensai_integrations.measures.embeddings import REDUCTIONS, RandomProjection, embedding_definition, reduce_embedding
from lensai_integrations.measures.images import CONVENTIONS, image_measures, measure_images_and_bytes
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import (
    LABEL,
    LABEL_VALUE,
    NO_CLASS,
    TOP_CLASS,
    Kind,
    Task,
    measure_outputs,
    output_measures,
    pick_output,
    resolve,
)
from lensai_integrations.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.sketches.counts import PixelCounts
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments

#: Wider embeddings keep variances and no covariance matrix: 1024 columns are 8 MB.
MAX_COVARIANCE_DIM = 1024

#: Rows of one batch by name, for the joint sample.
Rows = dict[str, Array]


class Recorder(Protocol):
    """Measures the batches of one group and keeps its sketches."""

    group: Group

    def update(self, batch: Any) -> Rows:
        """Take in one batch; the rows for the joint sample, by name."""
        ...


class Settings:
    """What all recorders of a profiler share, and what the first batches decided.

    Args:
        inputs: How to read image batches.
        convention: Convention of the image measures.
        task: What the outputs are for.
        k: Size of the KLL sketches.
        max_dim: Wider embeddings are projected to this width.
        seed: Integers all seeds are derived from.
        like: A profile whose ways of reading and sketching are taken over.
    """

    def __init__(
        self,
        *,
        inputs: ImageInputs,
        convention: str,
        task: Task | Kind,
        k: int,
        max_dim: int,
        seed: Sequence[int],
        like: Profile | None,
    ) -> None:
        self.inputs, self.convention, self.task, self.k, self.max_dim = inputs, convention, task, k, max_dim
        self.seed, self.like = list(seed), like
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.resolved_inputs: ImageInputs | None = None
        self.resolved_kind: Kind | None = None
        if like is not None:
            self._take_over(like)

    def _take_over(self, like: Profile) -> None:
        inputs, outputs = like.groups.get("inputs"), like.groups.get("outputs")
        if inputs is not None:
            self.convention = inputs.info["convention"]
            if self.inputs == ImageInputs():
                self.inputs = ImageInputs(**inputs.info["reader"])
        if outputs is not None and self.task == "auto":
            self.task = outputs.info["kind"]

    def described(self, group: str) -> dict[str, Any]:
        """What is known of a group beforehand: what was said of it, else what the profile to be alike says."""
        known = self.like.groups.get(group) if self.like is not None else None
        taken_over = {key: known.info[key] for key in ("layer", "reduce", "axes") if key in known.info} if known else {}
        return taken_over | self.descriptions.get(group, {})

    def output_task(self, group: str, columns: int) -> Task | Kind:
        """What the outputs are for. What a linear layer answers for classes are logits, even if all lie in [0, 1]."""
        classes = self.task == "classification" or (self.task == "auto" and columns > 1)
        return "logits" if classes and self.described(group).get("linear", False) else self.task

    def seed_of(self, name: str) -> int:
        """A seed for one sketch: the same in every run, different for every sketch."""
        return int(np.random.SeedSequence([*self.seed, zlib.crc32(name.encode())]).generate_state(1)[0])

    def vectors(self, name: str, dim: int) -> dict[str, Sketch]:
        """The sketches of rows that are looked at as vectors."""
        known = self.like.groups.get(name) if self.like is not None else None
        exponents = known.kernel_mean.exponents if known is not None and known.kernel_mean is not None else None
        return {
            "bank": KLLBank(dim, self.k, seed=self.seed_of(name)),
            "kernel_mean": KernelMean(dim, exponents=exponents),
            "moments": Moments(dim, covariance=dim <= MAX_COVARIANCE_DIM),
        }


class Inputs:
    """Image measures and exact pixel counts."""

    def __init__(self, name: str, batch: Any, settings: Settings) -> None:
        if settings.resolved_inputs is None:
            settings.resolved_inputs = settings.inputs.resolve(batch)
        self._reader, self._convention = settings.resolved_inputs, settings.convention
        images = self._reader.read(batch)
        definitions = image_measures(images.channels, self._convention)
        streams = tuple(definitions)
        info = {"note": images.note, "convention": self._convention, "reader": asdict(self._reader)}
        info["size"] = f"{images.height}x{images.width}"
        sketches: dict[str, Sketch] = {"bank": KLLBank(len(streams), settings.k, seed=settings.seed_of(name))}
        sketches["pixels"] = PixelCounts(images.channels)
        self.group = Group(
            name, streams, {**definitions, "pixel": CONVENTIONS[self._convention].pixel.id}, sketches, info
        )

    def update(self, batch: Any) -> Rows:
        """Measure one batch of images."""
        images = self._reader.read(batch)
        _, rows, pixels = measure_images_and_bytes(images, self._convention)
        self.group.sketches["bank"].update(rows)  # type: ignore[attr-defined]
        self.group.sketches["pixels"].update(pixels)  # type: ignore[attr-defined]
        return {self.group.name: rows}


class Outputs:
    """Probabilities and confidences of a classifier, or values."""

    def __init__(self, name: str, batch: Any, settings: Settings) -> None:
        outputs = pick_output(batch)
        if settings.resolved_kind is None:
            settings.resolved_kind = resolve(outputs, settings.output_task(name, math.prod(outputs.shape[1:])))
        self._kind = settings.resolved_kind
        measured = measure_outputs(outputs, kind=self._kind)
        columns = math.prod(outputs.shape[1:])
        definitions = output_measures(columns, self._kind)
        sketches = settings.vectors(name, len(measured.names))
        if measured.top_class is not None:
            sketches["categories/top_class"] = Categories()
            definitions["top_class"] = TOP_CLASS
        info = {"kind": self._kind, "columns": columns, **settings.described(name)}
        self.group = Group(name, measured.names, definitions, sketches, info)

    def update(self, batch: Any) -> Rows:
        """Measure one batch of outputs."""
        measured = measure_outputs(pick_output(batch), kind=self._kind)
        _update_vectors(self.group, measured.rows)
        rows = {self.group.name: measured.rows}
        if measured.top_class is not None:
            self.group.sketches["categories/top_class"].update(_classes(measured.top_class))  # type: ignore[attr-defined]
            rows[f"{self.group.name}/top_class"] = _column(measured.top_class)
        return rows


class Embedding:
    """A layer's answers, reduced to `[n, D]` if they are not yet, and projected where they are too wide."""

    def __init__(self, name: str, batch: Array, settings: Settings) -> None:
        described: dict[str, Any] = {"axes": len(batch.shape), "reduce": "mean"} | settings.described(name)
        self._reduce = described["reduce"]
        width = int(self._reduced(batch).shape[1])
        self._projection = RandomProjection(width, settings.max_dim) if width > settings.max_dim else None
        dim = min(width, settings.max_dim)
        info = {**described, "width": dim, "projected_from": width if self._projection else None}
        if self._projection is not None:
            info["seed"] = self._projection.seed
        reduce = self._reduce if self._reduce in REDUCTIONS else str  # any function is a custom one
        definition = embedding_definition(described["axes"], reduce, projected=self._projection is not None)
        streams = tuple(map(str, range(dim)))
        self.group = Group(name, streams, {"*": definition}, settings.vectors(name, dim), info)

    def update(self, batch: Array) -> Rows:
        """Take in one batch of embeddings."""
        rows = self._reduced(batch)
        if self._projection is not None:
            rows = self._projection.project(rows)
        _update_vectors(self.group, rows)
        return {self.group.name: rows}

    def _reduced(self, batch: Array) -> Array:
        if len(batch.shape) == 2:
            return local(batch)
        if self._reduce not in REDUCTIONS:
            raise InputError(f"this embedding was reduced by the function {self._reduce}: pass its answers, [n, D]")
        return reduce_embedding(batch, self._reduce)


class Labels:
    """Classes as categories, numbers as a stream."""

    def __init__(self, name: str, batch: Any, settings: Settings) -> None:
        labels = _label_array(batch)
        if _is_number(labels):
            sketches: dict[str, Sketch] = {"bank": KLLBank(1, settings.k, seed=settings.seed_of(name))}
            self.group = Group(name, ("value/0",), {"value": LABEL_VALUE}, sketches)
        else:
            self.group = Group(name, (), {"*": LABEL}, {"categories/": Categories()})
        self.group.info |= settings.described(name)

    def update(self, batch: Any) -> Rows:
        """Take in one batch of labels."""
        labels = _label_array(batch)
        if self.group.bank is not None:
            rows = labels.reshape((-1, 1))
            self.group.bank.update(rows)
            return {self.group.name: rows}
        self.group.categories[""].update(labels)
        return {} if isinstance(labels, list) else {self.group.name: _column(labels)}


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


def _label_array(batch: Any) -> Array:
    """Labels as an array of classes or numbers `[n]`, or a list of strings."""
    if isinstance(batch, list | tuple) and batch and isinstance(batch[0], str):
        return list(batch)
    labels = local(batch)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return namespace(labels).argmax(labels, axis=1)
    if labels.ndim not in (1, 2):
        raise InputError(f"labels must be [n] or [n, C], got shape {tuple(labels.shape)}; pass one label per image")
    return labels.reshape((-1,))


def _is_number(labels: Array) -> bool:
    return not isinstance(labels, list) and bool(namespace(labels).isdtype(labels.dtype, "real floating"))


def _classes(top_class: Array) -> Array:
    """Without the rows that are not valid; on an accelerator, where leaving out would wait, they stay as class -1."""
    return top_class[top_class != NO_CLASS] if isinstance(top_class, np.ndarray) else top_class


def _column(values: Array) -> Array:
    """Classes `[n]` as float32 `[n, 1]`."""
    xp = namespace(values)
    return xp.astype(values, xp.float32)[:, None]
