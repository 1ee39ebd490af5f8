"""One fit of a Lightning trainer: its passes, the hooks on the model while there are any, and one more pass at its end.

That one has the weights that the fit leaves. It is the trainer's own loop, so transfers, precision, ranks and the hooks
of model and data module are those of any validation. But nobody else hears of it: no other callback runs, loggers are
stand-ins, and metrics, progress, modes and random numbers are afterwards what they were.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import torch

from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.torch.finding import Finder
from lensai_integrations.torch.ranks import Share, gathered
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.fit import Fit
from lensai_integrations.training.options import Reading
from lensai_integrations.training.weights import WEIGHTS, Weights


class LightningFit(Fit[LoaderPass]):
    """The state of a callback from `setup` on.

    Args:
        options: What was asked for.
        rank: Which process this is.
        world_size: Of how many.
        strategy: The trainer's, which knows which processes are fed the same.

    Attributes:
        taps: Hooks on the model, while there are any.
        finder: Decides where these are, while there are any; the last one afterwards.
        epoch: The last one that was trained in; None before.
        whole_final: Whether the validation pass after training is complete.
        left: The weights that the fit left, if it has ended.
        best_before: The best checkpoint that the trainer knew of when the fit began, if it is of an earlier fit.
        best_seen: The best checkpoint that has the weights of a pass of this fit, and the profiles as of then.
    """

    def __init__(self, options: Reading, rank: int, world_size: int, strategy: Any = None) -> None:
        self._world_size, self._strategy = world_size, strategy
        self._share: Share | None = None
        super().__init__(options, rank=rank, gather=self._gathered)
        self.taps: Taps | None = None
        self.finder: Finder | None = None
        self.epoch: int | None = None
        self.whole_final = False
        self.left: Weights | None = None
        self.best_before: Any = None
        self.best_seen: tuple[Any, Mapping[str, Profile]] = None, {}

    def record(self, source: str, *, everything: bool, as_reference: bool = True) -> None:
        """Record the passes of a source.

        Args:
            source: `"validation"`, `"training"` or `"test"`.
            everything: Layers too, not only what the model is fed.
            as_reference: Whether they are the reference, of which all batches are profiled.
        """
        layers = [] if self.taps is None else self.taps.layers
        taps, silent = (self.taps, []) if everything else (None, layers)
        chosen = self.chosen(source, as_reference=as_reference)
        self.recordings[source] = LoaderPass(
            source, self.prepare(source), taps, self.problems, silent, strategy=self._strategy, chosen=chosen
        )

    def _gathered(self, profile: Profile | None, problems: Problems) -> Profile | None:
        return gathered(profile, self._world_size, problems, self._share)

    def complete(self, source: str, *, whole: bool = True, **info: Any) -> None:
        """End a pass, with the weights it was made with in its profile's info: the first rank's, which checkpoints have
        (running statistics may differ between ranks)."""
        recording, before = self.recordings.get(source), self.profiles.get(source)
        sample = recording.sample if recording is not None else None
        self._share = recording.share if recording is not None else None
        super().complete(source, whole=whole, **info)
        profile = self.profiles.get(source)
        if sample is not None and profile is not None and profile is not before:
            with self.problems.caught("weights"):
                weights = sample.weights()
                profile.info |= {} if weights is None else {WEIGHTS: weights.to_json()}

    def stop(self) -> None:
        """Take the hooks off the model and forget unfinished passes; complete profiles stay."""
        self.recordings = {}
        if self.finder is not None:
            self.finder.settle()
        if self.taps is not None:
            self.taps.remove()
            self.taps = None


# -- one more validation pass


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
    device, modes = module.device, [(submodule, submodule.training) for submodule in module.modules()]
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
            for submodule, mode in modes:
                submodule.training = mode
            loop.teardown()
            module.to(device)


@contextmanager
def _first_ranks_buffers(module: Any) -> Iterator[None]:
    """The first rank's running statistics on all of them, as these are kept: DDP, unwrapped by now, would see to that.
    At the end buffers are what they were, also those that a model writes in validation."""
    copies = [(buffer, buffer.clone()) for buffer in module.buffers()]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        for buffer, _ in copies:
            torch.distributed.broadcast(buffer, 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, copied in copies:
                buffer.copy_(copied)


def _fresh(loop: Any) -> Any:
    """A loop of the same data that has not run."""
    fresh = type(loop)(loop.trainer, loop._trainer_fn, loop._stage, verbose=False, inference_mode=loop.inference_mode)
    fresh._data_source = loop._data_source
    fresh._combined_loader, fresh._max_batches = loop._combined_loader, loop._max_batches
    fresh._last_val_dl_reload_epoch = float("inf")  # the loaders that there are will do
    return fresh


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
    generators = [getattr(owner, "generator", None) for owner in owners]
    return list({id(owned): owned for owned in generators if isinstance(owned, torch.Generator)}.values())
