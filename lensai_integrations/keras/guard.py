"""What Keras's callbacks lack: to be told last, or of a fit that was cut short, and a place to say things."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import keras

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
            holder.callbacks = [each for each in holder.callbacks if each is not self]
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
