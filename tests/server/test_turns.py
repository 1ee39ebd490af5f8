"""How much is under way and in memory at once."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import LaterError, Sender, Turns
from lensai_integrations.server.tokens import Grant

SETTINGS = Settings(memory_bytes=1000, upload_bytes=100, uploads_at_once=100, uploads_of_sensor=3)
DOOR, OTHER = Sender(Grant("door-3", "d")), Sender(Grant("door-4", "e"))


def fleet(address):
    return Sender(Grant("", "f"), address)


def test_memory_is_of_what_has_come_and_is_given_back():
    turns = Turns(SETTINGS)
    with turns.turn(DOOR) as room:
        assert turns.memory.taken == 0
        room.grow(60)
        room.grow(40)
        assert turns.memory.taken == 100
        room.resize(30)
        assert turns.memory.taken == 30
    assert (turns.memory.taken, turns.uploads.taken) == (0, 0)
    with pytest.raises(ZeroDivisionError), turns.turn(DOOR) as room:
        room.grow(1 // 0)
    assert (turns.memory.taken, turns.uploads.taken) == (0, 0)


def test_who_has_half_of_the_memory_is_refused_and_nobody_else_is():
    turns = Turns(SETTINGS)
    with turns.turn(fleet("192.0.2.1")) as room, turns.turn(OTHER) as other:
        room.grow(500)
        with pytest.raises(LaterError) as refused:
            room.grow(1)
        assert (refused.value.status_code, refused.value.result) == (429, "over share")
        assert 2 <= int(refused.value.headers["Retry-After"]) <= 30
        assert turns.memory.taken == 500  # it still has what it had
        other.grow(250)
        with pytest.raises(LaterError) as refused, turns.turn(DOOR) as newcomer:
            newcomer.grow(251)
        assert (refused.value.status_code, refused.value.result) == (503, "unavailable")  # others have it
    assert turns.memory.taken == 0


def test_a_token_of_one_sensor_has_few_uploads_under_way_and_a_fleet_half_of_all():
    turns, held = Turns(SETTINGS), []

    def begin(sender):
        turn = turns.turn(sender)
        turn.__enter__()
        held.append(turn)

    def begin_all(sender):
        try:
            while True:
                begin(sender)
        except LaterError as refused:
            return refused.status_code, turns.uploads.held(sender.holder)

    async def main():
        assert begin_all(DOOR) == (429, 3)
        assert begin_all(fleet("192.0.2.1")) == (429, 49)
        assert begin_all(fleet("192.0.2.2")) == (503, 24)  # others have more
        begin(OTHER)
        for turn in held:
            turn.__exit__(None, None, None)
        assert turns.uploads.taken == 0

    asyncio.run(main())


def test_fewer_are_under_way_than_there_may_be_connections():
    turns = Turns(Settings())
    assert (turns.uploads.most, turns.readers.most) == (4_096, 256)
    turns.fit(5_000)
    assert (turns.uploads.most, turns.readers.most) == (4_096, 256)
    turns.fit(400)
    assert (turns.uploads.most, turns.readers.most) == (350, 50)


def test_a_body_that_is_whole_needs_no_place_and_a_token_of_one_sensor_has_few_all_the_same():
    """2,000 devices of one token and address upload in the same second; the server is slower than that."""

    def begin(stack, sender):
        room = stack.enter_context(turns.turn(sender))
        room.leave()
        room.leave()  # once is enough

    async def main():
        with contextlib.ExitStack() as stack:
            for _ in range(2_000):
                begin(stack, fleet("192.0.2.1"))
            for _ in range(3):
                begin(stack, DOOR)
            with pytest.raises(LaterError) as refused:
                begin(stack, DOOR)
            assert refused.value.status_code == 429
            assert turns.uploads.taken == 0
        begin(stack, DOOR)
        stack.close()
        assert (turns.uploads.taken, turns._of_sensors) == (0, {})

    turns = Turns(SETTINGS)
    asyncio.run(main())


def test_who_reads_waits_in_turn_and_half_of_those_who_do_are_of_others():
    async def main():
        turns, go_on, answered = Turns(Settings(reads_at_once=4)), asyncio.Event(), []
        turns.fit(160)  # 20 who read

        async def read(sender):
            try:
                async with turns.read(sender):
                    await go_on.wait()
                answered.append(200)
            except LaterError as later:
                answered.append(later.status_code)

        crowd = [asyncio.create_task(read(fleet("192.0.2.1"))) for _ in range(15)]
        await settled()
        assert answered == [429] * 5
        other = asyncio.create_task(read(fleet("192.0.2.2")))
        await settled()
        assert answered == [429] * 5
        go_on.set()
        await asyncio.gather(*crowd, other)
        assert answered == [429] * 5 + [200] * 11
        assert (turns.readers.taken, turns.reading._shared.taken) == (0, 0)

    asyncio.run(main())


def test_who_is_silent_leaves_its_place_to_others_of_the_same_sender(monkeypatch):
    """The longest silent first, and nobody who has not been silent for long."""

    async def main():
        turns, loop, sent, order = Turns(SETTINGS), asyncio.get_running_loop(), asyncio.Event(), []

        async def upload(name, sender=DOOR):
            try:
                with turns.turn(sender) as room:
                    async with room.waiting(loop.time() + 60):
                        await sent.wait()
                    order.append((name, "came"))
            except LaterError as later:
                order.append((name, later.status_code))

        tasks = [asyncio.create_task(upload(name)) for name in "abc"]
        tasks.append(asyncio.create_task(upload("other", OTHER)))
        await settled()
        await upload("d")  # all are quick
        assert order == [("d", 429)]
        monkeypatch.setattr("lensai_integrations.server.shares.SILENT", 0.0)
        tasks += [asyncio.create_task(upload(name)) for name in "ef"]
        await settled()
        assert order[1:] == [("a", 429), ("b", 429)]
        assert turns.uploads.held(DOOR.holder) == 3
        sent.set()
        await asyncio.gather(*tasks)
        assert sorted(order[3:]) == [("c", "came"), ("e", "came"), ("f", "came"), ("other", "came")]
        assert (turns.uploads.taken, turns.silent) == (0, {})

    asyncio.run(main())


async def settled():
    for _ in range(10):
        await asyncio.sleep(0)
