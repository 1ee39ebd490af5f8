"""What is measured of a model's outputs: how probable each class is, and how sure the model is.

What an output holds (logits or probabilities of classes that exclude each other, or of labels that do not, or plain
values) is decided once, by `meaning.decide_kind`, because on an accelerator the decision has to wait for the values;
afterwards the answer is passed along and nothing waits. Rows that contradict it, such as a negative "probability",
become NaN and are counted as invalid: a wrong decision shows itself.

`softmax`, `sigmoid` and `confidence_scores` need only functions that numpy, torch and `keras.ops` share under the same
names, and none that carries a number from the host to the device, which waits (on torch `maximum(x, 1.0)` does, `where`
does not). `1 - p1` is computed as the sum of the other probabilities, in ascending order: the scores of a very sure
model, whose `1 - p1` is below float32's resolution of 6e-8, stay apart.

On torch's accelerators, which run one operation after the other and pay for each, the same is computed by about half as
many: a row that is not valid becomes NaN before all else and stays so by itself, and the sorted values, from which the
probabilities are made, also say which class is the top one (`_classification_rows_in_torch`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from array_api_compat import is_torch_array

from lensai_integrations.arrays.namespaces import Array, dtype_name, local, namespace, shape_of, to_host, unfilled
from lensai_integrations.errors import InputError
from lensai_integrations.measures.definitions import Definition, register

Task: TypeAlias = Literal["auto", "classification", "multilabel", "regression"]
Kind: TypeAlias = Literal["logits", "probabilities", "values", "multilabel_logits", "multilabel_probabilities"]

TASKS: Final = ("auto", "classification", "multilabel", "regression")
KINDS: Final = ("logits", "probabilities", "values", "multilabel_logits", "multilabel_probabilities")
#: Kinds whose columns are classes that exclude each other, and labels that do not.
CLASSES: Final = ("logits", "probabilities")
MULTILABEL: Final = ("multilabel_logits", "multilabel_probabilities")
SCORES: Final = ("margin_confidence", "least_confidence", "ratio_confidence", "entropy_confidence")
#: With more classes than this the scores and the top class are kept, a stream per class is not.
MAX_CLASS_STREAMS: Final = 2048
#: How far a row of probabilities may be from summing to 1; rounding to bfloat16 alone moves the sum by up to 0.004.
SUM_TOLERANCE: Final = 0.01
#: The top class of a row that is not valid.
NO_CLASS: Final = -1
TOP_CLASS: Final = "lensai/top_class@1"
LABEL: Final = "lensai/label@1"
LABEL_VALUE: Final = "lensai/label_value@1"
LABELS_PER_IMAGE: Final = "lensai/labels_per_image@1"
#: The stream of how many labels a row has, the model's and the data set's alike.
PER_IMAGE: Final = "labels_per_image"
#: A label is on where its probability, or its part in a soft label, is above this.
ON: Final = 0.5

_MAX_DEPTH = 8
#: What values inside [0, 1] may be, of several columns and of one.
_CANDIDATES: Final = (
    "a score for each of several labels, logits, or plain values? Pass task='multilabel', task='logits' or"
    " task='regression'",
    "the probability of the second of two classes, its logit, or plain values? Pass task='probabilities',"
    " task='logits' or task='regression'",
)
_SMALLEST = float(np.finfo(np.float32).tiny)
_SAMPLING = "LensAI sampling scores; B. Settles, Active Learning Literature Survey, 2009, section 3.1"
_PROBABILITIES = "p1 >= p2 the two largest of n class probabilities"

register(
    Definition(
        "lensai/softmax@1", "softmax", "1", "Probability the model gives to one class; stream i is class i.",
        "exp(z_i) / sum_j exp(z_j) of logits z; probabilities: p_i / sum_j p_j; one logit z: classes (0, z)",
        "J. S. Bridle, Probabilistic Interpretation of Feedforward Classification Network Outputs, 1990", (0.0, 1.0),
    ),
    Definition(
        "lensai/margin_confidence@1", "margin confidence", "1",
        "How close the two most probable classes are: 0 is surest, 1 least sure.",
        f"1 - (p1 - p2), {_PROBABILITIES}", _SAMPLING, (0.0, 1.0),
    ),
    Definition(
        "lensai/least_confidence@1", "least confidence", "1",
        "How improbable the most probable class is: 0 is surest, 1 least sure.",
        f"(1 - p1) n / (n - 1), {_PROBABILITIES}", _SAMPLING, (0.0, 1.0),
    ),
    Definition(
        "lensai/ratio_confidence@1", "ratio confidence", "1",
        "The second class's probability as a part of the first's: 0 is surest, 1 least sure.",
        f"p2 / p1, {_PROBABILITIES}", _SAMPLING, (0.0, 1.0),
    ),
    Definition(
        "lensai/entropy_confidence@1", "entropy confidence", "1",
        "How evenly the probability is spread over all classes: 0 is surest, 1 least sure.",
        "-sum_i p_i log2 p_i / log2 n of n class probabilities", _SAMPLING, (0.0, 1.0),
    ),
    Definition(
        TOP_CLASS, "top class", "class", "The most probable class; the first of equals.", "argmax_i p_i", _SAMPLING,
        (0.0, None),
    ),
    Definition(
        LABEL, "label", "class", "The true class that the batch brought along.", "as given", "the data set",
    ),
    Definition(
        LABEL_VALUE, "label value", "the data set's own", "The true number that the batch brought along.",
        "as given, in float32", "the data set",
    ),
    Definition(
        "lensai/label_probability@1", "label probability", "1",
        "Probability that the model gives to one of several labels, each for itself; stream i is label i.",
        "1 / (1 + exp(-z_i)) of logits z; probabilities: p_i",
        "D. R. Cox, The regression analysis of binary sequences, 1958", (0.0, 1.0),
    ),
    Definition(
        LABELS_PER_IMAGE, "labels per image", "labels",
        "How many labels are on: found by the model, or true by the data set.",
        "number of i with p_i > 0.5; of labels 0 or 1: their sum", "G. Tsoumakas and I. Katakis, Multi-Label"
        " Classification: An Overview, 2007, label cardinality", (0.0, None),
    ),
    Definition(
        "lensai/output_value@1", "output value", "the model's own",
        "One number the model answered; stream i is column i.", "as given, in float32", "the model",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class OutputRows:
    """The measures of one batch of outputs, on the device the outputs are on.

    Attributes:
        names: Stream names, one per column, e.g. `("softmax/0", "softmax/1", "margin_confidence", ...)`.
        rows: float32 `[n, D]`, never sharing memory with the outputs. A row that is not valid is all NaN.
        top_class: int64 (JAX: int32) `[n]`, `NO_CLASS` (-1) where the row is not valid; None for `"values"` and for
            several labels.
        kind: What the outputs were read as.
    """

    names: tuple[str, ...]
    rows: Array
    top_class: Array | None
    kind: Kind


def measure_outputs(outputs: Array, task: Task | Kind = "auto", *, kind: Kind | None = None) -> OutputRows:
    """Measure one batch of outputs, `[n, C]` for classes, `[n, D]` or `[n]` for values.

    One column of logits or probabilities speaks for the second of two classes; columns of several labels are labels
    each. With `kind`, nothing is waited for.

    Args:
        outputs: numbers of any floating dtype (integers too for values), of any library, on any device.
        task: What the outputs are for; see `resolve`.
        kind: The answer of `resolve` for the first batch.

    Raises:
        InputError: If the outputs are not one vector per row, or `resolve` cannot tell what they are.

    Example:
        >>> measured = measure_outputs([[2.0, 0.0], [0.0, 0.0]], kind="logits")
        >>> measured.names[2:4], measured.rows[1, 2:4].tolist(), measured.top_class.tolist()
        (('margin_confidence', 'least_confidence'), [1.0, 1.0], [0, 0])
    """
    kind = resolve(outputs, kind or task)
    matrix = _matrix(outputs)
    xp = np if isinstance(matrix, np.ndarray) else namespace(matrix)  # np's own sort is not stable, and so 10x faster
    if kind != "values":
        _check_classes(matrix, xp, kind)
    with np.errstate(over="ignore", invalid="ignore"):
        top_class = None
        if is_torch_array(matrix) and kind != "values":
            if kind in CLASSES:
                rows, top_class = _classification_rows_in_torch(matrix, kind, xp)
            else:
                rows = _label_rows_in_torch(matrix, kind, xp)
        else:
            values = xp.astype(matrix, xp.float32)
            if kind in CLASSES:
                rows, top_class = _classification_rows(values, kind, xp)
            else:
                rows = values if kind == "values" else _label_rows(values, kind, xp)
    return OutputRows(_names(int(matrix.shape[1]), kind), rows, top_class, kind)


def resolve(outputs: Array, task: Task | Kind = "auto") -> Kind:
    """Decide what a model's outputs hold, from its first batch. On an accelerator this waits for the values, once.

    Only what the values show; `meaning.decide_kind` weighs everything else that is known. `"auto"` takes one column as
    values and several as classification. Classification: rows inside [0, 1] that sum to 1 are probabilities; anything
    outside [0, 1] is logits; what is neither (sigmoid scores of several labels, or logits that happen to lie in [0, 1])
    is not guessed. Multilabel: inside [0, 1] are probabilities. A kind given as task is the answer; no value is read.

    Raises:
        InputError: If `task` is unknown, the batch does not settle it, or the outputs are not one vector per row.

    Example:
        >>> resolve([[0.1, 0.9], [0.5, 0.5]]), resolve([[-1.0, 3.0]]), resolve([3.5, 2.5])
        ('probabilities', 'logits', 'values')
    """
    if task in KINDS:
        return task
    if task not in TASKS:
        raise InputError(f"task={task!r} is unknown; pass one of {', '.join(map(repr, TASKS + KINDS))}")
    matrix = _matrix(outputs)
    if task == "regression" or (task == "auto" and matrix.shape[1] == 1):
        return "values"
    _check_classes(matrix, namespace(matrix))
    values = np.asarray(to_host(matrix), dtype=np.float64)
    return _labels_apart(values) if task == "multilabel" else _tell_apart(values)


def output_measures(columns: int, kind: Kind) -> dict[str, str]:
    """Stream name to definition id, in the order of `OutputRows.names`; `columns` is the width of the outputs.

    The top class is a stream of categories beside these, of definition `TOP_CLASS`.

    Example:
        >>> output_measures(2, "values")
        {'value/0': 'lensai/output_value@1', 'value/1': 'lensai/output_value@1'}
    """
    base = {"value": "lensai/output_value@1", "probability": "lensai/label_probability@1"}
    return {name: base.get(name.split("/")[0], f"lensai/{name.split('/')[0]}@1") for name in _names(columns, kind)}


def heads_of(answer: Any) -> dict[str, Array]:
    """The arrays with rows in whatever a model returned, by the name of their head; one alone has the name `""`.

    That is: an array itself; the attribute or key `logits`, else `out`; otherwise every array of a mapping, a tuple, a
    list, a dataclass or an object by its key, field or place, nested ones with a dot between. Losses (arrays without
    axes) and None are left out.

    Raises:
        InputError: If there is none, or the answer is a list with a mapping per image (object detection).

    Example:
        >>> list(heads_of({"loss": np.float32(0.3), "logits": np.zeros((4, 10))}))
        ['']
        >>> list(heads_of({"species": np.zeros((4, 10)), "age": np.zeros((4, 1))})), list(heads_of([np.zeros((4, 2))]))
        (['species', 'age'], [''])
    """
    heads = dict(_heads(answer))
    if not heads:
        raise InputError(
            f"found no array with a row per image in what the model returned, a {type(answer).__name__}: name another"
            " layer, or hand over the array"
        )
    return {"": next(iter(heads.values()))} if len(heads) == 1 else heads


def softmax(logits: Array, xp: Any) -> Array:
    """Softmax of `[n, C]` over its classes; finite for any finite logits.

    Example:
        >>> softmax(np.asarray([[1e4, 1e4]]), np).tolist()
        [[0.5, 0.5]]
    """
    exponentials = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    return exponentials / xp.sum(exponentials, axis=1, keepdims=True)


def sigmoid(logits: Array, xp: Any) -> Array:
    """Sigmoid of each number; neither end overflows.

    Example:
        >>> sigmoid(np.asarray([[-1e4, 0.0, 1e4]]), np).tolist()
        [[0.0, 0.5, 1.0]]
    """
    decayed = xp.exp(-xp.abs(logits))
    return xp.where(logits >= 0.0, 1.0, decayed) / (1.0 + decayed)


def confidence_scores(probabilities: Array, xp: Any) -> Array:
    """LensAI's four sampling scores of probabilities `[n, C]`, C >= 2, as `[n, 4]` in the order of `SCORES`.

    With p1 >= p2 the two largest: margin `1 - (p1 - p2)`, least `(1 - p1) C / (C - 1)`, ratio `p2 / p1`, entropy
    `-sum p log2 p / log2 C`. All are 0 where the model is surest and 1 where it is least sure. Rows sum to 1.

    Example:
        >>> confidence_scores(np.asarray([[0.5, 0.25, 0.25, 0.0]]), np).round(6).tolist()
        [[0.75, 0.666667, 0.5, 0.75]]
    """
    classes = probabilities.shape[1]
    ordered = xp.sort(probabilities, axis=1)
    first, second = ordered[:, -1], ordered[:, -2]
    rest = xp.sum(ordered[:, :-1], axis=1)
    logarithms = xp.log(ordered + _SMALLEST)  # makes 0 log 0 come out as 0; lost in rounding everywhere else
    entropy = -xp.sum(ordered * logarithms, axis=1) / math.log(classes)  # the unit, bits or nats, cancels
    scores = xp.stack([rest + second, rest * (classes / (classes - 1)), second / first, entropy], axis=1)
    return xp.where(scores > 1.0, 1.0, scores)  # rounding alone goes beyond 1


def _classification_rows(values: Array, kind: Kind, xp: Any) -> tuple[Array, Array]:
    """Rows and top classes of float32 logits or probabilities `[n, C]`."""
    if values.shape[1] == 1:
        second = xp.zeros_like(values) if kind == "logits" else 1.0 - values
        values = xp.concat([second, values], axis=1)
    valid = xp.all(xp.isfinite(values), axis=1, keepdims=True)
    if kind == "probabilities":
        valid = valid & _are_probabilities(values, xp)
        values = xp.where(values > 0.0, values, 0.0)
        probabilities = values / xp.sum(values, axis=1, keepdims=True)
    else:
        probabilities = softmax(values, xp)
    scores = confidence_scores(probabilities, xp)
    columns = [probabilities, scores] if values.shape[1] <= MAX_CLASS_STREAMS else [scores]
    rows = xp.where(valid, xp.concat(columns, axis=1), math.nan)
    return rows, xp.where(valid[:, 0], xp.argmax(values, axis=1), NO_CLASS)


def _label_rows(values: Array, kind: Kind, xp: Any) -> Array:
    """Rows of float32 logits or probabilities of labels `[n, C]`: the probabilities, and how many are above a half."""
    valid = xp.all(xp.isfinite(values), axis=1, keepdims=True)
    if kind == "multilabel_logits":
        probabilities = sigmoid(values, xp)
    else:
        valid = valid & _are_inside(values, xp)
        probabilities = xp.where(values > 0.0, values, 0.0)
        probabilities = xp.where(probabilities > 1.0, 1.0, probabilities)
    on = xp.sum(xp.astype(probabilities > ON, xp.float32), axis=1, keepdims=True)
    columns = [probabilities, on] if values.shape[1] <= MAX_CLASS_STREAMS else [on]
    return xp.where(valid, xp.concat(columns, axis=1), math.nan)


def _classification_rows_in_torch(matrix: Array, kind: Kind, xp: Any) -> tuple[Array, Array]:
    """What `_classification_rows` returns, by the operations that torch has, of a tensor `[n, C]` of any precision."""
    if matrix.shape[1] == 1:
        second = xp.zeros_like(matrix) if kind == "logits" else 1.0 - matrix
        matrix = xp.concat([second, matrix], axis=1)
    n, classes = map(int, matrix.shape)
    values = _or_nan(matrix, xp) if kind == "logits" else _probabilities_or_nan(matrix, xp)
    ordered, order = values.sort(dim=1, descending=True, stable=True)  # the first of equals comes first
    shares = _shares(ordered, kind)
    kept = classes if classes <= MAX_CLASS_STREAMS else 0
    rows = unfilled((n, kept + len(SCORES)), "float32", matrix)
    if kept:
        rows[:, :kept] = _shares(values, kind)  # scattering the shares may wait under deterministic algorithms
    rest = shares[:, 1:].sum(1)  # halves and halves of halves: the order does not matter
    margin, least, ratio, entropy = rows[:, kept:].unbind(1)
    xp.add(rest, shares[:, 1], out=margin)
    xp.mul(rest, classes / (classes - 1), out=least)
    xp.div(shares[:, 1], shares[:, 0], out=ratio)
    xp.mul(xp.xlogy(shares, shares).sum(1), -1.0 / math.log(classes), out=entropy)
    rows[:, kept:].clamp_(max=1.0)  # rounding alone goes beyond 1
    return rows, order[:, 0].masked_fill(shares[:, 0].isnan(), NO_CLASS)


def _shares(values: Array, kind: Kind) -> Array:
    """Softmax of logits, or probabilities that sum to 1, of a tensor `[n, C]`."""
    return values.softmax(1) if kind == "logits" else values / values.sum(1, keepdim=True)


def _label_rows_in_torch(matrix: Array, kind: Kind, xp: Any) -> Array:
    """What `_label_rows` returns, by the operations that torch has, of a tensor `[n, C]` of any precision."""
    n, labels = map(int, matrix.shape)
    kept = labels if labels <= MAX_CLASS_STREAMS else 0
    rows = unfilled((n, kept + 1), "float32", matrix)
    probabilities = rows[:, :kept] if kept else unfilled((n, labels), "float32", matrix)
    if kind == "multilabel_logits":
        xp.sigmoid(_or_nan(matrix, xp), out=probabilities)
    else:
        values = matrix.to(xp.float32)
        valid = (values.amin(1, keepdim=True) >= -SUM_TOLERANCE) & (values.amax(1, keepdim=True) <= 1.0 + SUM_TOLERANCE)
        xp.clamp(xp.where(valid, values, math.nan), 0.0, 1.0, out=probabilities)
    xp.add((probabilities > ON).sum(1), probabilities[:, 0] * 0.0, out=rows[:, kept])
    return rows


def _or_nan(matrix: Array, xp: Any) -> Array:
    """A tensor in float32, rows with a value that is not finite as NaN."""
    matrix = matrix.to(xp.float32) if dtype_name(matrix) == "float64" else matrix
    return matrix + 0.0 * xp.linalg.vector_norm(matrix, ord=math.inf, axis=1, keepdims=True, dtype=xp.float32)


def _probabilities_or_nan(matrix: Array, xp: Any) -> Array:
    """A tensor in float32 and not below 0, rows that are no probabilities as NaN."""
    values = matrix.to(xp.float32)
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    off = (values.sum(1, keepdim=True) - 1.0).abs()
    valid = (low >= -SUM_TOLERANCE) & (high <= 1.0 + SUM_TOLERANCE) & (off <= SUM_TOLERANCE)
    return xp.where(valid, values, math.nan).clamp_(min=0.0)


def _are_inside(values: Array, xp: Any) -> Array:
    """bool `[n, 1]`: rows inside [0, 1], but for rounding."""
    return xp.all((values >= -SUM_TOLERANCE) & (values <= 1.0 + SUM_TOLERANCE), axis=1, keepdims=True)


def _are_probabilities(values: Array, xp: Any) -> Array:
    """bool `[n, 1]`: rows inside [0, 1] that sum to 1, but for rounding."""
    return _are_inside(values, xp) & (xp.abs(xp.sum(values, axis=1, keepdims=True) - 1.0) <= SUM_TOLERANCE)


def _finite(values: np.ndarray[Any, Any], example: str) -> np.ndarray[Any, Any]:
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        raise InputError(f"outputs have no finite row that tells logits from probabilities; pass task={example!r}")
    return values


def _labels_apart(values: np.ndarray[Any, Any]) -> Kind:
    """Logits or probabilities of labels, from the finite rows of a host batch `[n, C]`."""
    inside = bool(_are_inside(_finite(values, "multilabel_logits"), np).all())
    return "multilabel_probabilities" if inside else "multilabel_logits"


def _tell_apart(values: np.ndarray[Any, Any]) -> Kind:
    """Logits or probabilities, from the finite rows of a host batch `[n, C]`."""
    values = _finite(values, "logits")
    if values.min() < -SUM_TOLERANCE or values.max() > 1.0 + SUM_TOLERANCE:
        return "logits"
    if values.shape[1] > 1 and bool(_are_probabilities(values, np).all()):
        return "probabilities"
    sums = values.sum(axis=1)
    raise InputError(
        f"outputs of shape {values.shape} lie in [0, 1] and their rows sum to {sums.min():.3g} to {sums.max():.3g}: are"
        f" they {_CANDIDATES[values.shape[1] == 1]}"
    )


def _matrix(outputs: Array) -> Array:
    """The outputs as `[n, C]`; axes of length 1 do not count."""
    array = local(outputs)
    shape = shape_of(array)
    width = math.prod(shape[1:])
    if not shape or width <= 0:
        raise InputError(f"outputs must have a row per image and at least one column, got shape {shape}")
    if width != max(shape[1:], default=1):
        what = (
            "a map per image (segmentation?)" if len(shape) == 4 else "neither a vector nor rows of vectors per image"
        )
        raise InputError(
            f"outputs must be one vector per row, [n, C] or [n], got shape {shape}: {what}, which is not read yet; take"
            " a layer that gives one vector per image, or profile this one as an embedding (embeddings={...}, or"
            " layers=[...] of a callback)"
        )
    return array if len(shape) == 2 else namespace(array).reshape(array, (shape[0], width))


def steps_of(outputs: Array) -> int:
    """T of answers `[n, T, C]`, which are T rows of an image; 0 of one row per image.

    Example:
        >>> steps_of(np.zeros((2, 5, 3))), steps_of(np.zeros((2, 3, 1, 1)))
        (5, 0)
    """
    shape = shape_of(local(outputs))
    return shape[1] if len(shape) == 3 and min(shape[1:]) > 1 else 0


def flattened(outputs: Array) -> Array:
    """Answers `[n, T, C]` as `[n T, C]`.

    Example:
        >>> flattened(np.zeros((2, 5, 3))).shape
        (10, 3)
    """
    array = local(outputs)
    return namespace(array).reshape(array, (-1, shape_of(array)[-1]))


def _check_classes(matrix: Array, xp: Any, kind: Kind | None = None) -> None:
    """Refuse whole numbers for what they cannot be."""
    if not xp.isdtype(matrix.dtype, ("bool", "integral")):
        return
    if kind is not None:
        raise InputError(
            f"outputs are {dtype_name(matrix)}, but are read as {kind.replace('_', ' ')}, which are floating-point"
            " numbers: hand over these; classes already chosen by them are no answers but labels"
        )
    raise InputError(
        f"outputs are {dtype_name(matrix)}, but logits and probabilities are floating-point numbers; pass classes"
        " already chosen as labels, and other whole numbers with task='regression'"
    )


@lru_cache(maxsize=64)
def _names(columns: int, kind: Kind) -> tuple[str, ...]:
    if kind == "values":
        return tuple(f"value/{index}" for index in range(columns))
    if kind in MULTILABEL:
        return (*(f"probability/{index}" for index in range(columns if columns <= MAX_CLASS_STREAMS else 0)), PER_IMAGE)
    classes = max(columns, 2)
    return (*(f"softmax/{index}" for index in range(classes if classes <= MAX_CLASS_STREAMS else 0)), *SCORES)


def _heads(answer: Any, depth: int = 0) -> Iterator[tuple[str, Array]]:
    """Arrays with rows by name, by the rules of `heads_of`."""
    if not isinstance(answer, Mapping) and hasattr(answer, "shape") and hasattr(answer, "dtype"):
        if len(answer.shape):
            yield "", answer
        return
    if answer is None or depth > _MAX_DEPTH or isinstance(answer, str | bytes | int | float):
        return
    main = _main(answer)
    if main is not None:
        yield from _heads(main, depth + 1)
        return
    if isinstance(answer, list) and any(isinstance(inner, Mapping) for inner in answer):
        raise InputError(
            "the answer is a list with a mapping per image (object detection?): detections are not read yet; name a"
            " layer of the backbone instead"
        )
    if isinstance(answer, list) and _is_of_numbers(answer):
        yield "", np.asarray(answer)
        return
    for name, inner in _parts(answer):
        for below, array in _heads(inner, depth + 1):
            yield (f"{name}.{below}" if below else name), array


def _main(answer: Any) -> Any:
    """What is the one answer by its name: of Hugging Face's models, and of torchvision's segmentation."""
    for name in ("logits", "out"):
        head = answer.get(name) if isinstance(answer, Mapping) else getattr(answer, name, None)
        if head is not None and not callable(head):
            return head
    return None


def _is_of_numbers(answer: list[Any]) -> bool:
    first: Any = answer
    for _ in range(_MAX_DEPTH):
        first = first[0] if isinstance(first, list) and first else first
    return isinstance(first, int | float)


def _parts(answer: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(answer, Mapping):
        yield from ((str(key), inner) for key, inner in answer.items())
    elif isinstance(answer, tuple) and hasattr(answer, "_fields"):
        yield from zip(answer._fields, answer, strict=True)
    elif isinstance(answer, list | tuple):
        yield from ((str(index), inner) for index, inner in enumerate(answer))
    else:
        yield from (
            (name, inner) for name, inner in getattr(answer, "__dict__", {}).items() if not name.startswith("_")
        )
