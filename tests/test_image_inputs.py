"""Several image inputs: each is a group of its own, measured as it would be alone, and rows belong together."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pytest
from snippets import run_section

from lensai_integrations import (
    Baseline,
    DriftMonitor,
    ImageInputs,
    Profile,
    Profiler,
    calibrate,
    compare,
    measure,
    profile_dataset,
)
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.conventions import with_conventions

BOTH = ("lensai", "lensai-edge")
NAMED = {"left": ImageInputs(), "right": ImageInputs()}


def images(seed, n=40, shape=(8, 10, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def profiled(batch, inputs=NAMED, **settings):
    profiler = Profiler(inputs=inputs, seed=1, **settings)
    profiler.update(inputs=batch)
    return profiler.profile()


def equal(one, two):
    """Whether two groups are the same in every array of every sketch."""
    assert one.sketches.keys() == two.sketches.keys()
    for key, sketch in one.sketches.items():
        theirs = two.sketches[key].state()
        for name, array in sketch.state().items():
            np.testing.assert_array_equal(array, theirs[name])
    assert (one.streams, one.definitions, one.info) == (two.streams, two.definitions, two.info)
    return True


@pytest.mark.parametrize("convention", [("lensai",), BOTH])
def test_each_is_what_it_would_be_alone(convention):
    left, right = images(0, n=600), images(1, n=600, shape=(6, 6, 1))
    both = profiled({"left": left, "right": right}, convention=convention)
    for name, array in (("left", left), ("right", right)):
        alone = profiled({name: array}, {name: ImageInputs()}, convention=convention)
        assert list(alone.groups) == [f"inputs/{name}", f"inputs/{name}/lensai-edge"][: len(convention)]
        assert all(equal(both.groups[group], alone.groups[group]) for group in alone.groups)
    assert list(both.groups)[:: len(convention)] == ["inputs/left", "inputs/right"]


def test_a_single_input_is_called_as_ever():
    assert list(profiled(images(0), None, convention=BOTH).groups) == ["inputs", "inputs/lensai-edge"]


def test_the_sketches_do_not_depend_on_other_conventions():
    batch = {"left": images(0, n=600), "right": images(1, n=600)}
    one, both = profiled(batch), profiled(batch, convention=BOTH)
    banks = [profile.groups["inputs/right"].bank.to_bytes() for profile in (one, both)]
    assert banks[0] == banks[1]


def test_rows_are_joint():
    left, right = images(0), images(1)
    left[::2] //= 2
    right[::2] //= 4  # the same rows are dark in both
    rows = profiled({"left": left, "right": right}).rows
    assert list(rows.widths) == ["inputs/left", "inputs/right"]
    dark = [rows.data[f"inputs/{name}"][:, 0] < 100 for name in ("left", "right")]
    assert dark[0].sum() == 20
    np.testing.assert_array_equal(*dark)


@dataclass
class Pair:
    left: np.ndarray
    right: np.ndarray


@pytest.mark.parametrize(
    "batch",
    [
        lambda left, right: {"right": right, "left": left},
        lambda left, right: ({"left": left, "right": right}, np.arange(40)),
        Pair,
        lambda left, right: [{"left": l, "right": r} for l, r in zip(left, right, strict=True)],  # noqa: E741
        lambda left, right: {"left": list(left), "right": {"image": right, "time": np.arange(40)}},
    ],
)
def test_they_are_found_by_name(batch, caplog):
    left, right = images(0), images(1)
    found = profiled(batch(left, right))
    known = profiled({"left": left, "right": right})
    for name in known.groups:
        assert found.groups[name].bank.to_bytes() == known.groups[name].bank.to_bytes()
    assert not caplog.messages


@pytest.mark.parametrize(
    "batch",
    [
        lambda one, two: (one, two),
        lambda one, two: [one, two],
        lambda one, two: (one, two, np.arange(40)),
        lambda one, two: ((one, two), np.arange(40)),
        lambda one, two: {"0": one, "1": two},
        lambda one, two: {1: two, 0: one},
        lambda one, two: (np.arange(40), one, two),
    ],
)
def test_without_names_they_are_in_order(batch):
    one, two = images(0), images(1)
    found = profiled(batch(one, two), {"0": ImageInputs(), "1": ImageInputs()})
    assert list(found.groups) == ["inputs/0", "inputs/1"]
    for name, array in (("0", one), ("1", two)):
        expected = profiled({name: array}, {name: ImageInputs()}).groups[f"inputs/{name}"]
        assert found.groups[f"inputs/{name}"].bank.to_bytes() == expected.bank.to_bytes()


def test_a_key_leads_to_each():
    left, right = images(0), images(1)
    readers = {"left": ImageInputs(key=(0, "a")), "right": ImageInputs(key=(0, "b"))}
    batch = ({"b": right, "a": left}, np.arange(40))
    found, known = profiled(batch, readers), profiled({"left": left, "right": right})
    for name in known.groups:
        assert found.groups[name].bank.to_bytes() == known.groups[name].bank.to_bytes()
    assert found.groups["inputs/left"].info["reader"]["key"] == (0, "a")
    again = Profiler(like=found, seed=1)
    again.update(inputs={"left": left, "right": right})  # by name, where the key is not
    again.update(inputs=batch)
    assert again.profile().groups["inputs/left"].n == 80


def test_one_that_is_missing_is_named_and_the_other_goes_on():
    errors = []
    profiler = Profiler(inputs=NAMED, on_error=lambda group, error: errors.append((group, str(error))))
    profiler.update(inputs={"left": images(0), "right": images(1)})
    profiler.update(inputs={"left": images(2), "thermal": images(1)})
    profile = profiler.profile()
    assert [profile.groups[f"inputs/{name}"].n for name in ("left", "right")] == [80, 40]
    ((group, told),) = errors
    assert group == "inputs/right"
    assert told.startswith("the image input 'right' is not in the batch, which has ['left', 'thermal']: pass a dict")
    assert any(warning.startswith("inputs/right: batches were left out from row 40 on") for warning in profile.warnings)
    rows = profile.rows.data["inputs/right"]
    assert np.isnan(rows).all(axis=1).sum() == 40
    strict = Profiler(inputs=NAMED)
    with pytest.raises(InputError, match="'right' of this batch is None"):
        strict.update(inputs={"left": images(0), "right": None})
    assert strict.n == 0  # nothing of a batch that is refused


def test_other_names_are_matched_in_order_only_where_there_is_nothing_but_order(caplog):
    left, right = images(0), images(1)
    known = profiled({"left": left, "right": right})
    in_order = Profiler(like=known, seed=1)
    for _ in range(3):
        in_order.update(inputs=(left, right))
    said = "the images at 0 and 1 are read as 'left' and 'right', in this order"
    assert [said in message for message in caplog.messages] == [True]
    assert sum(said in warning for warning in in_order.profile().warnings) == 1
    assert in_order.profile().groups["inputs/right"].n == 120
    with pytest.raises(InputError, match=r"'left' is not in the batch, which has \['cam1', 'cam2'\]"):
        Profiler(like=known).update(inputs={"cam1": left, "cam2": right})
    with pytest.raises(InputError, match="'left' is not in the batch, which is a ndarray without names"):
        Profiler(like=known).update(inputs=left)


@pytest.mark.parametrize("name", ["", "lensai", "lensai-edge", True, 1.5])
def test_a_name_is_a_name(name):
    with pytest.raises(InputError, match="inputs has the name"):
        Profiler(inputs={name: ImageInputs()})


@pytest.mark.parametrize("given", [{}, {"left": "auto"}, "auto", {"a/b": ImageInputs(), "a.b": ImageInputs()}])
def test_other_mappings_are_refused(given):
    with pytest.raises(InputError, match="inputs="):
        Profiler(inputs=given)


def test_a_slash_is_no_level():
    found = profiled({"camera/left": images(0), "camera/right": images(1)},
                     {"camera/left": ImageInputs(), "camera/right": ImageInputs()})  # fmt: skip
    assert list(found.groups) == ["inputs/camera.left", "inputs/camera.right"]


def test_the_readers_of_a_baseline_cannot_be_others():
    two, one = profiled({"left": images(0), "right": images(1)}), profiled(images(0), None)
    with pytest.raises(InputError, match=r"has the image inputs 'left' and 'right': pass inputs=\{'left'"):
        Profiler(like=two, inputs=ImageInputs(scale=1))
    with pytest.raises(InputError, match="one image input, without a name: pass ImageInputs"):
        Profiler(like=one, inputs=NAMED)
    assert list(profiled({"left": images(0)}, {"left": ImageInputs(scale=1)}, like=two).groups) == ["inputs/left"]


def test_advice_is_followed():
    left, right = images(0), images(1)
    with pytest.raises(InputError, match=r"fed all of them inputs=\{'left': ImageInputs\(key='left'\)") as caught:
        Profiler().update(inputs={"left": left, "right": right})
    advice = eval(str(caught.value).rpartition("inputs=")[2])
    assert list(profiled({"left": left, "right": right}, advice).groups) == ["inputs/left", "inputs/right"]
    note = profiled(((left, right), np.arange(40)), None).warnings[0]
    advice = eval(note.rpartition("inputs=")[2])
    assert advice == {"0": ImageInputs(key=(0, 0)), "1": ImageInputs(key=(0, 1))}
    assert list(profiled(((left, right), np.arange(40)), advice).groups) == ["inputs/0", "inputs/1"]


@pytest.fixture(scope="module")
def known():
    profile = profiled({"left": images(0, n=400), "right": images(1, n=400)}, source="validation", convention=BOTH)
    return calibrate(Baseline(profile), draws=200)


def test_only_the_camera_that_went_dark_drifts(known):
    window = Profiler(like=known, seed=2)
    window.update(inputs={"left": images(2, n=200), "right": images(3, n=200) // 2})
    report = compare(known, window.profile())
    assert {group.name: group.drift for group in report.groups} == {"inputs/right": True, "inputs/left": False}
    assert report.moved[0].stream.startswith("inputs/right/")


@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_monitor_tells_them_apart(known, as_tuple, caplog):
    with DriftMonitor(known, window=100) as monitor:
        for dark in (1, 2):
            left, right = images(4, n=100), images(5, n=100) // dark
            reports = monitor.update(inputs=(left, right) if as_tuple else {"right": right, "left": left})
            level = reports[0].level
            assert level == ("ok" if dark == 1 else "alarm")
        assert {name: group["drift"] for name, group in reports[0].to_dict()["groups"].items()} == {
            "inputs/right": True,
            "inputs/left": False,
        }
        assert sum("in this order" in message for message in caplog.messages) == int(as_tuple)
        assert not monitor.status.failures


def test_a_monitor_takes_one_image_of_each_and_lists_of_them(known):
    left, right = images(6, n=3), images(7, n=3)
    with DriftMonitor(known, window=7) as monitor:
        monitor.update(inputs={"left": left[0], "right": right[0]})
        monitor.update(inputs=(left[0], right[0]))
        monitor.update(inputs={"left": list(left), "right": list(right)})
        assert monitor.status.rows == 5
        monitor.update(inputs={"left": left, "thermal": right})  # one window's worth and one row more
        assert monitor.status.rows == 8
        assert list(monitor.status.failures) == ["inputs/right"]
        assert monitor.status.windows == 1


def test_scores_are_of_rows_of_all(known):
    left, right = images(8, n=30), images(9, n=30)
    right[:3] = 0
    with DriftMonitor(known) as monitor:
        values = monitor.score(inputs={"left": left, "right": right})
    assert (values[:3] < 0.01).all()
    assert (values[3:] > 0.05).mean() > 0.7


def test_they_save_load_and_merge(tmp_path):
    parts = [{"left": images(seed), "right": images(seed + 50)} for seed in (0, 1)]
    profiles = [profiled(part, convention=BOTH) for part in parts]
    profiles[0].save(tmp_path / "one")
    loaded = Profile.load(tmp_path / "one")
    assert list(loaded.groups) == list(profiles[0].groups)
    assert all(equal(loaded.groups[name], profiles[0].groups[name]) for name in loaded.groups)
    merged = loaded.merge(profiles[1])
    whole = Profiler(inputs=NAMED, convention=BOTH)
    for part in parts:
        whole.update(inputs=part)
    for name, group in whole.profile().groups.items():
        assert merged.groups[name].n == group.n == 80
        np.testing.assert_array_equal(merged.groups[name].pixels.counts, group.pixels.counts)
        np.testing.assert_array_equal(merged.groups[name].bank.min, group.bank.min)
    again = Profiler(like=merged)
    again.update(inputs=parts[0])
    assert list(again.profile().groups) == ["inputs/left", "inputs/right"]  # the first convention of each


def test_by_the_other_convention_they_are_called_so():
    profile = profiled({"left": images(0), "right": images(1)}, convention=BOTH)
    edge = with_conventions(profile, ("lensai-edge",))
    assert {name: group.info["convention"] for name, group in edge.groups.items()} == {
        "inputs/left/lensai-edge": "lensai-edge",
        "inputs/right/lensai-edge": "lensai-edge",
    }
    window = profiled({"left": images(2), "right": images(3)}, convention="lensai-edge")
    report = compare(profile, window)
    assert {group.name for group in report.groups} == {"inputs/left/lensai-edge", "inputs/right/lensai-edge"}


@measure("redness", unit="1")
def redness(pixels):
    return pixels[..., 0].mean(axis=(1, 2))


def test_custom_measures_are_of_every_input():
    left, right = images(0), images(1) // 2
    profile = profiled({"left": left, "right": right}, measures=[redness], convention=BOTH)
    for name, array in (("left", left), ("right", right)):
        bank = profile.groups[f"inputs/{name}"].apart["redness"].bank
        np.testing.assert_allclose(bank.max, redness(array.astype(float)).max(), rtol=1e-5)
        assert "redness" not in profile.groups[f"inputs/{name}/lensai-edge"].apart
    window = profiled({"left": left, "right": right}, measures=[redness], convention="lensai-edge")
    report = compare(profile, window)  # they go where the baseline has them
    moved = {stream.stream for group in report.groups for stream in group.streams if "redness" in stream.stream}
    assert moved == {"inputs/left/redness", "inputs/right/redness"}


def test_segments_have_every_input():
    profiler = Profiler(inputs=NAMED, segment_by="site")
    profiler.update(inputs={"left": images(0), "right": images(1)}, segments=["a"] * 30 + ["b"] * 10)
    segments = profiler.profile().segments
    assert {name: {group: each.n for group, each in one.groups.items()} for name, one in segments.items()} == {
        "a": {"inputs/left": 30, "inputs/right": 30},
        "b": {"inputs/left": 10, "inputs/right": 10},
    }


def test_data_sets_are_read_as_the_baseline_was(known):
    batches = iter([({"left": images(2), "right": images(3)}, np.arange(40) % 2)])
    found = profile_dataset(batches, like=known)
    assert {name: group.n for name, group in found.groups.items()} == {
        "inputs/left": 40,
        "inputs/right": 40,
        "labels": 40,
    }
    asked = profile_dataset(
        iter([((images(2), images(3)), np.arange(40) % 2)]), inputs={"0": ImageInputs(), "1": ImageInputs()}
    )
    assert list(asked.groups) == ["inputs/0", "inputs/1", "labels"]


def test_nothing_is_said_of_what_is_right(caplog):
    with caplog.at_level(logging.WARNING):
        assert profiled({"left": images(0), "right": images(1)}).warnings == []
    assert not caplog.messages


def test_a_device_has_one_camera(tmp_path):
    from lensai_integrations import edge

    profile = profiled({"left": images(0), "right": images(1)}, convention="lensai-edge")
    for write in (
        lambda: edge.write_stats(profile, tmp_path / "stats"),
        lambda: edge.write_config(profile, tmp_path / "config.ini"),
        lambda: edge.publish(profile, "https://lensai.example/", "door", spool=None),
    ):
        with pytest.raises(InputError, match="has the image inputs 'left' and 'right', and a device has one camera"):
            write()
    alone = profiled({"left": images(0), "right": images(1)}, ImageInputs(key="left"), convention="lensai-edge")
    assert edge.write_stats(alone, tmp_path / "stats")


def test_a_window_of_a_device_is_not_one_of_them():
    both = profiled({"left": images(0), "right": images(1)}, convention="lensai-edge")
    alone = profiled(images(0), None, convention="lensai-edge")
    names = r"groups \['inputs/left/lensai-edge', 'inputs/right/lensai-edge'\], the window \['inputs/lensai-edge'\]"
    with pytest.raises(InputError, match=names):
        compare(both, alone)


@pytest.mark.parametrize("name", ["cam 1", "kamera.vorn", "überwachung/süd", "00", "C:\\a"])
def test_names_survive_every_way_out(name, tmp_path):
    profile = profiled({name: images(0), "other": images(1)}, {name: ImageInputs(), "other": ImageInputs()})
    group = f"inputs/{name.replace('/', '.')}"
    profile.save(tmp_path / "profile")
    assert list(Profile.load(tmp_path / "profile").groups) == [group, "inputs/other"]
    assert {row.stream.rpartition("/")[0] for row in profile.summaries()} >= {group, "inputs/other"}


def test_the_documented_example_runs(caplog):
    given = {"left": images(0, n=120), "right": images(1, n=120)}
    run_section("baseline.md", "Several image inputs", given)
    assert list(given["baseline"].groups) == ["inputs/left", "inputs/right"]
    assert (given["monitor"].status.windows, given["monitor"].status.failures) == (1, {})
