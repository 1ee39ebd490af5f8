"""Heads: what the groups of several answers, and of their labels, are called, and which belongs to which.

One answer is the group `outputs` and its labels are `labels`; several are `outputs/<head>` and `labels/<head>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def named(kind: str, heads: Mapping[str, Any], known: Iterable[str] = ()) -> dict[str, Any]:
    """Arrays of heads by the names of their groups, those of a baseline where it has them.

    A head of the baseline's name is that one. One answer alone is the only one that the baseline has, and so is the
    first of several that fits it if the baseline was made of one. Heads without names, from a tuple or a list, are
    those of the baseline in order if there are as many.

    Args:
        kind: `"outputs"` or `"labels"`.
        heads: By head; one alone is called `""`.
        known: The groups of the baseline.

    Example:
        >>> list(named("outputs", {"age": 0, "species": 0}))
        ['outputs/age', 'outputs/species']
        >>> list(named("outputs", {"0": 0, "1": 0}, known=["inputs", "outputs/age", "outputs/species"]))
        ['outputs/age', 'outputs/species']
    """
    theirs = [group for group in known if group == kind or group.startswith(f"{kind}/")]
    own = {group_of(kind, head): array for head, array in heads.items()}
    if not theirs or own.keys() & set(theirs):
        return own
    if len(own) == 1 and len(theirs) == 1:
        return {theirs[0]: next(iter(own.values()))}
    if theirs == [kind]:
        first, *others = own
        return {kind: own[first]} | {name: own[name] for name in others}
    in_order = len(own) == len(theirs) and all(head.isdecimal() for head in heads)
    return dict(zip(theirs, own.values(), strict=True)) if in_order else own
