"""Names of classes: bounded, kept, and shown wherever a class is."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from lensai_integrations import Baseline, DriftMonitor, Profile, Profiler, compare, profile_dataset
from lensai_integrations.cli import cli
from lensai_integrations.measures.wrapped import class_names_of
from lensai_integrations.profiles.groups import Group
from lensai_integrations.profiles.names import class_names, wrong_names
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


BIRDS = ("wren", "crow", "kite")
TEXTS = [BIRDS[i] for i in LOGITS[:, :3].argmax(axis=1)]


def of_birds(truth, like=None, n=300, **describe):
    profiler = Profiler(seed=3, like=like, task="logits")
    for group, names in describe.items():
        profiler.describe(group, class_names=names)
    profiler.update(outputs=LOGITS[:n, :3], labels=truth[:n])
    return profiler.profile()


@pytest.mark.parametrize("group", ["labels", "outputs"])
@pytest.mark.parametrize("as_given", [list, tuple, np.array, lambda labels: np.array(labels, object)])
def test_strings_are_the_classes_that_have_these_names(group, as_given):
    labels = as_given(TEXTS)
    profile = of_birds(labels, **{group: list(BIRDS)})
    numbers = of_birds(LOGITS[:, :3].argmax(axis=1), **{group: list(BIRDS)})
    assert profile.groups["labels"].categories[""].top(9) == numbers.groups["labels"].categories[""].top(9)
    ((_, accuracy),) = compare(profile, of_birds(labels, like=profile)).accuracies
    assert (accuracy.baseline, accuracy.window, accuracy.by_labels) == (1.0, 1.0, True)
    assert profile.warnings == []


def test_strings_that_are_no_class_names_are_said_and_have_no_column():
    labels = ["owl" if i % 10 == 0 else text for i, text in enumerate(TEXTS)]
    profile = of_birds(labels, labels=list(BIRDS))
    assert dict(profile.groups["labels"].categories[""].top(9))["owl"] == 30
    assert profile.warnings == [
        "labels: 30 rows have a label such as 'owl', which is none of the class names: no column is of it, and accuracy"
        " is of the other rows"
    ]
    ((_, accuracy),) = compare(profile, of_birds(TEXTS, like=profile)).accuracies
    assert accuracy.baseline == 1.0


def test_strings_of_a_baseline_that_counted_them_as_they_are_stay_what_they_are():
    before = of_birds(TEXTS)
    assert set(dict(before.groups["labels"].categories[""].top(9))) == set(BIRDS)
    before.groups["labels"].info["class_names"] = list(BIRDS)
    assert not compare(before, of_birds(TEXTS, like=before)).drift


def test_names_of_several_heads():
    profiler = Profiler(seed=1)
    profiler.describe("labels/colour", class_names=["red", "blue"])
    profiler.describe("outputs/bird", class_names=list(BIRDS))
    colours = np.where(LOGITS[:, 0] > 0, "red", "blue")
    profiler.update(
        outputs={"bird": LOGITS[:, :3], "colour": LOGITS[:, :1].repeat(2, axis=1) * [1, -1]},
        labels={"bird": TEXTS, "colour": colours},
    )
    profile = profiler.profile()
    window = Profiler(like=profile)
    window.update(outputs=(LOGITS[:, :3], LOGITS[:, :1].repeat(2, axis=1) * [1, -1]), labels=(TEXTS, colours))
    assert {name: each.window for name, each in compare(profile, window.profile()).accuracies} == {
        "outputs/bird": 1.0,
        "outputs/colour": 1.0,
    }


class ClassLabel:
    """As Hugging Face's data sets describe a label."""

    def __init__(self, *names):
        self.names = list(names)


class Value:
    dtype = "int64"


class ListOf:
    def __init__(self, feature):
        self.feature = feature


def data_set(**attributes):
    return type("Data", (), attributes)()


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"classes": list(BIRDS)}, BIRDS),
        ({"class_names": BIRDS}, BIRDS),
        ({"categories": list(BIRDS)}, BIRDS),
        ({"class_to_idx": {"crow": 1, "wren": 0, "kite": 2}}, BIRDS),
        ({"classes": ["crow", "kite", "wren"], "class_to_idx": {"crow": 1, "wren": 0, "kite": 2}}, BIRDS),
        ({"classes": [("wren", "troglodyte"), "crow"], "class_to_idx": {"wren": 0, "troglodyte": 0}}, ("wren", "crow")),
        ({"class_to_idx": {"wren": 1, "crow": 2}}, ()),
        ({"features": {"image": Value(), "label": ClassLabel(*BIRDS)}}, BIRDS),
        ({"features": {"image": Value(), "labels": ListOf(ClassLabel(*BIRDS))}}, BIRDS),
        ({"features": {"a": ClassLabel(*BIRDS), "b": ClassLabel("x", "y")}}, {"a": BIRDS, "b": ("x", "y")}),
        ({"classes": {"a": list(BIRDS), "b": ["x", "y"], "c": 3}}, {"a": BIRDS, "b": ("x", "y")}),
        ({"classes": {"a": list(BIRDS)}}, BIRDS),
        ({"features": {"image": Value()}}, ()),
        ({"classes": list(BIRDS), "target_transform": str}, ()),
        ({"classes": 3, "features": None}, ()),
    ],
)
def test_what_data_sets_call_their_classes(attributes, names):
    data = data_set(**attributes)
    assert class_names_of(data) == names
    assert class_names_of(data_set(dataset=data_set(dataset=data))) == names
    assert class_names_of(data_set(datasets=[data, data_set(dataset=data)])) == names
    assert class_names_of(data_set(datasets=[data, data_set(classes=["z"])])) == ()


@pytest.mark.parametrize("names", [{"bird": BIRDS, "colour": ("red", "blue")}, {"bird": BIRDS}])
@pytest.mark.parametrize("texts", [True, False])
def test_names_by_the_key_of_the_label_in_a_batch(names, texts):
    """A data set with several labels, in batches that a loader makes."""
    numbers = {"bird": np.arange(6) % 3, "colour": np.arange(6) % 2}
    spelt = {"bird": [BIRDS[i] for i in numbers["bird"]], "colour": ["red", "blue"] * 3}
    labels = spelt if texts else numbers
    features = {key: ClassLabel(*each) for key, each in names.items()} | {"x": ClassLabel("1", "2")}
    batch = {"image": np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), dtype=np.uint8), "label": labels}
    loader = type("Loader", (), {"dataset": data_set(features=features), "__iter__": lambda self: iter([batch])})()
    groups = profile_dataset(loader).groups
    assert {name for name in groups if name.startswith("labels/")} == {"labels/bird", "labels/colour"}
    for key, each in names.items():
        assert groups[f"labels/{key}"].info["class_names"] == list(each)
        assert set(dict(groups[f"labels/{key}"].categories[""].top(9))) == {str(i) for i in range(len(each))}
    assert ("class_names" in groups["labels/colour"].info) is ("colour" in names)
