"""Everything of Keras, and of TensorFlow beneath it, that is read here and that no documentation promises.

One function for each, so that a release which changes something is met in one place. Where a name is gone, what only
looks says that there is nothing; what cannot do without raises, which the callback notes once, and the fit goes on.
`tests/keras/test_private.py` has a test for each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

#: Releases that the tests of this file passed with, on every backend.
TRIED: Final = ("3.12.0", "3.12.4", "3.13.0", "3.13.2", "3.14.0", "3.14.1", "3.15.0", "3.15.1")
#: The method with which a model on JAX makes its function of a step: `(step, ...) -> function`.
MAKE_FUNCTION: Final = "_make_function"
#: Under which name Keras keeps its seeds; a constant of Keras since 3.13.
_GLOBAL_SEEDS: Final = "global_seed_generator"


def loss_given(model: Any) -> Any:
    """The `loss` that `compile` was given; None if there is none.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile(loss="mse")
        >>> loss_given(model)
        'mse'
    """
    return getattr(getattr(model, "_compile_loss", None), "_user_loss", None)


def metrics_given(model: Any) -> list[Any]:
    """The `metrics` and the `weighted_metrics` that `compile` was given, None for what was not."""
    compiled = getattr(model, "_compile_metrics", None)
    return [getattr(compiled, f"_user_{kind}metrics", None) for kind in ("", "weighted_")]


def arguments_of(loss: Any) -> dict[str, Any]:
    """The arguments that a loss hands to its function.

    Example:
        >>> import keras
        >>> arguments_of(keras.losses.BinaryFocalCrossentropy(from_logits=True))["from_logits"]
        True
    """
    return dict(getattr(loss, "_fn_kwargs", {}))


def functional_of(sequential: Any) -> Any:
    """The functional model that a built `keras.Sequential` calls; None before it is built."""
    return getattr(sequential, "_functional", None)


def outputs_of(functional: Any) -> Any:
    """The symbolic outputs of a functional model in the structure that it returns them in; None of another model."""
    return getattr(functional, "_outputs_struct", None)


def history_of(tensor: Any) -> Any:
    """What made a symbolic tensor: `operation`, `node_index`, `tensor_index`; None of a tensor with values.

    Example:
        >>> import keras
        >>> history_of(keras.Input((4,))).operation
        <InputLayer name=..., built=True>
    """
    return getattr(tensor, "_keras_history", None)


def given_to(history: Any) -> list[Any]:
    """The symbolic tensors that the operation was called with in that place."""
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)


def layers_in(layer: Any, *, recursive: bool) -> list[Any]:
    """The layers inside of one, without itself: its own, or theirs as well.

    Example:
        >>> import keras
        >>> [inner.name for inner in layers_in(keras.Sequential([keras.layers.Dense(2, name="a")]), recursive=False)]
        ['a']
    """
    return list(layer._flatten_layers(include_self=False, recursive=recursive))


def remat_scope_of(layer: Any) -> Any:
    """The `keras.RematScope` in which a layer was made, with `mode` and `layer_names`; None outside of any."""
    return getattr(layer, "_remat_mode", None)


def global_seeds() -> Any:
    """The `keras.random.SeedGenerator` of layers that were given no seed; None before there is one."""
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute(_GLOBAL_SEEDS)


def set_global_seeds(seeds: Any) -> None:
    """Put back what `global_seeds` gave."""
    from keras.src.backend.common import global_state

    global_state.set_global_attribute(_GLOBAL_SEEDS, seeds)


def make_function_of(model: Any) -> Callable[..., Any]:
    """On JAX: what a model makes its function with, see `MAKE_FUNCTION`."""
    return getattr(model, MAKE_FUNCTION)  # type: ignore[no-any-return]


def step_on_optionals(model: Any, on_data: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """On TensorFlow: a step on a batch, as Keras calls it, which replicas may be short of at the end of the data."""
    return model._autoconvert_optionals(on_data)  # type: ignore[no-any-return]


def over_replicas(values: Any, strategy: Any, reduction: str) -> Any:
    """On TensorFlow: the values of all replicas of a `tf.distribute.Strategy` as one."""
    from keras.src.backend.tensorflow.trainer import reduce_per_replica

    return reduce_per_replica(values, strategy, reduction=reduction)


def tensorflow_generators() -> Iterator[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """How to get and to put back the state of each of TensorFlow's generators that nobody passes around."""
    from tensorflow.python.eager import context
    from tensorflow.python.ops import stateful_random_ops

    seeds = getattr(context.context(), "_rng", None)
    if isinstance(seeds, random.Random):
        yield seeds.getstate, seeds.setstate
    generator = stateful_random_ops.global_generator
    if generator is not None:
        yield generator.state.numpy, generator.state.assign


def made_of(data: Any) -> Any:
    """The `tf.data.Dataset` that one was made of by `map`, `prefetch` and the like; None of a first one."""
    return getattr(data, "_input_dataset", None)


def torch_device() -> Any:
    """On torch: the device that layers move what they are given to; a `torch.device`. The CPU, where that is not told.

    Example:
        >>> torch_device()  # doctest: +SKIP
        device(type='cuda', index=0)
    """
    import torch

    try:
        from keras.src.backend.torch.core import get_device
    except ImportError:
        return torch.device("cpu")
    return torch.device(get_device())
