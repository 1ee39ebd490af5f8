"""How much is done at the same time, and of how much of what was sent there is a copy in memory.

A body has the memory of what has come of it, not of what it says will come: a device on a slow line, or one that only
promises, takes no room from others. There is nothing to wait for while a body is half there (of two that wait for each
other's memory neither would end), so what does not fit is sent again. Whole bodies wait for their turn to be unpacked,
and need no place any more: of a fleet that uploads in the same second nothing is refused because the server is slower.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from fastapi import HTTPException

from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import Sender, Shared, Slots, Spent

#: Most requests for answers and pages that are under way.
_READERS: Final = 256
#: Seconds of silence after which an upload leaves its place to another of the same sender that has none. The devices of
#: a fleet may have one token and one address, and a device that was cut off has uploads that never go on.
SILENT: Final = 5.0
#: Seconds among which those are told one who should come again soon: refused together, they do not come back together.
_SOON: Final = (2.0, 30.0)


class LaterError(HTTPException):
    """The answer to an upload that may be sent again: 503 for what has to do with the server, 429 with its sender.

    Args:
        status: 503 or 429.
        detail: Why.
        seconds: After which it may be.
        result: What it is counted as.
    """

    def __init__(self, status: int, detail: str, seconds: float, result: str = "") -> None:
        super().__init__(status, f"{detail}: send it again", {"Retry-After": str(max(1, math.ceil(seconds)))})
        self.result = result or ("over share" if status == 429 else "unavailable")


def used_up(sensor: str, spent: Spent) -> LaterError:
    """The answer to a sensor that has used its allowance.

    Example:
        >>> str(used_up("door-3", Spent("new hours", 360.0)))
        "429: sensor 'door-3' has had all the new hours of its sender's share: send it again"
    """
    return LaterError(429, f"sensor {sensor!r} has had all the {spent.what} of its sender's share", spent.seconds)


class Room:
    """The place and the memory that one upload has."""

    def __init__(self, turns: Turns, holder: str) -> None:
        self._turns, self._holder, self._size = turns, holder, 0
        self._limit: asyncio.Timeout | None = None
        self._has_place = True
        #: Whether another upload of the sender has its place now.
        self.is_replaced = False

    def resize(self, size: int) -> None:
        """Have so many bytes instead.

        Raises:
            LaterError: If there are not so many more.
        """
        memory, more = self._turns.memory, size - self._size
        if more <= 0:
            memory.give(self._holder, -more)
        elif not memory.take(self._holder, more):
            raise _too_much(memory, self._holder, "in memory")
        self._size = size

    def grow(self, size: int) -> None:
        """Have so many bytes more.

        Raises:
            LaterError: If there are not so many more.
        """
        self.resize(self._size + size)

    @asynccontextmanager
    async def waiting(self, until: float) -> AsyncIterator[None]:
        """Wait for more of the body.

        Args:
            until: Time of the event loop.

        Raises:
            LaterError: If the place is needed for another upload.
            TimeoutError: If nothing comes until then.
        """
        silent = self._turns.silent.setdefault(self._holder, {})
        silent[self] = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(until) as self._limit:
                yield
        except TimeoutError:
            if self.is_replaced:
                raise LaterError(429, "silence, and others of this sender wait", random.uniform(*_SOON)) from None
            raise
        finally:
            del silent[self]
            if not silent:
                del self._turns.silent[self._holder]

    def leave(self) -> None:
        """Need no place any more: the body is whole, or will not be."""
        if self._has_place:
            self._has_place = False
            self._turns.uploads.give(self._holder, 1)

    def replace(self) -> None:
        """Leave the place to another upload."""
        assert self._limit is not None  # it waits
        self.is_replaced, self._has_place = True, False
        self._limit.reschedule(asyncio.get_running_loop().time())


class Turns:
    """What requests share.

    Args:
        settings: Limits.
    """

    def __init__(self, settings: Settings) -> None:
        #: Uploads whose bodies are coming.
        self.uploads = Shared(settings.uploads_at_once)
        #: Uploads under way with a token of one sensor, until they are answered, and how many may be.
        self._of_sensors, self._of_sensor = Counter[str](), settings.uploads_of_sensor
        #: Those of them that wait for more of their bodies, by holder, and since when; the longest silent first.
        self.silent: dict[str, dict[Room, float]] = {}
        #: Bytes of bodies that are read, and of sketches that are not on disk yet.
        self.memory = Shared(settings.memory_bytes)
        #: Archives that are unpacked, and answers that are made of the store.
        self.unpacking, self.reading = Slots(settings.archives_at_once), Slots(settings.reads_at_once)
        #: Requests for answers and pages under way, those that wait for their turn included.
        self.readers = Shared(_READERS)
        #: Threads that nothing else can occupy.
        self.threads = ThreadPoolExecutor(settings.archives_at_once, "lensai-uploads")

    def fit(self, connections: int) -> None:
        """Have fewer requests under way than there may be connections: who is refused needs one to be told.

        Args:
            connections: How many there may be.
        """
        self.uploads.most = min(self.uploads.most, max(connections * 7 // 8, 1))
        self.readers.most = min(self.readers.most, max(connections // 8, 1))

    @asynccontextmanager
    async def read(self, sender: Sender) -> AsyncIterator[None]:
        """Wait for the turn to be answered something, and have it.

        Raises:
            LaterError: If too many of the sender, or of all together, wait.
        """
        if not self.readers.take(sender.holder, 1):
            raise _too_much(self.readers, sender.holder, "under way")
        try:
            async with self.reading.slot(sender.holder):
                yield
        finally:
            self.readers.give(sender.holder, 1)

    @contextmanager
    def turn(self, sender: Sender) -> Iterator[Room]:
        """Be under way with an upload, and have memory for it.

        Raises:
            LaterError: If the sender, or all together, have too many.
        """
        holder = sender.holder
        few = bool(sender.grant.sensor) and self._of_sensors[holder] >= self._of_sensor
        if (few or not self.uploads.take(holder, 1)) and not self._replace_silent(holder):
            if few:
                raise LaterError(429, f"{self._of_sensor} uploads of this token are under way", random.uniform(*_SOON))
            raise _too_much(self.uploads, holder, "under way")
        room = Room(self, holder)
        self._of_sensors[holder] += 1
        try:
            yield room
        finally:
            room.resize(0)
            room.leave()
            self._of_sensors[holder] -= 1
            if not self._of_sensors[holder]:
                del self._of_sensors[holder]

    def _replace_silent(self, holder: str) -> bool:
        """Whether an upload of the same sender leaves its place, of which nothing has come for long."""
        now = asyncio.get_running_loop().time()
        for room, since in self.silent.get(holder, {}).items():
            if now - since < SILENT:
                break
            if not room.is_replaced:
                room.replace()
                return True
        return False


def _too_much(shared: Shared, holder: str, where: str) -> LaterError:
    seconds = random.uniform(*_SOON)
    if shared.is_over(holder):
        return LaterError(429, f"too much of this sender is {where}", seconds)
    return LaterError(503, f"too much is {where}", seconds)
