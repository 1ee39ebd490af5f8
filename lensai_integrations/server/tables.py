"""The tables of the store: which uploads came, what is merged of them by hour, and whose they are."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

#: Raised when a release changes the tables; `upgrade` makes them of those before.
SCHEMA_VERSION: Final = 2

METADATA: Final = MetaData()

#: What the store says of itself: `schema`, `baseline`.
META: Final = Table(
    "lensai_meta", METADATA, Column("key", String(64), primary_key=True), Column("value", Text, nullable=False)
)

#: A row per upload that was answered 201. Its payload is there until it is merged into its hour.
UPLOADS: Final = Table(
    "lensai_uploads",
    METADATA,
    Column("sensor", String(128), primary_key=True),
    Column("timestamp", BigInteger, primary_key=True),
    Column("hour", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", Integer, nullable=False),
    Column("received", Double, nullable=False),
    Column("problems", Text, nullable=False),
    Column("payload", LargeBinary),
)
_PENDING: Final = text("payload IS NOT NULL")
Index(
    "lensai_uploads_pending",
    UPLOADS.c.sensor,
    UPLOADS.c.hour,
    sqlite_where=_PENDING,
    postgresql_where=_PENDING,
)
Index("lensai_uploads_hour", UPLOADS.c.sensor, UPLOADS.c.hour)

#: A row per sensor and hour. `version` counts what was merged; the verdict is of `judged_version`, and MLflow
#: has that of `logged_version`.
HOURS: Final = Table(
    "lensai_hours",
    METADATA,
    Column("sensor", String(128), primary_key=True),
    Column("hour", BigInteger, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("updated", Double, nullable=False),
    Column("uploads", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("claimed", Double, nullable=False, default=0.0, server_default="0"),
    Column("judged_version", Integer, nullable=False, default=0, server_default="0"),
    Column("judged", Double),
    Column("drift", Boolean),
    Column("effect", Double),
    Column("moved", Text, nullable=False, default="[]", server_default="[]"),
    Column("problem", Text, nullable=False, default="", server_default=""),
    Column("logged_version", Integer, nullable=False, default=0, server_default="0"),
    Column("logged", Double, nullable=False, default=0.0, server_default="0"),
    # last, for SQLite reads through what is large to get at the columns behind it
    Column("sketches", LargeBinary, nullable=False),
    Column("report", Text),
)
#: Whoever is next has a turn: found by seeking, however many hours of one sensor wait; a sensor's newest hour first.
_DUE: Final = text("judged_version < version")
DUE_INDEX: Final = Index(
    "lensai_hours_due", HOURS.c.sensor, HOURS.c.hour.desc(), HOURS.c.claimed, sqlite_where=_DUE, postgresql_where=_DUE
)
_UNLOGGED: Final = text("logged_version < judged_version AND drift IS NOT NULL")
UNLOGGED_INDEX: Final = Index(
    "lensai_hours_unlogged",
    HOURS.c.sensor,
    HOURS.c.hour.desc(),
    HOURS.c.logged,
    sqlite_where=_UNLOGGED,
    postgresql_where=_UNLOGGED,
)
Index("lensai_hours_updated", HOURS.c.updated)

SENSORS: Final = Table(
    "lensai_sensors",
    METADATA,
    Column("name", String(128), primary_key=True),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("received", Double, nullable=False),
    Column("uploads", Integer, nullable=False),
    Column("problems", Text, nullable=False),
    Column("run_id", Text, nullable=False, default="", server_default=""),
    Column("run_url", Text, nullable=False, default="", server_default=""),
)


def upgrade(db: Connection, version: str) -> bool:
    """Make tables of this release of those of an earlier one; nothing that is in them is changed.

    Args:
        db: In a transaction.
        version: Of the tables.

    Returns:
        Whether they are of this release now.
    """
    if version == "1":
        for index in (DUE_INDEX, UNLOGGED_INDEX):  # of the same names, on other columns
            index.drop(db)
            index.create(db)
        db.execute(META.update().where(META.c.key == "schema").values(value=str(SCHEMA_VERSION)))
        return True
    return version == str(SCHEMA_VERSION)


def of_hour(sensor: str, hour: int) -> ColumnElement[bool]:
    """Which row of the hours is that of a sensor's hour.

    Example:
        >>> str(of_hour("door-3", 1719392400))
        'lensai_hours.sensor = :sensor_1 AND lensai_hours.hour = :hour_1'
    """
    return (HOURS.c.sensor == sensor) & (HOURS.c.hour == hour)
