"""Which backends can run a waiting job, and in words why none does.

Reads the pool and the jobs' prompts, keeps what it learns in memory only, and leaves what to do to the dispatcher.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from backend_pool.errors import BackendRefused
from backend_pool.health import Health
from backend_pool.job_store import Fenced, JobStore
from backend_pool.model import BackendMode, Job, JobDocument
from backend_pool.node_info import Needs, lacks, needs, refused_needs
from backend_pool.pool import Member, Pool
from proxy.base.logs import events

log = events(__name__)

NEEDS_KEPT = 10_000
BUSY = "all backends that can run it are busy"


class Matching:
    """What jobs need, read once per job and state of the pool; at most NEEDS_KEPT are kept, the oldest goes."""

    def __init__(self, store: JobStore, pool: Pool) -> None:
        self._store = store
        self._pool = pool
        self._needs: OrderedDict[int, tuple[int, Needs]] = OrderedDict()
        self._reasons: dict[int, str] = {}
        self._told: set[int] = set()

    async def choose(self, job: Job, idle: Collection[Member]) -> tuple[Member | None, JobDocument | None]:
        """The idle backend that can run the job and has run the fewest, so that work spreads. Raises Fenced."""
        wanted, document = await self._wanted(job)
        able = [member for member in idle if lacks(wanted, member.info) is None]
        return min(able, key=lambda member: (member.failed, member.done, member.key), default=None), document

    def elsewhere(self, member: Member, refused: BackendRefused, prompt: Mapping[str, Any]) -> bool:
        """Whether a backend refused a prompt only for what another one offers: its node list was out of date."""
        wanted = refused_needs(refused.body, prompt)
        others = [other for other in self._pool.members.values() if other is not member and other.info]
        return wanted is not None and any(lacks(wanted, other.info) is None for other in others)

    async def explain(self, waiting: Iterable[Job]) -> None:
        """Note why each of these jobs, their users' first ones, waits; logged once if for more than its turn."""
        reasons: dict[int, str] = {}
        for job in waiting:
            try:
                wanted, _ = await self._wanted(job)
            except Fenced:  # removed meanwhile
                continue
            reasons[job.key] = why(wanted, self._pool.members.values())
            if reasons[job.key] != BUSY and job.key not in self._told:
                self._told.add(job.key)
                log.warning("job waits", job=job.prompt_id, user=job.user_id, why=reasons[job.key])
        self._reasons = reasons
        if len(self._told) > NEEDS_KEPT:
            self._told.clear()

    def reason(self, seq: int) -> str | None:
        """Why the job waits, in plain words; None for one that is not the next of its user."""
        return self._reasons.get(seq)

    def forget(self, seq: int) -> None:
        """The job is placed or over."""
        self._needs.pop(seq, None)
        self._reasons.pop(seq, None)

    async def _wanted(self, job: Job) -> tuple[Needs, JobDocument | None]:
        generation, wanted = self._needs.get(job.key, (-1, None))
        if wanted is not None and generation == self._pool.generation:
            return wanted, None
        generation, union = self._pool.generation, self._pool.info.union
        document = await self._store.document(job.key)
        wanted = needs(document.prompt, union)
        self._needs[job.key] = (generation, wanted)
        while len(self._needs) > NEEDS_KEPT:
            self._needs.popitem(last=False)
        return wanted, document


def why(wanted: Needs, members: Collection[Member]) -> str:
    """What has to change before a job with these needs can run. Pure."""
    active = [member for member in members if member.row.mode is BackendMode.ACTIVE]
    ready = [member for member in active if member.health is Health.UP and member.info]
    if ready:
        missing = [lacks(wanted, member.info) for member in ready]
        return BUSY if None in missing else f"waiting for a backend with {min(filter(None, missing))}"
    if not members:
        return "there is no backend"
    if not active:
        return "all backends are disabled or draining"
    if all(member.health is Health.DOWN for member in active):
        return "all backends are down"
    return "no backend answers at the moment"
