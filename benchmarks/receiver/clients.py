"""Clients of `load.py`: threads that send uploads over connections they keep, on this machine."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.receiver.devices import CONTENT_TYPE, Upload

#: Seconds to wait for an answer.
WAIT = 30


@dataclass
class Sent:
    """What became of uploads, by their place in what was to be sent.

    Attributes:
        answers: Status codes.
        seconds: From sending to the answer.
        failed: Uploads without an answer.
        wall: Seconds from the first request to the last answer.
    """

    answers: dict[int, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    wall: float = 0.0


def send(
    port: int,
    uploads: Sequence[Upload],
    clients: int,
    limit: float,
    on_answer: Callable[[int], None] = lambda answered: None,
    patience: int = 0,
) -> Sent:
    """Send uploads from several clients; each takes the next one when the last is answered.

    Args:
        port: Of the server on this machine.
        uploads: What to send.
        clients: How many send at the same time.
        limit: Seconds after which no client takes another one.
        on_answer: Told how many have been answered, by one client at a time.
        patience: A client that has met that many errors in a row gives up; 0: at the first.
    """
    sent, lock, places = Sent(), threading.Lock(), iter(range(len(uploads)))
    deadline = time.perf_counter() + limit

    def work() -> None:
        connection, errors = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT), 0
        for place in _taken(places, lock, deadline):
            began = time.perf_counter()
            try:
                status = _post(connection, uploads[place])
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it again
                errors += 1
                with lock:
                    sent.failed.append(place)
                if errors > patience:
                    return
                continue
            errors = 0
            with lock:
                sent.answers[place] = status
                sent.seconds.append(time.perf_counter() - began)
                on_answer(len(sent.answers))
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.wall = time.perf_counter() - began
    return sent


def _taken(places: Iterator[int], lock: threading.Lock, deadline: float) -> Iterator[int]:
    while time.perf_counter() < deadline:
        with lock:
            place = next(places, None)
        if place is None:
            return
        yield place


def _post(connection: http.client.HTTPConnection, upload: Upload) -> int:
    connection.request("POST", "/upload/", upload.body, {"Content-Type": CONTENT_TYPE})
    answer = connection.getresponse()
    answer.read()
    return answer.status
