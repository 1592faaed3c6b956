"""Keeps the embedded engines in step with the settings: registers them, revives those that die, bounds their logs.

An engine that nobody asked for is retired once another backend is up. Touches the rows of engines alone.
"""

import asyncio
from dataclasses import dataclass

from backend_pool.engine_process import Engines
from backend_pool.health import Health
from backend_pool.model import BackendMode
from backend_pool.pool import Member, Pool
from backend_pool.registry import Registry
from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.settings import Settings

log = events(__name__)

SOURCE = "engine"
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
"""An engine that has lived this long is well again: its next death is the first."""


@dataclass
class Fate:
    """What became of one engine. Times are monotonic seconds."""

    since: float
    deaths: int = 0
    alive: bool = True
    retry_at: float = 0.0

    def died(self, now: float) -> float:
        """Count a death; the pause before the next start, none after a long life."""
        if self.alive and now - self.since >= STEADY_S:
            self.deaths = 0
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (self.deaths - 1)) if self.deaths else 0.0
        self.deaths, self.alive, self.retry_at = self.deaths + 1, False, now + pause_s
        return pause_s

    def lives(self, now: float) -> None:
        """It was started again."""
        self.alive, self.since = True, now


class EngineKeeper:
    """The engines of one server."""

    def __init__(self, settings: Settings, engines: Engines, registry: Registry, pool: Pool) -> None:
        self._settings = settings
        self._engines = engines
        self._registry = registry
        self._pool = pool
        self._fates: dict[int, Fate] = {}
        self._retiring = False

    async def register(self) -> None:
        """Start and list engines: as many as asked for, or one when there is no other backend. Raises ConfigError."""
        rows = await self._registry.listing()
        wanted = self._settings.engines
        count = int(all(row.source == SOURCE for row in rows)) if wanted is None else wanted
        urls = await self._engines.ensure(count)
        await self._registry.keep_only(SOURCE, urls)
        for number, url in enumerate(urls, start=1):
            row = await self._registry.ensure(url, name(number), SOURCE)
            if wanted is None and row.mode is BackendMode.DRAINING and row.id is not None:  # killed while it retired
                await self._registry.set_mode(row.id, BackendMode.ACTIVE)
            self._fates[number] = Fate(monotonic_s())

    async def watch(self) -> None:
        """Look after them, for ever."""
        while True:
            try:
                await asyncio.gather(*(self._look(number) for number in self._fates))
                if self._settings.engines is None and self._fates:
                    await self._retire()
            except ClusterError as error:
                log.error("engines could not be looked after", error=error.message)
            except Exception as error:  # a full disk, a row changed by hand: the next round tries again
                log.error("engines could not be looked after", exc_info=error)
            await asyncio.sleep(self._settings.job_poll_s)

    async def _look(self, number: int) -> None:
        await asyncio.to_thread(self._engines.trim_log, number)
        fate = self._fates[number]
        if fate.alive and not self._engines.alive(number):
            self._mourn(number, fate)
        if not fate.alive and monotonic_s() >= fate.retry_at:
            await self._revive(number, fate)

    async def _revive(self, number: int, fate: Fate) -> None:
        try:
            url = await self._engines.revive(number)
        except ClusterError as error:
            self._mourn(number, fate, error.message)
            return
        await self._registry.relocate(name(number), url, SOURCE)
        fate.lives(monotonic_s())
        log.info("engine started again", engine=number, deaths=fate.deaths)
        self._pool.wake()

    def _mourn(self, number: int, fate: Fate, error: str | None = None) -> None:
        pause_s = fate.died(monotonic_s())
        log.error("engine died", engine=number, deaths=fate.deaths, again_in_s=pause_s, error=error)

    async def _retire(self) -> None:
        """Once another backend is up: let them finish their jobs, stop them, forget them."""
        members = list(self._pool.members.values())
        own = [member for member in members if member.row.source == SOURCE]
        others = [member for member in members if member.row.source != SOURCE]
        if not any(member.health is Health.UP and member.row.mode is BackendMode.ACTIVE for member in others):
            if self._retiring:
                await self._set_modes(own, BackendMode.DRAINING, BackendMode.ACTIVE)
            self._retiring = False
            return
        if not self._retiring:
            self._retiring = True
            log.info("another backend is up, the embedded engine that nobody asked for retires")
        await self._set_modes(own, BackendMode.ACTIVE, BackendMode.DRAINING)
        if any(member.job is not None or member.row.mode is BackendMode.ACTIVE for member in own):
            return  # the pool reads the new mode before anything else is decided
        self._fates.clear()
        await self._engines.ensure(0)
        await self._registry.keep_only(SOURCE, [])
        self._pool.wake()
        log.info("embedded engine stopped")

    async def _set_modes(self, members: list[Member], old: BackendMode, new: BackendMode) -> None:
        for member in members:
            if member.row.mode is old:
                await self._registry.set_mode(member.key, new)
                self._pool.wake()


def name(number: int) -> str:
    """The name of an engine's row."""
    return f"engine-{number}"
