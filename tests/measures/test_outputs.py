"""The measures of outputs against scipy, torch and LensAI's own formulas, spelled out plainly."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checks.operations import Operations
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from libraries import nothing_waits
from scipy.special import softmax as scipy_softmax
from scipy.stats import entropy as scipy_entropy

from lensai_integrations.arrays.namespaces import namespace
from lensai_integrations.errors import InputError
from lensai_integrations.measures.definitions import DEFINITIONS
from lensai_integrations.measures.outputs import (
    LABEL,
    LABEL_VALUE,
    MAX_CLASS_STREAMS,
    NO_CLASS,
    SCORES,
    TOP_CLASS,
    _classification_rows,
    _classification_rows_in_torch,
    confidence_scores,
    heads_of,
    measure_outputs,
    output_measures,
    resolve,
    softmax,
)


def lensai_scores(p):
    """The four sampling scores of one probability vector, as reference/lensai.md states them, in float64."""
    second, first = np.sort(np.asarray(p, dtype=np.float64))[-2:]
    n = len(p)
    return np.array(
        [1 - (first - second), (1 - first) * n / (n - 1), second / first, scipy_entropy(p, base=2) / np.log2(n)]
    )


def logits_batch(n=64, classes=10, scale=3.0, seed=0):
    return (np.random.default_rng(seed).normal(size=(n, classes)) * scale).astype(np.float32)


LOGITS = st.tuples(st.integers(1, 6), st.integers(2, 12)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-30, 30, width=32))
)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_rows_equal_scipy_and_the_plain_formulas(classes, kind):
    logits = logits_batch(classes=classes)
    expected = scipy_softmax(logits.astype(np.float64), axis=1)
    measured = measure_outputs(logits if kind == "logits" else expected, kind=kind)
    assert measured.rows.shape == (64, classes + 4)
    assert measured.rows.dtype == np.float32
    np.testing.assert_allclose(measured.rows[:, :classes], expected, rtol=2e-5)
    scores = np.array([lensai_scores(p) for p in expected])
    np.testing.assert_allclose(measured.rows[:, classes:], scores, rtol=1e-4, atol=1e-6)
    assert measured.top_class.tolist() == logits.argmax(axis=1).tolist()


def test_worked_formulas_by_hand():
    measured = measure_outputs([[0.7, 0.2, 0.1]], "classification")
    assert measured.kind == "probabilities"
    entropy = -(0.7 * np.log2(0.7) + 0.2 * np.log2(0.2) + 0.1 * np.log2(0.1)) / np.log2(3)
    np.testing.assert_allclose(measured.rows[0, 3:], [1 - 0.5, 0.3 * 3 / 2, 0.2 / 0.7, entropy], rtol=1e-6)


@pytest.mark.parametrize(("p", "expected"), [([1.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]), ([0.25] * 4, [1, 1, 1, 1])])
def test_zero_is_surest_and_one_is_least_sure(p, expected):
    assert measure_outputs([p], kind="probabilities").rows[0, 4:].tolist() == expected


def test_names_follow_the_columns():
    measured = measure_outputs(logits_batch(classes=3), kind="logits")
    assert measured.names == ("softmax/0", "softmax/1", "softmax/2", *SCORES)
    assert measure_outputs(np.zeros((2, 2)), kind="values").names == ("value/0", "value/1")


@pytest.mark.parametrize(("columns", "kind"), [(1, "logits"), (10, "probabilities"), (3, "values"), (5000, "logits")])
def test_every_stream_has_a_declared_definition(columns, kind):
    measures = output_measures(columns, kind)
    values = np.full((2, columns), 1 / columns)
    assert tuple(measures) == measure_outputs(values, kind=kind).names
    assert set(measures.values()) <= set(DEFINITIONS)


def test_scores_and_categories_are_declared_with_their_range():
    assert all(DEFINITIONS[f"lensai/{score}@1"].range == (0.0, 1.0) for score in SCORES)
    assert DEFINITIONS[TOP_CLASS].name == "top class"
    assert DEFINITIONS[LABEL].name == "label"
    assert DEFINITIONS[LABEL_VALUE].name == "label value"


def test_very_sure_models_keep_their_scores_apart():
    """1 - p1 in float32 would be 0 from a gap of 17 on."""
    gaps = np.array([20.0, 30.0, 50.0, 80.0], dtype=np.float32)
    logits = np.stack([gaps, np.zeros(4), np.zeros(4)], axis=1).astype(np.float32)
    rows = measure_outputs(logits, kind="logits").rows
    others = np.exp(-gaps.astype(np.float64))
    np.testing.assert_allclose(rows[:, 3], 3 * others, rtol=1e-5)
    np.testing.assert_allclose(rows[:, 4], 2 * others * 3 / 2, rtol=1e-5)
    np.testing.assert_allclose(rows[:, 5], others, rtol=1e-5)
    assert (np.diff(rows[:, 6]) < 0).all()


@pytest.mark.parametrize("extreme", [1e4, 3e38])
def test_extreme_logits_stay_finite(extreme):
    rows = measure_outputs([[extreme, -extreme, 0.0], [extreme, extreme, -extreme]], kind="logits").rows
    np.testing.assert_allclose(rows[0], [1, 0, 0, 0, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(rows[1], [0.5, 0.5, 0, 1, 0.75, 1, np.log(2) / np.log(3)], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_torch_of_any_precision_is_computed_in_float32(dtype):
    logits = torch.from_numpy(logits_batch()).to(dtype).requires_grad_()
    rows = measure_outputs(logits, kind="logits").rows
    assert rows.dtype == np.float32
    expected = torch.nn.functional.softmax(logits.detach().double(), dim=1)
    np.testing.assert_allclose(rows[:, :10], expected.numpy(), rtol=2e-5)


def test_float16_on_numpy_does_not_overflow():
    logits = np.array([[60000.0, -60000.0], [0.5, 0.25]], dtype=np.float16)
    first = measure_outputs(logits, kind="logits").rows[:, 0]
    np.testing.assert_allclose(first, [1, 1 / (1 + np.exp(-0.25))], rtol=1e-6)


@pytest.fixture
def on_tensors(monkeypatch):
    """Measure tensors in host memory as those of an accelerator, which they stand in for."""
    monkeypatch.setattr("lensai_integrations.measures.outputs.local", lambda array: array)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_the_generic_path_gives_what_numpy_gives(kind):
    """Traced functions run the formulas of numpy on arrays of their own; torch's prove that path without these."""
    values = logits_batch(classes=7)
    values = values if kind == "logits" else scipy_softmax(values, axis=1)
    values[3, 2] = np.nan
    host_rows, host_top = _classification_rows(values, kind, namespace(values))
    tensor = torch.from_numpy(values)
    rows, top = _classification_rows(tensor, kind, namespace(tensor))
    assert isinstance(rows, torch.Tensor)
    assert (rows.dtype, top.dtype) == (torch.float32, torch.int64)
    np.testing.assert_allclose(rows.numpy(), host_rows, rtol=1e-5, atol=1e-7)
    assert top.tolist() == host_top.tolist()


KINDS_OF_OUTPUTS = ["logits", "probabilities", "multilabel_logits", "multilabel_probabilities", "values"]


def odd_batch(kind, classes, dtype, seed=0):
    """Rows of a kind; some with a value that is not finite, some that contradict the kind, some with equal values."""
    values = torch.from_numpy(logits_batch(n=80, classes=classes, seed=seed))
    if kind == "probabilities":
        values = values.softmax(1)
    elif kind == "multilabel_probabilities":
        values = values.sigmoid()
    for row, odd in enumerate([np.nan, np.inf, -np.inf, 3.0, -0.5, 1.004]):
        values[row, (row * 7) % classes] = odd
    values[10:13] = values[10:13].mean(1, keepdim=True)
    if classes > 1:
        values[13, -2:] = values[13].max()
    values[14] = 0.0
    return values.to(dtype)


@pytest.mark.parametrize("kind", KINDS_OF_OUTPUTS)
@pytest.mark.parametrize("classes", [1, 2, 10, 1000, MAX_CLASS_STREAMS + 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_an_accelerator_gives_what_the_host_gives(kind, classes, dtype, on_tensors):
    values = odd_batch(kind, classes, dtype)
    host = measure_outputs(values.double().numpy() if dtype == torch.float64 else values.float().numpy(), kind=kind)
    device = measure_outputs(values, kind=kind)
    assert isinstance(device.rows, torch.Tensor)
    assert (device.rows.dtype, device.names) == (torch.float32, host.names)
    np.testing.assert_array_equal(device.rows.isnan().numpy(), np.isnan(host.rows))
    np.testing.assert_allclose(device.rows.numpy(), host.rows, rtol=2e-5, atol=1e-6)
    if host.top_class is None:
        assert device.top_class is None
    else:
        assert device.top_class.dtype == torch.int64
        assert device.top_class.tolist() == host.top_class.tolist()


@settings(max_examples=50, deadline=None)
@given(LOGITS, st.sampled_from([None, np.nan, np.inf, -np.inf]))
def test_any_logits_are_measured_alike_on_an_accelerator(logits, odd):
    logits = logits.copy()
    if odd is not None:
        logits[0, -1] = odd
    host = measure_outputs(logits, kind="logits")
    rows, top_class = _classification_rows_in_torch(torch.from_numpy(logits), "logits", namespace(torch.zeros(1)))
    np.testing.assert_allclose(rows.numpy(), host.rows, rtol=2e-5, atol=2e-6)
    assert top_class.tolist() == host.top_class.tolist()


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_very_sure_models_keep_their_scores_apart_on_an_accelerator(kind, on_tensors):
    others = np.exp(-np.array([20.0, 30.0, 50.0, 80.0]))
    values = np.stack([np.log(others), np.log(others), np.zeros(4)], axis=1)
    values = torch.from_numpy(
        values if kind == "logits" else np.stack([others, others, 1 - 2 * others], axis=1)
    ).float()
    rows = measure_outputs(values, kind=kind).rows.numpy()
    np.testing.assert_allclose(rows[:, 3:6], np.outer(others, [3, 3, 1]), rtol=1e-4)
    assert (np.diff(rows[:, 6]) < 0).all()


def test_mixed_precision_and_an_empty_batch_on_an_accelerator(on_tensors):
    values = torch.from_numpy(logits_batch())
    plain = measure_outputs(values, kind="logits").rows
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(measure_outputs(values, kind="logits").rows.numpy(), plain.numpy())
    assert measure_outputs(values[:0], kind="logits").rows.shape == (0, 14)


@pytest.mark.parametrize(
    ("kind", "most"),
    [("logits", 17), ("probabilities", 30), ("multilabel_logits", 8), ("multilabel_probabilities", 13), ("values", 1)],
)
def test_operations_on_an_accelerator_stay_few(kind, most, accelerator):
    outputs = accelerator((128, 1000), torch.bfloat16)
    with Operations() as operations:
        measure_outputs(outputs, kind=kind)
    assert operations.count <= most


@pytest.mark.parametrize("kind", ["logits", "probabilities", "values"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 10])
def test_nothing_is_read_once_the_kind_is_known(kind, dtype, columns):
    """Meta tensors have no values: they stand in for an accelerator's."""
    outputs = torch.empty((8, columns), dtype=dtype, device="meta")
    with nothing_waits():
        measured = measure_outputs(outputs, kind=kind)
    assert measured.rows.device.type == "meta"
    assert measured.rows.dtype == torch.float32
    assert measured.rows.shape == (8, len(measured.names))
    assert (measured.top_class is None) == (kind == "values")


def test_regression_and_given_kinds_are_resolved_without_reading():
    outputs = torch.empty((8, 3), device="meta")
    with nothing_waits():
        assert resolve(outputs, "regression") == "values"
        assert resolve(outputs, "logits") == "logits"
        assert resolve(outputs[:, 0]) == "values"


def test_softmax_equals_torch_on_tensors():
    logits = torch.from_numpy(logits_batch(classes=33))
    expected = torch.nn.functional.softmax(logits, dim=1)
    torch.testing.assert_close(softmax(logits, namespace(logits)), expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(LOGITS, st.floats(-50, 50))
def test_shifting_all_logits_changes_nothing(logits, shift):
    base = measure_outputs(logits.astype(np.float64), kind="logits").rows
    moved = measure_outputs(logits.astype(np.float64) + shift, kind="logits").rows
    np.testing.assert_allclose(moved, base, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(LOGITS, st.randoms(use_true_random=False))
def test_permuting_classes_permutes_softmax_and_keeps_scores(logits, random):
    classes = logits.shape[1]
    order = random.sample(range(classes), classes)
    base, moved = (measure_outputs(values, kind="logits").rows for values in (logits, logits[:, order]))
    np.testing.assert_allclose(moved[:, :classes], base[:, order], rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(moved[:, classes:], base[:, classes:], rtol=1e-5, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(LOGITS)
def test_scores_lie_in_zero_to_one_and_equal_the_plain_formulas(logits):
    classes = logits.shape[1]
    measured = measure_outputs(logits, kind="logits")
    scores = measured.rows[:, classes:]
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(measured.rows[:, :classes].sum(axis=1), 1, rtol=1e-5)
    expected = [lensai_scores(p) for p in scipy_softmax(logits.astype(np.float64), axis=1)]
    np.testing.assert_allclose(scores, expected, atol=2e-6)


@settings(max_examples=50, deadline=None)
@given(LOGITS, st.integers(2, 5))
def test_rows_do_not_depend_on_their_batch(logits, repeats):
    whole = measure_outputs(np.concatenate([logits] * repeats), kind="logits")
    alone = measure_outputs(logits[:1], kind="logits")
    np.testing.assert_allclose(whole.rows[:1], alone.rows, rtol=1e-6)
    assert whole.top_class[0] == alone.top_class[0]


def test_ties_for_the_first_place():
    p = np.array([[0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3], [0.2, 0.4, 0.4]])
    measured = measure_outputs(p, kind="probabilities")
    np.testing.assert_allclose(measured.rows[:, 3:], [lensai_scores(row) for row in p], rtol=1e-6)
    assert measured.top_class.tolist() == [0, 0, 1]


def test_one_logit_is_a_sigmoid_over_two_classes():
    logit = np.array([-1e4, -2.0, 0.5, 40.0, 1e4], dtype=np.float32)
    measured = measure_outputs(logit, kind="logits")
    assert measured.names[:2] == ("softmax/0", "softmax/1")
    expected = torch.sigmoid(torch.from_numpy(logit).double()).numpy()
    np.testing.assert_allclose(measured.rows[:, 1], expected, rtol=1e-6)
    np.testing.assert_allclose(measured.rows[:, 0], 1 - expected, rtol=1e-6, atol=1e-7)
    assert measured.rows[3, 0] == pytest.approx(np.exp(-40), rel=1e-5)  # 1 - sigmoid(40) is 0 in float32
    assert measured.top_class.tolist() == [0, 0, 1, 1, 1]


def test_one_probability_is_that_of_the_second_class():
    measured = measure_outputs([[0.2], [0.9]], kind="probabilities")
    np.testing.assert_allclose(measured.rows[:, :2], [[0.8, 0.2], [0.1, 0.9]], rtol=1e-6)
    np.testing.assert_allclose(measured.rows[0, 2:], lensai_scores([0.8, 0.2]), rtol=1e-6)
    assert measured.top_class.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["logits", "probabilities"])
def test_non_finite_outputs_make_their_row_invalid_and_no_other(bad, kind):
    values = scipy_softmax(logits_batch(n=5), axis=1)
    clean = measure_outputs(values, kind=kind)
    values[2, 4] = bad
    measured = measure_outputs(values, kind=kind)
    assert np.isnan(measured.rows[2]).all()
    assert measured.top_class[2] == NO_CLASS
    others = [0, 1, 3, 4]
    np.testing.assert_array_equal(measured.rows[others], clean.rows[others])
    np.testing.assert_array_equal(measured.top_class[others], clean.top_class[others])


def test_float64_beyond_float32_is_invalid():
    assert np.isnan(measure_outputs([[1e300, 0.0]], kind="logits").rows).all()


@pytest.mark.parametrize("row", [[1.3, -0.3, 0.0], [0.5, 0.4, 0.0], [2.0, 5.0, 1.0], [0.0, 0.0, 0.0], [0.6, 0.6, -0.2]])
def test_rows_that_contradict_probabilities_are_invalid(row):
    measured = measure_outputs([[0.5, 0.3, 0.2], row], kind="probabilities")
    assert np.isnan(measured.rows[1]).all()
    assert measured.top_class.tolist() == [0, NO_CLASS]


def test_probabilities_a_little_outside_are_clipped():
    measured = measure_outputs([[1.004, -0.004]], kind="probabilities")
    assert measured.rows.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


def test_probabilities_rounded_to_half_precision_stay_probabilities():
    p = torch.softmax(torch.from_numpy(logits_batch(n=200, classes=1000)), dim=1).bfloat16()
    assert resolve(p) == "probabilities"
    measured = measure_outputs(p, kind="probabilities")
    np.testing.assert_allclose(measured.rows[:, :1000].sum(axis=1), 1, rtol=1e-5)
    assert np.isfinite(measured.rows).all()


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_resolve_tells_logits_from_probabilities(task):
    logits = logits_batch()
    assert resolve(logits, task) == "logits"
    assert resolve(scipy_softmax(logits, axis=1), task) == "probabilities"
    assert resolve(torch.from_numpy(logits).softmax(1), task) == "probabilities"
    assert resolve(np.eye(4), task) == "probabilities"


def test_resolve_looks_at_finite_rows_only():
    values = np.array([[np.nan, 0.0], [0.25, 0.75]])
    assert resolve(values) == "probabilities"
    with pytest.raises(InputError, match="no finite row"):
        resolve(values[:1])


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1)])
def test_one_column_is_values_unless_said_otherwise(shape):
    outputs = np.linspace(-2, 2, 4).reshape(shape)
    assert resolve(outputs) == "values"
    assert resolve(outputs, "classification") == "logits"


@pytest.mark.parametrize("outputs", [[[0.9, 0.8], [0.1, 0.7]], [[0.2], [0.7]], [[1.0], [1.0]], [[0.0, 0.0]]])
def test_resolve_does_not_guess(outputs):
    with pytest.raises(InputError, match=r"lie in \[0, 1\].*task='logits'"):
        resolve(outputs, "classification")


def test_unknown_tasks_are_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"task='segmentation'.*'classification', 'multilabel', 'regression'"):
        resolve(np.zeros((2, 2)), "segmentation")
    with pytest.raises(InputError, match="task='softmax'"):
        measure_outputs(np.zeros((2, 2)), kind="softmax")


@pytest.mark.parametrize("shape", [(2, 21, 8, 8), (2, 5, 10), (), (2, 0), (2, 3, 0)])
@pytest.mark.parametrize("kind", ["logits", "values"])
def test_outputs_that_are_not_vectors_are_refused(shape, kind):
    with pytest.raises(InputError, match="must "):
        measure_outputs(np.zeros(shape), kind=kind)
    with pytest.raises(InputError, match="must "):
        resolve(np.zeros(shape))


def test_the_refusal_says_what_to_do():
    with pytest.raises(
        InputError, match=r"\(2, 21, 8, 8\): a map per image \(segmentation\?\), which is not read yet; take a layer"
    ):
        measure_outputs(np.zeros((2, 21, 8, 8)))


@pytest.mark.parametrize("shape", [(6, 5, 1, 1), (6, 1, 5), (6, 1, 1, 5)])
def test_axes_of_length_one_do_not_count(shape):
    logits = logits_batch(n=6, classes=5)
    expected = measure_outputs(logits, kind="logits").rows
    np.testing.assert_array_equal(measure_outputs(logits.reshape(shape), kind="logits").rows, expected)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool])
def test_whole_numbers_are_not_taken_for_logits(dtype):
    classes = np.ones((4, 3), dtype=dtype)
    for call in (lambda: resolve(classes), lambda: measure_outputs(classes, kind="logits")):
        with pytest.raises(InputError, match="labels"):
            call()
    assert measure_outputs(classes, "regression").rows.tolist() == [[1.0] * 3] * 4


def test_regression_values_pass_through_as_a_copy():
    values = torch.tensor([1.5, -2.0, float("nan")])
    measured = measure_outputs(values, "regression")
    values.zero_()
    assert measured.names == ("value/0",)
    assert measured.top_class is None
    np.testing.assert_array_equal(measured.rows, np.array([[1.5], [-2.0], [np.nan]], dtype=np.float32))


def test_an_empty_batch_with_a_known_kind():
    measured = measure_outputs(np.zeros((0, 4)), kind="logits")
    assert measured.rows.shape == (0, 8)
    assert measured.top_class.shape == (0,)


def test_too_many_classes_keep_scores_and_top_class():
    logits = logits_batch(n=3, classes=MAX_CLASS_STREAMS + 1)
    measured = measure_outputs(logits, kind="logits")
    assert measured.names == SCORES
    expected = [lensai_scores(p) for p in scipy_softmax(logits.astype(np.float64), axis=1)]
    np.testing.assert_allclose(measured.rows, expected, rtol=1e-4)
    assert measured.top_class.tolist() == logits.argmax(axis=1).tolist()


def test_inputs_and_the_random_state_are_left_alone():
    logits = logits_batch()
    before, state = logits.copy(), torch.get_rng_state()
    measure_outputs(logits)
    np.testing.assert_array_equal(logits, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confidence_scores_keep_their_precision(dtype):
    p = scipy_softmax(logits_batch().astype(dtype), axis=1)
    scores = confidence_scores(p, np)
    assert scores.dtype == dtype
    np.testing.assert_allclose(scores, [lensai_scores(row) for row in p], rtol=1e-9 if dtype == np.float64 else 1e-4)


Outputs = namedtuple("Outputs", ["logits", "aux_logits"])  # as torchvision's GoogLeNet and Inception return
TENSOR = np.ones((4, 10))
OTHER = np.zeros((4, 3))


@pytest.mark.parametrize(
    "output",
    [
        TENSOR,
        [TENSOR],
        SimpleNamespace(loss=np.float32(1), logits=TENSOR),
        SimpleNamespace(loss=None, other=TENSOR),
        {"aux": OTHER, "logits": TENSOR},
        OrderedDict(aux=OTHER, out=TENSOR),
        Outputs(TENSOR, OTHER),
        (np.float32(0.5), {"logits": TENSOR, "hidden": OTHER}),
        (None, (TENSOR,)),
    ],
)
def test_one_answer_is_found_in_any_structure(output):
    heads = heads_of(output)
    assert list(heads) == [""]
    assert heads[""] is TENSOR


Pair = namedtuple("Pair", ["coarse", "fine"])


@dataclass
class TwoHeads:
    species: np.ndarray
    age: np.ndarray
    loss: float = 0.5


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ((TENSOR, OTHER), ["0", "1"]),
        ([TENSOR, np.float32(1), OTHER], ["0", "2"]),
        (Pair(TENSOR, OTHER), ["coarse", "fine"]),
        ({"loss": np.float32(0.5), "first": TENSOR, "second": OTHER}, ["first", "second"]),
        ({3: TENSOR, 4: OTHER}, ["3", "4"]),
        (TwoHeads(TENSOR, OTHER), ["species", "age"]),
        (SimpleNamespace(species=TENSOR, age=OTHER, _own=OTHER), ["species", "age"]),
        ({"coarse": TENSOR, "fine": (OTHER,)}, ["coarse", "fine.0"]),
    ],
)
def test_heads_are_named_by_key_field_or_place(output, names):
    heads = heads_of(output)
    assert list(heads) == names
    assert heads[names[0]] is TENSOR
    assert heads[names[1]] is OTHER


def test_heads_take_tensors_as_they_are():
    tensor = torch.zeros(2, 3, requires_grad=True)
    assert heads_of({"out": tensor})[""] is tensor


def test_lists_of_numbers_are_one_answer():
    assert heads_of([[0.5, 1.5], [2.0, 0.0]])[""].tolist() == [[0.5, 1.5], [2.0, 0.0]]


@pytest.mark.parametrize("output", [None, {}, (), "text", {"loss": np.float32(1)}, SimpleNamespace(logits=None), 3.0])
def test_it_is_said_when_there_is_no_answer(output):
    with pytest.raises(InputError, match="no array with a row per image"):
        heads_of(output)


def test_detections_are_refused():
    with pytest.raises(InputError, match=r"a mapping per image.*detections are not read yet"):
        heads_of([{"boxes": np.zeros((5, 4)), "scores": np.zeros(5)}])


def test_an_answer_that_holds_itself_ends():
    loop = []
    loop.append(loop)
    with pytest.raises(InputError, match="no array"):
        heads_of(loop)
