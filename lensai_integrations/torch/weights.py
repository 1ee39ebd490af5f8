"""Which weights a module has: a digest of a sample of every tensor, taken where the tensors are.

The sample is copied on the tensors' own device, without waiting for it; only its digest waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from lensai_integrations.training.weights import RUN, RUNS, Weights, sampled

#: Whole numbers of as many bytes as an element has, as which numpy reads all dtypes.
_AS_BYTES: Final = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def weights_of(module: nn.Module) -> Weights | None:
    """The digest of a module's parameters and of its floating buffers that are saved. Waits for the accelerator, once.

    Args:
        module: Wrappers around it change nothing.

    Returns:
        None where this process has not all of them as they are: sharded, or not made yet.

    Example:
        >>> one, two = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> weights_of(one).same_as(weights_of(one)), weights_of(one).same_as(weights_of(two))
        (True, False)
    """
    sample = WeightSample.of(module)
    return None if sample is None else sample.digest()


class WeightSample:
    """Copies of some elements of every tensor of a module, on its device; see `training.weights`."""

    def __init__(self, parts: list[tuple[str, tuple[int, ...], Tensor]]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, module: nn.Module) -> WeightSample | None:
        """What a module's weights are now, without waiting; None as for `weights_of`."""
        tensors = list(_tensors(module))
        if not all(map(_is_whole, tensors)):
            return None
        with torch.inference_mode(False), torch.no_grad():
            return cls([(_name(each), tuple(each.shape), _sample(each)) for each in tensors])

    def digest(self) -> Weights:
        """Which weights these are. Waits for the accelerator, once for each dtype and device."""
        with torch.inference_mode(False), torch.no_grad():
            kinds: dict[Any, list[int]] = {}
            for place, (_, _, sample) in enumerate(self._parts):
                kinds.setdefault((sample.dtype, sample.device), []).append(place)
            found: dict[int, Any] = {}
            for places in kinds.values():
                samples = [self._parts[place][2] for place in places]
                whole = torch.cat(samples).cpu().numpy()
                end = 0
                for place, sample in zip(places, samples, strict=True):
                    found[place] = whole[end : end + len(sample)]
                    end += len(sample)
        return Weights.of((name, shape, found[place]) for place, (name, shape, _) in enumerate(self._parts))


def versions_of(module: nn.Module) -> tuple[int, ...]:
    """A number for every tensor that grows whenever it is written to; the same numbers, the same weights.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> before = versions_of(layer)
        >>> _ = torch.nn.init.zeros_(layer.weight)
        >>> before == versions_of(layer)
        False
    """
    return tuple(0 if each.is_inference() else id(each) ^ each._version for each in _tensors(module))


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    seen: set[int] = set()
    for part in module.modules():
        for name, buffer in part._buffers.items():
            saved = buffer is not None and name not in part._non_persistent_buffers_set
            if saved and buffer.is_floating_point() and id(buffer) not in seen:  # type: ignore[union-attr]
                seen.add(id(buffer))
                yield buffer  # type: ignore[misc]


def _is_whole(tensor: Tensor) -> bool:
    """Whether its elements lie in this process: no part of a sharded tensor, and not on the meta device."""
    sharded = hasattr(tensor, "to_local") or hasattr(tensor, "_local_shard") or getattr(tensor, "_is_flat_param", False)
    lazy = isinstance(tensor, nn.parameter.UninitializedParameter | nn.parameter.UninitializedBuffer)
    return not (sharded or lazy or tensor.is_meta or tensor.layout != torch.strided)


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _sample(tensor: Tensor) -> Tensor:
    """The elements at `sampled(numel)`, as whole numbers of the same bytes; runs are cut out, so that no indices have
    to come to the device."""
    flat = tensor.detach().reshape(-1)
    if flat.numel() > RUNS * RUN:
        flat = torch.cat([flat[start : start + RUN] for start in sampled(flat.numel())[::RUN].tolist()])
    else:
        flat = flat.clone()
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    return flat.view(_AS_BYTES[flat.element_size()])
