"""How what a layer answered in several calls of a model becomes the rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: What calls are of each other: the batch whole, in parts, whole again and again, or what is not known.
WHOLE, PARTS, VIEWS, UNKNOWN = "whole", "parts", "views", "unknown"
#: What is made of the answers of several views.
MEAN, MEAN_OF_SOFTMAX = "mean", "mean of softmax"


@dataclass(frozen=True)
class Calls:
    """How the calls of a layer in a batch make up its rows.

    Attributes:
        way: `WHOLE`, `PARTS`, `VIEWS` or `UNKNOWN`.
        picked: Which of the calls count.
        total: Of how many.
        merged: What is made of them; "" if of several views one is read.
        crops: How many views of each image one call has.
        stacked: Whether they come one after the other, each of all images, and not image by image.
    """

    way: str = WHOLE
    picked: tuple[int, ...] = (0,)
    total: int = 1
    merged: str = ""
    crops: int = 1
    stacked: bool = False

    def rows(self, answers: Sequence[Any]) -> Tensor | None:
        """The rows of a batch, of what a layer answered in its calls; None if they are not known.

        Example:
            >>> Calls(PARTS, (0, 1), 2).rows([torch.zeros(2, 3), torch.ones(1, 3)]).shape
            torch.Size([3, 3])
        """
        if self.way == UNKNOWN:
            return None
        if self.way == PARTS:
            skipped = self.total - len(self.picked)  # calls with other things, before the batch
            return torch.cat([torch.as_tensor(each) for each in answers[skipped:]]) if len(answers) > skipped else None
        if len(answers) != self.total:
            return None
        picked = [answers[i] for i in self.picked]
        if self.crops > 1:
            picked = self.views_in(picked[0])
        return merged_rows(self.merged, picked) if self.merged else picked[0]

    def views_in(self, rows: Any) -> list[Tensor]:
        """Of the rows of one call, those of the first view of each image, of the second, and so on.

        Example:
            >>> [view.tolist() for view in Calls(crops=2).views_in([1, 2, 3, 4])]
            [[1, 3], [2, 4]]
        """
        rows = torch.as_tensor(rows)
        shape = (self.crops, -1) if self.stacked else (-1, self.crops)
        if len(rows) % self.crops:
            return []
        return list(rows.reshape(*shape, *rows.shape[1:]).unbind(0 if self.stacked else 1))


def merged_rows(way: str, answers: Sequence[Any]) -> Tensor:
    """The mean of the answers for several views of the same images, or of their softmax."""
    answers = [torch.as_tensor(each) for each in answers]
    same = [each.softmax(1) if way == MEAN_OF_SOFTMAX else each for each in answers]
    return torch.stack(same).mean(0)


class MemorySpan(NamedTuple):
    """Where in memory what a call was given lies: of which block, from which byte to which, and where that ends."""

    block: int
    start: int
    stop: int
    end: int


def span_of(tensor: Tensor | None) -> MemorySpan | None:
    """Where a tensor lies; None if its numbers are not one after the other.

    Example:
        >>> halves = [span_of(half) for half in torch.zeros(4, 3).chunk(2)]
        >>> are_consecutive(halves), are_consecutive(halves[:1]), are_consecutive(halves[::-1])
        (True, False, False)
    """
    if tensor is None or not tensor.is_contiguous():
        return None
    storage, size = tensor.untyped_storage(), tensor.element_size()
    start = int(tensor.storage_offset()) * size
    return MemorySpan(storage.data_ptr(), start, start + int(tensor.numel()) * size, storage.nbytes())


def are_consecutive(spans: Sequence[MemorySpan | None]) -> bool:
    """Whether they are the parts of one block of memory, in order and without a gap."""
    known = [span for span in spans if span is not None]
    if not known or len(known) < len(spans) or len({span.block for span in known}) > 1:
        return False
    edges = [0, *(span.stop for span in known)]
    return edges[:-1] == [span.start for span in known] and edges[-1] == known[0].end
