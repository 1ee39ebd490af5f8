"""One pass over data: batch after batch is recorded, and a profile comes out.

It goes beside a training, so numpy's matrix products are kept out of the way of the training's threads. After a product
on several threads, OpenBLAS's workers wait for the next one by spinning, for tens of milliseconds, on the very cores on
which torch computes the next training step. A batch's products are small enough for one thread, which leaves no worker
behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final, Protocol

from lensai_integrations.arrays.namespaces import is_array
from lensai_integrations.measures.batches import SeveralImages
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.problems import Problems, pass_on
from lensai_integrations.profiles.conventions import INPUTS
from lensai_integrations.profiles.names import LABELS, OUTPUTS, group_of
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.batch_reading import BatchReader, Reader, Taken, copy_of
from lensai_integrations.profiling.labels import Place
from lensai_integrations.profiling.profiler import Profiler
from lensai_integrations.profiling.waiting import Looked


def one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which numpy's linear algebra uses the calling thread alone. It costs some microseconds.

    Example:
        >>> import numpy as np
        >>> with one_blas_thread():
        ...     float(np.ones(3) @ np.ones(3))
        3.0
    """
    pools = _blas_pools()
    return nullcontext() if pools is None else pools.limit(limits=1)


@cache
def _blas_pools() -> Any:
    """Handles of the BLAS libraries that are loaded, or None without threadpoolctl."""
    try:
        return import_module("threadpoolctl").ThreadpoolController().select(user_api="blas")
    except ImportError:
        return None


#: What the keys of embeddings begin with.
LAYER: Final = "embeddings/"
NO_PADDING: Final = (0, 0)


class Measurer(Protocol):
    """What a recording hands its batches to: a `Profiler`, or a monitor (`drift.py`)."""

    def reset(self) -> None:
        """A pass begins."""
        ...

    def describe(self, group: str, **info: Any) -> None:
        """Note where a group comes from."""
        ...

    def update(
        self,
        *,
        inputs: Any = None,
        outputs: Any = None,
        embeddings: Mapping[str, Any] | None = None,
        labels: Any = None,
        segments: Any = None,
    ) -> Any:
        """Take in a batch."""
        ...

    def profile(self) -> Profile:
        """What the pass amounts to."""
        ...


@dataclass
class Listened:
    """A layer that is read along.

    Attributes:
        key: Under which its answers are recorded: `"outputs"` or `"embeddings/<layer>"`.
        path: Its full name in the model, for messages.
        info: What the profile notes of it: JSON values. Complete once the first answer was caught.
        left_out: Whether it was said that nothing is recorded of it.
    """

    key: str
    path: str
    info: dict[str, Any] = field(default_factory=dict)
    left_out: bool = False


class Recording:
    """Profiles one kind of pass, again and again; every pass begins from nothing.

    Args:
        source: What is profiled: `"validation"`, `"training"`, `"test"`.
        prepare: Given the first pass's loader, makes the reader of its batches and what measures them.
        layers: The layers that are read along.
        problems: Where it is reported what could not be profiled.
        aside: What measuring is done in, apart from the training.
        why_silent: What to tell of a layer that never answered.
        known: Outputs that are not recorded here, of which it is known what their labels mean.
        ahead: Whether images are measured when they are taken, and not kept, where a profiler measures them.
    """

    def __init__(
        self,
        source: str,
        prepare: Callable[[Any], tuple[Reader, Measurer]],
        layers: Sequence[Listened],
        problems: Problems,
        *,
        aside: Callable[[], AbstractContextManager[Any]] = one_blas_thread,
        why_silent: Callable[[Listened], str] = lambda _: "it is not part of the forward pass",
        known: Sequence[Listened] = (),
        ahead: bool = True,
    ) -> None:
        self.source, self._ahead = source, ahead
        self._prepare, self.layers, self._problems = prepare, layers, problems
        self._aside, self._why_silent = aside, why_silent
        self._known = known
        self._prepared: tuple[Reader, Measurer] | None = None
        self.started = False

    def start(self, loader: Any = None, padding: tuple[int, int] = NO_PADDING) -> None:
        """Begin a pass, forgetting what there was.

        Args:
            loader: What the batches come from, if that is known: it may tell a normalisation.
            padding: How many rows are this process's own, and how many behind them repeat others'.
        """
        self._prepared = self._prepared or self._prepare(loader)
        self._prepared[1].reset()
        self._own, self._padding = padding
        self._rows = self._left_out = self._batches = self._failed = self._empty = 0
        self._seen: set[str] = set()
        self.started = True

    def take(self, batch: Any) -> Taken | None:
        """What is profiled of a batch's images and labels, whatever a step does to them: for `record`. None outside of
        a pass, or if there is nothing in it."""
        if not self.started or self._prepared is None:
            return None
        reader = self._prepared[0]
        with self._aside():
            taken = reader.take(batch, self._keep) if isinstance(reader, BatchReader) else reader.take(batch)
        self._empty += taken is None
        return taken

    def _keep(self, images: Any) -> Any:
        """What is kept of images that a step may change: what was measured of them; or a copy.

        A monitor cuts batches where its windows end, and at the end of a pass some of a batch may be left out. And the
        first batch of a pass, which decides how images are read, may be one that the model refuses.
        """
        assert self._prepared is not None
        profiler = self._prepared[1]
        reaches_padding = self._padding > 0 and self._rows + _length(images) > self._own
        if self._ahead and self._batches and isinstance(profiler, Profiler) and not reaches_padding:
            try:
                return profiler.look(images)
            except Exception as error:  # noqa: BLE001  `update` raises it again, where a failed batch is counted
                pass_on(error)
        return copy_of(images)

    def skip(self, rows: int) -> None:
        """Pass over a batch that is not profiled: which rows repeat others' is known by how many are before them.

        Args:
            rows: How many it has.
        """
        self._rows += rows
        excess = self._rows - self._own
        if 0 < excess <= self._padding:
            self._rows -= excess
            self._padding -= excess

    def hint_labels(self, place: Place, head: str = "") -> None:
        """Tell that the loss was given what is at this place of the batch as the target of an output."""
        if self._prepared is not None and isinstance(reader := self._prepared[0], BatchReader):
            reader.hint_labels(place, head)

    def hint_images(self, places: Iterable[tuple[int | str, ...]]) -> None:
        """Tell which parts of the batch the model was seen to be fed."""
        if self._prepared is not None and isinstance(reader := self._prepared[0], BatchReader):
            reader.hint_images(places)

    def record(self, taken: Taken, caught: Callable[[], Mapping[str, Any]]) -> None:
        """Hand everything of one batch to the profiler. A batch that this fails for is counted.

        Args:
            taken: Its images and labels.
            caught: Gives what the layers answered, by key.
        """
        if self._prepared is None:
            return
        self._batches += 1
        self._failed += 1
        with self._aside():
            answers = caught()
            taken = taken.settled()
            self._describe(answers, taken.class_names)
            labels = self._described_labels(taken)
            rows = {"inputs": taken.images, **labels, "segments": taken.segments, **answers}
            self._update(self._trimmed(rows))
        self._failed -= 1

    def _update(self, batch: dict[str, Any]) -> None:
        assert self._prepared is not None
        groups: dict[str, Any] = {"embeddings": {}}
        for key, rows in batch.items():
            origin, _, name = key.partition("/")
            if name:
                groups.setdefault(origin, {})[name] = rows
            else:
                groups[key] = rows
        self._prepared[1].update(**groups)

    def _describe(self, answers: Mapping[str, Any], class_names: Sequence[str] | Mapping[str, Sequence[str]]) -> None:
        """Tell the profiler where a group comes from, when its first rows are there."""
        assert self._prepared is not None
        for layer in self._known:
            if layer.key.split("/")[0] == OUTPUTS and layer.key not in self._seen:
                self._seen.add(layer.key)
                self._prepared[1].describe(layer.key, **layer.info)
        for layer in self.layers:
            if layer.key in answers and layer.key not in self._seen:
                self._seen.add(layer.key)
                names = class_names if layer.key == OUTPUTS and not isinstance(class_names, Mapping) else ()
                named = names and _columns(answers[layer.key]) == len(names)
                info = layer.info | {"class_names": list(names)} if named else layer.info
                self._prepared[1].describe(layer.key, **info)

    def _described_labels(self, taken: Taken) -> dict[str, Any]:
        """The labels of a batch by the name of their group, told to the profiler when the first are there."""
        assert self._prepared is not None
        labels = labels_of(taken)
        for key in labels.keys() - self._seen:
            path = taken.place[key.removeprefix(f"{LABELS}/")] if isinstance(taken.place, Mapping) else taken.place
            if path is not None:
                self._seen.add(key)
                names = taken.class_names
                names = names.get(key.removeprefix(f"{LABELS}/"), ()) if isinstance(names, Mapping) else names
                info = {"class_names": list(names)} if names else {}
                self._prepared[1].describe(key, read_from=path, **info)
        return labels

    def _trimmed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch without the rows that the sampler repeats; if rows are not samples, as it is."""
        n = max((_length(rows) for rows in batch.values() if rows is not None), default=0)
        self._rows += n
        excess = self._rows - self._own
        if not 0 < excess <= self._padding:
            return batch
        self._rows -= excess
        self._padding -= excess
        self._left_out += excess
        return {key: _first(rows, n - excess) for key, rows in batch.items() if rows is not None and n > excess}

    def finish(self, **info: Any) -> Profile:
        """End the pass: its profile, in host memory. Waits for the accelerator, once.

        Args:
            info: JSON values for the profile's info.
        """
        assert self._prepared is not None
        self.started = False
        with self._aside():
            profile = self._prepared[1].profile()
        profile.info |= {**info, "padding_left_out": self._left_out}
        profile.info["warnings"] = [*profile.warnings, *self._complaints()]
        return profile

    def _complaints(self) -> list[str]:
        complaints = []
        for layer in self.layers:
            if self._batches and layer.key not in self._seen and not layer.left_out:
                problem = (
                    f"layer {layer.path!r} answered nothing in {self._batches} batches of {self.source}:"
                    f" {self._why_silent(layer)}"
                )
                self._problems.note(layer.key, problem, listed=False)
                complaints.append(problem)
        if self._empty:
            complaints.append(
                f"{self._empty} of {self._empty + self._batches} batches of {self.source} held no images (None), and"
                " nothing of them is in the profile"
            )
        if self._failed:
            complaints.append(
                f"{self._failed} of {self._batches} batches of {self.source} were left out after an error"
            )
        return complaints


def labels_of(taken: Taken) -> dict[str, Any]:
    """The labels of a batch by the name of their group.

    Example:
        >>> labels_of(Taken(None, [1, 2], 1)), labels_of(Taken(None, {"species": [1, 2]}, {"species": "species"}))
        ({'labels': [1, 2]}, {'labels/species': [1, 2]})
    """
    if isinstance(taken.labels, Mapping):
        return {f"{LABELS}/{name}": labels for name, labels in taken.labels.items()}
    return {LABELS: taken.labels}


def images_of(taken: Taken) -> dict[str, Any]:
    """The images of a batch by the name of their group.

    Example:
        >>> list(images_of(Taken(SeveralImages(left=0, right=1), None, None)))
        ['inputs/left', 'inputs/right']
    """
    if isinstance(taken.images, SeveralImages):
        return {group_of(INPUTS, name): images for name, images in taken.images.items()}
    return {INPUTS: taken.images}


def _length(rows: Any) -> int:
    """How many rows there are; of several image inputs, of the longest."""
    return max(map(len, rows.values())) if isinstance(rows, SeveralImages) else len(rows)


def _first(rows: Any, n: int) -> Any:
    if isinstance(rows, Looked):  # of a batch that has no more images
        return rows
    if isinstance(rows, SeveralImages):
        return SeveralImages((name, images[:n]) for name, images in rows.items())
    return rows[:n]


def _columns(answer: Any) -> int:
    """How many numbers a layer answered per image; 0 if that is no plain array."""
    return int(answer.shape[1]) if is_array(answer) and len(answer.shape) == 2 else 0


def reduce_name(reduce: Reduce) -> str:
    """What a profile notes of a reduction: its name.

    Example:
        >>> reduce_name("mean"), reduce_name(max)
        ('mean', 'max')
    """
    return reduce if isinstance(reduce, str) else str(getattr(reduce, "__qualname__", type(reduce).__name__))
