"""Delivered images: what each `ProfileImages` in the data has collected joins the profile of its pass.

A loader keeps its `ProfileImages` under whatever attribute of its data set, in whatever wraps or calls it. So the
objects that it is made of are walked without asking them anything: what lies in their dictionaries and slots, in
containers, in functions and what these close over. No property and no `__getattr__` is run, nothing is loaded, and the
number of objects is bounded. What is reached in no such way (a generator in C, another process) is not found, which
`RawImages` says at the end of a fit.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from lensai_integrations.problems import Problems
from lensai_integrations.profiles.coverage import is_whole
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile, bounded
from lensai_integrations.profiling.delivered_images import Collector, alive

#: Objects that are looked at, and items of one container.
_MOST_OBJECTS, _MOST_ITEMS = 50_000, 1000
_PLAIN: Final = (str, bytes, bytearray, int, float, complex, bool, type(None), range, type, types.ModuleType)
_CONTAINERS: Final = (list, tuple, set, frozenset, deque)
#: Arrays and images, by the names of their classes and of the packages that these are of.
_ARRAYS: Final = {"ndarray", "Tensor", "ArrayImpl", "Array", "Image", "DataFrame", "Series", "Table"}
_ARRAY_LIBRARIES: Final = {"numpy", "torch", "tensorflow", "jax", "jaxlib", "PIL", "pandas", "pyarrow"}
#: What knows the data of all passes, of which each collector is to be told apart; by the names of classes.
_OWNERS: Final = {"Trainer", "LightningModule", "LightningDataModule", "Callback", "DriftMonitor"}
_FUNCTIONS: Final = (types.FunctionType, types.MethodType, types.GeneratorType)
#: Attributes that hold no transforms, or a running pass.
_NOT: Final = {"sampler", "batch_sampler", "generator", "_iterator", "multiprocessing_context"}
#: Packages whose functions use no pipeline of the user's.
_LIBRARIES: Final = {*sys.stdlib_module_names, "torch", "torchvision", "numpy", "PIL", "tensorflow", "keras", "jax"} | {
    "lightning", "pytorch_lightning", "datasets", "torchdata", "webdataset", "albumentations", "lensai_integrations"
}  # fmt: skip


def collectors_in(owner: Any) -> dict[Collector, int]:
    """The collectors of all `ProfileImages` in a loader or data set, with how many steps off they are, nearest first.

    Example:
        >>> class Photos:
        ...     def __init__(self, **attributes):
        ...         self.__dict__.update(attributes)
        >>> pipeline = Photos(steps=[Collector(name="raw")])
        >>> [collector.name for collector in collectors_in([Photos(preprocess=pipeline)])]
        ['raw']
    """
    collectors: dict[Collector, int] = {}
    pending: deque[tuple[Any, int]] = deque([(owner, 0)])
    reached: dict[tuple[int, ...], Any] = {}
    while pending and len(reached) < _MOST_OBJECTS:
        value, steps = pending.popleft()
        key = _identity(value)
        if key in reached or _is_plain(type(value)):
            continue
        reached[key] = value  # kept, or another object could get its number
        if issubclass(type(value), Collector):
            collectors[value] = steps
            continue
        pending.extend((content, steps + 1) for content in _parts_of(value))
        for base in type(value).__mro__ if not issubclass(type(value), _FUNCTIONS) else ():
            if (id(base),) not in reached:
                reached[(id(base),)] = base
                pending.extend((content, steps + 1) for content in _of_class(base))
    return collectors


def _identity(value: Any) -> tuple[int, ...]:
    """A number for an object; bound methods are made anew whenever they are asked for."""
    if type(value) is types.MethodType:
        return id(value.__self__), id(value.__func__)
    return (id(value),)


def _is_plain(kind: type) -> bool:
    """Whether nothing can be inside; by the class alone, for asking an object may run what is lazy."""
    if issubclass(kind, _PLAIN):
        return True
    return any(base.__name__ in _ARRAYS and _package(base) in _ARRAY_LIBRARIES for base in kind.__mro__)


def _package(owner: Any) -> str:
    """The package that a class or function is of."""
    return str(owner.__module__).split(".")[0]


@functools.lru_cache(maxsize=1024)
def _slots(kind: type) -> tuple[Any, ...]:
    """The descriptors of what objects of a class keep outside of their dictionary."""
    dictionaries = [list(vars(base).items()) for base in kind.__mro__ if _package(base) not in sys.stdlib_module_names]
    slots = [slot for items in dictionaries for name, slot in items if type(slot) is types.MemberDescriptorType]
    return tuple(slot for slot in slots if slot.__name__ not in _NOT)


def _parts_of(value: Any) -> Iterable[Any]:
    """What an object is made of, as far as it lies there."""
    kind = type(value)
    inside = next((parts for base, parts in _INSIDE if issubclass(kind, base)), None)
    if inside is not None:
        return [*inside(value), *_attributes(value)]
    return [] if any(base.__name__ in _OWNERS for base in kind.__mro__) else _attributes(value)


def _items(value: Any) -> Iterator[Any]:
    """The items of a container, whatever a subclass would do."""
    base = next(kind for kind in _CONTAINERS if issubclass(type(value), kind))
    return iter(base.__iter__(value))


def _own(value: Any) -> dict[str, Any]:
    """An object's dictionary, if it has a plain one."""
    slot = next((vars(base)["__dict__"] for base in type(value).__mro__ if "__dict__" in vars(base)), None)
    dictionary = slot.__get__(value) if type(slot) is types.GetSetDescriptorType else None
    return dict(dictionary) if type(dictionary) is dict else {}


def _attributes(value: Any) -> list[Any]:
    """What lies in an object's dictionary and slots."""
    values = [attribute for name, attribute in _own(value).items() if name not in _NOT]
    for slot in _slots(type(value)):  # type: ignore[arg-type]
        with suppress(AttributeError):  # nothing was put there
            values.append(slot.__get__(value))
    return values


def _of_class(base: type) -> Iterator[Any]:
    """What a class holds for all its objects, and what its methods close over and use of their module."""
    if _package(base) in _LIBRARIES or base.__name__ in _OWNERS:
        return
    for member in list(vars(base).values()):
        function = member.__func__ if type(member) in (staticmethod, classmethod) else member
        if type(function) is types.FunctionType:
            yield from _of_function(function)
        elif not any("__get__" in vars(base) for base in type(member).__mro__):
            yield member


def _of_function(function: Any, owner: Any = None) -> Iterator[Any]:
    """What a function closes over, its defaults and what it uses of its module; of its object what it names alone,
    for that may be what knows the data of all passes."""
    if type(function) is not types.FunctionType:
        return
    if owner is not None:
        yield from _named(owner, _names(function.__code__))
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    if _package(function) not in _LIBRARIES:
        yield from _globals_of(function.__code__, function.__globals__)


def _names(code: types.CodeType) -> set[str]:
    """The names that code uses, that of functions inside included."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _globals_of(code: types.CodeType, module: dict[str, Any]) -> Iterator[Any]:
    yield from (module[name] for name in sorted(_names(code)) if name in module)


def _named(owner: Any, names: Iterable[str]) -> Iterator[Any]:
    """The attributes of an object that are called so; methods with the object that they are of."""
    attributes = _own(owner)
    for name in sorted(names):
        if name in attributes:
            yield attributes[name]
            continue
        member = next((vars(base)[name] for base in type(owner).__mro__ if name in vars(base)), None)
        if type(member) is types.FunctionType:
            yield types.MethodType(member, owner)
        elif type(member) is types.MemberDescriptorType:
            with suppress(AttributeError):
                yield member.__get__(owner)


def _of_generator(generator: types.GeneratorType[Any, Any, Any]) -> Iterator[Any]:
    """What a generator has in its hands, and what it uses of its module."""
    if generator.gi_frame is not None:
        yield from generator.gi_frame.f_locals.values()
        yield from _globals_of(generator.gi_code, generator.gi_frame.f_globals)


#: What is inside objects of some kinds, beside their attributes.
_INSIDE: Final[tuple[tuple[Any, Callable[[Any], Iterable[Any]]], ...]] = (
    (dict, lambda value: islice(dict.values(value), _MOST_ITEMS)),
    (_CONTAINERS, lambda value: islice(_items(value), _MOST_ITEMS)),
    (functools.partial, lambda value: [value.func, *value.args, *value.keywords.values()]),
    (types.MethodType, lambda value: _of_function(value.__func__, value.__self__)),
    (types.FunctionType, _of_function),
    (types.GeneratorType, _of_generator),
)


_SHARED = (
    "one ProfileImages serves the data of both {} and {}, so its images cannot be told apart and are in neither"
    " profile: give each its own"
)
_STRAY = (
    "ProfileImages({0!r}) has seen {1:,} images of this fit and was found in none of its data sets, so they are in no"
    " profile: let the data set or its loader hold it, as an attribute, in a Compose or in the collate_fn, or take them"
    " yourself with its profile()"
)
_TWO_WAYS = (
    "the segments of {} were left out: they are by {!r} and the others by {!r}, and a profile has segments by one thing"
    " only; pass the same segment_by to the callback and to ProfileImages, or to one of them alone"
)


class RawImages:
    """The collectors in the data of each kind of pass.

    Workers transform ahead of the training, and start before any callback is asked. So nothing is reset when a pass
    begins; when it ends, all of its images have been delivered, and what was collected is taken out.

    Args:
        problems: Where it is reported what could not be joined.
    """

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._found: dict[str, dict[Collector, int]] = {}
        self._before = {collector.folder: collector.count for collector in alive()}

    def find(self, source: str, loader: Any) -> None:
        """Remember the collectors in what batches come from.

        Args:
            source: Of which pass, be it profiled or not: what serves two is in neither profile.
            loader: A loader or data set; None if it is not known.
        """
        if source not in self._found and loader is not None:
            with self._problems.caught("delivered images"):
                self._found[source] = collectors_in(loader)

    def begin(self, source: str, loader: Any) -> None:
        """The same, leaving out what was collected so far: for a sanity check, or to build a model."""
        self.find(source, loader)
        for collector in self._found.get(source, {}):
            collector.reset()

    def join(self, source: str, profile: Profile) -> None:
        """Add what was collected in a pass to the pass's profile, and begin anew."""
        rows = max((group.n + group.invalid for group in profile.groups.values()), default=0)
        warnings = []
        for collector in self._found.get(source, {}):
            if self._is_others(collector, source) or self._is_shared(collector, source):
                continue
            delivered = collector.profile(source)
            collector.reset()
            name = _free(collector.name, profile.groups)
            _add(delivered.groups, profile.groups, collector.name, name)
            whole = is_whole(profile.info)  # else more were delivered than profiled, as was asked for
            of_pass = _difference(name, delivered.groups[collector.name].seen, rows, source) if whole else []
            warnings += [*delivered.warnings, *of_pass]
            warnings += _join_segments(delivered, profile, collector.name, name)
        if warnings:
            profile.info["warnings"] = [*profile.warnings, *warnings]

    def say_strays(self) -> None:
        """Report collectors that images came to during the fit, and that belong to no data that was found."""
        folders = {collector.folder for collectors in self._found.values() for collector in collectors}
        strays: dict[str, int] = {}
        for collector in alive():
            count = collector.count - self._before.get(collector.folder, 0)
            if count > 0 and collector.folder not in folders:
                strays[collector.name] = strays.get(collector.name, 0) + count
        for name, count in sorted(strays.items()):
            self._problems.note(f"delivered images of {name}", _STRAY.format(name, count))

    def _is_shared(self, collector: Collector, source: str) -> bool:
        for other, collectors in self._found.items():
            if other != source and collector in collectors and not self._is_others(collector, other):
                self._problems.note(collector.name, _SHARED.format(*sorted((source, other))))
                return True
        return False

    def _is_others(self, collector: Collector, source: str) -> bool:
        """Whether it was only reached through what knows the data of all passes, such as a configuration: it is nearer
        to another pass, and this one has one of the same name nearer."""
        steps = self._found[source][collector]
        nearer = any(same.name == collector.name and near < steps for same, near in self._found[source].items())
        return nearer and any(collectors.get(collector, steps) < steps for collectors in self._found.values())


def _free(name: str, taken: Any) -> str:
    """The name, or the same with a number where another group has it."""
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _add(groups: Mapping[str, Group], to: dict[str, Group], name: str, called: str) -> None:
    """Add groups to those of a profile, the one of this name as it is to be called there."""
    for key, group in groups.items():
        group.name = called if key == name else key
        to.setdefault(group.name, group)


def _join_segments(delivered: Profile, profile: Profile, name: str, called: str) -> list[str]:
    """Add the segments of delivered images to those of the pass, where these are by the same or there are none.

    Returns:
        Why they were left out, if they were.
    """
    by = delivered.info.get("segment_by")
    others = profile.info.get("segment_by")
    if by is None:
        return []
    if others not in (None, by):
        return [_TWO_WAYS.format(called, by, others)]
    most = max(int(joined.info.get("max_segments") or 1) for joined in (delivered, profile))
    for key, segment in delivered.segments.items():
        target = profile.segments.setdefault(key, Profile(info=dict(segment.info)))
        _add(segment.groups, target.groups, name, called)
    profile.segments = bounded(profile.segments, most)
    profile.info |= {"segment_by": by, "max_segments": most}
    return []


def _difference(name: str, delivered: int, rows: int, source: str) -> list[str]:
    if delivered > rows:
        return [
            f"{name} has {delivered - rows:,} images more than the {rows:,} of {source}: loader workers had prefetched"
            " them, and they were never used"
        ]
    if delivered < rows:
        return [f"{name} has {delivered:,} images of the {rows:,} of {source}: the others did not pass through it"]
    return []
