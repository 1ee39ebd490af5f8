"""What is sent lands beside what it was sent for, as a copy, and without waiting."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lensai_integrations.arrays.namespaces import joined, send, together, unfilled


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


def test_what_is_made_in_inference_mode_can_be_written_to_outside_of_it():
    with torch.inference_mode():
        like = torch.ones(2)
        arrays = [send(np.zeros(2, np.float32), like), unfilled((2,), "float32", like)]
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
