"""Measuring in one dispatch where the library offers that.

The measures of a batch are a hundred small operations. On an accelerator each costs the host tens of microseconds to
ask for, more than the device needs to do it. JAX and TensorFlow trace a function once for each shape and run it as one.

That it can be traced is also the proof that measuring never waits: what is traced has no values to wait for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from array_api_compat import is_jax_array

from lensai_integrations import arrays
from lensai_integrations.arrays import Array, dtype_name, is_immutable, is_symbolic, shape_of

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
        if not is_immutable(array) or is_symbolic(array) or arrays.is_host(array):
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
