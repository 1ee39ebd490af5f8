"""Whose turn it is: of sensors that send much and little, of servers, of clocks that were set."""

from __future__ import annotations

import pytest
from sqlalchemy import event, insert, update

from lensai_integrations.server import hours, reporting
from lensai_integrations.server import store as stores
from lensai_integrations.server.records import HOUR
from lensai_integrations.server.store import HOURS

NOW = 1_800_000_000.0
NEWEST = int(NOW) // HOUR * HOUR


def fill(store, sensor, count, **more):
    """Hours of a sensor that wait for a verdict, and have one that waits for MLflow."""
    about = {"sensor": sensor, "version": 2, "judged_version": 1, "drift": False, "judged": 1.0}
    about |= {"updated": 0.0, "uploads": 1, "rows": 1, "sketches": b"", **more}
    with store.writing() as db:
        db.execute(insert(HOURS), [{**about, "hour": NEWEST - HOUR * n} for n in range(count)])


def claims(store, claim, count, now=NOW):
    """Sensors and hours (ago) that are claimed one after the other, as one worker does."""
    found, after = [], ""
    while len(found) < count and (due := claim(store, now, 60.0, after)) is not None:
        about = due if claim is hours.claim else due.verdict
        after = about.sensor
        found.append((after, (NEWEST - about.hour) // HOUR))
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
