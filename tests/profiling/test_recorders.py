"""A recorder measures without keeping anything, and takes what was measured."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from libraries import IMMUTABLE, as_if_elsewhere, maker
from profiles import batch

from lensai_integrations import DriftMonitor, ImageInputs, Profiler, compare
from lensai_integrations.profiling.recorders import RECORDERS
from lensai_integrations.profiling.settings import ProfilerSettings

ONE = batch(np.random.default_rng(0), 20)
BATCHES = {"inputs": ONE["inputs"], "outputs": ONE["outputs"], "labels": ONE["labels"].astype(np.int32)}
BATCHES["embeddings/avgpool"] = ONE["embeddings"]["avgpool"]
GROUP = pytest.mark.parametrize("name", BATCHES)


def recorder_of(name, batch):
    settings = ProfilerSettings(
        inputs=ImageInputs(), convention="lensai", task="auto", k=200, max_dim=16, seed=[1], like=None
    )
    return RECORDERS[name.split("/")[0]](name, batch, settings)


@GROUP
def test_measuring_keeps_nothing(name):
    recorder = recorder_of(name, BATCHES[name])
    measured = recorder.measure(BATCHES[name])
    assert recorder.group.n == 0
    recorder.take(measured)
    recorder.take(measured)
    assert recorder.group.n == 40


@GROUP
@pytest.mark.parametrize("library", IMMUTABLE)
def test_what_is_in_flight_is_taken_once_it_has_landed(name, library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    array = maker(library)(BATCHES[name])
    recorder = recorder_of(name, array)
    measured = recorder.measure(array)
    assert measured.in_flight
    assert {len(rows) for rows in measured.rows.values()} == {20}
    recorder.take(measured.kept().landed())
    assert recorder.group.n == 20


def test_a_width_that_a_profile_has_is_taken_over():
    from lensai_integrations import Profiler

    wide = np.random.default_rng(0).normal(size=(20, 100)).astype(np.float32)
    for max_dim in (16, 4096):
        first = Profiler(max_dim=max_dim)
        first.update(embeddings={"wide": wide})
        window = Profiler(like=first.profile(), max_dim=32)
        window.update(embeddings={"wide": wide})
        found, expected = (each.profile().groups["embeddings/wide"] for each in (window, first))
        assert found.streams == expected.streams
        assert found.definitions == expected.definitions


BANDS = np.random.default_rng(3).integers(0, 256, (40, 4, 8, 8), dtype=np.uint8)


def with_profiler(batch, **arguments):
    profiler = Profiler(seed=0, **arguments)
    profiler.update(inputs=batch)
    return profiler.profile()


def test_a_band_that_is_not_read_is_said_once_and_settled_by_its_letter(caplog):
    profiler = Profiler(source="validation", seed=0)
    for _ in range(3):
        profiler.reset()
        profiler.update(inputs=BANDS)
        profiler.update(inputs=BANDS)
        profile = profiler.profile()
        assert len(profile.warnings) == 1
    assert len(caplog.records) == 1
    assert "nothing that happens in it is seen" in profile.warnings[0]
    assert "channels='RGBA'" in profile.warnings[0]
    assert with_profiler(BANDS, like=profile).warnings == []  # the baseline says so
    assert len(caplog.records) == 1
    for letters in ("RGBA", "RGB?"):
        assert with_profiler(BANDS, inputs=ImageInputs(channels=letters)).warnings == []
    opaque = BANDS.copy()
    opaque[:, 3] = 255
    assert with_profiler(opaque).warnings == []


def test_a_monitor_says_of_its_windows_what_its_baseline_did_not_once(caplog):
    rgb = with_profiler(BANDS[:, :3])
    monitor = DriftMonitor(rgb, window=20)
    for _ in range(3):
        monitor.update(inputs=BANDS)
    assert monitor.status.rows == 120
    assert monitor.status.failures == {}
    assert [record.message.count("the fourth") for record in caplog.records] == [1]


UNIT = (BANDS[:, :3] / 255).astype(np.float32)
READ = r"but those of the baseline were read as 0 to 1 \(NCHW float32 x 255\)"


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (BANDS[:, :3], f"uint8 pixels reach from 0 to 255, {READ}"),
        (BANDS[:, :3].astype(np.float32), f"float32 pixels reach from 0 to 255, {READ}"),
        (torch.from_numpy(BANDS[:, :3]), f"uint8 pixels reach from 0 to 255, {READ}"),
        ((UNIT - 0.5) / 0.25, f"float32 pixels reach from -2 to 2, {READ}"),
        (list((UNIT - 0.5) / 0.25), f"float32 pixels reach from -2 to 2, {READ}"),
        (UNIT * np.nan, "left out: a value was not finite$"),
    ],
)
def test_images_on_another_scale_than_the_baselines_are_named(batch, message):
    baseline = with_profiler(UNIT)
    window = with_profiler(batch, like=baseline)
    assert window.groups["inputs"].invalid == 40
    assert [bool(re.search(message, warning)) for warning in window.warnings] == [True]
    monitor = DriftMonitor(baseline, window=40)
    (report,) = monitor.update(inputs=batch)
    assert report.level == "alarm"
    assert any(re.search(message, note) for note in report.report.notes)


def test_only_the_images_that_were_left_out_are_named():
    baseline = with_profiler(UNIT)
    mixed = UNIT.copy()
    mixed[3] = 7.5
    profiler = Profiler(like=baseline)
    profiler.update(inputs=UNIT)
    profiler.update(inputs=mixed)
    (warning,) = profiler.profile().warnings
    assert warning.startswith("1 of 80 rows of inputs were left out: float32 pixels reach from 7.5 to 7.5, but those")


def test_floats_up_to_1_against_bytes_are_named():
    baseline = with_profiler(BANDS[:, :3])
    (warning,) = with_profiler(UNIT, like=baseline).warnings
    assert "float32 pixels reach from 0 to 1, but those of the baseline were read as 0 to 255" in warning
    assert with_profiler(BANDS[:, :3].astype(np.float32), like=baseline).warnings == []


def test_half_precision_against_full_and_the_other_way_round_is_the_same():
    half = torch.from_numpy(UNIT).bfloat16()
    full, rounded = with_profiler(UNIT), with_profiler(half)
    assert with_profiler(half, like=full).groups["inputs"].bank.min.tolist() == full.groups["inputs"].bank.min.tolist()
    for one in (rounded, with_profiler(half, like=full)):
        np.testing.assert_array_equal(one.groups["inputs"].pixels.counts, full.groups["inputs"].pixels.counts)
        np.testing.assert_allclose(one.groups["inputs"].bank.max, full.groups["inputs"].bank.max, rtol=1e-4)


def test_precisions_that_no_rounding_makes_alike_are_said(caplog):
    between = (UNIT * 0.93 + 0.013).astype(np.float32)
    half = torch.from_numpy(between).bfloat16()
    full, rounded = with_profiler(between), with_profiler(half)
    (warning,) = with_profiler(half, like=full).warnings
    assert warning.startswith("pixels are of bfloat16 here and of full precision in the baseline")
    (warning,) = with_profiler(between, like=rounded).warnings
    assert warning.startswith("pixels are of full precision here and of bfloat16 in the baseline")
    assert with_profiler(half, like=rounded).warnings == with_profiler(between, like=full).warnings == []
    assert len(caplog.records) == 2
    for one, two in ((full, half), (rounded, between)):
        report = compare(one, with_profiler(two, like=one))
        (group,) = report.groups
        compared = {stream.stream.removeprefix("inputs/") for stream in group.streams}
        assert {"brightness", "contrast"} < compared
        assert not compared & {"noise_sigma", "snr", "sharpness", "entropy"}
        assert "would move by rounding alone and are not compared" in group.notes[0]
        assert not report.drift
    (group,) = compare(full, with_profiler(between, like=full)).groups
    assert "inputs/noise_sigma" in {stream.stream for stream in group.streams}
