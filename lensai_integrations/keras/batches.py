"""What is taken from the `(x, y, sample_weight)` of a Keras batch: the images in x, the labels in y.

Until a step has run it may not be known what the heads of the model's answer are, and a step may work in place on what
it is handed. So all of y that may be labels is picked beforehand, and which of it goes with which head is decided when
the step has run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import keras

from lensai_integrations.arrays.namespaces import strings, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.keras.answer import Answer
from lensai_integrations.measures.batches import (
    MOST_INPUTS,
    PLAUSIBLE,
    Located,
    SeveralImages,
    images_in,
    locate,
    names_of,
)
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.wrapped import Names, names_for
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import group_of
from lensai_integrations.profiling.batch_reading import Taken, are_names_of, are_numbers_of, several_images, without_key
from lensai_integrations.profiling.labels import LABEL_KEYS

#: Where y itself is the labels.
Y = "y"
IMAGES, LABELS = "inputs", "labels"


def is_image_key(key: str) -> bool:
    """Whether images are picked under a key, and not labels.

    Example:
        >>> [is_image_key(key) for key in ("inputs", "inputs/left", "labels/0")]
        [True, True, False]
    """
    return key.partition("/")[0] == IMAGES


class KerasBatches:
    """Finds images and labels in batches, in a graph or not.

    Args:
        inputs: How to read the images, of several image inputs by name; or None to leave them.
        target: Key or place of the labels in y, `"auto"` to look for them, or None to leave them.
        problems: Where it is reported what a batch lacks.
        locations: Where the labels of a baseline were, by head: that counts where y has them there.
        several: Whether all images in x are read, each as an input of its own: x is what the model is fed.

    Attributes:
        input_names: What the model calls its inputs; empty if it has no names for them.
        answer: What the model answers; its heads are what labels belong to.
        class_names: What the data set calls its classes.
    """

    def __init__(
        self,
        inputs: ImageInputs | Mapping[str, ImageInputs] | None,
        target: int | str | None,
        problems: Problems,
        locations: Mapping[str, int | str] | None = None,
        *,
        several: bool = False,
    ) -> None:
        self._inputs, self._target, self._problems, self._several = inputs, target, problems, several
        self._known = {head: _key(location) for head, location in (locations or {}).items()}
        self.input_names: Sequence[str] = ()
        self._places: dict[str, int | str] = {}
        self.answer: Answer | None = None
        self.class_names: Names = ()
        self._names_at: dict[int | str, Sequence[str]] = {}
        self._names_of: Names = ()

    @property
    def inputs(self) -> ImageInputs | Mapping[str, ImageInputs] | None:
        """How to read what `take` returns as images."""
        return without_key(self._inputs)

    def pick(self, data: Any) -> dict[str, Any]:
        """The arrays of a batch that are wanted, as they are, symbolic ones too.

        They are `"inputs"`, or of several image inputs `"inputs/<name>"`, and `"labels"` or, of a y with several parts,
        `"labels/<key or place>"`.
        """
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        picked: dict[str, Any] = {}
        if self._inputs is not None:
            with self._problems.caught(IMAGES):
                picked |= self._images(x, self._inputs)
        with self._problems.caught(LABELS):
            self._places = {}
            for location, labels in labels_in(y, self._target).items():
                if self._may_be_labels(location, labels):
                    self._places[_key(location)] = location
                    picked[_key(location)] = labels
        return picked

    def _images(self, x: Any, inputs: ImageInputs | Mapping[str, ImageInputs]) -> dict[str, Any]:
        """The images in x by the name of their group."""
        if isinstance(inputs, Mapping):
            keys = [name if reader.key is None else reader.key for name, reader in inputs.items()]
            images, note = several_images(self._with_names(x, keys), inputs, self._problems)
        elif images_located := self._several_in(x, inputs):
            names = names_of([located.place for located in images_located])
            images, note = dict(zip(names, (located.images for located in images_located), strict=True)), ""
        else:
            located = locate(self._with_names(x, [inputs.key]), inputs.key, inputs.layout)
            images, note = {"": located.images}, located.note
        if note:
            self._problems.note("images", note)
        return {group_of(IMAGES, name): array for name, array in images.items()}

    def _several_in(self, x: Any, inputs: ImageInputs) -> list[Located]:
        """The images of several inputs, if x has as many."""
        if not self._several or inputs.key is not None:
            return []
        located = images_in(self._named_inputs(x), inputs.layout)
        return located if 1 < len(located) <= MOST_INPUTS and located[0].likeness <= PLAUSIBLE else []

    def _with_names(self, x: Any, keys: Sequence[Any]) -> Any:
        """A tuple or list by the model's names, if keys are some of these and none is a place in it."""
        first = {key[0] if isinstance(key, tuple) and key else key for key in keys}
        by_name = first & {*self.input_names} and not any(isinstance(key, int) for key in first)
        return self._named_inputs(x) if by_name else x

    def _named_inputs(self, x: Any) -> Any:
        """A tuple or list by the names that the model has for its inputs."""
        if isinstance(x, list | tuple) and len(x) == len(self.input_names):
            return dict(zip(self.input_names, x, strict=True))
        return x

    def _may_be_labels(self, location: int | str, labels: Any) -> bool:
        shape = getattr(labels, "shape", None)
        if shape is None:
            return isinstance(labels, list | tuple) and bool(labels)
        frames = self.answer is not None and any(how.frames for how in self.answer.heads.values())
        if self._target != "auto" or len(shape) in ((1, 2, 3) if frames else (1, 2)):
            return True
        if len(shape) > 2:
            where = "y" if location == Y else f"y at {location!r}"
            axes = " x ".join("?" if size is None else str(size) for size in shape[1:])
            self._problems.note(
                f"{LABELS} at {location}" if location != Y else LABELS,
                f"{where} has {axes} numbers for each image, a mask or the like, which is not read yet: pass target="
                " the place of one label per image, or target=None",
            )
        return False

    def take(self, picked: Mapping[str, Any]) -> Taken:
        """Images and labels of a batch whose arrays are there by now."""
        several = {group.partition("/")[2]: array for group, array in picked.items() if group.startswith(f"{IMAGES}/")}
        images = SeveralImages(several) if several else picked.get(IMAGES)
        labels_by_key = {key: rows for key, rows in picked.items() if key.split("/")[0] == LABELS}
        by_head = self._by_head(labels_by_key)
        if not by_head:
            return Taken(images, None, None)
        rows = {head: self._rows(head, labels_by_key[key]) for head, key in by_head.items()}
        locations: dict[str, Any] = {head: self._places[key] for head, key in by_head.items()}
        columns = dict(zip(self.answer.heads, self.answer.columns, strict=True)) if self.answer is not None else {}
        known_as = {} if self.answer is None else self.answer.known_as
        if len(rows) > 1 or rows.keys() & known_as.keys() or ("" not in rows and self._has_groups):
            by_key = isinstance(self.class_names, dict)  # what one list says is of one of them, and not of which
            names = {
                head: self._named(labels, locations[head], [columns.get(head)]) if by_key else ()
                for head, labels in rows.items()
            }
            rows, locations, names = (
                {known_as.get(head, head): of_head for head, of_head in parts.items()}
                for parts in (rows, locations, names)
            )
            return Taken(images, rows, locations, class_names=names)
        (labels,), (location,) = rows.values(), locations.values()
        return Taken(images, labels, location, class_names=self._named(labels, location, [*columns.values()]))

    @property
    def _has_groups(self) -> bool:
        return self.answer is not None and self.answer.has_groups

    def _named(self, labels: Any, location: int | str, columns: Sequence[int | None]) -> Sequence[str]:
        """The names of the classes, if labels and answer are of as many. The first labels are waited for."""
        if self._names_of is not self.class_names:
            self._names_at, self._names_of = {}, self.class_names
        if location not in self._names_at:
            names = names_for(self.class_names, location)
            fits = [*columns] == [len(names)] or ([*columns] == [1] and len(names) == 2)
            texts = fits and strings(labels) is not None
            fits = fits and (are_names_of(labels, names) if texts else are_numbers_of(to_host(labels), len(names)))
            self._names_at[location] = names if fits else ()
        return self._names_at[location]

    def _by_head(self, labels_by_key: Mapping[str, Any]) -> dict[str, str]:
        """By head, the key of its labels; of labels that belong to no head, by `""`."""
        if self._known and self._target == "auto" and set(self._known.values()) <= labels_by_key.keys():
            return self._known
        by_head = self._of_several(labels_by_key)
        if not by_head and (key := self._usual(labels_by_key)) is not None:
            by_head = {self._only_head(): key}
        return self._without_placeholders(by_head)

    def _only_head(self) -> str:
        """The head that labels of one kind belong to: the only one, or the only one that they are held against."""
        heads = [] if self.answer is None else list(self.answer.heads)
        if self.answer is not None and len(heads) > 1:
            idle = self.answer.held_against_nothing()
            heads = [head for head in heads if head not in idle]
            if len(heads) > 1 and self.answer.outputs and not self.answer.provisional:
                listed = " and ".join(map(repr, heads))
                self._problems.note(f"{LABELS} of no head", _OF_NO_HEAD.format(listed))
        return heads[0] if len(heads) == 1 else ""

    def _without_placeholders(self, by_head: Mapping[str, str]) -> dict[str, str]:
        """Only what something is held against: Keras wants a `y` for some outputs that have no loss."""
        idle = [] if self.answer is None or self._target != "auto" else self.answer.held_against_nothing()
        locations = [self._places[key] for head, key in by_head.items() if head in idle]
        if locations:
            where = "y" if locations == [Y] else f"y at {', '.join(map(repr, locations))}"
            others = [self._places[key] for head, key in by_head.items() if head not in idle]
            targets = " or ".join(f"target={location!r}" for location in locations)
            advice = f"Pass {targets} if these are labels, or target=None"
            if others:  # which any of these would leave out
                alone = f", or pass target={others[0]!r} for the others alone" if len(others) == 1 else ""
                advice = f"Compile the model with a metric for it if these are labels{alone}"
            self._problems.note(f"{LABELS} without a loss", f"{where} {_PLACEHOLDERS} {advice}")
        return {head: key for head, key in by_head.items() if head not in idle}

    def _of_several(self, labels_by_key: Mapping[str, Any]) -> dict[str, str]:
        """The key of what belongs to each of several heads that is read: by its key, or by its place in a list."""
        heads = [] if self.answer is None else self.answer.names_of_all
        if len(heads) < 2 or not labels_by_key or LABELS in labels_by_key:
            return {}
        by_name = {head: f"{LABELS}/{head}" for head in heads if f"{LABELS}/{head}" in labels_by_key}
        in_order = {
            head: f"{LABELS}/{index}" for index, head in enumerate(heads) if f"{LABELS}/{index}" in labels_by_key
        }
        read = {} if self.answer is None else self.answer.heads
        belong = {head: key for head, key in (by_name or in_order).items() if head in read or not read}
        left = [repr(self._places[key]) for key in labels_by_key if key not in belong.values()]
        if belong and left:
            self._problems.note(
                f"{LABELS} without a head", f"y at {', '.join(left)} is of no head of the model that is read: not read"
            )
        return belong

    def _usual(self, labels_by_key: Mapping[str, Any]) -> str | None:
        """The key of the labels among parts of y that do not belong to heads."""
        keys = [f"{LABELS}/{key}" for key in LABEL_KEYS if f"{LABELS}/{key}" in labels_by_key]
        if LABELS in labels_by_key:
            return LABELS
        if self.answer is not None and (answer_key := f"{LABELS}/{self.answer.key}") in labels_by_key:
            return answer_key
        if keys or len(labels_by_key) == 1:
            return (keys or list(labels_by_key))[0]
        first = f"{LABELS}/0"
        if labels_by_key:
            several = self.answer is not None and len(self.answer.names_of_all) > 1
            answers = "none by the name of an answer of the model" if several else "the model one answer"
            read = f"that at {self._places[first]!r} is read" if first in labels_by_key else "none is read"
            listed = ", ".join(repr(self._places[key]) for key in labels_by_key)
            self._problems.note(
                f"{LABELS} of several",
                f"y has several parts, {listed}, and {answers}: {read};"
                " pass target=, the key or place of the labels, or target=None",
            )
        return first if first in labels_by_key else None

    def _rows(self, head: str, labels: Any) -> Any:
        """Labels as one row per image, or per frame where the head answers frame by frame."""
        how = None if self.answer is None else self.answer.heads.get(head)
        if how is None or not how.frames or len(getattr(labels, "shape", ())) < 2:
            return labels
        rows = (-1, *labels.shape[2:])
        return labels.reshape(rows) if hasattr(labels, "reshape") else keras.ops.reshape(labels, rows)


_OF_NO_HEAD: Final = (
    "the model answers {} and y has one kind of labels for them all: they are profiled, and beside none of the answers."
    " Pass outputs= the layer that answers what they are of, or y as a dict by answer"
)
_PLACEHOLDERS: Final = (
    "is not read: no loss and no metric that the model was compiled with compares it with an answer, so it may be a"
    " placeholder."
)


def _flat(y: Mapping[str, Any]) -> dict[int | str, Any]:
    """A dict whose dicts are taken apart, as `"outer.inner"`."""
    parts: dict[int | str, Any] = {}
    for name, branch in y.items():
        inner = _flat(branch) if isinstance(branch, Mapping) else None
        parts |= {name: branch} if inner is None else {f"{name}.{key}": leaf for key, leaf in inner.items()}
    return parts


def _key(location: int | str) -> str:
    """Under which a part of y is picked."""
    return LABELS if location == Y else f"{LABELS}/{location}"


def input_names_of(model: Any) -> list[str]:
    """What a model calls its inputs; nothing if it has one, or the names are Keras's own, which differ in every run."""
    try:
        names = [str(tensor.name) for tensor in model.inputs]
    except (AttributeError, TypeError, ValueError):  # a subclass, or a model that is not built
        return []
    chosen = len(names) > 1 and not any(
        re.fullmatch(r"(keras_tensor|input|input_layer)(_\d+)?", name) for name in names
    )
    return names if chosen else []


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
        kind = f"a dict of {list(y)}" if isinstance(y, Mapping) else f"a {type(y).__name__}"
        raise InputError(f"target={target!r} is not in y, which is {kind}: pass a key or a place, or 'y'") from error
