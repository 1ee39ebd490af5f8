"""Over both databases: what is committed stays, what cannot be done says so, other releases' tables are left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import func, inspect, select, text, update

from lensai_integrations.errors import InputError
from lensai_integrations.server import hours, queries
from lensai_integrations.server import store as stores
from lensai_integrations.server.store import EVIDENCE, HOURS, META, SENSORS, Store, StoreError


def test_it_is_there_again_when_it_is_opened_again(place):
    first = Store(place)
    assert first.judged_against("a") is False
    first.close()
    second = Store(place)
    with second.reading() as db:
        assert dict(db.execute(select(META.c.key, META.c.value)).all()) == {"schema": "3", "baseline": "a"}
    second.close()


def test_what_fails_within_a_transaction_is_not_there(store):
    def half():
        with store.writing() as db:
            db.execute(META.insert().values(key="half", value="done"))
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        half()
    with store.reading() as db:
        assert db.scalar(select(func.count()).select_from(META)) == 1


def test_hours_are_judged_anew_with_another_baseline(store):
    store.judged_against("a")
    row = {"sensor": "a", "hour": 0, "version": 3, "updated": 0.0, "uploads": 1, "rows": 1, "sketches": b""}
    with store.writing() as db:
        db.execute(HOURS.insert().values(**row, judged_version=3, claimed=9.0))
        db.execute(EVIDENCE.insert().values(sensor="a", log_e=9.0))
    assert store.judged_against("a") is False
    assert store.judged_against("b") is True
    with store.reading() as db:
        assert db.execute(select(HOURS.c.judged_version, HOURS.c.claimed)).one() == (0, 0.0)
        assert db.execute(select(EVIDENCE)).all() == []


def test_tables_of_another_release_are_refused(place):
    store = Store(place)
    with store.writing() as db:
        db.execute(update(META).where(META.c.key == "schema").values(value="99"))
    store.close()
    with pytest.raises(InputError, match="tables of version 99; this release reads 3"):
        Store(place)


def old_indices(db):
    """Those of version 1, of the same names on other columns."""
    for name, column, where in (
        ("due", "claimed", "judged_version < version"),
        ("unlogged", "logged", "logged_version < judged_version"),
    ):
        db.execute(text(f"DROP INDEX lensai_hours_{name}"))
        db.execute(text(f"CREATE INDEX lensai_hours_{name} ON lensai_hours ({column}) WHERE {where}"))


@pytest.mark.parametrize("version", ["1", "2"])
def test_tables_of_the_releases_before_are_upgraded(place, version):
    """They lack the table of evidence; those of version 1 differ in two indices, too."""
    store = Store(place)
    row = {"sensor": "a", "hour": 0, "version": 3, "updated": 0.0, "uploads": 1, "rows": 1, "sketches": b"abc"}
    with store.writing() as db:
        db.execute(HOURS.insert().values(**row))
        db.execute(text("DROP TABLE lensai_evidence"))
        if version == "1":
            old_indices(db)
        db.execute(update(META).where(META.c.key == "schema").values(value=version))
    store.close()
    for _ in range(2):
        store = Store(place)
        with store.reading() as db:
            found = {index["name"]: index["column_names"] for index in inspect(db).get_indexes("lensai_hours")}
            assert db.scalar(select(META.c.value)) == "3"
            assert db.scalar(select(HOURS.c.sketches)) == b"abc"
            assert db.execute(select(EVIDENCE)).all() == []
        assert found["lensai_hours_due"] == ["sensor", "hour", "claimed"]
        assert found["lensai_hours_unlogged"] == ["sensor", "hour", "logged"]
        assert hours.claim(store, 100.0, 60.0).version == 3
        with store.writing() as db:
            db.execute(update(HOURS).values(claimed=0.0))
        store.close()


def test_several_servers_that_start_at_once_make_one_store(place):
    opened, failed = [], []

    def start():
        try:
            opened.append(Store(place))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    [store.close() for store in opened]
    assert not failed
    assert len(opened) == 6


def test_a_lock_that_is_held_too_long_is_an_error(place, monkeypatch):
    monkeypatch.setattr(stores, "WAIT", 1)
    store = Store(place)
    with store.writing() as db:
        if store.kind == "postgresql":
            db.execute(text("LOCK TABLE lensai_sensors"))
        with pytest.raises(StoreError, match="lock"), store.writing() as other:
            other.execute(select(SENSORS.c.name))
    with store.writing() as db:
        assert db.execute(select(SENSORS.c.name)).all() == []
    store.close()


def test_a_full_disk_is_an_error_and_nothing_is_written(sqlite):
    with sqlite.reading() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar()

    def fill():
        with sqlite.writing() as db:
            db.exec_driver_sql(f"PRAGMA max_page_count={pages}")
            db.execute(META.insert().values(key="large", value="x" * 1_000_000))

    with pytest.raises(StoreError, match="full"):
        fill()
    with sqlite.reading() as db:
        assert db.scalar(select(func.count()).select_from(META)) == 1


def test_a_damaged_file_is_an_error(tmp_path):
    (tmp_path / "lensai.db").write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Store(tmp_path)


def test_commits_are_synced(sqlite):
    with sqlite.reading() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_the_folder_is_the_owners(tmp_path):
    store = Store(tmp_path / "new" / "store")
    assert stat.S_IMODE((tmp_path / "new" / "store").stat().st_mode) == 0o700
    assert store.address == str(tmp_path / "new" / "store")
    assert store.free_bytes() > 0
    store.close()


def test_another_program_reads_the_file_while_the_server_writes(sqlite, tmp_path):
    with sqlite.writing() as db:
        db.execute(META.insert().values(key="a", value="b"))
        with sqlite3.connect(tmp_path / "store" / "lensai.db") as other:
            assert other.execute("SELECT count(*) FROM lensai_meta").fetchone() == (1,)
        other.close()


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("mysql://host/name", "'mysql' is no database that is known"),
        ("://", "not the URL of a database"),
        ("/dev/null/store", "no folder that can be written"),
    ],
)
def test_no_store(place, problem):
    with pytest.raises(InputError, match=problem):
        Store(place)


def test_a_server_that_is_not_there_is_an_error_without_its_password(tmp_path):
    with pytest.raises(StoreError) as failed:
        Store(f"postgresql://user:secret@/name?host={tmp_path}")
    assert "secret" not in str(failed.value)
    assert "***" in str(failed.value)


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back(postgresql_server):
    store = Store(postgresql_server.url)
    postgresql_server.stop()
    try:
        with pytest.raises(StoreError), store.writing():
            pass
    finally:
        postgresql_server.start()
    with store.writing() as db:
        assert db.execute(select(META.c.key)).all()
    store.close()


@contextlib.contextmanager
def frozen(server):
    """All processes of the server stand still; the kernel goes on to acknowledge what is sent to them."""
    top = server.process.pid
    others = Path(f"/proc/{top}/task/{top}/children")
    if not others.exists():
        pytest.skip("it is not known which processes the server has")
    processes = [top, *map(int, others.read_text().split())]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


@pytest.mark.slow
def test_a_server_that_stands_still_is_given_up(postgresql_server, monkeypatch):
    """By whoever asks whether it is there, and in the middle of a transaction."""
    from lensai_integrations.server import answering

    monkeypatch.setattr(answering, "_QUICK", 0.3)
    monkeypatch.setattr(stores, "_STATEMENT_SECONDS", 0.0)
    monkeypatch.setattr(stores, "WAIT", 1.0)
    store = Store(postgresql_server.url)
    queries.ping(store)  # a connection waits in the pool
    began = time.monotonic()
    with frozen(postgresql_server):
        for _ in range(2):
            with pytest.raises(StoreError, match="cannot be used"):
                queries.ping(store)
    queries.ping(store)

    def half():
        with store.writing() as db:
            db.execute(META.insert().values(key="half", value="done"))
            with frozen(postgresql_server):
                db.execute(select(META.c.key))

    with pytest.raises(StoreError, match="did not answer within 1 s"):
        half()
    with store.reading() as db:
        assert db.scalars(select(META.c.key)).all() == ["schema"]
    assert time.monotonic() - began < 60  # not for ever
    store.close()
