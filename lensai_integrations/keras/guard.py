"""What Keras's callbacks lack: to be told last, or of a fit that was cut short, and what is around them.

Which other callbacks there are, and whether anything is held out, stands in the frames of the functions that are
calling us, and nowhere else. They are read there, once, at the start of a fit; where they are not found (another Keras,
another loop), the callback does without them.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from lensai_integrations.keras.private import made_of
from lensai_integrations.measures.wrapped import Names, class_names_of
from lensai_integrations.problems import log


class Last(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells a callback when all others have heard that a fit begins, or an epoch or it ends, where they set weights.

    Args:
        callback: Has `fit_has_begun`, `epoch_is_over` and `fit_is_over`.
    """

    def __init__(self, callback: Any) -> None:
        super().__init__()
        self._callback = weakref.ref(callback)
        self._holder: Callable[[], Any] = lambda: None

    @property
    def joined(self) -> bool:
        """Whether it is told of a fit."""
        return self._holder() is not None

    def join(self, holder: Any) -> None:
        """Stand behind all callbacks of a fit."""
        self._holder = weakref.ref(holder)
        holder.callbacks.append(self)

    def leave(self) -> None:
        """Leave the callbacks of the fit, which may be the user's own; those that are to be told yet are told."""
        holder = self._holder()
        if holder is not None:
            holder.callbacks = [callback for callback in holder.callbacks if callback is not self]
        self._holder = lambda: None

    def on_train_begin(self, logs: Any = None) -> None:
        """Pass it on."""
        callback = self._callback()
        if callback is not None:
            callback.fit_has_begun()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Pass it on."""
        callback = self._callback()
        if callback is not None:
            callback.epoch_is_over()

    def on_train_end(self, logs: Any = None) -> None:
        """Pass it on."""
        callback = self._callback()
        if callback is not None:
            callback.fit_is_over()


def watch(callback: Any, holder: Any) -> None:
    """Have the model given its functions back when the list of callbacks of this fit or pass goes, however it ended.

    Args:
        callback: Has `_fitting`, and `_stop`, which gives them back.
        holder: The list; None if it is not known.
    """
    token = callback._token = object()
    if holder is not None:
        weakref.finalize(holder, left, weakref.ref(callback), token).atexit = False


def left(reference: Callable[[], Any], token: object) -> None:
    """Stop the callback that is referred to, if the fit of this token has gone and it has not noticed.

    Example:
        >>> left(lambda: None, object())
    """
    callback = reference()
    if callback is not None and callback._fitting and callback._token is token:
        callback._stop()


def say(callback: Any, message: str) -> None:
    """Tell the user where Keras tells what it does: below the progress bars, unless those are off.

    Args:
        callback: Knows how much Keras is to tell.
        message: One line.
    """
    if (callback.params or {}).get("verbose", 0):
        sys.stdout.write(f"{message}\n")
    else:
        log.info("%s", message)


_MOST_FRAMES = 50


@dataclass
class Surroundings:
    """What was found around a callback.

    Attributes:
        siblings: The callbacks of the same fit, this one included.
        holder: The list that holds them: it goes when the loop ends, however that ends.
        validates: Whether fit was given validation data; None if that is not known.
        data: What fit was given: to train on, and as validation data; or what `evaluate` was given.
        evaluation: The arguments with which fit calls `evaluate`; None if it validates nothing.
    """

    siblings: list[Any] = field(default_factory=list)
    holder: Any = None
    validates: bool | None = None
    data: tuple[Any, Any] = (None, None)
    evaluation: dict[str, Any] | None = None


def look_around(callback: Any) -> Surroundings:
    """Look for the callback's list and for `fit` among the callers.

    Example:
        >>> look_around(object())
        Surroundings(siblings=[], holder=None, validates=None, data=(None, None), evaluation=None)
    """
    surroundings = Surroundings()
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        names = frame.f_locals
        holder = names.get("self")
        callbacks = getattr(holder, "callbacks", None)
        if (
            surroundings.holder is None
            and isinstance(callbacks, list)
            and any(sibling is callback for sibling in callbacks)
        ):
            surroundings.holder, surroundings.siblings = holder, list(callbacks)
        if frame.f_code.co_name == "evaluate" and "sample_weight" in names and surroundings.data == (None, None):
            surroundings.data = names.get("x"), None
        is_fit = frame.f_code.co_name == "fit" and "validation_data" in names and "epochs" in names
        if is_fit and surroundings.validates is None:
            surroundings.validates = names["validation_data"] is not None
            surroundings.data = names.get("x"), names["validation_data"]
            if surroundings.validates:
                surroundings.evaluation = _evaluation(names)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return surroundings


def _evaluation(names: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of the `evaluate` in `fit`, from what it calls them."""
    if "val_x" not in names:
        return None
    return {
        "x": names["val_x"],
        "y": names.get("val_y"),
        "sample_weight": names.get("val_sample_weight"),
        "batch_size": names.get("validation_batch_size") or names.get("batch_size"),
        "steps": names.get("validation_steps"),
    }


def class_names_in(data: Sequence[Any]) -> Names:
    """What data sets call their classes; of several that differ, none.

    `image_dataset_from_directory` notes it at a `tf.data.Dataset`, of which those are made that `map`, `prefetch` and
    the like return.

    Example:
        >>> class Batches:
        ...     class_names = ["cat", "dog"]
        >>> class Mapped:
        ...     _input_dataset = Batches()
        >>> class_names_in([Mapped(), None]), class_names_in([])
        (('cat', 'dog'), ())
    """
    named = [names for dataset in data if (names := _named(dataset))]
    return named[0] if named and all(names == named[0] for names in named) else ()


def _named(data: Any) -> Names:
    for _ in range(_MOST_FRAMES):
        if data is None:
            break
        if names := class_names_of(data):
            return names
        data = made_of(data)
    return ()
