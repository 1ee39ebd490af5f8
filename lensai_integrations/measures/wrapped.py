"""What is inside a data loader: its data set, the transforms of that, and what these say of classes and of pixels.

Looks by attribute names alone, so that no framework is imported: torchvision's `Compose` (v1 and v2) and `Sequential`,
data sets with `transform` or `transforms`, `Subset` and `ConcatDataset`; and what a `tf.data` pipeline is made of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, TypeAlias

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import numbers_per_channel

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
    visited: dict[int, Any] = {}
    pending = [owner]
    while pending and len(visited) < _MOST_OBJECTS:
        current = pending.pop(0)
        name = type(current).__name__
        if current is None or id(current) in visited or name in without or (without and _chance(current) < 1):
            continue
        if isinstance(current, list | tuple):
            pending += current
            continue
        visited[id(current)] = current
        yield current
        if datasets_of(current) is None and name != "Normalize":
            pending += list(current) if name == "Sequential" else []
            pending += [getattr(current, attribute, None) for attribute in _INSIDE]


def datasets_of(owner: Any) -> list[Any] | None:
    """The data sets that a `ConcatDataset` puts together; None if it is none.

    Example:
        >>> datasets_of([1, 2]) is None
        True
    """
    parts = getattr(owner, "datasets", None)
    return list(parts) if isinstance(parts, list | tuple) else None


def _chance(transform: Any) -> float:
    """How often a transform is applied, if it says."""
    p = getattr(transform, "p", 1)
    return float(p) if isinstance(p, int | float) else 1.0


#: What classes are called, in their order; by the key of the label in a batch where there are several labels.
Names: TypeAlias = tuple[str, ...] | dict[str, tuple[str, ...]]


def class_names_of(owner: Any) -> Names:
    """What the data set in a loader calls its classes, in their order; none if it does not say.

    Looked for as `class_to_idx`, `classes`, `class_names`, `categories`, and as the `names` of Hugging Face's
    `features`. Where these are of several labels, by name, there is a dict. A `target_transform` may count them
    otherwise, and the parts of a `ConcatDataset` may differ: then none.

    Example:
        >>> class Pets:
        ...     classes = ["cat", "dog"]
        >>> class Subset:
        ...     dataset = Pets()
        >>> class_names_of(Subset())
        ('cat', 'dog')
        >>> Pets.classes = {"species": ["cat", "dog"], "colour": ["black", "white", "red"]}
        >>> class_names_of(Subset())["colour"]
        ('black', 'white', 'red')
    """
    for inside in parts_inside(owner, without=("Compose", "Sequential")):
        parts = datasets_of(inside)
        if parts is not None:
            names_of_parts = [class_names_of(dataset) for dataset in parts]
            return (
                names_of_parts[0]
                if names_of_parts and all(names == names_of_parts[0] for names in names_of_parts)
                else ()
            )
        names: Names = _numbered(getattr(inside, "class_to_idx", None))
        for attribute in ("classes", "class_names", "categories", "features"):
            names = names or _readable(getattr(inside, attribute, None))
        if names:
            return () if getattr(inside, "target_transform", None) is not None else names
    return ()


def names_for(names: Names, key: Any) -> tuple[str, ...]:
    """What the classes of the label at a key of a batch are called; with names of one label alone, of any.

    Example:
        >>> names_for(("cat", "dog"), 1), names_for({"species": ("cat", "dog"), "colour": ("red", "white")}, "colour")
        (('cat', 'dog'), ('red', 'white'))
    """
    return names.get(str(key), ()) if isinstance(names, dict) else names


def _readable(names: Any) -> Names:
    """The names, or those of several labels by key; of one alone these."""
    if not isinstance(names, Mapping):
        return _texts(names)
    by_label = {str(key): texts for key, feature in names.items() if (texts := _texts(_names_in(feature)))}
    return next(iter(by_label.values())) if len(by_label) == 1 else by_label


def _names_in(feature: Any) -> Any:
    """The names of a feature that is a class, or several classes at once."""
    for owner in (feature, getattr(feature, "feature", None)):
        names = getattr(owner, "names", None)
        if names is not None and not callable(names):
            return names
    return feature


def _numbered(numbers: Any) -> tuple[str, ...]:
    """The names by the numbers that a data set gives them, 0 to n - 1; none if several have one number."""
    if not isinstance(numbers, Mapping) or sorted(map(str, numbers.values())) != sorted(map(str, range(len(numbers)))):
        return ()
    return _texts(sorted(numbers, key=lambda name: int(numbers[name])))


def _texts(names: Any) -> tuple[str, ...]:
    """The names, of several synonyms the first; none if they are something else or one comes twice."""
    if not isinstance(names, list | tuple):
        return ()
    firsts = [name[0] if isinstance(name, tuple) and name else name for name in names]
    texts = tuple(name for name in firsts if isinstance(name, str))
    return texts if len(set(texts)) == len(names) else ()


#: `(mean, std)` of a normalisation, a number per channel.
Normalization: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
_SOMETIMES = ("RandomApply", "RandomChoice", "OneOf", "SomeOf", "OneOrOther", "Sometimes")


def normalization_of(transform: Any) -> Normalization | None:
    """Mean and std of the `Normalize` in a transform, a data set or what wraps them; None if there is none.

    Looks where `parts_inside` does. A `Normalize` that is applied only sometimes (`RandomApply`,
    `RandomChoice`, `p` below 1) does not count.

    Raises:
        InputError: If there are several that differ, only some parts of a `ConcatDataset` have one, or one does
            something else than subtracting a mean and dividing by a std (Albumentations has such).

    Example:
        >>> class Normalize:
        ...     mean, std = [0.5], [0.25]
        >>> class Compose:
        ...     transforms = [str, Normalize()]
        >>> normalization_of(Compose())
        ((0.5,), (0.25,))
    """
    normalizations = _normalizations(transform)
    if len(normalizations) > 1:
        names = " and ".join(sorted(map(repr, normalizations)))
        raise InputError(f"several normalisations are in use, {names}: pass mean= and std= in ImageInputs")
    return next(iter(normalizations), None)


def _normalizations(owner: Any) -> set[Normalization | None]:
    """All that are found; None stands for a part of a `ConcatDataset` that has none."""
    normalizations: set[Normalization | None] = set()
    for inner in parts_inside(owner, without=_SOMETIMES):
        if type(inner).__name__ == "Normalize":
            normalizations |= _normalization(inner)
        for dataset in datasets_of(inner) or ():
            normalizations |= _normalizations(dataset) or {None}
    return normalizations


def _normalization(transform: Any) -> set[Normalization | None]:
    """Of one `Normalize`, as parts of white; nothing if it does not say."""
    how = getattr(transform, "normalization", "standard")
    if how != "standard":
        raise InputError(
            f"Normalize(normalization={how!r}) scales each image by what is in it, which cannot be undone: brightness,"
            " contrast and the like are of what came out. Profile the images before it, with transforms.ProfileImages"
            " or profile_dataset, and pass inputs=None"
        )
    mean, std = (getattr(transform, name, None) for name in ("mean", "std"))
    if mean is None or std is None:
        return set()
    mean, std = numbers_per_channel("mean", mean), numbers_per_channel("std", std)
    if getattr(transform, "max_pixel_value", None) == 1 and max(mean) > 1:  # they are in grey levels
        mean, std = (tuple(value / 255 for value in values) for values in (mean, std))
    return {(mean, std)}
