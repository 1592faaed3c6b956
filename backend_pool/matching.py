"""Which backends can run a waiting job, and in words why none does.

Reads the pool and the jobs' prompts, keeps what it learns in memory only, and leaves what to do to the dispatcher.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from backend_pool.errors import BackendRefused
from backend_pool.fitness import Demands, demands, lacking
from backend_pool.health import Health
from backend_pool.job_store import Fenced, JobStore
from backend_pool.model import BackendMode, Job, JobDocument
from backend_pool.needs import lacks, refused_needs
from backend_pool.pool import Member, Pool
from proxy.base.logs import events

log = events(__name__)

NEEDS_KEPT = 10_000
NAMED = 3
"""Backends that a reason names; of more it gives the number."""
BUSY = "all backends that can run it are busy"


class Matching:
    """What jobs need, read once per job and state of the pool; at most NEEDS_KEPT are kept, the oldest goes."""

    def __init__(self, store: JobStore, pool: Pool) -> None:
        self._store = store
        self._pool = pool
        self._demands: OrderedDict[int, tuple[tuple[int, bool], Demands]] = OrderedDict()
        self._reasons: dict[int, str] = {}
        self._told: set[int] = set()

    async def choose(self, job: Job, idle: Collection[Member]) -> tuple[Member | None, JobDocument | None]:
        """The idle backend that can run the job and has run the fewest, so that work spreads. Raises Fenced."""
        asked, document = await self._asked(job)
        able = [member for member in idle if lacking(asked, member.provider) is None]
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
                asked, _ = await self._asked(job)
            except Fenced:  # removed meanwhile
                continue
            reasons[job.key] = why(asked, self._pool.members.values())
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
        self._demands.pop(seq, None)
        self._reasons.pop(seq, None)

    async def _asked(self, job: Job) -> tuple[Demands, JobDocument | None]:
        # Until each backend has had its chance to answer, a model that none lists may be the next one's.
        settled = all(member.health is not Health.JOINING or member.info for member in self._pool.members.values())
        state = (self._pool.generation, settled)
        known, asked = self._demands.get(job.key, (None, None))
        if asked is not None and known == state:
            return asked, None
        info = self._pool.info
        document = await self._store.document(job.key)
        asked = await asyncio.to_thread(demands, document.prompt, document.targets, info, settled=settled)
        self._demands[job.key] = (state, asked)
        while len(self._demands) > NEEDS_KEPT:
            self._demands.popitem(last=False)
        return asked, document


def why(asked: Demands, members: Collection[Member]) -> str:
    """What has to change before a job with these demands can run. Pure."""
    active = [member for member in members if member.row.mode is BackendMode.ACTIVE]
    ready = [member for member in active if member.health is Health.UP and member.info]
    if not ready:
        return _nobody(members, active)
    missing = [lacking(asked, member.provider) for member in ready]
    if None in missing:
        return BUSY
    away = [member for member in members if member.info and lacking(asked, member.provider) is None]
    wanted = dict.fromkeys(filter(None, missing))
    if not away and len(wanted) > 1:
        each = [f"{member.row.name} lacks {what}" for member, what in zip(ready, missing, strict=True)]
        return f"no single backend has all it needs: {'; '.join(each[:NAMED])}"
    text = f"waiting for a backend with {min(wanted)}"
    return f"{text}; {_having(away)}" if away else text


def _nobody(members: Collection[Member], active: Collection[Member]) -> str:
    if not members:
        return "there is no backend"
    if not active:
        return "all backends are disabled or draining"
    if all(member.health is Health.DOWN for member in active):
        return "all backends are down"
    return "no backend answers at the moment"


def _having(away: Collection[Member]) -> str:
    """`gpu-1 (down) and gpu-2 (draining) have it`."""
    named = [f"{member.row.name} ({_state(member)})" for member in away]
    if len(named) > NAMED:
        return f"{len(named)} that are down or get no jobs have it"
    return f"{' and '.join(named)} {'has' if len(named) == 1 else 'have'} it"


def _state(member: Member) -> str:
    return member.row.mode.value if member.row.mode is not BackendMode.ACTIVE else str(member.health)
