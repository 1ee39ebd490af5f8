"""A dry run of the callback: `callback.check(model, batch)` leaves the model and all random numbers as they were."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from lensai_integrations.arrays.namespaces import is_array
from lensai_integrations.errors import InputError
from lensai_integrations.measures.batches import find_images, images_in, separated
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.problems import Problems, pass_on
from lensai_integrations.profiles.names import is_outputs
from lensai_integrations.torch.answer import has_forward
from lensai_integrations.torch.finding import Finder, attach
from lensai_integrations.torch.layers import find_layer
from lensai_integrations.torch.recording import aside
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.check import Check, reading_difference, run_check, without_missing
from lensai_integrations.training.fit import PREDICTION, TEST, TRAINING, VALIDATION, Preparer
from lensai_integrations.training.options import Options
from lensai_integrations.training.recording import Listened

#: Of references that are not validated: the stage that a data module is set up for, and what gives the loaders.
_STAGES: Final = {TEST: "test", PREDICTION: "predict"}
_LOADERS: Final = {TRAINING: "train_dataloader", TEST: "test_dataloader", PREDICTION: "predict_dataloader"}


def check(options: Options, model: nn.Module | None, batch: Any) -> Check:
    """Run one batch through a model and everything that is measured.

    Args:
        options: The callback's.
        model: The model, or None to look at images and labels only.
        batch: A batch, a loader or a data module: of these, the first batch.

    Raises:
        InputError: If there is no batch.
    """
    with _as_before(model):
        difference = _reading_difference(batch, options)
        loader, batch = _first(batch, options.reference, options.dataloader_idx)
        if model is None:
            preparer = Preparer(options, Problems(quiet=True))
            return run_check(preparer, batch, {}, loader=loader, aside=aside, notes=difference)
        options, notes = without_missing(options, lambda name: find_layer(model, name))
        preparer, looked = Preparer(options, Problems(quiet=True)), _Looked()
        with preparer.problems.caught("the model"):
            batch = _moved(batch, model)
            looked = _by_steps(model, batch, options, preparer.problems)
        notes += looked.said
        return run_check(
            preparer,
            batch,
            looked.answers,
            looked.layers,
            loader=loader,
            aside=aside,
            notes=[*notes, *difference],
            targets=looked.targets,
            fed=looked.fed,
        )


@dataclass
class _Looked:
    """What one forward pass has shown.

    Attributes:
        answers: What layers answered, by key.
        layers: The layers that are read.
        targets: Where in the batch the labels of each output are, if a loss showed it.
        said: What is not clear.
        fed: Where in the batch is what the model was fed; None if that was not seen.
    """

    answers: dict[str, Any] = field(default_factory=dict)
    layers: Sequence[Listened] = ()
    targets: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    fed: set[tuple[int | str, ...]] | None = None


def _by_steps(model: nn.Module, batch: Any, options: Options, problems: Problems) -> _Looked:
    """What the validation step shows, or if there is none, or it shows nothing, `forward`; and the training step beside
    it, as in a fit.

    They run on a copy, whose logging goes nowhere: a step may keep things.
    """
    if not (_is_written(model, "validation_step") or _is_written(model, "training_step")):
        return _by_forward(model, batch, options, problems)
    try:
        runs: Any = copy.deepcopy(model)
    except Exception as error:
        pass_on(error)
        if not has_forward(model):
            raise
        return _by_forward(model, batch, options, problems)
    runs.__dict__.update(log=_nowhere, log_dict=_nowhere)
    trained, failure = _trained(runs, batch)
    looked = None
    if _is_written(model, "validation_step"):
        try:
            looked = _seen(runs, batch, options, lambda: _call(runs.validation_step, batch), trained)
        except Exception as error:
            pass_on(error)
            if not has_forward(model):
                raise
    if looked is None or not (looked.answers or looked.said or looked.fed):
        looked = _by_forward(runs, batch, options, problems, trained)
    is_open = options.outputs == "auto" and options.task == "auto"
    if failure and is_open and any(is_outputs(layer.key) and "loss" not in layer.info for layer in looked.layers):
        looked.said.append(_NO_TRAINING_STEP.format(failure))
    return looked


_NO_TRAINING_STEP: Final = (
    "the validation step shows no loss, and the training step could not be run here ({}), so whether the model's answer"
    " is an output, and of what, shows in fit only: pass task= to settle it, or outputs= and layers=[...]"
)


def _trained(model: Any, batch: Any) -> tuple[Finder, str]:
    """A finder that has seen a training step, and why it has not, if it could not. Weights and modes stay."""
    problems = Problems(quiet=True)
    finder = Finder(model, Taps([], problems), problems, outputs=False, layers=False)
    if not _is_written(model, "training_step"):
        return finder, ""
    before = model.__dict__.copy()
    with _as_before(model):
        try:
            optimizers = _idle(model)
            model.__dict__.update(
                dict.fromkeys(("toggle_optimizer", "untoggle_optimizer", "clip_gradients", "lr_schedulers"), _nowhere),
                optimizers=lambda *_, **__: optimizers[0] if len(optimizers) == 1 else optimizers,
                manual_backward=lambda loss, *_, **__: finder.end_at(loss),
            )
            model.train()
            with torch.enable_grad():
                finder.open(batch, recorded=False)
                loss = _call(model.training_step, batch)
                finder.end_at(loss.get("loss") if isinstance(loss, Mapping) else loss)
            finder.close()
        except Exception as error:  # noqa: BLE001  it may need the trainer
            pass_on(error)
            finder.stop_tracing()
            return finder, repr(error)
        finally:
            model.__dict__.clear()
            model.__dict__.update(before)
    return finder, ""


def _idle(model: Any) -> list[Any]:
    """The optimizers of a model that optimises by itself, that leave its weights as they are."""
    if getattr(model, "automatic_optimization", True):
        return []
    made = model.configure_optimizers()
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], list):
        made = made[0]  # the others are schedulers
    optimizers = [optimizer["optimizer"] if isinstance(optimizer, Mapping) else optimizer
                  for optimizer in (made if isinstance(made, list | tuple) else [made])]  # fmt: skip
    for optimizer in optimizers:
        optimizer.step = lambda closure=None: closure() if closure is not None else None
    return optimizers


def _call(step: Callable[..., Any], batch: Any) -> Any:
    return step(batch, 0) if len(signature(step).parameters) > 1 else step(batch)


def _by_forward(
    model: nn.Module, batch: Any, options: Options, problems: Problems, trained: Finder | None = None
) -> _Looked:
    """What `forward` shows of the images."""
    inputs = options.inputs_of(VALIDATION)
    with problems.caught("the model's forward pass"):
        return _seen(model, batch, options, lambda: model(*_images_for(model, batch, inputs)), trained)
    return _Looked()


def _images_for(model: nn.Module, batch: Any, inputs: Any) -> list[Any]:
    """The images that `forward` takes: of several inputs each, if it takes as many."""
    if isinstance(inputs, Mapping):
        return list(separated(batch, {name: reader.key for name, reader in inputs.items()}).parts.values())
    parameters = signature(model.forward).parameters.values()
    required = [p for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    readings = images_in(batch) if inputs == "auto" and len(required) > 1 else []
    if len(readings) == len(required) > 1:
        return [reading.images for reading in readings]
    return [find_images(batch, inputs.key if isinstance(inputs, ImageInputs) else None)]


def _seen(
    model: nn.Module, batch: Any, options: Options, run: Callable[[], Any], trained: Finder | None = None
) -> _Looked:
    """What layers answer in a pass, those found that are left to be found."""
    problems = Problems(quiet=True)
    taps = attach(model, options, problems)
    outputs, layers = options.outputs == "auto", options.layers == "auto"
    finder = Finder(model, taps, problems, outputs=outputs, layers=layers, reduce=options.reduce, before=trained)
    try:
        taps.open()
        finder.open(batch, recorded=True, exact=False)
        finder.close(run())
        finder.settle()
        return _Looked(taps.close(), taps.layers, finder.places, problems.messages, finder.fed(training=False))
    finally:
        finder.stop_tracing()
        taps.remove()


def _is_written(model: nn.Module, name: str) -> bool:
    """Whether somebody has written a method, and not only Lightning."""
    owner = str(getattr(getattr(type(model), name, None), "__module__", "lightning"))
    return owner.partition(".")[0] not in ("pytorch_lightning", "lightning")


def _nowhere(*_: Any, **__: Any) -> None:
    return None


def _first(batch: Any, reference: str, dataloader_idx: int) -> tuple[Any, Any]:
    """The loader, if there is one, and its first batch."""
    if hasattr(batch, "val_dataloader") and hasattr(batch, "setup"):
        batch.prepare_data()
        batch.setup(_STAGES.get(reference, "fit"))
        batch = _loader_of(batch, reference, dataloader_idx)
    if isinstance(batch, Mapping | list | tuple) or is_array(batch):
        return None, batch
    generator = getattr(batch, "generator", None)
    state = None if generator is None else generator.get_state()
    try:
        return batch, next(iter(batch))
    except (TypeError, StopIteration) as error:
        raise InputError(
            f"batch is a {type(batch).__name__} without a batch: pass one, a loader or a data module"
        ) from error
    finally:
        if generator is not None:
            generator.set_state(state)


def _loader_of(module: Any, reference: str, dataloader_idx: int) -> Any:
    """The loader that the reference profile will be of, else the training's."""
    method = _LOADERS.get(reference)
    loaders = getattr(module, method)() if method is not None else _held_out(module)
    loaders = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    return loaders[dataloader_idx] if isinstance(loaders, list | tuple) else loaders


def _reading_difference(module: Any, options: Options) -> list[str]:
    """What is to be said if the first batches that a data module trains and validates with are not read alike."""
    if not (hasattr(module, "train_dataloader") and hasattr(module, "val_dataloader") and hasattr(module, "setup")):
        return []
    preparer = Preparer(options, Problems(quiet=True))
    with preparer.problems.caught("comparing how images are read"):
        firsts = {source: _first(module, source, options.dataloader_idx) for source in (TRAINING, VALIDATION)}
        return list(filter(None, [reading_difference(preparer, firsts)]))
    return []


def _held_out(module: Any) -> Any:
    try:
        loaders = module.val_dataloader()
    except Exception as error:
        if type(error).__name__ != "MisconfigurationException":  # Lightning's way to say that there is none
            raise
        loaders = None
    return loaders or module.train_dataloader()


def _moved(batch: Any, model: nn.Module) -> Any:
    """The batch with its tensors on the model's device; beside a model of other floats, e.g. one that was fitted with
    `precision="bf16-true"`, with its floats as those."""
    parameters = [*model.parameters(), *model.buffers()]
    floats = {parameter.dtype for parameter in parameters if parameter.is_floating_point()}
    other = floats.pop() if len(floats) == 1 and floats != {torch.float32} else None

    def moved(values: Any) -> Any:
        if isinstance(values, Tensor):
            values = values.to(parameters[0].device)
            return values.to(other) if other is not None and values.is_floating_point() else values
        if isinstance(values, Mapping):
            return {key: moved(value) for key, value in values.items()}
        if isinstance(values, tuple) and hasattr(values, "_make"):
            return values._make(map(moved, values))
        return type(values)(map(moved, values)) if type(values) in (list, tuple) else values

    return moved(batch) if parameters else batch


@contextmanager
def _as_before(model: nn.Module | None) -> Iterator[None]:
    """In evaluation mode and without gradients; at the end modes, buffers and random numbers are what they were."""
    modules = [] if model is None else list(model.modules())
    modes = [module.training for module in modules]
    buffers = [] if model is None else [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    states, generator = random.getstate(), np.random.get_state()  # noqa: NPY002  the one that transforms use
    devices = [] if model is None else sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad():
            if model is not None:
                model.eval()
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
        random.setstate(states)
        np.random.set_state(generator)  # noqa: NPY002
