"""A page that takes long to make is not made for everyone who looks at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

#: Seconds below which a page is made anew every time.
QUICK: Final = 0.2
#: A page is kept for so many times as long as it took, so that making it takes a tenth of a core at most.
_TIMES: Final = 9


class KeptPage:
    """The newest of one page; who asks while it is being made gets that one, or the error that came of it.

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
        self._coming: Future[str] | None = None

    def get(self, make: Callable[[], str]) -> str:
        """The page as it was made a moment ago, as it is being made, or made now.

        Args:
            make: Makes it. What it raises is raised, also where others wait for it: each trying for itself, one after
                the other, would keep threads from uploads for as long as the store does not answer.
        """
        with self._lock:
            if self._clock() < self._until:
                return self._text
            coming, first = self._coming or Future[str](), self._coming is None
            self._coming = coming
        if first:
            self._make(make, coming)
        return coming.result()

    def _make(self, make: Callable[[], str], coming: Future[str]) -> None:
        began = self._clock()
        try:
            text = make()
        except BaseException as error:  # noqa: BLE001  raised by `result`, here and wherever it is waited for
            with self._lock:
                self._coming = None
            coming.set_exception(error)
            return
        ended = self._clock()
        with self._lock:
            self._coming = None
            if ended - began > QUICK:
                self._text, self._until = text, ended + _TIMES * (ended - began)
        coming.set_result(text)
