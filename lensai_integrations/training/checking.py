"""The public side of a dry run, the same in every adapter's callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lensai_integrations.errors import InputError

if TYPE_CHECKING:
    from lensai_integrations.training.check import Check
    from lensai_integrations.training.options import Options


class Checkable:
    """A callback that can be asked what it would see; `_checked` is its adapter's way of looking."""

    _options: Options
    _checked: Callable[[Options, Any, Any], Check]

    def check(self, *model_and_batch: Any) -> Check:
        """Run one batch through everything, and tell what was read and what looks wrong. Nothing is changed or kept.

        The model answers in evaluation mode and without gradients. Its modes, weights, buffers and hooks and the random
        numbers of Python, numpy and the framework are as before; only a generator has one batch less.

        Args:
            model_and_batch: `model, batch`, or a batch alone to look at images and labels only. Instead of a batch,
                a loader, or with Lightning a data module: then its first batch.

        Returns:
            A table when printed; `ok` says whether there is nothing to warn of.

        Raises:
            InputError: If there is no batch.

        Example:
            >>> print(callback.check(model, train_loader))  # doctest: +SKIP
        """
        if not 1 <= len(model_and_batch) <= 2:
            raise InputError(f"check takes a model and a batch, or a batch alone, not {len(model_and_batch)} arguments")
        *model, batch = model_and_batch
        return self._checked(self._options, model[0] if model else None, batch)
