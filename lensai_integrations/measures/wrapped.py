"""What is inside a data loader: its data set, the transforms of that, and their parts.

Looks by attribute names alone, so that no framework is imported: torchvision's `Compose` (v1 and v2) and `Sequential`,
data sets with `transform` or `transforms`, `Subset` and `ConcatDataset`; and what a `tf.data` pipeline is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final

_MOST_OBJECTS: Final = 1000
_INSIDE: Final = ("transform", "transforms", "dataset", "_input_dataset", "_datasets")


def parts_inside(owner: Any, without: Collection[str] = ()) -> Iterator[Any]:
    """The owner, its data sets, their transforms and what these are made of, each once.

    A `ConcatDataset` is handed out, and its parts are not looked into: they may differ.

    Args:
        owner: A loader, data set or transform.
        without: Names of classes that are left out, with what is inside them, and so is what is applied with a chance
            `p` below 1.

    Example:
        >>> class Flip: ...
        >>> class Compose:
        ...     transforms = [Flip(), Flip()]
        >>> [type(each).__name__ for each in parts_inside(Compose())]
        ['Compose', 'Flip', 'Flip']
    """
    seen: dict[int, Any] = {}
    pending = [owner]
    while pending and len(seen) < _MOST_OBJECTS:
        each = pending.pop(0)
        name = type(each).__name__
        if each is None or id(each) in seen or name in without or (without and _chance(each) < 1):
            continue
        if isinstance(each, list | tuple):
            pending += each
            continue
        seen[id(each)] = each
        yield each
        if datasets_of(each) is None and name != "Normalize":
            pending += list(each) if name == "Sequential" else []
            pending += [getattr(each, attribute, None) for attribute in _INSIDE]


def class_names_of(owner: Any) -> tuple[str, ...]:
    """What the data set in a loader calls its classes, in their order; none if it does not say.

    Looked for as `classes`, `class_names` or `categories`. A `target_transform` may count them otherwise, and the parts
    of a `ConcatDataset` may differ: then none.

    Example:
        >>> class Pets:
        ...     classes = ["cat", "dog"]
        >>> class Subset:
        ...     dataset = Pets()
        >>> class_names_of(Subset())
        ('cat', 'dog')
    """
    for each in parts_inside(owner, without=("Compose", "Sequential")):
        parts = datasets_of(each)
        if parts is not None:
            found = {class_names_of(part) for part in parts}
            return next(iter(found), ()) if len(found) == 1 else ()
        for attribute in ("classes", "class_names", "categories"):
            names = _texts(getattr(each, attribute, None))
            if names:
                return () if getattr(each, "target_transform", None) is not None else names
    return ()


def _texts(names: Any) -> tuple[str, ...]:
    """The names, of several synonyms the first; none if they are something else or one comes twice."""
    if not isinstance(names, list | tuple):
        return ()
    firsts = [name[0] if isinstance(name, tuple) and name else name for name in names]
    texts = tuple(name for name in firsts if isinstance(name, str))
    return texts if len(set(texts)) == len(names) else ()


def _chance(transform: Any) -> float:
    """How often a transform is applied, if it says."""
    p = getattr(transform, "p", 1)
    return float(p) if isinstance(p, int | float) else 1.0


def datasets_of(owner: Any) -> list[Any] | None:
    """The data sets that a `ConcatDataset` puts together; None if it is none.

    Example:
        >>> datasets_of([1, 2]) is None
        True
    """
    parts = getattr(owner, "datasets", None)
    return list(parts) if isinstance(parts, list | tuple) else None
