"""What a trainer says of its loaders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lensai_integrations.errors import InputError
from lensai_integrations.training.fit import TEST, VALIDATION

if TYPE_CHECKING:
    from pytorch_lightning import Trainer


def is_fitting(trainer: Trainer) -> bool:
    """Whether a validation pass belongs to the fit: the sanity check and `trainer.validate` do not."""
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def has_validation(trainer: Trainer, index: int) -> bool:
    """Whether there will be validation batches of this loader, as far as is known at the start.

    Raises:
        InputError: If there are fewer validation loaders.
    """
    batches = list(trainer.num_val_batches)
    if batches and index >= len(batches):
        raise InputError(f"dataloader_idx={index}, but there are {len(batches)} validation loaders, counted from 0")
    return bool(trainer.enable_validation and (not batches or batches[index] > 0))


#: What the loaders are called that are not the reference's.
OTHER_LOADERS = "other validation loaders"


def other_loaders(loaders: Any, index: int) -> list[Any]:
    """All of them but that one.

    Example:
        >>> other_loaders(["day", "night"], 1), other_loaders("a loader", 0)
        (['day'], [])
    """
    if isinstance(loaders, Mapping):
        loaders = list(loaders.values())
    if not isinstance(loaders, list | tuple):
        return []
    return [loader for place, loader in enumerate(loaders) if place != index]


def loaders_of(trainer: Trainer, source: str) -> Any:
    """The loaders of the pass that runs: `trainer.val_dataloaders` would be those of a fit before it."""
    if source == VALIDATION and trainer.state.fn == "validate":
        return trainer.validate_loop._combined_loader.iterables  # type: ignore[union-attr]
    return getattr(
        trainer, {VALIDATION: "val_dataloaders", TEST: "test_dataloaders"}.get(source, "predict_dataloaders")
    )


def one_loader(loaders: Any, index: int) -> Any:
    """One of a trainer's loaders, which are one loader, a list, or a dict.

    Raises:
        InputError: If there are fewer.

    Example:
        >>> one_loader({"day": "a loader", "night": "another"}, 1)
        'another'
    """
    several = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
    several = list(several) if isinstance(several, list | tuple) else [several]
    if index >= len(several):
        raise InputError(f"dataloader_idx={index}, but the loaders of this pass are {len(several)}, counted from 0")
    return several[index]
