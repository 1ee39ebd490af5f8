"""Real signals, and exceptions that another thread puts into this one: they pass wherever failures are kept back."""

from __future__ import annotations

import ast
import asyncio
import ctypes
import inspect
import queue
import signal
import threading
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path

import numpy as np
import pytest

import lensai_integrations
from lensai_integrations import Baseline, DriftMonitor, Profiler, measure
from lensai_integrations.problems import Problems, pass_on

#: Windows has no signals that a program may send to itself but Ctrl-C's.
SIGNAL = signal.SIGTERM


class TimeUpError(Exception):
    pass


def raises(number, frame):
    raise TimeUpError("the night is over")


class Handler:
    def __call__(self, number, frame):
        raise TimeUpError

    def method(self, number, frame):
        raise TimeUpError

    @classmethod
    def of_class(cls, number, frame):
        raise TimeUpError


def passing_on(handler):
    @wraps(handler)
    def run(*arguments, **keywords):
        return handler(*arguments, **keywords)

    return run


def resets_itself(number, frame):
    signal.signal(number, signal.SIG_DFL)
    raise TimeUpError


def deep(number, frame):
    def inner():
        [raises(number, None) for _ in range(1)]

    inner()


def of_an_error(number, frame):
    try:
        {}["the job's end"]
    except KeyError as error:
        raise TimeUpError from error


def chained(number, frame):
    raises(number, frame)  # handlers that call the one that was there before


def builtin(number, frame):
    raise TimeoutError("the night is over")


def deletes_its_arguments(number, frame):
    del number, frame
    raise TimeUpError


def looks_up_its_arguments(number, frame):
    number = signal.Signals(number).name
    while frame:
        frame = frame.f_back
    raise TimeUpError(number)


class Forgetful:
    def __call__(self, *arguments):
        arguments = ()
        raise TimeUpError(*arguments)


HANDLERS = {
    "function": raises,
    "object": Handler(),
    "method": Handler().method,
    "class method": Handler.of_class,
    "partial": partial(lambda when, number, frame: Handler()(number, frame), "tonight"),
    "of any arguments": lambda *_: (_ for _ in ()).throw(TimeUpError("thrown")),
    "wrapped": passing_on(raises),
    "reset": resets_itself,
    "deep": deep,
    "of an error": of_an_error,
    "chained": chained,
    "built-in": builtin,
    "deletes": deletes_its_arguments,
    "looks up": looks_up_its_arguments,
    "forgets": Forgetful(),
    "forgets, partial": partial(partial(Forgetful())),
}


@contextmanager
def handled_by(handler):
    before = signal.signal(SIGNAL, handler)
    try:
        yield
    finally:
        signal.signal(SIGNAL, before)


def interrupt():
    signal.raise_signal(SIGNAL)


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
@pytest.mark.parametrize("catching", [Problems(quiet=True), Problems("monitor")], ids=["training", "monitoring"])
def test_what_a_signal_handler_raises_passes(handler, catching):
    with handled_by(handler), pytest.raises((TimeUpError, TimeoutError)), catching.caught("a topic"):
        interrupt()
    with catching.caught("another topic"):
        raise ValueError("a failure")  # is still none of the program's business


def test_what_is_made_of_an_interruption_raises_the_interruption():
    def fails_instead():
        try:
            interrupt()
        except Exception as error:
            raise RuntimeError("the step failed") from error

    def fails_silently():
        try:
            interrupt()
        except Exception:
            raise RuntimeError("the step failed") from None

    def fails_at_ctrl_c():
        try:
            raise KeyboardInterrupt
        except BaseException as error:
            raise RuntimeError("the step failed") from error

    for function in (fails_instead, fails_silently, fails_at_ctrl_c):
        with (
            handled_by(raises),
            pytest.raises((TimeUpError, KeyboardInterrupt)),
            Problems(quiet=True).caught("a step"),
        ):
            function()


def test_an_interruption_whose_traceback_was_cut_down_raises_the_interruption():
    """As Keras and TensorFlow do it, to errors of whatever calls them, and to those they make of these."""

    def within():
        interrupt()

    def cuts(call):
        try:
            call()
        except Exception as error:
            trace = error.__traceback__
            while trace.tb_next is not None:
                trace = trace.tb_next
            raise error.with_traceback(trace) from None

    def anew():
        try:
            cuts(within)
        except Exception as error:
            raise type(error)("in user code")  # noqa: B904

    for function in (within, anew):
        with handled_by(raises), pytest.raises(TimeUpError, match="over"), Problems(quiet=True).caught("a step"):
            cuts(function)


@pytest.mark.parametrize("before", [KeyboardInterrupt, TimeUpError])
def test_a_failure_after_an_interruption_that_the_user_has_caught_is_a_failure(before):
    """A fit that a user begins where another was cut short."""
    problems = Problems(quiet=True)

    def fails():
        raise ValueError("a failure")

    def fit():
        with problems.caught("a step"):
            fails()

    with handled_by(raises):
        try:
            if before is KeyboardInterrupt:
                raise KeyboardInterrupt
            interrupt()
        except (KeyboardInterrupt, TimeUpError):
            fit()
    assert problems.messages == ["a step: ValueError('a failure')"]


def test_functions_that_look_at_frames_are_no_handlers():
    problems = Problems(quiet=True)

    def given(depth, frame):
        raise ValueError(frame.f_lineno)

    def looks(depth):
        frame = inspect.currentframe().f_back
        raise ValueError(frame.f_lineno)

    for i, function in enumerate((lambda: given(1, inspect.currentframe().f_back), lambda: looks(2))):
        with problems.caught(f"step {i}"):
            function()
    assert len(problems.messages) == 2


def test_a_handler_that_a_user_s_measure_calls_is_one_of_its_functions():
    """Also where others that forget their arguments are handlers, and where nobody is."""
    problems = Problems(quiet=True)
    with handled_by(deletes_its_arguments):
        calls = (lambda: raises(2, None), lambda: builtin(None, None), lambda: signal.Signals(-1))
        for i, function in enumerate(calls):
            with problems.caught(f"step {i}"):
                function()
    with problems.caught("step 3"):
        deletes_its_arguments(2, None)
    assert len(problems.messages) == 4


def of_itself():
    error = ValueError("a failure")
    raise error from error


def of_one_another():
    first, second = ValueError("a failure"), ValueError("another")
    first.__cause__, second.__cause__ = second, first
    try:
        raise second
    except ValueError:
        raise first  # noqa: B904


@pytest.mark.parametrize("fails", [of_itself, of_one_another])
def test_errors_that_are_causes_of_themselves_are_failures(fails):
    problems = Problems(quiet=True)
    with problems.caught("a step"):
        fails()
    assert problems.messages == ["a step: ValueError('a failure')"]


def put_into_this_thread(kind):
    """As libraries for time limits do it: an exception comes up at whatever line runs next."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(kind))


def runs_on():
    for _ in range(10):
        np.sort(np.zeros(4))


@pytest.mark.parametrize("kind", [TimeUpError, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("runs", [runs_on, lambda: sum(i for i in range(10)), lambda: [str(i) for i in range(10)]])
def test_what_another_thread_puts_here_passes(kind, runs):
    def limited():
        with Problems(quiet=True).caught("a step"):
            put_into_this_thread(kind)
            runs()

    with pytest.raises(kind):
        limited()


def throws():
    def waiting():
        yield

    next(started := waiting())
    started.throw(TimeUpError)


@pytest.mark.parametrize(
    "fails",
    [
        lambda: Handler()(1, None),
        lambda: np.zeros(3).reshape(2),
        lambda: np.linalg.cholesky(-np.eye(2)),
        lambda: next(iter([])),
        lambda: bytearray(2**62),
        lambda: (_ for _ in ()).throw(TimeUpError("thrown")),
        throws,
        lambda: queue.SimpleQueue().get_nowait(),
        lambda: asyncio.run(asyncio.wait_for(asyncio.sleep(9), 0)),
    ],
)
def test_failures_of_all_kinds_are_failures(fails):
    problems = Problems(quiet=True)
    with problems.caught("a step"):
        fails()
    assert len(problems.messages) == 1


IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


@measure("interrupted", unit="1")
def interrupted(images):
    if INTERRUPTS:
        interrupt()
    return images.mean((1, 2, 3))


INTERRUPTS: list[bool] = []


@pytest.fixture
def interrupts():
    """The measure sends a signal from here on, whose handler raises."""
    with handled_by(raises):
        yield lambda: INTERRUPTS.append(True)
    INTERRUPTS.clear()


def test_a_signal_in_a_users_measure_reaches_whoever_calls_a_profiler(interrupts):
    noted = []
    profiler = Profiler(measures=[interrupted], on_error=lambda *problem: noted.append(problem))
    profiler.update(inputs=IMAGES)
    interrupts()
    with pytest.raises(TimeUpError):
        profiler.update(inputs=IMAGES)
    assert noted == []


def test_a_signal_in_a_users_measure_reaches_whoever_calls_a_monitor(interrupts):
    profiler = Profiler(measures=[interrupted], source="validation")
    profiler.update(inputs=IMAGES)
    monitor = DriftMonitor(Baseline(profiler.profile()), window=10)
    monitor.update(inputs=IMAGES[:5])
    interrupts()
    with pytest.raises(TimeUpError):
        monitor.update(inputs=IMAGES)
    assert monitor.status.failures == {}
    monitor.close()


def test_a_time_limit_that_fires_while_a_server_is_waited_for_is_no_servers_silence():
    from lensai_integrations.mlflow.address import bounded

    over = threading.Event()

    def hangs(_):
        signal.pthread_kill(threading.main_thread().ident, SIGNAL)
        over.wait(60)

    with handled_by(builtin), pytest.raises(TimeoutError, match="the night is over"):
        bounded(hangs, 60, "sqlite:///mlflow.db")
    over.set()


def test_a_time_limit_that_fires_in_an_upload_is_no_full_disk(tmp_path, monkeypatch):
    """The handler raises a `TimeoutError`, which is an `OSError`, too."""
    from lensai_integrations.mlflow import log

    monkeypatch.setattr(log, "bounded", lambda *_: interrupt())
    with handled_by(builtin), pytest.raises(TimeoutError, match="the night is over"):
        log.upload_files({"manifest.json": b"{}"}, tmp_path, run_id="0a", tracking_uri="sqlite:///mlflow.db")


def test_a_signal_in_a_users_function_of_metadata_reaches_the_loader():
    transforms = pytest.importorskip("lensai_integrations.transforms")
    collects = transforms.ProfileImages(metadata={"site": lambda sample: interrupt()})
    image = pytest.importorskip("torch").zeros(3, 8, 8)
    with handled_by(raises), pytest.raises(TimeUpError):
        collects(image)
    with handled_by(lambda *_: None):
        collects(image)
    assert collects.profile().warnings == []


HANDLING = ("signal.signal", "signal.setitimer", "signal.alarm", "signal.set_wakeup_fd", "faulthandler.register")


def test_nothing_in_this_package_puts_a_signal_handler_in_the_place_of_a_users():
    root = Path(lensai_integrations.__file__).parent
    calls = {
        (str(path.relative_to(root)), ast.unparse(node.func))
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in HANDLING
    }
    assert {path.split("/")[0] for path, _ in calls} <= {"server"}  # `lensai serve` is a program of its own


#: What a handler raises is an `Exception`, and where it is a `TimeoutError`, an `OSError`.
CAUGHT = {"Exception", "OSError"}


def kinds(node):
    return {ast.unparse(each) for each in (node.elts if isinstance(node, ast.Tuple) else [node])}


def silent(path):
    """Where such errors are caught without a look at what they are, by the first thing that is done then."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is not None and kinds(node.type) & CAUGHT:
            raised = any(isinstance(each, ast.Raise) and each.exc is None for each in ast.walk(node))
            first = ast.unparse(node.body[0])
            if first != f"pass_on({node.name})" and not raised:
                yield first
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("suppress", "contextlib.suppress"):
            yield from (f"suppress({kind})" for each in node.args for kind in kinds(each) & CAUGHT)


def test_wherever_such_errors_are_caught_what_stops_the_program_passes():
    """Of code that runs in a user's thread: a new `except Exception` has to say why it may keep an interruption."""
    root = Path(lensai_integrations.__file__).parent
    found = {(path.relative_to(root).as_posix(), each) for path in root.rglob("*.py") for each in silent(path)}
    own_programs = ("server/", "cli/", "edge/")
    assert {path for path, _ in found if not path.startswith(own_programs)} <= {
        "monitoring/sinks/base.py",  # a thread of its own, where no signal arrives
        "lightning/base.py",  # an import of Lightning's
        "mlflow/log.py",  # a thread of its own
    }


def test_an_error_without_a_trace_is_a_failure():
    pass_on(TimeUpError())
    pass_on(ExceptionGroup("several", [ValueError()]))
