"""What is old is forgotten: by what the newest data say of the time, and only so much at once.

No clock is believed on its own. A server whose clock is three months ahead has data of today all the same, so nothing
in its store is three months older than them; a device whose clock is ahead is taken to be of now.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, exists, func, select

from lensai_integrations.server.store import Store
from lensai_integrations.server.tables import HOURS, SENSORS, UPLOADS, of_hour

#: The largest part of all hours that is forgotten at once, and how many hours may be however few there are.
SHARE: Final = 0.05
LEAST: Final = 500
#: Most hours that are forgotten in one transaction.
FORGOTTEN: Final = 50
#: Seconds between such transactions, in which uploads have their turn: a lock is not given to who waited longest.
_BETWEEN: Final = 0.01


@dataclass(frozen=True)
class Forgotten:
    """What was forgotten.

    Attributes:
        hours: How many hours of sensors.
        sensors: How many sensors they are of.
        first: The earliest of them, unix time in seconds; 0 without.
        last: The latest.
        left: How many are as old, and are left for the next time.
    """

    hours: int = 0
    sensors: int = 0
    first: int = 0
    last: int = 0
    left: int = 0


def forget(store: Store, now: float, keep: float) -> Forgotten:
    """Delete hours that are old, with the uploads in them, and sensors without any.

    An hour is old if it began so long before the newest data, and was last written so long before anything was.

    Args:
        store: Where from.
        now: Unix time in seconds, which nothing in the store is newer than.
        keep: Seconds.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> forget(store, now=1719392400.0, keep=86_400.0)
        Forgotten(hours=0, sensors=0, first=0, last=0, left=0)
        >>> store.close()
    """
    with store.reading() as db:
        data, written = db.scalar(select(func.max(SENSORS.c.last))), db.scalar(select(func.max(HOURS.c.updated)))
        most = max(LEAST, int(SHARE * (db.scalar(select(func.count()).select_from(HOURS)) or 0)))
    if data is None or written is None:
        return Forgotten()
    before = min(written, now) - keep
    old = (HOURS.c.hour < min(data, now) - keep) & (HOURS.c.updated < before)
    gone: list[tuple[str, int]] = []
    while len(gone) < most and (some := _forget_some(store, old, min(FORGOTTEN, most - len(gone)))):
        gone += some
        time.sleep(_BETWEEN)
    left = exists().where(UPLOADS.c.sensor == SENSORS.c.name)
    with store.writing() as db:
        db.execute(delete(SENSORS).where(SENSORS.c.received < before, ~left))
        waiting = db.scalar(select(func.count()).select_from(HOURS).where(old)) or 0 if len(gone) == most else 0
    hours = [hour for _, hour in gone]
    return Forgotten(
        len(gone), len({sensor for sensor, _ in gone}), min(hours, default=0), max(hours, default=0), waiting
    )


def _forget_some(store: Store, old: ColumnElement[bool], most: int) -> list[tuple[str, int]]:
    """Some hours in a transaction of their own, for uploads wait meanwhile where there is one writer at a time."""
    some = select(HOURS.c.sensor, HOURS.c.hour).where(old).order_by(HOURS.c.updated).limit(most)
    gone = []
    with store.writing() as db:
        for sensor, hour in db.execute(some).all():
            if db.execute(delete(HOURS).where(of_hour(sensor, hour), old)).rowcount:
                mine = (UPLOADS.c.sensor == sensor) & (UPLOADS.c.hour == hour) & UPLOADS.c.payload.is_(None)
                db.execute(delete(UPLOADS).where(mine))
                gone.append((sensor, hour))
    return gone
