"""The arguments of `BaselineCallback`, checked where they are given."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lensai_integrations.conventions import checked_conventions, readers_by_name
from lensai_integrations.errors import InputError
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.embeddings import Reduce, check_reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import KINDS, TASKS
from lensai_integrations.mlflow.address import checked_path
from lensai_integrations.segments import checked_segment_by
from lensai_integrations.training.labels import Place

#: The kinds of passes.
SOURCES = ("validation", "training", "test", "prediction")
#: One more validation pass at the end of a fit, with the weights that it leaves.
FINAL = "final"
REFERENCES = (*SOURCES, FINAL)
TRAININGS = ("inputs", "all", None)
#: When this program began, as far as it matters here. It goes with the options into the processes that it starts.
_BEGINNING: Final = time.time()
_NUMBERS = {
    "k": (8, 65535),
    "rows": (0, 2**24),
    "max_dim": (1, 2**24),
    "clean_windows": (0, 100_000),
    "seed": (0, 2**63 - 1),
    "dataloader_idx": (0, None),
}


@dataclass(frozen=True)
class Options:
    """What `BaselineCallback` was asked for; see there.

    Attributes:
        since: Unix time at which the program began that asked.

    Raises:
        InputError: If an argument is not one of those accepted.
    """

    layers: str | Sequence[str] | None
    inputs: str | ImageInputs | Mapping[str, Any] | None
    outputs: str | None
    task: str | Mapping[str, str]
    target: Place | Mapping[str, Place | None] | None
    reference: str
    training: str | None
    reduce: Reduce | Mapping[str, Reduce]
    convention: str | Sequence[str]
    k: int
    rows: int
    max_dim: int
    clean_windows: int
    seed: int
    artifact_path: str
    directory: str | Path | None
    dataloader_idx: int
    upload_deadline: float
    measures: Sequence[CustomMeasure] = ()
    segment_by: str | None = None
    max_segments: int = 20
    since: float = field(default_factory=lambda: _BEGINNING, compare=False)

    def __post_init__(self) -> None:
        _check_layers(self.layers)
        for task in self.task.values() if isinstance(self.task, Mapping) else [self.task]:
            _check_one_of("task", task, (*TASKS, *KINDS))
        _check_one_of("reference", self.reference, REFERENCES)
        _check_one_of("training", self.training, TRAININGS)
        _check_kind("outputs", self.outputs, (str, type(None)), "'auto', a layer name or None")
        for inputs in self.inputs.values() if self.by_pass else [self.inputs]:  # type: ignore[union-attr]
            if inputs not in ("auto", None):
                _check_inputs(inputs)
        for target in _by_source("target", self.target):
            _check_target(target)
        for reduce in self.reduce.values() if isinstance(self.reduce, Mapping) else [self.reduce]:
            check_reduce(reduce)
        checked_conventions(self.convention)
        checked_measures(self.measures)
        checked_segment_by(self.segment_by, self.max_segments)
        if self.segment_by == "label" and self.target is None:
            raise InputError("segment_by='label' needs labels: leave target='auto', or name their place in the batch")
        for name, (low, high) in _NUMBERS.items():
            _check_number(name, getattr(self, name), low, high)
        if 0 < self.clean_windows < 100:
            raise InputError(f"clean_windows={self.clean_windows!r} are too few to calibrate: pass 0, or 100 or more")
        checked_path(self.artifact_path)
        if not self.upload_deadline > 0:
            raise InputError(f"upload_deadline={self.upload_deadline!r} must be a positive number of seconds")

    @property
    def by_pass(self) -> bool:
        """Whether `inputs` says for each kind of pass how its images are read, and not for each of several inputs."""
        return isinstance(self.inputs, Mapping) and bool(self.inputs) and set(self.inputs) <= set(SOURCES)

    @property
    def reference_source(self) -> str:
        """The kind of pass that the reference is of."""
        return SOURCES[0] if self.reference == FINAL else self.reference

    def inputs_of(self, source: str) -> str | ImageInputs | Mapping[str, ImageInputs] | None:
        """How images of a kind of pass are read, of several inputs by name; those of a dry run as in the reference."""
        if isinstance(self.inputs, Mapping) and not self.by_pass:
            return readers_by_name(self.inputs)
        if not isinstance(self.inputs, Mapping):
            return self.inputs
        given = self.inputs.get(source if source in SOURCES else self.reference_source, "auto")
        return readers_by_name(given) if isinstance(given, Mapping) else given

    def target_of(self, source: str) -> Place | None:
        """The place of the labels in the batches of a kind of pass; in those of a dry run as in the reference."""
        if not isinstance(self.target, Mapping):
            return self.target
        return self.target.get(source if source in SOURCES else self.reference_source, "auto")

    def reduce_of(self, layer: str) -> Reduce:
        """How a layer's answers become vectors."""
        return self.reduce.get(layer, "mean") if isinstance(self.reduce, Mapping) else self.reduce


def _check_inputs(inputs: Any) -> None:
    if isinstance(inputs, Mapping) and set(inputs) & set(SOURCES):
        raise InputError(
            f"inputs={inputs!r} mixes kinds of passes and names of image inputs: pass either, or for a kind of pass a"
            " dict by names"
        )
    _check_kind(
        "inputs", inputs, (ImageInputs, Mapping), "'auto', ImageInputs(...) or None, or a dict of ImageInputs by name"
    )
    readers_by_name(inputs)


def _check_layers(layers: Any) -> None:
    if layers is None or layers == "auto":
        return
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not all(isinstance(name, str) for name in layers):
        raise InputError(f"layers={layers!r} should be 'auto', a list of layer names such as ['avgpool'], or None")
    if len(set(layers)) < len(layers):
        raise InputError(f"layers={layers!r} names a layer twice")


def _check_one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r} is unknown; pass {', '.join(map(repr, known[:-1]))} or {known[-1]!r}")


def _check_kind(name: str, value: Any, kinds: tuple[type, ...], accepted: str) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{name}={value!r} should be {accepted}")


def _by_source(name: str, given: Any) -> list[Any]:
    """The values of an argument that may be given for each kind of pass."""
    if not isinstance(given, Mapping):
        return [given]
    unknown = [key for key in given if key not in SOURCES]
    if unknown or not given:
        raise InputError(f"{name}={given!r} has {unknown}: as a dict it takes {', '.join(map(repr, SOURCES))}")
    return list(given.values())


def _check_target(target: Any) -> None:
    accepted = "'auto', a key, a place in the batch, a tuple of these for what is nested, or None"
    for step in target if isinstance(target, tuple) and target else [target]:
        _check_kind("target", step, (int, str, type(None)) if step is target else (int, str), accepted)


def _check_number(name: str, value: Any, low: int, high: int | None) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low or (high is not None and value > high):
        raise InputError(f"{name}={value!r} should be a whole number from {low}{'' if high is None else f' to {high}'}")
