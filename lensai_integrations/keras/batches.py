"""What is taken from the `(x, y, sample_weight)` of a Keras batch: the images in x, the labels in y."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from lensai_integrations.arrays import to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import locate
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.training.batches import LABEL_KEYS, Taken
from lensai_integrations.training.problems import Problems

#: Where y itself is the labels.
Y = "y"
IMAGES, LABELS = "inputs", "labels"


class KerasBatches:
    """Finds images and labels in batches, in a graph or not.

    Args:
        inputs: How to read the images, or None to leave them.
        target: Key or place of the labels in y, `"auto"` to look for them, or None to leave them.
        problems: Where it is reported what a batch lacks.
    """

    def __init__(self, inputs: ImageInputs | None, target: int | str | None, problems: Problems) -> None:
        self._inputs, self._target, self._problems = inputs, target, problems
        self._are_classes: bool | None = None
        self.place: int | str | None = None

    @property
    def inputs(self) -> ImageInputs | None:
        """How to read what `take` returns as images."""
        return None if self._inputs is None else replace(self._inputs, key=None)

    def pick(self, data: Any) -> dict[str, Any]:
        """The arrays of a batch that are wanted, as they are, symbolic ones too: `"inputs"` and `"labels"`."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        picked = {}
        if self._inputs is not None:
            with self._problems.caught(IMAGES):
                found = locate(x, self._inputs.key, self._inputs.layout)
                picked[IMAGES] = found.images
                if found.note:
                    self._problems.note("images", found.note)
        with self._problems.caught(LABELS):
            self.place, labels = labels_in(y, self._target)
            if labels is not None:
                picked[LABELS] = labels
        return picked

    def take(self, picked: Mapping[str, Any]) -> Taken:
        """Images and labels of a batch whose arrays are there by now."""
        labels = picked.get(LABELS)
        if labels is not None and len(labels.shape) == 2 and labels.shape[1] > 1:
            if self._are_classes is None:
                self._are_classes = self._target != "auto" or are_classes(to_host(labels))
            labels = labels if self._are_classes else None
        return Taken(picked.get(IMAGES), labels, None if labels is None else self.place)


def labels_in(y: Any, target: int | str | None) -> tuple[int | str | None, Any]:
    """Key or place of the labels in y, and the labels; None and None if there are none.

    With `"auto"`: y itself, the first of several, or the usual key of a dict, if it has one value or one row of
    classes per image; masks, boxes and the like are none.

    Raises:
        InputError: If `target` is given and y has no such place or key.

    Example:
        >>> labels_in({"label": np.arange(3), "box": np.zeros((3, 2, 2))}, "auto")
        ('label', array([0, 1, 2]))
    """
    if target is None or y is None:
        return None, None
    if target == "auto":
        place, found = _usual(y)
        return (place, found) if len(getattr(found, "shape", ())) in (1, 2) else (None, None)
    if target == Y and hasattr(y, "shape"):
        return Y, y
    try:
        if hasattr(y, "shape"):
            raise TypeError("y is one array")
        return target, y[target]
    except (KeyError, IndexError, TypeError) as error:
        held = f"a dict of {list(y)}" if isinstance(y, Mapping) else f"a {type(y).__name__}"
        raise InputError(f"target={target!r} is not in y, which is {held}: pass a key or a place, or 'y'") from error


def _usual(y: Any) -> tuple[int | str | None, Any]:
    if isinstance(y, Mapping):
        keys = [key for key in LABEL_KEYS if key in y] or (list(y) if len(y) == 1 else [])
        return (keys[0], y[keys[0]]) if keys else (None, None)
    if isinstance(y, list | tuple):
        return (0, y[0]) if y else (None, None)
    return Y, y


def are_classes(rows: Any) -> bool:
    """Whether `[n, C]` is a class per row, one-hot or soft: nothing negative, and rows that sum to 1.

    Example:
        >>> are_classes(np.eye(3)), are_classes(np.ones((2, 3)))
        (True, False)
    """
    return bool((rows >= 0).all() and np.allclose(rows.sum(axis=1), 1, atol=1e-3))
