"""The engine that a server starts when no backend is known: once another backend is up it finishes its job and ends."""

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.backends.registry import Registry
from backend_pool.managed.keeper import Keeper
from backend_pool.model import BackendMode
from proxy.base.logs import events

log = events(__name__)


class StandIn:
    """Retires the instances of a keeper."""

    def __init__(self, keeper: Keeper, registry: Registry, pool: Pool) -> None:
        self._keeper = keeper
        self._registry = registry
        self._pool = pool
        self._retiring = False

    async def revive(self) -> None:
        """One that was killed while it retired works again."""
        for row in await self._keeper.rows.listing():
            if row.mode is BackendMode.DRAINING and row.id is not None:
                await self._registry.set_mode(row.id, BackendMode.ACTIVE)

    async def look(self) -> None:
        """Retire them, or take them back, as other backends come and go."""
        own = [member for name in self._keeper.names if (member := self._keeper.member(name)) is not None]
        others = [member for member in self._pool.members.values() if member.row.source != self._keeper.rows.source]
        if not any(member.health is Health.UP and member.row.mode is BackendMode.ACTIVE for member in others):
            if self._retiring:
                await self._set_modes(own, BackendMode.DRAINING, BackendMode.ACTIVE)
            self._retiring = False
            return
        if not self._retiring and own:
            self._retiring = True
            log.info("another backend is up, the embedded engine that nobody asked for retires")
        await self._set_modes(own, BackendMode.ACTIVE, BackendMode.DRAINING)
        if any(member.busy or member.row.mode is BackendMode.ACTIVE for member in own):
            return  # the pool reads the new mode before anything else is decided
        for name in self._keeper.names:
            await self._keeper.drop(name)
            log.info("embedded engine stopped")

    async def _set_modes(self, members: list[Member], old: BackendMode, new: BackendMode) -> None:
        for member in members:
            if member.row.mode is old:
                await self._registry.set_mode(member.key, new)
                self._pool.wake()
