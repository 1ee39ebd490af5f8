"""A dry run: one batch through everything, as a table, before a night of training is spent on a wrong `mean`.

The batch goes the way that all batches of a fit go; what is looked at here is what came out, and what was handed in.
Values are waited for: nobody trains meanwhile.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

from lensai_integrations.arrays.namespaces import dtype_name, is_array, shape_of, strings
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.conventions import is_images, plain_name
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import LABELS, OUTPUTS
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.labels import Place, by_part, parts_beside
from lensai_integrations.training.fit import Preparer
from lensai_integrations.training.options import Options
from lensai_integrations.training.recording import LAYER, Listened, Recording, images_of, labels_of
from lensai_integrations.training.suspicions import SeenGroup, suspicions
from lensai_integrations.training.threads import one_blas_thread

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
    recording = Recording(SOURCE, preparer.prepare(SOURCE), layers, preparer.problems, aside=aside)
    recording.start(loader)
    arrays: dict[str, Any] = {}
    with preparer.problems.caught("the check"):
        taken = recording.take(batch)
        if taken is None:
            raise InputError("the batch holds no images, only None: pass another")
        for head, place in (targets or {}).items():
            recording.hint_labels(place, head)
        if fed is not None:
            recording.hint_images(fed)
        taken = taken.settled()
        recording.record(taken, lambda: answers)
        found = {**images_of(taken), **answers, **labels_of(taken)}
        arrays = {name: array for name, array in found.items() if array is not None}
    profile = recording.finish()
    made = {name: _made_of(name, profile) for name in arrays}
    seen = [SeenGroup(group, arrays[name]) for name, group in made.items() if group is not None]
    rows = [_row(each) for each in seen]
    rows += [_unread(name, arrays[name]) for name, group in made.items() if group is None]
    rows += [_own_row(name, own, each) for each in seen for name, own in each.group.apart.items()]
    told = [*notes, *preparer.problems.messages, *map(_plainly, profile.warnings), *suspicions(seen)]
    if (
        _lacks_labels(preparer, arrays)
        and isinstance(batch, Mapping | list | tuple)
        and len(batch) > 1
        and (not _are_all_images(batch))
    ):
        told.append("no labels were found in the batch: pass target=, their key or place, or target=None")
    return Check(tuple(rows), tuple(dict.fromkeys(told)))


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


def _row(seen: SeenGroup) -> CheckRow:
    group, (low, high) = seen.group, seen.range
    return CheckRow(group.name, *_looks(seen.array), _read(seen), low, high, group.n, group.invalid, _found(group.info))


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
    known = is_array(array)
    return (shape_of(array) if known else ()), (dtype_name(array) if known else type(array).__name__), device_of(array)


def _own_row(name: str, own: Group, images: SeenGroup) -> CheckRow:
    assert own.bank is not None
    low, high = float(own.bank.min.min()), float(own.bank.max.max())
    shape, unit = (own.n + own.invalid, own.bank.dim), own.definition(own.definition_of(name))
    read = f"custom measure, {unit.unit}" if unit is not None and unit.unit != "1" else "custom measure"
    where = device_of(images.array)
    return CheckRow(f"{own.name}/{name}", shape, "float32", where, read, low, high, own.n, own.invalid)


def _read(seen: SeenGroup) -> str:
    info = seen.group.info
    if is_images(seen.group.name):
        return f"{info['note']}, {info['size']}"
    if seen.group.name.split("/")[0] == OUTPUTS:
        return f"{info['kind'].replace('_', ' ')} of {info.get('layer') or 'the model'}"
    if seen.group.name.startswith(LAYER):
        reduced = f"{info['reduce']} of {info['axes']} axes, " if info["axes"] != 2 else ""
        return f"{reduced}{info['width']} wide"
    place = info.get("read_from")
    counts = [len(sketch.top(1 << 20)) for sketch in seen.group.categories.values()]
    several = ("label", "labels, several at once") if counts and seen.group.streams else ("class", "classes")
    read = f"{counts[0]} {several[counts[0] != 1]}" if counts else "numbers"
    return f"{read}, from {place!r}" if place is not None else read


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
