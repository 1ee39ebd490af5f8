"""Steps on torch: images are copied to where the model computes, wherever a loader has left them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.backend("torch")

if keras.backend.backend() == "torch":
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from lensai_integrations.keras import BaselineCallback, steps_torch

N, SIDE, CLASSES = 24, 8, 3


@pytest.fixture
def device(monkeypatch):
    """`device(name)`: Keras moves everything there, as to a GPU."""
    return lambda name: monkeypatch.setattr(steps_torch, "torch_device", lambda: torch.device(name))


def picked():
    return {"inputs": torch.rand(4, SIDE, SIDE, 3), "labels": torch.zeros(4), "inputs/left": np.zeros((4, 8, 8, 3))}


def test_images_are_moved_and_labels_are_not(device):
    device("meta")
    copies = steps_torch.copies_of(picked())

    assert {key: values.device.type for key, values in copies.items()} == {
        "inputs": "meta", "inputs/left": "meta", "labels": "cpu"
    }  # fmt: skip
    assert copies["inputs"].shape == (4, SIDE, SIDE, 3)


def test_on_a_cpu_there_is_one_copy_as_ever(device):
    device("cpu")
    batch = picked()
    copies = steps_torch.copies_of(batch)

    assert isinstance(copies["inputs/left"], np.ndarray)
    for key, values in copies.items():
        assert not np.shares_memory(np.asarray(values), np.asarray(batch[key]))
        np.testing.assert_array_equal(values, batch[key])


def test_images_on_an_accelerator_are_copied_there(device):
    device("cuda:0")
    images = torch.empty(2, SIDE, SIDE, 3, device="meta")
    copied = steps_torch.copies_of({"inputs": images})["inputs"]

    assert copied.device.type == "meta"
    assert copied is not images


def test_what_cannot_be_moved_is_measured_where_it_is(device):
    device("cuda:7")  # there is none
    batch = picked()
    copies = steps_torch.copies_of(batch)

    assert copies["inputs"].device.type == "cpu"
    assert torch.equal(copies["inputs"], batch["inputs"])


@pytest.mark.parametrize("there", [False, True])
def test_a_torch_loaders_images_reach_the_profiler_where_the_model_computes(there, monkeypatch, tmp_path):
    """The move of a batch to a GPU, seen as the call of `Tensor.to` that it is."""
    moved, move = [], torch.Tensor.to

    def to(tensor, *where, **how):
        if how.get("non_blocking"):
            moved.append((tuple(tensor.shape), str(where[0])))
            return tensor.clone()
        return move(tensor, *where, **how)

    if there:
        monkeypatch.setattr(torch.Tensor, "to", to)
        monkeypatch.setattr(steps_torch, "torch_device", lambda: torch.device("cuda:0"))
    images, labels = torch.rand(N, SIDE, SIDE, 3), torch.randint(CLASSES, (N,))
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callback = BaselineCallback(directory=tmp_path)
    loader = DataLoader(TensorDataset(images, labels), 8)
    model.fit(loader, validation_data=loader, shuffle=False, verbose=0, callbacks=[callback])

    reference = callback.baseline_.reference
    assert {name: group.n for name, group in reference.groups.items()} == dict.fromkeys(reference.groups, N)
    bins = torch.floor(images * 255 + 0.5).to(torch.uint8).numpy()
    expected = [np.bincount(bins[..., channel].ravel(), minlength=256) for channel in range(3)]
    np.testing.assert_array_equal(reference.groups["inputs"].pixels.counts, expected)
    assert moved == ([((8, SIDE, SIDE, 3), "cuda:0")] * 6 if there else [])
