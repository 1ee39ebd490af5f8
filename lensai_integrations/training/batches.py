"""What is taken from a batch before the model sees it: copies of the images and of the labels.

Copies, because a training step may normalise or augment in place, and what is profiled is what the step was handed.
Beside a forward pass the copy costs nothing that can be measured. Arrays that cannot be written to (JAX's and
TensorFlow's) are taken as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from array_api_compat import is_numpy_array, is_torch_array

from lensai_integrations.arrays import Array, is_array
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import Found, Key, NoNamesError, SeveralError, locate
from lensai_integrations.measures.inputs import ImageInputs, normalization_of
from lensai_integrations.training.problems import Problems

#: Where a dict's labels are looked for.
LABEL_KEYS: Final = ("label", "labels", "target", "targets", "y", "class")


@dataclass(frozen=True)
class Taken:
    """What was taken from a batch; None where there is nothing or it is not wanted.

    Attributes:
        images: A copy of the images: an array, or a list of arrays of one image each.
        labels: A copy of the labels.
        place: Key or place of the labels in the batch.
        segments: What the rows are told apart by, `[n]` strings, whole numbers or None.
    """

    images: Found
    labels: Array | Sequence[str] | None
    place: int | str | None
    segments: list[Any] | None = None


class Reader(Protocol):
    """Takes images and labels from batches."""

    @property
    def inputs(self) -> ImageInputs | None:
        """How to read what `take` returns as images."""
        ...

    def take(self, batch: Any) -> Taken:
        """Copies of the images and labels of a batch."""
        ...


class BatchReader:
    """Takes images and labels from batches.

    Args:
        inputs: How to read the images, or None to leave them.
        target: Place or key of the labels, `"auto"` to look for them, or None to leave them.
        problems: Where it is reported what a batch lacks.
        segment_by: Key of what rows are told apart by, in batches that are dicts; None if by nothing of the batch.
    """

    def __init__(
        self,
        inputs: ImageInputs | None,
        target: int | str | None,
        problems: Problems,
        segment_by: str | None = None,
    ) -> None:
        self._inputs, self._target, self._problems, self._segment_by = inputs, target, problems, segment_by
        self._place: Key = None
        self._several: SeveralError | None = None

    @property
    def inputs(self) -> ImageInputs | None:
        """How to read what `take` returns as images."""
        return None if self._inputs is None else replace(self._inputs, key=None)

    def take(self, batch: Any) -> Taken:
        """Copies of the images and labels of a batch."""
        images = labels = place = segments = None
        if self._inputs is not None:
            with self._problems.caught("inputs"):
                images = _copy(self._located(batch, self._inputs))
        with self._problems.caught("labels"):
            place, found = find_labels(batch, self._target)
            labels = _copy(found)
        if self._segment_by is not None:
            with self._problems.caught("segments"):
                segments = _values_under(batch, self._segment_by)
        return Taken(images, labels, place, segments)

    def _located(self, batch: Any, inputs: ImageInputs) -> Found:
        """The images, found in the first batch that has any, and in the others where they were in that."""
        if self._several is not None:
            raise self._several.with_traceback(None)
        if self._place is not None:
            return locate(batch, self._place, inputs.layout).images
        try:
            found = locate(batch, inputs.key, inputs.layout)
        except SeveralError as error:
            self._several = error
            raise
        except NoNamesError as error:  # of two loaders, only one may make dicts
            found = locate(batch, None, inputs.layout)
            self._problems.note("images", f"{error}; what looks like images there, at {found.place}, is read")
        self._place = found.place
        if found.note:
            self._problems.note("images", found.note)
        return found.images


def image_inputs(inputs: ImageInputs | str | None, loader: Any, problems: Problems) -> ImageInputs | None:
    """How the images of a loader are read: as given, or `"auto"` with the normalisation its data set applies.

    Example:
        >>> image_inputs("auto", None, Problems())
        ImageInputs(layout='auto', scale='auto', mean=None, std=None, key=None, kind='any', channels='auto', ...)
    """
    if not isinstance(inputs, str):
        return inputs
    with problems.caught("inputs"):
        found = normalization_of(getattr(loader, "dataset", None))
        if found is not None:
            return ImageInputs(mean=found[0], std=found[1])
    return ImageInputs()


def find_labels(batch: Any, target: int | str | None) -> tuple[int | str | None, Any]:
    """Key or place of the labels of a batch, and the labels; None and None if there are none.

    With `"auto"`, the second of a tuple or the usual key of a dict, if that is one label per image; masks, boxes and
    the like are none.

    Raises:
        InputError: If `target` is given and the batch has no such place or key.

    Example:
        >>> find_labels({"image": 0, "label": ["cat", "dog"]}, "auto")
        ('label', ['cat', 'dog'])
    """
    if target is None:
        return None, None
    if target == "auto":
        place = _usual_place(batch)
        return (None, None) if place is None or not _is_one_per_image(batch[place]) else (place, batch[place])
    try:
        return target, batch[target]
    except (KeyError, IndexError, TypeError) as error:
        held = f"a dict of {list(batch)}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise InputError(f"target={target!r} is not in the batch, which is {held}: pass a key or a place") from error


def _usual_place(batch: Any) -> int | str | None:
    if isinstance(batch, Mapping):
        return next((key for key in LABEL_KEYS if key in batch), None)
    return 1 if isinstance(batch, list | tuple) and len(batch) > 1 else None


def _is_one_per_image(labels: Any) -> bool:
    if isinstance(labels, list | tuple):
        return bool(labels) and all(isinstance(label, str) for label in labels)
    shape = getattr(labels, "shape", None)
    return shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1))


def _copy(values: Any) -> Any:
    if isinstance(values, list) and all(map(is_array, values)):
        return [_copy(value) for value in values]
    if is_torch_array(values):
        return values.detach().clone()
    return values.copy() if is_numpy_array(values) else values


def _values_under(batch: Any, key: str) -> list[Any]:
    """A batch's whole numbers or strings under a key. Waits for an accelerator."""
    if not isinstance(batch, Mapping) or key not in batch:
        held = f"a dict of {list(batch)}" if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
        raise InputError(f"segment_by={key!r} is not in the batch, which is {held}: pass 'label' or a key of the batch")
    return batch[key].tolist() if hasattr(batch[key], "tolist") else list(batch[key])
