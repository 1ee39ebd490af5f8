"""A second drift while the first lasts is told, once; one drift that lasts and wavers is not told again and again."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensai_integrations import Baseline, DriftMonitor, Profiler, calibrate, compare
from lensai_integrations.drift.result import DriftReport, GroupDrift, StreamDrift
from lensai_integrations.monitoring.judging import ALARM, Alert, step
from lensai_integrations.monitoring.news import BOTH, DOWN, KNOWN, UP, Mover, is_new, movers, news, with_told


def photos(rng, n, *, dark=0.0, grey=0.0):
    """Images of 8 x 8 pixels, darker or with less contrast."""
    pixels = rng.normal(120, 30, (n, 8, 8, 3)) + rng.normal(0, 25, (n, 1, 1, 1))
    return np.clip(pixels * (1 - dark) * (1 - grey) + 128 * grey, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def baseline():
    profiler = Profiler(source="validation", seed=1)
    profiler.update(inputs=photos(np.random.default_rng(0), 1000))
    return calibrate(profiler.profile())


CLEAN, GREY, DARK = {}, {"grey": 0.5}, {"dark": 0.6}


def heard(baseline, windows, **settings):
    """The notices of windows that are `CLEAN`, `GREY` or `DARK`."""
    rng, told = np.random.default_rng(2), []
    with DriftMonitor(baseline, 100, warn=None, sinks=[told.append], **settings) as monitor:
        for window in windows:
            monitor.update(inputs=photos(rng, 100, **window))
    assert monitor.status.failures == {}
    return told


def test_another_drift_is_told_while_the_first_lasts(baseline):
    told = heard(baseline, [CLEAN, GREY, GREY, DARK, DARK, GREY, DARK])
    assert [(e.kind, e.window["number"]) for e in told] == [("alarm", 2), ("change", 4)]
    change = told[1]
    assert set(change.window["new"]) & {"inputs/brightness", "inputs/mean/0", "inputs/mean/1", "inputs/mean/2"}
    assert change.window["since"]["window"] == 2
    assert "still at alarm, but changed: window 4 (100 rows until" in change.text
    assert "also drifted in another way: inputs/" in change.text
    assert "fell: median 120 ->" in change.text
    assert "It has lasted since window 2" in change.text


def test_after_a_recovery_all_is_forgotten(baseline):
    told = heard(baseline, [GREY, CLEAN, CLEAN, DARK, GREY], recover=2)
    assert [(e.kind, e.window["number"]) for e in told][:3] == [("alarm", 1), ("recovery", 3), ("alarm", 4)]
    assert "It had lasted since window 1" in told[1].text
    assert told[2].window["since"]["window"] == 4


def test_what_was_told_outlives_a_restart(baseline, tmp_path):
    rng, told = np.random.default_rng(2), []
    for window in [GREY, DARK, DARK, GREY]:
        with DriftMonitor(baseline, 100, warn=None, sinks=[told.append], state=tmp_path) as monitor:
            monitor.update(inputs=photos(rng, 100, **window))
    assert [(e.kind, e.window["number"]) for e in told] == [("alarm", 1), ("change", 2)]
    assert told[1].window["since"]["window"] == 1


def test_a_state_that_does_not_say_what_was_told_knows_what_it_finds_first(baseline, tmp_path):
    rng, told = np.random.default_rng(2), []
    for number, window in enumerate([GREY, GREY, DARK]):
        with DriftMonitor(baseline, 100, warn=None, sinks=[told.append], state=tmp_path) as monitor:
            monitor.update(inputs=photos(rng, 100, **window))
        if not number:  # as a release wrote it that kept none of this
            head = json.loads((tmp_path / "head.json").read_text())
            for key in ("known", "maybe", "began", "began_at"):
                del head["judging"]["alert"][key]
            del head["judging"]["first"]
            (tmp_path / "head.json").write_text(json.dumps(head))
    assert [(e.kind, e.window["number"]) for e in told] == [("alarm", 1), ("change", 3)]
    assert told[1].window["since"] is None  # nobody knows
    assert "lasted" not in told[1].text


def layers(rng, n, shift=0.0, seed=5):
    """A layer of 96 columns, all of which moved a little, each its own way."""
    return {"embeddings": {"pool": rng.normal(size=(n, 96)) + shift * np.random.default_rng(seed).normal(size=96)}}


@pytest.mark.parametrize("shift", [0.12, 0.5])
def test_a_drift_of_many_streams_that_lasts_is_not_told_again_and_again(shift):
    rng, levels, told = np.random.default_rng(1), Counter(), []
    profiler = Profiler(source="validation", seed=1)
    profiler.update(**layers(rng, 1000))
    with DriftMonitor(calibrate(profiler.profile()), 50, recover=200, sinks=[told.append]) as monitor:
        for _ in range(200):
            levels.update(report.level for report in monitor.update(**layers(rng, 50, shift)))
        assert levels["alarm"] > 20
        assert [event.kind for event in told if event.kind != "change"] in (["alarm"], ["warning", "alarm"])
        assert Counter(event.kind for event in told)["change"] <= 3
        del told[:]
        for _ in range(4):  # another one of the same layer
            monitor.update(**layers(rng, 50, 0.8, seed=6))
    assert [event.kind for event in told] == ["change"]


@pytest.mark.parametrize("dark", [0.04, 0.15])
def test_images_a_little_darker_for_long_are_not_told_again_and_again(baseline, dark):
    told = heard(baseline, [{"dark": dark}] * 200, recover=200)
    assert Counter(event.kind for event in told)["change"] <= 3
    assert [event.kind for event in told if event.kind != "change"] == ["alarm"]


NAMES = st.sampled_from([f"s{i}" for i in range(12)])
FOUND = st.lists(
    st.builds(
        Mover, NAMES, st.floats(0.1, 1), st.sampled_from([UP, DOWN, ""]), st.booleans(), st.booleans(), st.booleans(),
        st.sampled_from(["", "wide"]),
    ),
    max_size=8,
)  # fmt: skip


@given(st.lists(FOUND, max_size=200))
def test_there_is_an_end_to_news(windows):
    """Whatever moves, of so many names so many notices come at the most: new, the other side, twice as far."""
    alert, _ = step(Alert(), ALARM, found=[])
    changes = 0
    for found in windows:
        alert, kind = step(alert, ALARM, found=found)
        changes += kind == "change"
    assert changes <= 12 * 5


def test_names_that_are_remembered_are_bounded_and_groups_always_among_them():
    many = [Mover(f"s{i}") for i in range(3 * KNOWN)]
    known = with_told({}, many)
    assert len(known) == KNOWN
    assert not any(is_new(mover, known) for mover in many)
    assert is_new(Mover("outputs", group=True), known)
    assert "outputs" in with_told(known, [Mover("outputs", group=True)])


def test_a_stream_that_goes_to_and_fro_is_told_for_each_side_once():
    alert, kinds = Alert(), []
    for side in (UP, DOWN, UP, DOWN, UP):
        alert, kind = step(alert, ALARM, found=[Mover("inputs/brightness", 0.6, side)])
        kinds.append(kind)
    assert kinds == ["alarm", "change", None, None, None]
    assert alert.known == (("inputs/brightness", BOTH, 0.6),)


def test_what_is_not_beyond_doubt_has_to_be_there_twice():
    known, doubtful = {"a": (UP, 0.5)}, Mover("b", 0.5, sure=False)
    assert news([doubtful], known) == ((), ("b",))
    assert news([doubtful], known, maybe=["b"])[0] == (doubtful,)
    assert news([replace(doubtful, certain=False)], known, maybe=["b"]) == ((), ())


def numbers(name, p, effect, before, after):
    return StreamDrift(name, "numbers", "", True, effect, p, p, baseline=before, window=after)


def test_movers_of_a_report():
    shares = (("cat", 0.2, 0.5), ("dog", 0.5, 0.2))
    top = StreamDrift("outputs/top_class", "categories", "", True, 0.3, 1e-9, 1e-9, shares=shares)
    wider = numbers("inputs/hue", 0.02, 0.2, (0, 10, 20), (-9, 10, 30))
    groups = (GroupDrift("inputs", 100, 100, 0, 0, (wider,)), GroupDrift("outputs", 100, 100, 0, 0, (top,)))
    found = movers(DriftReport(0.05, 0.1, 2, "", "", 100, 100, groups), rate=0.01)
    assert [(m.name, m.side, m.certain, m.sure) for m in found] == [
        ("outputs", "", True, True),
        ("inputs", "", False, False),
        ("outputs/top_class", "cat", True, True),
        ("inputs/hue", "", False, False),
    ]
    assert found[2].fell == ("dog",)


def test_segments_are_told_apart():
    rng = np.random.default_rng(0)
    profiler = Profiler(source="validation", segment_by="site", task="regression")
    rows = rng.normal(size=(600, 3))
    profiler.update(outputs=rows, segments=np.where(np.arange(600) % 2, "north", "south").tolist())
    window = Profiler(like=profiler.profile(), segment_by="site")
    moved = rng.normal(size=(200, 3)) + 2
    window.update(outputs=moved, segments=["north"] * 200)
    found = movers(compare(Baseline(profiler.profile()), window.profile()), 0.01)
    assert "segment north" in [mover.name for mover in found]
