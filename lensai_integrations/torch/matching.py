"""The layers that a baseline knows, in a model whose layers have other names.

A layer of the same name is read, or of one that ends alike; what `"auto"` found and has none is found again as it was
found then, by tracing the first batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.profiles.names import OUTPUTS, is_outputs, named
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.torch.answer import Answer, Readout
from lensai_integrations.torch.layers import Layer, SampledWeights, find_layer, layer_alike, unwrapped
from lensai_integrations.training.layers import INPUT, KnownLayer, SeveralAlikeError, known_output, not_in
from lensai_integrations.training.recording import LAYER
from lensai_integrations.training.weights import Weights


@dataclass
class Match:
    """The groups of a baseline in a model.

    Attributes:
        layers: Of the groups whose layer is known here, that layer.
        missing: The groups that are to be found by the answer.
        errors: Of groups whose layer cannot be told, why, and what to pass.
        notes: What is to be said of others, by group.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    errors: dict[str, InputError] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def weights_here(model: nn.Module) -> Weights | None:
    """The digest of a model's weights; None if it has not all of them. Waits for the device, once."""
    return None if is_sharded(model) else SampledWeights(unwrapped(model)).weights()


def is_sharded(model: nn.Module) -> bool:
    """Whether this process holds only a part of the weights, or at times: by FSDP, tensor parallelism or DeepSpeed.

    Example:
        >>> is_sharded(nn.Linear(2, 2))
        False
    """
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    parts = any(hasattr(parameter, name) for parameter in model.parameters() for name in ("to_local", "ds_id"))
    return parts or bool(kinds & {"FSDPModule", "FullyShardedDataParallel"})


def match(model: nn.Module, reference: Profile, known: Sequence[KnownLayer], *, compiled: bool = False) -> Match:
    """Which layers of a model are those of a baseline's embeddings and of the outputs that `"auto"` found for it.

    Args:
        model: The model.
        reference: The baseline's profile.
        known: Its layers that are to be read.
        compiled: Whether the model is, so that nothing can be found by following a batch, and only names are left.
    """
    matches = Match()
    for group in filter(is_outputs, reference.groups):
        if reference.groups[group].info.get("auto", False):
            _find_again(model, group, str(reference.groups[group].info.get("layer", "")), matches, compiled)
    for layer in known:
        group = LAYER + layer.name
        if layer.auto:
            _find_again(model, group, layer.path, matches, compiled)
            continue
        try:
            matches.layers[group], note = layer_of(model, layer)
        except InputError as error:
            matches.errors[group] = error
            continue
        if note := note or not_in(reference, layer):
            matches.notes[group] = note
    return matches


def _find_again(model: nn.Module, group: str, path: str, matches: Match, compiled: bool) -> None:
    """The layer that `"auto"` found, if it has the same name here; else it is missing, to be found by what it does."""
    with suppress(InputError):
        matches.layers[group] = find_layer(model, path)
        return
    with suppress(InputError):
        if path and compiled:
            layer, sure = layer_alike(model, path)
            if sure:
                matches.layers[group] = layer
                return
    matches.missing.append(group)


def layer_of(model: nn.Module, wanted: KnownLayer) -> tuple[Layer, str]:
    """The layer of a baseline's embeddings here, and what is to be said of it, if anything.

    Raises:
        InputError: If there is none of its name, nor one whose name ends alike; or several.
    """
    if wanted.named:
        return find_layer(model, wanted.path), ""
    for name in (wanted.path, wanted.name):
        with suppress(InputError):
            return find_layer(model, name), ""
    settle = f"pass layers={{{wanted.name!r}: '...'}} with the name of the layer here that is meant"
    try:
        layer, sure = layer_alike(model, wanted.path)
    except SeveralAlikeError as error:
        raise InputError(f"{error}: {settle}") from None
    except InputError:
        raise InputError(f"{_error_of(model, wanted.name)}; {settle}") from None
    if sure:
        return layer, ""
    meant = layer.path + (INPUT if layer.before else "")
    return layer, f"{meant!r} is taken for {wanted.path!r} of the baseline, as only its name ends alike; else {settle}"


def output_layer(model: nn.Module, reference: Profile) -> Layer | None:
    """The layer of a baseline's outputs, if the model has it; one that was named also by the end of its name."""
    path = known_output(reference)
    if path is None:
        return None
    with suppress(InputError):
        return find_layer(model, path)
    with suppress(InputError):
        layer, sure = layer_alike(model, path)
        if sure and not reference.groups[OUTPUTS].info.get("auto", False):
            return layer
    return None


def _error_of(model: nn.Module, name: str) -> str:
    try:
        find_layer(model, name)
    except InputError as error:
        return str(error)
    return ""


def matched(answer: Answer, reference: Profile, missing: Iterable[str]) -> tuple[dict[str, Readout], list[str]]:
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
    readouts: dict[str, Readout] = {**outputs, **_embeddings(answer, reference)}
    problems = [*answer.problems, *([doubt] if doubt else [])]
    lacking = [group for group in groups if group not in readouts]
    if lacking and not (answer.problems and not readouts):
        problems.append(f"the baseline has {', '.join(lacking)}, and nothing like it was found in this model")
    return {group: readouts[group] for group in groups if group in readouts}, problems


def _embeddings(answer: Answer, reference: Profile) -> Mapping[str, Readout]:
    """The embeddings of a model by those of a baseline, in order; the answer itself where it was one."""
    theirs = {name: group.info for name, group in reference.groups.items() if name.startswith(LAYER)}
    automatic = {name: info for name, info in theirs.items() if info.get("auto", False)}
    whole = [name for name, info in automatic.items() if info.get("answer", False)]
    before = sorted(automatic.keys() - set(whole), key=lambda name: int(automatic[name].get("order", 0)))
    answers = [readout for readout in (*answer.outputs.values(), *answer.embeddings.values()) if readout.is_answer]
    others = [readout for readout in answer.embeddings.values() if not readout.is_answer]
    pairs = [(whole, answers), (before, others)]
    return {
        name: reading
        for names, readings in pairs
        if len(names) == len(readings)
        for name, reading in zip(names, readings, strict=True)
    }
