"""What is done to backends while time passes: a drained one is emptied at its deadline, an idle one unloads its models.

Reads members; places and ends no job itself. The runner of an evicted job gives it back to the queue.
"""

import asyncio
from collections.abc import Callable

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.errors import BackendError
from backend_pool.model import Backend, BackendMode
from backend_pool.workers.client import WorkerClient
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)
often = Repeated(log)

FREEING = "its models are being unloaded"


class Housekeeping:
    """Of one server. `ring` is called when a backend that was held back may have jobs again."""

    def __init__(self, pool: Pool, settings: Settings, tasks: Tasks, ring: Callable[[], None]) -> None:
        self._pool = pool
        self._ring = ring
        self._settings = settings
        self._tasks = tasks
        self._freed: dict[int, float | None] = {}
        """Since when each was idle when it was last freed: once per idleness."""

    async def watch(self) -> None:
        """Look after them, for ever."""
        while True:
            try:
                self.look()
            except Exception as error:
                often.error("backends could not be looked after", exc_info=error)
            await asyncio.sleep(self._settings.job_poll_s)

    def look(self) -> None:
        """One round; what takes time goes on beside it."""
        members = self._pool.members
        self._freed = {key: since for key, since in self._freed.items() if key in members}
        for member in list(members.values()):
            if member.job is None or not overdue(member.row, now_ms()):
                member.evict.clear()
            elif not member.evict.is_set():
                member.evict.set()
                log.info("backend emptied", backend=member.row.name, job=member.job)
            if self._is_to_be_freed(member):
                member.held = FREEING  # before anything is awaited: no job may be placed there meanwhile
                self._freed[member.key] = member.idle_since_s
                self._tasks.start(f"free {member.row.name}", self._free(member))

    def _is_to_be_freed(self, member: Member) -> bool:
        since_s, after_s = member.idle_since_s, self._settings.idle_free_s
        if not after_s or since_s is None or self._freed.get(member.key) == since_s:
            return False
        due = monotonic_s() - since_s >= after_s
        return due and member.health is Health.UP and member.is_empty and member.held is None

    async def _free(self, member: Member) -> None:
        try:
            await free(member)
            log.info("idle backend freed", backend=member.row.name)
        except BackendError as error:
            log.warning("idle backend not freed", backend=member.row.name, error=str(error))
        finally:
            member.held = None
            self._ring()


def overdue(row: Backend, now: int) -> bool:
    """Whether the deadline of its drain is over."""
    return row.mode is BackendMode.DRAINING and row.drain_by_ms is not None and row.drain_by_ms <= now


async def free(member: Member) -> None:
    """Have a backend unload its models and forget its results, between jobs. Raises BackendError."""
    member.warmth.forget()  # first: an answer that never comes may follow a request that was heard
    if member.worker is not None:
        await WorkerClient(member.client).free()
    else:
        await member.client.post("/free", {"unload_models": True, "free_memory": True})
