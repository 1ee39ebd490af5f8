"""The end of a fit or a pass that no hook tells of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def left(reference: Callable[[], Any], token: object) -> None:
    """Stop the callback that is referred to, if the fit of this token has gone and it has not noticed.

    Example:
        >>> left(lambda: None, object())
    """
    callback = reference()
    if callback is not None and callback._fitting and callback._token is token:
        callback._stop()
