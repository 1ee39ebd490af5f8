"""A callback's recording of training steps, without a trainer's loop around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lensai_integrations import ImageInputs, Profiler
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.profiling.batch_reading import BatchReader
from lensai_integrations.torch.finding import attach
from lensai_integrations.torch.recording import LoaderPass
from lensai_integrations.training.options import Reading


class Recorded:
    """Images, labels, outputs and layers of the steps between `open` and `close`.

    Args:
        model: Its last Linear is what it answers.
        reader: How batches `(images, labels)` are read.
        layers: Of the model, that are read; None for images and labels alone.
        conventions: What images are measured by.
        rows: That the joint sample keeps.

    Attributes:
        problems: What could not be recorded.
        profiler: What the batches go to.
    """

    def __init__(
        self,
        model: nn.Module,
        reader: ImageInputs,
        layers: Sequence[str] | None = ("avgpool",),
        *,
        conventions: Sequence[str] = ("lensai",),
        rows: int = 2000,
    ) -> None:
        self.problems = Problems(quiet=True)
        self._taps = attach(model, Reading(layers=list(layers)), self.problems) if layers is not None else None
        self.profiler = Profiler(
            inputs=reader, task="logits", seed=[1], rows=rows, convention=conventions, on_error=self.problems.note
        )
        batches = BatchReader(reader, 1, self.problems)
        self._recording = LoaderPass("training", lambda _: (batches, self.profiler), self._taps, self.problems)
        self.begin()

    def begin(self) -> None:
        """Begin a pass: sketches start from nothing, and buffers of before may be used again."""
        self._recording.start(None)

    def open(self, images: Tensor, labels: Tensor) -> None:
        """Before a step."""
        self._recording.open((images, labels))

    def close(self) -> None:
        """After it."""
        self._recording.close()

    def finish(self) -> Profile:
        """End the pass. Waits for the device."""
        return self._recording.finish()

    def remove(self) -> None:
        """Take the hooks off the model."""
        if self._taps is not None:
            self._taps.remove()


class Answers(nn.Module):
    """A model with the layer and the outputs of a ResNet in bfloat16, which takes next to no time."""

    def __init__(self, width: int, classes: int, device: Any) -> None:
        super().__init__()
        self.width = width
        self.avgpool = nn.Identity()
        self.fc = nn.Linear(width, classes, dtype=torch.bfloat16, device=device)

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `[n, classes]`."""
        maps = torch.zeros(images.shape[0], self.width, 1, 1, dtype=torch.bfloat16, device=images.device)
        scores: Tensor = self.fc(self.avgpool(maps).flatten(1))
        return scores
