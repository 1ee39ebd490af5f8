"""One training run, a baseline for servers and for devices: files written by a device are held against its half."""

from __future__ import annotations

import numpy as np
import pytest
from photographs import patches

from lensai_integrations import Baseline, Profile, Profiler, calibrate, compare, edge
from lensai_integrations.errors import DefinitionError
from lensai_integrations.profiles.conventions import renamed
from lensai_integrations.report import drift_html

BOTH = ("lensai", "lensai-edge")
LOGITS = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)


def profiled(convention, images, **settings):
    profiler = Profiler(convention=convention, seed=2, **settings)
    profiler.update(inputs=images, outputs=LOGITS[: len(images)])
    return profiler.profile()


@pytest.fixture(scope="module", params=[BOTH, BOTH[::-1]], ids=" ".join)
def baseline(request):
    return calibrate(profiled(request.param, patches(400), source="validation"), draws=100)


def device(folder, images):
    edge.write_stats(profiled("lensai-edge", images), folder)
    return edge.read_stats(folder)


def test_a_devices_files_are_held_against_what_it_measures(baseline, tmp_path):
    """Through files both ways: the same frames are no drift, darker ones are."""
    name = "inputs/lensai-edge"
    assert baseline.reference.groups[name].info["convention"] == "lensai-edge"
    same = compare(baseline, device(tmp_path / "same", patches(400)))
    window = device(tmp_path / "dark", (patches(400) * 0.6).astype(np.uint8))
    dark = compare(baseline, window)
    assert (same.drift, dark.drift) == (False, True)
    assert max(stream.effect for group in same.groups for stream in group.streams) < 0.02
    assert {group.name for group in dark.groups if group.drift} == {name}
    moved = {stream.stream for stream in dark.moved}
    assert {f"{name}/brightness", f"{name}/mean/0", f"{name}/sharpness"} <= moved
    assert f"{name}/noise" not in moved  # a ratio: darkening leaves it
    assert "as devices measure them" in drift_html(dark, baseline, window)


def test_writing_for_devices_takes_what_they_measure(baseline, tmp_path):
    alone = profiled("lensai-edge", patches(400))
    files = [path.relative_to(tmp_path / "a") for path in edge.write_stats(baseline, tmp_path / "a")]
    assert files == [path.relative_to(tmp_path / "b") for path in edge.write_stats(alone, tmp_path / "b")]
    assert len(files) == 9 + 4 + 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    written = edge.write_config(baseline, tmp_path / "a.ini").read_text()
    assert written == edge.write_config(alone, tmp_path / "b.ini").read_text()


def test_without_what_devices_measure_the_error_says_what_to_pass(tmp_path):
    with pytest.raises(DefinitionError, match="convention='lensai-edge'"):
        edge.write_config(profiled("lensai", patches(32)), tmp_path / "config.ini")


def test_frames_as_they_were_delivered_go_before_what_the_model_was_fed(tmp_path):
    """A camera's frames are large; the model is fed a third of their pixels."""
    frames = patches(300, 48)
    delivered = renamed(profiled("lensai-edge", frames), {"inputs/lensai-edge": "raw", "outputs": None})
    delivered.groups["raw"].info["delivered"] = True
    resized = frames[:, ::3, ::3]
    for conventions in ("lensai", BOTH, "lensai-edge"):
        fed = profiled(conventions, resized)
        baseline = Baseline(Profile({**fed.groups, **delivered.groups}, info={"source": "validation"}))
        report = compare(baseline, device(tmp_path / str(conventions), frames))
        assert [group.name for group in report.groups if group.name != "outputs"] == ["raw"]
        assert not report.drift
        assert compare(Baseline(fed), device(tmp_path / "x", frames)).drift if conventions != "lensai" else True
        alone, name = ("lensai", "inputs") if conventions != "lensai-edge" else ("lensai-edge", "inputs/lensai-edge")
        server = compare(baseline, profiled(alone, resized))
        assert {group.name for group in server.groups} == {name, "outputs"}
        assert not server.drift
    assert edge.write_config(baseline, tmp_path / "a.ini").read_text() == (
        edge.write_config(profiled("lensai-edge", frames), tmp_path / "b.ini").read_text()
    )


def test_real_devices_are_held_against_a_baseline_of_both(data_dir, baseline):
    window = edge.read_stats(data_dir / "lensai_edge" / "sensor1")
    report = compare(baseline, window)
    assert report.drift  # other cameras, other scenes
    (images,) = (group for group in report.groups if group.name.startswith("inputs"))
    assert {stream.definition.split("/")[0] for stream in images.streams} == {"lensai-edge"}
    assert images.n_window == window.groups["inputs/lensai-edge"].n
