"""The layers and weights that a baseline knows, and what names of layers mean: production is read as the baseline was.

People name layers by the full name, or by the end of one where only one layer has it. The same network is a part of one
module in training and of another in production, so the names that a baseline knows have other beginnings there: what
counts is how much of their ends is the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from lensai_integrations.errors import InputError
from lensai_integrations.measures.embeddings import REDUCTIONS, Reduce
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import OUTPUTS
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.training.recording import LAYER
from lensai_integrations.training.weights import WEIGHTS, Weights

#: What is to be said where a model has other weights than the baseline's.
OTHER_WEIGHTS: Final = (
    "the model's weights are not those that the baseline was made with: an alarm may be of that alone. Load the weights"
    " that the baseline belongs to, or make a baseline with these"
)


@dataclass(frozen=True)
class KnownLayer:
    """A layer that a baseline knows.

    Attributes:
        name: Of the embeddings in the baseline.
        path: Of the layer in the model that the baseline was made of.
        reduce: From the layer's answer to `[n, D]`.
        auto: Whether it was found by `layers="auto"`, and is to be found likewise in a model with other names.
        named: Whether `path` is what the user calls it in the model that is watched.
    """

    name: str
    path: str
    reduce: Reduce
    auto: bool = False
    named: bool = False


def weights_known(baseline: Baseline | Profile, framework: str) -> Weights | None:
    """The weights that a baseline's reference was made with, if it was made in this framework: each has tensors of its
    own shapes.

    Args:
        baseline: The baseline; a profile alone says nothing of frameworks.
        framework: `"keras"` or `"torch"`.

    Example:
        >>> weights_known(Profile(), "torch") is None
        True
    """
    if isinstance(baseline, Baseline):
        in_keras = "keras" in baseline.info.get("made_by", {})
        return None if in_keras is not (framework == "keras") else weights_known(baseline.reference, framework)
    return Weights.from_json(baseline.info.get(WEIGHTS))


def check_weights(made_with: Weights | None, here: Weights | None) -> None:
    """Refuse weights that are seen to be others than those of a baseline.

    Raises:
        InputError: Which says so.
    """
    if made_with is not None and here is not None and here.same_as(made_with) is False:
        raise InputError(OTHER_WEIGHTS)


def known_layers(
    reference: Profile,
    layers: Sequence[str] | Mapping[str, str] | None = None,
    reduce: Reduce | Mapping[str, Reduce] | None = None,
) -> list[KnownLayer]:
    """The layers to read.

    Args:
        reference: The profile that windows are held against.
        layers: Names of layers, as the baseline has them; or a dict from these to the names in the model that is
            watched; None for those of the baseline.
        reduce: For all layers or by name; None for as in the baseline.

    Raises:
        InputError: If `layers` is neither, or a dict with names that the baseline does not have; if `reduce` has such;
            if a layer was reduced by a function, and `reduce` does not have it.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(embeddings={"pool": np.ones((9, 4))})
        >>> known_layers(profiler.profile())
        [KnownLayer(name='pool', path='pool', reduce='mean', auto=False, named=False)]
    """
    names = known_names(reference)
    if isinstance(reduce, Mapping) and (unknown := sorted(reduce.keys() - set(names))):
        raise InputError(f"reduce={dict(reduce)!r} has {unknown}, but the baseline has embeddings of {sorted(names)}")
    if isinstance(layers, Mapping):
        _check_mapping(layers, names)
        return [
            KnownLayer(name, path, _reduction(reference, name, reduce), named=True) for name, path in layers.items()
        ]
    if layers is not None:
        _check_names(layers)
        names = list(layers)
    auto = {name for name in names if layers is None and reference.groups[LAYER + name].info.get("auto", False)}
    return [
        KnownLayer(name, _path(reference, name), _reduction(reference, name, reduce), name in auto) for name in names
    ]


def known_names(reference: Profile) -> list[str]:
    """The names of the embeddings of a baseline."""
    return [name.removeprefix(LAYER) for name in reference.groups if name.startswith(LAYER)]


def not_in(reference: Profile, layer: KnownLayer) -> str:
    """What is to be said of a layer that is read, but not known to the baseline; nothing if it is.

    Example:
        >>> not_in(Profile(), KnownLayer("fc", "fc", "mean"))
        "the baseline has no embeddings 'fc', so these are held against nothing; it has none"
    """
    names = known_names(reference)
    if layer.name in names:
        return ""
    text = f"the baseline has no embeddings {layer.name!r}, so these are held against nothing; it has"
    if not names:
        return f"{text} none"
    advice = f"layers={{{names[0]!r}: {layer.name!r}}}, from a name in the baseline to one of this model"
    return f"{text} {', '.join(map(repr, names))}: pass {advice}"


def _check_mapping(layers: Mapping[str, str], names: Sequence[str]) -> None:
    if not all(isinstance(name, str) for pair in layers.items() for name in pair):
        raise InputError(f"layers={dict(layers)!r} should lead from names in the baseline to names of layers here")
    unknown = [name for name in layers if name not in names]
    if unknown:
        has = ", ".join(map(repr, names)) or "none"
        raise InputError(
            f"layers={dict(layers)!r} has {', '.join(map(repr, unknown))}, but the baseline has embeddings of {has}:"
            " pass a dict from these to the layers of this model"
        )


def _check_names(layers: Sequence[str]) -> None:
    if isinstance(layers, str) or not all(isinstance(name, str) for name in layers):
        raise InputError(
            f"layers={layers!r} should be a list of layer names such as ['avgpool'], a dict from the names in the"
            " baseline to those here, or None"
        )


def known_output(reference: Profile) -> str | None:
    """The layer that the baseline's outputs are of, if it says so.

    Example:
        >>> known_output(Profile()) is None
        True
    """
    layer = reference.groups.get(OUTPUTS, Group("")).info.get("layer")
    return str(layer) if layer else None


def _path(reference: Profile, name: str) -> str:
    return str(reference.groups.get(LAYER + name, Group("")).info.get("layer", name))


def _reduction(reference: Profile, name: str, reduce: Reduce | Mapping[str, Reduce] | None) -> Reduce:
    if isinstance(reduce, Mapping):
        reduce = reduce.get(name)
    if reduce is not None:
        return reduce
    noted = str(reference.groups.get(LAYER + name, Group("")).info.get("reduce", "mean"))
    if noted not in REDUCTIONS:
        raise InputError(f"layer {name!r} was reduced by a function, {noted!r}: pass reduce={{{name!r}: {noted}}}")
    return cast(Reduce, noted)


#: Behind a layer's name: what goes into it, instead of what comes out.
INPUT = ".input"
_MOST_LISTED = 40


class SeveralAlikeError(InputError):
    """Several layers have names that end alike."""


def find_named(layers: Mapping[str, Any], name: str, separator: str = ".") -> tuple[str, bool]:
    """The full name that is meant, and whether the layer's input is: `.input` may stand behind either form.

    Args:
        layers: The layers by full name. One layer may have several.
        name: A full name, or the end of one if only one layer has it.
        separator: Between the parts of a full name.

    Raises:
        InputError: If there is no such layer, or several; the message has the nearest names and those that exist.

    Example:
        >>> find_named({"body": 1, "body.conv": 2}, "conv.input")
        ('body.conv', True)
    """
    path = _find(layers, name, separator)
    if path is not None:
        return path, False
    stem = _find(layers, name.removesuffix(INPUT), separator) if name.endswith(INPUT) else None
    if stem is None:
        raise InputError(_unknown(name, list(layers), separator))
    return stem, True


def find_alike(layers: Mapping[str, Any], name: str, separator: str = ".") -> tuple[str, bool, bool]:
    """The full name of the layer that a name of another model means here, by the longest end that both share.

    Args:
        layers: The layers by full name. One layer may have several.
        name: A full name in another model, with `.input` behind it or not.
        separator: Between the parts of a full name.

    Returns:
        The name, whether the layer's input is meant, and whether that is sure: one of the two names is the end of the
        other.

    Raises:
        SeveralAlikeError: If the names of several layers do.
        InputError: If no layer's name ends alike.

    Example:
        >>> find_alike({"backbone": 1, "backbone.fc": 2}, "net.fc.input")
        ('backbone.fc', True, False)
    """
    before = name.endswith(INPUT)
    words = name.removesuffix(INPUT).split(separator)
    shared = {path: _shared(words, path.split(separator)) for path in layers}
    most = max(shared.values(), default=0)
    if not most:
        raise InputError(_unknown(name, list(layers), separator))
    whole = [path for path, n in shared.items() if n == len(path.split(separator)) or n == len(words)]
    likely = [path for path in whole if shared[path] == most] or [path for path, n in shared.items() if n == most]
    if len({id(layers[path]) for path in likely}) > 1:
        raise SeveralAlikeError(f"layer {name!r} of the baseline could be {_listed(likely)} here")
    return likely[0], before, bool(whole) and likely[0] in whole


def _shared(one: list[str], two: list[str]) -> int:
    """How many words two names end alike with."""
    pairs = zip(reversed(one), reversed(two), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(two)))


def _find(layers: Mapping[str, Any], name: str, separator: str) -> str | None:
    if name in layers:
        return name
    ends = [path for path in layers if path.endswith(f"{separator}{name}")]
    if len({id(layers[path]) for path in ends}) > 1:
        raise InputError(f"layer {name!r} could be {_listed(ends)}: pass the full name")
    return ends[0] if ends else None


def _unknown(name: str, paths: list[str], separator: str) -> str:
    by_end = {path.rsplit(separator, maxsplit=1)[-1]: path for path in reversed(paths)}
    close = difflib.get_close_matches(name, paths, n=3, cutoff=0.5)
    close += [by_end[end] for end in difflib.get_close_matches(name, by_end, n=3, cutoff=0.5)]
    nearest = f"nearest: {_listed(list(dict.fromkeys(close))[:3])}; " if close else ""
    return f"the model has no layer {name!r}; {nearest}it has {_listed(paths)}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
