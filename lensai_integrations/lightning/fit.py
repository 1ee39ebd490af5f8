"""One fit of a Lightning trainer: its passes, and the hooks on the model while there are any."""

from __future__ import annotations

from lensai_integrations.torch.finding import Finder
from lensai_integrations.torch.ranks import gathered
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.fit import Fit
from lensai_integrations.training.options import Options


class LightningFit(Fit[LoaderPass]):
    """The state of a callback from `setup` on.

    Args:
        options: What was asked for.
        rank: Which process this is.
        world_size: Of how many.

    Attributes:
        taps: Hooks on the model, while there are any.
        finder: Decides where these are, while there are any; the last one afterwards.
    """

    def __init__(self, options: Options, rank: int, world_size: int) -> None:
        super().__init__(options, rank=rank, gather=lambda profile, problems: gathered(profile, world_size, problems))
        self.taps: Taps | None = None
        self.finder: Finder | None = None

    def record(self, source: str, *, everything: bool) -> None:
        """Record the passes of a source.

        Args:
            source: `"validation"`, `"training"` or `"test"`.
            everything: Layers too, not only what the model is fed.
        """
        layers = [] if self.taps is None else self.taps.layers
        taps, known = (self.taps, []) if everything else (None, layers)
        self.recordings[source] = LoaderPass(source, self.prepare(source), taps, self.problems, known)

    def stop(self) -> None:
        """Take the hooks off the model and forget unfinished passes; complete profiles stay."""
        self.recordings = {}
        if self.finder is not None:
            self.finder.settle()
        if self.taps is not None:
            self.taps.remove()
            self.taps = None
