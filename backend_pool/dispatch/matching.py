"""Which backends can run a waiting job, and in words why none does.

Reads the pool and the jobs' prompts, keeps what it learns in memory only, and leaves what to do to the dispatcher.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend_pool.backends.fit import fits
from backend_pool.backends.health import AWAY, Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.backends.waking import is_waking
from backend_pool.books.share import Share
from backend_pool.errors import BackendRefused
from backend_pool.forecasts.outlook import UNREADY, WAKING
from backend_pool.forecasts.signature import Traits, traits
from backend_pool.jobs.store import JobStore
from backend_pool.model import BackendMode, Job, JobDocument
from backend_pool.offers.fitness import Demands, demands, lacking
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.placement.values import Kind
from backend_pool.prompts.files_named import names_files
from backend_pool.prompts.needs import Needs, lacks, refused_needs
from proxy.base.logs import events

log = events(__name__)

NEEDS_KEPT = 20_000
KINDS_KEPT = 10_000
NAMED = 3
"""Backends that a reason names; of more it gives the number."""
BUSY = "all backends that can run it are busy"
PASSING = (BUSY, WAKING, UNREADY)
"""What its turn will mend: its outlook tells more."""


@dataclass(frozen=True)
class Known:
    """What a prompt asks for, as read in one state of the pool, and what is learned by."""

    state: tuple[int, bool]
    asked: Demands
    alike: Hashable
    """The same for all that ask for the same."""
    traits: Traits
    sends: bool
    """Whether it may name files of its user, which its backend has to get."""


class Matching:
    """What jobs need, read once per job and state of the pool; at most NEEDS_KEPT are kept, the oldest goes."""

    def __init__(self, store: JobStore, pool: Pool) -> None:
        self._store = store
        self._pool = pool
        self._known: OrderedDict[int, Known] = OrderedDict()
        self._places: dict[Any, frozenset[int]] = {}
        self._state = (0, False)
        self._facts: tuple[Any, ...] = ()
        self._reasons: dict[int, str] = {}
        self._told: set[int] = set()

    def look(self) -> bool:
        """Look at the pool: whether some job may run elsewhere now, or need other things."""
        members = self._pool.members.values()
        facts = tuple(
            (m.key, m.row.mode, tuple(m.row.labels), m.vram_mb, m.reads_user_models, m.health in AWAY) for m in members
        )
        # Until each backend has had its chance to answer, a model that none lists may be the next one's.
        settled = all(member.health is not Health.JOINING or member.info for member in members)
        state = (self._pool.generation, settled)
        changed = (state, facts) != (self._state, self._facts)
        if changed or len(self._places) > KINDS_KEPT:
            self._places = {}
        self._state, self._facts = state, facts
        return changed

    def read(self, seq: int) -> bool:
        """Whether it is known what the job needs of the pool as it is now."""
        known = self._known.get(seq)
        return known is not None and known.state == self._state

    async def learn(self, seqs: Sequence[int]) -> set[int]:
        """Read what these jobs need; returns those that are gone. Raises Unavailable."""
        state, info = self._state, self._pool.info
        documents = await self._store.queue.documents(seqs)
        found = await asyncio.to_thread(_read_all, list(documents.values()), info, state)
        for seq, known in found.items():
            self._known[seq] = known
        while len(self._known) > NEEDS_KEPT:
            self._known.popitem(last=False)
        return set(seqs) - documents.keys()

    def alike(self, seq: int) -> Hashable:
        """The same for all jobs that ask for the same of a backend; None when the prompt has not been read."""
        known = self._known.get(seq)
        return None if known is None else known.alike

    def traits(self, seq: int) -> Traits:
        """What the job's run time is learned by; empty when its prompt has not been read."""
        known = self._known.get(seq)
        return Traits() if known is None else known.traits

    def sends(self, seq: int) -> bool:
        """Whether the job may have files to send to its backend."""
        known = self._known.get(seq)
        return known is not None and known.sends

    def kind(self, job: Job, share: Share, left: frozenset[int] = frozenset()) -> Kind:
        """Where a job that has been read can run, and what it has to load. `left` is not to be used for now."""
        known = self._known[job.key]
        labels = frozenset(job.labels) | share.labels
        asked = known.asked
        key = (known.alike, labels, job.vram_mb)
        places = self._places.get(key)
        if places is None:
            members = self._pool.members.values()
            places = frozenset(m.key for m in members if fits(asked, m, labels, job.vram_mb))
            self._places[key] = places
        return Kind(places - left, known.traits.models, places & left)

    def harmed(self, job: Job, share: Share) -> frozenset[int]:
        """Places of a job that it was lost with, if another one answers."""
        if not job.avoid:
            return frozenset()
        places, avoid = self.kind(job, share).places, frozenset(job.avoid)
        answers = any(m.key in places - avoid and m.health not in AWAY for m in self._pool.members.values())
        return places & avoid if answers else frozenset()

    def elsewhere(self, member: Member, refused: BackendRefused, prompt: Mapping[str, Any]) -> bool:
        """Whether a backend refused a prompt only for what another one offers: its node list was out of date."""
        wanted = refused_needs(refused.body, prompt)
        others = [other for other in self._pool.members.values() if other is not member and other.info]
        return wanted is not None and any(lacks(wanted, other.info) is None for other in others)

    def why_not(self, job: Job, share: Share) -> str:
        """Why the job can run nowhere at the moment, in words; empty when it can, or has not been read."""
        known = self._known.get(job.key)
        if known is None:
            return ""
        reason = why(known.asked, self._pool.members.values(), frozenset(job.labels) | share.labels, job.vram_mb)
        return "" if reason in PASSING else reason

    def scarce(self, job: Job, share: Share, others: Iterable[Member]) -> str:
        """What the job needs that these backends lack, in words; empty when nothing can be named."""
        known = self._known.get(job.key)
        if known is None:
            return ""
        labels = frozenset(job.labels) | share.labels
        for member in others:
            missing = sorted(labels - set(member.row.labels))
            if missing:
                return f"the label {missing[0]}"
            if 0 < member.vram_mb <= job.vram_mb:
                return f"more than {job.vram_mb / 1024:.1f} GB of GPU memory"
            lack = lacking(known.asked, member.provider)
            if lack is not None:
                return lack
        return ""

    def explain(self, waiting: Iterable[tuple[Job, Share]]) -> None:
        """Note why each of these jobs, their users' first ones, waits; logged once if for more than its turn."""
        reasons: dict[int, str] = {}
        words: dict[Hashable, str] = {}
        members = self._pool.members.values()
        for job, share in waiting:
            seq = job.key
            known = self._known.get(seq)
            if known is None:
                continue
            labels = frozenset(job.labels) | share.labels
            alike = (known.alike, labels, job.vram_mb)
            if alike not in words:
                words[alike] = why(known.asked, members, labels, job.vram_mb)
            reason = reasons[seq] = words[alike]
            if reason not in PASSING and seq not in self._told:
                self._told.add(seq)
                log.warning("job waits", job=job.prompt_id, user=job.user_id, why=reason)
        self._reasons = reasons
        if len(self._told) > NEEDS_KEPT:
            self._told.clear()

    def reason(self, seq: int) -> str | None:
        """Why the job waits, in plain words; None for one that is not the next of its user."""
        return self._reasons.get(seq)

    def note(self, seq: int, reason: str) -> None:
        """A reason of somebody else's."""
        self._reasons[seq] = reason

    def placed(self, seq: int) -> None:
        """The job waits no more."""
        self._reasons.pop(seq, None)

    def forget(self, seq: int) -> None:
        """The job is over."""
        self._known.pop(seq, None)
        self._reasons.pop(seq, None)


def _read_all(documents: list[JobDocument], info: PoolInfo, state: tuple[int, bool]) -> dict[int, Known]:
    found: dict[int, Known] = {}
    alike: dict[Needs, Needs] = {}
    for document in documents:
        try:
            asked = demands(document.prompt, document.targets, info, settled=state[1])
        except Exception as error:  # an odd prompt must not hold up everybody's; a backend will say what is wrong
            log.error("what a job needs could not be read", seq=document.seq, exc_info=error)
            asked = Demands(Needs(frozenset(), frozenset()))
        shared = alike.setdefault(asked.needs, asked.needs)
        asked = Demands(shared, asked.unfit, asked.own_models)
        chosen = shared.choices.union(asked.own_models) if asked.own_models else shared.choices
        read = traits(document.prompt, document.targets, chosen)
        key = (asked.needs, frozenset(asked.unfit.items()), asked.own_models)
        found[document.seq] = Known(state, asked, key, read, names_files(document.prompt))
    return found


def why(asked: Demands, members: Collection[Member], labels: frozenset[str] = frozenset(), vram_mb: int = 0) -> str:
    """What has to change before a job with these demands can run. Pure."""
    whose = ""
    if members and (labels or vram_mb):
        fit = [m for m in members if labels <= set(m.row.labels) and not 0 < m.vram_mb <= vram_mb]
        if not fit:
            return f"waiting for a backend with {_marks(labels, vram_mb)}"
        if len(fit) < len(members):
            whose = f" with {_marks(labels, vram_mb)}"
        members = fit
    active = [member for member in members if member.row.mode is BackendMode.ACTIVE]
    ready = [member for member in active if member.health is Health.UP and member.info]
    missing = [lacking(asked, member.provider) for member in ready]
    if None in missing:
        return BUSY
    able = [member for member in active if member.info and lacking(asked, member.provider) is None]
    if any(is_waking(member) for member in able):
        return WAKING
    if any(member.health is Health.ASLEEP for member in able):
        return UNREADY
    if not ready:
        return _nobody(members, active, whose)
    away = [member for member in members if member.info and lacking(asked, member.provider) is None]
    wanted = dict.fromkeys(filter(None, missing))
    if not away and len(wanted) > 1:
        each = [f"{member.row.name} lacks {what}" for member, what in zip(ready, missing, strict=True)]
        return f"no single backend has all it needs: {'; '.join(each[:NAMED])}"
    text = f"waiting for a backend with {min(wanted)}"
    return f"{text}; {_having(away)}" if away else text


def _marks(labels: frozenset[str], vram_mb: int) -> str:
    wanted = [f"the label {label}" for label in sorted(labels)]
    wanted += [f"more than {vram_mb / 1024:.1f} GB of GPU memory"] if vram_mb else []
    return " and ".join(wanted)


def _nobody(members: Collection[Member], active: Collection[Member], whose: str) -> str:
    """Of the backends that the job may have; `whose` tells them from others."""
    if not members:
        return "there is no backend"
    if not active:
        return f"all backends{whose} are disabled or draining"
    if all(member.health is Health.DOWN for member in active):
        return f"all backends{whose} are down" + ("" if len(active) == len(members) else ", disabled or draining")
    if all(member.health is Health.QUARANTINED for member in active):
        return f"all backends{whose} are out of service after faults; they get jobs again once a trial job runs there"
    if all(member.health in (Health.DOWN, Health.QUARANTINED) for member in active):
        return f"all backends{whose} are down or out of service"
    return f"no backend{whose} answers at the moment"


def _having(away: Collection[Member]) -> str:
    """`gpu-1 (down) and gpu-2 (draining) have it`."""
    named = [f"{member.row.name} ({_state(member)})" for member in away]
    if len(named) > NAMED:
        return f"{len(named)} that are down or get no jobs have it"
    return f"{' and '.join(named)} {'has' if len(named) == 1 else 'have'} it"


def _state(member: Member) -> str:
    return member.row.mode.value if member.row.mode is not BackendMode.ACTIVE else str(member.health)
