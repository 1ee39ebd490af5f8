"""Models that `torch.compile` has to do with: whether it has, what of them is called from outside, and old code of it.

Compiled code is kept by the function it was compiled from, whichever object calls it, and hooks that are put on a
module later are not noticed: a second fit of a model, or of another object of its class, would run code in which they
are missing. So before hooks are put on a compiled model, what was compiled is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from lensai_integrations.torch.answer import has_forward

_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")
#: What a compiled function has that no other has.
_MARK = "_torchdynamo_orig_callable"


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, a part of it or one of its steps is compiled by `torch.compile`.

    Example:
        >>> is_compiled(nn.Sequential(nn.Linear(2, 2)))
        False
    """
    if getattr(model, "_compiler_ctx", None) is not None:
        return True
    return any(map(_is_compiled, model.modules()))


def has_compiled(model: nn.Module) -> bool:
    """Whether a model is compiled, or some of its modules has a compiled function, as a method or an attribute.

    Example:
        >>> class Encoder(nn.Module):
        ...     @torch.compile
        ...     def encode(self, images):
        ...         return images
        >>> is_compiled(Encoder()), has_compiled(Encoder())
        (False, True)
    """
    return is_compiled(model) or any(map(_has_compiled, model.modules()))


def forget_compiled(model: nn.Module) -> None:
    """Before hooks are put on a model: if code was compiled of it, let it be compiled again, with them."""
    if has_compiled(model):
        torch.compiler.reset()


def root_of_compiled(model: nn.Module) -> nn.Module | None:
    """The module of a compiled model whose answer is the model's; None if that is not clear."""
    if has_forward(model) or "_orig_mod" in model._modules:
        return model
    wrappers = [module for module in model.children() if _is_compiled(module)]
    return wrappers[0] if len(wrappers) == 1 else None


def _is_compiled(module: nn.Module) -> bool:
    if "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None:
        return True
    return any(hasattr(getattr(module, name, None), _MARK) for name in _STEPS)


def _has_compiled(module: nn.Module) -> bool:
    return any(hasattr(value, _MARK) for value in _attributes(module))


def _attributes(module: nn.Module) -> Iterator[object]:
    yield from vars(module).values()
    for each in type(module).__mro__:
        if each.__module__.split(".")[0] != "torch":
            yield from vars(each).values()
