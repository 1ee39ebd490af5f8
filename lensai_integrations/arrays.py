"""How arrays of different libraries are met, in one place.

A batch may be a numpy array, a torch tensor in host memory or a torch tensor on an accelerator. The formulas
of this package are written once, over the functions these libraries share (`array-api-compat`). A torch tensor
in host memory is viewed as a numpy array without a copy: numpy's SIMD sort and its element-wise kernels are
many times faster there than torch's. torch is never imported here: if the caller has a tensor, it is already loaded.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_numpy_array, is_torch_array

from lensai_integrations.errors import InputError

#: A numpy array or a torch tensor; static types cannot tell devices or dtypes of foreign arrays apart.
Array: TypeAlias = Any


def is_host(array: Array) -> bool:
    """Whether the array's values lie in host memory, so that reading them waits for nothing.

    Example:
        >>> is_host(np.zeros(3))
        True
    """
    return bool(is_numpy_array(array) or (is_torch_array(array) and array.device.type == "cpu"))


def local(array: Array) -> Array:
    """The array as numpy without a copy where it lies in host memory; on an accelerator, itself, detached.

    Half-precision tensors that numpy cannot hold (bfloat16) are widened to float32. Anything that is not an array is
    handed to `numpy.asarray`; what that cannot turn into numbers raises `InputError`.

    Example:
        >>> local([1.0, 2.0]).dtype
        dtype('float64')
    """
    if is_torch_array(array):
        tensor = array.detach()
        if tensor.device.type != "cpu":
            return tensor
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        return tensor.resolve_conj().resolve_neg().numpy()
    result = np.asarray(array)
    if result.dtype == object or result.dtype.kind not in "biuf":
        raise InputError(f"expected an array of numbers, got {type(array).__name__} of dtype {result.dtype}")
    return result


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """The array as numpy. For an accelerator's tensor this waits for the device: never call it in a training step.

    Example:
        >>> to_host(np.arange(2)).tolist()
        [0, 1]
    """
    array = local(array)
    return array if isinstance(array, np.ndarray) else local(array.cpu())


def namespace(*arrays: Array) -> Any:
    """The array library's namespace, with the names of the Python array API standard.

    Example:
        >>> namespace(np.zeros(2)).__name__
        'array_api_compat.numpy'
    """
    return array_namespace(*arrays)
