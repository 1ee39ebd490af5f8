"""Images as a `tf.data` pipeline delivers them, profiled where they pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import find_images
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.profiling.image_reading import Metadata
from lensai_integrations.profiling.raw_rows import RAW
from lensai_integrations.profiling.sampling import BUDGET


def profile_images(
    dataset: Any,
    *,
    name: str = RAW,
    metadata: Mapping[str, Metadata] | None = None,
    inputs: ImageInputs | None = None,
    measures: Sequence[CustomMeasure] = (),
    convention: str | Sequence[str] | None = None,
    k: int = 200,
    seed: int = 0,
    segment_by: str | None = None,
    max_segments: int = DEFAULT_SEGMENTS,
    budget: float | None = BUDGET,
) -> Any:
    """The same `tf.data.Dataset`, whose images are profiled when they pass, before what is applied to it later.

    A `BaselineCallback` finds it in the data that `fit` is given, and its profile becomes a group of the baseline;
    without one, `dataset.collector.profile()` gives it. What passes is not changed; the pixels are measured in host
    memory, in the threads of the pipeline.

    Args:
        dataset: Its elements are images `[H, W, C]`, batches `[n, H, W, C]`, or tuples and dicts with one in them, the
            first or under its usual name: uint8, uint16, or floats inside [0, 1].
        name: Of the group.
        metadata: Functions by name, each given an element with numpy arrays in it; see `ProfileImages`.
        inputs: How other numbers are read: `ImageInputs(mean=..., std=...)`.
        measures: Custom measures, functions decorated with `lensai_integrations.measure`, of one number an image.
        convention: Of the image measures.
        k: Size of the KLL sketches.
        seed: Of what is random in them; nothing else is touched.
        segment_by: A name in `metadata`, or `"mode"`: keeps a profile for each value beside the whole; see
            `lensai_integrations.transforms.ProfileImages`.
        max_segments: How many values get one, first come, first served; the others share the segment "other".
        budget: Share of a thread's time that measuring may take, or None to measure every image; see `ProfileImages`.
            An element with several images is measured or left out whole.

    Raises:
        InputError: If it is no `tf.data.Dataset`, or an argument is not one of these.

    Example:
        >>> import tensorflow as tf  # doctest: +SKIP
        >>> delivered = profile_images(tf.data.Dataset.from_tensor_slices(images))  # doctest: +SKIP
        >>> model.fit(delivered.map(resized).batch(64), callbacks=[BaselineCallback()])  # doctest: +SKIP
    """
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        raise InputError(
            f"dataset should be a tf.data.Dataset, not {type(dataset).__name__}: for other data use"
            " lensai_integrations.transforms.ProfileImages"
        )
    collector = Collector(
        name=name,
        metadata=metadata,
        inputs=inputs,
        measures=measures,
        convention=convention,
        k=k,
        seed=seed,
        segment_by=segment_by,
        max_segments=max_segments,
        labels=False,
        budget=budget,
    )

    def look(element: Any, arrays: list[Any]) -> bool:
        sample = tf.nest.pack_sequence_as(element, arrays)
        collector.add(find_images(sample, inputs.key if inputs is not None else None), sample)
        return True

    def pass_on(*element: Any) -> Any:
        sample = element if len(element) > 1 else element[0]
        leaves = tf.nest.flatten(sample)
        noted = tf.numpy_function(lambda *arrays: look(sample, list(arrays)), leaves, tf.bool)
        with tf.control_dependencies([noted]):
            return tf.nest.map_structure(tf.identity, sample)

    profiled = dataset.map(pass_on)
    profiled.collector = collector
    return profiled


def profile_dataset(dataset: Any, **arguments: Any) -> Any:
    """`profile_images` by its former name, which at the top level is that of a function that returns a profile."""
    warnings.warn("keras.profile_dataset is called keras.profile_images now", DeprecationWarning, stacklevel=2)
    return profile_images(dataset, **arguments)
