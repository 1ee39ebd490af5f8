"""The arguments of `BaselineCallback` in every framework: documented, with their defaults, and checked.

A monitor's passes and dry runs read batches and layers in the same way and make no baseline: `Reading` is what all
share, `Profiling` what makes a profile, `Options` what a baseline needs besides.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from pathlib import Path
from typing import Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import COMMON, check_numbers, check_seconds, documented, plain
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.embeddings import Reduce, check_reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import KINDS, TASKS
from lensai_integrations.mlflow.address import checked_path
from lensai_integrations.profiles.conventions import checked_conventions, readers_by_name
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, checked_segment_by
from lensai_integrations.profiling.labels import Place

#: The kinds of passes.
SOURCES = ("validation", "training", "test", "prediction")
#: One more validation pass at the end of a fit, with the weights that it leaves.
FINAL = "final"
REFERENCES = (*SOURCES, FINAL)
TRAININGS = ("inputs", "all", None)
#: When this program began, as far as it matters here. It goes with the options into the processes that it starts.
_BEGINNING: Final = time.time()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How batches and layers are read.

    Args:
        layers: Layers whose answers are profiled as embeddings, by name; `"fc.input"` is what goes into `fc`. `"auto"`:
            what goes into the last layer before the model's answer; of several heads, of each. None: no embeddings.
        inputs: How image batches are read. `"auto"`: dtype, shape and range of the first batch decide; if the model is
            fed several images of a batch (two cameras, a pair), each is a group `inputs/<name>`. None: no images.
            `ImageInputs(key=...)` names the images among several inputs, `{"left": ImageInputs(), "right":
            ImageInputs(key=...)}` names several.
        outputs: The layer whose answers are the model's outputs. `"auto"`: what the model returns in evaluation;
            several heads are several outputs. None: no outputs.
        target: Key or place of the labels, or a tuple of these for what is nested, e.g. `(1, "species")`. `"auto"`: the
            usual names and places, if these leave one. None: no labels.
        reference: Which pass is the reference: `"validation"`, `"training"`, `"test"` or `"prediction"`.
        reduce: How a layer's answer becomes one vector per image: `"mean"`, `"max"`, `"cls"`, `"flatten"` or a
            function; or a dict of these by layer.
        segment_by: Keeps a profile for each value beside the whole: `"label"`, or the name of something else that is
            known of every image. Labels on an accelerator are waited for, once in some hundred rows. None: no segments.

    Raises:
        InputError: If an argument is not one of those accepted.
    """

    layers: str | Sequence[str] | None = "auto"
    inputs: str | ImageInputs | Mapping[str, Any] | None = "auto"
    outputs: str | None = "auto"
    target: Place | Mapping[str, Place | None] | None = "auto"
    reference: str = "validation"
    reduce: Reduce | Mapping[str, Reduce] = "mean"
    segment_by: str | None = None

    def __post_init__(self) -> None:
        for argument in fields(self):
            object.__setattr__(self, argument.name, plain(getattr(self, argument.name)))
        object.__setattr__(self, "target", as_place(self.target))
        _check_layers(self.layers)
        _check_one_of("reference", self.reference, REFERENCES)
        _check_kind("outputs", self.outputs, (str, type(None)), "'auto', a layer name or None")
        for inputs in self.inputs.values() if self.by_pass else [self.inputs]:  # type: ignore[union-attr]
            if inputs not in ("auto", None):
                _check_inputs(inputs)
        for target in _by_source("target", self.target):
            _check_target(target)
        for reduce in self.reduce.values() if isinstance(self.reduce, Mapping) else [self.reduce]:
            check_reduce(reduce)

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
        inputs = self.inputs.get(source if source in SOURCES else self.reference_source, "auto")
        return readers_by_name(inputs) if isinstance(inputs, Mapping) else inputs

    def target_of(self, source: str) -> Place | None:
        """The place of the labels in the batches of a kind of pass; in those of a dry run as in the reference."""
        if not isinstance(self.target, Mapping):
            return self.target
        return self.target.get(source if source in SOURCES else self.reference_source, "auto")

    def reduce_of(self, layer: str) -> Reduce:
        """How a layer's answers become vectors."""
        return self.reduce.get(layer, "mean") if isinstance(self.reduce, Mapping) else self.reduce


@documented(COMMON)
@documented(Reading)
@dataclass(frozen=True, kw_only=True)
class Profiling(Reading):
    """How batches and layers are read, and what profiles are made of them.

    Args:
        convention: Or both, `("lensai", "lensai-edge")`, for a baseline that servers and devices can be held against
            (see `Profiler`).

    Raises:
        InputError: If an argument is not one of those accepted.
    """

    task: str | Mapping[str, str] = "auto"
    convention: str | Sequence[str] = "lensai"
    measures: Sequence[CustomMeasure] = ()
    k: int = 200
    rows: int = 2000
    max_dim: int = 2048
    max_segments: int = DEFAULT_SEGMENTS
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for task in self.task.values() if isinstance(self.task, Mapping) else [self.task]:
            _check_one_of("task", task, (*TASKS, *KINDS))
        checked_conventions(self.convention)
        checked_measures(self.measures)
        checked_segment_by(self.segment_by, self.max_segments)
        if self.segment_by == "label" and self.target is None:
            raise InputError("segment_by='label' needs labels: leave target='auto', or name their place in the batch")
        check_numbers(k=self.k, rows=self.rows, max_dim=self.max_dim, seed=self.seed)


@documented(Profiling)
@dataclass(frozen=True, kw_only=True)
class Options(Profiling):
    """What a `BaselineCallback` is asked for.

    Args:
        inputs: A dict by `"training"`, `"validation"` and `"test"` says it for each kind of pass; those that it lacks
            are `"auto"`.
        target: A dict says it for each kind of pass, as for `inputs`.
        reference: Or `"final"`: one more validation pass at the end of fit, with the weights that it leaves.
        training: What is profiled of training batches: `"inputs"` (and labels), `"all"` (layers too), or None.
        every: Of how many training batches one is profiled; which of them, the seed says. The reference is always
            whole.
        cost: What share of training time may go into profiling training batches, such as 0.02; what they cost is
            measured, and one in `every`, twice as many and so on is profiled for it. Runs that are repeated, and ranks,
            may choose otherwise.
        clean_windows: How many clean windows of each size are drawn from the kept rows at the end, for `compare` to
            hold the false-alarm rate asked for; 0 for none. With a layer of 512 columns 1,000 take some 10 seconds.
        artifact_path: Directory of the artifacts in the MLflow run. Two callbacks need two.
        directory: Folder to save to, where the latest fit replaces what was there. By default `lensai_baseline`, with
            an MLflow run `lensai_baseline-<its id>`; each further fit of this program (a fold, a trial) has one of its
            own, `lensai_baseline-2` and so on.
        dataloader_idx: Which of several validation (or test) loaders is the reference.
        upload_deadline: Seconds that each MLflow server gets.
        since: Unix time at which the program began that asked.

    Raises:
        InputError: If an argument is not one of those accepted.
    """

    training: str | None = "inputs"
    every: int = 1
    cost: float | None = None
    clean_windows: int = 1000
    artifact_path: str = "lensai"
    directory: str | Path | None = None
    dataloader_idx: int = 0
    upload_deadline: float = 60.0
    since: float = field(default_factory=lambda: _BEGINNING, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_one_of("training", self.training, TRAININGS)
        check_numbers(every=self.every, clean_windows=self.clean_windows, dataloader_idx=self.dataloader_idx)
        _check_cost(self.cost)
        if self.thins and self.training is None:
            raise InputError(f"{self.thinning} is of training batches, of which training=None profiles none")
        if self.thins and self.reference == SOURCES[1]:
            raise InputError(f"{self.thinning} is of a training profile beside the reference, which is always whole")
        if 0 < self.clean_windows < 100:
            raise InputError(f"clean_windows={self.clean_windows!r} are too few to calibrate: pass 0, or 100 or more")
        checked_path(self.artifact_path)
        check_seconds("upload_deadline", self.upload_deadline)

    @property
    def thins(self) -> bool:
        """Whether not all training batches are to be profiled."""
        return self.every > 1 or self.cost is not None

    @property
    def thinning(self) -> str:
        """What says so, as it was written."""
        asked = [f"every={self.every}"] if self.every > 1 else []
        return " and ".join([*asked, f"cost={self.cost}"] if self.cost is not None else asked)


def _check_cost(cost: Any) -> None:
    if cost is None:
        return
    if isinstance(cost, bool) or not isinstance(cost, Real) or not 0 < float(cost) < 1:
        raise InputError(f"cost={cost!r} should be a share of training time between 0 and 1, such as 0.02, or None")


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


def _check_one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> None:
    if value not in accepted:
        raise InputError(f"{name}={value!r} is unknown; pass {', '.join(map(repr, accepted[:-1]))} or {accepted[-1]!r}")


def _check_kind(name: str, value: Any, kinds: tuple[type, ...], accepted: str) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{name}={value!r} should be {accepted}")


def _by_source(name: str, value: Any) -> list[Any]:
    """The values of an argument that may be given for each kind of pass."""
    if not isinstance(value, Mapping):
        return [value]
    unknown = [key for key in value if key not in SOURCES]
    if unknown or not value:
        raise InputError(f"{name}={value!r} has {unknown}: as a dict it takes {', '.join(map(repr, SOURCES))}")
    return list(value.values())


def unread_reductions(reduce: Reduce | Mapping[str, Reduce], read: Collection[str]) -> str:
    """What is to be said of reductions of layers that are not read; nothing if there are none.

    Example:
        >>> unread_reductions({"avg": "max", "fc": "mean"}, ["fc"])
        "reduce has ['avg'], but the layers that are read are ['fc']"
    """
    unused = sorted(reduce.keys() - {*read}) if isinstance(reduce, Mapping) else []
    return f"reduce has {unused}, but the layers that are read are {sorted(read)}" if unused else ""


def as_place(target: Any) -> Any:
    """The place of labels with tuples for lists, which files have in their place; of a dict, of each of its values."""
    if isinstance(target, Mapping):
        return {key: as_place(place) for key, place in target.items()}
    return tuple(target) if isinstance(target, list) else target


def _check_target(target: Any) -> None:
    accepted = "'auto', a key, a place in the batch, a tuple of these for what is nested, or None"
    for step in target if isinstance(target, tuple) and target else [target]:
        _check_kind("target", step, (int, str, type(None)) if step is target else (int, str), accepted)
