"""Arrays of the four libraries, in host memory and as if they lay on an accelerator."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api_compat import is_numpy_array, is_torch_array

from lensai_integrations.arrays import namespaces
from lensai_integrations.arrays.namespaces import Array

#: Libraries whose arrays cannot be written to; what is measured of them on an accelerator comes to the host.
IMMUTABLE = ("jax", "tensorflow")
LIBRARIES = ("numpy", "torch", *IMMUTABLE)


def maker(library: str) -> Callable[[Any], Array]:
    """From a numpy array to the library's; skips the test where the library is not installed."""
    if library == "numpy":
        return np.asarray
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a framework warns of while it is imported is its own affair
        module = pytest.importorskip(library, reason=f"{library} is not installed")
    if library == "torch":
        return lambda values: module.from_numpy(np.array(values, order="K"))
    if library == "jax":
        return module.numpy.asarray
    return module.constant


def as_if_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, JAX's and TensorFlow's arrays are treated as if they lay on an accelerator."""
    monkeypatch.setattr(namespaces, "is_host", on_host_of_its_own)


def on_host_of_its_own(array: Array) -> bool:
    """`namespaces.is_host`, as it answers where JAX and TensorFlow have an accelerator."""
    return is_numpy_array(array) or (is_torch_array(array) and array.device.type == "cpu")


def traced(library: str, function: Callable[[Array], Any], array: Array) -> Any:
    """The function's answer once it was traced, without values: whatever would wait for one raises."""
    if library == "jax":
        import jax

        return jax.jit(function)(array)
    import tensorflow

    return tensorflow.function(function, autograph=False)(array)


def nothing_waits() -> Any:
    """Refuses every torch operation that would wait for an accelerator: reading a value, or bringing one over.

    Meta tensors have no values: they stand in for an accelerator's.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class NothingWaits(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            name = operation.overloadpacket.__name__
            assert name not in {"lift_fresh", "_local_scalar_dense", "nonzero", "masked_select", "bincount"}, name
            assert name != "_to_copy" or args[0].device.type == "meta", "carried from the host"
            return operation(*args, **(kwargs or {}))

    return NothingWaits()


def tensors_as_if_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, torch's tensors in host memory are treated as if they lay on an accelerator: with their values."""
    true_local, true_is_host = namespaces.local, namespaces.is_host

    def local(array: Any) -> Any:
        return array.detach() if is_torch_array(array) else true_local(array)

    def is_host(array: Any) -> bool:
        return not is_torch_array(array) and true_is_host(array)

    for name, module in list(sys.modules.items()):
        if name.startswith("lensai_integrations.") and module is not namespaces:
            for function, replaced in ((true_local, local), (true_is_host, is_host)):
                if getattr(module, function.__name__, None) is function:
                    monkeypatch.setattr(module, function.__name__, replaced)
