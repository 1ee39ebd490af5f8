"""A dry run: one batch through everything, as a table, before a night of training is spent on a wrong `mean`.

The batch goes the way that all batches of a fit go; what is looked at here is what came out, and what was handed in:
what a person would want to know before training on a million like it. Only what the numbers show: which of red and blue
comes first, no batch tells. Values are waited for: nobody trains meanwhile. Images on disk are looked at in the same
way, as a profiler would read them, and every adapter's callback is asked by the same method.
"""

from __future__ import annotations

import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import dtype_name, is_array, shape_of, strings, to_host
from lensai_integrations.errors import InputError, MissingDependencyError
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.layouts import by_shape
from lensai_integrations.measures.outputs import SUM_TOLERANCE
from lensai_integrations.measures.pixels import OVERSHOOT
from lensai_integrations.problems import Problems, pass_on
from lensai_integrations.profiles.conventions import input_of, is_images, plain_name
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABELS, OUTPUTS, for_head
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.image_files import images_in
from lensai_integrations.profiling.labels import Place, by_part, parts_beside
from lensai_integrations.training.fit import Preparer
from lensai_integrations.training.options import Options, Profiling
from lensai_integrations.training.recording import LAYER, Listened, Recording, images_of, labels_of, one_blas_thread

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
            return np.concatenate([images.reshape(-1) for images in self.pixels])
        return np.asarray(to_host(self.array), np.float64)

    @cached_property
    def pixels(self) -> list[NDArray[np.float64]]:
        """Images `[n, C, H, W]` on the 0-255 scale, not cut off, an array for each of their sizes."""
        reader = ImageInputs(**{**self.group.info["reader"], "key": None})
        arrays = []
        for _, array in by_shape(self.array):
            images = reader.read(array)
            gain, offset = (np.array(numbers, np.float64)[:, None, None] for numbers in (images.gain, images.offset))
            arrays.append(np.asarray(to_host(images.pixels) * gain + offset, np.float64))
        return arrays

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


def suspicions(samples: Sequence[SeenGroup]) -> list[str]:
    """A sentence for everything that looks wrong, and what to do about it.

    Example:
        >>> suspicions([])
        []
    """
    sentences = []
    for sample in samples:
        which = f"{sample.group.name}: " if input_of(sample.group.name) else ""
        sentences += [which + text for text in _ABOUT.get(sample.group.name.split("/")[0], _nothing)(sample)]
    return sentences


def _images(sample: SeenGroup) -> Iterator[str]:
    low, high = sample.range
    if low < -OVERSHOOT or high > 255 + OVERSHOOT:
        yield (
            f"pixels reach from {low:.4g} to {high:.4g} on the 0-255 scale: mean=, std= or scale= of ImageInputs are"
            " not those that the images were made with"
        )
    brightness = sample.stream("brightness")
    if brightness.size and not DARKEST <= (mean := float(brightness.mean())) <= LIGHTEST:
        yield (
            f"the mean brightness is {mean:.3g} of 255, which is nearly {'black' if mean < DARKEST else 'white'}: are"
            " scale=, mean= and std= of ImageInputs right?"
        )
    if flat := int(np.count_nonzero(sample.stream("contrast") < FLAT)):
        yield f"{flat} of {sample.group.n} images are constant, or nearly: is it the image that is read?"
    yield from _shape(sample)


def _shape(sample: SeenGroup) -> Iterator[str]:
    for height, width in {array.shape[2:] for array in sample.pixels}:
        if min(height, width) <= 4 < max(height, width):
            yield f"images are {height} x {width} pixels: is layout={sample.group.info['reader']['layout']!r} right?"
            break
    saturation = sample.stream("saturation")
    first, *others = sample.pixels
    if first.shape[1] == 3 and saturation.size and float(saturation.max()) == 0:
        yield "red, green and blue are the same in every pixel: these are grey images"
    if not others and len(first) >= SEVERAL and float(np.ptp(first, axis=0).max()) == 0:
        yield f"all {len(first)} images are the same"


def _outputs(sample: SeenGroup) -> Iterator[str]:
    rows = sample.values.reshape(len(sample.values), -1)
    finite = rows[np.isfinite(rows).all(axis=1)]
    if sample.group.info["kind"] == "logits" and finite.shape[1] > 1 and len(finite):
        inside = finite.min() >= 0 and finite.max() <= 1
        if inside and bool((np.abs(finite.sum(axis=1) - 1) <= SUM_TOLERANCE).all()):
            advice = for_head("pass task='probabilities', or name the layer before the softmax", sample.group.name)
            yield (
                f"{sample.group.name} are read as logits, but they look like probabilities (inside [0, 1], rows sum to"
                f" 1): {advice}"
            )


def _embeddings(sample: SeenGroup) -> Iterator[str]:
    bank = sample.group.bank
    if bank is not None and bank.n >= SEVERAL and bool((bank.min == bank.max).all()):
        yield f"{sample.group.name} is the same for every image"


def _labels(sample: SeenGroup) -> Iterator[str]:
    for sketch in sample.group.categories.values():
        top = sketch.top(2)
        if sketch.n >= SEVERAL and len(top) == 1:
            yield f"all {sketch.n} labels are {top[0][0]!r}: is target= right, and is the loader shuffled?"
    if sample.values.size and not np.isfinite(sample.values).all():
        yield "there are labels that are not finite"


def _nothing(_: SeenGroup) -> Iterator[str]:
    return iter(())


_ABOUT: Final[Mapping[str, Callable[[SeenGroup], Iterator[str]]]] = {
    "inputs": _images,
    "outputs": _outputs,
    "embeddings": _embeddings,
    "labels": _labels,
}


#: The source of what a dry run profiles.
SOURCE: Final = "check"
#: Columns of the table.
WIDTH: Final = 100


@dataclass(frozen=True)
class CheckRow:
    """What was seen of one group.

    Attributes:
        group: `"inputs"`, of several image inputs `"inputs/<name>"`, `"outputs"`, `"embeddings/<layer>"`, `"labels"`,
            or the stream of a custom measure.
        shape: Of the array that was read; of an embedding, once it is reduced; of a list of images, with -1 for a side
            that differs.
        dtype: Its dtype, e.g. `"float32"`; `"str"` for texts.
        device: Where it lies, e.g. `"cpu"`, `"cuda:0"`.
        read: How it was read.
        low: Smallest finite value: of images on the 0-255 scale, before anything is cut off; NaN if there is none.
        high: Largest finite value.
        rows: Rows that were profiled.
        invalid: Rows that were left out as not valid.
        found: How that was decided, where there was something to decide.
    """

    group: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    read: str
    low: float = math.nan
    high: float = math.nan
    rows: int = 0
    invalid: int = 0
    found: str = ""


@dataclass(frozen=True)
class Check:
    """What a dry run found. Printed, it is a table of 100 columns; below it, how things were decided, and the warnings.

    Attributes:
        rows: One for each group.
        warnings: What a person should look at before training.

    Example:
        >>> Check((CheckRow("labels", (8,), "int64", "cpu", "2 classes", 0, 1, 8),), ()).ok
        True
    """

    rows: tuple[CheckRow, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether there is something to profile and nothing to warn of."""
        return bool(self.rows) and not self.warnings

    def __str__(self) -> str:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for heading in ("group", "shape", "dtype", "device", "read as", "range", "rows", "invalid"):
            table.add_column(heading, overflow="fold")
        for row in self.rows:
            shape = "x".join("?" if side < 0 else str(side) for side in row.shape)
            cells = (row.group, shape, row.dtype, row.device, row.read, _range(row), str(row.rows), str(row.invalid))
            table.add_row(*map(Text, cells))
        out = io.StringIO()
        console = Console(file=out, width=WIDTH, highlight=False, color_system=None)
        console.print(table)
        for row in self.rows:
            if row.found:
                console.print(Text(f"{row.group}: {row.found}"))
        for warning in self.warnings:
            console.print(Text(f"warning: {warning}"))
        if self.ok:
            console.print("Nothing to warn of.")
        return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines()) + "\n"


def run_check(
    preparer: Preparer,
    batch: Any,
    answers: Mapping[str, Any],
    layers: Sequence[Listened] = (),
    *,
    loader: Any = None,
    aside: Callable[[], AbstractContextManager[Any]] = one_blas_thread,
    notes: Sequence[str] = (),
    targets: Mapping[str, Place] | None = None,
    fed: Iterable[tuple[int | str, ...]] | None = None,
) -> Check:
    """Take one batch in as a fit would, and look at what came out.

    Args:
        preparer: Makes what reads and measures the batch; its problems become warnings.
        batch: What the reader takes images and labels from.
        answers: What the layers answered, by key.
        layers: The layers that are read along.
        loader: What the batch comes from, if known: its transforms may tell a normalisation.
        aside: What measuring is done in.
        notes: Warnings that are known already.
        targets: Places in the batch of what the loss of each output was given as its target, if that was seen.
        fed: Places in the batch of what the model was given, if that was seen.
    """
    recording = Recording(SOURCE, preparer.prepare(SOURCE), layers, preparer.problems, aside=aside, ahead=False)
    recording.start(loader)
    arrays: dict[str, Any] = {}
    with preparer.problems.caught("the check"):
        taken = recording.take(batch)
        if taken is None:
            raise InputError("the batch holds no images, only None: pass another")
        for head, path in (targets or {}).items():
            recording.hint_labels(path, head)
        if fed is not None:
            recording.hint_images(fed)
        taken = taken.settled()
        recording.record(taken, lambda: answers)
        read = {**images_of(taken), **answers, **labels_of(taken)}
        arrays = {name: array for name, array in read.items() if array is not None}
    profile = recording.finish()
    made = {name: _made_of(name, profile) for name in arrays}
    samples = [SeenGroup(group, arrays[name]) for name, group in made.items() if group is not None]
    rows = [_row(sample) for sample in samples]
    rows += [_unread(name, arrays[name]) for name, group in made.items() if group is None]
    rows += [_own_row(name, group, sample) for sample in samples for name, group in sample.group.apart.items()]
    warnings = [*notes, *preparer.problems.messages, *map(_plainly, profile.warnings), *suspicions(samples)]
    if (
        _lacks_labels(preparer, arrays)
        and isinstance(batch, Mapping | list | tuple)
        and len(batch) > 1
        and (not _are_all_images(batch))
    ):
        warnings.append("no labels were found in the batch: pass target=, their key or place, or target=None")
    return Check(tuple(rows), tuple(dict.fromkeys(warnings)))


def _made_of(name: str, profile: Profile) -> Group | None:
    """The group of what was given by a plain name: of images by `lensai` if that measured them, else another."""
    others = (group for group in profile.groups.values() if plain_name(group.name) == name)
    return profile.groups.get(name) or next(others, None)


def reading_difference(preparer: Preparer, first_batches: Mapping[str, tuple[Any, Any]]) -> str:
    """What is to be said if two kinds of batches are not read alike, else nothing.

    Args:
        preparer: Makes what reads and measures them.
        first_batches: A loader and its first batch, by source; two of them.
    """
    profiles = {}
    for source, (loader, batch) in first_batches.items():
        reader, profiler = preparer.prepare(source)(loader)
        taken = reader.take(batch)
        taken = None if taken is None else taken.settled()
        if taken is not None and taken.images is not None:
            profiler.update(inputs=taken.images)
        profiles[source] = profiler.profile()
    return preparer.reading_difference(profiles)


def _lacks_labels(preparer: Preparer, arrays: Mapping[str, Any]) -> bool:
    """Whether there are none although they were looked for, and nothing was said of it."""
    wanted = preparer.options.target_of(SOURCE) is not None
    said = any(message.startswith(LABELS) for message in preparer.problems.messages)
    return wanted and not said and not any(name.split("/")[0] == LABELS for name in arrays)


def _are_all_images(batch: Any) -> bool:
    """Whether a batch is several arrays of images, and nothing that labels could be."""
    parts = parts_beside(by_part(batch), None)
    return bool(parts.views) and not (parts.candidates or parts.unread)


def without_missing(options: Options, find: Callable[[str], Any]) -> tuple[Options, list[str]]:
    """The options without the layers that a model does not have, and what is wrong with these.

    Args:
        options: What was asked for.
        find: Raises `InputError` for a name that the model does not have.
    """
    problems = []

    def exists(name: str) -> bool:
        try:
            find(name)
        except InputError as error:
            problems.append(str(error))
            return False
        return True

    layers, outputs, reduce = options.layers, options.outputs, options.reduce
    if layers is not None and not isinstance(layers, str):
        kept = [name for name in layers if exists(name)]
        if isinstance(reduce, Mapping):
            reduce = {name: how for name, how in reduce.items() if name in kept or name not in layers}
        layers = kept
    if outputs not in (None, "auto") and not exists(str(outputs)):
        outputs = None
    return replace(options, layers=layers, outputs=outputs, reduce=reduce), problems


def _row(sample: SeenGroup) -> CheckRow:
    group, (low, high) = sample.group, sample.range
    return CheckRow(
        group.name, *_looks(sample.array), _read(sample), low, high, group.n, group.invalid, _found(group.info)
    )


def _found(info: Mapping[str, Any]) -> str:
    """How an answer was found, and why it is read as it is."""
    why = f"read as {info['kind'].replace('_', ' ')}: {info['why']}" if "kind" in info and "why" in info else ""
    return "; ".join(filter(None, (info.get("found"), why)))


def _unread(name: str, array: Any) -> CheckRow:
    return CheckRow(name, *_looks(array), "could not be read")


def _looks(array: Any) -> tuple[tuple[int, ...], str, str]:
    """Shape, dtype and device."""
    texts = strings(array)
    if texts is not None:
        return (len(texts),), "str", device_of(array)
    if isinstance(array, list) and array and all(map(is_array, array)):  # images, which may be of several sizes
        sides = zip(*map(shape_of, array), strict=True)
        shape = tuple(side[0] if len(set(side)) == 1 else -1 for side in sides)
        return (len(array), *shape), dtype_name(array[0]), device_of(array[0])
    if isinstance(array, list) and array:  # numbers
        return (len(array),), type(array[0]).__name__, device_of(array)
    if not is_array(array):
        return (), type(array).__name__, device_of(array)
    return shape_of(array), dtype_name(array), device_of(array)


def _own_row(name: str, group: Group, images: SeenGroup) -> CheckRow:
    assert group.bank is not None
    low, high = float(group.bank.min.min()), float(group.bank.max.max())
    shape, unit = (group.n + group.invalid, group.bank.dim), group.definition(group.definition_of(name))
    read = f"custom measure, {unit.unit}" if unit is not None and unit.unit != "1" else "custom measure"
    where = device_of(images.array)
    return CheckRow(f"{group.name}/{name}", shape, "float32", where, read, low, high, group.n, group.invalid)


def _read(sample: SeenGroup) -> str:
    info = sample.group.info
    if is_images(sample.group.name):
        return f"{info['note']}, {info['size']}"
    if sample.group.name.split("/")[0] == OUTPUTS:
        return f"{info['kind'].replace('_', ' ')} of {info.get('layer') or 'the model'}"
    if sample.group.name.startswith(LAYER):
        reduced = f"{info['reduce']} of {info['axes']} axes, " if info["axes"] != 2 else ""
        return f"{reduced}{info['width']} wide"
    path = info.get("read_from")
    counts = [len(sketch.top(1 << 20)) for sketch in sample.group.categories.values()]
    several = ("label", "labels, several at once") if counts and sample.group.streams else ("class", "classes")
    read = f"{counts[0]} {several[counts[0] != 1]}" if counts else "numbers"
    return f"{read}, from {path!r}" if path is not None else read


def device_of(array: Any) -> str:
    """Where an array lies, in the words of its library; lists and numpy arrays lie on the host, `"cpu"`.

    Example:
        >>> import numpy as np
        >>> device_of(np.zeros(2)), device_of(["cat"])
        ('cpu', 'cpu')
    """
    device = getattr(array, "device", None)
    if device is None or not is_array(array):
        return "cpu"
    return str(device).rpartition("/device:")[2].lower() if "/device:" in str(device) else str(device)


def _plainly(warning: str) -> str:
    return warning.replace(": batches were left out from row 0 on: ", " cannot be profiled: ")


def _range(row: CheckRow) -> str:
    return "" if math.isnan(row.low) else f"{row.low:.4g} to {row.high:.4g}"


#: Images of a folder that are looked at, evenly from all of it.
MOST_IMAGES: Final = 64


def check_path(
    path: Path, *, layout: str = "auto", scale: str = "auto", mean: str | None = None, std: str | None = None
) -> Check:
    """Look at images as a profiler would: of a folder, one file, or a batch in a `.npy` or `.npz` file.

    Args:
        path: Folder (with folders in it), image, or array; a `.npz` may have labels beside the images.
        layout: As in `ImageInputs`.
        scale: A number as text, or `"auto"`.
        mean: A number, or one per channel with commas between.
        std: Likewise.

    Raises:
        InputError: If there is nothing to look at, or an option is no number.
        MissingDependencyError: If images are to be read and Pillow is not installed.
    """
    inputs = ImageInputs(layout=layout, scale=_scale(scale), mean=_numbers("mean", mean), std=_numbers("std", std))
    batch, notes = _arrays(path) if path.suffix.lower() in (".npy", ".npz") else _image_files(path)
    options = Profiling(layers=None, inputs=inputs, outputs=None, rows=0)
    return run_check(Preparer(options, Problems(quiet=True)), batch, {}, notes=notes)


def _scale(text: str) -> float | str:
    if text == "auto":
        return text
    (number,) = _numbers("scale", text) or (1.0,)
    return number


def _numbers(name: str, text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(number) for number in text.split(","))
    except ValueError as error:
        raise InputError(f"{name}={text!r} should be numbers with commas between, e.g. 0.485,0.456,0.406") from error


def _arrays(path: Path) -> tuple[Any, list[str]]:
    """The batch in a file of numpy arrays. Nothing in it is unpickled."""
    try:
        loaded = np.load(path, allow_pickle=False)
        batch = loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:  # damaged headers make numpy raise TokenError, TypeError, MemoryError and more
        pass_on(error)
        raise InputError(f"{path} holds no plain numpy arrays: {error}") from error
    return (next(iter(batch.values())) if isinstance(batch, dict) and len(batch) == 1 else batch), []


def _image_files(path: Path) -> tuple[NDArray[np.uint8], list[str]]:
    """The images of the commonest size as `[n, H, W, 3]` or `[n, H, W]`, and what was left out."""
    files = list(_spread(images_in(path)[1]))
    by_shape: dict[tuple[int, ...], list[NDArray[np.uint8]]] = defaultdict(list)
    broken: list[str] = []
    for file in files:
        try:
            image = _read_files(file)
        except (OSError, ValueError) as error:
            pass_on(error)
            broken.append(f"{file.name} could not be read: {error}")
        else:
            by_shape[image.shape].append(image)
    if not by_shape:
        raise InputError(f"{path} has no images that can be read: {broken[0]}")
    largest = max(by_shape.values(), key=len)
    left = sum(map(len, by_shape.values())) - len(largest)
    if left:
        broken.append(f"{left} of {len(files)} images are of other sizes and were left out: a batch has one size")
    return np.stack(largest), broken


def _spread(files: list[Path]) -> Iterator[Path]:
    """At most `MOST_IMAGES`, evenly from the whole list."""
    step = max(1, -(-len(files) // MOST_IMAGES))
    yield from files[::step]


def _read_files(file: Path) -> NDArray[np.uint8]:
    try:
        pillow: Any = import_module("PIL.Image")
    except ImportError as error:
        raise MissingDependencyError("reading images needs Pillow: pip install pillow") from error
    with pillow.open(file) as image:
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"), np.uint8)


class Checkable:
    """A callback that can be asked what it would see; `_checked` is its adapter's way of looking."""

    _options: Options
    _checked: Callable[[Options, Any, Any], Check]

    def check(self, *model_and_batch: Any) -> Check:
        """Run one batch through everything, and tell what was read and what looks wrong. Nothing is changed or kept.

        The model answers in evaluation mode and without gradients. Its modes, weights, buffers and hooks and the random
        numbers of Python, numpy and the framework are as before; only a generator has one batch less.

        Args:
            model_and_batch: `model, batch`, or a batch alone to look at images and labels only. Instead of a batch,
                a loader, or with Lightning a data module: then its first batch.

        Returns:
            A table when printed; `ok` says whether there is nothing to warn of.

        Raises:
            InputError: If there is no batch.

        Example:
            >>> print(callback.check(model, train_loader))  # doctest: +SKIP
        """
        if not 1 <= len(model_and_batch) <= 2:
            raise InputError(f"check takes a model and a batch, or a batch alone, not {len(model_and_batch)} arguments")
        *model, batch = model_and_batch
        return self._checked(self._options, model[0] if model else None, batch)
