"""Uploads on their way into the store: each is written once, whatever a device sends again.

Those that come while one transaction is written share the next (`Inbox`): a disk syncs some hundred times a second, and
without this that would be how many uploads a second there can be. Where more wait than a transaction has, senders take
turns.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Table, case, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from lensai_integrations.server.records import hour_of
from lensai_integrations.server.settings import Settings
from lensai_integrations.server.shares import Allowances, Bill, Charge, InTurn, Spent
from lensai_integrations.server.store import SENSORS, UPLOADS, Store
from lensai_integrations.server.tokens import Grant

Key = tuple[str, int]
#: What the row of an upload and its entries in three indices take, about.
_ROW_BYTES: Final = 1024


class Outcome(StrEnum):
    """What became of an upload.

    Attributes:
        CREATED: It is stored.
        REPEATED: It was stored before.
        DIFFERENT: Another one of that sensor and timestamp was stored before, and stays.
        NO_ROOM: There are as many sensors as there may be, and it is a further one's.
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
        grant: What the token allows that it came with.
    """

    sensor: str
    timestamp: int
    digest: str
    size: int
    received: float
    problems: tuple[str, ...]
    payload: bytes
    grant: Grant = field(default=Grant(), compare=False)

    @property
    def key(self) -> Key:
        """What there is one of."""
        return self.sensor, self.timestamp

    @property
    def hour(self) -> Key:
        """What it is merged into."""
        return self.sensor, hour_of(self.timestamp)

    @property
    def bytes(self) -> int:
        """What it takes in memory, and on disk until it is merged."""
        return _ROW_BYTES + sum(map(len, self.problems)) + len(self.payload)

    @property
    def account(self) -> tuple[str, str]:
        """What its bytes and hours are charged to: of a token of all sensors, one sensor's are not another's."""
        return self.grant.token, self.sensor


#: Most uploads of one transaction, and bytes of them after which no other is added: others wait until it is on disk.
_TOGETHER: Final = 128
_BYTES: Final = 16 * 2**20

Answer = asyncio.Future[Outcome | Spent]


class Inbox:
    """Where requests leave their uploads, and wait until they are on disk.

    Args:
        store: Where to.
        most_sensors: Of further sensors nothing is stored.
        allowances: What may be stored in a day.
    """

    def __init__(self, store: Store, most_sensors: int, allowances: Allowances | None = None) -> None:
        self._store, self._most_sensors, self._allowances = store, most_sensors, allowances
        self._waiting = InTurn[tuple[Received, Answer]]()
        self._writer: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "lensai-inbox")  # whatever occupies the others

    async def put(self, upload: Received, holder: str = "") -> Outcome | Spent:
        """Store an upload; when this returns it is on disk, or was not to be stored.

        Args:
            upload: The upload.
            holder: Whose turn it is; see `Sender`.

        Raises:
            StoreError: If the store cannot be used.
        """
        answer: Answer = asyncio.get_running_loop().create_future()
        self._waiting.add(holder, (upload, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await answer

    async def _write(self) -> None:
        try:
            while batch := self._batch():
                await self._write_batch(batch)
        finally:
            self._writer = None

    def _batch(self) -> list[tuple[Received, Answer]]:
        batch: list[tuple[Received, Answer]] = []
        size = 0
        while len(batch) < _TOGETHER and size < _BYTES and (entry := self._waiting.next()):
            batch.append(entry[1])
            size += entry[1][0].bytes
        return batch

    async def _write_batch(self, batch: list[tuple[Received, Answer]]) -> None:
        try:
            uploads, loop = [upload for upload, _ in batch], asyncio.get_running_loop()
            outcomes = await loop.run_in_executor(
                self._thread, add_uploads, self._store, uploads, self._most_sensors, self._allowances
            )
        except Exception as error:  # noqa: BLE001  every request has to be answered
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), outcome in zip(batch, outcomes, strict=True):
            if not answer.done():
                answer.set_result(outcome)


def add_uploads(
    store: Store, uploads: Sequence[Received], most_sensors: int, allowances: Allowances | None = None
) -> list[Outcome | Spent]:
    """Store what is new, in one transaction: when this returns it is on disk.

    Args:
        store: Where to.
        uploads: In the order they came; of two for one sensor and timestamp the first is stored.
        most_sensors: Of further sensors nothing is stored, but of those that have a token of their own.
        allowances: What may be stored in a day. What was there before, and what is not stored, is not charged.

    Returns:
        An outcome for each upload, or which allowance of its sender is spent.

    Raises:
        StoreError: If the store cannot be used; then nothing is stored.

    Example:
        >>> import tempfile
        >>> store, upload = Store(tempfile.mkdtemp()), Received("door-3", 1719393854, "", 3, 0.0, (), b"abc")
        >>> [str(outcome) for outcome in add_uploads(store, [upload, upload], 10)]
        ['created', 'repeated']
        >>> store.close()
    """
    allowances = allowances or Allowances(Settings())
    with store.writing() as db:
        admission = _Admission(db, uploads, most_sensors, allowances)
        firsts: dict[Key, int] = {}
        refused: dict[int, Outcome | Spent] = {}
        for position, upload in enumerate(uploads):
            if upload.key in firsts:
                continue
            if refusal := admission.refusal(upload):
                refused[position] = refusal
            else:
                firsts[upload.key] = position
        wanted = {key: uploads[position] for key, position in firsts.items()}
        created = _insert(db, [wanted[key] for key in sorted(wanted)])
        _count(db, [wanted[key] for key in sorted(created)])
        digests = {key: wanted[key].digest for key in created} | _digests(db, sorted(wanted.keys() - created))
    admission.bill.pay(created)
    allowances.know(wanted[key].hour for key in created)
    return [
        refused.get(position) or _outcome(upload, position == firsts.get(upload.key), created, digests)
        for position, upload in enumerate(uploads)
    ]


def _outcome(upload: Received, first: bool, created: set[Key], digests: dict[Key, str]) -> Outcome:
    if first and upload.key in created:
        return Outcome.CREATED
    return Outcome.REPEATED if digests[upload.key] == upload.digest else Outcome.DIFFERENT


class _Admission:
    """Which of some uploads may be stored."""

    def __init__(self, db: Connection, uploads: Sequence[Received], most: int, allowances: Allowances) -> None:
        self._allowances, self.bill = allowances, Bill()
        hours = {upload.hour for upload in uploads}
        self._hours = hours & allowances.known
        self._sensors, self._room = {sensor for sensor, _ in self._hours}, 0
        if new := hours - self._hours:  # what is known need not be asked for
            names, columns = {sensor for sensor, _ in new}, (UPLOADS.c.sensor, UPLOADS.c.hour)
            self._sensors |= set(db.scalars(select(SENSORS.c.name).where(SENSORS.c.name.in_(names))))
            rows = db.execute(select(*columns).where(tuple_(*columns).in_(sorted(new))).distinct())
            self._hours |= {(sensor, hour) for sensor, hour in rows}
            if not names <= self._sensors:
                self._room = most - (db.scalar(select(func.count()).select_from(SENSORS)) or 0)

    def refusal(self, upload: Received) -> Outcome | Spent | None:
        """Why an upload may not be stored; None if it may, and then it is on the bill."""
        is_known = upload.sensor in self._sensors
        if not (is_known or upload.grant.sensor or self._room > 0):
            return Outcome.NO_ROOM
        charges: list[Charge] = [(self._allowances.bytes, upload.account, upload.bytes)]
        if upload.hour not in self._hours:
            charges.append((self._allowances.hours, upload.account, 1))
        if spent := self.bill.add(upload.key, charges):
            return spent
        self._room -= not is_known
        self._sensors.add(upload.sensor)
        self._hours.add(upload.hour)
        return None


def _insert(db: Connection, uploads: list[Received]) -> set[Key]:
    if not uploads:
        return set()
    rows = [
        {
            "sensor": upload.sensor,
            "timestamp": upload.timestamp,
            "hour": hour_of(upload.timestamp),
            "digest": upload.digest,
            "size": upload.size,
            "received": upload.received,
            "problems": json.dumps(upload.problems),
            "payload": upload.payload,
        }
        for upload in uploads
    ]
    statement = upsert(db, UPLOADS).on_conflict_do_nothing().returning(UPLOADS.c.sensor, UPLOADS.c.timestamp)
    return {(sensor, timestamp) for sensor, timestamp in db.execute(statement, rows)}


def _digests(db: Connection, keys: list[Key]) -> dict[Key, str]:
    if not keys:
        return {}
    columns = (UPLOADS.c.sensor, UPLOADS.c.timestamp)
    rows = db.execute(select(*columns, UPLOADS.c.digest).where(tuple_(*columns).in_(keys)))
    return {(sensor, timestamp): digest for sensor, timestamp, digest in rows}


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
            "first": min(upload.timestamp for upload in sent),
            "last": max(upload.timestamp for upload in sent),
            "received": max(upload.received for upload in sent),
            "uploads": len(sent),
            "problems": json.dumps(sent[-1].problems),
        }
        for name, sent in sorted(by_sensor.items())
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
