"""A Python function as a sink."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lensai_integrations.drift.events import NOTICE, STATUS, WINDOW, Event
from lensai_integrations.drift.sinks.base import Sink
from lensai_integrations.errors import InputError


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
