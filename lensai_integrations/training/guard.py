"""The hooks of a callback: what goes wrong in one never reaches the framework that calls it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

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
