"""Gives waiting jobs to idle backends.

A bell wakes it, a poll decides: nothing depends on the bell being heard. Each poll first takes up every job that is on
a backend without a runner. `turns` knows who is next, `carrier` carries what was placed.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend_pool.backends.health import ANSWERING, Health
from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.books.shares import Shares
from backend_pool.comfy.verdicts import interrupted
from backend_pool.dispatch.carrier import Carrier
from backend_pool.dispatch.foresight import Foresight
from backend_pool.dispatch.gap import Gaps
from backend_pool.dispatch.matching import Matching
from backend_pool.dispatch.queue_mirror import QueueMirror
from backend_pool.dispatch.sleepers import Sleepers
from backend_pool.dispatch.turns import Turns
from backend_pool.forecasts.outlooks import Outlooks
from backend_pool.job_state import JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.listener import JobListener
from backend_pool.jobs.record import JobRecord
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from proxy.base.bell import rung
from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)
often = Repeated(log)

PRUNE_FROM = 100
"""Users whose history is pruned at once; fewer wait until nothing else is to do."""


@dataclass(kw_only=True)
class Dispatcher:
    """The loop over queue, turns and backends; `assembly` makes one with its parts."""

    store: JobStore
    pool: Pool
    tasks: Tasks
    listener: JobListener
    settings: Settings
    shares: Shares
    matching: Matching
    mirror: QueueMirror
    turns: Turns
    carrier: Carrier
    foresight: Foresight
    outlooks: Outlooks
    gaps: Gaps
    bell: asyncio.Event
    ring: Callable[[], None]
    """A job or a backend has become free."""
    held: set[tuple[int, str]]
    """User and prompt id of jobs that must not start yet."""
    _sleepers: Sleepers = field(default_factory=Sleepers)
    _new_shares: bool = False
    _busy: set[int] = field(default_factory=set)
    _met: dict[int, Member] = field(default_factory=dict)
    """Backends whose jobs have runners: one that has just answered may have some of an earlier process, and gets no
    other before these were taken up."""

    def shares_changed(self) -> None:
        """Somebody may use more or less than before."""
        self._new_shares = True
        self.ring()

    @contextlib.contextmanager
    def hold(self, user_id: int, prompt_id: str) -> Iterator[None]:
        """Keep a job from starting until its submitter has been answered (client demands B8)."""
        self.held.add((user_id, prompt_id))
        try:
            yield
        finally:
            self.held.discard((user_id, prompt_id))
            self.mirror.touch(user_id)
            self.ring()

    def keep_secrets(self, seq: int, secrets: Mapping[str, Any]) -> None:
        """API tokens of a job, in memory only: they are never stored, so a restart forgets them."""
        if secrets:
            self.carrier.keep_secrets(seq, secrets)

    def cancel(self, jobs: list[Job]) -> None:
        """Pass the flag on to the runners of these jobs; tell tabs that saw an earlier attempt begin."""
        for job in jobs:
            self.carrier.cancel(job.key)
            self.mirror.touch(job.user_id)
            if job.state is JobState.CANCELLED:
                self.turns.gone(job.key)
                self.carrier.forget(job.key)
                if job.attempt:
                    record = JobRecord(job, self.store, self.listener)
                    record.tell(interrupted(job.prompt_id))
                    record.tell_end()
        self.ring()

    def busy_users(self) -> set[int]:
        """Users with a job on a backend or waiting for one, as of at most `job_poll_s` ago."""
        return self._busy

    def reason(self, seq: int) -> str | None:
        """Why a waiting job waits, in plain words, as of at most `job_poll_s` ago; None when it is not its turn."""
        return self.matching.reason(seq)

    async def recover(self) -> None:
        """Take up jobs that are on a backend and have no runner: after a restart, or when a runner died."""
        carried = set(self.carrier.carried)  # what ends while the rows are read is in them still, and needs nobody
        answered = {key: member for key, member in self.pool.members.items() if member.health is not Health.JOINING}
        jobs = await self.store.on_backends() if self.pool.listed else []
        latest = {job.backend_id: job.key for job in sorted(jobs, key=lambda job: job.assigned_ms or 0)}
        for job in jobs:
            if job.key not in carried and job.key not in self.carrier.carried:
                beside = job.state is JobState.RUNNING and latest[job.backend_id] != job.key
                await self._take_up(job, beside=beside)
        self._met = answered

    async def _take_up(self, job: Job, *, beside: bool) -> None:
        """`beside`: its backend got another after it, and so had ended this one."""
        member = self.pool.member(job.backend_id)
        if self.carrier.died_too_often(job):
            why = "The job could not be carried out: an internal error, which the log describes."
            await self.carrier.fail(job, why)
        elif member is None or job.upstream_id is None:
            with contextlib.suppress(Fenced):
                await self.store.requeue(job, "its backend is not registered any more")
            self.turns.returned(job.key)
            self.mirror.touch(job.user_id)
        elif member.health is Health.JOINING and not member.gone.is_set():  # not probed yet
            self.turns.resumed(job, member.key)
        elif member.job is None or beside or job.state is JobState.COLLECTING:
            self.turns.resumed(job, member.key)
            self.carrier.resume(job, member, beside=beside)

    async def watch(self) -> None:
        """Place jobs, for ever."""
        quiet, look_again = False, 0.0
        while True:
            try:
                look = monotonic_s() >= look_again or any(self._is_new(member) for member in self._idle())
                if look:
                    await self._look()
                    look_again = monotonic_s() + self.settings.job_poll_s
                self.gaps.look()
                self._place()  # a backend that has become free waits for nothing that is to be read
                await self.turns.sync()
                self._place()
                self.foresight.look()
                if look:
                    self._explain()
                if self.turns.behind or self.mirror.stale:
                    self.bell.set()
                elif quiet or len(self.carrier.to_prune) > PRUNE_FROM:
                    await self._prune()
            except ClusterError as error:
                often.error("jobs could not be placed", error=error.message)
            except Exception as error:  # one bad job must not end placing for everybody
                often.error("jobs could not be placed", exc_info=error)
            quiet = not await rung(self.bell, self.settings.job_poll_s)

    async def _look(self) -> None:
        """What the bell may have missed."""
        self._busy = await self.store.users_with_jobs()
        await self.turns.begin(self._busy)
        await self.recover()
        self._clear_backends()
        self.carrier.unheeded.look()
        await self.carrier.unheeded.book()
        await self.mirror.count()
        await self.turns.store()

    def _place(self) -> None:
        if self._new_shares:
            self._new_shares = False
            self.turns.know(list(self.mirror.users))
        idle = {member.key: member for member in self._idle() if not self._is_new(member)}
        spots = {key: self.turns.spot(member) for key, member in idle.items()}
        while spots and (choice := self.turns.next(spots.values())) is not None:
            job = self.turns.started(choice)
            if job is None:
                continue
            warm = self.turns.placed[job.key].kind.models & spots.pop(choice.spot).warm
            self.gaps.placed(choice, job.lane, (now_ms() - job.created_ms) / 1000, len(warm))
            self.carrier.place(job, idle.pop(choice.spot))
        self.gaps.rightly_idle(idle)
        if idle:
            self.turns.look_deeper()
        members = self.pool.members.values()
        self._sleepers.note_wanted(members, self.turns)
        self.carrier.prestaging.look_ahead(members, self.turns)

    def _idle(self) -> list[Member]:
        return [member for member in self.pool.members.values() if member.idle]

    def _is_new(self, member: Member) -> bool:
        return self._met.get(member.key) is not member

    def _explain(self) -> None:
        heads = self.turns.heads()
        self.matching.explain([(job, self.shares.share(job.user_id)) for job in heads])
        for job in heads:
            blocked = self.shares.blocked(job.user_id)
            if blocked is not None:
                self.matching.note(job.key, blocked)

    async def _prune(self) -> None:
        while self.carrier.to_prune:
            await self.store.prune(self.carrier.to_prune.pop())

    def _clear_backends(self) -> None:
        for member in self.pool.members.values():
            if member.leftovers and member.health in ANSWERING and not member.leftovers.clearing:
                self.tasks.start(f"clear {member.row.name}", self._clear(member))

    async def _clear(self, member: Member) -> None:
        member.leftovers.clearing = True
        try:
            await member.leftovers.clear()
        finally:
            member.leftovers.clearing = False
            self.carrier.unheeded.look()
            self.ring()
