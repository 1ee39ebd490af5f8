"""Which epoch's weights count in the end: that of the best epoch, where a callback keeps those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras


class BestEpoch:
    """Watches the callback that keeps the best weights.

    That is `EarlyStopping(restore_best_weights=True)`, whose best weights the model has in the end, else
    `ModelCheckpoint(save_best_only=True)`. It says which value was the best so far; when that changes, the epoch that
    has just ended is the best.

    Args:
        siblings: The callbacks of a fit.

    Example:
        >>> stopping = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
        >>> best = BestEpoch([stopping])
        >>> best.reset()
        >>> stopping.best = 0.5
        >>> best.is_new(), best.is_new()
        (True, False)
    """

    def __init__(self, siblings: Sequence[Any]) -> None:
        stopping = [
            each for each in siblings if isinstance(each, keras.callbacks.EarlyStopping) and each.restore_best_weights
        ]
        saving = [
            each for each in siblings if isinstance(each, keras.callbacks.ModelCheckpoint) and each.save_best_only
        ]
        self._keeper = next(iter([*stopping, *saving]), None)
        self._known: Any = None

    @property
    def file(self) -> str | None:
        """Name of the file that the best weights are saved to, if they are."""
        path = getattr(self._keeper, "filepath", None)
        return None if path is None else str(path).replace("\\", "/").rsplit("/", maxsplit=1)[-1]

    def reset(self) -> None:
        """What is the best by now is of before."""
        self._known = self._state()

    def is_new(self) -> bool:
        """Whether there is a new best since the last question."""
        known, self._known = self._known, self._state()
        return self._keeper is not None and known != self._known

    def _state(self) -> tuple[Any, Any]:
        best = getattr(self._keeper, "best", None)
        return None if best is None else repr(float(best)), getattr(self._keeper, "best_epoch", None)  # NaN is NaN
