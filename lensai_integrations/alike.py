"""Groups as those of another profile: refused where they cannot be, and sketched as these are."""

from __future__ import annotations

from lensai_integrations.conventions import kept_apart
from lensai_integrations.errors import InputError
from lensai_integrations.group import Group, Sketch, check_comparable
from lensai_integrations.profile import Profile
from lensai_integrations.sketches.bank import KLLBank


def check_alike(group: Group, like: Profile | None) -> None:
    """Refuse a group that was measured otherwise than that of a profile, or has other streams.

    A group that the profile does not have is let through, and so is one whose streams it keeps apart, as devices do.

    Raises:
        DefinitionError: If it was measured otherwise.
        InputError: If it has other streams; the message says how many each has.

    Example:
        >>> like = Profile({"outputs": Group("outputs", ("value/0",))})
        >>> check_alike(Group("outputs", ("value/0", "value/1")), like)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: outputs has other streams than the baseline's: 2 here, 1 there; ...
    """
    known = like.groups.get(group.name) if like is not None else None
    if known is None:
        return
    check_comparable(known, group)
    if known.streams != group.streams and not (kept_apart(known) or kept_apart(group)):
        here, there = len(group.streams), len(known.streams)
        alone = sorted(set(group.streams) ^ set(known.streams))[:5]
        raise InputError(
            f"{group.name} has other streams than the baseline's: {here} here, {there} there; only on one side:"
            f" {', '.join(alone) or 'none, in another order'}. Pass batches of the width the baseline was made of"
        )


def sketched_alike(group: Group, like: Profile | None) -> Group:
    """The group, its streams in sketches of their own if the profile's are, as those of a device.

    It then has the streams that the profile has, and the two merge.

    Example:
        >>> sketched_alike(Group("labels"), None).sketches
        {}
    """
    known = like.groups.get(group.name) if like is not None else None
    if known is None or not kept_apart(known):
        return group
    sketches: dict[str, Sketch] = {f"bank/{name}": bank for name, bank in _apart(group).items() if name in known.apart}
    measures = {name.split("/")[0] for name in known.apart}
    definitions = {key: id for key, id in group.definitions.items() if key.split("/")[0] in measures}
    return Group(group.name, (), definitions, sketches, group.info)


def _apart(group: Group) -> dict[str, KLLBank]:
    """A bank for each stream, pixels of channels included."""
    found: dict[str, bytes] = {}
    if group.bank is not None and group.bank.n:
        found = dict(zip(group.streams, group.bank.to_bytes(), strict=True))
    if group.pixels is not None and group.pixels.counts.any():
        found |= {f"pixel/{channel}": content for channel, content in enumerate(group.pixels.to_bytes())}
    return {name: KLLBank.from_bytes([content], seed=seed) for seed, (name, content) in enumerate(found.items())}
