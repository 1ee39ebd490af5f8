"""Groups of images by input and by convention: what they are called, and which two belong together.

A model may have several image inputs (left and right cameras, a pair to compare). Of one input the group is called
`inputs`, of several each has its own, `inputs/<name>`.

A profiler may measure every image by several conventions. The group of measures by `lensai` is called so; any other has
the convention behind it, alone or not and in whatever order they were asked for: `inputs/lensai-edge`,
`inputs/<name>/lensai-edge`. Measures by no convention, the custom ones, are with `lensai` if that is there.

What still has to be found out is which images of one profile are held against which of another: frames that a device
measured may belong to images as they were delivered. All that holds one profile beside another therefore asks here
first, and gets a profile whose groups have the other's names; nothing else has to know of conventions.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import plain
from lensai_integrations.measures.batches import input_name
from lensai_integrations.measures.images import CONVENTIONS
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiles.groups import Contents, Group
from lensai_integrations.profiles.names import group_of, is_labels, is_outputs
from lensai_integrations.sketches.rows import RowSample

INPUTS, RAW, DEVICE = "inputs", "raw", "lensai-edge"
DEFAULT: Final = ("lensai",)
Held = TypeVar("Held", bound=Contents)
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
    choices = " or ".join(map(repr, CONVENTIONS))
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"convention={convention!r} should be {choices}, or several of them, e.g. {tuple(CONVENTIONS)}"
        )
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


def readers_by_name(inputs: Any) -> dict[str, ImageInputs]:
    """How image batches are read, by the name of the image input; of the only one it is empty.

    Args:
        inputs: None, `ImageInputs`, or a mapping of these by name.

    Raises:
        InputError: If it is something else, or a name is none.

    Example:
        >>> list(readers_by_name(None)), list(readers_by_name({"left": ImageInputs(), 1: ImageInputs()}))
        ([''], ['left', '1'])
    """
    inputs = plain(inputs)
    if inputs is None or isinstance(inputs, ImageInputs):
        return {"": inputs or ImageInputs()}
    if not isinstance(inputs, Mapping) or not all(isinstance(reader, ImageInputs) for reader in inputs.values()):
        raise InputError(
            f"inputs={inputs!r} should be ImageInputs(...), or of several image inputs one for each by its name:"
            " {'left': ImageInputs(), 'right': ImageInputs()}"
        )
    names = [checked_input(name) for name in inputs]
    if not names or len(set(names)) < len(names):
        raise InputError(f"inputs={inputs!r} should have one name or more, and each once ('/' in a name reads '.')")
    return dict(zip(names, inputs.values(), strict=True))


def checked_input(name: Any) -> str:
    """The name of one of several image inputs as it is in the names of groups.

    Raises:
        InputError: If it is empty, or the name of a convention.

    Example:
        >>> checked_input("camera/left"), checked_input(0)
        ('camera.left', '0')
    """
    if not isinstance(name, str | int) or isinstance(name, bool) or not str(name) or name in CONVENTIONS:
        raise InputError(
            f"inputs has the name {name!r}: an image input is called by its key or place in the batch, and not"
            f" {' or '.join(map(repr, CONVENTIONS))}"
        )
    return input_name(name)


def image_groups(conventions: Sequence[str], names: Sequence[str] = ("",)) -> dict[str, str]:
    """The convention of each group of images, by the group's name.

    Args:
        conventions: What each image is measured by.
        names: Of the image inputs; the only one's is empty.

    Example:
        >>> image_groups(("lensai", "lensai-edge"))
        {'inputs': 'lensai', 'inputs/lensai-edge': 'lensai-edge'}
        >>> list(image_groups(("lensai", "lensai-edge"), ("left", "right")))
        ['inputs/left', 'inputs/left/lensai-edge', 'inputs/right', 'inputs/right/lensai-edge']
    """
    return {images_group(name, convention): convention for name in names for convention in conventions}


def images_group(name: str, convention: str) -> str:
    """The group of an image input's measures by a convention.

    Args:
        name: Of the image input; the only one's is empty.
        convention: One of `CONVENTIONS`.

    Example:
        >>> images_group("", "lensai"), images_group("", "lensai-edge"), images_group("left", "lensai-edge")
        ('inputs', 'inputs/lensai-edge', 'inputs/left/lensai-edge')
    """
    plain = group_of(INPUTS, name)
    return plain if convention in DEFAULT else f"{plain}/{convention}"


def home_of_custom(conventions: Sequence[str]) -> str:
    """The convention that custom measures are with, whichever order it was asked for in.

    Example:
        >>> home_of_custom(("lensai-edge", "lensai")), home_of_custom(("lensai-edge",))
        ('lensai', 'lensai-edge')
    """
    return min(conventions, key=list(CONVENTIONS).index)


def is_images(name: str) -> bool:
    """Whether a group of this name is of images as a model is fed them.

    Example:
        >>> is_images("inputs/lensai-edge"), is_images("inputs/left"), is_images("raw")
        (True, True, False)
    """
    return name == INPUTS or name.startswith(f"{INPUTS}/")


def plain_name(name: str) -> str:
    """The group's name without its convention: what it would be called if there were no other.

    Example:
        >>> plain_name("inputs/lensai-edge"), plain_name("inputs/left/lensai-edge"), plain_name("embeddings/inputs")
        ('inputs', 'inputs/left', 'embeddings/inputs')
    """
    plain, _, convention = name.rpartition("/")
    return plain if is_images(name) and convention in CONVENTIONS else name


def input_of(name: str) -> str:
    """Which of several image inputs a group of images is of; empty if there is only one.

    Example:
        >>> input_of("inputs/left/lensai-edge"), input_of("inputs/lensai-edge"), input_of("raw")
        ('left', '', '')
    """
    return plain_name(name).partition("/")[2] if is_images(name) else ""


def inputs_of(profile: Contents) -> tuple[str, ...]:
    """The names of a profile's image inputs, in order; of the only one empty.

    Example:
        >>> from lensai_integrations import Profile
        >>> inputs_of(Profile({"inputs/left": Group("inputs/left"), "inputs/right": Group("inputs/right")}))
        ('left', 'right')
    """
    return tuple(dict.fromkeys(input_of(name) for name in profile.groups if is_images(name)))


def convention_of(group: Group) -> str:
    """The convention a group says it was measured by; empty if it says none.

    Example:
        >>> convention_of(Group("inputs", info={"convention": "lensai"})), convention_of(Group("inputs"))
        ('lensai', '')
    """
    convention = group.info.get("convention", "")
    return convention if isinstance(convention, str) else ""


def conventions_of(profile: Contents) -> tuple[str, ...]:
    """The conventions that a profile's images were measured by, in order; those of older profiles may be unknown.

    Example:
        >>> from lensai_integrations import Profile
        >>> conventions_of(Profile())
        ()
    """
    conventions = [convention_of(group) for group in profile.groups.values() if is_images(group.name)]
    return tuple(dict.fromkeys(name for name in conventions if name))


def delivered_in(profile: Contents | None) -> Group | None:
    """The images of a profile as they were delivered; None if it has none.

    Example:
        >>> from lensai_integrations import Profile
        >>> delivered_in(Profile()) is None
        True
    """
    groups = profile.groups.values() if profile is not None else ()
    return next((group for group in groups if group.delivered and "pixel" in group.definitions), None)


def only_delivered(profile: Contents | None) -> Group | None:
    """The same of a profile that has no images as a model is fed them: whatever images come belong there.

    Example:
        >>> from lensai_integrations import Profile
        >>> raw = Group("raw", ("width",), {"pixel": "lensai/pixel@1"}, info={"delivered": True})
        >>> only_delivered(Profile({"raw": raw})) is raw
        True
    """
    return delivered_in(profile) if profile is not None and not any(map(is_images, profile.groups)) else None


def chosen_conventions(convention: Any, like: Contents | None) -> tuple[str, ...]:
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
    theirs = conventions_of(like) if like is not None else ()
    delivered = only_delivered(like)
    if delivered is not None:
        theirs = (convention_of(delivered) or DEFAULT[0],)
    if convention is None:
        return theirs[:1] or DEFAULT
    chosen = checked_conventions(convention)
    if theirs and not set(chosen) <= set(theirs):
        raise InputError(
            f"convention={convention!r}, but the images of the profile to be like were measured by"
            f" {' and '.join(map(repr, theirs))}: leave `convention` away, or profile the baseline by it, too"
        )
    return chosen


def readers_of(profile: Contents) -> dict[str, ImageInputs]:
    """How the images of a profile were read, by the name of the image input, which of the only one is empty.

    Those of which it does not say, as of a device, are left out.

    Example:
        >>> from lensai_integrations import Profile
        >>> readers_of(Profile())
        {}
    """
    readers: dict[str, ImageInputs] = {}
    for group in profile.groups.values():
        if is_images(group.name) and group.info.get("reader"):
            readers.setdefault(input_of(group.name), ImageInputs(**group.info["reader"]))
    return readers


def chosen_readers(inputs: Any, like: Contents | None) -> dict[str, ImageInputs]:
    """How image batches are read, by the name of the image input, which of the only one is empty.

    None is as those of `like` were, and a reader that says only where the images are (`key=`) is that in another place.
    Everything else means what it says: `ImageInputs()` has the first batch decide.

    Args:
        inputs: What was asked for: `ImageInputs`, several by name, or None for those of `like`.
        like: A profile.

    Raises:
        InputError: If it is something else, or `like` has other image inputs.

    Example:
        >>> chosen_readers({"left": ImageInputs(scale=1)}, None)["left"].scale
        1
    """
    asked: dict[str, ImageInputs | None] = {**readers_by_name(inputs)} if inputs is not None else {"": None}
    theirs, readers = (inputs_of(like), readers_of(like)) if like is not None else ((), {})
    if theirs and (inputs is None or inputs == ImageInputs()):
        asked = dict.fromkeys(theirs, inputs)
    unknown = [name for name in asked if theirs and name not in theirs]
    if unknown and theirs == ("",):
        raise InputError(
            f"inputs names {' and '.join(map(repr, unknown))}, but the profile to be like has one image input, without"
            " a name: pass ImageInputs(key=...) with its place in the batch, or make the baseline of all of them"
        )
    if unknown:
        wanted = ", ".join(f"{name!r}: ImageInputs(...)" for name in theirs)
        raise InputError(
            f"the profile to be like has the image inputs {' and '.join(map(repr, theirs))}: pass inputs={{{wanted}}},"
            " or leave it away to read them as there"
        )
    return {name: _reader_like(reader, readers.get(name)) for name, reader in asked.items()}


def _reader_like(reader: ImageInputs | None, theirs: ImageInputs | None) -> ImageInputs:
    """How one image input is read that is held against another that was read so."""
    if reader is None or theirs is None:
        return reader or theirs or ImageInputs()
    only_where = reader.key is not None and reader == ImageInputs(key=reader.key)
    return replace(theirs, key=reader.key) if only_where else reader


def title_of(name: str, groups: Sequence[Group] = ()) -> str:
    """What a group is called where people read it.

    Args:
        name: Of the group.
        groups: The group, as each of the profiles that are shown has it.

    Example:
        >>> title_of("inputs/left"), title_of("outputs/species"), title_of("inputs/lensai-edge")
        ('Inputs: left', 'Outputs: species', 'Inputs, as devices measure them')
        >>> title_of("raw", [Group("raw", info={"convention": "lensai-edge"})])
        'Raw, as devices measure them'
    """
    devices = name == f"{plain_name(name)}/{DEVICE}" or any(convention_of(group) == DEVICE for group in groups)
    kind, _, head = plain_name(name).partition("/")
    between = ": " if is_outputs(name) or is_labels(name) or is_images(name) else "/"
    return kind.capitalize() + (between + head if head else "") + (_DEVICE_TITLE if devices else "")


def kept_apart(group: Group) -> bool:
    """Whether every stream has a sketch of its own, as on devices, and none a bank with the others.

    Example:
        >>> kept_apart(Group("inputs"))
        False
    """
    return group.bank is None and bool(group.apart)


def paired(profile: Held, reference: Contents) -> Held:
    """The profile, its groups of images called as the reference calls those of the same input and convention.

    Frames that a device measured belong to images as they were delivered (`raw`) where the reference has these by the
    same convention, else to those that the model was fed. A group that the reference has no counterpart of keeps its
    name, or gets one that the reference does not know; if no group of its kind has a counterpart, that of the same
    input, so that comparing them says why not. Custom measures do not depend on the convention: they go where the
    reference has them, to a group of theirs alone if the profile has no such group.

    Example:
        >>> from lensai_integrations import Profile
        >>> one, other = (
        ...     Profile({n: Group(n, info={"convention": c}) for n, c in image_groups((convention,)).items()})
        ...     for convention in ("lensai-edge", "lensai")
        ... )
        >>> list(paired(one, one).groups), list(paired(one, other).groups)
        (['inputs/lensai-edge'], ['inputs'])
    """
    counterparts: dict[str, str] = {}
    for _, name, theirs in sorted(_pairs(profile, reference), key=lambda pair: pair[0]):
        if name not in counterparts and theirs not in counterparts.values():
            counterparts[name] = theirs
    families = {name.split("/")[0] for name in counterparts}
    for group in _of_images(profile):
        if group.name not in counterparts:
            alone = group.name.split("/")[0] in families
            counterparts[group.name] = (
                _unknown_to(reference, group, counterparts) if alone else _same_input(reference, group, counterparts)
            )
    return renamed(profile, counterparts, _homes(reference))


def _unknown_to(reference: Contents, group: Group, counterparts: Mapping[str, str]) -> str:
    """A name for a group that the reference has no counterpart of."""
    taken = {*reference.groups, *counterparts.values()}
    names = (group.name, f"{plain_name(group.name)}/{convention_of(group) or 'other'}", f"{group.name}/other")
    return next((name for name in names if name not in taken), f"{group.name}/other/{len(taken)}")


def _same_input(reference: Contents, group: Group, counterparts: Mapping[str, str]) -> str:
    """What the reference calls the images of the same kind and input, however they were measured."""
    same = [
        candidate.name for candidate in _of_images(reference) if plain_name(candidate.name) == plain_name(group.name)
    ]
    free = [name for name in same if name not in counterparts.values()]
    return group.name if group.name in free or not free else free[0]


def with_conventions(profile: Held, conventions: Sequence[str]) -> Held:
    """The profile with its images by these conventions and no others.

    Its custom measures are where a profiler with these conventions has them.

    Example:
        >>> from lensai_integrations import Profile
        >>> groups = {n: Group(n, info={"convention": c}) for n, c in image_groups(("lensai", "lensai-edge")).items()}
        >>> list(with_conventions(Profile(groups), ("lensai-edge",)).groups)
        ['inputs/lensai-edge']
    """
    kept: dict[str, str | None] = {
        group.name: group.name if convention_of(group) in ("", *conventions) else None
        for group in _of_images(profile)
        if is_images(group.name)
    }
    return renamed(profile, kept, _custom_homes(profile, conventions, {*kept.values()}))


def _custom_homes(
    profile: Contents, conventions: Sequence[str], groups: Container[str | None]
) -> dict[tuple[str, str], str]:
    """Where custom measures are beside these conventions, by input and measure, if that is among the groups."""
    home = home_of_custom(conventions)
    homes = {key: images_group(key[0], home) for key in _homes(profile)}
    return {key: name for key, name in homes.items() if name in groups}


def named_as_measured(profile: Held) -> tuple[Held, dict[str, str]]:
    """A profile as earlier releases called its groups of images, by what they hold; and the new names by the old.

    There the group of the convention that was asked for first was `inputs`, whichever it was, custom measures with it.

    Example:
        >>> from lensai_integrations import Profile
        >>> device = Profile({"inputs": Group("inputs", info={"convention": "lensai-edge"})})
        >>> named_as_measured(device)[1]
        {'inputs': 'inputs/lensai-edge'}
    """
    images = [group for group in profile.groups.values() if is_images(group.name)]
    conventions_by_group = {
        group.name: convention for group in images if (convention := convention_of(group)) in CONVENTIONS
    }
    names = {name: images_group(input_of(name), convention) for name, convention in conventions_by_group.items()}
    after = {names.get(name, name) for name in profile.groups}
    moved = {name: new for name, new in names.items() if name != new}
    if not moved or _names_in(profile) & (set(moved.values()) - moved.keys()):
        return profile, {}  # or it holds something by such a name already, which no earlier release wrote
    conventions = tuple(dict.fromkeys(conventions_by_group.values()))
    return renamed(profile, names, _custom_homes(profile, conventions, after)), names


def _names_in(profile: Contents) -> set[str]:
    """All that a name stands for in a profile: groups, columns of its rows, and those of its segments."""
    rows = set() if profile.rows is None else set(profile.rows.widths)
    return {*profile.groups, *rows}.union(*map(_names_in, profile.segments.values()))


def renamed(profile: Held, names: Mapping[str, str | None], homes: Mapping[tuple[str, str], str] | None = None) -> Held:
    """The profile with some groups under other names, or left out where that is None; the sketches are shared.

    Args:
        profile: Its segments and the columns of its rows are renamed as well. It is returned itself if nothing is.
        names: New names by the old.
        homes: New names of the groups of custom measures of images, by input and measure; others go with their group.

    Example:
        >>> from lensai_integrations import Profile
        >>> renamed(Profile({"inputs": Group("inputs")}), {"inputs": "raw"}).groups["raw"].name
        'raw'
    """
    moves = {(name, measure): home for name, measure, home in _moves(profile, names, homes or {})}
    if not moves and all(name == new for name, new in names.items()):
        return profile
    groups = {
        new: group if new == group.name else replace(group, name=new)
        for name, group in profile.groups.items()
        if (new := names.get(name, name))
    }
    for (name, measure), home in moves.items():
        if new := names.get(name, name):
            groups[new] = _without(groups[new], measure)
        groups[home] = _with(groups.get(home, Group(home)), profile.groups[name], measure)
    segments = {name: renamed(segment, names, homes) for name, segment in profile.segments.items()}
    make: Any = type(profile)
    made: Held = make(groups, _renamed_rows(profile, names, moves), profile.info, segments)
    return made


def _renamed_rows(
    profile: Contents, names: Mapping[str, str | None], moves: Mapping[tuple[str, str], str]
) -> RowSample | None:
    if profile.rows is None:
        return None
    columns = {name: names.get(name, name) for name in profile.rows.widths}
    for name, group in profile.groups.items():
        for measure in group.apart:
            new = moves.get((name, measure), names.get(name, name))
            if f"{name}/{measure}" in columns:
                columns[f"{name}/{measure}"] = new and f"{new}/{measure}"
    kept = {name: new for name, new in columns.items() if new}
    return profile.rows.renamed(kept) if kept else None


def _homes(profile: Contents) -> dict[tuple[str, str], str]:
    """The group of images that has a custom measure, by input and measure."""
    groups = [group for group in profile.groups.values() if is_images(group.name)]
    return {
        (input_of(group.name), name): group.name
        for group in reversed(groups)
        for name in group.custom
        if _bank(name) in group.sketches
    }


def _moves(
    profile: Contents, names: Mapping[str, str | None], homes: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, str, str]]:
    """Group, custom measure, and the new name of the group that it goes to, unless that is its own."""
    taken = {(names.get(name, name), custom) for name, group in profile.groups.items() for custom in group.apart}
    for (image_input, measure), name in _homes(profile).items():
        home = homes.get((image_input, measure), names.get(name, name))
        if home and (home, measure) not in taken:
            yield name, measure, home


def _bank(measure: str) -> str:
    return f"bank/{measure}"


def _with(home: Group, group: Group, measure: str) -> Group:
    """The first group with a custom measure of the second."""
    definitions = home.definitions | {measure: group.definition_of(measure)}
    sketches = home.sketches | {_bank(measure): group.sketches[_bank(measure)]}
    info = home.info | {"measures": home.custom | {measure: group.custom[measure]}}
    return Group(home.name, home.streams, definitions, sketches, info)


def _without(group: Group, measure: str) -> Group:
    """The group without one of its custom measures."""
    definitions = {name: id for name, id in group.definitions.items() if name != measure}
    sketches = {key: sketch for key, sketch in group.sketches.items() if key != _bank(measure)}
    info = {key: value for key, value in group.info.items() if key != "measures"}
    if measures := {name: definition for name, definition in group.custom.items() if name != measure}:
        info["measures"] = measures
    return Group(group.name, group.streams, definitions, sketches, info)


def _of_images(profile: Contents) -> list[Group]:
    return [group for group in profile.groups.values() if is_images(group.name) or group.name.split("/")[0] == RAW]


def _pairs(profile: Contents, reference: Contents) -> Iterator[tuple[tuple[int, int], str, str]]:
    """Groups that may belong together, with how badly they do."""
    for image_group in _of_images(profile):
        for candidate in _of_images(reference):
            if input_of(image_group.name) != input_of(candidate.name):
                continue
            same, convention, theirs = (
                image_group.name == candidate.name,
                convention_of(image_group),
                convention_of(candidate),
            )
            frames = [group.delivered or kept_apart(group) for group in (image_group, candidate)]
            models = (image_group.delivered and not frames[1]) or (candidate.delivered and not frames[0])
            if (convention == theirs and not models) if convention and theirs else same:
                yield (int(frames[0] != frames[1]), int(not same)), image_group.name, candidate.name
