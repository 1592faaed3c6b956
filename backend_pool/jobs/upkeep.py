"""Takes out what is not kept any longer: old history, old ledger entries, past reservations. For all users, also those
who come no more; in small transactions with pauses between them. Touches rows only, never a file.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from sqlmodel import Session

from backend_pool.books import ledger, reservations
from backend_pool.jobs import history
from proxy.base.clock import DAY_MS, now_ms
from proxy.base.database import Database
from proxy.base.logs import events
from proxy.base.settings import Settings

log = events(__name__)

EVERY_S: Final = 3600.0
PAUSE_S: Final = 0.05


class Upkeep:
    """The limits are those of the settings."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings

    async def watch(self) -> None:
        """Once an hour, for ever."""
        while True:
            try:
                await self.once()
            except Exception as error:  # nobody waits for it
                log.error("old rows could not be taken out", error=repr(error))
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """One round."""
        now, settings = now_ms(), self._settings
        jobs, users = 0, await self._shorten()
        if settings.history_days:
            jobs = await self._age(now - settings.history_days * DAY_MS)
        entries = await self._batches(lambda s: ledger.prune(s, now - settings.ledger_days * DAY_MS))
        past = await self._db.write(lambda s: reservations.prune(s, now))
        if jobs or users or entries or past:
            log.info(
                "old rows taken out", jobs=jobs, histories_shortened=users, ledger_entries=entries, reservations=past
            )

    async def _shorten(self) -> int:
        """By count and size, of users whose jobs ended before the limits were lowered."""
        limit, most = self._settings.history_limit, self._settings.history_mb << 20
        users = await self._db.read(lambda s: history.over(s, limit, most))
        for user_id in users:
            await self._db.write(partial(history.prune_user, user_id=user_id, limit=limit, most=most))
            await asyncio.sleep(PAUSE_S)
        return len(users)

    async def _age(self, moment_ms: int) -> int:
        gone = 0
        # Looked for beside the writers: finished jobs do not change any more.
        while seqs := await self._db.read(lambda s: history.ended_before(s, moment_ms)):
            await self._db.write(partial(history.remove_jobs, seqs=seqs))
            gone += len(seqs)
            await asyncio.sleep(PAUSE_S)
        return gone

    async def _batches(self, work: Callable[[Session], int]) -> int:
        gone = 0
        while batch := await self._db.write(work):
            gone += batch
            await asyncio.sleep(PAUSE_S)
        return gone
