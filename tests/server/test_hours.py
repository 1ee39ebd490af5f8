"""Each upload is merged once, whatever order, batching or number of servers; verdicts belong to what was judged.

Whose turn it is: of sensors that send much and little, of servers, of clocks that were set.

How much an hour may hold, whatever names are sent.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from datasketches import kll_floats_sketch
from hypothesis import given, settings
from hypothesis import strategies as st
from receiving import HOUR, WHEN, device, form, sketch_of
from sqlalchemy import event, insert, select, update

from lensai_integrations.edge.uploads import pack_sketches, rows_of, unpack_sketches
from lensai_integrations.server import hours, queries, reporting
from lensai_integrations.server import store as stores
from lensai_integrations.server.hours import UnmergedHour, fitting, folded
from lensai_integrations.server.ledger import Received, add_uploads
from lensai_integrations.server.records import HOUR as AN_HOUR
from lensai_integrations.server.records import HourDrift
from lensai_integrations.server.store import HOURS, UPLOADS, Store
from lensai_integrations.sketches import wire


def upload(sensor="a", timestamp=WHEN, content=None, received=5.0):
    payload = pack_sketches(content or device(timestamp % 1000, n=10))
    return Received(sensor, timestamp, str(timestamp), 3, received, (), payload)


def settle(store, sensor="a", hour=HOUR, most=500, now=10.0):
    """One transaction; how many uploads it merged, None if another server was faster."""
    batch = hours.take(store, sensor, hour, most)
    if not batch.payloads:
        return 0
    whole, damaged = folded(batch)
    done = hours.put(store, batch, pack_sketches(whole), rows_of(whole), now, damaged)
    return len(batch.payloads) if done else None


def counted(store, sensor="a", hour=HOUR):
    sketches = queries.hour_sketches(store, sensor, hour)
    return {path: kll_floats_sketch.deserialize(content).n for path, content in sketches.items()}


def of(store, column):
    with store.reading() as db:
        return db.scalars(select(column)).all()


def test_uploads_become_an_hour(store):
    add_uploads(store, [upload(), upload(timestamp=WHEN + 1), upload("b"), upload(timestamp=HOUR + 3600)], 10)
    assert hours.pending(store) == [("a", HOUR + 3600), ("b", HOUR)]
    assert [hours.pending_before(store, "a", before) for before in (HOUR + 3600, HOUR)] == [HOUR, None]
    assert settle(store) == 2
    assert counted(store) == {f"imgstats/{name}.bin": 20 for name in ("brightness", "noise", "sharpness")}
    assert settle(store) == 0
    assert hours.pending(store) == [("a", HOUR + 3600), ("b", HOUR)]
    assert hours.pending_before(store, "a", HOUR + 3600) is None
    assert [h.uploads for h in queries.list_hours(store, "a", most=9)] == [2]
    assert sum(payload is None for payload in of(store, UPLOADS.c.payload)) == 2


def test_an_upload_that_comes_later_is_merged_too(store):
    for n in range(3):
        add_uploads(store, [upload(timestamp=WHEN + n)], 10)
        assert settle(store, most=1) == 1
    (found,) = queries.list_hours(store, "a", most=9)
    assert (found.uploads, found.rows, found.drift, found.judged) == (3, 30, None, None)
    assert of(store, HOURS.c.version) == [3]


def test_of_two_servers_with_the_same_batch_one_writes(store):
    add_uploads(store, [upload(), upload(timestamp=WHEN + 1)], 10)
    for _ in range(2):  # an hour that is new, and one that is there already
        slow = hours.take(store, "a", HOUR, 500)
        assert settle(store) == len(slow.payloads)
        assert hours.put(store, slow, b"{}\n", 0, 11.0) is False
        add_uploads(store, [upload(timestamp=WHEN + 2)], 10)
    assert settle(store) == 0
    assert set(counted(store).values()) == {30}


def test_what_came_between_reading_and_writing_waits_for_the_next_time(store):
    add_uploads(store, [upload()], 10)
    batch = hours.take(store, "a", HOUR, 500)
    add_uploads(store, [upload(timestamp=WHEN + 1)], 10)
    whole, _ = folded(batch)
    assert hours.put(store, batch, pack_sketches(whole), 10, 10.0)
    assert settle(store) == 1
    assert set(counted(store).values()) == {20}


def test_a_transaction_that_is_cut_short_has_merged_nothing(store, monkeypatch):
    """Whatever dies in between: the hour and the payloads are of one transaction."""
    add_uploads(store, [upload()], 10)
    monkeypatch.setattr(hours, "_mine", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        settle(store)
    monkeypatch.undo()
    assert queries.hour_sketches(store, "a", HOUR) is None
    assert settle(store) == 1
    assert set(counted(store).values()) == {10}


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=7).flatmap(
        lambda sizes: st.tuples(st.permutations(list(enumerate(sizes))), st.integers(1, 4))
    )
)
def test_counts_and_extremes_are_exact_in_any_order_and_batching(given):
    """Without a database between: what `take` hands out is folded batch by batch."""
    order, most = given
    sketches, seen = None, [float(100 * k + i) for k, size in order for i in range(size)]
    uploads = {k: pack_sketches({"imgstats/noise.bin": sketch_of(100 * k + i for i in range(n))}) for k, n in order}
    for at in range(0, len(order), most):
        batch = hours.UnmergedHour("a", HOUR, 1, sketches, {k: uploads[k] for k, _ in order[at : at + most]})
        whole, damaged = folded(batch)
        assert not damaged
        sketches = pack_sketches(whole)
    sketch = kll_floats_sketch.deserialize(unpack_sketches(sketches)["imgstats/noise.bin"])
    assert (sketch.n, sketch.get_min_value(), sketch.get_max_value()) == (len(seen), min(seen), max(seen))


def test_several_servers_merge_what_keeps_coming(place):
    """Four workers settle while two devices upload: every upload is in its hour, once."""
    stores = [Store(place) for _ in range(6)]
    done = threading.Event()

    def send(store, sensor):
        for n in range(25):
            add_uploads(store, [upload(sensor, WHEN + n)], 10)

    def work(store):
        while True:
            last = done.is_set()
            for sensor, hour in hours.pending(store):
                settle(store, sensor, hour, most=4)
            if last and not hours.pending(store):
                return

    with ThreadPoolExecutor(6) as pool:
        workers = [pool.submit(work, store) for store in stores[:4]]
        senders = [pool.submit(send, store, sensor) for store, sensor in zip(stores[4:], "ab", strict=True)]
        [sender.result(60) for sender in senders]
        done.set()
        [worker.result(60) for worker in workers]
    for sensor in "ab":
        assert set(counted(stores[0], sensor).values()) == {250}
        assert [h.uploads for h in queries.list_hours(stores[0], sensor, most=9)] == [25]
    [store.close() for store in stores]


def test_what_was_stored_and_is_damaged_is_left_out_and_said(store):
    add_uploads(store, [upload(), upload(timestamp=WHEN + 1), upload("b")], 10)
    with store.writing() as db:
        bad = (UPLOADS.c.sensor == "a") & (UPLOADS.c.timestamp == WHEN)
        db.execute(update(UPLOADS).where(bad).values(payload=b'{"imgstats/noise.bin": 3}\nabc'))
    assert settle(store) == 2
    assert set(counted(store).values()) == {10}
    assert [h.uploads for h in queries.list_hours(store, "a", most=9)] == [1]
    assert set(of(store, UPLOADS.c.problems)) == {"[]", '["what was stored of an upload was damaged"]'}
    assert settle(store, "b") == 1


def claimed(store, now, interval=60.0):
    due = hours.claim(store, now, interval)
    return due and (due.sensor, due.hour, due.version)


def test_an_hour_is_judged_once_per_version_and_interval(store):
    add_uploads(store, [upload(), upload("b")], 10)
    settle(store), settle(store, "b")
    assert {claimed(store, 100.0), claimed(store, 100.0)} == {("a", HOUR, 1), ("b", HOUR, 1)}
    assert claimed(store, 130.0) is None  # they are being judged
    hours.put_verdict(store, HourDrift("a", HOUR, 1, 10, False, 0.1, ("x",), 101.0), 1, "{}")
    assert claimed(store, 161.0) == ("b", HOUR, 1)  # whoever was to judge it has not
    add_uploads(store, [upload(timestamp=WHEN + 1)], 10)
    settle(store)
    assert claimed(store, 161.0) == ("a", HOUR, 2)
    hours.put_verdict(store, HourDrift("a", HOUR, 2, 20, True, 0.5, ("x", "y"), 162.0), 2, '{"drift": true}')
    hours.put_verdict(store, HourDrift("a", HOUR, 1, 10, False, 0.1, (), 163.0), 1, "{}")  # late, of an older version
    assert queries.list_hours(store, "a", most=9) == [HourDrift("a", HOUR, 2, 20, True, 0.5, ("x", "y"), 162.0)]
    assert queries.hour_report(store, "a", HOUR)[1] == {"drift": True}
    assert claimed(store, 1e6) == ("b", HOUR, 1)


def test_no_two_servers_are_handed_the_same_hour(place):
    stores = [Store(place) for _ in range(4)]
    add_uploads(stores[0], [upload(f"s{n}") for n in range(12)], 20)
    [settle(stores[0], f"s{n}") for n in range(12)]
    found = []

    def work(store):
        while (due := hours.claim(store, 100.0, 60.0)) is not None:
            found.append(due.sensor)

    with ThreadPoolExecutor(4) as pool:
        [each.result(60) for each in [pool.submit(work, store) for store in stores]]
    assert sorted(found) == sorted(f"s{n}" for n in range(12))
    [store.close() for store in stores]


def test_as_many_bytes_are_taken_at_once_as_are_wanted(store):
    add_uploads(store, [upload(timestamp=WHEN + n, content={"custom/a.bin": sketch_of([n])}) for n in range(4)], 10)
    size = len(upload(content={"custom/a.bin": sketch_of([1])}).payload)
    for most_bytes, expected in ((1, 1), (2 * size, 2), (3 * size - 1, 2), (9 * size, 4)):
        taken = hours.take(store, "a", HOUR, 500, most_bytes)
        assert list(taken.payloads) == [WHEN + n for n in range(expected)]
        assert taken.more is (expected < 4)
    for most in (3, 4):
        taken = hours.take(store, "a", HOUR, most, 9 * size)
        assert (len(taken.payloads), taken.more) == (most, most < 4)


def batch(*contents, known=None):
    payloads = {
        n: pack_sketches({f"custom/{name}.bin": sketch_of([1.0]) for name in each}) for n, each in enumerate(contents)
    }
    sketches = None if known is None else pack_sketches({f"custom/{name}.bin": sketch_of([1.0]) for name in known})
    return UnmergedHour("a", 0, 1, sketches, payloads)


def names(given):
    return ["".join(path[7] for path in unpack_sketches(payload)) for payload in given.payloads.values()]


def test_a_batch_that_fits_stays_as_it_is():
    given = batch("ab", "bc", known="a")
    assert fitting(given) == (given, [])


def test_further_streams_are_left_out_and_known_ones_are_not(monkeypatch):
    monkeypatch.setattr(hours, "MOST_STREAMS", 3)
    found, fewer = fitting(batch("bc", "abcd", "de", "c", known="ab"))
    assert (names(found), fewer) == (["bc", "abc", "", "c"], [1, 2])
    whole, damaged = folded(found)
    assert (list(whole), damaged) == ([f"custom/{name}.bin" for name in "abc"], [])


def test_further_bytes_are_left_out(monkeypatch):
    monkeypatch.setattr(hours, "MOST_BYTES", 2 * hours._grown(sketch_of([1.0])))
    found, fewer = fitting(batch("a", "bc", known="a"))
    assert (names(found), fewer) == (["a", "b"], [1])
    large = {"custom/x.bin": sketch_of([1.0], k=65_000), "custom/y.bin": sketch_of([1.0])}
    found, fewer = fitting(UnmergedHour("a", 0, 0, None, {7: pack_sketches(large)}))
    assert (list(unpack_sketches(found.payloads[7])), fewer) == (["custom/y.bin"], [7])


def test_what_is_damaged_is_left_to_whoever_merges():
    assert fitting(UnmergedHour("a", 0, 0, None, {1: b"damaged"}))[1] == []


@pytest.mark.parametrize("k", [8, 200, 4096, 65_535])
def test_a_sketch_does_not_grow_beyond_what_was_counted(k):
    assert 4 * wire.total_capacity(k, 60) + 4 * 60 + 28 <= hours._grown(sketch_of([1.0], k=k))


def test_an_hour_without_room_says_so_and_goes_on(service, monkeypatch, caplog):
    monkeypatch.setattr(hours, "MOST_STREAMS", 4)
    for n in range(2):
        own = {f"custom/{n}{each}.bin": sketch_of([1.0]) for each in range(3)}
        assert service.post("/upload/", **form(timestamp=WHEN + n, content={**device(n), **own})).status_code == 201
        service.work()
    store = service.service.store
    (hour,) = queries.list_hours(store, "door-3", most=9)
    assert (hour.uploads, hour.rows, hour.drift) == (2, 100, True)
    assert "streams of an upload were left out" in queries.find_sensor(store, "door-3").problems[0]
    assert "no room for more streams" in caplog.text


NOW = 1_800_000_000.0
NEWEST = int(NOW) // AN_HOUR * AN_HOUR


def fill(store, sensor, count, **more):
    """Hours of a sensor that wait for a verdict, and have one that waits for MLflow."""
    about = {"sensor": sensor, "version": 2, "judged_version": 1, "drift": False, "judged": 1.0}
    about |= {"updated": 0.0, "uploads": 1, "rows": 1, "sketches": b"", **more}
    with store.writing() as db:
        db.execute(insert(HOURS), [{**about, "hour": NEWEST - AN_HOUR * n} for n in range(count)])


def claims(store, claim, count, now=NOW):
    """Sensors and hours (ago) that are claimed one after the other, as one worker does."""
    found, after = [], ""
    while len(found) < count and (due := claim(store, now, 60.0, after)) is not None:
        about = due if claim is hours.claim else due.verdict
        after = about.sensor
        found.append((after, (NEWEST - about.hour) // AN_HOUR))
    return found


CLAIMS = pytest.mark.parametrize("claim", [hours.claim, reporting.claim])


@CLAIMS
def test_sensors_take_turns_each_with_its_newest_hour(store, claim):
    for sensor, count in (("a", 3), ("b", 1), ("c", 2)):
        fill(store, sensor, count)
    assert claims(store, claim, 9) == [("a", 0), ("b", 0), ("c", 0), ("a", 1), ("c", 1), ("a", 2)]


@pytest.mark.slow
@CLAIMS
def test_no_flood_of_hours_of_one_sensor_keeps_another_waiting(sqlite, claim):
    """However many wait: the next turn but one is another's, also of an hour that becomes due meanwhile."""
    fill(sqlite, "flood", 50_000)
    fill(sqlite, "other-1", 1)
    assert claims(sqlite, claim, 3) == [("flood", 0), ("other-1", 0), ("flood", 1)]
    fill(sqlite, "other-2", 1)
    assert claims(sqlite, claim, 3)[1] == ("other-2", 0)


@CLAIMS
def test_a_turn_is_found_by_seeking(sqlite, claim):
    """However many wait, and of whomever."""
    statements = []
    fill(sqlite, "a", 2)
    event.listen(
        sqlite._engine, "before_cursor_execute", lambda c, cur, text, args, *_: statements.append((text, args))
    )
    claim(sqlite, NOW, 60.0, "a")
    text, args = next(found for found in statements if found[0].startswith("SELECT"))
    with sqlite.reading() as db:
        plan = [row[-1] for row in db.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", args)]
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH lensai_hours USING")
    assert "lensai_hours_due" in plan[0] or "lensai_hours_unlogged" in plan[0]


@CLAIMS
@pytest.mark.parametrize(("ahead", "taken"), [(4 * 3600.0, 1), (61.0, 1), (59.0, 0), (-59.0, 0), (-60.0, 1)])
def test_a_lease_in_the_future_holds_nothing(store, claim, ahead, taken):
    """The clock was set back since, or the server that died had another; a peer reads the clock a little later."""
    fill(store, "a", 1)
    with store.writing() as db:
        db.execute(update(HOURS).values(claimed=NOW + ahead, logged=NOW + ahead))
    assert len(claims(store, claim, 9)) == taken


def test_the_clock_is_that_of_the_store(store, monkeypatch):
    """Of two servers of one database, the one whose clock is ahead leases nothing for longer."""
    monkeypatch.setattr(stores.time, "time", lambda: 5.0)
    assert (store.now() == 5.0) is (store.kind == "sqlite")
    assert (store.now() > 1.7e9) is (store.kind == "postgresql")
