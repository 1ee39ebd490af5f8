"""What Keras's callbacks lack: to be told of the end of a fit or pass that was cut short, and a place to say things."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from lensai_integrations.training.problems import log


def left(reference: Callable[[], Any], token: object) -> None:
    """Stop the callback that is referred to, if the fit of this token has gone and it has not noticed.

    Example:
        >>> left(lambda: None, object())
    """
    callback = reference()
    if callback is not None and callback._fitting and callback._token is token:
        callback._stop()


def say(callback: Any, message: str) -> None:
    """Tell the user where Keras tells what it does: below the progress bars, unless those are off.

    Args:
        callback: Knows how much Keras is to tell.
        message: One line.
    """
    if (callback.params or {}).get("verbose", 0):
        sys.stdout.write(f"{message}\n")
    else:
        log.info("%s", message)
