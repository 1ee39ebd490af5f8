"""Heads: what the groups of several answers, and of their labels, are called, and which belongs to which.

One answer is the group `outputs` and its labels are `labels`; several are `outputs/<head>` and `labels/<head>`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

OUTPUTS: Final = "outputs"
LABELS: Final = "labels"


def is_outputs(group: str) -> bool:
    """Whether a group is of what a model answered.

    Example:
        >>> is_outputs("outputs"), is_outputs("outputs/age"), is_outputs("labels")
        (True, True, False)
    """
    return group == OUTPUTS or group.startswith(f"{OUTPUTS}/")


def is_labels(group: str) -> bool:
    """Whether a group is of labels.

    Example:
        >>> is_labels("labels"), is_labels("labels/age"), is_labels("outputs/age")
        (True, True, False)
    """
    return group == LABELS or group.startswith(f"{LABELS}/")


def head_of(group: str) -> str:
    """The head that a group is of; empty where there is only one.

    Example:
        >>> head_of("outputs/age"), head_of("labels")
        ('age', '')
    """
    return group.partition("/")[2]


def group_of(kind: str, head: str) -> str:
    """The group of a head.

    Example:
        >>> group_of("labels", "age"), group_of("outputs", "")
        ('labels/age', 'outputs')
    """
    return f"{kind}/{head}" if head else kind


def partner_of(group: str) -> str:
    """The labels of an answer, and the answer to labels.

    Example:
        >>> partner_of("outputs/age"), partner_of("labels")
        ('labels/age', 'outputs')
    """
    return group_of(LABELS if is_outputs(group) else OUTPUTS, head_of(group))


def for_head(advice: str, group: str) -> str:
    """Advice on `task=` as it has to be given for one head of several: the others keep theirs.

    Example:
        >>> for_head("pass task='regression'", "outputs/age"), for_head("pass task='regression'", "outputs")
        ("pass task={'age': 'regression'}", "pass task='regression'")
    """
    head = head_of(group)
    return re.sub(r"task=('\w+')", lambda found: f"task={{{head!r}: {found[1]}}}", advice) if head else advice


def named(kind: str, heads: Mapping[str, Any], known: Mapping[str, int]) -> tuple[dict[str, Any], str]:
    """Arrays of heads by the names of their groups, those of a baseline where it has them; and what is to be said.

    A head of the baseline's name is that one. Without such a name: one answer alone is the only one that the baseline
    has; of several on one side, the one that is as wide as the only one on the other; and heads without names, from a
    tuple or a list, are those of the baseline in order if there are as many. Where that leaves it open it is said what
    was taken, and how the right one is handed over.

    Args:
        kind: `"outputs"` or `"labels"`.
        heads: By head, in order; one alone is called `""`.
        known: Columns of the groups of the baseline, 0 where that is not known.

    Example:
        >>> named("outputs", {"age": 0, "species": 0}, {})
        ({'outputs/age': 0, 'outputs/species': 0}, '')
        >>> list(named("outputs", {"0": 0, "1": 0}, {"inputs": 0, "outputs/age": 1, "outputs/species": 4})[0])
        ['outputs/age', 'outputs/species']
    """
    theirs = {group: columns for group, columns in known.items() if group == kind or group.startswith(f"{kind}/")}
    own = {group_of(kind, head): array for head, array in heads.items()}
    if not theirs or own.keys() & theirs.keys():
        return own, ""
    if len(own) == len(theirs) and (len(own) == 1 or all(head.isdecimal() for head in heads)):
        return dict(zip(theirs, own.values(), strict=True)), ""
    if len(theirs) == 1:
        return _one_of_several(kind, heads, *next(iter(theirs.items())))
    if len(own) == 1:
        return _for_one_of_several(kind, next(iter(own.values())), theirs)
    wanted = [head_of(group) for group in theirs]
    return own, (
        f"{kind} has {_listed(heads)}, and the baseline {_listed(wanted)}: not compared; pass {kind}= as a dict"
        " with the names of the baseline"
    )


def _one_of_several(kind: str, heads: Mapping[str, Any], group: str, columns: int) -> tuple[dict[str, Any], str]:
    """Several heads where the baseline has one: that of its width is it, else the first is taken and it is said."""
    fitting = [head for head, array in heads.items() if columns and _columns(array) == columns]
    taken = (fitting or list(heads))[0]
    found = {group if head == taken else group_of(kind, head): array for head, array in heads.items()}
    if len(fitting) == 1:
        return found, ""
    fits = f", {len(fitting) or 'none'} of them of its {columns} columns" if columns else ""
    return found, (
        f"{kind} has {_listed(heads)}, but the baseline only one{fits}: {taken!r} is held against it; pass {kind}= the"
        " one array that it is, if that is another"
    )


def _for_one_of_several(kind: str, array: Any, theirs: Mapping[str, int]) -> tuple[dict[str, Any], str]:
    """One array where the baseline has several: it is that of its width, else none of them and it is said."""
    columns = _columns(array)
    fitting = [group for group in theirs if columns and theirs[group] == columns]
    if len(fitting) == 1:
        return {fitting[0]: array}, ""
    heads = [head_of(group) for group in theirs]
    fits = f", {len(fitting) or 'none'} of them of {columns} columns like it" if columns else ""
    return {kind: array}, (
        f"{kind} is one array, but the baseline has {_listed(heads)}{fits}: it is not compared; pass"
        f" {kind}={{{(head_of(fitting[0]) if fitting else heads[0])!r}: ...}}, by the name of the one that it is"
    )


def _columns(array: Any) -> int:
    return math.prod(getattr(array, "shape", ())[1:]) if len(getattr(array, "shape", ())) > 1 else 0


def _listed(heads: Iterable[str]) -> str:
    return f"the heads {', '.join(map(repr, heads))}"


def labels_by_head(labels: Any, heads: Sequence[str]) -> dict[str, Any]:
    """Labels by the heads they belong to; one alone is called `""`.

    A tuple or list of as many arrays as there are heads, each with an entry per image, has one for each of them.

    Args:
        labels: As they were given.
        heads: Of the answer, or of the baseline's labels.

    Example:
        >>> labels_by_head(([0, 1, 1], [31.0, 47.0, 20.0]), ["species", "age"])
        {'species': [0, 1, 1], 'age': [31.0, 47.0, 20.0]}
        >>> list(labels_by_head([0, 1, 1], ["species", "age"])), list(labels_by_head({"age": [3.5]}, []))
        ([''], ['age'])
    """
    if isinstance(labels, Mapping):
        return {str(head): array for head, array in labels.items()}
    several = isinstance(labels, list | tuple) and len(heads) > 1 and len(labels) == len(heads)
    if several and len(set(map(_rows, labels))) == 1 and _rows(labels[0]) > 0 and _are_columns(labels):
        return dict(zip(heads, labels, strict=True))
    return {"": labels}


def _are_columns(parts: Sequence[Any]) -> bool:
    """Whether these are arrays of a head each, and not the rows of as many images: lists may be either."""
    return any(hasattr(part, "shape") for part in parts) or isinstance(parts, tuple) or _rows(parts[0]) != len(parts)


def _rows(part: Any) -> int:
    shape = getattr(part, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(part) if isinstance(part, list | tuple) else 0
