"""How each kind of group takes in a batch: the measures it computes and the sketches it keeps.

A recorder is made from the first batch of its group, which shows the widths and settles how the batch is to be read.
That first look may wait for an accelerator; `measure` and `take` never do.

A batch is taken in in two steps. `measure` computes where the batch lies; `take` hands what came out to the sketches.
What was measured on an accelerator waits in between (see `waiting`), and is taken together with other batches. Outputs,
of which a batch is as small as what is measured of it, wait as they are, and are measured together.

Images have two things more. Where pixels could not be read, `Range` says how far they reach and how far they should.
And each custom measure has a bank of its own, so that what one of them leaves out is left out of no other: where it
fails, its bank counts invalid rows, the joint sample has NaN, and the profile's warnings say what the error was.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any, Final

import numpy as np
from array_api_compat import is_torch_array

from lensai_integrations.arrays.namespaces import Array, dtype_name, half_precision, local, namespace, shape_of, to_host
from lensai_integrations.errors import InputError, told
from lensai_integrations.measures.batches import locate
from lensai_integrations.measures.custom import CustomMeasure, custom_measurer
from lensai_integrations.measures.embeddings import REDUCTIONS, embedding_definition
from lensai_integrations.measures.images import CONVENTIONS, image_measures
from lensai_integrations.measures.inputs import HALVES, ImageInputs, Images
from lensai_integrations.measures.layouts import Found, by_shape, shapes_of
from lensai_integrations.measures.meaning import OPEN
from lensai_integrations.measures.outputs import (
    LABEL,
    LABEL_VALUE,
    LABELS_PER_IMAGE,
    NO_CLASS,
    PER_IMAGE,
    TOP_CLASS,
    flattened,
    measure_outputs,
    output_measures,
    steps_of,
)
from lensai_integrations.profiles.conventions import home_of_custom, input_of, plain_name
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import for_head, partner_of
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.builder import feed, make
from lensai_integrations.profiling.measuring import (
    ImageBatch,
    Measured,
    Ones,
    class_labels,
    column,
    embedding_measurer,
    from_signs,
    image_measurer,
    multi_hot_labels,
    output_measurer,
    projection,
    reduced,
    value_labels,
)
from lensai_integrations.profiling.settings import ProfilerSettings

#: Images as they were delivered, once `image_reading.pixels_of` has read them.
PIXELS: Final = ImageInputs(layout="NCHW", scale=1.0, channels="RGB", whole=False)
#: What pixels may lie beyond their range.
_TOLERANCE = 0.01
#: Beyond this no pixel of a picture lies, in standard deviations.
_STANDARDISED = 16
#: Rows that a failed measure's bank is given at once.
_ROWS_AT_ONCE = 4096
_OF_SIGNS: Final = "numbers that are all -1 or 1, for off and on"
#: Why labels are read as they are, by what they look like.
_WHY: Final = {
    "texts": "strings",
    "whole": "one whole number per image",
    "binary": "numbers that are all 0 or 1",
    "whole floats": "numbers that are all whole",
    "numbers": "one number per image",
    "one-hot": "rows with one 1 each",
    "multi-hot": "rows of 0 and 1, several or none on",
    "soft": "rows of shares that sum to 1",
    "rows": "rows of numbers",
}


class Recorder(ABC):
    """Measures the batches of one group and keeps its sketches.

    Attributes:
        group: The group with its sketches, as far as batches were taken.

    Example:
        >>> recorder = Labels("labels", np.arange(4), ProfilerSettings(seed=[1]))
        >>> recorder.take(recorder.measure(np.arange(4)))
        >>> recorder.group.categories[""].n
        4
    """

    group: Group

    @abstractmethod
    def measure(self, batch: Any) -> Measured:
        """Measure one batch where it lies. Nothing is waited for, and nothing kept."""

    def take(self, measured: Measured) -> None:
        """Hand what was measured of a batch to the sketches."""
        feed(self.group.sketches, measured.parts(self.group.name))

    def warnings(self) -> list[str]:
        """What a reader of the profile should know of this group."""
        return []

    def why_left_out(self) -> str:
        """Why rows were not valid, if some were."""
        return "a value was not finite"


class Inputs(Recorder):
    """Image measures and exact pixel counts."""

    def __init__(self, name: str, batch: Any, settings: ProfilerSettings) -> None:
        shared, image_input, plain = ImageBatch.of(batch), input_of(name), plain_name(name)
        asked = settings.readers[image_input]
        unplaced = replace(asked, key=None) if image_input else asked  # of several inputs each comes alone
        if not settings.delivered and image_input not in settings.resolved:
            settings.resolved[image_input] = unplaced.resolve(shared.batch)
            _note_choices(shared.batch, settings, plain)
        reader = PIXELS if settings.delivered else settings.resolved[image_input]
        convention = settings.image_groups[name]
        self._reader, self._convention = reader, convention
        alone = replace(reader, key=None)
        conventions = [
            convention_name for group, convention_name in settings.image_groups.items() if plain_name(group) == plain
        ]
        self._measure = image_measurer(alone, *conventions)
        batch_images = shared.images(reader.key, reader.layout)
        images = alone.read(by_shape(batch_images)[0][1])
        _note_precision(images, reader.whole, settings, plain)
        definitions = image_measures(images.channels, convention)
        streams = tuple(definitions)
        note = f"a list of {images.note}" if isinstance(batch_images, list) else images.note
        info: dict[str, Any] = {"note": note, "convention": convention}
        info |= {"delivered": True} if settings.delivered else {"reader": asdict(replace(reader, key=asked.key))}
        info["size"] = _size(batch_images, reader.layout)
        if half := next((half for half in HALVES if half in images.note and not images.whole), None):
            info["precision"] = half
        self._range = Range(images, settings.like, name)
        widths = {"rows": len(streams), "pixels": images.channels}
        sketches = settings.sketches(name, widths, plain)  # the same whether or not there are other conventions
        self.group = Group(name, streams, {**definitions, "pixel": CONVENTIONS[convention].pixel.id}, sketches, info)
        is_home = convention == home_of_custom(conventions)  # what does not depend on the convention is there once
        self._custom = CustomStreams(self.group, alone, settings, settings.measures if is_home else ())
        self._notes = settings.notes.get(plain, []) if is_home else []

    def measure(self, batch: Any) -> Measured:
        """Measure one batch of images, and count their pixels."""
        shared, reader = ImageBatch.of(batch), self._reader
        measured = shared.measured(self._measure, self._convention, reader.key, reader.layout)
        images, rows = shared.images(reader.key, reader.layout), measured.pop("rows")
        self._range.look(images, rows)
        return Measured({self.group.name: rows, **self._custom.measure(images)}, measured)

    def take(self, measured: Measured) -> None:
        """Sketch the measures, custom ones too, and count the pixels."""
        super().take(measured)
        self._custom.take(measured.rows, len(measured.rows[self.group.name]))

    def warnings(self) -> list[str]:
        """What was chosen among several readings, what looks like another scale, and which custom measures failed."""
        scale = [] if self.group.invalid else [f"{self.group.name}: {warning}" for warning in self._range.warnings()]
        return [*self._notes, *scale, *self._custom.warnings()]

    def why_left_out(self) -> str:
        """How far pixels reach, and how far they should."""
        return self._range.why()


def _note_choices(batch: Any, settings: ProfilerSettings, name: str) -> None:
    """Say what the first batch of a group of images did not settle beyond doubt."""
    reader, asked = settings.resolved[input_of(name)], settings.readers[input_of(name)]
    if note := locate(batch, reader.key, reader.layout).note:
        settings.note(name, note)
    images = local(by_shape(ImageBatch.of(batch).images(reader.key, reader.layout))[0][1])
    if reader.kind == "uint8" and reader.scale == 1.0 and isinstance(images, np.ndarray) and images.max(initial=0) == 1:
        settings.note(
            name,
            f"{name}: the pixels of the first batch are bytes that are all 0 or 1, read as 0 to 255: are they masks,"
            " and not the images? If 1 is white, pass ImageInputs(scale=255)",
        )
    if "?" in reader.channels and "?" not in asked.channels:
        colours = reader.channels[:3]
        settings.note(
            name,
            f"images{_which(name)} have 4 channels: three are read as {colours}, and the fourth, which is not opaque"
            " alpha in the first batch, is not read: nothing that happens in it is seen. Pass"
            f" ImageInputs(channels='{colours}A') if it is alpha, or '{colours}?' if another band is"
            " meant to be left out",
        )


def _note_precision(images: Images, whole: bool | None, settings: ProfilerSettings, name: str) -> None:
    """Say if pixels and the baseline's are not of one precision, and no rounding to whole levels makes them alike."""
    baseline = settings.like.groups.get(name) if settings.like is not None else None
    if baseline is None or whole is not False:
        return
    notes = (images.note, str(baseline.info.get("note", "")))
    here, there = (next((half for half in HALVES if half in note), "full precision") for note in notes)
    if here != there:
        settings.note(
            name,
            f"pixels{_which(name)} are of {here} here and of {there} in the baseline, and do not lie at whole levels,"
            " to which they could be rounded: noise, sharpness and entropy are not compared. Profile both alike for"
            " these",
        )


def _which(name: str) -> str:
    """Which image input is spoken of, if there are several."""
    return f" of {name}" if input_of(name) else ""


def _size(batch_images: Found, layout: str) -> str:
    """Height x width; of images of several sizes, from the smallest to the largest."""
    offset = int(not isinstance(batch_images, list))
    rows = layout.index("H") - 1 + offset
    sizes = [shape[rows : rows + 2] for shape in shapes_of(batch_images)]
    low, high = (tuple(map(end, zip(*sizes, strict=True))) for end in (min, max))
    return f"{low[0]}x{low[1]}" + (f" to {high[0]}x{high[1]}" if low != high else "")


class Range:
    """The range of what was wrong in a group of images.

    Args:
        images: The first of them, as they are read.
        like: The profile they are held against, if any.
        name: Of the group.

    Example:
        >>> from lensai_integrations import ImageInputs
        >>> batch = np.full((2, 8, 8), 200.0)
        >>> found = Range(ImageInputs("NHW", 255.0).read(batch), None, "inputs")
        >>> found.look(batch, np.full((2, 13), np.nan, np.float32))
        >>> found.why()
        'float64 pixels reach from 200 to 200, but are read as 0 to 1 (NHW float64 x 255)'
    """

    def __init__(self, images: Images, like: Profile | None, name: str) -> None:
        baseline = like.groups.get(name) if like is not None else None
        self._note = images.note if baseline is None else str(baseline.info.get("note") or images.note)
        self._whose = "are read as" if baseline is None else "those of the baseline were read as"
        self._expected = images.expected
        self._to_255 = baseline is not None and images.expected == (0.0, 255.0)
        self._dtype = ""
        self._ends: list[tuple[Array, Array]] = []

    def look(self, batch_images: Found, rows: Array) -> None:
        """Look at the first batch that needs it.

        Args:
            batch_images: The images, an array or a list.
            rows: What was measured of them.
        """
        if self._ends:
            return
        arrays = batch_images if isinstance(batch_images, list) else [batch_images]
        if isinstance(rows, np.ndarray):
            wrong = np.isnan(rows[:, 0])
            if wrong.any():
                arrays = [array for array, bad in zip(arrays, wrong, strict=True) if bad] if len(arrays) > 1 else arrays
                arrays = arrays if isinstance(batch_images, list) else [local(batch_images)[wrong]]
            elif not (self._to_255 and dtype_name(arrays[0]) != "uint8"):
                return
        self._dtype = dtype_name(batch_images[0] if isinstance(batch_images, list) else batch_images)
        self._ends = [_ends(array) for array in arrays if 0 not in shape_of(array)]

    def why(self) -> str:
        """Why rows were left out."""
        low, high = self._host()
        expected = " to ".join(f"{end:.4g}" for end in self._expected)
        if not (math.isfinite(low) and math.isfinite(high)):
            return "a value was not finite"
        span = self._expected[1] - self._expected[0]
        if low >= self._expected[0] - span / 10 and high <= self._expected[1] + span / 10:
            return "a value was not finite, or out of range"
        return f"{self._dtype} pixels reach from {low:.4g} to {high:.4g}, but {self._whose} {expected} ({self._note})"

    def warnings(self) -> list[str]:
        """That floats up to 1 are held against numbers up to 255, if so."""
        low, high = self._host() if self._to_255 else (math.nan, math.nan)
        standardised = low < -_TOLERANCE and high <= _STANDARDISED
        if not (low < high and (standardised or (low >= -_TOLERANCE and high <= 1 + _TOLERANCE))):
            return []
        how = "divided by 255" if low >= -_TOLERANCE else "made by x / 127.5 - 1"
        if low < -1 - _TOLERANCE or high > 1 + _TOLERANCE:
            how = "standardised"
        return [
            f"{self._dtype} pixels reach from {low:.4g} to {high:.4g}, but {self._whose} 0 to 255 ({self._note}): were"
            f" they {how}? Hand them over as the baseline's were, or pass inputs=ImageInputs(...) that reads them"
        ]

    def _host(self) -> tuple[float, float]:
        ends: Any = [[float(to_host(end)) for end in pair] for pair in self._ends]
        self._ends = [(np.float64(low), np.float64(high)) for low, high in ends]
        if not ends:
            return math.nan, math.nan
        low, high = np.array(ends).T
        return float(low.min()), float(high.max())


def _ends(array: Array) -> tuple[Array, Array]:
    array = local(array)
    return namespace(array).min(array), namespace(array).max(array)


class CustomStreams:
    """The custom measures of one group.

    Args:
        group: The group of images, which is told which measures it has; it gets a bank for each that works.
        reader: How images are read, with nothing left to be decided.
        settings: How it is sketched.
        measures: What is measured.
    """

    def __init__(
        self, group: Group, reader: ImageInputs, settings: ProfilerSettings, measures: tuple[CustomMeasure, ...]
    ) -> None:
        self._group, self._settings = group, settings
        self._measurer = custom_measurer(reader, measures)
        self._widths: dict[str, int] = {}
        self._sketched: set[str] = set()
        self._errors: dict[str, str] = {}
        self._missed = dict.fromkeys((measure.name for measure in measures), 0)
        if measures:
            definitions = {measure.name: asdict(measure.definition) for measure in measures}
            group.definitions |= {name: definition["id"] for name, definition in definitions.items()}
            group.info["measures"] = {
                name: {**definition, "range": list(definition["range"])} for name, definition in definitions.items()
            }

    def measure(self, images: Found) -> dict[str, Array]:
        """Rows `[n, k]` by `"<group>/<measure>"`, of the measures that worked. Nothing is waited for."""
        if not self._missed or len(images) == 0:
            return {}
        rows = self._measurer(images)
        for name in self._missed:
            if name not in rows:
                self._fail(name, self._measurer.errors[name])
            elif (k := int(rows[name].shape[1])) != self._widths.setdefault(name, k):
                del rows[name]
                error = f"it returned {k} numbers per image, and {self._widths[name]} before: always return as many"
                self._fail(name, InputError(error))
        return {f"{self._group.name}/{name}": values for name, values in rows.items()}

    def take(self, rows: dict[str, Array], n: int) -> None:
        """Sketch what was measured of a batch of n images; what is not there, they count as invalid."""
        for name in self._missed:
            values, source = rows.get(f"{self._group.name}/{name}"), f"rows/{name}"
            if values is None:
                self._missed[name] += n
                self._skip(name, n)
                continue
            if name not in self._sketched:
                self._sketched.add(name)
                seed = self._settings.seed_of(f"{plain_name(self._group.name)}/{name}")
                self._group.sketches |= make({source: int(values.shape[1])}, k=self._settings.k, seed=seed)
                self._skip(name, self._missed[name])
            feed(self._group.sketches, {source: values})

    def warnings(self) -> list[str]:
        """What a reader of the profile should know: which measures failed, and why."""
        group, total = self._group.name, self._group.n + self._group.invalid
        return [
            f"{group}/{name} could not be measured in {self._missed[name]:,} of {total:,} rows: {error}"
            for name, error in self._errors.items()
        ]

    def _fail(self, name: str, error: Exception) -> None:
        if name not in self._errors:
            self._errors[name] = told(error)
            self._settings.on_custom_failure(f"{self._group.name}/{name}", error)

    def _skip(self, name: str, rows: int) -> None:
        """Give a measure's sketches rows that they count as invalid, if it has some already."""
        for start in range(0, rows if name in self._sketched else 0, _ROWS_AT_ONCE):
            missing = np.full((min(_ROWS_AT_ONCE, rows - start), self._widths[name]), np.nan, np.float32)
            feed(self._group.sketches, {f"rows/{name}": missing})


class Outputs(Recorder):
    """Probabilities and confidences of a classifier, probabilities of labels, or values."""

    def __init__(self, name: str, batch: Array, settings: ProfilerSettings) -> None:
        described = settings.described(name)
        steps = steps_of(batch)
        rows = flattened(batch) if steps else batch
        decided = settings.kind_of(name, rows)
        if steps and decided.why == OPEN and decided.kind != "probabilities" and not described.get("linear"):
            settled_by = for_head("task='classification' or task='regression'", name)
            raise InputError(
                f"{name} of shape {shape_of(batch)} may be {steps} answers of {shape_of(batch)[-1]} classes for each"
                f" image, or a map: pass {settled_by} if they are answers, or name a layer that gives one vector per"
                " image"
            )
        self._decided = decided
        self._half = dtype_name(batch) == "float16"
        kind, columns = decided.kind, math.prod(shape_of(rows)[1:])
        self._measure, self._steps = output_measurer(kind, steps > 0), steps
        measured = measure_outputs(rows, kind=kind)
        definitions = output_measures(columns, kind)
        widths = {"rows": len(measured.names), "vectors": len(measured.names)}
        if measured.top_class is not None:
            widths["categories/top_class"] = 1
            definitions["top_class"] = TOP_CLASS
        info = {"kind": kind, "columns": columns, **half_precision(batch), **described, "why": decided.why}
        if steps:
            info["steps"] = steps
        self.group = Group(name, measured.names, definitions, settings.sketches(name, widths), info)

    def measure(self, batch: Array) -> Measured:
        """Measure one batch of outputs, on torch's accelerators later: that takes dozens of operations, whose time does
        not depend on how many rows there are."""
        array = local(batch)
        if self._steps or not is_torch_array(array):
            return self._measured(batch)
        name = self.group.name
        names = (name, f"{name}/top_class") if "top_class" in self.group.definitions else (name,)
        return Measured(dict.fromkeys(names, array), views=names, later=self._measured)

    def _measured(self, batch: Array) -> Measured:
        """What is measured of outputs. Several rows of an image are in no joint sample with it."""
        measured = self._measure(batch)
        rest = {"rows": measured["rows"]}
        if "top_class" in measured:
            rest["categories/top_class"] = measured["top_class"]
        if self._steps:
            return Measured({}, rest)
        rows = {self.group.name: rest.pop("rows")}
        if "top_class" in measured:
            rows[f"{self.group.name}/top_class"] = measured["column"]
        return Measured(rows, rest)

    def why_left_out(self) -> str:
        """What rows should have been."""
        should = {"probabilities": "a row does not sum to 1", "multilabel_probabilities": "a value is not in [0, 1]"}
        also = should.get(self.group.info["kind"])
        half = " (they are float16, which ends at 65,504)" if self._half else ""
        return f"a value was not finite{half}" + (f", or {also}" if also else "")

    def warnings(self) -> list[str]:
        """What is not certain of how they are read."""
        warnings = [f"{self.group.name}: {self._decided.doubt}"] if self._decided.doubt else []
        if self._steps:
            warnings.append(
                f"{self.group.name}: each image has {self._steps} rows, which are profiled as rows; they are not in the"
                " joint sample of images"
            )
        return warnings


class Embedding(Recorder):
    """A layer's answers, reduced to `[n, D]` if they are not yet, and projected where they are too wide."""

    def __init__(self, name: str, batch: Array, settings: ProfilerSettings) -> None:
        described: dict[str, Any] = {"axes": len(shape_of(batch)), "reduce": "mean"} | settings.described(name)
        how, channels_last = described["reduce"], bool(described.get("channels_last", False))
        max_dim = settings.max_dim_of(name)
        self._measure = embedding_measurer(how, channels_last, max_dim)
        width = int(reduced(batch, how, channels_last).shape[1])
        dim = min(width, max_dim)
        info = {**half_precision(batch), **described, "width": dim, "projected_from": width if width > dim else None}
        if width > dim:
            info["seed"] = projection(width, dim).seed
        reduce = how if how in REDUCTIONS else str  # any function is a custom one
        definition = embedding_definition(described["axes"], reduce, projected=width > dim)
        streams = tuple(map(str, range(dim)))
        sketches = settings.sketches(name, {"rows": dim, "vectors": dim})
        self.group = Group(name, streams, {"*": definition}, sketches, info)

    def measure(self, batch: Array) -> Measured:
        """Reduce and project one batch of embeddings."""
        name = self.group.name
        return Measured({name: self._measure(batch)}, views=(name,) if len(shape_of(batch)) == 2 else ())


class Labels(Recorder):
    """Classes as categories, several labels of an image likewise and counted, numbers as streams."""

    def __init__(self, name: str, batch: Any, settings: ProfilerSettings) -> None:
        self._meaning, form = settings.meaning_of(name, batch)
        self._signs = form.signs
        self._of_two = settings.is_of_two(name)
        self._names = _numbers_of_names(settings, name) if self._meaning == "classes" else {}
        self._unnamed: dict[str, int] = {}
        self._odd = Ones()
        self._alike = settings.known(name) is not None
        info = {
            "read_as": self._meaning,
            "why": _OF_SIGNS if form.signs else _WHY[form.form],
            **settings.described(name),
        }
        if form.signs:
            info["signs"] = True
        widths, definitions = {"categories/": 1}, {"*": LABEL}
        streams: tuple[str, ...] = ()
        if self._meaning == "multi_hot":
            streams, widths["rows"], definitions[PER_IMAGE] = (PER_IMAGE,), 1, LABELS_PER_IMAGE
        elif self._meaning == "values":
            streams = tuple(f"value/{index}" for index in range(form.columns))
            widths, definitions = {"rows": form.columns}, {"value": LABEL_VALUE}
        self.group = Group(name, streams, definitions, settings.sketches(name, widths), info)

    def measure(self, batch: Any) -> Measured:
        """Classes, numbers or strings, one for each row; or all labels of a row, and how many are on."""
        if self._signs:
            batch = from_signs(batch)
        if self._meaning == "classes":
            labels, odd = class_labels(batch, of_two=self._of_two)
            if isinstance(labels, list):
                return self._named(labels) if self._names else Measured({}, {"categories/": labels})
            rows = {self.group.name: column(labels, odd)}
            if odd is None:
                return Measured(rows, {"categories/": labels}, views=("categories/",))
            return Measured(rows, {"categories/": labels, "odd": odd})
        if self._meaning == "multi_hot":
            measured = multi_hot_labels(batch)
            return Measured({}, {"categories/": measured.pop("labels"), **measured})
        return Measured({self.group.name: value_labels(batch, len(self.group.streams))})

    def _named(self, texts: list[str]) -> Measured:
        """Strings as the numbers of the classes that have these names; others stay what they are, and are no class."""
        numbers = [self._names.get(text, NO_CLASS) for text in texts]
        for text, number in zip(texts, numbers, strict=True):
            if number == NO_CLASS:
                self._unnamed[text] = self._unnamed.get(text, 0) + 1
        classes = np.array(numbers, np.int64)
        unnamed = classes == NO_CLASS
        labels: Any = classes
        if unnamed.any():
            labels = [text if number == NO_CLASS else str(number) for text, number in zip(texts, numbers, strict=True)]
        return Measured({self.group.name: column(classes, unnamed)}, {"categories/": labels})

    def take(self, measured: Measured) -> None:
        """Count the classes, or sketch the numbers; and count the odd ones."""
        parts = measured.parts(self.group.name)
        odd = parts.get("odd")
        if odd is not None:
            self._odd.add(odd)
            if self._meaning == "classes":
                parts["categories/"] = parts["categories/"], ~odd
        feed(self.group.sketches, parts)

    def warnings(self) -> list[str]:
        """Rows that contradict what the first ones were read as, and labels that are no class's name."""
        odd, warnings = self._odd.total(), []
        if self._unnamed:
            n, some = sum(self._unnamed.values()), max(self._unnamed, key=lambda text: self._unnamed[text])
            warnings = [
                f"{self.group.name}: {n:,} rows have a label such as {some!r}, which is none of the class names: no"
                " column is of it, and accuracy is of the other rows"
            ]
        if not odd:
            return warnings
        if self._alike:  # what production is held against cannot be chosen there
            what = "one class" if self._meaning == "classes" else "0 or 1 for each label"
            what = "-1 or 1" if self._signs else what
            why = f"not {what} per image, as the baseline's are: hand over these, or make another baseline"
        elif self._meaning == "classes":
            why = "no single class, but the first ones were: pass task='multilabel' if several can be on at once"
        else:
            why = "not inside [0, 1], but the first ones were: pass task='regression' if these are numbers"
        left_out = f"{self.group.name}: {odd:,} rows were left out; they are {for_head(why, self.group.name)}"
        return [*warnings, left_out]


def _numbers_of_names(settings: ProfilerSettings, name: str) -> dict[str, int]:
    """The number of each class by its name, where names are told of labels or of their answer, each once.

    None where the labels of the profile to be alike were counted by their names.
    """
    baseline = settings.known(name)
    if baseline is not None and any(not label.lstrip("-").isdecimal() for label, _ in baseline.categories[""].top(1)):
        return {}
    named = (settings.described(group).get("class_names") for group in (name, partner_of(name)))
    names: list[str] = next((names for names in named if names), [])
    return {text: number for number, text in enumerate(names)} if len(set(names)) == len(names) else {}


#: The recorder of a group, by the first part of the group's name.
RECORDERS: dict[str, Callable[[str, Any, ProfilerSettings], Recorder]] = {
    "inputs": Inputs,
    "outputs": Outputs,
    "embeddings": Embedding,
    "labels": Labels,
}
