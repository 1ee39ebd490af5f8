"""Baselines of files alone: monitored, calibrated, compared and scored as those of training are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

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
from lensai_integrations.drift.calibration import calibration_of
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring.sinks import Sink
from lensai_integrations.profiles.groups import Group
from lensai_integrations.sketches.categories import Categories
from lensai_integrations.transforms import ProfileImages

RNG = np.random.default_rng(0)


@measure("spread_of_levels")
def spread_of_levels(images):
    return images.max((1, 2, 3)) - images.min((1, 2, 3))


def photos(n, gain=1.0, seed=1):
    rng = np.random.default_rng(seed)
    light = rng.uniform(80, 160, (n, 1, 1, 1))
    return np.clip((light + rng.normal(0, 30, (n, 12, 10, 3))) * gain, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(photos(300)):
        Image.fromarray(pixels).save(place / f"{i:03}.png")
    return place


@pytest.fixture(scope="module")
def baseline(folder):
    return calibrate(profile_dataset(folder, measures=[spread_of_levels]), draws=200)


FORMS = {
    "bytes": lambda pixels: pixels,
    "floats": lambda pixels: pixels / np.float32(255),
    "16 bits": lambda pixels: pixels.astype(np.uint16) * 257,
    "tensors": lambda pixels: torch.from_numpy(pixels).permute(0, 3, 1, 2),
    "a list": list,
    "pictures": lambda pixels: [Image.fromarray(each) for each in pixels],
    "a dict": lambda pixels: {"image": pixels, "id": np.arange(len(pixels))},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_images_is_measured_as_the_files_were(form, folder, baseline):
    pixels = photos(300)
    profiler = Profiler(like=baseline)
    for part in np.split(pixels, 10):
        profiler.update(inputs=FORMS[form](part))
    ours, theirs = profiler.profile(), baseline.reference
    assert list(ours.groups) == ["raw"]
    group, known = ours.groups["raw"], theirs.groups["raw"]
    assert (group.n, group.invalid, group.streams) == (300, 0, known.streams)
    np.testing.assert_array_equal(group.pixels.counts, known.pixels.counts)
    for own, other in (
        (group.bank, known.bank),
        (group.apart["spread_of_levels"].bank, known.apart["spread_of_levels"].bank),
    ):
        np.testing.assert_allclose(own.min, other.min, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(own.max, other.max, rtol=1e-4, atol=1e-4)
    assert not compare(baseline, ours).drift


def test_windows_are_judged(baseline, caplog):
    told = []
    monitor = DriftMonitor(baseline, window=50, sinks=[lambda event: told.append(event.kind)])
    for seed in range(4):
        for image in photos(50, seed=10 + seed):
            monitor.update(inputs=image)  # one image without an axis for rows
    assert monitor.status.windows == 4
    assert monitor.status.alarms == 0
    (report,) = monitor.update(inputs=photos(50, gain=0.3, seed=20))
    assert (report.level, monitor.level, told[-1]) == ("alarm", "alarm", "alarm")
    assert "raw/brightness" in {stream.stream for stream in report.report.moved}
    assert report.report.clean_windows == 200
    assert monitor.status.failures == {}
    p_values = monitor.score(inputs=[*photos(3, seed=30), *photos(3, gain=0.3, seed=31)])
    assert p_values[:3].min() > p_values[3:].max()


def test_images_of_any_size_and_colour_in_one_batch(baseline):
    mixed = [np.zeros((7, 5), np.uint8), np.zeros((9, 9, 4), np.uint8), Image.new("L", (6, 4)), Image.new("P", (5, 5))]
    monitor = DriftMonitor(baseline, window=4)
    (report,) = monitor.update(inputs=mixed)
    assert (report.rows, report.profile.groups["raw"].n, monitor.status.failures) == (4, 4, {})
    monitor.update(inputs=Image.new("L", (6, 4)))
    assert monitor.status.rows == 5


def test_how_images_are_read_may_be_said(baseline):
    pixels = photos(20).transpose(0, 3, 1, 2) / np.float32(127.5) - 1
    monitor = DriftMonitor(baseline, window=20, inputs=ImageInputs(layout="NCHW", mean=(0.5,), std=(0.5,)))
    (report,) = monitor.update(inputs=pixels)
    group = report.profile.groups["raw"]
    assert group.invalid == 0
    np.testing.assert_array_equal(group.bank.max[group.streams.index("width")], 10)
    with pytest.raises(InputError, match="of one image input and by one convention"):
        DriftMonitor(baseline, inputs={"left": ImageInputs(), "right": ImageInputs()})


def test_labels_and_a_warm_start(tmp_path, folder):
    for i, pixels in enumerate(photos(40)):
        place = tmp_path / "data" / ("cat" if i % 2 else "dog") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    monitor = DriftMonitor(profile_dataset(tmp_path / "data"), window=20, warm_start=True, state=tmp_path / "state")
    (report,) = monitor.update(inputs=photos(1)[0], labels="cat")
    assert report.warm_rows == 19
    assert report.profile.groups["labels"].categories[""].top(1) == [("cat", 1)]
    monitor.close()
    again = DriftMonitor(profile_dataset(tmp_path / "data"), window=20, warm_start=True)
    assert len(again.update(inputs=photos(2))) == 2


def test_windows_of_profile_images_and_of_folders(baseline, folder, tmp_path):
    for gain, drift in ((1.0, False), (0.3, True)):
        profiled = ProfileImages(measures=[spread_of_levels])
        for image in photos(100, gain, seed=40):
            profiled(Image.fromarray(image))
        window = profiled.profile()
        assert compare(baseline, window).drift == drift
        assert compare(baseline, profile_dataset(list(photos(100, gain, seed=40)), like=baseline)).drift == drift
        calibrated = calibrate(Profile.load(window.save(tmp_path / f"{drift}")), draws=100)
        assert {part.group for part in calibration_of(calibrated).parts} == {"raw"}


def test_a_profile_without_rows_says_why_it_cannot_be_calibrated(folder):
    with pytest.raises(InputError, match="keeps no sample of its rows: make it with rows=2000"):
        calibrate(profile_dataset(folder, rows=0, limit=10))


def test_what_a_monitor_cannot_be_fed_is_refused():
    seen = Categories()
    seen.update(["JPEG"] * 9)
    formats = Group("metadata/format", sketches={"categories/": seen}, info={"delivered": True})
    with pytest.raises(InputError, match=r"metadata/format, and `update` can be given nothing of these"):
        DriftMonitor(Baseline(Profile({"metadata/format": formats})))


def outputs(n, width=4):
    return np.random.default_rng(n).normal(size=(n, width))


def of_outputs():
    profiler = Profiler()
    profiler.update(outputs=outputs(300), embeddings={"encoder": outputs(300, 16)})
    return Baseline(profiler.profile())


class Statuses(Sink):
    """Takes the status events alone."""

    types = ("status",)

    def __init__(self, told):
        self.told = told

    def tell(self, event):
        self.told.append(event)


UNFED = {
    "another layer": {"embeddings": {"decoder": outputs(3, 16)}},
    "another width": {"embeddings": {"encoder": outputs(3, 15)}},
    "a vector of another width": {"embeddings": {"encoder": outputs(1, 15)[0]}},
    "images alone": {"inputs": photos(3)},
    "labels alone": {"labels": [0, 1, 2]},
    "no dict": {"embeddings": outputs(3)},
    "text": {"outputs": ["yes", "no"]},
    "nothing": {},
    "None": {"inputs": None, "outputs": None},
}


@pytest.mark.parametrize("kind", UNFED)
def test_a_monitor_that_is_fed_nothing_of_its_baseline_is_not_ok(kind, caplog):
    told = []
    monitor = DriftMonitor(of_outputs(), window=3, sinks=[Statuses(told)])
    assert monitor.level == "ok"
    for _ in range(5):
        assert monitor.update(**UNFED[kind]) == []
    assert (monitor.level, monitor.status.level, monitor.status.rows) == ("unknown", "unknown", 0)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    if UNFED[kind] and kind != "None":
        assert sum(monitor.status.failures.values()) == 5
    assert sum(event.status["level"] == "unknown" for event in told) == 1
    assert len(monitor.update(outputs=outputs(3))) == 1
    assert monitor.level == "ok"
    monitor.update(**UNFED[kind])
    assert monitor.level == "unknown"


@pytest.mark.parametrize("other", [None, "broken.jpg", {"image": None}])
def test_images_beside_others_in_a_list_are_not_lost_in_silence(baseline, other):
    monitor = DriftMonitor(baseline, window=2)
    monitor.update(inputs=[*photos(2), other])
    assert (monitor.level, monitor.status.rows) == ("unknown", 0)
    assert "of a list of 3, 2 are images, the others" in monitor.status.causes["inputs"]
    assert len(monitor.update(inputs=list(photos(2)))) == 1


def test_a_batch_in_a_list_with_its_labels_is_read(baseline):
    monitor = DriftMonitor(baseline, window=4)
    assert len(monitor.update(inputs=[np.stack([photos(1)[0]] * 4), np.arange(4)])) == 1
    assert monitor.status.rows == 4


def test_it_is_unknown_after_a_restart_too(tmp_path):
    baseline = of_outputs()  # one made a second later is another one
    for k in range(3):
        monitor = DriftMonitor(baseline, window=3, state=tmp_path)
        assert monitor.level == ("unknown" if k else "ok")
        monitor.update(labels=[0, 1, 2])
        monitor.close()
    monitor.update(outputs=outputs(3))
    monitor.close()
    assert DriftMonitor(baseline, window=3, state=tmp_path).level == "ok"


def test_groups_that_get_no_rows_are_said_with_what_gives_them(baseline, caplog):
    monitor = DriftMonitor(of_outputs(), window=3)
    monitor.update(outputs=outputs(3))
    told = "a window has no rows of what the baseline has here, so nothing is held against it; "
    assert monitor.status.causes == {"embeddings/encoder": told + "update(embeddings={'encoder': rows}) gives them"}
    monitor.update(outputs=outputs(3), embeddings={"encoder": outputs(3, 16)})
    monitor = DriftMonitor(baseline, window=5)
    monitor.update(inputs=photos(5))
    assert monitor.status.causes["metadata/mode"] == told + "no update gives them"
    assert monitor.level == "ok"
    assert len([record for record in caplog.records if told in record.getMessage()]) == 2


def test_what_is_said_names_the_way_out(caplog):
    monitor = DriftMonitor(of_outputs())
    monitor.update(embeddings={"decoder": outputs(3, 16)})
    assert monitor.status.causes["rows"] == (
        "an update with embeddings/decoder had no row that can be held against the baseline, which has outputs,"
        " embeddings/encoder: pass update(outputs=... or embeddings={'encoder': rows}), measured as there"
    )


def test_files_against_a_baseline_of_files_when_no_images_are_found(baseline):
    monitor = DriftMonitor(baseline, window=5)
    for given in ({"inputs": {"text": "no images"}}, {"outputs": outputs(3)}, {"inputs": ["a.jpg"]}):
        monitor.update(**given)
        assert monitor.level == "unknown", given
    assert sum(monitor.status.failures.values()) == 3


def test_an_empty_batch_and_an_alarm_are_left_as_they_are(baseline):
    monitor = DriftMonitor(of_outputs(), window=50)
    monitor.update(outputs=outputs(0))
    assert (monitor.level, monitor.status.failures) == ("ok", {})
    monitor.update(outputs=outputs(50) * 20)
    monitor.update(labels=[1])
    assert monitor.level == "alarm"


@pytest.mark.parametrize("vector", [RNG.normal(size=16), torch.zeros(16), [0.0] * 16, RNG.normal(size=(1, 16))])
def test_one_vector_is_one_row(vector):
    monitor = DriftMonitor(of_outputs(), window=12, warm_start=True)
    assert len(monitor.update(embeddings={"encoder": vector})) == 1
    assert (monitor.status.rows, monitor.status.failures) == (1, {})
