"""A batch may go through a model in several calls: how a trace shows what they are of each other.

The calls of a layer that count are the first in each outermost call of a module: one that is used several times within
a forward pass answers several times. The rows of a trace show whether they are the batch in parts, or the same images
again, as where augmented views are averaged, or neither; its losses and what it returns, which of them is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from lensai_integrations.profiles.names import is_outputs
from lensai_integrations.torch.calls import MEAN, MEAN_OF_SOFTMAX, PARTS, UNKNOWN, VIEWS, WHOLE, Calls, merged_rows
from lensai_integrations.torch.layers import Layer
from lensai_integrations.torch.rows import OTHER_ROWS, Rows
from lensai_integrations.torch.trace import LARGEST, Call, Trace

_CLOSE: Final = 1e-4


def calls_of(trace: Trace, module: nn.Module, images: int, *, before: bool = False) -> Calls:
    """How the calls of a module in a traced batch make up its rows.

    Args:
        trace: Of the batch.
        module: A layer.
        images: How many the batch has; 0 if that is not clear.
        before: Whether what goes into the layer is read.
    """
    calls = outermost_first(trace, module)
    rows = [_rows(trace, call, before) for call in calls]
    fed = tuple(i for i, each in enumerate(rows) if each != OTHER_ROWS) or tuple(range(len(rows)))
    known = [rows[i].places for i in fed]
    size = max([images, *(place + 1 for places in known for place in places or ())])
    if len(fed) > 1:
        is_end = fed == tuple(range(fed[0], len(calls)))
        way, picked = _way_of_several(known, size, is_static=is_end and not any(rows[i].picked for i in fed))
        return Calls(way, fed[:picked], len(calls))
    if not fed:
        return Calls()
    crops = len(known[0] or ()) // size if size else 0
    for stacked in (False, True) if crops > 1 else ():
        order = tuple(range(size)) * crops if stacked else tuple(i for i in range(size) for _ in range(crops))
        if known[0] == order:
            return Calls(VIEWS, fed, len(calls), crops=crops, stacked=stacked)
    is_moved = known[0] != tuple(range(size)) if known[0] else rows[fed[0]].picked
    is_moved = is_moved and _count(trace, calls[fed[0]], before) == size
    return Calls(UNKNOWN if is_moved else WHOLE, fed, len(calls))


def _way_of_several(known: Sequence[Any], size: int, *, is_static: bool) -> tuple[str, int | None]:
    """What several calls are of each other, and how many of them count; None for all."""
    whole = tuple(range(size))
    if all(each == whole for each in known):
        return VIEWS, None
    if known[0] == whole:  # and some of the images again
        return VIEWS, 1
    parts = [place for each in known for place in each or (-1,)]
    return (PARTS if is_static and parts == list(whole) else UNKNOWN), None


def follow(
    trace: Trace, module: nn.Module, images: int, key: str, layer: Layer, head: str | None, one: int
) -> tuple[Calls, str]:
    """How the calls of a layer make up the rows of a batch, and what is to be said of it.

    Args:
        trace: Of the batch.
        module: The layer's.
        images: How many the batch has.
        key: Under which the layer is read.
        layer: The layer.
        head: Which part of its answer is read.
        one: Which of several views the outputs are of.
    """
    calls, name = calls_of(trace, module, images, before=layer.before), layer.path or type(module).__name__
    if calls.way == VIEWS:
        return _one_of_views(trace, module, calls, name, key, head, one)
    if calls.way == UNKNOWN:
        return calls, (f"{name!r} is called with images of the batch in an order that may be another in every batch, so"
                       f" it is not known whose rows are whose, and it is not read. {_CALL_IN_ORDER}")  # fmt: skip
    made = [_count(trace, call, layer.before) for call in outermost_first(trace, module)]
    count = sum(made[i] for i in calls.picked if i < len(made))
    if count and images and count != images:
        return calls, f"{name!r} answers {count} rows for {images} images, which are read apart. {_CALL_IN_ORDER}"
    return calls, ""


def _one_of_views(
    trace: Trace, module: nn.Module, calls: Calls, name: str, key: str, head: str | None, one: int
) -> tuple[Calls, str]:
    """Which of several views is read, or what is made of them, and what is to be said of it."""
    many = f"called with {calls.crops} views of each image: the {{}}" if calls.crops > 1 else (
        f"called {calls.total} times in a batch: its {{}} call")  # fmt: skip
    text = f"{name!r} is {many} is read" + ("" if is_outputs(key) else " as embeddings")
    answers = [outermost_first(trace, module)[i] for i in calls.picked]
    nodes = [node for call in answers if (node := _answer_node(call, head)) is not None]
    values = [value for call in answers if (value := answer_in(trace, call, head)) is not None]
    is_followed = is_outputs(key) and not trace.training and len(nodes) == len(values) == len(answers)
    if not is_followed or len(calls.picked) * calls.crops == 1:
        one = one if one in calls.picked else calls.picked[0]
        return replace(calls, picked=(one,)), text.format(_nth(one))
    found = judged(trace, nodes, calls.views_in(values[0]) if calls.crops > 1 else values)
    if found.merged:
        return replace(calls, merged=found.merged), ""
    if found.one is None:
        return replace(calls, way=UNKNOWN), (
            f"the step makes its answer of {len(calls.picked) * calls.crops} answers of {name!r} for each image, in a"
            f" way that is not followed, so outputs are not read. {_RETURN_IT}")  # fmt: skip
    one = calls.picked[found.one]
    return replace(calls, picked=(one,)), "" if found.is_clear else text.format(_nth(one))


def _nth(place: int) -> str:
    return {0: "first", 1: "second", 2: "third"}.get(place, f"{place + 1}th")


def _answer_node(call: Call, head: str | None) -> int | None:
    if head is None:
        return call.outputs[0] if call.outputs else None
    return call.head_nodes.get(head)


def answer_in(trace: Trace, call: Call, head: str | None) -> Tensor | None:
    """What a call answered, if the outermost call returned it and a copy was kept."""
    node, outermost = _answer_node(call, head), trace.outermost(call)
    name = next((name for name, each in outermost.head_nodes.items() if each == node), None)
    return None if name is None else outermost.heads.tensors.get(name)


_CALL_IN_ORDER: Final = (
    "Call the model with all images of a batch, or with its parts, in their order; or pass outputs=None or layers=None"
    " to leave it out"
)
_RETURN_IT: Final = (
    "Let a module return it, `forward` or one of its own, and pass outputs='its name'; or pass outputs=None to leave"
    " it out"
)


def outermost_first(trace: Trace, module: nn.Module) -> list[Call]:
    """The calls of a module that are the first in each outermost call of any."""
    first: dict[int, Call] = {}
    calls = [call for call in trace.calls if call.module is module]
    for call in [call for call in calls if call.outputs] or calls:  # one that raised has none
        first.setdefault(trace.outermost(call).index, call)
    return list(first.values())


def _node(call: Call, before: bool) -> int | None:
    nodes = call.inputs if before else call.outputs
    return nodes[0] if nodes else None


def _rows(trace: Trace, call: Call, before: bool) -> Rows:
    """The rows of what a call was given or gave; where they are lost, those of what the model was called with."""
    node = _node(call, before)
    rows = OTHER_ROWS if node is None else trace.nodes[node].rows
    if rows.places is None:
        given = [trace.nodes[each].rows for each in trace.outermost(call).inputs]
        outer = next((each for each in given if each != OTHER_ROWS), OTHER_ROWS)
        if len(outer.places or ()) == _count(trace, call, before):
            return outer
    return rows


def _count(trace: Trace, call: Call, before: bool) -> int:
    node = _node(call, before)
    shape = trace.nodes[node].shape if node is not None else ()
    return shape[0] if shape else 0


@dataclass(frozen=True)
class ChosenView:
    """Which of several views a step takes for its answer.

    Attributes:
        one: Its place among them; None if it is not one of them.
        merged: What it makes of all of them; "" if that is not followed.
        is_clear: Whether something was seen that says so.
    """

    one: int | None
    merged: str = ""
    is_clear: bool = True


def judged(trace: Trace, nodes: Sequence[int], values: Sequence[Tensor]) -> ChosenView:
    """Which of several answers for the same images is the step's: the one that its losses, its choice of the largest
    and what it returns are made of, or what it makes of all.

    Args:
        trace: Of an evaluation batch.
        nodes: The answers.
        values: Their values.
    """
    looked_at = [loss.given for loss in trace.losses] + trace.returned
    looked_at += [parent for node in trace.nodes if node.name in LARGEST and node.call < 0 for parent in node.parents]
    touched = {
        number: [i for i, each in enumerate(nodes) if each in trace.steps_behind(number)] for number in looked_at
    }
    alone = {each[0] for each in touched.values() if len(each) == 1 < len(nodes)}
    together = [number for number, each in touched.items() if len(each) == len(nodes)]
    if together and not alone:
        made = {step for number in together for step in trace.steps_behind(number)}
        for way in (MEAN, MEAN_OF_SOFTMAX):
            expected = merged_rows(way, values)
            if any(_is_close(trace.values[step], expected) for step in made if step in trace.values):
                return ChosenView(None, way)
        return ChosenView(None)
    if len(alone) == 1 and not together:
        return ChosenView(alone.pop())
    return ChosenView(0, is_clear=False)


def _is_close(value: Tensor, expected: Tensor) -> bool:
    return value.shape == expected.shape and bool(
        torch.allclose(value.float(), expected.float(), rtol=_CLOSE, atol=1e-6)
    )
