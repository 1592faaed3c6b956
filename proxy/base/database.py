"""The one database: SQLite in WAL by default, PostgreSQL for several proxies. Nothing here blocks the event loop.

Work is a plain function of a SQLModel session. Writes of SQLite go through one thread and `BEGIN IMMEDIATE` (a
deferred transaction that reads and then writes fails at once whatever busy_timeout says); reads run beside them on WAL
snapshots. Rows stay usable after the transaction (`expire_on_commit=False`), detached.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, create_engine

from proxy.base.errors import ConfigError, DatabaseUnavailable, DiskFull

T = TypeVar("T")

BUSY_TIMEOUT_S = 10
READERS = 4


class Database:
    """Transactions as awaitables: `await db.write(lambda s: ...)`, `await db.read(...)`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            _make_private(Path(make_url(url).database or ""))
        self.writer = _engine(url, "BEGIN IMMEDIATE", 1)
        self.reader = _engine(url, "BEGIN", READERS)
        self._write_pool = ThreadPoolExecutor(1 if self.is_sqlite else READERS, thread_name_prefix="db-write")
        self._read_pool = ThreadPoolExecutor(READERS, thread_name_prefix="db-read")

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one write transaction; committed when this returns, rolled back when it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._write_pool, self.write_now, work)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` on a consistent snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._read_pool, self.read_now, work)

    def write_now(self, work: Callable[[Session], T]) -> T:
        """The blocking form, for the command line and tests."""
        return _transaction(self.writer, work)

    def read_now(self, work: Callable[[Session], T]) -> T:
        """The blocking form, for the command line and tests."""
        return _transaction(self.reader, work)

    def close(self) -> None:
        """Finish what runs and close every connection."""
        self._write_pool.shutdown()
        self._read_pool.shutdown()
        self.writer.dispose()
        self.reader.dispose()


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    return f"sqlite:///{path.resolve()}"


def _make_private(path: Path) -> None:
    """The file of a database holds password hashes and everybody's prompts; SQLite gives its WAL the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(f"The database {path} cannot be opened: {error.strerror}.") from error


def _transaction(engine: Engine, work: Callable[[Session], T]) -> T:
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)
    except DBAPIError as error:
        if "full" in str(error.orig).lower():
            raise DiskFull("The disk that holds the database is full. Free some space and try again.") from error
        if isinstance(error.orig, sqlite3.IntegrityError):
            raise
        if error.connection_invalidated or isinstance(error.orig, sqlite3.OperationalError):
            raise DatabaseUnavailable("The database did not answer. Try again in a moment.", str(error.orig)) from error
        raise


def _engine(url: str, begin: str, size: int) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_size=size, pool_pre_ping=True)
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_S, "isolation_level": None},
    )

    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        # An acknowledged prompt must survive a power cut, which WAL with synchronous=NORMAL does not promise.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", start)
    return engine
