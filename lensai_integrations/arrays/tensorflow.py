"""TensorFlow's functions under the names of the Python array API standard: those that the measures use, and no more.

`array-api-compat` knows no TensorFlow, and TensorFlow's own numpy names (`tf.experimental.numpy`) come with promotions
that a program must switch on for all of its code. TensorFlow is never imported here: whoever has one of its tensors has
loaded it. Everything runs eagerly and inside `tf.function`, with a batch axis of unknown length, too.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, Final

#: Data types by name, as TensorFlow takes them.
float32: Final = "float32"
uint8: Final = "uint8"
int32: Final = "int32"
int64: Final = "int64"

_KINDS: Final = {"bool": "is_bool", "integral": "is_integer", "real floating": "is_floating"}
_Axis = int | Sequence[int] | None


def is_tensorflow_array(value: Any) -> bool:
    """Whether it is a dense tensor of TensorFlow, eager or symbolic.

    Example:
        >>> is_tensorflow_array([1.0])
        False
    """
    tensor = getattr(sys.modules.get("tensorflow"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def _tf() -> Any:
    return sys.modules["tensorflow"]


def isdtype(dtype: Any, kind: str | tuple[str, ...]) -> bool:
    """Whether a tensor's dtype is of a kind, `"bool"`, `"integral"` or `"real floating"`, or of one of several."""
    return any(getattr(dtype, _KINDS[name]) for name in ((kind,) if isinstance(kind, str) else kind))


def astype(x: Any, dtype: str, *, copy: bool = True) -> Any:
    """In another dtype. Tensors cannot be written to, so nothing depends on `copy`."""
    return _tf().cast(x, dtype)


def asarray(values: Any, dtype: str | None = None) -> Any:
    """A tensor of host values."""
    return _tf().convert_to_tensor(values, dtype=dtype)


def zeros(shape: Sequence[int], dtype: str = float32) -> Any:
    """Zeros."""
    return _tf().zeros(shape, dtype)


def zeros_like(x: Any) -> Any:
    """Zeros of the same shape and dtype."""
    return _tf().zeros_like(x)


def reshape(x: Any, shape: Sequence[int]) -> Any:
    """Another shape, in C order."""
    return _tf().reshape(x, shape)


def permute_dims(x: Any, axes: Sequence[int]) -> Any:
    """Axes in another order."""
    return _tf().transpose(x, axes)


def concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays one after the other."""
    return _tf().concat(arrays, axis)


concatenate = concat


def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays side by side along a new axis."""
    return _tf().stack(arrays, axis)


def flip(x: Any, axis: int) -> Any:
    """Reversed along an axis."""
    return _tf().reverse(x, [axis])


def take(x: Any, indices: Any, axis: int) -> Any:
    """The entries at these places of an axis."""
    return _tf().gather(x, indices, axis=axis)


def where(condition: Any, first: Any, second: Any) -> Any:
    """`first` where the condition holds, else `second`; one of them may be a number."""
    dtype = next(value.dtype for value in (first, second) if is_tensorflow_array(value))
    return _tf().where(condition, *(_tf().convert_to_tensor(value, dtype) for value in (first, second)))


def sum(x: Any, axis: _Axis = None, *, dtype: str | None = None, keepdims: bool = False) -> Any:
    """Sum, in another dtype if one is given."""
    return _tf().reduce_sum(x if dtype is None else _tf().cast(x, dtype), axis, keepdims)


def mean(x: Any, axis: _Axis = None) -> Any:
    """Mean."""
    return _tf().reduce_mean(x, axis)


def min(x: Any, axis: _Axis = None) -> Any:
    """Smallest value."""
    return _tf().reduce_min(x, axis)


def max(x: Any, axis: _Axis = None, *, keepdims: bool = False) -> Any:
    """Largest value."""
    return _tf().reduce_max(x, axis, keepdims)


def all(x: Any, axis: _Axis = None, *, keepdims: bool = False) -> Any:
    """Whether all are true."""
    return _tf().reduce_all(x, axis, keepdims)


def argmax(x: Any, axis: int) -> Any:
    """Place of the largest value, int64."""
    return _tf().argmax(x, axis)


def sort(x: Any, axis: int = -1) -> Any:
    """In ascending order."""
    return _tf().sort(x, axis)


def clip(x: Any, low: float, high: float) -> Any:
    """Held inside [low, high]; NaN stays."""
    return _tf().clip_by_value(x, low, high)


def maximum(x: Any, y: Any) -> Any:
    """The larger of two, each."""
    return _tf().maximum(x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller of two, each."""
    return _tf().minimum(x, y)


def abs(x: Any) -> Any:
    """Absolute value."""
    return _tf().abs(x)


def floor(x: Any) -> Any:
    """Largest whole number at or below."""
    return _tf().floor(x)


def sqrt(x: Any) -> Any:
    """Square root."""
    return _tf().sqrt(x)


def exp(x: Any) -> Any:
    """e to the power of x."""
    return _tf().exp(x)


def log(x: Any) -> Any:
    """Natural logarithm."""
    return _tf().math.log(x)


def log2(x: Any) -> Any:
    """Logarithm to base 2."""
    return _tf().math.log(x) * (1 / math.log(2))


def log10(x: Any) -> Any:
    """Logarithm to base 10."""
    return _tf().math.log(x) * (1 / math.log(10))


def arctan2(y: Any, x: Any) -> Any:
    """Angle of (x, y) in radians."""
    return _tf().math.atan2(y, x)


def isnan(x: Any) -> Any:
    """Whether it is NaN, each."""
    return _tf().math.is_nan(x)


def isfinite(x: Any) -> Any:
    """Whether it is neither NaN nor infinite, each."""
    return _tf().math.is_finite(x)


def searchsorted(x: Any, values: Any, side: str = "left") -> Any:
    """Where to insert values `[r, m]` into ascending `[r, n]`, row by row: int32 `[r, m]`."""
    return _tf().searchsorted(x, values, side=side)
