"""Which weights a model of Keras has, which files have been given them, and which epoch's count in the end.

A digest is of a sample of every weight, so it costs a few reads, and at a pass or a save they are all that is waited
for. Optimizers' averages are swapped in and out by sums, which costs digits: weights that differ by rounding count as
the same as long as both are in this process. Where a callback keeps the best epoch's weights, it is that epoch's that
count.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.problems import pass_on
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.training.weights import Weights, moment, sampled

#: Weights with no more elements than this come to the host whole: cheaper than to pick on the device.
_SMALL: Final = 1 << 16
#: Differences up to this part of a tensor's largest value are rounding.
_ROUNDING: Final = 1e-6
_MOST_FRAMES: Final = 12


@dataclass(frozen=True)
class ModelWeights:
    """What tells the weights of a model from others.

    Attributes:
        weights: The digest.
        samples: The values that it is of; None if they are not known any more.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> before = ModelWeights.of(model)
        >>> _ = model.layers[-1].bias.assign([0.0, 1.0])
        >>> before.same_as(before), before.same_as(ModelWeights.of(model))
        (True, False)
    """

    weights: Weights
    samples: tuple[NDArray[Any], ...] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, model: Any, state: Sequence[Any] = ()) -> ModelWeights:
        """The weights that a model has now; of JAX, where a step holds them, those in its state.

        Args:
            model: The model.
            state: Values of its trainable and its other variables, in its own order.
        """
        by_id: dict[int, Any] = {}  # while a step holds values, variables have none
        for variables, values in zip((model.trainable_variables, model.non_trainable_variables), state, strict=False):
            by_id |= {id(variable): value for variable, value in zip(variables, values, strict=True)}
        described = []
        for variable in model.weights:
            if id(variable) not in by_id:
                by_id[id(variable)] = variable.value
            described.append((str(variable.dtype), tuple(variable.shape), _sample(by_id[id(variable)], variable.shape)))
        return cls(Weights.of(described), tuple(sample for *_, sample in described))

    def same_as(self, other: ModelWeights | None) -> bool | None:
        """Whether two are the same, but for rounding; None if that cannot be told."""
        same = None if other is None else self.weights.same_as(other.weights)
        if same is not False or other is None or self.samples is None or other.samples is None:
            return same
        return all(map(_close, self.samples, other.samples))


def _sample(value: Any, shape: Sequence[int]) -> NDArray[Any]:
    size = int(np.prod(shape, dtype=np.int64))
    places = sampled(size)
    if size <= _SMALL:
        return on_host(value).reshape(-1)[places].copy()
    return on_host(ops.take(ops.reshape(ops.stop_gradient(value), (-1,)), places))


def on_host(value: Any) -> NDArray[Any]:
    """The value of a variable as numpy; formats that numpy lacks as float32."""
    value = ops.stop_gradient(value)
    narrow = "bfloat16" in str(value.dtype) or "float8" in str(value.dtype)
    return np.asarray(to_host(ops.cast(value, "float32") if narrow else value))


def averages(optimizer: Any) -> bool:
    """Whether an optimizer puts averages in the place of the weights when a fit ends.

    Example:
        >>> import keras
        >>> averages(keras.optimizers.SGD(use_ema=True)), averages(None)
        (True, False)
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return any(getattr(single, "use_ema", False) for single in getattr(inner, "optimizers", [inner]))


def _close(one: NDArray[Any], other: NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    first, second = one.astype(np.float64), other.astype(np.float64)
    largest = np.nanmax(np.abs(first), initial=0.0)
    return bool(np.allclose(first, second, rtol=0.0, atol=_ROUNDING * float(largest), equal_nan=True))


@dataclass(frozen=True)
class Saved:
    """A file that a model was saved to.

    Attributes:
        path: As Keras was given it.
        weights: Those that it was given.
        stamp: Size and time of the file then; None if it is none on a disk.
        when: In words.
    """

    path: str
    weights: ModelWeights
    stamp: tuple[int, int] | None
    when: str = ""

    @property
    def name(self) -> str:
        """Its name without the folder."""
        return self.path.replace("\\", "/").rsplit("/", maxsplit=1)[-1]

    def is_there(self) -> bool:
        """Whether it is still there as it was saved."""
        return stamp_of(self.path) == self.stamp

    def holds(self, weights: ModelWeights | None) -> bool:
        """Whether it has these weights, and is still there."""
        return bool(self.weights.same_as(weights)) and self.is_there()


def stamp_of(path: str) -> tuple[int, int] | None:
    """What changes when a file is written anew; None if there is no such file.

    Example:
        >>> stamp_of("no such file") is None
        True
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        pass_on(error)
        return None
    return status.st_size, status.st_mtime_ns


class Saves:
    """Watches a model being saved by one callback: the last file, and the weights that it was given.

    What `model.save` and `model.save_weights` do is not changed; from `start` to `stop` they also tell.

    Args:
        model: The model.
        keeper: The callback.
        caught: What goes wrong in here is caught in it.

    Attributes:
        last: The last file; None so far.
    """

    def __init__(self, model: Any, keeper: Any, caught: Callable[[], Any]) -> None:
        self._model, self._keeper, self._caught = model, keeper, caught
        self.last: Saved | None = None

    def start(self) -> None:
        """Watch from now on."""
        for name in ("save", "save_weights"):
            telling = self._model.__dict__.get(name)
            if not isinstance(telling, _Telling):
                telling = self._model.__dict__[name] = _Telling(getattr(self._model, name))
            telling.listeners.append(self._saved)

    def stop(self) -> None:
        """Watch no longer; a model that nobody watches is as it was."""
        for name in ("save", "save_weights"):
            telling = self._model.__dict__.get(name)
            if isinstance(telling, _Telling) and self._saved in telling.listeners:
                telling.listeners.remove(self._saved)
                if not telling.listeners:
                    del self._model.__dict__[name]

    def _saved(self, path: Any) -> None:
        with self._caught():
            names = [names for names in _callers() if names.get("self") is self._keeper]
            if names:
                where = str(os.fspath(path))
                self.last = Saved(where, ModelWeights.of(self._model), stamp_of(where), _when(names))


def _when(callers: Sequence[Mapping[str, Any]]) -> str:
    """When a callback saves, from the arguments that it was called with."""
    arguments = next((names for names in callers if isinstance(names.get("epoch"), int)), {})
    batch = arguments.get("batch")
    return (
        moment(None, arguments.get("epoch")) if batch is None else f"after batch {batch} of epoch {arguments['epoch']}"
    )


class _Telling:
    """A method of a model that tells which file it has written."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self.listeners: list[Callable[[Any], None]] = []

    def __call__(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        result = self._method(filepath, *args, **kwargs)
        for listener in self.listeners:
            listener(filepath)
        return result


def _callers() -> Iterator[Mapping[str, Any]]:
    """The variables of the methods that are calling."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return
        yield frame.f_locals
        frame = frame.f_back


#: Under what a kept profile's info has the file with its weights, so that a resumed fit knows it.
FILE = "file"


@dataclass(frozen=True)
class SeenPass:
    """What there is when a pass has ended.

    Attributes:
        profiles: The latest complete profile by source.
        source: That of the reference.
        weights: Those that the reference was made with; None if they changed, or are not known.
    """

    profiles: Mapping[str, Profile]
    source: str
    weights: ModelWeights | None = None

    @property
    def reference(self) -> Profile | None:
        """The reference, if there is one."""
        return self.profiles.get(self.source)

    @property
    def epoch(self) -> int | None:
        """The epoch, from 0, of the reference."""
        return None if self.reference is None else self.reference.info.get("epoch")

    def is_of(self, weights: ModelWeights | None) -> bool:
        """Whether the reference was made with these weights."""
        return self.weights is not None and bool(self.weights.same_as(weights))


class BestEpoch:
    """Watches the callback that keeps the best weights, and keeps the profiles of the pass that was made with them.

    That is KerasTuner's `SaveBestEpoch`, else `EarlyStopping(restore_best_weights=True)`, whose best weights the model
    has in the end, else `ModelCheckpoint(save_best_only=True)`. Of one that restores, the epoch is the best that has
    just ended when its best value changes. Of one that saves, it is the one whose weights were saved: at the end of an
    epoch these may be others than validation had, or those of a step between.

    Args:
        siblings: The callbacks of a fit.
        model: The model, to watch it being saved.
        caught: What goes wrong in watching is caught in it.

    Attributes:
        kept: What was seen with the weights that are kept; None so far.
        tuner: KerasTuner's callback.
        restores: Whether the callback gives the model the best weights in the end.

    Example:
        >>> stopping = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
        >>> best = BestEpoch([stopping])
        >>> best.begin()
        >>> stopping.best = 0.5
        >>> best.look(SeenPass({}, "validation")), best.look(SeenPass({}, "validation"))
        (True, False)
    """

    def __init__(
        self, siblings: Sequence[Any] = (), model: Any = None, caught: Callable[[], Any] = nullcontext
    ) -> None:
        stopping = [
            sibling
            for sibling in siblings
            if isinstance(sibling, keras.callbacks.EarlyStopping) and sibling.restore_best_weights
        ]
        saving = [sibling for sibling in siblings if isinstance(sibling, keras.callbacks.ModelCheckpoint)]
        best = [sibling for sibling in saving if sibling.save_best_only]
        within = [sibling for sibling in saving if sibling.save_freq != "epoch"]
        self.tuner = next((sibling for sibling in siblings if is_tuners(sibling)), None)
        keeper = next(iter([*([self.tuner] if self.tuner else []), *stopping, *best, *within]), None)
        self.restores = keeper in stopping
        self._keeps = keeper is not None and (self.restores or keeper is self.tuner or keeper in best)
        self._keeper = keeper
        self._saves = None if keeper is None or self.restores else Saves(model, keeper, caught)
        self._known: Any = None
        self.kept: SeenPass | None = None

    @property
    def saved(self) -> Saved | None:
        """The file that was saved last, if there is one."""
        return None if self._saves is None else self._saves.last

    @property
    def epoch(self) -> int | None:
        """The epoch, from 0, that a callback says it restores."""
        return getattr(self._keeper, "best_epoch", None) if self.restores else None

    def begin(self) -> None:
        """A fit begins: what is the best by now is of before."""
        self._known = self._state()
        if self._saves is not None:
            self._saves.start()

    def resume(self, kept: SeenPass) -> None:
        """Take over what was kept before a fit was interrupted."""
        file = None if kept.reference is None else kept.reference.info.get(FILE)
        self.kept = kept if kept.profiles else None
        if self._saves is not None and kept.weights is not None and isinstance(file, Mapping):
            stamp = file["stamp"]
            self._saves.last = Saved(str(file["path"]), kept.weights, None if stamp is None else tuple(stamp))

    def look(self, seen_pass: SeenPass) -> bool:
        """An epoch has ended: keep what was seen, if its weights are kept.

        Returns:
            Whether they are, and were not before.
        """
        before, self._known = self._known, self._state()
        new, saved = before != self._known, self.saved
        if saved is not None and seen_pass.weights is not None:  # saved before validation has had them, too
            new = seen_pass.is_of(saved.weights) and not (self.kept is not None and self.kept.is_of(saved.weights))
        if not (self._keeps and new):
            return False
        self.kept = seen_pass
        if saved is not None and seen_pass.reference is not None:
            seen_pass.reference.info[FILE] = {"path": saved.path, "stamp": saved.stamp}
        return True

    def stop(self) -> None:
        """The fit is over."""
        if self._saves is not None:
            self._saves.stop()

    def _state(self) -> Any:
        if self._saves is not None:
            return self._saves.last
        best = getattr(self._keeper, "best", None)
        return None if best is None else repr(float(best)), getattr(self._keeper, "best_epoch", None)  # NaN is NaN


def is_tuners(callback: Any) -> bool:
    """Whether it is the one with which KerasTuner keeps the best epoch of a trial, and knows what is best.

    Example:
        >>> is_tuners(keras.callbacks.History())
        False
    """
    names = ("objective", "best_value", "filepath")
    return type(callback).__name__ == "SaveBestEpoch" and all(hasattr(callback, name) for name in names)
