"""Connections to PostgreSQL that give up a server which no longer answers.

PostgreSQL ends statements that take long by itself, and the kernel connections whose other side is gone. A server that
is frozen, or a machine whose disk hangs, does neither: its kernel goes on to acknowledge what is sent.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, event

#: Seconds for which an answer is waited for when a connection is taken from the pool, and no longer in use.
_QUICK: Final = 5.0


class AnsweringConnection(psycopg.Connection[Any]):
    """A connection that is closed where nothing comes for too long."""

    #: How long that is.
    seconds: float = _QUICK

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """As psycopg waits for whatever it sends or reads, and no longer.

        Raises:
            psycopg.OperationalError: If nothing came.
        """
        try:
            return super().wait(_until(gen, time.monotonic() + self.seconds), *args, **options)
        except TimeoutError:
            self.close()
            raise psycopg.OperationalError(f"the database did not answer within {self.seconds:g} s") from None


def _until(steps: Generator[Any, int, Any], end: float) -> Generator[Any, int, Any]:
    """The same steps until `end`; psycopg says every tenth of a second that nothing came."""
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > end:
                raise TimeoutError
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value


def give_up(engine: Engine, seconds: float) -> None:
    """Have an engine's connections closed where no answer comes.

    Args:
        engine: Of psycopg.
        seconds: How long a statement may take.
    """

    def connect(_dialect: Any, _record: Any, args: Any, options: Any) -> psycopg.Connection[Any]:
        return AnsweringConnection.connect(*args, **options)

    def set_seconds(connection: AnsweringConnection | None, allowed: float) -> None:
        if connection is not None:
            connection.seconds = allowed

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "checkout", lambda connection, *_: set_seconds(connection, seconds))
    event.listen(engine, "checkin", lambda connection, *_: set_seconds(connection, _QUICK))
