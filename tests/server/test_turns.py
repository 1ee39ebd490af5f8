"""How much is in memory at once."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import HTTPException

from lensai_integrations.server.settings import Settings
from lensai_integrations.server.turns import Turns


def test_bodies_wait_until_there_is_room():
    async def main():
        turns, most, now = Turns(Settings(memory_bytes=100)), 0, 0

        async def send(size):
            nonlocal most, now
            async with turns.turn(size):
                now += size
                most = max(most, now)
                await asyncio.sleep(0)
                now -= size

        await asyncio.gather(*(send(size) for size in [60, 30, 50, 10, 100, 40, 1, 99, 60] * 5))
        return most

    assert 50 < asyncio.run(main()) <= 100


def test_a_body_larger_than_everything_waits_until_it_is_alone():
    async def main():
        turns = Turns(Settings(memory_bytes=100))
        async with turns.turn(1000):
            pass
        async with turns.turn(60):
            waits = asyncio.create_task(turns.turn(1000).__aenter__())
            await asyncio.sleep(0.01)
            assert not waits.done()
        await waits

    asyncio.run(main())


def test_only_so_many_wait_and_those_who_give_up_leave_no_trace():
    async def main():
        turns = Turns(Settings(memory_bytes=100, uploads_waiting=2))
        async with turns.turn(100):
            waiting = [asyncio.create_task(turns.turn(50).__aenter__()) for _ in range(2)]
            await asyncio.sleep(0.01)
            with pytest.raises(HTTPException) as refused:
                await turns.turn(1).__aenter__()
            assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "2"})
            [task.cancel() for task in waiting]
            await asyncio.gather(*waiting, return_exceptions=True)
        async with turns.turn(100):
            pass

    asyncio.run(main())
