"""The database under contention, on a full disk, when it is locked, and when there is none."""

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlmodel import Session

from proxy.base import database
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import ConfigError, DatabaseUnavailable, DiskFull


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A database with one counter at 0."""
    made = Database(sqlite_url(tmp_path / "test.db"))
    made.write_now(lambda s: s.execute(text("CREATE TABLE counter (n INTEGER NOT NULL)")))
    made.write_now(lambda s: s.execute(text("INSERT INTO counter VALUES (0)")))
    yield made
    made.close()


def count(session: Session) -> int:
    return int(session.execute(text("SELECT n FROM counter")).scalar_one())


def add_one(session: Session) -> int:
    """Reads, then writes: what a deferred transaction fails at when another one wrote in between."""
    n = count(session)
    session.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
    return n + 1


async def test_read_then_write_from_two_processes_worth_of_pools_loses_nothing(db: Database) -> None:
    other = Database(db.url)
    try:
        await asyncio.gather(*(which.write(add_one) for which in (db, other) for _ in range(50)))
    finally:
        other.close()
    assert await db.read(count) == 100


async def test_reads_go_on_beside_a_write_and_see_what_was_before(db: Database) -> None:
    def work(session: Session) -> int:
        add_one(session)
        return db.read_now(count)  # another connection, in the middle of the transaction

    assert await db.write(work) == 0
    assert await db.read(count) == 1


async def test_a_raising_transaction_leaves_nothing(db: Database) -> None:
    def work(session: Session) -> None:
        add_one(session)
        raise ValueError("changed my mind")

    with pytest.raises(ValueError, match="mind"):
        await db.write(work)
    assert await db.read(count) == 0


async def test_a_lock_that_stays_is_unavailable_and_passes(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    hasty = Database(db.url)
    try:
        with db.writer.connect() as connection, connection.begin():
            with pytest.raises(DatabaseUnavailable) as caught:
                await hasty.write(add_one)
            assert "locked" in caught.value.details
            assert await hasty.read(count) == 0
        assert await hasty.write(add_one) == 1
    finally:
        hasty.close()


async def test_a_full_disk_is_said_and_passes(db: Database) -> None:
    """SQLite's own page limit gives the very error of a full disk."""

    def limit(session: Session, pages: int) -> None:
        session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def fill(session: Session) -> None:
        session.execute(text("CREATE TABLE big AS SELECT randomblob(1000000) AS b"))

    await db.write(lambda s: limit(s, 20))
    with pytest.raises(DiskFull, match="full"):
        await db.write(fill)
    assert await db.read(count) == 0
    await db.write(lambda s: limit(s, 10_000))
    await db.write(fill)
    assert await db.write(add_one) == 1


def test_nobody_else_may_read_it(db: Database, tmp_path: Path) -> None:
    db.write_now(add_one)
    files = sorted(tmp_path.glob("test.db*"))
    assert "test.db-wal" in [file.name for file in files]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * len(files)


def test_it_is_durable_and_checked(db: Database) -> None:
    def pragma(name: str) -> object:
        return db.write_now(lambda s: s.execute(text(f"PRAGMA {name}")).scalar_one())

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1


def test_no_place_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Database(sqlite_url(tmp_path / "none" / "test.db"))
