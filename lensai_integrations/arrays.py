"""How arrays of different libraries are met, in one place.

A batch may be a numpy array, a torch tensor, a JAX array or a TensorFlow tensor, in host memory or on an accelerator.
The formulas of this package are written once, over the functions these libraries share (`array-api-compat`, and
`tensorflow_arrays` for the one library it leaves out). What lies in host memory is viewed as a numpy array without a
copy: numpy's SIMD sort and its element-wise kernels are many times faster there than the others'. No framework is ever
imported here: if the caller has one of its arrays, it is already loaded.

JAX's and TensorFlow's arrays cannot be written to, so sketches that live on an accelerator are torch's alone. Of these
two only what was measured goes to the host, a few numbers per row; see `compiled.py` and `Profiler`.
"""

from __future__ import annotations

import sys
from typing import Any, Final, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_jax_array, is_numpy_array, is_torch_array

from lensai_integrations import tensorflow_arrays
from lensai_integrations.errors import InputError
from lensai_integrations.tensorflow_arrays import is_tensorflow_array

#: An array of one of the libraries; static types cannot tell devices or dtypes of foreign arrays apart.
Array: TypeAlias = Any

#: TensorFlow's composite tensors, which are no arrays, and what makes arrays of them.
_COMPOSITES: Final = {"RaggedTensor": "batch.to_tensor()", "SparseTensor": "tf.sparse.to_dense(batch)"}


def is_array(value: Any) -> bool:
    """Whether it is an array of one of the libraries, and no list or number.

    Example:
        >>> is_array(np.zeros(3)), is_array([0.0])
        (True, False)
    """
    return is_numpy_array(value) or is_torch_array(value) or is_immutable(value)


def is_immutable(array: Array) -> bool:
    """Whether it is an array of JAX or TensorFlow, which cannot be written to.

    Example:
        >>> is_immutable(np.zeros(3))
        False
    """
    return not isinstance(array, np.ndarray) and (is_jax_array(array) or is_tensorflow_array(array))


def is_symbolic(array: Array) -> bool:
    """Whether it stands for an array in a function that is being traced, by `jax.jit` or `tf.function`: no values yet.

    Example:
        >>> is_symbolic(np.zeros(3))
        False
    """
    if is_tensorflow_array(array):
        return bool(sys.modules["tensorflow"].is_symbolic_tensor(array))
    return is_jax_array(array) and isinstance(array, sys.modules["jax"].core.Tracer)


def is_host(array: Array) -> bool:
    """Whether the array's values lie in host memory, so that reading them waits for no accelerator.

    `local` asks this function of JAX's and TensorFlow's arrays: a test that replaces `arrays.is_host` by one that
    says no makes all of this package treat them as an accelerator's.

    Example:
        >>> is_host(np.zeros(3))
        True
    """
    if is_numpy_array(array):
        return True
    if is_torch_array(array):
        return bool(array.device.type == "cpu")
    if not is_immutable(array) or is_symbolic(array):
        return False
    if is_tensorflow_array(array):
        return ":CPU:" in array.device
    return all(device.platform == "cpu" for device in array.devices())


def local(array: Array) -> Array:
    """The array as numpy without a copy where it lies in host memory; on an accelerator, itself, detached.

    So does an array without values, of a function that is being traced. Half precision that numpy cannot hold
    (bfloat16) is widened to float32. A list of torch's tensors is one array of them, where they lie. Anything else that
    is not an array is handed to `numpy.asarray`; what that cannot turn into numbers raises `InputError`.

    Example:
        >>> local([1.0, 2.0]).dtype
        dtype('float64')
    """
    if type(array) is np.ndarray:
        return _numbers(array, array)
    if is_torch_array(array):
        tensor = array.detach()
        if tensor.device.type != "cpu":
            return tensor
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        return tensor.resolve_conj().resolve_neg().numpy()
    if is_immutable(array):
        return _as_numpy(array) if is_host(array) else array
    if isinstance(array, list | tuple) and array and all(map(is_torch_array, array)):
        rows = [local(each) for each in array]  # they may want gradients, or lie on an accelerator
        return np.asarray(rows) if isinstance(rows[0], np.ndarray) else namespace(rows[0]).stack(rows)
    return _numbers(_checked(array), array)


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """The array as numpy. For an accelerator's array this waits for the device: never call it in a training step.

    Example:
        >>> to_host(np.arange(2)).tolist()
        [0, 1]
    """
    if is_immutable(array):
        return _as_numpy(array)
    array = local(array)
    return array if isinstance(array, np.ndarray) else local(array.cpu())


def namespace(*arrays: Array) -> Any:
    """The array library's namespace, with the names of the Python array API standard.

    Example:
        >>> namespace(np.zeros(2)).__name__
        'array_api_compat.numpy'
    """
    if is_tensorflow_array(arrays[0]):
        return tensorflow_arrays
    return array_namespace(*arrays)


def dtype_name(array: Array) -> str:
    """The dtype's name, the same in every library.

    Example:
        >>> dtype_name(np.zeros(1, np.float32))
        'float32'
    """
    return getattr(array.dtype, "name", None) or str(array.dtype).removeprefix("torch.")


def shape_of(array: Array) -> tuple[int, ...]:
    """The shape as plain numbers; -1 for a length that is not known while TensorFlow traces a function.

    Example:
        >>> shape_of(np.zeros((2, 3)))
        (2, 3)
    """
    if isinstance(array, np.ndarray):
        return tuple(array.shape)
    return tuple(-1 if size is None else int(size) for size in array.shape)


def strings(array: Array) -> list[str] | None:
    """The strings of an array or list of them, in C order; None if it holds no strings.

    TensorFlow's strings are bytes, read as UTF-8; numpy's are either.

    Example:
        >>> strings(["cat", "dog"]), strings(np.array([b"cat"])), strings(np.zeros(2))
        (['cat', 'dog'], ['cat'], None)
    """
    if isinstance(array, list | tuple):
        return list(array) if array and isinstance(array[0], str) else None
    if is_tensorflow_array(array) and dtype_name(array) == "string":
        array = array.numpy()
    elif not isinstance(array, np.ndarray) or array.dtype.kind not in "SUTO":
        return None
    texts = array.reshape(-1).tolist()
    if not texts or not all(isinstance(text, str | bytes) for text in texts):
        return None
    try:
        return [text.decode() if isinstance(text, bytes) else text for text in texts]
    except UnicodeDecodeError as error:
        raise InputError(f"strings should be UTF-8, but: {error}") from error


def start_copy(array: Array) -> Array:
    """The array, on its way to the host if its library can copy in the background (JAX); nothing is waited for.

    Example:
        >>> start_copy(np.arange(2)).tolist()
        [0, 1]
    """
    if is_jax_array(array) and not is_symbolic(array):
        array.copy_to_host_async()
    return array


def _as_numpy(array: Array) -> np.ndarray[Any, Any]:
    """A concrete array of JAX or TensorFlow as numpy: a view where it lies in host memory, else waited for."""
    if is_jax_array(array):
        if not array.is_fully_addressable:
            raise InputError(
                f"this process holds only some parts of a JAX array of shape {array.shape}:"
                " pass the data of its addressable_shards, and merge the processes' profiles"
            )
        return _numbers(sys.modules["jax"].device_get(array), array)
    try:  # TensorFlow's own conversions copy
        return _numbers(np.asarray(memoryview(array)) if is_host(array) else array.numpy(), array)
    except (ValueError, BufferError):  # dtypes that buffers do not know: bfloat16
        return _numbers(array.numpy(), array)


def _checked(array: Any) -> np.ndarray[Any, Any]:
    name = type(array).__name__
    if name in _COMPOSITES and type(array).__module__.startswith("tensorflow."):
        raise InputError(f"expected an array, got a tf.{name}: pass {_COMPOSITES[name]}, or leave it out")
    return np.asarray(array)


def _numbers(result: np.ndarray[Any, Any], given: Any) -> np.ndarray[Any, Any]:
    if result.dtype.kind in "biuf":
        return result
    if result.dtype.kind == "V" and "float" in result.dtype.name:  # bfloat16 and the 8-bit floats of ml_dtypes
        return result.astype(np.float32)
    raise InputError(f"expected an array of numbers, got {type(given).__name__} of dtype {result.dtype}")
