"""What losses show of the heads of a model's answer.

A head that a loss holds against labels is an output. One whose rows are compared with one another, or that further
layers take before labels come in, is an embedding. What is held against the images, against nothing of the batch, or
against nothing that can be seen, is doubtful, and it is said why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from lensai_integrations.measures.meaning import SIGMOID, SOFTMAX, UNSEEN
from lensai_integrations.torch.trace import (
    COMPARISONS,
    DIFFERENCES,
    GATHERS,
    LARGEST,
    PRODUCTS,
    ROWS_MOVED,
    SIGMOIDS,
    SOFTMAXES,
    Call,
    Loss,
    Trace,
)


@dataclass(frozen=True)
class Head:
    """One part of what a model returned.

    Attributes:
        name: Its key, field or index; "" if it is the whole answer.
        root: The call that returned it.
        node: Its number in the trace.
        shape: Its shape.
        layers: The numbers of the nearest operations with parameters that made it.
        paths: The layers that these are in.
        giver: The innermost call that returned it as it is.
    """

    name: str
    root: Call
    node: int
    shape: tuple[int, ...]
    layers: tuple[int, ...]
    paths: frozenset[str]
    giver: Call

    @property
    def returned(self) -> str:
        """What it is a part of, in words."""
        return f"what {self.root.forward} returned"


class Losses:
    """What the losses of one batch, or of two, do with heads.

    Args:
        model: The traced model.
        traces: Of evaluation and of training, or one of them.
    """

    def __init__(self, model: nn.Module, traces: list[Trace]) -> None:
        self.model, self.traces = model, traces

    def held_against_labels(self, head: Head) -> tuple[Trace, Loss] | None:
        """The loss that holds a head against something of the batch that is not its images."""
        for trace, loss in self._direct(head):
            if self._target_leaves(trace, loss) - self._images(trace, head):
                return trace, loss
        for trace, loss in self._direct(head):  # labels that came as texts or numbers
            if trace.texts_in_batch and loss.target is not None and not trace.leaves(loss.target):
                return trace, loss
        return None

    def place_of_labels(self, head: Head) -> tuple[int | str, ...] | None:
        """Where in the batch the labels are that a head is held against; None if that is not one place."""
        held_by = self.held_against_labels(head)
        if held_by is None:
            return None
        trace, loss = held_by
        places = {trace.nodes[leaf].place for leaf in self._target_leaves(trace, loss) - self._images(trace, head)}
        return places.pop() if len(places) == 1 else None

    def info(self, head: Head) -> dict[str, str]:
        """What the loss does with a head, for `describe`; nothing if no training batch was seen, which may show it."""
        held_by = self.held_against_labels(head)
        if held_by is not None:
            return {"loss": held_by[1].name}
        if meaning := self._by_hand(head):
            return {"loss": meaning}
        return {"loss": UNSEEN} if any(trace.ends for trace in self.traces) else {}

    def is_scored_by_hand(self, head: Head) -> bool:
        """Whether a loss written by hand makes probabilities of a head and needs labels."""
        if self._by_hand(head, largest=False) == "":
            return False
        return all(self._uses_labels(trace, head) for trace in self.traces if trace.ends)

    def is_compared(self, head: Head) -> bool:
        """Whether rows of a head are compared with one another, or with those of another network."""
        return any(self._compares(trace, node, head) for trace in self.traces for node in range(len(trace.nodes)))

    def is_before_the_loss(self, head: Head) -> bool:
        """Whether labels meet what further layers make of a head."""
        for trace in self.traces:
            for loss in trace.losses:
                if self._target_leaves(trace, loss) - self._images(trace, head) and self._is_below(
                    trace, loss.answer, head
                ):
                    return True
            by_hand = trace.ancestors(*trace.ends) if trace.ends and self._uses_labels(trace, head) else []
            if any(
                trace.nodes[number].name in SIGMOIDS | SOFTMAXES
                and not trace.nodes[number].layer
                and not self._takes_head(trace, number, head)
                and self._is_below(trace, number, head)
                for number in by_hand
            ):
                return True
        return False

    def is_reconstruction(self, head: Head) -> bool:
        """Whether a loss holds a head against the images themselves."""
        for trace, loss in self._direct(head):
            leaves = self._target_leaves(trace, loss)
            if leaves and leaves <= self._images(trace, head):
                return True
        return False

    def doubt(self, head: Head) -> str:
        """What speaks against calling a head an output that is neither held against labels nor compared; or nothing."""
        what = head.returned
        for trace, loss in self._direct(head):
            layers = trace.layers_behind(loss.target) if loss.target is not None else [0]
            if not self._target_leaves(trace, loss) and not layers and not trace.texts_in_batch and trace.ends:
                return f"the loss holds {what} against nothing of the batch, as a discriminator's does"
        training = next((trace for trace in self.traces if trace.ends), None)
        if training is not None and not self._uses_labels(training, head):
            return (
                f"the training loss uses nothing of the batch but the images, so {what} may be an embedding, a"
                " reconstruction or a score"
            )
        trace = self.traces[0]
        sizes = {math.prod(trace.nodes[leaf].shape[1:]) for leaf in self._images(trace, head)}
        if math.prod(head.shape[1:]) in sizes and math.prod(head.shape[1:]) > 1:
            return f"{what} has as many numbers as an image, as an autoencoder's answer does"
        return ""

    # From which operations that is seen.

    def _direct(self, head: Head) -> Iterator[tuple[Trace, Loss]]:
        """The losses that take a head with nothing but operations without parameters between; of training first."""
        for trace in reversed(self.traces):
            for loss in trace.losses:
                steps = trace.steps_behind(loss.answer)
                if self._paths(trace, [step for step in steps if trace.nodes[step].layer]) & head.paths and not any(
                    self._compares(trace, step, head) for step in steps
                ):
                    yield trace, loss

    def _by_hand(self, head: Head, *, largest: bool = True) -> str:
        """What the steps show of a head that no known loss takes: whether its columns are labels or classes.

        What the gradients depend on counts before what else is computed, of which metrics are made.
        """
        for trace in reversed(self.traces):
            nodes = trace.ancestors(*trace.ends) if trace.ends else range(len(trace.nodes))
            names = {self._use(trace, node, head) for node in nodes} - {""}
            if names:
                return names.pop() if len(names) == 1 else ""
        if largest and any(self._picks_largest(trace, head) for trace in self.traces):
            return SOFTMAX
        return ""

    def _use(self, trace: Trace, number: int, head: Head) -> str:
        """What an operation takes a head for."""
        node = trace.nodes[number]
        if node.layer or node.name not in SIGMOIDS | SOFTMAXES | GATHERS or not self._takes_head(trace, number, head):
            return ""
        if node.name in SIGMOIDS:
            return SIGMOID
        return SOFTMAX if node.name in SOFTMAXES or self._picks_by_labels(trace, number, head) else ""

    def _takes_head(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether a head goes into an operation with nothing but operations on each row for itself between."""
        steps = trace.steps_behind(*trace.nodes[number].parents)
        if not self._paths(trace, [step for step in steps if trace.nodes[step].layer]) & head.paths:
            return False
        return not any(self._compares(trace, step, head) for step in steps)

    def _picks_by_labels(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether labels say which of a row's columns are taken."""
        node = trace.nodes[number]
        if node.name == "__getitem__" and len(node.shape) > 1:  # rows
            return False
        indices = [parent for parent in node.parents if not trace.layers_behind(parent)]
        return bool(indices) and (trace.texts_in_batch or bool(trace.leaves(*indices) - self._images(trace, head)))

    def _picks_largest(self, trace: Trace, head: Head) -> bool:
        return any(
            node.name in LARGEST and not node.layer and self._takes_head(trace, number, head)
            for number, node in enumerate(trace.nodes)
        )

    def _compares(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether an operation compares rows of a head with one another, or with those of another network."""
        node = trace.nodes[number]
        if node.layer or node.name not in COMPARISONS | PRODUCTS | DIFFERENCES:
            return False
        sides = [self._paths(trace, trace.layers_behind(parent)) for parent in node.parents]
        if node.name in COMPARISONS and node.name.endswith("_loss"):  # whose last argument tells which belong together
            sides = list(filter(None, sides))
        # Row by row another network's answer may be a target (distillation), all with all it is something like them.
        enough = any if node.name in PRODUCTS | {"cdist"} else all
        if not (sides and all(sides) and enough(side & head.paths for side in sides)):
            return False
        return node.name not in DIFFERENCES or self._are_rows(trace, node.parents, head)

    def _are_rows(self, trace: Trace, numbers: tuple[int, ...], head: Head) -> bool:
        """Whether two tensors are rows as wide as a head, and not the same rows twice."""
        if len(numbers) != 2:
            return False
        width = math.prod(head.shape[1:])
        for number in numbers:
            shape = trace.nodes[number].shape
            if width < 2 or len(shape) < 2 or shape[-1] != width or math.prod(shape) <= width:
                return False
        first, second = ({*trace.steps_behind(number)} for number in numbers)
        moved = any(trace.nodes[step].name in ROWS_MOVED for step in first ^ second)
        return moved or not (numbers[0] in second or numbers[1] in first)

    def _is_below(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether a tensor is made of a head."""
        layers = [node for node in trace.ancestors(number) if trace.nodes[node].layer]
        return self._paths(trace, layers) >= head.paths

    def _uses_labels(self, trace: Trace, head: Head) -> bool:
        """Whether the gradients depend on more of the batch than the images; yes, where that cannot be seen."""
        reached = trace.leaves(*trace.ends)
        labels = trace.all_leaves() - self._images(trace, head)
        return trace.texts_in_batch or not reached or bool(reached & labels)

    def _images(self, trace: Trace, head: Head) -> set[int]:
        """The batch's tensors that a head is made of, images first of all."""
        calls = [call for call in trace.calls if call.path in head.paths and call.module is not self.model]
        calls = calls or [call for call in trace.calls if call.parent == -1]
        leaves = {leaf for call in calls for leaf in trace.leaves(*call.inputs)}
        images = {leaf for leaf in leaves if len(trace.nodes[leaf].shape) >= 3} or leaves
        shapes = {shape for leaf in images if len(shape := trace.nodes[leaf].shape) >= 3}
        return images | {leaf for leaf in trace.all_leaves() if trace.nodes[leaf].shape in shapes}  # views of them

    def _paths(self, trace: Trace, nodes: list[int]) -> set[str]:
        return {trace.calls[call].path for node in nodes if (call := trace.nodes[node].call) >= 0}

    def _target_leaves(self, trace: Trace, loss: Loss) -> set[int]:
        return trace.leaves(loss.target, near=True) if loss.target is not None else set()
