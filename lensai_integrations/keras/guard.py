"""The callback's hooks: what goes wrong in one never reaches the training."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Hook = TypeVar("Hook", bound=Callable[..., None])


def guarded(what: str, *raised: type[Exception]) -> Callable[[Hook], Hook]:
    """Decorate a hook: what it raises becomes a problem of the fit, but for the exceptions named.

    Where the callback has no fit, nothing is done.
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


def left(reference: Callable[[], Any], token: object) -> None:
    """End a fit that its model's list of callbacks has left, if the callback still is in it.

    Args:
        reference: Gives the callback, or None if it is gone.
        token: Of the fit.
    """
    callback = reference()
    if callback is not None and callback._fitting and callback._token is token:
        callback._stop()
