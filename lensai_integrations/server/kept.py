"""A page that takes long to make is not made for everyone who looks at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

#: Seconds below which a page is made anew every time.
QUICK: Final = 0.2
#: A page is kept for so many times as long as it took, so that making it takes a tenth of a core at most.
_TIMES: Final = 9


class KeptPage:
    """The newest of one page; who asks while it is being made waits for that one.

    Args:
        clock: Seconds, of a clock that is never set back.

    Example:
        >>> kept = KeptPage()
        >>> kept.get(lambda: "quick"), kept.get(lambda: "quick, too")
        ('quick', 'quick, too')
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._text, self._until = "", -1.0

    def get(self, make: Callable[[], str]) -> str:
        """The page as it was made a moment ago, or made now.

        Args:
            make: Makes it.
        """
        with self._lock:
            began = self._clock()
            if began < self._until:
                return self._text
            text = make()
            ended = self._clock()
            if ended - began > QUICK:
                self._text, self._until = text, ended + _TIMES * (ended - began)
            return text
