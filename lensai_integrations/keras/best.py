"""Which epoch's weights count in the end: that of the best epoch, where a callback keeps those."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import keras

from lensai_integrations.keras.weights import ModelWeights, Saved, Saves
from lensai_integrations.profiles.profile import Profile

#: Under what a kept profile's info has the file with its weights, so that a resumed fit knows it.
FILE = "file"


@dataclass(frozen=True)
class SeenPass:
    """What there is when a pass has ended.

    Attributes:
        profiles: The latest complete profile by source.
        source: That of the reference.
        weights: Those that the reference was made with; None if they changed, or are not known.
    """

    profiles: Mapping[str, Profile]
    source: str
    weights: ModelWeights | None = None

    @property
    def reference(self) -> Profile | None:
        """The reference, if there is one."""
        return self.profiles.get(self.source)

    @property
    def epoch(self) -> int | None:
        """The epoch, from 0, of the reference."""
        return None if self.reference is None else self.reference.info.get("epoch")

    def is_of(self, weights: ModelWeights | None) -> bool:
        """Whether the reference was made with these weights."""
        return self.weights is not None and bool(self.weights.same_as(weights))


class BestEpoch:
    """Watches the callback that keeps the best weights, and keeps the profiles of the pass that was made with them.

    That is KerasTuner's `SaveBestEpoch`, else `EarlyStopping(restore_best_weights=True)`, whose best weights the model
    has in the end, else `ModelCheckpoint(save_best_only=True)`. Of one that restores, the epoch is the best that has
    just ended when its best value changes. Of one that saves, it is the one whose weights were saved: at the end of an
    epoch these may be others than validation had, or those of a step between.

    Args:
        siblings: The callbacks of a fit.
        model: The model, to watch it being saved.
        caught: What goes wrong in watching is caught in it.

    Attributes:
        kept: What was seen with the weights that are kept; None so far.
        tuner: KerasTuner's callback.
        restores: Whether the callback gives the model the best weights in the end.

    Example:
        >>> stopping = keras.callbacks.EarlyStopping("val_loss", restore_best_weights=True)
        >>> best = BestEpoch([stopping])
        >>> best.begin()
        >>> stopping.best = 0.5
        >>> best.look(SeenPass({}, "validation")), best.look(SeenPass({}, "validation"))
        (True, False)
    """

    def __init__(
        self, siblings: Sequence[Any] = (), model: Any = None, caught: Callable[[], Any] = nullcontext
    ) -> None:
        stopping = [
            each for each in siblings if isinstance(each, keras.callbacks.EarlyStopping) and each.restore_best_weights
        ]
        saving = [each for each in siblings if isinstance(each, keras.callbacks.ModelCheckpoint)]
        best = [each for each in saving if each.save_best_only]
        within = [each for each in saving if each.save_freq != "epoch"]
        self.tuner = next((each for each in siblings if is_tuners(each)), None)
        keeper = next(iter([*([self.tuner] if self.tuner else []), *stopping, *best, *within]), None)
        self.restores = keeper in stopping
        self._keeps = keeper is not None and (self.restores or keeper is self.tuner or keeper in best)
        self._keeper = keeper
        self._saves = None if keeper is None or self.restores else Saves(model, keeper, caught)
        self._known: Any = None
        self.kept: SeenPass | None = None

    @property
    def saved(self) -> Saved | None:
        """The file that was saved last, if there is one."""
        return None if self._saves is None else self._saves.last

    @property
    def epoch(self) -> int | None:
        """The epoch, from 0, that a callback says it restores."""
        return getattr(self._keeper, "best_epoch", None) if self.restores else None

    def begin(self) -> None:
        """A fit begins: what is the best by now is of before."""
        self._known = self._state()
        if self._saves is not None:
            self._saves.start()

    def resume(self, kept: SeenPass) -> None:
        """Take over what was kept before a fit was interrupted."""
        file = None if kept.reference is None else kept.reference.info.get(FILE)
        self.kept = kept if kept.profiles else None
        if self._saves is not None and kept.weights is not None and isinstance(file, Mapping):
            stamp = file["stamp"]
            self._saves.last = Saved(str(file["path"]), kept.weights, None if stamp is None else tuple(stamp))

    def look(self, seen: SeenPass) -> bool:
        """An epoch has ended: keep what was seen, if its weights are kept.

        Returns:
            Whether they are, and were not before.
        """
        known, self._known = self._known, self._state()
        new, saved = known != self._known, self.saved
        if saved is not None and seen.weights is not None:  # saved before validation has had them, too
            new = seen.is_of(saved.weights) and not (self.kept is not None and self.kept.is_of(saved.weights))
        if not (self._keeps and new):
            return False
        self.kept = seen
        if saved is not None and seen.reference is not None:
            seen.reference.info[FILE] = {"path": saved.path, "stamp": saved.stamp}
        return True

    def stop(self) -> None:
        """The fit is over."""
        if self._saves is not None:
            self._saves.stop()

    def _state(self) -> Any:
        if self._saves is not None:
            return self._saves.last
        best = getattr(self._keeper, "best", None)
        return None if best is None else repr(float(best)), getattr(self._keeper, "best_epoch", None)  # NaN is NaN


def is_tuners(callback: Any) -> bool:
    """Whether it is the one with which KerasTuner keeps the best epoch of a trial, and knows what is best.

    Example:
        >>> is_tuners(keras.callbacks.History())
        False
    """
    names = ("objective", "best_value", "filepath")
    return type(callback).__name__ == "SaveBestEpoch" and all(hasattr(callback, name) for name in names)
