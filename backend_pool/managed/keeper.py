"""Looks after one server's managed instances: sees, asks the supervisor, tells the pool, carries out.

Between seeing whether an instance is busy and telling the pool that it stops there is no await, so that none is given a
job while it is put to sleep. Touches the rows of its own source alone.
"""

import asyncio
from collections.abc import Sequence

from backend_pool.health import Health
from backend_pool.managed.instances import Instances
from backend_pool.managed.rows import ManagedRows, Pack
from backend_pool.managed.state import ManagedState, Phase
from backend_pool.managed.supervisor import Limits, Order, Seen, Supervisor, Verb
from backend_pool.member import Member
from backend_pool.offer_store import OfferStore
from backend_pool.pool import Pool
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import ClusterError, ConfigError
from proxy.base.logs import events
from proxy.base.tasks import Tasks

log = events(__name__)

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
        self.supervisor = Supervisor(Limits(), ())
        self._pool = pool
        self._offers = offers
        self._tasks = tasks
        self._poll_s = poll_s
        self._token_id = token_id
        self._ids: dict[str, int] = {}
        self._known: set[str] = set()
        self._stale: set[str] = set()
        self._placed: dict[str, str] = {}
        self._active: dict[str, tuple[float, object]] = {}
        self._ending: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Its instances."""
        return list(self.supervisor.fates)

    async def register(self, names: Sequence[str], limits: Limits) -> None:
        """Take over what runs, end what is not wanted any more, and begin with what is. Raises ClusterError."""
        self.supervisor = Supervisor(limits, names)
        for surplus in set(self.instances.recorded()) - set(names):
            await self.instances.forget(surplus)
        await self.rows.keep_only(list(names))
        for row in await self.rows.listing():
            assert row.id is not None
            self._ids[row.name] = row.id
            if (await asyncio.to_thread(self._offers.load, row.id, row.url)).info:
                self._known.add(row.name)
        for name in names:
            await asyncio.to_thread(self.instances.adopt, name)
            if self.instances.alive(name) and await asyncio.to_thread(self.instances.recipe.stale, name):
                self._stale.add(name)
        await self.round()

    async def started(self) -> None:
        """Return once everything that was to be started answers. Raises ConfigError when one does not."""
        while any(fate.phase is Phase.STARTING for fate in self.supervisor.fates.values()):
            await asyncio.sleep(CHANGING_S / 2)
            await self.round()
        for name, fate in self.supervisor.fates.items():
            if fate.phase is Phase.CRASHED:
                raise ConfigError(f"{name} did not start. Its log: {self.instances.log(name)}")

    async def watch(self) -> None:
        """Look after them, for ever."""
        while True:
            try:
                await self.round()
                changing = any(f.phase in (Phase.STARTING, Phase.STOPPING) for f in self.supervisor.fates.values())
                if not changing:
                    for name in self.names:
                        await asyncio.to_thread(self.instances.trim_log, name)
            except Exception as error:  # a full disk, a row changed by hand: the next round tries again
                changing = False
                known = isinstance(error, ClusterError)
                log.error("instances could not be looked after", error=repr(error), exc_info=None if known else error)
            await asyncio.sleep(CHANGING_S if changing else self._poll_s)

    async def round(self) -> None:
        """See, decide, tell, do."""
        alive = {name: self.instances.alive(name) for name in self.names}
        ready = {name: alive[name] and await self._ready(name) for name in self.names}
        crashes = {name: fate.crashes for name, fate in self.supervisor.fates.items()}
        now = monotonic_s()
        seen = {name: self._seen(name, alive[name], ready[name], now) for name in self.names}
        orders = self.supervisor.look(seen, now)
        self._tell()
        await self._note_deaths(crashes)
        for order in orders:
            await self._carry_out(order)
        self._tell()

    async def drop(self, name: str) -> None:
        """Stop one for good and forget its row."""
        self.supervisor.fates.pop(name)
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

    async def _ready(self, name: str) -> bool:
        """Whether one that starts answers, and the pool can know where."""
        if self.supervisor.fates[name].phase not in (Phase.STARTING, Phase.ASLEEP):
            return True
        url = await self.instances.address(name)
        if url is None:
            return False
        await self._place(name, url)
        return True

    async def _place(self, name: str, url: str) -> None:
        worker = await asyncio.to_thread(self.instances.recipe.worker, name)
        pack = None if worker is None or self._token_id is None else Pack(worker, self._token_id)
        row = await self.rows.place(name, url, pack)
        assert row.id is not None
        self._ids[name] = row.id
        if self._placed.get(name) != url:
            self._placed[name] = url
            if self._pool.listed:
                await self._pool.refresh()

    def _seen(self, name: str, alive: bool, ready: bool, now: float) -> Seen:
        member = self.member(name)
        if not alive:
            self._stale.discard(name)
        if member is None:
            return Seen(alive, ready, known=name in self._known, restart=alive and name in self._stale)
        if member.info:
            self._known.add(name)
        if not alive:
            member.restart_wanted.clear()
        busy = member.job is not None or bool(member.leftovers)
        since, doings = self._active.get(name, (now, None))
        if busy or doings != (member.done, member.failed) or self.supervisor.fates[name].phase is not Phase.RUNNING:
            since = now
        self._active[name] = since, (member.done, member.failed)
        hangs = member.health is Health.DOWN and member.managed is not None and member.managed.state is Phase.RUNNING
        return Seen(
            alive,
            ready,
            busy=busy,
            idle_s=now - since,
            wanted=member.wanted_since_s is not None,
            known=name in self._known,
            restart=member.restart_wanted.is_set() or hangs or name in self._stale,
        )

    def _tell(self) -> None:
        now, ms = monotonic_s(), now_ms()
        for name, fate in self.supervisor.fates.items():
            backend_id = self._ids.get(name)
            if backend_id is None:
                continue
            told = self._pool.managed(backend_id)
            same = told is not None and told.state is fate.phase
            since_ms = told.since_ms if same and told is not None else ms - round((now - fate.since) * 1000)
            retry_ms = ms + round((fate.retry_at - now) * 1000) if fate.phase is Phase.CRASHED else None
            if same and told is not None and told.deaths == fate.deaths:
                retry_ms = told.retry_ms
            self._pool.manage(backend_id, ManagedState(fate.phase, since_ms, fate.error, fate.deaths, retry_ms))

    async def _note_deaths(self, before: dict[str, int]) -> None:
        """One line for each that has crashed, with its last words."""
        for name, fate in self.supervisor.fates.items():
            if fate.crashes != before.get(name):
                words = await asyncio.to_thread(self.instances.last_words, name)
                fate.error = f"{fate.error}; its log ends with: {words}" if words else fate.error
                pause_s = round(max(0.0, fate.retry_at - monotonic_s()), 1)
                log.error("instance died", instance=name, deaths=fate.deaths, again_in_s=pause_s, error=fate.error)

    async def _carry_out(self, order: Order) -> None:
        name = order.name
        if order.verb is Verb.STOP:
            if name not in self._ending:
                self._ending.add(name)
                self._tasks.start(f"stop {name}", self._end(name))
            return
        try:
            await self.instances.start(name)
            planned = await asyncio.to_thread(self.instances.recipe.planned, name)
            if planned is not None:
                await self._place(name, planned)
        except ClusterError as error:
            pause_s = self.supervisor.failed(name, error.message, monotonic_s())
            log.error("instance could not be started", instance=name, again_in_s=pause_s, error=error.message)

    async def _end(self, name: str) -> None:
        try:
            await self.instances.stop(name)
        except ClusterError as error:
            log.error("instance not stopped", error=error.message)
        finally:
            self._ending.discard(name)
