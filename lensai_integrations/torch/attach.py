"""From the options and the model to the hooks: which layers are read, and under which names."""

from __future__ import annotations

from torch import nn

from lensai_integrations.errors import InputError
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import OUTPUTS
from lensai_integrations.torch.compiling import forget_compiled
from lensai_integrations.torch.layers import find_layer, last_linear
from lensai_integrations.torch.taps import Tap, Taps
from lensai_integrations.training.options import Reading, unread_reductions
from lensai_integrations.training.recording import LAYER


def attach(model: nn.Module, options: Reading, problems: Problems) -> Taps:
    """Hooks on the layers that the options name; for those left to be found, on a first guess: the last Linear.

    Raises:
        InputError: If the model has no layer of a given name, or `reduce` is given for a layer that is not read.
    """
    taps, guess = named_taps(model, options), last_linear(model)
    if guess is not None and options.layers == "auto":
        name = f"{guess.path}.input"
        taps.insert(0, Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)))
    if guess is not None and options.outputs == "auto":
        taps.append(Tap(OUTPUTS, guess))
    read = {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
    if options.layers != "auto" and (problem := unread_reductions(options.reduce, read)):
        raise InputError(problem)
    if taps:
        forget_compiled(model)
    return Taps(taps, problems)


def named_taps(model: nn.Module, options: Reading) -> list[Tap]:
    """What is caught of the layers that the options name.

    Raises:
        InputError: If the model has no layer of a given name.
    """
    names = [] if options.layers is None or isinstance(options.layers, str) else options.layers
    taps = [Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)) for name in names]
    if options.outputs not in (None, "auto"):
        taps.append(Tap(OUTPUTS, find_layer(model, str(options.outputs))))
    return taps
