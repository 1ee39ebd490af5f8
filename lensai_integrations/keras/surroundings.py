"""What `fit` does not tell its callbacks: which other callbacks there are, and whether anything is held out.

Both stand in the frames of the functions that are calling us, and nowhere else. They are read there, once, at the
start of a fit; where they are not found (another Keras, another loop), the callback does without them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lensai_integrations.keras.private import made_of
from lensai_integrations.measures.wrapped import Names, class_names_of

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
    found = Surroundings()
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        names = frame.f_locals
        holder = names.get("self")
        callbacks = getattr(holder, "callbacks", None)
        if found.holder is None and isinstance(callbacks, list) and any(each is callback for each in callbacks):
            found.holder, found.siblings = holder, list(callbacks)
        if frame.f_code.co_name == "evaluate" and "sample_weight" in names and found.data == (None, None):
            found.data = names.get("x"), None
        is_fit = frame.f_code.co_name == "fit" and "validation_data" in names and "epochs" in names
        if is_fit and found.validates is None:
            found.validates = names["validation_data"] is not None
            found.data = names.get("x"), names["validation_data"]
            if found.validates:
                found.evaluation = _evaluation(names)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return found


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
    found = [names for each in data if (names := _named(each))]
    return found[0] if found and all(names == found[0] for names in found) else ()


def _named(data: Any) -> Names:
    for _ in range(_MOST_FRAMES):
        if data is None:
            break
        if names := class_names_of(data):
            return names
        data = made_of(data)
    return ()
