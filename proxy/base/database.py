"""The one database: SQLite in WAL by default, PostgreSQL for several proxies. Nothing here blocks the event loop.

Work is a plain function of a SQLModel session. Writes of SQLite go through one thread and `BEGIN IMMEDIATE` (a
deferred transaction that reads and then writes fails at once whatever busy_timeout says); reads run beside them on WAL
snapshots. Rows stay usable after the transaction (`expire_on_commit=False`), detached. That it goes and comes back is
logged here, once each.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool
from sqlmodel import Session, create_engine

from proxy.base.clock import monotonic_s
from proxy.base.database_errors import AWAY, meaning
from proxy.base.errors import ConfigError, DatabaseUnavailable, Unavailable
from proxy.base.logs import events
from proxy.base.seldom import Seldom

log = events(__name__)

T = TypeVar("T")

BUSY_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60
"""For an answer of whatever database, the wait for those before included: a frozen server refuses nothing itself."""
LOGGED_EVERY_S = 60.0
"""A database that comes and goes is noted no more often than this."""
READERS = 4
POSTGRES_LINE = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""For the driver, unless the URL says otherwise: without them, one waits hours for a machine that has vanished."""
POSTGRES_LIMITS = ("lock_timeout = '10s'", "statement_timeout = '50s'", "idle_in_transaction_session_timeout = '60s'")


class Database:
    """Transactions as awaitables: `await db.write(lambda s: ...)`, `await db.read(...)`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        if self.is_sqlite:
            self._file = Path(make_url(url).database or "").resolve()
            _make_private(self._file)
            self._identity = _identity(self._file)
        self.writer = _engine(url, "BEGIN IMMEDIATE", 1)
        self.reader = _engine(url, "BEGIN", READERS)
        self._away_since_s: dict[ThreadPoolExecutor, float] = {}
        self._seldom = Seldom(LOGGED_EVERY_S)
        self._write_pool = ThreadPoolExecutor(1 if self.is_sqlite else READERS, thread_name_prefix="db-write")
        self._read_pool = ThreadPoolExecutor(READERS, thread_name_prefix="db-read")

    async def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one write transaction; committed when this returns, rolled back when it raises."""
        return await self._answer(self._write_pool, self.write_now, work)

    async def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` on a consistent snapshot."""
        return await self._answer(self._read_pool, self.read_now, work)

    def write_now(self, work: Callable[[Session], T]) -> T:
        """The blocking form, for the command line and tests."""
        self._check_place()
        return _transaction(self.writer, work)

    def read_now(self, work: Callable[[Session], T]) -> T:
        """The blocking form, for the command line and tests."""
        self._check_place()
        return _transaction(self.reader, work)

    def close(self) -> None:
        """Finish what runs and close every connection."""
        self._write_pool.shutdown()
        self._read_pool.shutdown()
        self.writer.dispose()
        self.reader.dispose()

    def _check_place(self) -> None:
        """SQLite writes on into a file that was moved or removed: what it acknowledges is gone at the next start."""
        if not self.is_sqlite:
            return
        found = _identity(self._file)
        if found is None:
            raise DatabaseUnavailable(AWAY, f"{self._file} is not there any more. Put it back.")
        if found != self._identity:
            raise DatabaseUnavailable(AWAY, f"{self._file} is another file now. Put the old one back, or restart.")

    async def _answer(
        self, pool: ThreadPoolExecutor, run: Callable[[Callable[[Session], T]], T], work: Callable[[Session], T]
    ) -> T:
        """What has not begun by the time limit never does; what has may still be done, as after any lost answer."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                result = await asyncio.get_running_loop().run_in_executor(pool, run, work)
        except TimeoutError as error:
            raise self._away(pool, DatabaseUnavailable(AWAY, f"no answer for {ANSWER_TIMEOUT_S} s")) from error
        except Unavailable as error:
            raise self._away(pool, error) from error.__cause__
        since_s = self._away_since_s.pop(pool, None)
        if since_s is not None:
            log.info("the database answers again", away_s=round(monotonic_s() - since_s, 1))
        return result

    def _away(self, pool: ThreadPoolExecutor, error: Unavailable) -> Unavailable:
        if pool not in self._away_since_s and self._seldom.once(f"{id(pool)} {error.kind}") is not None:
            self._away_since_s[pool] = monotonic_s()
            log.error("the database does not answer", kind=error.kind, error=error.message, details=error.details)
        return error


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    return f"sqlite:///{path.resolve()}"


def _make_private(path: Path) -> None:
    """The file of a database holds password hashes and everybody's prompts; SQLite gives its WAL the same mode."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise ConfigError(f"The database {path} cannot be opened: {error.strerror}.") from error


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _transaction(engine: Engine, work: Callable[[Session], T]) -> T:
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            return work(session)
    except SQLAlchemyError as error:
        known = meaning(error)
        if known is None:
            raise
        raise known from error


def _engine(url: str, begin: str, size: int) -> Engine:
    return _sqlite_engine(url, begin, size) if url.startswith("sqlite") else _postgres_engine(url, size)


def _postgres_engine(url: str, size: int) -> Engine:
    given = make_url(url).query
    line = {key: value for key, value in POSTGRES_LINE.items() if key not in given}
    engine = create_engine(url, pool_size=size, pool_pre_ping=True, connect_args=line)

    def prepare(connection: Any, _record: object) -> None:
        for limit in POSTGRES_LIMITS:  # not as `options` of the connection, which PgBouncer refuses
            connection.execute(f"SET {limit}")
        connection.commit()

    event.listen(engine, "connect", prepare)
    return engine


def _sqlite_engine(url: str, begin: str, size: int) -> Engine:
    path = Path(make_url(url).database or "").resolve()

    def connect() -> sqlite3.Connection:
        # `rw`: a file that was moved away for a while must not be made anew, which would also remove the log beside
        # it, and with it what was acknowledged last.
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            check_same_thread=False,
            isolation_level=None,
        )

    engine = create_engine(url, poolclass=QueuePool, pool_size=size, max_overflow=0, creator=connect)

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
