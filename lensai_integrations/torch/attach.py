"""From the options and the model to the hooks: which layers are read, and under which names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems
from lensai_integrations.torch.compiling import forget_compiled
from lensai_integrations.torch.layers import find_layer, last_linear
from lensai_integrations.torch.taps import Tap, Taps
from lensai_integrations.training.options import Reading
from lensai_integrations.training.recording import LAYER, OUTPUTS


def attach(model: nn.Module, options: Reading, problems: Problems) -> Taps:
    """Hooks on the layers that the options name; for those left to be found, on a first guess: the last Linear.

    Raises:
        InputError: If the model has no layer of a given name, or `reduce` is given for a layer that is not read.
    """
    taps = [*_embeddings(model, options), *_outputs(model, options)]
    if isinstance(options.reduce, Mapping) and options.layers != "auto":
        read = {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
        unused = sorted(options.reduce.keys() - read)
        if unused:
            raise InputError(f"reduce has {unused}, but the layers that are read are {sorted(read)}")
    if taps:
        forget_compiled(model)
    return Taps(taps, problems)


def _embeddings(model: nn.Module, options: Reading) -> list[Tap]:
    if options.layers is None:
        return []
    if options.layers == "auto":
        last = last_linear(model)
        names = [] if last is None else [f"{last.path}.input"]
    else:
        names = list(options.layers)
    return [Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)) for name in names]


def _outputs(model: nn.Module, options: Reading) -> list[Tap]:
    if options.outputs is None:
        return []
    layer = last_linear(model) if options.outputs == "auto" else find_layer(model, options.outputs)
    return [] if layer is None else [Tap(OUTPUTS, layer)]
