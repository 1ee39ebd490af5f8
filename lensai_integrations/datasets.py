"""Any data as a profile, without training: a folder of images, a data set, or a loader of batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import USUAL_KEYS
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.profiler import Profiler
from lensai_integrations.raw.collector import Collector, Metadata
from lensai_integrations.raw.files import profile_files
from lensai_integrations.raw.reading import is_picture
from lensai_integrations.segments import DEFAULT_SEGMENTS, LABEL
from lensai_integrations.training.batches import LABEL_KEYS, BatchReader, Place, image_inputs
from lensai_integrations.training.labels import part_at
from lensai_integrations.training.problems import Problems


def profile_dataset(
    data: Any,
    *,
    inputs: ImageInputs | str | None = "auto",
    target: Place | None = "auto",
    metadata: Mapping[str, Metadata] | None = None,
    exif: Sequence[str] = (),
    measures: Sequence[CustomMeasure] = (),
    convention: str | Sequence[str] | None = None,
    k: int = 200,
    rows: int = 2000,
    seed: int = 0,
    segment_by: str | None = None,
    max_segments: int = DEFAULT_SEGMENTS,
    like: Baseline | Profile | None = None,
    num_workers: int = 0,
    limit: int | None = None,
    source: str = "dataset",
) -> Profile:
    """Profile data without any training.

    What the profile holds depends on what is given:

    * a folder or a pattern of image files: `raw`, `metadata/...` and, from folders, `labels`; see `profile_files`;
    * a data set of samples, i.e. something with a length and items: each sample's image as it is, of any size, as
      `raw`, with `metadata/...` and `labels`;
    * anything else that can be iterated, a loader for example: its batches as a model would be fed them, as `inputs`
      and `labels`, comparable with a baseline's.

    Args:
        data: One of these. A sample or batch is an image (or several), or a tuple or dict with one in it.
        inputs: How images are read; `"auto"`: dtype, shape and the data set's `Normalize` decide.
        target: Key or place of the labels; `"auto"`: the usual ones. None: no labels.
        metadata: Of samples: functions by name, each given the sample.
        exif: Of files and Pillow's images: what of the EXIF data is kept.
        measures: Custom measures of samples and batches, functions decorated with `measure`.
        convention: Of the image measures. Of batches it may be several, see `Profiler`; None: the first of `like`, or
            `"lensai"`.
        k: Size of the KLL sketches.
        rows: Of batches: how many rows the joint sample keeps.
        seed: Of what is random in the sketches.
        segment_by: Keeps a profile for each value beside the whole: by `"label"`; of files by `"format"`, `"mode"` or a
            name in `exif`; of samples by these or a name in `metadata`; of batches that are dicts by a key.
        max_segments: How many values get one, first come, first served; the others share the segment "other".
        like: Of batches: a baseline, to read and sketch as it was.
        num_workers: Of torch data sets and of files: worker processes.
        limit: Only so many samples or batches.
        source: What the profile is of.

    Raises:
        InputError: If there is nothing in it, or it cannot be read.

    Example:
        >>> import numpy as np
        >>> pictures = [(np.full((8, 6 + i, 3), i, np.uint8), "cat") for i in range(5)]
        >>> profile = profile_dataset(pictures)
        >>> profile.groups["raw"].n, profile.groups["labels"].categories[""].top(1)
        (5, [('cat', 5)])
    """
    if segment_by == LABEL and target is None:
        raise InputError("segment_by='label' needs labels: leave target='auto', or name their place")
    settings: dict[str, Any] = {"convention": convention, "k": k, "seed": seed}
    settings |= {"segment_by": segment_by, "max_segments": max_segments}
    if isinstance(data, str | Path):
        profile = profile_files(data, jobs=num_workers, exif=exif, **settings)
    elif _has_samples(data):
        how = inputs if isinstance(inputs, ImageInputs) else None
        collector = Collector(metadata=metadata, exif=exif, inputs=how, measures=measures, **settings)
        labels = _collected(data, collector, target, num_workers, limit)
        profile = collector.profile(source)
        if labels is not None:
            profile.groups["labels"] = labels.groups["labels"]
    else:
        how = image_inputs(inputs, data, Problems())
        profiler = Profiler(inputs=how, measures=measures or None, rows=rows, like=like, **settings)
        profile = _of_batches(data, profiler, target, None if segment_by == LABEL else segment_by, limit)
    profile.info["source"] = source
    if not profile.n:
        raise InputError("data has nothing in it that could be profiled: pass a data set, a loader or a folder")
    return profile


def _has_samples(data: Any) -> bool:
    """Whether it has a length and items, as data sets have and loaders have not."""
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _of_batches(
    batches: Iterable[Any], profiler: Profiler, target: Place | None, key: str | None, limit: int | None
) -> Profile:
    problems = Problems()
    reader = BatchReader(ImageInputs(), target, problems, key)
    for batch in islice(iter(batches), limit):
        taken = reader.take(batch)
        if taken is None:
            continue
        taken = taken.settled()
        if taken.images is None or (key is not None and taken.segments is None):
            missing = "images" if taken.images is None else "segments"
            raise InputError(f"a batch has no {missing} that can be read: {'; '.join(problems.messages)}")
        profiler.update(inputs=taken.images, labels=taken.labels, segments=taken.segments)
    return profiler.profile()


def _collected(
    data: Any, collector: Collector, target: Place | None, num_workers: int, limit: int | None
) -> Profile | None:
    """Show all samples to the collector; the labels as a profile, or None."""
    samples = _Samples(data, collector, target, len(data) if limit is None else min(limit, len(data)))
    labels = Profiler(rows=0)
    for found in _through(samples, num_workers):
        if found:
            labels.update(labels=[str(label) for label in found])
    profile = labels.profile()
    return profile if "labels" in profile.groups else None


def _through(samples: _Samples, num_workers: int) -> Iterable[list[Any]]:
    torch = sys.modules.get("torch")
    if num_workers and torch is not None:
        loader: Any = torch.utils.data.DataLoader
        return loader(samples, batch_size=64, num_workers=num_workers, collate_fn=_known)  # type: ignore[no-any-return]
    return ([label] if (label := samples[i]) is not None else [] for i in range(len(samples)))


def _known(labels: list[Any]) -> list[Any]:
    return [label for label in labels if label is not None]


class _Samples:
    """A data set whose items are shown to a collector, wherever they are made; what is left of them is the label."""

    def __init__(self, data: Any, collector: Collector, target: Place | None, n: int) -> None:
        self._data, self._collector, self._target, self._n = data, collector, target, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> Any:
        sample = self._data[index]
        label = _label(sample, self._target)
        self._collector.add(_image(sample), sample, label)
        return label


def _image(sample: Any) -> Any:
    """The image of a sample: the sample, the first of a tuple, or the usual key of a dict."""
    if isinstance(sample, Mapping):
        key = next((key for key in USUAL_KEYS if key in sample), None)
        if key is None:
            raise InputError(f"a sample has none of {', '.join(USUAL_KEYS)}, only {list(sample)}")
        return sample[key]
    return sample[0] if isinstance(sample, list | tuple) and sample else sample


def _label(sample: Any, target: Place | None) -> Any:
    """One label as a plain value; None without."""
    if target is None or is_picture(sample) or not isinstance(sample, Mapping | list | tuple):
        return None
    if target != "auto":
        label = part_at(sample, target)
    elif isinstance(sample, Mapping):
        label = next((sample[key] for key in LABEL_KEYS if key in sample), None)
    else:
        label = sample[1] if len(sample) > 1 else None
    if getattr(label, "ndim", None) == 0 and label is not None:
        label = label.item()
    return label if isinstance(label, int | str) else None
