"""Keeps one runner per job alive, from its placement until its files are home.

A backend is free for its next job once it has ended one; files come home beside it. Tells `turns` what became of jobs.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from backend_pool.backends.member import Member
from backend_pool.backends.pool import Pool
from backend_pool.backends.warmth import room_mb
from backend_pool.books.shares import Shares
from backend_pool.comfy.result import Result, as_history
from backend_pool.comfy.verdicts import failed
from backend_pool.dispatch.gap import Gaps
from backend_pool.dispatch.matching import Matching
from backend_pool.dispatch.prestaging import Prestaging
from backend_pool.dispatch.ride import Ride
from backend_pool.dispatch.turns import Turns
from backend_pool.dispatch.unheeded import Unheeded
from backend_pool.errors import BackendError
from backend_pool.files.known_files import KnownFiles
from backend_pool.files.owner import Owner
from backend_pool.forecasts.timings import Timings
from backend_pool.job_state import FINAL, JobState
from backend_pool.jobs.held import Fenced
from backend_pool.jobs.listener import JobListener
from backend_pool.jobs.record import JobRecord
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from backend_pool.runs.harms import BARRED, Harms
from backend_pool.runs.ladder import KILLER
from backend_pool.runs.runner import Runner
from proxy.base.clock import monotonic_s
from proxy.base.errors import NotFound, Unavailable
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)
often = Repeated(log)

OwnerOf = Callable[[int, Mapping[str, Any]], Awaitable[Owner]]
"""(user_id, secrets of the job) -> the user's directories and tag."""

TIDY_TIMEOUT_S = 10.0


@dataclass(kw_only=True)
class Carrier:
    """The one writer of `Member.job` and `Member.collecting`."""

    store: JobStore
    pool: Pool
    tasks: Tasks
    listener: JobListener
    owner_of: OwnerOf
    settings: Settings
    matching: Matching
    turns: Turns
    shares: Shares
    timings: Timings
    gaps: Gaps
    ring: Callable[[], None]
    known: KnownFiles = field(default_factory=KnownFiles)
    harms: Harms = field(default_factory=Harms)
    unheeded: Unheeded = field(init=False)
    prestaging: Prestaging = field(init=False)
    carried: dict[int, Ride]
    """Jobs that have a runner, or are about to."""
    to_prune: set[int] = field(default_factory=set)
    """Users whose history has grown."""
    _secrets: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _deaths: dict[int, int] = field(default_factory=dict)
    """How many runners of a job have died."""

    def __post_init__(self) -> None:
        self.unheeded = Unheeded(self.pool, self.turns, self.store, self.harms)
        self.prestaging = Prestaging(self.store, self.tasks, self.owner, self.known, self.settings)

    async def owner(self, user_id: int, seq: int) -> Owner:
        """The user's directories, with what is kept of the job's tokens."""
        return await self.owner_of(user_id, self._secrets.get(seq, {}))

    def keep_secrets(self, seq: int, secrets: Mapping[str, Any]) -> None:
        """API tokens of a job, in memory only."""
        self._secrets[seq] = secrets

    def cancel(self, seq: int) -> None:
        """Its user wants it to end."""
        ride = self.carried.get(seq)
        if ride is not None:
            ride.cancelled = True
            if ride.runner is not None:
                ride.runner.cancel()

    def place(self, job: Job, member: Member) -> None:
        """Assign a waiting job to an idle backend and carry it there."""
        ride = Ride(job, member, could_ms=self.gaps.taken(member.key))
        self._begin(ride)
        self.tasks.start(f"job {job.key}", self._assign(ride))

    def resume(self, job: Job, member: Member, *, beside: bool) -> None:
        """Carry on with a job that is on this backend; `beside` one that came there after it."""
        log.info("job taken up again", job=job.prompt_id, backend=member.row.name, state=job.state)
        ride = Ride(job, member)
        self._begin(ride, beside=beside)
        self.tasks.start(f"job {job.key}", self._run(ride, resume=True))

    async def fail(self, job: Job, why: str, kind: str = "JobFailed") -> None:
        """End a job that cannot be carried."""
        message = failed(job.prompt_id, kind, why)
        with contextlib.suppress(Fenced):
            record = JobRecord(job, self.store, self.listener)
            await record.finish(JobState.FAILED, Result(messages=[as_history(message)]), why, message)
        self.turns.ended(job.key, 0.0)
        self.forget(job.key)

    def forget(self, seq: int) -> None:
        """The job is over."""
        self._secrets.pop(seq, None)
        self._deaths.pop(seq, None)
        self.matching.forget(seq)

    def died_too_often(self, job: Job) -> bool:
        """Whether its runners keep dying."""
        return self._deaths.get(job.key, 0) >= self.settings.job_attempts

    def _begin(self, ride: Ride, *, beside: bool = False) -> None:
        job, member = ride.job, ride.member
        if beside or job.state is JobState.COLLECTING:
            member.collecting.add(job.key)
            self._bring(ride)
        else:
            member.begin(job.key)
            if member.warmth.known:
                ride.cold = self.matching.traits(job.key).models - member.warmth.models
        self.carried[job.key] = ride
        self.matching.placed(job.key)

    def _let_go(self, ride: Ride) -> None:
        ride.member.release(ride.job.key, collecting=False)
        del self.carried[ride.job.key]

    async def _assign(self, ride: Ride) -> None:
        job, member = ride.job, ride.member
        try:
            held = await self.store.assign(job.key, member.key)
        except BaseException as error:
            self._let_go(ride)
            self.turns.returned(job.key)
            if not isinstance(error, Unavailable):
                raise
            often.error("job not placed", job=job.prompt_id, error=error.message)
            return
        if held is None:  # cancelled or removed meanwhile
            self._let_go(ride)
            self.turns.ended(job.key, 0.0)
            self.ring()
            return
        log.info("job placed", job=job.prompt_id, user=job.user_id, backend=member.row.name, attempt=held.attempt)
        ride.job = held
        await self.prestaging.finished(member, job.key)
        await self._run(ride, resume=False)

    async def _run(self, ride: Ride, *, resume: bool) -> None:
        job = ride.job
        try:
            await self._carry(ride, resume=resume)
            self._deaths.pop(job.key, None)
            self.ring()  # only here: what failed is tried again at the next poll, not at once
        except Fenced:
            log.info("job removed before it ran", job=job.prompt_id)
            self.turns.ended(job.key, 0.0)
        except NotFound as error:  # its user's account is gone
            await self.fail(job, error.message)
        except Unavailable as error:  # the database or the user's directories
            often.error("job not carried", job=job.prompt_id, error=error.message)
        except Exception as error:
            self._deaths[job.key] = self._deaths.get(job.key, 0) + 1
            log.error("runner died", job=job.prompt_id, deaths=self._deaths[job.key], exc_info=error)
        finally:
            self._let_go(ride)
            ride.member.done += 1
            self.tasks.start(f"tidy {job.key}", self._tidy(ride.member, ride.runner))

    async def _carry(self, ride: Ride, *, resume: bool) -> None:
        job, member = ride.job, ride.member
        document = await self.store.document(job.key)
        traits = self.matching.traits(job.key)
        if not resume and self.harms.barred(job.user_id, traits):
            await self.fail(job, BARRED, KILLER)
            self.to_prune.add(job.user_id)
            return
        runner = Runner(
            job,
            document,
            member=member,
            owner=await self.owner(job.user_id, job.key),
            store=self.store,
            listener=self.listener,
            known=self.known,
            pool=self.pool,
            share=self.shares.share(job.user_id),
            harms=self.harms,
            traits=traits,
            elsewhere=partial(self.matching.elsewhere, member),
            settings=self.settings,
            rendered=lambda: self._rendered(ride, runner),
        )
        ride.runner = runner
        if ride.cancelled:
            runner.cancel()
        state = await runner.run(resume=resume)
        member.failed = member.failed + 1 if runner.lost else 0
        if runner.lost:
            member.warmth.forget()
            self.pool.doubt(member, "it lost a job")
        if runner.upstream.may_run and not runner.taken:
            member.leftovers.add(runner.upstream.prompt_id)
        self._ended(ride, runner, state)

    def _rendered(self, ride: Ride, runner: Runner) -> None:
        """The backend may have its next job; this one's files come home meanwhile."""
        job, member = ride.job, ride.member
        traits = self.matching.traits(job.key)
        member.warmth.ran(job.user_id, traits.graph, traits.models, room_mb(member.stats, member.vram_mb))
        if ride.could_ms is not None and runner.began_ms is not None:
            self.gaps.began(ride.could_ms, runner.began_ms)
        ride.could_ms = None
        self.store.charged(job, round(runner.used_s * 1000))
        price_s = self._price_s(ride, runner)
        self.turns.rendered(job.key, price_s)  # its user's next job waits: tabs hear of one after the other
        if member.job == job.key and member.runs_beside:
            member.release(job.key, collecting=True)
            self._bring(ride)
            self.gaps.released(member.key)
            self.ring()

    def _bring(self, ride: Ride) -> None:
        if ride.member.worker is not None:
            self.turns.bring(ride.job.key, ride.member.key)

    def _price_s(self, ride: Ride, runner: Runner) -> float:
        """What turns charge, as far as is known. By it nobody has a backend cheaply who keeps it with anything but
        rendering: large inputs, or jobs that are cancelled before they begin."""
        member = ride.member
        if member.job == ride.job.key and member.busy_since_s is not None:
            ride.kept_s = monotonic_s() - member.busy_since_s - runner.delay_s
        return runner.price_s(ride.kept_s)

    def _ended(self, ride: Ride, runner: Runner, state: JobState) -> None:
        job, member, traits = ride.job, ride.member, self.matching.traits(ride.job.key)
        price_s = self._price_s(ride, runner)
        if state is JobState.QUEUED:
            self.turns.returned(job.key, price_s)
        elif state in FINAL and runner.upstream.may_run:
            self.unheeded.note(job, member, runner.upstream.prompt_id, traits, price_s)
        else:
            self.turns.ended(job.key, price_s)
        if member.job == job.key:
            self.gaps.released(member.key)
        if state is JobState.SUCCEEDED:
            self.harms.succeeded(job.user_id, traits)
            self.timings.learn(traits, member.device, runner.meter, ride.cold)
        if state in FINAL:
            self.forget(job.key)
            self.to_prune.add(job.user_id)

    async def _tidy(self, member: Member, runner: Runner | None) -> None:
        """Leave nothing of an ended attempt at the backend; nobody waits for this."""
        removed = self.pool.member(member.key) is not member
        with contextlib.suppress(BackendError, TimeoutError):
            async with asyncio.timeout(TIDY_TIMEOUT_S):
                if runner is not None and runner.upstream.ended:
                    await runner.forget()
                elif runner is not None and removed:
                    await member.leftovers.end(runner.upstream.prompt_id)
                if not removed:
                    await member.warmth.measure(member.client)
        if removed and not member.busy:
            await member.client.close()
