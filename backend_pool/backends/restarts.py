"""Restarts backends that an operator wants restarted: each between two jobs, those of a batch one after the other.

What is wanted and how far it is stands in the rows, so that a restart of the server changes nothing. A backend with the
worker pack begins anew in place; a managed one is ended and started by whoever keeps its process.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.backends.restart_rows import RestartRows
from backend_pool.backends.restart_turn import Place, Stage, due, stage, stopped
from backend_pool.errors import BackendBusy, BackendError
from backend_pool.model import Backend
from backend_pool.workers.client import WorkerClient
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings

log = events(__name__)
often = Repeated(log)

DUE = "its restart is due"


@dataclass
class Told:
    """What a backend was when it was told, to know the new process from the old."""

    asked: int
    member: Member
    instance: str | None
    at_s: float = field(default_factory=monotonic_s)
    ended: bool = False
    """Its old process is known to be gone."""


class Restarts:
    """Of one server. `ring` is called when a backend that was held back may have jobs again."""

    def __init__(self, rows: RestartRows, pool: Pool, settings: Settings, ring: Callable[[], None]) -> None:
        self.rows = rows
        self._ring = ring
        self._pool = pool
        self._settings = settings
        self._told: dict[int, Told] = {}

    async def watch(self) -> None:
        """Carry them on, for ever."""
        while True:
            try:
                await self.look()
            except Exception as error:  # a locked database, a strange answer: the next round tries again
                often.error("backends could not be restarted", error=repr(error))
            await asyncio.sleep(self._settings.job_poll_s)

    def stage(self, row: Backend) -> Stage:
        """How far the restart of a backend is."""
        return stage(row, now_ms(), self._settings.restart_timeout_s)

    async def look(self) -> None:
        """One round."""
        for member in list(self._pool.members.values()):
            if member.row.restart_ms:
                await self._conclude(member)
            self._let_go(member)
        places = [
            Place(key, member.row.restart_ms, self.stage(member.row), member.health)
            for key, member in self._pool.members.items()
            if member.row.restart_ms
        ]
        for batch in stopped(places):
            await self._stop(batch)
        for key in due(places):
            if key in self._pool.members:
                await self._turn(self._pool.members[key])

    async def _conclude(self, member: Member) -> None:
        """Settle a restart that is done, or has no point: what is asleep or down begins anew anyway."""
        at = self.stage(member.row)
        if at is Stage.WAITING and not self._has_been_told(member):
            away = (Health.ASLEEP,) if member.restarts_by_flag else (Health.ASLEEP, Health.DOWN)
            if member.health not in away:
                return
            log.info("restart dropped", backend=member.row.name, health=member.health)
        elif at is Stage.WAITING or not self._is_back(member):
            return
        else:
            log.info("backend is back", backend=member.row.name)
        await self.rows.settle(member.row)
        self._told.pop(member.key, None)
        await self._pool.refresh()

    def _let_go(self, member: Member) -> None:
        """Jobs again, where the restart is over, forgotten or has failed."""
        if member.held == DUE and self.stage(member.row) in (Stage.NONE, Stage.LOST):
            member.held = None
            self._ring()

    async def _stop(self, batch: int) -> None:
        left = await self.rows.withdraw(batch)
        if left:
            lost = [m.row.name for m in self._pool.members.values() if m.row.restart_ms == batch]
            names = [row.name for row in left]
            log.error("rolling restart stopped", lost=sorted(set(lost) - set(names)), not_restarted=names)
            await self._pool.refresh()

    async def _turn(self, member: Member) -> None:
        """Its turn: no new job from now on, and once it is empty it is told."""
        if self._has_been_told(member):
            if not self._is_still_to_end(member):
                await self._note(member)
        elif member.held is None:
            member.held = DUE
        if member.held == DUE and not self._has_been_told(member) and member.is_empty:
            await self._tell(member)

    async def _tell(self, member: Member) -> None:
        told = Told(member.row.restart_ms, member, member.proven)
        if member.restarts_by_flag:
            member.restart_wanted.set()
        else:
            try:
                await WorkerClient(member.client).restart()
            except BackendBusy:  # a visitor's prompt, in its own pages
                return
            except BackendError as error:
                log.warning("backend could not be told to restart", backend=member.row.name, error=str(error))
                return
        self._told[member.key] = told
        member.warmth.forget()
        self._pool.doubt(member, "it was told to restart")
        log.info("backend restarted", backend=member.row.name)
        if not self._is_still_to_end(member):
            await self._note(member)

    def _is_still_to_end(self, member: Member) -> bool:
        """Whether whoever keeps its process has not ended it yet; who has not in time, is not waited for."""
        told = self._told[member.key]
        if told.member is not member or not member.restart_wanted.is_set():
            return False
        return monotonic_s() - told.at_s < self._settings.restart_timeout_s

    async def _note(self, member: Member) -> None:
        """After the deed: told twice does less harm than never."""
        await self.rows.told(member.row)
        await self._pool.refresh()

    def _has_been_told(self, member: Member) -> bool:
        told = self._told.get(member.key)
        return told is not None and told.asked == member.row.restart_ms

    def _is_back(self, member: Member) -> bool:
        """Whether the new process answers. After a restart of the server nobody knows the old one: any will do."""
        told = self._told.get(member.key)
        if told is None or told.asked != member.row.restart_ms or told.member is not member:
            return _serves(member)
        if not member.restarts_by_flag:
            return _serves(member) and member.proven != told.instance
        if member.restart_wanted.is_set():
            return False
        if not told.ended:
            told.ended = True
            self._pool.doubt(member, "it was restarted")  # what answered last may have been the old one
            return False
        return _serves(member)


def _serves(member: Member) -> bool:
    """As well as before: one that its new process brought into quarantine has not come back."""
    row = member.row
    if member.health is Health.QUARANTINED:
        return row.quarantine_ms is not None and row.quarantine_ms < row.restarted_ms
    return member.health is Health.UP
