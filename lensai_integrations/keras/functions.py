"""The functions that Keras's loops call for every step, exchanged for ones that also hand out what was caught.

Keras builds them before any callback is asked, and reads `model.train_function` anew at every step. So `exchange` puts
another one there, and `restore` puts the first one back: a model is left with exactly what it had. What a backend's
function looks like is in the module of its name. A step that is not to be profiled is run by the model's own, so where
not all are, both are traced and compiled, each once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from importlib import import_module
from typing import Any, Final, Protocol

import keras

from lensai_integrations.keras.taps import NotProfiledError, Pick, Sink, Spending, Taps
from lensai_integrations.problems import Problems
from lensai_integrations.training.cost import Clock

_MODULES: Final = {"tensorflow": "steps_tensorflow", "jax": "steps_jax", "torch": "steps_torch"}


class Steps(Protocol):
    """What a backend's module has."""

    def lag(self) -> int:
        """How many steps later the values of a step can be looked at without waiting."""
        ...

    def place(self) -> Any:
        """Where in which graph the caller is."""
        ...

    def build(
        self, model: Any, kind: str, taps: Taps, pick: Pick, sink: Sink, spending: Spending
    ) -> Callable[..., Any]:
        """A function to put in the place of the model's."""
        ...

    def clock(self, model: Any) -> Clock:
        """What takes the time of its steps."""
        ...

    def processes(self, model: Any) -> int:
        """How many processes have to run the same functions in the same order, as they compute a step together."""
        ...

    def arrived(self, handed_out: Any) -> None:
        """Have what a step handed out where measuring it would wait for it, so that the wait does not count."""
        ...


def steps() -> Steps:
    """The module for Keras's backend.

    Raises:
        NotImplementedError: If there is none for it.
    """
    backend = keras.backend.backend()
    if backend not in _MODULES:
        raise NotImplementedError(f"the Keras backend {backend!r} is not supported: use {', '.join(_MODULES)}")
    module: Any = import_module(f"lensai_integrations.keras.{_MODULES[backend]}")
    return module  # type: ignore[no-any-return]


class Exchange:
    """A function of a model that is exchanged for another, and back.

    Args:
        model: The model.
        kind: `"train"`, `"test"` or `"predict"`.
        taps: The layers that are read.
        pick: Picks what is wanted of a batch.
        sink: Takes what was picked and caught.
        problems: Where it is reported if the function cannot be exchanged.
        interrupted: Called when a step raises: Keras tells no callback of that.
        begins: Called before every step, with what the function is called with; whether it is to be profiled.
        ended: Called after every step, with whether it was ours.
        spending: A context for what is done to profile a step.
    """

    def __init__(
        self,
        model: Any,
        kind: str,
        taps: Taps,
        pick: Pick,
        sink: Sink,
        problems: Problems,
        interrupted: Callable[[], None],
        begins: Callable[[Sequence[Any]], Any],
        ended: Callable[[bool], None] = lambda profiled: None,
        spending: Spending = nullcontext,
    ) -> None:
        self._model, self._kind, self._interrupted = weakref.ref(model), kind, interrupted
        self.begins, self.ended, self._spending = begins, ended, spending
        self._taps, self._problems = taps, problems
        self._pick, self._sink = self._calm(pick, dict), self._calm(sink, lambda: None)
        self._name = f"{kind}_function"
        self._original: Any = None
        self._ours: GuardedFunction | None = None
        self.active = False

    def _calm(self, function: Callable[[Any], Any], otherwise: Callable[[], Any]) -> Callable[[Any], Any]:
        """The function; where it raises, that is a problem, and the training goes on."""

        def calm(argument: Any) -> Any:
            with self._problems.caught(f"{self._kind} steps"):
                return function(argument)
            return otherwise()

        return calm

    def exchange(self) -> None:
        """Put ours in the place of the model's. One that was built before is used again, so nothing is traced twice."""
        model = self._model()
        original = getattr(model, self._name, None)
        if model is None or original is None or (self.active and original is self._ours):
            return
        problem = why_not(model, self._kind)
        if isinstance(original, GuardedFunction):
            if original.owner.active and original is not self._ours:
                problem = "another callback of lensai_integrations reads these steps already: use one, with all layers"
            original = original.original
        if problem:
            self._problems.note(f"{self._kind} steps", problem)
            return
        with self._problems.caught(f"{self._kind} steps"):
            if self._ours is None or self._ours.gave_up or original is not self._original:
                setattr(model, self._name, original)
                ours = steps().build(model, self._kind, self._taps, self._pick, self._sink, self._spending)
                self._ours, self._original = GuardedFunction(ours, original, self), original
            setattr(model, self._name, self._ours)
            self.active = True

    def failed(self, error: BaseException) -> None:
        """Say that a function of ours did not work at all."""
        self._problems.note(f"{self._kind} steps", f"they run without being profiled: {error!r}")

    def interrupted(self) -> None:
        """A step has raised: the fit is over, unless the user begins another."""
        if self.active:
            with self._problems.caught("an interruption"):
                self._interrupted()

    def restore(self) -> None:
        """Put the model's own back, if ours is still there."""
        model = self._model()
        if model is not None and self._ours is not None and getattr(model, self._name, None) is self._ours:
            setattr(model, self._name, self._original)
        self.active = False


class GuardedFunction:
    """Calls ours; if that fails before it has ever worked, says so and calls the model's own from then on.

    An error in tracing is either ours, and training goes on without being profiled, or the model's, and then its own
    function raises it.
    """

    def __init__(self, ours: Callable[..., Any], original: Callable[..., Any], owner: Exchange) -> None:
        self._ours, self.original, self.owner = ours, original, owner
        self._worked = self.gave_up = False

    def __call__(self, *arguments: Any) -> Any:
        """Run a step, or several."""
        try:
            return self._called(*arguments)
        except BaseException as error:
            if not isinstance(error, StopIteration) and type(error).__name__ != "OutOfRangeError":
                self.owner.interrupted()
            raise

    def _called(self, *arguments: Any) -> Any:
        if self.gave_up or not self.owner.active:
            return self.original(*arguments)
        if not self.owner.begins(arguments):
            result = self.original(*arguments)
            self.owner.ended(False)
            return result
        try:
            result = self._ours(*arguments)
        except NotProfiledError as error:
            if self._worked:
                raise
            self.gave_up = True
            self.owner.failed(error.__cause__ or error)
            return self.original(*error.args)
        self._worked = True
        self.owner.ended(True)
        return result


def abandoned(model: Any, kind: str, owners: Collection[Exchange]) -> None:
    """If a model still has a function that none of these owners exchanged, of a fit that is over: end that fit."""
    function = getattr(model, f"{kind}_function", None)
    if isinstance(function, GuardedFunction) and all(function.owner is not owner for owner in owners):
        function.owner.interrupted()


def why_not(model: Any, kind: str) -> str:
    """Why a model's function cannot be exchanged; empty if it can."""
    maker = getattr(type(model), f"make_{kind}_function", None)
    owner = getattr(maker, "__module__", "")
    if not owner.startswith("keras."):
        return (
            f"{type(model).__name__} makes its own {kind}_function, which cannot be rebuilt: it is left alone and not"
            f" profiled; override {kind}_step instead"
        )
    return ""
