"""What things in a profile are called: groups of heads, classes, and segments.

Heads: one answer is the group `outputs` and its labels are `labels`; several are `outputs/<head>` and `labels/<head>`.
Which of them belong together, and to which of a baseline, follows from these names.

Classes: a group of outputs or labels may have been told their names, in the order of its classes.

Segments: one profile per value of a label or of metadata. A profile with segments says in its `info` what they are by,
`segment_by`, and how many there may be, `max_segments`. The rows of all further values, and of none, are in the segment
`OTHER_SEGMENT`. So group by group, the rows of the segments add up to those of the whole, invalid ones included.

Merging goes value by value; where there are more than `max_segments` after it, the largest stay and the others
merge into `OTHER_SEGMENT`. The sums are therefore associative always, and each segment's counts as long as nothing had
to go into `OTHER_SEGMENT`: what is in there is not taken apart again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from lensai_integrations.errors import FormatError, InputError
from lensai_integrations.measures.outputs import CLASSES, MULTILABEL, PER_IMAGE
from lensai_integrations.profiles.groups import Group

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
    return re.sub(r"task=('\w+')", lambda match: f"task={{{head!r}: {match[1]}}}", advice) if head else advice


def named(kind: str, heads: Mapping[str, Any], baseline: Mapping[str, int]) -> tuple[dict[str, Any], str]:
    """Arrays of heads by the names of their groups, those of a baseline where it has them; and what is to be said.

    A head of the baseline's name is that one. Without such a name: one answer alone is the only one that the baseline
    has; of several on one side, the one that is as wide as the only one on the other; and heads without names, from a
    tuple or a list, are those of the baseline in order if there are as many. Where that leaves it open it is said what
    was taken, and how the right one is handed over.

    Args:
        kind: `"outputs"` or `"labels"`.
        heads: By head, in order; one alone is called `""`.
        baseline: Columns of the groups of the baseline, 0 where that is not known.

    Example:
        >>> named("outputs", {"age": 0, "species": 0}, {})
        ({'outputs/age': 0, 'outputs/species': 0}, '')
        >>> list(named("outputs", {"0": 0, "1": 0}, {"inputs": 0, "outputs/age": 1, "outputs/species": 4})[0])
        ['outputs/age', 'outputs/species']
    """
    theirs = {group: columns for group, columns in baseline.items() if group == kind or group.startswith(f"{kind}/")}
    ours = {group_of(kind, head): array for head, array in heads.items()}
    if not theirs or ours.keys() & theirs.keys():
        return ours, ""
    if len(ours) == len(theirs) and (len(ours) == 1 or all(head.isdecimal() for head in heads)):
        return dict(zip(theirs, ours.values(), strict=True)), ""
    if len(theirs) == 1:
        return _one_of_several(kind, heads, *next(iter(theirs.items())))
    if len(ours) == 1:
        return _for_one_of_several(kind, next(iter(ours.values())), theirs)
    wanted = [head_of(group) for group in theirs]
    return ours, (
        f"{kind} has {_listed(heads)}, and the baseline {_listed(wanted)}: not compared; pass {kind}= as a dict"
        " with the names of the baseline"
    )


def _one_of_several(kind: str, heads: Mapping[str, Any], group: str, columns: int) -> tuple[dict[str, Any], str]:
    """Several heads where the baseline has one: that of its width is it, else the first is taken and it is said."""
    fitting = [head for head, array in heads.items() if columns and _columns(array) == columns]
    taken = (fitting or list(heads))[0]
    groups = {group if head == taken else group_of(kind, head): array for head, array in heads.items()}
    if len(fitting) == 1:
        return groups, ""
    fits = f", {len(fitting) or 'none'} of them of its {columns} columns" if columns else ""
    return groups, (
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
    return any(hasattr(array, "shape") for array in parts) or isinstance(parts, tuple) or _rows(parts[0]) != len(parts)


def _rows(array: Any) -> int:
    shape = getattr(array, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else 0
    return len(array) if isinstance(array, list | tuple) else 0


#: Names that are kept, and characters of one.
MOST_NAMES: Final = 10_000
LONGEST: Final = 200
#: Streams that there are one of per class.
PER_CLASS: Final = ("softmax", "probability")


def wrong_names(names: Any) -> str:
    """What is wrong with class names; empty if nothing is.

    Example:
        >>> wrong_names(["cat", "dog"]), wrong_names({"cat": 0})
        ('', 'class_names are left out: pass a list of strings, the first for class 0, not a dict')
    """
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return f"class_names are left out: pass a list of strings, the first for class 0, not a {type(names).__name__}"
    if len(names) > MOST_NAMES or any(len(name) > LONGEST for name in names):
        return f"class_names are left out: at most {MOST_NAMES:,} names of {LONGEST} characters are kept"
    try:
        "".join(names).encode()
    except UnicodeEncodeError:
        return "class_names are left out: a name cannot be written as UTF-8"
    return ""


def class_names(*groups: Group | None) -> tuple[str, ...]:
    """The names that the first of some groups tells, empty if none does; what a file says else is passed over.

    Example:
        >>> class_names(None, Group("labels", info={"class_names": ["cat", "dog"]}))
        ('cat', 'dog')
    """
    lists = [group.info.get("class_names") for group in groups if group is not None]
    return next((tuple(names) for names in lists if names and not wrong_names(names)), ())


def shown(category: str, names: Sequence[str]) -> str:
    """A class as people call it: by its name, with its number where another class has the same.

    Example:
        >>> [shown(category, ["cat", "dog", "cat"]) for category in ("1", "2", "7", "bird")]
        ['dog', 'cat (2)', '7', 'bird']
    """
    if not category.isdecimal() or int(category) >= len(names):
        return category
    name = " ".join(names[int(category)].split())
    if not name:
        return category
    return f"{name} ({category})" if names.count(names[int(category)]) > 1 else name


def label_names(*profiles: Mapping[str, Group]) -> tuple[str, ...]:
    """The names that the labels of some profiles have.

    Args:
        profiles: The groups of each, by name.

    Example:
        >>> label_names({"labels": Group("labels", info={"class_names": ["cat", "dog"]})})
        ('cat', 'dog')
    """
    return class_names(*(group for groups in profiles for name, group in groups.items() if is_labels(name)))


def name_of(stream: str, names: Sequence[str]) -> str:
    """The class that a stream within a group is of, such as `softmax/3`; empty where it is of none, or of no name.

    Example:
        >>> name_of("softmax/1", ["cat", "dog"]), name_of("value/1", ["cat", "dog"])
        ('dog', '')
    """
    measure, _, number = stream.partition("/")
    if measure not in PER_CLASS or not number.isdecimal():
        return ""
    name = shown(number, names)
    return "" if name == number else name


def beyond_columns(groups: Mapping[str, Group]) -> list[str]:
    """A warning for each answer that has no column for some of its labels.

    Example:
        >>> beyond_columns({})
        []
    """
    return [warning for name in groups if is_outputs(name) for warning in _beyond(name, groups)]


def _beyond(name: str, groups: Mapping[str, Group]) -> Iterator[str]:
    outputs, labels = groups[name], groups.get(partner_of(name))
    kind, columns = outputs.info.get("kind"), int(outputs.info.get("columns") or 0)
    if labels is None or kind not in CLASSES + MULTILABEL or not labels.categories or PER_IMAGE in labels.streams:
        return
    wide = 2 if columns == 1 else columns
    numbers = [int(label) for label, _ in labels.categories[""].top(MOST_NAMES) if label.lstrip("-").isdecimal()]
    classes = [number for number in numbers if number >= 0]
    if classes and max(classes) >= wide:
        yield (
            f"{labels.name} reach from {min(classes)} to {max(classes)}, but {name} have the classes 0 to {wide - 1}:"
            " are they an embedding and not the answer, do classes not begin at 0, or does one of them stand for what"
            " is not known? Accuracy is not measured: hand over the answer itself (a callback: outputs='its layer'),"
            " labels that count its columns from 0 on, and -1 for none"
        )
    if len(classes) < len(numbers):
        yield f"{labels.name} below 0, such as {min(numbers)}, are no classes of {name}: accuracy is of the other rows"


#: The rows of values without a segment of their own, and of no value. A value of this name shares it.
OTHER_SEGMENT: Final = "other"
#: Its number where segments are numbers.
OTHER_CODE: Final = 0
#: `segment_by` for the labels of the batches.
LABEL: Final = "label"
#: Named segments of a profile, if nobody says otherwise, and at the most.
DEFAULT_SEGMENTS: Final = 20
MOST_SEGMENTS: Final = 1000
#: Characters of a segment's name.
LONGEST_NAME: Final = 200


def checked_segment_by(by: Any, most: Any) -> str | None:
    """`segment_by` if it and `max_segments` can be used.

    Raises:
        InputError: If one cannot.

    Example:
        >>> checked_segment_by("label", 20)
        'label'
    """
    if by is not None and not (isinstance(by, str) and is_name(by)):
        raise InputError(f"segment_by={by!r} is unknown: pass 'label', the name of some metadata, or None")
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_SEGMENTS:
        raise InputError(f"max_segments={most!r} should be a whole number from 1 to {MOST_SEGMENTS}")
    return by


def is_name(name: str) -> bool:
    """Whether a segment can be called so: not empty, not too long, and text that can be written as UTF-8.

    Example:
        >>> is_name("überbelichtet"), is_name(""), is_name("x" * 201)
        (True, False, False)
    """
    return 0 < len(name) <= LONGEST_NAME and not any("\ud800" <= character <= "\udfff" for character in name)


def segment_name(value: Any) -> str | None:
    """What the segment of a value is called; None where it has none, as without a value or by no possible name.

    Raises:
        InputError: If it is no string, whole number or None.

    Example:
        >>> segment_name("north"), segment_name(7), segment_name(True), segment_name(None)
        ('north', '7', '1', None)
    """
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, str | int | None):
        raise InputError(f"segments should be strings, whole numbers or None, one per row, not {value!r}")
    name = "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)
    return name if is_name(name) else None


def check_read(info: Mapping[str, Any], names: list[Any], nested: bool) -> None:
    """Refuse segments that a file should not have.

    Args:
        info: What the profile says of its segments.
        names: Their names.
        nested: Whether a segment has segments itself.

    Raises:
        FormatError: If there are too many, a name is none or there twice, or nothing says what they are by.

    Example:
        >>> check_read({"segment_by": "label", "max_segments": 2}, ["cat", "dog", "other"], nested=False)
    """
    most = info.get("max_segments")
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= MOST_SEGMENTS:
        raise FormatError(f"max_segments is {most!r} for {len(names)} segments: 1 to {MOST_SEGMENTS} are read")
    if not isinstance(info.get("segment_by"), str) or nested:
        raise FormatError("a profile has segments, and nothing says what they are by, or they have segments themselves")
    if not all(isinstance(name, str) and is_name(name) for name in names) or len(set(names)) < len(names):
        raise FormatError(f"segments need different names of 1 to {LONGEST_NAME} characters")
    if len(names) > most + (OTHER_SEGMENT in names):
        raise FormatError(f"{len(names)} segments are more than max_segments={most} and {OTHER_SEGMENT!r}")
