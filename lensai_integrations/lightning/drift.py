"""`DriftCallback`: a monitor beside `Trainer.predict`, `test` and `validate`.

The way of a batch is that of `BaselineCallback`: opened before the step, its layers caught in the forward pass, closed
after it. There it goes to a `DriftMonitor` (`training/drift.py`) instead of to a profiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self
from weakref import ref

from torch import nn

from lensai_integrations.lightning.base import LightningCallback, bring_back, loaders_of, one_loader, runs_of_loggers
from lensai_integrations.lightning.finish import say
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.monitoring.events import Event, WindowReport
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.problems import Problems, guarded
from lensai_integrations.profiles.names import OUTPUTS, is_outputs
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.profiling.labels import Place
from lensai_integrations.torch.finding import Finder, MatchingFinder, forget_compiled, is_compiled
from lensai_integrations.torch.layers import Layer, find_layer
from lensai_integrations.torch.matching import match, output_layer, weights_here
from lensai_integrations.torch.taps import Tap, Taps
from lensai_integrations.training.drift import DriftOptions, Monitored, Passes
from lensai_integrations.training.fit import PREDICTION, TEST, VALIDATION
from lensai_integrations.training.recording import LAYER

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer


@documented(DriftOptions)
class DriftCallback(LightningCallback):
    """Holds what a model is fed and answers in `predict`, `test` and `validate` against a baseline.

    Inputs, outputs, labels and the layers that the baseline has embeddings of are handed to a `DriftMonitor`, as far as
    the baseline has them. Predictions and metrics are bit for bit what they are without the callback, and nothing that
    fails in here stops a pass. Every window that is not ok is a line in the log, and every pass ends with one more.
    Windows are logged to the MLflow run of each `MLFlowLogger`, else to the active MLflow run, if any.

    On several ranks each monitors its own rows, apart from those that the sampler repeats: it has windows of its own, a
    folder `rank<n>` below `state`, and the name `<name>-rank<n>`. Only the first logs to MLflow. `sinks` hear all of
    them, so give each rank files of its own.

    Args:
        target: They are in the batch.

    Raises:
        InputError: If an argument is wrong.
        LensAIError: If the baseline cannot be loaded.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.random.default_rng(0).normal(size=(100, 3)))
        >>> callback = DriftCallback(Baseline(profiler.profile()), window=50)
        >>> Trainer(callbacks=[callback]).predict(model, photos)  # doctest: +SKIP
        >>> callback.reports_
        []
    """

    def __init__(
        self,
        baseline: Baseline | str | Path | None = None,
        *,
        window: Any = 200,
        stride: int | None = None,
        warn: float | None = 0.05,
        alarm: float = 0.01,
        sinks: Sequence[Sink | Callable[[Event], Any]] = (),
        state: str | Path | None = None,
        name: str = "production",
        layers: Sequence[str] | Mapping[str, str] | None = None,
        outputs: str | bool = True,
        reduce: Mapping[str, Reduce] | Reduce | None = None,
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        target: Place | None = "auto",
        flush: bool = True,
        log_to_mlflow: bool = True,
        monitor: DriftMonitor | None = None,
        **settings: Any,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__()
        self._passes = Passes(DriftOptions(**arguments))
        self._fit: _DriftFit | None = None
        self._source, self._loader = "", 0
        self._resting: _Resting | None = None

    _of_a_fit = MappingProxyType({"_fit": None, "_source": "", "_loader": 0, "_resting": None})

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._passes = Passes(self._passes.options)
        return copied

    @property
    def reports_(self) -> list[WindowReport]:
        """The windows of the last pass on this rank, oldest first, at most 1000; those that are ok have no profile.

        Of ranks that the trainer spawned or forked they are the first one's.
        """
        return list(self._passes.reports)

    @property
    def monitor_(self) -> DriftMonitor | None:
        """The monitor: its `status` counts what it saw and what went wrong. None before the first pass."""
        return self._passes.monitor

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a pass."""
        self._begin(TEST, trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a pass."""
        self._begin(PREDICTION, trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a pass, unless it belongs to a fit."""
        if trainer.state.fn == "validate":
            self._begin(VALIDATION, trainer, pl_module)

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Open a batch."""
        self._open(trainer, batch, dataloader_idx)

    on_predict_batch_start = on_validation_batch_start = on_test_batch_start

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Close a batch: hand it to the monitor."""
        self._close(outputs)

    on_predict_batch_end = on_validation_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Judge the rows that are left."""
        self._end()
        if trainer.global_rank == 0:
            with Problems().caught("bringing the windows back to the process that spawned this one"):
                bring_back(trainer, self._name, _passes=self._passes)

    on_predict_end = on_validation_end = on_test_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The pass failed: say so to the monitor."""
        self._end(exception)

    def _begin(self, source: str, trainer: Trainer, pl_module: LightningModule) -> None:
        self._fit = None
        with Problems().caught("starting, so nothing is monitored"):
            self._fit = _DriftFit(self._passes, trainer.global_rank, trainer.world_size)
        self._start(source, trainer, pl_module)

    @guarded("starting the pass, so nothing is monitored")
    def _start(self, source: str, trainer: Trainer, pl_module: LightningModule) -> None:
        fit = self._this_fit
        rank, size = trainer.global_rank, trainer.world_size
        active = self._active(trainer)
        runs = (runs_of_loggers(trainer) or ([active] if active else [])) if rank == 0 else []
        self._passes.begin(fit.problems, runs=runs, rank=rank, world_size=size)
        self._passes.check_weights("torch", lambda: weights_here(pl_module))
        self._attach(pl_module)
        fit.record(source, everything=True)
        self._source, self._loader = source, 0
        fit.recordings[source].start(one_loader(loaders_of(trainer, source), 0))

    def _attach(self, model: LightningModule) -> None:
        """Hooks on the layers; those of the pass before, if they are still there."""
        fit, resting = self._this_fit, self._resting
        self._resting = None
        again = resting.wake(model, fit.problems) if resting is not None else None
        if again is not None:
            (fit.taps, fit.finder), self._resting = again, resting
            fit.rests = True
            return
        before = set(fit.problems.causes)
        fit.taps, fit.finder = attach_known(model, self._passes.options, fit.problems)
        if is_compiled(model):
            said = {topic: cause for topic, cause in fit.problems.causes.items() if topic not in before}
            self._resting = _Resting(fit.taps, fit.finder, said)
            fit.rests = True

    @guarded("reading a batch")
    def _open(self, trainer: Trainer, batch: Any, loader: int) -> None:
        recording = self._this_fit.recordings.get(self._source)
        if recording is None:
            return
        if loader != self._loader:
            self._loader = loader
            recording.finish()
            recording.start(one_loader(loaders_of(trainer, self._source), loader))
        recording.open(batch)
        if self._this_fit.finder is not None:
            self._this_fit.finder.open(batch, recorded=True)

    @guarded("measuring a batch")
    def _close(self, returned: Any) -> None:
        if self._this_fit.finder is not None:
            self._this_fit.finder.close(returned)
        if recording := self._this_fit.recordings.get(self._source):
            recording.close()

    @guarded("ending the pass")
    def _end(self, error: BaseException | None = None) -> None:
        fit, self._fit = self._this_fit, None
        try:
            fit.complete(self._source, whole=error is None, error=error)
        finally:
            fit.stop()

    @property
    def _this_fit(self) -> _DriftFit:
        assert self._fit is not None
        return self._fit


class _DriftFit(Monitored, LightningFit):
    """One pass."""

    def __init__(self, passes: Passes, rank: int, world_size: int) -> None:
        super().__init__(passes.options.reading(), rank, world_size)
        self.passes, self.say = passes, say
        self.rests = False

    def stop(self) -> None:
        """Leave the hooks on a compiled model, where they do nothing until the next pass."""
        if self.rests and self.taps is not None:
            self.taps.rest()
            self.taps = None
        super().stop()


class _Resting:
    """Hooks that stay on a compiled model between passes: to put others there, it would have to be compiled again.

    The model has them, and they go with it.
    """

    def __init__(self, taps: Taps, finder: Finder, said: Mapping[str, str]) -> None:
        self._taps, self._said = ref(taps), said
        taps.finder = finder

    def wake(self, model: nn.Module, problems: Problems) -> tuple[Taps, Finder] | None:
        """The hooks and their finder, for another pass of the same model; what was said of them is said again."""
        taps = self._taps()
        if taps is None or taps.model is not model or taps.finder is None:
            return None
        if not taps.are_in_place():
            taps.remove()
            return None
        taps.begin_again(problems)
        taps.finder.begin_again(problems)
        for topic, cause in self._said.items():
            problems.note(topic, cause)
        return taps, taps.finder


def attach_known(model: nn.Module, options: DriftOptions, problems: Problems) -> tuple[Taps, Finder]:
    """Hooks on the layers that the baseline knows, and on the one that its outputs are of.

    What `"auto"` found for the baseline and has no layer of that name here is found by the second of what is returned.
    Another layer that the model does not have is a problem, and the others are read; without the layer of the outputs,
    what the model itself answers is read.
    """
    reference, ways = options.reference, {layer.name: layer.reduce for layer in options.known}
    same = match(model, reference, options.known, compiled=is_compiled(model))
    for group, problem in (same.errors | same.notes).items():
        problems.note(group, problem)
    wanted = [group for group in (*same.layers, *same.missing) if options.outputs is True or not is_outputs(group)]
    taps = [
        Tap(group, same.layers[group], ways.get(group.removeprefix(LAYER))) for group in wanted if group in same.layers
    ]
    has_layer = OUTPUTS in reference.groups and not reference.groups[OUTPUTS].info.get("auto", False)
    if isinstance(options.outputs, str):
        with problems.caught(OUTPUTS):
            taps.append(Tap(OUTPUTS, find_layer(model, options.outputs)))
    elif has_layer and options.outputs:
        taps.append(Tap(OUTPUTS, output_layer(model, reference) or Layer("", type(model).__name__, model)))
    forget_compiled(model)
    made = Taps(taps, problems, model)
    missing = [group for group in wanted if group not in same.layers]
    return made, MatchingFinder(model, made, problems, reference, missing, ways)
