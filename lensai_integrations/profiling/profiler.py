"""Batches in, a profile out: the one place where measures meet sketches, whatever framework the batches come from.

Nothing here waits for an accelerator, but for the first batch: how images and outputs are to be read is decided there,
once, and kept. Torch's sketches live on the accelerator, and are given some hundred rows at once (see `waiting`). Of
JAX and TensorFlow the rows that were measured there have to come to the host first.

A training step may change its images in place, so they are measured before it: `look` measures them, and `update` is
given what came out. What was looked at and never given to `update`, as of a step that failed, counts nowhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from lensai_integrations.arrays.namespaces import Array, is_array, namespace
from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import COMMON, documented
from lensai_integrations.measures.batches import SeveralImages, separated
from lensai_integrations.measures.custom import CustomMeasure, checked_measures
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.meaning import check_rows
from lensai_integrations.measures.outputs import Kind, Task, heads_of
from lensai_integrations.problems import log, pass_on
from lensai_integrations.profiles.alike import check_alike, sketched_alike, unlike_in
from lensai_integrations.profiles.conventions import INPUTS, input_of, kept_apart
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import (
    DEFAULT_SEGMENTS,
    LABEL,
    LABELS,
    OUTPUTS,
    beyond_columns,
    checked_segment_by,
    group_of,
    head_of,
    is_labels,
    is_outputs,
    labels_by_head,
    named,
    partner_of,
    wrong_names,
)
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.profiling.image_reading import pixels_of
from lensai_integrations.profiling.measuring import ImageBatch, Measured, Rows, from_list, with_rows
from lensai_integrations.profiling.recorders import RECORDERS, Recorder
from lensai_integrations.profiling.segmenting import Segmenter, label_values
from lensai_integrations.profiling.settings import NOT_DECLARED, ProfilerSettings
from lensai_integrations.profiling.waiting import Batch, Looked, LookedGroup, Waiting, joint_rows
from lensai_integrations.sketches.rows import RowSample

#: Rows of a group from which on its kernel mean has chosen its bandwidths; until then no rows wait, so that they are
#: chosen by the same rows wherever these lie.
_FIRST_ROWS: Final = 16


@documented(COMMON, only=("convention", "measures", "task", "k", "rows", "max_dim", "max_segments"))
class Profiler:
    """Takes batches and keeps their sketches; `profile()` gives what they amount to.

    Args:
        inputs: How to read image batches. None: as those of `like` were, else the first batch decides, as it does with
            `ImageInputs()`. One that says no more than `key=` is that of `like` in another place. Of several image
            inputs (left and right cameras, a pair), one for each by its name: `{"left": ImageInputs(), "right":
            ImageInputs()}`. Each reads what has its name in the batch, or is at its `key`, and is a group
            `inputs/<name>`.
        convention: Several, as in `("lensai", "lensai-edge")`, measure every image by each: by `lensai` in the group
            `inputs`, by others in `inputs/<convention>`. None: the first of `like`, which production is held against,
            else `"lensai"`.
        measures: None: those of `like`, as far as this process has declared them; a warning names the others. What
            fails in one of them is logged once, and leaves out its own rows.
        seed: One or several integers, for a profile that can be made again; by default the operating system draws one.
            Profiles that will be merged need different ones.
        source: What is profiled: `"production"`, `"validation"`, `"training"`...
        like: Read and sketch as this baseline was, so that the two can be compared in everything; a batch of another
            width is an error. If its only images are as they were delivered, as of `lensai profile`, so are those of
            batches: of any size and colour mode, in its group `raw`. It may be read from a device
            (`edge.read_stats`): then no rows are kept, and streams have sketches of their own.
        segment_by: Keep a profile per value beside the whole: `"label"`, or the name of what `update` is given as
            `segments`. None keeps none.
        on_error: Called with a group's name and the error when a group cannot take a batch; the other groups go on and
            the profile says what is missing. By default such errors are raised.
        on_note: Called with a sentence that a reader of the profile should know: what was chosen among several
            readings of the first batch, and how to settle it. By default it is logged.

    Attributes:
        n: Rows so far.
        held: The groups that the last batch went to, with `like` those that it has.

    Example:
        >>> import numpy as np
        >>> profiler = Profiler()
        >>> images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
        >>> profiler.update(inputs=images, labels=np.arange(32) % 2)
        >>> list(profiler.profile().groups)
        ['inputs', 'labels']
    """

    def __init__(
        self,
        *,
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        convention: str | Sequence[str] | None = None,
        measures: Sequence[CustomMeasure] | None = None,
        task: Task | Kind | Mapping[str, Task | Kind] = "auto",
        k: int = 200,
        rows: int = 2000,
        max_dim: int = 2048,
        seed: int | Sequence[int] | None = None,
        source: str = "production",
        like: Baseline | Profile | None = None,
        segment_by: str | None = None,
        max_segments: int = DEFAULT_SEGMENTS,
        on_error: Callable[[str, Exception], None] | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.source = source
        self._settings = ProfilerSettings(
            inputs=inputs,
            convention=convention,
            task=task,
            k=k,
            max_dim=max_dim,
            seed=_seeds(seed),
            like=like.reference if isinstance(like, Baseline) else like,
            measures=None if measures is None else checked_measures(measures),
        )
        self._settings.on_custom_failure = self._custom_failed
        self._settings.on_note = on_note or _logged
        like = self._settings.like
        self._row_count = 0 if like is not None and any(map(kept_apart, like.groups.values())) else rows
        self._segment_by, self._max_segments = checked_segment_by(segment_by, max_segments), max_segments
        self._on_error = on_error
        self._wrong_names: dict[str, str] = {}
        for id in self._settings.missing:
            log.warning("%s", NOT_DECLARED.format(id))
        self.reset()

    def describe(self, group: str, **info: Any) -> None:
        """Say where a group comes from; kept in its `info`, shown in the report.

        Args:
            group: `"outputs"`, `"labels"`, one of their heads, or `"embeddings/<layer>"`.
            info: JSON values. For embeddings `reduce` and `axes` (of the layer's output) choose the definition. For
                outputs these decide what they are, all optional: `linear` (whether a linear map comes last),
                `activation` (`"sigmoid"` or `"softmax"`), `loss` (`"cross_entropy"`, `"binary_cross_entropy"`,
                `"binary_cross_entropy_with_logits"`, `"squared"` for any distance of numbers, `"hinge"` for margins of
                labels -1 and 1, `"sigmoid"` or `"softmax"` for one written by hand that takes it, `"unseen"` if none
                was found, `"other"`). For outputs and labels `class_names`, a list of strings, the first for class 0.
        """
        names = info.pop("class_names", None)
        if names is not None and (problem := wrong_names(names)):
            self._wrong_names[group] = f"{group}: {problem}"
        elif names is not None:
            info["class_names"] = list(names)
        self._settings.descriptions.setdefault(group, {}).update(info)

    @property
    def readers(self) -> dict[str, ImageInputs]:
        """How images are read, with all that the first of them decided, by name of the image input; see `inputs`."""
        return self._settings.readers | self._settings.resolved

    def share_labels(self, other: Profiler) -> None:
        """Read labels as another profiler of the same model does: the first batch that either sees decides for both."""
        self._settings.share_labels(other._settings)

    def reset(self) -> None:
        """Forget all rows; how batches are read stays decided."""
        self.n = 0
        self.held: frozenset[str] = frozenset()
        self._recorders: dict[str, Recorder] = {}
        self._rows = RowSample(self._row_count, seed=self._settings.seed_of("rows")) if self._row_count else None
        self._widths: dict[str, int] = {}
        self._problems: dict[str, str] = {}
        self._with_heads: set[str] = set()
        self._head_names: dict[str, str] = {}
        self._waiting = Waiting()
        self._begun = object()
        self._taken: dict[str, tuple[Hashable, int]] = {}  # of each group, what its last rows were like, and how many
        by, most = self._segment_by, self._max_segments
        self._segmenter = Segmenter(by, most, self._settings) if by is not None else None

    def update(
        self,
        *,
        inputs: Any = None,
        outputs: Any = None,
        embeddings: Mapping[str, Array] | None = None,
        labels: Any = None,
        segments: Any = None,
    ) -> None:
        """Take in one batch. Everything given belongs to the same images, row for row.

        Args:
            inputs: A batch that `ImageInputs` can read; of several image inputs a dict by name, or a tuple in order, or
                what else has them. Here and below: of numpy, torch, JAX or TensorFlow, anywhere. Or what `look` has
                measured of such a batch.
            outputs: What the model answered: `[n, C]`, or a structure of such arrays, as `heads_of` reads them. Several
                heads are groups `outputs/<head>` each.
            embeddings: Layer name to `[n, D]`, or to the layer's output: that is reduced as in `like`, else averaged.
            labels: `[n]` classes (integers or strings) or numbers; `[n, k]` one-hot or soft classes, several labels at
                once (0 and 1), or k numbers. A dict of these by head.
            segments: `[n]` strings, whole numbers or None: each row's value of what `segment_by` names, unless that is
                `"label"`.

        Raises:
            InputError: If something cannot be read, or the numbers of rows differ.
        """
        if embeddings is not None and not isinstance(embeddings, Mapping):
            raise InputError(
                f"embeddings= is a {type(embeddings).__name__}: pass a dict from the names of layers to their arrays,"
                " such as embeddings={'avgpool': array}"
            )
        values = self._segment_values(segments)
        self._head_names, self.held = {}, frozenset()
        batches: dict[str, Any] = {**self._images(inputs)}
        batches |= self._heads(OUTPUTS, outputs)
        batches |= {f"embeddings/{layer}": _array(rows) for layer, rows in (embeddings or {}).items()}
        batches |= self._heads(LABELS, labels)
        self._settings.batch = batches
        measured: dict[str, Measured] = {}
        waiting: dict[str, Measured] = {}
        rows = 0
        for name, batch in batches.items():
            if batch is not None and (one := self._record(name, batch, waiting, rows if is_labels(name) else 0)):
                measured[name] = one
                rows = rows or _rows_of(one)
        self._settings.batch = {}
        compared = self._settings.like.groups if self._settings.like is not None else measured
        self.held = frozenset(measured.keys() & compared)
        self._split(measured, values)
        if waiting:
            measured = {name: waiting.get(name) or one.kept() for name, one in measured.items()}
        joint: Rows = {name: rows for one in measured.values() for name, rows in one.rows.items()}
        if joint:
            joint = self._checked(joint)
        if waiting:
            self._waiting.add(Batch(waiting, joint))
            self._take_waiting(self._waiting.due)
        elif joint:
            self._take_waiting(len(self._waiting))
            self._join(joint)

    def look(self, inputs: Any) -> Looked:
        """Measure a batch of images for an `update` to come: from here on they may be changed, and are not kept.

        Args:
            inputs: As for `update`.

        Raises:
            InputError: If they cannot be read.

        Example:
            >>> import numpy as np
            >>> profiler, images = Profiler(), np.zeros((4, 8, 8, 3), np.uint8)
            >>> looked = profiler.look(images)
            >>> images[:] = 255
            >>> profiler.update(inputs=looked, labels=[0, 1, 1, 0])
            >>> profiler.profile().groups["inputs"].pixels.max.tolist()
            [0.0, 0.0, 0.0]
        """
        looked: dict[str, LookedGroup | Exception] = {}
        for name, batch in self._images(inputs).items():
            try:
                looked[name] = self._measured(name, batch)
            except Exception as error:  # noqa: BLE001  it is told of when the batch is counted, if there is somebody to tell
                pass_on(error)
                if self._on_error is None:
                    self._failed(name, error)
                looked[name] = error
        return Looked(looked, self._begun)

    def follow(self, rows: RowSample | None) -> None:
        """Say that the rows to come are those after the rows that a sample has seen; no row has come yet.

        So it is known, where profiles are merged, which rows came one after another.
        """
        if rows is not None and self._rows is not None and not self._rows.n:
            self._rows.follow(rows)

    def profile(self) -> Profile:
        """What the batches so far amount to, in host memory. Waits for the accelerator, once.

        The profile is a copy: later updates do not change it.
        """
        self._take_waiting(len(self._waiting))
        if self._segmenter is not None:
            with self._segment_errors():
                self._segmenter.split()
        recorded = {name: _host_copy(recorder.group) for name, recorder in self._recorders.items()}
        self._name_classes(recorded)
        groups = {name: sketched_alike(group, self._settings.like) for name, group in recorded.items()}
        apart = {
            f"{name}/{stream}": measure_group
            for name, group in recorded.items()
            for stream, measure_group in group.apart.items()
        }
        warnings = [*self._wrong_names.values(), *self._problems.values()] + [
            f"{group.invalid:,} of {group.n + group.invalid:,} rows of {name} were left out: {self._why(name)}"
            for name, group in (recorded | apart).items()
            if group.invalid
        ]
        warnings += [warning for recorder in self._recorders.values() for warning in recorder.warnings()]
        warnings += [note for kind in (OUTPUTS, LABELS) for note in self._settings.notes.get(kind, [])]
        warnings += unlike_in(recorded, self._settings.known, warnings)
        warnings += beyond_columns(recorded)
        warnings += [NOT_DECLARED.format(id) for id in self._settings.missing]
        created = datetime.now(UTC).isoformat(timespec="seconds")
        rows = self._rows.copied() if self._rows is not None and self._rows.n else None
        info: dict[str, Any] = {"source": self.source, "created": created, "warnings": warnings}
        if self._segmenter is None:
            return Profile(groups, rows, info)
        segments = self._segmenter.profiles(recorded, {"source": self.source})
        return Profile(groups, rows, info | self._segmenter.info(), segments)

    def _name_classes(self, groups: Mapping[str, Group]) -> None:
        """Class names that were told of an answer are those of its labels too, and the other way round."""
        for name, group in groups.items():
            both = (self._settings.described(group_name) for group_name in (name, partner_of(name)))
            names = next((description["class_names"] for description in both if "class_names" in description), None)
            if names is not None and (is_outputs(name) or is_labels(name)):
                group.info["class_names"] = names

    def _images(self, inputs: Any) -> Mapping[str, ImageBatch | LookedGroup | Exception]:
        """What each group of images is read from. An image input that the batch lacks is left out and named."""
        if inputs is None:
            return {}
        if isinstance(inputs, Looked):
            if inputs.begun is not self._begun:
                raise InputError("inputs= is what another profiler has looked at, or this one before its reset()")
            return inputs.groups
        settings = self._settings
        if settings.delivered:
            try:
                return {settings.delivered: ImageBatch(pixels_of(inputs, settings.readers[""]))}
            except Exception as problem:
                pass_on(problem)
                if self._on_error is None:
                    raise
                self._left_out(settings.delivered, problem)
                return {}
        if isinstance(inputs, SeveralImages):
            settings.several_inputs(list(inputs))
        if list(settings.readers) == [""]:
            return dict.fromkeys(settings.image_groups, ImageBatch(inputs))
        by_input = separated(inputs, {name: reader.key for name, reader in settings.readers.items()})
        for name, error in by_input.missing.items():
            if self._on_error is None:
                raise error
            self._left_out(group_of(INPUTS, name), error)
        if by_input.note:
            settings.note(group_of(INPUTS, next(iter(settings.readers))), by_input.note)
        images = {name: ImageBatch(images_of_input) for name, images_of_input in by_input.parts.items()}
        return {group: images[input_of(group)] for group in settings.image_groups if input_of(group) in images}

    def _heads(self, kind: str, arrays: Any) -> dict[str, Any]:
        """What was given of outputs or labels by the names of their groups, those of `like` where it has them."""
        if arrays is None:
            return {}
        try:
            heads = self._told_apart(kind, arrays)
            if not heads:
                return {}
            baseline = self._settings.like.groups if self._settings.like is not None else {}
            if kind == LABELS:  # labels go with the answer of their head, whatever the baseline calls it
                named_as = {head: self._head_names.get(head, head) for head in heads}
                named_as = {head: name if group_of(kind, name) in baseline else head for head, name in named_as.items()}
                heads = {named_as[head]: array for head, array in heads.items()}
            columns = {name: int(group.info.get("columns") or 0) for name, group in baseline.items()}
            groups, doubt = named(kind, heads, columns)
            if doubt:
                self._settings.note(kind, doubt)
            for group, head in zip(groups, heads, strict=True):
                self._settings.take_description(group, group_of(kind, head))
            if kind == OUTPUTS:
                self._head_names = {head: head_of(group) for group, head in zip(groups, heads, strict=True)}
            return groups
        except Exception as error:
            pass_on(error)
            if self._on_error is None:
                raise
            self._left_out(kind, error)
            return {}

    def _told_apart(self, kind: str, arrays: Any) -> dict[str, Any]:
        """Arrays by head. One alone has none, unless a group of its name is there already, or answers have heads or are
        described as having some."""
        if kind == OUTPUTS:
            heads = heads_of(from_list(arrays, OUTPUTS, self._settings.like))
        else:
            heads = labels_by_head(arrays, self._heads_of_labels())
            heads = {head: array for head, array in heads.items() if array is not None}
        if len(heads) != 1:
            self._with_heads.add(kind)
            return {str(head): array for head, array in heads.items()}
        array = next(iter(heads.values()))
        keys = arrays.items() if isinstance(arrays, Mapping) else ()
        key = next((str(key) for key, value in keys if value is array), "")
        described = [name for name in self._settings.descriptions if is_outputs(name) and head_of(name)]
        of_several = self._with_heads & {kind, OUTPUTS} or len(described) > 1
        if of_several or group_of(kind, key) in (self._settings.like or Profile()).groups:
            return {key: array}
        self._settings.take_description(kind, group_of(kind, key))
        return {"": array}

    def _heads_of_labels(self) -> list[str]:
        """The heads that labels without names may be of: of this batch's answer, else of the profile to be like."""
        if len(self._head_names) > 1:
            return list(self._head_names)
        baseline = (self._settings.like or Profile()).groups
        return next((heads for of in (is_labels, is_outputs) if (heads := [*map(head_of, filter(of, baseline))])), [])

    def _left_out(self, name: str, error: Exception) -> None:
        """Note that a group could not take a batch."""
        assert self._on_error is not None
        self._problems.setdefault(name, f"{name}: batches were left out from row {self.n} on: {error}")
        self._on_error(name, error)

    def _why(self, name: str) -> str:
        """Why rows of a group were left out, or of one of its custom measures, which share them."""
        owner = next(candidate for candidate in (name, name.rpartition("/")[0]) if candidate in self._recorders)
        return self._recorders[owner].why_left_out()

    def _segment_values(self, segments: Any) -> Any:
        """What the rows of a batch are split by; None if there is nothing, and the rows go to the segment "other"."""
        if self._segmenter is not None:
            with self._segment_errors():
                return self._segmenter.values(segments)
        elif segments is not None:
            raise InputError(
                "segments= was given to a Profiler without segment_by: pass segment_by='site', ... to it, or to that of"
                " the baseline if it is like one"
            )
        return None

    def _split(self, measured: Mapping[str, Measured], values: Any) -> None:
        """Hand what was measured of a batch to its segments, if there are any."""
        if self._segmenter is not None:
            if self._segment_by == LABEL:
                with self._segment_errors():
                    values = label_values(measured)
            with self._segment_errors():
                groups = {name: recorder.group for name, recorder in self._recorders.items()}
                self._segmenter.take(measured, groups, values)

    @contextmanager
    def _segment_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            pass_on(error)
            if self._on_error is None:
                raise
            self._problems.setdefault("segments", f"segments: rows are in 'other' from row {self.n} on: {error}")
            self._on_error("segments", error)

    def _record(self, name: str, batch: Any, waiting: dict[str, Measured], images: int) -> Measured | None:
        """What was measured of a group's batch, and is taken, or else is among what waits; None if that failed.

        Args:
            name: Of the group.
            batch: Of this group.
            waiting: By group what waits of the batch; gets that of this one, if it does.
            images: How many there should be, 0 if that is not known.
        """
        try:
            group = self._measured(name, batch, images)
        except Exception as error:  # noqa: BLE001  raised there unless somebody is told
            pass_on(error)
            self._failed(name, error)
            return None
        if self._may_wait(name, group.measured):
            self._recorders[name] = group.recorder
            waiting[name] = group.measured.kept()
            return waiting[name]
        if self._waiting.has(name):
            self._take_waiting(len(self._waiting))
        try:
            measured = self._take(name, group.recorder, group.measured)
        except Exception as error:  # noqa: BLE001  raised there unless somebody is told
            pass_on(error)
            self._failed(name, error)
            return None
        self._recorders[name] = group.recorder
        return measured

    def _measured(self, name: str, batch: Any, images: int = 0) -> LookedGroup:
        """What is measured of a group's batch, if it was not yet, and by what."""
        recorder = self._recorders.get(name)
        if isinstance(batch, Exception):
            raise batch
        if isinstance(batch, LookedGroup):
            return batch if recorder is None else LookedGroup(recorder, batch.measured)
        check_rows(batch, images)
        batch = with_rows(batch, name, self._settings.like)
        if recorder is None:
            kind = INPUTS if name in self._settings.image_groups else name.split("/", maxsplit=1)[0]
            recorder = RECORDERS[kind](name, batch, self._settings)
            check_alike(recorder.group, self._settings.like)
        measured = recorder.measure(batch)
        return LookedGroup(recorder, measured if self._segmenter is None else measured.measured())

    def _failed(self, name: str, error: Exception) -> None:
        """What fails in a group costs the others nothing, if there is somebody to tell; else it is raised."""
        if self._on_error is None:
            if (named_error := _naming(name, error)) is not error:
                raise named_error from error
            raise error
        self._left_out(name, error)

    def _may_wait(self, name: str, measured: Measured) -> bool:
        """Whether a group's rows are to wait: those on an accelerator, once it has taken some of their kind."""
        if measured.on_host:
            return False
        kind, rows = self._taken.get(name, (None, 0))
        return measured.in_flight or (rows >= _FIRST_ROWS and kind == measured.kind)

    def _custom_failed(self, stream: str, error: Exception) -> None:
        if self._on_error is not None:
            self._on_error(stream, error)
        else:
            log.warning("%s could not be measured and is left out: %s", stream, error, exc_info=error)

    def _take_waiting(self, most: int) -> None:
        """Take batches that wait, the oldest first. Waits for what has to come to the host and has not arrived.

        Args:
            most: How many.
        """
        while most > 0:
            begins = any(self._taken.get(name, (None, 0))[1] < _FIRST_ROWS for name in self._waiting.groups)
            run = self._waiting.next(1 if begins else most)
            most -= len(run)
            taken = {name: self._sketched(name, [batch.measured[name] for batch in run]) for name in run[0].measured}
            if joint := joint_rows(run, taken):
                self._join(joint)

    def _sketched(self, name: str, batches: Sequence[Measured]) -> Rows:
        """The rows of a group's batches that waited, once its sketches have them; none if they cannot take them."""
        recorder = self._recorders.get(name)
        if recorder is None:  # it failed at an earlier batch
            return {}
        try:
            return self._take(name, recorder, Measured.together([batch.landed() for batch in batches])).rows
        except Exception as error:
            pass_on(error)
            if name not in self._taken:
                del self._recorders[name]
            if self._on_error is None:
                raise
            self._problems.setdefault(name, f"{name}: batches were left out up to row {self.n}: {error}")
            self._on_error(name, error)
            return {}

    def _take(self, name: str, recorder: Recorder, batch: Measured) -> Measured:
        """Hand what was measured of a batch to a group's sketches."""
        measured = batch.measured()
        recorder.take(measured)
        _, rows = self._taken.get(name, (None, 0))
        self._taken[name] = batch.kind, rows + measured.n
        return measured

    def _checked(self, joint: Rows) -> Rows:
        """The rows of those groups that have one for every image of the batch; these are counted."""
        sizes = {name: int(rows.shape[0]) for name, rows in joint.items()}
        n = max(sizes.values())
        if min(sizes.values()) != n:
            error = InputError(f"the groups of a batch have different numbers of rows: {sizes}")
            if self._on_error is None:
                raise error
            self._on_error("rows", error)
            self._problems.setdefault("rows", f"rows of unequal groups are not in the joint sample: {error}")
        self.n += n
        return {name: rows for name, rows in joint.items() if sizes[name] == n}

    def _join(self, joint: Rows) -> None:
        """Hand the rows of all groups to the joint sample; columns a batch lacks are NaN."""
        if self._rows is None:
            return
        some = next(iter(joint.values()))
        n = int(some.shape[0])
        self._widths = self._widths or {name: int(rows.shape[1]) for name, rows in joint.items()}
        full = {
            name: joint[name] if name in joint else _missing(some, n, width) for name, width in self._widths.items()
        }
        self._rows.update(full, n)


def _logged(note: str) -> None:
    log.warning("%s", note)


def _seeds(seed: int | Sequence[int] | None) -> Sequence[int]:
    if seed is None:
        return [secrets.randbits(63)]
    return [seed] if isinstance(seed, int) else seed


def _array(rows: Any) -> Any:
    return np.asarray(rows) if isinstance(rows, list | tuple) and rows and not any(map(is_array, rows)) else rows


def _rows_of(measured: Measured) -> int:
    """Images of what was measured; 0 where it has several rows of an image, or none."""
    return max((int(rows.shape[0]) for rows in measured.rows.values()), default=0)


def _naming(name: str, error: Exception) -> Exception:
    """The error, with the group that it is of if it does not say."""
    kind = name.split("/", maxsplit=1)[0]
    return InputError(f"{name}: {error}") if type(error) is InputError and kind not in str(error) else error


def _missing(like: Array, n: int, width: int) -> Array:
    xp = namespace(like)
    return xp.full((n, width), float("nan"), dtype=xp.float32, device=like.device)


def _host_copy(group: Group) -> Group:
    sketches = {key: sketch.copied() for key, sketch in group.sketches.items()}
    return Group(group.name, group.streams, dict(group.definitions), sketches, dict(group.info))
