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
    landed = measured.kept().landed()
    assert not landed.in_flight
    assert not is_immutable(landed.rows["a"])
    assert (landed.rows["a"].tolist(), landed.rest["b"].tolist(), landed.rest["c"]) == ([[1.0]], [0, 1], ["text"])


def test_numpy_and_torch_do_not_fly():
    measured = Measured({"a": torch.ones(2, 1)}, {"b": np.arange(2), "c": ["text"]})
    assert not measured.in_flight
    assert measured.landed().rows["a"] is measured.rows["a"]


@pytest.mark.parametrize("library", IMMUTABLE)
def test_pixels_come_as_counts(library, monkeypatch):
    images = maker(library)(np.full((2, 6, 5, 3), 7, np.uint8))
    measure = image_measurer(ImageInputs(layout="NHWC", scale=1), "lensai")
    here = measure(images)["lensai"]
    as_if_elsewhere(monkeypatch)
    for measured in (here, measure(images)["lensai"]):
        assert set(measured) == {"rows", "counts", "counted"}
        assert int(measured["counted"]) == 2
        assert np.asarray(measured["counts"])[:, 7].tolist() == [60, 60, 60]


def test_pixels_are_counted_of_the_images_that_are_valid_in_host_memory():
    images = np.full((3, 6, 5, 3), 0.5, np.float32)
    images[1, 0, 0, 0] = np.nan
    for n, batch in ((2, images), (0, images[1:2]), (0, images[:0])):
        measured = image_measurer(ImageInputs(layout="NHWC", scale=255), "lensai")(batch)["lensai"]
        assert (measured["counted"], measured["counts"].sum()) == (n, n * 90)


BATCHES = {
    "rows and counts": lambda n: Measured({"inputs": np.full((n, 2), n, np.float32)}, {"counts": np.full((3, 256), n)}),
    "counted images": lambda n: Measured({"inputs": np.zeros((n, 2))}, {"counts": np.full((3, 256), n), "counted": 1}),
    "on a device": lambda n: Measured(
        {"inputs": torch.full((n, 2), n)}, {"counts": torch.full((3, 256), n), "counted": torch.tensor(n)}
    ),
    "categories": lambda n: Measured(
        {"labels": np.zeros((n, 1))}, {"categories/": np.arange(n), "odd": np.arange(n) > 1}
    ),
    "texts": lambda n: Measured({}, {"categories/": ["cat"] * n}),
    "several": lambda n: Measured({}, {"categories/": np.ones((n, 4), bool), "rows": np.ones((n, 1))}),
}


@pytest.mark.parametrize("make", BATCHES.values(), ids=BATCHES)
def test_batches_together_are_one_with_all_their_rows(make):
    batches = [make(n) for n in (2, 3, 1)]
    together = Measured.together(batches)
    assert (together.n, [batch.n for batch in batches]) == (6, [2, 3, 1])
    assert together.kind == batches[0].kind
    assert Measured.together(batches[:1]) is batches[0]
    for of in ("rows", "rest"):
        for name, value in getattr(together, of).items():
            parts = [getattr(batch, of)[name] for batch in batches]
            if name in ("counts", "counted"):
                np.testing.assert_array_equal(value, sum(map(np.asarray, parts)))
            else:
                np.testing.assert_array_equal(value, np.concatenate(parts))


def test_counts_of_int32_do_not_overflow_together():
    batch = Measured({"inputs": np.zeros((1, 2))}, {"counts": np.full((3, 256), 2**31 - 1, np.int32)})
    assert Measured.together([batch, batch]).rest["counts"].max() == 2 * (2**31 - 1)


@pytest.mark.parametrize(
    "other",
    [
        Measured({"a": np.zeros((2, 3), np.float32)}),
        Measured({"a": np.zeros((2, 2))}),
        Measured({"a": torch.zeros(2, 2)}),
        Measured({"b": np.zeros((2, 2), np.float32)}),
        Measured({}, {"a": ["text"]}),
    ],
    ids=["wider", "dtype", "library", "name", "texts"],
)
def test_batches_of_other_forms_are_of_another_kind(other):
    assert other.kind != Measured({"a": np.zeros((5, 2), np.float32)}).kind


def test_what_is_kept_is_in_no_memory_that_is_used_again():
    for array in (np.zeros((2, 3)), torch.zeros(2, 3)):
        other = array + 1
        kept = Measured({"a": array, "b": other}, {"c": array, "d": other}, views=("a", "c")).kept()
        array[:] = 7
        assert [float(values.max()) for values in (kept.rows["a"], kept.rest["c"])] == [0.0, 0.0]
        assert kept.rows["b"] is other
        assert kept.rest["d"] is other
        assert kept.kept() is kept


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
