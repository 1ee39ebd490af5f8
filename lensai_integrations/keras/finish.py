"""The end of a Keras fit: of which weights its baseline is, and one more validation pass where that is asked for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import keras
import numpy as np

from lensai_integrations.errors import InputError
from lensai_integrations.keras.fit import KerasFit
from lensai_integrations.keras.private import global_seeds, set_global_seeds, tensorflow_generators
from lensai_integrations.keras.taps import TEST
from lensai_integrations.keras.weights import BestEpoch, ModelWeights, SeenPass, averages, on_host
from lensai_integrations.problems import pass_on
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.training.fit import TRAINING, VALIDATION
from lensai_integrations.training.options import FINAL
from lensai_integrations.training.weights import (
    ASK_FINAL,
    CHANGING,
    LEFT_BY_FIT,
    NO_PASS,
    NOBODYS,
    NOT_LEFT,
    NOT_THE_CHECKPOINTS,
    OLDER,
    WEIGHTS_OF,
    moment,
)

#: What of a model a pass changes, beside variables.
_ATTRIBUTES: Final = ("test_function", "stop_evaluating")
BY_HAND: Final = '`model.evaluate(x, y, callbacks=[BaselineCallback(reference="test")])`, with a new callback'
_NO_FINAL: Final = "reference='final' asks for one more validation pass at the end of fit, but {}"
_OF_FILE: Final = "checkpoint {file}, {at}"
_AS_GIVEN: Final = "the model as it was given for {}"
_UNKNOWN: Final = "whether the reference is of the weights that fit leaves cannot be told: " + ASK_FINAL


def chosen(
    fit: KerasFit, best: BestEpoch, final: SeenPass | None, epoch: int | None, *, interrupted: bool
) -> tuple[Mapping[str, Profile], dict[str, Any]]:
    """Which profiles are logged: those of the weights that a callback keeps, else of those that the fit leaves.

    Where no pass was made with either, it is the latest, and that is said.

    Args:
        fit: The fit.
        best: What a callback keeps.
        final: What was seen in one more pass, if there was one.
        epoch: The last epoch.
        interrupted: Whether the fit did not end by itself.

    Returns:
        The profiles by source, and what the baseline says of their weights.
    """
    latest, saved = fit.seen(), best.saved
    if final is None and (latest.reference is None or not latest.reference.n):
        return latest.profiles, {}
    kept = best.kept if best.kept is not None and best.kept.source == latest.source else None
    candidates = [candidate for candidate in (latest, kept) if candidate is not None]
    if latest.source == TRAINING and final is None:
        source = kept or latest
        held_out = fit.reference == VALIDATION and VALIDATION not in fit.begun
        if held_out and fit.options.reference != FINAL and not interrupted:
            fit.problems.note("weights", NO_PASS)
        return _with_latest(source, latest), _told(CHANGING, _at(source.epoch), source.epoch)
    left = fit.left()
    if final is not None:
        of = next((candidate for candidate in candidates if candidate.is_of(left)), None)
        after = "as they were before" if epoch is None else f"after epoch {epoch}"
        at = after if of is None else _at(of.epoch)
        file = saved.name if saved is not None and saved.holds(left) else None
        profiles = {**_with_latest(of or latest, latest), final.source: final.profiles[final.source]}
        return profiles, _told(LEFT_BY_FIT, at, None if of is None else of.epoch, file)
    if kept is not None and saved is not None and saved.holds(kept.weights):
        return _with_latest(kept, latest), _told(_OF_FILE, _at(kept.epoch), kept.epoch, saved.name)
    of = next((candidate for candidate in candidates if candidate.is_of(left)), None)
    source = of or (kept if kept is not None and best.restores else latest)
    _say_of_file(fit, best, source)
    if of is not None:
        return _with_latest(source, latest), _told(LEFT_BY_FIT, _at(source.epoch), source.epoch)
    if source.weights is None or (left is None and not interrupted):
        fit.problems.note("weights", _UNKNOWN)
    else:
        why = "at the interruption" if interrupted else _left_by(fit.model, best, source, epoch)
        tried = interrupted or fit.options.reference == FINAL
        message = f"{OLDER}. To settle it, make one by {BY_HAND}" if tried else NOT_LEFT
        fit.problems.note("weights", message.format(at=_at(source.epoch), left=why))
    return _with_latest(source, latest), _told(NOBODYS, _at(source.epoch), source.epoch)


def of_pass(
    fit: KerasFit, best: BestEpoch, left: ModelWeights | None, epoch: int | None
) -> tuple[Mapping[str, Profile], dict[str, Any]]:
    """The profiles of an `evaluate` or `predict` on its own, and what the baseline says of their weights.

    Args:
        fit: The fit before, if there was one.
        best: What a callback kept in it.
        left: The weights that it left.
        epoch: Its last epoch.
    """
    latest, saved = fit.seen(), best.saved
    profiles = {**latest.profiles, **({} if best.kept is None else best.kept.profiles)}
    if saved is not None and saved.holds(latest.weights):
        return profiles, _told(_OF_FILE, saved.when, None, saved.name)
    if latest.is_of(left):
        return profiles, _told(LEFT_BY_FIT, _at(epoch), epoch)
    return profiles, _told(_AS_GIVEN.format(latest.source), "", None)


def _told(words: str, at: str, epoch: int | None, file: str | None = None) -> dict[str, Any]:
    return {WEIGHTS_OF: words.format(at=at, file=file), "epoch": epoch, "checkpoint": file}


def _at(epoch: int | None) -> str:
    return moment(None, epoch)


def _with_latest(source: SeenPass, latest: SeenPass) -> dict[str, Profile]:
    return {**latest.profiles, **source.profiles}


def _say_of_file(fit: KerasFit, best: BestEpoch, source: SeenPass) -> None:
    """A file that was saved between passes, or with weights swapped in or out since."""
    saved = best.saved
    if saved is not None and saved.is_there() and not source.is_of(saved.weights):
        how = f"`model.load_weights({saved.name!r})` and {BY_HAND}"
        when_saved, at = saved.when or moment(None), _at(source.epoch)
        message = NOT_THE_CHECKPOINTS.format(checkpoint=saved.name, held=when_saved, at=at, how=how)
        fit.problems.note("checkpoint", message)


def _left_by(model: Any, best: BestEpoch, source: SeenPass, epoch: int | None) -> str:
    """Whose weights a fit leaves, where no pass was made with them."""
    if best.restores and best.epoch is not None:
        return f"that EarlyStopping gave back, {_at(best.epoch)}"
    if averages(getattr(model, "optimizer", None)):
        return "that the optimizer averaged (use_ema=True)"
    return _at(epoch) if epoch != source.epoch else "that were set after that"


def final_pass(fit: KerasFit, evaluation: Mapping[str, Any] | None) -> SeenPass | None:
    """Evaluate as `fit` does, once more, and leave all but the profile as it was.

    Args:
        fit: The fit.
        evaluation: The arguments of `evaluate`; None if fit was given no validation data, or it is not known.

    Returns:
        What was seen; None if there was no whole pass, which is a problem of the fit.
    """
    if evaluation is None:
        fit.problems.note("final pass", _NO_FINAL.format("fit was given no validation_data: pass some"))
        return None
    before, weights, after = fit.seen(), dict(fit.weights), list[SeenPass]()
    with fit.problems.caught("final pass"):
        after.append(_evaluated(fit, evaluation))
    fit.profiles, fit.weights = dict(before.profiles), weights
    held_out = [seen_pass.profiles.get(VALIDATION) for seen_pass in (before, *after)]
    rows = [0 if profile is None else profile.n for profile in held_out]
    if not after or rows[-1] >= max(rows[0], 1):
        return after[0] if after else None
    why = f"it had {rows[-1]} of {rows[0]} rows: pass validation_data that can be read again"
    fit.problems.note("final pass", _NO_FINAL.format(why))
    return None


def _evaluated(fit: KerasFit, evaluation: Mapping[str, Any]) -> SeenPass:
    """What is seen in a pass, apart from all else.

    Raises:
        InputError: If it cannot be run.
    """
    with undisturbed(fit.model):
        if fit.model.test_function is None:
            fit.model.make_test_function()
        fit.listen(TEST)
        fit.start(VALIDATION)
        try:
            fit.model.evaluate(**evaluation, verbose=0, callbacks=[], return_dict=True)
            fit.end(VALIDATION)
            return fit.seen()
        except Exception as error:
            pass_on(error)
            raise InputError(_NO_FINAL.format(f"it failed: {error!r}")) from error
        finally:
            fit.stop()


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """A context after which metrics, seeds, functions and all random numbers are what they were before."""
    weights = {id(variable) for variable in model.weights}
    variables = {
        id(variable): variable
        for variable in (*model.variables, *model.metrics_variables)
        if id(variable) not in weights
    }
    attributes = {name: getattr(model, name) for name in _ATTRIBUTES if hasattr(model, name)}
    seeds = global_seeds()
    if seeds is not None:
        variables[id(seeds.state)] = seeds.state
    before = {key: on_host(variable.value).copy() for key, variable in variables.items()}
    states = [(put, get()) for get, put in _generators()]
    try:
        yield
    finally:
        for key, value in before.items():
            variables[key].assign(value)
        set_global_seeds(seeds)
        for name in _ATTRIBUTES:
            if name in attributes:
                setattr(model, name, attributes[name])
            elif hasattr(model, name):
                delattr(model, name)
        for put, state in states:
            put(state)


def _generators() -> Iterator[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """How to get and to put back the state of every generator of random numbers that nobody passes around."""
    yield random.getstate, random.setstate
    yield np.random.get_state, np.random.set_state
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        yield torch.get_rng_state, torch.set_rng_state
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            yield torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all
    if backend == "tensorflow":
        yield from tensorflow_generators()
