"""Steps on the TensorFlow backend: the whole loop from iterator to logs is one graph.

Batches are drawn inside it, so images, labels and layers' answers have to leave it as results. Keras's own function
returns the logs of the last step and nothing else; the one built here makes the same calls in the same order and
returns beside the logs what was picked and caught, of every step and every replica. With `steps_per_execution` the
batches of one call come out together, one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lensai_integrations.keras.private import over_replicas, step_on_optionals
from lensai_integrations.keras.taps import PREDICT, NotProfiledError, Pick, Sink, Spending, Taps, tapped
from lensai_integrations.problems import pass_on
from lensai_integrations.training.cost import Clock, HostClock

_plain = tf.autograph.experimental.do_not_convert


def lag() -> int:
    """On CPUs a step's results are there when it returns; on accelerators the measuring is done there too."""
    return 0


def place() -> Any:
    """The graph that is being built, or None where operations run at once."""
    return tf.compat.v1.get_default_graph() if tf.inside_function() else None


def clock(model: Any) -> Clock:
    """What measuring takes of the thread that trains: what the device does for it beside, no host can see."""
    return HostClock(runs_ahead=True)


def processes(model: Any) -> int:
    """The workers of `MultiWorkerMirroredStrategy`; every other strategy is of one process."""
    strategy = getattr(model, "distribute_strategy", None)
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 1
    cluster = strategy.cluster_resolver.cluster_spec()
    tasks = (int(cluster.num_tasks(job)) for job in cluster.jobs if job in ("chief", "worker"))
    return max(sum(tasks), 1)


def arrived(handed_out: Any) -> None:
    """A step's results are there when it returns, or are measured where they are."""


def build(model: Any, kind: str, taps: Taps, pick: Pick, sink: Sink, spending: Spending) -> Callable[..., Any]:
    """A function like the model's, which hands out what was picked and caught."""
    if kind == PREDICT:
        return _predicting(model, taps, pick, sink)
    one_step = _one_step(model, tapped(getattr(model, f"{kind}_step"), taps, kind), pick, reduction="auto")
    original = getattr(model, f"{kind}_function")
    run = _several_steps(one_step, model.steps_per_execution)
    if not model.run_eagerly:
        run = tf.function(run, reduce_retracing=True)
    traced: list[bool] = []

    def function(iterator: Any) -> Any:
        if not isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
            return original(iterator)  # `train_on_batch`
        if not traced and not model.run_eagerly:
            try:
                run.get_concrete_function(iterator)
            except Exception as error:
                pass_on(error)
                raise NotProfiledError(iterator) from error
            traced.append(True)
        logs, handed_out = run(iterator)
        sink(handed_out)
        return logs

    return function


def _one_step(model: Any, step: Callable[..., Any], pick: Pick, reduction: str) -> Any:
    """From a batch to the logs and, by key, the values of each replica."""
    strategy = model.distribute_strategy

    @_plain  # type: ignore[untyped-decorator]
    def on_data(data: Any) -> Any:
        result, caught = strategy.run(step, args=(data,))
        result = over_replicas(result, strategy, reduction)
        return result, {key: strategy.experimental_local_results(values) for key, values in caught.items()}

    if not model.run_eagerly:
        on_data = tf.function(on_data, reduce_retracing=True, jit_compile=model.jit_compile)
    on_data = step_on_optionals(model, on_data)

    @_plain  # type: ignore[untyped-decorator]
    def run(data: Any) -> Any:
        result, caught = on_data(data)
        return result, {**_picked(pick, data, strategy), **caught}

    return run


def _picked(pick: Pick, data: Any, strategy: Any) -> dict[str, tuple[Any, ...]]:
    """By key, what is picked of each replica's part of a batch."""
    leaves = [strategy.experimental_local_results(leaf) for leaf in tf.nest.flatten(data)]
    picked = [pick(tf.nest.pack_sequence_as(data, replica)) for replica in zip(*leaves, strict=True)]
    return {key: tuple(replica[key] for replica in picked) for key in picked[0]}


def _several_steps(one_step: Callable[..., Any], steps: int) -> Any:
    """From an iterator to the last logs and what was seen in up to so many steps."""

    @_plain  # type: ignore[untyped-decorator]
    def run(iterator: Any) -> Any:
        logs, caught = one_step(iterator.get_next())
        if steps == 1:
            return logs, caught
        gathered = [_Rows.of(values) for values in tf.nest.flatten(caught)]
        following = iterator.get_next_as_optional()

        def more(step: Any, following: Any, *_: Any) -> Any:
            return tf.logical_and(step < steps, following.has_value())

        def body(step: Any, following: Any, _: Any, *gathered: Any) -> Any:
            logs, caught = one_step(following.get_value())
            parts = zip(gathered, tf.nest.flatten(caught), strict=True)
            written = [rows.write(rows.size(), values) for rows, values in parts]
            following = tf.cond(step + 1 < steps, iterator.get_next_as_optional, lambda: following)
            return (step + 1, following, logs, *written)

        _, _, logs, *gathered = tf.while_loop(more, body, [tf.constant(1), following, logs, *gathered])
        return logs, tf.nest.pack_sequence_as(caught, [rows.concat() for rows in gathered])

    return run


class _Rows:
    """Rows of several batches, which need not be equally many."""

    @staticmethod
    def of(values: Any) -> Any:
        shape = tf.TensorShape([None, *values.shape[1:]])
        rows = tf.TensorArray(values.dtype, size=0, dynamic_size=True, infer_shape=False, element_shape=shape)
        return rows.write(0, values)


def _predicting(model: Any, taps: Taps, pick: Pick, sink: Sink) -> Callable[..., Any]:
    """Predicting is handed a list of batches."""
    one_step = _one_step(model, tapped(model.predict_step, taps, PREDICT), pick, reduction="concat")

    @_plain  # type: ignore[untyped-decorator]
    def run(batches: Any) -> Any:
        results, handed_out = zip(*(one_step(data) for data in batches), strict=True)
        if len(results) == 1:
            return results[0], handed_out
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *results), handed_out

    if not model.run_eagerly:
        run = tf.function(run, reduce_retracing=True)

    def function(batches: Any) -> Any:
        result, handed_out = run(batches)
        for batch in handed_out:
            sink(batch)
        return result

    return function
