"""What the numbers of a model's answer mean, and those of its labels: decided once, from all that is known.

One order for everything: what the user said (`task=`), what the baseline to be like was read as, the loss, the
activation of the layer, the labels of the same batch, and last the values. What decided is told in a sentence; what
stays open is told as a doubt that names the argument which settles it. The values of the first batch are waited for,
and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lensai_integrations.arrays.namespaces import Array, is_array, local, namespace, shape_of, strings, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.measures.outputs import CLASSES, KINDS, MULTILABEL, SUM_TOLERANCE, TASKS, Kind, Task, resolve

#: What a batch of labels looks like: strings; whole numbers `[n]`; numbers `[n]` that are all 0 or 1, that are whole,
#: or others; rows `[n, k]` with one 1 each, of 0 and 1 alone, of shares that sum to 1, or of any numbers.
Form: TypeAlias = Literal["texts", "whole", "binary", "whole floats", "numbers", "one-hot", "multi-hot", "soft", "rows"]
#: What labels are read as: a class per row, several labels per row, or numbers.
Meaning: TypeAlias = Literal["classes", "multi_hot", "values"]

#: Losses by what their answer is.
CROSS_ENTROPY: Final = "cross_entropy"
BINARY_LOGITS: Final = "binary_cross_entropy_with_logits"
BINARY: Final = "binary_cross_entropy"
SQUARED: Final = "squared"
#: Of margins between -1 and 1: the sign of a column is the answer.
HINGE: Final = "hinge"
#: What to do about labels that are not read, whoever reads them.
ONE_EACH: Final = "pass one label per image, or none (where batches are searched for them, by target=)"
#: Losses written by hand: one that takes a sigmoid of each column; one that takes a softmax, or a column by the label;
#: and one that was looked for in training and not seen to do anything with the answer.
SIGMOID: Final = "sigmoid"
SOFTMAX: Final = "softmax"
UNSEEN: Final = "unseen"
#: Why, where nothing but the values is known.
OPEN: Final = "its values alone"


@dataclass(frozen=True)
class LabelForm:
    """What a batch of labels looks like.

    Attributes:
        form: See `Form`.
        columns: Numbers of a row.
        largest: The largest class of whole numbers; -1 otherwise.
        inside: Whether all numbers lie in [0, 1].
        signs: Whether all numbers are -1 or 1, and the rest is said of them as 0 and 1.
        alike: Whether there are several, one of each image, and all are the same number.
    """

    form: Form
    columns: int = 1
    largest: int = -1
    inside: bool = False
    signs: bool = False
    alike: bool = False


@dataclass(frozen=True)
class Decision:
    """What an answer was decided to hold.

    Attributes:
        kind: What it is read as.
        why: What decided, in a few words.
        doubt: What stays open and which argument settles it; empty if nothing does.
    """

    kind: Kind
    why: str
    doubt: str = ""


def label_form(labels: Any, *, look: bool = True, signs: bool = True) -> LabelForm:
    """What a batch of labels looks like; on an accelerator this waits for the values.

    Args:
        labels: The batch.
        look: Whether the values of one whole number per image are of interest; without, they are not waited for.
        signs: Whether -1 and 1 stand for off and on.

    Raises:
        InputError: If they are neither one label nor one row of numbers per image: masks, boxes, ids, lists of
            different lengths.

    Example:
        >>> label_form(np.eye(3)).form, label_form([[1.0, 1.0, 0.0]]).form, label_form([3.5, 2.0]).form
        ('one-hot', 'multi-hot', 'numbers')
        >>> label_form([[0.2, 0.8]]).form, label_form(["cat", "dog"]).form, label_form([0, 7]).largest
        ('soft', 'texts', 7)
        >>> label_form([-1.0, 1.0]).form, label_form([-1.0, 1.0]).signs, label_form([-1.0, 1.0], signs=False).form
        ('binary', True, 'numbers')
    """
    if all(label is not None for label in labels_given(labels)) and strings(labels) is not None:
        return LabelForm("texts")
    array = label_rows(labels)
    if not look and array.shape[1] == 1 and namespace(array).isdtype(array.dtype, ("integral", "bool")):
        return LabelForm("whole")
    rows = np.asarray(to_host(array))
    if signs and rows.size and rows.dtype.kind != "u" and bool((np.abs(rows) == 1).all()) and bool((rows < 0).any()):
        form = label_form((rows > 0).astype(rows.dtype), signs=False)
        return replace(form, signs=True)
    whole = rows.dtype.kind in "iub"
    zero_one = bool(np.isin(rows, (0, 1)).all()) and rows.size > 0
    inside = rows.size > 0 and bool(((rows >= 0) & (rows <= 1)).all())
    if rows.shape[1] == 1:
        form = _column_form(rows[:, 0], whole, zero_one, inside)
        return replace(form, alike=len(rows) >= _SEVERAL and bool((rows == rows[0]).all()))
    if zero_one:
        one_each = bool((rows.sum(axis=1) == 1).all())
        return LabelForm("one-hot" if one_each else "multi-hot", rows.shape[1], inside=True)
    if whole:
        raise InputError(
            f"labels of shape {shape_of(rows)} are whole numbers from {rows.min()} to {rows.max()}, several per image:"
            f" ids, boxes, a mask? These are not read yet; {ONE_EACH}. Numbers to be predicted are read as"
            " floating-point numbers"
        )
    soft = inside and bool((np.abs(rows.sum(axis=1) - 1) <= SUM_TOLERANCE).all())
    return LabelForm("soft" if soft else "rows", rows.shape[1], inside=inside)


#: Labels from which on it says something that all are the same.
_SEVERAL: Final = 8


def _column_form(column: NDArray[Any], whole: bool, zero_one: bool, inside: bool) -> LabelForm:
    if whole:
        return LabelForm("whole", largest=int(column.max()) if column.size else -1, inside=inside)
    if zero_one:
        return LabelForm("binary", largest=int(column.max()), inside=True)
    with np.errstate(invalid="ignore"):
        counted = column.size > 0 and bool(((column >= 0) & (column == np.floor(column)) & np.isfinite(column)).all())
    return (
        LabelForm("whole floats", largest=int(column.max()), inside=inside)
        if counted
        else LabelForm("numbers", inside=inside)
    )


def label_rows(labels: Any) -> Array:
    """Labels as `[n, k]`; axes of length 1 do not count. Nothing is waited for.

    Raises:
        InputError: If they are neither `[n]` nor `[n, k]`.

    Example:
        >>> label_rows([0, 1]).shape, label_rows(np.zeros((4, 1, 3))).shape
        ((2, 1), (4, 3))
    """
    array = label_array(labels)
    shape = shape_of(array)
    kept = (*shape[:1], *(size for size in shape[1:] if size != 1))
    if not shape or len(kept) > 2:
        raise InputError(
            f"labels must be [n] or [n, k], got shape {shape}: masks, boxes and sequences are not read yet; {ONE_EACH}"
        )
    return namespace(array).reshape(array, (shape[0], kept[1] if len(kept) == 2 else 1))


def labels_given(labels: Any) -> list[Any] | tuple[Any, ...]:
    """Labels that are Python's own objects, one by one, and so may be anything; of an array of numbers none.

    Example:
        >>> labels_given([0, None]), labels_given(np.array([1, "a"], object)), labels_given(np.zeros(2))
        ([0, None], [1, 'a'], ())
    """
    if isinstance(labels, np.ndarray) and labels.dtype.kind == "O":
        return labels.reshape(-1).tolist()
    return labels if isinstance(labels, list | tuple) else ()


def label_array(labels: Any) -> Array:
    """Labels that are no strings, as an array; nothing is waited for.

    Raises:
        InputError: If they are no numbers: mappings, None, lists of different lengths.

    Example:
        >>> label_array([[0, 1], [1, 1]]).shape
        (2, 2)
    """
    _refuse_several(labels)
    values = labels_given(labels)
    if isinstance(labels, Mapping) or any(isinstance(label, Mapping) for label in values):
        raise InputError(f"labels are a mapping per image (boxes?), which is not read yet: {ONE_EACH}")
    if any(label is None for label in values):
        raise InputError(
            "labels have None for some images: leave out labels= for this batch, or pass -1 where a class is not known"
            " and NaN where a number is not"
        )
    numbers = all(isinstance(label, int | float | np.number) for label in values)
    try:
        return np.array(labels.tolist()) if values and numbers and isinstance(labels, np.ndarray) else local(labels)
    except InputError as error:  # texts among the numbers, or no numbers at all
        raise InputError(f"labels: {error}; {ONE_EACH}") from error


def check_rows(labels: Any, n: int) -> None:
    """Refuse labels that are more or fewer than the images.

    Args:
        labels: An array, or a list.
        n: Images; 0 if that is not known.

    Raises:
        InputError: If there is not one for each of them.

    Example:
        >>> check_rows([0, 1, 1], 3)
        >>> check_rows([0, 1, 1], 2)
        Traceback (most recent call last):
        lensai_integrations.errors.InputError: labels are of 3 images, but the batch has 2: pass one label ...
    """
    shape = (len(labels),) if isinstance(labels, list | tuple) else shape_of(labels) if is_array(labels) else ()
    if n and shape and shape[0] not in (n, -1):
        raise InputError(f"labels are of {shape[0]} images, but the batch has {n}: {ONE_EACH}")


def _refuse_several(labels: Any) -> None:
    """Raise if each image has a list of its own, as long as it likes, or of texts."""
    if not isinstance(labels, list | tuple):
        return
    rows = [row for row in labels if isinstance(row, list | tuple) or (is_array(row) and len(row.shape))]
    lengths = {len(row) for row in rows} | ({1} if len(rows) < len(labels) else set())
    if len(lengths) > 1:
        raise InputError(
            f"labels have different lengths, {min(lengths)} to {max(lengths)} for an image, which is not read yet:"
            f" {ONE_EACH}; several as a row of 0 and 1 with a column for each label"
        )
    if any(isinstance(value, str) for row in rows if isinstance(row, list | tuple) for value in row):
        raise InputError(
            f"labels are several texts per image, which is not read yet: {ONE_EACH}; several as a row of 0 and 1 with a"
            " column for each label"
        )


@dataclass(frozen=True)
class _Evidence:
    """What is known of an answer `[n, C]`."""

    outputs: Array
    columns: int
    loss: str
    activation: str
    linear: bool
    labels: LabelForm | None

    def classes(self) -> Kind:
        """Logits or probabilities of classes that exclude each other."""
        if self.activation == "softmax" or (self.activation == "sigmoid" and self.columns == 1):
            return "probabilities"
        return "logits" if self.linear else resolve(self.outputs, "classification")

    def several(self) -> Kind:
        """Logits or probabilities of labels that do not."""
        if self.activation == "sigmoid":
            return "multilabel_probabilities"
        return "multilabel_logits" if self.linear else resolve(self.outputs, "multilabel")

    def two(self) -> Kind:
        """The one column of two classes."""
        inside = resolve(self.outputs, "multilabel") == "multilabel_probabilities"
        return "probabilities" if self.activation == "sigmoid" or (inside and not self.linear) else "logits"


def decide_kind(
    outputs: Array,
    *,
    task: Task | Kind = "auto",
    known: Kind | None = None,
    described: Mapping[str, Any] | None = None,
    labels: LabelForm | None = None,
    alone: bool = True,
) -> Decision:
    """Decide what a model's answer holds, from its first batch. On an accelerator this waits for the values, once.

    Args:
        outputs: The answer, `[n, C]` or `[n]`.
        task: What the user said.
        known: What the baseline's was read as.
        described: What an adapter knows: `loss`, `activation`, `linear`; see `Profiler.describe`.
        labels: What the labels of the same batch look like.
        alone: Whether it is the only answer; of several, some may be no answers but features.

    Raises:
        InputError: If `task` is unknown or does not fit the values, or nothing settles what they are.

    Example:
        >>> decide_kind([[0.3, -2.0]], labels=label_form([[1.0, 1.0]]))
        Decision(kind='multilabel_logits', why='labels have several on at once, one per column', doubt='')
        >>> decide_kind([[0.3], [2.0]], described={"loss": "squared"}).kind
        'values'
    """
    about = described or {}
    shape = shape_of(local(outputs))
    columns = math.prod(shape[1:])
    loss, activation = (str(about.get(key) or "") for key in ("loss", "activation"))
    evidence = _Evidence(outputs, columns, loss, activation, about.get("linear") is True, labels)
    if task != "auto":
        return _as_told(evidence, task)
    if known is not None:
        return Decision(known, "as in the baseline", _unlike_the_baseline(evidence, known))
    rules = (_by_loss, _by_activation, _by_labels)
    decision = next((decision for rule in rules if (decision := rule(evidence)) is not None), None)
    decision = decision or _by_values(evidence, about, alone)
    if decision.kind != "logits" or decision.doubt or loss in (CROSS_ENTROPY, BINARY, BINARY_LOGITS, SOFTMAX, HINGE):
        return decision
    if _are_of_length_one(evidence):
        return replace(decision, doubt=_OF_LENGTH_ONE)
    return replace(decision, doubt=_OF_NO_LOSS.format(decision.why)) if loss == UNSEEN and columns > 1 else decision


_OF_NO_LOSS: Final = (
    "{}, but no loss was seen to hold the answer against them: read as logits of classes that exclude each other; pass"
    " task='classification' if that is so, task='multilabel' if several can be on at once, or outputs=None and its"
    " layer in layers= if it is an embedding"
)
_OF_LENGTH_ONE: Final = (
    "every row has length 1, as embeddings have that are compared by angle, and no loss tells: read as logits; if it is"
    " an embedding, hand it over as one (embeddings= of a Profiler; outputs=None and its layer in layers= of a"
    " callback), else pass task='classification'"
)
#: What bfloat16 makes of a length of 1 is nearer than this.
_LENGTH_TOLERANCE: Final = 0.01


def _are_of_length_one(evidence: _Evidence) -> bool:
    """Whether rows are normalised to a length, as no layer of a classifier leaves logits."""
    rows = np.asarray(to_host(local(evidence.outputs)), np.float64).reshape(-1, evidence.columns)
    rows = rows[np.isfinite(rows).all(axis=1)]
    return min(rows.shape) > 1 and bool((np.abs(np.linalg.norm(rows, axis=1) - 1) <= _LENGTH_TOLERANCE).all())


def _as_told(evidence: _Evidence, task: Task | Kind) -> Decision:
    why = f"task={task!r}"
    if task in KINDS:
        kind: Kind = task
    elif task == "multilabel":
        kind = evidence.several()
    elif task == "classification":
        kind = (
            evidence.two() if evidence.columns == 1 and (evidence.linear or evidence.activation) else evidence.classes()
        )
    else:
        kind = resolve(evidence.outputs, task)
    return Decision(kind, why, _scores_of_labels(evidence) if kind == "probabilities" else "")


def _scores_of_labels(evidence: _Evidence) -> str:
    """What is wrong with rows that should be probabilities of classes and are scores, each of its own label."""
    if evidence.columns == 1 or resolve(evidence.outputs, "multilabel") != "multilabel_probabilities":
        return ""
    rows = np.asarray(to_host(local(evidence.outputs)), np.float64).reshape(-1, evidence.columns)
    sums = rows[np.isfinite(rows).all(axis=1)].sum(axis=1)
    if (np.abs(sums - 1) <= SUM_TOLERANCE).all():
        return ""
    return (
        f"read as probabilities of classes, but rows sum to {sums.min():.3g} to {sums.max():.3g} and not to 1: such"
        " rows are left out; if each column is the score of a label of its own, pass task='multilabel'"
    )


def _unlike_the_baseline(evidence: _Evidence, kind: Kind) -> str:
    """What is wrong with rows that should be as the baseline's, and can be told from one batch.

    Logits that are no logits show in all rows together (`alike.unlike`); a softmax shows in a row, too.
    """
    rows = np.asarray(to_host(local(evidence.outputs)), np.float64).reshape(-1, evidence.columns)
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows) or kind in ("values", "multilabel_logits"):
        return ""
    low, high, sums = rows.min(), rows.max(), rows.sum(axis=1)
    inside = bool(low >= -SUM_TOLERANCE and high <= 1 + SUM_TOLERANCE)
    in_all = evidence.columns > 1 and bool((np.abs(sums - 1) <= SUM_TOLERANCE).all())
    if kind == "logits":
        return (
            "read as logits, as the baseline's were, but rows lie in [0, 1] and sum to 1, as after a softmax: hand over"
            " what goes into it, or make the baseline of probabilities too"
            if inside and in_all
            else ""
        )
    of = "scores of labels that do not exclude each other" if kind in MULTILABEL else "probabilities"
    by = "sigmoid" if kind in MULTILABEL or evidence.columns == 1 else "softmax"
    if not inside:
        return (
            f"read as {of}, as the baseline's were, but numbers reach from {low:.3g} to {high:.3g}, as logits do: such"
            f" rows are left out; hand over what a {by} makes of them, or make the baseline of logits too"
        )
    if kind == "probabilities" and evidence.columns > 1 and not in_all:
        return (
            f"read as probabilities of classes, as the baseline's were, but rows sum to {sums.min():.3g} to"
            f" {sums.max():.3g} and not to 1, as scores of labels that do not exclude each other: such rows are left"
            " out; hand over what a softmax answers, or make the baseline of such scores too"
        )
    return ""


def _by_loss(evidence: _Evidence) -> Decision | None:
    if evidence.activation == "softmax" and evidence.columns > 1:
        return Decision("probabilities", "a softmax comes last")
    rule = {
        **dict.fromkeys((CROSS_ENTROPY, SOFTMAX), _by_cross_entropy),
        **dict.fromkeys((BINARY, BINARY_LOGITS), _by_binary),
        SIGMOID: _by_sigmoid,
        SQUARED: _by_squared,
        HINGE: _by_hinge,
    }
    return rule[evidence.loss](evidence) if evidence.loss in rule else None


def _by_cross_entropy(evidence: _Evidence) -> Decision | None:
    if evidence.columns == 1:
        return None
    try:
        kind = evidence.classes()
    except InputError:  # inside [0, 1] and not summing to 1: these are no probabilities
        kind = "logits"
    doubt = ""
    if evidence.labels is not None and evidence.labels.form == "multi-hot":
        doubt = (
            "the loss is a cross-entropy of classes, but labels have several on at once: pass task='multilabel' if that"
            " is so"
        )
    why = (
        "the loss takes a softmax of it, or a column by its label"
        if evidence.loss == SOFTMAX
        else "the loss is a cross-entropy"
    )
    return Decision(kind, why, doubt)


def _by_sigmoid(evidence: _Evidence) -> Decision | None:
    """Of a loss written by hand: of numbers, it may be any."""
    if evidence.labels is not None and evidence.labels.form in ("rows", "numbers", "whole floats"):
        return None
    decision, (theirs, ours) = _by_binary(evidence), (" is a binary cross-entropy for", " takes a sigmoid of")
    if decision is None:
        return None
    why = decision.why.replace(" is a binary cross-entropy of one", f"{ours} one").replace(theirs, ours)
    return replace(decision, why=why, doubt=decision.doubt.replace(theirs, ours))


def _by_binary(evidence: _Evidence) -> Decision | None:
    said = evidence.loss in (BINARY_LOGITS, SIGMOID)
    if evidence.columns == 1:
        settled = evidence.linear or evidence.activation == "sigmoid"
        kind: Kind = evidence.two() if settled or not said else "logits"
        return Decision(kind, "the loss is a binary cross-entropy of one column")
    if evidence.labels is not None and evidence.labels.form in ("whole", "texts"):
        return Decision(
            "logits" if said or evidence.linear else evidence.classes(),
            "labels are one class per image",
            "the loss is a binary cross-entropy for each column, but labels are one class per image: read as classes"
            " that exclude each other; pass task='multilabel' if several can be on at once",
        )
    kind = "multilabel_logits" if said and evidence.activation != "sigmoid" else evidence.several()
    doubt = ""
    if evidence.labels is not None and evidence.labels.form == "rows" and not evidence.labels.inside:
        doubt = (
            "the loss is a binary cross-entropy for each column, but labels have numbers outside 0 to 1, as for labels"
            " that are not known: they are read as numbers; leave them out (labels=None, target=None of a callback) or"
            " put 0 there"
        )
    return Decision(kind, "the loss is a binary cross-entropy for each column", doubt)


def _by_hinge(evidence: _Evidence) -> Decision:
    why = "the loss is a margin between -1 and 1"
    return Decision("logits" if evidence.columns == 1 else "multilabel_logits", why)


def _by_squared(evidence: _Evidence) -> Decision:
    doubt = ""
    if evidence.labels is not None and evidence.columns > 1 and evidence.labels.form in ("whole", "texts", "one-hot"):
        doubt = (
            "the loss is a distance of numbers, but labels are classes: read as values; pass task='classification' if"
            " each column is a class"
        )
    return Decision("values", "the loss is a distance of numbers", doubt)


def _by_activation(evidence: _Evidence) -> Decision | None:
    if evidence.activation != "sigmoid":
        return None
    form = evidence.labels.form if evidence.labels is not None else None
    if form in ("rows", "numbers", "whole floats"):
        return Decision("values", "labels are numbers")
    why = "a sigmoid comes last"
    if evidence.columns == 1:
        doubt = (
            ""
            if form is not None
            else f"{_OF_TWO} pass task='regression' if it is a number, task='probabilities' if not"
        )
        return Decision("probabilities", why, doubt)
    doubt = ""
    if form in ("whole", "texts"):
        doubt = (
            "a sigmoid comes last, so each column is read as a label of its own, but labels are one class per image:"
            " pass task='multilabel', or name the layer before the sigmoid with task='classification'"
        )
    return Decision("multilabel_probabilities", why, doubt)


def _by_labels(evidence: _Evidence) -> Decision | None:
    labels = evidence.labels
    if labels is None:
        return None
    if evidence.columns == 1:
        return _column_by_labels(evidence, labels)
    counted = labels.form == "whole floats" and labels.largest < evidence.columns
    if counted or labels.form in ("whole", "texts", "binary"):
        return Decision(evidence.classes(), "labels are one class per image", _STAND_INS if labels.alike else "")
    return _rows_by_labels(evidence, labels) if labels.columns == evidence.columns else None


def _rows_by_labels(evidence: _Evidence, labels: LabelForm) -> Decision:
    """Of labels with a number for every column."""
    if labels.form == "multi-hot":
        return Decision(evidence.several(), "labels have several on at once, one per column")
    if labels.form == "rows":
        return Decision("values", "labels are as many numbers")
    return Decision(evidence.classes(), f"labels are {labels.form} rows")


def _column_by_labels(evidence: _Evidence, labels: LabelForm) -> Decision | None:
    two = labels.form in ("binary", "texts") or (labels.form == "whole" and labels.inside)
    if two or (labels.form in ("one-hot", "soft") and labels.columns == 2):
        kind = evidence.two()
        sure = kind == "probabilities" and evidence.activation == "sigmoid"
        doubt = (
            ""
            if sure
            else f"{_OF_TWO} the loss is not known: pass task={kind!r} if that is so, task='regression' if not"
        )
        return Decision(kind, "labels are two classes", doubt)
    return Decision("values", "labels are numbers") if labels.columns == 1 else None


_STAND_INS: Final = (
    "read as classes, but the first labels are all the same number and the loss is not known: pass"
    " task='classification' if they are classes; if they only stand in for labels, leave them and the answer out"
    " (outputs=None, target=None and layers=[...] of a callback)"
)
_OF_TWO: Final = "one column is read as the second of two classes;"
_SETTLES: Final = "pass task='classification', task='multilabel' or task='regression'"


def _by_values(evidence: _Evidence, described: Mapping[str, Any], alone: bool) -> Decision:
    labels, classes = evidence.labels, evidence.linear and evidence.columns > 1
    kind = "logits" if classes else resolve(evidence.outputs)
    doubt = ""
    if labels is None and kind == "values" and evidence.columns == 1 and described.get("layer") is None and alone:
        doubt = _one_column(evidence)
    elif labels is not None:
        beside = f"labels are {labels.form}" + (f" of {labels.columns}" if labels.columns > 1 else "")
        doubt = f"{evidence.columns} columns are read as {kind}, but {beside} and settle nothing: {_SETTLES}"
    elif not alone or described.get("layer") or "linear" in described:
        doubt = f"read as {kind}, but neither the loss nor labels are known: {_SETTLES}"
    return Decision(kind, OPEN, doubt)


def _one_column(evidence: _Evidence) -> str:
    """What one column may be that nothing else is known of, if it looks like something else than a number."""
    array = local(evidence.outputs)
    if namespace(array).isdtype(array.dtype, ("bool", "integral")):
        return (
            "whole numbers, one for each row, are read as numbers: if they are classes already chosen, hand over what"
            " they were chosen by; else pass task='regression'"
        )
    values = np.asarray(to_host(array), np.float64)
    values = values[np.isfinite(values)]
    if values.size > 1 and values.min() >= 0 and values.max() <= 1:
        return (
            "one column between 0 and 1 is read as a number: pass task='probabilities' if it is the probability of the"
            " second of two classes, task='regression' if not"
        )
    return ""


def decide_labels(form: LabelForm, kind: Kind | None, columns: int = 0) -> Meaning:
    """Decide what labels are.

    Args:
        form: What the first batch looks like.
        kind: What the answer of the same head is read as; None if it is not known.
        columns: Of that answer.

    Example:
        >>> one_hot = label_form(np.eye(3))
        >>> decide_labels(one_hot, "logits"), decide_labels(one_hot, "multilabel_logits")
        ('classes', 'multi_hot')
        >>> decide_labels(label_form([0.0, 1.0]), "logits", 1), decide_labels(label_form([0.0, 1.0]), "values")
        ('classes', 'values')
        >>> decide_labels(label_form([31, 47]), "values", 1), decide_labels(label_form([31, 47]), None)
        ('values', 'classes')
        >>> smooth = label_form([0.05, 0.95])
        >>> decide_labels(smooth, "logits", 1), decide_labels(smooth, "values", 1)
        ('classes', 'values')
    """
    if form.form == "whole" and kind == "values" and columns <= 1:  # ages, counts
        return "values"
    if form.form in ("texts", "whole"):
        return "classes"
    if form.form == "multi-hot" or (kind in MULTILABEL and form.columns > 1 and form.inside):
        return "multi_hot"
    if form.form == "one-hot" or (form.form == "soft" and kind != "values"):
        return "classes"
    of_classes = kind in CLASSES or (kind in MULTILABEL and columns == 1)
    if form.form == "numbers" and form.inside and of_classes and columns == 1:  # shares of the second of two classes
        return "classes"
    counted = form.form == "binary" or (form.form == "whole floats" and form.largest < columns)
    return "classes" if of_classes and counted else "values"


def are_signs(form: LabelForm, kind: Kind | None, columns: int) -> bool:
    """Whether labels that are all -1 or 1 stand for off and on: beside an answer of as many columns that says so.

    Args:
        form: What the first batch looks like.
        kind: What the answer of the same head is read as; None if it is not known.
        columns: Of that answer.

    Example:
        >>> are_signs(label_form([-1, 1]), "logits", 1), are_signs(label_form([-1, 1]), "logits", 5)
        (True, False)
    """
    return form.signs and columns == form.columns and kind is not None and kind != "values"


def told_kind(described: Mapping[str, Any], labels: LabelForm) -> Kind | None:
    """What an answer that is not in the profile is, as far as what is known of it tells what its labels mean.

    Args:
        described: What an adapter knows of the answer.
        labels: What its labels look like.

    Example:
        >>> one_hot, numbers = label_form(np.eye(5)), label_form([0.5])
        >>> told_kind({"loss": "binary_cross_entropy"}, one_hot), told_kind({"loss": "squared"}, numbers)
        ('multilabel_logits', 'values')
        >>> told_kind({"columns": 4}, label_form([0.0, 3.0, 2.0])), told_kind({}, numbers)
        ('logits', None)
    """
    loss, activation = (str(described.get(key) or "") for key in ("loss", "activation"))
    if loss in (BINARY, BINARY_LOGITS, HINGE):
        return "multilabel_logits" if labels.columns > 1 else "logits"
    if loss in (CROSS_ENTROPY, SQUARED):
        return "logits" if loss == CROSS_ENTROPY else "values"
    columns = int(described.get("columns") or 0)
    if not columns:
        return None
    # Whether it is logits or probabilities, which only its values show, is the same to labels.
    evidence = _Evidence(np.full((1, columns), 2.0), columns, loss, activation, True, labels)
    rules = (_by_loss, _by_activation, _by_labels)
    decision = next((decision for rule in rules if (decision := rule(evidence)) is not None), None)
    return None if decision is None else decision.kind


def checked_task(task: Any) -> Task | Kind:
    """The task, if there is such a one.

    Raises:
        InputError: If not.

    Example:
        >>> checked_task("multilabel")
        'multilabel'
    """
    if task not in TASKS + KINDS:
        raise InputError(f"task={task!r} is unknown; pass one of {', '.join(map(repr, TASKS + KINDS))}")
    return task  # type: ignore[no-any-return]
