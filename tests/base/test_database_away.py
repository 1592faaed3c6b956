"""A database that is moved away, damaged, frozen or silent: an error that says so, nothing lost, work goes on after."""

import logging
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg.errors
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlmodel import Session

from proxy.base import database
from proxy.base.database import Database, sqlite_url
from proxy.base.database_errors import meaning
from proxy.base.errors import DatabaseUnavailable, DiskFull


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database with one table."""
    made = Database(sqlite_url(tmp_path / "test.db"))
    made.write_now(lambda s: s.execute(text("CREATE TABLE kept (n INTEGER NOT NULL)")))
    yield made
    made.close()


def add(session: Session) -> None:
    session.execute(text("INSERT INTO kept VALUES (1)"))


def count(session: Session) -> int:
    return int(session.execute(text("SELECT count(*) FROM kept")).scalar_one())


async def test_a_file_that_is_moved_away_is_not_made_anew(db: Database, tmp_path: Path) -> None:
    """SQLite would make an empty one, and remove the log beside it with what was acknowledged last."""
    await db.write(add)
    path = tmp_path / "test.db"
    aside = path.rename(tmp_path / "aside.db")
    with pytest.raises(OperationalError, match="unable to open"):
        db.reader.connect()
    for work in (db.read(count), db.write(count)):  # the writer's connection would go on with the file it has
        with pytest.raises(DatabaseUnavailable):
            await work
    assert not path.exists() and (tmp_path / "test.db-wal").stat().st_size > 0
    aside.rename(path)
    assert await db.read(count) == 1
    await db.write(add)
    assert await db.read(count) == 2


async def test_another_file_in_its_place_is_not_written_to(db: Database, tmp_path: Path) -> None:
    """A copy that was put back while the server ran: readers would see one file and writers another."""
    path = tmp_path / "test.db"
    (tmp_path / "copy.db").write_bytes(path.read_bytes())
    aside = path.rename(tmp_path / "aside.db")
    (tmp_path / "copy.db").rename(path)
    with pytest.raises(DatabaseUnavailable) as caught:
        await db.write(add)
    assert "restart" in caught.value.details
    aside.rename(path)
    await db.write(add)
    assert await db.read(count) == 1


async def test_it_is_logged_when_it_goes_and_when_it_is_back(
    db: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    aside = (tmp_path / "test.db").rename(tmp_path / "aside.db")
    with caplog.at_level(logging.INFO, "proxy.base.database"):
        for _ in range(5):
            with pytest.raises(DatabaseUnavailable):
                await db.read(count)
        aside.rename(tmp_path / "test.db")
        await db.read(count)
        await db.read(count)
    assert [record.getMessage() for record in caplog.records] == [
        "the database does not answer",
        "the database answers again",
    ]


async def test_a_silent_database_is_given_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not begun by then is never done: its caller has been told that it was not."""
    monkeypatch.setattr(database, "ANSWER_TIMEOUT_S", 0.05)
    released = threading.Event()
    with pytest.raises(DatabaseUnavailable):
        await db.write(lambda _s: released.wait(30))
    with pytest.raises(DatabaseUnavailable):
        await db.write(add)
    released.set()
    monkeypatch.setattr(database, "ANSWER_TIMEOUT_S", 30)
    assert await db.write(count) == 0


def wrapped(kind: type[DBAPIError], error: Exception, *, invalidated: bool = False) -> DBAPIError:
    return kind("SELECT 1", None, error, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    "error",
    [
        wrapped(OperationalError, sqlite3.OperationalError("database is locked")),
        wrapped(DBAPIError, sqlite3.DatabaseError("database disk image is malformed")),
        wrapped(OperationalError, psycopg.OperationalError("connection refused")),
        wrapped(OperationalError, psycopg.errors.AdminShutdown("terminating connection"), invalidated=True),
        wrapped(OperationalError, psycopg.errors.CannotConnectNow("the database system is starting up")),
        wrapped(OperationalError, psycopg.errors.LockNotAvailable("canceling statement due to lock timeout")),
        wrapped(OperationalError, psycopg.errors.QueryCanceled("canceling statement due to statement timeout")),
        wrapped(OperationalError, psycopg.errors.DeadlockDetected("deadlock detected")),
        wrapped(DBAPIError, psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT")),
        wrapped(InterfaceError, psycopg.InterfaceError("the connection is closed")),
        PoolTimeout("QueuePool limit"),
    ],
    ids=lambda error: type(getattr(error, "orig", error)).__name__,
)
def test_what_passes_is_unavailable(error: DBAPIError) -> None:
    assert type(meaning(error)) is DatabaseUnavailable


@pytest.mark.parametrize(
    "orig", [sqlite3.OperationalError("database or disk is full"), psycopg.errors.DiskFull("could not extend file")]
)
def test_a_full_disk_is_told_apart(orig: Exception) -> None:
    assert type(meaning(wrapped(OperationalError, orig))) is DiskFull


@pytest.mark.parametrize(
    "orig",
    [
        sqlite3.IntegrityError("UNIQUE constraint failed: x.full_name"),
        sqlite3.ProgrammingError("Incorrect number of bindings"),
        psycopg.errors.UniqueViolation("duplicate key value"),
        psycopg.errors.UndefinedTable("relation does not exist"),
    ],
)
def test_a_defect_stays_one(orig: Exception) -> None:
    assert meaning(wrapped(DBAPIError, orig)) is None
