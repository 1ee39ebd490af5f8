"""How much of what is sent is in memory at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import HTTPException

from lensai_integrations.server.settings import Settings

#: As large a part of the memory for bodies as there is besides it for sketches on their way to the disk.
_PART: Final = 8


class Room:
    """Bytes that may be in memory at once.

    Args:
        most: How many; something larger than that has to be alone.
    """

    def __init__(self, most: int) -> None:
        self._free, self._most, self._given = most, most, asyncio.Condition()

    def fits(self, size: int) -> bool:
        """Whether so many bytes need not wait."""
        return self._free >= min(size, self._most)

    async def take(self, size: int) -> None:
        """Wait until there is room for so many bytes, and have it until they are given back."""
        async with self._given:
            await self._given.wait_for(lambda: self.fits(size))
            self._free -= min(size, self._most)

    async def give(self, size: int) -> None:
        """Give so many bytes back."""
        async with self._given:
            self._free += min(size, self._most)
            self._given.notify_all()


class Turns:
    """Lets bodies of so many bytes into memory at once, and so many requests wait.

    A device on a slow line holds the few bytes it has announced, so others need not wait for it. What its archive
    unpacks to is counted apart, when that is known.

    Args:
        settings: Limits.
    """

    def __init__(self, settings: Settings) -> None:
        #: Bodies that are read, and those whose sketches are not on disk yet.
        self.bodies = Room(settings.memory_bytes)
        self._waiting, self._most_waiting = 0, settings.uploads_waiting
        #: Sketches that were unpacked and are not on disk yet.
        self.sketches = Room(max(settings.memory_bytes // _PART, 1))
        #: Archives that are unpacked.
        self.unpacking = asyncio.Semaphore(settings.archives_at_once)

    @asynccontextmanager
    async def turn(self, size: int) -> AsyncIterator[None]:
        """Wait until there is room for a body, and have it.

        Args:
            size: Bytes it may have.

        Raises:
            HTTPException: 503 if too many wait.
        """
        if not self.bodies.fits(size) and self._waiting >= self._most_waiting:
            raise HTTPException(503, "too many uploads at once: send it again", {"Retry-After": "2"})
        self._waiting += 1
        try:
            await self.bodies.take(size)
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            await asyncio.shield(self.bodies.give(size))
