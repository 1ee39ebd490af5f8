"""A module's weights at one moment, sampled where they lie.

Taken within a pass, so nothing is waited for: what is looked at is copied on the device, and comes to the host once,
when it is asked for. What counts are the parameters, and the floating buffers of layers that are saved with them, such
as running statistics. A module's own buffers are left out, and so are a metric's: they are mostly records, which a
validation pass itself writes. Quantised layers have their weights packed, out of sight: then there is no digest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lensai_integrations.training.weights import RUN, RUNS, Weights, sampled

#: What a dtype is called where there is only a part of each tensor here: it is compared with other such parts only.
_SHARD = "{} shard"


class SampledWeights:
    """A sample of a module's weights.

    Args:
        model: The module. Of tensors that are sharded, this process's parts are taken.

    Attributes:
        names: Of the tensors, as in the module's `state_dict`.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> before = SampledWeights(layer)
        >>> with torch.no_grad():
        ...     _ = layer.bias.add_(1)
        >>> before.names, before.weights() == SampledWeights(layer).weights()
        (['weight', 'bias'], False)
    """

    def __init__(self, model: nn.Module) -> None:
        self.names: list[str] = []
        self._packed = any(hasattr(module, "_packed_params") for module in model.modules())
        self._what: list[tuple[str, tuple[int, ...], int]] = []
        by_device: dict[torch.device, list[tuple[int, Tensor]]] = {}
        with torch.no_grad():
            for name, tensor in _tensors(model):
                local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
                dtype = str(tensor.dtype).removeprefix("torch.")
                sample = _sample(local.detach())
                by_device.setdefault(sample.device, []).append((len(self.names), sample))
                self.names.append(name)
                kind = dtype if local is tensor else _SHARD.format(dtype)
                self._what.append((kind, tuple(local.shape), sample.numel()))
            self._parts = [([i for i, _ in each], torch.cat([s for _, s in each])) for each in by_device.values()]

    def weights(self) -> Weights | None:
        """Their digest; None if there are none here, or not all can be seen. Waits for the device."""
        samples: dict[int, Any] = {}
        for places, part in self._parts:
            lengths = [self._what[place][2] for place in places]
            samples |= dict(zip(places, torch.split(part.cpu(), lengths), strict=True))
        if self._packed or not any(length for _, _, length in self._what):
            return None
        return Weights.of((kind, shape, samples[i].numpy()) for i, (kind, shape, _) in enumerate(self._what))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What is learned, by its name in the `state_dict`."""
    yield from model.named_parameters()
    for path, module in model.named_modules():
        if module is model or _is_metric(module):
            continue
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}", buffer


def _is_metric(module: nn.Module) -> bool:
    return any(kind.__module__.startswith("torchmetrics.") for kind in type(module).__mro__)


def _sample(tensor: Tensor) -> Tensor:
    """The bytes of the elements that are looked at, `[n]` uint8, on the tensor's device."""
    flat = tensor.reshape(-1)
    size = flat.numel()
    if size > RUNS * RUN:  # by slices: a list of places would have to go to the device
        starts = sampled(size)[::RUN].tolist()
        flat = torch.cat([flat[start : start + RUN] for start in starts])
    return flat.contiguous().view(torch.uint8)
