"""A dry run of the callback: `callback.check(model, batch)` runs the model once, in inference, and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np

from lensai_integrations.arrays.namespaces import is_array, to_host
from lensai_integrations.errors import InputError
from lensai_integrations.keras.fit import aside, reader_of
from lensai_integrations.keras.layers import find_layer
from lensai_integrations.keras.steps import TEST, labelled
from lensai_integrations.keras.taps import attach
from lensai_integrations.keras.weights import averages
from lensai_integrations.problems import Problems
from lensai_integrations.training.check import Check, run_check, without_missing
from lensai_integrations.training.fit import VALIDATION, Preparer
from lensai_integrations.training.options import Options
from lensai_integrations.training.weights import ASK_FINAL

_AVERAGES = (
    "the optimizer averages weights (use_ema=True): fit leaves the averages, and validates with them only where"
    f" keras.callbacks.SwapEMAWeights puts them in place. Without that, {ASK_FINAL}"
)


def check(options: Options, model: Any, batch: Any) -> Check:
    """Run one batch through a model and everything that is measured.

    Args:
        options: The callback's.
        model: The model, or None to look at images and labels only.
        batch: x, `(x, y)` or `(x, y, sample_weight)`, or what gives batches: of that, the first.

    Raises:
        InputError: If there is no batch.
    """
    batch, notes, answers, layers = _first(batch), list[str](), {}, []
    if model is not None:
        options, notes = without_missing(options, lambda name: find_layer(model, name))
        if options.reference == VALIDATION and averages(getattr(model, "optimizer", None)):
            notes.append(_AVERAGES)
    problems = Problems(quiet=True)
    reader = reader_of(options, model, problems)
    preparer = Preparer(options, problems, reader=lambda _: reader)
    if model is not None and not model.built:
        notes.append("the model has no weights yet, so it was not run: build it, or call it once")
    elif model is not None:
        with problems.caught("the model"):
            taps = attach(model, options, problems)
            layers, reader.answer = taps.layers, taps.answer
            with taps.listening(labelled=labelled(TEST, batch)) as caught:
                _run(model, batch, problems)
            answers = caught
    return run_check(preparer, reader.pick(batch), answers, layers, aside=aside, notes=notes)


def _run(model: Any, batch: Any, problems: Problems) -> None:
    """The model's answer to x, for inference; what it should change all the same is put back."""
    variables = [each for each in model.variables if not each.trainable]
    before = [np.array(keras.ops.convert_to_numpy(each)) for each in variables]
    x, _, _ = keras.utils.unpack_x_y_sample_weight(batch)
    with ExitStack() as stack, problems.caught("the model's forward pass"):
        stack.enter_context(aside())
        try:
            model(keras.tree.map_structure(_tensor, x), training=False)
        finally:
            for variable, value in zip(variables, before, strict=True):
                if not np.array_equal(to_host(keras.ops.convert_to_numpy(variable)), value, equal_nan=True):
                    variable.assign(value)


def _tensor(values: Any) -> Any:
    return keras.ops.convert_to_tensor(values)


def _first(batch: Any) -> Any:
    """The batch, or the first of a data set, a loader or a generator."""
    if isinstance(batch, Mapping | list | tuple) or is_array(batch):
        return batch
    try:
        return batch[0] if isinstance(batch, keras.utils.PyDataset) else next(iter(batch))
    except (TypeError, IndexError, StopIteration) as error:
        raise InputError(
            f"batch is a {type(batch).__name__} without a batch: pass x, (x, y), or what gives batches"
        ) from error
