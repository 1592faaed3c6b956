"""Which server gives jobs to backends: one at a time, by a lease in the database with an epoch.

A server that stood still for longer than its lease has lost it to the next one that started. The jobs which it carried
are fenced then (their epochs have grown), it can place nothing any more, and it is told so.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text
from sqlmodel import Session, col, update

from backend_pool.job_state import ON_BACKEND
from backend_pool.model import DispatchLease, Job
from proxy.base.clock import now_ms
from proxy.base.database import Database
from proxy.base.errors import ConfigError, Unavailable
from proxy.base.logs import events

log = events(__name__)

ROW = 1
MARGIN_S = 0.1


class LeaseLost(Unavailable):
    """Another server carries the jobs now."""

    def __init__(self) -> None:
        super().__init__("Another server has taken over the jobs of this database: this one did not answer in time.")


@dataclass(frozen=True)
class Seen:
    """Somebody else's lease."""

    holder: str
    until_ms: int
    left_s: float


class Lease:
    """`holder` names a place in which one server can be at a time: a new one there takes over at once. `alone`: nobody
    from elsewhere can have this database."""

    def __init__(self, db: Database, holder: str, length_s: float, *, alone: bool) -> None:
        self._db = db
        self._holder = holder
        self._length_s = length_s
        self._alone = alone
        self._epoch = 0
        self.on_lost: list[Callable[[], None]] = []
        self.lost = False

    async def acquire(self) -> None:
        """Take it, after waiting for that of a server which may have died. Raises ConfigError when one renews it."""
        found = await self._db.write(self._take)
        while isinstance(found, Seen):
            before = found
            log.warning("waiting for another server's lease to end", holder=before.holder, seconds=round(before.left_s))
            await asyncio.sleep(before.left_s + MARGIN_S)
            found = await self._db.write(self._take)
            if isinstance(found, Seen) and found.until_ms > before.until_ms:
                raise ConfigError(
                    f"Another server ({found.holder}) works with this database. Stop it, or give this one a "
                    "database of its own."
                )
        self._epoch = found

    async def watch(self) -> None:
        """Renew it, for ever; a database that is away is nobody's. Raises LeaseLost."""
        while True:
            await asyncio.sleep(self._length_s / 3)
            try:
                await self._db.write(self._renew)
            except LeaseLost:
                self.lost = True
                for tell in self.on_lost:
                    tell()
                raise
            except Unavailable:
                continue

    async def release(self) -> None:
        """Let the next server begin at once. Raises Unavailable."""
        if self._epoch and not self.lost:
            await self._db.write(self._end)

    def check(self, s: Session) -> None:
        """Inside a transaction that places a job: nobody takes the lease until it is done. Raises LeaseLost."""
        row = s.get(DispatchLease, ROW, with_for_update={"read": True})
        if row is None or row.epoch != self._epoch:
            raise LeaseLost

    def _take(self, s: Session) -> int | Seen:
        row = s.get(DispatchLease, ROW, with_for_update=True) or DispatchLease(id=ROW)
        now = _clock_ms(s)
        left_ms = row.until_ms - now
        if left_ms > 0 and row.holder != self._holder and not self._alone:
            return Seen(row.holder, row.until_ms, left_ms / 1000)
        row.holder, row.until_ms, row.epoch = self._holder, now + self._length_ms, row.epoch + 1
        s.add(row)
        s.exec(update(Job).where(col(Job.state).in_(ON_BACKEND)).values(epoch=Job.epoch + 1))
        return row.epoch

    def _renew(self, s: Session) -> None:
        row = s.get(DispatchLease, ROW, with_for_update=True)
        if row is None or row.epoch != self._epoch:
            raise LeaseLost
        row.until_ms = _clock_ms(s) + self._length_ms

    def _end(self, s: Session) -> None:
        row = s.get(DispatchLease, ROW, with_for_update=True)
        if row is not None and row.epoch == self._epoch:
            row.until_ms = 0

    @property
    def _length_ms(self) -> int:
        return round(self._length_s * 1000)


def _clock_ms(s: Session) -> int:
    """The database's clock where it has one: servers' own may differ by more than a lease."""
    if s.get_bind().dialect.name != "postgresql":
        return now_ms()
    return int(s.connection().execute(text("SELECT extract(epoch FROM clock_timestamp()) * 1000")).scalar_one())
