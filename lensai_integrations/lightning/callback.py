"""`BaselineCallback`: what a Lightning trainer calls, and when.

Each hook does one thing and hands over. The way of a batch: opened in `on_*_batch_start`, which copies images and
labels (`profiling/batch_reading.py`), caught in the forward pass (`torch/taps.py`), closed in `on_*_batch_end`, which
hands it to the profiler (`torch/recording.py`, `training/recording.py`). Which layers `"auto"` means, the first batches
show (`torch/finding.py`). The way of a profile: made at the end of a pass and merged over ranks (`training/fit.py`),
put into checkpoints, asked for whose weights it is of (`finish.py`), and at the end of the fit saved and logged
(`training/finish.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from lensai_integrations.errors import InputError
from lensai_integrations.lightning import finish
from lensai_integrations.lightning.base import (
    OTHER_LOADERS,
    LightningCallback,
    bring_back,
    has_validation,
    is_fitting,
    loaders_of,
    one_loader,
    other_loaders,
)
from lensai_integrations.lightning.check import check
from lensai_integrations.lightning.finish import Belonging, identity, keep_for_best, of_fit, of_pass, weights_left
from lensai_integrations.lightning.fit import LightningFit, validate_once_more
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems, guarded
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.profiling.labels import Place
from lensai_integrations.torch.finding import Finder, attach
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.training.check import Checkable
from lensai_integrations.training.fit import PREDICTION, TEST, TRAINING, VALIDATION
from lensai_integrations.training.options import FINAL, Options
from lensai_integrations.training.tracking import TrackedRun

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule, Trainer

#: The trainer's method, and stage, of each kind of pass that can be made without a fit.
_PASSES: Final = {VALIDATION: "validate", TEST: "test", PREDICTION: "predict"}
_NOT_ASKED: Final = (
    "Baseline: `trainer.{pass_}` makes none with reference={reference!r}; for a baseline of its data, pass"
    " BaselineCallback(reference={source!r})."
)
_STAYS: Final = (
    "Baseline: that of fit stays; for one of this pass, with the weights of now, use a new callback:"
    " Trainer(callbacks=[BaselineCallback(...)]).{pass_}(model, ...)."
)
_NOTHING_TRAINED: Final = (
    "Baseline: there is none, as fit had nothing to train; for one of the model as it is, call `trainer.validate` with"
    " a BaselineCallback()."
)
_NOT_ATTACHED: Final = (
    "there are no outputs and embeddings, as `on_fit_start` of BaselineCallback was not called: a subclass that"
    " overrides it calls super().on_fit_start(trainer, pl_module)"
)


@documented(Options)
class BaselineCallback(Checkable, LightningCallback):
    """Profiles what a model is fed and what its layers answer while it trains, and logs the baseline when it is done.

    The reference profile comes from the validation pass of `fit`, the training profile from its training batches; no
    data is read a second time and no image is kept. It belongs to the best checkpoint, if one of the passes was made
    with its weights, else to the weights that `fit` leaves, and `baseline_.info["weights_of"]` says so; if it is of
    neither, that is a warning. Training is bit for bit what it is without the callback. The
    baseline goes to a folder and to the MLflow run of each `MLFlowLogger`, else to the active MLflow run, if any.
    Whatever fails in here is logged once and never stops the training.

    Args:
        inputs: A torchvision `Normalize` in the data set's transforms is undone.
        target: Of a dict, all of its labels are kept, each by its name. `"auto"` knows what the loss is given, too.
        reference: They are the passes of `fit`, or that of `trainer.validate` alone, of `trainer.test`, after a fit or
            alone, and of `trainer.predict`.
        segment_by: Such a name is a key of batches that are dicts.
        directory: It is in the trainer's root directory.

    Attributes:
        baseline_: After `fit`, or the pass that is the reference, on the first rank, the `Baseline`; None if there is
            none. Of processes that the trainer spawned or forked it comes back to the callback that was given to the
            trainer.
        directory_: The folder it was saved to; None if it was not.

    Raises:
        InputError: At construction if an argument is not one of these; at the start of fit if the model has no layer
            of a given name or there is no such validation loader.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> callback = BaselineCallback(layers=["avgpool"])
        >>> trainer = Trainer(callbacks=[callback], logger=False)
        >>> trainer.fit(model, datamodule=images)  # doctest: +SKIP
        >>> callback.baseline_.reference.summaries()  # doctest: +SKIP
    """

    _checked = staticmethod(check)
    _of_a_fit = MappingProxyType(
        {"_fit": None, "_pending": False, "_from_the_start": False, "_in_final": False, "_active_run": None}
    )
    _made = MappingProxyType({"baseline_": None, "directory_": None, "_fitted": False})

    def __init__(
        self,
        layers: Literal["auto"] | Sequence[str] | None = "auto",
        *,
        inputs: Literal["auto"] | ImageInputs | Mapping[str, Any] | None = "auto",
        outputs: str | None = "auto",
        task: str | Mapping[str, str] = "auto",
        target: Place | Mapping[str, Place | None] | None = "auto",
        reference: Literal["validation", "training", "test", "prediction", "final"] = "validation",
        training: Literal["inputs", "all"] | None = "inputs",
        every: int = 1,
        cost: float | None = None,
        reduce: Mapping[str, Reduce] | Reduce = "mean",
        convention: str | Sequence[str] = "lensai",
        measures: Sequence[CustomMeasure] = (),
        k: int = 200,
        rows: int = 2000,
        max_dim: int = 2048,
        clean_windows: int = 1000,
        segment_by: str | None = None,
        max_segments: int = DEFAULT_SEGMENTS,
        seed: int = 0,
        artifact_path: str = "lensai",
        directory: str | Path | None = None,
        dataloader_idx: int = 0,
        upload_deadline: float = 60.0,
    ) -> None:
        super().__init__()
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._options = Options(**arguments)
        self._fit: LightningFit | None = None
        self._pending = self._from_the_start = self._fitted = self._in_final = False
        self._told = Problems()
        self._active_run: TrackedRun | None = None
        self.baseline_: Baseline | None = None
        self.directory_: Path | None = None

    @property
    def state_key(self) -> str:
        """The key of this callback's state in checkpoints, the same for both Lightning packages."""
        return f"lensai_integrations.BaselineCallback[{self._options.artifact_path}]"

    def state_dict(self) -> dict[str, Any]:
        """The complete profiles as plain bytes, by source."""
        return self._fit.state() if self._fit is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the profiles of a checkpoint that is resumed or tested."""
        if self._fit is not None:
            self._fit.load(state_dict)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew with every fit; with another pass that is the reference only if there was no fit."""
        if stage == "fit" or (not self._fitted and stage == _PASSES.get(self._options.reference_source)):
            self._fit = LightningFit(self._options, trainer.global_rank, trainer.world_size, trainer.strategy)
            self.baseline_ = self.directory_ = None
            self._fitted = self._pending = self._in_final = False

    @guarded("starting the fit", InputError)
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers and put hooks on them, before anything is compiled."""
        assert self._fit is not None
        self._active_run = self._active(trainer)
        if not trainer.ckpt_path:
            self._fit.best_before = identity(trainer)
        self._attach(pl_module)

    @guarded("ending the sanity check")
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out the images that were delivered for the sanity check."""
        assert self._fit is not None
        self._fit.raw.begin(VALIDATION, one_loader(trainer.val_dataloaders, self._options.dataloader_idx))

    @guarded("starting to train", InputError)
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See what is held out, and decide what is recorded."""
        assert self._fit is not None
        self._pending = self._fitted = True
        if self._options.reference_source == VALIDATION:
            self._fit.record(VALIDATION, everything=True)
            if not has_validation(trainer, self._options.dataloader_idx):
                self._fit.use_training_as_reference()
        as_reference = self._fit.reference == TRAINING
        if as_reference or self._options.training is not None:
            everything = as_reference or self._options.training == "all"
            self._fit.record(TRAINING, everything=everything, as_reference=as_reference)

    @guarded("starting a training epoch")
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the training profile of this epoch."""
        assert self._fit is not None
        self._fit.raw.find(TRAINING, trainer.train_dataloader)
        self._start(TRAINING, trainer.train_dataloader, epoch=trainer.current_epoch)
        self._from_the_start = True

    @guarded("reading a training batch")
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Open a training batch, as it is after the transfer to the device and the user's transforms there."""
        recording = self._recording(TRAINING)
        if recording is not None and not recording.started:  # resumed within an epoch
            self._start(TRAINING, trainer.train_dataloader, epoch=trainer.current_epoch)
            self._from_the_start = False
        self._open(TRAINING, batch, index=batch_idx, device=pl_module.device)

    @guarded("measuring a training batch")
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close a training batch: measure it."""
        assert self._fit is not None
        self._fit.epoch = trainer.current_epoch
        self._close(TRAINING)

    @guarded("ending a training epoch")
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the training profile, before checkpoints are saved."""
        self._complete(TRAINING, trainer, whole=self._from_the_start and trainer.is_last_batch)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the reference profile."""
        if is_fitting(trainer):
            self._begin(VALIDATION, trainer)
        elif not trainer.sanity_checking:
            self._begin_alone(VALIDATION, trainer, pl_module)

    @guarded("reading a validation batch")
    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Open a validation batch."""
        if trainer.sanity_checking:
            self._listen(True)  # so that a compiled model is compiled once, not once more after the sanity check
            self._trace(batch, exact=False)
        else:
            self._open_reference(VALIDATION, trainer, pl_module, batch, dataloader_idx)

    @guarded("measuring a validation batch")
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Close a validation batch: measure it."""
        if trainer.sanity_checking:
            self._traced(outputs)
            self._listen(False)
        else:
            self._close(VALIDATION, outputs)

    @guarded("ending validation")
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the reference profile, before checkpoints are saved."""
        if not is_fitting(trainer):
            self._end_alone(VALIDATION, trainer)
        elif not self._in_final:
            if self._fit is not None and trainer.global_rank == 0:
                keep_for_best(self._fit, VALIDATION, trainer, before=True)
            self._complete(VALIDATION, trainer)
            if self._fit is not None and trainer.global_rank == 0:
                keep_for_best(self._fit, VALIDATION, trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """With `reference="test"` or `"prediction"`: put hooks on the layers and begin the reference profile."""
        self._begin_alone(_source_of(trainer), trainer, pl_module)

    @guarded("reading a batch")
    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Open a batch of a test or a prediction."""
        self._open_reference(_source_of(trainer), trainer, pl_module, batch, dataloader_idx)

    @guarded("measuring a batch")
    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Close a batch of a test or a prediction: measure it."""
        self._close(_source_of(trainer), outputs)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complete the reference profile and log the baseline."""
        self._end_alone(_source_of(trainer), trainer)

    on_predict_start, on_predict_end = on_test_start, on_test_end
    on_predict_batch_start, on_predict_batch_end = on_test_batch_start, on_test_batch_end

    @guarded("ending training")
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks off the model: others may pickle it from here on. For one more pass they stay, and do nothing
        in a copy: a compiled model would not take others."""
        if self._options.reference != FINAL:
            self._stop()

    @guarded("ending the fit")
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the one more pass that was asked for, after all that callbacks do to the weights when training ends."""
        if self._options.reference == FINAL and self._pending:
            self._validate_once_more(trainer)
        self._stop()

    @guarded("ending the fit")
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save and log the baseline: by now nobody changes the weights any more, and loggers are still open."""
        if stage != "fit":
            return
        assert self._fit is not None
        if self._is_of_fit:
            self._conclude(trainer)
        elif trainer.global_rank == 0:
            weights_left(self._fit, trainer)
            source = self._options.reference
            finish.say(f"Baseline: reference={source!r}, so it is made by `trainer.{_PASSES[source]}`.")

    @guarded("ending an interrupted fit")
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log the last complete baseline. The other ranks may be gone, so nothing is gathered here."""
        self._stop()
        if self._is_of_fit and self._pending:
            self._conclude(trainer, interrupted=True)

    @property
    def _is_of_fit(self) -> bool:
        return self._options.reference_source in (VALIDATION, TRAINING)

    def _recording(self, source: str) -> LoaderPass | None:
        return self._fit.recordings.get(source) if self._fit is not None else None

    def _attach(self, pl_module: LightningModule) -> None:
        """Hooks on the layers, and what finds those that are left to be found."""
        assert self._fit is not None
        self._fit.taps = taps = attach(pl_module, self._options, self._fit.problems)
        self._fit.finder = Finder(
            pl_module,
            taps,
            self._fit.problems,
            outputs=self._options.outputs == "auto",
            layers=self._options.layers == "auto",
            reduce=self._options.reduce,
            before=self._fit.finder,
        )

    @guarded("starting validation", InputError)
    def _begin(self, source: str, trainer: Trainer) -> None:
        assert self._fit is not None
        loaders, index = loaders_of(trainer, source), self._options.dataloader_idx
        self._fit.raw.find(source, one_loader(loaders, index))
        self._fit.raw.find(OTHER_LOADERS, other_loaders(loaders, index))
        self._start(source, loaders, index)

    def _begin_alone(self, source: str, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a pass that belongs to no fit: it is the reference, if that was asked for; else it is said how to."""
        if source == self._options.reference_source and not (self._fitted and source == VALIDATION):
            self._begin_reference(source, trainer, pl_module)
        elif trainer.global_rank == 0 and self._told.first(source):
            message = _STAYS if source == self._options.reference_source else _NOT_ASKED
            finish.say(message.format(pass_=_PASSES[source], reference=self._options.reference, source=source))

    @guarded("starting the pass", InputError)
    def _begin_reference(self, source: str, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._fit is not None
        self._active_run = self._active(trainer)
        self._attach(pl_module)
        self._fit.record(source, everything=True)
        self._begin(source, trainer)

    @guarded("ending the pass")
    def _end_alone(self, source: str, trainer: Trainer) -> None:
        if self._recording(source) is not None:
            assert self._fit is not None
            self._complete(source, trainer)
            self._stop()
            if trainer.global_rank == 0:
                self._deliver(trainer, of_pass(self._fit, source, trainer))

    def _validate_once_more(self, trainer: Trainer) -> None:
        """The validation pass with the weights that fit leaves. A collective, as its profile is merged over ranks."""
        assert self._fit is not None
        if self._recording(VALIDATION) is None or not has_validation(trainer, self._options.dataloader_idx):
            return
        done = False
        self._in_final = True
        with self._fit.problems.caught("the validation pass at the end"):
            validate_once_more(trainer, self)
            done = True
        if trainer.strategy.reduce_boolean_decision(done, all=True):
            self._complete(VALIDATION, trainer)
            self._fit.whole_final = True
        self._in_final = False

    def _start(self, source: str, loaders: Any, index: int = 0, epoch: int = 0) -> None:
        recording = self._recording(source)
        if recording is not None:
            recording.start(one_loader(loaders, index), epoch)
            self._hint(recording, source)

    def _open(self, source: str, batch: Any, model: LightningModule | None = None, **place: Any) -> None:
        recording = self._recording(source)
        if recording is not None:
            recording.open(batch, model, **place)
        self._trace(batch, recorded=recording is not None and recording.has_layers)

    def _open_reference(
        self, source: str, trainer: Trainer, pl_module: LightningModule, batch: Any, dataloader_idx: int
    ) -> None:
        recorded = self._recording(source) is not None
        if dataloader_idx == self._options.dataloader_idx and (recorded or is_fitting(trainer)):
            self._open(source, batch, pl_module)

    def _close(self, source: str, returned: Any = None) -> None:
        recording, traced = self._recording(source), self._traced(returned)
        if recording is not None:
            if traced:
                self._hint(recording, source)
            recording.close()

    def _trace(self, batch: Any, *, recorded: bool = False, exact: bool = True) -> None:
        finder = self._fit.finder if self._fit is not None else None
        if finder is not None:
            finder.open(batch, recorded=recorded, exact=exact)

    def _traced(self, returned: Any = None) -> bool:
        finder = self._fit.finder if self._fit is not None else None
        return finder is not None and finder.close(returned)

    def _hint(self, recording: LoaderPass, source: str) -> None:
        """Tell it where the loss has shown the labels to be, and what the model was fed."""
        finder = self._fit.finder if self._fit is not None else None
        fed = finder.fed(training=source == TRAINING) if finder is not None else None
        if fed is not None:
            recording.hint_images(fed)
        for head, path in finder.places.items() if finder is not None else ():
            recording.hint_labels(path, head)

    def _complete(self, source: str, trainer: Trainer, *, whole: bool = True) -> None:
        if self._fit is not None:
            if self._fit.finder is not None:
                self._fit.finder.stop_tracing()  # a batch that was skipped never ended
            epoch = self._fit.epoch if self._in_final or not is_fitting(trainer) else trainer.current_epoch
            step = trainer.global_step if self._fitted else None
            self._fit.complete(source, whole=whole, epoch=epoch, step=step)

    def _listen(self, on: bool) -> None:
        taps = self._fit.taps if self._fit is not None else None
        if taps is not None:
            taps.open() if on else taps.close()

    def _stop(self) -> None:
        if self._fit is not None:
            self._fit.stop()

    def _conclude(self, trainer: Trainer, *, interrupted: bool = False) -> None:
        if self._fit is None or trainer.global_rank != 0:
            return
        if not self._pending and not self._fitted:
            finish.say(_NOTHING_TRAINED)
        if self._pending:
            self._pending = False
            if self._fit.finder is None:
                self._fit.problems.note("layers", _NOT_ATTACHED)
            self._deliver(trainer, of_fit(self._fit, trainer, self.state_key, interrupted=interrupted))

    def _deliver(self, trainer: Trainer, belonging: Belonging) -> None:
        assert self._fit is not None
        self._keep(*finish.conclude(self._fit, self._options, trainer, belonging, self._active_run, self._keep))
        with self._fit.problems.caught("bringing the baseline back to the process that spawned this one"):
            made = {"baseline_": self.baseline_, "directory_": self.directory_, "_fitted": self._fitted}
            bring_back(trainer, self._name, **made)

    def _keep(self, baseline: Baseline | None, folder: Path | None) -> None:
        self.baseline_, self.directory_ = baseline, folder


def _source_of(trainer: Trainer) -> str:
    """The kind of the pass that runs."""
    return TEST if trainer.state.fn == "test" else PREDICTION
