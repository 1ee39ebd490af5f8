"""How arrays of different libraries are met, in one place.

A batch may be a numpy array, a torch tensor, a JAX array or a TensorFlow tensor, in host memory or on an accelerator.
The formulas of this package are written once, over the functions these libraries share (`array-api-compat`, and
`arrays.tensorflow` for the one library it leaves out). What lies in host memory is viewed as a numpy array without a
copy: numpy's SIMD sort and its element-wise kernels are many times faster there than the others'. No framework is ever
imported here: if the caller has one of its arrays, it is already loaded.

JAX's and TensorFlow's arrays cannot be written to, so sketches that live on an accelerator are torch's alone. Of these
two only what was measured goes to the host, a few numbers per row; see `Compiled` and `Profiler`. The measures of a
batch are a hundred small operations, each of which costs the host tens of microseconds to ask an accelerator for, more
than the device needs to do it: `Compiled` traces a function once for each shape and runs it as one. That it can be
traced is also the proof that measuring never waits: what is traced has no values to wait for.

A sketch decides on the host which row goes where, and the device only has to be told: a few hundred indices a batch. A
plain copy would stop the host until everything queued before it is done; `send` queues one like any other work. And
Lightning validates in torch's inference mode, and a tensor made there may not be written to outside: what a sketch
keeps is made outside of it (`unfilled`), whatever mode the caller is in.
"""

from __future__ import annotations

import math
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from array_api_compat import array_namespace, is_jax_array, is_torch_array
from array_api_compat import is_numpy_array as is_of_numpy
from array_api_compat import numpy as _numpy
from numpy.typing import NDArray

from lensai_integrations.arrays import tensorflow
from lensai_integrations.arrays.sharded import own_rows
from lensai_integrations.arrays.tensorflow import is_tensorflow_array
from lensai_integrations.errors import InputError

#: An array of one of the libraries; static types cannot tell devices or dtypes of foreign arrays apart.
Array: TypeAlias = Any

#: TensorFlow's composite tensors, which are no arrays, and what makes arrays of them.
_COMPOSITES: Final = {"RaggedTensor": "batch.to_tensor()", "SparseTensor": "tf.sparse.to_dense(batch)"}


def is_numpy_array(value: Any) -> bool:
    """Whether it is an array of numpy, or one of its numbers.

    Example:
        >>> is_numpy_array(np.zeros(3)), is_numpy_array([0.0])
        (True, False)
    """
    return type(value) is np.ndarray or is_of_numpy(value)


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
    if isinstance(array, np.ndarray | int | list):
        return False
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):  # asked many times in a batch, mostly of these
        return False
    return is_jax_array(array) or is_tensorflow_array(array)


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

    `local` asks this function of JAX's and TensorFlow's arrays: a test that replaces `namespaces.is_host` by one that
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
    (bfloat16) is widened to float32. Of a torch array that several processes hold together, those rows that this one
    has (`sharded.py`). A list of torch's tensors is one array of them, where they lie. Anything else that
    is not an array is handed to `numpy.asarray`; what that cannot turn into numbers raises `InputError`.

    Example:
        >>> local([1.0, 2.0]).dtype
        dtype('float64')
    """
    if type(array) is np.ndarray:
        return _numbers(array, array)
    if is_torch_array(array):
        tensor = own_rows(array).detach()
        if tensor.device.type != "cpu":
            return tensor
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()
        return tensor.resolve_conj().resolve_neg().numpy()
    if is_immutable(array):
        return _as_numpy(array) if is_host(array) else array
    if isinstance(array, list | tuple) and array and all(map(is_torch_array, array)):
        rows = [local(row) for row in array]  # they may want gradients, or lie on an accelerator
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
    if len(arrays) == 1:  # what most of them are: `array_namespace` asks each array what it is of all libraries
        if type(arrays[0]) is np.ndarray:
            return _numpy
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(arrays[0], torch.Tensor):
            return sys.modules.get("array_api_compat.torch") or array_namespace(*arrays)
    if is_tensorflow_array(arrays[0]):
        return tensorflow
    return array_namespace(*arrays)


def dtype_name(array: Array) -> str:
    """The dtype's name, the same in every library.

    Example:
        >>> dtype_name(np.zeros(1, np.float32))
        'float32'
    """
    return getattr(array.dtype, "name", None) or str(array.dtype).removeprefix("torch.")


def half_precision(array: Array) -> dict[str, str]:
    """What a group's `info` has of the precision its values came in: nothing of float32 and float64, which it keeps.

    Example:
        >>> half_precision(np.zeros(1, np.float16)), half_precision(np.zeros(1))
        ({'precision': 'float16'}, {})
    """
    name = dtype_name(array)
    return {"precision": name} if name in ("float16", "bfloat16") else {}


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


def _numbers(result: np.ndarray[Any, Any], original: Any) -> np.ndarray[Any, Any]:
    if result.dtype.kind in "biuf":
        return result
    if result.dtype.kind == "V" and "float" in result.dtype.name:  # bfloat16 and the 8-bit floats of ml_dtypes
        return result.astype(np.float32)
    raise InputError(f"expected an array of numbers, got {type(original).__name__} of dtype {result.dtype}")


#: TensorFlow traces anew for each shape, seconds each. With more shapes than this, further ones run step by step.
_MOST_SHAPES = 16


class Compiled:
    """A function of one array: traced for JAX's and TensorFlow's arrays on an accelerator, called as it is for others.

    Args:
        function: From an array to arrays, in tuples and dicts; without side effects and without reading values.

    Example:
        >>> import numpy as np
        >>> Compiled(lambda array: {"twice": 2 * array})(np.arange(3))
        {'twice': array([0, 2, 4])}
    """

    def __init__(self, function: Callable[[Array], Any]) -> None:
        self._function = function
        self._for_jax: Callable[[Array], Any] | None = None
        self._for_tensorflow: dict[tuple[str, tuple[int, ...]], Callable[[Array], Any]] = {}

    def __reduce__(self) -> Any:
        return Compiled, (self._function,)  # what was traced stays: other processes trace anew

    def __call__(self, array: Array) -> Any:
        """The function's answer for the array."""
        if not is_immutable(array) or is_symbolic(array) or is_host(array):
            return self._function(array)
        return (self._traced_by_jax() if is_jax_array(array) else self._traced_by_tensorflow(array))(array)

    def _traced_by_jax(self) -> Callable[[Array], Any]:
        if self._for_jax is None:
            self._for_jax = sys.modules["jax"].jit(self._function)
        return self._for_jax

    def _traced_by_tensorflow(self, array: Array) -> Callable[[Array], Any]:
        """A concrete function for each shape: one that takes all of them would warn of tracing again."""
        kind = dtype_name(array), shape_of(array)
        if kind not in self._for_tensorflow:
            if len(self._for_tensorflow) == _MOST_SHAPES:
                return self._function
            tensorflow = sys.modules["tensorflow"]
            spec = tensorflow.TensorSpec(array.shape, array.dtype)
            function = tensorflow.function(self._function, autograph=False)
            self._for_tensorflow[kind] = function.get_concrete_function(spec)
        return self._for_tensorflow[kind]


def send(array: NDArray[Any], like: Array) -> Array:
    """`array` where `like` lies: itself if that is numpy, else a tensor on the same device, copied without waiting.

    To a CUDA device it goes through page-locked memory, which torch keeps and uses again: a copy from other memory
    would wait for what was queued before it. float64 becomes float32 on Apple's GPUs, which have none.

    Example:
        >>> send(np.arange(2), like=np.zeros(3)).tolist()
        [0, 1]
    """
    if is_numpy_array(like):
        return array
    xp, dtype = namespace(like), np.dtype(_dtype_beside(array.dtype.name, like))
    with xp.inference_mode(False):
        if not _stages(like):
            return xp.from_numpy(np.array(array, dtype)).to(like.device, non_blocking=True)
        staged = xp.empty(array.shape, dtype=getattr(xp, dtype.name), device="cpu", pin_memory=True)
        staged.numpy()[...] = array
        return staged.to(like.device, non_blocking=True)


def _stages(like: Array) -> bool:
    """Whether what is sent to where a tensor lies has to go through page-locked memory."""
    return bool(like.device.type == "cuda") and not is_fake(like)


def is_fake(tensor: Array) -> bool:
    """Whether a torch tensor has a shape and a device but no values: under torch's `FakeTensorMode`.

    Example:
        >>> is_fake(np.zeros(3))
        False
    """
    return type(tensor).__name__ == "FakeTensor"


def _dtype_beside(dtype: str, like: Array) -> str:
    """The dtype that is kept beside an array of numpy or torch where this one is asked for."""
    return "float32" if dtype == "float64" and getattr(like.device, "type", "") == "mps" else dtype


def full_beside(shape: tuple[int, ...], value: float, dtype: str, like: Array) -> Array:
    """An array of one number, filled where `like` lies: nothing is sent. It may be written to.

    Example:
        >>> full_beside((2,), np.inf, "float32", like=np.zeros(1)).tolist()
        [inf, inf]
    """
    result = unfilled(shape, _dtype_beside(dtype, like), like)
    if is_numpy_array(like):
        result[...] = value
        return result
    with namespace(like).inference_mode(False):
        return result.fill_(value)


def zeros_beside(shape: tuple[int, ...], dtype: str, like: Array) -> Array:
    """Zeros, filled where `like` lies; see `full_beside`. In host memory they take none before they are written.

    Example:
        >>> zeros_beside((2,), "float64", like=np.zeros(1)).tolist()
        [0.0, 0.0]
    """
    return np.zeros(shape, dtype) if is_numpy_array(like) else full_beside(shape, 0, dtype, like)


#: Bytes of what `kept_beside` keeps in a process.
_KEPT_BYTES: Final = 1 << 28
_kept: OrderedDict[Hashable, Array] = OrderedDict()
#: The same of each of torch's fake modes, whose tensors do not go with those of another.
_kept_in_mode: Final[WeakKeyDictionary[Any, OrderedDict[Hashable, Array]]] = WeakKeyDictionary()
_kept_lock: Final = threading.Lock()


def kept_beside(key: Hashable, make: Callable[[], NDArray[Any]], like: Array) -> Array:
    """A constant where `like` lies, made and sent once in a process: later sketches of a device find it there.

    What was used longest ago goes where it becomes too much; in host memory nothing is kept. It is not to be written
    to.

    Args:
        key: What it is; of equal keys the values are equal.
        make: Makes it, in host memory.
        like: An array of numpy or torch.

    Example:
        >>> kept_beside(("steps", 3), lambda: np.arange(3), like=np.zeros(1)).tolist()
        [0, 1, 2]
    """
    if is_numpy_array(like):
        return make()
    full_key = key, str(like.device), _queue_of(like)
    with _kept_lock:
        kept = _kept_in_mode.setdefault(like.fake_mode, OrderedDict()) if is_fake(like) else _kept
        if full_key in kept:
            kept.move_to_end(full_key)
            return kept[full_key]
    result = send(make(), like)
    with _kept_lock:
        kept[full_key] = result
        while len(kept) > 1 and sum(array.nbytes for array in kept.values()) > _KEPT_BYTES:
            kept.popitem(last=False)
    return result


def _queue_of(like: Array) -> int:
    """What work for a tensor's device is queued in: what was sent in one may not have arrived for another."""
    if not _stages(like):
        return 0
    return int(sys.modules["torch"].cuda.current_stream(like.device).cuda_stream)


def unfilled(shape: tuple[int, ...], dtype: str, like: Array) -> Array:
    """An array to be written to, beside `like`. In host memory it takes none before it is written.

    Example:
        >>> unfilled((2, 3), "float32", like=np.zeros(1)).shape
        (2, 3)
    """
    xp = namespace(like)
    if is_numpy_array(like):
        return xp.empty(shape, dtype=getattr(xp, dtype))
    with xp.inference_mode(False):
        return xp.empty(shape, dtype=getattr(xp, dtype), device=like.device)


def together(first: Array, second: Array) -> tuple[Array, Array]:
    """Two arrays on one device: what lies on the host is sent to where the other is. Nothing is ever waited for.

    Example:
        >>> [a.tolist() for a in together(np.zeros(1), np.ones(1))]
        [[0.0], [1.0]]
    """
    if is_numpy_array(first) and not is_numpy_array(second):
        return send(first, second), second
    return first, send(second, first) if is_numpy_array(second) else second


def are_finite(rows: Array) -> Array:
    """Which rows have only finite values, bool `[n]`; nothing is waited for, and an accelerator needs two launches.

    The largest magnitude of a row says so, NaN included: one reading of the rows, where testing each value for
    itself takes four, and their sum may overflow.

    Args:
        rows: Floating-point numbers `[n, D]` of numpy or torch.

    Example:
        >>> are_finite(np.array([[1.0, 2.0], [3.0, np.nan], [-np.inf, 0.0]])).tolist()
        [True, False, False]
    """
    return namespace(rows).linalg.vector_norm(rows, ord=math.inf, axis=1) < math.inf


def joined(parts: list[Array]) -> Array:
    """Rows of several arrays in one; on the accelerator if some are on one.

    Example:
        >>> joined([np.zeros((1, 2)), np.ones((2, 2))]).shape
        (3, 2)
    """
    like = next((rows for rows in parts if not is_numpy_array(rows)), parts[0])
    return namespace(like).concat([send(rows, like) if is_numpy_array(rows) else rows for rows in parts])
