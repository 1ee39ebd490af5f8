"""Which layers a baseline has embeddings of, and how their answers were reduced: production is read likewise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from lensai_integrations.errors import InputError
from lensai_integrations.measures.embeddings import REDUCTIONS, Reduce
from lensai_integrations.profile import Group, Profile
from lensai_integrations.training.recording import LAYER, OUTPUTS


@dataclass(frozen=True)
class KnownLayer:
    """A layer that a baseline knows.

    Attributes:
        name: Of the embeddings in the baseline.
        path: Of the layer in the model that the baseline was made of.
        reduce: From the layer's answer to `[n, D]`.
        auto: Whether it was found by `layers="auto"`, and is to be found likewise in a model with other names.
    """

    name: str
    path: str
    reduce: Reduce
    auto: bool = False


def known_layers(
    reference: Profile, layers: Sequence[str] | None = None, reduce: Reduce | Mapping[str, Reduce] | None = None
) -> list[KnownLayer]:
    """The layers to read.

    Args:
        reference: The profile that windows are held against.
        layers: Names of layers; None for those of the baseline.
        reduce: For all layers or by name; None for as in the baseline.

    Raises:
        InputError: If a layer was reduced by a function, and `reduce` does not have it.

    Example:
        >>> import numpy as np
        >>> from lensai_integrations import Profiler
        >>> profiler = Profiler()
        >>> profiler.update(embeddings={"pool": np.ones((9, 4))})
        >>> known_layers(profiler.profile())
        [KnownLayer(name='pool', path='pool', reduce='mean', auto=False)]
    """
    if layers is None:
        names = [name.removeprefix(LAYER) for name in reference.groups if name.startswith(LAYER)]
    else:
        names = list(layers)
    auto = {name for name in names if layers is None and reference.groups[LAYER + name].info.get("auto", False)}
    return [
        KnownLayer(name, _path(reference, name), _reduction(reference, name, reduce), name in auto) for name in names
    ]


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
    known = str(reference.groups.get(LAYER + name, Group("")).info.get("reduce", "mean"))
    if known not in REDUCTIONS:
        raise InputError(f"layer {name!r} was reduced by a function, {known!r}: pass reduce={{{name!r}: {known}}}")
    return cast(Reduce, known)
