"""What was measured of a batch, on its way to the sketches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from libraries import IMMUTABLE, as_if_elsewhere, maker

from lensai_integrations.arrays.namespaces import is_immutable
from lensai_integrations.errors import InputError
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.profiling import measuring
from lensai_integrations.profiling.measuring import (
    Measured,
    class_labels,
    column,
    embedding_measurer,
    image_measurer,
    reduced,
)


@pytest.mark.parametrize("library", IMMUTABLE)
def test_measured_batches_fly_and_land(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    measured = Measured({"a": maker(library)(np.float32([[1.0]]))}, {"b": np.arange(2), "c": ["text"]})
    assert measured.in_flight
    landed = measured.sent().landed()
    assert not landed.in_flight
    assert not is_immutable(landed.rows["a"])
    assert (landed.rows["a"].tolist(), landed.rest["b"].tolist(), landed.rest["c"]) == ([[1.0]], [0, 1], ["text"])


def test_numpy_and_torch_do_not_fly():
    measured = Measured({"a": torch.ones(2, 1)}, {"b": np.arange(2), "c": ["text"]})
    assert not measured.in_flight
    assert measured.landed().rows["a"] is measured.rows["a"]


@pytest.mark.parametrize("library", IMMUTABLE)
def test_pixels_come_as_bytes_in_host_memory_and_as_counts_elsewhere(library, monkeypatch):
    images = maker(library)(np.full((2, 6, 5, 3), 7, np.uint8))
    measure = image_measurer(ImageInputs(layout="NHWC", scale=1), "lensai")
    assert measure(images)["lensai"]["pixels"].shape == (2, 3, 6, 5)
    as_if_elsewhere(monkeypatch)
    found = measure(images)["lensai"]
    assert set(found) == {"rows", "counts"}
    assert np.asarray(found["counts"])[:, 7].tolist() == [60, 60, 60]


def test_what_measures_is_made_once():
    """Tracing and drawing take seconds, and recorders are made anew at every epoch."""
    assert embedding_measurer("mean", False, 16) is embedding_measurer("mean", False, 16)
    assert measuring.projection(99, 16) is measuring.projection(99, 16)


def test_embeddings_come_reduced_or_not_but_not_half_known():
    maps = np.random.default_rng(0).normal(size=(3, 4, 5, 6))
    assert reduced(maps, "mean", channels_last=True).shape == (3, 6)
    assert reduced(maps, "mean", channels_last=False).shape == (3, 4)
    assert reduced(maps[:, 0, 0], "mine", channels_last=False).shape == (3, 6)
    with pytest.raises(InputError, match="reduced by the function mine"):
        reduced(maps, "mine", channels_last=False)


def test_labels_are_one_for_each_image():
    assert class_labels(np.eye(3)[[2, 0]])[0].tolist() == [2, 0]
    assert class_labels(torch.tensor([[4], [5]]))[0].tolist() == [4, 5]
    assert class_labels(np.array([b"a", b"b"]))[0] == ["a", "b"]
    assert column(np.array([3])).dtype == np.float32
    with pytest.raises(InputError, match="one label per image"):
        class_labels(np.zeros((2, 3, 3)))
