"""What steps have in common on all of Keras's backends; what is of one backend alone is in the module of its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from lensai_integrations.keras.taps import Caught, Taps

#: Kinds of steps by the names that Keras gives them.
TRAIN, TEST, PREDICT = "train", "test", "predict"

#: Picks what is wanted of a batch, which may be symbolic.
Pick = Callable[[Any], dict[str, Any]]
#: Takes what was picked and caught in a step.
Sink = Callable[[dict[str, Any]], None]


class NotProfiledError(Exception):
    """Our function failed before it has changed anything; its arguments are those to call the model's own with."""


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """A context in which an instance has another attribute, past Keras's own bookkeeping of attributes."""
    missing = object()
    before = owner.__dict__.get(name, missing)
    owner.__dict__[name] = value
    try:
        yield
    finally:
        if before is missing:
            owner.__dict__.pop(name, None)
        else:
            owner.__dict__[name] = before


def labelled(kind: str, data: Any) -> bool | None:
    """Whether a step of this kind is given what may be labels, and no second view of the images; None if never.

    Example:
        >>> import numpy as np
        >>> views = np.zeros((2, 2, 8, 8, 3))
        >>> labelled(TRAIN, (views[0], [0, 1])), labelled(TEST, tuple(views)), labelled(PREDICT, (views[0],))
        (True, False, None)
    """
    if kind == PREDICT:
        return None
    _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    return any(part is not None and _axes(part) < 3 for part in keras.tree.flatten(y))


def _axes(part: Any) -> int:
    """How many axes a part of a batch has, symbolic ones too; 0 if that is not known."""
    shape = getattr(part, "shape", ())
    return int(shape.rank or 0) if hasattr(shape, "rank") else len(shape)  # TensorFlow's has no length if it is unknown


def tapped(step: Callable[..., Any], taps: Taps, kind: str) -> Callable[..., tuple[Any, Caught]]:
    """The step, which also returns what its layers answered."""

    def run(*arguments: Any) -> tuple[Any, Caught]:
        with taps.listening(training=kind == TRAIN, labelled=labelled(kind, arguments[-1])) as caught:
            result = step(*arguments)
        return result, caught

    return run
