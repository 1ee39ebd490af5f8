"""The monitor as a whole: exact windows, levels, notices, and nothing that fails inside reaches the caller."""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import asdict
from datetime import timedelta

import numpy as np
import pytest
import torch
from monitors import Clock, by_mean, numbers, small_baseline
from profiles import batch, make_baseline

from lensai_integrations import Baseline, DriftMonitor, ImageInputs, Profile, Profiler, compare
from lensai_integrations.errors import InputError
from lensai_integrations.monitoring import judging
from lensai_integrations.monitoring.sinks import FunctionSink, Sink

BASELINE = small_baseline()


@pytest.fixture
def images():
    return make_baseline(300)


def rows_of(report):
    return report.profile.groups["outputs"].n


@pytest.mark.parametrize("cut", [1, 7, 10, 25, 60])
def test_windows_hold_exactly_their_rows_however_batches_are_cut(monkeypatch, cut):
    by_mean(monkeypatch)
    given = numbers(60, seed=3).astype(np.float32)
    monitor = DriftMonitor(BASELINE, 10)
    found = [w for at in range(0, 60, cut) for w in monitor.update(outputs=given[at : at + cut])]
    assert [(w.number, w.rows, rows_of(w)) for w in found] == [(i + 1, 10, 10) for i in range(6)]
    for number, window in enumerate(found):
        kept = np.sort(window.profile.rows.data["outputs"], axis=0)
        assert np.array_equal(kept, np.sort(given[10 * number : 10 * number + 10], axis=0))
    assert monitor.status.rows == 60


@pytest.mark.parametrize(("window", "stride", "cut"), [(12, 4, 5), (12, 8, 12), (5, 1, 3), (6, 6, 4)])
def test_sliding_windows_hold_exactly_the_newest_rows(monkeypatch, window, stride, cut):
    by_mean(monkeypatch)
    given = numbers(40, seed=4).astype(np.float32)
    monitor = DriftMonitor(BASELINE, window, stride=stride)
    found = [w for at in range(0, 40, cut) for w in monitor.update(outputs=given[at : at + cut])]
    ends = range(window, 41, stride)
    assert len(found) == len(ends)
    for end, each in zip(ends, found, strict=True):
        kept = np.sort(each.profile.rows.data["outputs"], axis=0)
        assert np.array_equal(kept, np.sort(given[end - window : end], axis=0))


def test_rows_are_measured_as_the_baseline_s(images):
    rng = np.random.default_rng(5)
    given = batch(rng, 80)
    alone = Profiler(like=images)
    alone.update(**given)
    (window,) = DriftMonitor(images, 80).update(**given)
    expected = compare(images, alone.profile(), false_alarm_rate=0.05)
    theirs = {s.stream: s.effect for g in expected.groups for s in g.streams}
    assert {s.stream: s.effect for g in window.report.groups for s in g.streams} == theirs


def test_one_image_at_a_time_without_a_batch_axis(images):
    given = batch(np.random.default_rng(6), 30)
    monitor = DriftMonitor(images, 30)
    for i in range(30):
        layers = {name: rows[i] for name, rows in given["embeddings"].items()}
        single = {key: given[key][i] for key in ("inputs", "outputs", "labels")}
        found = monitor.update(**single, embeddings=layers)
    (together,) = DriftMonitor(images, 30).update(**given)
    assert monitor.status.failures == {}
    assert {n: g.n for n, g in found[0].profile.groups.items()} == {n: g.n for n, g in together.profile.groups.items()}
    ours, theirs = (np.sort(w.profile.rows.data["inputs"], axis=0) for w in (found[0], together))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-4)


def heads_baseline():
    """Two answers, of four columns and of one, with their labels."""
    profiler, rng = Profiler(), np.random.default_rng(8)
    answers = {"species": rng.normal(size=(60, 4)), "age": rng.normal(size=60)}
    profiler.update(outputs=answers, labels={"species": np.arange(60) % 4, "age": rng.normal(size=60)})
    return Baseline(profiler.profile())


ONE_COLUMN = Profiler(task="regression")
ONE_COLUMN.update(outputs=np.random.default_rng(8).normal(size=60), labels=np.random.default_rng(9).normal(size=60))
FOUR, NUMBERS = numbers(6, seed=1).astype(np.float32), [0.5, -1.0, 0.25, 2.0, 0.0, 1.5]


@pytest.mark.parametrize(
    ("baseline", "given", "rows"),
    [
        (BASELINE, {"outputs": list(FOUR)}, {"outputs": 6}),
        (BASELINE, {"outputs": FOUR.tolist()}, {"outputs": 6}),
        (BASELINE, {"outputs": tuple(map(torch.tensor, FOUR))}, {"outputs": 6}),
        (ONE_COLUMN.profile(), {"outputs": NUMBERS, "labels": NUMBERS}, {"outputs": 6, "labels": 6}),
        (ONE_COLUMN.profile(), {"outputs": 0.5, "labels": 1.5}, {"outputs": 1, "labels": 1}),
        (ONE_COLUMN.profile(), {"outputs": np.float32([0.5]), "labels": 1}, {"outputs": 1, "labels": 1}),
        (ONE_COLUMN.profile(), {"outputs": np.float32(0.5)}, {"outputs": 1}),
        (heads_baseline(), {"outputs": {"species": np.eye(4)}}, {"outputs/species": 4}),
        (
            heads_baseline(),
            {"outputs": {"loss": 0.1, "species": np.ones(4), "age": 0.5}, "labels": {"species": 3, "age": 0.5}},
            {"outputs/species": 1, "outputs/age": 1, "labels/species": 1, "labels/age": 1},
        ),
    ],
)
def test_rows_are_rows_however_they_are_handed_over(baseline, given, rows):
    heard = []
    monitor = DriftMonitor(baseline, max(rows.values()), sinks=[heard.append])
    (window,) = monitor.update(**given)
    assert {name: group.n for name, group in window.profile.groups.items()} == rows
    assert monitor.status.failures.keys() <= {"compare"}  # of one row there is nothing to say


def test_real_statistics_find_a_real_shift(images):
    heard = []
    rng = np.random.default_rng(7)
    with DriftMonitor(images, 100, sinks=[heard.append], name="camera 3") as monitor:
        (dark,) = monitor.update(**batch(rng, 100, brightness=0.5))
        assert (dark.level, dark.drift, dark.notice) == ("alarm", True, "alarm")
    assert [event.kind for event in heard] == ["alarm"]
    assert re.match(r"camera 3: alarm, window 1 \(100 rows until 20.* UTC\) drifted: inputs/", heard[0].text)
    assert heard[0].text.endswith("By chance alone 1 clean window in 100 is an alarm: this is the first.")
    assert heard[0].live is dark
    assert "inputs" in heard[0].window["groups"]


def test_told_once_and_told_when_it_is_over(monkeypatch):
    by_mean(monkeypatch)
    heard = []
    monitor = DriftMonitor(BASELINE, 4, sinks=[heard.append], recover=2)
    for seed, shift in enumerate([0, 2, 2, 9, 9, 0, 9, 0, 0, 0, 9]):
        monitor.update(outputs=numbers(4, shift=shift, seed=seed))
    assert [e.kind for e in heard] == ["warning", "alarm", "recovery", "alarm"]
    assert [e.window["number"] for e in heard] == [2, 4, 9, 11]
    status = monitor.status
    assert (status.windows, status.warnings, status.alarms, status.level) == (11, 2, 4, "alarm")


def test_windows_by_time(monkeypatch):
    by_mean(monkeypatch)
    clock = Clock(3600.0 * 1000)
    monitor = DriftMonitor(BASELINE, timedelta(hours=1), clock=clock)
    assert monitor.update(outputs=numbers(5)) == []
    clock.now += 3599
    assert monitor.update(outputs=numbers(7)) == []
    clock.now += 1
    (first,) = monitor.update(outputs=numbers(2))
    assert (first.rows, rows_of(first), first.opened, first.closed) == (12, 12, 3.6e6, 3.6e6 + 3599)
    clock.now += 3600 * 50
    (second,) = monitor.close()
    assert (second.number, second.rows) == (2, 2)


def test_sliding_windows_by_time(monkeypatch):
    by_mean(monkeypatch)
    clock = Clock(0.0)
    monitor = DriftMonitor(BASELINE, timedelta(seconds=20), every=timedelta(seconds=10), clock=clock)
    sizes = []
    for second in range(0, 60, 5):
        clock.now = float(second)
        sizes += [(w.rows, rows_of(w)) for w in monitor.update(outputs=numbers(second + 1))]
    expected = [sum(s + 1 for s in range(0, 60, 5) if end - 20 <= s < end) for end in range(10, 60, 10)]
    assert sizes == [(n, n) for n in expected]


def test_a_clock_that_goes_back_closes_nothing(monkeypatch):
    by_mean(monkeypatch)
    clock = Clock()
    monitor = DriftMonitor(BASELINE, timedelta(hours=1), clock=clock)
    monitor.update(outputs=numbers(5))
    clock.now -= 7200
    assert monitor.update(outputs=numbers(5)) == []
    assert monitor.status.failures == {}


def test_flush_judges_the_rest_and_begins_anew(monkeypatch):
    by_mean(monkeypatch)
    monitor = DriftMonitor(BASELINE, 10)
    monitor.update(outputs=numbers(14))
    (rest,) = monitor.flush()
    assert (rest.number, rest.rows, rows_of(rest)) == (2, 4, 4)
    assert monitor.flush() == []
    assert [w.rows for w in monitor.update(outputs=numbers(10))] == [10]


def test_a_warm_start_judges_the_first_row(images):
    given = batch(np.random.default_rng(8), 3)
    monitor = DriftMonitor(images, 25, warm_start=True)
    found = monitor.update(**given)
    assert [(w.rows, w.warm_rows, w.profile.n) for w in found] == [(25, 24, 25), (25, 23, 25), (25, 22, 25)]
    assert [w.level for w in found] == ["ok"] * 3
    assert monitor.status.failures == {}


def test_a_warm_window_drifts_once_enough_of_it_did():
    monitor = DriftMonitor(BASELINE, 40, stride=10, warm_start=True)
    found = monitor.update(outputs=numbers(40, shift=4, seed=9))
    assert [w.warm_rows for w in found] == [30, 20, 10, 0]
    assert found[-1].level == "alarm"


@pytest.mark.parametrize("stride", [1, 3])
def test_warm_rows_are_the_baseline_s_own(monkeypatch, stride):
    by_mean(monkeypatch)
    window = DriftMonitor(BASELINE, 12, stride=stride, warm_start=True).update(outputs=numbers(stride))[0]
    known = {tuple(row) for row in BASELINE.reference.rows.data["outputs"]}
    assert sum(tuple(row) in known for row in window.profile.rows.data["outputs"]) == 12 - stride


# What fails


def test_a_with_body_s_exception_passes_and_is_the_status(monkeypatch):
    by_mean(monkeypatch)
    heard = []
    sink = FunctionSink(lambda event: heard.append((event.type, event.kind)), types=("status",))
    monitor = DriftMonitor(BASELINE, sinks=[sink])
    with pytest.raises(ZeroDivisionError), monitor:
        1 / 0  # noqa: B018
    assert (monitor.status.state, monitor.status.cause) == ("Failed", "ZeroDivisionError: division by zero")
    with monitor:
        assert monitor.status.state == "Running"
    assert [kind for _, kind in heard] == ["Running", "Failed", "Running", "Completed"]


class Broken(Sink):
    """Fails wherever it can."""

    def open(self, *_):
        raise OSError("down")

    def tell(self, event):
        raise RuntimeError("down")

    def close(self):
        raise ValueError("down")


def test_a_broken_sink_reaches_nobody_and_is_logged_once(monkeypatch, caplog):
    by_mean(monkeypatch)
    heard = []
    with DriftMonitor(BASELINE, 4, sinks=[Broken(), heard.append]) as monitor:
        for seed in range(3):
            assert len(monitor.update(outputs=numbers(4, shift=9, seed=seed))) == 1
    assert [e.kind for e in heard] == ["alarm"]
    assert monitor.status.failures == {"sink Broken": 1 + 1 + 3 + 1 + 1 + 1}  # open, windows, notice, status, close
    assert monitor.status.causes["sink Broken"] == "ValueError: down"
    assert len([r for r in caplog.records if "sink Broken" in r.getMessage()]) == 1


@pytest.mark.parametrize("given", [{"outputs": "text"}, {"outputs": np.zeros((3, 9))}, {"outputs": object()}, {}])
def test_a_batch_that_cannot_be_read_is_counted_and_no_row(caplog, given):
    monitor = DriftMonitor(BASELINE, 4)
    monitor.update(outputs=numbers(2))
    assert monitor.update(**given) == []
    assert (sum(monitor.status.failures.values()) > 0) == bool(given)
    assert monitor.status.rows == 2
    assert len(monitor.update(outputs=numbers(2))) == 1


def test_a_first_batch_of_another_width_does_not_decide_for_those_that_follow(monkeypatch, caplog):
    by_mean(monkeypatch)
    monitor = DriftMonitor(BASELINE, 4)
    monitor.update(outputs=np.zeros((3, 9)))
    assert [w.rows for w in monitor.update(outputs=numbers(4))] == [4]
    assert "other streams than the baseline's: 9 here, 3 there" in monitor.status.causes["outputs"]


def test_one_group_that_fails_leaves_the_others(images, caplog):
    given = batch(np.random.default_rng(9), 40)
    monitor = DriftMonitor(images, 40)
    (window,) = monitor.update(**given | {"embeddings": {"avgpool": np.zeros((40, 7))}})
    assert "embeddings/avgpool" in monitor.status.failures
    assert window.profile.groups["inputs"].n == 40
    assert "embeddings/avgpool" not in window.profile.groups


def test_rows_that_are_not_as_the_baselines_stay_out_of_the_window_and_no_others(images, caplog):
    rng = np.random.default_rng(9)
    monitor = DriftMonitor(images, 60)
    for _ in range(2):
        assert monitor.update(**batch(rng, 25) | {"outputs": np.zeros((25, 9))}) == []
    (window,) = monitor.update(**batch(rng, 10))
    assert {name: group.n for name, group in window.profile.groups.items()} == {
        "inputs": 60,
        "embeddings/avgpool": 60,
        "labels": 60,
        "outputs": 10,
    }
    assert "outputs: batches were left out from row 0 on" in window.profile.warnings[0]


def test_a_comparison_that_fails_is_counted_and_the_next_window_judged(monkeypatch, caplog):
    by_mean(monkeypatch)
    monitor = DriftMonitor(BASELINE, 4)
    good = judging.level_of
    monkeypatch.setattr(judging, "level_of", lambda *_: 1 / 0)
    assert monitor.update(outputs=numbers(4)) == []
    monkeypatch.setattr(judging, "level_of", good)
    assert [w.number for w in monitor.update(outputs=numbers(4))] == [1]
    assert monitor.status.failures == {"compare": 1}


def test_a_clock_or_measure_that_raises_never_reaches_the_caller(monkeypatch, caplog):
    clock = Clock()
    monitor = DriftMonitor(BASELINE, 4, clock=clock)
    monkeypatch.setattr(Profiler, "update", lambda *_, **__: 1 / 0)
    assert monitor.update(outputs=numbers(4)) == []
    assert monitor.status.failures == {"update": 1}
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 0}, "window=0"),
        ({"warn": 2}, "warn=2"),
        ({"alarm": 0.1}, "alarm=0.1"),
        ({"recover": 0}, "recover=0"),
        ({"remind": 1.5}, "remind=1.5"),
        ({"sinks": ["x"]}, "sinks has 'x'"),
        ({"sinks": print}, "sinks="),
        ({"sinks": [Broken]}, "neither a sink nor"),
        ({"name": ""}, "name=''"),
        ({"against": "training"}, "against='training'"),
        ({"window": 1000, "warm_start": True}, "needs 999 rows"),
        ({"window": 10, "stride": 10, "warm_start": True}, "warm_start=True fills a sliding window"),
        ({"window": timedelta(1), "warm_start": True}, "warm_start=True fills a sliding window"),
    ],
)
def test_wrong_arguments_raise(arguments, message):
    with pytest.raises(InputError, match=message):
        DriftMonitor(BASELINE, **arguments)


@pytest.mark.parametrize("baseline", [None, "folder", Profile()])
def test_what_is_no_baseline_raises(baseline):
    with pytest.raises(InputError, match="baseline"):
        DriftMonitor(baseline)


def test_threads_lose_no_rows(monkeypatch):
    by_mean(monkeypatch)
    monitor, found = DriftMonitor(BASELINE, 8), []

    def serve(seed):
        for i in range(10):
            found.extend(monitor.update(outputs=numbers(3, seed=100 * seed + i)))

    threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(w.number for w in found) == list(range(1, 16))
    assert {rows_of(w) for w in found} == {8}
    assert monitor.status.rows == 120


def test_segments_of_the_baseline_are_kept(caplog):
    caplog.set_level(logging.WARNING)
    profiler = Profiler(source="validation", task="regression", segment_by="site", seed=1)
    sites = ["north", "south"] * 100
    profiler.update(outputs=numbers(200), segments=sites)
    (window,) = DriftMonitor(Baseline(profiler.profile()), 60).update(outputs=numbers(60, seed=2), segments=sites[:60])
    assert {name: part.n for name, part in window.profile.segments.items()} == {"north": 30, "south": 30}


BYTES = np.random.default_rng(11).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
SCALES = {"bytes": BYTES, "to 1": BYTES / np.float32(255), "to 255": BYTES.astype(np.float32)}
SCALES["around 0"] = SCALES["to 1"] * 2 - 1


@pytest.mark.parametrize(
    ("known", "given", "cause"),
    [
        ("bytes", "to 1", "inputs: float32 pixels reach from 0 to 1, .*read as 0 to 255 .*: were they divided by 255"),
        ("bytes", "around 0", "inputs: float32 pixels reach from -1 to 1, .*: were they made by x / 127.5 - 1"),
        ("to 255", "to 1", "inputs: float32 pixels reach from 0 to 1, .*: were they divided by 255"),
        (
            "to 1",
            "bytes",
            "100 of 100 rows of inputs were left out: uint8 pixels reach from 0 to 255, .*read as 0 to 1",
        ),
        (
            "to 1",
            "around 0",
            "100 of 100 rows of inputs were left out: float32 pixels reach from -1 to 1, .*read as 0 to 1",
        ),
        ("bytes", "to 255", None),
        ("to 255", "bytes", None),
    ],
)
def test_a_window_on_another_scale_is_told_with_its_cause_first(known, given, cause):
    profiler, events = Profiler(), []
    profiler.update(inputs=SCALES[known][:100])
    with DriftMonitor(profiler.profile(), 100, sinks=[events.append]) as monitor:
        (window,) = monitor.update(inputs=SCALES[given][100:])
    assert window.level == ("alarm" if cause else "ok")
    if cause is None:
        assert (window.report.causes, events) == ((), [])
        return
    (told,) = events
    assert told.window["causes"] == list(window.report.causes)
    assert re.search(f"drifted: {cause}", told.text)
    assert re.search(f"Look here first: {cause}", " ".join(window.report.to_text(10_000).split()))


@pytest.mark.parametrize("given", SCALES)
def test_a_reader_that_is_given_means_what_it_says(given):
    """`ImageInputs()` has the batch decide; without it the baseline's reader is held to."""
    profiler = Profiler()
    profiler.update(inputs=SCALES["to 1"][:100])
    images = SCALES[given][100:]
    how = ImageInputs(preprocess="tf") if given == "around 0" else ImageInputs()
    (window,) = DriftMonitor(profiler.profile(), 100, inputs=how).update(inputs=images)
    assert (window.level, window.profile.warnings) == ("ok", [])
    alone = Profiler(like=profiler.profile(), inputs=how)
    alone.update(inputs=images)
    assert alone.profile().groups["inputs"].info["reader"] == asdict(alone.readers[""])
    assert not compare(profiler.profile(), alone.profile()).drift


def test_what_the_first_window_decided_holds_for_the_next():
    profiler = Profiler()
    profiler.update(inputs=BYTES[:100])
    monitor = DriftMonitor(profiler.profile(), 50, inputs=ImageInputs())
    first, second = monitor.update(inputs=SCALES["to 255"][100:])
    dark = SCALES["to 255"][:50] / 300  # of which alone one would say that they reach to 1
    (third,) = monitor.update(inputs=dark)
    assert [each.profile.groups["inputs"].info["reader"]["scale"] for each in (first, second, third)] == [1.0] * 3


def test_a_reader_that_only_says_where_leaves_the_rest_to_the_baseline():
    profiler = Profiler(inputs=ImageInputs(mean=(0.5,), std=(0.5,)))
    profiler.update(inputs=SCALES["around 0"][:100])
    pair = {"left": np.zeros((100, 8, 8, 3), np.float32), "right": SCALES["around 0"][100:]}
    monitor = DriftMonitor(profiler.profile(), 100, inputs=ImageInputs(key="right"))
    (window,) = monitor.update(inputs=pair)
    assert (window.level, monitor.readers[""].mean, monitor.status.failures) == ("ok", (0.5,), {})
