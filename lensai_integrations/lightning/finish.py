"""The end of a Lightning fit or pass: which baseline it is, and which runs take it. Of whose weights: `whose.py`.

One more validation pass at the end of a fit, with the weights that it leaves.

It is the trainer's own loop, so transfers, precision, ranks and the hooks of model and data module are those of any
validation. But nobody else hears of it: no other callback runs, loggers are stand-ins, and metrics, progress, modes and
random numbers are afterwards what they were.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensai_integrations.lightning.base import runs_of_loggers
from lensai_integrations.lightning.checkpoints import Belonging
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.profiles.profile import Baseline
from lensai_integrations.training.finish import deliver, say_there_is_none
from lensai_integrations.training.options import Options
from lensai_integrations.training.tracking import TrackedRun
from lensai_integrations.training.weights import WEIGHTS_OF


def conclude(
    fit: LightningFit,
    options: Options,
    trainer: Any,
    belonging: Belonging,
    active: TrackedRun | None,
    made: Callable[[Baseline | None, Path | None], None] = lambda baseline, folder: None,
) -> tuple[Baseline | None, Path | None]:
    """Make the baseline, save it, log it, and say where it is and what it lacks.

    Args:
        fit: What was profiled.
        options: What was asked for.
        trainer: The trainer.
        belonging: Whose weights it is of.
        active: The MLflow run that was active when the fit began.
        made: Told what is returned as soon as it is there, for what comes then may be cut short.

    Returns:
        The baseline and the folder it is in; None for what there is not.
    """
    baseline = baseline_of(fit, trainer, belonging)
    if belonging.note:
        say(belonging.note)
    if baseline is None:
        say_there_is_none(fit.reference, fit.problems)
        return None, None
    made(baseline, None)
    if trainer.fast_dev_run:
        say("Baseline: fast_dev_run, so it is neither saved nor logged; it is in `callback.baseline_`.")
        return baseline, None
    runs = runs_of_loggers(trainer) or ([active] if active is not None else [])
    folder = deliver(
        baseline,
        options,
        fit.problems,
        root=_local(trainer.default_root_dir),
        runs=runs,
        say=say,
        saved=lambda folder: made(baseline, folder),
    )
    return baseline, folder


def _local(root: str) -> str:
    """A trainer's folder; the working directory where that is a bucket or another address."""
    path = root.removeprefix("file://")
    return "." if "://" in path else path


def say(message: str) -> None:
    """Log where Lightning logs, on the first rank: there people look."""
    from lightning_utilities.core.rank_zero import rank_zero_info

    rank_zero_info(message)


def baseline_of(fit: LightningFit, trainer: Any, belonging: Belonging) -> Baseline | None:
    """The baseline that the profiles of these weights make; None if there is none."""
    baseline = fit.baseline(belonging.profiles)
    if baseline is not None:
        baseline.info |= {
            "source": baseline.reference.source,
            "epoch": baseline.reference.info.get("epoch"),
            "step": baseline.reference.info.get("step"),
            "checkpoint": belonging.checkpoint,
            WEIGHTS_OF: belonging.whose,
            "model": type(trainer.lightning_module).__name__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_by": {"torch": str(torch.__version__), _lightning(trainer): _version(trainer)},
            "warnings": list(fit.problems.messages),
        }
    return baseline


def _lightning(trainer: Any) -> str:
    return "lightning" if type(trainer).__module__.startswith("lightning.") else "pytorch-lightning"


def _version(trainer: Any) -> str:
    return version(_lightning(trainer))


def validate_once_more(trainer: Any, callback: Any) -> None:
    """Run the validation loop of a trainer whose fit has ended.

    Args:
        trainer: The trainer.
        callback: The only one whose hooks are called.
    """
    epoch_loop, stage = trainer.fit_loop.epoch_loop, trainer.state.stage
    module, loop = trainer.lightning_module, _fresh(epoch_loop.val_loop)
    before = trainer.callbacks, trainer.loggers, trainer._logger_connector, epoch_loop.val_loop
    time = getattr(trainer, "_last_val_time", 0.0)  # not there yet where nothing was left to train
    device, modes = module.device, [(m, m.training) for m in module.modules()]
    with _same_random_numbers(trainer, loop):
        try:
            trainer.callbacks, trainer.loggers = [callback], _silent(trainer)
            trainer._logger_connector, epoch_loop.val_loop = type(before[2])(trainer), loop
            trainer.strategy.model_to_device()  # it is back on the host
            trainer.validating = True
            with _first_ranks_buffers(module):
                loop.run()
        finally:
            trainer.state.stage = stage
            trainer.callbacks, trainer.loggers, trainer._logger_connector, epoch_loop.val_loop = before
            trainer._last_val_time = time
            for each, mode in modes:
                each.training = mode
            loop.teardown()
            module.to(device)


@contextmanager
def _first_ranks_buffers(module: Any) -> Iterator[None]:
    """The first rank's running statistics on all of them, as these are kept: DDP, unwrapped by now, would see to that.
    At the end buffers are what they were, also those that a model writes in validation."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer, _ in before:
            torch.distributed.broadcast(buffer, 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, own in before:
                buffer.copy_(own)


def _fresh(loop: Any) -> Any:
    """A loop of the same data that has not run."""
    made = type(loop)(loop.trainer, loop._trainer_fn, loop._stage, verbose=False, inference_mode=loop.inference_mode)
    made._data_source = loop._data_source
    made._combined_loader, made._max_batches = loop._combined_loader, loop._max_batches
    made._last_val_dl_reload_epoch = float("inf")  # the loaders that there are will do
    return made


def _silent(trainer: Any) -> list[Any]:
    """As many loggers, that log nothing."""
    package = type(trainer).__module__.partition(".trainer")[0]
    return [import_module(f"{package}.loggers.logger").DummyLogger() for _ in trainer.loggers]


@contextmanager
def _same_random_numbers(trainer: Any, loop: Any) -> Iterator[None]:
    """At the end random numbers go on as before: the global ones, and those of the loaders that are there."""
    generators = [generator for loader in _loaders(loop) for generator in _generators(loader)]
    states = [generator.get_state() for generator in generators]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the one that transforms use
    root = trainer.strategy.root_device
    try:
        with torch.random.fork_rng([root] if root.type == "cuda" else []):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _loaders(loop: Any) -> list[Any]:
    return list(loop._combined_loader.flattened) if loop._combined_loader is not None else []


def _generators(loader: Any) -> list[torch.Generator]:
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())
