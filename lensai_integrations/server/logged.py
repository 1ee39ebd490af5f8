"""Which verdicts are in MLflow already; kept in the store, so that none is lost to a restart or a server down."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import update

from lensai_integrations.server import queries
from lensai_integrations.server.leases import lease
from lensai_integrations.server.records import HourDrift
from lensai_integrations.server.store import Store
from lensai_integrations.server.tables import HOURS, of_hour


@dataclass(frozen=True)
class Unlogged:
    """An hour whose newest verdict is not in MLflow yet.

    Attributes:
        verdict: The verdict.
        version: Of the sketches that it is of.
        sketches: Packed; of this version or a newer one.
        before: When it was logged last, unix time in seconds by the store's clock; 0 if it never was.
    """

    verdict: HourDrift
    version: int
    sketches: bytes
    before: float


def claim(store: Store, now: float, interval: float, after: str = "") -> Unlogged | None:
    """An hour for this server to log; None if there is none.

    Args:
        store: Where from.
        now: Unix time in seconds, by the store's clock.
        interval: Seconds after which the same hour is logged again, if it has been judged anew.
        after: The sensor that had its turn before: the next by name has the next one.

    Raises:
        StoreError: If the store cannot be used.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> claim(store, now=1719392400.0, interval=600.0) is None
        True
        >>> store.close()
    """
    judged = (HOURS.c.logged_version < HOURS.c.judged_version) & HOURS.c.drift.is_not(None)
    wanted = (*queries.VERDICT, HOURS.c.judged_version, HOURS.c.sketches)
    found = lease(store, judged, HOURS.c.logged, wanted, now=now, interval=interval, after=after)
    if found is None:
        return None
    row, before = found
    return Unlogged(queries.verdict_of_row(row), row.judged_version, bytes(row.sketches), before)


def done(store: Store, hour: Unlogged) -> None:
    """Remember that an hour is logged, or cannot be.

    Raises:
        StoreError: If the store cannot be used.
    """
    with store.writing() as db:
        mine = of_hour(hour.verdict.sensor, hour.verdict.hour)
        db.execute(update(HOURS).where(mine).values(logged_version=hour.version))


def put_back(store: Store, hour: Unlogged) -> None:
    """Let an hour be tried again at once.

    Raises:
        StoreError: If the store cannot be used.
    """
    with store.writing() as db:
        db.execute(update(HOURS).where(of_hour(hour.verdict.sensor, hour.verdict.hour)).values(logged=hour.before))
