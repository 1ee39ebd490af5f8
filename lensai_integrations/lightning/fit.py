"""One fit of a Lightning trainer: its passes, and the hooks on the model while there are any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from lensai_integrations.profiles.profile import Profile
from lensai_integrations.torch.finding import Finder
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.torch.recording import LoaderPass, gathered
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.fit import TRAINING, Fit
from lensai_integrations.training.options import Reading
from lensai_integrations.training.weights import WEIGHTS, Weights


class LightningFit(Fit[LoaderPass]):
    """The state of a callback from `setup` on.

    Args:
        options: What was asked for.
        rank: Which process this is.
        world_size: Of how many.

    Attributes:
        taps: Hooks on the model, while there are any.
        finder: Decides where these are, while there are any; the last one afterwards.
        epoch: The last one that was trained in; None before.
        whole_final: Whether the validation pass after training is complete.
        left: The weights that the fit left, if it has ended.
        best_before: The best checkpoint that the trainer knew of when the fit began, if it is of an earlier fit.
        best_seen: The best checkpoint that has the weights of a pass of this fit, and the profiles as of then.
    """

    def __init__(self, options: Reading, rank: int, world_size: int) -> None:
        super().__init__(options, rank=rank, gather=lambda profile, problems: gathered(profile, world_size, problems))
        self.taps: Taps | None = None
        self.finder: Finder | None = None
        self.epoch: int | None = None
        self.whole_final = False
        self.left: Weights | None = None
        self.best_before: Any = None
        self.best_seen: tuple[Any, Mapping[str, Profile]] = None, {}
        self._samples: dict[str, SampledWeights] = {}

    def record(self, source: str, *, everything: bool) -> None:
        """Record the passes of a source.

        Args:
            source: `"validation"`, `"training"` or `"test"`.
            everything: Layers too, not only what the model is fed.
        """
        layers = [] if self.taps is None else self.taps.layers
        taps, known = (self.taps, []) if everything else (None, layers)
        self.recordings[source] = LoaderPass(source, self.prepare(source), taps, self.problems, known)

    def see_weights(self, source: str, model: nn.Module) -> None:
        """Note with which weights a pass is made, at its first batch: by then all who swap them have done so."""
        if source != TRAINING and source not in self._samples:
            with self.problems.caught("weights"):
                self._samples[source] = SampledWeights(model)

    def forget_weights(self, source: str) -> None:
        """A pass begins."""
        self._samples.pop(source, None)

    def complete(self, source: str, *, whole: bool = True, **info: Any) -> None:
        """End a pass, with the weights it was made with in its profile's info: the first rank's, which checkpoints have
        (running statistics may differ between ranks)."""
        sample, before = self._samples.pop(source, None), self.profiles.get(source)
        super().complete(source, whole=whole, **info)
        profile = self.profiles.get(source)
        if sample is not None and profile is not None and profile is not before:
            with self.problems.caught("weights"):
                weights = sample.weights()
                profile.info |= {} if weights is None else {WEIGHTS: weights.to_json()}

    def stop(self) -> None:
        """Take the hooks off the model and forget unfinished passes; complete profiles stay."""
        self.recordings, self._samples = {}, {}
        if self.finder is not None:
            self.finder.settle()
        if self.taps is not None:
            self.taps.remove()
            self.taps = None
