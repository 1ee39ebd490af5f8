"""Hours of sensors in the store: whose turn it is, what is merged of their uploads, and what was found of it.

Merging takes no lock. Whoever merges reads an hour's version, and writes only if it is still that version, in the
transaction that clears the payloads; of two servers that merge the same uploads one is told to try again.

Judging is leased, to one server at a time. A lease is a stamp of the store's clock; one in the future is of a clock
that has been set back since, and holds nothing. Sensors take turns by name, each with its newest hour: whoever has ten
thousand hours waiting delays an hour of another sensor by one of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, func, select, update

from lensai_integrations.edge.uploads import Sketches, merged, pack_sketches, unpack_sketches
from lensai_integrations.errors import FormatError
from lensai_integrations.server.ledger import upsert
from lensai_integrations.server.records import HourDrift
from lensai_integrations.server.store import HOURS, SENSORS, UPLOADS, Store, of_hour

#: Most bytes of uploads that are taken to be merged at once.
TAKEN_BYTES: Final = 32 * 2**20


@dataclass(frozen=True)
class UnmergedHour:
    """What is to be merged into an hour.

    Attributes:
        sensor: Whose.
        hour: When it begins, unix time in seconds.
        version: Of the hour when it was read; 0 if there is none yet.
        sketches: What is merged so far, packed; None as above.
        payloads: By timestamp.
        more: Whether there are more of them.
    """

    sensor: str
    hour: int
    version: int
    sketches: bytes | None
    payloads: dict[int, bytes]
    more: bool = False


def pending(store: Store) -> list[tuple[str, int]]:
    """Sensors by name that have uploads to merge, each with the newest of its hours that have."""
    newest = select(UPLOADS.c.sensor, func.max(UPLOADS.c.hour)).where(UPLOADS.c.payload.is_not(None))
    with store.reading() as db:
        rows = db.execute(newest.group_by(UPLOADS.c.sensor).order_by(UPLOADS.c.sensor))
        return [(sensor, hour) for sensor, hour in rows]


def pending_before(store: Store, sensor: str, hour: int) -> int | None:
    """The newest hour of a sensor before this one that has uploads to merge; None if there is none."""
    older = (UPLOADS.c.sensor == sensor) & (UPLOADS.c.hour < hour) & UPLOADS.c.payload.is_not(None)
    with store.reading() as db:
        newest: int | None = db.scalar(select(func.max(UPLOADS.c.hour)).where(older))
    return newest


def take(store: Store, sensor: str, hour: int, most: int, most_bytes: int = TAKEN_BYTES) -> UnmergedHour:
    """The uploads of an hour that are not merged yet, the oldest first, and what they are to be merged into.

    Args:
        store: Where from.
        sensor: Whose.
        hour: When it begins.
        most: How many at most.
        most_bytes: As many bytes of them, too; one of them is taken whatever it has.
    """
    mine = (UPLOADS.c.sensor == sensor) & (UPLOADS.c.hour == hour) & UPLOADS.c.payload.is_not(None)
    sizes = select(UPLOADS.c.timestamp, func.length(UPLOADS.c.payload)).where(mine).order_by(UPLOADS.c.timestamp)
    with store.reading() as db:
        row = db.execute(select(HOURS.c.version, HOURS.c.sketches).where(of_hour(sensor, hour))).first()
        there = [(timestamp, size) for timestamp, size in db.execute(sizes.limit(most + 1))]
        within = _within(there[:most], most_bytes)
        waiting = select(UPLOADS.c.timestamp, UPLOADS.c.payload).where(mine, UPLOADS.c.timestamp.in_(within))
        rows = db.execute(waiting.order_by(UPLOADS.c.timestamp))
        payloads = {timestamp: bytes(payload) for timestamp, payload in rows}
    version, sketches = (row.version, bytes(row.sketches)) if row else (0, None)
    return UnmergedHour(sensor, hour, version, sketches, payloads, more=len(within) < len(there))


def _within(sizes: list[tuple[int, int]], most: int) -> list[int]:
    """The first timestamps whose payloads have no more bytes together; one at least."""
    sums = accumulate(size for _, size in sizes)
    return [
        timestamp for at, ((timestamp, _), total) in enumerate(zip(sizes, sums, strict=True)) if not at or total <= most
    ]


#: Most streams of an hour, and most bytes they may grow to: one more upload can always be merged in memory.
MOST_STREAMS: Final = 2_000
MOST_BYTES: Final = 32 * 2**20
#: Bytes of a sketch with the parameter k once it has seen a lot: up to 3 k values, and what is around them.
_BYTES_PER_K: Final = 12
_AROUND: Final = 2_500


class Room:
    """What is left of the room for the streams of one hour, or of several that are merged.

    Args:
        stored: What is in it already.

    Example:
        >>> noise = bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")
        >>> list(Room().fitting({"imgstats/noise.bin": noise}))
        ['imgstats/noise.bin']
    """

    def __init__(self, stored: Sketches | None = None) -> None:
        self._streams, self._bytes = set(stored or ()), MOST_BYTES - sum(map(_grown, (stored or {}).values()))

    def fitting(self, sketches: Sketches) -> Sketches:
        """Those for which there is room, which they then take."""
        fits: Sketches = {}
        for path, sketch in sketches.items():
            if path not in self._streams:
                if len(self._streams) >= MOST_STREAMS or _grown(sketch) > self._bytes:
                    continue
                self._streams.add(path)
                self._bytes -= _grown(sketch)
            fits[path] = sketch
        return fits


def fitting(batch: UnmergedHour) -> tuple[UnmergedHour, list[int]]:
    """A batch without the streams for which its hour has no room: names are chosen by whoever sends them.

    Args:
        batch: The hour and the uploads.

    Returns:
        The batch, and the timestamps of uploads that have lost streams.

    Raises:
        FormatError: If what is stored of the hour is damaged.

    Example:
        >>> noise = bytes.fromhex("02 02 0f 04 c8 00 08 00 00 00 c0 3f")
        >>> sketches = pack_sketches({"imgstats/noise.bin": noise})
        >>> batch = UnmergedHour("door-3", 1719392400, 0, None, {1719393854: sketches})
        >>> fitting(batch) == (batch, [])
        True
    """
    room = Room(unpack_sketches(batch.sketches) if batch.sketches is not None else None)
    payloads, fewer = dict(batch.payloads), []
    for timestamp, payload in batch.payloads.items():
        try:
            sketches = unpack_sketches(payload)
        except FormatError:  # `folded` says so
            continue
        fits = room.fitting(sketches)
        if len(fits) < len(sketches):
            payloads[timestamp] = pack_sketches(fits)
            fewer.append(timestamp)
    return (replace(batch, payloads=payloads) if fewer else batch), fewer


def _grown(sketch: bytes) -> int:
    return _AROUND + _BYTES_PER_K * int.from_bytes(sketch[4:6], "little")


def folded(batch: UnmergedHour) -> tuple[Sketches, list[int]]:
    """An hour's sketches with a batch of uploads merged into them.

    Args:
        batch: The hour and the uploads.

    Returns:
        The sketches, and the timestamps of uploads that could not be merged.

    Raises:
        FormatError: If what is stored of the hour is damaged.

    Example:
        >>> folded(UnmergedHour("door-3", 1719392400, 0, None, {1719393854: b"damaged"}))
        ({}, [1719393854])
    """
    stored = unpack_sketches(batch.sketches) if batch.sketches is not None else {}
    try:
        return merged([stored, *map(unpack_sketches, batch.payloads.values())]), []
    except FormatError:
        whole, damaged = merged([stored]), []
    for timestamp, payload in batch.payloads.items():
        try:
            whole = merged([whole, unpack_sketches(payload)])
        except FormatError:
            damaged.append(timestamp)
    return whole, damaged


_DAMAGED: Final = "what was stored of an upload was damaged"
_FEWER: Final = "streams of an upload were left out: its hour has as many of them, or as large ones, as there may be"


class _SupersededError(Exception):
    """Another server was faster; the transaction is given up."""


def put(
    store: Store,
    batch: UnmergedHour,
    sketches: bytes,
    rows: int,
    now: float,
    damaged: Sequence[int] = (),
    fewer: Sequence[int] = (),
) -> bool:
    """Write what was merged, and clear the payloads, in one transaction.

    Args:
        store: Where to.
        batch: What was merged.
        sketches: All of the hour, packed.
        rows: Images of the hour.
        now: Unix time in seconds.
        damaged: Timestamps of payloads that could not be merged.
        fewer: Timestamps of payloads of which streams were left out.

    Returns:
        Whether it was written; False if another server was faster.
    """
    values = {"sketches": sketches, "rows": rows, "updated": now}
    try:
        with store.writing() as db:
            _put_hour(db, batch, values, len(batch.payloads) - len(damaged))
            clear = _mine(batch) & UPLOADS.c.payload.is_not(None)
            cleared = db.execute(update(UPLOADS).where(clear).values(payload=None)).rowcount
            if cleared != len(batch.payloads):
                raise _SupersededError
            _mark(db, batch, damaged, _DAMAGED)
            _mark(db, batch, fewer, _FEWER)
    except _SupersededError:
        return False
    return True


def _mark(db: Connection, batch: UnmergedHour, timestamps: Sequence[int], problem: str) -> None:
    """Say of uploads, and of whose they are, what is wrong with them."""
    if timestamps:
        marked, values = _mine(batch) & UPLOADS.c.timestamp.in_(timestamps), {"problems": json.dumps([problem])}
        db.execute(update(UPLOADS).where(marked).values(values))
        db.execute(update(SENSORS).where(SENSORS.c.name == batch.sensor).values(values))


def _put_hour(db: Connection, batch: UnmergedHour, values: dict[str, object], uploads: int) -> None:
    if batch.version:
        same = of_hour(batch.sensor, batch.hour) & (HOURS.c.version == batch.version)
        changed = {**values, "version": batch.version + 1, "uploads": HOURS.c.uploads + uploads}
        done = db.execute(update(HOURS).where(same).values(changed)).rowcount == 1
    else:
        row = {**values, "sensor": batch.sensor, "hour": batch.hour, "version": 1, "uploads": uploads}
        statement = upsert(db, HOURS).values(row).on_conflict_do_nothing().returning(HOURS.c.version)
        done = db.execute(statement).first() is not None
    if not done:
        raise _SupersededError


def _mine(batch: UnmergedHour) -> ColumnElement[bool]:
    return (UPLOADS.c.sensor == batch.sensor) & UPLOADS.c.timestamp.in_(list(batch.payloads))


@dataclass(frozen=True)
class Due:
    """An hour that is to be judged.

    Attributes:
        sensor: Whose.
        hour: When it begins, unix time in seconds.
        version: Of its sketches.
        uploads: How many are merged in it.
        rows: Images.
        sketches: Packed.
    """

    sensor: str
    hour: int
    version: int
    uploads: int
    rows: int
    sketches: bytes


def claim(store: Store, now: float, interval: float, after: str = "") -> Due | None:
    """An hour that is due for a verdict, for this server to judge; None if there is none.

    Args:
        store: Where from.
        now: Unix time in seconds, by the store's clock.
        interval: Seconds after which the same hour is judged again, if something has been merged since.
        after: The sensor that had its turn before: the next by name has the next one.
    """
    due = HOURS.c.judged_version < HOURS.c.version
    wanted = (HOURS.c.sensor, HOURS.c.hour, HOURS.c.version, HOURS.c.uploads, HOURS.c.rows, HOURS.c.sketches)
    leased = lease(store, due, HOURS.c.claimed, wanted, now=now, interval=interval, after=after)
    if leased is None:
        return None
    row, _ = leased
    return Due(row.sensor, row.hour, row.version, row.uploads, row.rows, bytes(row.sketches))


def put_verdict(store: Store, verdict: HourDrift, version: int, report: str | None) -> None:
    """Write what was found of an hour.

    Args:
        store: Where to.
        verdict: What was found.
        version: Of the sketches that were judged.
        report: As JSON; None where there is none.
    """
    values = {
        "judged_version": version,
        "judged": verdict.judged,
        "drift": verdict.drift,
        "effect": verdict.effect,
        "moved": json.dumps(verdict.moved),
        "problem": verdict.problem,
        "report": report,
    }
    newer = of_hour(verdict.sensor, verdict.hour) & (HOURS.c.judged_version <= version)
    with store.writing() as db:
        db.execute(update(HOURS).where(newer).values(values))


def put_problem(store: Store, sensor: str, hour: int, problem: str) -> None:
    """Say of an hour, if it is there, what is wrong with it; a verdict that it has stays.

    Args:
        store: Where to.
        sensor: Whose.
        hour: When it begins.
        problem: What is wrong.
    """
    with store.writing() as db:
        db.execute(update(HOURS).where(of_hour(sensor, hour)).values(problem=problem))


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
            next_hour = db.execute(first.where(HOURS.c.sensor > after)).first()
            next_hour = next_hour or db.execute(first.where(HOURS.c.sensor > "")).first()
        if next_hour is None:
            return None
        sensor, hour, before = next_hour
        mine = of_hour(sensor, hour) & (stamp == before)
        with store.writing() as db:
            row = db.execute(update(HOURS).where(mine).values({stamp: now}).returning(*wanted_columns)).first()
        if row is not None:  # no other server was faster
            return row, before
