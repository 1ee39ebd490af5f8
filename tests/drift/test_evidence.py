"""What is found in one group, before anything is corrected or decided."""

from __future__ import annotations

import copy
import gc
import math

import numpy as np
import pytest
from scipy.stats import energy_distance, ks_2samp

from lensai_integrations import Profiler, compare
from lensai_integrations.drift import evidence
from lensai_integrations.drift.evidence import RARE_CATEGORIES, Side, compare_group
from lensai_integrations.drift.significance import ks_p_value
from lensai_integrations.errors import DefinitionError
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.sketches.bank import KLLBank

NAMES = {"inputs": ("brightness", "contrast", "mean/0")}


def sides(baseline, window, name="inputs"):
    return [
        Side.of(profile.groups[name], profile.rows.data.get(name) if profile.rows is not None else None)
        for profile in (baseline, window)
    ]


def found_in(baseline, window, name="inputs"):
    return compare_group(*sides(baseline, window, name))


def by_name(group):
    return {stream.stream: stream for stream in group.streams}


def test_a_row_per_stream_with_its_own_numbers(build, rng):
    a, b = rng.normal(100, 10, (150, 3)), rng.normal(105, 10, (120, 3))
    b[:, 1] = a[:120, 1]
    definitions = {"inputs": {"brightness": "test/b@1", "contrast": "test/c@2", "mean": "test/m@1"}}
    profiles = [build({"inputs": rows}, streams=NAMES, definitions=definitions) for rows in (a, b)]
    streams = by_name(found_in(*profiles))
    assert list(streams) == ["inputs/brightness", "inputs/contrast", "inputs/mean/0"]
    assert [stream.definition for stream in streams.values()] == ["test/b@1", "test/c@2", "test/m@1"]
    for column, stream in enumerate(streams.values()):
        x, y = a[:, column].astype(np.float32), b[:, column].astype(np.float32)
        assert stream.kind == "numbers"
        assert stream.effect == pytest.approx(ks_2samp(x, y, method="asymp").statistic, abs=1e-9)
        assert stream.raw_p_value == pytest.approx(ks_p_value(np.array([stream.effect]), 150, 120)[0])
        assert math.isnan(stream.p_value)
        assert not stream.drift
        np.testing.assert_allclose(stream.baseline, np.quantile(x, (0.05, 0.5, 0.95), method="inverted_cdf"))
        np.testing.assert_allclose(stream.window, np.quantile(y, (0.05, 0.5, 0.95), method="inverted_cdf"))


def test_a_lossy_sketch_gives_up_its_error(build, rng):
    rows = rng.normal(size=(20000, 1))
    small, large = rng.normal(0.05, 1, (100, 1)), rng.normal(0.05, 1, (20000, 1))
    error = KLLBank(1).rank_error
    one_lossy, both_lossy = found_in(build({"inputs": rows}), build({"inputs": small})), None
    stream = one_lossy.streams[0]
    assert stream.raw_p_value == pytest.approx(ks_p_value(np.array([stream.effect]), 20000, 100, error)[0])
    both_lossy = found_in(build({"inputs": rows}), build({"inputs": large}))
    stream = both_lossy.streams[0]
    both = math.hypot(error, error)
    assert stream.raw_p_value == pytest.approx(ks_p_value(np.array([stream.effect]), 20000, 20000, both)[0])


def test_two_sketches_of_the_same_rows_are_never_certain_of_a_difference(build, rng):
    rows = rng.normal(size=(200_000, 30))
    streams = found_in(build({"inputs": rows}, seed=1, keep=0), build({"inputs": rows}, seed=2, keep=0)).streams
    assert max(stream.effect for stream in streams) > 0  # they do differ
    assert min(stream.raw_p_value for stream in streams) > 0.5


# -- rows left out


def test_rows_that_turn_into_nan_are_a_stream(build, rng):
    a, b = rng.normal(size=(1000, 3)), rng.normal(size=(100, 3))
    a[:5, 0], b[:40, 1] = np.nan, np.inf
    group = found_in(build({"inputs": a}, streams=NAMES), build({"inputs": b}, streams=NAMES))
    stream = by_name(group)["inputs/invalid"]
    assert (group.n_baseline, group.invalid_baseline, group.n_window, group.invalid_window) == (995, 5, 60, 40)
    assert stream.kind == "invalid"
    assert stream.effect == pytest.approx(0.4 - 0.005)
    assert stream.raw_p_value < 1e-12
    assert stream.shares == (("not finite", 0.005, 0.4),)


def test_a_window_of_nothing_but_nan(build, rng):
    group = found_in(build({"inputs": rng.normal(size=(100, 3))}), build({"inputs": np.full((30, 3), np.nan)}))
    assert [stream.stream for stream in group.streams] == ["inputs/invalid"]
    assert group.streams[0].raw_p_value < 1e-12
    assert group.notes == ("no finite rows in the window",)


def test_no_such_stream_where_every_row_is_finite(build, rng):
    group = found_in(*(build({"inputs": rng.normal(size=(50, 3))}) for _ in range(2)))
    assert "inputs/invalid" not in by_name(group)


# -- categories


def test_categories(build):
    a, b = ["cat"] * 60 + ["dog"] * 40, ["cat"] * 10 + ["dog"] * 30 + ["bird"] * 10
    stream = found_in(build(categories={"labels": a}), build(categories={"labels": b}), "labels").streams[0]
    assert (stream.stream, stream.kind, stream.definition) == ("labels", "categories", "test/category@1")
    assert stream.effect == pytest.approx(0.4)
    assert stream.shares == (("cat", 0.6, pytest.approx(0.2)), ("bird", 0.0, 0.2), ("dog", 0.4, pytest.approx(0.6)))
    assert stream.raw_p_value < 1e-4
    assert math.isnan(stream.wasserstein)
    assert 0 < stream.jensen_shannon < 1
    assert math.isfinite(stream.psi)


def test_several_streams_of_categories_in_one_group(build, rng):
    categories = {"outputs/top_class": [1, 2, 2], "outputs/second": [3, 3, 1]}
    group = found_in(*(build({"outputs": rng.normal(size=(3, 2))}, categories=categories) for _ in range(2)), "outputs")
    assert [stream.stream for stream in group.streams][-2:] == ["outputs/top_class", "outputs/second"]
    assert {stream.effect for stream in group.streams[-2:]} == {0.0}


def test_more_categories_than_a_sketch_holds(build, rng):
    """Counts are then estimates; clean data stays clean, and a heavy hitter that doubled is still seen."""
    heavy = np.zeros(30_000, int)
    a, b = (np.concatenate([heavy, rng.integers(1, 50_000, 100_000)]) for _ in range(2))
    c = np.concatenate([heavy, heavy, rng.integers(1, 50_000, 70_000)])
    baseline, clean, moved = (build(categories={"labels": values}) for values in (a, b, c))
    assert baseline.groups["labels"].categories[""].error > 0
    same = found_in(baseline, clean, "labels").streams[0]
    other = found_in(baseline, moved, "labels").streams[0]
    assert same.raw_p_value > 0.5
    assert other.raw_p_value < 1e-6
    assert RARE_CATEGORIES in {name for name, *_ in other.shares}


def test_a_side_without_labels(build):
    group = found_in(build(categories={"labels": [1, 2]}), build(categories={"labels": []}), "labels")
    assert group.streams == ()
    assert group.notes == ("labels has no rows in the window",)


# -- pixels


def test_pixels_are_reported_and_not_tested(build, rng):
    a, b = rng.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8), rng.integers(0, 100, (10, 3, 8, 8), dtype=np.uint8)
    group = found_in(build(pixels=a, keep=0), build(pixels=b, keep=0))
    assert [stream.stream for stream in group.streams] == ["inputs/pixel/0", "inputs/pixel/1", "inputs/pixel/2"]
    for stream in group.streams:
        assert stream.kind == "pixels"
        assert stream.definition == "test/pixel@1"
        assert stream.effect > 0.5
        assert math.isnan(stream.raw_p_value)
        assert stream.window[2] < 100
    assert group.tested == 0


def test_other_numbers_of_channels(build):
    grey, colour = (build(pixels=np.zeros((2, channels, 4, 4), np.uint8), keep=0) for channels in (1, 3))
    group = found_in(grey, colour)
    assert group.streams == ()
    assert "1 channels and of 3" in group.notes[0]


# -- streams of one side only


def test_streams_by_name_wherever_they_stand(build, rng):
    rows = rng.normal([0, 50], 1, (100, 2))
    one = build({"inputs": rows}, streams={"inputs": ("a", "b")}, definitions={"inputs": {"a": "t/a@1", "b": "t/b@1"}})
    two = build(
        {"inputs": np.concatenate([rows, rows], axis=1)[:, [3, 0, 0]]},
        streams={"inputs": ("b", "c", "a")},
        definitions={"inputs": {"a": "t/a@1", "b": "t/b@1", "c": "t/c@1"}},
    )
    group = found_in(one, two)
    assert {stream.stream: stream.effect for stream in group.streams} == {"inputs/a": 0.0, "inputs/b": 0.0}
    assert group.notes == ("only on one side, not compared: c",)


@pytest.mark.parametrize("both", [False, True])
def test_only_custom_measures_are_called_so(both, rng):
    def group_of(*names, **info):
        sketches = {}
        for name in names:
            sketches[f"bank/{name}"] = bank = KLLBank(1, seed=len(sketches))
            bank.update(rng.normal(size=(50, 1)).astype(np.float32))
        return Profile({"outputs": Group("outputs", (), {"softmax": "lensai/softmax@1"}, sketches, info)})

    told = {"measures": {"glare": {"id": "custom/glare@1"}}}
    one, two = group_of("softmax/0", "softmax/500"), group_of("softmax/0", *["glare"] * both, **told)
    notes = [*["custom measures only on one side, not compared: glare"] * both]
    assert found_in(one, two, "outputs").notes == (*notes, "only on one side, not compared: softmax/500")


def test_components_of_a_layer_of_another_width_are_other_streams(build, rng):
    one, two = (build({"embeddings/x": rng.normal(size=(30, width))}) for width in (4, 6))
    group = found_in(one, two, "embeddings/x")
    assert group.streams == ()
    assert "4 streams in the baseline and 6 in the window" in group.notes[0]


def test_no_stream_in_common(build, rng):
    one, two = (
        build({"inputs": rng.normal(size=(9, 1))}, streams={"inputs": (name,)}, definitions={"inputs": {name: "t/x@1"}})
        for name in "ab"
    )
    assert found_in(one, two).streams == ()


# -- definitions and settings


def test_other_definitions_are_refused(build, rng):
    one, two = (
        build({"inputs": rng.normal(size=(9, 1))}, definitions={"inputs": {"*": id}})
        for id in ("lensai/brightness@1", "lensai-edge/brightness@1")
    )
    with pytest.raises(DefinitionError, match=r"'lensai/brightness@1'.*'lensai-edge/brightness@1'"):
        found_in(one, two)


@pytest.mark.parametrize(("key", "one", "two"), [("reduce", "mean", "max"), ("projected_from", 25088, None)])
def test_other_settings_are_refused(build, rng, key, one, two):
    profiles = [
        build({"embeddings/x": rng.normal(size=(9, 2))}, info={"embeddings/x": {key: value}}) for value in (one, two)
    ]
    with pytest.raises(DefinitionError, match=f"{key}={one!r} in one profile and {two!r} in the other"):
        found_in(*profiles, "embeddings/x")


# -- vectors


def test_vectors_where_both_sides_keep_a_kernel_mean(build, rng):
    a, b = rng.normal(size=(300, 4)), rng.normal(1, 1, (60, 4))
    baseline = build({"outputs": a}, vectors=("outputs",))
    window = build({"outputs": b}, vectors=("outputs",), like=baseline)
    group = found_in(baseline, window, "outputs")
    assert group.vectors.test.method == "gamma"
    assert group.vectors.test.p_value < 1e-6
    assert (group.vectors.test.n, group.vectors.test.m) == (300, 60)
    assert found_in(build({"outputs": a}), window, "outputs").vectors is None
    assert (
        found_in(build({"outputs": a}, vectors=("outputs",), keep=0), window, "outputs").vectors.test.method == "bound"
    )


def test_no_shared_bandwidth_and_no_rows_is_a_note(build, rng):
    rows = rng.normal(size=(300, 4))
    profiles = [build({"outputs": scale * rows}, vectors=("outputs",), keep=0) for scale in (1, 100)]
    group = found_in(*profiles, "outputs")
    assert group.vectors is None
    assert "rows were not compared as vectors" in group.notes[0]
    assert group.streams[0].raw_p_value < 1e-6  # the streams tell


def test_no_shared_bandwidth_but_rows(build, rng):
    rows = rng.normal(size=(300, 4))
    group = found_in(*(build({"outputs": scale * rows}, vectors=("outputs",)) for scale in (1, 100)), "outputs")
    assert group.vectors.test.p_value < 1e-6
    assert group.notes == ()


def test_a_window_of_invalid_vectors_has_no_test(build, rng):
    baseline = build({"outputs": rng.normal(size=(300, 4))}, vectors=("outputs",))
    window = build({"outputs": np.full((5, 4), np.nan)}, vectors=("outputs",), like=baseline)
    assert found_in(baseline, window, "outputs").vectors is None


def test_energy_is_in_standard_deviations(build, rng):
    a, b = rng.normal(100, 10, (150, 3)).astype(np.float32), rng.normal(105, 10, (120, 3)).astype(np.float32)
    streams = found_in(*(build({"inputs": rows}, streams=NAMES) for rows in (a, b))).streams
    for column, stream in enumerate(streams):
        x, y = a[:, column].astype(float), b[:, column].astype(float)
        assert stream.energy == pytest.approx(energy_distance(x / x.std(), y / x.std()), rel=1e-4)


def test_a_baseline_is_sorted_once(build, rng, monkeypatch):
    baseline = build({"inputs": rng.normal(size=(150, 3))}, streams=NAMES)
    windows = [build({"inputs": rng.normal(size=(60, 3))}, streams=NAMES) for _ in range(3)]
    asked = []
    view = KLLBank.sorted_view
    monkeypatch.setattr(KLLBank, "sorted_view", lambda bank: asked.append(bank) or view(bank))
    found = [found_in(baseline, window) for window in windows]
    bank = baseline.groups["inputs"].bank
    assert [each is bank for each in asked].count(True) == 1
    assert len(asked) == 4
    assert found == [found_in(copy.deepcopy(baseline), window) for window in windows]


def test_a_baseline_that_grew_is_sorted_again(build, rng):
    rows, more = rng.normal(size=(150, 3)), rng.normal(3, 1, size=(90, 3))
    grown, window = build({"inputs": rows}, streams=NAMES), build({"inputs": more}, streams=NAMES)
    before = found_in(grown, window)
    grown.groups["inputs"].bank.update(more)
    fresh = build({"inputs": np.concatenate([rows, more])}, streams=NAMES)
    after = found_in(grown, window)
    assert after.streams == found_in(fresh, window).streams != before.streams


def test_merging_makes_it_sorted_again(build, rng):
    first, second, window = (build({"inputs": rng.normal(i, 1, (80, 3))}, streams=NAMES) for i in range(3))
    found_in(first, window)
    first.groups["inputs"].bank.merge(second.groups["inputs"].bank)
    assert found_in(first, window).streams == found_in(copy.deepcopy(first), window).streams


def test_what_is_known_of_a_baseline_goes_with_it(build, rng):
    baseline, window = (build({"inputs": rng.normal(size=(150, 3))}, streams=NAMES) for _ in range(2))
    found_in(baseline, window)
    bank = baseline.groups["inputs"].bank
    assert bank in evidence._KNOWN
    assert window.groups["inputs"].bank not in evidence._KNOWN
    known = len(evidence._KNOWN)
    del baseline, bank
    gc.collect()
    assert len(evidence._KNOWN) < known


def test_very_large_baselines_are_not_kept(build, rng, monkeypatch):
    monkeypatch.setattr(evidence, "_LARGEST_KEPT", 100)
    baseline, window = (build({"inputs": rng.normal(size=(150, 3))}, streams=NAMES) for _ in range(2))
    assert found_in(baseline, window).streams == found_in(baseline, window).streams
    assert baseline.groups["inputs"].bank not in evidence._KNOWN


def test_labels_of_which_a_row_has_several_are_shares_of_rows():
    """Twice as many labels of everything are a change, though their shares among each other are the same."""
    profiles = []
    for seed, share in ((1, 0.1), (2, 0.2)):
        profiler = Profiler(seed=seed)
        profiler.update(labels=(np.random.default_rng(seed).random((1000, 5)) < share).astype(np.float64))
        profiles.append(profiler.profile())
    (labels,) = compare(*profiles).groups
    (found,) = (stream for stream in labels.streams if stream.kind == "categories")
    counts = [np.array([each.groups["labels"].categories[""].top(9)]) for each in profiles]
    shares = [{name: int(n) / 1000 for name, n in count[0]} for count in counts]
    assert found.effect == pytest.approx(max(abs(shares[0][name] - shares[1][name]) for name in shares[0]))
    assert found.drift


def test_streams_apart_are_made_once_and_not_for_each_other(monkeypatch):
    """2,000 of them, as many as an hour of a device may have, took a minute to compare."""
    made = []
    only = Group._only
    monkeypatch.setattr(Group, "_only", lambda group, *of: made.append(of[0]) or only(group, *of))
    bank = KLLBank(1)
    bank.update(np.arange(20.0)[:, None])
    group = Group("inputs", sketches={f"bank/pixel/{number}": bank for number in range(40)})
    assert len(compare_group(Side.of(group), Side.of(group)).streams) == 40
    assert len(made) < 10 * 40
