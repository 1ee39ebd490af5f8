"""Steps on the torch backend: batches are there in Python, and layers' answers are tensors with values.

Keras's function calls `model.train_step` by name at every step, so it need not be built again: the step is exchanged
while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import torch
from array_api_compat import is_torch_array

from lensai_integrations.keras.taps import TRAIN, Caught, Pick, Sink, Spending, Taps, labelled, replaced
from lensai_integrations.torch.clock import clock_of
from lensai_integrations.training.cost import Clock


def lag() -> int:
    """Torch's tensors are measured where they are, so nothing is ever waited for."""
    return 0


def place() -> Any:
    """There is no graph."""
    return None


def clock(model: Any) -> Clock:
    """The clock of the device that the weights are on."""
    return clock_of(next((variable.value.device for variable in model.variables), torch.device("cpu")))


def arrived(handed_out: Any) -> None:
    """Torch's tensors are measured where they are."""


def build(model: Any, kind: str, taps: Taps, pick: Pick, sink: Sink, spending: Spending) -> Callable[..., Any]:
    """The model's function, whose steps are listened to."""
    function, name = getattr(model, f"{kind}_function"), f"{kind}_step"
    step = getattr(model, name)
    steps: list[Caught] = []

    def tapped_step(data: Any) -> Any:
        with taps.listening(training=kind == TRAIN, labelled=labelled(kind, data)) as caught:
            result = step(data)
        steps.append(caught)
        return result

    def run(data: Any) -> Any:
        steps.clear()
        with spending():
            picked = keras.tree.map_structure(_copy, pick(data[0]))
        with replaced(model, name, tapped_step):
            result = function(data)
        for caught in steps[:1]:
            sink({**picked, **caught})
        steps.clear()
        return result

    return run


def _copy(values: Any) -> Any:
    """A training step may work in place on what it is handed."""
    with torch.no_grad():
        return values.detach().clone() if is_torch_array(values) else values.copy()
