"""What one sender may have of what all share: at a moment, in a queue, in a day."""

from __future__ import annotations

import asyncio
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
    Sender,
    Shared,
    Slots,
    Spent,
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
