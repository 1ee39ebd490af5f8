"""From the options and the model to the taps: which layers are read, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lensai_integrations.errors import InputError
from lensai_integrations.keras.layers import Layer, find_layer, last_dense
from lensai_integrations.keras.taps import Tap, Taps
from lensai_integrations.training.options import Options
from lensai_integrations.training.problems import Problems
from lensai_integrations.training.recording import LAYER, OUTPUTS


def attach(model: Any, options: Options, problems: Problems, place: Callable[[], Any] = lambda: None) -> Taps:
    """Taps on the layers that the options name or leave to be found.

    Raises:
        InputError: If the model has no layer of a given name, or `reduce` is given for a layer that is not read.
    """
    taps = [*_embeddings(model, options, problems), *_outputs(model, options, problems)]
    if isinstance(options.reduce, Mapping):
        read = {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
        unused = sorted(options.reduce.keys() - read)
        if unused:
            raise InputError(f"reduce has {unused}, but the layers that are read are {sorted(read)}")
    return Taps([tap for tap in taps if _can_be_read(tap, problems)], problems, place)


def _embeddings(model: Any, options: Options, problems: Problems) -> list[Tap]:
    if options.layers is None:
        return []
    if options.layers != "auto":
        return [Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)) for name in options.layers]
    last = last_dense(model)
    if last is None:
        problems.note("layers", "layers='auto' found no Dense layer, so no embeddings are profiled: pass layers=[...]")
        return []
    before = Layer(last.path, last.layer, before=True, recomputed=last.recomputed)
    return [Tap(LAYER + before.name, before, options.reduce_of(before.name))]


def _outputs(model: Any, options: Options, problems: Problems) -> list[Tap]:
    if options.outputs is None:
        return []
    layer = last_dense(model) if options.outputs == "auto" else find_layer(model, options.outputs)
    if layer is None:
        layer = Layer(model.name, model)  # no Dense layer: what the model itself answers
    return [Tap(OUTPUTS, layer)]


def _can_be_read(tap: Tap, problems: Problems) -> bool:
    if tap.layer.recomputed:
        problems.note(
            tap.key,
            f"layer {tap.layer.path!r} is inside a keras.RematScope, where values are recomputed and cannot be read:"
            " name a layer around it",
        )
    return not tap.layer.recomputed
