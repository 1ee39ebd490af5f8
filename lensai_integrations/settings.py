"""What all recorders of a profiler share: what was asked for, and what the first batches decided."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lensai_integrations.conventions import chosen_conventions, image_groups, kept_apart, reader_of, with_conventions
from lensai_integrations.custom_recorder import chosen_measures
from lensai_integrations.group import Sketch
from lensai_integrations.measures.custom import CustomMeasure
from lensai_integrations.measures.inputs import ImageInputs
from lensai_integrations.measures.outputs import Kind, Task
from lensai_integrations.profile import Profile
from lensai_integrations.sketches.bank import KLLBank
from lensai_integrations.sketches.kernel_mean import KernelMean
from lensai_integrations.sketches.moments import Moments

#: Wider embeddings keep variances and no covariance matrix: 1024 columns are 8 MB.
MAX_COVARIANCE_DIM = 1024

#: What a profile says of a layer and how its output was reduced.
_TAKEN_OVER = ("layer", "reduce", "axes", "channels_last")


class Settings:
    """What all recorders of a profiler share, and what the first batches decided.

    Args:
        seed: Integers all seeds are derived from.
        inputs: How to read image batches.
        convention: Convention or conventions of the image measures; None for the first of `like`, else `"lensai"`.
        task: What the outputs are for.
        k: Size of the KLL sketches.
        max_dim: Wider embeddings are projected to this width.
        like: A profile whose ways of reading and sketching are taken over.
        measures: Custom measures of images; None for those of `like`.

    Attributes:
        like: That profile, its groups of images called as here.
        image_groups: The convention of each group of images by the group's name.
        missing: Ids of custom measures of `like` that this process has not declared.
        on_custom_failure: Told a stream's name and the error when a custom measure fails for the first time.
        on_note: Told what a reader of the profile should know, a sentence once.
        notes: These sentences, by group.

    Raises:
        InputError: If a convention is unknown, or `like` was not measured by it.

    Example:
        >>> Settings(seed=[1], convention=("lensai", "lensai-edge")).image_groups
        {'inputs': 'lensai', 'inputs/lensai-edge': 'lensai-edge'}
    """

    def __init__(
        self,
        *,
        seed: Sequence[int],
        inputs: ImageInputs | None = None,
        convention: str | Sequence[str] | None = None,
        task: Task | Kind = "auto",
        k: int = 200,
        max_dim: int = 2048,
        like: Profile | None = None,
        measures: Sequence[CustomMeasure] | None = None,
    ) -> None:
        self.inputs, self.task, self.k, self.max_dim = inputs or ImageInputs(), task, k, max_dim
        conventions = chosen_conventions(convention, like)
        self.image_groups = image_groups(conventions)
        self.seed, self.like = list(seed), with_conventions(like, conventions) if like is not None else None
        self.descriptions: dict[str, dict[str, Any]] = {}
        self.resolved_inputs: ImageInputs | None = None
        self.resolved_kind: Kind | None = None
        self.measures, self.missing = chosen_measures(measures, like)
        self.on_custom_failure: Callable[[str, Exception], None] = lambda stream, error: None
        self.on_note: Callable[[str], None] = lambda note: None
        self.notes: dict[str, list[str]] = {}
        if like is not None:
            self._take_over(like)

    def _take_over(self, like: Profile) -> None:
        reader, outputs = reader_of(like), like.groups.get("outputs")
        if reader is not None and self.inputs == ImageInputs():
            self.inputs = reader
        if outputs is not None and self.task == "auto" and not kept_apart(outputs):
            self.task = outputs.info["kind"]
        apart = [each.bank for group in like.groups.values() if kept_apart(group) for each in group.apart.values()]
        self.k = max((bank.k for bank in apart if bank is not None), default=self.k)

    def note(self, group: str, note: str) -> None:
        """Keep a sentence about a group, and tell it once, unless the profile to be alike says the same."""
        known = self.notes.setdefault(group, [])
        if note not in known and (self.like is None or note not in self.like.warnings):
            known.append(note)
            self.on_note(note)

    def described(self, group: str) -> dict[str, Any]:
        """What is known of a group beforehand: what was said of it, else what the profile to be alike says."""
        known = self.like.groups.get(group) if self.like is not None else None
        taken_over = {key: known.info[key] for key in _TAKEN_OVER if key in known.info} if known else {}
        return taken_over | self.descriptions.get(group, {})

    def max_dim_of(self, group: str) -> int:
        """Wider embeddings of this group are projected to this width."""
        known = self.like.groups.get(group) if self.like is not None else None
        return int(known.info.get("width", self.max_dim)) if known is not None else self.max_dim

    def output_task(self, group: str, columns: int) -> Task | Kind:
        """What the outputs are for. What a linear layer answers for classes are logits, even if all lie in [0, 1]."""
        classes = self.task == "classification" or (self.task == "auto" and columns > 1)
        return "logits" if classes and self.described(group).get("linear", False) else self.task

    def seed_of(self, name: str) -> int:
        """A seed for one sketch: the same in every run, different for every sketch."""
        return int(np.random.SeedSequence([*self.seed, zlib.crc32(name.encode())]).generate_state(1)[0])

    def vectors(self, name: str, dim: int) -> dict[str, Sketch]:
        """The sketches of rows that are looked at as vectors."""
        known = self.like.groups.get(name) if self.like is not None else None
        exponents = known.kernel_mean.exponents if known is not None and known.kernel_mean is not None else None
        return {
            "bank": KLLBank(dim, self.k, seed=self.seed_of(name)),
            "kernel_mean": KernelMean(dim, exponents=exponents),
            "moments": Moments(dim, covariance=dim <= MAX_COVARIANCE_DIM),
        }
