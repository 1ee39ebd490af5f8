"""A pass over loaders: each batch is opened before the model sees it and closed after.

Images are measured in `open`, before the step can change them, and everything else in `close`, after the forward pass
and never in it; a batch that is opened and not closed counts nowhere. All of it runs without gradients and outside
inference mode: a sketch's buffers outlive the pass they were made in.

Every rank profiles its own share; `ranks.py` makes one profile of all. A distributed sampler repeats samples to give
every rank equally many; each rank knows how many of its own are repeats, and that they come last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from lensai_integrations.arrays.sharded import is_shared, own_rows
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.coverage import BATCHES
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.batch_reading import Reader, Taken
from lensai_integrations.profiling.labels import Place
from lensai_integrations.torch.clock import clock_of
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.torch.ranks import Share, sampler_of, share_of
from lensai_integrations.torch.taps import Taps, tensors_of
from lensai_integrations.training.chosen import ChosenBatches
from lensai_integrations.training.recording import Listened, Measurer, Recording, one_blas_thread


def padding_of(loader: Any) -> tuple[int, int]:
    """How many rows of this rank's share of a loader are its own, and how many repeat others' at the end.

    Example:
        >>> sampler = torch.utils.data.DistributedSampler(range(251), num_replicas=2, rank=1, shuffle=False)
        >>> padding_of(torch.utils.data.DataLoader(range(251), sampler=sampler))
        (125, 1)
    """
    sampler = sampler_of(loader)
    if sampler is None:
        return 0, 0
    rows = -((sampler.rank - len(sampler.dataset)) // sampler.num_replicas)  # type: ignore[arg-type]
    rows = min(max(rows, 0), len(sampler))
    return rows, len(sampler) - rows


_WHY_SILENT = (
    "it is not part of the forward pass, or the model was compiled and called before fit; then call"
    " torch.compiler.reset() before fit; or a CUDA graph is replayed in its place, which calls no layer"
)


class LoaderPass:
    """Profiles one kind of pass over loaders.

    Args:
        source: What is profiled: `"validation"`, `"training"`, `"test"`.
        prepare: Given the first pass's loader, makes the reader of its batches and what measures them.
        taps: The layers that are read along, or None.
        problems: Where it is reported what could not be profiled.
        known: Outputs that are not recorded here, of which it is known what their labels mean.
        strategy: A trainer's; see `share_of`.
        chosen: Which batches are profiled; None for all.

    Attributes:
        sample: The weights that the pass is made with, once its first batch was opened with the model.
        share: Which share of the data this rank is fed, if that is known.
    """

    def __init__(
        self,
        source: str,
        prepare: Callable[[Any], tuple[Reader, Measurer]],
        taps: Taps | None,
        problems: Problems,
        known: Sequence[Listened] = (),
        strategy: Any = None,
        chosen: ChosenBatches | None = None,
    ) -> None:
        layers = [] if taps is None else taps.layers
        self._recording = Recording(source, prepare, layers, problems, aside=aside, why_silent=self._why, known=known)
        self._problems, self._taps, self._strategy = problems, taps, strategy
        self._chosen = ChosenBatches() if chosen is None else chosen
        self.share: Share | None = None
        self._taken: Taken | None = None
        self._batch_size: int | None = None
        self._repeats = self._listens = self._has_listened = False
        self.sample: SampledWeights | None = None

    def _why(self, layer: Listened) -> str:
        """Why a layer never answered."""
        return (self._taps.why_silent(layer.key) if self._taps is not None else "") or _WHY_SILENT

    @property
    def has_layers(self) -> bool:
        """Whether layers are read along."""
        return self._taps is not None

    @property
    def started(self) -> bool:
        """Whether a pass has begun and not ended."""
        return self._recording.started

    def start(self, loader: Any, epoch: int = 0) -> None:
        """Begin a pass over the loader, forgetting what there was.

        Args:
            loader: What the batches come from.
            epoch: Its number, by which other batches are chosen where not all are profiled.
        """
        padding = padding_of(loader)
        self._recording.start(loader, padding)
        self.share = share_of(loader, self._strategy)
        self._forget()
        self.sample = None
        self._repeats, self._batch_size = padding[1] > 0, _batch_size_of(loader)
        self._chosen.begin(epoch)

    def open(self, batch: Any, model: nn.Module | None = None, *, index: int = 0, device: Any = None) -> None:
        """Before the step: measure images, take copies of labels, and listen to the layers.

        Where not all batches are profiled, the others are let pass: nothing is read of them and nothing copied.

        Args:
            batch: What the model is about to be given.
            model: Whose weights the pass is made with, if they do not change in it: they are sampled at the first
                batch, as by then all who swap them have done so.
            index: Number of the batch in its epoch.
            device: Where the model is trained; the host if it is not said.
        """
        if not self.started:
            return
        if model is not None and self.sample is None:
            with self._problems.caught("weights"):
                self.sample = SampledWeights(model)
        self._forget()
        if not self._chosen.takes(index, lambda: clock_of(torch.device(device or "cpu"))):
            self._pass_over(batch)
            return
        try:
            with self._chosen.spending():
                self._taken = self._recording.take(_own_parts(batch))
                if self._taken is not None:
                    self._listen()
        finally:
            if self._taken is None:
                self._chosen.ended(profiled=False)

    def _pass_over(self, batch: Any) -> None:
        """Let a batch go by that is none of those that are profiled."""
        self._chosen.ended(profiled=False)
        if self._repeats:
            self._recording.skip(_rows_in(batch) if self._batch_size is None else self._batch_size)
        if not self._has_listened:
            self._listen()  # to the first batch, which may be traced to see what the layers' answers are

    def _listen(self) -> None:
        """From here on the layers are read along, if any are."""
        if self._taps is not None:
            self._taps.open()
            self._taps.around = self._chosen.spending
            self._has_listened = self._listens = True

    def _heard(self) -> Mapping[str, Any]:
        """What the layers answered, which are read along no longer."""
        if self._taps is None or not self._listens:
            return {}
        self._listens, self._taps.around = False, nullcontext
        return self._taps.close()

    def _forget(self) -> None:
        """Drop what there is of a batch that was opened and never closed."""
        self._taken = None
        if self._taps is not None and self._listens:
            self._listens, self._taps.around = False, nullcontext
            self._taps.rest()

    def hint_labels(self, place: Place, head: str = "") -> None:
        """Tell that the loss was given what is at this place of the batch as the target of an output."""
        self._recording.hint_labels(place, head)

    def hint_images(self, places: Iterable[tuple[int | str, ...]]) -> None:
        """Tell which parts of a batch the model was seen to be fed."""
        self._recording.hint_images(places)

    def close(self) -> None:
        """After the step: hand everything of this batch to the profiler."""
        taken, self._taken = self._taken, None
        if taken is None:
            self._heard()  # of a batch that was traced and is not profiled
            return
        recorded = False
        try:
            with self._chosen.spending():
                self._recording.record(taken, self._heard)
            recorded = True
        finally:
            self._chosen.ended(profiled=recorded)

    def finish(self, **info: Any) -> Profile:
        """End the pass: its profile, in host memory. Waits for the accelerator, once.

        Args:
            info: JSON values for the profile's info.
        """
        if self._chosen.thins:
            info[BATCHES] = self._chosen.counts()
            if complaint := self._chosen.complaint():
                self._problems.note("cost", complaint)
        return self._recording.finish(**info)


def _own_parts(batch: Any) -> Any:
    """A batch whose tensors are this process's alone."""
    if "torch.distributed.tensor" not in sys.modules or not any(map(is_shared, tree_leaves(batch))):
        return batch
    return tree_map(own_rows, batch)


def _batch_size_of(loader: Any) -> int | None:
    """How many rows a loader's batches have, but for the last; None if it does not say."""
    sizes = (getattr(owner, "batch_size", None) for owner in (loader, getattr(loader, "batch_sampler", None)))
    return next((size for size in sizes if isinstance(size, int)), None)


def _rows_in(batch: Any) -> int:
    """How many rows a batch has, as far as its first tensor tells."""
    tensors = tensors_of(batch)
    return len(tensors[0]) if tensors else 0


@contextmanager
def aside() -> Iterator[None]:
    """Apart from the training: without gradients, outside inference mode, and off its threads' cores."""
    with torch.inference_mode(False), torch.no_grad(), one_blas_thread():
        yield
