"""What is taken from the `(x, y, sample_weight)` of a Keras batch: the images in x, the labels in y.

Until a step has run it may not be known what the heads of the model's answer are, and a step may work in place on what
it is handed. So all of y that may be labels is picked beforehand, and which of it goes with which head is decided when
the step has run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import keras

from lensai_integrations.arrays import strings, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.keras.answer import Answer
from lensai_integrations.measures.batches import locate
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.training.batches import LABEL_KEYS, Taken, are_numbers_of
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
        known: Where the labels of a baseline were, by head: that counts where y has them there.

    Attributes:
        answer: What the model answers; its heads are what labels belong to.
        class_names: What the data set calls its classes.
    """

    def __init__(
        self,
        inputs: ImageInputs | None,
        target: int | str | None,
        problems: Problems,
        known: Mapping[str, int | str] | None = None,
    ) -> None:
        self._inputs, self._target, self._problems = inputs, target, problems
        self._known = {head: _key(place) for head, place in (known or {}).items()}
        self._places: dict[str, int | str] = {}
        self.answer: Answer | None = None
        self.class_names: Sequence[str] = ()
        self._names_of: Sequence[str] = ()

    @property
    def inputs(self) -> ImageInputs | None:
        """How to read what `take` returns as images."""
        return None if self._inputs is None else replace(self._inputs, key=None)

    def pick(self, data: Any) -> dict[str, Any]:
        """The arrays of a batch that are wanted, as they are, symbolic ones too.

        They are `"inputs"`, and `"labels"` or, of a y with several parts, `"labels/<key or place>"`.
        """
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        picked = {}
        if self._inputs is not None:
            with self._problems.caught(IMAGES):
                found = locate(x, self._inputs.key, self._inputs.layout)
                picked[IMAGES] = found.images
                if found.note:
                    self._problems.note("images", found.note)
        with self._problems.caught(LABELS):
            self._places = {}
            for place, labels in labels_in(y, self._target).items():
                if self._may_be_labels(place, labels):
                    self._places[_key(place)] = place
                    picked[_key(place)] = labels
        return picked

    def _may_be_labels(self, place: int | str, labels: Any) -> bool:
        shape = getattr(labels, "shape", None)
        if shape is None:
            return isinstance(labels, list | tuple) and bool(labels)
        frames = self.answer is not None and any(how.frames for how in self.answer.heads.values())
        if self._target != "auto" or len(shape) in ((1, 2, 3) if frames else (1, 2)):
            return True
        if len(shape) > 2:
            where = "y" if place == Y else f"y at {place!r}"
            axes = " x ".join("?" if size is None else str(size) for size in shape[1:])
            self._problems.note(
                f"{LABELS} at {place}" if place != Y else LABELS,
                f"{where} has {axes} numbers for each image, a mask or the like, which is not read yet: pass target="
                " the place of one label per image, or target=None",
            )
        return False

    def take(self, picked: Mapping[str, Any]) -> Taken:
        """Images and labels of a batch whose arrays are there by now."""
        images = picked.get(IMAGES)
        found = {key: rows for key, rows in picked.items() if key.split("/")[0] == LABELS}
        by_head = self._by_head(found)
        if not by_head:
            return Taken(images, None, None)
        rows = {head: self._rows(head, found[key]) for head, key in by_head.items()}
        places: dict[str, Any] = {head: self._places[key] for head, key in by_head.items()}
        if len(rows) > 1 or ("" not in rows and self.answer is not None and self.answer.has_groups):
            return Taken(images, rows, places)
        (labels,), (place,) = rows.values(), places.values()
        return Taken(images, labels, place, class_names=self._named(labels))

    def _named(self, labels: Any) -> Sequence[str]:
        """The names of the classes, if labels and answer are of as many. The first labels are waited for."""
        if self.class_names and self._names_of is not self.class_names:
            columns = [] if self.answer is None else self.answer.columns
            count = len(self.class_names)
            fits = columns == [count] or (columns == [1] and count == 2)
            if not (fits and strings(labels) is None and are_numbers_of(to_host(labels), count)):
                self.class_names = ()
            self._names_of = self.class_names
        return self.class_names

    def _by_head(self, found: Mapping[str, Any]) -> dict[str, str]:
        """By head, the key of its labels; of labels that belong to no head, by `""`."""
        if self._known and self._target == "auto" and set(self._known.values()) <= found.keys():
            return self._known
        by_head = self._of_several(found)
        if not by_head and (key := self._usual(found)) is not None:
            by_head = {self._only_head(): key}
        return self._without_placeholders(by_head)

    def _only_head(self) -> str:
        """The head that labels of one kind belong to: the only one, or the only one that they are held against."""
        heads = [] if self.answer is None else list(self.answer.heads)
        if self.answer is not None and len(heads) > 1:
            idle = self.answer.held_against_nothing()
            heads = [head for head in heads if head not in idle]
            if len(heads) > 1 and self.answer.outputs and not self.answer.provisional:
                told = " and ".join(map(repr, heads))
                self._problems.note(f"{LABELS} of no head", _OF_NO_HEAD.format(told))
        return heads[0] if len(heads) == 1 else ""

    def _without_placeholders(self, by_head: Mapping[str, str]) -> dict[str, str]:
        """Only what something is held against: Keras wants a `y` for some outputs that have no loss."""
        idle = [] if self.answer is None or self._target != "auto" else self.answer.held_against_nothing()
        places = [self._places[key] for head, key in by_head.items() if head in idle]
        if places:
            where = "y" if places == [Y] else f"y at {', '.join(map(repr, places))}"
            advice = " or ".join(f"target={place!r}" for place in places)
            self._problems.note(f"{LABELS} without a loss", _PLACEHOLDERS.format(where, advice))
        return {head: key for head, key in by_head.items() if head not in idle}

    def _of_several(self, found: Mapping[str, Any]) -> dict[str, str]:
        """The key of what belongs to each of several heads that is read: by its key, or by its place in a list."""
        heads = [] if self.answer is None else self.answer.names_of_all
        if len(heads) < 2 or not found or LABELS in found:
            return {}
        by_name = {head: f"{LABELS}/{head}" for head in heads if f"{LABELS}/{head}" in found}
        in_order = {head: f"{LABELS}/{place}" for place, head in enumerate(heads) if f"{LABELS}/{place}" in found}
        read = {} if self.answer is None else self.answer.heads
        belong = {head: key for head, key in (by_name or in_order).items() if head in read or not read}
        left = [repr(self._places[key]) for key in found if key not in belong.values()]
        if belong and left:
            self._problems.note(
                f"{LABELS} without a head", f"y at {', '.join(left)} is of no head of the model that is read: not read"
            )
        return belong

    def _usual(self, found: Mapping[str, Any]) -> str | None:
        """The key of the labels among parts of y that do not belong to heads."""
        keys = [f"{LABELS}/{key}" for key in LABEL_KEYS if f"{LABELS}/{key}" in found]
        if LABELS in found:
            return LABELS
        if self.answer is not None and (own := f"{LABELS}/{self.answer.key}") in found:
            return own
        if keys or len(found) == 1:
            return (keys or list(found))[0]
        first = f"{LABELS}/0"
        if found:
            several = self.answer is not None and len(self.answer.names_of_all) > 1
            answers = "none by the name of an answer of the model" if several else "the model one answer"
            read = f"that at {self._places[first]!r} is read" if first in found else "none is read"
            self._problems.note(
                f"{LABELS} of several",
                f"y has several parts, {', '.join(repr(self._places[key]) for key in found)}, and {answers}: {read};"
                " pass target=, the key or place of the labels, or target=None",
            )
        return first if first in found else None

    def _rows(self, head: str, labels: Any) -> Any:
        """Labels as one row per image, or per frame where the head answers frame by frame."""
        how = None if self.answer is None else self.answer.heads.get(head)
        if how is None or not how.frames or len(getattr(labels, "shape", ())) < 2:
            return labels
        return labels.reshape((-1, *labels.shape[2:])) if hasattr(labels, "reshape") else _reshaped(labels)


_OF_NO_HEAD: Final = (
    "the model answers {} and y has one kind of labels for them all: they are profiled, and beside none of the answers."
    " Pass outputs= the layer that answers what they are of, or y as a dict by answer"
)
_PLACEHOLDERS: Final = (
    "{} is not read: no loss and no metric that the model was compiled with compares it with an answer, so it may be a"
    " placeholder. Pass {} if these are labels, or target=None"
)


def _flat(y: Mapping[str, Any]) -> dict[int | str, Any]:
    """A dict whose dicts are taken apart, as `"outer.inner"`."""
    parts: dict[int | str, Any] = {}
    for name, part in y.items():
        inner = _flat(part) if isinstance(part, Mapping) else None
        parts |= {name: part} if inner is None else {f"{name}.{key}": leaf for key, leaf in inner.items()}
    return parts


def _key(place: int | str) -> str:
    """Under which a part of y is picked."""
    return LABELS if place == Y else f"{LABELS}/{place}"


def _reshaped(labels: Any) -> Any:
    return keras.ops.reshape(labels, (-1, *labels.shape[2:]))


def labels_in(y: Any, target: int | str | None) -> dict[int | str, Any]:
    """By key or place, what may be the labels in y; `"y"` is y itself.

    Raises:
        InputError: If `target` is given and y has no such place or key.

    Example:
        >>> labels_in({"label": [0, 1], "box": [2, 3]}, "label"), labels_in([[0, 1]], "auto")
        ({'label': [0, 1]}, {0: [0, 1]})
    """
    if target is None or y is None:
        return {}
    if target == "auto":
        if isinstance(y, Mapping):
            return _flat(y)
        return dict(enumerate(y)) if isinstance(y, list | tuple) else {Y: y}
    if target == Y and hasattr(y, "shape"):
        return {Y: y}
    try:
        if hasattr(y, "shape"):
            raise TypeError("y is one array")
        return {target: {**y, **_flat(y)}[target] if isinstance(y, Mapping) else y[target]}
    except (KeyError, IndexError, TypeError) as error:
        held = f"a dict of {list(y)}" if isinstance(y, Mapping) else f"a {type(y).__name__}"
        raise InputError(f"target={target!r} is not in y, which is {held}: pass a key or a place, or 'y'") from error
