"""From the options and the model to the taps: which layers are read, and under which names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.keras.answer import Answer
from lensai_integrations.keras.layers import Layer, find_layer, named_layers
from lensai_integrations.keras.making import Made, graph_of, made, symbolic
from lensai_integrations.keras.taps import Feeding, Tap, Taps, can_be_read
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import OUTPUTS
from lensai_integrations.training.options import Reading, unread_reductions
from lensai_integrations.training.recording import LAYER


def attach(model: Any, options: Reading, problems: Problems, place: Callable[[], Any] = lambda: None) -> Taps:
    """Taps on the layers that the options name, and on what the model answers if that is to be found.

    Raises:
        InputError: If the model has no layer of a given name, or `reduce` is given for a layer that is not read.
    """
    auto = options.layers == "auto"
    names = [] if auto or options.layers is None else list(options.layers)
    taps = [Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)) for name in names]
    if options.outputs not in (None, "auto"):
        named = find_layer(model, str(options.outputs))
        taps += [Tap(OUTPUTS, named), *(_before(model, named, options, problems) if auto else [])]
        auto = False
    answer = Answer(model, problems, outputs=options.outputs == "auto", layers=auto)
    readable = [tap for tap in taps if can_be_read(tap, problems)]
    attached = Taps(readable, problems, place, answer, Feeding(options.reduce_of))
    if answer.settled:
        read = {layer.key.removeprefix(LAYER) for layer in attached.layers if layer.key.startswith(LAYER)}
        read |= {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
        if problem := unread_reductions(options.reduce, read):
            raise InputError(problem)
    return attached


def _before(model: Any, outputs: Layer, options: Reading, problems: Problems) -> list[Tap]:
    """What feeds the layer that the user calls the outputs."""
    graph, how = graph_of(outputs.layer), Made()
    with suppress(AttributeError, ValueError):  # not built, or called several times
        how = made(outputs.layer.output if graph is None else graph.outputs[0], symbolic())
    sources = {id(origin.source) for origin in how.origins if origin.source is not None}
    feeding = list(
        {id(layer.layer): layer for layer in named_layers(model).values() if id(layer.layer) in sources}.values()
    )
    if not feeding and not outputs.before and outputs.layer.weights:
        feeding = [outputs]
    if not feeding:
        problems.note("layers", f"layers='auto' cannot tell what feeds {outputs.name!r}: pass layers=[...] or None")
        return []
    places = [Layer(layer.path, layer.layer, True, layer.recomputed, layer.frames) for layer in feeding]
    return [Tap(LAYER + place.name, place, options.reduce_of(place.name)) for place in places]
