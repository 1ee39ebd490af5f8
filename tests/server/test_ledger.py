"""Each upload is stored once, whoever sends it how often and at the same time.

Uploads on their way to the disk.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter

import pytest
from receiving import WHEN
from sqlalchemy import select

from lensai_integrations.server import ledger as inboxes
from lensai_integrations.server.ledger import Inbox, Outcome, Received, add_uploads
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import Allowances, Spent
from lensai_integrations.server.store import SENSORS, UPLOADS, Store
from lensai_integrations.server.tokens import Grant

CREATED, REPEATED, DIFFERENT, NO_ROOM = Outcome


FLEET, OF_A = Grant("", "f"), Grant("a", "o")


def sent(sensor="door-3", timestamp=WHEN, digest="a", received=5.0, problems=(), grant=FLEET):
    return Received(sensor, timestamp, digest, 3, received, problems, digest.encode(), grant)


def add(store, *uploads, most=10, allowances=None):
    return add_uploads(store, uploads, most, allowances)


def rows(store, table):
    with store.reading() as db:
        return [row._mapping for row in db.execute(select(table).order_by(*table.primary_key))]


def test_once_and_again(store):
    assert add(store, sent()) == [CREATED]
    assert add(store, sent(), sent(digest="b"), sent(timestamp=WHEN + 1)) == [REPEATED, DIFFERENT, CREATED]
    stored = rows(store, UPLOADS)
    assert [(row["timestamp"], row["digest"], bytes(row["payload"])) for row in stored] == [
        (WHEN, "a", b"a"),
        (WHEN + 1, "a", b"a"),
    ]
    assert {row["hour"] for row in stored} == {1719392400}


def test_the_first_of_two_in_one_transaction_is_stored(store):
    assert add(store, sent(digest="b"), sent(digest="a"), sent(digest="b")) == [CREATED, DIFFERENT, REPEATED]
    assert rows(store, UPLOADS)[0]["digest"] == "b"


def test_sensors_are_counted(store):
    add(store, sent(timestamp=WHEN), sent(timestamp=WHEN + 9, received=6.0, problems=("x was empty",)))
    add(store, sent(timestamp=WHEN - 9, received=7.0), sent("other"), sent(timestamp=WHEN, received=99.0))
    first, second = rows(store, SENSORS)
    assert (first["uploads"], first["first"], first["last"], first["received"]) == (3, WHEN - 9, WHEN + 9, 7.0)
    assert json.loads(first["problems"]) == []
    assert (second["name"], second["uploads"]) == ("other", 1)


def test_there_is_room_for_so_many_sensors(store):
    assert add(store, sent("a"), sent("b"), sent("c"), most=2) == [CREATED, CREATED, NO_ROOM]
    assert add(store, sent("a", WHEN + 1), sent("c"), sent("b"), most=2) == [CREATED, NO_ROOM, REPEATED]
    assert [row["name"] for row in rows(store, SENSORS)] == ["a", "b"]


def test_at_the_same_time_from_several_servers(place):
    """Every server sends every upload, in another order."""
    uploads = [sent(f"s{n % 3}", WHEN + n) for n in range(30)]
    found, failed = Counter(), []

    def send(k):
        store = Store(place)
        try:
            for start in range(0, 30, 6):
                at = (start + 7 * k) % 30
                part = (uploads + uploads)[at : at + 6]
                found.update(add(store, *(part if k % 2 else part[::-1])))
        except BaseException as error:
            failed.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=send, args=(k,)) for k in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    store = Store(place)
    assert not failed
    assert found == {CREATED: 30, REPEATED: 90}
    assert len(rows(store, UPLOADS)) == 30
    assert [row["uploads"] for row in rows(store, SENSORS)] == [10, 10, 10]
    store.close()


@pytest.mark.parametrize("uploads", [(), (sent("a"), sent("b"))])
def test_nothing_is_stored_where_there_is_no_room_at_all(store, uploads):
    assert add(store, *uploads, most=0) == [NO_ROOM] * len(uploads)
    assert rows(store, UPLOADS) == []


def test_sensors_with_a_token_of_their_own_have_room(store):
    assert add(store, sent("b"), sent("a", grant=OF_A), sent("c"), most=1) == [CREATED, CREATED, NO_ROOM]
    assert add(store, sent("a", WHEN + 1, grant=OF_A), sent("c"), most=1) == [CREATED, NO_ROOM]


def names(outcomes):
    return [outcome.what if isinstance(outcome, Spent) else str(outcome) for outcome in outcomes]


def test_new_hours_are_charged_once_and_only_what_is_stored_is(store, monkeypatch):
    allowances = Allowances(Settings(hours_a_day=1), clock=lambda: 0.0)
    account = ("f", "door-3")
    hours = [sent(timestamp=WHEN + 3600 * n) for n in range(12)]
    assert names(add(store, *hours[:3], hours[0], sent(digest="b"), allowances=allowances)) == [
        *["created"] * 3, "repeated", "different",
    ]  # fmt: skip
    assert allowances.hours.spent(account) == 3
    with monkeypatch.context() as failing:
        failing.setattr("lensai_integrations.server.ledger._count", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            add(store, *hours[3:9], allowances=allowances)
    assert allowances.hours.spent(account) == 3  # of what was not stored nothing
    assert names(add(store, *hours, allowances=allowances)) == [
        *["repeated"] * 3, *["created"] * 7, *["new hours"] * 2,
    ]  # fmt: skip
    assert names(add(store, hours[11], sent("door-4", WHEN), sent(timestamp=WHEN + 1), allowances=allowances)) == [
        "new hours", "created", "created",
    ]  # fmt: skip
    assert len(rows(store, UPLOADS)) == 12


def test_what_one_token_sends_as_a_sensor_is_not_held_against_another_token(store):
    allowances = Allowances(Settings(hours_a_day=1), clock=lambda: 0.0)
    flood = [sent("a", WHEN + 3600 * n) for n in range(11)]
    assert names(add(store, *flood, allowances=allowances))[-1] == "new hours"
    assert add(store, sent("a", WHEN + 3600 * 10, grant=OF_A), allowances=allowances) == [CREATED]


def test_a_large_fleet_with_one_token_is_there_on_its_first_day(store):
    allowances = Allowances(Settings(), clock=lambda: 0.0)
    for begin in range(0, 9_000, 1_000):
        fleet = [sent(f"s{n}") for n in range(begin, begin + 1_000)]
        assert set(add(store, *fleet, most=9_000, allowances=allowances)) == {CREATED}
    assert add(store, sent("one more"), most=9_000, allowances=allowances) == [NO_ROOM]


def numbered(n, size=10):
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
        tasks = [asyncio.create_task(inbox.put(numbered(999), "first"))]
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
    flood = [("flood", numbered(n)) for n in range(300)]
    first, second, third = batches(monkeypatch, [*flood, ("other", numbered(500)), ("third", numbered(600))])
    assert first[:5] == [0, 500, 600, 1, 2]
    assert (len(first), len(second), len(third)) == (128, 128, 46)
    assert [n for n in [*first, *second, *third] if n < 300] == list(range(300))


def test_a_transaction_has_so_many_bytes(monkeypatch):
    uploads = [("flood", numbered(n, 5 * 2**20)) for n in range(9)]
    assert batches(monkeypatch, [*uploads, ("other", numbered(500))]) == [[0, 500, 1, 2, 3], [4, 5, 6, 7], [8]]
