"""What classes are called: the names that a group of outputs or labels was told, in the order of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lensai_integrations.group import Group
from lensai_integrations.heads import is_labels, is_outputs, partner_of
from lensai_integrations.measures.outputs import CLASSES, MULTILABEL, PER_IMAGE

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
    told = [group.info.get("class_names") for group in groups if group is not None]
    return next((tuple(names) for names in told if names and not wrong_names(names)), ())


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
    return [told for name in groups if is_outputs(name) for told in _beyond(name, groups)]


def _beyond(name: str, groups: Mapping[str, Group]) -> Iterator[str]:
    outputs, labels = groups[name], groups.get(partner_of(name))
    kind, columns = outputs.info.get("kind"), int(outputs.info.get("columns") or 0)
    if labels is None or kind not in CLASSES + MULTILABEL or not labels.categories or PER_IMAGE in labels.streams:
        return
    wide = 2 if columns == 1 else columns
    found = [int(label) for label, _ in labels.categories[""].top(MOST_NAMES) if label.lstrip("-").isdecimal()]
    classes = [each for each in found if each >= 0]
    if classes and max(classes) >= wide:
        yield (
            f"{labels.name} reach from {min(classes)} to {max(classes)}, but {name} have the classes 0 to {wide - 1}:"
            " are they an embedding and not the answer, do classes not begin at 0, or does one of them stand for what"
            " is not known? Accuracy is not measured: hand over the answer itself (a callback: outputs='its layer'),"
            " labels that count its columns from 0 on, and -1 for none"
        )
    if len(classes) < len(found):
        yield f"{labels.name} below 0, such as {min(found)}, are no classes of {name}: accuracy is of the other rows"
