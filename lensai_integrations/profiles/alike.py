"""Groups as those of another profile: refused where they cannot be, sketched as these are, and told from others.

A wrong reading leaves its mark in what was sketched: the sigmoid of a number that is a probability already lies
between 1/2 and 0.731, wherever that number came from. So it is looked for in the sketches of all rows, and not in a
first batch, which in production is often one image; and no device is waited for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from lensai_integrations.errors import InputError
from lensai_integrations.measures.outputs import MULTILABEL, SUM_TOLERANCE
from lensai_integrations.profiles.conventions import kept_apart
from lensai_integrations.profiles.groups import Group, check_comparable
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.state import Sketch

#: What rounding of probabilities to bfloat16 does to their sigmoids, and to ratios of their exponentials.
_ROUNDING: Final = 0.005
#: The sigmoid of 0 and of 1; the least ratio of the exponentials of two numbers between them.
_SIGMOIDS, _RATIOS = (0.5, 1 / (1 + math.exp(-1))), (math.exp(-1), 1.0)
#: Chance that rows like the baseline's look like this.
_CHANCE: Final = 1e-3
#: Distance of the distributions of two channels that are told apart.
_EXCHANGED: Final = 0.1
#: Rows from which on they say something, and how far from 1 the sums of a baseline's have to be before sums of 1 do.
_SEVERAL, _APART = 8, 0.03


#: What logits look like that are none. Of classes only differences are sketched; those of dark images may be small.
_IN_UNIT: Final = (
    "all lie in [0, 1], as after a sigmoid: hand over what goes into it, or make the baseline of probabilities too"
)
_CLOSE: Final = (
    "the two largest of a row are never more than 1 apart, as after a softmax or a sigmoid: if there is one, hand over"
    " what goes into it, or make the baseline of probabilities too"
)


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
    baseline = like.groups.get(group.name) if like is not None else None
    if baseline is None:
        return
    check_comparable(baseline, group)
    if baseline.streams != group.streams and not (kept_apart(baseline) or kept_apart(group)):
        columns = [side.info.get("columns") for side in (group, baseline)]
        if None not in columns and columns[0] != columns[1]:
            raise InputError(
                f"{group.name} has other streams than the baseline's: {len(group.streams)} here,"
                f" {len(baseline.streams)} there (columns: {columns[0]} here, {columns[1]} there). Pass what the model"
                " of the baseline answers"
            )
        here, there = len(group.streams), len(baseline.streams)
        alone = sorted(set(group.streams) ^ set(baseline.streams))[:5]
        raise InputError(
            f"{group.name} has other streams than the baseline's: {here} here, {there} there; only on one side:"
            f" {', '.join(alone) or 'none, in another order'}. Pass batches of the width the baseline was made of"
        )


def unlike(group: Group, baseline: Group | None) -> str:
    """What is wrong with what was read as the baseline's, and holds something else; empty if nothing shows.

    Args:
        group: An answer, or images, of all rows.
        baseline: The group of the baseline.

    Example:
        >>> unlike(Group("outputs"), None)
        ''
    """
    if baseline is None or group.n < _SEVERAL:  # a single row may look like anything
        return ""
    if _look_swapped(group, baseline):
        return (
            f"{group.name}: red and blue look exchanged, each is as the other was in the baseline: is one of them BGR?"
            " Hand images over as the baseline's were, or pass inputs=ImageInputs(channels='BGR'), or 'RGB'"
        )
    both = _is_answer(group) and _is_answer(baseline) and group.streams == baseline.streams
    return _another_answer(group, baseline) if both else ""


def _another_answer(group: Group, baseline: Group) -> str:
    kind, name = group.info.get("kind"), group.name
    if kind == "multilabel_probabilities" and _sum_to_one(group) and not _sum_to_one(baseline, _APART):
        return (
            f"{name}: read as scores of labels that do not exclude each other, as the baseline's were, but those of a"
            " row sum to 1, as after a softmax: hand over what the model's sigmoid answers, or make the baseline of a"
            " softmax too"
        )
    if kind in ("logits", "multilabel_logits") and _hold_probabilities(group, baseline):
        single = kind in MULTILABEL or group.info.get("columns") == 1
        return f"{name}: read as logits, as the baseline's were, but {_IN_UNIT if single else _CLOSE}"
    if kind == "values":
        ours, theirs = (_inside(side, range(len(side.streams)), 0.0, 1.0, SUM_TOLERANCE) for side in (group, baseline))
        if (ours == 1 and theirs**group.n < _CHANCE) or (theirs == 1 and ours < 0.5):
            here, there = _reaches(group, baseline)
            return (
                f"{name}: read as numbers, as the baseline's were, but they reach from {here}, and the"
                f" baseline's from {there}: is a sigmoid, a softmax or another scale behind one of the two?"
                " Hand over what the model of the baseline answers"
            )
    return ""


def unlike_in(
    groups: Mapping[str, Group], baseline: Callable[[str], Group | None], said: Iterable[str] = ()
) -> list[str]:
    """`unlike` of all groups that nothing is told of yet.

    Args:
        groups: By name.
        baseline: The group of the baseline, by name.
        said: Sentences that begin with the group they are of.

    Example:
        >>> unlike_in({"outputs": Group("outputs")}, lambda name: None)
        []
    """
    said = tuple(said)
    texts = {name: unlike(group, baseline(name)) for name, group in groups.items()}
    settled = {name: any(sentence.startswith(f"{name}: read as") for sentence in said) for name in texts}
    return [text for name, text in texts.items() if text and text not in said and not settled[name]]


def _look_swapped(group: Group, reference: Group) -> bool:
    """Whether the first and third channel of the pixels are nearly as the baseline's are the other way round."""
    ours, theirs = group.pixels, reference.pixels
    if ours is None or theirs is None or not (ours.n and theirs.n and ours.channels == theirs.channels >= 3):
        return False
    window, baseline = (
        np.cumsum(np.asarray(pixels.counts)[[0, 2]], axis=1, dtype=np.float64) for pixels in (ours, theirs)
    )
    window, baseline = window / window[:, -1:], baseline / baseline[:, -1:]
    straight, crossed = (np.abs(window - shares).max(axis=1) for shares in (baseline, baseline[::-1]))
    return bool(straight.min() > _EXCHANGED and crossed.max() < straight.min() / 3)


def _is_answer(group: Group) -> bool:
    return group.bank is not None and group.bank.n > 0 and not kept_apart(group) and "kind" in group.info


def _hold_probabilities(group: Group, baseline: Group) -> bool:
    """Whether what was read as logits lies in [0, 1] in every row, and the baseline's did not."""
    streams = [i for i, name in enumerate(group.streams) if name.startswith("probability/")]
    low, high = _SIGMOIDS
    if group.info.get("kind") == "logits":
        single = group.info.get("columns") == 1
        streams = [group.streams.index("softmax/1" if single else "ratio_confidence")]
        low, high = _SIGMOIDS if single else _RATIOS
        classes = [i for i, stream in enumerate(group.streams) if stream.startswith("softmax/")]
        least, most = (
            1 / (1 + (len(classes) - 1) * factor) for factor in (math.e, 1 / math.e)
        )  # 0 among 1s, 1 among 0s
        if not single and _inside(group, classes, least, most, _ROUNDING) < 1:
            return False
    if _inside(group, streams, low, high, _ROUNDING) < 1:
        return False
    return _inside(baseline, streams, low, high, _ROUNDING) ** group.n < _CHANCE


def _inside(group: Group, streams: Sequence[int], low: float, high: float, rounding: float) -> float:
    """The share of rows between two numbers, in the stream where it is smallest; 1 without streams."""
    if group.bank is None or not len(streams):
        return 1.0
    below, within = group.bank.cdf([np.nextafter(low - rounding, -np.inf), high + rounding])[list(streams)].T
    return float((within - below).min())


def _reaches(*groups: Group) -> list[str]:
    """How far the numbers of groups reach, with as many figures as it takes to tell them apart."""
    banks = [group.bank for group in groups if group.bank is not None]
    texts: list[str] = []
    for figures in range(3, 10):
        texts = [f"{bank.min.min():.{figures}g} to {bank.max.max():.{figures}g}" for bank in banks]
        if len(set(texts)) == len(texts):
            break
    return texts


def _sum_to_one(group: Group, tolerance: float = SUM_TOLERANCE) -> bool:
    """Whether the scores of every row sum to 1, by the moments of their sum."""
    moments = group.moments
    columns = [i for i, name in enumerate(group.streams) if name.startswith("probability/")]
    if moments is None or moments.covariance is None or len(columns) < 2:
        return False
    spread = max(float(moments.covariance[np.ix_(columns, columns)].sum()), 0.0)
    return math.hypot(float(moments.mean[columns].sum()) - 1, math.sqrt(spread)) <= tolerance


def sketched_alike(group: Group, like: Profile | None) -> Group:
    """The group, its streams in sketches of their own if the profile's are, as those of a device.

    It then has the streams that the profile has, and the two merge.

    Example:
        >>> sketched_alike(Group("labels"), None).sketches
        {}
    """
    baseline = like.groups.get(group.name) if like is not None else None
    if baseline is None or not kept_apart(baseline):
        return group
    kept = baseline.apart.keys()
    sketches: dict[str, Sketch] = {f"bank/{name}": bank for name, bank in _apart(group).items() if name in kept}
    measures = {name.split("/")[0] for name in kept}
    definitions = {key: id for key, id in group.definitions.items() if key.split("/")[0] in measures}
    return Group(group.name, (), definitions, sketches, group.info)


def _apart(group: Group) -> dict[str, KLLBank]:
    """A bank for each stream, pixels of channels included."""
    contents: dict[str, bytes] = {}
    if group.bank is not None and group.bank.n:
        contents = dict(zip(group.streams, group.bank.to_bytes(), strict=True))
    if group.pixels is not None and group.pixels.counts.any():
        contents |= {f"pixel/{channel}": content for channel, content in enumerate(group.pixels.to_bytes())}
    return {name: KLLBank.from_bytes([content], seed=seed) for seed, (name, content) in enumerate(contents.items())}
