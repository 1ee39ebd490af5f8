"""The database behind the server, SQLite in a folder or PostgreSQL by URL, and its tables.

What is answered 201 is on disk: SQLite writes ahead and syncs every commit, PostgreSQL does so by itself. Whatever a
database refuses (locked, full, not reachable) becomes one `StoreError`, which a device is answered as 503: send again.
"""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from lensai_integrations.errors import InputError, LensAIError, MissingDependencyError

#: Raised when a release changes the tables; `upgrade` makes them of those before.
SCHEMA_VERSION: Final = 3

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

#: A row per sensor that was weighed. `log_e` is the evidence, of what `parts` says; the most of it has the span that
#: ends at `until` and is so many `hours` long, in which `moved` moved.
EVIDENCE: Final = Table(
    "lensai_evidence",
    METADATA,
    Column("sensor", String(128), primary_key=True),
    Column("log_e", Double),
    Column("hours", Integer, nullable=False, default=0, server_default="0"),
    Column("until", BigInteger, nullable=False, default=0, server_default="0"),
    Column("moved", Text, nullable=False, default="[]", server_default="[]"),
    Column("weighed", Double, nullable=False, default=0.0, server_default="0"),
    Column("parts", Text, nullable=False, default="{}", server_default="{}"),
)


def upgrade(db: Connection, version: str) -> bool:
    """Make tables of this release of those of an earlier one; nothing that is in them is changed.

    What 3 has and 2 has not, `EVIDENCE`, is made with all tables that are not there; a sensor is in it from its next
    verdict on.

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
    if version in ("1", "2"):
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


FILE: Final = "lensai.db"
#: Seconds to wait for a connection, for another's lock, for an answer of PostgreSQL.
WAIT: Final = 5
_STATEMENT_SECONDS: Final = 30
_POSTGRESQL: Final = "postgresql+psycopg"
#: Of servers that start at the same time, one makes the tables.
_STARTING: Final = 7_305_361


class StoreError(LensAIError, RuntimeError):
    """The store is locked, full, damaged or cannot be reached; what was asked of it has not been done."""


class Store:
    """Connections to the database, with the tables made and their version checked.

    Args:
        place: Folder for a SQLite file, made if absent; or the URL of a PostgreSQL database,
            `postgresql://user:password@host/name`.

    Raises:
        InputError: If it is neither, or was written by another release.
        MissingDependencyError: If PostgreSQL's driver is not installed.
        StoreError: If it cannot be reached or written.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> store.kind
        'sqlite'
        >>> store.close()
    """

    def __init__(self, place: str | Path) -> None:
        self.folder, url = _place(place)
        #: Where it is, without a password.
        self.address = str(self.folder or url.render_as_string(hide_password=True))
        self.kind = url.get_backend_name()
        #: SQLite has one writer at a time. Of this process they queue here: its own waiting is sleeping, ever longer.
        self._writer = threading.Lock() if self.kind == "sqlite" else None
        self._engine = _engine(url)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with."""
        with self._connected() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection to write with, in one transaction: committed at the end, or not at all."""
        with self._alone(), self._connected(writes=True) as connection:
            yield connection

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._writer is None:
            yield
            return
        if not self._writer.acquire(timeout=WAIT):
            raise StoreError(f"the store {self.address} cannot be used: it is locked by another thread")
        try:
            yield
        finally:
            self._writer.release()

    @contextmanager
    def _connected(self, writes: bool = False) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise StoreError(f"the store {self.address} cannot be used: {_reason(error)}") from error

    def now(self) -> float:
        """Unix time in seconds, by the clock of all who use this store: PostgreSQL's, or this machine's.

        Raises:
            StoreError: If the store cannot be used.
        """
        if self.kind == "sqlite":
            return time.time()
        with self.reading() as db:
            return float(db.scalar(text("SELECT extract(epoch FROM clock_timestamp())")))

    def free_bytes(self) -> int | None:
        """Space left on the disk of a SQLite store; None for other stores.

        Raises:
            StoreError: If its folder is gone or may not be looked at.
        """
        try:
            return shutil.disk_usage(self.folder).free if self.folder is not None else None
        except OSError as error:
            raise StoreError(f"the store {self.address} cannot be used: {_reason(error)}") from error

    def close(self) -> None:
        """Let the connections go."""
        self._engine.dispose()

    def judged_against(self, digest: str) -> bool:
        """Say which baseline hours are judged against; with another one than before, all are judged and weighed anew.

        Args:
            digest: Of the baseline.

        Returns:
            Whether it is another one.
        """
        with self.writing() as db:
            before = db.scalar(select(META.c.value).where(META.c.key == "baseline"))
            if before == digest:
                return False
            if before is None:
                db.execute(insert(META).values(key="baseline", value=digest))
                return False
            db.execute(update(META).where(META.c.key == "baseline").values(value=digest))
            db.execute(update(HOURS).values(judged_version=0, claimed=0.0, logged_version=0))
            db.execute(delete(EVIDENCE))
            return True

    def _prepare(self) -> None:
        with self.writing() as db:
            if self.kind == "postgresql":
                db.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _STARTING})
            METADATA.create_all(db)
            version = db.scalar(select(META.c.value).where(META.c.key == "schema"))
            if version is None:
                db.execute(insert(META).values(key="schema", value=str(SCHEMA_VERSION)))
            elif not upgrade(db, version):
                raise InputError(
                    f"the store {self.address} has tables of version {version}; this release reads"
                    f" {SCHEMA_VERSION}: pass another store, or the release that made it"
                )


def _place(address: str | Path) -> tuple[Path | None, URL]:
    if isinstance(address, str) and "://" in address:
        return None, _postgresql(address)
    folder = Path(address)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"store={str(address)!r} is no folder that can be written: {error.strerror}") from error
    return folder, URL.create("sqlite", database=str(folder / FILE))


def _postgresql(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError as error:
        raise InputError("store is not the URL of a database: pass postgresql://user:password@host/name") from error
    if url.drivername not in ("postgres", "postgresql", _POSTGRESQL):
        raise InputError(f"store={url.drivername!r} is no database that is known: pass a folder, or postgresql://...")
    return url.set(drivername=_POSTGRESQL)


def _engine(url: URL) -> Engine:
    pool: dict[str, Any] = {"pool_size": 8, "max_overflow": 8, "pool_timeout": WAIT}
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": WAIT, "check_same_thread": False}, **pool)
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    options = f"-c statement_timeout={1000 * _STATEMENT_SECONDS} -c lock_timeout={1000 * WAIT} -c synchronous_commit=on"
    connect = {"connect_timeout": WAIT, "options": options, "keepalives_idle": 30, "tcp_user_timeout": 15_000}
    try:
        engine = create_engine(url, connect_args=connect, pool_pre_ping=True, **pool)
        from lensai_integrations.server.answering import give_up  # imports the driver
    except (ImportError, NoSuchModuleError) as error:
        raise MissingDependencyError(
            "PostgreSQL's driver is not installed: pip install 'lensai-integrations[server,postgresql]'"
        ) from error
    give_up(engine, _STATEMENT_SECONDS + WAIT)
    return engine


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that will write takes the lock at once: it then never has to give up half-way."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _reason(error: Exception) -> str:
    """In one line, without statements and parameters."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())[:300] or type(cause).__name__
