"""The streams of a profile one by one, whether they have sketches of their own or share a bank."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from numpy.typing import ArrayLike

from lensai_integrations.edge.layout import CONVENTION, IMAGE_IDS, OLDER
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.profiles.conventions import (
    RAW,
    convention_of,
    conventions_of,
    images_group,
    inputs_of,
    is_images,
    renamed,
    with_conventions,
)
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.weighted import Floats


@dataclass(frozen=True)
class Stream:
    """One stream that a device might have a file of.

    Attributes:
        group: The group it is of.
        name: Its name within the group.
        column: Its column in `bank`.
        bank: A bank that has it.
    """

    group: Group
    name: str
    column: int
    bank: KLLBank

    def quantiles(self, ranks: ArrayLike) -> Floats:
        """Its values at some ranks, float32 `[r]`."""
        values: Floats = self.bank.quantiles(ranks)[self.column]
        return values


def profile_of(what: Profile | Baseline, name: str) -> Profile:
    """A profile, or the reference of a baseline, with images as devices measure them alone if it has them so.

    Args:
        what: Either.
        name: What the parameter is called.

    Raises:
        InputError: If it is neither.

    Example:
        >>> profile_of(Baseline(Profile(info={"source": "test"})), "baseline").source
        'test'
    """
    if not isinstance(what, Profile | Baseline):
        raise InputError(f"{name} is a {type(what).__name__}: pass a Profile or a Baseline")
    return for_devices(what.reference if isinstance(what, Baseline) else what)


def for_devices(profile: Profile) -> Profile:
    """The profile with images by the devices' convention alone, called as on devices; itself if it has none of these.

    Images as they were delivered (`raw`) are what devices measure, if these were profiled by that convention. Where
    there are no others they are called so by any convention, so that `streams_of` can say what is wrong.

    Raises:
        InputError: If its image inputs have names: a device has one camera.

    Example:
        >>> raw = Group("raw", info={"convention": "lensai-edge"})
        >>> list(for_devices(Profile({"inputs": Group("inputs", info={"convention": "lensai"}), "raw": raw})).groups)
        ['inputs/lensai-edge']
    """
    raw = profile.groups.get(RAW)
    if raw is not None and (convention_of(raw) == CONVENTION or not any(map(is_images, profile.groups))):
        others = {name: None for name in profile.groups if is_images(name)}
        return renamed(profile, {**others, RAW: images_group("", convention_of(raw) or CONVENTION)})
    if any(names := inputs_of(profile)):
        told = " and ".join(map(repr, names))
        raise InputError(
            f"the profile has the image inputs {told}, and a device has one camera: make a profile of that camera's"
            f" images alone, with inputs=ImageInputs(key={names[0]!r}) and convention={CONVENTION!r}"
        )
    return with_conventions(profile, (CONVENTION,)) if CONVENTION in conventions_of(profile) else profile


def streams_of(profile: Profile) -> Iterator[Stream]:
    """Every stream of numbers, the pixels of channels included, that has seen a value.

    Raises:
        DefinitionError: If its image measures are not those of devices.

    Example:
        >>> list(streams_of(Profile()))
        []
    """
    for group in profile.groups.values():
        if is_images(group.name) or group.name == OLDER:
            _check(group)
        for each in (group, *group.apart.values()):
            if each.bank is not None and each.bank.n:
                yield from (Stream(group, name, column, each.bank) for column, name in enumerate(each.streams))
        yield from _pixels(group)


def _check(group: Group) -> None:
    for measure, id in group.definitions.items():
        if measure in IMAGE_IDS and id != IMAGE_IDS[measure]:
            raise DefinitionError(
                f"{group.name}/{measure} was computed as {id!r}, and devices compute {IMAGE_IDS[measure]!r}:"
                " profile with convention='lensai-edge'"
            )


def _pixels(group: Group) -> Iterator[Stream]:
    """Exact counts of bytes as sketches."""
    if group.pixels is not None and group.pixels.counts.any():
        for channel, content in enumerate(group.pixels.to_bytes()):
            yield Stream(group, f"pixel/{channel}", 0, KLLBank.from_bytes([content], seed=channel))
