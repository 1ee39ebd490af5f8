"""What one sender may have of what all share: at a moment, in a queue, in a day.

How much is under way and in memory at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import (
    KEPT_DAYS,
    Allowances,
    Bill,
    Budget,
    InTurn,
    LaterError,
    Sender,
    Shared,
    Slots,
    Spent,
    Turns,
    network_of,
)
from lensai_integrations.server.tokens import Grant


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 30)), max_size=200), st.integers(1, 300))
@settings(max_examples=300, deadline=None)
def test_nobody_gets_more_who_has_as_much_as_is_left(requests, most):
    shared, held = Shared(most), Counter()
    for holder, amount in requests:
        left, alone = most - held.total(), not held.total()
        assert shared.take(holder, amount) == (alone or held[holder] + amount <= left)
        held[holder] += amount if shared.taken > held.total() else 0
        assert shared.taken == held.total()
        assert shared.taken <= most or len(+held) == 1
    for holder, amount in held.items():
        shared.give(holder, amount)
    assert shared.taken == 0
    assert shared.take("f", most)


@pytest.mark.parametrize("greedy", [1, 2, 5, 20])
def test_however_many_take_all_they_can_there_is_room_for_one_more(greedy):
    """They give back what is oldest and take what they can, as bodies come and go."""
    shared, names = Shared(1000), [str(n) for n in range(greedy)]
    for _ in range(200):
        for name in names:
            if shared.held(name) > 1:
                shared.give(name, shared.held(name) // 2)
        while sum(shared.take(name, 1) for name in names):
            pass
    assert all(abs(shared.held(name) - 1000 / (greedy + 1)) <= 0.1 * 1000 / (greedy + 1) + 2 for name in names)
    taken = 0
    while shared.take("newcomer", 1):
        taken += 1
    assert taken >= 1000 // (greedy + 1) // 2 - 1


def test_whose_share_is_spent_and_who_has_come_to_a_full_house():
    shared = Shared(10)
    while shared.take("greedy", 1):
        pass
    while shared.take("modest", 1):
        pass
    assert (shared.is_over("greedy"), shared.is_over("newcomer")) == (True, False)


def test_what_waits_takes_turns():
    waiting = InTurn()
    for item in range(100):
        waiting.add("flood", item)
    for item in "xy":
        waiting.add("other", item)
    first = [waiting.next() for _ in range(5)]
    assert first == [("flood", 0), ("other", "x"), ("flood", 1), ("other", "y"), ("flood", 2)]
    waiting.discard("flood", 50)
    waiting.discard("flood", 50)
    waiting.discard("nobody", 50)
    assert [item for _, item in iter(waiting.next, None)] == [n for n in range(3, 100) if n != 50]
    assert not waiting


def test_slots_are_given_in_turn_whoever_waits_in_front():
    async def main():
        slots, order, going, gates = Slots(4), [], Counter(), {}
        most = Counter()

        async def work(holder, number):
            async with slots.slot(holder):
                going[holder] += 1
                most[holder] = max(most[holder], going[holder])
                order.append((holder, number))
                await gates.setdefault((holder, number), asyncio.Event()).wait()
                going[holder] -= 1

        tasks = [asyncio.create_task(work("flood", n)) for n in range(20)]
        await settled()
        assert order == [("flood", 0), ("flood", 1)]  # half of four
        tasks += [asyncio.create_task(work("other", n)) for n in range(3)]
        await settled()
        assert order[2:] == [("other", 0)]  # at once
        gates["flood", 0].set()
        await settled()
        assert order[3] in (("flood", 2), ("other", 1))
        assert sum(going.values()) == 3
        for _ in range(60):
            for gate in list(gates.values()):
                gate.set()
            await settled()
        await asyncio.gather(*tasks)
        assert [n for holder, n in order if holder == "flood"] == list(range(20))
        assert max(order.index(("other", n)) for n in range(3)) < 8  # not behind the flood's twenty
        assert most["flood"] <= 2
        assert slots._shared.taken == 0

    asyncio.run(main())


async def settled():
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("given_first", [False, True])
def test_who_gives_up_a_slot_leaves_no_trace(given_first):
    """Also where it is given in the moment in which it is given up."""

    async def main():
        slots, gate = Slots(1), asyncio.Event()

        async def work(holder):
            async with slots.slot(holder):
                await gate.wait()

        first, second = asyncio.create_task(work("a")), asyncio.create_task(work("b"))
        await settled()
        gate.set()
        if given_first:
            while slots._waiting:
                await asyncio.sleep(0)
        second.cancel()
        await first
        await settled()
        assert second.cancelled() or second.done()
        assert slots._shared.taken == 0
        async with asyncio.timeout(10), slots.slot("c"):
            pass

    asyncio.run(main())


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_budget_comes_back_and_is_no_more_than_it_was():
    clock = Clock()
    budget = Budget("new hours", most=100, a_day=24, clock=clock)
    budget.spend("door-3", 100)
    assert budget.wait("door-3", 1) == pytest.approx(3600)
    assert budget.wait("door-4", 100) == 0
    clock.now = 3601.0
    assert (budget.wait("door-3", 1), budget.wait("door-3", 2) > 3500) == (0, True)
    clock.now = 1e9
    assert budget.spent("door-3") == 0
    assert budget.wait("door-3", 101) > 0


def test_a_budget_knows_a_bounded_number_of_senders(monkeypatch):
    monkeypatch.setattr("lensai_integrations.server.shares._KNOWN", 3)
    budget = Budget("bytes", 10, 1)
    for n in range(100):
        budget.spend(n, 5)
        budget.spend("flood", 1)
    assert len(budget._spent) == 3
    assert budget.spent("flood") == pytest.approx(100, abs=0.1)


def test_a_bill_that_is_not_paid_costs_nothing():
    hours, sizes = Budget("new hours", 2, 1), Budget("bytes", 100, 1)
    bill = Bill()
    charges = [(hours, "a", 1), (sizes, "a", 30)]
    assert [bill.add(n, charges) for n in range(2)] == [None, None]
    refused = bill.add(2, charges)
    assert isinstance(refused, Spent)
    assert (refused.what, refused.seconds) == ("new hours", pytest.approx(86_400))
    assert bill.add(3, [(sizes, "a", 40)]) is None  # what was refused has taken nothing
    assert (hours.spent("a"), sizes.spent("a")) == (0, 0)
    bill.pay([0, 3])
    assert (hours.spent("a"), sizes.spent("a")) == (pytest.approx(1, abs=1e-3), pytest.approx(70, abs=1e-3))


def test_what_a_device_that_was_offline_for_three_months_has_is_within_its_allowance():
    allowances = Allowances(Settings())
    assert allowances.hours.wait("door-3", 90 * 24) == 0
    assert allowances.hours.wait("door-3", 2401) > 0
    assert allowances.bytes.wait("door-3", 60 * 1440 * 50_000) == 0  # an upload a minute, for two months
    assert allowances.bytes.most == KEPT_DAYS * 512 * 2**20


def test_whose_share_it_is():
    everywhere, door = Grant("", "f00d"), Grant("door-3", "beef")
    assert Sender(everywhere, "192.0.2.1").holder != Sender(everywhere, "192.0.2.2").holder
    assert Sender(door, "192.0.2.1").holder == Sender(door, "192.0.2.2").holder
    assert Sender(Grant(), "192.0.2.1").holder != Sender(Grant(), "192.0.2.2").holder


def test_networks_of_addresses():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("testclient") == "testclient"
    assert len(network_of("x" * 10_000)) == 64


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
