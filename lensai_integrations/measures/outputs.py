"""What is measured of a model's outputs: how probable each class is, and how sure the model is.

What an output holds (logits, probabilities or plain values) is decided once, by `resolve`, because on an accelerator
the decision has to wait for the values; afterwards the answer is passed along and nothing waits. Rows that contradict
it, such as a negative "probability", become NaN and are counted as invalid: a wrong decision shows itself.

`softmax` and `confidence_scores` need only functions that numpy, torch and `keras.ops` share under the same names, and
none that carries a number from the host to the device, which waits (on torch `maximum(x, 1.0)` does, `where` does not).
`1 - p1` is computed as the sum of the other probabilities, in ascending order: the scores of a very sure model, whose
`1 - p1` is below float32's resolution of 6e-8, stay apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from lensai_integrations.arrays import Array, dtype_name, local, namespace, shape_of, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.definitions import Definition, register

Task: TypeAlias = Literal["auto", "classification", "regression"]
Kind: TypeAlias = Literal["logits", "probabilities", "values"]

TASKS: Final = ("auto", "classification", "regression")
KINDS: Final = ("logits", "probabilities", "values")
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

_MAX_DEPTH = 8
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
        top_class: int64 (JAX: int32) `[n]`, `NO_CLASS` (-1) where the row is not valid; None for `"values"`.
        kind: What the outputs were read as.
    """

    names: tuple[str, ...]
    rows: Array
    top_class: Array | None
    kind: Kind


def measure_outputs(outputs: Array, task: Task | Kind = "auto", *, kind: Kind | None = None) -> OutputRows:
    """Measure one batch of outputs, `[n, C]` for classes, `[n, D]` or `[n]` for values.

    One column of logits or probabilities speaks for the second of two classes. With `kind`, nothing is waited for.

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
        _check_classes(matrix, xp)
    with np.errstate(over="ignore", invalid="ignore"):
        values = xp.astype(matrix, xp.float32)
        rows, top_class = (values, None) if kind == "values" else _classification_rows(values, kind, xp)
    return OutputRows(_names(int(matrix.shape[1]), kind), rows, top_class, kind)


def resolve(outputs: Array, task: Task | Kind = "auto") -> Kind:
    """Decide what a model's outputs hold, from its first batch. On an accelerator this waits for the values, once.

    `"auto"` takes one column as values and several as classification. Classification: rows inside [0, 1] that
    sum to 1 are probabilities; anything outside [0, 1] is logits; what is neither (sigmoid scores of several labels,
    or logits that happen to lie in [0, 1]) is not guessed. A kind given as task is the answer; no value is read.

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
    return _tell_apart(np.asarray(to_host(matrix), dtype=np.float64))


def output_measures(columns: int, kind: Kind) -> dict[str, str]:
    """Stream name to definition id, in the order of `OutputRows.names`; `columns` is the width of the outputs.

    The top class is a stream of categories beside these, of definition `TOP_CLASS`.

    Example:
        >>> output_measures(2, "values")
        {'value/0': 'lensai/output_value@1', 'value/1': 'lensai/output_value@1'}
    """
    base = {"value": "lensai/output_value@1"}
    return {name: base.get(name.split("/")[0], f"lensai/{name.split('/')[0]}@1") for name in _names(columns, kind)}


def pick_output(output: Any) -> Array:
    """Find the tensor to profile in whatever a layer or a model returned.

    That is: an array itself; the attribute `logits`; the key `"logits"` or `"out"` of a mapping; otherwise the first
    array that has rows, in order, looking into tuples and mappings. Losses (arrays without axes) are passed over.

    Raises:
        InputError: If there is none, or the output is a list with a mapping per image (object detection).

    Example:
        >>> pick_output({"loss": np.float32(0.3), "logits": np.zeros((4, 10))}).shape
        (4, 10)
    """
    found = _find(output)
    if found is None:
        raise InputError(f"found no array with rows in the output, a {type(output).__name__}; name another layer")
    return found


def softmax(logits: Array, xp: Any) -> Array:
    """Softmax of `[n, C]` over its classes; finite for any finite logits.

    Example:
        >>> softmax(np.asarray([[1e4, 1e4]]), np).tolist()
        [[0.5, 0.5]]
    """
    exponentials = xp.exp(logits - xp.max(logits, axis=1, keepdims=True))
    return exponentials / xp.sum(exponentials, axis=1, keepdims=True)


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
        other = xp.zeros_like(values) if kind == "logits" else 1.0 - values
        values = xp.concat([other, values], axis=1)
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


def _are_probabilities(values: Array, xp: Any) -> Array:
    """bool `[n, 1]`: rows inside [0, 1] that sum to 1, but for rounding."""
    inside = xp.all((values >= -SUM_TOLERANCE) & (values <= 1.0 + SUM_TOLERANCE), axis=1, keepdims=True)
    return inside & (xp.abs(xp.sum(values, axis=1, keepdims=True) - 1.0) <= SUM_TOLERANCE)


def _tell_apart(values: np.ndarray[Any, Any]) -> Kind:
    """Logits or probabilities, from the finite rows of a host batch `[n, C]`."""
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        raise InputError("outputs have no finite row that tells logits from probabilities; pass task='logits', for one")
    if values.min() < -SUM_TOLERANCE or values.max() > 1.0 + SUM_TOLERANCE:
        return "logits"
    if values.shape[1] > 1 and bool(_are_probabilities(values, np).all()):
        return "probabilities"
    sums = values.sum(axis=1)
    raise InputError(
        f"outputs of shape {values.shape} lie in [0, 1] and their rows sum to {sums.min():.3g} to {sums.max():.3g}: are"
        " they logits, probabilities of the second of two classes, or a score per label? Pass task='logits',"
        " task='probabilities' or task='regression'"
    )


def _matrix(outputs: Array) -> Array:
    """The outputs as `[n, C]`; axes of length 1 do not count."""
    array = local(outputs)
    shape = shape_of(array)
    width = math.prod(shape[1:])
    if not shape or width <= 0:
        raise InputError(f"outputs must have a row per image and at least one column, got shape {shape}")
    if width != max(shape[1:], default=1):
        raise InputError(
            f"outputs must be one vector per row, [n, C] or [n], got shape {shape}; for segmentation maps and sequences"
            " name a layer that gives one vector per image, or profile this layer as an embedding (layers=[...])"
        )
    return array if len(shape) == 2 else namespace(array).reshape(array, (shape[0], width))


def _check_classes(matrix: Array, xp: Any) -> None:
    if xp.isdtype(matrix.dtype, ("bool", "integral")):
        raise InputError(
            f"outputs are {dtype_name(matrix)}, but logits and probabilities are floating-point numbers; pass classes"
            " already chosen as labels, and other whole numbers with task='regression'"
        )


@lru_cache(maxsize=64)
def _names(columns: int, kind: Kind) -> tuple[str, ...]:
    if kind == "values":
        return tuple(f"value/{index}" for index in range(columns))
    classes = max(columns, 2)
    return (*(f"softmax/{index}" for index in range(classes if classes <= MAX_CLASS_STREAMS else 0)), *SCORES)


def _find(output: Any, depth: int = 0) -> Array | None:
    """The first array with rows in an output, by `pick_output`'s rules."""
    if hasattr(output, "shape") and hasattr(output, "dtype"):
        return output if len(output.shape) else None
    if output is None or depth > _MAX_DEPTH:
        return None
    candidates: list[Any] = [getattr(output, "logits", None)]
    if isinstance(output, Mapping):
        candidates += [output.get("logits"), output.get("out"), *output.values()]
    elif isinstance(output, list | tuple):
        if isinstance(output, list) and any(isinstance(part, Mapping) for part in output):
            raise InputError("outputs are a mapping per image (object detection?); name a layer of the backbone")
        candidates += output
    return next((found for part in candidates if (found := _find(part, depth + 1)) is not None), None)
