"""One pass by several conventions is, for each of them, the pass by it alone; and what belongs together finds it."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import reduce
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from libraries import IMMUTABLE, as_if_elsewhere, maker
from photographs import patches

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profile, Profiler, calibrate, cli, compare, measure
from lensai_integrations.errors import DefinitionError, InputError
from lensai_integrations.measures import images as image_measures_module
from lensai_integrations.profiles.conventions import (
    checked_conventions,
    conventions_of,
    image_groups,
    named_as_measured,
    paired,
    renamed,
    title_of,
    with_conventions,
)
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.summary import to_csv
from lensai_integrations.profiling.datasets import profile_dataset
from lensai_integrations.report import baseline_html, drift_html
from lensai_integrations.sketches.rows import RowSample

BOTH, EDGE = ("lensai", "lensai-edge"), "inputs/lensai-edge"
ORDERS = list(permutations(BOTH))


@measure("brightest_pixel")
def lightest(images):
    """The lightest value."""
    return images.max((1, 2, 3))


def given(images):
    labels = np.arange(len(images)) % 3
    return {"inputs": images, "outputs": np.eye(3)[labels] * 3.0, "labels": labels}


def profiled(convention=None, n=320, *, seed=3, images=None, **settings):
    images = patches(n) if images is None else images
    profiler = Profiler(convention=convention, seed=seed, **settings)
    for start in range(0, len(images), 32):
        profiler.update(**given(images[start : start + 32]))
    return profiler.profile()


def assert_same(one, other):
    assert one.sketches.keys() == other.sketches.keys()
    for key, sketch in one.sketches.items():
        mine, theirs = sketch.state(), other.sketches[key].state()
        assert mine.keys() == theirs.keys()
        for name, array in mine.items():
            np.testing.assert_array_equal(array, theirs[name], err_msg=f"{key} {name}")


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_each_convention_is_as_it_is_alone(order):
    together = profiled(order)
    assert list(together.groups) == [*("inputs" if each == "lensai" else EDGE for each in order), "outputs", "labels"]
    for name, convention in image_groups(order).items():
        group, alone = together.groups[name], profiled(convention).groups[name]
        assert_same(group, alone)
        assert (group.streams, group.definitions, group.info) == (alone.streams, alone.definitions, alone.info)
        assert group.info["convention"] == convention
        np.testing.assert_array_equal(together.rows.data[name], profiled(convention).rows.data[name])


@pytest.mark.parametrize("kind", ["float32", "bad pixels", "grey", "torch", "empty"])
def test_so_it_is_for_batches_of_every_kind(kind):
    import torch

    images = patches(12).astype(np.float32) / 255
    images[3, 0, 0] = np.nan if kind == "bad pixels" else 0.5
    images = {"grey": images[..., :1], "torch": torch.from_numpy(images), "empty": images[:0]}.get(kind, images)
    profiles = {}
    for convention in (BOTH, *BOTH):
        profiler = Profiler(convention=convention, seed=1, inputs=ImageInputs(layout="NHWC", scale=255))
        for _ in range(2):
            profiler.update(inputs=images)
        profiles[convention] = profiler.profile()
    for name, convention in image_groups(BOTH).items():
        assert_same(profiles[BOTH].groups[name], profiles[convention].groups[name])
    assert [group.invalid for group in profiles[BOTH].groups.values()] == [2 * (kind == "bad pixels")] * 2


@pytest.mark.parametrize("library", IMMUTABLE)
def test_so_it_is_where_batches_are_traced_elsewhere(library, monkeypatch):
    with monkeypatch.context() as elsewhere:
        as_if_elsewhere(elsewhere)
        traced = _of(maker(library)(patches(24)), BOTH)
    plain = _of(patches(24), BOTH)
    for name, group in plain.groups.items():
        np.testing.assert_array_equal(traced.groups[name].pixels.counts, group.pixels.counts)
        assert traced.groups[name].pixels.n == 24
        np.testing.assert_allclose(traced.rows.data[name].min(0), plain.rows.data[name].min(0), rtol=1e-3, atol=1e-3)


def _of(images, convention):
    profiler = Profiler(convention=convention, seed=1)
    profiler.update(inputs=images)
    return profiler.profile()


def test_images_are_read_and_brought_to_scale_once(monkeypatch):
    made = []
    blocks, add_up = image_measures_module.blocks, image_measures_module.add_up

    def in_blocks(images):
        made.append(images.n)
        return blocks(images)

    def in_one_pass(images, **wanted):
        added = add_up(images, **wanted)
        made.extend([] if added is None else [images.n])
        return added

    monkeypatch.setattr(image_measures_module, "blocks", in_blocks)
    monkeypatch.setattr(image_measures_module, "add_up", in_one_pass)
    _of(patches(20), BOTH)
    assert made == [20]

    monkeypatch.setattr(image_measures_module, "add_up", lambda images, **wanted: None)
    made.clear()
    _of(patches(20), BOTH)
    assert made == [20]


@pytest.mark.parametrize("value", ["edge", (), ("lensai", "lensai"), ("lensai", "edge"), 3, ("lensai", 3), {}])
def test_what_is_no_convention_is_refused_when_it_is_given(value):
    with pytest.raises(InputError, match="convention="):
        Profiler(convention=value)


@drawn(st.lists(st.sampled_from(BOTH), min_size=1, unique=True))
def test_any_order_and_choice_of_them_is_taken(names):
    assert checked_conventions(names) == tuple(names)
    assert conventions_of(Profile({n: Group(n, info={"convention": c}) for n, c in image_groups(names).items()})) == (
        tuple(names)
    )


def stub(conventions, **more):
    names = {**image_groups(conventions), **more}
    return Profile({name: Group(name, info={"convention": convention}) for name, convention in names.items()})


some = st.sampled_from([*[(each,) for each in BOTH], *ORDERS])


@drawn(some, some)
def test_groups_of_one_convention_are_called_alike_and_no_others(ours, theirs):
    window, reference = stub(ours), stub(theirs)
    found = paired(window, reference).groups
    shared = set(ours) & set(theirs)
    assert len(found) == len(ours)
    assert {group.name for group in found.values()} == found.keys()
    for name, group in found.items():
        other = reference.groups.get(name)
        if group.info["convention"] in shared:
            assert other is not None
            assert other.info == group.info
        else:
            assert (other is None) == bool(shared)


def test_a_match_of_delivered_images_does_not_hide_that_the_models_were_measured_otherwise():
    window, reference = stub(["lensai-edge"], raw="lensai"), stub(["lensai"], raw="lensai")
    assert list(paired(window, reference).groups) == ["inputs", "raw"]


def test_a_custom_measure_cannot_be_called_as_a_group_is():
    with pytest.raises(InputError, match="lensai-edge"):
        measure("lensai-edge")(lambda images: images.mean((1, 2, 3)))


def test_custom_measures_are_measured_once():
    groups = profiled(BOTH, measures=[lightest]).groups
    assert (list(groups["inputs"].apart), list(groups[EDGE].apart)) == (["brightest_pixel"], [])


@pytest.mark.parametrize("failing", BOTH)
@pytest.mark.parametrize("where", ["over_pixels", "formula"])
def test_a_convention_that_fails_leaves_the_other_as_it_is(failing, where, monkeypatch):
    known = image_measures_module.CONVENTIONS[failing]

    def fails(*_):
        raise ArithmeticError("out of order")

    broken = (
        replace(known, over_pixels=fails)
        if where == "over_pixels"
        else replace(known, measures=(replace(known.measures[0], formula=fails), *known.measures[1:]))
    )
    image_measures_module._used.cache_clear()
    monkeypatch.setattr(image_measures_module, "add_up", lambda images, **wanted: None)  # its last digits are others
    with monkeypatch.context() as patch:
        patch.setitem(image_measures_module.CONVENTIONS, failing, broken)
        told = []
        found = profiled(BOTH, on_error=lambda *what: told.append(what))
        with pytest.raises(ArithmeticError):
            profiled(BOTH)
    image_measures_module._used.cache_clear()
    (other,) = set(BOTH) - {failing}
    names = {convention: name for name, convention in image_groups(BOTH).items()}
    assert names[failing] not in found.groups
    assert_same(found.groups[names[other]], profiled(other).groups[names[other]])
    assert {name for name, _ in told} == {names[failing]}
    assert len([warning for warning in found.warnings if "out of order" in warning]) == 1


def test_merging_saving_and_loading_keep_both(tmp_path):
    parts = [profiled(BOTH, images=patches(96)[i::3], seed=i, segment_by="label") for i in range(3)]
    whole = reduce(Profile.merge, parts)
    assert {name: group.n for name, group in whole.groups.items()} == dict.fromkeys(whole.groups, 96)
    assert whole.rows.n == 96
    baseline = Baseline(whole, parts[0])
    baseline.save(tmp_path / "baseline", report_html=baseline_html(baseline))
    loaded = Baseline.load(tmp_path / "baseline")
    for name, group in whole.groups.items():
        assert_same(loaded.reference.groups[name], group)
    assert loaded.reference.groups[EDGE].info == whole.groups[EDGE].info
    assert {"0", "1", "2"} == loaded.reference.segments.keys()
    assert all(set(each.groups) == {"inputs", EDGE, "outputs", "labels"} for each in loaded.reference.segments.values())
    table = (tmp_path / "baseline" / "streams.csv").read_text()
    assert f"{EDGE}/brightness," in table
    assert table == to_csv({source: profile.groups for source, profile in loaded.sources().items()})


def test_the_report_shows_both_under_titles_of_their_own():
    html = baseline_html(profiled(BOTH, n=64))
    assert html.count("Inputs, as devices measure them") >= 2
    assert "measured by convention lensai-edge" in html
    assert "Inputs, as devices measure them" not in baseline_html(profiled("lensai", n=64))
    assert title_of("embeddings/pool") == "Embeddings/pool"


@pytest.fixture(scope="module")
def baseline():
    return calibrate(profiled(BOTH), draws=100)


@pytest.fixture(scope="module")
def dark():
    return (patches(160, seed=9) * 0.6).astype(np.uint8)


@pytest.mark.parametrize("convention", [*BOTH, *ORDERS], ids=str)
@pytest.mark.parametrize("correction", ["auto", "holm"])
def test_a_window_is_held_against_what_was_measured_alike(convention, correction, baseline, dark):
    clean = compare(baseline, profiled(convention, images=patches(160, seed=9)), correction=correction)
    report = compare(baseline, profiled(convention, images=dark), correction=correction)
    names = {"lensai": "inputs", "lensai-edge": EDGE}
    expected = {names[each] for each in ((convention,) if isinstance(convention, str) else convention)}
    assert {group.name for group in report.groups} - {"outputs", "labels"} == expected
    assert not clean.drift
    assert report.drift
    assert {group.name for group in report.groups if group.drift} == expected
    left = {"inputs", EDGE} - expected
    assert [note for note in report.notes if note.startswith("only in")] == [
        f"only in the baseline, not compared: {name}" for name in left
    ]


def test_both_ways_of_naming_give_the_same_report(baseline, dark):
    """The same window, its conventions in the other order."""
    one, other = (compare(baseline, profiled(order, images=dark)).to_dict() for order in ORDERS)
    assert one == other


def test_the_pages_of_windows_of_either_convention_draw_both_sides(baseline, dark):
    window = profiled("lensai-edge", images=dark)
    html = drift_html(compare(baseline, window), baseline, window)
    assert "Inputs, as devices measure them" in html
    section = html.split("Inputs, as devices measure them", 1)[1]
    assert "window, 160" in section


def test_segments_are_held_against_what_was_measured_alike(dark):
    baseline = profiled(BOTH, segment_by="label")
    report = compare(baseline, profiled("lensai-edge", images=dark, segment_by="label"))
    assert all({g.name for g in s.groups} == {EDGE, "outputs"} for s in report.segments)
    assert any(segment.drift for segment in report.segments)


def test_what_no_side_has_in_common_says_why(baseline):
    other = profiled("lensai", n=64)
    with pytest.raises(DefinitionError, match="lensai-edge/brightness@1"):
        compare(other, profiled("lensai-edge", n=64))
    report = compare(profiled("lensai-edge"), profiled(BOTH, n=64))
    assert {group.name for group in report.groups} >= {EDGE}
    assert "only in the window, not compared: inputs" in report.notes


def test_a_profile_of_the_same_names_is_not_copied(baseline):
    window = profiled(BOTH, n=64)
    assert paired(window, baseline.reference) is window
    assert with_conventions(window, BOTH) is window
    with pytest.raises(KeyError):
        _ = with_conventions(window, ["lensai-edge"]).groups["inputs"]


def test_renaming_takes_rows_custom_measures_and_segments_along():
    window = profiled("lensai", n=64, measures=[lightest], segment_by="label")
    other = renamed(window, {"inputs": "inputs/lensai", "labels": None})
    assert list(other.groups) == ["inputs/lensai", "outputs"]
    assert list(other.rows.widths) == ["inputs/lensai", "inputs/lensai/brightest_pixel", "outputs", "outputs/top_class"]
    assert all(list(segment.groups) == list(other.groups) for segment in other.segments.values())
    assert list(window.groups) == ["inputs", "outputs", "labels"]
    assert renamed(window, dict.fromkeys([*window.groups])).rows.widths == {"outputs/top_class": 1}


def test_production_measures_what_the_model_is_held_against_unless_told_otherwise(baseline):
    assert list(profiled(like=baseline, n=32).groups) == ["inputs", "outputs", "labels"]
    assert list(profiled(BOTH, like=baseline, n=32).groups)[:2] == ["inputs", EDGE]
    edge = profiled("lensai-edge", like=baseline, n=32)
    assert edge.groups[EDGE].info["convention"] == "lensai-edge"
    assert edge.groups[EDGE].info["reader"] == baseline.reference.groups["inputs"].info["reader"]
    with pytest.raises(InputError, match=r"convention='lensai-edge'.*measured by 'lensai'"):
        Profiler(like=profiled("lensai", n=32), convention="lensai-edge")


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@pytest.mark.parametrize("warm", [False, True])
def test_monitors_measure_the_first(order, warm, dark):
    baseline = calibrate(profiled(order), draws=100)
    with DriftMonitor(baseline, 40, warm_start=warm, stride=20 if warm else None) as monitor:
        clean, moved = (monitor.update(**given(images)) for images in (patches(40, seed=9), dark[:80]))
        assert monitor.status.failures == {}
        assert len(monitor.score(inputs=dark[:5])) == 5
    first = "inputs" if order[0] == "lensai" else EDGE
    assert {name for each in (*clean, *moved) for name in each.profile.groups} == {first, "outputs", "labels"}
    assert moved[-1].profile.rows is not None
    assert (clean[-1].level, moved[-1].level) == ("ok", "alarm")


@pytest.fixture
def command(monkeypatch):
    """`command(*arguments)`: the exit code of the command, run in this process."""
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lensai", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("frames")
    for number, patch in enumerate(patches(120, 48)):
        Image.fromarray(patch).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("made", ["files", "samples", "transform", "collector", "command"])
def test_images_as_they_were_delivered_have_one_convention(made, files, tmp_path, capsys, command):
    from lensai_integrations.profiling.delivered_images import Collector
    from lensai_integrations.transforms import ProfileImages

    calls = {
        "files": lambda: profile_dataset(files, convention=BOTH),
        "samples": lambda: profile_dataset([(image, 0) for image in patches(4)], convention=BOTH),
        "transform": lambda: ProfileImages(convention=BOTH),
        "collector": lambda: Collector(convention=BOTH),
    }
    if made != "command":
        with pytest.raises(InputError, match=r"convention=.*by one convention at a time"):
            calls[made]()
        return
    flags = [each for name in BOTH for each in ("--convention", name)]
    assert command("profile", files, "-o", tmp_path / "out", "--jobs", "0", *flags) == 2
    assert "by one convention at a time" in capsys.readouterr().err


def test_batches_of_a_loader_are_measured_by_both_and_like_a_baseline_by_the_first(baseline):
    batches = [(part, np.zeros(len(part), int)) for part in np.split(patches(64), 4)]
    assert list(profile_dataset(iter(batches), convention=BOTH).groups) == ["inputs", EDGE, "labels"]
    assert list(profile_dataset(iter(batches), like=baseline).groups) == ["inputs", "labels"]


def test_files_profiled_before_the_resize_are_what_a_device_is_held_against(files, tmp_path, capsys, command):
    from lensai_integrations import edge

    assert command("profile", files, "-o", tmp_path / "frames", "--jobs", "0", "--convention", "lensai-edge") == 0
    capsys.readouterr()
    for name, share in (("same", 1.0), ("dark", 0.6)):
        camera = Profiler(convention="lensai-edge", seed=1)
        camera.update(inputs=(patches(120, 48) * share).astype(np.uint8))
        edge.write_stats(camera.profile(), tmp_path / name)
        device = edge.read_stats(tmp_path / name)
        device.save(tmp_path / f"{name}-profile")
        report = compare(Profile.load(tmp_path / "frames"), device)
        assert ([group.name for group in report.groups], report.drift) == (["raw"], name == "dark")
        assert command("compare", tmp_path / "frames", tmp_path / f"{name}-profile") == int(name == "dark")
    assert "raw/brightness" in capsys.readouterr().out


def test_show_names_both(tmp_path, capsys, command):

    profiled(BOTH, n=32).save(tmp_path / "both")
    assert command("show", tmp_path / "both") == 0
    shown = capsys.readouterr().out
    assert "inputs/lensai-edge/noise" in shown
    assert "inputs/noise_sigma" in shown


@pytest.mark.parametrize("where", ["groups", "rows", "segments"])
def test_no_name_of_before_is_given_to_what_has_it_already(where: str) -> None:
    taken = "inputs/lensai-edge"
    rows = RowSample(4, seed=0)
    rows.update(
        {"inputs": np.zeros((2, 1), np.float32)} | ({taken: np.ones((2, 2), np.float32)} if where == "rows" else {})
    )
    groups = {"inputs": Group("inputs", info={"convention": "lensai-edge"})}
    profile = Profile(
        groups | ({taken: Group(taken)} if where == "groups" else {}),
        rows,
        {},
        {"site": Profile({taken: Group(taken)})} if where == "segments" else {},
    )
    assert named_as_measured(profile) == (profile, {})
    named, names = named_as_measured(Profile(groups))
    assert (list(named.groups), names) == ([taken], {"inputs": taken})
