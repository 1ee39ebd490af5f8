"""Uploads on their way to the disk."""

from __future__ import annotations

import asyncio
import threading

from receiving import WHEN

from lensai_integrations.server import ledger as inboxes
from lensai_integrations.server.ledger import Inbox, Outcome, Received


def sent(n, size=10):
    return Received("door-3", WHEN + n, "", 3, 0.0, (), bytes(size))


def batches(monkeypatch, uploads):
    """What is written together, where one transaction goes on while all the others come."""
    written, go_on = [], threading.Event()

    def write(_, batch, *__):
        written.append([upload.timestamp - WHEN for upload in batch])
        go_on.wait(20)
        return [Outcome.CREATED] * len(batch)

    monkeypatch.setattr(inboxes, "add_uploads", write)

    async def main():
        inbox = Inbox(None, 10)
        tasks = [asyncio.create_task(inbox.put(sent(999), "first"))]
        while not written:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(inbox.put(upload, holder)) for holder, upload in uploads]
        await asyncio.sleep(0)
        go_on.set()
        assert await asyncio.gather(*tasks) == [Outcome.CREATED] * len(tasks)

    asyncio.run(main())
    assert written.pop(0) == [999]
    return written


def test_who_floods_it_has_others_in_front(monkeypatch):
    flood = [("flood", sent(n)) for n in range(300)]
    first, second, third = batches(monkeypatch, [*flood, ("other", sent(500)), ("third", sent(600))])
    assert first[:5] == [0, 500, 600, 1, 2]
    assert (len(first), len(second), len(third)) == (128, 128, 46)
    assert [n for n in [*first, *second, *third] if n < 300] == list(range(300))


def test_a_transaction_has_so_many_bytes(monkeypatch):
    uploads = [("flood", sent(n, 5 * 2**20)) for n in range(9)]
    assert batches(monkeypatch, [*uploads, ("other", sent(500))]) == [[0, 500, 1, 2, 3], [4, 5, 6, 7], [8]]
