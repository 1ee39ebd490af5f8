"""What stops a program is nobody's failure: it passes wherever failures are kept from the user's code.

Ctrl-C and exits are no `Exception` and pass by themselves. But a time limit, a scheduler's notice or a loader's dead
worker arrive as an `Exception` like any other: raised by the user's own signal handler, or by another thread
(`PyThreadState_SetAsyncExc`), at whatever line runs at the moment, which may be one of ours or of a user's measure.
They are told from failures by where they come from, which the traceback shows.
"""

from __future__ import annotations

import dis
import inspect
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from itertools import pairwise
from types import CodeType, FrameType, TracebackType
from typing import Any, Final

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
    for each in _with_causes(error):
        passes = isinstance(each, KeyboardInterrupt | SystemExit)
        if passes or (isinstance(each, Exception) and (_is_from_a_handler(each) or _is_from_a_thread(each))):
            raise each


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
    known: list[BaseException] = []  # errors may be causes of themselves: `raise error from error`
    while following is not None and all(following is not each for each in known):
        yield following
        known.append(following)
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
        for number, given in pairwise(_positional(frame)):
            if given is not None and given is frame.f_back and isinstance(number, int):
                return True
        if frame.f_code in _codes_of_handlers() and _loses_arguments(frame.f_code):
            return True
    return False


def _positional(frame: FrameType) -> list[object]:
    code, values = frame.f_code, frame.f_locals
    names = code.co_varnames
    given = [values.get(name) for name in names[: code.co_argcount]]
    if code.co_flags & inspect.CO_VARARGS:  # their name comes after those by keyword only
        given += values.get(names[code.co_argcount + code.co_kwonlyargcount], ())
    return given


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
    for each in dis.get_instructions(code):
        names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
        if each.opname.startswith(("STORE_", "DELETE_")) and not arguments.isdisjoint(names):
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
