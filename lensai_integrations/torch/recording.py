"""A pass over loaders: each batch is opened before the model sees it and closed after.

Images are measured in `open`, before the step can change them, and everything else in `close`, after the forward pass
and never in it; a batch that is opened and not closed counts nowhere. All of it runs without gradients and outside
inference mode: a sketch's buffers outlive the pass they were made in.

Every rank profiles its own share; `ranks.py` makes one profile of all. A distributed sampler repeats samples to give
every rank equally many; each rank knows how many of its own are repeats, and that they come last.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
        self._problems, self._taps, self._chosen = problems, taps, chosen
        self._strategy = strategy
        self.share: Share | None = None
        self._taken: Taken | None = None
        self._rows_of_a_batch: int | None = None
        self._has_listened = self._listens_aside = False
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
        self._taken = self.sample = None
        self._rows_of_a_batch = _batch_size_of(loader) if padding[1] else 0
        if self._chosen is not None:
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
        if model is not None and self.sample is None:
            with self._problems.caught("weights"):
                self.sample = SampledWeights(model)
        if self._is_passed_over(batch, index, device):
            return
        with self._spending():
            self._taken = self._recording.take(_own_parts(batch))
            if self._taken is None and self._chosen is not None:
                self._chosen.ended(profiled=False)
            if self._taken is not None and self._taps is not None:
                self._taps.open()
                self._has_listened = True
                if self._chosen is not None:
                    self._taps.around = self._chosen.spending

    def _is_passed_over(self, batch: Any, index: int, device: Any) -> bool:
        """Whether this is none of the batches that are profiled."""
        if self._chosen is None or not self._recording.started:
            return False
        if self._chosen.takes(index, lambda: clock_of(torch.device(device or "cpu"))):
            return False
        self._chosen.ended(profiled=False)
        rows = self._rows_of_a_batch
        self._recording.skip(_rows_in(batch) if rows is None else rows)
        if self._taken is not None:  # of a batch that was opened and never closed
            self._taken = None
            self._stop_listening()
        if self._taps is not None and not self._has_listened:
            self._taps.open()  # in the first batch, which may be traced to see what the layers' answers are
            self._has_listened = self._listens_aside = True
        return True

    def _stop_listening(self) -> None:
        if self._taps is not None:
            self._taps.close()
            self._taps.around = nullcontext

    def _spending(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._chosen is None else self._chosen.spending()

    def hint_labels(self, place: Place, head: str = "") -> None:
        """Tell that the loss was given what is at this place of the batch as the target of an output."""
        self._recording.hint_labels(place, head)

    def hint_images(self, places: Iterable[tuple[int | str, ...]]) -> None:
        """Tell which parts of a batch the model was seen to be fed."""
        self._recording.hint_images(places)

    def close(self) -> None:
        """After the step: hand everything of this batch to the profiler."""
        taken, self._taken = self._taken, None
        if taken is not None:
            with self._spending():
                self._recording.record(taken, self._taps.close if self._taps is not None else dict)
            if self._chosen is not None:
                self._chosen.ended(profiled=True)
                if self._taps is not None:
                    self._taps.around = nullcontext
        elif self._listens_aside:
            self._listens_aside = False
            self._stop_listening()

    def finish(self, **info: Any) -> Profile:
        """End the pass: its profile, in host memory. Waits for the accelerator, once.

        Args:
            info: JSON values for the profile's info.
        """
        if self._chosen is not None:
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
