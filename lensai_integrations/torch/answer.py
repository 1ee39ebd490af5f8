"""What a model answers, decided by what was seen of one batch, or of two.

The answer is what `forward` returns in evaluation: the LightningModule's, if somebody wrote one and the pass calls it,
else that of the modules that take the batch. Its heads are outputs, and what goes into the last layer before a head is
the embedding. A training batch beside it shows what the loss does with it: holds it against labels, compares rows with
one another, or has another layer in between; then the answer is no output. What is not clear is called nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor, nn

from lensai_integrations.measures.meaning import SIGMOID, SOFTMAX, UNSEEN
from lensai_integrations.torch.layers import Layer
from lensai_integrations.torch.taps import is_vector
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

#: Operations that leave a linear map a linear one.
_LINEAR_STEPS: Final = {
    "flatten", "squeeze", "unsqueeze", "view", "reshape", "__getitem__", "mean", "add", "sub", "mul", "div", "__add__",
    "__truediv__", "__mul__", "__rmul__", "__radd__", "float", "to", "permute", "transpose", "dropout", "__get__",
    "contiguous", "stack", "cat", "clone", "detach", "adaptive_avg_pool2d", "avg_pool2d", "alias",
}  # fmt: skip
_LINEAR_LAYERS: Final = {"linear", "conv1d", "conv2d", "conv3d", "addmm", "matmul", "mm", "__matmul__", "bilinear"}
_ACTIVATIONS: Final = {"softmax", "sigmoid"}
_NO_EMBEDDINGS: Final = "what goes into the last layer could not be found, so there are no embeddings"
#: Layers that a message names, at most.
_MOST_NAMED: Final = 6
_REPRESENTATION, _OUTPUT = "embedding", "output"


class UnclearError(Exception):
    """Says why nothing is called an output."""


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


@dataclass(frozen=True)
class Readout:
    """One thing to read.

    Attributes:
        layer: Where: a module's answer, or what goes into it.
        head: Which part of the module's answer; None for its first tensor.
        info: What the profile notes of it.
        rows: What it was in the traced batch; None if no copies were kept.
        axes: Of an embedding, how many axes it had before it was reduced.
        is_answer: Whether it is what the model returned.
    """

    layer: Layer
    head: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    rows: Tensor | None = None
    axes: int | None = None
    is_answer: bool = False


@dataclass
class Answer:
    """What was decided.

    Attributes:
        outputs: By the head's name.
        embeddings: By the layer's name.
        problems: What is not clear, in sentences.
        places: Where in a batch the labels of each output are, as far as losses show it; "" if all are in one.
    """

    outputs: dict[str, Readout] = field(default_factory=dict)
    embeddings: dict[str, Readout] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    places: dict[str, tuple[int | str, ...]] = field(default_factory=dict)

    def without_embeddings(self) -> list[str]:
        """What is not clear where embeddings are not wanted, or known otherwise."""
        return [each for each in self.problems if not each.startswith(_NO_EMBEDDINGS)]


#: What to do about it, for the layers that may be meant to be put in.
ADVICE: Final = "Pass outputs= and layers=[...], layers of the model by name{}; or None to read nothing"


def decide(model: nn.Module, traces: list[Trace], advice: str = ADVICE) -> Answer:
    """What a model answers.

    Args:
        model: The traced model.
        traces: The first shows the answer; all of them what losses do with it. Best: of evaluation, then of training.
        advice: What a message tells to do where the answer is not clear, with {} for layers to choose from.

    Example:
        >>> import torch
        >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), torch.zeros(2, 3, 2, 2)
        >>> trace = Trace(model, images)
        >>> trace.start()
        >>> answer = model(images)
        >>> trace.stop()
        >>> decide(model, [trace]).outputs[""].layer.path, list(decide(model, [trace]).embeddings)
        ('1', ['1.input'])
    """
    return _Decision(model, traces, advice).answer()


def loss_of(model: nn.Module, traces: list[Trace], layers: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the loss does with what layers answer, and how many columns that has, for `describe`.

    Args:
        model: The traced model.
        traces: Of evaluation and of training, or one of them.
        layers: Paths of layers by any keys.

    Returns:
        By key, of those that were called.
    """
    found: dict[str, dict[str, Any]] = {}
    for key, path in layers.items():
        calls = [call for call in traces[0].calls if call.path == path and call.outputs]
        decision = _Decision(model, traces, "")
        for call in calls[:1]:
            head = decision.head_at(call, call.outputs[0], "")
            found[key] = {"columns": math.prod(head.shape[1:]), **decision.loss(head)}
    return found


class _Decision:
    def __init__(self, model: nn.Module, traces: list[Trace], advised: str) -> None:
        self.model, self.traces, self.trace, self.advised = model, traces, traces[0], advised

    def answer(self) -> Answer:
        found = Answer()
        try:
            heads = self.heads()
            kinds = {head.name: self.kind(head, heads) for head in heads}
        except UnclearError as why:
            found.problems.append(f"{why}. {self.advice()}")
            return found
        outputs = [head for head in heads if kinds[head.name] == _OUTPUT]
        for head in outputs:
            found.outputs[head.name if len(outputs) > 1 else ""] = self.output(head)
        found.embeddings = self.penultimate(outputs)
        for head in heads:
            if head not in outputs and not any(self.feeds(head, other) for other in heads):
                found.embeddings |= self.representation(head)
        found.problems += [*self.complaints(found), *filter(None, map(self.several_in_one, outputs))]
        found.places = self.places(heads)
        return found

    # The answer.

    def heads(self) -> list[Head]:
        roots = self.roots()
        if len(roots) > 1:
            heads = [self.head(root, name, root.path) for root in roots for name in root.head_nodes]
        else:
            heads = [self.head(roots[0], name, name) for name in roots[0].head_nodes]
        problem = next((root.heads.problem for root in roots if root.heads.problem), "")
        if not heads:
            raise UnclearError(problem or f"{_of(roots[0])} returned no tensor with a row for each image")
        for head in heads:
            self.refuse_reconstruction(head)
        vectors = [head for head in heads if self.is_read(head)]
        if not vectors:
            raise UnclearError(
                f"{_of(heads[0].root)} returned {_shapes(heads)}, and maps and sequences are not read as outputs yet"
            )
        return vectors

    def is_read(self, head: Head) -> bool:
        return is_vector(head.shape)

    def head(self, root: Call, key: str, name: str) -> Head:
        return self.head_at(root, root.head_nodes[key], name)

    def head_at(self, root: Call, node: int, name: str) -> Head:
        layers = tuple(self.trace.layers_behind(node))
        paths = frozenset(self.path_of(layer) for layer in layers)
        giving = self.trace.calls_giving(node)
        giver = giving[-1] if giving else root
        beside = [call for call in giving if not self.is_within(giver, call) and _has_parameters(call.module)]
        if not _has_parameters(giver.module) and beside:
            giver = beside[-1]
        return Head(name, root, node, self.trace.nodes[node].shape, layers, paths or frozenset([giver.path]), giver)

    def path_of(self, layer: int) -> str:
        call = self.trace.nodes[layer].call
        return self.trace.calls[call].path if call >= 0 else ""

    def is_within(self, inner: Call, outer: Call) -> bool:
        while inner.parent >= 0:
            inner = self.trace.calls[inner.parent]
            if inner is outer:
                return True
        return False

    def roots(self) -> list[Call]:
        """The calls whose answers are the model's."""
        trace = self.trace
        own = [call for call in trace.calls if call.module is self.model and call.parent == -1]
        if own and (has_forward(self.model) or len(trace.calls) == len(own)):
            fed = [call for call in own if self.is_fed(call)]
            if not fed:
                raise UnclearError(f"{_of(own[0])} is called with what is not made of the batch, as a generator is")
            return ([call for call in fed if call.outputs] or fed)[:1]  # one that raised has none
        ends = self.ends()
        if not ends:
            raise UnclearError("no module with parameters takes the images of the batch")
        if len(ends) > 1:
            ends = self.chosen(ends)
        return ends

    def ends(self) -> list[Call]:
        """Outermost calls that the images go into, and whose answers go into no other such call; one per module."""
        images, anything = image_leaves(self.trace), self.trace.all_leaves()
        outermost = [
            call
            for call in self.trace.calls
            if call.parent == -1 and call.module is not self.model and _has_parameters(call.module)
        ]
        leaves = {call.index: self.trace.leaves(*call.inputs) for call in outermost}
        fed = [call for call in outermost if leaves[call.index] & images or not anything]
        alone = [call for call in fed if leaves[call.index] <= images]
        taking = alone or fed  # else the model is given labels as well, and computes its loss itself
        used = {node for call in taking for node in self.trace.ancestors(*call.inputs)}
        ends = [call for call in taking if call.outputs and not used.intersection(call.outputs)]
        return list({id(call.module): call for call in reversed(ends)}.values())[::-1]

    def chosen(self, ends: list[Call]) -> list[Call]:
        """Of several ends those that a loss holds against labels; without one, heads of a common trunk."""
        told = [end for end in ends if any(self.held_against_labels(self.head(end, n, n)) for n in end.head_nodes)]
        if told:
            return told
        trained = [end for end in ends if any(p.requires_grad for p in end.module.parameters())]
        if len(trained) == 1:
            return trained
        made = [{self.trace.nodes[n].call for n in self.trace.ancestors(*end.inputs)} - {-1} for end in ends]
        if all(made) and set.intersection(*made):
            return ends
        names = ", ".join(repr(end.path) for end in ends)
        raise UnclearError(f"the batch goes through {names}, and nothing shows which of them answers")

    def is_fed(self, call: Call) -> bool:
        return bool(self.trace.leaves(*call.inputs)) or not self.trace.all_leaves()

    # What losses say of it.

    def kind(self, head: Head, heads: list[Head]) -> str:
        """Whether a head is an output or an embedding.

        Raises:
            UnclearError: If it is neither.
        """
        if self.held_against_labels(head) or self.is_scored_by_hand(head):
            return _OUTPUT
        if self.is_compared(head) or self.is_before_the_loss(head) or any(self.feeds(head, each) for each in heads):
            return _REPRESENTATION
        self.refuse(head)
        return _OUTPUT

    def refuse(self, head: Head) -> None:
        """Raise what speaks against calling it an output."""
        what = f"what {_of(head.root)} returned"
        for trace, loss in self.direct(head):
            made = trace.layers_behind(loss.target) if loss.target is not None else [0]
            if not self.target_leaves(trace, loss) and not made and not trace.texts_in_batch and trace.ends:
                raise UnclearError(f"the loss holds {what} against nothing of the batch, as a discriminator's does")
        training = next((trace for trace in self.traces if trace.ends), None)
        if training is not None and not self.uses_labels(training, head):
            raise UnclearError(
                f"the training loss uses nothing of the batch but the images, so {what} may be an embedding, a"
                " reconstruction or a score"
            )
        sizes = {math.prod(self.trace.nodes[leaf].shape[1:]) for leaf in self.images(self.trace, head)}
        if math.prod(head.shape[1:]) in sizes and math.prod(head.shape[1:]) > 1:
            raise UnclearError(f"{what} has as many numbers as an image, as an autoencoder's answer does")

    def refuse_reconstruction(self, head: Head) -> None:
        """Raise if it is held against the images: then nothing that is returned beside it is an output."""
        for trace, loss in self.direct(head):
            near = self.target_leaves(trace, loss)
            if near and near <= self.images(trace, head):
                what = f"what {_of(head.root)} returned"
                raise UnclearError(f"the loss holds {what} against the images themselves, as an autoencoder's does")

    def uses_labels(self, trace: Trace, head: Head) -> bool:
        """Whether the gradients depend on more of the batch than the images; yes, where that cannot be seen."""
        reached = trace.leaves(*trace.ends)
        labels = trace.all_leaves() - self.images(trace, head)
        return trace.texts_in_batch or not reached or bool(reached & labels)

    def images(self, trace: Trace, head: Head) -> set[int]:
        """The batch's tensors that a head is made of, images first of all."""
        calls = [call for call in trace.calls if call.path in head.paths and call.module is not self.model]
        calls = calls or [call for call in trace.calls if call.parent == -1]
        leaves = {leaf for call in calls for leaf in trace.leaves(*call.inputs)}
        images = {leaf for leaf in leaves if len(trace.nodes[leaf].shape) >= 3} or leaves
        shapes = {shape for leaf in images if len(shape := trace.nodes[leaf].shape) >= 3}
        return images | {leaf for leaf in trace.all_leaves() if trace.nodes[leaf].shape in shapes}  # views of them

    def direct(self, head: Head) -> Iterator[tuple[Trace, Loss]]:
        """The losses that take a head with nothing but operations without parameters between; of training first."""
        for trace in reversed(self.traces):
            for loss in trace.losses:
                steps = trace.steps_behind(loss.given)
                if self.paths(trace, [step for step in steps if trace.nodes[step].layer]) & head.paths and not any(
                    self.compares(trace, step, head) for step in steps
                ):
                    yield trace, loss

    def paths(self, trace: Trace, nodes: list[int]) -> set[str]:
        return {trace.calls[call].path for node in nodes if (call := trace.nodes[node].call) >= 0}

    def target_leaves(self, trace: Trace, loss: Loss) -> set[int]:
        return trace.leaves(loss.target, near=True) if loss.target is not None else set()

    def held_against_labels(self, head: Head) -> tuple[Trace, Loss] | None:
        """The loss that holds a head against something of the batch that is not its images."""
        for trace, loss in self.direct(head):
            if self.target_leaves(trace, loss) - self.images(trace, head):
                return trace, loss
        for trace, loss in self.direct(head):  # labels that came as texts or numbers
            if trace.texts_in_batch and loss.target is not None and not trace.leaves(loss.target):
                return trace, loss
        return None

    def loss(self, head: Head) -> dict[str, str]:
        """What the loss does with a head, for `describe`; nothing if no training batch was seen, which may show it."""
        found = self.held_against_labels(head)
        if found is not None:
            return {"loss": found[1].name}
        if told := self.by_hand(head):
            return {"loss": told}
        return {"loss": UNSEEN} if any(trace.ends for trace in self.traces) else {}

    def is_scored_by_hand(self, head: Head) -> bool:
        """Whether a loss written by hand makes probabilities of a head and needs labels."""
        if self.by_hand(head, largest=False) == "":
            return False
        return all(self.uses_labels(trace, head) for trace in self.traces if trace.ends)

    def by_hand(self, head: Head, *, largest: bool = True) -> str:
        """What the steps show of a head that no known loss takes: whether its columns are labels or classes.

        What the gradients depend on counts before what else is computed, of which metrics are made.
        """
        for trace in reversed(self.traces):
            nodes = trace.ancestors(*trace.ends) if trace.ends else range(len(trace.nodes))
            names = {self.use(trace, node, head) for node in nodes} - {""}
            if names:
                return names.pop() if len(names) == 1 else ""
        if largest and any(self.picks_largest(trace, head) for trace in self.traces):
            return SOFTMAX
        return ""

    def use(self, trace: Trace, number: int, head: Head) -> str:
        """What an operation takes a head for."""
        node = trace.nodes[number]
        if node.layer or node.name not in SIGMOIDS | SOFTMAXES | GATHERS or not self.takes_head(trace, number, head):
            return ""
        if node.name in SIGMOIDS:
            return SIGMOID
        return SOFTMAX if node.name in SOFTMAXES or self.picks_by_labels(trace, number, head) else ""

    def takes_head(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether a head goes into an operation with nothing but operations on each row for itself between."""
        steps = trace.steps_behind(*trace.nodes[number].parents)
        if not self.paths(trace, [step for step in steps if trace.nodes[step].layer]) & head.paths:
            return False
        return not any(self.compares(trace, step, head) for step in steps)

    def picks_by_labels(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether labels say which of a row's columns are taken."""
        node = trace.nodes[number]
        if node.name == "__getitem__" and len(node.shape) > 1:  # rows
            return False
        given = [parent for parent in node.parents if not trace.layers_behind(parent)]
        return bool(given) and (trace.texts_in_batch or bool(trace.leaves(*given) - self.images(trace, head)))

    def picks_largest(self, trace: Trace, head: Head) -> bool:
        return any(
            node.name in LARGEST and not node.layer and self.takes_head(trace, number, head)
            for number, node in enumerate(trace.nodes)
        )

    def is_compared(self, head: Head) -> bool:
        """Whether rows of a head are compared with one another, or with those of another network."""
        return any(self.compares(trace, node, head) for trace in self.traces for node in range(len(trace.nodes)))

    def compares(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether an operation compares rows of a head with one another, or with those of another network."""
        node = trace.nodes[number]
        if node.layer or node.name not in COMPARISONS | PRODUCTS | DIFFERENCES:
            return False
        sides = [self.paths(trace, trace.layers_behind(parent)) for parent in node.parents]
        if node.name in COMPARISONS and node.name.endswith("_loss"):  # whose last argument tells which belong together
            sides = list(filter(None, sides))
        # Row by row another network's answer may be a target (distillation), all with all it is something like them.
        enough = any if node.name in PRODUCTS | {"cdist"} else all
        if not (sides and all(sides) and enough(side & head.paths for side in sides)):
            return False
        return node.name not in DIFFERENCES or self.are_rows(trace, node.parents, head)

    def are_rows(self, trace: Trace, numbers: tuple[int, ...], head: Head) -> bool:
        """Whether two tensors are rows as wide as a head, and not the same rows twice."""
        if len(numbers) != 2:
            return False
        width = math.prod(head.shape[1:])
        for number in numbers:
            shape = trace.nodes[number].shape
            if width < 2 or len(shape) < 2 or shape[-1] != width or math.prod(shape) <= width:
                return False
        one, two = ({*trace.steps_behind(number)} for number in numbers)
        moved = any(trace.nodes[step].name in ROWS_MOVED for step in one ^ two)
        return moved or not (numbers[0] in two or numbers[1] in one)

    def is_before_the_loss(self, head: Head) -> bool:
        """Whether labels meet what further layers make of a head."""
        for trace in self.traces:
            for loss in trace.losses:
                if self.target_leaves(trace, loss) - self.images(trace, head) and self.is_below(
                    trace, loss.given, head
                ):
                    return True
            by_hand = trace.ancestors(*trace.ends) if trace.ends and self.uses_labels(trace, head) else []
            if any(
                trace.nodes[number].name in SIGMOIDS | SOFTMAXES
                and not trace.nodes[number].layer
                and not self.takes_head(trace, number, head)
                and self.is_below(trace, number, head)
                for number in by_hand
            ):
                return True
        return False

    def is_below(self, trace: Trace, number: int, head: Head) -> bool:
        """Whether a tensor is made of a head."""
        layers = [node for node in trace.ancestors(number) if trace.nodes[node].layer]
        return self.paths(trace, layers) >= head.paths

    def feeds(self, head: Head, other: Head) -> bool:
        """Whether another head is made of this one by further layers."""
        return head is not other and head.node in self.trace.ancestors(
            *(parent for layer in other.layers for parent in self.trace.nodes[layer].parents)
        )

    def places(self, heads: list[Head]) -> dict[str, tuple[int | str, ...]]:
        found = {head.name: place for head in heads if (place := self.place(head)) is not None}
        return {"": next(iter(found.values()))} if len(set(found.values())) == 1 else found

    def place(self, head: Head) -> tuple[int | str, ...] | None:
        """Where the labels are that a head is held against."""
        found = self.held_against_labels(head)
        if found is None:
            return None
        trace, loss = found
        places = {trace.nodes[leaf].place for leaf in self.target_leaves(trace, loss) - self.images(trace, head)}
        return places.pop() if len(places) == 1 else None

    # What is read.

    def output(self, head: Head) -> Readout:
        layer, part = self.where(head)
        info: dict[str, Any] = {"layer": layer.path, "auto": True, "columns": math.prod(head.shape[1:])}
        info |= self.form(head) | self.loss(head)
        info["found"] = self.sentence(head)
        rows = head.root.heads.tensors.get(self.key_of(head))
        return Readout(layer, part, info, rows, is_answer=True)

    def key_of(self, head: Head) -> str:
        """The head's name in the answer of its call."""
        return next((key for key, node in head.root.head_nodes.items() if node == head.node), "")

    def where(self, head: Head) -> tuple[Layer, str | None]:
        """The innermost module that returns a head, if it is called once; else the one that returns the answer."""
        giver = head.giver
        if giver.path and giver.outputs[0] == head.node and self.trace.times(giver.module) == 1:
            return Layer(giver.path, giver.path, giver.module), None
        return Layer(head.root.path, head.root.path, head.root.module), self.key_of(head)

    def form(self, head: Head) -> dict[str, Any]:
        """Whether a head is a linear map of the layer before, and which activation it went through."""
        nodes = self.trace.nodes
        names = {nodes[node].name for node in self.trace.steps_behind(head.node) if not nodes[node].layer}
        layers = {nodes[layer].name for layer in head.layers}
        linear = bool(layers) and layers <= _LINEAR_LAYERS and names <= _LINEAR_STEPS
        info: dict[str, Any] = {"linear": linear or isinstance(head.giver.module, nn.Linear)}
        activations = names & _ACTIVATIONS
        return info | ({"activation": activations.pop()} if len(activations) == 1 else {})

    def sentence(self, head: Head) -> str:
        part = f", part {head.name!r}" if head.name else ""
        text = f"what {_of(head.root)} returned{part}, made by {_listed(sorted(head.paths))}"
        found = self.held_against_labels(head)
        if found is None:
            return text
        place = self.place(head)
        against = f"what is at {_place(place)} in the batch" if place is not None else "the labels"
        return f"{text}; its loss, {found[1].name}, holds it against {against}"

    def representation(self, head: Head) -> dict[str, Readout]:
        """The answer itself as an embedding."""
        layer, part = self.where(head)
        name = head.giver.path or head.name or "answer"
        call = head.giver if part is None else head.root
        info = {"auto": True, "answer": True, "layer": layer.path}
        info["found"] = f"what {_of(head.root)} returned; the loss compares it, or further layers take it"
        kept = self.trace.kept(call, before=False)
        axes, rows = kept if kept is not None else (None, None)
        return {name: Readout(Layer(name, layer.path, layer.module), part, info, rows, axes, is_answer=True)}

    def penultimate(self, heads: list[Head]) -> dict[str, Readout]:
        """What goes into the last layers before heads; what goes into several of them, once."""
        places: dict[int, tuple[Call, bool]] = {}
        for head in heads:
            for call, before in self.last_inputs(head):
                places.setdefault(self.source(call, before), (call, before))
        found: dict[str, Readout] = {}
        for call, before in places.values():
            name = f"{call.path}.input" if before else call.path
            text = f"what {'goes into' if before else 'comes out of'} {call.path!r}, the last layer before the answer"
            info = {"auto": True, "layer": name, "found": text, "order": len(found)}
            kept = self.trace.kept(call, before=before)
            axes, rows = kept if kept is not None else (None, None)
            found[name] = Readout(Layer(name, call.path, call.module, before), None, info, rows, axes)
        return found

    def last_inputs(self, head: Head) -> list[tuple[Call, bool]]:
        giver, places = head.giver, []
        if giver.path and (not head.layers or any(self.takes(giver, layer) for layer in head.layers)):
            return [(giver, True)] if head.layers or _has_own_parameters(giver.module) else []
        for layer in head.layers:
            place = self.input_of(layer)
            if place is not None and place not in places:
                places.append(place)
        return places

    def source(self, call: Call, before: bool) -> int:
        return (call.inputs if before else call.outputs)[0]

    def takes(self, call: Call, layer: int) -> bool:
        """Whether what a call was given goes straight into a layer."""
        parents = [parent for parent in self.trace.nodes[layer].parents if self.trace.nodes[parent].data]
        return bool(set(call.inputs[:1]) & set(self.trace.steps_behind(*parents)))

    def input_of(self, layer: int) -> tuple[Call, bool] | None:
        """Where what goes into a layer can be read: before its module, or after the one that returned it."""
        index = self.trace.nodes[layer].call
        call = self.trace.calls[index] if index >= 0 else None
        if call is not None and call.path and self.takes(call, layer):
            return call, True
        parents = [parent for parent in self.trace.nodes[layer].parents if self.trace.nodes[parent].data]
        for node in self.trace.steps_behind(*parents):
            giving = [call for call in self.trace.calls_giving(node) if call.path and call.outputs[0] == node]
            if giving:
                return giving[-1], False
        return None

    # What is said.

    def complaints(self, found: Answer) -> list[str]:
        told = []
        for reading in (*found.outputs.values(), *found.embeddings.values()):
            times = self.trace.times(reading.layer.module)
            if times > 1:
                told.append(f"{reading.layer.path or _class(reading.layer.module)!r} is called {times} times in a"
                            " batch: its first call is read")  # fmt: skip
        skipped = [key for root in {id(r): r for r in self.roots()}.values() for key, node in root.head_nodes.items()
                   if not is_vector(self.trace.nodes[node].shape)]  # fmt: skip
        if skipped:
            told.append(f"{_listed(skipped)} of the answer are maps or sequences, which are not read as outputs yet")
        if not found.embeddings:
            told.append(f"{_NO_EMBEDDINGS}. {self.advice()}")
        return told

    def several_in_one(self, head: Head) -> str:
        """What is to be said if a cross-entropy takes only some columns of a head for a choice among classes."""
        held, columns = self.held_against_labels(head), math.prod(head.shape[1:])
        if held is None or held[1].name != "cross_entropy":
            return ""
        shape = held[0].nodes[held[1].given].shape
        if len(shape) < 2 or shape[1] >= columns:
            return ""
        name = f", part {head.name!r}," if head.name else ""
        return (
            f"the loss takes what {_of(head.root)} returned{name} for a choice among {shape[1]} classes, and it is read"
            f" as one among all its {columns} columns: if these are several answers in one, return each as a part of"
            " its own, in a dict or a tuple, or pass outputs=None"
        )

    def advice(self) -> str:
        """What to do, with layers that may be meant and the shapes of their answers."""
        candidates = self.candidates()
        layers = [f"{call.path} {'x'.join(map(str, call.shape))}" for call in candidates]
        vectors = any(is_vector(call.shape) for call in candidates)
        advised = self.advised if vectors else self.advised.replace("outputs= and", "outputs=None and")
        return advised.format(f", such as {', '.join(layers)}" if layers else "")

    def candidates(self) -> list[Call]:
        """The parts of the network, below modules that only wrap one."""
        calls = [call for call in self.trace.calls if call.path]
        level = [call for call in calls if call.parent < 0 or not self.trace.calls[call.parent].path]
        while len({call.path for call in level}) == 1:
            below = [call for call in calls if call.parent == level[0].index]
            if not below:
                break
            level = below
        n = image_count(self.trace)
        fitting = {call.path: call for call in level if call.shape and n in (0, call.shape[0])}
        return list(fitting.values())[-_MOST_NAMED:]


def image_count(trace: Trace) -> int:
    """How many images a traced batch has; 0 if that is not clear. Images that come in a list have no axis for it."""
    if trace.samples:
        return trace.samples
    shapes = [trace.nodes[leaf].shape for leaf in image_leaves(trace)]
    batched = {shape[0] for shape in shapes if len(shape) != 3}
    single = [shape for shape in shapes if len(shape) == 3]
    if batched:
        return batched.pop() if len(batched) == 1 else 0
    return single[0][0] if len(single) == 1 else len(single)


def image_leaves(trace: Trace) -> set[int]:
    """The tensors of a batch that may be its images."""
    leaves, nodes = trace.all_leaves(), trace.nodes
    maps = {leaf for leaf in leaves if len(nodes[leaf].shape) >= 3}
    return maps or {leaf for leaf in leaves if nodes[leaf].place == nodes[min(leaves)].place}


def has_forward(model: nn.Module) -> bool:
    """Whether somebody has written a module's forward: torch's and Lightning's own only say that there is none.

    Example:
        >>> has_forward(nn.Linear(2, 2)), has_forward(nn.ModuleList())
        (True, False)
    """
    owner = str(getattr(type(model).forward, "__module__", ""))
    of_lightning = owner.startswith(("pytorch_lightning.", "lightning.pytorch."))  # and not Fabric's wrapper
    return not of_lightning and owner != "torch.nn.modules.module"


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _has_own_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _class(module: nn.Module) -> str:
    return type(module).__name__


def _of(call: Call) -> str:
    return f"{_class(call.module)}.forward"


def _shapes(heads: list[Head]) -> str:
    return ", ".join((f"{head.name}: " if head.name else "") + "x".join(map(str, head.shape)) for head in heads)


def _listed(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names) if names != [""] else "the model itself"


def _place(place: tuple[int | str, ...]) -> str:
    return "batch" + "".join(f"[{key!r}]" for key in place)
