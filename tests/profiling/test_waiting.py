"""Images that are measured before they are counted, and rows that wait to be sketched: the profile is the same."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from libraries import IMMUTABLE, LIBRARIES, as_if_elsewhere, maker, tensors_as_if_elsewhere
from profiles import batch

from lensai_integrations import ImageInputs, Profiler, measure
from lensai_integrations.arrays import namespaces
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import SeveralImages
from lensai_integrations.profiles.profile import Profile, to_bytes
from lensai_integrations.profiling import recorders, segmenting, waiting
from lensai_integrations.profiling.recorders import Inputs

LIBRARY = pytest.mark.parametrize("library", LIBRARIES)
PLACES = pytest.mark.parametrize("elsewhere", [False, True], ids=["host", "elsewhere"])


def assert_same_bytes(profile: Profile, expected: Profile) -> None:
    for other in (profile, expected):
        other.info.pop("created", None)
    assert to_bytes(profile) == to_bytes(expected)


def images_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)


@measure("whitest")
def whitest(images):
    return (images >= 200).mean((1, 2, 3))


KINDS = {
    "bytes": {},
    "floats": {"inputs": ImageInputs(layout="NHWC", scale=255)},
    "two conventions": {"convention": ("lensai", "lensai-edge")},
    "custom": {"measures": [whitest]},
}


@PLACES
@LIBRARY
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_looked_at_is_what_update_would_have_measured(library, elsewhere, kind, monkeypatch):
    make = maker(library)
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    looked, plain = Profiler(seed=0, **KINDS[kind]), Profiler(seed=0, **KINDS[kind])
    for seed, n in enumerate((20, 7, 30)):
        images = images_of(n, seed) if kind != "floats" else images_of(n, seed).astype(np.float32) / 255
        if kind == "floats":
            images[n // 2, 3] = np.nan
        one = make(images)
        plain.update(inputs=one, labels=np.arange(n) % 3)
        looked.update(inputs=looked.look(one), labels=np.arange(n) % 3)
    assert_same_bytes(looked.profile(), plain.profile())


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("kind", KINDS)
def test_images_may_be_changed_once_they_were_looked_at(library, kind):
    changed, kept = Profiler(seed=0, **KINDS[kind]), Profiler(seed=0, **KINDS[kind])
    for seed in range(3):
        images = images_of(20, seed) if kind != "floats" else images_of(20, seed).astype(np.float32) / 255
        kept.update(inputs=maker(library)(images))
        one = maker(library)(images)
        looked = changed.look(one)
        one[:] = 0
        changed.update(inputs=looked)
    assert_same_bytes(changed.profile(), kept.profile())


def test_nothing_of_the_pixels_is_kept():
    """Nor is anything that was measured a view of them: it would keep all of them alive."""
    images = torch.from_numpy(images_of(20))
    profiler = Profiler(measures=[whitest])
    profiler.update(inputs=profiler.look(images))
    looked = profiler.look(images)
    pixels = images.numpy()
    for group in looked.groups.values():
        for value in (*group.measured.rows.values(), *group.measured.rest.values()):
            assert isinstance(value, int) or not np.shares_memory(pixels, value)
            assert np.size(value) <= 20 * 256
    assert len(looked) == 20


def test_what_is_looked_at_and_never_handed_over_counts_nowhere():
    skipping, plain = Profiler(seed=0), Profiler(seed=0)
    skipping.look(images_of(9, 5))  # the first of all
    for seed in range(4):
        skipping.look(images_of(9, 50 + seed))
        skipping.update(inputs=skipping.look(images_of(9, seed)))
        plain.update(inputs=images_of(9, seed))
    assert (skipping.n, plain.n) == (36, 36)
    assert_same_bytes(skipping.profile(), plain.profile())


def test_batches_may_be_handed_over_in_another_order():
    profiler = Profiler(seed=0)
    one, other = profiler.look(images_of(9, 1)), profiler.look(images_of(9, 2))
    profiler.update(inputs=other)
    profiler.update(inputs=one)
    plain = Profiler(seed=0)
    for seed in (2, 1):
        plain.update(inputs=images_of(9, seed))
    assert_same_bytes(profiler.profile(), plain.profile())


def test_lists_and_several_inputs_are_looked_at():
    sizes = [np.full((3 + i, 9, 3), 20 * i, np.uint8) for i in range(5)]
    for inputs, groups in (
        (sizes, ["inputs"]),
        (SeveralImages(a=images_of(5), b=images_of(5, 1)), ["inputs/a", "inputs/b"]),
    ):
        looked, plain = Profiler(seed=0), Profiler(seed=0)
        looked.update(inputs=looked.look(inputs))
        plain.update(inputs=inputs)
        assert list(looked.profile().groups) == groups
        assert_same_bytes(looked.profile(), plain.profile())


def test_labels_are_checked_against_the_images_that_were_looked_at():
    profiler = Profiler()
    with pytest.raises(InputError, match="labels are of 4 images, but the batch has 5"):
        profiler.update(inputs=profiler.look(images_of(5)), labels=np.arange(4))


def test_what_another_profiler_has_looked_at_is_refused_and_so_is_what_was_before_a_reset():
    profiler = Profiler()
    looked = profiler.look(images_of(5))
    with pytest.raises(InputError, match="another profiler"):
        Profiler().update(inputs=looked)
    profiler.reset()
    with pytest.raises(InputError, match="before its reset"):
        profiler.update(inputs=looked)
    assert profiler.n == 0


def test_a_group_that_cannot_be_looked_at_costs_the_others_nothing():
    wrong = np.zeros((5, 3), np.float32)
    with pytest.raises(InputError):
        Profiler().look(wrong)
    told = []
    profiler = Profiler(on_error=lambda name, error: told.append((name, str(error))))
    for images in (wrong, images_of(5)):
        profiler.update(inputs=profiler.look(images), labels=np.arange(5))
    profile = profiler.profile()
    assert [name for name, _ in told] == ["inputs"]
    assert {name: group.n for name, group in profile.groups.items()} == {"labels": 10, "inputs": 5}
    assert any("inputs: batches were left out from row 0 on" in warning for warning in profile.warnings)


def test_the_warning_says_how_far_pixels_reached_that_were_looked_at():
    profiler = Profiler(inputs=ImageInputs(layout="NHWC", scale=255))
    images = np.full((4, 8, 8, 3), 200.0, np.float32)
    looked = profiler.look(images)
    images[:] = 0
    profiler.update(inputs=looked)
    assert any("pixels reach from 200 to 200" in warning for warning in profiler.profile().warnings)


#: Columns of a layer.
COLUMNS = 40


def tensors_of(n: int, seed: int, *, odd: bool = False) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, 8, 8, generator=rng)
    outputs = torch.randn(n, 5, generator=rng)
    labels: torch.Tensor = torch.randint(5, (n,), generator=rng)
    if odd:
        outputs[n // 2], images[n // 3, 0, 0, 0], labels = math.nan, math.nan, labels.float()
        labels[0] = 0.5 if seed else 1.0  # the first say that they are classes
    layer = torch.randn(n, COLUMNS, generator=rng)
    return {"inputs": images, "outputs": outputs, "embeddings": {"layer": layer}, "labels": labels}


def profiler_of(**arguments: Any) -> Profiler:
    return Profiler(
        inputs=ImageInputs(layout="NCHW", scale=255, kind="float"), task="logits", seed=0, rows=60, **arguments
    )


def assert_same_states(profile: Profile, expected: Profile) -> None:
    """Byte for byte, but for sums of floats, which are added up in other blocks, and the order of few categories."""
    assert list(profile.groups) == list(expected.groups)
    for name, group in profile.groups.items():
        assert_same_sketches(group.sketches, expected.groups[name].sketches, name)
    assert profile.rows.data.keys() == expected.rows.data.keys()
    for name, rows in profile.rows.data.items():
        np.testing.assert_array_equal(rows, expected.rows.data[name], err_msg=name)
    assert profile.warnings == expected.warnings
    assert profile.segments.keys() == expected.segments.keys()
    for segment_name, segment in profile.segments.items():
        for name, group in segment.groups.items():
            other = expected.segments[segment_name].groups[name]
            assert_same_sketches(group.sketches, other.sketches, f"{segment_name} {name}")


def assert_same_sketches(sketches: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    assert sketches.keys() == expected.keys()
    for key, sketch in sketches.items():
        other = expected[key]
        if key.startswith("categories"):
            assert (sketch.n, sketch.top(99)) == (other.n, other.top(99)), f"{name} {key}"
            continue
        for part, values in sketch.state().items():
            tolerance = 1e-4 if key in ("moments", "kernel_mean") else 0
            np.testing.assert_allclose(
                values, other.state()[part], rtol=tolerance, atol=tolerance, err_msg=f"{name} {key} {part}"
            )


@pytest.fixture
def elsewhere(monkeypatch):
    tensors_as_if_elsewhere(monkeypatch)


@pytest.fixture
def at_once(monkeypatch):
    """`at_once(profiler)`: nothing waits in it."""

    def make(profiler):
        monkeypatch.setattr(profiler, "_may_wait", lambda *_: False)
        return profiler

    return make


def updated(profiler, batches, looks=False):
    for one in batches:
        profiler.update(**(one | {"inputs": profiler.look(one["inputs"])} if looks else one))
    return profiler


SIZES = st.lists(st.sampled_from([1, 2, 5, 17, 40, 130, 511, 512, 1030]), min_size=1, max_size=7)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.sets(st.integers(0, 6)), st.booleans(), st.booleans())
def test_how_rows_wait_changes_nothing(elsewhere, at_once, sizes, asked_after, looks, odd):
    waits = profiler_of(segment_by="label")
    plain = at_once(profiler_of(segment_by="label"))
    for seed, n in enumerate(sizes):
        updated(waits, [tensors_of(n, seed, odd=odd)], looks)
        updated(plain, [tensors_of(n, seed, odd=odd)])
        assert (waits.n, waits.held) == (plain.n, plain.held)
        if seed in asked_after:
            assert waits.profile().n == plain.n
            if odd:  # a bank in host memory compacts otherwise once it was asked for its invalid rows
                plain.profile()
    assert_same_states(waits.profile(), plain.profile())


def test_host_and_accelerator_have_the_same_rows(monkeypatch):
    batches = [tensors_of(n, seed, odd=True) for seed, n in enumerate((40, 7, 300, 300, 60))]
    host = updated(profiler_of(segment_by="label"), batches).profile()
    tensors_as_if_elsewhere(monkeypatch)
    there = updated(profiler_of(segment_by="label"), batches).profile()
    for name in ("embeddings/layer", "labels"):  # what torch and numpy compute alike
        assert_same_sketches(there.groups[name].sketches, host.groups[name].sketches, name)
        np.testing.assert_array_equal(there.rows.data[name], host.rows.data[name])
    for name, group in there.groups.items():
        assert (group.n, group.invalid) == (host.groups[name].n, host.groups[name].invalid), name
        for key, categories in group.categories.items():
            assert (categories.n, categories.top(9)) == (
                host.groups[name].categories[key].n,
                host.groups[name].categories[key].top(9),
            )
    assert {name: segment.n for name, segment in there.segments.items()} == {
        name: segment.n for name, segment in host.segments.items()
    }
    assert "-1" not in there.segments
    assert there.warnings == host.warnings


@pytest.mark.usefixtures("elsewhere")
def test_rows_are_taken_together(monkeypatch):
    taken = []
    monkeypatch.setattr(Inputs, "take", lambda self, one, real=Inputs.take: taken.append(one.n) or real(self, one))
    profiler = profiler_of()
    updated(profiler, [tensors_of(128, seed) for seed in range(9)])
    assert taken == [128, 1024]
    updated(profiler, [tensors_of(n, n) for n in (500, 5, 600, 4)])
    assert taken == [128, 1024, 1105]
    assert profiler.profile().n == sum(taken) == 1152 + 1109
    assert taken[-1] == 4


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("task", ["logits", "probabilities", "multilabel", "regression"])
def test_outputs_are_measured_together(task, at_once, monkeypatch):
    measured = []
    real = recorders.Outputs._measured
    monkeypatch.setattr(
        recorders.Outputs, "_measured", lambda self, rows: measured.append(len(rows)) or real(self, rows)
    )

    def outputs_of(seed):
        rows = tensors_of(128, seed, odd=True)["outputs"]
        return {
            "outputs": rows.softmax(1) if task == "probabilities" else rows.sigmoid() if task == "multilabel" else rows
        }

    plain = updated(at_once(Profiler(task=task, seed=0, rows=60)), [outputs_of(seed) for seed in range(9)]).profile()
    measured.clear()
    waits = updated(Profiler(task=task, seed=0, rows=60), [outputs_of(seed) for seed in range(9)]).profile()
    assert measured == [128, 1024]
    assert waits.groups["outputs"].invalid == 9
    assert_same_states(waits, plain)


@pytest.mark.usefixtures("elsewhere")
def test_outputs_of_many_bytes_do_not_wait_for_many_rows(monkeypatch):
    taken, rows = [], torch.zeros(40, 3000)
    real = recorders.Outputs.take
    monkeypatch.setattr(recorders.Outputs, "take", lambda self, one: taken.append(one.n) or real(self, one))
    monkeypatch.setattr(waiting, "ENOUGH_BYTES", 3 * rows.nbytes)
    profiler = updated(Profiler(task="logits", rows=60), [{"outputs": rows}] * 8)
    assert taken == [40, 120, 120]
    assert profiler.profile().n == sum(taken) == 320


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (torch.zeros(20, 5, dtype=torch.int64), "outputs are int64"),
        (torch.zeros(20, 6), "rows must be"),
        (torch.zeros(20, 2, 4, 4), "a map per image"),
    ],
    ids=["dtype", "width", "map"],
)
def test_outputs_that_cannot_be_measured_are_told_at_once(wrong, match):
    told = []
    profiler = profiler_of(on_error=lambda name, error: told.append((name, str(error))))
    updated(profiler, [tensors_of(20, seed) for seed in range(3)])
    updated(profiler, [tensors_of(20, 3) | {"outputs": wrong}])
    assert [name for name, _ in told] == ["outputs"]
    assert match in told[0][1]
    updated(profiler, [tensors_of(20, 4)])
    assert {name: group.n for name, group in profiler.profile().groups.items()} == {
        "inputs": 100, "outputs": 80, "embeddings/layer": 100, "labels": 100,
    }  # fmt: skip


@pytest.mark.usefixtures("elsewhere")
def test_what_waits_is_in_no_memory_that_is_used_again(at_once):
    waits, plain = profiler_of(segment_by="site"), at_once(profiler_of(segment_by="site"))
    for seed in range(6):
        one = tensors_of(50, seed) | {"segments": torch.arange(50) % 3}
        updated(plain, [one])
        used_again = {name: value.clone() for name, value in one.items() if name != "embeddings"}
        layer = one["embeddings"]["layer"].clone()
        updated(waits, [used_again | {"embeddings": {"layer": layer}}])
        for values in (*used_again.values(), layer):
            values.zero_()
    assert_same_states(waits.profile(), plain.profile())


@pytest.mark.usefixtures("elsewhere")
def test_a_wrong_width_is_told_at_once_and_costs_one_batch():
    told = []
    profiler = profiler_of(on_error=lambda name, error: told.append(name))
    updated(profiler, [tensors_of(20, seed) for seed in range(3)])
    updated(profiler, [tensors_of(20, 3) | {"embeddings": {"layer": torch.zeros(20, COLUMNS + 1)}}])
    assert told == ["embeddings/layer"]
    updated(profiler, [tensors_of(20, 4)])
    profile = profiler.profile()
    assert {name: group.n for name, group in profile.groups.items()} == {
        "inputs": 100, "outputs": 100, "embeddings/layer": 80, "labels": 100,
    }  # fmt: skip
    assert np.isnan(profile.rows.data["embeddings/layer"]).all(axis=1).sum() > 0
    strict = updated(profiler_of(), [tensors_of(20, seed) for seed in range(3)])
    with pytest.raises(InputError, match="rows must be"):
        updated(strict, [tensors_of(20, 3) | {"embeddings": {"layer": torch.zeros(20, COLUMNS + 1)}}])


@pytest.mark.usefixtures("elsewhere")
def test_a_group_that_comes_later_or_goes_does_not_stop_the_others(at_once):
    waits, plain = profiler_of(), at_once(profiler_of())
    for seed in range(9):
        one = tensors_of(30, seed)
        if seed in (0, 4, 5):
            del one["embeddings"]
        for profiler in (waits, plain):
            updated(profiler, [one])
    assert_same_states(waits.profile(), plain.profile())


@pytest.mark.usefixtures("elsewhere")
def test_host_rows_beside_those_that_wait_stay_joint(at_once):
    waits, plain = profiler_of(), at_once(profiler_of())
    for seed in range(9):
        one = tensors_of(30, seed)
        one["labels"] = one["labels"].numpy() if seed % 3 else one["labels"]
        for profiler in (waits, plain):
            updated(profiler, [one | ({"labels": one["labels"].copy()} if seed % 3 else {})])
    assert_same_states(waits.profile(), plain.profile())


@pytest.mark.usefixtures("elsewhere")
def test_a_reset_forgets_what_waits_and_what_was_like_it():
    profiler = updated(profiler_of(), [tensors_of(40, seed) for seed in range(3)])
    profiler.reset()
    assert (profiler.n, profiler.profile().groups) == (0, {})
    assert_same_states(
        updated(profiler, [tensors_of(40, 5)]).profile(), updated(profiler_of(), [tensors_of(40, 5)]).profile()
    )


@pytest.mark.usefixtures("elsewhere")
def test_what_cannot_be_taken_together_is_told_and_the_others_have_it(monkeypatch):
    real, told = Inputs.take, []

    def fails(self, measured):
        if measured.n > 40:
            raise RuntimeError("injected")
        return real(self, measured)

    monkeypatch.setattr(Inputs, "take", fails)
    profiler = updated(
        profiler_of(on_error=lambda name, error: told.append(name)), [tensors_of(40, s) for s in range(4)]
    )
    profile = profiler.profile()
    assert told == ["inputs"]
    assert {name: group.n for name, group in profile.groups.items()} == {
        "inputs": 40, "outputs": 160, "embeddings/layer": 160, "labels": 160,
    }  # fmt: skip
    assert any("injected" in warning for warning in profile.warnings)
    strict = updated(profiler_of(), [tensors_of(40, seed) for seed in range(4)])
    with pytest.raises(RuntimeError, match="injected"):
        strict.profile()


def test_measures_that_fail_now_and_then_wait_too(monkeypatch, at_once):
    calls = []

    @measure("moody")
    def moody(images):
        calls.append(1)
        if len(calls) % 4 == 0:
            raise ValueError("not today")
        return images.mean((1, 2, 3))

    tensors_as_if_elsewhere(monkeypatch)
    profiles = []
    for make in (profiler_of, lambda **arguments: at_once(profiler_of(**arguments))):
        calls.clear()
        profiles.append(
            updated(make(measures=[moody], on_error=lambda *_: None), [tensors_of(30, s) for s in range(9)]).profile()
        )
    assert_same_states(*profiles)
    assert profiles[0].groups["inputs"].apart["moody"].bank.invalid == 60


@pytest.mark.parametrize("library", IMMUTABLE)
def test_what_comes_to_the_host_is_taken_in_the_same_blocks(library, monkeypatch, at_once):
    make, arrays = maker(library), [batch(np.random.default_rng(seed), 24) for seed in range(20)]
    expected = updated(Profiler(seed=0, rows=50), arrays).profile()
    as_if_elsewhere(monkeypatch)
    found = Profiler(seed=0, rows=50)
    for one in arrays:
        found.update(
            inputs=make(one["inputs"]), outputs=make(one["outputs"]), labels=make(one["labels"]),
            embeddings={name: make(rows) for name, rows in one["embeddings"].items()},
        )  # fmt: skip
    for name, group in found.profile().groups.items():
        assert group.n == 480
        if name.startswith("emb"):
            for part, values in group.bank.state().items():
                np.testing.assert_array_equal(values, expected.groups[name].bank.state()[part])
            assert group.kernel_mean.exponents == expected.groups[name].kernel_mean.exponents


# Nothing is waited for, and nothing but a few numbers is sent.


def on_an_accelerator(make, n=64):
    return {
        "inputs": make((n, 3, 16, 16)),
        "outputs": make((n, 300)),
        "embeddings": {"layer": make((n, COLUMNS))},
        "labels": make((n,), torch.int64),
    }


@pytest.mark.parametrize("segment_by", [None, "label"])
def test_no_value_of_the_device_is_read_and_what_is_sent_is_page_locked(accelerator, segment_by):
    """`accelerator` raises otherwise."""
    profiler = profiler_of(segment_by=segment_by)
    batches = 7 if segment_by else 24  # rows are split by segments once there are 512
    updated(profiler, [on_an_accelerator(accelerator) for _ in range(batches)], looks=True)
    assert profiler.n == 64 * batches


def test_the_first_batch_of_a_later_pass_sends_few_numbers_and_the_others_fewer(accelerator, monkeypatch):
    sizes = []
    real = namespaces.send
    for name, module in list(sys.modules.items()):
        if name.startswith("lensai_integrations.") and getattr(module, "send", None) is real:
            monkeypatch.setattr(module, "send", lambda array, like: sizes.append(array.nbytes) or real(array, like))
    profiler = profiler_of()
    updated(profiler, [on_an_accelerator(accelerator)] * 9)
    assert max(sizes) > 100_000  # frequencies
    for _ in range(2):
        profiler.reset()
        sizes.clear()
        updated(profiler, [on_an_accelerator(accelerator)])
        assert sum(sizes) < 20_000
        sizes.clear()
        updated(profiler, [on_an_accelerator(accelerator)] * 15)
        assert sizes == []
        updated(profiler, [on_an_accelerator(accelerator)])
        assert sum(sizes) < 20_000


@pytest.mark.parametrize("kind", ["tensor", "labels"])
def test_segments_wait_once_in_some_hundred_rows(kind, monkeypatch):
    tensors_as_if_elsewhere(monkeypatch)
    reads = []
    monkeypatch.setattr(
        segmenting, "to_host", lambda array, real=segmenting.to_host: reads.append(len(array)) or real(array)
    )
    profiler = profiler_of(segment_by="site" if kind == "tensor" else "label")
    for seed in range(17):
        one = tensors_of(32, seed)
        updated(profiler, [one | ({"segments": one["labels"] % 3} if kind == "tensor" else {})])
        assert bool(reads) == (seed >= 15)
    assert set(reads) == {512}
    assert len(reads) == 6  # values; measures, outputs, their classes, a layer, labels
    assert sum(segment.n for segment in profiler.profile().segments.values()) == 17 * 32
