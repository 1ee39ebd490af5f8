"""Batches of JAX and TensorFlow: the same profile as numpy's, and nothing waited for while batches come in."""

from __future__ import annotations

import numpy as np
import pytest
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker
from profiles import CLASSES, WIDTH, batch

from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.arrays import namespaces
from lensai_integrations.errors import InputError
from lensai_integrations.profiling import profiler
from lensai_integrations.profiling.recorders import Inputs

PLACES = pytest.mark.parametrize("elsewhere", [False, True], ids=["host", "elsewhere"])
LIBRARY = pytest.mark.parametrize("library", LIBRARIES)
FLYING = pytest.mark.parametrize("library", IMMUTABLE)


def as_library(make, one):
    """A generated batch with every array made by the library."""
    embeddings = {name: make(rows) for name, rows in one["embeddings"].items()}
    labels = make(one["labels"].astype(np.int32))
    return {"inputs": make(one["inputs"]), "outputs": make(one["outputs"]), "embeddings": embeddings, "labels": labels}


def batches(make=np.asarray, count=12, n=24, **changes):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield as_library(make, batch(rng, n)) | changes


def assert_same_profile(found, expected):
    assert list(found.groups) == list(expected.groups)
    assert (found.n, found.warnings) == (expected.n, expected.warnings)
    for name, group in found.groups.items():
        other = expected.groups[name]
        assert (group.n, group.streams, group.definitions) == (other.n, other.streams, other.definitions)
        if group.bank is not None:
            ranks = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
            np.testing.assert_allclose(group.bank.quantiles(ranks), other.bank.quantiles(ranks), rtol=2e-5, atol=2e-3)
        if group.moments is not None:
            np.testing.assert_allclose(group.moments.mean, other.moments.mean, rtol=1e-4, atol=1e-5)
        for key, categories in group.categories.items():
            assert categories.top(9) == other.categories[key].top(9)
        if other.pixels is not None:
            assert np.array_equal(group.pixels.counts, other.pixels.counts)
            assert group.pixels.n == other.pixels.n
    assert found.rows.n == expected.rows.n
    for name, rows in expected.rows.data.items():
        np.testing.assert_allclose(found.rows.data[name], rows, rtol=2e-5, atol=2e-3, err_msg=name)


@PLACES
@LIBRARY
@pytest.mark.parametrize("count", [1, 9, 30])
def test_every_library_gives_the_same_profile(library, elsewhere, count, monkeypatch):
    make, whole = maker(library), Profiler(seed=1, rows=50)
    for one in batches(count=count):
        whole.update(**one)
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    other = Profiler(seed=1, rows=50)
    for one in batches(make, count=count):
        other.update(**one)
    assert other.n == whole.n == 24 * count  # known before anything has landed
    assert_same_profile(other.profile(), whole.profile())


@PLACES
@FLYING
@pytest.mark.parametrize("convention", ["lensai", "lensai-edge"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "full"])
def test_images_of_any_kind_give_the_same_quantiles(library, elsewhere, convention, dtype, monkeypatch):
    make, rng = maker(library), np.random.default_rng(3)
    profiles = []
    images = [rng.integers(0, 256, (16, 9, 7, 3), dtype=np.uint8) for _ in range(3)]
    images = [
        each if dtype == "uint8" else each.astype(np.float32) / (1 if dtype == "full" else 255) for each in images
    ]
    for library_of in (np.asarray, make):
        if library_of is make and elsewhere:
            as_if_elsewhere(monkeypatch)
        each = Profiler(seed=2, convention=convention)
        for one in images:
            each.update(inputs={"image": (library_of(one),), "other": 1})
        profiles.append(each.profile())
    name = "inputs" if convention == "lensai" else "inputs/lensai-edge"
    assert profiles[0].groups[name].info == profiles[1].groups[name].info
    assert_same_profile(profiles[1], profiles[0])


@FLYING
def test_no_update_reads_a_value_before_others_have_followed(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    make, read, taken = maker(library), [], []
    monkeypatch.setattr(namespaces, "_as_numpy", lambda array, real=namespaces._as_numpy: read.append(1) or real(array))
    monkeypatch.setattr(Inputs, "take", lambda self, one, real=Inputs.take: taken.append(1) or real(self, one))
    one = Profiler(inputs=ImageInputs(layout="NHWC", scale=1, kind="uint8"), task="logits")
    counts = []
    for each in batches(make, count=2 * profiler._IN_FLIGHT + 2):
        one.update(**each)
        counts.append((len(read) > 0, len(taken)))
    waits = profiler._IN_FLIGHT
    assert counts[:waits] == [(False, 0)] * waits
    assert counts[waits:] == [(True, waits)] * waits + [(True, 2 * waits)] * 2
    one.profile()
    assert len(taken) == one.profile().groups["inputs"].n / 24 == 2 * waits + 2


@FLYING
def test_profiles_between_batches_hold_all_of_them(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    one, expected = Profiler(seed=1, rows=50), Profiler(seed=1, rows=50)
    for number, (each, plain) in enumerate(zip(batches(maker(library), 4), batches(count=4), strict=True), 1):
        one.update(**each)
        expected.update(**plain)
        assert one.profile().groups["outputs"].n == 24 * number
    assert_same_profile(one.profile(), expected.profile())


@FLYING
def test_reset_forgets_what_has_not_landed(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    one = Profiler()
    for each in batches(maker(library), 2):
        one.update(**each)
    one.reset()
    assert (one.n, one.profile().groups) == (0, {})


@FLYING
def test_groups_of_several_libraries_stay_joint(library, monkeypatch):
    """Images and labels come from the host, the outputs from the accelerator; host memory is used again at once."""
    as_if_elsewhere(monkeypatch)
    make, mixed, expected = maker(library), Profiler(seed=1, rows=80), Profiler(seed=1, rows=80)
    for one in batches(count=12):
        expected.update(**one)
        memory = {"inputs": one["inputs"].copy(), "labels": one["labels"].copy()}
        embedding = one["embeddings"]["avgpool"].copy()
        mixed.update(**memory, outputs=make(one["outputs"]), embeddings={"avgpool": embedding})
        for used_again in (*memory.values(), embedding):
            used_again[...] = 0
    assert_same_profile(mixed.profile(), expected.profile())


@FLYING
def test_a_batch_from_the_host_follows_those_in_flight(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    make, mixed, expected = maker(library), Profiler(seed=1, rows=20), Profiler(seed=1, rows=20)
    for number, one in enumerate(batches(count=10)):
        expected.update(**one)
        mixed.update(**(as_library(make, one) if number % 3 else one))
    assert_same_profile(mixed.profile(), expected.profile())


@PLACES
@FLYING
def test_rows_that_are_not_finite_are_left_out(library, elsewhere, monkeypatch):
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    one = batch(np.random.default_rng(0), 30)
    one["embeddings"]["avgpool"][3, 5] = np.nan
    one["outputs"][:2] = np.inf
    single = Profiler()
    single.update(**as_library(maker(library), one))
    profile = single.profile()
    assert profile.groups["outputs"].n == 28
    assert profile.groups["outputs"].categories["top_class"].n == 28
    assert profile.groups["embeddings/avgpool"].invalid == 1
    assert np.isnan(profile.rows.data["outputs"]).all(axis=1).sum() == 2


@FLYING
def test_with_a_handler_the_other_groups_go_on(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    seen = []
    one = Profiler(on_error=lambda name, error: seen.append(name))
    good, wrong, again = batches(maker(library), 3)
    one.update(**good)
    one.update(**(wrong | {"outputs": maker(library)(np.zeros((24, 5, 7, 7), np.float32))}))
    one.update(**again)
    profile = one.profile()
    assert seen == ["outputs"]
    assert (profile.groups["inputs"].n, profile.groups["outputs"].n) == (72, 48)
    assert np.isnan(profile.rows.data["outputs"]).all(axis=1).sum() == 24


@FLYING
@pytest.mark.parametrize("late", [False, True])
def test_what_fails_when_it_has_landed_costs_its_own_group_only(library, late, monkeypatch):
    as_if_elsewhere(monkeypatch)
    seen, real, calls = [], Inputs.take, []

    def sometimes(self, measured):
        calls.append(1)
        if late and len(calls) == 1:
            return real(self, measured)
        raise RuntimeError("injected")

    monkeypatch.setattr(Inputs, "take", sometimes)
    one = Profiler(on_error=lambda name, error: seen.append(name))
    for each in batches(maker(library), 3):
        one.update(**each)
    profile = one.profile()
    assert set(seen) == {"inputs"}
    assert profile.groups["outputs"].n == 72
    assert ("inputs" in profile.groups) == late
    assert any("injected" in warning for warning in profile.warnings)


@FLYING
def test_without_a_handler_it_is_raised(library, monkeypatch):
    as_if_elsewhere(monkeypatch)

    def fails(*_):
        raise RuntimeError("injected")

    monkeypatch.setattr(Inputs, "take", fails)
    one = Profiler()
    one.update(**next(batches(maker(library))))
    with pytest.raises(RuntimeError, match="injected"):
        one.profile()


@FLYING
def test_unequal_groups(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    make = maker(library)
    each = next(batches(make))
    with pytest.raises(InputError, match="different numbers of rows"):
        Profiler().update(**(each | {"outputs": make(np.full((7, CLASSES), 9, np.float32))}))
    one = Profiler(on_error=lambda *_: None)
    one.update(**(each | {"outputs": make(np.eye(CLASSES, dtype=np.float32) * 9 - 1)}))
    profile = one.profile()
    assert (profile.n, profile.groups["outputs"].n) == (24, CLASSES)
    assert "outputs" not in profile.rows.data


@PLACES
@FLYING
def test_labels_of_many_forms(library, elsewhere, monkeypatch):
    make = maker(library)
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    for labels in (np.int32([2, 0, 2]), np.int32([[2], [0], [2]]), np.eye(3, dtype=np.float32)[[2, 0, 2]]):
        one = Profiler()
        one.update(labels=make(labels))
        assert one.profile().groups["labels"].categories[""].top(3) == [("2", 2), ("0", 1)]
    one = Profiler()
    one.update(labels=make(np.float32([0.5, 2.5])))
    assert one.profile().groups["labels"].bank.max.tolist() == [2.5]


def test_strings_of_tensorflow_are_labels():
    maker("tensorflow")
    import tensorflow as tf

    one = Profiler()
    one.update(labels=tf.constant([["cat"], ["dög"], ["cat"]]))
    assert one.profile().groups["labels"].categories[""].top(3) == [("cat", 2), ("dög", 1)]


@PLACES
@FLYING
def test_maps_are_reduced_and_projected(library, elsewhere, monkeypatch):
    make, rng = maker(library), np.random.default_rng(0)
    maps = [rng.normal(size=(20, 4, 3, 40)).astype(np.float32) for _ in range(2)]
    found = []
    for library_of in (np.asarray, make):
        if library_of is make and elsewhere:
            as_if_elsewhere(monkeypatch)
        one = Profiler(max_dim=16, seed=0)
        one.describe("embeddings/conv", layer="conv", channels_last=True)
        for each in maps:
            one.update(embeddings={"conv": library_of(each)})
        found.append(one.profile().groups["embeddings/conv"])
    assert found[0].info == found[1].info
    assert found[0].info["projected_from"] == 40
    np.testing.assert_allclose(found[0].bank.quantiles([0.1, 0.5]), found[1].bank.quantiles([0.1, 0.5]), atol=1e-5)
    window = Profiler(like=one.profile())
    window.update(embeddings={"conv": make(maps[0])})
    assert window.profile().groups["embeddings/conv"].info["channels_last"] is True
    assert window.profile().groups["embeddings/conv"].definitions == found[0].definitions


@FLYING
def test_a_window_is_read_as_the_baseline_was(library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    baseline = Profiler(seed=0)
    for one in batches(count=20):
        baseline.update(**one)
    profile = baseline.profile()
    window = Profiler(like=profile)
    for one in batches(maker(library), count=2):
        window.update(**one)
    found = window.profile().groups["embeddings/avgpool"]
    assert found.kernel_mean.exponents == profile.groups["embeddings/avgpool"].kernel_mean.exponents
    assert found.bank.quantiles([0.5]).shape == (WIDTH, 1)
