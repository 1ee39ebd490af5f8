"""What goes wrong beside the work of others: said once with its cause, counted, and never fatal.

A training, a service and a pipeline go on whatever fails in here. So the first problem of a topic is logged, all are
counted, and whoever reports at the end (a manifest, the status of a monitor) has a sentence for each topic. What goes
wrong in a hook of a callback (`guarded`) never reaches the framework that calls it.

What stops a program is nobody's failure: it passes (`pass_on`) wherever failures are kept from the user's code. Ctrl-C
and exits are no `Exception` and pass by themselves. But a time limit, a scheduler's notice or a loader's dead worker
arrive as an `Exception` like any other: raised by the user's own signal handler, or by another thread
(`PyThreadState_SetAsyncExc`), at whatever line runs at the moment, which may be one of ours or of a user's measure.
They are told from failures by where they come from, which the traceback shows.
"""

from __future__ import annotations

import dis
import inspect
import logging
import signal
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial, wraps
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import pairwise
from types import CodeType, FrameType, TracebackType
from typing import Any, Final, TypeVar, cast

from lensai_integrations.errors import InputError, LensAIError, told

log: Final = logging.getLogger("lensai_integrations")


class Problems:
    """Collects what is wrong or missing, by topic; the first problem of a topic is logged, with its cause.

    Args:
        monitor: Of which monitor, that its log lines name; its status counts what is not logged. Empty for none.
        quiet: Collect without logging, as on all ranks but the first.
        most: How much is told by `remark` and `first` at the most, where each may name another value; None for all.

    Attributes:
        messages: A sentence per topic, in the order they came up.
        counts: How often, by topic.
        causes: The last cause, by topic.

    Example:
        >>> problems = Problems(quiet=True)
        >>> for _ in range(2):
        ...     with problems.caught("labels"):
        ...         {}["label"]
        >>> problems.messages, problems.counts, problems.total
        (["labels: KeyError('label')"], {'labels': 2}, 2)
    """

    def __init__(self, monitor: str = "", *, quiet: bool = False, most: int | None = None) -> None:
        self._monitor, self._quiet, self._most = monitor, quiet, most
        self._told: set[Hashable] = set()
        self.messages: list[str] = []
        self.counts: dict[str, int] = {}
        self.causes: dict[str, str] = {}

    def clear(self) -> None:
        """Forget all."""
        for collected in (self._told, self.messages, self.counts, self.causes):
            collected.clear()

    @property
    def total(self) -> int:
        """All problems together."""
        return sum(self.counts.values())

    def note(self, topic: str, problem: str | Exception, *, listed: bool = True) -> None:
        """Count a problem, and remember and log it if it is the first of its topic.

        Args:
            topic: What it is about.
            problem: What is wrong and what to do, or the error that says so.
            listed: Whether `messages` has it; not if a profile already says so itself.
        """
        expected = isinstance(problem, str | LensAIError)
        message = f"{topic}: {problem if expected else repr(problem)}"
        first = topic not in self.counts
        self.counts[topic] = self.counts.get(topic, 0) + 1
        self.causes[topic] = str(problem) if expected else f"{type(problem).__name__}: {problem}"
        if not first:
            return
        if listed:
            self.messages.append(message)
        if self._monitor:
            message = f"{topic}: {self.causes[topic]} (logged once; its status counts the rest)"
        self._log(message, ", ", None if expected else problem)  # type: ignore[arg-type]

    def remark(self, sentence: str, topic: str = "") -> None:
        """Log what a reader should know, once. It is no problem, and not counted.

        Args:
            sentence: What is logged.
            topic: What it is about; by default, every sentence is about something else.
        """
        if self.first(topic or sentence):
            self._log(sentence)

    def first(self, topic: Hashable) -> bool:
        """Whether something is to be told for the first time, which it is with this.

        Example:
            >>> problems = Problems()
            >>> problems.first("sensor 1"), problems.first("sensor 1")
            (True, False)
        """
        if topic in self._told or (self._most is not None and len(self._told) >= self._most):
            return False
        self._told.add(topic)
        return True

    def _log(self, sentence: str, joined: str = ": ", error: Exception | None = None) -> None:
        if not self._quiet:
            named = f"monitor {self._monitor!r}{joined}" if self._monitor else ""
            log.warning("%s", named + sentence, exc_info=error)

    def caught(self, topic: str, *raised: type[Exception]) -> Caught:
        """A context that turns an exception in its block into a problem.

        Args:
            topic: What is done in the block.
            raised: Exceptions that pass; so do Ctrl-C, exits and what a signal handler raises (`pass_on`).
        """
        return Caught(self, topic, raised)


class Caught:
    """See `Problems.caught`."""

    def __init__(self, problems: Problems, topic: str, raised: tuple[type[Exception], ...]) -> None:
        self._problems, self._topic, self._raised = problems, topic, raised

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self._raised):
            return False
        pass_on(error)
        self._problems.note(self._topic, error)
        return True


Hook = TypeVar("Hook", bound=Callable[..., None])


def guarded(what: str, *raised: type[Exception]) -> Callable[[Hook], Hook]:
    """Decorate a hook: what it raises becomes a problem of the fit, but for the exceptions named.

    Where the callback has no fit, nothing is done.

    Args:
        what: What is done in the hook.
        raised: Exceptions that pass, which wrong arguments cause.

    Example:
        >>> class Callback:
        ...     _fit = None
        ...
        ...     @guarded("starting")
        ...     def on_start(self):
        ...         1 / 0
        >>> Callback().on_start()
    """

    def decorate(hook: Hook) -> Hook:
        @wraps(hook)
        def calm(self: Any, *args: Any, **kwargs: Any) -> None:
            if self._fit is None:
                return
            with self._fit.problems.caught(what, *raised):
                hook(self, *args, **kwargs)

        return cast(Hook, calm)

    return decorate


#: A class's flag (`Py_TPFLAGS_HEAPTYPE`): it is not one of the built-in ones.
_MADE_AT_RUN_TIME: Final = 1 << 9
#: Of coroutines, whose awaited futures raise without a line of Python.
_AWAITING: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
#: The instructions by which Python code raises; at the last a generator is thrown something.
_RAISING: Final = frozenset(dis.opmap[name] for name in ("RAISE_VARARGS", "RERAISE", "YIELD_VALUE"))


def pass_on(error: BaseException) -> None:
    """Raise what has stopped the program, if an error is that or was made of it; of any other error, nothing.

    It is called first where errors are caught: `except Exception as error: pass_on(error)`.

    Args:
        error: What was caught.

    Example:
        >>> pass_on(ValueError("a failure"))
        >>> pass_on(SystemExit(0))
        Traceback (most recent call last):
        SystemExit: 0
    """
    for cause in _with_causes(error):
        passes = isinstance(cause, KeyboardInterrupt | SystemExit)
        if passes or (isinstance(cause, Exception) and (_is_from_a_handler(cause) or _is_from_a_thread(cause))):
            raise cause


class Failures:
    """What failed last, by name, to be told again: with where that was only once.

    An error that has been raised holds what the functions held that it went through, whole batches of images. So what
    is kept for longer, here for as long as the process runs, is another that says the same.

    Example:
        >>> failures = Failures()
        >>> try:
        ...     [][0]
        ... except IndexError as error:
        ...     failures["glare"] = error
        >>> failures["glare"].__traceback__ is None, failures["glare"].__traceback__ is None, failures["glare"]
        (False, True, IndexError('list index out of range'))
    """

    def __init__(self) -> None:
        self._errors: dict[str, Exception] = {}

    def __setitem__(self, name: str, error: Exception) -> None:
        self._errors[name] = error

    def __getitem__(self, name: str) -> Exception:
        error = self._errors[name]
        self._errors[name] = _alike(error)  # for whoever gets one may raise it
        return error


def _alike(error: Exception) -> Exception:
    """One that says the same, without where it was raised."""
    try:
        return copy(error)
    except Exception as other:  # noqa: BLE001  it is made of something else than what it keeps
        pass_on(other)
        return InputError(told(error))


@contextmanager
def suppressed(*kinds: type[Exception]) -> Iterator[None]:
    """`contextlib.suppress`, but what stops the program passes: a time limit may be a `TimeoutError`, an `OSError`.

    Args:
        kinds: What is nobody's business in the block.

    Example:
        >>> with suppressed(OSError):
        ...     open("nowhere/at all")
    """
    try:
        yield
    except kinds as error:
        pass_on(error)


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those it was raised in place of. One that the caller was handling before is no cause: it was caught
    by a frame that runs still, and in which this error has not been."""
    following: BaseException | None = error
    earlier: list[BaseException] = []  # errors may be causes of themselves: `raise error from error`
    while following is not None and all(following is not cause for cause in earlier):
        yield following
        earlier.append(following)
        frames = [trace.tb_frame for trace in _traces(following)]
        following = following.__context__ if following.__cause__ is None else following.__cause__
        first = None if following is None else next((trace.tb_frame for trace in _traces(following)), None)
        if first is None or (first not in frames and first in _running()):
            return


def _running() -> Iterator[FrameType]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _traces(error: BaseException) -> Iterator[TracebackType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _is_from_a_handler(error: BaseException) -> bool:
    """Whether a signal handler has raised it: a function given a number and the very frame it was called in.

    One that has put something else in the place of these, or deleted them, is known by being a handler now. Where it
    was called the traceback need not say: Keras and TensorFlow cut their own lines out of it.
    """
    for trace in _traces(error):
        frame = trace.tb_frame
        for number, caller in pairwise(_positional(frame)):
            if caller is not None and caller is frame.f_back and isinstance(number, int):
                return True
        if frame.f_code in _codes_of_handlers() and _loses_arguments(frame.f_code):
            return True
    return False


def _positional(frame: FrameType) -> list[object]:
    code, values = frame.f_code, frame.f_locals
    names = code.co_varnames
    arguments = [values.get(name) for name in names[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:  # their name comes after those by keyword only
        arguments += values.get(names[code.co_argcount + code.co_kwonlyargcount], ())
    return arguments


def _codes_of_handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if callable(handler):
            function = handler if hasattr(handler, "__code__") else type(handler).__call__
            if hasattr(function, "__code__"):
                yield function.__code__


def _loses_arguments(code: CodeType) -> bool:
    """Whether a function puts something in the place of its arguments, or deletes them."""
    many = bool(code.co_flags & inspect.CO_VARARGS)
    arguments = {*code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + many]}
    for instruction in dis.get_instructions(code):
        names = instruction.argval if isinstance(instruction.argval, tuple) else (instruction.argval,)
        if instruction.opname.startswith(("STORE_", "DELETE_")) and not arguments.isdisjoint(names):
            return True
    return False


def _is_from_a_thread(error: BaseException) -> bool:
    """Whether another thread has put it here: of a class that Python code has made, without a word, and no line of
    Python has raised it."""
    last = next(reversed(list(_traces(error))), None)
    if error.args or last is None or not _is_of_python(type(error)):
        return False
    code = last.tb_frame.f_code
    return code.co_code[last.tb_lasti] not in _RAISING and not code.co_flags & _AWAITING


def _is_of_python(kind: type) -> bool:
    """Whether Python code has made a class; C code raises its own without a line of Python, as `queue.Empty`."""
    home = str(kind.__module__)
    file = str(getattr(sys.modules.get(home), "__file__", ""))
    is_of_c = home in sys.builtin_module_names or file.endswith((*EXTENSION_SUFFIXES,))
    return bool(kind.__flags__ & _MADE_AT_RUN_TIME) and not is_of_c
