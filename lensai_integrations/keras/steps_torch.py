"""Steps on the torch backend: batches are there in Python, and layers' answers are tensors with values.

Keras's function calls `model.train_step` by name at every step, so it need not be built again: the step is exchanged
while it runs.

A `torch.utils.data.DataLoader` gives batches in host memory, which the model's first layer moves to its device. So do
we with the images, to measure them there; what is measured is a copy in any case, and on a CPU it is taken as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import torch
from array_api_compat import is_torch_array

from lensai_integrations.keras.batches import is_image_key
from lensai_integrations.keras.private import torch_device
from lensai_integrations.keras.taps import TRAIN, Caught, Pick, Sink, Spending, Taps, labelled, replaced
from lensai_integrations.torch.clock import clock_of
from lensai_integrations.torch.taps import as_tensor
from lensai_integrations.training.cost import Clock


def lag() -> int:
    """Torch's tensors are measured where they are, so nothing is ever waited for."""
    return 0


def place() -> Any:
    """There is no graph."""
    return None


def clock(model: Any) -> Clock:
    """The clock of the accelerator that a weight is on, or else of the host."""
    devices = (variable.value.device for variable in model.variables)
    return clock_of(next((device for device in devices if device.type != "cpu"), torch.device("cpu")))


def processes(model: Any) -> int:
    """Each process calls its own layers, and what is done beside them is nothing to the others."""
    return 1


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
            picked = copies_of(pick(data[0]))
        with replaced(model, name, tapped_step):
            result = function(data)
        for caught in steps[:1]:
            sink({**picked, **caught})
        steps.clear()
        return result

    return run


def copies_of(picked: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of what was picked of a batch: a training step may work in place on what it is handed.

    Those of images lie where the model computes; labels stay where they are, they are few.
    """
    device = torch_device()

    def image_copy(images: Any) -> Any:
        return _copy_on(device, images)

    with torch.no_grad():
        return {
            key: keras.tree.map_structure(image_copy if is_image_key(key) else _copy, values)
            for key, values in picked.items()
        }


def _copy_on(device: torch.device, images: Any) -> Any:
    """A copy on the device; one where the images are, if they are on an accelerator already or cannot be moved."""
    in_host_memory = not is_torch_array(images) or images.device.type == "cpu"
    if device.type == "cpu" or not in_host_memory:
        return _copy(images)
    try:
        tensor = as_tensor(images).detach()
        if device.type == "cuda" and tensor.is_pinned():
            return _copy_at_once(device, tensor)
        return tensor.to(device, non_blocking=True)
    except (TypeError, ValueError, RuntimeError):  # of a kind that the device has not, or more than it has room for
        return _copy(images)


def _copy_at_once(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    """A copy of page-locked memory, which a step may change as soon as it is called.

    In a stream of its own the copy does not come after the work that is queued, and it alone is waited for.
    """
    here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.stream(beside):
        copy = tensor.to(device, non_blocking=True)
    copy.record_stream(here)
    beside.synchronize()
    return copy


def _copy(values: Any) -> Any:
    return values.detach().clone() if is_torch_array(values) else values.copy()
