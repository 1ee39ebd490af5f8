"""A model's modules by name, and its weights at one moment.

People name layers as they wrote them; wrappers for compilation, sharding and checkpointing put words of their own in
between, and a LightningModule usually holds the network one level down. So wrappers' words are left out, and the end
of a name is enough where only one layer has it.

Weights are sampled within a pass, where they lie, so nothing is waited for: what is looked at is copied on the device,
and comes to the host once, when it is asked for. What counts are the parameters, and the floating buffers of layers
that are saved with them, such as running statistics. A module's own buffers are left out, and so are a metric's: they
are mostly records, which a validation pass itself writes. Quantised layers have their weights packed, out of sight:
then there is no digest.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lensai_integrations.training.layers import find_alike, find_named
from lensai_integrations.training.weights import RUN, RUNS, Weights, sampled

#: Attributes under which torch's wrappers keep the module they wrap.
WRAPPED = (
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_original_module",
)  # fmt: skip
_PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)


@dataclass(frozen=True)
class Layer:
    """One place in a model whose values are read.

    Attributes:
        name: As the user named it, or its path.
        path: The module's full name, without wrappers' words.
        module: The module.
        before: Whether what goes into the module is read, instead of what comes out.
    """

    name: str
    path: str
    module: nn.Module
    before: bool = False


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All modules below the model by full name, wrappers' words left out; of a wrapper and what it wraps, the latter.

    Example:
        >>> list(named_layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())))
        ['0', '1']
    """
    return dict(_walk(model, ""))


def _walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        wrapped = _is_wrapped(module, name)
        inner = path if wrapped else f"{path}.{name}" if path else name
        if inner:
            yield inner, child
        yield from _walk(child, inner)


def _is_wrapped(module: nn.Module, name: str) -> bool:
    return name in WRAPPED or (name == "module" and isinstance(module, _PARALLEL))


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that wrappers for compilation, sharding and several devices are around.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> unwrapped(nn.DataParallel(layer)) is layer
        True
    """
    inner = next((child for name, child in model.named_children() if _is_wrapped(model, name)), None)
    return model if inner is None else unwrapped(inner)


def in_training(module: nn.Module) -> bool:
    """Whether a module computes as in training: with dropout, and with the statistics of the batch.

    One that was exported has no modes and refuses to be set to one; its operations tell in which it was exported.

    Example:
        >>> layer, images = nn.Dropout(), (torch.ones(2, 3),)
        >>> in_training(layer), in_training(torch.export.export(layer.eval(), images).module())
        (True, False)
    """
    if not module.training or not isinstance(module, torch.fx.GraphModule) or "eval" not in vars(module):
        return module.training
    return any(_argument(node, name) is True for node in module.graph.nodes for name in ("train", "training"))


def _argument(node: torch.fx.Node, name: str) -> Any:
    """What an exported operation is given under a name."""
    names = [argument.name for argument in getattr(getattr(node.target, "_schema", None), "arguments", ())]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}.get(name)


def paths_of(model: nn.Module) -> dict[int, str]:
    """The full name of each module by its `id`, wrappers' words left out; of the model itself, "".

    Example:
        >>> list(paths_of(nn.Sequential(nn.ReLU())).values())
        ['', '0']
    """
    paths = {id(model): ""}
    for path, module in _walk(model, ""):
        paths.setdefault(id(module), path)
    return paths


def find_layer(model: nn.Module, name: str) -> Layer:
    """The layer of a name: a full name, the end of one if only one layer has it, or either with `.input` behind.

    Raises:
        InputError: If there is no such layer, or several; the message has the nearest names and those that exist.

    Example:
        >>> find_layer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), "0.input").before
        True
    """
    layers = named_layers(model)
    path, before = find_named(layers, _plain(name, layers))
    return Layer(name, path, layers[path], before)


def layer_alike(model: nn.Module, name: str) -> tuple[Layer, bool]:
    """The layer that a name of another model means here, see `training.layers.find_alike`, and whether that is sure.

    Raises:
        InputError: If no layer's name ends alike, or those of several do.
    """
    layers = named_layers(model)
    path, before, sure = find_alike(layers, _plain(name, layers))
    return Layer(name, path, layers[path], before), sure


def _plain(name: str, layers: Container[str]) -> str:
    """A name without wrappers' words; `module` is one where no layer is called so."""
    words = [word for word in name.split(".") if word not in WRAPPED]
    wrapped = len(words) > 1 and words[0] == "module" and "module" not in layers
    return ".".join(words[1:] if wrapped else words)


def last_linear(model: nn.Module) -> Layer | None:
    """The linear layer that was defined last and that forward passes go through, or None.

    Attention's own projections are left out, whose weights are used without calling them, and so are metrics.

    Example:
        >>> last_linear(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))).path
        '1'
    """
    aside = [path for path, module in named_layers(model).items() if _is_aside(module)]
    last = None
    for path, module in named_layers(model).items():
        if isinstance(module, nn.Linear) and not any(path.startswith(f"{prefix}.") for prefix in aside):
            last = Layer(path, path, module)
    return last


def is_metric(module: nn.Module) -> bool:
    """Whether a module is a metric of torchmetrics, and so no part of the model."""
    return any(c.__module__.startswith("torchmetrics.") for c in type(module).__mro__)


def _is_aside(module: nn.Module) -> bool:
    return is_metric(module) or isinstance(module, nn.MultiheadAttention)


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
            self._parts = [
                ([i for i, _ in samples], torch.cat([sample for _, sample in samples]))
                for samples in by_device.values()
            ]

    def weights(self) -> Weights | None:
        """Their digest; None if there are none here, or not all can be seen. Waits for the device."""
        samples: dict[int, Any] = {}
        for places, joined in self._parts:
            lengths = [self._what[index][2] for index in places]
            samples |= dict(zip(places, torch.split(joined.cpu(), lengths), strict=True))
        if self._packed or not any(length for _, _, length in self._what):
            return None
        return Weights.of((kind, shape, samples[i].numpy()) for i, (kind, shape, _) in enumerate(self._what))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What is learned, by its name in the `state_dict`."""
    yield from model.named_parameters()
    for path, module in model.named_modules():
        if module is model or is_metric(module):
            continue
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                yield f"{path}.{name}", buffer


def _sample(tensor: Tensor) -> Tensor:
    """The bytes of the elements that are looked at, `[n]` uint8, on the tensor's device."""
    flat = tensor.reshape(-1)
    size = flat.numel()
    if size > RUNS * RUN:  # by slices: a list of places would have to go to the device
        starts = sampled(size)[::RUN].tolist()
        flat = torch.cat([flat[start : start + RUN] for start in starts])
    return flat.contiguous().view(torch.uint8)
