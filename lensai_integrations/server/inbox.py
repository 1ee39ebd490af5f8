"""Uploads on their way into the store: those that come while one transaction is written share the next.

A disk syncs some hundred times a second; without this, that would be how many uploads a second there can be. Where more
wait than a transaction has, senders take turns.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from lensai_integrations.server.ledger import Outcome, Received, add_uploads
from lensai_integrations.server.shares import Allowances, InTurn, Spent
from lensai_integrations.server.store import Store

#: Most uploads of one transaction, and bytes of them after which no other is added: others wait until it is on disk.
_TOGETHER: Final = 128
_BYTES: Final = 16 * 2**20

Answer = asyncio.Future[Outcome | Spent]


class Inbox:
    """Where requests leave their uploads, and wait until they are on disk.

    Args:
        store: Where to.
        most_sensors: Of further sensors nothing is stored.
        allowances: What may be stored in a day.
    """

    def __init__(self, store: Store, most_sensors: int, allowances: Allowances | None = None) -> None:
        self._store, self._most_sensors, self._allowances = store, most_sensors, allowances
        self._waiting = InTurn[tuple[Received, Answer]]()
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "lensai-inbox")  # whatever occupies the others

    async def put(self, upload: Received, holder: str = "") -> Outcome | Spent:
        """Store an upload; when this returns it is on disk, or was not to be stored.

        Args:
            upload: The upload.
            holder: Whose turn it is; see `Sender`.

        Raises:
            StoreError: If the store cannot be used.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self._waiting.add(holder, (upload, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await answer

    async def _write(self) -> None:
        try:
            while batch := self._batch():
                await self._write_batch(batch)
        finally:
            self._writer = None

    def _batch(self) -> list[tuple[Received, Answer]]:
        batch: list[tuple[Received, Answer]] = []
        size = 0
        while len(batch) < _TOGETHER and size < _BYTES and (found := self._waiting.next()):
            batch.append(found[1])
            size += found[1][0].bytes
        return batch

    async def _write_batch(self, batch: list[tuple[Received, Answer]]) -> None:
        try:
            uploads, loop = [upload for upload, _ in batch], asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(
                self._thread, add_uploads, self._store, uploads, self._most_sensors, self._allowances
            )
        except Exception as error:  # noqa: BLE001  every request has to be answered
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)
