"""Measures of images that half precision alone moves, where the two sides were not read at the same precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lensai_integrations.drift.result import GroupDrift
from lensai_integrations.group import Group
from lensai_integrations.profile import Profile

#: What is of the differences between neighbouring pixels, or of how many values there are.
SENSITIVE: Final = ("noise_sigma", "noise", "snr", "sharpness", "entropy")
FULL: Final = "full precision"


def rounded_apart(name: str, baseline: Profile, window: Profile) -> bool:
    """Whether a group's pixels were of half precision on one side only, so that its rows are not compared as wholes.

    Example:
        >>> rounded_apart("inputs", Profile(), Profile())
        False
    """
    groups = [profile.groups[name] for profile in (baseline, window) if name in profile.groups]
    return len({_precision(group) for group in groups}) > 1


def _precision(group: Group) -> str:
    return str(group.info.get("precision", FULL))


def without_rounded(drift: GroupDrift, baseline: Group, window: Group) -> GroupDrift:
    """The group without the streams that rounding moves, with a note, if only one side is of half precision.

    Pixels at whole levels come back exactly, whatever their precision (`Images.whole`), and are compared in everything.

    Example:
        >>> half = Group("inputs", info={"precision": "bfloat16"})
        >>> without_rounded(GroupDrift("inputs", 9, 9, 0, 0), Group("inputs"), half).notes[0]
        'pixels are of full precision in the baseline and of bfloat16 in the window: noise_sigma, noise, ...'
    """
    there, here = (_precision(group) for group in (baseline, window))
    if there == here:
        return drift
    names = {f"{drift.name}/{name}" for name in SENSITIVE}
    streams = tuple(stream for stream in drift.streams if stream.stream not in names)
    note = (
        f"pixels are of {there} in the baseline and of {here} in the window: {', '.join(SENSITIVE)} would move by"
        " rounding alone and are not compared"
    )
    return replace(drift, streams=streams, notes=(*drift.notes, note))
