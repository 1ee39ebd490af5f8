"""Profiles merge as if the rows had been seen together, refuse what cannot be compared, and describe themselves."""

from __future__ import annotations

import numpy as np
import pytest
from profiles import CLASSES, WIDTH, make_baseline, make_profile

from lensai_integrations import Baseline, Profile, Profiler
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.profiles.groups import Group, check_comparable
from lensai_integrations.sketches.kinds import KINDS


@pytest.fixture(scope="module")
def parts() -> list[Profile]:
    return [make_profile(n, seed=n) for n in (70, 130, 200)]


def facts(profile: Profile) -> dict[str, object]:
    """Everything about a profile that merging must get exactly right, whatever the order."""
    result: dict[str, object] = {"n": profile.n}
    for name, group in profile.groups.items():
        result[name] = (group.n, group.invalid, group.streams, tuple(sorted(group.definitions.items())))
        if group.bank is not None:
            result[f"{name} min"] = group.bank.min.tolist()
            result[f"{name} max"] = group.bank.max.tolist()
        if group.pixels is not None:
            result[f"{name} pixels"] = group.pixels.counts.tolist()
        for stream, sketch in group.categories.items():
            result[f"{name} {stream}"] = sorted(sketch.top(10))
    assert profile.rows is not None
    result["rows"] = {k: sorted(map(tuple, np.nan_to_num(v).tolist())) for k, v in profile.rows.data.items()}
    return result


def test_merging_is_associative_in_all_that_is_exact(parts: list[Profile]) -> None:
    a, b, c = parts
    assert facts(a.merge(b).merge(c)) == facts(a.merge(b.merge(c)))


def test_merging_commutes_in_all_that_is_exact(parts: list[Profile]) -> None:
    assert facts(parts[0].merge(parts[1])) == facts(parts[1].merge(parts[0]))


def test_merging_changes_neither_side(parts: list[Profile]) -> None:
    before = facts(parts[0]), facts(parts[1])
    parts[0].merge(parts[1])
    assert (facts(parts[0]), facts(parts[1])) == before


def test_merged_quantiles_are_those_of_all_rows(parts: list[Profile]) -> None:
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.rows is not None  # fewer rows than the sample keeps: it holds them all, so it is the truth
    truth = np.sort(merged.rows.data["inputs"], axis=0)
    assert len(truth) == 400
    group = merged.groups["inputs"]
    ranks = np.array([0.1, 0.5, 0.9])
    assert group.bank is not None
    for column, quantiles in enumerate(group.bank.quantiles(ranks)):
        found = np.searchsorted(truth[:, column], quantiles, side="right") / len(truth)
        lowest = np.searchsorted(truth[:, column], quantiles, side="left") / len(truth)
        assert np.all(found >= ranks - 0.03)
        assert np.all(lowest <= ranks + 0.03)


def test_mean_and_covariance_merge_exactly(parts: list[Profile]) -> None:
    merged = parts[0].merge(parts[1])
    assert merged.rows is not None
    rows = merged.rows.data["embeddings/avgpool"].astype(np.float64)
    moments = merged.groups["embeddings/avgpool"].moments
    assert moments is not None
    np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T), atol=1e-5)


def test_a_group_that_only_one_side_has_is_kept(parts: list[Profile]) -> None:
    other = Profile({"outputs": parts[1].groups["outputs"]})
    merged = parts[0].merge(other)
    assert merged.groups["inputs"].n == parts[0].groups["inputs"].n
    assert merged.groups["outputs"].n == parts[0].groups["outputs"].n + parts[1].groups["outputs"].n


def test_what_both_say_alike_stays_said(parts: list[Profile]) -> None:
    a = Profile(info={"source": "production", "site": "north", "warnings": ["one"]})
    b = Profile(info={"source": "production", "site": "south", "warnings": ["two", "one"]})
    assert a.merge(b).info == {"source": "production", "warnings": ["one", "two"]}


def test_other_definitions_are_not_merged() -> None:
    lensai, edge = make_profile(10), make_profile(10, convention="lensai-edge")
    with pytest.raises(DefinitionError, match=r"measured by 'lensai' in one profile and by 'lensai-edge' in the other"):
        lensai.merge(edge)
    both = make_profile(10, convention=("lensai-edge", "lensai"))
    assert {name: group.n for name, group in both.merge(edge).groups.items() if name.startswith("inputs")} == {
        "inputs/lensai-edge": 20,
        "inputs": 10,
    }


def test_check_comparable_names_both_definitions() -> None:
    with pytest.raises(DefinitionError, match="'lensai/noise@1' in one profile and as 'lensai/noise@2'"):
        check_comparable(
            Group("i", definitions={"noise": "lensai/noise@1"}), Group("i", definitions={"noise": "lensai/noise@2"})
        )


def test_other_projections_are_not_merged() -> None:
    a, b = (Profile({"e": Group("e", ("0",), {"*": "lensai/embedding_projected@1"}, info={"seed": s})}) for s in (0, 1))
    with pytest.raises(DefinitionError, match="seed=0 in one profile and 1 in the other"):
        a.merge(b)


def test_other_streams_are_not_merged() -> None:
    a = Profile({"g": Group("g", ("x", "y"))})
    b = Profile({"g": Group("g", ("x", "z"))})
    with pytest.raises(InputError, match=r"only in the first: \['y'\], only in the second: \['z'\]"):
        a.merge(b)


def test_row_samples_with_other_columns_are_dropped_and_it_is_said() -> None:
    with_labels, without = make_profile(40), make_profile(40, seed=5)
    assert without.rows is not None
    lone = Profile(without.groups, type(without.rows)(10, seed=3), {})
    assert lone.rows is not None
    lone.rows.update({"other": np.zeros((5, 2), np.float32)}, 5)
    merged = with_labels.merge(lone)
    assert merged.rows is None
    assert any("row sample was dropped" in warning for warning in merged.warnings)


def test_kernel_means_on_very_different_scales_are_dropped_and_it_is_said() -> None:
    profiles = []
    for scale in (1.0, 1000.0):
        profiler = Profiler(seed=int(scale))
        profiler.update(embeddings={"e": np.random.default_rng(0).normal(0, scale, (40, 8))})
        profiles.append(profiler.profile())
    merged = profiles[0].merge(profiles[1])
    assert merged.groups["embeddings/e"].kernel_mean is None
    assert merged.groups["embeddings/e"].n == 80
    assert any("kernel mean was dropped" in warning for warning in merged.warnings)


def test_every_kind_of_sketch_appears_in_a_real_profile() -> None:
    kinds = {key.split("/")[0] for group in make_profile(20).groups.values() for key in group.sketches}
    assert kinds == set(KINDS)


def test_a_definition_is_found_for_every_stream() -> None:
    for summary in make_baseline(50).reference.summaries():
        assert "@" in summary.definition, summary.stream


def test_summaries_name_every_stream_once() -> None:
    profile = make_profile(50)
    names = [summary.stream for summary in profile.summaries()]
    assert len(names) == len(set(names))
    assert {
        "inputs/brightness",
        "inputs/mean/0",
        "inputs/pixel/2",
        "outputs/margin_confidence",
        "outputs/top_class",
    } <= set(names)
    assert {"embeddings/avgpool/0", f"embeddings/avgpool/{WIDTH - 1}", "labels"} <= set(names)
    assert sum(name.startswith("outputs/softmax/") for name in names) == CLASSES


def test_the_table_has_a_row_per_source_and_stream() -> None:
    baseline = make_baseline(50)
    table = baseline.to_pandas()
    assert list(table.source.unique()) == ["validation", "training"]
    brightness = table[table.stream == "inputs/brightness"].set_index("source")
    assert brightness.n.to_dict() == {"validation": 50, "training": 100}
    assert (brightness["min"] <= brightness["p50"]).all()
    assert (brightness["p50"] <= brightness["max"]).all()


def test_a_baseline_gathers_the_warnings_of_all_its_profiles() -> None:
    baseline = Baseline(Profile(info={"warnings": ["a"]}), Profile(info={"source": "training", "warnings": ["b", "a"]}))
    baseline.info["warnings"] = ["c"]
    assert baseline.warnings == ["c", "a", "b"]


def test_an_empty_profile_says_so() -> None:
    assert (Profile().n, Profile().source, Profile().summaries(), Profile().warnings) == (0, "unknown", [], [])
