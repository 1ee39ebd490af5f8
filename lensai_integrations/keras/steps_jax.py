"""Steps on the JAX backend: a step is traced, differentiated and compiled, and what is caught has to ride along.

Inside `value_and_grad` a layer's answer may only leave through the auxiliary results. Those have a list of the
non-trainable variables' new values in them, whoever wrote the step. So `stateless_call` and
`compute_loss_and_updates` return that list as a `_Carrier`: a list that JAX knows how to take apart and that has the
caught values beside it. The step unpacks it, and the compiled step returns device arrays that nobody waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state

from lensai_integrations.keras.private import MAKE_FUNCTION, make_function_of
from lensai_integrations.keras.taps import (
    PREDICT,
    TRAIN,
    Caught,
    NotProfiledError,
    Pick,
    Sink,
    Spending,
    Taps,
    labelled,
    replaced,
)
from lensai_integrations.problems import pass_on
from lensai_integrations.training.cost import Clock, HostClock


class _Carrier(list[Any]):
    """Values of variables, and beside them what was caught."""

    def __init__(self, values: Any, caught: Caught) -> None:
        super().__init__(values)
        self.caught = caught


def _unflatten(keys: tuple[str, ...], parts: Any) -> _Carrier:
    values, caught = parts
    return _Carrier(values, dict(zip(keys, caught, strict=True)))


def _flatten(carrier: _Carrier) -> tuple[tuple[list[Any], list[Any]], tuple[str, ...]]:
    return (list(carrier), list(carrier.caught.values())), tuple(carrier.caught)


jax.tree_util.register_pytree_node(_Carrier, _flatten, _unflatten)


def lag() -> int:
    """JAX dispatches a step and goes on: its values are there when the next one has been dispatched."""
    return 1


def place() -> Any:
    """The trace that the caller is in: a loop's body has one of its own."""
    return get_opaque_trace_state()  # type: ignore[no-untyped-call]


def clock(model: Any) -> Clock:
    """What measuring takes of the thread that trains: what the device does for it beside, no host can see."""
    return HostClock(runs_ahead=True)


def processes(model: Any) -> int:
    """Those that JAX has connected."""
    return int(jax.process_count())


def arrived(handed_out: Any) -> None:
    """On the host, measuring waits for the step that computes the values; on a device it does not."""
    for leaf in jax.tree_util.tree_leaves(handed_out):
        if isinstance(leaf, jax.Array) and all(device.platform == "cpu" for device in leaf.devices()):
            leaf.block_until_ready()


def build(model: Any, kind: str, taps: Taps, pick: Pick, sink: Sink, spending: Spending) -> Callable[..., Any]:
    """A function like the model's, built by Keras itself around a step that also returns what was caught."""
    name = f"{kind}_step"
    step, make = getattr(model, name), make_function_of(model)

    def tapped_step(state: Any, data: Any) -> Any:
        heard = taps.heard
        with _carried(model, taps, kind, data):
            outputs, state = step(state, data)
        if taps.heard == heard and taps.answer is not None:
            taps.answer.never_called([])
        state, caught = _unpacked(state)
        return (outputs, caught), state

    def handing_out(compiled: Callable[..., Any]) -> Callable[..., Any]:
        begun: list[bool] = []

        def run(state: Any, data: Any) -> Any:
            try:
                (outputs, caught), state = compiled(state, data)
            except Exception as error:
                pass_on(error)
                if begun or any(leaf.is_deleted() for leaf in jax.tree_util.tree_leaves(state)):
                    raise
                raise _NotTracedError(data) from error
            begun.append(True)
            sink({**pick(data), **caught})
            return outputs, state

        return run

    def make_ours(compiled: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        return make(handing_out(compiled), *arguments, **keywords)

    before = getattr(model, f"{kind}_function")
    try:
        with replaced(model, name, tapped_step), replaced(model, MAKE_FUNCTION, make_ours):
            getattr(model, f"make_{kind}_function")(force=True)
            inner = getattr(model, f"{kind}_function")
    finally:
        setattr(model, f"{kind}_function", before)

    def function(state: Any, iterator: Any) -> Any:
        try:
            if kind != PREDICT:
                return inner(state, iterator)
            with replaced(model, name, tapped_step):  # Keras looks it up when it traces
                return inner(state, iterator)
        except _NotTracedError as error:
            raise NotProfiledError(state, chain([error.data], iterator)) from error.__cause__

    return function


class _NotTracedError(Exception):
    """The first step could not be traced or compiled; `data` is the batch that was read for it."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.data = data


@contextmanager
def _carried(model: Any, taps: Taps, kind: str, data: Any) -> Iterator[None]:
    """While a step is traced: what its layers answer is carried by the lists of non-trainable variables."""
    call, loss = model.stateless_call, model.compute_loss_and_updates
    within_loss: list[Caught] = []

    def stateless_call(*arguments: Any, **keywords: Any) -> Any:
        with taps.listening(training=kind == TRAIN, labelled=labelled(kind, data)) as caught:
            answer, variables, *losses = call(*arguments, **keywords)
        if within_loss:
            within_loss[-1].update(caught)
        return (answer, _carrier(variables, caught), *losses)

    def compute_loss_and_updates(*arguments: Any, **keywords: Any) -> Any:
        within_loss.append({})
        try:
            value, auxiliary = loss(*arguments, **keywords)
        finally:
            caught = within_loss.pop()
        if not _carries(auxiliary):  # Keras's own makes new lists of the variables; a user's may hand on the first
            unscaled, answer, variables, metrics = auxiliary
            auxiliary = (unscaled, answer, _carrier(variables, caught), metrics)
        return value, auxiliary

    with (
        replaced(model, "stateless_call", stateless_call),
        replaced(model, "compute_loss_and_updates", compute_loss_and_updates),
    ):
        yield


def _carries(auxiliary: Any) -> bool:
    parts = jax.tree_util.tree_leaves(auxiliary, is_leaf=lambda leaf: isinstance(leaf, _Carrier))
    return any(isinstance(leaf, _Carrier) for leaf in parts)


def _carrier(variables: Any, caught: Caught) -> _Carrier:
    return _Carrier(variables, {**getattr(variables, "caught", {}), **caught})


def _unpacked(state: Any) -> tuple[Any, Caught]:
    """The state with plain lists, and what they carried. In predicting, the state is one such list."""
    if isinstance(state, _Carrier):
        return list(state), state.caught
    caught: Caught = {}
    parts = []
    for values in state:
        if isinstance(values, _Carrier):
            caught |= values.caught
        parts.append(list(values) if isinstance(values, _Carrier) else values)
    return tuple(parts), caught
