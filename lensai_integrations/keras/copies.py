"""A callback, its copies, and the models that they are fitted with: none takes the place of another's baseline.

KerasTuner copies callbacks for every trial, and cross-validation fits model after model with one callback. The first
model's baseline is in the folder that was asked for, the others' in folders that are numbered. Where a tuner says what
is better, every trial has a folder by its name, and the folder that was asked for has the best trial's so far.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any

from lensai_integrations.profile import Baseline
from lensai_integrations.training.finish import folder_of
from lensai_integrations.training.options import Options
from lensai_integrations.training.tracking import TrackedRun


class Copies:
    """What a callback and its copies know of one another.

    Args:
        origin: The callback that the others are copies of.

    Attributes:
        best: The name of the trial whose baseline is in the folder that was asked for; None so far.
    """

    def __init__(self, origin: Any) -> None:
        self._origin = weakref.ref(origin)
        self._models: list[weakref.ref[Any]] = []
        self._runs: dict[str, list[int]] = {}
        self._values: weakref.WeakKeyDictionary[Any, list[float]] = weakref.WeakKeyDictionary()
        self.best: str | None = None

    def options(self, options: Options, model: Any, run: TrackedRun | None) -> Options:
        """The options with the folder, and the path in this run, for the baseline of a model."""
        number = self._number(model)
        given = self._runs.setdefault(run.run_id, []) if run is not None else []
        if number not in given:
            given.append(number)
        place = given.index(number) + 1
        path = options.artifact_path if place == 1 else f"{options.artifact_path}-{place}"
        folder = options.directory if number == 1 else _beside(options, str(number))
        return replace(options, directory=folder, artifact_path=path)

    def _number(self, model: Any) -> int:
        """Which of the models it is, from 1."""
        place = next((place for place, known in enumerate(self._models) if known() is model), None)
        if place is None:
            place = len(self._models)
            self._models.append(weakref.ref(model))
        return place + 1

    def trial(self, keeper: Any, siblings: Sequence[Any]) -> Trial:
        """The trial of a fit, by the tuner's callback in it."""
        return Trial(keeper, siblings, self._values.setdefault(keeper, []))

    def deliver_trial(
        self, trial: Trial, baseline: Baseline | None, options: Options, deliver: Callable[..., Path | None]
    ) -> dict[str, Any] | None:
        """Save the baseline of a trial to its folder, and the best trial's to the one that was asked for.

        Args:
            trial: The trial.
            baseline: Of its best fit so far; None if that was another than the one that has ended.
            options: The callback's.
            deliver: Saves and logs; given a baseline, options, and whether the run gets it.

        Returns:
            What the user's callback has to know then; None if nothing has changed.
        """
        if baseline is not None:
            deliver(baseline, trial.options(options), False)
        best = trial.best()
        if best == self.best and (best != trial.name or baseline is None):
            return None
        if best != trial.name or baseline is None:
            if not (folder := _beside(options, best)).is_dir():
                return None
            baseline = Baseline.load(folder)
        self.best = best
        return {"baseline_": baseline, "directory_": deliver(baseline, options, True)}

    def tell(self, known: Mapping[str, Any]) -> None:
        """Tell the callback that the user has what a copy has made."""
        origin = self._origin()
        if origin is not None and not origin._fitting:
            vars(origin).update(known)


def _beside(options: Options, name: str) -> Path:
    folder = folder_of(options, Path.cwd())
    return folder.with_name(f"{folder.name}-{name}")


class Trial:
    """A trial of KerasTuner, of which a fit is one of several or the only one.

    Args:
        keeper: Its `SaveBestEpoch`, which is the same for all fits of a trial.
        siblings: The callbacks of the fit.
        values: The best value of each of its fits.

    Attributes:
        name: That of its folder.
    """

    def __init__(self, keeper: Any, siblings: Sequence[Any], values: list[float]) -> None:
        self._objective = keeper.objective
        tuner = next((each.tuner for each in siblings if hasattr(each, "tuner") and hasattr(each, "trial")), None)
        self._others = getattr(getattr(tuner, "oracle", None), "trials", {})
        self.name = Path(str(keeper.filepath)).parent.name
        self._values = values

    def options(self, options: Options) -> Options:
        """The options with the folder of the trial."""
        return replace(options, directory=_beside(options, self.name))

    def add(self, history: Mapping[str, Sequence[Any]]) -> None:
        """Add a fit, of which this is the history by metric."""
        values = [
            float(self._objective.get_value(logs)) for logs in by_epoch(history) if self._objective.has_value(logs)
        ]
        if values:
            self._values.append(reduce(self._better, values))

    def best(self) -> str:
        """The name of the best trial, in the words of the tuner: by the mean of its fits, the first of equals."""
        scores = {
            f"trial_{name}": each.score
            for name, each in self._others.items()
            if f"trial_{name}" != self.name and each.score is not None
        }
        if self._values:
            scores[self.name] = fmean(self._values)
        if not scores:
            return self.name
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
