"""The `with monitor:` bodies that are open at once, in threads, tasks or one within another.

Each has a status of its own: an exception that ends one says nothing about the others. Which body a caller is in is
known from its context (`contextvars`), which every thread and every asyncio task has.
"""

from __future__ import annotations

import weakref
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from lensai_integrations.monitoring.events import COMPLETED, FAILED, RUNNING


@dataclass(eq=False)
class Body:
    """One of them: whose it is, in which run of the monitor, and how it fares."""

    owner: weakref.ref[Bodies]
    run: int
    state: str = RUNNING
    cause: str = ""

    def end(self, error: BaseException | None) -> None:
        """It is over; with an error, by that."""
        self.state, self.cause = outcome(error)


#: Of this context, outermost first; of each monitor also the one that ended last.
_BODIES: Final[ContextVar[tuple[Body, ...]]] = ContextVar("lensai_monitor_bodies", default=())


class Bodies:
    """Those of one monitor.

    Example:
        >>> bodies = Bodies()
        >>> bodies.enter(), bodies.leave(ValueError("broken image"))
        (None, True)
        >>> bodies.innermost.state, bodies.innermost.cause
        ('Failed', 'ValueError: broken image')
    """

    def __init__(self) -> None:
        self._open: list[Body] = []
        self._run = 0

    def begin(self) -> None:
        """The monitor runs anew: how bodies before ended is of no account any more."""
        self._run += 1

    def enter(self) -> None:
        """Open one in this context."""
        body = Body(weakref.ref(self), self._run)
        self._open.append(body)
        self._keep(body)

    def leave(self, error: BaseException | None) -> bool:
        """End the innermost of this context; of another context if it was opened there.

        Returns:
            Whether none is open now that was; False too if the monitor was closed meanwhile, and with it all of them.
        """
        if not self._open:
            if error is not None and self.innermost is not None:
                self.innermost.end(error)
            return False
        here = [body for body in _BODIES.get() if body in self._open]
        body = here[-1] if here else self._open[-1]
        body.end(error)
        self._open.remove(body)
        self._keep(body)
        return not self._open

    def close(self, error: BaseException | None) -> None:
        """End all."""
        for body in self._open:
            body.end(error)
        self._open.clear()

    @property
    def any_open(self) -> bool:
        """Whether one is open, in whichever context."""
        return bool(self._open)

    @property
    def innermost(self) -> Body | None:
        """The innermost open one of this context, else the one that ended last in it in this run of the monitor."""
        here = [body for body in _BODIES.get() if body.owner() is self and body.run == self._run]
        return next((body for body in reversed(here) if body in self._open), here[-1] if here else None)

    def forget_ended(self) -> None:
        """What goes on in this context now is not what ended."""
        innermost = self.innermost
        if innermost is not None and innermost not in self._open:
            _BODIES.set(tuple(body for body in _BODIES.get() if body.owner() is not self))

    def _keep(self, last: Body) -> None:
        """Note a body in this context, beside those that are open and those of other monitors."""
        others = (body for body in _BODIES.get() if body is not last and body.owner() is not None)
        _BODIES.set((*(body for body in others if body.owner() is not self or body in self._open), last))


def outcome(error: BaseException | None) -> tuple[str, str]:
    """State and cause of what has ended.

    Example:
        >>> outcome(None), outcome(KeyError("image"))
        (('Completed', ''), ('Failed', "KeyError: 'image'"))
    """
    return (COMPLETED, "") if error is None else (FAILED, f"{type(error).__name__}: {error}")
