"""What a sink is: three methods, of which one has to be written; or a Python function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from lensai_integrations.drift.events import NOTICE, STATUS, WINDOW, Event
from lensai_integrations.errors import InputError
from lensai_integrations.measures.inputs import plain
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
