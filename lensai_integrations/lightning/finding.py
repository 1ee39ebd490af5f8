"""What `"auto"` stands for in a model: its first batches are traced, the answer is decided, and hooks are put there.

Traced are the first batch of an evaluation pass, the sanity check's if there is one, and the first training batch,
which shows the loss. Until then, and where a model is compiled and cannot be traced, the last Linear is a guess; a
compiled model's guess is held against what the model returns, value by value, and dropped where they differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from lensai_integrations.arrays import Array
from lensai_integrations.lightning.answer import Answer, Reading, decide, has_forward, loss_of
from lensai_integrations.lightning.layers import Layer
from lensai_integrations.lightning.taps import ANSWER, Tap, Taps
from lensai_integrations.lightning.trace import Trace
from lensai_integrations.measures.embeddings import Reduce
from lensai_integrations.training.options import Options
from lensai_integrations.training.problems import Problems
from lensai_integrations.training.recording import LAYER, OUTPUTS

#: The topic of what is said of it.
TOPIC: Final = "the model's answer"
_STEPS: Final = ("forward", "training_step", "validation_step", "test_step", "predict_step")


class Finder:
    """Decides what a model answers, and puts the taps there.

    Args:
        model: The model.
        options: Which of outputs and layers are `"auto"`.
        taps: The hooks that there are so far.
        problems: Where it is said what is not clear.
        before: The finder of an earlier pass of the same model, whose training batch shows the loss.

    Attributes:
        place: Where the labels are in a batch, once the loss has shown it.
    """

    def __init__(
        self, model: nn.Module, options: Options, taps: Taps, problems: Problems, before: Finder | None = None
    ) -> None:
        self._model, self._options, self._taps, self._problems = model, options, taps, problems
        self._outputs, self._layers = options.outputs == "auto", options.layers == "auto"
        same = before is not None and before._model is model
        self._evaluation: Trace | None = None
        self._training: Trace | None = before._training if before is not None and same else None
        self._open: Trace | None = None
        self._unsaid: list[str] = []
        self.place: tuple[int | str, ...] | None = before.place if before is not None and same else None
        self._compiled = is_compiled(model)
        if self._compiled and (self._outputs or self._layers):
            self._look_at_answer()

    def open(self, batch: Any, *, recorded: bool, exact: bool = True) -> None:
        """Before a batch: trace it, if it is the first of its kind.

        Args:
            batch: What the model is about to be given.
            recorded: Whether layers are read in this batch.
            exact: Whether what it computes is used.
        """
        self.stop_tracing()
        training = self._model.training
        if self._compiled or (self._training if training else self._evaluation) is not None:
            return
        keep = _reduction(self._options.reduce) if recorded else None
        self._open = Trace(self._model, batch, keep=keep, beside_attention=exact and not training)
        with self._problems.caught(TOPIC):
            self._open.start()

    def close(self) -> bool:
        """After a batch: if it was traced, decide.

        Returns:
            Whether it was traced.
        """
        trace = self._open
        self.stop_tracing()
        if trace is None:
            return False
        if not trace.is_sound():
            if trace.error is not None:
                self._problems.note(TOPIC, f"a batch could not be followed through the model: {trace.error!r}")
        elif trace.training:
            self._training = trace
        else:
            self._evaluation = trace
        with self._problems.caught(TOPIC):
            self._decide(trace)
        return True

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
        traces = [each for each in (self._evaluation, self._training) if each is not None]
        if not traces:
            return
        for key, info in loss_of(self._model, traces, self._named()).items():
            self._taps.describe(key, **info)
        answer = decide(self._model, traces, self._arguments())
        self.place = answer.place or self.place
        readings = self._readings(answer)
        taps = [self._tap(key, reading) for key, reading in readings.items()]
        self._taps.replace(self._keys(), taps, _caught(readings) if traces[0] is trace else {})
        self._unsaid = answer.problems if self._outputs or self._layers else []
        if len(traces) == 2:
            self.settle()

    def _named(self) -> dict[str, str]:
        """The outputs that were asked for by a layer's name."""
        return {} if self._outputs else {tap.key: tap.layer.path for tap in self._taps if tap.key == OUTPUTS}

    def _arguments(self) -> str:
        both = self._outputs and self._layers
        return "outputs= and layers=[...]" if both else "outputs=" if self._outputs else "layers=[...]"

    def _keys(self) -> list[str]:
        """The keys of the taps that "auto" has put there."""
        outputs = [tap.key for tap in self._taps if self._outputs and tap.key.split("/")[0] == OUTPUTS]
        return outputs + [tap.key for tap in self._taps if self._layers and tap.key.startswith(LAYER)]

    def _readings(self, answer: Answer) -> dict[str, Reading]:
        found = {}
        if self._outputs:
            found |= {f"{OUTPUTS}/{name}" if name else OUTPUTS: each for name, each in answer.outputs.items()}
        if self._layers:
            found |= {LAYER + name: each for name, each in answer.embeddings.items()}
        return found

    def _tap(self, key: str, reading: Reading) -> Tap:
        reduce = self._options.reduce_of(key.removeprefix(LAYER)) if key.startswith(LAYER) else None
        return Tap(key, reading.layer, reduce, reading.head, reading.info)

    # Compiled models.

    def _look_at_answer(self) -> None:
        root = _root_of_compiled(self._model)
        if root is None:
            self._problems.note(TOPIC, "the model is compiled as a whole: its last Linear is taken for its answer,"
                                " unverified; name the layers with outputs= and layers=[...]")  # fmt: skip
            return
        self._taps.replace([], [Tap(ANSWER, Layer(ANSWER, "", root))], {})
        self._taps.verify = self._verified
        self._agrees: bool | None = None

    def _verified(self, rows: dict[str, Array]) -> dict[str, Array]:
        """The rows of a batch, those of the guess only if the guess is what the model answered in the first batch."""
        answer = rows.pop(ANSWER, None)
        if not rows:
            return rows
        if self._agrees is None and answer is not None:
            self._agrees = self._is_guess(answer, rows)
        if self._agrees is False:
            return {key: each for key, each in rows.items() if key not in self._keys()}
        return rows

    def _is_guess(self, answer: Any, rows: Mapping[str, Any]) -> bool:
        guess = rows.get(OUTPUTS)
        if guess is not None and guess.shape == answer.shape and bool(torch.equal(guess, answer)):
            return True
        self._problems.note(TOPIC, "the model is compiled, and what it returns is not what its last Linear answers, so"
                            f" neither is read: name the layers. Pass {self._arguments()}, or None")  # fmt: skip
        return False


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, a part of it or one of its steps is compiled by `torch.compile`.

    Example:
        >>> is_compiled(nn.Sequential(nn.Linear(2, 2)))
        False
    """
    if getattr(model, "_compiler_ctx", None) is not None:
        return True
    return any(_is_compiled(module) for module in model.modules())


def _is_compiled(module: nn.Module) -> bool:
    if "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None:
        return True
    return any(hasattr(getattr(module, name, None), "_torchdynamo_orig_callable") for name in _STEPS)


def _root_of_compiled(model: nn.Module) -> nn.Module | None:
    if has_forward(model):
        return model
    wrappers = [module for module in model.children() if _is_compiled(module)]
    return wrappers[0] if len(wrappers) == 1 else None


def _reduction(reduce: Reduce | Mapping[str, Reduce]) -> Reduce:
    if isinstance(reduce, Mapping):
        return next(iter(reduce.values())) if len(set(map(id, reduce.values()))) == 1 else "mean"
    return reduce


def _caught(readings: Mapping[str, Reading]) -> dict[str, tuple[int, torch.Tensor]]:
    return {
        key: (reading.axes if reading.axes is not None else reading.rows.ndim, reading.rows)
        for key, reading in readings.items()
        if reading.rows is not None
    }
