"""What lasts is logged once a minute, not once a request: a log that fills the disk is a fault of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

#: Seconds between two lines of one kind.
SECONDS: Final = 60.0


class Lasting(logging.Filter):
    """Says each kind of thing once a minute, and then how often it was not said since.

    A kind is a message before its arguments are put in, so there are as many as there are lines that log.
    Loggers of other packages are told to keep to it with `logger.addFilter(Lasting())`.

    Args:
        log: Where `warning` says it.
        clock: Seconds that only grow.

    Example:
        >>> log = Lasting()
        >>> log.left_out("the store is locked"), log.left_out("the store is locked")
        (0, None)
    """

    def __init__(self, log: logging.Logger | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._log, self._clock = log or logging.getLogger(__name__), clock
        self._said: dict[str, tuple[float, int]] = {}

    def left_out(self, kind: str) -> int | None:
        """How many of a kind were left out since it was said last; None if this one is to be left out, too."""
        now = self._clock()
        when, count = self._said.get(kind, (float("-inf"), 0))
        if now - when < SECONDS:
            self._said[kind] = (when, count + 1)
            return None
        self._said[kind] = (now, 0)
        return count

    def warning(self, message: str, *args: object) -> None:
        """Log a warning, unless one of its kind was logged within a minute.

        Args:
            message: As loggers take it, with a place for each argument; a constant.
            args: What to put in.
        """
        if (count := self.left_out(message)) is not None:
            self._log.warning(message + _more(count), *args, stacklevel=2)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record of another package's logger is to be logged; as loggers ask their filters."""
        count = self.left_out(str(record.msg).partition("\n")[0])  # asyncio names tasks and sockets below
        if count is not None:
            record.msg = str(record.msg).rstrip() + _more(count)
        return count is not None


def _more(count: int) -> str:
    return f" ({count} more since it was last logged)" if count else ""
