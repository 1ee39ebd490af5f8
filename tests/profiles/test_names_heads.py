"""Several answers and their labels: groups of their own, matched with a baseline's, each failing alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lensai_integrations import Baseline, DriftMonitor, Profile, Profiler, calibrate, compare
from lensai_integrations.errors import InputError
from lensai_integrations.profiles.names import named
from lensai_integrations.report import baseline_html, drift_html

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 4, 400)
SPECIES = (4 * np.eye(4)[TRUTH] + RNG.normal(size=(400, 4))).astype(np.float32)
AGE = RNG.normal(40, 9, (400, 1)).astype(np.float32)
ANSWER = {"species": SPECIES, "age": AGE}
LABELS = {"species": TRUTH, "age": AGE[:, 0] + 1}


def profiled(like=None, n=400, start=0, **given):
    profiler = Profiler(like=like, seed=start + 1)
    cut = slice(start, start + n)
    profiler.update(**{key: {head: rows[cut] for head, rows in each.items()} for key, each in given.items()})
    return profiler.profile()


def test_every_head_is_a_group_with_its_labels():
    profile = profiled(outputs=ANSWER, labels=LABELS)
    assert list(profile.groups) == ["outputs/species", "outputs/age", "labels/species", "labels/age"]
    kinds = {name: group.info.get("kind", group.info.get("read_as")) for name, group in profile.groups.items()}
    assert list(kinds.values()) == ["logits", "values", "classes", "values"]
    assert sorted(profile.rows.data["outputs/species/top_class"][:, 0]) == sorted(SPECIES.argmax(1))
    assert set(profile.rows.data) == {*profile.groups, "outputs/species/top_class"}
    assert profile.warnings == []


@pytest.mark.parametrize(
    ("outputs", "labels", "groups"),
    [
        (SPECIES, TRUTH, ["outputs", "labels"]),
        ({"species": SPECIES}, {"species": TRUTH}, ["outputs", "labels"]),
        ({"logits": SPECIES, "hidden": AGE}, {"y": TRUTH}, ["outputs", "labels"]),
        ((SPECIES, AGE), (["a", "b"] * 200), ["outputs/0", "outputs/1", "labels"]),
        (None, {"species": TRUTH}, ["labels"]),
    ],
)
def test_one_answer_has_no_head(outputs, labels, groups):
    profiler = Profiler()
    profiler.update(outputs=outputs, labels=labels)
    assert list(profiler.profile().groups) == groups


@pytest.mark.parametrize(
    ("heads", "known", "names"),
    [
        ({"": 0}, {}, ["outputs"]),
        ({"a": 0, "b": 0}, {"outputs/b": 1}, ["outputs/a", "outputs/b"]),
        ({"": 0}, {"outputs/resnet": 4}, ["outputs/resnet"]),
        ({"0": 0, "1": 0}, {"outputs/b": 4, "outputs/a": 1}, ["outputs/b", "outputs/a"]),
        ({"a": SPECIES, "b": AGE}, {"outputs": 1}, ["outputs/a", "outputs"]),
        ({"0": SPECIES, "1": AGE}, {"outputs": 1}, ["outputs/0", "outputs"]),
        ({"": AGE}, {"outputs/species": 4, "outputs/age": 1}, ["outputs/age"]),
    ],
)
def test_the_baseline_names_heads(heads, known, names):
    found, doubt = named("outputs", heads, {"inputs": 0, **known})
    assert (list(found), doubt) == (names, "")


@pytest.mark.parametrize(
    ("heads", "known", "names", "doubt"),
    [
        (
            {"a": SPECIES, "b": SPECIES},
            {"outputs": 4},
            ["outputs", "outputs/b"],
            "outputs has the heads 'a', 'b', but the baseline only one, 2 of them of its 4 columns: 'a' is held against"
            " it; pass outputs= the one array that it is, if that is another",
        ),
        ({"0": AGE, "1": AGE}, {"outputs": 4}, ["outputs", "outputs/1"], "none of them of its 4 columns: '0' is held"),
        (
            {"0": 0, "1": 0},
            {"outputs": 0},
            ["outputs", "outputs/1"],
            "but the baseline only one: '0' is held against it",
        ),
        (
            {"x": SPECIES, "y": AGE},
            {"outputs/b": 4, "outputs/a": 1},
            ["outputs/x", "outputs/y"],
            "outputs has the heads 'x', 'y', and the baseline the heads 'b', 'a': not compared; pass outputs= as a",
        ),
        (
            {"": SPECIES},
            {"outputs/b": 1, "outputs/a": 4, "outputs/c": 4},
            ["outputs"],
            "the heads 'b', 'a', 'c', 2 of them of 4 columns like it: it is not compared; pass outputs={'a': ...}",
        ),
        ({"": TRUTH}, {"outputs/b": 4, "outputs/a": 1}, ["outputs"], "pass outputs={'b': ...}, by the name of the one"),
    ],
)
def test_what_no_name_and_no_width_settles_is_said(heads, known, names, doubt):
    found, told = named("outputs", heads, known)
    assert list(found) == names
    assert doubt in told


def test_a_tuple_in_production_is_the_dict_of_the_baseline():
    baseline = profiled(outputs=ANSWER)
    profiler = Profiler(like=baseline)
    profiler.update(outputs=(torch.from_numpy(SPECIES), torch.from_numpy(AGE)))
    assert list(profiler.profile().groups) == list(baseline.groups)


def test_a_head_that_fails_leaves_the_others():
    told = []
    profiler = Profiler(on_error=lambda name, error: told.append(name))
    profiler.update(outputs=ANSWER, labels=LABELS)
    profiler.update(outputs=ANSWER | {"age": np.zeros((400, 2))}, labels=LABELS | {"age": np.zeros((400, 3, 3))})
    profile = profiler.profile()
    assert told == ["outputs/age", "labels/age"]
    assert [group.n for group in profile.groups.values()] == [800, 400, 800, 400]


def test_a_head_that_stays_away_does_not_rename_the_other():
    profiler = Profiler()
    profiler.update(outputs=ANSWER)
    profiler.update(outputs={"age": AGE})
    assert {name: group.n for name, group in profiler.profile().groups.items()} == {
        "outputs/species": 400,
        "outputs/age": 800,
    }


def test_what_is_said_of_the_only_head_is_said_of_outputs():
    profiler = Profiler()
    profiler.describe("outputs/species", loss="cross_entropy", found="by the loss")
    profiler.describe("labels/species", class_names=["a", "b", "c", "d"])
    profiler.update(outputs={"species": SPECIES}, labels={"species": TRUTH})
    groups = profiler.profile().groups
    assert groups["outputs"].info["found"] == "by the loss"
    assert groups["labels"].info["class_names"] == groups["outputs"].info["class_names"] == ["a", "b", "c", "d"]


def test_a_head_that_nothing_is_known_of_is_doubted():
    """Logits and the features they were made of: as classes, 16 features would be nonsense."""
    profiler = Profiler()
    profiler.update(outputs=(SPECIES, RNG.normal(size=(400, 16))), labels={"0": TRUTH})
    (told,) = profiler.profile().warnings
    assert told.startswith("outputs/1: read as logits, but neither the loss nor labels are known: pass task=")
    advice = told.rpartition("task=")[2]  # and it is of this head alone
    settled = Profiler(task=eval(advice))
    settled.update(outputs=(SPECIES, RNG.normal(size=(400, 16))), labels={"0": TRUTH})
    assert [settled.profile().groups[f"outputs/{head}"].info["kind"] for head in "01"] == ["logits", "values"]
    assert settled.profile().warnings == []


def test_tasks_by_head():
    profiler = Profiler(task={"1": "regression"})
    profiler.update(outputs=(SPECIES, SPECIES))
    assert [group.info["kind"] for group in profiler.profile().groups.values()] == ["logits", "values"]
    with pytest.raises(InputError, match="task='ranking' is unknown"):
        Profiler(task={"0": "ranking"}).update(outputs=(SPECIES, SPECIES))


@pytest.fixture(scope="module")
def baseline():
    return calibrate(Baseline(profiled(outputs=ANSWER, labels=LABELS)), draws=100)


def test_each_head_has_an_accuracy_and_a_verdict(baseline, tmp_path):
    loaded = Baseline.load(baseline.save(tmp_path / "b"))
    wrong = ANSWER | {"species": -SPECIES}
    report = compare(loaded, profiled(like=loaded, n=100, outputs=wrong, labels=LABELS))
    ((head, accuracy),) = report.accuracies
    expected = float(np.mean(SPECIES.argmax(1) == TRUTH))
    assert (head, accuracy.by_labels) == ("outputs/species", True)
    assert accuracy.baseline == pytest.approx(expected)
    assert accuracy.window == float(np.mean((-SPECIES[:100]).argmax(1) == TRUTH[:100]))
    assert report.harm == "harmful"
    assert "Accuracy of outputs/species:" in report.to_text()
    assert "by the labels" in report.to_text()
    assert report.to_dict()["accuracies"]["outputs/species"]["by_labels"] is True
    moved = {group.name: group.drift for group in report.groups}
    assert (moved["outputs/species"], moved["outputs/age"]) == (True, False)
    estimated = compare(loaded, profiled(like=loaded, n=100, outputs=wrong))
    assert [each.by_labels for _, each in estimated.accuracies] == [False]
    page = drift_html(report, loaded, profiled(like=loaded, n=100, outputs=wrong, labels=LABELS))
    assert "Outputs: species" in page


def test_a_page_has_a_section_for_each_head(baseline):
    page = baseline_html(baseline)
    for text in ("Outputs: species", "Outputs: age", "accuracy of outputs/species", "read as values"):
        assert text in page


def test_a_monitor_takes_heads(baseline):
    with DriftMonitor(baseline, window=100) as monitor:
        reports = monitor.update(outputs=ANSWER, labels=LABELS)
        assert monitor.status.failures == {}
        assert [report.rows for report in reports] == [100] * 4
        assert list(reports[0].profile.groups) == list(baseline.reference.groups)
        assert monitor.score(outputs=ANSWER).shape == (400,)


def test_profiles_of_heads_merge_and_keep_their_rows():
    merged = profiled(n=200, outputs=ANSWER, labels=LABELS).merge(
        profiled(n=200, start=200, outputs=ANSWER, labels=LABELS)
    )
    assert isinstance(merged, Profile)
    assert {group.n for group in merged.groups.values()} == {400}
    assert merged.rows.n == 400


@pytest.mark.parametrize(
    ("outputs", "labels"),
    [
        ((SPECIES, AGE), (LABELS["species"], LABELS["age"])),
        ([SPECIES, AGE], [LABELS["species"].tolist(), LABELS["age"].tolist()]),
        ({"age": AGE, "species": SPECIES}, (LABELS["age"], LABELS["species"])),
        ((SPECIES, AGE), LABELS),
    ],
)
def test_labels_in_order_are_those_of_the_heads_in_order(baseline, outputs, labels):
    profiler = Profiler(like=baseline)
    profiler.update(outputs=outputs, labels=labels)
    (window,) = DriftMonitor(baseline, window=400).update(outputs=outputs, labels=labels)
    for profile in (profiler.profile(), window.profile):
        assert set(profile.groups) == set(baseline.reference.groups)
        assert profile.groups["labels/age"].streams == ("value/0",)
        assert profile.groups["labels/species"].categories[""].n == 400
    assert [each.window for _, each in window.report.accuracies] == [float(np.mean(SPECIES.argmax(1) == TRUTH))]


def test_labels_in_order_need_no_baseline():
    profiler = Profiler()
    profiler.update(outputs=(SPECIES, AGE), labels=(LABELS["species"], LABELS["age"]))
    kinds = {name: group.info.get("read_as") for name, group in profiler.profile().groups.items()}
    assert kinds == {"outputs/0": None, "outputs/1": None, "labels/0": "classes", "labels/1": "values"}


def test_labels_of_one_image_each_are_no_labels_of_heads():
    profiler = Profiler()
    profiler.update(outputs=(SPECIES[:2], SPECIES[:2]), labels={"0": [[0, 1, 0, 1], [1, 0, 0, 0]]})
    assert list(profiler.profile().groups) == ["outputs/0", "outputs/1", "labels/0"]


@pytest.mark.parametrize(("answer", "head"), [(SPECIES, "species"), (AGE, "age")])
def test_one_answer_of_several_brings_its_labels_along(baseline, answer, head):
    (window,) = DriftMonitor(baseline, window=400).update(outputs=answer, labels=LABELS[head])
    assert (list(window.profile.groups), window.level) == ([f"outputs/{head}", f"labels/{head}"], "ok")


def test_one_of_several_answers_is_held_against_the_only_one_with_its_labels():
    alone = Profiler(seed=1)
    alone.update(outputs=SPECIES, labels=TRUTH)
    (window,) = DriftMonitor(alone.profile(), window=400).update(outputs={"a": AGE, "s": SPECIES}, labels={"s": TRUTH})
    assert list(window.profile.groups) == ["outputs/a", "outputs", "labels"]
    assert (window.level, window.profile.warnings) == ("ok", [])


def test_an_answer_that_is_none_of_the_baselines_raises_no_questions(caplog):
    """Scores in [0, 1] that nothing settles: nothing has to be settled of what is held against nothing."""
    alone = Profiler(seed=1)
    alone.update(outputs=SPECIES)
    monitor = DriftMonitor(alone.profile(), window=400)
    (window,) = monitor.update(outputs={"s": SPECIES, "attention": RNG.uniform(size=(400, 9))})
    assert (window.profile.warnings, caplog.text, monitor.status.failures) == ([], "", {})


def test_which_head_was_taken_is_said_once_and_following_it_settles_it(caplog):
    alone = Profiler(seed=1)
    alone.update(outputs=SPECIES)
    monitor = DriftMonitor(alone.profile(), window=100)
    reports = monitor.update(outputs={"a": SPECIES, "b": -SPECIES})
    assert "'a' is held against it; pass outputs= the one array" in caplog.text
    assert [len(each.profile.warnings) for each in reports] == [1] * 4
    assert len(caplog.records) == 1
    (again, *_) = DriftMonitor(alone.profile(), window=100).update(outputs=-SPECIES)
    assert (again.level, again.profile.warnings) == ("alarm", [])


def test_labels_of_one_head_keep_its_name_where_only_the_description_tells_of_the_others():
    """As in a training profile without outputs, beside a reference that has them."""
    labels = np.arange(6) % 3
    without = Profiler()
    without.update(labels={"kind": labels})
    assert list(without.profile().groups) == ["labels"]

    described = Profiler()
    for head in ("box", "kind"):
        described.describe(f"outputs/{head}", linear=True)
    described.update(labels={"kind": labels})
    assert list(described.profile().groups) == ["labels/kind"]
