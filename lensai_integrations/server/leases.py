"""Whose turn it is: hours are leased, by one server at a time, and sensors take turns.

A lease is a stamp of the store's clock. One in the future is of a clock that has been set back since, and holds
nothing. Sensors take turns by name, each with its newest hour: whoever has ten thousand hours waiting delays an hour
of another sensor by one of them.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, ColumnElement, select, update

from lensai_integrations.server.store import Store
from lensai_integrations.server.tables import HOURS, of_hour

#: Seconds by which a stamp may be ahead: whoever has it read the same clock a little later.
_LATER: Final = 60.0


def lease(
    store: Store,
    wanted: ColumnElement[bool],
    stamp: Column[float],
    wanted_columns: tuple[Any, ...],
    *,
    now: float,
    interval: float,
    after: str,
) -> tuple[Any, float] | None:
    """The newest hour that nobody has leased, of the sensor that comes next.

    Args:
        store: Where from.
        wanted: Which hours.
        stamp: The column of `HOURS` in which they are leased.
        wanted_columns: Columns that are given of it.
        now: Unix time in seconds, by the store's clock.
        interval: Seconds for which an hour is leased.
        after: The sensor that had its turn before.

    Returns:
        The hour's row, and what was in `stamp` before; None if there is none.
    """
    free = (stamp <= now - interval) | (stamp > now + _LATER)
    first = (
        select(HOURS.c.sensor, HOURS.c.hour, stamp)
        .where(wanted, free)
        .order_by(HOURS.c.sensor, HOURS.c.hour.desc())
        .limit(1)
    )
    while True:
        with store.reading() as db:
            found = db.execute(first.where(HOURS.c.sensor > after)).first()
            found = found or db.execute(first.where(HOURS.c.sensor > "")).first()
        if found is None:
            return None
        sensor, hour, before = found
        mine = of_hour(sensor, hour) & (stamp == before)
        with store.writing() as db:
            row = db.execute(update(HOURS).where(mine).values({stamp: now}).returning(*wanted_columns)).first()
        if row is not None:  # no other server was faster
            return row, before
