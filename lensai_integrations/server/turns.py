"""How much of what is sent is in memory at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import HTTPException

from lensai_integrations.server.settings import Settings


class Turns:
    """Lets bodies of so many bytes into memory at once, and so many requests wait.

    A device on a slow line holds the few bytes it has announced, so others need not wait for it.

    Args:
        settings: Limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._free, self._room, self._waiting = settings.memory_bytes, asyncio.Condition(), 0
        self._most, self._most_waiting = settings.memory_bytes, settings.uploads_waiting
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
        size = min(size, self._most)
        await self._take(size)
        try:
            yield
        finally:
            await asyncio.shield(self._give(size))

    async def _take(self, size: int) -> None:
        if self._free < size and self._waiting >= self._most_waiting:
            raise HTTPException(503, "too many uploads at once: send it again", {"Retry-After": "2"})
        self._waiting += 1
        try:
            async with self._room:
                await self._room.wait_for(lambda: self._free >= size)
                self._free -= size
        finally:
            self._waiting -= 1

    async def _give(self, size: int) -> None:
        async with self._room:
            self._free += size
            self._room.notify_all()
