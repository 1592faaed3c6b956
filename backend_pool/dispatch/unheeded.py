"""Backends that go on with a job whose user has been told its end: they stay on that user's account until they let go.

Else somebody could cancel what heeds no interrupt, again and again, and have one backend after the other. Holds at most
one job of each backend, in memory: after a restart of the proxy the backend is kept from jobs, and nobody charged.
"""

from dataclasses import dataclass

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.dispatch.turns import Turns
from backend_pool.forecasts.signature import Traits
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from backend_pool.runs.harms import Harms
from proxy.base.clock import monotonic_s
from proxy.base.logs import events

log = events(__name__)


@dataclass(frozen=True)
class _Going:
    """What goes on where, and what its user has been charged until the told end."""

    job: Job
    member: Member
    upstream_id: str
    traits: Traits
    used_s: float
    since_s: float


class Unheeded:
    """`note` instead of telling the line that the job has ended; `look` again and again, `book` now and then."""

    def __init__(self, pool: Pool, turns: Turns, store: JobStore, harms: Harms) -> None:
        self._pool = pool
        self._turns = turns
        self._store = store
        self._harms = harms
        self._going: dict[int, _Going] = {}
        self._due: dict[int, int] = {}
        """Milliseconds by job that go beyond what the ledger says."""
        self._totals: dict[int, int] = {}
        """What it is to say: sums, as an answer that was lost may have been a yes."""

    def note(self, job: Job, member: Member, upstream_id: str, traits: Traits, used_s: float) -> None:
        """The backend has that prompt of an ended job still, among its leftovers."""
        if member.health is Health.QUARANTINED:  # the ladder has held it against the workflow already
            self._turns.ended(job.key, used_s)
            return
        member.lingering = job.key
        self._going[job.key] = _Going(job, member, upstream_id, traits, used_s, monotonic_s())

    def look(self) -> None:
        """Free the users whose backends have let go, are gone, or get no jobs any more for not letting go."""
        for seq, going in list(self._going.items()):
            member, quarantined = going.member, going.member.health is Health.QUARANTINED
            gone = member.gone.is_set() or self._pool.member(member.key) is not member
            if going.upstream_id in member.leftovers and not gone and not quarantined:
                continue
            del self._going[seq]
            member.lingering = None
            more_s = monotonic_s() - going.since_s
            if quarantined:
                self._harms.note(going.job.user_id, going.traits, broke=True)
            log.info("backend let go of an ended job", job=going.job.prompt_id, backend=member.row.name, after_s=more_s)
            self._turns.ended(seq, going.used_s + more_s)
            self._due[seq] = round(1000 * more_s)

    async def book(self) -> None:
        """Enter it in the ledger. Raises Unavailable; nothing is lost then, and nothing entered twice."""
        if self._due:
            booked = await self._store.booked(due := list(self._due))
            more = {seq: self._due.pop(seq) for seq in due}
            self._totals |= {seq: gpu_ms + more[seq] for seq, gpu_ms in booked.items()}
        if self._totals:
            await self._store.rebook(self._totals)
            self._totals = {}
