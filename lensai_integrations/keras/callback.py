"""`BaselineCallback`: what Keras calls, and when; and a dry run of it.

No hook is called per batch: a callback that overrides one makes Keras wait for the device at every step. Instead the
functions that run the steps are exchanged for ours (`functions.py`), which hand out what they see (`fit.py`). The way
of a profile: made at the end of a pass and kept beside Keras's backup (`fit.py`), chosen by whose weights it is of
(`finish.py`, `weights.py`), and at the end of the fit saved and logged (`training/finish.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import keras
import numpy as np

from lensai_integrations.arrays.namespaces import is_array, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.keras.copies import Copies, configuration, from_configuration
from lensai_integrations.keras.finish import chosen, final_pass, of_pass
from lensai_integrations.keras.fit import BEST, LATEST, Backup, KerasFit, aside, reader_of
from lensai_integrations.keras.guard import Last, look_around, say, watch
from lensai_integrations.keras.layers import find_layer
from lensai_integrations.keras.taps import PREDICT, TRAIN, attach, labelled
from lensai_integrations.keras.taps import TEST as TEST_STEPS
from lensai_integrations.keras.weights import BestEpoch, ModelWeights, SeenPass, averages
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems, guarded
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.training.check import Check, Checkable, run_check, without_missing
from lensai_integrations.training.finish import deliver, say_there_is_none
from lensai_integrations.training.fit import PREDICTION, TEST, TRAINING, VALIDATION, Preparer
from lensai_integrations.training.options import FINAL, Options
from lensai_integrations.training.tracking import TrackedRun, active_run
from lensai_integrations.training.weights import ASK_FINAL

_NOT_ASKED = (
    "Baseline: `model.{method}` makes none with reference={reference!r}; for a baseline of its data, pass"
    " BaselineCallback(reference={source!r})."
)
_STAYS = (
    "Baseline: that of fit stays; for one of this pass, with the weights of now, use a new callback:"
    " `model.{method}(..., callbacks=[BaselineCallback(reference={source!r})])`."
)
_AVERAGES = (
    "the optimizer averages weights (use_ema=True): fit leaves the averages, and validates with them only where"
    f" keras.callbacks.SwapEMAWeights puts them in place. Without that, {ASK_FINAL}"
)
_OF_FITS = (VALIDATION, TRAINING, FINAL)
_METHODS = {TEST: "evaluate", PREDICTION: "predict"}
#: Attributes that hold what belongs to a fit, and stay behind when a callback is copied.
_OF_A_FIT = frozenset(
    ("_model", "_fit", "_best", "_backup", "_siblings", "_left", "_last", "_token", "_copies", "_active_run", "params")
)


@documented(Options)
@keras.saving.register_keras_serializable(package="lensai_integrations")
class BaselineCallback(Checkable, keras.callbacks.Callback):  # type: ignore[misc]
    """Profiles what a model is fed and what its layers answer while it trains, and logs the baseline when it is done.

    The reference profile comes from the validation pass of `fit`, the training profile from its training batches; no
    data is read a second time and no image is kept. Training is bit for bit what it is without the callback. The
    baseline goes to a folder and to the active MLflow run, if any, autologging's too. Whatever fails in here is
    logged once and never stops the training.

    At the start of a fit `model.train_function` and `model.test_function` are exchanged for ones that also hand out
    what layers answer, which means that they are traced and compiled once by this callback instead of by Keras. At the
    end they are put back. A model that overrides `make_train_function` is left alone, with a warning. After an
    exception outside of a step, `detach()` puts them back; so does the end of a `with` block around `fit`.

    Whose weights the reference was made with is in `baseline_.info["weights_of"]`. If they are neither those that `fit`
    leaves nor those that a callback keeps, as with averaged weights, that is said, and `reference="final"` settles it.

    `model.evaluate(..., callbacks=[callback])` and `model.predict(...)` make a baseline of that pass, if the callback
    has not been used in a fit, or with `reference="test"` and `reference="prediction"`.

    Copies and pickles start afresh. KerasTuner copies the callback for every trial: each has its baseline beside its
    checkpoint, and the folder, the run and `baseline_` here are those of the best trial and epoch.

    Args:
        layers: `"backbone/pool"` is a layer inside a nested model. Of a layer that is called several times in a step,
            the first answer counts; those of `TimeDistributed` are rows each.
        outputs: What is no vector per image, or a picture like the one that went in, is said not to be read.
        task: `"auto"` asks the compiled loss, the last layer and the labels.
        target: They are in y; `"y"` is y itself. `"auto"`: y, or the part of it with the key or the place of each head,
            else its first part or its usual key.
        reference: The validation pass is the last one in `fit`, or that of the epoch whose weights a callback keeps;
            the last two are those of `model.evaluate` and `model.predict`.
        reduce: The function is given the backend's tensor, in a graph where there is one.
        segment_by: Here it is `"label"` or None.
        directory: It is in the working directory.

    Attributes:
        baseline_: After `fit`, the `Baseline`; None if there is none.
        directory_: The folder it was saved to; None if it was not.

    Raises:
        InputError: At construction if an argument is wrong; at the start of fit if the model has no such layer.

    Example:
        >>> callback = BaselineCallback(layers=["embedding"])
        >>> model.fit(train, validation_data=val, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(
        self,
        layers: Literal["auto"] | Sequence[str] | None = "auto",
        *,
        inputs: Literal["auto"] | ImageInputs | Mapping[str, Any] | None = "auto",
        outputs: str | None = "auto",
        task: str | Mapping[str, str] = "auto",
        target: int | str | None = "auto",
        reference: Literal["validation", "training", "test", "prediction", "final"] = "validation",
        training: Literal["inputs", "all"] | None = "inputs",
        every: int = 1,
        cost: float | None = None,
        reduce: Reduce | Mapping[str, Reduce] = "mean",
        convention: str | Sequence[str] = "lensai",
        measures: Sequence[CustomMeasure] = (),
        k: int = 200,
        rows: int = 2000,
        max_dim: int = 2048,
        clean_windows: int = 1000,
        segment_by: Literal["label"] | None = None,
        max_segments: int = DEFAULT_SEGMENTS,
        seed: int = 0,
        artifact_path: str = "lensai",
        directory: str | Path | None = None,
        upload_deadline: float = 60.0,
    ) -> None:
        arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        self._options = Options(**arguments)
        self.baseline_: Baseline | None = None
        self.directory_: Path | None = None
        self._copies = Copies(self)
        self._unused()

    def _unused(self) -> None:
        """As a callback is that has not been in a fit."""
        self.params: Any = None
        self._model: Any = None
        self._fit: KerasFit | None = None
        self._epoch: int | None = None
        self._fitting = self._fitted = self._pending = False
        self._refused = Problems()
        self._best, self._backup = BestEpoch(), Backup([], "")
        self._siblings: list[Any] = []
        self._left: ModelWeights | None = None
        self._last = Last(self)
        self._active_run: TrackedRun | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over, here or in another process: the arguments and the last baseline, nothing of a fit."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_FIT}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state)
        self._copies = Copies(self)
        self._unused()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = type(self).__new__(type(self))
        for shared in (self._options, self.baseline_):
            memo[id(shared)] = shared
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        copied._copies = self._copies
        return copied

    def get_config(self) -> dict[str, Any]:
        """The arguments as JSON values.

        Raises:
            InputError: If `reduce` has a function in it.

        Example:
            >>> BaselineCallback(["pool"]).get_config()["layers"]
            ['pool']
        """
        return configuration(self._options)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A callback with the arguments that `get_config` gave.

        Raises:
            InputError: If it gave something else.
        """
        return cls(**from_configuration(config))

    def on_train_begin(self, logs: Any = None) -> None:
        """Find the layers, see what is held out, and exchange the model's functions."""
        self._begin()
        self._fitted, self._fitting = True, self._fit is not None
        self._start_fit()

    def _begin(self) -> None:
        fit, self._fit, self._epoch = self._fit, None, None
        with Problems().caught("what is saved"):
            self._best.stop()
        self._best, self._backup, self._siblings = BestEpoch(), Backup([], ""), []
        self._left = None
        self._pending = True
        self._active_run = None
        self.baseline_ = self.directory_ = None
        with Problems().caught("starting, so nothing is profiled", InputError):
            again = fit is not None and fit.renew(self._model)
            self._fit = fit if again else KerasFit(self._options, self._model)
            self._this_fit.on_interruption = self.detach
        self._find_run()

    @guarded("finding the MLflow run")
    def _find_run(self) -> None:
        self._active_run = self._active_run or active_run()

    @guarded("starting to train")
    def _start_fit(self) -> None:
        fit, around = self._this_fit, look_around(self)
        watch(self, around.holder)
        if around.holder is not None:
            fit.end_others(around.siblings)
        self._siblings = around.siblings
        self._best = BestEpoch(around.siblings, fit.model, lambda: fit.problems.caught("what is saved"))
        self._backup = Backup(around.siblings, self._options.artifact_path)
        for source, data in zip((TRAINING, VALIDATION), around.data, strict=True):
            fit.raw.begin(source, data)
        fit.name_classes(around.data)
        if self._options.reference_source == VALIDATION:
            fit.record(VALIDATION, everything=True)
            if around.validates is False:
                fit.use_training_as_reference()
        as_reference = fit.reference == TRAINING or (fit.reference == VALIDATION and around.validates is None)
        if as_reference or self._options.training is not None:
            everything = as_reference or self._options.training == "all"
            fit.record(TRAINING, everything=everything, as_reference=as_reference)
        if TRAINING in fit.recordings:
            fit.listen(TRAIN)
        with fit.problems.caught("resuming"):
            resumed = self._backup.load()
            fit.profiles = resumed[LATEST]
            self._best.resume(fit.seen(resumed[BEST]))
        if around.holder is not None:
            self._last.join(around.holder)

    @guarded("starting an epoch")
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin the training profile of this epoch."""
        self._epoch = epoch
        self._this_fit.start(TRAINING, epoch)

    @guarded("ending an epoch")
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Complete the training profile."""
        self._end_training()
        self._back_up()

    def _back_up(self, *, create: bool = True) -> None:
        with self._this_fit.problems.caught("backup"):
            best = {} if self._best.kept is None else self._best.kept.profiles
            self._backup.save({LATEST: self._this_fit.profiles, BEST: best}, create=create)

    def on_test_begin(self, logs: Any = None) -> None:
        """Begin the reference profile: of the validation pass of a fit, or of an `evaluate` on its own."""
        if self._fitting:
            self._start_validation()
        else:
            self._start_alone(TEST, TEST_STEPS)

    @guarded("starting validation")
    def _start_validation(self) -> None:
        self._end_training()
        if VALIDATION in self._this_fit.recordings:
            self._this_fit.listen(TEST_STEPS)
            self._this_fit.start(VALIDATION)

    @guarded("ending validation")
    def on_test_end(self, logs: Any = None) -> None:
        """Complete the reference profile."""
        if self._fitting:
            self._this_fit.end(VALIDATION, epoch=self._epoch)
        else:
            self._end_alone(TEST)

    def on_predict_begin(self, logs: Any = None) -> None:
        """Begin the profile of a `predict` on its own."""
        if not self._fitting:
            self._start_alone(PREDICTION, PREDICT)

    @guarded("ending a prediction")
    def on_predict_end(self, logs: Any = None) -> None:
        """Complete the profile of a `predict` on its own."""
        if not self._fitting:
            self._end_alone(PREDICTION)

    @guarded("ending the fit")
    def on_train_end(self, logs: Any = None) -> None:
        """Put the model's functions back; when the other callbacks are done, save and log the baseline."""
        self._end_training()
        self._this_fit.stop()
        if not self._last.joined:
            self.fit_is_over()

    @guarded("the best epoch")
    def fit_has_begun(self) -> None:
        """What callbacks think is the best by now is of before."""
        self._best.begin()

    @guarded("the best epoch")
    def epoch_is_over(self) -> None:
        """If the weights that the epoch had are kept, its profiles are the ones to log."""
        fit = self._this_fit
        if self._best.look(fit.seen()):
            self._back_up(create=False)

    @guarded("ending the fit")
    def fit_is_over(self) -> None:
        """Save and log the baseline of the weights that are there when all callbacks are done."""
        final, fit = None, self._this_fit
        fit.on_interruption = fit.stop
        try:
            if self._options.reference == FINAL:
                final = final_pass(fit, look_around(self).evaluation)
        finally:
            self._stop()
            self._conclude_fit(final)

    def _conclude_fit(self, final: SeenPass | None, *, interrupted: bool = False) -> None:
        method = _METHODS.get(self._options.reference)
        if method is None:
            self._conclude(*chosen(self._this_fit, self._best, final, self._epoch, interrupted=interrupted))
            return
        self._left = self._this_fit.left()
        if not interrupted:
            reason = f"reference={self._options.reference!r}, so it is made by"
            self._say(f"Baseline: {reason} `model.{method}(..., callbacks=[callback])`.")

    def detach(self) -> None:
        """Put the model's functions back after a fit that was interrupted, and log the last complete baseline.

        After a fit that ended by itself there is nothing left to do.

        Example:
            >>> BaselineCallback().detach()
        """
        if self._pending:
            self._end_interrupted()

    @guarded("ending an interrupted fit")
    def _end_interrupted(self) -> None:
        if self._fitted:
            self.epoch_is_over()
        self._stop()
        if not self._fitted:
            self._conclude_alone()
        else:
            self._conclude_fit(None, interrupted=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.detach()

    @staticmethod
    def _checked(options: Options, model: Any, batch: Any) -> Check:
        return dry_run(options, model, batch)

    @property
    def _this_fit(self) -> KerasFit:
        assert self._fit is not None
        return self._fit

    def _start_alone(self, source: str, steps: str) -> None:
        reference = self._options.reference
        if reference != source and (self._fitted or reference != VALIDATION):
            self._refuse(source)
            return
        if not self._fitted:
            self._begin()
        self._pending = True
        self._find_run()
        self._record_alone(source, steps)

    def _refuse(self, source: str) -> None:
        """Say once that a pass makes no baseline, and what would."""
        if self._refused.first(source):
            message = _STAYS if self._fitted and self._options.reference in _OF_FITS else _NOT_ASKED
            self._say(message.format(method=_METHODS[source], reference=self._options.reference, source=source))

    @guarded("starting the pass")
    def _record_alone(self, source: str, steps: str) -> None:
        fit = self._this_fit
        fit.name_classes(look_around(self).data)
        fit.reference = source
        fit.record(source, everything=True)
        fit.listen(steps)
        fit.start(source)

    def _end_alone(self, source: str) -> None:
        if source in self._this_fit.recordings:
            self._this_fit.end(source)
            self._stop()
            self._conclude_alone()

    def _conclude_alone(self) -> None:
        self._conclude(*of_pass(self._this_fit, self._best, self._left, self._epoch))

    @guarded("ending training")
    def _end_training(self) -> None:
        fit, steps = self._this_fit, (self.params or {}).get("steps")
        fit.end(TRAINING, whole=steps is None or fit.batches >= steps, epoch=self._epoch)

    @guarded("putting the model's functions back")
    def _stop(self) -> None:
        self._fitting = False
        self._this_fit.stop()
        self._last.leave()
        self._best.stop()

    def _conclude(self, profiles: Mapping[str, Profile], info: Mapping[str, Any]) -> None:
        fit = self._this_fit
        if not self._pending:
            return
        self._pending = False
        trial = None
        if self._best.tuner is not None:
            trial = self._copies.trial(self._best.tuner, self._siblings)
            trial.add(fit.model.history.history, fit.problems)
        self.baseline_ = baseline = fit.made(profiles, info)
        if baseline is None:
            say_there_is_none(fit.reference, fit.problems)
        elif trial is None:
            self.directory_ = self._deliver(baseline, self._options)
            self._copies.tell(baseline, self.directory_)
        else:
            kept = None if self._best.saved is None else baseline
            self._copies.deliver_trial(trial, kept, self._options, self._deliver)

    def _deliver(self, baseline: Baseline, options: Options, log: bool = True) -> Path | None:
        runs = [self._active_run] if log and self._active_run is not None else []

        def saved(folder: Path) -> None:
            if options is self._options:  # and not beside the checkpoint of a trial
                self.directory_ = folder

        problems = self._this_fit.problems
        return deliver(baseline, options, problems, root=Path.cwd(), runs=runs, say=self._say, saved=saved)

    def _say(self, message: str) -> None:
        say(self, message)


def dry_run(options: Options, model: Any, batch: Any) -> Check:
    """Run one batch through a model and everything that is measured.

    Args:
        options: The callback's.
        model: The model, or None to look at images and labels only.
        batch: x, `(x, y)` or `(x, y, sample_weight)`, or what gives batches: of that, the first.

    Raises:
        InputError: If there is no batch.
    """
    batch, notes, answers, layers = _first(batch), list[str](), {}, []
    if model is not None:
        options, notes = without_missing(options, lambda name: find_layer(model, name))
        if options.reference == VALIDATION and averages(getattr(model, "optimizer", None)):
            notes.append(_AVERAGES)
    problems = Problems(quiet=True)
    reader = reader_of(options, model, problems)
    preparer = Preparer(options, problems, reader=lambda _: reader)
    if model is not None and not model.built:
        notes.append("the model has no weights yet, so it was not run: build it, or call it once")
    elif model is not None:
        with problems.caught("the model"):
            taps = attach(model, options, problems)
            layers, reader.answer = taps.layers, taps.answer
            with taps.listening(labelled=labelled(TEST_STEPS, batch)) as caught:
                _run(model, batch, problems)
            answers = caught
    return run_check(preparer, reader.pick(batch), answers, layers, aside=aside, notes=notes)


def _run(model: Any, batch: Any, problems: Problems) -> None:
    """The model's answer to x, for inference; what it should change all the same is put back."""
    variables = [variable for variable in model.variables if not variable.trainable]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    with ExitStack() as stack, problems.caught("the model's forward pass"):
        stack.enter_context(aside())
        try:
            model(keras.tree.map_structure(keras.ops.convert_to_tensor, x), training=False)
        finally:
            for variable, value in zip(variables, before, strict=True):
                if not np.array_equal(to_host(keras.ops.convert_to_numpy(variable)), value, equal_nan=True):
                    variable.assign(value)


def _first(batch: Any) -> Any:
    """The batch, or the first of a data set, a loader or a generator."""
    if isinstance(batch, Mapping | list | tuple) or is_array(batch):
        return batch
    try:
        return batch[0] if isinstance(batch, keras.utils.PyDataset) else next(iter(batch))
    except (TypeError, IndexError, StopIteration) as error:
        raise InputError(
            f"batch is a {type(batch).__name__} without a batch: pass x, (x, y), or what gives batches"
        ) from error
