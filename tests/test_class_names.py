"""Names of classes: bounded, kept, and shown wherever a class is."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from lensai_integrations import Baseline, DriftMonitor, Profile, Profiler, compare
from lensai_integrations.class_names import class_names, wrong_names
from lensai_integrations.cli import cli
from lensai_integrations.group import Group
from lensai_integrations.report import baseline_html, drift_html

NAMES = ["cat", "dog & <i>", "bird"]
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 600)
LOGITS = (3 * np.eye(3)[TRUTH] + RNG.normal(size=(600, 3))).astype(np.float32)


def profiled(rows=slice(None), names=NAMES, shift=0.0, like=None, group="labels"):
    profiler = Profiler(like=like, seed=1, segment_by="label")
    if names is not None:
        profiler.describe(group, class_names=names)
    profiler.update(outputs=LOGITS[rows] + [0, shift, 0], labels=TRUTH[rows])
    return profiler.profile()


@pytest.fixture(scope="module")
def baseline():
    return Baseline(profiled())


@pytest.mark.parametrize("group", ["outputs", "labels"])
def test_outputs_and_labels_share_them(group):
    found = profiled(group=group)
    assert [found.groups[name].info["class_names"] for name in ("outputs", "labels")] == [NAMES, NAMES]


@pytest.mark.parametrize(
    "names", ["cat", {"cat": 0}, ["cat", 1], ["x"] * 10_001, ["x" * 201], ["\ud800"], [["cat"]], 3]
)
def test_names_that_are_none_are_left_out_and_said(names):
    found = profiled(names=names)
    assert "class_names" not in found.groups["labels"].info
    assert any("labels: class_names are left out" in text for text in found.warnings)
    assert wrong_names(names)
    assert class_names(Group("labels", info={"class_names": names})) == ()


def test_windows_have_the_baselines_names_and_they_are_not_part_of_being_alike(baseline):
    window = profiled(slice(0, 100), names=None, like=baseline)
    assert window.groups["outputs"].info["class_names"] == NAMES
    assert compare(baseline, profiled(slice(0, 100), names=None)).groups
    merged = baseline.reference.merge(profiled(names=["a", "b", "c"]))
    assert "class_names" not in merged.groups["labels"].info


def test_they_are_in_texts_pages_and_notices(baseline, tmp_path):
    window = profiled(slice(0, 300), names=None, shift=9.0, like=baseline)
    report = compare(baseline, window)
    text = " ".join(report.to_text().split())
    assert "outputs/softmax/1 (dog & <i>) rose" in text
    assert "top_class dog & <i>: " in text
    shares = {name for group in report.groups for stream in group.streams for name, *_ in stream.shares}
    assert shares == set(NAMES)
    assert {segment.name: segment.title for segment in report.segments} == dict(zip("012", NAMES, strict=True))
    for page in (drift_html(report, baseline, window), baseline_html(baseline)):
        assert "dog &amp; &lt;i&gt;" in page
        assert "dog & <i>" not in page
    with DriftMonitor(baseline, window=300) as monitor:
        monitor.update(outputs=LOGITS[:300] + np.array([0, 9, 0]))
        assert any("dog & <i>" in each["words"] for each in monitor._judging.last["streams"])
    shown = CliRunner().invoke(cli, ["show", str(baseline.save(tmp_path / "b"))], env={"COLUMNS": "200"})
    assert "outputs/softmax/1 (dog & <i>)" in shown.output
    assert "cat: " in shown.output
    assert "3 segments by label: " in shown.output
    assert Baseline.load(tmp_path / "b").reference.groups["outputs"].info["class_names"] == NAMES


def test_summaries_show_them(baseline):
    rows = {row.stream: row for row in baseline.reference.summaries()}
    assert rows["outputs/softmax/2"].label == "bird"
    assert {name for name, _ in rows["labels"].top} == set(NAMES)
    assert isinstance(baseline.reference, Profile)
