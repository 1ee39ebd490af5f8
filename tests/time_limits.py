"""A user's time limit: an exception that a signal handler raises, wherever the program is by then."""

from __future__ import annotations

import signal
from contextlib import contextmanager


class TimeUpError(Exception):
    pass


@contextmanager
def time_limit():
    """What is called when the time is up: it raises `TimeUpError` out of a handler of SIGALRM."""

    def up(number, frame):
        raise TimeUpError("the night is over")

    before = signal.signal(signal.SIGALRM, up)
    try:
        yield lambda: signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
