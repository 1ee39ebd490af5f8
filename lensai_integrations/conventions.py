"""Groups of images by the convention they were measured by: what they are called, and which two belong together.

A profiler may measure every image by several conventions. The group of the first is called `inputs`, each further one
`inputs/<convention>`. Which is first is a matter of one profile, so two profiles need not call the same thing the same:
what a server has as `inputs/lensai-edge`, a device has as `inputs`. All that holds one profile beside another therefore
asks here first, and gets a profile whose groups have the other's names; nothing else has to know of conventions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.group import Group
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profile import Profile

INPUTS, RAW, DEVICE = "inputs", "raw", "lensai-edge"
DEFAULT: Final = ("lensai",)
_DEVICE_TITLE: Final = ", as devices measure them"


def checked_conventions(convention: Any) -> tuple[str, ...]:
    """The conventions that were asked for, in order.

    Raises:
        InputError: If there is none, or one is unknown or there twice.

    Example:
        >>> checked_conventions("lensai"), checked_conventions(["lensai", "lensai-edge"])
        (('lensai',), ('lensai', 'lensai-edge'))
    """
    names = (convention,) if isinstance(convention, str) else convention
    known = " or ".join(map(repr, CONVENTIONS))
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"convention={convention!r} should be {known}, or several of them, e.g. {tuple(CONVENTIONS)}")
    for name in names:
        if name not in CONVENTIONS:
            raise InputError(f"convention={convention!r} is unknown; pass one of {', '.join(map(repr, CONVENTIONS))}")
    if len(set(names)) < len(names):
        raise InputError(f"convention={convention!r} names one twice: pass each once")
    return tuple(names)


def single_convention(convention: Any) -> str:
    """The one convention that images are measured by as they were delivered, which is one at a time.

    Raises:
        InputError: If it is none, or there are several.

    Example:
        >>> single_convention(None), single_convention(("lensai-edge",))
        ('lensai', 'lensai-edge')
    """
    first, *others = DEFAULT if convention is None else checked_conventions(convention)
    if others:
        raise InputError(
            f"convention={convention!r}: images are profiled as they were delivered by one convention at a time: pass"
            f" one, e.g. convention={first!r}, and profile them again by the other"
        )
    return first


def image_groups(conventions: Sequence[str]) -> dict[str, str]:
    """The convention of each group of images, by the group's name.

    Example:
        >>> image_groups(("lensai", "lensai-edge"))
        {'inputs': 'lensai', 'inputs/lensai-edge': 'lensai-edge'}
    """
    first, *others = conventions
    return {INPUTS: first} | {f"{INPUTS}/{name}": name for name in others}


def is_images(name: str) -> bool:
    """Whether a group of this name is of images as a model is fed them.

    Example:
        >>> is_images("inputs/lensai-edge"), is_images("raw")
        (True, False)
    """
    return name == INPUTS or name.removeprefix(f"{INPUTS}/") in CONVENTIONS


def plain_name(name: str) -> str:
    """The group's name without its convention: what it would be called if there were no other.

    Example:
        >>> plain_name("inputs/lensai-edge"), plain_name("embeddings/inputs")
        ('inputs', 'embeddings/inputs')
    """
    return INPUTS if is_images(name) else name


def convention_of(group: Group) -> str:
    """The convention a group says it was measured by; empty if it says none.

    Example:
        >>> convention_of(Group("inputs", info={"convention": "lensai"})), convention_of(Group("inputs"))
        ('lensai', '')
    """
    told = group.info.get("convention", "")
    return told if isinstance(told, str) else ""


def conventions_of(profile: Profile) -> tuple[str, ...]:
    """The conventions that a profile's images were measured by, in order; those of older profiles may be unknown.

    Example:
        >>> conventions_of(Profile())
        ()
    """
    found = [convention_of(group) for group in profile.groups.values() if is_images(group.name)]
    return tuple(dict.fromkeys(name for name in found if name))


def chosen_conventions(convention: Any, like: Profile | None) -> tuple[str, ...]:
    """The conventions to measure by.

    Args:
        convention: Those that were asked for; None asks for the first of `like`, which is what a model is held against;
            the others are there for devices.
        like: A profile.

    Raises:
        InputError: If one is unknown, or `like` was measured by others.

    Example:
        >>> chosen_conventions(None, None)
        ('lensai',)
    """
    known = conventions_of(like) if like is not None else ()
    if convention is None:
        return known[:1] or DEFAULT
    chosen = checked_conventions(convention)
    if known and not set(chosen) <= set(known):
        raise InputError(
            f"convention={convention!r}, but the images of the profile to be like were measured by"
            f" {' and '.join(map(repr, known))}: leave `convention` away, or profile the baseline by it, too"
        )
    return chosen


def reader_of(profile: Profile) -> ImageInputs | None:
    """How the images of a profile were read; None where it does not say, as one of a device.

    Example:
        >>> reader_of(Profile()) is None
        True
    """
    readers = (group.info.get("reader") for group in profile.groups.values() if is_images(group.name))
    return next((ImageInputs(**reader) for reader in readers if reader), None)


def title_of(name: str, groups: Sequence[Group] = ()) -> str:
    """What a group is called where people read it.

    Args:
        name: Of the group.
        groups: The group, as each of the profiles that are shown has it.

    Example:
        >>> title_of("inputs"), title_of("inputs/lensai-edge")
        ('Inputs', 'Inputs, as devices measure them')
        >>> title_of("inputs", [Group("inputs", info={"convention": "lensai-edge"})])
        'Inputs, as devices measure them'
    """
    devices = name == f"{INPUTS}/{DEVICE}" or any(convention_of(group) == DEVICE for group in groups)
    return plain_name(name).capitalize() + (_DEVICE_TITLE if devices else "")


def kept_apart(group: Group) -> bool:
    """Whether every stream has a sketch of its own, as on devices, and none a bank with the others.

    Example:
        >>> kept_apart(Group("inputs"))
        False
    """
    return group.bank is None and bool(group.apart)


def paired(profile: Profile, reference: Profile) -> Profile:
    """The profile, its groups of images called as the reference calls those of the same convention.

    Frames that a device measured belong to images as they were delivered (`raw`) where the reference has these by the
    same convention, else to those that the model was fed. A group that the reference has no counterpart of gets a name
    that the reference does not know; if no group of its kind has one, its own, so that comparing them says why not.

    Example:
        >>> device = Profile({"inputs": Group("inputs", info={"convention": "lensai-edge"})})
        >>> groups = {n: Group(n, info={"convention": c}) for n, c in image_groups(("lensai", "lensai-edge")).items()}
        >>> list(paired(device, Profile(groups)).groups)
        ['inputs/lensai-edge']
    """
    found: dict[str, str] = {}
    for _, own, other in sorted(_pairs(profile, reference), key=lambda pair: pair[0]):
        if own not in found and other not in found.values():
            found[own] = other
    families = {own.split("/")[0] for own in found}
    taken = {*reference.groups, *found.values()}
    for group in _of_images(profile):
        family = group.name.split("/")[0]
        if group.name not in found and family in families and group.name in taken:
            found[group.name] = f"{family}/{convention_of(group) or 'other'}"
    return renamed(profile, found) if any(own != other for own, other in found.items()) else profile


def with_conventions(profile: Profile, conventions: Sequence[str]) -> Profile:
    """The profile with its images by these conventions and no others, called as a profiler with them calls them.

    Example:
        >>> groups = {n: Group(n, info={"convention": c}) for n, c in image_groups(("lensai", "lensai-edge")).items()}
        >>> list(with_conventions(Profile(groups), ("lensai-edge",)).groups)
        ['inputs']
    """
    wanted = {convention: name for name, convention in image_groups(conventions).items()}
    own = {g.name: wanted.get(convention_of(g) or conventions[0]) for g in _of_images(profile) if is_images(g.name)}
    return renamed(profile, own) if any(name != new for name, new in own.items()) else profile


def renamed(profile: Profile, names: Mapping[str, str | None]) -> Profile:
    """The profile with some groups under other names, or left out where that is None; the sketches are shared.

    Args:
        profile: Its segments and the columns of its rows are renamed as well.
        names: New names by the old.

    Example:
        >>> renamed(Profile({"inputs": Group("inputs")}), {"inputs": "raw"}).groups["raw"].name
        'raw'
    """
    groups = {new: _called(group, new) for name, group in profile.groups.items() if (new := names.get(name, name))}
    rows = profile.rows
    if rows is not None:
        columns = {name: names.get(name, name) for name in rows.widths}
        for name, group in profile.groups.items():
            new = names.get(name, name)
            columns |= {f"{name}/{own}": new and f"{new}/{own}" for own in group.apart if f"{name}/{own}" in columns}
        kept = {name: new for name, new in columns.items() if new}
        rows = rows.renamed(kept) if kept else None
    segments = {name: renamed(segment, names) for name, segment in profile.segments.items()}
    return Profile(groups, rows, profile.info, segments)


def _called(group: Group, name: str) -> Group:
    return group if group.name == name else Group(name, group.streams, group.definitions, group.sketches, group.info)


def _of_images(profile: Profile) -> list[Group]:
    return [group for group in profile.groups.values() if is_images(group.name) or group.name.split("/")[0] == RAW]


def _pairs(profile: Profile, reference: Profile) -> Iterator[tuple[tuple[int, int], str, str]]:
    """Groups that may belong together, with how badly they do."""
    for own in _of_images(profile):
        for other in _of_images(reference):
            same, one, two = own.name == other.name, convention_of(own), convention_of(other)
            frames = [group.delivered or kept_apart(group) for group in (own, other)]
            models = (own.delivered and not frames[1]) or (other.delivered and not frames[0])
            if (one == two and not models) if one and two else same:
                yield (int(frames[0] != frames[1]), int(not same)), own.name, other.name
