"""What all recorders of a profiler share: what was asked for, and what the first batches decided."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np

from lensai_integrations.arrays.namespaces import shape_of
from lensai_integrations.errors import InputError
from lensai_integrations.measures.custom import CustomMeasure, registered
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.meaning import (
    Decision,
    LabelForm,
    Meaning,
    are_signs,
    checked_task,
    decide_kind,
    decide_labels,
    label_form,
    told_kind,
)
from lensai_integrations.measures.outputs import KINDS, Kind, Task, steps_of
from lensai_integrations.profiles.conventions import (
    chosen_conventions,
    chosen_readers,
    image_groups,
    kept_apart,
    only_delivered,
    with_conventions,
)
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import for_head, head_of, partner_of
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.builder import make
from lensai_integrations.sketches.state import Sketch

#: What an answer is by the task alone, as far as its labels have to know.
_TOLD: Final[Mapping[str, Kind]] = {"multilabel": "multilabel_logits", "regression": "values"}

#: What a profile says of a layer and how its output was reduced.
_TAKEN_OVER = ("layer", "reduce", "axes", "channels_last", "class_names")

NOT_DECLARED: Final = (
    "the custom measure {0!r} of the profile to be like is not declared in this process, so it is not measured: import"
    " the module with its @measure before making the Profiler, or pass measures=[...]"
)


def chosen_measures(
    measures: Sequence[CustomMeasure] | None, like: Profile | None
) -> tuple[tuple[CustomMeasure, ...], list[str]]:
    """The custom measures to use, and the ids of those that this process has not declared.

    Args:
        measures: Those that were asked for; None asks for those of `like`.
        like: A profile.

    Example:
        >>> chosen_measures(None, None)
        ((), [])
    """
    if measures is not None or like is None:
        return tuple(measures or ()), []
    ids = [apart.definition_of(name) for group in like.groups.values() for name, apart in group.apart.items()]
    custom = [id for id in dict.fromkeys(ids) if id.split("/")[0] not in CONVENTIONS]  # a device's are not
    declared = {id: registered(id) for id in custom}
    return tuple(filter(None, declared.values())), [id for id in custom if declared[id] is None]


class ProfilerSettings:
    """What all recorders of a profiler share, and what the first batches decided.

    Args:
        seed: Integers all seeds are derived from.
        inputs: How to read image batches, of several image inputs by name; see `conventions.chosen_readers`.
        convention: Convention or conventions of the image measures; None for the first of `like`, else `"lensai"`.
        task: What the outputs are for, by head where they differ.
        k: Size of the KLL sketches.
        max_dim: Wider embeddings are projected to this width.
        like: A profile whose ways of reading and sketching are taken over.
        measures: Custom measures of images; None for those of `like`.

    Attributes:
        like: That profile, its groups of images called as here.
        readers: How image batches are read, by the name of the image input; of the only one it is empty.
        resolved: The same as the first batches have decided.
        image_groups: The convention of each group of images by the group's name.
        delivered: The group's name, if `like` has its images as they were delivered and not as a model is fed them;
            else empty.
        batch: What else was given with the batch that a recorder is made from, by group.
        missing: Ids of custom measures of `like` that this process has not declared.
        on_custom_failure: Told a stream's name and the error when a custom measure fails for the first time.
        on_note: Told what a reader of the profile should know, a sentence once.
        notes: These sentences, by group.

    Raises:
        InputError: If a convention is unknown, or `like` was not measured by it.

    Example:
        >>> ProfilerSettings(seed=[1], convention=("lensai", "lensai-edge")).image_groups
        {'inputs': 'lensai', 'inputs/lensai-edge': 'lensai-edge'}
    """

    def __init__(
        self,
        *,
        seed: Sequence[int],
        inputs: ImageInputs | Mapping[str, ImageInputs] | None = None,
        convention: str | Sequence[str] | None = None,
        task: Task | Kind | Mapping[str, Task | Kind] = "auto",
        k: int = 200,
        max_dim: int = 2048,
        like: Profile | None = None,
        measures: Sequence[CustomMeasure] | None = None,
    ) -> None:
        self.task, self.k, self.max_dim = task, k, max_dim
        self.readers = chosen_readers(inputs, like)
        self._conventions = conventions = chosen_conventions(convention, like)
        self.image_groups = image_groups(conventions, tuple(self.readers))
        delivered = only_delivered(like)
        self.delivered = delivered.name if delivered is not None else ""
        if self.delivered:
            if list(self.readers) != [""] or len(conventions) > 1:
                raise InputError(
                    f"the profile to be like has its images as they were delivered, {self.delivered!r}, of one image"
                    " input and by one convention: pass inputs=ImageInputs(...) and one convention, or neither"
                )
            self.image_groups = {self.delivered: conventions[0]}
        self.seed, self.like = list(seed), with_conventions(like, conventions) if like is not None else None
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.resolved: dict[str, ImageInputs] = {}
        self.batch: Mapping[str, Any] = {}
        self._kinds: dict[str, Decision] = {}
        self._meanings: dict[str, Meaning] = {}
        self._signs: dict[str, bool] = {}
        self._forms: dict[str, LabelForm] = {}
        self._agreed: dict[tuple[str, int], tuple[Meaning, bool]] = {}
        self.measures, self.missing = chosen_measures(measures, like)
        self.on_custom_failure: Callable[[str, Exception], None] = _ignored
        self.on_note: Callable[[str], None] = _ignored
        self.notes: dict[str, list[str]] = {}
        if like is not None:
            self._take_over(like)

    def _take_over(self, like: Profile) -> None:
        apart = [
            measured.bank for group in like.groups.values() if kept_apart(group) for measured in group.apart.values()
        ]
        self.k = max((bank.k for bank in apart if bank is not None), default=self.k)

    def several_inputs(self, names: Sequence[str]) -> None:
        """The images were seen to be of several inputs: each is a group of its own, read as the one would have been."""
        if list(self.readers) == [""] and not self.resolved:
            self.readers = dict.fromkeys(names, self.readers[""])
            self.image_groups = image_groups(self._conventions, names)

    def known(self, group: str) -> Group | None:
        """The group of the profile to be alike."""
        return self.like.groups.get(group) if self.like is not None else None

    def is_extra(self, group: str) -> bool:
        """Whether the profile to be alike has others of this kind, and not this one."""
        kind = group.split("/", maxsplit=1)[0]
        theirs = [name for name in (self.like.groups if self.like is not None else ()) if name.split("/")[0] == kind]
        return bool(theirs) and group not in theirs

    def note(self, group: str, note: str) -> None:
        """Keep a sentence about a group, and tell it once, unless the profile to be alike says the same."""
        notes = self.notes.setdefault(group, [])
        if note not in notes and (self.like is None or note not in self.like.warnings):
            notes.append(note)
            self.on_note(note)

    def described(self, group: str) -> dict[str, Any]:
        """What is known of a group beforehand: what was said of it, else what the profile to be alike says."""
        baseline = self.known(group)
        taken_over = {key: baseline.info[key] for key in _TAKEN_OVER if key in baseline.info} if baseline else {}
        return taken_over | self.descriptions.get(group, {})

    def take_description(self, group: str, alias: str) -> None:
        """What was said of a group is said of this one too, which is the same by another name."""
        if group != alias and alias in self.descriptions:
            self.descriptions[group] = self.descriptions[alias] | self.descriptions.get(group, {})

    def max_dim_of(self, group: str) -> int:
        """Wider embeddings of this group are projected to this width."""
        baseline = self.known(group)
        width = int(baseline.info.get("width") or 0) if baseline is not None else 0
        if baseline is None or not width:
            return self.max_dim
        return width if baseline.info.get("projected_from") else max(width, self.max_dim)

    def task_of(self, head: str) -> Task | Kind:
        """What the outputs of a head are for, as far as the user said.

        Raises:
            InputError: If there is no such task.
        """
        return checked_task(self.task.get(head, "auto") if isinstance(self.task, Mapping) else self.task)

    def share_labels(self, other: ProfilerSettings) -> None:
        """Read labels as another profiler of the same model does: the first batch that either sees decides for both."""
        self._agreed, self._forms = other._agreed, other._forms

    def _first_form(self, group: str, labels: Any) -> LabelForm:
        """What the first labels of a group look like, which may wait for them; if these have other columns, they."""
        form = label_form(labels)
        first = self._forms.setdefault(group, form)
        return first if first.columns == form.columns else form

    def kind_of(self, group: str, outputs: Any) -> Decision:
        """What a group of outputs is read as: decided from its first batch, and kept over resets.

        Args:
            group: Its name.
            outputs: `[n, C]` or `[n]`.
        """
        if group not in self._kinds:
            described, baseline = self.described(group), self.known(group)
            read = baseline.info.get("kind") if baseline is not None and not kept_apart(baseline) else None
            labels = self.batch.get(partner_of(group))
            form = None
            task = self.task_of(head_of(group))
            open = read is None and task == "auto"
            if labels is not None and open and not steps_of(self.batch[group]):
                with suppress(InputError):  # told by their own recorder
                    form = self._first_form(partner_of(group), labels)
                    if form.signs and form.columns != math.prod(shape_of(outputs)[1:]):
                        form = label_form(labels, signs=False)
            with suppress(InputError) if self.is_extra(group) else nullcontext():
                decided = decide_kind(
                    outputs,
                    task=task,
                    known=read if read in KINDS else None,
                    described=described,
                    labels=form,
                    alone=not head_of(group),
                )
                self._kinds[group] = replace(decided, doubt=for_head(decided.doubt, group))
            if self.is_extra(group):  # held against nothing, so nothing is to be settled
                kind = self._kinds[group].kind if group in self._kinds else "values"
                self._kinds[group] = Decision(kind, "it is no answer of the baseline's")
        return self._kinds[group]

    def meaning_of(self, group: str, labels: Any) -> tuple[Meaning, LabelForm]:
        """What a group of labels is read as: decided from its first batch, and kept over resets; and how it looks."""
        form = label_form(labels, look=False)
        if group not in self._meanings:
            answered, baseline = self._kinds.get(partner_of(group)), self.known(group)
            kind = answered.kind if answered is not None else None
            kind = kind or _TOLD.get(self.task_of(head_of(group)))
            described = self.described(partner_of(group))
            first = self._forms.get(group, form)
            if kind is None and baseline is None and described:
                first = self._first_form(group, labels)
                kind = told_kind(described, first)
            first = first if first.columns == form.columns else form
            answer = self.batch.get(partner_of(group))
            if answer is not None and steps_of(answer) and form.columns > 1:
                raise InputError(f"{form.columns} labels for each image, beside as many answers, are not read yet")
            width = self._columns_of(partner_of(group))
            if baseline is not None:
                self._meanings[group], self._signs[group] = meaning_in(baseline), baseline.info.get("signs") is True
            else:
                of_two = first.form == "whole" and width <= 1 and kind not in (None, "values")
                looked = self._first_form(group, labels) if of_two else first
                self._signs[group] = are_signs(looked, kind, max(width, 1))
                if self._signs[group]:
                    first = form = looked
                elif first.signs:
                    first = label_form(labels, look=False, signs=False)
                decided = decide_labels(first, kind, width), self._signs[group]
                self._meanings[group], self._signs[group] = self._agreed.setdefault((group, form.columns), decided)
        if form.signs and not self._signs[group]:
            form = label_form(labels, look=False, signs=False)
        return self._meanings[group], replace(form, signs=self._signs[group])

    def is_of_two(self, group: str) -> bool:
        """Whether labels go with the one column of two classes: a number between 0 and 1 is the second one's share."""
        return self._columns_of(partner_of(group)) == 1

    def _columns_of(self, group: str) -> int:
        """How many columns an answer has, by what is handed over, described or known of it; 0 if nothing is."""
        answer, baseline = self.batch.get(group), self.known(group)
        if answer is not None:
            return math.prod(shape_of(answer)[1:])
        columns = self.described(group).get("columns") or (
            baseline.info.get("columns") if baseline is not None else None
        )
        return int(columns or 0)

    def seed_of(self, name: str) -> int:
        """A seed for one sketch: the same in every run, different for every sketch."""
        return int(
            np.random.SeedSequence([*self.seed, zlib.crc32(name.encode(errors="surrogatepass"))]).generate_state(1)[0]
        )

    def sketches(self, group: str, widths: Mapping[str, int], seeded_by: str = "") -> dict[str, Sketch]:
        """The sketches of a group, empty.

        Args:
            group: Its name.
            widths: Of its rows by source, see `builder.make`.
            seeded_by: Another name to derive the seed from.
        """
        baseline = self.known(group)
        like = baseline.sketches if baseline is not None else None
        return make(widths, k=self.k, seed=self.seed_of(seeded_by or group), like=like)


def _ignored(*_: Any) -> None:
    """In place of a function that nobody gave."""


def meaning_in(group: Group) -> Meaning:
    """What the labels of a group were read as.

    Example:
        >>> meaning_in(Group("labels"))
        'values'
    """
    if not group.categories:
        return "values"
    return "multi_hot" if group.bank is not None else "classes"
