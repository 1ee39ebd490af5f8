"""Any data as a profile, without training: a folder of images, a data set, or a loader of batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path as FilePath
from typing import Any, Final

from lensai_integrations.arrays import is_array, shape_of
from lensai_integrations.conventions import chosen_readers, readers_by_name
from lensai_integrations.errors import InputError
from lensai_integrations.heads import LABELS
from lensai_integrations.measures.batches import Key, fields_of, images_in, is_picture, locate
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.wrapped import class_names_of
from lensai_integrations.profile import Baseline, Profile
from lensai_integrations.profiler import Profiler
from lensai_integrations.raw.collector import Collector, Metadata
from lensai_integrations.raw.files import profile_files
from lensai_integrations.segments import DEFAULT_SEGMENTS, LABEL
from lensai_integrations.training.batches import LABEL_KEYS, BatchReader, Place, image_inputs
from lensai_integrations.training.labels import Parts, Path, by_evidence, inside, part_at, path_of
from lensai_integrations.training.problems import Problems

#: Samples whose values tell which of their parts are labels.
_FIRST_SAMPLES: Final = 256


def profile_dataset(
    data: Any,
    *,
    inputs: ImageInputs | Mapping[str, ImageInputs] | str | None = "auto",
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
        inputs: How images are read; `"auto"`: dtype, shape and the data set's `Normalize` decide. Of batches with
            several image inputs, by name, see `Profiler`.
        target: Key or place of the labels; `"auto"`: the usual names, or the only part that may be some. None: no
            labels.
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
    if isinstance(data, str | FilePath):
        profile = profile_files(data, jobs=num_workers, exif=exif, **settings)
    elif _has_samples(data):
        if isinstance(inputs, Mapping):
            raise InputError("samples are profiled by one image each: pass inputs=ImageInputs(key=...), or batches")
        how = inputs if isinstance(inputs, ImageInputs) else None
        collector = Collector(metadata=metadata, exif=exif, inputs=how, measures=measures, **settings)
        samples = _Samples(data, collector, target, how.key if how is not None else None, limit)
        labels, notes = _collected(samples, num_workers)
        profile = collector.profile(source)
        profile.groups |= labels.groups
        profile.info["warnings"] = [*profile.warnings, *notes, *labels.warnings]
    else:
        problems = Problems()
        given = readers_by_name(inputs) if isinstance(inputs, Mapping) else image_inputs(inputs, data, problems)
        if isinstance(inputs, str) and given == ImageInputs():
            readers = chosen_readers(None, like.reference if isinstance(like, Baseline) else like)
            given = readers.get("", readers)
        key = None if segment_by == LABEL else segment_by
        reader = BatchReader(given or ImageInputs(), target, problems, key, class_names=class_names_of(data))
        profiler = Profiler(inputs=reader.inputs, measures=measures or None, rows=rows, like=like, **settings)
        profile = _of_batches(islice(iter(data), limit), profiler, reader, problems, key)
    profile.info["source"] = source
    if not profile.n:
        raise InputError("data has nothing in it that could be profiled: pass a data set, a loader or a folder")
    return profile


def _has_samples(data: Any) -> bool:
    """Whether it has a length and items, as data sets have and loaders have not."""
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _of_batches(
    batches: Iterable[Any], profiler: Profiler, reader: BatchReader, problems: Problems, key: str | None
) -> Profile:
    for batch in batches:
        taken = reader.take(batch)
        if taken is None:
            continue
        taken = taken.settled()
        if taken.images is None or (key is not None and taken.segments is None):
            missing = "images" if taken.images is None else "segments"
            raise InputError(f"a batch has no {missing} that can be read: {'; '.join(problems.messages)}")
        if isinstance(taken.place, Mapping) and isinstance(taken.class_names, Mapping):
            for name, place in taken.place.items():
                profiler.describe(f"{LABELS}/{name}", read_from=place, **_names(taken.class_names.get(name, ())))
        elif taken.place is not None and not isinstance(taken.place, Mapping):
            profiler.describe(LABELS, read_from=taken.place, **_names(taken.class_names))  # type: ignore[arg-type]
        profiler.update(inputs=taken.images, labels=taken.labels, segments=taken.segments)
    profile = profiler.profile()
    profile.info["warnings"] = [*profile.warnings, *problems.messages]
    return profile


def _names(class_names: Sequence[str]) -> dict[str, Any]:
    return {"class_names": list(class_names)} if class_names else {}


def _collected(samples: _Samples, num_workers: int) -> tuple[Profile, list[str]]:
    """Show all samples to their collector; the labels as a profile, which is empty if there are none, and notes."""
    labels, notes = _Labels(), []
    for shown in _through(samples, num_workers):
        labels.add([parts for parts, _ in shown])
        notes += [note for _, note in shown if note]
    return labels.profile(), notes


def _through(samples: _Samples, num_workers: int) -> Iterable[list[tuple[dict[Path, Any], str]]]:
    torch = sys.modules.get("torch")
    if num_workers and torch is not None:
        loader: Any = torch.utils.data.DataLoader
        return loader(samples, batch_size=64, num_workers=num_workers, collate_fn=list)  # type: ignore[no-any-return]
    return ([samples[i]] for i in range(len(samples)))


class _Labels:
    """The labels of samples: which of their parts that is, the first few hundred samples tell."""

    def __init__(self) -> None:
        self._profiler = Profiler(rows=0)
        self._waiting: list[dict[Path, Any]] = []
        self._paths: tuple[Path, ...] | None = None
        self._problems: list[str] = []

    def add(self, found: list[dict[Path, Any]]) -> None:
        """Take what may be the labels of some samples, by its place in each."""
        self._waiting += found
        if self._paths is not None or len(self._waiting) >= _FIRST_SAMPLES:
            self._take()

    def _take(self) -> None:
        if self._paths is None:
            values: dict[Path, list[Any]] = {}
            for sample in self._waiting:
                for path, value in sample.items():
                    values.setdefault(path, []).append(value)
            self._paths, problem = by_evidence(Parts((0,), values)) if len(values) > 1 else (tuple(values), "")
            self._problems = [f"labels: {problem}"] if problem else []
        waiting, self._waiting = self._waiting, []
        for path in self._paths[:1]:
            labels = [str(sample[path]) for sample in waiting if path in sample]
            if labels:
                self._profiler.update(labels=labels)

    def profile(self) -> Profile:
        """What there was of them."""
        self._take()
        profile = self._profiler.profile()
        profile.info["warnings"] = [*profile.warnings, *self._problems]
        return profile


class _Samples:
    """A data set whose items are shown to a collector, wherever they are made; what is left of them is the label."""

    def __init__(self, data: Any, collector: Collector, target: Place | None, key: Key, limit: int | None) -> None:
        self._data, self._collector, self._target, self._key = data, collector, target, key
        self._n = len(data) if limit is None else min(limit, len(data))

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: int) -> tuple[dict[Path, Any], str]:
        """What may be labels, and of the first sample what is to be said of its images."""
        sample = self._data[index]
        image = _image(sample, self._key)
        labels = _labels(sample, image, self._target)
        self._collector.add(image, sample, next(iter(labels.values())) if len(labels) == 1 else None)
        return labels, _note(sample, image) if index == 0 and self._key is None else ""


def _image(sample: Any, key: Key = None) -> Any:
    """The image of a sample, at a place or wherever it is in it; of several views the first."""
    if is_picture(sample):
        return sample
    try:
        found = locate(sample, key, pictures=True).images
    except InputError:
        if key is not None or fields_of(sample) is not None or not isinstance(sample, list | tuple) or not sample:
            raise
        return sample[0]  # the collector says what is wrong with it
    return found[0] if isinstance(found, list) else found


def _note(sample: Any, image: Any) -> str:
    """What is not read of a sample: images beside the one that is, of as many colours."""
    if is_picture(sample) or is_array(sample):
        return ""
    places: dict[Path, Any] = {}
    for located in images_in(sample):
        several = isinstance(located.images, list)
        for i, each in enumerate(located.images if several else [located.images]):
            places[(*located.place, i) if several else located.place] = each
    others = [
        path if len(path) > 1 else path[0]
        for path, each in places.items()
        if each is not image and _channels(each) == _channels(image)
    ]
    if not others:
        return ""
    return (
        f"inputs: samples have other images beside the one that is read, at {', '.join(map(repr, others))}: settle it"
        f" with inputs=ImageInputs(key=...), e.g. key={others[0]!r} for another"
    )


def _channels(image: Any) -> Any:
    """What tells images from their masks."""
    if is_picture(image):
        return image.mode
    shape = shape_of(image)
    return (len(shape), min(shape[0], shape[-1]))


def _labels(sample: Any, image: Any, target: Place | None) -> dict[Path, Any]:
    """What may be the label of a sample, a plain value, by its place; those with the usual names if there are any."""
    if target is None or is_picture(sample) or not isinstance(sample, Mapping | list | tuple):
        return {}
    if target != "auto":
        found = {path_of(target): part_at(sample, target)}
    else:
        found = {(step,): part for step, part in (inside(sample) or {}).items() if part is not image}
        found = {path: part for path, part in found.items() if path[0] in LABEL_KEYS} or found
    plain = {path: _plain(part) for path, part in found.items()}
    return {path: value for path, value in plain.items() if isinstance(value, int | str)}


def _plain(part: Any) -> Any:
    return part.item() if getattr(part, "ndim", None) == 0 else part
