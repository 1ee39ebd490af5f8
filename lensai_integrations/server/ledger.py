"""Uploads as they come in: each is written once, whatever a device sends again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Table, case, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from lensai_integrations.server.records import hour_of
from lensai_integrations.server.store import Store
from lensai_integrations.server.tables import SENSORS, UPLOADS

Key = tuple[str, int]


class Outcome(StrEnum):
    """What became of an upload.

    Attributes:
        CREATED: It is stored.
        REPEATED: It was stored before.
        DIFFERENT: Another one of that sensor and timestamp was stored before, and stays.
        NO_ROOM: There are as many sensors as there may be.
    """

    CREATED = "created"
    REPEATED = "repeated"
    DIFFERENT = "different"
    NO_ROOM = "no room"


@dataclass(frozen=True)
class Received:
    """An upload that was checked.

    Attributes:
        sensor: Whose it is.
        timestamp: Of when, unix time in seconds.
        digest: sha256 of its sketches, hexadecimal.
        size: Of the archive in bytes.
        received: Unix time in seconds at which it came.
        problems: Files that were not read or may be misread, and why.
        payload: Its sketches, packed.
    """

    sensor: str
    timestamp: int
    digest: str
    size: int
    received: float
    problems: tuple[str, ...]
    payload: bytes

    @property
    def key(self) -> Key:
        """What there is one of."""
        return self.sensor, self.timestamp


def add_uploads(store: Store, uploads: Sequence[Received], most_sensors: int) -> list[Outcome]:
    """Store what is new, in one transaction: when this returns it is on disk.

    Args:
        store: Where to.
        uploads: In the order they came; of two for one sensor and timestamp the first is stored.
        most_sensors: Of further sensors nothing is stored.

    Returns:
        An outcome for each upload.

    Raises:
        StoreError: If the store cannot be used; then nothing is stored.

    Example:
        >>> import tempfile
        >>> store, upload = Store(tempfile.mkdtemp()), Received("door-3", 1719393854, "", 3, 0.0, (), b"abc")
        >>> [str(outcome) for outcome in add_uploads(store, [upload, upload], 10)]
        ['created', 'repeated']
        >>> store.close()
    """
    with store.writing() as db:
        admitted = _admitted(db, {upload.sensor for upload in uploads}, most_sensors)
        firsts: dict[Key, int] = {}
        for position, upload in enumerate(uploads):
            if upload.sensor in admitted:
                firsts.setdefault(upload.key, position)
        wanted = {key: uploads[position] for key, position in firsts.items()}
        created = _insert(db, [wanted[key] for key in sorted(wanted)])
        _count(db, [wanted[key] for key in sorted(created)])
        digests = {key: wanted[key].digest for key in created} | _digests(db, sorted(wanted.keys() - created))
    return [
        _outcome(upload, position == firsts.get(upload.key), created, digests)
        for position, upload in enumerate(uploads)
    ]


def _outcome(upload: Received, first: bool, created: set[Key], digests: dict[Key, str]) -> Outcome:
    if upload.key not in digests:
        return Outcome.NO_ROOM
    if first and upload.key in created:
        return Outcome.CREATED
    return Outcome.REPEATED if digests[upload.key] == upload.digest else Outcome.DIFFERENT


def _admitted(db: Connection, names: set[str], most: int) -> set[str]:
    known = set(db.scalars(select(SENSORS.c.name).where(SENSORS.c.name.in_(names))))
    if known == names:
        return names
    room = most - (db.scalar(select(func.count()).select_from(SENSORS)) or 0)
    return known | set(sorted(names - known)[: max(room, 0)])


def _insert(db: Connection, uploads: list[Received]) -> set[Key]:
    if not uploads:
        return set()
    rows = [
        {**asdict(upload), "hour": hour_of(upload.timestamp), "problems": json.dumps(upload.problems)}
        for upload in uploads
    ]
    statement = upsert(db, UPLOADS).on_conflict_do_nothing().returning(UPLOADS.c.sensor, UPLOADS.c.timestamp)
    return {(sensor, timestamp) for sensor, timestamp in db.execute(statement, rows)}


def _digests(db: Connection, keys: list[Key]) -> dict[Key, str]:
    if not keys:
        return {}
    columns = (UPLOADS.c.sensor, UPLOADS.c.timestamp)
    found = db.execute(select(*columns, UPLOADS.c.digest).where(tuple_(*columns).in_(keys)))
    return {(sensor, timestamp): digest for sensor, timestamp, digest in found}


def _count(db: Connection, uploads: list[Received]) -> None:
    """What sensors have sent; in the order of their names, so that two servers do not wait for each other."""
    if not uploads:
        return
    by_sensor: dict[str, list[Received]] = {}
    for upload in uploads:
        by_sensor.setdefault(upload.sensor, []).append(upload)
    rows = [
        {
            "name": name,
            "first": min(upload.timestamp for upload in each),
            "last": max(upload.timestamp for upload in each),
            "received": max(upload.received for upload in each),
            "uploads": len(each),
            "problems": json.dumps(each[-1].problems),
        }
        for name, each in sorted(by_sensor.items())
    ]
    statement = upsert(db, SENSORS)
    new, old = statement.excluded, SENSORS.c
    changed = {
        "first": case((new.first < old.first, new.first), else_=old.first),
        "last": case((new.last > old.last, new.last), else_=old.last),
        "received": new.received,
        "uploads": old.uploads + new.uploads,
        "problems": new.problems,
    }
    db.execute(statement.on_conflict_do_update(index_elements=[SENSORS.c.name], set_=changed), rows)


def upsert(db: Connection, table: Table) -> Any:
    """An insert into the table that can say what is done where the row is there already, in the database's dialect."""
    return (postgresql if db.dialect.name == "postgresql" else sqlite).insert(table)
