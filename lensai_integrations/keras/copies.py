"""A callback and its copies: KerasTuner makes one for every fit of every trial, and the user holds the first.

Every trial has its baseline beside its checkpoint. The folder that was asked for, the run and the user's callback have
that of the best trial so far, by the tuner's own measure. A copy may also be made by way of a configuration: the
callback's arguments as JSON values.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.measures.custom import CustomMeasure, registered
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.training.finish import FOLDER
from lensai_integrations.training.options import SOURCES, Options

_NO_OBJECTIVE: Final = (
    "the objective {!r} is not among the logs of fit, so which trial is the best is not known here, and the baseline is"
    " that of the last, {}; those of the others are beside their checkpoints, in `lensai_baseline`"
)
#: Given a baseline, options and whether the run takes it: saves it, and returns the folder.
Deliver = Callable[[Baseline, Options, bool], Path | None]


class Copies:
    """What a callback and its copies know of one another.

    Args:
        origin: The callback that the others are copies of.
    """

    def __init__(self, origin: Any) -> None:
        self._origin = weakref.ref(origin)
        self._values: weakref.WeakKeyDictionary[Any, list[float]] = weakref.WeakKeyDictionary()
        self._best: Path | None = None
        self._folder: Path | None = None

    def tell(self, baseline: Baseline, folder: Path | None) -> None:
        """Tell the callback that the user has what a copy has made."""
        origin = self._origin()
        if origin is not None and not origin._fitting:
            origin.baseline_, origin.directory_ = baseline, folder

    def trial(self, keeper: Any, siblings: Sequence[Any]) -> Trial:
        """The trial that a fit is one of.

        Args:
            keeper: The tuner's `SaveBestEpoch`, which is the same for all fits of a trial.
            siblings: The callbacks of the fit.
        """
        return Trial(keeper, siblings, self._values.setdefault(keeper, []))

    def deliver_trial(self, trial: Trial, baseline: Baseline | None, options: Options, deliver: Deliver) -> None:
        """Save the baseline of a trial beside its checkpoint, and the best trial's where it was asked for.

        Args:
            trial: The trial, with the fit that has ended.
            baseline: Of that fit; None if the trial keeps the weights of another one.
            options: The callback's.
            deliver: Saves and logs.
        """
        if baseline is not None:
            deliver(baseline, replace(options, directory=trial.folder), False)
        if self._best is not None and self._best.parents[1] != trial.folder.parents[1]:  # of another search
            self._best = self._folder = None
        best = trial.best()
        if best == self._best and not (best == trial.folder and baseline is not None):
            return
        if best != trial.folder or baseline is None:
            if not best.is_dir():  # a trial of before, without a baseline
                return
            baseline = Baseline.load(best)
        if self._folder is not None:  # of a worse one
            options = replace(options, directory=self._folder)
        self._best, self._folder = best, deliver(baseline, options, True)
        self.tell(baseline, self._folder)


class Trial:
    """A trial of KerasTuner.

    Args:
        keeper: Its `SaveBestEpoch`.
        siblings: The callbacks of a fit.
        values: The objective's best value in each of its fits.

    Attributes:
        folder: Where its baseline is.
    """

    def __init__(self, keeper: Any, siblings: Sequence[Any], values: list[float]) -> None:
        self._objective, self._values = keeper.objective, values
        self._tuner: Any = next(
            (sibling.tuner for sibling in siblings if hasattr(sibling, "tuner") and hasattr(sibling, "trial")), None
        )
        self.folder = Path(str(keeper.filepath)).absolute().parent / FOLDER

    def add(self, history: Mapping[str, Sequence[Any]], problems: Problems) -> None:
        """Add a fit, of which this is the history by metric."""
        objective = self._objective
        values = [float(objective.get_value(logs)) for logs in by_epoch(history) if objective.has_value(logs)]
        if values:
            self._values.append(reduce(self._better, values))
        if not self._values:
            problems.note("tuner", _NO_OBJECTIVE.format(objective.name, self.folder.parent.name))

    def best(self) -> Path:
        """The folder of the best trial, by the mean of its fits, as the tuner has it; of equals the first.

        Where it is not known how good this trial is, it is the one.
        """
        trials = getattr(getattr(self._tuner, "oracle", None), "trials", {})
        if not self._values:
            return self.folder
        others = {self._tuner.get_trial_dir(name): trial.score for name, trial in trials.items()}
        scores = {Path(folder).absolute() / FOLDER: score for folder, score in others.items() if score is not None}
        scores.pop(self.folder, None)
        scores[self.folder] = fmean(self._values)
        return reduce(lambda one, two: two if self._objective.better_than(scores[two], scores[one]) else one, scores)

    def _better(self, one: float, two: float) -> float:
        return two if self._objective.better_than(two, one) else one


def by_epoch(history: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The logs of every epoch, from those of every metric.

    Example:
        >>> by_epoch({"loss": [2, 1], "val_loss": [3, 4]})
        [{'loss': 2, 'val_loss': 3}, {'loss': 1, 'val_loss': 4}]
    """
    return [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=False)]


#: Options that the Keras callback has no use for.
NOT_OURS = ("dataloader_idx", "since")


def configuration(options: Options) -> dict[str, Any]:
    """JSON values that `from_configuration` turns into the arguments again.

    Raises:
        InputError: If a reduction is a function, which JSON cannot hold.
    """
    values = {field.name: getattr(options, field.name) for field in fields(options) if field.name not in NOT_OURS}
    values["layers"] = options.layers if isinstance(options.layers, str | None) else list(options.layers)
    values["inputs"] = _plain(options.inputs)
    values["convention"] = options.convention if isinstance(options.convention, str) else list(options.convention)
    values["directory"] = None if options.directory is None else str(options.directory)
    values["reduce"] = _by_name(options.reduce)
    values["measures"] = [measure.definition.id for measure in options.measures]
    return values


def _plain(inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {source: _plain(reader) for source, reader in inputs.items()}
    return asdict(inputs) if isinstance(inputs, ImageInputs) else inputs


def _by_name(reduce: Reduce | Mapping[str, Reduce]) -> Any:
    if isinstance(reduce, Mapping):
        return {layer: _by_name(reduction) for layer, reduction in reduce.items()}
    if callable(reduce):
        raise InputError(f"reduce={reduce!r} is a function, which no configuration can hold: pass 'mean', 'max' ...")
    return reduce


def from_configuration(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a callback that a configuration describes.

    Raises:
        InputError: If it describes something else.

    Example:
        >>> from_configuration({"inputs": {"scale": 1.0}})["inputs"].scale
        1.0
    """
    unknown = sorted(config.keys() - {field.name for field in fields(Options)} | config.keys() & set(NOT_OURS))
    if unknown:
        raise InputError(f"the configuration has {unknown}, which BaselineCallback does not take")
    arguments = dict(config)
    if isinstance(arguments.get("inputs"), Mapping):
        arguments["inputs"] = _inputs(arguments["inputs"])
    if "target" in arguments:
        arguments["target"] = _tuple(arguments["target"])
    arguments["measures"] = [_declared(measure) for measure in arguments.get("measures", ())]
    return arguments


def _inputs(config: Any) -> Any:
    """`ImageInputs`, or what there is of them by kind of pass, or by the name of the image input."""
    if not isinstance(config, Mapping):
        return config
    if config.keys() <= set(SOURCES) or all(isinstance(reader, Mapping) for reader in config.values()):
        return {source: _inputs(reader) for source, reader in config.items()}
    try:
        return ImageInputs(**{key: _tuple(value) for key, value in config.items()})
    except TypeError as error:
        raise InputError(f"inputs={config!r} does not describe ImageInputs: {error}") from error


def _declared(id: Any) -> CustomMeasure:
    measure = id if isinstance(id, CustomMeasure) else registered(str(id))
    if measure is None:
        raise InputError(
            f"measures has {id!r}, which this process has not declared: import the module with its @measure"
        )
    return measure


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
