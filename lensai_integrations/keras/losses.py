"""What the compiled loss says of each head of the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import keras

from lensai_integrations.keras.private import arguments_of, loss_given, metrics_given

_BINARY: Final = "binary_cross_entropy"
#: From a loss's class or function to what it says of the answer.
_MEANINGS: Final = {
    "SparseCategoricalCrossentropy": "cross_entropy",
    "CategoricalCrossentropy": "cross_entropy",
    "CategoricalFocalCrossentropy": "cross_entropy",
    "BinaryCrossentropy": _BINARY,
    "BinaryFocalCrossentropy": _BINARY,
    "MeanSquaredError": "squared",
    "MeanAbsoluteError": "squared",
    "MeanAbsolutePercentageError": "squared",
    "MeanSquaredLogarithmicError": "squared",
    "Huber": "squared",
    "LogCosh": "squared",
    "Hinge": "hinge",
    "SquaredHinge": "hinge",
}
_ONE_COLUMN: Final = "Crossentropy"


def losses_of(model: Any, heads: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """By head, the `loss` in the words of `Profiler.describe`, and whether it takes logits; without what is unknown.

    Args:
        model: The model, compiled or not.
        heads: The heads of the answer in Keras's order, and how many columns they have.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
        >>> losses_of(model, {"": 2})
        {'': {'loss': 'binary_cross_entropy_with_logits', 'from_logits': True}}
    """
    given = loss_given(model)
    if given is None:
        return {}
    by_head = {head: _for_head(given, head, place, len(heads)) for place, head in enumerate(heads)}
    meanings = {head: [_meaning(each, heads[head]) for each in given] for head, given in by_head.items()}
    known = {head: [each for each in told if each] for head, told in meanings.items()}
    return {
        head: meanings[0] for head, meanings in known.items() if meanings and meanings == meanings[:1] * len(meanings)
    }


def held_against_nothing(model: Any, heads: Sequence[str]) -> list[str]:
    """The heads that nothing which was compiled compares with labels: what `y` has for them need not be labels.

    None of them if the model is not compiled, or has a step or a loss of its own, which may compare anything.

    Args:
        model: The model.
        heads: The heads of the answer in Keras's order.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", loss={"kind": "mse", "features": None})
        >>> held_against_nothing(model, ["features", "kind"])
        ['features']
    """
    if not getattr(model, "compiled", False) or has_a_loss_of_its_own(model):
        return []
    return [
        head
        for place, head in enumerate(heads)
        if not any(_for_head(given, head, place, len(heads)) for given in (loss_given(model), *metrics_given(model)))
    ]


def has_a_loss_of_its_own(model: Any) -> bool:
    """Whether the model's class says itself what a step does or what its loss is.

    Example:
        >>> has_a_loss_of_its_own(keras.Sequential())
        False
    """
    methods = (getattr(type(model), name, None) for name in ("train_step", "test_step", "compute_loss"))
    return any(not str(getattr(method, "__module__", "keras.")).startswith("keras.") for method in methods)


def as_told(loss: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """What a loss adds to what is known of the layer: the loss, and where the layer says nothing, what it takes.

    Args:
        loss: As `losses_of` has it.
        layer: `linear` and `activation` of the layer, as far as they are known.

    Example:
        >>> as_told({"loss": "cross_entropy", "from_logits": True}, {"linear": False})
        {'loss': 'cross_entropy', 'linear': True}
        >>> as_told({"loss": "squared"}, {"linear": False})
        {'loss': 'squared'}
    """
    told = {"loss": loss["loss"]} if loss else {}
    if told.get("loss") != "cross_entropy" or layer.get("linear") or layer.get("activation") in ("softmax", "sigmoid"):
        return told
    return told | ({"linear": True} if loss["from_logits"] else {"activation": "softmax"})


def _for_head(given: Any, head: str, place: int, count: int) -> Sequence[Any]:
    """The losses of a head: there may be several."""
    if isinstance(given, Mapping):
        given = _of_path(given, head) if head else list(keras.tree.flatten(dict(given)))
    elif isinstance(given, list | tuple) and count > 1:
        given = given[place] if place < len(given) else None
    losses = given if isinstance(given, list | tuple) else [given]
    return [each for each in losses if each is not None]


def _of_path(given: Mapping[str, Any], head: str) -> Any:
    """What a dict has for a head; of heads in dicts in dicts, as `"outer.inner"`."""
    if head in given or "." not in head:
        return given.get(head)
    outer, _, inner = head.partition(".")
    part = given.get(outer)
    return _of_path(part, inner) if isinstance(part, Mapping) else part


def _meaning(loss: Any, columns: int | None) -> dict[str, Any]:
    """What one loss says; empty for a function that is not Keras's."""
    name, from_logits = _name(loss)
    if name == _ONE_COLUMN:
        name = "BinaryCrossentropy" if columns == 1 else "CategoricalCrossentropy"
    meaning = _MEANINGS.get(name)
    if meaning is None:
        return {"loss": "other"} if hasattr(keras.losses, name) else {}
    if meaning in ("squared", "hinge"):
        return {"loss": meaning}
    suffix = "_with_logits" if from_logits and meaning == _BINARY else ""
    return {"loss": meaning + suffix, "from_logits": from_logits}


def _name(loss: Any) -> tuple[str, bool]:
    """The name of the class in `keras.losses` that a loss is one of, and whether it takes logits."""
    if isinstance(loss, str):
        if loss.lower() == _ONE_COLUMN.lower():
            return _ONE_COLUMN, False
        loss = keras.losses.get(loss)
    from_logits = bool(getattr(loss, "from_logits", False) or arguments_of(loss).get("from_logits", False))
    classes = type(loss).__mro__ if isinstance(loss, keras.losses.Loss) else ()
    for each in classes:
        if each.__name__ in _MEANINGS or (hasattr(keras.losses, each.__name__) and each is not keras.losses.Loss):
            return each.__name__, from_logits
    function = getattr(loss, "fn", loss)
    if str(getattr(function, "__module__", "")).startswith("keras."):
        return _class_of(str(getattr(function, "__name__", ""))), from_logits
    return "", from_logits


def _class_of(function: str) -> str:
    """`"mean_squared_error"` is what `MeanSquaredError` computes."""
    return "".join(word.capitalize() for word in function.split("_")) if "_" in function else function.capitalize()
