"""What `"auto"` found in a baseline's model, in a model whose layers have other names.

A layer of the same name is read; what has none is found again as it was found then, by tracing the first batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.heads import OUTPUTS, is_outputs, named
from lensai_integrations.profile import Profile
from lensai_integrations.torch.answer import Answer, Reading
from lensai_integrations.torch.layers import Layer, find_layer
from lensai_integrations.training.known_layers import KnownLayer
from lensai_integrations.training.recording import LAYER


@dataclass
class Match:
    """The groups of a baseline in a model.

    Attributes:
        layers: Of the groups whose layer has the same name here, that layer.
        missing: The groups that are to be found by the answer.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def match(model: nn.Module, reference: Profile, known: Sequence[KnownLayer]) -> Match:
    """Which layers of a model are those that `"auto"` found for a baseline; of other groups, nothing.

    Args:
        model: The model.
        reference: The baseline's profile.
        known: Its layers that are to be read.
    """
    found = Match()
    wanted = [LAYER + layer.name for layer in known if layer.auto]
    for group in (*filter(is_outputs, reference.groups), *wanted):
        info = reference.groups[group].info
        if not info.get("auto", False):
            continue
        try:
            found.layers[group] = find_layer(model, str(info.get("layer", "")))
        except InputError:
            found.missing.append(group)
    return found


def matched(answer: Answer, reference: Profile, missing: Iterable[str]) -> tuple[dict[str, Reading], list[str]]:
    """What was decided of a model, by the groups of a baseline.

    Args:
        answer: What was decided.
        reference: The baseline's profile.
        missing: The groups that are wanted.

    Returns:
        The readings by group, and what is to be said of groups without one.
    """
    groups = list(missing)
    theirs = dict.fromkeys(filter(is_outputs, reference.groups), 0)
    outputs, doubt = named(OUTPUTS, answer.outputs, theirs) if answer.outputs else ({}, "")
    found: dict[str, Reading] = {**outputs, **_embeddings(answer, reference)}
    problems = [*answer.problems, *([doubt] if doubt else [])]
    lacking = [group for group in groups if group not in found]
    if lacking and not (answer.problems and not found):
        problems.append(f"the baseline has {', '.join(lacking)}, and nothing like it was found in this model")
    return {group: found[group] for group in groups if group in found}, problems


def _embeddings(answer: Answer, reference: Profile) -> Mapping[str, Reading]:
    """The embeddings of a model by those of a baseline, in order; the answer itself where it was one."""
    theirs = {name: group.info for name, group in reference.groups.items() if name.startswith(LAYER)}
    found = {name: info for name, info in theirs.items() if info.get("auto", False)}
    whole = [name for name, info in found.items() if info.get("answer", False)]
    before = sorted(found.keys() - set(whole), key=lambda name: int(found[name].get("order", 0)))
    answers = [each for each in (*answer.outputs.values(), *answer.embeddings.values()) if each.is_answer]
    others = [each for each in answer.embeddings.values() if not each.is_answer]
    pairs = [(whole, answers), (before, others)]
    return {
        name: reading
        for names, readings in pairs
        if len(names) == len(readings)
        for name, reading in zip(names, readings, strict=True)
    }
