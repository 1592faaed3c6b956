"""What keeps users from being served: asked of the database, the disk and the session host, at most every few seconds.

The answer is open to everybody, so what it costs is bounded: questions in between, and beside each other, share one.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text
from sqlmodel import Session

from proxy.base.clock import monotonic_s
from proxy.base.database import Database
from proxy.base.errors import ClusterError, Unavailable
from proxy.base.tasks import Tasks
from user_sessions.spawner import Spawner

KEPT_S = 3.0
MIB = 1 << 20
PROBE = b"x" * 4096
BROKEN = "sessions cannot be started, see logs/session-host.log"


class Readiness:
    """`problems()` names what is wrong; none of the names tells anything private."""

    def __init__(
        self,
        db: Database,
        data_dir: Path,
        *,
        free_mb: int,
        spawner: Spawner,
        tasks: Tasks,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._db = db
        self._data_dir = data_dir
        self._free_mb = free_mb
        self._spawner = spawner
        self._tasks = tasks
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_s: float | None = None
        self._found: list[str] = []

    async def problems(self) -> list[str]:
        """Sentences without a full stop; empty when users can be served."""
        async with self._asking:
            if self._asked_s is None or self._clock() - self._asked_s >= KEPT_S:
                self._found = [*await self._database(), *await asyncio.to_thread(self._disk), *await self._host()]
                self._asked_s = self._clock()
        return [*(f"{name} has stopped" for name in self._tasks.dead), *self._found]

    async def _database(self) -> list[str]:
        try:
            await self._db.write(self._write)
        except ClusterError as error:
            return [error.message.rstrip(".")]
        return []

    def _write(self, session: Session) -> None:
        """A change that reaches the disk when it is committed, in no table of ours."""
        if not self._db.is_sqlite:
            session.connection().execute(text("SELECT txid_current()"))  # takes a number, whose commit is logged
            return
        # A header field for applications, which we do not use otherwise. SQLite leaves out writes that change nothing.
        last = session.connection().execute(text("PRAGMA user_version")).scalar_one()
        session.connection().execute(text(f"PRAGMA user_version = {(last + 1) % 2}"))

    def _disk(self) -> list[str]:
        try:
            with tempfile.TemporaryFile(dir=self._data_dir) as probe:
                probe.write(PROBE)
            free = shutil.disk_usage(self._data_dir).free
        except OSError as error:
            return [f"the data directory cannot be written: {error.strerror}"]
        if free < self._free_mb * MIB:
            return [f"the disk of the data directory has less than {self._free_mb} MiB left"]
        return []

    async def _host(self) -> list[str]:
        try:
            await self._spawner.listing()
            broken = (await self._spawner.report()).broken
        except Unavailable:
            return ["the session host does not answer"]
        return [BROKEN] if broken else []  # the reason names paths: it is on the administration page
