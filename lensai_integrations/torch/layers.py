"""Which modules of a model are listened to, by name.

People name layers as they wrote them; wrappers for compilation, sharding and checkpointing put words of their own in
between, and a LightningModule usually holds the network one level down. So wrappers' words are left out, and the end
of a name is enough where only one layer has it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lensai_integrations.training.layers import find_alike, find_named

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
    names = [each.name for each in getattr(getattr(node.target, "_schema", None), "arguments", ())]
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
    """The layer that a name of another model means here, see `naming.find_alike`, and whether that is sure.

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
    found = None
    for path, module in named_layers(model).items():
        if isinstance(module, nn.Linear) and not any(path.startswith(f"{prefix}.") for prefix in aside):
            found = Layer(path, path, module)
    return found


def is_metric(module: nn.Module) -> bool:
    """Whether a module is a metric of torchmetrics, and so no part of the model."""
    return any(c.__module__.startswith("torchmetrics.") for c in type(module).__mro__)


def _is_aside(module: nn.Module) -> bool:
    return is_metric(module) or isinstance(module, nn.MultiheadAttention)
