"""What a sink is: three methods, of which one has to be written; or a Python function.

What may take long is delivered off the hot path (`QueuedSink`): a bounded queue, a daemon thread, retries that wait
longer and longer. `DriftMonitor.update` only puts an event into the queue. When that is full the event is dropped,
because a service must not wait for a receiver that is down; what was dropped or given up is counted and complained of.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from lensai_integrations.errors import InputError
from lensai_integrations.measures.arguments import plain
from lensai_integrations.monitoring.events import NOTICE, STATUS, WINDOW, Event
from lensai_integrations.profiles.profile import Baseline, Profile

#: Tells the monitor of something that went wrong later, in a thread of the sink's own; it is counted and logged once.
Complain = Callable[[str | Exception], None]


class Sink(ABC):
    """Somewhere a monitor's events go. What a sink raises is logged once and counted, and never reaches the service.

    Attributes:
        types: Which events it is told: any of `"window"`, `"notice"`, `"status"`.
        repeatable: Whether telling the same event twice does no harm. If so, it is told again where a crash leaves it
            open whether it was; if not, it is told at most once.

    Example:
        >>> class Print(Sink):
        ...     types = ("notice",)
        ...
        ...     def tell(self, event):
        ...         print(event.text)
        >>> Print().tell(Event("1", "notice", "alarm", "production", 0.0, "It drifts."))
        It drifts.
    """

    types: tuple[str, ...] = (WINDOW, NOTICE, STATUS)
    repeatable: bool = False

    def open(self, baseline: Baseline | Profile, monitor: str, complain: Complain) -> None:  # noqa: B027 - optional
        """A monitor begins.

        Args:
            baseline: What windows are held against.
            monitor: Its name.
            complain: To call from the sink's own threads with what goes wrong there.
        """

    @abstractmethod
    def tell(self, event: Event) -> None:
        """Take an event. This is called while a request is served: what may take long belongs on another thread."""

    def close(self) -> None:  # noqa: B027 - optional
        """The monitor ends: deliver what is still here, in bounded time. It may be opened again."""


class FunctionSink(Sink):
    """Calls a function with every notice, in the thread that calls `update`.

    Args:
        function: Takes an `Event`.
        types: Which events: any of `"window"`, `"notice"`, `"status"`.
        repeatable: Whether a second call with the same event, after a crash, does no harm.

    Raises:
        InputError: If an argument is of another kind.

    Example:
        >>> heard = []
        >>> FunctionSink(heard.append).tell(Event("1", "notice", "alarm", "production", 0.0, "It drifts."))
        >>> heard[0].kind
        'alarm'
    """

    def __init__(
        self, function: Callable[[Event], Any], *, types: Sequence[str] = (NOTICE,), repeatable: bool = False
    ) -> None:
        if not callable(function):
            raise InputError(f"function={function!r} should take an event")
        if isinstance(types, str) or not set(types) <= {WINDOW, NOTICE, STATUS}:
            raise InputError(f"types={types!r} should be some of 'window', 'notice' and 'status'")
        self._function = function
        self.types = tuple(types)
        self.repeatable = repeatable

    def tell(self, event: Event) -> None:
        """Call the function."""
        self._function(event)


def checked_sinks(sinks: Any) -> dict[str, Sink]:
    """Sinks by a name of their own, the same after a restart; functions are wrapped.

    Args:
        sinks: A list or tuple of sinks and of functions of an event.

    Raises:
        InputError: If one is neither a sink nor a function of an event.

    Example:
        >>> list(checked_sinks([print, print]))
        ['FunctionSink', 'FunctionSink-2']
    """
    sinks = plain(sinks)
    if not isinstance(sinks, list | tuple):
        raise InputError(f"sinks={sinks!r} should be a list of sinks, or of functions of an event")
    named: dict[str, Sink] = {}
    for sink in sinks:
        if not isinstance(sink, Sink) and (isinstance(sink, type) or not callable(sink)):
            raise InputError(f"sinks has {sink!r}, which is neither a sink nor a function of an event")
        made = sink if isinstance(sink, Sink) else FunctionSink(sink)
        kind = type(made).__name__
        number = sum(name.split("-")[0] == kind for name in named)
        named[f"{kind}-{number + 1}" if number else kind] = made
    return named


_STOP: Final = object()


class RefusedError(Exception):
    """The receiver answered that it will never take this: there is no point in trying again."""


class QueuedSink(Sink):
    """A sink whose `deliver` runs on a thread of its own.

    Args:
        retries: How often delivery is tried again.
        backoff: Seconds before the first retry; doubled before each further one.
        queue_size: Events that may wait.
        flush_seconds: How long `close` waits for what is still in the queue.

    Attributes:
        delivered: Events that arrived.
        undelivered: Events that were dropped or given up.

    Raises:
        InputError: If an argument is out of range.
    """

    def __init__(
        self, *, retries: int = 5, backoff: float = 1.0, queue_size: int = 1000, flush_seconds: float = 10.0
    ) -> None:
        for name, value, low in (("retries", retries, 0), ("queue_size", queue_size, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"{name}={value!r} should be a whole number from {low}")
        for name, seconds in (("backoff", backoff), ("flush_seconds", flush_seconds)):
            if not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
                raise InputError(f"{name}={seconds!r} should be a number of seconds, 0 or more")
        self._retries, self._backoff, self._flush_seconds = retries, backoff, flush_seconds
        self._queue: queue.Queue[Any] = queue.Queue(queue_size)
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._complain: Complain = lambda problem: None
        self.delivered = self.undelivered = 0

    @abstractmethod
    def deliver(self, event: Event) -> None:
        """Deliver one event, in bounded time. What it raises is tried again, unless it is a `RefusedError`."""

    def open(self, baseline: Baseline | Profile, monitor: str, complain: Complain) -> None:
        """Start the thread."""
        self._complain = complain
        self._start()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._closing = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._closing,), daemon=True, name=type(self).__name__
            )
            self._thread.start()

    def tell(self, event: Event) -> None:
        """Put an event into the queue; returns at once."""
        self._start()
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._lost(
                f"the queue of {self._queue.maxsize} events is full, the oldest wait for a receiver that is down"
            )

    def close(self) -> None:
        """Wait `flush_seconds` at the most for the queue to be empty; what is left is counted as undelivered."""
        if self._thread is None:
            return
        end = time.monotonic() + self._flush_seconds
        while self._queue.unfinished_tasks and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        self._closing.set()
        self._drop_rest()
        self._queue.put(_STOP)
        self._thread.join(0.1)
        self._thread = None

    def _drop_rest(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return
            self._queue.task_done()
            self._lost(f"it was still in the queue {self._flush_seconds:g} s after the monitor closed")

    def _run(self, closing: threading.Event) -> None:
        while not closing.is_set():
            event = self._queue.get()
            try:
                if event is _STOP:
                    return
                self._deliver(event, closing)
            finally:
                self._queue.task_done()

    def _deliver(self, event: Event, closing: threading.Event) -> None:
        for attempt in range(self._retries + 1):
            try:
                self.deliver(event)
                self.delivered += 1
                return
            except RefusedError as error:
                self._lost(error)
                return
            except Exception as error:  # noqa: BLE001 - any failure of a receiver is tried again, then told
                if attempt == self._retries or closing.wait(self._backoff * 2**attempt):
                    self._lost(error)
                    return

    def _lost(self, cause: str | Exception) -> None:
        self.undelivered += 1
        why = cause if isinstance(cause, str) else f"{type(cause).__name__}: {cause}"
        self._complain(f"an event was not delivered: {why}")
