"""`DriftCallback`: a monitor beside `model.predict` and `model.evaluate`.

Steps are listened to as `BaselineCallback` does it, by functions that are exchanged for the time of a pass
(`functions.py`, `drift_fit.py`); what they hand out goes to a `DriftMonitor` (`training/drift_passes.py`).
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import keras

from lensai_integrations.keras.drift_fit import KerasDriftFit
from lensai_integrations.keras.guard import left, say
from lensai_integrations.keras.steps import PREDICT
from lensai_integrations.keras.steps import TEST as TEST_STEPS
from lensai_integrations.keras.surroundings import look_around
from lensai_integrations.keras.weights import ModelWeights
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs, documented
from lensai_integrations.monitoring.events import Event, WindowReport
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.problems import Problems, guarded
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.training.drift_options import DriftOptions
from lensai_integrations.training.drift_passes import Passes
from lensai_integrations.training.fit import PREDICTION, TEST
from lensai_integrations.training.tracking import active_run


@documented(DriftOptions)
class DriftCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Holds what a model is fed and answers in `predict` and `evaluate` against a baseline.

    Inputs, outputs, labels and the layers that the baseline has embeddings of are handed to a `DriftMonitor`, as far as
    the baseline has them. Predictions and metrics are bit for bit what they are without the callback, and nothing that
    fails in here stops a pass. Every window that is not ok is a line in the log, and every pass ends with one more.
    Windows are logged to the active MLflow run, if any. A validation pass of `fit` is left alone.

    During a pass `model.predict_function` or `model.test_function` is exchanged for one that also hands out what layers
    answer, which is traced and compiled once for a model and a callback. With several replicas there is one monitor.

    Args:
        target: They are in y; `"y"` is y itself.

    Raises:
        InputError: If an argument is wrong.
        LensAIError: If the baseline cannot be loaded.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(outputs=np.random.default_rng(0).normal(size=(100, 3)))
        >>> callback = DriftCallback(Baseline(profiler.profile()), window=50)
        >>> model.predict(photos, callbacks=[callback])  # doctest: +SKIP
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
        reduce: Reduce | Mapping[str, Reduce] | None = None,
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        target: int | str | None = "auto",
        flush: bool = True,
        log_to_mlflow: bool = True,
        monitor: DriftMonitor | None = None,
        **settings: Any,
    ) -> None:
        arguments = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        super().__init__()
        self._passes = Passes(DriftOptions(**arguments))
        self._unused()

    def _unused(self) -> None:
        self._fit: KerasDriftFit | None = None
        self._fitting = False  # whether a pass runs, by the name that `left` knows

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes over, here or in another process: the arguments, and no windows."""
        of_passes = ("_passes", "_fit", "_token", "_model", "params")
        kept = {name: value for name, value in vars(self).items() if name not in of_passes}
        return kept | {"_options": self._passes.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.params = self._model = None
        self._passes = Passes(state["_options"])
        self.__dict__.update({name: value for name, value in state.items() if name != "_options"})
        self._unused()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = memo[id(self)] = type(self).__new__(type(self))
        memo[id(self._passes.options)] = self._passes.options  # a monitor and sinks that were given are for all
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    @property
    def reports_(self) -> list[WindowReport]:
        """The windows of the last pass, oldest first, at most 1000; those that are ok have no profile."""
        return list(self._passes.reports)

    @property
    def monitor_(self) -> DriftMonitor | None:
        """The monitor: its `status` counts what it saw and what went wrong. None before the first pass."""
        return self._passes.monitor

    def on_test_begin(self, logs: Any = None) -> None:
        """Begin a pass, unless it belongs to a fit."""
        self._begin(TEST, TEST_STEPS)

    def on_predict_begin(self, logs: Any = None) -> None:
        """Begin a pass."""
        self._begin(PREDICTION, PREDICT)

    def on_test_end(self, logs: Any = None) -> None:
        """Judge the rows that are left."""
        self._end(TEST)

    def on_predict_end(self, logs: Any = None) -> None:
        """Judge the rows that are left."""
        self._end(PREDICTION)

    def _begin(self, source: str, steps: str) -> None:
        with Problems().caught("starting, so nothing is monitored"):
            around = look_around(self)
            if around.validates is not None:
                return
            self._stop()
            fit, self._fit = self._fit, None
            again = fit is not None and fit.renew(self._model)
            self._fit = fit if again else KerasDriftFit(self._passes, self._model, self._say)
            self._this_fit.on_interruption = self._stop
            self._this_fit.end_others([self, *around.siblings])
            self._watch(around.holder)
        self._start(source, steps)

    @guarded("starting the pass, so nothing is monitored")
    def _start(self, source: str, steps: str) -> None:
        fit, active = self._this_fit, active_run()
        self._passes.begin(fit.problems, runs=[active] if active is not None else [])
        self._passes.check_weights("keras", lambda: ModelWeights.of(self._model).weights)
        fit.record(source, everything=True)
        fit.listen(steps)
        fit.start(source)
        self._fitting = True

    def _watch(self, holder: Any) -> None:
        """The model gets its functions back when the pass's list of callbacks goes, however it ended."""
        token = self._token = object()
        if holder is not None:
            weakref.finalize(holder, left, weakref.ref(self), token).atexit = False

    def _end(self, source: str) -> None:
        if self._fitting:
            self._judge(source)
            self._stop()

    @guarded("ending the pass")
    def _judge(self, source: str) -> None:
        self._this_fit.end(source)

    @guarded("putting the model's functions back")
    def _stop(self) -> None:
        self._fitting = False
        self._this_fit.stop()

    def _say(self, message: str) -> None:
        say(self, message)

    @property
    def _this_fit(self) -> KerasDriftFit:
        assert self._fit is not None
        return self._fit
