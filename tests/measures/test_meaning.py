"""What answers and labels mean: every kind of evidence alone, against others, and what stays open."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from libraries import IMMUTABLE, maker
from scipy.special import expit

from lensai_integrations.arrays.namespaces import to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.measures.meaning import decide_kind, decide_labels, label_form, label_rows
from lensai_integrations.measures.outputs import measure_outputs, output_measures, resolve, sigmoid

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (64, 5)).astype(np.float32)
UNIT = LOGITS / np.linalg.norm(LOGITS, axis=1, keepdims=True)
SCORES = expit(LOGITS)
SURE = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
HOT = (RNG.random((64, 5)) < 0.4).astype(np.float32)
ONE_HOT = np.eye(5, dtype=np.float32)[RNG.integers(0, 5, 64)]
MIXED = 0.7 * ONE_HOT + 0.3 * ONE_HOT[::-1]
CLASSES = RNG.integers(0, 5, 64)
POINTS = RNG.random((64, 5)).astype(np.float32)
TWO = RNG.integers(0, 2, 64)
CE, BCE, BCE_LOGITS = "cross_entropy", "binary_cross_entropy", "binary_cross_entropy_with_logits"


def decided(outputs, labels=None, **described):
    task = described.pop("task", "auto")
    return decide_kind(outputs, task=task, described=described, labels=None if labels is None else label_form(labels))


@pytest.mark.parametrize(
    ("outputs", "labels", "described", "kind"),
    [
        # The loss says it.
        (LOGITS, None, {"loss": CE}, "logits"),
        (POINTS, None, {"loss": CE}, "logits"),
        (UNIT, CLASSES, {"loss": CE}, "logits"),
        (UNIT, CLASSES, {"task": "classification"}, "logits"),
        (UNIT, POINTS, {}, "values"),
        (SURE, None, {"loss": CE, "activation": "softmax"}, "probabilities"),
        (SURE, CLASSES, {"loss": CE}, "probabilities"),
        (LOGITS, HOT, {"loss": BCE_LOGITS}, "multilabel_logits"),
        (LOGITS, None, {"loss": BCE_LOGITS, "linear": True}, "multilabel_logits"),
        (LOGITS, ONE_HOT, {"loss": BCE_LOGITS}, "multilabel_logits"),
        (SCORES, HOT, {"loss": BCE, "activation": "sigmoid"}, "multilabel_probabilities"),
        (SCORES, None, {"loss": BCE}, "multilabel_probabilities"),
        (LOGITS, HOT, {"loss": BCE, "linear": True}, "multilabel_logits"),
        (
            SURE[:, :2] / SURE[:, :2].sum(1, keepdims=True),
            None,
            {"loss": BCE, "activation": "softmax"},
            "probabilities",
        ),
        (LOGITS[:, :1], TWO, {"loss": BCE_LOGITS}, "logits"),
        (SCORES[:, :1], TWO, {"loss": BCE_LOGITS, "linear": True}, "logits"),
        (SCORES[:, 0], TWO, {"loss": BCE, "activation": "sigmoid"}, "probabilities"),
        (SCORES[:, 0], TWO, {"loss": BCE}, "probabilities"),
        (LOGITS, POINTS, {"loss": "squared", "linear": True}, "values"),
        (LOGITS[:, :1], None, {"loss": "squared"}, "values"),
        # The activation does.
        (SURE, None, {"activation": "softmax"}, "probabilities"),
        (SCORES, HOT, {"activation": "sigmoid"}, "multilabel_probabilities"),
        (SCORES, ONE_HOT, {"activation": "sigmoid", "loss": "other"}, "multilabel_probabilities"),
        (SCORES, POINTS, {"activation": "sigmoid"}, "values"),
        (SCORES[:, 0], TWO, {"activation": "sigmoid"}, "probabilities"),
        (SCORES[:, 0], POINTS[:, 0], {"activation": "sigmoid"}, "values"),
        # The labels of the same batch do.
        (LOGITS, CLASSES, {"linear": True}, "logits"),
        (POINTS, CLASSES, {"linear": True}, "logits"),
        (LOGITS, CLASSES.astype(np.float32), {"linear": True}, "logits"),
        (LOGITS, ["a", "b"] * 32, {}, "logits"),
        (LOGITS, ONE_HOT, {}, "logits"),
        (SURE, MIXED, {}, "probabilities"),
        (LOGITS, HOT, {"linear": True}, "multilabel_logits"),
        (SCORES, HOT, {}, "multilabel_probabilities"),
        (SCORES, HOT.astype(bool), {}, "multilabel_probabilities"),
        (LOGITS, POINTS, {"linear": True}, "values"),
        (LOGITS[:, 0], POINTS[:, 0], {}, "values"),
        (LOGITS[:, 0], 10 * CLASSES, {}, "values"),
        # Nothing but the values.
        (LOGITS, None, {}, "logits"),
        (SURE, None, {}, "probabilities"),
        (LOGITS[:, 0], None, {}, "values"),
        # The user does, whatever else there is.
        (LOGITS, HOT, {"task": "classification", "loss": BCE}, "logits"),
        (LOGITS, CLASSES, {"task": "multilabel"}, "multilabel_logits"),
        (SCORES, None, {"task": "multilabel"}, "multilabel_probabilities"),
        (SCORES, None, {"task": "multilabel", "linear": True}, "multilabel_logits"),
        (LOGITS, CLASSES, {"task": "regression", "loss": CE}, "values"),
        (SCORES[:, 0], None, {"task": "classification", "activation": "sigmoid"}, "probabilities"),
    ],
)
def test_evidence_decides(outputs, labels, described, kind):
    found = decided(outputs, labels, **described)
    assert (found.kind, found.doubt) == (kind, "")
    assert found.why


@pytest.mark.parametrize(
    ("outputs", "labels", "described", "kind", "doubt"),
    [
        (LOGITS[:, :1], TWO, {"linear": True}, "logits", "the loss is not known: pass task='logits'"),
        (LOGITS[:, :1], TWO.astype(np.float32), {}, "logits", "one column is read as the second of two classes"),
        (SCORES[:, :1], None, {"activation": "sigmoid"}, "probabilities", "pass task='regression' if it is a number"),
        (SCORES, CLASSES, {"activation": "sigmoid"}, "multilabel_probabilities", "pass task='multilabel', or name"),
        (LOGITS, CLASSES, {"loss": BCE_LOGITS}, "logits", "pass task='multilabel' if several can be on at once"),
        (LOGITS, HOT, {"loss": CE}, "logits", "labels have several on at once: pass task='multilabel'"),
        (LOGITS, CLASSES, {"loss": "squared"}, "values", "pass task='classification' if each column is a class"),
        (LOGITS, None, {"linear": True}, "logits", "neither the loss nor labels are known: pass task='classification'"),
        (LOGITS, POINTS[:, :3], {}, "logits", "labels are rows of 3 and settle nothing: pass task="),
        (
            UNIT,
            CLASSES,
            {},
            "logits",
            "every row has length 1.*embeddings= of a Profiler; outputs=None and its layer in",
        ),
        (UNIT.astype(np.float16), CLASSES, {"loss": "other"}, "logits", "every row has length 1"),
        (SCORES, HOT, {"task": "probabilities"}, "probabilities", "not to 1.*pass task='multilabel'"),
        (LOGITS, HOT - 1.0, {"loss": BCE_LOGITS}, "multilabel_logits", "outside 0 to 1.*read as numbers"),
    ],
)
def test_what_stays_open_is_said_with_what_settles_it(outputs, labels, described, kind, doubt):
    found = decided(outputs, labels, **described)
    assert found.kind == kind
    with pytest.raises(AssertionError, match=doubt):
        raise AssertionError(found.doubt)


def test_scores_between_0_and_1_are_not_guessed():
    with pytest.raises(InputError, match=r"score for each of several labels, .* Pass task='multilabel'"):
        decided(SCORES)
    assert decided(SCORES, task="multilabel").doubt == ""
    with pytest.raises(InputError, match="second of two classes"):
        decided(SCORES[:, :1], task="classification")


def test_the_baseline_comes_before_all_but_the_user():
    labels = label_form(CLASSES)
    assert (
        decide_kind(LOGITS, known="multilabel_logits", described={"loss": CE}, labels=labels).kind
        == "multilabel_logits"
    )
    assert decide_kind(LOGITS, task="regression", known="logits").kind == "values"


def test_probabilities_are_no_logits_of_a_baseline_and_it_is_said():
    shares = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
    found = decide_kind(shares, known="logits")
    assert found.kind == "logits"
    assert "as after a softmax" in found.doubt
    others = [(LOGITS, "logits"), (SCORES, "logits"), (SCORES[:, :1], "logits"), (shares, "probabilities")]
    assert [decide_kind(rows, known=known).doubt for rows, known in others] == [""] * 4


@pytest.mark.parametrize(
    ("labels", "form"),
    [
        (CLASSES, "whole"),
        (CLASSES[:, None], "whole"),
        (CLASSES.astype(np.uint8), "whole"),
        (TWO.astype(bool), "whole"),
        (["cat", "dog"], "texts"),
        (np.array(["cat", "dog"])[:, None], "texts"),
        (TWO.astype(np.float64), "binary"),
        ([3.0, 1.0], "whole floats"),
        ([3.0, 1.5], "numbers"),
        ([np.nan, 1.0], "numbers"),
        (ONE_HOT, "one-hot"),
        (ONE_HOT.astype(int), "one-hot"),
        (HOT, "multi-hot"),
        (np.zeros((4, 3)), "multi-hot"),
        (MIXED, "soft"),
        (POINTS, "rows"),
        (POINTS[:, None, :], "rows"),
        (-MIXED, "rows"),
    ],
)
@pytest.mark.parametrize("library", ["numpy", "torch", *IMMUTABLE])
def test_forms_of_labels(labels, form, library):
    if library != "numpy" and form != "texts":
        labels = torch.as_tensor(np.asarray(labels)) if library == "torch" else maker(library)(np.asarray(labels))
    assert label_form(labels).form == form


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int64"])
def test_the_largest_class_is_known_whatever_integers_labels_are(dtype):
    assert label_form(np.array([0, 3, 1], dtype)).largest == 3
    assert label_form(np.array([], dtype)).largest == -1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 8, 8)), r"got shape \(4, 8, 8\): masks, boxes"),
        (RNG.integers(0, 300, (4, 6)), "whole numbers from .* several per image"),
        ([{"boxes": 1}], "a mapping per image"),
        ({"a": [1]}, "a mapping per image"),
        (
            [[1.0], [1.0, 2.0]],
            "different lengths, 1 to 2 for an image, which is not read yet: pass one label per image",
        ),
        ([1, [2, 3]], "different lengths, 1 to 2 for"),
        ([np.zeros(0), np.zeros(2)], "different lengths, 0 to 2 for"),
        ([["a", "b"], ["b", "c"]], "several texts per image"),
    ],
)
def test_what_is_not_read_is_said(labels, message):
    with pytest.raises(InputError, match=message):
        label_form(labels)


def test_texts_where_numbers_should_be_are_called_that():
    with pytest.raises(
        InputError, match=r"^labels: expected an array of numbers, got list of dtype <U3; pass one label"
    ):
        label_rows(["1.5", "2.0"])


@pytest.mark.parametrize(
    ("labels", "kind", "columns", "meaning"),
    [
        (CLASSES, None, 0, "classes"),
        (CLASSES, "values", 1, "values"),
        (CLASSES, "values", 4, "classes"),
        (["cat"], "values", 1, "classes"),
        (ONE_HOT, None, 0, "classes"),
        (ONE_HOT, "logits", 5, "classes"),
        (ONE_HOT, "multilabel_logits", 5, "multi_hot"),
        (HOT, None, 0, "multi_hot"),
        (HOT, "logits", 5, "multi_hot"),
        (MIXED, "logits", 5, "classes"),
        (MIXED, "values", 5, "values"),
        (MIXED, "multilabel_logits", 5, "multi_hot"),
        (POINTS, "multilabel_logits", 5, "multi_hot"),
        (POINTS, "values", 5, "values"),
        (LOGITS, "multilabel_logits", 5, "values"),
        (TWO.astype(float), "logits", 1, "classes"),
        (TWO.astype(float), "multilabel_logits", 1, "classes"),
        (TWO.astype(float), "values", 1, "values"),
        (TWO.astype(float), None, 0, "values"),
        (CLASSES.astype(float), "logits", 5, "classes"),
        (CLASSES.astype(float), "logits", 3, "values"),
        (POINTS[:, 0], "logits", 5, "values"),
    ],
)
def test_labels_are_read_beside_their_answer(labels, kind, columns, meaning):
    assert decide_labels(label_form(labels), kind, columns) == meaning


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20))
def test_the_sigmoid_is_scipys(values):
    logits = np.array(values, np.float32)
    np.testing.assert_allclose(sigmoid(logits, np), expit(logits.astype(np.float64)), rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("library", ["numpy", "torch", *IMMUTABLE])
def test_rows_of_labels_are_alike_in_every_library(library):
    logits = np.concatenate([LOGITS, [[1e4, -1e4, 0, 80, -80]]]).astype(np.float32)
    logits[3, 1] = np.nan
    make = np.asarray if library == "numpy" else torch.as_tensor if library == "torch" else maker(library)
    measured = measure_outputs(make(logits), kind="multilabel_logits")
    rows = np.asarray(to_host(measured.rows))
    expected = expit(logits.astype(np.float64))
    assert measured.names == (*(f"probability/{place}" for place in range(5)), "labels_per_image")
    assert measured.top_class is None
    assert np.isnan(rows[3]).all()
    kept = np.arange(len(rows)) != 3
    np.testing.assert_allclose(rows[kept, :5], expected[kept], rtol=3e-6, atol=1e-30)
    np.testing.assert_array_equal(rows[kept, 5], (expected[kept] > 0.5).sum(axis=1))


def test_scores_that_cannot_be_are_left_out():
    rows = measure_outputs([[0.2, 1.0], [1.2, 0.5], [1.004, -0.004]], kind="multilabel_probabilities").rows
    np.testing.assert_allclose(rows, [[0.2, 1, 1], [np.nan] * 3, [1, 0, 1]], rtol=1e-6)
    assert resolve([[0.2, 1.0]], "multilabel") == "multilabel_probabilities"
    assert resolve([[0.2, 1.5]], "multilabel") == "multilabel_logits"
    with pytest.raises(InputError, match="whole numbers with task='regression'"):
        resolve([[1, 0]], "multilabel")


@pytest.mark.parametrize("columns", [1, 4, 5000])
def test_definitions_of_labels(columns):
    measures = output_measures(columns, "multilabel_logits")
    assert tuple(measures) == measure_outputs(np.zeros((2, columns)), kind="multilabel_logits").names
    assert set(measures.values()) <= set(DEFINITIONS)


def test_labels_that_are_all_the_same_settle_nothing_where_the_loss_is_unknown():
    """A y of zeros that stands in for labels, as Keras wants one beside a loss of features."""
    for stand_ins in (np.zeros(8, int), np.zeros(8), np.full((8, 1), 3)):
        found = decided(LOGITS[:8], stand_ins)
        assert found.kind == "logits"
        assert "the first labels are all the same number" in found.doubt
    assert decided(LOGITS[:8], np.zeros(8, int), loss=CE).doubt == ""
    assert decided(LOGITS[:4], np.zeros(4, int)).doubt == ""
