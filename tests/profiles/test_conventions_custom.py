"""Custom measures belong to no convention: whichever their profile has, they are held against each other."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from lensai_integrations import Baseline, DriftMonitor, Profile, Profiler, calibrate, compare, edge, measure
from lensai_integrations.profiles.conventions import paired, with_conventions
from lensai_integrations.report import drift_html

BOTH, EDGE = ("lensai", "lensai-edge"), "inputs/lensai-edge"
ORDERS = list(permutations(BOTH))


@measure("glare_by_convention")
def glare(images):
    """The lightest value."""
    return images.max((1, 2, 3))


@measure("corner_by_convention")
def corner(images):
    """The first pixel."""
    return images[:, 0, 0]


CUSTOM = ["glare_by_convention", "corner_by_convention"]


def profiled(convention=None, *, n=200, seed=0, share=1.0, broken=0, **settings):
    images = np.random.default_rng(seed).integers(0, 200, (n, 6, 6, 3)).astype(np.float32)
    images[:, 1, 1] = 200 + 50 * share * np.random.default_rng(seed + 1).random((n, 1))
    images[:broken, 2] = np.nan
    profiler = Profiler(convention=convention, seed=seed + 2, **settings)
    profiler.update(inputs=images / 255, labels=np.arange(n) % 2)
    return profiler.profile()


def measured(profile: Profile) -> dict[str, list[str]]:
    return {name: list(group.custom) for name, group in profile.groups.items() if group.custom}


@pytest.fixture(scope="module", params=ORDERS, ids=" ".join)
def baseline(request):
    return calibrate(profiled(request.param, measures=[glare, corner], segment_by="label"), draws=100)


@pytest.mark.parametrize("convention", [*BOTH, *ORDERS], ids=str)
@pytest.mark.parametrize("correction", ["auto", "holm"])
def test_they_are_compared_whatever_the_window_was_measured_by(convention, correction, baseline):
    clean, moved = (
        profiled(convention, seed=9, share=share, like=baseline, segment_by="label") for share in (1.0, 0.3)
    )
    found = compare(baseline, clean, correction=correction)
    streams = {stream.stream for group in found.groups for stream in group.streams}
    assert {"inputs/glare_by_convention", *(f"inputs/corner_by_convention/{c}" for c in range(3))} <= streams
    assert not any("custom" in note for group in found.groups for note in group.notes)
    assert not found.drift
    report = compare(baseline, moved, correction=correction)
    assert "inputs/glare_by_convention" in {stream.stream for stream in report.moved}
    assert {group.name for each in found.segments for group in each.groups} <= {"inputs", EDGE}
    html = drift_html(report, baseline, moved)
    assert "glare_by_convention" in html


@pytest.mark.parametrize("window", [*BOTH, *ORDERS], ids=str)
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_pairing_moves_them_whole_and_changes_no_profile(order, window):
    reference = profiled(order, n=40, measures=[glare, corner], segment_by="label")
    own = profiled(window, n=40, seed=5, measures=[glare, corner], segment_by="label")
    before = {name: (dict(g.definitions), dict(g.info), dict(g.sketches)) for name, g in own.groups.items()}
    columns = dict(own.rows.widths)
    found = paired(own, reference)
    assert measured(found) == {"inputs": CUSTOM}
    home = "inputs" if window != "lensai-edge" else EDGE
    group, given = found.groups["inputs"], own.groups[home]
    for name in CUSTOM:
        assert group.sketches[f"bank/{name}"] is given.sketches[f"bank/{name}"]
        assert (group.custom[name], group.definition_of(name)) == (given.custom[name], given.definition_of(name))
    others = [group for group in found.groups.values() if group.name != "inputs"]
    assert not any(group.apart or any(name in group.definitions for name in CUSTOM) for group in others)
    assert all(segment.groups.keys() <= found.groups.keys() for segment in found.segments.values())
    assert {f"inputs/{name}" for name in CUSTOM} == {name for name in found.rows.widths if "by_convention" in name}
    for name in CUSTOM:
        np.testing.assert_array_equal(found.rows.data[f"inputs/{name}"], own.rows.data[f"{home}/{name}"])
    assert measured(own) == {home: CUSTOM}
    assert own.rows.widths == columns
    assert {name: (g.definitions, g.info, g.sketches) for name, g in own.groups.items()} == before


def test_a_window_of_one_convention_has_them_in_a_group_of_their_own():
    reference = profiled(BOTH, n=40, measures=[glare, corner])
    found = paired(profiled("lensai-edge", n=40, measures=[glare]), reference)
    assert found.groups["inputs"].sketches.keys() == {"bank/glare_by_convention"}
    assert found.groups["inputs"].info.keys() == {"measures"}
    assert paired(found, reference) is found
    notes = {group.name: group.notes for group in compare(reference, found).groups}
    assert notes["inputs"][0] == "custom measures only on one side, not compared: corner_by_convention"
    assert notes["inputs"][1].startswith("only on one side, not compared: ")


def test_one_that_the_reference_lacks_stays_where_it_is():
    found = paired(profiled("lensai-edge", n=40, measures=[glare]), profiled(BOTH, n=40))
    assert measured(found) == {EDGE: CUSTOM[:1]}
    assert list(found.rows.widths) == [EDGE, f"{EDGE}/glare_by_convention", "labels"]


def test_rows_left_out_of_one_convention_are_no_news_of_the_custom_measures():
    reference = profiled(BOTH, n=200, broken=100, measures=[corner])
    report = compare(reference, profiled("lensai-edge", seed=9, broken=100, like=reference))
    assert not report.drift
    assert "inputs/invalid" not in {stream.stream for group in report.groups for stream in group.streams}
    assert f"{EDGE}/invalid" in {stream.stream for group in report.groups for stream in group.streams}


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("wanted", [*ORDERS, *((each,) for each in BOTH)], ids=" ".join)
def test_they_are_with_lensai_if_that_is_wanted_in_whatever_order(order, wanted, tmp_path):
    profile = profiled(order, n=40, measures=[glare, corner])
    found = with_conventions(profile, wanted)
    home = "inputs" if "lensai" in wanted else EDGE
    assert measured(found) == {home: CUSTOM}
    assert {f"{home}/{name}" for name in CUSTOM} <= found.rows.widths.keys()
    assert measured(profile) == {"inputs": CUSTOM}
    assert (found is profile) == (len(wanted) == 2)
    names = {path.name for path in edge.write_stats(profile, tmp_path)}
    assert names == {path.name for path in edge.write_stats(profiled(order, n=40), tmp_path)}


def test_saved_and_loaded_they_still_find_each_other(tmp_path):
    Baseline(profiled(BOTH, measures=[glare])).save(tmp_path / "baseline")
    profiled("lensai-edge", seed=9, share=0.3, measures=[glare]).save(tmp_path / "window")
    report = compare(Baseline.load(tmp_path / "baseline"), Profile.load(tmp_path / "window"))
    assert [stream.stream for stream in report.moved] == ["inputs/glare_by_convention"]


def test_monitors_measure_them(baseline):
    images = np.random.default_rng(9).integers(0, 200, (80, 6, 6, 3)).astype(np.float32) / 255
    with DriftMonitor(baseline, 40) as monitor:
        (first, _) = monitor.update(inputs=images, labels=np.arange(80) % 2, segments=None)
    assert "inputs/glare_by_convention" in {stream.stream for group in first.report.groups for stream in group.streams}
