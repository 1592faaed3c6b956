"""The live pool: one member per registered backend, its observed health, node list and the job it carries.

Probing is the only writer of health; the dispatcher is the only writer of `Member.job`. Rows are read again on every
round, so that changes made by the command line or another process arrive without a restart.
"""

import asyncio
import random
from collections.abc import Callable

from backend_pool.backends.care import Care
from backend_pool.backends.health import Health, judge
from backend_pool.backends.member import Member
from backend_pool.backends.phase import ManagedState
from backend_pool.backends.proof import prove
from backend_pool.backends.registry import Registry
from backend_pool.backends.resting import Resting, is_same, rest
from backend_pool.comfy.client import ComfyClient, Timeouts
from backend_pool.errors import BackendError
from backend_pool.model import Backend
from backend_pool.offers.offer import Offer, Provider
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.offers.reader import OfferReader
from backend_pool.offers.store import OfferStore
from backend_pool.workers.registrations import Known, Workers
from proxy.base.backend_url import shown_url
from proxy.base.bell import rung
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)
often = Repeated(log)


class Pool:
    """All members. `on_change` rings whenever a job might find a place, or users should see another pool."""

    def __init__(self, registry: Registry, settings: Settings, tasks: Tasks, workers: Workers | None = None) -> None:
        self._registry = registry
        self.workers = workers
        if workers is not None:
            workers.on_news.append(self._worker_news)
        self._settings = settings
        self._tasks = tasks
        self._relist = asyncio.Event()
        self.members: dict[int, Member] = {}
        self._resting = Resting()
        self.info = PoolInfo()
        self.generation = 0
        self.listed = False
        """Whether the rows have been read: before that, a backend without a member is not a removed one."""
        self.on_change: list[Callable[[], None]] = []
        self._store = OfferStore(settings.data_dir)
        self._care = Care(registry, settings)
        self._seen: tuple[Provider, ...] = ()
        self._merging = asyncio.Lock()
        self._relisting = asyncio.Lock()

    @property
    def probe_timeout_s(self) -> float:
        """How long a backend may take to answer what somebody waits for."""
        return self._settings.probe_timeout_s

    def wake(self) -> None:
        """Look at the rows now: somebody changed them."""
        self._relist.set()

    async def watch(self) -> None:
        """Keep members in step with the rows, for ever."""
        while True:
            try:
                await self.refresh()
            except Exception as error:
                often.error("backends could not be listed", error=repr(error))
            await rung(self._relist, self._settings.job_poll_s)

    async def refresh(self) -> None:
        """One relist; two at once would let one backend join twice."""
        async with self._relisting:
            await self._refresh()

    async def _refresh(self) -> None:
        rows = {row.id: row for row in await self._registry.listing() if row.id is not None}
        if self.workers is not None:
            await self.workers.reload()
        for key in self.members.keys() - rows.keys():
            log.info("backend removed", backend=self.members[key].row.name)
            await self._leave(self.members.pop(key))
            await asyncio.to_thread(self._store.forget, key)
        for key, row in rows.items():
            member = self.members.get(key)
            # SQLite gave a removed backend's id to a new one, or a worker moved or got another secret.
            if member is not None and (member.row.url, member.worker) != (row.url, self._worker(key)):
                _tell_of_move(member.row, row)
                self._join(row, member.offer if is_same(member, row.name, row.source) else None)
                await self._leave(member)  # last: what it offers must not be missing for a moment
                continue
            if member is None:
                self._join(row)
                continue
            known, member.row = member.row, row
            if known.mode != row.mode:
                log.info("backend mode changed", backend=row.name, mode=row.mode)
                self._changed()
            if known.refresh_ms != row.refresh_ms:
                self.read_again(member)
            if (known.quarantine is None) != (row.quarantine is None):
                member.doubted.set()
        self.listed = True

    async def close(self) -> None:
        """Close every client; probes end with their task group."""
        for member in self.members.values():
            await member.client.close()

    def member(self, backend_id: int | None) -> Member | None:
        """The member of a row, None when it was removed."""
        return None if backend_id is None else self.members.get(backend_id)

    def doubt(self, member: Member, why: str) -> None:
        """It lost a job: no new work until it has answered a probe, which is due now."""
        if member.health is Health.UP:
            member.health, member.error = Health.SUSPECT, why
            log.info("backend health changed", backend=member.row.name, health=member.health, was="up", error=why)
        member.doubted.set()

    async def quarantine(self, member: Member, why: str, *, restart: bool = False) -> None:
        """It harmed a job: it gets none before a trial job has succeeded."""
        await self._care.quarantine(member, why, restart=restart)
        self._changed()

    def manage(self, backend_id: int, state: ManagedState | None) -> None:
        """What its keeper knows of its process; at once, for one that is to be stopped must not be given a job."""
        member = self.members.get(backend_id)
        if self._resting.told(backend_id, state, member) and member is not None:
            self._rests(member)
            member.doubted.set()

    def managed(self, backend_id: int) -> ManagedState | None:
        """What its keeper has told last."""
        return self._resting.states.get(backend_id)

    def _rests(self, member: Member) -> bool:
        known, changed = rest(member)
        if changed:
            self._changed()
        return known

    def read_again(self, member: Member) -> None:
        """Read what it offers now, without waiting for a probe to find that it has changed."""
        member.reader.ask_again()
        member.doubted.set()

    def _changed(self) -> None:
        for heard in self.on_change:
            heard()

    def _join(self, row: Backend, offer: Offer | None = None) -> None:
        worker = self._worker(row.id)
        headers = self.workers.headers(row.id) if self.workers is not None and row.id is not None else None
        client = ComfyClient(row.url, Timeouts.of(self._settings), headers)
        reader = OfferReader(client, self._settings.models_interval_s, self._settings.probe_timeout_s)
        member = Member(row, client, reader, worker=worker, managed=self._resting.states.get(row.id or 0))
        member.offer = offer or member.offer
        self.members[member.key] = member
        self._tasks.start(f"probe {row.name}", self._probe_for_ever(member))

    async def _leave(self, member: Member) -> None:
        member.health = Health.DOWN
        member.gone.set()
        if not member.busy:
            await member.client.close()
        await self._rebuild(told=True)

    async def _probe_for_ever(self, member: Member) -> None:
        await self._remember(member)
        while self.members.get(member.key) is member:
            try:
                await self._probe(member)
            except Exception as error:  # whatever a stranger's server answered: it must not end the probing
                often.error("probe failed", backend=member.row.name, error=f"{member.row.name}: {error!r}")
                await self._judge(
                    member, answered=False, error=f"{member.client.label}: it does not answer as ComfyUI does"
                )
            pause_s = self._settings.probe_interval_s * random.uniform(0.8, 1.2)  # noqa: S311
            await rung(member.doubted, pause_s)

    async def _remember(self, member: Member) -> None:
        """Begin with what it offered when it was last seen: it may be away, and jobs wait for it."""
        try:
            if not member.info:
                member.offer = await asyncio.to_thread(self._store.load, member.key, member.row.url)
            await self._rebuild()
        except Exception as error:
            log.error("what a backend offered is of no use", backend=member.row.name, error=repr(error))
            member.offer = Offer()

    def _worker(self, backend_id: int | None) -> Known | None:
        return None if self.workers is None or backend_id is None else self.workers.known(backend_id)

    def _worker_news(self, backend_id: int, rows_changed: bool) -> None:
        """A worker has come, come back, or has other nodes or models."""
        member = self.members.get(backend_id)
        if rows_changed or member is None:
            self.wake()
        else:
            self.read_again(member)

    async def _probe(self, member: Member) -> None:
        if self._rests(member):
            return
        timeout_s = self._settings.probe_timeout_s
        try:
            if self.workers is not None and member.worker is not None:
                await prove(self.workers, member, timeout_s)
            stats = await member.client.get_json("/system_stats", timeout_s)
            if member.health is not Health.UP:
                member.reader.ask_again()  # it may have been started anew
            offer = await member.reader.look(member.offer)
            await self._care.look(member)
        except BackendError as error:
            await self._judge(member, answered=False, error=str(error))
            return
        if offer is not member.offer:
            member.offer = offer
            await self._rebuild()  # before it is up: jobs are matched by the union's definitions
            await asyncio.to_thread(self._store.save, member.key, member.row.url, offer)
        member.stats = stats if isinstance(stats, dict) else {}
        member.seen_ms = now_ms()
        await self._judge(member, answered=True, error=None)

    async def _judge(self, member: Member, *, answered: bool, error: str | None) -> None:
        if self._rests(member):  # it was put to sleep, or ended, while it was asked
            return
        now = monotonic_s()
        if answered:
            member.silent_since = now
        before, first = member.health, member.error is None
        member.error = error or self._care.words(member)
        silent_s = now - member.silent_since
        member.health = judge(
            before,
            answered=answered,
            silent_s=silent_s,
            down_after_s=self._settings.backend_down_after_s,
            quarantined=self._care.is_quarantined(member),
            untried=member.untried,
        )
        if member.health is Health.DOWN:
            member.untried = before is not Health.JOINING
            member.gone.set()
            member.warmth.forget()
        elif answered:
            member.gone.clear()
        if member.health is not before:
            log.info("backend health changed", backend=member.row.name, health=member.health, was=before, error=error)
        elif error and first and before is Health.JOINING:
            log.info("backend does not answer yet", backend=member.row.name, error=error)
        if self.members.get(member.key) is member:
            await self._rebuild(told=member.health is not before)

    async def _rebuild(self, *, told: bool = False) -> None:
        """Publish the union again where it has changed. A backend that is down for a while keeps its nodes on show: its
        jobs wait for it.

        In a thread: a pool's documents have megabytes.
        """
        async with self._merging:
            providers = tuple(member.provider for member in self.members.values() if member.info)
            changed = providers != self._seen
            if changed:
                denied, hidden = self._settings.denied_nodes, self._settings.hidden_models
                self.info = await asyncio.to_thread(PoolInfo, providers, denied, hidden)
                self.generation += 1
                self._seen = providers
        if changed or told:
            self._changed()


def _tell_of_move(was: Backend, row: Backend) -> None:
    """Another address, or only another secret, or another backend that got the id of a removed one."""
    if was.name != row.name:
        log.info("backend removed", backend=was.name)
    elif was.url != row.url:
        log.info("backend moved", backend=row.name, was=shown_url(was.url), url=shown_url(row.url))
