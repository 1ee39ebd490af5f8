"""Any data as a profile, without training: a folder of images, a data set, or a loader of batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path as FilePath
from typing import Any, Final

from lensai_integrations.arrays.namespaces import is_array, shape_of, to_host
from lensai_integrations.arrays.tensorflow import is_tensorflow_array
from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import COMMON, check_numbers, documented
from lensai_integrations.measures.batches import Key, fields_of, images_in, is_picture, locate
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.wrapped import class_names_of
from lensai_integrations.problems import Problems, log
from lensai_integrations.profiles.conventions import chosen_readers, convention_of, delivered_in, readers_by_name
from lensai_integrations.profiles.names import DEFAULT_SEGMENTS, LABEL, LABELS
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.batch_reading import BatchReader, image_inputs
from lensai_integrations.profiling.delivered_images import Collector
from lensai_integrations.profiling.image_files import profile_files
from lensai_integrations.profiling.image_reading import Metadata
from lensai_integrations.profiling.labels import LABEL_KEYS, Parts, Path, Place, by_evidence, inside, part_at, path_of
from lensai_integrations.profiling.profiler import Profiler
from lensai_integrations.profiling.raw_rows import RAW
from lensai_integrations.profiling.sampling import checked_budget
from lensai_integrations.profiling.settings import NOT_DECLARED, chosen_measures

#: Samples whose values tell which of their parts are labels.
_FIRST_SAMPLES: Final = 256


@documented(COMMON, only=("measures", "convention", "k", "rows", "seed", "max_segments"))
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
    budget: float | None = None,
    limit: int | None = None,
    source: str = "dataset",
) -> Profile:
    """Profile data without any training.

    What the profile holds depends on what is given:

    * a folder or a pattern of image files: `raw`, `metadata/...` and, from folders, `labels`; see `profile_files`;
    * samples, that is a list, an array or a data set (something with a length and items), or anything that can be
      iterated and gives one image at a time: each sample's image as it is, of any size, as `raw`, with `metadata/...`
      and `labels`;
    * batches, of a loader for example: as a model would be fed them, as `inputs` and `labels`, comparable with a
      baseline's.

    An argument that has no meaning for what is given is an error.

    Args:
        data: One of these. A sample or batch is an image (or several), or a tuple or dict with one in it. A pair of
            arrays `(images, labels)` is as many samples.
        inputs: How images are read, not of files; `"auto"`: dtype, shape and the data set's `Normalize` decide. Of
            samples that are Pillow's images only `key` counts. Of batches with several image inputs, by name, see
            `Profiler`.
        target: Key or place of the labels; `"auto"`: the usual names, or the only part that may be some; of files, the
            names of their folders. None: no labels.
        metadata: Of samples: functions by name, each given the sample; of files, each given Pillow's image, whose
            `filename` is the path.
        exif: Of files and Pillow's images: what of the EXIF data is kept.
        measures: Where one fails is in the profile's warnings.
        convention: Of batches it may be several, see `Profiler`; None: the first of `like`, or `"lensai"`.
        segment_by: Keeps a profile for each value beside the whole: by `"label"`; of files by `"format"`, `"mode"` or a
            name in `exif` or `metadata`; of samples by these; of batches that are dicts by a key.
        like: A baseline, to read and sketch as it was: of files and samples one with images as they were delivered,
            whose convention and custom measures are taken.
        num_workers: Of files, and of data sets with a length where torch is in use: worker processes.
        budget: Of files and samples: share of the time that measuring may take, the rest being to read them, e.g. 0.05.
            Of more than 2,000 only a share is measured then; by default all are. See `profile_files` and
            `transforms.ProfileImages`.
        limit: Only so many files, samples or batches, the first ones.
        source: What the profile is of.

    Raises:
        InputError: If there is nothing in it, it cannot be read, or an argument is not for data of this kind.

    Example:
        >>> import numpy as np
        >>> pictures = [(np.full((8, 6 + i, 3), i, np.uint8), "cat") for i in range(5)]
        >>> profile = profile_dataset(pictures)
        >>> profile.groups["raw"].n, profile.groups["labels"].categories[""].top(1)
        (5, [('cat', 5)])
    """
    about = {"metadata": metadata, "exif": exif, "budget": checked_budget(budget)}
    asked = _Asked(
        inputs, target, about, checked_measures(measures), convention, like, num_workers,
        limit, source, {"k": k, "rows": rows, "seed": seed, "segment_by": segment_by, "max_segments": max_segments},
    )  # fmt: skip
    if isinstance(data, str | FilePath):
        profile = _of_files(data, asked)
    else:
        key = inputs.key if isinstance(inputs, ImageInputs) else None
        items, are_samples = _found(data, key)
        profile = _of_samples(items, asked) if are_samples else _of_batches(items, asked, data)
    profile.info["source"] = source
    if not profile.n:
        raise InputError("data has nothing in it that could be profiled: pass a data set, a loader or a folder")
    return profile


@dataclass(frozen=True)
class _Asked:
    """What `profile_dataset` was asked for; see there.

    Raises:
        InputError: If an argument is not one of those accepted, of any data.
    """

    inputs: ImageInputs | Mapping[str, ImageInputs] | str | None
    target: Place | None
    about: dict[str, Any]
    measures: tuple[CustomMeasure, ...]
    convention: str | Sequence[str] | None
    like: Baseline | Profile | None
    num_workers: int
    limit: int | None
    source: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if self.settings["segment_by"] == LABEL and self.target is None:
            raise InputError("segment_by='label' needs labels: leave target='auto', or name their place")
        if self.settings["segment_by"] is None and self.settings["max_segments"] != DEFAULT_SEGMENTS:
            raise InputError(f"max_segments={self.settings['max_segments']!r} is of segments: pass segment_by=, too")
        if self.inputs is not None and self.inputs != "auto":
            readers_by_name(self.inputs)
        if self.like is not None and not isinstance(self.like, Baseline | Profile):
            raise InputError(f"like={self.like!r} should be a Baseline or a Profile")
        if not isinstance(self.source, str) or not self.source:
            raise InputError(f"source={self.source!r} should be a text, e.g. 'validation'")
        check_numbers(num_workers=self.num_workers, **{name: self.settings[name] for name in ("k", "rows", "seed")})
        if self.limit is not None:
            check_numbers(limit=self.limit)

    def refuse(self, kind: str, *names: str) -> None:
        """Refuse arguments that have no meaning for data of this kind, with what to do instead."""
        for name in names:
            value = self.about.get(name, getattr(self, name, None))
            if value and not (name == "inputs" and value in ("auto", ImageInputs())):
                raise InputError(f"{name}={value!r} is not for {kind}: {_INSTEAD[name]}")

    @property
    def reference(self) -> Profile | None:
        """The profile to be like."""
        return self.like.reference if isinstance(self.like, Baseline) else self.like

    def of_delivered(self) -> tuple[dict[str, Any], list[str]]:
        """Arguments for images as they are delivered, taken over from a profile to be like; and what it lacks."""
        arguments = {
            **self.settings,
            **self.about,
            "measures": self.measures,
            "convention": self.convention,
            "name": RAW,
        }
        if self.reference is None:
            return arguments, []
        delivered = delivered_in(self.reference)
        if delivered is None:
            raise InputError(
                f"like= has {', '.join(self.reference.groups)}, and no images as they were delivered, which those of"
                " files and samples are: pass batches as the model is fed them, e.g. a DataLoader, or leave like= away"
            )
        theirs = convention_of(delivered) or "lensai"
        if self.convention not in (None, theirs, (theirs,), [theirs]):
            raise InputError(
                f"convention={self.convention!r}, but the images of the profile to be like were measured by {theirs!r}:"
                " leave `convention` away, or profile the baseline by it, too"
            )
        measures, missing = chosen_measures(self.measures or None, self.reference)
        notes = [NOT_DECLARED.format(id) for id in missing]
        for note in notes:
            log.warning("%s", note)
        return arguments | {"measures": measures, "convention": theirs, "name": delivered.name}, notes


#: What to do instead of passing an argument that is not for the data given.
_INSTEAD: Final = {
    "inputs": "files say themselves how they are read; of arrays pass a list or a data set",
    "target": "labels are the names of folders: leave target='auto', or pass None for none",
    "metadata": "its functions are given samples: pass a data set, or images one at a time",
    "exif": "it is read of files and of Pillow's images: pass a folder, or a data set",
    "budget": "it is a share of the time that reading images takes: pass limit= for fewer batches",
    "num_workers": "worker processes are for folders, and where torch is in use for data sets with a length: pass such,"
    " or give the loader its own, DataLoader(..., num_workers=...)",
}


def _of_files(data: str | FilePath, asked: _Asked) -> Profile:
    asked.refuse("files", "inputs", *(["target"] if asked.target != "auto" else []))
    settings, notes = asked.of_delivered()
    labels = asked.target is not None
    settings |= {"jobs": asked.num_workers, "limit": asked.limit, "labels": labels, "source_name": asked.source}
    profile = profile_files(data, **settings)
    profile.info["warnings"] = [*profile.warnings, *notes]
    return profile


def _of_samples(data: Any, asked: _Asked) -> Profile:
    if isinstance(asked.inputs, Mapping):
        raise InputError("samples are profiled by one image each: pass inputs=ImageInputs(key=...), or batches")
    if not hasattr(data, "__getitem__") or "torch" not in sys.modules:
        asked.refuse("samples that are iterated", "num_workers")
    how = asked.inputs if isinstance(asked.inputs, ImageInputs) else None
    settings, missing = asked.of_delivered()
    collector = Collector(inputs=how, **settings)
    samples = _Samples(data, collector, asked.target, how.key if how is not None else None, asked.limit)
    labels, notes = _collected(samples, asked.num_workers)
    profile = collector.profile(asked.source)
    profile.groups |= labels.groups
    profile.info["warnings"] = [*profile.warnings, *notes, *labels.warnings, *missing]
    return profile


def _of_batches(batches: Iterable[Any], asked: _Asked, data: Any) -> Profile:
    asked.refuse("batches", "metadata", "exif", "num_workers", "budget")
    problems, inputs, like = Problems(), asked.inputs, asked.like
    readers_given = readers_by_name(inputs) if isinstance(inputs, Mapping) else image_inputs(inputs, data, problems)
    if isinstance(inputs, str) and readers_given == ImageInputs():
        readers = chosen_readers(None, asked.reference)
        readers_given = readers.get("", readers)
    segment_by = asked.settings["segment_by"]
    key = None if segment_by == LABEL else segment_by
    reader = BatchReader(readers_given or ImageInputs(), asked.target, problems, key, class_names=class_names_of(data))
    profiler = Profiler(
        inputs=reader.inputs, measures=asked.measures or None, convention=asked.convention, like=like,
        source=asked.source, **asked.settings,
    )  # fmt: skip
    return _profiled(islice(batches, asked.limit), profiler, reader, problems, key)


def _found(data: Any, key: Key) -> tuple[Any, bool]:
    """The data, with a length and items if it has them, and whether it gives samples; else it gives batches.

    What is only iterated shows it by what comes first, which is put back.
    """
    if isinstance(data, Mapping):
        raise InputError(f"data is a dict with the keys {list(data)}: pass one of its values, or a batch as [batch]")
    if is_picture(data) or (is_array(data) and _is_one_image(data)):
        raise InputError("data is a single image: pass a list of images")
    if _are_columns(data):
        return list(zip(*data, strict=True)), True
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not _has_base(data, "IterableDataset"):
        if isinstance(data, list | tuple) and data and isinstance(data[0], str | FilePath):
            raise InputError(f"data is a list of texts ({data[0]!r}, ...): pass a folder, a pattern or opened images")
        of_batches = isinstance(data, list | tuple) or _has_base(data, "PyDataset")
        if not of_batches or not len(data) or _is_sample(data[0], key, open_ones=True):
            return data, True
        return (data[i] for i in range(len(data))), False
    try:
        items = iter(data)
    except TypeError as error:
        raise InputError(f"data is a {type(data).__name__}: pass a folder, a data set, a loader or images") from error
    if getattr(data, "batch_size", None) is not None or getattr(data, "batch_sampler", None) is not None:
        return items, False
    first = list(islice(items, 1))
    return chain(first, items), bool(first) and _is_sample(first[0], key, open_ones=False)


def _has_base(data: Any, name: str) -> bool:
    return any(base.__name__ == name for base in type(data).__mro__)


def _is_one_image(data: Any) -> bool:
    """Whether it is one image in colour, channels last, as arrays of grey images are not."""
    shape = shape_of(data)
    return len(shape) < 3 or (len(shape) == 3 and shape[2] in (3, 4))


def _are_columns(data: Any) -> bool:
    """Whether it is arrays of images and of what belongs to them, such as `(images, labels)`."""
    if not (isinstance(data, tuple) and len(data) > 1 and all(map(is_array, data))):
        return False
    images, *others = map(shape_of, data)
    return len(images) > 2 and all(shape[:1] == images[:1] and len(shape) in (1, 2) for shape in others)


def _is_sample(item: Any, key: Key, *, open_ones: bool) -> bool:
    """Whether an item has one image, and not a batch of them.

    Args:
        item: What the data give.
        key: Where the images are in it.
        open_ones: What to take those for that may be either.
    """
    try:
        located = locate(item, key, pictures=True)
    except InputError:
        return open_ones
    images = located.images
    if is_picture(images) or isinstance(images, list):  # of several views of a sample, the tuple itself is the list
        return not isinstance(images, list) or open_ones or (isinstance(item, tuple) and located.place == ())
    shape = shape_of(images) if is_array(images) else ()
    if len(shape) != 3 or open_ones:
        return len(shape) < 4
    for value in (inside(item) or {}).values():
        if value is not images and (isinstance(value, str | int | float) or (is_array(value) and not shape_of(value))):
            return True  # a label of its own
        if value is not images and is_array(value) and shape_of(value)[0] == shape[0]:
            return False
    return shape[2] in (1, 3, 4) or shape[0] in (1, 3, 4)


def _profiled(
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
    return ([sample] for sample in samples)


class _Labels:
    """The labels of samples: which of their parts that is, the first few hundred samples tell."""

    def __init__(self) -> None:
        self._profiler = Profiler(rows=0)
        self._waiting: list[dict[Path, Any]] = []
        self._paths: tuple[Path, ...] | None = None
        self._problems: list[str] = []

    def add(self, labels: list[dict[Path, Any]]) -> None:
        """Take what may be the labels of some samples, by its place in each."""
        self._waiting += labels
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
    """Samples that are shown to a collector, wherever they are made; what is left of them is the label."""

    def __init__(self, data: Any, collector: Collector, target: Place | None, key: Key, limit: int | None) -> None:
        self._data, self._collector, self._target, self._key, self._limit = data, collector, target, key, limit

    def __len__(self) -> int:
        return len(self._data) if self._limit is None else min(self._limit, len(self._data))

    def __iter__(self) -> Iterator[tuple[dict[Path, Any], str]]:
        if hasattr(self._data, "__getitem__"):
            yield from (self[i] for i in range(len(self)))
        else:
            yield from (self._shown(sample, i == 0) for i, sample in enumerate(islice(self._data, self._limit)))

    def __getitem__(self, index: int) -> tuple[dict[Path, Any], str]:
        return self._shown(self._data[index], index == 0)

    def _shown(self, sample: Any, first: bool) -> tuple[dict[Path, Any], str]:
        """What may be labels, and of the first sample what is to be said of its images."""
        image = _image(sample, self._key)
        how = self._collector.inputs
        if first and is_picture(image) and how not in (None, ImageInputs(key=self._key)):
            raise InputError(f"inputs={how!r} is of arrays, but these are Pillow's images, of which only key= counts")
        labels = _labels(sample, image, self._target)
        delivered = to_host(image) if is_tensorflow_array(image) else image
        self._collector.add(delivered, sample, next(iter(labels.values())) if len(labels) == 1 else None)
        return labels, _note(sample, image) if first and self._key is None else ""


def _image(sample: Any, key: Key = None) -> Any:
    """The image of a sample, at a place or wherever it is in it; of several views the first."""
    if is_picture(sample):
        return sample
    try:
        images = locate(sample, key, pictures=True).images
    except InputError:
        if key is not None or fields_of(sample) is not None or not isinstance(sample, list | tuple) or not sample:
            raise
        return sample[0]  # the collector says what is wrong with it
    return images[0] if isinstance(images, list) else images


def _note(sample: Any, image: Any) -> str:
    """What is not read of a sample: images beside the one that is, of as many colours."""
    if is_picture(sample) or is_array(sample):
        return ""
    places: dict[Path, Any] = {}
    for located in images_in(sample):
        several = isinstance(located.images, list)
        for i, view in enumerate(located.images if several else [located.images]):
            places[(*located.place, i) if several else located.place] = view
    others = [
        path if len(path) > 1 else path[0]
        for path, view in places.items()
        if view is not image and _channels(view) == _channels(image)
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
        candidates = {path_of(target): part_at(sample, target)}
    else:
        candidates = {(step,): value for step, value in (inside(sample) or {}).items() if value is not image}
        candidates = {path: value for path, value in candidates.items() if path[0] in LABEL_KEYS} or candidates
    plain = {path: _plain(value) for path, value in candidates.items()}
    return {path: value for path, value in plain.items() if isinstance(value, int | str)}


def _plain(label: Any) -> Any:
    value = to_host(label).item() if is_array(label) and not shape_of(label) else label
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    return value.decode(errors="replace") if isinstance(value, bytes) else value
