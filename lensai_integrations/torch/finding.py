"""What `"auto"` stands for in a model: its first batches are traced, the answer is decided, and hooks are put there.

Traced are the first batch of an evaluation pass, the sanity check's if there is one, and the first training batch,
which shows the loss. Until then, and where a model is compiled and cannot be traced, the last Linear is a guess; a
compiled model's guess is held against what the model returns, value by value, and dropped where they differ.

A batch may go through a model in several calls. Those of a layer that count are the first in each outermost call of a
module: one that is used several times within a forward pass answers several times. The rows of a trace show whether
they are the batch in parts, or the same images again, as where augmented views are averaged, or neither; its losses and
what it returns, which of them is the answer.

Compiled code is kept by the function it was compiled from, whichever object calls it, and hooks that are put on a
module later are not noticed: a second fit of a model, or of another object of its class, would run code in which they
are missing. So before hooks are put on a compiled model, what was compiled is forgotten. Who comes again and again with
the same hooks leaves them there meanwhile, where they do nothing, and nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from lensai_integrations.arrays.namespaces import Array
from lensai_integrations.errors import InputError
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.measures.meaning import UNSEEN
from lensai_integrations.problems import Problems
from lensai_integrations.profiles.names import OUTPUTS, is_outputs
from lensai_integrations.profiles.profile import Profile
from lensai_integrations.torch.answer import ADVICE, Answer, Readout, decide, has_forward, image_count, loss_of
from lensai_integrations.torch.layers import Layer, find_layer, last_linear
from lensai_integrations.torch.matching import matched
from lensai_integrations.torch.taps import (
    ANSWER,
    MEAN,
    MEAN_OF_SOFTMAX,
    MORE,
    PARTS,
    UNKNOWN,
    VIEWS,
    WHOLE,
    Calls,
    Tap,
    Taps,
    is_vector,
    merged_rows,
)
from lensai_integrations.torch.trace import LARGEST, OTHER_ROWS, Call, Rows, Trace
from lensai_integrations.training.options import Reading, unread_reductions
from lensai_integrations.training.recording import LAYER

#: The topic of what is said of it.
TOPIC: Final = "the model's answer"
_BY_HAND: Final = "Hand what is to be held against the baseline to `DriftMonitor.update` yourself{}"
_NAME_LAYERS: Final = "Pass layers=[...], layers of the model by name; or None to read nothing"
_CALL_IN_ORDER: Final = (
    "Call the model with all images of a batch, or with its parts, in their order; or pass outputs=None or layers=None"
    " to leave it out"
)
_RETURN_IT: Final = (
    "Let a module return it, `forward` or one of its own, and pass outputs='its name'; or pass outputs=None to leave"
    " it out"
)


def attach(model: nn.Module, options: Reading, problems: Problems) -> Taps:
    """Hooks on the layers that the options name; for those left to be found, on a first guess: the last Linear.

    Raises:
        InputError: If the model has no layer of a given name, or `reduce` is given for a layer that is not read.
    """
    taps, guess = named_taps(model, options), last_linear(model)
    if guess is not None and options.layers == "auto":
        name = f"{guess.path}.input"
        taps.insert(0, Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)))
    if guess is not None and options.outputs == "auto":
        taps.append(Tap(OUTPUTS, guess))
    read = {tap.key.removeprefix(LAYER) for tap in taps if tap.key != OUTPUTS}
    if options.layers != "auto" and (problem := unread_reductions(options.reduce, read)):
        raise InputError(problem)
    if taps:
        forget_compiled(model)
    return Taps(taps, problems, model)


def named_taps(model: nn.Module, options: Reading) -> list[Tap]:
    """What is caught of the layers that the options name.

    Raises:
        InputError: If the model has no layer of a given name.
    """
    names = [] if options.layers is None or isinstance(options.layers, str) else options.layers
    taps = [Tap(LAYER + name, find_layer(model, name), options.reduce_of(name)) for name in names]
    if options.outputs not in (None, "auto"):
        taps.append(Tap(OUTPUTS, find_layer(model, str(options.outputs))))
    return taps


class Finder:
    """Decides what a model answers, and puts the taps there.

    Args:
        model: The model.
        taps: The hooks that there are so far.
        problems: Where it is said what is not clear.
        outputs: Whether outputs are to be found.
        layers: Whether embeddings are.
        reduce: How embeddings become vectors: for all, or by name.
        before: The finder of an earlier pass of the same model, whose training batch shows the loss.

    Attributes:
        places: Where in a batch the labels of each output are, once losses have shown it; "" if all are in one.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Taps,
        problems: Problems,
        *,
        outputs: bool,
        layers: bool,
        reduce: Reduce | Mapping[str, Reduce] = "mean",
        before: Finder | None = None,
    ) -> None:
        self._model, self._taps, self._problems, self._reduce = model, taps, problems, reduce
        self._outputs, self._layers = outputs, layers
        same = before is not None and before._model is model
        self._evaluation: Trace | None = None
        self._training: Trace | None = before._training if before is not None and same else None
        self._open: Trace | None = None
        self._unsaid: list[str] = []
        self._recorded: dict[bool, bool] = {}
        self._followed: dict[tuple[Any, ...], tuple[Calls, str]] = {}
        self.places: dict[str, tuple[int | str, ...]] = before.places if before is not None and same else {}
        self._compiled = is_compiled(model)
        self._hides = has_compiled(model)
        self._hidden: Readout | None = None
        self._agrees: bool | None = None
        self._reads_answer = False
        if self._compiled and (outputs or layers or any(True for _ in taps)):
            self._cannot_trace()

    def begin_again(self, problems: Problems) -> None:
        """Go on in another pass of the same model, which reports its problems elsewhere."""
        self._problems = problems

    def fed(self, *, training: bool) -> set[tuple[int | str, ...]] | None:
        """Where in a batch is what the model was fed, as the traced batch of the kind shows, else that of the other.

        None if neither could be traced.
        """
        traces = (self._training, self._evaluation) if training else (self._evaluation, self._training)
        trace = next((candidate for candidate in traces if candidate is not None), None)
        return None if trace is None else fed_places(trace)

    def open(self, batch: Any, *, recorded: bool, exact: bool = True) -> None:
        """Before a batch: trace it, if it is the first of its kind.

        Args:
            batch: What the model is about to be given.
            recorded: Whether layers are read in this batch.
            exact: Whether what it computes is used.
        """
        self.stop_tracing()
        training = self._taps.training = self._model.training
        if self._compiled or (self._training if training else self._evaluation) is not None:
            return
        keep = _reduction(self._reduce) if recorded or self._hides else None
        self._open = Trace(self._model, batch, keep=keep, beside_attention=exact and not training)
        self._open.on_outermost = self._taps.collect
        self._recorded[training] = recorded or not training
        with self._problems.caught(TOPIC):
            self._open.start()

    def close(self, returned: Any = None) -> bool:
        """After a batch: if it was traced, decide.

        Args:
            returned: What the step has returned.

        Returns:
            Whether it was traced.
        """
        trace = self._open
        self.stop_tracing()
        if trace is None:
            return False
        if not trace.is_sound():
            text = "a batch could not be followed through the model, whose last Linear is taken for its answer: "
            self._problems.note(TOPIC, f"{text}{trace.error!r}")
        elif trace.training:
            self._training = trace
        else:
            self._evaluation = trace
        with self._problems.caught(TOPIC):
            trace.returns(returned)
            self._decide(trace)
        trace.forget_values()
        return True

    def end_at(self, loss: Any) -> None:
        """Tell a training batch's loss, where no gradients are computed of it."""
        if self._open is not None:
            self._open.end_at(loss)

    def stop_tracing(self) -> None:
        """Leave the batch that is traced, if there is one."""
        if self._open is not None:
            self._open.stop()
            self._open = None

    def settle(self) -> None:
        """At the end of a pass: say what is not clear, if it was not said."""
        self.stop_tracing()
        if self._unsaid:
            self._problems.note(TOPIC, "; ".join(self._unsaid))

    def _decide(self, trace: Trace) -> None:
        both = [traced for traced in (self._evaluation, self._training) if traced is not None]
        traces = [traced for traced in both if traced.calls] or both[:1]
        if not traces:
            return
        for key, info in loss_of(self._model, traces, self._named()).items():
            self._taps.describe(key, **info)
        answer = decide(self._model, traces, self._advice())
        self.places = answer.places or self.places
        if answer.outputs and not answer.embeddings and self._hides:
            self._hidden = self._hidden or self._behind_compiled(answer)
            if self._hidden is not None:
                answer.embeddings[self._hidden.layer.name] = self._hidden
                answer.problems = answer.without_embeddings()
        readings = self._readings(answer)
        taps = [self._tap(key, reading) for key, reading in readings.items()]
        self._taps.replace(self._keys(), taps, _caught(trace, readings) if traces[0] is trace else {})
        unclear = answer.problems if self._layers else answer.without_embeddings() if self._outputs else []
        self._unsaid = [*unclear, *self._asked_for(traces[0])]
        self._unsaid += self._follow(both)
        if len(both) == 2:
            self.settle()

    def _behind_compiled(self, answer: Answer) -> Readout | None:
        """A compiled function hides the layers that it calls: if the last Linear was seen to answer what the model did,
        the embedding is what goes into it."""
        last, guess = last_linear(self._model), self._taps.kept(OUTPUTS)
        rows = [reading.rows for reading in answer.outputs.values()]
        if last is None or len(rows) != 1 or guess is None or rows[0] is None or not _are_same(guess, rows[0]):
            return None
        name = f"{last.path}.input"
        sentence = f"what goes into {last.path!r}, which answered what the model did in the first batch"
        info = {"auto": True, "layer": name, "order": 0, "found": sentence}
        return Readout(Layer(name, last.path, last.module, before=True), None, info)

    def _follow(self, traces: Sequence[Trace]) -> list[str]:
        """Tell the taps how the calls of a batch make up its rows; what is to be said of them."""
        sentences: list[str] = []
        for trace in traces:
            if not self._recorded.get(trace.training, False):
                continue
            read = [tap for tap in self._taps if tap.key != ANSWER]
            one = 0
            for tap in sorted(read, key=lambda tap: not is_outputs(tap.key)):
                layer = tap.layer
                key = (trace.training, tap.key, id(layer.module), layer.before)
                if key not in self._followed:
                    images = image_count(trace)
                    self._followed[key] = follow(trace, layer.module, images, tap.key, layer, tap.head, one)
                calls, text = self._followed[key]
                one = calls.picked[0] if is_outputs(tap.key) and calls.way == VIEWS and not calls.merged else one
                self._taps.follow(tap.key, calls, training=trace.training)
                if calls.merged:
                    self._taps.describe(tap.key, **_merged_info(tap, calls))
                sentences += [text] if text else []
        ends = [call.module for trace in traces for call in trace.calls if call.parent < 0]
        modules = {id(module): module for module in ends}.values()
        read_modules = {id(tap.layer.module) for tap in self._taps}
        self._taps.delimit([module for module in modules if read_modules.intersection(map(id, module.modules()))])
        return list(dict.fromkeys(sentences))

    def _asked_for(self, trace: Trace) -> list[str]:
        """What is to be said of arguments, now that the model is known from inside."""
        auto, sentences = set(self._keys()), []
        for tap in self._taps:
            times = trace.times(tap.layer.module)
            if tap.key not in auto and times > 1:
                sentences.append(f"{tap.layer.path!r} is called {times} times in a batch: its first call is read")
        read = {key.removeprefix(LAYER) for key in auto if key.startswith(LAYER)}
        if self._layers and (problem := unread_reductions(self._reduce, read)):
            sentences.append(problem)
        return sentences

    def _named(self) -> dict[str, str]:
        """The outputs that were asked for by a layer's name."""
        return {} if self._outputs else {tap.key: tap.layer.path for tap in self._taps if tap.key == OUTPUTS}

    def _advice(self) -> str:
        both = self._outputs and self._layers
        return ADVICE if both else ADVICE.replace(" and layers=[...]" if self._outputs else "outputs= and ", "")

    def _keys(self) -> list[str]:
        """The keys of the taps that "auto" has put there."""
        outputs = [tap.key for tap in self._taps if self._outputs and tap.key.split("/")[0] == OUTPUTS]
        return outputs + [tap.key for tap in self._taps if self._layers and tap.key.startswith(LAYER)]

    def _readings(self, answer: Answer) -> dict[str, Readout]:
        readings: dict[str, Readout] = {}
        if self._outputs:
            readings |= {f"{OUTPUTS}/{name}" if name else OUTPUTS: reading for name, reading in answer.outputs.items()}
        if self._layers:
            readings |= {LAYER + name: reading for name, reading in answer.embeddings.items()}
        return readings

    def _tap(self, key: str, reading: Readout) -> Tap:
        reduce = reduce_of(self._reduce, key.removeprefix(LAYER)) if key.startswith(LAYER) else None
        return Tap(key, reading.layer, reduce, reading.head, reading.info)

    # Compiled models.

    def _cannot_trace(self) -> None:
        """Hold the guess against what the model returns, if that can be seen."""
        if not self._see_calls() and (self._outputs or self._layers):
            text = "the model is compiled as a whole: its last Linear is taken for its answer, unverified. "
            self._problems.note(TOPIC, text + self._advice().format(""))

    def _see_calls(self) -> bool:
        """Look at what the model returns, which ends a call of it; False if nobody can."""
        root = root_of_compiled(self._model)
        if root is not None:
            self._taps.replace([], [Tap(ANSWER, Layer(ANSWER, "", root))], {})
            self._taps.verify = self._verified
        return root is not None

    def _verified(self, rows: dict[str, Array]) -> dict[str, Array]:
        """The rows of a batch: those of the guess if the guess is what the model answered in the first batch; else what
        it answered, as its output."""
        answer, more = rows.pop(ANSWER, None), rows.pop(MORE, True) is None
        if not (self._outputs or self._layers):
            return rows
        if self._agrees is None and answer is not None:
            self._agrees = self._is_guess(answer, more, rows)
        if self._agrees is not False:
            return rows
        guessed = set(self._keys())
        read = {key: values for key, values in rows.items() if key not in guessed}
        return read | {OUTPUTS: answer} if self._reads_answer else read

    def _is_guess(self, answer: Any, more: bool, rows: Mapping[str, Any]) -> bool:
        guess = rows.get(OUTPUTS)
        if guess is not None and _are_same(guess, answer):
            return True
        keys, text = self._keys(), "the model is compiled, and its last Linear was not seen to answer what it returns"
        self._reads_answer = self._outputs and not more and is_vector(tuple(answer.shape))
        if self._reads_answer:
            text += f": that is read, and what goes into its last layer is not known. {_NAME_LAYERS}"
            self._taps.take_place_of(keys, OUTPUTS, _info_of_compiled(answer))
        else:
            text += ", so neither is read. " + self._advice().format("")
            self._taps.replace(keys, [], {})
        if self._layers or not self._reads_answer:
            self._problems.note(TOPIC, text)
        return False


class MatchingFinder(Finder):
    """Finds again in a model what `"auto"` found for a baseline.

    Args:
        model: The model.
        taps: The hooks that there are so far.
        problems: Where it is said what is not clear.
        reference: The baseline's profile.
        missing: Its groups that are to be found.
        reduce: How embeddings become vectors, by name.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Taps,
        problems: Problems,
        reference: Profile,
        missing: Sequence[str],
        reduce: Mapping[str, Reduce],
    ) -> None:
        self._reference, self._missing = reference, list(missing)
        layers = any(group.startswith(LAYER) for group in missing)
        outputs = any(map(is_outputs, missing))
        super().__init__(model, taps, problems, outputs=outputs, layers=layers, reduce=reduce)

    def _keys(self) -> list[str]:
        return self._missing

    def _advice(self) -> str:
        return _BY_HAND

    def _readings(self, answer: Answer) -> dict[str, Readout]:
        readings, answer.problems = matched(answer, self._reference, self._missing)
        return readings

    def _cannot_trace(self) -> None:
        lacking, root = list(self._missing), root_of_compiled(self._model)
        if OUTPUTS in lacking and root is not None and not self._reference.groups[OUTPUTS].info.get("layer"):
            lacking.remove(OUTPUTS)  # what the model itself returned is what it returns here
            self._taps.replace([], [Tap(OUTPUTS, Layer("", "", root))], {})
        self._see_calls()
        self._taps.verify = _without_answer
        if lacking:
            names = ", ".join(lacking)
            self._problems.note(
                TOPIC, f"the model is compiled, and has no layers of the names that the baseline has {names} of"
            )


def reduce_of(reduce: Reduce | Mapping[str, Reduce], name: str) -> Reduce:
    """How a layer's answers become vectors.

    Example:
        >>> reduce_of({"pool": "max"}, "pool"), reduce_of({"pool": "max"}, "fc"), reduce_of("cls", "fc")
        ('max', 'mean', 'cls')
    """
    return reduce.get(name, "mean") if isinstance(reduce, Mapping) else reduce


def _reduction(reduce: Reduce | Mapping[str, Reduce]) -> Reduce:
    """The reduction of a layer that has no name yet."""
    if isinstance(reduce, Mapping):
        ways = list(reduce.values())
        return ways[0] if ways and ways == ways[:1] * len(ways) else "mean"
    return reduce


def _caught(trace: Trace, readings: Mapping[str, Readout]) -> dict[str, list[tuple[int, torch.Tensor]]]:
    """What was read in each call of a traced batch, as far as copies were kept: number of axes, and rows."""
    caught = {}
    for key, reading in readings.items():
        calls = outermost_first(trace, reading.layer.module)
        if reading.rows is None or not calls:
            continue
        if len(calls) == 1:
            axes = reading.axes if reading.axes is not None else reading.rows.ndim
            caught[key] = [(axes, reading.rows)]
            continue
        if key.startswith(LAYER):
            kept = [trace.kept(call, before=reading.layer.before) for call in calls]
        else:
            kept = [_with_axes(answer_in(trace, call, reading.head)) for call in calls]
        if all(copy is not None for copy in kept):
            caught[key] = [copy for copy in kept if copy is not None]
    return caught


def _merged_info(tap: Tap, calls: Calls) -> dict[str, Any]:
    """What is noted of an answer that is the mean of several."""
    sentence = tap.info.get("found", f"what {tap.layer.path!r} answered")
    count = len(calls.picked) * calls.crops
    info = {"found": f"{sentence}; the {calls.merged} of its {count} answers for each image, as the step makes it"}
    return info | ({"linear": False, "activation": "softmax"} if calls.merged == MEAN_OF_SOFTMAX else {})


def _with_axes(rows: torch.Tensor | None) -> tuple[int, torch.Tensor] | None:
    return None if rows is None else (rows.ndim, rows)


def fed_places(trace: Trace) -> set[tuple[int | str, ...]]:
    """Where in a batch is what the model's parameters were applied to, before any others were.

    What only a loss is given is not fed to a model; nor what is only given to parameters that judge: those that are
    applied to the model's own answer as well (perceptual losses, discriminators), unless all is.
    """
    applied: list[tuple[int, set[int], bool]] = []  # module, what of the batch it was given, whether an answer as well
    for node in trace.nodes:
        if node.layer:
            module = id(trace.calls[node.call].module) if node.call >= 0 else -1
            behind = trace.steps_behind(*node.parents)
            leaves = {number for number in behind if trace.nodes[number].place is not None}
            applied.append((module, leaves, any(trace.nodes[number].layer for number in behind)))
    judges = [(module, leaves) for module, leaves, answers in applied if answers]
    fed = {leaf for _, leaves, _ in applied for leaf in leaves}
    first = {
        leaf
        for module, leaves, _ in applied
        for leaf in leaves
        if not any(judge == module and leaf not in others for judge, others in judges)
    }
    places = (trace.nodes[leaf].place for leaf in first or fed)
    return {path for path in places if path is not None}


# -- several calls of a model

#: How near two answers are that are the same.
_CLOSE: Final = 1e-4


def calls_of(trace: Trace, module: nn.Module, images: int, *, before: bool = False) -> Calls:
    """How the calls of a module in a traced batch make up its rows.

    Args:
        trace: Of the batch.
        module: A layer.
        images: How many the batch has; 0 if that is not clear.
        before: Whether what goes into the layer is read.
    """
    calls = outermost_first(trace, module)
    rows = [_rows(trace, call, before) for call in calls]
    fed = tuple(i for i, source in enumerate(rows) if source != OTHER_ROWS) or tuple(range(len(rows)))
    orders = [rows[i].places for i in fed]
    size = max([images, *(image + 1 for order in orders for image in order or ())])
    if len(fed) > 1:
        is_end = fed == tuple(range(fed[0], len(calls)))
        way, picked = _way_of_several(orders, size, is_static=is_end and not any(rows[i].picked for i in fed))
        return Calls(way, fed[:picked], len(calls))
    if not fed:
        return Calls()
    crops = len(orders[0] or ()) // size if size else 0
    for stacked in (False, True) if crops > 1 else ():
        order = tuple(range(size)) * crops if stacked else tuple(i for i in range(size) for _ in range(crops))
        if orders[0] == order:
            return Calls(VIEWS, fed, len(calls), crops=crops, stacked=stacked)
    is_moved = orders[0] != tuple(range(size)) if orders[0] else rows[fed[0]].picked
    is_moved = is_moved and _count(trace, calls[fed[0]], before) == size
    return Calls(UNKNOWN if is_moved else WHOLE, fed, len(calls))


def _way_of_several(orders: Sequence[Any], size: int, *, is_static: bool) -> tuple[str, int | None]:
    """What several calls are of each other, and how many of them count; None for all."""
    whole = tuple(range(size))
    if all(order == whole for order in orders):
        return VIEWS, None
    if orders[0] == whole:  # and some of the images again
        return VIEWS, 1
    parts = [image for order in orders for image in order or (-1,)]
    return (PARTS if is_static and parts == list(whole) else UNKNOWN), None


def follow(
    trace: Trace, module: nn.Module, images: int, key: str, layer: Layer, head: str | None, one: int
) -> tuple[Calls, str]:
    """How the calls of a layer make up the rows of a batch, and what is to be said of it.

    Args:
        trace: Of the batch.
        module: The layer's.
        images: How many the batch has.
        key: Under which the layer is read.
        layer: The layer.
        head: Which part of its answer is read.
        one: Which of several views the outputs are of.
    """
    calls, name = calls_of(trace, module, images, before=layer.before), layer.path or type(module).__name__
    if calls.way == VIEWS:
        return _one_of_views(trace, module, calls, name, key, head, one)
    if calls.way == UNKNOWN:
        return calls, (f"{name!r} is called with images of the batch in an order that may be another in every batch, so"
                       f" it is not known whose rows are whose, and it is not read. {_CALL_IN_ORDER}")  # fmt: skip
    made = [_count(trace, call, layer.before) for call in outermost_first(trace, module)]
    count = sum(made[i] for i in calls.picked if i < len(made))
    if count and images and count != images:
        return calls, f"{name!r} answers {count} rows for {images} images, which are read apart. {_CALL_IN_ORDER}"
    return calls, ""


def _one_of_views(
    trace: Trace, module: nn.Module, calls: Calls, name: str, key: str, head: str | None, one: int
) -> tuple[Calls, str]:
    """Which of several views is read, or what is made of them, and what is to be said of it."""
    many = f"called with {calls.crops} views of each image: the {{}}" if calls.crops > 1 else (
        f"called {calls.total} times in a batch: its {{}} call")  # fmt: skip
    text = f"{name!r} is {many} is read" + ("" if is_outputs(key) else " as embeddings")
    answers = [outermost_first(trace, module)[i] for i in calls.picked]
    nodes = [node for call in answers if (node := _answer_node(call, head)) is not None]
    values = [value for call in answers if (value := answer_in(trace, call, head)) is not None]
    is_followed = is_outputs(key) and not trace.training and len(nodes) == len(values) == len(answers)
    if not is_followed or len(calls.picked) * calls.crops == 1:
        one = one if one in calls.picked else calls.picked[0]
        return replace(calls, picked=(one,)), text.format(_nth(one))
    view = judged(trace, nodes, calls.views_in(values[0]) if calls.crops > 1 else values)
    if view.merged:
        return replace(calls, merged=view.merged), ""
    if view.one is None:
        return replace(calls, way=UNKNOWN), (
            f"the step makes its answer of {len(calls.picked) * calls.crops} answers of {name!r} for each image, in a"
            f" way that is not followed, so outputs are not read. {_RETURN_IT}")  # fmt: skip
    one = calls.picked[view.one]
    return replace(calls, picked=(one,)), "" if view.is_clear else text.format(_nth(one))


def _nth(index: int) -> str:
    return {0: "first", 1: "second", 2: "third"}.get(index, f"{index + 1}th")


def _answer_node(call: Call, head: str | None) -> int | None:
    if head is None:
        return call.outputs[0] if call.outputs else None
    return call.head_nodes.get(head)


def answer_in(trace: Trace, call: Call, head: str | None) -> Tensor | None:
    """What a call answered, if the outermost call returned it and a copy was kept."""
    node, outermost = _answer_node(call, head), trace.outermost(call)
    name = next((name for name, number in outermost.head_nodes.items() if number == node), None)
    return None if name is None else outermost.heads.tensors.get(name)


def outermost_first(trace: Trace, module: nn.Module) -> list[Call]:
    """The calls of a module that are the first in each outermost call of any."""
    first: dict[int, Call] = {}
    calls = [call for call in trace.calls if call.module is module]
    for call in [call for call in calls if call.outputs] or calls:  # one that raised has none
        first.setdefault(trace.outermost(call).index, call)
    return list(first.values())


def _node(call: Call, before: bool) -> int | None:
    nodes = call.inputs if before else call.outputs
    return nodes[0] if nodes else None


def _rows(trace: Trace, call: Call, before: bool) -> Rows:
    """The rows of what a call was given or gave; where they are lost, those of what the model was called with."""
    node = _node(call, before)
    rows = OTHER_ROWS if node is None else trace.nodes[node].rows
    if rows.places is None:
        sources = [trace.nodes[source].rows for source in trace.outermost(call).inputs]
        outer = next((source for source in sources if source != OTHER_ROWS), OTHER_ROWS)
        if len(outer.places or ()) == _count(trace, call, before):
            return outer
    return rows


def _count(trace: Trace, call: Call, before: bool) -> int:
    node = _node(call, before)
    shape = trace.nodes[node].shape if node is not None else ()
    return shape[0] if shape else 0


@dataclass(frozen=True)
class ChosenView:
    """Which of several views a step takes for its answer.

    Attributes:
        one: Its place among them; None if it is not one of them.
        merged: What it makes of all of them; "" if that is not followed.
        is_clear: Whether something was seen that says so.
    """

    one: int | None
    merged: str = ""
    is_clear: bool = True


def judged(trace: Trace, nodes: Sequence[int], values: Sequence[Tensor]) -> ChosenView:
    """Which of several answers for the same images is the step's: the one that its losses, its choice of the largest
    and what it returns are made of, or what it makes of all.

    Args:
        trace: Of an evaluation batch.
        nodes: The answers.
        values: Their values.
    """
    looked_at = [loss.answer for loss in trace.losses] + trace.returned
    looked_at += [parent for node in trace.nodes if node.name in LARGEST and node.call < 0 for parent in node.parents]
    touched = {
        number: [i for i, answer in enumerate(nodes) if answer in trace.steps_behind(number)] for number in looked_at
    }
    alone = {answer[0] for answer in touched.values() if len(answer) == 1 < len(nodes)}
    together = [number for number, answer in touched.items() if len(answer) == len(nodes)]
    if together and not alone:
        made = {step for number in together for step in trace.steps_behind(number)}
        for way in (MEAN, MEAN_OF_SOFTMAX):
            expected = merged_rows(way, values)
            if any(_is_close(trace.values[step], expected) for step in made if step in trace.values):
                return ChosenView(None, way)
        return ChosenView(None)
    if len(alone) == 1 and not together:
        return ChosenView(alone.pop())
    return ChosenView(0, is_clear=False)


def _is_close(value: Tensor, expected: Tensor) -> bool:
    return value.shape == expected.shape and bool(
        torch.allclose(value.float(), expected.float(), rtol=_CLOSE, atol=1e-6)
    )


# -- compiled models

_STEPS = ("forward", "training_step", "validation_step", "test_step", "predict_step")
#: What a compiled function has that no other has.
_MARK = "_torchdynamo_orig_callable"


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, a part of it or one of its steps is compiled by `torch.compile`.

    Example:
        >>> is_compiled(nn.Sequential(nn.Linear(2, 2)))
        False
    """
    if getattr(model, "_compiler_ctx", None) is not None:
        return True
    return any(map(_is_compiled, model.modules()))


def has_compiled(model: nn.Module) -> bool:
    """Whether a model is compiled, or some of its modules has a compiled function, as a method or an attribute.

    Example:
        >>> class Encoder(nn.Module):
        ...     @torch.compile
        ...     def encode(self, images):
        ...         return images
        >>> is_compiled(Encoder()), has_compiled(Encoder())
        (False, True)
    """
    return is_compiled(model) or any(map(_has_compiled, model.modules()))


def forget_compiled(model: nn.Module) -> None:
    """Before hooks are put on a model: if code was compiled of it, let it be compiled again, with them."""
    if has_compiled(model):
        torch.compiler.reset()


def root_of_compiled(model: nn.Module) -> nn.Module | None:
    """The module of a compiled model whose answer is the model's; None if that is not clear."""
    if has_forward(model) or "_orig_mod" in model._modules:
        return model
    wrappers = [module for module in model.children() if _is_compiled(module)]
    return wrappers[0] if len(wrappers) == 1 else None


def _is_compiled(module: nn.Module) -> bool:
    if "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None:
        return True
    return any(hasattr(getattr(module, name, None), _MARK) for name in _STEPS)


def _has_compiled(module: nn.Module) -> bool:
    return any(hasattr(value, _MARK) for value in _attributes(module))


def _attributes(module: nn.Module) -> Iterator[object]:
    yield from vars(module).values()
    for base in type(module).__mro__:
        if base.__module__.split(".")[0] != "torch":
            yield from vars(base).values()


def _are_same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.shape == two.shape and bool(torch.equal(one, two))


def _info_of_compiled(answer: torch.Tensor) -> dict[str, Any]:
    sentence = "what the compiled model returned; its loss could not be followed"
    return {"auto": True, "layer": "", "linear": False, "columns": answer[0].numel(), "loss": UNSEEN, "found": sentence}


def _without_answer(rows: dict[str, Array]) -> dict[str, Array]:
    return {key: values for key, values in rows.items() if key not in (ANSWER, MORE)}
