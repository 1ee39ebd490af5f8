"""A pass over loaders: each batch is opened before the model sees it and closed after; of all ranks, one profile.

Images are measured in `open`, before the step can change them, and everything else in `close`, after the forward pass
and never in it; a batch that is opened and not closed counts nowhere. All of it runs without gradients and outside
inference mode: a sketch's buffers outlive the pass they were made in.

Every rank profiles its own share. At the end of a pass the profiles are gathered as bytes and merged on the first rank,
before checkpoints are written there. A distributed sampler repeats samples to give every rank equally many; each rank
knows how many of its own are repeats, and that they come last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data.distributed import DistributedSampler

from lensai_integrations.errors import LensAIError
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Profile, from_bytes, to_bytes
from lensai_integrations.profiling.batch_reading import Reader, Taken
from lensai_integrations.profiling.labels import Place
from lensai_integrations.torch.layers import SampledWeights
from lensai_integrations.torch.taps import Taps
from lensai_integrations.training.recording import Listened, Measurer, Recording, one_blas_thread


def padding_of(loader: Any) -> tuple[int, int]:
    """How many rows of this rank's share of a loader are its own, and how many repeat others' at the end.

    Example:
        >>> sampler = DistributedSampler(range(251), num_replicas=2, rank=1, shuffle=False)
        >>> padding_of(torch.utils.data.DataLoader(range(251), sampler=sampler))
        (125, 1)
    """
    for owner in (loader, getattr(loader, "batch_sampler", None)):
        sampler = getattr(owner, "sampler", None)
        if isinstance(sampler, DistributedSampler):
            rows = -((sampler.rank - len(sampler.dataset)) // sampler.num_replicas)  # type: ignore[arg-type]
            rows = min(max(rows, 0), len(sampler))
            return rows, len(sampler) - rows
    return 0, 0


def gathered(profile: Profile | None, world_size: int, problems: Problems) -> Profile | None:
    """All ranks' profiles of one pass, merged; on the first rank only, None on the others.

    A collective: every rank has to call it, also with nothing to give.

    Args:
        profile: This rank's, or None if it could not be made.
        world_size: Number of ranks; with 1 the profile is returned as it is.
        problems: Where it is reported if a rank's profile is missing.
    """
    if world_size == 1:
        return profile
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        problems.note("ranks", "the processes are not connected by torch.distributed: each counts for itself")
        return profile
    blob = b""
    with problems.caught("ranks"):
        blob = to_bytes(profile) if profile is not None else b""
    blobs: list[Any] = [b""] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(blobs, blob)
    if torch.distributed.get_rank() != 0:
        return None
    return merged(blobs, problems)


def merged(blobs: list[bytes], problems: Problems) -> Profile | None:
    """The profiles in these byte strings as one; what cannot be merged is left out and reported."""
    result: Profile | None = None
    left_out = 0
    for rank, blob in enumerate(blobs):
        if not blob:
            problems.note("ranks", f"the rows of rank {rank} are missing: it has no profile")
            continue
        try:
            profile = from_bytes(blob)
            assert isinstance(profile, Profile)
            left_out += int(profile.info.get("padding_left_out", 0))
            result = profile if result is None else result.merge(profile)
        except LensAIError as error:
            problems.note("ranks", f"the rows of rank {rank} are missing: {error}")
    if result is not None:
        result.info |= {"ranks": len(blobs), "padding_left_out": left_out}
    return result


_WHY_SILENT = (
    "it is not part of the forward pass, or the model was compiled and called before fit; then call"
    " torch.compiler.reset() before fit"
)


class LoaderPass:
    """Profiles one kind of pass over loaders.

    Args:
        source: What is profiled: `"validation"`, `"training"`, `"test"`.
        prepare: Given the first pass's loader, makes the reader of its batches and what measures them.
        taps: The layers that are read along, or None.
        problems: Where it is reported what could not be profiled.
        known: Outputs that are not recorded here, of which it is known what their labels mean.

    Attributes:
        sample: The weights that the pass is made with, once its first batch was opened with the model.
    """

    def __init__(
        self,
        source: str,
        prepare: Callable[[Any], tuple[Reader, Measurer]],
        taps: Taps | None,
        problems: Problems,
        known: Sequence[Listened] = (),
    ) -> None:
        layers = [] if taps is None else taps.layers
        self._recording = Recording(source, prepare, layers, problems, aside=aside, why_silent=_WHY_SILENT, known=known)
        self._problems, self._taps = problems, taps
        self._taken: Taken | None = None
        self.sample: SampledWeights | None = None

    @property
    def has_layers(self) -> bool:
        """Whether layers are read along."""
        return self._taps is not None

    @property
    def started(self) -> bool:
        """Whether a pass has begun and not ended."""
        return self._recording.started

    def start(self, loader: Any) -> None:
        """Begin a pass over the loader, forgetting what there was."""
        self._recording.start(loader, padding_of(loader))
        self._taken = self.sample = None

    def open(self, batch: Any, model: nn.Module | None = None) -> None:
        """Before the step: measure images, take copies of labels, and listen to the layers.

        Args:
            batch: What the model is about to be given.
            model: Whose weights the pass is made with, if they do not change in it: they are sampled at the first
                batch, as by then all who swap them have done so.
        """
        if model is not None and self.sample is None:
            with self._problems.caught("weights"):
                self.sample = SampledWeights(model)
        self._taken = self._recording.take(batch)
        if self._taken is not None and self._taps is not None:
            self._taps.open()

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
            self._recording.record(taken, self._taps.close if self._taps is not None else dict)

    def finish(self, **info: Any) -> Profile:
        """End the pass: its profile, in host memory. Waits for the accelerator, once.

        Args:
            info: JSON values for the profile's info.
        """
        return self._recording.finish(**info)


@contextmanager
def aside() -> Iterator[None]:
    """Apart from the training: without gradients, outside inference mode, and off its threads' cores."""
    with torch.inference_mode(False), torch.no_grad(), one_blas_thread():
        yield
