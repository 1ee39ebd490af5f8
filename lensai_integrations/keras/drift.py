"""`DriftCallback`: a monitor beside `model.predict` and `model.evaluate`.

Steps are listened to as in a fit (`KerasDriftFit`), by functions that are exchanged for the time of a pass
(`functions.py`); what they hand out goes to a `DriftMonitor` (`training/drift.py`).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import keras

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import InputError
from lensai_integrations.keras.answer import Answer
from lensai_integrations.keras.fit import KerasFit, together
from lensai_integrations.keras.guard import look_around, say, watch
from lensai_integrations.keras.layers import Layer, find_layer, layer_again
from lensai_integrations.keras.taps import PREDICT, Feeding, Tap, Taps
from lensai_integrations.keras.taps import TEST as TEST_STEPS
from lensai_integrations.keras.weights import ModelWeights
from lensai_integrations.measures.arguments import documented
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.monitoring.events import Event, WindowReport
from lensai_integrations.monitoring.monitor import DriftMonitor
from lensai_integrations.monitoring.sinks.base import Sink
from lensai_integrations.problems import Problems, guarded
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import OUTPUTS, head_of, is_labels
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.training.drift import DriftOptions, Monitored, Passes
from lensai_integrations.training.fit import PREDICTION, TEST
from lensai_integrations.training.layers import KnownLayer, SeveralAlikeError, known_output, not_in
from lensai_integrations.training.recording import LAYER, Recording
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
            watch(self, around.holder)
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


class KerasDriftFit(Monitored, KerasFit):
    """A model whose passes are monitored, one after the other.

    Args:
        passes: The monitor.
        model: The model.
        say: Tells the user.
    """

    def __init__(self, passes: Passes, model: Any, say: Callable[[str], None]) -> None:
        self.passes, self.say = passes, say
        super().__init__(replace(passes.options.reading(), segment_by=None), model, _labels_known(passes.options))

    def _attached(self, model: Any, problems: Problems) -> Taps:
        return attach_known(model, self.passes.options, problems, self._steps.place)

    def complete(self, source: str, *, whole: bool = True, **info: Any) -> None:
        """End a pass; if it was cut short, by the exception that is handled now."""
        super().complete(source, whole=whole, error=None if whole else sys.exception())

    def _sample_weights(self, kind: str, arguments: Sequence[Any]) -> None:
        """A monitor keeps no profile that says of which weights it is."""

    def _measure(self, recording: Recording, handed_out: Mapping[str, Any]) -> None:
        """On the host: a window cuts batches to all sizes, and each would be compiled for JAX and TensorFlow."""
        batch = {key: together(values) for key, values in handed_out.items()}
        if keras.backend.backend() != "torch":
            batch = {key: to_host(values) for key, values in batch.items()}
        super()._measure(recording, batch)


def _labels_known(options: DriftOptions) -> dict[str, int | str]:
    """Where in `y` the labels of the baseline were, by head, if it was made in Keras: elsewhere places are others."""
    made_by = options.baseline.info.get("made_by", {}) if isinstance(options.baseline, Baseline) else {}
    locations = {
        head_of(name): group.info.get("read_from")
        for name, group in options.reference.groups.items()
        if is_labels(name)
    }
    return (
        {head: location for head, location in locations.items() if isinstance(location, int | str)}
        if "keras" in made_by
        else {}
    )


def attach_known(
    model: Any, options: DriftOptions, problems: Problems, where: Callable[[], Any] = lambda: None
) -> Taps:
    """Taps on the layers that the baseline knows, and on the one that its outputs are of.

    What the baseline's callback found by itself is found here in the same way, whatever its layers are called by now. A
    layer that the model does not have is a problem, and the others are read; without the layer of the outputs, what
    the model itself answers is read.
    """
    reference = options.reference
    taps, auto_layers = [], [known_layer for known_layer in options.known if known_layer.auto]
    for known_layer in options.known:
        if not known_layer.auto:
            with problems.caught(LAYER + known_layer.name):
                layer, note = _found(model, reference, known_layer)
                taps.append(Tap(LAYER + known_layer.name, layer, known_layer.reduce))
                if note := note or not_in(reference, known_layer):
                    problems.note(LAYER + known_layer.name, note)
    groups = reference.groups
    heads = [name for name in groups if name.split("/")[0] == OUTPUTS] if options.outputs is True else []
    auto = bool(heads) and all(groups[name].info.get("auto", False) for name in heads)
    if OUTPUTS in heads and not auto:
        taps.append(Tap(OUTPUTS, _output(model, reference)))
    if isinstance(options.outputs, str):
        with problems.caught(OUTPUTS):
            taps.append(Tap(OUTPUTS, find_layer(model, options.outputs)))
    answer = Answer(model, problems, outputs=auto or (bool(heads) and OUTPUTS not in heads), layers=bool(auto_layers))
    reduces = {known_layer.name: known_layer.reduce for known_layer in auto_layers}
    feeding = Feeding(lambda name: reduces.get(name, "mean"), [known_layer.name for known_layer in auto_layers], heads)
    _say_if_fewer(answer, auto_layers, problems)
    _say_if_activated(answer, groups, problems)
    return Taps(taps, problems, where, answer, feeding)


def _say_if_fewer(answer: Answer, auto_layers: Sequence[KnownLayer], problems: Problems) -> None:
    if auto_layers and answer.settled and len(answer.embeddings) != len(auto_layers):
        problems.note(
            "layers",
            f"the baseline has the embeddings {', '.join(layer.name for layer in auto_layers)}, but"
            f" {len(answer.embeddings)} are found in this model: pass layers={{...}}, from these names to those"
            " of the layers here",
        )


def _say_if_activated(answer: Answer, groups: Mapping[str, Group], problems: Problems) -> None:
    """Behind a softmax or a sigmoid the same columns mean something else than the logits of the baseline."""
    for name, how in answer.heads.items() if answer.outputs else ():  # else a layer is read that the baseline names
        group = answer.group_of(name)
        info = groups[group].info if group in groups else {}
        kind, ended_so = info.get("kind"), info.get("activation") == how.activation
        if kind in ("logits", "multilabel_logits") and how.activation in ("softmax", "sigmoid") and not ended_so:
            problems.note(
                f"{group} activated",
                f"{group} of the baseline are {kind}, but this model ends in a {how.activation}: they differ by that"
                " alone. Make the baseline with this model, by model.predict(..., callbacks=[BaselineCallback()])",
            )


def _found(model: Any, reference: Profile, known_layer: KnownLayer) -> tuple[Layer, str]:
    """A layer by its place or path in the model of the baseline, or else by its name there; and what is to be said."""
    if known_layer.named:
        return find_layer(model, known_layer.path), ""
    settle = f"pass layers={{{known_layer.name!r}: '...'}} with the name of the layer here that is meant"
    position = (
        reference.groups[LAYER + known_layer.name].info.get("place")
        if LAYER + known_layer.name in reference.groups
        else None
    )
    try:
        layer, note = layer_again(model, known_layer.path, position)
    except SeveralAlikeError as error:
        raise InputError(f"{error}: {settle}") from None
    except InputError as error:
        with suppress(InputError):
            return find_layer(model, known_layer.name), ""
        raise InputError(f"{error}; {settle}") from None
    return layer, note and f"{note}; else {settle}"


def _output(model: Any, reference: Profile) -> Layer:
    path = known_output(reference)
    if path is not None:
        with suppress(InputError):
            layer, note = layer_again(model, path, reference.groups[OUTPUTS].info.get("place"))
            if not note:
                return layer
    return Layer(model.name, model)
