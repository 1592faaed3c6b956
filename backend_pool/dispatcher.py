"""Gives waiting jobs to idle backends and keeps one runner per job alive.

A bell wakes it, a poll decides: nothing depends on the bell being heard. Each round first takes up every job that is on
a backend without a runner, before anything new is placed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from backend_pool.errors import BackendError
from backend_pool.health import Health
from backend_pool.job_record import JobRecord
from backend_pool.job_state import FINAL, JobState
from backend_pool.job_store import Fenced, JobStore, Result
from backend_pool.known_files import KnownFiles
from backend_pool.listener import JobListener
from backend_pool.matching import Matching
from backend_pool.model import Job, JobDocument
from backend_pool.owner import Owner
from backend_pool.placement.heads import Waiting, order
from backend_pool.pool import Member, Pool
from backend_pool.runner import Runner
from backend_pool.verdicts import as_history, failed, interrupted
from proxy.base.bell import rung
from proxy.base.clock import monotonic_s
from proxy.base.errors import ClusterError, NotFound, Unavailable
from proxy.base.logs import events
from proxy.base.settings import Settings
from proxy.base.tasks import Tasks

log = events(__name__)

OwnerOf = Callable[[int, Mapping[str, Any]], Awaitable[Owner]]
"""(user_id, secrets of the job) -> the user's directories and tag."""

TIDY_TIMEOUT_S = 10.0
PRUNE_FROM = 100
"""Users whose history is pruned at once; fewer wait until nothing else is to do."""


class Dispatcher:
    """The one writer of `Member.job`."""

    def __init__(
        self,
        *,
        store: JobStore,
        pool: Pool,
        tasks: Tasks,
        listener: JobListener,
        owner_of: OwnerOf,
        settings: Settings,
    ) -> None:
        self._store = store
        self._pool = pool
        self._tasks = tasks
        self._listener = listener
        self._owner_of = owner_of
        self._settings = settings
        self._known = KnownFiles()
        self._bell = asyncio.Event()
        self._carried: set[int] = set()
        self._cancelled: set[int] = set()
        self._runners: dict[int, Runner] = {}
        self._held: set[tuple[int, str]] = set()
        self._secrets: dict[int, Mapping[str, Any]] = {}
        self._matching = Matching(store, pool)
        self._served: dict[int, int] = {}
        self._busy: set[int] = set()
        self._to_prune: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._placements = 0

    def ring(self) -> None:
        """A job or a backend has become free."""
        self._bell.set()

    @contextlib.contextmanager
    def hold(self, user_id: int, prompt_id: str) -> Iterator[None]:
        """Keep a job from starting until its submitter has been answered (client demands B8)."""
        self._held.add((user_id, prompt_id))
        try:
            yield
        finally:
            self._held.discard((user_id, prompt_id))
            self.ring()

    def keep_secrets(self, seq: int, secrets: Mapping[str, Any]) -> None:
        """API tokens of a job, in memory only: they are never stored, so a restart forgets them."""
        if secrets:
            self._secrets[seq] = secrets

    def cancel(self, jobs: list[Job]) -> None:
        """Pass the flag on to the runners of these jobs; tell tabs that saw an earlier attempt begin."""
        for job in jobs:
            runner = self._runners.get(job.key)
            if runner is not None:
                runner.cancel()
            elif job.key in self._carried:  # its runner is being made
                self._cancelled.add(job.key)
            if job.state is JobState.CANCELLED:
                self._forget(job)
                if job.attempt:
                    record = JobRecord(job, self._store, self._listener)
                    record.tell(interrupted(job.prompt_id))
                    record.tell_end()
        self.ring()

    def busy_users(self) -> set[int]:
        """Users with a job on a backend or waiting for one, as of at most `job_poll_s` ago."""
        return self._busy

    def reason(self, seq: int) -> str | None:
        """Why a waiting job waits, in plain words, as of at most `job_poll_s` ago; None when it is not its turn."""
        return self._matching.reason(seq)

    async def recover(self) -> None:
        """Take up jobs that are on a backend and have no runner: after a restart, or when a runner died."""
        carried = set(self._carried)  # what ends while the rows are read is in them still, and needs nobody
        for job in await self._store.on_backends() if self._pool.listed else ():
            if job.key in carried or job.key in self._carried:
                continue
            member = self._pool.member(job.backend_id)
            if self._deaths.get(job.key, 0) >= self._settings.job_attempts:
                await self._fail(job, "The job could not be carried out: an internal error, which the log describes.")
            elif member is None or job.upstream_id is None:
                with contextlib.suppress(Fenced):
                    await self._store.requeue(job, "its backend is not registered any more")
            elif member.job is None and (member.health is not Health.JOINING or member.gone.is_set()):  # not probed yet
                log.info("job taken up again", job=job.prompt_id, backend=member.row.name, state=job.state)
                self._start(job, member, None, resume=True)

    async def watch(self) -> None:
        """Place jobs, for ever."""
        quiet, look_again = False, 0.0
        while True:
            try:
                look = monotonic_s() >= look_again
                if look:
                    await self.recover()
                    self._clear_backends()
                    self._busy = await self._store.users_with_jobs()
                    look_again = monotonic_s() + self._settings.job_poll_s
                await self._place(explain=look)
                if quiet or len(self._to_prune) > PRUNE_FROM:
                    await self._prune()
            except ClusterError as error:
                log.error("jobs could not be placed", error=error.message)
            except Exception as error:  # one bad job must not end placing for everybody
                log.error("jobs could not be placed", exc_info=error)
            quiet = not await rung(self._bell, self._settings.job_poll_s)

    async def _place(self, *, explain: bool) -> None:
        idle = [member for member in self._pool.members.values() if member.idle]
        if not idle and not explain:
            return
        heads = {job.key: job for job in await self._store.heads() if (job.user_id, job.prompt_id) not in self._held}
        for head in order((Waiting(job.key, job.user_id, job.number) for job in heads.values()), self._served):
            if not idle:
                break
            try:
                member, document = await self._matching.choose(heads[head.seq], idle)
                job = await self._store.assign(head.seq, member.key) if member is not None else None
            except Fenced:  # removed meanwhile
                continue
            if member is None or job is None:
                continue
            idle.remove(member)
            self._placements += 1
            self._served[job.user_id] = self._placements
            log.info("job placed", job=job.prompt_id, user=job.user_id, backend=member.row.name, attempt=job.attempt)
            self._start(job, member, document)
        if explain:
            await self._matching.explain(job for job in heads.values() if job.key not in self._carried)

    async def _prune(self) -> None:
        while self._to_prune:
            await self._store.prune(self._to_prune.pop())

    def _clear_backends(self) -> None:
        for member in self._pool.members.values():
            if member.leftovers and member.health is Health.UP and not member.leftovers.clearing:
                self._tasks.start(f"clear {member.row.name}", self._clear(member))

    async def _clear(self, member: Member) -> None:
        member.leftovers.clearing = True
        try:
            await member.leftovers.clear()
        finally:
            member.leftovers.clearing = False
            self.ring()

    def _start(self, job: Job, member: Member, document: JobDocument | None, *, resume: bool = False) -> None:
        member.job = job.key
        self._carried.add(job.key)
        self._matching.forget(job.key)
        self._tasks.start(f"job {job.key}", self._run(job, member, document, resume=resume))

    async def _run(self, job: Job, member: Member, document: JobDocument | None, *, resume: bool) -> None:
        try:
            await self._carry(job, member, document or await self._store.document(job.key), resume=resume)
            self._deaths.pop(job.key, None)
            self.ring()  # only here: what failed is tried again at the next poll, not at once
        except Fenced:
            log.info("job removed before it ran", job=job.prompt_id)
        except NotFound as error:  # its user's account is gone
            await self._fail(job, error.message)
        except Unavailable as error:  # the database or the user's directories
            log.error("job not carried", job=job.prompt_id, error=error.message)
        except Exception as error:
            self._deaths[job.key] = self._deaths.get(job.key, 0) + 1
            log.error("runner died", job=job.prompt_id, deaths=self._deaths[job.key], exc_info=error)
        finally:
            runner = self._runners.pop(job.key, None)
            self._carried.discard(job.key)
            self._cancelled.discard(job.key)
            member.job = None
            member.done += 1
            self._tasks.start(f"tidy {job.key}", self._tidy(member, runner))

    async def _carry(self, job: Job, member: Member, document: JobDocument, *, resume: bool) -> None:
        owner = await self._owner_of(job.user_id, self._secrets.get(job.key, {}))
        runner = Runner(
            job,
            document,
            member=member,
            owner=owner,
            store=self._store,
            listener=self._listener,
            known=self._known,
            elsewhere=partial(self._matching.elsewhere, member),
            settings=self._settings,
        )
        self._runners[job.key] = runner
        if job.key in self._cancelled:
            runner.cancel()
        state = await runner.run(resume=resume)
        member.failed = member.failed + 1 if runner.lost else 0
        if runner.lost:
            self._pool.doubt(member, "it lost a job")
        if runner.upstream.may_run:
            member.leftovers.add(runner.upstream.prompt_id)
        if state in FINAL:
            self._forget(job)
            self._to_prune.add(job.user_id)

    async def _tidy(self, member: Member, runner: Runner | None) -> None:
        """Leave nothing of an ended attempt at the backend; nobody waits for this."""
        removed = self._pool.member(member.key) is not member
        with contextlib.suppress(BackendError, TimeoutError):
            async with asyncio.timeout(TIDY_TIMEOUT_S):
                if runner is not None and runner.upstream.ended:
                    await runner.forget()
                elif runner is not None and removed:
                    await member.leftovers.end(runner.upstream.prompt_id)
        if removed:
            await member.client.close()

    async def _fail(self, job: Job, why: str) -> None:
        message = failed(job.prompt_id, "JobFailed", why)
        with contextlib.suppress(Fenced):
            record = JobRecord(job, self._store, self._listener)
            await record.finish(JobState.FAILED, Result(messages=[as_history(message)]), why, message)
        self._forget(job)

    def _forget(self, job: Job) -> None:
        self._secrets.pop(job.key, None)
        self._deaths.pop(job.key, None)
        self._matching.forget(job.key)
