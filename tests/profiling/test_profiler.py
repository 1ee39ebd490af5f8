"""Batches in, a profile out: any split gives the same, failures stay in their group, nothing in flight is awaited."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker
from profiles import CLASSES, WIDTH, batch, make_baseline

from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.arrays import namespaces
from lensai_integrations.errors import InputError
from lensai_integrations.profiling import waiting
from lensai_integrations.profiling.recorders import Inputs


def test_every_group_counts_every_row() -> None:
    profiler = Profiler()
    for n in (64, 64, 17):
        profiler.update(**batch(np.random.default_rng(n), n))
    profile = profiler.profile()
    assert {name: group.n for name, group in profile.groups.items()} == dict.fromkeys(
        ["inputs", "outputs", "embeddings/avgpool", "labels"], 145
    )
    assert (profile.n, profiler.n) == (145, 145)
    assert profile.groups["inputs"].pixels is not None
    assert profile.groups["inputs"].pixels.counts.sum(1).tolist() == [145 * 16 * 16] * 3
    assert profile.groups["outputs"].categories["top_class"].n == 145


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_how_rows_are_split_into_batches_does_not_matter(sizes: list[int]) -> None:
    whole = batch(np.random.default_rng(0), sum(sizes))
    split, once = Profiler(seed=0), Profiler(seed=0)
    once.update(**whole)
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        embeddings = {"avgpool": whole["embeddings"]["avgpool"][rows]}
        split.update(
            inputs=whole["inputs"][rows],
            outputs=whole["outputs"][rows],
            embeddings=embeddings,
            labels=whole["labels"][rows],
        )
        start += size
    a, b = split.profile(), once.profile()
    for name, group in a.groups.items():
        if group.bank is not None:
            np.testing.assert_allclose(
                group.bank.quantiles([0, 0.5, 1]), b.groups[name].bank.quantiles([0, 0.5, 1]), rtol=1e-4, atol=1e-4
            )  # type: ignore[union-attr]


def test_rows_are_joint_over_all_groups() -> None:
    profiler = Profiler(rows=50)
    rng = np.random.default_rng(0)
    for _ in range(8):
        labels = rng.integers(0, 4, 32)
        images = np.broadcast_to((labels * 60).astype(np.uint8)[:, None, None, None], (32, 8, 8, 3))
        embedding = np.repeat(labels[:, None], 5, axis=1).astype(np.float32)
        profiler.update(inputs=images, outputs=np.eye(4)[labels] * 9 - 1, embeddings={"e": embedding}, labels=labels)
    profile = profiler.profile()
    assert profile.rows is not None
    data, streams = profile.rows.data, profile.groups["inputs"].streams
    labels = data["labels"][:, 0]
    assert len(labels) == 50
    np.testing.assert_allclose(data["inputs"][:, streams.index("brightness")], labels * 60, atol=1e-3)
    np.testing.assert_array_equal(data["embeddings/e"], np.repeat(labels[:, None], 5, axis=1))
    np.testing.assert_array_equal(data["outputs/top_class"][:, 0], labels)


def test_numpy_and_torch_batches_give_the_same_profile() -> None:
    arrays = batch(np.random.default_rng(3), 60)
    tensors = {
        "inputs": torch.from_numpy(arrays["inputs"]).permute(0, 3, 1, 2),
        "outputs": torch.from_numpy(arrays["outputs"]).requires_grad_(),
        "embeddings": {"avgpool": torch.from_numpy(arrays["embeddings"]["avgpool"])},
        "labels": torch.from_numpy(arrays["labels"]),
    }
    a, b = Profiler(), Profiler()
    a.update(**arrays)
    b.update(**tensors)
    for one, two in zip(a.profile().summaries(), b.profile().summaries(), strict=True):
        assert one.stream == two.stream
        assert one.top == two.top
        np.testing.assert_allclose(list(one.quantiles.values()), list(two.quantiles.values()), rtol=1e-5, atol=1e-4)


def test_a_profile_is_a_copy() -> None:
    profiler = Profiler()
    profiler.update(**batch(np.random.default_rng(0), 20))
    before = profiler.profile()
    medians = before.groups["inputs"].bank.quantiles([0.5]).copy()  # type: ignore[union-attr]
    profiler.update(**batch(np.random.default_rng(1), 500, brightness=0.2))
    assert before.n == 20
    np.testing.assert_array_equal(before.groups["inputs"].bank.quantiles([0.5]), medians)  # type: ignore[union-attr]


def test_reset_forgets_rows() -> None:
    profiler = Profiler()
    profiler.update(**batch(np.random.default_rng(0), 20))
    profiler.reset()
    assert profiler.profile().n == 0
    profiler.update(**batch(np.random.default_rng(0), 5))
    assert profiler.profile().n == 5


def test_the_same_seed_gives_the_same_profile_and_no_other_generator_is_touched() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.random.get_rng_state()
    profiles = []
    for seed in (1, 1, 2):
        profiler = Profiler(seed=seed, rows=30)
        rng = np.random.default_rng(0)
        for _ in range(20):
            profiler.update(**batch(rng, 64))
        profiles.append(profiler.profile())
    rows = [p.rows.data["inputs"] for p in profiles]  # type: ignore[union-attr]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_without_a_seed_every_profiler_draws_its_own() -> None:
    rows = []
    for _ in range(2):
        profiler = Profiler(rows=10)
        profiler.update(**batch(np.random.default_rng(0), 200))
        rows.append(profiler.profile().rows.data["inputs"])  # type: ignore[union-attr]
    assert not np.array_equal(*rows)


def test_rows_with_nan_are_counted_and_said() -> None:
    profiler = Profiler()
    one = batch(np.random.default_rng(0), 30)
    one["embeddings"]["avgpool"][3, 5] = np.nan
    one["outputs"][:2] = np.inf
    profiler.update(**one)
    profile = profiler.profile()
    assert {name: (g.n, g.invalid) for name, g in profile.groups.items()} == {
        "inputs": (30, 0),
        "outputs": (28, 2),
        "embeddings/avgpool": (29, 1),
        "labels": (30, 0),
    }
    assert profile.n == 30
    assert profile.groups["outputs"].categories["top_class"].n == 28
    assert sorted(profile.warnings) == [
        "1 of 30 rows of embeddings/avgpool were left out: a value was not finite",
        "2 of 30 rows of outputs were left out: a value was not finite",
    ]


def test_errors_are_raised_by_default() -> None:
    with pytest.raises(InputError):
        Profiler().update(inputs=np.zeros((2, 8, 8, 3), np.float32) - 4)


def test_with_a_handler_the_other_groups_go_on() -> None:
    seen: list[tuple[str, Exception]] = []
    profiler = Profiler(on_error=lambda name, error: seen.append((name, error)))
    good = batch(np.random.default_rng(0), 20)
    profiler.update(**good)
    profiler.update(**{**good, "outputs": np.zeros((20, 5, 7, 7))})
    profiler.update(**good)
    profile = profiler.profile()
    assert [name for name, _ in seen] == ["outputs"]
    assert profile.groups["inputs"].n == 60
    assert profile.groups["outputs"].n == 40
    assert any(w.startswith("outputs: batches were left out from row 20 on") for w in profile.warnings)
    assert profile.rows is not None
    assert np.isnan(profile.rows.data["outputs"]).all(axis=1).sum() == 20


def test_unequal_groups_are_refused() -> None:
    one = batch(np.random.default_rng(0), 8)
    with pytest.raises(InputError, match="different numbers of rows"):
        Profiler().update(inputs=one["inputs"], outputs=one["outputs"][:4])


def test_like_reads_and_sketches_as_the_baseline_did() -> None:
    baseline = make_baseline(200)
    profiler = Profiler(like=baseline)
    profiler.update(**batch(np.random.default_rng(9), 100))
    window = profiler.profile()
    for name in ("outputs", "embeddings/avgpool"):
        ours, theirs = window.groups[name].kernel_mean, baseline.reference.groups[name].kernel_mean
        assert ours is not None
        assert theirs is not None
        assert ours.exponents == theirs.exponents
    assert window.groups["inputs"].definitions == baseline.reference.groups["inputs"].definitions


def test_like_takes_over_how_images_were_read() -> None:
    images = np.random.default_rng(0).uniform(-1.9, 1.9, (10, 3, 8, 8)).astype(np.float32)
    reader = ImageInputs(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    first = Profiler(inputs=reader)
    first.update(inputs=images)
    second = Profiler(like=first.profile())
    second.update(inputs=images)
    np.testing.assert_array_equal(
        first.profile().groups["inputs"].bank.max,  # type: ignore[union-attr]
        second.profile().groups["inputs"].bank.max,  # type: ignore[union-attr]
    )


def test_wide_embeddings_are_projected_and_it_is_said() -> None:
    profiler = Profiler(max_dim=16)
    profiler.update(embeddings={"wide": np.random.default_rng(0).normal(size=(30, 100))})
    group = profiler.profile().groups["embeddings/wide"]
    assert len(group.streams) == 16
    assert group.info["projected_from"] == 100
    assert group.definition_of("3") == "lensai/embedding_projected@1"


def test_a_window_takes_layers_as_they_are_or_reduced() -> None:
    maps = np.random.default_rng(0).normal(size=(20, 6, 4, 4)).astype(np.float32)
    first = Profiler()
    first.describe("embeddings/conv", layer="conv", reduce="max", axes=4)
    first.update(embeddings={"conv": maps.max((2, 3))})
    baseline = first.profile()
    for embedding in (maps, maps.max((2, 3))):
        window = Profiler(like=baseline)
        window.update(embeddings={"conv": embedding})
        group = window.profile().groups["embeddings/conv"]
        assert group.definitions == baseline.groups["embeddings/conv"].definitions == {"*": "lensai/embedding_max@1"}
        np.testing.assert_array_equal(group.bank.max, maps.max((0, 2, 3)))  # type: ignore[union-attr]


def test_a_custom_reduction_is_left_to_its_owner() -> None:
    first = Profiler()
    first.describe("embeddings/conv", layer="conv", reduce="my_reduction", axes=4)
    first.update(embeddings={"conv": np.zeros((4, 6))})
    window = Profiler(like=first.profile())
    with pytest.raises(InputError, match="reduced by the function my_reduction: pass its answers"):
        window.update(embeddings={"conv": np.zeros((4, 6, 2, 2))})


def test_descriptions_are_kept() -> None:
    profiler = Profiler()
    profiler.describe("embeddings/conv", layer="model.conv", reduce="mean", axes=4)
    profiler.update(embeddings={"conv": np.zeros((4, WIDTH))})
    group = profiler.profile().groups["embeddings/conv"]
    assert group.info["layer"] == "model.conv"
    assert group.definition_of("0") == "lensai/embedding_mean@1"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([0, 1, 1]), {"1": 2, "0": 1}),
        (torch.tensor([[1], [1], [0]]), {"1": 2, "0": 1}),
        (["cat", "dog", "cat"], {"cat": 2, "dog": 1}),
        (np.eye(3)[[2, 2, 0]], {"2": 2, "0": 1}),
        (np.array([True, False, True]), None),
    ],
)
def test_labels_of_many_forms(labels: object, expected: dict[str, int] | None) -> None:
    profiler = Profiler()
    profiler.update(labels=labels)
    categories = profiler.profile().groups["labels"].categories[""]
    assert categories.n == 3
    if expected is not None:
        assert dict(categories.top(5)) == expected


def test_numeric_targets_are_a_stream_of_numbers() -> None:
    profiler = Profiler()
    profiler.update(labels=np.array([0.5, 1.5, 2.5], np.float32))
    group = profiler.profile().groups["labels"]
    assert group.bank is not None
    assert (group.bank.min[0], group.bank.max[0]) == (0.5, 2.5)


def test_labels_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(InputError, match="one label per image"):
        Profiler().update(labels=np.zeros((4, 8, 8)))


def test_a_linear_layer_answers_logits_even_where_all_lie_between_0_and_1() -> None:
    profiler = Profiler()
    profiler.describe("outputs", layer="fc", linear=True)
    profiler.update(outputs=np.full((4, 2), 0.3, np.float32))
    assert profiler.profile().groups["outputs"].info["kind"] == "logits"


def test_no_rows_are_kept_when_none_are_wanted() -> None:
    profiler = Profiler(rows=0)
    profiler.update(**batch(np.random.default_rng(0), 20))
    assert profiler.profile().rows is None
    assert profiler.profile().n == 20


def test_classes_are_counted() -> None:
    profiler = Profiler()
    logits = np.full((10, CLASSES), -1.0)
    logits[:, 2] = 5
    profiler.update(outputs=logits)
    assert profiler.profile().groups["outputs"].categories["top_class"].top(3) == [("2", 10)]


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
    monkeypatch.setattr(Inputs, "take", lambda self, one, real=Inputs.take: taken.append(one.n) or real(self, one))
    one = Profiler(inputs=ImageInputs(layout="NHWC", scale=1, kind="uint8"), task="logits")
    counts = []
    waits = waiting.MOST_IN_FLIGHT
    for each in batches(make, count=2 * waits + 2):
        one.update(**each)
        counts.append((len(read) > 0, sum(taken)))
    assert counts[:waits] == [(False, 0)] * waits
    assert counts[waits:] == [(True, 24 * waits)] * waits + [(True, 2 * 24 * waits)] * 2
    assert taken == [24, 24 * (waits - 1), 24 * waits]  # the first by itself, the others at once
    one.profile()
    assert sum(taken) == one.profile().groups["inputs"].n == 24 * (2 * waits + 2)


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
def test_with_a_handler_the_other_groups_go_on_in_flight(library, monkeypatch):
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
def test_labels_of_many_forms_in_flight(library, elsewhere, monkeypatch):
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
