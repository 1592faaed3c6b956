"""Looks after one server's managed instances: sees, asks the supervisor, tells the pool, carries out.

Between seeing whether an instance is busy and telling the pool that it stops there is no await, so that none is given a
job while it is put to sleep. Touches the rows of its own source alone.
"""

import asyncio
from collections.abc import Sequence

from backend_pool.backends.member import Member
from backend_pool.backends.phase import ManagedState, Phase
from backend_pool.backends.pool import Pool
from backend_pool.managed.crew import Crew
from backend_pool.managed.facts import Doings
from backend_pool.managed.instances import Instances
from backend_pool.managed.rows import ManagedRows
from backend_pool.managed.supervisor import Limits
from backend_pool.offers.store import OfferStore
from backend_pool.workers.backend_rows import Pack
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import ClusterError, ConfigError
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.tasks import Tasks

log = events(__name__)
often = Repeated(log)

CHANGING_S = 0.1
"""How often it looks while one starts or stops."""


class Keeper:
    """The instances of one kind. `register`, then `watch` for ever; `stop` ends all."""

    def __init__(
        self,
        instances: Instances,
        rows: ManagedRows,
        pool: Pool,
        offers: OfferStore,
        tasks: Tasks,
        *,
        poll_s: float,
        token_id: int | None = None,
    ) -> None:
        self.instances = instances
        self.rows = rows
        self._crew = Crew(instances, tasks)
        self._pool = pool
        self._offers = offers
        self._poll_s = poll_s
        self._token_id = token_id
        self._ids: dict[str, int] = {}
        self._doings = Doings()
        self._placed: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        """Its instances."""
        return self._crew.names

    async def register(self, names: Sequence[str], limits: Limits) -> None:
        """Take over what runs, end what is not wanted any more, and begin with what is. Raises ClusterError."""
        await self._crew.register(names, limits)
        await self.rows.keep_only(list(names))
        for row in await self.rows.listing():
            assert row.id is not None
            self._ids[row.name] = row.id
            if (await asyncio.to_thread(self._offers.load, row.id, row.url)).info:
                self._doings.known.add(row.id)
        await self.round()

    async def started(self) -> None:
        """Return once everything that was to be started answers. Raises ConfigError when one does not."""
        fates = self._crew.supervisor.fates
        while any(fate.phase is Phase.STARTING for fate in fates.values()):
            await asyncio.sleep(CHANGING_S / 2)
            await self.round()
            for name, fate in fates.items():
                if fate.crashes:
                    raise ConfigError(f"{name} did not start. Its log: {self.instances.log(name)}")

    async def watch(self) -> None:
        """Look after them, for ever."""
        while True:
            try:
                await self.round()
                if not self._crew.changing:
                    await self._crew.trim_logs()
            except Exception as error:  # a full disk, a row changed by hand: the next round tries again
                known = isinstance(error, ClusterError)
                often.error("instances could not be looked after", error=repr(error), exc_info=None if known else error)
                await asyncio.sleep(self._poll_s)
            await asyncio.sleep(CHANGING_S if self._crew.changing else self._poll_s)

    async def round(self) -> None:
        """See, decide, tell, do."""
        ready = await self._crew.addresses()
        for name, url in ready.items():
            await self._place(name, url)
        crashes, now = self._crew.crashes(), monotonic_s()
        facts = {name: self._doings.of(self.member(name), self._ids.get(name), now) for name in self.names}
        orders = self._crew.look(facts, ready)
        self._tell()
        await self._crew.note_crashes(crashes)
        for order in orders:
            if await self._crew.carry_out(order):
                planned = await asyncio.to_thread(self.instances.recipe.planned, order.name)
                if planned is not None:
                    await self._place(order.name, planned)
        self._tell()

    async def drop(self, name: str) -> None:
        """Stop one for good and forget its row."""
        self._crew.supervisor.fates.pop(name)
        await self.instances.forget(name)
        await self.rows.keep_only(self.names)
        self._placed.pop(name, None)
        backend_id = self._ids.pop(name, None)
        if backend_id is not None:
            self._pool.manage(backend_id, None)
        self._pool.wake()

    async def stop(self) -> None:
        """End all; what they offer is remembered."""
        await self.instances.forget_all()

    def member(self, name: str) -> Member | None:
        """That instance in the pool."""
        return self._pool.member(self._ids.get(name))

    async def _place(self, name: str, url: str) -> None:
        """Have its row, and the pool, know where it is."""
        if self._placed.get(name) == url:
            return
        worker = await asyncio.to_thread(self.instances.recipe.worker, name)
        pack = None if worker is None or self._token_id is None else Pack(worker, self._token_id)
        row = await self.rows.place(name, url, pack)
        assert row.id is not None
        self._ids[name] = row.id
        self._placed[name] = url
        self._tell()  # before the pool sees the new address: it is not to be probed as long as it starts
        if self._pool.listed:
            await self._pool.refresh()

    def _tell(self) -> None:
        now, ms = monotonic_s(), now_ms()
        for name, fate in self._crew.supervisor.fates.items():
            backend_id = self._ids.get(name)
            if backend_id is None:
                continue
            since_ms = ms - round((now - fate.since) * 1000)
            retry_ms = ms + round((fate.retry_at - now) * 1000) if fate.phase is Phase.CRASHED else None
            state = ManagedState(fate.phase, since_ms, fate.error, fate.deaths, retry_ms, fate.adopted, fate.full)
            self._pool.manage(backend_id, state)
