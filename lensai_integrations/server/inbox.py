"""Uploads on their way into the store: those that come while one transaction is written share the next.

A disk syncs some hundred times a second; without this, that would be how many uploads a second there can be.
"""

from __future__ import annotations

import asyncio

from starlette.concurrency import run_in_threadpool

from lensai_integrations.server.ledger import Outcome, Received, add_uploads
from lensai_integrations.server.store import Store

#: Most uploads of one transaction.
_TOGETHER = 128


class Inbox:
    """Where requests leave their uploads, and wait until they are on disk.

    Args:
        store: Where to.
        most_sensors: Of further sensors nothing is stored.
    """

    def __init__(self, store: Store, most_sensors: int) -> None:
        self._store, self._most_sensors = store, most_sensors
        self._waiting: list[tuple[Received, asyncio.Future[Outcome]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def put(self, upload: Received) -> Outcome:
        """Store an upload; when this returns it is on disk.

        Args:
            upload: The upload.

        Raises:
            StoreError: If the store cannot be used.
        """
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((upload, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await answer

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                await self._write_batch(batch)
        finally:
            self._writer = None

    async def _write_batch(self, batch: list[tuple[Received, asyncio.Future[Outcome]]]) -> None:
        try:
            uploads = [upload for upload, _ in batch]
            outcomes = await run_in_threadpool(add_uploads, self._store, uploads, self._most_sensors)
        except Exception as error:  # noqa: BLE001  every request has to be answered
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)
