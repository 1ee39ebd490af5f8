"""The end of a Lightning fit or pass: whose weights its reference is of, and the baseline that is delivered.

They are the best checkpoint's, those that fit leaves, or no one's, and then that is said. Weights are told apart by
their digests, taken at a pass's first batch, from the checkpoint's file, and from the model when all callbacks are
through with it. Averaging, swapping, restoring and freezing need no rules then. Where digests cannot be compared
(sharded checkpoints, a `state_dict` with other names) the steps decide, and that is said, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lensai_integrations.errors import FormatError
from lensai_integrations.lightning.base import runs_of_loggers
from lensai_integrations.lightning.checkpoints import CheckpointFile
from lensai_integrations.lightning.fit import LightningFit
from lensai_integrations.problems import pass_on
from lensai_integrations.profiles.profile import Baseline, Profile
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.training.finish import deliver, say_there_is_none
from lensai_integrations.training.fit import TRAINING, profiles_of
from lensai_integrations.training.options import FINAL, Options
from lensai_integrations.training.tracking import TrackedRun
from lensai_integrations.training.weights import (
    ASK_FINAL,
    CHANGING,
    LEFT_BY_FIT,
    NO_PASS,
    NOBODYS,
    NOT_THE_CHECKPOINTS,
    OLDER,
    WEIGHTS,
    WEIGHTS_OF,
    Weights,
    moment,
)

_VALIDATE = "Trainer(callbacks=[BaselineCallback(...)]).validate(model, loader{})"
_BY_STEP = (
    "the weights in {name} cannot be compared with those of the reference (a sharded checkpoint, or a state_dict with"
    " other names); that both are {at} is all that is known: weights that a callback averages or swaps would be others."
    " {how} settles it"
)
_UNKNOWN = "not known: it was made {at}"
_OTHER_TENSORS = (
    "the weights that fit leaves, those {left}, cannot be compared with those of the reference, made {at}: the model's"
    " tensors are others now (pruned, wrapped, converted), or the reference is of a profile without a digest"
)
_EARLIER = (
    "ModelCheckpoint still names {name}, of an earlier fit of this trainer, so the baseline is not that checkpoint's;"
    " a Trainer of its own for each fit keeps them apart, and its baseline is made by {how}"
)
_FIT_LEAVES_OTHERS = (
    'Baseline: it is of {whose}; fit leaves other weights, those {left}, and reference="final" makes that of these.'
)
_UNREADABLE = (
    "{path} cannot be read from here ({error}), so whether the reference is of its weights is not known; the baseline"
    " of that checkpoint is made by {how}"
)
_CHANGED = (
    "{path} was loaded, but the weights at the first batch were others: a callback or a hook of the model has changed"
    " them, and the reference is of those"
)


@dataclass(frozen=True)
class Belonging:
    """Which profiles make the baseline, and whose weights its reference is of.

    Attributes:
        profiles: By source.
        whose: In words.
        checkpoint: Name of the checkpoint, if it is one's.
        note: What else to tell, if anything.
    """

    profiles: Mapping[str, Profile]
    whose: str
    checkpoint: str | None = None
    note: str = ""


@dataclass(frozen=True)
class _KeptWeights:
    """Weights that are kept: in a checkpoint, or in the model when fit has ended."""

    weights: Weights | None
    step: int | None
    epoch: int | None = None
    path: str = ""
    stored: Mapping[str, Profile] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def at(self) -> str:
        return moment(self.step, self.epoch)

    def compared(self, profile: Profile) -> bool | None:
        """Whether a profile was made with these weights; None if they cannot be compared."""
        weights = Weights.from_json(profile.info.get(WEIGHTS))
        return None if weights is None or self.weights is None else weights.same_as(self.weights)

    def are_of(self, profile: Profile) -> bool:
        """Whether a profile was made with these weights, as far as can be told."""
        same = self.compared(profile)
        return same if same is not None else self.step is not None and self.step == profile.info.get("step")


def best_checkpoint(trainer: Any) -> str:
    """Path of the best checkpoint: of the first callback that monitors something, else of the first; or empty."""
    best = _best_callback(trainer)
    return "" if best is None else str(best.best_model_path)


def _best_callback(trainer: Any) -> Any:
    callbacks = [c for c in trainer.checkpoint_callbacks if getattr(c, "best_model_path", "")]
    callbacks.sort(key=lambda callback: getattr(callback, "monitor", None) is None)
    return callbacks[0] if callbacks else None


def identity(trainer: Any) -> Any:
    """What tells the best checkpoint from one saved earlier or later under the same name; None if there is none."""
    path = best_checkpoint(trainer)
    if not path:
        return None
    try:
        state = Path(path).stat()
    except OSError as error:
        pass_on(error)
        return path
    return path, state.st_mtime_ns, state.st_size


def keep_for_best(fit: LightningFit, source: str, trainer: Any, *, before: bool = False) -> None:
    """Keep the latest profile for the best checkpoint, if that is of its weights and does not carry it.

    Args:
        fit: The fit.
        source: Of the reference.
        trainer: The trainer.
        before: Whether another profile is about to replace it: then the checkpoint may be one of weights only. Else the
            pass has just ended: then it may have been saved just before the pass, with the profile before this one.
    """
    best = _best_callback(trainer)
    profile = fit.profiles.get(source)
    if best is None or profile is None or identity(trainer) == fit.best_seen[0]:
        return
    saved_now = getattr(best, "_last_global_step_saved", None) == trainer.global_step
    if getattr(best, "save_weights_only", False) if before else saved_now:
        kept = _best(fit, trainer, "", quiet=True)
        if kept is not None and kept.are_of(profile):
            fit.best_seen = identity(trainer), dict(fit.profiles)


def of_fit(fit: LightningFit, trainer: Any, state_key: str, *, interrupted: bool = False) -> Belonging:
    """Whose weights the reference of a fit is of, and what is to be said of it.

    Args:
        fit: The fit that has ended.
        trainer: Its trainer.
        state_key: Of the callback, in checkpoints.
        interrupted: By an exception.
    """
    left = weights_left(fit, trainer)
    best = _best(fit, trainer, state_key)
    source = fit.reference
    candidates = _candidates(fit, best, trainer)
    if source == TRAINING or not any(source in profiles for profiles in candidates):
        profiles: Mapping[str, Profile] = {**fit.profiles, **(best.stored if best is not None else {})}
        training = profiles.get(TRAINING)
        if source != TRAINING and fit.options.reference != FINAL and not interrupted:
            fit.problems.note("weights", NO_PASS)
        return Belonging(profiles, CHANGING.format(at=_at(training)) if training is not None else "")
    if best is not None:
        for profiles in candidates:
            if source in profiles and best.are_of(profiles[source]):
                return _of_best(fit, best, left, profiles, source)
    profiles = candidates[-1] if source in candidates[-1] else candidates[0]
    reference = profiles[source]
    both = best is not None and left.weights is not None and best.weights == left.weights
    said = [_not_the_best(best, reference)] if best is not None and not (both or fit.whole_final) else []
    same, at = left.compared(reference), _at(reference)
    if same:
        whose = LEFT_BY_FIT.format(at=at)
    else:
        settles = f"{_VALIDATE.format('')} makes that of the weights as they are"
        if not interrupted and fit.options.reference != FINAL:
            settles = f"To settle it, {ASK_FINAL}"
        kept = f"{left.at}, as in the best checkpoint {best.name}" if both and best is not None else left.at
        whose = (_UNKNOWN if same is None else NOBODYS).format(at=at)
        said.insert(0, f"{(_OTHER_TENSORS if same is None else OLDER).format(at=at, left=kept)}. {settles}")
    if said:
        fit.problems.note("weights", "; ".join(said))
    return Belonging(profiles, whose)


def of_pass(fit: LightningFit, source: str, trainer: Any) -> Belonging:
    """Whose weights the reference is of that `trainer.validate`, `test` or `predict` has made."""
    reference, profiles = fit.profiles.get(source), dict(fit.profiles)
    if reference is None:
        return Belonging(profiles, "")
    loaded = str(trainer.ckpt_path or "")
    kept = _read(fit, trainer, loaded, "", quiet=True) if loaded else _best(fit, trainer, "", quiet=True)
    same = kept.compared(reference) if kept is not None else None
    if loaded and same is None:
        whose = f"checkpoint {Path(loaded).name}, which the trainer loaded; its file cannot be compared"
        reference.info |= {"step": kept and kept.step, "epoch": kept and kept.epoch}
        return Belonging(profiles, whose, Path(loaded).name)
    if loaded and not same:
        fit.problems.note("weights", _CHANGED.format(path=loaded))
        return Belonging(profiles, f"other weights than those of {Path(loaded).name}, which was loaded")
    if kept is not None and same:
        reference.info |= {"step": kept.step, "epoch": kept.epoch}
        return Belonging(profiles, f"checkpoint {kept.name}, {kept.at}", kept.name)
    if fit.left is not None and _KeptWeights(fit.left, None).are_of(reference):
        return Belonging(profiles, LEFT_BY_FIT.format(at=_at(reference)))
    return Belonging(profiles, f"the model as it was given for {source}")


def _of_best(
    fit: LightningFit, best: _KeptWeights, left: _KeptWeights, profiles: Mapping[str, Profile], source: str
) -> Belonging:
    """The baseline of the best checkpoint; what it lacks, because it was saved too early, is the latest."""
    missing = fit.profiles.keys() - profiles.keys()
    if missing:
        fit.problems.note(
            "best checkpoint",
            f"it was saved before a first whole {' and '.join(sorted(missing))} pass, so that is a later one",
        )
    if best.compared(profiles[source]) is None:
        how = _VALIDATE.format(f", ckpt_path={best.path!r}")
        fit.problems.note("weights", _BY_STEP.format(name=best.name, at=best.at, how=how))
    whose = f"checkpoint {best.name}, {_at(profiles[source])}"
    others = left.compared(profiles[source]) is False
    note = _FIT_LEAVES_OTHERS.format(whose=whose, left=left.at) if others else ""
    return Belonging({**fit.profiles, **profiles}, whose, best.name, note)


def _candidates(fit: LightningFit, best: _KeptWeights | None, trainer: Any) -> list[Mapping[str, Profile]]:
    """Profiles that may be of the best checkpoint's weights, the latest of the fit last."""
    if fit.whole_final or best is None:
        return [fit.profiles]
    checkpoint, profiles = fit.best_seen
    return [best.stored, *([profiles] if checkpoint == identity(trainer) else []), fit.profiles]


def _not_the_best(best: _KeptWeights, reference: Profile) -> str:
    how = _VALIDATE.format(f", ckpt_path={best.path!r}")
    return NOT_THE_CHECKPOINTS.format(checkpoint=f"the best checkpoint {best.name}", held=best.at, at=_at(reference),
                                      how=how)  # fmt: skip


def _at(profile: Profile) -> str:
    return moment(profile.info.get("step"), profile.info.get("epoch"))


def weights_left(fit: LightningFit, trainer: Any) -> _KeptWeights:
    """The weights that the model has when its fit has ended."""
    with fit.problems.caught("weights"):
        fit.left = SampledWeights(trainer.lightning_module).weights()
    return _KeptWeights(fit.left, trainer.global_step, fit.epoch)


def _best(fit: LightningFit, trainer: Any, state_key: str, *, quiet: bool = False) -> _KeptWeights | None:
    """What the best checkpoint holds; None if there is none, of this fit, that can be read."""
    path = best_checkpoint(trainer)
    if not path:
        return None
    if fit.best_before is not None and identity(trainer) == fit.best_before:
        if not quiet:
            how = _VALIDATE.format(f", ckpt_path={path!r}")
            fit.problems.note("best checkpoint", _EARLIER.format(name=Path(path).name, how=how))
        return None
    return _read(fit, trainer, path, state_key, quiet=quiet)


def _read(fit: LightningFit, trainer: Any, path: str, state_key: str, *, quiet: bool = False) -> _KeptWeights | None:
    """What a checkpoint holds: its weights' digest, and the profiles in it if a key is given."""
    try:
        file = CheckpointFile(path)
        weights = file.weights(SampledWeights(trainer.lightning_module).names)
    except (OSError, FormatError) as error:
        pass_on(error)
        if not quiet:
            how = _VALIDATE.format(f", ckpt_path={path!r}")
            fit.problems.note("best checkpoint", _UNREADABLE.format(path=path, error=error, how=how))
        return None
    return _KeptWeights(weights, file.step, file.epoch, path, _stored(fit, file, state_key) if state_key else {})


def _stored(fit: LightningFit, file: CheckpointFile, state_key: str) -> dict[str, Profile]:
    """The profiles in a checkpoint; none in one of weights only."""
    try:
        state = file.state(state_key)
    except FormatError:
        return {}
    with fit.problems.caught("best checkpoint"):
        return profiles_of(state)
    return {}


# -- the baseline


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
        package = "lightning" if type(trainer).__module__.startswith("lightning.") else "pytorch-lightning"
        baseline.info |= {
            "source": baseline.reference.source,
            "epoch": baseline.reference.info.get("epoch"),
            "step": baseline.reference.info.get("step"),
            "checkpoint": belonging.checkpoint,
            WEIGHTS_OF: belonging.whose,
            "model": type(trainer.lightning_module).__name__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "made_by": {"torch": str(torch.__version__), package: version(package)},
            "warnings": list(fit.problems.messages),
        }
    return baseline
