"""Plain loops: a profiler beside a module, for evaluation and training loops that have no callbacks.

The hooks are those of a monitor (`watching.py`), what is read and how is decided as in a fit (`training/fit.py`). Which
layer makes the answer, and what feeds it, the first forward pass shows; no loss is seen, so labels and values tell what
the answer means.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Literal, Self

import torch
from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.meaning import UNSEEN
from lensai_integrations.measures.wrapped import Names, class_names_of
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, LABEL, OUTPUTS, is_outputs
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.batch_reading import BatchReader, Taken, image_inputs
from lensai_integrations.torch.answer import ADVICE, Answer, Readout
from lensai_integrations.torch.finding import named_taps
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.torch.matching import is_sharded
from lensai_integrations.torch.recording import aside, padding_of
from lensai_integrations.torch.taps import heads_in
from lensai_integrations.torch.trace import placed_tensors
from lensai_integrations.torch.watching import Passed, Watch, check_module, labels_in, rows_of
from lensai_integrations.training.fit import TRAINING, Preparer
from lensai_integrations.training.options import SOURCES, Profiling, unread_reductions
from lensai_integrations.training.recording import LAYER, Listened, Recording
from lensai_integrations.training.weights import WEIGHTS

#: The topic of what is said of the model's answer.
_TOPIC: Final = "the model's answer"
_CHANGED: Final = (
    "the model's weights changed while this was recorded, so it belongs to no weights: open profiled(...) around one"
    " evaluation alone, the last one, and not around the training"
)

_NO_SEGMENTS: Final = (
    "segment_by={!r}, but of some images it was not told, and they are in no segment of their own: pass it, as in"
    " `with profiler.batch(labels=..., segments=...):`"
)


@documented(Profiling)
def profiled(
    model: nn.Module,
    layers: Literal["auto"] | Sequence[str] | None = "auto",
    *,
    loader: Any = None,
    source: Literal["validation", "training", "test", "prediction"] = "validation",
    inputs: Literal["auto"] | ImageInputs | Mapping[str, ImageInputs] | None = "auto",
    outputs: str | None = "auto",
    task: str | Mapping[str, str] = "auto",
    reduce: Reduce | Mapping[str, Reduce] = "mean",
    convention: str | Sequence[str] = "lensai",
    measures: Sequence[CustomMeasure] = (),
    k: int = 200,
    rows: int = 2000,
    max_dim: int = 2048,
    segment_by: str | None = None,
    max_segments: int = DEFAULT_SEGMENTS,
    seed: int = 0,
) -> Profiled:
    """Profile what a module is fed and what it answers, as long as the context is open, in a loop of any kind.

    Every forward pass of the module in eval mode counts; with `source="training"` every one in training mode. The
    module computes bit for bit what it computes otherwise, and nothing that fails in here stops the loop: it is logged
    once, and the profile's `warnings` say what is missing. Labels, which the module is not given, go with the rows of
    the passes in the block of `profiler.batch(labels=...)`; where `forward` takes them by a usual name, as Hugging
    Face's models do, they are read there. In several processes each has the profile of its own rows; `Profile.merge`
    joins them.

    Args:
        model: The module that the loop calls, as it is called there: prepared by Accelerate or Fabric, wrapped for
            several devices, compiled. To compile it, call `torch.compile` before.
        layers: Of training batches none, unless they are named.
        loader: What the batches come from, if it is at hand: a normalisation in its data set is undone, its class names
            are shown, delivered images join, and rows that a distributed sampler repeats are left out.
        source: What is profiled.
        inputs: The key names an argument of `forward`, or is one of the dict that it is given.
        outputs: Of training batches none, unless it is named.
        task: No loss is seen here, so name it where neither labels nor values tell several labels of an image from one
            class.
        segment_by: Such a name is that of what `batch(segments=...)` is given.

    Returns:
        A context whose `profile()` is the profile of the rows so far. Opened again, it begins anew.

    Raises:
        InputError: If an argument is wrong, or the model has no layer of a given name.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
        >>> with torch.no_grad(), profiled(model) as profiler:
        ...     for images, labels in [(torch.rand(20, 3, 8, 8), torch.arange(20) % 3)]:
        ...         with profiler.batch(labels=labels):
        ...             logits = model(images)
        >>> {name: group.n for name, group in profiler.profile().groups.items()}
        {'inputs': 20, 'outputs': 20, 'embeddings/1.input': 20, 'labels': 20}
    """
    check_module(model)
    if source not in SOURCES:
        raise InputError(f"source={source!r} is unknown: pass {', '.join(map(repr, SOURCES[:-1]))} or {SOURCES[-1]!r}")
    if source == TRAINING:
        layers, outputs = (None if asked == "auto" else asked for asked in (layers, outputs))  # type: ignore[assignment]
    options = Profiling(
        layers=layers, inputs=inputs, outputs=outputs, task=task, reference=source, reduce=reduce,
        convention=convention, measures=measures, k=k, rows=rows, max_dim=max_dim, segment_by=segment_by,
        max_segments=max_segments, seed=seed,
    )  # fmt: skip
    return Profiled(model, options, source, loader)


class Profiled(Watch):
    """A profiler beside a module; see `profiled`."""

    def __init__(self, model: nn.Module, options: Profiling, source: str, loader: Any) -> None:
        self._options, self._source, self._loader = options, source, loader
        search = "mean" if isinstance(options.reduce, Mapping) else options.reduce
        auto = "auto" in (options.layers if isinstance(options.layers, str) else "", options.outputs)
        training = source == TRAINING
        taps = named_taps(model, options)
        read = {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
        if options.layers not in (None, "auto") and (problem := unread_reductions(options.reduce, read)):
            raise InputError(problem)
        super().__init__(model, taps, whole=False, search=search if auto else None, training=training)
        self._start = (list(self.layers), dict(self._taps), self._search)
        self._lock = threading.RLock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        layers, self._taps, self._search = list(self._start[0]), dict(self._start[1]), self._start[2]
        self.layers = [replace(layer, info=dict(layer.info)) for layer in layers]
        self._whole, self._finding = False, threading.Lock()
        connected = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if connected else 0
        self._problems = Problems(quiet=rank != 0)
        self._preparer = Preparer(self._options, self._problems, rank=rank, reader=self._reader)
        prepare = self._preparer.prepare(self._source)
        self._recording = Recording(self._source, prepare, self.layers, self._problems, aside=aside)
        self._wrong_mode: tuple[str, str] | None = None
        self._weights: SampledWeights | None = None
        self._versions: tuple[int, ...] = ()
        self._changed, self._sharded = False, is_sharded(self._module)
        self._class_names: Names = ()
        self._profile: Profile | None = None
        self._taken = -1
        self._handed = 0

    def _reader(self, loader: Any) -> BatchReader:
        """Reads images; labels are told, or found by their name."""
        options = self._options
        readers = image_inputs(options.inputs_of(self._source), loader, self._problems)
        self._class_names = class_names_of(loader)
        return BatchReader(
            readers, None, self._problems, source=self._source,
            several=isinstance(options.inputs_of(self._source), str),
        )  # fmt: skip

    def __enter__(self) -> Self:
        if not self._hooks:
            self._begin_anew()
        self._open()
        with self._caught("starting, so nothing is recorded"):
            self._recording.start(self._loader, padding_of(self._loader))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        with self._caught(WEIGHTS):
            if self._recorded and self._weights is not None and not self._changed:
                self._changed = SampledWeights(self._core).weights() != self._weights.weights()
        if error is None and not self._recorded and self._wrong_mode is not None:
            self._say(*self._wrong_mode)

    def profile(self) -> Profile:
        """What was recorded since the context was opened, in host memory. Waits for the accelerator, once.

        Its `warnings` say what is missing. Where nothing could be recorded, it is empty.
        """
        with self._lock:
            if self._profile is not None and self._taken == self._handed:
                return self._profile
            profile = self._profile or Profile(info={"source": self._source, "warnings": []})
            if self._handed:
                profile = self._preparer.finished(self._source, self._recording, **self._weights_info()) or profile
                self._recording.started = bool(self._hooks)
            changed = [_CHANGED] if self._changed else []
            profile.info["warnings"] = [*profile.warnings, *self._problems.messages, *changed]
            self._profile, self._taken = profile, self._handed
            return profile

    # What `Watch` asks for.

    def _caught(self, topic: str) -> AbstractContextManager[Any]:
        return self._problems.caught(_TOPIC if topic == "watch layers" else topic.removeprefix("watch "))

    def _in_other_mode(self, what: str, advice: str) -> None:
        """Between evaluations there is training: it is said at the end, if there was nothing else."""
        self._wrong_mode = what, advice

    def _take(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        with self._caught(WEIGHTS):
            self._look_at_weights()
        batch = self._batch(args, kwargs)
        key, labels = labels_in(batch)
        with self._lock:
            self._recording.hint_images({path for path, _ in placed_tensors(batch) if path[-1:] != (key,)})
            taken = self._recording.take(batch)
        return taken or Taken(None, None, None), key, None if labels is None else labels.detach().clone()

    def _batch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the module is given, as a batch: by name, or the one thing alone."""
        named = self._named(args, kwargs)
        inputs = self._options.inputs_of(self._source)
        readers = inputs.values() if isinstance(inputs, Mapping) else [inputs]
        keys = [reader.key for reader in readers if isinstance(reader, ImageInputs)]
        if len(args) == 1 and not kwargs and not any(key in named for key in keys if isinstance(key, str)):
            return args[0]
        return named or (dict(kwargs) if not args else (*args, *kwargs.values()))

    def _hand(self, passed: Passed, labels: Any, segments: Any) -> None:
        with self._lock:
            taken, key, own_labels = passed.given or (Taken(None, None, None), "", None)
            place = None
            if labels is None and own_labels is not None:
                place, labels = key, own_labels
            known_of_images = {"labels": labels, "place": place, "segments": segments, "class_names": self._class_names}
            taken = replace(taken.settled(), **known_of_images)
            if labels is None:
                for layer in self.layers:
                    if is_outputs(layer.key):
                        layer.info.setdefault("loss", UNSEEN)
            if segments is None and self._options.segment_by not in (None, LABEL):
                self._problems.note("segments", _NO_SEGMENTS.format(self._options.segment_by))
            self._handed += 1
            self._recording.record(taken, lambda: passed.answers)

    def _found(self, answer: Answer) -> tuple[dict[str, Readout], list[str]]:
        options, readouts = self._options, dict[str, Readout]()
        if options.outputs == "auto":
            readouts |= {f"{OUTPUTS}/{name}" if name else OUTPUTS: readout for name, readout in answer.outputs.items()}
        if options.layers == "auto":
            readouts |= {LAYER + name: readout for name, readout in answer.embeddings.items()}
            if problem := unread_reductions(options.reduce, answer.embeddings):
                self._problems.note("reduce", problem)
        return readouts, answer.problems if options.layers == "auto" else answer.without_embeddings()

    def _reduce_of(self, name: str) -> Reduce:
        return self._options.reduce_of(name)

    def _advice(self) -> str:
        if self._options.outputs != "auto":
            return ADVICE.replace("outputs= and ", "")
        return ADVICE if self._options.layers == "auto" else ADVICE.replace(" and layers=[...]", "")

    def _look_at_weights(self) -> None:
        """Remember which weights these are, and see whether they change; only then is the device waited for."""
        if self._training or self._changed or self._sharded:
            return
        versions = _versions_of(self._module)
        if versions == self._versions:
            return
        self._versions, sample = versions, SampledWeights(self._core)
        if self._weights is None:
            self._weights = sample
        else:
            self._changed = sample.weights() != self._weights.weights()

    def _weights_info(self) -> dict[str, Any]:
        weights = self._weights.weights() if self._weights is not None and not self._changed else None
        return {} if weights is None else {WEIGHTS: weights.to_json()}

    def _cannot_find(self, why: str) -> None:
        """What the module returns is its answer; what feeds it is not known."""
        self._whole = self._options.outputs == "auto"
        if self._options.layers == "auto":
            raise InputError(
                f"{why}, so what goes into its last layer is not known: pass layers=[...], with names, or layers=None"
            )

    def _answered(self, answer: Any, *, copied: bool) -> dict[str, Any]:
        heads = heads_in(answer, copies=True)
        if heads.problem:
            raise InputError(heads.problem)
        outputs = {f"{OUTPUTS}/{name}" if name else OUTPUTS: rows for name, rows in heads.tensors.items()}
        keys = {layer.key for layer in self.layers}
        for key, rows in outputs.items():
            if key not in keys:
                info = {"auto": True, "layer": "", "linear": False, "columns": rows[0].numel()}
                self.layers.append(Listened(key, "the model", info | {"found": "what the model returned"}))
        return outputs

    def _rows(self, taken: Any, kept: Mapping[str, Any]) -> int:
        return rows_of(None if taken is None else taken[0].images, kept)


def _versions_of(model: nn.Module) -> tuple[int, ...]:
    """A number for every parameter and running statistic that changes whenever it is written to."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
    statistics = [tensor for norm in norms for tensor in (norm.running_mean, norm.running_var) if tensor is not None]
    return tuple(
        id(tensor) ^ (0 if tensor.is_inference() else tensor._version) for tensor in (*model.parameters(), *statistics)
    )
