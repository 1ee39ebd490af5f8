"""What a person would want to know of one batch before training on a million like it.

Only what the numbers show: which of red and blue comes first, no batch tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import strings, to_host
from lensai_integrations.measures.batches import by_shape
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import SUM_TOLERANCE
from lensai_integrations.measures.pixels import OVERSHOOT
from lensai_integrations.profiles.conventions import input_of, is_images
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import for_head

#: Mean brightness of a batch beyond which a photograph is nearly black, or nearly white.
DARKEST, LIGHTEST = 15.0, 240.0
#: A contrast below this is no picture.
FLAT: Final = 1.0
#: Rows from which on it says something that all are alike.
SEVERAL: Final = 8


@dataclass(frozen=True)
class SeenGroup:
    """A group of one batch, and the array it was measured from.

    Attributes:
        group: The group.
        array: Images, answers or labels, as they were taken from the batch.
    """

    group: Group
    array: Any

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The values as float64 in host memory; of images all pixels on the 0-255 scale, not cut off; texts: none."""
        if strings(self.array) is not None:
            return np.empty(0)
        if is_images(self.group.name):
            return np.concatenate([each.reshape(-1) for each in self.pixels])
        return np.asarray(to_host(self.array), np.float64)

    @cached_property
    def pixels(self) -> list[NDArray[np.float64]]:
        """Images `[n, C, H, W]` on the 0-255 scale, not cut off, an array for each of their sizes."""
        reader = ImageInputs(**{**self.group.info["reader"], "key": None})
        found = []
        for _, array in by_shape(self.array):
            images = reader.read(array)
            gain, offset = (np.array(each, np.float64)[:, None, None] for each in (images.gain, images.offset))
            found.append(np.asarray(to_host(images.pixels) * gain + offset, np.float64))
        return found

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest finite value; NaN if there is none."""
        finite = self.values[np.isfinite(self.values)]
        return (float(finite.min()), float(finite.max())) if finite.size else (math.nan, math.nan)

    def stream(self, name: str) -> NDArray[Any]:
        """The values of a stream that the sketch keeps, all of them for a few hundred rows; none without the stream."""
        bank = self.group.bank
        if bank is None or name not in self.group.streams or not bank.n:
            return np.empty(0)
        values, weights = bank.sorted_view()
        row = self.group.streams.index(name)
        return np.repeat(values[row], weights[row])


def suspicions(seen: Sequence[SeenGroup]) -> list[str]:
    """A sentence for everything that looks wrong, and what to do about it.

    Example:
        >>> suspicions([])
        []
    """
    found = []
    for each in seen:
        which = f"{each.group.name}: " if input_of(each.group.name) else ""
        found += [which + text for text in _ABOUT.get(each.group.name.split("/")[0], _nothing)(each)]
    return found


def _images(seen: SeenGroup) -> Iterator[str]:
    low, high = seen.range
    if low < -OVERSHOOT or high > 255 + OVERSHOOT:
        yield (
            f"pixels reach from {low:.4g} to {high:.4g} on the 0-255 scale: mean=, std= or scale= of ImageInputs are"
            " not those that the images were made with"
        )
    brightness = seen.stream("brightness")
    if brightness.size and not DARKEST <= (mean := float(brightness.mean())) <= LIGHTEST:
        yield (
            f"the mean brightness is {mean:.3g} of 255, which is nearly {'black' if mean < DARKEST else 'white'}: are"
            " scale=, mean= and std= of ImageInputs right?"
        )
    if flat := int(np.count_nonzero(seen.stream("contrast") < FLAT)):
        yield f"{flat} of {seen.group.n} images are constant, or nearly: is it the image that is read?"
    yield from _shape(seen)


def _shape(seen: SeenGroup) -> Iterator[str]:
    channels = seen.pixels[0].shape[1]
    for height, width in {each.shape[2:] for each in seen.pixels}:
        if min(height, width) <= 4 < max(height, width):
            yield f"images are {height} x {width} pixels: is layout={seen.group.info['reader']['layout']!r} right?"
            break
    saturation = seen.stream("saturation")
    if channels == 3 and saturation.size and float(saturation.max()) == 0:
        yield "red, green and blue are the same in every pixel: these are grey images"
    if len(seen.pixels) == 1 and len(seen.pixels[0]) >= SEVERAL and float(np.ptp(seen.pixels[0], axis=0).max()) == 0:
        yield f"all {len(seen.pixels[0])} images are the same"


def _outputs(seen: SeenGroup) -> Iterator[str]:
    rows = seen.values.reshape(len(seen.values), -1)
    finite = rows[np.isfinite(rows).all(axis=1)]
    if seen.group.info["kind"] == "logits" and finite.shape[1] > 1 and len(finite):
        inside = finite.min() >= 0 and finite.max() <= 1
        if inside and bool((np.abs(finite.sum(axis=1) - 1) <= SUM_TOLERANCE).all()):
            advice = for_head("pass task='probabilities', or name the layer before the softmax", seen.group.name)
            yield (
                f"{seen.group.name} are read as logits, but they look like probabilities (inside [0, 1], rows sum to"
                f" 1): {advice}"
            )


def _embeddings(seen: SeenGroup) -> Iterator[str]:
    bank = seen.group.bank
    if bank is not None and bank.n >= SEVERAL and bool((bank.min == bank.max).all()):
        yield f"{seen.group.name} is the same for every image"


def _labels(seen: SeenGroup) -> Iterator[str]:
    for sketch in seen.group.categories.values():
        top = sketch.top(2)
        if sketch.n >= SEVERAL and len(top) == 1:
            yield f"all {sketch.n} labels are {top[0][0]!r}: is target= right, and is the loader shuffled?"
    if seen.values.size and not np.isfinite(seen.values).all():
        yield "there are labels that are not finite"


def _nothing(_: SeenGroup) -> Iterator[str]:
    return iter(())


_ABOUT: Final[Mapping[str, Callable[[SeenGroup], Iterator[str]]]] = {
    "inputs": _images,
    "outputs": _outputs,
    "embeddings": _embeddings,
    "labels": _labels,
}
