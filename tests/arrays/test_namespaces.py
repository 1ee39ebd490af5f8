"""Arrays of different libraries meet in one place: views where possible, errors that say what to pass."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker, traced
from torch._subclasses.fake_tensor import FakeTensorMode

from lensai_integrations.arrays import namespaces
from lensai_integrations.arrays.namespaces import (
    Compiled,
    dtype_name,
    full_beside,
    is_array,
    is_host,
    is_immutable,
    is_symbolic,
    joined,
    kept_beside,
    local,
    namespace,
    send,
    shape_of,
    start_copy,
    strings,
    to_host,
    together,
    unfilled,
    zeros_beside,
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


# One dispatch where the library offers that, the function as it is everywhere else.


class Summed:
    """Counts how often it is called, and remembers whether with values."""

    def __init__(self):
        self.symbolic = []

    def __call__(self, array):
        self.symbolic.append(is_symbolic(array))
        return {"sum": namespace(array).sum(array, axis=0), "two": (array, array * 2)}


@pytest.mark.parametrize("library", IMMUTABLE)
def test_elsewhere_it_is_traced_once_for_each_shape(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    function = Summed()
    together, make = Compiled(function), maker(library)
    for n in (3, 4, 3, 4):
        found = together(make(np.ones((n, 2), np.float32)))
        assert to_host(found["sum"]).tolist() == [n, n]
        assert to_host(found["two"][1]).shape == (n, 2)
    assert function.symbolic == [True, True]


@pytest.mark.parametrize("library", LIBRARIES)
def test_in_host_memory_it_is_called_as_it_is(library):
    function = Summed()
    array = maker(library)(np.ones((3, 2), np.float32))
    assert to_host(Compiled(function)(array)["sum"]).tolist() == [3, 3]
    assert function.symbolic == [False]


@pytest.mark.parametrize("library", IMMUTABLE)
def test_inside_what_is_traced_it_is_a_part_of_that(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    function = Summed()
    found = traced(library, Compiled(function), maker(library)(np.ones((3, 2), np.float32)))
    assert to_host(found["sum"]).tolist() == [3, 3]
    assert function.symbolic == [True]


@pytest.mark.filterwarnings("error")
def test_tensorflow_traces_a_few_shapes_and_runs_the_others_step_by_step(monkeypatch, caplog):
    as_if_elsewhere(monkeypatch)
    monkeypatch.setattr(namespaces, "_MOST_SHAPES", 8)
    function, make = Summed(), maker("tensorflow")
    together = Compiled(function)
    for n in range(1, 12):
        found = together(make(np.ones((n, 2), np.float32)))
        assert is_immutable(found["sum"])
        assert to_host(found["sum"]).tolist() == [n, n]
    assert function.symbolic == [True] * 8 + [False] * 3
    assert "retracing" not in caplog.text


@pytest.mark.parametrize("library", IMMUTABLE)
def test_a_function_that_reads_a_value_is_refused(library, monkeypatch):
    """What is traced cannot wait: this is how everything that is compiled is known not to."""
    as_if_elsewhere(monkeypatch)
    with pytest.raises(Exception, match=r"(?i)tracer|symbolic|not allowed|numpy|eager"):
        Compiled(to_host)(maker(library)(np.ones(3, np.float32)))


# What is sent lands beside what it was sent for, as a copy, and without waiting.


def test_numpy_stays_numpy_and_is_not_copied():
    array = np.arange(3.0)
    assert send(array, like=np.zeros(1)) is array


def test_beside_a_tensor_it_becomes_a_tensor_that_shares_no_memory():
    array = np.arange(3)
    tensor = send(array, like=torch.zeros(1))
    array[0] = 7
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.int64
    assert tensor.tolist() == [0, 1, 2]


def test_read_only_arrays_are_sent_without_a_warning():
    array = np.arange(3.0)
    array.setflags(write=False)
    assert send(array, like=torch.zeros(1)).tolist() == [0.0, 1.0, 2.0]


def test_float64_is_narrowed_for_apples_gpus_and_nothing_else_is(monkeypatch):
    sent = []
    fake = SimpleNamespace(device=SimpleNamespace(type="mps"))
    library = SimpleNamespace(
        from_numpy=lambda array: SimpleNamespace(to=lambda *_, **__: sent.append(array.dtype)),
        inference_mode=torch.inference_mode,
    )
    monkeypatch.setattr("lensai_integrations.arrays.namespaces.namespace", lambda _: library)
    for dtype in (np.float64, np.int64, np.float32):
        send(np.zeros(1, dtype), like=fake)
    assert sent == [np.float32, np.int64, np.float32]


def test_what_goes_to_a_cuda_device_goes_through_page_locked_memory(monkeypatch):
    staged = []

    def empty(shape, *, dtype, device, pin_memory):
        assert (device, pin_memory) == ("cpu", True)
        staged.append(torch.empty(shape, dtype=dtype))
        return staged[-1]

    library = SimpleNamespace(empty=empty, inference_mode=torch.inference_mode, float32=torch.float32)
    monkeypatch.setattr(namespaces, "namespace", lambda _: library)
    monkeypatch.setattr(namespaces, "_stages", lambda _: True)
    array = np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1]
    array.setflags(write=False)
    assert send(array, like=torch.zeros(1)).tolist() == array.tolist() == staged[0].tolist()
    real = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    monkeypatch.undo()
    assert namespaces._stages(real)


def test_fake_tensors_have_no_page_locked_memory(accelerator):
    assert not namespaces._stages(accelerator((1,)))


def test_what_is_full_of_one_number_is_filled_where_it_is_for():
    for like in (np.zeros(1), torch.zeros(1)):
        assert full_beside((2,), np.inf, "float32", like).tolist() == [np.inf, np.inf]
        assert zeros_beside((2, 1), "float64", like).tolist() == [[0.0], [0.0]]
        assert dtype_name(zeros_beside((2, 1), "float64", like)) == "float64"


def test_what_is_filled_on_an_accelerator_is_sent_there_by_nothing(accelerator, monkeypatch):
    monkeypatch.setattr(namespaces, "send", None)
    there = zeros_beside((2,), "int64", accelerator((1,)))
    assert (there.device.type, there.dtype, tuple(there.shape)) == ("cuda", torch.int64, (2,))


def test_a_constant_is_made_once_for_each_device_and_the_oldest_goes(monkeypatch):
    monkeypatch.setattr(namespaces, "_kept", OrderedDict())
    made = []

    def constant(number):
        return kept_beside(
            ("number", number), lambda: made.append(number) or np.full(100, float(number)), torch.ones(1)
        )

    assert constant(1) is constant(1)
    assert constant(1).tolist() == [1.0] * 100
    kept_beside(("number", 1), lambda: made.append("elsewhere") or np.ones(100), torch.ones(1, device="meta"))
    assert made == [1, "elsewhere"]
    monkeypatch.setattr(namespaces, "_KEPT_BYTES", 2 * constant(1).nbytes)
    for number in (2, 1, 3, 1, 2):
        constant(number)
    assert made == [1, "elsewhere", 2, 3, 2]


def test_in_host_memory_no_constant_is_kept(monkeypatch):
    monkeypatch.setattr(namespaces, "_kept", OrderedDict())
    assert kept_beside("a", lambda: np.zeros(2), np.zeros(1)).shape == (2,)
    assert not namespaces._kept


def test_constants_of_one_fake_mode_are_not_those_of_another(monkeypatch):
    monkeypatch.setattr(namespaces, "_kept", OrderedDict())
    constants = []
    for _ in range(2):
        with FakeTensorMode():
            like = torch.zeros(1, device="cuda")
            constants += [kept_beside("a", lambda: np.zeros(2, np.float32), like) for _ in range(2)]
            assert (constants[-1] + like).device.type == "cuda"
    assert constants[0] is constants[1]
    assert constants[2] is constants[3]
    assert constants[1] is not constants[2]
    assert not namespaces._kept


def test_what_is_made_in_inference_mode_can_be_written_to_outside_of_it():
    with torch.inference_mode():
        like = torch.ones(2)
        arrays = [send(np.zeros(2, np.float32), like), unfilled((2,), "float32", like)]
        arrays += [zeros_beside((2,), "float32", like)]
    for array in arrays:
        array[:] = like
        assert array.tolist() == [1.0, 1.0]


def test_unfilled_has_shape_and_dtype_and_is_beside_what_it_is_for(accelerator):
    assert isinstance(unfilled((2, 3), "float64", np.zeros(1)), np.ndarray)
    assert unfilled((2, 3), "float64", np.zeros(1)).dtype == np.float64
    tensor = unfilled((2, 3), "float32", accelerator((1,)))
    assert (tensor.shape, tensor.dtype, tensor.device.type) == ((2, 3), torch.float32, "cuda")


def test_together_moves_whichever_is_on_the_host_to_the_tensor():
    for a, b in ((np.zeros(2), torch.ones(2)), (torch.zeros(2), np.ones(2)), (torch.zeros(2), torch.ones(2))):
        held, rows = together(a, b)
        assert isinstance(held, torch.Tensor)
        assert isinstance(rows, torch.Tensor)
        assert (held.tolist(), rows.tolist()) == ([0.0, 0.0], [1.0, 1.0])
    held, rows = together(np.zeros(2), np.ones(2))
    assert isinstance(held, np.ndarray)
    assert isinstance(rows, np.ndarray)


def test_joined_is_a_tensor_if_any_part_is_one():
    assert isinstance(joined([np.zeros((1, 2)), np.ones((2, 2))]), np.ndarray)
    mixed = joined([np.zeros((1, 2)), torch.ones((2, 2), dtype=torch.float64)])
    assert isinstance(mixed, torch.Tensor)
    assert mixed.tolist() == [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]


def test_sending_to_an_accelerator_never_waits(accelerator):
    like = accelerator((1,))
    assert send(np.arange(3), like).device == like.device
    assert [a.device for a in together(np.zeros(2, np.float32), like)] == [like.device, like.device]
    assert joined([np.zeros(2, np.float32), like, like]).shape == (4,)


WAITING = {
    "item": lambda x: x[0, 0].item(),
    "bool": lambda x: bool(x.sum() > 0),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "mask": lambda x: x[x > 0],
    "assigned mask": lambda x: x.__setitem__(x > 0, torch.zeros(5, device="cuda")),
    "scalar index": lambda x: x[:, torch.zeros((), dtype=torch.int64, device="cuda")],
    "blocking copy": lambda x: torch.from_numpy(np.zeros(3)).to(x.device),
    "pageable copy": lambda x: torch.from_numpy(np.zeros(3)).to(x.device, non_blocking=True),
    "list to device": lambda x: torch.tensor([1.0], device=x.device),
    "other device": lambda x: x + torch.zeros(3),
    "bincount": lambda x: torch.bincount(x[:, 0].to(torch.int64)),
    "histc": torch.histc,
    "unique": torch.unique,
}


@pytest.mark.parametrize("name", WAITING)
def test_the_accelerator_of_these_tests_objects_to_being_waited_for(accelerator, name):
    with pytest.raises((AssertionError, RuntimeError)):
        WAITING[name](accelerator((4, 3)))
