"""The trial's database: SQLite beside the proxy's data, or a PostgreSQL of its own; asked from outside, and hurt."""

import asyncio
import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import psycopg

from proxy.base.database import sqlite_url
from tests.postgres import Postgres

PATIENCE_S = 20.0


class Reader(Protocol):
    """A connection that only asks."""

    def execute(self, query: str, params: tuple[object, ...] = ()) -> Any:
        """A cursor over the rows."""

    def close(self) -> None:
        """End it."""


class Base(Protocol):
    """What the trial needs of a database. `url` is None for the proxy's default."""

    url: str | None

    def sqlalchemy_url(self, data_dir: Path) -> str:
        """Where the tests' own accounts are written."""

    def open(self, data_dir: Path) -> Reader:
        """A reader; its parameters are `?`."""

    def health(self, reader: Reader) -> list[str]:
        """What is damaged."""

    async def hurt(self, kind: str, seconds: float) -> None:
        """`lock`, `restart`, `crash` or `freeze` it for that long."""

    def close(self) -> None:
        """End what runs."""


class Sqlite:
    """The file in the data directory."""

    url: str | None = None

    def __init__(self) -> None:
        self._data_dir = Path()

    def sqlalchemy_url(self, data_dir: Path) -> str:
        return sqlite_url(data_dir / "cluster.db")

    def open(self, data_dir: Path) -> Reader:
        self._data_dir = data_dir
        return sqlite3.connect(f"file:{data_dir / 'cluster.db'}?mode=ro", uri=True, timeout=PATIENCE_S)

    def health(self, reader: Reader) -> list[str]:
        wrong = [str(row) for row in reader.execute("PRAGMA integrity_check") if row != ("ok",)]
        return wrong + [f"foreign key: {row}" for row in reader.execute("PRAGMA foreign_key_check")]

    async def hurt(self, kind: str, seconds: float) -> None:
        """Whatever the kind: another writer holds the lock."""
        path = self._data_dir / "cluster.db"
        other = sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S, check_same_thread=False)
        with contextlib.closing(other):
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            await asyncio.sleep(seconds)
            other.execute("ROLLBACK")

    def close(self) -> None:
        pass


class PostgresBase:
    """A server in a folder of its own."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True)
        self._server = Postgres(root)
        self._server.start()
        self.url: str | None = self._server.url

    def sqlalchemy_url(self, data_dir: Path) -> str:
        return self._server.url

    def open(self, data_dir: Path) -> Reader:
        return _Patient(self._server.url.replace("+psycopg", ""))

    def health(self, reader: Reader) -> list[str]:
        return []  # its foreign keys and pages are its own business

    async def hurt(self, kind: str, seconds: float) -> None:
        if kind == "freeze":
            self._server.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            self._server.signal(signal.SIGCONT)
            return
        await asyncio.to_thread(self._server.stop, "immediate" if kind == "crash" else "fast")
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(self._server.start)

    def close(self) -> None:
        self._server.signal(signal.SIGCONT)
        self._server.stop("immediate")


class _Patient:
    """Connects when asked, and again after a restart."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Any] | None = None

    def execute(self, query: str, params: tuple[object, ...] = ()) -> Iterator[Any]:
        for last in (False, True):
            try:
                if self._connection is None:
                    self._connection = psycopg.connect(self._url, autocommit=True)
                return self._connection.execute(query.replace("?", "%s").encode(), params or None)
            except psycopg.OperationalError:
                self.close()
                if last:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
