"""What a model answers, decided by what was seen of one batch, or of two.

The answer is what `forward` returns in evaluation: the LightningModule's, if somebody wrote one and the pass calls it,
else that of the modules that take the batch. Its heads are outputs, and what goes into the last layer before a head is
the embedding. A training batch beside it shows what the loss does with it (`losses.py`): holds it against labels,
compares rows with one another, or has another layer in between; then the answer is no output. What is not clear is
called nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import Tensor, nn

from lensai_integrations.torch.layers import Layer
from lensai_integrations.torch.losses import Head, Losses
from lensai_integrations.torch.taps import is_vector
from lensai_integrations.torch.trace import Call, Trace

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
        return [problem for problem in self.problems if not problem.startswith(_NO_EMBEDDINGS)]


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
    infos: dict[str, dict[str, Any]] = {}
    for key, path in layers.items():
        calls = [call for call in traces[0].calls if call.path == path and call.outputs]
        decision = _Decision(model, traces, "")
        for call in calls[:1]:
            head = decision.head_at(call, call.outputs[0], "")
            infos[key] = {"columns": math.prod(head.shape[1:]), **decision.losses.info(head)}
    return infos


class _Decision:
    def __init__(self, model: nn.Module, traces: list[Trace], advised: str) -> None:
        self.model, self.trace, self.advised = model, traces[0], advised
        self.losses = Losses(model, traces)

    def answer(self) -> Answer:
        answer = Answer()
        try:
            heads = self.heads()
            kinds = {head.name: self.kind(head, heads) for head in heads}
        except UnclearError as why:
            answer.problems.append(f"{why}. {self.advice()}")
            return answer
        outputs = [head for head in heads if kinds[head.name] == _OUTPUT]
        for head in outputs:
            answer.outputs[head.name if len(outputs) > 1 else ""] = self.output(head)
        answer.embeddings = self.penultimate(outputs)
        for head in heads:
            if head not in outputs and not any(self.feeds(head, other) for other in heads):
                answer.embeddings |= self.representation(head)
        answer.problems += [*self.complaints(answer), *filter(None, map(self.several_in_one, outputs))]
        answer.places = self.places(heads)
        return answer

    # The answer.

    def heads(self) -> list[Head]:
        roots = self.roots()
        if len(roots) > 1:
            heads = [self.head(root, name, root.path) for root in roots for name in root.head_nodes]
        else:
            heads = [self.head(roots[0], name, name) for name in roots[0].head_nodes]
        problem = next((root.heads.problem for root in roots if root.heads.problem), "")
        if not heads:
            raise UnclearError(problem or f"{roots[0].forward} returned no tensor with a row for each image")
        for head in heads:
            if self.losses.is_reconstruction(head):  # then nothing that is returned beside it is an output
                raise UnclearError(
                    f"the loss holds {head.returned} against the images themselves, as an autoencoder's does"
                )
        vectors = [head for head in heads if is_vector(head.shape)]
        if not vectors:
            raise UnclearError(
                f"{heads[0].root.forward} returned {_shapes(heads)}, and maps and sequences are not read as outputs yet"
            )
        return vectors

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
        whole = [call for call in trace.calls if call.module is self.model and call.parent == -1]
        if whole and (has_forward(self.model) or len(trace.calls) == len(whole)):
            fed = [call for call in whole if self.is_fed(call)]
            if not fed:
                raise UnclearError(
                    f"{whole[0].forward} is called with what is not made of the batch, as a generator is"
                )
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
        taught = [
            end for end in ends if any(self.losses.held_against_labels(self.head(end, n, n)) for n in end.head_nodes)
        ]
        if taught:
            return taught
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

    def kind(self, head: Head, heads: list[Head]) -> str:
        """Whether a head is an output or an embedding.

        Raises:
            UnclearError: If it is neither.
        """
        losses = self.losses
        if losses.held_against_labels(head) or losses.is_scored_by_hand(head):
            return _OUTPUT
        if losses.is_compared(head) or losses.is_before_the_loss(head) or any(self.feeds(head, end) for end in heads):
            return _REPRESENTATION
        if doubt := losses.doubt(head):
            raise UnclearError(doubt)
        return _OUTPUT

    def feeds(self, head: Head, other: Head) -> bool:
        """Whether another head is made of this one by further layers."""
        return head is not other and head.node in self.trace.ancestors(
            *(parent for layer in other.layers for parent in self.trace.nodes[layer].parents)
        )

    def places(self, heads: list[Head]) -> dict[str, tuple[int | str, ...]]:
        places = {head.name: labels for head in heads if (labels := self.losses.place_of_labels(head)) is not None}
        return {"": next(iter(places.values()))} if len(set(places.values())) == 1 else places

    # What is read.

    def output(self, head: Head) -> Readout:
        layer, name = self.where(head)
        info: dict[str, Any] = {"layer": layer.path, "auto": True, "columns": math.prod(head.shape[1:])}
        info |= self.form(head) | self.losses.info(head)
        info["found"] = self.sentence(head)
        rows = head.root.heads.tensors.get(self.key_of(head))
        return Readout(layer, name, info, rows, is_answer=True)

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
        of = f", part {head.name!r}" if head.name else ""
        text = f"{head.returned}{of}, made by {_listed(sorted(head.paths))}"
        held_by = self.losses.held_against_labels(head)
        if held_by is None:
            return text
        path = self.losses.place_of_labels(head)
        steps = "".join(f"[{key!r}]" for key in path) if path is not None else ""
        against = f"what is at batch{steps} in the batch" if path is not None else "the labels"
        return f"{text}; its loss, {held_by[1].name}, holds it against {against}"

    def representation(self, head: Head) -> dict[str, Readout]:
        """The answer itself as an embedding."""
        layer, returned = self.where(head)
        name = head.giver.path or head.name or "answer"
        call = head.giver if returned is None else head.root
        info = {"auto": True, "answer": True, "layer": layer.path}
        info["found"] = f"{head.returned}; the loss compares it, or further layers take it"
        info |= self.trace.precision(call, before=False)
        kept = self.trace.kept(call, before=False)
        axes, rows = kept if kept is not None else (None, None)
        return {name: Readout(Layer(name, layer.path, layer.module), returned, info, rows, axes, is_answer=True)}

    def penultimate(self, heads: list[Head]) -> dict[str, Readout]:
        """What goes into the last layers before heads; what goes into several of them, once."""
        inputs: dict[int, tuple[Call, bool]] = {}
        for head in heads:
            for call, before in self.last_inputs(head):
                inputs.setdefault((call.inputs if before else call.outputs)[0], (call, before))
        readouts: dict[str, Readout] = {}
        for call, before in inputs.values():
            name = f"{call.path}.input" if before else call.path
            text = f"what {'goes into' if before else 'comes out of'} {call.path!r}, the last layer before the answer"
            info = {"auto": True, "layer": name, "found": text, "order": len(readouts)}
            info |= self.trace.precision(call, before=before)
            kept = self.trace.kept(call, before=before)
            axes, rows = kept if kept is not None else (None, None)
            readouts[name] = Readout(Layer(name, call.path, call.module, before), None, info, rows, axes)
        return readouts

    def last_inputs(self, head: Head) -> list[tuple[Call, bool]]:
        giver = head.giver
        if giver.path and (not head.layers or any(self.takes(giver, layer) for layer in head.layers)):
            return [(giver, True)] if head.layers or _has_own_parameters(giver.module) else []
        inputs = [read for layer in head.layers if (read := self.input_of(layer)) is not None]
        return [read for i, read in enumerate(inputs) if read not in inputs[:i]]

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

    def complaints(self, answer: Answer) -> list[str]:
        complaints = []
        for reading in (*answer.outputs.values(), *answer.embeddings.values()):
            times = self.trace.times(reading.layer.module)
            if times > 1:
                complaints.append(f"{reading.layer.path or _class(reading.layer.module)!r} is called {times} times in a"
                            " batch: its first call is read")  # fmt: skip
        skipped = [key for root in {id(r): r for r in self.roots()}.values() for key, node in root.head_nodes.items()
                   if not is_vector(self.trace.nodes[node].shape)]  # fmt: skip
        if skipped:
            complaints.append(
                f"{_listed(skipped)} of the answer are maps or sequences, which are not read as outputs yet"
            )
        if not answer.embeddings:
            complaints.append(f"{_NO_EMBEDDINGS}. {self.advice()}")
        return complaints

    def several_in_one(self, head: Head) -> str:
        """What is to be said if a cross-entropy takes only some columns of a head for a choice among classes."""
        held_by, columns = self.losses.held_against_labels(head), math.prod(head.shape[1:])
        if held_by is None or held_by[1].name != "cross_entropy":
            return ""
        trace, loss = held_by
        shape = trace.nodes[loss.answer].shape
        if len(shape) < 2 or shape[1] >= columns:
            return ""
        name = f", part {head.name!r}," if head.name else ""
        return (
            f"the loss takes {head.returned}{name} for a choice among {shape[1]} classes, and it is read"
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


def _shapes(heads: list[Head]) -> str:
    return ", ".join((f"{head.name}: " if head.name else "") + "x".join(map(str, head.shape)) for head in heads)


def _listed(names: list[str]) -> str:
    return " and ".join(repr(name) for name in names) if names != [""] else "the model itself"
