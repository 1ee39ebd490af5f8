"""Labels of every form, from every library, over several batches and epochs; and answers of several rows an image."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from libraries import IMMUTABLE, as_if_elsewhere, maker
from scipy.special import expit

from lensai_integrations import Baseline, DriftMonitor, Profiler, compare
from lensai_integrations.errors import InputError
from lensai_integrations.measures.meaning import label_rows
from lensai_integrations.report import baseline_html

RNG = np.random.default_rng(0)
N = 120
LOGITS = RNG.normal(0, 2, (N, 4)).astype(np.float32)
HOT = (RNG.random((N, 4)) < 0.4).astype(np.float32)
HOT[:20] = np.eye(4)[RNG.integers(0, 4, 20)]  # the first batch has one label each
CLASSES = RNG.integers(0, 4, N)
ONE_HOT = np.eye(4, dtype=np.float32)[CLASSES]
MIXED = 0.8 * ONE_HOT + 0.2 * ONE_HOT[::-1]
POINTS = RNG.random((N, 4)).astype(np.float32)
LIBRARIES = ["numpy", "torch", *IMMUTABLE]


def profiled(labels, outputs=None, batch=20, make=np.asarray, epochs=1, **arguments):
    described = {key: arguments.pop(key) for key in ("loss", "activation", "linear") if key in arguments}
    profiler = Profiler(seed=1, **arguments)
    profiler.describe("outputs", **described)
    for _ in range(epochs):
        profiler.reset()
        for start in range(0, len(labels), batch):
            cut = slice(start, start + batch)
            answer = None if outputs is None else make(outputs[cut])
            taken = labels[cut]
            profiler.update(outputs=answer, labels=taken if isinstance(taken, list) else make(taken))
    return profiler.profile()


def made(library):
    return np.asarray if library == "numpy" else torch.as_tensor if library == "torch" else maker(library)


def counted(profile):
    return dict(profile.groups["labels"].categories[""].top(100))


def counts(classes):
    names, found = np.unique(classes, return_counts=True)
    return dict(zip(map(str, names.tolist()), found.tolist(), strict=True))


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_several_labels_of_an_image(library, elsewhere, monkeypatch):
    if elsewhere:
        as_if_elsewhere(monkeypatch)
    profile = profiled(HOT, LOGITS, make=made(library), epochs=2, loss="binary_cross_entropy_with_logits")
    outputs, labels = profile.groups["outputs"], profile.groups["labels"]
    assert labels.info["read_as"] == "multi_hot"
    assert labels.n == N
    assert counted(profile) == {str(place): int(n) for place, n in enumerate(HOT.sum(axis=0))}
    assert labels.streams == ("labels_per_image",)
    assert float(labels.bank.max[0]) == HOT.sum(axis=1).max()
    assert outputs.streams == (*(f"probability/{place}" for place in range(4)), "labels_per_image")
    kept = profile.rows.data["outputs"]
    np.testing.assert_allclose(np.sort(kept[:, 2]), np.sort(expit(LOGITS[:, 2])), rtol=3e-6)
    assert set(profile.rows.data) == {"outputs"}
    assert profile.warnings == []
    assert counted(profile.merge(profile)) == {name: 2 * n for name, n in counted(profile).items()}


def test_without_an_answer_the_first_batch_decides_and_a_contradiction_is_said():
    profile = profiled(HOT)
    assert profile.groups["labels"].info["read_as"] == "classes"
    odd = int((HOT.sum(axis=1) != 1).sum())
    assert any(f"labels: {odd} rows were left out; they are no single class" in text for text in profile.warnings)
    assert counted(profile) == counts(HOT[HOT.sum(axis=1) == 1].argmax(axis=1))
    assert profiled(HOT, task="multilabel").groups["labels"].info["read_as"] == "multi_hot"
    assert profiled(HOT, batch=N).groups["labels"].info["read_as"] == "multi_hot"


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("labels", [CLASSES, CLASSES[:, None], ONE_HOT, MIXED, CLASSES.astype(np.float32)])
def test_classes_of_any_form_are_the_same(labels, library):
    profile = profiled(labels, LOGITS, make=made(library))
    assert counted(profile) == counts(CLASSES)
    assert sorted(profile.rows.data["labels"][:, 0]) == sorted(CLASSES)
    assert profile.groups["outputs"].info["kind"] == "logits"
    assert profile.warnings == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_numbers_have_a_stream_each(library):
    profile = profiled(POINTS, LOGITS, make=made(library))
    labels = profile.groups["labels"]
    assert labels.streams == ("value/0", "value/1", "value/2", "value/3")
    np.testing.assert_array_equal(labels.bank.max, POINTS.max(axis=0))
    assert profile.groups["outputs"].info["kind"] == "values"
    assert profile.groups["outputs"].info["why"] == "labels are as many numbers"


@pytest.mark.parametrize("labels", [HOT[:, 0], HOT[:, 0].astype(bool), HOT[:, :1].astype(int)])
def test_two_classes_and_one_logit(labels):
    profile = profiled(labels, LOGITS[:, :1], loss="binary_cross_entropy_with_logits", linear=True)
    assert counted(profile) == counts(HOT[:, 0].astype(int))
    assert profile.groups["outputs"].info["kind"] == "logits"
    np.testing.assert_allclose(
        np.sort(profile.rows.data["outputs"][:, 1]), np.sort(expit(LOGITS[:, 0].astype(float))), rtol=3e-6
    )
    unknown = profiled(labels, LOGITS[:, :1], linear=True)
    assert any("outputs: one column is read as the second of two classes" in text for text in unknown.warnings)


def test_fractions_among_numbers_0_and_1_are_said_and_not_read_as_classes():
    labels = np.where(np.arange(N) < 60, HOT[:, 0], 0.5).astype(np.float32)
    profile = profiled(labels, LOGITS[:, :1], loss="binary_cross_entropy_with_logits")
    assert counted(profile) == counts(HOT[:60, 0].astype(int))
    assert any("labels: 60 rows were left out; they are no single class" in text for text in profile.warnings)
    assert np.isnan(profile.rows.data["labels"]).sum() == 60


def test_mixed_labels_of_training_compare_with_classes_of_validation():
    mixed, plain = profiled(MIXED, LOGITS), profiled(CLASSES, LOGITS)
    report = compare(plain, mixed)
    assert not report.drift
    assert "labels" in [group.name for group in report.groups]


def test_labels_are_read_as_the_baselines_are():
    baseline = profiled(HOT, LOGITS, task="multilabel")
    window = profiled(ONE_HOT, LOGITS, like=baseline)
    assert window.groups["labels"].info["read_as"] == "multi_hot"
    assert window.groups["labels"].n == N
    report = compare(baseline, window)
    assert {stream.stream for group in report.groups for stream in group.streams if group.name == "labels"} == {
        "labels",
        "labels/labels_per_image",
    }


@pytest.mark.parametrize("labels", [ONE_HOT, MIXED, CLASSES.astype(np.float32), CLASSES])
def test_segments_by_labels_of_any_form(labels):
    profile = profiled(labels, LOGITS, segment_by="label")
    assert {name: segment.n for name, segment in profile.segments.items()} == counts(CLASSES)


@pytest.mark.parametrize("labels", [HOT, POINTS])
def test_labels_that_make_no_segments_are_said(labels):
    with pytest.raises(InputError, match=r"segment_by='label' needs one class per image, .* with segment_by=None"):
        profiled(labels, LOGITS, batch=N, segment_by="label")


def test_several_labels_within_segments_by_something_else():
    profiler = Profiler(segment_by="site", task="multilabel")
    sites = ["north", "south"] * (N // 2)
    profiler.update(outputs=LOGITS, labels=HOT, segments=sites)
    segment = profiler.profile().segments["south"].groups["labels"]
    assert dict(segment.categories[""].top(9)) == {str(place): int(n) for place, n in enumerate(HOT[1::2].sum(axis=0))}
    assert segment.n == N // 2


def test_labels_beyond_the_columns_are_said_and_no_accuracy_is_made_of_them():
    profile = profiled(CLASSES + 1, LOGITS)
    assert any("labels reach from 1 to 4, but outputs have the classes 0 to 3" in text for text in profile.warnings)
    assert compare(profile, profile).accuracy is None


def test_labels_below_0_count_as_none():
    labels = np.where(np.arange(N) % 2 == 0, CLASSES, -100)
    profile = profiled(labels, ONE_HOT * 5)
    assert any("labels below 0, such as -100" in text for text in profile.warnings)
    assert compare(profile, profile).accuracy.window == 1.0


def test_where_a_window_has_labels_its_accuracy_is_measured():
    truth = RNG.integers(0, 4, 600)
    right = np.where(RNG.random(600) < 0.8, truth, (truth + 1) % 4)
    answers = 3 * np.eye(4)[right] + RNG.normal(0, 0.3, (600, 4))
    baseline = profiled(truth, answers, batch=600)
    window = Profiler(like=baseline)
    window.update(outputs=answers[:100], labels=(right[:100] + 1) % 4)  # as sure as ever, and never right
    found = compare(baseline, window.profile()).accuracy
    assert (found.window, found.low, found.by_labels) == (0.0, 0.0, True)
    assert found.baseline == pytest.approx(np.mean(right == truth))
    assert found.high < 0.05


def test_every_step_of_an_answer_is_a_row():
    steps = RNG.normal(size=(30, 7, 4)).astype(np.float32)
    embeddings = RNG.normal(size=(30, 5)).astype(np.float32)
    profiler = Profiler(task="classification")
    profiler.update(outputs=steps, embeddings={"pool": embeddings}, labels=np.arange(30) % 2)
    profile = profiler.profile()
    assert {name: group.n for name, group in profile.groups.items()} == {
        "outputs": 210,
        "embeddings/pool": 30,
        "labels": 30,
    }
    assert set(profile.rows.data) == {"embeddings/pool", "labels"}
    assert profile.rows.n == 30
    assert [text for text in profile.warnings if "each image has 7 rows" in text]
    expected = np.exp(steps) / np.exp(steps).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(profile.groups["outputs"].bank.max[1], expected[..., 1].max(), rtol=1e-5)
    with DriftMonitor(profile, window=30) as monitor:
        monitor.update(outputs=steps, embeddings={"pool": embeddings})
        assert monitor.status.failures == {}


def test_what_may_be_a_map_is_not_read_as_steps():
    with pytest.raises(InputError, match=r"outputs of shape \(30, 7, 4\) may be 7 answers .* or a map: pass task="):
        Profiler().update(outputs=RNG.normal(size=(30, 7, 4)))
    with pytest.raises(InputError, match=r"a map per image \(segmentation\?\), which is not read yet"):
        Profiler(task="classification").update(outputs=np.zeros((2, 21, 8, 8)))
    with pytest.raises(InputError, match="detections are not read yet"):
        Profiler().update(outputs=[{"boxes": np.zeros((5, 4))}])
    with pytest.raises(InputError, match=r"7 labels for each image, beside as many answers"):
        Profiler(task="classification").update(outputs=RNG.normal(size=(30, 7, 4)), labels=np.zeros((30, 7)))


def test_scores_of_several_labels_that_were_called_probabilities():
    profile = profiled(HOT, expit(LOGITS), task="probabilities")
    assert any("not to 1" in text and "pass task='multilabel'" in text for text in profile.warnings)


def test_a_shift_of_all_logits_is_drift_of_several_labels_and_none_of_classes():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (2000, 6))
    found = {}
    for task in ("classification", "multilabel"):
        baseline = Profiler(task=task, seed=1)
        baseline.update(outputs=logits[:1500])
        window = Profiler(like=baseline.profile(), seed=2)
        window.update(outputs=logits[1500:] - 4)
        found[task] = compare(baseline.profile(), window.profile()).drift
    assert found == {"classification": False, "multilabel": True}


def test_a_page_of_several_labels():
    profiler = Profiler(task="multilabel", source="validation")
    profiler.describe("outputs", class_names=["cat", "<b>dog</b>", "bird", "fish"])
    profiler.update(outputs=LOGITS, labels=HOT)
    page = baseline_html(Baseline(profiler.profile()))
    for text in ("logits of several labels at once", "labels_per_image", "&lt;b&gt;dog&lt;/b&gt;"):
        assert text in page
    assert "<b>dog" not in page


@pytest.mark.parametrize("library", IMMUTABLE)
@pytest.mark.parametrize("labels", [ONE_HOT, MIXED, CLASSES.astype(np.float32), CLASSES])
def test_classes_on_their_way_from_an_accelerator(labels, library, monkeypatch):
    as_if_elsewhere(monkeypatch)
    profile = profiled(labels, LOGITS, make=maker(library), segment_by="label")
    assert counted(profile) == counts(CLASSES)
    assert {name: segment.n for name, segment in profile.segments.items()} == counts(CLASSES)
    assert sorted(profile.rows.data["labels"][:, 0]) == sorted(CLASSES)


def test_a_monitor_of_several_labels():
    baseline = profiled(HOT, LOGITS, task="multilabel")
    with DriftMonitor(baseline, window=40) as monitor:
        reports = monitor.update(outputs=LOGITS, labels=HOT)
        assert [report.level for report in reports] == ["ok"] * 3
        assert [report.profile.groups["labels"].n for report in reports] == [40] * 3
        assert monitor.score(outputs=LOGITS[:5]).shape == (5,)
        assert monitor.update(outputs=LOGITS[0].tolist()) == []
        assert (monitor.status.rows, monitor.status.failures) == (121, {})


ROWS = np.random.default_rng(5).normal(size=(6, 3)).astype(np.float32)
BESIDE = Profiler(seed=5)
BESIDE.update(outputs=np.random.default_rng(6).normal(size=(200, 3)), labels=np.arange(200) % 3)
OF_NONE = "labels have None for some images: leave out labels= for this batch, or pass -1 where a class is not known"
ONE = "pass one label per image, or none"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            [[1, 2], [3], [1], [2], [1], [2]],
            f"labels have different lengths, 1 to 2 for an image, which is not read yet: {ONE}",
        ),
        (np.arange(9) % 3, f"labels are of 9 images, but the batch has 6: {ONE}"),
        (np.arange(4) % 3, f"labels are of 4 images, but the batch has 6: {ONE}"),
        (["a"] * 4, f"labels are of 4 images, but the batch has 6: {ONE}"),
        ([0, 1, None, 2, 0, 1], OF_NONE),
        (["a", None, "a", "b", "c", "c"], OF_NONE),
        (np.array([1, "a", 0, 1, 2, None], object), OF_NONE),
        (np.array([1, "a", 0, 1, 2, 3], object), f"labels: expected an array of numbers, got .*object; {ONE}"),
        (np.array(1), f"labels .*; {ONE}|labels are of 1 images, but the batch has 6: {ONE}"),
        (1, f"labels .*; {ONE}|labels are of 1 images, but the batch has 6: {ONE}"),
        ("cat", f"labels: .* got str .*; {ONE}|labels are of 1 images, but the batch has 6: {ONE}"),
        ({1, 2}, f"labels: expected an array of numbers, got set .*; {ONE}"),
        ((label for label in range(6)), f"labels: expected an array of numbers, got generator .*; {ONE}"),
        ([{"boxes": 1}] * 6, f"labels are a mapping per image .*: {ONE}"),
        (np.zeros((6, 4, 4)), f"labels must be .n. or .n, k., got shape .6, 4, 4.: .*; {ONE}"),
        (np.array([[1, 0, 2]] * 6), f"labels of shape .6, 3. are whole numbers .*; {ONE}"),
    ],
)
def test_labels_that_are_none_are_one_error_that_names_them(labels, message):
    """The same alone, beside a baseline, and in a monitor, which goes on without them."""
    for like in (None, BESIDE.profile()):
        with pytest.raises(InputError, match=message):
            Profiler(like=like).update(outputs=ROWS, labels=labels)
    monitor = DriftMonitor(BESIDE.profile(), window=6)
    (window,) = monitor.update(outputs=ROWS, labels=labels)
    assert list(window.profile.groups) == ["outputs"]
    assert re.search(message, monitor.status.causes["labels"])
    assert list(monitor.status.failures) == ["labels"]


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1, 2, 0, 1, 2], object),
        {"": None, "species": np.arange(6) % 3},
        {"species": [0, 1, 2, 0, 1, 2], "age": None},
        [0, 1, 2, 0, 1, -1],
    ],
)
def test_labels_that_are_some_are_read(labels):
    profiler = Profiler(like=BESIDE.profile())
    profiler.update(outputs=ROWS, labels=labels)
    monitor = DriftMonitor(BESIDE.profile(), window=6)
    (window,) = monitor.update(outputs=ROWS, labels=labels)
    assert monitor.status.failures == {}
    for profile in (profiler.profile(), window.profile):
        assert profile.groups["labels"].categories[""].n == 6
    profiler.update(outputs=ROWS, labels={"species": None})
    assert profiler.profile().groups["labels"].categories[""].n == 6


def test_numbers_in_an_array_of_objects_keep_its_shape():
    assert label_rows(np.array([[1.0, 0.0], [1.0, 1.0]], object)).tolist() == [[1.0, 0.0], [1.0, 1.0]]


@pytest.mark.parametrize("embeddings", [ROWS, [ROWS], ROWS.tolist(), "avgpool"])
def test_embeddings_without_names_are_refused_by_name(embeddings):
    message = f"embeddings= is a {type(embeddings).__name__}: pass a dict from the names of layers to their arrays"
    with pytest.raises(InputError, match=message):
        Profiler().update(embeddings=embeddings)
    monitor = DriftMonitor(BESIDE.profile(), window=6)
    assert len(monitor.update(outputs=ROWS, embeddings=embeddings)) == 1
    assert message in monitor.status.causes["embeddings"]


def test_embeddings_may_be_lists_or_missing():
    profiler = Profiler()
    profiler.update(outputs=ROWS, embeddings={"a": ROWS.tolist(), "b": None})
    assert list(profiler.profile().groups) == ["outputs", "embeddings/a"]


@pytest.mark.parametrize("what", ["outputs", "embeddings/f"])
def test_what_is_no_array_of_numbers_is_named(what):
    objects = np.array([[None] * 3] * 6, object)
    given = {"outputs": objects} if what == "outputs" else {"embeddings": {"f": objects}}
    with pytest.raises(InputError, match=f"^{what}: expected an array of numbers, got ndarray of dtype object"):
        Profiler().update(**given)


@pytest.mark.parametrize("given", [ROWS > 0, (ROWS > 0).astype(int)])
def test_classes_already_chosen_are_no_answer_of_production(given):
    """What is advised can be done where it is said: a monitor has no `task=`."""
    monitor = DriftMonitor(BESIDE.profile(), window=6)
    monitor.update(outputs=given)
    assert "are read as logits, which are floating-point numbers: hand over these" in monitor.status.causes["outputs"]


def test_odd_labels_of_production_are_held_against_the_baselines():
    profiler = Profiler(like=BESIDE.profile())
    profiler.update(outputs=ROWS, labels=[0.0, 1.0, np.nan, 2.0, 0.5, 1.0])
    (told,) = profiler.profile().warnings
    assert told == (
        "labels: 2 rows were left out; they are not one class per image, as the baseline's are: hand over these, or"
        " make another baseline"
    )


COLUMN = np.random.default_rng(7).normal(size=(200, 1)).astype(np.float32)
SIGNS = np.where(COLUMN[:, 0] + np.random.default_rng(8).normal(0, 0.3, 200) > 0, 1, -1)
SEVERAL = np.random.default_rng(9).normal(size=(200, 4)).astype(np.float32)
SEVERAL_SIGNS = np.where(SEVERAL > 0.5, 1, -1)
HINGE = {"loss": "hinge"}


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.float32])
@pytest.mark.parametrize("as_array", [np.asarray, torch.tensor])
@pytest.mark.parametrize(
    ("answer", "signs", "told", "kind", "meaning"),
    [
        (COLUMN, SIGNS, HINGE, "logits", "classes"),
        (COLUMN, SIGNS[:, None], HINGE, "logits", "classes"),
        (COLUMN, SIGNS, {}, "logits", "classes"),
        (SEVERAL, SEVERAL_SIGNS, HINGE, "multilabel_logits", "multi_hot"),
        (SEVERAL, SEVERAL_SIGNS, {}, "multilabel_logits", "multi_hot"),
        (SEVERAL, 2 * np.eye(4)[SEVERAL.argmax(1)] - 1, {}, "logits", "classes"),
        (SEVERAL, 2 * np.eye(4)[SEVERAL.argmax(1)] - 1, HINGE, "multilabel_logits", "multi_hot"),
    ],
)
def test_labels_minus_1_and_1_are_off_and_on(answer, signs, told, kind, meaning, as_array, dtype):
    """As 0 and 1 in their place are, in the baseline and in a window beside it."""
    signs = as_array(signs.astype(dtype))
    profiler = Profiler(seed=1)
    profiler.describe("outputs", **told)
    profiler.update(outputs=answer[:100], labels=signs[:100])
    baseline = profiler.profile()
    window = Profiler(like=baseline, seed=2)
    window.update(outputs=answer[100:], labels=signs[100:])
    for profile, rows in ((baseline, signs[:100]), (window.profile(), signs[100:])):
        groups = profile.groups
        assert (groups["outputs"].info["kind"], groups["labels"].info["read_as"]) == (kind, meaning)
        on = np.asarray(rows).reshape(100, -1) > 0
        if meaning == "classes":
            places = on[:, 0].astype(int) if on.shape[1] == 1 else on.argmax(axis=1)
            expected = {str(place): int(n) for place, n in enumerate(np.bincount(places)) if n}
        else:
            expected = {str(place): int(n) for place, n in enumerate(on.sum(axis=0)) if n}
        assert dict(groups["labels"].categories[""].top(9)) == expected
    doubts = [] if told or answer is SEVERAL else ["outputs: one column is read as the second of two classes; the loss"]
    assert [each[: len(doubt)] for each, doubt in zip(baseline.warnings, doubts, strict=True)] == doubts
    if meaning == "classes":
        (accuracy,) = (each for _, each in compare(baseline, window.profile()).accuracies)
        top = (answer[100:, 0] > 0) == (np.asarray(signs[100:]).reshape(-1) > 0) if answer is COLUMN else [True]
        assert accuracy.window == pytest.approx(np.mean(top))


def test_labels_minus_1_and_1_that_are_predicted_as_numbers_stay_numbers():
    for dtype in (np.float32, np.int64):
        profiler = Profiler()
        profiler.describe("outputs", loss="squared")
        profiler.update(outputs=COLUMN, labels=SIGNS.astype(dtype))
        assert profiler.profile().groups["labels"].streams == ("value/0",)


def test_a_class_and_no_class_beside_several_columns_are_no_signs():
    profiler = Profiler()
    profiler.update(outputs=SEVERAL, labels=SIGNS)
    profile = profiler.profile()
    assert set(dict(profile.groups["labels"].categories[""].top(9))) == {"-1", "1"}
    assert profile.warnings == ["labels below 0, such as -1, are no classes of outputs: accuracy is of the other rows"]


def test_what_is_no_sign_later_on_is_left_out_and_said():
    baseline = Profiler()
    baseline.describe("outputs", **HINGE)
    baseline.update(outputs=COLUMN, labels=SIGNS)
    window = Profiler(like=baseline.profile())
    window.update(outputs=COLUMN, labels=(SIGNS > 0).astype(int))
    (told,) = window.profile().warnings
    assert "they are not -1 or 1 per image, as the baseline's are: hand over these, or make another" in told


def test_profilers_of_one_model_read_labels_as_the_first_of_them_to_see_some():
    training, validation = Profiler(), Profiler()
    validation.share_labels(training)
    training.update(labels=np.eye(4)[[0, 1, 2]])
    validation.update(labels=np.array([[1.0, 1, 0, 0], [0, 0, 1, 0]]))
    assert {p.profile().groups["labels"].info["read_as"] for p in (training, validation)} == {"classes"}
    (warning,) = validation.profile().warnings
    assert "1 rows were left out; they are no single class" in warning


def test_class_numbers_beside_mixed_rows_of_another_pass_are_classes():
    """As where training mixes images, and takes a binary cross-entropy of the shares; validation does not."""
    training, validation = Profiler(), Profiler()
    validation.share_labels(training)
    for profiler in (training, validation):
        profiler.describe("outputs", columns=3, loss="binary_cross_entropy_with_logits")
    training.update(labels=np.array([[0.7, 0.3, 0], [0, 0.5, 0.5]]))
    validation.update(labels=np.array([2, 0]), outputs=np.eye(3)[:2])
    assert [p.profile().groups["labels"].info["read_as"] for p in (training, validation)] == ["multi_hot", "classes"]
    assert validation.profile().groups["labels"].categories[""].n == 2


@pytest.mark.parametrize(
    ("described", "labels", "meaning"),
    [
        ({"columns": 4, "linear": True}, [0.0, 2.0, 3.0], "classes"),
        ({"columns": 2, "linear": True}, [0.0, 2.0, 3.0], "values"),
        ({"columns": 3, "loss": "sigmoid"}, np.eye(3), "multi_hot"),
        ({"columns": 3, "loss": "softmax"}, np.eye(3), "classes"),
        ({"columns": 1, "loss": "unseen"}, [0, 1, 1], "classes"),
        ({"columns": 1, "loss": "unseen"}, [20, 31, 47], "values"),
        ({}, [0.0, 2.0, 3.0], "values"),
    ],
)
def test_labels_beside_no_answer_are_what_is_known_of_it(described, labels, meaning):
    """As those of a training profile, whose answers are not recorded: alike with and without the answers."""
    alone, beside = Profiler(), Profiler()
    for profiler in (alone, beside):
        profiler.describe("outputs", **described)
    answers = np.random.default_rng(0).normal(size=(3, described.get("columns", 1))) * 3
    alone.update(labels=labels)
    beside.update(labels=labels, outputs=answers)
    assert {p.profile().groups["labels"].info["read_as"] for p in (alone, beside)} == {meaning}
