"""Arrays of different libraries meet in one place: views where possible, errors that say what to pass."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker, traced

from lensai_integrations.arrays import namespaces
from lensai_integrations.arrays.namespaces import (
    dtype_name,
    is_array,
    is_host,
    is_immutable,
    is_symbolic,
    local,
    namespace,
    shape_of,
    start_copy,
    strings,
    to_host,
)
from lensai_integrations.errors import InputError


def test_a_host_tensor_is_viewed_not_copied() -> None:
    tensor = torch.zeros(3)
    view = local(tensor)
    tensor[0] = 7.0
    assert isinstance(view, np.ndarray)
    assert view[0] == 7.0


def test_a_tensor_that_wants_gradients_is_detached() -> None:
    tensor = torch.ones(2, requires_grad=True)
    np.testing.assert_array_equal(local(tensor * 2), [2.0, 2.0])


def test_a_list_of_tensors_is_one_array_where_they_lie() -> None:
    rows = [torch.ones(2, requires_grad=True) * 2, torch.zeros(2)]
    np.testing.assert_array_equal(local(rows), [[2.0, 2.0], [0.0, 0.0]])
    elsewhere = local([row.to("meta") for row in rows])
    assert (elsewhere.device.type, tuple(elsewhere.shape)) == ("meta", (2, 2))


def test_bfloat16_is_widened() -> None:
    result = local(torch.tensor([1.5, -2.0], dtype=torch.bfloat16))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, [1.5, -2.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int32, torch.uint8, torch.bool])
def test_other_dtypes_are_kept(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0, 1]).to(dtype)
    np.testing.assert_array_equal(local(tensor), tensor.tolist())


def test_a_negated_view_is_resolved() -> None:
    tensor = torch.tensor([1 + 2j]).conj().imag  # a lazily negated view
    assert tensor.is_neg()
    np.testing.assert_array_equal(local(tensor), [-2.0])


def test_a_tensor_elsewhere_stays_where_it_is() -> None:
    tensor = torch.zeros(2, device="meta", requires_grad=True)
    assert not is_host(tensor)
    assert local(tensor).device.type == "meta"
    assert not local(tensor).requires_grad


@pytest.mark.parametrize("value", [object(), "text", [None], {"a": 1}])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="expected an array of numbers, got"):
        local(value)


def test_lists_become_arrays() -> None:
    assert to_host([1, 2]).tolist() == [1, 2]


def test_both_libraries_get_a_namespace() -> None:
    assert namespace(np.zeros(1)).__name__ == "array_api_compat.numpy"
    assert namespace(torch.zeros(1)).__name__ == "array_api_compat.torch"


FLYING = pytest.mark.parametrize("library", IMMUTABLE)
EXACT = ["bool", "uint8", "int32", "float16", "float32", "bfloat16"]


@FLYING
@pytest.mark.parametrize("dtype", EXACT)
def test_other_libraries_in_host_memory_become_numpy(library: str, dtype: str) -> None:
    array = of_dtype(library, maker(library)(np.float32([[0, 1], [1, 0]])), dtype)
    assert is_host(array)
    assert is_immutable(array)
    assert dtype_name(array) == dtype
    result = local(array)
    assert result.dtype == ("float32" if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(result, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(to_host(array), result)


@FLYING
def test_they_are_viewed_not_copied_and_outlive_their_owner(library: str) -> None:
    array = maker(library)(np.arange(1000, dtype=np.float32))
    one, other = local(array), local(array)
    assert one.ctypes.data == other.ctypes.data
    assert not one.flags.writeable
    del array, other
    np.testing.assert_array_equal(one, np.arange(1000))


@FLYING
def test_as_if_elsewhere_they_stay_what_they_are(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_if_elsewhere(monkeypatch)
    array = maker(library)(np.float32([1, 2]))
    assert not namespaces.is_host(array)
    assert local(array) is array
    np.testing.assert_array_equal(to_host(start_copy(array)), [1, 2])


@FLYING
def test_what_is_traced_has_no_values_and_stays(library: str) -> None:
    seen = []

    def look(array: object) -> object:
        seen.append((is_symbolic(array), is_host(array), local(array) is array, shape_of(array)))
        return array

    array = maker(library)(np.float32([[1, 2, 3]]))
    traced(library, look, array)
    assert seen == [(True, False, True, (1, 3))]
    assert not is_symbolic(array)


def test_an_open_length_of_tensorflow_is_minus_one() -> None:
    maker("tensorflow")
    import tensorflow as tf

    seen = []
    signature = [tf.TensorSpec((None, 3))]
    tf.function(lambda x: seen.append(shape_of(x)), input_signature=signature, autograph=False)(np.zeros((2, 3)))
    assert seen == [(-1, 3)]


@pytest.mark.slow
def test_an_array_in_parts_on_several_host_devices_is_gathered() -> None:
    maker("jax")
    program = """
import jax, numpy as np
from lensai_integrations.arrays.namespaces import is_host, local
parts = jax.device_put(np.arange(8.0), jax.NamedSharding(jax.make_mesh((2,), ("x",)), jax.P("x")))
assert len(parts.devices()) == 2 and is_host(parts)
assert local(parts).tolist() == list(range(8))
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | flags)


def test_what_several_processes_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    array = maker("jax")(np.float32([1, 2]))
    monkeypatch.setattr(type(array), "is_fully_addressable", False)
    with pytest.raises(InputError, match="addressable_shards"):
        to_host(array)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        (np.array([["ä"], ["b"]]), ["ä", "b"]),
        (np.array(["ä".encode(), b"b"]), ["ä", "b"]),
        (np.array([b"a", "b"], object), ["a", "b"]),
        (np.array(["a", None], object), None),
        (np.array([], np.str_), None),
        ([1, 2], None),
        ([], None),
        (np.zeros(2), None),
        (torch.zeros(2), None),
    ],
)
def test_strings_are_told_from_numbers(given: object, expected: object) -> None:
    assert strings(given) == expected


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InputError, match="UTF-8"):
        strings(np.array([b"\xff"]))


def test_strings_of_tensorflow_are_text() -> None:
    make = maker("tensorflow")
    assert strings(make(np.array(["cat", "dög", ""]))) == ["cat", "dög", ""]
    assert strings(make(np.array([b"ends in zero\x00"], object))) == ["ends in zero\x00"]
    assert strings(make(np.zeros(2))) is None


@pytest.mark.parametrize("library", LIBRARIES)
def test_arrays_are_arrays_in_every_library(library: str) -> None:
    array = maker(library)(np.float32([1, 2]))
    assert is_array(array)
    assert is_immutable(array) == (library in IMMUTABLE)
    assert shape_of(array) == (2,)
    assert namespace(array).isdtype(array.dtype, "real floating")
    assert not is_array([array])


def of_dtype(library: str, array: object, dtype: str) -> object:
    if library == "jax":
        return array.astype(dtype)  # type: ignore[attr-defined]
    import tensorflow

    return tensorflow.cast(array, dtype)
