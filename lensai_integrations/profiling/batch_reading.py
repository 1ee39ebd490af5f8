"""What is taken from a batch before the model sees it: images, measured already or copied, and copies of the labels.

A training step may normalise or augment in place, and what is profiled is what the step was handed. So images are
measured before it, wherever it is settled which they are (`keep`); where it is not, as in the first batch of a model
that may be fed several, what may be images is copied. Arrays that cannot be written to (JAX's and TensorFlow's) are
taken as they are. Where the labels are is decided in `labels.py`, at the end of the first batch: until then all that
may be labels is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

from array_api_compat import is_numpy_array, is_torch_array

from lensai_integrations.arrays.namespaces import is_array, is_host, namespace, shape_of, strings
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import (
    MOST_INPUTS,
    PLAUSIBLE,
    Located,
    NoNamesError,
    SeveralError,
    SeveralImages,
    images_in,
    locate,
    names_of,
    separated,
)
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.layouts import Found
from lensai_integrations.measures.wrapped import Names, names_for, normalization_of
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.conventions import INPUTS
from lensai_integrations.profiles.names import group_of
from lensai_integrations.profiling.labels import (
    LABEL_KEYS,
    Chosen,
    LabelFinder,
    Parts,
    Path,
    Place,
    by_part,
    held,
    inside,
    part_at,
    parts_beside,
    path_of,
    place_of,
)

__all__ = ["LABEL_KEYS", "BatchReader", "Place", "Reader", "Taken", "image_inputs"]


@dataclass(frozen=True)
class Taken:
    """What was taken from a batch; None where there is nothing or it is not wanted.

    Attributes:
        images: A copy of the images: an array, or a list of arrays of one image each; of several image inputs by name.
            Or what was made of them.
        labels: A copy of the labels, or of several by name.
        place: Place of the labels in the batch, or of several by name.
        segments: What the rows are told apart by, `[n]` strings, whole numbers or None: a list, or an array if it lies
            on an accelerator.
        class_names: What the labels' classes are called, as the data set says; of several labels by name.
        settle: Decides, once the model has seen the batch, what of it the images and labels are; None if that is known.
    """

    images: Found
    labels: Any
    place: Place | Mapping[str, Place] | None
    segments: Any = None
    class_names: Sequence[str] | Mapping[str, Sequence[str]] = ()
    settle: Callable[[], Taken] | None = None

    def settled(self) -> Taken:
        """The same with its images and labels decided."""
        return self if self.settle is None else self.settle()


class Reader(Protocol):
    """Takes images and labels from batches."""

    @property
    def inputs(self) -> ImageInputs | Mapping[str, ImageInputs] | None:
        """How to read what `take` returns as images."""
        ...

    def take(self, batch: Any) -> Taken | None:
        """Copies of the images and labels of a batch; None of one that holds nothing."""
        ...


class BatchReader:
    """Takes images and labels from batches.

    Args:
        inputs: How to read the images, of several image inputs by name; or None to leave them.
        target: Place or key of the labels, `"auto"` to look for them, or None to leave them.
        problems: Where it is reported what a batch lacks.
        segment_by: Key of what rows are told apart by, in batches that are dicts; None if by nothing of the batch.
        source: Which kind of pass the batches are of, for messages.
        chosen: Where other passes found the labels by their loss.
        class_names: What the data set calls its classes.
        known: Where the labels of a baseline were.
        several: Whether all images that the model is seen to be fed are read, each as an input of its own.
    """

    def __init__(
        self,
        inputs: ImageInputs | Mapping[str, ImageInputs] | None,
        target: Place | None,
        problems: Problems,
        segment_by: str | None = None,
        *,
        source: str = "",
        chosen: Chosen | None = None,
        class_names: Names = (),
        known: Sequence[Place] = (),
        several: bool = False,
    ) -> None:
        self._problems, self._segment_by, self._source = problems, segment_by, source
        self._by_name: Mapping[str, ImageInputs] | None = inputs if isinstance(inputs, Mapping) else None
        self._inputs = None if isinstance(inputs, Mapping) else inputs
        self._several = several and self._inputs is not None and self._inputs.key is None
        self._fed: frozenset[Path] | None = None
        self._finder = LabelFinder(target, lambda text: self._say("labels", text), chosen, known)
        self._names = class_names
        self._names_at: dict[Path, Sequence[str]] = {}
        key = None if self._inputs is None else self._inputs.key
        self._images_at: Path | None = None if key is None else path_of(key)
        self._knows_images = self._is_open = False

    @property
    def inputs(self) -> ImageInputs | Mapping[str, ImageInputs] | None:
        """How to read what `take` returns as images."""
        return without_key(self._inputs if self._by_name is None else self._by_name)

    def hint_images(self, places: Iterable[Path]) -> None:
        """Tell which parts of a batch the model was seen to be fed; it counts until the images are decided."""
        self._fed = frozenset(places)

    def hint_labels(self, place: Place, head: str = "") -> None:
        """Tell that the loss was given what is at this place as its target; it counts until the labels are decided."""
        self._finder.hint(place, head)

    def take(self, batch: Any, keep: Callable[[Found], Any] | None = None) -> Taken | None:
        """The images of a batch and a copy of its labels; None of one that is None, or has None for its images.

        Args:
            batch: Any batch.
            keep: Makes what is kept of the images, before anything can change them, where it is settled which part of
                the batch they are; None copies them.
        """
        batch = by_part(batch)
        if batch is None or (self._images_at is not None and _is_absent(batch, self._images_at)):
            return None
        images = segments = choice = None
        if not self._is_open:
            with self._problems.caught("inputs"):
                choice = self._choice(batch)
                images = self._images_of(batch, choice)
        if self._segment_by is not None:
            with self._problems.caught("segments"):
                segments = _values_under(batch, self._segment_by)
        taken = Taken(images if images is None else (keep or copy_of)(images), None, None, segments)
        if choice is None and self._finder.paths is not None:
            return self._labelled(taken, batch)
        with self._problems.caught("labels"):
            parts = self._parts(batch, choice.candidates[0].images if choice is not None else images, choice)
            copies = replace(parts, candidates={path: copy_of(leaf) for path, leaf in parts.candidates.items()})
            return replace(taken, settle=lambda: self._settled(taken, copies, choice))
        return taken

    def _choice(self, batch: Any) -> _Choice | None:
        """Of the first batch, what may be several image inputs: the model shows which it is fed. Else None."""
        if not self._several or self._knows_images or self._inputs is None:
            return None
        candidates = images_in(batch, self._inputs.layout)
        if not 1 < len(candidates) <= MOST_INPUTS or candidates[0].likeness > PLAUSIBLE:
            return None
        try:
            usual: Located | InputError = locate(batch, None, self._inputs.layout)
        except InputError as error:
            usual = error
        copies = [replace(located, images=copy_of(located.images)) for located in candidates]
        if isinstance(usual, Located):
            copy = next((located.images for located in copies if located.place == usual.place), None)
            usual = replace(usual, images=copy_of(usual.images) if copy is None else copy)
        return _Choice(copies, [_traced_place(batch, located.place) for located in candidates], usual)

    def _chosen(self, choice: _Choice) -> tuple[Any, Path]:
        """The images that the model is fed: of several inputs by name, of one alone; and where the first are."""
        both = zip(choice.candidates, choice.traced, strict=True)
        fed = [located for located, traced in both if _is_fed(located.images, traced, self._fed or frozenset())]
        self._several = False
        if not fed:
            if isinstance(choice.usual, InputError):
                self._is_open = True  # a later batch with only one of them does not settle it
                raise choice.usual
            self._know(choice.usual)
            return choice.usual.images, choice.usual.place
        if len(fed) == 1:
            self._know(replace(fed[0], note=""))
            return fed[0].images, fed[0].place
        names = names_of([located.place for located in fed])
        reader = self._inputs or ImageInputs()
        self._by_name = {name: replace(reader, key=located.place) for name, located in zip(names, fed, strict=True)}
        self._knows_images = True
        return SeveralImages(zip(names, (located.images for located in fed), strict=True)), fed[0].place

    def _images_of(self, batch: Any, choice: _Choice | None) -> Any:
        if choice is not None:
            return None
        if self._by_name is not None:
            return self._find_several(batch, self._by_name)
        return None if self._inputs is None else self._find_images(batch, self._inputs)

    def _find_several(self, batch: Any, readers: Mapping[str, ImageInputs]) -> Any:
        """The images of each input, by name."""
        images, note = several_images(batch, readers, self._problems)
        if note:
            self._say("images", note)
        return SeveralImages(images) or None

    def _find_images(self, batch: Any, inputs: ImageInputs) -> Found:
        """The images: found in the first batch, and in the others where they were in that."""
        if self._knows_images and self._images_at:
            with suppress(InputError):
                images = part_at(batch, self._images_at)
                if is_array(images):
                    return images
        try:
            located = locate(batch, self._images_at, inputs.layout)
        except SeveralError:
            self._is_open = True  # a later batch with only one of them does not settle it
            raise
        except NoNamesError:
            if self._knows_images:
                raise
            located = locate(batch, None, inputs.layout)
            self._say(
                "inputs",
                f"key={inputs.key!r} is not in the batches of {self._source or 'this pass'}, which are {held(batch)}:"
                f" the images at {place_of(located.place)!r} are read; pass inputs={{'training': ImageInputs(...),"
                " 'validation': ImageInputs(...)} to say how each kind of batch is read",
            )
        if not self._knows_images:
            self._know(located)
        return located.images

    def _know(self, located: Located) -> None:
        """From now on the images are there."""
        self._knows_images, self._images_at = True, located.place
        if located.note:
            self._say("images", located.note)

    def _parts(self, batch: Any, images: Any, choice: _Choice | None) -> Parts:
        path = (self._images_at or ()) if choice is None else choice.candidates[0].place
        if isinstance(images, Mapping):
            read = images_in(batch)
            first = (read[0].images, read[0].place) if read else (None, ())
            return _without(parts_beside(batch, *first), [located.place for located in read])
        if images is None:
            with suppress(InputError):
                located = locate(batch)
                images, path = located.images, located.place
        return parts_beside(batch, images, path)

    def _settled(self, taken: Taken, parts: Parts, choice: _Choice | None) -> Taken:
        if choice is not None:
            with self._problems.caught("inputs"):
                images, place = self._chosen(choice)
                taken = replace(taken, images=images)
                read = [located.place for located in choice.candidates] if isinstance(images, Mapping) else [place]
                parts = replace(_without(parts, read), images=place)
        with self._problems.caught("labels"):
            self._finder.decide(parts)
            return self._with_labels(taken, {path: parts.candidates[path] for path in self._finder.paths or ()})
        return taken

    def _labelled(self, taken: Taken, batch: Any) -> Taken:
        """What was taken, with labels whose place is known."""
        with self._problems.caught("labels"):
            labels: dict[Path, Any] = {}
            for path in self._finder.paths or ():
                if _is_absent(batch, path):
                    continue
                labels_at_path = part_at(batch, path if len(path) > 1 else path[0])
                for inner, leaf in _named_parts(labels_at_path, path).items():
                    if leaf is not None and not self._is_unread(inner, leaf):
                        labels[inner] = copy_of(leaf)
            return self._with_labels(taken, labels)
        return taken

    def _is_unread(self, path: Path, leaf: Any) -> bool:
        unread = not is_array(leaf) and inside(leaf) is not None
        if unread:
            lacking = isinstance(leaf, list) and any(entry is None for entry in leaf)
            what = "nothing for some images" if lacking else "a dict, or several parts, per image"
            self._say(
                "labels",
                f"what is at target={place_of(path)!r} has {what}, which is not read as labels: pass the place of one"
                " entry or one row of numbers per image, or target=None",
            )
        return unread

    def _with_labels(self, taken: Taken, labels_by_path: Mapping[Path, Any]) -> Taken:
        if len(labels_by_path) > 1:
            heads = self._finder.heads
            places = {heads.get(path) or _name(path, labels_by_path): place_of(path) for path in labels_by_path}
            labels = dict(zip(places, labels_by_path.values(), strict=True))
            by_key = isinstance(self._names, dict)  # what one list says is of one of them, and not of which
            names = {
                name: self._named(path, leaf) if by_key else ()
                for name, (path, leaf) in zip(places, labels_by_path.items(), strict=True)
            }
            return replace(taken, labels=labels, place=places, settle=None, class_names=names)
        for path, leaf in labels_by_path.items():
            return replace(taken, labels=leaf, place=place_of(path), settle=None, class_names=self._named(path, leaf))
        return replace(taken, settle=None)

    def _named(self, path: Path, labels: Any) -> Sequence[str]:
        """The names of the classes at a path, if the first labels are such. Waits for an accelerator, once."""
        if path not in self._names_at:
            names = names_for(self._names, path[-1])
            fit = len(names) > 1 and (are_numbers_of(labels, len(names)) or are_names_of(labels, names))
            self._names_at[path] = names if fit else ()
        return self._names_at[path]

    def _say(self, topic: str, text: str) -> None:
        """Say it, once for all passes that it is true of, however large their batches are."""
        said = [_sizeless(message) for message in self._problems.messages]
        if not any(_sizeless(text) in message for message in said):
            is_said = any(message.startswith(f"{topic}: ") for message in self._problems.messages)
            self._problems.note(f"{topic} of {self._source}" if is_said else topic, text)


def several_images(batch: Any, readers: Mapping[str, ImageInputs], problems: Problems) -> tuple[dict[str, Found], str]:
    """The images of each of several inputs, by name, and what is to be said of how they were told apart.

    One that is not there is a problem, and the others are read.

    Args:
        batch: A batch, or what of it the model is fed.
        readers: How they are read, by name.
        problems: Where it is reported what the batch lacks.
    """
    layouts = {reader.layout for reader in readers.values()}
    layout = layouts.pop() if len(layouts) == 1 else "auto"
    by_input = separated(batch, {name: reader.key for name, reader in readers.items()}, layout)
    images = {}
    for name, reader in readers.items():
        with problems.caught(group_of(INPUTS, name)):
            if name in by_input.missing:
                raise by_input.missing[name]
            images[name] = locate(by_input.parts[name], None, reader.layout).images
    return images, by_input.note


@dataclass(frozen=True)
class _Choice:
    """Copies of what may be the images of several inputs.

    Attributes:
        candidates: Each of them.
        traced: Their places, named fields by position.
        usual: What is read of them where nothing shows what the model is fed; or why nothing is.
    """

    candidates: list[Located]
    traced: list[Path]
    usual: Located | InputError


def without_key(
    inputs: ImageInputs | Mapping[str, ImageInputs] | None,
) -> ImageInputs | dict[str, ImageInputs] | None:
    """How images are read that were taken out of their batch: one reader, several by name, or None.

    Example:
        >>> without_key({"left": ImageInputs(key=1)}) == {"left": ImageInputs()}
        True
    """
    if isinstance(inputs, Mapping):
        return {name: replace(reader, key=None) for name, reader in inputs.items()}
    return replace(inputs, key=None) if isinstance(inputs, ImageInputs) else None


def _without(parts: Parts, read: Sequence[Path]) -> Parts:
    """The parts beside the images, without further images that are read."""
    kept = [{path: leaf for path, leaf in some.items() if path not in read} for some in (parts.views, parts.unread)]
    return replace(parts, views=kept[0], unread=kept[1])


def _is_fed(images: Found, path: Path, fed: frozenset[Path]) -> bool:
    """Whether images are among what a model was fed; of a list each of them, which in samples all have one place."""
    if isinstance(images, list) and path not in fed:
        return fed.issuperset((*path, i) for i in range(len(images)))
    return any(fed_path[: len(path)] == path for fed_path in fed)


def _traced_place(batch: Any, path: Path) -> Path:
    """A place as a trace tells it, which knows named tuples by position."""
    steps = []
    for step in path:
        names = getattr(batch, "_fields", ())
        steps.append(names.index(step) if step in names else step)
        batch = part_at(batch, step)
    return tuple(steps)


def are_numbers_of(labels: Any, classes: int) -> bool:
    """Whether labels are whole numbers of so many classes, or rows with a number for each.

    Example:
        >>> import numpy as np
        >>> are_numbers_of(np.array([0, 9]), 10), are_numbers_of(np.array([1, 10]), 10), are_numbers_of(["cat"], 1)
        (True, False, False)
    """
    if not is_array(labels):
        return not isinstance(labels, str) and all(isinstance(label, int) and 0 <= label < classes for label in labels)
    shape = shape_of(labels)
    if len(shape) == 2 and shape[1] > 1:
        return shape[1] == classes
    if not shape[0] or not namespace(labels).isdtype(labels.dtype, "integral"):
        return False
    return int(labels.min()) >= 0 and int(labels.max()) < classes


def are_names_of(labels: Any, names: Sequence[str]) -> bool:
    """Whether labels are strings, each one of some names.

    Example:
        >>> are_names_of(["cat", "cat"], ["dog", "cat"]), are_names_of(["bird"], ["dog", "cat"])
        (True, False)
    """
    texts = strings(labels)
    return texts is not None and set(texts) <= set(names)


def _sizeless(text: str) -> str:
    """A message without the number of rows of the arrays and lists in it."""
    return re.sub(r"\[\d+|of \d+", "", text)


def _is_absent(batch: Any, path: Path) -> bool:
    """Whether a batch has None at a path, or on the way to it."""
    try:
        for step in path:
            batch = part_at(batch, step)
            if batch is None:
                return True
    except InputError:
        pass
    return False


def _named_parts(labels: Any, path: Path) -> dict[Path, Any]:
    """A part as it is, or what a dict or named fields hold, by path."""
    parts = None if is_array(labels) else inside(labels)
    if parts is None or not all(isinstance(step, str) for step in parts):
        return {path: labels}
    return {(*path, step): value for step, value in parts.items()}


def _name(path: Path, among: Mapping[Path, Any]) -> str:
    """What one of several labels is called: its key, with those above it if another has the same."""
    alone = sum(path[-1] == candidate[-1] for candidate in among) == 1
    return str(path[-1]) if alone else ".".join(map(str, path))


def image_inputs(
    inputs: ImageInputs | Mapping[str, ImageInputs] | str | None, loader: Any, problems: Problems
) -> ImageInputs | Mapping[str, ImageInputs] | None:
    """How the images of a loader are read: as given, or `"auto"` with the normalisation its data set applies.

    Example:
        >>> image_inputs("auto", None, Problems())
        ImageInputs(layout='auto', scale='auto', mean=None, std=None, key=None, kind='any', channels='auto', ...)
    """
    if not isinstance(inputs, str):
        return inputs
    with problems.caught("inputs"):
        normalization = normalization_of(getattr(loader, "dataset", None))
        if normalization is not None:
            return ImageInputs(mean=normalization[0], std=normalization[1])
    return ImageInputs()


def copy_of(values: Any) -> Any:
    """Arrays, or lists or several inputs of such, in memory of their own; what cannot be written to as it is.

    Example:
        >>> import numpy as np
        >>> images = np.zeros((2, 8, 8, 3))
        >>> copy_of(images) is images
        False
    """
    if isinstance(values, SeveralImages):
        return SeveralImages((name, copy_of(images)) for name, images in values.items())
    if isinstance(values, list) and all(map(is_array, values)):
        return [copy_of(value) for value in values]
    if is_torch_array(values):
        return values.detach().clone()
    return values.copy() if is_numpy_array(values) else values


def _values_under(batch: Any, key: str) -> Any:
    """A batch's whole numbers or strings under a key; a copy of those on an accelerator, where they lie."""
    if not isinstance(batch, Mapping) or key not in batch:
        raise InputError(
            f"segment_by={key!r} is not in the batch, which is {held(batch)}: pass 'label' or a key of the batch"
        )
    values = batch[key]
    if is_array(values) and not is_host(values):
        return copy_of(values)
    return values.tolist() if hasattr(values, "tolist") else list(values)
