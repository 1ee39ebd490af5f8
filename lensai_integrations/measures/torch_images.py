"""Torch tensors of images on which a custom measure works as it does on numpy arrays.

numpy and JAX take the mean of a comparison, torch refuses: `(images >= 245).mean((1, 2, 3))`. So custom measures of
torch batches are handed a subclass of `torch.Tensor` that knows the means of booleans; everything else is torch's own.
Torch is never imported here: whoever has one of its tensors has loaded it.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

from lensai_integrations.arrays.namespaces import Array


def as_images(tensor: Array) -> Array:
    """The tensor, without a copy, as one that knows the means of booleans, and so does all that is computed from it.

    Example:
        >>> import torch
        >>> (as_images(torch.tensor([[250.0, 3.0]])) >= 245).mean(1).tolist()
        [0.5]
    """
    return tensor.as_subclass(_image_tensor())


def as_tensor(values: Any) -> Any:
    """A plain tensor where it is one of ours, else what it is.

    Example:
        >>> import torch
        >>> type(as_tensor(as_images(torch.zeros(2)))).__name__
        'Tensor'
    """
    torch = sys.modules.get("torch")
    return values.as_subclass(torch.Tensor) if torch is not None and isinstance(values, torch.Tensor) else values


@lru_cache(maxsize=1)
def _image_tensor() -> Any:
    torch: Any = sys.modules["torch"]
    averages = {getattr(owner, name) for owner in (torch, torch.Tensor) for name in ("mean", "std", "var")}

    class ImageTensor(torch.Tensor):  # type: ignore[misc]
        @classmethod
        def __torch_function__(
            cls, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
        ) -> Any:
            if function in averages and arguments and arguments[0].dtype == torch.bool:
                arguments = (arguments[0].to(torch.float32), *arguments[1:])
            return super().__torch_function__(function, types, arguments, named or {})

    return ImageTensor
